/* CUDA graphs of the virtual GPU: made by hand and by capture, asked, cloned, changed; and what the QMD hook sees of it all
 * (docs/hardware.md, "Graphs that are changed"). Each test is a process of its own. */
#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "cuda/cuda_abi.h"
#include "hw/qmd_atom.h"
#include "stub/graph_steps.h"
#include "unit/vgpu_process.h"

#define UNMATCHED 903
#define UNJOINED 904
#define ISOLATION 905
#define CAPTURED_EVENT 907
#define UPDATE_FAILURE 910

#define BAD(call) IS(call, CUDA_ERROR_INVALID_VALUE)

typedef CUDA_KERNEL_NODE_PARAMS_v1 params_v1;
typedef CUDA_KERNEL_NODE_PARAMS_v2 params_v2;
typedef CUgraphExecUpdateResultInfo_v1 update_info;

#define FUNCTIONS(X)                                                                                         \
    X(cuInit, unsigned)                                                                                      \
    X(cuDevicePrimaryCtxRetain, CUcontext *, int)                                                            \
    X(cuCtxSetCurrent, CUcontext)                                                                            \
    X(cuModuleLoadData, CUmodule *, const void *)                                                            \
    X(cuModuleGetFunction, CUfunction *, CUmodule, const char *)                                             \
    X(cuLaunchKernel, CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,      \
      CUstream, void **, void **)                                                                            \
    X(cuMemAlloc_v2, CUdeviceptr *, size_t)                                                                  \
    X(cuMemcpyDtoH_v2, void *, CUdeviceptr, size_t)                                                          \
    X(cuMemcpyHtoD_v2, CUdeviceptr, const void *, size_t)                                                    \
    X(cuMemsetD32Async, CUdeviceptr, unsigned, size_t, CUstream)                                             \
    X(cuStreamCreate, CUstream *, unsigned)                                                                  \
    X(cuStreamDestroy_v2, CUstream)                                                                          \
    X(cuStreamSynchronize, CUstream)                                                                         \
    X(cuStreamIsCapturing, CUstream, int *)                                                                  \
    X(cuStreamBeginCapture_v2, CUstream, int)                                                                \
    X(cuStreamEndCapture, CUstream, CUgraph *)                                                               \
    X(cuStreamWaitEvent, CUstream, CUevent, unsigned)                                                        \
    X(cuEventCreate, CUevent *, unsigned)                                                                    \
    X(cuEventRecord, CUevent, CUstream)                                                                      \
    X(cuEventQuery, CUevent)                                                                                 \
    X(cuEventSynchronize, CUevent)                                                                           \
    X(cuGraphCreate, CUgraph *, unsigned)                                                                    \
    X(cuGraphDestroy, CUgraph)                                                                               \
    X(cuGraphClone, CUgraph *, CUgraph)                                                                      \
    X(cuGraphNodeFindInClone, CUgraphNode *, CUgraphNode, CUgraph)                                           \
    X(cuGraphGetNodes, CUgraph, CUgraphNode *, size_t *)                                                     \
    X(cuGraphGetRootNodes, CUgraph, CUgraphNode *, size_t *)                                                 \
    X(cuGraphGetEdges, CUgraph, CUgraphNode *, CUgraphNode *, size_t *)                                      \
    X(cuGraphGetEdges_v2, CUgraph, CUgraphNode *, CUgraphNode *, CUgraphEdgeData *, size_t *)                \
    X(cuGraphNodeGetType, CUgraphNode, int *)                                                                \
    X(cuGraphNodeGetDependencies, CUgraphNode, CUgraphNode *, size_t *)                                      \
    X(cuGraphNodeGetDependencies_v2, CUgraphNode, CUgraphNode *, CUgraphEdgeData *, size_t *)                \
    X(cuGraphNodeGetDependentNodes, CUgraphNode, CUgraphNode *, size_t *)                                    \
    X(cuGraphAddDependencies, CUgraph, const CUgraphNode *, const CUgraphNode *, size_t)                     \
    X(cuGraphAddDependencies_v2, CUgraph, const CUgraphNode *, const CUgraphNode *, const CUgraphEdgeData *, \
      size_t)                                                                                                \
    X(cuGraphRemoveDependencies, CUgraph, const CUgraphNode *, const CUgraphNode *, size_t)                  \
    X(cuGraphNodeGetDependentNodes_v2, CUgraphNode, CUgraphNode *, CUgraphEdgeData *, size_t *)              \
    X(cuGraphRemoveDependencies_v2, CUgraph, const CUgraphNode *, const CUgraphNode *,                       \
      const CUgraphEdgeData *, size_t)                                                                       \
    X(cuGraphAddChildGraphNode, CUgraphNode *, CUgraph, const CUgraphNode *, size_t, CUgraph)                \
    X(cuGraphChildGraphNodeGetGraph, CUgraphNode, CUgraph *)                                                 \
    X(cuGraphDestroyNode, CUgraphNode)                                                                       \
    X(cuGraphAddEmptyNode, CUgraphNode *, CUgraph, const CUgraphNode *, size_t)                              \
    X(cuGraphAddKernelNode, CUgraphNode *, CUgraph, const CUgraphNode *, size_t, const params_v1 *)          \
    X(cuGraphAddKernelNode_v2, CUgraphNode *, CUgraph, const CUgraphNode *, size_t, const params_v2 *)       \
    X(cuGraphKernelNodeGetParams, CUgraphNode, params_v1 *)                                                  \
    X(cuGraphKernelNodeGetParams_v2, CUgraphNode, params_v2 *)                                               \
    X(cuGraphKernelNodeSetParams_v2, CUgraphNode, const params_v2 *)                                         \
    X(cuGraphKernelNodeGetAttribute, CUgraphNode, int, CUlaunchAttributeValue *)                             \
    X(cuGraphKernelNodeSetAttribute, CUgraphNode, int, const CUlaunchAttributeValue *)                       \
    X(cuGraphKernelNodeCopyAttributes, CUgraphNode, CUgraphNode)                                             \
    X(cuGraphInstantiateWithFlags, CUgraphExec *, CUgraph, unsigned long long)                               \
    X(cuGraphInstantiateWithParams, CUgraphExec *, CUgraph, CUDA_GRAPH_INSTANTIATE_PARAMS *)                 \
    X(cuGraphExecDestroy, CUgraphExec)                                                                       \
    X(cuGraphExecGetFlags, CUgraphExec, unsigned long long *)                                                \
    X(cuGraphExecKernelNodeSetParams, CUgraphExec, CUgraphNode, const params_v1 *)                           \
    X(cuGraphExecKernelNodeSetParams_v2, CUgraphExec, CUgraphNode, const params_v2 *)                        \
    X(cuGraphNodeSetEnabled, CUgraphExec, CUgraphNode, unsigned)                                             \
    X(cuGraphNodeGetEnabled, CUgraphExec, CUgraphNode, unsigned *)                                           \
    X(cuGraphExecUpdate, CUgraphExec, CUgraph, CUgraphNode *, int *)                                         \
    X(cuGraphExecUpdate_v2, CUgraphExec, CUgraph, update_info *)                                             \
    X(cuGraphUpload, CUgraphExec, CUstream)                                                                  \
    X(cuGraphLaunch, CUgraphExec, CUstream)                                                                  \
    X(cuGetExportTable, const void **, const CUuuid *)

