/* What happened lately: the last events, for `lithos status`. */
#pragma once

#include <stdint.h>

#include "base/util.h"

#define LITHOSD_EVENTS 100u
#define LITHOSD_EVENT_TEXT 256u

struct lithosd_event {
    uint64_t unix_ms;
    const char *kind; /* a literal: "admitted", "ended", "refused", "set", "breach", "escaped", "mps", ... */
    char text[LITHOSD_EVENT_TEXT];
};

struct lithosd_events {
    uint64_t count; /* ever; the last LITHOSD_EVENTS are kept */
    struct lithosd_event ring[LITHOSD_EVENTS];
};

uint64_t lithosd_unix_ms(void);
/* Keep it, and log it (info). */
void lithosd_event(struct lithosd_events *events, const char *kind, const char *fmt, ...) LITHOS_PRINTF(3, 4);
