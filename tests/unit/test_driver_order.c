/* The list of what each function has to do with order, and the way of a call to whoever keeps the queues, over the stub driver. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "driver/gate.h"
#include "driver/hooks.h"
#include "driver/order.h"
#include "driver/qmd_hook.h"
#include "stub/hook_client.h"
#include "stub/in_child.h"

/* ---- a client that keeps no queues, and notes what it is asked ---- */

static _Atomic uint64_t counters[LITHOS_COUNT_MAX];
static const _Atomic uint32_t watch, observe;

static struct {
    uint32_t function;
    uintptr_t args[LITHOS_ORDER_WORDS];
    int calls, launches;
    bool done; /* what it answers */
    CUresult result, error;
    struct lithos_launch launch;
} asked;

static bool on_call(uint32_t function, const struct lithos_order_row *row, const uintptr_t *args,
                    CUresult *ret_result)
{
    assert_ptr_equal(row, &lithos_order_rows[function]);
    asked.function = function;
    memcpy(asked.args, args, sizeof asked.args[0] * (row->entry ? LITHOS_ORDER_WORDS : 6));
    asked.calls++;
    if (asked.done)
        *ret_result = asked.result;
    return asked.done;
}

static bool on_launch(uint32_t function, const struct lithos_launch *launch, CUresult *ret_result)
{
    asked.function = function;
    asked.launch = *launch;
    asked.launches++;
    if (asked.done)
        *ret_result = asked.result;
    return asked.done;
}

static CUresult error_of_before(void)
{
    return asked.error;
}

static void context_ends(CUcontext ctx, CUdevice device)
{
    (void)ctx, (void)device;
}

static void context_ended(CUcontext ctx, CUdevice device, bool ended)
{
    (void)ctx, (void)device, (void)ended;
}

static void graph_ended(uint64_t graph)
{
    (void)graph;
}

static const struct lithos_hook_observer observer = {.observe = &observe,
                                                     .context_ends = context_ends,
                                                     .context_ended = context_ended,
                                                     .graph_ended = graph_ended};
static const struct lithos_hook_order order = {
    .call = on_call, .launch = on_launch, .error = error_of_before};
const struct lithos_hook_client lithos_hook_client = HOOK_CLIENT(counters, &watch, &observer, &order);

/* ---- the list ---- */

