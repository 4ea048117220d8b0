#include "core/alloc.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "base/util.h"

/* A way to choose TPCs out of a card's GPCs, and the search for the best one (alloc.h says what is best). */
enum { SCORE_CLUSTER, SCORE_BROKEN, SCORE_CAPACITY, SCORE_PARTS, SCORE_REST, SCORE_MAX };

struct gpc_part {
    unsigned size;  /* TPCs of the GPC */
    unsigned held;  /* of them, in the set already */
    unsigned avail; /* of them, to choose from */
    unsigned open;  /* of them, free once none was chosen; avail is part of it */
};

struct choice {
    unsigned take[LITHOS_GPC_MAX];
    int score[SCORE_MAX]; /* more is better, the first that differs decides */
};

struct search {
    unsigned gpcs;
    unsigned large; /* TPCs of one GPC that the largest cluster needs */
    struct gpc_part part[LITHOS_GPC_MAX];
    struct choice now, best;
};

static void score(struct search *s)
{
    struct choice *c = &s->now;
    unsigned largest = 0, broken = 0, capacity = 0, parts = 0, rest = 0;

    for (unsigned g = 0; g < s->gpcs; g++) {
        const struct gpc_part *p = &s->part[g];
        const unsigned left = p->open - c->take[g];
        largest = LITHOS_MAX(largest, p->held + c->take[g]);
        broken += left > 0 && left < p->size;
        capacity += left / s->large;
        parts += c->take[g] > 0;
        if (c->take[g] > 0)
            rest += p->avail - c->take[g];
    }
    c->score[SCORE_CLUSTER] = (int)LITHOS_MIN(largest, s->large);
    c->score[SCORE_BROKEN] = -(int)broken;
    c->score[SCORE_CAPACITY] = (int)capacity;
    c->score[SCORE_PARTS] = -(int)parts;
    c->score[SCORE_REST] = -(int)rest;
    for (unsigned i = 0; i < SCORE_MAX; i++) {
        if (c->score[i] != s->best.score[i]) {
            if (c->score[i] > s->best.score[i])
                s->best = *c;
            return;
        }
    }
}

/* True when an earlier GPC of the same figures was not taken whole: taking this one instead is no other
 * choice. */
static bool repeats(const struct search *s, unsigned gpc)
{
    for (unsigned g = 0; g < gpc; g++)
        if (memcmp(&s->part[g], &s->part[gpc], sizeof(s->part[g])) == 0 && s->now.take[g] == 0)
            return true;
    return false;
}

/* Every set of whole parts from GPC `gpc` on, each with every part that can give what is still missing. */
static void explore(struct search *s, unsigned gpc, unsigned missing)
{
    if (missing == 0) {
        score(s);
        return;
    }
    if (gpc == s->gpcs) {
        for (unsigned g = 0; g < s->gpcs; g++) {
            if (s->now.take[g] > 0 || s->part[g].avail <= missing)
                continue;
            s->now.take[g] = missing;
            score(s);
            s->now.take[g] = 0;
        }
        return;
    }
    const unsigned avail = s->part[gpc].avail;
    if (avail > 0 && avail <= missing && !repeats(s, gpc)) {
        s->now.take[gpc] = avail;
        explore(s, gpc + 1, missing - avail);
        s->now.take[gpc] = 0;
    }
    explore(s, gpc + 1, missing);
}

static unsigned common(struct lithos_tpcset a, struct lithos_tpcset b)
{
    const struct lithos_tpcset both = lithos_tpcset_and(a, b);
    return lithos_tpcset_count(&both);
}

/* Move the lowest `count` bits of `from` into the set. */
static void take_lowest(struct lithos_tpcset *set, struct lithos_tpcset from, unsigned count)
{
    for (unsigned b = lithos_tpcset_next(&from, 0); count > 0 && b < LITHOS_TPC_BITS;
         b = lithos_tpcset_next(&from, b + 1), count--)
        lithos_tpcset_add(set, b);
}

/* held plus `count` TPCs of avail (which has as many), while `open` would be free without them. */
static struct lithos_tpcset choose(const struct lithos_topology *t, struct lithos_tpcset held,
                                   struct lithos_tpcset avail, struct lithos_tpcset open, unsigned count)
{
    struct search s = {.gpcs = t->gpc_count, .large = lithos_cluster_tpcs(t, LITHOS_CLUSTER_MAX)};
    struct lithos_tpcset set = held, singles = avail;
    unsigned in_gpcs = 0;

    for (unsigned g = 0; g < s.gpcs; g++) {
        const struct lithos_tpcset gpc = lithos_topology_gpc(t, g);
        s.part[g] = (struct gpc_part){.size = lithos_tpcset_count(&gpc),
                                      .held = common(gpc, held),
                                      .avail = common(gpc, avail),
                                      .open = common(gpc, open)};
        in_gpcs += s.part[g].avail;
        singles = lithos_tpcset_minus(singles, gpc);
    }
    for (unsigned i = 0; i < SCORE_MAX; i++)
        s.best.score[i] = INT_MIN;

    explore(&s, 0, LITHOS_MIN(count, in_gpcs));
    for (unsigned g = 0; g < s.gpcs; g++)
        take_lowest(&set, lithos_tpcset_and(lithos_topology_gpc(t, g), avail), s.best.take[g]);
    if (count > in_gpcs)
        take_lowest(&set, singles, count - in_gpcs);
    return set;
}

