lithos_unit_test(test_governor LINK lithos_core m)
set_property(TEST unit/test_governor APPEND PROPERTY LABELS notsan) # one thread only
lithos_unit_test(test_energy LINK lithos_core m)
