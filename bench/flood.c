/* lithos-flood: empty kernels from several threads, each on a stream of its own, as fast as the driver takes them or at a
 * given pace, in bursts after idleness. It counts its launches in a file that it maps, so that they can be read whatever
 * becomes of the process: bench/nothing_lost.py and tests/e2e/burst.py hold what lithosd knows against that. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "samples/sample.h"

#define STREAMS_MAX 64u
/* Launch n of a stream asks for n modulo this of shared memory, in bytes: so a record says which launch it is of. */
#define MARKS 64u

/* The file: one line for the process, one for each stream. What is counted as begun and not as ended was on its way when the
 * process ended: one launch a stream at most. */
struct counts {
    _Alignas(64) _Atomic uint64_t pid;
    uint64_t streams;
    struct stream_counts {
        _Alignas(64) _Atomic uint64_t begun;
        _Atomic uint64_t ended;
    } stream[STREAMS_MAX];
};

struct flood {
    struct sample_options o;
    struct sample_context ctx;
    CUfunction kernel;
    unsigned streams, bursts;
    uint64_t launches, wait_every, gap_ns, idle_ns;
    const char *count_path;
    struct counts *counts;
};

struct flood_stream {
    const struct flood *flood;
    unsigned index;
    pthread_t thread;
    uint64_t launching_ns; /* spent in bursts */
};

static const char help[] =
    "usage: lithos-flood [options]\n"
    "Launches empty kernels from several threads and prints how many, and in which time.\n"
    "  --streams N     threads, each with a stream of its own (default 4)\n"
    "  --launches N    of each, in a burst (default 1000)\n"
    "  --bursts N      (default 1)\n"
    "  --idle-ms MS    before each burst (default 0)\n"
    "  --gap-ns NS     from one launch of a stream to its next, at least (default 0)\n"
    "  --wait-every N  launches between two waits for the stream (default 64; 0: at the end of a burst)\n"
    "  --count FILE    count there as well, where a kill leaves it\n"
    "  --device N      GPU by CUDA's number (default 0)\n";

static void parse(int argc, char **argv, struct flood *f)
{
    enum { STREAMS = 256, LAUNCHES, BURSTS, IDLE, GAP, WAIT, COUNT, DEVICE, HELP };
    static const struct option options[] = {
        {"streams", 1, 0, STREAMS}, {"launches", 1, 0, LAUNCHES},
        {"bursts", 1, 0, BURSTS},   {"idle-ms", 1, 0, IDLE},
        {"gap-ns", 1, 0, GAP},      {"wait-every", 1, 0, WAIT},
        {"count", 1, 0, COUNT},     {"device", 1, 0, DEVICE},
        {"help", 0, 0, HELP},       {0},
    };
    int c;

    *f =
        (struct flood){.o = {.time_scale = 1}, .streams = 4, .bursts = 1, .launches = 1000, .wait_every = 64};
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (c) {
        case STREAMS:
            f->streams = (unsigned)sample_number("streams", optarg, 1, STREAMS_MAX);
            break;
        case LAUNCHES:
            f->launches = (uint64_t)sample_number("launches", optarg, 1, 1e15);
            break;
        case BURSTS:
            f->bursts = (unsigned)sample_number("bursts", optarg, 1, 1e9);
            break;
        case IDLE:
            f->idle_ns = (uint64_t)(sample_number("idle-ms", optarg, 0, 1e9) * 1e6);
            break;
        case GAP:
            f->gap_ns = (uint64_t)sample_number("gap-ns", optarg, 0, 1e12);
            break;
        case WAIT:
            f->wait_every = (uint64_t)sample_number("wait-every", optarg, 0, 1e15);
            break;
        case COUNT:
            f->count_path = optarg;
            break;
        case DEVICE:
            f->o.device = (int)sample_number("device", optarg, 0, 1023);
            break;
        case HELP:
            fputs(help, stdout);
            exit(0);
        default:
            sample_usage_error();
        }
    }
    sample_options_end(argc, argv);
}

_Static_assert(sizeof(struct counts) == (1 + STREAMS_MAX) * 64, "as bench/nothing_lost.py reads it");

