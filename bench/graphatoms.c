/* lithos-graphatoms: what a card and its driver do with atoms in CUDA graphs. Not a benchmark of LithOS: the facts that it is to be built
 * on (docs/hardware.md, "Atoms in graphs"). Runs bare, without lithosd; prints one JSON object a trial.
 *
 *   order     in which order the QMD callback sees the nodes of a graph, at the upload and after changes
 *   chain     one kernel as N nodes that are its atoms, by kind of edge: how long it takes, whether each block runs once
 *   behind    what comes after the last atom finds all atoms done, with a block that takes long in an early one
 *   params    nodes' parameters and grids changed: what becomes of what the callback wrote
 *   shape     chains in graphs of every shape, each node made its atom by itself: what comes behind them finds all done (graphatoms_shape.c)
 *   segments  a graph in pieces with the atoms launched between them, beside one graph: what a replay costs */
#include "bench/graphatoms.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- building */

static struct node_params node_of(CUfunction f, unsigned blocks, unsigned threads, void **params)
{
    return (struct node_params){
        .func = f, .grid = {blocks, 1, 1}, .block = {threads, 1, 1}, .params = params};
}

enum link { LINK_FULL, LINK_PROGRAMMATIC, LINK_LAUNCH_ORDER };

static CUresult add_edge(CUgraph graph, CUgraphNode from, CUgraphNode to, enum link link)
{
    static const unsigned char ports[] = {PORT_DEFAULT, PORT_PROGRAMMATIC, PORT_LAUNCH_ORDER};
    struct edge_data e = {.from_port = ports[link],
                          .type = link == LINK_FULL ? EDGE_DEFAULT : EDGE_PROGRAMMATIC};
    return g.cuGraphAddDependencies_v2(graph, &from, &to, &e, 1);
}

/* count nodes of the kernel, each behind the one before. */
static bool build_chain(const char *trial, CUgraph graph, const struct node_params *n, unsigned count,
                        enum link link, CUgraphNode *ret_nodes)
{
    for (unsigned i = 0; i < count; i++) {
        if (!OK(trial, cuGraphAddKernelNode, &ret_nodes[i], graph, NULL, 0, n))
            return false;
        if (i &&
            !ok(trial, "cuGraphAddDependencies_v2", add_edge(graph, ret_nodes[i - 1], ret_nodes[i], link)))
            return false;
    }
    return true;
}

/* A launch of the node's kernel in the stream; with numAttrs 1 it may overlap with the one before. */
static CUlaunchConfig overlapping(const struct node_params *n)
{
    static CUlaunchAttribute overlap = {.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
                                        .value.programmaticStreamSerializationAllowed = 1};
    return (CUlaunchConfig){.gridDimX = n->grid[0],
                            .gridDimY = 1,
                            .gridDimZ = 1,
                            .blockDimX = n->block[0],
                            .blockDimY = 1,
                            .blockDimZ = 1,
                            .hStream = t.ctx.stream,
                            .attrs = &overlap};
}

/* The same by capture of launches that may overlap. */
static bool capture_chain(const char *trial, const struct node_params *n, unsigned count, CUgraph *ret_graph)
{
    CUlaunchConfig c = overlapping(n);
    if (!OK(trial, cuStreamBeginCapture, t.ctx.stream, MODE_RELAXED))
        return false;
    CUresult r = CUDA_SUCCESS;
    for (unsigned i = 0; i < count && r == CUDA_SUCCESS; i++) {
        c.numAttrs = i > 0;
        r = g.cuLaunchKernelEx(&c, n->func, n->params, NULL);
    }
    CUresult end = g.cuStreamEndCapture(t.ctx.stream, ret_graph);
    return ok(trial, "cuLaunchKernelEx while capturing", r) && ok(trial, "cuStreamEndCapture", end);
}

