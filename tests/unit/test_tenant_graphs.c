/* CUDA graphs of a tenant whose quota changes: the library over the virtual GPU's driver, with a card and a daemon played by the test.
 * On which TPCs each kernel of each replay may run is what the card is told. Each test is a process of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "hw/graph.h"
#include "hw/qmd.h"
#include "stub/fake_daemon.h"
#include "stub/graph_steps.h"
#include "stub/vgpu_server.h"

#define VGPU_PATH LITHOS_BINARY_DIR "/lib/lithos/vgpu/libcuda.so.1"
#define OK(call) CHECK_EQ(call, CUDA_SUCCESS)

#define FUNCTIONS(X)                                                                                    \
    X(cuInit, unsigned)                                                                                 \
    X(cuDevicePrimaryCtxRetain, CUcontext *, int)                                                       \
    X(cuDevicePrimaryCtxReset_v2, int)                                                                  \
    X(cuCtxSetCurrent, CUcontext)                                                                       \
    X(cuModuleLoadData, CUmodule *, const void *)                                                       \
    X(cuModuleGetFunction, CUfunction *, CUmodule, const char *)                                        \
    X(cuLaunchKernel, CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, \
      CUstream, void **, void **)                                                                       \
    X(cuMemAlloc_v2, CUdeviceptr *, size_t)                                                             \
    X(cuMemcpyDtoH_v2, void *, CUdeviceptr, size_t)                                                     \
    X(cuMemcpyHtoD_v2, CUdeviceptr, const void *, size_t)                                               \
    X(cuMemsetD32Async, CUdeviceptr, unsigned, size_t, CUstream)                                        \
    X(cuStreamCreate, CUstream *, unsigned)                                                             \
    X(cuStreamSynchronize, CUstream)                                                                    \
    X(cuStreamBeginCapture_v2, CUstream, int)                                                           \
    X(cuStreamEndCapture, CUstream, CUgraph *)                                                          \
    X(cuGraphCreate, CUgraph *, unsigned)                                                               \
    X(cuGraphDestroy, CUgraph)                                                                          \
    X(cuGraphGetNodes, CUgraph, CUgraphNode *, size_t *)                                                \
    X(cuGraphAddChildGraphNode, CUgraphNode *, CUgraph, const CUgraphNode *, size_t, CUgraph)           \
    X(cuGraphChildGraphNodeGetGraph, CUgraphNode, CUgraph *)                                            \
    X(cuGraphDestroyNode, CUgraphNode)                                                                  \
    X(cuGraphAddKernelNode_v2, CUgraphNode *, CUgraph, const CUgraphNode *, size_t,                     \
      const CUDA_KERNEL_NODE_PARAMS_v2 *)                                                               \
    X(cuGraphKernelNodeSetAttribute, CUgraphNode, int, const CUlaunchAttributeValue *)                  \
    X(cuGraphInstantiateWithFlags, CUgraphExec *, CUgraph, unsigned long long)                          \
    X(cuGraphInstantiateWithParams, CUgraphExec *, CUgraph, CUDA_GRAPH_INSTANTIATE_PARAMS *)            \
    X(cuGraphExecDestroy, CUgraphExec)                                                                  \
    X(cuGraphExecKernelNodeSetParams_v2, CUgraphExec, CUgraphNode, const CUDA_KERNEL_NODE_PARAMS_v2 *)  \
    X(cuGraphNodeSetEnabled, CUgraphExec, CUgraphNode, unsigned)                                        \
    X(cuGraphNodeGetEnabled, CUgraphExec, CUgraphNode, unsigned *)                                      \
    X(cuGraphExecUpdate_v2, CUgraphExec, CUgraph, CUgraphExecUpdateResultInfo_v1 *)                     \
    X(cuGraphUpload, CUgraphExec, CUstream)                                                             \
    X(cuGraphLaunch, CUgraphExec, CUstream)

#define X(name, ...) static CUresult (*name)(__VA_ARGS__);
FUNCTIONS(X)
#undef X

/* ---- what the card is told */

#define SEEN_MAX 64u
#define BANKS 8u /* constant banks of a queue descriptor */

