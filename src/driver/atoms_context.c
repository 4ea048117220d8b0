/* Entries first live in pinned memory, which the CPU writes and the GPU reads across the bus: no driver call is on the way of a
 * launch. From time to time those that are new are copied, by an asynchronous copy on a stream of our own, into the GPU's memory.
 *
 * A context's memory and module are never given back by us: kernels in flight read them. They go with the context. */
#include "driver/atoms_context.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "driver/atoms.h"
#include "driver/exports.h"
#include "driver/prelude.h"

#define CONTEXTS 64u
#define TABLE (2u * LITHOS_ATOMS_ENTRIES) /* a power of two */
#define TRIES 64u
#define SETTLE_NS (2 * LITHOS_NSEC_PER_MSEC)
#define POOL_BYTES (LITHOS_ATOMS_ENTRIES * sizeof(struct lithos_prelude_entry))
_Static_assert((TABLE & (TABLE - 1)) == 0, "places wrap by masking");
_Static_assert(POOL_BYTES >= LITHOS_PRELUDE_SCRATCH_BYTES, "the pool is the scratch memory as well");

enum state {
    STATE_LIVE,
    STATE_FAILED, /* the prelude cannot be had there: not tried again */
    STATE_ENDING, /* its context may be ending: no more atoms */
    STATE_GONE,
};

struct lithos_atoms_context {
    _Atomic int state; /* enum state */
    CUcontext ctx;
    CUdevice device;
    const struct lithos_prelude_row *row;
    uint64_t code;
    struct lithos_prelude_entry *entries; /* pinned */
    CUdeviceptr pinned, pool;             /* the same for the GPU, and its own memory */
    CUstream stream;
    CUevent copied;
    _Atomic uint32_t next; /* entries handed out; 0 is the one that nothing survives */
    atomic_bool written[LITHOS_ATOMS_ENTRIES];
    _Atomic uint32_t places[TABLE]; /* entry number by hash, 0 none */
    _Atomic uint32_t promoted;      /* entries below it are in the pool */
    atomic_flag promoting;
    uint32_t copying; /* under promoting: entries below it are being copied; 0 none */
};

static struct {
    pthread_mutex_t lock; /* taken once a context, never waited for by a launch */
    _Atomic uint32_t count;
    struct lithos_atoms_context *_Atomic all[CONTEXTS];
} contexts = {.lock = PTHREAD_MUTEX_INITIALIZER};

typedef CUresult (*ctx_current_fn)(CUcontext *);
typedef CUresult (*ctx_device_fn)(CUdevice *);
typedef CUresult (*host_alloc_fn)(void **, size_t, unsigned);
typedef CUresult (*host_pointer_fn)(CUdeviceptr *, void *, unsigned);
typedef CUresult (*mem_alloc_fn)(CUdeviceptr *, size_t);
typedef CUresult (*stream_create_fn)(CUstream *, unsigned);
typedef CUresult (*event_create_fn)(CUevent *, unsigned);
typedef CUresult (*event_record_fn)(CUevent, CUstream);
typedef CUresult (*event_query_fn)(CUevent);
typedef CUresult (*copy_fn)(CUdeviceptr, const void *, size_t, CUstream);
typedef CUresult (*capture_mode_fn)(int *);
typedef CUresult (*launch_fn)(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                              unsigned, CUstream, void **, void **);

/* ---- entries ---- */

static uint32_t place_of(const struct lithos_prelude_entry *e)
{
    uint64_t h = (e->target ^ (uint64_t)e->lo << 20) * 0x9e3779b97f4a7c15ull;
    uint64_t line = ((uint64_t)e->span << 32) ^ e->width ^ ((uint64_t)e->height << 16);
    h = (h ^ (h >> 32) ^ line) * 0x9e3779b97f4a7c15ull;
    return (uint32_t)(h >> 40) & (TABLE - 1);
}

static bool same(const struct lithos_prelude_entry *a, const struct lithos_prelude_entry *b)
{
    return a->lo == b->lo && a->span == b->span && a->target == b->target && a->width == b->width &&
           a->height == b->height;
}

static uint32_t entry_new(struct lithos_atoms_context *c, const struct lithos_prelude_entry *entry)
{
    if (atomic_load_explicit(&c->next, memory_order_relaxed) >= LITHOS_ATOMS_ENTRIES)
        return 0;
    uint32_t n = atomic_fetch_add_explicit(&c->next, 1, memory_order_relaxed);
    if (n >= LITHOS_ATOMS_ENTRIES)
        return 0;
    c->entries[n] = *entry;
    atomic_store_explicit(&c->written[n], true, memory_order_release);
    return n;
}

