/* Memory operations in graphs of the virtual GPU: waits for words in memory, and writes of words. Each test is a process of its own. */
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
#include "stub/graph_steps.h"
#include "unit/vgpu_process.h"

#define WHILE_US 20000 /* for so long a graph that waits is watched */
#define UPDATE_FAILURE 910
#define BAD(call) IS(call, CUDA_ERROR_INVALID_VALUE)
#define NOT_KNOWN(call) IS(call, CUDA_ERROR_NOT_SUPPORTED)

typedef CUstreamBatchMemOpParams memop;
typedef CUDA_BATCH_MEM_OP_NODE_PARAMS node_params;
typedef CUDA_KERNEL_NODE_PARAMS_v2 kernel_params;

#define FUNCTIONS(X)                                                                                       \
    X(cuInit, unsigned)                                                                                    \
    X(cuDevicePrimaryCtxRetain, CUcontext *, int)                                                          \
    X(cuCtxSetCurrent, CUcontext)                                                                          \
    X(cuModuleLoadData, CUmodule *, const void *)                                                          \
    X(cuModuleGetFunction, CUfunction *, CUmodule, const char *)                                           \
    X(cuMemAlloc_v2, CUdeviceptr *, size_t)                                                                \
    X(cuMemHostAlloc, void **, size_t, unsigned)                                                           \
    X(cuMemcpyDtoH_v2, void *, CUdeviceptr, size_t)                                                        \
    X(cuMemcpyHtoD_v2, CUdeviceptr, const void *, size_t)                                                  \
    X(cuLaunchKernel, CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,    \
      CUstream, void **, void **)                                                                          \
    X(cuStreamCreate, CUstream *, unsigned)                                                                \
    X(cuStreamSynchronize, CUstream)                                                                       \
    X(cuStreamQuery, CUstream)                                                                             \
    X(cuGraphCreate, CUgraph *, unsigned)                                                                  \
    X(cuGraphDestroy, CUgraph)                                                                             \
    X(cuGraphClone, CUgraph *, CUgraph)                                                                    \
    X(cuGraphNodeFindInClone, CUgraphNode *, CUgraphNode, CUgraph)                                         \
    X(cuGraphNodeGetType, CUgraphNode, int *)                                                              \
    X(cuGraphAddKernelNode_v2, CUgraphNode *, CUgraph, const CUgraphNode *, size_t, const kernel_params *) \
    X(cuGraphAddChildGraphNode, CUgraphNode *, CUgraph, const CUgraphNode *, size_t, CUgraph)              \
    X(cuGraphAddBatchMemOpNode, CUgraphNode *, CUgraph, const CUgraphNode *, size_t, const node_params *)  \
    X(cuGraphBatchMemOpNodeGetParams, CUgraphNode, node_params *)                                          \
    X(cuGraphBatchMemOpNodeSetParams, CUgraphNode, const node_params *)                                    \
    X(cuGraphExecBatchMemOpNodeSetParams, CUgraphExec, CUgraphNode, const node_params *)                   \
    X(cuGraphInstantiateWithFlags, CUgraphExec *, CUgraph, unsigned long long)                             \
    X(cuGraphNodeSetEnabled, CUgraphExec, CUgraphNode, unsigned)                                           \
    X(cuGraphExecUpdate_v2, CUgraphExec, CUgraph, CUgraphExecUpdateResultInfo_v1 *)                        \
    X(cuGraphLaunch, CUgraphExec, CUstream)

#define X(name, ...) static int (*name)(__VA_ARGS__);
FUNCTIONS(X)
#undef X

static struct fake_server server;
static CUcontext context;
static CUfunction step;
static CUdeviceptr out, elsewhere;
static CUstream s, other;
static uint64_t *words; /* pinned: the host's and the card's at one address */

