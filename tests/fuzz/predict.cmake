lithos_fuzz_test(fuzz_predict LINK lithos_core)
