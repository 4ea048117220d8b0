/* The GPUs of this machine, as lithos-probe found them, and who holds which of their TPCs. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/alloc.h"
#include "proto/arena.h"

struct lithosd_gpu {
    unsigned index;
    uint8_t uuid[LITHOS_UUID_BYTES];
    char name[64];
    int cc[2];
    unsigned sm_count;
    char qmd[16];        /* layout, "V04_00"; "" when none is known */
    bool hook;           /* TPC masks can be had */
    char hook_why[256];  /* why not */
    bool stamps;         /* the probe saw completion stamps work */
    bool atoms;          /* and atoms */
    char atoms_why[256]; /* why not */
    unsigned exit_ps;    /* what a block that ends in the prelude costs; 0: not measured */
    char error[256];     /* why it cannot be used at all; "" when it can */
    bool drift_known;    /* of its clock against the host's: what the last tenant's clock map found */
    int64_t drift_ppb;
    bool measured;             /* the topology is the card's; else TPCs are only counted */
    struct lithos_alloc alloc; /* valid unless error */
};

struct lithosd_gpus {
    char driver[64];
    bool is_virtual;
    char error[512]; /* why there are none, and what to do; "" */
    unsigned count;
    struct lithosd_gpu gpu[LITHOS_MAX_GPUS];
};

/* What `lithos-probe --json` printed. 0; -EINVAL with the reason in why (nothing of it is then trusted). A GPU that
 * reports an error, or whose topology is not valid, is kept with its error. */
int lithosd_gpus_parse(const char *text, size_t len, struct lithosd_gpus *ret_gpus, char why[256]);
/* Index into gpu[], or -1. */
int lithosd_gpus_find(const struct lithosd_gpus *gpus, const uint8_t uuid[LITHOS_UUID_BYTES]);
unsigned lithosd_gpu_tpcs(const struct lithosd_gpu *gpu);
