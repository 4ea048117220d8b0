/* Graphs: captured and made by hand, with branches and graphs within them, replayed, changed, switched off and on, updated. */
#include <string.h>

#include "samples/exact.h"

#define MODE_GLOBAL 0 /* CU_STREAM_CAPTURE_MODE_GLOBAL */
#define REPLAYS 3

#define GRAPH_CUDA(X)                                                                                      \
    X(cuStreamBeginCapture, "cuStreamBeginCapture_v2", (CUstream, int))                                    \
    X(cuStreamEndCapture, "cuStreamEndCapture", (CUstream, CUgraph *))                                     \
    X(cuStreamWaitEvent, "cuStreamWaitEvent", (CUstream, CUevent, unsigned))                               \
    X(cuMemcpyDtoDAsync, "cuMemcpyDtoDAsync_v2", (CUdeviceptr, CUdeviceptr, size_t, CUstream))             \
    X(cuMemsetD32Async, "cuMemsetD32Async", (CUdeviceptr, unsigned, size_t, CUstream))                     \
    X(cuGraphCreate, "cuGraphCreate", (CUgraph *, unsigned))                                               \
    X(cuGraphDestroy, "cuGraphDestroy", (CUgraph))                                                         \
    X(cuGraphAddKernelNode, "cuGraphAddKernelNode_v2",                                                     \
      (CUgraphNode *, CUgraph, const CUgraphNode *, size_t, const CUDA_KERNEL_NODE_PARAMS_v2 *))           \
    X(cuGraphAddChildGraphNode, "cuGraphAddChildGraphNode",                                                \
      (CUgraphNode *, CUgraph, const CUgraphNode *, size_t, CUgraph))                                      \
    X(cuGraphInstantiateWithFlags, "cuGraphInstantiateWithFlags",                                          \
      (CUgraphExec *, CUgraph, unsigned long long))                                                        \
    X(cuGraphInstantiateWithParams, "cuGraphInstantiateWithParams",                                        \
      (CUgraphExec *, CUgraph, CUDA_GRAPH_INSTANTIATE_PARAMS *))                                           \
    X(cuGraphExecKernelNodeSetParams, "cuGraphExecKernelNodeSetParams_v2",                                 \
      (CUgraphExec, CUgraphNode, const CUDA_KERNEL_NODE_PARAMS_v2 *))                                      \
    X(cuGraphNodeSetEnabled, "cuGraphNodeSetEnabled", (CUgraphExec, CUgraphNode, unsigned))                \
    X(cuGraphNodeGetEnabled, "cuGraphNodeGetEnabled", (CUgraphExec, CUgraphNode, unsigned *))              \
    X(cuGraphExecUpdate, "cuGraphExecUpdate_v2", (CUgraphExec, CUgraph, CUgraphExecUpdateResultInfo_v1 *)) \
    X(cuGraphUpload, "cuGraphUpload", (CUgraphExec, CUstream))                                             \
    X(cuGraphLaunch, "cuGraphLaunch", (CUgraphExec, CUstream))                                             \
    X(cuGraphExecDestroy, "cuGraphExecDestroy", (CUgraphExec))

static struct {
#define X(name, symbol, args) CUresult(*name) args;
    GRAPH_CUDA(X)
#undef X
} g;

#define G(name, ...) sample_check_result(#name, g.name(__VA_ARGS__))

/* Of a little more than a wave on the largest cards known, so that both of them may be cut. */
#define SOME 5501u
static const struct shape some = {{SOME, 1, 1}, {1, 1, 1}};
static const struct shape flat = {{3, 1835, 1}, {1, 1, 1}};
static const struct shape clustered = {{5502, 1, 1}, {2, 1, 1}};
#define BYTES ((size_t)5505 * sizeof(uint32_t)) /* of the largest of them */

void exact_graphs_open(void)
{
#define X(name, symbol, args) sample_find(#name, symbol, &g.name, sizeof g.name);
    GRAPH_CUDA(X)
#undef X
}

/* ---- making them */

