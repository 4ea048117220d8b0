lithos_unit_test(test_cli LINK lithos_cli)
