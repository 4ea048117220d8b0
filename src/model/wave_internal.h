/* Inside of the wave model. */
#pragma once

#include "base/assert.h"
#include "base/util.h"
#include "model/wave.h"

/* Work of a block is counted in 1/256 ns, so that slowed blocks do not drift by rounding. */
#define WAVE_WORK_SHIFT 8
#define WAVE_GROUPS_MAX 64u
#define WAVE_MASKS 8u /* masks whose cells are remembered */

enum wave_op_state {
    WAVE_QUEUED,  /* others stand before it in the stream */
    WAVE_WAITING, /* a timer brings it to the card */
    WAVE_PLACING, /* blocks to place */
    WAVE_PLACED,  /* all placed, some not ended */
    WAVE_ENDED,   /* a timer makes it complete */
    WAVE_COMPLETE,
    WAVE_HUNG,
};

struct wave_op {
    struct wave_op *next;           /* in its stream, or in the free list */
    struct wave_op *before, *after; /* in its domain's list while it has blocks to place */
    struct lithos_wave_stream *stream;
    struct lithos_wave_launch launch;
    enum wave_op_state state;
    uint32_t node;
    int32_t rank;
    uint64_t seq; /* order of arrival at the card */
    uint64_t submit_ns, start_ns, end_ns, ran;
    bool timer;
    /* of the kernel at the card */
    const struct lithos_wave_kernel *k;
    uint64_t cells[LITHOS_TPC_BITS / 64];
    uint32_t blocks, left, resident; /* counted in bundles */
    uint32_t bundle;                 /* blocks that are taken to run one after another in one place */
    uint32_t grid, placed, ended;    /* blocks of the launch; bundles placed and ended */
    uint32_t room_ppm;               /* of an SM, taken by a block */
    uint32_t cap_ppm;                /* of an SM's shared memory, taken by a block for the cap's sake */
    uint32_t draw;                   /* of memory bandwidth, a block: ppm / 1024 */
    uint32_t each;                   /* blocks that an empty SM takes */
    uint64_t alone_ns;
    bool many_waves;
};

struct wave_group {
    struct wave_op *op;
    uint32_t blocks;
    uint64_t end_work; /* value of the cell's work clock at which they end */
};

struct wave_cell {
    struct lithos_tpcset tpcs;
    uint32_t sms;
    uint32_t blocks;               /* resident */
    uint64_t used_ppm, cap_ppm;    /* sums over them */
    uint64_t share_ppm;            /* the same */
    uint64_t bound_ppm;            /* sum of share times how much they wait for memory */
    uint64_t work, at_ns, next_ns; /* domain time */
    uint64_t slow_ppm;             /* time a work: 1000000 and more */
    uint64_t busy_ppm;             /* sum over its SMs of what they get done, of 1000000 each */
    uint32_t group_count;
    struct wave_group groups[WAVE_GROUPS_MAX];
};

struct lithos_wave_domain {
    struct lithos_wave_domain *next; /* ring */
    struct lithos_wave *wave;
    uint64_t slice_ns;
    uint32_t active; /* launches on the card or ended and not yet seen: it wants turns */
    bool running;
    uint64_t offset_ns; /* running: now = domain time + offset */
    uint64_t frozen_ns; /* else: domain time */
    struct wave_op *head, *tail;
    struct wave_cell *cells[LITHOS_TPC_BITS];
    uint32_t cell_count;
    uint32_t layout;         /* changes with the cells */
    uint64_t draw, busy_ppm; /* sums over cells */
    uint32_t first;          /* the cell where blocks end first, */
    bool first_known;        /* while no cell is timed anew */
    struct {
        uint32_t layout;
        struct lithos_tpcset tpcs;
        uint64_t cells[LITHOS_TPC_BITS / 64];
    } masks[WAVE_MASKS];
    uint32_t mask_next;
};

struct lithos_wave_stream {
    struct lithos_wave_stream *next;
    struct lithos_wave *wave;
    struct lithos_wave_domain *domain;
    void *user;
    int32_t rank;
    struct wave_op *head, *tail;
};

struct wave_timer {
    uint64_t at_ns, seq;
    struct wave_op *op;
};

enum wave_phase { WAVE_RUN, WAVE_PREEMPT, WAVE_RESTORE };

struct lithos_wave {
    struct lithos_card card;
    struct lithos_wave_config config;
    uint32_t sms;
    uint64_t now_ns, seq;
    uint32_t clock_ppm; /* of the highest clock */
    struct lithos_wave_stream *streams;
    struct wave_op *free_ops;
    struct wave_cell *free_cells;

    struct lithos_wave_domain *domains; /* any of the ring */
    struct lithos_wave_domain *current, *coming;
    enum wave_phase phase;
    uint64_t phase_end_ns, slice_start_ns;

    struct wave_timer *timers; /* heap */
    size_t timer_count, timer_room;
    struct lithos_wave_event *out; /* ring of events not yet told */
    size_t out_first, out_count, out_room;
};

static inline uint64_t wave_domain_ns(const struct lithos_wave *w, const struct lithos_wave_domain *d)
{
    return d->running ? w->now_ns - d->offset_ns : d->frozen_ns;
}

static inline uint64_t wave_mul_div(uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t product;
    if (!__builtin_mul_overflow(a, b, &product)) /* nearly always, and several times faster */
        return product / c;
    return (uint64_t)((unsigned __int128)a * b / c);
}

/* wave.c */
void *wave_alloc(size_t size);
void wave_blocks_ended(struct lithos_wave *w, struct wave_op *op);  /* all of a kernel's */
void wave_blocks_placed(struct lithos_wave *w, struct wave_op *op); /* the last of a kernel's */

/* wave_cell.c: cells of a domain, and blocks in them */
void wave_domain_init(struct lithos_wave *w, struct lithos_wave_domain *d);
void wave_domain_free(struct lithos_wave_domain *d);
void wave_op_arrive(struct lithos_wave *w, struct wave_op *op); /* its kernel, mask checked */
void wave_place_all(struct lithos_wave *w, struct lithos_wave_domain *d);
void wave_domain_clocked(struct lithos_wave *w, struct lithos_wave_domain *d); /* the clock has changed */
struct lithos_power_load wave_domain_load(const struct lithos_wave *w, const struct lithos_wave_domain *d);
uint64_t wave_cells_next_ns(const struct lithos_wave *w); /* of the domain on turn */
void wave_cells_step(struct lithos_wave *w);
void wave_op_drop(struct lithos_wave *w, struct wave_op *op); /* off the card, without an end */

/* wave_slice.c: domains take turns */
void wave_slice_active(struct lithos_wave *w, struct lithos_wave_domain *d, int change);
void wave_slice_timer(struct lithos_wave *w);
