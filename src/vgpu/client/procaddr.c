/* cuGetProcAddress: the newest variant of a function that is not newer than the CUDA version asked for. */
#include <stdio.h>
#include <string.h>

#include "vgpu/client/client.h"
#include "vgpu/client/exports.h"

#define VARIANTS 5
#define NAME_BYTES 128

/* The variant `suffix` ("", "_ptsz", "_ptds") of a function that fits; false when there is none. *ret_known: the
 * function exists, though only newer. */
static bool newest(const char *symbol, int version, const char *suffix, void **ret_fn, bool *ret_known)
{
    for (int v = VARIANTS; v >= 1; v--) {
        char name[NAME_BYTES];
        int n = v == 1 ? snprintf(name, sizeof name, "%s%s", symbol, suffix)
                       : snprintf(name, sizeof name, "%s_v%d%s", symbol, v, suffix);
        struct vgpu_export e;
        if (n >= (int)sizeof name || vgpu_export_find(name, &e))
            continue;
        *ret_known = true;
        if (e.version <= version) {
            *ret_fn = e.fn;
            return true;
        }
    }
    return false;
}

static CUresult find(const char *symbol, int version, unsigned long long flags, void **ret_fn,
                     int *ret_status)
{
    bool known = false;
    bool found = false;
    if (flags & CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM)
        found = newest(symbol, version, "_ptsz", ret_fn, &known) ||
                newest(symbol, version, "_ptds", ret_fn, &known);
    found = found || newest(symbol, version, "", ret_fn, &known);
    if (ret_status)
        *ret_status = found   ? CU_GET_PROC_ADDRESS_SUCCESS
                      : known ? CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT
                              : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    return found ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

CU_API(cuGetProcAddress_v2, const char *symbol, void **fn, int version, unsigned long long flags, int *status)
{
    if (!symbol || !*symbol || !fn || flags > 2)
        return CUDA_ERROR_INVALID_VALUE;
    *fn = NULL;
    return find(symbol, version, flags, fn, status);
}

CU_API(cuGetProcAddress_v2_ptsz, const char *symbol, void **fn, int version, unsigned long long flags,
       int *status)
{
    if (!flags)
        flags = CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM;
    return cuGetProcAddress_v2(symbol, fn, version, flags, status);
}

CU_API(cuGetProcAddress, const char *symbol, void **fn, int version, unsigned long long flags)
{
    return cuGetProcAddress_v2(symbol, fn, version, flags, NULL);
}
