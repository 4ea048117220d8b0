/* A set of TPCs, by mask bit (0 to 127). The bits are those of the hardware's TPC mask, where a set bit here means
 * "may run there": the hardware's own TPC_DISABLE_MASK is the complement. Bits that name no TPC exist
 * (docs/hardware.md), so a set is only meaningful beside a topology (hw/topology.h). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LITHOS_TPC_BITS 128u

struct lithos_tpcset {
    uint64_t w[2];
};

static inline bool lithos_tpcset_has(const struct lithos_tpcset *s, unsigned bit)
{
    return bit < LITHOS_TPC_BITS && ((s->w[bit / 64] >> (bit % 64)) & 1);
}

static inline void lithos_tpcset_add(struct lithos_tpcset *s, unsigned bit)
{
    if (bit < LITHOS_TPC_BITS)
        s->w[bit / 64] |= 1ull << (bit % 64);
}

static inline void lithos_tpcset_remove(struct lithos_tpcset *s, unsigned bit)
{
    if (bit < LITHOS_TPC_BITS)
        s->w[bit / 64] &= ~(1ull << (bit % 64));
}

/* Bits set in every eight of x. Without -mpopcnt the compiler's own is a call, and this is asked for all the time. */
static inline uint64_t lithos_tpcset_octets(uint64_t x)
{
    x -= (x >> 1) & 0x5555555555555555ull;
    x = (x & 0x3333333333333333ull) + ((x >> 2) & 0x3333333333333333ull);
    return (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0full;
}

static inline unsigned lithos_tpcset_count(const struct lithos_tpcset *s)
{
    const uint64_t octets = lithos_tpcset_octets(s->w[0]) + lithos_tpcset_octets(s->w[1]);
    return (unsigned)(octets * 0x0101010101010101ull >> 56);
}

static inline bool lithos_tpcset_empty(const struct lithos_tpcset *s)
{
    return !(s->w[0] | s->w[1]);
}

static inline bool lithos_tpcset_equal(const struct lithos_tpcset *a, const struct lithos_tpcset *b)
{
    return a->w[0] == b->w[0] && a->w[1] == b->w[1];
}

static inline struct lithos_tpcset lithos_tpcset_and(struct lithos_tpcset a, struct lithos_tpcset b)
{
    return (struct lithos_tpcset){{a.w[0] & b.w[0], a.w[1] & b.w[1]}};
}

static inline struct lithos_tpcset lithos_tpcset_or(struct lithos_tpcset a, struct lithos_tpcset b)
{
    return (struct lithos_tpcset){{a.w[0] | b.w[0], a.w[1] | b.w[1]}};
}

/* a without b */
static inline struct lithos_tpcset lithos_tpcset_minus(struct lithos_tpcset a, struct lithos_tpcset b)
{
    return (struct lithos_tpcset){{a.w[0] & ~b.w[0], a.w[1] & ~b.w[1]}};
}

/* Lowest bit at or above `from` that is in the set, or LITHOS_TPC_BITS. Loop:
 * for (unsigned b = lithos_tpcset_next(s, 0); b < LITHOS_TPC_BITS; b = lithos_tpcset_next(s, b + 1)) */
unsigned lithos_tpcset_next(const struct lithos_tpcset *s, unsigned from);

/* Room that lithos_tpcset_format needs for any set, the end included. */
#define LITHOS_TPCSET_TEXT_MAX 352u

/* "0-3,9-16,75" ("-" for the empty set). Returns text. */
char *lithos_tpcset_format(const struct lithos_tpcset *s, char text[LITHOS_TPCSET_TEXT_MAX]);
/* The reverse. 0, or -EINVAL (not of that form, a bit over 127, a range that runs backwards). */
int lithos_tpcset_parse(const char *text, struct lithos_tpcset *ret_set);
