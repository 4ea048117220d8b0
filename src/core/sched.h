/* The scheduler of one GPU (paper 5.2, 5.3): what happened goes in, who may use which TPCs comes out.
 *
 * Pure: no I/O, no clock, no thread, nothing at file scope; all memory given at init. The daemon drives it with real
 * rings, the simulator with virtual ones. The driver
 *   1. tells what happened (lithos_sched_add and the like, lithos_sched_event), in the order of time,
 *   2. calls lithos_sched_run when it has told all it knows, and again at lithos_sched_timer_ns,
 *   3. carries out what lithos_sched_next hands out: at most one grant a tenant a run.
 * now_ns is one clock everywhere (CLOCK_MONOTONIC); a time before one already seen counts as that one.
 *
 * What to grant is a policy's (core/policy.h); the accounting below is common to all. docs/scheduler.md says why the
 * rules are as they are. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hw/tpcgrant.h"

#define LITHOS_SCHED_TENANTS_MAX 64u
#define LITHOS_SCHED_NEVER UINT64_MAX
#define LITHOS_SCHED_PPM 1000000u

struct lithos_policy; /* core/policy.h */
struct lithos_sched;  /* opaque */

enum lithos_sched_class {
    LITHOS_SCHED_HIGH,        /* launches inline; its latency counts */
    LITHOS_SCHED_BEST_EFFORT, /* launches through a queue; its throughput counts */
    LITHOS_SCHED_CLASS_MAX,
};

struct lithos_sched_tenant {
    uint64_t id;              /* never 0 */
    struct lithos_tpcset own; /* disjoint from all others' (core/alloc.h); empty: lives on what is lent */
    enum lithos_sched_class class;
    uint32_t weight;     /* of its share of what is lent; 0: takes what nobody else wants */
    uint32_t floor_tpcs; /* of a best-effort tenant: lent even by owners who are busy, when it has starved */
    uint32_t slip_ppm; /* its requests may take that much of their time alone: 1100000 for 1.1; 0: not said */
    uint64_t slo_ns;   /* its requests are to be over within; 0: not said */
    /* Work of it may be on these TPCs that goes by no grant (CUDA graphs that borrow): while it has any under way they are lent to nobody else, and
     * beside others it is lent no more; empty: all of its work goes by grants. */
    struct lithos_tpcset place;
};

struct lithos_sched_config {
    struct lithos_topology topology;
    const struct lithos_policy *policy; /* outlives the scheduler */
    uint32_t tenants;                   /* at most, up to LITHOS_SCHED_TENANTS_MAX */
    /* What the machine takes. */
    uint64_t react_ns; /* from a launch to the grants that follow from it being read by others */
    uint64_t reach_ns; /* from a launch to its first block */
    /* What the policy may use; lithos_sched_config_defaults says what to begin with. */
    uint64_t window_ns;      /* outstanding predicted work of a best-effort tenant */
    uint64_t lent_window_ns; /* the same where some of it is on lent TPCs */
    uint64_t atom_ns;
    uint64_t idle_longest_ns; /* what a best-effort owner's TPCs are lent for */
    uint64_t
        beside_ns; /* what busy high-priority owners' TPCs are lent for: atoms this short; 0: for nothing */
    uint64_t useful_ns;  /* shorter than this no lending is worth its while */
    uint64_t turn_ns;    /* of best-effort tenants who take turns at TPCs */
    uint64_t starved_ns; /* a runnable tenant without a launch for so long is owed one */
    uint32_t slip_ppm;   /* of a high-priority tenant that said neither slip nor SLO */
    uint32_t hit_ppm;    /* share of an owner's returns that may find long work in their way */
    uint32_t thin_ppm;   /* residency on lent TPCs is capped no lower */
};

enum lithos_sched_event_kind {
    LITHOS_SCHED_LAUNCH, /* a kernel, atom or graph was submitted */
    LITHOS_SCHED_ATOM,   /* a further atom of the last launch that was told of: it counts as one with that */
    LITHOS_SCHED_DONE,   /* one that was told of was completed */
    LITHOS_SCHED_LOST,   /* one will not be heard of again */
    LITHOS_SCHED_QUEUE,  /* a tenant's launch queue has changed */
    LITHOS_SCHED_LEASE_LOST, /* the tenant may not be reading its grant */
    LITHOS_SCHED_LEASE_BACK,
    LITHOS_SCHED_STRIP, /* a high-priority owner leaves some of its TPCs to others from now on, busy or not */
    LITHOS_SCHED_EVENT_MAX,
};

