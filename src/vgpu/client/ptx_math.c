#include "vgpu/client/ptx_math.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/util.h"

static uint64_t truncate_to(uint64_t v, unsigned size)
{
    return size >= 8 ? v : v & ((1ull << (size * 8)) - 1);
}

uint64_t ptx_extend(uint64_t bits, enum ptx_type type)
{
    unsigned size = ptx_size(type);
    bits = truncate_to(bits, size);
    if (!ptx_is_signed(type) || size >= 8)
        return bits;
    uint64_t sign = 1ull << (size * 8 - 1);
    return (bits ^ sign) - sign;
}

/* ---- floats: f32 computed in float, f64 in double */

static float f32_of(uint64_t bits)
{
    uint32_t b = (uint32_t)bits;
    float f;
    memcpy(&f, &b, sizeof f);
    return f;
}

static uint64_t f32_bits(float f)
{
    uint32_t b;
    memcpy(&b, &f, sizeof b);
    return b;
}

static double f64_of(uint64_t bits)
{
    double d;
    memcpy(&d, &bits, sizeof d);
    return d;
}

static uint64_t f64_bits(double d)
{
    uint64_t b;
    memcpy(&b, &d, sizeof b);
    return b;
}

static float flush(float f)
{
    return fpclassify(f) == FP_SUBNORMAL ? copysignf(0, f) : f;
}

static float saturate(float f)
{
    return f >= 1 ? 1 : f > 0 ? f : 0; /* NaN too becomes 0 */
}

/* PTX min and max: of a number and a NaN, the number; -0 below +0, as fmin of this libc has it. */
#define FLOAT_OP(name, type, fma_, sqrt_, min_, max_, abs_)              \
    static type name(const struct ptx_instr *in, type a, type b, type c) \
    {                                                                    \
        switch (in->op) {                                                \
        case PTX_ADD:                                                    \
            return a + b;                                                \
        case PTX_SUB:                                                    \
            return a - b;                                                \
        case PTX_MUL:                                                    \
            return a * b;                                                \
        case PTX_MAD:                                                    \
        case PTX_FMA:                                                    \
            return fma_(a, b, c);                                        \
        case PTX_DIV:                                                    \
            return a / b;                                                \
        case PTX_MIN:                                                    \
            return min_(a, b);                                           \
        case PTX_MAX:                                                    \
            return max_(a, b);                                           \
        case PTX_NEG:                                                    \
            return -a;                                                   \
        case PTX_ABS:                                                    \
            return abs_(a);                                              \
        case PTX_SQRT:                                                   \
            return sqrt_(a);                                             \
        case PTX_RCP:                                                    \
            return 1 / a;                                                \
        default: /* PTX_RSQRT */                                         \
            return 1 / sqrt_(a);                                         \
        }                                                                \
    }
FLOAT_OP(compute_f32, float, fmaf, sqrtf, fminf, fmaxf, fabsf)
FLOAT_OP(compute_f64, double, fma, sqrt, fmin, fmax, fabs)

static uint64_t compute_float(const struct ptx_instr *in, const uint64_t v[3])
{
    if (in->type == PTX_F64)
        return f64_bits(compute_f64(in, f64_of(v[0]), f64_of(v[1]), f64_of(v[2])));
    float a = f32_of(v[0]), b = f32_of(v[1]), c = f32_of(v[2]);
    if (in->ftz) {
        a = flush(a);
        b = flush(b);
        c = flush(c);
    }
    float r = compute_f32(in, a, b, c);
    if (in->ftz)
        r = flush(r);
    return f32_bits(in->sat ? saturate(r) : r);
}

/* ---- whole numbers */

static uint64_t high_half(enum ptx_type type, uint64_t a, uint64_t b)
{
    unsigned size = ptx_size(type);
    if (ptx_is_signed(type))
        return (uint64_t)(((__int128)(int64_t)a * (int64_t)b) >> (size * 8));
    return (uint64_t)(((unsigned __int128)a * b) >> (size * 8));
}

/* The bits of a product: its low half, high half, or both. */
static uint64_t multiply(const struct ptx_instr *in, uint64_t a, uint64_t b)
{
    return in->half == PTX_HI ? high_half(in->type, a, b) : a * b;
}

