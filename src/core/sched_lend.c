/* Who gets what is idle. */
#include <stddef.h>
#include <string.h>

#include "core/sched_internal.h"

#define OVERDUE_PART 4u

/* TPCs that may be lent now, of one owner or of nobody. */
struct offer {
    struct sched_tenant *owner; /* NULL: of nobody */
    struct lithos_tpcset tpcs;
    uint64_t longest_ns, until_ns;
};

struct offers {
    uint32_t count;
    uint32_t busy; /* best-effort owners who use their TPCs themselves */
    struct lithos_tpcset all;
    struct lithos_tpcset strips;   /* of all: what owners' launches keep off */
    enum lithos_sched_why why_not; /* high-priority owners offer not more; ALL: they do */
    /* What a busy owner's TPCs will be good for, and when it is expected to be through. */
    struct lithos_tpcset wider;
    uint64_t wider_ns, wider_longest_ns;
    struct offer offer[2 * LITHOS_SCHED_TENANTS_MAX + 1]; /* the most generous first; set up to count */
};

struct borrowers {
    uint32_t count;
    struct sched_tenant *tenant[LITHOS_SCHED_TENANTS_MAX];
    struct lithos_tpcset share[LITHOS_SCHED_TENANTS_MAX];
};

static bool more_generous(const struct offer *a, const struct offer *b)
{
    return a->longest_ns != b->longest_ns ? a->longest_ns > b->longest_ns : a->until_ns > b->until_ns;
}

static void offer_add(struct offers *o, struct offer offer)
{
    uint32_t i = o->count++;
    for (; i && more_generous(&offer, &o->offer[i - 1]); i--)
        o->offer[i] = o->offer[i - 1];
    o->offer[i] = offer;
    o->all = lithos_tpcset_or(o->all, offer.tpcs);
}

static bool is_pausing(const struct lithos_sched *s, const struct sched_tenant *t)
{
    return !sched_is_busy(t) && s->now_ns - t->state_ns < t->demand.linger_ns;
}

/* When will an owner who is busy, or has only paused, have its TPCs to lend? */
static uint64_t lends_from_ns(const struct lithos_sched *s, const struct sched_tenant *t)
{
    const uint64_t since_ns = s->now_ns - t->state_ns, linger_ns = t->demand.linger_ns;

    return s->now_ns + (sched_is_busy(t) ? lithos_demand_rest_ns(&t->demand, since_ns) + linger_ns
                                         : linger_ns - LITHOS_MIN(since_ns, linger_ns));
}

/* And one that comes back at even intervals: what does not fit before finds them when it is done. */
static uint64_t lends_anew_ns(const struct sched_tenant *t, uint64_t until_ns)
{
    const uint64_t comes_ns = LITHOS_MAX(until_ns, sched_owner_comes_ns(t));

    return comes_ns + lithos_demand_rest_ns(&t->demand, 0) + t->demand.linger_ns;
}

/* Does it come at even intervals, and is not overdue? Whoever has stayed away may do so for long, and nobody waits for that. */
static bool is_expected(struct lithos_sched *s, const struct sched_tenant *t)
{
    const uint64_t overdue_ns = sched_owner_comes_ns(t) + t->even_ns / OVERDUE_PART;

    if (!t->even_ns || s->now_ns >= overdue_ns)
        return false;
    sched_wake_at(s, overdue_ns);
    return true;
}

static void foresee(const struct lithos_sched *s, struct offers *o, const struct sched_tenant *t,
                    uint64_t wider_ns)
{
    if (sched_is_best_effort(t) || lithos_tpcset_count(&t->desc.own) <= lithos_tpcset_count(&o->wider))
        return;
    o->wider = t->desc.own;
    o->wider_ns = wider_ns;
    o->wider_longest_ns = sched_owner_will_bear_ns(s, t);
}

/* What is an owner's: all of it, as it bears it now, or the strip that its launches keep off. */
static void offer_own(struct lithos_sched *s, struct offers *o, struct sched_tenant *t,
                      enum lithos_sched_why why, struct offer all)
{
    uint64_t longest_ns;
    const struct lithos_tpcset strip = sched_owner_strip(s, t, &longest_ns);
    const bool left = !lithos_tpcset_empty(&strip);

