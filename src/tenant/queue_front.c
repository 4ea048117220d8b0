/* What becomes of the app's calls, on its own threads: they take a place in a queue, wait until what was queued before has been issued, are
 * answered, or just go on. */
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "driver/exports.h"
#include "tenant/attach.h"
#include "tenant/queue_internal.h"

#define TLS __attribute__((tls_model("initial-exec")))
/* Launches in a row, none of them waited for and so close to each other, after which a thread hands them over to the dispatcher, whose
 * calls then run beside the app's own work. A program that waits for each launch keeps making them itself. */
#define RUN 16u
#define RUN_NS (30 * LITHOS_NSEC_PER_USEC)
#define HOLD_LOOK_NS (50 * LITHOS_NSEC_PER_USEC)

typedef CUresult (*capturing_fn)(CUstream, int *);
typedef CUresult (*event_open_fn)(CUevent *);

static __thread struct {
    uint32_t launches; /* made by the thread itself */
    bool waited, hands_over;
    uint64_t since_ns;
} my TLS;

static struct queue *queues(void)
{
    return atomic_load_explicit(&lithos_queue, memory_order_acquire);
}

/* ---- waiting for what is queued ---- */

/* True: there was something to wait for. */
static bool wait_stream(struct queue *q, struct queue_stream *s)
{
    uint32_t upto = atomic_load_explicit(&s->enqueued, memory_order_acquire);
    if (atomic_load_explicit(&s->issued, memory_order_acquire) == upto)
        return false;
    lithos_queue_wait_issued(q, &s->issued, upto, UINT64_MAX);
    return true;
}

/* Of one context or (NULL) of all; of blocking streams or of all. */
static bool wait_streams(struct queue *q, const struct queue_context *c, bool blocking)
{
    bool waited = false;
    uint32_t count = atomic_load_explicit(&q->stream_count, memory_order_acquire);
    for (uint32_t i = 0; i < count; i++) {
        struct queue_stream *s = &q->streams[i];
        if ((!c || s->context == c) && (!blocking || s->blocking))
            waited |= wait_stream(q, s);
    }
    return waited;
}

static void drained(bool waited, enum lithos_drain why)
{
    if (waited)
        lithos_queue_count((enum lithos_counter)(LITHOS_COUNTER_DRAINED_SYNC + (int)why));
    if (why == LITHOS_DRAIN_SYNC) {
        my.waited = true;
        my.hands_over = false;
    }
}

static void drain_all(struct queue *q, const struct queue_context *c, enum lithos_drain why)
{
    drained(lithos_queue_depth(q) && wait_streams(q, c, false), why);
}

/* What a call on a stream has to come after. */
static void drain_for(struct queue *q, struct queue_context *c, CUstream handle, enum lithos_drain why)
{
    bool waited = false;
    if (lithos_queue_depth(q)) {
        struct queue_stream *s = lithos_queue_stream(q, c, handle, true);
        if (handle == CU_STREAM_PER_THREAD && c)
            waited = wait_stream(q, c->legacy);
        else if (!s)
            waited = wait_streams(q, NULL, false);
        else if (s->legacy)
            waited = wait_streams(q, c, true);
        else {
            waited = wait_stream(q, s);
            if (s->blocking)
                waited |= wait_stream(q, s->context->legacy);
        }
    }
    drained(waited, why);
}

static bool wait_event(struct queue *q, const _Atomic uint32_t *issued, const _Atomic uint32_t *ever)
{
    uint32_t upto = atomic_load_explicit(ever, memory_order_acquire);
    if (atomic_load_explicit(issued, memory_order_acquire) == upto)
        return false;
    lithos_queue_wait_issued(q, issued, upto, UINT64_MAX);
    return true;
}

/* All that names an event. */
static void drain_event(struct queue *q, CUevent handle, enum lithos_drain why)
{
    const struct queue_event *v = lithos_queue_event(q, handle, false);
    drained(v && wait_event(q, &v->touches_issued, &v->touched), why);
}

/* Threads in hold_back. */
static _Atomic uint32_t held_back;

/* A launch that is not queued keeps to a rule that says hold as well: until it says something else, or its author is gone. lithosd is
 * told that somebody waits, for nothing else does. */
