/* Atoms in graphs of every shape: which of those behind a chain of atoms find all of them done, and what the callback is told of whom.
 *
 * Nodes of a chain look alike in the callback. So each is made its atom by itself: switched off and on, which has the driver show its
 * queue descriptor again at the next upload, alone. */
#include <stdlib.h>
#include <string.h>

#include "bench/graphatoms.h"

#define CHAIN 8u
#define BEHIND_MAX 6u
/* Long enough that what does not wait for it is seen, in the first atom, whose end the last one's does not imply. */
#define EARLY 3u

static const uint32_t spin_ns = STRAGGLER_NS, blocks = BLOCKS;
static uint32_t straggler = EARLY;

struct shape {
    CUgraph graph;
    CUgraphExec exec;
    CUgraphNode chain[2][CHAIN];
    unsigned chains, sums;
    CUdeviceptr out[2];
};

static CUdeviceptr ret_at(unsigned i)
{
    return t.ret + i * sizeof(uint32_t);
}

/* ---- building */

static bool kernel(const char *trial, CUgraph graph, CUfunction f, unsigned grid, unsigned threads,
                   void **params, const CUgraphNode *deps, size_t count, CUgraphNode *ret)
{
    struct node_params n = {.func = f, .grid = {grid, 1, 1}, .block = {threads, 1, 1}, .params = params};
    return OK(trial, cuGraphAddKernelNode, ret, graph, deps, count, &n);
}

/* CHAIN nodes of the kernel that marks its blocks in `out`. */
static bool chain_of(const char *trial, struct shape *s, CUgraph graph, CUdeviceptr out, bool launch_order,
                     const CUgraphNode *first_dep)
{
    CUgraphNode *node = s->chain[s->chains];
    void *params[] = {&out, &straggler, (void *)&spin_ns};
    for (unsigned i = 0; i < CHAIN; i++) {
        if (!kernel(trial, graph, t.mark, BLOCKS, 32, params, i ? NULL : first_dep, !i && first_dep,
                    &node[i]))
            return false;
        struct edge_data e = {.from_port = launch_order ? PORT_LAUNCH_ORDER : PORT_DEFAULT,
                              .type = launch_order ? EDGE_PROGRAMMATIC : EDGE_DEFAULT};
        if (i && !OK(trial, cuGraphAddDependencies_v2, graph, &node[i - 1], &node[i], &e, 1))
            return false;
    }
    s->out[s->chains++] = out;
    return true;
}

/* A kernel that counts what is done at `out`, behind those nodes. */
static bool sum_of(const char *trial, struct shape *s, CUgraph graph, CUdeviceptr out,
                   const CUgraphNode *deps, size_t count, CUgraphNode *ret)
{
    CUdeviceptr at = ret_at(s->sums++);
    void *params[] = {&out, &at, (void *)&blocks};
    return kernel(trial, graph, t.sum, 1, 256, params, deps, count, ret);
}

static CUgraphNode last_of(const struct shape *s, unsigned chain)
{
    return s->chain[chain][CHAIN - 1];
}

/* ---- the shapes: false where the driver refuses something, which is printed */

static bool shape_last(const char *trial, struct shape *s, bool order)
{
    CUgraphNode sum, last;
    if (!chain_of(trial, s, s->graph, t.out, order, NULL))
        return false;
    last = last_of(s, 0);
    return sum_of(trial, s, s->graph, t.out, &last, 1, &sum);
}

static bool shape_all(const char *trial, struct shape *s, bool order)
{
    CUgraphNode sum;
    return chain_of(trial, s, s->graph, t.out, order, NULL) &&
           sum_of(trial, s, s->graph, t.out, s->chain[0], CHAIN, &sum);
}

static bool shape_empty_fence(const char *trial, struct shape *s, bool order)
{
    CUgraphNode fence, sum;
    if (!chain_of(trial, s, s->graph, t.out, order, NULL) ||
        !OK(trial, cuGraphAddEmptyNode, &fence, s->graph, s->chain[0], CHAIN))
        return false;
    for (unsigned i = 0; i < 3; i++)
        if (!sum_of(trial, s, s->graph, t.out, &fence, 1, &sum))
            return false;
    return true;
}

static bool shape_fan_out(const char *trial, struct shape *s, bool order)
{
    CUgraphNode last, sum;
    if (!chain_of(trial, s, s->graph, t.out, order, NULL))
        return false;
    last = last_of(s, 0);
    for (unsigned i = 0; i < 4; i++)
        if (!sum_of(trial, s, s->graph, t.out, &last, 1, &sum))
            return false;
    return true;
}

