/* The hooks over a stub driver: who asks how, what is masked, what is counted, what it costs. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/util.h"
#include "cards.h"
#include "cuda/cuda_abi.h"
#include "proto/arena.h"
#include "proto/grant_text.h"
#include "stub/in_child.h"
#include "tenant/attach.h"

static const struct {
    const char *name, *base;
    int per_thread;
} hooked[] = {
#define HOOK(name, base, since, per_thread, kind) {#name, #base, per_thread},
#define MARK(name, base, since, per_thread, args, on) {#name, #base, per_thread},
#define WAIT(name, base, since, per_thread, what) {#name, #base, per_thread},
#include "driver/hooks.def"
#undef HOOK
#undef MARK
#undef WAIT
/* and those that may have to wait for what is queued */
#define NOTHING(name, why)
#define QUEUE(name, per_thread, form, stream, arguments)
#define DRAIN(name, per_thread, scope, stream, reason)
#define DO(name, per_thread, act, stream)
#define ENTRY_QUEUE(name, base, since, per_thread, form, stream, arguments) {#name, #base, per_thread},
#define ENTRY_DRAIN(name, base, since, per_thread, scope, stream, reason) {#name, #base, per_thread},
#define ENTRY_DO(name, base, since, per_thread, act, stream) {#name, #base, per_thread},
#include "driver/order.def"
};
#define HOOKED (sizeof hooked / sizeof hooked[0])

typedef CUresult (*init_fn)(unsigned);
typedef CUresult (*launch_fn)(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                              unsigned, CUstream, void **, void **);
typedef CUresult (*proc_v1_fn)(const char *, void **, int, uint64_t);
typedef CUresult (*proc_v2_fn)(const char *, void **, int, uint64_t, int *);

/* ---- cuGetProcAddress ---- */

static int is_ours(const void *p)
{
    Dl_info info;
    return p && dladdr(p, &info) && strstr(info.dli_fname, "liblithos.so");
}

static int has_hooked_base(const char *symbol)
{
    for (size_t i = 0; i < HOOKED; i++)
        if (!strcmp(hooked[i].base, symbol) || !strcmp(hooked[i].name, symbol))
            return 1;
    return 0;
}

static const int versions[] = {2000, 4000, 7000, 10000, 11030, 12000, 12080, 13000};
static const uint64_t flag_sets[] = {CU_GET_PROC_ADDRESS_DEFAULT, CU_GET_PROC_ADDRESS_LEGACY_STREAM,
                                     CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM};

/* Ask by all routes; the answer for a hooked name is always an exported function of ours, for any other never. */
static void ask(const char *symbol)
{
    proc_v1_fn v1 = (proc_v1_fn)OURS("cuGetProcAddress");
    proc_v2_fn v2 = (proc_v2_fn)OURS("cuGetProcAddress_v2");
    proc_v2_fn v2_thread = (proc_v2_fn)OURS("cuGetProcAddress_v2_ptsz");
    int expect = has_hooked_base(symbol);
    for (size_t v = 0; v < LITHOS_ARRAY_SIZE(versions); v++)
        for (size_t f = 0; f < LITHOS_ARRAY_SIZE(flag_sets); f++) {
            void *p[3] = {NULL, NULL, NULL};
            int status = -1;
            if (v1(symbol, &p[0], versions[v], flag_sets[f]) != CUDA_SUCCESS)
                CHECK(!p[0]);
            CHECK_EQ(v2(symbol, &p[1], versions[v], flag_sets[f], &status), p[1] ? 0 : CUDA_ERROR_NOT_FOUND);
            CHECK_EQ(status, p[1] ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND);
            v2_thread(symbol, &p[2], versions[v], flag_sets[f], NULL);
            for (int i = 0; i < 3; i++)
                if (is_ours(p[i]) != expect && p[i]) {
                    fprintf(stderr, "%s, version %d, flags %d, route %d: %s\n", symbol, versions[v],
                            (int)flag_sets[f], i, expect ? "not ours" : "ours");
                    _exit(1);
                }
        }
}

