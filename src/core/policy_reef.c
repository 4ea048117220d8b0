/* REEF (OSDI'22, "Microsecond-scale Preemption for Concurrent GPU-accelerated DNN Inferences"), 4.2 and 6.3 (REEF-N, for
 * NVIDIA cards): while a high-priority tenant has work, best-effort ones are held, and what they had submitted and has
 * not started is taken back; running kernels are waited for. The device's queue is kept short for that. */
#include "core/sched_internal.h"

static void plan(struct lithos_sched *s)
{
    struct sched_tenant *t;
    bool busy = false;

    sched_each(s, t) busy |= !sched_is_best_effort(t) && sched_is_busy(t);
    sched_each(s, t)
    {
        struct lithos_tpcgrant g = sched_grant_own(s, t);
        g.own = s->config.topology.valid;
        g.flags = LITHOS_TPCGRANT_UNMASKED;
        g.priority = sched_is_best_effort(t) ? 1 : -1;
        if (!sched_is_best_effort(t))
            g.window_ns = LITHOS_TPCGRANT_FOREVER;
        else if (busy)
            g.flags |= LITHOS_TPCGRANT_HOLD | LITHOS_TPCGRANT_RECALL;
        t->why = sched_is_busy(t) ? (busy ? LITHOS_WHY_POLICY : LITHOS_WHY_ALL) : LITHOS_WHY_IDLE;
        sched_publish(s, t, &g);
    }
}

const struct lithos_policy lithos_policy_reef = {
    .name = "reef",
    .what = "best-effort launches held and taken back while a high-priority tenant has work",
    .needs = LITHOS_NEED_SPACE | LITHOS_NEED_QUEUES | LITHOS_NEED_PRIORITY | LITHOS_NEED_RECALL,
    .plan = plan,
};
