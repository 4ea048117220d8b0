/* The model of a card, in virtual time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "model/card.h"
#include "model/model.h"

struct rig {
    struct lithos_card card;
    struct lithos_model *m;
    uint64_t now;
};

static struct lithos_model_kernel kernel(uint64_t blocks, uint64_t alone_ns, uint32_t share_ppm)
{
    return (struct lithos_model_kernel){
        .blocks = blocks,
        .cluster_blocks = 1,
        .threads = 128,
        .registers = 16,
        .cost = {.alone_ns = alone_ns, .share_ppm = share_ppm, .group = 4},
    };
}

static struct lithos_model_kernel masked(struct lithos_model_kernel k, const char *tpcs)
{
    k.masked = true;
    assert_int_equal(lithos_tpcset_parse(tpcs, &k.tpcs), 0);
    return k;
}

static struct lithos_model_context *context(struct rig *r, uint64_t owner, uint64_t domain)
{
    struct lithos_model_context_desc desc = {.owner = owner, .domain = domain};
    struct lithos_model_context *c;
    assert_int_equal(lithos_model_context_create(r->m, &desc, &c), 0);
    return c;
}

static struct lithos_model_stream *stream(struct rig *r, struct lithos_model_context *c, int32_t priority)
{
    struct lithos_model_stream *s;
    assert_int_equal(lithos_model_stream_create(r->m, c, priority, &s), 0);
    return s;
}

static void launch(struct rig *r, struct lithos_model_stream *s, uint64_t op, struct lithos_model_kernel k)
{
    assert_int_equal(lithos_model_launch(r->m, r->now, s, op, &k), 0);
}

/* The next event, time going on as far as it needs; false when there will be none. Every step that the model calls
 * quiet is checked to be so. */
static bool next_event(struct rig *r, struct lithos_model_event *e)
{
    for (;;) {
        uint64_t quiet = lithos_model_quiet_until_ns(r->m);
        if (lithos_model_advance(r->m, r->now, e, 1)) {
            assert_true(quiet <= r->now);
            return true;
        }
        uint64_t next = lithos_model_next_ns(r->m);
        if (next == LITHOS_MODEL_NEVER)
            return false;
        assert_true(next >= r->now);
        r->now = next;
        if (next < quiet && lithos_model_advance(r->m, next, e, 1))
            fail_msg("an event at %llu, quiet was promised until %llu", (unsigned long long)next,
                     (unsigned long long)quiet);
    }
}

static struct lithos_model_event expect(struct rig *r, uint64_t op)
{
    struct lithos_model_event e;
    assert_true(next_event(r, &e));
    assert_int_equal(e.kind, LITHOS_MODEL_DONE);
    assert_int_equal(e.op, op);
    assert_int_equal(e.end_ns, r->now);
    assert_int_equal(e.blocks_missed + e.blocks_twice, 0);
    return e;
}

static void expect_nothing(struct rig *r)
{
    struct lithos_model_event e;
    assert_false(next_event(r, &e));
}

static int setup(void **state)
{
    struct rig *r = calloc(1, sizeof *r);
    char error[LITHOS_MODEL_ERROR_BYTES];
    assert_int_equal(lithos_card_load(LITHOS_SOURCE_DIR "/src/model/cards/h200.json", &r->card, error), 0);
    assert_int_equal(lithos_model_create(&r->card, 7, &r->m), 0);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;
    lithos_model_destroy(r->m);
    free(r);
    return 0;
}

static void test_null_kernel(void **state)
{
    struct rig *r = *state;
    struct lithos_model_stream *s = stream(r, context(r, 1, 1), 0);
    launch(r, s, 1, kernel(1, 1500, 100000));
    struct lithos_model_event e = expect(r, 1);
    assert_int_equal(e.end_ns, 8000); /* measured: 8.0 us */
    assert_int_equal(e.blocks, 1);
    launch(r, s, 2, kernel(0, 1500, 100000)); /* an empty grid is done, with nothing run */
    assert_int_equal(expect(r, 2).blocks, 0);
    expect_nothing(r);
}

