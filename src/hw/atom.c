#include "hw/atom.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"

static const char *const whole_names[LITHOS_WHOLE_MAX] = {
    [LITHOS_WHOLE_NOT] = "cut",
    [LITHOS_WHOLE_COOPERATIVE] = "cooperative",
    [LITHOS_WHOLE_ONE_WAVE] = "one_wave",
    [LITHOS_WHOLE_PDL] = "pdl",
    [LITHOS_WHOLE_CAPTURE] = "capture",
    [LITHOS_WHOLE_SLOT] = "slot",
    [LITHOS_WHOLE_EXITS] = "exits",
    [LITHOS_WHOLE_POOL] = "pool",
    [LITHOS_WHOLE_NOT_READY] = "not_ready",
    [LITHOS_WHOLE_UNKNOWN] = "unknown",
};

const char *lithos_whole_name(enum lithos_whole whole)
{
    return (unsigned)whole < LITHOS_WHOLE_MAX ? whole_names[whole] : "?";
}

/* ---- policy ---- */

int lithos_atom_policy_validate(const struct lithos_atom_policy *p)
{
    switch (p->mode) {
    case LITHOS_ATOM_OFF:
        return p->count ? -EINVAL : 0;
    case LITHOS_ATOM_FORCE:
        return p->count >= 2 && p->count <= LITHOS_ATOMS_MAX ? 0 : -EINVAL;
    default:
        return -EINVAL;
    }
}

int lithos_atom_policy_parse(const char *text, struct lithos_atom_policy *ret_policy)
{
    uint32_t count = 0;
    if (!strcmp(text, "off")) {
        *ret_policy = (struct lithos_atom_policy){.mode = LITHOS_ATOM_OFF};
        return 0;
    }
    if (*text++ != 'x' || !*text)
        return -EINVAL;
    for (; *text >= '0' && *text <= '9'; text++)
        count = LITHOS_MIN(count * 10 + (uint32_t)(*text - '0'), 1000000u);
    if (*text)
        return -EINVAL;
    if (count < 2 || count > LITHOS_ATOMS_MAX)
        return -ERANGE;
    *ret_policy = (struct lithos_atom_policy){.mode = LITHOS_ATOM_FORCE, .count = count};
    return 0;
}

char *lithos_atom_policy_format(const struct lithos_atom_policy *p, char text[LITHOS_ATOM_POLICY_TEXT_MAX])
{
    if (p->mode == LITHOS_ATOM_FORCE)
        snprintf(text, LITHOS_ATOM_POLICY_TEXT_MAX, "x%u", p->count);
    else
        snprintf(text, LITHOS_ATOM_POLICY_TEXT_MAX, "off");
    return text;
}

/* ---- the cut ---- */

unsigned lithos_cut_dim(const uint32_t grid[3])
{
    return grid[2] > 1 ? 2 : grid[1] > 1 ? 1 : 0;
}

static uint64_t steps(const struct lithos_cut *c)
{
    return ((uint64_t)c->units + c->quantum - 1) / c->quantum;
}

struct lithos_cut lithos_cut_make(const uint32_t grid[3], uint32_t quantum, uint32_t count)
{
    struct lithos_cut c = {.dim = lithos_cut_dim(grid), .quantum = quantum};
    c.units = grid[c.dim];
    c.count = (uint32_t)LITHOS_MIN(steps(&c), (uint64_t)count);
    return c;
}

void lithos_cut_range(const struct lithos_cut *c, uint32_t i, uint32_t *ret_lo, uint32_t *ret_hi)
{
    uint64_t n = steps(c);
    *ret_lo = (uint32_t)(n * i / c->count * c->quantum);
    *ret_hi = (uint32_t)LITHOS_MIN(n * (i + 1ull) / c->count * c->quantum, (uint64_t)c->units);
}

/* The exact sum is within half a step an atom of this, which is of no concern. */
uint64_t lithos_cut_exits(const struct lithos_cut *c, uint64_t unit_blocks)
{
    unsigned __int128 all = (unsigned __int128)unit_blocks * c->units * (c->count - 1) / 2;
    return (uint64_t)LITHOS_MIN(all, (unsigned __int128)UINT64_MAX);
}
