/* The scheduler: who gets which TPCs, told by events alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>

#include "base/util.h"
#include "core/policy.h"
#include "unit/sched_stand.h"

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
    /* it has only paused, as far as one can tell; nobody else wants them */
    queue(st, be, 0, 0, LITHOS_PICK_RUN);
    assert_set(lent(st, be), "0-3,9-16,18-25,27-34,36-43,54-71,75,78,81,83");
    wait_until(st, st->now + 3 * MS);
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

/* Requests that waited for each other make long busy periods, and none of them took all of it. */
static void test_an_slo_is_about_requests(void **state)
{
    struct stand *st = *state;
    const uint32_t owner = add_owner(st, 1, "9-16", 21 * MS, 0);

    for (unsigned i = 0; i < 100; i++)
        request(st, owner, i % 20 == 19 ? 9 * MS : 1 * MS, 100 * US + i * 37 % 97 * 25 * US);
    assert_int_equal(explain(st, owner).need_ns / MS, 9);
    assert_in_range(explain(st, owner).slack_ns, 7900 * US, 8000 * US); /* half of 21 - (1 + 9) / 2 */
    /* a promise that is broken as it is leaves nothing */
    const struct lithos_sched_tenant t = {
        .id = 1, .own = set("9-16"), .class = LITHOS_SCHED_HIGH, .slo_ns = 4 * MS};
    assert_int_equal(lithos_sched_change(st->s, st->now, owner, &t), 0);
    assert_int_equal(explain(st, owner).slack_ns, 0);
}

/* A hundred times it is busy, for so many parts, in turn, with pauses too short for anybody. late: an end is told when the next part has begun,
 * as whoever looks seldom hears of it. */
#define RUNS 20
static struct lithos_sched_explain after_runs(struct stand *st, uint32_t owner,
                                              const unsigned parts[static RUNS], uint64_t part_ns,
                                              uint64_t pause_ns, bool late)
{
    for (unsigned i = 0; i < 5 * RUNS; i++) {
        launch(st, owner, part_ns);
        for (unsigned k = 1; k < parts[i % RUNS]; k++) {
            const uint64_t end_ns = st->now + part_ns;
            wait_until(st, late ? end_ns + pause_ns : end_ns);
            if (late)
                launch(st, owner, part_ns);
            tell(st, (struct lithos_sched_event){
                         .kind = LITHOS_SCHED_DONE,
                         .slot = owner,
                         .done = {end_ns - part_ns - 6 * US, end_ns - part_ns, end_ns, part_ns}});
            if (!late) {
                wait_until(st, end_ns + pause_ns);
                launch(st, owner, part_ns);
            }
        }
        wait_until(st, st->now + part_ns);
        done(st, owner, part_ns, part_ns);
        wait_until(st, st->now + 5 * MS + i * 37 % 97 * 25 * US);
    }
    return explain(st, owner);
}

/* The same of graphs, of which each is a request: of 25 that waited for each other none waited for more than a few. */
static void test_a_long_queue_is_not_a_long_request(void **state)
{
    struct stand *st = *state;
    const uint32_t owner = add_owner(st, 1, "9-16", 14 * MS, 0);
    const unsigned parts[RUNS] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 25};
    const struct lithos_sched_explain e = after_runs(st, owner, parts, 1 * MS, 60 * US, false);

    assert_in_range(e.need_ns, 25 * MS, 27 * MS);
    /* 1 + sqrt(24 pi / 2) ms, to the histogram's eighth of an octave; half-way would be 13 */
    assert_in_range(e.request_ns, 6400 * US, 7200 * US);
    assert_int_equal(e.slack_ns, (14 * MS - e.request_ns) / 2);
}

/* A service at more than half of its TPCs' time: in most runs somebody waits. */
static void queues_are_usual(struct stand *st, bool late)
{
    const uint32_t owner = add_owner(st, 1, "9-16", 15 * MS, 0);
    const unsigned parts[RUNS] = {1, 3, 3, 1, 4, 3, 3, 1, 3, 5, 1, 3, 4, 7, 1, 3, 4, 1, 3, 16};
    const struct lithos_sched_explain e = after_runs(st, owner, parts, 2 * MS, 150 * US, late);

    assert_in_range(e.need_ns, 32 * MS, 35 * MS);
    /* 2 (1 + sqrt(15 pi / 2)) ms, in the same way; half-way would be 18 to 20 */
    assert_in_range(e.request_ns, 10500 * US, 12 * MS);
    assert_int_equal(e.slack_ns, (15 * MS - e.request_ns) / 2);
    assert_in_range(e.single_ns, 1990 * US, 2 * MS);
    assert_in_range(e.single_ppm, 50000, 150000); /* 6 of 70 */
}

