/* The parts of `lithos demo': a stage of its own (daemon, MPS, folder), and the cases played on it. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/tpcset.h"
#include "cli/child.h"
#include "proto/message.h"

struct lithos_demo {
    char base[3072];                 /* folder above bin/ */
    char dir[256];                   /* ours, removed at the end */
    char socket[320];                /* of the private daemon */
    char mps_dir[LITHOS_PATH_BYTES]; /* pipe folder of the MPS that the daemon minds; "" when there is none */
    char mps_why[512];               /* then: why */
    bool mps_is_ours;                /* and has to go with the daemon */
    char gpu[LITHOS_NAME_MAX], gpu_name[LITHOS_NAME_MAX]; /* UUID text, name */
    char driver[64];
    bool virtual_gpu;
    double scale;     /* real seconds a second of the card */
    double seconds;   /* of each measurement, in the card's time */
    double period_us; /* of the service's requests */
    struct lithos_child daemon;
};

enum lithos_demo_sharing {
    LITHOS_DEMO_SLICED, /* no MPS: in turns */
    LITHOS_DEMO_MPS,    /* as clients of one MPS server, nobody in charge */
    LITHOS_DEMO_LITHOS, /* half of the TPCs each */
};

/* One row of the table. */
struct lithos_demo_result {
    const char *name;
    bool hp, be;                                     /* who took part */
    double hp_p50_us, hp_p99_us, hp_max_us, hp_rate; /* requests a second served */
    uint64_t hp_served, hp_unserved;
    double be_rate; /* kernels a second */
    /* under LithOS only */
    struct lithos_tpcset hp_tpcs, be_tpcs;
    char mode[16];
    int64_t escaped, breaches;
    bool checked; /* both programs' results were compared and right */
    int hp_sms, be_sms;
};

/* Folder, daemon, MPS. 0 or negative errno after a message. */
int lithos_demo_stage_open(struct lithos_demo *d);
/* Whatever of it stands is ended and removed. */
void lithos_demo_stage_close(struct lithos_demo *d);

/* Play one case: the service, the burner, or both at once. 0 or negative errno after a message. */
int lithos_demo_play(struct lithos_demo *d, const char *name, enum lithos_demo_sharing sharing, bool hp,
                     bool be, struct lithos_demo_result *ret_result);
