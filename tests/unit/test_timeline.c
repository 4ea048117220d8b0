/* The timeline against a card whose every kernel is known: made-up kernels run on made-up streams, their ends are
 * stamped by a clock that is off and drifts, and looked at late. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "core/timeline.h"

#define LAUNCHES_MAX 200000u
#define LATENCY_NS 4000u
#define HOST0 5000000000ull
#define GPU0 1700000000000000000ull /* a GPU counts from 1970 */

struct truth {
    uint64_t submit_ns, start_ns, end_ns; /* host's clock */
    uint32_t stream;
    bool lost, overlaps, seen;
};

struct world {
    void *mem;
    struct lithos_timeline *tl;
    uint64_t now_ns, random;
    double drift; /* GPU ns a host ns, less 1 */
    int64_t jump_ns;
    uint32_t count;
    struct truth *truth; /* by stamp */
    uint64_t stream_end_ns[64];
    double worst_ns, sum_ns;
    uint64_t events, flagged_wrong, unflagged, last_end_ns;
};

static uint64_t next_random(struct world *w)
{
    w->random = w->random * 6364136223846793005ull + 1442695040888963407ull;
    return w->random >> 33;
}

static uint64_t gpu_clock(const struct world *w, uint64_t host_ns)
{
    double since = (double)(host_ns - HOST0);
    return GPU0 + (uint64_t)w->jump_ns + (uint64_t)(since * (1 + w->drift));
}

static void begin_with(struct world *w, uint32_t drift_max_ppb, uint32_t launches, uint32_t streams)
{
    struct lithos_timeline_config c = {.launches = launches,
                                       .streams = streams,
                                       .operators = 8,
                                       .gpu_count = 1,
                                       .missing_ns = 20000000,
                                       .replay_ns = 2000000000};
    size_t bytes;
    c.gpu[0].tpcs = 66;
    c.gpu[0].launch_latency_ns = LATENCY_NS;
    c.gpu[0].drift_max_ppb = drift_max_ppb;
    *w = (struct world){.now_ns = HOST0, .random = 7};
    assert_int_equal(lithos_timeline_size(&c, &bytes), 0);
    w->mem = calloc(1, bytes);
    w->truth = calloc(LAUNCHES_MAX, sizeof *w->truth);
    assert_int_equal(lithos_timeline_init(w->mem, bytes - 1, &c, &w->tl), -ENOSPC);
    assert_int_equal(lithos_timeline_init(w->mem, bytes, &c, &w->tl), 0);
}

static void begin(struct world *w)
{
    begin_with(w, LITHOS_CLOCKMAP_DRIFT_MAX_PPB, 4096, 64);
}

static void finish(struct world *w)
{
    const struct lithos_timeline_stats *s = lithos_timeline_stats(w->tl);
    uint64_t sum = s->kernels + s->outstanding;
    for (int i = 0; i < LITHOS_LOST_MAX; i++)
        sum += s->lost[i];
    assert_int_equal(sum, s->launches); /* each launch ends in one place */
    assert_int_equal(s->gpu_outstanding[0], s->outstanding);
    free(w->mem);
    free(w->truth);
}

/* A kernel given to the card at submit_ns, which runs for duration_ns once its stream is free. */
static uint64_t launch(struct world *w, uint32_t stream, uint64_t submit_ns, uint64_t duration_ns)
{
    uint32_t stamp = ++w->count;
    struct truth *t = &w->truth[stamp];
    assert_true(stamp < LAUNCHES_MAX);
    *t = (struct truth){.submit_ns = submit_ns, .stream = stream};
    uint64_t latency_ns = (uint64_t)(LATENCY_NS / (1 + w->drift)); /* of the card's time */
    t->start_ns = LITHOS_MAX(submit_ns + latency_ns, w->stream_end_ns[stream]);
    t->end_ns = w->stream_end_ns[stream] = t->start_ns + duration_ns;
    struct lithos_timeline_launch l = {.process = 1,
                                       .stream = stream,
                                       .sequence = stamp,
                                       .stamp = stamp,
                                       .submit_ns = submit_ns,
                                       .function = 1 + stream,
                                       .tpc_count = 10};
    lithos_timeline_submit(w->tl, &l);
    return t->end_ns;
}