static void hold_back(const struct queue *q, const struct queue_context *c)
{
    static const struct timespec look = {.tv_nsec = HOLD_LOOK_NS};
    struct lithos_arena *a = &lithos_tenant_home;
    if (!c || !lithos_queue_holds(c->device))
        return;
    atomic_fetch_add(&held_back, 1);
    while (lithos_queue_holds(c->device) && !atomic_load(&q->ending)) {
        atomic_store(&a->queue_held,
                     atomic_load(&held_back)); /* again: another arena may have come to lie there */
        if (lithos_record_wake(&a->records.ring[0]))
            lithos_tenant_wake_daemon();
        nanosleep(&look, NULL);
    }
    atomic_store(&a->queue_held, atomic_fetch_sub(&held_back, 1) - 1);
}

static CUresult take_error(struct queue_context *c)
{
    if (__builtin_expect(!c || !atomic_load_explicit(&c->error, memory_order_relaxed), 1))
        return CUDA_SUCCESS;
    return atomic_exchange(&c->error, CUDA_SUCCESS);
}

static CUresult error_of_before(void)
{
    struct queue *q = queues();
    return q ? take_error(lithos_queue_context(q)) : CUDA_SUCCESS;
}

/* ---- taking a place ---- */

static struct queue_entry *reserve(struct queue *q, struct queue_stream *s, size_t bytes, uint32_t *ret_place)
{
    uint32_t mine = atomic_fetch_add_explicit(&s->enqueued, 1, memory_order_acq_rel) + 1;
    struct lithos_queue_header *h = NULL;
    bool full = mine - atomic_load_explicit(&s->issued, memory_order_relaxed) > QUEUE_DEPTH;
    if (full)
        lithos_queue_wait_issued(q, &s->issued, mine - QUEUE_DEPTH, UINT64_MAX);
    while (!(h = lithos_queue_ring_reserve(&q->ring, sizeof(struct queue_entry) + bytes, ret_place))) {
        full = true;
        lithos_queue_wait_issued(q, &q->issued, atomic_load(&q->issued) + 1,
                                 lithos_now_ns() + LITHOS_NSEC_PER_MSEC);
    }
    if (full)
        lithos_queue_count(LITHOS_COUNTER_QUEUE_FULL);
    return (struct queue_entry *)(void *)h;
}

/* What it names, and then it is queued. */
static void publish(struct queue *q, struct queue_entry *e, uint32_t place, struct queue_stream *s,
                    struct queue_event *v)
{
    e->stream = s;
    e->event = v;
    if (v) {
        atomic_fetch_add_explicit(&v->touched, 1, memory_order_acq_rel);
        if (e->kind == QUEUE_CALL && e->form == LITHOS_ORDER_FORM_RECORD)
            atomic_fetch_add_explicit(&v->recorded, 1, memory_order_acq_rel);
    }
    lithos_queue_ring_publish(&e->ring, place);
    lithos_queue_count(LITHOS_COUNTER_QUEUED);
    if (__builtin_expect(atomic_load_explicit(&q->asleep, memory_order_seq_cst), 0)) {
        my.hands_over = false;
        lithos_queue_wake_dispatcher(q);
    }
}

/* ---- launches ---- */

/* Past the queues, with nothing before it in them: by this thread, as it is. */
static CUresult launch_past(enum lithos_export function, const struct lithos_launch *l)
{
    struct lithos_issue past = {0};
    lithos_order_issue = &past;
    CUresult result = lithos_queue_launch(function, l);
    lithos_order_issue = NULL;
    return result;
}

/* Is a launch that finds nothing queued better made by this thread? */
static bool at_once(void)
{
    if (lithos_queue_inline != QUEUE_INLINE_AUTO)
        return lithos_queue_inline == QUEUE_INLINE_ROOM;
    if (my.hands_over)
        return false;
    if (++my.launches % RUN)
        return true;
    uint64_t now_ns = lithos_now_ns();
    my.hands_over = !my.waited && now_ns - my.since_ns < RUN * RUN_NS;
    my.since_ns = now_ns;
    my.waited = false;
    return !my.hands_over;
}

struct now {
    enum lithos_export function;
    const struct lithos_launch *launch;
    const uintptr_t *args;
};

