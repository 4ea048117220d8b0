/* What programs are told of the card: no more SMs than their quota has, where the client says so. Libraries size persistent kernels by
 * that number, and some let the blocks of such a kernel wait for each other: sized by the whole card and held to a part of it, those
 * would wait for ever. Our own code asks the real driver. */
#include "driver/hooks.h"
#include "driver/qmd_hook.h"

/* Called from exports.S alone, under the names that hooks.def gives. */
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#define HIDDEN __attribute__((visibility("hidden")))

/* SMs to tell of a device instead of `sms`. */
static int told(const struct lithos_hook_device *device, int sms)
{
    int most = (int)atomic_load_explicit(&device->told_sms, memory_order_relaxed);
    return most && most < sms ? most : sms;
}

typedef CUresult (*attribute_fn)(int *, int, CUdevice);

HIDDEN CUresult lithos_hook_cuDeviceGetAttribute(int *ret_value, int attribute, CUdevice device)
{
    attribute_fn real = LITHOS_REAL(attribute_fn, cuDeviceGetAttribute);
    LITHOS_HOOK_CALLED(cuDeviceGetAttribute);
    if (__builtin_expect(attribute != CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 1) || !lithos_hook_active())
        return real(ret_value, attribute, device);
    CUresult result = real(ret_value, attribute, device);
    if (result != CUDA_SUCCESS)
        return result;
    lithos_hook_follow();
    const struct lithos_hook_device *devices;
    int count = lithos_hook_devices(&devices);
    for (int i = 0; i < count; i++)
        if (devices[i].handle == device)
            *ret_value = told(&devices[i], *ret_value);
    return result;
}

/* The driver gives blocks an SM, times its SMs. */
static CUresult scale_grid(CUresult result, int *grid)
{
    if (result != CUDA_SUCCESS || !grid || !lithos_hook_active())
        return result;
    lithos_hook_follow();
    const struct lithos_hook_device *devices;
    int count = lithos_hook_devices(&devices);
    int32_t at = atomic_load_explicit(&lithos_hook_only_device, memory_order_acquire);
    if (at < 0)
        at = lithos_hook_current_device();
    if (at < 0 || at >= count || devices[at].sm_count <= 0 || *grid % devices[at].sm_count)
        return result; /* another sum than we know */
    *grid = *grid / devices[at].sm_count * told(&devices[at], devices[at].sm_count);
    return result;
}

typedef CUresult (*block_size_fn)(int *, int *, CUfunction, void *, size_t, int);
typedef CUresult (*block_size_flags_fn)(int *, int *, CUfunction, void *, size_t, int, unsigned);

HIDDEN CUresult lithos_hook_cuOccupancyMaxPotentialBlockSize(int *ret_grid, int *ret_block, CUfunction f,
                                                             void *shared_of_block, size_t shared_bytes,
                                                             int limit)
{
    LITHOS_HOOK_CALLED(cuOccupancyMaxPotentialBlockSize);
    CUresult result = LITHOS_REAL(block_size_fn, cuOccupancyMaxPotentialBlockSize)(
        ret_grid, ret_block, f, shared_of_block, shared_bytes, limit);
    return scale_grid(result, ret_grid);
}

HIDDEN CUresult lithos_hook_cuOccupancyMaxPotentialBlockSizeWithFlags(int *ret_grid, int *ret_block,
                                                                      CUfunction f, void *shared_of_block,
                                                                      size_t shared_bytes, int limit,
                                                                      unsigned flags)
{
    LITHOS_HOOK_CALLED(cuOccupancyMaxPotentialBlockSizeWithFlags);
    CUresult result = LITHOS_REAL(block_size_flags_fn, cuOccupancyMaxPotentialBlockSizeWithFlags)(
        ret_grid, ret_block, f, shared_of_block, shared_bytes, limit, flags);
    return scale_grid(result, ret_grid);
}