static void test_residency_and_waves(void **state)
{
    struct rig *r = *state;
    struct lithos_model_stream *s = stream(r, context(r, 1, 1), 0);
    const uint64_t fixed = r->card.launch_ns + r->card.complete_ns, alone = 100000;
    /* share 1/64: never slowed, so that waves can be counted by the time alone */
    static const struct {
        uint32_t threads, registers, shared;
        uint64_t blocks, waves;
    } cases[] = {
        {128, 16, 0, 132 * 16, 1},        {128, 16, 0, 132 * 16 + 1, 2},    {32, 16, 0, 132 * 32, 1},
        {32, 16, 0, 132 * 32 + 1, 2},     {1024, 16, 0, 132 * 2 + 1, 2},    {128, 255, 0, 132 * 2, 1},
        {128, 255, 0, 132 * 2 + 1, 2},    {128, 16, 232448, 132, 1},        {128, 16, 232448, 133, 2},
        {128, 16, 116736 - 1024, 264, 1}, {128, 16, 116736 - 1023, 264, 2},
    };
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(cases); i++) {
        struct lithos_model_kernel k = kernel(cases[i].blocks, alone, 15625);
        k.threads = cases[i].threads;
        k.registers = cases[i].registers;
        k.shared_bytes = cases[i].shared;
        uint64_t sent = r->now;
        launch(r, s, i, k);
        struct lithos_model_event e = expect(r, i);
        if (e.end_ns - sent != fixed + cases[i].waves * alone)
            fail_msg("case %zu took %llu ns", i, (unsigned long long)(e.end_ns - sent));
        assert_int_equal(e.blocks, cases[i].blocks);
    }
}

static void test_sharing_an_sm(void **state)
{
    struct rig *r = *state;
    struct lithos_model_context *c = context(r, 1, 1);
    struct lithos_model_stream *a = stream(r, c, 0), *b = stream(r, c, 0);
    const uint64_t fixed = r->card.launch_ns + r->card.complete_ns;
    /* 2 TPC, 4 SMs, 16 blocks each that ask for 1/4: four times as long */
    launch(r, a, 1, masked(kernel(64, 100000, 250000), "0-1"));
    assert_in_range(expect(r, 1).end_ns, fixed + 400000, fixed + 400000 + 100);
    /* two kernels of 4 blocks an SM, 1/4 each, the second half way: 50 alone, then 100 for 50 each, then 50 alone */
    uint64_t t = r->now;
    launch(r, a, 2, masked(kernel(16, 100000, 250000), "0-1"));
    struct lithos_model_event e;
    assert_int_equal(lithos_model_advance(r->m, t + 50000, &e, 1), 0);
    r->now = t + 50000;
    launch(r, b, 3, masked(kernel(16, 100000, 250000), "0-1"));
    assert_in_range(expect(r, 2).end_ns, t + fixed + 150000, t + fixed + 150010);
    assert_in_range(expect(r, 3).end_ns, t + fixed + 200000, t + fixed + 200010);
}

static void test_masks_keep_apart(void **state)
{
    struct rig *r = *state;
    struct lithos_model_context *a = context(r, 1, 1), *b = context(r, 2, 1);
    struct lithos_model_stream *sa = stream(r, a, 0), *sb = stream(r, b, 0);
    struct lithos_model_stats stats;
    launch(r, sb, 9, masked(kernel(84480, 100000, 250000), "36-71"));
    launch(r, sa, 1, masked(kernel(132, 90000, 250000), "0-34"));
    assert_int_equal(expect(r, 1).end_ns, r->card.launch_ns + r->card.complete_ns + 90000 * 2 / 2);
    expect(r, 9);
    lithos_model_context_stats(a, &stats);
    struct lithos_tpcset allowed;
    lithos_tpcset_parse("0-34", &allowed);
    struct lithos_tpcset outside = lithos_tpcset_minus(stats.tpcs, allowed);
    assert_true(lithos_tpcset_empty(&outside));
    assert_int_equal(stats.blocks_beside_others, 0);
    /* and without masks they meet */
    launch(r, sb, 9, kernel(2112, 100000, 10000));
    launch(r, sa, 1, kernel(132, 90000, 10000));
    launch(r, sa, 2, masked(kernel(132, 90000, 10000), "1,70"));
    expect(r, 9);
    expect(r, 1);
    expect(r, 2);
    launch(r, sb, 9, kernel(1000, 100000, 10000));
    launch(r, sa, 1, kernel(132, 90000, 10000));
    expect(r, 1);
    expect(r, 9);
    lithos_model_context_stats(a, &stats);
    assert_true(stats.blocks_beside_others > 0);
}