    all.tpcs = lithos_tpcset_minus(t->desc.own, strip);
    if (why == LITHOS_WHY_ALL) {
        if (!lithos_tpcset_empty(&all.tpcs))
            offer_add(o, all);
        longest_ns = LITHOS_MAX(longest_ns, all.longest_ns);
    } else if (why == LITHOS_WHY_OWNER_BUSY && s->config.beside_ns && !sched_is_best_effort(t)) {
        offer_add(o, (struct offer){t, all.tpcs, s->config.beside_ns, 0});
    }
    if (!left)
        return;
    offer_add(o, (struct offer){t, strip, longest_ns, all.until_ns});
    o->strips = lithos_tpcset_or(o->strips, strip);
}

static void gather_offers(struct lithos_sched *s, struct offers *o)
{
    struct sched_tenant *t;

    memset(o, 0, offsetof(struct offers, offer)); /* it is large, and few are set */
    o->why_not = LITHOS_WHY_ALL;
    if (!lithos_tpcset_empty(&s->unowned))
        offer_add(o, (struct offer){NULL, s->unowned, LITHOS_TPCGRANT_FOREVER, LITHOS_TPCGRANT_FOREVER});
    sched_each(s, t)
    {
        struct offer offer = {.owner = t, .tpcs = t->desc.own};
        if (lithos_tpcset_empty(&t->desc.own))
            continue;
        const enum lithos_sched_why why = sched_owner_bears(s, t, &offer.longest_ns, &offer.until_ns);
        offer_own(s, o, t, why, offer);
        if (why != LITHOS_WHY_ALL && sched_is_best_effort(t))
            o->busy++;
        else if (why != LITHOS_WHY_ALL && (o->why_not == LITHOS_WHY_ALL || why < o->why_not))
            o->why_not = why;
        if (why == LITHOS_WHY_OWNER_BUSY || is_pausing(s, t))
            foresee(s, o, t, lends_from_ns(s, t));
        else if (is_expected(s, t) && (why != LITHOS_WHY_ALL || offer.until_ns))
            foresee(s, o, t, lends_anew_ns(t, LITHOS_MAX(offer.until_ns, s->now_ns)));
    }
}

/* Who pauses between launches, to look at what came of them, is back in a moment: where nobody else wants it, what it has stays lent to
 * it for that long. Else its next launch would always find only its own. */
static void gather_pausing(struct lithos_sched *s, struct borrowers *b)
{
    for (uint64_t lent = s->borrowers & s->used & ~s->busy; lent; lent &= lent - 1) {
        struct sched_tenant *t = &s->tenants[__builtin_ctzll(lent)];
        if (!sched_is_best_effort(t) || t->lease_lost || s->now_ns - t->state_ns >= s->config.turn_ns)
            continue;
        b->tenant[b->count++] = t;
        sched_wake_at(s, t->state_ns + s->config.turn_ns);
    }
}

/* Best-effort tenants and high-priority ones with a weight share; the others take what nobody wants. */
static void gather_borrowers(struct lithos_sched *s, struct borrowers *b)
{
    *b = (struct borrowers){0};
    for (unsigned pass = 0; pass < 2 && !b->count; pass++) {
        for (uint64_t busy = s->busy & s->used; busy; busy &= busy - 1) {
            struct sched_tenant *t = &s->tenants[__builtin_ctzll(busy)];
            if (!t->lease_lost && (t->desc.weight > 0) == (pass == 0))
                b->tenant[b->count++] = t;
        }
    }
    if (!b->count)
        gather_pausing(s, b);
}

/* --- shares --- */

static uint64_t weight(const struct sched_tenant *t)
{
    return LITHOS_MAX(t->desc.weight, 1u);
}

/* Accounts are compared in steps of what a borrower gets in a turn, so that shares stay as they are for that long and do
 * not move with every event. */
static uint64_t step_tpc_ns(const struct lithos_sched *s, const struct borrowers *b, uint32_t tpcs)
{
    return s->config.turn_ns * LITHOS_MAX(tpcs / b->count, 1u);
}

