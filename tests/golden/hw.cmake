lithos_unit_test(test_qmd_golden LABEL golden LINK lithos_hw)
