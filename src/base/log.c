#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const level_names[LITHOS_LOG_LEVEL_MAX] = {"error", "warning", "info", "debug"};
static _Atomic int threshold = -1;
static const char *_Atomic program = "lithos";

enum lithos_log_level lithos_log_threshold(void)
{
    int t = atomic_load_explicit(&threshold, memory_order_relaxed);
    if (t >= 0)
        return (enum lithos_log_level)t;
    t = LITHOS_LOG_WARNING;
    const char *env = getenv("LITHOS_LOG");
    for (int i = 0; env && i < LITHOS_LOG_LEVEL_MAX; i++)
        if (!strcmp(env, level_names[i]))
            t = i;
    atomic_store_explicit(&threshold, t, memory_order_relaxed);
    return (enum lithos_log_level)t;
}

void lithos_log_set_threshold(enum lithos_log_level level)
{
    atomic_store_explicit(&threshold, (int)level, memory_order_relaxed);
}

void lithos_log_set_name(const char *name)
{
    atomic_store(&program, name);
}

void lithos_log(enum lithos_log_level level, const char *fmt, ...)
{
    if (level > lithos_log_threshold())
        return;
    int saved = errno;
    char line[1024];
    int n =
        snprintf(line, sizeof line, "%s: %s%s", atomic_load(&program),
                 level == LITHOS_LOG_ERROR ? "" : level_names[level], level == LITHOS_LOG_ERROR ? "" : ": ");
    va_list ap;
    va_start(ap, fmt);
    int m = vsnprintf(line + n, sizeof line - (size_t)n, fmt, ap);
    va_end(ap);
    size_t len = m < 0 ? (size_t)n : LITHOS_MIN((size_t)n + (size_t)m, sizeof line - 2);
    line[len++] = '\n';
    ssize_t written = write(STDERR_FILENO, line, len);
    (void)written; /* nobody is left to be told */
    errno = saved;
}
