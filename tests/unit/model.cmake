if(TARGET lithos-vgpud)
  lithos_unit_test(test_vgpu_server LINK lithos_hw lithos_model_data)
  add_dependencies(test_vgpu_server lithos-vgpud)
endif()
