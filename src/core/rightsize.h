/* The fewest TPCs on which a kernel still meets its tenant's latency slip (paper 5.5). One a tenant and GPU; pure: no
 * I/O, no clock, no thread, all memory given at init. docs/rightsizing.md has the reasons and the figures.
 *
 * An operator (what the caller's key tells apart) is known by the median of its last durations at each width it has
 * run on. Its time at all the TPCs there are is the measure; a width is good when the median there, and what it may be
 * off by, is within slip times that. A line l = m/t + b through the widths seen proposes the next width to try, and
 * never decides: kernels go by waves, and a line knows of none. What a launch could use by occupancy bounds what is
 * tried, and is itself tried before it is used.
 *
 * Where the card is idle within requests, kernels may take longer than slip times as long, as far as that does not make requests later
 * (lithos_rightsize_ran); widths beyond the slip have to be worth their time.
 *
 * Who pays: each launch within a request earns (slip - 1) of its time with all TPCs, and a narrower one spends what it
 * is slower by. A width not yet measured is tried only when the worst it can cost has been earned before it in the same
 * request. Some requests are references: all TPCs for each launch. When the tenant's own latency of the others leaves
 * slip times theirs, the slip in force is halved, then right-sizing stops for a while. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hw/topology.h"

#define LITHOS_RIGHTSIZE_PPM 1000000u

struct lithos_rightsize; /* opaque */

struct lithos_rightsize_config {
    struct lithos_topology topology;
    uint32_t operators; /* remembered at once, rounded up to a multiple of 8, at most 1 Mi; 376 bytes each */
    uint32_t
        slip_ppm; /* 1100000: requests may take 1.1 of their time with all TPCs, and launches while the card is busy */
    bool probe;            /* may try widths to learn; else only what quotas and lending happen to give */
    uint64_t earn_most_ns; /* outside of requests: what may be saved up for a try */
    uint64_t drain_ns;     /* after the end of a loan, others' work may be there for so long */
};

struct lithos_rightsize_kernel {
    uint64_t key;       /* of the operator: a hash of function, grid and block; any value */
    uint32_t blocks;    /* of the grid; 0: not known */
    uint32_t residency; /* blocks an SM holds of it; 0: not known */
    uint32_t cluster_blocks;
    uint32_t
        least_tpcs; /* never fewer: what its blocks take to be there all at once, where they may wait for each other; 0: any */
};

/* A kernel that has run. */
struct lithos_rightsize_run {
    uint64_t key; /* of its operator; 0: it is never given fewer TPCs */
    /* When its launch was made: it could have begun then or a constant later, had nothing been before it. */
    uint64_t ready_ns;
    uint64_t took_ns;
    uint32_t tpcs, all; /* on so many, of so many */
};

enum lithos_rightsize_why {
    LITHOS_RIGHTSIZE_OFF, /* slip 1, or stopped because the tenant was slower than it may be, or nothing can be left to others */
    LITHOS_RIGHTSIZE_REFERENCE, /* all TPCs, to compare with */
    LITHOS_RIGHTSIZE_FOREIGN,   /* others' work is on too many of them */
    LITHOS_RIGHTSIZE_LEARN,     /* its time with all TPCs is not known yet */
    LITHOS_RIGHTSIZE_ALL,       /* it needs them all, as far as known */
    LITHOS_RIGHTSIZE_SIZED,     /* fewer, measured to be enough */
    LITHOS_RIGHTSIZE_PROBE,     /* fewer, to see whether they are enough */
    LITHOS_RIGHTSIZE_LENT,      /* all but the strip, which others have or had until just now */
    LITHOS_RIGHTSIZE_MIXED, /* all: its launches are several kinds of work, of which its medians say little */
    LITHOS_RIGHTSIZE_WHY_MAX,
};

/* What lithos_rightsize_observe must have back; plain data. */
struct lithos_rightsize_ticket {
    uint32_t op, tag;
    uint16_t all; /* TPCs there were */
    uint16_t width;
    bool reference; /* ran while a reference request did */
    bool
        beside; /* others' work was there when it ran, also as the caller knows: its time is not the operator's own */
};

struct lithos_rightsize_choice {
    enum lithos_rightsize_why why;
    struct lithos_tpcset tpcs; /* a part of those available, with room for the cluster if they have it */
    struct lithos_rightsize_ticket ticket;
};

/* What the next launches of an operator are to run on, said beforehand. */
struct lithos_rightsize_advice {
    enum lithos_rightsize_why why; /* LEARN, ALL, MIXED, SIZED, or PROBE: there is something to try beside */
    struct lithos_tpcset tpcs;     /* all of those available, or fewer that were measured to be enough */
    struct lithos_tpcset probe;    /* PROBE: one launch in probe_every (1 to 128) is to run there */
    uint32_t probe_every;
};

