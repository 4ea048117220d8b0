/* What qmd.c and qmd_view.c share. */
#pragma once

#include <string.h>

#include "hw/qmd.h"

struct lithos_qmd_row {
    uint16_t low;    /* bit of the first of its repeats */
    uint16_t stride; /* bits from one repeat to the next */
    uint8_t bits;    /* 1 to 32; 0: the layout has no such field */
    uint8_t count;   /* repeats, at least 1 */
};

struct lithos_qmd_layout {
    const char *name;
    enum lithos_qmd_version version;
    bool proved; /* seen to work on a card: docs/hardware.md */
    uint8_t major, minor;
    struct lithos_qmd_row rows[LITHOS_QMD_FIELD_MAX];
};

static inline bool lithos_qmd_row_exists(const struct lithos_qmd_layout *layout, enum lithos_qmd_field field)
{
    return layout->rows[field].bits != 0;
}

/* The driver's pointer is not known to be aligned; memcpy of four bytes is one load either way. */
static inline uint32_t lithos_qmd_load(const void *qmd, unsigned word)
{
    uint32_t v;
    memcpy(&v, (const uint8_t *)qmd + 4 * (size_t)word, sizeof(v));
    return v;
}

static inline void lithos_qmd_store(void *qmd, unsigned word, uint32_t v)
{
    memcpy((uint8_t *)qmd + 4 * (size_t)word, &v, sizeof(v));
}

/* First repeat of a field that the layout has. Every field of every layout lies within one 32-bit word
 * (tests/unit/test_qmd.c checks the tables), so this is a load, a shift and a mask. */
static inline uint32_t lithos_qmd_row_get(const struct lithos_qmd_row *row, const void *qmd, unsigned index)
{
    const unsigned low = row->low + index * row->stride;
    return (lithos_qmd_load(qmd, low / 32) >> (low % 32)) & (UINT32_MAX >> (32 - row->bits));
}

static inline void lithos_qmd_row_set(const struct lithos_qmd_row *row, void *qmd, unsigned index,
                                      uint32_t value)
{
    const unsigned low = row->low + index * row->stride;
    const uint32_t mask = (UINT32_MAX >> (32 - row->bits)) << (low % 32);
    lithos_qmd_store(qmd, low / 32,
                     (lithos_qmd_load(qmd, low / 32) & ~mask) | ((value << (low % 32)) & mask));
}

static inline uint32_t lithos_qmd_first(const struct lithos_qmd_layout *layout, const void *qmd,
                                        enum lithos_qmd_field field)
{
    return lithos_qmd_row_get(&layout->rows[field], qmd, 0);
}

/* The grid's three fields; they were renamed in V04_00. */
struct lithos_qmd_grid {
    enum lithos_qmd_field dim[3];
};

static inline struct lithos_qmd_grid lithos_qmd_grid_fields(const struct lithos_qmd_layout *layout)
{
    if (lithos_qmd_row_exists(layout, LITHOS_QMD_GRID_WIDTH))
        return (struct lithos_qmd_grid){
            {LITHOS_QMD_GRID_WIDTH, LITHOS_QMD_GRID_HEIGHT, LITHOS_QMD_GRID_DEPTH}};
    return (struct lithos_qmd_grid){
        {LITHOS_QMD_CTA_RASTER_WIDTH, LITHOS_QMD_CTA_RASTER_HEIGHT, LITHOS_QMD_CTA_RASTER_DEPTH}};
}

static inline enum lithos_qmd_field lithos_qmd_register_field(const struct lithos_qmd_layout *layout)
{
    return lithos_qmd_row_exists(layout, LITHOS_QMD_REGISTER_COUNT) ? LITHOS_QMD_REGISTER_COUNT
                                                                    : LITHOS_QMD_REGISTER_COUNT_V;
}
