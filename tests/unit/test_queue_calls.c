/* What each line of order.def says is what happens: with kernels queued, every function of the driver is called, and it takes its place
 * behind them, waits for them, or is made at once. */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "queue_rig.h"
#include "stub/in_child.h"
#include "tenant/attach.h"
#include "tenant/observe.h"

/* Functions with a way of their own, which they are tested on elsewhere (test_driver_hooks, test_driver_exports). */
static bool apart(uint32_t e)
{
    switch (e) {
    case LITHOS_EXPORT_cuInit:
    case LITHOS_EXPORT_cuGetExportTable:
    case LITHOS_EXPORT_cuGetProcAddress:
    case LITHOS_EXPORT_cuGetProcAddress_v2:
    case LITHOS_EXPORT_cuGetProcAddress_v2_ptsz:
        return true;
    default:
        return false;
    }
}

/* ---- arguments that may be looked at: memory of zeros, or what a form asks for ---- */

static _Alignas(64) unsigned char zeros[4096];
static _Alignas(64) unsigned char copy_2d[sizeof(CUDA_MEMCPY2D)], copy_3d[sizeof(CUDA_MEMCPY3D)];
static CUlaunchConfig config;

static void at(unsigned char *to, size_t offset, int value)
{
    memcpy(to + offset, &value, sizeof value);
}

static void fill_structures(void)
{
    memset(zeros, 0, sizeof zeros);
    memset(copy_2d, 0x11, sizeof copy_2d);
    memset(copy_3d, 0x11, sizeof copy_3d);
    at(copy_2d, offsetof(CUDA_MEMCPY2D, srcMemoryType), CU_MEMORYTYPE_DEVICE);
    at(copy_2d, offsetof(CUDA_MEMCPY2D, dstMemoryType), CU_MEMORYTYPE_DEVICE);
    at(copy_3d, offsetof(CUDA_MEMCPY3D, srcMemoryType), CU_MEMORYTYPE_DEVICE);
    at(copy_3d, offsetof(CUDA_MEMCPY3D, dstMemoryType), CU_MEMORYTYPE_DEVICE);
    config = (CUlaunchConfig){1, 1, 1, 32, 1, 1, 0, RIG_STREAM, NULL, 0};
}

static void fill_arguments(uint32_t e, uintptr_t a[LITHOS_ORDER_WORDS])
{
    const struct lithos_order_row *row = &lithos_order_rows[e];
    fill_structures();
    for (unsigned i = 0; i < LITHOS_ORDER_WORDS; i++)
        a[i] = (uintptr_t)zeros;
    bool queued = row->act == LITHOS_ORDER_QUEUE;
    switch (queued ? (enum lithos_order_form)row->what : LITHOS_ORDER_FORM_MAX) {
    case LITHOS_ORDER_FORM_LAUNCH:
        if (row->stream == LITHOS_ORDER_STREAM_CONFIG) {
            a[0] = (uintptr_t)&config;
            a[1] = (uintptr_t)RIG_FUNCTION;
            a[2] = a[3] = 0;
            return;
        }
        a[0] = (uintptr_t)RIG_FUNCTION;
        for (unsigned i = 1; i < 7; i++)
            a[i] = 1;
        a[7] = a[9] = a[10] = 0;
        break;
    case LITHOS_ORDER_FORM_COPY:
        a[0] = 0x100000;
        a[1] = 0x200000;
        a[2] = 64;
        break;
    case LITHOS_ORDER_FORM_COPY_2D:
        a[0] = (uintptr_t)copy_2d;
        break;
    case LITHOS_ORDER_FORM_COPY_3D:
        a[0] = (uintptr_t)copy_3d;
        break;
    case LITHOS_ORDER_FORM_HOST:
        a[3] = 0;
        break;
    case LITHOS_ORDER_FORM_RECORD:
        a[0] = 0x440000 + e * 64; /* each its own */
        a[2] = 0;
        break;
    case LITHOS_ORDER_FORM_WAIT:
        a[1] = 0x440000 + e * 64;
        a[2] = 0;
        break;
    case LITHOS_ORDER_FORM_WORDS:
    case LITHOS_ORDER_FORM_WAIT_VALUE:
        for (unsigned i = 0; i < row->arguments; i++)
            a[i] = 0x5000 + i;
        break;
    default:
        break;
    }
    if (row->stream >= 0)
        a[row->stream] = (uintptr_t)RIG_STREAM;
}

/* ---- a call on another thread, which may have to wait ---- */

struct call {
    uint32_t function;
    uintptr_t args[LITHOS_ORDER_WORDS];
    atomic_bool returned;
    CUresult result;
};

static void *call_thread(void *arg)
{
    struct call *c = arg;
    c->result = lithos_order_ours((enum lithos_export)c->function, c->args);
    atomic_store(&c->returned, true);
    return NULL;
}

/* Two kernels that are held: of the default stream, and behind it one of RIG_STREAM. */
static void queue_two(void)
{
    rig_hold();
    CHECK_EQ(rig_launch(NULL), CUDA_SUCCESS);
    CHECK_EQ(rig_launch(RIG_STREAM), CUDA_SUCCESS);
    CHECK_EQ(lithos_queue_depth(atomic_load(&lithos_queue)), 2);
    rig_forget_calls();
}

