/* The predictor, rule by rule. What it makes of whole programs: test_predict_workloads.c. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "core/predict.h"

#define STREAM 5u

static struct lithos_predict_config card(void)
{
    struct lithos_predict_config c = {
        .tpcs = 66,
        .sms_per_tpc = 2,
        .sm_threads = 2048,
        .sm_blocks = 32,
        .sm_registers = 65536,
        .sm_shared_bytes = 233472,
        .block_shared_reserved_bytes = 1024,
        .warp_register_unit = 256,
    };
    lithos_predict_config_defaults(&c);
    return c;
}

struct made {
    uint8_t *mem;
    struct lithos_predictor *p;
};

static struct made make(const struct lithos_predict_config *c)
{
    struct made m = {0};
    size_t bytes;
    assert_int_equal(lithos_predictor_size(c, &bytes), 0);
    m.mem = malloc(bytes);
    assert_non_null(m.mem);
    memset(m.mem, 0xa5, bytes);
    assert_int_equal(lithos_predictor_init(m.mem, bytes, c, &m.p), 0);
    return m;
}

static int setup(void **state)
{
    const struct lithos_predict_config c = card();
    struct made *m = malloc(sizeof(*m));
    *m = make(&c);
    *state = m;
    return 0;
}

static int teardown(void **state)
{
    struct made *m = *state;
    free(m->mem);
    free(m);
    return 0;
}

static struct lithos_predictor *predictor(void **state)
{
    return ((struct made *)*state)->p;
}

static struct lithos_kernel_shape kernel(uint64_t function, uint32_t blocks)
{
    return (struct lithos_kernel_shape){.function = function, .grid = {blocks, 1, 1}, .block = {256, 1, 1}};
}

static struct lithos_prediction launch_on(struct lithos_predictor *p, uint64_t stream,
                                          const struct lithos_kernel_shape *k, uint32_t tpcs,
                                          uint64_t duration_ns)
{
    struct lithos_predict_ticket ticket;
    struct lithos_prediction answer;
    lithos_predictor_submit(p, stream, k, tpcs, &answer, &ticket);
    assert_int_equal(lithos_predictor_observe(p, &ticket, duration_ns, tpcs), 0);
    return answer;
}

/* A request of this kernel alone: so that it has one ordinal, context and path. */
static struct lithos_prediction request(struct lithos_predictor *p, const struct lithos_kernel_shape *k,
                                        uint32_t tpcs, uint64_t duration_ns)
{
    lithos_predictor_sync(p, STREAM);
    return launch_on(p, STREAM, k, tpcs, duration_ns);
}

/* What it would be told, without telling it more. */
static struct lithos_prediction ask(struct lithos_predictor *p, const struct lithos_kernel_shape *k,
                                    uint32_t tpcs)
{
    struct lithos_predict_ticket ticket;
    struct lithos_prediction answer;
    lithos_predictor_sync(p, STREAM);
    lithos_predictor_submit(p, STREAM, k, tpcs, &answer, &ticket);
    return answer;
}

#define assert_near(value, expected)                                                 \
    assert_in_range((value), (uint64_t)(expected) - (uint64_t)(expected) / 1000 - 1, \
                    (uint64_t)(expected) + (uint64_t)(expected) / 1000 + 1)

