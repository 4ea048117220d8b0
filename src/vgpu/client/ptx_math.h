/* PTX arithmetic on register bits. */
#pragma once

#include "vgpu/client/ptx_internal.h"

/* The value of a type's bits, sign-extended when the type is signed, zero-extended otherwise. */
uint64_t ptx_extend(uint64_t bits, enum ptx_type type);
/* The result of an instruction that touches registers alone; v: its sources. */
uint64_t ptx_compute(const struct ptx_instr *in, const uint64_t v[3]);
/* What an atomic operation leaves behind. */
uint64_t ptx_atomic(enum ptx_atom op, enum ptx_type type, uint64_t old, uint64_t x, uint64_t y);
