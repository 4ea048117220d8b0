/* Any bytes as a QMD: identified or refused, and what is decoded can be encoded again to the same view. */
#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "fuzz/fuzz.h"
#include "hw/qmd.h"

size_t lithos_fuzz_seed(size_t n, uint8_t *buf, size_t size)
{
    const struct lithos_qmd_view view = {.type = LITHOS_QMD_TYPE_GRID,
                                         .grid = {132, 1, 1},
                                         .block = {256, 1, 1},
                                         .registers = 32,
                                         .shared_bytes = 1024,
                                         .entry = 0x7f0000001200,
                                         .masked = true,
                                         .tpcs = {{0xff, 0}}};
    static const uint8_t cc[LITHOS_QMD_VERSION_MAX][2] = {{8, 0}, {8, 6}, {9, 0}, {10, 0}};

    if (n >= LITHOS_QMD_VERSION_MAX || size < 2 + LITHOS_QMD_BYTES)
        return 0;
    memcpy(buf, cc[n], 2);
    lithos_assert(lithos_qmd_encode(lithos_qmd_layout(n), &view, buf + 2) == 0);
    return 2 + LITHOS_QMD_BYTES;
}

static void check(const struct lithos_qmd_layout *layout, uint8_t qmd[LITHOS_QMD_BYTES])
{
    struct lithos_qmd_view view, again;
    uint8_t other[LITHOS_QMD_BYTES];
    const struct lithos_tpcset one = {{1, 0}};

    lithos_qmd_decode(layout, qmd, &view);
    struct lithos_qmd_brief brief;
    lithos_qmd_brief(layout, qmd, &brief);
    lithos_assert(brief.cluster_blocks >= 1 && brief.registers == view.registers);
    lithos_assert(brief.empty == (!view.grid[0] || !view.grid[1] || !view.grid[2]));
    const int r = lithos_qmd_encode(layout, &view, other);
    if (r == 0) {
        lithos_qmd_decode(layout, other, &again);
        lithos_assert(again.entry == view.entry && again.shared_bytes == view.shared_bytes &&
                      again.registers == view.registers && again.type == view.type &&
                      again.masked == view.masked && lithos_tpcset_equal(&again.tpcs, &view.tpcs) &&
                      memcmp(again.grid, view.grid, sizeof(view.grid)) == 0 &&
                      memcmp(again.block, view.block, sizeof(view.block)) == 0 &&
                      memcmp(again.cluster, view.cluster, sizeof(view.cluster)) == 0);
    } else {
        /* Only a cluster with a side of 0 decodes to something that cannot be said. */
        lithos_assert(r == -ERANGE && view.type == LITHOS_QMD_TYPE_CLUSTERS);
    }
    lithos_assert(lithos_qmd_set_tpcs(layout, qmd, &one) == 0);
    lithos_qmd_decode(layout, qmd, &again);
    lithos_assert(again.masked && lithos_tpcset_equal(&again.tpcs, &one));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t qmd[LITHOS_QMD_BYTES] = {0};
    const struct lithos_qmd_layout *proved = NULL, *layout = NULL;

    if (size < 2)
        return 0;
    memcpy(qmd, data + 2, size - 2 < sizeof(qmd) ? size - 2 : sizeof(qmd));
    const int r = lithos_qmd_identify(data[0], data[1], qmd, true, &layout);
    const int strict = lithos_qmd_identify(data[0], data[1], qmd, false, &proved);
    lithos_assert(r == 0 || r == -ENOTSUP);
    lithos_assert(strict == r || (strict == -EPERM && r == 0));
    lithos_assert((strict == 0) == (proved != NULL));
    if (r < 0)
        return 0;
    lithos_assert(lithos_qmd_capability(data[0], data[1], true) == 0);
    check(layout, qmd);
    return 0;
}
