/* Streams, events, host functions. */
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vgpu/client/client.h"

static void tell(uint16_t type, const struct CUstream_st *s)
{
    struct vgpu_stream m = {.stream = s->id, .ctx = s->ctx->id, .priority = s->priority};
    vgpu_msg_init(&m.h, type, sizeof m);
    vgpu_link_send(&m, sizeof m);
}

/* Give back destroyed streams whose work has ended. Under issue. */
static void reap(struct CUctx_st *ctx)
{
    for (struct CUstream_st **p = &ctx->streams; *p;) {
        struct CUstream_st *s = *p;
        pthread_mutex_lock(&vgpu.lock);
        bool gone = s->destroyed && s->done == s->issued && !s->head && !s->host_blocked;
        if (gone)
            *p = s->next;
        pthread_mutex_unlock(&vgpu.lock);
        if (gone) {
            tell(VGPU_STREAM_DESTROY, s);
            free(s);
        } else {
            p = &s->next;
        }
    }
}

struct CUstream_st *vgpu_stream_make(struct CUctx_st *ctx, enum vgpu_stream_kind kind, unsigned flags,
                                     int priority)
{
    struct CUstream_st *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->ctx = ctx;
    s->id = vgpu_next_id();
    s->kind = kind;
    s->flags = flags;
    s->priority = priority;
    pthread_mutex_lock(&vgpu.issue);
    reap(ctx);
    tell(VGPU_STREAM_CREATE, s);
    pthread_mutex_lock(&vgpu.lock);
    s->next = ctx->streams;
    ctx->streams = s;
    pthread_mutex_unlock(&vgpu.lock);
    pthread_mutex_unlock(&vgpu.issue);
    if (kind == VGPU_STREAM_USER)
        vgpu_handle_add(s, VGPU_H_STREAM);
    return s;
}

void vgpu_streams_drop(struct CUctx_st *ctx)
{
    for (struct CUstream_st *s = ctx->streams; s; s = s->next)
        vgpu_capture_drop(s);
    pthread_mutex_lock(&vgpu.issue);
    pthread_mutex_lock(&vgpu.lock);
    struct CUstream_st **p = &ctx->streams;
    while (*p) {
        struct CUstream_st *s = *p;
        vgpu_handle_remove(s);
        if (s->host_blocked) { /* its function still runs, and will look at it */
            p = &s->next;
            continue;
        }
        *p = s->next;
        free(s);
    }
    ctx->legacy = NULL;
    vgpu_point_unref(ctx->legacy_mark);
    ctx->legacy_mark = NULL;
    pthread_mutex_unlock(&vgpu.lock);
    pthread_mutex_unlock(&vgpu.issue);
}

static struct CUstream_st *of_this_thread(struct CUctx_st *ctx)
{
    uint64_t thread = (uint64_t)syscall(SYS_gettid);
    pthread_mutex_lock(&vgpu.lock);
    struct CUstream_st *s = ctx->streams;
    while (s && (s->kind != VGPU_STREAM_PER_THREAD || s->thread != thread))
        s = s->next;
    pthread_mutex_unlock(&vgpu.lock);
    if (!s && (s = vgpu_stream_make(ctx, VGPU_STREAM_PER_THREAD, CU_STREAM_DEFAULT, 0))) {
        pthread_mutex_lock(&vgpu.lock); /* others look whether it is theirs */
        s->thread = thread;
        pthread_mutex_unlock(&vgpu.lock);
    }
    return s;
}

CUresult vgpu_stream_get(CUstream handle, bool per_thread, struct CUstream_st **ret_stream)
{
    struct CUctx_st *ctx;
    VGPU_TRY(vgpu_current(&ctx));
    if (handle == CU_STREAM_PER_THREAD || (!handle && per_thread)) {
        struct CUstream_st *s = of_this_thread(ctx);
        if (!s)
            return CUDA_ERROR_OUT_OF_MEMORY;
        *ret_stream = s;
        return CUDA_SUCCESS;
    }
    if (!handle || handle == CU_STREAM_LEGACY) {
        *ret_stream = ctx->legacy;
        return CUDA_SUCCESS;
    }
    if (!vgpu_handle_is(handle, VGPU_H_STREAM))
        return CUDA_ERROR_INVALID_HANDLE;
    pthread_mutex_lock(&vgpu.lock);
    CUresult sticky = handle->ctx->sticky;
    pthread_mutex_unlock(&vgpu.lock);
    if (sticky)
        return sticky;
    *ret_stream = handle;
    return CUDA_SUCCESS;
}

