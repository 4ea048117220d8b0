#include "nvml/nvml.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

static int load(struct lithos_nvml *n, char *error)
{
    static const char *const names[] = {
#define NVML(member, symbol, parameters) #symbol,
#include "nvml/functions.def"
#undef NVML
    };
    const char *path = getenv("LITHOS_LIBNVML");
    void **members = (void **)((char *)n + offsetof(struct lithos_nvml, init));

    path = path && *path ? path : "libnvidia-ml.so.1";
    n->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!n->library) {
        snprintf(error, LITHOS_NVML_ERROR_BYTES, "%.200s", dlerror());
        return -ENOENT;
    }
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(names); i++) {
        members[i] = dlsym(n->library, names[i]);
        if (!members[i]) {
            snprintf(error, LITHOS_NVML_ERROR_BYTES, "%.150s has no %s", path, names[i]);
            return -ENOENT;
        }
    }
    return 0;
}

int lithos_nvml_open(struct lithos_nvml *ret_nvml, char error[LITHOS_NVML_ERROR_BYTES])
{
    struct lithos_nvml n = {0};
    int r = load(&n, error);

    if (r < 0)
        return r;
    const nvmlReturn_t result = n.init();
    if (result != NVML_SUCCESS) {
        snprintf(error, LITHOS_NVML_ERROR_BYTES, "nvmlInit_v2 returned %d", result);
        return -EIO;
    }
    *ret_nvml = n;
    return 0;
}

void lithos_nvml_close(struct lithos_nvml *nvml)
{
    if (nvml->library)
        nvml->shutdown();
    *nvml = (struct lithos_nvml){0};
}

int lithos_nvml_errno(nvmlReturn_t result)
{
    switch (result) {
    case NVML_SUCCESS:
        return 0;
    case NVML_ERROR_NO_PERMISSION:
        return -EACCES;
    case NVML_ERROR_NOT_SUPPORTED:
        return -EOPNOTSUPP;
    case NVML_ERROR_GPU_IS_LOST:
    case NVML_ERROR_NOT_FOUND:
        return -ENODEV;
    case NVML_ERROR_INVALID_ARGUMENT:
    case NVML_ERROR_INSUFFICIENT_SIZE:
        return -EINVAL;
    case NVML_ERROR_TIMEOUT:
        return -ETIMEDOUT;
    default:
        return -EIO;
    }
}

int lithos_nvml_by_uuid(const struct lithos_nvml *nvml, const unsigned char uuid[16],
                        nvmlDevice_t *ret_device)
{
    char text[NVML_DEVICE_UUID_BYTES] = "GPU-";
    size_t at = 4;

    for (unsigned i = 0; i < 16; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%02x",
                               i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
    return lithos_nvml_errno(nvml->by_uuid(text, ret_device));
}

int lithos_nvml_clocks(const struct lithos_nvml *nvml, nvmlDevice_t device,
                       unsigned int mhz[LITHOS_NVML_CLOCKS_MAX], unsigned int *ret_count)
{
    unsigned int memory[64], count = LITHOS_ARRAY_SIZE(memory), n = LITHOS_NVML_CLOCKS_MAX;
    nvmlReturn_t r = nvml->memory_clocks(device, &count, memory);

    if (r == NVML_SUCCESS && !count)
        return -EOPNOTSUPP;
    for (unsigned int i = 1; r == NVML_SUCCESS && i < count; i++)
        memory[0] = LITHOS_MAX(memory[0], memory[i]);
    if (r == NVML_SUCCESS)
        r = nvml->graphics_clocks(device, memory[0], &n, mhz);
    if (r == NVML_SUCCESS)
        *ret_count = n;
    return lithos_nvml_errno(r);
}
