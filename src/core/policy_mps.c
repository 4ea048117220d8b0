/* What the driver does by itself: all tenants on all TPCs. Together in space under MPS, first come, first served, or
 * the more urgent first; in turns without it. */
#include "core/sched_internal.h"

static void give_all(struct lithos_sched *s, int32_t high, int32_t best_effort)
{
    struct sched_tenant *t;

    sched_each(s, t)
    {
        struct lithos_tpcgrant g = sched_grant_own(s, t);
        g.own = s->config.topology.valid;
        g.flags = LITHOS_TPCGRANT_UNMASKED;
        g.window_ns = LITHOS_TPCGRANT_FOREVER;
        g.priority = sched_is_best_effort(t) ? best_effort : high;
        t->why = sched_is_busy(t) ? LITHOS_WHY_ALL : LITHOS_WHY_IDLE;
        sched_publish(s, t, &g);
    }
}

static void plan_alike(struct lithos_sched *s)
{
    give_all(s, 0, 0);
}

static void plan_urgent_first(struct lithos_sched *s)
{
    give_all(s, -1, 1);
}

const struct lithos_policy lithos_policy_mps = {
    .name = "mps",
    .what = "all tenants on all TPCs, in the order they come",
    .needs = LITHOS_NEED_SPACE,
    .plan = plan_alike,
};

/* MPS client priority, or stream priorities: blocks of high-priority tenants are placed first, nothing is taken back. */
const struct lithos_policy lithos_policy_priority = {
    .name = "priority",
    .what = "all tenants on all TPCs, high-priority blocks first",
    .needs = LITHOS_NEED_SPACE | LITHOS_NEED_PRIORITY,
    .plan = plan_urgent_first,
};

const struct lithos_policy lithos_policy_timeslice = {
    .name = "timeslice",
    .what = "tenants take turns of the card's time slice, as without MPS",
    .needs = LITHOS_NEED_TURNS,
    .plan = plan_alike,
};

/* The same with best-effort turns as short as the hardware has them: whatever runs is gone about 100 us after a
 * high-priority tenant wakes (docs/hardware.md). */
const struct lithos_policy lithos_policy_preempt = {
    .name = "preempt",
    .what = "turns, with best-effort ones of 1 us: off the card when a high-priority tenant wakes",
    .needs = LITHOS_NEED_TURNS | LITHOS_NEED_SHORT_TURNS,
    .best_effort_slice_ns = 1000,
    .plan = plan_alike,
};
