/* A made-up neighbour beside a program that was recorded alone. It works not at all, at a third, or fully, for phases of
 * random length; each kind of kernel feels it by a share of its own. The program's host goes on at the pace it had, but
 * waits where it waited. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/util.h"
#include "predictreplay.h"

#define STEP_NS 20000.0
#define LEVELS 3u
/* From one run of a kernel to the next of the same, as alone on the card. */
#define JITTER 0.004
#define SLACK_STEPS 65536u /* the program takes longer than its kernels */

static uint64_t mix(uint64_t a, uint64_t b)
{
    a ^= b + 0x9e3779b97f4a7c15ull + (a << 6) + (a >> 2);
    a = (a ^ a >> 33) * 0xff51afd7ed558ccdull;
    a = (a ^ a >> 29) * 0xc4ceb9fe1a85ec53ull;
    return a ^ a >> 32;
}

static double share(uint64_t hash)
{
    return (double)(hash >> 11) / 9007199254740992.0;
}

static double uniform(uint64_t *state)
{
    *state = mix(*state, 1);
    return share(*state);
}

static bool make_neighbour(const struct phases *phases, double length_ns, uint64_t *random,
                           struct neighbour *n)
{
    static const float level[LEVELS] = {0, 1 / 3.0f, 1};
    unsigned now = 0;

    n->steps = (size_t)(length_ns / STEP_NS) + SLACK_STEPS;
    n->level = malloc(n->steps * sizeof *n->level);
    n->sum = malloc((n->steps + 1) * sizeof *n->sum);
    if (!n->level || !n->sum)
        return false;
    for (size_t i = 0; i < n->steps;) {
        const double ns =
            phases->shortest_ns * pow(phases->longest_ns / phases->shortest_ns, uniform(random));
        now = (now + 1 + (unsigned)(uniform(random) * (LEVELS - 1))) % LEVELS; /* another than before */
        for (size_t end = i + 1 + (size_t)(ns / STEP_NS); i < end && i < n->steps; i++)
            n->level[i] = level[now];
    }
    n->sum[0] = 0;
    for (size_t i = 0; i < n->steps; i++)
        n->sum[i + 1] = n->sum[i] + (double)n->level[i];
    n->mean = n->sum[n->steps] / (double)n->steps;
    return true;
}

static size_t step_at(const struct neighbour *n, double ns)
{
    return LITHOS_MIN((size_t)(ns / STEP_NS), n->steps - 1);
}

static double level_over(const struct neighbour *n, double from_ns, double to_ns)
{
    const size_t from = step_at(n, from_ns), to = step_at(n, to_ns) + 1;
    return (n->sum[to] - n->sum[from]) / (double)(to - from);
}

/* Of the function most, of its place a little. */
static double felt(const struct phases *phases, const struct launch *l, uint64_t place)
{
    const double f = 0.25 + 0.75 * share(mix(l->shape.function, phases->seed)) +
                     0.3 * (share(mix(place, phases->seed)) - 0.5);
    return LITHOS_MAX(f, 0.0);
}

/* A kernel with two others before it. */
struct place {
    uint64_t key;
    struct launch *launch;
};

static int by_place(const void *left, const void *right)
{
    const struct place *a = left, *b = right;
    if (a->key != b->key)
        return a->key < b->key ? -1 : 1;
    const double a_ns = duration_ns(a->launch), b_ns = duration_ns(b->launch);
    return a_ns < b_ns ? -1 : a_ns > b_ns;
}

/* What a kernel takes alone is the middle of all at its place: a short one's duration is half noise, which must not be
 * stretched. */
static bool find_base(struct program *p, const struct phases *phases)
{
    struct place *place = malloc((p->count + 1) * sizeof *place);
    uint64_t before[2] = {0};
    size_t places = 0;
    if (!place)
        return false;
    for (size_t i = 0; i < p->count; i++) {
        struct launch *l = &p->launch[i];
        if (l->sync)
            continue;
        const uint64_t shape = mix(mix(l->shape.function, l->shape.grid[0]),
                                   (uint64_t)l->shape.grid[1] << 32 | l->shape.grid[2]);
        const uint64_t key = mix(mix(before[1], before[0]), shape);
        place[places++] = (struct place){.key = key, .launch = l};
        l->felt = felt(phases, l, key);
        before[1] = before[0];
        before[0] = shape;
    }
    qsort(place, places, sizeof *place, by_place);
    for (size_t from = 0, to; from < places; from = to) {
        for (to = from; to < places && place[to].key == place[from].key; to++)
            ;
        const double middle_ns = duration_ns(place[(from + to) / 2].launch);
        for (size_t i = from; i < to; i++)
            place[i].launch->base_ns = middle_ns;
    }
    free(place);
    return true;
}