static void begin(void)
{
    rig_open("always");
    rig_let_go();
    CHECK_EQ(rig_launch(RIG_STREAM), CUDA_SUCCESS); /* from now on it is known */
    rig_settle();
}

static void complain(uint32_t e, const char *what)
{
    fprintf(stderr, "%s: %s\n", lithos_export_name((enum lithos_export)e), what);
    _exit(1);
}

/* ---- each kind ---- */

/* At once, whatever is queued. */
static void nothing_waits(uint32_t e)
{
    uintptr_t args[LITHOS_ORDER_WORDS];
    fill_arguments(e, args);
    queue_two();
    lithos_order_ours((enum lithos_export)e, args);
    if (rig_find(e) < 0)
        complain(e, "was not called");
    if (rig_find(LITHOS_EXPORT_cuLaunchKernel) >= 0)
        complain(e, "something queued went before it");
    rig_let_go();
    rig_settle();
}

static void all_nothing(void)
{
    begin();
    for (uint32_t e = 0; e < LITHOS_EXPORT_MAX; e++)
        if (lithos_order_rows[e].act == LITHOS_ORDER_NOTHING && !apart(e))
            nothing_waits(e);
}

/* It returns, and the driver is called behind what was queued before, with what the app gave then. */
static void takes_its_place(uint32_t e)
{
    const struct lithos_order_row *row = &lithos_order_rows[e];
    uintptr_t args[LITHOS_ORDER_WORDS];
    fill_arguments(e, args);
    CHECK_EQ(lithos_order_ours((enum lithos_export)e, args),
             CUDA_SUCCESS); /* of a kind that is checked first */
    rig_settle();
    queue_two();
    CHECK_EQ(lithos_order_ours((enum lithos_export)e, args), CUDA_SUCCESS);
    if (rig_find(e) >= 0)
        complain(e, "did not wait for its turn");
    memset(copy_2d, 0xee, sizeof copy_2d);
    memset(copy_3d, 0xee, sizeof copy_3d);
    memset(&config, 0xee, sizeof config);
    rig_let_go();
    rig_settle();
    const struct rig_call *calls;
    int place = rig_find(e), kernels = 0;
    if (place < 0)
        complain(e, "was never issued");
    rig_calls(&calls);
    for (int i = 0; i < place; i++)
        kernels += calls[i].function == LITHOS_EXPORT_cuLaunchKernel;
    if (kernels != 2 && e != LITHOS_EXPORT_cuLaunchKernel)
        complain(e, "overtook what was queued before");
    if (calls[place].by_app)
        complain(e, "was not made by the dispatcher");
    bool by_structure = row->what == LITHOS_ORDER_FORM_COPY_2D || row->what == LITHOS_ORDER_FORM_COPY_3D;
    for (unsigned i = by_structure; row->what != LITHOS_ORDER_FORM_LAUNCH && i < row->arguments; i++)
        if (calls[place].args[i] != args[i])
            complain(e, "was called with other arguments");
    if (by_structure && calls[place].pointed[0] != 0x11)
        complain(e, "was called with a structure that is the app's again");
}

static void all_queue(void)
{
    int n = 0;
    begin();
    for (uint32_t e = 0; e < LITHOS_EXPORT_MAX; e++)
        if (lithos_order_rows[e].act == LITHOS_ORDER_QUEUE) {
            takes_its_place(e);
            n++;
        }
    CHECK(n > 60);
}

/* The app's thread waits until what was queued has been issued, then makes the call itself. */
static void is_drained_for(uint32_t e)
{
    struct queue *q = atomic_load(&lithos_queue);
    struct call c = {.function = e};
    pthread_t thread;
    fill_arguments(e, c.args);
    queue_two();
    CHECK_EQ(pthread_create(&thread, NULL, call_thread, &c), 0);
    while (!atomic_load(&q->waiters) && !atomic_load(&c.returned) && rig_find(e) < 0)
        sched_yield();
    if (atomic_load(&c.returned) || rig_find(e) >= 0)
        complain(e, "did not wait");
    rig_let_go();
    pthread_join(thread, NULL);
    rig_settle();
    const struct rig_call *calls;
    int place = rig_find(e), kernels = 0;
    if (place < 0)
        complain(e, "was not made");
    rig_calls(&calls);
    for (int i = 0; i < place; i++)
        kernels += calls[i].function == LITHOS_EXPORT_cuLaunchKernel;
    /* A thread's own default stream waits for the common one alone. */
    const struct lithos_order_row *row = &lithos_order_rows[e];
    bool own = row->stream == LITHOS_ORDER_STREAM_DEFAULT && row->per_thread;
    if (kernels < 2 - own)
        complain(e, "did not wait for all");
}

static bool drains(uint32_t e)
{
    const struct lithos_order_row *row = &lithos_order_rows[e];
    return (row->act == LITHOS_ORDER_DRAIN || row->act == LITHOS_ORDER_UNLOAD ||
            row->act == LITHOS_ORDER_ATTRIBUTE || row->act == LITHOS_ORDER_STREAM_DESTROY) &&
           !apart(e);
}

static void all_drain(void)
{
    int n = 0;
    begin();
    for (uint32_t e = 0; e < LITHOS_EXPORT_MAX; e++) {
        if (!drains(e))
            continue;
        is_drained_for(e);
        n++;
        CHECK_EQ(rig_launch(RIG_STREAM), CUDA_SUCCESS); /* what has gone is known again */
        rig_settle();
    }
    CHECK(n > 150);
}

