/* core/rightsize: how much slower kernels may be while a host launches more slowly than the card runs. */
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
#define KERNELS 20u

/* A program with a launch each so often, that waits after the last of them. */
struct app {
    struct lithos_rightsize *r;
    void *mem;
    uint64_t now_ns, launches;
    uint64_t every_ns; /* between launches */
    struct kernel {
        struct lithos_rightsize_kernel k;
        double m_ns, b_ns;
        struct lithos_rightsize_advice advice;
    } kernel[KERNELS];
    bool graph;             /* each request replays one as well */
    uint32_t launches_told; /* of a request; 0: as many as there are */
};

struct sum {
    double took_ns, tpc_ns;
};

static void begin(struct app *a, uint32_t slip_ppm)
{
    struct lithos_rightsize_config c = {.topology = card_h200()};

    *a = (struct app){0};
    lithos_rightsize_config_defaults(&c);
    c.operators = 64;
    c.slip_ppm = slip_ppm;
    a->r = rightsize_new(&c, &a->mem);
    for (uint32_t i = 0; i < KERNELS; i++)
        a->kernel[i].k = (struct lithos_rightsize_kernel){.key = i + 1, .blocks = 100000, .residency = 4};
}

/* 20 us on all TPCs, of which so many parts scale with them. */
static void scales(struct app *a, uint32_t from, uint32_t to, double part)
{
    for (uint32_t i = from; i < to; i++) {
        a->kernel[i].m_ns = part * 20e3 * ALL;
        a->kernel[i].b_ns = (1 - part) * 20e3;
    }
}

static struct sum request(struct app *a)
{
    static const uint64_t launch_ns = 2000;
    const uint64_t begin_ns = a->now_ns;
    struct sum sum = {0};
    uint64_t end_ns = begin_ns;

    for (uint32_t i = 0; i < KERNELS; i++) {
        struct kernel *x = &a->kernel[i];
        const uint64_t launched_ns = begin_ns + i * a->every_ns;
        const uint64_t start_ns = LITHOS_MAX(launched_ns + launch_ns, end_ns + (i > 0));
        const uint32_t width = rightsize_width(a->r, &x->advice, a->launches++, ALL);
        const uint64_t took_ns = (uint64_t)(x->m_ns / width + x->b_ns);
        end_ns = start_ns + took_ns;
        const struct lithos_rightsize_run run = {x->k.key, launched_ns, took_ns, width, ALL};
        lithos_rightsize_ran(a->r, &run);
        lithos_rightsize_ended(a->r, &x->k, card_h200().valid, took_ns, width, &x->advice);
        sum.tpc_ns += (double)took_ns * width;
    }
    if (a->graph)
        lithos_rightsize_unseen(a->r);
    a->now_ns = end_ns + 5000;
    sum.took_ns = (double)(a->now_ns - begin_ns);
    lithos_rightsize_request_done(a->r, a->now_ns, a->now_ns - begin_ns,
                                  a->launches_told ? a->launches_told : KERNELS + a->graph);
    lithos_rightsize_request(a->r, a->now_ns);
    return sum;
}

static struct sum requests(struct app *a, unsigned n)
{
    struct sum sum = {0};

    for (unsigned i = 0; i < n; i++) {
        const struct sum s = request(a);
        sum.took_ns += s.took_ns / n;
        sum.tpc_ns += s.tpc_ns / n;
    }
    return sum;
}

/* Twice as slow as the card: kernels of which half does not scale are given so few TPCs that they fill that time. */
static void idle_time_is_used(void **unused)
{
    struct app a;

    (void)unused;
    begin(&a, 1100000);
    scales(&a, 0, KERNELS, 0.5);
    a.every_ns = 45000;
    const struct sum whole = request(&a);
    requests(&a, 3000);
    const struct sum sized = requests(&a, 500);
    assert_true(lithos_rightsize_kernel_slip(a.r) >= 2);
    /* At twice the time half as many kernels' work that scales has a third of the TPCs: 22 * 40 us of 66 * 20. */
    assert_true(sized.tpc_ns < 0.75 * whole.tpc_ns);
    assert_true(sized.took_ns < 1.03 * whole.took_ns);
    assert_int_equal(lithos_rightsize_stats(a.r)->undone, 0);
    free(a.mem);
}

