/* Tenants of the simulator: an app that issues launches, inline or through a queue with a dispatcher, as the tenant
 * library has them. */
#include <stdlib.h>
#include <string.h>

#include "sim/sim_internal.h"

static bool inline_launches(const struct sim_tenant *t)
{
    return t->spec->class == LITHOS_SCHED_HIGH;
}

static void pump_at(struct sim_tenant *t, uint64_t at_ns)
{
    t->pump_ns = LITHOS_MIN(t->pump_ns, at_ns);
}

uint64_t sim_tenant_next_ns(const struct sim_tenant *t)
{
    return LITHOS_MIN(t->pump_ns, t->arrival_ns);
}

/* --- arrivals --- */

static uint64_t stop_ns(const struct sim *s, const struct sim_tenant *t)
{
    return LITHOS_MIN(t->spec->stop_ns, s->sc->duration_ns);
}

static void next_arrival(struct sim *s, struct sim_tenant *t)
{
    const struct lithos_sim_tenant *spec = t->spec;
    uint64_t at_ns = t->arrival_ns;

    if (spec->arrival == LITHOS_SIM_PERIODIC)
        at_ns += spec->interval_ns;
    else
        at_ns += lithos_random_exponential_ns(&t->arrivals, spec->interval_ns);
    if (spec->arrival == LITHOS_SIM_BURSTS) {
        /* what falls into the quiet part moves behind it */
        const uint64_t cycle = spec->on_ns + spec->off_ns, into = (at_ns - spec->start_ns) % cycle;
        if (into >= spec->on_ns)
            at_ns += cycle - into;
    }
    t->arrival_ns = at_ns < stop_ns(s, t) ? at_ns : LITHOS_SIM_NEVER;
}

void sim_tenant_arrive(struct sim *s, struct sim_tenant *t)
{
    if (t->pending_count == t->pending_room) {
        const size_t room = t->pending_room ? 2 * t->pending_room : 16;
        uint64_t *pending = calloc(room, sizeof *pending);
        lithos_assert(pending);
        for (size_t i = 0; i < t->pending_count; i++)
            pending[i] = t->pending[(t->pending_first + i) % t->pending_room];
        free(t->pending);
        t->pending = pending;
        t->pending_first = 0;
        t->pending_room = room;
    }
    t->pending[(t->pending_first + t->pending_count++) % t->pending_room] = t->arrival_ns;
    if (t->arrival_ns >= s->sc->warm_ns)
        t->result.requests++;
    next_arrival(s, t);
    pump_at(t, s->now_ns);
}

/* --- the app: rounds of launches --- */

/* Is there a launch, and when has the app issued it? */
static bool app_next(struct sim *s, struct sim_tenant *t, uint64_t *ret_ns)
{
    const struct lithos_sim_tenant *spec = t->spec;
    const bool closed = spec->arrival == LITHOS_SIM_CLOSED,
               waits = spec->waits || inline_launches(t) || !closed;

    if (!t->issuing) {
        if (waits && t->rounds_done < t->round)
            return false;
        if (!closed) {
            if (!t->pending_count)
                return false;
            t->began_ns = t->pending[t->pending_first];
            t->pending_first = (t->pending_first + 1) % t->pending_room;
            t->pending_count--;
        } else if (s->now_ns >= stop_ns(s, t)) {
            return false;
        } else {
            t->began_ns = LITHOS_MAX(t->ended_ns, spec->start_ns);
        }
        t->issuing = true;
        t->round++;
        if (t->rightsize)
            sim_rightsize_request(s, t);
        t->kernel = 0;
        t->first = 0;
        if (waits)
            t->app_ns = LITHOS_MAX(t->app_ns,
                                   LITHOS_MAX(t->began_ns, t->ended_ns ? t->ended_ns + spec->think_ns : 0));
    }
    if (!inline_launches(t) && t->app_ns + SIM_RUN_AHEAD * spec->launch_ns < s->now_ns)
        t->app_ns = s->now_ns - SIM_RUN_AHEAD * spec->launch_ns;
    if ((t->program->flags[t->kernel] & LITHOS_SIM_SYNC) && t->kernel && t->flying)
        return false; /* the completion that leaves nothing goes on */
    *ret_ns = t->app_ns;
    return true;
}

