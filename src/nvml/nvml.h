/* NVML, loaded at run time: libnvidia-ml.so.1, or the one that LITHOS_LIBNVML names. */
#pragma once

#include <stddef.h>

#include "nvml/nvml_abi.h"

#define LITHOS_NVML_ERROR_BYTES 256u
#define LITHOS_NVML_CLOCKS_MAX 512u

struct lithos_nvml {
    void *library;
#define NVML(member, symbol, parameters) nvmlReturn_t(*member) parameters;
#include "nvml/functions.def"
#undef NVML
};

/* Load it and nvmlInit_v2. 0; -ENOENT (not there, or lacks a function: error says which), -EIO (it does not start). */
int lithos_nvml_open(struct lithos_nvml *ret_nvml, char error[LITHOS_NVML_ERROR_BYTES]);
/* nvmlShutdown; the library stays loaded: NVIDIA's does not bear to be unloaded in every version. */
void lithos_nvml_close(struct lithos_nvml *nvml);
/* A result as negative errno: -EACCES (no rights), -EOPNOTSUPP, -ENODEV (the GPU is lost), -EINVAL, -ETIMEDOUT, -EIO; 0. */
int lithos_nvml_errno(nvmlReturn_t result);
/* The card with these 16 bytes, which NVML writes "GPU-xxxxxxxx-xxxx-...". 0, or negative errno. */
int lithos_nvml_by_uuid(const struct lithos_nvml *nvml, const unsigned char uuid[16],
                        nvmlDevice_t *ret_device);
/* SM clocks that it takes at its highest memory clock, highest first. 0, or negative errno. */
int lithos_nvml_clocks(const struct lithos_nvml *nvml, nvmlDevice_t device,
                       unsigned int mhz[LITHOS_NVML_CLOCKS_MAX], unsigned int *ret_count);
