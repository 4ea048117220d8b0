# lithos_library(NAME SOURCES... [LINK libs...]): the static library lithos_NAME of a folder; include paths are "NAME/header.h".
function(lithos_library name)
  cmake_parse_arguments(A "" "" "LINK" ${ARGN})
  add_library(lithos_${name} STATIC ${A_UNPARSED_ARGUMENTS})
  target_include_directories(lithos_${name} PUBLIC ${PROJECT_SOURCE_DIR}/src)
  target_link_libraries(lithos_${name} PUBLIC ${A_LINK})
endfunction()

# What is installed, without the tests: all that `make demo` needs.
add_custom_target(programs)

# lithos_program(NAME DIR SOURCES... [LINK libs...]): a program put (and installed) into DIR of cmake/Layout.cmake.
function(lithos_program name dir)
  cmake_parse_arguments(A "" "" "LINK" ${ARGN})
  add_executable(${name} ${A_UNPARSED_ARGUMENTS})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/src)
  target_link_libraries(${name} PRIVATE ${A_LINK})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/${dir})
  install(TARGETS ${name} RUNTIME DESTINATION ${dir})
  add_dependencies(programs ${name})
endfunction()

# lithos_data(DIR FILES...): data files copied into DIR of the build tree at configure time, and installed there.
function(lithos_data dir)
  foreach(f ${ARGN})
    get_filename_component(base ${f} NAME)
    configure_file(${f} ${PROJECT_BINARY_DIR}/${dir}/${base} COPYONLY)
  endforeach()
  install(FILES ${ARGN} DESTINATION ${dir})
endfunction()
