/* Execs: copies of graphs that run. Graphs within graphs are part of the exec.
 *
 * QMDs are made and shown to the hook as a card's driver does it (docs/hardware.md, "Graphs that are changed"): at the first upload or
 * launch, once a node; later only for nodes that were changed, inside the next upload or launch. The QMD of a changed node is made
 * anew from the one that went to the card: program, constant banks and grid are the driver's again, of the rest it puts again what is
 * different now, and what the hook has written stays. A node that is switched off has an empty grid, and does not run. Where a node
 * was switched off or on, that before it in its line, if it waits for it in full, is shown again too, as it went to the card. A kernel with
 * one behind it in its line reads that one's constants ahead, through a bank of its own that it has no use for; of a QMD that is made anew
 * that bank is not valid any more. */
#include <stdlib.h>
#include <string.h>

#include "hw/qmd_atom.h"
#include "vgpu/client/graph.h"

#define QMD_FIELD_TIMES 8u /* no field is repeated more often */
/* The bank and the value of its prefetch that a 580 driver names the next kernel's constants by. */
#define AHEAD_BANK 5u
#define AHEAD_AFTER 2u

struct exec_node {
    uint64_t id;        /* of the node of the graph that it was instantiated from */
    uint32_t *deps;     /* places of those it waits for, rising */
    uint32_t dep_count; /* of those */
    struct vgpu_op
        *op;  /* with the QMD as it went to the card; NULL: an empty node, or the end of a child graph */
    int type; /* CU_GRAPH_NODE_TYPE_* */
    uint32_t chain; /* launch order: place of the kernel before it, from 1; 0: none */
    bool goes_on;   /* and it has one behind it */
    uint32_t dependents;
    bool leads;    /* with another one behind it in its line */
    uint64_t next; /* while it is launched: blocks that it and those of its chain before it run, from 0 on */
    bool off;
    bool toggled;                   /* since it was shown */
    bool again;                     /* to be shown as it is */
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

/* A kernel in launch order behind another may begin before that one has ended, as one launched with leave to. */
static void mark_chain(const struct exec_node *n, struct vgpu_op *op)
{
    const struct lithos_qmd_layout *layout;
    if (!n->chain || op->kind != VGPU_OP_LAUNCH)
        return;
    layout = vgpu_qmd_layout(&vgpu.devices[op->stream->ctx->device].card);
    lithos_qmd_set(layout, op->msg.launch.qmd, LITHOS_QMD_WAIT_ON_LATCH_VALID, 0, 1);
}

static CUresult node_init(struct exec_node *n, struct vgpu_flat *from)
{
    const struct CUgraphNode_st *g = from->node;
    *n = (struct exec_node){
        .id = g->id, .type = vgpu_node_type(g), .dep_count = from->dep_count, .deps = from->deps};
    n->op = g->op ? vgpu_op_clone(g->op, g->op->stream) : NULL;
    if (g->op && !n->op)
        return CUDA_ERROR_OUT_OF_MEMORY;
    from->deps = NULL; /* the exec's from now on */
    if (g->ordered.count)
        n->chain = g->ordered.node[0]->place + 1;
    if (has_qmd(n->op)) {
        mark_chain(n, n->op);
        memcpy(n->due, n->op->msg.launch.qmd, sizeof n->due);
        n->touched = true;
    }
    return CUDA_SUCCESS;
}

static void note_dependents(struct CUgraphExec_st *x)
{
    for (uint32_t i = 0; i < x->count; i++) {
        for (uint32_t d = 0; d < x->nodes[i].dep_count; d++)
            x->nodes[x->nodes[i].deps[d]].dependents++;
        if (x->nodes[i].chain)
            x->nodes[x->nodes[i].chain - 1].goes_on = true;
    }
    for (uint32_t i = 0; i < x->count; i++) {
        struct exec_node *before = x->nodes[i].dep_count == 1 ? &x->nodes[x->nodes[i].deps[0]] : NULL;
        if (before && before->dependents == 1 && has_qmd(before->op) && has_qmd(x->nodes[i].op))
            before->leads = true;
    }
}

static CUresult exec_new(const struct CUgraph_st *g, struct CUgraphExec_st **ret_exec)
{
    struct vgpu_flat_graph f = {0};
    CUresult r = vgpu_flatten(g, &f);
    struct CUgraphExec_st *x = r ? NULL : calloc(1, sizeof *x);
    if (x) {
        x->nodes = calloc(LITHOS_MAX(f.count, 1u), sizeof *x->nodes);
        pthread_mutex_init(&x->guard, NULL);
    }
    if (!r && (!x || !x->nodes))
        r = CUDA_ERROR_OUT_OF_MEMORY;
    for (uint32_t i = 0; !r && i < f.count; i++) {
        r = node_init(&x->nodes[i], &f.nodes[i]);
        x->count += !r;
    }
    vgpu_flat_free(&f);
    if (r && x)
        exec_free(x);
    if (r)
        return r;
    note_dependents(x);
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
    mark_chain(n, op);
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
    if (!n || !params || n->type != CU_GRAPH_NODE_TYPE_KERNEL)
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

CU_API(cuGraphExecBatchMemOpNodeSetParams, CUgraphExec exec, CUgraphNode node,
       const CUDA_BATCH_MEM_OP_NODE_PARAMS *params)
{
    VGPU_ENTER();
    struct exec_node *n = find(exec, node);
    struct vgpu_op *op;
    if (!n || n->type != CU_GRAPH_NODE_TYPE_BATCH_MEM_OP)
        return CUDA_ERROR_INVALID_VALUE;
    VGPU_TRY(vgpu_memop_node_op(params, &op));
    if (!vgpu_word_alike(n->op, op)) {
        vgpu_op_free(op);
        return CUDA_ERROR_INVALID_VALUE;
    }
    pthread_mutex_lock(&exec->guard);
    change(n, op);
    pthread_mutex_unlock(&exec->guard);
    return CUDA_SUCCESS;
}

static bool can_be_off(const struct vgpu_op *op)
{
    return has_qmd(op) || vgpu_op_node_type(op) == CU_GRAPH_NODE_TYPE_MEMCPY;
}

CU_API(cuGraphNodeSetEnabled, CUgraphExec exec, CUgraphNode node, unsigned int enabled)
{
    VGPU_ENTER();
    struct exec_node *n = find(exec, node);
    if (!n || enabled > 1 || !can_be_off(n->op))
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&exec->guard);
    n->toggled |= has_qmd(n->op) && n->off != !enabled;
    n->touched |= n->toggled;
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

static bool same_deps(const struct exec_node *n, const struct vgpu_flat *with)
{
    uint32_t chain = with->node->ordered.count ? with->node->ordered.node[0]->place + 1 : 0;
    return n->chain == chain && n->dep_count == with->dep_count &&
           (!n->dep_count || !memcmp(n->deps, with->deps, n->dep_count * sizeof *n->deps));
}

/* Whether the node can become what `with` is: CU_GRAPH_EXEC_UPDATE_*. */
static int comparable(const struct CUgraphExec_st *x, const struct exec_node *n, const struct vgpu_flat *with)
{
    const struct vgpu_op *op = with->node->op;
    if (!same_deps(n, with))
        return CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
    if (n->type != vgpu_node_type(with->node))
        return CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED;
    if (op && op->kind == VGPU_OP_LAUNCH &&
        (op->stream->ctx != x->ctx || op->launch.cooperative != n->op->launch.cooperative))
        return CU_GRAPH_EXEC_UPDATE_ERROR_PARAMETERS_CHANGED;
    if (op && op->is_word && !vgpu_word_alike(n->op, op))
        return CU_GRAPH_EXEC_UPDATE_ERROR_PARAMETERS_CHANGED;
    return CU_GRAPH_EXEC_UPDATE_SUCCESS;
}

static CUresult update_nodes(struct CUgraphExec_st *x, const struct vgpu_flat_graph *by)
{
    for (uint32_t i = 0; i < x->count; i++) {
        const struct vgpu_op *with = by->nodes[i].node->op;
        struct vgpu_op *op = with ? vgpu_op_clone(with, with->stream) : NULL;
        if (with && !op)
            return CUDA_ERROR_OUT_OF_MEMORY;
        if (op)
            change(&x->nodes[i], op);
    }
    return CUDA_SUCCESS;
}

CU_API(cuGraphExecUpdate_v2, CUgraphExec exec, CUgraph graph, CUgraphExecUpdateResultInfo_v1 *info)
{
    VGPU_ENTER();
    struct vgpu_flat_graph by = {0};
    if (!vgpu_handle_is(exec, VGPU_H_GRAPH_EXEC) || !vgpu_handle_is(graph, VGPU_H_GRAPH) || !info)
        return CUDA_ERROR_INVALID_VALUE;
    *info = (CUgraphExecUpdateResultInfo_v1){.result = CU_GRAPH_EXEC_UPDATE_ERROR};
    CUresult r = vgpu_flatten(graph, &by);
    if (!r)
        info->result = exec->count == by.count ? CU_GRAPH_EXEC_UPDATE_SUCCESS
                                               : CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
    for (uint32_t i = 0; info->result == CU_GRAPH_EXEC_UPDATE_SUCCESS && i < exec->count; i++) {
        info->result = comparable(exec, &exec->nodes[i], &by.nodes[i]);
        info->errorNode = info->result == CU_GRAPH_EXEC_UPDATE_SUCCESS ? NULL : (CUgraphNode)by.nodes[i].node;
    }
    if (!r)
        r = VGPU_CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE;
    if (info->result == CU_GRAPH_EXEC_UPDATE_SUCCESS) {
        pthread_mutex_lock(&exec->guard);
        r = update_nodes(exec, &by);
        pthread_mutex_unlock(&exec->guard);
    }
    vgpu_flat_free(&by);
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

/* What is always made anew: where the kernel lies, its constant banks, its grid. */
static bool is_anew(enum lithos_qmd_field f)
{
    static const enum lithos_qmd_field anew[] = {LITHOS_QMD_PROGRAM_ADDRESS_LOWER,
                                                 LITHOS_QMD_PROGRAM_ADDRESS_UPPER,
                                                 LITHOS_QMD_PROGRAM_ADDRESS_LOWER_SHIFTED4,
                                                 LITHOS_QMD_PROGRAM_ADDRESS_UPPER_SHIFTED4,
                                                 LITHOS_QMD_CONSTANT_BUFFER_VALID,
                                                 LITHOS_QMD_CONSTANT_BUFFER_INVALIDATE,
                                                 LITHOS_QMD_CONSTANT_BUFFER_SIZE_SHIFTED4,
                                                 LITHOS_QMD_CONSTANT_BUFFER_ADDR_LOWER,
                                                 LITHOS_QMD_CONSTANT_BUFFER_ADDR_UPPER,
                                                 LITHOS_QMD_CONSTANT_BUFFER_ADDR_LOWER_SHIFTED6,
                                                 LITHOS_QMD_CONSTANT_BUFFER_ADDR_UPPER_SHIFTED6};
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(anew); i++)
        if (f == anew[i])
            return true;
    return false;
}

/* Into qmd what is different between the two, and what is always put again. */
static void put_differences(const struct lithos_qmd_layout *layout, uint8_t *qmd, const uint8_t *before,
                            const uint8_t *now)
{
    for (int f = 0; f < LITHOS_QMD_FIELD_MAX; f++)
        for (unsigned i = 0; i < QMD_FIELD_TIMES; i++) {
            uint32_t value = lithos_qmd_get(layout, now, (enum lithos_qmd_field)f, i);
            if (is_anew((enum lithos_qmd_field)f) ||
                value != lithos_qmd_get(layout, before, (enum lithos_qmd_field)f, i))
                lithos_qmd_set(layout, qmd, (enum lithos_qmd_field)f, i, value);
        }
    struct lithos_qmd_view view;
    lithos_qmd_decode(layout, now, &view);
    for (unsigned dim = 0; dim < 3; dim++)
        lithos_qmd_set_side(layout, qmd, dim, view.grid[dim]);
}

/* Where, is left out: nothing is read there. */
static void read_ahead(const struct lithos_qmd_layout *layout, uint8_t *qmd, bool valid)
{
    if (lithos_qmd_set(layout, qmd, LITHOS_QMD_CONSTANT_BUFFER_PREFETCH, AHEAD_BANK, AHEAD_AFTER) == 0)
        lithos_qmd_set(layout, qmd, LITHOS_QMD_CONSTANT_BUFFER_VALID, AHEAD_BANK, valid);
}

/* Make the node's QMD, and show it to the hook. */
static CUresult show(struct exec_node *n, struct CUstream_st *s)
{
    const struct lithos_qmd_layout *layout = vgpu_qmd_layout(&vgpu.devices[s->ctx->device].card);
    uint8_t now[LITHOS_QMD_BYTES], *qmd = n->op->msg.launch.qmd;
    memcpy(now, n->due, sizeof now);
    if (n->off)
        make_empty(layout, now);
    else if (n->leads)
        read_ahead(layout, now, !n->was_made);
    if (n->was_made)
        put_differences(layout, qmd, n->made, now);
    else
        memcpy(qmd, now, sizeof now);
    memcpy(n->made, now, sizeof now);
    n->was_made = true;
    n->touched = n->toggled = false;
    n->op->stream = s;
    if (!n->off)
        return vgpu_launch_hook(n->op, true);
    vgpu_qmd_fire(qmd, s->ctx, n->op->kind == VGPU_OP_LAUNCH ? n->op->launch.func : NULL);
    return CUDA_SUCCESS;
}

/* The one before it in its line, if that is to be shown again: one that is not changed itself. */
static struct exec_node *before_in_line(struct CUgraphExec_st *x, const struct exec_node *n)
{
    struct exec_node *before = n->dep_count == 1 && !n->chain ? &x->nodes[n->deps[0]] : NULL;
    bool shown = before && before->dependents == 1 && has_qmd(before->op) && before->was_made;
    return shown && !before->off && !before->touched ? before : NULL;
}

/* Under guard. The 580 driver begins with the last node. */
static CUresult upload(struct CUgraphExec_st *x, struct CUstream_st *s)
{
    for (uint32_t i = 0; i < x->count; i++) {
        struct exec_node *before = x->nodes[i].toggled ? before_in_line(x, &x->nodes[i]) : NULL;
        if (before)
            before->again = true;
    }
    for (uint32_t i = 0; i < x->count; i++) {
        struct exec_node *n = &x->nodes[i];
        if (n->touched) {
            VGPU_TRY(show(n, s));
        } else if (n->again) {
            n->op->stream = s;
            VGPU_TRY(vgpu_launch_hook(n->op, true));
        }
        n->again = false;
    }
    return CUDA_SUCCESS;
}

/* Do the atoms of a chain, together, run each block once? A kernel that is in none is a chain of its own. */
static void account(const struct CUgraphExec_st *x, struct exec_node *n, struct vgpu_op *op)
{
    const struct vgpu_atom *a = &op->launch.atom;
    uint64_t begun = n->chain ? x->nodes[n->chain - 1].next : 0;
    uint64_t all = (uint64_t)op->launch.grid[0] * op->launch.grid[1] * op->launch.grid[2];
    bool runs = !n->off && !op->launch.nothing && a->units;
    if (runs && !a->part && begun == all) /* a kernel in launch order behind another, and no atom of it */
        begun = 0;
    uint64_t from = runs ? a->from * (all / a->units) : begun, to = runs ? a->to * (all / a->units) : begun;
    uint64_t missed = from > begun ? from - begun : 0,
             twice = from < begun ? LITHOS_MIN(begun, to) - from : 0;
    n->next = LITHOS_MAX(begun, to);
    if (!n->goes_on && n->next) /* 0: all of it is switched off */
        missed += all - n->next;
    op->msg.launch.cut_missed += missed;
    op->msg.launch.cut_twice += twice;
    if (missed || twice)
        lithos_warning("virtual GPU: kernel %s of a graph: %llu blocks missed, %llu twice",
                       op->msg.launch.kernel, (unsigned long long)missed, (unsigned long long)twice);
}

static CUresult launch_nodes(const struct CUgraphExec_st *x, struct CUstream_st *s)
{
    for (uint32_t i = 0; i < x->count; i++) {
        struct exec_node *n = &x->nodes[i];
        struct vgpu_op *op = n->op ? vgpu_op_clone(n->op, s) : NULL;
        if (!n->op)
            continue;
        if (!op)
            return CUDA_ERROR_OUT_OF_MEMORY;
        if (op->kind == VGPU_OP_LAUNCH)
            account(x, n, op);
        if (n->off || (op->kind == VGPU_OP_LAUNCH && op->launch.nothing)) {
            vgpu_op_free(op);
            continue;
        }
        if (n->goes_on)
            op->msg.launch.flags |= VGPU_LAUNCH_ORDERED;
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
