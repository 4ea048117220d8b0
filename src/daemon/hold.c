#include "daemon/hold.h"

#include "daemon/daemon.h"

/* Kernels between two stops, by the longest way: so many that they take about that long, where the tenant's kernels are known already; a stop costs
 * as much as one or two short ones (docs/hardware.md, "Graphs held half-way"). */
#define APART 40u
#define APART_NS (100 * LITHOS_NSEC_PER_USEC)
#define APART_EVERY_NS (100 * LITHOS_NSEC_PER_MSEC)
/* How long it takes from one stop to the next, until that is known; and at least. */
#define APART_FIRST_NS (200 * LITHOS_NSEC_PER_USEC)
#define APART_LEAST_NS (50 * LITHOS_NSEC_PER_USEC)
/* Whoever has waited for so long goes on for a moment, whoever is at work. */
#define STARVED_NS (100 * LITHOS_NSEC_PER_MSEC)
#define MERCY_NS LITHOS_NSEC_PER_MSEC

/* Has it asked for it, and can it be done? */
static bool is_wanted(const struct lithosd_tenant *t)
{
    const struct lithosd *d = t->daemon;
    return t->share.graphs == LITHOS_GRAPHS_BORROW && t->grant.class == LITHOS_CLASS_BEST_EFFORT &&
           t->grant.gpu_count == 1 && t->mode == LITHOS_MODE_MASK && !d->lend.off &&
           d->lend.policy->needs & LITHOS_NEED_QUEUES && t->observed &&
           t->observed->flags & LITHOS_OBSERVE_STAMPS;
}

static void let(struct lithosd_tenant *t, bool go)
{
    for (unsigned n = 0; n < t->daemon->observe.process_high; n++) {
        const struct lithosd_process *p = &t->daemon->processes[n];
        if (p->used && p->tenant == t && p->arena)
            lithos_arena_let_graphs(p->arena, go);
    }
}

static void set_held(struct lithosd_tenant *t, bool held, uint64_t now_ns)
{
    struct lithosd_hold *h = &t->hold;
    if (h->held == held)
        return;
    let(t, !held);
    h->held_ns += h->held ? now_ns - h->since_ns : 0;
    h->times += held;
    h->held = held;
    h->since_ns = now_ns;
}

/* Its part of the card among best-effort tenants, by weight. Graphs cannot change their place with each event, as kernels in queues do, so that it is theirs
 * alone while they have work: beside others' kernels there each of theirs would wait for some of those. */
static struct lithos_tpcset place_of(const struct lithosd_tenant *t)
{
    const struct lithosd *d = t->daemon;
    const struct lithos_tpcset valid = t->grant.gpus[0].topology.valid;
    struct lithos_tpcset place = {{0, 0}};
    uint64_t before = 0, all = 0, at = 0;
    for (unsigned n = 0; n < LITHOSD_TENANT_MAX; n++) {
        const struct lithosd_tenant *other = &d->tenants[n];
        if (!other->used || other->grant.class != LITHOS_CLASS_BEST_EFFORT ||
            !lithosd_tenant_is_on(other, t->gpu[0]))
            continue;
        before += other < t ? lithosd_share(other).weight : 0;
        all += lithosd_share(other).weight;
    }
    const uint64_t count = lithos_tpcset_count(&valid), weight = lithosd_share(t).weight;
    const uint64_t from = all ? count * before / all : 0, to = all ? count * (before + weight) / all : count;
    for (unsigned b = lithos_tpcset_next(&valid, 0); b < LITHOS_TPC_BITS;
         b = lithos_tpcset_next(&valid, b + 1), at++)
        if (at >= from && at < to)
            lithos_tpcset_add(&place, b);
    return place;
}

static void renew_place(struct lithosd_tenant *t)
{
    static const struct lithos_tpcset none;
    const struct lithos_tpcset place = is_wanted(t) ? place_of(t) : none;
    if (lithos_tpcset_equal(&place, &t->hold.place))
        return;
    t->hold.place = t->grant.gpus[0].graphs = place;
    t->grant.epoch++;
    lithosd_publish(t);
    lithosd_lend_change(t);
}

void lithosd_hold_places_renew(struct lithosd *d)
{
    for (unsigned n = 0; d->lend.holds && n < LITHOSD_TENANT_MAX; n++)
        if (d->tenants[n].used && d->tenants[n].hold.on)
            renew_place(&d->tenants[n]);
}

/* By what its kernels take in the mean. */
static uint32_t apart_for(const struct lithosd_tenant *t)
{
    const struct lithos_timeline_operator *op;
    uint64_t kernels = 0, total_ns = 0;
    for (uint32_t i = 0; (op = lithos_timeline_operator(t->observed->timeline, i)); i++) {
        kernels += op->kernels;
        total_ns += op->total_ns;
    }
    return total_ns ? (uint32_t)LITHOS_MAX(LITHOS_MIN(APART_NS * kernels / total_ns, (uint64_t)APART), 1ull)
                    : APART;
}

