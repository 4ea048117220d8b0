/* Execs: copies of graphs that run.
 *
 * QMDs are made and shown to the hook as a card's driver does it (docs/hardware.md, "Graphs that are changed"): at the first upload or
 * launch, once a node; later only for nodes that were changed, inside the next upload or launch. The QMD of a changed node is made
 * anew from the one that went to the card: of what the driver itself had put there it puts again what is different now, and what the
 * hook has written stays. A node that is switched off has an empty grid, and does not run. */
#include <stdlib.h>
#include <string.h>

#include "hw/qmd.h"
#include "vgpu/client/graph.h"

#define QMD_FIELD_TIMES 8u /* no field is repeated more often */

struct exec_node {
    uint64_t id;        /* of the node of the graph that it was instantiated from */
    uint32_t *deps;     /* places of those it waits for, rising */
    uint32_t dep_count; /* of those */
    struct vgpu_op *op; /* with the QMD as it went to the card; NULL: an empty node */
    bool off;
    bool touched;                   /* the hook is to see it, for the first time or again */
    bool was_made;                  /* `made` holds */
    uint8_t due[LITHOS_QMD_BYTES];  /* the driver's own QMD for what the node is now, if it is on */
    uint8_t made[LITHOS_QMD_BYTES]; /* and for what is in the QMD that went to the card */
};

struct CUgraphExec_st {
    struct exec_node *nodes; /* each behind those that it waits for */
    uint32_t count;
    struct CUctx_st *ctx; /* NULL: no node needs one */
    unsigned long long flags;
    pthread_mutex_t guard; /* several threads may launch it */
};

static bool has_qmd(const struct vgpu_op *op)
{
    return op && (op->kind == VGPU_OP_LAUNCH || op->kind == VGPU_OP_MEMSET);
}

/* ---- instantiation ---- */

static void exec_free(struct CUgraphExec_st *x)
{
    for (uint32_t i = 0; i < x->count; i++) {
        vgpu_op_free(x->nodes[i].op);
        free(x->nodes[i].deps);
    }
    free(x->nodes);
    pthread_mutex_destroy(&x->guard);
    free(x);
}

