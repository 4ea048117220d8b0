/* What decides who may use which TPCs: one table a policy. A policy sees tenants and accounts (core/sched_internal.h)
 * and sets every tenant's grant; it is called when something has changed, or its timer has come. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lithos_sched;
struct lithos_sched_event;
struct sched_tenant;

/* What a policy needs of the machine; a machine that has it not cannot run the policy. */
enum lithos_policy_need {
    LITHOS_NEED_MASKS = 1u << 0,  /* TPC masks in launches */
    LITHOS_NEED_ATOMS = 1u << 1,  /* launches cut */
    LITHOS_NEED_QUEUES = 1u << 2, /* best-effort launches queued in the tenant, to be held */
    LITHOS_NEED_SPACE = 1u << 3,  /* tenants share the card in space: MPS */
    LITHOS_NEED_TURNS = 1u << 4,  /* tenants take turns: no MPS */
    LITHOS_NEED_SHORT_TURNS =
        1u << 5, /* and best-effort ones get short ones: their channel groups' time slice set */
    LITHOS_NEED_PRIORITY = 1u << 6, /* of launches, across tenants */
    LITHOS_NEED_RECALL = 1u << 7,   /* what was submitted and has not started can be taken back */
    LITHOS_NEED_PROFILE = 1u << 8,  /* what kernels need most is known before they run */
    LITHOS_NEED_PACE = 1u << 9,     /* queued launches go out at a given rate */
};

struct lithos_policy {
    const char *name;
    const char *what; /* one line */
    uint32_t needs;   /* enum lithos_policy_need */
    /* Time slice of a best-effort tenant in ns where tenants take turns; 0: the card's. */
    uint64_t best_effort_slice_ns;
    /* TPCs are lent to one tenant at a time, and only while their owner is idle or keeps off them: what checkers hold it to. */
    bool exclusive;
    /* Set every tenant's grant, and a timer where time alone changes them. */
    void (*plan)(struct lithos_sched *s);
    /* Look at an event after it has been accounted for; may be NULL. True: plan anew. */
    bool (*event)(struct lithos_sched *s, struct sched_tenant *t, const struct lithos_sched_event *e);
};

/* The n-th policy, or NULL behind the last. The first is LithOS's own. */
const struct lithos_policy *lithos_policy_at(size_t n);
/* By name; NULL: there is none of that name. */
const struct lithos_policy *lithos_policy_find(const char *name);