/* What spoke against right-sizing when it was undone last. */
struct lithos_rightsize_undone {
    uint64_t request;   /* its number, from 1; 0: it has never been */
    uint32_t launches;  /* that requests of the kind have which did, about */
    float reference_us; /* of the last block: a request with all TPCs, */
    float median_us;    /* the median of the others, */
    bool tail;          /* and whether it is seldom slow ones that said so */
};

struct lithos_rightsize_stats {
    uint64_t chosen[LITHOS_RIGHTSIZE_WHY_MAX];
    /* TPCs times duration of what was observed, and what it would have been with all TPCs, by the operators' medians. */
    double tpc_ns, whole_tpc_ns;
    double kernel_ns, whole_kernel_ns; /* durations alike */
    uint64_t requests, references;
    uint64_t undone;     /* slip in force was lowered, */
    uint64_t stopped;    /* or right-sizing stopped */
    uint64_t changes;    /* operators that changed and were learned anew */
    uint64_t forgotten;  /* operators that made room for others */
    uint64_t lent;       /* requests that left the strip, */
    uint64_t unused;     /* and those of them in which nobody went there */
    uint64_t narrowed;   /* how often the strip was made narrower, or taken back, since they took too long */
    uint64_t dear;       /* or since it cost more of the tenant's throughput than it was of its TPCs */
    uint64_t met;        /* or since a launch went there all the same */
    uint64_t whole;      /* requests that had all TPCs, since a strip was wanted and had been too much */
    uint64_t reckoned;   /* requests alone on their TPCs of which it was reckoned what they bear, */
    uint64_t unreckoned; /* or was not: their kernels, as told, are not as many as their launches */
    uint32_t slip_ppm;   /* in force, for requests */
    struct lithos_rightsize_undone last_undone;
};

void lithos_rightsize_config_defaults(struct lithos_rightsize_config *config); /* all but the topology */
/* Bytes it takes. 0; -EINVAL: a topology that is not valid, no operators or too many, slip below 1 or over 100. */
int lithos_rightsize_size(const struct lithos_rightsize_config *config, size_t *ret_bytes);
/* Begin in mem (aligned to 16, the caller's); nothing is to be freed. 0, -EINVAL, -ENOSPC. */
int lithos_rightsize_init(void *mem, size_t bytes, const struct lithos_rightsize_config *config,
                          struct lithos_rightsize **ret_rightsize);

/* A request begins: its launches earn anew. */
void lithos_rightsize_request(struct lithos_rightsize *r, uint64_t now_ns);
/* It has ended, so long after it arrived, with so many launches: of requests only those of about as many are compared with each other. */
void lithos_rightsize_request_done(struct lithos_rightsize *r, uint64_t now_ns, uint64_t latency_ns,
                                   uint32_t launches);
/* The same, but others' work was on its TPCs that was not on the strip: they were lent before it began. That says something of
 * requests beside others alone. */
void lithos_rightsize_request_beside(struct lithos_rightsize *r, uint64_t now_ns, uint64_t latency_ns,
                                     uint32_t launches);
/* It has ended, and says nothing: it ran neither as one to compare with nor as the others do. The next one is to run as it was to; three
 * right-sized ones on end are passed over. */
void lithos_rightsize_request_spoilt(struct lithos_rightsize *r, uint64_t now_ns, uint64_t latency_ns,
                                     uint32_t launches);
/* Requests are not told of from here on, until the next one begins: what is known goes on from where it was. */
void lithos_rightsize_pause(struct lithos_rightsize *r, uint64_t now_ns);

/* On which of the available TPCs is it to run? None available: none chosen. On some of them, `foreign`, others' work may
 * still be, since they were lent: a launch that has only a few TPCs would wait for it, so that it runs on fewer only where the
 * rest is enough. */
void lithos_rightsize_choose(struct lithos_rightsize *r, const struct lithos_rightsize_kernel *kernel,
                             struct lithos_tpcset available, struct lithos_tpcset foreign,
                             struct lithos_rightsize_choice *ret_choice);
/* It took duration_ns on so many TPCs (which need not be those chosen). Once a ticket, in any order. */
void lithos_rightsize_observe(struct lithos_rightsize *r, const struct lithos_rightsize_ticket *ticket,
                              uint64_t duration_ns, uint32_t tpcs);

/* Instead of the two above, for who does not see a launch before it is made: one has ended, after duration_ns on so many of
 * the available TPCs; what are the next ones of its operator to run on, until it is asked again? Nobody can say then what a
 * request has earned before a try. So tries cost at most half of what requests lately had left over at their end, all those
 * under way together, and each operator is tried about once a request. A request that is to have all TPCs
 * (lithos_rightsize_whole) is the caller's to keep whole: advice does not go by it. */