static int rising(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static CUresult node_init(struct exec_node *n, const struct CUgraphNode_st *from)
{
    *n = (struct exec_node){.id = from->id, .dep_count = from->deps.count};
    n->deps = calloc(LITHOS_MAX(n->dep_count, 1u), sizeof *n->deps);
    n->op = from->op ? vgpu_op_clone(from->op, from->op->stream) : NULL;
    if (!n->deps || (from->op && !n->op)) {
        free(n->deps);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    for (uint32_t i = 0; i < n->dep_count; i++)
        n->deps[i] = from->deps.node[i]->place;
    qsort(n->deps, n->dep_count, sizeof *n->deps, rising);
    if (has_qmd(n->op)) {
        memcpy(n->due, n->op->msg.launch.qmd, sizeof n->due);
        n->touched = true;
    }
    return CUDA_SUCCESS;
}

/* The nodes of g in order, in memory of the caller's. */
static CUresult order_of(const struct CUgraph_st *g, struct CUgraphNode_st ***ret_order)
{
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): pointers */
    struct CUgraphNode_st **order = calloc(LITHOS_MAX(g->nodes.count, 1u), sizeof *order);
    CUresult r = order ? vgpu_graph_order(g, order) : CUDA_ERROR_OUT_OF_MEMORY;
    if (r)
        free(order);
    else
        *ret_order = order;
    return r;
}

static CUresult exec_new(const struct CUgraph_st *g, struct CUgraphExec_st **ret_exec)
{
    struct CUgraphNode_st **order;
    VGPU_TRY(order_of(g, &order));
    struct CUgraphExec_st *x = calloc(1, sizeof *x);
    if (x)
        x->nodes = calloc(LITHOS_MAX(g->nodes.count, 1u), sizeof *x->nodes);
    CUresult r = x && x->nodes ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
    if (x)
        pthread_mutex_init(&x->guard, NULL);
    for (uint32_t i = 0; !r && i < g->nodes.count; i++) {
        r = node_init(&x->nodes[i], order[i]);
        x->count += !r;
    }
    free(order);
    if (r && x)
        exec_free(x);
    if (r)
        return r;
    x->ctx = g->ctx;
    *ret_exec = x;
    return CUDA_SUCCESS;
}

static CUresult instantiate(CUgraphExec *ret, CUgraph graph, unsigned long long flags)
{
    struct CUgraphExec_st *x;
    VGPU_ENTER();
    if (!ret || !vgpu_handle_is(graph, VGPU_H_GRAPH))
        return CUDA_ERROR_INVALID_VALUE;
    VGPU_TRY(exec_new(graph, &x));
    x->flags = flags; /* where to upload, free nodes: nothing that shows */
    vgpu_handle_add(x, VGPU_H_GRAPH_EXEC);
    *ret = x;
    return CUDA_SUCCESS;
}

CU_API(cuGraphInstantiateWithFlags, CUgraphExec *ret, CUgraph graph, unsigned long long flags)
{
    return instantiate(ret, graph, flags);
}

CU_API(cuGraphInstantiate_v2, CUgraphExec *ret, CUgraph graph, CUgraphNode *error_node, char *log,
       size_t log_size)
{
    if (error_node)
        *error_node = NULL;
    if (log && log_size)
        *log = 0;
    return instantiate(ret, graph, 0);
}

CU_API(cuGraphInstantiate, CUgraphExec *ret, CUgraph graph, CUgraphNode *error_node, char *log,
       size_t log_size)
{
    return cuGraphInstantiate_v2(ret, graph, error_node, log, log_size);
}

CU_API(cuGraphExecDestroy, CUgraphExec exec)
{
    VGPU_ENTER();
    if (!vgpu_handle_is(exec, VGPU_H_GRAPH_EXEC))
        return CUDA_ERROR_INVALID_VALUE;
    vgpu_handle_remove(exec);
    exec_free(exec);
    return CUDA_SUCCESS;
}

CU_API(cuGraphExecGetFlags, CUgraphExec exec, unsigned long long *flags)
{
    VGPU_ENTER();
    if (!vgpu_handle_is(exec, VGPU_H_GRAPH_EXEC) || !flags)
        return CUDA_ERROR_INVALID_VALUE;
    *flags = exec->flags;
    return CUDA_SUCCESS;
}

/* ---- changes ---- */

/* The same work with other arguments: nothing of it is in the QMD. */
static void take_arguments(struct vgpu_op *op, struct vgpu_op *from)
{
    if (op->kind == VGPU_OP_LAUNCH) {
        uint8_t *params = op->launch.params;
        op->launch.params = from->launch.params;
        op->launch.globals = from->launch.globals;
        from->launch.params = params;
    } else {
        op->memset = from->memset;
    }
    memcpy(op->msg.launch.params, from->msg.launch.params, sizeof op->msg.launch.params);
    op->msg.launch.param_count = from->msg.launch.param_count;
}

/* The node does this from now on; op is consumed. */
static void change(struct exec_node *n, struct vgpu_op *op)
{
    if (has_qmd(op) && !memcmp(n->due, op->msg.launch.qmd, sizeof n->due)) {
        take_arguments(n->op, op);
        vgpu_op_free(op);
        return;
    }
    if (has_qmd(op)) {
        memcpy(n->due, op->msg.launch.qmd, sizeof n->due);
        memcpy(op->msg.launch.qmd, n->op->msg.launch.qmd, sizeof n->due);
        n->touched = true;
    }
    vgpu_op_free(n->op);
    n->op = op;
}

static struct exec_node *find(struct CUgraphExec_st *x, CUgraphNode node)
{
    if (!vgpu_handle_is(x, VGPU_H_GRAPH_EXEC) || !vgpu_handle_is(node, VGPU_H_GRAPH_NODE))
        return NULL;
    for (uint32_t i = 0; i < x->count; i++)
        if (x->nodes[i].id == node->id)
            return &x->nodes[i];
    return NULL;
}

CU_API(cuGraphExecKernelNodeSetParams_v2, CUgraphExec exec, CUgraphNode node,
       const CUDA_KERNEL_NODE_PARAMS_v2 *params)
{
    VGPU_ENTER();
    struct exec_node *n = find(exec, node);
    struct vgpu_op *op;
    if (!n || !params || vgpu_node_type(n->op) != CU_GRAPH_NODE_TYPE_KERNEL)
        return CUDA_ERROR_INVALID_VALUE;
    VGPU_TRY(vgpu_kernel_node_op(params, n->op, &op));
    if (op->stream->ctx != exec->ctx) {
        vgpu_op_free(op);
        return CUDA_ERROR_INVALID_VALUE;
    }
    pthread_mutex_lock(&exec->guard);
    change(n, op);
    pthread_mutex_unlock(&exec->guard);
    return CUDA_SUCCESS;
}

CU_API(cuGraphExecKernelNodeSetParams, CUgraphExec exec, CUgraphNode node,
       const CUDA_KERNEL_NODE_PARAMS_v1 *params)
{
    CUDA_KERNEL_NODE_PARAMS_v2 v2 = {0};
    if (!params)
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(&v2, params, sizeof *params);
    return cuGraphExecKernelNodeSetParams_v2(exec, node, &v2);
}

static bool can_be_off(const struct vgpu_op *op)
{
    return has_qmd(op) || vgpu_node_type(op) == CU_GRAPH_NODE_TYPE_MEMCPY;
}

CU_API(cuGraphNodeSetEnabled, CUgraphExec exec, CUgraphNode node, unsigned int enabled)
{
    VGPU_ENTER();
    struct exec_node *n = find(exec, node);
    if (!n || enabled > 1 || !can_be_off(n->op))
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&exec->guard);
    n->touched |= has_qmd(n->op) && n->off != !enabled;
    n->off = !enabled;
    pthread_mutex_unlock(&exec->guard);
    return CUDA_SUCCESS;
}

