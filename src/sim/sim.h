/* Runs a scenario in virtual time: the scheduler of the daemon over the card in waves. Same scenario, policy and seed:
 * the same events, to the byte, whose hash is part of the result. */
#pragma once

#include "core/policy.h"
#include "core/rightsize.h"
#include "sim/check.h"
#include "sim/scenario.h"

/* Placements of blocks, for a picture. */
struct lithos_sim_span {
    uint64_t from_ns, to_ns;
    struct lithos_tpcset tpcs;
    uint32_t tenant;
    uint32_t blocks;
};

/* Ways to break the simulated tenants, for tests of the checkers. */
enum lithos_sim_sabotage {
    LITHOS_SIM_SKIP_BLOCKS = 1u << 0,   /* an atom begins behind where the one before it ended */
    LITHOS_SIM_CHAIN_KERNELS = 1u << 1, /* a kernel does not wait for the one before it */
};

/* Who sets the card's clock. */
enum lithos_sim_governor {
    LITHOS_SIM_GOVERNOR_OFF, /* nobody: the highest */
    LITHOS_SIM_GOVERNOR_FORMULA,
    LITHOS_SIM_GOVERNOR_SLO,
};

struct lithos_sim_options {
    const struct lithos_policy *policy;
    uint64_t seed;
    uint32_t only; /* a tenant alone on the card; UINT32_MAX: all */
    bool check;
    enum lithos_sim_governor governor; /* ignored where the card's file says nothing of power */
    uint32_t governor_slip_ppm;        /* 0: the governor's default */
    bool whole;                        /* right-size nobody, whatever the scenario says */
    uint64_t span_from_ns, span_to_ns; /* placements are kept from there to there */
    /* Called with each tenant's choice before it is carried out, for tests that break it; may be NULL. */
    void (*meddle)(void *ctx, uint32_t tenant, struct lithos_tpcchoice *choice);
    void *meddle_ctx;
    uint32_t sabotage; /* enum lithos_sim_sabotage */
};

struct lithos_sim_tenant_result {
    uint64_t requests; /* arrived after the warm-up */
    uint64_t done;     /* of them */
    uint64_t in_slo;
    uint64_t kernels, launches, atoms, recalled;
    double tpc_ns; /* TPCs of its launches times their durations, after the warm-up */
    struct lithos_rightsize_stats rightsize; /* requests 0: it is not right-sized */
    double per_s; /* requests or iterations completed a second, parts of them counted */
    double mean_us, p50_us, p95_us, p99_us, p999_us, max_us;
    double *latency_us;                  /* sorted, `done` of them */
    uint64_t pick_ns[LITHOS_PICK_MAX];   /* time its queue waited, by reason */
    struct lithos_sched_explain explain; /* at the end */
};

struct lithos_sim_result {
    uint64_t hash;   /* of everything that happened, in order */
    uint64_t events; /* that went into it */
    uint64_t kernels, lasted_ns;
    uint64_t grants; /* handed out */
    /* From the end of the warm-up to the end of arrivals; 0 where nothing is known of the card's power. */
    double energy_j, mhz_mean, busy_mean;
    uint64_t clock_switches;
    struct lithos_sim_tenant_result tenants[LITHOS_SIM_TENANTS_MAX];
    struct lithos_check_report check;
    struct lithos_tpcset own[LITHOS_SIM_TENANTS_MAX];
    struct lithos_sim_span *spans;
    size_t span_count;
};

/* 0; -EINVAL: a scenario that does not fit the card (quotas over 100 %, a kernel that no SM takes), with the reason in
 * error; -ENOMEM. The result is freed with lithos_sim_result_free. */
int lithos_sim_run(const struct lithos_sim_scenario *sc, const struct lithos_sim_options *options,
                   struct lithos_sim_result *ret_result, char error[LITHOS_SIM_ERROR_BYTES]);
void lithos_sim_result_free(struct lithos_sim_result *r);
