/* The arena: pages shared by one tenant process and lithosd alone, made by the daemon as a sealed memfd.
 *
 * The daemon writes the first part (header, lease, grant, how far it has read, plans, sizes) and trusts nothing of it when it is read
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
#include "proto/sizes.h"

#define LITHOS_ARENA_MAGIC 0x414e5241534f4854ull /* "THOSARNA" in memory order */
#define LITHOS_ARENA_VERSION 22u
#define LITHOS_MAX_GPUS 16u
#define LITHOS_UUID_BYTES 16u

/* One GPU's part of a grant. */
struct lithos_grant_gpu {
    uint8_t uuid[LITHOS_UUID_BYTES]; /* as cuDeviceGetUuid_v2 gives it */
    struct lithos_topology topology;
    /* The tenant's quota; never empty, always within topology.valid. Of a tenant with a quota of 0 the TPCs that its launches
     * keep to where no rule says otherwise: not its own, and few (docs/adr/0014-quota-0.md). */
    struct lithos_tpcset own;
    struct lithos_tpcset graphs; /* where CUDA graphs with stops in them run; empty: as all else */
};

enum lithos_class {
    LITHOS_CLASS_HIGH,        /* its launches go to the driver at once */
    LITHOS_CLASS_BEST_EFFORT, /* they wait in queues, of which the card is given little at a time */
    LITHOS_CLASS_MAX,
};

/* How tenants are together on a card (lithosd --share). */
enum lithos_domain {
    LITHOS_DOMAIN_SPATIAL, /* under one MPS server, side by side; without it in turns */
    LITHOS_DOMAIN_PREEMPT, /* each a context of its own, in turns, best-effort ones short ones */
    LITHOS_DOMAIN_MAX,
};

#define LITHOS_SLICE_MAX_US 1000000u

struct lithos_grant {
    uint64_t epoch; /* grows with each change */
    uint32_t gpu_count;
    uint32_t class; /* enum lithos_class */
    uint32_t share; /* enum lithos_domain */
    uint32_t
        slice_us; /* PREEMPT: how long its turns are, at most LITHOS_SLICE_MAX_US; 0: as the driver has them */
    struct lithos_atom_policy atom; /* OFF where the prelude was not seen to work on each of the GPUs */
    struct lithos_grant_gpu gpus[LITHOS_MAX_GPUS];
};

#define LITHOS_RULE_ON \
    1u /* there is a rule; else none of the rest is looked at, and the tenant keeps to its quota */
#define LITHOS_RULE_HOLD 2u   /* nothing is issued, until the rule changes or the lease runs out */
#define LITHOS_RULE_STRICT 4u /* floor is for the GPU, not for each stream */
#define LITHOS_RULE_INSTEAD \
    8u /* the TPCs named here are all there is: kernels that may not run there wait, they do not go to the quota's */
#define LITHOS_RULE_WINDOW_MAX_NS 1000000000u
#define LITHOS_RULE_FLOOR_MAX 64u
/* A lease that is older says that no scheduler is there: rules are then not looked at. */
#define LITHOS_LEASE_NS 1000000000ull

/* What the scheduler says of the next kernels of a best-effort tenant on a GPU. The tenant looks before it issues each one. */
struct lithos_rule {
    uint32_t flags;         /* LITHOS_RULE_* */
    uint32_t window_ns;     /* issue to `lent` while less than this is outstanding, by prediction */
    uint32_t own_window_ns; /* the same for what goes to the quota and `spare` */
    uint32_t
        wider_tpcs;    /* so many more are expected to be lent, or again to what is too long for them now, */
    uint64_t wider_ns; /* about then (CLOCK_MONOTONIC) */
    uint64_t wider_longest_ns; /* what takes longer there will not be borne then either */
    uint32_t floor; /* and whatever is outstanding, while fewer kernels than this are in flight: 1 to 64 */
    uint32_t
        longest_ns; /* kernels that are predicted to take longer do not go to `lent`; 0: none is too long */
    uint64_t
        until_ns; /* but for those that are predicted to be over by then (CLOCK_MONOTONIC); 0: for none */
    struct lithos_tpcset spare; /* TPCs beside the quota for all kernels: nobody's; may be empty */
    struct lithos_tpcset
        lent; /* and those that others own and bear kernels on, within these limits; may be empty */
};

struct lithos_rule_slot {
    _Alignas(64) _Atomic uint32_t seq; /* seqlock over rule */
    struct lithos_rule rule;
};

/* What a process does about its time slices. */
enum lithos_slice_watch {
    LITHOS_SLICE_OFF,       /* nothing: it was not asked to */
    LITHOS_SLICE_WATCHED,   /* its channel groups are seen as they are made */
    LITHOS_SLICE_BLIND,     /* what its driver does cannot be seen */
    LITHOS_SLICE_NO_THREAD, /* nor can a thread be made that sets them */
    LITHOS_SLICE_WATCH_MAX,
};

