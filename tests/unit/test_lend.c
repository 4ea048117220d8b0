/* The daemon's side of lending without a daemon: what a grant is to a launch queue, what policies the mechanism has, and what people write. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "daemon/lend.h"

static const struct lithos_tpcset own = {{0xff, 0}}, a = {{0xf00, 0}}, b = {{0xf000, 0}}, none = {{0, 0}};

static struct lithos_tpcgrant grant_of(struct lithos_tpcset own_tpcs)
{
    return (struct lithos_tpcgrant){
        .own = own_tpcs, .window_ns = 100000, .lent_window_ns = 25000, .atom_ns = 250000, .epoch = 7};
}

static void add_part(struct lithos_tpcgrant *g, struct lithos_tpcset tpcs, uint64_t longest_ns,
                     uint64_t until_ns)
{
    g->parts[g->part_count++] = (struct lithos_tpcgrant_part){tpcs, longest_ns, until_ns};
}

static void own_tpcs_alone(void **state)
{
    (void)state;
    struct lithos_tpcgrant g = grant_of(own);
    struct lithos_rule r = lithosd_rule(&g, true);
    assert_int_equal(r.flags, LITHOS_RULE_ON);
    assert_int_equal(r.window_ns, 100000);
    assert_int_equal(r.own_window_ns, 100000);
    assert_int_equal(r.floor, 2);
    /* beside somebody who may come to lend, the next of long kernels is not given to the card as soon as one runs */
    r = lithosd_rule(&g, false);
    assert_int_equal(r.window_ns, 100000);
    assert_int_equal(r.floor, 1);
    assert_true(lithos_tpcset_empty(&r.lent) && lithos_tpcset_empty(&r.spare));
    g.flags = LITHOS_TPCGRANT_HOLD;
    assert_int_equal(lithosd_rule(&g, false).flags, LITHOS_RULE_ON | LITHOS_RULE_HOLD);
    g.flags = 0;
    g.window_ns = LITHOS_TPCGRANT_FOREVER; /* policies without a window */
    r = lithosd_rule(&g, false);
    assert_int_equal(r.window_ns, LITHOS_RULE_WINDOW_MAX_NS);
    assert_int_equal(r.own_window_ns, LITHOS_RULE_WINDOW_MAX_NS);
    assert_int_equal(r.floor, LITHOS_RULE_FLOOR_MAX);
    assert_int_equal(lithos_rule_validate(&r), 0);
}

static void lent_within_the_narrowest_limits(void **state)
{
    (void)state;
    struct lithos_tpcgrant g = grant_of(own);
    add_part(&g, a, 400000, 90);
    add_part(&g, b, 300000, 95);
    struct lithos_rule r = lithosd_rule(&g, false);
    struct lithos_tpcset both = lithos_tpcset_or(a, b);
    assert_int_equal(r.flags, LITHOS_RULE_ON | LITHOS_RULE_STRICT);
    assert_true(lithos_tpcset_equal(&r.lent, &both));
    assert_int_equal(r.longest_ns, 300000);
    assert_int_equal(r.until_ns, 90);
    assert_int_equal(r.window_ns, 25000);
    assert_int_equal(r.own_window_ns, 100000);
    assert_int_equal(r.floor, 1);
    /* only for what is over in time; a limit of 0 is not none */
    g.part_count = 0;
    add_part(&g, a, 0, 1000);
    r = lithosd_rule(&g, false);
    assert_int_equal(r.longest_ns, 1);
    assert_int_equal(r.until_ns, 1000);
    assert_int_equal(lithos_rule_validate(&r), 0);
}

/* A neighbour of one TPC that is idle beside an owner: its limits are not those of all others. */
static void strict_neighbours_are_left_out(void **state)
{
    (void)state;
    struct lithos_tpcset one, both;
    struct lithos_tpcgrant g = grant_of(own);
    assert_int_equal(lithos_tpcset_parse("75", &one), 0);
    add_part(&g, a, 4700000, 90);
    add_part(&g, one, 2000000, 0);
    struct lithos_rule r = lithosd_rule(&g, false);
    assert_true(lithos_tpcset_equal(&r.lent, &a));
    assert_int_equal(r.longest_ns, 4700000);
    assert_int_equal(r.until_ns, 90);
    /* an owner that bears nothing, but is sure not to come for a while */
    g.part_count = 0;
    add_part(&g, one, 2000000, 0);
    add_part(&g, a, 0, 90);
    r = lithosd_rule(&g, false);
    assert_true(lithos_tpcset_equal(&r.lent, &a));
    assert_int_equal(r.longest_ns, 1);
    assert_int_equal(r.until_ns, 90);
    /* more generous ones come along, with the limits of the others */
    g.part_count = 0;
    add_part(&g, one, 9000000, 95);
    add_part(&g, a, 4700000, 90);
    r = lithosd_rule(&g, false);
    both = lithos_tpcset_or(a, one);
    assert_true(lithos_tpcset_equal(&r.lent, &both));
    assert_int_equal(r.longest_ns, 4700000);
    /* it is alone: better than nothing */
    g.part_count = 0;
    add_part(&g, one, 2000000, 0);
    r = lithosd_rule(&g, false);
    assert_true(lithos_tpcset_equal(&r.lent, &one));
    assert_int_equal(r.longest_ns, 2000000);
}

