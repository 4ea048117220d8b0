/* How long will this kernel run? Learned online from the durations that the GPU itself reports, with no
 * profiling run (paper 5.7). One predictor a tenant and GPU; pure: no I/O, no clock, no thread, all memory given
 * at init. docs/prediction.md has the reasons, the rules in full, and what was measured.
 *
 * A launch is recognised in four ways, each of which keeps what it has seen of it:
 *   ordinal  the n-th launch of its stream since the last sync, whatever it is (the paper's operator);
 *   shape    the function with this grid, block, shared memory, registers and cluster, wherever it stands;
 *   context  the shape together with those of the few launches before it on its stream since the last sync;
 *   path     the same with many launches before it, which tells apart what looks alike from near by.
 * Each predicts every launch, its errors are kept operator by operator, and the one with the least expected
 * error here and now gives the answer. For a width in TPCs not seen the time is l = m/t + b once two other widths
 * have been seen, and proportional to 1/t before; a shape not seen, of a function that has been, goes by waves.
 *
 * Reset rules: a sync begins the ordinals and the context of its stream anew. Two samples in a row that leave
 * the band around the median to the same side and agree with each other are a change: the window starts over
 * with these two, and what is known of other widths is scaled with it. An operator unused for longest makes room
 * when its set of a table is full. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define LITHOS_PREDICT_WINDOW_MAX 12u
#define LITHOS_PREDICT_PATH_MAX 64u
/* Longer than this no sample is believed: one hour. */
#define LITHOS_PREDICT_DURATION_MAX_NS 3600000000000ull
/* Slots of the histogram of errors: 8 to an octave, so a quantile is at most an eighth too high. */
#define LITHOS_PREDICT_ERROR_SLOTS 328u

enum lithos_predict_method {
    LITHOS_PREDICT_BY_ORDINAL,
    LITHOS_PREDICT_BY_SHAPE,
    LITHOS_PREDICT_BY_CONTEXT,
    LITHOS_PREDICT_BY_PATH,
    LITHOS_PREDICT_METHOD_MAX,
};

/* Where an answer comes from. */
enum lithos_predict_source {
    LITHOS_PREDICT_NONE,    /* nothing known: duration 0, confidence 0 */
    LITHOS_PREDICT_ORDINAL, /* median of this place at this width */
    LITHOS_PREDICT_SHAPE,   /* median of this shape at this width */
    LITHOS_PREDICT_CONTEXT, /* median of this shape behind these shapes at this width */
    LITHOS_PREDICT_PATH,    /* the same behind a longer row of shapes */
    LITHOS_PREDICT_FITTED,  /* l = m/t + b through two or more other widths */
    LITHOS_PREDICT_LINEAR,  /* proportional to 1/t from the nearest other width */
    LITHOS_PREDICT_WAVES,   /* by waves from other grids of the function */
    LITHOS_PREDICT_SOURCE_MAX,
};

struct lithos_kernel_shape {
    uint64_t function;     /* what tells functions apart: a hash of the name, or an id; any value */
    uint32_t grid[3];      /* blocks */
    uint32_t block[3];     /* threads */
    uint32_t shared_bytes; /* a block, static and dynamic */
    uint32_t registers;    /* a thread; 0: not known, taken not to limit */
    uint32_t cluster;      /* blocks a cluster; 0 or 1: none */
};

struct lithos_predict_config {
    /* The card. */
    uint32_t tpcs, sms_per_tpc;
    uint32_t sm_threads, sm_blocks, sm_registers, sm_shared_bytes;
    uint32_t block_shared_reserved_bytes; /* taken by the system, a block; may be 0 */
    uint32_t warp_register_unit;          /* registers are given to a warp in such pieces */
    /* Bounds of memory: entries of each table, rounded up to a multiple of 8; at most 1 Mi each. An
     * ordinal, shape, context or path takes 328 bytes, a function 72, a stream 536. Memory is not touched before it
     * is used, but for 8 bytes an entry. */
    uint32_t ordinals, shapes, contexts, paths, functions, streams;
    /* How it predicts. */
    uint32_t window;        /* samples of which the median is taken, 1 to LITHOS_PREDICT_WINDOW_MAX */
    uint32_t context_depth; /* launches before it that make a context, 1 to LITHOS_PREDICT_PATH_MAX */
    uint32_t path_depth;    /* and a path, 1 to LITHOS_PREDICT_PATH_MAX */
    uint64_t miss_ns;       /* an answer further off than this counts as a miss */
    uint32_t
        methods; /* those that may answer, a bit each (1 << LITHOS_PREDICT_BY_...); all are kept and scored */
};

struct lithos_prediction {
    uint64_t duration_ns;
    float confidence; /* 0 to 1; docs/prediction.md says what was measured at which */
    enum lithos_predict_source source;
    enum lithos_predict_method method; /* whose operator; BY_SHAPE for WAVES and NONE */
};

/* What the predictor must have back when the launch has ended. Kept by the caller beside its own record of the
 * launch (80 bytes, plain data); drop it when the end was never seen. */