static void every_route(void)
{
    load_stub();
    for (size_t i = 0; i < HOOKED; i++) {
        CHECK(is_ours(OURS(hooked[i].name)));
        ask(hooked[i].base);
    }
    static const char *const others[] = {
#define LOOKUP(name) #name,
#include "stub/torch_looks_up.def"
#undef LOOKUP
        "cuNoSuchFunction"};
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(others); i++)
        ask(others[i]);
}

static void test_every_route(void **state)
{
    (void)state;
    assert_int_equal(in_child(every_route, NULL, 0), 0);
}

static void *asked(const char *symbol, int version, uint64_t flags)
{
    void *p = NULL;
    CHECK_EQ(((proc_v2_fn)OURS("cuGetProcAddress_v2"))(symbol, &p, version, flags, NULL), CUDA_SUCCESS);
    return p;
}

/* The very function: flavour by flag, variant by version. */
static void right_variant(void)
{
    load_stub();
    CHECK(asked("cuLaunchKernel", 12000, 0) == OURS("cuLaunchKernel"));
    CHECK(asked("cuLaunchKernel", 12000, 2) == OURS("cuLaunchKernel_ptsz"));
    CHECK(asked("cuLaunchKernelEx", 12000, 1) == OURS("cuLaunchKernelEx"));
    CHECK(asked("cuMemsetD8", 3020, 0) == OURS("cuMemsetD8_v2"));
    CHECK(asked("cuMemsetD8", 12000, 2) == OURS("cuMemsetD8_v2_ptds"));
    CHECK(asked("cuMemsetD8", 2000, 0) == OURS("cuMemsetD8"));
    CHECK(asked("cuGetProcAddress", 11030, 0) == OURS("cuGetProcAddress"));
    CHECK(asked("cuGetProcAddress", 12000, 0) == OURS("cuGetProcAddress_v2"));
    CHECK(asked("cuInit", 2000, 2) == OURS("cuInit"));
    CHECK(asked("cuGraphInstantiate", 12000, 0) == OURS("cuGraphInstantiate_v2"));
    CHECK(asked("cuGraphInstantiateWithFlags", 12000, 0) == OURS("cuGraphInstantiateWithFlags"));
    void *p = NULL;
    CHECK_EQ(((proc_v2_fn)OURS("cuGetProcAddress_v2_ptsz"))("cuLaunchKernel", &p, 12000, 0, NULL),
             CUDA_SUCCESS);
    CHECK(p == OURS("cuLaunchKernel_ptsz"));
    CHECK_EQ(((proc_v2_fn)OURS("cuGetProcAddress_v2_ptsz"))("cuLaunchKernel", &p, 12000, 1, NULL),
             CUDA_SUCCESS);
    CHECK(p == OURS("cuLaunchKernel"));
    stub->hidden_launch = 1; /* an address that no exported name has */
    CHECK(asked("cuLaunchKernel", 12000, 0) == OURS("cuLaunchKernel"));
    CHECK(asked("cuLaunchKernel", 12000, 2) == OURS("cuLaunchKernel_ptsz"));
}

static void test_right_variant(void **state)
{
    (void)state;
    assert_int_equal(in_child(right_variant, NULL, 0), 0);
}

/* ---- a tenant without a daemon: LITHOS_GRANT ---- */

static void set_tenant(int gpus, const char *own)
{
    struct lithos_grant grant = {.gpu_count = (uint32_t)gpus};
    static char text[LITHOS_GRANT_TEXT_MAX];
    for (int i = 0; i < gpus; i++) {
        memset(grant.gpus[i].uuid, 0xa0 + i, LITHOS_UUID_BYTES);
        grant.gpus[i].topology = card_h200();
        lithos_tpcset_parse(own, &grant.gpus[i].own);
    }
    CHECK_EQ(lithos_grant_format(&grant, text, sizeof text), 0);
    setenv("LITHOS_TENANT", "1:00112233445566778899aabbccddeeff", 1);
    setenv("LITHOS_SOCKET", "/nonexistent/lithosd.sock", 1);
    setenv("LITHOS_GRANT", text, 1);
}

static const struct lithos_arena *arena;

static const struct lithos_arena *library_arena(void)
{
    const struct lithos_library *library = OURS("lithos_library_marker");
    CHECK(library);
    return library->arena;
}

