/* What handles stand for: contexts, streams, events, functions. Found by any thread without a lock; put there under one. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "driver/exports.h"
#include "tenant/queue_internal.h"

#define TLS __attribute__((tls_model("initial-exec")))
#define GONE ((uintptr_t)1) /* a key that was taken away: others may lie behind it */
#define CHECKED_SLOTS 16384u
#define CHECKED_TRIES 4u
#define PARAMETERS_ALL (1u << 20) /* of all functions */

typedef CUresult (*ctx_current_fn)(CUcontext *);
typedef CUresult (*ctx_push_fn)(CUcontext);
typedef CUresult (*stream_ctx_fn)(CUstream, CUcontext *);
typedef CUresult (*stream_flags_fn)(CUstream, unsigned *);
typedef CUresult (*event_fn)(CUevent);
typedef CUresult (*capture_mode_fn)(int *);
typedef CUresult (*parameter_fn)(const void *, size_t, size_t *, size_t *);
typedef CUresult (*name_fn)(const char **, const void *);

/* ---- maps ---- */

static uint32_t place(const struct queue_map *m, uintptr_t key, uint32_t i)
{
    return ((uint32_t)(lithos_queue_mix(0, key) >> 16) + i) & (m->slots - 1);
}

static int32_t find(const struct queue_map *m, uintptr_t key)
{
    for (uint32_t i = 0; i < m->slots; i++) {
        uint32_t slot = place(m, key, i);
        uintptr_t there = atomic_load_explicit(&m->keys[slot], memory_order_acquire);
        if (there == key)
            return (int32_t)slot;
        if (!there)
            break;
    }
    return -1;
}

/* Under the lock: where a key that is not there may go; -1: nowhere. The caller fills in what it stands for, then sets the key. */
static int32_t make_room(struct queue_map *m, uintptr_t key)
{
    for (uint32_t i = 0; i < m->slots; i++) {
        uint32_t slot = place(m, key, i);
        uintptr_t there = atomic_load_explicit(&m->keys[slot], memory_order_relaxed);
        if (there == GONE)
            return (int32_t)slot;
        if (there)
            continue;
        if (m->used >= m->slots / 4 * 3)
            return -1;
        m->used++;
        return (int32_t)slot;
    }
    return -1;
}

static void set(struct queue_map *m, int32_t slot, uintptr_t key)
{
    atomic_store_explicit(&m->keys[slot], key, memory_order_release);
}

/* Under the lock. A run of keys that are gone at the end of a chain is nothing to step over. */
static void take_away(struct queue_map *m, int32_t slot)
{
    set(m, slot, GONE);
    if (atomic_load(&m->keys[(uint32_t)(slot + 1) & (m->slots - 1)]))
        return;
    for (uint32_t i = (uint32_t)slot; atomic_load(&m->keys[i]) == GONE; i = (i - 1) & (m->slots - 1)) {
        atomic_store(&m->keys[i], 0);
        m->used--;
    }
}

