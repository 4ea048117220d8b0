/* lithos-exact: launches kernels whose results are known in every way that programs do, and compares each result. */
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "samples/exact.h"

#define THREADS 4

/* Beside those of sample.h. Graphs are instantiated by the name that has one signature: what cuGetProcAddress gives for
 * cuGraphInstantiate takes a log to write into, whatever version is asked for, and cuda.h of 12.0 on means another by it. */
#define EXACT_CUDA(X)                                                                                        \
    X(cuLaunchKernelEx, "cuLaunchKernelEx", (const CUlaunchConfig *, CUfunction, void **, void **))          \
    X(cuLaunchKernel_ptsz, "cuLaunchKernel_ptsz",                                                            \
      (CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream, void **,  \
       void **))                                                                                             \
    X(cuLaunchCooperativeKernel, "cuLaunchCooperativeKernel",                                                \
      (CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream, void **)) \
    X(cuStreamWaitEvent, "cuStreamWaitEvent", (CUstream, CUevent, unsigned))                                 \
    X(cuMemcpyDtoHAsync, "cuMemcpyDtoHAsync_v2", (void *, CUdeviceptr, size_t, CUstream))                    \
    X(cuMemcpyDtoDAsync, "cuMemcpyDtoDAsync_v2", (CUdeviceptr, CUdeviceptr, size_t, CUstream))               \
    X(cuMemsetD32Async, "cuMemsetD32Async", (CUdeviceptr, unsigned, size_t, CUstream))                       \
    X(cuCtxCreate_v2, "cuCtxCreate_v2", (CUcontext *, unsigned, CUdevice))                                   \
    X(cuCtxDestroy, "cuCtxDestroy_v2", (CUcontext))                                                          \
    X(cuCtxGetCurrent, "cuCtxGetCurrent", (CUcontext *))

static struct {
#define X(name, symbol, args) CUresult(*name) args;
    EXACT_CUDA(X)
#undef X
} more;

#define MORE(name, ...) sample_check_result(#name, more.name(__VA_ARGS__))

static const char help[] =
    "usage: lithos-exact [--device N] [--rounds N] [--threads N] [--limit S] [--only WAY] [--json] "
    "[--fault]\n"
    "Launches kernels whose blocks count themselves in every way that programs do (grids of one to three "
    "dimensions,\n"
    "clusters, attributes, streams, graphs, threads, contexts) and compares the results. Exit code 0: all "
    "right.\n";

/* ---- when it does not end as it should: what was under way stands on standard error, whatever it was */

#define EXIT_LATE 3

static struct {
    const char *volatile way;
    volatile unsigned round;
} now = {.way = "at the start"};

static void on_end(int sig)
{
    char text[160];
    int n = snprintf(text, sizeof text, "lithos-exact: %s%s%s, in round %u\n",
                     sig == SIGALRM ? "the time is over" : strsignal(sig), " while at: ", now.way, now.round);
    ssize_t written = write(STDERR_FILENO, text, (size_t)n);
    (void)written;
    if (sig == SIGALRM)
        _exit(EXIT_LATE);
    raise(sig); /* its handler is gone */
}

static void watch_ends(void)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGALRM};
    struct sigaction action = {.sa_handler = on_end, .sa_flags = (int)SA_RESETHAND};
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(signals); i++)
        sigaction(signals[i], &action, NULL);
}

/* ---- results */

unsigned exact_blocks(const struct shape *s)
{
    return s->grid[0] * s->grid[1] * s->grid[2];
}

void exact_compare(struct exact *e, const uint32_t *got, unsigned n, uint32_t want, const char *what)
{
    e->checks++;
    for (unsigned i = 0; i < n; i++) {
        if (got[i] == want)
            continue;
        fprintf(stderr, "lithos-exact: %s: block %u of %u counts %u instead of %u\n", what, i, n, got[i],
                want);
        e->wrong++;
        return;
    }
}

