#include "hw/topology.h"

#include <errno.h>

#include "base/util.h"

int lithos_topology_validate(const struct lithos_topology *t)
{
    if (lithos_tpcset_empty(&t->valid) || t->sms_per_tpc == 0 || t->sms_per_tpc > 8 || t->reserved != 0)
        return -EINVAL;
    if (t->gpc_count > LITHOS_GPC_MAX || t->gpc_stride > LITHOS_TPC_BITS)
        return -EINVAL;
    if (t->gpc_count > 0 && t->gpc_stride == 0)
        return -EINVAL;
    /* Both factors are bounded above, so the product cannot wrap. */
    if (t->gpc_count * t->gpc_stride > LITHOS_TPC_BITS)
        return -EINVAL;
    return 0;
}

uint32_t lithos_topology_gpc_of(const struct lithos_topology *t, unsigned bit)
{
    if (bit >= LITHOS_TPC_BITS || t->gpc_stride == 0 || bit / t->gpc_stride >= t->gpc_count)
        return LITHOS_GPC_NONE;
    return bit / t->gpc_stride;
}

/* Bits [0, n). */
static struct lithos_tpcset below(unsigned n)
{
    if (n >= 128)
        return (struct lithos_tpcset){{UINT64_MAX, UINT64_MAX}};
    if (n >= 64)
        return (struct lithos_tpcset){{UINT64_MAX, (1ull << (n - 64)) - 1}};
    return (struct lithos_tpcset){{(1ull << n) - 1, 0}};
}

struct lithos_tpcset lithos_topology_gpc(const struct lithos_topology *t, uint32_t gpc)
{
    if (gpc >= t->gpc_count)
        return (struct lithos_tpcset){{0, 0}};
    struct lithos_tpcset bits =
        lithos_tpcset_minus(below((gpc + 1) * t->gpc_stride), below(gpc * t->gpc_stride));
    return lithos_tpcset_and(bits, t->valid);
}

unsigned lithos_cluster_tpcs(const struct lithos_topology *t, unsigned cluster_blocks)
{
    if (cluster_blocks <= 1)
        return 1;
    return cluster_blocks / t->sms_per_tpc + (cluster_blocks % t->sms_per_tpc != 0);
}

/* Most TPCs of the set that lie in one GPC; 1 when it only names single TPCs, 0 when it names none of the
 * card. */
static unsigned largest_part(const struct lithos_topology *t, struct lithos_tpcset set)
{
    set = lithos_tpcset_and(set, t->valid);
    unsigned most = lithos_tpcset_empty(&set) ? 0 : 1;
    for (uint32_t g = 0; g < t->gpc_count; g++) {
        struct lithos_tpcset part = lithos_tpcset_and(set, lithos_topology_gpc(t, g));
        most = LITHOS_MAX(most, lithos_tpcset_count(&part));
    }
    return most;
}

unsigned lithos_topology_largest_cluster(const struct lithos_topology *t, struct lithos_tpcset set)
{
    return LITHOS_MIN(largest_part(t, set) * t->sms_per_tpc, LITHOS_CLUSTER_MAX);
}

bool lithos_topology_has_room(const struct lithos_topology *t, struct lithos_tpcset set,
                              unsigned cluster_blocks)
{
    if (cluster_blocks > LITHOS_CLUSTER_MAX)
        return false;
    if (lithos_cluster_tpcs(t, cluster_blocks) == 1) {
        const struct lithos_tpcset there = lithos_tpcset_and(set, t->valid);
        return !lithos_tpcset_empty(&there);
    }
    return largest_part(t, set) >= lithos_cluster_tpcs(t, cluster_blocks);
}

/* own plus the lowest `more` bits of `from`. */
static struct lithos_tpcset add_lowest(struct lithos_tpcset own, struct lithos_tpcset from, unsigned more)
{
    for (unsigned b = lithos_tpcset_next(&from, 0); more > 0 && b < LITHOS_TPC_BITS;
         b = lithos_tpcset_next(&from, b + 1), more--)
        lithos_tpcset_add(&own, b);
    return own;
}

int lithos_topology_make_room(const struct lithos_topology *t, struct lithos_tpcset own,
                              unsigned cluster_blocks, struct lithos_tpcset *ret_set)
{
    own = lithos_tpcset_and(own, t->valid);
    if (lithos_topology_has_room(t, own, cluster_blocks)) {
        *ret_set = own;
        return 0;
    }
    if (cluster_blocks > LITHOS_CLUSTER_MAX)
        return -ENOSPC;

    const unsigned need = lithos_cluster_tpcs(t, cluster_blocks);
    unsigned fewest = UINT32_MAX;
    struct lithos_tpcset best_free = {{0, 0}};
    for (uint32_t g = 0; g < t->gpc_count; g++) {
        struct lithos_tpcset gpc = lithos_topology_gpc(t, g);
        struct lithos_tpcset mine = lithos_tpcset_and(gpc, own);
        if (lithos_tpcset_count(&gpc) < need)
            continue;
        unsigned more = need - lithos_tpcset_count(&mine);
        if (more < fewest) {
            fewest = more;
            best_free = lithos_tpcset_minus(gpc, own);
        }
    }
    if (fewest == UINT32_MAX && need == 1) {
        /* Only single TPCs on this card: own is empty here, so any of them is the smallest set. */
        fewest = 1;
        best_free = t->valid;
    }
    if (fewest == UINT32_MAX)
        return -ENOSPC;
    *ret_set = add_lowest(own, best_free, fewest);
    return 0;
}
