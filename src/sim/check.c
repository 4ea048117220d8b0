/* Checkers. They look at what was granted, what was sent and what the card did; docs/simulator.md has the rules. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "sim/sim_internal.h"

/* From an owner's launch to the last launch of others on its TPCs: seen, decided, published, read, submitted. */
#define REACT_NS (25 * LITHOS_NSEC_PER_USEC)
/* Work that is not done although it could be: after so long, and so many times what it takes. */
#define WAITS_NS (50 * LITHOS_NSEC_PER_MSEC)
#define WAITS_TIMES 60u
/* Who has few TPCs may wait for more for so many times what it takes on these (hw/tpcgrant.c), and a little. */
#define HELD_TIMES 2u
#define HELD_NS LITHOS_NSEC_PER_MSEC
#define STARVED_NS (400 * LITHOS_NSEC_PER_MSEC)

const char *lithos_check_rule_name(enum lithos_check_rule rule)
{
    static const char *const names[LITHOS_CHECK_RULE_MAX] = {
        [LITHOS_CHECK_TWO_OWNERS] = "two_owners", [LITHOS_CHECK_OWN_QUOTA] = "own_quota",
        [LITHOS_CHECK_GRANT] = "grant",           [LITHOS_CHECK_ONCE] = "once",
        [LITHOS_CHECK_ORDER] = "order",           [LITHOS_CHECK_HANG] = "hang",
        [LITHOS_CHECK_LATE_LOAN] = "late_loan",   [LITHOS_CHECK_OWNER_WAIT] = "owner_wait",
        [LITHOS_CHECK_CONSERVED] = "conserved",   [LITHOS_CHECK_STARVED] = "starved",
        [LITHOS_CHECK_PROGRESS] = "progress",
    };
    return (unsigned)rule < LITHOS_CHECK_RULE_MAX ? names[rule] : "unknown";
}

void check_fire(struct sim *s, enum lithos_check_rule rule, const struct sim_tenant *t, const char *fmt, ...)
{
    char what[LITHOS_CHECK_TEXT_BYTES / 2];
    va_list ap;

    s->check.fired[rule]++;
    if (s->check.first[0])
        return;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    snprintf(s->check.first, sizeof s->check.first, "%s at %.3f ms, %.40s: %s", lithos_check_rule_name(rule),
             (double)s->now_ns / 1e6, t->spec->name, what);
}

static bool meets(struct lithos_tpcset a, struct lithos_tpcset b)
{
    const struct lithos_tpcset both = lithos_tpcset_and(a, b);
    return !lithos_tpcset_empty(&both);
}

static bool exclusive(const struct sim *s)
{
    return s->options->policy->exclusive;
}

/* While the daemon is away or slow, reactions to what happened then take longer; what was lent is good for a lease. */
static uint64_t react_ns(const struct sim *s, uint64_t at_ns)
{
    uint64_t late_ns = 0;

    for (uint32_t i = 0; i < s->sc->fault_count; i++) {
        const struct lithos_sim_fault *f = &s->sc->faults[i];
        const uint64_t lasts_ns = 2 * SIM_LEASE_NS + f->delay_ns;
        if (at_ns < f->from_ns || at_ns > f->to_ns + lasts_ns)
            continue;
        if (f->kind == LITHOS_SIM_DAEMON_SLOW)
            late_ns += 2 * f->delay_ns;
        if (f->kind == LITHOS_SIM_DAEMON_STOPS)
            late_ns += SIM_LEASE_NS;
    }
    return REACT_NS + late_ns;
}

void check_start(struct sim *s, struct sim_tenant *t)
{
    t->check = (struct sim_check_tenant){
        .busy_ns = LITHOS_SIM_NEVER, .idle_ns = s->now_ns, .idle_since_ns = LITHOS_SIM_NEVER};
}

