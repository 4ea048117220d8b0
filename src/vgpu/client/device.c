/* Devices: what the server said of its cards. */
#include <stdio.h>
#include <string.h>

#include "vgpu/client/client.h"
#include "vgpu/client/visible.h"

#define VGPU_DEVICE(dev, ordinal)                                  \
    VGPU_ENTER();                                                  \
    if ((ordinal) < 0 || (unsigned)(ordinal) >= vgpu.device_count) \
        return CUDA_ERROR_INVALID_DEVICE;                          \
    const struct vgpu_device *dev = &vgpu.devices[ordinal]

CU_API(cuDeviceGetCount, int *count)
{
    VGPU_ENTER();
    if (!count)
        return CUDA_ERROR_INVALID_VALUE;
    *count = (int)vgpu.device_count;
    return CUDA_SUCCESS;
}

CU_API(cuDeviceGet, CUdevice *device, int ordinal)
{
    VGPU_ENTER();
    if (!device)
        return CUDA_ERROR_INVALID_VALUE;
    if (ordinal < 0 || (unsigned)ordinal >= vgpu.device_count)
        return CUDA_ERROR_INVALID_DEVICE;
    *device = ordinal;
    return CUDA_SUCCESS;
}

CU_API(cuDeviceGetName, char *name, int len, CUdevice device)
{
    VGPU_DEVICE(d, device);
    if (!name || len <= 0)
        return CUDA_ERROR_INVALID_VALUE;
    snprintf(name, (size_t)len, "%s", d->card.name);
    return CUDA_SUCCESS;
}

CU_API(cuDeviceGetUuid, CUuuid *uuid, CUdevice device)
{
    VGPU_DEVICE(d, device);
    if (!uuid)
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(uuid->bytes, d->card.uuid, sizeof uuid->bytes);
    return CUDA_SUCCESS;
}

CU_API(cuDeviceGetUuid_v2, CUuuid *uuid, CUdevice device)
{
    return cuDeviceGetUuid(uuid, device);
}

CU_API(cuDeviceTotalMem_v2, size_t *bytes, CUdevice device)
{
    VGPU_DEVICE(d, device);
    if (!bytes)
        return CUDA_ERROR_INVALID_VALUE;
    *bytes = d->card.total_mem;
    return CUDA_SUCCESS;
}

CU_API(cuDeviceTotalMem, unsigned int *bytes, CUdevice device)
{
    VGPU_DEVICE(d, device);
    if (!bytes)
        return CUDA_ERROR_INVALID_VALUE;
    *bytes = (unsigned)LITHOS_MIN(d->card.total_mem, (uint64_t)UINT32_MAX);
    return CUDA_SUCCESS;
}

CU_API(cuDeviceGetAttribute, int *value, int attribute, CUdevice device)
{
    VGPU_DEVICE(d, device);
    if (!value || attribute <= 0 || (unsigned)attribute >= VGPU_ATTRIBUTES)
        return CUDA_ERROR_INVALID_VALUE;
    *value = d->card.attributes[attribute];
    if (attribute == CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
        *value = d->sm_count;
    else if (attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)
        *value = d->card.cc_major;
    else if (attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)
        *value = d->card.cc_minor;
    return CUDA_SUCCESS;
}

CU_API(cuDeviceComputeCapability, int *major, int *minor, CUdevice device)
{
    VGPU_DEVICE(d, device);
    if (!major || !minor)
        return CUDA_ERROR_INVALID_VALUE;
    *major = d->card.cc_major;
    *minor = d->card.cc_minor;
    return CUDA_SUCCESS;
}

/* No bus: domain ffff, the card's index as the bus number. */
CU_API(cuDeviceGetPCIBusId, char *id, int len, CUdevice device)
{
    VGPU_DEVICE(d, device);
    if (!id || len < 13)
        return CUDA_ERROR_INVALID_VALUE;
    snprintf(id, (size_t)len, "FFFF:%02X:00.0", d->card.index + 1);
    return CUDA_SUCCESS;
}

CU_API(cuDeviceGetByPCIBusId, CUdevice *device, const char *id)
{
    VGPU_ENTER();
    unsigned domain, bus, slot, function = 0;
    if (!device || !id || sscanf(id, "%x:%x:%x.%x", &domain, &bus, &slot, &function) < 3)
        return CUDA_ERROR_INVALID_VALUE;
    for (unsigned i = 0; i < vgpu.device_count; i++)
        if (domain == 0xffff && slot == 0 && vgpu.devices[i].card.index + 1 == bus) {
            *device = (CUdevice)i;
            return CUDA_SUCCESS;
        }
    return CUDA_ERROR_INVALID_DEVICE;
}

CU_API(cuDeviceCanAccessPeer, int *can, CUdevice device, CUdevice peer)
{
    VGPU_DEVICE(d, device);
    (void)d;
    if (!can || peer < 0 || (unsigned)peer >= vgpu.device_count)
        return CUDA_ERROR_INVALID_DEVICE;
    *can = 0;
    return CUDA_SUCCESS;
}
