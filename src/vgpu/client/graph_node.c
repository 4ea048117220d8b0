/* Nodes of graphs: what kind each is, and kernel nodes and memory operations in detail. */
#include <stdlib.h>
#include <string.h>

#include "vgpu/client/graph.h"

int vgpu_op_node_type(const struct vgpu_op *op)
{
    if (!op)
        return CU_GRAPH_NODE_TYPE_EMPTY;
    switch (op->kind) {
    case VGPU_OP_LAUNCH:
        return CU_GRAPH_NODE_TYPE_KERNEL;
    case VGPU_OP_MEMSET:
        return CU_GRAPH_NODE_TYPE_MEMSET;
    case VGPU_OP_COPY:
        return op->is_word ? CU_GRAPH_NODE_TYPE_BATCH_MEM_OP : CU_GRAPH_NODE_TYPE_MEMCPY;
    case VGPU_OP_HOST:
        return op->is_word ? CU_GRAPH_NODE_TYPE_BATCH_MEM_OP : CU_GRAPH_NODE_TYPE_HOST;
    default:
        return CU_GRAPH_NODE_TYPE_EMPTY;
    }
}

int vgpu_node_type(const struct CUgraphNode_st *node)
{
    return node->child ? CU_GRAPH_NODE_TYPE_GRAPH : vgpu_op_node_type(node->op);
}

CU_API(cuGraphNodeGetType, CUgraphNode node, int *type)
{
    VGPU_ENTER();
    if (!vgpu_handle_is(node, VGPU_H_GRAPH_NODE) || !type)
        return CUDA_ERROR_INVALID_VALUE;
    *type = vgpu_node_type(node);
    return CUDA_SUCCESS;
}

static CUresult add(CUgraphNode *ret, CUgraph graph, const CUgraphNode *deps, size_t count,
                    struct vgpu_op *op)
{
    bool ok = ret && vgpu_handle_is(graph, VGPU_H_GRAPH) && (deps || !count);
    for (size_t i = 0; ok && i < count; i++)
        ok = vgpu_handle_is(deps[i], VGPU_H_GRAPH_NODE) && deps[i]->graph == graph;
    if (!ok) {
        vgpu_op_free(op);
        return CUDA_ERROR_INVALID_VALUE;
    }
    return vgpu_graph_add(graph, op, deps, count, ret);
}

CU_API(cuGraphAddEmptyNode, CUgraphNode *ret, CUgraph graph, const CUgraphNode *deps, size_t count)
{
    VGPU_ENTER();
    return add(ret, graph, deps, count, NULL);
}

/* ---- graphs within graphs ---- */

static CUresult several_contexts(void)
{
    lithos_log_once(LITHOS_LOG_WARNING, "virtual GPU: graphs over several contexts are not implemented");
    return CUDA_ERROR_NOT_SUPPORTED;
}

/* A node of what an op does, in the graph's context. */
static CUresult add_to_context(CUgraphNode *ret, CUgraph graph, const CUgraphNode *deps, size_t count,
                               struct vgpu_op *op)
{
    struct CUctx_st *ctx = op->stream->ctx;
    if (graph->ctx && graph->ctx != ctx) {
        vgpu_op_free(op);
        return several_contexts();
    }
    VGPU_TRY(add(ret, graph, deps, count, op));
    graph->ctx = ctx;
    return CUDA_SUCCESS;
}

/* The node has a copy, which is asked for and changed by handles of its own. */
CU_API(cuGraphAddChildGraphNode, CUgraphNode *ret, CUgraph graph, const CUgraphNode *deps, size_t count,
       CUgraph child)
{
    VGPU_ENTER();
    struct CUgraph_st *copy;
    if (!vgpu_handle_is(graph, VGPU_H_GRAPH) || !vgpu_handle_is(child, VGPU_H_GRAPH) || graph == child)
        return CUDA_ERROR_INVALID_VALUE;
    if (graph->ctx && child->ctx && graph->ctx != child->ctx)
        return several_contexts();
    VGPU_TRY(vgpu_graph_clone(child, &copy));
    CUresult r = add(ret, graph, deps, count, NULL);
    if (r) {
        vgpu_graph_free(copy);
        return r;
    }
    vgpu_handle_add(copy, VGPU_H_GRAPH);
    (*ret)->child = copy;
    if (!graph->ctx)
        graph->ctx = child->ctx;
    return CUDA_SUCCESS;
}

