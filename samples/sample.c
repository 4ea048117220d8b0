#include "samples/sample.h"

#include <dlfcn.h>
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern const char sample_kernels_ptx[];

struct sample_cuda cuda;
volatile sig_atomic_t sample_stop;

/* New enough for everything used here, old enough for any driver that knows cuGetProcAddress_v2. */
#define SAMPLE_CUDA_VERSION 12000
/* What is spun of a wait. */
#define SPIN_NS 100000u

typedef CUresult (*proc_address_fn)(const char *, void **, int, uint64_t, int *);

static void *find(void *lib, proc_address_fn ask, const char *name, const char *symbol)
{
    void *p = NULL;
    int status = CU_GET_PROC_ADDRESS_SUCCESS;

    if (ask && ask(name, &p, SAMPLE_CUDA_VERSION, CU_GET_PROC_ADDRESS_DEFAULT, &status) == 0 &&
        status == CU_GET_PROC_ADDRESS_SUCCESS && p)
        return p;
    p = dlsym(lib, symbol);
    if (!p) {
        fprintf(stderr, "%s: the CUDA driver has no %s: it is too old for this program\n",
                program_invocation_short_name, symbol);
        exit(1);
    }
    return p;
}

static void *driver;
static proc_address_fn proc_address;

void sample_find(const char *name, const char *symbol, void *ret_function, size_t size)
{
    void *p = find(driver, proc_address, name, symbol);
    memcpy(ret_function, &p, size);
}

const char *sample_kernels(void)
{
    return sample_kernels_ptx;
}

static void load_driver(void)
{
    void *lib = driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);

    if (!lib) {
        fprintf(stderr,
                "%s: no CUDA driver: %s\n"
                "  Install the NVIDIA driver, or run this under the virtual GPU: lithos-vgpud --card h200 -- "
                "%s ...\n",
                program_invocation_short_name, dlerror(), program_invocation_short_name);
        exit(1);
    }
    void *p = dlsym(lib, "cuGetProcAddress_v2");
    memcpy(&proc_address, &p, sizeof(p));
#define X(name, symbol, args)                   \
    p = find(lib, proc_address, #name, symbol); \
    memcpy(&cuda.name, &p, sizeof(p));
    SAMPLE_CUDA(X)
#undef X
}

void sample_check_result(const char *call, CUresult r)
{
    const char *name = NULL;

    if (r == CUDA_SUCCESS)
        return;
    if (cuda.cuGetErrorName)
        cuda.cuGetErrorName(r, &name);
    fprintf(stderr, "%s: %s failed: %d (%s)\n", program_invocation_short_name, call, r,
            name ? name : "unknown result");
    exit(1);
}

void sample_usage_error(void)
{
    fprintf(stderr, "Try `%s --help'.\n", program_invocation_short_name);
    exit(2);
}

void sample_option(struct sample_options *o, int c, const char *help)
{
    switch (c) {
    case SAMPLE_OPTION_SECONDS:
        o->seconds = sample_number("seconds", optarg, 0, 1e6);
        break;
    case SAMPLE_OPTION_WARMUP:
        o->warmup_seconds = sample_number("warmup", optarg, 0, 1e6);
        break;
    case SAMPLE_OPTION_DEVICE:
        o->device = (int)sample_number("device", optarg, 0, 1023);
        break;
    case SAMPLE_OPTION_PRIORITY:
        o->priority = optarg;
        break;
    case SAMPLE_OPTION_SCALE:
        o->time_scale = sample_number("time-scale", optarg, 1e-3, 1e6);
        break;
    case SAMPLE_OPTION_GATE:
        o->gate = true;
        break;
    case SAMPLE_OPTION_CHECK:
        o->check = true;
        break;
    case SAMPLE_OPTION_JSON:
        o->json = true;
        break;
    case 'h':
    case SAMPLE_OPTION_HELP:
        fputs(help, stdout);
        exit(0);
    default:
        sample_usage_error();
    }
}

void sample_options_end(int argc, char **argv)
{
    if (optind == argc)
        return;
    fprintf(stderr, "%s: %s: this program takes options only\n", program_invocation_short_name, argv[optind]);
    sample_usage_error();
}

