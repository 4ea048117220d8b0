/* Who may write which stamp, and where the GPU finds them.
 *
 * The GPU never gets the address that the CPU uses. For each context the pages of the arena's stamps are mapped once more (an
 * alias) and that mapping is registered, so that a registration lives exactly as long as its context, and belongs to one
 * arena. What must never happen is that a kernel writes its stamp where nothing is mapped: that is a fault, which ends the
 * app. So an alias is never unregistered and never unmapped by us:
 * - A context ends: the driver unregisters its alias with it; kernels of that context are gone by then.
 * - Another arena comes (lithosd was restarted): the old aliases stay, with the old pages behind them. Kernels in flight,
 *   and graph nodes for good, write there: lost, counted, harmless. The next launch registers an alias of the new
 *   pages. Each exchange so costs 1 MiB a context, and there is an end to it (ALIASES). */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/log.h"
#include "base/util.h"
#include "driver/exports.h"
#include "tenant/attach.h"
#include "tenant/observe.h"

#define ALIASES 64u
#define PLAIN_SLOTS LITHOS_STAMP_PLAIN_SLOTS
#define NODE_SLOTS (LITHOS_STAMP_STOP_SLOT - PLAIN_SLOTS)
/* Of a launch that finds slots whose stamps have not come. */
#define TRIES 8
#define RESERVED (1ull << 63)
#define LINE_STAMPS (64 / sizeof(struct lithos_stamp))
#define MODE_RELAXED 2 /* CU_STREAM_CAPTURE_MODE_RELAXED */
_Static_assert(sizeof(((struct lithos_arena *)0)->stamps) % 4096 == 0, "the stamps are whole pages");
_Static_assert(sizeof(struct lithos_stamp) == LITHOS_QMD_RELEASE_BYTES, "as the GPU writes them");

/* ---- slots ---- */

static struct {
    _Atomic uint64_t owners[PLAIN_SLOTS]; /* sequence last handed out, 0 none; RESERVED: no QMD has it yet */
    _Atomic uint32_t node_next, node_used;
    _Atomic uint32_t node_high;               /* no slot from it on was ever taken */
    _Atomic uint64_t node_owners[NODE_SLOTS]; /* a graph's handle, 0 none */
    _Atomic uint32_t node_rounds[NODE_SLOTS];
    atomic_bool have_nodes;
} slots;

static struct lithos_stamp *stamp_of(uint64_t sequence)
{
    return &lithos_tenant_home.stamps[sequence % LITHOS_STAMP_SLOTS];
}

static bool arrived(uint64_t sequence)
{
    return sequence == 0 ||
           atomic_load_explicit(&stamp_of(sequence)->payload, memory_order_acquire) == sequence;
}

static LITHOS_LAUNCH_PATH int put(uint64_t base, const struct lithos_qmd_layout *layout, void *qmd,
                                  uint64_t sequence, struct lithos_qmd_release *ret_in_use)
{
    const struct lithos_qmd_release release = {
        .address = base + sequence % LITHOS_STAMP_SLOTS * LITHOS_QMD_RELEASE_BYTES, .payload = sequence};
    /* A reader that sees the payload before the time takes 0 for not yet. */
    atomic_store_explicit(&stamp_of(sequence)->time_ns, 0, memory_order_relaxed);
    return lithos_qmd_set_release(layout, qmd, &release, ret_in_use);
}

LITHOS_LAUNCH_PATH uint64_t lithos_stamps_reserve(void)
{
    for (int i = 0; i < TRIES; i++) {
        uint64_t n = atomic_fetch_add_explicit(&lithos_tenant_numbers.stamps, 1, memory_order_relaxed) + 1;
        uint64_t sequence = n / PLAIN_SLOTS * LITHOS_STAMP_SLOTS + n % PLAIN_SLOTS;
        _Atomic uint64_t *owner = &slots.owners[n % PLAIN_SLOTS];
        uint64_t before = atomic_load_explicit(owner, memory_order_relaxed);
        if (__builtin_expect(!arrived(before) || !atomic_compare_exchange_strong_explicit(
                                                     owner, &before, sequence | RESERVED,
                                                     memory_order_relaxed, memory_order_relaxed),
                             0))
            continue;
        /* What the next reservations look at: the GPU wrote there last. */
        lithos_prefetch_write(stamp_of(sequence + LINE_STAMPS));
        return sequence;
    }
    return 0;
}

void lithos_stamps_cancel(uint64_t reserved)
{
    uint64_t owner = reserved | RESERVED;
    if (reserved)
        atomic_compare_exchange_strong_explicit(&slots.owners[reserved % LITHOS_STAMP_SLOTS], &owner, 0,
                                                memory_order_relaxed, memory_order_relaxed);
}

