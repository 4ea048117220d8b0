lithos_fuzz_test(fuzz_trace LINK lithos_trace)
