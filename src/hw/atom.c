#include "hw/atom.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"

/* Of a kernel never seen before: how long its blocks are taken to live, and into how many atoms it is cut at most. */
#define FIRST_WAVE_NS 25000u
#define FIRST_ATOMS_MAX 16u
/* Slices are good enough where a wave has so many. */
#define WAVE_SLICES 8u

static const char *const whole_names[LITHOS_WHOLE_MAX] = {
    [LITHOS_WHOLE_NOT] = "cut",           [LITHOS_WHOLE_COOPERATIVE] = "cooperative",
    [LITHOS_WHOLE_ONE_WAVE] = "one_wave", [LITHOS_WHOLE_PDL] = "pdl",
    [LITHOS_WHOLE_CAPTURE] = "capture",   [LITHOS_WHOLE_SLOT] = "slot",
    [LITHOS_WHOLE_EXITS] = "exits",       [LITHOS_WHOLE_POOL] = "pool",
    [LITHOS_WHOLE_TOLD] = "told",         [LITHOS_WHOLE_SHORT] = "short",
    [LITHOS_WHOLE_FIRST] = "first",       [LITHOS_WHOLE_TRIAL] = "trial",
    [LITHOS_WHOLE_SLOWER] = "slower",     [LITHOS_WHOLE_NOT_READY] = "not_ready",
    [LITHOS_WHOLE_UNKNOWN] = "unknown",
};

const char *lithos_whole_name(enum lithos_whole whole)
{
    return (unsigned)whole < LITHOS_WHOLE_MAX ? whole_names[whole] : "?";
}

const char *lithos_graph_whole_name(enum lithos_graph_whole whole)
{
    static const char *const names[LITHOS_GRAPH_WHOLE_MAX] = {
        [LITHOS_GRAPH_WHOLE_NODES] = "nodes",
        [LITHOS_GRAPH_WHOLE_DEVICE] = "device",
        [LITHOS_GRAPH_WHOLE_GPU] = "gpu",
        [LITHOS_GRAPH_WHOLE_ROOM] = "room",
        [LITHOS_GRAPH_WHOLE_NOT_READY] = "not_ready",
        [LITHOS_GRAPH_WHOLE_DRIVER] = "driver",
        [LITHOS_GRAPH_WHOLE_SHOWN] = "shown",
        [LITHOS_GRAPH_WHOLE_CHANGED] = "changed",
        [LITHOS_GRAPH_WHOLE_UPDATED] = "updated",
    };
    return (unsigned)whole < LITHOS_GRAPH_WHOLE_MAX ? names[whole] : "?";
}

/* ---- policy ---- */

int lithos_atom_policy_validate(const struct lithos_atom_policy *p)
{
    bool force = p->mode == LITHOS_ATOM_FORCE, duration = p->mode == LITHOS_ATOM_DURATION;
    if (p->mode >= LITHOS_ATOM_MODE_MAX)
        return -EINVAL;
    if (force ? p->count < 2 || p->count > LITHOS_ATOMS_MAX : p->count)
        return -EINVAL;
    if (duration ? p->atom_ns < LITHOS_ATOM_NS_MIN || p->atom_ns > LITHOS_ATOM_NS_MAX : p->atom_ns)
        return -EINVAL;
    return p->floor_ns <= p->atom_ns ? 0 : -EINVAL;
}

/* Digits, as a number of at most DIGITS_MAX; what follows them. NULL: none. */
#define DIGITS_MAX 100000000u
static const char *number(const char *text, uint32_t *ret)
{
    uint32_t n = 0;
    if (*text < '0' || *text > '9')
        return NULL;
    for (; *text >= '0' && *text <= '9'; text++)
        n = LITHOS_MIN(n * 10 + (uint32_t)(*text - '0'), DIGITS_MAX);
    *ret = n;
    return text;
}