/* How many of the first n words at out are not `want`. */
static unsigned wrong(CUdeviceptr out, unsigned n, uint32_t want)
{
    static uint32_t got[BLOCKS];
    unsigned count = 0;
    CU(cuMemcpyDtoH, got, out, n * sizeof *got);
    for (unsigned i = 0; i < n; i++)
        count += got[i] != want;
    return count;
}

static void clear(void)
{
    CU(cuMemsetD32, t.out, 0, BLOCKS);
    CU(cuMemsetD32, t.out2, 0, BLOCKS);
    CU(cuMemsetD32, t.ret, 0, 4);
    CU(cuCtxSynchronize);
}

/* ---- order */

static void print_log(const char *trial, const char *when)
{
    printf("{\"trial\": \"%s\", \"when\": \"%s\", \"callbacks\": %u, \"grids\": [", trial, when, hook.logged);
    for (unsigned i = 0; i < hook.logged; i++)
        printf("%s%u", i ? ", " : "", hook.log[i].grid[0]);
    printf("], \"counts\": [");
    for (unsigned i = 0; i < hook.logged; i++)
        printf("%s%lld", i ? ", " : "", (long long)(hook.log[i].count - hook.log[0].count));
    printf("], \"latch\": [");
    for (unsigned i = 0; i < hook.logged; i++)
        printf("%s%d", i ? ", " : "", hook.log[i].latch);
    puts("]}");
    hook.logged = 0;
}

/* Nodes of grids 101, 102, ... in the order they are made; edges as pairs. */
static void show_order(const char *trial, unsigned nodes, const unsigned (*edges)[2], unsigned edge_count)
{
    CUgraph graph;
    CUgraphExec exec;
    CUgraphNode node[16];
    bool fine = OK(trial, cuGraphCreate, &graph, 0);
    for (unsigned i = 0; fine && i < nodes; i++) {
        struct node_params n = node_of(t.null, 101 + i, 32, NULL);
        fine = OK(trial, cuGraphAddKernelNode, &node[i], graph, NULL, 0, &n);
    }
    for (unsigned i = 0; fine && i < edge_count; i++)
        fine = ok(trial, "cuGraphAddDependencies_v2",
                  add_edge(graph, node[edges[i][0]], node[edges[i][1]], LINK_FULL));
    if (!fine || !OK(trial, cuGraphInstantiateWithFlags, &exec, graph, 0))
        return;
    hook.logged = 0;
    OK(trial, cuGraphUpload, exec, t.ctx.stream);
    print_log(trial, "upload");
    OK(trial, cuGraphLaunch, exec, t.ctx.stream);
    print_log(trial, "first launch");
    for (unsigned i = nodes; i-- > 0;) { /* backwards: is it the order of the changes that counts? */
        OK(trial, cuGraphNodeSetEnabled, exec, node[i], 0);
        OK(trial, cuGraphNodeSetEnabled, exec, node[i], 1);
    }
    OK(trial, cuGraphLaunch, exec, t.ctx.stream);
    print_log(trial, "launch after all were switched off and on, the last first");
    CU(cuStreamSynchronize, t.ctx.stream);
    OK(trial, cuGraphExecDestroy, exec);
    OK(trial, cuGraphDestroy, graph);
}

static void order(void)
{
    static const unsigned line[][2] = {{3, 1}, {1, 5}, {5, 0}, {0, 2}, {2, 4}};
    static const unsigned fork[][2] = {{2, 0}, {2, 1}, {2, 4}, {2, 5}, {0, 3}, {1, 3}, {4, 3}, {5, 3}};
    static const unsigned two[][2] = {{0, 2}, {2, 4}, {1, 3}, {3, 5}};
    show_order("order: 104 > 102 > 106 > 101 > 103 > 105", 6, line, 5);
    show_order("order: 103 > (101, 102, 105, 106) > 104", 6, fork, 8);
    show_order("order: 101 > 103 > 105 beside 102 > 104 > 106", 6, two, 4);
}

/* ---- chain */