/* ---- what is answered or has a way of its own ---- */

static CUresult with(uint32_t e, uintptr_t a, uintptr_t b, uintptr_t c)
{
    const uintptr_t args[LITHOS_ORDER_WORDS] = {a, b, c};
    return lithos_order_ours((enum lithos_export)e, args);
}
#define CALL(name, a, b, c) with(LITHOS_EXPORT_##name, (uintptr_t)(a), (uintptr_t)(b), (uintptr_t)(c))

static void answers(void)
{
    const uintptr_t event = 0x440040, other = 0x440080;
    float ms = 0;
    begin();
    queue_two();
    CHECK_EQ(CALL(cuStreamQuery, RIG_STREAM, 0, 0), CUDA_ERROR_NOT_READY);
    CHECK_EQ(CALL(cuStreamQuery, 0, 0, 0), CUDA_ERROR_NOT_READY);
    CHECK_EQ(CALL(cuStreamQuery, 0x9990, 0, 0), CUDA_SUCCESS); /* another stream's answer is the driver's */
    CHECK_EQ(CALL(cuEventQuery, event, 0, 0), CUDA_SUCCESS);
    CHECK_EQ(CALL(cuEventRecord, event, RIG_STREAM, 0), CUDA_SUCCESS);
    CHECK_EQ(CALL(cuEventQuery, event, 0, 0), CUDA_ERROR_NOT_READY);
    CHECK_EQ(CALL(cuEventElapsedTime, &ms, event, other), CUDA_ERROR_NOT_READY);
    CHECK_EQ(CALL(cuEventElapsedTime, &ms, other, event), CUDA_ERROR_NOT_READY);
    CHECK_EQ(CALL(cuEventElapsedTime, &ms, other, other), CUDA_SUCCESS);
    /* It goes when all that names it has been issued. */
    CHECK_EQ(CALL(cuStreamWaitEvent, RIG_STREAM, event, 0), CUDA_SUCCESS);
    CHECK_EQ(CALL(cuEventDestroy_v2, event, 0, 0), CUDA_SUCCESS);
    CHECK_EQ(rig_find(LITHOS_EXPORT_cuEventDestroy_v2), -1);
    rig_let_go();
    rig_settle();
    CHECK(rig_find(LITHOS_EXPORT_cuEventRecord) < rig_find(LITHOS_EXPORT_cuStreamWaitEvent));
    CHECK(rig_find(LITHOS_EXPORT_cuStreamWaitEvent) < rig_find(LITHOS_EXPORT_cuEventDestroy_v2));
    CHECK_EQ(CALL(cuStreamQuery, RIG_STREAM, 0, 0), CUDA_SUCCESS);
}

/* A wait waits for the record it is for, not for an earlier or a later one, whatever streams do. */
static void versions(void)
{
    const uintptr_t event = 0x440040;
    const struct rig_call *calls;
    static const uint32_t want[] = {LITHOS_EXPORT_cuEventRecord, LITHOS_EXPORT_cuStreamWaitEvent,
                                    LITHOS_EXPORT_cuEventRecord, LITHOS_EXPORT_cuStreamWaitEvent};
    begin();
    rig_hold();
    CHECK_EQ(rig_launch(RIG_STREAM), CUDA_SUCCESS);
    rig_forget_calls();
    for (uintptr_t i = 0; i < 2; i++) {
        CHECK_EQ(CALL(cuEventRecord, event, RIG_STREAM, 0), CUDA_SUCCESS);
        CHECK_EQ(CALL(cuStreamWaitEvent, 0x5550 + 16 * i, event, 0), CUDA_SUCCESS);
    }
    /* An event is looked at when it is met, which must not spoil what somebody captures. */
    CHECK(rig_find(LITHOS_EXPORT_cuThreadExchangeStreamCaptureMode) >= 0);
    CHECK(rig_find(LITHOS_EXPORT_cuThreadExchangeStreamCaptureMode) < rig_find(LITHOS_EXPORT_cuEventQuery));
    rig_let_go();
    rig_settle();
    size_t n = rig_calls(&calls), met = 0;
    for (size_t i = 0; i < n; i++)
        if (calls[i].function == want[0] || calls[i].function == want[1]) {
            CHECK_EQ(calls[i].function, want[met]);
            met++;
        }
    CHECK_EQ(met, 4);
}

/* The default stream comes after all that blocking streams were asked for before, and before what they are asked for later; more
 * than is issued of a stream at a time. */
static void default_stream(void)
{
    const struct rig_call *calls;
    int n = 0;
    begin();
    rig_hold();
    for (unsigned i = 0; i < 24; i++)
        CHECK_EQ(rig_launch(RIG_STREAM), CUDA_SUCCESS);
    CHECK_EQ(rig_launch(NULL), CUDA_SUCCESS);
    CHECK_EQ(rig_launch((CUstream)0x5550), CUDA_SUCCESS);
    rig_forget_calls();
    rig_let_go();
    rig_settle();
    size_t all = rig_calls(&calls);
    for (size_t i = 0; i < all; i++) {
        if (calls[i].function != LITHOS_EXPORT_cuLaunchKernel)
            continue;
        CHECK_EQ(calls[i].args[8], n < 24 ? (uintptr_t)RIG_STREAM : n == 24 ? 0 : 0x5550);
        n++;
    }
    CHECK_EQ(n, 26);
}