LITHOS_LAUNCH_PATH int lithos_stamps_take(uint64_t base, const struct lithos_qmd_layout *layout, void *qmd,
                                          uint64_t reserved)
{
    _Atomic uint64_t *owner = &slots.owners[reserved % LITHOS_STAMP_SLOTS];
    if (__builtin_expect(
            !reserved || atomic_load_explicit(owner, memory_order_relaxed) != (reserved | RESERVED), 0))
        return -ENOSPC;
    int r = put(base, layout, qmd, reserved, NULL);
    /* Nobody else writes a slot that is set aside, but for the exchange of the pages, which frees all. */
    atomic_store_explicit(owner, r < 0 ? 0 : reserved, memory_order_relaxed);
    return r;
}

void lithos_stamps_give_back(uint64_t sequence)
{
    uint64_t slot = sequence % LITHOS_STAMP_SLOTS;
    if (sequence && slot < PLAIN_SLOTS)
        atomic_compare_exchange_strong_explicit(&slots.owners[slot], &sequence, 0, memory_order_relaxed,
                                                memory_order_relaxed);
}

/* Is a release that stands in a node's QMD one of ours, in force? The driver keeps the QMD of a node, as it went to the card, and
 * makes it again from that when the node is changed. */
static bool still_ours(uint64_t base, const struct lithos_qmd_release *release, uint64_t owner)
{
    uint64_t slot = release->payload % LITHOS_STAMP_SLOTS;
    return slot >= PLAIN_SLOTS && release->address == base + slot * LITHOS_QMD_RELEASE_BYTES &&
           atomic_load_explicit(&slots.node_owners[slot - PLAIN_SLOTS], memory_order_relaxed) == owner;
}

/* From one owner to another, 0 being none. False: it is somebody else's, who is told. */
static bool set_node_owner(uint32_t slot, uint64_t *io_from, uint64_t to)
{
    const uint64_t from = *io_from;
    uint32_t high = atomic_load_explicit(&slots.node_high, memory_order_relaxed);
    while (high <= slot && !atomic_compare_exchange_weak_explicit(&slots.node_high, &high, slot + 1,
                                                                  memory_order_relaxed, memory_order_relaxed))
        ;
    if (!atomic_compare_exchange_strong_explicit(&slots.node_owners[slot], io_from, to, memory_order_relaxed,
                                                 memory_order_relaxed))
        return false;
    atomic_fetch_add_explicit(&slots.node_used, (uint32_t)(to != 0) - (uint32_t)(from != 0),
                              memory_order_relaxed);
    return true;
}

int lithos_stamps_take_node(uint64_t base, const struct lithos_qmd_layout *layout, void *qmd, uint64_t owner,
                            uint64_t *ret_sequence)
{
    for (uint32_t i = 0;
         i < NODE_SLOTS && atomic_load_explicit(&slots.node_used, memory_order_relaxed) < NODE_SLOTS; i++) {
        uint32_t slot = atomic_fetch_add_explicit(&slots.node_next, 1, memory_order_relaxed) % NODE_SLOTS;
        uint64_t nobody = 0;
        if (!set_node_owner(slot, &nobody, owner))
            continue;
        uint64_t round = atomic_fetch_add_explicit(&slots.node_rounds[slot], 1, memory_order_relaxed);
        uint64_t sequence = round * LITHOS_STAMP_SLOTS + PLAIN_SLOTS + slot;
        struct lithos_qmd_release in_use;
        int r = put(base, layout, qmd, sequence, &in_use);
        uint64_t taken = owner;
        if (r < 0)
            set_node_owner(slot, &taken, 0);
        if (r == -EBUSY && still_ours(base, &in_use, owner)) {
            *ret_sequence = in_use.payload;
            return 1;
        }
        if (r < 0)
            return r;
        atomic_store_explicit(&slots.have_nodes, true, memory_order_relaxed);
        *ret_sequence = sequence;
        return 0;
    }
    return -ENOSPC;
}

uint64_t lithos_stamps_of_node(uint64_t base, const struct lithos_qmd_layout *layout, const void *qmd,
                               uint64_t owner)
{
    struct lithos_qmd_release release;
    return lithos_qmd_get_release(layout, qmd, &release) && still_ours(base, &release, owner)
               ? release.payload
               : 0;
}

void lithos_stamps_pass_on(uint64_t from, uint64_t to)
{
    if (!from || !atomic_load_explicit(&slots.have_nodes, memory_order_relaxed))
        return;
    const uint32_t high = atomic_load_explicit(&slots.node_high, memory_order_relaxed);
    for (uint32_t i = 0; i < high; i++) {
        uint64_t owner = from;
        set_node_owner(i, &owner, to);
    }
}

