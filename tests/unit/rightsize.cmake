lithos_unit_test(test_rightsize LINK lithos_core m)
lithos_unit_test(test_rightsize_loop LINK lithos_core)
lithos_unit_test(test_rightsize_advise LINK lithos_core m)
lithos_unit_test(test_rightsize_strip LINK lithos_core)
lithos_unit_test(test_rightsize_room LINK lithos_core)
lithos_unit_test(test_rightsize_host LINK lithos_core)
# One thread only: ThreadSanitizer would find nothing.
set_property(TEST unit/test_rightsize unit/test_rightsize_loop unit/test_rightsize_advise unit/test_rightsize_strip unit/test_rightsize_room unit/test_rightsize_host APPEND PROPERTY LABELS notsan)
