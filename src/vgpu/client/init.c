/* cuInit, and what holds before and after it. */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vgpu/client/client.h"
#include "vgpu/client/visible.h"

struct vgpu_client vgpu = {
    .issue = PTHREAD_MUTEX_INITIALIZER,
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .changed = PTHREAD_COND_INITIALIZER,
    .fd = -1,
    .mps_fd = -1,
};

static pthread_mutex_t init_lock = PTHREAD_MUTEX_INITIALIZER;

uint64_t vgpu_next_id(void)
{
    return atomic_fetch_add_explicit(&vgpu.next_id, 1, memory_order_relaxed) + 1;
}

CUresult vgpu_ready(void)
{
    if (!atomic_load_explicit(&vgpu.initialised, memory_order_acquire))
        return CUDA_ERROR_NOT_INITIALIZED;
    return CUDA_SUCCESS;
}

/* A child of fork has no reader thread, and must not keep the connection alive after its parent's death. */
static void in_child(void)
{
    if (!atomic_load(&vgpu.initialised))
        return;
    atomic_store(&vgpu.forked, true);
    atomic_store(&vgpu.initialised, false);
    close(vgpu.fd);
    if (vgpu.mps_fd >= 0)
        close(vgpu.mps_fd);
}

static void inject(void)
{
    const char *path = getenv("CUDA_INJECTION64_PATH");
    if (!path || !*path)
        return;
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!lib) {
        lithos_warning("virtual GPU: CUDA_INJECTION64_PATH: %s", dlerror());
        return;
    }
    int (*fn)(void) = (int (*)(void))dlsym(lib, "InitializeInjection");
    if (fn)
        fn();
    else
        lithos_warning("virtual GPU: CUDA_INJECTION64_PATH: %s has no InitializeInjection", path);
}

static CUresult init_once(void)
{
    const char *path = getenv("LITHOS_VGPU_SOCKET");
    if (!path || !*path) {
        lithos_log_once(LITHOS_LOG_ERROR, "virtual GPU: LITHOS_VGPU_SOCKET is not set: run the program under "
                                          "`lithos-vgpud --card h200 -- …`");
        return CUDA_ERROR_NO_DEVICE;
    }
    CUresult r = vgpu_link_open(path);
    if (r)
        return r;
    vgpu.device_count = vgpu_visible(getenv("CUDA_VISIBLE_DEVICES"), vgpu.devices, vgpu.device_count);
    pthread_atfork(NULL, NULL, in_child);
    return CUDA_SUCCESS;
}

CU_API(cuInit, unsigned int flags)
{
    if (flags)
        return CUDA_ERROR_INVALID_VALUE;
    if (atomic_load(&vgpu.forked))
        return CUDA_ERROR_NOT_INITIALIZED;
    pthread_mutex_lock(&init_lock);
    CUresult r = CUDA_SUCCESS;
    bool first = !atomic_load(&vgpu.initialised);
    if (first) {
        r = init_once();
        if (r == CUDA_SUCCESS)
            atomic_store_explicit(&vgpu.initialised, true, memory_order_release);
    }
    pthread_mutex_unlock(&init_lock);
    if (r)
        return r;
    if (first)
        inject(); /* it may call back into this library */
    return vgpu.device_count ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}

CU_API(cuDriverGetVersion, int *version)
{
    if (!version)
        return CUDA_ERROR_INVALID_VALUE;
    *version = vgpu_ready() ? 13000 : vgpu.driver_version;
    return CUDA_SUCCESS;
}

static const struct {
    CUresult result;
    const char *name, *text;
} results[] = {
#define RESULT(name, value, text) {value, #name, text},
#include "vgpu/client/results.def"
#undef RESULT
};

CU_API(cuGetErrorName, CUresult result, const char **ret)
{
    if (!ret)
        return CUDA_ERROR_INVALID_VALUE;
    *ret = NULL;
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(results); i++)
        if (results[i].result == result)
            *ret = results[i].name;
    return *ret ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CU_API(cuGetErrorString, CUresult result, const char **ret)
{
    if (!ret)
        return CUDA_ERROR_INVALID_VALUE;
    *ret = NULL;
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(results); i++)
        if (results[i].result == result)
            *ret = results[i].text;
    return *ret ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