#define X(name, ...) static int (*name)(__VA_ARGS__);
FUNCTIONS(X)
#undef X

static struct fake_server server;
static CUfunction step, plus;
static CUdeviceptr out;
static CUstream s, other;

/* ---- the hook: each QMD gets the TPCs of its turn, once; a QMD that had some before shows them */

#define SEEN_MAX 64

static struct seen {
    struct lithos_qmd_view view; /* as the driver showed it */
    CUfunction function;
    bool latch;
} seen[SEEN_MAX];
static unsigned fired, masks;

static void on_qmd(void *user, int domain, int id, const void *params)
{
    const uint64_t *words = params;
    void *qmd = (void *)(uintptr_t)words[LITHOS_QMD_PARAMS_QMD];
    const struct lithos_qmd_layout *layout;
    (void)user;
    CHECK(domain == LITHOS_QMD_DOMAIN && id == LITHOS_QMD_CALLBACK_ID && fired < SEEN_MAX);
    CHECK(lithos_qmd_identify(9, 0, qmd, false, &layout) == 0);
    lithos_qmd_decode(layout, qmd, &seen[fired].view);
    seen[fired].function = (CUfunction)(uintptr_t)words[LITHOS_QMD_PARAMS_FUNCTION];
    seen[fired].latch = lithos_qmd_waits_on_latch(layout, qmd);
    if (!seen[fired].view.masked) {
        struct lithos_tpcset one = {{1ull << masks++, 0}};
        CHECK(lithos_qmd_set_tpcs(layout, qmd, &one) == 0);
    }
    fired++;
}

/* The only TPC of a QMD that came again, or -1: it came for the first time. */
static int mask_of(unsigned i)
{
    return seen[i].view.masked ? __builtin_ctzll(seen[i].view.tpcs.w[0]) : -1;
}

/* ---- what the tests do over and over */

static const char ptx[] =
    PTX_BEGIN PTX_STEP ".visible .entry plus(.param .u64 p_out, .param .u64 p_k)\n{\n"
                       ".reg .b64 %rd<6>;\nld.param.u64 %rd1, [p_out]; ld.param.u64 %rd2, [p_k];\n"
                       "ld.global.u64 %rd3, [%rd1];\nadd.s64 %rd5, %rd3, %rd2;\n"
                       "st.global.u64 [%rd1], %rd5;\nret;\n}\n";

