/* core/rightsize: chosen cases, and random kernels whose true times are known: how often is a launch slower than its
 * slip allows, and how much TPC time is saved of what could be? */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "core/rightsize.h"
#include "unit/cards.h"
#include "unit/rightsize_new.h"

#define ALL 66u

static double normal(uint64_t *state)
{
    double sum = 0;
    for (int i = 0; i < 12; i++)
        sum += random_uniform(state);
    return sum - 6;
}

/* What a kernel truly takes: a line in 1/t, or waves of blocks. */
struct truth {
    struct lithos_rightsize_kernel k;
    double m_ns, b_ns; /* line */
    double wave_ns;    /* else: 0 for a line */
    double noise;
};

static double true_ns(const struct truth *x, uint32_t t)
{
    const uint64_t wave = (uint64_t)t * 2 * x->k.residency;
    if (x->wave_ns > 0)
        return ceil((double)x->k.blocks / (double)wave) * x->wave_ns;
    return x->m_ns / t + x->b_ns;
}

static struct lithos_rightsize_config config(void)
{
    struct lithos_rightsize_config c = {.topology = card_h200()};
    lithos_rightsize_config_defaults(&c);
    c.operators = 64;
    return c;
}

/* One launch; returns its true mean time there. */
static double launch(struct lithos_rightsize *r, const struct truth *x, uint64_t *state, uint32_t *ret_width,
                     double *ret_took_ns)
{
    const struct lithos_topology t = card_h200();
    struct lithos_rightsize_choice c;

    lithos_rightsize_choose(r, &x->k, t.valid, (struct lithos_tpcset){{0, 0}}, &c);
    const uint32_t width = lithos_tpcset_count(&c.tpcs);
    const double mean_ns = true_ns(x, width);
    const double took_ns = mean_ns * (1 + x->noise * normal(state));
    lithos_rightsize_observe(r, &c.ticket, (uint64_t)fmax(took_ns, 1), width);
    *ret_width = width;
    if (ret_took_ns)
        *ret_took_ns = took_ns;
    return mean_ns;
}

static void finds_the_width(void **unused)
{
    /* l = 660/t + 90 us: 100 us on all, 110 us on 33 */
    const struct truth x = {.k = {.key = 1, .blocks = 100000, .residency = 1}, .m_ns = 660e3, .b_ns = 90e3};
    const struct lithos_rightsize_config c = config();
    uint64_t state = 7;
    uint32_t width = 0;
    double m = 0, b = 0;
    void *mem;
    struct lithos_rightsize *r = rightsize_new(&c, &mem);

    (void)unused;
    for (int i = 0; i < 2000; i++)
        launch(r, &x, &state, &width, NULL);
    assert_in_range(width, 33, 36);
    assert_true(lithos_rightsize_line(r, 1, &m, &b));
    assert_true(fabs(m - 660e3) < 1e3 && fabs(b - 90e3) < 1e2);
    assert_false(lithos_rightsize_line(r, 2, &m, &b));
    const struct lithos_rightsize_stats *s = lithos_rightsize_stats(r);
    assert_true(s->chosen[LITHOS_RIGHTSIZE_SIZED] > 1500);
    assert_true(s->tpc_ns < 0.62 * s->whole_tpc_ns);
    assert_true(s->kernel_ns < 1.1 * s->whole_kernel_ns);
    free(mem);
}

static void no_slip_no_change(void **unused)
{
    const struct truth x = {.k = {.key = 1, .blocks = 8, .residency = 1}, .b_ns = 90e3};
    struct lithos_rightsize_config c = config();
    uint64_t state = 7;
    uint32_t width = 0;
    void *mem;

    (void)unused;
    c.slip_ppm = LITHOS_RIGHTSIZE_PPM;
    struct lithos_rightsize *r = rightsize_new(&c, &mem);
    for (int i = 0; i < 100; i++) {
        launch(r, &x, &state, &width, NULL);
        assert_int_equal(width, ALL);
    }
    free(mem);
    c.slip_ppm = 1100000;
    c.probe = false;
    r = rightsize_new(&c, &mem);
    for (int i = 0; i < 100; i++) {
        launch(r, &x, &state, &width, NULL);
        assert_int_equal(width, ALL);
    }
    free(mem);
}

