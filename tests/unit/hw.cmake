lithos_unit_test(test_topology LINK lithos_hw)
lithos_unit_test(test_tpcgrant LINK lithos_hw)
lithos_unit_test(test_qmd LINK lithos_hw)
lithos_unit_test(test_alloc LINK lithos_core)
