/* A GPU in software: blocks, waves, residency, TPC masks, clusters, streams, priorities, MPS and time
 * slicing.
 *
 * Pure: no clock, thread, I/O or file-scope state. Time comes in with each call, in ns, and never runs
 * backwards; the same calls with the same seed give the same events. One model is one card.
 *
 * Contexts of one domain share the card in space (clients of one MPS server); domains take turns. A stream is
 * a FIFO of ops. An op is known by a cookie of the caller's, and told once as done, in stream order, by
 * lithos_model_advance. What is modelled, how far off it is and what is left out: docs/virtual-gpu.md. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/tpcset.h"
#include "model/card.h"

struct lithos_model;
struct lithos_model_context;
struct lithos_model_stream;

#define LITHOS_MODEL_NEVER UINT64_MAX

/* What one block costs. The SM has a throughput of 1: while the shares of the blocks in it add up to no more
 * than that, each takes its time alone; beyond, all of them slow down alike (processor sharing). */
struct lithos_block_cost {
    uint64_t alone_ns;   /* with no other block in the SM */
    uint32_t share_ppm;  /* of the SM's throughput, meanwhile */
    uint32_t spread_ppm; /* a block takes alone_ns * (1 +- spread), by a hash of launch and block */
    uint32_t
        stagger_ppm; /* groups that fill an SM together end this much before to after their mean, one by one */
    uint32_t
        clock_ppm; /* how much it feels the SMs' clock: at half of it, it takes 1 + clock times its time (paper 5.6) */
    uint32_t group; /* blocks that start at once in an SM are timed together, this many at most; >= 1 */
};

struct lithos_model_kernel {
    uint64_t blocks;         /* of the grid, without exits */
    uint64_t exits;          /* further blocks, before those, that end in the prelude of an atom */
    uint32_t cluster_blocks; /* 1: no clusters; divides blocks */
    uint32_t threads;        /* a block */
    uint32_t registers;      /* a thread */
    uint32_t shared_bytes;   /* a block, static and dynamic */
    bool masked;             /* only on tpcs; else on any TPC the context may use */
    bool want_placement;     /* the event carries the SM of each block */
    bool pre_exit; /* lets a launch behind it that may overlap begin when its last block has been placed */
    bool overlap;  /* may begin then */
    struct lithos_tpcset tpcs;
    struct lithos_block_cost cost;
};

/* Largest grid whose blocks are accounted for one by one and may be asked for by want_placement; of a larger
 * one the count alone is checked, and no placement is given. */
#define LITHOS_MODEL_TRACKED_BLOCKS (1u << 24)

enum lithos_hang_reason {
    LITHOS_HANG_NONE,
    LITHOS_HANG_EMPTY_MASK,      /* the mask names no TPC of the card */
    LITHOS_HANG_NO_CLUSTER_ROOM, /* no GPC of the mask has TPCs enough for a cluster */
    LITHOS_HANG_REASON_MAX,
};

enum lithos_model_event_kind {
    LITHOS_MODEL_DONE,
    LITHOS_MODEL_HANG, /* the launch will never complete; its stream stands until its context is destroyed */
};

struct lithos_model_event {
    enum lithos_model_event_kind kind;
    enum lithos_hang_reason reason;
    uint64_t op;
    void *user; /* of the context */
    struct lithos_model_context *context;
    uint64_t start_ns, end_ns; /* first block placed, completion; of copies and marks likewise */
    uint64_t blocks;           /* blocks that ran */
    uint32_t blocks_missed, blocks_twice;
    uint32_t cluster_blocks;   /* of a hung launch */
    struct lithos_tpcset tpcs; /* mask of a hung launch */
    uint16_t *placement;       /* SM of each block, `blocks` of them, or NULL; the caller frees it */
};

struct lithos_model_context_desc {
    void *user;              /* handed back with events */
    uint64_t owner;          /* process: marks are named within it, sharing is counted between owners */
    uint64_t domain;         /* contexts with the same number share the card in space */
    uint32_t thread_percent; /* MPS active thread percentage: SMs of unmasked launches; 0 or 100: all */
    int32_t priority; /* MPS client priority: 0 normal, 1 below normal: after all normal clients' streams */
};

struct lithos_model_stats {
    uint64_t launches, hangs, blocks, copies, copy_bytes;
    uint64_t blocks_beside_others;   /* placed in a TPC that held a block of another owner */
    struct lithos_tpcset tpcs;       /* every TPC that a block was ever placed in */
    uint64_t sm_ns[LITHOS_TPC_BITS]; /* SM time consumed by finished blocks, by TPC bit */
};

