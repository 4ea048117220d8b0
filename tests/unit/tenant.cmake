# Over the stub driver of driver.cmake, with a daemon played by the test.
lithos_unit_test(test_tenant LINK lithos_proto lithos_hw lithos_cuda ${CMAKE_DL_LIBS})
add_dependencies(test_tenant liblithos lithos_stub_driver)
target_include_directories(test_tenant PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/unit)
