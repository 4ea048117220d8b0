/* Accounts of the last second: who had what, and what it waited for. */
#include <errno.h>
#include <string.h>

#include "core/sched_internal.h"

struct sched_bucket *sched_bucket(struct sched_tenant *t, uint64_t now_ns)
{
    const uint64_t number = now_ns / SCHED_BUCKET_NS;
    struct sched_bucket *b = &t->buckets[number % SCHED_BUCKETS];

    if (b->number != number) {
        memset(b, 0, sizeof(*b));
        b->number = number;
    }
    return b;
}

static void settle_within(struct sched_tenant *t, uint64_t now_ns, uint64_t dt_ns)
{
    struct sched_bucket *b = sched_bucket(t, now_ns);

    b->why_ns[t->why] += (uint32_t)dt_ns;
    if (t->queued)
        b->pick_ns[t->head_why] += (uint32_t)dt_ns;
    if (sched_is_busy(t))
        b->lent_tpc_ns += dt_ns * lithos_tpcset_count(&t->lent);
    b->lent_away_tpc_ns += dt_ns * lithos_tpcset_count(&t->lent_away);
}

void sched_settle(struct sched_tenant *t, uint64_t now_ns)
{
    uint64_t at_ns = t->settled_ns;

    if (now_ns <= at_ns)
        return;
    if (sched_is_busy(t))
        t->account_tpc_ns +=
            (now_ns - at_ns) * lithos_tpcset_count(&t->lent) / LITHOS_MAX(t->desc.weight, 1u);
    if (now_ns - at_ns > LITHOS_NSEC_PER_SEC)
        at_ns = now_ns - LITHOS_NSEC_PER_SEC;
    while (at_ns < now_ns) {
        const uint64_t end_ns = LITHOS_MIN((at_ns / SCHED_BUCKET_NS + 1) * SCHED_BUCKET_NS, now_ns);
        settle_within(t, at_ns, end_ns - at_ns);
        at_ns = end_ns;
    }
    t->settled_ns = now_ns;
}

const char *lithos_sched_why_name(enum lithos_sched_why why)
{
    static const char *const names[LITHOS_WHY_MAX] = {
        [LITHOS_WHY_IDLE] = "idle",
        [LITHOS_WHY_ALL] = "all",
        [LITHOS_WHY_OWNER_BUSY] = "owner_busy",
        [LITHOS_WHY_OWNER_SOON] = "owner_soon",
        [LITHOS_WHY_OWNER_SLACK] = "owner_slack",
        [LITHOS_WHY_SHARE] = "share",
        [LITHOS_WHY_ROOM] = "room",
        [LITHOS_WHY_SQUEEZED] = "squeezed",
        [LITHOS_WHY_LEASE] = "lease",
        [LITHOS_WHY_POLICY] = "policy",
    };
    return (unsigned)why < LITHOS_WHY_MAX ? names[why] : "unknown";
}

int lithos_sched_explain(struct lithos_sched *s, uint64_t now_ns, uint32_t slot,
                         struct lithos_sched_explain *ret)
{
    if (slot >= s->config.tenants || !s->tenants[slot].used)
        return -ENOENT;
    struct sched_tenant *t = &s->tenants[slot];
    now_ns = s->now_ns = LITHOS_MAX(s->now_ns, now_ns);
    sched_settle(t, now_ns);
    const struct sched_beside *beside = &t->beside;
    struct lithos_sched_explain e = {
        .tenant = t->desc.id,
        .class = t->desc.class,
        .own = t->desc.own,
        .lent = t->lent,
        .lent_away = t->lent_away,
        .strip = t->strip,
        .why = t->why,
        .outstanding = t->outstanding,
        .queued = t->queued,
        .slack_ns = sched_owner_slack_ns(s, t),
        .need_ns = t->need_ns,
        .request_ns = t->request_ns,
        .single_ns = t->single_ns,
        .single_ppm = t->run_time_ns ? (uint32_t)(t->single_time_ns * LITHOS_SCHED_PPM / t->run_time_ns) : 0,
        .even_ns = t->even_ns,
        .slower_ppm = beside->alone_ppm && beside->beside_ppm
                          ? (uint32_t)((uint64_t)beside->beside_ppm * LITHOS_SCHED_PPM / beside->alone_ppm)
                          : 0,
        .squeeze_ppm = beside->squeeze_ppm,
        .share_tpc_ns = t->account_tpc_ns,
    };
    for (unsigned i = 0; i < SCHED_BUCKETS; i++) {
        const struct sched_bucket *b = &t->buckets[i];
        if (b->number + SCHED_BUCKETS <= now_ns / SCHED_BUCKET_NS)
            continue;
        for (unsigned w = 0; w < LITHOS_WHY_MAX; w++)
            e.why_ns[w] += b->why_ns[w];
        for (unsigned p = 0; p < LITHOS_PICK_MAX; p++)
            e.pick_ns[p] += b->pick_ns[p];
        e.returns += b->returns;
        e.hits += b->hits;
        e.wait_ns += b->wait_ns;
        e.lent_tpc_ns += b->lent_tpc_ns;
        e.lent_away_tpc_ns += b->lent_away_tpc_ns;
    }
    *ret = e;
    return 0;
}
