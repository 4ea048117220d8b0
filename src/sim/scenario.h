/* What is simulated: a card, tenants with programs and arrivals, and what goes wrong. From a JSON file, or drawn at
 * random from a seed. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/sched.h"
#include "model/card.h"
#include "model/wave.h"

#define LITHOS_SIM_TENANTS_MAX 16u
#define LITHOS_SIM_FAULTS_MAX 32u
#define LITHOS_SIM_NAME_BYTES 48u
#define LITHOS_SIM_ERROR_BYTES 256u
#define LITHOS_SIM_NEVER UINT64_MAX

enum lithos_sim_kernel_flag {
    LITHOS_SIM_CUTTABLE = 1u << 0,
    LITHOS_SIM_RESIDENT = 1u << 1, /* all blocks at once: cooperative */
    LITHOS_SIM_MEMORY = 1u << 2,   /* bound by memory, for policies that look at profiles */
    LITHOS_SIM_SYNC = 1u << 3,     /* the app waits for all before it */
};

/* The kernels of one request or iteration, in order. */
struct lithos_sim_program {
    uint32_t count;
    bool graph; /* one launch; masks stay as they were at the first */
    struct lithos_wave_kernel *kernels;
    uint32_t *flags;
    uint64_t *gaps_ns; /* of the app, before it issues each; NULL: the tenant's launch_ns */
    uint64_t alone_ns; /* sum of their times with the card to themselves, without gaps */
};

enum lithos_sim_arrival {
    LITHOS_SIM_CLOSED, /* the next begins think_ns after the last has ended */
    LITHOS_SIM_PERIODIC,
    LITHOS_SIM_POISSON,
    LITHOS_SIM_BURSTS, /* Poisson for on_ns, nothing for off_ns */
    LITHOS_SIM_ARRIVAL_MAX,
};

struct lithos_sim_tenant {
    char name[LITHOS_SIM_NAME_BYTES];
    enum lithos_sched_class class;
    uint32_t quota; /* hundredths of a percent; 0: none */
    uint32_t weight, floor_tpcs, slip_ppm;
    uint32_t rightsize_ppm; /* its kernels may take so much of their time on all its TPCs; 0: always all */
    uint64_t slo_ns;
    /* As launched, and, where the app is told of fewer multiprocessors than there are, as it would be without: alone. */
    struct lithos_sim_program program, full;
    enum lithos_sim_arrival arrival;
    uint64_t interval_ns; /* mean, between arrivals */
    uint64_t on_ns, off_ns, think_ns;
    uint64_t start_ns, stop_ns; /* arrivals from, to */
    uint64_t launch_ns;         /* of the app's CPU, a launch */
    /* The app's gaps take a part of their time between these, drawn anew each pace_ns; 0: they take it all. */
    uint32_t pace_from_ppm, pace_to_ppm;
    uint64_t pace_ns;
    uint32_t jitter_ppm; /* kernels take 1 +- that of their time */
    bool waits;          /* an iteration waits for the one before it; else the app runs ahead */
};

enum lithos_sim_fault_kind {
    LITHOS_SIM_DIES,         /* the tenant's process, at once */
    LITHOS_SIM_MISPREDICTS,  /* durations are predicted factor_ppm of what they are */
    LITHOS_SIM_STAMPS_LATE,  /* completions are seen delay_ns later */
    LITHOS_SIM_STAMPS_LOST,  /* one in `every` completions is never seen */
    LITHOS_SIM_DAEMON_STOPS, /* and comes back at the end, knowing nothing */
    LITHOS_SIM_DAEMON_SLOW,  /* records and grants take delay_ns longer */
    LITHOS_SIM_FAULT_MAX,
};

struct lithos_sim_fault {
    enum lithos_sim_fault_kind kind;
    uint32_t tenant; /* UINT32_MAX: all */
    uint64_t from_ns, to_ns;
    uint64_t delay_ns;
    uint32_t factor_ppm, every;
};

