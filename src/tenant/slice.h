/* Time slices of this process' channel groups, as the grant has them (docs/adr/0025-preemption-by-time-slice.md). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* A grant is in force: have the groups of this process watched, if `watch`, and give those that there are and will be turns of `us`
 * microseconds, 0: of the driver's own length. Any thread; a thread of its own does the work, and says in the arena what came of it. */
void lithos_slice_want(bool watch, uint32_t us);
/* The arena is another one now. */
void lithos_slice_renew(void);
/* In the child of a fork. */
void lithos_slice_forget(void);