/* Division by zero and of the least number by -1 trap nowhere on a card: all bits set, and the least number. */
static uint64_t divide(const struct ptx_instr *in, uint64_t a, uint64_t b)
{
    bool remainder = in->op == PTX_REM;
    if (b == 0)
        return remainder ? a : UINT64_MAX;
    if (!ptx_is_signed(in->type))
        return remainder ? a % b : a / b;
    if ((int64_t)b == -1)
        return remainder ? 0 : 0 - a;
    return (uint64_t)(remainder ? (int64_t)a % (int64_t)b : (int64_t)a / (int64_t)b);
}

static uint64_t shift(const struct ptx_instr *in, uint64_t a, uint64_t n)
{
    unsigned bits = ptx_size(in->type) * 8;
    n = truncate_to(n, 4);
    if (in->op == PTX_SHL)
        return n >= bits ? 0 : a << n;
    if (ptx_is_signed(in->type))
        return (uint64_t)((int64_t)a >> LITHOS_MIN(n, 63u));
    return n >= bits ? 0 : a >> n;
}

static bool less(enum ptx_type type, uint64_t a, uint64_t b)
{
    return ptx_is_signed(type) ? (int64_t)a < (int64_t)b : a < b;
}

static uint64_t compute_whole(const struct ptx_instr *in, uint64_t a, uint64_t b, uint64_t c)
{
    unsigned bits = ptx_size(in->type) * 8;
    switch (in->op) {
    case PTX_ADD:
        return a + b;
    case PTX_SUB:
        return a - b;
    case PTX_MUL:
        return multiply(in, a, b);
    case PTX_MAD:
        return multiply(in, a, b) + c;
    case PTX_DIV:
    case PTX_REM:
        return divide(in, a, b);
    case PTX_MIN:
        return less(in->type, a, b) ? a : b;
    case PTX_MAX:
        return less(in->type, a, b) ? b : a;
    case PTX_AND:
        return a & b;
    case PTX_OR:
        return a | b;
    case PTX_XOR:
        return a ^ b;
    case PTX_NOT:
        return in->type == PTX_PRED ? !a : ~a;
    case PTX_NEG:
        return 0 - a;
    case PTX_ABS:
        return (int64_t)a < 0 && ptx_is_signed(in->type) ? 0 - a : a;
    case PTX_POPC:
        return (uint64_t)__builtin_popcountll(a);
    case PTX_CLZ:
        return a ? (uint64_t)__builtin_clzll(a) - (64 - bits) : bits;
    default:
        return a;
    }
}

/* ---- comparisons */

static bool compare_float(enum ptx_cmp cmp, double a, double b)
{
    bool unordered = isnan(a) || isnan(b);
    switch (cmp) {
    case PTX_NUM:
        return !unordered;
    case PTX_NAN:
        return unordered;
    case PTX_EQ:
        return a == b;
    case PTX_NE:
        return !unordered && a != b;
    case PTX_LT:
        return a < b;
    case PTX_LE:
        return a <= b;
    case PTX_GT:
        return a > b;
    case PTX_GE:
        return a >= b;
    default: /* the same, or true of a NaN */
        return unordered || compare_float((enum ptx_cmp)(cmp - PTX_EQU + PTX_EQ), a, b);
    }
}

static bool compare_whole(enum ptx_cmp cmp, enum ptx_type type, uint64_t a, uint64_t b)
{
    switch (cmp) {
    case PTX_EQ:
        return a == b;
    case PTX_NE:
        return a != b;
    case PTX_LT:
        return less(type, a, b);
    case PTX_LE:
        return !less(type, b, a);
    case PTX_GT:
        return less(type, b, a);
    default:
        return !less(type, a, b);
    }
}

/* ---- conversions */

static double round_to_whole(double d, enum ptx_round round)
{
    switch (round) {
    case PTX_RNI:
        return nearbyint(d);
    case PTX_RMI:
        return floor(d);
    case PTX_RPI:
        return ceil(d);
    default:
        return trunc(d);
    }
}

