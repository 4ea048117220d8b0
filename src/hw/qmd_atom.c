#include "hw/qmd_atom.h"

#include <errno.h>

#include "hw/qmd_internal.h"

#define BANK LITHOS_PRELUDE_BANK
#define BANK_BYTES ((uint32_t)sizeof(struct lithos_prelude_entry))
#define BANK_ALIGN 64u

/* An address in two fields, in units of 1 << shift. */
struct halves {
    enum lithos_qmd_field lower, upper;
    unsigned shift;
};

static struct halves code_fields(const struct lithos_qmd_layout *layout)
{
    if (lithos_qmd_row_exists(layout, LITHOS_QMD_PROGRAM_ADDRESS_LOWER_SHIFTED4))
        return (struct halves){LITHOS_QMD_PROGRAM_ADDRESS_LOWER_SHIFTED4,
                               LITHOS_QMD_PROGRAM_ADDRESS_UPPER_SHIFTED4, 4};
    return (struct halves){LITHOS_QMD_PROGRAM_ADDRESS_LOWER, LITHOS_QMD_PROGRAM_ADDRESS_UPPER, 0};
}

static struct halves bank_fields(const struct lithos_qmd_layout *layout)
{
    if (lithos_qmd_row_exists(layout, LITHOS_QMD_CONSTANT_BUFFER_ADDR_LOWER_SHIFTED6))
        return (struct halves){LITHOS_QMD_CONSTANT_BUFFER_ADDR_LOWER_SHIFTED6,
                               LITHOS_QMD_CONSTANT_BUFFER_ADDR_UPPER_SHIFTED6, 6};
    return (struct halves){LITHOS_QMD_CONSTANT_BUFFER_ADDR_LOWER, LITHOS_QMD_CONSTANT_BUFFER_ADDR_UPPER, 0};
}

static bool fits(const struct lithos_qmd_layout *layout, struct halves h, uint64_t address)
{
    const struct lithos_qmd_row *upper = &layout->rows[h.upper];
    return address % (1ull << h.shift) == 0 && address >> h.shift >> 32 <= UINT32_MAX >> (32 - upper->bits);
}

static void put(const struct lithos_qmd_layout *layout, void *qmd, struct halves h, unsigned index,
                uint64_t address)
{
    lithos_qmd_row_set(&layout->rows[h.lower], qmd, index, (uint32_t)(address >> h.shift));
    lithos_qmd_row_set(&layout->rows[h.upper], qmd, index, (uint32_t)(address >> h.shift >> 32));
}

static uint64_t get(const struct lithos_qmd_layout *layout, const void *qmd, struct halves h, unsigned index)
{
    return ((uint64_t)lithos_qmd_row_get(&layout->rows[h.upper], qmd, index) << 32 |
            lithos_qmd_row_get(&layout->rows[h.lower], qmd, index))
           << h.shift;
}

int lithos_qmd_atom_capable(const struct lithos_qmd_layout *layout, bool chained)
{
    struct halves code = code_fields(layout), bank = bank_fields(layout);
    const enum lithos_qmd_field needed[] = {code.lower,
                                            code.upper,
                                            bank.lower,
                                            bank.upper,
                                            LITHOS_QMD_CONSTANT_BUFFER_VALID,
                                            LITHOS_QMD_CONSTANT_BUFFER_INVALIDATE,
                                            LITHOS_QMD_CONSTANT_BUFFER_SIZE_SHIFTED4,
                                            lithos_qmd_grid_fields(layout).dim[0],
                                            lithos_qmd_grid_fields(layout).dim[1],
                                            lithos_qmd_grid_fields(layout).dim[2]};
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++)
        if (!lithos_qmd_row_exists(layout, needed[i]))
            return -ENOTSUP;
    if (layout->rows[LITHOS_QMD_CONSTANT_BUFFER_VALID].count <= BANK)
        return -ENOTSUP;
    return !chained || (lithos_qmd_row_exists(layout, LITHOS_QMD_PRE_EXIT_AT_LAST_CTA_LAUNCH) &&
                        lithos_qmd_row_exists(layout, LITHOS_QMD_ENABLE_PROGRAM_PRE_EXIT))
               ? 0
               : -ENOTSUP;
}

