/* Parts of kernels on the model: launches that overlap where they meet, blocks that end in the prelude. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/util.h"
#include "model/model.h"

struct rig {
    struct lithos_card card;
    struct lithos_model *m;
    struct lithos_model_context *c;
    struct lithos_model_stream *s;
    uint64_t now;
};

static int setup(void **state)
{
    struct rig *r = calloc(1, sizeof *r);
    char error[LITHOS_MODEL_ERROR_BYTES];
    const struct lithos_model_context_desc desc = {.owner = 1, .domain = 1};
    assert_int_equal(lithos_card_load(LITHOS_SOURCE_DIR "/src/model/cards/h200.json", &r->card, error), 0);
    assert_int_equal(lithos_model_create(&r->card, 7, &r->m), 0);
    assert_int_equal(lithos_model_context_create(r->m, &desc, &r->c), 0);
    assert_int_equal(lithos_model_stream_create(r->m, r->c, 0, &r->s), 0);
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

/* 16 blocks to an SM, of 100 us each alone and so 375 us with all. */
static struct lithos_model_kernel kernel(uint64_t blocks)
{
    return (struct lithos_model_kernel){
        .blocks = blocks,
        .cluster_blocks = 1,
        .threads = 128,
        .registers = 16,
        .cost = {.alone_ns = 100000, .share_ppm = 234375, .spread_ppm = 100000, .group = 1},
    };
}

static struct lithos_model_event next(struct rig *r)
{
    struct lithos_model_event e;
    while (!lithos_model_advance(r->m, r->now, &e, 1)) {
        uint64_t at = lithos_model_next_ns(r->m);
        assert_true(at != LITHOS_MODEL_NEVER);
        r->now = at;
    }
    assert_int_equal(e.kind, LITHOS_MODEL_DONE);
    assert_int_equal(e.blocks_missed + e.blocks_twice, 0);
    return e;
}

#define WAVE (132u * 16u)

/* `count` parts of a kernel of 40 waves; returns the time from the first launch to the last end. */
static uint64_t run_parts(struct rig *r, unsigned count, bool chained, bool exits)
{
    uint64_t begin = r->now, blocks = 40 * WAVE, last = 0;
    for (unsigned i = 0; i < count; i++) {
        uint64_t lo = blocks * i / count, hi = blocks * (i + 1) / count;
        struct lithos_model_kernel k = kernel(hi - lo);
        k.pre_exit = chained && i + 1 < count;
        k.overlap = chained && i;
        k.exits = exits ? lo : 0;
        assert_int_equal(lithos_model_launch(r->m, r->now, r->s, i + 1, &k), 0);
    }
    for (unsigned i = 0; i < count; i++) {
        struct lithos_model_event e = next(r);
        assert_int_equal(e.op, i + 1); /* told in order */
        assert_true(e.start_ns >= begin && e.end_ns <= r->now);
        last = LITHOS_MAX(last, e.end_ns);
    }
    return last - begin;
}

/* A row of plain parts drains at each cut, chained ones hardly cost anything: on the card 15.0 ms, 20.6 plain and 15.3 chained as 64,
 * 32.1 and 15.9 as 256 (docs/hardware.md, "Atoms"). */
static void chaining_pays(void **state)
{
    struct rig *r = *state;
    uint64_t whole = run_parts(r, 1, false, false);
    uint64_t plain = run_parts(r, 64, false, true), chained = run_parts(r, 64, true, true);
    assert_in_range(whole, 14000000, 16000000);
    assert_in_range(plain, whole * 105 / 100, whole * 150 / 100);
    assert_in_range(chained, whole, whole * 104 / 100);
}

/* What lets the next one in is that the last block was placed, not that it ended; and only with leave on both sides. */
static void overlap_needs_both(void **state)
{
    struct rig *r = *state;
    for (unsigned ways = 0; ways < 4; ways++) {
        struct lithos_model_kernel k = kernel(10), l = kernel(10);
        k.pre_exit = ways & 1;
        l.overlap = ways & 2;
        assert_int_equal(lithos_model_launch(r->m, r->now, r->s, 1, &k), 0);
        assert_int_equal(lithos_model_launch(r->m, r->now, r->s, 2, &l), 0);
        struct lithos_model_event first = next(r), second = next(r);
        if (ways == 3)
            assert_true(second.start_ns < first.start_ns + 10000);
        else
            assert_true(second.start_ns >= first.end_ns);
    }
}

