/* Copies and memsets of rows. */
#include <stdlib.h>
#include <string.h>

#include "vgpu/client/client.h"

void vgpu_copy_effect(const struct vgpu_op *op)
{
    size_t rows = LITHOS_MAX(op->copy.rows, 1u), width = op->copy.bytes / rows;
    if (op->is_word) { /* somebody may wait for it */
        uint64_t value = 0;
        memcpy(&value, op->copy.src, op->copy.bytes);
        if (op->copy.bytes == sizeof(uint32_t))
            __atomic_store_n((uint32_t *)(void *)op->copy.dst, (uint32_t)value, __ATOMIC_RELEASE);
        else
            __atomic_store_n((uint64_t *)(void *)op->copy.dst, value, __ATOMIC_RELEASE);
        return;
    }
    for (size_t i = 0; width && i < rows; i++)
        memmove(op->copy.dst + i * op->copy.dst_pitch, op->copy.src + i * op->copy.src_pitch, width);
}

void vgpu_memset_effect(const struct vgpu_op *op)
{
    size_t rows = LITHOS_MAX(op->memset.rows, 1u), count = op->memset.count / rows;
    for (size_t row = 0; row < rows; row++)
        for (size_t i = 0; i < count; i++)
            memcpy(op->memset.dst + row * op->memset.pitch + i * op->memset.width, &op->memset.value,
                   op->memset.width);
}

/* ---- copies by structure: of device memory, pinned and pageable host memory; arrays are not implemented */

struct side {
    uint8_t *at; /* the first byte */
    size_t pitch;
    bool device, pinned;
};

static CUresult side_of(int type, const void *host, CUdeviceptr address, size_t x, size_t y, size_t pitch,
                        size_t width, size_t rows, struct side *ret)
{
    struct side s = {.pitch = pitch ? pitch : width};
    if (type == CU_MEMORYTYPE_ARRAY)
        return CUDA_ERROR_NOT_SUPPORTED;
    if (type != CU_MEMORYTYPE_HOST && type != CU_MEMORYTYPE_DEVICE && type != CU_MEMORYTYPE_UNIFIED)
        return CUDA_ERROR_INVALID_VALUE;
    if (rows > 1 && s.pitch < width)
        return CUDA_ERROR_INVALID_VALUE;
    uint64_t first = (type == CU_MEMORYTYPE_HOST ? (uintptr_t)host : address) + y * s.pitch + x;
    size_t bytes = (rows - 1) * s.pitch + width;
    s.at = vgpu_translate(first, bytes, &s.device);
    s.pinned = s.at != NULL;
    if (type == CU_MEMORYTYPE_DEVICE && !s.at)
        return CUDA_ERROR_INVALID_VALUE;
    if (!s.at)
        s.at = (uint8_t *)(uintptr_t)first;
    *ret = s;
    return CUDA_SUCCESS;
}

/* Pageable memory as in copy.c: what is read is staged before the call returns, what is written is there when it returns. */
static CUresult stage(struct vgpu_op *op, const struct side *src, size_t width, size_t rows)
{
    op->copy.staged = malloc(width * rows);
    if (!op->copy.staged)
        return CUDA_ERROR_OUT_OF_MEMORY;
    for (size_t i = 0; i < rows; i++)
        memcpy(op->copy.staged + i * width, src->at + i * src->pitch, width);
    op->copy.src = op->copy.staged;
    op->copy.src_pitch = width;
    return CUDA_SUCCESS;
}