static double replay_us(CUgraphExec exec, unsigned times, double *ret_host_us)
{
    float ms = 0;
    CU(cuEventRecord, t.begin, t.ctx.stream);
    uint64_t begin_ns = lithos_now_ns();
    for (unsigned i = 0; i < times; i++)
        ok("replay", "cuGraphLaunch", g.cuGraphLaunch(exec, t.ctx.stream));
    *ret_host_us = (double)(lithos_now_ns() - begin_ns) / 1e3 / times;
    CU(cuEventRecord, t.end, t.ctx.stream);
    CU(cuEventSynchronize, t.end);
    ok("replay", "cuEventElapsedTime", g.cuEventElapsedTime(&ms, t.begin, t.end));
    return (double)ms * 1e3 / times;
}

static const struct way {
    const char *name;
    enum link link;
    bool pre_exit, capture;
} ways[] = {
    {"whole waits (default edges)", LINK_FULL, false, false},
    {"default edges, pre-exit bits", LINK_FULL, true, false},
    {"programmatic edges", LINK_PROGRAMMATIC, false, false},
    {"programmatic edges, pre-exit bits", LINK_PROGRAMMATIC, true, false},
    {"launch-order edges", LINK_LAUNCH_ORDER, false, false},
    {"launch-order edges, pre-exit bits", LINK_LAUNCH_ORDER, true, false},
    {"captured programmatic launches", LINK_FULL, false, true},
    {"captured programmatic launches, pre-exit bits", LINK_FULL, true, true},
};

/* An exec of the kernel as `count` nodes; uploaded, so that the callback has made them its atoms. */
static bool make_exec(const struct way *w, const struct node_params *n, unsigned count, CUgraphNode *nodes,
                      CUgraphExec *ret_exec, double *ret_instantiate_us)
{
    CUgraph graph;
    bool fine;
    if (w->capture) {
        fine = capture_chain(w->name, n, count, &graph);
    } else {
        fine = OK(w->name, cuGraphCreate, &graph, 0) && build_chain(w->name, graph, n, count, w->link, nodes);
    }
    uint64_t begin_ns = lithos_now_ns();
    if (!fine || !OK(w->name, cuGraphInstantiateWithFlags, ret_exec, graph, 0))
        return false;
    *ret_instantiate_us = (double)(lithos_now_ns() - begin_ns) / 1e3;
    return OK(w->name, cuGraphUpload, *ret_exec, t.ctx.stream);
}

static unsigned count_latches(void)
{
    unsigned n = 0;
    for (unsigned i = 0; i < hook.logged; i++)
        n += hook.log[i].latch;
    return n;
}

static void chain_way(const struct way *w, unsigned blocks, unsigned iters, unsigned atoms)
{
    CUgraphExec exec;
    CUgraphNode nodes[ATOMS_MAX];
    double made_us, host_us;
    void *params[] = {&t.out, &iters};
    struct node_params n = node_of(t.fma, blocks, 128, params);
    begin_atoms(t.fma, blocks, atoms, w->pre_exit);
    if (make_exec(w, &n, atoms, nodes, &exec, &made_us)) {
        unsigned latches = count_latches(), callbacks = hook.logged;
        replay_us(exec, 1, &host_us);
        double us = replay_us(exec, 5, &host_us);
        printf("{\"trial\": \"chain\", \"way\": \"%s\", \"atoms\": %u, \"us\": %.1f, \"host_us\": %.1f, "
               "\"instantiate_us\": %.0f, \"callbacks\": %u, \"latches\": %u, \"edit_error\": %d}\n",
               w->name, atoms, us, host_us, made_us, callbacks, latches, hook.error);
        OK(w->name, cuGraphExecDestroy, exec);
    }
    end_atoms();
    /* each block once */
    clear();
    uint32_t nobody = UINT32_MAX, no_ns = 0;
    void *mark[] = {&t.out, &nobody, &no_ns};
    n = node_of(t.mark, BLOCKS, 32, mark);
    begin_atoms(t.mark, BLOCKS, atoms, w->pre_exit);
    clear();
    if (make_exec(w, &n, atoms, nodes, &exec, &made_us)) {
        for (unsigned i = 0; i < 3; i++)
            OK(w->name, cuGraphLaunch, exec, t.ctx.stream);
        CU(cuStreamSynchronize, t.ctx.stream);
        printf("{\"trial\": \"once\", \"way\": \"%s\", \"atoms\": %u, \"blocks\": %u, \"wrong\": %u}\n",
               w->name, atoms, BLOCKS, wrong(t.out, BLOCKS, 3));
        OK(w->name, cuGraphExecDestroy, exec);
    }
    end_atoms();
}

