/* Launches and other calls that take a place in a queue, or are made at once by the app's own thread where nothing is queued. */
#include <limits.h>
#include <string.h>
#include <time.h>

#include "tenant/observe.h"
#include "tenant/queue_internal.h"

#define TLS __attribute__((tls_model("initial-exec")))
/* Launches in a row, none of them waited for and so close to each other, after which a thread hands them over to the dispatcher, whose
 * calls then run beside the app's own work. A program that waits for each launch keeps making them itself. */
#define RUN 16u
#define RUN_NS (30 * LITHOS_NSEC_PER_USEC)
#define FIRST_LOOK_NS (50 * LITHOS_NSEC_PER_USEC)
#define FIRST_LOOKS 400u

static __thread struct {
    uint32_t launches; /* made by the thread itself */
    bool waited, hands_over;
    uint64_t since_ns;
} my TLS;

void lithos_queue_thread_waited(void)
{
    my.waited = true;
    my.hands_over = false;
}

void lithos_queue_place_forget(void)
{
    memset(&my, 0, sizeof my);
}

/* ---- taking a place ---- */

struct queue_entry *lithos_queue_reserve(struct queue *q, struct queue_stream *s, size_t bytes,
                                         uint32_t *ret_place)
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
    /* Looked at after the tail has moved: a dispatcher that went to sleep before had issued all that it will have been seen to issue. */
    struct queue_entry *e = (struct queue_entry *)(void *)h;
    e->thread = (uint8_t)lithos_records_thread();
    e->is_first = mine - atomic_load_explicit(&s->issued, memory_order_seq_cst) == 1;
    return e;
}

