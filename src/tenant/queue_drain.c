/* A call that is not queued waits here, on the app's own thread, until what has to come before it has been given to the driver. */
#include <time.h>

#include "tenant/attach.h"
#include "tenant/queue_internal.h"

#define HOLD_LOOK_NS (50 * LITHOS_NSEC_PER_USEC)

/* True: there was something to wait for. */
bool lithos_queue_wait_stream(struct queue *q, struct queue_stream *s)
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
        /* Of a place that nothing is queued for, whose it is may change just now. */
        if (lithos_queue_pending(s) && (!c || s->context == c) && (!blocking || s->blocking))
            waited |= lithos_queue_wait_stream(q, s);
    }
    return waited;
}

void lithos_queue_drained(struct queue *q, bool waited, enum lithos_drain why)
{
    lithos_queue_want(q);
    if (waited)
        lithos_queue_count((enum lithos_counter)(LITHOS_COUNTER_DRAINED_SYNC + (int)why));
    if (why == LITHOS_DRAIN_SYNC)
        lithos_queue_thread_waited();
}

void lithos_queue_drain_all(struct queue *q, const struct queue_context *c, enum lithos_drain why)
{
    lithos_queue_drained(q, lithos_queue_depth(q) && wait_streams(q, c, false), why);
}

/* What a call on a stream has to come after. */
void lithos_queue_drain_for(struct queue *q, struct queue_context *c, CUstream handle, enum lithos_drain why)
{
    bool waited = false;
    if (lithos_queue_depth(q)) {
        struct queue_stream *s = lithos_queue_stream(q, c, handle, true);
        if (handle == CU_STREAM_PER_THREAD && c)
            waited = lithos_queue_wait_stream(q, c->legacy);
        else if (!s)
            waited = wait_streams(q, NULL, false);
        else if (s->legacy)
            waited = wait_streams(q, c, true);
        else {
            waited = lithos_queue_wait_stream(q, s);
            if (s->blocking)
                waited |= lithos_queue_wait_stream(q, s->context->legacy);
        }
    }
    lithos_queue_drained(q, waited, why);
}

bool lithos_queue_wait_event(struct queue *q, const _Atomic uint32_t *issued, const _Atomic uint32_t *ever)
{
    uint32_t upto = atomic_load_explicit(ever, memory_order_acquire);
    if (atomic_load_explicit(issued, memory_order_acquire) == upto)
        return false;
    lithos_queue_wait_issued(q, issued, upto, UINT64_MAX);
    return true;
}

/* All that names an event. */
void lithos_queue_drain_event(struct queue *q, CUevent handle, enum lithos_drain why)
{
    const struct queue_event *v = lithos_queue_event(q, handle, false);
    lithos_queue_drained(q, v && lithos_queue_wait_event(q, &v->touches_issued, &v->touched), why);
}

/* Threads in lithos_queue_hold_back. */
static _Atomic uint32_t held_back;

/* lithosd is told that somebody waits, for nothing else shows it. */
void lithos_queue_hold_back(const struct queue *q, const struct queue_context *c)
{
    static const struct timespec look = {.tv_nsec = HOLD_LOOK_NS};
    struct lithos_arena *a = &lithos_tenant_home;
    if (!c || !lithos_queue_holds(c->device))
        return;
    atomic_fetch_add(&held_back, 1);
    while (lithos_queue_holds(c->device) && !atomic_load(&q->ending)) {
        atomic_store(&a->queue_held, atomic_load(&held_back)); /* again: another arena may lie there now */
        if (lithos_record_wake(&a->records.ring[0]))
            lithos_tenant_wake_daemon();
        nanosleep(&look, NULL);
    }
    atomic_store(&a->queue_held, atomic_fetch_sub(&held_back, 1) - 1);
}

void lithos_queue_drain_forget(void)
{
    atomic_store(&held_back, 0); /* the parent's threads */
}

CUresult lithos_queue_take_error(struct queue_context *c)
{
    if (__builtin_expect(!c || !atomic_load_explicit(&c->error, memory_order_relaxed), 1))
        return CUDA_SUCCESS;
    return atomic_exchange(&c->error, CUDA_SUCCESS);
}

CUresult lithos_queue_error(void)
{
    struct queue *q = atomic_load_explicit(&lithos_queue, memory_order_acquire);
    return q ? lithos_queue_take_error(lithos_queue_context(q)) : CUDA_SUCCESS;
}
