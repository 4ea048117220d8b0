/* Gathering (docs/adr/0037-gathering.md): an eager program of class high has the card run a kernel whenever its host has come to one, and the card,
 * which waits for the next in between, can be lent to nobody for so short. Here what is queued stays in the queue until somebody waits for it, or asks
 * about it, or the first of it has waited for so long; then all that has come by then goes, one kernel behind the other. */
#include "tenant/queue_internal.h"

void lithos_queue_want(struct queue *q)
{
    const uint32_t upto = lithos_queue_ring_entries(&q->ring);
    uint32_t was = atomic_load_explicit(&q->wanted, memory_order_relaxed);
    while ((int32_t)(upto - was) > 0 &&
           !atomic_compare_exchange_weak_explicit(&q->wanted, &was, upto, memory_order_release,
                                                  memory_order_relaxed))
        ;
}

/* One that waits may be further behind than the number says: streams overtake each other. */
static bool is_wanted(const struct queue *q)
{
    return atomic_load_explicit(&q->waiters, memory_order_relaxed) ||
           (int32_t)(atomic_load_explicit(&q->wanted, memory_order_acquire) -
                     atomic_load_explicit(&q->issued, memory_order_relaxed)) > 0;
}

bool lithos_queue_gathers(struct queue *q)
{
    const uint64_t gather_ns = atomic_load_explicit(&q->gather_ns, memory_order_relaxed);
    if (!gather_ns || !q->held) {
        q->gather_until_ns = 0;
        q->goes = false;
        return false;
    }
    const bool wanted = is_wanted(q) || lithos_queue_closed(q);
    if (q->goes && wanted)
        return false;
    if (q->goes || !q->gather_until_ns)
        q->gather_until_ns = lithos_now_ns() + gather_ns;
    q->goes = wanted || lithos_now_ns() >= q->gather_until_ns;
    if (!q->goes)
        return true;
    lithos_queue_count(wanted ? LITHOS_COUNTER_GATHERED_WANTED : LITHOS_COUNTER_GATHERED_TIME);
    lithos_queue_want(q); /* all that has come by now */
    return false;
}
