/* Device memory: host memory of this process behind addresses of its own, which no host pointer can be. Addresses are
 * never given out twice, so that use after free is found out. Pinned host memory keeps its own address. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vgpu/client/client.h"

#define DEVICE_BASE 0x0000a00000000000ull /* above what user space can have */
#define DEVICE_GUARD 0x200000ull          /* between allocations */
#define HOST_READ_ONLY 8u                 /* CU_MEMHOSTREGISTER_READ_ONLY */
#define LARGE 65536u                      /* from here on, memory that costs nothing until it is touched */
#define ALIGN 512u

enum range_kind { RANGE_DEVICE, RANGE_HOST, RANGE_REGISTERED };

struct range {
    uint64_t address;
    size_t size;
    uint8_t *host;
    enum range_kind kind;
    unsigned flags;
    struct CUctx_st *ctx;
};

static struct range *ranges; /* sorted by address; under vgpu.lock, as all below */
static size_t count, capacity;
static uint64_t next_address = DEVICE_BASE;

/* Index of the first range above address. */
static size_t above(uint64_t address)
{
    size_t lo = 0, hi = count;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (ranges[mid].address > address)
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo;
}

static struct range *holding(uint64_t address, size_t size)
{
    size_t i = above(address);
    if (!i)
        return NULL;
    struct range *r = &ranges[i - 1];
    uint64_t offset = address - r->address;
    return offset < r->size && size <= r->size - offset ? r : NULL;
}

static bool insert(struct range r)
{
    if (count == capacity) {
        size_t n = capacity ? capacity * 2 : 64;
        struct range *bigger = realloc(ranges, n * sizeof *bigger);
        if (!bigger)
            return false;
        ranges = bigger;
        capacity = n;
    }
    size_t i = above(r.address);
    memmove(&ranges[i + 1], &ranges[i], (count - i) * sizeof *ranges);
    ranges[i] = r;
    count++;
    return true;
}

static void erase(struct range *r)
{
    memmove(r, r + 1, (size_t)(&ranges[count] - (r + 1)) * sizeof *r);
    count--;
}

static uint8_t *back(size_t size)
{
    if (size < LARGE) { /* the driver aligns what it gives out, and so do its users' descriptors */
        size_t rounded = (size + ALIGN - 1) / ALIGN * ALIGN;
        uint8_t *small = aligned_alloc(ALIGN, rounded);
        return small ? memset(small, 0, rounded) : NULL;
    }
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static void unback(uint8_t *p, size_t size)
{
    if (size < LARGE)
        free(p);
    else
        munmap(p, size);
}

static void give_back(const struct range *r)
{
    if (r->kind == RANGE_DEVICE)
        vgpu.devices[r->ctx->device].used_bytes -= r->size;
    if (r->kind != RANGE_REGISTERED)
        unback(r->host, r->size);
}

uint8_t *vgpu_translate(CUdeviceptr address, size_t size, bool *ret_device)
{
    pthread_mutex_lock(&vgpu.lock);
    struct range *r = holding(address, size);
    uint8_t *host = r ? r->host + (address - r->address) : NULL;
    if (r && ret_device)
        *ret_device = r->kind == RANGE_DEVICE;
    pthread_mutex_unlock(&vgpu.lock);
    return host;
}

CUresult vgpu_alloc(struct CUctx_st *ctx, size_t size, CUdeviceptr *ret_ptr)
{
    if (!size)
        return CUDA_ERROR_INVALID_VALUE;
    struct vgpu_device *d = &vgpu.devices[ctx->device];
    pthread_mutex_lock(&vgpu.lock);
    CUresult result = CUDA_ERROR_OUT_OF_MEMORY;
    if (size <= d->card.total_mem && d->used_bytes <= d->card.total_mem - size) {
        struct range r = {.address = next_address, .size = size, .host = back(size), .ctx = ctx};
        if (r.host && insert(r)) {
            d->used_bytes += size;
            next_address += (size + 2 * DEVICE_GUARD - 1) / DEVICE_GUARD * DEVICE_GUARD;
            *ret_ptr = r.address;
            result = CUDA_SUCCESS;
        } else if (r.host) {
            unback(r.host, size);
        }
    }
    pthread_mutex_unlock(&vgpu.lock);
    return result;
}

static CUresult drop(uint64_t address, enum range_kind kind)
{
    pthread_mutex_lock(&vgpu.lock);
    struct range *r = holding(address, 1);
    CUresult result = CUDA_ERROR_INVALID_VALUE;
    if (r && r->address == address && r->kind == kind) {
        give_back(r);
        erase(r);
        result = CUDA_SUCCESS;
    }
    pthread_mutex_unlock(&vgpu.lock);
    return result;
}

CUresult vgpu_release(CUdeviceptr ptr)
{
    return drop(ptr, RANGE_DEVICE);
}

void vgpu_memory_drop(struct CUctx_st *ctx)
{
    pthread_mutex_lock(&vgpu.lock);
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        if (ranges[i].ctx == ctx)
            give_back(&ranges[i]);
        else
            ranges[kept++] = ranges[i];
    count = kept;
    pthread_mutex_unlock(&vgpu.lock);
}

CUresult vgpu_memory_release(const struct CUctx_st *ctx, CUdeviceptr address, uint64_t payload,
                             uint64_t time_ns)
{
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&vgpu.lock);
    struct range *r = holding(address, 16);
    if (ctx->sticky)
        goto out; /* the kernel itself failed */
    result = CUDA_ERROR_ILLEGAL_ADDRESS;
    if (!r || (r->kind == RANGE_REGISTERED && r->flags & HOST_READ_ONLY))
        goto out;
    result = VGPU_CUDA_ERROR_MISALIGNED_ADDRESS;
    if (address % 16)
        goto out;
    uint64_t *words = (uint64_t *)(void *)(r->host + (address - r->address));
    __atomic_store_n(&words[1], time_ns, __ATOMIC_RELAXED);
    __atomic_store_n(&words[0], payload, __ATOMIC_RELEASE);
    result = CUDA_SUCCESS;
out:
    pthread_mutex_unlock(&vgpu.lock);
    return result;
}

