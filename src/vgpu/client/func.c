/* What functions and kernels say of themselves, and occupancy. */
#include <string.h>

#include "vgpu/client/client.h"

/* Numbers of CUfunction_attribute. */
enum {
    MAX_THREADS_PER_BLOCK,
    SHARED_SIZE_BYTES,
    CONST_SIZE_BYTES,
    LOCAL_SIZE_BYTES,
    NUM_REGS,
    PTX_VERSION,
    BINARY_VERSION,
    CACHE_MODE_CA,
    MAX_DYNAMIC_SHARED_SIZE_BYTES,
    PREFERRED_SHARED_MEMORY_CARVEOUT,
    CLUSTER_SIZE_MUST_BE_SET,
    REQUIRED_CLUSTER_WIDTH,
    REQUIRED_CLUSTER_HEIGHT,
    REQUIRED_CLUSTER_DEPTH,
    NON_PORTABLE_CLUSTER_SIZE_ALLOWED,
    CLUSTER_SCHEDULING_POLICY_PREFERENCE,
};

static const struct vgpu_card *card_of(const struct CUfunc_st *f)
{
    return &vgpu.devices[f->module->ctx->device].card;
}

/* 0 for a number that is none. */
int vgpu_func_attribute(const struct CUfunc_st *f, int attribute, int *ret_value)
{
    const struct ptx_entry *e = f->entry;
    const struct vgpu_card *card = card_of(f);
    const struct ptx_program *ptx = f->module->program->ptx;
    switch (attribute) {
    case MAX_THREADS_PER_BLOCK: {
        int most = card->attributes[CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK];
        int by_registers = (int)(65536 / LITHOS_MAX(e->registers, 1u)) / 32 * 32;
        most = LITHOS_MIN(most, by_registers);
        *ret_value = e->max_threads ? LITHOS_MIN(most, (int)e->max_threads) : most;
        return 1;
    }
    case SHARED_SIZE_BYTES:
        *ret_value = (int)e->shared_bytes;
        return 1;
    case CONST_SIZE_BYTES:
    case LOCAL_SIZE_BYTES:
    case CACHE_MODE_CA:
    case CLUSTER_SCHEDULING_POLICY_PREFERENCE:
        *ret_value = 0;
        return 1;
    case NUM_REGS:
        *ret_value = (int)e->registers;
        return 1;
    case PTX_VERSION:
        *ret_value = ptx->target;
        return 1;
    case BINARY_VERSION:
        *ret_value = card->cc_major * 10 + card->cc_minor;
        return 1;
    case MAX_DYNAMIC_SHARED_SIZE_BYTES:
        *ret_value = f->max_dynamic_shared;
        return 1;
    case PREFERRED_SHARED_MEMORY_CARVEOUT:
        *ret_value = f->carveout;
        return 1;
    case CLUSTER_SIZE_MUST_BE_SET:
        *ret_value = e->cluster[0] != 0;
        return 1;
    case REQUIRED_CLUSTER_WIDTH:
    case REQUIRED_CLUSTER_HEIGHT:
    case REQUIRED_CLUSTER_DEPTH:
        *ret_value = (int)e->cluster[attribute - REQUIRED_CLUSTER_WIDTH];
        return 1;
    case NON_PORTABLE_CLUSTER_SIZE_ALLOWED:
        *ret_value = f->nonportable_cluster;
        return 1;
    default:
        return 0;
    }
}

