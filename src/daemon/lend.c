/* From rings to the scheduler, and from the scheduler to rules. */
#include "daemon/lend.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"
#include "daemon/daemon.h"

/* A launch without a stamp is taken to last so long. */
#define BLIND_NS (50 * LITHOS_NSEC_PER_MSEC)
/* A call that launches a graph is waited for no longer. */
#define COMING_NS (100 * LITHOS_NSEC_PER_MSEC)
#define PREDICTED_MAX_NS (3600 * LITHOS_NSEC_PER_SEC)
/* Processors from which on one may be kept busy with looking while somebody borrows. */
#define SPIN_FROM_PROCESSORS 4
/* Else it looks so often. */
#define PAUSE_NS (200 * LITHOS_NSEC_PER_USEC)
/* What that, and waking up, make of the way from a launch to the rules that follow from it. */
#define PAUSED_REACT_NS (PAUSE_NS + 60 * LITHOS_NSEC_PER_USEC)

/* ---- one a GPU ---- */

static void start_gpu(struct lithosd *d, unsigned gpu)
{
    struct lithosd_lend_gpu *g = &d->lend.gpu[gpu];
    struct lithos_sched_config c = {.topology = d->gpus.gpu[gpu].alloc.topology, .policy = d->lend.policy};
    size_t bytes;
    lithos_sched_config_defaults(&c);
    if (!d->lend.spins)
        c.react_ns = PAUSED_REACT_NS;
    if (d->gpus.gpu[gpu].error[0] || lithos_sched_size(&c, &bytes) < 0)
        return;
    void *mem = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (mem && lithos_sched_init(mem, bytes, &c, &g->sched) < 0)
        free(mem);
    if (!g->sched)
        lithos_warning("GPU %u: no memory for a scheduler: nothing of it is lent", d->gpus.gpu[gpu].index);
}

void lithosd_lend_start(struct lithosd *d)
{
    struct lithosd_lend *l = &d->lend;
    l->policy = d->options.policy ? d->options.policy : lithos_policy_at(0);
    l->spins =
        d->options.spin == LITHOSD_SPIN_ON || (d->options.spin == LITHOSD_SPIN_AUTO && !d->gpus.is_virtual &&
                                               sysconf(_SC_NPROCESSORS_ONLN) >= SPIN_FROM_PROCESSORS);
    if (!d->options.observe)
        l->off = "lithosd runs with --observe=off, and does not know who is idle";
    for (unsigned i = 0; !l->off && i < d->gpus.count; i++)
        start_gpu(d, i);
}

void lithosd_lend_finish(struct lithosd *d)
{
    for (unsigned n = 0; n < LITHOSD_TENANT_MAX; n++)
        if (d->tenants[n].used)
            lithosd_hold_end(&d->tenants[n]);
    lithosd_timer_cancel(&d->loop, &d->lend.timer);
    for (unsigned i = 0; i < LITHOS_MAX_GPUS; i++) {
        free(d->lend.gpu[i].sched); /* it begins where its memory does */
        d->lend.gpu[i].sched = NULL;
    }
}

static struct lithosd_lend_gpu *gpu_of(const struct lithosd_tenant *t, uint32_t i)
{
    return &t->daemon->lend.gpu[t->gpu[i]];
}

/* ---- rules out ---- */

static void write_rule(struct lithosd_tenant *t, uint32_t i, const struct lithos_rule *rule)
{
    struct lithosd *d = t->daemon;
    if (!memcmp(rule, &t->lent[i].rule, sizeof *rule))
        return;
    t->lent[i].rule = *rule;
    d->lend.changes++;
    for (unsigned n = 0; n < d->observe.process_high; n++) {
        struct lithosd_process *p = &d->processes[n];
        if (p->used && p->tenant == t && p->arena)
            lithos_arena_set_rule(p->arena, i, rule);
    }
}

/* Rules are for launch queues, which high-priority tenants have not. */
static void grant(struct lithosd_tenant *t, uint32_t i, const struct lithos_tpcgrant *g)
{
    static const struct lithos_rule none;
    struct lithos_rule rule =
        t->grant.class == LITHOS_CLASS_BEST_EFFORT ? lithosd_rule(g, gpu_of(t, i)->tenants < 2) : none;
    /* A policy that never lends would have it wait for ever: it keeps to its refuge. */
    if (!(t->daemon->lend.policy->needs & LITHOS_NEED_QUEUES) && rule.flags & LITHOS_RULE_HOLD)
        rule = none;
    write_rule(t, i, &rule);
}

