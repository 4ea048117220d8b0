#include "core/clockmap.h"

#include <string.h>

#include "base/util.h"

/* A line is drawn anew when a point contradicts it, and else this often. */
#define FIT_NS 20000000ull
/* With a free rate: the span of points from which the rate is first believed. */
#define FREE_SPAN_NS 50e6
#define FREE_JUMP_NS 100e6
/* Points over so long tell the slope. */
#define SLOPE_SPAN_NS 1e9
/* How far off a slope that was given may be. */
#define GIVEN_RATE_OFF 1e-6
/* Thirds taken, and halves: 2 / 1.5^70 is nothing. */
#define ROOM_STEPS 70

void lithos_clockmap_init(struct lithos_clockmap *m, uint32_t drift_max_ppb)
{
    memset(m, 0, sizeof *m);
    m->drift_max_ppb = drift_max_ppb;
    m->rate = m->given_rate = 1;
}

void lithos_clockmap_expect(struct lithos_clockmap *m, int64_t drift_ppb)
{
    m->rate = m->given_rate = 1 + (double)drift_ppb / 1e9;
    m->slope_given = true;
}

/* Twice the area left of a -> b -> c: positive when c lies left of (above, for b right of a) the line. */
static double turn(const struct lithos_clockmap_point *a, const struct lithos_clockmap_point *b,
                   const struct lithos_clockmap_point *c)
{
    return (b->gpu - a->gpu) * (c->host - a->host) - (b->host - a->host) * (c->gpu - a->gpu);
}

/* Andrew's monotone chain over points sorted by gpu; side +1: the lower hull, -1: the upper one. */
static void rebuild(struct lithos_clockmap_hull *h, double side)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < h->count; i++) {
        while (kept >= 2 && side * turn(&h->point[kept - 2], &h->point[kept - 1], &h->point[i]) <= 0)
            kept--;
        h->point[kept++] = h->point[i];
    }
    h->count = kept;
}

/* A full hull loses the point that matters least: the one closest to the line between its neighbours. */
static void make_room(struct lithos_clockmap_hull *h, double side)
{
    uint32_t least = 1;
    double least_area = -1;
    for (uint32_t i = 1; i + 1 < h->count; i++) {
        double area = side * turn(&h->point[i - 1], &h->point[i], &h->point[i + 1]);
        if (least_area >= 0 && area >= least_area)
            continue;
        least = i;
        least_area = area;
    }
    memmove(&h->point[least], &h->point[least + 1], (h->count - least - 1) * sizeof h->point[0]);
    h->count--;
}

static void add(struct lithos_clockmap_hull *h, double side, struct lithos_clockmap_point p)
{
    if (h->count == LITHOS_CLOCKMAP_POINTS)
        make_room(h, side);
    uint32_t at = h->count;
    while (at > 0 && h->point[at - 1].gpu > p.gpu)
        at--;
    if (at > 0 && h->point[at - 1].gpu == p.gpu) { /* of two at one place the stricter */
        if (side * (p.host - h->point[at - 1].host) < 0)
            h->point[at - 1].host = p.host;
    } else {
        memmove(&h->point[at + 1], &h->point[at], (h->count - at) * sizeof h->point[0]);
        h->point[at] = p;
        h->count++;
    }
    rebuild(h, side);
}

/* Both halves of the window as one hull. */
struct whole {
    uint32_t count;
    struct lithos_clockmap_point point[2 * LITHOS_CLOCKMAP_POINTS];
};

static void merge(const struct lithos_clockmap_hull half[2], double side, struct whole *ret)
{
    uint32_t i = 0, j = 0, kept = 0;
    while (i < half[0].count || j < half[1].count) {
        bool first =
            j == half[1].count || (i < half[0].count && half[0].point[i].gpu <= half[1].point[j].gpu);
        struct lithos_clockmap_point p = first ? half[0].point[i++] : half[1].point[j++];
        while (kept >= 2 && side * turn(&ret->point[kept - 2], &ret->point[kept - 1], &p) <= 0)
            kept--;
        ret->point[kept++] = p;
    }
    ret->count = kept;
}

/* The least of host - rate * gpu (side +1), or the greatest (-1). */
static double extreme(const struct whole *h, double side, double rate)
{
    double best = h->point[0].host - rate * h->point[0].gpu;
    for (uint32_t i = 1; i < h->count; i++) {
        double v = h->point[i].host - rate * h->point[i].gpu;
        if (side * (v - best) < 0)
            best = v;
    }
    return best;
}

