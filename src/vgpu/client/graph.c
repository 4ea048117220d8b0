/* Graphs: made, cloned, asked for their nodes and edges. */
#include "vgpu/client/graph.h"

#include <stdlib.h>
#include <string.h>

#define MAX_NODES 65536u
#define NOWHERE UINT32_MAX

/* ---- sets of nodes ---- */

void vgpu_nodes_free(struct vgpu_nodes *nodes)
{
    free(nodes->node);
    *nodes = (struct vgpu_nodes){0};
}

bool vgpu_nodes_have(const struct vgpu_nodes *nodes, const struct CUgraphNode_st *node)
{
    for (uint32_t i = 0; i < nodes->count; i++)
        if (nodes->node[i] == node)
            return true;
    return false;
}

static bool append(struct vgpu_nodes *nodes, struct CUgraphNode_st *node)
{
    if (nodes->count == nodes->room) {
        uint32_t room = nodes->room ? nodes->room * 2 : 4;
        struct CUgraphNode_st **more = NULL;
        if (nodes->count < MAX_NODES) /* NOLINTNEXTLINE(bugprone-sizeof-expression): pointers */
            more = realloc(nodes->node, room * sizeof *more);
        if (!more)
            return false;
        nodes->node = more;
        nodes->room = room;
    }
    nodes->node[nodes->count++] = node;
    return true;
}

bool vgpu_nodes_add(struct vgpu_nodes *nodes, struct CUgraphNode_st *node)
{
    return vgpu_nodes_have(nodes, node) || append(nodes, node);
}

static void take_out(struct vgpu_nodes *nodes, const struct CUgraphNode_st *node)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < nodes->count; i++)
        if (nodes->node[i] != node)
            nodes->node[kept++] = nodes->node[i];
    nodes->count = kept;
}

/* Into an array of *count, as the driver does: all of them or as many as fit; what is left of the array is NULL, and *count says how
 * many there were. nodes NULL: how many there are. */
static CUresult give(const struct vgpu_nodes *from, CUgraphNode *nodes, size_t *count)
{
    if (!count)
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; nodes && i < *count; i++)
        nodes[i] = i < from->count ? from->node[i] : NULL;
    *count = nodes ? LITHOS_MIN(*count, (size_t)from->count) : from->count;
    return CUDA_SUCCESS;
}

/* ---- graphs ---- */

struct CUgraph_st *vgpu_graph_new(struct CUctx_st *ctx)
{
    struct CUgraph_st *g = calloc(1, sizeof *g);
    if (g) {
        g->ctx = ctx;
        g->id = vgpu_next_id();
    }
    return g;
}

static void node_free(struct CUgraphNode_st *n)
{
    vgpu_handle_remove(n);
    vgpu_op_free(n->op);
    if (n->child) {
        vgpu_handle_remove(n->child);
        vgpu_graph_free(n->child);
    }
    vgpu_nodes_free(&n->deps);
    vgpu_nodes_free(&n->ordered);
    free(n->param_pointers);
    free(n);
}

void vgpu_graph_free(struct CUgraph_st *g)
{
    for (uint32_t i = 0; i < g->nodes.count; i++)
        node_free(g->nodes.node[i]);
    vgpu_nodes_free(&g->nodes);
    free(g);
}