/* In parts of its time, how long the app's own work takes just now: the same at the same time, whatever the card does. */
static uint64_t pace_ppm(const struct sim *s, const struct sim_tenant *t)
{
    const struct lithos_sim_tenant *spec = t->spec;
    const uint64_t drawn =
        lithos_random_mix(lithos_random_mix(s->options->seed + t->index + 1) + s->now_ns / spec->pace_ns);
    return spec->pace_from_ppm + drawn % (spec->pace_to_ppm - spec->pace_from_ppm + 1);
}

/* What the app takes before it issues the next launch. */
static uint64_t gap_ns(const struct sim *s, const struct sim_tenant *t)
{
    const struct lithos_sim_program *p = t->program;
    const uint64_t ns = p->gaps_ns && t->kernel < p->count ? p->gaps_ns[t->kernel] : t->spec->launch_ns;
    return t->spec->pace_ns ? (uint64_t)((unsigned __int128)ns * pace_ppm(s, t) / LITHOS_WAVE_PPM) : ns;
}

static void app_issued(struct sim *s, struct sim_tenant *t, bool whole)
{
    const struct lithos_sim_program *p = t->program;

    if (!whole)
        return;
    t->first = 0;
    t->kernel = p->graph ? p->count : t->kernel + 1;
    const bool more = t->kernel < p->count, waits = more && (p->flags[t->kernel] & LITHOS_SIM_SYNC);
    if (inline_launches(t))
        t->app_ns = LITHOS_MAX(t->app_ns, s->now_ns);
    if (!waits) /* else the gap begins when all before is over */
        t->app_ns += gap_ns(s, t);
    t->issuing = more;
}

/* --- what is under way --- */

/* Predicted time until all of it is over. */
static uint64_t ahead_ns(const struct sim *s, const struct sim_tenant *t)
{
    if (!t->flying)
        return s->sc->card.launch_ns;
    const uint64_t end_ns = t->head_ns + t->outstanding_ns;
    return end_ns > s->now_ns ? end_ns - s->now_ns : 0;
}

static uint64_t predicted(const struct sim *s, const struct sim_tenant *t, uint64_t ns)
{
    const uint32_t factor = sim_fault_factor_ppm(s, t);
    return factor == LITHOS_SCHED_PPM ? ns : ns * factor / LITHOS_SCHED_PPM;
}

/* So many blocks, where the card full of them wants more of its memory than that gives. */
static uint64_t least_ns(const struct sim *s, const struct lithos_wave_kernel *k, uint64_t blocks,
                         uint64_t life_ns)
{
    if (!s->sc->bandwidth || k->bandwidth_ppm <= LITHOS_WAVE_PPM)
        return 0;
    const uint64_t at_once = (uint64_t)lithos_card_sms(&s->sc->card) * k->residency;
    return (uint64_t)((double)life_ns * (double)blocks / (double)at_once * k->bandwidth_ppm /
                      LITHOS_WAVE_PPM);
}

static struct lithos_tpcwork work_of(const struct sim *s, const struct sim_tenant *t)
{
    const struct lithos_sim_program *p = t->program;
    const struct lithos_wave_kernel *k = &p->kernels[t->kernel];
    const uint64_t full_ppm = LITHOS_MAX((uint64_t)k->residency * k->share_ppm, LITHOS_WAVE_PPM);
    const uint64_t life_ns = k->alone_ns * full_ppm / LITHOS_WAVE_PPM;
    const uint32_t flags = p->flags[t->kernel];

    if (p->graph)
        return (struct lithos_tpcwork){.blocks = 1,
                                       .lifetime_ns =
                                           predicted(s, t, t->graph_ns ? t->graph_ns : p->alone_ns),
                                       .residency = 1};
    return (struct lithos_tpcwork){
        .blocks = k->blocks - t->first,
        .lifetime_ns = predicted(s, t, life_ns),
        .residency = k->residency,
        .saturation = LITHOS_WAVE_PPM / LITHOS_MAX(k->share_ppm, 1u),
        .cluster_blocks = k->cluster_blocks,
        .flags = (flags & LITHOS_SIM_CUTTABLE ? LITHOS_TPCWORK_CUTTABLE : 0) |
                 (flags & LITHOS_SIM_RESIDENT ? LITHOS_TPCWORK_RESIDENT : 0) |
                 (flags & LITHOS_SIM_MEMORY ? LITHOS_TPCWORK_MEMORY : 0),
        .least_ns = predicted(s, t, least_ns(s, k, k->blocks - t->first, life_ns)),
    };
}