static void test_queues_that_are_usual_are_not_long_requests(void **state)
{
    queues_are_usual(*state, false);
}

static void test_pauses_are_seen_however_late_they_are_told(void **state)
{
    queues_are_usual(*state, true);
}

/* Where a request is many kernels, with pauses as its program launches them, it may be one that is long. */
static void test_a_long_request_is_not_a_long_queue(void **state)
{
    struct stand *st = *state;
    const uint32_t owner = add_owner(st, 1, "9-16", 40 * MS, 0);
    const unsigned parts[RUNS] = {20, 20, 20, 20, 20, 20, 20, 20, 20, 20,
                                  20, 20, 20, 20, 20, 20, 20, 20, 20, 500};
    const struct lithos_sched_explain e = after_runs(st, owner, parts, 50 * US, 10 * US, false);

    assert_in_range(e.need_ns, 24 * MS, 31 * MS);
    assert_in_range(e.request_ns, 12 * MS, 16 * MS); /* half-way */
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
    /* what does not fit before its return has them after it */
    assert_set(st->grant[be].wider, "9-16");
    assert_in_range(st->grant[be].wider_ns, p->until_ns + 90 * US, p->until_ns + 2 * MS);
    assert_in_range(st->grant[be].wider_longest_ns, 1700 * US, 1900 * US);
    wait_until(st, st->now + 1870 * US);
    assert_true(st->grant[be].part_count == 0 || st->grant[be].parts[0].until_ns < st->now + 30 * US);
}

/* Shortly before such an owner comes nothing is lent any more, and still it is known when its TPCs are to be had again. */
static void test_a_return_is_seen_through(void **state)
{
    struct stand *st = *state;
    const uint32_t owner = add_owner(st, 1, "9-16", 0, 1001000);
    const uint32_t be = add_best_effort(st, 2, "18-25,27-34,36-43,45-52,54-71,75,78,81,83,0-3", 1);

    queue(st, be, 1, 100 * US, LITHOS_PICK_RUN);
    for (unsigned i = 0; i < 400; i++)
        request(st, owner, 100 * US, 1800 * US + i * 37 % 97 * 2 * US);
    queue(st, be, 0, 0, LITHOS_PICK_RUN); /* not so long without a launch that it starves */
    queue(st, be, 1, 100 * US, LITHOS_PICK_RUN);
    launch(st, owner, 100 * US);
    wait_until(st, st->now + 100 * US);
    done(st, owner, 100 * US, 100 * US);
    const uint64_t idle_ns = st->now, even_ns = explain(st, owner).even_ns;
    assert_in_range(even_ns, 1800 * US, 2000 * US);
    assert_set(lent(st, be), "9-16");
    wait_until(st, idle_ns + 1850 * US);
    queue(st, be, 2, 100 * US, LITHOS_PICK_RUN);
    assert_true(nothing(lent(st, be)));
    assert_set(st->grant[be].wider, "9-16");
    assert_in_range(st->grant[be].wider_ns, idle_ns + even_ns + 90 * US, idle_ns + even_ns + 200 * US);
    /* but nobody waits for one that stays away */
    wait_until(st, idle_ns + even_ns + even_ns / 4 + 10 * US);
    assert_true(nothing(st->grant[be].wider) || st->grant[be].part_count);
}

/* Requests that come by a clock: one that took long, since it waited for others, is not followed by a later one. Gaps alone would have
 * the next one meet others as well, and the one behind it. */
