# Over the stub driver of driver.cmake, with a daemon played by the test.
foreach(t test_tenant test_tenant_observe test_tenant_sizes)
  lithos_unit_test(${t} LINK lithos_proto lithos_hw lithos_cuda ${CMAKE_DL_LIBS})
  add_dependencies(${t} liblithos lithos_stub_driver)
  target_include_directories(${t} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/unit)
  target_compile_definitions(${t} PRIVATE LITHOS_SANITIZED=${sanitized})
endforeach()
lithos_unit_test(test_queue_ring LINK lithos_tenant)
# The queues over a driver that is a table of functions: the program is its own client.
foreach(t test_queue_calls test_queue_window)
  lithos_unit_test(${t} ${CMAKE_CURRENT_SOURCE_DIR}/unit/queue_rig.c
    LINK lithos_driver_front lithos_tenant lithos_hw lithos_cuda ${CMAKE_DL_LIBS})
  add_dependencies(${t} lithos_stub_driver)
  target_include_directories(${t} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/unit)
endforeach()
