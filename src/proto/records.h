/* Launch records and completion stamps: what a tenant process and the GPU write into the arena for lithosd to read.
 *
 * Records go up through rings with one writer (a thread of the tenant) and one reader (lithosd); a full ring drops and
 * counts, it never waits. Stamps are written by the GPU itself (QMD release semaphore 1): 16 bytes at completion, into
 * slot `sequence % LITHOS_STAMP_SLOTS`, whoever looks. The reader trusts neither: lithos_record_validate first, and a
 * stamp counts only when its payload is the sequence asked for. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/tpcset.h"
#include "base/util.h"

/* What a tenant process counts, in the order of proto/counters.def. */
enum lithos_counter {
#define X(name, what) LITHOS_COUNTER_##name,
#include "proto/counters.def"
#undef X
    LITHOS_COUNTER_MAX,
};

#define LITHOS_RECORD_RINGS 16u /* launching threads of a process that can be told apart; further ones drop */
/* The first rings are larger: threads take the first that is free, and those that launch most are seldom the last to come. */
#define LITHOS_RECORD_LARGE_RINGS 4u
#define LITHOS_RECORD_LARGE_RING_SLOTS 4096u /* powers of two */
#define LITHOS_RECORD_SMALL_RING_SLOTS 1024u
#define LITHOS_RECORD_SLOTS                                       \
    (LITHOS_RECORD_LARGE_RINGS * LITHOS_RECORD_LARGE_RING_SLOTS + \
     (LITHOS_RECORD_RINGS - LITHOS_RECORD_LARGE_RINGS) * LITHOS_RECORD_SMALL_RING_SLOTS)
#define LITHOS_STAMP_SLOTS 65536u /* a power of two */
/* Slots below are handed out again and again, those from it on belong to nodes of graphs: servers keep dozens of graphs with hundreds of kernels each. */
#define LITHOS_STAMP_PLAIN_SLOTS 12288u
/* The last slot is no stamp's: its payload, lithosd's to write, says whether graphs with stops in them may go on (1) or wait (0). */
#define LITHOS_STAMP_STOP_SLOT (LITHOS_STAMP_SLOTS - 1)
#define LITHOS_RECORD_NAME_BYTES 88u

enum lithos_record_kind {
    LITHOS_RECORD_LAUNCH = 1, /* a kernel of the app */
    LITHOS_RECORD_DRIVER,     /* a kernel of the driver's own (memset, memcpy) */
    LITHOS_RECORD_GRAPH_NODE, /* a kernel node of a graph, when its QMD was made: its stamp slot is its own from then on */
    LITHOS_RECORD_GRAPH_LAUNCH,
    LITHOS_RECORD_SYNC, /* the app waited: stream, or LITHOS_RECORD_ALL_STREAMS */
    LITHOS_RECORD_NAME, /* name of a function seen for the first time, in pieces */
    LITHOS_RECORD_KIND_MAX,
};

#define LITHOS_RECORD_ALL_STREAMS UINT64_MAX

/* Flags of a launch: why it has no stamp. */
#define LITHOS_RECORD_NO_STAMP_FULL 1u  /* no slot was free */
#define LITHOS_RECORD_NO_STAMP_TAKEN 2u /* somebody else uses release semaphore 1 */
#define LITHOS_RECORD_NO_STAMP_OFF 4u   /* stamps are off, or memory not registered with this GPU */
#define LITHOS_RECORD_BREACH 8u         /* ran on more than the quota for its cluster's sake */
#define LITHOS_RECORD_COOPERATIVE 16u
/* Of a graph node: it was changed, and has the stamp it had before; without blocks: it was switched off. */
#define LITHOS_RECORD_TICKS 64u /* its times are of lithos_ticks, not in ns */
#define LITHOS_RECORD_NODE_CHANGED 32u
/* Of a SYNC: what was submitted to its stream before the wait began has ended. */
#define LITHOS_RECORD_ENDED 128u