int lithos_alloc_init(struct lithos_alloc *a, const struct lithos_topology *topology)
{
    const int r = lithos_topology_validate(topology);
    if (r < 0)
        return r;
    memset(a, 0, sizeof(*a));
    a->topology = *topology;
    a->free = topology->valid;
    return 0;
}

unsigned lithos_alloc_quota_tpcs(unsigned card_tpcs, uint32_t quota_hundredths)
{
    if (quota_hundredths == 0 || quota_hundredths > LITHOS_QUOTA_WHOLE || card_tpcs == 0)
        return 0;
    const uint64_t exact = (uint64_t)card_tpcs * quota_hundredths; /* in TPCs / LITHOS_QUOTA_WHOLE */
    const unsigned nearest = (unsigned)((exact + LITHOS_QUOTA_WHOLE / 2 - 1) / LITHOS_QUOTA_WHOLE);
    const unsigned share = card_tpcs / (LITHOS_QUOTA_WHOLE / quota_hundredths);
    return LITHOS_MAX(LITHOS_MIN(nearest, share), 1u);
}

static struct lithos_alloc_holder *find(struct lithos_alloc *a, uint64_t tenant)
{
    for (uint32_t i = 0; i < a->count; i++)
        if (a->holders[i].tenant == tenant)
            return &a->holders[i];
    return NULL;
}

/* What placing and adopting have in common. */
static int check_newcomer(struct lithos_alloc *a, uint64_t tenant)
{
    if (tenant == 0)
        return -EINVAL;
    if (find(a, tenant))
        return -EEXIST;
    return a->count < LITHOS_ALLOC_MAX ? 0 : -ENFILE;
}

static void give(struct lithos_alloc *a, uint64_t tenant, struct lithos_tpcset set)
{
    a->holders[a->count++] = (struct lithos_alloc_holder){.tenant = tenant, .set = set};
    a->free = lithos_tpcset_minus(a->free, set);
}

int lithos_alloc_place(struct lithos_alloc *a, uint64_t tenant, unsigned count, struct lithos_tpcset *ret_set)
{
    const struct lithos_tpcset nothing = {{0, 0}};
    const int r = count == 0 ? -EINVAL : check_newcomer(a, tenant);

    if (r < 0)
        return r;
    if (count > lithos_alloc_free_count(a))
        return -ENOSPC;
    *ret_set = choose(&a->topology, nothing, a->free, a->free, count);
    give(a, tenant, *ret_set);
    return 0;
}

int lithos_alloc_adopt(struct lithos_alloc *a, uint64_t tenant, const struct lithos_tpcset *set)
{
    const struct lithos_tpcset strange = lithos_tpcset_minus(*set, a->topology.valid);
    const struct lithos_tpcset taken = lithos_tpcset_minus(*set, a->free);

    if (lithos_tpcset_empty(set) || !lithos_tpcset_empty(&strange))
        return -EINVAL;
    const int r = check_newcomer(a, tenant);
    if (r < 0)
        return r;
    if (!lithos_tpcset_empty(&taken))
        return -EBUSY;
    give(a, tenant, *set);
    return 0;
}

int lithos_alloc_resize(struct lithos_alloc *a, uint64_t tenant, unsigned count,
                        struct lithos_tpcset *ret_set)
{
    const struct lithos_tpcset nothing = {{0, 0}};
    struct lithos_alloc_holder *h = find(a, tenant);

    if (!h)
        return -ENOENT;
    if (count == 0)
        return -EINVAL;
    const unsigned has = lithos_tpcset_count(&h->set);
    const struct lithos_tpcset open = lithos_tpcset_or(a->free, h->set);
    if (count > has + lithos_alloc_free_count(a))
        return -ENOSPC;
    if (count > has)
        h->set = choose(&a->topology, h->set, a->free, a->free, count - has);
    else if (count < has)
        h->set = choose(&a->topology, nothing, h->set, open, count);
    a->free = lithos_tpcset_minus(open, h->set);
    *ret_set = h->set;
    return 0;
}

int lithos_alloc_release(struct lithos_alloc *a, uint64_t tenant)
{
    struct lithos_alloc_holder *h = find(a, tenant);

    if (!h)
        return -ENOENT;
    a->free = lithos_tpcset_or(a->free, h->set);
    a->count--;
    memmove(h, h + 1, (size_t)(&a->holders[a->count] - h) * sizeof(*h));
    a->holders[a->count] = (struct lithos_alloc_holder){0};
    return 0;
}

unsigned lithos_alloc_free_count(const struct lithos_alloc *a)
{
    return lithos_tpcset_count(&a->free);
}

uint64_t lithos_alloc_owner(const struct lithos_alloc *a, unsigned bit)
{
    for (uint32_t i = 0; i < a->count; i++)
        if (lithos_tpcset_has(&a->holders[i].set, bit))
            return a->holders[i].tenant;
    return 0;
}

const struct lithos_alloc_holder *lithos_alloc_find(const struct lithos_alloc *a, uint64_t tenant)
{
    for (uint32_t i = 0; i < a->count; i++)
        if (a->holders[i].tenant == tenant)
            return &a->holders[i];
    return NULL;
}

const struct lithos_alloc_holder *lithos_alloc_holder_at(const struct lithos_alloc *a, size_t n)
{
    return n < a->count ? &a->holders[n] : NULL;
}
