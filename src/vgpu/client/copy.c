/* Copies and memsets. */
#include <stdlib.h>
#include <string.h>

#include "vgpu/client/client.h"

struct side {
    uint8_t *host; /* where the bytes are in this process */
    bool device;
    bool pinned; /* known to the card; else pageable memory */
};

/* unified: a pointer that is no device's is the host's. */
static CUresult device_side(CUdeviceptr p, size_t bytes, bool unified, struct side *ret)
{
    struct side s = {0};
    s.host = vgpu_translate(p, bytes, &s.device);
    s.pinned = true;
    if (!s.host) {
        /* A range that starts in an allocation and leaves it is no host pointer. */
        if (!unified || vgpu_translate(p, 1, NULL) || p >> 47)
            return CUDA_ERROR_INVALID_VALUE;
        s.host = (uint8_t *)(uintptr_t)p;
        s.pinned = false;
    }
    *ret = s;
    return CUDA_SUCCESS;
}

static struct side host_side(const void *p, size_t bytes)
{
    struct side s = {.host = (uint8_t *)(uintptr_t)p};
    s.pinned = vgpu_translate((uint64_t)(uintptr_t)p, bytes, NULL) != NULL;
    return s;
}

static CUresult copy(struct side dst, struct side src, size_t bytes, CUstream stream, bool per_thread,
                     bool async)
{
    struct CUstream_st *s;
    VGPU_TRY(vgpu_stream_get(stream, per_thread, &s));
    if (!bytes)
        return CUDA_SUCCESS;
    struct vgpu_op *op = vgpu_op_new(s, VGPU_OP_COPY);
    if (!op)
        return CUDA_ERROR_OUT_OF_MEMORY;
    op->copy.dst = dst.host;
    op->copy.src = src.host;
    op->copy.bytes = bytes;
    vgpu_msg_init(&op->msg.h, VGPU_COPY, sizeof op->msg.copy);
    op->msg.copy.bytes = bytes;
    op->msg.copy.kind = !src.device ? VGPU_COPY_H2D : !dst.device ? VGPU_COPY_D2H : VGPU_COPY_D2D;
    /* Pageable memory: what is read is staged before the call returns, what is written is there when it returns. */
    bool wait = !async || (!dst.pinned && !s->capture);
    if (!wait && !src.pinned && !s->capture) {
        op->copy.staged = malloc(bytes);
        if (!op->copy.staged) {
            vgpu_op_free(op);
            return CUDA_ERROR_OUT_OF_MEMORY;
        }
        memcpy(op->copy.staged, src.host, bytes);
        op->copy.src = op->copy.staged;
    }
    return vgpu_submit(op, wait);
}

static CUresult unified(CUdeviceptr dst, CUdeviceptr src, size_t bytes, CUstream stream, bool per_thread,
                        bool async)
{
    struct side d, s;
    VGPU_ENTER();
    VGPU_TRY(device_side(dst, bytes, true, &d));
    VGPU_TRY(device_side(src, bytes, true, &s));
    return copy(d, s, bytes, stream, per_thread, async);
}

static CUresult htod(CUdeviceptr dst, const void *src, size_t bytes, CUstream stream, bool per_thread,
                     bool async)
{
    struct side d;
    VGPU_ENTER();
    if (bytes && !src)
        return CUDA_ERROR_INVALID_VALUE;
    if (bytes)
        VGPU_TRY(device_side(dst, bytes, false, &d));
    else
        d = (struct side){0};
    return copy(d, host_side(src, bytes), bytes, stream, per_thread, async);
}

static CUresult dtoh(void *dst, CUdeviceptr src, size_t bytes, CUstream stream, bool per_thread, bool async)
{
    struct side s;
    VGPU_ENTER();
    if (bytes && !dst)
        return CUDA_ERROR_INVALID_VALUE;
    if (bytes)
        VGPU_TRY(device_side(src, bytes, false, &s));
    else
        s = (struct side){0};
    return copy(host_side(dst, bytes), s, bytes, stream, per_thread, async);
}

static CUresult dtod(CUdeviceptr dst, CUdeviceptr src, size_t bytes, CUstream stream, bool per_thread,
                     bool async)
{
    struct side d = {0}, s = {0};
    VGPU_ENTER();
    if (bytes) {
        VGPU_TRY(device_side(dst, bytes, false, &d));
        VGPU_TRY(device_side(src, bytes, false, &s));
    }
    return copy(d, s, bytes, stream, per_thread, async);
}

/* NAME waits, in the default stream; NAME_ptds in the thread's; ASYNC and ASYNC_ptsz in the stream given. */
#define COPY(name, async, body, dst_type, src_type)                                 \
    CU_API(name, dst_type dst, src_type src, size_t bytes)                          \
    {                                                                               \
        return body(dst, src, bytes, NULL, false, false);                           \
    }                                                                               \
    CU_API(name##_ptds, dst_type dst, src_type src, size_t bytes)                   \
    {                                                                               \
        return body(dst, src, bytes, NULL, true, false);                            \
    }                                                                               \
    CU_API(async, dst_type dst, src_type src, size_t bytes, CUstream stream)        \
    {                                                                               \
        return body(dst, src, bytes, stream, false, true);                          \
    }                                                                               \
    CU_API(async##_ptsz, dst_type dst, src_type src, size_t bytes, CUstream stream) \
    {                                                                               \
        return body(dst, src, bytes, stream, true, true);                           \
    }

COPY(cuMemcpy, cuMemcpyAsync, unified, CUdeviceptr, CUdeviceptr)
COPY(cuMemcpyHtoD_v2, cuMemcpyHtoDAsync_v2, htod, CUdeviceptr, const void *)
COPY(cuMemcpyDtoH_v2, cuMemcpyDtoHAsync_v2, dtoh, void *, CUdeviceptr)
COPY(cuMemcpyDtoD_v2, cuMemcpyDtoDAsync_v2, dtod, CUdeviceptr, CUdeviceptr)

/* ---- memsets: kernels of the driver's own. The synchronous ones return before they are done, as the real ones. */

static CUresult fill(CUdeviceptr dst, uint32_t value, unsigned width, size_t count, CUstream stream,
                     bool per_thread)
{
    struct CUstream_st *s;
    VGPU_TRY(vgpu_stream_get(stream, per_thread, &s));
    if (!count)
        return CUDA_SUCCESS;
    struct vgpu_op *op;
    VGPU_TRY(vgpu_memset_prepare(s, dst, value, width, count, &op));
    return vgpu_submit(op, false);
}

#define MEMSET(name, width, type)                                                        \
    CU_API(name##_v2, CUdeviceptr dst, type value, size_t count)                         \
    {                                                                                    \
        return fill(dst, value, width, count, NULL, false);                              \
    }                                                                                    \
    CU_API(name##_v2_ptds, CUdeviceptr dst, type value, size_t count)                    \
    {                                                                                    \
        return fill(dst, value, width, count, NULL, true);                               \
    }                                                                                    \
    CU_API(name##Async, CUdeviceptr dst, type value, size_t count, CUstream stream)      \
    {                                                                                    \
        return fill(dst, value, width, count, stream, false);                            \
    }                                                                                    \
    CU_API(name##Async_ptsz, CUdeviceptr dst, type value, size_t count, CUstream stream) \
    {                                                                                    \
        return fill(dst, value, width, count, stream, true);                             \
    }

MEMSET(cuMemsetD8, 1, unsigned char)
MEMSET(cuMemsetD16, 2, unsigned short)
MEMSET(cuMemsetD32, 4, unsigned int)
