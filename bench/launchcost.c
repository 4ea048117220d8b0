/* lithos-launchcost: what launching an empty kernel costs the launching thread.
 *
 * bench/overhead.py runs two of them, one bare and one under LithOS, and lets them measure in turns: each
 * obeys lines on standard input, so that both see the same machine in the same state. async N   time N
 * launches, each call by itself, in batches that the GPU's queue holds sync N    time N launches, each with a
 * wait for its end report    print the figures since the last report, one JSON object, and forget them With
 * --once: first launch, one line, exit. */
#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/quantile.h"
#include "samples/sample.h"

/* Launches between two waits: well below the 1024 or so that make a launch wait for room. */
#define BATCH 256u
#define SAMPLES_MAX (4u << 20)

enum what {
    ASYNC,
    SYNC,
    WHAT_MAX,
};

static const char *const what_names[WHAT_MAX] = {"async", "sync"};

struct series {
    double *us;
    size_t count;
};

struct bench {
    struct sample_context ctx;
    CUfunction kernel;
    struct series series[WHAT_MAX];
};

/* Pages are used as they fill. */
static double samples[WHAT_MAX][SAMPLES_MAX];

static const char help[] = "usage: lithos-launchcost [--device N] [--cpu N] [--once]\n"
                           "Obeys lines on standard input: async N, sync N, report (see bench/overhead.py).\n"
                           "  --device N  GPU by CUDA's number (default 0)\n"
                           "  --cpu N     pin the measuring thread to this CPU\n"
                           "  --once      one launch, print the time since the program began, exit\n";

static void launch(const struct bench *b)
{
    CU(cuLaunchKernel, b->kernel, 1, 1, 1, 32, 1, 1, 0, b->ctx.stream, NULL, NULL);
}

static void add(struct series *s, uint64_t duration_ns)
{
    if (s->count < SAMPLES_MAX)
        s->us[s->count++] = (double)duration_ns / 1e3;
}

static void measure_async(struct bench *b, uint64_t n)
{
    for (uint64_t done = 0; done < n;) {
        uint64_t batch = LITHOS_MIN(n - done, (uint64_t)BATCH);
        for (uint64_t i = 0; i < batch; i++) {
            uint64_t start_ns = lithos_now_ns();
            launch(b);
            add(&b->series[ASYNC], lithos_now_ns() - start_ns);
        }
        CU(cuStreamSynchronize, b->ctx.stream);
        done += batch;
    }
}

static void measure_sync(struct bench *b, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        uint64_t start_ns = lithos_now_ns();
        launch(b);
        CU(cuStreamSynchronize, b->ctx.stream);
        add(&b->series[SYNC], lithos_now_ns() - start_ns);
    }
}

static void report(struct bench *b)
{
    printf("{");
    for (int w = 0; w < WHAT_MAX; w++) {
        struct series *s = &b->series[w];
        lithos_sort_samples(s->us, s->count);
        printf("%s\"%s\": {\"launches\": %zu, \"p50_us\": %.3f, \"p90_us\": %.3f, \"p99_us\": %.3f, "
               "\"max_us\": %.3f}",
               w ? ", " : "", what_names[w], s->count, lithos_quantile(s->us, s->count, 0.5),
               lithos_quantile(s->us, s->count, 0.9), lithos_quantile(s->us, s->count, 0.99),
               lithos_quantile(s->us, s->count, 1));
        s->count = 0;
    }
    printf("}\n");
    fflush(stdout);
}

static int obey(struct bench *b)
{
    char line[128], *end;

    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof(line), stdin)) {
        line[strcspn(line, "\n")] = '\0';
        char *number = strchr(line, ' ');
        if (number)
            *number++ = '\0';
        unsigned long n = number ? strtoul(number, &end, 10) : 0;
        if (!strcmp(line, "report") && !number) {
            report(b);
            continue;
        }
        if (!number || *end || n == 0 || n > SAMPLES_MAX) {
            fprintf(stderr, "lithos-launchcost: cannot make out the line '%s'\n", line);
            return 2;
        }
        if (!strcmp(line, "async")) {
            measure_async(b, n);
        } else if (!strcmp(line, "sync")) {
            measure_sync(b, n);
        } else {
            fprintf(stderr, "lithos-launchcost: there is no measurement '%s'\n", line);
            return 2;
        }
        puts("done");
        fflush(stdout);
    }
    return 0;
}

static void pin(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set) != 0)
        fprintf(stderr, "lithos-launchcost: cannot run on CPU %d alone: %s\n", cpu, strerror(errno));
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"device", 1, 0, 'd'}, {"cpu", 1, 0, 'c'}, {"once", 0, 0, 'o'}, {"help", 0, 0, 'h'}, {0},
    };
    uint64_t begin_ns = lithos_now_ns();
    struct sample_options o = {.time_scale = 1};
    struct bench b = {0};
    int cpu = -1, c, r = 0;
    bool once = false;

    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (c) {
        case 'd':
            o.device = (int)sample_number("device", optarg, 0, 1023);
            break;
        case 'c':
            cpu = (int)sample_number("cpu", optarg, 0, CPU_SETSIZE - 1);
            break;
        case 'o':
            once = true;
            break;
        case 'h':
            fputs(help, stdout);
            return 0;
        default:
            fputs(help, stderr);
            return 2;
        }
    }
    sample_open(&o, &b.ctx);
    b.kernel = sample_function(&b.ctx, "lithos_null");
    uint64_t open_ns = lithos_now_ns();
    launch(&b);
    CU(cuStreamSynchronize, b.ctx.stream);
    if (once) {
        uint64_t end_ns = lithos_now_ns();
        printf("{\"open_ms\": %.3f, \"first_launch_ms\": %.3f}\n", (double)(open_ns - begin_ns) / 1e6,
               (double)(end_ns - open_ns) / 1e6);
        fflush(stdout);
        return 0;
    }
    if (cpu >= 0)
        pin(cpu);
    for (int w = 0; w < WHAT_MAX; w++)
        b.series[w].us = samples[w];
    r = obey(&b);
    CU(cuDevicePrimaryCtxRelease, b.ctx.device);
    return r;
}