static struct counts *open_counts(const char *path)
{
    static struct counts nowhere;
    if (!path)
        return &nowhere;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    void *p = MAP_FAILED;
    if (fd >= 0 && ftruncate(fd, sizeof(struct counts)) == 0)
        p = mmap(NULL, sizeof(struct counts), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) {
        fprintf(stderr, "lithos-flood: --count %s: %s\n", path, strerror(errno));
        exit(1);
    }
    close(fd);
    return p;
}

/* A counter that one thread writes; a kill leaves what was stored before it. */
static void count(_Atomic uint64_t *counter)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1,
                          memory_order_release);
}

static uint64_t wait_until(uint64_t due_ns)
{
    uint64_t now_ns;
    while ((now_ns = lithos_now_ns()) < due_ns)
        __builtin_ia32_pause();
    return now_ns;
}

static void burst(const struct flood *f, struct stream_counts *counts, CUstream stream)
{
    uint64_t due_ns = lithos_now_ns();

    for (uint64_t i = 0; i < f->launches && !sample_stop; i++) {
        unsigned n = (unsigned)atomic_load_explicit(&counts->begun, memory_order_relaxed);
        if (f->gap_ns) /* what was missed is not made up for: a driver has its own pace too */
            due_ns = wait_until(due_ns) + f->gap_ns;
        count(&counts->begun);
        CU(cuLaunchKernel, f->kernel, 1, 1, 1, 32, 1, 1, n % MARKS, stream, NULL, NULL);
        count(&counts->ended);
        if (f->wait_every && (i + 1) % f->wait_every == 0)
            CU(cuStreamSynchronize, stream);
    }
}

static void *stream_main(void *arg)
{
    struct flood_stream *s = arg;
    const struct flood *f = s->flood;
    struct timespec idle = {(time_t)(f->idle_ns / LITHOS_NSEC_PER_SEC),
                            (long)(f->idle_ns % LITHOS_NSEC_PER_SEC)};
    CUcontext ctx;
    CUstream stream;

    CU(cuDevicePrimaryCtxRetain, &ctx, f->ctx.device);
    CU(cuCtxSetCurrent, ctx);
    CU(cuStreamCreateWithPriority, &stream, CU_STREAM_NON_BLOCKING, 0);
    for (unsigned i = 0; i < f->bursts && !sample_stop; i++) {
        nanosleep(&idle, NULL);
        uint64_t start_ns = lithos_now_ns();
        burst(f, &f->counts->stream[s->index], stream);
        s->launching_ns += lithos_now_ns() - start_ns;
        CU(cuStreamSynchronize, stream);
    }
    CU(cuDevicePrimaryCtxRelease, f->ctx.device);
    return NULL;
}

int main(int argc, char **argv)
{
    static struct flood f;
    static struct flood_stream streams[STREAMS_MAX];
    uint64_t launches = 0, longest_ns = 0;

    parse(argc, argv, &f);
    f.counts = open_counts(f.count_path);
    f.counts->streams = f.streams;
    atomic_store(&f.counts->pid, (uint64_t)getpid());
    sample_catch_signals();
    sample_open(&f.o, &f.ctx);
    f.kernel = sample_function(&f.ctx, "lithos_null");
    for (unsigned i = 0; i < f.streams; i++) {
        streams[i] = (struct flood_stream){.flood = &f, .index = i};
        int r = pthread_create(&streams[i].thread, NULL, stream_main, &streams[i]);
        if (r) {
            fprintf(stderr, "lithos-flood: thread %u: %s\n", i, strerror(r));
            return 1;
        }
    }
    for (unsigned i = 0; i < f.streams; i++) {
        pthread_join(streams[i].thread, NULL);
        launches += atomic_load(&f.counts->stream[i].ended);
        longest_ns = LITHOS_MAX(longest_ns, streams[i].launching_ns);
    }
    printf("{\"launches\": %llu, \"seconds\": %.6f}\n", (unsigned long long)launches,
           (double)longest_ns / 1e9);
    fflush(stdout);
    CU(cuDevicePrimaryCtxRelease, f.ctx.device);
    return 0;
}