static void start(void)
{
    static const CUuuid id = LITHOS_QMD_TABLE_UUID;
    const void *const *table;
    uint32_t handle;
    CUcontext primary;
    CUmodule m;
    fake_server_start(&server);
    void *lib = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!lib)
        fprintf(stderr, "%s\n", dlerror());
    CHECK(lib);
#define X(name, ...) CHECK((name = (int (*)(__VA_ARGS__))dlsym(lib, #name)));
    FUNCTIONS(X)
#undef X
    OK(cuInit(0));
    OK(cuDevicePrimaryCtxRetain(&primary, 0));
    OK(cuCtxSetCurrent(primary));
    OK(cuModuleLoadData(&m, ptx));
    OK(cuModuleGetFunction(&step, m, "step"));
    OK(cuModuleGetFunction(&plus, m, "plus"));
    OK(cuMemAlloc_v2(&out, 8));
    OK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    OK(cuStreamCreate(&other, CU_STREAM_NON_BLOCKING));
    OK(cuGetExportTable((const void **)&table, &id));
    OK(((lithos_qmd_subscribe_fn)table[LITHOS_QMD_TABLE_SUBSCRIBE])(&handle, on_qmd, NULL));
    OK(((lithos_qmd_enable_fn)table[LITHOS_QMD_TABLE_ENABLE])(1, handle, LITHOS_QMD_DOMAIN,
                                                              LITHOS_QMD_CALLBACK_ID));
}

static params_v2 kernel(CUfunction f, unsigned blocks, uint64_t k)
{
    return step_node(f, &out, blocks, k);
}

static CUgraphNode add_step(CUgraph g, const CUgraphNode *deps, size_t count, uint64_t k)
{
    const params_v2 p = kernel(step, 1, k);
    CUgraphNode n;
    OK(cuGraphAddKernelNode_v2(&n, g, deps, count, &p));
    return n;
}

/* A graph of the digits 1, 2, 3 in a line. */
static CUgraph line(CUgraphNode ret_nodes[3])
{
    CUgraph g;
    OK(cuGraphCreate(&g, 0));
    for (uint64_t i = 0; i < 3; i++)
        ret_nodes[i] = add_step(g, i ? &ret_nodes[i - 1] : NULL, i > 0, i + 1);
    return g;
}

static CUgraphExec exec_of(CUgraph g)
{
    CUgraphExec x;
    OK(cuGraphInstantiateWithFlags(&x, g, 0));
    return x;
}

static uint64_t result_on(CUgraphExec x, CUstream stream)
{
    uint64_t v = 0;
    OK(cuMemcpyHtoD_v2(out, &v, sizeof v));
    OK(cuGraphLaunch(x, stream));
    OK(cuStreamSynchronize(stream));
    OK(cuMemcpyDtoH_v2(&v, out, sizeof v));
    return v;
}

static uint64_t result(CUgraphExec x)
{
    return result_on(x, s);
}

static int launch_step(CUstream stream, uint64_t k)
{
    void *params[] = {&out, &k};
    return cuLaunchKernel(step, 1, 1, 1, 1, 1, 1, 0, stream, params, NULL);
}

/* ---- tests */

