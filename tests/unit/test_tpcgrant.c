/* Where a launch goes under a grant, and when it waits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "hw/tpcgrant.h"
#include "unit/cards.h"

#define US 1000ull
#define NOW (1000 * US)

static struct lithos_topology h200;
static const struct lithos_topology *const card = &h200;

static struct lithos_tpcset set(const char *text)
{
    struct lithos_tpcset s;
    assert_int_equal(lithos_tpcset_parse(text, &s), 0);
    return s;
}

/* 8 TPCs of its own, 16 lent for 200 us, 8 more until 500 us from now. */
static struct lithos_tpcgrant grant(void)
{
    struct lithos_tpcgrant g = {.own = set("9-16"),
                                .part_count = 2,
                                .window_ns = 100 * US,
                                .lent_window_ns = 25 * US,
                                .atom_ns = 250 * US,
                                .thin_ppm = 250000,
                                .lent_priority = 1};
    g.parts[0] = (struct lithos_tpcgrant_part){set("18-25,27-34"), 200 * US, 0};
    g.parts[1] = (struct lithos_tpcgrant_part){set("36-43"), 0, NOW + 500 * US};
    return g;
}

static struct lithos_tpcwork waves(uint64_t blocks, uint64_t lifetime_us, uint32_t residency, uint32_t flags)
{
    return (struct lithos_tpcwork){.blocks = blocks,
                                   .lifetime_ns = lifetime_us * US,
                                   .residency = residency,
                                   .saturation = residency,
                                   .flags = flags};
}

static struct lithos_tpcchoice pick(const struct lithos_tpcgrant *g, struct lithos_tpcwork w,
                                    uint64_t ahead_us)
{
    const struct lithos_tpcmoment at = {.now_ns = NOW, .ahead_ns = ahead_us * US};
    struct lithos_tpcchoice c;
    lithos_tpcgrant_pick(g, card, &w, &at, &c);
    return c;
}

static void assert_set(struct lithos_tpcset s, const char *text)
{
    char got[LITHOS_TPCSET_TEXT_MAX];
    assert_string_equal(lithos_tpcset_format(&s, got), text);
}

static void test_limits_decide_where(void **state)
{
    (void)state;
    const struct lithos_tpcgrant g = grant();
    /* one wave on 32 TPCs: 64 SMs with one block each */
    struct lithos_tpcchoice c = pick(&g, waves(64, 150, 1, 0), 0);
    assert_int_equal(c.why, LITHOS_PICK_RUN);
    assert_true(c.lent);
    assert_int_equal(c.priority, 1);
    assert_int_equal(c.blocks, 64);
    assert_int_equal(c.duration_ns, 150 * US);
    assert_set(c.tpcs, "9-16,18-25,27-34,36-43");
    /* too long for the first part by its length, good for the second only by its end: neither without the other */
    c = pick(&g, waves(64, 300, 1, 0), 0);
    assert_int_equal(c.why, LITHOS_PICK_RUN);
    assert_false(c.lent);
    assert_int_equal(c.priority, 0);
    assert_set(c.tpcs, "9-16");
    assert_int_equal(c.duration_ns, 4 * 300 * US);
    /* what is ahead counts towards the end */
    assert_true(pick(&g, waves(64, 199, 1, 0), 20).lent);
    struct lithos_tpcgrant late = g;
    late.parts[1].until_ns = NOW + 210 * US;
    c = pick(&late, waves(48, 195, 1, 0), 20);
    assert_set(c.tpcs, "9-16,18-25,27-34");
}

static void test_without_own_tpcs_it_waits(void **state)
{
    (void)state;
    struct lithos_tpcgrant g = grant();
    g.own = (struct lithos_tpcset){{0, 0}};
    assert_int_equal(pick(&g, waves(48, 150, 1, 0), 0).why, LITHOS_PICK_RUN);
    assert_int_equal(pick(&g, waves(48, 300, 1, 0), 0).why, LITHOS_PICK_OUTLIVES);
    assert_int_equal(pick(&g, waves(48, 300, 1, 0), 0).retry_ns, LITHOS_TPCGRANT_FOREVER);
    g.part_count = 0;
    assert_int_equal(pick(&g, waves(48, 150, 1, 0), 0).why, LITHOS_PICK_NO_TPCS);
}

