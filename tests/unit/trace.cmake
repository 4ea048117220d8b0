lithos_unit_test(test_trace ${CMAKE_CURRENT_SOURCE_DIR}/unit/trace_events.c LINK lithos_trace)
lithos_unit_test(test_trace_format ${CMAKE_CURRENT_SOURCE_DIR}/unit/trace_events.c LINK lithos_trace)
lithos_unit_test(test_trace_stat ${CMAKE_CURRENT_SOURCE_DIR}/unit/trace_events.c LINK lithos_trace)
lithos_unit_test(test_trace_cli LINK lithos_trace)
add_dependencies(test_trace_cli lithos)
# No threads: ThreadSanitizer would only make them slow.
foreach(name trace trace_format trace_stat)
  set_property(TEST unit/test_${name} APPEND PROPERTY LABELS notsan)
endforeach()