/* With all that has happened meanwhile: an owner may be back whose launch has not been read. */
static void fire(void *ctx)
{
    lithosd_observe_now(ctx);
}

static void set_timer(struct lithosd *d)
{
    uint64_t next_ns = LITHOS_SCHED_NEVER, now_ns = lithos_now_ns();
    struct lithosd_timer *timer = &d->lend.timer;
    if (d->loop.poll) /* the next look is about to come, and a timer costs a call of the kernel */
        return;
    for (unsigned i = 0; i < d->gpus.count; i++)
        if (d->lend.gpu[i].sched)
            next_ns = LITHOS_MIN(next_ns, lithos_sched_timer_ns(d->lend.gpu[i].sched));
    if (next_ns == LITHOS_SCHED_NEVER || (timer->armed && timer->deadline_ns <= next_ns))
        return; /* when it is too early, it looks and is set anew */
    lithosd_timer_set(&d->loop, timer, next_ns > now_ns ? next_ns - now_ns : 0, fire, d);
}

/* Decide where something has changed, and tell those whom it concerns. */
static bool settle(struct lithosd *d, struct lithosd_lend_gpu *g)
{
    const struct lithos_tpcgrant *next;
    uint64_t before = d->lend.changes;
    uint32_t slot;
    lithos_sched_run(g->sched, lithos_now_ns());
    while (lithos_sched_next(g->sched, &slot, &next))
        if (g->tenant[slot])
            grant(g->tenant[slot], g->index[slot], next);
    lithosd_hold_settle(d, g);
    return d->lend.changes != before;
}

/* ---- tenants ---- */

/* Who is alone on the GPU now and who is not any more. */
static void renew_rules(struct lithosd_lend_gpu *g)
{
    for (uint32_t slot = 0; slot < LITHOS_SCHED_TENANTS_MAX; slot++)
        if (g->tenant[slot])
            grant(g->tenant[slot], g->index[slot], lithos_sched_grant(g->sched, slot));
}

static struct lithos_sched_tenant desc_of(const struct lithosd_tenant *t, uint32_t i)
{
    static const struct lithos_tpcset none;
    struct lithos_share s = lithosd_share(t);
    bool high = t->grant.class == LITHOS_CLASS_HIGH;
    return (struct lithos_sched_tenant){
        .id = t->id,
        .own = lithosd_owns(t) ? t->grant.gpus[i].own : none,
        .class = high ? LITHOS_SCHED_HIGH : LITHOS_SCHED_BEST_EFFORT,
        .weight = high ? 0 : s.weight,
        .floor_tpcs = high ? 0 : s.floor_tpcs,
        .slip_ppm = s.slip_ppm,
        .slo_ns = s.slo_ns,
        .place = i == 0 ? t->hold.place : none,
    };
}

void lithosd_lend_add(struct lithosd_tenant *t)
{
    struct lithosd *d = t->daemon;
    for (uint32_t i = 0; i < t->grant.gpu_count; i++) {
        struct lithosd_lend_gpu *g = gpu_of(t, i);
        struct lithos_sched_tenant desc = desc_of(t, i);
        if (!g->sched)
            continue;
        /* As many as there can be, on TPCs that core/alloc.h has kept apart. */
        lithos_assert(lithos_sched_add(g->sched, lithos_now_ns(), &desc, &t->lent[i].slot) == 0);
        t->lent[i].in = true;
        g->tenant[t->lent[i].slot] = t;
        g->index[t->lent[i].slot] = i;
        g->tenants++;
        settle(d, g);
        renew_rules(g);
    }
    lithosd_lend_processes(t);
}

void lithosd_lend_change(struct lithosd_tenant *t)
{
    for (uint32_t i = 0; i < t->grant.gpu_count; i++) {
        struct lithosd_lend_gpu *g = gpu_of(t, i);
        struct lithos_sched_tenant desc = desc_of(t, i);
        if (!t->lent[i].in)
            continue;
        lithos_assert(lithos_sched_change(g->sched, lithos_now_ns(), t->lent[i].slot, &desc) == 0);
        settle(t->daemon, g);
        grant(t, i, lithos_sched_grant(g->sched, t->lent[i].slot)); /* its class may have changed alone */
    }
    lithosd_lend_processes(t);
    set_timer(t->daemon);
}