static uint64_t count_of(enum lithos_counter c)
{
    return lithos_arena_counter(arena, c);
}

static void start_tenant(int gpus, const char *own)
{
    set_tenant(gpus, own);
    load_stub();
    stub->device_count = gpus;
    lithos_tpcset_parse(H200_VALID, &stub->valid);
    arena = library_arena();
}

static CUresult launch(void)
{
    static launch_fn f;
    if (!f)
        f = (launch_fn)OURS("cuLaunchKernel");
    return f((CUfunction)0x20, 8, 1, 1, 32, 1, 1, 0, NULL, NULL, NULL);
}

static int masked_with(const char *text)
{
    struct lithos_tpcset set;
    lithos_tpcset_parse(text, &set);
    return stub->last_masked && lithos_tpcset_equal(&set, &stub->last_tpcs);
}

static void masks_and_counts(void)
{
    start_tenant(1, "9-16,0");
    CHECK_EQ(((init_fn)OURS("cuInit"))(0), 0);
    CHECK_EQ(((init_fn)OURS("cuInit"))(0), 0);
    CHECK_EQ(stub->subscriptions, 1);
    CHECK_EQ(launch(), 0);
    CHECK(masked_with("0,9-16"));
    stub->cluster[0] = 16;
    CHECK_EQ(launch(), 0);
    CHECK(masked_with("0,9-16")); /* it has room there */
    stub->cluster[0] = 1;
    CUlaunchConfig config = {.gridDimX = 4, .gridDimY = 1, .gridDimZ = 1, .blockDimX = 32};
    CHECK_EQ(((CUresult(*)(const CUlaunchConfig *, CUfunction, void **, void **))OURS("cuLaunchKernelEx"))(
                 &config, (CUfunction)0x20, NULL, NULL),
             0);
    CHECK_EQ(
        ((launch_fn)OURS("cuLaunchKernel_ptsz"))((CUfunction)0x20, 1, 1, 1, 32, 1, 1, 0, NULL, NULL, NULL),
        0);
    CHECK_EQ(count_of(LITHOS_COUNTER_LAUNCHES), 4);
    CHECK_EQ(count_of(LITHOS_COUNTER_QMDS), 4);
    CHECK_EQ(count_of(LITHOS_COUNTER_MASKED), 4);
    /* the driver's own kernels */
    CHECK_EQ(((CUresult(*)(CUdeviceptr, unsigned char, size_t))OURS("cuMemsetD8_v2"))(0, 1, 64), 0);
    CHECK_EQ(count_of(LITHOS_COUNTER_DRIVER_QMDS), 1);
    CHECK(masked_with("0,9-16"));
    stub->qmds_per_launch = 2; /* a launch that makes the driver run one of its own as well */
    CHECK_EQ(launch(), 0);
    stub->qmds_per_launch = 1;
    CHECK_EQ(count_of(LITHOS_COUNTER_DRIVER_QMDS), 2);
    /* one that does so before, also where the launch names another handle than the callback */
    stub->own_before = 1;
    CHECK_EQ(launch(), 0);
    CHECK_EQ(count_of(LITHOS_COUNTER_DRIVER_QMDS), 3);
    stub->kernel_handles = 1;
    CHECK_EQ(launch(), 0);
    CHECK_EQ(count_of(LITHOS_COUNTER_DRIVER_QMDS), 4);
    stub->own_before = stub->kernel_handles = 0;
    /* loading code */
    stub->load_uploads = 1;
    CUmodule module;
    CHECK_EQ(((CUresult(*)(CUmodule *, const void *))OURS("cuModuleLoadData"))(&module, NULL), 0);
    CHECK_EQ(count_of(LITHOS_COUNTER_DRIVER_QMDS), 5);
    CHECK(masked_with("0,9-16"));
    /* a graph, three kernels */
    CHECK_EQ(((CUresult(*)(CUgraphExec, CUstream))OURS("cuGraphLaunch"))(NULL, NULL), 0);
    CHECK_EQ(count_of(LITHOS_COUNTER_GRAPH_QMDS), 3);
    CHECK_EQ(count_of(LITHOS_COUNTER_GRAPH_LAUNCHES), 1);
    CHECK(masked_with("0,9-16"));
    stub->empty_grid = 1;
    CHECK_EQ(((CUresult(*)(CUgraphExec, CUstream))OURS("cuGraphLaunch"))(NULL, NULL), 0);
    stub->empty_grid = 0;
    CHECK(!stub->last_masked); /* left alone */
    CHECK_EQ(count_of(LITHOS_COUNTER_GRAPH_QMDS), 3);
    CHECK_EQ(count_of(LITHOS_COUNTER_ESCAPED), 0);
    /* past us, but not past the QMD hook */
    void (*escape)(void) = (void (*)(void))dlsym(dlopen(STUB_PATH, RTLD_NOW | RTLD_NOLOAD), "stub_escape");
    escape();
    CHECK_EQ(count_of(LITHOS_COUNTER_ESCAPED), 1);
    CHECK(masked_with("0,9-16"));
    CHECK_EQ(count_of(LITHOS_COUNTER_UNMASKED), 0);
    CHECK_EQ(count_of(LITHOS_COUNTER_BREACHES), 0);
}

