/* Graphs that follow the masks, over a driver which refuses, fails and ends things: what is called for, in which order, and what the app is
 * told. The program is its own client. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "driver/exports.h"
#include "driver/hooks.h"
#include "driver/order.h"
#include "driver/qmd_hook.h"
#include "hw/graph.h"
#include "stub/hook_client.h"
#include "stub/in_child.h"

/* ---- the client ---- */

static _Atomic uint64_t counters[LITHOS_COUNT_MAX];
static _Atomic uint32_t watch;
static unsigned drains; /* calls that the queues were asked about as if a node were to be switched */

static bool on_call(uint32_t function, const struct lithos_order_row *row, const uintptr_t *args,
                    CUresult *ret_result)
{
    (void)row, (void)args, (void)ret_result;
    drains += function == LITHOS_EXPORT_cuGraphNodeSetEnabled;
    return false;
}

static void graph_ended(uint64_t graph)
{
    (void)graph;
}

static const struct lithos_hook_observer observer = {.observe = &hook_client_never,
                                                     .graph_ended = graph_ended};
static const struct lithos_hook_order order = {.call = on_call};
const struct lithos_hook_client lithos_hook_client = HOOK_CLIENT(counters, &watch, &observer, &order);

static uint64_t kept(enum lithos_graph_keeps why)
{
    return counters[LITHOS_COUNT_GRAPH_KEEPS_NODES + (int)why];
}

/* ---- the driver: one graph, of which any number of execs ---- */

#define NODES 4u
#define GRAPH ((CUgraph)0x5000)
#define EXEC(i) ((CUgraphExec)(uintptr_t)(0x6000 + 0x40 * (i)))
#define NODE(i) ((CUgraphNode)(uintptr_t)(0x7000 + 8 * (i)))

static struct {
    int types[NODES];
    bool off[NODES];
    unsigned switched[NODES];     /* calls */
    unsigned refuse_off, fail_on; /* node from 1 */
    unsigned execs, launches, destroyed, listed;
    bool capturing;
    void (*in_switch)(void); /* meanwhile */
} card;

static unsigned index_of(CUgraphNode n)
{
    return (unsigned)(((uintptr_t)n - 0x7000) / 8);
}

static CUresult get_nodes(CUgraph g, CUgraphNode *nodes, size_t *count)
{
    CHECK(g == GRAPH);
    for (size_t i = 0; nodes && i < *count; i++)
        nodes[i] = NODE(i);
    *count = NODES;
    card.listed++;
    return CUDA_SUCCESS;
}

