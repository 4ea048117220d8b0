/* A grant says more than a rule can: parts with limits of their own become two sets, TPCs for all kernels and TPCs within the narrowest
 * of the limits. Where that says less than the grant it lends less, never more. */
#include "daemon/lend.h"

/* Kernels in flight whatever they take: one runs while the next is on its way. Where TPCs come and go, one: what is given to the card
 * early has its TPCs chosen early, and a long kernel would have its own from before its owner's neighbour went idle. */
#define FLOOR_OWN 2u
#define FLOOR_LENT 1u

static uint64_t at_most(uint64_t v, uint64_t max)
{
    return v < max ? v : max;
}

struct lithos_rule lithosd_rule(const struct lithos_tpcgrant *g, bool alone)
{
    struct lithos_rule r = {.flags = LITHOS_RULE_ON, .floor = alone ? FLOOR_OWN : FLOOR_LENT};
    uint64_t longest_ns = LITHOS_TPCGRANT_FOREVER, until_ns = LITHOS_TPCGRANT_FOREVER;
    bool limited = false;
    for (uint32_t i = 0; i < g->part_count; i++) {
        const struct lithos_tpcgrant_part *p = &g->parts[i];
        if (p->longest_ns == LITHOS_TPCGRANT_FOREVER) {
            r.spare = lithos_tpcset_or(r.spare, p->tpcs);
            continue;
        }
        r.lent = lithos_tpcset_or(r.lent, p->tpcs);
        longest_ns = at_most(longest_ns, p->longest_ns);
        until_ns = at_most(until_ns, p->until_ns);
        limited = true;
    }
    r.own_window_ns = (uint32_t)at_most(g->window_ns, (uint64_t)LITHOS_RULE_WINDOW_MAX_NS);
    r.window_ns = limited ? (uint32_t)at_most(g->lent_window_ns, r.own_window_ns) : r.own_window_ns;
    if (g->window_ns == LITHOS_TPCGRANT_FOREVER && !limited)
        r.floor = LITHOS_RULE_FLOOR_MAX;
    if (limited) {
        r.flags |= LITHOS_RULE_STRICT;
        r.floor = FLOOR_LENT;
        /* 0 would be no limit */
        r.longest_ns = (uint32_t)at_most(longest_ns ? longest_ns : 1, (uint64_t)UINT32_MAX);
        r.until_ns = until_ns;
    }
    /* what is lent now among them: for whom their owner, who is about to come back, does not bear */
    struct lithos_tpcset more = lithos_tpcset_minus(g->wider, lithos_tpcset_or(g->own, r.spare));
    r.wider_tpcs = lithos_tpcset_count(&more);
    r.wider_ns = g->wider_ns;
    r.wider_longest_ns = g->wider_longest_ns;
    if (lithos_tpcset_empty(&g->own)) { /* what it is given may be one launch's alone */
        r.flags |= LITHOS_RULE_INSTEAD | LITHOS_RULE_STRICT;
        r.floor = FLOOR_LENT;
    }
    if (g->flags & LITHOS_TPCGRANT_HOLD || (lithos_tpcset_empty(&g->own) && g->part_count == 0))
        r.flags |= LITHOS_RULE_HOLD;
    return r;
}
