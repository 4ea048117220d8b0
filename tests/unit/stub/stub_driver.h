/* A CUDA driver for tests: a shared library that exports every name, does nothing, and tells what it was
 * asked. It builds a V04_00 QMD for each launch and hands it to whoever subscribed, as the real one does. */
#pragma once

#include <stdint.h>

#include "base/tpcset.h"
#include "hw/qmd.h"

#define STUB_MAX_DEVICES 4
/* A function that the stub does not define otherwise returns this plus its index in exports.def. */
#define STUB_RESULT_BASE 10000

struct stub_control {
    /* set by the test before the calls that it wants answered so */
    int device_count;
    int cc_major, cc_minor;
    int no_table;          /* cuGetExportTable fails */
    int short_table;       /* its size word says that entry 6 is not there */
    int refuse_subscribe;  /* subscribe returns an error */
    uint32_t params_bytes; /* size word of the callback's params */
    uint32_t cluster[3];   /* of the next launches */
    uint32_t grid_x;       /* 0: as the launch says; else in the QMD */
    int empty_grid;        /* the next QMD's grid is empty */
    int qmds_per_graph;    /* kernel nodes of every graph */
    int qmds_per_launch;   /* 1; more are the driver's own */
    int own_before;        /* QMDs of the driver's own before the launch's: its module is loaded only then */
    int kernel_handles;    /* what is launched is a CUkernel: the callback is given another handle */
    int load_uploads;      /* loading a module runs a kernel of the driver's own */
    int again;             /* the next QMDs are the last one, as it went to the card: a node made again */
    int unknown_version;   /* QMDs of a version nobody knows */
    int green_result;      /* cuGreenCtxCreate */
    int hidden_launch;     /* cuGetProcAddress gives a launch function that is not exported */
    int busy_launches;     /* the next censuses miss an SM, as beside a neighbour */
    int init_delay_us;
    void (*on_mask)(const struct lithos_tpcset *set, int masked); /* called with each QMD, on its thread */
    int no_stamps;              /* release semaphores write nothing, as on a card that takes its time */
    int no_callbacks;           /* as if nobody had subscribed */
    int quick_stamps;           /* written without a look at what is registered, nor at the clock */
    int stamp_elsewhere;        /* they write another payload */
    int taken;                  /* release semaphore 1 of the next QMDs is in use */
    int register_result;        /* of cuMemHostRegister */
    int capturing;              /* launches are recorded, not made: no QMD; unsafe calls end the capture */
    int launch_result;          /* of the next launches, after the QMD */
    int primary_holders;        /* who holds the primary context, apart from the one who releases */
    struct lithos_tpcset valid; /* TPCs of the card, for the census kernel */

    /* written by the stub */
    int init_calls;
    int launches;
    int callbacks;
    int subscriptions;
    int registrations;   /* in force */
    uint64_t registered; /* where the last lies */
    int capture_spoiled; /* unsafe calls while capturing */
    int faults;          /* stamps written where nothing is registered */
    int stamps_written;
    uint8_t last_qmd[LITHOS_QMD_BYTES]; /* after the callback */
    int last_masked;
    struct lithos_tpcset last_tpcs;
    uint64_t last_words[11]; /* arguments of the last cuLaunchKernel */
    float last_float;
    uint64_t last_batch[9];
};

/* Names of what the library exports besides the driver's. */
#define STUB_CONTROL "stub_control"
