#include "core/energy.h"

#include <string.h>

#include "base/util.h"

/* Shorter looks than this say little of power: counters are updated every some 20 to 100 ms. */
#define SHORTEST_NS (20 * LITHOS_NSEC_PER_MSEC)

void lithos_energy_init(struct lithos_energy *e)
{
    memset(e, 0, sizeof *e);
}

void lithos_energy_kernel(struct lithos_energy *e, uint32_t slot, uint64_t duration_ns, uint32_t tpcs)
{
    if (slot < LITHOS_ENERGY_TENANTS_MAX)
        e->tenant[slot].tpc_ns += (double)duration_ns * tpcs;
}

void lithos_energy_forget(struct lithos_energy *e, uint32_t slot)
{
    if (slot < LITHOS_ENERGY_TENANTS_MAX)
        e->tenant[slot] = (struct lithos_energy_tenant){0};
}

static void share_out(struct lithos_energy *e, double mj, double least_mj, double tpc_ns)
{
    for (unsigned i = 0; i < LITHOS_ENERGY_TENANTS_MAX; i++) {
        struct lithos_energy_tenant *t = &e->tenant[i];
        t->whole_mj += mj * t->tpc_ns / tpc_ns;
        t->least_mj += least_mj * t->tpc_ns / tpc_ns;
        t->tpc_ns = 0;
    }
}

void lithos_energy_look(struct lithos_energy *e, uint64_t now_ns, uint64_t counter_mj)
{
    double tpc_ns = 0;

    if (!e->begun || counter_mj < e->counter_mj || now_ns < e->at_ns) {
        e->begun = true;
        e->at_ns = now_ns;
        e->counter_mj = counter_mj;
        for (unsigned i = 0; i < LITHOS_ENERGY_TENANTS_MAX; i++)
            e->tenant[i].tpc_ns = 0;
        return;
    }
    if (now_ns < e->at_ns + SHORTEST_NS)
        return;
    const double mj = (double)(counter_mj - e->counter_mj), ns = (double)(now_ns - e->at_ns),
                 mw = mj * 1e9 / ns;
    for (unsigned i = 0; i < LITHOS_ENERGY_TENANTS_MAX; i++)
        tpc_ns += e->tenant[i].tpc_ns;
    e->all_mj += mj;
    if (tpc_ns > 0) {
        const double idle_mj = e->idle_mw * ns / 1e9;
        share_out(e, mj, e->idle_mw > 0 && mj > idle_mj ? mj - idle_mj : 0, tpc_ns);
    } else {
        e->nobody_mj += mj;
        if (mj > 0)
            e->idle_mw = e->idle_mw > 0 ? LITHOS_MIN(e->idle_mw, mw) : mw;
    }
    e->at_ns = now_ns;
    e->counter_mj = counter_mj;
}