/* Less for every two turns in which it had work and nothing to run it on: among equals who waits comes first. */
static uint64_t account_steps(const struct lithos_sched *s, const struct sched_tenant *t, uint64_t step)
{
    const uint64_t steps = t->account_tpc_ns / step;
    const bool waits = t->queued && !t->outstanding;
    const uint64_t waited = waits ? (s->now_ns - t->progress_ns) / (2 * s->config.turn_ns) : 0;

    return steps - LITHOS_MIN(steps, waited);
}

static void order_by_account(const struct lithos_sched *s, const struct borrowers *b, uint64_t step,
                             uint8_t *ret_order)
{
    uint64_t steps[LITHOS_SCHED_TENANTS_MAX];

    for (uint32_t i = 0; i < b->count; i++) {
        uint32_t at = i;
        steps[i] = account_steps(s, b->tenant[i], step);
        for (; at && steps[ret_order[at - 1]] > steps[i]; at--)
            ret_order[at] = ret_order[at - 1];
        ret_order[at] = (uint8_t)i;
    }
}

/* Who has had less until now gets up to twice its share, in proportion to what it is behind. */
static void weigh(const struct borrowers *b, uint64_t step, uint64_t *ret_weights)
{
    uint64_t most = 0;

    for (uint32_t i = 0; i < b->count; i++)
        most = LITHOS_MAX(most, b->tenant[i]->account_tpc_ns / step);
    for (uint32_t i = 0; i < b->count; i++) {
        const uint64_t behind = (most - b->tenant[i]->account_tpc_ns / step) * weight(b->tenant[i]);
        ret_weights[i] = weight(b->tenant[i]) * (4 + LITHOS_MIN(behind, 4));
    }
}

/* How many TPCs each gets: by weight, what is left over to those who have had least. */
static void count_shares(const struct borrowers *b, uint64_t step, const uint8_t *order, uint32_t tpcs,
                         uint32_t *ret_counts)
{
    uint64_t weights[LITHOS_SCHED_TENANTS_MAX], sum = 0;
    uint32_t left = tpcs;

    weigh(b, step, weights);
    for (uint32_t i = 0; i < b->count; i++)
        sum += weights[i];
    for (uint32_t i = 0; i < b->count; i++) {
        ret_counts[i] = (uint32_t)(tpcs * weights[i] / sum);
        left -= ret_counts[i];
    }
    for (uint32_t i = 0; i < left; i++) /* fewer than borrowers: the rests of as many divisions */
        ret_counts[order[i]]++;
}

/* Move up to count bits of `from` into a share. */
static uint32_t take(struct lithos_tpcset *share, struct lithos_tpcset *from, struct lithos_tpcset within,
                     uint32_t count)
{
    const struct lithos_tpcset some = lithos_tpcset_and(*from, within);
    for (unsigned b = lithos_tpcset_next(&some, 0); count && b < LITHOS_TPC_BITS;
         b = lithos_tpcset_next(&some, b + 1), count--) {
        lithos_tpcset_add(share, b);
        lithos_tpcset_remove(from, b);
    }
    return count;
}

/* TPCs where a borrower's work is predicted to stay on are no use to anybody else (paper 5.3): all of them, and each
 * borrower's own. */
static struct lithos_tpcset still_used(struct lithos_sched *s, struct lithos_tpcset all,
                                       struct lithos_tpcset *ret_by)
{
    struct lithos_tpcset used = {{0, 0}};

    for (unsigned b = lithos_tpcset_next(&all, 0); b < LITHOS_TPC_BITS; b = lithos_tpcset_next(&all, b + 1)) {
        const uint32_t user = s->tpc_user[b];
        if (user == SCHED_NOBODY || !s->tenants[user].outstanding)
            continue;
        const uint64_t end_ns = LITHOS_MIN(s->tpc_end_ns[b], s->tenants[user].end_ns);
        if (end_ns <= s->now_ns + s->config.useful_ns)
            continue;
        lithos_tpcset_add(&used, b);
        lithos_tpcset_add(&ret_by[user], b);
        sched_wake_at(s, end_ns);
    }
    return used;
}

