#include <assert.h>
#include <string.h>

#include "base/util.h"
#include "core/predict_internal.h"

/* Samples that a width must have to be a point of the line through widths. */
#define FIT_SAMPLES 3u
/* Samples at other widths after which a width is out of use. */
#define IDLE_MOST 128u
/* The band around a median in which a sample is nothing new: at least this, at least a part of the median (a
 * larger one while there are few samples), at least so many times what lies between the quartiles (which say little of few samples). */
#define BAND_NS 10000.0f
#define BAND_PART 0.0625f
#define BAND_PART_FEW 0.125f
#define BAND_FEW 4u
#define BAND_SPREADS 1.5f
/* Expected error, as a part of the duration, of the first sample of an operator. */
#define GUESS_ONE_SAMPLE 0.15f
/* Weight of a new error in the running mean. */
#define ERROR_WEIGHT 0.125f

void lithos_predict_line_add(struct lithos_predict_line *line, double x, double y, double weight)
{
    line->w += weight;
    line->x += weight * x;
    line->y += weight * y;
    line->xx += weight * x * x;
    line->xy += weight * x * y;
    line->points++;
}

bool lithos_predict_line_fit(const struct lithos_predict_line *line, double *ret_slope, double *ret_base)
{
    const double det = line->w * line->xx - line->x * line->x;
    double slope, base;

    /* The determinant of points at one x is 0 but for rounding. */
    if (line->points < 2 || !(det > 1e-9 * line->w * line->xx))
        return false;
    slope = (line->w * line->xy - line->x * line->y) / det;
    base = (line->y - slope * line->x) / line->w;
    if (slope < 0) {
        slope = 0;
        base = line->y / line->w;
    } else if (base < 0) {
        slope = line->xy / line->xx;
        base = 0;
    }
    *ret_slope = slope;
    *ret_base = base;
    return true;
}

/* At a width not seen: paper 5.7 scales linearly, which overrates how much short kernels gain from more TPCs, so
 * two widths make a line in 1/t as soon as they are known well. */
static void extrapolate(const struct lithos_predict_operator *op, uint16_t width,
                        struct lithos_predict_estimate *ret_estimate)
{
    struct lithos_predict_line line = {0};
    unsigned nearest = LITHOS_PREDICT_WIDTHS;
    double nearest_ratio = 0, slope, base, duration_ns;
    uint32_t samples = 0;

    for (unsigned i = 0; i < LITHOS_PREDICT_WIDTHS; i++) {
        if (op->count[i] == 0)
            continue;
        const double ratio =
            width > op->width[i] ? (double)width / op->width[i] : (double)op->width[i] / width;
        if (nearest == LITHOS_PREDICT_WIDTHS || ratio < nearest_ratio) {
            nearest = i;
            nearest_ratio = ratio;
        }
        if (op->count[i] >= FIT_SAMPLES) {
            lithos_predict_line_add(&line, 1.0 / op->width[i], (double)op->median_ns[i], op->count[i]);
            samples += op->count[i];
        }
    }
    if (nearest == LITHOS_PREDICT_WIDTHS) {
        ret_estimate->kind = LITHOS_PREDICT_KIND_NONE;
        return;
    }
    if (lithos_predict_line_fit(&line, &slope, &base)) {
        duration_ns = slope / width + base;
        ret_estimate->kind = LITHOS_PREDICT_KIND_FITTED;
        ret_estimate->samples = samples;
    } else {
        duration_ns = (double)op->median_ns[nearest] * op->width[nearest] / width;
        ret_estimate->kind = LITHOS_PREDICT_KIND_LINEAR;
        ret_estimate->samples = op->count[nearest];
    }
    ret_estimate->duration_ns = lithos_predict_clamp(duration_ns);
    ret_estimate->guess = 0; /* the caller knows how good these are */
}

