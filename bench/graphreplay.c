/* lithos-graphreplay: a graph of long kernels in two branches that join, replayed: how long a replay takes, and what it computed. */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "samples/sample.h"

#define THREADS 128u
#define MARKED 9001u /* blocks that count themselves */
#define ROUNDS_MAX 64u

#define REPLAY_CUDA(X)                                                       \
    X(cuStreamBeginCapture, "cuStreamBeginCapture_v2", (CUstream, int))      \
    X(cuStreamEndCapture, "cuStreamEndCapture", (CUstream, CUgraph *))       \
    X(cuStreamWaitEvent, "cuStreamWaitEvent", (CUstream, CUevent, unsigned)) \
    X(cuEventElapsedTime, "cuEventElapsedTime", (float *, CUevent, CUevent)) \
    X(cuGraphInstantiateWithFlags, "cuGraphInstantiateWithFlags",            \
      (CUgraphExec *, CUgraph, unsigned long long))                          \
    X(cuGraphLaunch, "cuGraphLaunch", (CUgraphExec, CUstream))               \
    X(cuGraphExecDestroy, "cuGraphExecDestroy", (CUgraphExec))               \
    X(cuGraphDestroy, "cuGraphDestroy", (CUgraph))

static struct {
#define X(name, symbol, args) CUresult(*name) args;
    REPLAY_CUDA(X)
#undef X
} more;

#define MORE(name, ...) sample_check_result(#name, more.name(__VA_ARGS__))

struct replay {
    struct sample_context ctx;
    CUfunction fma, mark;
    CUdeviceptr out, info, sink;
    CUstream other;
    CUevent fork, join, begin, end;
    unsigned blocks, iters, replays, rounds, learn;
    double scale;
};

static const char help[] =
    "usage: lithos-graphreplay [--blocks N] [--iters N] [--replays N] [--rounds N] [--learn N] "
    "[--time-scale N]\n"
    "Replays a CUDA graph of long kernels. Prints `RESULT {...}` with the time of a replay in each round and "
    "a hash of what was "
    "computed,\n"
    "and ends at a line on standard input. --learn: launches of each kernel by itself before.\n";

static void launch(struct replay *r, CUfunction f, unsigned blocks, CUstream stream)
{
    void *fma[] = {&r->sink, &r->iters}, *mark[] = {&r->out, &r->info};
    CU(cuLaunchKernel, f, blocks, 1, 1, f == r->mark ? 32 : THREADS, 1, 1, 0, stream,
       f == r->mark ? mark : fma, NULL);
}

/* One kernel behind another, with small ones between them; beside them, from the first to the last, another. */
static CUgraphExec graph(struct replay *r)
{
    CUgraph g;
    CUgraphExec exec;
    MORE(cuStreamBeginCapture, r->ctx.stream, 0);
    launch(r, r->mark, MARKED, r->ctx.stream);
    CU(cuEventRecord, r->fork, r->ctx.stream);
    MORE(cuStreamWaitEvent, r->other, r->fork, 0);
    launch(r, r->fma, r->blocks, r->ctx.stream);
    launch(r, r->mark, 64, r->ctx.stream);
    launch(r, r->fma, r->blocks, r->ctx.stream);
    launch(r, r->fma, r->blocks / 4, r->other);
    launch(r, r->mark, MARKED, r->other);
    CU(cuEventRecord, r->join, r->other);
    MORE(cuStreamWaitEvent, r->ctx.stream, r->join, 0);
    launch(r, r->mark, MARKED, r->ctx.stream);
    MORE(cuStreamEndCapture, r->ctx.stream, &g);
    MORE(cuGraphInstantiateWithFlags, &exec, g, 0);
    MORE(cuGraphDestroy, g);
    return exec;
}

/* What a program does before it captures: the same kernels by themselves. */
static void learn(struct replay *r)
{
    for (unsigned i = 0; i < r->learn; i++) {
        launch(r, r->mark, MARKED, r->ctx.stream);
        launch(r, r->fma, r->blocks, r->ctx.stream);
        launch(r, r->fma, r->blocks / 4, r->ctx.stream);
        CU(cuStreamSynchronize, r->ctx.stream);
    }
    CU(cuMemsetD32, r->out, 0, MARKED);
    CU(cuCtxSynchronize);
}