static struct fake_server server;
static struct {
    char kernel[VGPU_NAME_BYTES];
    struct lithos_tpcset tpcs;
    bool masked;
    bool ahead, ahead_valid; /* it names the next kernel's constants, and they are read */
} seen[SEEN_MAX];
static _Atomic unsigned seen_count;

static uint32_t qmd_field(const struct vgpu_launch *m, enum lithos_qmd_field field, unsigned index)
{
    return lithos_qmd_get(lithos_qmd_layout(LITHOS_QMD_V04_00), m->qmd, field, index);
}

static void on_launch(const struct vgpu_launch *m)
{
    struct lithos_qmd_view v;
    unsigned i = atomic_load(&seen_count);
    CHECK(i < SEEN_MAX);
    lithos_qmd_decode(lithos_qmd_layout(LITHOS_QMD_V04_00), m->qmd, &v);
    memcpy(seen[i].kernel, m->kernel, sizeof seen[i].kernel);
    seen[i].tpcs = v.tpcs;
    seen[i].masked = v.masked;
    seen[i].ahead = seen[i].ahead_valid = false;
    for (unsigned bank = 0; bank < BANKS; bank++)
        if (qmd_field(m, LITHOS_QMD_CONSTANT_BUFFER_PREFETCH, bank)) {
            seen[i].ahead = true;
            seen[i].ahead_valid = qmd_field(m, LITHOS_QMD_CONSTANT_BUFFER_VALID, bank);
        }
    atomic_store(&seen_count, i + 1);
}

/* ---- the tenant */

static const char ptx[] = PTX_BEGIN PTX_STEP ".visible .entry many()\n{\nret;\n}\n";

static CUfunction step, many;
static CUdeviceptr out;
static CUstream s, other;
static CUcontext primary;
static void *real_driver; /* past the library */

static void make_context(void)
{
    CUmodule m;
    OK(cuDevicePrimaryCtxRetain(&primary, 0));
    OK(cuCtxSetCurrent(primary));
    OK(cuModuleLoadData(&m, ptx));
    OK(cuModuleGetFunction(&step, m, "step"));
    OK(cuModuleGetFunction(&many, m, "many"));
    OK(cuMemAlloc_v2(&out, 8));
    OK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    OK(cuStreamCreate(&other, CU_STREAM_NON_BLOCKING));
}

static void start(const char *own)
{
    uint8_t token[LITHOS_TOKEN_BYTES] = {7};
    char text[LITHOS_TENANT_TEXT_MAX];
    setenv("CUDA_VISIBLE_DEVICES", "0", 1);
    setenv("CUDA_MPS_PIPE_DIRECTORY", "/nonexistent", 1);
    setenv("LITHOS_TENANT", lithos_tenant_format(TENANT, token, text), 1);
    setenv("LITHOS_HAND_OVER", "off", 1); /* each call is made at once */
    fake_server_start(&server);
    server.on_launch = on_launch;
    daemon_starts(GOOD, own);
    memset(fake.grant.gpus[0].uuid, 0x10, LITHOS_UUID_BYTES); /* the server's first card */
    lithos_tpcset_parse("0-65", &fake.grant.gpus[0].topology.valid);
    CHECK((real_driver = dlopen(VGPU_PATH, RTLD_NOW | RTLD_LOCAL)));
    load_with(VGPU_PATH);
#define X(name, ...) CHECK((name = (CUresult(*)(__VA_ARGS__))OURS(#name)));
    FUNCTIONS(X)
#undef X
    OK(cuInit(0));
    wait_for_attach();
    home = ((const struct lithos_library *)OURS("lithos_library_marker"))->arena;
    make_context();
}

static uint64_t counted(enum lithos_counter c)
{
    uint64_t counters[LITHOS_COUNTER_MAX];
    lithos_arena_read_counters(home, counters);
    return counters[c];
}

static void grant(const char *own)
{
    OK(lithos_tpcset_parse(own, &fake.grant.gpus[0].own));
    fake.grant.epoch++;
    lithos_arena_publish(fake.arena, &fake.grant);
}

