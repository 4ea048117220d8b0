#include "queue_rig.h"

#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <string.h>

#include "driver/hooks.h"
#include "stub/hook_client.h"
#include "stub/in_child.h"
#include "tenant/attach.h"
#include "tenant/observe.h"

#define CALLS 65536u

static struct {
    pthread_mutex_t lock;
    struct rig_call calls[CALLS];
    size_t n;
    CUresult answers[LITHOS_EXPORT_MAX];
    int shared_limit; /* of the function there is: CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES */
} rig = {.lock = PTHREAD_MUTEX_INITIALIZER};

static __thread bool is_app;

/* ---- the client: the tenant's own, without records ---- */

static const _Atomic uint32_t watch, observe;

static void context_ends(CUcontext ctx, CUdevice device)
{
    (void)ctx, (void)device;
}

static void graph_ended(uint64_t graph)
{
    (void)graph;
}

static const struct lithos_hook_observer observer = {.observe = &observe,
                                                     .context_ends = context_ends,
                                                     .context_ended = lithos_queue_context_ended,
                                                     .graph_ended = graph_ended};
const struct lithos_hook_client lithos_hook_client =
    HOOK_CLIENT(lithos_tenant_home.counters, &watch, &observer, &lithos_queue_order);

/* ---- the driver ---- */

static CUresult note(uint32_t function, const uintptr_t args[RIG_WORDS])
{
    pthread_mutex_lock(&rig.lock);
    CHECK(rig.n < CALLS);
    struct rig_call *c = &rig.calls[rig.n++];
    c->function = function;
    c->by_app = is_app;
    c->thread = lithos_order_issue ? lithos_order_issue->thread : 0;
    memcpy(c->args, args, sizeof c->args);
    if (strncmp(lithos_export_name((enum lithos_export)function), "cuMemcpy2DAsync", 15) == 0 ||
        strncmp(lithos_export_name((enum lithos_export)function), "cuMemcpy3DAsync", 15) == 0)
        memcpy(c->pointed, (const void *)args[0], sizeof c->pointed);
    CUresult answer = rig.answers[function];
    pthread_mutex_unlock(&rig.lock);
    switch (function) {
    case LITHOS_EXPORT_cuCtxGetCurrent:
        *(CUcontext *)args[0] = RIG_CTX;
        break;
    case LITHOS_EXPORT_cuEventCreate:
        *(CUevent *)args[0] = (CUevent)0x8880;
        break;
    case LITHOS_EXPORT_cuStreamGetCtx:
        *(CUcontext *)args[1] = RIG_CTX;
        break;
    case LITHOS_EXPORT_cuStreamGetFlags:
        *(unsigned *)args[1] = 0;
        break;
    case LITHOS_EXPORT_cuPointerGetAttribute: /* what lies below 64 KiB is not known to it */
        *(unsigned *)args[0] = CU_MEMORYTYPE_DEVICE;
        return args[2] < 0x10000 ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
    case LITHOS_EXPORT_cuFuncGetAttribute:
        *(int *)args[0] = rig.shared_limit;
        break;
    case LITHOS_EXPORT_cuFuncSetAttribute:
        rig.shared_limit = answer ? rig.shared_limit : (int)args[2];
        break;
    case LITHOS_EXPORT_cuFuncGetParamInfo:
    case LITHOS_EXPORT_cuKernelGetParamInfo:
        return CUDA_ERROR_INVALID_VALUE; /* kernels without parameters */
    default:
        break;
    }
    return answer;
}

typedef uintptr_t word;
#define EXPORT(name)                                                                                      \
    static CUresult driver_##name(word a, word b, word c, word d, word e, word f, word g, word h, word i, \
                                  word j, word k)                                                         \
    {                                                                                                     \
        const word args[RIG_WORDS] = {a, b, c, d, e, f, g, h, i, j, k};                                   \
        return note(LITHOS_EXPORT_##name, args);                                                          \
    }
#include "cuda/exports.def"
#undef EXPORT

static void *const functions[] = {
#define EXPORT(name) (void *)driver_##name,
#include "cuda/exports.def"
#undef EXPORT
};

/* ---- */

static void set_rule(uint32_t flags)
{
    struct lithos_rule rule = {.flags = flags, .floor = 2};
    atomic_store(&lithos_tenant_home.lease_ns, lithos_now_ns() + 3600 * LITHOS_NSEC_PER_SEC);
    lithos_arena_set_rule(&lithos_tenant_home, 0, &rule);
}

void rig_open(const char *how)
{
    struct lithos_topology topology = {.sms_per_tpc = 2, .gpc_stride = 9, .gpc_count = 8};
    struct lithos_tpcset own;
    is_app = true;
    setenv("LITHOS_LIBCUDA", STUB_PATH, 1);
    setenv("LITHOS_QUEUE", how, 1);
    CHECK(dlopen(STUB_PATH, RTLD_NOW | RTLD_LOCAL));
    CUresult (*init)(unsigned) = (CUresult(*)(unsigned))lithos_export_address(LITHOS_EXPORT_cuInit);
    CHECK_EQ(init(0), CUDA_SUCCESS);
    CHECK_EQ(lithos_hook_get_state(), LITHOS_HOOK_SUBSCRIBED);
    for (int i = 0; i < LITHOS_EXPORT_MAX; i++)
        atomic_store(&lithos_real_slots[i], functions[i]);
    atomic_store(&lithos_tenant_home.observe, LITHOS_OBSERVE_STAMPS);
    topology.valid = (struct lithos_tpcset){{0x3ffff, 0}};
    lithos_tpcset_parse("0-5", &own);
    lithos_queue_set_quota(0, 0, &topology, own);
    lithos_queue_set_use(LITHOS_QUEUE_WINDOW, false);
    CHECK(atomic_load(&lithos_queue));
}

void rig_hold(void)
{
    set_rule(LITHOS_RULE_ON | LITHOS_RULE_HOLD);
}

void rig_lend(void)
{
    set_rule(LITHOS_RULE_ON);
}

void rig_let_go(void)
{
    set_rule(0);
}

void rig_settle(void)
{
    while (lithos_queue_depth(atomic_load(&lithos_queue)))
        sched_yield();
}

size_t rig_calls(const struct rig_call **ret_calls)
{
    *ret_calls = rig.calls;
    pthread_mutex_lock(&rig.lock);
    size_t n = rig.n;
    pthread_mutex_unlock(&rig.lock);
    return n;
}

void rig_forget_calls(void)
{
    pthread_mutex_lock(&rig.lock);
    rig.n = 0;
    pthread_mutex_unlock(&rig.lock);
}

int rig_find(uint32_t function)
{
    const struct rig_call *calls;
    size_t n = rig_calls(&calls);
    for (size_t i = 0; i < n; i++)
        if (calls[i].function == function)
            return (int)i;
    return -1;
}

void rig_answer(uint32_t function, CUresult result)
{
    pthread_mutex_lock(&rig.lock);
    rig.answers[function] = result;
    pthread_mutex_unlock(&rig.lock);
}

CUresult rig_launch(CUstream stream)
{
    return rig_launch_shared(stream, 0);
}

CUresult rig_launch_shared(CUstream stream, unsigned shared_bytes)
{
    CUresult (*launch)(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                       CUstream, void **, void **) =
        (CUresult(*)(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                     CUstream, void **, void **))lithos_export_address(LITHOS_EXPORT_cuLaunchKernel);
    return launch(RIG_FUNCTION, 1, 1, 1, 32, 1, 1, shared_bytes, stream, NULL, NULL);
}
