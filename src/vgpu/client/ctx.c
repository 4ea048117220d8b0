/* Contexts. A context's memory is never given back, so that a thread that still has a destroyed one current is told so
 * and does not crash; what it held is. */
#include <stdlib.h>
#include <string.h>

#include "vgpu/client/client.h"
#include "vgpu/client/hostfn.h"

#define STACK_MAX 64

static _Thread_local struct {
    struct CUctx_st *ctx[STACK_MAX];
    unsigned depth;
} stack;

static struct CUctx_st *top(void)
{
    return stack.depth ? stack.ctx[stack.depth - 1] : NULL;
}

CUresult vgpu_current(struct CUctx_st **ret_ctx)
{
    VGPU_TRY(vgpu_ready());
    struct CUctx_st *ctx = top();
    if (!ctx)
        return CUDA_ERROR_INVALID_CONTEXT;
    pthread_mutex_lock(&vgpu.lock);
    CUresult r = ctx->destroyed ? CUDA_ERROR_CONTEXT_IS_DESTROYED : ctx->sticky ? ctx->sticky : vgpu.lost;
    pthread_mutex_unlock(&vgpu.lock);
    if (r == CUDA_SUCCESS)
        *ret_ctx = ctx;
    return r;
}

static void tell(uint16_t type, const struct CUctx_st *ctx)
{
    struct vgpu_ctx m = {.ctx = ctx->id, .card = vgpu.devices[ctx->device].card.index};
    vgpu_msg_init(&m.h, type, sizeof m);
    vgpu_link_send(&m, sizeof m);
}

static CUresult create(int device, unsigned flags, bool primary, struct CUctx_st **ret_ctx)
{
    if (vgpu.lost)
        return vgpu.lost;
    struct CUctx_st *ctx = calloc(1, sizeof *ctx);
    if (!ctx)
        return CUDA_ERROR_OUT_OF_MEMORY;
    ctx->id = vgpu_next_id();
    ctx->device = device;
    ctx->flags = flags;
    ctx->primary = primary;
    ctx->limits[0] = 1024;            /* CU_LIMIT_STACK_SIZE */
    ctx->limits[1] = 1024 * 1024;     /* CU_LIMIT_PRINTF_FIFO_SIZE */
    ctx->limits[2] = 8 * 1024 * 1024; /* CU_LIMIT_MALLOC_HEAP_SIZE */
    pthread_mutex_lock(&vgpu.issue);
    tell(VGPU_CTX_CREATE, ctx);
    pthread_mutex_unlock(&vgpu.issue);
    ctx->legacy = vgpu_stream_make(ctx, VGPU_STREAM_LEGACY, CU_STREAM_DEFAULT, 0);
    if (!ctx->legacy) {
        free(ctx);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    pthread_mutex_lock(&vgpu.lock);
    ctx->next = vgpu.contexts;
    vgpu.contexts = ctx;
    pthread_mutex_unlock(&vgpu.lock);
    vgpu_handle_add(ctx, VGPU_H_CTX);
    vgpu_group_make(ctx);
    *ret_ctx = ctx;
    return CUDA_SUCCESS;
}

static void destroy(struct CUctx_st *ctx)
{
    vgpu_wait_context(ctx);
    vgpu_handle_remove(ctx);
    vgpu_group_free(ctx);
    pthread_mutex_lock(&vgpu.issue);
    pthread_mutex_lock(&vgpu.lock);
    ctx->destroyed = true;
    while (vgpu.busy == ctx)
        pthread_cond_wait(&vgpu.changed, &vgpu.lock);
    pthread_mutex_unlock(&vgpu.lock);
    tell(VGPU_CTX_DESTROY, ctx);
    pthread_mutex_unlock(&vgpu.issue);
    vgpu_ops_drop(ctx);
    vgpu_modules_drop(ctx);
    vgpu_streams_drop(ctx);
    vgpu_memory_drop(ctx);
}

static CUresult device_ok(CUdevice device)
{
    VGPU_ENTER();
    return device < 0 || (unsigned)device >= vgpu.device_count ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}

/* ---- primary contexts */

static pthread_mutex_t primary_lock = PTHREAD_MUTEX_INITIALIZER;

CU_API(cuDevicePrimaryCtxRetain, CUcontext *ret, CUdevice device)
{
    VGPU_TRY(device_ok(device));
    if (!ret)
        return CUDA_ERROR_INVALID_VALUE;
    struct vgpu_device *d = &vgpu.devices[device];
    CUresult r = CUDA_SUCCESS;
    pthread_mutex_lock(&primary_lock);
    if (!d->primary)
        r = create(device, d->primary_flags, true, &d->primary);
    if (r == CUDA_SUCCESS) {
        d->primary_refs++;
        *ret = d->primary;
    }
    pthread_mutex_unlock(&primary_lock);
    return r;
}

static CUresult primary_drop(CUdevice device, bool all)
{
    VGPU_TRY(device_ok(device));
    struct vgpu_device *d = &vgpu.devices[device];
    CUresult r = CUDA_SUCCESS;
    pthread_mutex_lock(&primary_lock);
    if (!d->primary)
        r = all ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
    else if (all || --d->primary_refs == 0) {
        destroy(d->primary);
        d->primary = NULL;
        d->primary_refs = 0;
    }
    pthread_mutex_unlock(&primary_lock);
    return r;
}

CU_API(cuDevicePrimaryCtxRelease_v2, CUdevice device)
{
    return primary_drop(device, false);
}

CU_API(cuDevicePrimaryCtxRelease, CUdevice device)
{
    return primary_drop(device, false);
}

CU_API(cuDevicePrimaryCtxReset_v2, CUdevice device)
{
    return primary_drop(device, true);
}

CU_API(cuDevicePrimaryCtxReset, CUdevice device)
{
    return primary_drop(device, true);
}

CU_API(cuDevicePrimaryCtxGetState, CUdevice device, unsigned int *flags, int *active)
{
    VGPU_TRY(device_ok(device));
    if (!flags || !active)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&primary_lock);
    *flags = vgpu.devices[device].primary_flags;
    *active = vgpu.devices[device].primary != NULL;
    pthread_mutex_unlock(&primary_lock);
    return CUDA_SUCCESS;
}