/* Widths that came about by themselves are enough: nothing is tried, and what was seen is used. */
static void learns_without_probing(void **unused)
{
    const struct truth x = {.k = {.key = 9, .blocks = 5000, .residency = 1}, .m_ns = 100e3, .b_ns = 90e3};
    struct lithos_rightsize_config c = config();
    const struct lithos_topology t = card_h200();
    struct lithos_rightsize_choice choice;
    void *mem;

    (void)unused;
    c.probe = false;
    struct lithos_rightsize *r = rightsize_new(&c, &mem);
    for (int i = 0; i < 12; i++) {
        const uint32_t width = i % 2 ? 20 : ALL;
        lithos_rightsize_choose(r, &x.k, t.valid, (struct lithos_tpcset){{0, 0}}, &choice);
        lithos_rightsize_observe(r, &choice.ticket, (uint64_t)true_ns(&x, width), width);
    }
    lithos_rightsize_choose(r, &x.k, t.valid, (struct lithos_tpcset){{0, 0}}, &choice);
    assert_int_equal(choice.why, LITHOS_RIGHTSIZE_SIZED);
    assert_int_equal(lithos_tpcset_count(&choice.tpcs), 20);
    free(mem);
}

/* A kernel that gets slower where it runs narrow is taken back, and one that changes is learned anew. */
static void is_revised(void **unused)
{
    struct truth x = {.k = {.key = 3, .blocks = 100000, .residency = 1}, .m_ns = 66e3, .b_ns = 99e3};
    const struct lithos_rightsize_config c = config();
    uint64_t state = 5;
    uint32_t width = 0;
    void *mem;
    struct lithos_rightsize *r = rightsize_new(&c, &mem);

    (void)unused;
    for (int i = 0; i < 1000; i++)
        launch(r, &x, &state, &width, NULL);
    assert_true(width <= 9);
    x.m_ns = 6600e3;
    x.b_ns = 0;
    for (int i = 0; i < 1000; i++)
        launch(r, &x, &state, &width, NULL);
    assert_int_equal(width, 60);
    assert_true(lithos_rightsize_stats(r)->changes > 0);
    free(mem);
}

/* The prefix of each request never takes more than slip times its time on all TPCs, learning included: without noise,
 * exactly; nothing is tried that was not earned before. */
static void requests_pay_for_tries(void **unused)
{
    const struct lithos_rightsize_config c = config();
    struct truth x[24];
    uint64_t state = 11;
    uint32_t width;
    double least = 0, all = 0;
    void *mem;
    struct lithos_rightsize *r = rightsize_new(&c, &mem);

    (void)unused;
    for (unsigned i = 0; i < LITHOS_ARRAY_SIZE(x); i++) {
        const double share = random_uniform(&state);
        x[i] = (struct truth){
            .k = {.key = i, .blocks = 1 + (uint32_t)(random_uniform(&state) * 3000), .residency = 4}};
        if (i % 3) {
            x[i].k.blocks = 100000;
            x[i].m_ns = share * 50e3 * ALL;
            x[i].b_ns = (1 - share) * 50e3;
        } else {
            x[i].wave_ns = 20e3;
        }
    }
    for (unsigned i = 0; i < LITHOS_ARRAY_SIZE(x); i++) {
        uint32_t best = ALL;
        while (best > 1 && true_ns(&x[i], best - 1) <= 1.1 * true_ns(&x[i], ALL))
            best--;
        least += best * true_ns(&x[i], best);
        all += ALL * true_ns(&x[i], ALL);
    }
    for (int n = 0; n < 600; n++) {
        double took = 0, alone = 0;
        lithos_rightsize_request(r, (uint64_t)n * 1000000);
        for (unsigned i = 0; i < LITHOS_ARRAY_SIZE(x); i++) {
            took += launch(r, &x[i], &state, &width, NULL);
            alone += true_ns(&x[i], ALL);
            assert_true(took <= 1.1 * alone * 1.0001 + 10);
        }
        lithos_rightsize_request_done(r, (uint64_t)n * 1000000, (uint64_t)took, 1);
    }
    const struct lithos_rightsize_stats *s = lithos_rightsize_stats(r);
    print_message("%.2f of the TPC time, %.2f would do\n", s->tpc_ns / s->whole_tpc_ns, least / all);
    assert_true(s->chosen[LITHOS_RIGHTSIZE_PROBE] > 50 && s->references > 50);
    assert_true(1 - s->tpc_ns / s->whole_tpc_ns > 0.6 * (1 - least / all));
    assert_int_equal(s->undone, 0);
    free(mem);
}

