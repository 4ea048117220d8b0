/* What is known of an operator: the median of its last durations at each width. */
#include <string.h>

#include "core/rightsize_internal.h"

/* Samples at other widths after which what a width showed is out of date; of what is launched often in a request, those of so many. */
#define OLD_SAMPLES 1024u
#define OLD_REQUESTS 128u
/* So many samples in a row off the median by more than this are no noise: the operator is another one now. */
#define STRIKES 4u
#define BAND_PART 0.2f
#define BAND_NS 4000.0f
/* With more launches than this off their median it is several kinds of work under one name, and its medians say little. */
#define ODD_MOST 0.025f
#define ODD_SMOOTH 128.0f

struct rightsize_operator *rightsize_find(struct lithos_rightsize *r, uint64_t key, bool make)
{
    uint64_t h = key * 0x9e3779b97f4a7c15ull;
    struct rightsize_operator *set, *oldest;

    h ^= h >> 29;
    set = oldest = &r->op[h * 0xbf58476d1ce4e5b9ull % r->sets * RIGHTSIZE_WAYS];
    for (unsigned i = 0; i < RIGHTSIZE_WAYS; i++) {
        if (set[i].used && set[i].key == key)
            return &set[i];
        if (set[i].used < oldest->used)
            oldest = &set[i];
    }
    if (!make)
        return NULL;
    r->stats.forgotten += oldest->used != 0;
    r->committed_ns -= (double)oldest->costs_ns;
    memset(oldest, 0, sizeof *oldest);
    oldest->key = key;
    oldest->tag = ++r->tags;
    return oldest;
}

const struct rightsize_point *rightsize_point(const struct rightsize_operator *op, uint32_t width)
{
    for (unsigned i = 0; i < RIGHTSIZE_WIDTHS; i++)
        if (op->point[i].width == width)
            return &op->point[i];
    return NULL;
}

static float median_of(float *v, unsigned n)
{
    for (unsigned i = 1; i < n; i++) {
        const float x = v[i];
        unsigned at = i;
        for (; at && v[at - 1] > x; at--)
            v[at] = v[at - 1];
        v[at] = x;
    }
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

/* Median, and what it may be off by: of n normal samples its standard deviation is 1.25 sigma / sqrt(n), and sigma 1.48
 * times the median distance from it. */
static void renew(struct rightsize_point *p)
{
    static const float inverse_root[RIGHTSIZE_WINDOW + 1] = {1,       1,       0.7071f, 0.5774f, 0.5f,
                                                             0.4472f, 0.4082f, 0.378f,  0.3536f};
    float v[RIGHTSIZE_WINDOW];

    memcpy(v, p->sample_ns, p->count * sizeof *v);
    p->median_ns = median_of(v, p->count);
    for (unsigned i = 0; i < p->count; i++)
        v[i] =
            p->sample_ns[i] > p->median_ns ? p->sample_ns[i] - p->median_ns : p->median_ns - p->sample_ns[i];
    p->error_ns = 2 * 1.25f * 1.4826f * median_of(v, p->count) * inverse_root[p->count];
}

static bool strikes(struct rightsize_operator *op, const struct rightsize_point *p, float ns)
{
    const float band = LITHOS_MAX(LITHOS_MAX(BAND_PART * p->median_ns, BAND_NS), 2 * p->error_ns);
    const float off = ns > p->median_ns ? ns - p->median_ns : p->median_ns - ns;

    if (p->count >= RIGHTSIZE_ENOUGH)
        op->odd += ((off > band ? 1.0f : 0.0f) - op->odd) / ODD_SMOOTH;
    if (p->count < RIGHTSIZE_ENOUGH || off <= band) {
        op->strikes = 0;
        return false;
    }
    return ++op->strikes >= STRIKES;
}

/* The point of a width: its own, a free one, or that of the width that is out of use for longest, but for the widest:
 * it is the measure. */
static struct rightsize_point *make_point(struct rightsize_operator *op, uint32_t width)
{
    struct rightsize_point *spare = NULL;
    uint32_t widest = 0;

    for (unsigned i = 0; i < RIGHTSIZE_WIDTHS; i++) {
        if (op->point[i].width == width)
            return &op->point[i];
        widest = LITHOS_MAX(widest, op->point[i].width);
    }
    for (unsigned i = 0; i < RIGHTSIZE_WIDTHS; i++) {
        struct rightsize_point *p = &op->point[i];
        if (!p->width) {
            spare = p;
            break;
        }
        if (p->width != widest && p->width != op->best && p->width != op->trying &&
            (!spare || p->idle > spare->idle))
            spare = p;
    }
    *spare = (struct rightsize_point){.width = (uint16_t)width};
    return spare;
}

void rightsize_add(struct lithos_rightsize *r, struct rightsize_operator *op, uint64_t duration_ns,
                   uint32_t tpcs)
{
    const float ns = (float)duration_ns;
    const uint32_t old = LITHOS_MAX(OLD_SAMPLES, OLD_REQUESTS * op->usual);
    struct rightsize_point *p = make_point(op, tpcs);

    if (p->count && strikes(op, p, ns)) {
        memset(op->point, 0, sizeof op->point);
        memset(op->slower, 0, sizeof op->slower);
        op->best = 0;
        op->odd = 0;
        op->strikes = 0;
        r->stats.changes++;
        p = make_point(op, tpcs);
    }
    p->sample_ns[p->next] = ns;
    p->next = (p->next + 1) % RIGHTSIZE_WINDOW;
    p->count += p->count < RIGHTSIZE_WINDOW;
    p->idle = 0;
    renew(p);
    for (unsigned i = 0; i < RIGHTSIZE_WIDTHS; i++) {
        struct rightsize_point *other = &op->point[i];
        if (other != p && other->width && ++other->idle > old)
            *other = (struct rightsize_point){0};
    }
}

bool rightsize_fit(const struct rightsize_operator *op, double *ret_m_ns, double *ret_b_ns)
{
    struct lithos_predict_line line = {0};

    for (unsigned i = 0; i < RIGHTSIZE_WIDTHS; i++)
        if (op->point[i].width && op->point[i].count >= RIGHTSIZE_ENOUGH)
            lithos_predict_line_add(&line, 1.0 / op->point[i].width, (double)op->point[i].median_ns,
                                    op->point[i].count);
    return lithos_predict_line_fit(&line, ret_m_ns, ret_b_ns);
}

bool rightsize_is_mixed(const struct rightsize_operator *op)
{
    return op->odd > ODD_MOST;
}

enum lithos_rightsize_why rightsize_why_all(const struct rightsize_operator *op)
{
    return rightsize_is_mixed(op) ? LITHOS_RIGHTSIZE_MIXED : LITHOS_RIGHTSIZE_ALL;
}
