#include "stub/stub_driver.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "cuda/cuda_abi.h"
#include "hw/qmd.h"

#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#define API LITHOS_EXPORT

API struct stub_control stub_control = {
    .device_count = 1,
    .cc_major = 9,
    .params_bytes = LITHOS_QMD_PARAMS_BYTES,
    .cluster = {1, 1, 1},
    .qmds_per_graph = 3,
    .qmds_per_launch = 1,
    .valid = {{0xffffffffull, 0}},
};
#define S stub_control

static lithos_qmd_callback subscriber;
static void *subscriber_user;
static uint32_t enabled;
static int initialized;
static __thread int current = -1;

/* ---- memory that is registered ---- */

#define REGISTRATIONS 256

static struct {
    uintptr_t at;
    size_t bytes;
    int ctx;
} registered[REGISTRATIONS];
static pthread_mutex_t registered_lock = PTHREAD_MUTEX_INITIALIZER;
static __thread int relaxed;

static CUresult unsafe_call(void)
{
    if (!S.capturing || relaxed)
        return CUDA_SUCCESS;
    S.capture_spoiled++;
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
}

API CUresult cuThreadExchangeStreamCaptureMode(int *mode)
{
    int before = relaxed ? 2 : 0;
    relaxed = *mode == 2;
    *mode = before;
    return CUDA_SUCCESS;
}

API CUresult cuMemHostRegister_v2(void *at, size_t bytes, unsigned flags)
{
    CUresult r = unsafe_call();
    if (r != CUDA_SUCCESS || S.register_result)
        return r != CUDA_SUCCESS ? r : S.register_result;
    if (current < 0 || flags != (CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP))
        return CUDA_ERROR_INVALID_VALUE;
    r = CUDA_ERROR_OUT_OF_MEMORY;
    pthread_mutex_lock(&registered_lock);
    for (int i = 0; i < REGISTRATIONS; i++)
        if (registered[i].at == (uintptr_t)at)
            r = CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
    for (int i = 0; i < REGISTRATIONS && r == CUDA_ERROR_OUT_OF_MEMORY; i++)
        if (!registered[i].at) {
            registered[i].at = (uintptr_t)at;
            registered[i].bytes = bytes;
            registered[i].ctx = current;
            S.registrations++;
            S.registered = (uintptr_t)at;
            r = CUDA_SUCCESS;
        }
    pthread_mutex_unlock(&registered_lock);
    return r;
}

API CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *ret, void *at, unsigned flags)
{
    (void)flags;
    *ret = (uintptr_t)at;
    return CUDA_SUCCESS;
}

static void unregister(uintptr_t at, int ctx)
{
    pthread_mutex_lock(&registered_lock);
    for (int i = 0; i < REGISTRATIONS; i++)
        if (registered[i].at && (registered[i].at == at || registered[i].ctx == ctx)) {
            registered[i].at = 0;
            S.registrations--;
        }
    pthread_mutex_unlock(&registered_lock);
}

API CUresult cuMemHostUnregister(void *at)
{
    unregister((uintptr_t)at, -2);
    return CUDA_SUCCESS;
}

