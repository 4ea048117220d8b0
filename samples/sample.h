/* What the sample tenants share: reaching the driver, a context with the kernels loaded, the check, options,
 * signals. They are programs, not libraries: a failure names the call and its result and ends the process. */
#pragma once

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/util.h"
#include "cuda/cuda_abi.h"

/* X(name, symbol, arguments): each driver function used; `name` for cuGetProcAddress, `symbol` for dlsym. */
#define SAMPLE_CUDA(X)                                                                                 \
    X(cuInit, "cuInit", (unsigned flags))                                                              \
    X(cuDriverGetVersion, "cuDriverGetVersion", (int *version))                                        \
    X(cuGetErrorName, "cuGetErrorName", (CUresult r, const char **name))                               \
    X(cuDeviceGetCount, "cuDeviceGetCount", (int *count))                                              \
    X(cuDeviceGet, "cuDeviceGet", (CUdevice * dev, int ordinal))                                       \
    X(cuDeviceGetName, "cuDeviceGetName", (char *name, int len, CUdevice dev))                         \
    X(cuDeviceGetAttribute, "cuDeviceGetAttribute", (int *value, int attribute, CUdevice dev))         \
    X(cuDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain", (CUcontext * ctx, CUdevice dev))           \
    X(cuDevicePrimaryCtxRelease, "cuDevicePrimaryCtxRelease_v2", (CUdevice dev))                       \
    X(cuCtxSetCurrent, "cuCtxSetCurrent", (CUcontext ctx))                                             \
    X(cuCtxSynchronize, "cuCtxSynchronize", (void))                                                    \
    X(cuCtxGetStreamPriorityRange, "cuCtxGetStreamPriorityRange", (int *least, int *greatest))         \
    X(cuModuleLoadData, "cuModuleLoadData", (CUmodule * module, const void *image))                    \
    X(cuModuleGetFunction, "cuModuleGetFunction", (CUfunction * f, CUmodule module, const char *name)) \
    X(cuMemAlloc, "cuMemAlloc_v2", (CUdeviceptr * ptr, size_t bytes))                                  \
    X(cuMemFree, "cuMemFree_v2", (CUdeviceptr ptr))                                                    \
    X(cuMemcpyHtoD, "cuMemcpyHtoD_v2", (CUdeviceptr dst, const void *src, size_t bytes))               \
    X(cuMemcpyDtoH, "cuMemcpyDtoH_v2", (void *dst, CUdeviceptr src, size_t bytes))                     \
    X(cuMemsetD32, "cuMemsetD32_v2", (CUdeviceptr dst, unsigned value, size_t count))                  \
    X(cuStreamCreateWithPriority, "cuStreamCreateWithPriority",                                        \
      (CUstream * s, unsigned flags, int priority))                                                    \
    X(cuStreamSynchronize, "cuStreamSynchronize", (CUstream s))                                        \
    X(cuEventCreate, "cuEventCreate", (CUevent * e, unsigned flags))                                   \
    X(cuEventRecord, "cuEventRecord", (CUevent e, CUstream s))                                         \
    X(cuEventSynchronize, "cuEventSynchronize", (CUevent e))                                           \
    X(cuFuncSetAttribute, "cuFuncSetAttribute", (CUfunction f, int attribute, int value))              \
    X(cuLaunchKernel, "cuLaunchKernel",                                                                \
      (CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,     \
       unsigned shared_bytes, CUstream s, void **params, void **extra))

struct sample_cuda {
#define X(name, symbol, args) CUresult(*name) args;
    SAMPLE_CUDA(X)
#undef X
};
extern struct sample_cuda cuda;

/* Call a driver function; on failure name it and its result on standard error and end with exit code 1. */
#define CU(name, ...) sample_check_result(#name, cuda.name(__VA_ARGS__))
void sample_check_result(const char *call, CUresult r);

struct sample_context {
    CUdevice device;
    CUmodule module;
    CUstream stream;
    int sm_count;
    char gpu_name[128];
};

struct sample_options {
    int device;           /* ordinal */
    const char *priority; /* "high", "low", "normal" or a number, as text; NULL: normal */
    bool check, json, gate;
    double seconds;        /* measured time in the card's time; 0: until a signal */
    double warmup_seconds; /* before that */
    double time_scale;     /* real seconds a second of the card */
};

/* Options that tenants which run for a time have in common: rows for getopt_long, and the help that goes with them. */
enum {
    SAMPLE_OPTION_SECONDS = 1024,
    SAMPLE_OPTION_WARMUP,
    SAMPLE_OPTION_DEVICE,
    SAMPLE_OPTION_PRIORITY,
    SAMPLE_OPTION_SCALE,
    SAMPLE_OPTION_GATE,
    SAMPLE_OPTION_CHECK,
    SAMPLE_OPTION_JSON,
    SAMPLE_OPTION_HELP,
};
#define SAMPLE_OPTIONS                                                                             \
    {"seconds", 1, 0, SAMPLE_OPTION_SECONDS}, {"warmup", 1, 0, SAMPLE_OPTION_WARMUP},              \
        {"device", 1, 0, SAMPLE_OPTION_DEVICE}, {"stream-priority", 1, 0, SAMPLE_OPTION_PRIORITY}, \
        {"time-scale", 1, 0, SAMPLE_OPTION_SCALE}, {"gate", 0, 0, SAMPLE_OPTION_GATE},             \
        {"check", 0, 0, SAMPLE_OPTION_CHECK}, {"json", 0, 0, SAMPLE_OPTION_JSON},                  \
        {"help", 0, 0, SAMPLE_OPTION_HELP},                                                        \
    {                                                                                              \
        0                                                                                          \
    }
#define SAMPLE_OPTIONS_HELP                                                                                \
    "  --seconds S             measured time (default 5; 0: until SIGTERM or SIGINT)\n"                    \
    "  --warmup S              time before that (default 0.5)\n"                                           \
    "  --device N              GPU by CUDA's number (default 0)\n"                                         \
    "  --stream-priority P     high, normal, low or a number\n"                                            \
    "  --time-scale N          on a virtual GPU N times slower than the card: times given are multiplied " \
    "by "                                                                                                  \
    "N and\n"                                                                                              \
    "                          times printed divided\n"                                                    \
    "  --gate                  print \"ready\" once warm, measure from the first line on standard input\n" \
    "  --check                 run kernels whose results are known, compare, print the SMs used\n"         \
    "  --json                  figures as one JSON object\n"
#define SAMPLE_OPTIONS_DEFAULT                               \
    {                                                        \
        .seconds = 5, .warmup_seconds = 0.5, .time_scale = 1 \
    }
/* What getopt_long gave, if it is one of those. Prints help for --help; ends the program for that, and with exit code 2 for
 * anything that is not known. */
void sample_option(struct sample_options *o, int c, const char *help);
/* After the last option: ends the program with exit code 2 when there are other words. */
void sample_options_end(int argc, char **argv);
/* Points to --help and ends the program with exit code 2. */
_Noreturn void sample_usage_error(void);

/* Driver found, initialised, context made, kernels loaded, stream created. */
void sample_open(const struct sample_options *o, struct sample_context *ret_ctx);
/* A further function of the driver, into a pointer of its type; ends the program when it has none of that name. */
void sample_find(const char *name, const char *symbol, void *ret_function, size_t size);
/* The kernels' text, for another context. */
const char *sample_kernels(void);
CUfunction sample_function(const struct sample_context *ctx, const char *kernel);
/* The same, launched with so much dynamic shared memory, up to SAMPLE_SHARED_MAX bytes. */
#define SAMPLE_SHARED_MAX 232448u
CUfunction sample_function_with(const struct sample_context *ctx, const char *kernel, unsigned shared_bytes);
/* One launch of blocks of `threads` threads and so much dynamic shared memory of a kernel (u64 out, u32 iters). */
void sample_launch(const struct sample_context *ctx, CUfunction f, unsigned blocks, unsigned threads,
                   unsigned shared_bytes, CUdeviceptr *out, unsigned *iters);

/* Runs lithos_mark and lithos_saxpy and compares every element. True when all are right; ret_sms_used: SMs
 * that ran a block. Says on standard error what is wrong. */
bool sample_run_check(const struct sample_context *ctx, int *ret_sms_used);

/* SIGTERM and SIGINT set sample_stop; a second one kills. */
extern volatile sig_atomic_t sample_stop;
void sample_catch_signals(void);
/* With --gate: prints "ready" the first time; true once a line or the end of standard input has come. */
bool sample_gate_open(const struct sample_options *o);

/* Until that time of CLOCK_MONOTONIC, or a signal. The end of it is spun: a sleeping thread wakes tens of microseconds late. */
void sample_wait_until(uint64_t due_ns);

/* Number of an option within [min, max]; anything else ends the program with a message and exit code 2. */
double sample_number(const char *option, const char *text, double min, double max);
/* s as the inside of a JSON string. Returns text; what does not fit is cut. */
char *sample_json_escape(const char *s, char *text, size_t size);
