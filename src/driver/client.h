/* What the hooks need from whoever links them (src/tenant; a test's fake): where to count, and when to look
 * again. The hooks know no arena and no daemon. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/tpcset.h"
#include "cuda/cuda_abi.h"
#include "driver/ticket.h"
#include "hw/atom.h"
#include "hw/qmd.h"

/* What the hooks count: the first of proto/counters.def, in its order. */
enum lithos_hook_count {
    LITHOS_COUNT_LAUNCHES,
    LITHOS_COUNT_QMDS,
    LITHOS_COUNT_MASKED,
    LITHOS_COUNT_CLIENTS_1, /* the client's own: of every launch as well */
    LITHOS_COUNT_CLIENTS_2,
    LITHOS_COUNT_DRIVER_QMDS,
    LITHOS_COUNT_GRAPH_QMDS,
    LITHOS_COUNT_GRAPH_LAUNCHES,
    LITHOS_COUNT_ESCAPED,
    LITHOS_COUNT_BREACHES,
    LITHOS_COUNT_UNMASKED,
    LITHOS_COUNT_CUT,
    LITHOS_COUNT_ATOMS,
#define W(name, why) LITHOS_COUNT_WHOLE_##name,
#include "hw/whole.def"
#undef W
    LITHOS_COUNT_GRAPH_CUT,
    LITHOS_COUNT_GRAPH_ATOMS,
    LITHOS_COUNT_GRAPH_CUT_LAUNCHES,
#define W(name, why) LITHOS_COUNT_GRAPH_WHOLE_##name,
#include "hw/graph_whole.def"
#undef W
    LITHOS_COUNT_GRAPH_FOLLOWED,
    LITHOS_COUNT_GRAPH_FOLLOWED_NODES,
#define W(name, why) LITHOS_COUNT_GRAPH_KEEPS_##name,
#include "hw/graph_keeps.def"
#undef W
    LITHOS_COUNT_MAX,
};

/* Whose a QMD is. */
enum lithos_qmd_owner {
    LITHOS_QMD_OWNER_LAUNCH, /* the kernel that the app launches */
    LITHOS_QMD_OWNER_GRAPH,  /* a kernel node */
    LITHOS_QMD_OWNER_DRIVER, /* the driver's own */
    LITHOS_QMD_OWNER_ESCAPED,
    LITHOS_QMD_OWNER_MAX,
};

/* A QMD as the callback hands it to the client, masked already. */
struct lithos_qmd_seen {
    enum lithos_qmd_owner owner;
    const struct lithos_qmd_layout *layout; /* NULL: not known, and nothing of the QMD may be touched */
    void *qmd;
    CUcontext ctx;
    CUfunction function;           /* the CUfunction, also where the app launched a CUkernel */
    struct lithos_qmd_brief brief; /* when the layout is known */
    const uint32_t *grid;          /* of the whole kernel, where the QMD is an atom's in a graph; else NULL */
    bool breach;
    struct lithos_tpcset tpcs; /* where it may run; all bits: not confined */
};

/* A launch as the app asked for it. */
struct lithos_launch {
    CUfunction function;
    CUstream stream; /* NULL made CU_STREAM_PER_THREAD where that is meant */
    unsigned grid[3], block[3];
    unsigned shared_bytes;
    bool cooperative;
    const CUlaunchConfig *config; /* as the app gave it, or NULL */
    void **params, **extra;
    bool cuttable;        /* params and extra are those of cuLaunchKernelEx */
    uint32_t atom, atoms; /* this part of it, of so many; 0 atoms: the whole */
    uint64_t
        operator_key; /* names function, grid and the like, where kernels are cut by their length; else 0 */
    uint32_t blocks_per_sm; /* that an SM may hold at once; 0: not found out */
};

/* What the client notes of launches. Called only while *observe is not 0, but for the two *_ends. None may wait, allocate
 * or call the system, except where it says so. */
