# Flavours: RelWithDebInfo (dev), Release (dist), Sanitize (asan, tsan; fast enough to build and to test with, frames intact, lines for reports).
set(CMAKE_C_FLAGS_RELWITHDEBINFO "-O2")
set(CMAKE_C_FLAGS_RELEASE "-O2")
set(CMAKE_C_FLAGS_SANITIZE "-O1")
add_compile_definitions(_GNU_SOURCE)
add_compile_options(
  $<$<COMPILE_LANGUAGE:C>:-Wall> $<$<COMPILE_LANGUAGE:C>:-Wextra> $<$<COMPILE_LANGUAGE:C>:-Wshadow>
  $<$<COMPILE_LANGUAGE:C>:-Wstrict-prototypes> $<$<COMPILE_LANGUAGE:C>:-Wmissing-prototypes>
  $<$<COMPILE_LANGUAGE:C>:-Wpointer-arith> $<$<COMPILE_LANGUAGE:C>:-Wvla>
  $<$<COMPILE_LANGUAGE:C>:-fno-common> $<IF:$<CONFIG:Sanitize>,-g1,-g>
  # no path of the building machine in what is built
  -ffile-prefix-map=${PROJECT_SOURCE_DIR}=.)
if(LITHOS_WERROR)
  add_compile_options($<$<COMPILE_LANGUAGE:C>:-Werror>)
endif()

# What target is linked from, optimised as if it were one file. The objects also hold code of their own, with which all else is linked.
function(lithos_optimise_together target)
  if(LITHOS_SANITIZE OR NOT CMAKE_C_COMPILER_ID STREQUAL "GNU")
    return()
  endif()
  foreach(t ${target} ${ARGN})
    target_compile_options(${t} PRIVATE $<$<COMPILE_LANGUAGE:C>:-flto=auto> $<$<COMPILE_LANGUAGE:C>:-ffat-lto-objects>)
  endforeach()
  target_link_options(${target} PRIVATE -flto=auto -flto-partition=one -O2)
endfunction()

if(LITHOS_SANITIZE)
  # gcc guesses string lengths worse in instrumented code
  add_compile_options(-fsanitize=${LITHOS_SANITIZE} -fno-omit-frame-pointer -Wno-format-truncation -Wno-maybe-uninitialized)
  if(LITHOS_SANITIZE MATCHES "undefined")
    add_compile_options(-fno-sanitize-recover=undefined)
  endif()
  add_link_options(-fsanitize=${LITHOS_SANITIZE})
endif()