/* As fast as the card takes them: the slip is all there is. */
static void a_busy_card_has_none(void **unused)
{
    struct app a;

    (void)unused;
    begin(&a, 1100000);
    scales(&a, 0, KERNELS, 0.5);
    a.every_ns = 5000;
    requests(&a, 1500);
    assert_float_equal(lithos_rightsize_kernel_slip(a.r), 1.1, 1e-6);
    free(a.mem);
}

/* Kernels that take as many times as long as they have fewer TPCs save nothing: they are left as they are, whatever room there is, and do not keep
 * others from it, though the longest of them is the last of its request. */
static void what_saves_nothing_is_left_alone(void **unused)
{
    struct app a;

    (void)unused;
    begin(&a, 1100000);
    scales(&a, 0, 10, 0.2);
    scales(&a, 10, KERNELS, 1);
    a.kernel[KERNELS - 1].m_ns *= 10;
    a.every_ns = 45000;
    requests(&a, 4000);
    const struct sum sized = requests(&a, 500);
    assert_true(lithos_rightsize_kernel_slip(a.r) >= 2);
    assert_true(lithos_tpcset_count(&a.kernel[0].advice.tpcs) < 30);
    assert_true(lithos_tpcset_count(&a.kernel[KERNELS - 1].advice.tpcs) >= 60);
    assert_true(sized.took_ns < 1.06 * (19 * 45000 + 200e3 + 7000));
    free(a.mem);
}

/* The host becomes faster than the card within a request: what was given away is taken back before many have been over the slip. */
static void a_faster_host_ends_it(void **unused)
{
    struct app a;
    unsigned over = 0;

    (void)unused;
    begin(&a, 1100000);
    scales(&a, 0, KERNELS, 0.5);
    a.every_ns = 45000;
    requests(&a, 3000);
    assert_true(lithos_rightsize_kernel_slip(a.r) >= 2);
    a.every_ns = 5000;
    for (unsigned i = 0; i < 2000; i++)
        over += request(&a).took_ns > 1.1 * (KERNELS * 20e3 + 7000 + 100);
    print_message("over the slip: %u of 2000, in force %.3f, kernels %.3f\n", over,
                  lithos_rightsize_stats(a.r)->slip_ppm / 1e6, (double)lithos_rightsize_kernel_slip(a.r));
    assert_true(over < 200);
    assert_true(lithos_rightsize_kernel_slip(a.r) <= 1.1f + 1e-6f);
    free(a.mem);
}

/* A host that is fast for a while and slow for a while: right-sized requests follow it, and are hardly later all together. */
static void a_host_that_changes_is_followed(void **unused)
{
    struct app a, b;
    double took_ns[2] = {0}, tpc_ns[2] = {0};

    (void)unused;
    begin(&a, 1100000);
    begin(&b, 1000000); /* not right-sized */
    scales(&a, 0, KERNELS, 0.5);
    scales(&b, 0, KERNELS, 0.5);
    for (unsigned i = 0; i < 12000; i++) {
        const bool fast = i / 200 % 2;
        a.every_ns = b.every_ns = fast ? 21000 : 40000;
        const struct sum s = request(&a), whole = request(&b);
        if (i < 4000)
            continue;
        took_ns[fast] += s.took_ns / whole.took_ns / 4000;
        tpc_ns[fast] += s.tpc_ns / whole.tpc_ns / 4000;
    }
    print_message("slow: %.3f of its time and %.3f of the TPC time; fast: %.3f and %.3f\n", took_ns[0],
                  tpc_ns[0], took_ns[1], tpc_ns[1]);
    assert_true(took_ns[0] < 1.02 && took_ns[1] < 1.1);
    assert_true(tpc_ns[0] < 0.8);
    assert_int_equal(lithos_rightsize_stats(a.r)->undone, 0);
    free(a.mem);
    free(b.mem);
}

