/* The parts of the scheduler: tenants and events (sched.c), what owners can bear (sched_owner.c), who gets what is idle
 * (sched_lend.c), why (sched_explain.c). Policies see all of it. */
#pragma once

#include "base/assert.h"
#include "base/util.h"
#include "core/demand.h"
#include "core/policy.h"
#include "core/sched.h"

#define SCHED_BUCKETS 8u
#define SCHED_BUCKET_NS (LITHOS_NSEC_PER_SEC / SCHED_BUCKETS)
#define SCHED_NOBODY 0xffu
#define SCHED_OCTAVES 24u

struct sched_bucket {
    uint64_t number; /* time divided by SCHED_BUCKET_NS */
    uint32_t why_ns[LITHOS_WHY_MAX], pick_ns[LITHOS_PICK_MAX];
    uint32_t returns, hits;
    uint64_t wait_ns, lent_tpc_ns, lent_away_tpc_ns;
};

/* What its completions say of a tenant's neighbours: running means of measured over predicted, with nobody on lent TPCs
 * and with somebody there. */
struct sched_beside {
    uint32_t alone_ppm, beside_ppm; /* 0: not known */
    bool probes;                    /* nothing is lent while it is busy, to see how it fares then */
    uint32_t probe_samples;         /* in this probe, or since the last one */
    uint64_t probe_ns;              /* begun; else not before */
    uint32_t squeeze_ppm;           /* part of what could be lent that is, while it is busy */
    uint32_t samples;               /* with somebody there, since they were judged last, */
    uint32_t alone_samples;         /* and with nobody while somebody waits for more, since the last step */
    uint64_t step_ns;
};

struct sched_tenant {
    bool used;
    bool stale; /* it has changed itself: its grant is to be made anew whatever it borrows */
    bool lease_lost;
    bool fed; /* it had starved: its next launch may go where others may not, but no further one */
    struct lithos_sched_tenant desc;
    struct lithos_tpcgrant grant;

    uint32_t outstanding, queued;
    uint64_t head_ns;
    enum lithos_tpcpick head_why;
    uint64_t state_ns;       /* busy or idle since */
    uint64_t outstanding_ns; /* predicted, of all of them */
    uint64_t end_ns;         /* when they are predicted to be over */
    uint64_t ended_ns;       /* the latest end of its launches until now */
    uint64_t progress_ns;    /* last launch, or when it came to have something to launch */
    uint32_t cluster_blocks; /* of the launch at the head of its queue, or of its last one */
    uint32_t resident_tpcs;  /* for all blocks of that at its head, if they wait for each other; else 0 */

    /* as an owner */
    struct lithos_demand demand;
    bool came;               /* it has launched before */
    bool period_open;        /* not yet accounted for: it may have only paused */
    uint64_t period_ns;      /* when the busy period began */
    uint64_t period_wait_ns; /* lost in it to lent work */
    uint64_t need_ns;        /* 99 of 100 busy periods take no longer, */
    uint64_t usual_ns;       /* and half of them */
    /* A run: busy with pauses only to send a request that waited. Its part that began last, the time of those before, the longest and their
     * number; what was lost in it to lent work. */
    uint64_t part_ns, run_ns, run_longest_ns, run_parts, run_wait_ns;
    uint32_t ahead; /* launches that were outstanding when another came at follows_ns, and have not ended; */
    uint64_t follows_ns, ahead_end_ns; /* the latest of their ends */
    uint64_t single_ns;                /* a usual run of one part */
    uint64_t run_time_ns,
        single_time_ns; /* of the last runs, and of those of one part among them, older ones for less */
    uint64_t
        request_ns; /* 99 of 100 runs have no longer request, as far as is known, with the wait for those before it */
    uint64_t even_ns; /* it is idle for about so long each time, and so foreseen; 0: it is not */
    uint64_t
        interval_ns; /* its busy periods begin at intervals of about so long, by a clock; 0: they do not */
    bool even_gaps;  /* it is foreseen from when it went idle: else by its intervals alone */

    uint32_t trust_ppm;  /* in predictions of what stays on its TPCs */
    bool returning;      /* no completion since it came back */
    uint64_t foreign_ns; /* predicted end of others' work on its TPCs when it came back */
    struct sched_beside beside;
    struct lithos_tpcset lent_away;
    struct lithos_tpcset strip; /* its launches keep off it, busy or not; */
    uint64_t strip_bears_ns;    /* one that does not may wait for so long */

    /* predicted time of its launches that could not be cut, by octaves of their length from 1 us, and of all */
    uint64_t uncut_ns[SCHED_OCTAVES], launched_ns;