CU_API(cuGraphNodeGetEnabled, CUgraphExec exec, CUgraphNode node, unsigned int *enabled)
{
    VGPU_ENTER();
    const struct exec_node *n = find(exec, node);
    if (!n || !enabled || !can_be_off(n->op))
        return CUDA_ERROR_INVALID_VALUE;
    *enabled = !n->off;
    return CUDA_SUCCESS;
}

/* ---- update by another graph ---- */

static bool same_deps(const struct exec_node *n, const struct CUgraphNode_st *with)
{
    if (n->dep_count != with->deps.count)
        return false;
    for (uint32_t i = 0; i < n->dep_count; i++) {
        const uint32_t place = with->deps.node[i]->place;
        if (!bsearch(&place, n->deps, n->dep_count, sizeof place, rising))
            return false;
    }
    return true;
}

/* Whether the node can become what `with` is: CU_GRAPH_EXEC_UPDATE_*. */
static int comparable(const struct CUgraphExec_st *x, const struct exec_node *n,
                      const struct CUgraphNode_st *with)
{
    if (!same_deps(n, with))
        return CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
    if (vgpu_node_type(n->op) != vgpu_node_type(with->op))
        return CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED;
    if (with->op && with->op->kind == VGPU_OP_LAUNCH &&
        (with->op->stream->ctx != x->ctx || with->op->launch.cooperative != n->op->launch.cooperative))
        return CU_GRAPH_EXEC_UPDATE_ERROR_PARAMETERS_CHANGED;
    return CU_GRAPH_EXEC_UPDATE_SUCCESS;
}

