/* What a governor did to energy and latency, by the same run at the highest clock. */
#include <inttypes.h>

#include "sim/report.h"

static double more_percent(double part, double of)
{
    return of > 0 ? 100 * (part / of - 1) : 0;
}

/* What all tenants got done, as a part of what they get done at the highest clock: the mean over tenants. */
static double work_done(const struct lithos_sim_scenario *sc, const struct lithos_sim_result *r,
                        const struct lithos_sim_result *top)
{
    double sum = 0;
    uint32_t n = 0;

    for (uint32_t i = 0; i < sc->tenant_count; i++) {
        if (top->tenants[i].per_s > 0) {
            sum += r->tenants[i].per_s / top->tenants[i].per_s;
            n++;
        }
    }
    return n ? sum / n : 1;
}

void lithos_sim_report_power_text(FILE *out, const struct lithos_sim_scenario *sc,
                                  const struct lithos_sim_result *r, const struct lithos_sim_result *top)
{
    const double done = work_done(sc, r, top);

    fprintf(out,
            "  power: %.1f J (%.1f J at the highest clock): %+.1f %%, for the same work %+.1f %%; mean clock "
            "%.0f MHz, "
            "%" PRIu64 " switches\n",
            r->energy_j, top->energy_j, more_percent(r->energy_j, top->energy_j),
            more_percent(r->energy_j / done, top->energy_j), r->mhz_mean, r->clock_switches);
    for (uint32_t i = 0; i < sc->tenant_count; i++)
        fprintf(out, "    %-14.14s p50 %+.1f %%, p99 %+.1f %%, throughput %+.1f %%\n", sc->tenants[i].name,
                more_percent(r->tenants[i].p50_us, top->tenants[i].p50_us),
                more_percent(r->tenants[i].p99_us, top->tenants[i].p99_us),
                more_percent(r->tenants[i].per_s, top->tenants[i].per_s));
}

json_t *lithos_sim_report_power_json(const struct lithos_sim_scenario *sc, const struct lithos_sim_result *r,
                                     const struct lithos_sim_result *top)
{
    const double done = work_done(sc, r, top);
    json_t *tenants = json_array();

    for (uint32_t i = 0; i < sc->tenant_count; i++)
        json_array_append_new(
            tenants,
            json_pack("{s:s, s:f, s:f, s:f}", "name", sc->tenants[i].name, "p50_added_percent",
                      more_percent(r->tenants[i].p50_us, top->tenants[i].p50_us), "p99_added_percent",
                      more_percent(r->tenants[i].p99_us, top->tenants[i].p99_us), "throughput_lost_percent",
                      -more_percent(r->tenants[i].per_s, top->tenants[i].per_s)));
    return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:o}", "energy_j", r->energy_j, "top_energy_j",
                     top->energy_j, "energy_saved_percent", -more_percent(r->energy_j, top->energy_j),
                     "energy_saved_same_work_percent", -more_percent(r->energy_j / done, top->energy_j),
                     "mhz_mean", r->mhz_mean, "busy_mean", r->busy_mean, "clock_switches",
                     (json_int_t)r->clock_switches, "tenants", tenants);
}