/* Clamped to the type's range, NaN to 0, as the card does. */
static uint64_t float_to_whole(double d, enum ptx_type type)
{
    unsigned bits = ptx_size(type) * 8;
    if (isnan(d))
        return 0;
    if (ptx_is_signed(type)) {
        double most = ldexp(1, (int)bits - 1);
        if (d >= most)
            return (1ull << (bits - 1)) - 1;
        return d < -most ? 1ull << (bits - 1) : (uint64_t)(int64_t)d;
    }
    if (d <= 0)
        return 0;
    return d >= ldexp(1, (int)bits) ? UINT64_MAX : (uint64_t)d;
}

static uint64_t whole_to_float(const struct ptx_instr *in, uint64_t v)
{
    bool is_signed = ptx_is_signed(in->from);
    if (in->type == PTX_F32) {
        float f = is_signed ? (float)(int64_t)v : (float)v;
        return f32_bits(in->sat ? saturate(f) : f);
    }
    return f64_bits(is_signed ? (double)(int64_t)v : (double)v);
}

static uint64_t convert(const struct ptx_instr *in, uint64_t v)
{
    if (!ptx_is_float(in->from)) {
        v = ptx_extend(v, in->from);
        return ptx_is_float(in->type) ? whole_to_float(in, v) : ptx_extend(v, in->type);
    }
    double d = in->from == PTX_F32 ? (double)(in->ftz ? flush(f32_of(v)) : f32_of(v)) : f64_of(v);
    if (in->round >= PTX_RNI)
        d = round_to_whole(d, in->round);
    if (!ptx_is_float(in->type))
        return ptx_extend(float_to_whole(round_to_whole(d, in->round), in->type), in->type);
    if (in->type == PTX_F64)
        return f64_bits(d);
    float f = (float)d;
    if (in->ftz)
        f = flush(f);
    return f32_bits(in->sat ? saturate(f) : f);
}

uint64_t ptx_compute(const struct ptx_instr *in, const uint64_t v[3])
{
    enum ptx_type type = in->type;
    switch (in->op) {
    case PTX_MOV:
        return truncate_to(v[0], ptx_size(type));
    case PTX_SELP:
        return truncate_to(v[2] ? v[0] : v[1], ptx_size(type));
    case PTX_CVT:
        return convert(in, v[0]);
    case PTX_SETP:
        if (type == PTX_F32)
            return compare_float(in->cmp, f32_of(v[0]), f32_of(v[1]));
        if (type == PTX_F64)
            return compare_float(in->cmp, f64_of(v[0]), f64_of(v[1]));
        return compare_whole(in->cmp, type, ptx_extend(v[0], type), ptx_extend(v[1], type));
    case PTX_SHL:
    case PTX_SHR:
        return truncate_to(shift(in, ptx_extend(v[0], type), v[1]), ptx_size(type));
    default:
        break;
    }
    if (ptx_is_float(type))
        return compute_float(in, v);
    bool wide = (in->op == PTX_MUL || in->op == PTX_MAD) && in->half == PTX_WIDE;
    unsigned size = wide ? ptx_size(type) * 2 : ptx_size(type);
    /* The third operand of mad.wide has the width of the result. */
    uint64_t c = wide ? v[2] : ptx_extend(v[2], type);
    return truncate_to(compute_whole(in, ptx_extend(v[0], type), ptx_extend(v[1], type), c), size);
}

uint64_t ptx_atomic(enum ptx_atom op, enum ptx_type type, uint64_t old, uint64_t x, uint64_t y)
{
    uint64_t a = ptx_extend(old, type), b = ptx_extend(x, type);
    switch (op) {
    case PTX_ATOM_ADD:
        if (type == PTX_F32)
            return f32_bits(f32_of(old) + f32_of(x));
        return type == PTX_F64 ? f64_bits(f64_of(old) + f64_of(x)) : a + b;
    case PTX_ATOM_MIN:
        return less(type, a, b) ? a : b;
    case PTX_ATOM_MAX:
        return less(type, a, b) ? b : a;
    case PTX_ATOM_AND:
        return a & b;
    case PTX_ATOM_OR:
        return a | b;
    case PTX_ATOM_XOR:
        return a ^ b;
    case PTX_ATOM_EXCH:
        return x;
    case PTX_ATOM_CAS:
        return a == b ? y : old;
    case PTX_ATOM_INC:
        return a >= b ? 0 : a + 1;
    default: /* PTX_ATOM_DEC */
        return a == 0 || a > b ? b : a - 1;
    }
}