/* Every slot free again, over fresh pages; how many stamps were under way or stood for nodes. */
static uint64_t free_slots(void)
{
    uint64_t lost = 0;
    for (uint32_t i = 0; i < PLAIN_SLOTS; i++) {
        uint64_t owner = atomic_load_explicit(&slots.owners[i], memory_order_relaxed);
        lost += !(owner & RESERVED) && !arrived(owner);
    }
    for (uint32_t i = 0; i < PLAIN_SLOTS; i++)
        atomic_store_explicit(&slots.owners[i], 0, memory_order_relaxed);
    for (uint32_t i = 0; i < atomic_load_explicit(&slots.node_high, memory_order_relaxed); i++) {
        uint64_t owner = atomic_load_explicit(&slots.node_owners[i], memory_order_relaxed);
        if (owner)
            set_node_owner(i, &owner, 0);
    }
    return lost;
}

/* ---- where the GPU finds them ---- */

enum alias_state {
    ALIAS_NONE,   /* this entry was never used */
    ALIAS_LIVE,   /* registered with ctx */
    ALIAS_ENDING, /* its context may be ending: no stamps, no second registration */
    ALIAS_GONE,   /* of a context that has ended, or of an arena before */
};

struct alias {
    _Atomic int state; /* enum alias_state */
    _Atomic(CUcontext) ctx;
    _Atomic uint64_t address; /* for the GPU */
    CUdevice device;
};

static struct {
    _Alignas(64) _Atomic uint32_t count;
    atomic_bool off;    /* for good */
    atomic_bool paused; /* the pages are being exchanged */
    bool asked;
    struct alias aliases[ALIASES]; /* the first, of most programs the only one, on the same cache line */
    pthread_mutex_t lock;          /* taken once a context, never waited for by a launch */
} stamps LITHOS_LAUNCH_DATA = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void switch_off(const char *step, CUresult result)
{
    atomic_store(&stamps.off, true);
    lithos_log_once(
        LITHOS_LOG_WARNING,
        "no completion stamps in this process: %s (error %d). Launches are confined as before, but "
        "lithosd does not see how long they take",
        step, result);
}

typedef CUresult (*ctx_current_fn)(CUcontext *);
typedef CUresult (*ctx_device_fn)(CUdevice *);
typedef CUresult (*host_register_fn)(void *, size_t, unsigned);
typedef CUresult (*host_pointer_fn)(CUdeviceptr *, void *, unsigned);
typedef CUresult (*capture_mode_fn)(int *);

/* Register an alias with the current context. Registering may not be done while a stream captures, unless this thread says
 * that it knows what it is doing. */
static CUresult register_alias(void *alias, CUdeviceptr *ret_address)
{
    int mode = MODE_RELAXED;
    CUresult exchanged = LITHOS_REAL(capture_mode_fn, cuThreadExchangeStreamCaptureMode)(&mode);
    CUresult result = LITHOS_REAL(host_register_fn, cuMemHostRegister_v2)(
        alias, sizeof lithos_tenant_home.stamps, CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP);
    if (result == CUDA_SUCCESS)
        result = LITHOS_REAL(host_pointer_fn, cuMemHostGetDevicePointer_v2)(ret_address, alias, 0);
    if (exchanged == CUDA_SUCCESS)
        LITHOS_REAL(capture_mode_fn, cuThreadExchangeStreamCaptureMode)(&mode);
    return result;
}

/* Under the lock: a registration for the current context. */
static void add_alias(CUcontext ctx)
{
    const char *env = stamps.asked ? NULL : getenv("LITHOS_STAMPS");
    stamps.asked = true;
    if (env && !strcmp(env, "off")) {
        atomic_store(&stamps.off, true);
        return;
    }
    uint32_t n = atomic_load(&stamps.count);
    if (n == ALIASES) {
        switch_off("too many contexts or restarts of lithosd", 0);
        return;
    }
    /* Old size 0: the same pages once more, which only a shared mapping has. */
    void *alias = mremap(lithos_tenant_home.stamps, 0, sizeof lithos_tenant_home.stamps, MREMAP_MAYMOVE);
    if (alias == MAP_FAILED) {
        switch_off("the stamps cannot be mapped", errno);
        return;
    }
    CUdeviceptr address = 0;
    CUdevice device = LITHOS_DEVICE_UNKNOWN;
    CUresult result = LITHOS_REAL(ctx_device_fn, cuCtxGetDevice)(&device);
    if (result == CUDA_SUCCESS)
        result = register_alias(alias, &address);
    if (result != CUDA_SUCCESS || !address || address % LITHOS_QMD_RELEASE_BYTES) {
        /* Nothing has its address: it may go (when the driver holds on to it, the pages stay with the driver). */
        munmap(alias, sizeof lithos_tenant_home.stamps);
        switch_off("the driver does not register their memory", result);
        return;
    }
    struct alias *a = &stamps.aliases[n];
    atomic_store(&a->ctx, ctx);
    atomic_store(&a->address, address);
    a->device = device;
    atomic_store_explicit(&a->state, ALIAS_LIVE, memory_order_release);
    atomic_store_explicit(&stamps.count, n + 1, memory_order_release);
}

