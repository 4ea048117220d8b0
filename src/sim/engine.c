/* The simulator's clock: the card, the daemon and the tenants, whoever is next. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/quantile.h"
#include "core/alloc.h"
#include "sim/sim_internal.h"

/* --- messages to the daemon --- */

uint64_t sim_tell(struct sim *s, enum sim_way way, struct sim_tenant *t, uint64_t delay_ns, uint64_t least_ns,
                  const struct lithos_sched_event *e)
{
    struct sim_ring *ring = &s->rings[way];

    if (ring->count == ring->room) {
        const size_t room = ring->room ? 2 * ring->room : 256;
        struct sim_message *messages = calloc(room, sizeof *messages);
        lithos_assert(messages);
        for (size_t i = 0; i < ring->count; i++)
            messages[i] = ring->messages[(ring->first + i) % ring->room];
        free(ring->messages);
        ring->messages = messages;
        ring->first = 0;
        ring->room = room;
    }
    uint64_t at_ns = LITHOS_MAX(s->now_ns + delay_ns + sim_fault_daemon_delay_ns(s), least_ns);
    if (ring->count) /* rings are read in order */
        at_ns = LITHOS_MAX(at_ns, ring->messages[(ring->first + ring->count - 1) % ring->room].at_ns);
    ring->messages[(ring->first + ring->count++) % ring->room] =
        (struct sim_message){at_ns, t->index, t->life, *e};
    s->daemon_ns = LITHOS_MIN(s->daemon_ns, at_ns);
    return at_ns;
}

/* The message that is due first, and its ring; NULL: no message. */
static struct sim_ring *first_ring(struct sim *s)
{
    struct sim_ring *first = NULL;

    for (unsigned way = 0; way < SIM_WAY_MAX; way++) {
        struct sim_ring *r = &s->rings[way];
        if (r->count && (!first || r->messages[r->first].at_ns < first->messages[first->first].at_ns))
            first = r;
    }
    return first;
}

/* What is due, in the order it was written. */
static bool next_message(struct sim *s, struct sim_message *ret)
{
    struct sim_ring *r = first_ring(s);

    if (!r || r->messages[r->first].at_ns > s->now_ns)
        return false;
    *ret = r->messages[r->first];
    r->first = (r->first + 1) % r->room;
    r->count--;
    return true;
}

static void hand_out(struct sim *s)
{
    const struct lithos_tpcgrant *g;
    uint32_t slot;

    while (lithos_sched_next(s->sched, &slot, &g)) {
        s->result->grants++;
        for (uint32_t i = 0; i < s->sc->tenant_count; i++) {
            struct sim_tenant *t = &s->tenants[i];
            if (t->known && t->slot == slot && t->alive)
                sim_tenant_granted(s, t, g);
        }
    }
    if (s->options->check)
        check_daemon(s);
}

static void daemon_step(struct sim *s)
{
    struct sim_message m;

    s->daemon_ns = LITHOS_SIM_NEVER;
    if (!s->daemon_up)
        return;
    s->lease_ns = s->now_ns;
    while (next_message(s, &m)) {
        const struct sim_tenant *t = &s->tenants[m.tenant];
        if (!t->known || t->life != m.life)
            continue;
        m.event.slot = t->slot;
        lithos_sched_event(s->sched, s->now_ns, &m.event);
    }
    lithos_sched_run(s->sched, s->now_ns);
    hand_out(s);
    s->daemon_ns = lithos_sched_timer_ns(s->sched);
    const struct sim_ring *r = first_ring(s);
    if (r)
        s->daemon_ns = LITHOS_MIN(s->daemon_ns, r->messages[r->first].at_ns);
    s->daemon_ns = LITHOS_MAX(s->daemon_ns, s->now_ns + 1);
}

void sim_tenant_admit(struct sim *s, struct sim_tenant *t)
{
    const struct lithos_sim_tenant *spec = t->spec;
    const struct lithos_sched_tenant desc = {.id = t->index + 1,
                                             .own = t->own,
                                             .class = spec->class,
                                             .weight = spec->weight,
                                             .floor_tpcs = spec->floor_tpcs,
                                             .slip_ppm = spec->slip_ppm,
                                             .slo_ns = spec->slo_ns};
    const int r = lithos_sched_add(s->sched, s->now_ns, &desc, &t->slot);
    lithos_assert(r == 0);
    t->known = true;
    t->strip = (struct lithos_tpcset){{0, 0}};
    s->daemon_ns = s->now_ns;
}

