/* Profilers and debuggers in the program: they subscribe to the same table of the driver as we do, and the driver calls the first
 * subscriber of a process alone. Who that is has to be known, and said. */
#pragma once

#include <stdbool.h>

/* What to hand to a program that asks for the driver's QMD table: a copy that tells us when it subscribes, or the table itself when
 * it is not of the known shape. */
const void *lithos_tools_table(const void *real);
/* It has subscribed, and was before us: to subscribe as well would be for nothing. */
bool lithos_tools_were_first(void);
