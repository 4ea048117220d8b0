/* The clock map against two clocks that are known: one drifts, and ends are seen late, but for some that are looked for without a
 * pause. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/util.h"
#include "core/clockmap.h"

#define HOST0 7000000000ull
#define GPU0 1795707713000000000ull
#define EVERY_NS 50000u /* a kernel */
#define RUN_NS 20000u
#define SPIN_EVERY_NS 8000000u
#define SPIN_NS 400000u

static const double drift = 24e-6; /* as on a card */

static uint64_t random_state;

static uint64_t next_random(uint64_t below)
{
    random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
    return (random_state >> 33) % below;
}

static uint64_t gpu_of(uint64_t host_ns)
{
    return GPU0 + (uint64_t)((double)(host_ns - HOST0) / (1 + drift));
}

/* When the end of a kernel is seen: at once while somebody looks without a pause, else at the next look, a ms apart. */
static uint64_t seen_at(uint64_t end_ns)
{
    uint64_t since = (end_ns - HOST0) % SPIN_EVERY_NS;
    return since < SPIN_NS ? end_ns + 100 + next_random(200) : end_ns + 1000 + next_random(1000000);
}

/* Runs kernels from one time of the host to another; the worst error of the map in the second half. */
static double run(struct lithos_clockmap *m, uint64_t from_ns, uint64_t to_ns)
{
    double worst_ns = 0;
    for (uint64_t end_ns = from_ns; end_ns < to_ns; end_ns += EVERY_NS) {
        uint64_t host_ns = 0;
        assert_false(lithos_clockmap_observe(m, end_ns - RUN_NS - 4000 - next_random(3000), gpu_of(end_ns),
                                             seen_at(end_ns)));
        assert_true(lithos_clockmap_host(m, gpu_of(end_ns), &host_ns));
        double error_ns = (double)(int64_t)(host_ns - end_ns);
        if (end_ns > from_ns + (to_ns - from_ns) / 2)
            worst_ns = LITHOS_MAX(worst_ns, error_ns < 0 ? -error_ns : error_ns);
    }
    return worst_ns;
}

static void nothing_known(void **state)
{
    (void)state;
    struct lithos_clockmap m;
    random_state = 1;
    lithos_clockmap_init(&m, LITHOS_CLOCKMAP_DRIFT_MAX_PPB);
    /* as soon as it has been looked at without a pause a few times, by what may have drifted between two of those */
    assert_true(run(&m, HOST0 + 1, HOST0 + 100000000) < 3000);
    assert_false(m.slope_known);
    assert_true(run(&m, HOST0 + 100000001, HOST0 + 900000000) < 3000);
    assert_true(run(&m, HOST0 + 900000001, HOST0 + 3000000000) < 1000);
    assert_true(m.slope_known);
    assert_true(llabs(lithos_clockmap_drift_ppb(&m) - 24000) < 1000);
    assert_true(run(&m, HOST0 + 3000000001, HOST0 + 12000000000) < 1000);
}

static void drift_known(void **state)
{
    (void)state;
    struct lithos_clockmap m;
    random_state = 2;
    lithos_clockmap_init(&m, LITHOS_CLOCKMAP_DRIFT_MAX_PPB);
    lithos_clockmap_expect(&m, 24000);
    assert_true(run(&m, HOST0 + 1, HOST0 + 40000000) < 1000);
    assert_true(run(&m, HOST0 + 40000001, HOST0 + 3000000000) < 1000);
    /* the GPU's clock is set: what is known of its drift stays */
    uint64_t later = HOST0 + 3000000000;
    assert_true(lithos_clockmap_observe(&m, later, gpu_of(later) + 40000000000, later + 30000));
    assert_true(m.slope_known && llabs(lithos_clockmap_drift_ppb(&m) - 24000) < 10);
}

/* Seven kernels of a virtual card ten times slower, launched at once, as they were seen once (submit, GPU and seen times in us). A
 * line half as steep has them submitted before they ended as well; it must not be taken for that. */
static void launched_at_once(void **state)
{
    (void)state;
    static const uint32_t us[][3] = {{0, 0, 1250},         {70, 1976, 20430},   {98, 3928, 39879},
                                     {127, 5898, 63143},   {134, 7869, 82353},  {140, 9821, 101556},
                                     {147, 11786, 118284}, {180, 13750, 137900}};
    struct lithos_clockmap m;
    lithos_clockmap_init(&m, 0);
    for (unsigned i = 0; i < LITHOS_ARRAY_SIZE(us); i++) {
        uint64_t from, to;
        lithos_clockmap_observe(&m, HOST0 + us[i][0] * 1000ull, GPU0 + us[i][1] * 1000ull,
                                HOST0 + us[i][2] * 1000ull);
        if (!lithos_clockmap_host(&m, GPU0, &from))
            continue;
        assert_true(i >= 3 && lithos_clockmap_host(&m, GPU0 + 1000000, &to));
        assert_in_range(to - from, 9000000, 11000000);
    }
    assert_true(lithos_clockmap_bound_ns(&m) < 2000000);
}

/* Kernels of 3 ms say little by themselves: they were submitted long before they ended. Short ones of somebody else say more. */
static void long_beside_short(void **state)
{
    (void)state;
    static const uint32_t drifts[] = {LITHOS_CLOCKMAP_DRIFT_MAX_PPB, 0}; /* of a card, and of a virtual one */
    for (unsigned i = 0; i < LITHOS_ARRAY_SIZE(drifts); i++) {
        struct lithos_clockmap small, large, none;
        lithos_clockmap_init(&small, drifts[i]);
        lithos_clockmap_init(&large, drifts[i]);
        lithos_clockmap_init(&none, drifts[i]);
        for (uint64_t end_ns = HOST0 + 1; end_ns < HOST0 + 2000000000; end_ns += EVERY_NS)
            lithos_clockmap_observe(&small, end_ns - RUN_NS - 4000, gpu_of(end_ns), seen_at(end_ns));
        for (uint64_t end_ns = HOST0 + 3000000; end_ns < HOST0 + 2000000000; end_ns += 3000000)
            lithos_clockmap_observe(&large, end_ns - 3010000, gpu_of(end_ns), seen_at(end_ns));
        uint64_t now_ns = HOST0 + 2000000000, own_ns = lithos_clockmap_bound_ns(&large);
        assert_in_range(own_ns, 2900000, 4000000);
        uint64_t beside_ns = lithos_clockmap_bound_beside_ns(&large, &small, now_ns);
        assert_true(beside_ns >= lithos_clockmap_bound_ns(&small) && beside_ns < 60000);
        assert_true(beside_ns >= RUN_NS);
        /* not the other way round, and nothing is learnt from one that knows nothing */
        assert_int_equal(lithos_clockmap_bound_beside_ns(&small, &large, now_ns),
                         lithos_clockmap_bound_ns(&small));
        assert_int_equal(lithos_clockmap_bound_beside_ns(&large, &none, now_ns), own_ns);
        assert_int_equal(lithos_clockmap_bound_beside_ns(&none, &small, now_ns), UINT64_MAX);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_known),
        cmocka_unit_test(drift_known),
        cmocka_unit_test(launched_at_once),
        cmocka_unit_test(long_beside_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