struct lithos_record {
    uint64_t
        sequence; /* order of submission in the process, from 1, over all its rings; with gaps (calls that launched
                           nothing), the same for all that one call brought about; of a SYNC taken when the wait was over */
    uint64_t
        submit_ns;     /* CLOCK_MONOTONIC just before the driver was called; with LITHOS_RECORD_TICKS ticks */
    uint64_t function; /* the CUfunction's value: names it within the process */
    uint64_t
        stream; /* the handle's value: 0 and 1 legacy default, 2 per-thread default; DRIVER: all bits when not known (loading code) */
    uint16_t kind; /* enum lithos_record_kind */
    uint16_t flags;
    uint8_t gpu;     /* index into the grant, 0xff unknown */
    uint8_t cluster; /* blocks a cluster, 1 for plain grids */
    uint16_t registers;
    union {
        struct {
            uint64_t
                stamp; /* sequence that the GPU will write, 0: none (flags say why); SYNC: the sequence when the wait began */
            uint32_t grid[3];
            uint32_t block[3];
            uint32_t shared_bytes;
            uint32_t thread; /* the ring of whoever asked for it; it may have come through another's */
            struct lithos_tpcset tpcs; /* where it may run; all bits: not confined */
            uint32_t
                graph; /* low 32 bits of the graph exec's handle; of a node uploaded while it was made: 0 */
            uint32_t
                call_ns; /* LAUNCH, GRAPH_LAUNCH: how long the driver took, at most 2^32 - 1: the card knows of it at the end; SYNC: how long was waited */
            uint16_t atom,
                atoms; /* LAUNCH: this part of the launch, of so many; atoms 0: not cut. grid is the whole one's */
            uint16_t blocks_per_sm; /* LAUNCH: most that an SM may hold at once; 0: not found out */
            uint16_t reserved;
            uint64_t operator_key; /* LAUNCH: where kernels are cut by their length, the operator's; else 0 */
            /* LAUNCH: lithos_size_shape() of the launch before it on its stream, 0: none is known */
            uint32_t before;
            uint32_t padding;
        } launch; /* LAUNCH, DRIVER, GRAPH_NODE */
        struct {
            uint16_t offset, total; /* bytes: this piece within the name */
            uint32_t reserved;
            char text[LITHOS_RECORD_NAME_BYTES - 8]; /* not ended by NUL */
        } name;
    };
};

struct lithos_stamp {
    _Atomic uint64_t payload; /* stamp sequence, written by the GPU */
    _Atomic uint64_t time_ns; /* the GPU's clock (%globaltimer) */
};

/* The tenant's part. */
struct lithos_record_ring {
    _Alignas(64) _Atomic uint32_t head; /* records ever written, modulo 2^32 */
    _Atomic uint32_t thread_id;         /* of its writer (gettid), 0: free */
    /* Set by the reader before it sleeps, cleared by the writer, who then wakes it. Beside the head, which the writer has at hand.
     * A writer that has moved the head may not see it in time: its next record, or the end of the reader's sleep, makes up for it. */
    _Atomic uint32_t wake;
    /* From here on the writer's own, which the reader looks at now and then, so that its line stays with the writer. */
    /* The writer has taken a number in the sequence, or is about to, and may still write a record that bears it. Numbers of which no
     * record has come while no writer says so stay without one: calls that launch nothing have them too. */
    _Alignas(64) _Atomic uint32_t writing;
    _Atomic uint32_t
        tail_seen; /* how far the reader was when the writer last looked: it looks again when the ring seems full */
    _Atomic uint64_t counters[LITHOS_COUNTER_MAX]; /* what its writers counted: part of the arena's */
};

struct lithos_record_rings {
    struct lithos_record_ring ring[LITHOS_RECORD_RINGS];
    _Alignas(64) struct lithos_record slots[LITHOS_RECORD_SLOTS]; /* of the rings, one after the other */
};

