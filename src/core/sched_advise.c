/* How a tenant is best run. What decides cannot be changed while it runs: how many multiprocessors its programs were told
 * of, and whether its contexts share the card in space or take turns. */
#include <errno.h>
#include <string.h>

#include "core/sched_internal.h"

#define TURNS_FROM_PPM 300000u /* of its time is in what owners cannot bear */
#define FORGET_NS (10 * LITHOS_NSEC_PER_SEC)

static unsigned octave_of(uint64_t ns)
{
    const unsigned octave = ns < 1024 ? 0 : 54 - (unsigned)__builtin_clzll(ns);
    return LITHOS_MIN(octave, SCHED_OCTAVES - 1);
}

void sched_note_launch(struct sched_tenant *t, uint64_t predicted_ns, uint32_t flags)
{
    predicted_ns = LITHOS_MIN(predicted_ns, FORGET_NS);
    t->launched_ns += predicted_ns;
    if (!(flags & LITHOS_TPCWORK_CUTTABLE))
        t->uncut_ns[octave_of(predicted_ns)] += predicted_ns;
    if (t->launched_ns < FORGET_NS)
        return;
    t->launched_ns /= 2;
    for (unsigned i = 0; i < SCHED_OCTAVES; i++)
        t->uncut_ns[i] /= 2;
}

/* Of its time, in ppm: in launches that cannot be cut, in octaves above that of longest_ns. */
static uint32_t uncut_ppm(const struct sched_tenant *t, uint64_t longest_ns)
{
    uint64_t sum_ns = 0;

    for (unsigned i = longest_ns ? octave_of(longest_ns) + 1 : 0; i < SCHED_OCTAVES; i++)
        sum_ns += t->uncut_ns[i];
    return t->launched_ns ? (uint32_t)((unsigned __int128)sum_ns * LITHOS_SCHED_PPM / t->launched_ns) : 0;
}

/* Idle for more than half of the time. */
static bool mostly_idle(const struct sched_tenant *t)
{
    return t->demand.gap_ns > t->demand.period_ns;
}

int lithos_sched_advise(struct lithos_sched *s, uint32_t slot, uint64_t switch_ns,
                        struct lithos_sched_advice *ret_advice)
{
    const struct sched_tenant *t = slot < s->config.tenants ? &s->tenants[slot] : NULL, *o;
    struct lithos_sched_advice a = {0};
    uint32_t most = 0;

    if (!t || !t->used)
        return -ENOENT;
    struct lithos_tpcset hoped = t->desc.own;
    if (t->desc.weight) { /* others get only what nobody wants */
        hoped = lithos_tpcset_or(hoped, s->unowned);
        sched_each(s, o) if (mostly_idle(o)) hoped = lithos_tpcset_or(hoped, o->desc.own);
    }
    a.sms = lithos_tpcset_count(&hoped) * s->config.topology.sms_per_tpc;
    sched_each(s, o)
    {
        const uint32_t tpcs = lithos_tpcset_count(&o->desc.own);
        if (sched_is_best_effort(o) || o == t || tpcs <= most)
            continue;
        most = tpcs;
        a.slack_ns = sched_owner_slack_ns(s, o);
    }
    a.uncut_ppm = uncut_ppm(t, 0);
    a.unborne_ppm = most ? uncut_ppm(t, LITHOS_MAX(a.slack_ns, 1)) : 0;
    a.turns = sched_is_best_effort(t) && most && switch_ns && a.slack_ns >= switch_ns &&
              a.unborne_ppm >= TURNS_FROM_PPM;
    *ret_advice = a;
    return 0;
}
