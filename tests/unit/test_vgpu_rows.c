/* The virtual driver's copies and sets of rows, and words that streams write and wait for. Each test is a process of its own. */
#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
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

#define NON_BLOCKING 1u
#define PITCH 12u
#define ROWS 3u
#define BYTES (PITCH * ROWS)

#define FUNCTIONS(X)                                                               \
    X(cuInit, unsigned)                                                            \
    X(cuDevicePrimaryCtxRetain, CUcontext *, int)                                  \
    X(cuCtxSetCurrent, CUcontext)                                                  \
    X(cuMemAlloc_v2, CUdeviceptr *, size_t)                                        \
    X(cuMemcpyHtoD_v2, CUdeviceptr, const void *, size_t)                          \
    X(cuMemcpyDtoH_v2, void *, CUdeviceptr, size_t)                                \
    X(cuMemcpy2D_v2, const CUDA_MEMCPY2D *)                                        \
    X(cuMemcpy2DAsync_v2, const CUDA_MEMCPY2D *, CUstream)                         \
    X(cuMemsetD2D8_v2, CUdeviceptr, size_t, unsigned char, size_t, size_t)         \
    X(cuMemsetD2D32Async, CUdeviceptr, size_t, unsigned, size_t, size_t, CUstream) \
    X(cuStreamCreate, CUstream *, unsigned)                                        \
    X(cuStreamSynchronize, CUstream)                                               \
    X(cuStreamQuery, CUstream)                                                     \
    X(cuStreamWriteValue32_v2, CUstream, CUdeviceptr, uint32_t, unsigned)          \
    X(cuStreamWaitValue32_v2, CUstream, CUdeviceptr, uint32_t, unsigned)           \
    X(cuStreamWriteValue64_v2, CUstream, CUdeviceptr, uint64_t, unsigned)          \
    X(cuStreamWaitValue64_v2, CUstream, CUdeviceptr, uint64_t, unsigned)

#define X(name, ...) static int (*name)(__VA_ARGS__);
FUNCTIONS(X)
#undef X

static struct fake_server server;
static CUdeviceptr device;

static void start(void)
{
    CUcontext primary;
    fake_server_start(&server);
    void *lib = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    CHECK(lib);
#define X(name, ...) CHECK((name = (int (*)(__VA_ARGS__))dlsym(lib, #name)));
    FUNCTIONS(X)
#undef X
    OK(cuInit(0));
    OK(cuDevicePrimaryCtxRetain(&primary, 0));
    OK(cuCtxSetCurrent(primary));
    OK(cuMemAlloc_v2(&device, BYTES));
}

/* Four bytes of each of two rows, from the second byte of the second row on; the rest of the rows stays. */
static void copies_body(void)
{
    unsigned char from[BYTES], got[BYTES], want[BYTES];
    start();
    for (unsigned i = 0; i < BYTES; i++)
        from[i] = (unsigned char)(i + 1);
    memset(want, 0x77, BYTES);
    OK(cuMemcpyHtoD_v2(device, want, BYTES));
    CUDA_MEMCPY2D c = {.srcMemoryType = CU_MEMORYTYPE_HOST,
                       .srcHost = from,
                       .srcPitch = PITCH,
                       .srcXInBytes = 1,
                       .srcY = 1,
                       .dstMemoryType = CU_MEMORYTYPE_DEVICE,
                       .dstDevice = device,
                       .dstPitch = PITCH,
                       .dstXInBytes = 2,
                       .WidthInBytes = 4,
                       .Height = 2};
    OK(cuMemcpy2DAsync_v2(&c, NULL));
    memcpy(want + 2, from + PITCH + 1, 4);
    memcpy(want + PITCH + 2, from + 2 * PITCH + 1, 4);
    memset(from, 0xee, sizeof from); /* it was copied before the call returned */
    OK(cuMemcpyDtoH_v2(got, device, BYTES));
    CHECK(!memcmp(got, want, BYTES));
    /* and back */
    memset(got, 0, sizeof got);
    CUDA_MEMCPY2D back = {.srcMemoryType = CU_MEMORYTYPE_DEVICE,
                          .srcDevice = device,
                          .srcPitch = PITCH,
                          .dstMemoryType = CU_MEMORYTYPE_HOST,
                          .dstHost = got,
                          .WidthInBytes = PITCH,
                          .Height = ROWS};
    OK(cuMemcpy2D_v2(&back));
    CHECK(!memcmp(got, want, BYTES));
    /* what leaves the memory, or cannot be */
    back.Height = ROWS + 1;
    CHECK(cuMemcpy2D_v2(&back) == CUDA_ERROR_INVALID_VALUE);
    c.dstPitch = 2;
    CHECK(cuMemcpy2DAsync_v2(&c, NULL) == CUDA_ERROR_INVALID_VALUE);
    c.dstMemoryType = CU_MEMORYTYPE_ARRAY;
    CHECK(cuMemcpy2DAsync_v2(&c, NULL) == CUDA_ERROR_NOT_SUPPORTED);
}