static void tell_launch(struct sim *s, struct sim_tenant *t, struct sim_flight *f)
{
    const struct lithos_wave_kernel *k = &t->program->kernels[f->kernel];
    const bool memory = t->program->flags[f->kernel] & LITHOS_SIM_MEMORY;
    const bool cuttable = t->program->flags[f->kernel] & LITHOS_SIM_CUTTABLE;
    const struct lithos_sched_event e = {
        .kind = LITHOS_SCHED_LAUNCH,
        .launch = {.submit_ns = f->submit_ns,
                   .predicted_ns = f->predicted_ns,
                   .tpcs = f->tpcs,
                   .cluster_blocks = k->cluster_blocks,
                   .flags = (memory ? LITHOS_TPCWORK_MEMORY : 0) | (cuttable ? LITHOS_TPCWORK_CUTTABLE : 0)}};
    f->told_ns = sim_tell(s, SIM_RECORDS, t, s->sc->see_ns, 0, &e);
}

static void submit(struct sim *s, struct sim_tenant *t, const struct lithos_tpcchoice *c,
                   const struct lithos_rightsize_ticket *sized)
{
    const struct lithos_sim_program *p = t->program;
    const struct lithos_wave_kernel *k = &p->kernels[t->kernel];
    struct sim_flight *f = sim_flight(t, t->flying);
    const uint64_t total = p->graph ? 1 : k->blocks;

    *f = (struct sim_flight){
        .op = ++t->op,
        .round = t->round,
        .kernel = t->kernel,
        .first = t->first,
        .blocks = c->blocks,
        .last = t->first + c->blocks >= total,
        .chained = t->first > 0,
        .submit_ns = s->now_ns,
        .predicted_ns = c->duration_ns,
        .tpcs = c->tpcs,
        .sized = *sized,
    };
    const uint64_t width = 2 * (uint64_t)t->spec->jitter_ppm;
    const struct lithos_wave_launch l = {
        .op = f->op,
        .kernels = p->graph ? p->kernels : k,
        .count = p->graph ? p->count : 1,
        .tpcs = c->tpcs,
        .blocks = p->graph || c->blocks == k->blocks ? 0 : (uint32_t)c->blocks,
        .residency = c->residency,
        .lead_ns = t->first / 10, /* blocks below an atom's first come and go at once: 0.1 ns each */
        .time_ppm = (uint32_t)(LITHOS_WAVE_PPM - width / 2 +
                               (width ? lithos_random_below(&t->random, width + 1) : 0)),
        .chained = f->chained || ((s->options->sabotage & LITHOS_SIM_CHAIN_KERNELS) && !p->graph),
    };
    if (!t->flying)
        t->head_ns = s->now_ns + s->sc->card.launch_ns;
    t->flying++;
    t->outstanding_ns += f->predicted_ns;
    t->last_launch_ns = s->now_ns;
    t->held_ns = 0;
    lithos_wave_stream_set_rank(t->stream, c->priority);
    const int r = lithos_wave_launch(s->wave, s->now_ns, t->stream, &l);
    lithos_assert(r == 0);
    t->result.launches++;
    t->result.atoms += !(f->first == 0 && f->last);
    t->result.kernels += f->last ? l.count : 0;
    s->result->kernels += f->last ? l.count : 0;
    sim_mix(s, 1 + t->index, f->op, c->tpcs.w[0] ^ c->tpcs.w[1] ^ c->blocks << 32);
    if (s->options->check)
        check_submit(s, t, f);
    tell_launch(s, t, f);
    if (!inline_launches(t))
        sim_rightsize_beside(s, f->tpcs);
    t->first += c->blocks;
    if ((s->options->sabotage & LITHOS_SIM_SKIP_BLOCKS) && !f->last && t->first + k->cluster_blocks < total)
        t->first += k->cluster_blocks;
    app_issued(s, t, f->last);
}

/* --- the queue --- */

/* That hold all blocks of the kernel at once. */
static uint32_t resident_tpcs(const struct sim *s, const struct lithos_wave_kernel *k)
{
    const uint64_t a_tpc = (uint64_t)s->sc->card.topology.sms_per_tpc * k->residency;
    return (uint32_t)((k->blocks + a_tpc - 1) / a_tpc);
}

struct lithos_sched_event sim_queue_event(const struct sim *s, const struct sim_tenant *t, bool waiting)
{
    const struct lithos_sim_program *p = t->program;
    const uint32_t head = t->kernel % p->count;
    struct lithos_sched_event e = {.kind = LITHOS_SCHED_QUEUE, .slot = t->slot};

