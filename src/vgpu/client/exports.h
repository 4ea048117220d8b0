/* The names this library exports (cuda/exports.def). */
#pragma once

#include <stdbool.h>

enum vgpu_export_index {
#define EXPORT(name) VGPU_FN_##name,
#include "cuda/exports.def"
#undef EXPORT
    VGPU_FN_MAX,
};

struct vgpu_export {
    void *fn;
    int version;      /* the CUDA version that brought it, 0 = not known */
    bool implemented; /* false: answers NOT_SUPPORTED */
};

/* 0, or -1 for a name that is not exported. */
int vgpu_export_find(const char *name, struct vgpu_export *ret_export);
