/* liblithos.so: what ties the driver's hooks to this process' arena, and the two names that are not the
 * driver's. */
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "driver/client.h"
#include "driver/hooks.h"
#include "tenant/attach.h"
#include "tenant/before.h"
#include "tenant/observe.h"
#include "tenant/queue.h"

/* Loading does nothing; everything starts at the first cuInit. */
LITHOS_EXPORT extern const struct lithos_library lithos_library_marker;
const struct lithos_library lithos_library_marker = {.version = LITHOS_ARENA_VERSION,
                                                     .arena = &lithos_tenant_home};

LITHOS_EXPORT int InitializeInjection(void);

/* CUDA_INJECTION64_PATH: the driver calls this inside cuInit, however the app reached it. */
int InitializeInjection(void)
{
    return lithos_hook_injected();
}

static void start(bool wait_for_driver)
{
    static atomic_flag registered = ATOMIC_FLAG_INIT;
    if (!atomic_flag_test_and_set(&registered))
        pthread_atfork(NULL, NULL, lithos_tenant_forget);
    if (!wait_for_driver)
        lithos_tenant_attach();
    int r = lithos_tenant_link_start(wait_for_driver);
    if (r < 0)
        lithos_warning(
            "no thread for the link to lithosd (%s): a daemon that is restarted will not be found again",
            strerror(-r));
}

static void started(void)
{
    start(false);
}

static void injected(void)
{
    start(true);
}

static bool atom_choice(uint64_t operator_key, struct lithos_atom_choice *ret_choice)
{
    struct lithos_plan plan;
    if (!lithos_plan_get(lithos_tenant_home.plans, operator_key, &plan))
        return false;
    *ret_choice = plan.choice;
    return true;
}

/* While lithosd looks after it: one that is gone, or halted, may have said it of other times. What others may have is kept off by
 * whatever is known to bear it; tries are spread evenly over the
 * launches, whatever comes in between. */
static bool size(uint64_t function, const uint32_t grid[3], const uint32_t block[3], uint64_t stream,
                 struct lithos_tpcset *ret_tpcs)
{
    static __thread uint64_t tries __attribute__((tls_model("initial-exec")));
    struct lithos_size s;
    const uint64_t key = lithos_size_key(function, grid, block, lithos_before_get(stream));
    if (!lithos_size_get(lithos_tenant_home.sizes, key, &s) ||
        lithos_now_ns() >
            atomic_load_explicit(&lithos_tenant_home.lease_ns, memory_order_relaxed) + LITHOS_LEASE_NS)
        return false;
    const struct lithos_tpcset kept = lithos_arena_kept(&lithos_tenant_home);
    if (!lithos_tpcset_empty(&kept)) {
        *ret_tpcs = kept;
        return s.least_tpcs <= lithos_tpcset_count(&kept);
    }
    *ret_tpcs = s.tpcs;
    if (s.probe_every) {
        const uint32_t turn = (uint32_t)(++tries * 0x9e3779b97f4a7c15ull >> 32);
        if ((uint64_t)turn * s.probe_every >> 32 == 0)
            *ret_tpcs = s.probe;
    }
    return true;
}

#define SAME(name) \
    _Static_assert((int)LITHOS_COUNT_##name == (int)LITHOS_COUNTER_##name, "the hooks count into the arena")
SAME(LAUNCHES);
SAME(QMDS);
SAME(DRIVER_QMDS);
SAME(GRAPH_QMDS);
SAME(GRAPH_LAUNCHES);
SAME(ESCAPED);
SAME(BREACHES);
SAME(UNMASKED);
SAME(MASKED);
SAME(CUT);
SAME(ATOMS);
#define W(name, why) SAME(WHOLE_##name);
#include "hw/whole.def"
#undef W
SAME(GRAPH_CUT);
SAME(GRAPH_ATOMS);
SAME(GRAPH_CUT_LAUNCHES);
#define W(name, why) SAME(GRAPH_WHOLE_##name);
#include "hw/graph_whole.def"
#undef W
SAME(GRAPH_FOLLOWED);
SAME(GRAPH_FOLLOWED_NODES);
#define W(name, why) SAME(GRAPH_KEEPS_##name);
#include "hw/graph_keeps.def"
#undef W

const struct lithos_hook_client lithos_hook_client = {
    .counters = lithos_tenant_home.counters,
    .thread_starts = lithos_records_thread_starts,
    .watch = &lithos_tenant_home.grant_seq,
    .refresh = lithos_tenant_refresh,
    .started = started,
    .injected = injected,
    .atom_choice = atom_choice,
    .sizing = &lithos_tenant_home.sizing,
    .size = size,
    .stops = &lithos_tenant_home.stops,
    .stop_address = lithos_stamps_stop_address,
    .wanted = lithos_tenant_wanted,
    .observer = &lithos_tenant_observer,
    .order = &lithos_queue_order,
};