    if (!waiting)
        return e;
    e.queue.launches = 1;
    e.queue.head_ns = t->head_told_ns;
    e.queue.why = t->why;
    if (p->graph)
        return e;
    e.queue.cluster_blocks = p->kernels[head].cluster_blocks;
    if (p->flags[head] & LITHOS_SIM_RESIDENT)
        e.queue.resident_tpcs = resident_tpcs(s, &p->kernels[head]);
    return e;
}

/* What the launch queue waits for has changed. */
static void tell_queue(struct sim *s, struct sim_tenant *t, bool waiting, enum lithos_tpcpick why,
                       uint64_t head_ns)
{
    const uint64_t since_ns = t->waits_ns;

    if (t->queue_told)
        t->result.pick_ns[t->why] += s->now_ns - since_ns;
    t->waits_ns = s->now_ns;
    const bool same_head = head_ns <= 2 * t->head_told_ns && t->head_told_ns <= 2 * head_ns;
    if (waiting == t->queue_told && (!waiting || (why == t->why && same_head)))
        return;
    t->queue_told = waiting;
    t->head_told_ns = head_ns;
    t->why = why;
    const struct lithos_sched_event e = sim_queue_event(s, t, waiting);
    (void)sim_tell(s, SIM_RECORDS, t, s->sc->see_ns, 0, &e);
}

/* The grant as it may be used: without a daemon that looks, no TPCs of others (rule 3 of the design). */
static const struct lithos_tpcgrant *usable(const struct sim *s, const struct sim_tenant *t,
                                            struct lithos_tpcgrant *own)
{
    if (s->daemon_up || s->now_ns < s->lease_ns + SIM_LEASE_NS)
        return &t->grant;
    *own = t->grant;
    own->part_count = 0;
    own->wider = (struct lithos_tpcset){{0, 0}};
    return own;
}

static void choose(struct sim *s, struct sim_tenant *t, const struct lithos_tpcwork *w,
                   struct lithos_tpcchoice *c)
{
    const struct lithos_tpcmoment at = {.now_ns = s->now_ns,
                                        .ahead_ns = ahead_ns(s, t),
                                        .held_ns = t->held_ns ? s->now_ns - t->held_ns : 0,
                                        .since_last_ns = s->now_ns - t->last_launch_ns};
    struct lithos_tpcgrant own;

    lithos_tpcgrant_pick(usable(s, t, &own), &s->sc->card.topology, w, &at, c);
    if (s->options->meddle)
        s->options->meddle(s->options->meddle_ctx, t->index, c);
}

/* The next launch of a best-effort tenant. False: it waits; pump_ns says until when, if not for a new grant. */
static bool dispatch(struct sim *s, struct sim_tenant *t)
{
    const struct lithos_tpcwork w = work_of(s, t);
    struct lithos_tpcchoice c;

    choose(s, t, &w, &c);
    if (t->flying == SIM_FLIGHTS) {
        c.why = LITHOS_PICK_WINDOW;
        c.retry_ns = LITHOS_TPCGRANT_FOREVER;
    }
    if (c.why == LITHOS_PICK_RUN) {
        tell_queue(s, t, true, LITHOS_PICK_RUN, 0);
        submit(s, t, &c, &(struct lithos_rightsize_ticket){0});
        pump_at(t, s->now_ns + s->sc->submit_ns);
        return true;
    }
    if (c.why == LITHOS_PICK_WIDER && !t->held_ns)
        t->held_ns = s->now_ns;
    tell_queue(s, t, true, c.why,
               lithos_tpcwork_duration_ns(&s->sc->card.topology, &w, w.blocks,
                                          lithos_tpcset_count(&s->sc->card.topology.valid), 0));
    if (c.retry_ns != LITHOS_TPCGRANT_FOREVER)
        pump_at(t, LITHOS_MAX(c.retry_ns, s->now_ns + 1));
    return false;
}

static uint32_t graph_cluster(const struct lithos_sim_program *p)
{
    uint32_t most = 1;
    for (uint32_t i = 0; i < p->count; i++)
        most = LITHOS_MAX(most, p->kernels[i].cluster_blocks);
    return most;
}

