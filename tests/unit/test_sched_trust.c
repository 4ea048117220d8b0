/* The scheduler: nobody starves, what happens when things are not as predicted, and what it says of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>

#include "base/util.h"
#include "unit/sched_stand.h"

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

/* A launch of an owner beside which nobody is. */
static void one_alone(struct stand *st, uint32_t owner)
{
    launch(st, owner, 100 * US);
    wait_until(st, st->now + 100 * US);
    done(st, owner, 100 * US, 100 * US);
}

/* An owner that is never idle, and a borrower whose kernels fill what it is lent: how often there was nothing lent. */
static unsigned beside(struct stand *st, uint32_t owner, uint32_t be, unsigned times, uint64_t ran_ns)
{
    unsigned alone = 0;
    for (unsigned i = 0; i < times; i++) {
        const struct lithos_tpcset on = lent(st, be);
        const uint64_t took_ns = nothing(on) ? 100 * US : ran_ns;
        alone += nothing(on);
        if (!nothing(on))
            launch_on(st, be, ran_ns, on, 1);
        launch(st, owner, 100 * US);
        wait_until(st, st->now + took_ns);
        done(st, owner, took_ns, 100 * US);
        if (!nothing(on))
            done(st, be, ran_ns, ran_ns);
    }
    return alone;
}

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
    assert_int_equal(count(lent(st, be)), 34);
    beside(st, owner, be, 3000, 133 * US);
    assert_in_range(count(lent(st, be)), 3, 17);
    assert_in_range(explain(st, owner).slower_ppm, 1300000, 1350000);
    assert_int_equal(explain(st, be).why, LITHOS_WHY_SQUEEZED);
    beside(st, owner, be, 30000, 100 * US);
    assert_int_equal(count(lent(st, be)), 34);
}

/* Its rival cannot use the few TPCs that are left: nobody would ever be beside the owner again. */
static void test_what_is_left_is_of_no_use_for_a_while_only(void **state)
{
    struct stand *st = *state;
    const uint32_t owner = add_owner(st, 1, "9-16,18-25,27-34,36-43", 0, 1100000);
    const uint32_t be = add_best_effort(st, 2, "-", 1);

    queue(st, be, 1, 100 * US, LITHOS_PICK_RUN);
    launch(st, owner, 100 * US);
    beside(st, owner, be, 3000, 133 * US);
    const unsigned few = count(lent(st, be));
    assert_in_range(few, 3, 17);
    const uint64_t from_ns = st->now;
    while (count(lent(st, be)) < 34 && st->now < from_ns + 2000 * MS)
        one_alone(st, owner);
    assert_in_range(st->now - from_ns, 300 * MS, 1000 * MS);
    /* and gets less as soon as it is there, and the owner feels it */
    beside(st, owner, be, 3000, 133 * US);
    assert_in_range(count(lent(st, be)), 3, 17);
    /* who wants nothing is not waited for */
    queue(st, be, 0, 0, LITHOS_PICK_RUN);
    const uint32_t squeeze_ppm = explain(st, owner).squeeze_ppm;
    for (unsigned i = 0; i < 3000; i++)
        one_alone(st, owner);
    assert_int_equal(explain(st, owner).squeeze_ppm, squeeze_ppm);
}

/* Where somebody borrows all the time, an owner's speed alone is found out by lending nothing for a moment, seldom. */
static void test_an_owner_is_watched_alone_now_and_then(void **state)
{
    struct stand *st = *state;
    const uint32_t owner = add_owner(st, 1, "9-16,18-25,27-34,36-43", 0, 1100000);
    const uint32_t be = add_best_effort(st, 2, "-", 1);

    queue(st, be, 1, 100 * US, LITHOS_PICK_RUN);
    launch(st, owner, 100 * US);
    const unsigned alone = beside(st, owner, be, 3000, 133 * US);
    assert_in_range(alone, 32, 3000 / 25);
    assert_in_range(explain(st, owner).slower_ppm, 1300000, 1350000);
    /* Its rival has nothing to run: no reason to look, and whenever it comes back there is something for it. */
    for (unsigned i = 0; i < 200; i++) {
        queue(st, be, 0, 0, LITHOS_PICK_RUN);
        for (unsigned n = 0; n < 50; n++)
            one_alone(st, owner);
        queue(st, be, 1, 100 * US, LITHOS_PICK_RUN);
        assert_false(nothing(lent(st, be)));
    }
}