static void test_atoms_are_whole_waves(void **state)
{
    (void)state;
    const struct lithos_tpcgrant g = grant();
    /* 32 TPCs hold 512 blocks of 8 an SM; 200 us are two waves of 70 us, as the last blocks outlast theirs by half */
    struct lithos_tpcchoice c = pick(&g, waves(100000, 70, 8, LITHOS_TPCWORK_CUTTABLE), 0);
    assert_int_equal(c.why, LITHOS_PICK_RUN);
    assert_int_equal(c.blocks, 1024);
    assert_int_equal(c.duration_ns, 140 * US);
    assert_int_equal(c.residency, 0);
    /* the same uncut does not fit anywhere but on its own TPCs */
    c = pick(&g, waves(100000, 70, 8, 0), 0);
    assert_set(c.tpcs, "9-16");
    assert_int_equal(c.blocks, 100000);
    /* blocks that live longer than the owner can bear are made to live shorter: fewer an SM */
    c = pick(&g, waves(100000, 400, 8, LITHOS_TPCWORK_CUTTABLE), 0);
    assert_int_equal(c.residency, 0); /* saturated from 8 blocks on: fewer are no faster */
    assert_false(c.lent);
    struct lithos_tpcwork w = waves(100000, 400, 8, LITHOS_TPCWORK_CUTTABLE);
    w.saturation = 2;
    c = pick(&g, w, 0);
    assert_true(c.lent);
    assert_int_equal(c.residency, 2);
    assert_int_equal(c.blocks, 64 * 2);
    assert_int_equal(c.duration_ns, 100 * US);
    /* but no fewer than the grant allows */
    struct lithos_tpcgrant thick = g;
    thick.thin_ppm = 750000;
    assert_false(pick(&thick, w, 0).lent);
}

static void test_atoms_are_whole_clusters(void **state)
{
    (void)state;
    const struct lithos_tpcgrant g = grant();
    struct lithos_tpcwork w = waves(99999 / 6 * 6, 70, 8, LITHOS_TPCWORK_CUTTABLE);
    w.cluster_blocks = 6;
    const struct lithos_tpcchoice c = pick(&g, w, 0);
    assert_int_equal(c.blocks, 1020);
    assert_int_equal(c.blocks % 6, 0);
}

static void test_no_launch_without_room(void **state)
{
    (void)state;
    struct lithos_tpcgrant g = {.own = set("0,75"), .window_ns = 100 * US};
    struct lithos_tpcwork w = waves(4, 10, 1, 0);
    w.cluster_blocks = 4;
    assert_int_equal(pick(&g, w, 0).why, LITHOS_PICK_NO_ROOM);
    g.lent_window_ns = 100 * US;
    g.part_count = 1;
    g.parts[0] = (struct lithos_tpcgrant_part){set("1"), 100 * US, 0};
    const struct lithos_tpcchoice c = pick(&g, w, 0);
    assert_int_equal(c.why, LITHOS_PICK_RUN);
    assert_true(lithos_topology_has_room(card, c.tpcs, 4));
}

static void test_special_kernels_keep_to_their_own(void **state)
{
    (void)state;
    const struct lithos_tpcgrant g = grant();
    struct lithos_tpcchoice c = pick(&g, waves(16, 50, 1, LITHOS_TPCWORK_RESIDENT), 0);
    assert_set(c.tpcs, "9-16");
    /* too large for them: everything that holds them all at once, else nothing */
    c = pick(&g, waves(60, 50, 1, LITHOS_TPCWORK_RESIDENT), 0);
    assert_int_equal(c.why, LITHOS_PICK_RUN);
    assert_set(c.tpcs, "9-16,18-25,27-34,36-43");
    c = pick(&g, waves(100, 50, 1, LITHOS_TPCWORK_RESIDENT), 0);
    assert_int_equal(c.why, LITHOS_PICK_NOT_RESIDENT);
}

static void test_small_launches_take_few_tpcs(void **state)
{
    (void)state;
    const struct lithos_tpcgrant g = grant();
    /* 20 blocks need 10 TPCs, 8 are its own */
    const struct lithos_tpcchoice c = pick(&g, waves(20, 50, 1, 0), 0);
    assert_int_equal(lithos_tpcset_count(&c.tpcs), 10);
    assert_set(lithos_tpcset_and(c.tpcs, g.own), "9-16");
    assert_false(pick(&g, waves(12, 50, 1, 0), 0).lent);
    /* 66 blocks are two waves on 32 TPCs, and on 17 as well */
    assert_int_equal(pick(&g, waves(66, 50, 1, 0), 0).duration_ns, 100 * US);
    const struct lithos_tpcset two_waves = pick(&g, waves(66, 50, 1, 0), 0).tpcs;
    assert_int_equal(lithos_tpcset_count(&two_waves), 17);
}

