/* Small things that every folder uses. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define LITHOS_ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define LITHOS_MIN(a, b) ((a) < (b) ? (a) : (b))
#define LITHOS_MAX(a, b) ((a) > (b) ? (a) : (b))
#define LITHOS_EXPORT __attribute__((visibility("default")))
#define LITHOS_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define LITHOS_NSEC_PER_SEC 1000000000ull
#define LITHOS_NSEC_PER_MSEC 1000000ull
#define LITHOS_NSEC_PER_USEC 1000ull

/* CLOCK_MONOTONIC in ns: the same in every process of the machine. */
static inline uint64_t lithos_now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * LITHOS_NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}