/* Whoever looks for the call that slips past: level debug names it. */
static void escape_is_named(void)
{
    setenv("LITHOS_LOG", "debug", 1);
    masks_and_counts();
}

static void test_masks_and_counts(void **state)
{
    (void)state;
    char said[16384];
    assert_int_equal(in_child(masks_and_counts, said, sizeof said), 0);
    assert_null(strstr(said, "escaped"));
    assert_int_equal(in_child(escape_is_named, said, sizeof said), 0);
    assert_non_null(strstr(said, "a kernel escaped the hooked functions"));
    assert_non_null(strstr(said, "  libcuda.so.580.0.1+0x"));
}

static void breach(void)
{
    start_tenant(1, "0");
    CHECK_EQ(((init_fn)OURS("cuInit"))(0), 0);
    stub->cluster[0] = 8;
    for (int i = 0; i < 3; i++)
        CHECK_EQ(launch(), 0);
    CHECK(stub->last_masked);
    struct lithos_topology card = card_h200();
    CHECK(lithos_topology_has_room(&card, stub->last_tpcs, 8));
    CHECK(lithos_tpcset_has(&stub->last_tpcs, 0));
    CHECK_EQ(count_of(LITHOS_COUNTER_BREACHES), 3);
    stub->cluster[0] = 2;
    CHECK_EQ(launch(), 0);
    CHECK(masked_with("0"));
    CHECK_EQ(count_of(LITHOS_COUNTER_BREACHES), 3);
}

static int occurrences(const char *text, const char *word)
{
    int n = 0;
    for (const char *p = strstr(text, word); p; p = strstr(p + 1, word))
        n++;
    return n;
}

static void test_breach(void **state)
{
    (void)state;
    char said[8192];
    assert_int_equal(in_child(breach, said, sizeof said), 0);
    assert_int_equal(occurrences(said, "has no room in the quota"), 1);
}

static void launch_grid(CUfunction f, unsigned blocks)
{
    CHECK_EQ(((launch_fn)OURS("cuLaunchKernel"))(f, blocks, 1, 1, 32, 1, 1, 0, NULL, NULL, NULL), 0);
}

