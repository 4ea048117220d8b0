lithos_fuzz_test(fuzz_ptx LINK lithos_vgpu_ptx)
