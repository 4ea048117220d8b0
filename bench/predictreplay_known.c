/* What would it help to know how much slower than usual a tenant's kernels run?
 *
 * The usual of a kernel is the middle of all its durations but this one, those to come as well, which no predictor has.
 * How much slower they run is the mean over the kernels of some time before (a long one weighs more), of what ended by the
 * submission, or by the start, or, in hindsight, of all around. How far a kernel follows that mean is one factor, the best
 * for this trace. So each figure is what none that goes by the mean can do better than, not what one would reach. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/util.h"
#include "predictreplay.h"

/* What is shorter says little of how fast it ran: stamps are that exact, and no more. */
#define TELLING_NS 5000.0
/* A kernel twice as long as usual has met something else. */
#define LOG_MOST 0.7
#define MIDDLE_OF 4u /* at least so many durations make a usual one */

enum when { AT_SUBMISSION, AT_START, IN_HINDSIGHT, WHEN_MAX };

static const char *const when_names[WHEN_MAX] = {"submission", "start", "hindsight"};
static const double within_ms[] = {0.3, 1, 3, 10, 30, 100};

struct run {
    uint64_t key;
    double submit_ns, start_ns, end_ns, usual_ns;
    double slower; /* log(duration / usual) */
    double mean;   /* of the others' */
};

struct runs {
    struct run *run; /* in the order of their starts */
    size_t count;
    double *weight, *sum; /* of all runs before */
};

static double length_ns(const struct run *r)
{
    return r->end_ns - r->start_ns;
}

static int by_key(const void *left, const void *right, void *runs)
{
    const struct run *r = runs, *a = &r[*(const uint32_t *)left], *b = &r[*(const uint32_t *)right];
    if (a->key != b->key)
        return a->key < b->key ? -1 : 1;
    return length_ns(a) < length_ns(b) ? -1 : length_ns(a) > length_ns(b);
}

static int by_start(const void *left, const void *right)
{
    const struct run *a = left, *b = right;
    return a->start_ns < b->start_ns ? -1 : a->start_ns > b->start_ns;
}

/* Middle of sorted[from] to sorted[to - 1] but for sorted[without]. */
static double middle_of_others(const struct run *run, const uint32_t *sorted, size_t from, size_t to,
                               size_t without)
{
    const size_t others = to - from - 1, low = from + (others - 1) / 2, high = from + others / 2;
    return (length_ns(&run[sorted[low + (low >= without)]]) +
            length_ns(&run[sorted[high + (high >= without)]])) /
           2;
}

static bool find_usual(struct runs *s)
{
    uint32_t *sorted = malloc((s->count + 1) * sizeof *sorted);
    if (!sorted)
        return false;
    for (size_t i = 0; i < s->count; i++)
        sorted[i] = (uint32_t)i;
    qsort_r(sorted, s->count, sizeof *sorted, by_key, s->run);
    for (size_t from = 0, to; from < s->count; from = to) {
        for (to = from; to < s->count && s->run[sorted[to]].key == s->run[sorted[from]].key; to++)
            ;
        for (size_t i = from; i < to; i++)
            if (to - from >= MIDDLE_OF) /* else it stays what the predictor said */
                s->run[sorted[i]].usual_ns = middle_of_others(s->run, sorted, from, to, i);
    }
    free(sorted);
    return true;
}

static bool telling(const struct run *r, double stretch)
{
    return r->usual_ns > TELLING_NS * stretch && length_ns(r) > 0;
}

