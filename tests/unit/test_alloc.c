/* core/alloc: chosen cases on the H200, and random sequences with every promise checked after each step. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/alloc.h"
#include "unit/cards.h"

static struct lithos_alloc fresh(void)
{
    const struct lithos_topology t = card_h200();
    struct lithos_alloc a;
    assert_int_equal(lithos_alloc_init(&a, &t), 0);
    return a;
}

static void expect_set(const struct lithos_tpcset *set, const char *want)
{
    char text[LITHOS_TPCSET_TEXT_MAX];
    assert_string_equal(lithos_tpcset_format(set, text), want);
}

/* GPCs that are free in part only. */
static unsigned broken(const struct lithos_alloc *a)
{
    unsigned n = 0;
    for (uint32_t g = 0; g < a->topology.gpc_count; g++) {
        const struct lithos_tpcset gpc = lithos_topology_gpc(&a->topology, g);
        const struct lithos_tpcset left = lithos_tpcset_and(gpc, a->free);
        n += !lithos_tpcset_empty(&left) && !lithos_tpcset_equal(&left, &gpc);
    }
    return n;
}

static void quotas_round_to_what_fits(void **state)
{
    (void)state;
    static const struct {
        unsigned card, quota, want;
    } cases[] = {
        {66, 5000, 33}, {66, 3300, 22}, {66, 3333, 22}, {66, 4000, 26},    {66, 1600, 11}, {66, 10000, 66},
        {66, 1, 1},     {66, 75, 1},    {65, 5000, 32}, {54, 1250, 6},     {32, 3300, 10}, {66, 10, 1},
        {66, 0, 0},     {66, 10001, 0}, {0, 5000, 0},   {1, 10000, 1},     {2, 3300, 1},   {66, 9999, 66},
        {66, 9900, 65}, {66, 225, 1},   {66, 230, 1},   {128, 10000, 128},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(lithos_alloc_quota_tpcs(cases[i].card, cases[i].quota), cases[i].want);
}

static void equal_quotas_and_complements_always_fit(void **state)
{
    (void)state;
    for (unsigned card = 1; card <= LITHOS_TPC_BITS; card++) {
        unsigned last = 0;
        for (unsigned quota = 1; quota <= LITHOS_QUOTA_WHOLE; quota++) {
            const unsigned n = lithos_alloc_quota_tpcs(card, quota), times = LITHOS_QUOTA_WHOLE / quota;
            assert_in_range(n, 1, card);
            assert_true(times > card || n * times <= card);
            assert_true(n >= last); /* more per cent are never fewer TPCs */
            last = n;
            /* Two that make the whole fit, unless one is worth less than half a TPC and is given one. */
            const unsigned other = LITHOS_QUOTA_WHOLE - quota;
            if (card * quota > LITHOS_QUOTA_WHOLE / 2 && card * other > LITHOS_QUOTA_WHOLE / 2)
                assert_true(n + lithos_alloc_quota_tpcs(card, other) <= card);
        }
        assert_int_equal(last, card);
    }
}

static void placing_fits_clusters(void **state)
{
    (void)state;
    static const struct {
        unsigned count;
        const char *want;
    } cases[] = {
        {4, "0-3"},                     /* a whole small GPC */
        {7, "9-15"},                    /* a part of one GPC rather than 4 + 3 of two */
        {8, "9-16"},                    /* an exact fit */
        {9, "54-62"},                   /* an exact fit */
        {12, "0-3,9-16"},               /* two exact fits */
        {16, "9-16,18-25"},             /* two whole ones rather than three */
        {33, "9-16,18-25,27-34,54-62"}, /* half a card without breaking a GPC */
        {66, H200_VALID},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lithos_alloc a = fresh();
        struct lithos_tpcset set;
        assert_int_equal(lithos_alloc_place(&a, 7, cases[i].count, &set), 0);
        expect_set(&set, cases[i].want);
    }
}

static void halves_and_thirds_all_take_large_clusters(void **state)
{
    (void)state;
    for (unsigned parts = 2; parts <= 3; parts++) {
        struct lithos_alloc a = fresh();
        struct lithos_tpcset set;
        for (unsigned i = 1; i <= parts; i++) {
            assert_int_equal(lithos_alloc_place(&a, i, 66 / parts, &set), 0);
            assert_int_equal(lithos_topology_largest_cluster(&a.topology, set), 16);
        }
        assert_int_equal(lithos_alloc_free_count(&a), 0);
    }
}

static void a_fresh_card_breaks_one_gpc_at_most(void **state)
{
    (void)state;
    for (unsigned count = 1; count <= 66; count++) {
        struct lithos_alloc a = fresh();
        struct lithos_tpcset set;
        assert_int_equal(lithos_alloc_place(&a, 1, count, &set), 0);
        assert_int_equal(lithos_tpcset_count(&set), count);
        assert_true(broken(&a) <= 1);
        assert_int_equal(lithos_topology_largest_cluster(&a.topology, set), count < 8 ? 2 * count : 16);
    }
}

static void singles_come_last(void **state)
{
    (void)state;
    struct lithos_alloc a = fresh();
    struct lithos_tpcset set;
    assert_int_equal(lithos_alloc_place(&a, 1, 62, &set), 0);
    expect_set(&a.free, "75,78,81,83");
    assert_int_equal(lithos_alloc_place(&a, 2, 3, &set), 0);
    expect_set(&set, "75,78,81");
    /* and are given up first */
    assert_int_equal(lithos_alloc_resize(&a, 1, 63, &set), 0);
    assert_true(lithos_tpcset_has(&set, 83));
    assert_int_equal(lithos_alloc_resize(&a, 1, 62, &set), 0);
    assert_false(lithos_tpcset_has(&set, 83));
}

static void errors_change_nothing(void **state)
{
    (void)state;
    struct lithos_alloc a = fresh();
    struct lithos_tpcset set = {{0, 0}}, before;
    assert_int_equal(lithos_alloc_place(&a, 1, 40, &before), 0);
    const struct lithos_alloc saved = a;
    struct lithos_tpcset taken = before, strange = {{1ull << 4, 0}}, mixed = a.free, none = {{0, 0}};
    lithos_tpcset_add(&mixed, 127);

    assert_int_equal(lithos_alloc_place(&a, 2, 27, &set), -ENOSPC);
    assert_int_equal(lithos_alloc_place(&a, 2, UINT32_MAX, &set), -ENOSPC);
    assert_int_equal(lithos_alloc_place(&a, 1, 1, &set), -EEXIST);
    assert_int_equal(lithos_alloc_place(&a, 0, 1, &set), -EINVAL);
    assert_int_equal(lithos_alloc_place(&a, 2, 0, &set), -EINVAL);
    assert_int_equal(lithos_alloc_adopt(&a, 2, &taken), -EBUSY);
    assert_int_equal(lithos_alloc_adopt(&a, 2, &strange), -EINVAL);
    assert_int_equal(lithos_alloc_adopt(&a, 2, &mixed), -EINVAL);
    assert_int_equal(lithos_alloc_adopt(&a, 2, &none), -EINVAL);
    assert_int_equal(lithos_alloc_adopt(&a, 0, &a.free), -EINVAL);
    assert_int_equal(lithos_alloc_adopt(&a, 1, &a.free), -EEXIST);
    assert_int_equal(lithos_alloc_resize(&a, 1, 67, &set), -ENOSPC);
    assert_int_equal(lithos_alloc_resize(&a, 1, UINT32_MAX, &set), -ENOSPC);
    assert_int_equal(lithos_alloc_resize(&a, 1, 0, &set), -EINVAL);
    assert_int_equal(lithos_alloc_resize(&a, 2, 1, &set), -ENOENT);
    assert_int_equal(lithos_alloc_release(&a, 2), -ENOENT);
    assert_memory_equal(&a, &saved, sizeof a);
    assert_true(lithos_tpcset_empty(&set));
}

static void holders_are_found_in_the_order_they_came(void **state)
{
    (void)state;
    struct lithos_alloc a = fresh();
    struct lithos_tpcset set;
    for (uint64_t tenant = 1; tenant <= LITHOS_ALLOC_MAX; tenant++)
        assert_int_equal(lithos_alloc_place(&a, tenant, 1, &set), 0);
    assert_int_equal(lithos_alloc_place(&a, 100, 1, &set), -ENFILE);
    assert_int_equal(lithos_alloc_adopt(&a, 100, &a.free), -ENFILE);
    assert_int_equal(lithos_alloc_release(&a, 2), 0);
    assert_int_equal(lithos_alloc_holder_at(&a, 0)->tenant, 1);
    assert_int_equal(lithos_alloc_holder_at(&a, 1)->tenant, 3);
    assert_int_equal(lithos_alloc_holder_at(&a, LITHOS_ALLOC_MAX - 2)->tenant, LITHOS_ALLOC_MAX);
    assert_null(lithos_alloc_holder_at(&a, LITHOS_ALLOC_MAX - 1));
    assert_null(lithos_alloc_find(&a, 2));
    assert_int_equal(lithos_alloc_find(&a, 64)->tenant, 64);
    assert_int_equal(lithos_alloc_owner(&a, 128), 0);
    assert_int_equal(lithos_alloc_owner(&a, 4), 0);
}

/* Everything that must hold after any step. */
static void check(const struct lithos_alloc *a)
{
    struct lithos_tpcset seen = a->free;
    const struct lithos_alloc_holder *h;
    for (size_t n = 0; (h = lithos_alloc_holder_at(a, n)); n++) {
        const struct lithos_tpcset twice = lithos_tpcset_and(seen, h->set);
        assert_true(lithos_tpcset_empty(&twice));
        assert_false(lithos_tpcset_empty(&h->set));
        assert_ptr_equal(lithos_alloc_find(a, h->tenant), h);
        seen = lithos_tpcset_or(seen, h->set);
    }
    assert_true(lithos_tpcset_equal(&seen, &a->topology.valid));
}

static void check_resized(const struct lithos_alloc *a, struct lithos_tpcset old, struct lithos_tpcset now)
{
    const struct lithos_tpcset kept = lithos_tpcset_and(old, now);
    const unsigned had = lithos_tpcset_count(&old), has = lithos_tpcset_count(&now);
    (void)a;
    assert_int_equal(lithos_tpcset_count(&kept), had < has ? had : has);
}

static void one_step(struct lithos_alloc *a, uint64_t *seed)
{
    const uint64_t tenant = 1 + next_random(seed) % 20;
    const bool known = lithos_alloc_find(a, tenant) != NULL;
    const struct lithos_tpcset old =
        known ? lithos_alloc_find(a, tenant)->set : (struct lithos_tpcset){{0, 0}};
    const unsigned room = lithos_alloc_free_count(a), had = lithos_tpcset_count(&old);
    const unsigned count = 1 + (unsigned)(next_random(seed) % (next_random(seed) % 3 ? 12 : 60));
    struct lithos_tpcset set = {{0, 0}}, want;

    switch (next_random(seed) % 4) {
    case 0:
    case 1:
        if (known && next_random(seed) % 2) {
            assert_int_equal(lithos_alloc_resize(a, tenant, count, &set), count > had + room ? -ENOSPC : 0);
            if (count <= had + room)
                check_resized(a, old, set);
        } else {
            assert_int_equal(lithos_alloc_place(a, tenant, count, &set), known          ? -EEXIST
                                                                         : count > room ? -ENOSPC
                                                                                        : 0);
        }
        assert_true(lithos_tpcset_empty(&set) || lithos_tpcset_count(&set) == count);
        break;
    case 2:
        assert_int_equal(lithos_alloc_release(a, tenant), known ? 0 : -ENOENT);
        assert_null(lithos_alloc_find(a, tenant));
        assert_int_equal(lithos_alloc_free_count(a), room + had);
        break;
    case 3:
        want = (struct lithos_tpcset){{random_sparse(seed), next_random(seed) & 0xff}};
        want = lithos_tpcset_and(want, next_random(seed) % 4 ? a->free : a->topology.valid);
        set = lithos_tpcset_minus(want, a->free);
        if (lithos_tpcset_empty(&want))
            assert_int_equal(lithos_alloc_adopt(a, tenant, &want), -EINVAL);
        else
            assert_int_equal(lithos_alloc_adopt(a, tenant, &want), known                       ? -EEXIST
                                                                   : lithos_tpcset_empty(&set) ? 0
                                                                                               : -EBUSY);
        break;
    }
    check(a);
}

static void random_steps_keep_every_promise(void **state)
{
    (void)state;
    uint64_t seed = 4711;
    for (unsigned round = 0; round < 100; round++) {
        const struct lithos_topology t = round % 2 ? card_random(&seed) : card_h200();
        struct lithos_alloc a;
        assert_int_equal(lithos_alloc_init(&a, &t), 0);
        for (unsigned step = 0; step < 1000; step++)
            one_step(&a, &seed);
        while (a.count > 0)
            assert_int_equal(lithos_alloc_release(&a, a.holders[0].tenant), 0);
        assert_true(lithos_tpcset_equal(&a.free, &t.valid));
    }
}

/* The choice against all others: no other set of that size, among those that take from every GPC any number,
 * scores better by the list in alloc.h. Counted out on small cards. */
struct figures {
    int v[5];
};

static struct figures figures_of(const struct lithos_topology *t, struct lithos_tpcset before_free,
                                 struct lithos_tpcset held, struct lithos_tpcset chosen)
{
    struct figures f = {{0}};
    const struct lithos_tpcset all = lithos_tpcset_or(held, chosen);
    const int large = (int)(16 + t->sms_per_tpc - 1) / (int)t->sms_per_tpc;
    for (uint32_t g = 0; g < t->gpc_count; g++) {
        const struct lithos_tpcset gpc = lithos_topology_gpc(t, g);
        const struct lithos_tpcset mine = lithos_tpcset_and(all, gpc), took = lithos_tpcset_and(chosen, gpc);
        const struct lithos_tpcset left = lithos_tpcset_minus(lithos_tpcset_and(before_free, gpc), chosen);
        const int n = (int)lithos_tpcset_count(&mine), l = (int)lithos_tpcset_count(&left);
        if (n > f.v[0])
            f.v[0] = n;
        f.v[1] -= l > 0 && l < (int)lithos_tpcset_count(&gpc);
        f.v[2] += l / large;
        f.v[3] -= !lithos_tpcset_empty(&took);
        f.v[4] -= lithos_tpcset_empty(&took) ? 0 : l;
    }
    if (f.v[0] > large)
        f.v[0] = large;
    return f;
}

static int compare(const struct figures *a, const struct figures *b)
{
    for (unsigned i = 0; i < 5; i++)
        if (a->v[i] != b->v[i])
            return a->v[i] < b->v[i] ? -1 : 1;
    return 0;
}

static void no_other_choice_is_better(void **state)
{
    (void)state;
    uint64_t seed = 99;
    for (unsigned round = 0; round < 400; round++) {
        /* 12 TPCs at most, in GPCs of 3 or 4, and singles: all subsets can be tried. */
        struct lithos_topology t = {
            .sms_per_tpc = 8, .gpc_stride = 3 + (uint32_t)(round % 2), .gpc_count = 3};
        t.valid.w[0] = random_dense(&seed) & 0xfff;
        if (t.valid.w[0] == 0)
            continue;
        struct lithos_alloc a;
        assert_int_equal(lithos_alloc_init(&a, &t), 0);
        struct lithos_tpcset other = {{t.valid.w[0] & random_sparse(&seed), 0}}, set;
        if (!lithos_tpcset_empty(&other))
            assert_int_equal(lithos_alloc_adopt(&a, 1, &other), 0);
        if (lithos_alloc_free_count(&a) == 0)
            continue;
        const unsigned count = 1 + (unsigned)(next_random(&seed) % lithos_alloc_free_count(&a));
        const struct lithos_tpcset open = a.free, none = {{0, 0}};
        assert_int_equal(lithos_alloc_place(&a, 2, count, &set), 0);
        const struct figures got = figures_of(&t, open, none, set);
        const uint64_t in_gpcs = (1ull << (t.gpc_count * t.gpc_stride)) - 1;
        for (uint64_t w = 0; w < 4096; w++) {
            const struct lithos_tpcset alt = {{w, 0}};
            if ((w & ~open.w[0]) || lithos_tpcset_count(&alt) != count)
                continue;
            if (__builtin_popcountll(w & in_gpcs) < __builtin_popcountll(set.w[0] & in_gpcs))
                continue; /* singles come last */
            assert_true(__builtin_popcountll(w & in_gpcs) == __builtin_popcountll(set.w[0] & in_gpcs));
            unsigned cut = 0; /* parts taken from but not whole */
            for (uint32_t g = 0; g < t.gpc_count; g++) {
                const struct lithos_tpcset part = lithos_tpcset_and(lithos_topology_gpc(&t, g), open);
                const struct lithos_tpcset took = lithos_tpcset_and(part, alt);
                cut += !lithos_tpcset_empty(&took) && !lithos_tpcset_equal(&took, &part);
            }
            const struct figures f = figures_of(&t, open, none, alt);
            if (cut <= 1)
                assert_true(compare(&got, &f) >= 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quotas_round_to_what_fits),
        cmocka_unit_test(equal_quotas_and_complements_always_fit),
        cmocka_unit_test(placing_fits_clusters),
        cmocka_unit_test(halves_and_thirds_all_take_large_clusters),
        cmocka_unit_test(a_fresh_card_breaks_one_gpc_at_most),
        cmocka_unit_test(singles_come_last),
        cmocka_unit_test(errors_change_nothing),
        cmocka_unit_test(holders_are_found_in_the_order_they_came),
        cmocka_unit_test(random_steps_keep_every_promise),
        cmocka_unit_test(no_other_choice_is_better),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