CU_API(cuDevicePrimaryCtxSetFlags_v2, CUdevice device, unsigned int flags)
{
    VGPU_TRY(device_ok(device));
    pthread_mutex_lock(&primary_lock);
    vgpu.devices[device].primary_flags = flags;
    if (vgpu.devices[device].primary)
        vgpu.devices[device].primary->flags = flags;
    pthread_mutex_unlock(&primary_lock);
    return CUDA_SUCCESS;
}

CU_API(cuDevicePrimaryCtxSetFlags, CUdevice device, unsigned int flags)
{
    return cuDevicePrimaryCtxSetFlags_v2(device, flags);
}

/* ---- the thread's stack of contexts */

static CUresult push(CUcontext ctx)
{
    if (!vgpu_handle_is(ctx, VGPU_H_CTX))
        return CUDA_ERROR_INVALID_CONTEXT;
    if (stack.depth == STACK_MAX)
        return CUDA_ERROR_OUT_OF_MEMORY;
    stack.ctx[stack.depth++] = ctx;
    return CUDA_SUCCESS;
}

CU_API(cuCtxCreate_v2, CUcontext *ret, unsigned int flags, CUdevice device)
{
    VGPU_TRY(device_ok(device));
    if (!ret)
        return CUDA_ERROR_INVALID_VALUE;
    struct CUctx_st *ctx;
    VGPU_TRY(create(device, flags, false, &ctx));
    VGPU_TRY(push(ctx));
    *ret = ctx;
    return CUDA_SUCCESS;
}

CU_API(cuCtxCreate, CUcontext *ret, unsigned int flags, CUdevice device)
{
    return cuCtxCreate_v2(ret, flags, device);
}

CU_API(cuCtxCreate_v3, CUcontext *ret, const void *affinity, int affinities, unsigned int flags,
       CUdevice device)
{
    if (affinities) {
        lithos_log_once(LITHOS_LOG_WARNING,
                        "virtual GPU: cuCtxCreate: execution affinity is not implemented");
        return VGPU_CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY;
    }
    (void)affinity;
    return cuCtxCreate_v2(ret, flags, device);
}

struct create_params { /* CUctxCreateParams */
    void *affinity;
    int affinities;
    void *cig;
};

CU_API(cuCtxCreate_v4, CUcontext *ret, const struct create_params *params, unsigned int flags,
       CUdevice device)
{
    if (params && params->cig)
        return CUDA_ERROR_NOT_SUPPORTED;
    return cuCtxCreate_v3(ret, params ? params->affinity : NULL, params ? params->affinities : 0, flags,
                          device);
}

CU_API(cuCtxDestroy_v2, CUcontext ctx)
{
    VGPU_ENTER();
    if (!vgpu_handle_is(ctx, VGPU_H_CTX) || ctx->primary)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (top() == ctx)
        stack.depth--;
    destroy(ctx);
    return CUDA_SUCCESS;
}

CU_API(cuCtxDestroy, CUcontext ctx)
{
    return cuCtxDestroy_v2(ctx);
}

CU_API(cuCtxGetCurrent, CUcontext *ret)
{
    VGPU_ENTER();
    if (!ret)
        return CUDA_ERROR_INVALID_VALUE;
    *ret = top();
    return CUDA_SUCCESS;
}

CU_API(cuCtxSetCurrent, CUcontext ctx)
{
    VGPU_ENTER();
    if (!ctx) {
        if (stack.depth)
            stack.depth--;
        return CUDA_SUCCESS;
    }
    if (!vgpu_handle_is(ctx, VGPU_H_CTX))
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!stack.depth)
        return push(ctx);
    stack.ctx[stack.depth - 1] = ctx;
    return CUDA_SUCCESS;
}