/* The card is copied. 0; -EINVAL when lithos_card_validate refuses it; -ENOMEM. */
int lithos_model_create(const struct lithos_card *card, uint64_t seed, struct lithos_model **ret_model);
void lithos_model_destroy(struct lithos_model *m);
const struct lithos_card *lithos_model_card(const struct lithos_model *m);

/* 0; -EINVAL (percentage over 100); -ENOMEM. */
int lithos_model_context_create(struct lithos_model *m, const struct lithos_model_context_desc *desc,
                                struct lithos_model_context **ret_context);
/* Its streams, ops and blocks go at once, without an event; what waits for its marks goes on. ret_stats (may be NULL):
 * what it did, up to the end. */
void lithos_model_context_destroy(struct lithos_model *m, uint64_t now_ns, struct lithos_model_context *c,
                                  struct lithos_model_stats *ret_stats);
void lithos_model_context_stats(const struct lithos_model_context *c, struct lithos_model_stats *ret_stats);

/* A priority outside the card's range is clamped, as the driver does. 0 or -ENOMEM. */
int lithos_model_stream_create(struct lithos_model *m, struct lithos_model_context *c, int32_t priority,
                               struct lithos_model_stream **ret_stream);
/* What was sent to it still runs and is told of; the handle is not to be used again. */
void lithos_model_stream_destroy(struct lithos_model *m, uint64_t now_ns, struct lithos_model_stream *s);

/* 0; -E2BIG when a block of it fits no SM of the card; -EINVAL (no threads, a cluster that does not divide
 * the grid or is larger than the card takes, spread over 100 %); -ENOMEM. A mask that hangs is no error: it
 * is an event. */
int lithos_model_launch(struct lithos_model *m, uint64_t now_ns, struct lithos_model_stream *s, uint64_t op,
                        const struct lithos_model_kernel *kernel);
int lithos_model_copy(struct lithos_model *m, uint64_t now_ns, struct lithos_model_stream *s, uint64_t op,
                      enum lithos_copy_engine engine, uint64_t bytes);
/* Done when all before it in the stream is. */
int lithos_model_mark(struct lithos_model *m, uint64_t now_ns, struct lithos_model_stream *s, uint64_t op);
/* The stream goes on when that mark of the same owner is done; at once when no such mark is open. No event.
 */
int lithos_model_wait(struct lithos_model *m, uint64_t now_ns, struct lithos_model_stream *s, uint64_t mark);
/* The stream goes on at lithos_model_gate_open with the same number of the same owner (a mark of another
 * card). */
int lithos_model_gate(struct lithos_model *m, uint64_t now_ns, struct lithos_model_stream *s, uint64_t gate);
void lithos_model_gate_open(struct lithos_model *m, uint64_t now_ns, uint64_t owner, uint64_t gate);

/* Turns of the context's domain while another waits, from now on; 0: as long as the card has them. */
void lithos_model_context_slice(struct lithos_model *m, uint64_t now_ns, struct lithos_model_context *c,
                                uint64_t slice_ns);
/* The SMs' clock from now on: clock_ppm of the highest. Blocks placed before keep their speed. */
void lithos_model_set_clock(struct lithos_model *m, uint64_t now_ns, uint32_t clock_ppm);
/* SM time in use since the model began, up to the last advance: of all its SMs together, and the part of it that the memory holds
 * up (1 - clock of what runs), for how much power it draws (model/power.h). */
void lithos_model_busy(struct lithos_model *m, uint64_t *ret_busy_sm_ns, uint64_t *ret_memory_sm_ns);

/* When something happens next: at or before the last now_ns when events wait, LITHOS_MODEL_NEVER when nothing
 * will. */
uint64_t lithos_model_next_ns(const struct lithos_model *m);
/* No event is told before that time unless something is sent meanwhile. Later than lithos_model_next_ns, which counts
 * each block's end: for a caller in real time, who would otherwise wake for nothing thousands of times a millisecond.
 * Call it after lithos_model_advance. */
uint64_t lithos_model_quiet_until_ns(struct lithos_model *m);
/* Run up to now_ns; at most `max` events of what happened. Fewer than max: all told. */
size_t lithos_model_advance(struct lithos_model *m, uint64_t now_ns, struct lithos_model_event *events,
                            size_t max);

/* What a real card does on that event and why, for people. Returns text. */
char *lithos_model_hang_text(const struct lithos_model_event *event, char *text, size_t size);
/* Mask bit of the TPC that SM number `sm` (0 to SMs - 1) lies in. */
unsigned lithos_model_sm_tpc(const struct lithos_model *m, unsigned sm);
