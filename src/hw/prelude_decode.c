/* Follow the prelude's code, value by value. Strict: an instruction must be, bit for bit, one that is listed here, but for the
 * fields that are read. */
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "hw/prelude_internal.h"

enum op {
    OP_S2R,       /* register := special */
    OP_S2UR,      /* uniform register := special */
    OP_LDC,       /* register := constant, 32 bits */
    OP_ISETP_RC,  /* predicate := register ? constant, unsigned */
    OP_ISETP_RUR, /* predicate := register ? uniform register, unsigned */
    OP_EXIT,
    OP_JMP, /* to a 64-bit constant */
    OP_NOP,
};

#define FIELD(bits, low) (((1ull << (bits)) - 1) << (low))
#define GUARD FIELD(4, LITHOS_SASS_GUARD_LOW)
#define DST FIELD(8, LITHOS_SASS_DST_LOW)
#define SRC_A FIELD(8, LITHOS_SASS_SRC_A_LOW)
#define SRC_B FIELD(8, LITHOS_SASS_SRC_B_LOW)
#define CONSTANT (FIELD(16, LITHOS_SASS_OFFSET_LOW) | FIELD(5, LITHOS_SASS_BANK_LOW))
#define SPECIAL FIELD(8, LITHOS_SASS_SPECIAL_LOW)
#define COMPARE FIELD(3, LITHOS_SASS_COMPARE_LOW)
#define DST_PRED FIELD(3, LITHOS_SASS_DST_PRED_LOW)
#define CONTROL FIELD(17, LITHOS_SASS_STALL_LOW) /* all but the reuse flags, which must be 0 */

/* An instruction as it must be outside of the fields that are read. */
static const struct form {
    enum op op;
    struct lithos_instruction fixed, fields;
} forms[] = {
    {OP_S2R, {0x919, 0}, {GUARD | DST, SPECIAL | CONTROL}},
    {OP_S2UR, {0x9c3, 0}, {GUARD | DST, SPECIAL | CONTROL}},
    {OP_LDC, {0xff000b82, 0x800}, {GUARD | DST | CONSTANT, CONTROL}},
    {OP_ISETP_RC, {0xa0c, 0x03f00070}, {GUARD | SRC_A | CONSTANT, COMPARE | DST_PRED | CONTROL}},
    {OP_ISETP_RUR, {0xc0c, 0x0bf00070}, {GUARD | SRC_A | SRC_B, COMPARE | DST_PRED | CONTROL}},
    {OP_EXIT, {0x94d, 0x03800000}, {GUARD, CONTROL}},
    {OP_JMP, {0xb4a, 0x03800000}, {GUARD | CONSTANT, CONTROL}},
    {OP_NOP, {0x918, 0}, {GUARD, CONTROL}},
};

#define NO_BARRIER 7u
#define BARRIERS 6u
#define TRUE_PRED 7u
#define GUARD_TRUE 7u
#define REGISTERS 255u /* the 256th is always zero */
#define UNIFORM_REGISTERS 63u
/* Cycles until a comparison's result can be used: what ptxas waits on every generation listed. */
#define PRED_CYCLES 13u

/* What a register holds. */
struct value {
    enum { VALUE_UNKNOWN, VALUE_INDEX, VALUE_CONSTANT } kind;
    unsigned dim;          /* INDEX */
    unsigned bank, offset; /* CONSTANT */
    unsigned barrier;      /* to be waited for before it is used, or NO_BARRIER */
};