/* A wait for a value comes behind what was called before in any stream. */
static void wait_value(void)
{
    begin();
    rig_hold();
    for (unsigned i = 0; i < 24; i++)
        CHECK_EQ(rig_launch((CUstream)0x5550), CUDA_SUCCESS);
    const uintptr_t args[LITHOS_ORDER_WORDS] = {(uintptr_t)RIG_STREAM, 0x100000, 7, 0};
    CHECK_EQ(lithos_order_ours(LITHOS_EXPORT_cuStreamWaitValue32_v2, args), CUDA_SUCCESS);
    rig_forget_calls();
    rig_let_go();
    rig_settle();
    const struct rig_call *calls;
    int place = rig_find(LITHOS_EXPORT_cuStreamWaitValue32_v2), kernels = 0;
    rig_calls(&calls);
    for (int i = 0; i < place; i++)
        kernels += calls[i].function == LITHOS_EXPORT_cuLaunchKernel;
    CHECK_EQ(kernels, 24);
}

static void pageable(void)
{
    struct call c = {.function = LITHOS_EXPORT_cuMemcpyAsync,
                     .args = {0x100000, 0x3000, 64, (uintptr_t)RIG_STREAM}};
    pthread_t thread;
    begin();
    queue_two();
    CHECK_EQ(pthread_create(&thread, NULL, call_thread, &c), 0);
    while (!atomic_load(&atomic_load(&lithos_queue)->waiters) && !atomic_load(&c.returned))
        sched_yield();
    CHECK(!atomic_load(&c.returned));
    rig_let_go();
    pthread_join(thread, NULL);
    CHECK(rig_find(LITHOS_EXPORT_cuMemcpyAsync) > rig_find(LITHOS_EXPORT_cuLaunchKernel));
    CHECK_EQ(lithos_arena_counter(&lithos_tenant_home, LITHOS_COUNTER_DRAINED_PAGEABLE), 1);
}

/* While a stream captures nothing is queued; before, all is issued. */
static void captures(void)
{
    struct queue *q;
    begin();
    q = atomic_load(&lithos_queue);
    rig_hold();
    CHECK_EQ(rig_launch(RIG_STREAM), CUDA_SUCCESS);
    rig_forget_calls();
    struct call c = {.function = LITHOS_EXPORT_cuStreamBeginCapture_v2, .args = {0x6660, 1}};
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, call_thread, &c), 0);
    while (!atomic_load(&q->waiters) && !atomic_load(&c.returned))
        sched_yield();
    CHECK(!atomic_load(&c.returned));
    rig_let_go();
    pthread_join(thread, NULL);
    rig_hold(); /* what goes at once is not held back by it */
    CHECK_EQ(rig_launch((CUstream)0x6660), CUDA_SUCCESS);
    CHECK_EQ(rig_launch(RIG_STREAM), CUDA_SUCCESS);
    CHECK_EQ(lithos_queue_depth(q), 0);
    CHECK_EQ(CALL(cuStreamEndCapture, 0x6660, zeros, 0), CUDA_SUCCESS);
    CHECK_EQ(rig_launch(RIG_STREAM), CUDA_SUCCESS);
    CHECK_EQ(lithos_queue_depth(q), 1);
    rig_let_go();
    rig_settle();
}

/* What a queued call comes to is told once, by the next that may tell it; what breaks a context is told by all, and nothing is queued. */
static void errors(void)
{
    begin();
    rig_answer(LITHOS_EXPORT_cuMemsetD32Async, CUDA_ERROR_INVALID_VALUE);
    queue_two();
    const uintptr_t set[LITHOS_ORDER_WORDS] = {0x100000, 7, 16, (uintptr_t)RIG_STREAM};
    CHECK_EQ(lithos_order_ours(LITHOS_EXPORT_cuMemsetD32Async, set), CUDA_SUCCESS);
    rig_let_go();
    rig_settle();
    CHECK_EQ(CALL(cuStreamSynchronize, RIG_STREAM, 0, 0), CUDA_ERROR_INVALID_VALUE);
    CHECK_EQ(CALL(cuStreamSynchronize, RIG_STREAM, 0, 0), CUDA_SUCCESS);
    rig_answer(LITHOS_EXPORT_cuLaunchKernel, CUDA_ERROR_ILLEGAL_ADDRESS);
    rig_hold();
    CHECK_EQ(rig_launch(RIG_STREAM), CUDA_SUCCESS);
    rig_let_go();
    rig_settle();
    CHECK_EQ(rig_launch(RIG_STREAM), CUDA_ERROR_ILLEGAL_ADDRESS);
    CHECK_EQ(lithos_arena_counter(&lithos_tenant_home, LITHOS_COUNTER_QUEUE_FAILED), 2);
    CHECK_EQ(lithos_queue_depth(atomic_load(&lithos_queue)), 0);
}

static CUresult allow_shared(int bytes)
{
    return CALL(cuFuncSetAttribute, RIG_FUNCTION, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, bytes);
}

static int allowed_shared(void)
{
    int bytes = -1;
    CHECK_EQ(CALL(cuFuncGetAttribute, &bytes, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, RIG_FUNCTION),
             CUDA_SUCCESS);
    return bytes;
}

/* How much shared memory launches may have is set before many of them: nobody waits for that, and none is allowed or refused for it that
 * would not be else. */
