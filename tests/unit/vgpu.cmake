lithos_unit_test(test_ptx LINK lithos_vgpu_ptx)