static inline uint32_t lithos_record_ring_slots(unsigned ring)
{
    return ring < LITHOS_RECORD_LARGE_RINGS ? LITHOS_RECORD_LARGE_RING_SLOTS : LITHOS_RECORD_SMALL_RING_SLOTS;
}

/* Which of the slots the record at a position of a ring has. */
static inline uint32_t lithos_record_slot(unsigned ring, uint32_t position)
{
    uint32_t large = LITHOS_MIN(ring, LITHOS_RECORD_LARGE_RINGS);
    return large * LITHOS_RECORD_LARGE_RING_SLOTS + (ring - large) * LITHOS_RECORD_SMALL_RING_SLOTS +
           (position & (lithos_record_ring_slots(ring) - 1));
}

/* 0; -EPROTO: a kind that does not exist, a name piece out of bounds, a cluster of 0. */
int lithos_record_validate(const struct lithos_record *r);

/* Writer of a ring. False: it is full (the reader is `tail` records far), or another arena came to lie there meanwhile. */
bool lithos_record_put(struct lithos_record_rings *rings, unsigned ring, const _Atomic uint32_t *tail,
                       const struct lithos_record *r);
/* The same in two steps, for who fills it in where it lies: the slot of the ring's `count` ones, NULL when it is full; and with
 * *ret_head the end. */
static inline struct lithos_record *lithos_record_begin(struct lithos_record_ring *ring,
                                                        struct lithos_record *slots, uint32_t count,
                                                        const _Atomic uint32_t *tail, uint32_t *ret_head)
{
    uint32_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    if (__builtin_expect(head - atomic_load_explicit(&ring->tail_seen, memory_order_relaxed) >= count, 0)) {
        uint32_t now = atomic_load_explicit(tail, memory_order_acquire);
        atomic_store_explicit(&ring->tail_seen, now, memory_order_relaxed);
        if (head - now >= count)
            return NULL;
    }
    *ret_head = head;
    return &slots[head & (count - 1)];
}

/* False: other pages have come to lie here meanwhile (a new daemon's arena), and what was written is not in them. */
static inline bool lithos_record_end(struct lithos_record_ring *ring, const struct lithos_record *slot,
                                     uint32_t head)
{
    /* A ring that nobody has written to yet may be as far as the other one was: its slot is empty. */
    if (__builtin_expect(atomic_load_explicit(&ring->head, memory_order_relaxed) != head, 0) ||
        __builtin_expect(!__atomic_load_n(&slot->kind, __ATOMIC_RELAXED), 0))
        return false;
    atomic_store_explicit(&ring->head, head + 1, memory_order_release);
    return true;
}

/* Writer, after a record: is the reader to be woken? Once for each time that it asked. */
static inline bool lithos_record_wake(struct lithos_record_ring *ring)
{
    if (__builtin_expect(!atomic_load_explicit(&ring->wake, memory_order_relaxed), 1))
        return false;
    atomic_store_explicit(&ring->wake, 0, memory_order_relaxed);
    return true;
}
/* Reader: ask to be woken by the next record, or no more. It has to look once more after it has asked. */
void lithos_record_ask(struct lithos_record_rings *rings, bool wake);
/* Reader: copy the next record and validate it. 1 a record, 0 none, -EPROTO one that is damaged (skipped), -EOVERFLOW
 * the writer's head is impossible (the ring is read from its head on; *ret_lost tells how many were passed over). */
int lithos_record_get(const struct lithos_record_rings *rings, unsigned ring, _Atomic uint32_t *tail,
                      struct lithos_record *ret_r, uint32_t *ret_lost);
/* Reader: has the GPU written stamp `sequence`? 1 with its time; 0 not yet; -ESTALE overwritten by a later one. A time of
 * 0 counts as not yet: whoever hands out a slot clears it first. */
int lithos_stamp_read(const struct lithos_stamp *stamps, uint64_t sequence, uint64_t *ret_time_ns);
