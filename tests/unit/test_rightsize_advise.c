/* core/rightsize for who sees launches only when they have ended: widths said beforehand, used until others are said. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/util.h"
#include "core/rightsize.h"
#include "unit/cards.h"
#include "unit/rightsize_new.h"

#define ALL 66u
#define KERNELS 24u
/* What has ended is told of so many launches later. */
#define LAG 40u

struct kernel {
    struct lithos_rightsize_kernel k;
    double m_ns, b_ns, wave_ns; /* a line, or with wave_ns waves of blocks */
    struct lithos_rightsize_advice advice;
};

struct end {
    struct kernel *kernel;
    double ns;
    uint32_t tpcs;
};

/* A tenant that launches far ahead of what is known of its kernels. */
struct stand {
    struct lithos_rightsize *r;
    void *mem;
    uint64_t now_ns, launches;
    struct end lag[LAG];
    bool sloth; /* narrow kernels make requests slow in a way that they do not show */
};

static struct lithos_tpcset whole(void)
{
    return card_h200().valid;
}

static void begin(struct stand *s, uint32_t slip_ppm)
{
    struct lithos_rightsize_config c = {.topology = card_h200()};

    *s = (struct stand){0};
    lithos_rightsize_config_defaults(&c);
    c.operators = 64;
    c.slip_ppm = slip_ppm;
    s->r = rightsize_new(&c, &s->mem);
}

static double true_ns(const struct kernel *x, uint32_t t)
{
    if (x->wave_ns > 0)
        return ceil((double)x->k.blocks / ((double)t * 2 * x->k.residency)) * x->wave_ns;
    return x->m_ns / t + x->b_ns;
}

static double launch(struct stand *s, struct kernel *x, uint32_t *ret_width)
{
    const uint32_t width = rightsize_width(s->r, &x->advice, s->launches, ALL);
    struct end *e = &s->lag[s->launches++ % LAG];

    if (e->kernel)
        lithos_rightsize_ended(s->r, &e->kernel->k, whole(), (uint64_t)e->ns, e->tpcs, &e->kernel->advice);
    *e = (struct end){x, true_ns(x, width), width};
    *ret_width = width;
    return e->ns;
}

/* Returns how long it took, over what it takes with all TPCs. */
static double request(struct stand *s, struct kernel *x, uint32_t kernels)
{
    double took = 0, alone = 0;
    uint32_t width, narrow = 0;

    for (uint32_t i = 0; i < kernels; i++) {
        took += launch(s, &x[i], &width);
        alone += true_ns(&x[i], ALL);
        narrow += width < ALL;
    }
    const double latency_ns = narrow && s->sloth ? 1.5 * took : took;
    s->now_ns += (uint64_t)latency_ns;
    lithos_rightsize_request_done(s->r, s->now_ns, (uint64_t)latency_ns, kernels);
    lithos_rightsize_request(s->r, s->now_ns);
    return took / alone;
}

static void random_kernels(struct kernel x[KERNELS], uint64_t seed)
{
    for (uint32_t i = 0; i < KERNELS; i++) {
        const double share = (double)(next_random(&seed) % 1000) / 1000;
        x[i] = (struct kernel){.k = {.key = i, .blocks = 100000, .residency = 4}};
        if (i % 3) {
            x[i].m_ns = share * 50e3 * ALL;
            x[i].b_ns = (1 - share) * 50e3;
        } else {
            x[i].k.blocks = 1 + (uint32_t)(next_random(&seed) % 3000);
            x[i].wave_ns = 20e3;
        }
    }
}

/* No request takes more than slip times its time on all TPCs, learning included, but for a few whose tries come in one. */
static void requests_stay_within_slip(void **unused)
{
    struct kernel x[KERNELS];
    struct stand s;
    double worst = 1, least = 0, all = 0;
    uint32_t over = 0;

    (void)unused;
    begin(&s, 1100000);
    random_kernels(x, 11);
    for (int n = 0; n < 3000; n++) {
        const double slower = request(&s, x, KERNELS);
        worst = fmax(worst, slower);
        over += slower > 1.1;
    }
    for (uint32_t i = 0; i < KERNELS; i++) {
        uint32_t best = ALL;
        while (best > 1 && true_ns(&x[i], best - 1) <= 1.1 * true_ns(&x[i], ALL))
            best--;
        least += best * true_ns(&x[i], best);
        all += ALL * true_ns(&x[i], ALL);
    }
    const struct lithos_rightsize_stats *st = lithos_rightsize_stats(s.r);
    print_message("%.2f of the TPC time, %.2f would do; slowest request %.3f, %u of 3000 over slip\n",
                  st->tpc_ns / st->whole_tpc_ns, least / all, worst, over);
    assert_true(over <= 15); /* half a percent */
    assert_true(worst <= 1.2);
    assert_true(1 - st->tpc_ns / st->whole_tpc_ns > 0.6 * (1 - least / all));
    assert_true(st->chosen[LITHOS_RIGHTSIZE_PROBE] > 50 && st->chosen[LITHOS_RIGHTSIZE_SIZED] > 10000);
    assert_true(st->references > 120 && st->chosen[LITHOS_RIGHTSIZE_REFERENCE] > 1000);
    assert_int_equal(st->undone, 0);
    free(s.mem);
}