static void set_stops(struct lithosd_tenant *t, uint64_t now_ns)
{
    const uint32_t stops = is_wanted(t) ? apart_for(t) : 0;
    t->hold.stops_ns = now_ns;
    t->hold.stops = stops ? stops : t->hold.stops;
    for (unsigned n = 0; n < t->daemon->observe.process_high; n++) {
        struct lithosd_process *p = &t->daemon->processes[n];
        if (p->used && p->tenant == t && p->arena)
            atomic_store_explicit(&p->arena->stops, stops, memory_order_release);
    }
}

void lithosd_hold_renew(struct lithosd_tenant *t)
{
    const bool wanted = is_wanted(t);
    t->daemon->lend.holds += wanted && !t->hold.on;
    t->hold.on = t->hold.on || wanted; /* graphs that were made with stops have them for good */
    let(t, !t->hold.held);
    if (!t->hold.on)
        return;
    set_stops(t, lithos_now_ns());
    renew_place(t);
}

/* How long its graphs may run on once they are told to wait. */
static uint64_t apart_ns(const struct lithosd_tenant *t)
{
    uint64_t kernel_ns = 0;
    for (unsigned n = 0; n < t->daemon->observe.process_high; n++) {
        const struct lithosd_process *p = &t->daemon->processes[n];
        if (p->used && p->tenant == t && p->reader)
            kernel_ns = LITHOS_MAX(kernel_ns, p->reader->kernel_ns);
    }
    return kernel_ns ? LITHOS_MAX(kernel_ns * t->hold.stops, APART_LEAST_NS) : APART_FIRST_NS;
}

/* Has it launched a graph, or is it about to? Where much is under way already a call that launches one may wait for that. */
static bool has_work(const struct lithosd_tenant *t)
{
    for (unsigned n = 0; n < t->daemon->observe.process_high; n++) {
        const struct lithosd_process *p = &t->daemon->processes[n];
        if (p->used && p->tenant == t && p->arena &&
            atomic_load_explicit(&p->arena->graphs_begun, memory_order_relaxed) !=
                atomic_load_explicit(&p->arena->graphs_given, memory_order_relaxed))
            return true;
    }
    return t->lent[0].outstanding != 0;
}

static bool may_go_on(struct lithosd_tenant *t, struct lithos_sched *s, uint64_t now_ns)
{
    struct lithosd_hold *h = &t->hold;
    if (lithos_tpcset_empty(&h->place)) /* they keep to what is the tenant's */
        return true;
    if (lithos_sched_bears(s, t->lent[0].slot, apart_ns(t)))
        return true;
    if (h->held && has_work(t) && now_ns - h->since_ns >= STARVED_NS)
        h->mercy_until_ns = now_ns + MERCY_NS;
    return now_ns < h->mercy_until_ns;
}

void lithosd_hold_settle(struct lithosd *d, const struct lithosd_lend_gpu *g)
{
    if (!d->lend.holds)
        return;
    const uint64_t now_ns = lithos_now_ns();
    for (uint32_t slot = 0; slot < LITHOS_SCHED_TENANTS_MAX; slot++) {
        struct lithosd_tenant *t = g->tenant[slot];
        if (!t || !t->hold.on)
            continue;
        set_held(t, !may_go_on(t, g->sched, now_ns), now_ns);
        if (now_ns - t->hold.stops_ns >= APART_EVERY_NS)
            set_stops(t, now_ns);
    }
}

void lithosd_hold_end(struct lithosd_tenant *t)
{
    let(t, true);
    t->daemon->lend.holds -= t->hold.on;
    t->grant.gpus[0].graphs = (struct lithos_tpcset){{0, 0}};
    t->hold = (struct lithosd_hold){0};
}

bool lithosd_hold_spoils(const struct lithosd_tenant *t, const struct lithos_kernel_event *k)
{
    return t->hold.on && k->launch->flags & LITHOS_KERNEL_GRAPH_NODE &&
           (t->hold.held || t->hold.since_ns > k->start_ns);
}

json_t *lithosd_hold_status(const struct lithosd_tenant *t)
{
    const struct lithosd_hold *h = &t->hold;
    if (!h->on)
        return json_null();
    const uint64_t held_ns = h->held_ns + (h->held ? lithos_now_ns() - h->since_ns : 0);
    return json_pack("{s:b,s:f,s:I}", "held", h->held, "held_s", (double)held_ns / 1e9, "times",
                     (json_int_t)h->times);
}