/* A daemon begins with what it finds: who lives, and what they have under way and waiting. */
void sim_daemon_start(struct sim *s)
{
    const int r = lithos_sched_init(s->sched_mem, s->sched_bytes, &s->config, &s->sched);
    lithos_assert(r == 0);
    s->daemon_up = true;
    s->lease_ns = s->now_ns;
    for (unsigned way = 0; way < SIM_WAY_MAX; way++)
        s->rings[way].count = 0;
    for (uint32_t i = 0; i < s->sc->tenant_count; i++) {
        struct sim_tenant *t = &s->tenants[i];
        if (!t->alive)
            continue;
        sim_tenant_admit(s, t);
        for (uint32_t n = 0; n < t->flying; n++) {
            const struct sim_flight *f = sim_flight(t, n);
            const struct lithos_sched_event e = {
                .kind = LITHOS_SCHED_LAUNCH,
                .slot = t->slot,
                .launch = {.submit_ns = f->submit_ns, .predicted_ns = f->predicted_ns, .tpcs = f->tpcs}};
            lithos_sched_event(s->sched, s->now_ns, &e);
        }
        if (t->queue_told) {
            const struct lithos_sched_event e = sim_queue_event(s, t, true);
            lithos_sched_event(s->sched, s->now_ns, &e);
        }
    }
    s->daemon_ns = s->now_ns;
}

void sim_daemon_stop(struct sim *s)
{
    s->daemon_up = false;
    s->daemon_ns = LITHOS_SIM_NEVER;
    for (uint32_t i = 0; i < s->sc->tenant_count; i++)
        s->tenants[i].known = false;
}

/* --- the loop --- */

static void card_step(struct sim *s)
{
    struct lithos_wave_event events[16];
    size_t n;

    do {
        n = lithos_wave_advance(s->wave, s->now_ns, events, LITHOS_ARRAY_SIZE(events));
        for (size_t i = 0; i < n; i++) {
            struct sim_tenant *t = events[i].user;
            if (events[i].kind == LITHOS_WAVE_HANG)
                check_fire(s, LITHOS_CHECK_HANG, t, "launch %lu", (unsigned long)events[i].op);
            else
                sim_tenant_done(s, t, &events[i]);
        }
    } while (n == LITHOS_ARRAY_SIZE(events));
}

/* Of everything but the card. */
static uint64_t next_ns(const struct sim *s)
{
    uint64_t next = s->daemon_ns;

    for (uint32_t i = 0; i < s->sc->tenant_count; i++)
        next = LITHOS_MIN(next, sim_tenant_next_ns(&s->tenants[i]));
    next = LITHOS_MIN(LITHOS_MIN(next, s->fault_ns), sim_power_next_ns(s));
    return s->options->check ? LITHOS_MIN(next, s->tick_ns) : next;
}

static bool all_finished(const struct sim *s)
{
    for (uint32_t i = 0; i < s->sc->tenant_count; i++)
        if (!sim_tenant_finished(s, &s->tenants[i]))
            return false;
    return true;
}

static void card_passes(void *ctx, uint64_t to_ns)
{
    struct sim *s = ctx;
    sim_power_until(s, to_ns);
    s->now_ns = LITHOS_MAX(to_ns, s->now_ns);
}

static void loop(struct sim *s)
{
    for (;;) {
        const uint64_t until = next_ns(s);
        uint64_t next;
        if (!lithos_wave_until(s->wave, LITHOS_MIN(until, s->end_ns), &next)) {
            if (until > s->end_ns)
                break;
            next = until;
        }
        card_passes(s, next);
        card_step(s);
        if (sim_power_next_ns(s) <= s->now_ns)
            sim_power_step(s);
        if (s->fault_ns <= s->now_ns)
            sim_faults(s);
        if (s->daemon_ns <= s->now_ns)
            daemon_step(s);
        for (uint32_t i = 0; i < s->sc->tenant_count; i++) {
            struct sim_tenant *t = &s->tenants[i];
            while (t->arrival_ns <= s->now_ns)
                sim_tenant_arrive(s, t);
            if (t->pump_ns <= s->now_ns)
                sim_tenant_pump(s, t);
        }
        if (s->options->check && s->tick_ns <= s->now_ns) {
            s->tick_ns += SIM_TICK_NS;
            check_tick(s);
        }
        if (s->now_ns >= s->sc->duration_ns && all_finished(s))
            break;
    }
}

