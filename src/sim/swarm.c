#include "sim/swarm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/util.h"
#include "sim/random.h"

#define OTHERS_EVERY 8u
/* Right-sizing: so many times the length, tenants of so many requests, and what two runs' p99 differ by for no reason. */
#define SIZED_LONGER 20u
#define SIZED_REQUESTS 200u
#define SIZED_NOISE 1.05
#define SIZED_NOISE_BESIDE 1.1

static const struct lithos_policy *policy_of(const struct lithos_sim_swarm *swarm, uint64_t seed)
{
    size_t count = 0;

    if (swarm->policy)
        return swarm->policy;
    while (lithos_policy_at(count))
        count++;
    lithos_assert(count > 0);
    return lithos_policy_at(seed % OTHERS_EVERY ? 0 : seed / OTHERS_EVERY % count);
}

static void add(const struct lithos_sim_swarm *swarm, uint64_t seed, const struct lithos_policy *policy,
                const struct lithos_sim_result *r, const char *error, struct lithos_sim_swarm_result *sum)
{
    bool failed = error != NULL;

    sum->seeds++;
    for (unsigned i = 0; r && i < LITHOS_CHECK_RULE_MAX; i++) {
        sum->fired[i] += r->check.fired[i] > 0;
        failed |= r->check.fired[i] > 0;
    }
    sum->failed += failed;
    if (failed && swarm->failed)
        swarm->failed(swarm->ctx, seed, policy, error ? error : r->check.first);
    if (!r)
        return;
    sum->kernels += r->kernels;
    sum->events += r->events;
    sum->checks += r->check.checks;
    /* a sum, so that it does not matter who ran which seed */
    sum->hash += lithos_random_mix(r->hash ^ seed * 0x9e3779b97f4a7c15ull);
}

/* Right-sizing learns from requests: more of them, and no faults, which are not its doing. Every other
 * time one of the owners is alone on its TPCs: beside others the 99th percentile of few requests is chance. Returns which one, or
 * UINT32_MAX: all are there. */
static uint32_t prepare_sized(struct lithos_sim_scenario *sc, uint32_t slip_ppm, bool alone)
{
    uint32_t one = UINT32_MAX;

    sc->duration_ns *= SIZED_LONGER;
    sc->fault_count = 0;
    for (uint32_t i = 0; i < sc->tenant_count; i++) {
        struct lithos_sim_tenant *t = &sc->tenants[i];
        const bool owner = t->class == LITHOS_SCHED_HIGH;
        t->stop_ns = LITHOS_SIM_NEVER;
        t->start_ns = 0;
        t->rightsize_ppm = owner && !t->program.graph ? slip_ppm : 0;
        one = alone && t->rightsize_ppm && one == UINT32_MAX ? i : one;
    }
    return one;
}

static bool slower(const struct lithos_sim_tenant_result *t, const struct lithos_sim_tenant_result *whole,
                   uint32_t slip_ppm, bool alone)
{
    const double may = SIZED_NOISE * slip_ppm / LITHOS_SCHED_PPM;
    return alone ? t->p50_us > may * whole->p50_us || t->p99_us > may * whole->p99_us
                 : t->p50_us > SIZED_NOISE_BESIDE * may * whole->p50_us;
}

/* The same again without right-sizing. Returns the error of the run; text: what was too slow, if anything was. */
static int compare_sized(const struct lithos_sim_scenario *sc, struct lithos_sim_options options,
                         const struct lithos_sim_result *r, struct lithos_sim_swarm_result *sum, char *text)
{
    char error[LITHOS_SIM_ERROR_BYTES];
    struct lithos_sim_result whole;

    options.whole = true;
    const int e = lithos_sim_run(sc, &options, &whole, error);
    for (uint32_t i = 0; i < sc->tenant_count && e == 0; i++) {
        const struct lithos_sim_tenant_result *t = &r->tenants[i], *w = &whole.tenants[i];
        const uint32_t slip_ppm = sc->tenants[i].rightsize_ppm;
        if (!slip_ppm || t->done < SIZED_REQUESTS || w->done < SIZED_REQUESTS)
            continue;
        sum->sized++;
        sum->tpc_ns += t->tpc_ns / (double)t->done;
        sum->whole_tpc_ns += w->tpc_ns / (double)w->done;
        if (!slower(t, w, slip_ppm, options.only == i))
            continue;
        sum->slower++;
        snprintf(text, LITHOS_SIM_ERROR_BYTES,
                 "%s: p50, p99 right-sized %.1f, %.1f us, without %.1f, %.1f us", sc->tenants[i].name,
                 t->p50_us, t->p99_us, w->p50_us, w->p99_us);
    }
    if (e == 0)
        lithos_sim_result_free(&whole);
    return e;
}

int lithos_sim_swarm_run(const struct lithos_sim_swarm *swarm, struct lithos_sim_swarm_result *ret_result)
{
    struct lithos_sim_scenario *sc = malloc(sizeof *sc);
    struct lithos_sim_swarm_result sum = {0};
    struct lithos_sim_result r;
    char error[LITHOS_SIM_ERROR_BYTES], late[LITHOS_SIM_ERROR_BYTES];
    int e = sc ? 0 : -ENOMEM;

    for (uint64_t n = 0, seed = swarm->first; n < swarm->count && e == 0; n++, seed += swarm->step) {
        struct lithos_sim_options options = {
            .policy = policy_of(swarm, seed), .seed = seed, .only = UINT32_MAX, .check = true};
        lithos_sim_scenario_random(sc, swarm->card, seed);
        if (swarm->slip_ppm)
            options.only = prepare_sized(sc, swarm->slip_ppm, seed % 2);
        options.check = options.only == UINT32_MAX; /* they take it that all tenants are there */
        late[0] = 0;
        e = lithos_sim_run(sc, &options, &r, error);
        if (e == 0 && swarm->slip_ppm)
            e = compare_sized(sc, options, &r, &sum, late);
        lithos_sim_scenario_free(sc);
        if (e == 0) {
            add(swarm, seed, options.policy, &r, late[0] ? late : NULL, &sum);
            lithos_sim_result_free(&r);
        } else if (e == -EINVAL) {
            add(swarm, seed, options.policy, NULL, error, &sum);
            e = 0;
        }
    }
    free(sc);
    if (e == 0)
        *ret_result = sum;
    return e;
}