/* Blocks that wait for each other: with a mask that does not hold them all they would for ever. Here an SM holds two. */
static void together(void)
{
    start_tenant(1, "9-16"); /* 16 SMs */
    CHECK_EQ(((init_fn)OURS("cuInit"))(0), 0);
    CUresult (*cooperative)(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                            CUstream, void **) =
        (CUresult(*)(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                     CUstream, void **))OURS("cuLaunchCooperativeKernel");
    CHECK_EQ(cooperative((CUfunction)0x20, 4, 4, 2, 32, 1, 1, 0, NULL, NULL), 0);
    CHECK(masked_with("9-16"));
    CHECK_EQ(count_of(LITHOS_COUNTER_BREACHES), 0);
    CHECK_EQ(cooperative((CUfunction)0x20, 11, 3, 1, 32, 1, 1, 0, NULL, NULL), 0);
    CHECK(masked_with(H200_VALID));
    CHECK_EQ(count_of(LITHOS_COUNTER_BREACHES), 1);
    CUlaunchAttribute attr = {.id = CU_LAUNCH_ATTRIBUTE_COOPERATIVE, .value.cooperative = 1};
    CUlaunchConfig config = {.gridDimX = 33,
                             .gridDimY = 1,
                             .gridDimZ = 1,
                             .blockDimX = 32,
                             .blockDimY = 1,
                             .blockDimZ = 1,
                             .attrs = &attr,
                             .numAttrs = 1};
    CUresult (*launch_ex)(const CUlaunchConfig *, CUfunction, void **, void **) =
        (CUresult(*)(const CUlaunchConfig *, CUfunction, void **, void **))OURS("cuLaunchKernelEx");
    CHECK_EQ(launch_ex(&config, (CUfunction)0x20, NULL, NULL), 0);
    CHECK(masked_with(H200_VALID));
    attr.value.cooperative = 0;
    CHECK_EQ(launch_ex(&config, (CUfunction)0x20, NULL, NULL), 0);
    CHECK(masked_with("9-16"));
    /* one that does not say so, known by its name */
    launch_grid((CUfunction)0x60, 32);
    CHECK(masked_with("9-16"));
    launch_grid((CUfunction)0x60, 132);
    CHECK(masked_with(H200_VALID));
    launch_grid((CUfunction)0x20, 132);
    CHECK(masked_with("9-16"));
    CHECK_EQ(count_of(LITHOS_COUNTER_BREACHES), 3);
}

static void test_together(void **state)
{
    (void)state;
    char said[8192];
    assert_int_equal(in_child(together, said, sizeof said), 0);
    assert_int_equal(occurrences(said, "blocks wait for each other"), 1);
}

/* Anything odd: the launch goes through as it is, it is counted, and said once. */
static void left_alone(void)
{
    CHECK_EQ(((init_fn)OURS("cuInit"))(0), 0);
    uint8_t before[LITHOS_QMD_BYTES];
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(launch(), 0);
        CHECK(!stub->last_masked);
        if (i)
            CHECK(!memcmp(before, stub->last_qmd, sizeof before));
        memcpy(before, stub->last_qmd, sizeof before);
    }
    CHECK_EQ(count_of(LITHOS_COUNTER_LAUNCHES), 3);
    CHECK_EQ(count_of(LITHOS_COUNTER_MASKED), 0);
}

static void unknown_version(void)
{
    start_tenant(1, "0-3");
    stub->unknown_version = 1;
    left_alone();
    CHECK_EQ(count_of(LITHOS_COUNTER_UNMASKED), 3);
}

static void unknown_capability(void)
{
    start_tenant(1, "0-3");
    stub->cc_major = 42;
    left_alone();
    CHECK_EQ(count_of(LITHOS_COUNTER_UNMASKED), 3);
}

static void odd_params(void)
{
    start_tenant(1, "0-3");
    stub->params_bytes = 0x60;
    left_alone();
    CHECK_EQ(count_of(LITHOS_COUNTER_UNMASKED), 3);
}

static void no_table(void)
{
    start_tenant(1, "0-3");
    stub->no_table = 1;
    left_alone();
    CHECK_EQ(count_of(LITHOS_COUNTER_QMDS), 0);
}

static void short_table(void)
{
    start_tenant(1, "0-3");
    stub->short_table = 1;
    left_alone();
    CHECK_EQ(stub->subscriptions, 0);
}

static void refused(void)
{
    start_tenant(1, "0-3");
    stub->refuse_subscribe = 1;
    left_alone();
}

static void switched_off(void)
{
    setenv("LITHOS_HOOK", "off", 1);
    start_tenant(1, "0-3");
    left_alone();
    CHECK_EQ(stub->subscriptions, 0);
}

static void test_left_alone(void **state)
{
    (void)state;
    static const struct {
        void (*scenario)(void);
        const char *said;
    } cases[] = {
        {unknown_version, "not known"},  {unknown_capability, "not known"},
        {odd_params, "passes 96 bytes"}, {no_table, "has no QMD table"},
        {short_table, "known shape"},    {refused, "refuses the QMD callback"},
        {switched_off, "cannot attach"},
    };
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(cases); i++) {
        char said[8192];
        assert_int_equal(in_child(cases[i].scenario, said, sizeof said), 0);
        assert_int_equal(occurrences(said, cases[i].said), 1);
    }
}