/* What release semaphore 1 does when the kernel is complete: here at once. */
static void release(const struct lithos_qmd_layout *layout, const void *qmd)
{
    uint64_t at = lithos_qmd_get(layout, qmd, LITHOS_QMD_RELEASE_SEMAPHORE1_ADDR_LOWER, 0) |
                  (uint64_t)lithos_qmd_get(layout, qmd, LITHOS_QMD_RELEASE_SEMAPHORE1_ADDR_UPPER, 0) << 32;
    uint64_t payload = lithos_qmd_get(layout, qmd, LITHOS_QMD_RELEASE_SEMAPHORE1_PAYLOAD_LOWER, 0) |
                       (uint64_t)lithos_qmd_get(layout, qmd, LITHOS_QMD_RELEASE_SEMAPHORE1_PAYLOAD_UPPER, 0)
                           << 32;
    if (!lithos_qmd_get(layout, qmd, LITHOS_QMD_RELEASE_ENABLE, 1) || S.taken || S.no_stamps)
        return;
    if (S.quick_stamps) {
        ((uint64_t *)at)[1] = 1; /* NOLINT: an address that the test gave */
        ((uint64_t *)at)[0] = payload;
        return;
    }
    int there = 0;
    pthread_mutex_lock(&registered_lock);
    for (int i = 0; i < REGISTRATIONS; i++)
        there |=
            registered[i].at && at >= registered[i].at && at + 16 <= registered[i].at + registered[i].bytes;
    pthread_mutex_unlock(&registered_lock);
    if (!there) {
        __atomic_fetch_add(&S.faults, 1, __ATOMIC_RELAXED);
        return;
    }
    uint64_t *words = (uint64_t *)at; /* NOLINT: an address that the test gave */
    __atomic_store_n(&words[1], lithos_now_ns(), __ATOMIC_RELAXED);
    __atomic_store_n(&words[0], payload + (S.stamp_elsewhere ? 1 : 0), __ATOMIC_RELEASE);
    __atomic_fetch_add(&S.stamps_written, 1, __ATOMIC_RELAXED);
}

/* ---- QMDs ---- */

/* What the driver's own kernels are to a callback: a function of no module that the app knows. */
#define OWN_FUNCTION ((CUfunction)0xd00)

static void upload(CUfunction function, uint32_t gx, uint32_t gy, uint32_t gz, uint32_t bx)
{
    const struct lithos_qmd_layout *layout = lithos_qmd_layout(LITHOS_QMD_V04_00);
    uint32_t blocks = S.cluster[0] * S.cluster[1] * S.cluster[2];
    struct lithos_qmd_view view = {
        .type = blocks > 1 ? LITHOS_QMD_TYPE_CLUSTERS : LITHOS_QMD_TYPE_GRID,
        .grid = {S.empty_grid ? 0 : gx, gy, gz},
        .block = {bx, 1, 1},
        .cluster = {S.cluster[0], S.cluster[1], S.cluster[2]},
        .registers = 16,
    };
    memset(&view.tpcs, 0xff, sizeof view.tpcs);
    uint8_t qmd[LITHOS_QMD_BYTES];
    if (lithos_qmd_encode(layout, &view, qmd) < 0)
        fprintf(stderr, "stub: cannot encode\n"), abort();
    lithos_qmd_set(layout, qmd, LITHOS_QMD_RELEASE_ENABLE, 1, S.taken != 0);
    if (S.again) {
        memcpy(qmd, S.last_qmd, sizeof qmd);
        lithos_qmd_set(layout, qmd, LITHOS_QMD_GRID_WIDTH, 0, S.empty_grid ? 0 : gx);
    }
    if (S.unknown_version)
        qmd[72] = 0x77;
    if (subscriber && enabled && !S.no_callbacks) {
        uint64_t params[11] = {S.params_bytes};
        params[LITHOS_QMD_PARAMS_CONTEXT] = (uintptr_t)current + 1;
        params[LITHOS_QMD_PARAMS_FUNCTION] = (uintptr_t)function;
        params[LITHOS_QMD_PARAMS_QMD] = (uintptr_t)qmd;
        __atomic_fetch_add(&S.callbacks, 1, __ATOMIC_RELAXED);
        subscriber(subscriber_user, LITHOS_QMD_DOMAIN, LITHOS_QMD_CALLBACK_ID, params);
    }
    if (S.unknown_version) {
        memcpy(S.last_qmd, qmd, sizeof qmd);
        return;
    }
    release(layout, qmd);
    lithos_qmd_decode(layout, qmd, &view);
    if (S.on_mask) { /* several threads: nothing is kept */
        S.on_mask(&view.tpcs, view.masked);
        return;
    }
    memcpy(S.last_qmd, qmd, sizeof qmd);
    S.last_masked = view.masked;
    S.last_tpcs = view.tpcs;
}

