/* "observed" of a tenant in the status document. */
#include <stdlib.h>
#include <string.h>

#include "daemon/daemon.h"

#define OPERATORS_SHOWN 10u

static double us(uint64_t ns)
{
    return (double)ns / 1e3;
}

static json_t *number(uint64_t v)
{
    return json_integer((json_int_t)(v & INT64_MAX));
}

static json_t *lost_status(const struct lithosd_tenant *t)
{
    const struct lithos_timeline_stats *s = lithos_timeline_stats(t->observed->timeline);
    uint64_t counters[LITHOS_COUNTER_MAX];
    json_t *o = json_object();
    lithosd_tenant_counters(t, counters);
    json_object_set_new(o, "record_ring", number(counters[LITHOS_COUNTER_RECORDS_DROPPED]));
    json_object_set_new(o, "overrun", number(t->observed->overrun));
    json_object_set_new(o, "damaged", number(t->observed->damaged));
    for (int i = 0; i < LITHOS_LOST_MAX; i++)
        json_object_set_new(o, lithos_timeline_lost_name((enum lithos_timeline_lost)i), number(s->lost[i]));
    return o;
}

uint64_t lithosd_clock_bound_ns(const struct lithosd_tenant *t, uint32_t i)
{
    const struct lithos_clockmap *m = lithos_timeline_clock(t->observed->timeline, i);
    uint64_t bound_ns = lithos_clockmap_bound_ns(m), now_ns = lithos_now_ns();
    for (unsigned n = 0; n < LITHOSD_TENANT_MAX; n++) {
        const struct lithosd_tenant *other = &t->daemon->tenants[n];
        for (uint32_t o = 0; other != t && other->used && other->observed && o < other->grant.gpu_count; o++)
            if (other->gpu[o] == t->gpu[i])
                bound_ns =
                    LITHOS_MIN(bound_ns, lithos_clockmap_bound_beside_ns(
                                             m, lithos_timeline_clock(other->observed->timeline, o), now_ns));
    }
    return bound_ns;
}

static json_t *clock_status(const struct lithosd_tenant *t)
{
    json_t *o = json_object();
    uint64_t bound_ns = 0;
    int64_t drift_ppb = 0;
    bool known = false;
    for (uint32_t g = 0; g < t->grant.gpu_count; g++) {
        const struct lithos_clockmap *m = lithos_timeline_clock(t->observed->timeline, g);
        uint64_t bound = lithosd_clock_bound_ns(t, g);
        if (bound == UINT64_MAX)
            continue;
        known = true;
        bound_ns = LITHOS_MAX(bound_ns, bound);
        drift_ppb = lithos_clockmap_drift_ppb(m);
    }
    json_object_set_new(o, "offset_bound_us", known ? json_real(us(bound_ns)) : json_null());
    json_object_set_new(o, "drift_ppm", known ? json_real((double)drift_ppb / 1e3) : json_null());
    json_object_set_new(o, "jumps", number(lithos_timeline_stats(t->observed->timeline)->clock_jumps));
    return o;
}

static void add_score(struct lithos_predict_score *sum, const struct lithos_predict_score *score)
{
    sum->launches += score->launches;
    sum->silent += score->silent;
    sum->off += score->off;
}

static json_t *score_status(const struct lithos_predict_score *score)
{
    return json_pack("{s:o,s:o,s:o}", "launches", number(score->launches), "silent", number(score->silent),
                     "mispredicted", number(score->off));
}

/* Sums over the predictors of all its GPUs. */
static void sum_predictions(const struct lithosd_observed *observed, struct lithos_predict_stats *sum)
{
    for (unsigned g = 0; g < LITHOS_MAX_GPUS; g++) {
        if (!observed->predictor[g])
            continue;
        const struct lithos_predict_stats *s = lithos_predictor_stats(observed->predictor[g]);
        add_score(&sum->chosen, &s->chosen);
        for (unsigned m = 0; m < LITHOS_PREDICT_METHOD_MAX; m++)
            add_score(&sum->method[m], &s->method[m]);
        for (unsigned i = 0; i < LITHOS_PREDICT_SOURCE_MAX; i++) {
            sum->source[i] += s->source[i];
            sum->source_off[i] += s->source_off[i];
        }
        for (unsigned i = 0; i < LITHOS_PREDICT_ERROR_SLOTS; i++)
            sum->error[i] += s->error[i];
    }
}

