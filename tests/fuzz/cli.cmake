lithos_fuzz_test(fuzz_cli LINK lithos_cli)
