#include "core/demand.h"

#include <string.h>

#include "base/util.h"

#define PPM 1000000u
#define FORGET_AT 512u
/* What a program does first says little of it: of its busy periods it is forgotten sooner, at this many and twice as many each time. Gaps
 * are kept from the beginning, as it takes many to be sure of one. */
#define FORGET_PERIODS_AT 32u
#define KNOWN_FROM 16u /* with fewer gaps nothing is foreseen */
#define LINGERS 8u
#define LINGER_NS 16000u /* the shortest that is tried, then doubled */

static unsigned slot_of(uint64_t ns)
{
    if (ns < 1024)
        return 0;
    const unsigned octave = 63 - (unsigned)__builtin_clzll(ns); /* 10 and up */
    const unsigned slot = (octave - 10) * 8 + (unsigned)((ns >> (octave - 3)) & 7);
    return LITHOS_MIN(slot, LITHOS_DEMAND_SLOTS - 1);
}

/* Lowest value of a slot. */
static uint64_t slot_ns(unsigned slot)
{
    return slot ? (uint64_t)(8 + slot % 8) << (slot / 8 + 7) : 0;
}

static void add(struct lithos_demand_histogram *h, uint64_t ns)
{
    const unsigned s = slot_of(ns);

    if (h->total >= h->forget_at) {
        h->forget_at = LITHOS_MIN(2 * h->forget_at, FORGET_AT);
        h->total = 0;
        for (unsigned i = 0; i < LITHOS_DEMAND_SLOTS; i++) {
            h->count[i] /= 2;
            h->total += h->count[i];
        }
    }
    h->least_ns[s] = h->count[s] ? LITHOS_MIN(h->least_ns[s], ns) : ns;
    h->count[s]++;
    h->total++;
}

/* Of those longer than ns; the slot of ns counts where its shortest is longer. */
static uint32_t above(const struct lithos_demand_histogram *h, uint64_t ns)
{
    const unsigned s = slot_of(ns);
    uint32_t n = h->least_ns[s] > ns ? h->count[s] : 0;
    for (unsigned i = s + 1; i < LITHOS_DEMAND_SLOTS; i++)
        n += h->count[i];
    return n;
}

/* The same for many times: how many are in a slot or a later one, and how long all of them are, each as the shortest like it. */
struct sums {
    const struct lithos_demand_histogram *h;
    uint32_t from[LITHOS_DEMAND_SLOTS + 1];
    uint64_t ns;
};

static void sum_up(const struct lithos_demand_histogram *h, struct sums *ret)
{
    ret->h = h;
    ret->ns = ret->from[LITHOS_DEMAND_SLOTS] = 0;
    for (unsigned i = LITHOS_DEMAND_SLOTS; i-- > 0;) {
        ret->from[i] = ret->from[i + 1] + h->count[i];
        ret->ns += h->count[i] * h->least_ns[i];
    }
}

static uint32_t summed_above(const struct sums *s, uint64_t ns)
{
    const unsigned at = slot_of(ns);
    return s->from[at + 1] + (s->h->least_ns[at] > ns ? s->h->count[at] : 0);
}

static uint32_t return_ppm(uint32_t longer, uint32_t longer_still)
{
    return longer ? PPM - (uint32_t)((uint64_t)longer_still * PPM / longer) : 0;
}

void lithos_demand_init(struct lithos_demand *d)
{
    memset(d, 0, sizeof(*d));
    d->gaps.forget_at = FORGET_AT;
    d->periods.forget_at = FORGET_PERIODS_AT;
    d->intervals.forget_at = FORGET_AT;
    d->runs.forget_at = FORGET_PERIODS_AT;
}

/* Gaps that are shorter are too often followed by a return at once. Waiting costs the borrower its part of the idle
 * time, not waiting costs the owner hits: the least of the sum of both, as shares. */
static void find_linger(struct lithos_demand *d, uint64_t stay_ns)
{
    struct sums s;
    uint64_t best = 0;

    sum_up(&d->gaps, &s);
    const double mean_ns = (double)s.ns / d->gaps.total + 1;
    double best_cost = (double)return_ppm(summed_above(&s, 0), summed_above(&s, stay_ns)) / PPM;
    for (unsigned i = 0; i < LINGERS; i++) {
        const uint64_t wait_ns = (uint64_t)LINGER_NS << i;
        const uint32_t longer = summed_above(&s, wait_ns);
        const double kept = (double)longer / d->gaps.total;
        const double cost = (double)return_ppm(longer, summed_above(&s, wait_ns + stay_ns)) / PPM +
                            ((double)wait_ns * kept + (double)wait_ns * (1 - kept) / 2) / mean_ns;
        if (cost < best_cost) {
            best_cost = cost;
            best = wait_ns;
        }
    }
    d->linger_ns = best;
}

void lithos_demand_gap(struct lithos_demand *d, uint64_t gap_ns, uint64_t stay_ns)
{
    add(&d->gaps, gap_ns);
    d->gap_ns = d->gap_ns ? d->gap_ns - d->gap_ns / 16 + gap_ns / 16 : gap_ns;
    if (d->gaps.total < KNOWN_FROM || ++d->stale < KNOWN_FROM)
        return;
    d->stale = 0;
    find_linger(d, stay_ns);
}