static double round_us(struct replay *r, CUgraphExec exec)
{
    float ms;
    CU(cuEventRecord, r->begin, r->ctx.stream);
    for (unsigned i = 0; i < r->replays; i++)
        MORE(cuGraphLaunch, exec, r->ctx.stream);
    CU(cuEventRecord, r->end, r->ctx.stream);
    CU(cuEventSynchronize, r->end);
    MORE(cuEventElapsedTime, &ms, r->begin, r->end);
    return (double)ms * 1e3 / r->replays / r->scale;
}

/* FNV-1a over what each block has counted. */
static uint64_t result(const struct replay *r)
{
    static uint32_t got[MARKED];
    uint64_t h = 0xcbf29ce484222325ull;
    CU(cuMemcpyDtoH, got, r->out, sizeof got);
    for (unsigned i = 0; i < MARKED; i++)
        h = (h ^ got[i]) * 0x100000001b3ull;
    return h;
}

static void open_all(struct replay *r)
{
    const struct sample_options o = {.time_scale = 1};
    sample_open(&o, &r->ctx);
#define X(name, symbol, args) sample_find(#name, symbol, &more.name, sizeof more.name);
    REPLAY_CUDA(X)
#undef X
    r->fma = sample_function(&r->ctx, "lithos_fma");
    r->mark = sample_function(&r->ctx, "lithos_mark");
    CU(cuMemAlloc, &r->out, MARKED * sizeof(uint32_t));
    CU(cuMemAlloc, &r->info, 4096);
    CU(cuMemAlloc, &r->sink, 256);
    CU(cuStreamCreateWithPriority, &r->other, CU_STREAM_NON_BLOCKING, 0);
    CU(cuEventCreate, &r->fork, CU_EVENT_DISABLE_TIMING);
    CU(cuEventCreate, &r->join, CU_EVENT_DISABLE_TIMING);
    CU(cuEventCreate, &r->begin, CU_EVENT_DEFAULT);
    CU(cuEventCreate, &r->end, CU_EVENT_DEFAULT);
    CU(cuMemsetD32, r->out, 0, MARKED);
    r->blocks *= (unsigned)r->ctx.sm_count;
}

static void parse(int argc, char **argv, struct replay *r)
{
    enum { BLOCKS = 256, ITERS, REPLAYS, ROUNDS, LEARN, SCALE, HELP };
    static const struct option options[] = {{"blocks", 1, 0, BLOCKS},   {"iters", 1, 0, ITERS},
                                            {"replays", 1, 0, REPLAYS}, {"rounds", 1, 0, ROUNDS},
                                            {"learn", 1, 0, LEARN},     {"time-scale", 1, 0, SCALE},
                                            {"help", 0, 0, HELP},       {0}};
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (c == BLOCKS) {
            r->blocks = (unsigned)sample_number("blocks", optarg, 4, 4096);
        } else if (c == ITERS) {
            r->iters = (unsigned)sample_number("iters", optarg, 1, 1e9);
        } else if (c == REPLAYS) {
            r->replays = (unsigned)sample_number("replays", optarg, 1, 1e6);
        } else if (c == ROUNDS) {
            r->rounds = (unsigned)sample_number("rounds", optarg, 1, ROUNDS_MAX);
        } else if (c == LEARN) {
            r->learn = (unsigned)sample_number("learn", optarg, 0, 1e6);
        } else if (c == SCALE) {
            r->scale = sample_number("time-scale", optarg, 0.01, 1e4);
        } else {
            fputs(help, c == HELP || c == 'h' ? stdout : stderr);
            exit(c == HELP || c == 'h' ? 0 : 2);
        }
    }
    sample_options_end(argc, argv);
}

int main(int argc, char **argv)
{
    struct replay r = {.blocks = 160, .iters = 20000, .replays = 10, .rounds = 5, .learn = 24, .scale = 1};
    double us[ROUNDS_MAX] = {0};
    char line[16];
    parse(argc, argv, &r);
    open_all(&r);
    learn(&r);
    CUgraphExec exec = graph(&r);
    round_us(&r, exec);
    for (unsigned i = 0; i < r.rounds; i++)
        us[i] = round_us(&r, exec);
    printf("RESULT {\"hashes\": {\"counts\": \"%016llx\"}, \"values\": {\"us\": [",
           (unsigned long long)result(&r));
    for (unsigned i = 0; i < r.rounds; i++)
        printf("%s%.2f", i ? ", " : "", us[i]);
    puts("]}}");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin))
        line[0] = 0;
    MORE(cuGraphExecDestroy, exec);
    return 0;
}
