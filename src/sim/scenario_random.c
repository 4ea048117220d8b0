/* Scenarios drawn from a seed, for the swarm: small, varied, and with things going wrong. What can not work on any
 * scheduler is left out: owners get less work than their quota does, and clusters that it has room for. */
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "core/alloc.h"
#include "sim/random.h"
#include "sim/scenario.h"

#define US LITHOS_NSEC_PER_USEC
#define MS LITHOS_NSEC_PER_MSEC

struct drawing {
    struct lithos_sim_scenario *sc;
    struct lithos_random r;
    struct lithos_alloc alloc;
};

static bool chance(struct drawing *d, unsigned percent)
{
    return lithos_random_below(&d->r, 100) < percent;
}

/* Every order of magnitude as likely as every other. */
static uint64_t spread(struct drawing *d, uint64_t least, uint64_t most)
{
    unsigned octaves = 0;
    while (least << (octaves + 1) <= most)
        octaves++;
    const uint64_t from = least << lithos_random_below(&d->r, octaves + 1);
    return LITHOS_MIN(from + lithos_random_below(&d->r, from + 1), most);
}

/* Dies differ: some TPCs are missing. */
static void sweep(struct drawing *d)
{
    struct lithos_topology *t = &d->sc->card.topology;

    for (unsigned b = 0; b < LITHOS_TPC_BITS && chance(d, 80); b++)
        if (lithos_tpcset_count(&t->valid) > 24 && chance(d, 15))
            lithos_tpcset_remove(&t->valid, b);
}

static void draw_kernel(struct drawing *d, struct lithos_sim_program *p, uint64_t longest_ns,
                        uint32_t cluster_most)
{
    const uint64_t duration_ns = spread(d, 3 * US, longest_ns);
    const uint32_t residency = 1u << lithos_random_below(&d->r, 5);
    uint32_t blocks = (uint32_t)spread(d, 1, 20000), flags = 0, cluster = 1;

    if (chance(d, 30) && cluster_most > 1)
        cluster = 1u << lithos_random_below(&d->r, 5);
    while (cluster > cluster_most)
        cluster /= 2;
    if (chance(d, 25)) /* persistent: a block an SM */
        blocks = lithos_card_sms(&d->sc->card);
    if (chance(d, 60))
        flags |= LITHOS_SIM_CUTTABLE;
    if (chance(d, 30))
        flags |= LITHOS_SIM_MEMORY;
    struct lithos_wave_kernel k =
        lithos_sim_kernel(&d->sc->card, duration_ns, 0, blocks, residency,
                          1 + (uint32_t)lithos_random_below(&d->r, residency), cluster);
    k.bandwidth_ppm = (uint32_t)lithos_random_below(&d->r, 1500000);
    const int r = lithos_sim_program_add(p, &k, duration_ns, flags);
    lithos_assert(r == 0);
}

static void draw_arrivals(struct drawing *d, struct lithos_sim_tenant *t, uint64_t busy_ns, bool closed)
{
    t->arrival = closed ? LITHOS_SIM_CLOSED : LITHOS_SIM_PERIODIC + lithos_random_below(&d->r, 3);
    t->interval_ns = busy_ns + busy_ns * lithos_random_between(&d->r, 70, 1000) / 100;
    t->on_ns = lithos_random_between(&d->r, 5, 30) * MS;
    t->off_ns = lithos_random_between(&d->r, 5, 30) * MS;
    if (t->arrival == LITHOS_SIM_BURSTS)
        t->interval_ns += busy_ns;
    t->think_ns = spread(d, 5 * US, 200 * US);
}

static void draw_owner(struct drawing *d, struct lithos_sim_tenant *t, uint32_t id)
{
    const uint32_t card = lithos_tpcset_count(&d->sc->card.topology.valid);
    const uint32_t free = lithos_alloc_free_count(&d->alloc);
    struct lithos_tpcset own;

    t->class = LITHOS_SCHED_HIGH;
    t->quota = (uint32_t)lithos_random_between(&d->r, 1500, 10000);
    while (lithos_alloc_quota_tpcs(card, t->quota) > free)
        t->quota = t->quota * 7 / 8;
    const uint32_t tpcs = lithos_alloc_quota_tpcs(card, t->quota);
    const int r = lithos_alloc_place(&d->alloc, id, tpcs, &own);
    lithos_assert(r == 0);
    t->program.graph = chance(d, 40);
    for (uint64_t n = spread(d, 1, 20); n > 0; n--)
        draw_kernel(d, &t->program, 300 * US, lithos_topology_largest_cluster(&d->sc->card.topology, own));
    /* on its part of the card, with gaps, and some kernels are slower there than in proportion */
    uint64_t busy_ns = t->program.count * (d->sc->node_gap_ns + 8 * US);
    for (uint32_t i = 0; i < t->program.count; i++)
        busy_ns += 2 * lithos_wave_duration_ns(&d->sc->card, &t->program.kernels[i],
                                               t->program.kernels[i].blocks, 0, tpcs);
    draw_arrivals(d, t, busy_ns, chance(d, 10));
    if (chance(d, 50))
        t->slo_ns = busy_ns * lithos_random_between(&d->r, 2, 20);
    if (chance(d, 50))
        t->slip_ppm = (uint32_t)lithos_random_between(&d->r, 1000000, 2000000);
    t->weight = chance(d, 20);
}

