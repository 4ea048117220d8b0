/* Many random scenarios, each with checkers on. */
#pragma once

#include "sim/sim.h"

struct lithos_sim_swarm {
    const struct lithos_card *card;
    const struct lithos_policy *policy; /* NULL: LithOS's own, and every eighth seed another one in turn */
    uint64_t first, count, step;        /* seeds first, first + step, ...: count of them */
    /* Not 0: owners are right-sized by it, in longer runs without faults, and none may be slower than that beside the
     * same run without (docs/simulator.md). */
    uint32_t slip_ppm;
    /* Told of each seed that failed; may be NULL. */
    void (*failed)(void *ctx, uint64_t seed, const struct lithos_policy *policy, const char *what);
    void *ctx;
};

struct lithos_sim_swarm_result {
    uint64_t seeds, failed, kernels, events, checks;
    uint64_t fired[LITHOS_CHECK_RULE_MAX]; /* seeds in which a rule was broken */
    uint64_t sized, slower;                /* tenants compared; of them over slip */
    double tpc_ns, whole_tpc_ns; /* of right-sized tenants, with and without, for as many requests */
    uint64_t hash;               /* of all their hashes: the same for the same seeds and code */
};

/* 0 or -ENOMEM. Seeds that fail are a result, not an error. */
int lithos_sim_swarm_run(const struct lithos_sim_swarm *swarm, struct lithos_sim_swarm_result *ret_result);