static void shared_memory(void)
{
    begin();
    CHECK_EQ(allow_shared(100), CUDA_SUCCESS);
    CHECK_EQ(rig_launch_shared(RIG_STREAM, 100), CUDA_SUCCESS); /* the first of its kind */
    rig_settle();
    queue_two();
    CHECK_EQ(rig_launch_shared(RIG_STREAM, 100), CUDA_SUCCESS);
    CHECK_EQ(allow_shared(1000), CUDA_SUCCESS);
    CHECK(rig_find(LITHOS_EXPORT_cuFuncSetAttribute) >= 0);
    CHECK_EQ(allowed_shared(), 1000);
    rig_forget_calls();
    CHECK_EQ(allow_shared(40), CUDA_SUCCESS); /* what is queued has more */
    CHECK_EQ(rig_find(LITHOS_EXPORT_cuFuncSetAttribute), -1);
    CHECK_EQ(allowed_shared(), 40);
    CHECK_EQ(rig_launch_shared(RIG_STREAM, 0), CUDA_SUCCESS); /* known: set or not, it waits for nothing */
    CHECK_EQ(rig_find(LITHOS_EXPORT_cuLaunchKernel), -1);
    rig_let_go();
    rig_settle();
    CHECK_EQ(rig_find(LITHOS_EXPORT_cuFuncSetAttribute), -1);
    /* One that it forbids: the driver is told, and asked. */
    rig_forget_calls();
    CHECK_EQ(rig_launch_shared(RIG_STREAM, 100), CUDA_SUCCESS);
    rig_settle();
    int told = rig_find(LITHOS_EXPORT_cuFuncSetAttribute), launch = rig_find(LITHOS_EXPORT_cuLaunchKernel);
    const struct rig_call *calls;
    rig_calls(&calls);
    CHECK(told >= 0 && told < launch && calls[told].args[2] == 40 && calls[launch].by_app);
    CHECK_EQ(allowed_shared(), 40);
    CHECK_EQ(allow_shared(30), CUDA_SUCCESS);
    CHECK_EQ(allow_shared(40), CUDA_SUCCESS); /* what the driver has */
    rig_forget_calls();
    CHECK_EQ(rig_launch_shared(RIG_STREAM, 40), CUDA_SUCCESS);
    CHECK_EQ(rig_find(LITHOS_EXPORT_cuFuncSetAttribute), -1);
    rig_answer(LITHOS_EXPORT_cuFuncSetAttribute, CUDA_ERROR_INVALID_VALUE);
    CHECK_EQ(allow_shared(1 << 30), CUDA_ERROR_INVALID_VALUE);
    CHECK_EQ(allowed_shared(), 40);
    CHECK_EQ(lithos_arena_counter(&lithos_tenant_home, LITHOS_COUNTER_DRAINED_SYNC + LITHOS_DRAIN_CODE), 0);
}

/* What the driver runs a kernel for goes where the rule says, through the queue, also when nothing is queued; other calls need not. */
static void driver_kernels(void)
{
    const uintptr_t set[LITHOS_ORDER_WORDS] = {0x100000, 0x100000, 16, (uintptr_t)RIG_STREAM};
    const enum lithos_export with_kernel[] = {LITHOS_EXPORT_cuMemsetD32Async,
                                              LITHOS_EXPORT_cuMemcpyDtoDAsync_v2};
    begin();
    for (int ruled = 0; ruled < 2; ruled++)
        for (size_t i = 0; i < LITHOS_ARRAY_SIZE(with_kernel); i++) {
            uintptr_t args[LITHOS_ORDER_WORDS];
            const struct rig_call *calls;
            memcpy(args, set, sizeof args);
            ruled ? rig_lend() : rig_let_go();
            rig_forget_calls();
            CHECK_EQ(lithos_order_ours(with_kernel[i], args), CUDA_SUCCESS);
            rig_settle();
            int at = rig_find(with_kernel[i]);
            rig_calls(&calls);
            CHECK(at >= 0 && calls[at].by_app == !ruled);
        }
    rig_lend();
    rig_forget_calls();
    CHECK_EQ(CALL(cuStreamAddCallback, RIG_STREAM, 0x5550, 0), CUDA_SUCCESS);
    const struct rig_call *calls;
    CHECK(rig_calls(&calls) > 0 && calls[0].by_app);
}

/* Events of our own, which tell the ends of graphs, go before their context does. */
static void own_events(void)
{
    begin();
    CHECK_EQ(CALL(cuGraphLaunch, 0x9990, RIG_STREAM, 0), CUDA_SUCCESS); /* seen */
    CHECK_EQ(CALL(cuGraphLaunch, 0x9990, RIG_STREAM, 0), CUDA_SUCCESS); /* queued */
    rig_settle();
    CHECK(rig_find(LITHOS_EXPORT_cuEventCreate) >= 0);
    CHECK_EQ(rig_find(LITHOS_EXPORT_cuEventDestroy_v2), -1);
    CHECK_EQ(CALL(cuCtxDestroy_v2, RIG_CTX, 0, 0), CUDA_SUCCESS);
    CHECK(rig_find(LITHOS_EXPORT_cuEventDestroy_v2) >= 0);
    CHECK(rig_find(LITHOS_EXPORT_cuEventDestroy_v2) < rig_find(LITHOS_EXPORT_cuCtxDestroy_v2));
}

