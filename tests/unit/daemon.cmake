foreach(name test_daemon test_daemon_mps test_daemon_observe)
  lithos_unit_test(${name} ${CMAKE_CURRENT_SOURCE_DIR}/unit/test_daemon_rig.c LINK lithos_proto jansson TIMEOUT 120)
  add_dependencies(${name} lithosd)
endforeach()
