/* lithosd, the real program, and the records of a process that the test plays: it sleeps, and is woken. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/quantile.h"
#include "base/util.h"
#include "test_daemon_rig.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLOW 1
#else
#define SLOW 0
#endif

/* How long until the daemon has read one record more, written now. */
static uint64_t read_after_ns(struct lithos_arena *arena, int sock, bool wake)
{
    static uint64_t sequence;
    sequence++;
    union lithos_message m;
    uint32_t tail = atomic_load(&arena->record_tails[0]);
    for (int i = 0; i < 5000 && !atomic_load(&arena->records.ring[0].wake); i++)
        usleep(1000);
    usleep(50000 + (useconds_t)(sequence * 7919 %
                                20000)); /* until it sleeps its longest, and into any part of that */
    struct lithos_record r = {
        .sequence = sequence, .submit_ns = lithos_now_ns(), .kind = LITHOS_RECORD_SYNC, .cluster = 1};
    assert_true(lithos_record_put(&arena->records, 0, &arena->record_tails[0], &r));
    assert_true(lithos_record_wake(&arena->records.ring[0])); /* it sleeps, and has asked */
    lithos_message_init(&m, LITHOS_MSG_WAKE);
    if (wake)
        assert_int_equal(lithos_socket_send(sock, &m, -1, 0), 0);
    while (atomic_load(&arena->record_tails[0]) == tail &&
           lithos_now_ns() - r.submit_ns < 5 * LITHOS_NSEC_PER_SEC)
        usleep(20);
    return lithos_now_ns() - r.submit_ns;
}

static void a_sleeping_daemon_is_woken(void **state)
{
    struct rig *rig = *state;
    struct rig_tenant a = rig_tenant_named(rig, "a", "26", RIG_WAIT);
    double us[20];
    int sock = rig_connect(rig);
    struct lithos_arena *arena = rig_attach(&a, sock);
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(us); i++)
        us[i] = (double)read_after_ns(arena, sock, true) / 1e3;
    lithos_sort_samples(us, LITHOS_ARRAY_SIZE(us));
    double median_us = lithos_quantile(us, LITHOS_ARRAY_SIZE(us), 0.5);
    if (median_us > 4000) /* it sleeps for 20 ms, half of them on average from any time on */
        fail_msg("a daemon that sleeps reads a record after %.0f us", median_us);
    /* without a word it wakes up by itself */
    assert_true(read_after_ns(arena, sock, false) < LITHOS_NSEC_PER_SEC);
    /* one that asks again and again gets no attention for it, and no error */
    union lithos_message m;
    lithos_message_init(&m, LITHOS_MSG_WAKE);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(lithos_socket_send(sock, &m, -1, LITHOS_NSEC_PER_SEC), 0);
    assert_true(read_after_ns(arena, sock, true) < LITHOS_NSEC_PER_SEC);
    assert_int_equal(lithos_socket_receive(sock, &m, NULL, 10 * LITHOS_NSEC_PER_MSEC), -ETIMEDOUT);
    munmap(arena, LITHOS_ARENA_BYTES);
    close(sock);
}

/* ---- a graph ---- */

#define PATIENCE_NS (10 * LITHOS_NSEC_PER_SEC)

static void put(struct lithos_arena *arena, const struct lithos_record *r)
{
    for (uint64_t begin_ns = lithos_now_ns();
         !lithos_record_put(&arena->records, 0, &arena->record_tails[0], r); usleep(100))
        assert_true(lithos_now_ns() - begin_ns < PATIENCE_NS);
}

static json_int_t observed(const json_t *status, const char *what)
{
    const json_t *t = json_array_get(json_object_get(status, "tenants"), 0);
    return json_integer_value(json_object_get(json_object_get(t, "observed"), what));
}