static void start(void)
{
    CUmodule m;
    fake_server_start(&server);
    void *lib = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    CHECK(lib);
#define X(name, ...) CHECK((name = (int (*)(__VA_ARGS__))dlsym(lib, #name)));
    FUNCTIONS(X)
#undef X
    OK(cuInit(0));
    OK(cuDevicePrimaryCtxRetain(&context, 0));
    OK(cuCtxSetCurrent(context));
    OK(cuModuleLoadData(&m, PTX_BEGIN PTX_STEP));
    OK(cuModuleGetFunction(&step, m, "step"));
    OK(cuMemAlloc_v2(&out, 8));
    OK(cuMemAlloc_v2(&elsewhere, 8));
    OK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    OK(cuStreamCreate(&other, CU_STREAM_NON_BLOCKING));
    OK(cuMemHostAlloc((void **)&words, 4096, CU_MEMHOSTALLOC_DEVICEMAP));
    memset(words, 0, 4096);
}

static CUdeviceptr at(unsigned word)
{
    return (uintptr_t)&words[word];
}

/* The host's write of a word's lower half, or of all of it. */
static void put32(unsigned word, uint32_t value)
{
    __atomic_store_n((uint32_t *)&words[word], value, __ATOMIC_RELEASE);
}

static void put64(unsigned word, uint64_t value)
{
    __atomic_store_n(&words[word], value, __ATOMIC_RELEASE);
}

static memop wait32(unsigned word, uint32_t value, unsigned flags)
{
    return (memop){.waitValue = {.operation = CU_STREAM_MEM_OP_WAIT_VALUE_32,
                                 .address = at(word),
                                 .value = value,
                                 .flags = flags}};
}

static memop wait64(unsigned word, uint64_t value, unsigned flags)
{
    return (memop){.waitValue = {.operation = CU_STREAM_MEM_OP_WAIT_VALUE_64,
                                 .address = at(word),
                                 .value64 = value,
                                 .flags = flags}};
}

static node_params node_of(memop *op)
{
    return (node_params){.ctx = context, .count = 1, .paramArray = op};
}

static CUgraphNode add_memop(CUgraph g, const CUgraphNode *dep, memop op)
{
    const node_params p = node_of(&op);
    CUgraphNode n;
    OK(cuGraphAddBatchMemOpNode(&n, g, dep, dep != NULL, &p));
    memset(&op, 0xee, sizeof op); /* copied by then */
    return n;
}

static CUgraphNode add_step(CUgraph g, const CUgraphNode *dep, uint64_t k)
{
    const kernel_params p = step_node(step, &out, 1, k);
    CUgraphNode n;
    OK(cuGraphAddKernelNode_v2(&n, g, dep, dep != NULL, &p));
    return n;
}

/* The digit 1, the operation, the digit 2. */
static CUgraph line(memop op, CUgraphNode *ret_node)
{
    CUgraph g;
    OK(cuGraphCreate(&g, 0));
    CUgraphNode first = add_step(g, NULL, 1);
    *ret_node = add_memop(g, &first, op);
    add_step(g, ret_node, 2);
    return g;
}

static CUgraphExec exec_of(CUgraph g)
{
    CUgraphExec x;
    OK(cuGraphInstantiateWithFlags(&x, g, 0));
    return x;
}

static uint64_t value_at(CUdeviceptr p)
{
    uint64_t v;
    OK(cuMemcpyDtoH_v2(&v, p, sizeof v));
    return v;
}

static void launch(CUgraphExec x)
{
    const uint64_t zero = 0;
    OK(cuMemcpyHtoD_v2(out, &zero, sizeof zero));
    OK(cuGraphLaunch(x, s));
}

/* The graph launched has done its kernels up to the wait, and nothing behind it. */
static void check_waits(uint64_t so_far)
{
    usleep(WHILE_US);
    IS(cuStreamQuery(s), CUDA_ERROR_NOT_READY);
    CHECK(value_at(out) == so_far);
}

static void check_ends(uint64_t with)
{
    OK(cuStreamSynchronize(s));
    CHECK(value_at(out) == with);
}

/* ---- tests */

static void waits_body(void)
{
    start();
    CUgraphNode n;
    int type;
    CUgraphExec x = exec_of(line(wait32(0, 1, CU_STREAM_WAIT_VALUE_EQ), &n));
    OK(cuGraphNodeGetType(n, &type));
    CHECK(type == 12);
    for (unsigned replay = 0; replay < 2; replay++) {
        put32(0, 0);
        launch(x);
        check_waits(1);
        /* another stream goes on */
        uint64_t zero = 0, k = replay + 3;
        void *params[] = {&elsewhere, &k};
        OK(cuMemcpyHtoD_v2(elsewhere, &zero, sizeof zero));
        OK(cuLaunchKernel(step, 1, 1, 1, 1, 1, 1, 0, other, params, NULL));
        OK(cuStreamSynchronize(other));
        CHECK(value_at(elsewhere) == k);
        check_waits(1);
        put32(0, 1);
        check_ends(12);
    }
    launch(x); /* the word is there */
    check_ends(12);
    BAD(cuGraphNodeSetEnabled(x, n, 0)); /* as with a card's driver: kernels, copies and sets alone */
}