static void chain(unsigned iters)
{
    static const unsigned counts[] = {40, 160};
    unsigned blocks = 640 * (unsigned)t.ctx.sm_count;
    const struct way one = {"one node", LINK_FULL, false, false};
    chain_way(&one, blocks, iters, 1);
    for (size_t c = 0; c < LITHOS_ARRAY_SIZE(counts); c++)
        for (size_t i = 0; i < LITHOS_ARRAY_SIZE(ways); i++)
            chain_way(&ways[i], blocks, iters, counts[c]);
}

/* ---- behind */

/* Eight atoms, and a node that counts what is done: behind the last, or behind all. */
static void behind_way(const struct way *w, bool behind_all, uint32_t straggler)
{
    CUgraph graph;
    CUgraphExec exec, sum_exec;
    CUgraphNode nodes[8], sum;
    uint32_t spin_ns = STRAGGLER_NS, n_blocks = BLOCKS, found[2] = {0, 0};
    CUdeviceptr second = t.ret + sizeof(uint32_t);
    void *mark[] = {&t.out, &straggler, &spin_ns}, *first_sum[] = {&t.out, &t.ret, &n_blocks},
         *second_sum[] = {&t.out, &second, &n_blocks};
    struct node_params n = node_of(t.mark, BLOCKS, 32, mark), s = node_of(t.sum, 1, 256, first_sum);
    begin_atoms(t.mark, BLOCKS, 8, w->pre_exit);
    clear();
    bool fine = OK(w->name, cuGraphCreate, &graph, 0) && build_chain(w->name, graph, &n, 8, w->link, nodes) &&
                OK(w->name, cuGraphAddKernelNode, &sum, graph, NULL, 0, &s);
    for (unsigned i = behind_all ? 0 : 7; fine && i < 8; i++)
        fine = ok(w->name, "cuGraphAddDependencies_v2", add_edge(graph, nodes[i], sum, LINK_FULL));
    if (fine && OK(w->name, cuGraphInstantiateWithFlags, &exec, graph, 0)) {
        OK(w->name, cuGraphLaunch, exec, t.ctx.stream);
        CU(cuStreamSynchronize, t.ctx.stream);
        CU(cuMemcpyDtoH, found, t.ret, sizeof found);
        printf("{\"trial\": \"behind\", \"way\": \"%s\", \"waits_for\": \"%s\", \"straggler\": %u, \"done\": "
               "%u, "
               "\"of\": %u}\n",
               w->name, behind_all ? "all atoms" : "the last atom", straggler, found[0], BLOCKS);
        OK(w->name, cuGraphExecDestroy, exec);
    }
    /* and a graph launched behind one that ends with atoms */
    clear();
    hook.next = 0;
    CUgraph plain;
    s.params = second_sum;
    fine = OK(w->name, cuGraphCreate, &graph, 0) && build_chain(w->name, graph, &n, 8, w->link, nodes) &&
           OK(w->name, cuGraphInstantiateWithFlags, &exec, graph, 0) &&
           OK(w->name, cuGraphCreate, &plain, 0) &&
           OK(w->name, cuGraphAddKernelNode, &sum, plain, NULL, 0, &s) &&
           OK(w->name, cuGraphInstantiateWithFlags, &sum_exec, plain, 0);
    if (fine) {
        OK(w->name, cuGraphLaunch, exec, t.ctx.stream);
        OK(w->name, cuGraphLaunch, sum_exec, t.ctx.stream);
        CU(cuStreamSynchronize, t.ctx.stream);
        CU(cuMemcpyDtoH, found, t.ret, sizeof found);
        printf("{\"trial\": \"behind\", \"way\": \"%s\", \"waits_for\": \"the graph before\", \"straggler\": "
               "%u, "
               "\"done\": %u, \"of\": %u}\n",
               w->name, straggler, found[1], BLOCKS);
        OK(w->name, cuGraphExecDestroy, exec);
        OK(w->name, cuGraphExecDestroy, sum_exec);
    }
    end_atoms();
}

