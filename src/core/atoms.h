/* Into what should a kernel be cut? A plan from how long it takes, and the account of what cutting it cost. Pure: no I/O, clock,
 * thread or allocation.
 *
 * An atom is a number of whole waves: as many as come nearest to the length asked for, on however many TPCs the kernel will have, and
 * never less than one, since below a wave SMs stand idle. Kernels hardly longer than an atom stay whole, and so do those whose
 * atoms would launch too many blocks that end at once.
 *
 * Whether a cut is worth its price is not reasoned but seen (paper 5.4: "off for ..."). An operator that is cut is left whole now and
 * then until both times are known. If atoms take longer by too much, they are made twice as long, until there would be less than
 * two; then it stays whole. This is looked into again after a thousand launches, then two thousand and so on. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hw/atom.h"

struct lithos_atom_limits {
    uint64_t atom_ns;  /* about as long as an atom is to be */
    uint64_t floor_ns; /* and no shorter than that, whoever asks */
    uint64_t trial_ns; /* longer kernels are never left whole to see how long they take */
    uint32_t
        exit_ps; /* what a block that ends in the prelude costs, chained behind work that fills the card */
    uint32_t exits_ppm;  /* of its time, how much that may cost a kernel */
    uint32_t slower_ppm; /* how much longer it may take in atoms, seen */
    uint32_t card_sms;
};

/* For a policy of DURATION, what is usual for the rest. exit_ps 0: not measured. */
void lithos_atom_limits_init(struct lithos_atom_limits *limits, const struct lithos_atom_policy *policy,
                             uint32_t exit_ps, uint32_t card_sms);

struct lithos_atom_kernel {
    uint64_t blocks;
    uint32_t blocks_per_sm; /* at once, not 0 */
    uint32_t sms;           /* that it may use, not 0 */
    uint64_t duration_ns;   /* whole, on those */
};

struct lithos_atom_plan {
    struct lithos_atom_choice choice;
    uint64_t waves, wave_ns;
    uint32_t atoms; /* that it makes there, rounding to slices left aside; 0: whole */
};

/* was_cut: it is being cut now, which it is not to flutter about. */
void lithos_atom_plan(const struct lithos_atom_limits *limits, const struct lithos_atom_kernel *kernel,
                      bool was_cut, struct lithos_atom_plan *ret_plan);

/* ---- what is known of a process's operators */

struct lithos_atom_book; /* opaque, bounded: LITHOS_PLAN_ROWS operators */

/* A launch that has ended. */
struct lithos_atom_sample {
    uint64_t key; /* of the operator, not 0 */
    uint64_t blocks, duration_ns;
    uint32_t blocks_per_sm; /* 0: not told this time */
    uint32_t sms;           /* that it ran on, not 0 */
    uint32_t atoms;         /* it was cut into; 0: whole */
    bool fair;              /* nothing else of the tenant ran beside it, and its start is known */
};

/* What is to be published of an operator, and in which row (hw/atom.h). */
struct lithos_atom_row {
    uint32_t row;
    uint64_t key; /* 0: the row is to be cleared */
    struct lithos_atom_choice choice;
    uint64_t predicted_ns, wave_ns; /* medians of the last samples */
};

struct lithos_atom_book_stats {
    uint64_t operators;               /* known now */
    uint64_t cut;                     /* of them being cut */
    uint64_t whole[LITHOS_WHOLE_MAX]; /* and the others, by reason */
    uint64_t trials, slower;          /* ended; of them those that found the cut too slow */
    uint64_t forgotten;               /* operators that made room for others */
};

size_t lithos_atom_book_bytes(void);
/* Begin in mem (lithos_atom_book_bytes of it, aligned to 64, zeroed, the caller's); nothing is to be freed. */
struct lithos_atom_book *lithos_atom_book_init(void *mem);
/* True: *ret_row is to be published. Any values are taken. */
bool lithos_atom_book_observe(struct lithos_atom_book *book, const struct lithos_atom_limits *limits,
                              const struct lithos_atom_sample *sample, struct lithos_atom_row *ret_row);
/* The limits have changed: every operator anew, one a call, from *cursor (0 at first) on. False: that was all. */
bool lithos_atom_book_replan(struct lithos_atom_book *book, const struct lithos_atom_limits *limits,
                             uint32_t *cursor, struct lithos_atom_row *ret_row);
void lithos_atom_book_stats(const struct lithos_atom_book *book, struct lithos_atom_book_stats *ret_stats);
