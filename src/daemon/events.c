#include "daemon/events.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/log.h"

uint64_t lithosd_unix_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

void lithosd_event(struct lithosd_events *events, const char *kind, const char *fmt, ...)
{
    struct lithosd_event *e = &events->ring[events->count++ % LITHOSD_EVENTS];
    e->unix_ms = lithosd_unix_ms();
    e->kind = kind;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->text, sizeof e->text, fmt, ap);
    va_end(ap);
    lithos_info("%s: %s", kind, e->text);
}
