/* The table "Sharing today" of docs/hardware.md, run on the model in virtual time and printed beside what was
 * measured on the card. The tolerances are what docs/virtual-gpu.md promises; a model that drifts from the
 * card fails here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/quantile.h"
#include "base/util.h"
#include "model/card.h"
#include "model/cost.h"
#include "model/model.h"

#define RUN_NS (4 * LITHOS_NSEC_PER_SEC)
#define PERIOD_NS (2 * LITHOS_NSEC_PER_MSEC)
#define SAMPLES_MAX 4096

enum sharing { ALONE, TURNS, PREEMPT, MPS, MPS_PRIORITY, MASKS };
enum { HP, BE };

struct row {
    const char *name;
    enum sharing sharing;
    bool long_blocks;
    double p50_us, p99_us, kept_percent;        /* measured */
    double p50_within, p99_within, kept_within; /* as a part of the measured value; kept: points */
};

static const struct row rows[] = {
    {"alone", ALONE, false, 98, 103, 100, 0.02, 0.06, 1},
    {"time slicing, short waves", TURNS, false, 2497, 2506, 88, 0.02, 0.02, 3},
    {"time slicing, long blocks", TURNS, true, 2497, 2506, 88, 0.02, 0.02, 3},
    {"BE slice 1 us, short waves", PREEMPT, false, 274, 285, 88, 0.05, 0.05, 3},
    {"MPS, short waves", MPS, false, 14992, 15026, 100, 0.02, 0.03, 2},
    {"MPS, long blocks", MPS, true, 99, 14080, 100, 0.05, 0.10, 2},
    {"MPS + priority, short waves", MPS_PRIORITY, false, 388, 408, 99, 0.08, 0.08, 1.5},
    {"MPS + priority, long blocks", MPS_PRIORITY, true, 206, 6340, 99, 0.35, 0.20, 1.5},
    {"TPC masks 33/33, short waves", MASKS, false, 96, 107, 50, 0.05, 0.10, 1},
    {"TPC masks 33/33, long blocks", MASKS, true, 97, 119, 50, 0.05, 0.20, 1},
};

struct bench {
    struct lithos_card card;
    struct lithos_costs *costs;
};

struct result {
    double p50_us, p99_us, be_per_s;
};

static struct lithos_model_kernel kernel(const struct bench *b, const char *name, uint64_t blocks,
                                         uint64_t iters)
{
    const uint64_t params[2] = {0, iters};
    struct lithos_model_kernel k = {.blocks = blocks, .cluster_blocks = 1, .threads = 128, .registers = 16};
    lithos_costs_find(b->costs, name, params, 2, k.threads, &k.cost);
    return k;
}

static void half_masks(const struct bench *b, struct lithos_model_kernel *hp, struct lithos_model_kernel *be)
{
    const struct lithos_tpcset *valid = &b->card.topology.valid;
    unsigned n = 0;
    for (unsigned bit = lithos_tpcset_next(valid, 0); bit < LITHOS_TPC_BITS;
         bit = lithos_tpcset_next(valid, bit + 1))
        lithos_tpcset_add(n++ < 33 ? &hp->tpcs : &be->tpcs, bit);
    hp->masked = be->masked = true;
}

static struct lithos_model_stream *client(struct lithos_model *m, uint64_t owner, uint64_t domain,
                                          int32_t priority, uint64_t slice_ns)
{
    struct lithos_model_context_desc desc = {.owner = owner, .domain = domain};
    struct lithos_model_context *c;
    struct lithos_model_stream *s;
    assert_int_equal(lithos_model_context_create(m, &desc, &c), 0);
    lithos_model_context_slice(m, 0, c, slice_ns);
    assert_int_equal(lithos_model_stream_create(m, c, priority, &s), 0);
    return s;
}

/* HP: a kernel every 2 ms, open loop, late ones at once. BE: two kernels queued at all times. */
static struct result run(const struct bench *b, enum sharing sharing, bool with_be, bool long_blocks)
{
    struct lithos_model *m;
    assert_int_equal(lithos_model_create(&b->card, 1, &m), 0);
    struct lithos_model_stream *hp = client(m, HP, 1, sharing == MPS_PRIORITY ? -5 : 0, 0);
    struct lithos_model_stream *be =
        client(m, BE, sharing == TURNS || sharing == PREEMPT ? 2 : 1, 0, sharing == PREEMPT ? 1000 : 0);
    struct lithos_model_kernel hp_kernel = kernel(b, "lithos_hp", 132, 0);
    struct lithos_model_kernel be_kernel =
        long_blocks ? kernel(b, "lithos_fma_long", 4224, 400000) : kernel(b, "lithos_fma", 84480, 20000);
    if (sharing == MASKS)
        half_masks(b, &hp_kernel, &be_kernel);

