#include "driver/names.h"

#include <fnmatch.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "driver/exports.h"

#define PATTERNS_BYTES 4096u
#define FUNCTIONS 8192u /* a power of two */
#define TRIES 8u

static struct {
    pthread_once_t once;
    _Atomic int state;                /* 0 not looked yet, 1 there are patterns, -1 there are none */
    char text[PATTERNS_BYTES];        /* each ended by NUL, the last by two */
    _Atomic uint64_t seen[FUNCTIONS]; /* a function's handle, with TOLD, WAITS and SAID; 0: free */
} names = {.once = PTHREAD_ONCE_INIT};

/* In bits that no handle has. */
#define TOLD (1ull << 63)
#define WAITS (1ull << 62)
#define SAID (1ull << 61) /* not a verdict: lithos_names_say */
#define HANDLE (SAID - 1)

/* Functions whose blocks wait for each other though nothing in their launch says so. */
static const char *const waiting[] = {
    "*semiPersist*", /* cuDNN's batch normalization of channels-last tensors: hangs where not all blocks have a place */
    "*RNN_blockPersist*", /* and its recurrent networks */
};

typedef CUresult (*name_fn)(const char **, const void *);

/* cuFuncGetName came with 12.3. */
const char *lithos_names_of(CUfunction function)
{
    const char *name = NULL;
    if (LITHOS_REAL(name_fn, cuFuncGetName)(&name, function) == CUDA_SUCCESS && name)
        return name;
    if (LITHOS_REAL(name_fn, cuKernelGetName)(&name, function) == CUDA_SUCCESS && name)
        return name;
    return NULL;
}

static void read_patterns(void)
{
    const char *text = getenv("LITHOS_WHOLE");
    size_t bytes = text ? strlen(text) : 0;
    if (bytes > sizeof names.text - 2) {
        lithos_log_once(LITHOS_LOG_WARNING, "LITHOS_WHOLE is longer than %u bytes: it is ignored",
                        PATTERNS_BYTES - 2);
        bytes = 0;
    }
    for (size_t i = 0; i < bytes; i++)
        names.text[i] = (char)(text[i] == ',' ? 0 : text[i]);
    atomic_store_explicit(&names.state, bytes ? 1 : -1, memory_order_release);
}

static bool have_patterns(void)
{
    if (__builtin_expect(!atomic_load_explicit(&names.state, memory_order_acquire), 0))
        pthread_once(&names.once, read_patterns);
    return atomic_load_explicit(&names.state, memory_order_acquire) > 0;
}

static bool matches(const char *name)
{
    const char *end = names.text + sizeof names.text - 1;
    for (const char *p = names.text; p < end && (*p || p[1]); p += strlen(p) + 1)
        if (*p && fnmatch(p, name, 0) == 0)
            return true;
    return false;
}

static LITHOS_OFF_PATH uint64_t judge(CUfunction function)
{
    const char *name = lithos_names_of(function);
    uint64_t verdict = 0;
    if (!name)
        return 0;
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(waiting); i++)
        if (fnmatch(waiting[i], name, 0) == 0)
            verdict = WAITS;
    return verdict | (have_patterns() && matches(name) ? TOLD : 0);
}

/* The i-th place where a function may stand. */
static inline _Atomic uint64_t *place_of(uint64_t handle, unsigned i)
{
    return &names.seen[((unsigned)((handle * 0x9e3779b97f4a7c15ull) >> 32) + i) & (FUNCTIONS - 1)];
}

static inline __attribute__((always_inline)) uint64_t verdict_on(CUfunction function)
{
    uint64_t handle = (uintptr_t)function;
    for (unsigned i = 0; i < TRIES; i++) {
        _Atomic uint64_t *place = place_of(handle, i);
        uint64_t there = atomic_load_explicit(place, memory_order_relaxed);
        if (__builtin_expect((there & HANDLE) == handle, 1))
            return there & (TOLD | WAITS);
        if (there)
            continue;
        uint64_t verdict = judge(function);
        atomic_compare_exchange_strong_explicit(place, &there, handle | verdict, memory_order_relaxed,
                                                memory_order_relaxed);
        return verdict;
    }
    return judge(function);
}

bool lithos_names_told_whole(CUfunction function)
{
    return __builtin_expect(have_patterns(), 0) && verdict_on(function) & TOLD;
}

LITHOS_LAUNCH_PATH bool lithos_names_waits(CUfunction function)
{
    return verdict_on(function) & WAITS;
}

/* Where a function stands; NULL: nowhere, with *ret_there 0 when there is a place for it. */
static inline __attribute__((always_inline)) _Atomic uint64_t *find(uint64_t handle, uint64_t *ret_there)
{
    for (unsigned i = 0; i < TRIES; i++) {
        _Atomic uint64_t *place = place_of(handle, i);
        *ret_there = atomic_load_explicit(place, memory_order_relaxed);
        if (__builtin_expect((*ret_there & HANDLE) == handle, 1))
            return handle ? place : NULL;
        if (!*ret_there)
            return NULL;
    }
    return NULL;
}

LITHOS_LAUNCH_PATH bool lithos_names_said(CUfunction function)
{
    uint64_t there;
    return find((uintptr_t)function, &there) && there & SAID;
}

static LITHOS_OFF_PATH bool say(CUfunction function)
{
    uint64_t there;
    _Atomic uint64_t *place = find((uintptr_t)function, &there);
    if (!place && function && !there) {
        verdict_on(function);
        place = find((uintptr_t)function, &there);
    }
    return place && !(atomic_fetch_or_explicit(place, SAID, memory_order_relaxed) & SAID);
}

LITHOS_LAUNCH_PATH bool lithos_names_say(CUfunction function)
{
    return __builtin_expect(!lithos_names_said(function), 0) && say(function);
}

void lithos_names_unsay(CUfunction function)
{
    uint64_t there;
    _Atomic uint64_t *place = find((uintptr_t)function, &there);
    if (place)
        atomic_fetch_and_explicit(place, ~SAID, memory_order_relaxed);
}

void lithos_names_unsay_all(void)
{
    for (unsigned i = 0; i < FUNCTIONS; i++)
        if (atomic_load_explicit(&names.seen[i], memory_order_relaxed) & SAID)
            atomic_fetch_and_explicit(&names.seen[i], ~SAID, memory_order_relaxed);
}
