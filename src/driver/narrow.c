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

void lithos_narrow(int32_t device, const struct lithos_qmd_seen *seen, uint64_t stream,
                   struct lithos_tpcset *set)
{
    struct lithos_qmd_view v;
    struct lithos_tpcset tpcs;
    uint32_t grid[3];
    if (!seen->layout || atomic_load_explicit(&cards[device].known, memory_order_acquire) != KNOWN)
        return;
    lithos_qmd_decode(seen->layout, seen->qmd, &v);
    for (int i = 0; i < 3; i++)
        grid[i] = v.grid[i] * LITHOS_MAX(1u, v.cluster[i]);
    if (!lithos_hook_client.size((uintptr_t)seen->function, grid, v.block, stream, &tpcs))
        return;
    const struct lithos_tpcset outside = lithos_tpcset_minus(tpcs, *set);
    if (lithos_tpcset_empty(&outside) &&
        lithos_topology_has_room(&cards[device].topology, tpcs, seen->brief.cluster_blocks))
        *set = tpcs;
}