static void memory_is_what_it_says(void **state)
{
    (void)state;
    struct lithos_predict_config c = card(), bad;
    struct lithos_predictor *p = NULL;
    size_t bytes = 7;

    c.ordinals = c.shapes = c.contexts = c.paths = c.functions = c.streams = 1; /* rounded up to 8 */
    assert_int_equal(lithos_predictor_size(&c, &bytes), 0);
    for (size_t shift = 0; shift < 64; shift += 9) {
        uint8_t *mem = malloc(bytes + 128);
        memset(mem, 0x5a, bytes + 128);
        assert_int_equal(lithos_predictor_init(mem + shift, bytes - 1, &c, &p), -ENOSPC);
        assert_int_equal(lithos_predictor_init(mem + shift, bytes, &c, &p), 0);
        for (uint64_t i = 0; i < 200; i++) {
            const struct lithos_kernel_shape k = kernel(i, (uint32_t)i);
            launch_on(p, i, &k, 66, 1000 * i);
        }
        for (size_t i = 0; i < shift; i++)
            assert_int_equal(mem[i], 0x5a);
        for (size_t i = shift + bytes; i < bytes + 128; i++)
            assert_int_equal(mem[i], 0x5a);
        free(mem);
    }
    const size_t fields[] = {
        offsetof(struct lithos_predict_config, tpcs),
        offsetof(struct lithos_predict_config, sms_per_tpc),
        offsetof(struct lithos_predict_config, sm_threads),
        offsetof(struct lithos_predict_config, sm_blocks),
        offsetof(struct lithos_predict_config, sm_registers),
        offsetof(struct lithos_predict_config, sm_shared_bytes),
        offsetof(struct lithos_predict_config, ordinals),
        offsetof(struct lithos_predict_config, shapes),
        offsetof(struct lithos_predict_config, contexts),
        offsetof(struct lithos_predict_config, paths),
        offsetof(struct lithos_predict_config, functions),
        offsetof(struct lithos_predict_config, streams),
        offsetof(struct lithos_predict_config, window),
        offsetof(struct lithos_predict_config, methods),
        offsetof(struct lithos_predict_config, context_depth),
        offsetof(struct lithos_predict_config, path_depth),
        offsetof(struct lithos_predict_config, warp_register_unit),
    };
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(fields); i++) {
        bad = card();
        memset((uint8_t *)&bad + fields[i], 0, sizeof(uint32_t));
        assert_int_equal(lithos_predictor_size(&bad, &bytes), -EINVAL);
        assert_int_equal(lithos_predictor_init(&bytes, sizeof(bytes), &bad, &p), -EINVAL);
    }
    bad = card();
    bad.window = LITHOS_PREDICT_WINDOW_MAX + 1;
    assert_int_equal(lithos_predictor_size(&bad, &bytes), -EINVAL);
    bad = card();
    bad.path_depth = LITHOS_PREDICT_PATH_MAX + 1;
    assert_int_equal(lithos_predictor_size(&bad, &bytes), -EINVAL);
    bad = card();
    bad.shapes = (1u << 20) + 1;
    assert_int_equal(lithos_predictor_size(&bad, &bytes), -EINVAL);
    bad = card();
    bad.methods = 1u << LITHOS_PREDICT_METHOD_MAX;
    assert_int_equal(lithos_predictor_size(&bad, &bytes), -EINVAL);
    bad = card();
    bad.tpcs = 65536;
    assert_int_equal(lithos_predictor_size(&bad, &bytes), -EINVAL);
}

static void median_of_the_last(void **state)
{
    struct lithos_predictor *p = predictor(state);
    const struct lithos_kernel_shape k = kernel(1, 1000);
    /* Not two in a row out of the band on one side that agree: no change. */
    static const uint64_t us[] = {100, 101, 300, 99, 500, 100, 30, 102, 250, 101};

    struct lithos_prediction a = ask(p, &k, 66);
    assert_int_equal(a.source, LITHOS_PREDICT_NONE);
    assert_int_equal(a.duration_ns, 0);
    assert_true(a.confidence == 0);
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(us); i++)
        request(p, &k, 66, us[i] * 1000);
    /* of the last 9: 30 99 100 101 101 102 250 300 500 */
    assert_near(ask(p, &k, 66).duration_ns, 101000);
    assert_int_equal(lithos_predictor_stats(p)->changes, 0);
    /* The first is forgotten, and so on: after nine of the same spread there is nothing else left. */
    for (unsigned i = 0; i < 9; i++)
        request(p, &k, 66, 101500);
    a = ask(p, &k, 66);
    assert_near(a.duration_ns, 101500);
}