static int stream_priority(const char *text)
{
    int least = 0, greatest = 0;

    if (!text || !strcmp(text, "normal"))
        return 0;
    CU(cuCtxGetStreamPriorityRange, &least, &greatest);
    if (!strcmp(text, "high"))
        return greatest;
    if (!strcmp(text, "low"))
        return least;
    return (int)sample_number("stream-priority", text, greatest, least);
}

void sample_open(const struct sample_options *o, struct sample_context *ret_ctx)
{
    struct sample_context c = {0};
    CUcontext ctx;
    int count = 0;

    /* The work of a kernel is a number of blocks an SM: the same under any quota of LithOS, so that times can be compared. */
    setenv("LITHOS_SM_COUNT", "full", 0);
    load_driver();
    CU(cuInit, 0);
    CU(cuDeviceGetCount, &count);
    if (o->device >= count) {
        fprintf(stderr, "%s: --device %d: there are %d GPUs (numbered from 0)\n",
                program_invocation_short_name, o->device, count);
        exit(2);
    }
    CU(cuDeviceGet, &c.device, o->device);
    CU(cuDeviceGetName, c.gpu_name, sizeof(c.gpu_name), c.device);
    CU(cuDeviceGetAttribute, &c.sm_count, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, c.device);
    CU(cuDevicePrimaryCtxRetain, &ctx, c.device);
    CU(cuCtxSetCurrent, ctx);
    CU(cuModuleLoadData, &c.module, sample_kernels_ptx);
    CU(cuStreamCreateWithPriority, &c.stream, CU_STREAM_NON_BLOCKING, stream_priority(o->priority));
    *ret_ctx = c;
}

CUfunction sample_function(const struct sample_context *ctx, const char *kernel)
{
    CUfunction f;

    CU(cuModuleGetFunction, &f, ctx->module, kernel);
    return f;
}

CUfunction sample_function_with(const struct sample_context *ctx, const char *kernel, unsigned shared_bytes)
{
    CUfunction f = sample_function(ctx, kernel);

    if (shared_bytes > 49152) /* more has to be asked for, function by function */
        CU(cuFuncSetAttribute, f, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, (int)shared_bytes);
    return f;
}

void sample_launch(const struct sample_context *ctx, CUfunction f, unsigned blocks, unsigned threads,
                   unsigned shared_bytes, CUdeviceptr *out, unsigned *iters)
{
    void *params[] = {out, iters};

    CU(cuLaunchKernel, f, blocks, 1, 1, threads, 1, 1, shared_bytes, ctx->stream, params, NULL);
}

/* Room for any %smid. */
#define CHECK_SMS 1024u
#define CHECK_ELEMENTS 100003u /* not a multiple of the block: the last one has idle threads */

static bool check_mark(const struct sample_context *ctx, int *ret_sms_used)
{
    const unsigned gx = (unsigned)ctx->sm_count * 16, gy = 2, gz = 2, blocks = gx * gy * gz;
    uint32_t *out = calloc(blocks, sizeof(*out)), info[CHECK_SMS];
    CUfunction f = sample_function(ctx, "lithos_mark");
    CUdeviceptr d_out, d_info;
    unsigned wrong = 0, counted = 0;
    int sms = 0;

    if (!out) {
        fprintf(stderr, "%s: out of memory\n", program_invocation_short_name);
        exit(1);
    }
    CU(cuMemAlloc, &d_out, blocks * sizeof(*out));
    CU(cuMemAlloc, &d_info, sizeof(info));
    CU(cuMemsetD32, d_out, 0, blocks);
    CU(cuMemsetD32, d_info, 0, CHECK_SMS);
    CU(cuCtxSynchronize);
    void *params[] = {&d_out, &d_info};
    CU(cuLaunchKernel, f, gx, gy, gz, 32, 1, 1, 0, ctx->stream, params, NULL);
    CU(cuStreamSynchronize, ctx->stream);
    CU(cuMemcpyDtoH, out, d_out, blocks * sizeof(*out));
    CU(cuMemcpyDtoH, info, d_info, sizeof(info));
    CU(cuMemFree, d_out);
    CU(cuMemFree, d_info);
    for (unsigned i = 0; i < blocks; i++)
        wrong += out[i] != 1;
    for (unsigned i = 0; i < CHECK_SMS; i++) {
        sms += info[i] != 0;
        counted += info[i];
    }
    free(out);
    if (wrong || counted != blocks)
        fprintf(stderr,
                "%s: check: lithos_mark: %u of %u blocks did not run exactly once (%u counted by SM)\n",
                program_invocation_short_name, wrong, blocks, counted);
    *ret_sms_used = sms;
    return !wrong && counted == blocks;
}

