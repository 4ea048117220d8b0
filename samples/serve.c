/* lithos-serve: an open-loop service. Requests arrive by the clock, whether or not the one before is done;
 * latency runs from the arrival that was scheduled, so that a request that had to queue counts its wait. */
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "base/quantile.h"
#include "samples/sample.h"

struct serve {
    struct sample_options o;
    double period_us, slo_us, host_us;
    bool poisson;
    uint64_t seed;
    unsigned grid, iters, kernels, shared_bytes;
};

struct figures {
    double *latency_us; /* real time; unserved requests with the time they had waited */
    size_t count, room;
    uint64_t served, unserved, begin_ns, end_ns;
};

static const char help[] =
    "usage: lithos-serve [options]\n"
    "Answers requests that arrive at fixed or random times, each one or more kernels and a wait for them; "
    "prints the\n"
    "latency from the scheduled arrival to the end.\n"
    "  --period-us US          mean time between arrivals (default 2000)\n"
    "  --poisson               exponentially distributed times between arrivals instead of fixed ones\n"
    "  --seed N                of those (default 1)\n"
    "  --kernels N             kernels of a request (default 1)\n"
    "  --host-us US            what the host does before each of them takes so long (default 0)\n"
    "  --grid N                blocks of a kernel (default: one an SM)\n"
    "  --iters N               loop turns of a block (default 20000)\n"
    "  --shared BYTES          shared memory of a block, so that fewer live in an SM at a time (default 0)\n"
    "  --slo-us US             count the requests that took longer\n" SAMPLE_OPTIONS_HELP;

static void parse(int argc, char **argv, struct serve *s)
{
    enum { PERIOD = 256, POISSON, SEED, KERNELS, HOST, GRID, ITERS, SHARED, SLO };
    static const struct option options[] = {
        {"period-us", 1, 0, PERIOD}, {"poisson", 0, 0, POISSON},
        {"seed", 1, 0, SEED},        {"kernels", 1, 0, KERNELS},
        {"grid", 1, 0, GRID},        {"iters", 1, 0, ITERS},
        {"slo-us", 1, 0, SLO},       {"host-us", 1, 0, HOST},
        {"shared", 1, 0, SHARED},    SAMPLE_OPTIONS,
    };
    int c;

    *s = (struct serve){
        .o = SAMPLE_OPTIONS_DEFAULT, .period_us = 2000, .seed = 1, .iters = 20000, .kernels = 1};
    while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        switch (c) {
        case PERIOD:
            s->period_us = sample_number("period-us", optarg, 1, 1e9);
            break;
        case POISSON:
            s->poisson = true;
            break;
        case SEED:
            s->seed = (uint64_t)sample_number("seed", optarg, 0, 1e15);
            break;
        case KERNELS:
            s->kernels = (unsigned)sample_number("kernels", optarg, 1, 1e6);
            break;
        case HOST:
            s->host_us = sample_number("host-us", optarg, 0, 1e9);
            break;
        case GRID:
            s->grid = (unsigned)sample_number("grid", optarg, 1, 2147483647);
            break;
        case ITERS:
            s->iters = (unsigned)sample_number("iters", optarg, 1, 4294967295.0);
            break;
        case SHARED:
            s->shared_bytes = (unsigned)sample_number("shared", optarg, 0, SAMPLE_SHARED_MAX);
            break;
        case SLO:
            s->slo_us = sample_number("slo-us", optarg, 0, 1e12);
            break;
        default:
            sample_option(&s->o, c, help);
        }
    }
    sample_options_end(argc, argv);
}