static bool shape_kernel_fence(const char *trial, struct shape *s, bool order)
{
    CUgraphNode last, fence, sum;
    if (!chain_of(trial, s, s->graph, t.out, order, NULL))
        return false;
    last = last_of(s, 0);
    if (!kernel(trial, s->graph, t.null, 1, 32, NULL, &last, 1, &fence))
        return false;
    for (unsigned i = 0; i < 4; i++)
        if (!sum_of(trial, s, s->graph, t.out, &fence, 1, &sum))
            return false;
    return true;
}

/* Two chains side by side, and what waits for both. */
static bool shape_join(const char *trial, struct shape *s, bool order)
{
    CUgraphNode root, last[2], sum;
    if (!kernel(trial, s->graph, t.null, 1, 32, NULL, NULL, 0, &root) ||
        !chain_of(trial, s, s->graph, t.out, order, &root) ||
        !chain_of(trial, s, s->graph, t.out2, order, &root))
        return false;
    last[0] = last_of(s, 0);
    last[1] = last_of(s, 1);
    return sum_of(trial, s, s->graph, t.out, last, 2, &sum) &&
           sum_of(trial, s, s->graph, t.out2, last, 2, &sum);
}

/* A chain, and beside it a line of small kernels whose last also waits for the chain. */
static bool shape_other_branch(const char *trial, struct shape *s, bool order)
{
    CUgraphNode root, dep[2], sum;
    if (!kernel(trial, s->graph, t.null, 1, 32, NULL, NULL, 0, &root) ||
        !kernel(trial, s->graph, t.null, 7, 32, NULL, &root, 1, &dep[1]))
        return false;
    for (unsigned i = 0; i < 6; i++)
        if (!kernel(trial, s->graph, t.null, 8 + i, 32, NULL, &dep[1], 1, &dep[1]))
            return false;
    if (!chain_of(trial, s, s->graph, t.out, order, &root))
        return false;
    dep[0] = last_of(s, 0);
    return sum_of(trial, s, s->graph, t.out, dep, 2, &sum) && sum_of(trial, s, s->graph, t.out, dep, 1, &sum);
}

/* Each result of a copy is counted by a kernel behind it. */
static bool shape_copy(const char *trial, struct shape *s, bool order)
{
    CUDA_MEMCPY3D copy = {.srcMemoryType = CU_MEMORYTYPE_DEVICE,
                          .dstMemoryType = CU_MEMORYTYPE_DEVICE,
                          .srcDevice = t.out,
                          .dstDevice = t.out2,
                          .WidthInBytes = BLOCKS * sizeof(uint32_t),
                          .Height = 1,
                          .Depth = 1};
    CUgraphNode last, node, sum;
    if (!chain_of(trial, s, s->graph, t.out, order, NULL))
        return false;
    last = last_of(s, 0);
    return OK(trial, cuGraphAddMemcpyNode, &node, s->graph, &last, 1, &copy, t.context) &&
           sum_of(trial, s, s->graph, t.out2, &node, 1, &sum);
}

/* A set behind the chain: a block that comes after it would leave its mark. */
static bool shape_set(const char *trial, struct shape *s, bool order)
{
    struct memset_params set = {.dst = t.out, .value = 1, .element_bytes = 4, .width = BLOCKS, .height = 1};
    CUgraphNode last, node, sum;
    if (!chain_of(trial, s, s->graph, t.out, order, NULL))
        return false;
    last = last_of(s, 0);
    return OK(trial, cuGraphAddMemsetNode, &node, s->graph, &last, 1, &set, t.context) &&
           sum_of(trial, s, s->graph, t.out, &node, 1, &sum);
}

/* The chain in the graph, what counts in a child graph; and the other way round. */
static bool shape_child_behind(const char *trial, struct shape *s, bool order)
{
    CUgraph child;
    CUgraphNode last, node, sum;
    if (!chain_of(trial, s, s->graph, t.out, order, NULL) || !OK(trial, cuGraphCreate, &child, 0) ||
        !sum_of(trial, s, child, t.out, NULL, 0, &sum))
        return false;
    last = last_of(s, 0);
    bool fine = OK(trial, cuGraphAddChildGraphNode, &node, s->graph, &last, 1, child) &&
                sum_of(trial, s, s->graph, t.out, &node, 1, &sum);
    OK(trial, cuGraphDestroy, child);
    return fine;
}