struct walk {
    struct value registers[REGISTERS], uniform[UNIFORM_REGISTERS];
    struct {
        bool known, survives; /* survives: it says that the block is NOT below lo, else that it is */
        unsigned dim, bank, offset;
        unsigned ready; /* cycle */
    } preds[TRUE_PRED];
    unsigned pending; /* barriers set and not waited for since, a bit each */
    unsigned cycle;
    bool tested; /* blocks below lo have ended */
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

static struct value constant_of(const struct lithos_instruction *i)
{
    return (struct value){.kind = VALUE_CONSTANT,
                          .bank = get(i->low, LITHOS_SASS_BANK_LOW, 5),
                          .offset = get(i->low, LITHOS_SASS_OFFSET_LOW, 16),
                          .barrier = NO_BARRIER};
}

/* A value that is written late: the barrier it is announced by is the only thing that makes it usable. */
static int write_late(struct walk *w, struct value *to, const struct lithos_instruction *i, struct value v)
{
    v.barrier = get(i->high, LITHOS_SASS_WRITE_LOW, 3);
    if (v.barrier >= BARRIERS)
        return -EINVAL;
    w->pending |= 1u << v.barrier;
    *to = v;
    return 0;
}

static int special(struct walk *w, const struct lithos_instruction *i, bool uniform)
{
    unsigned dst = get(i->low, LITHOS_SASS_DST_LOW, 8), which = get(i->high, LITHOS_SASS_SPECIAL_LOW, 8);
    if (dst >= (uniform ? UNIFORM_REGISTERS : REGISTERS) || which < LITHOS_SASS_CTAID_X ||
        which > LITHOS_SASS_CTAID_X + 2)
        return -EINVAL;
    if (!uniform)
        w->m.registers = LITHOS_MAX(w->m.registers, dst + 1);
    struct value v = {.kind = VALUE_INDEX, .dim = which - LITHOS_SASS_CTAID_X};
    return write_late(w, uniform ? &w->uniform[dst] : &w->registers[dst], i, v);
}

static int load_constant(struct walk *w, const struct lithos_instruction *i)
{
    unsigned dst = get(i->low, LITHOS_SASS_DST_LOW, 8);
    struct value v = constant_of(i);
    if (dst >= REGISTERS || v.offset % sizeof(uint32_t))
        return -EINVAL;
    w->m.registers = LITHOS_MAX(w->m.registers, dst + 1);
    return write_late(w, &w->registers[dst], i, v);
}

static bool usable(const struct walk *w, const struct value *v)
{
    return v->kind != VALUE_UNKNOWN && (v->barrier == NO_BARRIER || !(w->pending & 1u << v->barrier));
}

/* a ? b, one of them the index and the other lo. */
static int compare(struct walk *w, const struct lithos_instruction *i, const struct value *a,
                   const struct value *b)
{
    enum { LT = 1, EQ, LE, GT, NE, GE };
    unsigned how = get(i->high, LITHOS_SASS_COMPARE_LOW, 3), pred = get(i->high, LITHOS_SASS_DST_PRED_LOW, 3);
    const struct value *index = a->kind == VALUE_INDEX ? a : b, *lo = a->kind == VALUE_INDEX ? b : a;
    if (!usable(w, a) || !usable(w, b) || index->kind != VALUE_INDEX || lo->kind != VALUE_CONSTANT ||
        lo->offset % sizeof(uint32_t) || pred >= TRUE_PRED)
        return -EINVAL;
    bool index_first = index == a;
    bool below = how == (index_first ? LT : GT), not_below = how == (index_first ? GE : LE);
    if (!below && !not_below)
        return -EINVAL;
    w->preds[pred].known = true;
    w->preds[pred].survives = not_below;
    w->preds[pred].dim = index->dim;
    w->preds[pred].bank = lo->bank;
    w->preds[pred].offset = lo->offset;
    w->preds[pred].ready = w->cycle + PRED_CYCLES;
    return 0;
}

/* Blocks below lo end here, all others go on. */
static int leave(struct walk *w, const struct lithos_instruction *i)
{
    unsigned pred = get(i->low, LITHOS_SASS_GUARD_LOW, 3);
    bool negated = get(i->low, LITHOS_SASS_GUARD_LOW + 3, 1);
    if (w->tested || pred >= TRUE_PRED || !w->preds[pred].known || w->cycle < w->preds[pred].ready ||
        w->preds[pred].survives != negated)
        return -EINVAL;
    w->tested = true;
    w->m.dim = w->preds[pred].dim;
    w->m.lo_bank = w->preds[pred].bank;
    w->m.lo_offset = w->preds[pred].offset;
    return 0;
}

/* Nothing may be under way any more: the kernel uses barriers and registers as its own. */
static int jump(struct walk *w, const struct lithos_instruction *i)
{
    struct value target = constant_of(i);
    if (!w->tested || w->pending || guarded(i) || target.offset % sizeof(uint64_t))
        return -EINVAL;
    w->m.target_bank = target.bank;
    w->m.target_offset = target.offset;
    return 0;
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
    bool late = f->op == OP_S2R || f->op == OP_S2UR || f->op == OP_LDC;
    if (get(i->high, LITHOS_SASS_READ_LOW, 3) != NO_BARRIER ||
        (!late && get(i->high, LITHOS_SASS_WRITE_LOW, 3) != NO_BARRIER))
        return -EINVAL;
    struct value c = constant_of(i);
    switch (f->op) {
    case OP_S2R:
    case OP_S2UR:
        return special(w, i, f->op == OP_S2UR);
    case OP_LDC:
        return load_constant(w, i);
    case OP_ISETP_RC:
    case OP_ISETP_RUR: {
        unsigned a = get(i->low, LITHOS_SASS_SRC_A_LOW, 8), b = get(i->low, LITHOS_SASS_SRC_B_LOW, 8);
        if (a >= REGISTERS || (f->op == OP_ISETP_RUR && b >= UNIFORM_REGISTERS))
            return -EINVAL;
        return compare(w, i, &w->registers[a], f->op == OP_ISETP_RC ? &c : &w->uniform[b]);
    }
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
