/* The virtual libcuda.so.1 as a program sees it, over a server that is over with everything at once. Each test is a
 * process of its own: cuInit happens once a process. */
#include <dlfcn.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "cuda/cuda_abi.h"
#include "unit/vgpu_process.h"

/* What the tests call. */
#define FUNCTIONS(X)                                                                                     \
    X(cuInit, unsigned)                                                                                  \
    X(cuDriverGetVersion, int *)                                                                         \
    X(cuGetErrorName, int, const char **)                                                                \
    X(cuDeviceGetCount, int *)                                                                           \
    X(cuDeviceGetName, char *, int, int)                                                                 \
    X(cuDeviceGetUuid, CUuuid *, int)                                                                    \
    X(cuDeviceGetAttribute, int *, int, int)                                                             \
    X(cuDevicePrimaryCtxRetain, CUcontext *, int)                                                        \
    X(cuDevicePrimaryCtxRelease_v2, int)                                                                 \
    X(cuCtxCreate_v2, CUcontext *, unsigned, int)                                                        \
    X(cuCtxDestroy_v2, CUcontext)                                                                        \
    X(cuCtxSetCurrent, CUcontext)                                                                        \
    X(cuCtxGetCurrent, CUcontext *)                                                                      \
    X(cuCtxSynchronize, void)                                                                            \
    X(cuModuleLoadData, CUmodule *, const void *)                                                        \
    X(cuModuleLoadFatBinary, CUmodule *, const void *)                                                   \
    X(cuModuleGetFunction, CUfunction *, CUmodule, const char *)                                         \
    X(cuModuleGetGlobal_v2, CUdeviceptr *, size_t *, CUmodule, const char *)                             \
    X(cuModuleUnload, CUmodule)                                                                          \
    X(cuLibraryLoadData, CUlibrary *, const void *, int *, void **, unsigned, int *, void **, unsigned)  \
    X(cuLibraryGetKernel, CUkernel *, CUlibrary, const char *)                                           \
    X(cuLibraryUnload, CUlibrary)                                                                        \
    X(cuFuncGetParamInfo, CUfunction, size_t, size_t *, size_t *)                                        \
    X(cuFuncGetAttribute, int *, int, CUfunction)                                                        \
    X(cuFuncSetAttribute, CUfunction, int, int)                                                          \
    X(cuOccupancyMaxActiveBlocksPerMultiprocessor, int *, CUfunction, int, size_t)                       \
    X(cuLaunchKernel, CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,  \
      CUstream, void **, void **)                                                                        \
    X(cuLaunchKernelEx, const CUlaunchConfig *, CUfunction, void **, void **)                            \
    X(cuLaunchCooperativeKernel, CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, \
      unsigned, CUstream, void **)                                                                       \
    X(cuLaunchHostFunc, CUstream, void (*)(void *), void *)                                              \
    X(cuMemAlloc_v2, CUdeviceptr *, size_t)                                                              \
    X(cuMemFree_v2, CUdeviceptr)                                                                         \
    X(cuMemAllocAsync, CUdeviceptr *, size_t, CUstream)                                                  \
    X(cuMemFreeAsync, CUdeviceptr, CUstream)                                                             \
    X(cuMemGetInfo_v2, size_t *, size_t *)                                                               \
    X(cuMemHostAlloc, void **, size_t, unsigned)                                                         \
    X(cuMemHostRegister_v2, void *, size_t, unsigned)                                                    \
    X(cuMemHostUnregister, void *)                                                                       \
    X(cuMemHostGetDevicePointer_v2, CUdeviceptr *, void *, unsigned)                                     \
    X(cuMemcpyHtoD_v2, CUdeviceptr, const void *, size_t)                                                \
    X(cuMemcpyDtoH_v2, void *, CUdeviceptr, size_t)                                                      \
    X(cuMemcpyHtoDAsync_v2, CUdeviceptr, const void *, size_t, CUstream)                                 \
    X(cuMemcpyDtoHAsync_v2, void *, CUdeviceptr, size_t, CUstream)                                       \
    X(cuMemcpyDtoD_v2, CUdeviceptr, CUdeviceptr, size_t)                                                 \
    X(cuMemcpy, CUdeviceptr, CUdeviceptr, size_t)                                                        \
    X(cuMemsetD32_v2, CUdeviceptr, unsigned, size_t)                                                     \
    X(cuMemsetD8Async, CUdeviceptr, unsigned char, size_t, CUstream)                                     \
    X(cuStreamCreate, CUstream *, unsigned)                                                              \
    X(cuStreamDestroy_v2, CUstream)                                                                      \
    X(cuStreamSynchronize, CUstream)                                                                     \
    X(cuStreamQuery, CUstream)                                                                           \
    X(cuStreamWaitEvent, CUstream, CUevent, unsigned)                                                    \
    X(cuStreamBeginCapture_v2, CUstream, int)                                                            \
    X(cuStreamEndCapture, CUstream, CUgraph *)                                                           \
    X(cuStreamSynchronize_ptsz, CUstream)                                                                \
    X(cuStreamGetId, CUstream, unsigned long long *)                                                     \
    X(cuStreamGetId_ptsz, CUstream, unsigned long long *)                                                \
    X(cuMemsetD32_v2_ptds, CUdeviceptr, unsigned, size_t)                                                \
    X(cuMemcpyDtoH_v2_ptds, void *, CUdeviceptr, size_t)                                                 \
    X(cuStreamIsCapturing, CUstream, int *)                                                              \
    X(cuGraphInstantiateWithFlags, CUgraphExec *, CUgraph, unsigned long long)                           \
    X(cuGraphLaunch, CUgraphExec, CUstream)                                                              \
    X(cuGraphExecDestroy, CUgraphExec)                                                                   \
    X(cuGraphDestroy, CUgraph)                                                                           \
    X(cuEventCreate, CUevent *, unsigned)                                                                \
    X(cuEventDestroy_v2, CUevent)                                                                        \
    X(cuEventRecord, CUevent, CUstream)                                                                  \
    X(cuEventQuery, CUevent)                                                                             \
    X(cuEventSynchronize, CUevent)                                                                       \
    X(cuEventElapsedTime, float *, CUevent, CUevent)                                                     \
    X(cuPointerGetAttribute, void *, int, CUdeviceptr)                                                   \
    X(cuGetExportTable, const void **, const CUuuid *)                                                   \
    X(cuGetProcAddress_v2, const char *, void **, int, unsigned long long, int *)                        \
    X(cuGreenCtxCreate, CUgreenCtx *, void *, int, unsigned)