CU_API(cuGraphChildGraphNodeGetGraph, CUgraphNode node, CUgraph *ret)
{
    VGPU_ENTER();
    if (!vgpu_handle_is(node, VGPU_H_GRAPH_NODE) || !node->child || !ret)
        return CUDA_ERROR_INVALID_VALUE;
    *ret = node->child;
    return CUDA_SUCCESS;
}

/* ---- kernel nodes ---- */

CUresult vgpu_kernel_node_op(const CUDA_KERNEL_NODE_PARAMS_v2 *p, const struct vgpu_op *like,
                             struct vgpu_op **ret_op)
{
    struct CUfunc_st *f;
    VGPU_TRY(vgpu_func_get(p->func ? p->func : (CUfunction)(void *)p->kern, &f));
    if (!p->func && p->ctx && p->ctx != f->module->ctx) {
        lithos_log_once(
            LITHOS_LOG_WARNING,
            "virtual GPU: CUkernels in nodes of other contexts than the current one are not implemented");
        return CUDA_ERROR_NOT_SUPPORTED;
    }
    struct vgpu_launch_request r = {
        .grid = {p->gridDimX, p->gridDimY, p->gridDimZ},
        .block = {p->blockDimX, p->blockDimY, p->blockDimZ},
        .cluster = {1, 1, 1},
        .shared_dynamic = p->sharedMemBytes,
    };
    if (like) {
        r.cooperative = like->launch.cooperative;
        memcpy(r.cluster, like->launch.cluster, sizeof r.cluster);
    }
    if (f->entry->cluster[0]) /* .reqnctapercluster */
        memcpy(r.cluster, f->entry->cluster, sizeof r.cluster);
    return vgpu_launch_prepare(f, f->module->ctx->legacy, &r, p->kernelParams, p->extra, ret_op);
}

static CUDA_KERNEL_NODE_PARAMS_v2 from_v1(const CUDA_KERNEL_NODE_PARAMS_v1 *p)
{
    CUDA_KERNEL_NODE_PARAMS_v2 v2 = {0};
    memcpy(&v2, p, sizeof *p);
    return v2;
}

CU_API(cuGraphAddKernelNode_v2, CUgraphNode *ret, CUgraph graph, const CUgraphNode *deps, size_t count,
       const CUDA_KERNEL_NODE_PARAMS_v2 *params)
{
    VGPU_ENTER();
    struct vgpu_op *op;
    if (!params || !vgpu_handle_is(graph, VGPU_H_GRAPH))
        return CUDA_ERROR_INVALID_VALUE;
    VGPU_TRY(vgpu_kernel_node_op(params, NULL, &op));
    return add_to_context(ret, graph, deps, count, op);
}

CU_API(cuGraphAddKernelNode, CUgraphNode *ret, CUgraph graph, const CUgraphNode *deps, size_t count,
       const CUDA_KERNEL_NODE_PARAMS_v1 *params)
{
    if (!params)
        return CUDA_ERROR_INVALID_VALUE;
    const CUDA_KERNEL_NODE_PARAMS_v2 v2 = from_v1(params);
    return cuGraphAddKernelNode_v2(ret, graph, deps, count, &v2);
}

static bool is_kernel(CUgraphNode node)
{
    return vgpu_handle_is(node, VGPU_H_GRAPH_NODE) && node->op && node->op->kind == VGPU_OP_LAUNCH;
}

/* The node's own copy of its parameters is what the pointers given out point to, until they are set again. */
static CUresult point_at_params(struct CUgraphNode_st *n)
{
    const struct ptx_entry *e = n->op->launch.entry;
    free(n->param_pointers);
    n->param_pointers = calloc(LITHOS_MAX(e->param_count, 1u), sizeof *n->param_pointers);
    if (!n->param_pointers)
        return CUDA_ERROR_OUT_OF_MEMORY;
    for (uint32_t i = 0; i < e->param_count; i++)
        n->param_pointers[i] = n->op->launch.params + e->params[i].offset;
    return CUDA_SUCCESS;
}

