/* What functions are called, and what follows from it: which are to be left whole, and whose blocks wait for each other. */
#pragma once

#include <stdbool.h>

#include "cuda/cuda_abi.h"

/* Of a CUfunction, or a CUkernel under its type: the driver's text. NULL: it tells none. Calls the driver. */
const char *lithos_names_of(CUfunction function);
/* Does its name match one of the patterns in LITHOS_WHOLE (fnmatch, with commas between)? Asked of the driver once a function. */
bool lithos_names_told_whole(CUfunction function);
/* Is it one of those known to have blocks that wait for each other, without a word of it in the launch? */
bool lithos_names_waits(CUfunction function);

/* For who writes names down, each once: beside what is looked up at each launch, so that it costs no cache line of its own. */
/* Has its name been said? */
bool lithos_names_said(CUfunction function);
/* It is about to be: true to the first who asks. A function that is no more noted, there being too many, is never said. May call
 * the driver. */
bool lithos_names_say(CUfunction function);
/* It could not be, after all; none has been. */
void lithos_names_unsay(CUfunction function);
void lithos_names_unsay_all(void);