static CUresult update_nodes(struct CUgraphExec_st *x, struct CUgraphNode_st *const *order)
{
    for (uint32_t i = 0; i < x->count; i++) {
        struct vgpu_op *op = order[i]->op ? vgpu_op_clone(order[i]->op, order[i]->op->stream) : NULL;
        if (order[i]->op && !op)
            return CUDA_ERROR_OUT_OF_MEMORY;
        if (op)
            change(&x->nodes[i], op);
    }
    return CUDA_SUCCESS;
}

CU_API(cuGraphExecUpdate_v2, CUgraphExec exec, CUgraph graph, CUgraphExecUpdateResultInfo_v1 *info)
{
    VGPU_ENTER();
    struct CUgraphNode_st **order;
    if (!vgpu_handle_is(exec, VGPU_H_GRAPH_EXEC) || !vgpu_handle_is(graph, VGPU_H_GRAPH) || !info)
        return CUDA_ERROR_INVALID_VALUE;
    *info = (CUgraphExecUpdateResultInfo_v1){.result = CU_GRAPH_EXEC_UPDATE_ERROR};
    VGPU_TRY(order_of(graph, &order));
    info->result = exec->count == graph->nodes.count ? CU_GRAPH_EXEC_UPDATE_SUCCESS
                                                     : CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
    for (uint32_t i = 0; info->result == CU_GRAPH_EXEC_UPDATE_SUCCESS && i < exec->count; i++) {
        info->result = comparable(exec, &exec->nodes[i], order[i]);
        info->errorNode = info->result == CU_GRAPH_EXEC_UPDATE_SUCCESS ? NULL : order[i];
    }
    CUresult r = VGPU_CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE;
    if (info->result == CU_GRAPH_EXEC_UPDATE_SUCCESS) {
        pthread_mutex_lock(&exec->guard);
        r = update_nodes(exec, order);
        pthread_mutex_unlock(&exec->guard);
    }
    free(order);
    return r;
}

CU_API(cuGraphExecUpdate, CUgraphExec exec, CUgraph graph, CUgraphNode *error_node, int *result)
{
    CUgraphExecUpdateResultInfo_v1 info = {.result = CU_GRAPH_EXEC_UPDATE_ERROR};
    if (!result)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult r = cuGraphExecUpdate_v2(exec, graph, &info);
    if (r == CUDA_SUCCESS || r == VGPU_CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE) {
        *result = info.result;
        if (error_node)
            *error_node = info.errorNode;
    }
    return r;
}

/* ---- upload and launch ---- */

static void make_empty(const struct lithos_qmd_layout *layout, uint8_t qmd[LITHOS_QMD_BYTES])
{
    struct lithos_qmd_view view;
    lithos_qmd_decode(layout, qmd, &view);
    memset(view.grid, 0, sizeof view.grid);
    lithos_qmd_encode(layout, &view, qmd);
}

/* Into qmd what is different between the two. */
static void put_differences(const struct lithos_qmd_layout *layout, uint8_t *qmd, const uint8_t *before,
                            const uint8_t *now)
{
    for (int f = 0; f < LITHOS_QMD_FIELD_MAX; f++)
        for (unsigned i = 0; i < QMD_FIELD_TIMES; i++) {
            uint32_t value = lithos_qmd_get(layout, now, (enum lithos_qmd_field)f, i);
            if (value != lithos_qmd_get(layout, before, (enum lithos_qmd_field)f, i))
                lithos_qmd_set(layout, qmd, (enum lithos_qmd_field)f, i, value);
        }
}

