#include "driver/tools.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#include "base/log.h"
#include "cuda/cuda_abi.h"
#include "driver/qmd_hook.h"

#define ENTRIES_MAX 512u

static struct {
    atomic_flag copied;
    atomic_bool ready, first;
    const void *real;
    lithos_qmd_subscribe_fn subscribe;
    const void *table[ENTRIES_MAX];
} tools = {.copied = ATOMIC_FLAG_INIT};

/* Its subscription is refused, or accepted and never called. */
static void say_second(void)
{
    lithos_log_once(LITHOS_LOG_WARNING,
                    "a profiler or debugger in this program asks for the driver's callbacks, which go to one "
                    "subscriber alone, and that is LithOS: the tool will see no kernels. To profile, use "
                    "`lithos run --coarse`");
}

static int subscribe(uint32_t *ret_handle, lithos_qmd_callback callback, void *user)
{
    int r = tools.subscribe(ret_handle, callback, user);
    if (lithos_hook_get_state() == LITHOS_HOOK_SUBSCRIBED)
        say_second();
    else if (r == 0)
        atomic_store(&tools.first, true);
    return r;
}

const void *lithos_tools_table(const void *real)
{
    const void *const *from = real;
    if (lithos_hook_get_state() == LITHOS_HOOK_SUBSCRIBED)
        say_second();
    uintptr_t bytes = (uintptr_t)from[0];
    if (bytes <= LITHOS_QMD_TABLE_ENABLE * sizeof(void *) || bytes > sizeof tools.table ||
        bytes % sizeof(void *) || !from[LITHOS_QMD_TABLE_SUBSCRIBE])
        return real;
    if (!atomic_flag_test_and_set(&tools.copied)) {
        memcpy(tools.table, from, bytes);
        tools.real = real;
        tools.subscribe = (lithos_qmd_subscribe_fn)from[LITHOS_QMD_TABLE_SUBSCRIBE];
        tools.table[LITHOS_QMD_TABLE_SUBSCRIBE] = (const void *)subscribe;
        atomic_store(&tools.ready, true);
    }
    /* Another thread may be copying it: then this one gets the table as it is. */
    return atomic_load(&tools.ready) && tools.real == real ? (const void *)tools.table : real;
}

void lithos_tools_asked(const void *caller)
{
    static const char cupti[] = "libcupti";
    Dl_info info;
    if (lithos_hook_get_state() != LITHOS_HOOK_SUBSCRIBED || !dladdr(caller, &info) || !info.dli_fname)
        return;
    const char *slash = strrchr(info.dli_fname, '/');
    if (!strncmp(slash ? slash + 1 : info.dli_fname, cupti, sizeof cupti - 1))
        say_second();
}

bool lithos_tools_were_first(void)
{
    return atomic_load(&tools.first);
}
