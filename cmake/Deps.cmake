# Third-party libraries, as targets. Their static archives, where there are any: the programs of `make dist` must need
# nothing of the machine they run on but its C library.
find_library(LITHOS_JANSSON NAMES libjansson.a jansson)
find_path(LITHOS_JANSSON_INCLUDE NAMES jansson.h)
if(NOT LITHOS_JANSSON OR NOT LITHOS_JANSSON_INCLUDE)
  message(FATAL_ERROR "jansson is missing: install libjansson-dev (tools/bootstrap.sh does)")
endif()
add_library(jansson INTERFACE IMPORTED GLOBAL)
target_link_libraries(jansson INTERFACE ${LITHOS_JANSSON})
target_include_directories(jansson INTERFACE ${LITHOS_JANSSON_INCLUDE})
