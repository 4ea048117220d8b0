/* Random numbers that are the same everywhere: splitmix64. */
#pragma once

#include <stdint.h>

struct lithos_random {
    uint64_t state;
};

static inline uint64_t lithos_random_mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

static inline uint64_t lithos_random_next(struct lithos_random *r)
{
    return lithos_random_mix(r->state += 0x9e3779b97f4a7c15ull);
}

/* 0 to n - 1; n > 0 */
static inline uint64_t lithos_random_below(struct lithos_random *r, uint64_t n)
{
    return (uint64_t)(((unsigned __int128)lithos_random_next(r) * n) >> 64);
}

/* lo to hi */
static inline uint64_t lithos_random_between(struct lithos_random *r, uint64_t lo, uint64_t hi)
{
    return lo + lithos_random_below(r, hi - lo + 1);
}

/* A sample of the exponential distribution, in whole ns and without libm, so that it is the same on every machine. */
uint64_t lithos_random_exponential_ns(struct lithos_random *r, uint64_t mean_ns);
