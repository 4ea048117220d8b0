/* The size table: on how few TPCs kernels are to run (docs/rightsizing.md). Rows by operator, written by lithosd, read by launching
 * threads without a lock or a wait. A row is found or not; one that is being changed is not found. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/tpcset.h"

#define LITHOS_SIZE_WAYS 4u
#define LITHOS_SIZE_SETS 256u
#define LITHOS_SIZE_ROWS (LITHOS_SIZE_WAYS * LITHOS_SIZE_SETS)
#define LITHOS_SIZE_EVERY_MAX 255u

/* One line of the cache each. */
struct lithos_size_row {
    _Alignas(64) _Atomic uint64_t key; /* 0: free, or being written */
    _Atomic uint64_t tpcs[2], probe[2];
    _Atomic uint64_t every; /* probe_every, and least_tpcs above it */
};

struct lithos_size {
    struct lithos_tpcset tpcs;  /* not empty */
    struct lithos_tpcset probe; /* and for one launch in probe_every these */
    uint32_t probe_every;       /* 1 to LITHOS_SIZE_EVERY_MAX; 0: none */
    uint32_t least_tpcs;        /* never on fewer: its blocks may wait for each other */
};

/* What a launch is to the one behind it: its grid and block. Never 0. */
uint32_t lithos_size_shape(const uint32_t grid[3], const uint32_t block[3]);
/* What both sides call an operator: a function, by its handle in the process, with its grid and block, behind a launch of that shape on its
 * stream (0: none is known). One function with one grid does different work by its arguments; what comes before it mostly tells which. Never 0. */
uint64_t lithos_size_key(uint64_t function, const uint32_t grid[3], const uint32_t block[3], uint32_t before);
/* Daemon, alone. way: which of the rows that the key may have, below LITHOS_SIZE_WAYS. */
void lithos_size_put(struct lithos_size_row *rows, uint64_t key, uint32_t way,
                     const struct lithos_size *size);
/* Tenant, any thread. False: there is none for that key, or none that makes sense. */
bool lithos_size_get(const struct lithos_size_row *rows, uint64_t key, struct lithos_size *ret_size);

/* First of the rows that a key may have. */
static inline uint32_t lithos_size_row_of(uint64_t key)
{
    return (uint32_t)(key >> 40) % LITHOS_SIZE_SETS * LITHOS_SIZE_WAYS;
}
