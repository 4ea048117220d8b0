/* The wave model by itself: who waits for whom. How near it is to a card: test_wave_calibration. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "model/card.h"
#include "model/wave.h"

#define US 1000ull
#define OPS 64

static struct lithos_card card;

struct stand {
    struct lithos_wave *w;
    struct lithos_wave_domain *d;
    uint64_t placed[OPS], ended[OPS]; /* blocks */
    struct lithos_tpcset where[OPS];
    uint64_t start[OPS], done[OPS], blocks[OPS]; /* done: 0 not yet */
    unsigned hung, events;
    uint64_t passed_ns, busy; /* as told while time passes: until when; load times ns */
    unsigned passes;
};

static void observe(void *ctx, const struct lithos_wave_placing *p)
{
    struct stand *s = ctx;
    if (p->ended) {
        s->ended[p->op] += p->blocks;
        return;
    }
    s->placed[p->op] += p->blocks;
    s->where[p->op] = lithos_tpcset_or(s->where[p->op], p->tpcs);
}

static void passes(void *ctx, uint64_t to_ns)
{
    struct stand *s = ctx;
    assert_true(to_ns >= s->passed_ns);
    s->busy += lithos_wave_load(s->w).busy_ppm * (to_ns - s->passed_ns);
    s->passed_ns = to_ns;
    s->passes++;
}

static struct stand *begin(bool bandwidth)
{
    static struct stand s;
    const struct lithos_wave_config config = {.card = &card,
                                              .node_gap_ns = 1000,
                                              .bandwidth = bandwidth,
                                              .observe = observe,
                                              .passes = passes,
                                              .ctx = &s};
    memset(&s, 0, sizeof s);
    assert_int_equal(lithos_wave_create(&config, &s.w), 0);
    s.d = lithos_wave_domain_create(s.w, 0);
    return &s;
}

static void run(struct stand *s, uint64_t until_ns)
{
    for (uint64_t now = 0; (now = lithos_wave_next_ns(s->w)) <= until_ns;) {
        struct lithos_wave_event e;
        while (lithos_wave_advance(s->w, now, &e, 1)) {
            s->events++;
            if (e.kind == LITHOS_WAVE_HANG) {
                s->hung++;
                continue;
            }
            assert_int_equal(s->done[e.op], 0);
            s->start[e.op] = e.start_ns;
            s->done[e.op] = e.end_ns;
            s->blocks[e.op] = e.blocks;
        }
    }
    (void)lithos_wave_advance(s->w, until_ns, NULL, 0);
}

static struct lithos_wave_kernel kernel(uint32_t blocks, uint64_t us, uint32_t residency)
{
    return (struct lithos_wave_kernel){.alone_ns = us * US,
                                       .blocks = blocks,
                                       .cluster_blocks = 1,
                                       .residency = residency,
                                       .share_ppm = LITHOS_WAVE_PPM / residency};
}

static struct lithos_wave_launch on(uint64_t op, const struct lithos_wave_kernel *k, const char *tpcs)
{
    struct lithos_wave_launch l = {.op = op, .kernels = k, .count = 1, .time_ppm = LITHOS_WAVE_PPM};
    l.tpcs = card.topology.valid;
    if (tpcs)
        assert_int_equal(lithos_tpcset_parse(tpcs, &l.tpcs), 0);
    return l;
}

static void launch(struct stand *s, uint64_t now, struct lithos_wave_stream *st,
                   const struct lithos_wave_launch *l)
{
    assert_int_equal(lithos_wave_launch(s->w, now, st, l), 0);
}

static uint64_t latency(void)
{
    return card.launch_ns + card.complete_ns;
}

static void test_waves_and_duration(void **state)
{
    (void)state;
    const uint32_t grids[] = {1, 131, 132, 133, 264, 265, 1000, 5000};
    for (unsigned i = 0; i < LITHOS_ARRAY_SIZE(grids); i++) {
        struct stand *s = begin(false);
        struct lithos_wave_stream *st = lithos_wave_stream_create(s->w, s->d, 0, s);
        const struct lithos_wave_kernel k = kernel(grids[i], 100, 2);
        const struct lithos_wave_launch l = on(1, &k, NULL);
        launch(s, 0, st, &l);
        run(s, LITHOS_NSEC_PER_SEC);
        assert_int_equal(s->done[1], latency() + lithos_wave_duration_ns(&card, &k, grids[i], 0, 66));
        assert_int_equal(s->blocks[1], grids[i]);
        assert_int_equal(s->placed[1], grids[i]);
        assert_int_equal(s->ended[1], grids[i]);
        assert_int_equal(lithos_wave_next_ns(s->w), LITHOS_WAVE_NEVER);
        lithos_wave_destroy(s->w);
    }
}