#define X(name, ...) static int (*name)(__VA_ARGS__);
FUNCTIONS(X)
#undef X

static struct fake_server server;

static void *load(void)
{
    void *lib = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!lib)
        fprintf(stderr, "%s\n", dlerror());
    CHECK(lib);
#define X(name, ...) CHECK((name = (int (*)(__VA_ARGS__))dlsym(lib, #name)));
    FUNCTIONS(X)
#undef X
    return lib;
}

static CUcontext start(void)
{
    CUcontext ctx;
    fake_server_start(&server);
    load();
    OK(cuInit(0));
    OK(cuDevicePrimaryCtxRetain(&ctx, 0));
    OK(cuCtxSetCurrent(ctx));
    return ctx;
}

/* Waits for what another thread does. */
#define SOON(expr)                                   \
    do {                                             \
        for (int i_ = 0; i_ < 5000 && !(expr); i_++) \
            usleep(1000);                            \
        CHECK(expr);                                 \
    } while (0)

static const char ptx[] =
    ".version 7.0\n.target sm_52\n.address_size 64\n.global .u32 shift = 5;\n"
    ".visible .entry smids(.param .u64 p_out, .param .u32 p_n)\n{\n"
    ".reg .pred %p<3>; .reg .b32 %r<9>; .reg .b64 %rd<9>;\n"
    "ld.param.u64 %rd1, [p_out]; ld.param.u32 %r1, [p_n]; mov.u32 %r2, %tid.x; setp.ne.u32 %p1, %r2, 0;\n"
    "@%p1 bra END; mov.u32 %r3, %ctaid.x; setp.ge.u32 %p2, %r3, %r1; @%p2 bra END;\n"
    "mov.u32 %r4, %smid; ld.global.u32 %r5, [shift]; shl.b32 %r4, %r4, %r5; mul.wide.u32 %rd2, %r3, 4;\n"
    "add.u64 %rd3, %rd1, %rd2; st.global.u32 [%rd3], %r4;\nEND: ret;\n}\n"
    "// lithos-vgpu: timing-only\n.visible .entry forever()\n{\nA: bra A;\n}\n"
    ".visible .entry spin()\n{\nA: bra A;\n}\n";

struct loaded {
    CUmodule module;
    CUfunction smids, forever, spin;
};

static struct loaded load_module(void)
{
    struct loaded m;
    OK(cuModuleLoadData(&m.module, ptx));
    OK(cuModuleGetFunction(&m.smids, m.module, "smids"));
    OK(cuModuleGetFunction(&m.forever, m.module, "forever"));
    OK(cuModuleGetFunction(&m.spin, m.module, "spin"));
    return m;
}

static int launch(CUfunction f, unsigned grid, unsigned threads, CUstream s, CUdeviceptr out, unsigned n)
{
    void *params[] = {&out, &n};
    return cuLaunchKernel(f, grid, 1, 1, threads, 1, 1, 0, s, params, NULL);
}

/* ---- tests */

static void exports_body(void)
{
    void *lib = load();
    static const char *const names[] = {
#define EXPORT(name) #name,
#include "cuda/exports.def"
#undef EXPORT
    };
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(names); i++)
        if (!dlsym(lib, names[i])) {
            fprintf(stderr, "%s is missing\n", names[i]);
            _exit(1);
        }
    CHECK(dlsym(lib, "lithos_vgpu_version"));
    CHECK(!dlsym(lib, "vgpu"));
    int (*other)(void *) = (int (*)(void *))dlsym(lib, "cuTexRefCreate");
    CHECK(other(NULL) == CUDA_ERROR_NOT_SUPPORTED);
    const char *text;
    OK(cuGetErrorName(700, &text));
    CHECK(!strcmp(text, "CUDA_ERROR_ILLEGAL_ADDRESS"));
    CHECK(cuGetErrorName(12345, &text) == CUDA_ERROR_INVALID_VALUE);
}