/* The GPC where a borrower's clusters find room with the fewest TPCs lent, beside those of its own; of these the one where
 * it has most already. LITHOS_GPC_MAX: it needs none lent, or there is no such GPC. */
static uint32_t find_room(const struct lithos_sched *s, const struct sched_tenant *t,
                          struct lithos_tpcset left, uint32_t *ret_need)
{
    const uint32_t need = lithos_cluster_tpcs(&s->config.topology, t->cluster_blocks);
    uint32_t best = LITHOS_GPC_MAX, fewest = UINT32_MAX, most = 0;

    *ret_need = 0;
    if (need <= 1 || lithos_topology_has_room(&s->config.topology, t->desc.own, t->cluster_blocks))
        return best;
    for (uint32_t g = 0; g < s->config.topology.gpc_count; g++) {
        const struct lithos_tpcset own = lithos_tpcset_and(t->desc.own, s->gpc[g]);
        const struct lithos_tpcset there = lithos_tpcset_and(left, s->gpc[g]);
        const struct lithos_tpcset has = lithos_tpcset_and(there, t->lent);
        const uint32_t lacks = need - lithos_tpcset_count(&own), had = lithos_tpcset_count(&has);
        if (lithos_tpcset_count(&there) < lacks || lacks > fewest || (lacks == fewest && had <= most))
            continue;
        best = g;
        fewest = lacks;
        most = had;
    }
    *ret_need = best == LITHOS_GPC_MAX ? need : fewest;
    return best;
}

/* What a borrower cannot do without: so many TPCs of one GPC for its clusters, so many of any for blocks that wait for each other. */
struct need {
    uint32_t count; /* 0: it can do with what it has of its own */
    uint32_t in_gpc, gpc;
    bool met; /* by what is left */
};

static struct need need_of(const struct lithos_sched *s, const struct sched_tenant *t,
                           struct lithos_tpcset left)
{
    struct need n = {.met = true};

    n.gpc = find_room(s, t, left, &n.in_gpc);
    n.count = n.in_gpc;
    if (t->resident_tpcs) {
        const uint32_t own = lithos_tpcset_count(&t->desc.own);
        n.count = LITHOS_MAX(n.count, t->resident_tpcs - LITHOS_MIN(t->resident_tpcs, own));
    }
    if (n.count)
        n.met = n.count <= lithos_tpcset_count(&left) && (!n.in_gpc || n.gpc < LITHOS_GPC_MAX);
    return n;
}

/* Rather what it has already, rather what is not another's for a while yet. */
static void take_need(const struct lithos_sched *s, struct borrowers *b, uint32_t i, const struct need *n,
                      struct lithos_tpcset others, struct lithos_tpcset *left)
{
    const struct lithos_tpcset lent = b->tenant[i]->lent, free = lithos_tpcset_minus(*left, others);
    uint32_t rest = n->count - n->in_gpc;

    if (n->in_gpc) {
        const struct lithos_tpcset gpc = s->gpc[n->gpc];
        const uint32_t lacks = take(&b->share[i], left, lithos_tpcset_and(lent, gpc), n->in_gpc);
        take(&b->share[i], left, gpc, lacks);
    }
    rest = take(&b->share[i], left, lent, rest);
    rest = take(&b->share[i], left, free, rest);
    take(&b->share[i], left, *left, rest);
}

/* Needs first. A share too small for what its tenant needs is of no use to it: it goes to the others, so that it falls
 * behind in its account until it is the first, who gets what it needs whatever its share is. */
static void give_needs(struct lithos_sched *s, struct borrowers *b, const uint8_t *order, uint32_t *count,
                       struct lithos_tpcset used, const struct lithos_tpcset *by, struct lithos_tpcset *left)
{
    uint32_t first = b->count, spare = 0; /* first: of those who can use what they get */