/* What a replay leaves in `out`. */
static uint64_t replay_on(CUgraphExec x, CUstream stream)
{
    uint64_t v = 0;
    atomic_store(&seen_count, 0);
    OK(cuMemcpyHtoD_v2(out, &v, sizeof v));
    OK(cuGraphLaunch(x, stream));
    OK(cuStreamSynchronize(stream));
    OK(cuMemcpyDtoH_v2(&v, out, sizeof v));
    return v;
}

static uint64_t replay(CUgraphExec x)
{
    return replay_on(x, s);
}

/* Of the last replay: so many kernels, each on just these TPCs. */
static bool all_on(unsigned kernels, const char *tpcs)
{
    struct lithos_tpcset set;
    OK(lithos_tpcset_parse(tpcs, &set));
    bool all = atomic_load(&seen_count) == kernels;
    for (unsigned i = 0; i < atomic_load(&seen_count); i++) {
        char text[LITHOS_TPCSET_TEXT_MAX];
        bool good = seen[i].masked && lithos_tpcset_equal(&seen[i].tpcs, &set);
        if (!good)
            fprintf(stderr, "kernel %u, %s, is on %s\n", i, seen[i].kernel,
                    seen[i].masked ? lithos_tpcset_format(&seen[i].tpcs, text) : "all");
        all &= good;
    }
    return all;
}

/* Of the last replay: all kernels of a line but its last read the next one's constants ahead. */
static bool reads_ahead(void)
{
    unsigned count = atomic_load(&seen_count), valid = 0;
    CHECK(count > 1 && !seen[count - 1].ahead);
    for (unsigned i = 0; i + 1 < count; i++) {
        CHECK(seen[i].ahead);
        valid += seen[i].ahead_valid;
    }
    return valid == count - 1;
}

static CUDA_KERNEL_NODE_PARAMS_v2 kernel(unsigned blocks, uint64_t k)
{
    return step_node(step, &out, blocks, k);
}

/* The digits 1 to n in a line. */
static CUgraph line(unsigned n, CUgraphNode *ret_nodes)
{
    CUgraph g;
    OK(cuGraphCreate(&g, 0));
    for (unsigned i = 0; i < n; i++) {
        const CUDA_KERNEL_NODE_PARAMS_v2 p = kernel(1, i + 1);
        OK(cuGraphAddKernelNode_v2(&ret_nodes[i], g, i ? &ret_nodes[i - 1] : NULL, i > 0, &p));
    }
    return g;
}

static CUgraphExec exec_of(CUgraph g)
{
    CUgraphExec x;
    OK(cuGraphInstantiateWithFlags(&x, g, 0));
    return x;
}

static bool is_there(CUgraph g)
{
    size_t count;
    return ((CUresult(*)(CUgraph, CUgraphNode *, size_t *))dlsym(real_driver, "cuGraphGetNodes"))(
               g, NULL, &count) == CUDA_SUCCESS;
}

/* ---- tests */

/* Smaller, larger, elsewhere; and nothing is shown again without need. The graph is destroyed as frameworks do. */
static void follows_body(void)
{
    start("0-15");
    CUgraphNode n[3];
    CUgraph g = line(3, n);
    CUgraphExec x = exec_of(g);
    OK(cuGraphDestroy(g));
    CHECK(is_there(g));
    CHECK(cuGraphDestroy(g) == CUDA_ERROR_INVALID_VALUE);
    CHECK(replay(x) == 123 && all_on(3, "0-15") && reads_ahead());
    static const char *const quotas[] = {"0-3", "0-31", "40-43", "2"};
    for (unsigned i = 0; i < LITHOS_ARRAY_SIZE(quotas); i++) {
        grant(quotas[i]);
        CHECK(replay(x) == 123 && all_on(3, quotas[i]) && reads_ahead());
        CHECK_EQ(counted(LITHOS_COUNTER_GRAPH_FOLLOWED), i + 1);
        CHECK_EQ(counted(LITHOS_COUNTER_GRAPH_FOLLOWED_NODES), 3 * (i + 1));
        uint64_t qmds = counted(LITHOS_COUNTER_GRAPH_QMDS);
        CHECK_EQ(qmds, 3 * (i + 2));
        CHECK(replay_on(x, other) == 123 && all_on(3, quotas[i]));
        CHECK(replay(x) == 123 && all_on(3, quotas[i]));
        CHECK_EQ(counted(LITHOS_COUNTER_GRAPH_QMDS), qmds);
    }
    /* another grant with the same TPCs */
    fake.grant.class = LITHOS_CLASS_BEST_EFFORT;
    grant("2");
    CHECK(replay(x) == 123 && all_on(3, "2"));
    CHECK_EQ(counted(LITHOS_COUNTER_GRAPH_FOLLOWED), 4);
    CHECK_EQ(counted(LITHOS_COUNTER_UNMASKED), 0);
    OK(cuGraphExecDestroy(x));
    CHECK(!is_there(g)); /* what was kept for it */
}

