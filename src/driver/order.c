#include "driver/order.h"

#include "base/util.h"

#include <string.h>

_Atomic uint32_t lithos_order_state LITHOS_LAUNCH_DATA;
__thread struct lithos_issue *lithos_order_issue __attribute__((tls_model("initial-exec")));

/* Letters, as in order.def. */
enum {
    STREAM_A,
    STREAM_B,
    STREAM_C,
    STREAM_D,
    STREAM_E,
    STREAM_F,
    STREAM_G,
    STREAM_H,
    STREAM_I,
    STREAM_DEFAULT = LITHOS_ORDER_STREAM_DEFAULT,
    STREAM_NONE = LITHOS_ORDER_STREAM_NONE,
    STREAM_CONFIG = LITHOS_ORDER_STREAM_CONFIG,
};

#define ROW(name, ...) [LITHOS_EXPORT_##name] = {__VA_ARGS__},
#define FROM(base_name, version) .entry = true, .base = LITHOS_EXPORT_##base_name, .since = version
#define QUEUED(thread, form, at, args)                                                 \
    .act = LITHOS_ORDER_QUEUE, .per_thread = thread, .what = LITHOS_ORDER_FORM_##form, \
    .stream = STREAM_##at, .arguments = args
#define DRAINED(thread, scope, at, why)                                                  \
    .act = LITHOS_ORDER_DRAIN, .per_thread = thread, .what = LITHOS_ORDER_SCOPE_##scope, \
    .stream = STREAM_##at, .drain = LITHOS_DRAIN_##why
#define DONE(thread, does, at) .act = LITHOS_ORDER_##does, .per_thread = thread, .stream = STREAM_##at

const struct lithos_order_row lithos_order_rows[LITHOS_EXPORT_MAX] = {
#define NOTHING(name, why) \
    ROW(name, .act = LITHOS_ORDER_NOTHING, .what = LITHOS_ORDER_WHY_##why, .stream = STREAM_NONE)
#define QUEUE(name, ...) ROW(name, QUEUED(__VA_ARGS__))
#define DRAIN(name, ...) ROW(name, DRAINED(__VA_ARGS__))
#define DO(name, ...) ROW(name, DONE(__VA_ARGS__))
#define ENTRY_QUEUE(name, base_name, version, ...) ROW(name, FROM(base_name, version), QUEUED(__VA_ARGS__))
#define ENTRY_DRAIN(name, base_name, version, ...) ROW(name, FROM(base_name, version), DRAINED(__VA_ARGS__))
#define ENTRY_DO(name, base_name, version, ...) ROW(name, FROM(base_name, version), DONE(__VA_ARGS__))
#include "driver/order.def"
};

/* ---- on the way to the client ---- */

bool lithos_order_call(enum lithos_export function, const uintptr_t *args, CUresult *ret_result)
{
    const struct lithos_order_row *row = &lithos_order_rows[function];
    if (lithos_order_issue || row->act == LITHOS_ORDER_NOTHING)
        return false;
    return lithos_hook_client.order->call(function, row, args, ret_result);
}

bool lithos_order_launch(enum lithos_export function, const struct lithos_launch *launch,
                         CUresult *ret_result)
{
    if (lithos_order_issue)
        return false;
    return lithos_hook_client.order->launch(function, launch, ret_result);
}

CUresult lithos_order_waited(CUresult result)
{
    if (result != CUDA_SUCCESS || lithos_order_issue)
        return result;
    return lithos_hook_client.order->error();
}

int64_t lithos_order_entry(uint64_t function, const uintptr_t registers[6], const uintptr_t *stack)
{
    uintptr_t args[LITHOS_ORDER_WORDS];
    CUresult result;
    if (lithos_order_issue)
        return -1;
    memcpy(args, registers, 6 * sizeof args[0]);
    memcpy(args + 6, stack, (LITHOS_ORDER_WORDS - 6) * sizeof args[0]); /* the caller's, of whatever use */
    return lithos_order_call((enum lithos_export)function, args, &result) ? (int64_t)(uint32_t)result : -1;
}

/* ---- calls by number ---- */

typedef uintptr_t word;
typedef CUresult (*words_fn)(word, word, word, word, word, word, word, word, word, word, word, word, word,
                             word);

static CUresult call(words_fn fn, const uintptr_t a[LITHOS_ORDER_WORDS])
{
    return fn(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11], a[12], a[13]);
}

CUresult lithos_order_real(enum lithos_export function, const uintptr_t args[LITHOS_ORDER_WORDS])
{
    return call((words_fn)atomic_load_explicit(&lithos_real_slots[function], memory_order_relaxed), args);
}

CUresult lithos_order_ours(enum lithos_export function, const uintptr_t args[LITHOS_ORDER_WORDS])
{
    return call((words_fn)lithos_export_address(function), args);
}
