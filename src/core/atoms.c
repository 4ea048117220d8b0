#include "core/atoms.h"

#include "base/util.h"

/* Shorter than so many atoms (in eighths) a kernel is left whole; not quite so when it is cut already. */
#define SHORT_EIGHTHS 12u
#define SHORT_EIGHTHS_CUT 10u
/* Measured on an H100 behind work that fills the card (docs/hardware.md, "Atoms"). */
#define EXIT_PS 60u
#define FLOOR_NS 50000u
#define TRIAL_NS 50000000u
#define EXITS_PPM 50000u
#define SLOWER_PPM 80000u
#define PPM 1000000u

void lithos_atom_limits_init(struct lithos_atom_limits *limits, const struct lithos_atom_policy *policy,
                             uint32_t exit_ps, uint32_t card_sms)
{
    *limits = (struct lithos_atom_limits){.atom_ns = policy->atom_ns,
                                          .floor_ns = policy->floor_ns ? policy->floor_ns : FLOOR_NS,
                                          .trial_ns = TRIAL_NS,
                                          .exit_ps = exit_ps ? exit_ps : EXIT_PS,
                                          .exits_ppm = EXITS_PPM,
                                          .slower_ppm = SLOWER_PPM,
                                          .card_sms = LITHOS_MAX(card_sms, 1u)};
}

static uint64_t up(uint64_t a, uint64_t b)
{
    return a / b + (a % b != 0);
}

/* 1, 2, 3, 4, 6, 8, 12, 16, ...: a plan that moves with each sample would need new entries each time. */
static uint64_t rounded(uint64_t waves)
{
    uint64_t power = 1;
    while (power <= waves / 2)
        power *= 2;
    if (power == 1)
        return 1;
    uint64_t middle = power + power / 2;
    if (2 * waves < power + middle)
        return power;
    return 2 * waves < middle + 2 * power ? middle : 2 * power;
}

static uint64_t rounded_up(uint64_t waves)
{
    uint64_t r = rounded(waves);
    return r < waves ? rounded(r + r / 2) : r;
}

/* Atoms that launch no more blocks to end at once than may be: each has half of the kernel's, on average. */
static uint64_t most_atoms(const struct lithos_atom_limits *l, const struct lithos_atom_kernel *k)
{
    unsigned __int128 may_ps = (unsigned __int128)k->duration_ns * 1000 * l->exits_ppm / PPM;
    unsigned __int128 an_atom_ps = (unsigned __int128)k->blocks * l->exit_ps / 2;
    unsigned __int128 most = an_atom_ps ? may_ps / an_atom_ps : LITHOS_ATOMS_MAX;
    return (uint64_t)LITHOS_MIN(most, (unsigned __int128)LITHOS_ATOMS_MAX);
}

static void leave_whole(struct lithos_atom_plan *plan, enum lithos_whole why)
{
    plan->choice = (struct lithos_atom_choice){.whole = why};
    plan->atoms = 0;
}

void lithos_atom_plan(const struct lithos_atom_limits *l, const struct lithos_atom_kernel *k, bool was_cut,
                      struct lithos_atom_plan *ret_plan)
{
    uint64_t atom_ns = LITHOS_MAX(LITHOS_MAX(l->atom_ns, l->floor_ns), 1u);
    uint64_t wave_blocks = (uint64_t)k->blocks_per_sm * k->sms, most = most_atoms(l, k);
    struct lithos_atom_plan plan = {.waves = LITHOS_MAX(up(k->blocks, wave_blocks), 1u)};
    plan.wave_ns = LITHOS_MAX(k->duration_ns / plan.waves, 1u);
    uint64_t atom_waves = rounded(LITHOS_MAX((atom_ns + plan.wave_ns / 2) / plan.wave_ns, 1u));
    if (atom_waves * plan.wave_ns < l->floor_ns)
        atom_waves = rounded_up(up(l->floor_ns, plan.wave_ns));
    if (most > 1)
        atom_waves = LITHOS_MAX(atom_waves, rounded_up(up(plan.waves, most)));
    plan.atoms = (uint32_t)LITHOS_MIN(up(plan.waves, atom_waves), (uint64_t)LITHOS_ATOMS_MAX);
    plan.choice.waves = (uint32_t)LITHOS_MIN(atom_waves, (uint64_t)UINT32_MAX);
    unsigned __int128 eighths = (unsigned __int128)atom_ns * (was_cut ? SHORT_EIGHTHS_CUT : SHORT_EIGHTHS);
    if (k->blocks <= (uint64_t)k->blocks_per_sm * l->card_sms)
        leave_whole(&plan, LITHOS_WHOLE_ONE_WAVE);
    else if ((unsigned __int128)k->duration_ns * 8 < eighths || plan.atoms < 2)
        leave_whole(&plan, LITHOS_WHOLE_SHORT);
    else if (most < 2)
        leave_whole(&plan, LITHOS_WHOLE_EXITS);
    *ret_plan = plan;
}
