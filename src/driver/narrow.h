/* Launches on fewer TPCs than the quota has, where the client says so (docs/rightsizing.md). */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#include "driver/client.h"
#include "hw/topology.h"

/* Does the client say so of any launch now? Once a launch, with nothing else where it does not. */
static inline bool lithos_narrow_on(void)
{
    return __builtin_expect(atomic_load_explicit(lithos_hook_client.sizing, memory_order_acquire) != 0, 0);
}

/* In the callback, for the app's own kernel that may run on `set`, the quota: keep to the client's part of it. What names a TPC
 * that is not in the set, or has no room for the kernel's clusters, is passed over. device: index, known. stream: as in a ticket. */
void lithos_narrow(int32_t device, const struct lithos_qmd_seen *seen, uint64_t stream,
                   struct lithos_tpcset *set);
/* The card of a device, whenever a quota comes into force. Callers take turns. */
void lithos_narrow_set_topology(int device, const struct lithos_topology *topology);
void lithos_narrow_forget(void);
