/* The scheduler at work: a lithos_sched a GPU (core/sched.h) is told what the rings say, and what it grants goes to best-effort tenants as
 * rules (proto/arena.h). Where tenants cannot be seen, their TPCs are not lent. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/policy.h"
#include "core/sched.h"
#include "core/timeline.h"
#include "daemon/loop.h"
#include "daemon/options.h"
#include "proto/message.h"

struct lithosd;
struct lithosd_tenant;
struct lithosd_process;

/* Slots of 250 ns; the last is for all that took longer. */
#define LITHOSD_REACTIONS 400u
#define LITHOSD_REACTION_NS 250u

/* A tenant's on one of its GPUs. */
struct lithosd_lent {
    bool in; /* it has a slot */
    uint32_t slot;
    uint64_t outstanding;    /* launches that the scheduler was told of, and not the end of */
    uint64_t blind;          /* of these, without a stamp: nobody will tell of their end */
    uint64_t blind_until_ns; /* taken to be over then */
    bool deaf;               /* it does not go by rules: it has no queues, or is not seen */
    bool unseen;             /* it is, or may be, launching what is not seen: taken for busy */
    bool coming;             /* it is in a call that launches a graph: likewise */
    uint32_t queued;         /* as told last */
    uint64_t head_ns;
    uint32_t why;
    uint64_t atoms_of;       /* sequence of the last launch that goes in atoms, */
    uint64_t atom_tpc_ns;    /* and what each of them is predicted to take, times TPCs */
    struct lithos_rule rule; /* in force; flags 0: none */
};

struct lithosd_lend_gpu {
    struct lithos_sched *sched; /* in memory of its own; NULL: none */
    struct lithosd_tenant *tenant[LITHOS_SCHED_TENANTS_MAX];
    uint32_t index[LITHOS_SCHED_TENANTS_MAX]; /* of this GPU among the tenant's */
    uint32_t tenants;
};

struct lithosd_lend {
    const struct lithos_policy *policy;
    const char *off; /* why nothing is lent; NULL: it is */
    bool spins;      /* a processor can be spared to watch without a pause */
    struct lithosd_lend_gpu gpu[LITHOS_MAX_GPUS];
    struct lithosd_timer timer;
    unsigned keep;    /* tenants that leave others a strip, or have until it is empty (rightsize.h) */
    unsigned holds;   /* tenants whose graphs may have to wait (hold.h) */
    uint64_t changes; /* rules written */
    uint64_t reactions[LITHOSD_REACTIONS]; /* from a record being seen to the rules that follow from it */
};

/* ---- lend_policy.c ---- */

/* Why the mechanism cannot do what a policy needs, or NULL. */
const char *lithosd_policy_why_not(const struct lithos_policy *p, const struct lithosd_options *o);

/* ---- lend_rule.c ---- */

/* What a grant is to the launch queues of a tenant. alone: there is nobody else whose TPCs it might be lent. */
struct lithos_rule lithosd_rule(const struct lithos_tpcgrant *g, bool alone);

/* ---- lend.c ---- */

/* The GPUs are known. */
void lithosd_lend_start(struct lithosd *d);
void lithosd_lend_finish(struct lithosd *d);
/* A tenant was admitted or taken over; its quota, class or share has changed; it is about to be released. */
void lithosd_lend_add(struct lithosd_tenant *t);
void lithosd_lend_change(struct lithosd_tenant *t);
void lithosd_lend_remove(struct lithosd_tenant *t);
/* A process of it has come, has its arena now, or is gone: what can be seen of it may be otherwise. */
void lithosd_lend_processes(struct lithosd_tenant *t);
/* A launch was read, the first of its atoms or the whole; followed: its end will be told. */
void lithosd_lend_launch(struct lithosd_tenant *t, const struct lithos_timeline_launch *l, bool followed);
/* A further atom of it was. */
void lithosd_lend_atom(struct lithosd_tenant *t, const struct lithos_timeline_launch *l);
void lithosd_lend_done(struct lithosd_tenant *t, const struct lithos_kernel_event *k);
/* Its launches keep off these TPCs of its first GPU: others may have them; one that does not may wait so long. */
void lithosd_lend_strip(struct lithosd_tenant *t, struct lithos_tpcset strip, uint64_t bears_ns);
/* Until when others' work is on these TPCs of its own there, as predicted; 0: none is. */
uint64_t lithosd_lend_beside_ns(const struct lithosd_tenant *t, struct lithos_tpcset tpcs);
/* Is anybody there who would borrow TPCs of its first GPU? */
bool lithosd_lend_wanted(const struct lithosd_tenant *t);
/* After a look at all rings and stamps: queues, what was lost, and the time. */
void lithosd_lend_look(struct lithosd *d);
/* How soon the next look has to come: 0 without a pause, UINT64_MAX whenever. */
uint64_t lithosd_lend_period_ns(const struct lithosd *d);
/* TPCs that launches of a tenant may carry on its i-th GPU: those of its grant, unless the policy has it otherwise. */
struct lithos_tpcset lithosd_lend_own(const struct lithosd_tenant *t, uint32_t i);
/* Of its own, who else may use now; and what it has of others. */
struct lithos_tpcset lithosd_lend_away(const struct lithosd_tenant *t, uint32_t i);
struct lithos_tpcset lithosd_lend_lent(const struct lithosd_tenant *t, uint32_t i);

/* ---- lend_status.c ---- */

/* "scheduler" of docs/status.md. */
json_t *lithosd_lend_status(const struct lithosd *d);
/* "share" of a tenant there. */
json_t *lithosd_share_status(const struct lithosd_tenant *t);
/* The document of `lithos explain`; owned by the caller (free), NULL without memory. */
char *lithosd_explain(struct lithosd_tenant *t);

/* ---- refuge.c: tenants with a quota of 0 ---- */

/* Has it TPCs of its own? */
bool lithosd_owns(const struct lithosd_tenant *t);
/* Where its launches go that no rule is for: its part of what nobody owns, its floor at least, be it others'. */
struct lithos_tpcset lithosd_refuge(const struct lithosd *d, const struct lithosd_tenant *t, unsigned gpu);
/* Quotas have changed: so may the refuges. */
void lithosd_refuges_renew(struct lithosd *d);
/* As the scheduler takes them: what was not said filled in. */
struct lithos_share lithosd_share(const struct lithosd_tenant *t);
/* 0, or -EINVAL with the reason: a share or a quota that such a tenant cannot have. */
int lithosd_share_check(const struct lithosd *d, uint32_t class, const struct lithos_quota *quota,
                        const struct lithos_share *share, char text[LITHOS_TEXT_MAX]);
