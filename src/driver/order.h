/* The order of calls, where a program's launches wait in queues: driver/order.def as a table, and the way of each call to whoever keeps
 * the queues (client.h, struct lithos_hook_order). Without queues a call is told from any other by one word, lithos_order_state. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "cuda/cuda_abi.h"
#include "driver/client.h"
#include "driver/exports.h"

/* Why a function has nothing to do with order. */
enum lithos_order_why {
    LITHOS_ORDER_WHY_ASKS,   /* it answers a question to which nothing queued matters */
    LITHOS_ORDER_WHY_THREAD, /* it is about the calling thread alone */
    LITHOS_ORDER_WHY_MAKES,  /* it makes what nothing queued can know */
    LITHOS_ORDER_WHY_GRAPH,  /* it is about a graph, not one that can be launched */
    LITHOS_ORDER_WHY_NOW,   /* it goes by what the driver has been given so far, or never meets queued work */
    LITHOS_ORDER_WHY_HINT,  /* it changes no result */
    LITHOS_ORDER_WHY_OLD,   /* it prepares launches of a kind that is not queued */
    LITHOS_ORDER_WHY_APART, /* it has nothing to do with work on the card */
    LITHOS_ORDER_WHY_MAX,
};

enum lithos_order_act {
    LITHOS_ORDER_MISSING, /* not in the list: a bug */
    LITHOS_ORDER_NOTHING,
    LITHOS_ORDER_QUEUE,
    LITHOS_ORDER_DRAIN,
    LITHOS_ORDER_STREAM_QUERY, /* not ready while the stream has something queued */
    LITHOS_ORDER_STREAM_DESTROY,
    LITHOS_ORDER_EVENT_QUERY, /* not ready while the event's record is queued */
    LITHOS_ORDER_EVENT_ELAPSED,
    LITHOS_ORDER_EVENT_SYNC,    /* after the event's record */
    LITHOS_ORDER_EVENT_DESTROY, /* after all that names it */
    LITHOS_ORDER_EVENT_SHARE,   /* other processes will see it: never queued from then on */
    LITHOS_ORDER_EVENT_OPEN,    /* another process' */
    LITHOS_ORDER_EVENT_NODE,    /* graphs record and wait for events from then on */
    LITHOS_ORDER_CAPTURE_BEGIN, /* nothing is queued while a stream captures */
    LITHOS_ORDER_CAPTURE_END,
    LITHOS_ORDER_ALLOC, /* now; once more after a drain when there is no memory: what is queued may free some */
    LITHOS_ORDER_ATTRIBUTE,     /* of a function: drains when it changes what becomes of launches */
    LITHOS_ORDER_ATTRIBUTE_ASK, /* what was set, though the driver was given another */
    LITHOS_ORDER_UNLOAD,
    LITHOS_ORDER_ACT_MAX,
};

/* What the arguments of a queued call are. */
enum lithos_order_form {
    LITHOS_ORDER_FORM_WORDS,   /* numbers and handles */
    LITHOS_ORDER_FORM_LAUNCH,  /* of a kernel */
    LITHOS_ORDER_FORM_GRAPH,   /* of a graph */
    LITHOS_ORDER_FORM_COPY,    /* to, from, bytes */
    LITHOS_ORDER_FORM_COPY_2D, /* a structure of the app's */
    LITHOS_ORDER_FORM_COPY_3D,
    LITHOS_ORDER_FORM_MEMSET_1, /* to, value, elements of so many bytes */
    LITHOS_ORDER_FORM_MEMSET_2,
    LITHOS_ORDER_FORM_MEMSET_4,
    LITHOS_ORDER_FORM_FREE,   /* memory */
    LITHOS_ORDER_FORM_HOST,   /* stream, function, its argument, flags */
    LITHOS_ORDER_FORM_RECORD, /* event, stream, flags */
    LITHOS_ORDER_FORM_WAIT,   /* stream, event, flags */
    /* stream, address, value, flags. Who writes the value is not known: behind all that was called before it, in any stream */
    LITHOS_ORDER_FORM_WAIT_VALUE,
    LITHOS_ORDER_FORM_MAX,
};

enum lithos_order_scope {
    LITHOS_ORDER_SCOPE_STREAM,
    LITHOS_ORDER_SCOPE_CONTEXT,
    LITHOS_ORDER_SCOPE_PROCESS,
};