/* Memory that costs nothing before it is touched. */
static void *pages(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static bool map_init(struct queue_map *m, uint32_t slots)
{
    m->slots = slots;
    m->keys = pages(slots * sizeof *m->keys);
    return m->keys != NULL;
}

int lithos_queue_tables_init(struct queue *q)
{
    pthread_mutex_init(&q->lock, NULL);
    atomic_store(&q->function_epoch, 1);
    atomic_store(&q->graph_epoch, 1);
    bool ok = map_init(&q->stream_map, QUEUE_STREAM_SLOTS) && map_init(&q->event_map, QUEUE_EVENT_SLOTS) &&
              map_init(&q->function_map, QUEUE_FUNCTION_SLOTS);
    q->streams = pages(QUEUE_STREAMS * sizeof *q->streams);
    q->stream_of = pages(QUEUE_STREAM_SLOTS * sizeof *q->stream_of);
    q->events = pages(QUEUE_EVENT_SLOTS * sizeof *q->events);
    q->functions = pages(QUEUE_FUNCTION_SLOTS * sizeof *q->functions);
    q->parameters = pages(PARAMETERS_ALL * sizeof *q->parameters);
    q->checked = pages(CHECKED_SLOTS * sizeof *q->checked);
    q->estimates = pages((QUEUE_ESTIMATES + 1) * sizeof *q->estimates);
    void *ring = pages((size_t)QUEUE_RING_GRANULES * LITHOS_QUEUE_GRANULE);
    if (!ok || !q->streams || !q->stream_of || !q->events || !q->functions || !q->parameters || !q->checked ||
        !q->estimates || !ring)
        return -ENOMEM; /* the caller gives up for good: what was mapped costs nothing */
    lithos_queue_ring_init(&q->ring, ring, QUEUE_RING_GRANULES);
    q->loose = &q->streams[0];
    TAILQ_INIT(&q->loose->entries);
    atomic_store(&q->loose->key, GONE);
    atomic_store(&q->stream_count, 1);
    return 0;
}

/* ---- contexts ---- */

static struct queue_context *find_context(struct queue *q, CUcontext ctx)
{
    for (unsigned i = 0; i < QUEUE_CONTEXTS; i++)
        if (atomic_load_explicit(&q->contexts[i].ctx, memory_order_acquire) == ctx)
            return &q->contexts[i];
    return NULL;
}

static uint32_t device_of(CUcontext ctx)
{
    int32_t device = atomic_load_explicit(&lithos_hook_only_device, memory_order_acquire);
    if (device < 0 && LITHOS_REAL(ctx_push_fn, cuCtxPushCurrent_v2)(ctx) == CUDA_SUCCESS) {
        device = lithos_hook_current_device();
        LITHOS_REAL(ctx_current_fn, cuCtxPopCurrent_v2)(&ctx);
    }
    return device < 0 ? QUEUE_DEVICES - 1 : (uint32_t)device;
}

/* Under the lock: a stream that nobody has. */
static struct queue_stream *new_stream(struct queue *q)
{
    uint32_t count = atomic_load_explicit(&q->stream_count, memory_order_relaxed);
    for (uint32_t i = 0; i < count; i++)
        if (!atomic_load_explicit(&q->streams[i].key, memory_order_relaxed))
            return &q->streams[i];
    if (count == QUEUE_STREAMS)
        return NULL;
    TAILQ_INIT(&q->streams[count].entries);
    return &q->streams[count];
}

/* Under the lock. */
static struct queue_stream *add_stream(struct queue *q, struct queue_context *c, uintptr_t key, bool legacy,
                                       bool blocking)
{
    struct queue_stream *s = new_stream(q);
    int32_t slot = s ? make_room(&q->stream_map, key) : -1;
    if (slot < 0)
        return NULL;
    s->context = c;
    s->legacy = legacy;
    s->blocking = blocking;
    atomic_store_explicit(&s->renewed, true, memory_order_relaxed);
    atomic_store_explicit(&s->key, key, memory_order_release);
    if (s == &q->streams[atomic_load_explicit(&q->stream_count, memory_order_relaxed)])
        atomic_fetch_add_explicit(&q->stream_count, 1, memory_order_release);
    q->stream_of[slot] = (uint16_t)(s - q->streams);
    set(&q->stream_map, slot, key);
    return s;
}

/* Unless it is there. */
static struct queue_context *add_context(struct queue *q, CUcontext ctx)
{
    uint32_t device = device_of(ctx);
    pthread_mutex_lock(&q->lock);
    struct queue_context *c = find_context(q, ctx);
    if (!c) {
        c = find_context(q, NULL);
        struct queue_stream *legacy = c ? add_stream(q, c, (uintptr_t)ctx | 1, true, true) : NULL;
        if (legacy) {
            c->device = device;
            c->legacy = legacy;
            atomic_store_explicit(&c->error, 0, memory_order_relaxed);
            atomic_store_explicit(&c->lost, false, memory_order_relaxed);
            atomic_store_explicit(&c->ctx, ctx, memory_order_release);
        } else {
            c = NULL;
        }
    }
    pthread_mutex_unlock(&q->lock);
    return c;
}

static __thread struct queue_context *my_context TLS;

struct queue_context *lithos_queue_context(struct queue *q)
{
    CUcontext ctx = NULL;
    if (LITHOS_REAL(ctx_current_fn, cuCtxGetCurrent)(&ctx) != CUDA_SUCCESS || !ctx)
        return NULL;
    if (my_context && atomic_load_explicit(&my_context->ctx, memory_order_relaxed) == ctx)
        return my_context;
    struct queue_context *c = find_context(q, ctx);
    my_context = c ? c : add_context(q, ctx);
    return my_context;
}

/* ---- streams ---- */

static __thread struct queue_stream *my_stream TLS;

static struct queue_stream *see_stream(struct queue *q, CUstream handle)
{
    CUcontext ctx = NULL;
    unsigned flags = 0;
    if (LITHOS_REAL(stream_ctx_fn, cuStreamGetCtx)(handle, &ctx) != CUDA_SUCCESS || !ctx ||
        LITHOS_REAL(stream_flags_fn, cuStreamGetFlags)(handle, &flags) != CUDA_SUCCESS)
        return NULL;
    struct queue_context *c = add_context(q, ctx);
    if (!c)
        return NULL;
    pthread_mutex_lock(&q->lock);
    int32_t slot = find(&q->stream_map, (uintptr_t)handle);
    struct queue_stream *s =
        slot >= 0 ? &q->streams[q->stream_of[slot]]
                  : add_stream(q, c, (uintptr_t)handle, false, !(flags & CU_STREAM_NON_BLOCKING));
    pthread_mutex_unlock(&q->lock);
    return s;
}

struct queue_stream *lithos_queue_stream(struct queue *q, struct queue_context *c, CUstream handle, bool add)
{
    if (handle == NULL || handle == CU_STREAM_LEGACY)
        return c ? c->legacy : NULL;
    if (handle == CU_STREAM_PER_THREAD)
        return NULL;
    if (my_stream && atomic_load_explicit(&my_stream->key, memory_order_relaxed) == (uintptr_t)handle)
        return my_stream;
    int32_t slot = find(&q->stream_map, (uintptr_t)handle);
    struct queue_stream *s = slot >= 0 ? &q->streams[q->stream_of[slot]] : NULL;
    if (!s && add)
        s = see_stream(q, handle);
    if (s)
        my_stream = s;
    return s;
}

/* Under the lock. What is left of it in flight is dropped by the issuer when it meets the next that has its place. */
static void drop_stream(struct queue *q, struct queue_stream *s)
{
    int32_t slot = find(&q->stream_map, atomic_load_explicit(&s->key, memory_order_relaxed));
    if (slot >= 0)
        take_away(&q->stream_map, slot);
    atomic_store_explicit(&s->renewed, true, memory_order_relaxed);
    atomic_store_explicit(&s->key, 0, memory_order_release);
}

void lithos_queue_forget_stream(struct queue *q, CUstream handle)
{
    pthread_mutex_lock(&q->lock);
    int32_t slot = find(&q->stream_map, (uintptr_t)handle);
    if (slot >= 0)
        drop_stream(q, &q->streams[q->stream_of[slot]]);
    pthread_mutex_unlock(&q->lock);
    lithos_queue_capture_ends(q, (uintptr_t)handle);
}

void lithos_queue_forget_contexts(struct queue *q, CUcontext ctx, int device)
{
    pthread_mutex_lock(&q->lock);
    for (unsigned i = 0; i < QUEUE_CONTEXTS; i++) {
        struct queue_context *c = &q->contexts[i];
        CUcontext there = atomic_load_explicit(&c->ctx, memory_order_relaxed);
        if (!there || (ctx ? there != ctx : c->device != (uint32_t)device && c->device != QUEUE_DEVICES - 1))
            continue;
        uint32_t count = atomic_load_explicit(&q->stream_count, memory_order_relaxed);
        for (uint32_t s = 1; s < count; s++)
            if (q->streams[s].context == c && atomic_load_explicit(&q->streams[s].key, memory_order_relaxed))
                drop_stream(q, &q->streams[s]);
        atomic_store_explicit(&c->ctx, NULL, memory_order_release);
    }
    q->capture_count = 0; /* the streams of captures that were going on there are gone */
    atomic_store(&q->capturing, 0);
    pthread_mutex_unlock(&q->lock);
    atomic_fetch_add(&q->context_epoch, 1);
    atomic_fetch_add(&q->function_epoch, 1);
    atomic_fetch_add(&q->graph_epoch, 1);
}

/* ---- captures ---- */

/* One more than there is room for, and nothing is queued again: nobody captures in so many streams. */
void lithos_queue_capture_begins(struct queue *q, uintptr_t stream)
{
    pthread_mutex_lock(&q->lock);
    if (q->capture_count < LITHOS_ARRAY_SIZE(q->captures))
        q->captures[q->capture_count++] = stream;
    atomic_fetch_add(&q->capturing, 1);
    pthread_mutex_unlock(&q->lock);
}

void lithos_queue_capture_ends(struct queue *q, uintptr_t stream)
{
    if (!atomic_load(&q->capturing))
        return;
    pthread_mutex_lock(&q->lock);
    for (uint32_t i = 0; i < q->capture_count; i++)
        if (q->captures[i] == stream) {
            q->captures[i] = q->captures[--q->capture_count];
            atomic_fetch_sub(&q->capturing, 1);
            break;
        }
    pthread_mutex_unlock(&q->lock);
}

/* ---- events ---- */

int lithos_queue_relax(void)
{
    int mode = CU_STREAM_CAPTURE_MODE_RELAXED;
    LITHOS_REAL(capture_mode_fn, cuThreadExchangeStreamCaptureMode)(&mode);
    return mode;
}

void lithos_queue_relax_no_more(int mode)
{
    LITHOS_REAL(capture_mode_fn, cuThreadExchangeStreamCaptureMode)(&mode);
}

struct queue_event *lithos_queue_event(struct queue *q, CUevent handle, bool add)
{
    uintptr_t key = (uintptr_t)handle;
    int32_t slot = key > GONE ? find(&q->event_map, key) : -1;
    if (slot >= 0)
        return &q->events[slot];
    if (!add || key <= GONE)
        return NULL;
    int mode = lithos_queue_relax();
    CUresult result = LITHOS_REAL(event_fn, cuEventQuery)(handle);
    lithos_queue_relax_no_more(mode);
    if (result != CUDA_SUCCESS && result != CUDA_ERROR_NOT_READY)
        return NULL;
    pthread_mutex_lock(&q->lock);
    slot = find(&q->event_map, key);
    if (slot < 0 && (slot = make_room(&q->event_map, key)) >= 0)
        set(&q->event_map, slot, key);
    pthread_mutex_unlock(&q->lock);
    return slot >= 0 ? &q->events[slot] : NULL;
}

/* Counts go on where they are: all that was touched has been issued. */
void lithos_queue_forget_event(struct queue *q, CUevent handle)
{
    pthread_mutex_lock(&q->lock);
    int32_t slot = find(&q->event_map, (uintptr_t)handle);
    if (slot >= 0) {
        atomic_store_explicit(&q->events[slot].shared, false, memory_order_relaxed);
        take_away(&q->event_map, slot);
    }
    pthread_mutex_unlock(&q->lock);
}

/* ---- functions ---- */

/* Parameters of a CUfunction, or of a CUkernel under its type; -1: the driver does not say. */
static int ask_parameters(CUfunction handle, struct queue_parameter ret[QUEUE_PARAMETERS])
{
    parameter_fn ask = LITHOS_REAL(parameter_fn, cuFuncGetParamInfo);
    size_t offset, bytes;
    const char *name;
    if (ask(handle, 0, &offset, &bytes) != CUDA_SUCCESS) {
        ask = LITHOS_REAL(parameter_fn, cuKernelGetParamInfo);
        if (ask(handle, 0, &offset, &bytes) != CUDA_SUCCESS) /* none, if it is either at all */
            return LITHOS_REAL(name_fn, cuFuncGetName)(&name, handle) == CUDA_SUCCESS ||
                           LITHOS_REAL(name_fn, cuKernelGetName)(&name, handle) == CUDA_SUCCESS
                       ? 0
                       : -1;
    }
    int n = 0;
    while (n < (int)QUEUE_PARAMETERS && ask(handle, (size_t)n, &offset, &bytes) == CUDA_SUCCESS) {
        if (offset > QUEUE_PARAMETER_BYTES || bytes > QUEUE_PARAMETER_BYTES)
            return -1;
        ret[n++] = (struct queue_parameter){(uint32_t)offset, (uint32_t)bytes};
    }
    return n < (int)QUEUE_PARAMETERS ? n : -1;
}

/* Under the lock. Room for n; what a place had before is used again. NULL: there is no more. */
static struct queue_parameter *parameter_room(struct queue *q, struct queue_function *f, uint32_t n)
{
    if (n <= f->room)
        return f->parameter;
    if (n > PARAMETERS_ALL - q->parameters_used)
        return NULL;
    f->room = n;
    q->parameters_used += n;
    return q->parameters + q->parameters_used - n;
}

/* Under the lock. Nobody reads what is replaced: the function that had the handle before is gone. */
static void describe(struct queue *q, struct queue_function *f, const struct queue_parameter *parameter,
                     int n)
{
    uint32_t bytes = 0;
    for (int i = 0; i < n; i++)
        bytes = LITHOS_MAX(bytes, parameter[i].offset + parameter[i].bytes);
    f->set = 0;
    atomic_store(&f->shared_limit, INT_MAX);
    atomic_fetch_add(&f->version, 1);
    bool same = f->copyable && n >= 0 && f->parameters == (uint32_t)n && f->bytes == bytes &&
                (n == 0 || !memcmp(f->parameter, parameter, (size_t)n * sizeof *parameter));
    if (same)
        return;
    struct queue_parameter *room = n > 0 ? parameter_room(q, f, (uint32_t)n) : NULL;
    f->copyable = n == 0 || room;
    f->parameters = f->copyable ? (uint32_t)n : 0;
    f->bytes = bytes;
    if (room)
        f->parameter = memcpy(room, parameter, (size_t)n * sizeof *parameter);
}

struct queue_function *lithos_queue_function_here(struct queue *q, CUfunction handle)
{
    int32_t slot = (uintptr_t)handle > GONE ? find(&q->function_map, (uintptr_t)handle) : -1;
    return slot >= 0 ? &q->functions[slot] : NULL;
}

static const struct queue_function *see_function(struct queue *q, CUfunction handle, uint32_t epoch)
{
    struct queue_parameter parameter[QUEUE_PARAMETERS];
    if ((uintptr_t)handle <= GONE)
        return NULL;
    int n = ask_parameters(handle, parameter);
    pthread_mutex_lock(&q->lock);
    int32_t slot = find(&q->function_map, (uintptr_t)handle), added = -1;
    if (slot < 0)
        slot = added = make_room(&q->function_map, (uintptr_t)handle);
    struct queue_function *f = slot >= 0 ? &q->functions[slot] : NULL;
    if (f && atomic_load_explicit(&f->epoch, memory_order_relaxed) != epoch) {
        describe(q, f, parameter, n);
        atomic_store_explicit(&f->epoch, epoch, memory_order_release);
    }
    if (added >= 0)
        set(&q->function_map, added, (uintptr_t)handle);
    pthread_mutex_unlock(&q->lock);
    return f;
}

const struct queue_function *lithos_queue_function(struct queue *q, CUfunction handle)
{
    uint32_t epoch = atomic_load_explicit(&q->function_epoch, memory_order_relaxed);
    const struct queue_function *f = lithos_queue_function_here(q, handle);
    if (!f || __builtin_expect(atomic_load_explicit(&f->epoch, memory_order_acquire) != epoch, 0))
        f = see_function(q, handle, epoch);
    return f && f->copyable ? f : NULL;
}

/* ---- launches that were taken ---- */

bool lithos_queue_checked(const struct queue *q, uint64_t hash)
{
    for (uint32_t i = 0; i < CHECKED_TRIES; i++)
        if (atomic_load_explicit(&q->checked[(hash + i) & (CHECKED_SLOTS - 1)], memory_order_relaxed) == hash)
            return true;
    return false;
}

/* One that falls out again is only asked for again. */
void lithos_queue_check(struct queue *q, uint64_t hash)
{
    uint32_t i = 0;
    while (i < CHECKED_TRIES - 1 &&
           atomic_load_explicit(&q->checked[(hash + i) & (CHECKED_SLOTS - 1)], memory_order_relaxed))
        i++;
    atomic_store_explicit(&q->checked[(hash + i) & (CHECKED_SLOTS - 1)], hash, memory_order_relaxed);
}

void lithos_queue_tables_forget(void)
{
    my_context = NULL;
    my_stream = NULL;
}
