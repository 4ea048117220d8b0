/* Turns on the card: where tenants do not share it in space, those of best-effort ones are cut short (--share preempt), and those of others may be
 * longer than the driver has them (--turn). Their processes do that themselves (tenant/slice.c); what came of it stands in their arenas. */
#include <stdio.h>
#include <string.h>

#include "daemon/daemon.h"

static uint32_t slice_us(const struct lithosd_tenant *t)
{
    const struct lithosd *d = t->daemon;
    if (d->options.share != LITHOS_DOMAIN_PREEMPT)
        return 0;
    if (t->grant.class != LITHOS_CLASS_BEST_EFFORT)
        return d->options.turn_us;
    return (uint32_t)(d->lend.policy->best_effort_slice_ns / LITHOS_NSEC_PER_USEC);
}

void lithosd_slice_grant(const struct lithosd_tenant *t, struct lithos_grant *g)
{
    g->share = t->daemon->options.share;
    g->slice_us = slice_us(t);
}

/* What its processes say, added up. */
struct sum {
    uint64_t groups, set, refused;
    uint32_t status;
    unsigned blind, threadless, launched;
};

static void add(struct sum *s, const struct lithos_arena *a)
{
    const struct lithos_slice_report *r = &a->slice;
    const uint32_t watch = atomic_load_explicit(&r->watch, memory_order_relaxed);
    const uint32_t refused = atomic_load_explicit(&r->refused, memory_order_relaxed);
    const uint32_t groups = atomic_load_explicit(&r->groups, memory_order_relaxed);
    s->groups += groups;
    s->set += atomic_load_explicit(&r->set, memory_order_relaxed);
    s->refused += refused;
    if (refused)
        s->status = atomic_load_explicit(&r->status, memory_order_relaxed);
    s->blind += watch == LITHOS_SLICE_BLIND;
    s->threadless += watch == LITHOS_SLICE_NO_THREAD;
    s->launched += !groups && lithos_arena_counter(a, LITHOS_COUNTER_LAUNCHES) > 0;
}

/* One line; empty when there is nothing to say. */
static void why(const struct sum *s, char text[LITHOS_TEXT_MAX])
{
    text[0] = '\0';
    if (s->refused && s->status & 0x20000u)
        snprintf(text, LITHOS_TEXT_MAX, "more channel groups in a process than are looked after");
    else if (s->refused && s->status & 0x10000u)
        snprintf(text, LITHOS_TEXT_MAX, "the driver refuses: %s", strerror((int)(s->status & 0xffffu)));
    else if (s->refused)
        snprintf(text, LITHOS_TEXT_MAX, "the driver refuses: status 0x%x%s", s->status,
                 s->status == 0x1b   ? ", insufficient permissions"
                 : s->status == 0x56 ? ", not supported"
                                     : "");
    else if (s->blind)
        snprintf(text, LITHOS_TEXT_MAX, "%u processes in which the driver's calls are not seen", s->blind);
    else if (s->threadless)
        snprintf(text, LITHOS_TEXT_MAX, "%u processes have no thread for it", s->threadless);
    else if (s->launched)
        snprintf(text, LITHOS_TEXT_MAX,
                 "%u processes launch kernels, and the channel groups of these were not seen being made: "
                 "start them again",
                 s->launched);
}

json_t *lithosd_slice_status(const struct lithosd_tenant *t)
{
    const struct lithosd *d = t->daemon;
    struct sum s = {0};
    char text[LITHOS_TEXT_MAX];
    if (d->options.share != LITHOS_DOMAIN_PREEMPT)
        return json_null();
    for (unsigned i = 0; i < LITHOSD_PROCESS_MAX; i++)
        if (d->processes[i].used && d->processes[i].tenant == t && d->processes[i].arena)
            add(&s, d->processes[i].arena);
    why(&s, text);
    return json_pack("{s:o,s:I,s:I,s:I,s:s}", "us", slice_us(t) ? json_integer(slice_us(t)) : json_null(),
                     "groups", (json_int_t)s.groups, "set", (json_int_t)s.set, "refused",
                     (json_int_t)s.refused, "why", text);
}
