/* Which GPUs a tenant is to have: --gpu and CUDA_VISIBLE_DEVICES against the daemon's list. Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "cli/document.h"

/* Indices into the daemon's list. */
struct lithos_gpu_choice {
    unsigned count;
    unsigned gpus[LITHOS_MAX_GPUS];
};

/* CUDA_VISIBLE_DEVICES as the driver reads it: numbers (in the daemon's order) or UUIDs (a beginning that
 * fits one GPU will do), the list ending at the first that names none. 0; -ENODEV when nothing is left, with
 * `why` for people. */
int lithos_gpus_visible(const char *text, const struct lithos_gpu_info *gpus, unsigned count,
                        struct lithos_gpu_choice *ret_visible, char *why, size_t why_size);

/* --gpu: "1", "0,2", UUIDs, "all" (of those visible). 0; -EINVAL with `why`: an entry that names no GPU, one
 * named twice, or one that CUDA_VISIBLE_DEVICES hides. */
int lithos_gpus_choose(const char *text, const struct lithos_gpu_info *gpus, unsigned count,
                       const struct lithos_gpu_choice *visible, struct lithos_gpu_choice *ret_choice,
                       char *why, size_t why_size);
