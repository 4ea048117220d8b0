#include "sim/report.h"

#include <inttypes.h>
#include <string.h>

#include "base/util.h"

static double percent(double part, double of)
{
    return of > 0 ? 100 * part / of : 0;
}

static const char *class_name(enum lithos_sched_class class)
{
    return class == LITHOS_SCHED_HIGH ? "high" : "best-effort";
}

/* What the launch queue waited for longest, apart from there being enough under way. */
static enum lithos_tpcpick waited_for(const struct lithos_sim_tenant_result *t)
{
    enum lithos_tpcpick most = LITHOS_PICK_RUN;

    for (unsigned i = 0; i < LITHOS_PICK_MAX; i++)
        if (i != LITHOS_PICK_RUN && i != LITHOS_PICK_WINDOW && t->pick_ns[i] > 0 &&
            (most == LITHOS_PICK_RUN || t->pick_ns[i] > t->pick_ns[most]))
            most = i;
    return most;
}

static void print_tenant(FILE *out, const struct lithos_sim_scenario *sc, uint32_t i,
                         const struct lithos_sim_tenant_result *t, const struct lithos_sim_alone *alone)
{
    const struct lithos_sim_tenant *spec = &sc->tenants[i];
    const enum lithos_tpcpick most = waited_for(t);

    fprintf(out, "  %-14.14s %-11s %5.1f%% %10.2f", spec->name, class_name(spec->class), spec->quota / 100.0,
            t->per_s);
    if (alone)
        fprintf(out, " %6.1f%%", percent(t->per_s, alone[i].per_s));
    fprintf(out, " %10.3f %10.3f", t->p50_us / 1000, t->p99_us / 1000);
    if (alone)
        fprintf(out, " %7.2fx", alone[i].p99_us > 0 ? t->p99_us / alone[i].p99_us : 0);
    if (spec->slo_ns)
        fprintf(out, " %6.2f%%", percent((double)t->in_slo, (double)t->requests));
    else
        fprintf(out, " %7s", "-");
    fprintf(out, " %9" PRIu64 " %8" PRIu64, t->kernels, t->atoms);
    if (most != LITHOS_PICK_RUN)
        fprintf(out, "  %s %.0f%%", lithos_tpcpick_name(most),
                percent((double)t->pick_ns[most], (double)sc->duration_ns));
    fputc('\n', out);
}

void lithos_sim_report_text(FILE *out, const struct lithos_sim_scenario *sc,
                            const struct lithos_policy *policy, const struct lithos_sim_result *r,
                            const struct lithos_sim_alone *alone)
{
    double sum = 0;

    fprintf(out, "%s, %s: %s\n", sc->name, policy->name, policy->what);
    fprintf(out, "  %-14s %-11s %6s %10s%s %10s %10s%s %7s %9s %8s  %s\n", "TENANT", "CLASS", "QUOTA",
            "PER S", alone ? "    KEPT" : "", "P50 MS", "P99 MS", alone ? "    ALONE" : "", "IN SLO",
            "KERNELS", "ATOMS", "WAITED FOR");
    for (uint32_t i = 0; i < sc->tenant_count; i++) {
        print_tenant(out, sc, i, &r->tenants[i], alone);
        sum += alone && alone[i].per_s > 0 ? r->tenants[i].per_s / alone[i].per_s : 0;
    }
    fprintf(out, "  ");
    if (alone)
        fprintf(out, "together %.2f, ", sum);
    fprintf(out, "%" PRIu64 " kernels, %" PRIu64 " grants, trace %016" PRIx64, r->kernels, r->grants,
            r->hash);
    if (r->check.checks)
        fprintf(out, ", %" PRIu64 " checks", r->check.checks);
    fputc('\n', out);
    for (unsigned i = 0; i < LITHOS_CHECK_RULE_MAX; i++)
        if (r->check.fired[i])
            fprintf(out, "  CHECK FAILED %s %" PRIu64 " times\n", lithos_check_rule_name(i),
                    r->check.fired[i]);
    if (r->check.first[0])
        fprintf(out, "  first: %s\n", r->check.first);
}

