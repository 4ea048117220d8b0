/* A ring of entries of any size: many threads write, one reads, nobody takes a lock.
 *
 * A writer reserves room by moving the tail, fills its entry and marks it ready. The order of reservations is the order in which the
 * reader meets the entries. The reader gives them back in any order; room is free again when all before it has been given back. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LITHOS_QUEUE_GRANULE 64u

/* What every entry begins with. */
struct lithos_queue_header {
    _Atomic uint64_t ready; /* when it can be read: its place, and READY */
    uint32_t granules;      /* its size */
    uint16_t filler;        /* nothing in it: what was left at the end of the ring */
    uint16_t done;          /* the reader's: given back */
};

struct lithos_queue_ring {
    _Alignas(64) _Atomic uint64_t
        tail; /* entries ever in the high half, granules ever in the low one, each modulo 2^32 */
    _Alignas(64) _Atomic uint32_t head; /* granules given back, modulo 2^32 */
    uint32_t next;                      /* the reader's: where it looks */
    uint32_t granules;                  /* a power of two */
    unsigned char *memory;              /* zeroed at first */
};

/* memory: zeroed, `granules` of LITHOS_QUEUE_GRANULE bytes, a power of two, owned by the caller. */
void lithos_queue_ring_init(struct lithos_queue_ring *ring, void *memory, uint32_t granules);
/* Writer: room for an entry of so many bytes, header included; NULL when there is none now. At most a quarter of the ring. */
struct lithos_queue_header *lithos_queue_ring_reserve(struct lithos_queue_ring *ring, size_t bytes,
                                                      uint32_t *ret_place);
/* Writer: it is filled. */
void lithos_queue_ring_publish(struct lithos_queue_header *entry, uint32_t place);
/* Reader: the next entry, or NULL when the writer is not done with it or there is none. */
struct lithos_queue_header *lithos_queue_ring_next(struct lithos_queue_ring *ring);
/* Reader: the oldest that was not given back, of those that were met; NULL: none. */
struct lithos_queue_header *lithos_queue_ring_oldest(struct lithos_queue_ring *ring);
/* Reader: it is not needed any more. */
void lithos_queue_ring_give_back(struct lithos_queue_ring *ring, struct lithos_queue_header *entry);

/* Entries ever reserved, modulo 2^32. */
static inline uint32_t lithos_queue_ring_entries(const struct lithos_queue_ring *ring)
{
    return (uint32_t)(atomic_load_explicit(&ring->tail, memory_order_acquire) >> 32);
}

/* Reader: granules in use. */
static inline uint32_t lithos_queue_ring_used(const struct lithos_queue_ring *ring)
{
    return (uint32_t)atomic_load_explicit(&ring->tail, memory_order_relaxed) -
           atomic_load_explicit(&ring->head, memory_order_relaxed);
}
