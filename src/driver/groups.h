/* The channel groups of this process: what the hardware gives turns to, one or more a context (docs/hardware.md, "Time slices").
 * The driver library makes them by calls into the kernel driver; those calls are looked at, and the groups' time slices set by
 * further calls of the same kind. What is not understood is passed on and left alone. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Groups looked after; more are not, and count as refused. */
#define LITHOS_GROUPS_MAX 256u

struct lithos_groups_state {
    bool watched;     /* calls of the driver are looked at */
    uint32_t groups;  /* that exist */
    uint32_t set;     /* of them those with the slice asked for */
    uint32_t refused; /* and those that the kernel driver would not give it */
    uint32_t
        status; /* its answer to the last of these (nvstatuscodes.h), or LITHOS_GROUPS_ERRNO and an errno */
};

#define LITHOS_GROUPS_ERRNO 0x10000u
#define LITHOS_GROUPS_FULL 0x20000u /* LITHOS_GROUPS_MAX are there */

/* Look at the calls that the driver library of `driver` (of dlopen) makes from now on: before its first context. `changed` is called
 * on the driver's thread, inside its call, when groups have come or changed: it may not wait, nor call the driver. 0; negative
 * errno as lithos_import_replace: nothing is watched. The second time it does nothing. */
int lithos_groups_watch(void *driver, void (*changed)(void));
/* Have all groups run in turns of `us` microseconds, 0: of what they had before. A group is only sure to take it when its context
 * stands, which nothing tells: it is set several times, up to some seconds after its last change. Waits for the kernel driver, 100 to 250
 * us a group on a card. One thread at a time; not on the driver's. Returns when it has something more to do, UINT64_MAX: when groups or
 * `us` have changed. */
uint64_t lithos_groups_apply(uint32_t us, uint64_t now_ns);
void lithos_groups_state(struct lithos_groups_state *ret_state);
/* In the child of a fork: the groups are the parent's. */
void lithos_groups_forget(void);
