/* Launches that come to the timeline in atoms: one event each, whatever order their ends come in, and none lost from the account. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "core/timeline.h"

#define HOST0 5000000000ull
#define LATENCY_NS 4000u
#define MISSING_NS 20000000u
#define STAMPS 100000u

struct world {
    void *mem;
    struct lithos_timeline *tl;
    uint64_t now_ns, base_ns;
    unsigned calibrating;    /* events before the test */
    uint64_t end_ns[STAMPS]; /* by stamp; 0: not known, never comes */
    uint64_t stamps;
    struct lithos_kernel_event last;
    struct lithos_timeline_launch last_launch;
    unsigned events;
    uint32_t tpcs; /* of what is given next */
    /* Of atoms, told one by one: how many, how long they took, on how many TPCs in all. */
    unsigned atoms;
    uint64_t atoms_ns;
    uint32_t atoms_tpcs;
};

static int teardown(void **state)
{
    struct world *w = *state;
    const struct lithos_timeline_stats *s = lithos_timeline_stats(w->tl);
    uint64_t sum = s->kernels + s->outstanding;
    for (int i = 0; i < LITHOS_LOST_MAX; i++)
        sum += s->lost[i];
    int r = sum == s->launches && s->kernels == w->events ? 0 : -1;
    free(w->mem);
    free(w);
    return r;
}

/* The clock's line is good to some ns. */
static void assert_about(uint64_t got_ns, uint64_t want_ns)
{
    assert_in_range(got_ns, want_ns - 100, want_ns + 100);
}

/* An atom (or with atoms 0 a whole kernel) that ends at HOST0 + end_ns; 0: it has no stamp; UINT64_MAX: its stamp never comes. */
static bool give(struct world *w, uint64_t sequence, uint32_t atom, uint32_t atoms, uint64_t end_ns)
{
    uint64_t stamp = end_ns ? ++w->stamps : 0;
    if (stamp)
        w->end_ns[stamp] = end_ns == UINT64_MAX ? 0 : w->base_ns + end_ns;
    struct lithos_timeline_launch l = {.process = 1,
                                       .stream = 7,
                                       .sequence = sequence,
                                       .stamp = stamp,
                                       .submit_ns = w->base_ns + 1000 * sequence + atom,
                                       .function = 5,
                                       .grid = {1000, 1, 1},
                                       .atom = atom,
                                       .atoms = atoms,
                                       .lost = LITHOS_LOST_NO_SLOT,
                                       .tpc_count = w->tpcs};
    return lithos_timeline_submit(w->tl, &l);
}

static int read_stamp(void *ctx, uint32_t process, uint64_t stamp, uint64_t *ret_gpu_ns,
                      uint64_t *ret_seen_ns)
{
    struct world *w = ctx;
    (void)process, (void)ret_seen_ns;
    if (!w->end_ns[stamp] || w->end_ns[stamp] > w->now_ns)
        return 0;
    *ret_gpu_ns = w->end_ns[stamp];
    return 1;
}

static void emitted(void *ctx, const struct lithos_kernel_event *e)
{
    struct world *w = ctx;
    w->last = *e;
    w->last_launch = *e->launch;
    w->events++;
}

static void atom_emitted(void *ctx, const struct lithos_kernel_event *e)
{
    struct world *w = ctx;
    w->atoms++;
    w->atoms_ns += e->end_ns - e->start_ns;
    w->atoms_tpcs += e->launch->tpc_count;
}

static void poll(struct world *w, uint64_t at_ns)
{
    w->now_ns = w->base_ns + at_ns;
    lithos_timeline_poll(w->tl, w->now_ns, read_stamp, emitted, w);
}

static uint64_t outstanding(const struct world *w)
{
    return lithos_timeline_stats(w->tl)->outstanding;
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    w->tpcs = 10;
    struct lithos_timeline_config c = {.launches = 64,
                                       .streams = 4,
                                       .operators = 8,
                                       .gpu_count = 1,
                                       .missing_ns = MISSING_NS,
                                       .replay_ns = 2000000000,
                                       .atom = atom_emitted};
    size_t bytes;
    c.gpu[0].tpcs = 66;
    c.gpu[0].launch_latency_ns = LATENCY_NS;
    c.gpu[0].drift_max_ppb = LITHOS_CLOCKMAP_DRIFT_MAX_PPB;
    assert_int_equal(lithos_timeline_size(&c, &bytes), 0);
    w->mem = calloc(1, bytes);
    assert_int_equal(lithos_timeline_init(w->mem, bytes, &c, &w->tl), 0);
    for (uint32_t i = 0; i < 32; i++) { /* seen the moment they end: the clock is known from then on */
        w->base_ns = HOST0 + i * 100000;
        give(w, 1, 0, 0, 50000);
        poll(w, 50000);
    }
    w->base_ns = HOST0 + 10000000;
    w->calibrating = w->events;
    assert_int_equal(w->events, 32);
    *state = w;
    return 0;
}

