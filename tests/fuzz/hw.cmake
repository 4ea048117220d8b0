lithos_fuzz_test(fuzz_qmd LINK lithos_hw)
lithos_fuzz_test(fuzz_topology LINK lithos_hw)
lithos_fuzz_test(fuzz_tpcgrant LINK lithos_hw)
lithos_fuzz_test(fuzz_alloc LINK lithos_core)