/* The least of host - rate * gpu when the rate may be off by so much either way since a point: of the last point's time. */
static double extreme_lately(const struct whole *h, double rate, double off)
{
    double last = h->point[h->count - 1].gpu, best = 0;
    for (uint32_t i = 0; i < h->count; i++) {
        double v = h->point[i].host - rate * h->point[i].gpu + off * (last - h->point[i].gpu);
        if (i == 0 || v < best)
            best = v;
    }
    return best;
}

/* How far the line along an edge of the seen hull lies above all submit points: negative when it contradicts one. */
static double room_at(const struct whole *seen, const struct whole *submit, double rate)
{
    return extreme(seen, 1, rate) - extreme(submit, -1, rate);
}

/* The slope next to rate that contradicts nothing, or least: the room is concave in it, so thirds close in on its greatest, and
 * halves on where it is enough. Of launches that were all submitted at once many slopes contradict nothing. */
static double nearest_with_room(const struct whole *seen, const struct whole *submit, double rate)
{
    double low = rate * 0.5, high = rate * 2;
    for (int i = 0; i < ROOM_STEPS; i++) {
        double third = (high - low) / 3;
        if (room_at(seen, submit, low + third) < room_at(seen, submit, high - third))
            low += third;
        else
            high -= third;
    }
    double best = (low + high) / 2, most = room_at(seen, submit, best);
    double enough = most > 0 ? 0 : most, without = rate;
    for (int i = 0; i < ROOM_STEPS; i++) {
        double middle = (best + without) / 2;
        if (room_at(seen, submit, middle) < enough)
            without = middle;
        else
            best = middle;
    }
    return best;
}

static void fit(struct lithos_clockmap *m)
{
    struct whole seen, submit;
    merge(m->seen, 1, &seen);
    merge(m->submit, -1, &submit);
    if (!seen.count || !submit.count)
        return;
    const struct lithos_clockmap_point *first = &seen.point[0], *last = &seen.point[seen.count - 1];
    double span = last->gpu - first->gpu, middle = first->gpu + span / 2;
    double rate = m->rate;
    if (m->drift_max_ppb == 0 && last->host - first->host < FREE_SPAN_NS)
        return;
    for (uint32_t i = 0; i + 1 < seen.count; i++)
        if (seen.point[i + 1].gpu >= middle && seen.point[i + 1].gpu > seen.point[i].gpu) {
            rate =
                (seen.point[i + 1].host - seen.point[i].host) / (seen.point[i + 1].gpu - seen.point[i].gpu);
            break;
        }
    /* A short edge in the middle says little of the slope, and the line along it may cut submissions far from there. */
    if (rate > 0 && room_at(&seen, &submit, rate) < 0)
        rate = nearest_with_room(&seen, &submit, rate);
    double off = 0;
    if (m->drift_max_ppb) {
        double most = (double)m->drift_max_ppb / 1e9;
        if (span >= SLOPE_SPAN_NS) {
            rate = rate > 1 + most ? 1 + most : rate < 1 - most ? 1 - most : rate;
            m->slope_known = true;
        } else { /* says more of who looked when than of the clocks */
            rate = m->rate;
            off = m->slope_known ? GIVEN_RATE_OFF : most;
        }
    } else if (rate <= 0) {
        return;
    }
    m->rate = rate;
    m->at = extreme_lately(&seen, rate, off);
    double room = m->at - extreme(&submit, -1, rate);
    m->bound_ns = room > 0 ? room : 0;
    m->fitted = true;
}

static struct lithos_clockmap_point point_of(const struct lithos_clockmap *m, uint64_t gpu_ns,
                                             uint64_t host_ns)
{
    return (struct lithos_clockmap_point){(double)(int64_t)(gpu_ns - m->gpu_anchor),
                                          (double)(int64_t)(host_ns - m->host_anchor)};
}

static void start_over(struct lithos_clockmap *m, uint64_t gpu_ns, uint64_t seen_ns)
{
    m->seen[0].count = m->seen[1].count = m->submit[0].count = m->submit[1].count = 0;
    m->gpu_anchor = gpu_ns;
    m->host_anchor = m->half_begin_ns = seen_ns;
    m->known = true;
    m->fitted = false;
    m->slope_known = m->slope_given;
    m->rate = m->given_rate;
}