static CUgraph captured(struct exact *e, void (*calls)(struct exact *))
{
    CUgraph graph;
    G(cuStreamBeginCapture, e->other, MODE_GLOBAL);
    calls(e);
    G(cuStreamEndCapture, e->other, &graph);
    return graph;
}

/* A kernel node that counts at *out; the parameters are copied. */
static CUDA_KERNEL_NODE_PARAMS_v2 node_params(struct exact *e, const struct shape *s, CUdeviceptr *out,
                                              void *room[2])
{
    room[0] = out;
    room[1] = &e->info;
    return (CUDA_KERNEL_NODE_PARAMS_v2){.func = e->mark,
                                        .gridDimX = s->grid[0],
                                        .gridDimY = s->grid[1],
                                        .gridDimZ = s->grid[2],
                                        .blockDimX = e->block,
                                        .blockDimY = 1,
                                        .blockDimZ = 1,
                                        .kernelParams = room};
}

static CUgraphNode add(struct exact *e, CUgraph graph, const struct shape *s, CUdeviceptr *out,
                       const CUgraphNode *behind)
{
    void *room[2];
    CUDA_KERNEL_NODE_PARAMS_v2 p = node_params(e, s, out, room);
    CUgraphNode node;
    G(cuGraphAddKernelNode, &node, graph, behind, behind != NULL, &p);
    return node;
}

static void set(struct exact *e, CUgraphExec exec, CUgraphNode node, const struct shape *s, CUdeviceptr *out)
{
    void *room[2];
    CUDA_KERNEL_NODE_PARAMS_v2 p = node_params(e, s, out, room);
    G(cuGraphExecKernelNodeSetParams, exec, node, &p);
}

static void replay(struct exact *e, CUgraphExec exec, int times)
{
    for (int i = 0; i < times; i++)
        G(cuGraphLaunch, exec, e->ctx.stream);
}

static void check_at(struct exact *e, CUdeviceptr at, const struct shape *s, uint32_t want, const char *what)
{
    CU(cuCtxSynchronize);
    CU(cuMemcpyDtoH, e->got, at, exact_blocks(s) * sizeof *e->got);
    exact_compare(e, e->got, exact_blocks(s), want, what);
}

/* ---- shapes */

static void two_kernels(struct exact *e)
{
    static const struct shape large = {{30011, 1, 1}, {1, 1, 1}}, slices = {{7, 5000, 1}, {1, 1, 1}};
    exact_launch(e, &large, e->other);
    exact_launch(e, &slices, e->other);
}

/* A graph that was captured is destroyed once it is instantiated, as frameworks do. */
static void line(struct exact *e)
{
    CUgraphExec exec;
    exact_clear(e);
    CUgraph graph = captured(e, two_kernels);
    CU(cuMemcpyDtoH, e->got, e->out, BYTES);
    exact_compare(e, e->got, SOME, 0, "captured, and so not run");
    G(cuGraphInstantiateWithFlags, &exec, graph, 0);
    G(cuGraphDestroy, graph);
    replay(e, exec, REPLAYS);
    exact_launch(e, &some, e->ctx.stream);
    exact_check(e, SOME, 2 * REPLAYS + 1, "a graph of two kernels, three times, and one behind it");
    G(cuGraphExecDestroy, exec);
}

/* Kernels that look alike, one behind the other, and one of clusters. */
static void alike_kernels(struct exact *e)
{
    for (int i = 0; i < 4; i++)
        exact_launch(e, &some, e->other);
    if (e->cc_major >= 9)
        exact_launch_ex(e, &clustered, e->other, 0, 0);
    else
        exact_launch(e, &clustered, e->other);
}

static void alike(struct exact *e)
{
    CUgraphExec exec;
    CUDA_GRAPH_INSTANTIATE_PARAMS p = {.flags = CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD,
                                       .hUploadStream = e->ctx.stream};
    exact_clear(e);
    CUgraph graph = captured(e, alike_kernels);
    G(cuGraphInstantiateWithParams, &exec, graph, &p);
    replay(e, exec, REPLAYS);
    exact_check(e, SOME, 5 * REPLAYS, "a graph of kernels that are alike");
    G(cuGraphExecDestroy, exec);
    G(cuGraphDestroy, graph);
}