CU_API(cuGraphKernelNodeGetParams_v2, CUgraphNode node, CUDA_KERNEL_NODE_PARAMS_v2 *params)
{
    VGPU_ENTER();
    if (!is_kernel(node) || !params)
        return CUDA_ERROR_INVALID_VALUE;
    VGPU_TRY(point_at_params(node));
    const struct vgpu_op *op = node->op;
    *params = (CUDA_KERNEL_NODE_PARAMS_v2){
        .func = op->launch.func,
        .gridDimX = op->launch.grid[0],
        .gridDimY = op->launch.grid[1],
        .gridDimZ = op->launch.grid[2],
        .blockDimX = op->launch.block[0],
        .blockDimY = op->launch.block[1],
        .blockDimZ = op->launch.block[2],
        .sharedMemBytes = op->launch.shared_dynamic,
        .kernelParams = op->launch.entry->param_count ? node->param_pointers : NULL,
    };
    return CUDA_SUCCESS;
}

CU_API(cuGraphKernelNodeGetParams, CUgraphNode node, CUDA_KERNEL_NODE_PARAMS_v1 *params)
{
    CUDA_KERNEL_NODE_PARAMS_v2 v2;
    if (!params)
        return CUDA_ERROR_INVALID_VALUE;
    VGPU_TRY(cuGraphKernelNodeGetParams_v2(node, &v2));
    memcpy(params, &v2, sizeof *params);
    return CUDA_SUCCESS;
}

static void put_op(struct CUgraphNode_st *n, struct vgpu_op *op)
{
    vgpu_op_free(n->op);
    n->op = op;
    free(n->param_pointers);
    n->param_pointers = NULL;
}

CU_API(cuGraphKernelNodeSetParams_v2, CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS_v2 *params)
{
    VGPU_ENTER();
    struct vgpu_op *op;
    if (!is_kernel(node) || !params)
        return CUDA_ERROR_INVALID_VALUE;
    VGPU_TRY(vgpu_kernel_node_op(params, node->op, &op));
    put_op(node, op);
    return CUDA_SUCCESS;
}

CU_API(cuGraphKernelNodeSetParams, CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS_v1 *params)
{
    if (!params)
        return CUDA_ERROR_INVALID_VALUE;
    const CUDA_KERNEL_NODE_PARAMS_v2 v2 = from_v1(params);
    return cuGraphKernelNodeSetParams_v2(node, &v2);
}

/* ---- attributes of kernel nodes: those of launches that mean something here ---- */

static CUresult not_an_attribute(int id)
{
    lithos_warning("virtual GPU: attribute %d of kernel nodes is not implemented", id);
    return CUDA_ERROR_NOT_SUPPORTED;
}

CU_API(cuGraphKernelNodeGetAttribute, CUgraphNode node, int id, CUlaunchAttributeValue *value)
{
    VGPU_ENTER();
    if (!is_kernel(node) || !value)
        return CUDA_ERROR_INVALID_VALUE;
    const struct vgpu_op *op = node->op;
    CUlaunchAttributeValue v = {0};
    if (id == CU_LAUNCH_ATTRIBUTE_COOPERATIVE) {
        v.cooperative = op->launch.cooperative;
    } else if (id == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION) {
        v.clusterDim.x = op->launch.cluster[0];
        v.clusterDim.y = op->launch.cluster[1];
        v.clusterDim.z = op->launch.cluster[2];
    } else if (id != CU_LAUNCH_ATTRIBUTE_PRIORITY) { /* 0: a graph runs at its stream's */
        return not_an_attribute(id);
    }
    *value = v;
    return CUDA_SUCCESS;
}

/* The same launch, with the attributes of `like`. */
static CUresult remake(CUgraphNode node, const struct vgpu_op *like)
{
    CUDA_KERNEL_NODE_PARAMS_v2 p;
    struct vgpu_op *op;
    VGPU_TRY(cuGraphKernelNodeGetParams_v2(node, &p));
    VGPU_TRY(vgpu_kernel_node_op(&p, like, &op));
    put_op(node, op);
    return CUDA_SUCCESS;
}

