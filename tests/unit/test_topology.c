/* hw/topology: the measured H200, and random cards against the definition counted out bit by bit. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "unit/cards.h"

static struct lithos_tpcset set_of(const char *text)
{
    struct lithos_tpcset s = {{0, 0}};
    assert_int_equal(lithos_tpcset_parse(text, &s), 0);
    return s;
}

static void h200_has_the_measured_shape(void **state)
{
    (void)state;
    const struct lithos_topology t = card_h200();
    static const unsigned sizes[8] = {4, 8, 8, 8, 8, 8, 9, 9};
    const struct lithos_tpcset outside = lithos_topology_gpc(&t, 8);

    assert_int_equal(lithos_topology_validate(&t), 0);
    assert_int_equal(lithos_tpcset_count(&t.valid), 66);
    for (uint32_t g = 0; g < 8; g++) {
        const struct lithos_tpcset gpc = lithos_topology_gpc(&t, g);
        assert_int_equal(lithos_tpcset_count(&gpc), sizes[g]);
    }
    assert_true(lithos_tpcset_empty(&outside));
    assert_int_equal(lithos_topology_gpc_of(&t, 0), 0);
    assert_int_equal(lithos_topology_gpc_of(&t, 8), 0);
    assert_int_equal(lithos_topology_gpc_of(&t, 71), 7);
    assert_int_equal(lithos_topology_gpc_of(&t, 72), LITHOS_GPC_NONE);
    assert_int_equal(lithos_topology_gpc_of(&t, 83), LITHOS_GPC_NONE);
    assert_int_equal(lithos_topology_gpc_of(&t, 128), LITHOS_GPC_NONE);
    assert_int_equal(lithos_topology_largest_cluster(&t, t.valid), 16);
}

/* docs/hardware.md, "Clusters": each of these was launched on the card. */
static void clusters_run_or_hang_as_measured(void **state)
{
    (void)state;
    static const struct {
        const char *set;
        unsigned cluster;
        bool runs;
    } measured[] = {
        {"0-1", 4, true},  {"0", 4, false},          {"0,9", 4, false},  {"75,78", 4, false},
        {"9-12", 8, true}, {"9-10,18-19", 8, false}, {"9-16", 16, true}, {"54-62", 16, true},
    };
    const struct lithos_topology t = card_h200();
    for (size_t i = 0; i < sizeof measured / sizeof *measured; i++)
        assert_int_equal(lithos_topology_has_room(&t, set_of(measured[i].set), measured[i].cluster),
                         measured[i].runs);
}

static void a_mask_without_a_tpc_has_room_for_nothing(void **state)
{
    (void)state;
    const struct lithos_topology t = card_h200();
    static const char *const empty[] = {"-", "4-8", "17,26,35,44,53", "72-74,76-77,79-80,82,84-127"};
    for (size_t i = 0; i < sizeof empty / sizeof *empty; i++) {
        assert_false(lithos_topology_has_room(&t, set_of(empty[i]), 1));
        assert_false(lithos_topology_has_room(&t, set_of(empty[i]), 0));
        assert_int_equal(lithos_topology_largest_cluster(&t, set_of(empty[i])), 0);
    }
    assert_true(lithos_topology_has_room(&t, set_of("83"), 2));
    assert_false(lithos_topology_has_room(&t, set_of("75,78,81,83"), 3));
    assert_false(lithos_topology_has_room(&t, t.valid, 17));
    assert_false(lithos_topology_has_room(&t, t.valid, UINT32_MAX));
}