struct lithos_sim_scenario {
    char name[LITHOS_SIM_NAME_BYTES];
    struct lithos_card card;
    uint64_t duration_ns; /* arrivals stop; what was begun is finished within quiet_ns */
    uint64_t quiet_ns;
    uint64_t warm_ns; /* figures are taken from there on */
    uint64_t node_gap_ns, see_ns, submit_ns, wake_ns;
    bool bandwidth, recall;
    uint32_t tenant_count, fault_count;
    struct lithos_sim_tenant tenants[LITHOS_SIM_TENANTS_MAX];
    struct lithos_sim_fault faults[LITHOS_SIM_FAULTS_MAX];
    struct lithos_sched_config tuning; /* topology and policy are set by the run */
};

/* Defaults of a machine with an H200; card, tenants and duration are still to be set. */
void lithos_sim_scenario_init(struct lithos_sim_scenario *sc);
/* Frees programs. */
void lithos_sim_scenario_free(struct lithos_sim_scenario *sc);
/* A kernel that takes duration_ns on so many TPCs (0: all of the card) with nothing beside it: its grid, blocks an SM holds of it and needs to be busy. */
struct lithos_wave_kernel lithos_sim_kernel(const struct lithos_card *card, uint64_t duration_ns,
                                            uint32_t tpcs, uint32_t blocks, uint32_t residency,
                                            uint32_t saturation, uint32_t cluster_blocks);
/* Append a kernel to a program. 0 or -ENOMEM. */
int lithos_sim_program_add(struct lithos_sim_program *p, const struct lithos_wave_kernel *k,
                           uint64_t alone_ns, uint32_t flags);

/* Read a scenario's text. Traces named in it are looked for in dir, the card in card_dir (share/lithos/cards). 0; -EINVAL with what
 * is wrong in error; -ENOMEM; or the error of reading the card. sc is to be freed in any case. */
int lithos_sim_scenario_parse(const char *text, const char *dir, const char *card_dir,
                              struct lithos_sim_scenario *sc, char error[LITHOS_SIM_ERROR_BYTES]);
int lithos_sim_scenario_load(const char *path, const char *card_dir, struct lithos_sim_scenario *sc,
                             char error[LITHOS_SIM_ERROR_BYTES]);
/* Change a number of the tuning: "window_us=50". 0; -EINVAL with what is wrong in error. */
int lithos_sim_scenario_tune(struct lithos_sim_scenario *sc, const char *assignment,
                             char error[LITHOS_SIM_ERROR_BYTES]);
/* Of a recorded kernel whose function's name contains `part`: it wants so much of the card's memory bandwidth. A trace
 * does not say; without it a kernel scales by its waves alone. */
struct lithos_sim_memory {
    const char *part;
    uint32_t bandwidth_ppm;
};
#define LITHOS_SIM_MEMORIES_MAX 64u

/* The kernels of a recorded tenant (NULL: of all) of a trace, as they were issued: each with the app's gap before it, and
 * with a wait where the app waited. Durations are as recorded, on as many TPCs as it had then. tenants' streams become
 * one. At most `most` kernels. The first of the memories that fits a name counts; with them the card's bandwidth is
 * modelled, and durations are as recorded with it. 0; -EINVAL with the reason in error (no trace, damaged, no such tenant, no kernels);
 * -ENOMEM; or the error of reading it. */
int lithos_sim_program_from_trace(struct lithos_sim_program *p, const struct lithos_card *card,
                                  const char *path, const char *tenant, uint32_t most,
                                  const struct lithos_sim_memory *memories, size_t memory_count,
                                  char error[LITHOS_SIM_ERROR_BYTES]);
/* Tenants, programs, arrivals and faults drawn from a seed; card is taken as it is. */
void lithos_sim_scenario_random(struct lithos_sim_scenario *sc, const struct lithos_card *card,
                                uint64_t seed);