void exact_clear(const struct exact *e)
{
    CU(cuMemsetD32, e->out, 0, BLOCKS_MAX);
    CU(cuMemsetD32, e->out2, 0, BLOCKS_MAX);
    CU(cuMemsetD32, e->info, 0, INFO_WORDS);
    CU(cuCtxSynchronize);
}

void exact_check(struct exact *e, unsigned n, uint32_t want, const char *what)
{
    CU(cuCtxSynchronize);
    CU(cuMemcpyDtoH, e->got, e->out, n * sizeof *e->got);
    exact_compare(e, e->got, n, want, what);
}

/* ---- launching */

void exact_launch_ex(struct exact *e, const struct shape *s, CUstream stream, int attribute, int value)
{
    void *params[] = {&e->out, &e->info};
    CUlaunchAttribute attributes[2] = {0};
    CUlaunchConfig c = {.gridDimX = s->grid[0],
                        .gridDimY = s->grid[1],
                        .gridDimZ = s->grid[2],
                        .blockDimX = e->block,
                        .blockDimY = 1,
                        .blockDimZ = 1,
                        .hStream = stream,
                        .attrs = attributes};
    if (s->cluster[0] * s->cluster[1] * s->cluster[2] > 1)
        attributes[c.numAttrs++] =
            (CUlaunchAttribute){.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION,
                                .value.clusterDim = {s->cluster[0], s->cluster[1], s->cluster[2]}};
    if (attribute) {
        attributes[c.numAttrs].id = attribute;
        attributes[c.numAttrs++].value.cooperative = value; /* an int, whichever it is */
    }
    MORE(cuLaunchKernelEx, &c, e->mark, params, NULL);
}

void exact_launch(struct exact *e, const struct shape *s, CUstream stream)
{
    void *params[] = {&e->out, &e->info};
    CU(cuLaunchKernel, e->mark, s->grid[0], s->grid[1], s->grid[2], e->block, 1, 1, 0, stream, params, NULL);
}

/* ---- the ways */

static const struct shape shapes[] = {
    {{60000, 1, 1}, {1, 1, 1}}, {{7, 5000, 1}, {1, 1, 1}},  {{16, 1, 4000}, {1, 1, 1}},
    {{5, 30, 400}, {1, 1, 1}},  {{30000, 2, 1}, {1, 1, 1}}, {{1, 12345, 1}, {1, 1, 1}},
    {{9, 1, 1}, {1, 1, 1}},     {{2200, 1, 1}, {1, 1, 1}},
};
static const struct shape clusters[] = {{{40000, 1, 1}, {2, 1, 1}},
                                        {{8, 6000, 1}, {4, 2, 1}},
                                        {{6, 4, 1000}, {1, 1, 2}},
                                        {{20000, 2, 1}, {8, 1, 1}}};
static const struct shape plain = {{30011, 1, 1}, {1, 1, 1}};

static void grids(struct exact *e)
{
    for (unsigned i = 0; i < LITHOS_ARRAY_SIZE(shapes); i++) {
        exact_clear(e);
        exact_launch(e, &shapes[i], i % 2 ? e->ctx.stream : NULL);
        exact_check(e, exact_blocks(&shapes[i]), 1, "grid");
        exact_clear(e);
        exact_launch_ex(e, &shapes[i], e->ctx.stream, 0, 0);
        exact_launch_ex(e, &shapes[i], e->ctx.stream, 0, 0);
        exact_check(e, exact_blocks(&shapes[i]), 2, "grid, twice in a row");
    }
    for (unsigned i = 0; i < LITHOS_ARRAY_SIZE(clusters) && e->cc_major >= 9; i++) {
        exact_clear(e);
        exact_launch_ex(e, &clusters[i], e->ctx.stream, 0, 0);
        exact_check(e, exact_blocks(&clusters[i]), 1, "clusters");
    }
}

