#include "tenant/queue_ring.h"

#define READY (1ull << 32)

static struct lithos_queue_header *at(const struct lithos_queue_ring *ring, uint32_t place)
{
    return (struct lithos_queue_header *)(void *)(ring->memory + (size_t)(place & (ring->granules - 1)) *
                                                                     LITHOS_QUEUE_GRANULE);
}

void lithos_queue_ring_init(struct lithos_queue_ring *ring, void *memory, uint32_t granules)
{
    atomic_store(&ring->tail, 0);
    atomic_store(&ring->head, 0);
    ring->next = 0;
    ring->granules = granules;
    ring->memory = memory;
}

void lithos_queue_ring_publish(struct lithos_queue_header *entry, uint32_t place)
{
    atomic_store_explicit(&entry->ready, READY | place, memory_order_release);
}

/* Moving the tail is a locked instruction and so a full fence: whoever sleeps on the tail is seen to sleep after it, or has seen it. */
struct lithos_queue_header *lithos_queue_ring_reserve(struct lithos_queue_ring *ring, size_t bytes,
                                                      uint32_t *ret_place)
{
    uint32_t need = (uint32_t)((bytes + LITHOS_QUEUE_GRANULE - 1) / LITHOS_QUEUE_GRANULE);
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed), moved;
    uint32_t place, filler;
    do {
        place = (uint32_t)tail;
        uint32_t left = ring->granules - (place & (ring->granules - 1));
        filler = need > left ? left : 0;
        if (place + filler + need - atomic_load_explicit(&ring->head, memory_order_acquire) > ring->granules)
            return NULL;
        moved = ((tail >> 32) + 1) << 32 | (uint32_t)(place + filler + need);
    } while (!atomic_compare_exchange_weak_explicit(&ring->tail, &tail, moved, memory_order_seq_cst,
                                                    memory_order_relaxed));
    if (filler) {
        struct lithos_queue_header *end = at(ring, place);
        end->granules = filler;
        end->filler = 1;
        end->done = 1;
        lithos_queue_ring_publish(end, place);
        place += filler;
    }
    struct lithos_queue_header *entry = at(ring, place);
    entry->granules = need;
    entry->filler = 0;
    entry->done = 0;
    *ret_place = place;
    return entry;
}

struct lithos_queue_header *lithos_queue_ring_next(struct lithos_queue_ring *ring)
{
    for (;;) {
        struct lithos_queue_header *entry = at(ring, ring->next);
        if (atomic_load_explicit(&entry->ready, memory_order_acquire) != (READY | ring->next))
            return NULL;
        ring->next += entry->granules;
        if (!entry->filler)
            return entry;
        lithos_queue_ring_give_back(ring, entry);
    }
}

struct lithos_queue_header *lithos_queue_ring_oldest(struct lithos_queue_ring *ring)
{
    uint32_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    return head == ring->next ? NULL : at(ring, head);
}

/* Wherever a later entry may begin nothing may look like one that is ready. */
static void clear(struct lithos_queue_ring *ring, uint32_t place, uint32_t granules)
{
    for (uint32_t i = 0; i < granules; i++)
        atomic_store_explicit(&at(ring, place + i)->ready, 0, memory_order_relaxed);
}

void lithos_queue_ring_give_back(struct lithos_queue_ring *ring, struct lithos_queue_header *entry)
{
    uint32_t head = atomic_load_explicit(&ring->head, memory_order_relaxed), before = head;
    entry->done = 1;
    while (head != ring->next && at(ring, head)->done) {
        uint32_t granules = at(ring, head)->granules;
        clear(ring, head, granules);
        head += granules;
    }
    if (head != before)
        atomic_store_explicit(&ring->head, head, memory_order_release);
}
