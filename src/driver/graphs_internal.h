/* Within graphs*.c. */
#pragma once

#include <stddef.h>

#include <pthread.h>

#include "driver/atoms_internal.h"
#include "driver/graphs.h"

/* Nodes that are added to a graph, at most. */
#define LITHOS_GRAPH_ATOMS_MAX 16384u

/* A kernel of the app's graph that is a chain of nodes in the clone. */
struct lithos_graph_kernel {
    struct lithos_atom atom; /* what it is cut into: nodes, grid, block */
    CUgraphNode *nodes;      /* atom.nodes of them */
    CUfunction launched;     /* as the app names it */
    CUfunction function;     /* as the callback names it */
    unsigned shared_bytes;
    bool on;       /* not switched off */
    bool armed;    /* each node was made its atom, and still is */
    bool counted;  /* that it was, once */
    uint32_t cuts; /* atoms that it was made when it was armed before; with counted */
};

/* A node of the app's graph, and what stands for it in the clone. */
struct lithos_graph_pair {
    CUgraphNode app, ours;
    uint32_t kernel; /* index of that which is a chain, from 1; 0: the same node as in the app's */
    int type;        /* CU_GRAPH_NODE_TYPE_* */
    bool off;        /* switched off to be shown again, and could not be switched on */
};

struct lithos_graph_exec {
    struct lithos_graph_exec *next;
    uint32_t refs; /* under the table's lock */
    bool gone;     /* not in the table any more */

    pthread_mutex_t lock; /* of what follows */
    CUgraphExec app;
    unsigned long long flags;
    struct lithos_atoms_context *where;
    CUgraph clone;
    CUgraphExec cut;                 /* NULL: there is none, or none any more */
    CUgraphExec old;                 /* one that was given up, and may be running */
    struct lithos_graph_pair *pairs; /* by address of the app's nodes */
    uint32_t pair_count;
    struct lithos_graph_kernel *kernels; /* each behind those that it waits for */
    uint32_t kernel_count;
    bool dirty;        /* changed since it was looked at what the driver shows of it */
    uint32_t masks;    /* lithos_hook_masks as all of that one's nodes were shown; 0: they were not yet */
    uint32_t launches; /* since it was made */
    uint32_t
        stops; /* nodes of the clone at which it can be held; it runs where the grant has it for such graphs */
    uint64_t stop_address; /* of the word that they go by */
    /* What was launched last, so that launches of one and the other follow each other as launches of one exec do. */
    CUevent event;
    CUstream stream;
    bool recorded, cut_last;
};

/* The nodes of a graph and what each waits for. */
struct lithos_graph_level {
    CUgraphNode *nodes; /* by address */
    size_t count;
    CUgraphNode *from, *to;
    CUgraphEdgeData *data;
    size_t edges;
    uint32_t *order;    /* indices, each behind those that it waits for */
    bool *programmatic; /* by index: one of its edges is more, or less, than a full dependency */
};
/* What stands for a node of the app's, once the pairs are in order; NULL: nothing does. */
const struct lithos_graph_pair *lithos_graph_pair_of(const struct lithos_graph_exec *x, CUgraphNode app);
/* UINT32_MAX: it is none of them. */
uint32_t lithos_graph_index_of(const struct lithos_graph_level *l, CUgraphNode node);
/* What waited for the node waits for the other one. Calls the driver. */
bool lithos_graph_move_dependents(CUgraph graph, CUgraphNode from, CUgraphNode to);

/* The cut exec of a graph and all that belongs to it, into x, whose app, flags and where are filled in. 1; 0: no kernel of it may or need
 * be cut; -1: not, for *ret_why. Calls the driver. */
int lithos_graph_cut(struct lithos_graph_exec *x, CUgraph graph, enum lithos_graph_whole *ret_why);
/* Nodes into its clone at which it waits while the client says so, as many kernels deep apart as it says. False: it cannot be. Calls the
 * driver. */
bool lithos_graph_stops(struct lithos_graph_exec *x, const struct lithos_graph_level *l);
/* Is that word still the one that somebody writes? It is another one when lithosd was restarted. */
bool lithos_graph_stops_hold(const struct lithos_graph_exec *x);
/* How many kernels of a graph would be cut; *ret_strange: it has nodes of which there cannot be two. Calls the driver. */
uint32_t lithos_graph_worth(CUgraph graph, bool *ret_strange);
/* What the kernel is now: not armed, to be chosen for anew. False: it cannot be found out. */
bool lithos_graph_kernel_is(struct lithos_graph_kernel *k, const CUDA_KERNEL_NODE_PARAMS_v2 *p);
/* Give back the clone and what is known of it; the execs are the caller's. */
void lithos_graph_uncut(struct lithos_graph_exec *x);

/* Have every kernel that is not, or may not be any more, be atoms. False: it cannot be, for *ret_why. */
bool lithos_graph_arm(struct lithos_graph_exec *x, CUstream stream, enum lithos_graph_whole *ret_why);
/* The masks in force have changed: have all nodes of the cut exec shown again, its kernels' as atoms when it is armed. How many;
 * negative: it cannot be. */
int lithos_graph_rearm(struct lithos_graph_exec *x);
/* A launch or upload of one of its execs. *ret_strays: QMDs of kernels that should be atoms, and were not made any. */
CUresult lithos_graph_call(struct lithos_graph_exec *x, CUgraphExec exec, CUstream stream, bool launch,
                           uint32_t *ret_strays);
