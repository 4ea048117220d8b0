/* NVML's binary interface, as far as it is used here: names and values are NVIDIA's (nvml.h, API version 12), declared anew
 * so that nothing of the toolkit is needed to build. */
#pragma once

#include <stdint.h>

typedef int nvmlReturn_t;
typedef struct nvmlDevice_st *nvmlDevice_t;

enum {
    NVML_SUCCESS = 0,
    NVML_ERROR_UNINITIALIZED = 1,
    NVML_ERROR_INVALID_ARGUMENT = 2,
    NVML_ERROR_NOT_SUPPORTED = 3,
    NVML_ERROR_NO_PERMISSION = 4,
    NVML_ERROR_NOT_FOUND = 6,
    NVML_ERROR_INSUFFICIENT_SIZE = 7,
    NVML_ERROR_DRIVER_NOT_LOADED = 9,
    NVML_ERROR_TIMEOUT = 10,
    NVML_ERROR_GPU_IS_LOST = 15,
    NVML_ERROR_UNKNOWN = 999,
};

enum { NVML_CLOCK_GRAPHICS = 0, NVML_CLOCK_SM = 1, NVML_CLOCK_MEM = 2, NVML_CLOCK_VIDEO = 3 };
enum { NVML_CLOCK_ID_CURRENT = 0, NVML_CLOCK_ID_APP_CLOCK_TARGET = 1, NVML_CLOCK_ID_APP_CLOCK_DEFAULT = 2 };
/* of nvmlDeviceSetGpuLockedClocks, in place of a clock */
enum { NVML_CLOCK_LIMIT_ID_TDP = (int)0xffffff01, NVML_CLOCK_LIMIT_ID_UNLIMITED = (int)0xffffff02 };
/* nvmlDeviceGetCurrentClocksEventReasons */
#define NVML_CLOCKS_REASON_IDLE 0x1ull
#define NVML_CLOCKS_REASON_APPLICATIONS 0x2ull

#define NVML_DEVICE_NAME_BYTES 96u
#define NVML_DEVICE_UUID_BYTES 96u

typedef struct {
    unsigned int gpu, memory; /* percent of the last period in which something ran, or memory was accessed */
} nvmlUtilization_t;

typedef struct {
    unsigned long long total, free, used; /* bytes */
} nvmlMemory_t;