static void test_who_comes_by_a_clock_comes_no_later(void **state)
{
    struct stand *st = *state;
    const uint32_t owner = add_owner(st, 1, "9-16", 0, 1001000);
    const uint32_t be = add_best_effort(st, 2, "18-25,27-34,36-43,45-52,54-71,75,78,81,83,0-3", 1);

    queue(st, be, 1, 100 * US, LITHOS_PICK_RUN);
    for (unsigned i = 0; i < 400; i++)
        request(st, owner, 100 * US, 1900 * US);
    queue(st, be, 0, 0, LITHOS_PICK_RUN); /* not so long without a launch that it starves */
    queue(st, be, 1, 100 * US, LITHOS_PICK_RUN);
    const uint64_t came = st->now;
    launch(st, owner, 100 * US);
    wait_until(st, came + 430 * US);
    done(st, owner, 430 * US, 100 * US);
    assert_set(lent(st, be), "9-16");
    assert_in_range(st->grant[be].parts[0].until_ns, came + 1900 * US, came + 2000 * US);
    assert_in_range(st->grant[be].wider_ns, came + 2090 * US, came + 2300 * US);
    /* the next one does come then: after it all is as before */
    wait_until(st, came + 2 * MS);
    launch(st, owner, 100 * US);
    wait_until(st, came + 2100 * US);
    done(st, owner, 100 * US, 100 * US);
    assert_in_range(st->grant[be].parts[0].until_ns, came + 3900 * US, came + 4 * MS);
}

/* By a clock, but each request takes another time: the gaps say nothing, the clock does. */
static void test_a_clock_is_seen_behind_uneven_gaps(void **state)
{
    struct stand *st = *state;
    const uint32_t owner = add_owner(st, 1, "9-16", 0, 1001000);
    const uint32_t be = add_best_effort(st, 2, "18-25,27-34,36-43,45-52,54-71,75,78,81,83,0-3", 1);

    queue(st, be, 1, 100 * US, LITHOS_PICK_RUN);
    for (unsigned i = 0; i < 400; i++) {
        const uint64_t busy_ns = (100 + i * 37 % 97 * 12) * US;
        request(st, owner, busy_ns, 2 * MS - busy_ns);
    }
    queue(st, be, 0, 0, LITHOS_PICK_RUN);
    queue(st, be, 1, 100 * US, LITHOS_PICK_RUN);
    const uint64_t came = st->now;
    launch(st, owner, 300 * US);
    wait_until(st, came + 300 * US);
    done(st, owner, 300 * US, 300 * US);
    wait_until(st, came + 300 * US + 200 * US); /* it lingers */
    queue(st, be, 2, 100 * US, LITHOS_PICK_RUN);
    assert_set(lent(st, be), "9-16");
    assert_in_range(st->grant[be].parts[0].until_ns, came + 1900 * US, came + 2000 * US);
    assert_true(explain(st, owner).even_ns > 1000 * US);
}

/* Figure 10: work past its return would be met by each return, and buy little. An owner that bears more is another matter. */
static void test_a_foreseen_return_is_not_waited_past(void **state)
{
    struct stand *st = *state;
    const uint32_t owner = add_owner(st, 1, "9-16,18-25,27-34,54-62", 0, 1200000);
    const uint32_t be = add_best_effort(st, 2, "0-3,36-43,45-52,63-71,75,78,81,83", 1);
    queue(st, be, 1, 3 * MS, LITHOS_PICK_WINDOW);
    for (unsigned i = 0; i < 20; i++) /* too few to be sure of */
        request(st, owner, 900 * US, 2100 * US);
    assert_int_equal(explain(st, owner).even_ns, 0);
    launch(st, owner, 900 * US);
    wait_until(st, st->now + 900 * US);
    done(st, owner, 900 * US, 900 * US);
    assert_in_range(st->grant[be].parts[0].longest_ns, 300 * US, 360 * US);
    wait_until(st, st->now + 2100 * US);
    for (unsigned i = 0; i < 300; i++)
        request(st, owner, 900 * US, 2100 * US);
    assert_in_range(explain(st, owner).even_ns, 2000 * US, 2100 * US);
    queue(st, be, 0, 0, LITHOS_PICK_RUN); /* not so long without a launch that it starves */
    queue(st, be, 1, 3 * MS, LITHOS_PICK_WINDOW);
    launch(st, owner, 900 * US);
    wait_until(st, st->now + 900 * US);
    done(st, owner, 900 * US, 900 * US);
    assert_set(lent(st, be), "9-16,18-25,27-34,54-62");
    assert_int_equal(st->grant[be].parts[0].longest_ns, 0);
    assert_in_range(st->grant[be].parts[0].until_ns, st->now + 2000 * US, st->now + 2100 * US);
    wait_until(st, st->now + 2080 * US);
    assert_true(nothing(lent(st, be)));
    wait_until(st, st->now + 20 * US);
    /* one request late: the next gap is short, and still it is foreseen */
    request(st, owner, 900 * US, 2100 * US);
    struct lithos_sched_tenant bears = {
        .id = 1, .own = set("9-16,18-25,27-34,54-62"), .class = LITHOS_SCHED_HIGH, .slip_ppm = 3000000};
    assert_int_equal(lithos_sched_change(st->s, st->now, owner, &bears), 0);
    launch(st, owner, 900 * US);
    wait_until(st, st->now + 900 * US);
    done(st, owner, 900 * US, 900 * US);
    assert_true(st->grant[be].parts[0].longest_ns > 3000 * US);
}