static int hook_of(enum lithos_export e)
{
    for (int i = 0; i < LITHOS_HOOK_ID_MAX; i++)
        if (lithos_hook_rows[i].export == e)
            return i;
    return -1;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

/* Every function of the driver has its line, and a way on which the line is kept. */
static void test_nothing_is_missing(void **state)
{
    (void)state;
    int missing = 0;
    for (int e = 0; e < LITHOS_EXPORT_MAX; e++) {
        const struct lithos_order_row *row = &lithos_order_rows[e];
        const char *name = lithos_export_name((enum lithos_export)e);
        bool hooked = hook_of((enum lithos_export)e) >= 0;
        bool per_thread = ends_with(name, "_ptsz") || ends_with(name, "_ptds");
        const char *wrong =
            row->act == LITHOS_ORDER_MISSING   ? "is not in order.def"
            : row->act == LITHOS_ORDER_NOTHING ? NULL
            : hooked == row->entry             ? "has two ways, or none"
            : row->per_thread != per_thread    ? "has another default stream"
            : hooked && lithos_hook_rows[hook_of((enum lithos_export)e)].per_thread != per_thread
                ? "has another default stream in hooks.def"
                : NULL;
        if (wrong)
            print_error("%s %s\n", name, wrong);
        missing += wrong != NULL;
    }
    assert_int_equal(missing, 0);
}

/* Names that speak of work or of an end are not taken for harmless, but for those that are known to be. */
static void test_names_that_speak(void **state)
{
    static const char *const words[] = {"Async",       "Launch",      "Memcpy",   "Memset",     "MemFree",
                                        "Destroy",     "Synchronize", "Unload",   "WaitEvent",  "RecordEvent",
                                        "EventRecord", "Value32",     "Value64",  "BatchMemOp", "Unmap",
                                        "Unregister",  "Capture",     "Callback", "HostFunc",   "SetLimit"};
    static const char *const known[] = {
        "cuDestroyExternalSemaphore", /* the driver keeps what streams still use */
        "cuGraphDestroy",
        "cuGraphDestroyNode",
        "cuLinkDestroy", /* nothing that can be launched */
        "cuDeviceRegisterAsyncNotification",
        "cuDeviceUnregisterAsyncNotification",
        "cuLogsRegisterCallback",
        "cuLogsUnregisterCallback",
        "cuThreadExchangeStreamCaptureMode",
        "cuStreamIsCapturing",
        "cuStreamGetCaptureInfo",
        "cuStreamUpdateCaptureDependencies",
        "cuGraphAddMem",
        "cuGraphMem",
        "cuGraphEventRecordNodeGetEvent",
        "cuGraphAddBatchMemOpNode",
        "cuGraphBatchMemOpNode",
    };
    int wrong = 0;
    (void)state;
    for (int e = 0; e < LITHOS_EXPORT_MAX; e++) {
        const char *name = lithos_export_name((enum lithos_export)e);
        bool speaks = false, harmless = false;
        for (size_t i = 0; i < LITHOS_ARRAY_SIZE(words); i++)
            speaks |= strstr(name, words[i]) != NULL;
        for (size_t i = 0; i < LITHOS_ARRAY_SIZE(known); i++)
            harmless |= !strncmp(name, known[i], strlen(known[i]));
        if (speaks && !harmless && lithos_order_rows[e].act == LITHOS_ORDER_NOTHING) {
            print_error("%s: has it really nothing to do with order?\n", name);
            wrong++;
        }
    }
    assert_int_equal(wrong, 0);
}

/* What a queued call must name: its stream, and few enough words to be kept. */
static void test_rows_hold_together(void **state)
{
    (void)state;
    for (int e = 0; e < LITHOS_EXPORT_MAX; e++) {
        const struct lithos_order_row *row = &lithos_order_rows[e];
        if (row->act == LITHOS_ORDER_QUEUE && row->what != LITHOS_ORDER_FORM_LAUNCH) {
            assert_in_range(row->arguments, 2, 7);
            assert_in_range(row->stream, 0, row->arguments - 1);
        }
        if (row->act == LITHOS_ORDER_DRAIN && row->what == LITHOS_ORDER_SCOPE_STREAM)
            assert_true(row->stream >= 0 || row->stream == LITHOS_ORDER_STREAM_DEFAULT);
        if (row->entry) {
            const char *name = lithos_export_name((enum lithos_export)e);
            const char *base = lithos_export_name((enum lithos_export)row->base);
            assert_int_equal(strncmp(name, base, strlen(base)), 0);
        }
    }
    assert_int_equal(lithos_order_rows[LITHOS_EXPORT_cuMemPrefetchAsync_v2].stream, 4);
    assert_int_equal(lithos_order_rows[LITHOS_EXPORT_cuStreamWaitEvent].stream, 0);
}

/* ---- the way ---- */

static void start(void)
{
    setenv("LITHOS_LIBCUDA", STUB_PATH, 1);
    void *handle = dlopen(STUB_PATH, RTLD_NOW | RTLD_LOCAL);
    CHECK(handle);
    stub = dlsym(handle, STUB_CONTROL);
    lithos_hook_on = true;
}

#define ENTRY(name) lithos_export_address(LITHOS_EXPORT_##name)

static void entries(void)
{
    start();
    int (*bias)(uintptr_t, float) = (int (*)(uintptr_t, float))ENTRY(cuTexRefSetMipmapLevelBias);
    CHECK(bias(70, 1.5f) == 70 && stub->last_float == 1.5f);
    CHECK_EQ(asked.calls, 0); /* no queues */
    lithos_order_state = 1;
    CHECK(bias(71, 2.5f) == 71 && stub->last_float == 2.5f);
    CHECK(asked.calls == 1 && asked.args[0] == 71);
    CHECK_EQ(asked.function, LITHOS_EXPORT_cuTexRefSetMipmapLevelBias);
    /* eight words, two of them on the stack; the stub's answer is its number */
    typedef int (*eight_fn)(uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t,
                            uintptr_t);
    eight_fn prefetch = (eight_fn)ENTRY(cuMemPrefetchBatchAsync);
    CHECK_EQ(prefetch(1, 2, 3, 4, 5, 6, 7, 8), STUB_RESULT_BASE + LITHOS_EXPORT_cuMemPrefetchBatchAsync);
    for (uintptr_t i = 0; i < 8; i++)
        CHECK_EQ(asked.args[i], i + 1);
    /* answered without the driver */
    asked.done = true;
    asked.result = CUDA_ERROR_NOT_READY;
    CHECK_EQ(prefetch(8, 7, 6, 5, 4, 3, 2, 1), CUDA_ERROR_NOT_READY);
    CHECK(bias(72, 3.5f) == CUDA_ERROR_NOT_READY && stub->last_float == 2.5f);
    /* what a queue's own thread calls is not asked about */
    struct lithos_issue issue = {0};
    int calls = asked.calls;
    lithos_order_issue = &issue;
    CHECK(bias(73, 4.5f) == 73 && stub->last_float == 4.5f && asked.calls == calls);
    lithos_order_issue = NULL;
    /* in 16 byte steps, as the ABI wants it for vector registers */
    CHECK_EQ(((int (*)(uintptr_t))ENTRY(cuStreamQuery))(5), CUDA_ERROR_NOT_READY);
    CHECK(asked.function == LITHOS_EXPORT_cuStreamQuery && asked.args[0] == 5);
}

static void wrappers(void)
{
    typedef CUresult (*launch_fn)(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                                  unsigned, CUstream, void **, void **);
    start();
    launch_fn launch = (launch_fn)ENTRY(cuLaunchKernel), per_thread = (launch_fn)ENTRY(cuLaunchKernel_ptsz);
    CUresult (*set)(CUdeviceptr, unsigned, size_t, uintptr_t) =
        (CUresult(*)(CUdeviceptr, unsigned, size_t, uintptr_t))ENTRY(cuMemsetD32Async);
    CUresult (*batch)(uintptr_t, ...) = (CUresult(*)(uintptr_t, ...))ENTRY(cuMemcpyBatchAsync);
    CUresult (*wait)(uintptr_t) = (CUresult(*)(uintptr_t))ENTRY(cuStreamSynchronize);
    lithos_order_state = 1;
    CHECK_EQ(launch((CUfunction)0x20, 2, 3, 4, 32, 1, 1, 8, (CUstream)9, NULL, NULL), CUDA_SUCCESS);
    CHECK(asked.launches == 1 && stub->launches == 1 && asked.function == LITHOS_EXPORT_cuLaunchKernel);
    CHECK(asked.launch.grid[2] == 4 && asked.launch.stream == (CUstream)9 && asked.launch.shared_bytes == 8);
    CHECK_EQ(per_thread((CUfunction)0x20, 1, 1, 1, 32, 1, 1, 0, NULL, NULL, NULL), CUDA_SUCCESS);
    CHECK(asked.launch.stream == CU_STREAM_PER_THREAD && stub->launches == 2);
    asked.done = true;
    CHECK_EQ(launch((CUfunction)0x20, 2, 3, 4, 32, 1, 1, 8, (CUstream)9, NULL, NULL), CUDA_SUCCESS);
    CHECK(asked.launches == 3 && stub->launches == 2); /* kept */
    CHECK_EQ(set(0x1000, 7, 64, 9), CUDA_SUCCESS);
    CHECK(asked.function == LITHOS_EXPORT_cuMemsetD32Async && asked.args[1] == 7 && asked.args[3] == 9);
    CHECK_EQ(batch(1, 2ul, 3ul, 4ul, 5ul, 6ul, 7ul, 8ul, 9ul), CUDA_SUCCESS);
    CHECK(asked.function == LITHOS_EXPORT_cuMemcpyBatchAsync && stub->last_batch[0] == 0);
    asked.done = false;
    CHECK_EQ(batch(1, 2ul, 3ul, 4ul, 5ul, 6ul, 7ul, 8ul, 9ul), CUDA_SUCCESS);
    CHECK_EQ(stub->last_batch[8], 9);
    /* a wait returns what went wrong before it */
    CHECK_EQ(wait(9), CUDA_SUCCESS);
    asked.error = CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
    CHECK_EQ(wait(9), CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES);
    lithos_order_state = 0;
    CHECK_EQ(wait(9), CUDA_SUCCESS);
    /* nothing is asked of functions that have nothing to do with order */
    int calls = asked.calls;
    lithos_order_state = 1;
    CUmodule module;
    CHECK_EQ(((CUresult(*)(CUmodule *, const void *))ENTRY(cuModuleLoadData))(&module, NULL), CUDA_SUCCESS);
    CHECK_EQ(asked.calls, calls);
}

/* A launch under a gate of its own goes where that says, others where the quota says. */
static void gates(void)
{
    struct lithos_topology topology = {.sms_per_tpc = 2, .gpc_stride = 9, .gpc_count = 8};
    struct lithos_tpcset lent, own, all = {{0x3ffff, 0}};
    struct lithos_gate gate;
    start();
    topology.valid = all;
    lithos_tpcset_parse("0-5", &own);
    lithos_tpcset_parse("0-5,9-12", &lent);
    CHECK_EQ(((CUresult(*)(unsigned))ENTRY(cuInit))(0), CUDA_SUCCESS);
    struct lithos_hook_quota quota = {.present = true, .topology = topology, .own = own};
    CHECK_EQ(lithos_hook_set_quotas(&quota, 1), 0);
    CHECK_EQ(lithos_gate_build(&topology, lent, &gate), 0);
    CUresult (*launch)(uintptr_t, ...) = (CUresult(*)(uintptr_t, ...))ENTRY(cuLaunchKernel);
    struct lithos_issue issue = {.gate = &gate};
    lithos_order_issue = &issue;
    CHECK_EQ(launch(0x20, 1ul, 1ul, 1ul, 32ul, 1ul, 1ul, 0ul, 0ul, 0ul, 0ul), CUDA_SUCCESS);
    CHECK(stub->last_masked && lithos_tpcset_equal(&stub->last_tpcs, &lent));
    lithos_order_issue = NULL;
    CHECK_EQ(launch(0x20, 1ul, 1ul, 1ul, 32ul, 1ul, 1ul, 0ul, 0ul, 0ul, 0ul), CUDA_SUCCESS);
    CHECK(stub->last_masked && lithos_tpcset_equal(&stub->last_tpcs, &own));
}

static void test_entries(void **state)
{
    (void)state;
    assert_int_equal(in_child(entries, NULL, 0), 0);
}

static void test_wrappers(void **state)
{
    (void)state;
    assert_int_equal(in_child(wrappers, NULL, 0), 0);
}

static void test_gates(void **state)
{
    (void)state;
    assert_int_equal(in_child(gates, NULL, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_missing), cmocka_unit_test(test_names_that_speak),
        cmocka_unit_test(test_rows_hold_together), cmocka_unit_test(test_entries),
        cmocka_unit_test(test_wrappers),           cmocka_unit_test(test_gates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