/* Out is set to 0, counted twice and copied; out2 beside it; what is behind both finds both done: it copies out2 over the copy of out's
 * first half, and counts out once more. */
static void branches(struct exact *e)
{
    size_t half = BYTES / 2 / sizeof(uint32_t) * sizeof(uint32_t);
    CUdeviceptr out = e->out;
    G(cuMemsetD32Async, e->out, 0, BYTES / sizeof(uint32_t), e->other);
    G(cuMemsetD32Async, e->out2, 0, BYTES / sizeof(uint32_t), e->other);
    CU(cuEventRecord, e->event, e->other);
    G(cuStreamWaitEvent, e->ctx.stream, e->event, 0);
    exact_launch(e, &some, e->other);
    exact_launch(e, &flat, e->other);
    G(cuMemcpyDtoDAsync, e->copy, e->out, BYTES, e->other);
    e->out = e->out2;
    exact_launch(e, &flat, e->ctx.stream);
    exact_launch(e, &some, e->ctx.stream);
    e->out = out;
    CU(cuEventRecord, e->event, e->ctx.stream);
    G(cuStreamWaitEvent, e->other, e->event, 0);
    exact_launch(e, &some, e->other);
    G(cuMemcpyDtoDAsync, e->copy, e->out2, half, e->other);
}

static void fan(struct exact *e)
{
    CUgraphExec exec;
    exact_clear(e);
    CUgraph graph = captured(e, branches);
    G(cuGraphInstantiateWithFlags, &exec, graph, 0);
    for (int i = 0; i < REPLAYS; i++) {
        replay(e, exec, 1);
        check_at(e, e->out, &some, 3, "two branches that join: what is behind both");
        check_at(e, e->copy, &some, 2, "a copy behind the kernels of its branch, and one behind the other's");
    }
    G(cuGraphExecDestroy, exec);
    G(cuGraphDestroy, graph);
}

/* One node that others hang on: two kernels beside each other, and a graph within the graph. */
static void child(struct exact *e)
{
    CUgraph graph, inner;
    CUgraphNode node;
    CUgraphExec exec;
    exact_clear(e);
    G(cuGraphCreate, &graph, 0);
    G(cuGraphCreate, &inner, 0);
    node = add(e, inner, &some, &e->out, NULL);
    add(e, inner, &some, &e->out, &node);
    CUgraphNode first = add(e, graph, &flat, &e->out, NULL);
    add(e, graph, &some, &e->out2, &first);
    add(e, graph, &flat, &e->out2, &first);
    G(cuGraphAddChildGraphNode, &node, graph, &first, 1, inner);
    add(e, graph, &some, &e->out, &node);
    G(cuGraphDestroy, inner);
    G(cuGraphInstantiateWithFlags, &exec, graph, 0);
    G(cuGraphUpload, exec, e->ctx.stream);
    replay(e, exec, REPLAYS);
    check_at(e, e->out, &some, 4 * REPLAYS, "a graph within a graph");
    check_at(e, e->out2, &some, 2 * REPLAYS, "kernels beside each other behind one");
    G(cuGraphExecDestroy, exec);
    G(cuGraphDestroy, graph);
}

/* ---- changes */

struct trio {
    CUgraph graph;
    CUgraphNode node[3];
    CUgraphExec exec;
};

/* Three kernels in a line; the last counts elsewhere, is of one wave, and stays whole. */
static struct trio trio(struct exact *e, CUdeviceptr *out)
{
    static const struct shape small = {{64, 1, 1}, {1, 1, 1}};
    struct trio t;
    G(cuGraphCreate, &t.graph, 0);
    t.node[0] = add(e, t.graph, &some, out, NULL);
    t.node[1] = add(e, t.graph, &some, out, &t.node[0]);
    t.node[2] = add(e, t.graph, &small, &e->copy, &t.node[1]);
    G(cuGraphInstantiateWithFlags, &t.exec, t.graph, 0);
    return t;
}

static void trio_end(const struct trio *t)
{
    G(cuGraphExecDestroy, t->exec);
    G(cuGraphDestroy, t->graph);
}

