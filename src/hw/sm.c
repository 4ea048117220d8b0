#include "hw/sm.h"

#include <stddef.h>

#include "base/util.h"

#define WARP 32u
#define SHARED_UNIT 128u

/* CUDA C++ Programming Guide, "Technical Specifications per Compute Capability"; the unit of registers from the occupancy
 * calculator. */
#define SM(thread_count, block_count, shared_kib)                                                          \
    {                                                                                                      \
        .threads = (thread_count), .blocks = (block_count), .registers = 65536, .warp_register_unit = 256, \
        .shared_bytes = (shared_kib) << 10, .block_shared_reserved_bytes = 1024                            \
    }
static const struct {
    int cc[2];
    struct lithos_sm sm;
} sms[] = {
    {{8, 0}, SM(2048, 32, 164)},  {{8, 6}, SM(1536, 16, 100)},  {{8, 7}, SM(1536, 16, 164)},
    {{8, 9}, SM(1536, 24, 100)},  {{9, 0}, SM(2048, 32, 228)},  {{10, 0}, SM(2048, 32, 228)},
    {{10, 3}, SM(2048, 32, 228)}, {{12, 0}, SM(1536, 24, 100)}, {{12, 1}, SM(1536, 24, 100)},
};

const struct lithos_sm *lithos_sm(int cc_major, int cc_minor)
{
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(sms); i++)
        if (sms[i].cc[0] == cc_major && sms[i].cc[1] == cc_minor)
            return &sms[i].sm;
    return NULL;
}

static uint64_t rounded_up(uint64_t n, uint32_t unit)
{
    return (n + unit - 1) / unit * unit;
}

uint32_t lithos_sm_blocks(const struct lithos_sm *sm, uint32_t threads, uint32_t registers,
                          uint32_t shared_bytes)
{
    uint64_t warps = LITHOS_MAX(rounded_up(threads, WARP) / WARP, 1u);
    uint64_t block_registers = warps * rounded_up((uint64_t)registers * WARP, sm->warp_register_unit);
    uint64_t block_shared = rounded_up((uint64_t)shared_bytes + sm->block_shared_reserved_bytes, SHARED_UNIT);
    uint64_t fit = LITHOS_MIN((uint64_t)sm->blocks, sm->threads / (warps * WARP));
    if (block_registers)
        fit = LITHOS_MIN(fit, sm->registers / block_registers);
    if (block_shared)
        fit = LITHOS_MIN(fit, sm->shared_bytes / block_shared);
    return (uint32_t)fit;
}
