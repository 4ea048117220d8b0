#include "driver/together.h"

#include "base/util.h"
#include "driver/exports.h"

typedef CUresult (*occupancy_fn)(int *, CUfunction, int, size_t);

uint32_t lithos_together_sms(const struct lithos_launch *l)
{
    int per_sm = 0;
    uint64_t blocks = (uint64_t)l->grid[0] * l->grid[1];
    uint64_t threads = (uint64_t)l->block[0] * l->block[1] * l->block[2];
    if (blocks > UINT32_MAX || !l->grid[2] || blocks * l->grid[2] > UINT32_MAX || threads > INT32_MAX ||
        LITHOS_REAL(occupancy_fn, cuOccupancyMaxActiveBlocksPerMultiprocessor)(
            &per_sm, l->function, (int)threads, l->shared_bytes) != CUDA_SUCCESS ||
        per_sm < 1)
        return UINT32_MAX;
    return (uint32_t)((blocks * l->grid[2] + (uint64_t)per_sm - 1) / (uint64_t)per_sm);
}