/* The entry of a context: its address, 0 when it is ending, or -1 (none yet). */
static LITHOS_LAUNCH_PATH int64_t find_alias(CUcontext ctx)
{
    uint32_t count = atomic_load_explicit(&stamps.count, memory_order_acquire);
    for (uint32_t i = count; i-- > 0;) {
        const struct alias *a = &stamps.aliases[i];
        int state = atomic_load_explicit(&a->state, memory_order_acquire);
        if (__builtin_expect(
                state == ALIAS_GONE || atomic_load_explicit(&a->ctx, memory_order_relaxed) != ctx, 0))
            continue;
        return __builtin_expect(state == ALIAS_LIVE, 1)
                   ? (int64_t)atomic_load_explicit(&a->address, memory_order_relaxed)
                   : 0;
    }
    return -1;
}

LITHOS_LAUNCH_PATH uint64_t lithos_stamps_base(CUcontext ctx)
{
    if (__builtin_expect(atomic_load_explicit(&stamps.off, memory_order_relaxed) ||
                             atomic_load_explicit(&stamps.paused, memory_order_acquire),
                         0))
        return 0;
    int64_t address = find_alias(ctx);
    return address > 0 ? (uint64_t)address : 0;
}

void lithos_stamps_ready(void)
{
    CUcontext ctx = NULL;
    if (atomic_load_explicit(&stamps.off, memory_order_relaxed) ||
        atomic_load_explicit(&stamps.paused, memory_order_acquire) ||
        LITHOS_REAL(ctx_current_fn, cuCtxGetCurrent)(&ctx) != CUDA_SUCCESS || !ctx || find_alias(ctx) >= 0)
        return;
    if (pthread_mutex_trylock(&stamps.lock) != 0)
        return; /* another thread is at it: this launch goes without */
    if (find_alias(ctx) < 0 && !atomic_load(&stamps.paused))
        add_alias(ctx);
    pthread_mutex_unlock(&stamps.lock);
}

/* Move the entries of a context (or with NULL of a device) from one state to another. */
static void move_aliases(CUcontext ctx, CUdevice device, int from, int to)
{
    uint32_t count = atomic_load_explicit(&stamps.count, memory_order_acquire);
    for (uint32_t i = 0; i < count; i++) {
        struct alias *a = &stamps.aliases[i];
        int state = from;
        if (ctx ? atomic_load(&a->ctx) == ctx : a->device == device)
            atomic_compare_exchange_strong(&a->state, &state, to);
    }
}

void lithos_stamps_context_ends(CUcontext ctx, CUdevice device)
{
    move_aliases(ctx, device, ALIAS_LIVE, ALIAS_ENDING);
}

void lithos_stamps_context_ended(CUcontext ctx, CUdevice device, bool ended)
{
    /* With a device: one of its contexts has ended, its primary one; for the others the next launch registers anew. */
    move_aliases(ctx, device, ALIAS_ENDING, ended ? ALIAS_GONE : ALIAS_LIVE);
}

uint64_t lithos_stamps_stop_address(CUcontext ctx)
{
    lithos_stamps_ready();
    const uint64_t base = lithos_stamps_base(ctx);
    return base ? base + LITHOS_STAMP_STOP_SLOT * sizeof(struct lithos_stamp) +
                      offsetof(struct lithos_stamp, payload)
                : 0;
}

void lithos_stamps_pause(void)
{
    pthread_mutex_lock(&stamps.lock); /* a registration, at most */
    lithos_arena_let_graphs(&lithos_tenant_home,
                            true); /* what was made over these pages looks there for good */
    atomic_store(&stamps.paused, true);
    uint32_t count = atomic_load(&stamps.count);
    for (uint32_t i = 0; i < count; i++)
        atomic_store(&stamps.aliases[i].state, ALIAS_GONE);
    pthread_mutex_unlock(&stamps.lock);
    lithos_arena_count(&lithos_tenant_home, LITHOS_COUNTER_STAMPS_DROPPED, free_slots());
}

void lithos_stamps_resume(void)
{
    free_slots(); /* also what was handed out meanwhile by launches that were under way: its stamps go to the old pages */
    atomic_store(&stamps.paused, false);
}

void lithos_stamps_forget(void)
{
    static const pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
    memcpy(&stamps.lock, &fresh, sizeof fresh);
    memset(stamps.aliases, 0, sizeof stamps.aliases);
    atomic_store(&stamps.count, 0);
    atomic_store(&stamps.off, false);
    atomic_store(&stamps.paused, false);
    stamps.asked = false;
    free_slots();
}