/* --- beginning and end --- */

static int allot(struct sim *s, char *error)
{
    const uint32_t tpcs = lithos_tpcset_count(&s->sc->card.topology.valid);
    struct lithos_alloc alloc;
    int r = lithos_alloc_init(&alloc, &s->sc->card.topology);

    for (uint32_t i = 0; i < s->sc->tenant_count && r == 0; i++) {
        struct sim_tenant *t = &s->tenants[i];
        const uint32_t n = lithos_alloc_quota_tpcs(tpcs, t->spec->quota);
        if (n)
            r = lithos_alloc_place(&alloc, i + 1, n, &t->own);
        else if (t->spec->class == LITHOS_SCHED_HIGH)
            r = -EINVAL;
        if (r < 0)
            snprintf(error, LITHOS_SIM_ERROR_BYTES, "%s: %s", t->spec->name,
                     r == -EINVAL ? "a high-priority tenant needs a quota"
                                  : "the quotas are more than the card");
    }
    return r < 0 ? -EINVAL : 0;
}

static int check_programs(const struct sim *s, char *error)
{
    for (uint32_t i = 0; i < s->sc->tenant_count; i++) {
        const struct lithos_sim_tenant *spec = &s->sc->tenants[i];
        for (uint32_t k = 0; k < spec->program.count; k++) {
            const struct lithos_wave_kernel *w = &spec->program.kernels[k];
            if (w->cluster_blocks > s->sc->card.largest_cluster_blocks || w->blocks % w->cluster_blocks) {
                snprintf(error, LITHOS_SIM_ERROR_BYTES,
                         "%s: kernel %u has clusters that the card does not take", spec->name, k);
                return -EINVAL;
            }
        }
        if (spec->program.graph && spec->class == LITHOS_SCHED_BEST_EFFORT) {
            snprintf(error, LITHOS_SIM_ERROR_BYTES, "%s: graphs of best-effort tenants are not simulated",
                     spec->name);
            return -EINVAL;
        }
    }
    return 0;
}

static int begin(struct sim *s, char *error)
{
    const struct lithos_wave_config card = {
        .card = &s->sc->card,
        .node_gap_ns = s->sc->node_gap_ns,
        .bandwidth = s->sc->bandwidth,
        .observe = s->options->check || s->options->span_to_ns ? check_placing : NULL,
        .passes = card_passes,
        .ctx = s};
    const struct lithos_policy *policy = s->options->policy;

    s->config = s->sc->tuning;
    s->config.topology = s->sc->card.topology;
    s->config.policy = policy;
    s->config.tenants = LITHOS_SIM_TENANTS_MAX;
    s->config.reach_ns = s->sc->card.launch_ns + s->sc->card.complete_ns;
    int r = lithos_wave_create(&card, &s->wave);
    if (r == 0)
        r = lithos_sched_size(&s->config, &s->sched_bytes);
    if (r < 0) {
        snprintf(error, LITHOS_SIM_ERROR_BYTES, "the card or the tuning makes no sense");
        return r;
    }
    s->sched_mem = calloc(1, s->sched_bytes);
    s->tenants = calloc(s->sc->tenant_count, sizeof *s->tenants);
    if (!s->sched_mem || !s->tenants)
        return -ENOMEM;
    struct lithos_wave_domain *shared = lithos_wave_domain_create(s->wave, 0);
    for (uint32_t i = 0; i < s->sc->tenant_count; i++) {
        struct sim_tenant *t = &s->tenants[i];
        const bool be = s->sc->tenants[i].class == LITHOS_SCHED_BEST_EFFORT;
        t->spec = &s->sc->tenants[i];
        /* nobody is told of fewer where all have the whole card */
        const bool whole = s->options->only != UINT32_MAX || !(policy->needs & LITHOS_NEED_MASKS);
        t->program = whole && t->spec->full.count ? &t->spec->full : &t->spec->program;
        t->index = i;
        t->arrivals.state = lithos_random_mix(s->options->seed * 0xd1342543de82ef95ull + i + 1);
        t->random.state = lithos_random_mix(s->options->seed * 0x9e3779b97f4a7c15ull + i + 1);
        t->domain = shared;
        if (policy->needs & (LITHOS_NEED_TURNS | LITHOS_NEED_SHORT_TURNS))
            t->domain = lithos_wave_domain_create(s->wave, be ? policy->best_effort_slice_ns : 0);
        t->arrival_ns = t->pump_ns = LITHOS_SIM_NEVER;
        r = r ? r : sim_rightsize_begin(s, t);
    }
    r = r ? r : check_programs(s, error);
    r = r ? r : sim_power_begin(s);
    for (uint32_t i = 0; i < s->sc->tenant_count && r == 0; i++)
        sim_power_tenant(s, &s->tenants[i]);
    if (r == 0)
        r = allot(s, error);
    return r;
}

