/* Launches on fewer TPCs than the quota has, where the client says so (docs/rightsizing.md). */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#include "driver/client.h"
#include "driver/ticket.h"
#include "hw/topology.h"

/* Does the client say so of any launch now? Once a launch, with nothing else where it does not. */
static inline bool lithos_narrow_on(void)
{
    return __builtin_expect(atomic_load_explicit(lithos_hook_client.sizing, memory_order_acquire) != 0, 0);
}

/* Such a launch is to be asked about: what of it the client knows it by. */
static inline void lithos_narrow_ask(struct lithos_ticket *t, const struct lithos_launch *launch)
{
    t->narrow = true;
    for (int i = 0; i < 3; i++) {
        t->grid[i] = launch->grid[i];
        t->block[i] = launch->block[i];
    }
    t->stream = (uintptr_t)launch->stream;
}

/* In the callback, for the kernel of a ticket that is to be asked about, whose device is known, and which may run on `set`, the quota: keep
 * to the client's part of it. What names a TPC that is not in the set, or has no room for the kernel's clusters, is passed over. */
void lithos_narrow(const struct lithos_ticket *t, CUfunction function, unsigned cluster_blocks,
                   struct lithos_tpcset *set);
/* The card of a device, whenever a quota comes into force. Callers take turns. */
void lithos_narrow_set_topology(int device, const struct lithos_topology *topology);
void lithos_narrow_forget(void);
