lithos_fuzz_test(fuzz_sched LINK lithos_core)
