/* Follow the prelude's code, value by value. Strict: an instruction must be, bit for bit, one that is listed here, but for the
 * fields that are read. */
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "hw/prelude_internal.h"

enum op {
    OP_S2R,        /* register := special */
    OP_S2UR,       /* uniform register := special */
    OP_LDC,        /* register := constant, 32 bits */
    OP_LDC64,      /* two of them */
    OP_ULDC64,     /* two uniform registers := constants */
    OP_LDCU64,     /* the same, announced late */
    OP_IMAD_RCR,   /* register := register * constant + register */
    OP_UIMAD,      /* the same, all uniform registers */
    OP_IADD3_R_C,  /* register := register - constant */
    OP_IADD3_UR_R, /* register := uniform register - register */
    OP_ISETP_RC,   /* predicate := register ? constant, unsigned */
    OP_ISETP_RR,   /* predicate := register ? register */
    OP_ISETP_RUR,  /* predicate := register ? uniform register */
    OP_EXIT,
    OP_JMP, /* to a 64-bit constant */
    OP_NOP,
};

#define FIELD(bits, low) (((1ull << (bits)) - 1) << (low))
#define GUARD FIELD(4, LITHOS_SASS_GUARD_LOW)
#define DST FIELD(8, LITHOS_SASS_DST_LOW)
#define SRC_A FIELD(8, LITHOS_SASS_SRC_A_LOW)
#define SRC_B FIELD(8, LITHOS_SASS_SRC_B_LOW)
#define SRC_C FIELD(8, LITHOS_SASS_SRC_C_LOW)
#define CONSTANT (FIELD(16, LITHOS_SASS_OFFSET_LOW) | FIELD(5, LITHOS_SASS_BANK_LOW))
#define CONSTANT_LDCU (FIELD(17, LITHOS_SASS_LDCU_OFFSET_LOW) | FIELD(5, LITHOS_SASS_BANK_LOW))
#define SPECIAL FIELD(8, LITHOS_SASS_SPECIAL_LOW)
#define COMPARE FIELD(3, LITHOS_SASS_COMPARE_LOW)
#define DST_PRED FIELD(3, LITHOS_SASS_DST_PRED_LOW)
#define CONTROL FIELD(17, LITHOS_SASS_STALL_LOW) /* all but the reuse flags, which must be 0 */

/* An instruction as it must be outside of the fields that are read. */
static const struct form {
    enum op op;
    bool late; /* its result is announced by a barrier */
    struct lithos_instruction fixed, fields;
} forms[] = {
    {OP_S2R, true, {0x919, 0}, {GUARD | DST, SPECIAL | CONTROL}},
    {OP_S2UR, true, {0x9c3, 0}, {GUARD | DST, SPECIAL | CONTROL}},
    {OP_LDC, true, {0xff000b82, 0x800}, {GUARD | DST | CONSTANT, CONTROL}},
    {OP_LDC64, true, {0xff000b82, 0xa00}, {GUARD | DST | CONSTANT, CONTROL}},
    {OP_ULDC64, false, {0xab9, 0xa00}, {GUARD | DST | CONSTANT, CONTROL}},
    {OP_LDCU64, true, {0xff0007ac, 0x08000a00}, {GUARD | DST | CONSTANT_LDCU, CONTROL}},
    {OP_IMAD_RCR, false, {0xa24, 0x078e0200}, {GUARD | DST | SRC_A | CONSTANT, SRC_C | CONTROL}},
    {OP_UIMAD, false, {0x2a4, 0x0f8e0200}, {GUARD | DST | SRC_A | SRC_B, SRC_C | CONTROL}},
    {OP_IADD3_R_C, false, {0x8000000000000a10, 0x07ffe0ff}, {GUARD | DST | SRC_A | CONSTANT, CONTROL}},
    {OP_IADD3_UR_R, false, {0xc10, 0x0fffe1ff}, {GUARD | DST | SRC_A | SRC_B, CONTROL}},
    {OP_ISETP_RC, false, {0xa0c, 0x03f00070}, {GUARD | SRC_A | CONSTANT, COMPARE | DST_PRED | CONTROL}},
    {OP_ISETP_RR, false, {0x20c, 0x03f00070}, {GUARD | SRC_A | SRC_B, COMPARE | DST_PRED | CONTROL}},
    {OP_ISETP_RUR, false, {0xc0c, 0x0bf00070}, {GUARD | SRC_A | SRC_B, COMPARE | DST_PRED | CONTROL}},
    {OP_EXIT, false, {0x94d, 0x03800000}, {GUARD, CONTROL}},
    {OP_JMP, false, {0xb4a, 0x03800000}, {GUARD | CONSTANT, CONTROL}},
    {OP_NOP, false, {0x918, 0}, {GUARD, CONTROL}},
};