/* The app is not kept by a scheduler that has died. */
static void lease(void)
{
    begin();
    queue_two();
    atomic_store(&lithos_tenant_home.lease_ns, 0);
    rig_settle(); /* or the alarm */
}

/* A stream takes so many calls, then the app waits; other streams do not. */
static void full(void)
{
    struct queue *q;
    begin();
    q = atomic_load(&lithos_queue);
    rig_hold();
    CHECK_EQ(rig_launch((CUstream)0x7770), CUDA_SUCCESS); /* seen now, when none of it waits */
    for (unsigned i = 1; i < QUEUE_DEPTH; i++)
        CHECK_EQ(rig_launch((CUstream)0x7770), CUDA_SUCCESS);
    CHECK_EQ(lithos_queue_depth(q), QUEUE_DEPTH);
    CHECK_EQ(rig_launch(RIG_STREAM), CUDA_SUCCESS);
    struct call c = {.function = LITHOS_EXPORT_cuLaunchKernel,
                     .args = {(uintptr_t)RIG_FUNCTION, 1, 1, 1, 32, 1, 1, 0, 0x7770}};
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, call_thread, &c), 0);
    while (!atomic_load(&q->waiters) && !atomic_load(&c.returned))
        sched_yield();
    CHECK(!atomic_load(&c.returned));
    rig_let_go();
    pthread_join(thread, NULL);
    rig_settle();
    CHECK_EQ(lithos_arena_counter(&lithos_tenant_home, LITHOS_COUNTER_QUEUE_FULL), 1);
}

/* The app has waited, and the dispatcher sleeps. */
static void all_is_quiet(void)
{
    rig_settle();
    CHECK_EQ(CALL(cuStreamSynchronize, RIG_STREAM, 0, 0), CUDA_SUCCESS);
    while (!atomic_load(&atomic_load(&lithos_queue)->asleep))
        sched_yield();
    rig_forget_calls();
}

/* All goes to the dispatcher at once, but what would have to wake it up after a wait. */
static void all_but_the_first_handed_over(void)
{
    lithos_records_thread_starts();
    CHECK_EQ(rig_launch(RIG_STREAM), CUDA_SUCCESS); /* the first of its kind */
    all_is_quiet();
    for (int i = 0; i < 3; i++)
        CHECK_EQ(rig_launch(RIG_STREAM), CUDA_SUCCESS);
    rig_settle();
    const struct rig_call *calls;
    bool by_app[3];
    uint32_t whose[3];
    unsigned kernels = 0;
    for (size_t i = 0, n = rig_calls(&calls); i < n; i++)
        if (calls[i].function == LITHOS_EXPORT_cuLaunchKernel && kernels < 3) {
            by_app[kernels] = calls[i].by_app;
            whose[kernels++] = calls[i].thread;
        }
    CHECK_EQ(kernels, 3);
    CHECK(by_app[0] && !by_app[1] && !by_app[2]);
    /* those are this thread's launches all the same */
    CHECK(lithos_records_thread() != 0 && whose[0] == 0);
    CHECK(whose[1] == lithos_records_thread() && whose[2] == lithos_records_thread());
}

/* Of a tenant of class high. */
static void hands_over(void)
{
    rig_open("");
    lithos_queue_set_use(LITHOS_QUEUE_HAND_OVER, true);
    all_but_the_first_handed_over();
}

/* A best-effort one leaves it all launches where there is a CPU for it, and makes them itself where there is none. */
static void spare(void)
{
    rig_open("");
    lithos_queue_set_use(LITHOS_QUEUE_WINDOW, true);
    all_but_the_first_handed_over();
    lithos_queue_set_use(LITHOS_QUEUE_WINDOW, false);
    all_is_quiet();
    CHECK_EQ(rig_launch(RIG_STREAM), CUDA_SUCCESS);
    const struct rig_call *calls;
    size_t n = rig_calls(&calls);
    CHECK(n && calls[n - 1].function == LITHOS_EXPORT_cuLaunchKernel && calls[n - 1].by_app);
}

static unsigned kernels_made(void)
{
    const struct rig_call *calls;
    unsigned kernels = 0;
    for (size_t i = 0, n = rig_calls(&calls); i < n; i++)
        kernels += calls[i].function == LITHOS_EXPORT_cuLaunchKernel;
    return kernels;
}

static uint64_t counted(enum lithos_counter what)
{
    return lithos_arena_counter(&lithos_tenant_home, what);
}

/* The dispatcher may have issued what is wanted before it looks why, and counts; it does so before it goes to sleep. */
static uint64_t counted_in_the_end(enum lithos_counter what)
{
    while (!atomic_load(&atomic_load(&lithos_queue)->asleep))
        sched_yield();
    return counted(what);
}

/* So many launches stay where they are, and lithosd is not told of them. */
static void gather(unsigned launches)
{
    static const struct timespec a_while = {.tv_nsec = 20000000};
    struct queue *q = atomic_load(&lithos_queue);
    all_is_quiet();
    for (unsigned i = 0; i < launches; i++) {
        CHECK_EQ(rig_launch(RIG_STREAM), CUDA_SUCCESS);
        nanosleep(&a_while, NULL);
    }
    CHECK_EQ(kernels_made(), 0);
    CHECK_EQ(lithos_queue_depth(q), launches);
    CHECK_EQ(atomic_load(&lithos_tenant_home.queue_depth), 0);
}