static int subscribe(uint32_t *ret_handle, lithos_qmd_callback callback, void *user)
{
    if (S.refuse_subscribe)
        return 1;
    S.subscriptions++;
    if (!subscriber) { /* as the real one: a second subscription is accepted and never called */
        subscriber = callback;
        subscriber_user = user;
    }
    *ret_handle = 7;
    return 0;
}

static int enable(uint32_t on, uint32_t handle, int domain, int id)
{
    if (handle != 7 || domain != LITHOS_QMD_DOMAIN || id != LITHOS_QMD_CALLBACK_ID)
        return 1;
    enabled = on;
    return 0;
}

API CUresult cuGetExportTable(const void **ret_table, const CUuuid *uuid)
{
    static const CUuuid qmd_table = LITHOS_QMD_TABLE_UUID;
    static const void *table[8];
    if (S.no_table || memcmp(uuid, &qmd_table, sizeof qmd_table) != 0)
        return CUDA_ERROR_NOT_FOUND;
    table[0] = (void *)(uintptr_t)(S.short_table ? 32 : sizeof table);
    table[3] = (void *)subscribe;
    table[6] = (void *)enable;
    *ret_table = table;
    return CUDA_SUCCESS;
}

/* ---- starting ---- */

static void inject(void)
{
    const char *path = getenv("CUDA_INJECTION64_PATH");
    void *handle = path && *path ? dlopen(path, RTLD_NOW) : NULL;
    int (*injection)(void) = handle ? (int (*)(void))dlsym(handle, "InitializeInjection") : NULL;
    if (injection)
        injection();
}

API CUresult cuInit(unsigned flags)
{
    S.init_calls++;
    if (flags)
        return CUDA_ERROR_INVALID_VALUE;
    if (!initialized)
        inject();
    if (S.init_delay_us)
        usleep((useconds_t)S.init_delay_us);
    __atomic_store_n(&initialized, 1, __ATOMIC_RELEASE);
    return CUDA_SUCCESS;
}

API CUresult cuDriverGetVersion(int *ret_version)
{
    *ret_version = 13000;
    return CUDA_SUCCESS;
}

API CUresult cuGetErrorName(CUresult result, const char **ret_name)
{
    *ret_name = result ? "an error of the stub" : "CUDA_SUCCESS";
    return CUDA_SUCCESS;
}

API CUresult cuDeviceGetCount(int *ret_count)
{
    if (!__atomic_load_n(&initialized, __ATOMIC_ACQUIRE))
        return CUDA_ERROR_NOT_INITIALIZED;
    *ret_count = S.device_count;
    return CUDA_SUCCESS;
}

API CUresult cuDeviceGet(CUdevice *ret_device, int ordinal)
{
    if (ordinal < 0 || ordinal >= S.device_count)
        return CUDA_ERROR_INVALID_DEVICE;
    *ret_device = ordinal;
    return CUDA_SUCCESS;
}

API CUresult cuDeviceGetName(char *name, int bytes, CUdevice device)
{
    snprintf(name, (size_t)bytes, "Stub \"%d\"", device);
    return CUDA_SUCCESS;
}

API CUresult cuDeviceGetUuid_v2(CUuuid *ret_uuid, CUdevice device)
{
    for (int i = 0; i < 16; i++)
        ret_uuid->bytes[i] = (unsigned char)(0xa0 + device);
    return CUDA_SUCCESS;
}

API CUresult cuDeviceGetAttribute(int *ret_value, int attribute, CUdevice device)
{
    (void)device;
    switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
        *ret_value = S.cc_major;
        return CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:
        *ret_value = S.cc_minor;
        return CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT:
        *ret_value = (int)lithos_tpcset_count(&S.valid) * 2;
        return CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN:
        *ret_value = 232448;
        return CUDA_SUCCESS;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
}

