/* The scheduler: who gets which TPCs, told by events alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "core/policy.h"
#include "core/sched.h"
#include "unit/cards.h"

#define US 1000ull
#define MS 1000000ull

struct stand {
    struct lithos_sched *s;
    void *mem;
    uint64_t now;
    struct lithos_tpcgrant grant[LITHOS_SCHED_TENANTS_MAX]; /* as handed out last */
    unsigned handed;
};

static struct lithos_tpcset set(const char *text)
{
    struct lithos_tpcset s;
    assert_int_equal(lithos_tpcset_parse(text, &s), 0);
    return s;
}

static void assert_set(struct lithos_tpcset s, const char *text)
{
    char got[LITHOS_TPCSET_TEXT_MAX];
    assert_string_equal(lithos_tpcset_format(&s, got), text);
}

static struct lithos_tpcset lent(const struct stand *st, uint32_t slot)
{
    return lithos_tpcgrant_lent(&st->grant[slot]);
}

static bool nothing(struct lithos_tpcset s)
{
    return lithos_tpcset_empty(&s);
}

static int begin(void **state)
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

static int end(void **state)
{
    struct stand *st = *state;
    free(st->mem);
    free(st);
    return 0;
}

/* Decide, and take what is handed out: every grant validates, keeps to the own TPCs, and nothing is lent twice. */
static void run(struct stand *st)
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

/* Run all timers up to then. */
static void wait_until(struct stand *st, uint64_t at_ns)
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

static uint32_t add(struct stand *st, const struct lithos_sched_tenant *t)
{
    uint32_t slot;
    assert_int_equal(lithos_sched_add(st->s, st->now, t, &slot), 0);
    run(st);
    return slot;
}

static uint32_t add_owner(struct stand *st, uint64_t id, const char *own, uint64_t slo_ns, uint32_t slip_ppm)
{
    return add(
        st,
        &(struct lithos_sched_tenant){
            .id = id, .own = set(own), .class = LITHOS_SCHED_HIGH, .slo_ns = slo_ns, .slip_ppm = slip_ppm});
}

static uint32_t add_best_effort(struct stand *st, uint64_t id, const char *own, uint32_t weight)
{
    return add(st, &(struct lithos_sched_tenant){
                       .id = id, .own = set(own), .class = LITHOS_SCHED_BEST_EFFORT, .weight = weight});
}

static void tell(struct stand *st, struct lithos_sched_event e)
{
    lithos_sched_event(st->s, st->now, &e);
    run(st);
}

static void launch_on(struct stand *st, uint32_t slot, uint64_t predicted_ns, struct lithos_tpcset tpcs,
                      uint32_t cluster)
{
    tell(st, (struct lithos_sched_event){.kind = LITHOS_SCHED_LAUNCH,
                                         .slot = slot,
                                         .launch = {st->now, predicted_ns, tpcs, cluster, 0}});
}

static void launch(struct stand *st, uint32_t slot, uint64_t predicted_ns)
{
    launch_on(st, slot, predicted_ns, st->grant[slot].own, 1);
}

static void done(struct stand *st, uint32_t slot, uint64_t took_ns, uint64_t predicted_ns)
{
    tell(st, (struct lithos_sched_event){
                 .kind = LITHOS_SCHED_DONE,
                 .slot = slot,
                 .done = {st->now - took_ns - 6 * US, st->now - took_ns, st->now, predicted_ns}});
}

static void queue(struct stand *st, uint32_t slot, uint32_t launches, uint64_t head_ns,
                  enum lithos_tpcpick why)
{
    tell(st, (struct lithos_sched_event){
                 .kind = LITHOS_SCHED_QUEUE, .slot = slot, .queue = {launches, head_ns, 0, why}});
}

/* A request: a launch of so long, then idle for so long. */
static void request(struct stand *st, uint32_t slot, uint64_t busy_ns, uint64_t idle_ns)
{
    launch(st, slot, busy_ns);
    wait_until(st, st->now + busy_ns);
    done(st, slot, busy_ns, busy_ns);
    wait_until(st, st->now + idle_ns);
}

static struct lithos_sched_explain explain(struct stand *st, uint32_t slot)
{
    struct lithos_sched_explain e;
    assert_int_equal(lithos_sched_explain(st->s, st->now, slot, &e), 0);
    return e;
}

/* --- admission --- */

