lithos_unit_test(test_timeline LINK lithos_core)
set_property(TEST unit/test_timeline APPEND PROPERTY LABELS notsan)
