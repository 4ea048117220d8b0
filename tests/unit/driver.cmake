# A driver for tests, of the real one's name and shape (stub/stub_driver.h).
add_library(lithos_stub_driver MODULE unit/stub/stub_driver.c unit/stub/stub_exports.c)
target_include_directories(lithos_stub_driver PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/unit)
target_link_libraries(lithos_stub_driver PRIVATE lithos_hw lithos_cuda ${CMAKE_DL_LIBS})
target_link_options(lithos_stub_driver PRIVATE -Wl,-soname,libcuda.so.1 -Wl,-Bsymbolic)
set_target_properties(lithos_stub_driver PROPERTIES PREFIX "" OUTPUT_NAME libcuda SUFFIX .so.580.0.1
  LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests/stub)

if(LITHOS_SANITIZE)
  set(sanitized 1)
else()
  set(sanitized 0)
endif()
foreach(t test_driver_exports test_driver_hooks)
  lithos_unit_test(${t} LINK lithos_proto lithos_hw lithos_cuda ${CMAKE_DL_LIBS})
  add_dependencies(${t} liblithos lithos_stub_driver)
  target_include_directories(${t} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/unit)
  target_compile_definitions(${t} PRIVATE LITHOS_SANITIZED=${sanitized})
endforeach()
lithos_unit_test(test_driver_gate LINK lithos_driver)

# cuda_abi.h against the real header, where there is one. Never needed to build.
lithos_unit_test(test_cuda_abi LINK lithos_base lithos_cuda)
target_include_directories(test_cuda_abi PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/unit)
find_file(LITHOS_CUDA_H cuda.h NO_DEFAULT_PATH
  HINTS $ENV{CUDA_HOME}/include $ENV{CUDA_PATH}/include /usr/local/cuda/include
        /usr/local/cuda-13.0/include /usr/local/cuda/targets/x86_64-linux/include)
if(LITHOS_CUDA_H)
  # The two X-macro lists of cuda_abi.h, without its types.
  file(READ ${PROJECT_SOURCE_DIR}/src/cuda/cuda_abi.h abi)
  string(REGEX MATCHALL "#define CUDA_[A-Z]+\\(X\\)[^\n]*\\\\\n([^\n]*\\\\\n)*[^\n]*\n" lists "${abi}")
  string(REPLACE ";" "" lists "${lists}")
  file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/abi/cuda_abi_lists.h "#pragma once\n${lists}")
  get_filename_component(cuda_include ${LITHOS_CUDA_H} DIRECTORY)
  target_sources(test_cuda_abi PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/unit/stub/cuda_h_facts.c)
  set_source_files_properties(${CMAKE_CURRENT_SOURCE_DIR}/unit/stub/cuda_h_facts.c PROPERTIES
    COMPILE_OPTIONS "-isystem;${cuda_include};-I${CMAKE_CURRENT_BINARY_DIR}/abi")
  target_compile_definitions(test_cuda_abi PRIVATE LITHOS_CUDA_H="${LITHOS_CUDA_H}")
endif()

lithos_unit_test(test_driver_probe LINK lithos_driver_probe)
add_dependencies(test_driver_probe lithos_stub_driver)
target_include_directories(test_driver_probe PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/unit)

# The front without a tenant behind it: the program is its own client.
foreach(t test_driver_order test_driver_graphs)
  lithos_unit_test(${t} LINK lithos_driver_front lithos_hw lithos_cuda ${CMAKE_DL_LIBS})
  add_dependencies(${t} lithos_stub_driver)
  target_include_directories(${t} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/unit)
endforeach()

# Channel groups: a library whose ioctl() is the test's own.
add_library(lithos_stub_ioctl MODULE unit/stub/stub_ioctl.c)
target_link_options(lithos_stub_ioctl PRIVATE -Wl,-z,relro,-z,now)
set_target_properties(lithos_stub_ioctl PROPERTIES PREFIX "" OUTPUT_NAME stub_ioctl
  LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests/stub)
lithos_unit_test(test_driver_groups LINK lithos_driver lithos_cuda ${CMAKE_DL_LIBS})
add_dependencies(test_driver_groups lithos_stub_ioctl)
set_target_properties(test_driver_groups PROPERTIES ENABLE_EXPORTS ON)