static json_t *prediction_status(const struct lithosd_observed *observed)
{
    /* a method is called as the answers that come from its own medians are */
    _Static_assert(LITHOS_PREDICT_PATH - LITHOS_PREDICT_ORDINAL == LITHOS_PREDICT_BY_PATH,
                   "one each, in order");
    struct lithos_predict_stats sum = {0};
    sum_predictions(observed, &sum);
    json_t *o = score_status(&sum.chosen), *methods = json_object(), *sources = json_object();
    double launches = (double)sum.chosen.launches;
    json_object_set_new(o, "mispredicted_percent",
                        json_real(launches > 0 ? 100 * (double)sum.chosen.off / launches : 0));
    json_object_set_new(o, "p99_error_us", json_real(us(lithos_predict_error_quantile_ns(sum.error, 0.99))));
    for (unsigned m = 0; m < LITHOS_PREDICT_METHOD_MAX; m++)
        json_object_set_new(
            methods, lithos_predict_source_name((enum lithos_predict_source)(LITHOS_PREDICT_ORDINAL + m)),
            score_status(&sum.method[m]));
    for (unsigned i = 0; i < LITHOS_PREDICT_SOURCE_MAX; i++)
        json_object_set_new(sources, lithos_predict_source_name((enum lithos_predict_source)i),
                            json_pack("{s:o,s:o}", "launches", number(sum.source[i]), "mispredicted",
                                      number(sum.source_off[i])));
    json_object_set_new(o, "methods", methods);
    json_object_set_new(o, "sources", sources);
    return o;
}

static int longer(const void *a, const void *b)
{
    const struct lithos_timeline_operator *x = *(const struct lithos_timeline_operator *const *)a,
                                          *y = *(const struct lithos_timeline_operator *const *)b;
    return (x->total_ns < y->total_ns) - (x->total_ns > y->total_ns);
}

/* The kernels that took most time. */
static json_t *operators_status(const struct lithosd_observed *observed)
{
    json_t *array = json_array();
    const struct lithos_timeline_operator *op, *all[256] = {NULL};
    size_t n = 0;
    while (n < LITHOS_ARRAY_SIZE(all) && (op = lithos_timeline_operator(observed->timeline, (uint32_t)n)))
        all[n++] = op;
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): pointers are what is sorted */
    qsort(all, n, sizeof all[0], longer);
    for (size_t i = 0; i < n && i < OPERATORS_SHOWN; i++) {
        const char *name = lithosd_names_text(&observed->names, all[i]->function);
        json_array_append_new(
            array, json_pack("{s:s,s:o,s:f,s:f,s:f,s:f}", "name", name ? name : "(unknown)", "kernels",
                             number(all[i]->kernels), "seconds", (double)all[i]->total_ns / 1e9, "tpc_time_s",
                             (double)all[i]->tpc_ns / 1e9, "p50_us",
                             us(lithos_timeline_operator_quantile_ns(all[i], 0.5)), "p99_us",
                             us(lithos_timeline_operator_quantile_ns(all[i], 0.99))));
    }
    return array;
}

static json_t *records_status(const struct lithosd_observed *observed)
{
    static const char *const names[LITHOS_RECORD_KIND_MAX] = {
        [LITHOS_RECORD_LAUNCH] = "launch",
        [LITHOS_RECORD_DRIVER] = "driver",
        [LITHOS_RECORD_GRAPH_NODE] = "graph_node",
        [LITHOS_RECORD_GRAPH_LAUNCH] = "graph_launch",
        [LITHOS_RECORD_SYNC] = "sync",
        [LITHOS_RECORD_NAME] = "name",
    };
    json_t *o = json_object();
    for (unsigned i = 0; i < LITHOS_RECORD_KIND_MAX; i++)
        if (names[i])
            json_object_set_new(o, names[i], number(observed->records[i]));
    return o;
}

json_t *lithosd_observe_status(const struct lithosd_tenant *t)
{
    const struct lithosd_observed *observed = t->observed;
    if (!observed)
        return json_null();
    const struct lithos_timeline *tl = observed->timeline;
    const struct lithos_timeline_stats *s = lithos_timeline_stats(tl);
    struct lithos_timeline_rates rates = lithos_timeline_rates(tl, lithos_now_ns());
    json_t *o = json_object();
    json_object_set_new(o, "stamps", json_boolean(observed->flags & LITHOS_OBSERVE_STAMPS));
    json_object_set_new(o, "records", records_status(observed));
    json_object_set_new(o, "launches", number(s->launches));
    json_object_set_new(o, "kernels", number(s->kernels));
    json_object_set_new(o, "queue", number(s->outstanding));
    json_object_set_new(o, "lost", lost_status(t));
    json_object_set_new(o, "kernels_per_s", json_real(rates.launches_per_s));
    json_object_set_new(o, "tpc_time_s", json_real((double)s->tpc_ns / 1e9));
    json_object_set_new(o, "busy_tpcs", json_real(rates.busy_tpcs));
    json_object_set_new(o, "p50_us", json_real(us(lithos_timeline_quantile_ns(tl, 0.5))));
    json_object_set_new(o, "p99_us", json_real(us(lithos_timeline_quantile_ns(tl, 0.99))));
    json_object_set_new(o, "overlapped", number(s->overlapped));
    json_object_set_new(o, "clamped", number(s->clamped));
    json_object_set_new(o, "cut", number(s->cut));
    json_object_set_new(o, "atoms", number(s->atoms));
    json_object_set_new(o, "clock", clock_status(t));
    json_object_set_new(o, "prediction", prediction_status(observed));
    json_object_set_new(o, "operators", operators_status(observed));
    return o;
}