static void confidence_grows_with_samples_and_falls_with_spread(void **state)
{
    struct lithos_predictor *p = predictor(state);
    const struct lithos_kernel_shape steady = kernel(1, 1000), wild = kernel(2, 1000), far = kernel(1, 50000);
    float before = 0;

    for (unsigned i = 0; i < 9; i++) {
        const float now = request(p, &steady, 66, 200000).confidence;
        assert_true(i == 0 ? now == 0 : now > before);
        before = now;
        request(p, &wild, 66, 100000 + 77777 * (i % 3));
    }
    assert_true(ask(p, &steady, 66).confidence > 0.85f);
    assert_true(ask(p, &wild, 66).confidence < 0.7f);
    assert_true(ask(p, &steady, 30).confidence < 0.7f);
    assert_true(ask(p, &far, 66).confidence < 0.5f);
    assert_true(ask(p, &far, 66).confidence > 0);
}

static void two_in_a_row_are_a_change(void **state)
{
    struct lithos_predictor *p = predictor(state);
    const struct lithos_kernel_shape k = kernel(1, 1000);
    const struct lithos_predict_stats *s = lithos_predictor_stats(p);

    for (unsigned i = 0; i < 9; i++)
        request(p, &k, 66, 100000);
    request(p, &k, 66, 300000);
    assert_near(ask(p, &k, 66).duration_ns, 100000); /* one is an outlier */
    request(p, &k, 66, 20000);                       /* the other side */
    assert_near(ask(p, &k, 66).duration_ns, 100000);
    request(p, &k, 66, 50000); /* the same side, but another time */
    assert_near(ask(p, &k, 66).duration_ns, 100000);
    assert_int_equal(s->changes, 0);
    request(p, &k, 66, 52000);
    assert_in_range(ask(p, &k, 66).duration_ns, 49900, 52100);
    assert_int_equal(s->changes, 4); /* ordinal, shape, context, path */
    /* And back. */
    request(p, &k, 66, 100000);
    assert_in_range(ask(p, &k, 66).duration_ns, 49900, 52100);
    request(p, &k, 66, 100000);
    assert_near(ask(p, &k, 66).duration_ns, 100000);
}

static void small_differences_are_no_change(void **state)
{
    struct lithos_predictor *p = predictor(state);
    const struct lithos_kernel_shape k = kernel(1, 1000);

    for (unsigned i = 0; i < 50; i++)
        request(p, &k, 66, i % 6 < 3 ? 10000 : 18000); /* 10 us are nothing */
    for (unsigned i = 0; i < 50; i++)
        request(p, &k, 66, i < 25 ? 18000 : 27000);
    assert_int_equal(lithos_predictor_stats(p)->changes, 0);
}

static void widths_make_a_line(void **state)
{
    struct lithos_predictor *p = predictor(state);
    const struct lithos_kernel_shape k = kernel(1, 100000);
    struct lithos_prediction a;
    /* l = 3.3 ms / t + 20 us */
    for (unsigned i = 0; i < 5; i++)
        request(p, &k, 66, 70000);
    a = ask(p, &k, 33);
    assert_int_equal(a.source, LITHOS_PREDICT_LINEAR);
    assert_near(a.duration_ns, 140000);
    const float linear = a.confidence;
    request(p, &k, 33, 120000);
    request(p, &k, 33, 120000);
    assert_int_equal(ask(p, &k, 22).source, LITHOS_PREDICT_LINEAR); /* two samples are not enough */
    request(p, &k, 33, 120000);
    a = ask(p, &k, 22);
    assert_int_equal(a.source, LITHOS_PREDICT_FITTED);
    assert_near(a.duration_ns, 170000);
    assert_true(a.confidence > linear);
    assert_near(ask(p, &k, 11).duration_ns, 320000);
    assert_near(ask(p, &k, 50).duration_ns, 86000);
    /* A median once it has been seen. */
    request(p, &k, 22, 200000);
    a = ask(p, &k, 22);
    assert_true(a.source != LITHOS_PREDICT_FITTED && a.source != LITHOS_PREDICT_LINEAR);
    assert_near(a.duration_ns, 200000);
    /* A change at one width moves the others with it. */
    for (unsigned i = 0; i < 2; i++)
        request(p, &k, 66, 140000);
    assert_near(ask(p, &k, 33).duration_ns, 240000);
}

