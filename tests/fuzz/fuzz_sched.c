/* Any events in any order, under every policy: grants stay valid, own TPCs stay their tenants', nothing is lent to two,
 * timers move on, and nothing is told of tenants that are not. */
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "core/policy.h"
#include "core/sched.h"
#include "fuzz/fuzz.h"
#include "unit/cards.h"

#define SLOTS 12u

struct step {
    uint8_t what, slot, a, b;
    uint32_t time, number;
};

struct stand {
    struct lithos_sched *s;
    const struct lithos_policy *policy;
    uint64_t now;
    bool used[SLOTS];
    struct lithos_sched_tenant tenant[SLOTS];
    uint64_t epoch[SLOTS];
};

static _Alignas(16) unsigned char mem[1 << 20];

static void check(struct stand *st)
{
    const struct lithos_topology t = card_h200();
    const struct lithos_tpcgrant *g;
    struct lithos_tpcset seen = {{0, 0}};
    uint32_t slot;

    while (lithos_sched_next(st->s, &slot, &g)) {
        lithos_assert(slot < SLOTS && st->used[slot]);
        lithos_assert(g->epoch == 0 || g->epoch > st->epoch[slot]);
        st->epoch[slot] = g->epoch;
    }
    for (uint32_t i = 0; i < SLOTS; i++) {
        g = lithos_sched_grant(st->s, i);
        lithos_assert(!g == !st->used[i]);
        if (!g)
            continue;
        lithos_assert(lithos_tpcgrant_validate(g, &t) == 0);
        if (!st->policy->exclusive)
            continue;
        lithos_assert(lithos_tpcset_equal(&g->own, &st->tenant[i].own));
        const struct lithos_tpcset lent = lithos_tpcgrant_lent(g), twice = lithos_tpcset_and(lent, seen);
        lithos_assert(lithos_tpcset_empty(&twice));
        seen = lithos_tpcset_or(seen, lent);
    }
}

/* Eight TPCs at most of one GPC, or none. */
static struct lithos_tpcset some_tpcs(const struct lithos_topology *t, uint8_t a)
{
    if (a & 8)
        return (struct lithos_tpcset){{0, 0}};
    return lithos_topology_gpc(t, a & 7);
}

static void admit(struct stand *st, const struct step *p)
{
    const struct lithos_topology t = card_h200();
    const struct lithos_sched_tenant desc = {.id = 1 + p->slot % SLOTS,
                                             .own = some_tpcs(&t, p->a),
                                             .class = p->b & 1,
                                             .weight = (p->b >> 1) % 4,
                                             .floor_tpcs = p->b & 8 ? p->b >> 4 : 0,
                                             .slip_ppm = p->b & 16 ? 1000000 + p->number % 1000000 : 0,
                                             .slo_ns = p->b & 32 ? p->number : 0};
    uint32_t slot;

    if (p->b & 64) {
        slot = p->slot % SLOTS;
        if (lithos_sched_change(st->s, st->now, slot, &desc) == 0)
            st->tenant[slot] = desc;
    } else if (lithos_sched_add(st->s, st->now, &desc, &slot) == 0) {
        lithos_assert(slot < SLOTS && !st->used[slot]);
        st->used[slot] = true;
        st->tenant[slot] = desc;
        st->epoch[slot] = 0;
    }
}

static void event(struct stand *st, const struct step *p)
{
    struct lithos_sched_event e = {.kind = p->what % (LITHOS_SCHED_EVENT_MAX + 1),
                                   .slot = p->slot % (SLOTS + 1)};
    const struct lithos_topology t = card_h200();

    switch (e.kind) {
    case LITHOS_SCHED_LAUNCH:
        e.launch.submit_ns = st->now - p->a * 1000;
        e.launch.predicted_ns = p->b & 1 ? p->number : (uint64_t)p->number << 32;
        e.launch.tpcs = p->b & 2 ? t.valid : some_tpcs(&t, p->a);
        e.launch.cluster_blocks = p->b >> 2;
        e.launch.flags = p->a;
        break;
    case LITHOS_SCHED_QUEUE:
        e.queue.launches = p->a;
        e.queue.head_ns = p->number;
        e.queue.resident_tpcs = p->b & 3 ? 0 : p->number >> 4;
        e.queue.why = p->b;
        break;
    default:
        e.done.submit_ns = st->now - p->number;
        e.done.start_ns = st->now - p->number / 2;
        e.done.end_ns = p->a & 1 ? st->now : st->now - p->number;
        e.done.predicted_ns = p->b * (uint64_t)p->number;
        break;
    }
    lithos_sched_event(st->s, st->now, &e);
}

static void step(struct stand *st, const struct step *p)
{
    const uint32_t slot = p->slot % SLOTS;
    struct lithos_sched_explain e;

    st->now += p->time % 5 ? p->time % 100000 : p->time;
    if (p->what >= 224)
        admit(st, p);
    else if (p->what >= 216) {
        lithos_assert((lithos_sched_remove(st->s, st->now, slot) == 0) == st->used[slot]);
        st->used[slot] = false;
    } else
        event(st, p);
    for (unsigned n = 0; n < 4 && lithos_sched_timer_ns(st->s) <= st->now; n++) {
        lithos_sched_run(st->s, st->now);
        lithos_assert(lithos_sched_timer_ns(st->s) > st->now);
    }
    check(st);
    lithos_assert((lithos_sched_explain(st->s, st->now, slot, &e) == 0) == st->used[slot]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct stand st = {.now = LITHOS_NSEC_PER_SEC * 1000};
    struct lithos_sched_config config = {.topology = card_h200()};
    struct step p;

    if (!size)
        return 0;
    if (!lithos_policy_at(data[0] % 16))
        return 0;
    st.policy = config.policy = lithos_policy_at(data[0] % 16);
    lithos_sched_config_defaults(&config);
    config.tenants = SLOTS;
    lithos_assert(lithos_sched_init(mem, sizeof mem, &config, &st.s) == 0);
    for (size_t at = 1; at + sizeof p <= size; at += sizeof p) {
        memcpy(&p, data + at, sizeof p);
        step(&st, &p);
    }
    return 0;
}

size_t lithos_fuzz_seed(size_t n, uint8_t *buf, size_t size)
{
    struct step p = {0};
    uint64_t random = 0x9e3779b97f4a7c15ull + n;
    size_t len = 1;

    if (n >= 30 || size < 1)
        return 0;
    buf[0] = (uint8_t)(n % 10);
    for (unsigned i = 0; i < 200 && len + sizeof p <= size; i++, len += sizeof p) {
        const uint64_t r = next_random(&random);
        p = (struct step){(uint8_t)(i < 8 ? 224 + r % 32 : r),
                          (uint8_t)(r >> 8),
                          (uint8_t)(r >> 16),
                          (uint8_t)(r >> 24),
                          (uint32_t)(r >> 32) % 1000000,
                          (uint32_t)next_random(&random)};
        memcpy(buf + len, &p, sizeof p);
    }
    return len;
}