CU_API(cuCtxPushCurrent_v2, CUcontext ctx)
{
    VGPU_ENTER();
    return push(ctx);
}

CU_API(cuCtxPushCurrent, CUcontext ctx)
{
    return cuCtxPushCurrent_v2(ctx);
}

CU_API(cuCtxPopCurrent_v2, CUcontext *ret)
{
    VGPU_ENTER();
    if (!stack.depth)
        return CUDA_ERROR_INVALID_CONTEXT;
    stack.depth--;
    if (ret)
        *ret = stack.ctx[stack.depth];
    return CUDA_SUCCESS;
}

CU_API(cuCtxPopCurrent, CUcontext *ret)
{
    return cuCtxPopCurrent_v2(ret);
}

CU_API(cuCtxGetDevice, CUdevice *ret)
{
    VGPU_ENTER();
    if (!top())
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!ret)
        return CUDA_ERROR_INVALID_VALUE;
    *ret = top()->device;
    return CUDA_SUCCESS;
}

CU_API(cuCtxGetDevice_v2, CUdevice *ret, CUcontext ctx)
{
    if (!ctx)
        return cuCtxGetDevice(ret);
    VGPU_ENTER();
    if (!vgpu_handle_is(ctx, VGPU_H_CTX))
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!ret)
        return CUDA_ERROR_INVALID_VALUE;
    *ret = ctx->device;
    return CUDA_SUCCESS;
}

CU_API(cuCtxSynchronize, void)
{
    struct CUctx_st *ctx;
    VGPU_TRY(vgpu_current(&ctx));
    return vgpu_wait_context(ctx);
}

CU_API(cuCtxSynchronize_v2, CUcontext ctx)
{
    if (!ctx)
        return cuCtxSynchronize();
    VGPU_ENTER();
    if (!vgpu_handle_is(ctx, VGPU_H_CTX))
        return CUDA_ERROR_INVALID_CONTEXT;
    return vgpu_wait_context(ctx);
}

/* ---- what a context says of itself */

CU_API(cuCtxGetFlags, unsigned int *flags)
{
    struct CUctx_st *ctx;
    VGPU_TRY(vgpu_current(&ctx));
    if (!flags)
        return CUDA_ERROR_INVALID_VALUE;
    *flags = ctx->flags;
    return CUDA_SUCCESS;
}

CU_API(cuCtxSetFlags, unsigned int flags)
{
    struct CUctx_st *ctx;
    VGPU_TRY(vgpu_current(&ctx));
    ctx->flags = flags;
    return CUDA_SUCCESS;
}

CU_API(cuCtxGetStreamPriorityRange, int *least, int *greatest)
{
    struct CUctx_st *ctx;
    VGPU_TRY(vgpu_current(&ctx));
    if (least)
        *least = vgpu.devices[ctx->device].card.priority_least;
    if (greatest)
        *greatest = vgpu.devices[ctx->device].card.priority_greatest;
    return CUDA_SUCCESS;
}

CU_API(cuCtxGetLimit, size_t *value, int limit)
{
    struct CUctx_st *ctx;
    VGPU_TRY(vgpu_current(&ctx));
    if (!value)
        return CUDA_ERROR_INVALID_VALUE;
    if (limit < 0 || limit > 6)
        return VGPU_CUDA_ERROR_UNSUPPORTED_LIMIT;
    *value = ctx->limits[limit];
    return CUDA_SUCCESS;
}

CU_API(cuCtxSetLimit, int limit, size_t value)
{
    struct CUctx_st *ctx;
    VGPU_TRY(vgpu_current(&ctx));
    if (limit < 0 || limit > 6)
        return VGPU_CUDA_ERROR_UNSUPPORTED_LIMIT;
    ctx->limits[limit] = value;
    return CUDA_SUCCESS;
}

CU_API(cuCtxGetApiVersion, CUcontext ctx, unsigned int *version)
{
    VGPU_ENTER();
    if (ctx ? !vgpu_handle_is(ctx, VGPU_H_CTX) : !top())
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!version)
        return CUDA_ERROR_INVALID_VALUE;
    *version = 3020;
    return CUDA_SUCCESS;
}

CU_API(cuCtxGetId, CUcontext ctx, unsigned long long *id)
{
    VGPU_ENTER();
    if (ctx ? !vgpu_handle_is(ctx, VGPU_H_CTX) : !top())
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!id)
        return CUDA_ERROR_INVALID_VALUE;
    *id = (ctx ? ctx : top())->id;
    return CUDA_SUCCESS;
}

CU_API(cuCtxGetCacheConfig, int *config)
{
    struct CUctx_st *ctx;
    VGPU_TRY(vgpu_current(&ctx));
    if (!config)
        return CUDA_ERROR_INVALID_VALUE;
    *config = 0;
    return CUDA_SUCCESS;
}

CU_API(cuCtxSetCacheConfig, int config)
{
    struct CUctx_st *ctx;
    (void)config; /* a hint */
    return vgpu_current(&ctx);
}
