/* The hooked functions as a table, generated from hooks.def. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "cuda/cuda_abi.h"
#include "driver/exports.h"

enum lithos_hook_kind {
    LITHOS_HOOK_KIND_PLAIN,  /* neither launches nor runs anything on the card */
    LITHOS_HOOK_KIND_LAUNCH, /* kernel launches */
    LITHOS_HOOK_KIND_GRAPH,  /* may upload the kernels of a graph */
    LITHOS_HOOK_KIND_MARK,   /* may run the driver's own kernels */
    LITHOS_HOOK_KIND_WAIT, /* the app waits for the card; copies to the host may run the driver's own kernels */
    LITHOS_HOOK_KIND_MAX,
};

enum lithos_hook_id {
#define HOOK(name, base, since, per_thread, kind) LITHOS_HOOK_ID_##name,
#define MARK(name, base, since, per_thread, args, on) LITHOS_HOOK_ID_##name,
#define WAIT(name, base, since, per_thread, what) LITHOS_HOOK_ID_##name,
#include "driver/hooks.def"
#undef HOOK
#undef MARK
#undef WAIT
    LITHOS_HOOK_ID_MAX,
};

struct lithos_hook_row {
    uint16_t export; /* enum lithos_export of the exported name */
    uint16_t base;   /* of the name that cuGetProcAddress is asked for */
    uint16_t since;  /* CUDA version that brought this variant, 11060 for 11.6 */
    bool per_thread; /* default stream is the thread's own */
    uint8_t kind;    /* enum lithos_hook_kind */
};

extern const struct lithos_hook_row lithos_hook_rows[LITHOS_HOOK_ID_MAX];
/* Calls made through each hooked function while the hooks are on: counted for the log at level debug alone, since it costs
 * every launch. */
extern bool lithos_hook_counts_calls;
extern _Atomic uint64_t lithos_hook_calls[LITHOS_HOOK_ID_MAX];

#define LITHOS_HOOK_CALLED(name)                                                                           \
    do {                                                                                                   \
        if (__builtin_expect(lithos_hook_counts_calls, 0))                                                 \
            atomic_fetch_add_explicit(&lithos_hook_calls[LITHOS_HOOK_ID_##name], 1, memory_order_relaxed); \
    } while (0)

/* Our function in place of the real one that cuGetProcAddress gave for `symbol`, or `real` itself when that
 * is none of the hooked ones. */
void *lithos_hook_substitute(const char *symbol, void *real, int cuda_version, bool per_thread);

/* Has the app asked the driver for the QMD table itself (a profiler does)? Then it may hold the one
 * subscription. */
bool lithos_hook_app_asked_for_table(void);
/* CUDA_INJECTION64_PATH: the body of InitializeInjection. Always 1: the driver goes on. */
int lithos_hook_injected(void);