static bool shape_in_child(const char *trial, struct shape *s, bool order)
{
    CUgraph child, inner;
    CUgraphNode node, sum, copies[CHAIN];
    if (!OK(trial, cuGraphCreate, &child, 0) || !chain_of(trial, s, child, t.out, order, NULL) ||
        !OK(trial, cuGraphAddChildGraphNode, &node, s->graph, NULL, 0, child) ||
        !sum_of(trial, s, s->graph, t.out, &node, 1, &sum) ||
        !OK(trial, cuGraphChildGraphNodeGetGraph, node, &inner))
        return false;
    for (unsigned i = 0; i < CHAIN; i++)
        if (!OK(trial, cuGraphNodeFindInClone, &copies[i], s->chain[0][i], inner))
            return false;
    memcpy(s->chain[0], copies, sizeof copies);
    return true;
}

static const struct {
    const char *name;
    bool (*build)(const char *trial, struct shape *s, bool order);
    bool copied; /* out2 has the result */
} shapes[] = {
    {"kernel behind the last atom", shape_last, false},
    {"four kernels behind the last atom", shape_fan_out, false},
    {"kernel behind all atoms", shape_all, false},
    {"empty node behind all atoms, three kernels behind it", shape_empty_fence, false},
    {"kernel of one block as a fence, four kernels behind it", shape_kernel_fence, false},
    {"two chains that join", shape_join, false},
    {"kernel of another branch", shape_other_branch, false},
    {"copy behind the last atom", shape_copy, true},
    {"set behind the last atom", shape_set, false},
    {"child graph behind the last atom", shape_child_behind, false},
    {"chain in a child graph", shape_in_child, false},
};

/* ---- one by one */

/* Each node by itself. How many of the callbacks were not just one of its function. */
static unsigned arm(const char *trial, const struct shape *s, unsigned *ret_callbacks, double *ret_us)
{
    unsigned odd = 0;
    uint64_t begin_ns = lithos_now_ns();
    *ret_callbacks = 0;
    hook.one = true;
    for (unsigned c = 0; c < s->chains; c++)
        for (unsigned i = 0; i < CHAIN; i++) {
            hook.next = i;
            hook.made = 0;
            hook.logged = 0;
            OK(trial, cuGraphNodeSetEnabled, s->exec, s->chain[c][i], 0);
            OK(trial, cuGraphNodeSetEnabled, s->exec, s->chain[c][i], 1);
            OK(trial, cuGraphUpload, s->exec, t.ctx.stream);
            odd += hook.made != 1;
            *ret_callbacks += hook.logged;
        }
    hook.one = false;
    *ret_us = (double)(lithos_now_ns() - begin_ns) / 1e3 / (s->chains * CHAIN);
    return odd;
}

static void histogram(CUdeviceptr out, unsigned ret_count[4])
{
    static uint32_t got[BLOCKS];
    memset(ret_count, 0, 4 * sizeof *ret_count);
    CU(cuMemcpyDtoH, got, out, sizeof got);
    for (unsigned i = 0; i < BLOCKS; i++)
        ret_count[got[i] < 3 ? got[i] : 3]++;
}

static void clear_all(void)
{
    CU(cuMemsetD32, t.out, 0, BLOCKS);
    CU(cuMemsetD32, t.out2, 0, BLOCKS);
    CU(cuMemsetD32, t.ret, 0, 16);
    CU(cuCtxSynchronize);
}

/* Launched; what each consumer found, and how often each block ran. */
static void run_shape(const char *name, const char *how, const struct shape *s, unsigned odd,
                      unsigned callbacks, double arm_us)
{
    uint32_t found[16];
    unsigned ran[4];
    clear_all();
    OK(name, cuGraphLaunch, s->exec, t.ctx.stream);
    CU(cuStreamSynchronize, t.ctx.stream);
    CU(cuMemcpyDtoH, found, t.ret, sizeof found);
    histogram(t.out, ran);
    printf("{\"trial\": \"shape\", \"shape\": \"%s\", \"how\": \"%s\", \"straggler\": %u, \"found\": [", name,
           how, straggler);
    for (unsigned i = 0; i < s->sums; i++)
        printf("%s%u", i ? ", " : "", found[i]);
    printf("], \"of\": %u, \"ran_0_1_2_more\": [%u, %u, %u, %u], \"odd\": %u, \"callbacks\": %u, "
           "\"arm_us_a_node\": %.1f, \"edit_error\": %d}\n",
           BLOCKS, ran[0], ran[1], ran[2], ran[3], odd, callbacks, arm_us, hook.error);
}