/* Make the node's QMD, and show it to the hook. */
static CUresult show(struct exec_node *n, struct CUstream_st *s)
{
    const struct lithos_qmd_layout *layout = vgpu_qmd_layout(&vgpu.devices[s->ctx->device].card);
    uint8_t now[LITHOS_QMD_BYTES], *qmd = n->op->msg.launch.qmd;
    memcpy(now, n->due, sizeof now);
    if (n->off)
        make_empty(layout, now);
    if (n->was_made)
        put_differences(layout, qmd, n->made, now);
    else
        memcpy(qmd, now, sizeof now);
    memcpy(n->made, now, sizeof now);
    n->was_made = true;
    n->touched = false;
    n->op->stream = s;
    if (!n->off)
        return vgpu_launch_hook(n->op);
    vgpu_qmd_fire(qmd, s->ctx, n->op->kind == VGPU_OP_LAUNCH ? n->op->launch.func : NULL);
    return CUDA_SUCCESS;
}

/* Under guard. The last node first, as the 580 driver does. */
static CUresult upload(struct CUgraphExec_st *x, struct CUstream_st *s)
{
    for (uint32_t i = x->count; i-- > 0;)
        if (x->nodes[i].touched)
            VGPU_TRY(show(&x->nodes[i], s));
    return CUDA_SUCCESS;
}

static CUresult launch_nodes(const struct CUgraphExec_st *x, struct CUstream_st *s)
{
    for (uint32_t i = 0; i < x->count; i++) {
        if (!x->nodes[i].op || x->nodes[i].off)
            continue;
        struct vgpu_op *op = vgpu_op_clone(x->nodes[i].op, s);
        if (!op)
            return CUDA_ERROR_OUT_OF_MEMORY;
        VGPU_TRY(vgpu_issue(op, false));
    }
    return CUDA_SUCCESS;
}

static CUresult run(CUgraphExec exec, CUstream stream, bool per_thread, bool launch)
{
    struct CUstream_st *s;
    VGPU_TRY(vgpu_stream_get(stream, per_thread, &s));
    if (!vgpu_handle_is(exec, VGPU_H_GRAPH_EXEC))
        return CUDA_ERROR_INVALID_VALUE;
    if (s->capture)
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (exec->ctx && exec->ctx != s->ctx)
        return CUDA_ERROR_INVALID_CONTEXT;
    pthread_mutex_lock(&exec->guard);
    CUresult r = upload(exec, s);
    if (!r && launch)
        r = launch_nodes(exec, s);
    pthread_mutex_unlock(&exec->guard);
    return r;
}

CU_API(cuGraphUpload, CUgraphExec exec, CUstream stream)
{
    return run(exec, stream, false, false);
}

CU_API(cuGraphUpload_ptsz, CUgraphExec exec, CUstream stream)
{
    return run(exec, stream, true, false);
}

CU_API(cuGraphLaunch, CUgraphExec exec, CUstream stream)
{
    return run(exec, stream, false, true);
}

CU_API(cuGraphLaunch_ptsz, CUgraphExec exec, CUstream stream)
{
    return run(exec, stream, true, true);
}

static CUresult with_params(CUgraphExec *ret, CUgraph graph, CUDA_GRAPH_INSTANTIATE_PARAMS *p,
                            bool per_thread)
{
    if (!p)
        return CUDA_ERROR_INVALID_VALUE;
    p->hErrNode_out = NULL;
    p->result_out = 1; /* CUDA_GRAPH_INSTANTIATE_ERROR */
    VGPU_TRY(instantiate(ret, graph, p->flags));
    if (p->flags & CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD) {
        CUresult r = run(*ret, p->hUploadStream, per_thread, false);
        if (r) {
            cuGraphExecDestroy(*ret);
            return r;
        }
    }
    p->result_out = 0;
    return CUDA_SUCCESS;
}

CU_API(cuGraphInstantiateWithParams, CUgraphExec *ret, CUgraph graph, CUDA_GRAPH_INSTANTIATE_PARAMS *params)
{
    return with_params(ret, graph, params, false);
}

CU_API(cuGraphInstantiateWithParams_ptsz, CUgraphExec *ret, CUgraph graph,
       CUDA_GRAPH_INSTANTIATE_PARAMS *params)
{
    return with_params(ret, graph, params, true);
}