bool put_beside(struct program *p, const struct phases *phases, struct neighbour *ret_neighbour)
{
    uint64_t random = mix(phases->seed, 7);
    double busy_ns = 0, free_ns = 0, late_ns = 0;

    if (!find_base(p, phases))
        return false;

    for (size_t i = 0; i < p->count; i++)
        busy_ns += p->launch[i].sync ? 0 : duration_ns(&p->launch[i]);
    const double length_ns = p->launch[p->count - 1].submit_ns + busy_ns * (1 + 2 * phases->slower);
    if (!make_neighbour(phases, length_ns, &random, ret_neighbour))
        return false;
    for (size_t i = 0; i < p->count; i++) {
        struct launch *l = &p->launch[i];
        /* The host's own pace is that of the trace, not stretched. */
        l->submit_ns = l->submit_ns / p->stretch + late_ns;
        if (l->sync) {
            late_ns += LITHOS_MAX(free_ns - l->submit_ns, 0.0);
            l->submit_ns = LITHOS_MAX(l->submit_ns, free_ns);
            continue;
        }
        l->start_ns = LITHOS_MAX(l->submit_ns, free_ns);
        const double alone_ns = l->base_ns * (1 + JITTER * (uniform(&random) + uniform(&random) - 1));
        double took_ns = alone_ns;
        for (unsigned again = 0; again < 3; again++) /* longer, it meets more of the neighbour */
            took_ns = alone_ns * (1 + phases->slower * l->felt *
                                          level_over(ret_neighbour, l->start_ns, l->start_ns + took_ns));
        l->end_ns = free_ns = l->start_ns + took_ns;
        l->estimate = false;
    }
    return true;
}

/* How much of what it does at the submission is still true of the run, by the best line for this program. */
static double kept(const struct program *p, const struct neighbour *n)
{
    double xx = 0, xy = 0;
    for (size_t i = 0; i < p->count; i++) {
        const struct launch *l = &p->launch[i];
        if (!counted(l) || duration_ns(l) <= (double)p->miss_ns)
            continue;
        const double x = (double)n->level[step_at(n, l->submit_ns)] - n->mean;
        xx += x * x;
        xy += x * (level_over(n, l->start_ns, l->end_ns) - n->mean);
    }
    return xx > 0 ? xy / xx : 0;
}

void print_oracles(const struct program *p, const struct phases *phases, const struct neighbour *n)
{
    struct tally mean = {0}, submission = {0}, start = {0};
    const double slope = kept(p, n);
    double lead_ns = 0;

    for (size_t i = 0; i < p->count; i++) {
        const struct launch *l = &p->launch[i];
        if (!counted(l))
            continue;
        const double took_ns = duration_ns(l), feels_ns = l->base_ns * phases->slower * l->felt;
        const double then = (double)n->level[step_at(n, l->submit_ns)];
        count(p, &mean, l->base_ns + feels_ns * n->mean, took_ns);
        count(p, &submission, l->base_ns + feels_ns * (n->mean + slope * (then - n->mean)), took_ns);
        count(p, &start, l->base_ns + feels_ns * (double)n->level[step_at(n, l->start_ns)], took_ns);
        lead_ns += l->start_ns - l->submit_ns;
    }
    printf("\"lead_ms\": %.2f, \"kept\": %.2f, \"oracles\": {\"mean\": %.3f, \"submission\": %.3f, "
           "\"start\": %.3f}",
           mean.launches ? lead_ns / (double)mean.launches / LITHOS_NSEC_PER_MSEC : 0, slope,
           percent_off(&mean), percent_off(&submission), percent_off(&start));
}