static void lines_never_fall_below_zero(void **state)
{
    struct lithos_predictor *p = predictor(state);
    const struct lithos_kernel_shape slower = kernel(1, 100000), steep = kernel(2, 100000),
                                     nothing = kernel(3, 9999);

    for (unsigned i = 0; i < 4; i++) {
        request(p, &slower, 66, 200000); /* slower with more TPCs: taken as flat */
        request(p, &slower, 33, 100000);
        request(p, &steep, 66, 100000); /* more than linear: taken as linear, between the two */
        request(p, &steep, 33, 400000);
        request(p, &nothing, 66, 0);
        request(p, &nothing, 33, 0);
    }
    assert_near(ask(p, &slower, 11).duration_ns, 150000);
    assert_near(ask(p, &slower, 50).duration_ns, 150000);
    /* m = (1/66 * 100 + 1/33 * 400) / (1/66^2 + 1/33^2) = 11880 us */
    assert_near(ask(p, &steep, 22).duration_ns, 540000);
    assert_near(ask(p, &steep, 60).duration_ns, 198000);
    assert_int_equal(ask(p, &nothing, 22).duration_ns, 0);
}

static void what_a_grid_cannot_use_is_no_width(void **state)
{
    struct lithos_predictor *p = predictor(state);
    const struct lithos_kernel_shape k = kernel(1, 9); /* 9 SMs: 5 TPCs */
    struct lithos_prediction a;

    for (unsigned i = 0; i < 3; i++)
        request(p, &k, 66, 80000);
    a = ask(p, &k, 5);
    assert_near(a.duration_ns, 80000);
    assert_int_not_equal(a.source, LITHOS_PREDICT_LINEAR);
    a = ask(p, &k, 4);
    assert_int_equal(a.source, LITHOS_PREDICT_LINEAR);
    assert_near(a.duration_ns, 100000);
    /* 0 and too many are the whole card. */
    assert_near(ask(p, &k, 0).duration_ns, 80000);
    assert_near(ask(p, &k, UINT32_MAX).duration_ns, 80000);
}

static void many_widths_leave_a_line(void **state)
{
    struct lithos_predictor *p = predictor(state);
    const struct lithos_kernel_shape k = kernel(1, 100000);
    struct lithos_prediction a;

    for (unsigned i = 0; i < 400; i++) {
        const uint32_t t = 20 + i * 17 % 41;
        request(p, &k, t, 3300000 / t + 20000);
    }
    for (uint32_t t = 10; t <= 66; t++) {
        a = ask(p, &k, t);
        assert_in_range(a.duration_ns, 3300000 / t + 20000 - 2000, 3300000 / t + 20000 + 2000);
    }
}

