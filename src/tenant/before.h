/* What was launched last on each stream, by its shape: what the launch behind it is told apart by (proto/sizes.h). Streams that share a line
 * are taken for one: then a kernel is another operator than it would be, and no worse off than one that is new. */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#include "cuda/cuda_abi.h"
#include "driver/ticket.h"

#define LITHOS_BEFORE_STREAMS 32u /* a power of 2 */

/* One line of the cache each: threads launch on streams of their own. */
struct lithos_before {
    _Alignas(64) _Atomic uint32_t shape;
};
extern struct lithos_before lithos_before[LITHOS_BEFORE_STREAMS];

/* stream: its handle; of the per-thread default stream each thread has one. */
static inline _Atomic uint32_t *lithos_before_on(uint64_t stream)
{
    const uint64_t own =
        stream == (uintptr_t)CU_STREAM_PER_THREAD ? (uint64_t)(uintptr_t)&lithos_ticket_current : stream;
    return &lithos_before[own * 0x9e3779b97f4a7c15ull >> 32 & (LITHOS_BEFORE_STREAMS - 1)].shape;
}

/* The shape of the launch before the one that is on its way, 0: none is known. */
static inline uint32_t lithos_before_get(uint64_t stream)
{
    return atomic_load_explicit(lithos_before_on(stream), memory_order_relaxed);
}

static inline void lithos_before_set(uint64_t stream, uint32_t shape)
{
    atomic_store_explicit(lithos_before_on(stream), shape, memory_order_relaxed);
}