struct ptx_memory *vgpu_memory_snapshot(void)
{
    pthread_mutex_lock(&vgpu.lock);
    struct ptx_memory *m = malloc(sizeof *m + count * sizeof m->ranges[0]);
    if (m) {
        m->count = count;
        for (size_t i = 0; i < count; i++)
            m->ranges[i] = (struct ptx_range){ranges[i].address, ranges[i].size, ranges[i].host};
    }
    pthread_mutex_unlock(&vgpu.lock);
    return m;
}

/* ---- device memory */

CU_API(cuMemAlloc_v2, CUdeviceptr *ret, size_t size)
{
    struct CUctx_st *ctx;
    VGPU_TRY(vgpu_current(&ctx));
    return ret ? vgpu_alloc(ctx, size, ret) : CUDA_ERROR_INVALID_VALUE;
}

CU_API(cuMemAllocPitch_v2, CUdeviceptr *ret, size_t *pitch, size_t width, size_t height, unsigned int element)
{
    struct CUctx_st *ctx;
    VGPU_TRY(vgpu_current(&ctx));
    if (!ret || !pitch || !width || !height || (element != 4 && element != 8 && element != 16) ||
        width > SIZE_MAX - 511 || (width + 511) / 512 * 512 > SIZE_MAX / height)
        return CUDA_ERROR_INVALID_VALUE;
    size_t row = (width + 511) / 512 * 512;
    VGPU_TRY(vgpu_alloc(ctx, row * height, ret));
    *pitch = row;
    return CUDA_SUCCESS;
}

/* As the real driver's: waits for the context, so that nothing still runs on what goes away. */
CU_API(cuMemFree_v2, CUdeviceptr ptr)
{
    struct CUctx_st *ctx;
    VGPU_TRY(vgpu_current(&ctx));
    if (!ptr)
        return CUDA_SUCCESS;
    VGPU_TRY(vgpu_wait_context(ctx));
    return vgpu_release(ptr);
}

static CUresult alloc_async(CUdeviceptr *ret, size_t size, CUstream stream, bool per_thread)
{
    struct CUstream_st *s;
    VGPU_TRY(vgpu_stream_get(stream, per_thread, &s));
    if (s->capture)
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    return ret ? vgpu_alloc(s->ctx, size, ret) : CUDA_ERROR_INVALID_VALUE;
}

static CUresult free_async(CUdeviceptr ptr, CUstream stream, bool per_thread)
{
    struct CUstream_st *s;
    VGPU_TRY(vgpu_stream_get(stream, per_thread, &s));
    if (s->capture)
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    bool device = false;
    if (!vgpu_translate(ptr, 1, &device) || !device)
        return CUDA_ERROR_INVALID_VALUE;
    struct vgpu_op *op = vgpu_op_new(s, VGPU_OP_MARK);
    if (!op)
        return CUDA_ERROR_OUT_OF_MEMORY;
    op->free_ptr = ptr;
    return vgpu_issue(op, false);
}