static void told(struct app *a, uint32_t tpcs, uint64_t took_ns, unsigned times)
{
    struct kernel *x = &a->kernel[0];

    while (times--)
        lithos_rightsize_ended(a->r, &x->k, card_h200().valid, took_ns, tpcs, &x->advice);
}

/* 12 TPCs were too few for twice the time, and with what is known since they are enough: they are in use then, and a request is reckoned so, though
 * there is something narrower to try again. */
static void what_is_in_use_is_reckoned(void **unused)
{
    struct app a;

    (void)unused;
    begin(&a, 1100000);
    told(&a, ALL, 20000, 8);
    told(&a, 12, 43000, 8);
    told(&a, 63, 43000, 24); /* nothing between this and all is worth a try */
    for (unsigned i = 0; i < 1200; i++) {
        told(&a, ALL, 20000, 1); /* so that it is not forgotten as 63 is */
        told(&a, 12, 39000, 1);
    }
    for (unsigned i = 0; i < 200; i++) {
        const uint64_t begin_ns = a.now_ns;
        for (unsigned j = 0; j < KERNELS; j++) {
            const struct lithos_rightsize_run run = {1, begin_ns + j * 30000, 20000, ALL, ALL};
            lithos_rightsize_ran(a.r, &run);
        }
        a.now_ns += KERNELS * 30000;
        lithos_rightsize_request_done(a.r, a.now_ns, a.now_ns - begin_ns, KERNELS);
        lithos_rightsize_request(a.r, a.now_ns);
    }
    /* On 12 each would be 9 us later than the next can begin. */
    assert_true(lithos_rightsize_kernel_slip(a.r) < 2);
    assert_true(lithos_rightsize_kernel_slip(a.r) > 1.1f);
    free(a.mem);
}

/* While a graph runs the card is not idle, though no kernels of it are told of. */
static void what_is_not_seen_says_nothing(void **unused)
{
    struct app a;

    (void)unused;
    begin(&a, 1100000);
    scales(&a, 0, KERNELS, 0.5);
    a.every_ns = 45000;
    a.graph = true;
    requests(&a, 1500);
    assert_float_equal(lithos_rightsize_kernel_slip(a.r), 1.1, 1e-6);
    free(a.mem);
}

/* What requests bore before says nothing of those that cannot be reckoned: a graph runs in them, or others' kernels were counted. */
static void room_ends_with_what_is_known(void **unused)
{
    struct app a;

    (void)unused;
    for (unsigned way = 0; way < 2; way++) {
        begin(&a, 1100000);
        scales(&a, 0, KERNELS, 0.5);
        a.every_ns = 45000;
        requests(&a, 3000);
        assert_true(lithos_rightsize_kernel_slip(a.r) >= 2);
        const uint64_t before = lithos_rightsize_stats(a.r)->unreckoned;
        a.every_ns = 5000;
        a.graph = way == 0;
        a.launches_told = way == 0 ? 0 : 1;
        requests(&a, 10);
        assert_float_equal(lithos_rightsize_kernel_slip(a.r), 1.1, 1e-6);
        assert_true(lithos_rightsize_stats(a.r)->unreckoned - before >= 8);
        /* and begins anew when they can be */
        a.every_ns = 45000;
        a.graph = false;
        a.launches_told = 0;
        requests(&a, 500);
        assert_true(lithos_rightsize_kernel_slip(a.r) >= 2);
        free(a.mem);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(idle_time_is_used),
        cmocka_unit_test(a_busy_card_has_none),
        cmocka_unit_test(what_saves_nothing_is_left_alone),
        cmocka_unit_test(a_faster_host_ends_it),
        cmocka_unit_test(a_host_that_changes_is_followed),
        cmocka_unit_test(what_is_in_use_is_reckoned),
        cmocka_unit_test(what_is_not_seen_says_nothing),
        cmocka_unit_test(room_ends_with_what_is_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