/* Four blocks an SM. */
API CUresult cuOccupancyMaxPotentialBlockSize(int *ret_grid, int *ret_block, CUfunction function,
                                              void *shared_of_block, size_t shared_bytes, int limit)
{
    (void)function, (void)shared_of_block, (void)shared_bytes, (void)limit;
    *ret_grid = (int)lithos_tpcset_count(&S.valid) * 2 * 4;
    *ret_block = 256;
    return CUDA_SUCCESS;
}

API CUresult cuOccupancyMaxPotentialBlockSizeWithFlags(int *ret_grid, int *ret_block, CUfunction function,
                                                       void *shared_of_block, size_t shared_bytes, int limit,
                                                       unsigned flags)
{
    return flags > 1 ? CUDA_ERROR_INVALID_VALUE
                     : cuOccupancyMaxPotentialBlockSize(ret_grid, ret_block, function, shared_of_block,
                                                        shared_bytes, limit);
}

API CUresult cuDevicePrimaryCtxRetain(CUcontext *ret_ctx, CUdevice device)
{
    *ret_ctx = (CUcontext)(uintptr_t)(device + 1);
    return CUDA_SUCCESS;
}

API CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
    if (S.primary_holders > 0)
        S.primary_holders--;
    else
        unregister(0, device);
    return CUDA_SUCCESS;
}

API CUresult cuDevicePrimaryCtxReset_v2(CUdevice device)
{
    unregister(0, device);
    return CUDA_SUCCESS;
}

API CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned *flags, int *ret_active)
{
    int active = 0;
    *flags = 0;
    for (int i = 0; i < REGISTRATIONS; i++)
        active |= registered[i].at && registered[i].ctx == device;
    *ret_active = active;
    return CUDA_SUCCESS;
}

API CUresult cuCtxDestroy_v2(CUcontext ctx)
{
    unregister(0, (int)(uintptr_t)ctx - 1);
    return CUDA_SUCCESS;
}

API CUresult cuCtxGetCurrent(CUcontext *ret_ctx)
{
    *ret_ctx = (CUcontext)(uintptr_t)(current + 1);
    return CUDA_SUCCESS;
}

/* ---- streams and events: everything has ended by the time it is asked for ---- */

API CUresult cuCtxGetStreamPriorityRange(int *ret_least, int *ret_greatest)
{
    *ret_least = 0;
    *ret_greatest = -5;
    return CUDA_SUCCESS;
}

API CUresult cuStreamCreateWithPriority(CUstream *ret_stream, unsigned flags, int priority)
{
    static uintptr_t last = 0x8000;
    (void)flags, (void)priority;
    /* NOLINTNEXTLINE(performance-no-int-to-ptr): a handle */
    *ret_stream = (CUstream)__atomic_add_fetch(&last, 0x10, __ATOMIC_RELAXED);
    return CUDA_SUCCESS;
}

API CUresult cuEventCreate(CUevent *ret_event, unsigned flags)
{
    (void)flags;
    *ret_event = (CUevent)0x9000;
    return CUDA_SUCCESS;
}

API CUresult cuEventRecord(CUevent event, CUstream stream)
{
    (void)event, (void)stream;
    return CUDA_SUCCESS;
}

API CUresult cuStreamSynchronize(CUstream stream)
{
    (void)stream;
    return CUDA_SUCCESS;
}

API CUresult cuStreamSynchronize_ptsz(CUstream stream)
{
    (void)stream;
    return CUDA_SUCCESS;
}

API CUresult cuEventSynchronize(void *event)
{
    return event ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

/* Odd handles are CUkernels. */
API CUresult cuFuncGetName(const char **ret_name, CUfunction function)
{
    static __thread char name[400];
    CUresult r = unsafe_call();
    if (r != CUDA_SUCCESS || (uintptr_t)function & 1)
        return r != CUDA_SUCCESS ? r : CUDA_ERROR_INVALID_HANDLE;
    snprintf(name, sizeof name, "%s_%llx_%0*d",
             (uintptr_t)function == 0x60 ? "bn_fw_tr_nhwc_semiPersist" : "function",
             (unsigned long long)(uintptr_t)function, (uintptr_t)function == 0x40 ? 300 : 1, 0);
    *ret_name = name;
    return CUDA_SUCCESS;
}

API CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *ret_blocks, CUfunction function, int threads,
                                                         size_t shared_bytes)
{
    (void)function, (void)threads, (void)shared_bytes;
    *ret_blocks = 2;
    return CUDA_SUCCESS;
}