static CUresult make_launch(const void *arg)
{
    const struct now *n = arg;
    return lithos_queue_launch(n->function, n->launch);
}

static CUresult make_call(const void *arg)
{
    const struct now *n = arg;
    uintptr_t args[LITHOS_ORDER_WORDS] = {n->args[0], n->args[1]};
    return lithos_order_ours(n->function, args);
}

static CUresult or_error(CUresult result, struct queue_context *c)
{
    return result == CUDA_SUCCESS ? take_error(c) : result;
}

static bool launch_at_once(struct queue *q, struct queue_stream *s, uint64_t key, const struct now *n,
                           CUstream handle, CUresult *ret_result)
{
    if (lithos_queue_depth(q) || !at_once() ||
        !lithos_queue_issue_now(q, s, key, n->args != NULL, handle, n->args ? make_call : make_launch, n,
                                ret_result))
        return false;
    lithos_queue_count(LITHOS_COUNTER_UNQUEUED);
    *ret_result = or_error(*ret_result, s->context);
    return true;
}

/* Why a call on a stream is not queued; LITHOS_DRAIN_MAX: it may be. */
static enum lithos_drain closed_to(const struct queue *q, const struct queue_context *c,
                                   const struct queue_stream *s, CUstream handle)
{
    if (lithos_queue_closed(q) || (c && atomic_load_explicit(&c->lost, memory_order_relaxed)))
        return atomic_load_explicit(&q->capturing, memory_order_relaxed) ? LITHOS_DRAIN_CAPTURE
                                                                         : LITHOS_DRAIN_CLOSED;
    if (handle == CU_STREAM_PER_THREAD)
        return LITHOS_DRAIN_THREAD;
    return s ? LITHOS_DRAIN_MAX : LITHOS_DRAIN_UNKNOWN;
}

static bool on_launch(uint32_t number, const struct lithos_launch *l, CUresult *ret_result)
{
    enum lithos_export function = (enum lithos_export)number;
    struct queue *q = queues();
    if (!q || (lithos_queue_closed(q) && !lithos_queue_depth(q)))
        return false;
    struct queue_context *c = lithos_queue_context(q);
    if (!c)
        return false; /* the driver refuses it */
    struct queue_stream *s = lithos_queue_stream(q, c, l->stream, true);
    enum lithos_drain why = closed_to(q, c, s, l->stream);
    const struct queue_function *f = NULL;
    uint64_t hash = 0;
    size_t bytes = 0;
    if (lithos_order_rows[function].act != LITHOS_ORDER_QUEUE)
        why = LITHOS_DRAIN_OLD;
    else if (why == LITHOS_DRAIN_MAX && (s->context != c || !(f = lithos_queue_function(q, l->function)) ||
                                         !lithos_queue_can_launch(l, f, &hash, &bytes)))
        why = LITHOS_DRAIN_UNKNOWN;
    if (why != LITHOS_DRAIN_MAX) {
        drain_for(q, c, l->stream, why);
        if (!lithos_queue_closed(q))
            hold_back(q, c);
        return false;
    }
    if (__builtin_expect(!lithos_queue_checked(q, hash), 0)) {
        drain_for(q, c, l->stream, LITHOS_DRAIN_FIRST);
        hold_back(q, c);
        *ret_result = launch_past(function, l);
        if (*ret_result == CUDA_SUCCESS)
            lithos_queue_check(q, hash);
        *ret_result = or_error(*ret_result, c);
        return true;
    }
    uint64_t key = lithos_queue_estimate_key(l);
    const struct now now = {.function = function, .launch = l};
    if (launch_at_once(q, s, key, &now, l->stream, ret_result))
        return true;
    uint32_t place;
    struct queue_entry *e = reserve(q, s, bytes, &place);
    lithos_queue_fill_launch(e, l, f);
    e->function = (uint16_t)function;
    e->form = LITHOS_ORDER_FORM_LAUNCH;
    e->estimate_key = key;
    publish(q, e, place, s, NULL);
    *ret_result = take_error(c);
    return true;
}

/* ---- other calls that may be queued ---- */

/* NOLINTBEGIN(performance-no-int-to-ptr): the words of a call */
static CUstream stream_of(const struct lithos_order_row *row, const uintptr_t *args)
{
    CUstream handle = row->stream >= 0 ? (CUstream)args[row->stream] : NULL;
    return handle || !row->per_thread ? handle : CU_STREAM_PER_THREAD;
}