void lithos_predict_operator_estimate(const struct lithos_predict_operator *op, uint16_t width,
                                      struct lithos_predict_estimate *ret_estimate)
{
    for (unsigned i = 0; i < LITHOS_PREDICT_WIDTHS; i++) {
        if (op->width[i] != width || op->count[i] == 0)
            continue;
        *ret_estimate = (struct lithos_predict_estimate){
            .kind = LITHOS_PREDICT_KIND_EXACT,
            .duration_ns = op->median_ns[i],
            .samples = op->count[i],
            .guess = GUESS_ONE_SAMPLE / (float)(op->count[i] * op->count[i]),
        };
        return;
    }
    extrapolate(op, width, ret_estimate);
}

void lithos_predict_operator_begin(struct lithos_predict_operator *op)
{
    memset(op, 0, offsetof(struct lithos_predict_operator, window));
    for (unsigned m = 0; m < LITHOS_PREDICT_METHOD_MAX; m++)
        op->error_ns[m] = -1;
}

void lithos_predict_operator_score(struct lithos_predict_operator *op,
                                   const float error_ns[LITHOS_PREDICT_METHOD_MAX])
{
    const float weight = LITHOS_MAX(ERROR_WEIGHT, 1.0f / (float)(op->observed + 1));
    bool any = false;

    for (unsigned m = 0; m < LITHOS_PREDICT_METHOD_MAX; m++) {
        if (error_ns[m] < 0)
            continue;
        if (op->error_ns[m] < 0)
            op->error_ns[m] = error_ns[m];
        else
            op->error_ns[m] += weight * (error_ns[m] - op->error_ns[m]);
        any = true;
    }
    op->observed += any && op->observed < UINT32_MAX - 1;
}

/* What a window is worth when room is needed for another width, at most 8 bits of idleness below the kind. */
static unsigned worth(const struct lithos_predict_operator *op, unsigned i)
{
    if (op->count[i] == 0 || op->idle[i] >= IDLE_MOST)
        return 0;
    if (op->count[i] < FIT_SAMPLES)
        return 1u << 8 | op->idle[i]; /* the older the better: it may yet come to be a point of the line */
    return 2u << 8 | (UINT8_MAX - op->idle[i]);
}

/* The window of a width. When many widths come in turn, some must be kept long enough to make a line; but none that
 * has not been used for long. */
static unsigned window_of(struct lithos_predict_operator *op, uint16_t width)
{
    unsigned at = 0;

    while (at < LITHOS_PREDICT_WIDTHS && !(op->width[at] == width && op->count[at]))
        at++;
    if (at == LITHOS_PREDICT_WIDTHS) {
        at = 0;
        for (unsigned i = 1; i < LITHOS_PREDICT_WIDTHS; i++) {
            if (worth(op, i) < worth(op, at))
                at = i;
        }
        op->width[at] = width;
        op->count[at] = 0;
    }
    for (unsigned i = 0; i < LITHOS_PREDICT_WIDTHS; i++)
        op->idle[i] = i == at ? 0 : op->idle[i] + (op->idle[i] < UINT8_MAX);
    return at;
}

/* The bits of floats that are not negative have the order of the values. */
typedef int32_t lanes __attribute__((vector_size(16)));
#define LANES 4u
#define PARTS (LITHOS_PREDICT_WINDOW_MAX / LANES)
static_assert(LITHOS_PREDICT_WINDOW_MAX % LANES == 0, "whole vectors");

static void begin(struct lithos_predict_window *w)
{
    for (unsigned i = 0; i < LITHOS_PREDICT_WINDOW_MAX; i++)
        w->value_ns[i] = __builtin_inff();
    w->next = 0;
    w->side = 0;
}

/* In vectors, so that summarize reads what was written in the pieces in which it was. */
static void insert(struct lithos_predict_window *w, uint8_t *count, uint32_t window, float duration_ns)
{
    const lanes number = {0, 1, 2, 3};
    lanes v[PARTS];
    int32_t bits;

    memcpy(&bits, &duration_ns, sizeof(bits));
    memcpy(v, w->value_ns, sizeof(v));
#pragma GCC unroll 3
    for (int i = 0; i < (int)PARTS; i++) {
        const lanes here = number == w->next - i * (int)LANES;
        v[i] = (v[i] & ~here) | (bits & here);
    }
    memcpy(w->value_ns, v, sizeof(v));
    w->next = w->next + 1u < window ? w->next + 1 : 0;
    *count += *count < window;
}

