#include "driver/narrow.h"

#include <string.h>

#include "base/util.h"
#include "driver/qmd_hook.h"

/* Of a card: written once, for the callback reads it whenever it likes. A card that is said to be another one later on is not
 * believed either way. */
enum known { UNKNOWN, KNOWN, DOUBTFUL };

static struct {
    _Atomic int known;
    struct lithos_topology topology;
} cards[LITHOS_HOOK_MAX_DEVICES];

void lithos_narrow_set_topology(int device, const struct lithos_topology *topology)
{
    const int known = atomic_load_explicit(&cards[device].known, memory_order_relaxed);
    if (known == UNKNOWN) {
        cards[device].topology = *topology;
        atomic_store_explicit(&cards[device].known, KNOWN, memory_order_release);
    } else if (memcmp(&cards[device].topology, topology, sizeof *topology)) {
        atomic_store_explicit(&cards[device].known, DOUBTFUL, memory_order_relaxed);
    }
}

void lithos_narrow_forget(void)
{
    for (int i = 0; i < LITHOS_HOOK_MAX_DEVICES; i++)
        atomic_store_explicit(&cards[i].known, UNKNOWN, memory_order_relaxed);
}

/* Anywhere in the quota one block has room. */
static bool has_room(int32_t device, struct lithos_tpcset tpcs, unsigned cluster_blocks)
{
    return cluster_blocks == 1 ||
           (atomic_load_explicit(&cards[device].known, memory_order_acquire) == KNOWN &&
            lithos_topology_has_room(&cards[device].topology, tpcs, cluster_blocks));
}

LITHOS_LAUNCH_PATH void lithos_narrow(const struct lithos_ticket *t, CUfunction function,
                                      unsigned cluster_blocks, struct lithos_tpcset *set)
{
    struct lithos_tpcset tpcs;
    if (!lithos_hook_client.size((uintptr_t)function, t->grid, t->block, t->stream, &tpcs))
        return;
    const struct lithos_tpcset outside = lithos_tpcset_minus(tpcs, *set);
    if (lithos_tpcset_empty(&outside) && !lithos_tpcset_empty(&tpcs) &&
        has_room(t->device, tpcs, cluster_blocks))
        *set = tpcs;
}
