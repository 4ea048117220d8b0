/* Copies, sets, and the loading of code: the driver may run kernels of its own for them (for the last to set up a module's
 * variables), which are told apart from launches that escaped.
 *
 * One wrapper for all: every argument of these functions is an integer or a pointer, so six registers (and
 * four words of the caller's frame for the batched ones) carry any of them through unchanged. */
#include "driver/atoms.h"
#include "driver/hooks.h"
#include "driver/order.h"
#include "driver/qmd_hook.h"

typedef uintptr_t word;
typedef CUresult (*real_6_fn)(word, word, word, word, word, word);
typedef CUresult (*real_10_fn)(word, word, word, word, word, word, word, word, word, word);

#define PARAMETERS_6 word a, word b, word c, word d, word e, word f
#define ARGUMENTS_6 a, b, c, d, e, f
#define PARAMETERS_10 PARAMETERS_6, word g, word h, word i, word j
#define ARGUMENTS_10 ARGUMENTS_6, g, h, i, j

/* The stream that a kernel of the driver's own runs on, for the client's notes. */
#define STREAM_B b
#define STREAM_D d
#define STREAM_E e
#define STREAM_F f
#define STREAM_H h
#define STREAM_I i
#define STREAM_DEFAULT 0
#define STREAM_UNKNOWN UINT64_MAX

static uint64_t stream_of(uint64_t stream, bool per_thread)
{
    return stream || !per_thread ? stream : (uintptr_t)CU_STREAM_PER_THREAD;
}

#define HOOK(name, base, since, per_thread, kind)
#define WAIT(name, base, since, per_thread, what)
#define MARK(name, base, since, per_thread, args, on)                                     \
    __attribute__((visibility("hidden"))) CUresult lithos_hook_##name(PARAMETERS_##args); \
    CUresult lithos_hook_##name(PARAMETERS_##args)                                        \
    {                                                                                     \
        real_##args##_fn real = LITHOS_REAL(real_##args##_fn, name);                      \
        if (!lithos_hook_active())                                                        \
            return real(ARGUMENTS_##args);                                                \
        LITHOS_ORDER(name, ARGUMENTS_##args)                                              \
        if (lithos_atoms_busy())                                                          \
            lithos_atoms_wait_any();                                                      \
        struct lithos_ticket ticket;                                                      \
        lithos_ticket_open(&ticket, LITHOS_TICKET_DRIVER, NULL);                          \
        if (ticket.observe)                                                               \
            ticket.notes.stream = stream_of(STREAM_##on, per_thread);                     \
        CUresult result = real(ARGUMENTS_##args);                                         \
        lithos_ticket_close(&ticket);                                                     \
        LITHOS_HOOK_CALLED(name);                                                         \
        return result;                                                                    \
    }
#include "driver/hooks.def"
