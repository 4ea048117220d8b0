/* A grant says more than a rule can: parts with limits of their own become two sets, TPCs for all kernels and TPCs within one limit
 * that nearly all have. Where that says less than the grant it lends less, never more. */
#include "daemon/lend.h"

/* Kernels in flight whatever they take: one runs while the next is on its way. Where TPCs come and go, one: what is given to the card
 * early has its TPCs chosen early, and a long kernel would have its own from before its owner's neighbour went idle. */
#define FLOOR_OWN 2u
#define FLOOR_LENT 1u

/* So many of the TPCs are nearly all. */
#define NEARLY 3u
#define NEARLY_OF 4u

static uint64_t at_most(uint64_t v, uint64_t max)
{
    return v < max ? v : max;
}

static bool is_for_all(const struct lithos_tpcgrant_part *p)
{
    return p->longest_ns == LITHOS_TPCGRANT_FOREVER;
}

struct limits {
    uint64_t longest_ns, until_ns;
};

/* All TPCs that are lent to whatever keeps to these limits. */
static struct lithos_tpcset within(const struct lithos_tpcgrant *g, struct limits l)
{
    struct lithos_tpcset all = {{0, 0}};
    for (uint32_t i = 0; i < g->part_count; i++) {
        const struct lithos_tpcgrant_part *p = &g->parts[i];
        if (!is_for_all(p) && p->longest_ns >= l.longest_ns && p->until_ns >= l.until_ns)
            all = lithos_tpcset_or(all, p->tpcs);
    }
    return all;
}

static bool more_generous(struct limits a, struct limits b)
{
    return a.longest_ns != b.longest_ns ? a.longest_ns > b.longest_ns : a.until_ns > b.until_ns;
}

/* The most generous limits that nearly all TPCs keep to: an idle neighbour's two, lent for little, are not worth having its limits on the
 * sixty of another. The TPCs; empty: nothing is lent within limits. */
static struct lithos_tpcset choose_limits(const struct lithos_tpcgrant *g, struct limits *ret_limits)
{
    static const struct limits all = {0, 0};
    struct lithos_tpcset chosen = within(g, all);
    const uint32_t most = lithos_tpcset_count(&chosen);
    *ret_limits = all;
    for (uint32_t i = 0; i < g->part_count * g->part_count; i++) {
        const struct limits l = {g->parts[i / g->part_count].longest_ns,
                                 g->parts[i % g->part_count].until_ns};
        const struct lithos_tpcset tpcs = within(g, l);
        if (lithos_tpcset_count(&tpcs) * NEARLY_OF >= most * NEARLY && !lithos_tpcset_empty(&tpcs) &&
            more_generous(l, *ret_limits)) {
            *ret_limits = l;
            chosen = tpcs;
        }
    }
    return chosen;
}

struct lithos_rule lithosd_rule(const struct lithos_tpcgrant *g, bool alone)
{
    struct lithos_rule r = {.flags = LITHOS_RULE_ON, .floor = alone ? FLOOR_OWN : FLOOR_LENT};
    for (uint32_t i = 0; i < g->part_count; i++)
        if (is_for_all(&g->parts[i]))
            r.spare = lithos_tpcset_or(r.spare, g->parts[i].tpcs);
    struct limits limits;
    r.lent = choose_limits(g, &limits);
    const bool limited = !lithos_tpcset_empty(&r.lent);
    r.own_window_ns = (uint32_t)at_most(g->window_ns, (uint64_t)LITHOS_RULE_WINDOW_MAX_NS);
    r.window_ns = limited ? (uint32_t)at_most(g->lent_window_ns, r.own_window_ns) : r.own_window_ns;
    if (g->window_ns == LITHOS_TPCGRANT_FOREVER && !limited)
        r.floor = LITHOS_RULE_FLOOR_MAX;
    if (limited) {
        r.flags |= LITHOS_RULE_STRICT;
        r.floor = FLOOR_LENT;
        /* 0 would be no limit */
        r.longest_ns = (uint32_t)at_most(limits.longest_ns ? limits.longest_ns : 1, (uint64_t)UINT32_MAX);
        r.until_ns = limits.until_ns;
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
