# Third-party libraries. LITHOS_STATIC_DEPS (the release preset) takes their static archives, so that the programs of
# `make dist` need nothing of the machine they run on but its C library.
option(LITHOS_STATIC_DEPS "Link third-party libraries statically" OFF)
if(LITHOS_STATIC_DEPS)
  set(CMAKE_FIND_LIBRARY_SUFFIXES .a .so)
endif()

# lithos_dependency(TARGET LIB HEADER PACKAGE): target TARGET for library LIB, or a message that names the package.
function(lithos_dependency target lib header package)
  find_library(LITHOS_LIB_${target} NAMES ${lib})
  find_path(LITHOS_INCLUDE_${target} NAMES ${header})
  mark_as_advanced(LITHOS_LIB_${target} LITHOS_INCLUDE_${target})
  if(NOT LITHOS_LIB_${target} OR NOT LITHOS_INCLUDE_${target})
    message(FATAL_ERROR "${header} or lib${lib} is missing: install ${package} (tools/bootstrap.sh does)")
  endif()
  if(LITHOS_STATIC_DEPS AND NOT LITHOS_LIB_${target} MATCHES "\\.a$")
    message(FATAL_ERROR "lib${lib}.a is missing: the release build links it statically (package ${package})")
  endif()
  add_library(${target} INTERFACE IMPORTED GLOBAL)
  target_link_libraries(${target} INTERFACE ${LITHOS_LIB_${target}})
  target_include_directories(${target} INTERFACE ${LITHOS_INCLUDE_${target}})
endfunction()

lithos_dependency(jansson jansson jansson.h libjansson-dev)
