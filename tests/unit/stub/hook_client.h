/* A client of the hooks that is always wanted and does nothing by itself, for tests that stand in the tenant library's place. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "driver/client.h"

static inline void hook_client_nothing(void)
{
}

static inline bool hook_client_wanted(void)
{
    return true;
}

static const _Atomic uint32_t hook_client_never;

/* What the library calls by the name lithos_hook_client. */
#define HOOK_CLIENT(counters_, watch_, observer_, order_)                                                \
    {                                                                                                    \
        .counters = (counters_), .thread_starts = hook_client_nothing, .watch = (watch_),                \
        .refresh = hook_client_nothing, .started = hook_client_nothing, .injected = hook_client_nothing, \
        .sizing = &hook_client_never, .stops = &hook_client_never, .wanted = hook_client_wanted,         \
        .observer = (observer_), .order = (order_)                                                       \
    }