static void made_by_hand_body(void)
{
    start();
    CUgraph g;
    CUgraphNode n[4], got[8];
    size_t count;
    int type;
    OK(cuGraphCreate(&g, 0));
    for (unsigned i = 0; i < 3; i++)
        n[i] = add_step(g, NULL, 0, i + 1);
    OK(cuGraphAddEmptyNode(&n[3], g, NULL, 0));
    /* 3 before 2 before nothing before 1: made in another order than they run in */
    const CUgraphNode from[] = {n[2], n[1], n[3]}, to[] = {n[1], n[3], n[0]};
    OK(cuGraphAddDependencies(g, from, to, 3));
    BAD(cuGraphAddDependencies(g, from, to, 1)); /* that edge is there */
    BAD(cuGraphAddDependencies(g, from, from, 1));
    CHECK(result(exec_of(g)) == 321);
    OK(cuGraphNodeGetType(n[0], &type));
    CHECK(type == CU_GRAPH_NODE_TYPE_KERNEL);
    OK(cuGraphNodeGetType(n[3], &type));
    CHECK(type == CU_GRAPH_NODE_TYPE_EMPTY);
    /* how many, all, more room than there are, less */
    OK(cuGraphGetNodes(g, NULL, &count));
    CHECK(count == 4);
    count = 8;
    OK(cuGraphGetNodes(g, got, &count));
    CHECK(count == 4 && !memcmp(got, n, sizeof n) && !got[4] && !got[7]);
    count = 2;
    OK(cuGraphGetNodes(g, got, &count));
    CHECK(count == 2);
    count = 8;
    OK(cuGraphGetRootNodes(g, got, &count));
    CHECK(count == 1 && got[0] == n[2]);
    count = 8;
    OK(cuGraphNodeGetDependencies(n[0], got, &count));
    CHECK(count == 1 && got[0] == n[3]);
    CUgraphEdgeData data[8];
    memset(data, 0xff, sizeof data);
    count = 8;
    OK(cuGraphNodeGetDependencies_v2(n[1], got, data, &count));
    CHECK(count == 1 && got[0] == n[2] && data[0].type == 0 && data[0].from_port == 0);
    count = 8;
    OK(cuGraphNodeGetDependentNodes(n[2], got, &count));
    CHECK(count == 1 && got[0] == n[1]);
    CUgraphNode edge_to[8];
    count = 8;
    OK(cuGraphGetEdges(g, got, edge_to, &count));
    CHECK(count == 3 && got[0] == n[3] && edge_to[0] == n[0]);
    BAD(cuGraphGetEdges(g, got, NULL, &count));
    OK(cuGraphGetEdges_v2(g, NULL, NULL, NULL, &count));
    CHECK(count == 3);
    /* in a circle nothing can begin */
    OK(cuGraphAddDependencies_v2(g, &n[0], &n[2], NULL, 1));
    CUgraphExec x;
    BAD(cuGraphInstantiateWithFlags(&x, g, 0));
    OK(cuGraphRemoveDependencies(g, &n[0], &n[2], 1));
    BAD(cuGraphRemoveDependencies(g, &n[0], &n[2], 1));
    /* what depended on a node that goes waits for the rest alone */
    OK(cuGraphDestroyNode(n[1]));
    BAD(cuGraphNodeGetType(n[1], &type));
    OK(cuGraphGetEdges(g, NULL, NULL, &count));
    CHECK(count == 1);
    CHECK(result(exec_of(g)) == 31 || result(exec_of(g)) == 13);
    /* another graph's nodes are none of ours */
    CUgraphNode mine[3], added;
    CUgraph h = line(mine);
    const params_v2 p = kernel(step, 1, 9);
    BAD(cuGraphAddKernelNode_v2(&added, g, mine, 1, &p));
    BAD(cuGraphAddDependencies(g, &mine[0], &n[0], 1));
    OK(cuGraphDestroy(h));
    BAD(cuGraphAddKernelNode_v2(&added, h, NULL, 0, &p));
    BAD(cuGraphNodeGetType(mine[0], &type));
    BAD(cuGraphAddKernelNode(&added, g, NULL, 0, NULL));
    CUgraphEdgeData programmatic = {.type = CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC};
    IS(cuGraphAddDependencies_v2(g, &n[2], &n[0], &programmatic, 1), CUDA_ERROR_NOT_SUPPORTED);
    programmatic.from_port = CU_GRAPH_KERNEL_NODE_PORT_LAUNCH_ORDER;
    BAD(cuGraphAddDependencies_v2(g, &n[2], &n[3], &programmatic, 1)); /* not of a kernel */
}