uint64_t lithos_qmd_entry(const struct lithos_qmd_layout *layout, const void *qmd)
{
    return get(layout, qmd, code_fields(layout), 0);
}

bool lithos_qmd_bank_used(const struct lithos_qmd_layout *layout, const void *qmd, unsigned bank)
{
    return lithos_qmd_get(layout, qmd, LITHOS_QMD_CONSTANT_BUFFER_VALID, bank) != 0;
}

bool lithos_qmd_waits_on_latch(const struct lithos_qmd_layout *layout, const void *qmd)
{
    return lithos_qmd_get(layout, qmd, LITHOS_QMD_WAIT_ON_LATCH_VALID, 0) != 0;
}

int lithos_qmd_set_side(const struct lithos_qmd_layout *layout, void *qmd, unsigned dim, uint32_t side)
{
    return lithos_qmd_set(layout, qmd, lithos_qmd_grid_fields(layout).dim[dim], 0, side);
}

int lithos_qmd_set_atom(const struct lithos_qmd_layout *layout, void *qmd, const struct lithos_qmd_atom *a)
{
    const struct lithos_qmd_row *side = &layout->rows[lithos_qmd_grid_fields(layout).dim[a->dim % 3]];
    if (lithos_qmd_atom_capable(layout, a->pre_exit) < 0)
        return -ENOTSUP;
    if (a->dim > 2 || a->hi > UINT32_MAX >> (32 - side->bits))
        return -ERANGE;
    if (a->code) {
        if (a->entry % BANK_ALIGN || !fits(layout, code_fields(layout), a->code) ||
            !fits(layout, bank_fields(layout), a->entry))
            return -ERANGE;
        if (lithos_qmd_bank_used(layout, qmd, BANK))
            return -EBUSY;
        put(layout, qmd, code_fields(layout), 0, a->code);
        put(layout, qmd, bank_fields(layout), BANK, a->entry);
        lithos_qmd_row_set(&layout->rows[LITHOS_QMD_CONSTANT_BUFFER_SIZE_SHIFTED4], qmd, BANK,
                           BANK_BYTES >> 4);
        lithos_qmd_row_set(&layout->rows[LITHOS_QMD_CONSTANT_BUFFER_INVALIDATE], qmd, BANK, 1);
        lithos_qmd_row_set(&layout->rows[LITHOS_QMD_CONSTANT_BUFFER_VALID], qmd, BANK, 1);
    }
    lithos_qmd_row_set(side, qmd, 0, a->hi);
    if (a->pre_exit) {
        lithos_qmd_row_set(&layout->rows[LITHOS_QMD_PRE_EXIT_AT_LAST_CTA_LAUNCH], qmd, 0, 1);
        lithos_qmd_row_set(&layout->rows[LITHOS_QMD_ENABLE_PROGRAM_PRE_EXIT], qmd, 0, 1);
    }
    return 0;
}

bool lithos_qmd_get_bank(const struct lithos_qmd_layout *layout, const void *qmd, unsigned bank,
                         uint64_t *ret_address, uint32_t *ret_bytes)
{
    if (!lithos_qmd_bank_used(layout, qmd, bank))
        return false;
    *ret_address = get(layout, qmd, bank_fields(layout), bank);
    *ret_bytes = lithos_qmd_get(layout, qmd, LITHOS_QMD_CONSTANT_BUFFER_SIZE_SHIFTED4, bank) << 4;
    return true;
}

bool lithos_qmd_get_pre_exit(const struct lithos_qmd_layout *layout, const void *qmd)
{
    return lithos_qmd_get(layout, qmd, LITHOS_QMD_PRE_EXIT_AT_LAST_CTA_LAUNCH, 0) &&
           lithos_qmd_get(layout, qmd, LITHOS_QMD_ENABLE_PROGRAM_PRE_EXIT, 0);
}
