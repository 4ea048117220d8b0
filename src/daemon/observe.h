/* What runs on the GPUs, and how long: launch records and completion stamps read out of the arenas, joined by
 * core/timeline.h, foretold by core/predict.h, kept by tenant, and written into traces. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/ticks.h"
#include "core/atoms.h"
#include "core/timeline.h"
#include "daemon/loop.h"
#include "daemon/names.h"
#include "proto/message.h"
#include "trace/writer.h"

#define LITHOSD_RECORDINGS_MAX 4u
#define LITHOSD_GRAPH_NODES_MAX 65536u /* more than can have stamps at a time */
#define LITHOSD_GRAPHS_MAX 4096u
#define LITHOSD_GRAPH_REPLAY_MAX 4096u
/* Kernels of a tenant's graphs that are followed one by one in a second; the replays of others are followed as one launch each. */
#define LITHOSD_GRAPH_KERNELS_PER_S 16384

struct lithosd;
struct lithosd_tenant;
struct lithosd_process;
struct lithosd_connection;

/* A tenant's. */
struct lithosd_observed {
    struct lithos_timeline *timeline; /* in memory of its own */
    struct lithos_predictor *predictor[LITHOS_MAX_GPUS];
    bool no_predictor[LITHOS_MAX_GPUS]; /* none can be had for that card */
    int64_t graph_kernels; /* that may be followed one by one at once, as of then; below 0: too many were */
    uint64_t graph_kernels_ns;
    struct lithosd_names names;               /* of functions, by their hash */
    uint64_t records[LITHOS_RECORD_KIND_MAX]; /* read */
    uint64_t overrun, damaged;                /* records lost in reading */
    uint32_t flags;                           /* LITHOS_OBSERVE_* of its arenas */
};

/* A kernel node of a graph: what its replays are. */
struct lithosd_graph_node {
    uint32_t graph;
    uint32_t rank;   /* of two of a graph the one with the smaller rank is ahead */
    bool off;        /* it does not run for now */
    uint64_t handle; /* of its function: its name comes after the node */
    struct lithos_timeline_launch launch;
};

/* A graph of which a node at least is known. */
struct lithosd_graph {
    uint32_t id;
    uint32_t first, count; /* its nodes, one behind another */
    uint32_t changed;      /* of them, the one that was changed last */
    bool spoilt;           /* of the replay that is being followed: how long it takes is not seen */
    bool dirty;            /* any has come or changed: kernels and tpcs are of before */
    uint32_t kernels;      /* of a replay, those that are followed */
    uint32_t launches;     /* nodes that come after one are of another making */
    uint32_t skipped;      /* replays that were followed as one, since one was kernel by kernel */
    uint32_t steady;       /* replays followed kernel by kernel in a row of which the same one was the last */
    uint64_t last_stamp;   /* of that kernel */
    struct lithos_tpcset tpcs; /* of all of them */
    /* The replay that is being followed kernel by kernel. */
    uint64_t sequence, begin_ns, end_ns, busy_ns, last_gpu_ns, end_stamp;
    uint32_t ended;
    /* What such a one took, and what of that its kernels did. */
    uint64_t took_ns;
    uint32_t busy_ppm;
};

/* A process's. */
struct lithosd_reader {
    uint64_t next_sequence; /* 0: none read yet */
    bool have[LITHOS_RECORD_RINGS];
    struct lithos_record head[LITHOS_RECORD_RINGS]; /* of each ring, read and not handled yet */
    struct lithosd_handles functions;               /* handle -> hash of the name */
    uint32_t node_count, node_room, node_rank;
    struct lithosd_graph_node *nodes;
    uint32_t graph_count, graph_room;
    struct lithosd_graph *graphs; /* by id */
    bool unsorted;                /* nodes have come that graphs do not tell of, since others' came between */
    bool unseen;                  /* and some that found no room */
    /* By stamp slot: what the GPU had written there when last a node was seen to end, or all that are followed as one; NULL: no nodes. */
    uint64_t *node_ends;
    uint32_t *node_graphs; /* likewise: the graph that had the slot last */
    uint64_t
        kernel_ns; /* what a kernel of its graphs takes, in the mean of the slowest one lately; 0: not known */
    uint32_t graphs_begun, graphs_given; /* of the arena, at the last look */
    uint64_t graphs_begun_ns;            /* when the first was seen to change */
    struct lithos_atom_book *book;       /* what its kernels are cut into; NULL: none known yet */
    struct lithosd_sizes *sizes;         /* on how many TPCs they run; NULL: none known yet */
};

struct lithosd_recording {
    struct lithosd_connection *connection; /* NULL: none */
    struct lithos_trace_writer *writer;    /* NULL: has failed */
    int fd, error;
    char tenant[LITHOS_NAME_MAX];
    uint64_t events, kernels, dropped, bytes;
    uint64_t *told; /* drops by tenant slot and reason, as told last */
};

