/* What prelude.c and prelude_decode.c share: where the parts of an instruction of Volta and later lie. Known from what ptxas makes
 * of known PTX; cross-checked with the tables of Mesa's NAK compiler (src/nouveau/compiler/nak/sm70_encode.rs). */
#pragma once

#include "hw/prelude.h"

struct lithos_instruction {
    uint64_t low, high;
};

/* Bits of `low`. */
#define LITHOS_SASS_OPCODE 0xfffull
#define LITHOS_SASS_GUARD_LOW 12 /* predicate 0 to 6, 7 true; bit 15: negated */
#define LITHOS_SASS_DST_LOW 16
#define LITHOS_SASS_SRC_A_LOW 24
#define LITHOS_SASS_SRC_B_LOW 32
#define LITHOS_SASS_OFFSET_LOW 38      /* of a constant, bytes, 16 bits */
#define LITHOS_SASS_LDCU_OFFSET_LOW 37 /* the same of LDCU, 17 bits */
#define LITHOS_SASS_BANK_LOW 54        /* 5 bits */

/* Bits of `high`. */
#define LITHOS_SASS_SRC_C_LOW 0
#define LITHOS_SASS_SPECIAL_LOW 8   /* S2R, S2UR: which register, 8 bits */
#define LITHOS_SASS_COMPARE_LOW 12  /* ISETP, 3 bits */
#define LITHOS_SASS_DST_PRED_LOW 17 /* ISETP, 3 bits */
#define LITHOS_SASS_STALL_LOW 41    /* cycles, 4 bits */
#define LITHOS_SASS_YIELD_LOW 45
#define LITHOS_SASS_WRITE_LOW 46 /* barrier set when the result is there, 3 bits, 7 none */
#define LITHOS_SASS_READ_LOW 49  /* barrier set when the sources are read, 3 bits, 7 none */
#define LITHOS_SASS_WAIT_LOW 52  /* barriers waited for, a bit each, 6 bits */

#define LITHOS_SASS_CTAID_X 0x25u /* special registers: the block's index, y and z follow */
