/* lithos-graphhold: a graph of many short kernels in a line with gates between them, each of which lets the graph go on only
 * while a word in the host's memory says so. How much longer a replay takes for the gates; how soon it stands once the word
 * is cleared, and goes on once it is set.
 *
 * A gate is a node that waits for a word (cuGraphAddBatchMemOpNode), or a kernel of one thread that looks at it. */
#include <getopt.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "samples/sample.h"

#define THREADS 128u
#define TIMES_MAX 1000u
#define HOST_PORTABLE_MAPPED 3u
/* How long it is watched for whether it stands, in the card's time: many times what a kernel takes. */
#define STANDS_NS (400 * LITHOS_NSEC_PER_USEC)
#define TRIES 1000u /* to close gates in time */
#define PATIENCE_NS (20 * LITHOS_NSEC_PER_SEC)

#define HOLD_CUDA(X)                                                                                \
    X(cuCtxGetCurrent, "cuCtxGetCurrent", (CUcontext *))                                            \
    X(cuMemHostAlloc, "cuMemHostAlloc", (void **, size_t, unsigned))                                \
    X(cuMemHostGetDevicePointer, "cuMemHostGetDevicePointer_v2", (CUdeviceptr *, void *, unsigned)) \
    X(cuGraphCreate, "cuGraphCreate", (CUgraph *, unsigned))                                        \
    X(cuGraphAddKernelNode, "cuGraphAddKernelNode_v2",                                              \
      (CUgraphNode *, CUgraph, const CUgraphNode *, size_t, const CUDA_KERNEL_NODE_PARAMS_v2 *))    \
    X(cuGraphInstantiateWithFlags, "cuGraphInstantiateWithFlags",                                   \
      (CUgraphExec *, CUgraph, unsigned long long))                                                 \
    X(cuGraphLaunch, "cuGraphLaunch", (CUgraphExec, CUstream))

static struct {
#define X(name, symbol, args) CUresult(*name) args;
    HOLD_CUDA(X)
#undef X
    CUresult (*cuGraphAddBatchMemOpNode)(CUgraphNode *, CUgraph, const CUgraphNode *, size_t,
                                         const CUDA_BATCH_MEM_OP_NODE_PARAMS *);
} more;

#define MORE(name, ...) sample_check_result(#name, more.name(__VA_ARGS__))

struct hold {
    struct sample_context ctx;
    CUfunction step, kernel_gate;
    CUdeviceptr sink, step_at, gate_at;
    volatile uint32_t *reached,
        *open; /* the host's: the last kernel that was done, from 1; 1: gates are open */
    CUgraphExec exec;
    bool by_kernel;
    unsigned nodes, every, blocks, iters;
    double scale;
    uint32_t held_at;   /* the last kernel that was done then; 0: not held */
    uint64_t replay_ns; /* usual, in real time */
    unsigned random;    /* rand_r's */
};

static const char help[] =
    "usage: lithos-graphhold [--nodes N] [--every N] [--gate wait|kernel] [--blocks N] [--iters N] "
    "[--time-scale N]\n"
    "A graph of N kernels in a line, with a gate before every so many of them (0: none).\n"
    "Says \"ready\", then obeys lines:\n"
    "  replay N    replays it, one after the other: their times in us\n"
    "  stop N      so many times in the midst of a replay: us from the gates' closing to the\n"
    "              end of the last kernel, and from their opening to the end of the next; how\n"
    "              many passed closed gates\n"
    "  hold        begins a replay and closes the gates in its midst: \"done\" once it stands\n"
    "  go          opens them: \"done\" once it is over\n"
    "  run         replays until the next line comes: \"done\"\n"
    "Times are in the card's time. Ends at the end of its input.\n";