static void test_short_blocks_in_bundles_are_all_counted(void **state)
{
    (void)state;
    struct stand *s = begin(false);
    struct lithos_wave_stream *st = lithos_wave_stream_create(s->w, s->d, 0, s);
    const struct lithos_wave_kernel k = kernel(1000003, 1, 2);
    const struct lithos_wave_launch l = on(1, &k, NULL);
    launch(s, 0, st, &l);
    run(s, LITHOS_NSEC_PER_SEC);
    assert_int_equal(s->blocks[1], 1000003);
    assert_int_equal(s->placed[1], 1000003);
    assert_int_equal(s->ended[1], 1000003);
    const double exact = (double)lithos_wave_duration_ns(&card, &k, k.blocks, 0, 66);
    assert_true((double)s->done[1] > 0.99 * exact && (double)s->done[1] < 1.01 * exact);
    lithos_wave_destroy(s->w);
}

static void test_masks_part_the_card(void **state)
{
    (void)state;
    struct stand *s = begin(false);
    struct lithos_wave_stream *a = lithos_wave_stream_create(s->w, s->d, 0, s);
    struct lithos_wave_stream *b = lithos_wave_stream_create(s->w, s->d, 0, s);
    const struct lithos_wave_kernel k = kernel(32, 100, 1);
    const struct lithos_wave_launch la = on(1, &k, "9-16"), lb = on(2, &k, "18-25");
    launch(s, 0, a, &la);
    launch(s, 0, b, &lb);
    run(s, LITHOS_NSEC_PER_SEC);
    /* two waves each, neither in the other's way */
    assert_int_equal(s->done[1], latency() + 200 * US);
    assert_int_equal(s->done[2], latency() + 200 * US);
    assert_true(lithos_tpcset_equal(&s->where[1], &la.tpcs));
    assert_true(lithos_tpcset_equal(&s->where[2], &lb.tpcs));
    lithos_wave_destroy(s->w);
}

static void test_first_come_first_served_unless_more_urgent(void **state)
{
    (void)state;
    for (int rank = 0; rank >= -1; rank--) {
        struct stand *s = begin(false);
        struct lithos_wave_stream *be = lithos_wave_stream_create(s->w, s->d, 0, s);
        struct lithos_wave_stream *hp = lithos_wave_stream_create(s->w, s->d, rank, s);
        const struct lithos_wave_kernel longer = kernel(132 * 10, 100, 1), shorter = kernel(132, 10, 1);
        const struct lithos_wave_launch lb = on(1, &longer, NULL), lh = on(2, &shorter, NULL);
        launch(s, 0, be, &lb);
        run(s, 150 * US);
        launch(s, 150 * US, hp, &lh);
        run(s, LITHOS_NSEC_PER_SEC);
        if (rank == 0) /* behind all of it */
            assert_int_equal(s->done[2], latency() + 1010 * US);
        else /* behind the wave that runs */
            assert_int_equal(s->done[2], latency() + 210 * US);
        lithos_wave_destroy(s->w);
    }
}

static void test_blocks_that_share_an_sm_slow_down(void **state)
{
    (void)state;
    struct stand *s = begin(false);
    struct lithos_wave_stream *a = lithos_wave_stream_create(s->w, s->d, 0, s);
    struct lithos_wave_stream *b = lithos_wave_stream_create(s->w, s->d, 0, s);
    struct lithos_wave_kernel k = kernel(132, 100, 4);
    k.share_ppm = 750000;
    const struct lithos_wave_launch la = on(1, &k, NULL), lb = on(2, &k, NULL);
    launch(s, 0, a, &la);
    launch(s, 0, b, &lb);
    run(s, LITHOS_NSEC_PER_SEC);
    assert_in_range(s->done[1], latency() + 149 * US, latency() + 151 * US);
    assert_in_range(s->done[2], latency() + 149 * US, latency() + 151 * US);
    lithos_wave_destroy(s->w);
}

