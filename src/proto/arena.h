/* The arena: pages shared by one tenant process and lithosd alone, made by the daemon as a sealed memfd.
 *
 * The daemon writes the first part (header, lease, grant, how far it has read, plans) and trusts nothing of it when it is read
 * back; the tenant writes the second (counters, launch records), the GPU the third (stamps), and the daemon copies
 * before it looks. A tenant that scribbles over everything hurts itself only. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/tpcset.h"
#include "hw/atom.h"
#include "hw/topology.h"
#include "proto/plans.h"
#include "proto/records.h"

#define LITHOS_ARENA_MAGIC 0x414e5241534f4854ull /* "THOSARNA" in memory order */
#define LITHOS_ARENA_VERSION 7u
#define LITHOS_MAX_GPUS 16u
#define LITHOS_UUID_BYTES 16u

/* One GPU's part of a grant. */
struct lithos_grant_gpu {
    uint8_t uuid[LITHOS_UUID_BYTES]; /* as cuDeviceGetUuid_v2 gives it */
    struct lithos_topology topology;
    struct lithos_tpcset own; /* the tenant's quota; never empty, always within topology.valid */
};

struct lithos_grant {
    uint64_t epoch; /* grows with each change */
    uint32_t gpu_count;
    uint32_t reserved;
    struct lithos_atom_policy atom; /* OFF where the prelude was not seen to work on each of the GPUs */
    struct lithos_grant_gpu gpus[LITHOS_MAX_GPUS];
};

#define LITHOS_OBSERVE_RECORDS 1u /* launch records */
#define LITHOS_OBSERVE_TICKS 4u   /* records note ticks: lithos_ticks_steady */
#define LITHOS_OBSERVE_STAMPS 2u  /* completion stamps; only where the probe has seen them work on this GPU */

struct lithos_arena {
    /* written by lithosd */
    uint64_t magic;
    uint32_t version;
    uint32_t size; /* bytes of the whole arena */
    uint64_t tenant;
    _Atomic uint64_t lease_ns;  /* CLOCK_MONOTONIC when the daemon last looked after this arena */
    _Atomic uint32_t grant_seq; /* seqlock over grant: odd while it is written */
    _Atomic uint32_t observe;   /* LITHOS_OBSERVE_*: what the tenant is to write */
    struct lithos_grant grant;
    _Atomic uint32_t record_tails[LITHOS_RECORD_RINGS]; /* records read, modulo 2^32 */
    _Alignas(64) struct lithos_plan_row plans[LITHOS_PLAN_ROWS];
    /* written by the tenant, on pages of its own */
    _Alignas(4096) _Atomic uint64_t counters[LITHOS_COUNTER_MAX]; /* of threads without a ring */
    struct lithos_record_rings records;
    /* written by the GPU: registered with it by the tenant */
    _Alignas(4096) struct lithos_stamp stamps[LITHOS_STAMP_SLOTS];
};

#define LITHOS_ARENA_BYTES ((sizeof(struct lithos_arena) + 4095) / 4096 * 4096)

/* 0; -EPROTO when magic or size is not ours; -EPROTONOSUPPORT for another version (the message says which). */
int lithos_arena_validate(const struct lithos_arena *a, size_t mapped_bytes);
/* 0; -EINVAL: no GPU or too many, a topology that is not valid, an own set that is empty or names a bit that is no TPC. */
int lithos_grant_validate(const struct lithos_grant *g);

/* Daemon: publish a grant (its epoch included) and renew the lease. */
void lithos_arena_publish(struct lithos_arena *a, const struct lithos_grant *g);
/* Tenant: the seqlock's value, for "has anything changed since". Even when a grant is whole. */
static inline uint32_t lithos_arena_grant_seq(const struct lithos_arena *a)
{
    return atomic_load_explicit(&a->grant_seq, memory_order_acquire);
}
/* Tenant: copy the grant and validate it. Tries a bounded number of times: -EAGAIN when the daemon (or its death in
 * the middle of a write) leaves it torn; -EINVAL as lithos_grant_validate. ret_seq is the value it was read at. */
int lithos_arena_read_grant(const struct lithos_arena *a, struct lithos_grant *ret_grant, uint32_t *ret_seq);

static inline void lithos_arena_count(struct lithos_arena *a, enum lithos_counter c, uint64_t n)
{
    atomic_fetch_add_explicit(&a->counters[c], n, memory_order_relaxed);
}
/* A counter over all threads. Either side. */
static inline uint64_t lithos_arena_counter(const struct lithos_arena *a, enum lithos_counter c)
{
    uint64_t sum = atomic_load_explicit(&a->counters[c], memory_order_relaxed);
    for (unsigned i = 0; i < LITHOS_RECORD_RINGS; i++)
        sum += atomic_load_explicit(&a->records.ring[i].counters[c], memory_order_relaxed);
    return sum;
}
/* All of them. */
void lithos_arena_read_counters(const struct lithos_arena *a, uint64_t ret_counters[LITHOS_COUNTER_MAX]);
/* Stable lower-case name for JSON and tables ("launches"). */
const char *lithos_counter_name(enum lithos_counter c);
