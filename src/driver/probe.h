/* What a machine's GPUs are: driver, queue descriptors, which mask bits name a TPC. Run by lithos-probe, a program of
 * its own that may be killed: a card that hangs it hangs nothing else. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "hw/topology.h"

#define LITHOS_PROBE_MAX_GPUS 16
#define LITHOS_PROBE_TEXT 512

struct lithos_probe_gpu {
    int index;  /* CUDA ordinal in this process */
    int device; /* CUdevice */
    uint8_t uuid[16];
    char uuid_text[41]; /* "GPU-..." */
    char name[128];
    int cc_major, cc_minor;
    int sm_count;
    char qmd[16]; /* layout of its queue descriptors, "" when none was seen or it is not known */
    bool hook;    /* launches can be masked */
    char why[LITHOS_PROBE_TEXT]; /* when not: why, and what to do */
    bool have_topology;
    struct lithos_topology topology;
    bool have_stamps;                   /* whether the next two were found out */
    bool stamps;                        /* completion stamps work: they come, with what they should say */
    char stamps_why[LITHOS_PROBE_TEXT]; /* when not: why */
    bool have_atoms;                    /* whether the next three were found out */
    bool atoms;                         /* kernels run in parts, each block once */
    char atoms_why[LITHOS_PROBE_TEXT];  /* when not: why */
    uint32_t exit_ps;     /* what a block that ends in the prelude costs, in the whole GPU; 0: not measured */
    uint32_t atoms_tries; /* tests that were begun and never ended */
    bool cached;          /* the topology comes from the cache */
    char error[LITHOS_PROBE_TEXT]; /* "" or what went wrong with this GPU */
};

struct lithos_probe {
    char driver[64]; /* version; "virtual-13000" for the virtual GPU */
    bool is_virtual;
    char error[LITHOS_PROBE_TEXT]; /* "" or what went wrong with all */
    bool table_ok;                 /* the QMD callback is in place */
    char table_why[LITHOS_PROBE_TEXT];
    int gpu_count;
    struct lithos_probe_gpu gpus[LITHOS_PROBE_MAX_GPUS];
};

/* Open the driver, list the GPUs. 0, or negative errno with p->error set (-ENODEV: no driver or no GPU). */
int lithos_probe_open(struct lithos_probe *p);
/* Find the TPCs of one GPU by running a kernel some 130 times (about 30 ms), each time with all mask bits on but one, so
 * that no mask is ever empty. Works beside other processes under MPS; when they disturb it too much, the error says to
 * try again. Fills in qmd, hook, why, topology, error. 0, or negative errno with error set (-EBUSY: try again). */
int lithos_probe_topology(struct lithos_probe *p, struct lithos_probe_gpu *gpu);
/* Have a few small kernels stamp memory that is shared as the arena is, and look at what comes. The answer stands in stamps
 * and stamps_why; 0, or negative errno with error set when it cannot be asked at all. To be asked last: where stamps do not
 * work, this may cost the process its context. */
int lithos_probe_stamps(struct lithos_probe_gpu *gpu);
/* Run kernels in parts, as atoms are run, and look whether each block ran once; measure what is to be known of it. The answer stands in
 * atoms, atoms_why and exit_ps; 0, or negative errno with error set when it cannot be asked at all. May hang, and where it goes
 * wrong it costs the process its context: to be asked last, with the rest of the answer safe. */
int lithos_probe_atoms(struct lithos_probe_gpu *gpu);
/* Run one small kernel to its end. 0, or negative errno with gpu->error set. Hangs when the card (or MPS) does. */
int lithos_probe_canary(struct lithos_probe_gpu *gpu);

/* What was probed before, kept in dir as topology-UUID-DRIVER.json. Load: 0; -ENOENT; -EBADMSG when the file is damaged
 * or is about another card (said; nothing of it is used). Store: 0 or negative errno. */
int lithos_probe_cache_load(const char *dir, const struct lithos_probe *p, struct lithos_probe_gpu *gpu);
int lithos_probe_cache_store(const char *dir, const struct lithos_probe *p,
                             const struct lithos_probe_gpu *gpu);
/* The folder when none is named: $LITHOS_CACHE_DIR, /var/cache/lithos for root, $XDG_CACHE_HOME/lithos,
 * ~/.cache/lithos. 0 or -ENOENT. */
int lithos_probe_cache_dir(char *buf, size_t size);