static void test_tenants_are_checked(void **state)
{
    struct stand *st = *state;
    struct lithos_sched_tenant t = {.id = 1, .own = set("9-16"), .class = LITHOS_SCHED_HIGH};
    uint32_t slot = 99;

    assert_int_equal(lithos_sched_add(st->s, st->now, &t, &slot), 0);
    assert_int_equal(lithos_sched_add(st->s, st->now, &t, &slot), -EEXIST);
    t.id = 2;
    assert_int_equal(lithos_sched_add(st->s, st->now, &t, &slot), -EBUSY);
    t.own = set("4");
    assert_int_equal(lithos_sched_add(st->s, st->now, &t, &slot), -EINVAL);
    t.own = set("18");
    t.slip_ppm = 999999;
    assert_int_equal(lithos_sched_add(st->s, st->now, &t, &slot), -EINVAL);
    t.slip_ppm = 0;
    t.class = LITHOS_SCHED_CLASS_MAX;
    assert_int_equal(lithos_sched_add(st->s, st->now, &t, &slot), -EINVAL);
    t.class = LITHOS_SCHED_BEST_EFFORT;
    t.id = 0;
    assert_int_equal(lithos_sched_add(st->s, st->now, &t, &slot), -EINVAL);
    t.own = set("-");
    for (t.id = 2; t.id <= LITHOS_SCHED_TENANTS_MAX; t.id++)
        assert_int_equal(lithos_sched_add(st->s, st->now, &t, &slot), 0);
    assert_int_equal(lithos_sched_add(st->s, st->now, &t, &slot), -ENFILE);
    assert_int_equal(lithos_sched_remove(st->s, st->now, 5), 0);
    assert_int_equal(lithos_sched_remove(st->s, st->now, 5), -ENOENT);
    assert_int_equal(lithos_sched_add(st->s, st->now, &t, &slot), 0);
    assert_int_equal(slot, 5);
    t.own = set("9");
    assert_int_equal(lithos_sched_change(st->s, st->now, slot, &t), -EBUSY);
    t.own = set("18");
    assert_int_equal(lithos_sched_change(st->s, st->now, slot, &t), 0);
    t.id = 1;
    assert_int_equal(lithos_sched_change(st->s, st->now, slot, &t), -EINVAL);
    assert_int_equal(lithos_sched_change(st->s, st->now, 1000, &t), -ENOENT);
}

static void test_configuration_is_checked(void **state)
{
    (void)state;
    struct lithos_sched_config good = {.topology = card_h200(), .policy = lithos_policy_find("lithos")}, c;
    size_t bytes;
    lithos_sched_config_defaults(&good);
#define BAD(change)                                               \
    do {                                                          \
        c = good;                                                 \
        change;                                                   \
        assert_int_equal(lithos_sched_size(&c, &bytes), -EINVAL); \
    } while (0)
    assert_int_equal(lithos_sched_size(&good, &bytes), 0);
    BAD(c.policy = NULL);
    BAD(c.tenants = 0);
    BAD(c.tenants = LITHOS_SCHED_TENANTS_MAX + 1);
    BAD(c.topology.sms_per_tpc = 0);
    BAD(c.slip_ppm = 999999);
    BAD(c.hit_ppm = 1000001);
    BAD(c.turn_ns = 0);
#undef BAD
}

static void test_strange_events_change_nothing(void **state)
{
    struct stand *st = *state;
    const uint32_t slot = add_owner(st, 1, "9-16", 0, 0);
    const unsigned handed = st->handed;

    launch_on(st, 40, 100 * US, set("9"), 1);
    launch_on(st, 4000, 100 * US, set("9"), 1);
    done(st, slot, 100 * US, 100 * US);
    tell(st, (struct lithos_sched_event){.kind = LITHOS_SCHED_EVENT_MAX, .slot = slot});
    assert_int_equal(lithos_sched_strange(st->s), 4);
    assert_int_equal(st->handed, handed);
    assert_int_equal(explain(st, slot).outstanding, 0);
}

/* --- lending --- */