static void unseen_grids_go_by_waves(void **state)
{
    struct lithos_predictor *p = predictor(state);
    struct lithos_kernel_shape seen = kernel(1, 132 * 8 * 10), unseen;
    struct lithos_prediction a;

    /* 256 threads: 8 blocks an SM, 1056 a wave; 10 waves of 10 us. */
    for (unsigned i = 0; i < 3; i++)
        request(p, &seen, 66, 100000);
    unseen = kernel(1, 1056 * 20);
    a = ask(p, &unseen, 66);
    assert_int_equal(a.source, LITHOS_PREDICT_WAVES);
    assert_near(a.duration_ns, 200000);
    unseen = kernel(1, 1056 * 20 + 1); /* a block more is a wave more */
    assert_near(ask(p, &unseen, 66).duration_ns, 210000);
    unseen = kernel(1, 1056 * 10);
    unseen.grid[1] = 2;
    assert_near(ask(p, &unseen, 33).duration_ns, 400000);
    unseen = kernel(1, 1);
    assert_near(ask(p, &unseen, 66).duration_ns, 10000);
    /* What an SM holds: threads, blocks, registers, shared memory. */
    unseen = kernel(1, 132 * 60);
    unseen.block[0] = 1024; /* 2 */
    assert_near(ask(p, &unseen, 66).duration_ns, 300000);
    unseen.block[0] = 1; /* 32 */
    assert_near(ask(p, &unseen, 66).duration_ns, 20000);
    unseen = kernel(1, 132 * 60);
    unseen.registers = 60; /* 1920 a warp, in pieces of 256: 2048; 8 warps: 4 */
    assert_near(ask(p, &unseen, 66).duration_ns, 150000);
    unseen.registers = 0;
    unseen.shared_bytes = 76 * 1024; /* and the kilobyte of the system: 2 */
    assert_near(ask(p, &unseen, 66).duration_ns, 300000);
    unseen.shared_bytes = UINT32_MAX; /* holds one if it ran at all */
    assert_near(ask(p, &unseen, 66).duration_ns, 600000);
    /* Another function is not known. */
    unseen = kernel(9, 1056 * 20);
    assert_int_equal(ask(p, &unseen, 66).source, LITHOS_PREDICT_NONE);
    /* Two grids make a line: 10 us a wave and 50 us. */
    struct lithos_kernel_shape small = kernel(2, 1056 * 2), large = kernel(2, 1056 * 64);
    for (unsigned i = 0; i < 3; i++) {
        request(p, &small, 66, 70000);
        request(p, &large, 66, 690000);
    }
    unseen = kernel(2, 1056 * 20);
    assert_near(ask(p, &unseen, 66).duration_ns, 250000);
}

static void ordinals_begin_at_a_sync(void **state)
{
    struct lithos_predictor *p = predictor(state);
    /* One shape, launched four times a request: the place alone tells them apart, for all have the shape in common
     * and the path as well, since the streams before them differ in nothing but the place. */
    const struct lithos_kernel_shape k = kernel(1, 1000);
    const struct lithos_predict_stats *s = lithos_predictor_stats(p);
    struct lithos_prediction a;

    for (unsigned i = 0; i < 10; i++) {
        for (unsigned n = 0; n < 4; n++) {
            a = launch_on(p, STREAM, &k, 66, 100000 * (n + 1));
            if (i >= 5)
                assert_near(a.duration_ns, 100000 * (n + 1));
        }
        if (i % 2)
            lithos_predictor_sync(p, STREAM);
        else
            lithos_predictor_sync_all(p);
    }
    const uint64_t off = s->method[LITHOS_PREDICT_BY_ORDINAL].off;
    assert_int_equal(off, 4); /* the first request only */
    /* The sync of another stream is not one of this. */
    for (unsigned i = 0; i < 10; i++) {
        for (unsigned n = 0; n < 4; n++)
            launch_on(p, STREAM, &k, 66, 100000 * (n + 1));
        lithos_predictor_sync(p, STREAM + 1);
    }
    assert_int_equal(s->method[LITHOS_PREDICT_BY_ORDINAL].off, off + 36);
    /* Another kernel at a place known well is not predicted from there. */
    lithos_predictor_sync_all(p);
    const struct lithos_kernel_shape other = kernel(2, 1000);
    a = launch_on(p, STREAM, &other, 66, 5000);
    assert_int_equal(a.source, LITHOS_PREDICT_NONE);
    assert_int_equal(s->method[LITHOS_PREDICT_BY_ORDINAL].silent, 4 + 36);
}

static void context_tells_what_the_shape_does_not(void **state)
{
    struct lithos_predictor *p = predictor(state);
    const struct lithos_kernel_shape gemm = kernel(1, 132), small = kernel(2, 100), large = kernel(2, 400);
    const struct lithos_predict_stats *s = lithos_predictor_stats(p);
    uint64_t off = 0;
    unsigned random = 1;

    for (unsigned i = 0; i < 400; i++) { /* no sync at all, and in no order */
        random = random * 1103515245 + 12345;
        const bool big = random >> 20 & 1;
        if (i == 50)
            off = s->chosen.off;
        launch_on(p, STREAM, big ? &large : &small, 66, big ? 40000 : 10000);
        const struct lithos_prediction a = launch_on(p, STREAM, &gemm, 66, big ? 800000 : 200000);
        if (i >= 50) {
            assert_int_equal(a.source, LITHOS_PREDICT_CONTEXT);
            assert_int_equal(a.method, LITHOS_PREDICT_BY_CONTEXT);
        }
    }
    assert_int_equal(s->chosen.off, off);
    assert_true(s->method[LITHOS_PREDICT_BY_SHAPE].off > 100);
    assert_int_equal(s->source_off[LITHOS_PREDICT_ORDINAL], 0);
}