static void attributes(struct exact *e)
{
    void *params[] = {&e->out, &e->info};
    unsigned resident = (unsigned)e->ctx.sm_count;
    exact_clear(e);
    exact_launch_ex(e, &plain, e->ctx.stream, CU_LAUNCH_ATTRIBUTE_PRIORITY, 0);
    exact_check(e, exact_blocks(&plain), 1, "with a priority");
    if (e->cc_major >= 9) {
        exact_clear(e);
        exact_launch(e, &plain, e->ctx.stream); /* what follows may overlap with it */
        exact_launch_ex(e, &plain, e->ctx.stream, CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION, 1);
        exact_launch_ex(e, &plain, e->ctx.stream, CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION, 1);
        exact_launch(e, &plain, e->ctx.stream);
        exact_check(e, exact_blocks(&plain), 4, "programmatic dependent launches");
    }
    exact_clear(e);
    MORE(cuLaunchCooperativeKernel, e->mark, resident, 1, 1, e->block, 1, 1, 0, e->ctx.stream, params);
    exact_check(e, resident, 1, "cooperative");
    exact_clear(e);
    MORE(cuLaunchKernel_ptsz, e->mark, 30011, 1, 1, e->block, 1, 1, 0, NULL, params, NULL);
    exact_launch(e, &plain, CU_STREAM_PER_THREAD);
    exact_check(e, exact_blocks(&plain), 2, "per-thread default stream");
}

/* What comes behind a kernel in its stream, and in one that waits for an event, finds it done. */
static void order(struct exact *e)
{
    size_t bytes = exact_blocks(&plain) * sizeof(uint32_t);
    exact_clear(e);
    exact_launch(e, &plain, e->ctx.stream);
    MORE(cuMemcpyDtoDAsync, e->copy, e->out, bytes, e->ctx.stream);
    MORE(cuMemsetD32Async, e->out, 7, exact_blocks(&plain), e->ctx.stream);
    exact_launch(e, &plain, e->ctx.stream);
    CU(cuEventRecord, e->event, e->ctx.stream);
    MORE(cuStreamWaitEvent, e->other, e->event, 0);
    MORE(cuMemcpyDtoHAsync, e->got, e->out, bytes, e->other);
    CU(cuStreamSynchronize, e->other);
    exact_compare(e, e->got, exact_blocks(&plain), 8, "a copy on a stream that waits for an event");
    CU(cuMemcpyDtoH, e->got, e->copy, bytes);
    exact_compare(e, e->got, exact_blocks(&plain), 1, "a copy behind it in its stream");
    exact_clear(e);
    exact_launch(e, &plain, NULL);
    exact_launch(e, &plain, NULL);
    CU(cuEventRecord, e->event, NULL);
    CU(cuEventSynchronize, e->event);
    CU(cuMemcpyDtoH, e->got, e->out, bytes);
    exact_compare(e, e->got, exact_blocks(&plain), 2, "the default stream");
}

struct worker {
    struct exact *e;
    CUcontext ctx;
    CUstream stream;
    int launches;
};

static void *work(void *arg)
{
    const struct worker *w = arg;
    CU(cuCtxSetCurrent, w->ctx);
    for (int i = 0; i < w->launches; i++)
        exact_launch(w->e, &plain, w->stream);
    return NULL;
}

/* Several threads into one stream, and into streams of their own. */
static void threads(struct exact *e)
{
    CUcontext ctx;
    CUstream own[THREADS];
    struct worker w[THREADS];
    pthread_t thread[THREADS];
    MORE(cuCtxGetCurrent, &ctx);
    for (int i = 0; i < THREADS; i++)
        CU(cuStreamCreateWithPriority, &own[i], CU_STREAM_NON_BLOCKING, 0);
    for (int alone = 0; alone < 2; alone++) {
        exact_clear(e);
        for (int i = 0; i < THREADS; i++) {
            w[i] = (struct worker){e, ctx, alone ? own[i] : e->ctx.stream, 3};
            if (pthread_create(&thread[i], NULL, work, &w[i]) != 0) {
                fputs("lithos-exact: no thread\n", stderr);
                exit(1);
            }
        }
        for (int i = 0; i < THREADS; i++)
            pthread_join(thread[i], NULL);
        exact_check(e, exact_blocks(&plain), 3 * THREADS,
                    alone ? "threads with a stream each" : "threads with one stream");
    }
}