static void test_idle_tpcs_are_lent_and_taken_back(void **state)
{
    struct stand *st = *state;
    const uint32_t owner = add_owner(st, 1, "9-16,18-25,27-34,36-43", 50 * MS, 0);
    const uint32_t be = add_best_effort(st, 2, "45-52", 1);

    for (unsigned i = 0; i < 30; i++)
        request(st, owner, 1 * MS, 5 * MS);
    assert_true(nothing(lent(st, be))); /* it asks for nothing */
    queue(st, be, 3, 300 * US, LITHOS_PICK_RUN);
    assert_set(lent(st, be), "0-3,9-16,18-25,27-34,36-43,54-71,75,78,81,83");
    assert_set(st->grant[be].own, "45-52");
    assert_set(explain(st, owner).lent_away, "9-16,18-25,27-34,36-43");
    const uint64_t epoch = st->grant[be].epoch;

    launch(st, owner, 1 * MS);
    assert_set(lent(st, be), "0-3,54-71,75,78,81,83");
    assert_int_equal(st->grant[be].epoch, epoch + 1);
    assert_true(st->grant[be].flags & LITHOS_TPCGRANT_RECALL);
    assert_int_equal(explain(st, be).why, LITHOS_WHY_OWNER_BUSY);
    /* what may come back, and about when */
    assert_set(st->grant[be].wider, "9-16,18-25,27-34,36-43");
    assert_in_range(st->grant[be].wider_ns, st->now + 900 * US, st->now + 1300 * US);

    wait_until(st, st->now + 1 * MS);
    done(st, owner, 1 * MS, 1 * MS);
    wait_until(st, st->now + 300 * US);
    assert_set(lent(st, be), "0-3,9-16,18-25,27-34,36-43,54-71,75,78,81,83");
    queue(st, be, 0, 0, LITHOS_PICK_RUN);
    assert_true(nothing(lent(st, be)));
}

/* What nobody owns has no limit; an owner's has one that follows from its SLO and what it needs. */
static void test_limits_follow_from_the_slo(void **state)
{
    struct stand *st = *state;
    const uint32_t owner = add_owner(st, 1, "9-16", 21 * MS, 0);
    const uint32_t be = add_best_effort(st, 2, "-", 1);

    for (unsigned i = 0; i < 97; i++)
        request(st, owner, 1 * MS, 100 * US + i * 37 % 97 * 25 * US);
    request(st, owner, 1 * MS, 100 * US);
    queue(st, be, 1, 100 * US, LITHOS_PICK_RUN);
    const struct lithos_tpcgrant *g = &st->grant[be];
    assert_int_equal(g->part_count, 2);
    assert_int_equal(g->parts[0].longest_ns, LITHOS_TPCGRANT_FOREVER);
    assert_set(g->parts[1].tpcs, "9-16");
    /* half of (21 - 1) ms, less what it takes to react */
    assert_in_range(g->parts[1].longest_ns, 9700 * US, 10000 * US);
    assert_int_equal(explain(st, owner).need_ns / US, 1000);

    /* the same with a slip of 1.1: twice a tenth of what it needs */
    struct lithos_sched_tenant t = {
        .id = 1, .own = set("9-16"), .class = LITHOS_SCHED_HIGH, .slip_ppm = 1100000};
    assert_int_equal(lithos_sched_change(st->s, st->now, owner, &t), 0);
    run(st);
    assert_in_range(g->parts[1].longest_ns, 155 * US, 170 * US);
    /* and with one that bears nothing: not lent, as nobody knows when it comes */
    t.slip_ppm = 1001000;
    assert_int_equal(lithos_sched_change(st->s, st->now, owner, &t), 0);
    run(st);
    assert_int_equal(g->part_count, 1);
    assert_int_equal(explain(st, be).why, LITHOS_WHY_OWNER_SLACK);
}

/* An owner with no slack at all that comes every 2 ms: lent until shortly before. */
static void test_even_intervals_are_foreseen(void **state)
{
    struct stand *st = *state;
    const uint32_t owner = add_owner(st, 1, "9-16", 0, 1001000);
    const uint32_t be = add_best_effort(st, 2, "18-25,27-34,36-43,45-52,54-71,75,78,81,83,0-3", 1);
    uint64_t came = 0;

    queue(st, be, 1, 100 * US, LITHOS_PICK_RUN);
    for (unsigned i = 0; i < 230; i++) {
        came = st->now;
        request(st, owner, 100 * US, 1900 * US);
    }
    queue(st, be, 0, 0, LITHOS_PICK_RUN); /* it has not launched for long: not so long that it starves */
    queue(st, be, 1, 100 * US, LITHOS_PICK_RUN);
    st->now = came + 2 * MS;
    launch(st, owner, 100 * US);
    assert_true(nothing(lent(st, be)));
    wait_until(st, st->now + 100 * US);
    done(st, owner, 100 * US, 100 * US);
    const struct lithos_tpcgrant_part *p = &st->grant[be].parts[0];
    assert_set(lent(st, be), "9-16");
    assert_int_equal(p->longest_ns, 0);
    assert_in_range(p->until_ns, st->now + 1850 * US, st->now + 1900 * US);
    wait_until(st, st->now + 1870 * US);
    assert_true(st->grant[be].part_count == 0 || st->grant[be].parts[0].until_ns < st->now + 30 * US);
}

