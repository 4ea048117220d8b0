/* What makes a queue descriptor one of an atom: a lowered grid, the prelude in the place of the kernel, the constant bank that the
 * prelude reads, and the bits that chain it to the next (docs/hardware.md, "Atoms"). Encoder and decoder. */
#pragma once

#include "hw/prelude.h"
#include "hw/qmd.h"

struct lithos_qmd_atom {
    uint32_t dim,
        hi; /* of the grid as the hardware counts it (clusters where there are any): this many of that dimension */
    uint64_t
        code; /* the prelude for that dimension; 0: the kernel itself, for an atom that begins with the first block */
    uint64_t entry; /* address of its struct lithos_prelude_entry for the GPU; with code 0 not used */
    bool pre_exit;  /* let a launch that is allowed to overlap begin when the last block has been placed */
};

/* Whether a descriptor of that layout can be made an atom of: 0, or -ENOTSUP. chained: as one that lets the next overlap. */
int lithos_qmd_atom_capable(const struct lithos_qmd_layout *layout, bool chained);
/* The address that blocks begin at. */
uint64_t lithos_qmd_entry(const struct lithos_qmd_layout *layout, const void *qmd);
/* A constant bank is in use. */
bool lithos_qmd_bank_used(const struct lithos_qmd_layout *layout, const void *qmd, unsigned bank);
/* It may overlap with the one before it (programmatic dependent launch). */
bool lithos_qmd_waits_on_latch(const struct lithos_qmd_layout *layout, const void *qmd);
/* 0; -ENOTSUP as lithos_qmd_atom_capable; -ERANGE for an address or a size that does not fit, or an entry that is not aligned to
 * 64; -EBUSY when the bank is in use. The QMD is then untouched. No allocation, lock or call out. */
int lithos_qmd_set_atom(const struct lithos_qmd_layout *layout, void *qmd,
                        const struct lithos_qmd_atom *atom);
/* The grid's side along a dimension. */
int lithos_qmd_set_side(const struct lithos_qmd_layout *layout, void *qmd, unsigned dim, uint32_t side);

/* Bank 6 as a card finds it. False: not valid. */
bool lithos_qmd_get_bank(const struct lithos_qmd_layout *layout, const void *qmd, unsigned bank,
                         uint64_t *ret_address, uint32_t *ret_bytes);
bool lithos_qmd_get_pre_exit(const struct lithos_qmd_layout *layout, const void *qmd);