/* Another context, made and ended: what belongs to it goes with it. */
static void contexts(struct exact *e)
{
    CUcontext primary, ctx;
    MORE(cuCtxGetCurrent, &primary);
    for (int i = 0; i < 2; i++) {
        struct exact inner = *e;
        MORE(cuCtxCreate_v2, &ctx, 0, e->ctx.device);
        CU(cuModuleLoadData, &inner.ctx.module, sample_kernels());
        inner.mark = sample_function(&inner.ctx, "lithos_mark");
        CU(cuMemAlloc, &inner.out, BLOCKS_MAX * sizeof(uint32_t));
        CU(cuMemAlloc, &inner.out2, BLOCKS_MAX * sizeof(uint32_t));
        CU(cuMemAlloc, &inner.info, INFO_WORDS * sizeof(uint32_t));
        exact_clear(&inner);
        exact_launch(&inner, &plain, NULL);
        exact_launch(&inner, &shapes[3], NULL);
        CU(cuCtxSynchronize);
        CU(cuMemcpyDtoH, e->got, inner.out, exact_blocks(&plain) * sizeof(uint32_t));
        exact_compare(e, e->got, exact_blocks(&plain), 2, "another context");
        inner.checks = inner.wrong = 0;
        exact_graph_left(&inner);
        e->checks += inner.checks;
        e->wrong += inner.wrong;
        MORE(cuCtxDestroy, ctx);
        CU(cuCtxSetCurrent, primary);
    }
    exact_clear(e);
    exact_launch(e, &plain, e->ctx.stream);
    exact_check(e, exact_blocks(&plain), 1, "the first context again");
}

/* Blocks near the end of a large grid write where nothing can be: the launch, or what waits for it, must say so. */
static int fault(const struct exact *e)
{
    CUfunction kernel = sample_function(&e->ctx, "lithos_fault");
    CUdeviceptr out = e->out;
    unsigned from = BLOCKS_MAX - 8;
    void *params[] = {&out, &from};
    CUresult r =
        cuda.cuLaunchKernel(kernel, BLOCKS_MAX, 1, 1, e->block, 1, 1, 0, e->ctx.stream, params, NULL);
    if (r == CUDA_SUCCESS)
        r = cuda.cuStreamSynchronize(e->ctx.stream);
    CUresult after = cuda.cuCtxSynchronize();
    printf("lithos-exact: a kernel that writes where nothing is ends with error %d, what comes after it with "
           "%d\n",
           r, after);
    fflush(stdout);
    return r == CUDA_ERROR_ILLEGAL_ADDRESS && after == r ? 0 : 1;
}

/* ---- the whole */

struct options {
    struct sample_options sample;
    unsigned rounds, limit_s, threads;
    const char *only;
    bool fault;
};

static const struct {
    const char *name;
    void (*run)(struct exact *);
} ways[] = {{"grids", grids},         {"attributes", attributes}, {"order", order},
            {"graphs", exact_graphs}, {"threads", threads},       {"contexts", contexts}};