/* Requests that come one after the other with short pauses are one busy period: nothing is lent in the pauses. */
static void test_pauses_are_not_idleness(void **state)
{
    struct stand *st = *state;
    const uint32_t owner = add_owner(st, 1, "9-16", 100 * MS, 0);
    const uint32_t be = add_best_effort(st, 2, "18-25", 1);

    for (unsigned i = 0; i < 60; i++) {
        request(st, owner, 1 * MS, 25 * US);
        request(st, owner, 1 * MS, 3 * MS + i * 31 % 17 * 300 * US);
    }
    queue(st, be, 1, 300 * US, LITHOS_PICK_RUN);
    launch(st, owner, 1 * MS);
    wait_until(st, st->now + 1 * MS);
    done(st, owner, 1 * MS, 1 * MS);
    assert_true(nothing(lithos_tpcset_and(lent(st, be), set("9-16"))));
    assert_int_equal(explain(st, be).why, LITHOS_WHY_OWNER_SOON);
    wait_until(st, st->now + 200 * US);
    assert_set(lithos_tpcset_and(lent(st, be), set("9-16")), "9-16");
    assert_int_equal(explain(st, owner).need_ns / US, 2025);
}

static void test_an_owner_who_never_came_lends_after_a_while(void **state)
{
    struct stand *st = *state;
    (void)add_owner(st, 1, "9-16", 0, 0);
    const uint32_t be = add_best_effort(st, 2, "18-25", 1);
    queue(st, be, 1, 300 * US, LITHOS_PICK_RUN);
    assert_true(nothing(lithos_tpcset_and(lent(st, be), set("9-16"))));
    wait_until(st, st->now + 20 * MS);
    assert_set(lithos_tpcset_and(lent(st, be), set("9-16")), "9-16");
}

static void test_best_effort_owners_lend_too(void **state)
{
    struct stand *st = *state;
    const uint32_t a = add_best_effort(st, 1, "9-16,18-25,27-34,36-43", 1);
    const uint32_t b = add_best_effort(st, 2, "45-52,54-71,0-3,75,78,81,83", 1);
    queue(st, b, 1, 300 * US, LITHOS_PICK_RUN);
    assert_set(lent(st, b), "9-16,18-25,27-34,36-43");
    assert_int_equal(st->grant[b].parts[0].longest_ns, 2 * MS);
    queue(st, a, 1, 300 * US, LITHOS_PICK_RUN);
    assert_true(nothing(lent(st, b)));
    assert_set(st->grant[a].own, "9-16,18-25,27-34,36-43");
}

/* A high-priority tenant takes what no best-effort one wants, unless it has a weight. */
static void test_high_priority_tenants_borrow_last(void **state)
{
    struct stand *st = *state;
    const uint32_t hp = add_owner(st, 1, "9-16", 0, 0);
    const uint32_t be = add_best_effort(st, 2, "-", 1);
    launch(st, hp, 1 * MS);
    assert_int_equal(lithos_tpcset_count(&(struct lithos_tpcset){{lent(st, hp).w[0], lent(st, hp).w[1]}}),
                     58);
    queue(st, be, 1, 300 * US, LITHOS_PICK_RUN);
    assert_true(nothing(lent(st, hp)));
    assert_int_equal(lithos_tpcset_count(&(struct lithos_tpcset){{lent(st, be).w[0], lent(st, be).w[1]}}),
                     58);
    struct lithos_sched_tenant t = {.id = 1, .own = set("9-16"), .class = LITHOS_SCHED_HIGH, .weight = 1};
    assert_int_equal(lithos_sched_change(st->s, st->now, hp, &t), 0);
    run(st);
    assert_false(nothing(lent(st, hp)));
}

/* --- fairness --- */

static unsigned count(struct lithos_tpcset s)
{
    return lithos_tpcset_count(&s);
}

