#include "sim/scenario.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

void lithos_sim_scenario_init(struct lithos_sim_scenario *sc)
{
    memset(sc, 0, sizeof(*sc));
    lithos_sched_config_defaults(&sc->tuning);
    sc->quiet_ns = 2 * LITHOS_NSEC_PER_SEC;
    sc->node_gap_ns = 1000;
    sc->see_ns = 2000;    /* a record or stamp written to the daemon having read it */
    sc->submit_ns = 2500; /* of the dispatcher's CPU, a launch */
    sc->wake_ns = 1000;   /* a grant written to the dispatcher having read it */
}

static void program_free(struct lithos_sim_program *p)
{
    free(p->kernels);
    free(p->flags);
    free(p->gaps_ns);
    *p = (struct lithos_sim_program){0};
}

void lithos_sim_scenario_free(struct lithos_sim_scenario *sc)
{
    for (uint32_t i = 0; i < LITHOS_SIM_TENANTS_MAX; i++) {
        program_free(&sc->tenants[i].program);
        program_free(&sc->tenants[i].full);
    }
}

struct lithos_wave_kernel lithos_sim_kernel(const struct lithos_card *card, uint64_t duration_ns,
                                            uint32_t tpcs, uint32_t blocks, uint32_t residency,
                                            uint32_t saturation, uint32_t cluster_blocks)
{
    struct lithos_wave_kernel k = {
        .alone_ns = LITHOS_WAVE_PPM,
        .blocks = LITHOS_MAX(blocks, 1u),
        .cluster_blocks = LITHOS_MAX(cluster_blocks, 1u),
        .residency = LITHOS_MIN(LITHOS_MAX(residency, 1u), 64u),
        .stagger_ppm = 500000,
    };
    k.share_ppm = LITHOS_WAVE_PPM / LITHOS_MAX(saturation, 1u);
    k.blocks = (k.blocks + k.cluster_blocks - 1) / k.cluster_blocks * k.cluster_blocks;
    /* how long it would be with blocks of a millisecond, and so how long they are */
    const uint32_t all = lithos_tpcset_count(&card->topology.valid);
    const uint64_t unit = lithos_wave_duration_ns(card, &k, k.blocks, 0, tpcs && tpcs < all ? tpcs : all);
    k.alone_ns = LITHOS_MAX((uint64_t)((unsigned __int128)duration_ns * LITHOS_WAVE_PPM / unit), 1);
    return k;
}

int lithos_sim_program_add(struct lithos_sim_program *p, const struct lithos_wave_kernel *k,
                           uint64_t alone_ns, uint32_t flags)
{
    if ((p->count & (p->count - 1)) == 0) { /* room doubles at each power of two */
        const size_t room = p->count ? 2 * (size_t)p->count : 1;
        struct lithos_wave_kernel *kernels = realloc(p->kernels, room * sizeof *kernels);
        if (!kernels)
            return -ENOMEM;
        p->kernels = kernels;
        uint32_t *all = realloc(p->flags, room * sizeof *all);
        if (!all)
            return -ENOMEM;
        p->flags = all;
    }
    p->kernels[p->count] = *k;
    p->flags[p->count++] = flags;
    p->alone_ns += alone_ns;
    return 0;
}