static uint64_t address_of(const struct lithos_atoms_context *c, uint32_t n)
{
    CUdeviceptr base = n < atomic_load_explicit(&c->promoted, memory_order_acquire) ? c->pool : c->pinned;
    return base + (uint64_t)n * sizeof(struct lithos_prelude_entry);
}

uint64_t lithos_atoms_context_nothing(const struct lithos_atoms_context *c)
{
    return address_of(c, 0);
}

uint64_t lithos_atoms_context_entry(struct lithos_atoms_context *c, const struct lithos_prelude_entry *entry)
{
    uint32_t mine = 0;
    for (uint32_t i = 0, at = place_of(entry); i < TRIES; i++, at = (at + 1) & (TABLE - 1)) {
        uint32_t there = atomic_load_explicit(&c->places[at], memory_order_acquire);
        if (!there) {
            if (!mine && !(mine = entry_new(c, entry)))
                return 0;
            if (atomic_compare_exchange_strong_explicit(&c->places[at], &there, mine, memory_order_acq_rel,
                                                        memory_order_acquire))
                return address_of(c, mine);
        }
        if (same(&c->entries[there], entry))
            return address_of(c, there);
    }
    return 0;
}

/* Entries from the first on that are written without a gap. */
static uint32_t written_to(const struct lithos_atoms_context *c, uint32_t from)
{
    while (from < LITHOS_ATOMS_ENTRIES && atomic_load_explicit(&c->written[from], memory_order_acquire))
        from++;
    return from;
}

/* Whether a copy is under way afterwards. */
static bool copy_over(struct lithos_atoms_context *c)
{
    CUresult result = LITHOS_REAL(event_query_fn, cuEventQuery)(c->copied);
    if (result == CUDA_ERROR_NOT_READY)
        return true;
    if (result == CUDA_SUCCESS)
        atomic_store_explicit(&c->promoted, c->copying, memory_order_release);
    c->copying = 0; /* what did not come stays in pinned memory */
    return false;
}

static void copy_new(struct lithos_atoms_context *c)
{
    uint32_t from = atomic_load_explicit(&c->promoted, memory_order_relaxed), to = written_to(c, from);
    uint64_t at = (uint64_t)from * sizeof *c->entries;
    if (from == to)
        return;
    struct lithos_ticket ticket;
    lithos_ticket_open(&ticket, LITHOS_TICKET_DRIVER, NULL);
    CUresult result = LITHOS_REAL(copy_fn, cuMemcpyHtoDAsync_v2)(c->pool + at, &c->entries[from],
                                                                 (to - from) * sizeof *c->entries, c->stream);
    lithos_ticket_close(&ticket);
    if (result == CUDA_SUCCESS &&
        LITHOS_REAL(event_record_fn, cuEventRecord)(c->copied, c->stream) == CUDA_SUCCESS)
        c->copying = to;
}

int lithos_atoms_relax_capture(int mode)
{
    return LITHOS_REAL(capture_mode_fn, cuThreadExchangeStreamCaptureMode)(&mode) == CUDA_SUCCESS ? mode : -1;
}

void lithos_atoms_context_promote(struct lithos_atoms_context *c)
{
    uint32_t promoted = atomic_load_explicit(&c->promoted, memory_order_relaxed);
    if (__builtin_expect(promoted >= atomic_load_explicit(&c->next, memory_order_relaxed), 1) ||
        promoted >= LITHOS_ATOMS_ENTRIES ||
        atomic_flag_test_and_set_explicit(&c->promoting, memory_order_acquire))
        return;
    int mode = lithos_atoms_relax_capture(CU_STREAM_CAPTURE_MODE_RELAXED);
    if (!c->copying || !copy_over(c))
        copy_new(c);
    if (mode >= 0)
        lithos_atoms_relax_capture(mode);
    atomic_flag_clear_explicit(&c->promoting, memory_order_release);
}

void lithos_atoms_context_settle(struct lithos_atoms_context *c)
{
    uint64_t deadline_ns = lithos_now_ns() + SETTLE_NS;
    uint32_t next = LITHOS_MIN(atomic_load_explicit(&c->next, memory_order_relaxed), LITHOS_ATOMS_ENTRIES);
    do
        lithos_atoms_context_promote(c);
    while (atomic_load_explicit(&c->promoted, memory_order_relaxed) < next && lithos_now_ns() < deadline_ns);
}

