lithos_unit_test(test_sched LINK lithos_core)
lithos_unit_test(test_policy LINK lithos_core)