static CUresult copy_2d(const CUDA_MEMCPY2D *c, CUstream stream, bool per_thread, bool async)
{
    struct CUstream_st *s;
    struct side dst, src;
    VGPU_TRY(vgpu_stream_get(stream, per_thread, &s));
    if (!c || (c->Height && c->WidthInBytes > SIZE_MAX / c->Height))
        return CUDA_ERROR_INVALID_VALUE;
    size_t width = c->WidthInBytes, rows = c->Height;
    if (!width || !rows)
        return CUDA_SUCCESS;
    VGPU_TRY(side_of(c->dstMemoryType, c->dstHost, c->dstDevice, c->dstXInBytes, c->dstY, c->dstPitch, width,
                     rows, &dst));
    VGPU_TRY(side_of(c->srcMemoryType, c->srcHost, c->srcDevice, c->srcXInBytes, c->srcY, c->srcPitch, width,
                     rows, &src));
    struct vgpu_op *op = vgpu_op_new(s, VGPU_OP_COPY);
    if (!op)
        return CUDA_ERROR_OUT_OF_MEMORY;
    op->copy.dst = dst.at;
    op->copy.dst_pitch = dst.pitch;
    op->copy.src = src.at;
    op->copy.src_pitch = src.pitch;
    op->copy.bytes = width * rows;
    op->copy.rows = rows;
    vgpu_msg_init(&op->msg.h, VGPU_COPY, sizeof op->msg.copy);
    op->msg.copy.bytes = op->copy.bytes;
    op->msg.copy.kind = !src.device ? VGPU_COPY_H2D : !dst.device ? VGPU_COPY_D2H : VGPU_COPY_D2D;
    bool wait = !async || (!dst.pinned && !s->capture);
    CUresult r = !wait && !src.pinned && !s->capture ? stage(op, &src, width, rows) : CUDA_SUCCESS;
    if (r) {
        vgpu_op_free(op);
        return r;
    }
    return vgpu_submit(op, wait);
}

CU_API(cuMemcpy2D_v2, const CUDA_MEMCPY2D *c)
{
    return copy_2d(c, NULL, false, false);
}

CU_API(cuMemcpy2D_v2_ptds, const CUDA_MEMCPY2D *c)
{
    return copy_2d(c, NULL, true, false);
}

CU_API(cuMemcpy2DAsync_v2, const CUDA_MEMCPY2D *c, CUstream stream)
{
    return copy_2d(c, stream, false, true);
}

CU_API(cuMemcpy2DAsync_v2_ptsz, const CUDA_MEMCPY2D *c, CUstream stream)
{
    return copy_2d(c, stream, true, true);
}

/* ---- memsets of rows: kernels of the driver's own, as those of copy.c */

static CUresult fill_2d(CUdeviceptr dst, size_t pitch, uint32_t value, unsigned width, size_t count,
                        size_t rows, CUstream stream, bool per_thread)
{
    struct CUstream_st *s;
    VGPU_TRY(vgpu_stream_get(stream, per_thread, &s));
    if (!count || !rows)
        return CUDA_SUCCESS;
    if (count > SIZE_MAX / width / rows || (rows > 1 && pitch < count * width) || pitch % width ||
        (rows > 1 && pitch > SIZE_MAX / rows) ||
        !vgpu_translate(dst, (rows - 1) * pitch + count * width, NULL))
        return CUDA_ERROR_INVALID_VALUE;
    struct vgpu_op *op;
    VGPU_TRY(vgpu_memset_prepare(s, dst, value, width, count, &op));
    op->memset.count = count * rows;
    op->memset.rows = rows;
    op->memset.pitch = pitch;
    return vgpu_submit(op, false);
}

#define MEMSET_2D(name, width, type)                                                               \
    CU_API(name##_v2, CUdeviceptr dst, size_t pitch, type value, size_t count, size_t rows)        \
    {                                                                                              \
        return fill_2d(dst, pitch, value, width, count, rows, NULL, false);                        \
    }                                                                                              \
    CU_API(name##_v2_ptds, CUdeviceptr dst, size_t pitch, type value, size_t count, size_t rows)   \
    {                                                                                              \
        return fill_2d(dst, pitch, value, width, count, rows, NULL, true);                         \
    }                                                                                              \
    CU_API(name##Async, CUdeviceptr dst, size_t pitch, type value, size_t count, size_t rows,      \
           CUstream stream)                                                                        \
    {                                                                                              \
        return fill_2d(dst, pitch, value, width, count, rows, stream, false);                      \
    }                                                                                              \
    CU_API(name##Async_ptsz, CUdeviceptr dst, size_t pitch, type value, size_t count, size_t rows, \
           CUstream stream)                                                                        \
    {                                                                                              \
        return fill_2d(dst, pitch, value, width, count, rows, stream, true);                       \
    }

MEMSET_2D(cuMemsetD2D8, 1, unsigned char)
MEMSET_2D(cuMemsetD2D16, 2, unsigned short)
MEMSET_2D(cuMemsetD2D32, 4, unsigned int)