static void only_methods_allowed_answer(void **state)
{
    (void)state;
    const struct lithos_kernel_shape k = kernel(1, 1000);

    for (unsigned m = 0; m < LITHOS_PREDICT_METHOD_MAX; m++) {
        struct lithos_predict_config c = card();
        c.methods = 1u << m;
        struct made made = make(&c);
        for (unsigned i = 0; i < 5; i++)
            request(made.p, &k, 66, 100000);
        const struct lithos_prediction a = ask(made.p, &k, 66);
        assert_int_equal(a.method, m);
        assert_near(a.duration_ns, 100000);
        free(made.mem);
    }
}

static void path_tells_what_the_context_does_not(void **state)
{
    struct lithos_predictor *p = predictor(state);
    const struct lithos_kernel_shape k = kernel(1, 1000), end = kernel(2, 1000);
    const struct lithos_predict_stats *s = lithos_predictor_stats(p);
    uint64_t off = 0;

    for (unsigned i = 0; i < 60; i++) {
        if (i == 20)
            off = s->chosen.off;
        for (unsigned n = 0; n < 20; n++)
            launch_on(p, STREAM, &k, 66, 50000 + 90000 * (n * 7 % 5));
        launch_on(p, STREAM, &end, 66, 5000);
    }
    assert_int_equal(s->chosen.off, off);
    assert_true(s->method[LITHOS_PREDICT_BY_CONTEXT].off > 300);
}

static void tables_are_bounded(void **state)
{
    (void)state;
    struct lithos_predict_config c = card();
    c.ordinals = c.shapes = c.contexts = c.paths = 16;
    c.functions = c.streams = 8;
    struct made m = make(&c);
    const struct lithos_predict_stats *s = lithos_predictor_stats(m.p);
    struct lithos_predict_ticket old;
    struct lithos_prediction a;
    struct lithos_kernel_shape k = kernel(1000, 5000);

    lithos_predictor_submit(m.p, STREAM, &k, 66, &a, &old);
    for (uint64_t i = 0; i < 1000; i++) {
        k = kernel(i, 500);
        launch_on(m.p, i % 20, &k, 66, 10000);
    }
    assert_int_equal(s->forgotten_functions, 1000 - 8 + 1);
    assert_true(s->forgotten > 3 * (1000 - 16));
    assert_true(s->forgotten_streams > 900);
    /* What comes late is for nobody, and what if it is asked of the forgotten is not known. */
    lithos_predictor_what_if(m.p, &old, 33, &a);
    assert_int_equal(a.source, LITHOS_PREDICT_NONE);
    assert_int_equal(lithos_predictor_observe(m.p, &old, 10000, 66), 0);
    assert_int_equal(s->late, LITHOS_PREDICT_METHOD_MAX);
    /* It learns still. */
    for (unsigned i = 0; i < 5; i++)
        a = request(m.p, &k, 66, 77000);
    assert_near(a.duration_ns, 77000);
    /* Places beyond the table have none, or a long run without a sync would turn out everything. */
    for (unsigned i = 0; i < 100; i++)
        launch_on(m.p, STREAM, &k, 66, 77000);
    assert_int_equal(s->past_ordinals, 100 - 15);
    free(m.mem);
}