struct lithos_hook_observer {
    /* What is to be noted: read once a call, 0 nothing. */
    const _Atomic uint32_t *observe;
    /* Before the driver is called. May use the driver. */
    void (*open)(struct lithos_ticket *t);
    /* No record will be written for it any more. To be called for each that was opened, but once launched(), graph_launched() or waited()
     * has been. */
    void (*closed)(void);
    /* In the callback. */
    void (*qmd)(struct lithos_ticket *t, const struct lithos_qmd_seen *seen);
    /* In the callback: a QMD without blocks among those of a graph. A node that is switched off has one, and so has the driver. */
    void (*empty_qmd)(struct lithos_ticket *t, const struct lithos_qmd_seen *seen);
    /* After a launch. May use the driver. */
    void (*launched)(struct lithos_ticket *t, const struct lithos_launch *launch, bool success);
    /* Before a graph is launched, and after, with what came of it: the call may take long. */
    void (*graph_begins)(void);
    void (*graph_launched)(const struct lithos_ticket *t, bool success);
    /* The handle that graph notes of this ticket belong to has become known; 0: there will be none. */
    void (*graph_made)(struct lithos_ticket *t, uint64_t graph);
    /* A wait, whose ticket was closed when it began, ended with success: for one stream, or UINT64_MAX. ended: all that was submitted there before has. */
    void (*waited)(const struct lithos_ticket_notes *notes, uint64_t stream, bool ended);
    /* A context may be about to end: ctx, or with ctx NULL those of a device. ended is called after it, with what came of it. */
    void (*context_ends)(CUcontext ctx, CUdevice device);
    void (*context_ended)(CUcontext ctx, CUdevice device, bool ended);
    void (*graph_ended)(uint64_t graph);
};

/* Where the calls of the app go first while it has queues (driver/order.h). */
struct lithos_order_row;
struct lithos_hook_order {
    /* A call, before it is made; args: its words. True: it is done with, with *ret_result; false: it is to be made now, and what has to
     * be before it has been given to the driver. May wait for that, as the app would for the card. */
    bool (*call)(uint32_t function, const struct lithos_order_row *row, const uintptr_t *args,
                 CUresult *ret_result);
    bool (*launch)(uint32_t function, const struct lithos_launch *launch, CUresult *ret_result);
    /* An error of a queued call of the current context that has not been returned yet: once. */
    CUresult (*error)(void);
};

struct lithos_hook_client {
    /* Counters of any thread, by enum lithos_hook_count; valid as long as the process lives. */
    _Atomic uint64_t *counters;
    /* Give this thread counters of its own (lithos_thread_counters), or leave it at the common ones when there are no more. Called
     * when it opens a ticket without having any. */
    void (*thread_starts)(void);
    /* A word that changes when the masks may have: read once a launch. Valid as long as the process lives. */
    const _Atomic uint32_t *watch;
    /* Called by a launching thread that found *watch other than lithos_hook_seen: rebuild the masks
     * (lithos_hook_mask) and set lithos_hook_seen. Must not wait. */
    void (*refresh)(void);
    /* Called by the thread that called cuInit, once it has succeeded, at most once a process; bounded. May
     * use the driver. */
    void (*started)(void);
    /* Called by InitializeInjection when the process reached the real driver past us, inside the real cuInit,
     * where the driver may not be called. */
    void (*injected)(void);
    /* What is to be done with launches of an operator. False: nothing is known of it. Called on the way of a launch: it may not
     * wait. */
    bool (*atom_choice)(uint64_t operator_key, struct lithos_atom_choice *ret_choice);
    /* Not 0: launches are to be asked about with size(). Read once a launch. Valid as long as the process lives. */
    const _Atomic uint32_t *sizing;
    /* On which TPCs of the quota's a kernel is to run, by its function, grid and block, and its stream's handle. False: on all of them.
     * Called in the callback: it may not wait, allocate or call the system. */
    bool (*size)(uint64_t function, const uint32_t grid[3], const uint32_t block[3], uint64_t stream,
                 struct lithos_tpcset *ret_tpcs);
    /* How many kernels of a graph are to lie between stops in it, 0: none are to be put in. Valid as long as the process lives. */
    const _Atomic uint32_t *stops;
    /* Where kernels of the current context find the word that stops go by: they wait while it is 0. 0: there is none. May use the driver. */
    uint64_t (*stop_address)(CUcontext ctx);
    /* Is this process to be counted and masked at all? Asked once, at the first cuInit. */
    bool (*wanted)(void);
    const struct lithos_hook_observer *observer;
    const struct lithos_hook_order *order;
};

/* Defined by whoever links lithos_driver_front. */
extern const struct lithos_hook_client lithos_hook_client;