void lithosd_lend_remove(struct lithosd_tenant *t)
{
    lithosd_hold_end(t);
    for (uint32_t i = 0; i < t->grant.gpu_count; i++) {
        struct lithosd_lend_gpu *g = gpu_of(t, i);
        if (!t->lent[i].in)
            continue;
        lithos_assert(lithos_sched_remove(g->sched, lithos_now_ns(), t->lent[i].slot) == 0);
        g->tenant[t->lent[i].slot] = NULL;
        g->tenants--;
        t->lent[i].in = false;
        settle(t->daemon, g);
        renew_rules(g);
    }
    set_timer(t->daemon);
}

struct lithos_tpcset lithosd_lend_own(const struct lithosd_tenant *t, uint32_t i)
{
    const struct lithos_tpcgrant *g =
        t->lent[i].in ? lithos_sched_grant(gpu_of(t, i)->sched, t->lent[i].slot) : NULL;
    return g && !lithos_tpcset_empty(&g->own) ? g->own : t->grant.gpus[i].own;
}

struct lithos_tpcset lithosd_lend_lent(const struct lithosd_tenant *t, uint32_t i)
{
    static const struct lithos_tpcset none;
    const struct lithos_tpcgrant *g =
        t->lent[i].in ? lithos_sched_grant(gpu_of(t, i)->sched, t->lent[i].slot) : NULL;
    return g ? lithos_tpcgrant_lent(g) : none;
}

struct lithos_tpcset lithosd_lend_away(const struct lithosd_tenant *t, uint32_t i)
{
    struct lithos_tpcset away = {{0, 0}};
    const struct lithosd_lend_gpu *g = gpu_of(t, i);
    for (uint32_t slot = 0; t->lent[i].in && lithosd_owns(t) && slot < LITHOS_SCHED_TENANTS_MAX; slot++)
        if (g->tenant[slot] && g->tenant[slot] != t)
            away = lithos_tpcset_or(away, lithosd_lend_lent(g->tenant[slot], g->index[slot]));
    return lithos_tpcset_and(away, t->grant.gpus[i].own);
}

/* Somebody borrows, or would; or has only paused, and may go on at once with what it is lent still. */
static bool borrows(const struct lithosd_tenant *t)
{
    bool yes = false;
    for (uint32_t i = 0; i < t->grant.gpu_count && !yes; i++)
        yes = t->lent[i].in && gpu_of(t, i)->tenants > 1 &&
              (t->lent[i].queued || t->lent[i].outstanding || !lithos_tpcset_empty(&t->lent[i].rule.lent));
    return yes && t->grant.class == LITHOS_CLASS_BEST_EFFORT && t->processes;
}

/* ---- events in ---- */

static void tell(struct lithosd_tenant *t, uint32_t i, uint64_t now_ns, struct lithos_sched_event *e)
{
    e->slot = t->lent[i].slot;
    lithos_sched_event(gpu_of(t, i)->sched, now_ns, e);
}

static void lose(struct lithosd_tenant *t, uint32_t i, uint64_t now_ns, uint64_t count)
{
    struct lithos_sched_event e = {.kind = LITHOS_SCHED_LOST};
    for (uint64_t n = 0; n < count; n++)
        tell(t, i, now_ns, &e);
    t->lent[i].outstanding -= count;
}

static void count_reaction(struct lithosd_lend *l, uint64_t since_ns)
{
    uint64_t slot = (lithos_now_ns() - since_ns) / LITHOSD_REACTION_NS;
    l->reactions[LITHOS_MIN(slot, LITHOSD_REACTIONS - 1u)]++;
}