/* Inline: at once, on what there is. */
static void launch_inline(struct sim *s, struct sim_tenant *t)
{
    const struct lithos_sim_program *p = t->program;
    const struct lithos_tpcwork w = work_of(s, t);
    struct lithos_rightsize_ticket sized = {0};
    struct lithos_tpcchoice c;

    choose(s, t, &w, &c);
    if (p->graph) {
        /* what is in a graph's launches stays as it was when it was made */
        if (lithos_tpcset_empty(&t->graph_tpcs))
            t->graph_tpcs = t->grant.own;
        c.tpcs = t->graph_tpcs;
        c.duration_ns = w.lifetime_ns;
        c.priority = t->grant.priority;
    } else if (c.why != LITHOS_PICK_RUN) {
        c.tpcs = t->grant.own;
        c.priority = t->grant.priority;
        c.duration_ns =
            lithos_tpcwork_duration_ns(&s->sc->card.topology, &w, w.blocks, lithos_tpcset_count(&c.tpcs), 0);
    }
    /* a cluster that does not fit goes where it does, as the library does it: a breach, but no hang */
    (void)lithos_topology_make_room(&s->sc->card.topology, c.tpcs,
                                    p->graph ? graph_cluster(p) : w.cluster_blocks, &c.tpcs);
    if (t->rightsize) {
        sim_rightsize_choose(s, t, &c.tpcs, &sized);
        c.duration_ns =
            lithos_tpcwork_duration_ns(&s->sc->card.topology, &w, w.blocks, lithos_tpcset_count(&c.tpcs), 0);
    }
    c.blocks = w.blocks;
    c.residency = 0;
    submit(s, t, &c, &sized);
}

void sim_tenant_pump(struct sim *s, struct sim_tenant *t)
{
    uint64_t issued_ns;

    t->pump_ns = LITHOS_SIM_NEVER;
    if (!t->alive)
        return;
    while (app_next(s, t, &issued_ns)) {
        if (issued_ns > s->now_ns) {
            if (!inline_launches(t))
                tell_queue(s, t, false, LITHOS_PICK_RUN, 0);
            pump_at(t, issued_ns);
            return;
        }
        if (inline_launches(t)) {
            if (t->flying == SIM_FLIGHTS)
                return; /* as the driver: the next completion goes on */
            launch_inline(s, t);
        } else if (!dispatch(s, t) || t->pump_ns > s->now_ns) {
            return;
        }
    }
    if (!inline_launches(t))
        tell_queue(s, t, false, LITHOS_PICK_RUN, 0);
}

void sim_tenant_granted(struct sim *s, struct sim_tenant *t, const struct lithos_tpcgrant *g)
{
    t->grant = *g;
    sim_mix(s, 100 + t->index, g->epoch, g->own.w[0] ^ g->parts[0].tpcs.w[0] ^ g->parts[0].tpcs.w[1]);
    if (s->options->check)
        check_grant(s, t);
    if ((g->flags & LITHOS_TPCGRANT_RECALL) && s->sc->recall && t->alive) {
        for (uint32_t n = lithos_wave_recall(s->wave, s->now_ns, t->stream); n > 0; n--) {
            const struct sim_flight *f = sim_flight(t, --t->flying);
            const struct lithos_sched_event e = {.kind = LITHOS_SCHED_LOST,
                                                 .done = {.predicted_ns = f->predicted_ns}};
            t->outstanding_ns -= f->predicted_ns;
            t->op--;
            t->result.recalled++;
            t->round = f->round;
            t->kernel = f->kernel;
            t->first = f->first;
            t->issuing = true;
            if (s->options->check)
                check_recalled(s, t, f);
            (void)sim_tell(s, SIM_RECORDS, t, s->sc->see_ns, 0, &e);
        }
    }
    if (!inline_launches(t))
        pump_at(t, s->now_ns + s->sc->wake_ns);
}

/* --- completions --- */

static void round_done(struct sim *s, struct sim_tenant *t)
{
    struct lithos_sim_tenant_result *r = &t->result;
    const bool closed = t->spec->arrival == LITHOS_SIM_CLOSED;
    const uint64_t took_ns = s->now_ns - LITHOS_MAX(t->began_ns, closed ? t->ended_ns : 0);

    sim_power_request(s, t, took_ns);
    if (t->rightsize)
        sim_rightsize_request_done(s, t, took_ns);
    t->rounds_done++;
    t->ended_ns = s->now_ns;
    if (closed && s->now_ns >= s->sc->warm_ns)
        r->requests++;
    if ((closed ? s->now_ns : t->began_ns) < s->sc->warm_ns)
        return;
    if (r->done == t->latency_room) {
        t->latency_room = t->latency_room ? 2 * t->latency_room : 256;
        r->latency_us = realloc(r->latency_us, t->latency_room * sizeof *r->latency_us);
        lithos_assert(r->latency_us);
    }
    r->latency_us[r->done++] = (double)took_ns / 1000;
    r->in_slo += !t->spec->slo_ns || took_ns <= t->spec->slo_ns;
}