static void test_leftover_and_priority(void **state)
{
    struct rig *r = *state;
    struct lithos_model_context *c = context(r, 1, 1);
    struct lithos_model_stream *be = stream(r, c, 0), *same = stream(r, c, 0), *hp = stream(r, c, -5);
    /* 3 waves of 100 us; one of equal priority waits for all, a more urgent one for the end of a wave */
    launch(r, be, 1, kernel(3 * 2112, 100000, 15625));
    launch(r, same, 2, kernel(1, 1000, 15625));
    launch(r, hp, 3, kernel(1, 1000, 15625));
    struct lithos_model_event e = expect(r, 3);
    assert_in_range(e.end_ns, 100000, 120000);
    expect(r, 1);
    assert_in_range(expect(r, 2).end_ns, 300000, 420000);

    /* client priority comes before stream priority */
    struct lithos_model_context_desc desc = {.owner = 2, .domain = 1, .priority = 1};
    struct lithos_model_context *low;
    assert_int_equal(lithos_model_context_create(r->m, &desc, &low), 0);
    struct lithos_model_stream *urgent_of_low = stream(r, low, -5);
    uint64_t t = r->now;
    launch(r, be, 1, kernel(2 * 2112, 100000, 15625));
    launch(r, urgent_of_low, 4, kernel(1, 1000, 15625));
    expect(r, 1);
    assert_in_range(expect(r, 4).end_ns, t + 200000, t + 320000);
}

static void test_streams_and_marks(void **state)
{
    struct rig *r = *state;
    struct lithos_model_context *c = context(r, 1, 1);
    struct lithos_model_stream *a = stream(r, c, 0), *b = stream(r, c, 0);
    launch(r, a, 1, kernel(1, 50000, 15625));
    assert_int_equal(lithos_model_mark(r->m, r->now, a, 2), 0);
    launch(r, a, 3, kernel(1, 50000, 15625));
    assert_int_equal(lithos_model_wait(r->m, r->now, b, 2), 0);
    launch(r, b, 4, kernel(1, 10000, 15625));
    assert_int_equal(lithos_model_copy(r->m, r->now, b, 5, LITHOS_COPY_D2H, 50000000), 0);
    uint64_t first = expect(r, 1).end_ns;
    assert_int_equal(expect(r, 2).end_ns, first);
    struct lithos_model_event e = expect(r, 4);
    assert_true(e.start_ns >= first);
    assert_true(e.end_ns < first + 20000);
    expect(r, 3);
    assert_int_equal(expect(r, 5).end_ns, e.end_ns + r->card.copy_latency_ns + 1000000);
    /* a mark that is done or was never made holds nothing up */
    assert_int_equal(lithos_model_wait(r->m, r->now, a, 2), 0);
    assert_int_equal(lithos_model_wait(r->m, r->now, a, 77), 0);
    launch(r, a, 6, kernel(1, 1000, 15625));
    expect(r, 6);
    /* a gate is opened from outside */
    assert_int_equal(lithos_model_gate(r->m, r->now, a, 50), 0);
    launch(r, a, 7, kernel(1, 1000, 15625));
    expect_nothing(r);
    lithos_model_gate_open(r->m, r->now, 1, 50);
    expect(r, 7);
    /* a stream destroyed with work in it still does it */
    launch(r, a, 8, kernel(1, 1000, 15625));
    lithos_model_stream_destroy(r->m, r->now, a);
    expect(r, 8);
    /* two copies of one direction take turns, of two directions none */
    struct lithos_model_stream *d = stream(r, c, 0);
    uint64_t t = r->now, one = r->card.copy_latency_ns + 1000000;
    assert_int_equal(lithos_model_copy(r->m, t, b, 10, LITHOS_COPY_H2D, 50000000), 0);
    assert_int_equal(lithos_model_copy(r->m, t, d, 11, LITHOS_COPY_H2D, 50000000), 0);
    struct lithos_model_stream *g = stream(r, c, 0);
    assert_int_equal(lithos_model_copy(r->m, t, g, 12, LITHOS_COPY_D2H, 50000000), 0);
    assert_int_equal(expect(r, 10).end_ns, t + one);
    assert_int_equal(expect(r, 12).end_ns, t + one);
    assert_int_equal(expect(r, 11).end_ns, t + 2 * one);
}