static CUevent event_of(const struct lithos_order_row *row, const uintptr_t *args)
{
    return row->what == LITHOS_ORDER_FORM_RECORD ? (CUevent)args[0]
           : row->what == LITHOS_ORDER_FORM_WAIT ? (CUevent)args[1]
                                                 : NULL;
}
/* NOLINTEND(performance-no-int-to-ptr) */

static uint64_t call_key(uint32_t function, const struct lithos_order_row *row, const uintptr_t *args)
{
    switch ((enum lithos_order_form)row->what) {
    case LITHOS_ORDER_FORM_GRAPH:
        return lithos_queue_mix(0x55, args[0]) | 1;
    case LITHOS_ORDER_FORM_MEMSET_1:
    case LITHOS_ORDER_FORM_MEMSET_2:
    case LITHOS_ORDER_FORM_MEMSET_4:
        return lithos_queue_mix(function, args[2]) | 1;
    default:
        return 0;
    }
}

/* Before a call that is made now. */
static void make_way(struct queue *q, struct queue_context *c, CUstream handle, CUevent event,
                     enum lithos_drain why)
{
    drain_for(q, c, handle, why);
    if (event)
        drain_event(q, event, why);
}

/* A graph: the driver has taken it before, and none that names events. True: it was launched, or may not be queued. */
static bool graph_is_new(struct queue *q, struct queue_context *c, const uintptr_t *args, uint64_t *ret_hash)
{
    *ret_hash = lithos_queue_mix(lithos_queue_mix(0x77, args[0]), atomic_load(&q->graph_epoch)) | 1;
    if (atomic_load_explicit(&q->event_nodes, memory_order_relaxed))
        drain_all(q, NULL, LITHOS_DRAIN_EVENT);
    else if (!lithos_queue_checked(q, *ret_hash))
        drain_for(q, c, (CUstream)args[1], LITHOS_DRAIN_FIRST); /* NOLINT(performance-no-int-to-ptr) */
    else
        return false;
    hold_back(q, c);
    return true;
}

static bool launch_graph(struct queue *q, struct queue_context *c, struct queue_stream *s, uint32_t function,
                         const uintptr_t *args, CUstream handle, CUresult *ret_result)
{
    const struct now now = {.function = (enum lithos_export)function, .args = args};
    uint64_t hash;
    if (!graph_is_new(q, c, args, &hash))
        return launch_at_once(q, s, call_key(function, &lithos_order_rows[function], args), &now, handle,
                              ret_result);
    struct lithos_issue past = {0};
    lithos_order_issue = &past;
    *ret_result = make_call(&now);
    lithos_order_issue = NULL;
    if (*ret_result == CUDA_SUCCESS)
        lithos_queue_check(q, hash);
    *ret_result = or_error(*ret_result, c);
    return true;
}

static bool queue_call(struct queue *q, uint32_t function, const struct lithos_order_row *row,
                       const uintptr_t *args, CUresult *ret_result)
{
    bool graph = row->what == LITHOS_ORDER_FORM_GRAPH;
    CUstream handle = stream_of(row, args);
    CUevent event = event_of(row, args);
    struct queue_context *c = lithos_queue_context(q);
    if (event && (row->arguments == 3 && (unsigned)args[2])) /* of a graph, or from one */
        atomic_store(&q->event_nodes, true);
    /* Nothing queued, nothing to be overtaken. */
    if (!graph && !lithos_queue_depth(q) && !(c && lithos_queue_holds(c->device)))
        return false;
    struct queue_stream *s = lithos_queue_stream(q, c, handle, true);
    if (s)
        c = s->context;
    enum lithos_drain why = closed_to(q, c, s, handle);
    struct queue_event *v = NULL;
    size_t bytes = 0;
    if (why == LITHOS_DRAIN_MAX && event) {
        v = lithos_queue_event(q, event, true);
        if (!v || atomic_load_explicit(&v->shared, memory_order_relaxed))
            why = LITHOS_DRAIN_EVENT;
    }
    if (why == LITHOS_DRAIN_MAX && lithos_queue_can_call(row, args, &bytes, &why))
        why = LITHOS_DRAIN_MAX;
    if (why != LITHOS_DRAIN_MAX) {
        make_way(q, c, handle, event, why);
        if (graph && !lithos_queue_closed(q))
            hold_back(q, c);
        return false;
    }
    if (graph && launch_graph(q, c, s, function, args, handle, ret_result))
        return true;
    uint32_t place;
    struct queue_entry *e = reserve(q, s, bytes, &place);
    lithos_queue_fill_call(e, row, args);
    e->function = (uint16_t)function;
    e->form = row->what;
    e->estimate_key = call_key(function, row, args);
    publish(q, e, place, s, v);
    *ret_result = take_error(c);
    return true;
}

