# The benchmark harness itself, on the virtual GPU.
lithos_e2e_test(bench_isolation bench.py isolation TIMEOUT 200 LABELS nosan)
lithos_e2e_test(bench_overhead bench.py overhead TIMEOUT 200 LABELS nosan)
lithos_e2e_test(bench_stamps bench.py stamps TIMEOUT 120 LABELS nosan)
lithos_e2e_test(bench_predict bench.py predict TIMEOUT 120 LABELS nosan)
lithos_e2e_test(bench_atoms bench.py atoms TIMEOUT 120 LABELS nosan)
lithos_e2e_test(bench_exact bench.py exact TIMEOUT 120 LABELS nosan)
lithos_e2e_test(bench_hol bench.py hol TIMEOUT 200 LABELS nosan)
lithos_e2e_test(bench_show bench_show.py TIMEOUT 120 LABELS nosan)