static void what_is_expected_to_be_lent(void **state)
{
    (void)state;
    struct lithos_tpcgrant g = grant_of(own);
    assert_int_equal(lithosd_rule(&g, true).wider_tpcs, 0);
    g.wider = lithos_tpcset_or(own, lithos_tpcset_or(a, b));
    g.wider_ns = 77;
    g.wider_longest_ns = 78;
    add_part(&g, b, 200000, 0);
    struct lithos_rule r = lithosd_rule(&g, true);
    /* those that it has for short ones too: a long one waits for them */
    assert_int_equal(r.wider_tpcs, lithos_tpcset_count(&a) + lithos_tpcset_count(&b));
    assert_true(r.wider_ns == 77 && r.wider_longest_ns == 78);
    g.parts[0].longest_ns = LITHOS_TPCGRANT_FOREVER;
    r = lithosd_rule(&g, true);
    assert_int_equal(r.wider_tpcs, lithos_tpcset_count(&a)); /* those are for all */
}

static void what_nobody_owns_is_for_all_kernels(void **state)
{
    (void)state;
    struct lithos_tpcgrant g = grant_of(own);
    add_part(&g, a, LITHOS_TPCGRANT_FOREVER, LITHOS_TPCGRANT_FOREVER);
    struct lithos_rule r = lithosd_rule(&g, false);
    assert_int_equal(r.flags, LITHOS_RULE_ON);
    assert_true(lithos_tpcset_equal(&r.spare, &a) && lithos_tpcset_empty(&r.lent));
    assert_int_equal(r.window_ns, 100000);
    add_part(&g, b, 200000, 0);
    r = lithosd_rule(&g, false);
    assert_true(lithos_tpcset_equal(&r.spare, &a) && lithos_tpcset_equal(&r.lent, &b));
    assert_int_equal(r.longest_ns, 200000);
}

static void without_own_tpcs_it_waits(void **state)
{
    (void)state;
    struct lithos_tpcgrant g = grant_of(none);
    assert_int_equal(lithosd_rule(&g, false).flags,
                     LITHOS_RULE_ON | LITHOS_RULE_INSTEAD | LITHOS_RULE_STRICT | LITHOS_RULE_HOLD);
    add_part(&g, a, 200000, 0);
    assert_int_equal(lithosd_rule(&g, false).flags,
                     LITHOS_RULE_ON | LITHOS_RULE_INSTEAD | LITHOS_RULE_STRICT);
}

static void policies(void **state)
{
    (void)state;
    static const char *const with_mps[] = {"lithos", "partition", "mig", "mps", "priority"};
    static const char *const never[] = {"tgs", "orion", "reef"};
    struct lithosd_options o = {.mps = true, .observe = true};
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(with_mps); i++)
        assert_null(lithosd_policy_why_not(lithos_policy_find(with_mps[i]), &o));
    assert_non_null(lithosd_policy_why_not(lithos_policy_find("timeslice"), &o));
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(never); i++)
        assert_non_null(lithosd_policy_why_not(lithos_policy_find(never[i]), &o));
    assert_null(lithosd_policy_why_not(lithos_policy_find("preempt"), &o)); /* it leaves MPS out itself */
    o.mps = false;
    assert_null(lithosd_policy_why_not(lithos_policy_find("timeslice"), &o));
    assert_null(lithosd_policy_why_not(lithos_policy_find("lithos"), &o)); /* masks hold in turns as well */
    assert_non_null(lithosd_policy_why_not(lithos_policy_find("mps"), &o));
    o.observe = false;
    assert_non_null(lithosd_policy_why_not(lithos_policy_find("lithos"), &o));
    assert_null(lithosd_policy_why_not(lithos_policy_find("partition"), &o));
}