static void compares_body(void)
{
    start();
    CUgraphNode n;
    /* numbers that go round: 0xffffffff is before 3 */
    CUgraphExec geq = exec_of(line(wait32(0, 3, CU_STREAM_WAIT_VALUE_GEQ), &n));
    put32(0, UINT32_MAX);
    launch(geq);
    check_waits(1);
    put32(0, 2);
    check_waits(1);
    put32(0, 4);
    check_ends(12);
    CUgraphExec eq = exec_of(line(wait32(0, 3, CU_STREAM_WAIT_VALUE_EQ), &n));
    launch(eq);
    check_waits(1);
    put32(0, 3);
    check_ends(12);
    /* all 64 bits, in both */
    CUgraphExec geq64 = exec_of(line(wait64(1, 1ull << 32, CU_STREAM_WAIT_VALUE_GEQ), &n));
    put64(1, UINT32_MAX);
    launch(geq64);
    check_waits(1);
    put64(1, 1ull << 32 | 7);
    check_ends(12);
    CUgraphExec eq64 = exec_of(line(wait64(1, 3ull << 32 | 7, CU_STREAM_WAIT_VALUE_EQ), &n));
    launch(eq64);
    check_waits(1);
    put64(1, 3ull << 32 | 7);
    check_ends(12);
    /* of 32 bits the value's others are none of its business */
    memop op = wait32(0, 0, CU_STREAM_WAIT_VALUE_EQ);
    op.waitValue.value64 = 5ull << 32 | 3;
    launch(exec_of(line(op, &n)));
    check_ends(12);
}

static void copied_body(void)
{
    start();
    CUgraphNode n, in_clone, child, before;
    CUgraph g = line(wait32(0, 1, CU_STREAM_WAIT_VALUE_GEQ), &n), clone, outer;
    node_params got;
    OK(cuGraphClone(&clone, g));
    OK(cuGraphNodeFindInClone(&in_clone, n, clone));
    OK(cuGraphBatchMemOpNodeGetParams(in_clone, &got));
    CHECK(got.count == 1 && got.paramArray->waitValue.address == at(0));
    OK(cuGraphCreate(&outer, 0));
    before = add_step(outer, NULL, 7);
    OK(cuGraphAddChildGraphNode(&child, outer, &before, 1, g));
    add_step(outer, &child, 8);
    OK(cuGraphDestroy(g));
    CUgraphExec of_clone = exec_of(clone), of_outer = exec_of(outer);
    launch(of_clone);
    check_waits(1);
    put32(0, 1);
    check_ends(12);
    put32(0, 0);
    launch(of_outer);
    check_waits(71);
    put32(0, 1);
    check_ends(7128);
}