static bool jumped(const struct lithos_clockmap *m, struct lithos_clockmap_point seen,
                   struct lithos_clockmap_point submit)
{
    double line = m->at + m->rate * seen.gpu;
    double most = m->drift_max_ppb ? (double)LITHOS_CLOCKMAP_JUMP_NS : FREE_JUMP_NS;
    return m->fitted && (seen.host < line - most || submit.host > line + most);
}

bool lithos_clockmap_observe(struct lithos_clockmap *m, uint64_t submit_ns, uint64_t gpu_ns, uint64_t seen_ns)
{
    bool jump = false;
    if (!m->known)
        start_over(m, gpu_ns, seen_ns);
    struct lithos_clockmap_point seen = point_of(m, gpu_ns, seen_ns), submit = point_of(m, gpu_ns, submit_ns);
    if (jumped(m, seen, submit)) {
        jump = true;
        m->jumps++;
        start_over(m, gpu_ns, seen_ns);
        seen = point_of(m, gpu_ns, seen_ns);
        submit = point_of(m, gpu_ns, submit_ns);
    }
    if (seen_ns - m->half_begin_ns >= LITHOS_CLOCKMAP_WINDOW_NS) {
        m->seen[1] = m->seen[0];
        m->submit[1] = m->submit[0];
        m->seen[0].count = m->submit[0].count = 0;
        m->half_begin_ns = seen_ns;
    }
    m->samples++;
    add(&m->seen[0], 1, seen);
    add(&m->submit[0], -1, submit);
    bool against = m->fitted && seen.host < m->at + m->rate * seen.gpu;
    if (!m->fitted || against || seen_ns - m->fit_ns >= FIT_NS) {
        m->fit_ns = seen_ns;
        fit(m);
    }
    return jump;
}

bool lithos_clockmap_host(const struct lithos_clockmap *m, uint64_t gpu_ns, uint64_t *ret_host_ns)
{
    if (!m->fitted)
        return false;
    double host = (double)m->host_anchor + m->at + m->rate * (double)(int64_t)(gpu_ns - m->gpu_anchor);
    if (host < 0 || host > 9e18) {
        *ret_host_ns = host < 0 ? 0 : (uint64_t)9e18;
        return true;
    }
    /* Not through the sum: host times have more digits than a double's. */
    double since = m->at + m->rate * (double)(int64_t)(gpu_ns - m->gpu_anchor);
    *ret_host_ns = m->host_anchor + (uint64_t)(int64_t)since;
    return true;
}

uint64_t lithos_clockmap_bound_ns(const struct lithos_clockmap *m)
{
    return m->fitted ? (uint64_t)m->bound_ns : UINT64_MAX;
}

uint64_t lithos_clockmap_bound_beside_ns(const struct lithos_clockmap *m, const struct lithos_clockmap *other,
                                         uint64_t host_ns)
{
    uint64_t bound_ns = lithos_clockmap_bound_ns(m), mine_ns, its_ns;
    double since_ns = ((double)(int64_t)(host_ns - m->host_anchor) - m->at) / (m->rate > 0 ? m->rate : 1);
    if (!m->fitted || since_ns > 9e18 || since_ns < -9e18)
        return bound_ns;
    uint64_t gpu_ns = m->gpu_anchor + (uint64_t)(int64_t)since_ns;
    if (!lithos_clockmap_host(m, gpu_ns, &mine_ns) || !lithos_clockmap_host(other, gpu_ns, &its_ns))
        return bound_ns;
    uint64_t apart_ns = mine_ns > its_ns ? mine_ns - its_ns : its_ns - mine_ns;
    return LITHOS_MIN(bound_ns, lithos_clockmap_bound_ns(other) + apart_ns);
}

int64_t lithos_clockmap_offset_ns(const struct lithos_clockmap *m, uint64_t gpu_ns)
{
    uint64_t host_ns;
    return lithos_clockmap_host(m, gpu_ns, &host_ns) ? (int64_t)(host_ns - gpu_ns) : 0;
}

int64_t lithos_clockmap_drift_ppb(const struct lithos_clockmap *m)
{
    double ppb = (m->rate - 1) * 1e9;
    return !m->fitted ? 0 : ppb > 9e18 ? INT64_MAX : (int64_t)ppb;
}
