/* What right-sizing did, by the same run without it: not by what it thinks itself. */
#include <inttypes.h>

#include "sim/report.h"

struct sized {
    double saved_percent;     /* of the TPC time a request takes */
    double p99_percent;       /* longer than without */
    double per_s_percent;     /* of requests lost; negative: gained */
    double estimated_percent; /* saved, as right-sizing itself has it */
};

static double percent_less(double part, double of)
{
    return of > 0 ? 100 * (1 - part / of) : 0;
}

static struct sized sized_of(const struct lithos_sim_tenant_result *t,
                             const struct lithos_sim_tenant_result *whole)
{
    return (struct sized){
        .saved_percent = t->per_s > 0 && whole->per_s > 0
                             ? percent_less(t->tpc_ns / t->per_s, whole->tpc_ns / whole->per_s)
                             : 0,
        .p99_percent = -percent_less(t->p99_us, whole->p99_us),
        .per_s_percent = percent_less(t->per_s, whole->per_s),
        .estimated_percent = percent_less(t->rightsize.tpc_ns, t->rightsize.whole_tpc_ns),
    };
}

void lithos_sim_report_sized_text(FILE *out, const struct lithos_sim_scenario *sc,
                                  const struct lithos_sim_result *r, const struct lithos_sim_result *whole)
{
    for (uint32_t i = 0; i < sc->tenant_count; i++) {
        const struct lithos_sim_tenant_result *t = &r->tenants[i];
        const struct sized z = sized_of(t, &whole->tenants[i]);
        if (t->rightsize.requests)
            fprintf(out,
                    "  right-sized %.14s: slip %.2f: TPC time saved %.1f %%, p99 %+.1f %%, throughput lost "
                    "%.1f %%; "
                    "%" PRIu64 " tries, undone %" PRIu64 " times\n",
                    sc->tenants[i].name, sc->tenants[i].rightsize_ppm / 1e6, z.saved_percent, z.p99_percent,
                    z.per_s_percent, t->rightsize.chosen[LITHOS_RIGHTSIZE_PROBE], t->rightsize.undone);
        else if (sc->tenants[i].rightsize_ppm)
            fprintf(out, "  %.14s is not right-sized: its launches are a graph's\n", sc->tenants[i].name);
        else if (whole->tenants[i].per_s > 0)
            fprintf(out, "  beside it %.14s: throughput %+.1f %%\n", sc->tenants[i].name, -z.per_s_percent);
    }
}

json_t *lithos_sim_report_sized_json(const struct lithos_sim_scenario *sc, const struct lithos_sim_result *r,
                                     const struct lithos_sim_result *whole)
{
    json_t *all = json_array();

    for (uint32_t i = 0; i < sc->tenant_count; i++) {
        const struct lithos_sim_tenant_result *t = &r->tenants[i];
        const struct sized z = sized_of(t, &whole->tenants[i]);
        json_t *chosen = json_object();
        for (unsigned w = 0; w < LITHOS_RIGHTSIZE_WHY_MAX; w++)
            json_object_set_new(chosen, lithos_rightsize_why_name(w),
                                json_integer((json_int_t)t->rightsize.chosen[w]));
        json_array_append_new(
            all, json_pack("{s:s, s:b, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:I, s:o}", "name",
                           sc->tenants[i].name, "sized", t->rightsize.requests > 0, "slip",
                           sc->tenants[i].rightsize_ppm / 1e6, "tpc_time_saved_percent", z.saved_percent,
                           "tpc_time_saved_estimated_percent", z.estimated_percent, "p99_added_percent",
                           z.p99_percent, "throughput_lost_percent", z.per_s_percent, "whole_p99_us",
                           whole->tenants[i].p99_us, "whole_per_s", whole->tenants[i].per_s, "undone",
                           (json_int_t)t->rightsize.undone, "stopped", (json_int_t)t->rightsize.stopped,
                           "launches", chosen));
    }
    return all;
}
