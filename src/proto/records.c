#include "proto/records.h"

#include <errno.h>
#include <string.h>

_Static_assert(sizeof(struct lithos_record) == 128, "a record is two cache lines");
_Static_assert(sizeof(struct lithos_stamp) == 16, "the GPU writes four words");
_Static_assert((LITHOS_RECORD_LARGE_RING_SLOTS & (LITHOS_RECORD_LARGE_RING_SLOTS - 1)) == 0 &&
                   (LITHOS_RECORD_SMALL_RING_SLOTS & (LITHOS_RECORD_SMALL_RING_SLOTS - 1)) == 0,
               "positions wrap by masking");
_Static_assert((LITHOS_STAMP_SLOTS & (LITHOS_STAMP_SLOTS - 1)) == 0, "slots wrap by masking");

int lithos_record_validate(const struct lithos_record *r)
{
    switch (r->kind) {
    case LITHOS_RECORD_LAUNCH:
    case LITHOS_RECORD_DRIVER:
    case LITHOS_RECORD_GRAPH_NODE:
        return r->cluster && (r->launch.atoms ? r->launch.atom < r->launch.atoms : r->launch.atom == 0)
                   ? 0
                   : -EPROTO;
    case LITHOS_RECORD_GRAPH_LAUNCH:
    case LITHOS_RECORD_SYNC:
        return 0;
    case LITHOS_RECORD_NAME:
        return r->name.offset < r->name.total ? 0 : -EPROTO;
    default:
        return -EPROTO;
    }
}

bool lithos_record_put(struct lithos_record_rings *rings, unsigned ring, const _Atomic uint32_t *tail,
                       const struct lithos_record *r)
{
    uint32_t head;
    struct lithos_record *slot =
        lithos_record_begin(&rings->ring[ring], &rings->slots[lithos_record_slot(ring, 0)],
                            lithos_record_ring_slots(ring), tail, &head);
    if (!slot)
        return false;
    *slot = *r;
    return lithos_record_end(&rings->ring[ring], slot, head);
}

void lithos_record_ask(struct lithos_record_rings *rings, bool wake)
{
    for (unsigned i = 0; i < LITHOS_RECORD_RINGS; i++) {
        _Atomic uint32_t *word = &rings->ring[i].wake;
        if (atomic_load_explicit(word, memory_order_relaxed) !=
            wake)                        /* or the writer would miss its line for nothing */
            atomic_exchange(word, wake); /* a full barrier: heads are read after it */
    }
}

int lithos_record_get(const struct lithos_record_rings *rings, unsigned ring, _Atomic uint32_t *tail,
                      struct lithos_record *ret_r, uint32_t *ret_lost)
{
    uint32_t at = atomic_load_explicit(tail, memory_order_relaxed);
    uint32_t head = atomic_load_explicit(&rings->ring[ring].head, memory_order_acquire);
    if (head == at)
        return 0;
    if (head - at > lithos_record_ring_slots(ring)) {
        atomic_store_explicit(tail, head, memory_order_release);
        *ret_lost = head - at;
        return -EOVERFLOW;
    }
    struct lithos_record copy;
    memcpy(&copy, &rings->slots[lithos_record_slot(ring, at)], sizeof copy);
    atomic_store_explicit(tail, at + 1, memory_order_release);
    int r = lithos_record_validate(&copy);
    if (r < 0)
        return r;
    *ret_r = copy;
    return 1;
}

int lithos_stamp_read(const struct lithos_stamp *stamps, uint64_t sequence, uint64_t *ret_time_ns)
{
    const struct lithos_stamp *s = &stamps[sequence % LITHOS_STAMP_SLOTS];
    uint64_t payload = atomic_load_explicit(&s->payload, memory_order_acquire);
    if (sequence == 0 || payload < sequence || payload % LITHOS_STAMP_SLOTS != sequence % LITHOS_STAMP_SLOTS)
        return 0;
    if (payload != sequence)
        return -ESTALE;
    uint64_t time_ns = atomic_load_explicit(&s->time_ns, memory_order_acquire);
    if (atomic_load_explicit(&s->payload, memory_order_relaxed) != sequence)
        return -ESTALE; /* the time may be the next one's */
    if (time_ns == 0)
        return 0; /* the writer clears it beforehand, lest the payload be seen before the time */
    *ret_time_ns = time_ns;
    return 1;
}