void check_grant(struct sim *s, struct sim_tenant *t)
{
    const struct lithos_tpcset lent = lithos_tpcgrant_lent(&t->grant);
    const struct lithos_tpcset missing = lithos_tpcset_minus(t->own, t->grant.own);

    s->check.checks++;
    t->check.lent = lent;
    if (lithos_tpcgrant_validate(&t->grant, &s->sc->card.topology) < 0)
        check_fire(s, LITHOS_CHECK_GRANT, t, "epoch %lu", (unsigned long)t->grant.epoch);
    if (exclusive(s) && !lithos_tpcset_empty(&missing))
        check_fire(s, LITHOS_CHECK_OWN_QUOTA, t, "%u of its TPCs are not granted",
                   lithos_tpcset_count(&missing));
}

void check_strip(struct sim *s, struct sim_tenant *t, struct lithos_tpcset strip)
{
    struct sim_check_tenant *c = &t->check;
    const struct lithos_tpcset given_up = lithos_tpcset_minus(c->strip, strip);

    if (!lithos_tpcset_empty(&given_up)) {
        c->strip_before = c->strip;
        c->strip_ns = s->now_ns;
    }
    c->strip = strip;
}

/* Where others may send something though it is busy. */
static struct lithos_tpcset left_by(const struct sim *s, const struct sim_tenant *owner, uint64_t submit_ns)
{
    const struct sim_check_tenant *c = &owner->check;
    return submit_ns <= c->strip_ns + react_ns(s, submit_ns) ? lithos_tpcset_or(c->strip, c->strip_before)
                                                             : c->strip;
}

/* After all grants of a step are out: in between, a TPC may still be with the one it is taken from. */
static void check_lent_once(struct sim *s)
{
    struct lithos_tpcset seen = {{0, 0}};

    for (uint32_t i = 0; i < s->sc->tenant_count && exclusive(s); i++) {
        const struct sim_tenant *t = &s->tenants[i];
        if (!t->alive || !t->known)
            continue;
        if (meets(seen, t->check.lent))
            check_fire(s, LITHOS_CHECK_TWO_OWNERS, t, "TPCs lent to it are lent to another");
        seen = lithos_tpcset_or(seen, t->check.lent);
    }
    s->check.checks++;
}

void check_daemon(struct sim *s)
{
    check_lent_once(s);
}

/* --- launches --- */

/* A launch at its longest: beside others that slow it down, or crowded into the few SMs that were free when it came. */
static uint64_t longest_ns(const struct sim *s, const struct sim_tenant *t, const struct sim_flight *f)
{
    const struct lithos_wave_kernel *k = &t->program->kernels[f->kernel];
    const uint64_t even_ns =
        lithos_wave_duration_ns(&s->sc->card, k, (uint32_t)f->blocks, 0, lithos_tpcset_count(&f->tpcs));
    const uint64_t crowded_ns =
        k->alone_ns * LITHOS_MAX((uint64_t)k->residency * k->share_ppm / LITHOS_WAVE_PPM, 1);

    return (s->sc->bandwidth ? 8 : 4) * even_ns + 2 * crowded_ns;
}

/* What others have under way on its TPCs. */
static uint64_t in_its_way_ns(const struct sim *s, const struct sim_tenant *owner)
{
    uint64_t sum_ns = 0;

    for (uint32_t i = 0; i < s->sc->tenant_count; i++) {
        const struct sim_tenant *t = &s->tenants[i];
        for (uint32_t n = 0; n < t->flying && t != owner; n++) {
            const struct sim_flight *f = &t->flights[(t->flight_first + n) % SIM_FLIGHTS];
            if (meets(f->tpcs, owner->own))
                sum_ns += longest_ns(s, t, f);
        }
    }
    return sum_ns;
}

/* What is sent within the time it takes to react may come in an owner's way as well. */
static void comes_in_the_way(struct sim *s, const struct sim_tenant *t, const struct sim_flight *f)
{
    for (uint32_t i = 0; i < s->sc->tenant_count; i++) {
        struct sim_tenant *o = &s->tenants[i];
        if (o != t && o->check.returning && s->now_ns <= o->check.busy_ns + react_ns(s, s->now_ns) &&
            meets(f->tpcs, o->own))
            o->check.wait_until_ns += longest_ns(s, t, f);
    }
}