#define NO_BARRIER 7u
#define BARRIERS 6u
#define TRUE_PRED 7u
#define GUARD_TRUE 7u
#define REGISTERS 255u /* the 256th is always zero */
#define UNIFORM_REGISTERS 63u
/* Cycles until a result can be used: what ptxas waits at least, on every generation listed. */
#define PRED_CYCLES 13u
#define ULDC_CYCLES 12u
#define ADD_CYCLES 4u
#define MAD_CYCLES 4u /* by another of its kind */
#define IMAD_CYCLES 5u
#define UIMAD_CYCLES 6u

/* What a register holds. */
struct value {
    enum {
        VALUE_UNKNOWN,
        VALUE_INDEX,    /* of the block, along dim */
        VALUE_CONSTANT, /* at offset */
        VALUE_ROW,      /* z * height + y */
        VALUE_LINEAR,   /* row * width + x */
        VALUE_RELATIVE, /* linear - lo */
    } kind;
    unsigned dim, offset, height, width, lo;
    enum op by;
    unsigned cycle;   /* when that was issued */
    unsigned barrier; /* to be waited for before it is used, or NO_BARRIER */
};

struct walk {
    struct value registers[REGISTERS], uniform[UNIFORM_REGISTERS];
    struct {
        bool known, survives; /* survives: it says that the block is the atom's, else that it is not */
        unsigned kind, lo, span, height, width;
        unsigned ready; /* cycle */
    } preds[TRUE_PRED];
    unsigned pending; /* barriers set and not waited for since, a bit each */
    unsigned cycle;
    bool tested; /* blocks that are not the atom's have ended */
    bool have_bank;
    struct lithos_prelude_meaning m;
};

static unsigned get(uint64_t word, unsigned low, unsigned bits)
{
    return (unsigned)(word >> low) & ((1u << bits) - 1);
}

static const struct form *form_of(const struct lithos_instruction *i)
{
    for (size_t f = 0; f < LITHOS_ARRAY_SIZE(forms); f++)
        if ((i->low & ~forms[f].fields.low) == forms[f].fixed.low &&
            (i->high & ~forms[f].fields.high) == forms[f].fixed.high)
            return &forms[f];
    return NULL;
}

static bool guarded(const struct lithos_instruction *i)
{
    return get(i->low, LITHOS_SASS_GUARD_LOW, 4) != GUARD_TRUE;
}

/* All constants lie in one bank. */
static int constant_of(struct walk *w, const struct lithos_instruction *i, enum op op, struct value *ret)
{
    unsigned bank = get(i->low, LITHOS_SASS_BANK_LOW, 5);
    *ret = (struct value){.kind = VALUE_CONSTANT, .by = op, .cycle = w->cycle, .barrier = NO_BARRIER};
    ret->offset = op == OP_LDCU64 ? get(i->low, LITHOS_SASS_LDCU_OFFSET_LOW, 17)
                                  : get(i->low, LITHOS_SASS_OFFSET_LOW, 16);
    if (w->have_bank && bank != w->m.bank)
        return -EINVAL;
    w->have_bank = true;
    w->m.bank = bank;
    return 0;
}

/* NULL: there is no such register, or so many from it on. */
static struct value *register_at(struct walk *w, unsigned number, unsigned count, bool uniform)
{
    if (number + count > (uniform ? UNIFORM_REGISTERS : REGISTERS) || number % count)
        return NULL;
    return uniform ? &w->uniform[number] : &w->registers[number];
}

/* Where an instruction's result goes. */
static struct value *destination(struct walk *w, const struct lithos_instruction *i, unsigned count,
                                 bool uniform)
{
    unsigned number = get(i->low, LITHOS_SASS_DST_LOW, 8);
    struct value *to = register_at(w, number, count, uniform);
    if (to && !uniform)
        w->m.registers = LITHOS_MAX(w->m.registers, number + count);
    return to;
}

/* A value that is written late: the barrier it is announced by is the only thing that makes it usable. */
static int announce(struct walk *w, const struct lithos_instruction *i, struct value *v)
{
    v->barrier = get(i->high, LITHOS_SASS_WRITE_LOW, 3);
    if (v->barrier >= BARRIERS)
        return -EINVAL;
    w->pending |= 1u << v->barrier;
    return 0;
}

static int special(struct walk *w, const struct lithos_instruction *i, enum op op)
{
    unsigned which = get(i->high, LITHOS_SASS_SPECIAL_LOW, 8);
    struct value *to = destination(w, i, 1, op == OP_S2UR);
    if (!to || which < LITHOS_SASS_CTAID_X || which > LITHOS_SASS_CTAID_X + 2)
        return -EINVAL;
    *to = (struct value){.kind = VALUE_INDEX, .dim = which - LITHOS_SASS_CTAID_X, .by = op};
    return announce(w, i, to);
}