/* All that is outstanding has been seen to end, and so many kernels have: the status document. */
static json_t *until_seen(const struct rig *rig, json_int_t kernels)
{
    for (uint64_t begin_ns = lithos_now_ns();; usleep(1000)) {
        json_t *status = rig_status(rig);
        if (observed(status, "kernels") == kernels)
            return status;
        json_decref(status);
        assert_true(lithos_now_ns() - begin_ns < PATIENCE_NS);
    }
}

/* A graph whose kernels run one after the other. They are made known the last one first, as a driver does. */
struct graph {
    struct lithos_arena *arena;
    unsigned nodes;
    uint64_t node_ns, sequence;
    uint32_t id;
    uint64_t stamp; /* of its first kernel, the others' come behind it */
};

static void make_known(struct graph *g)
{
    struct lithos_record r = {.sequence = ++g->sequence,
                              .kind = LITHOS_RECORD_GRAPH_NODE,
                              .cluster = 1,
                              .launch = {.graph = g->id}};
    r.launch.block[0] = r.launch.block[1] = r.launch.block[2] = 1;
    r.launch.grid[0] = r.launch.grid[1] = r.launch.grid[2] = 1;
    for (unsigned i = g->nodes; i-- > 0;) {
        r.function = 100 + i % 4;
        r.launch.stamp = g->stamp + i;
        put(g->arena, &r);
    }
}

/* Replays until so many of its kernels have been seen to end; nobody looks before they have. */
static json_t *replay(const struct rig *rig, struct graph *g, json_int_t seen)
{
    uint64_t submit_ns = lithos_now_ns();
    struct lithos_record r = {.sequence = ++g->sequence,
                              .submit_ns = submit_ns,
                              .kind = LITHOS_RECORD_GRAPH_LAUNCH,
                              .cluster = 1,
                              .launch = {.graph = g->id}};
    put(g->arena, &r);
    while (lithos_now_ns() < submit_ns + g->nodes * g->node_ns)
        usleep(100);
    for (unsigned i = 0; i < g->nodes; i++) {
        atomic_store(&g->arena->stamps[g->stamp + i].time_ns, submit_ns + (i + 1) * g->node_ns);
        atomic_store(&g->arena->stamps[g->stamp + i].payload, g->stamp + i);
    }
    return until_seen(rig, seen);
}

static double p50_us(const json_t *status)
{
    const json_t *t = json_array_get(json_object_get(status, "tenants"), 0);
    return json_number_value(json_object_get(json_object_get(t, "observed"), "p50_us"));
}

static void nodes_in_the_order_of_their_ends(void **state)
{
    enum { NODES = 4, REPLAYS = 8 };
    struct rig *rig = *state;
    struct rig_tenant a = rig_tenant_named(rig, "a", "26", RIG_WAIT);
    int sock = rig_connect(rig);
    struct graph g = {rig_attach(&a, sock), NODES, LITHOS_NSEC_PER_MSEC, 0, 9, 1};
    json_t *status = NULL;
    make_known(&g);
    for (unsigned n = 1; n <= REPLAYS; n++) {
        json_decref(status);
        status = replay(rig, &g, n * NODES);
    }
    if (p50_us(status) < 700 || p50_us(status) > 1400) /* of the first replay alone it is not known */
        fail_msg("kernels of 1000 us are taken to last for %.0f", p50_us(status));
    json_decref(status);
    munmap(g.arena, LITHOS_ARENA_BYTES);
    close(sock);
}