static void test_shares_go_by_weight(void **state)
{
    struct stand *st = *state;
    const uint32_t a = add_best_effort(st, 1, "-", 1), b = add_best_effort(st, 2, "-", 2);
    uint64_t had[2] = {0, 0};

    queue(st, a, 1, 100 * US, LITHOS_PICK_RUN);
    queue(st, b, 1, 100 * US, LITHOS_PICK_RUN);
    assert_int_equal(count(lent(st, a)) + count(lent(st, b)), 66);
    for (unsigned i = 0; i < 200; i++) {
        wait_until(st, st->now + 1 * MS);
        had[0] += count(lent(st, a));
        had[1] += count(lent(st, b));
    }
    assert_in_range(1000 * had[1] / had[0], 1900, 2100);
    /* being idle saves nothing up */
    queue(st, a, 0, 0, LITHOS_PICK_RUN);
    wait_until(st, st->now + 500 * MS);
    queue(st, a, 1, 100 * US, LITHOS_PICK_RUN);
    assert_in_range(count(lent(st, a)), 18, 30);
}

static void test_more_tenants_than_tpcs_take_turns(void **state)
{
    struct stand *st = *state;
    uint32_t be[8];
    uint64_t had[8] = {0}, sum = 0;

    (void)add_owner(st, 1, "9-16,18-25,27-34,36-43,45-52,54-71", 0, 0);
    launch(st, 0, 3600 * 1000 * MS);
    (void)add_owner(st, 2, "0-3", 0, 0);
    launch(st, 1, 3600 * 1000 * MS); /* 4 TPCs are left */
    for (unsigned i = 0; i < 8; i++) {
        be[i] = add_best_effort(st, 10 + i, "-", 1);
        queue(st, be[i], 1, 100 * US, LITHOS_PICK_RUN);
    }
    for (unsigned n = 0; n < 400; n++) {
        wait_until(st, st->now + 1 * MS);
        for (unsigned i = 0; i < 8; i++)
            had[i] += count(lent(st, be[i]));
    }
    for (unsigned i = 0; i < 8; i++)
        sum += had[i];
    assert_int_equal(sum, 1600);
    for (unsigned i = 0; i < 8; i++)
        assert_in_range(had[i], 170, 230);
}

/* Shares are made of whole GPCs as far as they go, and stay where they are. */
static void test_shares_have_room_for_clusters(void **state)
{
    struct stand *st = *state;
    const struct lithos_topology t = card_h200();
    uint32_t be[4];

    for (unsigned i = 0; i < 4; i++) {
        be[i] = add_best_effort(st, 1 + i, "-", 1);
        queue(st, be[i], 1, 100 * US, LITHOS_PICK_RUN);
    }
    for (unsigned i = 0; i < 4; i++)
        assert_true(lithos_topology_largest_cluster(&t, lent(st, be[i])) >= 8);
    const struct lithos_tpcset before = lent(st, be[1]);
    queue(st, be[3], 0, 0, LITHOS_PICK_RUN);
    const struct lithos_tpcset kept = lithos_tpcset_and(before, lent(st, be[1]));
    assert_true(lithos_tpcset_equal(&kept, &before));
}

/* TPCs where another borrower's work is still predicted to run are not given to a newcomer (per-TPC timers). */
static void test_busy_tpcs_are_left_to_whoever_is_on_them(void **state)
{
    struct stand *st = *state;
    const uint32_t a = add_best_effort(st, 1, "-", 1);
    queue(st, a, 1, 5 * MS, LITHOS_PICK_RUN);
    launch_on(st, a, 5 * MS, lent(st, a), 1);
    const uint32_t b = add_best_effort(st, 2, "-", 1);
    queue(st, b, 1, 100 * US, LITHOS_PICK_RUN);
    assert_true(nothing(lent(st, b)));
    assert_in_range(count(lent(st, a)), 33, 66);
    assert_int_equal(explain(st, b).why, LITHOS_WHY_SHARE);
    wait_until(st, st->now + 6 * MS);
    assert_in_range(count(lent(st, b)), 30, 46); /* and, being behind, more than half for a while */
}

/* --- nobody starves --- */