static void parameters(struct exact *e)
{
    static const struct shape larger = {{8009, 1, 1}, {1, 1, 1}}, small = {{100, 1, 1}, {1, 1, 1}};
    exact_clear(e);
    struct trio t = trio(e, &e->out);
    replay(e, t.exec, 1);
    set(e, t.exec, t.node[1], &some, &e->out2);
    replay(e, t.exec, 2);
    check_at(e, e->out2, &some, 2, "other parameters");
    exact_check(e, SOME, 2 + 2, "the kernel before it");
    set(e, t.exec, t.node[0], &larger, &e->out2);
    replay(e, t.exec, 2);
    check_at(e, e->out2, &some, 2 + 2 * 2, "another grid");
    CU(cuMemcpyDtoH, e->got, e->out2 + SOME * sizeof(uint32_t), (8009 - SOME) * sizeof(uint32_t));
    exact_compare(e, e->got, 8009 - SOME, 2, "what is more of it");
    set(e, t.exec, t.node[2], &some, &e->out2);
    set(e, t.exec, t.node[0], &small, &e->out2);
    exact_clear(e);
    replay(e, t.exec, 2);
    check_at(e, e->out2, &small, 2 * 3, "a small grid made large, and a large one small");
    trio_end(&t);
}

static void switched(struct exact *e)
{
    unsigned on;
    exact_clear(e);
    struct trio t = trio(e, &e->out);
    G(cuGraphNodeSetEnabled, t.exec, t.node[0], 0);
    replay(e, t.exec, 1);
    G(cuGraphNodeGetEnabled, t.exec, t.node[0], &on);
    exact_check(e, SOME, on ? 0 : 1, "a node switched off before the first launch");
    G(cuGraphNodeSetEnabled, t.exec, t.node[0], 1);
    replay(e, t.exec, 2);
    exact_check(e, SOME, 1 + 2 * 2, "on again");
    G(cuGraphNodeSetEnabled, t.exec, t.node[1], 0);
    set(e, t.exec, t.node[1], &some, &e->out2);
    G(cuGraphLaunch, t.exec, e->other); /* of one graph, one launch is behind the other */
    G(cuGraphNodeSetEnabled, t.exec, t.node[1], 1);
    replay(e, t.exec, 1);
    check_at(e, e->out2, &some, 1, "changed while it is off");
    exact_check(e, SOME, 5 + 1 + 1, "the one before it");
    trio_end(&t);
}

static void updated(struct exact *e)
{
    CUgraphExecUpdateResultInfo_v1 info;
    exact_clear(e);
    struct trio t = trio(e, &e->out), other = trio(e, &e->out2);
    replay(e, t.exec, 1);
    for (int i = 1; i <= 3; i++) { /* at once, and after many launches */
        int times = i == 2 ? 20 : 2;
        G(cuGraphExecUpdate, t.exec, i % 2 ? other.graph : t.graph, &info);
        exact_clear(e);
        for (int j = 0; j < times; j++)
            G(cuGraphLaunch, t.exec, j % 2 ? e->other : e->ctx.stream);
        check_at(e, i % 2 ? e->out2 : e->out, &some, 2 * (uint32_t)times, "updated by another graph");
    }
    set(e, t.exec, t.node[0], &some, &e->out);
    exact_clear(e);
    replay(e, t.exec, 2);
    exact_check(e, SOME, 2, "a node of the graph that it was made of, changed");
    trio_end(&t);
    trio_end(&other);
}

void exact_graph_left(struct exact *e)
{
    CUgraph graph;
    CUgraphExec exec;
    exact_clear(e);
    G(cuGraphCreate, &graph, 0);
    add(e, graph, &some, &e->out, NULL);
    G(cuGraphInstantiateWithFlags, &exec, graph, 0);
    G(cuGraphDestroy, graph);
    G(cuGraphLaunch, exec, NULL);
    G(cuGraphLaunch, exec, NULL);
    exact_check(e, SOME, 2, "a graph in another context");
}

void exact_graphs(struct exact *e)
{
    line(e);
    alike(e);
    fan(e);
    child(e);
    parameters(e);
    switched(e);
    updated(e);
}