/* splitmix64 */
static uint64_t random_u64(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15ull;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static uint64_t next_gap_ns(const struct serve *s, uint64_t *random)
{
    double mean_ns = s->period_us * 1e3 * s->o.time_scale;

    if (!s->poisson)
        return (uint64_t)mean_ns;
    return (uint64_t)(-log(((double)(random_u64(random) >> 11) + 0.5) / 9007199254740992.0) * mean_ns);
}

static void add_sample(struct figures *g, double us)
{
    if (g->count == g->room) {
        g->room = g->room ? g->room * 2 : 1 << 16;
        g->latency_us = realloc(g->latency_us, g->room * sizeof(double));
        if (!g->latency_us) {
            fputs("lithos-serve: out of memory for latencies\n", stderr);
            exit(1);
        }
    }
    g->latency_us[g->count++] = us;
}

/* An eager program's host, between two kernels: busy. */
static void work_until(uint64_t ns)
{
    while (lithos_now_ns() < ns)
        __builtin_ia32_pause();
}

static void serve(const struct serve *s, const struct sample_context *ctx, struct figures *g)
{
    CUfunction f = sample_function_with(ctx, "lithos_hp", s->shared_bytes);
    unsigned grid = s->grid ? s->grid : (unsigned)ctx->sm_count, iters = s->iters;
    uint64_t random = s->seed, due_ns = lithos_now_ns();
    uint64_t warm_ns = due_ns + (uint64_t)(s->o.warmup_seconds * s->o.time_scale * 1e9);
    CUdeviceptr out;

    CU(cuMemAlloc, &out, 256);
    g->end_ns = UINT64_MAX;
    for (;;) {
        uint64_t now_ns = lithos_now_ns();
        if (!g->begin_ns) {
            due_ns =
                LITHOS_MAX(due_ns, now_ns); /* what piled up before the measurement is not its business */
            if (now_ns >= warm_ns && sample_gate_open(&s->o)) {
                g->begin_ns = due_ns;
                random = s->seed; /* the same arrivals whatever the warm-up took */
                if (s->o.seconds > 0)
                    g->end_ns = due_ns + (uint64_t)(s->o.seconds * s->o.time_scale * 1e9);
            }
        }
        if (due_ns < g->end_ns)
            sample_wait_until(due_ns);
        now_ns = lithos_now_ns();
        if (sample_stop || due_ns >= g->end_ns || now_ns >= g->end_ns)
            break;
        for (unsigned i = 0; i < s->kernels; i++) {
            work_until(lithos_now_ns() + (uint64_t)(s->host_us * s->o.time_scale * 1e3));
            sample_launch(ctx, f, grid, 128, s->shared_bytes, &out, &iters);
        }
        CU(cuStreamSynchronize, ctx->stream);
        if (g->begin_ns) {
            add_sample(g, (double)(lithos_now_ns() - due_ns) / 1e3);
            g->served++;
        }
        due_ns += next_gap_ns(s, &random);
    }
    uint64_t now_ns = lithos_now_ns();
    if (sample_stop)
        g->end_ns = LITHOS_MIN(g->end_ns, now_ns);
    for (; g->begin_ns && due_ns < g->end_ns; due_ns += next_gap_ns(s, &random), g->unserved++)
        add_sample(g, now_ns > due_ns ? (double)(now_ns - due_ns) / 1e3 : 0);
    CU(cuMemFree, out);
}

static void print(const struct serve *s, const struct sample_context *ctx, struct figures *g, bool check_ok,
                  int sms_used)
{
    double scale = s->o.time_scale,
           seconds = g->begin_ns ? (double)(g->end_ns - g->begin_ns) / 1e9 / scale : 0;
    double rate = seconds > 0 ? (double)g->served / seconds : 0;
    uint64_t misses = 0;
    char name[256], check[64] = "", slo[96] = "";

    for (size_t i = 0; i < g->count; i++) {
        g->latency_us[i] /= scale;
        misses += s->slo_us > 0 && g->latency_us[i] > s->slo_us;
    }
    lithos_sort_samples(g->latency_us, g->count);
    double p50 = lithos_quantile(g->latency_us, g->count, 0.5),
           p99 = lithos_quantile(g->latency_us, g->count, 0.99);
    double p999 = lithos_quantile(g->latency_us, g->count, 0.999),
           max = lithos_quantile(g->latency_us, g->count, 1);
    if (s->o.json) {
        if (s->o.check)
            snprintf(check, sizeof(check), ", \"check\": %s, \"sms_used\": %d", check_ok ? "true" : "false",
                     sms_used);
        if (s->slo_us > 0)
            snprintf(slo, sizeof(slo), ", \"slo_us\": %.3f, \"slo_misses\": %llu", s->slo_us,
                     (unsigned long long)misses);
        printf(
            "{\"program\": \"lithos-serve\", \"gpu\": \"%s\", \"requests\": %llu, \"unserved\": %llu, "
            "\"seconds\": %.6f, \"rate_per_s\": %.4f, \"p50_us\": %.3f, \"p99_us\": %.3f, \"p999_us\": %.3f, "
            "\"max_us\": %.3f%s%s}\n",
            sample_json_escape(ctx->gpu_name, name, sizeof(name)), (unsigned long long)g->served,
            (unsigned long long)g->unserved, seconds, rate, p50, p99, p999, max, slo, check);
        return;
    }
    if (s->o.check)
        printf("check %s, %d SMs used of %d\n", check_ok ? "ok" : "FAILED", sms_used, ctx->sm_count);
    printf("%s: %llu requests in %.2f s (%.1f/s), latency p50 %.1f p99 %.1f p99.9 %.1f max %.1f us\n",
           ctx->gpu_name, (unsigned long long)g->served, seconds, rate, p50, p99, p999, max);
    if (g->unserved)
        printf(
            "%llu more arrived and were not served in time: they count above with the time they had waited\n",
            (unsigned long long)g->unserved);
    if (s->slo_us > 0)
        printf("%llu of %zu requests took longer than %.1f us\n", (unsigned long long)misses, g->count,
               s->slo_us);
}

int main(int argc, char **argv)
{
    struct serve s;
    struct sample_context ctx;
    struct figures g = {0};
    bool check_ok = true;
    int sms_used = 0;

    parse(argc, argv, &s);
    prctl(PR_SET_TIMERSLACK, 1000);
    sample_catch_signals();
    sample_open(&s.o, &ctx);
    if (s.o.check)
        check_ok = sample_run_check(&ctx, &sms_used);
    serve(&s, &ctx, &g);
    print(&s, &ctx, &g, check_ok, sms_used);
    free(g.latency_us);
    CU(cuDevicePrimaryCtxRelease, ctx.device);
    return check_ok ? 0 : 1;
}
