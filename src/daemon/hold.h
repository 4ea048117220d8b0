/* CUDA graphs that borrow (`--graphs borrow`): they run on their tenant's part of it, by weight, whoever owns it, and wait at the stops that are in them while an owner is at work there
 * (docs/adr/0036-graphs-that-borrow.md). */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/tpcset.h"

struct lithosd;
struct lithosd_tenant;
struct lithosd_lend_gpu;
struct lithos_kernel_event;

/* A tenant's. */
struct lithosd_hold {
    bool on;           /* there are, or may be, graphs with stops in them */
    bool held;         /* they wait at the next one */
    uint64_t since_ns; /* for so long; or go on for so long */
    uint64_t held_ns;  /* all that they have waited, before */
    uint64_t times;
    struct lithos_tpcset place; /* where they run */
    uint32_t stops;             /* graphs that are made now have them so many kernels apart */
    uint64_t stops_ns;          /* as of then */
    uint64_t mercy_until_ns;    /* they go on until then, whoever is at work: they had waited for too long */
};

/* What its processes are to put into graphs that they make from now on. To be called when a process has come, and when anything has changed that speaks
 * for or against it. */
void lithosd_hold_renew(struct lithosd_tenant *t);
/* Tenants have come, gone or changed: so may where the graphs of others run. */
void lithosd_hold_places_renew(struct lithosd *d);
/* Something has happened on that GPU: who is to wait, and who may go on. */
void lithosd_hold_settle(struct lithosd *d, const struct lithosd_lend_gpu *g);
/* The tenant, or the daemon, is about to go: nobody would let them go on. */
void lithosd_hold_end(struct lithosd_tenant *t);
/* May it have waited at a stop while the kernel seems to have run? Then it is not known how long that took. */
bool lithosd_hold_spoils(const struct lithosd_tenant *t, const struct lithos_kernel_event *k);
/* "hold" of tenants[].graphs in docs/status.md. */
json_t *lithosd_hold_status(const struct lithosd_tenant *t);
