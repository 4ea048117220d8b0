/* lithos-burn: a compute burner, kernels back to back. */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "samples/sample.h"

#define DEPTH_MAX 1024u

struct kind {
    const char *name, *kernel;
    unsigned blocks_per_sm, iters;
};

/* On an H200 (docs/hardware.md): short 15 ms a kernel in 375 us waves, long 15 ms in blocks of 3.8 ms. */
static const struct kind kinds[] = {
    {"short", "lithos_fma", 640, 20000},
    {"long", "lithos_fma_long", 64, 200000},
    {"null", "lithos_null", 1, 0},
};

struct burn {
    struct sample_options o;
    const struct kind *kind;
    unsigned grid, iters, shared_bytes, depth;
    uint64_t max_kernels; /* 0: no limit */
};

struct figures {
    uint64_t kernels;
    uint64_t begin_ns, first_ns, last_ns; /* of the measurement, its first and its last completion */
};

static const char help[] =
    "usage: lithos-burn [options]\n"
    "Launches kernels back to back and prints how many a second the GPU ran.\n"
    "  --kind short|long|null  many short blocks (default), few long ones, or empty kernels\n"
    "  --grid N                blocks of a kernel (default: as the kind says for the GPU's size)\n"
    "  --iters N               loop turns of a block\n"
    "  --shared BYTES          shared memory of a block, so that fewer live in an SM at a time (default 0)\n"
    "  --depth N               launches in flight (default 2)\n"
    "  --kernels N             stop after N measured kernels\n" SAMPLE_OPTIONS_HELP;

static const struct kind *find_kind(const char *name)
{
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(kinds); i++)
        if (!strcmp(kinds[i].name, name))
            return &kinds[i];
    fprintf(stderr, "lithos-burn: --kind %s: must be short, long or null\n", name);
    sample_usage_error();
}

static void parse(int argc, char **argv, struct burn *b)
{
    enum { KIND = 256, GRID, ITERS, SHARED, DEPTH, KERNELS };
    static const struct option options[] = {
        {"kind", 1, 0, KIND},   {"grid", 1, 0, GRID},       {"iters", 1, 0, ITERS}, {"shared", 1, 0, SHARED},
        {"depth", 1, 0, DEPTH}, {"kernels", 1, 0, KERNELS}, SAMPLE_OPTIONS,
    };
    int c;

    *b = (struct burn){.o = SAMPLE_OPTIONS_DEFAULT, .kind = &kinds[0], .depth = 2};
    while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        switch (c) {
        case KIND:
            b->kind = find_kind(optarg);
            break;
        case GRID:
            b->grid = (unsigned)sample_number("grid", optarg, 1, 2147483647);
            break;
        case ITERS:
            b->iters = (unsigned)sample_number("iters", optarg, 1, 4294967295.0);
            break;
        case SHARED:
            b->shared_bytes = (unsigned)sample_number("shared", optarg, 0, SAMPLE_SHARED_MAX);
            break;
        case DEPTH:
            b->depth = (unsigned)sample_number("depth", optarg, 1, DEPTH_MAX);
            break;
        case KERNELS:
            b->max_kernels = (uint64_t)sample_number("kernels", optarg, 0, 1e15);
            break;
        default:
            sample_option(&b->o, c, help);
        }
    }
    sample_options_end(argc, argv);
}

/* Keeps `depth` launches in flight. The measurement begins when warm-up is over and the gate open; it counts
 * completions, so that a kernel of 15 ms at either end does not count for more than the part inside. */