static int read_stamp(void *ctx, uint32_t process, uint64_t stamp, uint64_t *ret_gpu_ns,
                      uint64_t *ret_seen_ns)
{
    struct world *w = ctx;
    assert_int_equal(process, 1);
    if (w->truth[stamp].end_ns > w->now_ns || w->truth[stamp].lost)
        return 0;
    *ret_gpu_ns = gpu_clock(w, w->truth[stamp].end_ns);
    *ret_seen_ns = w->now_ns;
    return 1;
}

static void emitted(void *ctx, const struct lithos_kernel_event *e)
{
    struct world *w = ctx;
    struct truth *t = &w->truth[e->launch->sequence];
    bool flag = e->flags & LITHOS_KERNEL_OVERLAPPED;
    assert_false(t->seen);
    t->seen = true;
    assert_true(e->launch->submit_ns <= e->start_ns && e->start_ns <= e->end_ns && e->end_ns <= w->now_ns);
    double error = fabs((double)(e->end_ns - e->start_ns) - (double)(t->end_ns - t->start_ns));
    w->events++;
    w->sum_ns += error;
    w->worst_ns = LITHOS_MAX(w->worst_ns, error);
    w->flagged_wrong += flag && !t->overlaps;
    w->unflagged += !flag && t->overlaps;
}

static void poll_until(struct world *w, uint64_t until_ns)
{
    while (w->now_ns < until_ns) {
        w->now_ns += 900000 + next_random(w) % 300000;
        lithos_timeline_poll(w->tl, w->now_ns, read_stamp, emitted, w);
    }
}

static void forget_errors(struct world *w)
{
    w->worst_ns = w->sum_ns = 0;
    w->events = w->flagged_wrong = w->unflagged = 0;
}

/* ---- tests ---- */

/* A service: each kernel finds its stream idle, so that the clock's error is the duration's. */
static void drifting_clock(void **state)
{
    (void)state;
    static const double drifts[] = {0, 50e-6, -50e-6, 120e-6};
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(drifts); i++) {
        struct world w;
        begin(&w);
        w.drift = drifts[i];
        for (int k = 0; k < 20000; k++) { /* 20 s */
            uint64_t submit_ns = HOST0 + (uint64_t)k * 1000000 + next_random(&w) % 500000;
            launch(&w, 1, submit_ns, 98000);
            poll_until(&w, submit_ns); /* at times that have nothing to do with the launches */
            if (k == 3000)
                forget_errors(&w);
        }
        poll_until(&w, w.now_ns + 10000000);
        assert_true(w.events >= 16998);
        assert_true(w.sum_ns / (double)w.events < 2000);
        assert_true(w.worst_ns < 9800); /* a tenth */
        uint64_t bound = lithos_clockmap_bound_ns(lithos_timeline_clock(w.tl, 0));
        assert_true(bound >= 98000 &&
                    bound < 130000); /* the kernel and its launch: no end is nearer to a submission */
        int64_t drift = lithos_clockmap_drift_ppb(lithos_timeline_clock(w.tl, 0));
        assert_true(fabs((double)drift + w.drift * 1e9) < 5000);
        assert_true(llabs((long long)lithos_timeline_quantile_ns(w.tl, 0.5) - 98000) < 4000);
        finish(&w);
    }
}

/* Back to back: durations are differences of the GPU's own clock, whatever the mapping. */
static void back_to_back(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    w.drift = 50e-6;
    uint64_t end_ns = HOST0;
    for (int k = 0; k < 20000; k++) {
        uint64_t submit_ns = LITHOS_MAX(w.now_ns, HOST0 + 1);
        end_ns = launch(&w, 1, submit_ns, 5000 + next_random(&w) % 200000);
        if (end_ns > w.now_ns + 2000000)
            poll_until(&w, end_ns - 1500000);
        if (k == 1000)
            forget_errors(&w);
    }
    poll_until(&w, end_ns + 2000000);
    assert_true(w.sum_ns / (double)w.events < 200);
    assert_int_equal(lithos_timeline_stats(w.tl)->kernels, 20000);
    assert_int_equal(lithos_timeline_stats(w.tl)->overlapped, 0);
    const struct lithos_timeline_operator *op = lithos_timeline_operator(w.tl, 0);
    assert_int_equal(op->kernels, 20000);
    assert_int_equal(op->tpc_ns, 10 * op->total_ns);
    struct lithos_timeline_rates r = lithos_timeline_rates(w.tl, end_ns);
    assert_true(r.busy_tpcs > 9.7 && r.busy_tpcs < 10.01);
    finish(&w);
}