/* What it names, and then it is queued. */
void lithos_queue_publish(struct queue *q, struct queue_entry *e, uint32_t place, struct queue_stream *s,
                          struct queue_event *v)
{
    e->stream = s;
    e->event = v;
    if (v) {
        atomic_fetch_add_explicit(&v->touched, 1, memory_order_acq_rel);
        if (e->kind == QUEUE_CALL && e->form == LITHOS_ORDER_FORM_RECORD)
            atomic_fetch_add_explicit(&v->recorded, 1, memory_order_acq_rel);
    }
    bool is_first = e->is_first; /* the entry is the issuer's from now on */
    lithos_queue_ring_publish(&e->ring, place);
    lithos_queue_count(LITHOS_COUNTER_QUEUED);
    if (is_first && __builtin_expect(atomic_load_explicit(&q->asleep, memory_order_seq_cst), 0)) {
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
static bool at_once(const struct queue *q)
{
    if (atomic_load_explicit(&q->gather_ns, memory_order_relaxed))
        return false;
    if (lithos_queue_inline != QUEUE_INLINE_AUTO)
        return lithos_queue_inline == QUEUE_INLINE_ROOM;
    if (atomic_load_explicit(
            &q->spare,
            memory_order_relaxed)) { /* all but one after a wait that finds the dispatcher asleep */
        bool waited = my.waited;
        my.waited = false;
        return waited && atomic_load_explicit(&q->asleep, memory_order_relaxed);
    }
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
    return result == CUDA_SUCCESS ? lithos_queue_take_error(c) : result;
}

static bool launch_at_once(struct queue *q, struct queue_stream *s, uint64_t key, const struct now *n,
                           CUstream handle, CUresult *ret_result)
{
    if (lithos_queue_depth(q) || !at_once(q) ||
        !lithos_queue_issue_now(q, s, key, n->args != NULL, handle, n->args ? make_call : make_launch, n,
                                ret_result))
        return false;
    lithos_queue_count(LITHOS_COUNTER_UNQUEUED);
    *ret_result = or_error(*ret_result, s->context);
    return true;
}

/* The first launch of its shape, of a tenant without a quota: on its refuge it would take as many times as long as that has fewer TPCs, in the
 * way of whose they are. It waits a little until it can go as others do. */
static bool launch_where_lent(struct queue *q, struct queue_stream *s, uint64_t key, const struct now *n,
                              CUstream handle, CUresult *ret_result)
{
    static const struct timespec look = {.tv_nsec = FIRST_LOOK_NS};
    for (unsigned i = 0; i < FIRST_LOOKS && lithos_queue_owns_nothing(s->context->device); i++) {
        if (lithos_queue_issue_now(q, s, key, false, handle, make_launch, n, ret_result))
            return true;
        lithos_queue_hold_back(q, s->context);
        nanosleep(&look, NULL);
    }
    return false;
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

static const struct queue_function *known_function(struct queue *q, const struct lithos_launch *l)
{
    const struct queue_function *f = lithos_queue_function(q, l->function);
    int limit = f ? atomic_load_explicit(&f->shared_limit, memory_order_acquire) : INT_MAX;
    if (__builtin_expect(l->shared_bytes > (unsigned)limit, 0))
        lithos_queue_settle_shared(q, l->function);
    return f;
}

bool lithos_queue_on_launch(uint32_t number, const struct lithos_launch *l, CUresult *ret_result)
{
    enum lithos_export function = (enum lithos_export)number;
    struct queue *q = atomic_load_explicit(&lithos_queue, memory_order_acquire);
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
    else if (why == LITHOS_DRAIN_MAX && (s->context != c || !(f = known_function(q, l)) ||
                                         !lithos_queue_can_launch(l, f, &hash, &bytes)))
        why = LITHOS_DRAIN_UNKNOWN;
    if (why != LITHOS_DRAIN_MAX) {
        lithos_queue_drain_for(q, c, l->stream, why);
        if (!lithos_queue_closed(q))
            lithos_queue_hold_back(q, c);
        return false;
    }
    if (__builtin_expect(!lithos_queue_checked(q, hash), 0)) {
        lithos_queue_drain_for(q, c, l->stream, LITHOS_DRAIN_FIRST);
        lithos_queue_hold_back(q, c);
        const struct now first = {.function = function, .launch = l};
        if (!launch_where_lent(q, s, lithos_queue_estimate_key(l), &first, l->stream, ret_result))
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
    struct queue_entry *e = lithos_queue_reserve(q, s, bytes, &place);
    lithos_queue_fill_launch(e, l, f);
    e->function = (uint16_t)function;
    e->form = LITHOS_ORDER_FORM_LAUNCH;
    e->estimate_key = key;
    lithos_queue_publish(q, e, place, s, NULL);
    *ret_result = lithos_queue_take_error(c);
    return true;
}

/* ---- other calls that may be queued ---- */

/* NOLINTBEGIN(performance-no-int-to-ptr): the words of a call */
CUstream lithos_queue_stream_of(const struct lithos_order_row *row, const uintptr_t *args)
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

/* What a call that the driver may run a kernel for takes: by its length. 0: it runs none. */
static uint64_t call_key(uint32_t function, const struct lithos_order_row *row, const uintptr_t *args)
{
    if (function == LITHOS_EXPORT_cuMemcpyDtoDAsync_v2 || function == LITHOS_EXPORT_cuMemcpyDtoDAsync_v2_ptsz)
        return lithos_queue_mix(function, args[2]) | 1;
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
static void make_way(struct queue *q, struct queue_context *c, const struct lithos_order_row *row,
                     const uintptr_t *args, enum lithos_drain why)
{
    CUevent event = event_of(row, args);
    if (row->what == LITHOS_ORDER_FORM_WAIT_VALUE)
        lithos_queue_drain_all(q, NULL, why);
    else
        lithos_queue_drain_for(q, c, lithos_queue_stream_of(row, args), why);
    if (event)
        lithos_queue_drain_event(q, event, why);
}

/* A graph: the driver has taken it before, and none that names events. True: it was launched, or may not be queued. */
static bool graph_is_new(struct queue *q, struct queue_context *c, const uintptr_t *args, uint64_t *ret_hash)
{
    *ret_hash = lithos_queue_mix(lithos_queue_mix(0x77, args[0]), atomic_load(&q->graph_epoch)) | 1;
    if (atomic_load_explicit(&q->event_nodes, memory_order_relaxed))
        lithos_queue_drain_all(q, NULL, LITHOS_DRAIN_EVENT);
    else if (!lithos_queue_checked(q, *ret_hash))
        lithos_queue_drain_for(q, c, (CUstream)args[1],
                               LITHOS_DRAIN_FIRST); /* NOLINT(performance-no-int-to-ptr) */
    else
        return false;
    lithos_queue_hold_back(q, c);
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

/* A copy to or from memory that the driver does not know waits for what is before it: who gathers is to know that when it begins to, also where nothing
 * is queued any more. */
static void note_wait(struct queue *q, const struct lithos_order_row *row, const uintptr_t *args)
{
    const bool copies = row->what == LITHOS_ORDER_FORM_COPY || row->what == LITHOS_ORDER_FORM_COPY_2D ||
                        row->what == LITHOS_ORDER_FORM_COPY_3D;
    size_t bytes;
    enum lithos_drain why;
    if (copies && atomic_load_explicit(&q->gather_ns, memory_order_relaxed) &&
        !lithos_queue_can_call(row, args, &bytes, &why))
        lithos_queue_want(q);
}

bool lithos_queue_call(struct queue *q, uint32_t function, const struct lithos_order_row *row,
                       const uintptr_t *args, CUresult *ret_result)
{
    bool graph = row->what == LITHOS_ORDER_FORM_GRAPH;
    CUstream handle = lithos_queue_stream_of(row, args);
    CUevent event = event_of(row, args);
    struct queue_context *c = lithos_queue_context(q);
    if (event && (row->arguments == 3 && (unsigned)args[2])) /* of a graph, or from one */
        atomic_store(&q->event_nodes, true);
    /* Nothing queued, nothing to be overtaken. But kernels of the driver's go where the rule says, as others do: a large memset takes
     * 0.4 ms on a refuge's one TPC. */
    if (!graph && !lithos_queue_depth(q) &&
        !(c && (lithos_queue_holds(c->device) ||
                (call_key(function, row, args) && lithos_queue_is_ruled(c->device))))) {
        note_wait(q, row, args);
        return false;
    }
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
    if (why != LITHOS_DRAIN_MAX || !s) {
        make_way(q, c, row, args, why);
        if (graph && !lithos_queue_closed(q))
            lithos_queue_hold_back(q, c);
        return false;
    }
    if (graph && launch_graph(q, c, s, function, args, handle, ret_result))
        return true;
    uint32_t place;
    struct queue_entry *e = lithos_queue_reserve(q, s, bytes, &place);
    lithos_queue_fill_call(e, row, args);
    e->function = (uint16_t)function;
    e->form = row->what;
    e->estimate_key = call_key(function, row, args);
    lithos_queue_publish(q, e, place, s, v);
    *ret_result = lithos_queue_take_error(c);
    return true;
}