static void no_server_body(void)
{
    unsetenv("LITHOS_VGPU_SOCKET");
    load();
    CUdeviceptr p;
    int n;
    CHECK(cuMemAlloc_v2(&p, 8) == CUDA_ERROR_NOT_INITIALIZED);
    CHECK(cuInit(0) == CUDA_ERROR_NO_DEVICE);
    setenv("LITHOS_VGPU_SOCKET", "/nonexistent/socket", 1);
    CHECK(cuInit(0) == CUDA_ERROR_NO_DEVICE);
    CHECK(cuDeviceGetCount(&n) == CUDA_ERROR_NOT_INITIALIZED);
    CHECK(cuInit(7) == CUDA_ERROR_INVALID_VALUE);
}

static void devices_body(void)
{
    setenv("CUDA_VISIBLE_DEVICES", "GPU-1111, 0,nonsense,1", 1);
    fake_server_start(&server);
    load();
    OK(cuInit(0));
    int n;
    char name[64];
    CUuuid uuid;
    OK(cuDeviceGetCount(&n));
    CHECK(n == 2);
    OK(cuDeviceGetUuid(&uuid, 0));
    CHECK(uuid.bytes[0] == 0x11);
    OK(cuDeviceGetUuid(&uuid, 1));
    CHECK(uuid.bytes[0] == 0x10);
    CHECK(cuDeviceGetUuid(&uuid, 2) == CUDA_ERROR_INVALID_DEVICE);
    OK(cuDeviceGetName(name, sizeof name, 0));
    CHECK(!strcmp(name, "NVIDIA H200"));
    OK(cuDeviceGetAttribute(&n, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 0));
    CHECK(n == 132);
    CHECK(!server.hello.mps);
    OK(cuDriverGetVersion(&n));
    CHECK(n == 13000);
}

static void kernels_body(void)
{
    static const char torn[64] = "\x7f"
                                 "ELF"; /* the header is read whole: no size is given with it */
    start();
    struct loaded m = load_module();
    CUdeviceptr d, shift;
    size_t bytes, offset;
    unsigned host[300], shift_is = 0;
    OK(cuMemAlloc_v2(&d, sizeof host));
    OK(cuMemsetD32_v2(d, 0xabcdef01, 300));
    OK(launch(m.smids, 299, 96, NULL, d, 299));
    OK(cuMemcpyDtoH_v2(host, d, sizeof host));
    for (unsigned i = 0; i < 299; i++)
        CHECK(host[i] == (i % 132) << 5);
    CHECK(host[299] == 0xabcdef01);
    CHECK(!strcmp(server.last.kernel, "smids") && server.last.param_count == 2 &&
          server.last.params[0] == d && server.last.params[1] == 299);
    OK(cuModuleGetGlobal_v2(&shift, &bytes, m.module, "shift"));
    CHECK(bytes == 4);
    OK(cuMemcpyHtoD_v2(shift, &shift_is, 4));
    OK(launch(m.smids, 10, 1, NULL, d, 10));
    OK(cuMemcpyDtoH_v2(host, d, sizeof host));
    CHECK(host[9] == 9);
    OK(cuFuncGetParamInfo(m.smids, 1, &offset, &bytes));
    CHECK(offset == 8 && bytes == 4);
    CHECK(cuFuncGetParamInfo(m.smids, 2, &offset, &bytes) == CUDA_ERROR_INVALID_VALUE);
    OK(launch(m.forever, 1, 1, NULL, 0, 0)); /* takes time only */
    OK(cuCtxSynchronize());
    CUlibrary lib;
    CUkernel kernel;
    OK(cuLibraryLoadData(&lib, ptx, NULL, NULL, 0, NULL, NULL, 0));
    OK(cuLibraryGetKernel(&kernel, lib, "smids"));
    OK(launch((CUfunction)(void *)kernel, 4, 32, NULL, d, 4));
    OK(cuMemcpyDtoH_v2(host, d, sizeof host));
    CHECK(host[3] == 3 << 5);
    OK(cuLibraryUnload(lib));
    OK(cuModuleUnload(m.module));
    CHECK(launch(m.smids, 1, 1, NULL, d, 1) == CUDA_ERROR_INVALID_HANDLE);
    CHECK(cuModuleLoadData(&m.module, torn) == CUDA_ERROR_INVALID_IMAGE);
    CHECK(cuModuleLoadData(&m.module, ".version 7.0\n.target sm_52\nnonsense;") == CUDA_ERROR_NOT_SUPPORTED);
    CHECK(cuModuleLoadData(&m.module, ".version 7.0\n.target sm_52\n;") == CUDA_ERROR_INVALID_PTX);
    CHECK(cuModuleLoadData(&m.module, ".version 8.6\n.target sm_100\n") == CUDA_ERROR_NO_BINARY_FOR_GPU);
}