static json_t *explain_json(const struct lithos_sched_explain *e)
{
    json_t *why = json_object(), *pick = json_object();

    for (unsigned i = 0; i < LITHOS_WHY_MAX; i++)
        if (e->why_ns[i])
            json_object_set_new(why, lithos_sched_why_name(i), json_integer((json_int_t)e->why_ns[i]));
    for (unsigned i = 0; i < LITHOS_PICK_MAX; i++)
        if (e->pick_ns[i])
            json_object_set_new(pick, lithos_tpcpick_name(i), json_integer((json_int_t)e->pick_ns[i]));
    return json_pack("{s:s, s:o, s:o, s:I, s:I, s:i, s:i, s:I, s:I, s:I, s:I, s:i, s:i}", "why",
                     lithos_sched_why_name(e->why), "why_ns", why, "waits_ns", pick, "lent_tpc_ns",
                     (json_int_t)e->lent_tpc_ns, "lent_away_tpc_ns", (json_int_t)e->lent_away_tpc_ns,
                     "returns", (int)e->returns, "hits", (int)e->hits, "wait_ns", (json_int_t)e->wait_ns,
                     "slack_ns", (json_int_t)e->slack_ns, "need_ns", (json_int_t)e->need_ns, "request_ns",
                     (json_int_t)e->request_ns, "slower_ppm", (int)e->slower_ppm, "squeeze_ppm",
                     (int)e->squeeze_ppm);
}

static json_t *tenant_json(const struct lithos_sim_tenant *spec, const struct lithos_sim_tenant_result *t,
                           const struct lithos_sim_alone *alone)
{
    json_t *waits = json_object();
    for (unsigned i = 0; i < LITHOS_PICK_MAX; i++)
        if (t->pick_ns[i])
            json_object_set_new(waits, lithos_tpcpick_name(i), json_integer((json_int_t)t->pick_ns[i]));
    json_t *o = json_pack(
        "{s:s, s:s, s:f, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:I, s:I, s:I, s:o, s:o}", "name",
        spec->name, "class", class_name(spec->class), "quota_percent", spec->quota / 100.0, "requests",
        (json_int_t)t->requests, "done", (json_int_t)t->done, "per_s", t->per_s, "mean_us", t->mean_us,
        "p50_us", t->p50_us, "p95_us", t->p95_us, "p99_us", t->p99_us, "p999_us", t->p999_us, "max_us",
        t->max_us, "kernels", (json_int_t)t->kernels, "launches", (json_int_t)t->launches, "atoms",
        (json_int_t)t->atoms, "recalled", (json_int_t)t->recalled, "waits_ns", waits, "explain",
        explain_json(&t->explain));
    if (spec->slo_ns)
        json_object_set_new(o, "slo_percent", json_real(percent((double)t->in_slo, (double)t->requests)));
    if (alone) {
        json_object_set_new(o, "kept_percent", json_real(percent(t->per_s, alone->per_s)));
        json_object_set_new(o, "p99_over_alone",
                            json_real(alone->p99_us > 0 ? t->p99_us / alone->p99_us : 0));
        json_object_set_new(o, "alone",
                            json_pack("{s:f, s:f, s:f}", "per_s", alone->per_s, "p50_us", alone->p50_us,
                                      "p99_us", alone->p99_us));
    }
    return o;
}

json_t *lithos_sim_report_json(const struct lithos_sim_scenario *sc, const struct lithos_policy *policy,
                               uint64_t seed, const struct lithos_sim_result *r,
                               const struct lithos_sim_alone *alone)
{
    json_t *tenants = json_array(), *fired = json_object();
    char hash[17];

    for (uint32_t i = 0; i < sc->tenant_count; i++)
        json_array_append_new(tenants,
                              tenant_json(&sc->tenants[i], &r->tenants[i], alone ? &alone[i] : NULL));
    for (unsigned i = 0; i < LITHOS_CHECK_RULE_MAX; i++)
        if (r->check.fired[i])
            json_object_set_new(fired, lithos_check_rule_name(i),
                                json_integer((json_int_t)r->check.fired[i]));
    snprintf(hash, sizeof hash, "%016" PRIx64, r->hash);
    return json_pack("{s:s, s:s, s:s, s:I, s:f, s:s, s:I, s:I, s:I, s:{s:I, s:o, s:s}, s:o}", "scenario",
                     sc->name, "policy", policy->name, "card", sc->card.name, "seed", (json_int_t)seed,
                     "seconds", (double)sc->duration_ns / 1e9, "trace", hash, "events", (json_int_t)r->events,
                     "kernels", (json_int_t)r->kernels, "grants", (json_int_t)r->grants, "checks", "made",
                     (json_int_t)r->check.checks, "failed", fired, "first", r->check.first, "tenants",
                     tenants);
}
