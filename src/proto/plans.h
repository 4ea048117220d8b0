/* The plan table: what lithosd tells a process of its kernels. Rows by operator key, written by lithosd, read by launching threads
 * without a lock or a wait. A row is found or not; one that is being changed is not found. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "hw/atom.h"

struct lithos_plan_row {
    _Atomic uint64_t key; /* 0: free, or being written */
    _Atomic uint64_t choice;
    _Atomic uint64_t predicted_ns, wave_ns;
};

struct lithos_plan {
    struct lithos_atom_choice choice;
    uint64_t predicted_ns; /* how long the kernel takes on the TPCs it has had lately; 0: not known */
    uint64_t wave_ns;      /* and a wave of its blocks */
};

/* Daemon, alone. row: number within the key's set (lithos_plan_row_of and the LITHOS_PLAN_WAYS - 1 behind it). */
void lithos_plan_put(struct lithos_plan_row *rows, uint32_t row, uint64_t key,
                     const struct lithos_plan *plan);
/* Tenant, any thread. False: there is none for that key, or none that makes sense. */
bool lithos_plan_get(const struct lithos_plan_row *rows, uint64_t key, struct lithos_plan *ret_plan);