static void changed_body(void)
{
    start();
    CUgraphNode n, m;
    CUgraph g = line(wait32(0, 1, CU_STREAM_WAIT_VALUE_GEQ), &n);
    CUgraphExec x = exec_of(g);
    memop op = wait32(1, 5, CU_STREAM_WAIT_VALUE_EQ);
    node_params p = node_of(&op), got;
    /* of the exec: what has been launched waits as it did, the next launch for the other word */
    launch(x);
    OK(cuGraphExecBatchMemOpNodeSetParams(x, n, &p));
    put32(1, 5);
    check_waits(1);
    put32(0, 1);
    check_ends(12);
    put32(1, 6);
    launch(x);
    check_waits(1);
    put32(1, 5);
    check_ends(12);
    op = wait32(1, 7, CU_STREAM_WAIT_VALUE_EQ);
    OK(cuGraphExecBatchMemOpNodeSetParams(x, n, &p));
    launch(x);
    check_waits(1);
    put32(1, 7);
    check_ends(12);
    /* the graph's node is as it was, until it is changed itself */
    OK(cuGraphBatchMemOpNodeGetParams(n, &got));
    CHECK(got.ctx == context && got.count == 1 && got.flags == 0);
    CHECK(got.paramArray->operation == CU_STREAM_MEM_OP_WAIT_VALUE_32);
    CHECK(got.paramArray->waitValue.address == at(0) && got.paramArray->waitValue.value == 1);
    got.paramArray = &op;
    op = wait64(2, 9, CU_STREAM_WAIT_VALUE_EQ);
    OK(cuGraphBatchMemOpNodeSetParams(n, &got));
    OK(cuGraphBatchMemOpNodeGetParams(n, &got));
    CHECK(got.paramArray != &op && got.paramArray->waitValue.value64 == 9);
    CUgraphExec later = exec_of(g);
    launch(later);
    check_waits(1);
    put64(2, 9);
    check_ends(12);
    /* what an exec's node is cannot change: its size, what it does, whether it flushes */
    BAD(cuGraphExecBatchMemOpNodeSetParams(x, n, &p));
    op = wait32(1, 7, CU_STREAM_WAIT_VALUE_EQ | CU_STREAM_WAIT_VALUE_FLUSH);
    BAD(cuGraphExecBatchMemOpNodeSetParams(x, n, &p));
    op.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
    op.writeValue.flags = 0;
    BAD(cuGraphExecBatchMemOpNodeSetParams(x, n, &p));
    launch(x); /* as it was */
    check_ends(12);
    /* by another graph, with the same rules */
    CUgraphExecUpdateResultInfo_v1 info;
    IS(cuGraphExecUpdate_v2(x, g, &info), UPDATE_FAILURE);
    CHECK(info.result == CU_GRAPH_EXEC_UPDATE_ERROR_PARAMETERS_CHANGED && info.errorNode == n);
    OK(cuGraphExecUpdate_v2(x, line(wait32(3, 4, CU_STREAM_WAIT_VALUE_GEQ), &m), &info));
    launch(x);
    check_waits(1);
    put32(3, 4);
    check_ends(12);
}

static void writes_body(void)
{
    start();
    CUgraph g, h;
    CUgraphNode waited, written, n;
    memop op = {.writeValue = {.operation = CU_STREAM_MEM_OP_WRITE_VALUE_64,
                               .address = at(1),
                               .value64 = 0x123456789ull}};
    node_params p = node_of(&op);
    int type;
    OK(cuGraphCreate(&g, 0));
    waited = add_memop(g, NULL, wait32(0, 1, CU_STREAM_WAIT_VALUE_EQ));
    OK(cuGraphAddBatchMemOpNode(&written, g, &waited, 1, &p));
    OK(cuGraphNodeGetType(written, &type));
    CHECK(type == 12);
    CUgraphExec writer = exec_of(g);
    h = line(wait64(1, 0x123456789ull, CU_STREAM_WAIT_VALUE_EQ), &n);
    CUgraphExec waiter = exec_of(h);
    for (unsigned replay = 0; replay < 2; replay++) {
        put32(0, 0);
        put64(1, 0);
        launch(waiter);
        OK(cuGraphLaunch(writer, other));
        check_waits(1);
        put32(0, 1);
        check_ends(12);
        OK(cuStreamSynchronize(other));
        CHECK(words[1] == 0x123456789ull);
    }
    op.writeValue.value64 = 4;
    op.writeValue.address = at(2);
    OK(cuGraphExecBatchMemOpNodeSetParams(writer, written, &p));
    OK(cuGraphLaunch(writer, other));
    OK(cuStreamSynchronize(other));
    CHECK(words[1] == 0x123456789ull && words[2] == 4);
    /* of 32 bits, the word beside it stays */
    op.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
    op.writeValue.address = at(1);
    BAD(cuGraphExecBatchMemOpNodeSetParams(writer, written, &p)); /* of another size */
    op.operation = CU_STREAM_MEM_OP_WRITE_VALUE_64;
    op.writeValue.flags = CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER;
    BAD(cuGraphExecBatchMemOpNodeSetParams(writer, written, &p)); /* with other flags */
    op.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
    OK(cuGraphBatchMemOpNodeSetParams(written, &p));
    OK(cuGraphLaunch(exec_of(g), other));
    OK(cuStreamSynchronize(other));
    CHECK(words[1] == (0x100000000ull | 4));
}

