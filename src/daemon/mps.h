/* NVIDIA MPS, under which tenants share a GPU in space: found or started, minded, stopped. Never waits: every command
 * to it is a child process with a time limit. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "daemon/child.h"
#include "daemon/events.h"
#include "daemon/state.h"

#define LITHOSD_MPS_SERVERS_MAX 16u

enum lithosd_mps_state {
    LITHOSD_MPS_OFF,      /* --mps=off */
    LITHOSD_MPS_STARTING, /* being looked for, started or restarted */
    LITHOSD_MPS_OURS,
    LITHOSD_MPS_EXISTING, /* somebody else's, which answers: used, never stopped */
    LITHOSD_MPS_MISSING,  /* no nvidia-cuda-mps-control on this machine */
    LITHOSD_MPS_FAILED,
    LITHOSD_MPS_STATE_MAX,
};

struct lithosd_mps_config {
    bool on;
    const char *off_why;              /* for people, when it is not on */
    char ours_dir[LITHOS_PATH_BYTES]; /* pipe folder of an MPS that we start; MPS needs it short */
    const char *probe;                /* lithos-probe, for the canary */
    bool other_uids;                  /* other users' tenants have to reach it */
    struct lithosd_events *events;
    /* Called when the state settles (out of STARTING), and after each restart with lost = true: contexts of all tenants
     * under it are gone. */
    void (*settled)(void *ctx, bool lost);
    /* Sum of what the tenants' processes have launched: to tell a busy GPU from a wedged server. */
    uint64_t (*progress)(void *ctx);
    void *ctx;
};

struct lithosd_mps {
    struct lithosd_mps_config config;
    struct lithosd_loop *loop;
    enum lithosd_mps_state state;
    bool ours;    /* it may be stopped and started anew */
    bool settled; /* told so once */
    bool busy;    /* tenants live: mind it more often */
    bool stopping;
    char pipe_dir[LITHOS_PATH_BYTES];
    char why[512];                /* why it cannot be used, what to do */
    pid_t control_pid;            /* 0: not known */
    unsigned server_count, asked; /* asked: whose status comes next */
    pid_t servers[LITHOSD_MPS_SERVERS_MAX];
    unsigned restarts;
    unsigned candidate; /* which folder is being looked at */
    unsigned strikes;   /* commands in a row that got no answer */
    unsigned polls;     /* of something that is to come true soon */
    unsigned crowd;     /* restarts in quick succession */
    uint64_t last_restart_ns, last_canary_ns, progress_before;
    struct lithosd_child command, canary;
    struct lithosd_timer timer, canary_timer;
    char env_pipe[LITHOS_PATH_BYTES + 32],
        env_log[LITHOS_PATH_BYTES + 32]; /* a child's environment points here */
    char adopted_dir[LITHOS_PATH_BYTES]; /* of the predecessor's MPS, or "" */
    void (*stopped)(void *ctx);
};

const char *lithosd_mps_state_name(enum lithosd_mps_state state);
/* Find or start it; config->settled tells the end of that (at once, from within, for --mps=off). saved: what a
 * predecessor left, or NULL. */
void lithosd_mps_start(struct lithosd_mps *mps, struct lithosd_loop *loop,
                       const struct lithosd_mps_config *config, const struct lithosd_saved_mps *saved);
/* Tenants can be sent to it now. */
bool lithosd_mps_usable(const struct lithosd_mps *mps);
/* Tell it whether tenants live. */
void lithosd_mps_set_busy(struct lithosd_mps *mps, bool busy);
/* A process that had launched work ended without warning: see whether the server still works. */
void lithosd_mps_suspect(struct lithosd_mps *mps);
/* Stop what we started (keep: leave it running for a successor), then call stopped(config.ctx), from the loop or at
 * once. */
void lithosd_mps_stop(struct lithosd_mps *mps, bool keep, void (*stopped)(void *ctx));