static bool make_shape(unsigned which, struct shape *s, bool order)
{
    const char *name = shapes[which].name;
    *s = (struct shape){.chains = 0};
    return OK(name, cuGraphCreate, &s->graph, 0) && shapes[which].build(name, s, order) &&
           OK(name, cuGraphInstantiateWithFlags, &s->exec, s->graph, 0);
}

static void drop_shape(const struct shape *s)
{
    OK("shape", cuGraphExecDestroy, s->exec);
    OK("shape", cuGraphDestroy, s->graph);
}

/* In the order that the callbacks come, which shows why "behind all atoms" of the trial before finds nothing. */
static void all_at_once(unsigned which, bool order)
{
    struct shape s;
    begin_atoms(t.mark, BLOCKS, CHAIN, false);
    if (make_shape(which, &s, order)) {
        hook.made = hook.logged = 0;
        OK(shapes[which].name, cuGraphUpload, s.exec, t.ctx.stream);
        run_shape(shapes[which].name,
                  order ? "all at once, launch-order edges" : "all at once, default edges", &s,
                  hook.made != s.chains * CHAIN, hook.logged, 0);
        drop_shape(&s);
    }
    end_atoms();
}

static void one_by_one(unsigned which, bool order)
{
    struct shape s;
    unsigned callbacks;
    double us;
    begin_atoms(t.mark, BLOCKS, CHAIN, false);
    hook.edit = false;
    if (make_shape(which, &s, order) && OK(shapes[which].name, cuGraphUpload, s.exec, t.ctx.stream)) {
        hook.edit = true;
        unsigned odd = arm(shapes[which].name, &s, &callbacks, &us);
        for (unsigned i = 0; i < 2; i++)
            run_shape(shapes[which].name,
                      order ? "one by one, launch-order edges" : "one by one, default edges", &s, odd,
                      callbacks, us);
        drop_shape(&s);
    }
    end_atoms();
}

/* ---- what comes behind the graph */

static void behind_graph(void)
{
    struct shape s;
    unsigned callbacks, ran[4];
    double us;
    CUevent event;
    uint32_t *host;
    begin_atoms(t.mark, BLOCKS, CHAIN, false);
    hook.edit = false;
    s = (struct shape){.chains = 0};
    if (!OK("behind graph", cuMemHostAlloc, (void **)&host, BLOCKS * sizeof *host, 0) ||
        !OK("behind graph", cuGraphCreate, &s.graph, 0) ||
        !chain_of("behind graph", &s, s.graph, t.out, true, NULL) ||
        !OK("behind graph", cuGraphInstantiateWithFlags, &s.exec, s.graph, 0) ||
        !OK("behind graph", cuGraphUpload, s.exec, t.ctx.stream))
        return;
    hook.edit = true;
    unsigned odd = arm("behind graph", &s, &callbacks, &us);
    CU(cuEventCreate, &event, CU_EVENT_DEFAULT);
    static const char *const ways[] = {"a copy in the stream", "a copy in a stream that waits for an event",
                                       "the host, behind cuStreamSynchronize"};
    for (unsigned w = 0; w < LITHOS_ARRAY_SIZE(ways); w++) {
        CUstream other;
        memset(host, 0xff, BLOCKS * sizeof *host);
        clear_all();
        CU(cuStreamCreateWithPriority, &other, CU_STREAM_NON_BLOCKING, 0);
        OK("behind graph", cuGraphLaunch, s.exec, t.ctx.stream);
        if (w == 1) {
            CU(cuEventRecord, event, t.ctx.stream);
            OK("behind graph", cuStreamWaitEvent, other, event, 0);
        }
        if (w == 2)
            CU(cuStreamSynchronize, t.ctx.stream);
        OK("behind graph", cuMemcpyDtoHAsync, host, t.out, BLOCKS * sizeof *host,
           w == 0 ? t.ctx.stream : other);
        CU(cuStreamSynchronize, w == 0 ? t.ctx.stream : other);
        memset(ran, 0, sizeof ran);
        for (unsigned i = 0; i < BLOCKS; i++)
            ran[host[i] < 3 ? host[i] : 3]++;
        printf("{\"trial\": \"behind graph\", \"behind\": \"%s\", \"ran_0_1_2_more\": [%u, %u, %u, %u], "
               "\"odd\": %u}\n",
               ways[w], ran[0], ran[1], ran[2], ran[3], odd);
        CU(cuCtxSynchronize);
    }
    drop_shape(&s);
    end_atoms();
}