/* ---- calls with something of their own ---- */

/* NOLINTBEGIN(performance-no-int-to-ptr): the words of a call */
static bool pending(const struct queue *q, const struct queue_stream *s)
{
    (void)q;
    return atomic_load_explicit(&s->issued, memory_order_acquire) !=
           atomic_load_explicit(&s->enqueued, memory_order_acquire);
}

/* The default stream is done when those are that it waits for. */
static bool stream_pending(struct queue *q, struct queue_context *c, const struct queue_stream *s)
{
    if (!s->legacy)
        return pending(q, s);
    uint32_t count = atomic_load_explicit(&q->stream_count, memory_order_acquire);
    for (uint32_t i = 0; i < count; i++)
        if (q->streams[i].context == c && q->streams[i].blocking && pending(q, &q->streams[i]))
            return true;
    return false;
}

static bool query_stream(struct queue *q, CUstream handle, CUresult *ret_result)
{
    struct queue_context *c = lithos_queue_context(q);
    struct queue_stream *s = lithos_queue_stream(q, c, handle, false);
    CUresult error = take_error(s ? s->context : c);
    bool is = !error && s && lithos_queue_depth(q) && stream_pending(q, s->context, s);
    if (!error && !is)
        return false;
    *ret_result = error ? error : CUDA_ERROR_NOT_READY;
    return true;
}

static bool record_pending(struct queue *q, uintptr_t handle)
{
    const struct queue_event *v =
        lithos_queue_depth(q) ? lithos_queue_event(q, (CUevent)handle, false) : NULL;
    return v && atomic_load_explicit(&v->records_issued, memory_order_acquire) !=
                    atomic_load_explicit(&v->recorded, memory_order_acquire);
}

static bool not_ready(bool is, CUresult *ret_result)
{
    if (is)
        *ret_result = CUDA_ERROR_NOT_READY;
    return is;
}

static void sync_event(struct queue *q, CUevent handle)
{
    const struct queue_event *v = lithos_queue_depth(q) ? lithos_queue_event(q, handle, false) : NULL;
    drained(v && wait_event(q, &v->records_issued, &v->recorded), LITHOS_DRAIN_SYNC);
}

static bool destroy_event(struct queue *q, uint32_t function, CUevent handle, CUresult *ret_result)
{
    struct queue_event *v = lithos_queue_event(q, handle, false);
    if (!v)
        return false;
    if (lithos_queue_closed(q))
        drain_event(q, handle, LITHOS_DRAIN_EVENT);
    if (atomic_load_explicit(&v->touches_issued, memory_order_acquire) ==
        atomic_load_explicit(&v->touched, memory_order_acquire)) {
        lithos_queue_forget_event(q, handle);
        return false;
    }
    uint32_t place;
    struct queue_entry *e = reserve(q, q->loose, 0, &place);
    e->kind = QUEUE_DESTROY;
    e->form = LITHOS_ORDER_FORM_WORDS;
    e->function = (uint16_t)function;
    e->estimate_key = 0;
    e->args[0] = (uintptr_t)handle;
    publish(q, e, place, q->loose, v);
    *ret_result = CUDA_SUCCESS;
    return true;
}

static void share_event(struct queue *q, CUevent handle)
{
    struct queue_event *v = lithos_queue_event(q, handle, true);
    if (v)
        atomic_store(&v->shared, true);
    drain_event(q, handle, LITHOS_DRAIN_EVENT);
}

