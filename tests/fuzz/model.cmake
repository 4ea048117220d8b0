if(TARGET lithos_vgpu_work)
  lithos_fuzz_test(fuzz_vgpu_wire LINK lithos_vgpu_work)
endif()
lithos_fuzz_test(fuzz_model_files LINK lithos_model_data)