/* ---- what the callback is told, and what changes do to what it wrote */

static void print_words(const char *when)
{
    for (unsigned i = 0; i < hook.logged && i < 24; i++) {
        const struct seen *n = &hook.log[i];
        printf("{\"trial\": \"words\", \"when\": \"%s\", \"grid\": %u, \"prelude\": %d, \"bank\": %d, "
               "\"latch\": "
               "%d, \"words\": [",
               when, n->grid[0], n->prelude, n->bank, n->latch);
        for (unsigned w = 0; w < WORDS; w++)
            printf("%s\"%llx\"", w ? ", " : "", (unsigned long long)n->words[w]);
        puts("]}");
    }
    hook.logged = 0;
}

/* An atom that is switched off and on, or has other parameters, once it was made one: is it still? And one without blocks. */
static void changes(void)
{
    struct shape s;
    unsigned callbacks;
    double us;
    CUdeviceptr out2 = t.out2;
    begin_atoms(t.mark, BLOCKS, CHAIN, false);
    hook.edit = false;
    if (!make_shape(0, &s, true))
        return;
    hook.logged = 0;
    OK("changes", cuGraphUpload, s.exec, t.ctx.stream);
    print_words("first upload");
    hook.edit = true;
    unsigned odd = arm("changes", &s, &callbacks, &us);
    hook.edit = false;
    hook.logged = 0;
    for (unsigned i = 0; i < CHAIN; i += 3) {
        OK("changes", cuGraphNodeSetEnabled, s.exec, s.chain[0][i], 0);
        OK("changes", cuGraphNodeSetEnabled, s.exec, s.chain[0][i], 1);
    }
    OK("changes", cuGraphUpload, s.exec, t.ctx.stream);
    print_words("nodes 0, 3 and 6 off and on, and not edited again");
    run_shape("changes", "nodes 0, 3 and 6 off and on, and not edited again", &s, odd, callbacks, us);
    for (unsigned i = 0; i < CHAIN; i++)
        OK("changes", cuGraphNodeSetEnabled, s.exec, s.chain[0][i], 0);
    OK("changes", cuGraphUpload, s.exec, t.ctx.stream);
    print_words("all off");
    for (unsigned i = 0; i < CHAIN; i++)
        OK("changes", cuGraphNodeSetEnabled, s.exec, s.chain[0][i], 1);
    OK("changes", cuGraphUpload, s.exec, t.ctx.stream);
    print_words("all on again");
    run_shape("changes", "all off, uploaded, on again, not edited again", &s, odd, callbacks, us);
    void *params[] = {&out2, &straggler, (void *)&spin_ns};
    struct node_params n = {.func = t.mark, .grid = {BLOCKS, 1, 1}, .block = {32, 1, 1}, .params = params};
    for (unsigned i = 0; i < CHAIN; i++)
        OK("changes", cuGraphExecKernelNodeSetParams, s.exec, s.chain[0][i], &n);
    run_shape("changes", "parameters changed: out is out2 now", &s, odd, hook.logged, us);
    unsigned ran[4];
    histogram(t.out2, ran);
    printf("{\"trial\": \"changes\", \"out2_ran_0_1_2_more\": [%u, %u, %u, %u]}\n", ran[0], ran[1], ran[2],
           ran[3]);
    drop_shape(&s);
    end_atoms();
}

/* The first node runs the whole kernel, the others nothing: a kernel that turned out not to be one that may be cut. */
static void none_of_it(void)
{
    struct shape s;
    unsigned callbacks;
    double us;
    begin_atoms(t.mark, BLOCKS, CHAIN, false);
    hook.edit = false;
    if (make_shape(0, &s, true) && OK("nothing", cuGraphUpload, s.exec, t.ctx.stream)) {
        hook.edit = hook.empty = true;
        unsigned odd = arm("nothing", &s, &callbacks, &us);
        hook.empty = false;
        run_shape("nothing", "the first whole, the others' grids 0", &s, odd, callbacks, us);
        drop_shape(&s);
    }
    end_atoms();
}

void shape_trials(void)
{
    changes();
    for (unsigned i = 0; i < LITHOS_ARRAY_SIZE(shapes); i++) {
        if (i < 4) {
            all_at_once(i, false);
            all_at_once(i, true);
        }
        one_by_one(i, false);
        one_by_one(i, true);
    }
    straggler = 1500;
    one_by_one(0, true);
    one_by_one(5, true);
    one_by_one(6, true);
    straggler = EARLY;
    behind_graph();
    none_of_it();
}
