/* Small things that every folder uses. */
#pragma once

#include <stdatomic.h>
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

/* Add to a counter that only this thread writes; others read it at any time. One instruction and no lock prefix: a locked one
 * waits until earlier stores have left the core, which behind a launch means until the card's doorbell has been rung. Being one
 * instruction it also sees one page, should others come to lie there meanwhile. */
static inline void lithos_add_alone(_Atomic uint64_t *counter, uint64_t n)
{
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
    __asm__ volatile("addq %1, %0" : "+m"(*counter) : "er"(n) : "cc");
#else
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
#endif
}

/* What every launch of a tenant goes through. Kept together in the library: between two launches a program does enough for none of it
 * to be left in the caches, so that its pages and lines are what a launch costs. */
#define LITHOS_LAUNCH_PATH __attribute__((hot))
/* Of it, what is called from elsewhere: all that it calls is put into it, where the whole library is optimised together. After other
 * code has run, each jump that is taken costs some 10 ns, being neither predicted nor fetched ahead, and a line that is run through much less. */
#define LITHOS_FUSED __attribute__((hot, flatten, noinline))
/* And what hardly any does, which is to lie elsewhere: so do the branches that call it. */
#define LITHOS_OFF_PATH __attribute__((cold, noinline))
/* The variables that it looks at, on a page of their own as well: exports.S begins it, and they fit (unit/test_driver_exports). */
#define LITHOS_LAUNCH_DATA __attribute__((section("lithos_launch_data")))

/* Have a cache line ready for writing by the time it is written. */
static inline void lithos_prefetch_write(const void *line)
{
#ifdef __x86_64__
    __asm__ volatile("prefetchw %0" : : "m"(*(const char *)line));
#else
    __builtin_prefetch(line, 1);
#endif
}
