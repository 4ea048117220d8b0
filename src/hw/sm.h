/* What an SM holds, by compute capability, and how many blocks of a kernel that makes. */
#pragma once

#include <stdint.h>

struct lithos_sm {
    uint32_t threads, blocks;
    uint32_t registers;
    uint32_t warp_register_unit; /* registers are given to a warp in such pieces */
    uint32_t shared_bytes;
    uint32_t block_shared_reserved_bytes; /* taken by the system, a block */
};

/* NULL for a capability that is not known. */
const struct lithos_sm *lithos_sm(int cc_major, int cc_minor);
/* Most blocks of a kernel that an SM can hold at once; 0: not one. Never fewer than there really can be: what else limits them
 * (barriers, how the shared memory is divided) is left out. registers: a thread; shared_bytes: a block, static and dynamic. */
uint32_t lithos_sm_blocks(const struct lithos_sm *sm, uint32_t threads, uint32_t registers,
                          uint32_t shared_bytes);