static bool gather(const struct program *p, struct runs *s)
{
    s->run = malloc(p->count * sizeof *s->run);
    s->weight = malloc((p->count + 1) * sizeof *s->weight);
    s->sum = malloc((p->count + 1) * sizeof *s->sum);
    if (!s->run || !s->weight || !s->sum)
        return false;
    for (size_t i = 0; i < p->count; i++) {
        const struct launch *l = &p->launch[i];
        if (counted(l))
            s->run[s->count++] = (struct run){.key = (uint64_t)l->ticket.op[LITHOS_PREDICT_BY_PATH] << 32 |
                                                     l->ticket.tag[LITHOS_PREDICT_BY_PATH],
                                              .submit_ns = l->submit_ns,
                                              .start_ns = l->start_ns,
                                              .end_ns = l->end_ns,
                                              .usual_ns = l->answer_ns};
    }
    if (!find_usual(s))
        return false;
    qsort(s->run, s->count, sizeof *s->run, by_start);
    s->weight[0] = s->sum[0] = 0;
    for (size_t i = 0; i < s->count; i++) {
        struct run *r = &s->run[i];
        const double weight = telling(r, p->stretch) ? r->usual_ns : 0;
        if (weight > 0)
            r->slower = fmin(fmax(log(length_ns(r) / r->usual_ns), -LOG_MOST), LOG_MOST);
        s->weight[i + 1] = s->weight[i] + weight;
        s->sum[i + 1] = s->sum[i] + weight * r->slower;
    }
    return true;
}

/* The first run that starts, or that ends, later: in one stream both have the same order. */
static size_t first_after(const struct runs *s, double ns, bool ends)
{
    size_t low = 0, high = s->count;
    while (low < high) {
        const size_t at = low + (high - low) / 2;
        if ((ends ? s->run[at].end_ns : s->run[at].start_ns) <= ns)
            low = at + 1;
        else
            high = at;
    }
    return low;
}

static double mean_of_others(const struct runs *s, size_t i, enum when when, double within_ns)
{
    const struct run *r = &s->run[i];
    const double now_ns = when == AT_SUBMISSION ? r->submit_ns : r->start_ns;
    const size_t from = first_after(s, now_ns - within_ns, false),
                 to = first_after(s, when == IN_HINDSIGHT ? r->end_ns + within_ns : now_ns, true);
    if (to <= from)
        return 0;
    double weight = s->weight[to] - s->weight[from], sum = s->sum[to] - s->sum[from];
    if (i >= from && i < to) {
        weight -= s->weight[i + 1] - s->weight[i];
        sum -= s->sum[i + 1] - s->sum[i];
    }
    return weight > 1 ? sum / weight : 0;
}

static void print_one(const struct program *p, struct runs *s, enum when when, double ms)
{
    const double within_ns = ms * LITHOS_NSEC_PER_MSEC * p->stretch;
    double xx = 0, xy = 0, yy = 0;
    struct tally t = {0};

    for (size_t i = 0; i < s->count; i++) {
        struct run *r = &s->run[i];
        r->mean = mean_of_others(s, i, when, within_ns);
        if (r->usual_ns > (double)p->miss_ns) {
            xx += r->mean * r->mean;
            xy += r->mean * r->slower;
            yy += r->slower * r->slower;
        }
    }
    const double slope = xx > 0 ? xy / xx : 0;
    for (size_t i = 0; i < s->count; i++)
        count(p, &t, s->run[i].usual_ns * exp(slope * s->run[i].mean), length_ns(&s->run[i]));
    printf(
        "{\"when\": \"%s\", \"within_ms\": %g, \"slope\": %.2f, \"r\": %.2f, \"mispredicted_percent\": %.3f}",
        when_names[when], ms, slope, xx > 0 && yy > 0 ? xy / sqrt(xx * yy) : 0, percent_off(&t));
}

void print_known(const struct program *p)
{
    struct runs s = {0};
    struct tally usual = {0};

    printf("[");
    if (gather(p, &s)) {
        for (size_t i = 0; i < s.count; i++)
            count(p, &usual, s.run[i].usual_ns, length_ns(&s.run[i]));
        printf("{\"when\": \"usual\", \"mispredicted_percent\": %.3f}", percent_off(&usual));
        for (unsigned when = 0; when < WHEN_MAX; when++) {
            for (unsigned i = 0; i < LITHOS_ARRAY_SIZE(within_ms); i++) {
                printf(", ");
                print_one(p, &s, when, within_ms[i]);
            }
        }
    }
    printf("]");
    free(s.run);
    free(s.weight);
    free(s.sum);
}