    for (uint32_t n = 0; n < b->count; n++) {
        const uint32_t i = order[n];
        const struct need need = need_of(s, b->tenant[i], *left);
        count[i] += spare;
        spare = 0;
        if (!need.met || (count[i] < need.count && n > 0)) {
            spare = count[i];
            count[i] = 0;
            continue;
        }
        if (first == b->count)
            first = i;
        count[i] -= LITHOS_MIN(count[i], need.count);
        if (need.count)
            take_need(s, b, i, &need, lithos_tpcset_minus(used, by[sched_slot(s, b->tenant[i])]), left);
    }
    if (first < b->count)
        count[first] += spare;
}

/* What a tenant has it keeps, as far as its count goes; what it lacks it takes from GPCs that it is in already, then from
 * the others. */
static void divide(struct lithos_sched *s, struct borrowers *b, struct lithos_tpcset all)
{
    struct lithos_tpcset left = all, by[LITHOS_SCHED_TENANTS_MAX] = {0};
    const struct lithos_tpcset used = still_used(s, all, by);
    uint32_t count[LITHOS_SCHED_TENANTS_MAX] = {0};
    uint8_t order[LITHOS_SCHED_TENANTS_MAX] = {0};

    const uint32_t tpcs = lithos_tpcset_count(&all);
    const uint64_t step = step_tpc_ns(s, b, tpcs);

    order_by_account(s, b, step, order);
    count_shares(b, step, order, tpcs, count);

    give_needs(s, b, order, count, used, by, &left);
    for (uint32_t i = 0; i < b->count; i++)
        if (count[i] && !lithos_tpcset_empty(&b->tenant[i]->lent))
            count[i] = take(&b->share[i], &left, b->tenant[i]->lent, count[i]);
    for (uint32_t i = 0; i < b->count; i++) {
        const struct lithos_tpcset others = lithos_tpcset_minus(used, by[sched_slot(s, b->tenant[i])]);
        const struct lithos_tpcset mine = lithos_tpcset_or(b->share[i], b->tenant[i]->desc.own);
        struct lithos_tpcset free = lithos_tpcset_minus(left, others), kept = lithos_tpcset_and(left, others);
        for (uint32_t g = 0; g < s->config.topology.gpc_count && count[i]; g++) {
            const struct lithos_tpcset there = lithos_tpcset_and(mine, s->gpc[g]);
            if (!lithos_tpcset_empty(&there))
                count[i] = take(&b->share[i], &free, s->gpc[g], count[i]);
        }
        if (count[i])
            take(&b->share[i], &free, all, count[i]);
        left = lithos_tpcset_or(free, kept);
    }
    const struct lithos_tpcset withheld = lithos_tpcset_and(left, used);
    s->withheld = !lithos_tpcset_empty(&withheld);
    sched_wake_at(s, s->now_ns + s->config.turn_ns);
}

/* Whose place is fixed has that, the others the rest by weight. */
static void divide_beside_places(struct lithos_sched *s, struct borrowers *b, struct lithos_tpcset all)
{
    struct borrowers others = {0};
    uint32_t which[LITHOS_SCHED_TENANTS_MAX];

    for (uint32_t i = 0; i < b->count; i++) {
        const struct lithos_tpcset place = b->tenant[i]->desc.place;
        if (lithos_tpcset_empty(&place)) {
            which[others.count] = i;
            others.tenant[others.count++] = b->tenant[i];
        }
        b->share[i] = lithos_tpcset_and(all, place);
    }
    for (uint32_t i = 0; i < b->count; i++)
        all = lithos_tpcset_minus(all, b->tenant[i]->desc.place);
    if (others.count == 1)
        others.share[0] = all;
    else if (others.count > 1)
        divide(s, &others, all);
    for (uint32_t i = 0; i < others.count; i++)
        b->share[which[i]] = others.share[i];
}

/* --- grants --- */

static bool one_part(const struct lithos_tpcgrant_part *p, const struct offer *o)
{
    return p->longest_ns == o->longest_ns && p->until_ns == o->until_ns;
}

/* A share as parts by what their owners bear. Where there are more kinds than parts, the last part takes the least of
 * what they bear. */