struct lithos_slice_report {
    _Atomic uint32_t watch;   /* enum lithos_slice_watch; any value */
    _Atomic uint32_t groups;  /* channel groups that were seen and are there */
    _Atomic uint32_t set;     /* of them those whose slice is as the grant has it, where it has one */
    _Atomic uint32_t refused; /* and those that the kernel driver did not give it */
    _Atomic uint32_t
        status; /* for what reason: its status, or 0x10000 and an errno, or 0x20000: too many groups */
    uint32_t reserved;
};

#define LITHOS_OBSERVE_RECORDS 1u /* launch records */
#define LITHOS_OBSERVE_TICKS 4u   /* records note ticks: lithos_ticks_steady */
#define LITHOS_OBSERVE_BEFORE 8u  /* and the launch before: where kernels may be right-sized */
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
    _Atomic uint32_t sizing;    /* 1: launches go by `sizes`, while the lease is good; 0: all have all TPCs */
    _Atomic uint32_t stops; /* graphs made from now on have stops in them, so many kernels apart; 0: none */
    _Atomic uint64_t
        kept[2]; /* not empty: launches that go by `sizes` keep to these TPCs, which others keep off */
    struct lithos_grant grant;
    struct lithos_rule_slot rules[LITHOS_MAX_GPUS]; /* in the grant's order of GPUs */
    _Atomic int64_t clock_drift_ppb
        [LITHOS_MAX_GPUS]; /* by which the host's clock is faster than theirs, in 1e-9; 0: as far as is known, not */
    _Atomic uint32_t record_tails[LITHOS_RECORD_RINGS]; /* records read, modulo 2^32 */
    _Alignas(64) struct lithos_plan_row plans[LITHOS_PLAN_ROWS];
    struct lithos_size_row sizes[LITHOS_SIZE_ROWS];
    /* written by the tenant, on pages of its own */
    _Alignas(4096) _Atomic uint64_t counters[LITHOS_COUNTER_MAX]; /* of threads without a ring */
    _Atomic uint32_t
        queue_depth; /* calls queued at the last look: none that are gathered, but one that a request is known to go on with */
    _Atomic uint32_t queue_held;    /* calls past the queues that a rule holds up */
    _Atomic uint32_t queue_why;     /* the first kernel of them waits: enum lithos_tpcpick; any value */
    _Atomic uint64_t queue_head_ns; /* and is predicted to take so long */
    struct lithos_slice_report slice;
    /* Launches of graphs: their calls have begun; have returned, and their records are written. Modulo 2^32. */
    _Atomic uint32_t graphs_begun, graphs_given;
    struct lithos_record_rings records;
    /* written by the GPU: registered with it by the tenant */
    _Alignas(4096) struct lithos_stamp stamps[LITHOS_STAMP_SLOTS];
};

#define LITHOS_ARENA_BYTES ((sizeof(struct lithos_arena) + 4095) / 4096 * 4096)

/* 0; -EPROTO when magic or size is not ours; -EPROTONOSUPPORT for another version (the message says which). */
int lithos_arena_validate(const struct lithos_arena *a, size_t mapped_bytes);
/* 0; -EINVAL: no GPU or too many, no such class, no such domain, a slice that is too long or of tenants that share in space, a topology that is not valid, an own set that is empty, or a set that names a bit that is no TPC. */
int lithos_grant_validate(const struct lithos_grant *g);

/* Let graphs with stops in them go on, or have them wait at the next one. Either side: whoever is left when the other has gone. */
static inline void lithos_arena_let_graphs(struct lithos_arena *a, bool go)
{
    atomic_store_explicit(&a->stamps[LITHOS_STAMP_STOP_SLOT].payload, go, memory_order_release);
}

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

/* 0; -EINVAL: a flag that does not exist, a window or a floor out of range. */
int lithos_rule_validate(const struct lithos_rule *r);
/* Daemon: the rule for a GPU of the grant, from the next kernel on. */
void lithos_arena_set_rule(struct lithos_arena *a, uint32_t gpu, const struct lithos_rule *r);
/* Tenant: has the rule for a GPU changed since ret_seq was read? */
static inline uint32_t lithos_arena_rule_seq(const struct lithos_arena *a, uint32_t gpu)
{
    return atomic_load_explicit(&a->rules[gpu].seq, memory_order_acquire);
}
/* Tenant: copy a rule and validate it: 0, -EAGAIN, -EINVAL as lithos_arena_read_grant. */
int lithos_arena_read_rule(const struct lithos_arena *a, uint32_t gpu, struct lithos_rule *ret_rule,
                           uint32_t *ret_seq);

/* Daemon: TPCs that launches keep to from the next one on; empty: as `sizes` has it. Sets that follow each other lie within each
 * other, for a launch may see a half of each. */
void lithos_arena_keep(struct lithos_arena *a, struct lithos_tpcset kept);
/* Tenant: any bits. */
struct lithos_tpcset lithos_arena_kept(const struct lithos_arena *a);

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
