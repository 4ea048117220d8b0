lithos_unit_test(test_trace ${CMAKE_CURRENT_SOURCE_DIR}/unit/trace_events.c LINK lithos_trace)