static void draw_best_effort(struct drawing *d, struct lithos_sim_tenant *t, uint32_t id)
{
    const uint32_t card = lithos_tpcset_count(&d->sc->card.topology.valid);
    struct lithos_tpcset own;

    t->class = LITHOS_SCHED_BEST_EFFORT;
    t->weight = (uint32_t)lithos_random_between(&d->r, 1, 4);
    if (chance(d, 40)) {
        t->quota = (uint32_t)lithos_random_between(&d->r, 500, 3000);
        if (lithos_alloc_place(&d->alloc, id, lithos_alloc_quota_tpcs(card, t->quota), &own) < 0)
            t->quota = 0;
    }
    t->floor_tpcs = chance(d, 10) ? (uint32_t)lithos_random_between(&d->r, 1, 8) : 0;
    for (uint64_t n = spread(d, 1, 20); n > 0; n--)
        draw_kernel(d, &t->program, 3 * MS, LITHOS_CLUSTER_MAX);
    struct lithos_wave_kernel *k = &t->program.kernels[0];
    if (chance(d, 5) && k->blocks <= lithos_card_sms(&d->sc->card) * k->residency / 2)
        t->program.flags[0] |= LITHOS_SIM_RESIDENT;
    draw_arrivals(d, t, 2 * t->program.alone_ns + 100 * US, chance(d, 70));
    t->waits = chance(d, 50);
}

static void draw_fault(struct drawing *d, struct lithos_sim_fault *f)
{
    const uint64_t third = d->sc->duration_ns / 3;

    f->kind = lithos_random_below(&d->r, LITHOS_SIM_FAULT_MAX);
    f->tenant = chance(d, 40) ? UINT32_MAX : (uint32_t)lithos_random_below(&d->r, d->sc->tenant_count);
    if (f->kind == LITHOS_SIM_DIES && f->tenant == UINT32_MAX)
        f->tenant = 0;
    f->from_ns = lithos_random_below(&d->r, third);
    f->to_ns = f->from_ns + 1 * MS + lithos_random_below(&d->r, third);
    f->delay_ns = spread(d, 10 * US, 2 * MS);
    if (f->kind == LITHOS_SIM_DAEMON_SLOW)
        f->delay_ns = LITHOS_MIN(f->delay_ns, 200 * US);
    f->factor_ppm = chance(d, 50) ? LITHOS_SCHED_PPM / 10 : LITHOS_SCHED_PPM * 10;
    f->every = (uint32_t)lithos_random_between(&d->r, 2, 50);
}

/* Two faults of a kind that stops something must not overlap: who starts what twice is not what is tested. */
static void draw_faults(struct drawing *d)
{
    struct lithos_sim_scenario *sc = d->sc;

    for (uint64_t n = chance(d, 60) ? lithos_random_between(&d->r, 1, 3) : 0; n > 0; n--) {
        struct lithos_sim_fault f = {0};
        bool overlaps = false;
        draw_fault(d, &f);
        for (uint32_t i = 0; i < sc->fault_count; i++)
            overlaps |= sc->faults[i].kind == f.kind || sc->faults[i].kind == LITHOS_SIM_DAEMON_STOPS ||
                        f.kind == LITHOS_SIM_DAEMON_STOPS;
        if (!overlaps)
            sc->faults[sc->fault_count++] = f;
    }
}

void lithos_sim_scenario_random(struct lithos_sim_scenario *sc, const struct lithos_card *card, uint64_t seed)
{
    struct drawing d = {.sc = sc, .r = {lithos_random_mix(seed * 0x9e3779b97f4a7c15ull + 1)}};

    lithos_sim_scenario_init(sc);
    sc->card = *card;
    snprintf(sc->name, sizeof sc->name, "random-%lu", (unsigned long)seed);
    sweep(&d);
    const int r = lithos_alloc_init(&d.alloc, &sc->card.topology);
    lithos_assert(r == 0);
    sc->duration_ns = lithos_random_between(&d.r, 40, 110) * MS;
    sc->warm_ns = 0;
    sc->quiet_ns = 20 * LITHOS_NSEC_PER_SEC;
    sc->bandwidth = chance(&d, 30);
    sc->recall = chance(&d, 30);
    sc->tuning.atom_ns = lithos_random_between(&d.r, 60, 500) * US;
    sc->tuning.window_ns = lithos_random_between(&d.r, 20, 200) * US;
    sc->tuning.lent_window_ns = lithos_random_between(&d.r, 10, 60) * US;
    sc->tuning.starved_ns = lithos_random_between(&d.r, 10, 30) * MS;
    const uint32_t owners = (uint32_t)lithos_random_between(&d.r, 1, 3);
    sc->tenant_count = owners + (uint32_t)lithos_random_between(&d.r, 1, 4);
    for (uint32_t i = 0; i < sc->tenant_count; i++) {
        struct lithos_sim_tenant *t = &sc->tenants[i];
        const bool owner = i < owners && lithos_alloc_free_count(&d.alloc) >= 6;
        snprintf(t->name, sizeof t->name, "%s%u", owner ? "owner" : "be", i);
        t->start_ns = chance(&d, 70) ? 0 : lithos_random_below(&d.r, sc->duration_ns / 2);
        t->stop_ns =
            chance(&d, 80) ? LITHOS_SIM_NEVER : lithos_random_between(&d.r, t->start_ns, sc->duration_ns);
        t->launch_ns = spread(&d, 2 * US, 10 * US);
        t->jitter_ppm = (uint32_t)lithos_random_below(&d.r, 200000);
        if (owner)
            draw_owner(&d, t, i + 1);
        else
            draw_best_effort(&d, t, i + 1);
    }
    draw_faults(&d);
}
