/* The facts of cuda.h that test_cuda_abi.c compares. The lists of cuda_abi.h are read as text (cuda_abi_lists.h, cut out
 * of it when configured), because the two headers cannot meet in one file. */
#include <stddef.h>

#include <cuda.h>

#include "cuda_abi_lists.h"

extern const long long cuda_h_numbers[];
extern const size_t cuda_h_layout[], cuda_h_layout_count;

const long long cuda_h_numbers[] = {
#define X(name, value) name,
    CUDA_RESULTS(X) CUDA_CONSTANTS(X)
#undef X
};

const size_t cuda_h_layout[] = {
#include "stub/cuda_layout.def"
};
const size_t cuda_h_layout_count = sizeof cuda_h_layout / sizeof cuda_h_layout[0];
