/* A card in waves: the same things as model/model.h says, one level coarser and some ten times faster, for simulating
 * hours of scheduling.
 *
 * TPCs that hold the same work are one cell, and blocks are counted, not followed. A launch fills the room of the
 * cells in its mask with a group of blocks each; a group ends as a whole, and what waits is placed into the room that
 * comes free, the most urgent first, then the oldest. Blocks of a cell share its SMs' throughput as in the block
 * model. What is lost is what happens within a wave; docs/simulator.md says by how much that is off.
 *
 * Pure: no clock, thread, I/O or file-scope state. Time comes in with each call, in ns, and never runs backwards. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/tpcset.h"
#include "model/card.h"

struct lithos_wave;
struct lithos_wave_domain;
struct lithos_wave_stream;

#define LITHOS_WAVE_NEVER UINT64_MAX
#define LITHOS_WAVE_PPM 1000000u

struct lithos_wave_kernel {
    uint64_t alone_ns;       /* a block with no other in its SM */
    uint32_t blocks;         /* of the grid, at least 1 */
    uint32_t cluster_blocks; /* 1: no clusters */
    uint32_t residency;      /* blocks that an empty SM holds; 1 to 64 */
    uint32_t share_ppm;   /* of an SM's throughput that a block can use; beyond 1 together, all slow down */
    uint32_t stagger_ppm; /* groups that fill an SM at once end this much before to after their mean */
    uint32_t
        bandwidth_ppm; /* of the card's memory bandwidth, with as many blocks resident as the card takes */
};

struct lithos_wave_launch {
    uint64_t op;                              /* the caller's name of it, told with its events */
    const struct lithos_wave_kernel *kernels; /* run one after another; they outlive the launch */
    uint32_t count;                           /* of kernels; more than one: a graph */
    struct lithos_tpcset tpcs;
    uint32_t blocks;    /* of a part of one kernel's grid; 0: all */
    uint32_t residency; /* cap on blocks an SM holds of it, by asking for shared memory; 0: none */
    uint64_t lead_ns;   /* before its first block: blocks of the grid that are not its own and exit at once */
    uint32_t time_ppm;  /* its blocks take so much of their time: 1000000 for all of it */
    bool
        chained; /* may start when the launch before it in the stream has placed its last block; count is 1 */
};

enum lithos_wave_event_kind {
    LITHOS_WAVE_DONE,
    LITHOS_WAVE_HANG, /* the mask names no TPC, or none with room for a cluster: it never completes */
};

struct lithos_wave_event {
    enum lithos_wave_event_kind kind;
    uint64_t op;
    void *user;                /* of the stream */
    uint64_t start_ns, end_ns; /* first block placed; completion seen */
    uint64_t blocks;           /* that ran, of all its kernels */
};

/* What happened to blocks, told at once from inside of a call: for checkers and pictures. */
struct lithos_wave_placing {
    uint64_t now_ns;
    uint64_t op;
    void *user;
    struct lithos_tpcset tpcs;
    uint32_t blocks;
    bool ended; /* else: placed */
};
typedef void lithos_wave_observe(void *ctx, const struct lithos_wave_placing *placing);

/* Time goes on to then, and until then the card does what it does now: told from lithos_wave_until. */
typedef void lithos_wave_passes(void *ctx, uint64_t to_ns);

struct lithos_wave_config {
    const struct lithos_card *card; /* copied */
    uint64_t node_gap_ns;           /* between kernels of a graph */
    bool bandwidth; /* kernels slow down when together they want more than the card's memory bandwidth */
    lithos_wave_observe *observe; /* may be NULL */
    lithos_wave_passes *passes;   /* the same */
    void *ctx;
};

/* 0; -EINVAL: lithos_card_validate refuses the card; -ENOMEM. */
int lithos_wave_create(const struct lithos_wave_config *config, struct lithos_wave **ret_wave);
void lithos_wave_destroy(struct lithos_wave *w);

/* Streams of one domain share the card in space (an MPS server's clients); domains take turns of slice_ns (0: the
 * card's) while another waits. Lives as long as w. */
struct lithos_wave_domain *lithos_wave_domain_create(struct lithos_wave *w, uint64_t slice_ns);
/* Urgency: lower first. */
struct lithos_wave_stream *lithos_wave_stream_create(struct lithos_wave *w, struct lithos_wave_domain *d,
                                                     int32_t rank, void *user);
/* All it was sent goes at once, without an event, also what runs; so does the handle. */
void lithos_wave_stream_kill(struct lithos_wave *w, uint64_t now_ns, struct lithos_wave_stream *s);
/* For launches sent from now on. */
void lithos_wave_stream_set_rank(struct lithos_wave_stream *s, int32_t rank);

/* 0; -EINVAL: no kernels or blocks, a cluster that does not divide the grid or is larger than the card's, more than
 * 64 blocks an SM. A mask that hangs is no error: it is an event. */
int lithos_wave_launch(struct lithos_wave *w, uint64_t now_ns, struct lithos_wave_stream *s,
                       const struct lithos_wave_launch *launch);
/* Take back what was sent to the stream and has not placed a block: the newest launches. Returns how many. */
uint32_t lithos_wave_recall(struct lithos_wave *w, uint64_t now_ns, struct lithos_wave_stream *s);

/* The clock from now on, in ppm of the highest: what SMs do takes longer, and asks for less of the memory. */
void lithos_wave_set_clock(struct lithos_wave *w, uint64_t now_ns, uint32_t clock_ppm);
/* What the card is doing at this moment. */
struct lithos_power_load lithos_wave_load(const struct lithos_wave *w);

/* When something happens next: at or before the last now_ns when events wait, LITHOS_WAVE_NEVER when nothing will. */
uint64_t lithos_wave_next_ns(const struct lithos_wave *w);
/* Run while nothing happens that is told, up to until_ns and no further than the last thing that happened. True: something waits to
 * be told (lithos_wave_advance), at ret_ns, its time. */
bool lithos_wave_until(struct lithos_wave *w, uint64_t until_ns, uint64_t *ret_ns);
/* Run up to now_ns; at most max events of what happened. Fewer than max: all told. */
size_t lithos_wave_advance(struct lithos_wave *w, uint64_t now_ns, struct lithos_wave_event *events,
                           size_t max);
/* Time until a launch with nothing else on those TPCs has all blocks ended, for the caller who needs a duration
 * without running it: waves times the time of a block among as many as fit. */
uint64_t lithos_wave_duration_ns(const struct lithos_card *card, const struct lithos_wave_kernel *kernel,
                                 uint32_t blocks, uint32_t residency, uint32_t tpcs);
