lithos_unit_test(test_trace ${CMAKE_CURRENT_SOURCE_DIR}/unit/trace_events.c LINK lithos_trace)
lithos_unit_test(test_trace_format ${CMAKE_CURRENT_SOURCE_DIR}/unit/trace_events.c LINK lithos_trace)
lithos_unit_test(test_trace_stat ${CMAKE_CURRENT_SOURCE_DIR}/unit/trace_events.c LINK lithos_trace)
lithos_unit_test(test_trace_cli LINK lithos_trace)
add_dependencies(test_trace_cli lithos)
# A tool of tests/e2e/observe.py.
add_executable(trace_rewrite ${CMAKE_CURRENT_SOURCE_DIR}/unit/trace_rewrite.c ${CMAKE_CURRENT_SOURCE_DIR}/unit/trace_events.c)
target_include_directories(trace_rewrite PRIVATE ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/tests)
target_link_libraries(trace_rewrite PRIVATE lithos_trace)
set_target_properties(trace_rewrite PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
# No threads: ThreadSanitizer would only make them slow.
foreach(name trace trace_format trace_stat)
  set_property(TEST unit/test_${name} APPEND PROPERTY LABELS notsan)
endforeach()