static void one_event(void **state)
{
    struct world *w = *state;
    const struct lithos_timeline_stats before = *lithos_timeline_stats(w->tl);
    for (uint32_t i = 0; i < 4; i++)
        assert_true(give(w, 1, i, 4, 100000 * (i + 1)));
    assert_true(give(w, 2, 0, 0, 450000));
    assert_int_equal(lithos_timeline_stats(w->tl)->launches - before.launches, 2);
    assert_int_equal(outstanding(w), 2);
    poll(w, 350000); /* three of four */
    assert_int_equal(w->events - w->calibrating, 0);
    assert_int_equal(w->atoms, 3);
    assert_int_equal(outstanding(w), 2);
    poll(w, 410000);
    assert_int_equal(w->events - w->calibrating, 1);
    assert_int_equal(w->last.atoms, 4);
    assert_int_equal(w->atoms, 4);
    assert_about(w->atoms_ns, w->last.end_ns - w->last.start_ns);
    assert_int_equal(w->last_launch.sequence, 1);
    assert_int_equal(w->last_launch.atom, 0); /* the first's: its prediction is the launch's */
    assert_about(w->last.start_ns, w->base_ns + 1000 + LATENCY_NS);
    assert_about(w->last.end_ns, w->base_ns + 400000);
    assert_in_range(w->last.longest_atom_ns, 95000, 100000);
    poll(w, 460000);
    assert_int_equal(w->events - w->calibrating, 2);
    assert_int_equal(w->last.atoms, 0);
    assert_about(w->last.end_ns - w->last.start_ns, 50000);
    assert_int_equal(outstanding(w), 0);
    const struct lithos_timeline_stats *s = lithos_timeline_stats(w->tl);
    assert_int_equal(s->cut, 1);
    assert_int_equal(s->atoms, 4);
    assert_in_range(s->tpc_ns - before.tpc_ns, 4449000, 4451000);
}

/* They went one by one, some later and on more TPCs: what they took is without the times in between, on what they had on average. */
static void one_by_one(void **state)
{
    struct world *w = *state;
    const uint64_t before = lithos_timeline_stats(w->tl)->tpc_ns;
    give(w, 1, 0, 3, 105000);
    poll(w, 110000);
    w->base_ns += 500000; /* 400 us of nothing */
    w->tpcs = 30;
    give(w, 1, 1, 3, 105000);
    give(w, 1, 2, 3, 205000); /* there in time */
    poll(w, 210000);
    assert_int_equal(w->events - w->calibrating, 1);
    assert_about(w->last.end_ns - w->last.start_ns, 700000);
    assert_about(w->last.busy_ns, 300000);
    assert_int_equal(w->atoms_tpcs, 10 + 30 + 30);
    assert_int_equal(w->last_launch.tpc_count, 23); /* 10, 30 and 30 */
    assert_in_range(lithos_timeline_stats(w->tl)->tpc_ns - before, 6850000, 6950000);
}

/* The second has a block that takes its time: the third and fourth end before it. */
static void ends_out_of_order(void **state)
{
    struct world *w = *state;
    static const uint64_t ends[] = {100000, 900000, 300000, 400000};
    for (uint32_t i = 0; i < 4; i++)
        give(w, 1, i, 4, ends[i]);
    give(w, 2, 0, 0, 1000000);
    poll(w, 500000);
    assert_int_equal(w->events - w->calibrating, 0);
    poll(w, 910000);
    assert_int_equal(w->events - w->calibrating, 1);
    assert_about(w->last.end_ns, w->base_ns + 900000);
    assert_int_equal(w->last.flags & LITHOS_KERNEL_CLAMPED, 0);
    poll(w, 1010000);
    assert_about(w->last.start_ns, w->base_ns + 900000);
}

/* However long it takes, an atom is not missing for those behind it that have ended; for the next launch it is. */
static void straggler_is_not_missing(void **state)
{
    struct world *w = *state;
    give(w, 1, 0, 3, 10 * MISSING_NS);
    give(w, 1, 1, 3, 100000);
    give(w, 1, 2, 3, 200000);
    for (uint64_t t = 0; t < 9; t++)
        poll(w, 300000 + t * MISSING_NS);
    assert_int_equal(outstanding(w), 1);
    poll(w, 10 * MISSING_NS + 1);
    assert_int_equal(w->events - w->calibrating, 1);
    give(w, 2, 0, 3, UINT64_MAX);
    give(w, 2, 1, 3, 11ull * MISSING_NS);
    give(w, 2, 2, 3, 11ull * MISSING_NS);
    give(w, 3, 0, 0, 11ull * MISSING_NS + 100);
    poll(w, 12ull * MISSING_NS);
    poll(w, 14ull * MISSING_NS);
    assert_int_equal(lithos_timeline_stats(w->tl)->lost[LITHOS_LOST_MISSING], 1);
    assert_int_equal(w->events - w->calibrating, 2);
}

