/* A ticket says what the launching thread is doing while it is inside the real driver, so that the QMD
 * callback, which runs on the same thread inside that call, can tell whose a QMD is and what to do to it. It
 * lives on the stack of the hooked function. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/tpcset.h"
#include "cuda/cuda_abi.h"

enum lithos_ticket_kind {
    LITHOS_TICKET_LAUNCH, /* a kernel launch of the app: one QMD; more are the driver's own */
    LITHOS_TICKET_GRAPH,  /* an upload or launch of a graph: one QMD a kernel node, once */
    LITHOS_TICKET_DRIVER, /* memset, memcpy: the driver's own kernels */
    LITHOS_TICKET_KIND_MAX,
};

#define LITHOS_DEVICE_UNKNOWN (-1)

/* What is noted for the client's records (driver/client.h). Written by the client alone. */
struct lithos_ticket_notes {
    uint64_t sequence, submit_ns; /* of the call; with ticks not in ns but in lithos_ticks */
    bool ticks;
    uint64_t stream, graph; /* handles, as far as they are known before the call */
    /* the app's own kernel, from its QMD */
    bool seen;
    uint8_t cluster;
    uint16_t registers;
    uint16_t flags;
    uint64_t function;
    uint64_t stamp;
    struct lithos_tpcset tpcs;
};

struct lithos_atom;
struct lithos_gate;
struct lithos_graph_watch;

struct lithos_ticket {
    enum lithos_ticket_kind kind;
    uint32_t qmds_due; /* QMDs that are the app's own: 1, for multi-device launches one a device */
    CUfunction
        function;  /* what is launched, as the app named it: a CUfunction or a CUkernel; NULL: not known */
    uint32_t qmds; /* seen so far under this ticket */
    uint32_t
        together_sms; /* its blocks wait for each other, and take so many SMs to be there at once; 0: they do not, as far as is known */
    uint32_t qmds_taken;            /* of those that are due, seen */
    int32_t device;                 /* index into the hook's devices, or LITHOS_DEVICE_UNKNOWN */
    struct lithos_ticket *previous; /* of the same thread: calls nest when a driver function calls another */
    const struct lithos_gate *gate; /* where its kernels may run; NULL: the quota */
    struct lithos_atom *atom; /* what the app's kernel is to be made a part of (driver/atoms.h), or NULL */
    struct lithos_graph_watch *graph; /* of an exec with atoms (driver/graphs.h), or NULL */
    /* A launch of one kernel, whole, that may run on fewer TPCs than the quota has; as the app asked for it, and the handle of its stream. */
    bool narrow;
    uint32_t grid[3], block[3];
    uint64_t stream;
    CUgraphExec exec; /* LITHOS_TICKET_GRAPH: the app's own that is launched or uploaded, or NULL */
    uint32_t observe; /* the client's word when the ticket was opened; 0: notes are not filled in */
    struct lithos_ticket_notes notes;
};

/* initial-exec: the library is there from the start of the process (or small enough for the spare static TLS
 * when the driver loads it), and the callback may not allocate. */
extern __thread struct lithos_ticket *lithos_ticket_current
    __attribute__((tls_model("initial-exec"), visibility("hidden")));