API CUresult cuKernelGetName(const char **ret_name, void *kernel)
{
    if (!((uintptr_t)kernel & 1))
        return CUDA_ERROR_INVALID_HANDLE;
    *ret_name = "a_kernel";
    return CUDA_SUCCESS;
}

API CUresult cuCtxSetCurrent(CUcontext ctx)
{
    current = (int)(uintptr_t)ctx - 1;
    return CUDA_SUCCESS;
}

API CUresult cuCtxGetDevice(CUdevice *ret_device)
{
    if (current < 0)
        return CUDA_ERROR_INVALID_CONTEXT;
    *ret_device = current;
    return CUDA_SUCCESS;
}

API CUresult cuCtxSynchronize(void)
{
    return CUDA_SUCCESS;
}

/* ---- memory and modules: just enough for the census kernel ---- */

API CUresult cuMemAlloc_v2(CUdeviceptr *ret_pointer, size_t bytes)
{
    *ret_pointer = (CUdeviceptr)(uintptr_t)calloc(1, bytes);
    return CUDA_SUCCESS;
}

API CUresult cuMemFree_v2(CUdeviceptr pointer)
{
    free((void *)(uintptr_t)pointer);
    return CUDA_SUCCESS;
}

API CUresult cuMemsetD8_v2(CUdeviceptr pointer, unsigned char value, size_t bytes)
{
    upload(OWN_FUNCTION, 1, 1, 1, 32);
    if (pointer)
        memset((void *)(uintptr_t)pointer, value, bytes);
    return CUDA_SUCCESS;
}

static CUresult memset_async(void)
{
    upload(OWN_FUNCTION, 1, 1, 1, 32);
    return CUDA_SUCCESS;
}

API CUresult cuMemsetD8Async(CUdeviceptr pointer, unsigned char value, size_t bytes, CUstream stream)
{
    (void)pointer, (void)value, (void)bytes, (void)stream;
    return memset_async();
}

API CUresult cuMemsetD2D32Async_ptsz(CUdeviceptr pointer, size_t pitch, unsigned value, size_t width,
                                     size_t height, CUstream stream)
{
    (void)pointer, (void)pitch, (void)value, (void)width, (void)height, (void)stream;
    return memset_async();
}

API CUresult cuMemsetD32_v2(CUdeviceptr pointer, unsigned value, size_t count)
{
    upload(OWN_FUNCTION, 1, 1, 1, 32);
    for (size_t i = 0; pointer && i < count; i++)
        ((uint32_t *)(uintptr_t)pointer)[i] = value;
    return CUDA_SUCCESS;
}

API CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes)
{
    memcpy((void *)(uintptr_t)to, from, bytes);
    return CUDA_SUCCESS;
}

API CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes)
{
    memcpy(to, (void *)(uintptr_t)from, bytes);
    return CUDA_SUCCESS;
}

API CUresult cuMemcpyBatchAsync(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f,
                                uint64_t g, uint64_t h, uint64_t i)
{
    uint64_t all[9] = {a, b, c, d, e, f, g, h, i};
    memcpy(S.last_batch, all, sizeof all);
    return CUDA_SUCCESS;
}

API CUresult cuModuleLoadData(CUmodule *ret_module, const void *image)
{
    (void)image;
    if (S.load_uploads)
        upload(OWN_FUNCTION, 1, 1, 1, 32);
    *ret_module = (CUmodule)0x10;
    return CUDA_SUCCESS;
}

