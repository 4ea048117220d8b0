/* What becomes of the app's calls, on its own threads: they take a place in a queue, wait until what was queued before has been issued, are
 * answered, or just go on. Which does which stands in driver/order.def. */
#include <pthread.h>

#include "tenant/queue_internal.h"

typedef CUresult (*capturing_fn)(CUstream, int *);

/* NOLINTBEGIN(performance-no-int-to-ptr): the words of a call */
/* The default stream is done when those are that it waits for. */
static bool stream_pending(struct queue *q, struct queue_context *c, const struct queue_stream *s)
{
    if (!s->legacy)
        return lithos_queue_pending(s);
    uint32_t count = atomic_load_explicit(&q->stream_count, memory_order_acquire);
    for (uint32_t i = 0; i < count; i++)
        if (lithos_queue_pending(&q->streams[i]) && q->streams[i].context == c && q->streams[i].blocking)
            return true;
    return false;
}

static bool query_stream(struct queue *q, CUstream handle, CUresult *ret_result)
{
    struct queue_context *c = lithos_queue_context(q);
    struct queue_stream *s = lithos_queue_stream(q, c, handle, false);
    CUresult error = lithos_queue_take_error(s ? s->context : c);
    bool is = !error && s && lithos_queue_depth(q) && stream_pending(q, s->context, s);
    if (!error && !is)
        return false;
    lithos_queue_want(q);
    *ret_result = error ? error : CUDA_ERROR_NOT_READY;
    return true;
}

static bool record_pending(struct queue *q, uintptr_t handle)
{
    const struct queue_event *v =
        lithos_queue_depth(q) ? lithos_queue_event(q, (CUevent)handle, false) : NULL;
    bool is = v && atomic_load_explicit(&v->records_issued, memory_order_acquire) !=
                       atomic_load_explicit(&v->recorded, memory_order_acquire);
    if (is)
        lithos_queue_want(q);
    return is;
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
    lithos_queue_drained(q, v && lithos_queue_wait_event(q, &v->records_issued, &v->recorded),
                         LITHOS_DRAIN_SYNC);
}

static bool destroy_event(struct queue *q, uint32_t function, CUevent handle, CUresult *ret_result)
{
    struct queue_event *v = lithos_queue_event(q, handle, false);
    if (!v)
        return false;
    if (lithos_queue_closed(q))
        lithos_queue_drain_event(q, handle, LITHOS_DRAIN_EVENT);
    if (atomic_load_explicit(&v->touches_issued, memory_order_acquire) ==
        atomic_load_explicit(&v->touched, memory_order_acquire)) {
        lithos_queue_forget_event(q, handle);
        return false;
    }
    uint32_t place;
    struct queue_entry *e = lithos_queue_reserve(q, q->loose, 0, &place);
    e->kind = QUEUE_DESTROY;
    e->form = LITHOS_ORDER_FORM_WORDS;
    e->function = (uint16_t)function;
    e->estimate_key = 0;
    e->args[0] = (uintptr_t)handle;
    lithos_queue_publish(q, e, place, q->loose, v);
    *ret_result = CUDA_SUCCESS;
    return true;
}

static void share_event(struct queue *q, CUevent handle)
{
    struct queue_event *v = lithos_queue_event(q, handle, true);
    if (v)
        atomic_store(&v->shared, true);
    lithos_queue_drain_event(q, handle, LITHOS_DRAIN_EVENT);
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
    lithos_queue_drained(q, lithos_queue_wait_stream(q, s), LITHOS_DRAIN_ORDER);
    if (lithos_queue_try_turn(q)) {
        int mode = lithos_queue_relax();
        lithos_queue_reap_stream(q, s);
        lithos_queue_relax_no_more(mode);
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
    lithos_queue_drain_all(q, NULL, LITHOS_DRAIN_CAPTURE);
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
        lithos_queue_drain_all(q, NULL, LITHOS_DRAIN_MEMORY); /* something queued may free some */
        *ret_result = lithos_order_real((enum lithos_export)function, args);
    }
    return true;
}

static bool unload(struct queue *q, uint32_t function, const uintptr_t *args, CUresult *ret_result)
{
    lithos_queue_drain_all(q, NULL, LITHOS_DRAIN_CODE);
    *ret_result = lithos_order_real((enum lithos_export)function, args);
    atomic_fetch_add(&q->function_epoch, 1);
    return true;
}

static void drain(struct queue *q, uint32_t function, const struct lithos_order_row *row,
                  const uintptr_t *args)
{
    enum lithos_drain why = (enum lithos_drain)row->drain;
    if (row->what == LITHOS_ORDER_SCOPE_STREAM)
        lithos_queue_drain_for(q, lithos_queue_context(q), lithos_queue_stream_of(row, args), why);
    else if (row->what == LITHOS_ORDER_SCOPE_CONTEXT)
        lithos_queue_drain_all(q, lithos_queue_depth(q) ? lithos_queue_context(q) : NULL, why);
    else
        lithos_queue_drain_all(q, NULL, why);
    if (why == LITHOS_DRAIN_END) {
        int mode = lithos_queue_relax();
        lithos_queue_drop_events(q);
        lithos_queue_relax_no_more(mode);
    }
    if (function == LITHOS_EXPORT_cuGraphExecDestroy)
        atomic_fetch_add(&q->graph_epoch, 1);
}

static bool on_call(uint32_t function, const struct lithos_order_row *row, const uintptr_t *args,
                    CUresult *ret_result)
{
    struct queue *q = atomic_load_explicit(&lithos_queue, memory_order_acquire);
    if (!q)
        return false;
    switch ((enum lithos_order_act)row->act) {
    case LITHOS_ORDER_QUEUE:
        return lithos_queue_call(q, function, row, args, ret_result);
    case LITHOS_ORDER_DRAIN:
        drain(q, function, row, args);
        return false;
    case LITHOS_ORDER_STREAM_QUERY:
        return query_stream(q, lithos_queue_stream_of(row, args), ret_result);
    case LITHOS_ORDER_STREAM_DESTROY:
        destroy_stream(q, lithos_queue_stream_of(row, args));
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
        return begin_capture(q, function, args, lithos_queue_stream_of(row, args), ret_result);
    case LITHOS_ORDER_CAPTURE_END:
        return end_capture(q, function, args, lithos_queue_stream_of(row, args), ret_result);
    case LITHOS_ORDER_ALLOC:
        return allocate(q, function, args, ret_result);
    case LITHOS_ORDER_ATTRIBUTE_ASK:
        return lithos_queue_get_attribute(q, function, args, ret_result);
    case LITHOS_ORDER_ATTRIBUTE:
        return lithos_queue_set_attribute(q, function, args, ret_result);
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
    .launch = lithos_queue_on_launch,
    .error = lithos_queue_error,
};