static void test_windows_and_pace(void **state)
{
    (void)state;
    struct lithos_tpcgrant g = grant();
    struct lithos_tpcchoice c = pick(&g, waves(64, 100, 1, 0), 30);
    assert_int_equal(c.why, LITHOS_PICK_WINDOW);
    assert_int_equal(c.retry_ns, NOW + 5 * US);
    assert_int_equal(pick(&g, waves(64, 100, 1, 0), 25).why, LITHOS_PICK_RUN);
    /* on its own TPCs the wider window counts */
    assert_int_equal(pick(&g, waves(16, 100, 1, 0), 90).why, LITHOS_PICK_RUN);
    assert_int_equal(pick(&g, waves(16, 100, 1, 0), 101).why, LITHOS_PICK_WINDOW);
    g.pace_ns = 70 * US;
    c = pick(&g, waves(16, 100, 1, 0), 0);
    assert_int_equal(c.why, LITHOS_PICK_PACED);
    assert_int_equal(c.retry_ns, NOW + 70 * US);
    g.flags = LITHOS_TPCGRANT_HOLD;
    assert_int_equal(pick(&g, waves(16, 100, 1, 0), 0).why, LITHOS_PICK_HELD);
    g.pace_ns = 0;
    g.flags = LITHOS_TPCGRANT_NO_MEMORY;
    assert_int_equal(pick(&g, waves(16, 100, 1, LITHOS_TPCWORK_MEMORY), 0).why, LITHOS_PICK_PROFILE);
    assert_int_equal(pick(&g, waves(16, 100, 1, 0), 0).why, LITHOS_PICK_RUN);
    g.flags = LITHOS_TPCGRANT_NO_COMPUTE;
    assert_int_equal(pick(&g, waves(16, 100, 1, LITHOS_TPCWORK_MEMORY), 0).why, LITHOS_PICK_RUN);
    assert_int_equal(pick(&g, waves(16, 100, 1, 0), 0).why, LITHOS_PICK_PROFILE);
}

/* Rent or buy: waits for wider TPCs while it would be over sooner, but never longer than twice what running takes. */
static void test_waits_for_wider_tpcs(void **state)
{
    (void)state;
    struct lithos_tpcgrant g = {
        .own = set("9-16"), .window_ns = 1000 * US, .wider = set("18-25,27-34,36-43,45-52")};
    const struct lithos_tpcwork w = waves(80, 100, 1, 0); /* 5 waves on 16 SMs, one on 80 */
    g.wider_ns = NOW + 300 * US;
    g.wider_longest_ns = 99 * US;
    assert_int_equal(pick(&g, w, 0).why, LITHOS_PICK_RUN); /* it would not be borne there */
    g.wider_longest_ns = 100 * US;
    struct lithos_tpcchoice c = pick(&g, w, 0);
    assert_int_equal(c.why, LITHOS_PICK_WIDER);
    assert_int_equal(c.retry_ns, NOW + 1000 * US);
    g.wider_ns = NOW + 401 * US;
    assert_int_equal(pick(&g, w, 0).why, LITHOS_PICK_RUN);
    g.wider_ns = NOW;
    struct lithos_tpcmoment patient = {.now_ns = NOW, .held_ns = 999 * US};
    lithos_tpcgrant_pick(&g, card, &w, &patient, &c);
    assert_int_equal(c.why, LITHOS_PICK_WIDER);
    assert_int_equal(c.retry_ns, NOW + 1 * US);
    patient.held_ns = 1000 * US;
    lithos_tpcgrant_pick(&g, card, &w, &patient, &c);
    assert_int_equal(c.why, LITHOS_PICK_RUN);
}

static void test_durations(void **state)
{
    (void)state;
    struct lithos_tpcwork w = waves(1000, 100, 16, 0);
    w.saturation = 4;
    /* 10 TPCs: 320 at a time; the last 40 are 2 an SM, where 4 make it busy */
    assert_int_equal(lithos_tpcwork_duration_ns(card, &w, 1000, 10, 0), 3 * 100 * US + 25 * US);
    /* 4 an SM: 80 at a time, each four times as fast */
    assert_int_equal(lithos_tpcwork_duration_ns(card, &w, 1000, 10, 4), 12 * 25 * US + 25 * US);
    w.lifetime_ns = UINT64_MAX;
    assert_true(lithos_tpcwork_duration_ns(card, &w, UINT64_MAX, 1, 0) > 1ull << 60);
    w = (struct lithos_tpcwork){0};
    assert_int_equal(lithos_tpcwork_duration_ns(card, &w, 0, 0, 0), 0);
}