API CUresult cuModuleGetFunction(CUfunction *ret_function, CUmodule module, const char *name)
{
    (void)module;
    *ret_function = (CUfunction)(uintptr_t)(strcmp(name, "lithos_smid_census") ? 0x20 : 0x30);
    return CUDA_SUCCESS;
}

API CUresult cuModuleUnload(CUmodule module)
{
    (void)module;
    return CUDA_SUCCESS;
}

API CUresult cuFuncSetAttribute(CUfunction function, int attribute, int value)
{
    (void)function, (void)attribute, (void)value;
    return CUDA_SUCCESS;
}

/* ---- launches ---- */

/* What the census kernel would write: a word for each SM of the TPCs allowed, numbered from 0 as under MPS.
 */
static void census(void **params)
{
    uint32_t *info = *(uint32_t **)params[0];
    struct lithos_tpcset on = S.last_masked ? lithos_tpcset_and(S.last_tpcs, S.valid) : S.valid;
    uint32_t sms = lithos_tpcset_count(&on) * 2;
    if (S.busy_launches > 0) {
        S.busy_launches--;
        sms--;
    }
    for (uint32_t i = 0; i < sms; i++)
        info[i] = 1;
}

static CUresult launch(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, void **params)
{
    if (S.capturing)
        return CUDA_SUCCESS;
    __atomic_fetch_add(&S.launches, 1, __ATOMIC_RELAXED);
    for (int i = 0; i < S.own_before; i++)
        upload(OWN_FUNCTION, 1, 1, 1, 32);
    /* A CUkernel is another handle than the CUfunction that the callback is given. */
    upload(S.kernel_handles ? (CUfunction)((uintptr_t)f + 0x1000) : f, gx, gy, gz, bx);
    for (int i = 1; i < S.qmds_per_launch; i++)
        upload(OWN_FUNCTION, gx, gy, gz, bx);
    if (f == (CUfunction)0x30)
        census(params);
    return S.launch_result;
}

API CUresult cuLaunchKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                            unsigned bz, unsigned shared, CUstream stream, void **params, void **extra)
{
    uint64_t words[11] = {
        (uintptr_t)f, gx, gy, gz, bx, by, bz, shared, (uintptr_t)stream, (uintptr_t)params, (uintptr_t)extra};
    if (!S.on_mask)
        memcpy(S.last_words, words, sizeof words);
    return launch(f, gx, gy, gz, bx, params);
}

API CUresult cuLaunchKernel_ptsz(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                                 unsigned by, unsigned bz, unsigned shared, CUstream stream, void **params,
                                 void **extra)
{
    (void)by, (void)bz, (void)shared, (void)stream, (void)extra;
    return launch(f, gx, gy, gz, bx, params);
}

API CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction f, void **params, void **extra)
{
    (void)extra;
    return launch(f, config->gridDimX, config->gridDimY, config->gridDimZ, config->blockDimX, params);
}

API CUresult cuLaunchCooperativeKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                                       unsigned by, unsigned bz, unsigned shared, CUstream stream,
                                       void **params)
{
    (void)by, (void)bz, (void)shared, (void)stream;
    return launch(f, gx, gy, gz, bx, params);
}

API CUresult cuLaunchCooperativeKernelMultiDevice(void *launches, unsigned count, unsigned flags)
{
    (void)launches, (void)flags;
    for (unsigned i = 0; i < count; i++)
        upload((CUfunction)(uintptr_t)(0x500 + i), 1, 1, 1, 32);
    return CUDA_SUCCESS;
}

API CUresult cuGraphLaunch(CUgraphExec exec, CUstream stream)
{
    (void)exec, (void)stream;
    for (int i = 0; i < S.qmds_per_graph; i++)
        upload((CUfunction)(uintptr_t)(0x600 + i), 4, 1, 1, 32);
    return CUDA_SUCCESS;
}