static void shares_as_people_write_them(void **state)
{
    (void)state;
    struct lithos_share s = {0};
    static const struct {
        uint32_t option;
        const char *text;
    } bad[] = {
        {LITHOS_SHARE_WEIGHT, "1001"},  {LITHOS_SHARE_WEIGHT, ""},      {LITHOS_SHARE_WEIGHT, "-1"},
        {LITHOS_SHARE_WEIGHT, "2x"},    {LITHOS_SHARE_WEIGHT, "off"},   {LITHOS_SHARE_FLOOR, "129"},
        {LITHOS_SHARE_SLIP, "0.9"},     {LITHOS_SHARE_SLIP, "101"},     {LITHOS_SHARE_SLIP, "1.1.1"},
        {LITHOS_SHARE_SLIP, "1."},      {LITHOS_SHARE_SLO, "15"},       {LITHOS_SHARE_SLO, "0ms"},
        {LITHOS_SHARE_SLO, "3601s"},    {LITHOS_SHARE_SLO, "1.5.5ms"},  {LITHOS_SHARE_SLO, "9999999999s"},
        {LITHOS_SHARE_SLO, "1 ms"},     {LITHOS_SHARE_SLO, "0.0001us"}, {0, "1"},
        {LITHOS_SHARE_SLO, "1000000h"},
    };
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(bad); i++)
        assert_int_equal(lithos_share_parse(bad[i].option, bad[i].text, &s), -EINVAL);
    assert_int_equal(s.given, 0);
    assert_int_equal(lithos_share_parse(LITHOS_SHARE_WEIGHT, "0", &s), 0);
    assert_int_equal(lithos_share_parse(LITHOS_SHARE_FLOOR, "128", &s), 0);
    assert_int_equal(lithos_share_parse(LITHOS_SHARE_SLIP, "1.25", &s), 0);
    assert_int_equal(lithos_share_parse(LITHOS_SHARE_SLO, "2.5ms", &s), 0);
    assert_true(s.given == 15 && s.weight == 0 && s.floor_tpcs == 128 && s.slip_ppm == 1250000 &&
                s.slo_ns == 2500000);
    assert_int_equal(lithos_share_validate(&s), 0);
    assert_int_equal(lithos_share_parse(LITHOS_SHARE_SLO, "1h", &s), -EINVAL);
    assert_int_equal(lithos_share_parse(LITHOS_SHARE_SLO, "0.5us", &s), 0);
    assert_int_equal(s.slo_ns, 500);
    assert_int_equal(lithos_share_parse(LITHOS_SHARE_SLO, "3600s", &s), 0);
    assert_int_equal(lithos_share_parse(LITHOS_SHARE_SLO, "off", &s), 0);
    assert_int_equal(lithos_share_parse(LITHOS_SHARE_SLIP, "off", &s), 0);
    assert_true(s.given == 15 && s.slo_ns == 0 && s.slip_ppm == 0);
    assert_int_equal(lithos_share_parse(LITHOS_SHARE_GRAPHS, "lend", &s), -EINVAL);
    assert_int_equal(lithos_share_parse(LITHOS_SHARE_GRAPHS, "borrow", &s), 0);
    assert_true(s.given == 31 && s.graphs == LITHOS_GRAPHS_BORROW);
    assert_int_equal(lithos_share_parse(LITHOS_SHARE_GRAPHS, "own", &s), 0);
    assert_true(s.given == 31 && s.graphs == LITHOS_GRAPHS_OWN);
}

static void shares_from_others_are_checked(void **state)
{
    (void)state;
    static const struct lithos_share bad[] = {
        {.given = 32},
        {.graphs = LITHOS_GRAPHS_BORROW}, /* not said */
        {.given = LITHOS_SHARE_GRAPHS, .graphs = LITHOS_GRAPHS_MAX},
        {.weight = 1}, /* not said */
        {.given = LITHOS_SHARE_WEIGHT, .weight = 1001},
        {.given = LITHOS_SHARE_FLOOR, .floor_tpcs = 129},
        {.given = LITHOS_SHARE_SLIP, .slip_ppm = 999999},
        {.given = LITHOS_SHARE_SLO, .slo_ns = LITHOS_SHARE_SLO_MAX_NS + 1},
        {.given = LITHOS_SHARE_SLO, .floor_tpcs = 1},
    };
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(bad); i++)
        assert_int_equal(lithos_share_validate(&bad[i]), -EINVAL);
    struct lithos_share s = {.given = LITHOS_SHARE_SLO, .slo_ns = 5},
                        more = {.given = LITHOS_SHARE_FLOOR, .floor_tpcs = 3};
    lithos_share_merge(&s, &more);
    assert_true(s.given == (LITHOS_SHARE_SLO | LITHOS_SHARE_FLOOR) && s.slo_ns == 5 && s.floor_tpcs == 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(own_tpcs_alone),
        cmocka_unit_test(lent_within_the_narrowest_limits),
        cmocka_unit_test(strict_neighbours_are_left_out),
        cmocka_unit_test(what_is_expected_to_be_lent),
        cmocka_unit_test(what_nobody_owns_is_for_all_kernels),
        cmocka_unit_test(without_own_tpcs_it_waits),
        cmocka_unit_test(policies),
        cmocka_unit_test(shares_as_people_write_them),
        cmocka_unit_test(shares_from_others_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