/* A request of 900 us whose end is told of so much later, and its launch by half as much: as by who looks now and then. */
static void request_seen_late(struct stand *st, uint32_t owner, uint64_t late_ns)
{
    const uint64_t submit_ns = st->now;
    wait_until(st, submit_ns + late_ns / 2);
    tell(st, (struct lithos_sched_event){
                 .kind = LITHOS_SCHED_LAUNCH,
                 .slot = owner,
                 .launch = {submit_ns, 900 * US, st->grant[owner].own, 1, 0},
             });
    wait_until(st, submit_ns + 900 * US + late_ns);
    tell(st, (struct lithos_sched_event){
                 .kind = LITHOS_SCHED_DONE,
                 .slot = owner,
                 .done = {submit_ns, submit_ns + 6 * US, submit_ns + 900 * US, 900 * US},
             });
}

/* While nobody borrows lithosd looks every millisecond: what an owner is like is a matter of its times, not of the looks. */
static void test_what_is_seen_late_counts_as_of_its_time(void **state)
{
    struct stand *st = *state;
    const uint32_t owner = add_owner(st, 1, "9-16,18-25,27-34,54-62", 0, 1200000);
    const uint32_t be = add_best_effort(st, 2, "0-3,36-43,45-52,63-71,75,78,81,83", 1);

    uint64_t came = st->now;
    for (unsigned i = 0; i < 300; i++, came += 3 * MS) {
        wait_until(st, came);
        request_seen_late(st, owner, i * 370 * US % MS);
    }
    assert_in_range(explain(st, owner).need_ns, 850 * US, 910 * US);
    assert_in_range(explain(st, owner).even_ns, 2000 * US, 2100 * US);
    /* nor is it idle for longer than it is */
    wait_until(st, came);
    queue(st, be, 1, 3 * MS, LITHOS_PICK_WINDOW);
    request_seen_late(st, owner, 700 * US);
    assert_set(lent(st, be), "9-16,18-25,27-34,54-62");
    assert_in_range(st->grant[be].parts[0].until_ns, came + 2900 * US, came + 3 * MS);
}

/* What a program does first says little of it, and one pause nothing: it starts, waits for others, and is even from then on. */
static void test_odd_gaps_do_not_hide_even_ones(void **state)
{
    struct stand *st = *state;
    const uint32_t owner = add_owner(st, 1, "9-16,18-25,27-34,54-62", 0, 1200000);
    add_best_effort(st, 2, "0-3,36-43,45-52,63-71,75,78,81,83", 1);

    request(st, owner, 20 * MS, 3000 * MS);
    for (unsigned i = 0; i < 150; i++) { /* one in fifty is early */
        request(st, owner, 900 * US, i % 50 == 7 ? 1200 * US : 2100 * US);
        if (i >= 40)
            assert_in_range(explain(st, owner).need_ns, 850 * US, 910 * US);
    }
    assert_in_range(explain(st, owner).even_ns, 2000 * US, 2100 * US);
    for (unsigned i = 0; i < 300; i++) /* as often early as not */
        request(st, owner, 900 * US, i % 2 ? 1200 * US : 2100 * US);
    assert_int_equal(explain(st, owner).even_ns, 0);
}