static void pass_through(void)
{
    unsetenv("LITHOS_TENANT");
    load_stub();
    CHECK_EQ(((init_fn)OURS("cuInit"))(0), 0);
    CHECK_EQ(launch(), 0);
    CHECK_EQ(stub->subscriptions, 0);
    CHECK(!stub->last_masked);
    CHECK_EQ(((init_fn)OURS("cuInit"))(1), CUDA_ERROR_INVALID_VALUE); /* the driver's own answers come back */
}

static void test_pass_through(void **state)
{
    (void)state;
    char said[8192];
    assert_int_equal(in_child(pass_through, said, sizeof said), 0);
    assert_string_equal(said, "");
}

static void green(void)
{
    start_tenant(1, "0-3");
    CHECK_EQ(((init_fn)OURS("cuInit"))(0), 0);
    CUresult (*create)(void *, void *, int, unsigned) =
        (CUresult(*)(void *, void *, int, unsigned))OURS("cuGreenCtxCreate");
    CHECK_EQ(create(NULL, NULL, 0, 0), 0);
    stub->green_result = CUDA_ERROR_NOT_SUPPORTED;
    for (int i = 0; i < 3; i++)
        CHECK_EQ(create(NULL, NULL, 0, 0), CUDA_ERROR_NOT_SUPPORTED);
}

static void test_green(void **state)
{
    (void)state;
    char said[8192];
    assert_int_equal(in_child(green, said, sizeof said), 0);
    assert_int_equal(occurrences(said, "lithos run --coarse"), 1);
}

/* ---- what the app is told of the card ---- */

typedef CUresult (*attribute_fn)(int *, int, CUdevice);
typedef CUresult (*block_size_fn)(int *, int *, CUfunction, void *, size_t, int);
typedef CUresult (*block_size_flags_fn)(int *, int *, CUfunction, void *, size_t, int, unsigned);

static int sms_told(CUdevice device)
{
    int value = -1;
    CHECK_EQ(((attribute_fn)OURS("cuDeviceGetAttribute"))(&value, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
                                                          device),
             CUDA_SUCCESS);
    return value;
}

static int grid_told(void)
{
    int grid[2] = {-1, -1}, block = -1;
    CHECK_EQ(((block_size_fn)OURS("cuOccupancyMaxPotentialBlockSize"))(&grid[0], &block, NULL, NULL, 0, 0),
             CUDA_SUCCESS);
    CHECK_EQ(((block_size_flags_fn)OURS("cuOccupancyMaxPotentialBlockSizeWithFlags"))(&grid[1], &block, NULL,
                                                                                      NULL, 0, 0, 1),
             CUDA_SUCCESS);
    CHECK_EQ(block, 256);
    CHECK_EQ(grid[0], grid[1]);
    return grid[0];
}

static void told_of_quota(void)
{
    start_tenant(1, "0-3,9-16,18-21");
    CHECK_EQ(((init_fn)OURS("cuInit"))(0), 0);
    CHECK_EQ(sms_told(0), 32);
    CHECK_EQ(grid_told(), 32 * 4);
    int grid = -7, block, value;
    CHECK_EQ(((block_size_flags_fn)OURS("cuOccupancyMaxPotentialBlockSizeWithFlags"))(&grid, &block, NULL,
                                                                                      NULL, 0, 0, 9),
             CUDA_ERROR_INVALID_VALUE);
    CHECK_EQ(grid, -7);
    /* by the way that the run time takes */
    attribute_fn by_address = (attribute_fn)asked("cuDeviceGetAttribute", 12000, 0);
    CHECK_EQ(by_address(&value, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 0), CUDA_SUCCESS);
    CHECK_EQ(value, 32);
    /* all else is the driver's */
    CHECK_EQ(by_address(&value, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 0), CUDA_SUCCESS);
    CHECK_EQ(value, stub->cc_major);
    CHECK_EQ(by_address(&value, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 0), CUDA_SUCCESS);
    CHECK_EQ(value, 232448);
    value = -7;
    CHECK_EQ(by_address(&value, 9999, 0), CUDA_ERROR_INVALID_VALUE);
    CHECK_EQ(value, -7);
    CHECK_EQ(sms_told(7), 132); /* a GPU that is not in the grant */
    /* fewer than the quota has, as MPS may tell: not more than that */
    lithos_tpcset_parse("0-9", &stub->valid);
    CHECK_EQ(sms_told(0), 20);
}