    static double latency_us[SAMPLES_MAX];
    size_t count = 0;
    /* HP comes 10 ms later, when BE has settled */
    uint64_t now = 0, wake = 10 * LITHOS_NSEC_PER_MSEC, sent = 0, ended = 0, kernels = 0;
    bool busy = sharing == ALONE && with_be;
    for (unsigned i = 0; with_be && i < 2; i++)
        assert_int_equal(lithos_model_launch(m, 0, be, BE, &be_kernel), 0);
    while (now < RUN_NS) {
        uint64_t next = lithos_model_next_ns(m);
        now = busy ? next : LITHOS_MIN(next, LITHOS_MAX(wake, now));
        if (!busy && now >= wake) {
            assert_int_equal(lithos_model_launch(m, now, hp, HP, &hp_kernel), 0);
            sent = now;
            wake += PERIOD_NS;
            busy = true;
        }
        struct lithos_model_event e;
        while (lithos_model_advance(m, now, &e, 1)) {
            assert_int_equal(e.kind, LITHOS_MODEL_DONE);
            assert_int_equal(e.blocks_missed + e.blocks_twice, 0);
            if (e.op == BE) {
                kernels++;
                ended = now;
                assert_int_equal(lithos_model_launch(m, now, be, BE, &be_kernel), 0);
            } else {
                latency_us[count++] = (double)(now - sent) / 1000;
                busy = false;
            }
        }
    }
    lithos_model_destroy(m);
    lithos_sort_samples(latency_us, count);
    return (struct result){lithos_quantile(latency_us, count, 0.5), lithos_quantile(latency_us, count, 0.99),
                           ended ? (double)kernels * 1e9 / (double)ended : 0};
}

static void check(const struct row *row, const char *what, double model, double measured, double within,
                  int *bad)
{
    if (fabs(model - measured) <= within)
        return;
    fprintf(stderr, "%s: %s is %.1f, measured %.1f, allowed %.1f off\n", row->name, what, model, measured,
            within);
    (*bad)++;
}

static void test_sharing_table(void **state)
{
    const struct bench *b = *state;
    const double alone[2] = {run(b, ALONE, true, false).be_per_s, run(b, ALONE, true, true).be_per_s};
    assert_float_equal(alone[0], 66.6, 1.0);
    assert_float_equal(alone[1], 66.6, 2.0);
    printf("%-30s %27s %27s %17s\n", "", "HP p50 us model/card", "HP p99 us model/card", "BE kept %");
    int bad = 0;
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(rows); i++) {
        const struct row *row = &rows[i];
        struct result r = run(b, row->sharing, row->sharing != ALONE, row->long_blocks);
        double kept = row->sharing == ALONE ? 100 : 100 * r.be_per_s / alone[row->long_blocks];
        printf("%-30s %9.1f %8.0f %+7.1f%% %9.1f %8.0f %+7.1f%% %6.1f %4.0f %+5.1f\n", row->name, r.p50_us,
               row->p50_us, 100 * (r.p50_us / row->p50_us - 1), r.p99_us, row->p99_us,
               100 * (r.p99_us / row->p99_us - 1), kept, row->kept_percent, kept - row->kept_percent);
        check(row, "p50 us", r.p50_us, row->p50_us, row->p50_us * row->p50_within, &bad);
        check(row, "p99 us", r.p99_us, row->p99_us, row->p99_us * row->p99_within, &bad);
        check(row, "BE kept %", kept, row->kept_percent, row->kept_within, &bad);
    }
    assert_int_equal(bad, 0);
}

static int load(void **state)
{
    static struct bench b;
    char error[LITHOS_MODEL_ERROR_BYTES];
    assert_int_equal(lithos_card_load(LITHOS_SOURCE_DIR "/src/model/cards/h200.json", &b.card, error), 0);
    assert_int_equal(lithos_costs_create(&b.costs), 0);
    assert_int_equal(
        lithos_costs_merge_file(b.costs, LITHOS_SOURCE_DIR "/src/model/costs/default.json", error), 0);
    *state = &b;
    return 0;
}

static int unload(void **state)
{
    lithos_costs_free(((struct bench *)*state)->costs);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sharing_table)};
    return cmocka_run_group_tests(tests, load, unload);
}