static void what_if_changes_nothing(void **state)
{
    (void)state;
    struct lithos_predict_config c = card();
    c.ordinals = c.shapes = c.contexts = c.paths = c.functions = c.streams = 64;
    struct made m = make(&c);
    const struct lithos_kernel_shape k = kernel(1, 100000);
    struct lithos_predict_ticket ticket;
    struct lithos_prediction a, b;
    size_t bytes;

    for (unsigned i = 0; i < 5; i++) {
        request(m.p, &k, 66, 70000);
        request(m.p, &k, 33, 120000);
    }
    lithos_predictor_sync(m.p, STREAM);
    lithos_predictor_submit(m.p, STREAM, &k, 66, &a, &ticket);
    lithos_predictor_size(&c, &bytes);
    uint8_t *copy = malloc(bytes);
    memcpy(copy, m.mem, bytes);
    lithos_predictor_what_if(m.p, &ticket, 66, &b);
    assert_int_equal(a.duration_ns, b.duration_ns);
    assert_int_equal(a.source, b.source);
    lithos_predictor_what_if(m.p, &ticket, 22, &b);
    assert_near(b.duration_ns, 170000);
    assert_int_equal(b.source, LITHOS_PREDICT_FITTED);
    assert_memory_equal(copy, m.mem, bytes);
    free(copy);
    free(m.mem);
}

static void what_ran_elsewhere_is_learned_but_not_scored(void **state)
{
    struct lithos_predictor *p = predictor(state);
    const struct lithos_predict_stats *s = lithos_predictor_stats(p);
    const struct lithos_kernel_shape k = kernel(1, 100000);
    struct lithos_predict_ticket ticket;
    struct lithos_prediction a;

    lithos_predictor_submit(p, STREAM, &k, 66, &a, &ticket);
    assert_int_equal(lithos_predictor_observe(p, &ticket, 300000, 33), 0);
    assert_int_equal(s->other_width, 1);
    assert_int_equal(s->chosen.launches, 0);
    assert_near(ask(p, &k, 33).duration_ns, 300000);
    assert_near(ask(p, &k, 66).duration_ns, 150000);
}

static void any_value_is_taken(void **state)
{
    struct lithos_predictor *p = predictor(state);
    static const uint32_t values[] = {0, 1, 2, 31, 33, 1024, 65535, INT32_MAX, UINT32_MAX};
    static const uint64_t durations[] = {0, 1, 50000, LITHOS_PREDICT_DURATION_MAX_NS, 3, 999999999999ull};
    const size_t n = LITHOS_ARRAY_SIZE(values);
    struct lithos_predict_ticket ticket;
    struct lithos_prediction a;

    for (size_t i = 0; i < 20000; i++) {
        const struct lithos_kernel_shape k = {
            .function = i % 3 ? i % 3 : UINT64_MAX,
            .grid = {values[i % n], values[i / 3 % n], values[i / 5 % n]},
            .block = {values[i / 7 % n], values[i / 11 % n], values[i / 13 % n]},
            .shared_bytes = values[i / 17 % n],
            .registers = values[i / 19 % n],
            .cluster = values[i / 23 % n],
        };
        lithos_predictor_submit(p, values[i / 29 % n], &k, values[i / 2 % n], &a, &ticket);
        assert_true(a.confidence >= 0 && a.confidence <= 1);
        assert_true(a.duration_ns <= LITHOS_PREDICT_DURATION_MAX_NS);
        assert_int_equal(lithos_predictor_observe(p, &ticket, durations[i % LITHOS_ARRAY_SIZE(durations)],
                                                  values[i / 4 % n]),
                         0);
    }
    const uint64_t launches = lithos_predictor_stats(p)->chosen.launches;
    assert_int_equal(lithos_predictor_observe(p, &ticket, LITHOS_PREDICT_DURATION_MAX_NS + 1, 1), -ERANGE);
    assert_int_equal(lithos_predictor_observe(p, &ticket, UINT64_MAX, 1), -ERANGE);
    assert_int_equal(lithos_predictor_stats(p)->refused, 2);
    assert_int_equal(lithos_predictor_stats(p)->chosen.launches, launches);
}