static void finish_tenant(struct sim *s, struct sim_tenant *t)
{
    struct lithos_sim_tenant_result *r = &t->result;
    const double seconds = (double)(s->sc->duration_ns - s->sc->warm_ns) / 1e9;
    double sum = 0;

    r->per_s /= seconds;
    lithos_sort_samples(r->latency_us, r->done);
    for (size_t i = 0; i < r->done; i++)
        sum += r->latency_us[i];
    r->mean_us = r->done ? sum / (double)r->done : 0;
    r->p50_us = lithos_quantile(r->latency_us, r->done, 0.5);
    r->p95_us = lithos_quantile(r->latency_us, r->done, 0.95);
    r->p99_us = lithos_quantile(r->latency_us, r->done, 0.99);
    r->p999_us = lithos_quantile(r->latency_us, r->done, 0.999);
    r->max_us = lithos_quantile(r->latency_us, r->done, 1);
    if (t->known)
        lithos_sched_explain(s->sched, s->now_ns, t->slot, &r->explain);
    sim_rightsize_finish(t);
    free(t->pending);
    s->result->tenants[t->index] = *r;
    s->result->own[t->index] = t->own;
}

int lithos_sim_run(const struct lithos_sim_scenario *sc, const struct lithos_sim_options *options,
                   struct lithos_sim_result *ret_result, char error[LITHOS_SIM_ERROR_BYTES])
{
    struct lithos_sim_result result = {.hash = options->seed};
    struct sim s = {.sc = sc, .options = options, .result = &result, .tick_ns = SIM_TICK_NS};

    int r = begin(&s, error);
    if (r == 0) {
        s.end_ns = sc->duration_ns + sc->quiet_ns;
        for (uint32_t i = 0; i < sc->tenant_count; i++)
            if (options->only == UINT32_MAX || options->only == i)
                sim_tenant_start(&s, &s.tenants[i]);
        s.fault_ns = sim_fault_next_ns(&s);
        sim_daemon_start(&s);
        loop(&s);
        sim_power_account(&s);
        if (options->check)
            check_end(&s);
    }
    for (uint32_t i = 0; i < sc->tenant_count && s.tenants; i++)
        finish_tenant(&s, &s.tenants[i]);
    result.lasted_ns = s.now_ns;
    result.check = s.check;
    lithos_wave_destroy(s.wave);
    free(s.tenants);
    free(s.sched_mem);
    free(s.power.mem);
    for (unsigned way = 0; way < SIM_WAY_MAX; way++)
        free(s.rings[way].messages);
    if (r == 0)
        *ret_result = result;
    else
        lithos_sim_result_free(&result);
    return r;
}

void lithos_sim_result_free(struct lithos_sim_result *r)
{
    for (uint32_t i = 0; i < LITHOS_SIM_TENANTS_MAX; i++) {
        free(r->tenants[i].latency_us);
        r->tenants[i].latency_us = NULL;
    }
    free(r->spans);
    r->spans = NULL;
}