static void behind(void)
{
    static const uint32_t stragglers[] = {3, 1500, 3900};
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(ways); i++)
        for (size_t k = 0; k < LITHOS_ARRAY_SIZE(stragglers); k++)
            if (!ways[i].capture) {
                behind_way(&ways[i], false, stragglers[k]);
                behind_way(&ways[i], true, stragglers[k]);
            }
}

/* ---- params */

static void print_changed(const char *what, unsigned atoms, unsigned wrong_before, unsigned wrong_after)
{
    unsigned prelude = 0, bank = 0, pre_exit = 0;
    for (unsigned i = 0; i < hook.logged; i++) {
        prelude += hook.log[i].prelude;
        bank += hook.log[i].bank;
        pre_exit += hook.log[i].pre_exit;
    }
    printf("{\"trial\": \"params\", \"changed\": \"%s\", \"atoms\": %u, \"callbacks\": %u, "
           "\"begin_in_prelude\": %u, "
           "\"bank_valid\": %u, \"pre_exit\": %u, \"wrong_in_old\": %u, \"wrong_in_new\": %u, \"grids\": [",
           what, atoms, hook.logged, prelude, bank, pre_exit, wrong_before, wrong_after);
    for (unsigned i = 0; i < hook.logged && i < 16; i++)
        printf("%s%u", i ? ", " : "", hook.log[i].grid[0]);
    puts("]}");
}

static void params_of_nodes(void)
{
    const struct way *w = &ways[1];
    CUgraphExec exec;
    CUgraphNode nodes[8];
    double us;
    uint32_t nobody = UINT32_MAX, no_ns = 0;
    void *mark[] = {&t.out, &nobody, &no_ns}, *other[] = {&t.out2, &nobody, &no_ns};
    struct node_params n = node_of(t.mark, BLOCKS, 32, mark);
    begin_atoms(t.mark, BLOCKS, 8, true);
    clear();
    if (!make_exec(w, &n, 8, nodes, &exec, &us))
        return;
    OK("params", cuGraphLaunch, exec, t.ctx.stream);
    CU(cuStreamSynchronize, t.ctx.stream);
    n.params = other;
    hook.logged = 0;
    for (unsigned i = 0; i < 8; i++)
        OK("params", cuGraphExecKernelNodeSetParams, exec, nodes[i], &n);
    OK("params", cuGraphLaunch, exec, t.ctx.stream);
    CU(cuStreamSynchronize, t.ctx.stream);
    print_changed("parameters", 8, wrong(t.out, BLOCKS, 1), wrong(t.out2, BLOCKS, 1));
    /* Another grid: the driver makes the QMDs anew from what went to the card. Left as they come. */
    end_atoms();
    clear();
    n.grid[0] = BLOCKS / 2;
    hook.logged = 0;
    for (unsigned i = 0; i < 8; i++)
        OK("params", cuGraphExecKernelNodeSetParams, exec, nodes[i], &n);
    OK("params", cuGraphLaunch, exec, t.ctx.stream);
    CU(cuStreamSynchronize, t.ctx.stream);
    print_changed("grid", 8, wrong(t.out, BLOCKS, 0), wrong(t.out2, BLOCKS / 2, 1));
    OK("params", cuGraphExecDestroy, exec);
}

/* ---- segments */