static void captured_body(void)
{
    start();
    CUgraph g;
    CUevent fork, join, unused;
    CUgraphNode n[8], deps[8];
    size_t count = 8;
    int type, status;
    OK(cuEventCreate(&fork, CU_EVENT_DISABLE_TIMING));
    OK(cuEventCreate(&join, CU_EVENT_DISABLE_TIMING));
    OK(cuEventCreate(&unused, CU_EVENT_DISABLE_TIMING));
    OK(cuStreamBeginCapture_v2(s, 0));
    OK(launch_step(s, 1));
    IS(cuStreamWaitEvent(s, unused, 0), ISOLATION);
    OK(cuEventRecord(fork, s));
    OK(cuStreamWaitEvent(other, fork, 0));
    OK(cuStreamIsCapturing(other, &status));
    CHECK(status == 1);
    OK(launch_step(s, 2));
    OK(cuMemsetD32Async(out + 4, 0, 1, other));
    OK(launch_step(other, 3));
    IS(cuStreamEndCapture(other, &g), UNMATCHED);
    IS(cuEventQuery(fork), CAPTURED_EVENT);
    IS(cuEventSynchronize(fork), CAPTURED_EVENT);
    OK(cuEventRecord(join, other));
    OK(cuStreamWaitEvent(s, join, 0));
    OK(launch_step(s, 4));
    OK(cuStreamEndCapture(s, &g));
    CHECK(fired == 0);
    OK(cuStreamIsCapturing(other, &status));
    CHECK(status == 0);
    OK(cuGraphGetNodes(g, n, &count));
    CHECK(count == 5); /* an event is no node */
    static const struct {
        int type;
        size_t deps;
        int dep[2];
    } want[] = {{CU_GRAPH_NODE_TYPE_KERNEL, 0, {0}},
                {CU_GRAPH_NODE_TYPE_KERNEL, 1, {0}},
                {CU_GRAPH_NODE_TYPE_MEMSET, 1, {0}},
                {CU_GRAPH_NODE_TYPE_KERNEL, 1, {2}},
                {CU_GRAPH_NODE_TYPE_KERNEL, 2, {1, 3}}};
    for (unsigned i = 0; i < 5; i++) {
        OK(cuGraphNodeGetType(n[i], &type));
        count = 8;
        OK(cuGraphNodeGetDependencies(n[i], deps, &count));
        CHECK(type == want[i].type && count == want[i].deps);
        for (size_t d = 0; d < count; d++)
            CHECK(deps[d] == n[want[i].dep[d]]);
    }
    uint64_t v = result(exec_of(g));
    CHECK(v == 1234 || v == 1324);
    IS(cuStreamWaitEvent(s, join, 0), CAPTURED_EVENT); /* that capture is over */
    OK(cuEventRecord(join, s));
    OK(cuEventSynchronize(join));
    /* a stream that is not waited for */
    OK(cuStreamBeginCapture_v2(s, 0));
    OK(cuEventRecord(fork, s));
    OK(cuStreamWaitEvent(other, fork, 0));
    OK(launch_step(other, 1));
    IS(cuStreamEndCapture(s, &g), UNJOINED);
    CHECK(g == NULL);
    OK(launch_step(other, 1));
    CHECK(fired == 6); /* five nodes, and this one */
    OK(cuStreamBeginCapture_v2(other, 0));
    OK(launch_step(other, 1));
    OK(cuStreamDestroy_v2(other)); /* with what it captures */
}

static void parameters_body(void)
{
    start();
    CUgraphNode n[3];
    CUgraph g = line(n);
    params_v2 p;
    params_v1 p1;
    OK(cuGraphKernelNodeGetParams_v2(n[1], &p));
    CHECK(p.func == step && p.gridDimX == 1 && p.blockDimX == 1 && p.sharedMemBytes == 0 && !p.extra);
    CHECK(*(CUdeviceptr *)p.kernelParams[0] == out && *(uint64_t *)p.kernelParams[1] == 2);
    OK(cuGraphKernelNodeGetParams(n[1], &p1));
    CHECK(p1.func == step && *(uint64_t *)p1.kernelParams[1] == 2);
    /* what was asked for can be given back, a little changed */
    CUgraphExec before = exec_of(g);
    uint64_t five = 5;
    OK(cuGraphKernelNodeGetParams_v2(n[1], &p));
    p.kernelParams[1] = &five;
    p.gridDimX = 2;
    OK(cuGraphKernelNodeSetParams_v2(n[1], &p));
    five = 6; /* copied by then */
    CHECK(result(before) == 123);
    CHECK(result(exec_of(g)) == 1553);
    /* refused, and nothing is changed */
    OK(cuGraphKernelNodeGetParams_v2(n[1], &p));
    p.gridDimX = 0;
    BAD(cuGraphKernelNodeSetParams_v2(n[1], &p));
    p.gridDimX = 1;
    p.kernelParams = NULL;
    BAD(cuGraphKernelNodeSetParams_v2(n[1], &p));
    CHECK(result(exec_of(g)) == 1553);
    /* attributes */
    CUlaunchAttributeValue v = {0};
    v.clusterDim.x = 2;
    v.clusterDim.y = v.clusterDim.z = 1;
    BAD(cuGraphKernelNodeSetAttribute(n[0], CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION, &v)); /* a grid of 1 */
    OK(cuGraphKernelNodeSetAttribute(n[1], CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION, &v));
    OK(cuGraphKernelNodeSetAttribute(n[0], CU_LAUNCH_ATTRIBUTE_COOPERATIVE,
                                     &(CUlaunchAttributeValue){.cooperative = 1}));
    OK(cuGraphKernelNodeGetAttribute(n[1], CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION, &v));
    CHECK(v.clusterDim.x == 2 && v.clusterDim.z == 1);
    OK(cuGraphKernelNodeCopyAttributes(n[2], n[0]));
    OK(cuGraphKernelNodeGetAttribute(n[2], CU_LAUNCH_ATTRIBUTE_COOPERATIVE, &v));
    CHECK(v.cooperative == 1);
    fired = 0;
    CHECK(result(exec_of(g)) == 1553);
    CHECK(seen[1].view.type == LITHOS_QMD_TYPE_CLUSTERS && seen[1].view.cluster[0] == 2);
    IS(cuGraphKernelNodeGetAttribute(n[0], 77, &v), CUDA_ERROR_NOT_SUPPORTED);
    CUgraphNode empty;
    OK(cuGraphAddEmptyNode(&empty, g, NULL, 0));
    BAD(cuGraphKernelNodeGetParams_v2(empty, &p));
}

