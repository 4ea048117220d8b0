/* Completion stamps of the virtual GPU: what release semaphores 1 and 2 of a QMD write, where, when, and where they may
 * not. The QMD is edited by the hook, as liblithos does it. Each test is a process of its own. */
#include <dlfcn.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "cuda/cuda_abi.h"
#include "hw/qmd.h"
#include "unit/stub/vgpu_server.h"

#define LIBRARY LITHOS_BINARY_DIR "/lib/lithos/vgpu/libcuda.so.1"
#define FIRST_END_NS 5001000u /* the stub's clock: each op takes 1000 ns, nothing goes by between them */
#define PORTABLE_DEVICEMAP 3u
#define READ_ONLY 8u

#define CHECK(expr)                                                    \
    do {                                                               \
        if (!(expr)) {                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #expr); \
            _exit(1);                                                  \
        }                                                              \
    } while (0)
#define OK(call)                                                                 \
    do {                                                                         \
        int r_ = (call);                                                         \
        if (r_) {                                                                \
            fprintf(stderr, "%s:%d: %s is %d\n", __FILE__, __LINE__, #call, r_); \
            _exit(1);                                                            \
        }                                                                        \
    } while (0)
#define SOON(expr)                                   \
    do {                                             \
        for (int i_ = 0; i_ < 5000 && !(expr); i_++) \
            usleep(1000);                            \
        CHECK(expr);                                 \
    } while (0)

#define FUNCTIONS(X)                                                                                    \
    X(cuInit, unsigned)                                                                                 \
    X(cuDevicePrimaryCtxRetain, CUcontext *, int)                                                       \
    X(cuCtxCreate_v2, CUcontext *, unsigned, int)                                                       \
    X(cuCtxDestroy_v2, CUcontext)                                                                       \
    X(cuCtxSetCurrent, CUcontext)                                                                       \
    X(cuCtxSynchronize, void)                                                                           \
    X(cuModuleLoadData, CUmodule *, const void *)                                                       \
    X(cuModuleGetFunction, CUfunction *, CUmodule, const char *)                                        \
    X(cuLaunchKernel, CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, \
      CUstream, void **, void **)                                                                       \
    X(cuMemAlloc_v2, CUdeviceptr *, size_t)                                                             \
    X(cuMemFree_v2, CUdeviceptr)                                                                        \
    X(cuMemHostRegister_v2, void *, size_t, unsigned)                                                   \
    X(cuMemHostUnregister, void *)                                                                      \
    X(cuMemHostGetDevicePointer_v2, CUdeviceptr *, void *, unsigned)                                    \
    X(cuMemcpyDtoH_v2, void *, CUdeviceptr, size_t)                                                     \
    X(cuMemsetD32_v2, CUdeviceptr, unsigned, size_t)                                                    \
    X(cuMemsetD8Async, CUdeviceptr, unsigned char, size_t, CUstream)                                    \
    X(cuStreamCreate, CUstream *, unsigned)                                                             \
    X(cuStreamSynchronize, CUstream)                                                                    \
    X(cuStreamBeginCapture_v2, CUstream, int)                                                           \
    X(cuStreamEndCapture, CUstream, CUgraph *)                                                          \
    X(cuGraphInstantiateWithFlags, CUgraphExec *, CUgraph, unsigned long long)                          \
    X(cuGraphUpload, CUgraphExec, CUstream)                                                             \
    X(cuGraphLaunch, CUgraphExec, CUstream)                                                             \
    X(cuGetExportTable, const void **, const CUuuid *)

#define X(name, ...) static int (*name)(__VA_ARGS__);
FUNCTIONS(X)
#undef X

static struct fake_server server;

struct stamp {
    _Atomic uint64_t payload, time_ns;
};

/* ---- the hook */

static struct {
    uint64_t address[3], payload[3]; /* a semaphore; address 0: left alone */
    bool off;                        /* address and payload set, not turned on */
    uint32_t structure, reduction, trap;
    unsigned fired;
} ask;

static void set(const struct lithos_qmd_layout *layout, void *qmd, enum lithos_qmd_field field,
                unsigned index, uint32_t value)
{
    CHECK(lithos_qmd_set(layout, qmd, field, index, value) == 0);
}

#define SET_WIDE(field, value)                                                                       \
    do {                                                                                             \
        set(layout, qmd, LITHOS_QMD_RELEASE_SEMAPHORE##field##_LOWER, 0, (uint32_t)(value));         \
        set(layout, qmd, LITHOS_QMD_RELEASE_SEMAPHORE##field##_UPPER, 0, (uint32_t)((value) >> 32)); \
    } while (0)

static void on_qmd(void *user, int domain, int id, const void *params)
{
    (void)user;
    (void)domain;
    (void)id;
    void *qmd = (void *)(uintptr_t)((const uint64_t *)params)[LITHOS_QMD_PARAMS_QMD];
    const struct lithos_qmd_layout *layout;
    CHECK(lithos_qmd_identify(9, 0, qmd, false, &layout) == 0);
    ask.fired++;
    for (unsigned i = 0; i < 3; i++) {
        if (!ask.address[i])
            continue;
        set(layout, qmd, LITHOS_QMD_RELEASE_ENABLE, i, !ask.off);
        set(layout, qmd, LITHOS_QMD_RELEASE_STRUCTURE_SIZE, i, ask.structure);
        set(layout, qmd, LITHOS_QMD_RELEASE_MEMBAR_TYPE, i, 1);
        set(layout, qmd, LITHOS_QMD_RELEASE_REDUCTION_ENABLE, i, ask.reduction);
        set(layout, qmd, LITHOS_QMD_RELEASE_TRAP_TYPE, i, ask.trap);
    }
    if (ask.address[1]) {
        SET_WIDE(1_ADDR, ask.address[1]);
        SET_WIDE(1_PAYLOAD, ask.payload[1]);
    }
    if (ask.address[2]) {
        SET_WIDE(2_ADDR, ask.address[2]);
        SET_WIDE(2_PAYLOAD, ask.payload[2]);
    }
}

static void stamp_to(const void *where, uint64_t payload)
{
    ask.address[1] = (uint64_t)(uintptr_t)where;
    ask.payload[1] = payload;
}

static CUfunction store, forever;
static CUcontext primary;

static const char ptx[] = ".version 7.0\n.target sm_52\n.address_size 64\n"
                          ".visible .entry store(.param .u64 p_out, .param .u64 p_value)\n{\n"
                          ".reg .b64 %rd<4>;\nld.param.u64 %rd1, [p_out]; ld.param.u64 %rd2, [p_value];\n"
                          "st.global.u64 [%rd1], %rd2;\nret;\n}\n"
                          "// lithos-vgpu: timing-only\n.visible .entry forever()\n{\nA: bra A;\n}\n";

static void load_functions(void)
{
    CUmodule m;
    OK(cuModuleLoadData(&m, ptx));
    OK(cuModuleGetFunction(&store, m, "store"));
    OK(cuModuleGetFunction(&forever, m, "forever"));
}

static void start(void)
{
    static const CUuuid id = LITHOS_QMD_TABLE_UUID;
    const void *const *table;
    uint32_t handle;
    fake_server_start(&server);
    void *lib = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!lib)
        fprintf(stderr, "%s\n", dlerror());
    CHECK(lib);
#define X(name, ...) CHECK((name = (int (*)(__VA_ARGS__))dlsym(lib, #name)));
    FUNCTIONS(X)
#undef X
    OK(cuInit(0));
    OK(cuDevicePrimaryCtxRetain(&primary, 0));
    OK(cuCtxSetCurrent(primary));
    OK(cuGetExportTable((const void **)&table, &id));
    OK(((lithos_qmd_subscribe_fn)table[LITHOS_QMD_TABLE_SUBSCRIBE])(&handle, on_qmd, NULL));
    OK(((lithos_qmd_enable_fn)table[LITHOS_QMD_TABLE_ENABLE])(1, handle, LITHOS_QMD_DOMAIN,
                                                              LITHOS_QMD_CALLBACK_ID));
    load_functions();
}

static int run_empty(CUstream s)
{
    return cuLaunchKernel(forever, 4, 1, 1, 32, 1, 1, 0, s, NULL, NULL);
}

static int run_store(const void *out, uint64_t value)
{
    uint64_t address = (uint64_t)(uintptr_t)out;
    void *params[] = {&address, &value};
    return cuLaunchKernel(store, 1, 1, 1, 1, 1, 1, 0, NULL, params, NULL);
}

static void *shared_page(void)
{
    int fd = memfd_create("stamps", MFD_CLOEXEC);
    CHECK(fd >= 0 && ftruncate(fd, 8192) == 0);
    void *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(p != MAP_FAILED);
    close(fd);
    return p;
}

static _Alignas(4096) struct stamp page[256]; /* registered by each test for itself */

static void map_page(void)
{
    CUdeviceptr d;
    OK(cuMemHostRegister_v2(page, sizeof page, PORTABLE_DEVICEMAP));
    OK(cuMemHostGetDevicePointer_v2(&d, page, 0));
    CHECK(d == (uintptr_t)page); /* as unified addressing has it: the tests use the host's addresses */
}

/* ---- tests */

static void content_body(void)
{
    start();
    CUdeviceptr d;
    uint64_t got[12];
    map_page();
    OK(cuMemAlloc_v2(&d, sizeof got));
    OK(cuMemsetD32_v2(d, 0xffffffff, 24));
    /* In device memory, all 64 bits of the payload, both semaphores, not a byte beside the 16. */
    ask.address[1] = d + 16;
    ask.payload[1] = 0xfedcba9876543210ull;
    ask.address[2] = d + 48;
    ask.payload[2] = 7;
    OK(run_empty(NULL));
    ask.address[2] = 0;
    /* The driver's own kernels as well; in host memory. */
    stamp_to(&page[3], 8);
    OK(cuMemsetD32_v2(d, 5, 1));
    OK(cuCtxSynchronize());
    CHECK(page[3].payload == 8 && page[3].time_ns == FIRST_END_NS + 2000);
    CHECK(!page[2].time_ns && !page[4].payload);
    /* Addresses in the QMD, semaphore not turned on. */
    ask.off = true;
    stamp_to(&page[4], 9);
    OK(run_empty(NULL));
    OK(cuCtxSynchronize());
    CHECK(!page[4].payload && !page[4].time_ns);
    OK(cuMemcpyDtoH_v2(got, d, sizeof got));
    const uint64_t ones = UINT64_MAX;
    const uint64_t want[12] = {0xffffffff00000005ull,
                               ones,
                               0xfedcba9876543210ull,
                               FIRST_END_NS + 1000,
                               ones,
                               ones,
                               7,
                               FIRST_END_NS + 1000,
                               ones,
                               ones,
                               ones,
                               ones};
    CHECK(!memcmp(got, want, sizeof got));
}

/* Payload last; the kernel's effects before the payload; the op done after it. */
static atomic_bool watching_over;

static void *watch(void *out)
{
    _Atomic uint64_t *effect = out;
    uint64_t last = 0, last_ns = 0;
    while (!watching_over) {
        uint64_t payload = page[0].payload;
        if (payload == last)
            continue;
        /* One stamp may follow another meanwhile: later is fine, earlier is not. */
        uint64_t ns = page[0].time_ns, value = *effect;
        CHECK(ns >= FIRST_END_NS + (payload - 1) * 1000 && ns >= last_ns);
        CHECK(value >= payload && payload > last);
        last = payload;
        last_ns = ns;
    }
    return NULL;
}

static void order_body(void)
{
    start();
    map_page();
    pthread_t t;
    CHECK(pthread_create(&t, NULL, watch, (void *)&page[9].payload) == 0);
    for (uint64_t i = 1; i <= 3000; i++) {
        stamp_to(&page[0], i);
        OK(run_store((void *)&page[9].payload, i));
        if (i % 3)
            continue; /* some in flight together */
        OK(cuCtxSynchronize());
        CHECK(page[0].payload == i && page[9].payload == i);
        CHECK(page[0].time_ns == FIRST_END_NS + (i - 1) * 1000);
    }
    watching_over = true;
    pthread_join(t, NULL);
}

static void shared_body(void)
{
    struct stamp *s = shared_page();
    pid_t pid = fork(); /* one that never calls the driver */
    if (pid == 0) {
        alarm(20);
        while (s[5].payload != 77)
            usleep(100);
        _exit(s[5].time_ns == FIRST_END_NS ? 0 : 1);
    }
    start();
    OK(cuMemHostRegister_v2(s, 8192, PORTABLE_DEVICEMAP));
    CUdeviceptr d;
    OK(cuMemHostGetDevicePointer_v2(&d, &s[5], 0));
    ask.address[1] = d;
    ask.payload[1] = 77;
    OK(run_empty(NULL));
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    OK(cuMemHostUnregister(s));
    CHECK(cuMemHostGetDevicePointer_v2(&d, s, 0) == CUDA_ERROR_INVALID_VALUE);
    CHECK(cuMemHostUnregister(s) == CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
    munmap(s, 8192);
    CHECK(cuMemHostRegister_v2(s, 8192, PORTABLE_DEVICEMAP) ==
          CUDA_ERROR_INVALID_VALUE); /* nothing is there */
}

/* In a context of its own, which is lost and sticks to it. */
static void expect_fault(const void *where, int result)
{
    CUcontext ctx;
    OK(cuCtxCreate_v2(&ctx, 0, 0));
    load_functions();
    memset((void *)&page[9], 0, sizeof page[9]);
    stamp_to(where, 3);
    OK(run_store((void *)&page[9], 1));
    CHECK(cuCtxSynchronize() == result);
    CHECK(run_empty(NULL) == result);
    CHECK(page[9].payload == 1); /* the kernel itself had run */
    OK(cuCtxDestroy_v2(ctx));
    OK(cuCtxSetCurrent(primary));
    load_functions();
    ask.address[1] = 0;
}

static void bad_address_body(void)
{
    start();
    static _Alignas(64) struct stamp own[4];
    struct stamp *read_only = shared_page();
    CUdeviceptr d;
    map_page();
    OK(cuMemAlloc_v2(&d, 64));
    OK(cuMemHostRegister_v2(read_only, 8192, PORTABLE_DEVICEMAP | READ_ONLY));
    expect_fault(own, CUDA_ERROR_ILLEGAL_ADDRESS); /* this process's, not registered */
    expect_fault((void *)(uintptr_t)0xdead0000, CUDA_ERROR_ILLEGAL_ADDRESS);
    expect_fault(&page[256], CUDA_ERROR_ILLEGAL_ADDRESS);
    expect_fault(read_only, CUDA_ERROR_ILLEGAL_ADDRESS);
    expect_fault((void *)(uintptr_t)(d + 56), CUDA_ERROR_ILLEGAL_ADDRESS);           /* ends outside */
    expect_fault((void *)(uintptr_t)(d + 8), 716);                                   /* MISALIGNED_ADDRESS */
    expect_fault((void *)(uintptr_t)((1ull << 56) | d), CUDA_ERROR_ILLEGAL_ADDRESS); /* all 57 bits count */
    OK(cuMemFree_v2(d));
    expect_fault((void *)(uintptr_t)d, CUDA_ERROR_ILLEGAL_ADDRESS);
    CHECK(!own[0].payload && !own[0].time_ns && !read_only->payload);
    /* The others never noticed. */
    stamp_to(&page[1], 4);
    OK(run_empty(NULL));
    OK(cuCtxSynchronize());
    CHECK(page[1].payload == 4);
}

static void *unregister(void *ret)
{
    OK(cuCtxSetCurrent(primary));
    *(int *)ret = cuMemHostUnregister(page);
    return NULL;
}

static void unregistered_in_flight_body(void)
{
    start();
    pthread_t t;
    CUdeviceptr d;
    int result = -1;
    map_page();
    stamp_to(&page[0], 1);
    server.hold = true;
    OK(run_empty(NULL));
    CHECK(pthread_create(&t, NULL, unregister, &result) == 0);
    SOON(cuMemHostGetDevicePointer_v2(&d, page, 0) == CUDA_ERROR_INVALID_VALUE);
    server.hold = false;
    pthread_join(t, NULL);
    CHECK(result == CUDA_ERROR_ILLEGAL_ADDRESS); /* errors of work before it are told here too */
    CHECK(cuCtxSynchronize() == CUDA_ERROR_ILLEGAL_ADDRESS);
    CHECK(!page[0].payload && !page[0].time_ns);
}

/* A registration serves all contexts of the process and ends with the one that made it. */
static void context_gone_body(void)
{
    start();
    CUcontext maker;
    OK(cuCtxCreate_v2(&maker, 0, 1));
    map_page();
    OK(cuCtxSetCurrent(primary));
    stamp_to(&page[0], 1);
    OK(run_empty(NULL));
    OK(cuCtxSynchronize());
    CHECK(page[0].payload == 1);
    OK(cuCtxDestroy_v2(maker));
    stamp_to(&page[0], 2);
    OK(run_empty(NULL));
    CHECK(cuCtxSynchronize() == CUDA_ERROR_ILLEGAL_ADDRESS);
    CHECK(page[0].payload == 1);
}

static void graph_body(void)
{
    start();
    CUstream s;
    CUgraph g;
    CUgraphExec x;
    CUdeviceptr d;
    map_page();
    OK(cuMemAlloc_v2(&d, 64));
    OK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    OK(cuStreamBeginCapture_v2(s, 0));
    OK(cuMemsetD8Async(d, 1, 64, s));
    OK(run_empty(s));
    OK(cuStreamEndCapture(s, &g));
    OK(cuGraphInstantiateWithFlags(&x, g, 0));
    stamp_to(&page[0], 11);
    OK(cuGraphUpload(x, s));
    OK(cuStreamSynchronize(s));
    CHECK(ask.fired == 2 && !page[0].payload); /* an upload is no launch */
    stamp_to(&page[1], 12);                    /* too late: the QMDs are frozen */
    for (unsigned i = 0; i < 3; i++) {
        page[0].payload = page[0].time_ns = 0;
        OK(cuGraphLaunch(x, s));
        OK(cuStreamSynchronize(s));
        CHECK(page[0].payload == 11 && page[0].time_ns == FIRST_END_NS + 1000 + i * 2000);
    }
    CHECK(ask.fired == 2 && !page[1].payload);
}

/* Whatever is on the card when the process dies writes nothing. */
static void death_body(void)
{
    struct stamp *s = shared_page();
    pid_t pid = fork();
    if (pid == 0) {
        start();
        OK(cuMemHostRegister_v2(s, 8192, PORTABLE_DEVICEMAP));
        stamp_to(s, 1);
        OK(run_empty(NULL));
        OK(cuCtxSynchronize());
        server.hold = true;
        stamp_to(s, 2);
        OK(run_empty(NULL));
        unlink(server.path);
        rmdir(server.dir);
        _exit(0);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    usleep(20000);
    CHECK(s->payload == 1 && s->time_ns == FIRST_END_NS);
}

static void failed_kernel_body(void)
{
    start();
    map_page();
    stamp_to(&page[0], 1);
    OK(run_store((void *)(uintptr_t)0xdead0000, 1)); /* faults by itself */
    CHECK(cuCtxSynchronize() == CUDA_ERROR_ILLEGAL_ADDRESS);
    CHECK(!page[0].payload && !page[0].time_ns);
    CUcontext ctx;
    OK(cuCtxCreate_v2(&ctx, 0, 0));
    load_functions();
    server.fault = CUDA_ERROR_LAUNCH_FAILED;
    static _Alignas(4096) struct stamp other[256];
    OK(cuMemHostRegister_v2(other, sizeof other, PORTABLE_DEVICEMAP));
    stamp_to(&other[0], 2);
    OK(run_empty(NULL));
    CHECK(cuCtxSynchronize() == CUDA_ERROR_LAUNCH_FAILED);
    CHECK(!other[0].payload && !other[0].time_ns);
}

static void refused_body(void)
{
    start();
    map_page();
    stamp_to(&page[0], 1);
    for (unsigned i = 0; i < 4; i++) {
        ask.structure = i == 0;
        ask.reduction = i == 1;
        ask.trap = i == 2;
        ask.address[0] = i == 3 ? (uintptr_t)&page[1] : 0; /* the driver's own semaphore */
        CHECK(run_empty(NULL) == CUDA_ERROR_NOT_SUPPORTED);
    }
    ask.address[0] = 0;
    OK(cuCtxSynchronize());
    CHECK(server.messages[VGPU_LAUNCH] == 0 && !page[0].payload);
    OK(run_empty(NULL));
    OK(cuCtxSynchronize());
    CHECK(page[0].payload == 1);
}

static void in_process(void (*body)(void))
{
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        unsetenv("CUDA_VISIBLE_DEVICES");
        unsetenv("CUDA_INJECTION64_PATH");
        setenv("CUDA_MPS_PIPE_DIRECTORY", "/nonexistent", 1);
        alarm(50);
        body();
        if (server.dir[0]) {
            unlink(server.path);
            rmdir(server.dir);
        }
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

#define TESTS(X)              \
    X(content)                \
    X(order)                  \
    X(shared)                 \
    X(bad_address)            \
    X(unregistered_in_flight) \
    X(context_gone)           \
    X(graph)                  \
    X(death)                  \
    X(failed_kernel)          \
    X(refused)

#define X(name)                           \
    static void test_##name(void **state) \
    {                                     \
        (void)state;                      \
        in_process(name##_body);          \
    }
TESTS(X)
#undef X

int main(void)
{
    const struct CMUnitTest tests[] = {
#define X(name) cmocka_unit_test(test_##name),
        TESTS(X)
#undef X
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