static void test_streams_are_in_order_and_graphs_within_a_launch(void **state)
{
    (void)state;
    struct stand *s = begin(false);
    struct lithos_wave_stream *st = lithos_wave_stream_create(s->w, s->d, 0, s);
    const struct lithos_wave_kernel nodes[3] = {kernel(132, 10, 1), kernel(264, 10, 1), kernel(1, 10, 1)};
    struct lithos_wave_launch graph = on(1, nodes, NULL);
    const struct lithos_wave_launch after = on(2, nodes, NULL);
    graph.count = 3;
    launch(s, 0, st, &graph);
    launch(s, 0, st, &after);
    run(s, LITHOS_NSEC_PER_SEC);
    assert_int_equal(s->done[1], latency() + 40 * US + 2 * 1000);
    assert_int_equal(s->blocks[1], 397);
    assert_int_equal(s->start[2], s->done[1]);
    lithos_wave_destroy(s->w);
}

static void test_chained_parts_leave_no_gap(void **state)
{
    (void)state;
    uint64_t took[2];
    for (int chained = 0; chained < 2; chained++) {
        struct stand *s = begin(false);
        struct lithos_wave_stream *st = lithos_wave_stream_create(s->w, s->d, 0, s);
        struct lithos_wave_kernel k = kernel(132 * 64, 100, 4);
        k.stagger_ppm = 500000;
        for (unsigned i = 0; i < 8; i++) {
            struct lithos_wave_launch l = on(i + 1, &k, NULL);
            l.blocks = 132 * 8;
            l.chained = chained && i > 0;
            launch(s, 0, st, &l);
        }
        run(s, LITHOS_NSEC_PER_SEC);
        for (unsigned i = 1; i <= 8; i++) {
            assert_int_equal(s->blocks[i], 132 * 8);
            assert_true(i == 1 || s->done[i] >= s->done[i - 1]);
        }
        took[chained] = s->done[8];
        lithos_wave_destroy(s->w);
    }
    assert_true(took[1] < 1700 * US);
    assert_true(took[0] > took[1] + took[1] / 10);
}

static void test_a_cap_keeps_blocks_few(void **state)
{
    (void)state;
    struct stand *s = begin(false);
    struct lithos_wave_stream *st = lithos_wave_stream_create(s->w, s->d, 0, s);
    struct lithos_wave_kernel k = kernel(132 * 8, 100, 8);
    k.share_ppm = 500000; /* two make an SM busy */
    struct lithos_wave_launch l = on(1, &k, NULL);
    l.residency = 2;
    launch(s, 0, st, &l);
    run(s, 50 * US);
    assert_int_equal(s->placed[1], 132 * 2);
    run(s, LITHOS_NSEC_PER_SEC);
    assert_int_equal(s->done[1], latency() + 400 * US);
    lithos_wave_destroy(s->w);
}

static void test_recall_takes_what_has_not_begun(void **state)
{
    (void)state;
    struct stand *s = begin(false);
    struct lithos_wave_stream *st = lithos_wave_stream_create(s->w, s->d, 0, s);
    struct lithos_wave_stream *other = lithos_wave_stream_create(s->w, s->d, 0, s);
    const struct lithos_wave_kernel k = kernel(132, 100, 1);
    for (unsigned op = 1; op <= 3; op++) {
        const struct lithos_wave_launch l = on(op, &k, NULL);
        launch(s, 0, st, &l);
    }
    run(s, 50 * US);
    assert_int_equal(lithos_wave_recall(s->w, 50 * US, st), 2);
    assert_int_equal(lithos_wave_recall(s->w, 50 * US, st), 0);
    /* at the card, but behind another's blocks */
    const struct lithos_wave_launch l = on(4, &k, NULL);
    launch(s, 50 * US, other, &l);
    run(s, 60 * US);
    assert_int_equal(lithos_wave_recall(s->w, 60 * US, other), 1);
    run(s, LITHOS_NSEC_PER_SEC);
    assert_int_equal(s->done[1], latency() + 100 * US);
    assert_int_equal(s->done[2] + s->done[3] + s->done[4], 0);
    const struct lithos_wave_launch again = on(5, &k, NULL);
    launch(s, LITHOS_NSEC_PER_SEC, st, &again);
    run(s, 2 * LITHOS_NSEC_PER_SEC);
    assert_int_equal(s->done[5], LITHOS_NSEC_PER_SEC + latency() + 100 * US);
    lithos_wave_destroy(s->w);
}