static void changed_exec_body(void)
{
    start();
    CUgraphNode n[3];
    CUgraph g = line(n);
    CUgraphExec x = exec_of(g);
    params_v2 p;
    unsigned on;
    CHECK(fired == 0);
    CHECK(result(x) == 123 && fired == 3 && seen[2].function == step);
    for (unsigned i = 0; i < 3; i++)
        CHECK(mask_of(i) == -1);
    CHECK(result(x) == 123 && result_on(x, other) == 123 && fired == 3); /* no replay, no other stream */
    /* other arguments: nothing of them is in the QMD */
    p = kernel(step, 1, 7);
    OK(cuGraphExecKernelNodeSetParams_v2(x, n[1], &p));
    CHECK(result(x) == 173 && fired == 3);
    /* another grid: once, in the next launch, made from the QMD that went to the card */
    p = kernel(step, 2, 8);
    OK(cuGraphExecKernelNodeSetParams_v2(x, n[1], &p));
    CHECK(fired == 3);
    CHECK(result(x) == 1883 && fired == 4);
    CHECK(seen[3].view.grid[0] == 2 && mask_of(3) == 1);
    CHECK(result(x) == 1883 && fired == 4);
    /* another function */
    p = kernel(plus, 1, 5);
    OK(cuGraphExecKernelNodeSetParams(x, n[2], (const params_v1 *)&p));
    CHECK(result(x) == 188 + 5 && fired == 5);
    CHECK(seen[4].function == plus && seen[4].view.entry != seen[2].view.entry && mask_of(4) == 2);
    /* off: an empty grid, and it does not run; on again with what it had */
    OK(cuGraphNodeSetEnabled(x, n[1], 0));
    OK(cuGraphNodeGetEnabled(x, n[1], &on));
    CHECK(on == 0 && fired == 5);
    CHECK(result(x) == 1 + 5 && fired == 7);
    CHECK(mask_of(5) == 0 && seen[5].view.grid[0] == 1); /* the one before it, as it is */
    CHECK(seen[6].view.grid[0] == 0 && mask_of(6) == 1);
    CHECK(result(x) == 1 + 5 && fired == 7);
    OK(cuGraphNodeSetEnabled(x, n[1], 1));
    CHECK(result(x) == 188 + 5 && fired == 9);
    CHECK(seen[8].view.grid[0] == 2 && seen[8].view.entry == seen[3].view.entry && mask_of(8) == 1);
    /* off and on with no launch between: the way to have every mask made anew; an upload does it too */
    for (unsigned i = 0; i < 3; i++) {
        OK(cuGraphNodeSetEnabled(x, n[i], 0));
        OK(cuGraphNodeSetEnabled(x, n[i], 1));
    }
    OK(cuGraphNodeSetEnabled(x, n[0], 1)); /* it is */
    OK(cuGraphUpload(x, s));
    CHECK(fired == 12);
    for (unsigned i = 0; i < 3; i++)
        CHECK(mask_of(9 + i) == (int)i && seen[9 + i].view.grid[0] == (i == 1 ? 2 : 1));
    CHECK(result(x) == 188 + 5 && fired == 12);
    /* changed while it is off */
    OK(cuGraphNodeSetEnabled(x, n[1], 0));
    p = kernel(step, 3, 4);
    OK(cuGraphExecKernelNodeSetParams_v2(x, n[1], &p));
    CHECK(result(x) == 1 + 5 && fired == 14 && seen[13].view.grid[0] == 0);
    OK(cuGraphNodeSetEnabled(x, n[1], 1));
    CHECK(result(x) == 1444 + 5 && fired == 16 && seen[15].view.grid[0] == 3 && mask_of(15) == 1);
    /* an exec is its own: another of the graph begins anew */
    CHECK(result(exec_of(g)) == 123 && fired == 19 && mask_of(18) == -1);
    BAD(cuGraphNodeSetEnabled(x, n[1], 2));
    OK(cuGraphDestroy(g));
    BAD(cuGraphNodeSetEnabled(x, n[1], 0)); /* the node is gone with its graph */
    CHECK(result(x) == 1444 + 5);
    OK(cuGraphExecDestroy(x));
    BAD(cuGraphLaunch(x, s));
}