CUcontext lithos_atoms_context_handle(const struct lithos_atoms_context *c)
{
    return c->ctx;
}

CUdevice lithos_atoms_context_device(const struct lithos_atoms_context *c)
{
    return c->device;
}

/* ---- the prelude ---- */

uint64_t lithos_atoms_context_code(const struct lithos_atoms_context *c, unsigned kind)
{
    return c->code + (uint64_t)kind * LITHOS_PRELUDE_STRIDE;
}

bool lithos_atoms_context_is_prelude(const struct lithos_atoms_context *c, uint64_t address)
{
    return address >= c->code && address < c->code + LITHOS_PRELUDE_BYTES;
}

void lithos_atoms_context_located(struct lithos_atoms_context *c, uint64_t code)
{
    c->code = code;
}

uint32_t lithos_atoms_context_registers(const struct lithos_atoms_context *c)
{
    return lithos_prelude_registers(c->row);
}

static const struct lithos_hook_device *device_of(CUdevice handle)
{
    const struct lithos_hook_device *devices;
    int count = lithos_hook_devices(&devices);
    for (int i = 0; i < count; i++)
        if (devices[i].handle == handle)
            return &devices[i];
    return NULL;
}

/* Memory, stream and event. 0, or the driver's error. */
static CUresult make_room(struct lithos_atoms_context *c, const char **ret_step)
{
    void *entries = NULL;
    *ret_step = "cuMemHostAlloc";
    CUresult result =
        LITHOS_REAL(host_alloc_fn, cuMemHostAlloc)(&entries, POOL_BYTES, CU_MEMHOSTALLOC_DEVICEMAP);
    if (result == CUDA_SUCCESS)
        result = LITHOS_REAL(host_pointer_fn, cuMemHostGetDevicePointer_v2)(&c->pinned, entries, 0);
    if (result != CUDA_SUCCESS)
        return result;
    memset(entries, 0, POOL_BYTES);
    c->entries = entries;
    *ret_step = "cuMemAlloc";
    result = LITHOS_REAL(mem_alloc_fn, cuMemAlloc_v2)(&c->pool, POOL_BYTES);
    if (result != CUDA_SUCCESS)
        return result;
    *ret_step = "cuStreamCreate";
    result = LITHOS_REAL(stream_create_fn, cuStreamCreate)(&c->stream, CU_STREAM_NON_BLOCKING);
    if (result == CUDA_SUCCESS)
        result = LITHOS_REAL(event_create_fn, cuEventCreate)(&c->copied, CU_EVENT_DISABLE_TIMING);
    return result;
}

/* Launch it once, so that the callback sees where it lies. Nothing of it runs. */
static int locate(struct lithos_atoms_context *c, CUfunction kernel, char *why, size_t why_bytes)
{
    struct lithos_ticket ticket;
    struct lithos_atom atom = {.where = c, .locate = true};
    void *params[] = {&c->pool};
    lithos_ticket_open_atom(&ticket, LITHOS_TICKET_DRIVER, NULL, &atom);
    CUresult result =
        LITHOS_REAL(launch_fn, cuLaunchKernel)(kernel, 1, 1, 1, 1, 1, 1, 0, c->stream, params, NULL);
    lithos_ticket_close(&ticket);
    if (result == CUDA_SUCCESS && c->code)
        return 0;
    snprintf(why, why_bytes, "the prelude's own launch %s (error %d)",
             result == CUDA_SUCCESS ? "was not seen as it should be" : "fails", result);
    return -EIO;
}

static int make(struct lithos_atoms_context *c, char *why, size_t why_bytes)
{
#define X(member, name, parameters) .member = LITHOS_REAL(CUresult(*) parameters, name),
    const struct lithos_prelude_cuda cu = { LITHOS_PRELUDE_CUDA(X) };
#undef X
    const struct lithos_hook_device *device = device_of(c->device);
    const char *env = getenv("LITHOS_UNTESTED_GPU"), *step;
    CUmodule module;
    CUfunction kernel;
    if (!device ||
        lithos_prelude_find(device->cc_major, device->cc_minor, env && !strcmp(env, "1"), &c->row) < 0) {
        snprintf(why, why_bytes, "there is no prelude for this GPU");
        return -ENOTSUP;
    }
    if (!lithos_export_real(LITHOS_EXPORT_cuLaunchKernelEx)) {
        snprintf(why, why_bytes, "the driver has no cuLaunchKernelEx: it is too old");
        return -ENOTSUP;
    }
    CUresult result = make_room(c, &step);
    if (result != CUDA_SUCCESS) {
        snprintf(why, why_bytes, "%s fails (error %d)", step, result);
        return -EIO;
    }
    c->entries[0].lo = LITHOS_PRELUDE_NOTHING;
    atomic_store(&c->written[0], true);
    atomic_store(&c->next, 1);
    int r = lithos_prelude_load(&cu, c->row, &module, &kernel, why, why_bytes);
    return r < 0 ? r : locate(c, kernel, why, why_bytes);
}

