lithos_unit_test(test_trace ${CMAKE_CURRENT_SOURCE_DIR}/unit/trace_events.c LINK lithos_trace)
lithos_unit_test(test_trace_stat ${CMAKE_CURRENT_SOURCE_DIR}/unit/trace_events.c LINK lithos_trace)
lithos_unit_test(test_trace_cli LINK lithos_trace)
add_dependencies(test_trace_cli lithos)