void sim_tenant_done(struct sim *s, struct sim_tenant *t, const struct lithos_wave_event *e)
{
    const struct sim_flight f = *sim_flight(t, 0);
    const struct lithos_sim_program *p = t->program;
    struct lithos_sched_event told = {.kind = LITHOS_SCHED_DONE,
                                      .done = {.submit_ns = f.submit_ns,
                                               .start_ns = e->start_ns,
                                               .end_ns = e->end_ns,
                                               .predicted_ns = f.predicted_ns}};
    uint64_t delay_ns = s->sc->see_ns + sim_fault_stamp_delay_ns(s, t);

    if (s->options->check)
        check_done(s, t, &f, e);
    if (p->graph) {
        const uint64_t took_ns = e->end_ns - e->start_ns;
        t->graph_ns = !t->graph_ns            ? took_ns
                      : took_ns > t->graph_ns ? t->graph_ns + t->graph_ns / 128
                                              : t->graph_ns - t->graph_ns / 128;
    }
    sim_rightsize_done(s, t, &f, e);
    sim_power_done(s, t, &f, e);
    sim_mix(s, 200 + t->index, e->op, e->blocks);
    t->flight_first = (t->flight_first + 1) % SIM_FLIGHTS;
    t->flying--;
    t->outstanding_ns -= f.predicted_ns;
    t->head_ns = s->now_ns;
    if (e->end_ns >= s->sc->warm_ns && e->end_ns < s->sc->duration_ns && f.last)
        t->result.per_s += p->graph ? 1 : (double)1 / p->count;
    const bool lost = sim_fault_stamp_lost(s, t);
    if (lost) {
        told.kind = LITHOS_SCHED_LOST;
        delay_ns = SIM_MISSING_NS;
    }
    (void)sim_tell(s, lost ? SIM_MISSED : SIM_STAMPS, t, delay_ns, f.told_ns, &told);
    if (!t->flying && t->issuing && !t->first && t->kernel && (p->flags[t->kernel] & LITHOS_SIM_SYNC))
        t->app_ns = s->now_ns + gap_ns(s, t);
    if (f.last && (p->graph || f.kernel + 1 == p->count))
        round_done(s, t);
    pump_at(t, s->now_ns + delay_ns);
    if (inline_launches(t)) /* the app waits for the card itself, not for stamps */
        pump_at(t, s->now_ns);
}

/* --- birth and death --- */

void sim_tenant_start(struct sim *s, struct sim_tenant *t)
{
    t->alive = true;
    t->life++;
    t->stream = lithos_wave_stream_create(s->wave, t->domain, 0, t);
    t->pump_ns = LITHOS_MAX(t->spec->start_ns, s->now_ns);
    t->app_ns = t->pump_ns;
    t->arrival_ns = LITHOS_SIM_NEVER;
    if (t->spec->arrival != LITHOS_SIM_CLOSED) {
        t->arrival_ns = t->pump_ns;
        next_arrival(s, t);
    }
    t->grant = (struct lithos_tpcgrant){.own = t->own, .window_ns = s->config.window_ns};
    if (s->options->check)
        check_start(s, t);
}

void sim_tenant_stop(struct sim *s, struct sim_tenant *t)
{
    lithos_wave_stream_kill(s->wave, s->now_ns, t->stream);
    t->alive = false;
    t->stream = NULL;
    t->flying = 0;
    t->flight_first = 0;
    t->outstanding_ns = 0;
    t->pending_count = 0;
    t->issuing = false;
    t->rounds_done = t->round;
    t->arrival_ns = t->pump_ns = LITHOS_SIM_NEVER;
    t->graph_tpcs = (struct lithos_tpcset){{0, 0}};
    t->queue_told = false;
    t->check.busy_ns = LITHOS_SIM_NEVER;
    t->check.idle_ns = s->now_ns;
    t->check.returning = false;
}

bool sim_tenant_finished(const struct sim *s, const struct sim_tenant *t)
{
    if (!t->alive)
        return true;
    return !t->flying && !t->issuing && !t->pending_count &&
           (t->spec->arrival == LITHOS_SIM_CLOSED ? s->now_ns >= stop_ns(s, t)
                                                  : t->arrival_ns == LITHOS_SIM_NEVER);
}