/* 12800 blocks, 16 an SM and 10 us each: 7 waves on all 132 SMs, and memory takes 128 us. On 8 TPCs it is no matter. */
static void test_memory_gives_no_more(void **state)
{
    (void)state;
    struct lithos_tpcwork w = waves(12800, 10, 16, LITHOS_TPCWORK_MEMORY | LITHOS_TPCWORK_CUTTABLE);
    assert_int_equal(lithos_tpcwork_duration_ns(card, &w, 12800, 66, 0), 70 * US);
    assert_int_equal(lithos_tpcwork_duration_ns(card, &w, 12800, 8, 0), 500 * US);
    w.least_ns = 128 * US;
    assert_int_equal(lithos_tpcwork_duration_ns(card, &w, 12800, 66, 0), 136720); /* 6 x 21.12, 10 */
    assert_int_equal(lithos_tpcwork_duration_ns(card, &w, 6400, 66, 0), 73360);
    assert_int_equal(lithos_tpcwork_duration_ns(card, &w, 12800, 8, 0), 500 * US);

    /* its atoms are of as many waves as memory lets be over in time */
    struct lithos_tpcgrant g = {.own = card->valid, .window_ns = 100 * US, .atom_ns = 50 * US};
    const struct lithos_tpcchoice c = pick(&g, w, 0);
    assert_int_equal(c.why, LITHOS_PICK_RUN);
    assert_int_equal(c.blocks, 2 * 132 * 16);
    assert_in_range(c.duration_ns, 42 * US, 43 * US);

    /* and it does not wait for TPCs that it would gain little by */
    g = (struct lithos_tpcgrant){.own = set("9-16"), .window_ns = 100 * US, .wider = card->valid};
    w.flags = 0;
    g.wider_ns = NOW + 400 * US;
    g.wider_longest_ns = LITHOS_TPCGRANT_FOREVER;
    assert_int_equal(pick(&g, w, 0).why, LITHOS_PICK_RUN);
    w.least_ns = 0;
    assert_int_equal(pick(&g, w, 0).why, LITHOS_PICK_WIDER);
}

static void test_validation(void **state)
{
    (void)state;
    struct lithos_tpcgrant g = grant();
    assert_int_equal(lithos_tpcgrant_validate(&g, card), 0);
    assert_set(lithos_tpcgrant_lent(&g), "18-25,27-34,36-43");
#define BAD(change)                                                    \
    do {                                                               \
        g = grant();                                                   \
        change;                                                        \
        assert_int_equal(lithos_tpcgrant_validate(&g, card), -EINVAL); \
    } while (0)
    BAD(g.part_count = LITHOS_TPCGRANT_PARTS + 1);
    BAD(g.parts[1].tpcs = set("34,36"));
    BAD(g.parts[1].tpcs = set("16,36"));
    BAD(g.parts[1].tpcs = set("17"));
    BAD(g.parts[1].tpcs = (struct lithos_tpcset){0});
    BAD(g.own = set("4-9"));
    BAD(g.wider = set("127"));
    BAD(g.flags = 32);
    BAD(g.thin_ppm = 1000001);
    BAD(g.reserved = 1);
}

static void test_names(void **state)
{
    (void)state;
    for (unsigned i = 0; i < LITHOS_PICK_MAX; i++) {
        assert_true(strcmp(lithos_tpcpick_name(i), "unknown") != 0);
        for (unsigned j = 0; j < i; j++)
            assert_string_not_equal(lithos_tpcpick_name(i), lithos_tpcpick_name(j));
    }
    assert_string_equal(lithos_tpcpick_name(LITHOS_PICK_MAX), "unknown");
}

int main(void)
{
    h200 = card_h200();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_limits_decide_where),
        cmocka_unit_test(test_without_own_tpcs_it_waits),
        cmocka_unit_test(test_atoms_are_whole_waves),
        cmocka_unit_test(test_atoms_are_whole_clusters),
        cmocka_unit_test(test_no_launch_without_room),
        cmocka_unit_test(test_special_kernels_keep_to_their_own),
        cmocka_unit_test(test_small_launches_take_few_tpcs),
        cmocka_unit_test(test_windows_and_pace),
        cmocka_unit_test(test_waits_for_wider_tpcs),
        cmocka_unit_test(test_durations),
        cmocka_unit_test(test_memory_gives_no_more),
        cmocka_unit_test(test_validation),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