/* Several execs: each follows when it is launched, and one that never was has nothing to follow. */
static void several_body(void)
{
    start("0-15");
    CUgraphNode n[3], m[2];
    CUgraph g = line(3, n), h = line(2, m);
    CUgraphExec x = exec_of(g), y = exec_of(g), z = exec_of(h);
    OK(cuGraphDestroy(g));
    CHECK(replay(x) == 123 && replay(z) == 12);
    grant("5-9");
    CHECK(replay(z) == 12 && all_on(2, "5-9"));
    CHECK(replay(y) == 123 && all_on(3, "5-9"));
    CHECK_EQ(counted(LITHOS_COUNTER_GRAPH_FOLLOWED), 1);
    CHECK(replay(x) == 123 && all_on(3, "5-9"));
    CHECK_EQ(counted(LITHOS_COUNTER_GRAPH_FOLLOWED), 2);
    OK(cuGraphExecDestroy(x));
    CHECK(is_there(g)); /* for y */
    grant("1");
    CHECK(replay(y) == 123 && all_on(3, "1"));
    OK(cuGraphExecDestroy(y));
    CHECK(!is_there(g) && is_there(h));
    OK(cuGraphExecDestroy(z));
    CHECK(is_there(h)); /* the app has it */
    OK(cuGraphDestroy(h));
    CHECK(!is_there(h));
    /* an upload counts as well; uploaded as it is made, it has the TPCs of then */
    h = line(2, m);
    CUDA_GRAPH_INSTANTIATE_PARAMS p = {.flags = CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD, .hUploadStream = s};
    OK(cuGraphInstantiateWithParams(&z, h, &p));
    grant("2-3");
    OK(cuGraphUpload(z, s));
    CHECK_EQ(counted(LITHOS_COUNTER_GRAPH_FOLLOWED), 4);
    CHECK(replay(z) == 12 && all_on(2, "2-3"));
    CHECK_EQ(counted(LITHOS_COUNTER_GRAPH_FOLLOWED), 4);
}

/* What the app changes stays changed, and what it has switched off stays off. */
static void changes_body(void)
{
    start("0-15");
    CUgraphNode n[3];
    unsigned on;
    CUgraph g = line(3, n);
    CUgraphExec x = exec_of(g);
    CHECK(replay(x) == 123);
    const CUDA_KERNEL_NODE_PARAMS_v2 p = kernel(1, 7), q = kernel(2, 5);
    OK(cuGraphExecKernelNodeSetParams_v2(x, n[0], &p)); /* other arguments: shows nothing */
    OK(cuGraphNodeSetEnabled(x, n[1], 0));
    grant("3-4");
    CHECK(replay(x) == 73 && all_on(2, "3-4"));
    OK(cuGraphNodeGetEnabled(x, n[1], &on));
    CHECK(!on);
    CHECK_EQ(counted(LITHOS_COUNTER_GRAPH_FOLLOWED_NODES), 2);
    OK(cuGraphNodeSetEnabled(x, n[1], 1));
    CHECK(replay(x) == 723 && all_on(3, "3-4"));
    OK(cuGraphExecKernelNodeSetParams_v2(x, n[2], &q)); /* another grid */
    grant("6");
    CHECK(replay(x) == 7255 && all_on(3, "6"));
    /* by another graph: those of the first name its nodes still */
    CUgraphNode m[3];
    CUgraph by = line(3, m);
    CUgraphExecUpdateResultInfo_v1 info;
    OK(cuGraphExecUpdate_v2(x, by, &info));
    OK(cuGraphDestroy(by));
    CHECK(!is_there(by));
    OK(cuGraphDestroy(g));
    CHECK(replay(x) == 123 && all_on(3, "6"));
    grant("7-8");
    CHECK(replay(x) == 123 && all_on(3, "7-8"));
    /* which kernel comes next, and from where, is the app's affair since it changed one */
    CHECK(!reads_ahead());
    for (int why = 0; why < (int)LITHOS_GRAPH_KEEPS_MAX; why++)
        CHECK_EQ(counted((enum lithos_counter)(LITHOS_COUNTER_GRAPH_KEEPS_NODES + why)), 0);
}