static void make_parts(struct lithos_tpcgrant *g, const struct offers *o, struct lithos_tpcset share)
{
    for (uint32_t i = 0; i < o->count; i++) {
        const struct offer *offer = &o->offer[i];
        const struct lithos_tpcset mine = lithos_tpcset_and(offer->tpcs, share);
        struct lithos_tpcgrant_part *last = g->part_count ? &g->parts[g->part_count - 1] : NULL;
        if (lithos_tpcset_empty(&mine))
            continue;
        if (last && (one_part(last, offer) || g->part_count == LITHOS_TPCGRANT_PARTS)) {
            last->tpcs = lithos_tpcset_or(last->tpcs, mine);
            last->longest_ns = LITHOS_MIN(last->longest_ns, offer->longest_ns);
            last->until_ns = LITHOS_MIN(last->until_ns, offer->until_ns);
        } else {
            g->parts[g->part_count++] =
                (struct lithos_tpcgrant_part){mine, offer->longest_ns, offer->until_ns};
        }
    }
}

/* A runnable tenant has had nothing to run on for too long: what it waits to launch may stay as long as it has to, once,
 * on what is idle, or, with a floor, on some of what is not. */
static bool starves(struct lithos_sched *s, const struct sched_tenant *t)
{
    if (!sched_is_best_effort(t) || !t->queued || t->outstanding || t->lease_lost)
        return false;
    const uint64_t limit_ns = LITHOS_MAX(s->config.starved_ns, 20 * t->head_ns);
    if (s->now_ns - t->progress_ns >= limit_ns)
        return true;
    sched_wake_at(s, t->progress_ns + limit_ns);
    return false;
}

static void feed(struct lithos_sched *s, struct sched_tenant *t, struct lithos_tpcgrant *g,
                 struct lithos_tpcset *lent)
{
    struct lithos_tpcset more = {{0, 0}}, all = s->config.topology.valid;
    const struct sched_tenant *o;
    struct sched_tenant *best = NULL;

    for (uint32_t i = 0; i < g->part_count; i++)
        g->parts[i].longest_ns = LITHOS_TPCGRANT_FOREVER;
    if (g->part_count || !t->desc.floor_tpcs)
        return;
    /* of the owner that bears most */
    sched_each(s, o)
    {
        if (o != t && lithos_tpcset_count(&o->desc.own) >= t->desc.floor_tpcs &&
            (!best || sched_owner_slack_ns(s, o) > sched_owner_slack_ns(s, best)))
            best = &s->tenants[sched_slot(s, o)];
    }
    if (!best)
        return;
    struct lithos_tpcset from = lithos_tpcset_minus(best->desc.own, *lent);
    take(&more, &from, all, t->desc.floor_tpcs);
    if (lithos_tpcset_empty(&more))
        return;
    *lent = lithos_tpcset_or(*lent, more);
    g->parts[g->part_count++] =
        (struct lithos_tpcgrant_part){more, LITHOS_TPCGRANT_FOREVER, LITHOS_TPCGRANT_FOREVER};
}

static enum lithos_sched_why why_no_more(const struct lithos_sched *s, const struct sched_tenant *t,
                                         const struct offers *o, bool borrows, bool squeezed, bool shared)
{
    const struct lithos_tpcset usable = lithos_tpcset_or(t->desc.own, t->lent);

    if (!sched_is_busy(t))
        return LITHOS_WHY_IDLE;
    if (t->lease_lost)
        return LITHOS_WHY_LEASE;
    if (!lithos_topology_has_room(&s->config.topology, usable, t->cluster_blocks) &&
        !lithos_tpcset_empty(&usable))
        return LITHOS_WHY_ROOM;
    if (borrows && t->queued && t->head_why == LITHOS_PICK_OUTLIVES)
        return LITHOS_WHY_OWNER_SLACK;
    if (squeezed)
        return LITHOS_WHY_SQUEEZED;
    if (shared && o->count)
        return LITHOS_WHY_SHARE;
    const bool owns = sched_is_best_effort(t) && !lithos_tpcset_empty(&t->desc.own);
    return o->why_not == LITHOS_WHY_ALL && o->busy > owns ? LITHOS_WHY_OWNER_BUSY : o->why_not;
}