static int load_constants(struct walk *w, const struct lithos_instruction *i, const struct form *f)
{
    unsigned count = f->op == OP_LDC ? 1 : 2;
    struct value *to = destination(w, i, count, f->op == OP_ULDC64 || f->op == OP_LDCU64), v;
    if (!to || constant_of(w, i, f->op, &v) < 0 || v.offset % (count * sizeof(uint32_t)) ||
        (f->late && announce(w, i, &v) < 0))
        return -EINVAL;
    for (unsigned n = 0; n < count; n++, v.offset += sizeof(uint32_t))
        to[n] = v;
    return 0;
}

/* The value of a source for an instruction that is issued now. NULL: not known, or not there yet. */
static const struct value *source(struct walk *w, unsigned number, bool uniform, enum op op)
{
    const struct value *v = register_at(w, number, 1, uniform);
    if (!v || v->kind == VALUE_UNKNOWN)
        return NULL;
    if (v->barrier != NO_BARRIER)
        return w->pending & 1u << v->barrier ? NULL : v;
    unsigned cycles = v->by == OP_ULDC64     ? ULDC_CYCLES
                      : v->by == OP_IMAD_RCR ? (op == v->by ? MAD_CYCLES : IMAD_CYCLES)
                      : v->by == OP_UIMAD    ? (op == v->by ? MAD_CYCLES : UIMAD_CYCLES)
                                             : ADD_CYCLES;
    return w->cycle >= v->cycle + cycles ? v : NULL;
}

/* a * b + c, on the way to the linear index. */
static int multiply_add(struct walk *w, const struct lithos_instruction *i, enum op op)
{
    bool uniform = op == OP_UIMAD;
    struct value constant;
    const struct value *a = source(w, get(i->low, LITHOS_SASS_SRC_A_LOW, 8), uniform, op),
                       *c = source(w, get(i->high, LITHOS_SASS_SRC_C_LOW, 8), uniform, op), *b = &constant;
    if (uniform)
        b = source(w, get(i->low, LITHOS_SASS_SRC_B_LOW, 8), true, op);
    else if (constant_of(w, i, op, &constant) < 0)
        return -EINVAL;
    if (!a || !b || !c || b->kind != VALUE_CONSTANT || b->offset % sizeof(uint32_t) || c->kind != VALUE_INDEX)
        return -EINVAL;
    struct value v = {.by = op, .cycle = w->cycle, .barrier = NO_BARRIER};
    if (a->kind == VALUE_INDEX && a->dim == 2 && c->dim == 1) {
        v.kind = VALUE_ROW;
        v.height = b->offset;
    } else if (a->kind == VALUE_ROW && c->dim == 0) {
        v.kind = VALUE_LINEAR;
        v.height = a->height;
        v.width = b->offset;
    } else {
        return -EINVAL;
    }
    struct value *to = destination(w, i, 1, uniform);
    if (!to)
        return -EINVAL;
    *to = v;
    return 0;
}

/* linear - lo */
static int subtract(struct walk *w, const struct lithos_instruction *i, enum op op)
{
    struct value constant;
    const struct value *a = source(w, get(i->low, LITHOS_SASS_SRC_A_LOW, 8), false, op), *linear = a, *lo = a;
    if (op == OP_IADD3_UR_R) {
        linear = source(w, get(i->low, LITHOS_SASS_SRC_B_LOW, 8), true, op);
    } else {
        if (constant_of(w, i, op, &constant) < 0)
            return -EINVAL;
        lo = &constant;
    }
    if (!linear || !lo || linear->kind != VALUE_LINEAR || lo->kind != VALUE_CONSTANT ||
        lo->offset % sizeof(uint32_t))
        return -EINVAL;
    struct value v = *linear;
    v.kind = VALUE_RELATIVE;
    v.lo = lo->offset;
    v.by = op;
    v.cycle = w->cycle;
    struct value *to = destination(w, i, 1, false);
    if (!to)
        return -EINVAL;
    *to = v;
    return 0;
}

/* a ? b, one of them the index (or how far it is beyond lo) and the other the constant. */
static int compare(struct walk *w, const struct lithos_instruction *i, const struct value *a,
                   const struct value *b)
{
    enum { LT = 1, EQ, LE, GT, NE, GE };
    unsigned how = get(i->high, LITHOS_SASS_COMPARE_LOW, 3), pred = get(i->high, LITHOS_SASS_DST_PRED_LOW, 3);
    if (!a || !b || pred >= TRUE_PRED)
        return -EINVAL;
    bool index_first = a->kind != VALUE_CONSTANT;
    const struct value *index = index_first ? a : b, *limit = index_first ? b : a;
    bool line = index->kind == VALUE_RELATIVE;
    if ((!line && index->kind != VALUE_INDEX) || limit->kind != VALUE_CONSTANT ||
        limit->offset % sizeof(uint32_t))
        return -EINVAL;
    bool below = how == (index_first ? LT : GT), not_below = how == (index_first ? GE : LE);
    if (!below && !not_below)
        return -EINVAL;
    w->preds[pred].known = true;
    w->preds[pred].survives = line ? below : not_below;
    w->preds[pred].kind = line ? LITHOS_PRELUDE_LINE : index->dim;
    w->preds[pred].lo = line ? index->lo : limit->offset;
    w->preds[pred].span = line ? limit->offset : 0;
    w->preds[pred].height = index->height;
    w->preds[pred].width = index->width;
    w->preds[pred].ready = w->cycle + PRED_CYCLES;
    return 0;
}

