/* CUDA graphs whose kernels follow the quota (docs/adr/0032-graphs-follow-the-quota.md).
 *
 * A replay shows the hook nothing, and what stands in a graph's QMDs stays. So when the masks in force are others than those an exec was
 * uploaded under, each of its nodes is switched off and on before the next launch, within which the driver then shows it again. Nodes
 * are named by those of the graph that the exec was made from. Programs destroy that as soon as they have the exec: it is kept for them,
 * out of their sight, until the exec ends as well. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "cuda/cuda_abi.h"
#include "hw/graph.h"

#define LITHOS_GRAPHS_FRESH 256u /* a power of two */

/* By hash: an exec whose kernels have the masks in force, or of which nothing is known. */
extern _Atomic(CUgraphExec) lithos_graphs_fresh[LITHOS_GRAPHS_FRESH] __attribute__((visibility("hidden")));

static inline unsigned lithos_graph_place(CUgraphExec exec)
{
    return (unsigned)(((uintptr_t)exec * 0x9e3779b97f4a7c15ull) >> 56) & (LITHOS_GRAPHS_FRESH - 1);
}

static inline _Atomic(CUgraphExec) *lithos_graph_fresh_place(CUgraphExec exec)
{
    return &lithos_graphs_fresh[lithos_graph_place(exec)];
}

/* Nothing is to be done before it is launched. All that a replay pays while nothing changes. */
static inline bool lithos_graph_is_fresh(CUgraphExec exec)
{
    return __builtin_expect(
        atomic_load_explicit(lithos_graph_fresh_place(exec), memory_order_relaxed) == exec, 1);
}

/* By hash: an exec that the app has changed nothing in, and whose nodes were switched for LithOS alone. */
extern _Atomic(CUgraphExec) lithos_graphs_as_made[LITHOS_GRAPHS_FRESH] __attribute__((visibility("hidden")));

/* What its QMDs say of the kernel that comes next holds still: nodes that are shown again may read its constants ahead, as when they were
 * shown first. Of another exec with the same hash it is forgotten. Called from within the driver's launch: takes no lock. */
static inline bool lithos_graph_reads_ahead(CUgraphExec exec)
{
    return exec && atomic_load_explicit(&lithos_graphs_as_made[lithos_graph_place(exec)],
                                        memory_order_acquire) == exec;
}

/* The masks in force have changed. */
void lithos_graphs_not_fresh(void);

/* The app has instantiated a graph; masks: lithos_hook_masks before it did. shown: it was uploaded as well. Calls the driver. */
void lithos_graph_follow_made(CUgraphExec exec, CUgraph graph, unsigned long long flags, uint32_t masks,
                              bool shown);
/* The app's exec, which is not fresh, is about to be launched or uploaded: have the driver show its nodes again, if need be. What it
 * returns is not success when a node could not be switched on again: the exec must not be launched so. stream: CU_STREAM_PER_THREAD where that is meant. Calls the driver. */
CUresult lithos_graph_follow(CUgraphExec exec, CUstream stream);
/* The app has changed something in it: parameters, what is switched on, all of it by another graph. */
void lithos_graph_follow_changed(CUgraphExec exec);
/* Before a launch of the app's thread that may be queued: where the queue's thread may not do it (the app has the graph, and
 * may be about to change it) what is queued is given to the driver first, and the same is done here. */
CUresult lithos_graph_follow_early(CUgraphExec exec, CUstream stream);

/* Kernels of a graph keep the TPCs that they have: counts it. */
void lithos_graph_keeps(enum lithos_graph_keeps why);
/* Have all blocks of the kernel node a place on the tenant's TPCs where they wait for each other? As it stands in its graph, without
 * what was changed in the exec since. False: not, or it cannot be told, which *ret_why says. Calls the driver. */
bool lithos_graph_has_place(CUgraphNode node, enum lithos_graph_keeps *ret_why);
enum lithos_graph_shown {
    LITHOS_GRAPH_SHOWN,   /* it is shown again in the next launch or upload */
    LITHOS_GRAPH_OFF,     /* the app has it switched off: it is shown when that switches it on */
    LITHOS_GRAPH_REFUSED, /* the driver does not want to: it is as it was */
};
/* Switch a node of an exec off and on. *io_off: it was switched off here, and could not be switched on; not success: it is now, and
 * the exec must not be launched. */
CUresult lithos_graph_show_again(CUgraphExec exec, CUgraphNode node, bool *io_off,
                                 enum lithos_graph_shown *ret_shown);
/* The app is about to destroy an exec. Returns the graph that was kept for it alone, to be destroyed afterwards, or NULL. */
CUgraph lithos_graph_follow_ends(CUgraphExec exec);

/* What becomes of a graph that the app destroys. */
enum lithos_graph_end {
    LITHOS_GRAPH_ENDS,  /* it is to be destroyed */
    LITHOS_GRAPH_STAYS, /* it is kept: the app is told that it is gone */
    LITHOS_GRAPH_GONE,  /* the app has destroyed it before */
};
enum lithos_graph_end lithos_graph_destroyed(CUgraph graph);
/* The app is about to destroy a node of a graph. */
void lithos_graph_node_destroyed(CUgraphNode node);

void lithos_graph_follow_context_ended(CUcontext ctx, CUdevice device);
void lithos_graph_follow_forget(void);
