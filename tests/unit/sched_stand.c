#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>

#include "core/policy.h"
#include "unit/sched_stand.h"

struct lithos_tpcset set(const char *text)
{
    struct lithos_tpcset s;
    assert_int_equal(lithos_tpcset_parse(text, &s), 0);
    return s;
}

void assert_set(struct lithos_tpcset s, const char *text)
{
    char got[LITHOS_TPCSET_TEXT_MAX];
    assert_string_equal(lithos_tpcset_format(&s, got), text);
}

struct lithos_tpcset lent(const struct stand *st, uint32_t slot)
{
    return lithos_tpcgrant_lent(&st->grant[slot]);
}

bool nothing(struct lithos_tpcset s)
{
    return lithos_tpcset_empty(&s);
}

int stand_begin(void **state)
{
    struct stand *st = calloc(1, sizeof *st);
    struct lithos_sched_config config = {.topology = card_h200(), .policy = lithos_policy_find("lithos")};
    size_t bytes;

    lithos_sched_config_defaults(&config);
    assert_int_equal(lithos_sched_size(&config, &bytes), 0);
    st->mem = malloc(bytes);
    assert_non_null(st->mem);
    assert_int_equal(lithos_sched_init(st->mem, bytes - 1, &config, &st->s), -ENOSPC);
    assert_int_equal(lithos_sched_init(st->mem, bytes, &config, &st->s), 0);
    st->now = 1000 * MS;
    *state = st;
    return 0;
}

int stand_end(void **state)
{
    struct stand *st = *state;
    free(st->mem);
    free(st);
    return 0;
}

void run(struct stand *st)
{
    const struct lithos_topology t = card_h200();
    const struct lithos_tpcgrant *g;
    struct lithos_tpcset seen = {{0, 0}};
    uint32_t slot;

    lithos_sched_run(st->s, st->now);
    while (lithos_sched_next(st->s, &slot, &g)) {
        assert_true(g->epoch > st->grant[slot].epoch || g->epoch == 0);
        st->grant[slot] = *g;
        st->handed++;
    }
    for (uint32_t i = 0; i < LITHOS_SCHED_TENANTS_MAX; i++) {
        if (!(g = lithos_sched_grant(st->s, i)))
            continue;
        assert_int_equal(lithos_tpcgrant_validate(g, &t), 0);
        assert_memory_equal(g, &st->grant[i], sizeof *g);
        const struct lithos_tpcset l = lithos_tpcgrant_lent(g);
        assert_true(nothing(lithos_tpcset_and(l, seen)));
        seen = lithos_tpcset_or(seen, l);
    }
}

void wait_until(struct stand *st, uint64_t at_ns)
{
    uint64_t next;
    while ((next = lithos_sched_timer_ns(st->s)) <= at_ns) {
        assert_true(next >= st->now);
        st->now = next;
        run(st);
        assert_true(lithos_sched_timer_ns(st->s) > st->now);
    }
    st->now = at_ns;
}

uint32_t add(struct stand *st, const struct lithos_sched_tenant *t)
{
    uint32_t slot;
    assert_int_equal(lithos_sched_add(st->s, st->now, t, &slot), 0);
    run(st);
    return slot;
}

uint32_t add_owner(struct stand *st, uint64_t id, const char *own, uint64_t slo_ns, uint32_t slip_ppm)
{
    return add(
        st,
        &(struct lithos_sched_tenant){
            .id = id, .own = set(own), .class = LITHOS_SCHED_HIGH, .slo_ns = slo_ns, .slip_ppm = slip_ppm});
}

uint32_t add_best_effort(struct stand *st, uint64_t id, const char *own, uint32_t weight)
{
    return add(st, &(struct lithos_sched_tenant){
                       .id = id, .own = set(own), .class = LITHOS_SCHED_BEST_EFFORT, .weight = weight});
}

void tell(struct stand *st, struct lithos_sched_event e)
{
    lithos_sched_event(st->s, st->now, &e);
    run(st);
}

void launch_on(struct stand *st, uint32_t slot, uint64_t predicted_ns, struct lithos_tpcset tpcs,
               uint32_t cluster)
{
    tell(st, (struct lithos_sched_event){.kind = LITHOS_SCHED_LAUNCH,
                                         .slot = slot,
                                         .launch = {st->now, predicted_ns, tpcs, cluster, 0}});
}

void launch(struct stand *st, uint32_t slot, uint64_t predicted_ns)
{
    launch_on(st, slot, predicted_ns, st->grant[slot].own, 1);
}

void done(struct stand *st, uint32_t slot, uint64_t took_ns, uint64_t predicted_ns)
{
    tell(st, (struct lithos_sched_event){
                 .kind = LITHOS_SCHED_DONE,
                 .slot = slot,
                 .done = {st->now - took_ns - 6 * US, st->now - took_ns, st->now, predicted_ns}});
}

void queue(struct stand *st, uint32_t slot, uint32_t launches, uint64_t head_ns, enum lithos_tpcpick why)
{
    tell(st, (struct lithos_sched_event){.kind = LITHOS_SCHED_QUEUE,
                                         .slot = slot,
                                         .queue = {.launches = launches, .head_ns = head_ns, .why = why}});
}

void request(struct stand *st, uint32_t slot, uint64_t busy_ns, uint64_t idle_ns)
{
    launch(st, slot, busy_ns);
    wait_until(st, st->now + busy_ns);
    done(st, slot, busy_ns, busy_ns);
    wait_until(st, st->now + idle_ns);
}

struct lithos_sched_explain explain(struct stand *st, uint32_t slot)
{
    struct lithos_sched_explain e;
    assert_int_equal(lithos_sched_explain(st->s, st->now, slot, &e), 0);
    return e;
}

unsigned count(struct lithos_tpcset s)
{
    return lithos_tpcset_count(&s);
}
