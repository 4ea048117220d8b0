/* The version-free view of a QMD: encoder and decoder. Not in the launch path. */
#include <errno.h>

#include "hw/qmd_internal.h"

/* A value that a layout keeps in one field, in units of 1 << shift, or in a low and a high field. */
struct place {
    enum lithos_qmd_field low, high; /* high: LITHOS_QMD_FIELD_MAX when there is one field */
    unsigned shift;
    bool round_up; /* a size may be rounded up to the unit; an address may not */
};

static struct place entry_place(const struct lithos_qmd_layout *layout)
{
    if (lithos_qmd_row_exists(layout, LITHOS_QMD_PROGRAM_ADDRESS_LOWER_SHIFTED4))
        return (struct place){LITHOS_QMD_PROGRAM_ADDRESS_LOWER_SHIFTED4,
                              LITHOS_QMD_PROGRAM_ADDRESS_UPPER_SHIFTED4, 4, false};
    return (struct place){LITHOS_QMD_PROGRAM_ADDRESS_LOWER, LITHOS_QMD_PROGRAM_ADDRESS_UPPER, 0, false};
}

static struct place shared_place(const struct lithos_qmd_layout *layout)
{
    if (lithos_qmd_row_exists(layout, LITHOS_QMD_SHARED_MEMORY_SIZE_SHIFTED7))
        return (struct place){LITHOS_QMD_SHARED_MEMORY_SIZE_SHIFTED7, LITHOS_QMD_FIELD_MAX, 7, true};
    return (struct place){LITHOS_QMD_SHARED_MEMORY_SIZE, LITHOS_QMD_FIELD_MAX, 0, false};
}

static enum lithos_qmd_field minor_field(const struct lithos_qmd_layout *layout)
{
    return lithos_qmd_row_exists(layout, LITHOS_QMD_QMD_MINOR_VERSION) ? LITHOS_QMD_QMD_MINOR_VERSION
                                                                       : LITHOS_QMD_QMD_VERSION;
}

static const enum lithos_qmd_field block_fields[3] = {
    LITHOS_QMD_CTA_THREAD_DIMENSION0, LITHOS_QMD_CTA_THREAD_DIMENSION1, LITHOS_QMD_CTA_THREAD_DIMENSION2};
static const enum lithos_qmd_field cluster_fields[3] = {LITHOS_QMD_GPC_CGA_WIDTH, LITHOS_QMD_GPC_CGA_HEIGHT,
                                                        LITHOS_QMD_GPC_CGA_DEPTH};

static int put(const struct lithos_qmd_layout *layout, void *qmd, enum lithos_qmd_field field, uint32_t value)
{
    return lithos_qmd_set(layout, qmd, field, 0, value);
}

static int put_dims(const struct lithos_qmd_layout *layout, void *qmd, const enum lithos_qmd_field fields[3],
                    const uint32_t values[3])
{
    int r = 0;
    for (unsigned i = 0; r == 0 && i < 3; i++)
        r = put(layout, qmd, fields[i], values[i]);
    return r;
}

static void get_dims(const struct lithos_qmd_layout *layout, const void *qmd,
                     const enum lithos_qmd_field fields[3], uint32_t ret_values[3])
{
    for (unsigned i = 0; i < 3; i++)
        ret_values[i] = lithos_qmd_get(layout, qmd, fields[i], 0);
}

static int put_place(const struct lithos_qmd_layout *layout, void *qmd, struct place p, uint64_t value)
{
    const uint64_t odd = (1ull << p.shift) - 1;

    if ((value & odd) && !p.round_up)
        return -ERANGE;
    value = (value >> p.shift) + ((value & odd) != 0);
    if (p.high == LITHOS_QMD_FIELD_MAX)
        return value > UINT32_MAX ? -ERANGE : put(layout, qmd, p.low, (uint32_t)value);
    int r = put(layout, qmd, p.high, (uint32_t)(value >> 32));
    return r < 0 ? r : put(layout, qmd, p.low, (uint32_t)value);
}

static uint64_t get_place(const struct lithos_qmd_layout *layout, const void *qmd, struct place p)
{
    uint64_t value = lithos_qmd_get(layout, qmd, p.low, 0);
    if (p.high != LITHOS_QMD_FIELD_MAX)
        value |= (uint64_t)lithos_qmd_get(layout, qmd, p.high, 0) << 32;
    return value << p.shift;
}

