#include "driver/stamp.h"

#include <errno.h>

#define SEMAPHORE 1u /* the driver uses 0 */

int lithos_stamp_put(const struct lithos_qmd_layout *layout, void *qmd, uint64_t address, uint64_t payload)
{
    if (!lithos_qmd_has(layout, LITHOS_QMD_RELEASE_ENABLE) ||
        !lithos_qmd_has(layout, LITHOS_QMD_RELEASE_SEMAPHORE1_ADDR_UPPER))
        return -ENOTSUP;
    if (lithos_qmd_get(layout, qmd, LITHOS_QMD_RELEASE_ENABLE, SEMAPHORE))
        return -EBUSY;
    if (address % LITHOS_STAMP_BYTES != 0)
        return -ERANGE;
    /* The upper address is the one field that a value may be too wide for: nothing else is written before. */
    int r =
        lithos_qmd_set(layout, qmd, LITHOS_QMD_RELEASE_SEMAPHORE1_ADDR_UPPER, 0, (uint32_t)(address >> 32));
    if (r < 0)
        return r;
    const struct {
        enum lithos_qmd_field field;
        unsigned index;
        uint32_t value;
    } rest[] = {
        {LITHOS_QMD_RELEASE_SEMAPHORE1_ADDR_LOWER, 0, (uint32_t)address},
        {LITHOS_QMD_RELEASE_SEMAPHORE1_PAYLOAD_LOWER, 0, (uint32_t)payload},
        {LITHOS_QMD_RELEASE_SEMAPHORE1_PAYLOAD_UPPER, 0, (uint32_t)(payload >> 32)},
        {LITHOS_QMD_RELEASE_STRUCTURE_SIZE, SEMAPHORE, 0}, /* four words: the time as well */
        {LITHOS_QMD_RELEASE_MEMBAR_TYPE, SEMAPHORE, 1},    /* what the kernel wrote is seen before */
        {LITHOS_QMD_RELEASE_REDUCTION_ENABLE, SEMAPHORE, 0},
        {LITHOS_QMD_RELEASE_TRAP_TYPE, SEMAPHORE, 0},
        /* as measured, for as long as that is enough; the longer one is inferred */
        {LITHOS_QMD_RELEASE_PAYLOAD64B, SEMAPHORE, payload > UINT32_MAX},
        {LITHOS_QMD_RELEASE_ENABLE, SEMAPHORE, 1},
    };
    for (unsigned i = 0; i < sizeof rest / sizeof rest[0]; i++)
        lithos_qmd_set(layout, qmd, rest[i].field, rest[i].index, rest[i].value);
    return 0;
}