CU_API(cuMemAllocAsync, CUdeviceptr *ret, size_t size, CUstream stream)
{
    return alloc_async(ret, size, stream, false);
}

CU_API(cuMemAllocAsync_ptsz, CUdeviceptr *ret, size_t size, CUstream stream)
{
    return alloc_async(ret, size, stream, true);
}

CU_API(cuMemFreeAsync, CUdeviceptr ptr, CUstream stream)
{
    return free_async(ptr, stream, false);
}

CU_API(cuMemFreeAsync_ptsz, CUdeviceptr ptr, CUstream stream)
{
    return free_async(ptr, stream, true);
}

CU_API(cuMemGetInfo_v2, size_t *free_bytes, size_t *total)
{
    struct CUctx_st *ctx;
    VGPU_TRY(vgpu_current(&ctx));
    if (!free_bytes || !total)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&vgpu.lock);
    *total = vgpu.devices[ctx->device].card.total_mem;
    *free_bytes = *total - vgpu.devices[ctx->device].used_bytes;
    pthread_mutex_unlock(&vgpu.lock);
    return CUDA_SUCCESS;
}

CU_API(cuMemGetAddressRange_v2, CUdeviceptr *base, size_t *size, CUdeviceptr ptr)
{
    struct CUctx_st *ctx;
    VGPU_TRY(vgpu_current(&ctx));
    pthread_mutex_lock(&vgpu.lock);
    struct range *r = holding(ptr, 1);
    if (r && base)
        *base = r->address;
    if (r && size)
        *size = r->size;
    pthread_mutex_unlock(&vgpu.lock);
    return r ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

/* ---- pinned host memory */

static CUresult add_host(struct CUctx_st *ctx, void *p, size_t size, enum range_kind kind, unsigned flags)
{
    uint64_t address = (uint64_t)(uintptr_t)p;
    pthread_mutex_lock(&vgpu.lock);
    size_t i = above(address);
    bool overlaps = (i && address - ranges[i - 1].address < ranges[i - 1].size) ||
                    (i < count && ranges[i].address - address < size);
    CUresult r = overlaps ? CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED : CUDA_SUCCESS;
    if (!r && !insert((struct range){address, size, p, kind, flags, ctx}))
        r = CUDA_ERROR_OUT_OF_MEMORY;
    pthread_mutex_unlock(&vgpu.lock);
    return r;
}

CU_API(cuMemHostAlloc, void **ret, size_t size, unsigned int flags)
{
    struct CUctx_st *ctx;
    VGPU_TRY(vgpu_current(&ctx));
    if (!ret || !size || flags > 7)
        return CUDA_ERROR_INVALID_VALUE;
    uint8_t *p = back(size);
    if (!p)
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult r = add_host(ctx, p, size, RANGE_HOST, flags);
    if (r) {
        unback(p, size);
        return r;
    }
    *ret = p;
    return CUDA_SUCCESS;
}

CU_API(cuMemAllocHost_v2, void **ret, size_t size)
{
    return cuMemHostAlloc(ret, size, 0);
}

CU_API(cuMemFreeHost, void *p)
{
    struct CUctx_st *ctx;
    VGPU_TRY(vgpu_current(&ctx));
    VGPU_TRY(vgpu_wait_context(ctx));
    return drop((uint64_t)(uintptr_t)p, RANGE_HOST);
}

/* What is not mapped cannot be pinned. */
static bool pages_exist(const void *p, size_t size)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)p & ~(page - 1), end;
    if (__builtin_add_overflow((uintptr_t)p, size, &end) || end > UINTPTR_MAX - page)
        return false;
    unsigned char resident[256];
    while (at < end) {
        size_t bytes = LITHOS_MIN(((end - at) + page - 1) & ~(page - 1), sizeof resident * page);
        if (mincore((void *)at, bytes, resident))
            return false;
        at += bytes;
    }
    return true;
}

CU_API(cuMemHostRegister_v2, void *p, size_t size, unsigned int flags)
{
    struct CUctx_st *ctx;
    VGPU_TRY(vgpu_current(&ctx));
    if (!p || !size || flags > 15 || !pages_exist(p, size))
        return CUDA_ERROR_INVALID_VALUE;
    return add_host(ctx, p, size, RANGE_REGISTERED, flags);
}

