/* TGS (NSDI'23, "Transparent GPU Sharing in Container Clouds for Deep Learning Workloads"), 4.1: the rate at which a
 * best-effort tenant launches is controlled by the rate at which high-priority ones get on. It rises slowly as long as
 * they do as well as ever, and is halved when they do not. Nothing is known of kernels. */
#include "core/sched_internal.h"

#define PERIOD_NS (10 * LITHOS_NSEC_PER_MSEC)
#define RATE_LEAST 20u /* launches a second */
#define RATE_MOST 200000u
#define RATE_STEP 500u
#define AS_WELL_PERMILLE 950u

/* Of a high-priority tenant: work done (predicted) and time busy in this period, and the best ratio of the two. Of a
 * best-effort one: its rate. */
enum { DONE_NS, BUSY_NS, BEST_PERMILLE, RATE = 0 };

static bool count(struct lithos_sched *s, struct sched_tenant *t, const struct lithos_sched_event *e)
{
    (void)s;
    if (sched_is_best_effort(t) || e->kind != LITHOS_SCHED_DONE || !e->done.predicted_ns)
        return false;
    t->scratch[DONE_NS] += e->done.predicted_ns;
    t->scratch[BUSY_NS] += e->done.end_ns - LITHOS_MIN(e->done.submit_ns, e->done.end_ns);
    return false;
}

/* Does a high-priority tenant get on as well as it ever did? */
static bool as_well(struct sched_tenant *t)
{
    const uint64_t permille = t->scratch[BUSY_NS] ? 1000 * t->scratch[DONE_NS] / t->scratch[BUSY_NS] : 0;

    t->scratch[DONE_NS] = t->scratch[BUSY_NS] = 0;
    if (!permille)
        return true;
    t->scratch[BEST_PERMILLE] -= t->scratch[BEST_PERMILLE] / 1024; /* what was best need not be for ever */
    t->scratch[BEST_PERMILLE] = LITHOS_MAX(t->scratch[BEST_PERMILLE], permille);
    return permille >= t->scratch[BEST_PERMILLE] * AS_WELL_PERMILLE / 1000;
}

static void control(struct lithos_sched *s)
{
    struct sched_tenant *t;
    bool well = true;

    sched_each(s, t) if (!sched_is_best_effort(t)) well &= as_well(t);
    sched_each(s, t)
    {
        if (!sched_is_best_effort(t))
            continue;
        const uint64_t rate = well ? t->scratch[RATE] + RATE_STEP : t->scratch[RATE] / 2;
        t->scratch[RATE] = LITHOS_MIN(LITHOS_MAX(rate, RATE_LEAST), RATE_MOST);
    }
}

static void plan(struct lithos_sched *s)
{
    struct sched_tenant *t;

    if (s->now_ns >= s->policy_ns) {
        s->policy_ns = s->now_ns + PERIOD_NS;
        control(s);
    }
    sched_wake_at(s, s->policy_ns);
    sched_each(s, t)
    {
        struct lithos_tpcgrant g = sched_grant_own(s, t);
        g.own = s->config.topology.valid;
        g.flags = LITHOS_TPCGRANT_UNMASKED;
        g.window_ns = LITHOS_TPCGRANT_FOREVER;
        if (sched_is_best_effort(t))
            g.pace_ns = LITHOS_NSEC_PER_SEC / LITHOS_MAX(t->scratch[RATE], RATE_LEAST);
        t->why = sched_is_busy(t) ? LITHOS_WHY_POLICY : LITHOS_WHY_IDLE;
        sched_publish(s, t, &g);
    }
}

const struct lithos_policy lithos_policy_tgs = {
    .name = "tgs",
    .what = "the rate of best-effort launches follows how high-priority tenants get on",
    .needs = LITHOS_NEED_SPACE | LITHOS_NEED_QUEUES | LITHOS_NEED_PACE,
    .plan = plan,
    .event = count,
};
