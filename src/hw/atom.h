/* How a kernel's grid is cut into atoms: parts that run one after another, each block in exactly one of them (paper 5.4).
 *
 * The cut runs along the slowest dimension that has more than one block, so that blocks begin in the order of their linear
 * index, as they do in a kernel left whole: a block that waits for an earlier one still meets it. Units are blocks, or clusters where the
 * kernel has them. Pure and small, used on both sides of the arena. */
#pragma once

#include <stdint.h>

enum lithos_whole {
    LITHOS_WHOLE_NOT, /* it can be cut */
#define W(name, why) LITHOS_WHOLE_##name,
#include "hw/whole.def"
#undef W
    LITHOS_WHOLE_MAX,
};

/* "one_wave"; never NULL. */
const char *lithos_whole_name(enum lithos_whole whole);

/* What a tenant's kernels are to be cut into. */
enum lithos_atom_mode {
    LITHOS_ATOM_OFF,
    LITHOS_ATOM_FORCE, /* every kernel that can be into so many atoms: for tests and measurements */
    LITHOS_ATOM_MODE_MAX,
};

#define LITHOS_ATOMS_MAX 4096u /* of a kernel */

struct lithos_atom_policy {
    uint32_t mode;  /* enum lithos_atom_mode */
    uint32_t count; /* FORCE: 2 to LITHOS_ATOMS_MAX, else 0 */
};

/* 0, or -EINVAL. */
int lithos_atom_policy_validate(const struct lithos_atom_policy *policy);
/* "off", "x7". 0; -EINVAL for anything else; -ERANGE for a number of atoms out of range. */
int lithos_atom_policy_parse(const char *text, struct lithos_atom_policy *ret_policy);
#define LITHOS_ATOM_POLICY_TEXT_MAX 24u
char *lithos_atom_policy_format(const struct lithos_atom_policy *policy,
                                char text[LITHOS_ATOM_POLICY_TEXT_MAX]);

struct lithos_cut {
    uint32_t dim;     /* 0 x, 1 y, 2 z */
    uint32_t units;   /* of that dimension */
    uint32_t quantum; /* atoms begin at multiples of it */
    uint32_t count;   /* atoms: 1 to units / quantum, rounded up */
};

/* The slowest dimension with more than one unit; 0 when there is none. */
unsigned lithos_cut_dim(const uint32_t grid[3]);
/* Into so many atoms of about the same size, or as many as there can be. grid: no side 0; quantum, count: not 0. */
struct lithos_cut lithos_cut_make(const uint32_t grid[3], uint32_t quantum, uint32_t count);
/* Units of atom i of a cut: [*ret_lo, *ret_hi), never empty; those of i = 0, 1, ... count - 1 follow one another from 0 to
 * units. */
void lithos_cut_range(const struct lithos_cut *cut, uint32_t i, uint32_t *ret_lo, uint32_t *ret_hi);
/* Blocks that all atoms together launch only to have them end in the prelude. unit_blocks: in one unit of the cut dimension. */
uint64_t lithos_cut_exits(const struct lithos_cut *cut, uint64_t unit_blocks);
