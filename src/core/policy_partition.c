/* Fixed partitions: a tenant keeps to its own TPCs, used or not, as under MPS static partitions or MIG. A best-effort
 * tenant without any shares what nobody owns. */
#include "core/sched_internal.h"

/* MIG cuts an H100 or H200 into 1, 2, 3, 4 or 7 slices: 16, 32, 60, 64 or 132 SMs (MIG user guide); what a quota has
 * beyond the next smaller of these, it loses. Cards of other sizes in proportion. */
static const unsigned mig_sms[] = {132, 64, 60, 32, 16};
#define MIG_SMS 132u

static struct lithos_tpcset mig_slice(const struct lithos_topology *t, struct lithos_tpcset own)
{
    const unsigned card = lithos_tpcset_count(&t->valid), has = lithos_tpcset_count(&own);
    unsigned keep = 0;

    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(mig_sms) && !keep; i++)
        if (has >= card * mig_sms[i] / MIG_SMS)
            keep = card * mig_sms[i] / MIG_SMS;
    for (unsigned b = LITHOS_TPC_BITS, left = has - keep; keep && left && b-- > 0;) {
        if (!lithos_tpcset_has(&own, b))
            continue;
        lithos_tpcset_remove(&own, b);
        left--;
    }
    return own;
}

static void keep_to_own(struct lithos_sched *s, bool mig)
{
    struct sched_tenant *t;

    sched_each(s, t)
    {
        struct lithos_tpcgrant g = sched_grant_own(s, t);
        g.window_ns = LITHOS_TPCGRANT_FOREVER;
        if (mig)
            g.own = mig_slice(&s->config.topology, g.own);
        if (lithos_tpcset_empty(&g.own) && !lithos_tpcset_empty(&s->unowned)) {
            g.parts[0] =
                (struct lithos_tpcgrant_part){s->unowned, LITHOS_TPCGRANT_FOREVER, LITHOS_TPCGRANT_FOREVER};
            g.part_count = 1;
            g.lent_window_ns = LITHOS_TPCGRANT_FOREVER;
        }
        t->lent = lithos_tpcgrant_lent(&g);
        t->why = sched_is_busy(t) ? LITHOS_WHY_POLICY : LITHOS_WHY_IDLE;
        sched_publish(s, t, &g);
    }
}

static void plan(struct lithos_sched *s)
{
    keep_to_own(s, false);
}

static void plan_mig(struct lithos_sched *s)
{
    keep_to_own(s, true);
}

const struct lithos_policy lithos_policy_partition = {
    .name = "partition",
    .what = "each tenant on its own TPCs, used or not",
    .needs = LITHOS_NEED_MASKS | LITHOS_NEED_SPACE,
    .plan = plan,
};

const struct lithos_policy lithos_policy_mig = {
    .name = "mig",
    .what = "each tenant on the largest MIG slice that its quota holds",
    .needs = LITHOS_NEED_MASKS | LITHOS_NEED_SPACE,
    .plan = plan_mig,
};