/* Empty kernels at random: submissions and sights leave little room between them, and the line stays in it. */
static void short_kernels(void **state)
{
    (void)state;
    struct world w;
    begin_with(&w, 0, 4096, 64);
    w.drift = 30e-6;
    uint64_t submit_ns = HOST0;
    for (int k = 0; k < 100000; k++) {
        submit_ns += 30000 + next_random(&w) % 120000;
        launch(&w, 1 + k % 4, submit_ns, 3000);
        poll_until(&w, submit_ns - 3000000); /* so that all that runs at a look has been given in */
        if (k == 20000)
            forget_errors(&w);
    }
    poll_until(&w, w.now_ns + 10000000);
    const struct lithos_clockmap *m = lithos_timeline_clock(w.tl, 0);
    assert_true(lithos_clockmap_bound_ns(m) > 1000 && lithos_clockmap_bound_ns(m) < 20000);
    assert_true(fabs((double)lithos_clockmap_drift_ppb(m) + 30000) < 5000);
    assert_true(w.sum_ns / (double)w.events < 2000);
    finish(&w);
}

/* Two streams: kernels that run at the same time are flagged, kernels in turns are not. */
static void streams_overlap(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    for (int k = 0; k < 2000; k++) {
        uint64_t at_ns = HOST0 + (uint64_t)k * 3000000;
        poll_until(&w, at_ns);
        at_ns = w.now_ns;
        bool together = k % 2;
        launch(&w, 1, at_ns, 300000);
        launch(&w, 2, at_ns + (together ? 100000 : 600000), 300000);
        launch(&w, 1, at_ns + 1500000, 300000); /* after both */
        if (together)
            w.truth[w.count - 1].overlaps = w.truth[w.count - 2].overlaps = true;
        poll_until(&w, at_ns + 2500000);
        if (k == 200)
            forget_errors(&w);
    }
    poll_until(&w, w.now_ns + 10000000);
    assert_true(w.events > 5300);
    assert_int_equal(w.unflagged, 0);
    assert_int_equal(w.flagged_wrong, 0);
    finish(&w);
}

/* Stamps that never come are counted, and hold nobody up. */
static void lost_stamps(void **state)
{
    (void)state;
    struct world w;
    begin(&w);
    uint32_t lost = 0;
    for (int k = 0; k < 5000; k++) {
        poll_until(&w, HOST0 + (uint64_t)k * 200000);
        launch(&w, 1 + k % 3, w.now_ns, 50000);
        if (k % 97 == 5) {
            w.truth[w.count].lost = true;
            lost++;
        }
    }
    struct lithos_timeline_launch l = {
        .process = 1, .stream = 1, .submit_ns = w.now_ns, .lost = LITHOS_LOST_TAKEN};
    assert_false(lithos_timeline_submit(w.tl, &l));
    poll_until(&w, w.now_ns + 100000000);
    const struct lithos_timeline_stats *s = lithos_timeline_stats(w.tl);
    assert_int_equal(s->lost[LITHOS_LOST_MISSING], lost);
    assert_int_equal(s->lost[LITHOS_LOST_TAKEN], 1);
    assert_int_equal(s->kernels, 5000 - lost);
    launch(&w, 1, w.now_ns, 1000000000);
    launch(&w, 7, w.now_ns, 1000000000);
    lithos_timeline_forget(w.tl, 2);
    assert_int_equal(s->lost[LITHOS_LOST_DIED], 0);
    lithos_timeline_forget(w.tl, 1);
    assert_int_equal(s->lost[LITHOS_LOST_DIED], 2);
    assert_int_equal(s->outstanding, 0);
    finish(&w);
}