static void test_kill_frees_its_sms(void **state)
{
    (void)state;
    struct stand *s = begin(false);
    int killed, lives;
    struct lithos_wave_stream *a = lithos_wave_stream_create(s->w, s->d, 0, &killed);
    struct lithos_wave_stream *b = lithos_wave_stream_create(s->w, s->d, 0, &lives);
    const struct lithos_wave_kernel k = kernel(132 * 100, 1000, 1), one = kernel(132, 10, 1);
    const struct lithos_wave_launch la = on(1, &k, NULL), lb = on(2, &one, NULL);
    launch(s, 0, a, &la);
    launch(s, 0, a, &la);
    launch(s, 0, b, &lb);
    run(s, 500 * US);
    lithos_wave_stream_kill(s->w, 500 * US, a);
    run(s, LITHOS_NSEC_PER_SEC);
    assert_int_equal(s->done[1], 0);
    assert_int_equal(s->done[2], 510 * US + card.complete_ns);
    lithos_wave_destroy(s->w);
}

static void test_masks_that_hang(void **state)
{
    (void)state;
    struct stand *s = begin(false);
    struct lithos_wave_stream *a = lithos_wave_stream_create(s->w, s->d, 0, &s->hung);
    struct lithos_wave_stream *b = lithos_wave_stream_create(s->w, s->d, 0, s);
    struct lithos_wave_kernel k = kernel(132, 10, 1);
    const struct lithos_wave_launch nowhere = on(1, &k, "4-8"), fine = on(2, &k, NULL);
    k.cluster_blocks = 4;
    launch(s, 0, a, &nowhere);
    launch(s, 0, b, &fine);
    run(s, LITHOS_NSEC_PER_SEC);
    assert_int_equal(s->hung, 1);
    assert_true(s->done[2] > 0);
    lithos_wave_stream_kill(s->w, LITHOS_NSEC_PER_SEC, a);
    const struct lithos_wave_launch cramped = on(3, &k, "9,18,27");
    launch(s, LITHOS_NSEC_PER_SEC, b, &cramped);
    run(s, 2 * LITHOS_NSEC_PER_SEC);
    assert_int_equal(s->hung, 2);
    lithos_wave_destroy(s->w);
}

static void test_domains_take_turns(void **state)
{
    (void)state;
    struct stand *s = begin(false);
    struct lithos_wave_domain *brief = lithos_wave_domain_create(s->w, 1000);
    struct lithos_wave_stream *hp = lithos_wave_stream_create(s->w, s->d, 0, s);
    struct lithos_wave_stream *be = lithos_wave_stream_create(s->w, brief, 0, s);
    const struct lithos_wave_kernel longer = kernel(132, 5000, 1), shorter = kernel(132, 100, 1);
    const struct lithos_wave_launch lb = on(1, &longer, NULL), lh = on(2, &shorter, NULL);
    launch(s, 0, be, &lb);
    run(s, 1000 * US);
    launch(s, 1000 * US, hp, &lh);
    run(s, LITHOS_NSEC_PER_SEC);
    /* its turn is over within its slice; two switches later the other runs, and goes on where it was */
    const uint64_t switches = card.preempt_ns + card.restore_ns;
    assert_in_range(s->done[2], 1000 * US + latency() + switches + 100 * US,
                    1000 * US + latency() + switches + 103 * US);
    assert_in_range(s->done[1], 5000 * US + latency() + 100 * US + 2 * card.restore_ns,
                    5000 * US + latency() + 110 * US + 2 * card.restore_ns);
    lithos_wave_destroy(s->w);
}

static void test_memory_bandwidth_is_shared(void **state)
{
    (void)state;
    uint64_t took[2];
    for (int bandwidth = 0; bandwidth < 2; bandwidth++) {
        struct stand *s = begin(bandwidth);
        struct lithos_wave_stream *a = lithos_wave_stream_create(s->w, s->d, 0, s);
        struct lithos_wave_stream *b = lithos_wave_stream_create(s->w, s->d, 0, s);
        struct lithos_wave_kernel k = kernel(66, 100, 1);
        k.bandwidth_ppm = 750000; /* each, with 66 blocks */
        const struct lithos_wave_launch la = on(1, &k, "9-16,18-25,27-34,36-43,45"),
                                        lb = on(2, &k, "0-3,46-52,54-71,75,78,81,83");
        launch(s, 0, a, &la);
        launch(s, 0, b, &lb);
        run(s, LITHOS_NSEC_PER_SEC);
        took[bandwidth] = s->done[1] - latency();
        lithos_wave_destroy(s->w);
    }
    assert_int_equal(took[0], 100 * US);
    /* together one and a half times what there is; three quarters of their time is memory's */
    assert_in_range(took[1], 137 * US, 138 * US);
}

/* Neighbours of other lengths, on parts of the card that overlap, with memory to share. */
static struct stand *three_neighbours(void)
{
    static struct lithos_wave_kernel k[3];
    const char *const tpcs[3] = {NULL, "0-3,9-16", "9-16,18-25"};
    struct stand *s = begin(true);

