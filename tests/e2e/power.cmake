# Clocks, energy, and that clocks never outlive lithosd. The test itself is a program that loads the virtual NVML.
lithos_e2e_test(power power.py TIMEOUT 120 LABELS nosan)
