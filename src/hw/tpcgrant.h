/* What one tenant may send to one GPU now, and what a launch makes of it.
 *
 * A grant is an ordered set of TPCs: the tenant's own, which it may always use, then lent ones in parts, each with a
 * limit on what may be put there. The scheduler (core/sched.h) makes grants; whoever submits a tenant's launches
 * asks lithos_tpcgrant_pick for each of them, so that the daemon's simulator and the tenant's library follow one rule.
 * Pure, and safe on any values: what another process wrote may be wrong, but not harmful. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "hw/topology.h"

#define LITHOS_TPCGRANT_PARTS 4u
#define LITHOS_TPCGRANT_FOREVER UINT64_MAX

enum lithos_tpcgrant_flag {
    LITHOS_TPCGRANT_HOLD = 1u << 0,       /* submit nothing for now */
    LITHOS_TPCGRANT_RECALL = 1u << 1,     /* and take back what has not started, where that can be done */
    LITHOS_TPCGRANT_UNMASKED = 1u << 2,   /* launches carry no mask: own names all TPCs */
    LITHOS_TPCGRANT_NO_MEMORY = 1u << 3,  /* nothing that memory holds up, */
    LITHOS_TPCGRANT_NO_COMPUTE = 1u << 4, /* or nothing else, for now */
};

/* TPCs of one or more owners who bear the same. */
struct lithos_tpcgrant_part {
    struct lithos_tpcset tpcs;
    uint64_t longest_ns; /* a launch that is over so long after it started may go there at any time, */
    uint64_t until_ns;   /* any other only if it is predicted to be over by then (the clock of now_ns) */
};

/* Same layout in every process: it travels in the arena. */
struct lithos_tpcgrant {
    uint64_t epoch; /* grows with each change */
    uint32_t flags; /* enum lithos_tpcgrant_flag */
    uint32_t part_count;
    int32_t priority, lent_priority; /* urgency of launches on own and on lent TPCs: lower first, 0 normal */
    struct lithos_tpcset own;
    struct lithos_tpcgrant_part parts[LITHOS_TPCGRANT_PARTS]; /* those with the widest limits first */
    uint64_t window_ns;         /* submit no more while predicted work of more than that is outstanding */
    uint64_t lent_window_ns;    /* the same for launches that use lent TPCs */
    uint64_t atom_ns;           /* cut launches that can be cut to about that long; 0: never cut */
    uint64_t pace_ns;           /* from one launch's start to the next at least; 0: no pace */
    struct lithos_tpcset wider; /* what may be lent as well from about wider_ns on; empty: nothing known */
    uint64_t wider_ns;
    uint64_t wider_longest_ns; /* what takes longer there will not be borne then either */
    uint32_t thin_ppm; /* residency on lent TPCs may be capped down to this part of what an SM holds */
    uint32_t reserved; /* 0 */
};

_Static_assert(sizeof(struct lithos_tpcgrant) == 240, "no padding: grants are compared as bytes");

enum lithos_tpcwork_flag {
    LITHOS_TPCWORK_CUTTABLE = 1u << 0, /* may be run as atoms */
    LITHOS_TPCWORK_RESIDENT = 1u << 1, /* all its blocks at once: cooperative, grid barriers */
    LITHOS_TPCWORK_MEMORY = 1u << 2,   /* memory holds it up */
};

/* A launch, or what is left of it, as it is predicted to be. */
struct lithos_tpcwork {
    uint64_t blocks;         /* to run */
    uint64_t lifetime_ns;    /* of a block in an SM that holds `residency` of them */
    uint32_t residency;      /* blocks that an SM holds, at least 1 */
    uint32_t saturation;     /* blocks that make an SM busy; 0: not known, half of residency */
    uint32_t cluster_blocks; /* 0 or 1: none */
    uint32_t flags;          /* enum lithos_tpcwork_flag */
    uint64_t least_ns; /* all of it, on any number of TPCs: the card's memory gives no more; 0: not known */
};

/* Why a launch goes or waits. */
enum lithos_tpcpick {
    LITHOS_PICK_RUN,
    LITHOS_PICK_HELD,         /* the grant says hold */
    LITHOS_PICK_PACED,        /* too soon after the last one */
    LITHOS_PICK_WINDOW,       /* enough is outstanding */
    LITHOS_PICK_NO_TPCS,      /* no own TPCs, and nothing is lent */
    LITHOS_PICK_OUTLIVES,     /* no own TPCs, and it would stay longer than those lent may be kept */
    LITHOS_PICK_NO_ROOM,      /* for its clusters */
    LITHOS_PICK_NOT_RESIDENT, /* not for all of its blocks at once */
    LITHOS_PICK_PROFILE,      /* its kind is not wanted now */
    LITHOS_PICK_WIDER,        /* it is over sooner when it waits for more TPCs */
    LITHOS_PICK_MAX,
};

/* When it is asked. */
struct lithos_tpcmoment {
    uint64_t now_ns;
    uint64_t ahead_ns; /* predicted time until the tenant's outstanding work is over, and to reach the card */
    uint64_t held_ns;  /* for how long this launch has been put off in favour of wider TPCs */
    uint64_t since_last_ns; /* since the last launch was sent */
};

struct lithos_tpcchoice {
    enum lithos_tpcpick why;
    bool lent; /* some of tpcs are lent */
    struct lithos_tpcset tpcs;
    uint64_t blocks;    /* of this launch: all, or an atom of whole waves and clusters */
    uint32_t residency; /* cap on blocks an SM holds; 0: none */
    int32_t priority;
    uint64_t duration_ns; /* predicted, there */
    uint64_t retry_ns; /* not RUN: worth asking again then without a new grant, or LITHOS_TPCGRANT_FOREVER */
};

/* 0; -EINVAL: sets that name no TPC of the card or overlap, too many parts, flags or fields out of range. */
int lithos_tpcgrant_validate(const struct lithos_tpcgrant *g, const struct lithos_topology *t);
/* Everything lent. */
struct lithos_tpcset lithos_tpcgrant_lent(const struct lithos_tpcgrant *g);
/* Where and how a launch goes now. Zeroes in work count as 1. ret_choice is set in full in either case. */
void lithos_tpcgrant_pick(const struct lithos_tpcgrant *g, const struct lithos_topology *t,
                          const struct lithos_tpcwork *work, const struct lithos_tpcmoment *at,
                          struct lithos_tpcchoice *ret_choice);
/* Predicted time of so many blocks on so many TPCs, at most residency (0: as many as fit) of them an SM. */
uint64_t lithos_tpcwork_duration_ns(const struct lithos_topology *t, const struct lithos_tpcwork *work,
                                    uint64_t blocks, uint32_t tpcs, uint32_t residency);
/* "window", "outlives", ...; never NULL. */
const char *lithos_tpcpick_name(enum lithos_tpcpick why);