static bool open_event(struct queue *q, uint32_t function, const uintptr_t *args, CUresult *ret_result)
{
    *ret_result = lithos_order_real((enum lithos_export)function, args);
    if (*ret_result == CUDA_SUCCESS)
        share_event(q, *(CUevent *)args[0]);
    return true;
}

/* cuGraphAddNode and the like are told what kind of node it is by the first number of a structure. */
static void note_event_node(struct queue *q, uint32_t function, const uintptr_t *args)
{
    uintptr_t node = function == LITHOS_EXPORT_cuGraphAddNode         ? args[4]
                     : function == LITHOS_EXPORT_cuGraphAddNode_v2    ? args[5]
                     : function == LITHOS_EXPORT_cuGraphNodeSetParams ? args[1]
                                                                      : 0;
    int type = node ? *(const int *)node : CU_GRAPH_NODE_TYPE_EVENT_RECORD;
    if (type == CU_GRAPH_NODE_TYPE_EVENT_RECORD || type == CU_GRAPH_NODE_TYPE_WAIT_EVENT)
        atomic_store(&q->event_nodes, true);
}

static void destroy_stream(struct queue *q, CUstream handle)
{
    struct queue_stream *s = lithos_queue_stream(q, lithos_queue_context(q), handle, false);
    if (!s || s->legacy)
        return;
    drained(wait_stream(q, s), LITHOS_DRAIN_ORDER);
    if (lithos_queue_try_turn(q)) {
        lithos_queue_reap_stream(q, s);
        lithos_queue_give_turn(q);
    }
    lithos_queue_forget_stream(q, handle);
}

/* A thread's own default stream has one name in all of them. */
static uintptr_t capture_name(CUstream handle)
{
    return handle == CU_STREAM_PER_THREAD ? (uintptr_t)pthread_self() | 1 : (uintptr_t)handle;
}

static bool begin_capture(struct queue *q, uint32_t function, const uintptr_t *args, CUstream handle,
                          CUresult *ret_result)
{
    lithos_queue_capture_begins(q, capture_name(handle));
    drain_all(q, NULL, LITHOS_DRAIN_CAPTURE);
    *ret_result = lithos_order_real((enum lithos_export)function, args);
    if (*ret_result != CUDA_SUCCESS)
        lithos_queue_capture_ends(q, capture_name(handle));
    return true;
}

static bool end_capture(struct queue *q, uint32_t function, const uintptr_t *args, CUstream handle,
                        CUresult *ret_result)
{
    int status = CU_STREAM_CAPTURE_STATUS_NONE;
    *ret_result = lithos_order_real((enum lithos_export)function, args);
    LITHOS_REAL(capturing_fn, cuStreamIsCapturing)(handle, &status);
    if (*ret_result == CUDA_SUCCESS || status == CU_STREAM_CAPTURE_STATUS_NONE)
        lithos_queue_capture_ends(q, capture_name(handle));
    return true;
}

static bool allocate(struct queue *q, uint32_t function, const uintptr_t *args, CUresult *ret_result)
{
    if (!lithos_queue_depth(q))
        return false;
    *ret_result = lithos_order_real((enum lithos_export)function, args);
    if (*ret_result == CUDA_ERROR_OUT_OF_MEMORY) {
        drain_all(q, NULL, LITHOS_DRAIN_MEMORY); /* something queued may free some */
        *ret_result = lithos_order_real((enum lithos_export)function, args);
    }
    return true;
}

/* Libraries set the same attribute to the same value before each launch: that changes nothing. */
static bool set_attribute(struct queue *q, uint32_t function, const uintptr_t *args, CUresult *ret_result)
{
    bool kernel = function == LITHOS_EXPORT_cuKernelSetAttribute;
    unsigned attribute = (unsigned)args[kernel ? 0 : 1];
    int value = (int)args[kernel ? 1 : 2];
    struct queue_function *f = lithos_queue_function_here(q, (CUfunction)args[kernel ? 2 : 0]);
    bool told = f && attribute < LITHOS_ARRAY_SIZE(f->value) &&
                atomic_load_explicit(&lithos_hook_only_device, memory_order_relaxed) >= 0;
    pthread_mutex_lock(&q->lock);
    bool same = told && f->set >> attribute & 1 && f->value[attribute] == value;
    pthread_mutex_unlock(&q->lock);
    if (same)
        return false;
    drain_all(q, NULL, LITHOS_DRAIN_CODE);
    *ret_result = lithos_order_real((enum lithos_export)function, args);
    pthread_mutex_lock(&q->lock);
    if (f)
        atomic_fetch_add(&f->version, 1);
    if (told && *ret_result == CUDA_SUCCESS) {
        f->set |= (uint16_t)(1u << attribute);
        f->value[attribute] = value;
    }
    pthread_mutex_unlock(&q->lock);
    return true;
}

