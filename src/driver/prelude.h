/* The prelude's module, made by the driver of this process for the current context. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "cuda/cuda_abi.h"
#include "hw/prelude.h"

/* The driver's functions that it takes: X(member, exported name, parameters). */
#define LITHOS_PRELUDE_CUDA(X)                                                    \
    X(link_create, cuLinkCreate_v2, (unsigned, int *, void **, CUlinkState *))    \
    X(link_add, cuLinkAddData_v2,                                                 \
      (CUlinkState, int, void *, size_t, const char *, unsigned, int *, void **)) \
    X(link_complete, cuLinkComplete, (CUlinkState, void **, size_t *))            \
    X(link_destroy, cuLinkDestroy, (CUlinkState))                                 \
    X(module_load, cuModuleLoadData, (CUmodule *, const void *))                  \
    X(module_unload, cuModuleUnload, (CUmodule))                                  \
    X(module_function, cuModuleGetFunction, (CUfunction *, CUmodule, const char *))

struct lithos_prelude_cuda {
#define X(member, name, parameters) CUresult(*member) parameters;
    LITHOS_PRELUDE_CUDA(X)
#undef X
};

/* Bytes that the kernel of the module must be given the address of, though it never writes there. */
#define LITHOS_PRELUDE_SCRATCH_BYTES (32u * 256u)

/* Have the driver compile, put the prelude in, load it, check it. The address of the code is found by launching the kernel once
 * (one thread, one parameter: the address of the scratch bytes) with an entry in bank 6 that nothing survives, and reading its
 * queue descriptor. 0; negative errno with the reason in why. The module ends with its context or by cuModuleUnload. */
int lithos_prelude_load(const struct lithos_prelude_cuda *cu, const struct lithos_prelude_row *row,
                        CUmodule *ret_module, CUfunction *ret_kernel, char *why, size_t why_bytes);
