/* Inside of the model. */
#pragma once

#include "base/assert.h"
#include "base/util.h"
#include "model/model.h"

/* Work of a block is counted in 1/256 ns, so that slowed blocks do not drift by rounding. */
#define WORK_SHIFT 8
#define SM_WORDS (LITHOS_CARD_SMS_MAX / 64)
#define FULL_PPM 1000000u
#define MARK_BUCKETS 256u

struct smset {
    uint64_t w[SM_WORDS];
};

enum op_kind { OP_LAUNCH, OP_COPY, OP_MARK, OP_WAIT };

enum op_state {
    OP_QUEUED,   /* others stand before it in the stream */
    OP_LATENCY,  /* launch: on its way to the card */
    OP_RUNNING,  /* launch: blocks to place or placed; copy: at the engine; wait: for the mark */
    OP_COMPLETE, /* launch: all blocks ended, not yet seen */
    OP_ENDED,    /* launch: over, but one that it overlapped with is not, and is told first */
    OP_HUNG,
};

struct op {
    struct op *next; /* in its stream */
    struct lithos_model_stream *stream;
    enum op_kind kind;
    enum op_state state;
    uint64_t cookie;
    uint64_t submit_ns, start_ns, end_ns;
    union {
        struct launch *launch;
        struct {
            struct op *next;
            enum lithos_copy_engine engine;
            uint64_t bytes;
        } copy;
        struct mark *mark; /* MARK: its own; WAIT: the one waited for, NULL when it needs none */
    };
};

/* Something open that streams may wait for; owner and number name it. */
struct mark {
    struct mark *next; /* in its bucket */
    uint64_t owner, number;
    bool gate;        /* opened from outside */
    uint32_t waiters; /* WAIT ops that point here */
    bool done;
};

struct launch {
    struct op *op;
    struct lithos_model_context *context;
    struct launch *next, *prev; /* in the domain's list of launches with blocks to place */
    bool listed;
    int32_t rank; /* urgency: lower first */
    uint64_t seq; /* order of arrival at the card */
    struct lithos_model_kernel k;
    struct smset sms;                                      /* where it may run */
    uint32_t block_threads, block_registers, block_shared; /* what a block takes of an SM */
    uint64_t placed, ended;
    uint64_t bound_ns; /* domain time before which it cannot end; looked at again when it has passed */
    uint32_t twice;
    bool started;
    bool exited;    /* blocks that end in the prelude have */
    uint64_t *seen; /* bit a block; NULL for an untracked grid */
    uint16_t *placement;
};

struct group {
    struct launch *launch;
    uint64_t first;
    uint32_t count;
    uint32_t share_ppm;  /* of all of them */
    uint32_t memory_ppm; /* the part that the memory holds up */
    uint64_t end_work;   /* value of the SM's work clock at which they end */
    uint64_t sm_ns;      /* SM time they consume together */
};

struct sm {
    uint64_t work;    /* clock that runs at the speed of the blocks in the SM */
    uint64_t at_ns;   /* domain time at which `work` was so */
    uint64_t next_ns; /* domain time of the next end of a group, NEVER when empty */
    uint32_t share_ppm, memory_ppm;
    uint64_t busy_ns, waits_ns;                  /* in use; and of that, held up by the memory */
    uint32_t threads, registers, shared, blocks; /* in use */
    uint32_t heap_pos;
    uint32_t group_count;
    struct group groups[LITHOS_CARD_SM_BLOCKS_MAX];
};

struct domain {
    struct domain *next; /* ring of all domains */
    uint64_t number;
    uint32_t contexts;
    uint32_t owners_seen; /* > 1: sharing has to be looked for */
    uint32_t active;      /* launches on the card or on the way out; > 0: it wants turns */
    uint64_t first_owner;
    uint64_t slice_ns; /* of its turns while another waits; 0: the card's */
    /* Domain time stands still while the domain has no turn. */
    bool running;
    uint64_t offset_ns; /* running: now = domain time + offset */
    uint64_t frozen_ns; /* else: domain time */
    struct launch *head, *tail;
    struct sm *sms;
    uint32_t heap[LITHOS_CARD_SMS_MAX]; /* SMs by next_ns */
};

struct lithos_model_context {
    struct lithos_model *model;
    struct lithos_model_context *next;
    struct lithos_model_context_desc desc;
    struct domain *domain;
    struct lithos_tpcset cap; /* unmasked launches */
    struct lithos_model_stream *streams;
    struct lithos_model_stats stats;
};

struct lithos_model_stream {
    struct lithos_model_stream *next;
    struct lithos_model_context *context;
    int32_t priority;
    bool closing;
    struct lithos_model_stream *kick_next;
    bool kicked;
    struct op *head, *tail;
};

struct timer {
    uint64_t at_ns, seq;
    struct op *op;
};

