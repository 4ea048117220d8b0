/* The parts of the predictor: bounded tables (predict_table.c), an operator's samples (predict_operator.c), a
 * function's grids (predict_waves.c), and how they are put together (predict_init.c). Durations are floats of
 * ns: exact to 60 ns in a second. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/predict.h"

#define LITHOS_PREDICT_NOWHERE UINT32_MAX

/* Tables: sets of 8 ways, the one used longest ago of a set makes room. Work is bounded whatever the keys. */
#define LITHOS_PREDICT_WAYS 8u

struct lithos_predict_set {
    uint32_t tag[LITHOS_PREDICT_WAYS]; /* 0: empty */
    uint32_t used[LITHOS_PREDICT_WAYS];
};

struct lithos_predict_table {
    struct lithos_predict_set *sets;
    uint32_t set_count;
    uint32_t tick;
    uint64_t *forgotten; /* counts those that made room */
};

static inline uint64_t lithos_predict_mix(uint64_t a, uint64_t b)
{
    const unsigned __int128 product =
        (unsigned __int128)(a ^ 0xa0761d6478bd642full) * (b ^ 0xe7037ed1a0b428dbull);
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Never 0. */
static inline uint32_t lithos_predict_tag(uint64_t hash)
{
    return (uint32_t)hash ? (uint32_t)hash : 1;
}

static inline uint32_t lithos_predict_set_of(const struct lithos_predict_table *t, uint64_t hash)
{
    return (uint32_t)((hash >> 32) * t->set_count >> 32);
}

void lithos_predict_table_init(struct lithos_predict_table *t, struct lithos_predict_set *sets,
                               uint32_t entries, uint64_t *forgotten);
/* The entry of a key, made if need be; ret_new: it was, and what the caller keeps under that index is to be begun
 * anew. */
uint32_t lithos_predict_table_get(struct lithos_predict_table *t, uint64_t hash, bool *ret_new);
/* Whether the entry is still that key's. */
static inline bool lithos_predict_table_holds(const struct lithos_predict_table *t, uint32_t entry,
                                              uint32_t tag)
{
    return entry / LITHOS_PREDICT_WAYS < t->set_count &&
           t->sets[entry / LITHOS_PREDICT_WAYS].tag[entry % LITHOS_PREDICT_WAYS] == tag;
}

/* Operators. */
#define LITHOS_PREDICT_WIDTHS 4u

struct lithos_predict_window {
    float value_ns[LITHOS_PREDICT_WINDOW_MAX]; /* a ring; what is not in use is infinite */
    float spread_ns;                           /* between the quartiles */
    uint8_t next;                              /* where the next sample goes */
    int8_t side;                               /* of the band where the newest lies: -1, 0 within, 1 */
    uint8_t spare[10];
};

/* What a prediction reads is one cache line; the samples behind it are read when one is added. */
struct lithos_predict_operator {
    /* How far off each method has been at launches of this operator: a running mean, of estimates at a known width.
     * Negative: none yet. */
    float error_ns[LITHOS_PREDICT_METHOD_MAX];
    uint32_t observed; /* launches that had such an estimate */
    uint32_t shape;    /* tag of the shape seen last */
    uint16_t width[LITHOS_PREDICT_WIDTHS];
    uint8_t count[LITHOS_PREDICT_WIDTHS]; /* samples in the window; 0: unused */
    uint8_t idle[LITHOS_PREDICT_WIDTHS];  /* samples at other widths since, at most 255 */
    float median_ns[LITHOS_PREDICT_WIDTHS];
    uint32_t spare[2];
    struct lithos_predict_window window[LITHOS_PREDICT_WIDTHS];
} __attribute__((aligned(64)));

enum lithos_predict_kind {
    LITHOS_PREDICT_KIND_NONE,
    LITHOS_PREDICT_KIND_EXACT,
    LITHOS_PREDICT_KIND_FITTED,
    LITHOS_PREDICT_KIND_LINEAR,
    LITHOS_PREDICT_KIND_WAVES,
    LITHOS_PREDICT_KIND_MAX,
};

struct lithos_predict_estimate {
    enum lithos_predict_kind kind;
    float duration_ns;
    float guess; /* how far off it may be for what is not known, as a share of the duration */
    uint32_t samples;
};

static inline float lithos_predict_clamp(double duration_ns)
{
    if (!(duration_ns > 0)) /* NaN too */
        return 0;
    return duration_ns > (double)LITHOS_PREDICT_DURATION_MAX_NS ? (float)LITHOS_PREDICT_DURATION_MAX_NS
                                                                : (float)duration_ns;
}

/* A straight line through weighted points, y = slope * x + base, neither below 0. */
struct lithos_predict_line {
    double w, x, y, xx, xy;
    unsigned points;
};

void lithos_predict_line_add(struct lithos_predict_line *line, double x, double y, double weight);
/* False when the points are not at two different x. */
bool lithos_predict_line_fit(const struct lithos_predict_line *line, double *ret_slope, double *ret_base);

void lithos_predict_operator_estimate(const struct lithos_predict_operator *op, uint16_t width,
                                      struct lithos_predict_estimate *ret_estimate);
/* Add a sample; true when it was the second of a change and the window has started over. ret_median_ns: of the
 * window it is in now. */
bool lithos_predict_operator_add(struct lithos_predict_operator *op, uint16_t width, float duration_ns,
                                 uint32_t window, float *ret_median_ns);
/* Begin one that has seen nothing. */
void lithos_predict_operator_begin(struct lithos_predict_operator *op);
/* Account for a launch of this operator: how far off each method was that knew the width, negative for others. */
void lithos_predict_operator_score(struct lithos_predict_operator *op,
                                   const float error_ns[LITHOS_PREDICT_METHOD_MAX]);

/* Functions: one grid seen for each power of two of blocks, modulo LITHOS_PREDICT_GRIDS. */
#define LITHOS_PREDICT_GRIDS 8u

struct lithos_predict_grid {
    float waves; /* 0: unused */
    float duration_ns;
};

struct lithos_predict_function {
    struct lithos_predict_grid grid[LITHOS_PREDICT_GRIDS];
} __attribute__((aligned(64)));

float lithos_predict_waves(uint32_t blocks, uint32_t blocks_per_sm, uint32_t width, uint32_t sms_per_tpc);
void lithos_predict_function_add(struct lithos_predict_function *f, uint32_t blocks, float waves,
                                 float duration_ns);
void lithos_predict_function_estimate(const struct lithos_predict_function *f, float waves,
                                      struct lithos_predict_estimate *ret_estimate);

/* The predictor: made by predict_init.c, used by predict.c. */
#define LITHOS_PREDICT_PATH_FACTOR 0x9e3779b97f4a7c15ull

struct lithos_predict_stream {
    uint32_t epoch; /* of the last sync of all that it has seen */
    uint32_t place; /* launches since the last sync */
    uint64_t path;  /* sum of before[i] * LITHOS_PREDICT_PATH_FACTOR ^ (how many came after) over the path */
    uint64_t before[LITHOS_PREDICT_PATH_MAX]; /* their shapes, a ring; 0: not so many yet */
};

struct lithos_predictor {
    struct lithos_predict_config config;
    struct lithos_predict_table table[LITHOS_PREDICT_METHOD_MAX];
    struct lithos_predict_operator *op[LITHOS_PREDICT_METHOD_MAX];
    struct lithos_predict_table function_table;
    struct lithos_predict_function *function;
    struct lithos_predict_table stream_table;
    struct lithos_predict_stream *stream;
    uint32_t epoch;
    uint64_t path_leaves; /* LITHOS_PREDICT_PATH_FACTOR ^ path_depth: the weight of what leaves the path */
    /* How far off estimates of a kind have been, as a share of the duration. */
    float kind_error[LITHOS_PREDICT_KIND_MAX];
    struct lithos_predict_stats stats;
};