/* Random kernels with noise. Stated in docs/rightsizing.md: in the long run at most 2 % of launches run on a width whose
 * true time is over slip, and by the mean of all of them nothing is. */
static void stays_within_slip(void **unused)
{
    const struct lithos_rightsize_config c = config();
    uint64_t state = 20261126, launches = 0, over = 0;
    double took = 0, alone = 0, used = 0, least = 0;

    (void)unused;
    for (int n = 0; n < 400; n++) {
        const double share = random_uniform(&state), time_ns = 10e3 + 400e3 * random_uniform(&state);
        struct truth x = {.k = {.key = (uint64_t)n, .blocks = 200000, .residency = 1},
                          .m_ns = share * time_ns * ALL,
                          .b_ns = (1 - share) * time_ns,
                          .noise = 0.05 * random_uniform(&state)};
        if (n % 4 == 0) {
            x.k.blocks = 1 + (uint32_t)(random_uniform(&state) * 2000);
            x.k.residency = 1 + (uint32_t)(random_uniform(&state) * 4);
            x.wave_ns = time_ns;
        }
        void *mem;
        struct lithos_rightsize *r = rightsize_new(&c, &mem);
        uint32_t width, best = ALL;
        while (best > 1 && true_ns(&x, best - 1) <= 1.1 * true_ns(&x, ALL))
            best--;
        for (int i = 0; i < 800; i++) {
            const double ns = launch(r, &x, &state, &width, NULL);
            if (i < 200)
                continue;
            launches++;
            over += ns > 1.1 * true_ns(&x, ALL) * 1.001;
            took += ns / true_ns(&x, ALL);
            alone += 1;
            used += width;
            least += best;
        }
        free(mem);
    }
    print_message("over slip %.2f %%, mean slowdown %.3f, TPCs %.1f of %u, the least possible %.1f\n",
                  100.0 * (double)over / (double)launches, took / alone, used / alone, ALL, least / alone);
    assert_true((double)over <= 0.02 * (double)launches);
    assert_true(took <= 1.1 * alone);
    assert_true(ALL * alone - used >= 0.65 * (ALL * alone - least));
}

/* What kernels' durations do not show, the tenant's own latency does: right-sizing stops, and begins again. */
static void undone_by_latency(void **unused)
{
    const struct truth x = {.k = {.key = 4, .blocks = 100000, .residency = 1}, .b_ns = 90e3};
    const struct lithos_rightsize_config c = config();
    uint64_t state = 3, now_ns = 0, narrow_since_ns = 0, longest_ns = 0, narrow = 0;
    uint32_t width = 0;
    void *mem;
    struct lithos_rightsize *r = rightsize_new(&c, &mem);

    (void)unused;
    for (int n = 0; n < 20000; n++) {
        lithos_rightsize_request(r, now_ns);
        launch(r, &x, &state, &width, NULL);
        /* until 10 s each request that runs narrow takes 1.4 of its time, for whatever reason */
        const bool slow = width < ALL && now_ns < 10 * LITHOS_NSEC_PER_SEC;
        narrow_since_ns = !slow ? now_ns : narrow_since_ns;
        longest_ns = LITHOS_MAX(longest_ns, now_ns - narrow_since_ns);
        narrow += slow;
        now_ns += 4 * LITHOS_NSEC_PER_MSEC;
        lithos_rightsize_request_done(r, now_ns, slow ? 1400000 : 1000000, 1);
    }
    const struct lithos_rightsize_stats *s = lithos_rightsize_stats(r);
    print_message("%lu of %lu narrow while slow, %lu stops\n", (unsigned long)narrow, 2500ul,
                  (unsigned long)s->stopped);
    assert_true(s->stopped >= 1 && s->undone >= 2);
    assert_true(longest_ns < LITHOS_NSEC_PER_SEC);
    assert_true(narrow < 500); /* of 2500 */
    assert_int_equal(s->slip_ppm, c.slip_ppm);
    assert_true(width < ALL || s->references > 0);
    free(mem);
}