void lithos_demand_period(struct lithos_demand *d, uint64_t period_ns)
{
    add(&d->periods, period_ns);
    d->period_ns = d->period_ns ? d->period_ns - d->period_ns / 16 + period_ns / 16 : period_ns;
}

void lithos_demand_run(struct lithos_demand *d, uint64_t run_ns)
{
    add(&d->runs, run_ns);
}

void lithos_demand_interval(struct lithos_demand *d, uint64_t interval_ns)
{
    add(&d->intervals, interval_ns);
}

static uint64_t safe_ns(const struct lithos_demand_histogram *h, uint64_t idle_ns, uint32_t risk_ppm)
{
    const uint64_t longer = above(h, idle_ns);
    uint64_t seen = 0, next_ns = 2 * idle_ns;

    if (h->total < KNOWN_FROM)
        return idle_ns + idle_ns / 8;
    if (!longer)
        return next_ns;
    for (unsigned i = slot_of(idle_ns); i < LITHOS_DEMAND_SLOTS; i++) {
        if (!h->count[i] || h->least_ns[i] <= idle_ns)
            continue;
        next_ns = h->least_ns[i];
        seen += h->count[i];
        if (seen * PPM > longer * risk_ppm)
            break;
    }
    /* Nothing was seen before that, but by few: of n that were longer the next is as likely to be the first. */
    const uint64_t sure_ppm = LITHOS_MIN((longer + 1) * risk_ppm, PPM);
    return idle_ns + (uint64_t)((unsigned __int128)(next_ns - idle_ns) * sure_ppm / PPM);
}

uint64_t lithos_demand_safe_ns(const struct lithos_demand *d, uint64_t idle_ns, uint32_t risk_ppm)
{
    return safe_ns(&d->gaps, idle_ns, risk_ppm);
}

uint64_t lithos_demand_safe_interval_ns(const struct lithos_demand *d, uint64_t since_ns, uint32_t risk_ppm)
{
    return safe_ns(&d->intervals, since_ns, risk_ppm);
}

uint32_t lithos_demand_return_ppm(const struct lithos_demand *d, uint64_t idle_ns, uint64_t stay_ns)
{
    return return_ppm(above(&d->gaps, idle_ns), above(&d->gaps, idle_ns + stay_ns));
}

uint64_t lithos_demand_next_look_ns(const struct lithos_demand *d, uint64_t idle_ns)
{
    if (idle_ns < d->linger_ns)
        return d->linger_ns;
    return LITHOS_MAX(slot_ns(LITHOS_MIN(slot_of(idle_ns) + 1, LITHOS_DEMAND_SLOTS - 1)),
                      idle_ns + idle_ns / 8 + 1000);
}

static uint64_t quantile_ns(const struct lithos_demand_histogram *h, uint32_t q_ppm)
{
    uint64_t seen = 0;

    for (unsigned i = 0; i < LITHOS_DEMAND_SLOTS; i++) {
        seen += h->count[i];
        if (h->count[i] && seen * PPM >= (uint64_t)h->total * q_ppm)
            return LITHOS_MAX(h->least_ns[i], slot_ns(i));
    }
    return 0;
}

uint64_t lithos_demand_need_ns(const struct lithos_demand *d, uint32_t q_ppm)
{
    return quantile_ns(&d->periods, q_ppm);
}

uint64_t lithos_demand_run_ns(const struct lithos_demand *d, uint32_t q_ppm)
{
    return quantile_ns(&d->runs, q_ppm);
}

static uint64_t usual_ns(const struct lithos_demand_histogram *h, uint64_t ns)
{
    const uint32_t longer = above(h, ns);
    uint32_t seen = 0;

    for (unsigned i = slot_of(ns); i < LITHOS_DEMAND_SLOTS; i++) {
        if (h->count[i] && h->least_ns[i] > ns)
            seen += h->count[i];
        if (longer && 2 * seen >= longer)
            return h->least_ns[i];
    }
    return 0;
}

uint64_t lithos_demand_usual_gap_ns(const struct lithos_demand *d, uint64_t ns)
{
    return usual_ns(&d->gaps, ns);
}

uint64_t lithos_demand_usual_interval_ns(const struct lithos_demand *d)
{
    return usual_ns(&d->intervals, 0);
}

uint64_t lithos_demand_rest_ns(const struct lithos_demand *d, uint64_t busy_ns)
{
    const struct lithos_demand_histogram *h = &d->periods;
    const uint32_t longer = above(h, busy_ns);
    uint64_t sum_ns = 0;

    if (!longer) /* longer than ever: as long again */
        return h->total ? busy_ns : 0;
    for (unsigned i = slot_of(busy_ns); i < LITHOS_DEMAND_SLOTS; i++) {
        if (h->count[i] && h->least_ns[i] > busy_ns)
            sum_ns += h->count[i] * (h->least_ns[i] - busy_ns);
    }
    return sum_ns / longer;
}
