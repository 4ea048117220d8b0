/* Bit maps of cards that several tests use. */
#pragma once

#include "hw/topology.h"

#define H200_VALID "0-3,9-16,18-25,27-34,36-43,45-52,54-71,75,78,81,83"

/* The measured H200: 66 TPCs in 8 GPCs of 4, 8 x 5 and 9 x 2, and 4 single ones (docs/hardware.md). */
static inline struct lithos_topology card_h200(void)
{
    struct lithos_topology t = {.sms_per_tpc = 2, .gpc_stride = 9, .gpc_count = 8};
    (void)lithos_tpcset_parse(H200_VALID, &t.valid);
    return t;
}

/* xorshift64*: the same numbers on every machine. */
static inline uint64_t next_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1dull;
}

/* 0 to 1. */
static inline double random_uniform(uint64_t *state)
{
    return (double)(next_random(state) >> 11) / 9007199254740992.0;
}

/* Three bits of four set, and one of four. */
static inline uint64_t random_dense(uint64_t *state)
{
    const uint64_t a = next_random(state), b = next_random(state);
    return a | b;
}

static inline uint64_t random_sparse(uint64_t *state)
{
    const uint64_t a = next_random(state), b = next_random(state);
    return a & b;
}

/* A made-up card: any stride and count that fit, any TPCs missing. Always valid. */
static inline struct lithos_topology card_random(uint64_t *state)
{
    struct lithos_topology t = {.sms_per_tpc = 1 + (uint32_t)(next_random(state) % 3)};
    t.gpc_count = (uint32_t)(next_random(state) % (LITHOS_GPC_MAX + 1));
    t.gpc_stride = 1 + (uint32_t)(next_random(state) % (t.gpc_count ? LITHOS_TPC_BITS / t.gpc_count : 9));
    const uint64_t sparse = next_random(state) % 4 ? UINT64_MAX : random_sparse(state);
    for (unsigned i = 0; i < 2; i++)
        t.valid.w[i] = random_dense(state) & sparse;
    if (lithos_tpcset_empty(&t.valid))
        lithos_tpcset_add(&t.valid, (unsigned)(next_random(state) % LITHOS_TPC_BITS));
    return t;
}