static void burn(const struct burn *b, const struct sample_context *ctx, struct figures *ret)
{
    static CUevent events[DEPTH_MAX];
    CUfunction f = sample_function_with(ctx, b->kind->kernel, b->shared_bytes);
    const unsigned depth = LITHOS_MAX(b->depth, 1u);
    unsigned grid = b->grid ? b->grid : b->kind->blocks_per_sm * (unsigned)ctx->sm_count;
    unsigned iters = b->iters ? b->iters : b->kind->iters;
    uint64_t start_ns = lithos_now_ns(),
             warm_ns = start_ns + (uint64_t)(b->o.warmup_seconds * b->o.time_scale * 1e9);
    uint64_t end_ns = UINT64_MAX, launched = 0, done = 0;
    struct figures g = {0};
    CUdeviceptr out;

    CU(cuMemAlloc, &out, 256);
    for (unsigned i = 0; i < depth; i++)
        CU(cuEventCreate, &events[i], CU_EVENT_DISABLE_TIMING);
    for (;;) {
        uint64_t now_ns = lithos_now_ns();
        if (!g.begin_ns && now_ns >= warm_ns && sample_gate_open(&b->o)) {
            g.begin_ns = now_ns;
            if (b->o.seconds > 0)
                end_ns = now_ns + (uint64_t)(b->o.seconds * b->o.time_scale * 1e9);
        }
        if (sample_stop || now_ns >= end_ns || (b->max_kernels && g.kernels >= b->max_kernels))
            break;
        for (; launched < done + depth; launched++) {
            sample_launch(ctx, f, grid, 128, b->shared_bytes, &out, &iters);
            CU(cuEventRecord, events[launched % depth], ctx->stream);
        }
        CU(cuEventSynchronize, events[done % depth]);
        done++;
        if (g.begin_ns) {
            g.last_ns = lithos_now_ns();
            if (!g.kernels++)
                g.first_ns = g.last_ns;
        }
    }
    CU(cuStreamSynchronize, ctx->stream);
    CU(cuMemFree, out);
    *ret = g;
}

/* Kernels a second of the card, from completion to completion. */
static double rate_per_s(const struct figures *g, double time_scale)
{
    if (g->kernels >= 2 && g->last_ns > g->first_ns)
        return (double)(g->kernels - 1) * 1e9 / (double)(g->last_ns - g->first_ns) * time_scale;
    if (g->kernels == 1)
        return 1e9 / (double)(g->last_ns - g->begin_ns) * time_scale;
    return 0;
}

static void print(const struct burn *b, const struct sample_context *ctx, const struct figures *g,
                  bool check_ok, int sms_used)
{
    double rate = rate_per_s(g, b->o.time_scale);
    double seconds = g->kernels ? (double)(g->last_ns - g->begin_ns) / 1e9 / b->o.time_scale : 0;
    char name[256], check[64] = "";

    if (b->o.json) {
        if (b->o.check)
            snprintf(check, sizeof(check), ", \"check\": %s, \"sms_used\": %d", check_ok ? "true" : "false",
                     sms_used);
        printf("{\"program\": \"lithos-burn\", \"gpu\": \"%s\", \"kind\": \"%s\", \"kernels\": %llu, "
               "\"seconds\": %.6f, "
               "\"kernels_per_s\": %.4f%s}\n",
               sample_json_escape(ctx->gpu_name, name, sizeof(name)), b->kind->name,
               (unsigned long long)g->kernels, seconds, rate, check);
        return;
    }
    if (b->o.check)
        printf("check %s, %d SMs used of %d\n", check_ok ? "ok" : "FAILED", sms_used, ctx->sm_count);
    printf("%s, %s: %llu kernels in %.2f s, %.2f kernels/s\n", ctx->gpu_name, b->kind->name,
           (unsigned long long)g->kernels, seconds, rate);
}

int main(int argc, char **argv)
{
    struct burn b;
    struct sample_context ctx;
    struct figures g;
    bool check_ok = true;
    int sms_used = 0;

    parse(argc, argv, &b);
    sample_catch_signals();
    sample_open(&b.o, &ctx);
    if (b.o.check)
        check_ok = sample_run_check(&ctx, &sms_used);
    burn(&b, &ctx, &g);
    print(&b, &ctx, &g, check_ok, sms_used);
    CU(cuDevicePrimaryCtxRelease, ctx.device);
    return check_ok ? 0 : 1;
}