/* lent: to all, what this tenant gets beyond its share added. */
static void publish(struct lithos_sched *s, struct sched_tenant *t, const struct offers *o,
                    struct lithos_tpcset share, bool borrows, bool alone, struct lithos_tpcset *lent)
{
    struct lithos_tpcgrant g = sched_grant_own(s, t);
    const bool be = sched_is_best_effort(t);

    g.priority = be ? 0 : -1;
    g.lent_priority = be ? 1 : 0;
    g.atom_ns = be ? s->config.atom_ns : 0;
    make_parts(&g, o, lithos_tpcset_minus(share, t->desc.own));
    if (be && borrows && alone) {
        g.wider = lithos_tpcset_minus(o->wider, t->desc.own);
        g.wider_ns = o->wider_ns;
        g.wider_longest_ns = o->wider_longest_ns;
    }
    t->fed = starves(s, t);
    if (t->fed)
        feed(s, t, &g, lent);
    const struct lithos_tpcset has = lithos_tpcgrant_lent(&g), lost = lithos_tpcset_minus(t->lent, has);
    const struct lithos_tpcset taken_back = lithos_tpcset_minus(lost, o->all);
    if (be && !lithos_tpcset_empty(&taken_back))
        g.flags |= LITHOS_TPCGRANT_RECALL;
    t->lent = has;
    const uint64_t bit = 1ull << sched_slot(s, t);
    s->borrowers = lithos_tpcset_empty(&has) ? s->borrowers & ~bit : s->borrowers | bit;
    sched_publish(s, t, &g);
}

/* While an owner runs slower for its neighbours, less is lent: the last bits go first, which are the single TPCs. */
static struct lithos_tpcset squeezed(struct lithos_tpcset all, uint32_t part_ppm)
{
    uint32_t extra = lithos_tpcset_count(&all);

    extra -= (uint32_t)((uint64_t)extra * part_ppm / LITHOS_SCHED_PPM);
    for (unsigned b = LITHOS_TPC_BITS; b-- > 0 && extra;) {
        if (lithos_tpcset_has(&all, b)) {
            lithos_tpcset_remove(&all, b);
            extra--;
        }
    }
    return all;
}

void sched_lend(struct lithos_sched *s)
{
    const uint32_t squeeze_ppm = sched_owner_squeeze_ppm(s);
    struct lithos_tpcset share[LITHOS_SCHED_TENANTS_MAX] = {0}, lent = {{0, 0}};
    struct offers o;
    struct borrowers b;
    uint64_t borrows = 0;
    struct sched_tenant *t;

    s->withheld = false;
    gather_offers(s, &o);
    gather_borrowers(s, &b);
    /* how wide a strip is follows from what its owner feels of all that is beside it */
    const struct lithos_tpcset all =
        lithos_tpcset_or(squeezed(lithos_tpcset_minus(o.all, o.strips), squeeze_ppm), o.strips);
    for (uint32_t i = 0; i < b.count; i++)
        sched_settle(b.tenant[i], s->now_ns);
    if (b.count == 1)
        b.share[0] = all;
    else if (s->placed)
        divide_beside_places(s, &b, all);
    else if (b.count > 1)
        divide(s, &b, all);
    for (uint32_t i = 0; i < b.count; i++) {
        const uint32_t slot = sched_slot(s, b.tenant[i]);
        share[slot] = lithos_tpcset_minus(b.share[i], b.tenant[i]->desc.own);
        lent = lithos_tpcset_or(lent, share[slot]);
        borrows |= 1ull << slot;
    }
    const bool is_squeezed = squeeze_ppm < LITHOS_SCHED_PPM, alone = b.count <= 1;
    sched_each(s, t)
    {
        const bool in = (borrows >> sched_slot(s, t)) & 1;
        publish(s, t, &o, share[sched_slot(s, t)], in, alone, &lent);
        t->why = why_no_more(s, t, &o, in, is_squeezed, !alone);
    }

    sched_each(s, t)
    {
        const struct lithos_tpcset away = lithos_tpcset_and(t->desc.own, lent);
        if (lithos_tpcset_equal(&away, &t->lent_away))
            continue;
        sched_settle(t, s->now_ns);
        t->lent_away = away;
    }
}