/* Uploads at once. */
API CUresult cuGraphInstantiateWithFlags(CUgraphExec *ret_exec, CUgraph graph, unsigned long long flags)
{
    (void)graph, (void)flags;
    for (int i = 0; i < S.qmds_per_graph; i++)
        upload((CUfunction)(uintptr_t)(0x600 + i), 4, 1, 1, 32);
    *ret_exec = (CUgraphExec)0x7000;
    return CUDA_SUCCESS;
}

/* As drivers have it for whoever asks for cuGraphInstantiate. */
API CUresult cuGraphInstantiate_v2(CUgraphExec *ret_exec, CUgraph graph, CUgraphNode *ret_node, char *log,
                                   size_t log_bytes)
{
    (void)ret_node;
    if (log && log_bytes)
        *log = 0;
    return cuGraphInstantiateWithFlags(ret_exec, graph, 0);
}

API CUresult cuGraphExecDestroy(CUgraphExec exec)
{
    (void)exec;
    return CUDA_SUCCESS;
}

API CUresult cuGreenCtxCreate(void *ret, void *desc, CUdevice device, unsigned flags)
{
    (void)ret, (void)desc, (void)device, (void)flags;
    return S.green_result;
}

/* A kernel that reaches the card by no function that anybody hooks. */
API void stub_escape(void);
void stub_escape(void)
{
    upload((CUfunction)0x700, 2, 1, 1, 32);
}

/* Ten integer arguments and a float: what a stub of the library must carry through at the first call. */
API CUresult cuTexRefSetMipmapLevelBias(void *reference, float bias)
{
    S.last_float = bias;
    return (CUresult)(uintptr_t)reference;
}

/* ---- cuGetProcAddress ---- */

static CUresult hidden_launch(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                              unsigned bz, unsigned shared, CUstream stream, void **params, void **extra)
{
    return cuLaunchKernel(f, gx, gy, gz, bx, by, bz, shared, stream, params, extra);
}

static void *own_symbol(const char *name)
{
    static void *self;
    Dl_info info;
    if (!self && dladdr(&stub_control, &info))
        self = dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    return dlsym(self, name);
}

/* The newest variant that an asker of that version knows: _v2 from 3020 on (12000 for cuGetProcAddress
 * itself). */
static void *variant(const char *symbol, int version, int per_thread)
{
    static const char *const suffixes[][3] = {{"_v2", "", NULL}, {"", "_v2", NULL}};
    static const char *const threads[] = {"_ptsz", "_ptds", ""};
    int v2_since = !strcmp(symbol, "cuGetProcAddress") ? 12000 : 3020;
    const char *const *order = suffixes[version >= v2_since ? 0 : 1];
    char name[128];
    for (int s = 0; order[s]; s++)
        for (int t = per_thread ? 0 : 2; t < 3; t++) {
            snprintf(name, sizeof name, "%s%s%s", symbol, order[s], threads[t]);
            void *p = own_symbol(name);
            if (p)
                return p;
        }
    return NULL;
}

static CUresult proc_address(const char *symbol, void **ret, int version, uint64_t flags, int *ret_status)
{
    int per_thread = (flags & CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM) != 0;
    *ret = variant(symbol, version, per_thread);
    if (S.hidden_launch && !strcmp(symbol, "cuLaunchKernel"))
        *ret = (void *)hidden_launch;
    if (ret_status)
        *ret_status = *ret ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    return *ret ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

API CUresult cuGetProcAddress(const char *symbol, void **ret, int version, uint64_t flags)
{
    return proc_address(symbol, ret, version, flags, NULL);
}

API CUresult cuGetProcAddress_v2(const char *symbol, void **ret, int version, uint64_t flags, int *ret_status)
{
    return proc_address(symbol, ret, version, flags, ret_status);
}

API CUresult cuGetProcAddress_v2_ptsz(const char *symbol, void **ret, int version, uint64_t flags,
                                      int *ret_status)
{
    if (!(flags & CU_GET_PROC_ADDRESS_LEGACY_STREAM))
        flags |= CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM;
    return proc_address(symbol, ret, version, flags, ret_status);
}