/* A launch behind chained parts waits for all of them, also when an early one has a block that takes long. */
static void plain_waits_for_all(void **state)
{
    struct rig *r = *state;
    struct lithos_model_kernel slow = kernel(1), quick = kernel(1), last = kernel(1);
    slow.cost.alone_ns = 20000000;
    slow.pre_exit = quick.pre_exit = true;
    quick.overlap = true;
    struct lithos_model_kernel end = quick;
    end.pre_exit = false;
    assert_int_equal(lithos_model_launch(r->m, r->now, r->s, 1, &slow), 0);
    assert_int_equal(lithos_model_launch(r->m, r->now, r->s, 2, &quick), 0);
    assert_int_equal(lithos_model_launch(r->m, r->now, r->s, 3, &end), 0);
    assert_int_equal(lithos_model_launch(r->m, r->now, r->s, 4, &last), 0);
    assert_int_equal(lithos_model_mark(r->m, r->now, r->s, 5), 0);
    struct lithos_model_event e[5];
    for (int i = 0; i < 5; i++) {
        e[i] = next(r);
        assert_int_equal(e[i].op, i + 1);
    }
    assert_true(e[1].end_ns < e[0].end_ns &&
                e[2].end_ns < e[0].end_ns); /* when they were over, not when told */
    assert_true(e[3].start_ns >= e[0].end_ns);
    assert_true(e[4].end_ns >= e[3].end_ns);
}

static void exits_cost(void **state)
{
    struct rig *r = *state;
    struct lithos_model_kernel k = kernel(1), none = kernel(0);
    assert_int_equal(lithos_model_launch(r->m, r->now, r->s, 1, &k), 0);
    struct lithos_model_event e = next(r);
    uint64_t begin = r->now, without_ns = e.start_ns;
    k.exits = none.exits = 10000000;
    assert_int_equal(lithos_model_launch(r->m, r->now, r->s, 2, &k), 0);
    e = next(r);
    assert_int_equal(e.start_ns - begin, without_ns + 10000000ull * r->card.exit_ps / 1000);
    assert_int_equal(e.blocks, 1);
    begin = r->now;
    assert_int_equal(lithos_model_launch(r->m, r->now, r->s, 3, &none), 0); /* nothing is left of it */
    e = next(r);
    assert_int_equal(e.blocks, 0);
    assert_true(e.end_ns - begin >= 10000000ull * r->card.exit_ps / 1000);
}

/* The context goes in the middle of chained parts, some of which have run ahead. */
static void context_goes(void **state)
{
    struct rig *r = *state;
    struct lithos_model_context *c;
    struct lithos_model_stream *s;
    const struct lithos_model_context_desc desc = {.owner = 2, .domain = 2};
    assert_int_equal(lithos_model_context_create(r->m, &desc, &c), 0);
    assert_int_equal(lithos_model_stream_create(r->m, c, 0, &s), 0);
    for (unsigned i = 0; i < 20; i++) {
        struct lithos_model_kernel k = kernel(i ? 1 : 5);
        k.cost.alone_ns = i ? 1000 : 50000000;
        k.pre_exit = true;
        k.overlap = i;
        assert_int_equal(lithos_model_launch(r->m, r->now, s, i + 1, &k), 0);
    }
    struct lithos_model_event e;
    r->now += 3000000; /* the first one still runs, the others are over */
    assert_int_equal(lithos_model_advance(r->m, r->now, &e, 1), 0);
    lithos_model_context_destroy(r->m, r->now, c, NULL);
    assert_in_range(run_parts(r, 4, true, true), 14000000, 16000000);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(chaining_pays), TEST(overlap_needs_both), TEST(plain_waits_for_all),
        TEST(exits_cost),    TEST(context_goes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
