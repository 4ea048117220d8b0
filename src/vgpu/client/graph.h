/* Graphs within the virtual driver: nodes and what each waits for. An exec has copies of the nodes in an order that keeps to that,
 * and runs them one after the other in the stream it is launched in: a card may run what does not depend on each other side by
 * side, here nothing of a graph overlaps. */
#pragma once

#include "vgpu/client/client.h"

struct CUgraphNode_st {
    struct CUgraph_st *graph;
    uint64_t id;              /* never another's: addresses are used again */
    uint64_t cloned_from;     /* id of the node that it is a clone of, or 0 */
    struct vgpu_op *op;       /* NULL: an empty node, or */
    struct CUgraph_st *child; /* a graph within the graph, the node's own */
    struct vgpu_nodes deps;   /* nodes of the same graph that it waits for */
    struct vgpu_nodes
        ordered;           /* of those, the kernels behind which it may begin once all their blocks have */
    void **param_pointers; /* what was given out by cuGraphKernelNodeGetParams: where each parameter stands */
    CUstreamBatchMemOpParams memop; /* of a node that is one, as it was given */
    uint32_t place;                 /* in the order of the walk under way */
};

struct CUgraph_st {
    struct vgpu_nodes nodes; /* in the order they were made */
    struct CUctx_st *ctx;    /* of its nodes; NULL: there is none yet */
    uint64_t id;
    struct CUstream_st *origin; /* while it is captured: the stream that began */
    bool broken;                /* captured, and a call was refused in the middle */
};

/* ---- graph.c */
struct CUgraph_st *vgpu_graph_new(struct CUctx_st *ctx);
void vgpu_graph_free(struct CUgraph_st *graph);
/* A node of op (consumed whatever comes of it; NULL: an empty node) that waits for those of deps. */
CUresult vgpu_graph_add(struct CUgraph_st *graph, struct vgpu_op *op, struct CUgraphNode_st *const *deps,
                        size_t count, struct CUgraphNode_st **ret_node);
bool vgpu_nodes_have(const struct vgpu_nodes *nodes, const struct CUgraphNode_st *node);
/* Once; false: no memory. */
bool vgpu_nodes_add(struct vgpu_nodes *nodes, struct CUgraphNode_st *node);
/* All nodes, each behind those that it waits for, else in the order they were made. INVALID_VALUE: they wait for each other.
 * ret_order: room for all; also sets their place. */
CUresult vgpu_graph_order(const struct CUgraph_st *graph, struct CUgraphNode_st **ret_order);
/* CU_GRAPH_NODE_TYPE_*. */
int vgpu_node_type(const struct CUgraphNode_st *node);
int vgpu_op_node_type(const struct vgpu_op *op);
/* A copy, to be found in by the nodes of the original. */
CUresult vgpu_graph_clone(const struct CUgraph_st *from, struct CUgraph_st **ret_graph);

/* ---- graph_flat.c */
/* A node of a graph, or of a graph in it, in its place. */
struct vgpu_flat {
    const struct CUgraphNode_st *node;
    uint32_t *deps; /* places, rising */
    uint32_t dep_count;
};

struct vgpu_flat_graph {
    struct vgpu_flat *nodes;
    uint32_t count, room;
};

/* Into f, which is empty; also sets the nodes' places. A child graph's inner nodes come before its own, which waits for them all. What
 * is in f belongs to the caller, whatever comes of it. */
CUresult vgpu_flatten(const struct CUgraph_st *graph, struct vgpu_flat_graph *f);
void vgpu_flat_free(struct vgpu_flat_graph *f);

/* ---- graph_node.c */
/* What a node with these parameters does, with the attributes of `like` (NULL: none), as an op. */
CUresult vgpu_kernel_node_op(const CUDA_KERNEL_NODE_PARAMS_v2 *params, const struct vgpu_op *like,
                             struct vgpu_op **ret_op);
CUresult vgpu_memop_node_op(const CUDA_BATCH_MEM_OP_NODE_PARAMS *params, struct vgpu_op **ret_op);