enum lithos_drain {
#define W(name, why) LITHOS_DRAIN_##name,
#include "hw/drain.def"
#undef W
    LITHOS_DRAIN_MAX,
};

/* Which argument is the stream: its index, or one of these. */
#define LITHOS_ORDER_STREAM_DEFAULT (-1)
#define LITHOS_ORDER_STREAM_NONE (-2)
#define LITHOS_ORDER_STREAM_CONFIG (-3) /* in the CUlaunchConfig */

/* Words of arguments that a call is given on with: six in registers, the others from the caller's stack. */
#define LITHOS_ORDER_WORDS 14u

struct lithos_order_row {
    uint8_t act;  /* enum lithos_order_act */
    uint8_t what; /* NOTHING: why; QUEUE: the form; DRAIN: the scope */
    int8_t stream;
    uint8_t arguments; /* QUEUE: how many */
    uint8_t drain;     /* DRAIN: enum lithos_drain */
    bool per_thread;
    bool entry;     /* reached through lithos_order_entry; then: */
    uint16_t base;  /* enum lithos_export of the name that cuGetProcAddress is asked for */
    uint16_t since; /* CUDA version that brought it; 0: not known */
};

extern const struct lithos_order_row lithos_order_rows[LITHOS_EXPORT_MAX];

/* Not 0: lithos_hook_client.order is asked about calls. Set by the client; read by exports.S. */
extern _Atomic uint32_t lithos_order_state __attribute__((visibility("hidden")));

/* What the thread is giving to the driver out of turn, from a queue or past it. Its calls are made as they are. */
struct lithos_gate;
struct lithos_issue {
    const struct lithos_gate *gate; /* where its kernels may run; NULL: the quota */
    uint64_t stamp;                 /* written by the client's observer: that of the last kernel, 0 none */
    uint32_t thread; /* whose call it is, by what the client gave it when it was queued; 0: this thread's */
    /* Before each atom but the first of a kernel that is launched in so many: waits until it may go, and says where. stamp: of the
     * one before. NULL: they go at once. */
    void (*pace)(struct lithos_issue *issue, uint32_t atoms);
    /* Before a kernel that may be cut is launched whole: says where. NULL: it is as it was. */
    void (*whole)(struct lithos_issue *issue);
    /* May one that is better cut be launched whole this time, to see what the cut costs: would it run where its atoms do? NULL: yes. */
    bool (*may_try)(struct lithos_issue *issue);
};
extern __thread struct lithos_issue *lithos_order_issue
    __attribute__((tls_model("initial-exec"), visibility("hidden")));

static inline bool lithos_order_on(void)
{
    return __builtin_expect(atomic_load_explicit(&lithos_order_state, memory_order_relaxed) != 0, 0);
}

/* A wrapper's question, with queues on: true, the call is done with, with *ret_result. args: all of the call's, 6 words at least. */
bool lithos_order_call(enum lithos_export function, const uintptr_t *args, CUresult *ret_result);
/* The same for a kernel launch. */
bool lithos_order_launch(enum lithos_export function, const struct lithos_launch *launch,
                         CUresult *ret_result);
/* What a wait returns: its own result, or an error of something that was queued before. */
CUresult lithos_order_waited(CUresult result);
/* From exports.S: arguments in registers, and those on the stack. Negative: go on to the driver; else the result. */
int64_t lithos_order_entry(uint64_t function, const uintptr_t registers[6], const uintptr_t *stack)
    __attribute__((visibility("hidden")));
/* Call a function with words: the real one, or our own entry. */
CUresult lithos_order_real(enum lithos_export function, const uintptr_t args[LITHOS_ORDER_WORDS]);
CUresult lithos_order_ours(enum lithos_export function, const uintptr_t args[LITHOS_ORDER_WORDS]);

/* In a wrapper: return if the call is done with. */
#define LITHOS_ORDER(name, ...)                                                 \
    if (lithos_order_on()) {                                                    \
        const uintptr_t order_args[] = {__VA_ARGS__};                           \
        CUresult order_result;                                                  \
        if (lithos_order_call(LITHOS_EXPORT_##name, order_args, &order_result)) \
            return order_result;                                                \
    }