/* Under the lock. */
static struct lithos_atoms_context *add(CUcontext ctx)
{
    char why[256] = "";
    uint32_t n = atomic_load(&contexts.count);
    struct lithos_atoms_context *c = n < CONTEXTS ? calloc(1, sizeof *c) : NULL;
    if (!c) {
        lithos_log_once(LITHOS_LOG_WARNING, "kernels are not cut into atoms in further contexts: %s",
                        n < CONTEXTS ? "out of memory" : "this process has made too many");
        return NULL;
    }
    c->ctx = ctx;
    c->device = LITHOS_DEVICE_UNKNOWN;
    int r = LITHOS_REAL(ctx_device_fn, cuCtxGetDevice)(&c->device) == CUDA_SUCCESS ? 0 : -EIO;
    int mode = lithos_atoms_relax_capture(CU_STREAM_CAPTURE_MODE_RELAXED);
    if (r == 0)
        r = make(c, why, sizeof why);
    if (mode >= 0)
        lithos_atoms_relax_capture(mode);
    if (r < 0)
        lithos_log_once(LITHOS_LOG_WARNING, "kernels are not cut into atoms: %s", why);
    atomic_store(&c->state, r < 0 ? STATE_FAILED : STATE_LIVE);
    atomic_store_explicit(&contexts.all[n], c, memory_order_release);
    atomic_store_explicit(&contexts.count, n + 1, memory_order_release);
    return r < 0 ? NULL : c;
}

/* False: none yet. */
static bool find(CUcontext ctx, struct lithos_atoms_context **ret_context)
{
    uint32_t count = atomic_load_explicit(&contexts.count, memory_order_acquire);
    for (uint32_t i = count; i-- > 0;) {
        struct lithos_atoms_context *c = atomic_load_explicit(&contexts.all[i], memory_order_acquire);
        int state = atomic_load_explicit(&c->state, memory_order_acquire);
        if (state == STATE_GONE || c->ctx != ctx)
            continue;
        *ret_context = state == STATE_LIVE ? c : NULL;
        return true;
    }
    return false;
}

struct lithos_atoms_context *lithos_atoms_context_here(void)
{
    CUcontext ctx = NULL;
    struct lithos_atoms_context *c = NULL;
    if (LITHOS_REAL(ctx_current_fn, cuCtxGetCurrent)(&ctx) != CUDA_SUCCESS || !ctx)
        return NULL;
    if (__builtin_expect(find(ctx, &c), 1))
        return c;
    /* The prelude runs by what the callback writes. Where that is not called, because a profiler or debugger has it, its own
     * launch would run into whatever constant bank 6 holds, and end the app's context. */
    if (!lithos_hook_heard() || pthread_mutex_trylock(&contexts.lock) != 0)
        return NULL;
    if (!find(ctx, &c))
        c = add(ctx);
    pthread_mutex_unlock(&contexts.lock);
    return c;
}

/* Move those of a context (or with NULL of a device) from one state to another. */
static void move(CUcontext ctx, CUdevice device, int from, int to)
{
    uint32_t count = atomic_load_explicit(&contexts.count, memory_order_acquire);
    for (uint32_t i = 0; i < count; i++) {
        struct lithos_atoms_context *c = atomic_load_explicit(&contexts.all[i], memory_order_acquire);
        int state = from;
        if (ctx ? c->ctx == ctx : c->device == device)
            atomic_compare_exchange_strong(&c->state, &state, to);
    }
}

void lithos_atoms_contexts_end(CUcontext ctx, CUdevice device)
{
    move(ctx, device, STATE_LIVE, STATE_ENDING);
}

void lithos_atoms_contexts_ended(CUcontext ctx, CUdevice device, bool ended)
{
    move(ctx, device, STATE_ENDING, ended ? STATE_GONE : STATE_LIVE);
    if (ended)
        move(ctx, device, STATE_FAILED, STATE_GONE);
}

void lithos_atoms_contexts_forget(void)
{
    static const pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
    memcpy(&contexts.lock, &fresh, sizeof fresh);
    atomic_store(&contexts.count, 0);
}
