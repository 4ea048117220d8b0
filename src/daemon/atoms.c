/* What tenants' kernels are cut into: asked for by each, given where it can be had. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/daemon.h"

const char *lithosd_atoms_why_not(const struct lithosd_tenant *t)
{
    const struct lithosd *d = t->daemon;
    if (d->atoms_off)
        return "LITHOS_ATOMS=off";
    if (t->mode != LITHOS_MODE_MASK)
        return "launches of this tenant are not hooked";
    for (uint32_t i = 0; i < t->grant.gpu_count; i++) {
        const struct lithosd_gpu *g = &d->gpus.gpu[t->gpu[i]];
        if (!g->atoms)
            return g->atoms_why[0] ? g->atoms_why : "the probe does not say that it works on this GPU";
    }
    return NULL;
}

/* Lengths have to be known. */
const char *lithosd_times_why_not(const struct lithosd_tenant *t)
{
    const struct lithosd *d = t->daemon;
    if (!d->options.observe)
        return "lithosd runs with --observe=off, and does not know how long kernels take";
    if (d->observe.stamps_off)
        return "LITHOS_STAMPS=off, so that nobody knows how long kernels take";
    for (uint32_t i = 0; i < t->grant.gpu_count; i++)
        if (!d->gpus.gpu[t->gpu[i]].stamps)
            return "completion stamps do not work on this GPU, so that nobody knows how long kernels take";
    return NULL;
}

static const char *why_not(const struct lithosd_tenant *t, const struct lithos_atom_policy *p)
{
    const char *why = p->mode == LITHOS_ATOM_OFF ? NULL : lithosd_atoms_why_not(t);
    return !why && p->mode == LITHOS_ATOM_DURATION ? lithosd_times_why_not(t) : why;
}

struct lithos_atom_policy lithosd_atoms_grant(const struct lithosd_tenant *t)
{
    static const struct lithos_atom_policy off = {.mode = LITHOS_ATOM_OFF};
    return why_not(t, &t->atom) ? off : t->atom;
}

int lithosd_atoms_check(const struct lithosd_tenant *t, const struct lithos_atom_policy *p,
                        char text[LITHOS_TEXT_MAX])
{
    const char *why = why_not(t, p);
    if (!why)
        return 0;
    snprintf(text, LITHOS_TEXT_MAX, "the kernels of %s cannot be cut into atoms: %s", t->name, why);
    return -EOPNOTSUPP;
}

static json_t *graphs_status(const uint64_t counters[LITHOS_COUNTER_MAX])
{
    json_t *whole = json_object();
#define W(name, what)                                              \
    json_object_set_new(                                           \
        whole, lithos_graph_whole_name(LITHOS_GRAPH_WHOLE_##name), \
        json_integer((json_int_t)(counters[LITHOS_COUNTER_GRAPH_WHOLE_##name] & INT64_MAX)));
#include "hw/graph_whole.def"
#undef W
    return json_pack("{s:I,s:I,s:I,s:o}", "cut", (json_int_t)(counters[LITHOS_COUNTER_GRAPH_CUT] & INT64_MAX),
                     "atoms", (json_int_t)(counters[LITHOS_COUNTER_GRAPH_ATOMS] & INT64_MAX), "launches",
                     (json_int_t)(counters[LITHOS_COUNTER_GRAPH_CUT_LAUNCHES] & INT64_MAX), "whole", whole);
}

json_t *lithosd_atoms_status(const struct lithosd_tenant *t, const uint64_t counters[LITHOS_COUNTER_MAX])
{
    char text[LITHOS_ATOM_POLICY_TEXT_MAX];
    const char *why = lithosd_atoms_why_not(t);
    if (!why)
        why = why_not(t, &t->atom);
    json_t *whole = json_object();
#define W(name, what)                                                  \
    json_object_set_new(whole, lithos_whole_name(LITHOS_WHOLE_##name), \
                        json_integer((json_int_t)(counters[LITHOS_COUNTER_WHOLE_##name] & INT64_MAX)));
#include "hw/whole.def"
#undef W
    json_t *ceiling = t->atom_ceiling_ns == UINT64_MAX
                          ? json_null()
                          : json_integer((json_int_t)(t->atom_ceiling_ns / LITHOS_NSEC_PER_USEC));
    return json_pack("{s:s,s:o,s:b,s:s,s:I,s:I,s:o,s:o,s:o}", "policy",
                     lithos_atom_policy_format(&t->atom, text), "ceiling_us", ceiling, "available", !why,
                     "why", why ? why : "", "cut", (json_int_t)(counters[LITHOS_COUNTER_CUT] & INT64_MAX),
                     "atoms", (json_int_t)(counters[LITHOS_COUNTER_ATOMS] & INT64_MAX), "whole", whole,
                     "operators", lithosd_plans_status(t), "graphs", graphs_status(counters));
}
