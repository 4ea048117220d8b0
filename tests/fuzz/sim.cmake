lithos_fuzz_test(fuzz_sim_scenario LINK lithos_sim)
target_compile_definitions(fuzz_sim_scenario PRIVATE LITHOS_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