CUresult vgpu_graph_add(struct CUgraph_st *g, struct vgpu_op *op, struct CUgraphNode_st *const *deps,
                        size_t count, struct CUgraphNode_st **ret_node)
{
    struct CUgraphNode_st *n = calloc(1, sizeof *n);
    bool ok = n != NULL;
    for (size_t i = 0; ok && i < count; i++)
        ok = vgpu_nodes_add(&n->deps, deps[i]);
    ok = ok && append(&g->nodes, n);
    if (!ok) {
        if (n)
            vgpu_nodes_free(&n->deps);
        free(n);
        vgpu_op_free(op);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    n->graph = g;
    n->id = vgpu_next_id();
    n->op = op;
    vgpu_handle_add(n, VGPU_H_GRAPH_NODE);
    *ret_node = n;
    return CUDA_SUCCESS;
}

CUresult vgpu_graph_order(const struct CUgraph_st *g, struct CUgraphNode_st **ret_order)
{
    uint32_t placed = 0;
    for (uint32_t i = 0; i < g->nodes.count; i++)
        g->nodes.node[i]->place = NOWHERE;
    /* Nodes are mostly made behind what they wait for: one walk then does. */
    for (uint32_t before = NOWHERE; placed < g->nodes.count && placed != before;) {
        before = placed;
        for (uint32_t i = 0; i < g->nodes.count; i++) {
            struct CUgraphNode_st *n = g->nodes.node[i];
            bool ready = n->place == NOWHERE;
            for (uint32_t d = 0; ready && d < n->deps.count; d++)
                ready = n->deps.node[d]->place != NOWHERE;
            if (!ready)
                continue;
            n->place = placed;
            ret_order[placed++] = n;
        }
    }
    return placed == g->nodes.count ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CU_API(cuGraphCreate, CUgraph *ret, unsigned int flags)
{
    VGPU_ENTER();
    if (!ret || flags)
        return CUDA_ERROR_INVALID_VALUE;
    struct CUgraph_st *g = vgpu_graph_new(NULL);
    if (!g)
        return CUDA_ERROR_OUT_OF_MEMORY;
    vgpu_handle_add(g, VGPU_H_GRAPH);
    *ret = g;
    return CUDA_SUCCESS;
}

CU_API(cuGraphDestroy, CUgraph graph)
{
    VGPU_ENTER();
    if (!vgpu_handle_is(graph, VGPU_H_GRAPH))
        return CUDA_ERROR_INVALID_VALUE;
    vgpu_handle_remove(graph);
    vgpu_graph_free(graph);
    return CUDA_SUCCESS;
}

static CUresult clone_node(struct CUgraph_st *to, const struct CUgraphNode_st *n)
{
    struct vgpu_op *op = n->op ? vgpu_op_clone(n->op, n->op->stream) : NULL;
    struct CUgraphNode_st *c;
    if (n->op && !op)
        return CUDA_ERROR_OUT_OF_MEMORY;
    VGPU_TRY(vgpu_graph_add(to, op, NULL, 0, &c));
    c->cloned_from = n->id;
    c->memop = n->memop;
    if (!n->child)
        return CUDA_SUCCESS;
    VGPU_TRY(vgpu_graph_clone(n->child, &c->child));
    vgpu_handle_add(c->child, VGPU_H_GRAPH);
    return CUDA_SUCCESS;
}

static CUresult clone_nodes(struct CUgraph_st *to, const struct CUgraph_st *from)
{
    for (uint32_t i = 0; i < from->nodes.count; i++) {
        VGPU_TRY(clone_node(to, from->nodes.node[i]));
        from->nodes.node[i]->place = i;
    }
    for (uint32_t i = 0; i < from->nodes.count; i++) {
        const struct CUgraphNode_st *n = from->nodes.node[i];
        struct CUgraphNode_st *c = to->nodes.node[i];
        for (uint32_t d = 0; d < n->deps.count; d++)
            if (!append(&c->deps, to->nodes.node[n->deps.node[d]->place]))
                return CUDA_ERROR_OUT_OF_MEMORY;
        for (uint32_t d = 0; d < n->ordered.count; d++)
            if (!append(&c->ordered, to->nodes.node[n->ordered.node[d]->place]))
                return CUDA_ERROR_OUT_OF_MEMORY;
    }
    return CUDA_SUCCESS;
}

CUresult vgpu_graph_clone(const struct CUgraph_st *from, struct CUgraph_st **ret_graph)
{
    struct CUgraph_st *g = vgpu_graph_new(from->ctx);
    if (!g)
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult r = clone_nodes(g, from);
    if (r) {
        vgpu_graph_free(g);
        return r;
    }
    *ret_graph = g;
    return CUDA_SUCCESS;
}

CU_API(cuGraphClone, CUgraph *ret, CUgraph original)
{
    VGPU_ENTER();
    struct CUgraph_st *g;
    if (!ret || !vgpu_handle_is(original, VGPU_H_GRAPH))
        return CUDA_ERROR_INVALID_VALUE;
    VGPU_TRY(vgpu_graph_clone(original, &g));
    vgpu_handle_add(g, VGPU_H_GRAPH);
    *ret = g;
    return CUDA_SUCCESS;
}

CU_API(cuGraphNodeFindInClone, CUgraphNode *ret, CUgraphNode original, CUgraph clone)
{
    VGPU_ENTER();
    if (!ret || !vgpu_handle_is(original, VGPU_H_GRAPH_NODE) || !vgpu_handle_is(clone, VGPU_H_GRAPH))
        return CUDA_ERROR_INVALID_VALUE;
    for (uint32_t i = 0; i < clone->nodes.count; i++)
        if (clone->nodes.node[i]->cloned_from == original->id) {
            *ret = clone->nodes.node[i];
            return CUDA_SUCCESS;
        }
    return CUDA_ERROR_INVALID_VALUE;
}

/* ---- nodes and edges ---- */

CU_API(cuGraphGetNodes, CUgraph graph, CUgraphNode *nodes, size_t *count)
{
    VGPU_ENTER();
    return vgpu_handle_is(graph, VGPU_H_GRAPH) ? give(&graph->nodes, nodes, count) : CUDA_ERROR_INVALID_VALUE;
}

/* Those of a graph that `pick` chooses, as give() gives them. */
static CUresult give_picked(const struct CUgraph_st *graph,
                            bool (*pick)(const struct CUgraphNode_st *, const struct CUgraphNode_st *),
                            const struct CUgraphNode_st *of, CUgraphNode *nodes, size_t *count)
{
    struct vgpu_nodes picked = {0};
    CUresult r = CUDA_SUCCESS;
    for (uint32_t i = 0; !r && i < graph->nodes.count; i++)
        if (pick(graph->nodes.node[i], of) && !append(&picked, graph->nodes.node[i]))
            r = CUDA_ERROR_OUT_OF_MEMORY;
    if (!r)
        r = give(&picked, nodes, count);
    vgpu_nodes_free(&picked);
    return r;
}

static bool is_root(const struct CUgraphNode_st *n, const struct CUgraphNode_st *of)
{
    (void)of;
    return n->deps.count == 0;
}

static bool waits_for(const struct CUgraphNode_st *n, const struct CUgraphNode_st *of)
{
    return vgpu_nodes_have(&n->deps, of);
}

CU_API(cuGraphGetRootNodes, CUgraph graph, CUgraphNode *nodes, size_t *count)
{
    VGPU_ENTER();
    return vgpu_handle_is(graph, VGPU_H_GRAPH) ? give_picked(graph, is_root, NULL, nodes, count)
                                               : CUDA_ERROR_INVALID_VALUE;
}

CU_API(cuGraphNodeGetDependencies, CUgraphNode node, CUgraphNode *deps, size_t *count)
{
    VGPU_ENTER();
    return vgpu_handle_is(node, VGPU_H_GRAPH_NODE) ? give(&node->deps, deps, count)
                                                   : CUDA_ERROR_INVALID_VALUE;
}

CU_API(cuGraphNodeGetDependentNodes, CUgraphNode node, CUgraphNode *dependents, size_t *count)
{
    VGPU_ENTER();
    return vgpu_handle_is(node, VGPU_H_GRAPH_NODE)
               ? give_picked(node->graph, waits_for, node, dependents, count)
               : CUDA_ERROR_INVALID_VALUE;
}

/* Two kinds of edges are known: a full dependency, whose data is zero, and launch order. */
static CUgraphEdgeData edge_data(const struct CUgraphNode_st *from, const struct CUgraphNode_st *to)
{
    CUgraphEdgeData d = {0};
    if (vgpu_nodes_have(&to->ordered, from)) {
        d.from_port = CU_GRAPH_KERNEL_NODE_PORT_LAUNCH_ORDER;
        d.type = CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC;
    }
    return d;
}

CU_API(cuGraphNodeGetDependencies_v2, CUgraphNode node, CUgraphNode *deps, CUgraphEdgeData *data,
       size_t *count)
{
    VGPU_TRY(cuGraphNodeGetDependencies(node, deps, count));
    for (size_t i = 0; deps && data && i < *count; i++)
        data[i] = edge_data(deps[i], node);
    return CUDA_SUCCESS;
}

CU_API(cuGraphNodeGetDependentNodes_v2, CUgraphNode node, CUgraphNode *dependents, CUgraphEdgeData *data,
       size_t *count)
{
    VGPU_TRY(cuGraphNodeGetDependentNodes(node, dependents, count));
    for (size_t i = 0; dependents && data && i < *count; i++)
        data[i] = edge_data(node, dependents[i]);
    return CUDA_SUCCESS;
}

CU_API(cuGraphGetEdges, CUgraph graph, CUgraphNode *from, CUgraphNode *to, size_t *count)
{
    VGPU_ENTER();
    if (!vgpu_handle_is(graph, VGPU_H_GRAPH) || !count || !from != !to)
        return CUDA_ERROR_INVALID_VALUE;
    size_t edges = 0, room = from ? *count : 0;
    for (uint32_t i = 0; i < graph->nodes.count; i++) {
        struct CUgraphNode_st *n = graph->nodes.node[i];
        for (uint32_t d = 0; d < n->deps.count; d++, edges++)
            if (edges < room) {
                from[edges] = n->deps.node[d];
                to[edges] = n;
            }
    }
    for (size_t i = edges; i < room; i++)
        from[i] = to[i] = NULL;
    *count = from ? LITHOS_MIN(room, edges) : edges;
    return CUDA_SUCCESS;
}

CU_API(cuGraphGetEdges_v2, CUgraph graph, CUgraphNode *from, CUgraphNode *to, CUgraphEdgeData *data,
       size_t *count)
{
    VGPU_TRY(cuGraphGetEdges(graph, from, to, count));
    for (size_t i = 0; from && data && i < *count; i++)
        data[i] = edge_data(from[i], to[i]);
    return CUDA_SUCCESS;
}

static bool in_graph(const struct CUgraph_st *graph, const struct CUgraphNode_st *node)
{
    return vgpu_handle_is(node, VGPU_H_GRAPH_NODE) && node->graph == graph;
}

static CUresult check_edges(CUgraph graph, const CUgraphNode *from, const CUgraphNode *to, size_t count)
{
    if (!vgpu_handle_is(graph, VGPU_H_GRAPH) || (count && (!from || !to)))
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < count; i++)
        if (!in_graph(graph, from[i]) || !in_graph(graph, to[i]) || from[i] == to[i])
            return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

CU_API(cuGraphAddDependencies, CUgraph graph, const CUgraphNode *from, const CUgraphNode *to, size_t count)
{
    VGPU_ENTER();
    VGPU_TRY(check_edges(graph, from, to, count));
    for (size_t i = 0; i < count; i++)
        if (vgpu_nodes_have(&to[i]->deps, from[i]))
            return CUDA_ERROR_INVALID_VALUE; /* an edge there is already */
    for (size_t i = 0; i < count; i++)
        if (!vgpu_nodes_add(&to[i]->deps, from[i]))
            return CUDA_ERROR_OUT_OF_MEMORY;
    return CUDA_SUCCESS;
}

CU_API(cuGraphRemoveDependencies, CUgraph graph, const CUgraphNode *from, const CUgraphNode *to, size_t count)
{
    VGPU_ENTER();
    VGPU_TRY(check_edges(graph, from, to, count));
    for (size_t i = 0; i < count; i++)
        if (!vgpu_nodes_have(&to[i]->deps, from[i]))
            return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < count; i++) {
        take_out(&to[i]->deps, from[i]);
        take_out(&to[i]->ordered, from[i]);
    }
    return CUDA_SUCCESS;
}

static bool is_kernel(const struct CUgraphNode_st *n)
{
    return n->op && n->op->kind == VGPU_OP_LAUNCH;
}

static bool is_ordered(const CUgraphEdgeData *d)
{
    return d->from_port == CU_GRAPH_KERNEL_NODE_PORT_LAUNCH_ORDER &&
           d->type == CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC && !d->to_port;
}

/* Launch order is between kernels, on cards that have programmatic launches. */
static CUresult check_data(const CUgraphNode *from, const CUgraphNode *to, const CUgraphEdgeData *data,
                           size_t count)
{
    static const CUgraphEdgeData plain;
    for (size_t i = 0; data && i < count; i++) {
        if (!memcmp(&data[i], &plain, sizeof plain))
            continue;
        if (!is_ordered(&data[i])) {
            lithos_log_once(LITHOS_LOG_WARNING,
                            "virtual GPU: of programmatic edges of graphs only launch order is "
                            "implemented");
            return CUDA_ERROR_NOT_SUPPORTED;
        }
        if (!is_kernel(from[i]) || !is_kernel(to[i]) ||
            vgpu.devices[from[i]->op->stream->ctx->device].card.cc_major < 9)
            return CUDA_ERROR_INVALID_VALUE;
    }
    return CUDA_SUCCESS;
}

CU_API(cuGraphAddDependencies_v2, CUgraph graph, const CUgraphNode *from, const CUgraphNode *to,
       const CUgraphEdgeData *data, size_t count)
{
    VGPU_ENTER();
    VGPU_TRY(check_edges(graph, from, to, count));
    VGPU_TRY(check_data(from, to, data, count));
    VGPU_TRY(cuGraphAddDependencies(graph, from, to, count));
    for (size_t i = 0; data && i < count; i++)
        if (is_ordered(&data[i]) && !vgpu_nodes_add(&to[i]->ordered, from[i]))
            return CUDA_ERROR_OUT_OF_MEMORY;
    return CUDA_SUCCESS;
}

/* An edge is named with its data, as there may be several between two nodes. */
CU_API(cuGraphRemoveDependencies_v2, CUgraph graph, const CUgraphNode *from, const CUgraphNode *to,
       const CUgraphEdgeData *data, size_t count)
{
    VGPU_ENTER();
    VGPU_TRY(check_edges(graph, from, to, count));
    for (size_t i = 0; i < count; i++)
        if (vgpu_nodes_have(&to[i]->ordered, from[i]) != (data && is_ordered(&data[i])))
            return CUDA_ERROR_INVALID_VALUE;
    return cuGraphRemoveDependencies(graph, from, to, count);
}

CU_API(cuGraphDestroyNode, CUgraphNode node)
{
    VGPU_ENTER();
    if (!vgpu_handle_is(node, VGPU_H_GRAPH_NODE))
        return CUDA_ERROR_INVALID_VALUE;
    struct CUgraph_st *g = node->graph;
    take_out(&g->nodes, node);
    for (uint32_t i = 0; i < g->nodes.count; i++) {
        take_out(&g->nodes.node[i]->deps, node);
        take_out(&g->nodes.node[i]->ordered, node);
    }
    node_free(node);
    return CUDA_SUCCESS;
}
