/* Every name of cuda/exports.def, so that a program that looks one up finds it. What no other file here defines
 * answers CUDA_ERROR_NOT_SUPPORTED and says so once: the definitions below are weak, and give way at link time. */
#include <stdatomic.h>
#include <string.h>

#include "vgpu/client/client.h"
#include "vgpu/client/exports.h"

/* Tells tools that this libcuda is the virtual one. */
LITHOS_EXPORT const char lithos_vgpu_version[] = "1";

static CUresult not_implemented(atomic_flag *said, const char *name)
{
    if (!atomic_flag_test_and_set_explicit(said, memory_order_relaxed))
        lithos_warning("virtual GPU: %s is not implemented", name);
    return CUDA_ERROR_NOT_SUPPORTED;
}

#define EXPORT(name)                                \
    static CUresult default_##name(void)            \
    {                                               \
        static atomic_flag said = ATOMIC_FLAG_INIT; \
        return not_implemented(&said, #name);       \
    }                                               \
    LITHOS_EXPORT CUresult name(void) __attribute__((weak, alias("default_" #name)));
#include "cuda/exports.def"
#undef EXPORT

static const int versions[] = {
#define VERSION(name, version) [VGPU_FN_##name] = version,
#include "vgpu/client/versions.def"
#undef VERSION
};

static const struct {
    const char *name;
    CUresult (*fn)(void), (*fallback)(void);
} table[] = {
#define EXPORT(name) {#name, name, default_##name},
#include "cuda/exports.def"
#undef EXPORT
};

int vgpu_export_find(const char *name, struct vgpu_export *ret_export)
{
    size_t lo = 0, hi = LITHOS_ARRAY_SIZE(table);
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int order = strcmp(name, table[mid].name);
        if (order == 0) {
            *ret_export = (struct vgpu_export){
                .fn = (void *)table[mid].fn,
                .version = mid < LITHOS_ARRAY_SIZE(versions) ? versions[mid] : 0,
                .implemented = table[mid].fn != table[mid].fallback,
            };
            return 0;
        }
        if (order < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return -1;
}