static float newest(const struct lithos_predict_window *w, uint32_t window)
{
    return w->value_ns[w->next ? w->next - 1u : window - 1];
}

static float band_of(float median_ns, float spread_ns, unsigned count)
{
    if (count < BAND_FEW)
        return LITHOS_MAX(BAND_NS, median_ns * BAND_PART_FEW);
    return LITHOS_MAX(BAND_NS, LITHOS_MAX(median_ns * BAND_PART, BAND_SPREADS * spread_ns));
}

static lanes larger(lanes a, lanes b)
{
    const lanes mask = a > b;
    return (a & mask) | (b & ~mask);
}

/* The value that `rank` others come before: the largest of those that at most `rank` are smaller than. */
static float ranked(const lanes v[PARTS], const lanes smaller[PARTS], unsigned rank)
{
    lanes best = {0};
    float value;
#pragma GCC unroll 3
    for (unsigned i = 0; i < PARTS; i++)
        best = larger(best, v[i] & (smaller[i] <= (int32_t)rank));
    best = larger(best, __builtin_shufflevector(best, best, 2, 3, 0, 1));
    best = larger(best, __builtin_shufflevector(best, best, 1, 0, 3, 2));
    memcpy(&value, &best, sizeof(value));
    return value;
}

/* The lower median of an even number: what is odd about early samples makes them long. Without a branch to
 * mispredict, for it runs at each sample. */
static void summarize(struct lithos_predict_operator *op, unsigned at)
{
    const unsigned n = op->count[at];
    lanes v[PARTS], smaller[PARTS] = {{0}};

    memcpy(v, op->window[at].value_ns, sizeof(v));
#pragma GCC unroll 12
    for (int i = 0; i < (int)LITHOS_PREDICT_WINDOW_MAX; i++) {
        const int32_t each = v[i / (int)LANES][i % (int)LANES];
#pragma GCC unroll 3
        for (unsigned k = 0; k < PARTS; k++)
            smaller[k] -= v[k] > each; /* true is -1 */
    }
    op->median_ns[at] = ranked(v, smaller, (n - 1) / 2);
    op->window[at].spread_ns = ranked(v, smaller, (3 * n - 1) / 4) - ranked(v, smaller, n / 4);
}

/* What changed the time at one width (a neighbour came, another kernel stands at this place) has changed it at
 * the others as well: keep their relation, and so the law through them. */
static void scale_others(struct lithos_predict_operator *op, unsigned at, float before_ns)
{
    for (unsigned i = 0; i < LITHOS_PREDICT_WIDTHS; i++) {
        if (i == at || op->count[i] == 0)
            continue;
        if (!(before_ns > 0)) {
            op->count[i] = 0;
            continue;
        }
        for (unsigned k = 0; k < op->count[i]; k++) {
            float *v = &op->window[i].value_ns[k];
            *v = lithos_predict_clamp((double)*v * (double)op->median_ns[at] / (double)before_ns);
        }
        op->window[i].side = 0;
        summarize(op, i);
    }
}

bool lithos_predict_operator_add(struct lithos_predict_operator *op, uint16_t width, float duration_ns,
                                 uint32_t window, float *ret_median_ns)
{
    const unsigned at = window_of(op, width);
    struct lithos_predict_window *w = &op->window[at];
    const float before_ns = op->median_ns[at];
    const uint8_t count = op->count[at];
    bool change = false;

    if (!count) {
        begin(w);
    } else {
        const float band = band_of(before_ns, w->spread_ns, count);
        const int side = (duration_ns > before_ns + band) - (duration_ns < before_ns - band);
        const float last = newest(w, window);
        change = side && side == w->side && count > 1 &&
                 __builtin_fabsf(last - duration_ns) <= band_of(last, 0, 1);
        w->side = (int8_t)side;
        if (change) {
            begin(w);
            op->count[at] = 0;
            insert(w, &op->count[at], window, last);
        }
    }
    insert(w, &op->count[at], window, duration_ns);
    summarize(op, at);
    if (change)
        scale_others(op, at, before_ns);
    *ret_median_ns = op->median_ns[at];
    return change;
}