/* More than it takes: counted, and what is in it comes out all the same. */
static void no_room(void **state)
{
    (void)state;
    struct world w;
    begin_with(&w, LITHOS_CLOCKMAP_DRIFT_MAX_PPB, 100, 4);
    for (uint32_t k = 0; k < 150; k++)
        launch(&w, 1 + k % 6, HOST0 + k, 1000);
    const struct lithos_timeline_stats *s = lithos_timeline_stats(w.tl);
    assert_int_equal(s->lost[LITHOS_LOST_NO_ROOM], 50);
    poll_until(&w, HOST0 + 5000000);
    assert_int_equal(s->kernels, 100);
    launch(&w, 60, w.now_ns, 1000); /* an idle stream made room */
    poll_until(&w, w.now_ns + 5000000);
    assert_int_equal(s->kernels, 101);
    finish(&w);
}

/* The GPU's clock jumps, both ways: noticed, and right again soon after. */
static void clock_jumps(void **state)
{
    (void)state;
    static const int64_t jumps[] = {3600000000000, -7000000000};
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(jumps); i++) {
        struct world w;
        begin(&w);
        for (int k = 0; k < 8000; k++) {
            uint64_t submit_ns = HOST0 + (uint64_t)k * 1000000 + next_random(&w) % 500000;
            if (k == 4000) {
                poll_until(&w, submit_ns);
                w.jump_ns = jumps[i];
            }
            launch(&w, 1, submit_ns, 98000);
            poll_until(&w, submit_ns);
            if (k == 5000)
                forget_errors(&w);
        }
        poll_until(&w, w.now_ns + 10000000);
        assert_int_equal(lithos_timeline_stats(w.tl)->clock_jumps, 1);
        assert_true(w.sum_ns / (double)w.events < 4000);
        finish(&w);
    }
}

/* A virtual GPU's time runs slower than the host's: the rate is found too. */
static void slow_card(void **state)
{
    (void)state;
    struct world w;
    begin_with(&w, 0, 4096, 64);
    w.drift = 1.0 / 20 - 1;
    for (int k = 0; k < 3000; k++) {
        uint64_t submit_ns = HOST0 + (uint64_t)k * 4000000 + next_random(&w) % 500000;
        poll_until(&w, submit_ns);
        launch(&w, 1, submit_ns, 1960000);
        if (k == 500)
            forget_errors(&w);
    }
    poll_until(&w, w.now_ns + 10000000);
    assert_true(w.events > 2400);
    assert_true(w.sum_ns / (double)w.events < 40000);
    assert_true(fabs((double)lithos_timeline_quantile_ns(w.tl, 0.5) - 1960000) < 196000);
    finish(&w);
}

/* A graph's node keeps one stamp: a later time in it is a new end; one overtaken by the next replay is counted. */
struct node {
    uint64_t stamp_ns, before_end_ns;
    unsigned ends;
    struct lithos_kernel_event last;
};

static int read_node(void *ctx, uint32_t process, uint64_t stamp, uint64_t *ret_gpu_ns, uint64_t *ret_seen_ns)
{
    (void)process, (void)ret_seen_ns; /* as it is: the time of the call */
    assert_int_equal(stamp, 77);
    *ret_gpu_ns = ((struct node *)ctx)->stamp_ns;
    return 1;
}

static void node_ended(void *ctx, const struct lithos_kernel_event *e)
{
    struct node *n = ctx;
    assert_true(e->flags & LITHOS_KERNEL_GRAPH_NODE);
    n->before_end_ns = e->gpu_end_ns;
    n->ends++;
    n->last = *e;
}

static struct lithos_timeline_launch replay_of(const struct node *n, uint64_t sequence)
{
    return (struct lithos_timeline_launch){.process = 1,
                                           .stream = 1,
                                           .sequence = sequence,
                                           .stamp = 77,
                                           .submit_ns = HOST0,
                                           .flags = LITHOS_KERNEL_GRAPH_NODE,
                                           .before_end_ns = &n->before_end_ns};
}

static unsigned poll_node(struct world *w, struct node *n, uint64_t since_ns)
{
    return lithos_timeline_poll(w->tl, HOST0 + since_ns, read_node, node_ended, n);
}

