# Whose threads meet in the size table: unit/test_tenant_sizes, under every sanitizer.
lithos_e2e_test(rightsize rightsize.py TIMEOUT 120 LABELS notsan)
lithos_e2e_test(rightsize_lend rightsize_lend.py TIMEOUT 120 LABELS notsan)
lithos_e2e_test(bench_rightsize_live bench.py rightsize_live TIMEOUT 120 LABELS nosan)
lithos_e2e_test(bench_rightsize_safety bench.py rightsize_safety TIMEOUT 120 LABELS nosan)