CU_API(cuStreamCreateWithPriority, CUstream *ret, unsigned int flags, int priority)
{
    struct CUctx_st *ctx;
    VGPU_TRY(vgpu_current(&ctx));
    if (!ret || flags > CU_STREAM_NON_BLOCKING)
        return CUDA_ERROR_INVALID_VALUE;
    const struct vgpu_card *card = &vgpu.devices[ctx->device].card;
    priority = LITHOS_MAX(card->priority_greatest, LITHOS_MIN(card->priority_least, priority));
    struct CUstream_st *s = vgpu_stream_make(ctx, VGPU_STREAM_USER, flags, priority);
    if (!s)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *ret = s;
    return CUDA_SUCCESS;
}

CU_API(cuStreamCreate, CUstream *ret, unsigned int flags)
{
    return cuStreamCreateWithPriority(ret, flags, 0);
}

CU_API(cuStreamDestroy_v2, CUstream stream)
{
    VGPU_ENTER();
    if (!vgpu_handle_is(stream, VGPU_H_STREAM))
        return CUDA_ERROR_INVALID_HANDLE;
    vgpu_handle_remove(stream);
    vgpu_capture_drop(stream);
    pthread_mutex_lock(&vgpu.issue);
    pthread_mutex_lock(&vgpu.lock);
    stream->destroyed = true;
    struct CUctx_st *ctx = stream->ctx;
    pthread_mutex_unlock(&vgpu.lock);
    reap(ctx);
    pthread_mutex_unlock(&vgpu.issue);
    return CUDA_SUCCESS;
}

CU_API(cuStreamDestroy, CUstream stream)
{
    return cuStreamDestroy_v2(stream);
}

