lithos_unit_test(test_timeline LINK lithos_core)
set_property(TEST unit/test_timeline APPEND PROPERTY LABELS notsan)
lithos_unit_test(test_observe LINK lithos_daemon lithos_cli)
set_property(TEST unit/test_observe APPEND PROPERTY LABELS notsan)
