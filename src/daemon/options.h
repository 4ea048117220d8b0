/* The command line of lithosd. */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/governor.h"
#include "proto/arena.h"

struct lithos_policy;

#define LITHOSD_UIDS_MAX 64u

enum lithosd_power_mode {
    LITHOSD_POWER_OFF,
    LITHOSD_POWER_ADVISE, /* say at which clock the card would save energy */
    LITHOSD_POWER_ON,     /* and set it */
    LITHOSD_POWER_MODE_MAX,
};

enum lithosd_spin {
    LITHOSD_SPIN_AUTO, /* where a processor can be spared */
    LITHOSD_SPIN_ON,
    LITHOSD_SPIN_OFF,
    LITHOSD_SPIN_MAX,
};

struct lithosd_options {
    char socket[108];                   /* sockaddr_un's room */
    char state_dir[PATH_MAX];           /* default: the socket's folder */
    char probe[PATH_MAX];               /* default: libexec/lithos/lithos-probe beside this program */
    const struct lithos_policy *policy; /* NULL: the first of core/policies.def */
    const char *log;                    /* file, or NULL for standard error */
    enum lithos_domain share;           /* PREEMPT: with that policy, and without MPS */
    uint32_t turn_us;                   /* PREEMPT: of class high; 0: the driver's */
    bool share_said, mps_said;          /* on the command line */
    bool background, mps, observe, allow_all;
    enum lithosd_spin spin; /* look without a pause while somebody borrows */
    bool rightsize;         /* tenants that say how slow they may be run on as few TPCs */
    enum lithosd_power_mode power;
    enum lithos_governor_mode power_law; /* what sets the clock with POWER_ON */
    uint64_t power_watch_ns;             /* between two decisions, at least */
    uint64_t power_pause_ns; /* a tenant with nothing outstanding for so long has ended a request */
    bool cards_are_ours;     /* nobody outside of LithOS uses them */
    unsigned uid_count;
    uid_t uids[LITHOSD_UIDS_MAX];
    uint64_t idle_exit_ns; /* 0: never */
};

/* 0; 1 when everything was said (--help, --version) and the program should end well; -EINVAL after a message. */
int lithosd_options_parse(int argc, char **argv, struct lithosd_options *ret_options);