/* Sets, graphs within graphs, and a capture over two streams. */
static void shapes_body(void)
{
    start("0-15");
    CUgraphNode n[2], m[2], c;
    CUgraph g = line(2, n), h = line(1, m), k;
    OK(cuGraphAddChildGraphNode(&c, g, &n[1], 1, h));
    OK(cuGraphDestroy(h));
    CHECK(!is_there(h)); /* the node has a copy */
    CUgraphExec x = exec_of(g);
    OK(cuGraphDestroy(g));
    CHECK(replay(x) == 121 && all_on(3, "0-15"));
    grant("1-2");
    CHECK(replay(x) == 121 && all_on(3, "1-2"));
    uint64_t v = 9;
    void *params[] = {&out, &v};
    OK(cuStreamBeginCapture_v2(s, CU_STREAM_CAPTURE_MODE_RELAXED));
    OK(cuMemsetD32Async(out, 4, 1, s));
    OK(cuLaunchKernel(step, 1, 1, 1, 1, 1, 1, 0, s, params, NULL));
    OK(cuStreamEndCapture(s, &k));
    CUgraphExec y = exec_of(k);
    OK(cuGraphDestroy(k));
    CHECK(replay(y) == 49 && all_on(2, "1-2"));
    grant("60");
    CHECK(replay(y) == 49 && all_on(2, "60"));
    CHECK(replay(x) == 121 && all_on(3, "60"));
}

/* What cannot follow goes on as it was, is counted with its reason, and the rest follows. */
static void cannot_body(void)
{
    start("0-15");
    CUgraphNode n[3], m[1], c;
    CUgraph g = line(3, n), inner;
    CUgraphExec x = exec_of(g), y;
    /* a node of its graph is gone */
    CHECK(replay(x) == 123);
    OK(cuGraphDestroyNode(n[2]));
    grant("0-3");
    CHECK(replay(x) == 123 && !all_on(3, "0-3"));
    CHECK_EQ(seen[0].tpcs.w[0], 0xf);
    CHECK_EQ(seen[1].tpcs.w[0], 0xf);
    CHECK_EQ(seen[2].tpcs.w[0], 0xffff);
    CHECK_EQ(counted(LITHOS_COUNTER_GRAPH_KEEPS_CHANGED), 1);
    CHECK(replay(x) == 123);
    CHECK_EQ(counted(LITHOS_COUNTER_GRAPH_KEEPS_CHANGED), 1); /* once a change */
    /* for launches from the device */
    OK(cuGraphInstantiateWithFlags(&y, g, CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH));
    CHECK(replay(y) == 12 && all_on(2, "0-3"));
    grant("0-7");
    CHECK(replay(y) == 12 && all_on(2, "0-3"));
    CHECK_EQ(counted(LITHOS_COUNTER_GRAPH_KEEPS_DEVICE), 1);
    /* of a graph that ends with the one it is in */
    CUgraph child = line(1, m), outer;
    OK(cuGraphCreate(&outer, 0));
    OK(cuGraphAddChildGraphNode(&c, outer, NULL, 0, child));
    OK(cuGraphChildGraphNodeGetGraph(c, &inner));
    CUgraphExec z = exec_of(inner);
    CHECK(replay(z) == 1 && all_on(1, "0-7"));
    OK(cuGraphDestroy(outer));
    CHECK(!is_there(outer) && !is_there(inner));
    grant("9");
    CHECK(replay(z) == 1 && all_on(1, "0-7"));
    CHECK_EQ(counted(LITHOS_COUNTER_GRAPH_KEEPS_CHANGED), 2);
    OK(cuGraphExecDestroy(z));
    /* the driver names its nodes no more: the graph was destroyed past us */
    z = exec_of(child);
    CHECK(replay(z) == 1 && all_on(1, "9"));
    OK(((CUresult(*)(CUgraph))dlsym(real_driver, "cuGraphDestroy"))(child));
    grant("10");
    CHECK(replay(z) == 1 && all_on(1, "9"));
    CHECK_EQ(counted(LITHOS_COUNTER_GRAPH_KEEPS_DRIVER), 1);
}