static CUresult get_attribute(int *value, int attribute, CUfunction handle)
{
    VGPU_ENTER();
    struct CUfunc_st *f;
    VGPU_TRY(vgpu_func_get(handle, &f));
    return value && vgpu_func_attribute(f, attribute, value) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static CUresult set_attribute(CUfunction handle, int attribute, int value)
{
    VGPU_ENTER();
    struct CUfunc_st *f;
    VGPU_TRY(vgpu_func_get(handle, &f));
    switch (attribute) {
    case MAX_DYNAMIC_SHARED_SIZE_BYTES: {
        int most = card_of(f)->attributes[CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN];
        if (value < 0 || value > most - (int)f->entry->shared_bytes)
            return CUDA_ERROR_INVALID_VALUE;
        f->max_dynamic_shared = value;
        return CUDA_SUCCESS;
    }
    case PREFERRED_SHARED_MEMORY_CARVEOUT:
        if (value < -1 || value > 100)
            return CUDA_ERROR_INVALID_VALUE;
        f->carveout = value;
        return CUDA_SUCCESS;
    case NON_PORTABLE_CLUSTER_SIZE_ALLOWED:
        f->nonportable_cluster = value != 0;
        return CUDA_SUCCESS;
    case CLUSTER_SCHEDULING_POLICY_PREFERENCE:
        return CUDA_SUCCESS; /* a hint */
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
}

CU_API(cuFuncGetAttribute, int *value, int attribute, CUfunction func)
{
    return get_attribute(value, attribute, func);
}

CU_API(cuFuncSetAttribute, CUfunction func, int attribute, int value)
{
    return set_attribute(func, attribute, value);
}

/* For the device of the current context alone: a library is loaded where it is used. */
CU_API(cuKernelGetAttribute, int *value, int attribute, CUkernel kernel, CUdevice device)
{
    (void)device;
    return get_attribute(value, attribute, (CUfunction)(void *)kernel);
}

CU_API(cuKernelSetAttribute, int attribute, int value, CUkernel kernel, CUdevice device)
{
    (void)device;
    return set_attribute((CUfunction)(void *)kernel, attribute, value);
}

CU_API(cuFuncSetCacheConfig, CUfunction func, int config)
{
    (void)config; /* a hint */
    struct CUfunc_st *f;
    VGPU_ENTER();
    return vgpu_func_get(func, &f);
}

CU_API(cuFuncSetSharedMemConfig, CUfunction func, int config)
{
    return cuFuncSetCacheConfig(func, config);
}

CU_API(cuFuncGetName, const char **name, CUfunction func)
{
    VGPU_ENTER();
    struct CUfunc_st *f;
    VGPU_TRY(vgpu_func_get(func, &f));
    if (!name)
        return CUDA_ERROR_INVALID_VALUE;
    *name = f->entry->name;
    return CUDA_SUCCESS;
}

CU_API(cuFuncGetModule, CUmodule *module, CUfunction func)
{
    VGPU_ENTER();
    struct CUfunc_st *f;
    VGPU_TRY(vgpu_func_get(func, &f));
    if (!module)
        return CUDA_ERROR_INVALID_VALUE;
    *module = f->module;
    return CUDA_SUCCESS;
}

static CUresult param_info(const struct ptx_entry *e, size_t index, size_t *offset, size_t *size)
{
    if (index >= e->param_count || !offset)
        return CUDA_ERROR_INVALID_VALUE;
    *offset = e->params[index].offset;
    if (size)
        *size = e->params[index].size;
    return CUDA_SUCCESS;
}

CU_API(cuFuncGetParamInfo, CUfunction func, size_t index, size_t *offset, size_t *size)
{
    VGPU_ENTER();
    struct CUfunc_st *f;
    VGPU_TRY(vgpu_func_get(func, &f));
    return param_info(f->entry, index, offset, size);
}

CU_API(cuKernelGetParamInfo, CUkernel kernel, size_t index, size_t *offset, size_t *size)
{
    VGPU_ENTER();
    if (!vgpu_handle_is(kernel, VGPU_H_KERNEL))
        return CUDA_ERROR_INVALID_HANDLE;
    return param_info(&kernel->library->program->ptx->entries[kernel->entry], index, offset, size);
}

CU_API(cuFuncIsLoaded, int *state, CUfunction func)
{
    VGPU_ENTER();
    struct CUfunc_st *f;
    VGPU_TRY(vgpu_func_get(func, &f));
    if (!state)
        return CUDA_ERROR_INVALID_VALUE;
    *state = 1;
    return CUDA_SUCCESS;
}

CU_API(cuFuncLoad, CUfunction func)
{
    VGPU_ENTER();
    struct CUfunc_st *f;
    return vgpu_func_get(func, &f);
}

CU_API(cuKernelGetFunction, CUfunction *ret, CUkernel kernel)
{
    VGPU_ENTER();
    if (!vgpu_handle_is(kernel, VGPU_H_KERNEL))
        return CUDA_ERROR_INVALID_HANDLE;
    return ret ? vgpu_func_get((CUfunction)(void *)kernel, ret) : CUDA_ERROR_INVALID_VALUE;
}

CU_API(cuKernelGetName, const char **name, CUkernel kernel)
{
    VGPU_ENTER();
    if (!vgpu_handle_is(kernel, VGPU_H_KERNEL))
        return CUDA_ERROR_INVALID_HANDLE;
    if (!name)
        return CUDA_ERROR_INVALID_VALUE;
    *name = kernel->library->program->ptx->entries[kernel->entry].name;
    return CUDA_SUCCESS;
}

CU_API(cuKernelGetLibrary, CUlibrary *library, CUkernel kernel)
{
    VGPU_ENTER();
    if (!vgpu_handle_is(kernel, VGPU_H_KERNEL))
        return CUDA_ERROR_INVALID_HANDLE;
    if (!library)
        return CUDA_ERROR_INVALID_VALUE;
    *library = kernel->library;
    return CUDA_SUCCESS;
}

/* Blocks that an SM holds at once: threads, registers (in units of 256 a warp), shared memory (1 KiB a block is the
 * system's), block slots. */
int vgpu_occupancy(const struct CUfunc_st *f, int threads, size_t dynamic_shared)
{
    const struct vgpu_card *card = card_of(f);
    const int *a = card->attributes;
    int warps = (threads + 31) / 32;
    int blocks = a[106] > 0 ? a[106] : 32; /* CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR */
    int max_warps = a[CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR] / 32;
    blocks = LITHOS_MIN(blocks, max_warps / warps);
    int registers = (int)((f->entry->registers * 32 + 255) / 256 * 256) * warps;
    blocks = LITHOS_MIN(blocks, a[CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR] / registers);
    size_t reserved =
        a[111] > 0 ? (size_t)a[111] : 1024; /* CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK */
    size_t shared = (f->entry->shared_bytes + dynamic_shared + 127) / 128 * 128 + reserved;
    size_t fit = (size_t)a[CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR] / shared;
    return fit < (size_t)blocks ? (int)fit : blocks;
}

CU_API(cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags, int *blocks, CUfunction func, int threads,
       size_t dynamic_shared, unsigned int flags)
{
    VGPU_ENTER();
    struct CUfunc_st *f;
    VGPU_TRY(vgpu_func_get(func, &f));
    if (!blocks || threads <= 0 || flags > 1)
        return CUDA_ERROR_INVALID_VALUE;
    int most;
    vgpu_func_attribute(f, MAX_THREADS_PER_BLOCK, &most);
    *blocks = threads > most ? 0 : vgpu_occupancy(f, threads, dynamic_shared);
    return CUDA_SUCCESS;
}

CU_API(cuOccupancyMaxActiveBlocksPerMultiprocessor, int *blocks, CUfunction func, int threads,
       size_t dynamic_shared)
{
    return cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, func, threads, dynamic_shared, 0);
}
