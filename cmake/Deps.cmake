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

find_package(PkgConfig REQUIRED)
pkg_check_modules(NCURSES REQUIRED ncursesw)
# The archives, unless their folder has none: libncursesw.a needs libtinfo.a.
find_library(LITHOS_NCURSES NAMES libncursesw.a HINTS ${NCURSES_LIBRARY_DIRS} ${NCURSES_LIBDIR})
find_library(LITHOS_TINFO NAMES libtinfo.a HINTS ${NCURSES_LIBRARY_DIRS} ${NCURSES_LIBDIR})
add_library(ncurses INTERFACE IMPORTED GLOBAL)
if(LITHOS_NCURSES AND LITHOS_TINFO)
  target_link_libraries(ncurses INTERFACE ${LITHOS_NCURSES} ${LITHOS_TINFO} ${CMAKE_DL_LIBS})
else()
  target_link_libraries(ncurses INTERFACE ${NCURSES_LINK_LIBRARIES})
endif()
target_include_directories(ncurses INTERFACE ${NCURSES_INCLUDE_DIRS})