enum phase { PHASE_RUN, PHASE_PREEMPT, PHASE_RESTORE };

struct lithos_model {
    struct lithos_card card;
    uint64_t seed;
    uint64_t now_ns;
    uint64_t seq;
    uint32_t sm_count;
    uint64_t slow_ppm;                      /* f_max / f - 1 */
    uint64_t busy_ns, waits_ns;             /* of domains that are gone */
    uint8_t sm_tpc[LITHOS_CARD_SMS_MAX];    /* TPC bit of an SM */
    uint16_t sm_order[LITHOS_CARD_SMS_MAX]; /* SMs in the order blocks are handed out */
    struct smset rooms[LITHOS_TPC_BITS];    /* where one cluster may lie: GPCs, and single TPCs */
    uint8_t sm_room[LITHOS_CARD_SMS_MAX];
    uint32_t room_count;
    struct lithos_model_stream *kicked, **kicked_end; /* streams whose head may start */
    struct lithos_model_context *contexts;
    struct mark *marks[MARK_BUCKETS];

    /* whose turn */
    struct domain *domains; /* any of the ring */
    struct domain *current, *coming;
    enum phase phase;
    uint64_t phase_end_ns; /* RUN: end of the turn, NEVER when nobody waits */
    uint64_t slice_start_ns;

    struct {
        struct op *head, *tail;
    } engines[LITHOS_COPY_ENGINE_MAX];

    struct timer *timers; /* heap */
    size_t timer_count, timer_room;

    struct lithos_model_event *out; /* ring of events not yet told */
    size_t out_first, out_count, out_room;
};

static inline bool smset_has(const struct smset *s, unsigned sm)
{
    return (s->w[sm / 64] >> (sm % 64)) & 1;
}

static inline void smset_add(struct smset *s, unsigned sm)
{
    s->w[sm / 64] |= 1ull << (sm % 64);
}

static inline bool smset_overlap(const struct smset *a, const struct smset *b)
{
    uint64_t any = 0;
    for (unsigned i = 0; i < SM_WORDS; i++)
        any |= a->w[i] & b->w[i];
    return any != 0;
}

static inline void smset_join(struct smset *a, const struct smset *b)
{
    for (unsigned i = 0; i < SM_WORDS; i++)
        a->w[i] |= b->w[i];
}

/* model.c: outside of a tenant's process, so running out of memory is the end */
void *model_alloc(size_t size);
struct lithos_model_event *model_emit(struct lithos_model *m);
void model_run(struct lithos_model *m, uint64_t now_ns);

/* timer.c */
void timer_add(struct lithos_model *m, uint64_t at_ns, struct op *op);
struct op *timer_pop(struct lithos_model *m);
void timer_drop_context(struct lithos_model *m, const struct lithos_model_context *c);
static inline uint64_t timer_next_ns(const struct lithos_model *m)
{
    return m->timer_count ? m->timers[0].at_ns : LITHOS_MODEL_NEVER;
}

/* stream.c */
void stream_timer(struct lithos_model *m, struct op *op); /* its time has come */
void stream_drain(struct lithos_model *m);
void stream_drop_context(struct lithos_model *m, struct lithos_model_context *c);
void launch_blocks_ended(struct lithos_model *m, struct launch *l);
void launch_blocks_placed(struct lithos_model *m, struct launch *l); /* the last one just was */

/* place.c: blocks and SMs of a domain that has its turn */
struct smset place_sms(const struct lithos_model *m, const struct lithos_tpcset *tpcs);
bool place_fits_empty_sm(const struct lithos_card *card, const struct launch *l);
void place_list(struct domain *d, struct launch *l);
void place_unlist(struct domain *d, struct launch *l);
void place_all(struct lithos_model *m, struct domain *d);
uint64_t place_next_ns(const struct domain *d);                          /* domain time */
uint64_t place_bound_ns(const struct lithos_model *m, struct launch *l); /* domain time */
void place_step(struct lithos_model *m, struct domain *d);               /* the next end of a group */
void place_drop_context(const struct lithos_model *m, struct domain *d, const struct lithos_model_context *c);
void place_busy(struct lithos_model *m, struct domain *d, uint64_t *busy_ns,
                uint64_t *waits_ns); /* added to them */
void place_domain_init(const struct lithos_model *m, struct domain *d);

/* slice.c: domains take turns */
struct domain *slice_domain_get(struct lithos_model *m, uint64_t number);
void slice_domain_put(struct lithos_model *m, struct domain *d);
void slice_active(struct lithos_model *m, struct domain *d, int change);
void slice_timer(struct lithos_model *m);
void slice_set(struct lithos_model *m, struct domain *d, uint64_t slice_ns); /* from this moment on */
static inline uint64_t domain_time(const struct lithos_model *m, const struct domain *d)
{
    return d->running ? m->now_ns - d->offset_ns : d->frozen_ns;
}
