/* Tenants with a quota of 0 (docs/adr/0014-quota-0.md), and what is taken for said where nothing was. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "daemon/daemon.h"

bool lithosd_owns(const struct lithosd_tenant *t)
{
    return t->quota.value > 0;
}

struct lithos_share lithosd_share(const struct lithosd_tenant *t)
{
    struct lithos_share s = t->share;
    if (!(s.given & LITHOS_SHARE_WEIGHT))
        s.weight = 1;
    if (!(s.given & LITHOS_SHARE_FLOOR)) /* where nobody is ever idle it would wait for ever */
        s.floor_tpcs = lithosd_owns(t) ? 0 : 1;
    return s;
}

/* Up to count more TPCs of `from`: the last first, which are those of no GPC. */
static unsigned take(struct lithos_tpcset *to, struct lithos_tpcset from, unsigned count)
{
    for (unsigned b = LITHOS_TPC_BITS; b-- > 0 && count;)
        if (lithos_tpcset_has(&from, b) && !lithos_tpcset_has(to, b)) {
            lithos_tpcset_add(to, b);
            count--;
        }
    return count;
}

/* Its part of what nobody owns, by weight among those who own nothing. */
static struct lithos_tpcset part_of_free(const struct lithosd *d, const struct lithosd_tenant *t,
                                         unsigned gpu)
{
    const struct lithos_tpcset free = d->gpus.gpu[gpu].alloc.free;
    const uint64_t count = lithos_tpcset_count(&free);
    struct lithos_tpcset skipped = {{0, 0}}, part = {{0, 0}};
    uint64_t before = 0, all = 0;
    for (unsigned n = 0; n < LITHOSD_TENANT_MAX; n++) {
        const struct lithosd_tenant *other = &d->tenants[n];
        if (!other->used || lithosd_owns(other) || !lithosd_tenant_is_on(other, gpu))
            continue;
        before += other < t ? lithosd_share(other).weight : 0;
        all += lithosd_share(other).weight;
    }
    if (!all || !lithosd_tenant_is_on(t, gpu))
        return part;
    const unsigned from = (unsigned)(count * before / all);
    take(&skipped, free, from);
    take(&part, lithos_tpcset_minus(free, skipped),
         (unsigned)(count * (before + lithosd_share(t).weight) / all) - from);
    return part;
}

struct lithos_tpcset lithosd_refuge(const struct lithosd *d, const struct lithosd_tenant *tenant,
                                    unsigned gpu)
{
    const struct lithos_alloc *a = &d->gpus.gpu[gpu].alloc;
    struct lithos_tpcset refuge = part_of_free(d, tenant, gpu);
    const unsigned floor = LITHOS_MAX(lithosd_share(tenant).floor_tpcs, 1u),
                   has = lithos_tpcset_count(&refuge);
    unsigned left = has < floor ? take(&refuge, a->free, floor - has) : 0;
    for (unsigned n = 0; left && n < LITHOSD_TENANT_MAX; n++) {
        const struct lithosd_tenant *t = &d->tenants[n];
        const struct lithos_alloc_holder *h = t->used ? lithos_alloc_find(a, t->id) : NULL;
        if (h && t->grant.class == LITHOS_CLASS_BEST_EFFORT)
            left = take(&refuge, h->set, left);
    }
    take(&refuge, a->topology.valid, left);
    return refuge;
}

void lithosd_refuges_renew(struct lithosd *d)
{
    for (unsigned n = 0; n < LITHOSD_TENANT_MAX; n++) {
        struct lithosd_tenant *t = &d->tenants[n];
        bool changed = false;
        if (!t->used || lithosd_owns(t))
            continue;
        for (uint32_t i = 0; i < t->grant.gpu_count; i++) {
            struct lithos_tpcset refuge = lithosd_refuge(d, t, t->gpu[i]);
            changed = changed || !lithos_tpcset_equal(&refuge, &t->grant.gpus[i].own);
            t->grant.gpus[i].own = refuge;
        }
        if (!changed)
            continue;
        t->grant.epoch++;
        lithosd_publish(t);
    }
    lithosd_hold_places_renew(d);
}

int lithosd_share_check(const struct lithosd *d, uint32_t class, const struct lithos_quota *quota,
                        const struct lithos_share *share, char text[LITHOS_TEXT_MAX])
{
    const char *what = NULL;
    if (class == LITHOS_CLASS_HIGH && share->given & LITHOS_SHARE_BEST_EFFORT)
        what = "a weight, a floor and graphs that borrow are of best-effort tenants, who wait for what is "
               "lent: leave "
               "them out, or say --class best-effort";
    else if (class == LITHOS_CLASS_BEST_EFFORT && share->given & LITHOS_SHARE_HIGH)
        what = "an SLO and a slip are of high-priority tenants, whose TPCs are lent within them: leave them "
               "out, or say --class high";
    else if (class == LITHOS_CLASS_HIGH && quota->value == 0)
        what = "a quota of 0 is for best-effort tenants: a high-priority one needs TPCs of its own";
    if (!what && quota->value == 0 && d->lend.off)
        snprintf(text, LITHOS_TEXT_MAX, "a quota of 0 lives on what is lent, and nothing is: %s",
                 d->lend.off);
    else if (what)
        snprintf(text, LITHOS_TEXT_MAX, "%s", what);
    else
        return 0;
    return -EINVAL;
}