static void open_all(struct exact *e, const struct sample_options *o)
{
    sample_open(o, &e->ctx);
#define X(name, symbol, args) sample_find(#name, symbol, &more.name, sizeof more.name);
    EXACT_CUDA(X)
#undef X
    CU(cuDeviceGetAttribute, &e->cc_major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, e->ctx.device);
    e->mark = sample_function(&e->ctx, "lithos_mark");
    CU(cuMemAlloc, &e->out, BLOCKS_MAX * sizeof(uint32_t));
    CU(cuMemAlloc, &e->out2, BLOCKS_MAX * sizeof(uint32_t));
    CU(cuMemAlloc, &e->copy, BLOCKS_MAX * sizeof(uint32_t));
    CU(cuMemAlloc, &e->info, INFO_WORDS * sizeof(uint32_t));
    CU(cuStreamCreateWithPriority, &e->other, CU_STREAM_NON_BLOCKING, 0);
    CU(cuEventCreate, &e->event, CU_EVENT_DISABLE_TIMING);
    e->got = calloc(BLOCKS_MAX, sizeof *e->got);
    if (!e->got) {
        fputs("lithos-exact: out of memory\n", stderr);
        exit(1);
    }
}

static void run_ways(struct exact *e, const struct options *o)
{
    for (now.round = 1; now.round <= o->rounds; now.round++)
        for (size_t i = 0; i < LITHOS_ARRAY_SIZE(ways); i++) {
            if (o->only && strcmp(o->only, ways[i].name) != 0)
                continue;
            now.way = ways[i].name;
            alarm(o->limit_s);
            ways[i].run(e);
        }
}

static int parse(int argc, char **argv, struct options *o)
{
    enum { DEVICE = 256, ROUNDS, THREADS_OF_A_BLOCK, LIMIT, ONLY, JSON, FAULT, HELP };
    static const struct option options[] = {
        {"device", 1, 0, DEVICE}, {"rounds", 1, 0, ROUNDS}, {"threads", 1, 0, THREADS_OF_A_BLOCK},
        {"limit", 1, 0, LIMIT},   {"only", 1, 0, ONLY},     {"json", 0, 0, JSON},
        {"fault", 0, 0, FAULT},   {"help", 0, 0, HELP},     {0}};
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (c == DEVICE) {
            o->sample.device = (int)sample_number("device", optarg, 0, 1023);
        } else if (c == ROUNDS) {
            o->rounds = (unsigned)sample_number("rounds", optarg, 1, 1e6);
        } else if (c == THREADS_OF_A_BLOCK) {
            o->threads = (unsigned)sample_number("threads", optarg, 1, 64);
        } else if (c == LIMIT) {
            o->limit_s = (unsigned)sample_number("limit", optarg, 1, 86400);
        } else if (c == ONLY) {
            o->only = optarg;
        } else if (c == JSON) {
            o->sample.json = true;
        } else if (c == FAULT) {
            o->fault = true;
        } else if (c == 'h' || c == HELP) {
            fputs(help, stdout);
            exit(0);
        } else {
            return -EINVAL;
        }
    }
    size_t i = 0;
    while (o->only && i < LITHOS_ARRAY_SIZE(ways) && strcmp(o->only, ways[i].name) != 0)
        i++;
    return i < LITHOS_ARRAY_SIZE(ways) ? 0 : -EINVAL;
}

int main(int argc, char **argv)
{
    struct options o = {.sample = {.time_scale = 1}, .rounds = 1, .limit_s = 120, .threads = 64};
    struct exact e = {.checks = 0};
    int result;
    if (parse(argc, argv, &o) < 0) {
        fputs("lithos-exact: these options are not understood: see --help\n", stderr);
        return 2;
    }
    watch_ends();
    alarm(o.limit_s);
    e.block = o.threads;
    open_all(&e, &o.sample);
    exact_graphs_open();
    if (o.fault) {
        now.way = "fault";
        result = fault(&e);
    } else {
        run_ways(&e, &o);
        if (o.sample.json)
            printf("{\"program\": \"lithos-exact\", \"checks\": %u, \"wrong\": %u}\n", e.checks, e.wrong);
        else
            printf("lithos-exact: %u results compared, %u wrong\n", e.checks, e.wrong);
        fflush(stdout); /* should the driver fail to end as it should */
        now.way = "the end of the context";
        CU(cuDevicePrimaryCtxRelease, e.ctx.device);
        result = e.wrong ? 1 : 0;
    }
    now.way = "the end of the process";
    free(e.got);
    return result;
}