struct lithosd_observe {
    bool stamps_off; /* LITHOS_STAMPS=off */
    struct lithosd_timer tick;
    uint64_t period_ns;
    bool ticks_steady; /* and so the tenants note ticks */
    struct lithos_ticks_map ticks;
    uint64_t spun_ns;      /* when it last looked without a pause */
    unsigned spins;        /* how often it has, since it last did not for long */
    bool asked;            /* the tenants are to say when there is something to read */
    bool replays;          /* graphs were launched since it was last asked for */
    uint64_t second_ns;    /* when the once-a-second work was done last */
    unsigned process_high; /* slots of processes that have ever been used */
    unsigned recording_count;
    struct lithosd_recording recordings[LITHOSD_RECORDINGS_MAX];
};

/* ---- observe.c ---- */

/* A process has its arena: say what it is to write, and begin to read. */
void lithosd_observe_attach(struct lithosd_process *p);
/* It says that it has written a record. */
void lithosd_observe_woken(struct lithosd_process *p);
/* Its arena is about to go: read it a last time. */
void lithosd_observe_detach(struct lithosd_process *p);
/* No process of it is left. */
void lithosd_observe_ended(struct lithosd_tenant *t);
/* Read all arenas now. */
void lithosd_observe_now(struct lithosd *d);
/* Launches without an event, by reason (enum lithos_trace_drop_reason), and records lost. */
#define LITHOSD_DROPS 16u
void lithosd_observe_drops(const struct lithosd_tenant *t, uint64_t ret_drops[LITHOSD_DROPS]);

/* ---- observe_records.c ---- */

/* A record of the process, in the order of their sequence, its times as CLOCK_MONOTONIC has them. Any values. */
void lithosd_observe_record(struct lithosd_process *p, const struct lithos_record *r);
/* What a record of a launch, or of a graph's node, says. */
struct lithos_timeline_launch lithosd_observe_launch_of(const struct lithosd_process *p,
                                                        const struct lithos_record *r);
/* Foretell it, if nothing better is known of it than what it says, follow it, and tell the scheduler. */
void lithosd_observe_submit(struct lithosd_process *p, struct lithos_timeline_launch *l);

/* ---- observe_graphs.c ---- */

/* Records of these kinds. */
void lithosd_graph_node(struct lithosd_process *p, const struct lithos_record *r);
void lithosd_graph_launch(struct lithosd_process *p, const struct lithos_record *r);
/* A kernel of a graph has ended, or a replay that is followed as one. */
/* spoilt: it is not known how long it took. */
void lithosd_graph_ended(struct lithosd_reader *reader, const struct lithos_kernel_event *k, bool spoilt);
void lithosd_graphs_finish(struct lithosd_reader *reader);

/* ---- plans.c: how long kernels take decides what later ones are cut into ---- */

/* A kernel with an operator key has ended. */
void lithosd_plans_observe(struct lithosd_tenant *t, const struct lithos_kernel_event *k);
/* Tenants have come, gone or changed: their atoms have to be short enough for each other. */
void lithosd_plans_tenants_changed(struct lithosd *d);
/* The tenant's policy has changed. */
void lithosd_plans_renew(struct lithosd_tenant *t);
void lithosd_plans_forget(struct lithosd_process *p);
/* "operators" of tenants[].atoms in docs/status.md. */
json_t *lithosd_plans_status(const struct lithosd_tenant *t);

/* ---- observe_status.c ---- */

/* How far off times of its kernels on its i-th GPU may be (UINT64_MAX: not known). Another tenant's kernels may tell more of the same clock;
 * that is said, and no more: a map is made of what a tenant's pages hold, and each tenant's times are its own map's. */
uint64_t lithosd_clock_bound_ns(const struct lithosd_tenant *t, uint32_t i);
/* By how much the host's clock is faster than that of the i-th of a tenant's GPUs, in 1e-9; 0: not known. */
int64_t lithosd_clock_drift_ppb(const struct lithosd_tenant *t, uint32_t i);
/* "observed" of docs/status.md. */
json_t *lithosd_observe_status(const struct lithosd_tenant *t);

/* ---- recording.c ---- */

int lithosd_recording_request(struct lithosd_connection *c, const struct lithos_msg_trace *request, int fd,
                              union lithos_message *ret_answer, char text[LITHOS_TEXT_MAX]);
/* The connection is about to end, and what it had asked for with it. */
void lithosd_recording_end(struct lithosd_connection *c);
void lithosd_recordings_event(const struct lithosd_tenant *t, const struct lithos_trace_event *e);
/* Is the tenant recorded? Then each kernel counts. */
bool lithosd_recordings_want(const struct lithosd_tenant *t);
void lithosd_recordings_admitted(const struct lithosd_tenant *t);
void lithosd_recordings_granted(const struct lithosd_tenant *t);
void lithosd_recordings_ended(const struct lithosd_tenant *t);
/* Once a second: what is lost, clocks, and all out to the file. */
void lithosd_recordings_second(struct lithosd *d);
