/* What the parts of the probe share: the driver's functions, the callback, a place to run a kernel. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/log.h"
#include "cuda/cuda_abi.h"
#include "driver/probe.h"
#include "hw/qmd.h"

/* The driver's functions that a probe needs, by name: X(member, exported name, parameters). */
#define LITHOS_PROBE_CUDA(X)                                                                                \
    X(init, cuInit, (unsigned))                                                                             \
    X(version, cuDriverGetVersion, (int *))                                                                 \
    X(device_count, cuDeviceGetCount, (int *))                                                              \
    X(device_get, cuDeviceGet, (CUdevice *, int))                                                           \
    X(device_name, cuDeviceGetName, (char *, int, CUdevice))                                                \
    X(device_uuid, cuDeviceGetUuid_v2, (CUuuid *, CUdevice))                                                \
    X(device_attribute, cuDeviceGetAttribute, (int *, int, CUdevice))                                       \
    X(ctx_retain, cuDevicePrimaryCtxRetain, (CUcontext *, CUdevice))                                        \
    X(ctx_release, cuDevicePrimaryCtxRelease_v2, (CUdevice))                                                \
    X(ctx_set, cuCtxSetCurrent, (CUcontext))                                                                \
    X(ctx_sync, cuCtxSynchronize, (void))                                                                   \
    X(priority_range, cuCtxGetStreamPriorityRange, (int *, int *))                                          \
    X(stream_create, cuStreamCreateWithPriority, (CUstream *, unsigned, int))                               \
    X(stream_destroy, cuStreamDestroy_v2, (CUstream))                                                       \
    X(module_load, cuModuleLoadData, (CUmodule *, const void *))                                            \
    X(module_unload, cuModuleUnload, (CUmodule))                                                            \
    X(module_function, cuModuleGetFunction, (CUfunction *, CUmodule, const char *))                         \
    X(function_set, cuFuncSetAttribute, (CUfunction, int, int))                                             \
    X(mem_alloc, cuMemAlloc_v2, (CUdeviceptr *, size_t))                                                    \
    X(mem_free, cuMemFree_v2, (CUdeviceptr))                                                                \
    X(mem_set, cuMemsetD32_v2, (CUdeviceptr, unsigned, size_t))                                             \
    X(host_register, cuMemHostRegister_v2, (void *, size_t, unsigned))                                      \
    X(host_unregister, cuMemHostUnregister, (void *))                                                       \
    X(host_pointer, cuMemHostGetDevicePointer_v2, (CUdeviceptr *, void *, unsigned))                        \
    X(mem_read, cuMemcpyDtoH_v2, (void *, CUdeviceptr, size_t))                                             \
    X(launch, cuLaunchKernel,                                                                               \
      (CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream, void **, \
       void **))                                                                                            \
    X(error_name, cuGetErrorName, (CUresult, const char **))                                                \
    X(export_table, cuGetExportTable, (const void **, const CUuuid *))

struct lithos_probe_cuda {
#define X(member, name, parameters) CUresult(*member) parameters;
    LITHOS_PROBE_CUDA(X)
#undef X
};
extern struct lithos_probe_cuda lithos_probe_cu;

/* The callback: one for the whole probe. */
struct lithos_probe_seen {
    bool in_census; /* between the launch call and its return */
    bool masked;    /* write the mask */
    bool allow_unproved;
    struct lithos_tpcset mask;
    unsigned mask_bits; /* that the layout's mask has */
    int cc_major, cc_minor;
    int seen;                              /* QMDs in this census */
    int result;                            /* of the last */
    uint64_t stamp_address, stamp_payload; /* 0: no stamp */
    int stamp_result;
    void (*edit)(const struct lithos_qmd_layout *layout, void *qmd); /* NULL: nothing else is done to it */
    uint32_t params_bytes;
    char layout[16];
};
extern struct lithos_probe_seen lithos_probe_seen;

struct lithos_probe_bench {
    struct lithos_probe_gpu *gpu;
    CUcontext ctx;
    CUmodule module;
    CUfunction kernel;
    CUdeviceptr info;
    CUstream stream;  /* of the highest priority: what neighbours have waiting does not go first */
    int shared_bytes; /* most that a block may ask for: then one block an SM */
};

/* A context with the census kernel. 0, or negative errno with the GPU's error set. */
int lithos_probe_bench_init(struct lithos_probe_bench *b, struct lithos_probe_gpu *gpu);
void lithos_probe_bench_finish(struct lithos_probe_bench *b);

/* Format into text[LITHOS_PROBE_TEXT]; returns error. */
int lithos_probe_fail(char *text, int error, const char *fmt, ...) LITHOS_PRINTF(3, 4);
const char *lithos_probe_result_name(CUresult result);