static void test_what_outlives_the_slack_goes_once_in_a_while(void **state)
{
    struct stand *st = *state;
    const uint32_t owner = add_owner(st, 1, "0-3,9-16,18-25,27-34,36-43,45-52,54-71,75,78,81,83", 0, 1100000);
    const uint32_t be = add_best_effort(st, 2, "-", 1);

    for (unsigned i = 0; i < 60; i++)
        request(st, owner, 2 * MS, 3 * MS + i * 31 % 17 * 300 * US);
    queue(st, be, 1, 1500 * US, LITHOS_PICK_OUTLIVES);
    assert_in_range(st->grant[be].parts[0].longest_ns, 100 * US, 500 * US);
    const uint64_t asked = st->now;
    while (st->grant[be].part_count == 0 || st->grant[be].parts[0].longest_ns != LITHOS_TPCGRANT_FOREVER) {
        request(st, owner, 2 * MS, 3 * MS);
        assert_true(st->now < asked + 120 * MS);
    }
    assert_true(st->now >= asked + 100 * MS);
    /* once: it has been fed */
    launch_on(st, be, 1500 * US, lent(st, be), 1);
    wait_until(st, st->now + 1500 * US);
    done(st, be, 1500 * US, 1500 * US);
    request(st, owner, 2 * MS, 3 * MS);
    assert_true(st->grant[be].part_count == 0 || st->grant[be].parts[0].longest_ns < 1 * MS);
}

static void test_a_floor_is_met_by_owners_who_are_busy(void **state)
{
    struct stand *st = *state;
    const uint32_t owner = add_owner(st, 1, "0-3,9-16,18-25,27-34,36-43,45-52,54-71,75,78,81,83", 0, 0);
    const uint32_t without = add_best_effort(st, 2, "-", 1);
    const uint32_t with = add(
        st, &(struct lithos_sched_tenant){
                .id = 3, .own = set("-"), .class = LITHOS_SCHED_BEST_EFFORT, .weight = 1, .floor_tpcs = 4});
    launch(st, owner, 3600 * 1000 * MS);
    queue(st, without, 1, 100 * US, LITHOS_PICK_NO_TPCS);
    queue(st, with, 1, 100 * US, LITHOS_PICK_NO_TPCS);
    wait_until(st, st->now + 99 * MS);
    assert_true(nothing(lent(st, with)));
    wait_until(st, st->now + 2 * MS);
    assert_int_equal(count(lent(st, with)), 4);
    assert_true(nothing(lent(st, without)));
    assert_int_equal(explain(st, without).why, LITHOS_WHY_OWNER_BUSY);
}

/* --- when things are not as predicted --- */

static void test_neighbours_that_slow_an_owner_get_less(void **state)
{
    struct stand *st = *state;
    const uint32_t owner = add_owner(st, 1, "9-16,18-25,27-34,36-43", 0, 1100000);
    const uint32_t be = add_best_effort(st, 2, "-", 1);

    for (unsigned i = 0; i < 40;
         i++) /* alone, as predicted; two launches, as the first after a pause says nothing */
        for (unsigned n = 0; n < 2; n++) {
            launch(st, owner, 100 * US);
            launch(st, owner, 100 * US);
            wait_until(st, st->now + 200 * US);
            done(st, owner, 100 * US, 100 * US);
            done(st, owner, 100 * US, 100 * US);
        }
    queue(st, be, 1, 100 * US, LITHOS_PICK_RUN);
    launch(st, owner, 100 * US);
    const unsigned before = count(lent(st, be));
    assert_int_equal(before, 34);
    for (unsigned i = 0; i < 3000; i++) { /* beside: a third slower */
        launch(st, owner, 100 * US);
        wait_until(st, st->now + 133 * US);
        done(st, owner, 133 * US, 100 * US);
    }
    const unsigned squeezed = count(lent(st, be));
    assert_in_range(squeezed, 3, before / 2);
    assert_in_range(explain(st, owner).slower_ppm, 1300000, 1350000);
    assert_int_equal(explain(st, be).why, LITHOS_WHY_SQUEEZED);
    for (unsigned i = 0; i < 30000; i++) { /* beside, but as fast as alone: more again */
        launch(st, owner, 100 * US);
        wait_until(st, st->now + 100 * US);
        done(st, owner, 100 * US, 100 * US);
    }
    assert_int_equal(count(lent(st, be)), before);
}