/* What is slow for reasons that kernels do not show is undone, and all launches have all TPCs again. */
static void undone_by_latency(void **unused)
{
    struct kernel x[KERNELS];
    struct stand s;
    uint32_t width, wide = 0;

    (void)unused;
    begin(&s, 1100000);
    random_kernels(x, 3);
    s.sloth = true;
    for (int n = 0; n < 1000 && !lithos_rightsize_stats(s.r)->stopped; n++)
        request(&s, x, KERNELS);
    assert_true(lithos_rightsize_stats(s.r)->stopped);
    request(&s, x, KERNELS);
    for (uint32_t i = 0; i < KERNELS; i++) {
        launch(&s, &x[i], &width);
        wide += width == ALL;
    }
    assert_int_equal(wide, KERNELS);
    /* it comes back, with the cause gone */
    s.sloth = false;
    s.now_ns += 3 * LITHOS_NSEC_PER_SEC;
    for (int n = 0; n < 1000; n++)
        request(&s, x, KERNELS);
    assert_int_equal(lithos_rightsize_stats(s.r)->slip_ppm, 1100000);
    assert_true(lithos_rightsize_stats(s.r)->stopped < 8);
    free(s.mem);
}

/* Blocks that may wait for each other keep what they take to be there all at once. */
static void never_fewer_than_the_least(void **unused)
{
    struct kernel x = {.k = {.key = 1, .blocks = 80, .residency = 4, .least_tpcs = 40}, .b_ns = 50e3};
    struct stand s;
    uint32_t width, narrowest = ALL;

    (void)unused;
    begin(&s, 1500000);
    for (int n = 0; n < 2000; n++) {
        launch(&s, &x, &width);
        narrowest = LITHOS_MIN(narrowest, width);
    }
    assert_int_equal(narrowest, 40);
    free(s.mem);
}

/* One name for two kinds of work: every sixteenth launch takes three times as long, and gets slower on fewer TPCs. By its medians 4
 * TPCs would be enough. */
static void mixed_work_keeps_all(void **unused)
{
    struct kernel x = {.k = {.key = 1, .blocks = 100000, .residency = 1}};
    struct stand s;
    uint32_t width, narrow = 0;

    (void)unused;
    begin(&s, 1100000);
    for (int n = 0; n < 4000; n++) {
        const bool odd = n % 16 == 0;
        x.b_ns = odd ? 90e3 : 50e3;
        x.m_ns = odd ? 60e3 * ALL : 0;
        launch(&s, &x, &width);
        narrow += n >= 1000 && width < ALL;
    }
    assert_true(narrow < 30); /* one in a hundred: until it is known again, where it seems to have changed */
    assert_true(lithos_rightsize_stats(s.r)->chosen[LITHOS_RIGHTSIZE_MIXED] > 2000);
    free(s.mem);
}

static void another_slip(void **unused)
{
    struct kernel x = {.k = {.key = 1, .blocks = 100000, .residency = 1}, .m_ns = 660e3, .b_ns = 90e3};
    struct stand s;
    uint32_t width = 0;

    (void)unused;
    begin(&s, 1100000);
    for (int n = 0; n < 4000; n++)
        launch(&s, &x, &width);
    assert_in_range(lithos_tpcset_count(&x.advice.tpcs), 33, 37);
    assert_int_equal(lithos_rightsize_set_slip(s.r, 1300000), 0); /* 660/22 + 90 us: 1.2 of its time */
    for (int n = 0; n < 4000; n++)
        launch(&s, &x, &width);
    assert_in_range(lithos_tpcset_count(&x.advice.tpcs), 16, 20);
    assert_int_equal(lithos_rightsize_set_slip(s.r, 1000000), 0);
    launch(&s, &x, &width);
    assert_int_equal(width, ALL);
    assert_int_equal(lithos_rightsize_set_slip(s.r, 999999), -EINVAL);
    assert_int_equal(lithos_rightsize_set_slip(s.r, 100000001), -EINVAL);
    free(s.mem);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_stay_within_slip),
        cmocka_unit_test(undone_by_latency),
        cmocka_unit_test(never_fewer_than_the_least),
        cmocka_unit_test(mixed_work_keeps_all),
        cmocka_unit_test(another_slip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
