/* The prelude: the few instructions that the blocks of an atom run before their kernel's own, as data, with a decoder that
 * checks them (docs/hardware.md, "Atoms").
 *
 * The upper end of an atom is the hardware's, as far as it goes in whole slices of the grid: its queue descriptor names fewer blocks.
 * The rest is the prelude's: a block that is not the atom's ends at once, any other jumps to the kernel. There are four of it. Three
 * compare the block's index along one dimension with `lo`; the fourth, for atoms that begin or end within a slice, its linear index
 * with `lo` and `lo + span`. What they need they have from constant bank 6, which no kernel seen uses: struct lithos_prelude_entry.
 * No stack, no barrier, and nothing is left behind that the kernel could notice.
 *
 * The code lives in a module of its own, made at run time: the driver compiles some PTX for its card, which gives an image
 * of the form that this driver takes, and the instructions in it are replaced by ours (driver/prelude.h). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LITHOS_PRELUDE_BANK 6u
/* Which of them: that of dimension 0 x, 1 y, 2 z, or the linear one. */
#define LITHOS_PRELUDE_LINE 3u
#define LITHOS_PRELUDE_KINDS 4u
/* Bytes from the code of one to that of the next. */
#define LITHOS_PRELUDE_STRIDE 256u
#define LITHOS_PRELUDE_BYTES (LITHOS_PRELUDE_KINDS * LITHOS_PRELUDE_STRIDE)
#define LITHOS_PRELUDE_INSTRUCTION_BYTES 16u

/* What constant bank 6 holds while an atom runs. */
struct lithos_prelude_entry {
    uint32_t lo;            /* blocks below it along the cut dimension, or in the line, end at once */
    uint32_t span;          /* LINE: and those from lo + span on */
    uint64_t target;        /* address of the kernel's code */
    uint32_t width, height; /* LINE: of the kernel's grid, in blocks */
    uint8_t padding[40];
} __attribute__((aligned(64)));
/* One that nothing survives. */
#define LITHOS_PRELUDE_NOTHING UINT32_MAX

/* The kernel in the image that gives its room (driver/prelude.h). */
#define LITHOS_PRELUDE_KERNEL "lithos_prelude"

struct lithos_prelude_row; /* opaque: a generation's code */

/* The code for a card of that compute capability. 0; -ENOTSUP when there is none; -EPERM when there is one that was not proved
 * on a card while allow_unproved is false. */
int lithos_prelude_find(int cc_major, int cc_minor, bool allow_unproved,
                        const struct lithos_prelude_row **ret_row);
/* Registers that a kernel must have at least. */
uint32_t lithos_prelude_registers(const struct lithos_prelude_row *row);
/* The code of all: LITHOS_PRELUDE_BYTES at text. */
void lithos_prelude_write(const struct lithos_prelude_row *row, void *text);

/* What some code does, found out by following it. */
struct lithos_prelude_meaning {
    unsigned kind; /* whose index is compared: 0 x, 1 y, 2 z, LITHOS_PRELUDE_LINE the linear one */
    unsigned bank; /* of all constants */
    uint32_t lo_offset, target_offset;                 /* bytes in it */
    uint32_t span_offset, width_offset, height_offset; /* LINE; else 0 */
    unsigned instructions;                             /* of a block that goes on to the kernel */
    unsigned registers;                                /* one more than the highest that is written */
};

/* Follow the code at text, at most `bytes` of it. 0 when it does exactly this: compute one index of the block (x, y, z, or
 * (z * height + y) * width + x), end if that is below lo (or, of the linear one, not below lo + span), else jump to the address in a
 * 64-bit constant; the others are 32-bit constants of the same bank; with every result waited for before it is used and before the
 * jump. -EINVAL for anything else, also for what may be harmless but is not known. Reads nothing beyond. */
int lithos_prelude_decode(const void *text, size_t bytes, struct lithos_prelude_meaning *ret_meaning);

/* The code of the image's kernel, within it. 0; -EBADMSG when the image is no 64-bit little-endian ELF file, has no section of
 * code by that name, or too small a one. The image may hold anything. */
int lithos_prelude_text(const void *image, size_t bytes, size_t *ret_offset, size_t *ret_bytes);
/* Put the code in the place of the image's, then look whether it does there what it should. 0; -EBADMSG as above; -EINVAL as
 * lithos_prelude_decode, or when it reads another bank than LITHOS_PRELUDE_BANK. */
int lithos_prelude_patch(const struct lithos_prelude_row *row, void *image, size_t bytes);