/* Predictions ten times too short: an owner that finds its TPCs taken for long stops trusting them. */
static void test_trust_is_lost_and_comes_back(void **state)
{
    struct stand *st = *state;
    const uint32_t owner = add_owner(st, 1, "9-16", 0, 1100000);
    const uint32_t be = add_best_effort(st, 2, "18-25", 1);

    for (unsigned i = 0; i < 60; i++)
        request(st, owner, 5 * MS, 3 * MS + i * 31 % 17 * 300 * US);
    const uint64_t trusted = explain(st, owner).slack_ns;
    assert_in_range(trusted, 990 * US, 1010 * US);
    for (unsigned i = 0; i < 4; i++) {
        queue(st, be, 1, 100 * US, LITHOS_PICK_RUN);
        launch_on(st, be, 20 * MS, set("9-16"), 1);
        launch(st, owner, 5 * MS); /* and waits 10 ms */
        wait_until(st, st->now + 15 * MS);
        done(st, owner, 15 * MS, 5 * MS);
        done(st, be, 15 * MS, 20 * MS);
        queue(st, be, 0, 0, LITHOS_PICK_RUN);
        wait_until(st, st->now + 5 * MS);
    }
    assert_true(explain(st, owner).slack_ns < trusted / 4);
    assert_true(explain(st, owner).wait_ns > 9 * MS);
    for (unsigned i = 0; i < 100; i++)
        request(st, owner, 5 * MS, 3 * MS + i * 31 % 17 * 300 * US);
    assert_in_range(explain(st, owner).slack_ns, 990 * US, 1010 * US);
}

static void test_a_lost_lease_borrows_nothing(void **state)
{
    struct stand *st = *state;
    const uint32_t be = add_best_effort(st, 1, "9-16", 1);
    queue(st, be, 1, 100 * US, LITHOS_PICK_RUN);
    assert_int_equal(count(lent(st, be)), 58);
    tell(st, (struct lithos_sched_event){.kind = LITHOS_SCHED_LEASE_LOST, .slot = be});
    assert_true(nothing(lent(st, be)));
    assert_set(st->grant[be].own, "9-16");
    assert_int_equal(explain(st, be).why, LITHOS_WHY_LEASE);
    tell(st, (struct lithos_sched_event){.kind = LITHOS_SCHED_LEASE_BACK, .slot = be});
    assert_int_equal(count(lent(st, be)), 58);
}

static void test_what_is_lost_is_not_waited_for(void **state)
{
    struct stand *st = *state;
    const uint32_t owner = add_owner(st, 1, "9-16", 50 * MS, 0);
    const uint32_t be = add_best_effort(st, 2, "18-25", 1);
    for (unsigned i = 0; i < 30; i++)
        request(st, owner, 1 * MS, 5 * MS);
    queue(st, be, 1, 100 * US, LITHOS_PICK_RUN);
    launch(st, owner, 1 * MS);
    assert_true(nothing(lithos_tpcset_and(lent(st, be), set("9-16"))));
    wait_until(st, st->now + 2 * MS);
    tell(st, (struct lithos_sched_event){
                 .kind = LITHOS_SCHED_LOST, .slot = owner, .done = {.predicted_ns = 1 * MS}});
    wait_until(st, st->now + 500 * US);
    assert_set(lithos_tpcset_and(lent(st, be), set("9-16")), "9-16");
    assert_int_equal(lithos_sched_remove(st->s, st->now, owner), 0);
    run(st);
    assert_int_equal(count(lent(st, be)), 58);
}

/* --- how a tenant is best run --- */

static struct lithos_sched_advice advise(struct stand *st, uint32_t slot, uint64_t switch_ns)
{
    struct lithos_sched_advice a;
    assert_int_equal(lithos_sched_advise(st->s, slot, switch_ns, &a), 0);
    return a;
}

static void launch_kind(struct stand *st, uint32_t slot, uint64_t predicted_ns, uint32_t flags)
{
    tell(st, (struct lithos_sched_event){.kind = LITHOS_SCHED_LAUNCH,
                                         .slot = slot,
                                         .launch = {st->now, predicted_ns, st->grant[slot].own, 1, flags}});
    wait_until(st, st->now + predicted_ns);
    done(st, slot, predicted_ns, predicted_ns);
}

static void test_advice_on_multiprocessors(void **state)
{
    struct stand *st = *state;
    const uint32_t a = add_owner(st, 1, "9-16,18-25,27-34,36-43", 50 * MS, 0);
    const uint32_t b = add_owner(st, 2, "45-52", 50 * MS, 0);
    const uint32_t be = add_best_effort(st, 3, "-", 1);

    for (unsigned i = 0; i < 40; i++) {
        request(st, a, 1 * MS, 5 * MS); /* idle most of the time */
        request(st, b, 12 * MS, 100 * US);
    }
    /* 66 TPCs without b's 8 */
    assert_int_equal(advise(st, be, 0).sms, 2 * 58);
    assert_int_equal(advise(st, b, 0).sms, 2 * 8);
    assert_int_equal(lithos_sched_advise(st->s, 60, 0, &(struct lithos_sched_advice){0}), -ENOENT);
}

