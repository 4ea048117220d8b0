/* The tables are in qmd_v*.def. What they do not say, and where it is from:
 *  - how often a field is repeated: 8 constant banks, 3 release semaphores, 2 dependent QMDs fill the gap to
 * the next field exactly in every version; 4 words of TPC mask: measured on V04_00 (128 bits), the same name
 * on V05_00;
 *  - which capability has which compute class: docs/hardware.md ("Which layout a card has"). */
#include "hw/qmd.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "hw/qmd_internal.h"

#define F(field, low_bit, high_bit, stride_bits, times) \
    [LITHOS_QMD_##field] = {                            \
        .low = (low_bit), .stride = (stride_bits), .bits = (high_bit) - (low_bit) + 1, .count = (times)},

static const struct lithos_qmd_layout layouts[LITHOS_QMD_VERSION_MAX] = {
    [LITHOS_QMD_V02_04] = {.name = "V02_04",
                           .version = LITHOS_QMD_V02_04,
                           .major = 2,
                           .minor = 4,
                           .rows =
                               {
#include "hw/qmd_v02_04.def"
                               }},
    [LITHOS_QMD_V03_00] = {.name = "V03_00",
                           .version = LITHOS_QMD_V03_00,
                           .major = 3,
                           .minor = 0,
                           .rows =
                               {
#include "hw/qmd_v03_00.def"
                               }},
    [LITHOS_QMD_V04_00] = {.name = "V04_00",
                           .version = LITHOS_QMD_V04_00,
                           .proved = true,
                           .major = 4,
                           .minor = 0,
                           .rows =
                               {
#include "hw/qmd_v04_00.def"
                               }},
    [LITHOS_QMD_V05_00] = {.name = "V05_00",
                           .version = LITHOS_QMD_V05_00,
                           .major = 5,
                           .minor = 0,
                           .rows =
                               {
#include "hw/qmd_v05_00.def"
                               }},
};
#undef F

/* Exact pairs; where they are known from: docs/hardware.md. No row, no touching. */
static const struct {
    uint8_t cc_major, cc_minor;
    uint8_t version_byte; /* low nibble minor, high nibble major */
    uint8_t version_value;
    enum lithos_qmd_version version;
} capabilities[] = {
    {8, 0, 72, 0x24, LITHOS_QMD_V02_04},  {8, 0, 72, 0x30, LITHOS_QMD_V03_00},
    {8, 6, 72, 0x24, LITHOS_QMD_V02_04},  {8, 6, 72, 0x30, LITHOS_QMD_V03_00},
    {9, 0, 72, 0x40, LITHOS_QMD_V04_00},  {10, 0, 58, 0x50, LITHOS_QMD_V05_00},
    {12, 0, 58, 0x50, LITHOS_QMD_V05_00},
};

const struct lithos_qmd_layout *lithos_qmd_layout(enum lithos_qmd_version version)
{
    return (unsigned)version < LITHOS_QMD_VERSION_MAX ? &layouts[version] : NULL;
}

const char *lithos_qmd_layout_name(const struct lithos_qmd_layout *layout)
{
    return layout->name;
}

enum lithos_qmd_version lithos_qmd_layout_version(const struct lithos_qmd_layout *layout)
{
    return layout->version;
}

bool lithos_qmd_layout_proved(const struct lithos_qmd_layout *layout)
{
    return layout->proved;
}

bool lithos_qmd_has(const struct lithos_qmd_layout *layout, enum lithos_qmd_field field)
{
    return (unsigned)field < LITHOS_QMD_FIELD_MAX && layout->rows[field].bits != 0;
}

int lithos_qmd_identify(int cc_major, int cc_minor, const void *qmd, bool allow_unproved,
                        const struct lithos_qmd_layout **ret_layout)
{
    const uint8_t *bytes = qmd;

    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(capabilities); i++) {
        if (capabilities[i].cc_major != cc_major || capabilities[i].cc_minor != cc_minor ||
            bytes[capabilities[i].version_byte] != capabilities[i].version_value)
            continue;
        const struct lithos_qmd_layout *layout = &layouts[capabilities[i].version];
        if (!layout->proved && !allow_unproved)
            return -EPERM;
        *ret_layout = layout;
        return 0;
    }
    return -ENOTSUP;
}