static void sets_body(void)
{
    unsigned char got[BYTES], want[BYTES];
    start();
    memset(want, 0x77, BYTES);
    OK(cuMemcpyHtoD_v2(device, want, BYTES));
    OK(cuMemsetD2D8_v2(device + 1, PITCH, 0x12, 5, 2));
    OK(cuMemsetD2D32Async(device + 8, PITCH, 0xa1a2a3a4, 1, ROWS, NULL));
    for (unsigned row = 0; row < ROWS; row++) {
        const uint32_t word = 0xa1a2a3a4;
        if (row < 2)
            memset(want + row * PITCH + 1, 0x12, 5);
        memcpy(want + row * PITCH + 8, &word, sizeof word);
    }
    OK(cuMemcpyDtoH_v2(got, device, BYTES));
    CHECK(!memcmp(got, want, BYTES));
    CHECK(cuMemsetD2D8_v2(device, PITCH, 0, PITCH, ROWS + 1) == CUDA_ERROR_INVALID_VALUE);
    CHECK(cuMemsetD2D8_v2(device, 2, 0, 4, 2) == CUDA_ERROR_INVALID_VALUE);
}

/* A stream goes on when the word is there, whoever writes it. */
static void words_body(void)
{
    CUstream waits, writes;
    uint64_t got[2] = {0};
    start();
    OK(cuStreamCreate(&waits, NON_BLOCKING));
    OK(cuStreamCreate(&writes, NON_BLOCKING));
    OK(cuMemcpyHtoD_v2(device, got, sizeof got));
    OK(cuStreamWaitValue32_v2(waits, device, 5, 0));
    OK(cuStreamWriteValue64_v2(waits, device + 8, 0x123456789ull, 0));
    OK(cuStreamWriteValue32_v2(writes, device, 4, 0));
    OK(cuStreamSynchronize(writes));
    usleep(20000);
    CHECK(cuStreamQuery(waits) == CUDA_ERROR_NOT_READY);
    OK(cuStreamWriteValue32_v2(writes, device, 6, 0));
    OK(cuStreamSynchronize(waits));
    OK(cuMemcpyDtoH_v2(got, device, sizeof got));
    CHECK(got[0] == 6 && got[1] == 0x123456789ull);
    OK(cuStreamWaitValue64_v2(waits, device + 8, 0x100000000ull, 2)); /* any of these bits */
    OK(cuStreamWaitValue32_v2(waits, device, 6, 1));                  /* that value */
    OK(cuStreamSynchronize(waits));
    CHECK(cuStreamWaitValue32_v2(waits, device + 2, 6, 0) == CUDA_ERROR_INVALID_VALUE);
    CHECK(cuStreamWriteValue32_v2(waits, device + BYTES, 6, 0) == CUDA_ERROR_INVALID_VALUE);
}

#define TESTS(X) \
    X(copies)    \
    X(sets)      \
    X(words)
VGPU_TEST_MAIN(TESTS)