static void test_advice_to_take_turns(void **state)
{
    struct stand *st = *state;
    const uint32_t owner = add_owner(st, 1, "9-16,18-25,27-34,36-43", 0, 1100000);
    const uint32_t be = add_best_effort(st, 2, "45-52", 1);
    const uint32_t cut = LITHOS_TPCWORK_CUTTABLE;

    for (unsigned i = 0; i < 60; i++) /* bears twice a tenth of 5 ms */
        request(st, owner, 5 * MS, 3 * MS + i * 31 % 17 * 300 * US);
    for (unsigned i = 0; i < 100; i++) {
        launch_kind(st, be, 400 * US, 0);
        launch_kind(st, be, 4 * MS, cut);
    }
    struct lithos_sched_advice a = advise(st, be, 280 * US);
    assert_in_range(a.slack_ns, 990 * US, 1010 * US);
    assert_in_range(a.uncut_ppm, 90000, 91000);
    assert_int_equal(a.unborne_ppm, 0);
    assert_false(a.turns);
    for (unsigned i = 0; i < 100; i++)
        launch_kind(st, be, 4 * MS, 0);
    a = advise(st, be, 280 * US);
    assert_in_range(a.unborne_ppm, 400000, 500000);
    assert_true(a.turns);
    /* not where they cannot, nor where the owner does not bear the switch */
    assert_false(advise(st, be, 0).turns);
    assert_false(advise(st, be, 2 * MS).turns);
    assert_false(advise(st, owner, 280 * US).turns);
}

/* --- why --- */

static void test_explain_accounts_for_the_last_second(void **state)
{
    struct stand *st = *state;
    const uint32_t owner = add_owner(st, 1, "0-3,9-16,18-25,27-34,36-43,45-52,54-71,75,78,81,83", 0, 0);
    const uint32_t be = add_best_effort(st, 2, "-", 1);
    uint64_t sum = 0;

    launch(st, owner, 1000 * MS);
    wait_until(st, st->now + 500 * MS);
    queue(st, be, 1, 100 * US, LITHOS_PICK_NO_TPCS);
    wait_until(st, st->now + 3000 * MS);
    queue(st, be, 0, 0, LITHOS_PICK_RUN);
    wait_until(st, st->now + 250 * MS);
    const struct lithos_sched_explain e = explain(st, be);
    for (unsigned i = 0; i < LITHOS_WHY_MAX; i++)
        sum += e.why_ns[i];
    assert_in_range(sum, 875 * MS, 1000 * MS);
    assert_in_range(e.why_ns[LITHOS_WHY_IDLE], 249 * MS, 251 * MS);
    assert_int_equal(e.why_ns[LITHOS_WHY_IDLE] + e.why_ns[LITHOS_WHY_OWNER_BUSY], sum);
    assert_int_equal(e.pick_ns[LITHOS_PICK_NO_TPCS], e.why_ns[LITHOS_WHY_OWNER_BUSY]);
    assert_int_equal(e.tenant, 2);
    assert_int_equal(lithos_sched_explain(st->s, st->now, 7, &(struct lithos_sched_explain){0}), -ENOENT);
    for (unsigned i = 0; i < LITHOS_WHY_MAX; i++)
        assert_string_not_equal(lithos_sched_why_name(i), "unknown");
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, begin, end)
    const struct CMUnitTest tests[] = {
        T(test_tenants_are_checked),
        cmocka_unit_test(test_configuration_is_checked),
        T(test_strange_events_change_nothing),
        T(test_idle_tpcs_are_lent_and_taken_back),
        T(test_limits_follow_from_the_slo),
        T(test_even_intervals_are_foreseen),
        T(test_pauses_are_not_idleness),
        T(test_an_owner_who_never_came_lends_after_a_while),
        T(test_best_effort_owners_lend_too),
        T(test_high_priority_tenants_borrow_last),
        T(test_shares_go_by_weight),
        T(test_more_tenants_than_tpcs_take_turns),
        T(test_shares_have_room_for_clusters),
        T(test_busy_tpcs_are_left_to_whoever_is_on_them),
        T(test_what_outlives_the_slack_goes_once_in_a_while),
        T(test_a_floor_is_met_by_owners_who_are_busy),
        T(test_neighbours_that_slow_an_owner_get_less),
        T(test_trust_is_lost_and_comes_back),
        T(test_a_lost_lease_borrows_nothing),
        T(test_what_is_lost_is_not_waited_for),
        T(test_advice_on_multiprocessors),
        T(test_advice_to_take_turns),
        T(test_explain_accounts_for_the_last_second),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