/* Blocks that are not the atom's end here, all others go on. */
static int leave(struct walk *w, const struct lithos_instruction *i)
{
    unsigned pred = get(i->low, LITHOS_SASS_GUARD_LOW, 3);
    bool negated = get(i->low, LITHOS_SASS_GUARD_LOW + 3, 1);
    if (w->tested || pred >= TRUE_PRED || !w->preds[pred].known || w->cycle < w->preds[pred].ready ||
        w->preds[pred].survives != negated)
        return -EINVAL;
    w->tested = true;
    w->m.kind = w->preds[pred].kind;
    w->m.lo_offset = w->preds[pred].lo;
    w->m.span_offset = w->preds[pred].span;
    w->m.height_offset = w->preds[pred].height;
    w->m.width_offset = w->preds[pred].width;
    return 0;
}

/* Nothing may be under way any more: the kernel uses barriers and registers as its own. */
static int jump(struct walk *w, const struct lithos_instruction *i)
{
    struct value target;
    if (!w->tested || w->pending || guarded(i) || constant_of(w, i, OP_JMP, &target) < 0 ||
        target.offset % sizeof(uint64_t))
        return -EINVAL;
    w->m.target_offset = target.offset;
    return 0;
}

static int set_predicate(struct walk *w, const struct lithos_instruction *i, enum op op)
{
    unsigned a = get(i->low, LITHOS_SASS_SRC_A_LOW, 8), b = get(i->low, LITHOS_SASS_SRC_B_LOW, 8);
    struct value constant;
    if (op == OP_ISETP_RC)
        return constant_of(w, i, op, &constant) < 0 ? -EINVAL
                                                    : compare(w, i, source(w, a, false, op), &constant);
    return compare(w, i, source(w, a, false, op), source(w, b, op == OP_ISETP_RUR, op));
}

/* 1: the end of the prelude. */
static int step(struct walk *w, const struct lithos_instruction *i)
{
    const struct form *f = form_of(i);
    if (!f)
        return -EINVAL;
    w->pending &= ~get(i->high, LITHOS_SASS_WAIT_LOW, 6);
    w->m.instructions++;
    if (f->op != OP_EXIT && guarded(i))
        return -EINVAL;
    /* Only what is announced late has a barrier to set, and nothing announces that it has read its sources. */
    if (get(i->high, LITHOS_SASS_READ_LOW, 3) != NO_BARRIER ||
        (!f->late && get(i->high, LITHOS_SASS_WRITE_LOW, 3) != NO_BARRIER))
        return -EINVAL;
    switch (f->op) {
    case OP_S2R:
    case OP_S2UR:
        return special(w, i, f->op);
    case OP_LDC:
    case OP_LDC64:
    case OP_ULDC64:
    case OP_LDCU64:
        return load_constants(w, i, f);
    case OP_IMAD_RCR:
    case OP_UIMAD:
        return multiply_add(w, i, f->op);
    case OP_IADD3_R_C:
    case OP_IADD3_UR_R:
        return subtract(w, i, f->op);
    case OP_ISETP_RC:
    case OP_ISETP_RR:
    case OP_ISETP_RUR:
        return set_predicate(w, i, f->op);
    case OP_EXIT:
        return leave(w, i);
    case OP_JMP:
        return jump(w, i) < 0 ? -EINVAL : 1;
    case OP_NOP:
        break;
    }
    return 0;
}

int lithos_prelude_decode(const void *text, size_t bytes, struct lithos_prelude_meaning *ret_meaning)
{
    struct walk w;
    memset(&w, 0, sizeof w);
    for (size_t at = 0; at + sizeof(struct lithos_instruction) <= bytes;
         at += sizeof(struct lithos_instruction)) {
        struct lithos_instruction i;
        memcpy(&i, (const uint8_t *)text + at, sizeof i);
        int r = step(&w, &i);
        if (r < 0)
            return r;
        if (r == 1) {
            *ret_meaning = w.m;
            return 0;
        }
        w.cycle += get(i.high, LITHOS_SASS_STALL_LOW, 4);
    }
    return -EINVAL;
}
