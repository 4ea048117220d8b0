#include "sim/swarm.h"

#include <errno.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/util.h"
#include "sim/random.h"

#define OTHERS_EVERY 8u

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

int lithos_sim_swarm_run(const struct lithos_sim_swarm *swarm, struct lithos_sim_swarm_result *ret_result)
{
    struct lithos_sim_scenario *sc = malloc(sizeof *sc);
    struct lithos_sim_swarm_result sum = {0};
    struct lithos_sim_result r;
    char error[LITHOS_SIM_ERROR_BYTES];
    int e = sc ? 0 : -ENOMEM;

    for (uint64_t n = 0, seed = swarm->first; n < swarm->count && e == 0; n++, seed += swarm->step) {
        const struct lithos_sim_options options = {
            .policy = policy_of(swarm, seed), .seed = seed, .only = UINT32_MAX, .check = true};
        lithos_sim_scenario_random(sc, swarm->card, seed);
        e = lithos_sim_run(sc, &options, &r, error);
        lithos_sim_scenario_free(sc);
        if (e == 0) {
            add(swarm, seed, options.policy, &r, NULL, &sum);
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