CU_API(cuGraphKernelNodeSetAttribute, CUgraphNode node, int id, const CUlaunchAttributeValue *value)
{
    VGPU_ENTER();
    if (!is_kernel(node) || !value)
        return CUDA_ERROR_INVALID_VALUE;
    struct vgpu_op like = {.kind = VGPU_OP_LAUNCH};
    like.launch.cooperative = node->op->launch.cooperative;
    memcpy(like.launch.cluster, node->op->launch.cluster, sizeof like.launch.cluster);
    if (id == CU_LAUNCH_ATTRIBUTE_COOPERATIVE) {
        like.launch.cooperative = value->cooperative != 0;
    } else if (id == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION) {
        like.launch.cluster[0] = value->clusterDim.x;
        like.launch.cluster[1] = value->clusterDim.y;
        like.launch.cluster[2] = value->clusterDim.z;
        if (!like.launch.cluster[0] || !like.launch.cluster[1] || !like.launch.cluster[2])
            return CUDA_ERROR_INVALID_VALUE;
    } else if (id == CU_LAUNCH_ATTRIBUTE_PRIORITY) {
        return CUDA_SUCCESS; /* between nodes of a graph there is none to be had here */
    } else {
        return not_an_attribute(id);
    }
    return remake(node, &like);
}

CU_API(cuGraphKernelNodeCopyAttributes, CUgraphNode to, CUgraphNode from)
{
    VGPU_ENTER();
    if (!is_kernel(to) || !is_kernel(from))
        return CUDA_ERROR_INVALID_VALUE;
    return remake(to, from->op);
}

/* ---- memory operations: one a node, a wait for a word or a write of one ---- */

CUresult vgpu_memop_node_op(const CUDA_BATCH_MEM_OP_NODE_PARAMS *p, struct vgpu_op **ret_op)
{
    if (!p || !p->count || !p->paramArray || p->flags || !vgpu_handle_is(p->ctx, VGPU_H_CTX))
        return CUDA_ERROR_INVALID_VALUE;
    if (p->count > 1) {
        lithos_log_once(LITHOS_LOG_WARNING,
                        "virtual GPU: several memory operations in a node of a graph are not implemented");
        return CUDA_ERROR_NOT_SUPPORTED;
    }
    return vgpu_word_op(p->ctx->legacy, p->paramArray, ret_op);
}

static bool is_memop(CUgraphNode node)
{
    return vgpu_handle_is(node, VGPU_H_GRAPH_NODE) && node->op && node->op->is_word;
}

CU_API(cuGraphAddBatchMemOpNode, CUgraphNode *ret, CUgraph graph, const CUgraphNode *deps, size_t count,
       const CUDA_BATCH_MEM_OP_NODE_PARAMS *params)
{
    VGPU_ENTER();
    struct vgpu_op *op;
    if (!vgpu_handle_is(graph, VGPU_H_GRAPH))
        return CUDA_ERROR_INVALID_VALUE;
    VGPU_TRY(vgpu_memop_node_op(params, &op));
    VGPU_TRY(add_to_context(ret, graph, deps, count, op));
    (*ret)->memop = params->paramArray[0];
    return CUDA_SUCCESS;
}

/* The array is the node's own, until its parameters are set again. */
CU_API(cuGraphBatchMemOpNodeGetParams, CUgraphNode node, CUDA_BATCH_MEM_OP_NODE_PARAMS *params)
{
    VGPU_ENTER();
    if (!is_memop(node) || !params)
        return CUDA_ERROR_INVALID_VALUE;
    *params =
        (CUDA_BATCH_MEM_OP_NODE_PARAMS){.ctx = node->op->stream->ctx, .count = 1, .paramArray = &node->memop};
    return CUDA_SUCCESS;
}

CU_API(cuGraphBatchMemOpNodeSetParams, CUgraphNode node, const CUDA_BATCH_MEM_OP_NODE_PARAMS *params)
{
    VGPU_ENTER();
    struct vgpu_op *op;
    if (!is_memop(node))
        return CUDA_ERROR_INVALID_VALUE;
    VGPU_TRY(vgpu_memop_node_op(params, &op));
    if (op->stream->ctx != node->op->stream->ctx) {
        vgpu_op_free(op);
        return several_contexts();
    }
    put_op(node, op);
    node->memop = params->paramArray[0];
    return CUDA_SUCCESS;
}
