/* Events. */
#include <stdlib.h>

#include "vgpu/client/client.h"

#define DISABLE_TIMING 2u
#define INTERPROCESS 4u

CU_API(cuEventCreate, CUevent *ret, unsigned int flags)
{
    struct CUctx_st *ctx;
    VGPU_TRY(vgpu_current(&ctx));
    if (!ret || flags > 7)
        return CUDA_ERROR_INVALID_VALUE;
    if (flags & INTERPROCESS) {
        lithos_log_once(LITHOS_LOG_WARNING, "virtual GPU: events between processes are not implemented");
        return CUDA_ERROR_NOT_SUPPORTED;
    }
    struct CUevent_st *e = calloc(1, sizeof *e);
    if (!e)
        return CUDA_ERROR_OUT_OF_MEMORY;
    e->ctx = ctx;
    e->flags = flags;
    vgpu_handle_add(e, VGPU_H_EVENT);
    *ret = e;
    return CUDA_SUCCESS;
}

CU_API(cuEventDestroy_v2, CUevent event)
{
    VGPU_ENTER();
    if (!vgpu_handle_is(event, VGPU_H_EVENT))
        return CUDA_ERROR_INVALID_HANDLE;
    vgpu_handle_remove(event);
    pthread_mutex_lock(&vgpu.lock);
    vgpu_point_unref(event->mark);
    pthread_mutex_unlock(&vgpu.lock);
    vgpu_nodes_free(&event->captured);
    free(event);
    return CUDA_SUCCESS;
}

CU_API(cuEventDestroy, CUevent event)
{
    return cuEventDestroy_v2(event);
}

static CUresult record(CUevent event, CUstream stream, bool per_thread)
{
    struct CUstream_st *s;
    VGPU_TRY(vgpu_stream_get(stream, per_thread, &s));
    if (!vgpu_handle_is(event, VGPU_H_EVENT))
        return CUDA_ERROR_INVALID_HANDLE;
    if (s->capture)
        return vgpu_capture_record(event, s);
    struct vgpu_point *m;
    VGPU_TRY(vgpu_issue_mark(s, &m));
    pthread_mutex_lock(&vgpu.lock);
    vgpu_point_unref(event->mark);
    event->mark = m;
    event->capture = 0;
    pthread_mutex_unlock(&vgpu.lock);
    return CUDA_SUCCESS;
}

CU_API(cuEventRecord, CUevent event, CUstream stream)
{
    return record(event, stream, false);
}

CU_API(cuEventRecord_ptsz, CUevent event, CUstream stream)
{
    return record(event, stream, true);
}

CU_API(cuEventRecordWithFlags, CUevent event, CUstream stream, unsigned int flags)
{
    return flags > 1 ? CUDA_ERROR_INVALID_VALUE : record(event, stream, false);
}

CU_API(cuEventRecordWithFlags_ptsz, CUevent event, CUstream stream, unsigned int flags)
{
    return flags > 1 ? CUDA_ERROR_INVALID_VALUE : record(event, stream, true);
}

CU_API(cuEventQuery, CUevent event)
{
    VGPU_ENTER();
    if (!vgpu_handle_is(event, VGPU_H_EVENT))
        return CUDA_ERROR_INVALID_HANDLE;
    if (event->capture)
        return VGPU_CUDA_ERROR_CAPTURED_EVENT;
    pthread_mutex_lock(&vgpu.lock);
    CUresult r = event->ctx->sticky ? event->ctx->sticky : vgpu.lost;
    if (!r && event->mark && !event->mark->done)
        r = CUDA_ERROR_NOT_READY;
    pthread_mutex_unlock(&vgpu.lock);
    return r;
}

CU_API(cuEventSynchronize, CUevent event)
{
    VGPU_ENTER();
    if (!vgpu_handle_is(event, VGPU_H_EVENT))
        return CUDA_ERROR_INVALID_HANDLE;
    if (event->capture)
        return VGPU_CUDA_ERROR_CAPTURED_EVENT;
    pthread_mutex_lock(&vgpu.lock);
    struct vgpu_point *m = event->mark;
    if (m)
        m->refs++;
    pthread_mutex_unlock(&vgpu.lock);
    if (!m)
        return CUDA_SUCCESS;
    CUresult r = vgpu_wait_mark(event->ctx, m);
    pthread_mutex_lock(&vgpu.lock);
    vgpu_point_unref(m);
    pthread_mutex_unlock(&vgpu.lock);
    return r;
}

/* On the card's clock: a scale factor does not show. */
CU_API(cuEventElapsedTime_v2, float *ms, CUevent start, CUevent end)
{
    VGPU_ENTER();
    if (!vgpu_handle_is(start, VGPU_H_EVENT) || !vgpu_handle_is(end, VGPU_H_EVENT))
        return CUDA_ERROR_INVALID_HANDLE;
    if (!ms)
        return CUDA_ERROR_INVALID_VALUE;
    if ((start->flags | end->flags) & DISABLE_TIMING)
        return CUDA_ERROR_INVALID_HANDLE;
    if (start->capture || end->capture)
        return VGPU_CUDA_ERROR_CAPTURED_EVENT;
    pthread_mutex_lock(&vgpu.lock);
    CUresult r = start->ctx->sticky ? start->ctx->sticky : vgpu.lost;
    if (!r && (!start->mark || !end->mark))
        r = CUDA_ERROR_INVALID_HANDLE;
    else if (!r && (!start->mark->done || !end->mark->done))
        r = CUDA_ERROR_NOT_READY;
    if (!r)
        *ms = (float)((double)(int64_t)(end->mark->end_ns - start->mark->end_ns) / 1e6);
    pthread_mutex_unlock(&vgpu.lock);
    return r;
}

CU_API(cuEventElapsedTime, float *ms, CUevent start, CUevent end)
{
    return cuEventElapsedTime_v2(ms, start, end);
}