void lithos_rightsize_ended(struct lithos_rightsize *r, const struct lithos_rightsize_kernel *kernel,
                            struct lithos_tpcset available, uint64_t duration_ns, uint32_t tpcs,
                            struct lithos_rightsize_advice *ret_advice);
/* A kernel of this tenant's has run, alone of it; in the order of their ends. How long the card is idle between a request's kernels is how
 * much slower they may be without its being later. Not told of any: they may be slower by the slip. */
void lithos_rightsize_ran(struct lithos_rightsize *r, const struct lithos_rightsize_run *run);
/* The request that runs has launched work whose kernels are not told of. */
void lithos_rightsize_unseen(struct lithos_rightsize *r);
/* In parts of their time on all TPCs, what kernels may take: the slip, or more. */
float lithos_rightsize_kernel_slip(const struct lithos_rightsize *r);
/* Are all launches to have all TPCs now? The request that runs is one to compare with, or right-sizing has stopped, or would be for nothing. */
bool lithos_rightsize_whole(const struct lithos_rightsize *r);
/* Another slip, from 1 to 100: what is known of operators stays, what is known of requests and of what is left for others does not. 0 or
 * -EINVAL. */
int lithos_rightsize_set_slip(struct lithos_rightsize *r, uint32_t slip_ppm);

/* --- what is left for others (rightsize_strip.c, ADR 28) --- */

/* Of all its launches in a request, some want all TPCs: what each of them alone leaves comes and goes within microseconds. So
 * a strip is left by all of them, for request after request, as wide as the tenant's own latency bears by comparison with its
 * references, which are taken without it. Is there anybody who would borrow it? Said before a request begins; false at first. */
void lithos_rightsize_lend(struct lithos_rightsize *r, bool wanted);
/* Of the available TPCs, those that others may have now; changes when a request begins, or when a launch has met it, and is one
 * of a row of nested sets. Empty: none. ret_bears_ns: what a launch that goes there all the same may wait, about: half a request, or several
 * where nobody took it for that and no launch has gone there. */
struct lithos_tpcset lithos_rightsize_strip(struct lithos_rightsize *r, struct lithos_tpcset available,
                                            uint64_t *ret_bears_ns);
/* TPCs that launches keep to while others may be on the strip; empty: there is none now. It outlives the strip by the drain. */
struct lithos_tpcset lithos_rightsize_kept(struct lithos_rightsize *r, struct lithos_tpcset available);
/* Others have launched there, while this request ran: where they seldom do, nothing is left for them for a while. */
void lithos_rightsize_used(struct lithos_rightsize *r);
/* Others' work has ended that took so long on those TPCs: what a strip is worth. */
void lithos_rightsize_took(struct lithos_rightsize *r, struct lithos_tpcset tpcs, uint64_t took_ns);
/* How much of the strip that is, of the requests that left it: 0 to 1. 0 while there is none. */
float lithos_rightsize_used_part(const struct lithos_rightsize *r);
/* A request ends: others' work is on what it kept off until then, as predicted; 0: there is none. So long are references put off that are due,
 * but no longer than what others could go there with. */
void lithos_rightsize_beside(struct lithos_rightsize *r, uint64_t now_ns, uint64_t until_ns);
/* A launch has gone to the strip: it needs more than is kept. The strip is taken back, for one request, then two, up to 256, and is half
 * as wide then. */
void lithos_rightsize_met(struct lithos_rightsize *r);

/* l = m/t + b of an operator: two widths or more are known. m in ns times TPCs. */
bool lithos_rightsize_line(const struct lithos_rightsize *r, uint64_t key, double *ret_m_ns,
                           double *ret_b_ns);
/* Good as long as r. */
const struct lithos_rightsize_stats *lithos_rightsize_stats(const struct lithos_rightsize *r);
/* "sized", ...; never NULL. */
const char *lithos_rightsize_why_name(enum lithos_rightsize_why why);

/* rightsize_set.c */
/* More TPCs than this a launch cannot use: one block an SM, clusters whole. At least 1, at most `all`. */
uint32_t lithos_rightsize_bound(const struct lithos_topology *t, const struct lithos_rightsize_kernel *kernel,
                                uint32_t all);
/* Waves of a grid on so many TPCs; 1 when blocks or residency are not known. */
uint32_t lithos_rightsize_waves(const struct lithos_topology *t, const struct lithos_rightsize_kernel *kernel,
                                uint32_t tpcs);
/* So many of the available TPCs (at least; all, when fewer have no room for the cluster). Without clusters: single TPCs
 * first, then GPC by GPC, so that whole GPCs stay free for others' clusters. With: as many TPCs of each GPC as whole
 * clusters take, the GPC with most of them first. */
struct lithos_tpcset lithos_rightsize_pick(const struct lithos_topology *t, struct lithos_tpcset available,
                                           uint32_t tpcs, uint32_t cluster_blocks);
