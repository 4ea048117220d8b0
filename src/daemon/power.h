/* Clocks, power and energy of the GPUs. lithosd itself never calls NVML: lithos-clocks does (src/clocks/main.c), a process
 * that gives back whatever clocks it has set when lithosd is gone, however it went. docs/power.md. */
#pragma once

#include <jansson.h>

#include "clocks/wire.h"
#include "core/energy.h"
#include "core/governor.h"
#include "core/timeline.h"
#include "daemon/loop.h"
#include "daemon/options.h"
#include "proto/arena.h"

struct lithosd;
struct lithosd_tenant;

struct lithosd_power_gpu {
    bool known; /* lithos-clocks has opened it */
    int error;  /* why not, or why its clocks cannot be set: negative errno */
    bool asked; /* a question is out */
    struct lithos_clocks_tell told;
    uint64_t clock_ns; /* told.mhz since */
    uint32_t set_mhz;  /* asked for; 0: nothing, or given back */
    struct lithos_governor *governor;
    struct lithos_governor_advice advice;
    struct lithos_energy energy;
};

/* Busy periods, which the governor goes by: from a launch that finds the tenant idle to the end of what it has launched. */
struct lithosd_power_period {
    uint64_t begin_ns, end_ns; /* 0: none is open */
    /* What its energy is divided by: waits for what it had launched, and until it is first seen to wait such periods. */
    uint64_t requests;
    bool waits;    /* it has been seen to */
    bool launched; /* something since the last one */
};

struct lithosd_power {
    enum lithosd_power_mode mode; /* in force */
    char why[256];                /* it is not what was asked for; "" */
    pid_t pid;                    /* of lithos-clocks; 0: none */
    unsigned starts;
    uint64_t started_ns, heard_ns;
    struct lithosd_watch link;
    struct lithosd_timer tick;
    char marker[PATH_MAX];
    struct lithosd_power_gpu gpu[LITHOS_MAX_GPUS];
    struct lithosd_power_period period[LITHOS_ENERGY_TENANTS_MAX];
};

/* The GPUs are known: begin, when asked for. Whatever fails is said and leaves it off. */
void lithosd_power_start(struct lithosd *d);
/* Let go of lithos-clocks, which then gives all clocks back. */
void lithosd_power_stop(struct lithosd *d);
/* A kernel has ended. */
void lithosd_power_kernel(struct lithosd_tenant *t, const struct lithos_kernel_event *k);
/* Its processes have launched something; one has waited. */
void lithosd_power_launched(struct lithosd_tenant *t);
void lithosd_power_waited(struct lithosd_tenant *t);
/* A tenant has come, or says otherwise of its slip, its SLO or its class. */
void lithosd_power_renew(struct lithosd_tenant *t);
/* The tenant is gone. */
void lithosd_power_forget(struct lithosd_tenant *t);

/* power_status.c: "power" and "energy" in docs/status.md */
json_t *lithosd_power_status(const struct lithosd *d);
json_t *lithosd_power_tenant_status(const struct lithosd_tenant *t);
const char *lithosd_power_mode_name(enum lithosd_power_mode mode);
