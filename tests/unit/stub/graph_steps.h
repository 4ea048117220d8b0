/* Kernels for graphs whose order shows in what they leave: each adds a digit to a number on the card. */
#pragma once

#include <stdint.h>

#include "base/util.h"
#include "cuda/cuda_abi.h"

#define PTX_BEGIN ".version 7.0\n.target sm_52\n.address_size 64\n"
/* step(out, k): a digit more. */
#define PTX_STEP                                                                 \
    ".visible .entry step(.param .u64 p_out, .param .u64 p_k)\n{\n"              \
    ".reg .b64 %rd<6>;\nld.param.u64 %rd1, [p_out]; ld.param.u64 %rd2, [p_k];\n" \
    "ld.global.u64 %rd3, [%rd1];\nmul.lo.s64 %rd4, %rd3, 10;\n"                  \
    "add.s64 %rd5, %rd4, %rd2;\nst.global.u64 [%rd1], %rd5;\nret;\n}\n"

/* A kernel node of `blocks` blocks, each of which does f(*out, k); its arguments live until the next call but sixteen. */
static inline CUDA_KERNEL_NODE_PARAMS_v2 step_node(CUfunction f, CUdeviceptr *out, unsigned blocks,
                                                   uint64_t k)
{
    static struct {
        uint64_t k;
        void *pointers[2];
    } arguments[16];
    static unsigned turn;
    unsigned i = turn++ % LITHOS_ARRAY_SIZE(arguments);
    arguments[i].k = k;
    arguments[i].pointers[0] = out;
    arguments[i].pointers[1] = &arguments[i].k;
    return (CUDA_KERNEL_NODE_PARAMS_v2){.func = f,
                                        .gridDimX = blocks,
                                        .gridDimY = 1,
                                        .gridDimZ = 1,
                                        .blockDimX = 1,
                                        .blockDimY = 1,
                                        .blockDimZ = 1,
                                        .kernelParams = arguments[i].pointers};
}
