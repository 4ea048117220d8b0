/* How a kernel's grid is cut into atoms: parts that run one after another, each block in exactly one of them (paper 5.4).
 *
 * Blocks of a kernel left whole begin in the order of their linear index, and a block that waits for an earlier one meets it. So an
 * atom is a range of that order. Cut in slices, it is a range along the slowest dimension that has more than one block, and one
 * comparison tells its blocks; cut in the line, it may begin and end within a slice. Units are blocks, or clusters where the kernel has
 * them. Pure and small, used on both sides of the arena. */
#pragma once

#include <stdbool.h>
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

/* Why none of a graph's kernels is cut, though some might be. */
enum lithos_graph_whole {
#define W(name, why) LITHOS_GRAPH_WHOLE_##name,
#include "hw/graph_whole.def"
#undef W
    LITHOS_GRAPH_WHOLE_MAX,
};

/* "changed"; never NULL. */
const char *lithos_graph_whole_name(enum lithos_graph_whole whole);

/* What a tenant's kernels are to be cut into. */
enum lithos_atom_mode {
    LITHOS_ATOM_OFF,
    LITHOS_ATOM_FORCE,    /* every kernel that can be into so many atoms: for tests and measurements */
    LITHOS_ATOM_DURATION, /* long kernels into atoms of about that length */
    LITHOS_ATOM_MODE_MAX,
};

#define LITHOS_ATOMS_MAX 4096u /* of a kernel */
/* Of an atom's length that is asked for. */
#define LITHOS_ATOM_NS_MIN 20000u
#define LITHOS_ATOM_NS_MAX 1000000000u

struct lithos_atom_policy {
    uint32_t mode;    /* enum lithos_atom_mode */
    uint32_t count;   /* FORCE: 2 to LITHOS_ATOMS_MAX, else 0 */
    uint32_t atom_ns; /* DURATION: LITHOS_ATOM_NS_MIN to _MAX, else 0 */
    uint32_t
        floor_ns; /* DURATION: no atom shorter than that, whoever asks; at most atom_ns, 0: as is usual; else 0 */
};

/* 0, or -EINVAL. */
int lithos_atom_policy_validate(const struct lithos_atom_policy *policy);
/* "off", "x7", "250us", "1ms", "250us,floor=100us". 0; -EINVAL for anything else; -ERANGE for a number of atoms or a length out of
 * range. */
int lithos_atom_policy_parse(const char *text, struct lithos_atom_policy *ret_policy);
#define LITHOS_ATOM_POLICY_TEXT_MAX 40u
char *lithos_atom_policy_format(const struct lithos_atom_policy *policy,
                                char text[LITHOS_ATOM_POLICY_TEXT_MAX]);

/* What is to be done with the launches of an operator: a function with a grid and what else decides how many blocks run at once. */
struct lithos_atom_choice {
    uint32_t waves;          /* of an atom; 0: it is left whole */
    enum lithos_whole whole; /* with 0 waves: why */
    bool trial;              /* now and then it is to be left whole, so that its time is known */
};

/* The choice for an operator that nothing is known of: its blocks are taken to be short, and it is cut into few atoms, so that a
 * wrong guess costs little; of few waves, it is left whole. waves: of the kernel. */
struct lithos_atom_choice lithos_atom_choice_first(const struct lithos_atom_policy *policy, uint64_t waves);

/* What a tenant's table of operators looks like on both sides of the arena: a key lies in one row of its set. */
#define LITHOS_PLAN_WAYS 4u
#define LITHOS_PLAN_SETS 512u
#define LITHOS_PLAN_ROWS (LITHOS_PLAN_WAYS * LITHOS_PLAN_SETS)

/* The first row of a key's set. */
static inline uint32_t lithos_plan_row_of(uint64_t key)
{
    return (uint32_t)(key * 0x9e3779b97f4a7c15ull >> 40) % LITHOS_PLAN_SETS * LITHOS_PLAN_WAYS;
}

/* ---- the cut */

struct lithos_cut {
    uint32_t dim;     /* of the slices: 0 x, 1 y, 2 z */
    bool line;        /* units are counted along the line, over all slices; else they are slices */
    uint32_t units;   /* in all */
    uint32_t slice;   /* units of a slice */
    uint32_t quantum; /* atoms begin at multiples of it */
    uint32_t count;   /* atoms: 1 to units / quantum, rounded up */
};

/* One atom: units [lo, hi). */
struct lithos_part {
    uint32_t lo, hi;
    uint32_t side;  /* slices that must be launched for it, from the first one on */
    bool has_exits; /* some of their units are not its own */
};

/* The slowest dimension with more than one unit; 0 when there is none. */
unsigned lithos_cut_dim(const uint32_t grid[3]);
/* Into so many atoms of about the same size, or as many as there can be; in slices where there are as many. grid: units, no side 0;
 * line: it may be cut in the line (if there are fewer than 2^32 units); count: not 0. */
struct lithos_cut lithos_cut_make(const uint32_t grid[3], bool line, uint32_t count);
/* Into atoms of so many waves of wave_units each, all but for rounding; at most LITHOS_ATOMS_MAX. In slices where those are small
 * beside a wave. wave_units, atom_waves: not 0. */
struct lithos_cut lithos_cut_waves(const uint32_t grid[3], bool line, uint64_t wave_units,
                                   uint32_t atom_waves);
/* Atom i of a cut: those of i = 0, 1, ... count - 1 follow one another from 0 to units, none is empty. */
struct lithos_part lithos_cut_part(const struct lithos_cut *cut, uint32_t i);
/* Blocks that all atoms together launch only to have them end in the prelude, about. unit_blocks: in a unit of the cut. */
uint64_t lithos_cut_exits(const struct lithos_cut *cut, uint64_t unit_blocks);
