/* lithos-replay: a service whose request is a list of kernels, as a trace has recorded them (bench/lib/replay.py writes the list).
 *
 * A line of the list is a kernel: NAME BLOCKS THREADS NS PAUSE_NS SYNC. It is launched PAUSE_NS after the one before it was, or, where
 * SYNC is 1, after all before it have ended. Each of its blocks stays for NS; on the virtual GPU a cost file says what that is at other
 * clocks, by the name. Requests come one after the other: latency is from the first launch on to the end of the last kernel. */
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "base/quantile.h"
#include "samples/sample.h"

#define NAME_BYTES 64u
#define KERNELS_MAX 65536u
#define THREADS_MAX 1024u

struct kernel {
    char name[NAME_BYTES];
    CUfunction function;
    unsigned blocks, threads, ns;
    uint64_t pause_ns;
    bool sync;
};

struct replay {
    struct sample_options o;
    const char *list;
    double think_us;
    bool pauses;
    struct kernel *kernels;
    size_t count;
};

struct figures {
    double *latency_us; /* real time */
    size_t count, room;
    uint64_t begin_ns, end_ns;
};

static const char help[] =
    "usage: lithos-replay --kernels FILE [options]\n"
    "Launches the kernels of a list in order, waits for them, and again; prints the latency of a turn.\n"
    "  --kernels FILE          the list: NAME BLOCKS THREADS NS PAUSE_NS SYNC a line, times in the card's "
    "time\n"
    "  --no-pauses             launch as fast as the card takes it\n"
    "  --think-us US           from the end of a request to the next (default 50)\n" SAMPLE_OPTIONS_HELP;

/* A block that stays for so many nanoseconds. What it returns is nothing that anybody reads. */
static const char entry_ptx[] = "// lithos-vgpu: timing-only\n"
                                ".visible .entry %s(.param .u32 ns)\n"
                                "{\n"
                                "    .reg .pred %%p<2>;\n"
                                "    .reg .b32 %%r<2>;\n"
                                "    .reg .b64 %%rd<5>;\n"
                                "    mov.u64 %%rd1, %%globaltimer;\n"
                                "    ld.param.u32 %%r1, [ns];\n"
                                "    cvt.u64.u32 %%rd2, %%r1;\n"
                                "    add.s64 %%rd3, %%rd1, %%rd2;\n"
                                "stay:\n"
                                "    mov.u64 %%rd4, %%globaltimer;\n"
                                "    setp.lt.u64 %%p1, %%rd4, %%rd3;\n"
                                "    @%%p1 bra stay;\n"
                                "    ret;\n"
                                "}\n";

_Noreturn static void out_of_memory(void)
{
    fputs("lithos-replay: out of memory\n", stderr);
    exit(1);
}

static void parse(int argc, char **argv, struct replay *r)
{
    enum { LIST = 256, NO_PAUSES, THINK };
    static const struct option options[] = {
        {"kernels", 1, 0, LIST}, {"no-pauses", 0, 0, NO_PAUSES}, {"think-us", 1, 0, THINK}, SAMPLE_OPTIONS};
    int c;

    *r = (struct replay){.o = SAMPLE_OPTIONS_DEFAULT, .think_us = 50, .pauses = true};
    while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        switch (c) {
        case LIST:
            r->list = optarg;
            break;
        case NO_PAUSES:
            r->pauses = false;
            break;
        case THINK:
            r->think_us = sample_number("think-us", optarg, 0, 1e9);
            break;
        default:
            sample_option(&r->o, c, help);
        }
    }
    sample_options_end(argc, argv);
    if (!r->list) {
        fputs("lithos-replay: --kernels is missing\n", stderr);
        sample_usage_error();
    }
}

static bool is_name(const char *s)
{
    if (!isalpha((unsigned char)*s))
        return false;
    while (isalnum((unsigned char)*s) || *s == '_')
        s++;
    return !*s;
}

static bool read_kernel(const char *line, struct kernel *k)
{
    unsigned long long pause_ns;
    unsigned sync;
    char more;

    if (sscanf(line, "%63s %u %u %u %llu %u %c", k->name, &k->blocks, &k->threads, &k->ns, &pause_ns, &sync,
               &more) != 6)
        return false;
    k->pause_ns = pause_ns;
    k->sync = sync != 0;
    return is_name(k->name) && k->blocks > 0 && k->blocks <= INT32_MAX && k->threads > 0 &&
           k->threads <= THREADS_MAX && sync <= 1 && pause_ns < 3600 * LITHOS_NSEC_PER_SEC;
}

static void read_list(struct replay *r)
{
    FILE *f = fopen(r->list, "re");
    char line[256];

    if (!f) {
        fprintf(stderr, "lithos-replay: %s: %s\n", r->list, strerror(errno));
        exit(1);
    }
    r->kernels = calloc(KERNELS_MAX, sizeof *r->kernels);
    if (!r->kernels)
        out_of_memory();
    while (fgets(line, sizeof line, f)) {
        if (r->count == KERNELS_MAX || !read_kernel(line, &r->kernels[r->count])) {
            fprintf(stderr, "lithos-replay: %s:%zu: %s\n", r->list, r->count + 1,
                    r->count == KERNELS_MAX ? "too many kernels"
                                            : "not a kernel: NAME BLOCKS THREADS NS PAUSE_NS SYNC");
            exit(2);
        }
        r->count++;
    }
    fclose(f);
    if (!r->count) {
        fprintf(stderr, "lithos-replay: %s: no kernels\n", r->list);
        exit(2);
    }
}

