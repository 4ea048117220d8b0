/* Power and clocks in the simulator: energy by the card's model, and the governor that daemons run. */
#include <stdlib.h>

#include "sim/sim_internal.h"

int sim_power_begin(struct sim *s)
{
    const struct lithos_power_card *p = &s->sc->card.power;
    struct lithos_governor_config c;
    size_t bytes;

    s->power.mhz = s->power.asked_mhz = p->max_mhz;
    s->power.next_ns = s->power.switch_ns = LITHOS_SIM_NEVER;
    if (!s->options->governor || !p->max_mhz)
        return 0;
    lithos_governor_config_defaults(&c, p->min_mhz, p->max_mhz, p->step_mhz);
    c.mode = s->options->governor == LITHOS_SIM_GOVERNOR_SLO ? LITHOS_GOVERNOR_SLO : LITHOS_GOVERNOR_FORMULA;
    c.switch_ns = p->switch_us * LITHOS_NSEC_PER_USEC;
    c.slip_ppm = s->options->governor_slip_ppm ? s->options->governor_slip_ppm : c.slip_ppm;
    const int r = lithos_governor_size(&c, &bytes);
    if (r < 0)
        return r;
    s->power.mem = malloc(bytes);
    if (!s->power.mem)
        return -ENOMEM;
    s->power.next_ns = c.watch_ns;
    s->power.watch_ns = c.watch_ns;
    return lithos_governor_init(s->power.mem, bytes, &c, &s->power.governor);
}

void sim_power_tenant(struct sim *s, const struct sim_tenant *t)
{
    const struct lithos_governor_tenant is = {.high = t->spec->class == LITHOS_SCHED_HIGH,
                                              .slo_ns = t->spec->slo_ns};

    if (s->power.governor) {
        const int r = lithos_governor_tenant(s->power.governor, t->index, &is);
        lithos_assert(r == 0);
    }
}

/* Nothing changes until then. */
void sim_power_until(struct sim *s, uint64_t to_ns)
{
    const uint64_t from_ns = LITHOS_MAX(s->now_ns, s->sc->warm_ns),
                   until_ns = LITHOS_MIN(to_ns, s->sc->duration_ns);

    if (!s->sc->card.power.max_mhz || until_ns <= from_ns)
        return;
    const struct lithos_power_load load = lithos_wave_load(s->wave);
    const uint64_t ns = until_ns - from_ns;
    s->power.stretch_ns += ns;
    s->power.busy += (double)load.busy_ppm * (double)ns;
    s->power.traffic += (double)load.traffic_ppm * (double)ns;
}

/* At one clock watts grow in proportion to what the card does: its mean over the stretch is enough. */
void sim_power_account(struct sim *s)
{
    const double ns = (double)s->power.stretch_ns, part = ns / (double)(s->sc->duration_ns - s->sc->warm_ns);

    if (!s->power.stretch_ns)
        return;
    const struct lithos_power_load load = {.busy_ppm = (uint32_t)(s->power.busy / ns + 0.5),
                                           .traffic_ppm = (uint32_t)(s->power.traffic / ns + 0.5)};
    s->result->energy_j += lithos_power_mw(&s->sc->card.power, s->power.mhz, &load) * ns / 1e12;
    s->result->mhz_mean += s->power.mhz * part;
    s->result->busy_mean += s->power.busy / ns / 1e6 * part;
    s->power.stretch_ns = 0;
    s->power.busy = s->power.traffic = 0;
}

uint64_t sim_power_next_ns(const struct sim *s)
{
    return LITHOS_MIN(s->power.next_ns, s->power.switch_ns);
}

void sim_power_step(struct sim *s)
{
    const struct lithos_power_card *p = &s->sc->card.power;

    if (s->power.switch_ns <= s->now_ns) {
        sim_power_account(s);
        s->power.switch_ns = LITHOS_SIM_NEVER;
        s->power.mhz = s->power.asked_mhz;
        s->power.since_ns = s->now_ns;
        lithos_wave_set_clock(s->wave, s->now_ns,
                              (uint32_t)((uint64_t)s->power.mhz * LITHOS_WAVE_PPM / p->max_mhz));
    }
    if (s->power.next_ns > s->now_ns)
        return;
    s->power.next_ns = s->now_ns + s->power.watch_ns / 5;
    const struct lithos_governor_advice a = lithos_governor_step(s->power.governor, s->now_ns);
    if (a.mhz == s->power.asked_mhz)
        return;
    s->power.asked_mhz = a.mhz;
    s->power.switch_ns = s->now_ns + p->switch_us * LITHOS_NSEC_PER_USEC;
    s->result->clock_switches++;
}

void sim_power_done(struct sim *s, const struct sim_tenant *t, const struct sim_flight *f,
                    const struct lithos_wave_event *e)
{
    const struct lithos_wave_kernel *k = &t->program->kernels[f->kernel];
    const uint64_t key = lithos_random_mix(sim_kernel_key(k) + f->blocks) + lithos_tpcset_count(&f->tpcs);
    /* what ran while the clock changed says nothing of either */
    const bool steady = s->power.since_ns <= e->start_ns;

    if (s->power.governor)
        lithos_governor_kernel(s->power.governor, t->index, key, e->end_ns - e->start_ns,
                               steady ? s->power.mhz : 0);
}

void sim_power_request(struct sim *s, const struct sim_tenant *t, uint64_t latency_ns)
{
    if (s->power.governor)
        lithos_governor_request(s->power.governor, t->index, latency_ns);
}