static void test_hangs(void **state)
{
    struct rig *r = *state;
    /* measured on the card: cluster size, mask, whether it runs (docs/hardware.md) */
    static const struct {
        uint32_t cluster;
        const char *tpcs;
        bool runs;
    } cases[] = {
        {1, "0", true},      {1, "4", false},   {1, "-", false},          {1, "4-8", false},
        {1, "3-9", true},    {4, "0-1", true},  {4, "0", false},          {4, "0,9", false},
        {4, "75,78", false}, {8, "9-12", true}, {8, "9-10,18-19", false}, {16, "9-16", true},
        {16, "54-62", true}, {2, "75", true},
    };
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(cases); i++) {
        struct lithos_model_context *c = context(r, 1, 1);
        struct lithos_model_stream *s = stream(r, c, 0), *other = stream(r, c, 0);
        struct lithos_model_kernel k = masked(kernel(4 * cases[i].cluster, 10000, 250000), cases[i].tpcs);
        k.cluster_blocks = cases[i].cluster;
        launch(r, s, 1, k);
        launch(r, s, 2, kernel(1, 1000, 15625));
        launch(r, other, 3, kernel(1, 100000, 15625));
        struct lithos_model_event e;
        assert_true(next_event(r, &e));
        if ((e.kind == LITHOS_MODEL_DONE) != cases[i].runs)
            fail_msg("a cluster of %u on %s %s", cases[i].cluster, cases[i].tpcs,
                     cases[i].runs ? "hangs" : "runs");
        assert_int_equal(e.op, 1);
        if (cases[i].runs) {
            assert_int_equal(e.blocks, 4 * cases[i].cluster);
            expect(r, 2);
        } else {
            char text[256];
            assert_non_null(strstr(lithos_model_hang_text(&e, text, sizeof text), "hangs for ever"));
        }
        expect(r, 3); /* another stream is not in its way */
        expect_nothing(r);
        struct lithos_model_stats stats;
        lithos_model_context_destroy(r->m, r->now, c, &stats);
        assert_int_equal(stats.hangs, !cases[i].runs);
    }
}

static void test_clusters_lie_in_a_gpc(void **state)
{
    struct rig *r = *state;
    struct lithos_model_stream *s = stream(r, context(r, 1, 1), 0);
    for (uint32_t size = 2; size <= 16; size *= 2) {
        struct lithos_model_kernel k = kernel(size * 100, 10000, 250000);
        k.cluster_blocks = size;
        k.want_placement = true;
        launch(r, s, size, k);
        struct lithos_model_event e = expect(r, size);
        assert_non_null(e.placement);
        for (uint64_t first = 0; first < e.blocks; first += size) {
            unsigned bit = lithos_model_sm_tpc(r->m, e.placement[first]);
            uint32_t gpc = lithos_topology_gpc_of(&r->card.topology, bit);
            for (uint32_t i = 1; i < size; i++) {
                unsigned other = lithos_model_sm_tpc(r->m, e.placement[first + i]);
                assert_true(gpc != LITHOS_GPC_NONE ? lithos_topology_gpc_of(&r->card.topology, other) == gpc
                                                   : other == bit);
                for (uint32_t k2 = 0; k2 < i; k2++)
                    assert_int_not_equal(e.placement[first + i], e.placement[first + k2]);
            }
        }
        free(e.placement);
    }
    /* without a mask, 16-SM clusters reach 116 of the 132 SMs at most: 7 GPCs hold one each at a time */
    struct lithos_model_kernel k = kernel(16 * 8, 10000, 1000000);
    k.cluster_blocks = 16;
    k.threads = 1024;
    k.registers = 64; /* one block an SM */
    uint64_t sent = r->now;
    launch(r, s, 99, k);
    assert_int_equal(expect(r, 99).end_ns - sent, r->card.launch_ns + r->card.complete_ns + 20000);
}

static void test_turns(void **state)
{
    struct rig *r = *state;
    struct lithos_model_stream *a = stream(r, context(r, 1, 1), 0), *b = stream(r, context(r, 2, 2), 0);
    const uint64_t ms = LITHOS_NSEC_PER_MSEC;
    /* alone: no cost */
    launch(r, a, 1, kernel(132, 5 * ms, 250000));
    assert_int_equal(expect(r, 1).end_ns, 5 * ms + r->card.launch_ns + r->card.complete_ns);
    /* together: each as long as both, and the switches */
    uint64_t t = r->now;
    launch(r, a, 2, kernel(132, 20 * ms, 250000));
    launch(r, b, 3, kernel(132, 20 * ms, 250000));
    expect(r, 2);
    uint64_t end = expect(r, 3).end_ns - t;
    assert_in_range(end, 40 * ms, 44 * ms);
    /* a hung launch keeps its domain's turns */
    launch(r, a, 4, masked(kernel(1, 1000, 15625), "5"));
    struct lithos_model_event e;
    assert_true(next_event(r, &e) && e.kind == LITHOS_MODEL_HANG);
    t = r->now;
    launch(r, b, 5, kernel(132, 20 * ms, 250000));
    assert_true(expect(r, 5).end_ns - t > 30 * ms);
}

