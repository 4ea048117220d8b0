/* Assertions that stay on in release builds. For the daemon, the tools and the model ("the daemon fails stop");
 * never for code that runs in a tenant's process, which must fail open instead. */
#pragma once

#include <stdio.h>
#include <stdlib.h>

#define lithos_assert(expr)                                                                            \
    do {                                                                                               \
        if (__builtin_expect(!(expr), 0)) {                                                            \
            fprintf(stderr, "lithos: %s:%d: %s: assertion failed: %s\n", __FILE__, __LINE__, __func__, \
                    #expr);                                                                            \
            abort();                                                                                   \
        }                                                                                              \
    } while (0)