/* The dispatcher sleeps while it gathers and nothing is about to go. */
static void dozes(void)
{
    const uint64_t by_ns = lithos_now_ns() + 10 * LITHOS_NSEC_PER_SEC;
    while (!atomic_load(&atomic_load(&lithos_queue)->dozes)) {
        CHECK(lithos_now_ns() < by_ns);
        sched_yield();
    }
}

/* Calls stay queued until somebody waits for them or asks about them, or their time is over, or as long ahead of a wait as they take the card. */
static void gathers(void)
{
    rig_open("");
    lithos_queue_set_gather(3600 * LITHOS_NSEC_PER_SEC);
    lithos_queue_set_use(LITHOS_QUEUE_HAND_OVER, true);
    CHECK_EQ(rig_launch(RIG_STREAM), CUDA_SUCCESS); /* the first of its kind is made at once */
    CHECK_EQ(kernels_made(), 1);
    gather(3);
    dozes();
    CHECK_EQ(CALL(cuStreamSynchronize, RIG_STREAM, 0, 0), CUDA_SUCCESS);
    CHECK_EQ(kernels_made(), 3);
    CHECK_EQ(counted_in_the_end(LITHOS_COUNTER_GATHERED_WANTED), 1);
    gather(2); /* a third is known to come, in a while */
    CHECK_EQ(CALL(cuStreamQuery, RIG_STREAM, 0, 0), CUDA_ERROR_NOT_READY);
    rig_settle();
    CHECK_EQ(kernels_made(), 2);
    CHECK_EQ(counted_in_the_end(LITHOS_COUNTER_GATHERED_WANTED), 2);
    CHECK_EQ(counted(LITHOS_COUNTER_GATHERED_AHEAD), 0);
    gather(1);
    CHECK_EQ(rig_launch(RIG_STREAM), CUDA_SUCCESS); /* that is all of it, as far as is known */
    rig_settle();
    CHECK_EQ(counted(LITHOS_COUNTER_GATHERED_AHEAD), 1);
    CHECK_EQ(rig_launch(RIG_STREAM), CUDA_SUCCESS); /* nor does more of it wait */
    rig_settle();
    CHECK_EQ(kernels_made(), 3);
    CHECK_EQ(counted(LITHOS_COUNTER_GATHERED_AHEAD), 1);
    gather(2); /* a wait was between */
    CHECK_EQ(CALL(cuEventRecord, 0x4440, RIG_STREAM, 0),
             CUDA_SUCCESS); /* which is no kernel, of which a third is known to come */
    CHECK_EQ(CALL(cuEventQuery, 0x4440, 0, 0), CUDA_ERROR_NOT_READY);
    rig_settle();
    CHECK_EQ(kernels_made(), 2);
    CHECK_EQ(counted_in_the_end(LITHOS_COUNTER_GATHERED_WANTED), 3);
    CHECK_EQ(counted(LITHOS_COUNTER_GATHERED_TIME), 0);
    lithos_queue_set_gather(100 * LITHOS_NSEC_PER_MSEC);
    lithos_queue_set_use(LITHOS_QUEUE_HAND_OVER, true);
    gather(1);
    rig_settle();
    CHECK_EQ(kernels_made(), 1);
    CHECK_EQ(counted(LITHOS_COUNTER_GATHERED_TIME), 1);
    /* A copy to memory that the driver does not know is a wait, also where all has been made that was queued; others are none. */
    const struct queue *q = atomic_load(&lithos_queue);
    CHECK_EQ(lithos_queue_depth(q), 0);
    const uintptr_t within[LITHOS_ORDER_WORDS] = {0x100000, 0x100000, 16, (uintptr_t)RIG_STREAM},
                    out[LITHOS_ORDER_WORDS] = {0x3000, 0x100000, 16, (uintptr_t)RIG_STREAM};
    CHECK_EQ(lithos_order_ours(LITHOS_EXPORT_cuMemcpyDtoDAsync_v2, within), CUDA_SUCCESS);
    CHECK(atomic_load(&q->wanted) != lithos_queue_ring_entries(&q->ring));
    CHECK_EQ(lithos_order_ours(LITHOS_EXPORT_cuMemcpyDtoHAsync_v2, out), CUDA_SUCCESS);
    CHECK_EQ(atomic_load(&q->wanted), lithos_queue_ring_entries(&q->ring));
    lithos_queue_set_use(LITHOS_QUEUE_WINDOW, true); /* what is best-effort waits by rules alone */
    all_is_quiet();
    CHECK_EQ(rig_launch(RIG_STREAM), CUDA_SUCCESS);
    rig_settle();
    CHECK_EQ(kernels_made(), 1);
    CHECK_EQ(counted(LITHOS_COUNTER_GATHERED_TIME), 1);
}

/* What is known of the one request there is. */
static struct queue_request *known(void)
{
    struct queue *q = atomic_load(&lithos_queue);
    for (unsigned i = 0; i < QUEUE_REQUESTS; i++)
        if (q->requests[i].key)
            return &q->requests[i];
    return NULL;
}