    for (unsigned i = 0; i < 3; i++) {
        k[i] = kernel(700 + 300 * i, 50 + 30 * i, 2 + i);
        k[i].bandwidth_ppm = 700000;
        for (unsigned n = 0; n < 3; n++) {
            const struct lithos_wave_launch l = on(1 + 3 * i + n, &k[i], tpcs[i]);
            launch(s, 0, lithos_wave_stream_create(s->w, s->d, (int32_t)n, s), &l);
        }
    }
    return s;
}

static void test_time_passes_to_the_next_event(void **state)
{
    (void)state;
    const uint64_t end = 100 * LITHOS_NSEC_PER_MSEC;
    uint64_t done[OPS], busy = 0, at = 0, next;
    unsigned steps = 0;

    /* one by one */
    struct stand *s = three_neighbours();
    while ((next = lithos_wave_next_ns(s->w)) <= end) {
        busy += lithos_wave_load(s->w).busy_ppm * (next - at);
        at = next;
        run(s, next);
        steps++;
    }
    assert_int_equal(s->events, 9);
    assert_int_equal(s->passes, 0);
    memcpy(done, s->done, sizeof done);
    lithos_wave_destroy(s->w);

    s = three_neighbours();
    unsigned told = 0;
    for (uint64_t until = 0; until <= end; until += 100 * US) {
        while (lithos_wave_until(s->w, until, &at)) {
            struct lithos_wave_event e;
            assert_true(at <= until);
            assert_int_equal(at, s->passed_ns);
            assert_int_equal(lithos_wave_next_ns(s->w), at);
            for (; lithos_wave_advance(s->w, at, &e, 1); told++) {
                assert_int_equal(e.end_ns, at);
                assert_int_equal(e.end_ns, done[e.op]);
            }
        }
        assert_true(at <= until && lithos_wave_next_ns(s->w) > until);
    }
    assert_int_equal(told, 9);
    assert_int_equal(s->busy, busy);
    assert_true(busy > 0 && s->passes >= steps);
    lithos_wave_destroy(s->w);
}

static void test_refusals(void **state)
{
    (void)state;
    struct stand *s = begin(false);
    struct lithos_wave_stream *st = lithos_wave_stream_create(s->w, s->d, 0, s);
    struct lithos_wave_kernel k = kernel(132, 10, 1);
    struct lithos_wave_launch l = on(1, &k, NULL);
#define REFUSED(set, unset)                                             \
    do {                                                                \
        set;                                                            \
        assert_int_equal(lithos_wave_launch(s->w, 0, st, &l), -EINVAL); \
        unset;                                                          \
    } while (0)
    REFUSED(k.blocks = 0, k.blocks = 132);
    REFUSED(k.residency = 0, k.residency = 1);
    REFUSED(k.residency = 65, k.residency = 1);
    REFUSED(k.cluster_blocks = 5, k.cluster_blocks = 1);
    REFUSED(k.cluster_blocks = 33, k.cluster_blocks = 1);
    REFUSED(l.count = 0, l.count = 1);
    REFUSED(l.blocks = 133, l.blocks = 0);
    REFUSED(k.share_ppm = LITHOS_WAVE_PPM + 1, k.share_ppm = 1);
    launch(s, 0, st, &l);
    lithos_wave_destroy(s->w);
}

static int load(void **state)
{
    char error[LITHOS_MODEL_ERROR_BYTES];
    (void)state;
    return lithos_card_load(LITHOS_SOURCE_DIR "/src/model/cards/h200.json", &card, error);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_waves_and_duration),
        cmocka_unit_test(test_short_blocks_in_bundles_are_all_counted),
        cmocka_unit_test(test_masks_part_the_card),
        cmocka_unit_test(test_first_come_first_served_unless_more_urgent),
        cmocka_unit_test(test_blocks_that_share_an_sm_slow_down),
        cmocka_unit_test(test_streams_are_in_order_and_graphs_within_a_launch),
        cmocka_unit_test(test_chained_parts_leave_no_gap),
        cmocka_unit_test(test_a_cap_keeps_blocks_few),
        cmocka_unit_test(test_recall_takes_what_has_not_begun),
        cmocka_unit_test(test_kill_frees_its_sms),
        cmocka_unit_test(test_masks_that_hang),
        cmocka_unit_test(test_domains_take_turns),
        cmocka_unit_test(test_memory_bandwidth_is_shared),
        cmocka_unit_test(test_time_passes_to_the_next_event),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, load, NULL);
}