/* Whose kernel then takes a second keeps what is nobody's from others for no more than a fifth of that, and they need no floor. */
static void test_an_owner_is_not_watched_alone_for_long(void **state)
{
    struct stand *st = *state;
    const uint32_t owner = add_owner(st, 1, "9-16,18-25,27-34,36-43", 0, 1100000);
    const uint32_t be = add(
        st, &(struct lithos_sched_tenant){
                .id = 2, .own = set("-"), .class = LITHOS_SCHED_BEST_EFFORT, .weight = 1, .floor_tpcs = 1});

    queue(st, be, 1, 100 * US, LITHOS_PICK_RUN);
    launch(st, owner, 100 * US);
    while (beside(st, owner, be, 1, 100 * US) == 0) {
    }
    launch(st, owner, 1000 * MS);
    const uint64_t begin_ns = st->now;
    while (count(lent(st, be)) < 34) {
        wait_until(st, st->now + 10 * MS);
        assert_true(st->now <= begin_ns + 200 * MS);
    }
    assert_true(nothing(lithos_tpcset_and(lent(st, be), set("9-16,18-25,27-34,36-43"))));
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

/* --- what a busy owner leaves --- */

static void leave(struct stand *st, uint32_t owner, const char *tpcs, uint64_t bears_ns)
{
    tell(st, (struct lithos_sched_event){
                 .kind = LITHOS_SCHED_STRIP, .slot = owner, .strip = {set(tpcs), bears_ns}});
}

static void test_a_strip_is_lent_while_its_owner_is_busy(void **state)
{
    struct stand *st = *state;
    const uint32_t owner = add_owner(st, 1, "0-3,9-16,18-25,27-34,36-43,45-52,54-71,75,78,81,83", 0, 1100000);
    const uint32_t be = add_best_effort(st, 2, "-", 1);
    const struct lithos_tpcset kept = set("0-3,9-16,18-25,27-34,36-43,45-52,75,78,81,83");

    launch_on(st, owner, 1 * MS, kept, 1);
    queue(st, be, 3, 300 * US, LITHOS_PICK_RUN);
    assert_true(nothing(lent(st, be)));
    leave(st, owner, "54-71", 500 * US);
    assert_set(lent(st, be), "54-71");
    /* what it bears, less what it takes to take it back; nothing is said of when it comes back, for it does not */
    assert_int_equal(st->grant[be].part_count, 1);
    assert_int_equal(st->grant[be].parts[0].longest_ns, 465 * US);
    assert_int_equal(st->grant[be].parts[0].until_ns, 0);
    assert_set(explain(st, owner).strip, "54-71");
    assert_set(explain(st, owner).lent_away, "54-71");

    /* whatever others have under way there, its launches beside it do not wait for that */
    launch_on(st, be, 50 * MS, set("54-71"), 1);
    for (unsigned i = 0; i < 8; i++) {
        wait_until(st, st->now + 1 * MS);
        done(st, owner, 1 * MS, 1 * MS);
        launch_on(st, owner, 1 * MS, kept, 1);
    }
    assert_set(lent(st, be), "54-71");
    assert_int_equal(explain(st, owner).hits, 0);
    /* one that goes there ends it */
    launch_on(st, owner, 1 * MS, set("0-3,71"), 1);
    assert_true(nothing(lent(st, be)));
    assert_true(nothing(explain(st, owner).strip));
    leave(st, owner, "54-62", 500 * US);
    assert_set(lent(st, be), "54-62");
    leave(st, owner, "-", 0);
    assert_true(nothing(lent(st, be)));
}

static void test_a_strip_is_no_more_than_its_owner_has_and_bears(void **state)
{
    struct stand *st = *state;
    const uint32_t owner = add_owner(st, 1, "0-3,9-16,18-25", 0, 1100000);
    const uint32_t owning = add_best_effort(st, 2, "27-34", 1), be = add_best_effort(st, 3, "-", 1);
    const char *const others = "36-43,45-52,54-71,75,78,81,83";
    struct lithos_sched_tenant desc = {.id = 1, .own = set("0-3,9-16"), .class = LITHOS_SCHED_HIGH};

    launch(st, owner, 1 * MS);
    launch(st, owning, 1 * MS);
    queue(st, be, 3, 300 * US, LITHOS_PICK_RUN);
    leave(st, owner, "18-25,27-34", 60 * US); /* 35 us of that are gone before it has them back */
    assert_set(lithos_tpcset_or(lent(st, be), lent(st, owning)), others);
    leave(st, owner, "18-25,27-34", 70 * US);
    assert_set(lithos_tpcset_or(lent(st, be), lent(st, owning)), "18-25,36-43,45-52,54-71,75,78,81,83");
    /* best-effort owners leave nothing: theirs are lent by who is idle */
    leave(st, owning, "27-34", 1 * MS);
    assert_true(nothing(explain(st, owning).strip));
    /* what it was of is another set now */
    assert_int_equal(lithos_sched_change(st->s, st->now, owner, &desc), 0);
    run(st);
    assert_true(nothing(explain(st, owner).strip));
}

/* Its owner's own latency says how wide a strip may be; that its kernels are slower is part of that. */
static void test_a_strip_is_not_squeezed(void **state)
{
    struct stand *st = *state;
    const uint32_t owner = add_owner(st, 1, "0-3,9-16,18-25,27-34,36-43,45-52", 0, 1100000);
    const uint32_t be = add_best_effort(st, 2, "-", 1);
    const struct lithos_tpcset kept = set("0-3,9-16,18-25,27-34");
    unsigned fewest = 66;

    launch_on(st, owner, 100 * US, kept, 1);
    for (unsigned i = 0; i < 200; i++) { /* half as fast with somebody beside it */
        const bool beside = i % 4 != 0;
        launch_on(st, owner, 100 * US, kept, 1);
        leave(st, owner, beside ? "36-43,45-52" : "-", 1 * MS);
        queue(st, be, beside, 300 * US, LITHOS_PICK_RUN);
        if (beside)
            launch_on(st, be, 300 * US, set("36-43"), 1);
        wait_until(st, st->now + 1 * MS);
        done(st, owner, beside ? 200 * US : 100 * US, 100 * US);
        if (beside) {
            const struct lithos_tpcset strip = lithos_tpcset_and(lent(st, be), set("36-43,45-52"));
            assert_int_equal(count(strip), 16);
            fewest = LITHOS_MIN(fewest, count(lent(st, be)));
            done(st, be, 300 * US, 300 * US);
        }
    }
    assert_true(explain(st, owner).squeeze_ppm < 500000);
    assert_true(fewest < 16 + 20 / 2); /* of those of nobody it gets less */
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, stand_begin, stand_end)
    const struct CMUnitTest tests[] = {
        T(test_what_outlives_the_slack_goes_once_in_a_while),
        T(test_a_floor_is_met_by_owners_who_are_busy),
        T(test_neighbours_that_slow_an_owner_get_less),
        T(test_what_is_left_is_of_no_use_for_a_while_only),
        T(test_an_owner_is_watched_alone_now_and_then),
        T(test_an_owner_is_not_watched_alone_for_long),
        T(test_trust_is_lost_and_comes_back),
        T(test_a_lost_lease_borrows_nothing),
        T(test_what_is_lost_is_not_waited_for),
        T(test_advice_on_multiprocessors),
        T(test_advice_to_take_turns),
        T(test_explain_accounts_for_the_last_second),
        T(test_a_strip_is_lent_while_its_owner_is_busy),
        T(test_a_strip_is_no_more_than_its_owner_has_and_bears),
        T(test_a_strip_is_not_squeezed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