static void updated_body(void)
{
    start();
    CUgraphNode n[3], m[3], error;
    CUgraph g = line(n), h = line(m);
    CUgraphExec x = exec_of(g);
    update_info info;
    params_v2 p = kernel(step, 2, 9);
    int why;
    CHECK(result(x) == 123 && fired == 3);
    OK(cuGraphExecUpdate_v2(x, h, &info));
    CHECK(info.result == CU_GRAPH_EXEC_UPDATE_SUCCESS && !info.errorNode);
    CHECK(result(x) == 123 && fired == 3); /* nothing is different */
    OK(cuGraphKernelNodeSetParams_v2(m[1], &p));
    p = kernel(step, 1, 8);
    OK(cuGraphKernelNodeSetParams_v2(m[2], &p));
    OK(cuGraphExecUpdate(x, h, &error, &why));
    CHECK(why == CU_GRAPH_EXEC_UPDATE_SUCCESS && fired == 3);
    CHECK(result(x) == 1998 && fired == 4 && mask_of(3) == 1); /* of those changed, the one whose grid is */
    /* still its own graph's nodes name its nodes */
    OK(cuGraphNodeSetEnabled(x, n[1], 0));
    BAD(cuGraphNodeSetEnabled(x, m[1], 0));
    CHECK(result(x) == 18);
    /* what cannot be */
    CUgraphNode extra;
    OK(cuGraphAddEmptyNode(&extra, h, NULL, 0));
    IS(cuGraphExecUpdate_v2(x, h, &info), UPDATE_FAILURE);
    CHECK(info.result == CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED);
    OK(cuGraphDestroyNode(m[2]));
    OK(cuGraphAddDependencies(h, &m[1], &extra, 1));
    IS(cuGraphExecUpdate(x, h, &error, &why), UPDATE_FAILURE);
    CHECK(why == CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED && error == extra);
    CHECK(result(x) == 18);
}

static void cloned_body(void)
{
    start();
    CUgraphNode n[3], c[3], got[4];
    CUgraph g = line(n), clone;
    size_t count = 4;
    OK(cuGraphClone(&clone, g));
    for (unsigned i = 0; i < 3; i++)
        OK(cuGraphNodeFindInClone(&c[i], n[i], clone));
    OK(cuGraphGetNodes(clone, got, &count));
    CHECK(count == 3 && !memcmp(got, c, sizeof c));
    /* the clone is split in two: what was one line in the graph */
    params_v2 p = kernel(step, 1, 9);
    OK(cuGraphKernelNodeSetParams_v2(c[1], &p));
    OK(cuGraphDestroyNode(c[2]));
    BAD(cuGraphNodeFindInClone(&got[0], n[2], clone));
    CHECK(result(exec_of(clone)) == 19 && result(exec_of(g)) == 123);
    OK(cuGraphDestroy(g));
    CHECK(result(exec_of(clone)) == 19);
    count = 4;
    OK(cuGraphNodeGetDependencies(c[1], got, &count));
    CHECK(count == 1 && got[0] == c[0]);
}

/* Launch order: an edge of its own kind, which a clone has, and which the QMD of the later kernel shows. */
static void launch_order_body(void)
{
    start();
    const CUgraphEdgeData order = {.from_port = CU_GRAPH_KERNEL_NODE_PORT_LAUNCH_ORDER,
                                   .type = CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC};
    CUgraph g, clone;
    CUgraphNode n[3], c[3], got[4], to[4];
    CUgraphEdgeData data[4];
    size_t count = 4;
    OK(cuGraphCreate(&g, 0));
    for (unsigned i = 0; i < 3; i++)
        n[i] = add_step(g, NULL, 0, i + 1);
    OK(cuGraphAddDependencies_v2(g, &n[0], &n[1], &order, 1));
    OK(cuGraphAddDependencies_v2(g, &n[1], &n[2], NULL, 1));
    OK(cuGraphGetEdges_v2(g, got, to, data, &count));
    CHECK(count == 2 && to[0] == n[1] && !memcmp(&data[0], &order, sizeof order) && data[1].type == 0);
    BAD(cuGraphRemoveDependencies_v2(g, &n[0], &n[1], NULL, 1)); /* there is no full one */
    BAD(cuGraphRemoveDependencies_v2(g, &n[1], &n[2], &order, 1));
    OK(cuGraphClone(&clone, g));
    for (unsigned i = 0; i < 3; i++)
        OK(cuGraphNodeFindInClone(&c[i], n[i], clone));
    OK(cuGraphRemoveDependencies_v2(g, &n[0], &n[1], &order, 1));
    count = 4;
    OK(cuGraphNodeGetDependencies_v2(n[1], got, data, &count));
    CHECK(count == 0);
    count = 4;
    OK(cuGraphNodeGetDependencies_v2(c[1], got, data, &count));
    CHECK(count == 1 && got[0] == c[0] && !memcmp(&data[0], &order, sizeof order));
    count = 4;
    OK(cuGraphNodeGetDependentNodes_v2(c[0], got, data, &count));
    CHECK(count == 1 && got[0] == c[1] && !memcmp(&data[0], &order, sizeof order));
    CUgraphExec x = exec_of(clone);
    CHECK(result(x) == 123 && fired == 3);
    CHECK(!seen[0].latch && seen[1].latch && !seen[2].latch);
    /* on again: the one behind it in full shows the one before it, the one behind it in launch order does not */
    OK(cuGraphNodeSetEnabled(x, c[1], 0));
    OK(cuGraphNodeSetEnabled(x, c[1], 1));
    CHECK(result(x) == 123 && fired == 4 && seen[3].latch);
    OK(cuGraphNodeSetEnabled(x, c[2], 0));
    OK(cuGraphNodeSetEnabled(x, c[2], 1));
    CHECK(result(x) == 123 && fired == 6 && mask_of(4) == 1 && mask_of(5) == 2);
    params_v2 p = kernel(step, 1, 9);
    OK(cuGraphExecKernelNodeSetParams_v2(x, c[1], &p));
    CHECK(result(x) == 193 && fired == 6); /* parameters alone are not in it */
}

