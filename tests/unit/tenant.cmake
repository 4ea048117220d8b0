add_library(lithos_stub_cupti MODULE unit/stub/cupti.c)
set_target_properties(lithos_stub_cupti PROPERTIES PREFIX "" OUTPUT_NAME libcupti SUFFIX .so.13
  LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests/stub)

# Over the stub driver of driver.cmake, with a daemon played by the test.
foreach(t test_tenant test_tenant_observe test_tenant_sizes)
  lithos_unit_test(${t} LINK lithos_proto lithos_hw lithos_cuda ${CMAKE_DL_LIBS})
  add_dependencies(${t} liblithos lithos_stub_driver)
  target_include_directories(${t} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/unit)
  target_compile_definitions(${t} PRIVATE LITHOS_SANITIZED=${sanitized})
endforeach()
lithos_unit_test(test_queue_ring LINK lithos_tenant)
add_dependencies(test_tenant lithos_stub_cupti)
target_compile_definitions(test_tenant PRIVATE STUB_CUPTI_PATH="$<TARGET_FILE:lithos_stub_cupti>")
# The queues over a driver that is a table of functions: the program is its own client.
add_library(lithos_queue_rig OBJECT unit/queue_rig.c)
target_include_directories(lithos_queue_rig PRIVATE ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/tests ${CMAKE_CURRENT_SOURCE_DIR}/unit)
target_compile_definitions(lithos_queue_rig PRIVATE LITHOS_BINARY_DIR="${PROJECT_BINARY_DIR}")
target_link_libraries(lithos_queue_rig PRIVATE lithos_tenant lithos_hw lithos_cuda PkgConfig::CMOCKA)
foreach(t test_queue_calls test_queue_window)
  lithos_unit_test(${t} $<TARGET_OBJECTS:lithos_queue_rig>
    LINK lithos_driver_front lithos_tenant lithos_hw lithos_cuda ${CMAKE_DL_LIBS})
  add_dependencies(${t} lithos_stub_driver)
  target_include_directories(${t} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/unit)
endforeach()
# Over the virtual GPU's driver, with a card and a daemon played by the test.
lithos_unit_test(test_tenant_graphs unit/stub/vgpu_server.c LINK lithos_proto lithos_hw lithos_cuda ${CMAKE_DL_LIBS})
add_dependencies(test_tenant_graphs liblithos lithos_vgpu_cuda)
target_include_directories(test_tenant_graphs PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/unit)