/* Where lent work may be in its way a launch does not go on few TPCs. */
static void keeps_clear_of_others(void **unused)
{
    const struct truth x = {.k = {.key = 1, .blocks = 100000, .residency = 1}, .m_ns = 66e3, .b_ns = 99e3};
    const struct lithos_rightsize_config c = config();
    const struct lithos_topology t = card_h200();
    struct lithos_rightsize_choice choice;
    struct lithos_tpcset foreign;
    uint64_t state = 7;
    uint32_t width = 0;
    void *mem;
    struct lithos_rightsize *r = rightsize_new(&c, &mem);

    (void)unused;
    for (int i = 0; i < 2000; i++)
        launch(r, &x, &state, &width, NULL);
    assert_true(width < 12);
    assert_int_equal(lithos_tpcset_parse("0-3,9-16,18-25,27-34,75-83", &foreign), 0);
    lithos_rightsize_choose(r, &x.k, t.valid, foreign, &choice);
    const struct lithos_tpcset both = lithos_tpcset_and(choice.tpcs, foreign);
    assert_int_equal(choice.why, LITHOS_RIGHTSIZE_SIZED);
    assert_true(lithos_tpcset_empty(&both));
    assert_int_equal(lithos_tpcset_count(&choice.tpcs), width);
    assert_int_equal(lithos_tpcset_parse("0-68", &foreign), 0);
    lithos_rightsize_choose(r, &x.k, t.valid, foreign, &choice);
    assert_int_equal(choice.why, LITHOS_RIGHTSIZE_FOREIGN);
    assert_int_equal(lithos_tpcset_count(&choice.tpcs), ALL);
    free(mem);
}

/* Requests of one to sixteen at a time, and another model: kernels of other grids, times and scaling come and go. Judged by the
 * second: no second's median request is over slip times what it is with all TPCs. */
static void follows_changing_traffic(void **unused)
{
    const struct lithos_rightsize_config c = config();
    uint64_t state = 17, now_ns = 0, second_ns = 0, judged = 0, over = 0, all = 0;
    struct truth x[3][20]; /* model or batch */
    void *mem;
    struct lithos_rightsize *r = rightsize_new(&c, &mem);

    (void)unused;
    for (unsigned m = 0; m < 3; m++) {
        for (unsigned i = 0; i < 20; i++) {
            const double share = random_uniform(&state),
                         ns = 10e3 * (1 + 3 * m) * (0.5 + random_uniform(&state));
            x[m][i] = (struct truth){.k = {.key = 100 * m + i, .blocks = 50000, .residency = 2},
                                     .m_ns = share * ns * ALL,
                                     .b_ns = (1 - share) * ns,
                                     .noise = 0.02};
        }
    }
    for (int n = 0; n < 12000; n++) {
        const unsigned m = n < 3000 ? 0 : n < 6000 ? 1 : n < 9000 ? 2 : (unsigned)(next_random(&state) % 3);
        double took = 0, alone = 0;
        uint32_t width;
        lithos_rightsize_request(r, now_ns);
        for (unsigned i = 0; i < 20; i++) {
            double ns;
            launch(r, &x[m][i], &state, &width, &ns);
            took += ns;
            alone += true_ns(&x[m][i], ALL);
        }
        now_ns += (uint64_t)took + 3 * LITHOS_NSEC_PER_MSEC;
        lithos_rightsize_request_done(r, now_ns, (uint64_t)took, 1);
        judged++;
        over += took > 1.1 * alone;
        if (now_ns > second_ns + LITHOS_NSEC_PER_SEC) {
            assert_true(2 * over < judged);
            all += over;
            judged = over = 0;
            second_ns = now_ns;
        }
    }
    assert_true(all < 12000 / 100); /* and all in all the 99th percentile is within slip */
    assert_true(lithos_rightsize_stats(r)->tpc_ns < 0.95 * lithos_rightsize_stats(r)->whole_tpc_ns);
    free(mem);
}