struct lithos_sched_event {
    enum lithos_sched_event_kind kind;
    uint32_t slot; /* of the tenant */
    union {
        struct {
            uint64_t submit_ns;
            uint64_t predicted_ns; /* 0: not known */
            struct lithos_tpcset tpcs;
            uint32_t cluster_blocks;
            uint32_t flags;    /* enum lithos_tpcwork_flag, as far as known */
            uint64_t stays_ns; /* there, when its further atoms may go elsewhere; 0: predicted_ns */
        } launch;              /* LAUNCH; ATOM: submit_ns, tpcs and stays_ns alone */
        struct {
            uint64_t submit_ns, start_ns, end_ns;
            uint64_t predicted_ns; /* as at its launch */
        } done;                    /* DONE, told of at any time after its end; LOST: predicted_ns alone */
        struct {
            uint32_t launches;       /* waiting */
            uint64_t head_ns;        /* predicted duration of the first of them on the whole card */
            uint32_t cluster_blocks; /* its clusters */
            uint32_t resident_tpcs;  /* TPCs that hold all its blocks, if they wait for each other; else 0 */
            enum lithos_tpcpick why; /* it waits */
        } queue;
        struct {
            struct lithos_tpcset
                tpcs; /* its launches keep off them; empty: they do not. One that goes there ends it */
            uint64_t bears_ns; /* what such a one may wait */
        } strip;
    };
};

/* Why a tenant does not have more than it has. */
enum lithos_sched_why {
    LITHOS_WHY_IDLE,        /* it asks for nothing */
    LITHOS_WHY_ALL,         /* it has all there is */
    LITHOS_WHY_OWNER_BUSY,  /* owners use their TPCs */
    LITHOS_WHY_OWNER_SOON,  /* owners are expected back */
    LITHOS_WHY_OWNER_SLACK, /* owners cannot bear its kernels */
    LITHOS_WHY_SHARE,       /* other tenants have their share */
    LITHOS_WHY_ROOM,        /* no place for its clusters */
    LITHOS_WHY_SQUEEZED,    /* a busy owner runs slower with it beside */
    LITHOS_WHY_LEASE,       /* it has not been heard of */
    LITHOS_WHY_POLICY,      /* held by the policy */
    LITHOS_WHY_MAX,
};

/* The last second before it was asked for: data for "why". */
struct lithos_sched_explain {
    uint64_t tenant;
    enum lithos_sched_class class;
    struct lithos_tpcset own, lent; /* has now */
    struct lithos_tpcset lent_away; /* of its own, who else may use now */
    struct lithos_tpcset strip;     /* of its own, which its launches keep off */
    enum lithos_sched_why why;      /* now */
    uint32_t outstanding, queued;
    uint64_t why_ns[LITHOS_WHY_MAX]; /* time by reason; sums to a second or its age */
    uint64_t
        pick_ns[LITHOS_PICK_MAX]; /* the time that its launch queue waited, by what its head waited for */
    uint64_t lent_tpc_ns, lent_away_tpc_ns;
    uint32_t returns, hits; /* owner: came back to TPCs that were lent; found work in its way */
    uint64_t wait_ns;       /* owner: time lost to it, as far as completions tell */
    uint64_t slack_ns;      /* owner: what a return may lose now */
    uint64_t need_ns;       /* owner: 99 of 100 of its busy periods take no longer */
    uint64_t request_ns;    /* owner: a request, with its wait for others of its own, as far as is known */
    uint64_t single_ns;  /* owner: a usual time without a pause that had none close to it; 0: none was seen */
    uint32_t single_ppm; /* owner: part of its busy time that was in such */
    uint64_t even_ns;    /* owner: it is idle for about so long each time, and foreseen; 0: it is not */
    uint32_t slower_ppm; /* its kernels take so much of their time with neighbours; 0: not known */
    uint32_t squeeze_ppm;  /* owner: part of what could be lent that is lent while it is busy */
    uint64_t share_tpc_ns; /* its account in fair sharing */
};