static void test_death(void **state)
{
    struct rig *r = *state;
    struct lithos_model_context *a = context(r, 1, 1), *b = context(r, 2, 1), *other = context(r, 3, 3);
    struct lithos_model_stream *sa = stream(r, a, 0), *sb = stream(r, b, 0), *so = stream(r, other, 0);
    const uint64_t second = LITHOS_NSEC_PER_SEC;
    for (unsigned i = 0; i < 10; i++)
        launch(r, sa, i, kernel(84480, second, 250000));
    assert_int_equal(lithos_model_copy(r->m, r->now, stream(r, a, 0), 20, LITHOS_COPY_H2D, 1ull << 40), 0);
    assert_int_equal(lithos_model_copy(r->m, r->now, sb, 21, LITHOS_COPY_H2D, 1000), 0);
    launch(r, sb, 22, kernel(132, 1000, 15625));
    launch(r, so, 23, kernel(132, 1000, 15625));
    r->now = second / 2;
    struct lithos_model_event e;
    while (lithos_model_advance(r->m, r->now, &e, 1))
        assert_int_equal(e.op, 23); /* the turn of the other domain came */
    struct lithos_model_stats stats;
    lithos_model_context_destroy(r->m, r->now, a, &stats);
    assert_int_equal(stats.blocks, 0);
    uint64_t t = r->now;
    expect(r, 21);
    assert_true(expect(r, 22).end_ns < t + 100000);
    expect_nothing(r);
    lithos_model_context_destroy(r->m, r->now, b, NULL);
    launch(r, so, 24, kernel(132, 1000, 15625));
    expect(r, 24);
}

static void test_thread_percentage(void **state)
{
    struct rig *r = *state;
    struct lithos_tpcset sets[2];
    struct lithos_model_stats stats;
    for (unsigned i = 0; i < 2; i++) {
        struct lithos_model_context_desc desc = {.owner = i, .domain = 1, .thread_percent = 50};
        struct lithos_model_context *c;
        assert_int_equal(lithos_model_context_create(r->m, &desc, &c), 0);
        launch(r, stream(r, c, 0), i, kernel(10000, 10000, 15625));
        expect(r, i);
        lithos_model_context_stats(c, &stats);
        sets[i] = stats.tpcs;
        assert_int_equal(lithos_tpcset_count(&sets[i]), 33);
    }
    struct lithos_tpcset both = lithos_tpcset_and(sets[0], sets[1]);
    assert_true(lithos_tpcset_empty(&both));
    struct lithos_model_context_desc bad = {.thread_percent = 101};
    struct lithos_model_context *c;
    assert_int_equal(lithos_model_context_create(r->m, &bad, &c), -EINVAL);
}

static void test_refusals(void **state)
{
    struct rig *r = *state;
    struct lithos_model_stream *s = stream(r, context(r, 1, 1), 0);
    struct lithos_model_kernel k = kernel(1, 1000, 1000);
    k.shared_bytes = 232449;
    assert_int_equal(lithos_model_launch(r->m, 0, s, 1, &k), -E2BIG);
    k = kernel(1, 1000, 1000);
    k.threads = 1024;
    k.registers = 65;
    assert_int_equal(lithos_model_launch(r->m, 0, s, 1, &k), -E2BIG);
    k = kernel(3, 1000, 1000);
    k.cluster_blocks = 2;
    assert_int_equal(lithos_model_launch(r->m, 0, s, 1, &k), -EINVAL);
    k = kernel(1, 1000, 1000);
    k.threads = 0;
    assert_int_equal(lithos_model_launch(r->m, 0, s, 1, &k), -EINVAL);
    expect_nothing(r);
    struct lithos_card card = r->card;
    card.sm_blocks = 0;
    struct lithos_model *m;
    assert_int_equal(lithos_model_create(&card, 1, &m), -EINVAL);
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1dull;
}

#define STORM_STREAMS 12