/* A request of two launches, which goes ahead of its wait once it is known. */
static void request(bool ahead)
{
    const uint64_t before = counted(LITHOS_COUNTER_GATHERED_AHEAD);
    rig_forget_calls();
    CHECK_EQ(rig_launch(RIG_STREAM), CUDA_SUCCESS);
    nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
    CHECK_EQ(rig_launch(RIG_STREAM), CUDA_SUCCESS);
    if (ahead)
        rig_settle();
    CHECK_EQ(CALL(cuStreamSynchronize, RIG_STREAM, 0, 0), CUDA_SUCCESS);
    CHECK_EQ(kernels_made(), 2);
    CHECK_EQ(counted_in_the_end(LITHOS_COUNTER_GATHERED_AHEAD) - before, ahead);
}

/* All is gathered from now on, and one request is known. */
static void first_request(void)
{
    rig_open("");
    lithos_queue_set_gather(3600 * LITHOS_NSEC_PER_SEC);
    lithos_queue_set_use(LITHOS_QUEUE_HAND_OVER, true);
    CHECK_EQ(rig_launch(RIG_STREAM), CUDA_SUCCESS); /* the first of its kind is made at once */
    all_is_quiet();
    request(false);
}

/* How it turned out is believed of requests of its kind: those that came right behind another, and the others. */
static void behind(void)
{
    const struct timespec pause = {.tv_nsec = 100000000}; /* more than an eighth of 300 ms */
    first_request();
    request(true);
    request(true); /* by now it is known what became of the one before, which came right behind another */
    const struct queue_request *r = known();
    const uint64_t begun_ns = r->card_ns + 100 * LITHOS_NSEC_PER_USEC;
    CHECK(r->host_ns >= 200 * LITHOS_NSEC_PER_MSEC);
    CHECK_EQ(r->ahead_ns[QUEUE_AHEAD_APART], begun_ns);
    CHECK(r->ahead_ns[QUEUE_AHEAD_BEHIND] != begun_ns);
    nanosleep(&pause, NULL);
    request(true);
    const uint64_t behind_ns = r->ahead_ns[QUEUE_AHEAD_BEHIND];
    nanosleep(&pause, NULL);
    request(true); /* and of the one that came after a pause */
    CHECK(r->ahead_ns[QUEUE_AHEAD_APART] != begun_ns);
    CHECK_EQ(r->ahead_ns[QUEUE_AHEAD_BEHIND], behind_ns);
}

static uint32_t told(void)
{
    return atomic_load(&lithos_tenant_home.queue_depth);
}

/* Is lithosd told that a call waits, before the dispatcher sleeps? Then it is told of none. */
static bool is_told_before_it_sleeps(void)
{
    bool seen = false;
    while (!atomic_load(&atomic_load(&lithos_queue)->asleep))
        seen |= told() == 1;
    CHECK_EQ(told(), 0);
    return seen;
}

/* In the pauses of a request that goes as it comes lithosd takes the program for busy, for as long as the dispatcher stays up: it may be held up itself
 * for longer than that, so one of many. */
static void flows(void)
{
    bool seen = false;
    first_request();
    for (unsigned tries = 0; tries < 2000 && !seen; tries++) {
        struct queue_request *r = known();
        for (int k = 0; k < QUEUE_AHEAD; k++)
            r->ahead_ns[k] = r->host_ns; /* all of it goes as it comes */
        CHECK_EQ(rig_launch(RIG_STREAM), CUDA_SUCCESS);
        seen = is_told_before_it_sleeps();
        CHECK(lithos_queue_flows(atomic_load(&lithos_queue))); /* another is to come */
        CHECK_EQ(rig_launch(RIG_STREAM), CUDA_SUCCESS);
        rig_settle();
        is_told_before_it_sleeps();
        CHECK(!lithos_queue_flows(atomic_load(&lithos_queue)));
        CHECK_EQ(CALL(cuStreamSynchronize, RIG_STREAM, 0, 0), CUDA_SUCCESS);
    }
    CHECK(seen);
}

#define IN_CHILD(name)                                \
    static void test_##name(void **state)             \
    {                                                 \
        (void)state;                                  \
        assert_int_equal(in_child(name, NULL, 0), 0); \
    }
IN_CHILD(all_nothing)
IN_CHILD(all_queue)
IN_CHILD(all_drain)
IN_CHILD(answers)
IN_CHILD(versions)
IN_CHILD(default_stream)
IN_CHILD(wait_value)
IN_CHILD(pageable)
IN_CHILD(captures)
IN_CHILD(errors)
IN_CHILD(driver_kernels)
IN_CHILD(shared_memory)
IN_CHILD(own_events)
IN_CHILD(lease)
IN_CHILD(full)
IN_CHILD(hands_over)
IN_CHILD(gathers)
IN_CHILD(behind)
IN_CHILD(flows)
IN_CHILD(spare)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_nothing),   cmocka_unit_test(test_all_queue),
        cmocka_unit_test(test_all_drain),     cmocka_unit_test(test_answers),
        cmocka_unit_test(test_versions),      cmocka_unit_test(test_default_stream),
        cmocka_unit_test(test_wait_value),    cmocka_unit_test(test_pageable),
        cmocka_unit_test(test_captures),      cmocka_unit_test(test_errors),
        cmocka_unit_test(test_own_events),    cmocka_unit_test(test_lease),
        cmocka_unit_test(test_full),          cmocka_unit_test(test_driver_kernels),
        cmocka_unit_test(test_shared_memory), cmocka_unit_test(test_hands_over),
        cmocka_unit_test(test_spare),         cmocka_unit_test(test_gathers),
        cmocka_unit_test(test_behind),        cmocka_unit_test(test_flows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
