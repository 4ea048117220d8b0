/* Where the app waits for the card, and where what stamps live in ends. */
#include "driver/atoms.h"
#include "driver/hooks.h"
#include "driver/order.h"
#include "driver/qmd_hook.h"

/* Called from exports.S alone, under the names that hooks.def gives. */
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#define HIDDEN __attribute__((visibility("hidden")))

typedef uintptr_t word;
typedef CUresult (*real_fn)(word, word, word, word, word, word);

/* WAIT_EVENT, WAIT_COPY: for something, and which stream it is in is not told here. */
enum wait { WAIT_ALL, WAIT_STREAM, WAIT_EVENT, WAIT_COPY };

static uint64_t stream_waited_for(enum wait what, word first, bool per_thread)
{
    if (what != WAIT_STREAM)
        return UINT64_MAX;
    return first || !per_thread ? first : (uintptr_t)CU_STREAM_PER_THREAD;
}

static CUresult copy_and_wait(real_fn real, const word args[6], bool per_thread)
{
    struct lithos_ticket ticket;
    lithos_ticket_open(&ticket, LITHOS_TICKET_DRIVER, NULL);
    if (__builtin_expect(ticket.observe, 0)) /* the default stream */
        ticket.notes.stream = per_thread ? (uintptr_t)CU_STREAM_PER_THREAD : 0;
    CUresult result = real(args[0], args[1], args[2], args[3], args[4], args[5]);
    lithos_ticket_close(&ticket);
    if (__builtin_expect(ticket.observe, 0) && result == CUDA_SUCCESS)
        lithos_hook_client.observer->waited(&ticket.notes, UINT64_MAX, false);
    return result;
}

static CUresult wait(real_fn real, const word args[6], enum wait what, bool per_thread)
{
    uint32_t observe = atomic_load_explicit(lithos_hook_client.observer->observe, memory_order_relaxed);
    struct lithos_ticket ticket;
    if (__builtin_expect(observe, 0)) {
        lithos_thread_ready();
        ticket.kind = LITHOS_TICKET_DRIVER;
        ticket.gate = NULL;
        ticket.atom = NULL;
        ticket.observe = observe;
        lithos_hook_client.observer->open(&ticket);
        lithos_hook_client.observer->closed(); /* the wait may take long */
    }
    CUresult result = real(args[0], args[1], args[2], args[3], args[4], args[5]);
    if (__builtin_expect(observe, 0) && result == CUDA_SUCCESS)
        lithos_hook_client.observer->waited(&ticket.notes, stream_waited_for(what, args[0], per_thread),
                                            what != WAIT_EVENT);
    return result;
}

/* As in hooks_mark.c: six words carry the arguments of any of them through unchanged. */
#define HOOK(name, base, since, per_thread, kind)
#define MARK(name, base, since, per_thread, args, on)
#define WAIT(name, base, since, per_thread, what)                                               \
    HIDDEN CUresult lithos_hook_##name(word a, word b, word c, word d, word e, word f)          \
    {                                                                                           \
        real_fn real = LITHOS_REAL(real_fn, name);                                              \
        if (!lithos_hook_active())                                                              \
            return real(a, b, c, d, e, f);                                                      \
        const word args[6] = {a, b, c, d, e, f};                                                \
        LITHOS_HOOK_CALLED(name);                                                               \
        LITHOS_ORDER(name, a, b, c, d, e, f)                                                    \
        CUresult result = WAIT_##what == WAIT_COPY ? copy_and_wait(real, args, per_thread)      \
                                                   : wait(real, args, WAIT_##what, per_thread); \
        return lithos_order_on() ? lithos_order_waited(result) : result;                        \
    }
#include "driver/hooks.def"
#undef HOOK
#undef MARK
#undef WAIT

/* ---- contexts and graphs end ---- */

typedef CUresult (*ctx_fn)(CUcontext);
typedef CUresult (*device_fn)(CUdevice);
typedef CUresult (*state_fn)(CUdevice, unsigned *, int *);

#define CONTEXT_ENDS(name)                                                                          \
    ctx_fn real = LITHOS_REAL(ctx_fn, name);                                                        \
    if (!lithos_hook_active())                                                                      \
        return real(ctx);                                                                           \
    LITHOS_ORDER(name, (uintptr_t)ctx, 0, 0, 0, 0, 0)                                               \
    lithos_hook_client.observer->context_ends(ctx, LITHOS_DEVICE_UNKNOWN);                          \
    lithos_atoms_context_ends(ctx, LITHOS_DEVICE_UNKNOWN);                                          \
    CUresult result = real(ctx);                                                                    \
    lithos_hook_client.observer->context_ended(ctx, LITHOS_DEVICE_UNKNOWN, result == CUDA_SUCCESS); \
    lithos_atoms_context_ended(ctx, LITHOS_DEVICE_UNKNOWN, result == CUDA_SUCCESS);                 \
    LITHOS_HOOK_CALLED(name);                                                                       \
    return result

HIDDEN CUresult lithos_hook_cuCtxDestroy(CUcontext ctx)
{
    CONTEXT_ENDS(cuCtxDestroy);
}

HIDDEN CUresult lithos_hook_cuCtxDestroy_v2(CUcontext ctx)
{
    CONTEXT_ENDS(cuCtxDestroy_v2);
}

/* Counts down, and ends the context at zero: taken for its end. */
HIDDEN CUresult lithos_hook_cuCtxDetach(CUcontext ctx)
{
    CONTEXT_ENDS(cuCtxDetach);
}

/* Releasing ends a primary context only when nobody else holds it. */
static bool primary_is_gone(CUdevice device)
{
    unsigned flags;
    int active = 0;
    return LITHOS_REAL(state_fn, cuDevicePrimaryCtxGetState)(device, &flags, &active) != CUDA_SUCCESS ||
           !active;
}

#define PRIMARY_ENDS(name, gone)                                     \
    device_fn real = LITHOS_REAL(device_fn, name);                   \
    if (!lithos_hook_active())                                       \
        return real(device);                                         \
    LITHOS_ORDER(name, (uintptr_t)device, 0, 0, 0, 0, 0)             \
    lithos_hook_client.observer->context_ends(NULL, device);         \
    lithos_atoms_context_ends(NULL, device);                         \
    CUresult result = real(device);                                  \
    bool ended = result == CUDA_SUCCESS && (gone);                   \
    lithos_hook_client.observer->context_ended(NULL, device, ended); \
    lithos_atoms_context_ended(NULL, device, ended);                 \
    LITHOS_HOOK_CALLED(name);                                        \
    return result

HIDDEN CUresult lithos_hook_cuDevicePrimaryCtxRelease(CUdevice device)
{
    PRIMARY_ENDS(cuDevicePrimaryCtxRelease, primary_is_gone(device));
}

HIDDEN CUresult lithos_hook_cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
    PRIMARY_ENDS(cuDevicePrimaryCtxRelease_v2, primary_is_gone(device));
}

HIDDEN CUresult lithos_hook_cuDevicePrimaryCtxReset(CUdevice device)
{
    PRIMARY_ENDS(cuDevicePrimaryCtxReset, true);
}

HIDDEN CUresult lithos_hook_cuDevicePrimaryCtxReset_v2(CUdevice device)
{
    PRIMARY_ENDS(cuDevicePrimaryCtxReset_v2, true);
}
