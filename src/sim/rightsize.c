/* Right-sizing of simulated tenants, as the daemon has it: high-priority ones that say how much slower they may be. */
#include <stdlib.h>

#include "sim/sim_internal.h"

/* After TPCs have been taken back, an atom or two of others may still be there. */
#define FOREIGN_NS(s) (2 * (s)->config.atom_ns + (s)->config.lent_window_ns)

/* Kernels that are the same to the card are one operator. */
uint64_t sim_kernel_key(const struct lithos_wave_kernel *k)
{
    uint64_t h = lithos_random_mix(k->alone_ns);

    h = lithos_random_mix(h + ((uint64_t)k->blocks << 32 | k->residency));
    h = lithos_random_mix(h + ((uint64_t)k->share_ppm << 32 | k->bandwidth_ppm));
    return h + k->cluster_blocks;
}

int sim_rightsize_begin(struct sim *s, struct sim_tenant *t)
{
    struct lithos_rightsize_config c = {.topology = s->sc->card.topology};
    size_t bytes;

    if (!t->spec->rightsize_ppm || s->options->whole || t->spec->class != LITHOS_SCHED_HIGH ||
        t->program->graph)
        return 0;
    lithos_rightsize_config_defaults(&c);
    c.slip_ppm = t->spec->rightsize_ppm;
    c.operators = 4096;
    c.drain_ns = FOREIGN_NS(s);
    const int r = lithos_rightsize_size(&c, &bytes);
    if (r < 0)
        return r;
    t->rightsize_mem = malloc(bytes);
    return t->rightsize_mem ? lithos_rightsize_init(t->rightsize_mem, bytes, &c, &t->rightsize) : -ENOMEM;
}

/* Is anybody there to borrow? */
static bool has_borrower(const struct sim *s, const struct sim_tenant *owner)
{
    for (uint32_t i = 0; i < s->sc->tenant_count; i++) {
        const struct sim_tenant *t = &s->tenants[i];
        if (t != owner && t->alive && t->known && t->spec->class == LITHOS_SCHED_BEST_EFFORT)
            return true;
    }
    return false;
}

/* Tell the daemon which TPCs its launches keep off from now on. */
static void tell_strip(struct sim *s, struct sim_tenant *t)
{
    struct lithos_sched_event e = {.kind = LITHOS_SCHED_STRIP};

    e.strip.tpcs = lithos_rightsize_strip(t->rightsize, t->own, &e.strip.bears_ns);
    if (lithos_tpcset_equal(&e.strip.tpcs, &t->strip))
        return;
    t->strip = e.strip.tpcs;
    if (s->options->check)
        check_strip(s, t, t->strip);
    (void)sim_tell(s, SIM_RECORDS, t, s->sc->see_ns, 0, &e);
}

void sim_rightsize_request(struct sim *s, struct sim_tenant *t)
{
    lithos_rightsize_lend(t->rightsize, has_borrower(s, t));
    lithos_rightsize_request(t->rightsize, s->now_ns);
    tell_strip(s, t);
}

void sim_rightsize_request_done(struct sim *s, struct sim_tenant *t, uint64_t took_ns)
{
    const struct lithos_tpcset kept = lithos_rightsize_kept(t->rightsize, t->own);
    const bool seen = !lithos_tpcset_empty(&kept) && s->daemon_up && t->known;

    lithos_rightsize_beside(
        t->rightsize, s->now_ns,
        seen ? lithos_sched_beside_ns(s->sched, s->now_ns, t->slot, lithos_tpcset_minus(t->own, kept)) : 0);
    lithos_rightsize_request_done(t->rightsize, s->now_ns, took_ns, t->program->count);
}

void sim_rightsize_beside(struct sim *s, struct lithos_tpcset tpcs)
{
    for (uint32_t i = 0; i < s->sc->tenant_count; i++) {
        struct sim_tenant *t = &s->tenants[i];
        const struct lithos_tpcset there = lithos_tpcset_and(t->strip, tpcs);
        if (t->rightsize && !lithos_tpcset_empty(&there))
            lithos_rightsize_used(t->rightsize);
    }
}

/* What is lent now, and what was until lately: an atom there may not be over. */
static struct lithos_tpcset foreign(const struct sim *s, struct sim_tenant *t)
{
    const struct lithos_tpcset none = {{0, 0}};
    const struct lithos_tpcset lent =
        s->daemon_up && t->known ? lithos_sched_lent_away(s->sched, t->slot) : none;

    if (s->now_ns >= t->foreign_ns)
        t->foreign = none;
    if (!lithos_tpcset_empty(&lent)) {
        t->foreign = lithos_tpcset_or(t->foreign, lent);
        t->foreign_ns = s->now_ns + FOREIGN_NS(s);
    }
    return t->foreign;
}

void sim_rightsize_choose(struct sim *s, struct sim_tenant *t, struct lithos_tpcset *tpcs,
                          struct lithos_rightsize_ticket *ret_ticket)
{
    const struct lithos_wave_kernel *k = &t->program->kernels[t->kernel];
    struct lithos_rightsize_choice c;
    const struct lithos_rightsize_kernel kernel = {.key = sim_kernel_key(k),
                                                   .blocks = k->blocks,
                                                   .residency = k->residency,
                                                   .cluster_blocks = k->cluster_blocks};

    lithos_rightsize_choose(t->rightsize, &kernel, *tpcs, foreign(s, t), &c);
    tell_strip(s, t);
    *tpcs = c.tpcs;
    *ret_ticket = c.ticket;
}

/* A launch has ended: account for the TPCs that were kept for it. */
void sim_rightsize_done(struct sim *s, struct sim_tenant *t, const struct sim_flight *f,
                        const struct lithos_wave_event *e)
{
    const uint32_t width = lithos_tpcset_count(&f->tpcs);
    const uint64_t took_ns = e->end_ns - e->start_ns;

    if (e->end_ns >= s->sc->warm_ns && e->end_ns < s->sc->duration_ns)
        t->result.tpc_ns += (double)took_ns * width;
    for (uint32_t i = 0; i < s->sc->tenant_count; i++)
        if (&s->tenants[i] != t && s->tenants[i].rightsize)
            lithos_rightsize_took(s->tenants[i].rightsize, f->tpcs, took_ns);
    if (!t->rightsize)
        return;
    struct lithos_rightsize_ticket ticket = f->sized;
    ticket.beside |= e->start_ns < t->foreign_ns;
    lithos_rightsize_observe(t->rightsize, &ticket, took_ns, width);
    const struct lithos_rightsize_run run = {.key = sim_kernel_key(&t->program->kernels[f->kernel]),
                                             .ready_ns = f->submit_ns,
                                             .took_ns = took_ns,
                                             .tpcs = width,
                                             .all = lithos_tpcset_count(&t->own)};
    lithos_rightsize_ran(t->rightsize, &run);
}

void sim_rightsize_finish(struct sim_tenant *t)
{
    if (t->rightsize)
        t->result.rightsize = *lithos_rightsize_stats(t->rightsize);
    free(t->rightsize_mem);
}
