/* What goes wrong, and when. */
#include "sim/sim_internal.h"

static bool on(const struct sim *s, const struct lithos_sim_fault *f, uint64_t now_ns)
{
    (void)s;
    return f->from_ns <= now_ns && now_ns < f->to_ns;
}

static bool hits(const struct lithos_sim_fault *f, const struct sim_tenant *t)
{
    return f->tenant == UINT32_MAX || f->tenant == t->index;
}

uint64_t sim_fault_next_ns(const struct sim *s)
{
    uint64_t next = LITHOS_SIM_NEVER;

    for (uint32_t i = 0; i < s->sc->fault_count; i++) {
        const struct lithos_sim_fault *f = &s->sc->faults[i];
        if (f->from_ns > s->now_ns)
            next = LITHOS_MIN(next, f->from_ns);
        if (f->to_ns > s->now_ns)
            next = LITHOS_MIN(next, f->to_ns);
        if (f->kind == LITHOS_SIM_DIES && f->from_ns + SIM_DEATH_NS > s->now_ns)
            next = LITHOS_MIN(next, f->from_ns + SIM_DEATH_NS);
    }
    return next;
}

/* A process dies, some time later the daemon hears of it, and at the end of the fault it is started again. */
static void death(struct sim *s, const struct lithos_sim_fault *f, struct sim_tenant *t)
{
    if (f->from_ns == s->now_ns && t->alive)
        sim_tenant_stop(s, t);
    if (f->from_ns + SIM_DEATH_NS == s->now_ns && t->known) {
        lithos_sched_remove(s->sched, s->now_ns, t->slot);
        t->known = false;
        s->daemon_ns = s->now_ns;
    }
    if (f->to_ns == s->now_ns && !t->alive) {
        sim_tenant_start(s, t);
        if (s->daemon_up)
            sim_tenant_admit(s, t);
    }
}

void sim_faults(struct sim *s)
{
    for (uint32_t i = 0; i < s->sc->fault_count; i++) {
        const struct lithos_sim_fault *f = &s->sc->faults[i];
        if (f->kind == LITHOS_SIM_DAEMON_STOPS && f->from_ns == s->now_ns && s->daemon_up)
            sim_daemon_stop(s);
        if (f->kind == LITHOS_SIM_DAEMON_STOPS && f->to_ns == s->now_ns && !s->daemon_up)
            sim_daemon_start(s);
        for (uint32_t n = 0; n < s->sc->tenant_count && f->kind == LITHOS_SIM_DIES; n++)
            if (hits(f, &s->tenants[n]) && s->options->only == UINT32_MAX)
                death(s, f, &s->tenants[n]);
    }
    s->fault_ns = sim_fault_next_ns(s);
}

uint32_t sim_fault_factor_ppm(const struct sim *s, const struct sim_tenant *t)
{
    for (uint32_t i = 0; i < s->sc->fault_count; i++) {
        const struct lithos_sim_fault *f = &s->sc->faults[i];
        if (f->kind == LITHOS_SIM_MISPREDICTS && on(s, f, s->now_ns) && hits(f, t))
            return f->factor_ppm;
    }
    return LITHOS_SCHED_PPM;
}

uint64_t sim_fault_stamp_delay_ns(const struct sim *s, const struct sim_tenant *t)
{
    uint64_t delay_ns = 0;

    for (uint32_t i = 0; i < s->sc->fault_count; i++) {
        const struct lithos_sim_fault *f = &s->sc->faults[i];
        if (f->kind == LITHOS_SIM_STAMPS_LATE && on(s, f, s->now_ns) && hits(f, t))
            delay_ns += f->delay_ns;
    }
    return delay_ns;
}

bool sim_fault_stamp_lost(struct sim *s, const struct sim_tenant *t)
{
    for (uint32_t i = 0; i < s->sc->fault_count; i++) {
        const struct lithos_sim_fault *f = &s->sc->faults[i];
        if (f->kind == LITHOS_SIM_STAMPS_LOST && on(s, f, s->now_ns) && hits(f, t) &&
            ++s->stamp_count % f->every == 0)
            return true;
    }
    return false;
}

uint64_t sim_fault_daemon_delay_ns(const struct sim *s)
{
    uint64_t delay_ns = 0;

    for (uint32_t i = 0; i < s->sc->fault_count; i++) {
        const struct lithos_sim_fault *f = &s->sc->faults[i];
        if (f->kind == LITHOS_SIM_DAEMON_SLOW && on(s, f, s->now_ns))
            delay_ns += f->delay_ns;
    }
    return delay_ns;
}
