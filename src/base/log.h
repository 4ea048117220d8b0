/* Messages to people, on standard error. A message says what happened, to what, and what to do. */
#pragma once

#include <stdatomic.h>

#include "base/util.h"

enum lithos_log_level {
    LITHOS_LOG_ERROR,
    LITHOS_LOG_WARNING,
    LITHOS_LOG_INFO,
    LITHOS_LOG_DEBUG,
    LITHOS_LOG_LEVEL_MAX,
};

/* Highest level printed: LITHOS_LOG=error|warning|info|debug, read once; warning when it is not set. */
enum lithos_log_level lithos_log_threshold(void);
void lithos_log_set_threshold(enum lithos_log_level level);
/* The word before each message ("lithos", "lithosd"): a string that stays alive. */
void lithos_log_set_name(const char *name);
/* One write(2) a message, so that lines of several processes do not mix; keeps errno. */
LITHOS_OFF_PATH void lithos_log(enum lithos_log_level level, const char *fmt, ...) LITHOS_PRINTF(2, 3);

#define lithos_error(...) lithos_log(LITHOS_LOG_ERROR, __VA_ARGS__)
#define lithos_warning(...) lithos_log(LITHOS_LOG_WARNING, __VA_ARGS__)
#define lithos_info(...) lithos_log(LITHOS_LOG_INFO, __VA_ARGS__)
#define lithos_debug(...) lithos_log(LITHOS_LOG_DEBUG, __VA_ARGS__)

/* At most once a place in the program: for a tenant's launch path, where a message per launch would drown the app. */
#define lithos_log_once(level, ...)                                           \
    do {                                                                      \
        static atomic_flag said_ = ATOMIC_FLAG_INIT;                          \
        if (!atomic_flag_test_and_set_explicit(&said_, memory_order_relaxed)) \
            lithos_log(level, __VA_ARGS__);                                   \
    } while (0)