CU_API(cuMemHostRegister, void *p, size_t size, unsigned int flags)
{
    return cuMemHostRegister_v2(p, size, flags);
}

/* Kernels in flight lose the memory at once, as by a card's MMU (whether the real driver waits for them first is
 * nowhere promised); copies in flight are waited for, as they have its address already. */
CU_API(cuMemHostUnregister, void *p)
{
    struct CUctx_st *ctx;
    VGPU_TRY(vgpu_current(&ctx));
    if (drop((uint64_t)(uintptr_t)p, RANGE_REGISTERED))
        return CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
    return vgpu_wait_context(ctx);
}

CU_API(cuMemHostGetDevicePointer_v2, CUdeviceptr *ret, void *p, unsigned int flags)
{
    struct CUctx_st *ctx;
    VGPU_TRY(vgpu_current(&ctx));
    bool device = true;
    if (!ret || flags || !vgpu_translate((uint64_t)(uintptr_t)p, 1, &device) || device)
        return CUDA_ERROR_INVALID_VALUE;
    *ret = (CUdeviceptr)(uintptr_t)p;
    return CUDA_SUCCESS;
}

CU_API(cuMemHostGetFlags, unsigned int *flags, void *p)
{
    struct CUctx_st *ctx;
    VGPU_TRY(vgpu_current(&ctx));
    pthread_mutex_lock(&vgpu.lock);
    struct range *r = holding((uint64_t)(uintptr_t)p, 1);
    bool ok = flags && r && r->kind == RANGE_HOST;
    if (ok)
        *flags = r->flags;
    pthread_mutex_unlock(&vgpu.lock);
    return ok ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* ---- what a pointer is: numbers of CUpointer_attribute */

static CUresult attribute(void *data, int which, CUdeviceptr ptr)
{
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&vgpu.lock);
    struct range *r = holding(ptr, 1);
    bool device = r && r->kind == RANGE_DEVICE;
    if (!r) {
        result = CUDA_ERROR_INVALID_VALUE;
    } else {
        switch (which) {
        case 1: /* CONTEXT */
            *(CUcontext *)data = r->ctx;
            break;
        case 2: /* MEMORY_TYPE: 1 host, 2 device */
            *(unsigned *)data = device ? 2 : 1;
            break;
        case 3: /* DEVICE_POINTER */
            *(CUdeviceptr *)data = ptr;
            break;
        case 4: /* HOST_POINTER */
            if (device)
                result = CUDA_ERROR_INVALID_VALUE;
            else
                *(void **)data = (void *)(uintptr_t)ptr;
            break;
        case 7: /* BUFFER_ID */
            *(unsigned long long *)data = r->address;
            break;
        case 8: /* IS_MANAGED */
            *(unsigned *)data = 0;
            break;
        case 9: /* DEVICE_ORDINAL */
            *(int *)data = r->ctx->device;
            break;
        case 11: /* RANGE_START_ADDR */
            *(CUdeviceptr *)data = r->address;
            break;
        case 12: /* RANGE_SIZE */
            *(size_t *)data = r->size;
            break;
        case 13: /* MAPPED */
            *(unsigned *)data = 1;
            break;
        default:
            result = CUDA_ERROR_NOT_SUPPORTED;
        }
    }
    pthread_mutex_unlock(&vgpu.lock);
    return result;
}

CU_API(cuPointerGetAttribute, void *data, int which, CUdeviceptr ptr)
{
    VGPU_ENTER();
    return data ? attribute(data, which, ptr) : CUDA_ERROR_INVALID_VALUE;
}

/* What does not apply to a pointer reads as zero here, and is no error. */
CU_API(cuPointerGetAttributes, unsigned int n, int *which, void **data, CUdeviceptr ptr)
{
    VGPU_ENTER();
    if (!n || !which || !data)
        return CUDA_ERROR_INVALID_VALUE;
    for (unsigned i = 0; i < n; i++) {
        bool wide = which[i] == 1 || which[i] == 3 || which[i] == 4 || which[i] == 7 || which[i] == 11 ||
                    which[i] == 12;
        memset(data[i], 0, wide ? 8 : 4);
        if (which[i] == 9)
            *(int *)data[i] = -2;
        if (attribute(data[i], which[i], ptr) == CUDA_ERROR_NOT_SUPPORTED)
            return CUDA_ERROR_NOT_SUPPORTED;
    }
    return CUDA_SUCCESS;
}
