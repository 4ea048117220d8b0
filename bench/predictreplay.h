/* lithos-predictreplay: what predictreplay.c (reading, replaying, counting), predictreplay_known.c (what it would help to
 * know how much slower a tenant's kernels run) and predictreplay_phases.c (a neighbour that is made up) share. Times in
 * ns of the trace, all of it stretched by the same factor. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/predict.h"

struct launch {
    struct lithos_kernel_shape shape;
    struct lithos_predict_ticket ticket;
    uint64_t stream, sequence;
    double submit_ns, start_ns, end_ns;
    double recorded_ns; /* the prediction in the trace; 0: none */
    double answer_ns;   /* the prediction made here */
    double base_ns;     /* phases: its time with no neighbour */
    double felt;        /* phases: how much of the neighbour's work it feels, 0 to 1 */
    uint32_t tpcs;
    bool sync; /* no launch: the tenant waited for the stream */
    bool all_streams;
    bool counts;   /* those before --from are learned from only */
    bool estimate; /* streams overlapped: how long it took is not known well */
};

struct program {
    struct launch *launch; /* in the order of submission */
    size_t count;
    uint64_t miss_ns;
    double stretch; /* of the times, against those in the trace */
};

struct tally {
    uint64_t launches, off;
    double error_ns, took_ns;
};

static inline double duration_ns(const struct launch *l)
{
    return l->end_ns - l->start_ns;
}

static inline bool counted(const struct launch *l)
{
    return l->counts && !l->estimate;
}

void count(const struct program *p, struct tally *tally, double answer_ns, double took_ns);
double percent_off(const struct tally *tally);

/* Print a JSON array: what it would be off by, had it been known how much slower the tenant's kernels ran. */
void print_known(const struct program *p);

struct phases {
    double shortest_ns, longest_ns; /* of a phase */
    double slower;                  /* at the most, a share: 0.3 is 1.3 times as long */
    uint64_t seed;
};

/* A neighbour beside a program that was recorded alone: new durations, starts, ends and submissions. ret_level_ns and its
 * step say how hard it works when. */
struct neighbour {
    float *level; /* 0 to 1, a step each */
    double *sum;  /* of those before */
    size_t steps;
    double mean;
};
/* False: no memory. */
bool put_beside(struct program *p, const struct phases *phases, struct neighbour *ret_neighbour);
/* Print a JSON object: what one would be off by who knew each kernel's time alone and what it feels, and of the neighbour
 * its mean, what it does at the submission, or what it does at the start. */
void print_oracles(const struct program *p, const struct phases *phases, const struct neighbour *neighbour);