static void graph_replays(void **state)
{
    (void)state;
    struct world w;
    struct node n = {.stamp_ns = 1000, .before_end_ns = 1000};
    begin(&w);
    struct lithos_timeline_launch l = replay_of(&n, 1);
    assert_true(lithos_timeline_submit(w.tl, &l));
    assert_int_equal(poll_node(&w, &n, 100), 0);
    n.stamp_ns = 2000;
    /* submitted again before it was looked at */
    assert_true(lithos_timeline_submit(w.tl, &l));
    assert_int_equal(poll_node(&w, &n, 200), 1);
    assert_int_equal(poll_node(&w, &n, 3000000000), 0);
    assert_int_equal(lithos_timeline_stats(w.tl)->lost[LITHOS_LOST_REPLAY], 1);
    /* the GPU's clock was set back: what it shows then is new all the same */
    l.submit_ns += 3000000000;
    n.stamp_ns = n.before_end_ns = 60000000000;
    assert_true(lithos_timeline_submit(w.tl, &l));
    assert_int_equal(poll_node(&w, &n, 3000000100), 0);
    n.stamp_ns = 1000;
    assert_int_equal(poll_node(&w, &n, 3000000200), 1);
    finish(&w);
}

/* A replay's end was read too late, as that of the next one: that one shows no other, and is known to have ended once the program has waited for
 * its stream. */
static void replay_waited_for(void **state)
{
    (void)state;
    struct world w;
    struct node n = {.stamp_ns = 2000,
                     .before_end_ns = 1000}; /* of the second replay: the first one's is gone */
    const struct lithos_timeline_stats *s;
    begin(&w);
    s = lithos_timeline_stats(w.tl);
    struct lithos_timeline_launch l = replay_of(&n, 5);
    assert_true(lithos_timeline_submit(w.tl, &l));
    l.sequence = 6;
    assert_true(lithos_timeline_submit(w.tl, &l));
    assert_int_equal(poll_node(&w, &n, 100), 1);
    assert_int_equal(s->outstanding, 1);
    /* waits of another process, for another stream, and from before the second launch, tell nothing of it */
    lithos_timeline_waited(w.tl, 2, 1, false, 9, HOST0 + 200, HOST0 + 200);
    lithos_timeline_waited(w.tl, 1, 2, false, 9, HOST0 + 200, HOST0 + 200);
    lithos_timeline_waited(w.tl, 1, 1, false, 6, HOST0 + 200, HOST0 + 200);
    assert_int_equal(poll_node(&w, &n, 1000000), 0);
    assert_int_equal(s->outstanding, 1);
    /* this one does, once its stamp would be seen */
    lithos_timeline_waited(w.tl, 1, 1, false, 7, HOST0 + 1000000, HOST0 + 1000000);
    assert_int_equal(poll_node(&w, &n, 1001000), 0);
    assert_int_equal(s->outstanding, 1);
    assert_int_equal(poll_node(&w, &n, 1200000), 0);
    assert_int_equal(s->outstanding, 0);
    assert_int_equal(s->lost[LITHOS_LOST_REPLAY], 1);
    /* and the next replay is seen to end at its own end */
    l.sequence = 8;
    assert_true(lithos_timeline_submit(w.tl, &l));
    lithos_timeline_waited(w.tl, 1, 99, true, 9, HOST0 + 2000000, HOST0 + 2000000);
    n.stamp_ns = 3000;
    assert_int_equal(poll_node(&w, &n, 2200000), 1);
    assert_int_equal(s->lost[LITHOS_LOST_REPLAY], 1);
    finish(&w);
}

/* Where the clock is known, an end after the program's wait for it is not taken for the replay's: it is the next one's, and that one has it. More
 * waits than are kept: the earliest ones bound what came first, and the last one all the others. */
