#include "driver/tools.h"

#include <dlfcn.h>
#include <link.h>
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

/* CUPTI of CUDA 13 is asked to subscribe by the profiler in a program, and refuses without a question to the driver that we could hear
 * (H100, H200: error 39, multiple subscribers). So the profiler's call is what we hear: the library is preloaded, and comes before CUPTI
 * where names are looked up. */
typedef int (*cupti_subscribe_fn)(void **, void *, void *);
typedef int (*cupti_subscribe_v2_fn)(void **, void *, void *, void *);
#define CUPTI_ERROR_NOT_INITIALIZED 15

static int find_cupti(struct dl_phdr_info *info, size_t size, void *ret_handle)
{
    (void)size;
    const char *slash = info->dlpi_name ? strrchr(info->dlpi_name, '/') : NULL;
    if (strncmp(slash ? slash + 1 : "", "libcupti.so", strlen("libcupti.so")) != 0)
        return 0;
    *(void **)ret_handle = dlopen(info->dlpi_name, RTLD_LAZY | RTLD_NOLOAD);
    return *(void **)ret_handle != NULL;
}

/* The real one, in the libcupti that the program has loaded, however it did. */
static void *cupti_function(const char *name)
{
    void *handle = NULL;
    dl_iterate_phdr(find_cupti, &handle);
    if (lithos_hook_get_state() == LITHOS_HOOK_SUBSCRIBED)
        say_second();
    return handle ? dlsym(handle, name) : NULL; /* stays open: the program has it anyway */
}

__attribute__((visibility("default"))) int cuptiSubscribe(void **subscriber, void *callback, void *user);
__attribute__((visibility("default"))) int cuptiSubscribe_v2(void **subscriber, void *callback, void *user,
                                                             void *params);

int cuptiSubscribe(void **subscriber, void *callback, void *user)
{
    cupti_subscribe_fn real = (cupti_subscribe_fn)cupti_function("cuptiSubscribe");
    return real ? real(subscriber, callback, user) : CUPTI_ERROR_NOT_INITIALIZED;
}

int cuptiSubscribe_v2(void **subscriber, void *callback, void *user, void *params)
{
    cupti_subscribe_v2_fn real = (cupti_subscribe_v2_fn)cupti_function("cuptiSubscribe_v2");
    return real ? real(subscriber, callback, user, params) : CUPTI_ERROR_NOT_INITIALIZED;
}

bool lithos_tools_were_first(void)
{
    return atomic_load(&tools.first);
}