void lithosd_lend_launch(struct lithosd_tenant *t, const struct lithos_timeline_launch *l, bool followed)
{
    struct lithosd_lent *lent = &t->lent[l->gpu];
    uint64_t now_ns = lithos_now_ns();
    struct lithos_sched_event e = {.kind = LITHOS_SCHED_LAUNCH};
    if (!lent->in)
        return;
    e.launch.submit_ns = l->submit_ns;
    e.launch.predicted_ns = l->predicted_ns;
    e.launch.tpcs = l->tpcs;
    e.launch.cluster_blocks = l->cluster_blocks;
    e.launch.flags = l->atoms > 1 ? LITHOS_TPCWORK_CUTTABLE : 0;
    if (l->atoms > 1) {
        lent->atoms_of = l->sequence;
        lent->atom_tpc_ns = LITHOS_MIN(l->predicted_ns, PREDICTED_MAX_NS) / l->atoms * l->tpc_count;
        e.launch.stays_ns = l->predicted_ns / l->atoms;
    }
    /* What the driver launches by itself is small, and finds room beside what others have there. */
    if (l->flags & LITHOS_KERNEL_DRIVER)
        e.launch.tpcs = lithos_tpcset_minus(l->tpcs, lithosd_rightsize_strip(t));
    lent->outstanding++;
    if (!followed) {
        lent->blind++;
        lent->blind_until_ns = now_ns + BLIND_NS;
    }
    tell(t, l->gpu, now_ns, &e);
    lithosd_rightsize_beside(t->daemon, t->gpu[l->gpu], &l->tpcs);
    if (settle(t->daemon, gpu_of(t, l->gpu)))
        count_reaction(&t->daemon->lend, now_ns);
}

void lithosd_lend_atom(struct lithosd_tenant *t, const struct lithos_timeline_launch *l)
{
    const struct lithosd_lent *lent = &t->lent[l->gpu];
    struct lithos_sched_event e = {.kind = LITHOS_SCHED_ATOM};
    if (!lent->in || lent->atoms_of != l->sequence || !l->tpc_count)
        return;
    e.launch.submit_ns = l->submit_ns;
    e.launch.tpcs = l->tpcs;
    e.launch.stays_ns = lent->atom_tpc_ns / l->tpc_count;
    tell(t, l->gpu, lithos_now_ns(), &e);
    lithosd_rightsize_beside(t->daemon, t->gpu[l->gpu], &l->tpcs);
}

void lithosd_lend_strip(struct lithosd_tenant *t, struct lithos_tpcset strip, uint64_t bears_ns)
{
    struct lithos_sched_event e = {.kind = LITHOS_SCHED_STRIP, .strip = {strip, bears_ns}};
    if (!t->lent[0].in)
        return;
    tell(t, 0, lithos_now_ns(), &e);
    settle(t->daemon, gpu_of(t, 0));
}

uint64_t lithosd_lend_beside_ns(const struct lithosd_tenant *t, struct lithos_tpcset tpcs)
{
    return t->lent[0].in ? lithos_sched_beside_ns(gpu_of(t, 0)->sched, lithos_now_ns(), t->lent[0].slot, tpcs)
                         : 0;
}

bool lithosd_lend_wanted(const struct lithosd_tenant *t)
{
    const struct lithosd_lend_gpu *g = gpu_of(t, 0);
    for (uint32_t slot = 0; t->lent[0].in && slot < LITHOS_SCHED_TENANTS_MAX; slot++)
        if (g->tenant[slot] && g->tenant[slot] != t && borrows(g->tenant[slot]))
            return true;
    return false;
}

void lithosd_lend_done(struct lithosd_tenant *t, const struct lithos_kernel_event *k)
{
    struct lithosd_lent *lent = &t->lent[k->launch->gpu];
    struct lithos_sched_event e = {.kind = LITHOS_SCHED_DONE};
    if (!lent->in || lent->outstanding <= lent->blind)
        return;
    e.done.submit_ns = k->launch->submit_ns;
    e.done.start_ns = k->start_ns;
    e.done.end_ns = k->end_ns;
    e.done.predicted_ns = k->launch->predicted_ns;
    lent->outstanding--;
    tell(t, k->launch->gpu, lithos_now_ns(), &e);
}

/* ---- what cannot be seen ---- */

static bool stamped(const struct lithosd_tenant *t)
{
    const struct lithosd *d = t->daemon;
    bool yes = t->mode == LITHOS_MODE_MASK && !d->observe.stamps_off;
    for (uint32_t i = 0; yes && i < t->grant.gpu_count; i++)
        yes = d->gpus.gpu[t->gpu[i]].stamps;
    return yes;
}

