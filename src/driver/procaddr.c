/* cuGetProcAddress in all its forms: the real one answers, then a hooked function is replaced by ours. */
#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>

#include "base/log.h"
#include "base/util.h"
#include "driver/hooks.h"
#include "driver/order.h"

/* Called from exports.S alone, under the names that hooks.def gives. */
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#define HIDDEN __attribute__((visibility("hidden")))
#define SLOTS 2048u /* a power of two, well over what is not passed on as it is */
_Static_assert(LITHOS_EXPORT_MAX * 2 < SLOTS, "the table of addresses is too small");

/* What is given out in place of the driver's: functions with a wrapper (hooks.def), and those that go by lithos_order_entry
 * (order.def). Built once. */
static struct lithos_hook_row rows[LITHOS_EXPORT_MAX];
static int row_count;

/* Real address -> row, open addressing; several rows when the driver gives two names one address. Built once. */
static struct {
    void *address;
    uint16_t row;
} by_address[SLOTS];

static unsigned slot_of(const void *address)
{
    return (unsigned)(((uintptr_t)address * 0x9e3779b97f4a7c15ull) >> 48) & (SLOTS - 1);
}

static void collect(void)
{
    for (int i = 0; i < LITHOS_HOOK_ID_MAX; i++)
        rows[row_count++] = lithos_hook_rows[i];
    for (int e = 0; e < LITHOS_EXPORT_MAX; e++) {
        const struct lithos_order_row *order = &lithos_order_rows[e];
        if (order->entry)
            rows[row_count++] = (struct lithos_hook_row){.export = (uint16_t)e,
                                                         .base = order->base,
                                                         .since = order->since,
                                                         .per_thread = order->per_thread,
                                                         .kind = LITHOS_HOOK_KIND_PLAIN};
    }
}

static void build(void)
{
    collect();
    for (int i = 0; i < row_count; i++) {
        void *real = lithos_export_real((enum lithos_export)rows[i].export);
        if (!real)
            continue;
        unsigned slot = slot_of(real);
        while (by_address[slot].address)
            slot = (slot + 1) & (SLOTS - 1);
        by_address[slot].address = real;
        by_address[slot].row = (uint16_t)i;
    }
}

/* How well a row answers a question: its own stream flavour first, then the newest that is not too new. */
static int rank(const struct lithos_hook_row *row, int asked, int cuda_version, bool per_thread)
{
    bool named = row->base == asked || row->export == asked;
    bool old_enough = row->since <= cuda_version || row->export == asked;
    return (named << 18) | (old_enough << 17) | ((row->per_thread == per_thread) << 16) | row->since;
}

static const struct lithos_hook_row *find_by_address(const void *real, int asked, int cuda_version,
                                                     bool per_thread)
{
    const struct lithos_hook_row *best = NULL;
    for (unsigned slot = slot_of(real); by_address[slot].address; slot = (slot + 1) & (SLOTS - 1)) {
        const struct lithos_hook_row *row = &rows[by_address[slot].row];
        if (by_address[slot].address == real && (!best || rank(row, asked, cuda_version, per_thread) >
                                                              rank(best, asked, cuda_version, per_thread)))
            best = row;
    }
    return best;
}

static const struct lithos_hook_row *find_by_name(int asked, int cuda_version, bool per_thread)
{
    const struct lithos_hook_row *best = NULL;
    for (int i = 0; i < row_count; i++) {
        const struct lithos_hook_row *row = &rows[i];
        if (row->base != asked && row->export != asked)
            continue;
        if (row->since > cuda_version && row->export != asked)
            continue;
        if (!best || rank(row, asked, cuda_version, per_thread) > rank(best, asked, cuda_version, per_thread))
            best = row;
    }
    return best;
}

void *lithos_hook_substitute(const char *symbol, void *real, int cuda_version, bool per_thread)
{
    static pthread_once_t built = PTHREAD_ONCE_INIT;
    if (!symbol || !real)
        return real;
    pthread_once(&built, build);
    int asked = lithos_export_find(symbol);
    const struct lithos_hook_row *row = find_by_address(real, asked, cuda_version, per_thread);
    if (!row && asked >= 0) {
        row = find_by_name(asked, cuda_version, per_thread);
        Dl_info info;
        /* A variant newer than us under an exported name of its own: its arguments may differ from what we
         * know. */
        if (row && dladdr(real, &info) && info.dli_saddr == real && info.dli_sname &&
            lithos_export_find(info.dli_sname) < 0) {
            lithos_log_once(LITHOS_LOG_WARNING,
                            "the driver gives %s for %s, which this LithOS does not know: its "
                            "launches are masked but counted as escaped",
                            info.dli_sname, symbol);
            row = NULL;
        }
    }
    return row ? lithos_export_address((enum lithos_export)row->export) : real;
}

typedef CUresult (*proc_v1_fn)(const char *, void **, int, uint64_t);
typedef CUresult (*proc_v2_fn)(const char *, void **, int, uint64_t, int *);

HIDDEN CUresult lithos_hook_cuGetProcAddress(const char *symbol, void **ret_function, int cuda_version,
                                             uint64_t flags)
{
    CUresult result = LITHOS_REAL(proc_v1_fn, cuGetProcAddress)(symbol, ret_function, cuda_version, flags);
    LITHOS_HOOK_CALLED(cuGetProcAddress);
    if (result == CUDA_SUCCESS && ret_function)
        *ret_function = lithos_hook_substitute(symbol, *ret_function, cuda_version,
                                               flags & CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM);
    return result;
}

HIDDEN CUresult lithos_hook_cuGetProcAddress_v2(const char *symbol, void **ret_function, int cuda_version,
                                                uint64_t flags, int *ret_status)
{
    CUresult result =
        LITHOS_REAL(proc_v2_fn, cuGetProcAddress_v2)(symbol, ret_function, cuda_version, flags, ret_status);
    LITHOS_HOOK_CALLED(cuGetProcAddress_v2);
    if (result == CUDA_SUCCESS && ret_function)
        *ret_function = lithos_hook_substitute(symbol, *ret_function, cuda_version,
                                               flags & CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM);
    return result;
}

/* What cuda.h maps cuGetProcAddress to under --default-stream per-thread: without flags it gives per-thread
 * variants. */
HIDDEN CUresult lithos_hook_cuGetProcAddress_v2_ptsz(const char *symbol, void **ret_function,
                                                     int cuda_version, uint64_t flags, int *ret_status)
{
    CUresult result = LITHOS_REAL(proc_v2_fn, cuGetProcAddress_v2_ptsz)(symbol, ret_function, cuda_version,
                                                                        flags, ret_status);
    LITHOS_HOOK_CALLED(cuGetProcAddress_v2_ptsz);
    if (result == CUDA_SUCCESS && ret_function)
        *ret_function = lithos_hook_substitute(symbol, *ret_function, cuda_version,
                                               !(flags & CU_GET_PROC_ADDRESS_LEGACY_STREAM));
    return result;
}