#define SMALL 20u

static bool small_line(const char *trial, CUgraph graph, CUgraphNode *last)
{
    struct node_params n = node_of(t.null, 1, 32, NULL);
    for (unsigned i = 0; i < SMALL; i++) {
        CUgraphNode node;
        if (!OK(trial, cuGraphAddKernelNode, &node, graph, *last ? last : NULL, *last ? 1 : 0, &n))
            return false;
        *last = node;
    }
    return true;
}

static bool exec_of(const char *trial, CUgraph graph, CUgraphExec *ret_exec)
{
    return OK(trial, cuGraphInstantiateWithFlags, ret_exec, graph, 0) &&
           OK(trial, cuGraphUpload, *ret_exec, t.ctx.stream);
}

/* Before, atoms as stream launches, behind. */
static void replay_segments(CUgraphExec before, CUgraphExec after, const struct node_params *n,
                            unsigned atoms)
{
    CUlaunchConfig c = overlapping(n);
    OK("segments", cuGraphLaunch, before, t.ctx.stream);
    for (unsigned i = 0; i < atoms; i++) {
        c.numAttrs = i > 0;
        OK("segments", cuLaunchKernelEx, &c, n->func, n->params, NULL);
    }
    OK("segments", cuGraphLaunch, after, t.ctx.stream);
}

static void print_segments(const char *way, unsigned atoms, double us, double host_us)
{
    printf("{\"trial\": \"segments\", \"way\": \"%s\", \"atoms\": %u, \"us\": %.1f, \"host_us\": %.1f}\n",
           way, atoms, us, host_us);
}

/* What the nodes behind the last atom hang on. */
enum fence { FENCE_NONE, FENCE_EMPTY_BEHIND_ALL, FENCE_KERNEL };

static bool add_fence(const char *way, CUgraph graph, const CUgraphNode *nodes, unsigned atoms,
                      enum fence fence, CUgraphNode *last)
{
    struct node_params n = node_of(t.null, 1, 32, NULL);
    *last = nodes[atoms - 1];
    if (fence == FENCE_EMPTY_BEHIND_ALL)
        return OK(way, cuGraphAddEmptyNode, last, graph, nodes, atoms);
    return fence == FENCE_NONE || OK(way, cuGraphAddKernelNode, last, graph, &nodes[atoms - 1], 1, &n);
}

/* 20 small kernels, the long one as `atoms` nodes linked so, 20 small ones: one graph. */
static void one_graph(const char *way, const struct node_params *n, unsigned atoms, enum link link,
                      enum fence fence)
{
    CUgraph graph;
    CUgraphExec exec;
    CUgraphNode last = NULL, nodes[ATOMS_MAX];
    double host_us;
    begin_atoms(t.fma, n->grid[0], atoms, link != LINK_FULL);
    if (OK(way, cuGraphCreate, &graph, 0) && small_line(way, graph, &last) &&
        build_chain(way, graph, n, atoms, link, nodes) &&
        ok(way, "cuGraphAddDependencies_v2", add_edge(graph, last, nodes[0], LINK_FULL))) {
        if (add_fence(way, graph, nodes, atoms, fence, &last) && small_line(way, graph, &last) &&
            exec_of(way, graph, &exec)) {
            replay_us(exec, 1, &host_us);
            double us = replay_us(exec, 10, &host_us);
            print_segments(way, atoms, us, host_us);
            OK(way, cuGraphExecDestroy, exec);
        }
    }
    end_atoms();
}

