/* Orion (EuroSys'24, "Interference-aware, Fine-grained GPU Sharing for ML Applications"), 5.1: high-priority kernels go
 * at once on streams of high priority. A best-effort kernel goes when no high-priority one is under way, or when the
 * profile says that it needs what the other leaves (compute or memory) and its predicted time, with all others that
 * are outstanding, is below a small part of a high-priority request. */
#include "core/sched_internal.h"

#define REQUEST_PERMILLE 25u /* DUR_THRESHOLD of the paper: 2.5 % */
#define NEED_PPM 500000u

/* Of a high-priority tenant: launches under way that memory holds up, and the others. */
enum { MEMORY, COMPUTE };

static bool count(struct lithos_sched *s, struct sched_tenant *t, const struct lithos_sched_event *e)
{
    (void)s;
    if (sched_is_best_effort(t))
        return false;
    if (!t->outstanding)
        t->scratch[MEMORY] = t->scratch[COMPUTE] = 0;
    else if (e->kind == LITHOS_SCHED_LAUNCH)
        t->scratch[e->launch.flags & LITHOS_TPCWORK_MEMORY ? MEMORY : COMPUTE] = 1;
    return true;
}

static void plan(struct lithos_sched *s)
{
    uint64_t request_ns = UINT64_MAX;
    bool busy = false, memory = false, compute = false;
    struct sched_tenant *t;

    sched_each(s, t)
    {
        if (sched_is_best_effort(t) || !sched_is_busy(t))
            continue;
        busy = true;
        memory |= t->scratch[MEMORY] > 0;
        compute |= t->scratch[COMPUTE] > 0;
        request_ns = LITHOS_MIN(request_ns, lithos_demand_need_ns(&t->demand, NEED_PPM));
    }
    const uint64_t most_ns = request_ns / 1000 * REQUEST_PERMILLE;
    sched_each(s, t)
    {
        struct lithos_tpcgrant g = sched_grant_own(s, t);
        g.flags = LITHOS_TPCGRANT_UNMASKED;
        if (!sched_is_best_effort(t)) {
            g.own = s->config.topology.valid;
            g.window_ns = LITHOS_TPCGRANT_FOREVER;
            g.priority = -1;
        } else {
            g.own = (struct lithos_tpcset){{0, 0}};
            g.part_count = 1;
            g.parts[0] = (struct lithos_tpcgrant_part){s->config.topology.valid,
                                                       busy ? most_ns : LITHOS_TPCGRANT_FOREVER, 0};
            g.lent_window_ns = busy ? most_ns : s->config.window_ns;
            g.flags |= (memory ? LITHOS_TPCGRANT_NO_MEMORY : 0) | (compute ? LITHOS_TPCGRANT_NO_COMPUTE : 0);
            g.lent_priority = 1;
        }
        t->why = sched_is_busy(t) ? LITHOS_WHY_POLICY : LITHOS_WHY_IDLE;
        sched_publish(s, t, &g);
    }
}

const struct lithos_policy lithos_policy_orion = {
    .name = "orion",
    .what = "best-effort kernels when the card is free, or when short and of the other kind",
    .needs = LITHOS_NEED_SPACE | LITHOS_NEED_QUEUES | LITHOS_NEED_PRIORITY | LITHOS_NEED_PROFILE,
    .plan = plan,
    .event = count,
};