/* Each with the legacy default stream, and as NAME_ptsz with the thread's own. */
#define BOTH(name, params, args)       \
    CU_API(name, params)               \
    {                                  \
        const bool per_thread = false; \
        return name##_body args;       \
    }                                  \
    CU_API(name##_ptsz, params)        \
    {                                  \
        const bool per_thread = true;  \
        return name##_body args;       \
    }
#define PARAMS(...) __VA_ARGS__

static CUresult no_capture(const struct CUstream_st *s)
{
    return s->capture ? CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED : CUDA_SUCCESS;
}

static CUresult cuStreamSynchronize_body(CUstream stream, bool per_thread)
{
    struct CUstream_st *s;
    VGPU_TRY(vgpu_stream_get(stream, per_thread, &s));
    VGPU_TRY(no_capture(s));
    return vgpu_wait_stream(s);
}
BOTH(cuStreamSynchronize, PARAMS(CUstream stream), (stream, per_thread))

static CUresult cuStreamQuery_body(CUstream stream, bool per_thread)
{
    struct CUstream_st *s;
    VGPU_TRY(vgpu_stream_get(stream, per_thread, &s));
    VGPU_TRY(no_capture(s));
    pthread_mutex_lock(&vgpu.lock);
    bool done = s->done == s->issued && !s->head;
    pthread_mutex_unlock(&vgpu.lock);
    return done ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}
BOTH(cuStreamQuery, PARAMS(CUstream stream), (stream, per_thread))

static CUresult cuStreamGetPriority_body(CUstream stream, int *priority, bool per_thread)
{
    struct CUstream_st *s;
    VGPU_TRY(vgpu_stream_get(stream, per_thread, &s));
    if (!priority)
        return CUDA_ERROR_INVALID_VALUE;
    *priority = s->priority;
    return CUDA_SUCCESS;
}
BOTH(cuStreamGetPriority, PARAMS(CUstream stream, int *priority), (stream, priority, per_thread))

static CUresult cuStreamGetFlags_body(CUstream stream, unsigned *flags, bool per_thread)
{
    struct CUstream_st *s;
    VGPU_TRY(vgpu_stream_get(stream, per_thread, &s));
    if (!flags)
        return CUDA_ERROR_INVALID_VALUE;
    *flags = s->flags;
    return CUDA_SUCCESS;
}
BOTH(cuStreamGetFlags, PARAMS(CUstream stream, unsigned int *flags), (stream, flags, per_thread))

static CUresult cuStreamGetId_body(CUstream stream, unsigned long long *id, bool per_thread)
{
    struct CUstream_st *s;
    VGPU_TRY(vgpu_stream_get(stream, per_thread, &s));
    if (!id)
        return CUDA_ERROR_INVALID_VALUE;
    *id = s->id;
    return CUDA_SUCCESS;
}
BOTH(cuStreamGetId, PARAMS(CUstream stream, unsigned long long *id), (stream, id, per_thread))

static CUresult cuStreamGetCtx_body(CUstream stream, CUcontext *ctx, bool per_thread)
{
    struct CUstream_st *s;
    VGPU_TRY(vgpu_stream_get(stream, per_thread, &s));
    if (!ctx)
        return CUDA_ERROR_INVALID_VALUE;
    *ctx = s->ctx;
    return CUDA_SUCCESS;
}
BOTH(cuStreamGetCtx, PARAMS(CUstream stream, CUcontext *ctx), (stream, ctx, per_thread))

static CUresult cuStreamGetCtx_v2_body(CUstream stream, CUcontext *ctx, CUgreenCtx *green, bool per_thread)
{
    VGPU_TRY(cuStreamGetCtx_body(stream, ctx, per_thread));
    if (green)
        *green = NULL;
    return CUDA_SUCCESS;
}
BOTH(cuStreamGetCtx_v2, PARAMS(CUstream stream, CUcontext *ctx, CUgreenCtx *green),
     (stream, ctx, green, per_thread))

static CUresult cuStreamGetDevice_body(CUstream stream, CUdevice *device, bool per_thread)
{
    struct CUstream_st *s;
    VGPU_TRY(vgpu_stream_get(stream, per_thread, &s));
    if (!device)
        return CUDA_ERROR_INVALID_VALUE;
    *device = s->ctx->device;
    return CUDA_SUCCESS;
}
BOTH(cuStreamGetDevice, PARAMS(CUstream stream, CUdevice *device), (stream, device, per_thread))

static CUresult cuStreamWaitEvent_body(CUstream stream, CUevent event, unsigned flags, bool per_thread)
{
    struct CUstream_st *s;
    VGPU_TRY(vgpu_stream_get(stream, per_thread, &s));
    if (!vgpu_handle_is(event, VGPU_H_EVENT))
        return CUDA_ERROR_INVALID_HANDLE;
    if (flags > 1)
        return CUDA_ERROR_INVALID_VALUE;
    if (event->capture)
        return vgpu_capture_wait(s, event);
    if (s->capture) /* the graph would have to wait for what is outside of it */
        return VGPU_CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
    pthread_mutex_lock(&vgpu.lock);
    struct vgpu_point *m = event->mark;
    if (m)
        m->refs++;
    pthread_mutex_unlock(&vgpu.lock);
    if (!m)
        return CUDA_SUCCESS; /* never recorded: nothing to wait for */
    CUresult r = vgpu_issue_wait(s, m);
    pthread_mutex_lock(&vgpu.lock);
    vgpu_point_unref(m);
    pthread_mutex_unlock(&vgpu.lock);
    return r;
}
BOTH(cuStreamWaitEvent, PARAMS(CUstream stream, CUevent event, unsigned int flags),
     (stream, event, flags, per_thread))

static CUresult host_op(CUstream stream, bool per_thread, struct vgpu_op **ret_op)
{
    struct CUstream_st *s;
    VGPU_TRY(vgpu_stream_get(stream, per_thread, &s));
    struct vgpu_op *op = vgpu_op_new(s, VGPU_OP_HOST);
    if (!op)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *ret_op = op;
    return CUDA_SUCCESS;
}

static CUresult cuLaunchHostFunc_body(CUstream stream, void (*fn)(void *), void *user, bool per_thread)
{
    if (!fn)
        return CUDA_ERROR_INVALID_VALUE;
    struct vgpu_op *op;
    VGPU_TRY(host_op(stream, per_thread, &op));
    op->host.fn = fn;
    op->host.user = user;
    return vgpu_submit(op, false);
}
BOTH(cuLaunchHostFunc, PARAMS(CUstream stream, void (*fn)(void *), void *user),
     (stream, fn, user, per_thread))

static CUresult cuStreamAddCallback_body(CUstream stream, void (*fn)(CUstream, CUresult, void *), void *user,
                                         unsigned flags, bool per_thread)
{
    if (!fn || flags)
        return CUDA_ERROR_INVALID_VALUE;
    struct vgpu_op *op;
    VGPU_TRY(host_op(stream, per_thread, &op));
    op->host.stream_fn = fn;
    op->host.user = user;
    if (op->stream->capture) {
        vgpu_op_free(op);
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    return vgpu_issue(op, false);
}
BOTH(cuStreamAddCallback,
     PARAMS(CUstream stream, void (*fn)(CUstream, CUresult, void *), void *user, unsigned int flags),
     (stream, fn, user, flags, per_thread))