/* One atom without a stamp: its launch has no event, and is counted once, for that reason. */
static void lost_atom(void **state)
{
    struct world *w = *state;
    for (uint32_t missing = 0; missing < 3; missing++) {
        uint64_t base = 1000000ull * (missing + 1);
        for (uint32_t i = 0; i < 3; i++)
            give(w, 1 + missing, i, 3, i == missing ? 0 : base + 1000 * i);
        poll(w, base + 10000);
        assert_int_equal(lithos_timeline_stats(w->tl)->lost[LITHOS_LOST_NO_SLOT], missing + 1);
        assert_int_equal(outstanding(w), 0);
    }
    give(w, 9, 0, 0, 5000000);
    poll(w, 5000001);
    assert_int_equal(w->events - w->calibrating, 1);
}

/* The third atom's launch failed, or its record was lost: nothing more comes, and the launch ends as lost with the next one. */
static void never_finished(void **state)
{
    struct world *w = *state;
    give(w, 1, 0, 4, 100000);
    give(w, 1, 1, 4, 200000);
    poll(w, 300000); /* both have ended already */
    assert_int_equal(outstanding(w), 1);
    give(w, 2, 0, 0, 400000);
    assert_int_equal(lithos_timeline_stats(w->tl)->lost[LITHOS_LOST_MISSING], 1);
    give(w, 3, 0, 4, 500000);
    give(w, 3, 1, 4, 600000);
    give(w, 4, 0, 2, 700000); /* or not yet */
    give(w, 4, 1, 2, 800000);
    poll(w, 900000);
    assert_int_equal(lithos_timeline_stats(w->tl)->lost[LITHOS_LOST_MISSING], 2);
    assert_int_equal(w->events - w->calibrating, 2);
    assert_int_equal(outstanding(w), 0);
    give(w, 5, 0, 4, 1000000);
    assert_true(give(w, 5, 1, 4, 1100000));
    assert_false(give(w, 5, 3, 4, 1200000)); /* the third is not there */
    assert_false(give(w, 6, 2, 4, 1200000)); /* of a launch whose beginning was lost */
    poll(w, 1300000);
    assert_int_equal(lithos_timeline_stats(w->tl)->lost[LITHOS_LOST_MISSING], 3);
    assert_int_equal(outstanding(w), 0);
}

static void process_ends(void **state)
{
    struct world *w = *state;
    give(w, 1, 0, 3, 100000);
    give(w, 1, 1, 3, 200000);
    poll(w, 150000);
    lithos_timeline_forget(w->tl, 1);
    assert_int_equal(lithos_timeline_stats(w->tl)->lost[LITHOS_LOST_DIED], 1);
    assert_int_equal(outstanding(w), 0);
    give(w, 2, 0, 3, 300000);
    poll(w, 400000);
    lithos_timeline_forget(w->tl, 1); /* the queue is empty, the launch is not over */
    assert_int_equal(lithos_timeline_stats(w->tl)->lost[LITHOS_LOST_DIED], 2);
    assert_int_equal(outstanding(w), 0);
}

/* More atoms than it takes: the launch is lost, whole, and room is there again afterwards. */
static void no_room(void **state)
{
    struct world *w = *state;
    for (uint32_t i = 0; i < 100; i++)
        give(w, 1, i, 100, 1000 * (i + 1));
    assert_int_equal(lithos_timeline_stats(w->tl)->launches - w->calibrating, 1);
    poll(w, 200000);
    assert_int_equal(lithos_timeline_stats(w->tl)->lost[LITHOS_LOST_NO_ROOM], 1);
    assert_int_equal(outstanding(w), 0);
    for (uint32_t i = 0; i < 50; i++)
        give(w, 2, i, 50, 300000 + i);
    poll(w, 400000);
    assert_int_equal(w->events - w->calibrating, 1);
    assert_int_equal(w->last.atoms, 50);
}

/* Anything at all: the account holds (teardown). */
static void wild(void **state)
{
    struct world *w = *state;
    uint64_t random = 1, t = 0;
    for (unsigned i = 0; i < 60000; i++) {
        random = random * 6364136223846793005ull + 1442695040888963407ull;
        uint32_t r = (uint32_t)(random >> 33);
        if (w->stamps + 2 >= STAMPS)
            break;
        give(w, 1 + (r >> 8) % 3 + i / 50, r % 5, (r >> 4) % 6, (r >> 12) % 8 ? t + r % 100000 : 0);
        if (r % 7 == 0)
            poll(w, t += 50000);
        if (r % 1013 == 0)
            lithos_timeline_forget(w->tl, 1);
    }
    lithos_timeline_forget(w->tl, 1);
    assert_int_equal(outstanding(w), 0);
    assert_true(w->events - w->calibrating > 1000);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(one_event), TEST(one_by_one),     TEST(ends_out_of_order), TEST(straggler_is_not_missing),
        TEST(lost_atom), TEST(never_finished), TEST(process_ends),      TEST(no_room),
        TEST(wild),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