static void make_room_adds_as_little_as_it_can(void **state)
{
    (void)state;
    const struct lithos_topology t = card_h200();
    static const struct {
        const char *own;
        unsigned cluster;
        const char *want; /* NULL: -ENOSPC */
    } cases[] = {
        {"9-12", 8, "9-12"},
        {"9-10,18-20", 8, "9-10,18-21"}, /* GPC 2 needs one more, GPC 1 two */
        {"0-2,9-11", 8, "0-3,9-11"},     /* both need one: the lower GPC */
        {"0-3", 16, "0-3,9-16"},         /* GPC 0 is too small */
        {"75", 2, "75"},
        {"75", 4, "0-1,75"},
        {"62", 16, "54-60,62"},
        {"-", 1, "0"},
        {"4-8", 1, "0"}, /* bits that name no TPC do not count */
        {"0-127", 16, H200_VALID},
        {"0-127", 17, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lithos_tpcset got = {{1, 2}};
        const int r = lithos_topology_make_room(&t, set_of(cases[i].own), cases[i].cluster, &got);
        char text[LITHOS_TPCSET_TEXT_MAX];
        if (cases[i].want) {
            assert_int_equal(r, 0);
            assert_string_equal(lithos_tpcset_format(&got, text), cases[i].want);
        } else {
            assert_int_equal(r, -ENOSPC);
            assert_true(got.w[0] == 1 && got.w[1] == 2);
        }
    }
}

static void a_card_of_singles_alone_still_gets_a_tpc(void **state)
{
    (void)state;
    struct lithos_topology t = {.sms_per_tpc = 2};
    struct lithos_tpcset got;
    t.valid = set_of("75,78");
    assert_int_equal(lithos_topology_validate(&t), 0);
    assert_int_equal(lithos_topology_make_room(&t, set_of("-"), 2, &got), 0);
    assert_true(lithos_tpcset_count(&got) == 1 && lithos_tpcset_has(&got, 75));
    assert_int_equal(lithos_topology_make_room(&t, set_of("75"), 3, &got), -ENOSPC);
}

static void validate_refuses_what_cannot_be(void **state)
{
    (void)state;
    const struct lithos_topology good = card_h200();
    struct lithos_topology t;
#define BAD(field, value)                                        \
    do {                                                         \
        t = good;                                                \
        t.field = (value);                                       \
        assert_int_equal(lithos_topology_validate(&t), -EINVAL); \
    } while (0)
    BAD(sms_per_tpc, 0);
    BAD(sms_per_tpc, 9);
    BAD(gpc_stride, 0);
    BAD(gpc_stride, 17);
    BAD(gpc_stride, UINT32_MAX);
    BAD(gpc_stride, 0x80000000u); /* times 8 wraps to 0 */
    BAD(gpc_count, 15);
    BAD(gpc_count, 17);
    BAD(gpc_count, UINT32_MAX);
    BAD(reserved, 1);
    BAD(valid, ((struct lithos_tpcset){{0, 0}}));
#undef BAD
}

/* The definition, counted out: TPCs of the set in the GPC of `bit`; a single TPC is its own group. */
static unsigned oracle_group(const struct lithos_topology *t, const struct lithos_tpcset *set, unsigned bit)
{
    unsigned n = 0;
    for (unsigned b = 0; b < LITHOS_TPC_BITS; b++) {
        const bool in_gpc =
            t->gpc_stride && bit < t->gpc_count * t->gpc_stride && b < t->gpc_count * t->gpc_stride;
        const bool same = in_gpc ? b / t->gpc_stride == bit / t->gpc_stride : b == bit;
        n += same && lithos_tpcset_has(&t->valid, b) && lithos_tpcset_has(set, b);
    }
    return n;
}

static unsigned oracle_largest(const struct lithos_topology *t, const struct lithos_tpcset *set)
{
    unsigned most = 0;
    for (unsigned b = 0; b < LITHOS_TPC_BITS; b++)
        if (lithos_tpcset_has(set, b) && lithos_tpcset_has(&t->valid, b) && oracle_group(t, set, b) > most)
            most = oracle_group(t, set, b);
    return most;
}

/* Fewest TPCs to add for a cluster of `need` TPCs, UINT32_MAX when no group is large enough. */
static unsigned oracle_missing(const struct lithos_topology *t, const struct lithos_tpcset *own,
                               unsigned need)
{
    unsigned fewest = UINT32_MAX;
    for (unsigned b = 0; b < LITHOS_TPC_BITS; b++) {
        if (!lithos_tpcset_has(&t->valid, b) || oracle_group(t, &t->valid, b) < need)
            continue;
        const unsigned has = oracle_group(t, own, b), more = has >= need ? 0 : need - has;
        fewest = more < fewest ? more : fewest;
    }
    return fewest;
}

static void random_cards_agree_with_the_definition(void **state)
{
    (void)state;
    uint64_t seed = 20251123;
    for (unsigned round = 0; round < 3000; round++) {
        const struct lithos_topology t = round % 3 ? card_random(&seed) : card_h200();
        struct lithos_tpcset own = {{next_random(&seed), next_random(&seed)}}, got;
        if (round % 2)
            own = (struct lithos_tpcset){{own.w[0] & random_sparse(&seed), own.w[1] & next_random(&seed)}};
        assert_int_equal(lithos_topology_validate(&t), 0);
        const unsigned most = oracle_largest(&t, &own);
        const unsigned blocks = most * t.sms_per_tpc;
        assert_int_equal(lithos_topology_largest_cluster(&t, own),
                         blocks < LITHOS_CLUSTER_MAX ? blocks : LITHOS_CLUSTER_MAX);
        for (unsigned cluster = 0; cluster <= LITHOS_CLUSTER_MAX + 1; cluster++) {
            unsigned need = 1; /* smallest number of TPCs with as many SMs */
            while (need * t.sms_per_tpc < cluster)
                need++;
            assert_int_equal(lithos_cluster_tpcs(&t, cluster), need);
            assert_int_equal(lithos_topology_has_room(&t, own, cluster),
                             cluster <= LITHOS_CLUSTER_MAX && most >= need);
            const unsigned missing =
                cluster <= LITHOS_CLUSTER_MAX ? oracle_missing(&t, &own, need) : UINT32_MAX;
            const int r = lithos_topology_make_room(&t, own, cluster, &got);
            assert_int_equal(r, missing == UINT32_MAX ? -ENOSPC : 0);
            if (r < 0)
                continue;
            const struct lithos_tpcset mine = lithos_tpcset_and(own, t.valid);
            const struct lithos_tpcset lost = lithos_tpcset_minus(mine, got);
            const struct lithos_tpcset strange = lithos_tpcset_minus(got, t.valid);
            assert_true(lithos_tpcset_empty(&lost) && lithos_tpcset_empty(&strange));
            assert_int_equal(lithos_tpcset_count(&got), lithos_tpcset_count(&mine) + missing);
            assert_true(lithos_topology_has_room(&t, got, cluster));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(h200_has_the_measured_shape),
        cmocka_unit_test(clusters_run_or_hang_as_measured),
        cmocka_unit_test(a_mask_without_a_tpc_has_room_for_nothing),
        cmocka_unit_test(make_room_adds_as_little_as_it_can),
        cmocka_unit_test(a_card_of_singles_alone_still_gets_a_tpc),
        cmocka_unit_test(validate_refuses_what_cannot_be),
        cmocka_unit_test(random_cards_agree_with_the_definition),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
