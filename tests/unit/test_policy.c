/* The table of policies, and what each grants in the simplest of cases: an owner and a best-effort tenant. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "core/policy.h"
#include "core/sched.h"
#include "unit/cards.h"

#define US 1000ull
#define MS 1000000ull

enum { HP, BE };

struct stand {
    struct lithos_sched *s;
    void *mem;
    uint64_t now;
};

static void begin(struct stand *st, const char *policy, const char *own, const char *be_own)
{
    struct lithos_sched_config config = {.topology = card_h200(), .policy = lithos_policy_find(policy)};
    struct lithos_sched_tenant t = {.id = 1, .class = LITHOS_SCHED_HIGH, .slo_ns = 20 * MS};
    uint32_t slot;
    size_t bytes;

    assert_non_null(config.policy);
    lithos_sched_config_defaults(&config);
    assert_int_equal(lithos_sched_size(&config, &bytes), 0);
    st->mem = malloc(bytes);
    st->now = 1000 * MS;
    assert_int_equal(lithos_sched_init(st->mem, bytes, &config, &st->s), 0);
    assert_int_equal(lithos_tpcset_parse(own, &t.own), 0);
    assert_int_equal(lithos_sched_add(st->s, st->now, &t, &slot), 0);
    t = (struct lithos_sched_tenant){.id = 2, .class = LITHOS_SCHED_BEST_EFFORT, .weight = 1};
    assert_int_equal(lithos_tpcset_parse(be_own, &t.own), 0);
    assert_int_equal(lithos_sched_add(st->s, st->now, &t, &slot), 0);
    lithos_sched_run(st->s, st->now);
}

static void wait_until(struct stand *st, uint64_t at_ns)
{
    for (; lithos_sched_timer_ns(st->s) <= at_ns; lithos_sched_run(st->s, st->now))
        st->now = lithos_sched_timer_ns(st->s);
    st->now = at_ns;
}

static const struct lithos_tpcgrant *grant(const struct stand *st, uint32_t slot)
{
    return lithos_sched_grant(st->s, slot);
}

static void tell(struct stand *st, struct lithos_sched_event e)
{
    lithos_sched_event(st->s, st->now, &e);
    lithos_sched_run(st->s, st->now);
}

static void launch(struct stand *st, uint64_t predicted_ns, uint32_t flags)
{
    tell(st, (struct lithos_sched_event){.kind = LITHOS_SCHED_LAUNCH,
                                         .slot = HP,
                                         .launch = {st->now, predicted_ns, grant(st, HP)->own, 1, flags}});
}

static void done(struct stand *st, uint64_t took_ns, uint64_t predicted_ns)
{
    wait_until(st, st->now + took_ns);
    tell(st,
         (struct lithos_sched_event){.kind = LITHOS_SCHED_DONE,
                                     .slot = HP,
                                     .done = {st->now - took_ns, st->now - took_ns, st->now, predicted_ns}});
}

static void test_table(void **state)
{
    (void)state;
    const struct lithos_policy *p, *q;
    for (size_t n = 0; (p = lithos_policy_at(n)); n++) {
        assert_ptr_equal(lithos_policy_find(p->name), p);
        assert_true(p->what && *p->what && p->plan);
        /* in space or in turns, not both; masks are of use only in space */
        const bool space = p->needs & LITHOS_NEED_SPACE, turns = p->needs & LITHOS_NEED_TURNS;
        assert_true(space != turns);
        assert_true(space || !(p->needs & LITHOS_NEED_MASKS));
        assert_int_equal(p->best_effort_slice_ns > 0, (p->needs & LITHOS_NEED_SHORT_TURNS) != 0);
        for (size_t m = 0; m < n && (q = lithos_policy_at(m)); m++)
            assert_string_not_equal(p->name, q->name);
    }
    assert_string_equal(lithos_policy_at(0)->name, "lithos");
    assert_null(lithos_policy_find("none"));
}

static void test_shared_by_all(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int32_t high, best_effort;
    } rows[] = {{"mps", 0, 0}, {"timeslice", 0, 0}, {"preempt", 0, 0}, {"priority", -1, 1}};
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(rows); i++) {
        struct stand st;
        begin(&st, rows[i].name, "9-16", "-");
        for (uint32_t slot = HP; slot <= BE; slot++) {
            const struct lithos_tpcgrant *g = grant(&st, slot);
            assert_int_equal(lithos_tpcset_count(&g->own), 66);
            assert_int_equal(g->flags, LITHOS_TPCGRANT_UNMASKED);
            assert_int_equal(g->priority, slot == HP ? rows[i].high : rows[i].best_effort);
        }
        free(st.mem);
    }
}

