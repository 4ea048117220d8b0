lithos_unit_test(test_sched ${CMAKE_CURRENT_SOURCE_DIR}/unit/sched_stand.c LINK lithos_core)
lithos_unit_test(test_sched_trust ${CMAKE_CURRENT_SOURCE_DIR}/unit/sched_stand.c LINK lithos_core)
lithos_unit_test(test_policy LINK lithos_core)
