lithos_unit_test(test_predict LINK lithos_core)
lithos_unit_test(test_predict_workloads LINK lithos_core)
# One thread only: ThreadSanitizer would find nothing.
set_property(TEST unit/test_predict unit/test_predict_workloads APPEND PROPERTY LABELS notsan)