/* Random work and random deaths: every op that should end does, once, each stream in order; twice the same. */
static uint64_t storm(const struct lithos_card *card, uint64_t seed)
{
    struct rig r = {.card = *card};
    assert_int_equal(lithos_model_create(card, seed, &r.m), 0);
    struct lithos_model_context *contexts[4] = {0};
    struct lithos_model_stream *streams[STORM_STREAMS] = {0};
    uint64_t sent[STORM_STREAMS] = {0}, told[STORM_STREAMS] = {0}, random = seed * 2 + 1, hash = 0;
    for (unsigned step = 0; step < 3000; step++) {
        unsigned i = (unsigned)(next_random(&random) % STORM_STREAMS), c = i % 4;
        if (!contexts[c])
            contexts[c] = context(&r, c, c / 2);
        if (!streams[i])
            streams[i] = stream(&r, contexts[c], -(int)(i % 3));
        uint64_t op = (uint64_t)i << 32 | sent[i]++, what = next_random(&random) % 16;
        if (what < 10) {
            struct lithos_model_kernel k =
                kernel(next_random(&random) % 5000, next_random(&random) % 100000, 200000);
            k.cost.spread_ppm = 300000;
            if (what < 3) {
                k.cluster_blocks = 2u << what;
                k.blocks -= k.blocks % k.cluster_blocks;
            }
            if (what == 5)
                k = masked(k, "9-16,75");
            launch(&r, streams[i], op, k);
        } else if (what < 12) {
            assert_int_equal(
                lithos_model_copy(r.m, r.now, streams[i], op, what % 3, next_random(&random) % 1000000), 0);
        } else if (what < 15 || sent[i] < 2) {
            assert_int_equal(lithos_model_mark(r.m, r.now, streams[i], op), 0);
        } else {
            sent[i]--;
            uint64_t other = next_random(&random) % STORM_STREAMS;
            if (sent[other])
                assert_int_equal(lithos_model_wait(r.m, r.now, streams[i], other << 32 | (sent[other] - 1)),
                                 0);
        }
        if (next_random(&random) % 200 == 0) {
            lithos_model_context_destroy(r.m, r.now, contexts[c], NULL);
            contexts[c] = NULL;
            for (unsigned k = c; k < STORM_STREAMS; k += 4) {
                streams[k] = NULL;
                told[k] = sent[k];
            }
        }
        uint64_t until = r.now + next_random(&random) % 200000;
        for (;;) {
            struct lithos_model_event e;
            if (step == 2999 ? !next_event(&r, &e) : !lithos_model_advance(r.m, until, &e, 1))
                break;
            assert_int_equal(e.kind, LITHOS_MODEL_DONE);
            assert_int_equal(e.blocks_missed + e.blocks_twice, 0);
            assert_int_equal(e.op & UINT32_MAX, told[e.op >> 32]++);
            hash = (hash ^ e.op ^ e.end_ns) * 0x100000001b3ull;
        }
        r.now = LITHOS_MAX(r.now, until);
    }
    for (unsigned i = 0; i < STORM_STREAMS; i++)
        assert_int_equal(sent[i], told[i]);
    lithos_model_destroy(r.m);
    return hash;
}

static void test_storm(void **state)
{
    struct rig *r = *state;
    uint64_t first = storm(&r->card, 1);
    assert_int_equal(storm(&r->card, 1), first);
    assert_int_not_equal(storm(&r->card, 2), first);
}

/* Not a bar (the machine may be busy), but a fall by a factor of ten is a fault. */
static void test_speed(void **state)
{
    struct rig *r = *state;
    struct lithos_model_stream *s = stream(r, context(r, 1, 1), 0);
    struct lithos_model_kernel k = kernel(84480, 100000, 231000);
    k.cost.spread_ppm = 50000;
    uint64_t start = lithos_now_ns();
    for (unsigned i = 0; i < 20; i++)
        launch(r, s, i, k);
    for (unsigned i = 0; i < 20; i++) {
        struct lithos_model_event e;
        assert_int_equal(lithos_model_advance(r->m, (i + 1) * 16 * LITHOS_NSEC_PER_MSEC, &e, 1), 1);
    }
    double blocks_per_s = 20 * 84480 * 1e9 / (double)(lithos_now_ns() - start);
    printf("model: %.1f million blocks a second\n", blocks_per_s / 1e6);
    assert_true(blocks_per_s > 2e5);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_null_kernel),
        TEST(test_residency_and_waves),
        TEST(test_sharing_an_sm),
        TEST(test_masks_keep_apart),
        TEST(test_leftover_and_priority),
        TEST(test_streams_and_marks),
        TEST(test_hangs),
        TEST(test_clusters_lie_in_a_gpc),
        TEST(test_turns),
        TEST(test_death),
        TEST(test_thread_percentage),
        TEST(test_refusals),
        TEST(test_storm),
        TEST(test_speed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