int lithos_qmd_capability(int cc_major, int cc_minor, bool allow_unproved)
{
    int r = -ENOTSUP;

    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(capabilities); i++) {
        if (capabilities[i].cc_major != cc_major || capabilities[i].cc_minor != cc_minor)
            continue;
        if (layouts[capabilities[i].version].proved || allow_unproved)
            return 0;
        r = -EPERM;
    }
    return r;
}

uint32_t lithos_qmd_get(const struct lithos_qmd_layout *layout, const void *qmd, enum lithos_qmd_field field,
                        unsigned index)
{
    if (!lithos_qmd_has(layout, field) || index >= layout->rows[field].count)
        return 0;
    return lithos_qmd_row_get(&layout->rows[field], qmd, index);
}

int lithos_qmd_set(const struct lithos_qmd_layout *layout, void *qmd, enum lithos_qmd_field field,
                   unsigned index, uint32_t value)
{
    if (!lithos_qmd_has(layout, field) || index >= layout->rows[field].count)
        return -ENOENT;
    const struct lithos_qmd_row *row = &layout->rows[field];
    if (value > (UINT32_MAX >> (32 - row->bits)))
        return -ERANGE;
    lithos_qmd_row_set(row, qmd, index, value);
    return 0;
}

uint32_t lithos_qmd_cluster_blocks(const struct lithos_qmd_layout *layout, const void *qmd)
{
    if (!lithos_qmd_row_exists(layout, LITHOS_QMD_QMD_TYPE) ||
        lithos_qmd_first(layout, qmd, LITHOS_QMD_QMD_TYPE) != LITHOS_QMD_TYPE_CLUSTERS)
        return 1;
    uint32_t blocks = lithos_qmd_first(layout, qmd, LITHOS_QMD_GPC_CGA_WIDTH) *
                      lithos_qmd_first(layout, qmd, LITHOS_QMD_GPC_CGA_HEIGHT) *
                      lithos_qmd_first(layout, qmd, LITHOS_QMD_GPC_CGA_DEPTH);
    return blocks ? blocks : 1;
}

bool lithos_qmd_grid_empty(const struct lithos_qmd_layout *layout, const void *qmd)
{
    const struct lithos_qmd_grid f = lithos_qmd_grid_fields(layout);
    return !lithos_qmd_first(layout, qmd, f.dim[0]) || !lithos_qmd_first(layout, qmd, f.dim[1]) ||
           !lithos_qmd_first(layout, qmd, f.dim[2]);
}

int lithos_qmd_set_tpcs(const struct lithos_qmd_layout *layout, void *qmd, const struct lithos_tpcset *tpcs)
{
    const struct lithos_tpcset disabled = {{~tpcs->w[0], ~tpcs->w[1]}};

    if (lithos_qmd_row_exists(layout, LITHOS_QMD_TPC_DISABLE_MASK)) {
        memcpy((uint8_t *)qmd + layout->rows[LITHOS_QMD_TPC_DISABLE_MASK].low / 8, &disabled,
               sizeof(disabled));
        lithos_qmd_row_set(&layout->rows[LITHOS_QMD_TPC_DISABLE_MASK_VALID], qmd, 0, 1);
        return 0;
    }
    if (!lithos_qmd_row_exists(layout, LITHOS_QMD_SM_DISABLE_MASK_LOWER))
        return -ENOTSUP;
    /* Before V04_00 a bit is a TPC too, in spite of the name, 64 of them, always in force (docs/hardware.md,
     * "Which layout a card has"; not proved here). A set with more cannot be said. */
    if (tpcs->w[1])
        return -ERANGE;
    lithos_qmd_row_set(&layout->rows[LITHOS_QMD_SM_DISABLE_MASK_LOWER], qmd, 0, (uint32_t)disabled.w[0]);
    lithos_qmd_row_set(&layout->rows[LITHOS_QMD_SM_DISABLE_MASK_UPPER], qmd, 0,
                       (uint32_t)(disabled.w[0] >> 32));
    return 0;
}