static void segments(unsigned iters)
{
    unsigned blocks = 640 * (unsigned)t.ctx.sm_count;
    void *params[] = {&t.out, &iters};
    struct node_params n = node_of(t.fma, blocks, 128, params);
    CUgraph graph;
    CUgraphExec before, after;
    CUgraphNode last = NULL;
    float ms = 0;
    one_graph("one graph, whole", &n, 1, LINK_FULL, FENCE_NONE);
    one_graph("one graph, programmatic edges", &n, 40, LINK_PROGRAMMATIC, FENCE_NONE);
    one_graph("one graph, launch-order edges", &n, 40, LINK_LAUNCH_ORDER, FENCE_NONE);
    one_graph("one graph, launch-order edges, a kernel as a fence", &n, 40, LINK_LAUNCH_ORDER, FENCE_KERNEL);
    one_graph("one graph, launch-order edges, an empty node behind all atoms", &n, 40, LINK_LAUNCH_ORDER,
              FENCE_EMPTY_BEHIND_ALL);
    one_graph("one graph, launch-order edges, an empty node behind all atoms", &n, 160, LINK_LAUNCH_ORDER,
              FENCE_EMPTY_BEHIND_ALL);
    bool fine = OK("segments", cuGraphCreate, &graph, 0) && small_line("segments", graph, &last) &&
                exec_of("segments", graph, &before) && exec_of("segments", graph, &after);
    if (!fine)
        return;
    begin_atoms(t.fma, blocks, 40, true);
    replay_segments(before, after, &n, 40);
    CU(cuStreamSynchronize, t.ctx.stream);
    CU(cuEventRecord, t.begin, t.ctx.stream);
    uint64_t begin_ns = lithos_now_ns();
    for (unsigned i = 0; i < 10; i++)
        replay_segments(before, after, &n, 40);
    double host_us = (double)(lithos_now_ns() - begin_ns) / 1e4;
    CU(cuEventRecord, t.end, t.ctx.stream);
    CU(cuEventSynchronize, t.end);
    OK("segments", cuEventElapsedTime, &ms, t.begin, t.end);
    print_segments("two graphs, atoms launched between them", 40, (double)ms * 1e3 / 10, host_us);
    end_atoms();
}

/* ---- the whole */

static const char help[] =
    "usage: lithos-graphatoms [--device N] [--limit S] [--iters N] "
    "[order|chain|behind|params|shape|segments]...\n"
    "Tries atoms in CUDA graphs on this card, without LithOS; prints a JSON object a trial.\n";

static volatile const char *under_way = "opening";

static void too_late(int sig)
{
    char text[160];
    (void)sig;
    int n = snprintf(text, sizeof text, "lithos-graphatoms: the time is over: %s hangs, which is an answer\n",
                     (const char *)under_way);
    ssize_t written = write(STDERR_FILENO, text, LITHOS_MIN((size_t)n, sizeof text - 1));
    (void)written;
    _exit(3);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"device", 1, 0, 'd'}, {"limit", 1, 0, 'l'}, {"iters", 1, 0, 'i'}, {"help", 0, 0, 'h'}, {0}};
    static const char *const all[] = {"order", "chain", "behind", "params", "shape", "segments"};
    struct sample_options o = {.time_scale = 1};
    unsigned limit_s = 100, iters = 20000;
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (c == 'd') {
            o.device = (int)sample_number("device", optarg, 0, 1023);
        } else if (c == 'l') {
            limit_s = (unsigned)sample_number("limit", optarg, 1, 3600);
        } else if (c == 'i') {
            iters = (unsigned)sample_number("iters", optarg, 1, 1e9);
        } else {
            fputs(help, c == 'h' ? stdout : stderr);
            return c == 'h' ? 0 : 2;
        }
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGALRM, too_late);
    alarm(limit_s);
    open_all(&o);
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(all); i++) {
        bool wanted = optind == argc;
        for (int a = optind; a < argc; a++)
            wanted = wanted || !strcmp(argv[a], all[i]);
        if (!wanted)
            continue;
        under_way = all[i];
        if (i == 0)
            order();
        else if (i == 1)
            chain(iters);
        else if (i == 2)
            behind();
        else if (i == 3)
            params_of_nodes();
        else if (i == 4)
            shape_trials();
        else
            segments(iters);
    }
    CU(cuCtxSynchronize);
    CU(cuDevicePrimaryCtxRelease, t.ctx.device);
    return 0;
}