/* A process that is known from the state file alone, or has no hook, launches what no record tells of. */
static bool seen(const struct lithosd_tenant *t)
{
    bool yes = stamped(t);
    for (unsigned n = 0; yes && n < LITHOSD_PROCESS_MAX; n++) {
        const struct lithosd_process *p = &t->daemon->processes[n];
        if (p->used && p->tenant == t)
            yes = p->arena && p->reader && p->hook_active;
    }
    return yes;
}

/* Whoever is not seen counts as busy, so that nothing of its own is lent. */
static void set_unseen(struct lithosd_tenant *t, uint32_t i, bool unseen)
{
    struct lithos_sched_event busy = {.kind = unseen ? LITHOS_SCHED_LAUNCH : LITHOS_SCHED_LOST};
    uint64_t now_ns = lithos_now_ns();
    if (t->lent[i].unseen == unseen)
        return;
    t->lent[i].unseen = unseen;
    if (unseen) {
        busy.launch.submit_ns = now_ns;
        busy.launch.tpcs = lithosd_rightsize_strip(t); /* it may go there, where it kept off */
    }
    tell(t, i, now_ns, &busy);
}

/* Who does not go by rules is lent nothing. */
static void set_deaf(struct lithosd_tenant *t, uint32_t i, bool deaf)
{
    struct lithos_sched_event lease = {.kind = deaf ? LITHOS_SCHED_LEASE_LOST : LITHOS_SCHED_LEASE_BACK};
    if (t->lent[i].deaf == deaf)
        return;
    t->lent[i].deaf = deaf;
    tell(t, i, lithos_now_ns(), &lease);
}

void lithosd_lend_processes(struct lithosd_tenant *t)
{
    bool unseen = !seen(t);
    lithosd_hold_renew(t);
    for (uint32_t i = 0; i < t->grant.gpu_count; i++) {
        if (!t->lent[i].in)
            continue;
        set_unseen(t, i, unseen);
        set_deaf(t, i, unseen || t->grant.class == LITHOS_CLASS_HIGH);
        settle(t->daemon, gpu_of(t, i));
        for (unsigned n = 0; n < LITHOSD_PROCESS_MAX;
             n++) { /* for those that have come since it was written */
            struct lithosd_process *p = &t->daemon->processes[n];
            if (p->used && p->tenant == t && p->arena &&
                memcmp(&p->arena->rules[i].rule, &t->lent[i].rule, sizeof t->lent[i].rule) != 0)
                lithos_arena_set_rule(p->arena, i, &t->lent[i].rule);
        }
    }
}

/* ---- the look ---- */

struct waiting {
    uint32_t launches, why;
    uint64_t head_ns;
};

/* What the queues of all its processes hold: any values. */
static struct waiting waiting_of(const struct lithosd_tenant *t)
{
    const struct lithosd *d = t->daemon;
    struct waiting w = {0};
    for (unsigned n = 0; n < d->observe.process_high; n++) {
        const struct lithosd_process *p = &d->processes[n];
        if (!p->used || p->tenant != t || !p->arena)
            continue;
        uint32_t depth = atomic_load_explicit(&p->arena->queue_depth, memory_order_acquire);
        uint32_t held = atomic_load_explicit(&p->arena->queue_held, memory_order_relaxed);
        if (depth && !w.launches) {
            w.why = atomic_load_explicit(&p->arena->queue_why, memory_order_relaxed);
            w.head_ns = atomic_load_explicit(&p->arena->queue_head_ns, memory_order_relaxed);
        } else if (held && !w.launches) {
            w.why = LITHOS_PICK_HELD;
        }
        w.launches = (uint32_t)LITHOS_MIN((uint64_t)w.launches + depth + held, (uint64_t)UINT32_MAX);
    }
    return w;
}

static void look_at_queues(struct lithosd_tenant *t, uint64_t now_ns)
{
    struct waiting w = waiting_of(t);
    for (uint32_t i = 0; i < t->grant.gpu_count; i++) {
        struct lithosd_lent *lent = &t->lent[i];
        struct lithos_sched_event e = {.kind = LITHOS_SCHED_QUEUE};
        if (!lent->in || (lent->queued == w.launches && lent->why == w.why && lent->head_ns == w.head_ns))
            continue;
        lent->queued = e.queue.launches = w.launches;
        lent->head_ns = e.queue.head_ns = w.head_ns;
        lent->why = w.why;
        e.queue.why = (enum lithos_tpcpick)w.why;
        tell(t, i, now_ns, &e);
    }
}

