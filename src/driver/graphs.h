/* Kernels of CUDA graphs as atoms (docs/adr/0019-atoms-in-graphs.md), and graphs with stops in them (docs/adr/0036-graphs-that-borrow.md).
 *
 * The app's exec stays as the app made it, and each call that changes it goes to it. Beside it there is a second one, made from a clone of
 * its graph in which each kernel that may be cut is a chain of nodes in launch order, or that has stops, and that is what is launched in its place as long as
 * the two do the same. Where one cannot follow the other the second is given up, and the app's own runs, whole. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "cuda/cuda_abi.h"
#include "driver/client.h"

struct lithos_graph_watch;
struct lithos_hook_device;
struct lithos_qmd_seen;

/* What a call changed in an exec. */
enum lithos_graph_change {
    LITHOS_GRAPH_CHANGE_KERNEL_V1, /* the node's parameters: CUDA_KERNEL_NODE_PARAMS_v1 */
    LITHOS_GRAPH_CHANGE_KERNEL,    /* CUDA_KERNEL_NODE_PARAMS_v2 */
    LITHOS_GRAPH_CHANGE_ANY,       /* CUgraphNodeParams, of any kind of node */
    LITHOS_GRAPH_CHANGE_NODE,      /* something else of the node */
    LITHOS_GRAPH_CHANGE_ENABLED,
    LITHOS_GRAPH_CHANGE_CHILD, /* the graph that it is */
};

/* A driver function about a node of an exec; it takes four words or fewer. */
typedef CUresult (*lithos_graph_change_fn)(CUgraphExec exec, CUgraphNode node, uintptr_t c, uintptr_t d);

/* Execs that something is kept for: 0, and none of the functions below but _made has anything to do. */
extern _Atomic uint32_t lithos_graphs_kept __attribute__((visibility("hidden")));

static inline bool lithos_graphs_any(void)
{
    return __builtin_expect(atomic_load_explicit(&lithos_graphs_kept, memory_order_relaxed) != 0, 0);
}

/* Graphs that are made now are to have stops in them (graphs_stops.c). */
static inline bool lithos_graphs_want_stops(void)
{
    return __builtin_expect(atomic_load_explicit(lithos_hook_client.stops, memory_order_relaxed) != 0, 0);
}

/* The app has instantiated a graph, while atoms are on or stops are wanted. Calls the driver. */
void lithos_graphs_made(CUgraphExec exec, CUgraph graph, unsigned long long flags);
/* The app launches (or uploads) an exec. True: it was done, with *ret_result. stream: CU_STREAM_PER_THREAD where that is meant. */
bool lithos_graphs_run(CUgraphExec exec, CUstream stream, bool launch, CUresult *ret_result);
/* A call of the app has changed its exec, with success: the same for the other one. */
void lithos_graphs_changed(enum lithos_graph_change change, lithos_graph_change_fn real, CUgraphExec exec,
                           CUgraphNode node, uintptr_t c, uintptr_t d);
/* The app has had its exec updated by a graph, or has tried to. */
void lithos_graphs_updated(CUgraphExec exec, CUgraph by, bool success);
/* The app has destroyed its exec. */
void lithos_graphs_destroyed(CUgraphExec exec);

/* In the callback: the QMD, masked already, of a node of an exec that is watched. False: it is not to be noted. No driver call, wait or
 * allocation. */
bool lithos_graphs_qmd(struct lithos_graph_watch *watch, const struct lithos_hook_device *device,
                       struct lithos_qmd_seen *seen);

void lithos_graphs_context_ended(CUcontext ctx, CUdevice device);
void lithos_graphs_forget(void);
