/* The sharing and lending tables of docs/hardware.md on the wave model, beside what was measured on the card. The
 * tolerances are what docs/simulator.md promises; a model that drifts from the card fails here. The lending table is
 * run as it was measured: the owner raises a flag before it launches, and the borrower looks at it before each atom. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>

#include "base/quantile.h"
#include "base/util.h"
#include "model/card.h"
#include "model/wave.h"

#define RUN_NS (4 * LITHOS_NSEC_PER_SEC)
#define PERIOD_NS (2 * LITHOS_NSEC_PER_MSEC)
#define START_NS (10 * LITHOS_NSEC_PER_MSEC)
#define SAMPLES_MAX 4096

enum sharing { ALONE, TURNS, PREEMPT, MPS, MPS_PRIORITY, MASKS, LENT, LENT_PRIORITY };
enum { HP, BE };

/* Tolerances: share of the measured value; kept in points. Two kinds of rows are far off and say how far: with long
 * blocks the median depends on when the blocks of one wave end, which waves do not know; with atoms smaller than a wave
 * the card spreads blocks over SMs less evenly than a cell does (docs/simulator.md). */
struct row {
    const char *name;
    enum sharing sharing;
    bool long_blocks;
    uint32_t atoms, residency, window;
    bool plain;
    double p50_us, p99_us, kept_percent;
    double p50_within, p99_within, kept_within;
};

static const struct row rows[] = {
    {"alone", ALONE, false, 1, 0, 2, false, 98, 103, 100, 0.02, 0.06, 1},
    {"time slicing, short waves", TURNS, false, 1, 0, 2, false, 2497, 2506, 88, 0.02, 0.02, 3},
    {"time slicing, long blocks", TURNS, true, 1, 0, 2, false, 2497, 2506, 88, 0.02, 0.02, 3},
    {"BE slice 1 us, short waves", PREEMPT, false, 1, 0, 2, false, 274, 285, 88, 0.05, 0.05, 3},
    {"MPS, short waves", MPS, false, 1, 0, 2, false, 14992, 15026, 100, 0.02, 0.03, 2},
    {"MPS, long blocks", MPS, true, 1, 0, 2, false, 99, 14080, 100, 2.00, 0.10, 2},
    {"MPS + priority, short waves", MPS_PRIORITY, false, 1, 0, 2, false, 388, 408, 99, 0.10, 0.12, 1.5},
    {"MPS + priority, long blocks", MPS_PRIORITY, true, 1, 0, 2, false, 206, 6340, 99, 1.00, 0.25, 1.5},
    {"TPC masks 33/33, short waves", MASKS, false, 1, 0, 2, false, 96, 107, 50, 0.05, 0.12, 1},
    {"TPC masks 33/33, long blocks", MASKS, true, 1, 0, 2, false, 97, 119, 50, 0.05, 0.20, 1},
    {"lent, 40 atoms", LENT, false, 40, 0, 2, false, 505, 789, 83, 0.45, 0.10, 5},
    {"lent, 160 atoms", LENT, false, 160, 0, 3, false, 178, 400, 68, 0.20, 0.30, 30},
    {"lent, 160 atoms, 8 an SM", LENT, false, 160, 8, 3, false, 179, 371, 86, 0.20, 0.25, 8},
    {"lent, 40 atoms, low", LENT_PRIORITY, false, 40, 0, 2, false, 349, 432, 92, 0.15, 0.55, 13},
    {"lent, 160 atoms, 8, low", LENT_PRIORITY, false, 160, 8, 3, false, 327, 380, 93, 0.55, 0.50, 4},
    {"lent, 160 atoms, 4, low", LENT_PRIORITY, false, 160, 4, 3, false, 136, 279, 75, 0.05, 0.60, 15},
    {"lent, 160 plain, 8, low", LENT_PRIORITY, false, 160, 8, 2, true, 101, 194, 43, 0.40, 0.40, 45},
};

static const struct lithos_wave_kernel hp_kernel = {
    .alone_ns = 91500, .blocks = 132, .cluster_blocks = 1, .residency = 16, .share_ppm = 231000};
static const struct lithos_wave_kernel short_waves = {.alone_ns = 101500,
                                                      .blocks = 84480,
                                                      .cluster_blocks = 1,
                                                      .residency = 16,
                                                      .share_ppm = 231000,
                                                      .stagger_ppm = 500000};
static const struct lithos_wave_kernel long_blocks = {.alone_ns = 2001500,
                                                      .blocks = 4224,
                                                      .cluster_blocks = 1,
                                                      .residency = 16,
                                                      .share_ppm = 231000,
                                                      .stagger_ppm = 50000};

struct result {
    double p50_us, p99_us, be_per_s;
};

struct stand {
    const struct row *row;
    struct lithos_wave *w;
    struct lithos_wave_stream *hp, *be;
    struct lithos_tpcset all, own, other;
    bool owner_busy;
    uint32_t next_atom, flying;
};

static struct lithos_tpcset lowest(struct lithos_tpcset from, unsigned n)
{
    struct lithos_tpcset s = {{0, 0}};
    for (unsigned b = lithos_tpcset_next(&from, 0); n && b < LITHOS_TPC_BITS;
         b = lithos_tpcset_next(&from, b + 1), n--)
        lithos_tpcset_add(&s, b);
    return s;
}