static void two_are_two_and_the_same_is_the_same(void **state)
{
    (void)state;
    const struct lithos_predict_config c = card();
    struct made a = make(&c), b = make(&c), idle = make(&c);
    struct lithos_kernel_shape k;

    for (unsigned i = 0; i < 5000; i++) {
        k = kernel(i * 7 % 30, i * 13 % 50);
        const struct lithos_prediction x = launch_on(a.p, i % 3, &k, i % 66, 1000 * (i * 31 % 977));
        const struct lithos_prediction y = launch_on(b.p, i % 3, &k, i % 66, 1000 * (i * 31 % 977));
        assert_int_equal(x.duration_ns, y.duration_ns);
        assert_true(x.confidence == y.confidence && x.source == y.source && x.method == y.method);
    }
    assert_memory_equal(lithos_predictor_stats(a.p), lithos_predictor_stats(b.p),
                        sizeof(struct lithos_predict_stats));
    assert_int_equal(lithos_predictor_stats(idle.p)->submitted, 0);
    free(a.mem);
    free(b.mem);
    free(idle.mem);
}

static void quantiles_of_errors(void **state)
{
    struct lithos_predictor *p = predictor(state);
    const struct lithos_predict_stats *s = lithos_predictor_stats(p);
    const struct lithos_kernel_shape k = kernel(1, 1000);

    assert_int_equal(lithos_predict_error_quantile_ns(s->error, 0.99), 0);
    for (unsigned i = 0; i < 3; i++)
        request(p, &k, 66, 100000);
    for (unsigned i = 0; i < 196; i++)
        request(p, &k, 66, 100000);
    request(p, &k, 66, 170000);
    assert_int_equal(s->chosen.launches, 200);
    assert_int_equal(s->chosen.off, 2); /* the first, of which nothing was known, and the last */
    assert_int_equal(s->chosen.silent, 1);
    assert_int_equal(lithos_predict_error_quantile_ns(s->error, 0.5), 0);
    assert_int_equal(lithos_predict_error_quantile_ns(s->error, 0.99), 0);
    assert_in_range(lithos_predict_error_quantile_ns(s->error, 0.995), 70000, 70000 * 9 / 8);
    assert_in_range(lithos_predict_error_quantile_ns(s->error, 1), 100000, 100000 * 9 / 8);
    assert_in_range(lithos_predict_error_quantile_ns(s->error, 7), 100000, 100000 * 9 / 8);
    assert_int_equal(lithos_predict_error_quantile_ns(s->error, -1), 0);
}

static void sources_have_names(void **state)
{
    (void)state;
    for (unsigned i = 0; i < LITHOS_PREDICT_SOURCE_MAX; i++) {
        assert_non_null(lithos_predict_source_name((enum lithos_predict_source)i));
        for (unsigned k = 0; k < i; k++)
            assert_string_not_equal(lithos_predict_source_name((enum lithos_predict_source)i),
                                    lithos_predict_source_name((enum lithos_predict_source)k));
    }
    assert_string_equal(lithos_predict_source_name((enum lithos_predict_source)99), "unknown");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_what_it_says),
        TEST(median_of_the_last),
        TEST(confidence_grows_with_samples_and_falls_with_spread),
        TEST(two_in_a_row_are_a_change),
        TEST(small_differences_are_no_change),
        TEST(widths_make_a_line),
        TEST(lines_never_fall_below_zero),
        TEST(what_a_grid_cannot_use_is_no_width),
        TEST(many_widths_leave_a_line),
        TEST(unseen_grids_go_by_waves),
        TEST(ordinals_begin_at_a_sync),
        TEST(context_tells_what_the_shape_does_not),
        cmocka_unit_test(only_methods_allowed_answer),
        TEST(path_tells_what_the_context_does_not),
        cmocka_unit_test(tables_are_bounded),
        cmocka_unit_test(what_if_changes_nothing),
        TEST(what_ran_elsewhere_is_learned_but_not_scored),
        TEST(any_value_is_taken),
        cmocka_unit_test(two_are_two_and_the_same_is_the_same),
        TEST(quantiles_of_errors),
        cmocka_unit_test(sources_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