/* A launch in atoms, each on what was lent when it went: what an owner meets is the atom, not the launch. */
static void test_atoms_are_where_they_are(void **state)
{
    struct stand *st = *state;
    const char *owns = "9-16,18-25,27-34,54-62";
    const uint32_t owner = add_owner(st, 1, owns, 0, 1200000);
    const uint32_t be = add_best_effort(st, 2, "0-3,36-43,45-52,63-71,75,78,81,83", 1);
    struct lithos_sched_event e = {.kind = LITHOS_SCHED_LAUNCH, .slot = be};
    e.launch.predicted_ns = 3 * MS;
    e.launch.stays_ns = 250 * US;
    for (unsigned i = 0; i < 2; i++) { /* begun there, gone on at home; and the other way round */
        const uint32_t hits = explain(st, owner).hits;
        e.kind = LITHOS_SCHED_LAUNCH;
        e.launch.submit_ns = st->now;
        e.launch.tpcs = i ? st->grant[be].own : set(owns);
        tell(st, e);
        wait_until(st, st->now + 400 * US);
        e.kind = LITHOS_SCHED_ATOM;
        e.launch.submit_ns = st->now;
        e.launch.tpcs = i ? set(owns) : st->grant[be].own;
        tell(st, e);
        assert_int_equal(explain(st, be).outstanding, 1);
        launch(st, owner, 900 * US);
        assert_int_equal(explain(st, owner).hits - hits, i);
        wait_until(st, st->now + 900 * US);
        done(st, owner, 900 * US, 900 * US);
        done(st, be, 1300 * US, 3 * MS);
        wait_until(st, st->now + 2 * MS);
    }
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

/* Graphs that borrow have a place: while one has work there nobody else is lent it, and its tenant no more. */
static void test_a_place_is_nobody_elses(void **state)
{
    struct stand *st = *state;
    const struct lithos_sched_tenant graphs = {
        .id = 1, .class = LITHOS_SCHED_BEST_EFFORT, .weight = 1, .place = set("0-3,9-16")};
    const uint32_t a = add(st, &graphs), b = add_best_effort(st, 2, "-", 1),
                   c = add_best_effort(st, 3, "-", 3);

    queue(st, b, 1, 100 * US, LITHOS_PICK_RUN);
    assert_int_equal(count(lent(st, b)), 66);
    launch_on(st, a, 4 * MS, graphs.place, 1);
    run(st);
    assert_set(lent(st, a), "0-3,9-16");
    assert_int_equal(count(lent(st, b)), 66 - 12);
    queue(st, c, 1, 100 * US, LITHOS_PICK_RUN);
    run(st);
    assert_set(lent(st, a), "0-3,9-16");
    assert_int_equal(count(lent(st, b)) + count(lent(st, c)), 66 - 12);
    assert_true(count(lent(st, c)) > 2 * count(lent(st, b)));
    /* one that is alone has all, for its other kernels */
    queue(st, b, 0, 0, LITHOS_PICK_RUN);
    queue(st, c, 0, 0, LITHOS_PICK_RUN);
    wait_until(st, st->now + 3 * MS);
    assert_int_equal(count(lent(st, a)), 66);
}

/* What goes by no grant may go on while every owner bears it, by its own past: not while one is at work, or about to be. */
static void test_owners_bear_what_can_be_stopped(void **state)
{
    struct stand *st = *state;
    const uint32_t owner = add_owner(st, 1, "9-16,18-25,27-34", 20 * MS, 0),
                   be = add_best_effort(st, 2, "-", 1);

    for (unsigned i = 0; i < 100; i++)
        request(st, owner, 1 * MS, 3 * MS);
    run(st);
    assert_true(lithos_sched_bears(st->s, be, 100 * US));
    assert_true(lithos_sched_bears(st->s, be, 2 * MS));
    assert_false(lithos_sched_bears(st->s, be, 30 * MS)); /* more than its SLO leaves */
    launch(st, owner, 1 * MS);
    run(st);
    assert_false(lithos_sched_bears(st->s, be, 1 * US));
    assert_true(lithos_sched_bears(st->s, owner, 1 * US)); /* nobody is asked about himself */
    done(st, owner, 1 * MS, 1 * MS);
    wait_until(st, st->now + 3 * MS);
    assert_true(lithos_sched_bears(st->s, be, 100 * US));
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

static void queue_resident(struct stand *st, uint32_t slot, uint32_t tpcs)
{
    tell(st, (struct lithos_sched_event){.kind = LITHOS_SCHED_QUEUE,
                                         .slot = slot,
                                         .queue = {.launches = 1,
                                                   .head_ns = 100 * US,
                                                   .resident_tpcs = tpcs,
                                                   .why = LITHOS_PICK_NOT_RESIDENT}});
}

/* Blocks that wait for each other need as many TPCs as hold them all: a share has these, or is of no use to its tenant and
 * goes to the others. */
static void test_who_needs_more_than_its_share_gets_it_in_turn(void **state)
{
    struct stand *st = *state;
    const uint32_t a = add_best_effort(st, 1, "-", 1), b = add_best_effort(st, 2, "-", 1);
    uint64_t had[2] = {0, 0};

    for (unsigned i = 0; i < 400; i++) {
        queue_resident(st, a, 40);
        queue(st, b, 1, 100 * US, LITHOS_PICK_RUN);
        wait_until(st, st->now + 1 * MS);
        const unsigned has[2] = {count(lent(st, a)), count(lent(st, b))};
        assert_true(has[0] == 0 || has[0] >= 40);
        assert_int_equal(has[0] + has[1], 66);
        had[0] += has[0];
        had[1] += has[1];
    }
    assert_in_range(1000 * had[0] / had[1], 800, 1250);
}

static void test_what_is_of_no_use_goes_to_others(void **state)
{
    struct stand *st = *state;
    const uint32_t none = add_best_effort(st, 1, "-", 4), other = add_best_effort(st, 2, "-", 1);
    const uint32_t some = add_best_effort(st, 3, "0-2", 1);

    launch(st, add_owner(st, 4, "9-16,18-25,27-34,36-43,45-52,54-71", 0, 0), 3600 * 1000 * MS);
    /* 3,75,78,81,83 are left */
    for (unsigned i = 0; i < 200; i++) {
        queue_resident(st, none, 6);
        queue_resident(st, some, 9);
        queue(st, other, 1, 100 * US, LITHOS_PICK_RUN);
        wait_until(st, st->now + 1 * MS);
        assert_set(lent(st, other), "3,75,78,81,83");
    }
    /* with three of its own it lacks four: it makes up for what it has not had, then they take turns */
    unsigned had = 0;
    for (unsigned i = 0; i < 800; i++) {
        queue_resident(st, some, 7);
        queue(st, other, 1, 100 * US, LITHOS_PICK_RUN);
        wait_until(st, st->now + 1 * MS);
        const unsigned has = count(lent(st, some));
        assert_true(has == 0 || has >= 4);
        assert_int_equal(has + count(lent(st, other)), 5);
        had += has > 0;
    }
    assert_in_range(had, 440, 560);
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

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, stand_begin, stand_end)
    const struct CMUnitTest tests[] = {
        T(test_tenants_are_checked),
        cmocka_unit_test(test_configuration_is_checked),
        T(test_strange_events_change_nothing),
        T(test_idle_tpcs_are_lent_and_taken_back),
        T(test_limits_follow_from_the_slo),
        T(test_an_slo_is_about_requests),
        T(test_a_long_queue_is_not_a_long_request),
        T(test_queues_that_are_usual_are_not_long_requests),
        T(test_pauses_are_seen_however_late_they_are_told),
        T(test_a_long_request_is_not_a_long_queue),
        T(test_even_intervals_are_foreseen),
        T(test_a_return_is_seen_through),
        T(test_who_comes_by_a_clock_comes_no_later),
        T(test_a_clock_is_seen_behind_uneven_gaps),
        T(test_a_foreseen_return_is_not_waited_past),
        T(test_what_is_seen_late_counts_as_of_its_time),
        T(test_odd_gaps_do_not_hide_even_ones),
        T(test_atoms_are_where_they_are),
        T(test_pauses_are_not_idleness),
        T(test_an_owner_who_never_came_lends_after_a_while),
        T(test_best_effort_owners_lend_too),
        T(test_high_priority_tenants_borrow_last),
        T(test_shares_go_by_weight),
        T(test_a_place_is_nobody_elses),
        T(test_owners_bear_what_can_be_stopped),
        T(test_more_tenants_than_tpcs_take_turns),
        T(test_shares_have_room_for_clusters),
        T(test_who_needs_more_than_its_share_gets_it_in_turn),
        T(test_what_is_of_no_use_goes_to_others),
        T(test_busy_tpcs_are_left_to_whoever_is_on_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