static void told_of_one_of_two(void)
{
    start_tenant(2, "0-3");
    CHECK_EQ(((init_fn)OURS("cuInit"))(0), 0);
    CHECK_EQ(sms_told(1), 8);
    CHECK_EQ(grid_told(), 132 * 4); /* no context: nobody knows which GPU */
    CHECK_EQ(((CUresult(*)(CUcontext))OURS("cuCtxSetCurrent"))((CUcontext)2), 0);
    CHECK_EQ(grid_told(), 8 * 4);
}

static void told_all(void)
{
    start_tenant(1, getenv("OWN"));
    stub->refuse_subscribe = getenv("REFUSE") != NULL;
    CHECK_EQ(((init_fn)OURS("cuInit"))(0), 0);
    CHECK_EQ(sms_told(0), 132);
    CHECK_EQ(grid_told(), 132 * 4);
}

static void test_told(void **state)
{
    (void)state;
    assert_int_equal(in_child(told_of_quota, NULL, 0), 0);
    assert_int_equal(in_child(told_of_one_of_two, NULL, 0), 0);
    setenv("OWN", H200_VALID, 1); /* the whole card */
    assert_int_equal(in_child(told_all, NULL, 0), 0);
    setenv("OWN", "0-3,9-16,18-21", 1);
    assert_int_not_equal(in_child(told_all, NULL, 0), 0);
    setenv("REFUSE", "1", 1); /* the quota is not held */
    assert_int_equal(in_child(told_all, NULL, 0), 0);
    setenv("LITHOS_SM_COUNT", "quota", 1);
    assert_int_not_equal(in_child(told_all, NULL, 0), 0);
    unsetenv("REFUSE");
    setenv("LITHOS_SM_COUNT", "full", 1);
    assert_int_equal(in_child(told_all, NULL, 0), 0);
    setenv("LITHOS_SM_COUNT", "half", 1);
    char said[8192];
    assert_int_equal(in_child(told_of_quota, said, sizeof said), 0);
    assert_int_equal(occurrences(said, "LITHOS_SM_COUNT must be quota or full"), 1);
    unsetenv("LITHOS_SM_COUNT");
    unsetenv("OWN");
}

/* ---- several GPUs ---- */

static void two_gpus(void)
{
    start_tenant(2, "0-3");
    CHECK_EQ(((init_fn)OURS("cuInit"))(0), 0);
    CUresult (*set)(CUcontext) = (CUresult(*)(CUcontext))OURS("cuCtxSetCurrent");
    CHECK_EQ(launch(), 0); /* no context: nobody knows which GPU */
    CHECK(!stub->last_masked);
    CHECK_EQ(count_of(LITHOS_COUNTER_UNMASKED), 1);
    CHECK_EQ(set((CUcontext)2), 0);
    CHECK_EQ(launch(), 0);
    CHECK(masked_with("0-3"));
    CHECK_EQ(((CUresult(*)(CUgraphExec, CUstream))OURS("cuGraphLaunch"))(NULL, NULL), 0);
    CHECK(masked_with("0-3")); /* a set that is good on either card */
    CHECK_EQ(
        ((CUresult(*)(void *, unsigned, unsigned))OURS("cuLaunchCooperativeKernelMultiDevice"))(NULL, 2, 0),
        0);
    CHECK_EQ(count_of(LITHOS_COUNTER_LAUNCHES), 4);
    CHECK_EQ(count_of(LITHOS_COUNTER_DRIVER_QMDS), 0);
    CHECK_EQ(count_of(LITHOS_COUNTER_ESCAPED), 0);
}

static void test_two_gpus(void **state)
{
    (void)state;
    assert_int_equal(in_child(two_gpus, NULL, 0), 0);
}

/* ---- injection: the app holds the driver without us ---- */

