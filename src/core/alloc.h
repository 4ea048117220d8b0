/* Who owns which TPCs of one GPU: quotas as disjoint sets, chosen so that clusters of thread blocks fit.
 *
 * This folder holds policy, and policy is pure: no I/O, no clock, no thread, no memory allocated, nothing at
 * file scope that changes. What time it is and what happened comes in as arguments; what to do about it goes
 * out as values. The daemon runs it against cards, a simulator can run it against a model, and the same input
 * gives the same output. Quotas are the first of it; lending, atom plans, prediction and power belong here as
 * well.
 *
 * How sets are chosen. TPCs of no GPC ("singles", which no cluster of more than one TPC can use) come last:
 * only when the GPCs have no more. Of all ways to take the rest, whole free parts of GPCs and at most one
 * part of a part, the best is, in this order, the one with
 *   1. the largest cluster in the tenant's set (more than LITHOS_CLUSTER_MAX blocks counts for nothing);
 *   2. the fewest GPCs left broken, that is partly free;
 *   3. the most clusters of LITHOS_CLUSTER_MAX blocks that have room side by side in what is left;
 *   4. the fewest GPCs taken from;
 *   5. the smallest rest of the part that is cut; then the lowest GPCs, and in a GPC the lowest bits.
 * So a tenant gets whole GPCs where they fit, and one more that is broken at most. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "hw/topology.h"

#define LITHOS_ALLOC_MAX 64u
/* 100 %, in hundredths of a percent. */
#define LITHOS_QUOTA_WHOLE 10000u

struct lithos_alloc_holder {
    uint64_t tenant; /* never 0 */
    struct lithos_tpcset set;
};

/* Plain data of fixed size: copy it to try something out. */
struct lithos_alloc {
    struct lithos_topology topology;
    struct lithos_tpcset free;
    uint32_t count; /* holders in use, in the order in which they came */
    struct lithos_alloc_holder holders[LITHOS_ALLOC_MAX];
};

/* 0, or -EINVAL (lithos_topology_validate). */
int lithos_alloc_init(struct lithos_alloc *a, const struct lithos_topology *topology);

/* TPCs that a quota of a card is: the nearest whole number, the lower one of two that are as near, at least
 * 1, and never so many that quotas of this size adding up to at most 100 % would not fit the card together
 * (where it has a TPC for each): 50 + 50, 33 + 33 + 33 and 6 x 16 % fit every card, and so do any two that
 * add up to 100 % and are worth more than half a TPC each. Different quotas that add up to 100 % may, three
 * or more together, ask for a TPC too many. 0 for what is not a quota (0, or more than LITHOS_QUOTA_WHOLE)
 * and for a card without TPCs. */
unsigned lithos_alloc_quota_tpcs(unsigned card_tpcs, uint32_t quota_hundredths);

/* Give a new tenant count TPCs. 0; -EINVAL (tenant 0, count 0); -EEXIST (it holds some already); -ENOSPC
 * (fewer are free); -ENFILE (LITHOS_ALLOC_MAX holders). On failure nothing has changed. */
int lithos_alloc_place(struct lithos_alloc *a, uint64_t tenant, unsigned count,
                       struct lithos_tpcset *ret_set);
/* Give a new tenant exactly this set: what it held before the daemon was restarted. 0; -EINVAL (tenant 0, a
 * set that is empty or has bits that are no TPC of the card); -EEXIST; -EBUSY (some of it is another's);
 * -ENFILE. */
int lithos_alloc_adopt(struct lithos_alloc *a, uint64_t tenant, const struct lithos_tpcset *set);
/* Make a tenant's set count TPCs large. It keeps what it has (growing) or a part of it (shrinking); others
 * are never moved. 0; -EINVAL (count 0); -ENOENT (no such tenant); -ENOSPC. On failure nothing has changed.
 */
int lithos_alloc_resize(struct lithos_alloc *a, uint64_t tenant, unsigned count,
                        struct lithos_tpcset *ret_set);
/* Take all back. 0 or -ENOENT. */
int lithos_alloc_release(struct lithos_alloc *a, uint64_t tenant);

unsigned lithos_alloc_free_count(const struct lithos_alloc *a);
/* The tenant that holds a bit; 0 when it is free or no TPC. */
uint64_t lithos_alloc_owner(const struct lithos_alloc *a, unsigned bit);
/* A tenant's holder, or NULL. The pointer is good until the next change. */
const struct lithos_alloc_holder *lithos_alloc_find(const struct lithos_alloc *a, uint64_t tenant);
/* The n-th holder, or NULL behind the last: for (size_t n = 0; (h = lithos_alloc_holder_at(a, n)); n++). */
const struct lithos_alloc_holder *lithos_alloc_holder_at(const struct lithos_alloc *a, size_t n);
