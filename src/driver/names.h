/* What functions are called, and which of them are to be left whole because they are called so. */
#pragma once

#include <stdbool.h>

#include "cuda/cuda_abi.h"

/* Of a CUfunction, or a CUkernel under its type: the driver's text. NULL: it tells none. Calls the driver. */
const char *lithos_names_of(CUfunction function);
/* Does its name match one of the patterns in LITHOS_WHOLE (fnmatch, with commas between)? Asked of the driver once a function. */
bool lithos_names_told_whole(CUfunction function);