/* How a tenant is best run, from what it and the others have done until now: for when it is started next. */
struct lithos_sched_advice {
    /* Multiprocessors to tell its programs of, which size persistent kernels by them: those it can hope to have at once.
     * Of more, the last blocks would make a second wave. */
    uint32_t sms;
    /* Best-effort: most of its time is in launches that cannot be cut and that owners cannot bear, but an owner bears a
     * switch: it should take turns with them instead of sharing the card in space. */
    bool turns;
    uint32_t uncut_ppm;   /* of its predicted time: in launches that cannot be cut */
    uint32_t unborne_ppm; /* of its predicted time: in such that stay longer than owners can bear */
    uint64_t slack_ns;    /* what the owner of most TPCs can bear; 0: there is none, or it is not known */
};

/* For an H200; everything but the topology, the policy and tenants. */
void lithos_sched_config_defaults(struct lithos_sched_config *config);
/* Bytes it takes. 0; -EINVAL: a topology that is not valid, no policy, tenants or a share out of range. */
int lithos_sched_size(const struct lithos_sched_config *config, size_t *ret_bytes);
/* Begin in mem (aligned to 16, the caller's); nothing is to be freed. 0, -EINVAL, -ENOSPC. */
int lithos_sched_init(void *mem, size_t bytes, const struct lithos_sched_config *config,
                      struct lithos_sched **ret_sched);

/* A tenant. ret_slot names it in events until it is removed. 0; -EINVAL (id 0, a class or weight that is none, TPCs
 * that the card has not, slip below 1); -EEXIST; -EBUSY (some of its TPCs are another's); -ENFILE. */
int lithos_sched_add(struct lithos_sched *s, uint64_t now_ns, const struct lithos_sched_tenant *tenant,
                     uint32_t *ret_slot);
/* The same tenant, otherwise. 0; -ENOENT; as above. */
int lithos_sched_change(struct lithos_sched *s, uint64_t now_ns, uint32_t slot,
                        const struct lithos_sched_tenant *tenant);
/* It is gone, and all it had sent. 0 or -ENOENT. */
int lithos_sched_remove(struct lithos_sched *s, uint64_t now_ns, uint32_t slot);

/* Any values; an event of a slot that is none is ignored and counted. */
void lithos_sched_event(struct lithos_sched *s, uint64_t now_ns, const struct lithos_sched_event *event);
/* Decide anew where something has changed. */
void lithos_sched_run(struct lithos_sched *s, uint64_t now_ns);
/* When to run again with nothing told, or LITHOS_SCHED_NEVER. */
uint64_t lithos_sched_timer_ns(const struct lithos_sched *s);
/* The next tenant whose grant is not what was handed out last. False: no more. The pointer is good until the next
 * call. */
bool lithos_sched_next(struct lithos_sched *s, uint32_t *ret_slot, const struct lithos_tpcgrant **ret_grant);
/* A tenant's grant as of the last run; NULL when there is no such tenant. */
const struct lithos_tpcgrant *lithos_sched_grant(const struct lithos_sched *s, uint32_t slot);

/* Of a tenant's own TPCs, those that others may use now; none where there is no such tenant. */
struct lithos_tpcset lithos_sched_lent_away(const struct lithos_sched *s, uint32_t slot);
/* Until when others' work is on these TPCs of its own, as predicted, but after now_ns where it may not have ended: they have work somewhere.
 * 0: none is, or there is no such tenant. */
uint64_t lithos_sched_beside_ns(const struct lithos_sched *s, uint64_t now_ns, uint32_t slot,
                                struct lithos_tpcset tpcs);
/* Would every other high-priority owner bear work of the tenant's on all of its TPCs that can be stopped within longest_ns? For what goes by no grant.
 * As of the last lithos_sched_run; the timer may be an earlier one then. */
bool lithos_sched_bears(struct lithos_sched *s, uint32_t slot, uint64_t longest_ns);
/* 0 or -ENOENT. */
int lithos_sched_explain(struct lithos_sched *s, uint64_t now_ns, uint32_t slot,
                         struct lithos_sched_explain *ret_explain);
/* 0 or -ENOENT. switch_ns: what an owner waits for a best-effort tenant to be off the card where they take turns (two
 * switches and a slice); 0: they cannot. */
int lithos_sched_advise(struct lithos_sched *s, uint32_t slot, uint64_t switch_ns,
                        struct lithos_sched_advice *ret_advice);
/* Events of slots that are none, completions of what was not launched. */
uint64_t lithos_sched_strange(const struct lithos_sched *s);
/* "owner_busy", ...; never NULL. */
const char *lithos_sched_why_name(enum lithos_sched_why why);