static CUgraphNode add_gate(struct hold *h, CUgraph graph, const CUgraphNode *behind, CUcontext ctx)
{
    static uint32_t least = 1;
    CUgraphNode node;
    if (h->by_kernel) {
        void *args[] = {&h->gate_at, &least};
        const CUDA_KERNEL_NODE_PARAMS_v2 p = {.func = h->kernel_gate,
                                              .gridDimX = 1,
                                              .gridDimY = 1,
                                              .gridDimZ = 1,
                                              .blockDimX = 1,
                                              .blockDimY = 1,
                                              .blockDimZ = 1,
                                              .kernelParams = args};
        MORE(cuGraphAddKernelNode, &node, graph, behind, behind != NULL, &p);
        return node;
    }
    CUstreamBatchMemOpParams op = {.waitValue = {.operation = CU_STREAM_MEM_OP_WAIT_VALUE_32,
                                                 .address = h->gate_at,
                                                 .value = least,
                                                 .flags = CU_STREAM_WAIT_VALUE_GEQ}};
    const CUDA_BATCH_MEM_OP_NODE_PARAMS p = {.ctx = ctx, .count = 1, .paramArray = &op};
    MORE(cuGraphAddBatchMemOpNode, &node, graph, behind, behind != NULL, &p);
    return node;
}

/* As programs do before they make graphs: LithOS does nothing to one before it has seen that the driver calls its hook. */
static void launch_once(struct hold *h)
{
    uint32_t step = 0;
    void *args[] = {&h->step_at, &step, &h->sink, &h->iters};
    CU(cuLaunchKernel, h->step, 1, 1, 1, THREADS, 1, 1, 0, h->ctx.stream, args, NULL);
    CU(cuStreamSynchronize, h->ctx.stream);
}

static void build(struct hold *h)
{
    CUgraph graph;
    CUgraphNode last = NULL;
    CUcontext ctx;
    MORE(cuCtxGetCurrent, &ctx);
    MORE(cuGraphCreate, &graph, 0);
    for (uint32_t i = 1; i <= h->nodes; i++) {
        void *args[] = {&h->step_at, &i, &h->sink, &h->iters};
        const CUDA_KERNEL_NODE_PARAMS_v2 p = {.func = h->step,
                                              .gridDimX = h->blocks,
                                              .gridDimY = 1,
                                              .gridDimZ = 1,
                                              .blockDimX = THREADS,
                                              .blockDimY = 1,
                                              .blockDimZ = 1,
                                              .kernelParams = args};
        if (h->every && (i - 1) % h->every == 0)
            last = add_gate(h, graph, last ? &last : NULL, ctx);
        CUgraphNode node;
        MORE(cuGraphAddKernelNode, &node, graph, last ? &last : NULL, last != NULL, &p);
        last = node;
    }
    MORE(cuGraphInstantiateWithFlags, &h->exec, graph, 0);
}

static double in_us(const struct hold *h, uint64_t ns)
{
    return (double)ns / 1e3 / h->scale;
}

static uint64_t replay_ns(struct hold *h)
{
    const uint64_t begin_ns = lithos_now_ns();
    MORE(cuGraphLaunch, h->exec, h->ctx.stream);
    CU(cuStreamSynchronize, h->ctx.stream);
    return lithos_now_ns() - begin_ns;
}

static void begin(struct hold *h)
{
    *h->reached = 0;
    MORE(cuGraphLaunch, h->exec, h->ctx.stream);
}

/* Kernels in front of it. */
static uint32_t last_gate(const struct hold *h)
{
    return (h->nodes - 1) / h->every * h->every;
}

_Noreturn static void give_up(const char *why)
{
    fprintf(stderr, "lithos-graphhold: %s\n", why);
    exit(1);
}

/* Until so many kernels are done: when that was seen. */
static uint64_t until_reached(const struct hold *h, uint32_t kernel)
{
    const uint64_t begin_ns = lithos_now_ns();
    while (*h->reached < kernel) {
        if (lithos_now_ns() - begin_ns > PATIENCE_NS)
            give_up("the graph does not go on");
        sched_yield(); /* on a virtual GPU, to who runs the kernels */
    }
    return lithos_now_ns();
}

static void set_open(struct hold *h, uint32_t open)
{
    __atomic_store_n(h->open, open, __ATOMIC_SEQ_CST);
}

static void spin_ns(uint64_t ns)
{
    for (const uint64_t begin_ns = lithos_now_ns(); lithos_now_ns() - begin_ns < ns;)
        ;
}