static void picks_by_gpc(void **unused)
{
    const struct lithos_topology t = card_h200();
    uint64_t state = 99;

    (void)unused;
    for (int n = 0; n < 20000; n++) {
        const struct lithos_topology any = n % 2 ? t : card_random(&state);
        struct lithos_tpcset free = any.valid;
        free.w[0] &= n % 3 ? random_dense(&state) : UINT64_MAX;
        const uint32_t have = lithos_tpcset_count(&free),
                       want = 1 + (uint32_t)(next_random(&state) % LITHOS_TPC_BITS);
        const uint32_t cluster = 1u << next_random(&state) % 5;
        const struct lithos_tpcset got = lithos_rightsize_pick(&any, free, want, cluster);
        const struct lithos_tpcset stray = lithos_tpcset_minus(got, free);
        assert_true(lithos_tpcset_empty(&stray));
        assert_true(lithos_tpcset_count(&got) >= LITHOS_MIN(want, have));
        if (lithos_topology_has_room(&any, free, cluster))
            assert_true(lithos_topology_has_room(&any, got, cluster));
        const struct lithos_tpcset more = lithos_rightsize_pick(&any, free, want + 1, 1);
        const struct lithos_tpcset less = lithos_rightsize_pick(&any, free, want, 1);
        const struct lithos_tpcset lost = lithos_tpcset_minus(less, more);
        assert_true(lithos_tpcset_empty(&lost)); /* narrower sets lie within wider ones */
    }
    /* clusters of 8: 4 TPCs of one GPC each, from the GPCs of nine and eight first */
    const struct lithos_tpcset got = lithos_rightsize_pick(&t, t.valid, 8, 8);
    char text[LITHOS_TPCSET_TEXT_MAX];
    assert_string_equal(lithos_tpcset_format(&got, text), "54-61");
    const struct lithos_tpcset plain = lithos_rightsize_pick(&t, t.valid, 6, 1);
    assert_string_equal(lithos_tpcset_format(&plain, text), "54-55,75,78,81,83");
}

static void bounds_by_occupancy(void **unused)
{
    const struct lithos_topology t = card_h200();
    struct lithos_rightsize_kernel k = {.blocks = 50, .residency = 2};

    (void)unused;
    assert_int_equal(lithos_rightsize_bound(&t, &k, 66), 25);
    assert_int_equal(lithos_rightsize_bound(&t, &k, 20), 20);
    assert_int_equal(lithos_rightsize_waves(&t, &k, 25), 1);
    assert_int_equal(lithos_rightsize_waves(&t, &k, 5), 3);
    k.cluster_blocks = 4;
    k.blocks = 8;
    assert_int_equal(lithos_rightsize_bound(&t, &k, 66), 4);
    k.blocks = 0;
    assert_int_equal(lithos_rightsize_bound(&t, &k, 66), 66);
}

static void refuses_what_makes_no_sense(void **unused)
{
    struct lithos_rightsize_config c = config();
    struct lithos_rightsize *r;
    size_t bytes;
    char mem[64] __attribute__((aligned(16)));

    (void)unused;
    assert_int_equal(lithos_rightsize_init(mem, sizeof mem, &c, &r), -ENOSPC);
    c.slip_ppm = 999999;
    assert_int_equal(lithos_rightsize_size(&c, &bytes), -EINVAL);
    c = config();
    c.operators = 0;
    assert_int_equal(lithos_rightsize_size(&c, &bytes), -EINVAL);
    c = config();
    c.topology.sms_per_tpc = 0;
    assert_int_equal(lithos_rightsize_size(&c, &bytes), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_the_width),          cmocka_unit_test(no_slip_no_change),
        cmocka_unit_test(learns_without_probing),   cmocka_unit_test(is_revised),
        cmocka_unit_test(requests_pay_for_tries),   cmocka_unit_test(stays_within_slip),
        cmocka_unit_test(undone_by_latency),        cmocka_unit_test(picks_by_gpc),
        cmocka_unit_test(follows_changing_traffic), cmocka_unit_test(keeps_clear_of_others),
        cmocka_unit_test(bounds_by_occupancy),      cmocka_unit_test(refuses_what_makes_no_sense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