static void replay_overtaken(void **state)
{
    (void)state;
    enum { REPLAYS = 40, PERIOD_NS = 1000000, TAKES_NS = 800000 };
    struct world w;
    struct node n = {0};
    uint64_t first_ns = 3000000000ull, sequence = 1;
    const struct lithos_timeline_stats *s;
    begin(&w);
    s = lithos_timeline_stats(w.tl);
    /* each is looked at in time, which is how the clock becomes known */
    for (uint64_t at_ns = 0; at_ns < first_ns; at_ns += PERIOD_NS, sequence++) {
        struct lithos_timeline_launch l = replay_of(&n, sequence);
        l.submit_ns += at_ns;
        assert_true(lithos_timeline_submit(w.tl, &l));
        n.stamp_ns = gpu_clock(&w, l.submit_ns + TAKES_NS);
        assert_int_equal(poll_node(&w, &n, at_ns + TAKES_NS + 1000), 1);
    }
    const uint64_t seen = n.ends;
    assert_int_equal(s->lost[LITHOS_LOST_REPLAY], 0);
    /* nobody looks while these come and go */
    uint64_t begin_ns = 0;
    for (unsigned i = 0; i < REPLAYS; i++, sequence++) {
        struct lithos_timeline_launch l = replay_of(&n, sequence);
        begin_ns = first_ns + (uint64_t)i * PERIOD_NS;
        l.submit_ns += begin_ns;
        assert_true(lithos_timeline_submit(w.tl, &l));
        n.stamp_ns = gpu_clock(&w, l.submit_ns + TAKES_NS);
        lithos_timeline_waited(w.tl, 1, 1, false, sequence + 1, l.submit_ns + TAKES_NS + 5000,
                               HOST0 + first_ns + (uint64_t)REPLAYS * PERIOD_NS);
    }
    poll_node(&w, &n, first_ns + (uint64_t)REPLAYS * PERIOD_NS);
    poll_node(&w, &n, first_ns + (uint64_t)(REPLAYS + 1) * PERIOD_NS);
    assert_int_equal(s->outstanding, 0);
    assert_int_equal(n.ends, seen + 1);
    assert_int_equal(s->lost[LITHOS_LOST_REPLAY], REPLAYS - 1);
    const uint64_t end_ns = HOST0 + begin_ns + TAKES_NS;
    assert_true(n.last.end_ns >= end_ns - 2000 && n.last.end_ns <= end_ns + 2000);
    assert_true(n.last.launch->sequence >=
                sequence - REPLAYS + 15); /* not the first: its wait was over long before */
    finish(&w);
}

/* A replay that came in as one: as many kernels as it has, one launch, the time that they took; and one kernel that stands for several. */
static void replay_as_one(void **state)
{
    (void)state;
    struct world w;
    struct node n = {0};
    begin(&w);
    const struct lithos_timeline_stats *s = lithos_timeline_stats(w.tl);
    struct lithos_timeline_launch l = replay_of(&n, 1);
    l.kernels = 231;
    l.busy_ppm = 750000;
    l.tpc_count = 10;
    assert_true(lithos_timeline_submit(w.tl, &l));
    assert_int_equal(s->launches, 231);
    assert_int_equal(s->outstanding, 231);
    assert_int_equal(s->gpu_outstanding[0], 1);
    n.stamp_ns = 1000;
    assert_int_equal(poll_node(&w, &n, 1004000), 1);
    assert_int_equal(s->kernels, 231);
    assert_int_equal(s->outstanding, 0);
    assert_int_equal(s->gpu_outstanding[0], 0);
    assert_int_equal(n.last.end_ns - n.last.start_ns, 1000000);
    assert_int_equal(n.last.busy_ns, 750000);
    assert_int_equal(s->tpc_ns, 7500000);
    assert_null(lithos_timeline_operator(w.tl, 0)); /* it says nothing of any of them */
    /* lost as one */
    l.sequence = 2;
    assert_true(lithos_timeline_submit(w.tl, &l));
    lithos_timeline_forget(w.tl, 1);
    assert_int_equal(s->lost[LITHOS_LOST_DIED], 231);
    /* a kernel of a replay after nine that came in as one */
    l = replay_of(&n, 3);
    l.submit_ns += 2000000;
    l.weight = 10;
    assert_true(lithos_timeline_submit(w.tl, &l));
    n.stamp_ns = 2000;
    assert_int_equal(poll_node(&w, &n, 2014000), 1);
    assert_int_equal(s->kernels, 232);
    assert_int_equal(lithos_timeline_operator(w.tl, 0)->kernels, 10);
    assert_int_equal(lithos_timeline_operator(w.tl, 0)->durations.count, 10);
    assert_int_equal(lithos_timeline_operator(w.tl, 0)->total_ns, 10 * n.last.busy_ns);
    finish(&w);
}