static void limits_body(void)
{
    start();
    struct loaded m = load_module();
    CUlaunchAttribute a = {.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION, .value.clusterDim = {4, 1, 1}};
    CUlaunchConfig c = {8, 1, 1, 32, 1, 1, 0, NULL, &a, 1};
    struct lithos_qmd_view v;
    int blocks;
    CHECK(launch(m.forever, 0, 1, NULL, 0, 0) == CUDA_ERROR_INVALID_VALUE);
    CHECK(launch(m.forever, 1, 1025, NULL, 0, 0) == CUDA_ERROR_INVALID_VALUE);
    CHECK(cuLaunchKernel(m.forever, 1, 65536, 1, 1, 1, 1, 0, NULL, NULL, NULL) == CUDA_ERROR_INVALID_VALUE);
    CHECK(cuLaunchKernel(m.forever, 1, 1, 1, 1, 1, 65, 0, NULL, NULL, NULL) == CUDA_ERROR_INVALID_VALUE);
    CHECK(cuLaunchKernel(m.smids, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL) == CUDA_ERROR_INVALID_VALUE);
    CHECK(cuLaunchKernel(m.forever, 1, 1, 1, 1, 1, 1, 49153, NULL, NULL, NULL) == CUDA_ERROR_INVALID_VALUE);
    OK(cuFuncSetAttribute(m.forever, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 232448));
    OK(cuLaunchKernel(m.forever, 1, 1, 1, 1, 1, 1, 200000, NULL, NULL, NULL));
    OK(cuCtxSynchronize());
    CHECK(cuFuncSetAttribute(m.forever, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 232449) ==
          CUDA_ERROR_INVALID_VALUE);
    OK(cuLaunchKernelEx(&c, m.forever, NULL, NULL));
    OK(cuCtxSynchronize());
    lithos_qmd_decode(lithos_qmd_layout(LITHOS_QMD_V04_00), server.last.qmd, &v);
    CHECK(v.type == LITHOS_QMD_TYPE_CLUSTERS && v.cluster[0] == 4 && v.grid[0] == 2 && v.block[0] == 32);
    c.gridDimX = 9;
    CHECK(cuLaunchKernelEx(&c, m.forever, NULL, NULL) == CUDA_ERROR_INVALID_VALUE);
    c.gridDimX = 32;
    a.value.clusterDim.x = 16;
    CHECK(cuLaunchKernelEx(&c, m.forever, NULL, NULL) == 912); /* INVALID_CLUSTER_SIZE */
    OK(cuFuncSetAttribute(m.forever, CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1));
    OK(cuLaunchKernelEx(&c, m.forever, NULL, NULL));
    a.id = 7; /* PROGRAMMATIC_EVENT */
    CHECK(cuLaunchKernelEx(&c, m.forever, NULL, NULL) == CUDA_ERROR_NOT_SUPPORTED);
    OK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, m.forever, 256, 0));
    CHECK(blocks == 8);
    OK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, m.forever, 32, 100000));
    CHECK(blocks == 2);
    OK(cuLaunchCooperativeKernel(m.forever, 132 * 8, 1, 1, 256, 1, 1, 0, NULL, NULL));
    CHECK(cuLaunchCooperativeKernel(m.forever, 132 * 8 + 1, 1, 1, 256, 1, 1, 0, NULL, NULL) == 720);
    OK(cuCtxSynchronize());
}