/* Is a process of it in a call that launches a graph? As of the look before, what such a call has written has been read since. One that
 * takes too long is not waited for: its thread may be gone. */
static bool is_coming(const struct lithosd_tenant *t, uint64_t now_ns)
{
    struct lithosd *d = t->daemon;
    bool coming = false;
    for (unsigned n = 0; n < d->observe.process_high; n++) {
        struct lithosd_process *p = &d->processes[n];
        if (!p->used || p->tenant != t || !p->arena || !p->reader)
            continue;
        struct lithosd_reader *r = p->reader;
        uint32_t begun = atomic_load_explicit(&p->arena->graphs_begun, memory_order_acquire);
        if (begun != r->graphs_begun)
            r->graphs_begun_ns = now_ns;
        r->graphs_begun = begun;
        coming = coming || (begun != r->graphs_given && now_ns - r->graphs_begun_ns < COMING_NS);
        r->graphs_given = atomic_load_explicit(&p->arena->graphs_given, memory_order_acquire);
    }
    return coming;
}

/* A graph's launch is heard of when its call returns. Its owner has its TPCs back before. */
static void look_for_graphs(struct lithosd_tenant *t, uint64_t now_ns)
{
    bool coming = is_coming(t, now_ns);
    for (uint32_t i = 0; i < t->grant.gpu_count; i++) {
        struct lithos_sched_event e = {.kind = coming ? LITHOS_SCHED_LAUNCH : LITHOS_SCHED_LOST};
        if (!t->lent[i].in || t->lent[i].coming == coming)
            continue;
        t->lent[i].coming = coming;
        if (coming) {
            e.launch.submit_ns = now_ns;
            e.launch.tpcs = lithosd_rightsize_strip(t);
        }
        tell(t, i, now_ns, &e);
    }
}

/* The timeline knows what is outstanding: of what was told and is neither there nor was seen to end, nobody will hear. */
static void look_for_lost(struct lithosd_tenant *t, uint64_t now_ns)
{
    const struct lithos_timeline_stats *stats =
        t->observed ? lithos_timeline_stats(t->observed->timeline) : NULL;
    for (uint32_t i = 0; i < t->grant.gpu_count; i++) {
        struct lithosd_lent *lent = &t->lent[i];
        if (!lent->in)
            continue;
        uint64_t known = stats ? stats->gpu_outstanding[i] : 0, followed = lent->outstanding - lent->blind;
        if (followed > known)
            lose(t, i, now_ns, followed - known);
        if (lent->blind && now_ns >= lent->blind_until_ns) {
            uint64_t blind = lent->blind;
            lent->blind = 0;
            lose(t, i, now_ns, blind);
        }
    }
}

void lithosd_lend_look(struct lithosd *d)
{
    uint64_t now_ns = lithos_now_ns();
    if (d->lend.off)
        return;
    for (unsigned n = 0; n < LITHOSD_TENANT_MAX; n++) {
        struct lithosd_tenant *t = &d->tenants[n];
        if (!t->used)
            continue;
        if (t->grant.class == LITHOS_CLASS_BEST_EFFORT)
            look_at_queues(t, now_ns);
        look_for_graphs(t, now_ns);
        look_for_lost(t, now_ns);
    }
    for (unsigned i = 0; i < d->gpus.count; i++)
        if (d->lend.gpu[i].sched)
            settle(d, &d->lend.gpu[i]);
    set_timer(d);
}

uint64_t lithosd_lend_period_ns(const struct lithosd *d)
{
    if (d->lend.off || !(d->lend.policy->needs & LITHOS_NEED_QUEUES))
        return UINT64_MAX;
    for (unsigned n = 0; n < LITHOSD_TENANT_MAX; n++)
        if (d->tenants[n].used && borrows(&d->tenants[n]))
            return d->lend.spins ? 0 : PAUSE_NS;
    return UINT64_MAX;
}