static void refused_configs(void **state)
{
    (void)state;
    struct lithos_timeline_config c = {.launches = 1, .streams = 1, .operators = 1, .gpu_count = 1};
    size_t bytes;
    assert_int_equal(lithos_timeline_size(&c, &bytes), 0);
    c.gpu_count = 17;
    assert_int_equal(lithos_timeline_size(&c, &bytes), -EINVAL);
    c.gpu_count = 1;
    c.launches = 0;
    assert_int_equal(lithos_timeline_size(&c, &bytes), -EINVAL);
    c.launches = UINT32_MAX;
    assert_int_equal(lithos_timeline_size(&c, &bytes), -EINVAL);
}

/* Whatever a tenant writes: no crash, and start and end stay within submission and sight (emitted checks). */
static uint64_t wild_state;

static uint64_t wild(void)
{
    wild_state = wild_state * 6364136223846793005ull + 1442695040888963407ull;
    uint64_t v = wild_state ^ wild_state >> 29;
    return v % 5 == 0 ? 0 : v % 5 == 1 ? UINT64_MAX - v % 7 : v % 5 == 2 ? v % 1000 : v;
}

static int read_wild(void *ctx, uint32_t process, uint64_t stamp, uint64_t *ret_gpu_ns, uint64_t *ret_seen_ns)
{
    (void)ctx, (void)process, (void)stamp, (void)ret_seen_ns;
    *ret_gpu_ns = wild();
    return (int)(wild() % 3) == 0 ? -ESTALE : (int)(wild() % 2);
}

static void emit_wild(void *ctx, const struct lithos_kernel_event *e)
{
    uint64_t now_ns = *(uint64_t *)ctx;
    assert_true(e->start_ns <= e->end_ns && (e->end_ns <= now_ns || e->end_ns == e->launch->submit_ns));
}

static void wild_input(void **state)
{
    (void)state;
    struct world w;
    uint64_t before_end_ns;
    begin_with(&w, LITHOS_CLOCKMAP_DRIFT_MAX_PPB, 64, 8);
    wild_state = 1;
    for (int k = 0; k < 50000; k++) {
        struct lithos_timeline_launch l = {.process = (uint32_t)wild() % 4,
                                           .gpu = (uint32_t)wild(),
                                           .stream = wild() % 16,
                                           .stamp = wild(),
                                           .submit_ns = LITHOS_MIN(wild(), HOST0 + (uint64_t)k),
                                           .function = wild(),
                                           .lost = (uint32_t)wild(),
                                           .flags = (uint32_t)wild() & 3,
                                           .before_end_ns = wild() % 2 ? &before_end_ns : NULL,
                                           .kernels = wild() % 3,
                                           .weight = (uint32_t)wild() % 1000,
                                           .busy_ppm = (uint32_t)wild(),
                                           .tpc_count = (uint32_t)wild()};
        uint64_t now_ns = HOST0 + (uint64_t)k;
        before_end_ns = wild();
        lithos_timeline_submit(w.tl, &l);
        if (k % 7 == 0)
            lithos_timeline_waited(w.tl, (uint32_t)wild() % 4, wild() % 16, k % 2, wild(), wild(), now_ns);
        lithos_timeline_poll(w.tl, now_ns, read_wild, emit_wild, &now_ns);
        if (k % 1000 == 0)
            lithos_timeline_forget(w.tl, (uint32_t)wild() % 4);
    }
    finish(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(drifting_clock),   cmocka_unit_test(back_to_back),
        cmocka_unit_test(short_kernels),    cmocka_unit_test(streams_overlap),
        cmocka_unit_test(lost_stamps),      cmocka_unit_test(no_room),
        cmocka_unit_test(clock_jumps),      cmocka_unit_test(slow_card),
        cmocka_unit_test(graph_replays),    cmocka_unit_test(replay_waited_for),
        cmocka_unit_test(replay_overtaken), cmocka_unit_test(replay_as_one),
        cmocka_unit_test(refused_configs),  cmocka_unit_test(wild_input),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
