lithos_unit_test(test_ptx LINK lithos_vgpu_ptx)
# The library is loaded as a program does it, from the build tree.
lithos_unit_test(test_vgpu_client unit/stub/vgpu_server.c LINK lithos_hw)
add_dependencies(test_vgpu_client lithos_vgpu_cuda)
lithos_unit_test(test_vgpu_mps unit/stub/vgpu_server.c LINK lithos_hw)
add_dependencies(test_vgpu_mps lithos_vgpu_cuda lithos-vgpu-mps)