/* A graph within a graph: the node has a copy, whose nodes are changed by handles of their own. */
static void child_body(void)
{
    start();
    CUgraphNode n[3], in[3], node, before, behind;
    CUgraph inner = line(n), own, copy, g;
    int type;
    OK(cuGraphCreate(&g, 0));
    before = add_step(g, NULL, 0, 7);
    OK(cuGraphAddChildGraphNode(&node, g, &before, 1, inner));
    params_v2 p = kernel(step, 1, 8);
    OK(cuGraphAddKernelNode_v2(&behind, g, &node, 1, &p));
    BAD(cuGraphAddChildGraphNode(&node, g, NULL, 0, g));
    OK(cuGraphNodeGetType(node, &type));
    CHECK(type == CU_GRAPH_NODE_TYPE_GRAPH);
    BAD(cuGraphChildGraphNodeGetGraph(behind, &own));
    OK(cuGraphChildGraphNodeGetGraph(node, &own));
    for (unsigned i = 0; i < 3; i++)
        OK(cuGraphNodeFindInClone(&in[i], n[i], own));
    OK(cuGraphDestroy(inner));
    CUgraphExec x = exec_of(g);
    CHECK(result(x) == 71238 && fired == 5);
    p = kernel(step, 1, 9);
    OK(cuGraphExecKernelNodeSetParams_v2(x, in[1], &p));
    OK(cuGraphNodeSetEnabled(x, in[2], 0));
    CHECK(result(x) == 7198);
    /* a clone has a copy too; what is changed in it is its alone */
    CUgraphNode node_copy, in_copy;
    OK(cuGraphClone(&copy, g));
    OK(cuGraphNodeFindInClone(&node_copy, node, copy));
    OK(cuGraphChildGraphNodeGetGraph(node_copy, &own));
    OK(cuGraphNodeFindInClone(&in_copy, in[0], own));
    p = kernel(step, 1, 4);
    OK(cuGraphKernelNodeSetParams_v2(in_copy, &p));
    CHECK(result(exec_of(copy)) == 74238 && result(exec_of(g)) == 71238);
    update_info info;
    OK(cuGraphExecUpdate_v2(x, copy, &info));
    OK(cuGraphNodeSetEnabled(x, in[2], 1));
    CHECK(result(x) == 74238);
    OK(cuGraphDestroy(copy));
    BAD(cuGraphNodeGetType(in_copy, &type)); /* gone with its graph */
    OK(cuGraphDestroy(g));
    CHECK(result(x) == 74238);
}

static void uploaded_when_made_body(void)
{
    start();
    CUgraphNode n[3];
    CUgraph g = line(n);
    CUgraphExec x;
    CUDA_GRAPH_INSTANTIATE_PARAMS p = {.flags = CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD,
                                       .hUploadStream = s,
                                       .hErrNode_out = n[0],
                                       .result_out = 7};
    unsigned long long flags;
    OK(cuGraphInstantiateWithParams(&x, g, &p));
    CHECK(fired == 3 && p.result_out == 0 && !p.hErrNode_out);
    OK(cuGraphExecGetFlags(x, &flags));
    CHECK(flags == CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD);
    CHECK(result(x) == 123 && fired == 3);
    BAD(cuGraphInstantiateWithParams(&x, g, NULL));
}

#define TESTS(X)    \
    X(made_by_hand) \
    X(captured)     \
    X(parameters)   \
    X(changed_exec) \
    X(updated)      \
    X(cloned)       \
    X(launch_order) \
    X(child)        \
    X(uploaded_when_made)

VGPU_TEST_MAIN(TESTS)