/* "60us", "1ms"; what follows it. 0; -EINVAL; -ERANGE. */
static int parse_ns(const char *text, uint32_t *ret_ns, const char **ret_end)
{
    uint32_t n = 0;
    const char *unit = number(text, &n);
    uint64_t ns = n;
    if (!unit || (strncmp(unit, "us", 2) != 0 && strncmp(unit, "ms", 2) != 0))
        return -EINVAL;
    ns *= *unit == 'u' ? LITHOS_NSEC_PER_USEC : LITHOS_NSEC_PER_MSEC;
    if (ns < LITHOS_ATOM_NS_MIN || ns > LITHOS_ATOM_NS_MAX)
        return -ERANGE;
    *ret_ns = (uint32_t)ns;
    *ret_end = unit + 2;
    return 0;
}

static int parse_duration(const char *text, struct lithos_atom_policy *ret_policy)
{
    static const char floor_[] = ",floor=";
    struct lithos_atom_policy p = {.mode = LITHOS_ATOM_DURATION};
    int r = parse_ns(text, &p.atom_ns, &text);
    if (r == 0 && !strncmp(text, floor_, sizeof floor_ - 1))
        r = parse_ns(text + sizeof floor_ - 1, &p.floor_ns, &text);
    if (r == 0 && *text)
        r = -EINVAL;
    if (r == 0 && p.floor_ns > p.atom_ns)
        r = -ERANGE;
    if (r == 0)
        *ret_policy = p;
    return r;
}

int lithos_atom_policy_parse(const char *text, struct lithos_atom_policy *ret_policy)
{
    uint32_t n = 0;
    if (!strcmp(text, "off")) {
        *ret_policy = (struct lithos_atom_policy){.mode = LITHOS_ATOM_OFF};
        return 0;
    }
    if (*text != 'x')
        return parse_duration(text, ret_policy);
    const char *end = number(text + 1, &n);
    if (!end || *end)
        return -EINVAL;
    if (n < 2 || n > LITHOS_ATOMS_MAX)
        return -ERANGE;
    *ret_policy = (struct lithos_atom_policy){.mode = LITHOS_ATOM_FORCE, .count = n};
    return 0;
}

char *lithos_atom_policy_format(const struct lithos_atom_policy *p, char text[LITHOS_ATOM_POLICY_TEXT_MAX])
{
    if (p->mode == LITHOS_ATOM_FORCE)
        snprintf(text, LITHOS_ATOM_POLICY_TEXT_MAX, "x%u", p->count);
    else if (p->mode == LITHOS_ATOM_DURATION && p->floor_ns)
        snprintf(text, LITHOS_ATOM_POLICY_TEXT_MAX, "%uus,floor=%uus",
                 p->atom_ns / (uint32_t)LITHOS_NSEC_PER_USEC, p->floor_ns / (uint32_t)LITHOS_NSEC_PER_USEC);
    else if (p->mode == LITHOS_ATOM_DURATION)
        snprintf(text, LITHOS_ATOM_POLICY_TEXT_MAX, "%uus", p->atom_ns / (uint32_t)LITHOS_NSEC_PER_USEC);
    else
        snprintf(text, LITHOS_ATOM_POLICY_TEXT_MAX, "off");
    return text;
}

