#include "driver/escape.h"

#include <dlfcn.h>
#include <execinfo.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#include "base/log.h"

#define FRAMES 24
#define SAY_MAX 8u

void lithos_escape_prepare(void)
{
    void *frames[2];
    if (lithos_log_threshold() >= LITHOS_LOG_DEBUG)
        backtrace(frames, 2); /* its first call loads the unwinder */
}

static void say_frame(void *address)
{
    Dl_info where;
    if (!dladdr(address, &where) || !where.dli_fname) {
        lithos_debug("  %p", address);
        return;
    }
    const char *slash = strrchr(where.dli_fname, '/');
    const char *file = slash ? slash + 1 : where.dli_fname;
    uintptr_t in_file = (uintptr_t)address - (uintptr_t)where.dli_fbase;
    if (where.dli_sname)
        lithos_debug("  %s+0x%zx %s+0x%zx", file, (size_t)in_file, where.dli_sname,
                     (size_t)((uintptr_t)address - (uintptr_t)where.dli_saddr));
    else
        lithos_debug("  %s+0x%zx", file, (size_t)in_file);
}

void lithos_escape_say(void)
{
    static _Atomic uint32_t said;
    void *frames[FRAMES];
    if (lithos_log_threshold() < LITHOS_LOG_DEBUG || atomic_fetch_add(&said, 1) >= SAY_MAX)
        return;
    int count = backtrace(frames, FRAMES);
    lithos_debug("a kernel escaped the hooked functions; called by:");
    for (int i = 2; i < count; i++) /* not this function and the callback */
        say_frame(frames[i]);
}