static void test_partitions(void **state)
{
    (void)state;
    struct stand st;
    begin(&st, "partition", "9-16,18-25,27-34,36-43", "-");
    assert_int_equal(lithos_tpcset_count(&grant(&st, HP)->own), 32);
    assert_int_equal(grant(&st, HP)->part_count, 0);
    const struct lithos_tpcset rest = lithos_tpcgrant_lent(grant(&st, BE));
    assert_int_equal(lithos_tpcset_count(&rest), 34);
    free(st.mem);
    /* 33 TPCs hold a slice of four sevenths: 32 */
    begin(&st, "mig", "9-16,18-25,27-34,36-43,45", "46-52,0-1");
    assert_int_equal(lithos_tpcset_count(&grant(&st, HP)->own), 32);
    assert_int_equal(lithos_tpcset_count(&grant(&st, BE)->own), 8);
    free(st.mem);
}

static void test_reef_holds_while_the_owner_works(void **state)
{
    (void)state;
    struct stand st;
    begin(&st, "reef", "9-16", "-");
    assert_false(grant(&st, BE)->flags & LITHOS_TPCGRANT_HOLD);
    launch(&st, 1 * MS, 0);
    assert_true(grant(&st, BE)->flags & LITHOS_TPCGRANT_HOLD);
    assert_true(grant(&st, BE)->flags & LITHOS_TPCGRANT_RECALL);
    assert_false(grant(&st, HP)->flags & LITHOS_TPCGRANT_HOLD);
    done(&st, 1 * MS, 1 * MS);
    assert_false(grant(&st, BE)->flags & LITHOS_TPCGRANT_HOLD);
    free(st.mem);
}

static void test_orion_admits_the_other_kind_and_the_short(void **state)
{
    (void)state;
    struct stand st;
    begin(&st, "orion", "9-16", "-");
    for (unsigned i = 0; i < 40; i++) {
        launch(&st, 4 * MS, 0);
        done(&st, 4 * MS, 4 * MS);
        wait_until(&st, st.now + 10 * MS);
    }
    assert_int_equal(grant(&st, BE)->parts[0].longest_ns, LITHOS_TPCGRANT_FOREVER);
    launch(&st, 4 * MS, 0);
    /* 2.5 % of 4 ms; the owner computes, so nothing else that does */
    assert_in_range(grant(&st, BE)->parts[0].longest_ns, 90 * US, 101 * US);
    assert_true(grant(&st, BE)->flags & LITHOS_TPCGRANT_NO_COMPUTE);
    assert_false(grant(&st, BE)->flags & LITHOS_TPCGRANT_NO_MEMORY);
    launch(&st, 4 * MS, LITHOS_TPCWORK_MEMORY);
    assert_true(grant(&st, BE)->flags & LITHOS_TPCGRANT_NO_MEMORY);
    free(st.mem);
}

static void test_tgs_follows_how_the_owner_gets_on(void **state)
{
    (void)state;
    struct stand st;
    begin(&st, "tgs", "9-16", "-");
    for (unsigned i = 0; i < 1000; i++) {
        launch(&st, 1 * MS, 0);
        done(&st, 1 * MS, 1 * MS);
    }
    const uint64_t well_ns = grant(&st, BE)->pace_ns;
    assert_true(well_ns < 30 * US);
    for (unsigned i = 0; i < 100; i++) { /* a quarter slower */
        launch(&st, 1 * MS, 0);
        done(&st, 1250 * US, 1 * MS);
    }
    assert_true(grant(&st, BE)->pace_ns > 20 * well_ns);
    assert_int_equal(grant(&st, HP)->pace_ns, 0);
    free(st.mem);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_shared_by_all),
        cmocka_unit_test(test_partitions),
        cmocka_unit_test(test_reef_holds_while_the_owner_works),
        cmocka_unit_test(test_orion_admits_the_other_kind_and_the_short),
        cmocka_unit_test(test_tgs_follows_how_the_owner_gets_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