static bool check_saxpy(const struct sample_context *ctx)
{
    static float x[CHECK_ELEMENTS], y[CHECK_ELEMENTS], got[CHECK_ELEMENTS];
    CUfunction f = sample_function(ctx, "lithos_saxpy");
    CUdeviceptr d_x, d_y;
    float a = 3.0f;
    unsigned n = CHECK_ELEMENTS, wrong = 0;

    for (unsigned i = 0; i < n; i++) {
        x[i] = (float)(i % 1000) * 0.5f;
        y[i] = (float)(i % 77);
    }
    CU(cuMemAlloc, &d_x, sizeof(x));
    CU(cuMemAlloc, &d_y, sizeof(y));
    CU(cuMemcpyHtoD, d_x, x, sizeof(x));
    CU(cuMemcpyHtoD, d_y, y, sizeof(y));
    void *params[] = {&d_x, &d_y, &a, &n};
    CU(cuLaunchKernel, f, (n + 127) / 128, 1, 1, 128, 1, 1, 0, ctx->stream, params, NULL);
    CU(cuStreamSynchronize, ctx->stream);
    CU(cuMemcpyDtoH, got, d_y, sizeof(got));
    CU(cuMemFree, d_x);
    CU(cuMemFree, d_y);
    for (unsigned i = 0; i < n; i++) /* all values are exact in fp32 */
        wrong += got[i] != a * x[i] + y[i];
    if (wrong)
        fprintf(stderr, "%s: check: lithos_saxpy: %u of %u elements are wrong\n",
                program_invocation_short_name, wrong, n);
    return !wrong;
}

bool sample_run_check(const struct sample_context *ctx, int *ret_sms_used)
{
    bool mark = check_mark(ctx, ret_sms_used), saxpy = check_saxpy(ctx);

    return mark && saxpy;
}

static void on_signal(int sig)
{
    (void)sig;
    sample_stop = 1;
}

void sample_catch_signals(void)
{
    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};

    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGINT, &sa, NULL);
}

bool sample_gate_open(const struct sample_options *o)
{
    static bool said, open;
    struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};

    if (!o->gate || open)
        return true;
    if (!said) {
        puts("ready");
        fflush(stdout);
        said = true;
    }
    open = poll(&p, 1, 0) != 0;
    return open;
}

void sample_wait_until(uint64_t due_ns)
{
    uint64_t now_ns;

    while ((now_ns = lithos_now_ns()) + SPIN_NS < due_ns && !sample_stop) {
        uint64_t wake_ns = LITHOS_MIN(due_ns - SPIN_NS, now_ns + 50 * LITHOS_NSEC_PER_MSEC);
        struct timespec ts = {(time_t)(wake_ns / LITHOS_NSEC_PER_SEC), (long)(wake_ns % LITHOS_NSEC_PER_SEC)};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL);
    }
    while (lithos_now_ns() < due_ns && !sample_stop)
        __builtin_ia32_pause();
}

double sample_number(const char *option, const char *text, double min, double max)
{
    char *end;

    errno = 0;
    double v = strtod(text, &end);
    if (end == text || *end || errno || !(v >= min && v <= max)) {
        fprintf(stderr, "%s: --%s %s: must be a number from %g to %g\n", program_invocation_short_name,
                option, text, min, max);
        exit(2);
    }
    return v;
}

char *sample_json_escape(const char *s, char *text, size_t size)
{
    size_t n = 0;

    for (; *s && n + 7 < size; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') {
            text[n++] = '\\';
            text[n++] = (char)c;
        } else if (c < 0x20) {
            n += (size_t)snprintf(text + n, size - n, "\\u%04x", c);
        } else {
            text[n++] = (char)c;
        }
    }
    text[n] = 0;
    return text;
}