static void memory_body(void)
{
    start();
    struct loaded m = load_module();
    CUdeviceptr a, b;
    size_t free_bytes, total, before;
    unsigned x = 41, y = 0, *pinned, type = 0;
    OK(cuMemGetInfo_v2(&before, &total));
    CHECK(total == 150109880320ull);
    CHECK(cuMemAlloc_v2(&a, total + 1) == CUDA_ERROR_OUT_OF_MEMORY);
    OK(cuMemAlloc_v2(&a, total - (1u << 20))); /* costs nothing until it is touched */
    CHECK(cuMemAlloc_v2(&b, 2u << 20) == CUDA_ERROR_OUT_OF_MEMORY);
    OK(cuMemcpyHtoD_v2(a + total / 2, &x, 4));
    OK(cuMemcpyDtoH_v2(&y, a + total / 2, 4));
    CHECK(y == 41);
    OK(cuMemFree_v2(a));
    CHECK(cuMemFree_v2(a) == CUDA_ERROR_INVALID_VALUE);
    OK(cuMemGetInfo_v2(&free_bytes, &total));
    CHECK(free_bytes == before);
    OK(cuMemAlloc_v2(&a, 64));
    OK(cuMemAlloc_v2(&b, 64));
    CHECK(cuMemcpyHtoD_v2(a + 32, &x, 64) == CUDA_ERROR_INVALID_VALUE);
    CHECK(cuMemcpyHtoD_v2((CUdeviceptr)(uintptr_t)&y, &x, 4) == CUDA_ERROR_INVALID_VALUE);
    OK(cuMemcpyHtoD_v2(a, &x, 4));
    OK(cuMemcpyDtoD_v2(b + 8, a, 4));
    y = 0;
    OK(cuMemcpy((CUdeviceptr)(uintptr_t)&y, b + 8, 4));
    CHECK(y == 41);
    OK(cuMemHostAlloc((void **)&pinned, 4096, CU_MEMHOSTALLOC_DEVICEMAP));
    CUdeviceptr mapped;
    OK(cuMemHostGetDevicePointer_v2(&mapped, pinned, 0));
    OK(launch(m.smids, 3, 1, NULL, mapped, 3)); /* a kernel writes where the host reads */
    OK(cuCtxSynchronize());
    CHECK(pinned[2] == 2 << 5);
    OK(cuPointerGetAttribute(&type, 2, mapped));
    CHECK(type == 1);
    OK(cuPointerGetAttribute(&type, 2, a + 5));
    CHECK(type == 2);
    static char registered[8192];
    OK(cuMemHostRegister_v2(registered, sizeof registered, 0));
    CHECK(cuMemHostRegister_v2(registered + 100, 10, 0) == CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
    OK(cuMemHostUnregister(registered));
    CHECK(cuMemHostUnregister(registered) == CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
    OK(cuMemAllocAsync(&b, 128, NULL));
    OK(cuMemFreeAsync(b, NULL));
    OK(cuCtxSynchronize());
    CHECK(cuMemcpyDtoH_v2(&y, b, 4) == CUDA_ERROR_INVALID_VALUE);
}

static void illegal_address_body(void)
{
    start();
    struct loaded m = load_module();
    static unsigned host[64];
    CUdeviceptr d;
    /* A host pointer passed as a device pointer. */
    OK(launch(m.smids, 1, 1, NULL, (CUdeviceptr)(uintptr_t)host, 1));
    CHECK(cuCtxSynchronize() == CUDA_ERROR_ILLEGAL_ADDRESS);
    CHECK(cuMemAlloc_v2(&d, 8) == CUDA_ERROR_ILLEGAL_ADDRESS); /* and ever after */
    CHECK(launch(m.smids, 1, 1, NULL, 0, 0) == CUDA_ERROR_ILLEGAL_ADDRESS);
    CHECK(cuStreamSynchronize(NULL) == CUDA_ERROR_ILLEGAL_ADDRESS);
    /* A new context is well. */
    CUcontext ctx;
    OK(cuCtxCreate_v2(&ctx, 0, 0));
    OK(cuMemAlloc_v2(&d, 8));
    OK(cuCtxSynchronize());
    OK(cuCtxDestroy_v2(ctx));
    CHECK(cuCtxSetCurrent(ctx) == CUDA_ERROR_INVALID_CONTEXT);
}

static void endless_body(void)
{
    start();
    struct loaded m = load_module();
    OK(launch(m.spin, 1, 1, NULL, 0, 0));
    CHECK(cuCtxSynchronize() == CUDA_ERROR_LAUNCH_TIMEOUT);
}

static void fault_body(void)
{
    start();
    struct loaded m = load_module();
    CUstream s;
    CUevent e;
    OK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    OK(cuEventCreate(&e, 0));
    server.fault = CUDA_ERROR_LAUNCH_FAILED;
    OK(launch(m.forever, 1, 1, s, 0, 0));
    CHECK(cuStreamSynchronize(s) == CUDA_ERROR_LAUNCH_FAILED);
    CHECK(cuEventRecord(e, s) == CUDA_ERROR_LAUNCH_FAILED);
    CHECK(cuCtxSynchronize() == CUDA_ERROR_LAUNCH_FAILED);
}

static void server_gone_body(void)
{
    start();
    struct loaded m = load_module();
    CUdeviceptr d;
    server.hold = true;
    OK(launch(m.forever, 1, 1, NULL, 0, 0));
    CHECK(cuStreamQuery(NULL) == CUDA_ERROR_NOT_READY);
    fake_server_die(&server);
    CHECK(cuCtxSynchronize() == CUDA_ERROR_UNKNOWN);
    CHECK(launch(m.forever, 1, 1, NULL, 0, 0) == CUDA_ERROR_UNKNOWN);
    CHECK(cuMemAlloc_v2(&d, 8) == CUDA_ERROR_UNKNOWN);
    server.hold = false;
}

static void bad_handles_body(void)
{
    start();
    int value;
    struct loaded m = load_module();
    CUstream s;
    CUevent e;
    OK(cuStreamCreate(&s, 0));
    OK(cuStreamDestroy_v2(s));
    CHECK(cuStreamDestroy_v2(s) == CUDA_ERROR_INVALID_HANDLE);
    CHECK(cuStreamSynchronize(s) == CUDA_ERROR_INVALID_HANDLE);
    CHECK(cuStreamSynchronize((CUstream)0x1234) == CUDA_ERROR_INVALID_HANDLE);
    OK(cuEventCreate(&e, 0));
    OK(cuEventDestroy_v2(e));
    CHECK(cuEventQuery(e) == CUDA_ERROR_INVALID_HANDLE);
    CHECK(cuEventRecord((CUevent)(void *)m.smids, NULL) == CUDA_ERROR_INVALID_HANDLE);
    CHECK(cuFuncGetAttribute(&value, 0, (CUfunction)(void *)m.module) == CUDA_ERROR_INVALID_HANDLE);
    CHECK(cuCtxSetCurrent((CUcontext)(void *)m.module) == CUDA_ERROR_INVALID_CONTEXT);
    OK(cuCtxSetCurrent(NULL));
    CHECK(cuCtxSynchronize() == CUDA_ERROR_INVALID_CONTEXT);
}

static atomic_int order[8], order_count;

static void note(void *value)
{
    usleep(20000);
    order[atomic_fetch_add(&order_count, 1)] = (int)(intptr_t)value;
}

static void streams_body(void)
{
    start();
    CUstream a, b;
    CUevent e, f;
    CUdeviceptr d;
    unsigned x = 7, y = 0;
    float ms = -1;
    OK(cuStreamCreate(&a, CU_STREAM_NON_BLOCKING));
    OK(cuStreamCreate(&b, CU_STREAM_NON_BLOCKING));
    OK(cuEventCreate(&e, 0));
    OK(cuEventCreate(&f, 0));
    OK(cuMemAlloc_v2(&d, 64));
    OK(cuEventQuery(e)); /* never recorded */
    /* A host function holds back what follows it, here and, by way of an event, in another stream. */
    OK(cuLaunchHostFunc(a, note, (void *)1));
    OK(cuEventRecord(e, a));
    OK(cuStreamWaitEvent(b, e, 0));
    OK(cuLaunchHostFunc(b, note, (void *)2));
    OK(cuMemcpyHtoDAsync_v2(d, &x, 4, b));
    x = 8; /* pageable memory was read when the call returned */
    OK(cuEventRecord(f, b));
    CHECK(cuEventQuery(f) == CUDA_ERROR_NOT_READY);
    CHECK(cuStreamQuery(b) == CUDA_ERROR_NOT_READY);
    OK(cuEventSynchronize(f));
    CHECK(order_count == 2 && order[0] == 1 && order[1] == 2);
    OK(cuMemcpyDtoHAsync_v2(&y, d, 4, a));
    CHECK(y == 7); /* to pageable memory: there when the call returns */
    OK(cuEventElapsedTime(&ms, e, f));
    CHECK(ms > 0 && ms < 1);
    OK(cuStreamQuery(a));
    /* The legacy stream and a blocking one wait for each other; a non-blocking one for neither. */
    CUstream c;
    OK(cuStreamCreate(&c, CU_STREAM_DEFAULT));
    OK(cuLaunchHostFunc(NULL, note, (void *)3));
    OK(cuMemsetD8Async(d, 1, 64, a));
    OK(cuStreamSynchronize(a));
    CHECK(order_count == 2);
    OK(cuMemsetD8Async(d, 2, 64, c));
    OK(cuStreamSynchronize(c));
    CHECK(order_count == 3);
    OK(cuLaunchHostFunc(c, note, (void *)4));
    OK(cuMemsetD32_v2(d, 9, 16));
    OK(cuStreamSynchronize(NULL));
    CHECK(order_count == 4);
    OK(cuMemcpyDtoH_v2(&y, d, 4));
    CHECK(y == 9);
    OK(cuStreamDestroy_v2(a));
    OK(cuStreamDestroy_v2(b));
    OK(cuStreamDestroy_v2(c));
    OK(cuEventDestroy_v2(e));
    OK(cuEventDestroy_v2(f));
    OK(cuCtxSynchronize());
    SOON(server.messages[VGPU_STREAM_DESTROY] >= 2);
}

/* ---- the QMD hook */

static int fired, fired_second;
static pthread_t fired_on;
static uint32_t halve;

static void on_qmd(void *user, int domain, int id, const void *params)
{
    const uint64_t *words = params;
    CHECK(user == &fired && domain == LITHOS_QMD_DOMAIN && id == LITHOS_QMD_CALLBACK_ID);
    CHECK((uint32_t)words[0] == LITHOS_QMD_PARAMS_BYTES);
    void *qmd = (void *)(uintptr_t)words[LITHOS_QMD_PARAMS_QMD];
    const struct lithos_qmd_layout *layout;
    CHECK(lithos_qmd_identify(9, 0, qmd, false, &layout) == 0);
    fired++;
    fired_on = pthread_self();
    struct lithos_tpcset two = {{3, 0}};
    CHECK(lithos_qmd_set_tpcs(layout, qmd, &two) == 0);
    if (halve)
        CHECK(lithos_qmd_set(layout, qmd, LITHOS_QMD_GRID_WIDTH, 0, halve) == 0);
}

static void on_second(void *user, int domain, int id, const void *params)
{
    (void)user;
    (void)domain;
    (void)id;
    (void)params;
    fired_second++;
}

static void subscribe(void)
{
    static const CUuuid id = LITHOS_QMD_TABLE_UUID, other = {{1}};
    const void *const *table;
    uint32_t handle, second;
    CHECK(cuGetExportTable((const void **)&table, &other) != CUDA_SUCCESS);
    OK(cuGetExportTable((const void **)&table, &id));
    lithos_qmd_subscribe_fn sub = (lithos_qmd_subscribe_fn)table[LITHOS_QMD_TABLE_SUBSCRIBE];
    lithos_qmd_enable_fn enable = (lithos_qmd_enable_fn)table[LITHOS_QMD_TABLE_ENABLE];
    OK(sub(&handle, on_qmd, &fired));
    OK(enable(1, handle, LITHOS_QMD_DOMAIN, LITHOS_QMD_CALLBACK_ID));
    OK(sub(&second, on_second, NULL));
    OK(enable(1, second, LITHOS_QMD_DOMAIN, LITHOS_QMD_CALLBACK_ID));
}

static void hook_body(void)
{
    start();
    struct loaded m = load_module();
    CUdeviceptr d;
    unsigned host[8] = {0};
    struct lithos_qmd_view v;
    CUgreenCtx green;
    subscribe();
    OK(cuMemAlloc_v2(&d, sizeof host));
    OK(cuMemsetD32_v2(d, 99, 8)); /* the driver's own kernel is seen as well */
    CHECK(fired == 1);
    OK(launch(m.smids, 8, 1, NULL, d, 8));
    CHECK(fired == 2 && fired_second == 0 && pthread_equal(fired_on, pthread_self()));
    OK(cuCtxSynchronize());
    lithos_qmd_decode(lithos_qmd_layout(LITHOS_QMD_V04_00), server.last.qmd, &v);
    CHECK(v.masked && v.tpcs.w[0] == 3 && v.tpcs.w[1] == 0 && v.grid[0] == 8);
    /* A grid cut short in the QMD: the rest of the blocks does not run. */
    OK(cuMemsetD32_v2(d, 99, 8));
    halve = 3;
    OK(launch(m.smids, 8, 1, NULL, d, 8));
    OK(cuMemcpyDtoH_v2(host, d, sizeof host));
    CHECK(host[2] == 2 << 5 && host[3] == 99);
    CHECK(cuGreenCtxCreate(&green, NULL, 0, 0) == CUDA_ERROR_NOT_SUPPORTED);
}

static void graph_body(void)
{
    start();
    struct loaded m = load_module();
    CUdeviceptr d;
    CUstream s;
    CUgraph g;
    CUgraphExec x;
    int status;
    unsigned host[4] = {0};
    subscribe();
    OK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    OK(cuMemAlloc_v2(&d, sizeof host));
    OK(cuStreamBeginCapture_v2(s, 0));
    OK(cuStreamIsCapturing(s, &status));
    CHECK(status == 1);
    OK(cuMemsetD8Async(d, 0xff, sizeof host, s));
    OK(launch(m.smids, 3, 1, s, d, 3));
    CHECK(cuStreamSynchronize(s) == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    OK(cuStreamEndCapture(s, &g));
    CHECK(fired == 0);
    OK(cuGraphInstantiateWithFlags(&x, g, 0));
    OK(cuGraphDestroy(g));
    OK(cuGraphLaunch(x, s));
    CHECK(fired == 2); /* once a kernel node */
    OK(cuMemcpyDtoHAsync_v2(host, d, sizeof host, s));
    CHECK(host[0] == 0 && host[2] == 2 << 5 && host[3] == 0xffffffff);
    OK(cuMemsetD32_v2(d, 0, 4));
    CHECK(fired == 3);
    OK(cuStreamSynchronize(NULL));
    OK(cuGraphLaunch(x, s)); /* never again */
    CHECK(fired == 3);
    OK(cuMemcpyDtoHAsync_v2(host, d, sizeof host, s));
    CHECK(host[2] == 2 << 5 && host[3] == 0xffffffff);
    OK(cuGraphExecDestroy(x));
    CHECK(cuGraphLaunch(x, s) == CUDA_ERROR_INVALID_VALUE);
}

static void proc_address_body(void)
{
    void *lib = load();
    static const struct {
        const char *name;
        int version;
        unsigned long long flags;
        const char *want; /* NULL: not found */
        int status;
    } cases[] = {
        {"cuMemAlloc", 12000, 0, "cuMemAlloc_v2", 0},
        {"cuMemAlloc", 3000, 0, "cuMemAlloc", 0},
        {"cuCtxCreate", 12000, 0, "cuCtxCreate_v3", 0},
        {"cuCtxCreate", 13000, 0, "cuCtxCreate_v4", 0},
        {"cuCtxCreate", 10000, 0, "cuCtxCreate_v2", 0},
        {"cuLaunchKernel", 12000, 0, "cuLaunchKernel", 0},
        {"cuLaunchKernel", 12000, 2, "cuLaunchKernel_ptsz", 0},
        {"cuMemcpyHtoD", 12000, 2, "cuMemcpyHtoD_v2_ptds", 0},
        {"cuDeviceGet", 12000, 2, "cuDeviceGet", 0},
        {"cuGetProcAddress", 12000, 0, "cuGetProcAddress_v2", 0},
        {"cuGetProcAddress", 11030, 0, "cuGetProcAddress", 0},
        {"cuGraphInstantiate", 12000, 0, "cuGraphInstantiate_v2", 0}, /* though cuda.h means another by it */
        {"cuGraphInstantiateWithFlags", 12000, 0, "cuGraphInstantiateWithFlags", 0},
        {"cuLaunchKernelEx", 11000, 0, NULL, CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT},
        {"cuNoSuchThing", 13000, 0, NULL, CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND},
    };
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(cases); i++) {
        void *fn = NULL;
        int status = -1;
        int r = cuGetProcAddress_v2(cases[i].name, &fn, cases[i].version, cases[i].flags, &status);
        void *want = cases[i].want ? dlsym(lib, cases[i].want) : NULL;
        if (fn != want || status != cases[i].status || (r == 0) != (want != NULL)) {
            fprintf(stderr, "%s %d: %d, status %d\n", cases[i].name, cases[i].version, r, status);
            _exit(1);
        }
    }
}

/* A default stream a thread: what one does, another does not wait for. */
static void *other_thread(void *arg)
{
    unsigned long long *id = arg;
    CUcontext ctx;
    OK(cuDevicePrimaryCtxRetain(&ctx, 0));
    OK(cuCtxSetCurrent(ctx));
    OK(cuStreamGetId_ptsz(NULL, id));
    OK(cuStreamSynchronize_ptsz(NULL)); /* while the first thread's host function still runs */
    CHECK(order_count == 0);
    return NULL;
}

static void per_thread_body(void)
{
    start();
    CUdeviceptr d;
    unsigned long long mine, again, theirs, legacy;
    unsigned x = 0;
    pthread_t t;
    OK(cuMemAlloc_v2(&d, 8));
    OK(cuStreamGetId_ptsz(NULL, &mine));
    OK(cuStreamGetId(CU_STREAM_PER_THREAD, &again));
    OK(cuStreamGetId_ptsz(CU_STREAM_LEGACY, &legacy));
    CHECK(mine == again && mine != legacy);
    OK(cuLaunchHostFunc(CU_STREAM_PER_THREAD, note, (void *)1));
    CHECK(pthread_create(&t, NULL, other_thread, &theirs) == 0);
    pthread_join(t, NULL);
    CHECK(theirs != mine);
    OK(cuMemsetD32_v2_ptds(d, 6, 2));
    OK(cuMemcpyDtoH_v2_ptds(&x, d, 4));
    CHECK(x == 6 && order_count == 1);
}

static void injection_body(void)
{
    setenv("CUDA_INJECTION64_PATH", LITHOS_BINARY_DIR "/tests/vgpu_injection.so", 1);
    fake_server_start(&server);
    load();
    OK(cuInit(0));
    OK(cuInit(0));
    const char *injected = getenv("VGPU_INJECTED");
    CHECK(injected && !strcmp(injected, "once"));
}

static void fork_body(void)
{
    CUcontext ctx = start();
    (void)ctx;
    pid_t pid = fork();
    if (pid == 0) {
        CUdeviceptr d;
        _exit(cuInit(0) == CUDA_ERROR_NOT_INITIALIZED && cuMemAlloc_v2(&d, 8) == CUDA_ERROR_NOT_INITIALIZED
                  ? 0
                  : 1);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    OK(cuCtxSynchronize());
}

static void *hammer(void *arg)
{
    struct loaded *m = arg;
    CUcontext ctx;
    CUstream s;
    CUdeviceptr d;
    unsigned host[4];
    OK(cuDevicePrimaryCtxRetain(&ctx, 0));
    OK(cuCtxSetCurrent(ctx));
    OK(cuStreamCreate(&s, 0));
    for (int i = 0; i < 200; i++) {
        OK(cuMemAlloc_v2(&d, sizeof host));
        OK(cuMemsetD8Async(d, 3, sizeof host, s));
        OK(launch(m->smids, 2, 1, s, d, 2));
        if (i % 16 == 0)
            OK(cuMemsetD32_v2(d + 8, 4, 1)); /* in the legacy stream */
        OK(cuMemcpyDtoHAsync_v2(host, d, sizeof host, s));
        CHECK(host[1] == 1 << 5 && host[3] == 0x03030303);
        OK(cuMemFreeAsync(d, s));
    }
    OK(cuStreamSynchronize(s));
    OK(cuStreamDestroy_v2(s));
    return NULL;
}

static void threads_body(void)
{
    start();
    struct loaded m = load_module();
    pthread_t t[4];
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&t[i], NULL, hammer, &m) == 0);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    OK(cuCtxSynchronize());
}

/* More launches than a queue holds while nothing is answered: the app waits, and goes on. */
static void *release(void *unused)
{
    (void)unused;
    usleep(100000);
    server.hold = false;
    return NULL;
}

static void deep_queue_body(void)
{
    start();
    struct loaded m = load_module();
    pthread_t t;
    server.hold = true;
    CHECK(pthread_create(&t, NULL, release, NULL) == 0);
    for (int i = 0; i < 5000; i++)
        OK(launch(m.forever, 1, 1, NULL, 0, 0));
    CHECK(!server.hold);
    OK(cuCtxSynchronize());
    CHECK(server.messages[VGPU_LAUNCH] >= 4999);
    pthread_join(t, NULL);
}

#define TESTS(X)       \
    X(exports)         \
    X(no_server)       \
    X(devices)         \
    X(kernels)         \
    X(limits)          \
    X(memory)          \
    X(illegal_address) \
    X(endless)         \
    X(fault)           \
    X(server_gone)     \
    X(bad_handles)     \
    X(streams)         \
    X(hook)            \
    X(graph)           \
    X(proc_address)    \
    X(per_thread)      \
    X(injection)       \
    X(fork)            \
    X(threads)         \
    X(deep_queue)

VGPU_TEST_MAIN(TESTS)