/* Some time in the midst of a replay, with two gates to come. */
static void until_some_time(struct hold *h)
{
    until_reached(h, 1 + (uint32_t)rand_r(&h->random) % (last_gate(h) - h->every));
    spin_ns(h->replay_ns / h->nodes * ((uint64_t)rand_r(&h->random) % 100) / 100);
}

/* Begins a replay and closes the gates at some time: how many kernels are done when it stands at the next. Which one that is
 * is known: a kernel in front of it was seen not to be done when it was closed already. Where the last that was done is the one
 * in front of a gate, that may have been passed or not, and where the last gate was passed there is none any more: then anew. */
static uint32_t begin_and_close(struct hold *h, uint64_t *ret_close_ns)
{
    for (unsigned i = 0; i < TRIES; i++) {
        begin(h);
        until_some_time(h);
        *ret_close_ns = lithos_now_ns();
        set_open(h, 0);
        const uint32_t reached = __atomic_load_n(h->reached, __ATOMIC_SEQ_CST);
        if (reached % h->every != 0 && reached < last_gate(h))
            return (reached / h->every + 1) * h->every;
        set_open(h, 1);
        CU(cuStreamSynchronize, h->ctx.stream);
    }
    give_up("no gate could be closed in time: more --nodes are needed");
}

/* Whether the graph stays at that gate; when it was seen to have come there. */
static bool stands(const struct hold *h, uint32_t gate, uint64_t *ret_ns)
{
    *ret_ns = until_reached(h, gate);
    while (*h->reached == gate && (double)(lithos_now_ns() - *ret_ns) < (double)STANDS_NS * h->scale)
        sched_yield();
    return *h->reached == gate;
}

/* False: no gate held it. */
static bool stop_once(struct hold *h, uint64_t *ret_stop_ns, uint64_t *ret_go_ns)
{
    uint64_t close_ns, last_ns;
    const uint32_t gate = begin_and_close(h, &close_ns);
    const bool stood = stands(h, gate, &last_ns);
    const uint64_t open_ns = lithos_now_ns();
    set_open(h, 1);
    *ret_go_ns = until_reached(h, gate + 1) - open_ns;
    *ret_stop_ns = last_ns - close_ns;
    CU(cuStreamSynchronize, h->ctx.stream);
    return stood;
}

static void hold(struct hold *h)
{
    uint64_t ns;
    h->held_at = begin_and_close(h, &ns);
    if (!stands(h, h->held_at, &ns))
        give_up("no gate holds the graph");
}

static void go(struct hold *h)
{
    if (*h->reached != h->held_at)
        give_up("the graph went on while its gates were closed");
    h->held_at = 0;
    set_open(h, 1);
    CU(cuStreamSynchronize, h->ctx.stream);
}

/* Until there is something to read, which is left there. */
static void run(struct hold *h)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    do
        replay_ns(h);
    while (poll(&input, 1, 0) == 0);
}

static void print_us(const struct hold *h, const char *name, const uint64_t *ns, unsigned count)
{
    printf("\"%s\": [", name);
    for (unsigned i = 0; i < count; i++)
        printf("%s%.2f", i ? ", " : "", in_us(h, ns[i]));
    fputs("]", stdout);
}

static void do_replays(struct hold *h, unsigned times)
{
    uint64_t ns[TIMES_MAX];
    for (unsigned i = 0; i < times; i++)
        ns[i] = replay_ns(h);
    fputs("{", stdout);
    print_us(h, "us", ns, times);
    puts("}");
}

static void do_stops(struct hold *h, unsigned times)
{
    uint64_t stop_ns[TIMES_MAX], go_ns[TIMES_MAX];
    unsigned stopped = 0;
    for (unsigned i = 0; i < times; i++)
        stopped += stop_once(h, &stop_ns[stopped], &go_ns[stopped]);
    fputs("{", stdout);
    print_us(h, "stop_us", stop_ns, stopped);
    fputs(", ", stdout);
    print_us(h, "go_us", go_ns, stopped);
    printf(", \"passed\": %u}\n", times - stopped);
}

