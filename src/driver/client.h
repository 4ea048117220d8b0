/* What the hooks need from whoever links them (src/tenant; a test's fake): where to count, and when to look
 * again. The hooks know no arena and no daemon. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* What the hooks count. The client says where: names as in proto/counters.def. */
enum lithos_hook_count {
    LITHOS_COUNT_LAUNCHES,
    LITHOS_COUNT_QMDS,
    LITHOS_COUNT_DRIVER_QMDS,
    LITHOS_COUNT_GRAPH_QMDS,
    LITHOS_COUNT_GRAPH_LAUNCHES,
    LITHOS_COUNT_ESCAPED,
    LITHOS_COUNT_BREACHES,
    LITHOS_COUNT_UNMASKED,
    LITHOS_COUNT_MASKED,
    LITHOS_COUNT_MAX,
};

struct lithos_hook_client {
    /* Counters, valid as long as the process lives. */
    _Atomic uint64_t *counters[LITHOS_COUNT_MAX];
    /* A word that changes when the masks may have: read once a launch. Valid as long as the process lives. */
    const _Atomic uint32_t *watch;
    /* Called by a launching thread that found *watch other than lithos_hook_seen: rebuild the masks
     * (lithos_hook_mask) and set lithos_hook_seen. Must not wait. */
    void (*refresh)(void);
    /* Called by the thread that called cuInit, once it has succeeded, at most once a process; bounded. May
     * use the driver. */
    void (*started)(void);
    /* Called by InitializeInjection when the process reached the real driver past us, inside the real cuInit,
     * where the driver may not be called. */
    void (*injected)(void);
    /* Is this process to be counted and masked at all? Asked once, at the first cuInit. */
    bool (*wanted)(void);
};

/* Defined by whoever links lithos_driver_front. */
extern const struct lithos_hook_client lithos_hook_client;
