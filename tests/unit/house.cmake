# The checks of the house itself: that they find what is planted for them.
add_test(NAME unit/check_layers COMMAND python3 ${PROJECT_SOURCE_DIR}/tools/check-layers --self-test)
set_tests_properties(unit/check_layers PROPERTIES LABELS "unit;nosan" TIMEOUT 60)
# What the benchmarks reckon with.
add_test(NAME unit/test_bench COMMAND python3 ${PROJECT_SOURCE_DIR}/tests/unit/test_bench.py)
set_tests_properties(unit/test_bench PROPERTIES LABELS "unit;nosan" TIMEOUT 60)
