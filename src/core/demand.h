/* How a tenant comes and goes: for how long it is idle, for how long it is busy, what it can bear. Learned from its own
 * launches and completions; pure, of fixed size.
 *
 * A busy period lasts from a launch that finds nothing outstanding to the completion that leaves nothing. Idle gaps are
 * kept in a histogram that forgets (halved at 512), with the shortest gap seen in each slot, so that an owner who
 * comes at even intervals is foreseen to the microsecond. So are the intervals from the begin of a busy period to that of the next: requests
 * that come by a clock do not come later because the one before took longer. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define LITHOS_DEMAND_SLOTS 192u /* 8 an octave from 1 us */

struct lithos_demand_histogram {
    uint32_t total, forget_at;
    uint16_t count[LITHOS_DEMAND_SLOTS];
    uint64_t least_ns[LITHOS_DEMAND_SLOTS]; /* of those counted */
};

struct lithos_demand {
    struct lithos_demand_histogram gaps;      /* idle, until it came back */
    struct lithos_demand_histogram periods;   /* busy, without what it waited for others */
    struct lithos_demand_histogram intervals; /* from the begin of one to that of the next */
    struct lithos_demand_histogram runs; /* as periods, but of requests that waited for each other alone */
    uint64_t linger_ns; /* gaps up to this are within a period: what follows them comes too often too soon */
    uint64_t period_ns, gap_ns; /* means of recent ones */
    uint32_t stale;             /* gaps since linger_ns was worked out */
};

void lithos_demand_init(struct lithos_demand *d);
/* It came back after being idle. stay_ns: how long lent work typically stays in its way. */
void lithos_demand_gap(struct lithos_demand *d, uint64_t gap_ns, uint64_t stay_ns);
/* It was busy for so long. */
void lithos_demand_period(struct lithos_demand *d, uint64_t period_ns);
/* It was busy with requests that waited for each other, idle in between no longer than it takes to send the next; the longest took so long. */
void lithos_demand_run(struct lithos_demand *d, uint64_t run_ns);
/* A busy period began so long after the one before it had begun. */
void lithos_demand_interval(struct lithos_demand *d, uint64_t interval_ns);

/* Idle for idle_ns already: before which idle time will it, with probability 1 - risk, not be back? Twice that when it
 * was never idle for longer; an eighth more when too little is known. Few gaps that were longer are taken for few: to be
 * sure to one in 200 takes as many. */
uint64_t lithos_demand_safe_ns(const struct lithos_demand *d, uint64_t idle_ns, uint32_t risk_ppm);
/* The same of a busy period that began since_ns ago, of when the next one begins. */
uint64_t lithos_demand_safe_interval_ns(const struct lithos_demand *d, uint64_t since_ns, uint32_t risk_ppm);
/* Probability in ppm that it is back within stay_ns. */
uint32_t lithos_demand_return_ppm(const struct lithos_demand *d, uint64_t idle_ns, uint64_t stay_ns);
/* When idle_ns is worth looking at again: something has been learnt by having waited. */
uint64_t lithos_demand_next_look_ns(const struct lithos_demand *d, uint64_t idle_ns);
/* Busy periods that a share q_ppm does not exceed; 0: none seen. */
uint64_t lithos_demand_need_ns(const struct lithos_demand *d, uint32_t q_ppm);
/* The same of runs. */
uint64_t lithos_demand_run_ns(const struct lithos_demand *d, uint32_t q_ppm);
/* Half of the gaps that are longer than ns are no shorter; from below, as the shortest like it. 0: there are none. */
uint64_t lithos_demand_usual_gap_ns(const struct lithos_demand *d, uint64_t ns);
/* The same of all intervals. */
uint64_t lithos_demand_usual_interval_ns(const struct lithos_demand *d);
/* Busy for busy_ns already: how much longer, in the mean? */
uint64_t lithos_demand_rest_ns(const struct lithos_demand *d, uint64_t busy_ns);