/* Blocks that wait for each other keep the TPCs that hold them all. */
static void together_body(void)
{
    start("0-15");
    CUgraph g;
    CUgraphNode n[2];
    OK(cuGraphCreate(&g, 0));
    const CUDA_KERNEL_NODE_PARAMS_v2 p = {.func = many,
                                          .gridDimX = 16,
                                          .gridDimY = 1,
                                          .gridDimZ = 1,
                                          .blockDimX = 1024,
                                          .blockDimY = 1,
                                          .blockDimZ = 1};
    const CUlaunchAttributeValue cooperative = {.cooperative = 1};
    OK(cuGraphAddKernelNode_v2(&n[0], g, NULL, 0, &p));
    OK(cuGraphAddKernelNode_v2(&n[1], g, &n[0], 1, &p));
    OK(cuGraphKernelNodeSetAttribute(n[1], CU_LAUNCH_ATTRIBUTE_COOPERATIVE, &cooperative));
    CUgraphExec x = exec_of(g);
    replay(x);
    CHECK(all_on(2, "0-15"));
    grant("4-7"); /* 8 SMs of two blocks each: just so */
    replay(x);
    CHECK(all_on(2, "4-7"));
    grant("4-6");
    replay(x);
    CHECK_EQ(seen[0].tpcs.w[0], 0x70);
    CHECK_EQ(seen[1].tpcs.w[0], 0xf0);
    CHECK_EQ(counted(LITHOS_COUNTER_GRAPH_KEEPS_TOGETHER), 1);
    grant("20-31");
    replay(x);
    CHECK(all_on(2, "20-31"));
    CHECK_EQ(counted(LITHOS_COUNTER_GRAPH_KEEPS_TOGETHER), 1);
    CHECK_EQ(counted(LITHOS_COUNTER_BREACHES), 0);
}

/* With the context end the execs, and nothing of them is touched. */
static void context_body(void)
{
    start("0-15");
    CUgraphNode n[3];
    CUgraph g = line(3, n);
    CUgraphExec x = exec_of(g);
    OK(cuGraphDestroy(g));
    CHECK(replay(x) == 123);
    OK(cuDevicePrimaryCtxReset_v2(0));
    make_context();
    grant("0-3");
    CHECK(cuGraphLaunch(x, s) != CUDA_SUCCESS);
    CHECK_EQ(counted(LITHOS_COUNTER_GRAPH_FOLLOWED), 0);
    g = line(3, n);
    x = exec_of(g);
    OK(cuGraphDestroy(g));
    CHECK(replay(x) == 123 && all_on(3, "0-3"));
    grant("4");
    CHECK(replay(x) == 123 && all_on(3, "4"));
}

/* On request all is as it was: graphs are destroyed when they are, and keep their TPCs. */
static void off_body(void)
{
    setenv("LITHOS_FOLLOW_GRAPHS", "off", 1);
    start("0-15");
    CUgraphNode n[3];
    CUgraph g = line(3, n);
    CUgraphExec x = exec_of(g);
    OK(cuGraphDestroy(g));
    CHECK(!is_there(g));
    CHECK(replay(x) == 123);
    grant("0-3");
    CHECK(replay(x) == 123 && all_on(3, "0-15"));
}

#define TESTS(X) \
    X(follows)   \
    X(several)   \
    X(changes)   \
    X(shapes)    \
    X(cannot)    \
    X(together)  \
    X(context)   \
    X(off)

TESTS(CHILD_TEST)

int main(void)
{
    const struct CMUnitTest tests[] = {TESTS(CHILD_TEST_ROW)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