struct lithos_atom_choice lithos_atom_choice_first(const struct lithos_atom_policy *p, uint64_t waves)
{
    uint64_t atom_waves = LITHOS_MAX(p->atom_ns / FIRST_WAVE_NS, 1u);
    if (waves < 2 * atom_waves)
        return (struct lithos_atom_choice){.whole = LITHOS_WHOLE_FIRST};
    atom_waves = LITHOS_MAX(atom_waves, (waves + FIRST_ATOMS_MAX - 1) / FIRST_ATOMS_MAX);
    return (struct lithos_atom_choice){.waves = (uint32_t)LITHOS_MIN(atom_waves, (uint64_t)UINT32_MAX)};
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

static uint64_t rounded_div(uint64_t a, uint64_t b)
{
    return a / b + (a % b >= b - a % b);
}

/* Units of a slice along the slowest dimension, at least 1. */
static uint64_t slice_of(const uint32_t grid[3])
{
    unsigned dim = lithos_cut_dim(grid);
    uint64_t units = (uint64_t)(dim > 0 ? grid[0] : 1) * (dim > 1 ? grid[1] : 1);
    return LITHOS_MAX(units, 1u);
}

static struct lithos_cut in_slices(const uint32_t grid[3])
{
    unsigned dim = lithos_cut_dim(grid);
    return (struct lithos_cut){.dim = dim, .units = grid[dim], .slice = 1, .quantum = 1};
}

/* False: there are too many units to count. In one dimension the two are the same. */
static bool in_line(const uint32_t grid[3], struct lithos_cut *ret)
{
    unsigned dim = lithos_cut_dim(grid);
    unsigned __int128 all = (unsigned __int128)slice_of(grid) * grid[dim];
    if (dim == 0 || all > UINT32_MAX)
        return false;
    *ret = (struct lithos_cut){
        .dim = dim, .line = true, .units = (uint32_t)all, .slice = (uint32_t)slice_of(grid), .quantum = 1};
    return true;
}

struct lithos_cut lithos_cut_make(const uint32_t grid[3], bool line, uint32_t count)
{
    struct lithos_cut c = in_slices(grid);
    if (line && c.units < count)
        in_line(grid, &c);
    c.count = (uint32_t)LITHOS_MIN(steps(&c), (uint64_t)count);
    return c;
}

struct lithos_cut lithos_cut_waves(const uint32_t grid[3], bool line, uint64_t wave_units,
                                   uint32_t atom_waves)
{
    struct lithos_cut c = in_slices(grid);
    uint64_t slice = slice_of(grid), atom = atom_waves; /* of what the quantum is */
    bool coarse = slice > wave_units / WAVE_SLICES;
    if (line && slice > 1 && coarse && in_line(grid, &c)) {
        c.quantum = (uint32_t)LITHOS_MIN(wave_units, (uint64_t)c.units);
    } else if (slice <= wave_units) {
        c.quantum = (uint32_t)LITHOS_MIN(rounded_div(wave_units, slice), (uint64_t)c.units);
    } else { /* a slice is more than a wave */
        unsigned __int128 most = (unsigned __int128)wave_units * atom_waves;
        atom = LITHOS_MAX(rounded_div((uint64_t)LITHOS_MIN(most, (unsigned __int128)UINT64_MAX), slice), 1u);
    }
    uint64_t count = (steps(&c) + atom - 1) / atom;
    c.count = (uint32_t)LITHOS_MIN(count, (uint64_t)LITHOS_ATOMS_MAX);
    return c;
}

struct lithos_part lithos_cut_part(const struct lithos_cut *c, uint32_t i)
{
    uint64_t n = steps(c);
    struct lithos_part p = {
        .lo = (uint32_t)(n * i / c->count * c->quantum),
        .hi = (uint32_t)LITHOS_MIN(n * (i + 1ull) / c->count * c->quantum, (uint64_t)c->units)};
    p.side = c->line ? (uint32_t)(((uint64_t)p.hi + c->slice - 1) / c->slice) : p.hi;
    p.has_exits = p.lo || (uint64_t)p.side * c->slice != p.hi;
    return p;
}

/* The exact sum is within half a step, and half a slice, an atom of this, which is of no concern. */
uint64_t lithos_cut_exits(const struct lithos_cut *c, uint64_t unit_blocks)
{
    unsigned __int128 all = (unsigned __int128)unit_blocks * c->units * (c->count - 1) / 2;
    all += (unsigned __int128)unit_blocks * (c->slice - 1) * (c->count - 1) / 2;
    return (uint64_t)LITHOS_MIN(all, (unsigned __int128)UINT64_MAX);
}
