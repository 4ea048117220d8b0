# A driver for tests, of the real one's name and shape (stub/stub_driver.h).
add_library(lithos_stub_driver MODULE unit/stub/stub_driver.c unit/stub/stub_exports.c)
target_include_directories(lithos_stub_driver PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/unit)
target_link_libraries(lithos_stub_driver PRIVATE lithos_hw lithos_cuda ${CMAKE_DL_LIBS})
target_link_options(lithos_stub_driver PRIVATE -Wl,-soname,libcuda.so.1 -Wl,-Bsymbolic)
set_target_properties(lithos_stub_driver PROPERTIES PREFIX "" OUTPUT_NAME libcuda SUFFIX .so.580.0.1
  LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests/stub)

foreach(t test_driver_exports)
  lithos_unit_test(${t} LINK lithos_hw lithos_cuda ${CMAKE_DL_LIBS})
  add_dependencies(${t} liblithos lithos_stub_driver)
  target_include_directories(${t} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/unit)
  target_compile_definitions(${t} PRIVATE LITHOS_SANITIZED=$<BOOL:${LITHOS_SANITIZE}>)
endforeach()
lithos_unit_test(test_driver_gate LINK lithos_driver)
