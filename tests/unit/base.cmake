lithos_unit_test(test_base LINK lithos_base)
