/* What launches in atoms and graphs in atoms share. */
#pragma once

#include "driver/atoms.h"

/* Overlapping launches, and the order of launches within graphs, came with Hopper. */
#define LITHOS_ATOMS_CHAIN_CC_MAJOR 9

/* What kernels are cut into now. */
struct lithos_atom_policy lithos_atoms_policy(void);
/* The current context's device; NULL: not known. */
const struct lithos_hook_device *lithos_atoms_device_here(void);
/* Names a function with what decides how many blocks of it run at once. cluster: x, y and z in 16 bits each, 0 none. Never 0. */
uint64_t lithos_atoms_operator_key(const struct lithos_launch *launch, uint64_t cluster);
/* Also when the driver does not tell. */
bool lithos_atoms_is_capturing(CUstream stream);