/* Type and cluster, or the lack of them. */
static int put_type(const struct lithos_qmd_layout *layout, void *qmd, const struct lithos_qmd_view *view)
{
    const uint32_t *c = view->cluster;
    const bool clusters = view->type == LITHOS_QMD_TYPE_CLUSTERS;

    if (!clusters && (c[0] > 1 || c[1] > 1 || c[2] > 1))
        return -ERANGE;
    if (clusters && (c[0] == 0 || c[1] == 0 || c[2] == 0))
        return -ERANGE;
    if (!lithos_qmd_row_exists(layout, LITHOS_QMD_QMD_TYPE))
        return view->type == LITHOS_QMD_TYPE_GRID ? 0 : -ENOTSUP;
    int r = put(layout, qmd, LITHOS_QMD_QMD_TYPE, view->type);
    return r < 0 || !clusters ? r : put_dims(layout, qmd, cluster_fields, c);
}

int lithos_qmd_encode(const struct lithos_qmd_layout *layout, const struct lithos_qmd_view *view, void *qmd)
{
    int r;

    memset(qmd, 0, LITHOS_QMD_BYTES);
    if ((r = put(layout, qmd, LITHOS_QMD_QMD_MAJOR_VERSION, layout->major)) < 0 ||
        (r = put(layout, qmd, minor_field(layout), layout->minor)) < 0 ||
        (r = put_type(layout, qmd, view)) < 0 ||
        (r = put_dims(layout, qmd, lithos_qmd_grid_fields(layout).dim, view->grid)) < 0 ||
        (r = put_dims(layout, qmd, block_fields, view->block)) < 0 ||
        (r = put(layout, qmd, lithos_qmd_register_field(layout), view->registers)) < 0 ||
        (r = put_place(layout, qmd, shared_place(layout), view->shared_bytes)) < 0 ||
        (r = put_place(layout, qmd, entry_place(layout), view->entry)) < 0)
        return r;
    return view->masked ? lithos_qmd_set_tpcs(layout, qmd, &view->tpcs) : 0;
}

static bool masked(const struct lithos_qmd_layout *layout, const void *qmd, struct lithos_tpcset *ret_tpcs)
{
    const enum lithos_qmd_field mask = LITHOS_QMD_TPC_DISABLE_MASK;

    if (!lithos_qmd_row_exists(layout, mask)) {
        /* No valid bit and 64 bits; more than that does not exist there. */
        ret_tpcs->w[0] = ~((uint64_t)lithos_qmd_get(layout, qmd, LITHOS_QMD_SM_DISABLE_MASK_UPPER, 0) << 32 |
                           lithos_qmd_get(layout, qmd, LITHOS_QMD_SM_DISABLE_MASK_LOWER, 0));
        ret_tpcs->w[1] = 0;
        return ret_tpcs->w[0] != UINT64_MAX;
    }
    for (unsigned i = 0; i < 2; i++)
        ret_tpcs->w[i] = ~((uint64_t)lithos_qmd_get(layout, qmd, mask, 2 * i + 1) << 32 |
                           lithos_qmd_get(layout, qmd, mask, 2 * i));
    return lithos_qmd_get(layout, qmd, LITHOS_QMD_TPC_DISABLE_MASK_VALID, 0) != 0;
}

void lithos_qmd_decode(const struct lithos_qmd_layout *layout, const void *qmd,
                       struct lithos_qmd_view *ret_view)
{
    struct lithos_qmd_view v = {.type = LITHOS_QMD_TYPE_GRID, .cluster = {1, 1, 1}};

    if (lithos_qmd_row_exists(layout, LITHOS_QMD_QMD_TYPE))
        v.type = lithos_qmd_get(layout, qmd, LITHOS_QMD_QMD_TYPE, 0);
    if (v.type == LITHOS_QMD_TYPE_CLUSTERS)
        get_dims(layout, qmd, cluster_fields, v.cluster);
    get_dims(layout, qmd, lithos_qmd_grid_fields(layout).dim, v.grid);
    get_dims(layout, qmd, block_fields, v.block);
    v.registers = lithos_qmd_get(layout, qmd, lithos_qmd_register_field(layout), 0);
    v.shared_bytes = (uint32_t)get_place(layout, qmd, shared_place(layout));
    v.entry = get_place(layout, qmd, entry_place(layout));
    v.masked = masked(layout, qmd, &v.tpcs);
    if (!v.masked)
        v.tpcs = (struct lithos_tpcset){{UINT64_MAX, UINT64_MAX}};
    *ret_view = v;
}
