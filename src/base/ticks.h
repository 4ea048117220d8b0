/* The processor's time stamp counter as a clock: half the price of clock_gettime on a launch's way. One side notes ticks, another
 * makes times of CLOCK_MONOTONIC of them, from pairs of both that it takes itself. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Is it the same on all processors, at one rate? As the kernel's own clock rests on it or not; false where that is not known. */
bool lithos_ticks_steady(void);

static inline uint64_t lithos_ticks(void)
{
#ifdef __x86_64__
    return __builtin_ia32_rdtsc();
#else
    return 0;
#endif
}

/* Plain data; pure. */
struct lithos_ticks_map {
    struct lithos_ticks_pair {
        uint64_t ticks, ns;
    } first, half, last; /* the rate is counted from the first to the last; half takes the first's place */
    double ns_a_tick;
};

/* Begin with a pair; nothing is known of the rate before the second, a ms later at least. */
void lithos_ticks_map_init(struct lithos_ticks_map *m, uint64_t ticks, uint64_t ns);
/* A further pair, taken now and then. */
void lithos_ticks_map_update(struct lithos_ticks_map *m, uint64_t ticks, uint64_t ns);
/* The time of a moment near the last pair. Any value: more than a minute away from it counts as the pair's own time. */
uint64_t lithos_ticks_map_ns(const struct lithos_ticks_map *m, uint64_t ticks);
