/* Stream capture: calls become nodes. A stream that waits for an event of a captured stream joins the capture; before it ends,
 * each that joined must have been waited for by the stream that began. */
#include <stdlib.h>

#include "vgpu/client/graph.h"

/* The streams of a context are a list that only grows and shrinks under lock. */
static struct CUstream_st *next_capturing(struct CUctx_st *ctx, struct CUstream_st *after, uint64_t id)
{
    pthread_mutex_lock(&vgpu.lock);
    struct CUstream_st *s = after ? after->next : ctx->streams;
    while (s && !(s->capture && s->capture->id == id))
        s = s->next;
    pthread_mutex_unlock(&vgpu.lock);
    return s;
}

/* Another thread may be looking for the streams of a capture of its own. */
static void set_capture(struct CUstream_st *s, struct CUgraph_st *g)
{
    pthread_mutex_lock(&vgpu.lock);
    s->capture = g;
    pthread_mutex_unlock(&vgpu.lock);
}

static void leave(struct CUstream_st *s)
{
    set_capture(s, NULL);
    vgpu_nodes_free(&s->captured);
}

/* No stream captures g any more; whose it is decides the caller. */
static void end_for_all(struct CUgraph_st *g)
{
    struct CUstream_st *s = NULL;
    while ((s = next_capturing(g->ctx, s, g->id)))
        leave(s);
}

CUresult vgpu_capture_add(struct CUstream_st *stream, struct vgpu_op *op)
{
    struct CUgraph_st *g = stream->capture;
    struct CUgraphNode_st *n;
    CUresult r = vgpu_graph_add(g, op, stream->captured.node, stream->captured.count, &n);
    if (!r) {
        stream->captured.count = 0;
        r = vgpu_nodes_add(&stream->captured, n) ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
    }
    g->broken |= r != CUDA_SUCCESS;
    return r;
}

static CUresult add_all(struct vgpu_nodes *to, const struct vgpu_nodes *from)
{
    for (uint32_t i = 0; i < from->count; i++)
        if (!vgpu_nodes_add(to, from->node[i]))
            return CUDA_ERROR_OUT_OF_MEMORY;
    return CUDA_SUCCESS;
}

CUresult vgpu_capture_record(struct CUevent_st *event, struct CUstream_st *stream)
{
    event->captured.count = 0;
    event->capture = stream->capture->id;
    return add_all(&event->captured, &stream->captured);
}

CUresult vgpu_capture_wait(struct CUstream_st *s, const struct CUevent_st *event)
{
    const struct CUstream_st *of = next_capturing(event->ctx, NULL, event->capture);
    if (!of)
        return VGPU_CUDA_ERROR_CAPTURED_EVENT; /* that capture has ended */
    if (s->capture && s->capture != of->capture)
        return VGPU_CUDA_ERROR_STREAM_CAPTURE_MERGE;
    if (s->ctx != of->ctx || s->kind == VGPU_STREAM_LEGACY) {
        lithos_log_once(
            LITHOS_LOG_WARNING,
            "virtual GPU: a capture cannot be joined by the legacy stream or from another context");
        return VGPU_CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
    }
    s->capture_mode = of->capture_mode;
    set_capture(s, of->capture);
    return add_all(&s->captured, &event->captured);
}

/* ---- begin and end ---- */

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
    struct CUgraph_st *g = vgpu_graph_new(s->ctx);
    if (!g)
        return CUDA_ERROR_OUT_OF_MEMORY;
    g->origin = s;
    s->capture_mode = mode;
    set_capture(s, g);
    return CUDA_SUCCESS;
}

/* Marks (place 0) all that a node waits for, and itself. Nodes are captured behind what they wait for. */
static void mark_waited_for(const struct CUgraph_st *g, const struct vgpu_nodes *last)
{
    for (uint32_t i = 0; i < g->nodes.count; i++)
        g->nodes.node[i]->place = 1;
    for (uint32_t i = 0; i < last->count; i++)
        last->node[i]->place = 0;
    for (uint32_t i = g->nodes.count; i-- > 0;) {
        const struct CUgraphNode_st *n = g->nodes.node[i];
        for (uint32_t d = 0; n->place == 0 && d < n->deps.count; d++)
            n->deps.node[d]->place = 0;
    }
}

/* Has the origin waited for what each other stream did last? */
static bool joined(const struct CUgraph_st *g)
{
    struct CUstream_st *s = NULL;
    mark_waited_for(g, &g->origin->captured);
    while ((s = next_capturing(g->ctx, s, g->id)))
        for (uint32_t i = 0; i < s->captured.count; i++)
            if (s->captured.node[i]->place != 0)
                return false;
    return true;
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
    if (g->origin != s)
        return VGPU_CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
    CUresult r = g->broken    ? VGPU_CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
                 : !joined(g) ? VGPU_CUDA_ERROR_STREAM_CAPTURE_UNJOINED
                              : CUDA_SUCCESS;
    end_for_all(g);
    g->origin = NULL;
    if (r) {
        vgpu_graph_free(g);
        g = NULL;
    } else {
        vgpu_handle_add(g, VGPU_H_GRAPH);
    }
    *ret = g;
    return r;
}

void vgpu_capture_drop(struct CUstream_st *stream)
{
    struct CUgraph_st *g = stream->capture;
    if (!g)
        return;
    if (g->origin == stream) {
        end_for_all(g); /* this one too */
        vgpu_graph_free(g);
        return;
    }
    g->broken = true; /* its work can no more be joined */
    leave(stream);
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