    /* as a borrower */
    struct lithos_tpcset lent;
    uint64_t account_tpc_ns; /* TPC time lent to it, by weight */
    uint64_t settled_ns;
    enum lithos_sched_why why;
    struct sched_bucket buckets[SCHED_BUCKETS];

    uint64_t scratch[3]; /* the policy's */
};

struct lithos_sched {
    struct lithos_sched_config config;
    uint64_t now_ns, timer_ns;
    uint64_t planned_ns;
    uint64_t policy_ns; /* the policy's */
    bool dirty;
    bool withheld; /* TPCs are kept from borrowers while another's work is on them */
    /* A bit a slot. Busy: something outstanding or queued; fresh: the grant is not what was handed out last. */
    uint64_t used, busy, fresh;
    uint64_t borrowers; /* who has TPCs lent, other than its own */
    uint64_t placed;    /* who has a place of its own (lithos_sched_tenant) */
    uint64_t strange;
    struct lithos_tpcset unowned, gpc[LITHOS_GPC_MAX];
    /* A TPC's last borrower and when its work there is predicted to be over (paper 5.3, per-TPC timers). */
    uint8_t tpc_user[LITHOS_TPC_BITS];
    uint64_t tpc_end_ns[LITHOS_TPC_BITS];
    struct sched_tenant tenants[];
};

#define sched_each(s, t)                                                                           \
    for (uint64_t rest_ = (s)->used; rest_ && ((t) = &(s)->tenants[__builtin_ctzll(rest_)], true); \
         rest_ &= rest_ - 1)

static inline bool sched_is_busy(const struct sched_tenant *t)
{
    return t->outstanding || t->queued;
}

static inline uint32_t sched_slot(const struct lithos_sched *s, const struct sched_tenant *t)
{
    return (uint32_t)(t - s->tenants);
}

static inline bool sched_is_best_effort(const struct sched_tenant *t)
{
    return t->desc.class == LITHOS_SCHED_BEST_EFFORT;
}

static inline void sched_wake_at(struct lithos_sched *s, uint64_t at_ns)
{
    s->timer_ns = LITHOS_MIN(s->timer_ns, at_ns);
}

/* sched.c, for policies. A grant of the own TPCs and the configured windows to begin with; make it the tenant's. */
struct lithos_tpcgrant sched_grant_own(const struct lithos_sched *s, const struct sched_tenant *t);
void sched_publish(struct lithos_sched *s, struct sched_tenant *t, const struct lithos_tpcgrant *g);

/* sched_owner.c */
void sched_owner_init(struct sched_tenant *t);
/* It launches after having been idle. */
void sched_owner_returns(struct lithos_sched *s, struct sched_tenant *t, uint64_t submit_ns);
/* The launch that comes while others are outstanding. */
void sched_owner_follows(struct sched_tenant *t, uint64_t submit_ns);
void sched_owner_done(struct lithos_sched *s, struct sched_tenant *t, uint64_t submit_ns, uint64_t start_ns,
                      uint64_t end_ns, uint64_t predicted_ns);
/* What a return may lose at most, whatever it has saved up. */
uint64_t sched_owner_slack_ns(const struct lithos_sched *s, const struct sched_tenant *t);
/* When an idle owner that comes at even intervals is expected; 0: it does not. */
uint64_t sched_owner_comes_ns(const struct sched_tenant *t);
/* What may run on its TPCs when it has next gone idle: as long as the slack lets, or within its safe time. */
uint64_t sched_owner_will_bear_ns(const struct lithos_sched *s, const struct sched_tenant *t);
/* How its TPCs may be lent now: limits, or why not. Sets a timer for when that changes by itself. */
enum lithos_sched_why sched_owner_bears(struct lithos_sched *s, struct sched_tenant *t,
                                        uint64_t *ret_longest_ns, uint64_t *ret_until_ns);
/* Of the TPCs that its launches keep off, those that may be lent whatever it does, and for how long a launch may stay there: what
 * it would bear, if a launch of its own came there all the same. Empty: none. */
struct lithos_tpcset sched_owner_strip(const struct lithos_sched *s, const struct sched_tenant *t,
                                       uint64_t *ret_longest_ns);
/* Busy owners: the least part of what could be lent that any of them stands beside it. */
uint32_t sched_owner_squeeze_ppm(struct lithos_sched *s);

/* sched_lend.c: lend what is idle to who can use it. */
void sched_lend(struct lithos_sched *s);

/* sched_advise.c: remember a launch. */
void sched_note_launch(struct sched_tenant *t, uint64_t predicted_ns, uint32_t flags);

/* sched_explain.c */
struct sched_bucket *sched_bucket(struct sched_tenant *t, uint64_t now_ns);
/* Account for the time since it was last settled: before anything changes that accounts depend on. */
void sched_settle(struct sched_tenant *t, uint64_t now_ns);
