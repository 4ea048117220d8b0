/* The export table through which a subscriber sees each QMD before it goes to the card (docs/hardware.md, "Seeing
 * every launch"), and cuGetExportTable. */
#include <string.h>

#include "vgpu/client/client.h"

static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static uint32_t subscriptions;
static lithos_qmd_callback callback; /* of the first subscription: later ones never fire, as on a card */
static void *callback_user;
static atomic_bool enabled;

static int subscribe(uint32_t *ret_handle, lithos_qmd_callback fn, void *user)
{
    if (!ret_handle || !fn)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&guard);
    if (subscriptions++ == 0) {
        callback = fn;
        callback_user = user;
    }
    *ret_handle = subscriptions;
    pthread_mutex_unlock(&guard);
    return CUDA_SUCCESS;
}

static int enable(uint32_t on, uint32_t handle, int domain, int id)
{
    pthread_mutex_lock(&guard);
    bool known = handle && handle <= subscriptions;
    if (known && handle == 1 && domain == LITHOS_QMD_DOMAIN && id == LITHOS_QMD_CALLBACK_ID)
        atomic_store_explicit(&enabled, on != 0, memory_order_release);
    pthread_mutex_unlock(&guard);
    return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static int no_entry(void)
{
    return CUDA_ERROR_NOT_SUPPORTED;
}

/* Entry 0 is the table's size in bytes, as in the driver's tables. */
static const void *const table[] = {
    [0] = (const void *)(sizeof(void *) * 8),
    [1] = (const void *)no_entry,
    [2] = (const void *)no_entry,
    [LITHOS_QMD_TABLE_SUBSCRIBE] = (const void *)subscribe,
    [4] = (const void *)no_entry,
    [5] = (const void *)no_entry,
    [LITHOS_QMD_TABLE_ENABLE] = (const void *)enable,
    [7] = (const void *)no_entry,
};

bool vgpu_qmd_enabled(void)
{
    return atomic_load_explicit(&enabled, memory_order_acquire);
}

void vgpu_qmd_fire(void *qmd, struct CUctx_st *ctx, struct CUfunc_st *func)
{
    /* Handles that the app never had. */
    static struct CUmod_st own_module;
    static struct CUfunc_st own_func = {.module = &own_module};
    if (!vgpu_qmd_enabled())
        return;
    uint64_t params[LITHOS_QMD_PARAMS_BYTES / sizeof(uint64_t)] = {LITHOS_QMD_PARAMS_BYTES};
    params[LITHOS_QMD_PARAMS_CONTEXT] = (uint64_t)(uintptr_t)ctx;
    params[LITHOS_QMD_PARAMS_MODULE] = (uintptr_t)(func ? func->module : &own_module);
    params[LITHOS_QMD_PARAMS_FUNCTION] = (uintptr_t)(func ? func : &own_func);
    params[LITHOS_QMD_PARAMS_QMD] = (uint64_t)(uintptr_t)qmd;
    callback(callback_user, LITHOS_QMD_DOMAIN, LITHOS_QMD_CALLBACK_ID, params);
}

CU_API(cuGetExportTable, const void **ret, const CUuuid *id)
{
    static const CUuuid qmd = LITHOS_QMD_TABLE_UUID;
    if (!ret || !id)
        return CUDA_ERROR_INVALID_VALUE;
    *ret = NULL;
    if (memcmp(id, &qmd, sizeof qmd))
        return CUDA_ERROR_INVALID_VALUE; /* what the driver says of a table it does not have */
    *ret = table;
    return CUDA_SUCCESS;
}

CU_API(cuGreenCtxCreate, CUgreenCtx *ret, void *desc, CUdevice device, unsigned int flags)
{
    (void)ret;
    (void)desc;
    (void)device;
    (void)flags;
    VGPU_ENTER();
    lithos_log_once(LITHOS_LOG_WARNING, "virtual GPU: cuGreenCtxCreate %s",
                    vgpu_qmd_enabled() ? "fails while the QMD hook is on, as on a card"
                                       : "is not implemented");
    return CUDA_ERROR_NOT_SUPPORTED;
}