static bool unload(struct queue *q, uint32_t function, const uintptr_t *args, CUresult *ret_result)
{
    drain_all(q, NULL, LITHOS_DRAIN_CODE);
    *ret_result = lithos_order_real((enum lithos_export)function, args);
    atomic_fetch_add(&q->function_epoch, 1);
    return true;
}

static void drain(struct queue *q, uint32_t function, const struct lithos_order_row *row,
                  const uintptr_t *args)
{
    enum lithos_drain why = (enum lithos_drain)row->drain;
    if (row->what == LITHOS_ORDER_SCOPE_STREAM)
        drain_for(q, lithos_queue_context(q), stream_of(row, args), why);
    else if (row->what == LITHOS_ORDER_SCOPE_CONTEXT)
        drain_all(q, lithos_queue_depth(q) ? lithos_queue_context(q) : NULL, why);
    else
        drain_all(q, NULL, why);
    if (function == LITHOS_EXPORT_cuGraphExecDestroy)
        atomic_fetch_add(&q->graph_epoch, 1);
}

static bool on_call(uint32_t function, const struct lithos_order_row *row, const uintptr_t *args,
                    CUresult *ret_result)
{
    struct queue *q = queues();
    if (!q)
        return false;
    switch ((enum lithos_order_act)row->act) {
    case LITHOS_ORDER_QUEUE:
        return queue_call(q, function, row, args, ret_result);
    case LITHOS_ORDER_DRAIN:
        drain(q, function, row, args);
        return false;
    case LITHOS_ORDER_STREAM_QUERY:
        return query_stream(q, stream_of(row, args), ret_result);
    case LITHOS_ORDER_STREAM_DESTROY:
        destroy_stream(q, stream_of(row, args));
        return false;
    case LITHOS_ORDER_EVENT_QUERY:
        return not_ready(record_pending(q, args[0]), ret_result);
    case LITHOS_ORDER_EVENT_ELAPSED:
        return not_ready(record_pending(q, args[1]) || record_pending(q, args[2]), ret_result);
    case LITHOS_ORDER_EVENT_SYNC:
        sync_event(q, (CUevent)args[0]);
        return false;
    case LITHOS_ORDER_EVENT_DESTROY:
        return destroy_event(q, function, (CUevent)args[0], ret_result);
    case LITHOS_ORDER_EVENT_SHARE:
        share_event(q, (CUevent)args[1]);
        return false;
    case LITHOS_ORDER_EVENT_OPEN:
        return open_event(q, function, args, ret_result);
    case LITHOS_ORDER_EVENT_NODE:
        note_event_node(q, function, args);
        return false;
    case LITHOS_ORDER_CAPTURE_BEGIN:
        return begin_capture(q, function, args, stream_of(row, args), ret_result);
    case LITHOS_ORDER_CAPTURE_END:
        return end_capture(q, function, args, stream_of(row, args), ret_result);
    case LITHOS_ORDER_ALLOC:
        return allocate(q, function, args, ret_result);
    case LITHOS_ORDER_ATTRIBUTE:
        return set_attribute(q, function, args, ret_result);
    case LITHOS_ORDER_UNLOAD:
        return unload(q, function, args, ret_result);
    case LITHOS_ORDER_MISSING:
    case LITHOS_ORDER_NOTHING:
    case LITHOS_ORDER_ACT_MAX:
        break;
    }
    return false;
}
/* NOLINTEND(performance-no-int-to-ptr) */

const struct lithos_hook_order lithos_queue_order = {
    .call = on_call,
    .launch = on_launch,
    .error = error_of_before,
};

void lithos_queue_front_forget(void)
{
    memset(&my, 0, sizeof my);
    atomic_store(&held_back, 0); /* the parent's threads */
}