void check_submit(struct sim *s, struct sim_tenant *t, const struct sim_flight *f)
{
    struct sim_check_tenant *c = &t->check;

    s->check.checks++;
    if (f->first != c->next_block)
        check_fire(s, LITHOS_CHECK_ONCE, t, "block %lu follows block %lu", (unsigned long)f->first,
                   (unsigned long)c->next_block);
    comes_in_the_way(s, t, f);
    c->next_block = f->last ? 0 : f->first + f->blocks;
    c->idle_since_ns = LITHOS_SIM_NEVER;
    c->idle_seen_ns = 0;
    if (c->busy_ns != LITHOS_SIM_NEVER)
        return;
    c->busy_ns = s->now_ns;
    c->idle_ns = LITHOS_SIM_NEVER;
    c->returning = true;
    c->wait_until_ns =
        s->now_ns + react_ns(s, s->now_ns) + s->sc->card.launch_ns + f->first / 10 + in_its_way_ns(s, t);
}

void check_recalled(const struct sim *s, struct sim_tenant *t, const struct sim_flight *f)
{
    t->check.next_block = f->first;
    if (t->flying)
        return;
    t->check.busy_ns = LITHOS_SIM_NEVER;
    t->check.idle_ns = s->now_ns;
    t->check.returning = false;
}

static void check_order(struct sim *s, struct sim_tenant *t, struct sim_flight *f)
{
    for (uint32_t n = 0; n < t->flying; n++) {
        const struct sim_flight *before = sim_flight(t, n);
        if (before->op >= f->op)
            break;
        /* parts of one kernel may follow each other before they are over, in order */
        const bool one_kernel = before->round == f->round && before->kernel == f->kernel;
        const bool all_placed = before->placed == before->blocks;
        if (one_kernel ? !all_placed : before->ended < before->blocks || !before->blocks)
            check_fire(s, LITHOS_CHECK_ORDER, t, "launch %lu began before launch %lu was over",
                       (unsigned long)f->op, (unsigned long)before->op);
    }
}

static void check_loans(struct sim *s, struct sim_tenant *t, const struct sim_flight *f,
                        struct lithos_tpcset tpcs)
{
    for (uint32_t i = 0; i < s->sc->tenant_count; i++) {
        const struct sim_tenant *o = &s->tenants[i];
        const struct lithos_tpcset not_left = lithos_tpcset_minus(o->own, left_by(s, o, f->submit_ns));
        if (o == t || o->check.busy_ns == LITHOS_SIM_NEVER || !meets(tpcs, not_left))
            continue;
        if (f->submit_ns > o->check.busy_ns + react_ns(s, f->submit_ns) && !t->spec->floor_tpcs &&
            !s->config.beside_ns)
            check_fire(s, LITHOS_CHECK_LATE_LOAN, t, "sent to TPCs of %.30s %lu us after it came back",
                       o->spec->name, (unsigned long)((f->submit_ns - o->check.busy_ns) / 1000));
    }
}

static void span_add(struct sim *s, struct lithos_sim_span span)
{
    struct lithos_sim_result *r = s->result;

    if (r->span_count == s->span_room) {
        s->span_room = s->span_room ? 2 * s->span_room : 1024;
        r->spans = realloc(r->spans, s->span_room * sizeof *r->spans);
        lithos_assert(r->spans);
    }
    r->spans[r->span_count++] = span;
}

/* A picture's rectangles: from blocks placed in a set of TPCs to their end. What ends may be a part of what was placed
 * together. */