static int add(CUgraph g, memop op)
{
    const node_params p = node_of(&op);
    CUgraphNode n;
    return cuGraphAddBatchMemOpNode(&n, g, NULL, 0, &p);
}

static void refused_body(void)
{
    start();
    CUgraphNode n, foreign;
    CUgraph g = line(wait32(0, 1, CU_STREAM_WAIT_VALUE_EQ), &n), h;
    CUgraphExec x = exec_of(g);
    memop op = wait32(1, 2, 0), ops[2] = {op, op};
    node_params good = node_of(ops), p;
    op.waitValue.address += 2;
    BAD(add(g, op));
    op = wait64(1, 2, 0);
    op.waitValue.address += 4;
    BAD(add(g, op));
    BAD(add(g, wait32(1, 2, 4)));
    BAD(add(g, wait32(1, 2, 1u << 29)));
    op = wait32(1, 2, 0);
    op.waitValue.address = 4096; /* no memory */
    BAD(add(g, op));
    op.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
    BAD(add(g, op));
    op.writeValue.address = at(1);
    op.writeValue.flags = 2;
    BAD(add(g, op));
    op.operation = 3; /* the card is to flush */
    NOT_KNOWN(add(g, op));
    p = good;
    p.count = 0;
    BAD(cuGraphAddBatchMemOpNode(&foreign, g, NULL, 0, &p));
    BAD(cuGraphBatchMemOpNodeSetParams(n, &p));
    BAD(cuGraphExecBatchMemOpNodeSetParams(x, n, &p));
    p.count = 2;
    NOT_KNOWN(cuGraphAddBatchMemOpNode(&foreign, g, NULL, 0, &p));
    NOT_KNOWN(cuGraphBatchMemOpNodeSetParams(n, &p));
    NOT_KNOWN(cuGraphExecBatchMemOpNodeSetParams(x, n, &p));
    p = good;
    p.paramArray = NULL;
    BAD(cuGraphAddBatchMemOpNode(&foreign, g, NULL, 0, &p));
    p = good;
    p.flags = 1;
    BAD(cuGraphAddBatchMemOpNode(&foreign, g, NULL, 0, &p));
    p = good;
    p.ctx = NULL;
    BAD(cuGraphAddBatchMemOpNode(&foreign, g, NULL, 0, &p));
    /* a context of its own for a node */
    OK(cuDevicePrimaryCtxRetain(&p.ctx, 1));
    NOT_KNOWN(cuGraphAddBatchMemOpNode(&foreign, g, NULL, 0, &p));
    NOT_KNOWN(cuGraphBatchMemOpNodeSetParams(n, &p));
    BAD(cuGraphExecBatchMemOpNodeSetParams(x, n, &p));
    BAD(cuGraphAddBatchMemOpNode(&foreign, g, NULL, 0, NULL));
    BAD(cuGraphAddBatchMemOpNode(NULL, g, NULL, 0, &good));
    /* nodes that are none, of another graph or of another kind */
    OK(cuGraphCreate(&h, 0));
    CUgraphNode kernel = add_step(h, NULL, 1);
    BAD(cuGraphAddBatchMemOpNode(&foreign, g, &kernel, 1, &good));
    BAD(cuGraphBatchMemOpNodeGetParams(kernel, &p));
    BAD(cuGraphBatchMemOpNodeSetParams(kernel, &good));
    BAD(cuGraphExecBatchMemOpNodeSetParams(exec_of(h), kernel, &good));
    BAD(cuGraphBatchMemOpNodeGetParams(n, NULL));
    BAD(cuGraphExecBatchMemOpNodeSetParams(NULL, n, &good));
    /* and nothing of that has changed what is there */
    put32(0, 0);
    launch(exec_of(g));
    check_waits(1);
    put32(0, 1);
    check_ends(12);
    launch(x);
    check_ends(12);
}

#define TESTS(X) \
    X(waits)     \
    X(compares)  \
    X(copied)    \
    X(changed)   \
    X(writes)    \
    X(refused)
VGPU_TEST_MAIN(TESTS)
