/* CUDA graphs by stream capture, of one stream: a line of nodes, replayed in order. As on a card, the QMD hook sees
 * each kernel node once, at the first upload or launch of an exec, and what the QMD holds then is what replays use. */
#include <stdlib.h>

#include "vgpu/client/client.h"

#define MAX_NODES 65536u

struct CUgraph_st {
    struct vgpu_op **nodes; /* each with the stream it was captured in, which may be gone */
    uint32_t count, room;
    struct CUctx_st *ctx;
    uint64_t id;
    bool broken; /* a call was refused in the middle */
};

struct CUgraphExec_st {
    struct vgpu_op **nodes;
    uint32_t count;
    struct CUctx_st *ctx;
    pthread_mutex_t guard;
    bool hooked;
};

static void nodes_free(struct vgpu_op **nodes, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        vgpu_op_free(nodes[i]);
    free(nodes);
}

static void graph_free(struct CUgraph_st *g)
{
    nodes_free(g->nodes, g->count);
    free(g);
}

CUresult vgpu_capture_add(struct CUstream_st *stream, struct vgpu_op *op)
{
    struct CUgraph_st *g = stream->capture;
    if (g->count == g->room && g->count < MAX_NODES) {
        uint32_t room = g->room ? g->room * 2 : 16;
        struct vgpu_op **more = realloc(g->nodes, room * sizeof *more); // NOLINT(bugprone-sizeof-expression)
        if (more) {
            g->nodes = more;
            g->room = room;
        }
    }
    if (g->count == g->room) {
        g->broken = true;
        vgpu_op_free(op);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    g->nodes[g->count++] = op;
    return CUDA_SUCCESS;
}

/* ---- capture */

static CUresult begin(CUstream handle, int mode, bool per_thread)
{
    struct CUstream_st *s;
    VGPU_TRY(vgpu_stream_get(handle, per_thread, &s));
    if (mode < 0 || mode > 2)
        return CUDA_ERROR_INVALID_VALUE;
    if (s->kind == VGPU_STREAM_LEGACY)
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (s->capture)
        return CUDA_ERROR_ILLEGAL_STATE;
    struct CUgraph_st *g = calloc(1, sizeof *g);
    if (!g)
        return CUDA_ERROR_OUT_OF_MEMORY;
    g->ctx = s->ctx;
    g->id = vgpu_next_id();
    s->capture_mode = mode;
    s->capture = g;
    return CUDA_SUCCESS;
}

static CUresult end(CUstream handle, CUgraph *ret, bool per_thread)
{
    struct CUstream_st *s;
    VGPU_TRY(vgpu_stream_get(handle, per_thread, &s));
    if (!ret)
        return CUDA_ERROR_INVALID_VALUE;
    struct CUgraph_st *g = s->capture;
    if (!g)
        return CUDA_ERROR_ILLEGAL_STATE;
    s->capture = NULL;
    if (g->broken) {
        graph_free(g);
        *ret = NULL;
        return VGPU_CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    }
    vgpu_handle_add(g, VGPU_H_GRAPH);
    *ret = g;
    return CUDA_SUCCESS;
}

CU_API(cuStreamBeginCapture_v2, CUstream stream, int mode)
{
    return begin(stream, mode, false);
}

CU_API(cuStreamBeginCapture_v2_ptsz, CUstream stream, int mode)
{
    return begin(stream, mode, true);
}

CU_API(cuStreamEndCapture, CUstream stream, CUgraph *graph)
{
    return end(stream, graph, false);
}

CU_API(cuStreamEndCapture_ptsz, CUstream stream, CUgraph *graph)
{
    return end(stream, graph, true);
}

static CUresult capturing(CUstream handle, int *status, unsigned long long *id, bool per_thread)
{
    struct CUstream_st *s;
    VGPU_TRY(vgpu_stream_get(handle, per_thread, &s));
    if (!status)
        return CUDA_ERROR_INVALID_VALUE;
    *status = s->capture ? 1 : 0; /* CU_STREAM_CAPTURE_STATUS_ACTIVE, _NONE */
    if (id && s->capture)
        *id = s->capture->id;
    return CUDA_SUCCESS;
}

CU_API(cuStreamIsCapturing, CUstream stream, int *status)
{
    return capturing(stream, status, NULL, false);
}

CU_API(cuStreamIsCapturing_ptsz, CUstream stream, int *status)
{
    return capturing(stream, status, NULL, true);
}

CU_API(cuStreamGetCaptureInfo, CUstream stream, int *status, unsigned long long *id)
{
    return capturing(stream, status, id, false);
}

CU_API(cuStreamGetCaptureInfo_ptsz, CUstream stream, int *status, unsigned long long *id)
{
    return capturing(stream, status, id, true);
}

CU_API(cuThreadExchangeStreamCaptureMode, int *mode)
{
    static _Thread_local int current; /* CU_STREAM_CAPTURE_MODE_GLOBAL */
    VGPU_ENTER();
    if (!mode || *mode < 0 || *mode > 2)
        return CUDA_ERROR_INVALID_VALUE;
    int old = current;
    current = *mode;
    *mode = old;
    return CUDA_SUCCESS;
}

/* ---- graphs and their execs */

CU_API(cuGraphDestroy, CUgraph graph)
{
    VGPU_ENTER();
    if (!vgpu_handle_is(graph, VGPU_H_GRAPH))
        return CUDA_ERROR_INVALID_VALUE;
    vgpu_handle_remove(graph);
    graph_free(graph);
    return CUDA_SUCCESS;
}

CU_API(cuGraphGetNodes, CUgraph graph, CUgraphNode *nodes, size_t *count)
{
    VGPU_ENTER();
    if (!vgpu_handle_is(graph, VGPU_H_GRAPH) || !count)
        return CUDA_ERROR_INVALID_VALUE;
    if (nodes) {
        lithos_log_once(LITHOS_LOG_WARNING,
                        "virtual GPU: cuGraphGetNodes tells only how many nodes there are");
        return CUDA_ERROR_NOT_SUPPORTED;
    }
    *count = graph->count;
    return CUDA_SUCCESS;
}

CU_API(cuGraphInstantiateWithFlags, CUgraphExec *ret, CUgraph graph, unsigned long long flags)
{
    (void)flags; /* where to upload, free nodes: nothing that shows */
    VGPU_ENTER();
    if (!ret || !vgpu_handle_is(graph, VGPU_H_GRAPH))
        return CUDA_ERROR_INVALID_VALUE;
    struct CUgraphExec_st *x = calloc(1, sizeof *x);
    uint32_t room = LITHOS_MAX(graph->count, 1u);
    struct vgpu_op **nodes = calloc(room, sizeof *nodes); // NOLINT(bugprone-sizeof-expression)
    bool ok = x && nodes;
    for (uint32_t i = 0; ok && i < graph->count; i++) {
        nodes[i] = vgpu_op_clone(graph->nodes[i], graph->nodes[i]->stream);
        ok = nodes[i] != NULL;
    }
    if (!ok) {
        if (nodes)
            nodes_free(nodes, graph->count);
        free(x);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    x->nodes = nodes;
    x->count = graph->count;
    x->ctx = graph->ctx;
    pthread_mutex_init(&x->guard, NULL);
    vgpu_handle_add(x, VGPU_H_GRAPH_EXEC);
    *ret = x;
    return CUDA_SUCCESS;
}

CU_API(cuGraphInstantiate_v2, CUgraphExec *ret, CUgraph graph, CUgraphNode *error_node, char *log,
       size_t log_size)
{
    if (error_node)
        *error_node = NULL;
    if (log && log_size)
        *log = 0;
    return cuGraphInstantiateWithFlags(ret, graph, 0);
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
    nodes_free(exec->nodes, exec->count);
    pthread_mutex_destroy(&exec->guard);
    free(exec);
    return CUDA_SUCCESS;
}

/* The hook, once a kernel node. */
static CUresult upload(struct CUgraphExec_st *x, struct CUstream_st *s)
{
    CUresult r = CUDA_SUCCESS;
    if (x->ctx != s->ctx)
        return CUDA_ERROR_INVALID_CONTEXT;
    pthread_mutex_lock(&x->guard);
    for (uint32_t i = 0; !x->hooked && !r && i < x->count; i++) {
        struct vgpu_op *op = x->nodes[i];
        op->stream = s;
        if (op->kind == VGPU_OP_LAUNCH || op->kind == VGPU_OP_MEMSET)
            r = vgpu_launch_hook(op);
    }
    x->hooked |= !r;
    pthread_mutex_unlock(&x->guard);
    return r;
}

static CUresult run(CUgraphExec exec, CUstream stream, bool per_thread, bool launch)
{
    struct CUstream_st *s;
    VGPU_TRY(vgpu_stream_get(stream, per_thread, &s));
    if (!vgpu_handle_is(exec, VGPU_H_GRAPH_EXEC))
        return CUDA_ERROR_INVALID_VALUE;
    if (s->capture)
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    VGPU_TRY(upload(exec, s));
    for (uint32_t i = 0; launch && i < exec->count; i++) {
        struct vgpu_op *op = vgpu_op_clone(exec->nodes[i], s);
        if (!op)
            return CUDA_ERROR_OUT_OF_MEMORY;
        VGPU_TRY(vgpu_issue(op, false));
    }
    return CUDA_SUCCESS;
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