static const struct kernel *same_name(const struct replay *r, size_t before)
{
    for (size_t i = 0; i < before; i++)
        if (!strcmp(r->kernels[i].name, r->kernels[before].name))
            return &r->kernels[i];
    return NULL;
}

/* A module with a function for each name. */
static void load(struct replay *r)
{
    char *text = NULL;
    size_t size;
    CUmodule module;
    FILE *f = open_memstream(&text, &size);

    if (!f)
        out_of_memory();
    fputs(".version 7.0\n.target sm_52\n.address_size 64\n", f);
    for (size_t i = 0; i < r->count; i++)
        if (!same_name(r, i))
            fprintf(f, entry_ptx, r->kernels[i].name);
    if (fclose(f))
        out_of_memory();
    CU(cuModuleLoadData, &module, text);
    free(text);
    for (size_t i = 0; i < r->count; i++) {
        const struct kernel *first = same_name(r, i);
        if (first)
            r->kernels[i].function = first->function;
        else
            CU(cuModuleGetFunction, &r->kernels[i].function, module, r->kernels[i].name);
    }
}

static void request(const struct replay *r, const struct sample_context *ctx)
{
    uint64_t before_ns = lithos_now_ns();

    for (size_t i = 0; i < r->count && !sample_stop; i++) {
        struct kernel *k = &r->kernels[i];
        void *params[] = {&k->ns};
        if (i && k->sync) {
            CU(cuStreamSynchronize, ctx->stream);
            before_ns = lithos_now_ns();
        }
        if (i && r->pauses && k->pause_ns)
            sample_wait_until(before_ns + (uint64_t)((double)k->pause_ns * r->o.time_scale));
        before_ns = lithos_now_ns();
        CU(cuLaunchKernel, k->function, k->blocks, 1, 1, k->threads, 1, 1, 0, ctx->stream, params, NULL);
    }
    CU(cuStreamSynchronize, ctx->stream);
}

static void add_sample(struct figures *g, double us)
{
    if (g->count == g->room) {
        g->room = g->room ? g->room * 2 : 1 << 12;
        g->latency_us = realloc(g->latency_us, g->room * sizeof(double));
        if (!g->latency_us)
            out_of_memory();
    }
    g->latency_us[g->count++] = us;
}

/* What began within the measured time counts, to its end. */
static void serve(const struct replay *r, const struct sample_context *ctx, struct figures *g)
{
    const double scale = r->o.time_scale;
    const uint64_t warm_ns = lithos_now_ns() + (uint64_t)(r->o.warmup_seconds * scale * 1e9);
    uint64_t until_ns = UINT64_MAX;

    while (!sample_stop) {
        const uint64_t begin_ns = lithos_now_ns();
        if (!g->begin_ns && begin_ns >= warm_ns && sample_gate_open(&r->o)) {
            g->begin_ns = begin_ns;
            if (r->o.seconds > 0)
                until_ns = begin_ns + (uint64_t)(r->o.seconds * scale * 1e9);
        }
        if (begin_ns >= until_ns)
            break;
        request(r, ctx);
        const uint64_t end_ns = lithos_now_ns();
        if (g->begin_ns && !sample_stop) {
            add_sample(g, (double)(end_ns - begin_ns) / 1e3 / scale);
            g->end_ns = end_ns;
        }
        sample_wait_until(end_ns + (uint64_t)(r->think_us * scale * 1e3));
    }
}

static void print(const struct replay *r, const struct sample_context *ctx, struct figures *g)
{
    const double seconds = g->count ? (double)(g->end_ns - g->begin_ns) / 1e9 / r->o.time_scale : 0;
    const double rate = seconds > 0 ? (double)g->count / seconds : 0;
    double mean = 0, q[4];
    static const double at[] = {0.5, 0.9, 0.99, 1};
    char name[256];

    for (size_t i = 0; i < g->count; i++)
        mean += g->latency_us[i] / (double)g->count;
    lithos_sort_samples(g->latency_us, g->count);
    for (unsigned i = 0; i < LITHOS_ARRAY_SIZE(q); i++)
        q[i] = lithos_quantile(g->latency_us, g->count, at[i]);
    if (r->o.json)
        printf(
            "{\"program\": \"lithos-replay\", \"gpu\": \"%s\", \"kernels\": %zu, \"requests\": %zu, "
            "\"seconds\": %.6f, \"rate_per_s\": %.4f, \"mean_us\": %.3f, \"p50_us\": %.3f, \"p90_us\": %.3f, "
            "\"p99_us\": %.3f, \"max_us\": %.3f}\n",
            sample_json_escape(ctx->gpu_name, name, sizeof name), r->count, g->count, seconds, rate, mean,
            q[0], q[1], q[2], q[3]);
    else
        printf(
            "%s: %zu requests of %zu kernels in %.2f s (%.1f/s), latency p50 %.1f p90 %.1f p99 %.1f max %.1f "
            "us\n",
            ctx->gpu_name, g->count, r->count, seconds, rate, q[0], q[1], q[2], q[3]);
}

int main(int argc, char **argv)
{
    struct replay r;
    struct sample_context ctx;
    struct figures g = {0};

    parse(argc, argv, &r);
    read_list(&r);
    prctl(PR_SET_TIMERSLACK, 1000);
    sample_catch_signals();
    sample_open(&r.o, &ctx);
    load(&r);
    serve(&r, &ctx, &g);
    print(&r, &ctx, &g);
    free(g.latency_us);
    free(r.kernels);
    CU(cuDevicePrimaryCtxRelease, ctx.device);
    return 0;
}