static void injected(void)
{
    set_tenant(1, "9-16");
    setenv("CUDA_INJECTION64_PATH", LIBLITHOS_PATH, 1);
    unsetenv("LITHOS_LIBCUDA");
    void *driver = dlopen(STUB_PATH, RTLD_NOW | RTLD_LOCAL);
    CHECK(driver);
    stub = dlsym(driver, STUB_CONTROL);
    stub->init_delay_us = 20000;
    lithos_tpcset_parse(H200_VALID, &stub->valid);
    CHECK_EQ(((init_fn)dlsym(driver, "cuInit"))(0), 0);
    CHECK_EQ(stub->subscriptions, 1);
    launch_fn direct = (launch_fn)dlsym(driver, "cuLaunchKernel");
    for (int i = 0; i < 400 && !stub->last_masked; i++) { /* masks follow within milliseconds */
        usleep(5000);
        CHECK_EQ(direct((CUfunction)0x20, 8, 1, 1, 32, 1, 1, 0, NULL, NULL, NULL), 0);
    }
    CHECK(masked_with("9-16"));
    lithos_lib = dlopen(LIBLITHOS_PATH, RTLD_NOW | RTLD_NOLOAD);
    arena = library_arena();
    CHECK(count_of(LITHOS_COUNTER_ESCAPED) >= 1);
    CHECK_EQ(count_of(LITHOS_COUNTER_LAUNCHES), 0);
}

/* Both routes at once, as `lithos run` sets them: one subscription. */
static void preloaded_and_injected(void)
{
    setenv("CUDA_INJECTION64_PATH", LIBLITHOS_PATH, 1);
    start_tenant(1, "9-16");
    CHECK_EQ(((init_fn)OURS("cuInit"))(0), 0);
    CHECK_EQ(stub->subscriptions, 1);
    CHECK_EQ(launch(), 0);
    CHECK(masked_with("9-16"));
    CHECK_EQ(count_of(LITHOS_COUNTER_ESCAPED), 0);
}

static void test_injection(void **state)
{
    (void)state;
    assert_int_equal(in_child(injected, NULL, 0), 0);
    assert_int_equal(in_child(preloaded_and_injected, NULL, 0), 0);
}

/* ---- cost ---- */

static double launch_cost_ns(launch_fn f)
{
    double best = 1e9;
    for (int round = 0; round < 20; round++) {
        uint64_t start = lithos_now_ns();
        for (int i = 0; i < 2000; i++)
            f((CUfunction)0x20, 8, 1, 1, 32, 1, 1, 0, NULL, NULL, NULL);
        best = LITHOS_MIN(best, (double)(lithos_now_ns() - start) / 2000);
    }
    return best;
}

static void cost(void)
{
    start_tenant(1, "9-16");
    void *driver = dlopen(STUB_PATH, RTLD_NOW | RTLD_NOLOAD);
    launch_fn direct = (launch_fn)dlsym(driver, "cuLaunchKernel"), ours = (launch_fn)OURS("cuLaunchKernel");
    double bare = launch_cost_ns(direct);
    CHECK_EQ(((init_fn)OURS("cuInit"))(0), 0);
    double hooked_ns = launch_cost_ns(ours);
    printf("added to a launch: %.0f ns (bare %.0f ns, with LithOS %.0f ns)\n", hooked_ns - bare, bare,
           hooked_ns);
    CHECK(LITHOS_SANITIZED || hooked_ns - bare < 1000);
}

static void test_cost(void **state)
{
    (void)state;
    assert_int_equal(in_child(cost, NULL, 0), 0);
}

int main(void)
{
    unsetenv("LITHOS_TENANT");
    unsetenv("LITHOS_HOOK");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_route),
        cmocka_unit_test(test_right_variant),
        cmocka_unit_test(test_masks_and_counts),
        cmocka_unit_test(test_breach),
        cmocka_unit_test(test_together),
        cmocka_unit_test(test_left_alone),
        cmocka_unit_test(test_pass_through),
        cmocka_unit_test(test_green),
        cmocka_unit_test(test_told),
        cmocka_unit_test(test_two_gpus),
        cmocka_unit_test(test_injection),
        cmocka_unit_test(test_cost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
