foreach(name test_daemon test_daemon_mps test_daemon_observe test_daemon_lend test_daemon_rightsize)
  lithos_unit_test(${name} ${CMAKE_CURRENT_SOURCE_DIR}/unit/test_daemon_rig.c LINK lithos_proto jansson TIMEOUT 120)
  add_dependencies(${name} lithosd)
endforeach()
# Its process is played by the test, and computes beside lithosd all the time: with others at work on few processors it takes minutes. Whose threads
# meet in the size table is unit/test_tenant_sizes, and lithosd's own are in its other tests.
set_property(TEST unit/test_daemon_rightsize APPEND PROPERTY LABELS notsan)
lithos_unit_test(test_lend LINK lithos_daemon)
lithos_unit_test(test_rightsize_kernel LINK lithos_daemon)