struct lithos_predict_ticket {
    uint32_t op[LITHOS_PREDICT_METHOD_MAX];
    uint32_t tag[LITHOS_PREDICT_METHOD_MAX];
    float estimate_ns[LITHOS_PREDICT_METHOD_MAX]; /* negative: had none */
    float answer_ns;
    uint32_t function, function_tag;
    uint32_t blocks, blocks_per_sm;
    uint16_t width;                          /* TPCs that count: no more than the grid can use */
    uint16_t useful_tpcs;                    /* with more it runs no faster: one block an SM */
    uint8_t kind[LITHOS_PREDICT_METHOD_MAX]; /* of estimate_ns */
    uint8_t source, method;                  /* of the answer */
    uint8_t spare[2];
};

/* How one way of predicting has fared. A launch for which it had no answer counts as a prediction of 0: off when
 * the launch took longer than miss_ns. */
struct lithos_predict_score {
    uint64_t launches; /* observed */
    uint64_t silent;   /* of them without an answer */
    uint64_t off;      /* of them further than miss_ns from the answer */
};

struct lithos_predict_stats {
    struct lithos_predict_score chosen; /* the answers given */
    /* Of them, |answer - duration|: lithos_predict_error_quantile_ns. */
    uint64_t error[LITHOS_PREDICT_ERROR_SLOTS];
    struct lithos_predict_score method[LITHOS_PREDICT_METHOD_MAX]; /* each alone; by shape includes waves */
    uint64_t source[LITHOS_PREDICT_SOURCE_MAX];     /* launches answered from there and observed */
    uint64_t source_off[LITHOS_PREDICT_SOURCE_MAX]; /* of them, off */
    uint64_t submitted;
    uint64_t other_width; /* ran at another width than predicted for: learned from, not scored */
    uint64_t refused;     /* samples longer than LITHOS_PREDICT_DURATION_MAX_NS */
    uint64_t changes;     /* windows started over */
    uint64_t forgotten;   /* operators (of ordinals, shapes, contexts, paths) that made room for others */
    uint64_t forgotten_functions, forgotten_streams;
    uint64_t late;          /* samples of operators that had been forgotten when they came */
    uint64_t past_ordinals; /* launches too far from the last sync to have a place of their own */
};

struct lithos_predictor;

/* What to use where nothing is known better; the card's part is left as it is. */
void lithos_predict_config_defaults(struct lithos_predict_config *config);

/* Bytes that a predictor takes. 0, or -EINVAL: something of the card is 0 (block_shared_reserved_bytes may
 * be), more than 65535 TPCs, no method or an unknown one, a table of no entries or of more than 1 Mi, a window or depth out of range. */
int lithos_predictor_size(const struct lithos_predict_config *config, size_t *ret_bytes);
/* Begin in mem, which is the caller's and outlives the predictor; nothing is to be freed. mem need not be aligned
 * or zeroed. 0; -EINVAL (config, as above); -ENOSPC (fewer bytes than lithos_predictor_size says). */
int lithos_predictor_init(void *mem, size_t bytes, const struct lithos_predict_config *config,
                          struct lithos_predictor **ret_predictor);

/* A launch on a stream, in the order of its submission, on tpcs TPCs (0, or more than the card has: all of it).
 * Any values are taken; a zero in a grid or block counts as 1. */
void lithos_predictor_submit(struct lithos_predictor *p, uint64_t stream,
                             const struct lithos_kernel_shape *shape, uint32_t tpcs,
                             struct lithos_prediction *ret_prediction,
                             struct lithos_predict_ticket *ret_ticket);
/* The same launch, what if it ran on tpcs TPCs? Changes nothing. */
void lithos_predictor_what_if(const struct lithos_predictor *p, const struct lithos_predict_ticket *ticket,
                              uint32_t tpcs, struct lithos_prediction *ret_prediction);
/* It has ended after duration_ns, on tpcs TPCs. Once a ticket, in any order. 0, or -ERANGE: longer than
 * LITHOS_PREDICT_DURATION_MAX_NS, not learned from, counted. */
int lithos_predictor_observe(struct lithos_predictor *p, const struct lithos_predict_ticket *ticket,
                             uint64_t duration_ns, uint32_t tpcs);
/* The tenant waited for a stream, or for all. */
void lithos_predictor_sync(struct lithos_predictor *p, uint64_t stream);
void lithos_predictor_sync_all(struct lithos_predictor *p);

/* Good as long as the predictor. */
const struct lithos_predict_stats *lithos_predictor_stats(const struct lithos_predictor *p);
/* Error that a share q (0 to 1) of the answers in a histogram does not exceed, rounded up by at most an eighth; 0
 * when there are none. */
uint64_t lithos_predict_error_quantile_ns(const uint64_t error[LITHOS_PREDICT_ERROR_SLOTS], double q);
/* "ordinal", "waves", ...; never NULL. */
const char *lithos_predict_source_name(enum lithos_predict_source source);
