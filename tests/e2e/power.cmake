# Clocks, energy, and that clocks never outlive lithosd. The test itself is a program that loads the virtual NVML.
lithos_e2e_test(bench_scaling bench.py scaling TIMEOUT 120 LABELS nosan)
lithos_e2e_test(bench_power_advise bench.py power_advise TIMEOUT 120 LABELS nosan)
lithos_e2e_test(power power.py TIMEOUT 120 LABELS nosan)
lithos_e2e_test(bench_energy bench.py energy TIMEOUT 120 LABELS nosan)