/* False: there is no such line, or not now. */
static bool obey(struct hold *h, char *line)
{
    const char *number = strchr(line, ' ');
    const double n = number ? atof(number) : 0;
    const bool some = n >= 1 && n <= TIMES_MAX && !h->held_at;
    line[strcspn(line, " \n")] = 0;
    if (!strcmp(line, "replay") && some) {
        do_replays(h, (unsigned)n);
        return true;
    }
    if (!strcmp(line, "stop") && some && h->every) {
        do_stops(h, (unsigned)n);
        return true;
    }
    if (!strcmp(line, "hold") && h->every && !h->held_at)
        hold(h);
    else if (!strcmp(line, "go") && h->held_at)
        go(h);
    else if (!strcmp(line, "run") && !h->held_at)
        run(h);
    else
        return false;
    puts("done");
    return true;
}

static void open_all(struct hold *h)
{
    const struct sample_options o = {.time_scale = h->scale};
    void *words;
    sample_open(&o, &h->ctx);
#define X(name, symbol, args) sample_find(#name, symbol, &more.name, sizeof more.name);
    HOLD_CUDA(X)
#undef X
    if (h->every && !h->by_kernel)
        sample_find("cuGraphAddBatchMemOpNode", "cuGraphAddBatchMemOpNode", &more.cuGraphAddBatchMemOpNode,
                    sizeof more.cuGraphAddBatchMemOpNode);
    h->step = sample_function(&h->ctx, "lithos_step");
    h->kernel_gate = sample_function(&h->ctx, "lithos_hold");
    CU(cuMemAlloc, &h->sink, 256);
    MORE(cuMemHostAlloc, &words, 4096, HOST_PORTABLE_MAPPED);
    memset(words, 0, 4096);
    MORE(cuMemHostGetDevicePointer, &h->step_at, words, 0);
    h->reached = words;
    h->open = h->reached + 64; /* a line of its own */
    h->gate_at = h->step_at + 64 * sizeof(uint32_t);
    set_open(h, 1);
}

static void parse(int argc, char **argv, struct hold *h)
{
    enum { NODES = 256, EVERY, GATE, BLOCKS, ITERS, SCALE, HELP };
    static const struct option options[] = {
        {"nodes", 1, 0, NODES}, {"every", 1, 0, EVERY},      {"gate", 1, 0, GATE}, {"blocks", 1, 0, BLOCKS},
        {"iters", 1, 0, ITERS}, {"time-scale", 1, 0, SCALE}, {"help", 0, 0, HELP}, {0}};
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (c == NODES) {
            h->nodes = (unsigned)sample_number("nodes", optarg, 1, 60000);
        } else if (c == EVERY) {
            h->every = (unsigned)sample_number("every", optarg, 0, 60000);
        } else if (c == GATE && (!strcmp(optarg, "wait") || !strcmp(optarg, "kernel"))) {
            h->by_kernel = optarg[0] == 'k';
        } else if (c == BLOCKS) {
            h->blocks = (unsigned)sample_number("blocks", optarg, 1, 4096);
        } else if (c == ITERS) {
            h->iters = (unsigned)sample_number("iters", optarg, 0, 1e9);
        } else if (c == SCALE) {
            h->scale = sample_number("time-scale", optarg, 0.01, 1e4);
        } else {
            fputs(help, c == HELP || c == 'h' ? stdout : stderr);
            exit(c == HELP || c == 'h' ? 0 : 2);
        }
    }
    sample_options_end(argc, argv);
    if (h->every == 1 || (h->every && h->nodes <= 2 * h->every)) {
        fputs("lithos-graphhold: --every must be 0, or 2 or more and less than half of --nodes\n", stderr);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    struct hold h = {.nodes = 1600, .every = 40, .blocks = 64, .iters = 300, .scale = 1, .random = 1};
    char line[64];
    parse(argc, argv, &h);
    open_all(&h);
    launch_once(&h);
    build(&h);
    replay_ns(&h);
    h.replay_ns = replay_ns(&h);
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        if (!obey(&h, line)) {
            fprintf(stderr, "lithos-graphhold: not understood: %s\n", line);
            return 2;
        }
        fflush(stdout);
    }
    return 0;
}