static void be_submit(struct stand *s, uint64_t now)
{
    const struct lithos_wave_kernel *k = s->row->long_blocks ? &long_blocks : &short_waves;
    const uint32_t a = s->next_atom, n = s->row->atoms;
    const uint32_t lo = (uint32_t)((uint64_t)k->blocks * a / n),
                   hi = (uint32_t)((uint64_t)k->blocks * (a + 1) / n);
    struct lithos_wave_launch l = {.op = BE,
                                   .kernels = k,
                                   .count = 1,
                                   .blocks = hi - lo,
                                   .lead_ns = lo / 10,
                                   .residency = s->row->residency,
                                   .time_ppm = LITHOS_WAVE_PPM,
                                   .chained = a > 0 && !s->row->plain,
                                   .tpcs = s->all};
    if (s->row->sharing == MASKS || (s->row->sharing >= LENT && s->owner_busy))
        l.tpcs = s->other;
    assert_int_equal(lithos_wave_launch(s->w, now, s->be, &l), 0);
    s->next_atom = (a + 1) % n;
    s->flying++;
}

static void hp_submit(struct stand *s, uint64_t now)
{
    const struct lithos_wave_launch l = {.op = HP,
                                         .kernels = &hp_kernel,
                                         .count = 1,
                                         .time_ppm = LITHOS_WAVE_PPM,
                                         .tpcs = s->row->sharing >= MASKS ? s->own : s->all};
    s->owner_busy = true;
    assert_int_equal(lithos_wave_launch(s->w, now, s->hp, &l), 0);
}

static struct result run(const struct lithos_card *card, const struct row *row, bool with_hp, bool with_be)
{
    struct stand s = {.row = row, .all = card->topology.valid};
    const struct lithos_wave_config config = {.card = card, .node_gap_ns = 1000};
    assert_int_equal(lithos_wave_create(&config, &s.w), 0);
    const enum sharing sh = row->sharing;
    struct lithos_wave_domain *d = lithos_wave_domain_create(s.w, 0), *e = d;
    if (sh == TURNS || sh == PREEMPT)
        e = lithos_wave_domain_create(s.w, sh == PREEMPT ? 1000 : 0);
    s.hp = lithos_wave_stream_create(s.w, d, sh == MPS_PRIORITY || sh == LENT_PRIORITY ? -5 : 0, &s.hp);
    s.be = lithos_wave_stream_create(s.w, e, 0, &s.be);
    s.own = lowest(s.all, 33);
    s.other = lithos_tpcset_minus(s.all, s.own);

    static double latency_us[SAMPLES_MAX];
    size_t count = 0;
    uint64_t now = 0, wake = with_hp ? START_NS : LITHOS_WAVE_NEVER, sent = 0, ended = 0, atoms = 0;
    while (with_be && s.flying < row->window)
        be_submit(&s, 0);
    while (now < RUN_NS) {
        const uint64_t next = lithos_wave_next_ns(s.w);
        now = s.owner_busy ? next : LITHOS_MIN(next, LITHOS_MAX(wake, now));
        if (!s.owner_busy && now >= wake) {
            sent = now;
            wake += PERIOD_NS;
            hp_submit(&s, now);
        }
        struct lithos_wave_event ev;
        while (lithos_wave_advance(s.w, now, &ev, 1)) {
            assert_int_equal(ev.kind, LITHOS_WAVE_DONE);
            if (ev.op == BE) {
                atoms++;
                ended = now;
                s.flying--;
                be_submit(&s, now);
            } else {
                s.owner_busy = false;
                latency_us[count++] = (double)(now - sent) / 1000;
            }
        }
    }
    lithos_wave_destroy(s.w);
    lithos_sort_samples(latency_us, count);
    return (struct result){lithos_quantile(latency_us, count, 0.5), lithos_quantile(latency_us, count, 0.99),
                           ended ? (double)atoms / row->atoms * 1e9 / (double)ended : 0};
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

static void test_tables(void **state)
{
    const struct lithos_card *card = *state;
    const struct row alone[2] = {{.sharing = MPS, .atoms = 1, .window = 2},
                                 {.sharing = MPS, .atoms = 1, .window = 2, .long_blocks = true}};
    const double be_alone[2] = {run(card, &alone[0], false, true).be_per_s,
                                run(card, &alone[1], false, true).be_per_s};
    printf("BE alone %.1f %.1f\n", be_alone[0], be_alone[1]);
    assert_float_equal(be_alone[0], 66.6, 1.0);
    assert_float_equal(be_alone[1], 66.6, 2.0);
    printf("%-30s %27s %27s %17s\n", "", "HP p50 us model/card", "HP p99 us model/card", "BE kept %");
    int bad = 0;
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(rows); i++) {
        const struct row *row = &rows[i];
        const struct result r = run(card, row, true, row->sharing != ALONE);
        const double kept = row->sharing == ALONE ? 100 : 100 * r.be_per_s / be_alone[row->long_blocks];
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
    static struct lithos_card card;
    char error[LITHOS_MODEL_ERROR_BYTES];
    assert_int_equal(lithos_card_load(LITHOS_SOURCE_DIR "/src/model/cards/h200.json", &card, error), 0);
    *state = &card;
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_tables)};
    return cmocka_run_group_tests(tests, load, NULL);
}