static void keep_span(struct sim *s, const struct sim_tenant *t, const struct lithos_wave_placing *p)
{
    struct lithos_sim_result *r = s->result;
    struct lithos_tpcset rest = p->tpcs;

    if (p->now_ns < s->options->span_from_ns || p->now_ns >= s->options->span_to_ns)
        return;
    for (size_t i = 0, n = r->span_count; p->ended && i < n && !lithos_tpcset_empty(&rest); i++) {
        struct lithos_sim_span *span = &r->spans[i];
        const struct lithos_tpcset both = lithos_tpcset_and(span->tpcs, rest);
        if (span->to_ns || span->tenant != t->index || lithos_tpcset_empty(&both))
            continue;
        rest = lithos_tpcset_minus(rest, both);
        span->tpcs = lithos_tpcset_minus(span->tpcs, both);
        const uint64_t from_ns = span->from_ns;
        span_add(s, (struct lithos_sim_span){from_ns, p->now_ns, both, t->index, p->blocks});
    }
    if (!p->ended)
        span_add(s, (struct lithos_sim_span){p->now_ns, 0, p->tpcs, t->index, p->blocks});
}

void check_placing(void *sim, const struct lithos_wave_placing *p)
{
    struct sim *s = sim;
    struct sim_tenant *t = p->user;
    struct sim_flight *f = NULL;

    if (s->options->span_to_ns)
        keep_span(s, t, p);
    if (!s->options->check)
        return;
    if (t->flying && p->op >= sim_flight(t, 0)->op)
        f = sim_flight(t, (uint32_t)(p->op - sim_flight(t, 0)->op));
    if (!f || f->op != p->op)
        return; /* of a launch that is being submitted: its flight is not counted yet */
    s->check.checks++;
    if (p->ended) {
        f->ended += p->blocks;
        return;
    }
    if (!f->placed && !t->program->graph)
        check_order(s, t, f);
    f->placed += p->blocks;
    if (exclusive(s))
        check_loans(s, t, f, p->tpcs);
    if (t->check.returning) {
        t->check.returning = false;
        const struct lithos_tpcset elsewhere = lithos_tpcset_minus(f->tpcs, t->own);
        if (exclusive(s) && p->now_ns > t->check.wait_until_ns && lithos_tpcset_empty(&elsewhere))
            check_fire(s, LITHOS_CHECK_OWNER_WAIT, t, "%lu us more than what was in its way",
                       (unsigned long)((p->now_ns - t->check.wait_until_ns) / 1000));
    }
}

void check_done(struct sim *s, struct sim_tenant *t, const struct sim_flight *f,
                const struct lithos_wave_event *e)
{
    uint64_t blocks = f->blocks;

    s->check.checks++;
    if (t->program->graph) {
        blocks = 0;
        for (uint32_t i = 0; i < t->program->count; i++)
            blocks += t->program->kernels[i].blocks;
    }
    if (e->op != f->op)
        check_fire(s, LITHOS_CHECK_ORDER, t, "launch %lu completed before launch %lu", (unsigned long)e->op,
                   (unsigned long)f->op);
    if (e->blocks != blocks)
        check_fire(s, LITHOS_CHECK_ONCE, t, "%lu blocks ran of %lu", (unsigned long)e->blocks,
                   (unsigned long)blocks);
    if (t->flying == 1) { /* it is the last */
        t->check.busy_ns = LITHOS_SIM_NEVER;
        t->check.idle_ns = s->now_ns;
        t->check.returning = false;
    }
}

/* --- now and then --- */

/* TPCs whose owners have been idle for so long; those of nobody always are. */
static struct lithos_tpcset idle_for(const struct sim *s, const struct sim_tenant *asks, uint64_t ns)
{
    struct lithos_tpcset idle = s->sc->card.topology.valid;

    for (uint32_t i = 0; i < s->sc->tenant_count; i++) {
        const struct sim_tenant *t = &s->tenants[i];
        /* nothing queued, nothing under way */
        const bool was_idle = !t->alive || (!t->queue_told && t->check.idle_ns != LITHOS_SIM_NEVER &&
                                            s->now_ns - t->check.idle_ns >= ns);
        if (t != asks && !was_idle)
            idle = lithos_tpcset_minus(idle, t->own);
    }
    /* where others have launches under way, wherever they got them, is not idle */
    for (uint32_t i = 0; i < s->sc->tenant_count; i++) {
        const struct sim_tenant *t = &s->tenants[i];
        for (uint32_t n = 0; n < t->flying && t != asks; n++)
            idle = lithos_tpcset_minus(idle, t->flights[(t->flight_first + n) % SIM_FLIGHTS].tpcs);
        if (t != asks && t->flying)
            idle = lithos_tpcset_minus(idle, t->check.lent);
    }
    return idle;
}

