lithos_unit_test(test_ptx LINK lithos_vgpu_ptx)
# The library is loaded as a program does it, from the build tree.
lithos_unit_test(test_vgpu_client unit/stub/vgpu_server.c LINK lithos_hw)
add_library(vgpu_injection MODULE unit/stub/vgpu_injection.c)
set_target_properties(vgpu_injection PROPERTIES
  PREFIX "" LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
add_dependencies(test_vgpu_client lithos_vgpu_cuda vgpu_injection)
lithos_unit_test(test_vgpu_stamps unit/stub/vgpu_server.c LINK lithos_hw)
add_dependencies(test_vgpu_stamps lithos_vgpu_cuda)
lithos_unit_test(test_vgpu_graph unit/stub/vgpu_server.c LINK lithos_hw)
add_dependencies(test_vgpu_graph lithos_vgpu_cuda)
lithos_unit_test(test_vgpu_mps unit/stub/vgpu_server.c LINK lithos_hw)
add_dependencies(test_vgpu_mps lithos_vgpu_cuda lithos-vgpu-mps)
