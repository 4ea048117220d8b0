/* Which TPCs, when fewer are enough. */
#include "base/util.h"
#include "core/rightsize.h"

uint32_t lithos_rightsize_bound(const struct lithos_topology *t, const struct lithos_rightsize_kernel *kernel,
                                uint32_t all)
{
    const uint32_t cluster = LITHOS_MAX(kernel->cluster_blocks, 1u);
    const uint32_t blocks = kernel->blocks;

    if (!blocks)
        return all;
    /* blocks of a cluster lie beside each other: each cluster takes whole TPCs */
    const uint64_t clusters = ((uint64_t)blocks + cluster - 1) / cluster;
    const uint64_t need = cluster > 1 ? clusters * lithos_cluster_tpcs(t, cluster)
                                      : ((uint64_t)blocks + t->sms_per_tpc - 1) / t->sms_per_tpc;
    return (uint32_t)LITHOS_MAX(LITHOS_MIN(need, (uint64_t)all), 1ull);
}

uint32_t lithos_rightsize_waves(const struct lithos_topology *t, const struct lithos_rightsize_kernel *kernel,
                                uint32_t tpcs)
{
    const uint64_t wave = (uint64_t)tpcs * t->sms_per_tpc * kernel->residency;

    if (!wave || !kernel->blocks)
        return 1;
    return (uint32_t)((kernel->blocks + wave - 1) / wave);
}

static struct lithos_tpcset first_of(struct lithos_tpcset set, uint32_t n)
{
    struct lithos_tpcset got = {{0, 0}};

    for (unsigned b = lithos_tpcset_next(&set, 0); b < LITHOS_TPC_BITS && n;
         b = lithos_tpcset_next(&set, b + 1)) {
        lithos_tpcset_add(&got, b);
        n--;
    }
    return got;
}

/* The GPC of `left` with most TPCs, the lowest on a tie; LITHOS_GPC_NONE: none is left. */
static uint32_t widest_gpc(const struct lithos_topology *t, struct lithos_tpcset left)
{
    uint32_t best = LITHOS_GPC_NONE, most = 0;

    for (uint32_t g = 0; g < t->gpc_count; g++) {
        const struct lithos_tpcset here = lithos_tpcset_and(lithos_topology_gpc(t, g), left);
        const uint32_t n = lithos_tpcset_count(&here);
        if (n > most) {
            most = n;
            best = g;
        }
    }
    return best;
}

struct lithos_tpcset lithos_rightsize_pick(const struct lithos_topology *t, struct lithos_tpcset available,
                                           uint32_t tpcs, uint32_t cluster_blocks)
{
    const uint32_t unit = lithos_cluster_tpcs(t, cluster_blocks);
    struct lithos_tpcset got = {{0, 0}}, in_gpcs = {{0, 0}};
    uint32_t have = 0, g;

    available = lithos_tpcset_and(available, t->valid);
    if (tpcs >= lithos_tpcset_count(&available))
        return available;
    for (g = 0; g < t->gpc_count; g++)
        in_gpcs = lithos_tpcset_or(in_gpcs, lithos_topology_gpc(t, g));
    struct lithos_tpcset left = lithos_tpcset_and(available, in_gpcs);
    if (unit == 1) {
        got = first_of(lithos_tpcset_minus(available, in_gpcs), tpcs);
        have = lithos_tpcset_count(&got);
    }
    while (have < tpcs && (g = widest_gpc(t, left)) != LITHOS_GPC_NONE) {
        const struct lithos_tpcset here = lithos_tpcset_and(lithos_topology_gpc(t, g), left);
        const uint32_t want = (tpcs - have + unit - 1) / unit * unit;
        const uint32_t n = LITHOS_MIN(want, lithos_tpcset_count(&here) / unit * unit);
        got = lithos_tpcset_or(got, first_of(here, n));
        have += n;
        left = lithos_tpcset_minus(left, here);
    }
    if (have < tpcs) /* what no whole cluster fits into: its blocks may be of use to nothing else */
        got = lithos_tpcset_or(got, first_of(lithos_tpcset_minus(available, got), tpcs - have));
    return lithos_topology_has_room(t, got, cluster_blocks) ? got : available;
}