static CUresult get_type(CUgraphNode n, int *type)
{
    *type = card.types[index_of(n)];
    return *type < 0 ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

static CUresult set_enabled(CUgraphExec x, CUgraphNode n, unsigned on)
{
    unsigned i = index_of(n);
    (void)x;
    card.switched[i]++;
    if (card.in_switch)
        card.in_switch();
    if ((!on && card.refuse_off == i + 1) || (on && card.fail_on == i + 1))
        return on ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_ERROR_INVALID_VALUE;
    card.off[i] = !on;
    return CUDA_SUCCESS;
}

static CUresult get_enabled(CUgraphExec x, CUgraphNode n, unsigned *on)
{
    (void)x;
    *on = !card.off[index_of(n)];
    return CUDA_SUCCESS;
}

static CUresult get_attribute(CUgraphNode n, int id, CUlaunchAttributeValue *v)
{
    (void)n, (void)id;
    memset(v, 0, sizeof *v);
    return CUDA_SUCCESS;
}

static CUresult get_params(CUgraphNode n, CUDA_KERNEL_NODE_PARAMS_v2 *p)
{
    (void)n;
    *p = (CUDA_KERNEL_NODE_PARAMS_v2){.func = (CUfunction)0x20, .gridDimX = 1, .gridDimY = 1, .gridDimZ = 1};
    return CUDA_SUCCESS;
}

static CUresult instantiate(CUgraphExec *x, CUgraph g, unsigned long long flags)
{
    (void)g, (void)flags;
    *x = EXEC(card.execs++);
    return CUDA_SUCCESS;
}

static CUresult launch(CUgraphExec x, CUstream s)
{
    (void)x, (void)s;
    for (unsigned i = 0; i < NODES; i++)
        CHECK(!card.off[i] || card.types[i] != CU_GRAPH_NODE_TYPE_KERNEL);
    card.launches++;
    return CUDA_SUCCESS;
}

static CUresult destroy(CUgraph g)
{
    CHECK(g == GRAPH);
    card.destroyed++;
    return CUDA_SUCCESS;
}

static CUresult destroy_any(void *handle)
{
    (void)handle;
    return CUDA_SUCCESS;
}

static CUresult is_capturing(CUstream s, int *status)
{
    (void)s;
    *status = card.capturing ? CU_STREAM_CAPTURE_STATUS_NONE + 1 : CU_STREAM_CAPTURE_STATUS_NONE;
    return CUDA_SUCCESS;
}

/* ---- what the app calls ---- */

#define ENTRY(name) lithos_export_address(LITHOS_EXPORT_##name)
#define PUT(name, fake) atomic_store(&lithos_real_slots[LITHOS_EXPORT_##name], (void *)(fake))

static CUgraphExec make(void)
{
    CUgraphExec x;
    CHECK_EQ(((CUresult(*)(CUgraphExec *, CUgraph, unsigned long long))ENTRY(cuGraphInstantiateWithFlags))(
                 &x, GRAPH, 0),
             CUDA_SUCCESS);
    return x;
}

static CUresult replay(CUgraphExec x)
{
    return ((CUresult(*)(CUgraphExec, CUstream))ENTRY(cuGraphLaunch))(x, (CUstream)0x99);
}

static CUresult destroy_graph(void)
{
    return ((CUresult(*)(CUgraph))ENTRY(cuGraphDestroy))(GRAPH);
}

static void grant(const char *own)
{
    struct lithos_hook_quota quota = {
        .present = true,
        .topology = {.sms_per_tpc = 2, .gpc_stride = 9, .gpc_count = 2, .valid = {{0x3ffff, 0}}}};
    CHECK_EQ(lithos_tpcset_parse(own, &quota.own), 0);
    CHECK_EQ(lithos_hook_set_quotas(&quota, 1), 0);
}

static void start(void)
{
    setenv("LITHOS_LIBCUDA", STUB_PATH, 1);
    CHECK_EQ(((CUresult(*)(unsigned))ENTRY(cuInit))(0), CUDA_SUCCESS);
    PUT(cuGraphGetNodes, get_nodes);
    PUT(cuGraphNodeGetType, get_type);
    PUT(cuGraphNodeSetEnabled, set_enabled);
    PUT(cuGraphNodeGetEnabled, get_enabled);
    PUT(cuGraphKernelNodeGetAttribute, get_attribute);
    PUT(cuGraphKernelNodeGetParams_v2, get_params);
    PUT(cuGraphInstantiateWithFlags, instantiate);
    PUT(cuGraphLaunch, launch);
    PUT(cuGraphDestroy, destroy);
    PUT(cuGraphDestroyNode, destroy_any);
    PUT(cuGraphExecDestroy, destroy_any);
    PUT(cuStreamIsCapturing, is_capturing);
    grant("0-5");
}

static unsigned switches(void)
{
    unsigned n = 0;
    for (unsigned i = 0; i < NODES; i++)
        n += card.switched[i];
    memset(card.switched, 0, sizeof card.switched);
    return n;
}

/* ---- tests ---- */

static void refused_body(void)
{
    start();
    CUgraphExec x = make();
    CHECK_EQ(replay(x), CUDA_SUCCESS);
    CHECK_EQ(switches(), 0);
    grant("0-3");
    card.refuse_off = 2;
    CHECK_EQ(replay(x), CUDA_SUCCESS);
    CHECK_EQ(switches(), 2 * NODES - 1);
    CHECK_EQ(kept(LITHOS_GRAPH_KEEPS_DRIVER), 1);
    CHECK_EQ(counters[LITHOS_COUNT_GRAPH_FOLLOWED_NODES], NODES - 1);
    CHECK_EQ(replay(x), CUDA_SUCCESS); /* not tried again before the next change */
    CHECK_EQ(switches(), 0);
}

/* A node that cannot be switched on again: better an error than a replay without it. */
static void stuck_body(void)
{
    start();
    CUgraphExec x = make();
    CHECK_EQ(replay(x), CUDA_SUCCESS);
    grant("0-3");
    card.fail_on = 3;
    CHECK_EQ(replay(x), CUDA_ERROR_OUT_OF_MEMORY);
    CHECK_EQ(replay(x), CUDA_ERROR_OUT_OF_MEMORY);
    CHECK(card.launches == 1 && card.off[2]);
    card.fail_on = 0;
    switches();
    CHECK_EQ(replay(x), CUDA_SUCCESS);
    CHECK_EQ(switches(), 2 * NODES - 1); /* that one is off already */
    CHECK(card.launches == 2 && !card.off[2]);
    CHECK_EQ(replay(x), CUDA_SUCCESS);
    CHECK_EQ(switches(), 0);
}

/* What cannot be looked into. */
static void unknown_body(void)
{
    start();
    card.types[1] = 13; /* conditional */
    card.types[2] = CU_GRAPH_NODE_TYPE_MEMCPY;
    CUgraphExec x = make();
    card.types[1] = -1;
    CUgraphExec y = make();
    CHECK(replay(x) == CUDA_SUCCESS && replay(y) == CUDA_SUCCESS);
    grant("1");
    CHECK(replay(x) == CUDA_SUCCESS && kept(LITHOS_GRAPH_KEEPS_NODES) == 1 && switches() == 4);
    CHECK(replay(y) == CUDA_SUCCESS && kept(LITHOS_GRAPH_KEEPS_DRIVER) == 1 && switches() == 4);
}

/* A launch into a graph that is being captured changes nothing; the next one does. */
static void captured_body(void)
{
    start();
    CUgraphExec x = make();
    CHECK_EQ(replay(x), CUDA_SUCCESS);
    grant("0-3");
    card.capturing = true;
    CHECK_EQ(replay(x), CUDA_SUCCESS);
    CHECK_EQ(switches(), 0);
    card.capturing = false;
    CHECK_EQ(replay(x), CUDA_SUCCESS);
    CHECK_EQ(switches(), 2 * NODES);
}

static void change_meanwhile(void)
{
    card.in_switch = NULL;
    grant("7");
}

/* The masks change while nodes are switched: the next launch does it again. */
static void meanwhile_body(void)
{
    start();
    CUgraphExec x = make();
    CHECK_EQ(replay(x), CUDA_SUCCESS);
    grant("0-3");
    card.in_switch = change_meanwhile;
    CHECK_EQ(replay(x), CUDA_SUCCESS);
    CHECK_EQ(switches(), 2 * NODES);
    CHECK_EQ(replay(x), CUDA_SUCCESS);
    CHECK_EQ(switches(), 2 * NODES);
    CHECK_EQ(replay(x), CUDA_SUCCESS);
    CHECK_EQ(switches(), 0);
    grant("7"); /* the same again */
    CHECK_EQ(replay(x), CUDA_SUCCESS);
    CHECK_EQ(switches(), 0);
}

/* Behind queues: the queue's thread does it once the app has destroyed the graph; before, the app's own, with nothing in the queue. */
static void queued_body(void)
{
    start();
    struct lithos_issue issue = {.gate = NULL};
    CUgraphExec x = make();
    CHECK_EQ(replay(x), CUDA_SUCCESS);
    lithos_order_state = 1;
    grant("0-3");
    lithos_order_issue = &issue;
    CHECK_EQ(replay(x), CUDA_SUCCESS);
    CHECK_EQ(switches(), 0);
    lithos_order_issue = NULL;
    CHECK_EQ(replay(x), CUDA_SUCCESS);
    CHECK(switches() == 2 * NODES && drains == 1);
    CHECK_EQ(replay(x), CUDA_SUCCESS);
    CHECK(switches() == 0 && drains == 1);
    CHECK(destroy_graph() == CUDA_SUCCESS && card.destroyed == 0);
    grant("0-4");
    lithos_order_issue = &issue;
    CHECK_EQ(replay(x), CUDA_SUCCESS);
    CHECK(switches() == 2 * NODES && drains == 1);
    /* and an error is the launch's on either way */
    lithos_order_issue = NULL;
    x = make();
    CHECK_EQ(replay(x), CUDA_SUCCESS);
    grant("0-5");
    card.fail_on = 1;
    CHECK_EQ(replay(x), CUDA_ERROR_OUT_OF_MEMORY);
}

/* Graphs are kept for as long as an exec goes by them, and no longer; many execs, and handles that come again. */
static void kept_body(void)
{
    CUresult (*end)(CUgraphExec) = (CUresult(*)(CUgraphExec))ENTRY(cuGraphExecDestroy);
    start();
    for (unsigned i = 0; i < 3000; i++)
        make();
    CHECK_EQ(destroy_graph(), CUDA_SUCCESS);
    CHECK_EQ(destroy_graph(), CUDA_ERROR_INVALID_VALUE);
    for (unsigned i = 0; i + 1 < 3000; i++)
        CHECK_EQ(end(EXEC(i)), CUDA_SUCCESS);
    CHECK_EQ(card.destroyed, 0);
    CHECK_EQ(end(EXEC(2999)), CUDA_SUCCESS);
    CHECK_EQ(card.destroyed, 1);
    CHECK_EQ(end(EXEC(2999)), CUDA_SUCCESS); /* as the driver says */
    /* the handle again, with a context that had ended in between: the one before is forgotten */
    card.execs = 0;
    make();
    card.execs = 0;
    CUgraphExec x = make();
    CHECK_EQ(replay(x), CUDA_SUCCESS);
    CHECK_EQ(end(x), CUDA_SUCCESS);
    CHECK(destroy_graph() == CUDA_SUCCESS && card.destroyed == 2);
    /* an exec whose graph ended without a word costs nothing but a look */
    card.listed = 0;
    CHECK(destroy_graph() == CUDA_SUCCESS && card.destroyed == 3 && card.listed == 0);
}

/* What a replay pays while nothing changes, and once something has. */
static void cost_body(void)
{
    start();
    CUgraphExec x = make();
    for (int changed = 0; changed < 2; changed++) {
        double best = 1e9;
        for (int round = 0; round < 50; round++) {
            uint64_t begin = lithos_now_ns();
            for (int i = 0; i < 2000; i++)
                replay(x);
            best = LITHOS_MIN(best, (double)(lithos_now_ns() - begin) / 2000);
        }
        printf("a replay takes %.1f ns, the driver's part being nothing%s\n", best,
               changed ? ", after a change" : "");
        grant("0-3");
    }
    CHECK_EQ(switches(), 2 * NODES); /* once, in all of these */
}

#define TESTS(X) \
    X(refused)   \
    X(stuck)     \
    X(unknown)   \
    X(captured)  \
    X(meanwhile) \
    X(queued)    \
    X(kept)      \
    X(cost)

TESTS(CHILD_TEST)

int main(void)
{
    unsetenv("LITHOS_FOLLOW_GRAPHS");
    const struct CMUnitTest tests[] = {TESTS(CHILD_TEST_ROW)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
