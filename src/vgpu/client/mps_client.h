/* The virtual MPS as a client sees it. */
#pragma once

#include <stdint.h>

#include "cuda/cuda_abi.h"

/* Become a client of the MPS whose control listens in CUDA_MPS_PIPE_DIRECTORY (default /tmp/nvidia-mps). 0 with
 * *ret_fd = -1 when none listens there, as on a card; with the open connection, whose end is the server's end,
 * otherwise. CUDA_ERROR_MPS_CONNECTION_FAILED when it refuses, CUDA_ERROR_MPS_SERVER_NOT_READY when it gives no
 * answer for a minute. */
CUresult vgpu_mps_connect(int *ret_fd, uint64_t *ret_domain);