/* What a kernel takes on so many TPCs, or is predicted to if that is longer. */
static uint64_t on_ns(const struct sim *s, const struct sim_tenant *t, const struct lithos_wave_kernel *k,
                      uint32_t tpcs)
{
    const uint64_t ns = lithos_wave_duration_ns(&s->sc->card, k, k->blocks, 0, LITHOS_MAX(tpcs, 1u));
    return ns * LITHOS_MAX(sim_fault_factor_ppm(s, t), LITHOS_SCHED_PPM) / LITHOS_SCHED_PPM;
}

/* A tenant's queue has work and nothing is under way. */
static void check_waiting(struct sim *s, struct sim_tenant *t)
{
    const struct lithos_wave_kernel *k = &t->program->kernels[t->kernel % t->program->count];
    const uint64_t head_ns = on_ns(s, t, k, lithos_tpcset_count(&s->sc->card.topology.valid));
    const struct lithos_tpcset idle = idle_for(s, t, 20 * head_ns + LITHOS_NSEC_PER_MSEC);
    uint64_t bound_ns = LITHOS_MAX(WAITS_NS, WAITS_TIMES * head_ns);
    if (t->why == LITHOS_PICK_WIDER)
        bound_ns = LITHOS_MAX(bound_ns, HELD_TIMES * on_ns(s, t, k, lithos_tpcset_count(&idle)) + HELD_NS);
    bound_ns += react_ns(s, s->now_ns);

    s->check.checks++;
    if (!s->daemon_up || react_ns(s, s->now_ns) > REACT_NS ||
        lithos_tpcset_count(&idle) < sim_queue_event(s, t, true).queue.resident_tpcs ||
        !lithos_topology_has_room(&s->sc->card.topology, idle, k->cluster_blocks)) {
        t->check.idle_since_ns = LITHOS_SIM_NEVER;
        return;
    }
    if (t->check.idle_since_ns == LITHOS_SIM_NEVER)
        t->check.idle_since_ns = s->now_ns;
    t->check.idle_seen_ns += SIM_TICK_NS;
    if (s->now_ns - t->check.idle_since_ns > bound_ns) {
        check_fire(s, LITHOS_CHECK_CONSERVED, t, "waits (%s) while TPCs are idle",
                   lithos_tpcpick_name(t->why));
        t->check.idle_since_ns = s->now_ns;
    }
    if (t->check.idle_seen_ns > LITHOS_MAX(STARVED_NS, 2 * bound_ns)) {
        check_fire(s, LITHOS_CHECK_STARVED, t, "waits (%s), nothing launched", lithos_tpcpick_name(t->why));
        t->check.idle_seen_ns = 0;
    }
}

void check_tick(struct sim *s)
{
    if (!exclusive(s))
        return;
    for (uint32_t i = 0; i < s->sc->tenant_count; i++) {
        struct sim_tenant *t = &s->tenants[i];
        if (t->alive && t->spec->class == LITHOS_SCHED_BEST_EFFORT && t->queue_told && !t->flying)
            check_waiting(s, t);
    }
}

void check_end(struct sim *s)
{
    for (uint32_t i = 0; i < s->sc->tenant_count; i++) {
        const struct sim_tenant *t = &s->tenants[i];
        s->check.checks++;
        /* others may queue more than the quiet time is long, or leave a tenant without TPCs */
        if (exclusive(s) && !sim_tenant_finished(s, t))
            check_fire(s, LITHOS_CHECK_PROGRESS, t, "%u under way, %zu requests waiting (%s)", t->flying,
                       t->pending_count, lithos_tpcpick_name(t->why));
    }
}