/* Too many kernels to follow each: most replays are followed as one launch, and the account says the same. */
static void replays_as_one(void **state)
{
    enum {
        NODES = 2000,
        REPLAYS = SLOW ? 20 : 100,
        NODE_NS = 4000,
        TPCS = 66
    }; /* its records name none: all */
    struct rig *rig = *state;
    struct rig_tenant a = rig_tenant_named(rig, "a", "26", RIG_WAIT);
    int sock = rig_connect(rig);
    struct graph g = {rig_attach(&a, sock), NODES, NODE_NS, 0, 9, 1};
    json_t *status = NULL;
    uint64_t begin_ns = lithos_now_ns();
    make_known(&g);
    for (unsigned n = 1; n <= REPLAYS; n++) {
        json_decref(status);
        status = replay(rig, &g, n * NODES);
    }
    uint64_t took_ns = lithos_now_ns() - begin_ns;
    const json_t *t = json_array_get(json_object_get(status, "tenants"), 0);
    const json_t *o = json_object_get(t, "observed"), *op;
    json_int_t one_by_one = json_integer_value(json_object_get(json_object_get(o, "prediction"), "launches"));
    /* what the first second has room for, and each one after it; each replay else is one launch */
    json_int_t most = (json_int_t)(16384 * (1 + took_ns / LITHOS_NSEC_PER_SEC + 1)) + NODES + REPLAYS;
    if (most < NODES * REPLAYS / 2 && one_by_one > most)
        fail_msg("%lld kernels were followed one by one in %.1f s", (long long)one_by_one,
                 (double)took_ns / 1e9);
    assert_true(one_by_one >= 8 * NODES);
    assert_int_equal(observed(status, "launches"), NODES * REPLAYS);
    assert_int_equal(observed(status, "queue"), 0);
    size_t i;
    json_int_t of_operators = 0;
    json_array_foreach(json_object_get(o, "operators"), i, op) of_operators +=
        json_integer_value(json_object_get(op, "kernels"));
    /* those since one was followed kernel by kernel are not in it yet */
    assert_true(of_operators <= NODES * REPLAYS && of_operators >= one_by_one - REPLAYS);
    const double tpc_s = json_number_value(json_object_get(o, "tpc_time_s")),
                 true_tpc_s = 1e-9 * NODES * REPLAYS * NODE_NS * TPCS;
    /* Less what the card takes to turn to each kernel; more where a slow daemon looks late and does not know the clock yet. */
    if (tpc_s < 0.5 * true_tpc_s || (!SLOW && tpc_s > 1.2 * true_tpc_s))
        fail_msg("%.3f s of TPC time of %.3f s", tpc_s, true_tpc_s);
    if (p50_us(status) < 2 || p50_us(status) > 4.5)
        fail_msg("kernels of 4 us are taken to last for %.1f", p50_us(status));
    json_decref(status);
    munmap(g.arena, LITHOS_ARENA_BYTES);
    close(sock);
}

/* Graphs come and go, and nobody says that they go: what the daemon keeps of them has room for all that are there. */
static void graphs_that_ended(void **state)
{
    enum { GRAPHS = 36, NODES = 2000, KEPT = 20, NODE_NS = 1000 };
    struct rig *rig = *state;
    if (SLOW) /* it is all about how many there are */
        skip();
    struct rig_tenant a = rig_tenant_named(rig, "a", "26", RIG_WAIT);
    int sock = rig_connect(rig);
    struct graph g = {rig_attach(&a, sock), NODES, NODE_NS, 0, 0, 0};
    json_int_t kernels = 0;
    for (unsigned n = 1; n <= GRAPHS; n++) { /* each of them has the slots of the one KEPT before it */
        g.id = 100 + n;
        g.stamp = 1 + n % KEPT * NODES;
        make_known(&g);
        kernels += NODES;
        json_decref(replay(rig, &g, kernels));
    }
    json_t *status = rig_status(rig);
    assert_int_equal(observed(status, "launches"), kernels);
    json_decref(status);
    munmap(g.arena, LITHOS_ARENA_BYTES);
    close(sock);
}

static int setup(void **state)
{
    static struct rig rig;
    static const char *const options[] = {"--mps=off", NULL};
    rig_init(&rig, rig_h200);
    rig_start(&rig, options);
    *state = &rig;
    return 0;
}

static int teardown(void **state)
{
    rig_finish(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_sleeping_daemon_is_woken, setup, teardown),
        cmocka_unit_test_setup_teardown(nodes_in_the_order_of_their_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(replays_as_one, setup, teardown),
        cmocka_unit_test_setup_teardown(graphs_that_ended, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
