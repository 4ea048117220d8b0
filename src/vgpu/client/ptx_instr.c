/* PTX instructions: opcode words with their modifiers, and operands. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "vgpu/client/ptx_parser.h"

/* Operands, in order: d destination, s source of the instruction's type, f source of the second type (cvt), u a 32-bit
 * number, p predicate source, D destination of twice the width when .wide, S source of that width, P predicate
 * destination, r destination of 32 bits, a address, l label, V vector of registers or one. */
static const struct opcode {
    const char *name, *operands;
    enum ptx_op op;
} opcodes[] = {
    {"ld", "Va", PTX_LD},        {"ldu", "Va", PTX_LD},      {"st", "aV", PTX_ST},
    {"mov", "ds", PTX_MOV},      {"add", "dss", PTX_ADD},    {"sub", "dss", PTX_SUB},
    {"mul", "Dss", PTX_MUL},     {"mad", "DssS", PTX_MAD},   {"fma", "dsss", PTX_FMA},
    {"div", "dss", PTX_DIV},     {"rem", "dss", PTX_REM},    {"min", "dss", PTX_MIN},
    {"max", "dss", PTX_MAX},     {"and", "dss", PTX_AND},    {"or", "dss", PTX_OR},
    {"xor", "dss", PTX_XOR},     {"not", "ds", PTX_NOT},     {"shl", "dsu", PTX_SHL},
    {"shr", "dsu", PTX_SHR},     {"setp", "Pss", PTX_SETP},  {"selp", "dssp", PTX_SELP},
    {"cvt", "df", PTX_CVT},      {"cvta", "ds", PTX_CVTA},   {"bra", "l", PTX_BRA},
    {"ret", "", PTX_EXIT},       {"exit", "", PTX_EXIT},     {"bar", "b", PTX_BAR},
    {"barrier", "b", PTX_BAR},   {"atom", "das", PTX_ATOM},  {"red", "as", PTX_ATOM},
    {"neg", "ds", PTX_NEG},      {"abs", "ds", PTX_ABS},     {"sqrt", "ds", PTX_SQRT},
    {"rcp", "ds", PTX_RCP},      {"rsqrt", "ds", PTX_RSQRT}, {"popc", "rs", PTX_POPC},
    {"clz", "rs", PTX_CLZ},      {"membar", "", PTX_NOP},    {"fence", "", PTX_NOP},
    {"nanosleep", "n", PTX_NOP},
};

static const struct {
    const char *name;
    uint8_t sreg;
} sregs[] = {
    {"%tid", PTX_SR_TID},
    {"%ntid", PTX_SR_NTID},
    {"%ctaid", PTX_SR_CTAID},
    {"%nctaid", PTX_SR_NCTAID},
    {"%clusterid", PTX_SR_CLUSTERID},
    {"%nclusterid", PTX_SR_NCLUSTERID},
    {"%cluster_ctaid", PTX_SR_CLUSTER_CTAID},
    {"%cluster_nctaid", PTX_SR_CLUSTER_NCTAID},
    {"%smid", PTX_SR_SMID},
    {"%nsmid", PTX_SR_NSMID},
    {"%laneid", PTX_SR_LANEID},
    {"%warpid", PTX_SR_WARPID},
    {"%nwarpid", PTX_SR_NWARPID},
    {"%globaltimer", PTX_SR_GLOBALTIMER},
    {"%globaltimer_lo", PTX_SR_GLOBALTIMER_LO},
    {"%globaltimer_hi", PTX_SR_GLOBALTIMER_HI},
    {"%clock", PTX_SR_CLOCK},
    {"%clock64", PTX_SR_CLOCK64},
    {"%cluster_ctarank", PTX_SR_CLUSTER_CTARANK},
    {"%cluster_nctarank", PTX_SR_CLUSTER_NCTARANK},
    {"%dynamic_smem_size", PTX_SR_DYNAMIC_SMEM},
    {"%gridid", PTX_SR_GRIDID},
};

static int named(const char *const *names, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (!strcmp(names[i], name))
            return (int)i;
    return -1;
}

static int sreg_named(const char *name)
{
    const char *dot = strchr(name, '.');
    size_t len = dot ? (size_t)(dot - name) : strlen(name);
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(sregs); i++) {
        if (strlen(sregs[i].name) != len || strncmp(sregs[i].name, name, len))
            continue;
        bool vector = sregs[i].sreg < PTX_SR_SMID;
        if (vector != (dot != NULL))
            return -1;
        if (!vector)
            return sregs[i].sreg;
        return dot[1] >= 'x' && dot[1] <= 'z' && !dot[2] ? sregs[i].sreg + (dot[1] - 'x') : -1;
    }
    return -1;
}

/* ---- modifiers */

static bool modifier_round(struct ptx_instr *in, const char *m)
{
    static const char *const names[] = {"rn", "rz", "rm", "rp", "rni", "rzi", "rmi", "rpi"};
    int i = named(names, LITHOS_ARRAY_SIZE(names), m);
    if (i < 0)
        return false;
    in->round = (uint8_t)i;
    /* Only rounding to nearest, but when a float becomes a whole number. */
    return i == PTX_RN || (in->op == PTX_CVT && i >= PTX_RNI);
}

static bool modifier_cmp(struct ptx_instr *in, const char *m)
{
    static const char *const names[] = {"eq",  "ne",  "lt",  "le",  "gt",  "ge",  "equ",
                                        "neu", "ltu", "leu", "gtu", "geu", "num", "nan"};
    static const char *const of_unsigned[] = {"lo", "ls", "hi", "hs"}; /* lt, le, gt, ge */
    int i = named(names, LITHOS_ARRAY_SIZE(names), m);
    if (i < 0 && (i = named(of_unsigned, 4, m)) >= 0)
        i += PTX_LT;
    if (i < 0)
        return false;
    in->cmp = (uint8_t)i;
    return true;
}

static bool modifier_memory(struct ptx_instr *in, const char *m)
{
    static const char *const spaces[] = {"generic", "global", "shared", "param"};
    static const char *const hints[] = {"volatile", "relaxed", "acquire", "release", "acq_rel", "weak", "sys",
                                        "gpu",      "cta",     "cluster", "nc",      "ca",      "cg",   "cs",
                                        "cv",       "lu",      "wb",      "wt",      "gl",      "sc"};
    int i = named(spaces, LITHOS_ARRAY_SIZE(spaces), m);
    if (i >= 0) {
        in->space = (uint8_t)i;
        return true;
    }
    if (!strcmp(m, "const")) {
        in->space = PTX_GLOBAL;
        return true;
    }
    if (!strcmp(m, "v2") || !strcmp(m, "v4")) {
        in->vector = (uint8_t)(m[1] - '0');
        return in->op == PTX_LD || in->op == PTX_ST;
    }
    return named(hints, LITHOS_ARRAY_SIZE(hints), m) >= 0;
}

static bool modifier_atom(struct ptx_instr *in, const char *m)
{
    static const char *const names[] = {"add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec"};
    int i = named(names, LITHOS_ARRAY_SIZE(names), m);
    if (i < 0)
        return false;
    in->atom = (uint8_t)i;
    return true;
}

static bool modifier_float(struct ptx_instr *in, const char *m)
{
    if (!strcmp(m, "ftz"))
        in->ftz = true;
    else if (!strcmp(m, "sat"))
        in->sat = true;
    else if (strcmp(m, "approx") && strcmp(m, "full"))
        return modifier_round(in, m);
    return true;
}

static bool modifier(struct ptx_instr *in, const char *m)
{
    enum ptx_type type = ptx_type_named(m);
    if (type != PTX_NONE) {
        if (in->type == PTX_NONE)
            in->type = (uint8_t)type;
        else if (in->op == PTX_CVT && in->from == PTX_NONE)
            in->from = (uint8_t)type;
        else
            return false;
        return true;
    }
    switch (in->op) {
    case PTX_LD:
    case PTX_ST:
        return modifier_memory(in, m);
    case PTX_ATOM:
        return modifier_atom(in, m) || modifier_memory(in, m);
    case PTX_CVTA:
        if (!strcmp(m, "to"))
            in->to_shared = true; /* a space follows: cleared below when it is not shared */
        return !strcmp(m, "to") || modifier_memory(in, m);
    case PTX_SETP:
        return modifier_cmp(in, m) || !strcmp(m, "ftz");
    case PTX_MUL:
    case PTX_MAD: {
        static const char *const halves[] = {"lo", "hi", "wide"};
        int i = named(halves, 3, m);
        if (i >= 0)
            in->half = (uint8_t)i;
        return i >= 0 || modifier_float(in, m);
    }
    case PTX_BAR:
        return !strcmp(m, "sync") || !strcmp(m, "cta") || !strcmp(m, "aligned");
    case PTX_BRA:
    case PTX_EXIT:
        return !strcmp(m, "uni");
    case PTX_NOP:
        return modifier_memory(in, m);
    case PTX_ADD:
    case PTX_SUB:
    case PTX_FMA:
    case PTX_DIV:
    case PTX_MIN:
    case PTX_MAX:
    case PTX_CVT:
    case PTX_NEG:
    case PTX_ABS:
    case PTX_SQRT:
    case PTX_RCP:
    case PTX_RSQRT:
        return modifier_float(in, m);
    default:
        return false;
    }
}

/* ---- operands */

static uint64_t immediate_bits(enum ptx_type type, double real, int64_t integer, bool is_real)
{
    if (type == PTX_F32) {
        float f = is_real ? (float)real : (float)integer;
        uint32_t bits;
        memcpy(&bits, &f, sizeof bits);
        return bits;
    }
    uint64_t bits;
    if (type == PTX_F64) {
        double d = is_real ? real : (double)integer;
        memcpy(&bits, &d, sizeof bits);
        return bits;
    }
    return (uint64_t)integer;
}

static int parse_immediate(struct ptx_parser *ps, enum ptx_type type, struct ptx_operand *ret)
{
    bool negative = ptx_is(ps, '-');
    if (negative)
        ptx_next(&ps->lx);
    bool is_real = ps->lx.kind == PTX_T_FLOAT;
    if (!is_real && ps->lx.kind != PTX_T_INT)
        return ptx_fail(ps, ps->lx.kind == PTX_T_PUNCT ? -ENOTSUP : -EINVAL, "operand");
    /* A float's bits may stand where bits are asked for; a float may not stand for a whole number. */
    if (is_real && type == PTX_B32)
        type = PTX_F32;
    if (is_real && type == PTX_B64)
        type = PTX_F64;
    if (is_real && !ptx_is_float(type))
        return ptx_fail(ps, -EINVAL, "a whole number expected");
    int64_t integer = negative ? (int64_t)(0 - (uint64_t)ps->lx.integer) : ps->lx.integer;
    double real = negative ? -ps->lx.real : ps->lx.real;
    *ret = (struct ptx_operand){PTX_O_IMM, immediate_bits(type, real, integer, is_real)};
    ptx_next(&ps->lx);
    return 0;
}

static int parse_register(struct ptx_parser *ps, bool predicate, bool sink, struct ptx_operand *ret)
{
    uint32_t value;
    if (ps->lx.kind == PTX_T_WORD && sink && !strcmp(ps->lx.text, "_")) {
        *ret = (struct ptx_operand){PTX_O_SINK, 0};
        ptx_next(&ps->lx);
        return 0;
    }
    const struct ptx_symbol *s = ps->lx.kind == PTX_T_WORD ? ptx_symbol(ps, ps->lx.text, &value) : NULL;
    if (!s || (s->kind != PTX_S_REG && s->kind != PTX_S_REGS))
        return ptx_fail(ps, ps->lx.kind == PTX_T_PUNCT ? -ENOTSUP : -EINVAL, "%s is no register",
                        ps->lx.text);
    if ((s->type == PTX_PRED) != predicate)
        return ptx_fail(ps, -EINVAL, "%s is %sa predicate", ps->lx.text, predicate ? "not " : "");
    *ret = (struct ptx_operand){PTX_O_REG, value};
    ptx_next(&ps->lx);
    return 0;
}

/* A name of memory: its address. */
static bool symbol_operand(const struct ptx_symbol *s, uint32_t value, struct ptx_operand *ret)
{
    static const uint8_t kinds[] = {[PTX_S_PARAM] = PTX_O_PARAM,
                                    [PTX_S_SHARED] = PTX_O_SHARED,
                                    [PTX_S_DYNAMIC] = PTX_O_DYNAMIC,
                                    [PTX_S_GLOBAL] = PTX_O_GLOBAL};
    if (s->kind == PTX_S_REG || s->kind == PTX_S_REGS)
        return false;
    *ret = (struct ptx_operand){kinds[s->kind], value};
    return true;
}

static int parse_source(struct ptx_parser *ps, enum ptx_type type, bool names, struct ptx_operand *ret)
{
    if (ps->lx.kind != PTX_T_WORD)
        return parse_immediate(ps, type, ret);
    uint32_t value;
    const struct ptx_symbol *s = ptx_symbol(ps, ps->lx.text, &value);
    if (s && names && s->kind != PTX_S_PARAM && symbol_operand(s, value, ret)) {
        ptx_next(&ps->lx);
        return 0;
    }
    int sreg = s ? -1 : sreg_named(ps->lx.text);
    if (sreg >= 0 || (!s && !strcmp(ps->lx.text, "WARP_SZ"))) {
        *ret = sreg >= 0 ? (struct ptx_operand){PTX_O_SREG, (uint64_t)sreg}
                         : (struct ptx_operand){PTX_O_IMM, 32};
        ptx_next(&ps->lx);
        return 0;
    }
    if (!s && ps->lx.text[0] == '%')
        return ptx_fail(ps, -ENOTSUP, "%s", ps->lx.text);
    return parse_register(ps, type == PTX_PRED, false, ret);
}

static int parse_address(struct ptx_parser *ps, struct ptx_instr *in)
{
    int r = ptx_expect(ps, '[');
    if (r)
        return r;
    uint32_t value;
    const struct ptx_symbol *s = ps->lx.kind == PTX_T_WORD ? ptx_symbol(ps, ps->lx.text, &value) : NULL;
    if (s && symbol_operand(s, value, &in->address))
        ptx_next(&ps->lx);
    else if (ps->lx.kind == PTX_T_INT)
        r = parse_immediate(ps, PTX_U64, &in->address);
    else
        r = parse_register(ps, false, false, &in->address);
    if (r)
        return r;
    bool minus = ptx_is(ps, '-');
    if (minus || ptx_is(ps, '+')) {
        ptx_next(&ps->lx);
        if (!minus && ptx_is(ps, '-')) {
            minus = true;
            ptx_next(&ps->lx);
        }
        if (ps->lx.kind != PTX_T_INT || ps->lx.integer < 0)
            return ptx_fail(ps, -EINVAL, "an offset expected");
        in->offset = minus ? -ps->lx.integer : ps->lx.integer;
        ptx_next(&ps->lx);
    }
    return ptx_expect(ps, ']');
}

static int parse_vector(struct ptx_parser *ps, struct ptx_instr *in)
{
    bool source = in->op == PTX_ST;
    if (in->vector == 1)
        return source ? parse_source(ps, in->type, false, &in->o[0])
                      : parse_register(ps, false, true, &in->o[0]);
    int r = ptx_expect(ps, '{');
    for (unsigned i = 0; r == 0 && i < in->vector; i++) {
        if (i && (r = ptx_expect(ps, ',')))
            break;
        r = source ? parse_source(ps, in->type, false, &in->o[i])
                   : parse_register(ps, false, true, &in->o[i]);
    }
    return r ? r : ptx_expect(ps, '}');
}

static int parse_label(struct ptx_parser *ps, struct ptx_instr *in)
{
    if (ps->lx.kind != PTX_T_WORD || strlen(ps->lx.text) >= PTX_NAME_BYTES)
        return ptx_fail(ps, -EINVAL, "a label expected");
    int label = ptx_label(ps, ps->lx.text);
    if (label < 0)
        return label;
    in->target = (uint32_t)label;
    ptx_next(&ps->lx);
    return 0;
}

static int parse_barrier(struct ptx_parser *ps)
{
    if (ps->lx.kind != PTX_T_INT || ps->lx.integer != 0)
        return ptx_fail(ps, -ENOTSUP, "a barrier other than 0");
    ptx_next(&ps->lx);
    return ptx_is(ps, ',') ? ptx_fail(ps, -ENOTSUP, "a barrier of some threads") : 0;
}

static int parse_operand(struct ptx_parser *ps, struct ptx_instr *in, char what, unsigned *n)
{
    enum ptx_type type = in->type;
    switch (what) {
    case 'a':
        return parse_address(ps, in);
    case 'l':
        return parse_label(ps, in);
    case 'b':
        return parse_barrier(ps);
    case 'V':
        return parse_vector(ps, in);
    case 'd':
    case 'D':
        return parse_register(ps, type == PTX_PRED, true, &in->o[(*n)++]);
    case 'r':
        return parse_register(ps, false, true, &in->o[(*n)++]);
    case 'P':
        return parse_register(ps, true, true, &in->o[(*n)++]);
    case 'p':
        return parse_register(ps, true, false, &in->o[(*n)++]);
    case 'u':
    case 'n':
        return parse_source(ps, PTX_U32, false, &in->o[(*n)++]);
    case 'f':
        return parse_source(ps, in->from, false, &in->o[(*n)++]);
    default:
        return parse_source(ps, type, in->op == PTX_MOV || in->op == PTX_CVTA, &in->o[(*n)++]);
    }
}

/* ---- is it a combination that makes sense */

static int check(struct ptx_parser *ps, const struct ptx_instr *in)
{
    bool typeless = in->op == PTX_BRA || in->op == PTX_EXIT || in->op == PTX_BAR || in->op == PTX_NOP;
    if (!typeless && in->type == PTX_NONE)
        return ptx_fail(ps, -ENOTSUP, "an instruction of this type, or of none");
    if (in->op == PTX_CVT && in->from == PTX_NONE)
        return ptx_fail(ps, -ENOTSUP, "a conversion of these types");
    bool logic =
        in->op == PTX_AND || in->op == PTX_OR || in->op == PTX_XOR || in->op == PTX_NOT || in->op == PTX_MOV;
    if (in->type == PTX_PRED && !logic)
        return ptx_fail(ps, -EINVAL, "predicates are no operands of it");
    bool whole = logic || in->op == PTX_REM || in->op == PTX_SHL || in->op == PTX_SHR || in->op == PTX_POPC ||
                 in->op == PTX_CLZ;
    if (whole && in->op != PTX_MOV && ptx_is_float(in->type))
        return ptx_fail(ps, -EINVAL, "floats are no operands of it");
    bool real = in->op == PTX_FMA || in->op == PTX_SQRT || in->op == PTX_RCP || in->op == PTX_RSQRT;
    if (real && !ptx_is_float(in->type))
        return ptx_fail(ps, -EINVAL, "only floats are operands of it");
    if (in->sat && !ptx_is_float(in->type))
        return ptx_fail(ps, -ENOTSUP, "saturation of whole numbers");
    if ((in->op == PTX_MUL || in->op == PTX_MAD) && in->half == PTX_WIDE && ptx_size(in->type) > 4)
        return ptx_fail(ps, -EINVAL, ".wide of 64 bits");
    if ((in->op == PTX_LD || in->op == PTX_ST) && in->space == PTX_PARAM) {
        uint64_t end = in->address.value + (uint64_t)in->offset + (uint64_t)ptx_size(in->type) * in->vector;
        if (in->op == PTX_ST || in->address.kind != PTX_O_PARAM || in->offset < 0 ||
            end > ps->entry->param_bytes)
            return ptx_fail(ps, -EINVAL, "not within the parameters");
    } else if (in->address.kind == PTX_O_PARAM) {
        return ptx_fail(ps, -ENOTSUP, "the address of a parameter");
    }
    if (in->op == PTX_ATOM &&
        (ptx_size(in->type) < 4 ||
         (ptx_is_float(in->type) && in->atom != PTX_ATOM_ADD && in->atom != PTX_ATOM_EXCH)))
        return ptx_fail(ps, -ENOTSUP, "an atomic operation of this type");
    return 0;
}

static int append(struct ptx_parser *ps, const struct ptx_instr *in)
{
    struct ptx_entry *e = ps->entry;
    if (e->code_count == PTX_MAX_CODE)
        return ptx_fail(ps, -ENOTSUP, "an entry of more than %u instructions", PTX_MAX_CODE);
    if (e->code_count == ps->code_room) {
        uint32_t room = ps->code_room ? ps->code_room * 2 : 64;
        struct ptx_instr *more = realloc(e->code, room * sizeof *more);
        if (!more)
            return -ENOMEM;
        e->code = more;
        ps->code_room = room;
    }
    e->code[e->code_count++] = *in;
    return 0;
}

/* "setp.lt.s32": the opcode, then its modifiers. */
static int parse_opcode(struct ptx_parser *ps, char *word, struct ptx_instr *in, const char **ret_operands)
{
    char full[sizeof ps->lx.text];
    strcpy(full, word);
    char *save = NULL, *part = strtok_r(word, ".", &save);
    const struct opcode *o = NULL;
    for (size_t i = 0; part && i < LITHOS_ARRAY_SIZE(opcodes); i++)
        if (!strcmp(opcodes[i].name, part))
            o = &opcodes[i];
    if (!o)
        return ptx_fail(ps, -ENOTSUP, "\"%s\"", full);
    in->op = (uint8_t)o->op;
    while ((part = strtok_r(NULL, ".", &save)))
        if (!modifier(in, part))
            return ptx_fail(ps, -ENOTSUP, "\"%s\" (.%s)", full, part);
    if (in->op == PTX_CVTA && in->space != PTX_SHARED)
        in->to_shared = false;
    *ret_operands = o->operands;
    return 0;
}

static int parse_operands(struct ptx_parser *ps, struct ptx_instr *in, const char *operands)
{
    unsigned n = in->op == PTX_ATOM && operands[0] == 'a' ? 1 : 0; /* red: no destination */
    if (n)
        in->o[0].kind = PTX_O_SINK;
    int r = 0;
    for (const char *what = operands; *what && r == 0; what++) {
        if (what != operands && (r = ptx_expect(ps, ',')))
            break;
        r = parse_operand(ps, in, *what, &n);
    }
    if (r == 0 && in->op == PTX_ATOM && in->atom == PTX_ATOM_CAS && (r = ptx_expect(ps, ',')) == 0)
        r = parse_operand(ps, in, 's', &n);
    return r;
}

int ptx_parse_instr(struct ptx_parser *ps)
{
    struct ptx_instr in = {.line = ps->lx.line, .vector = 1};
    int r;
    if (ptx_is(ps, '@')) {
        ptx_next(&ps->lx);
        in.predicated = true;
        if (ptx_is(ps, '!')) {
            in.predicate_not = true;
            ptx_next(&ps->lx);
        }
        struct ptx_operand p = {0};
        if ((r = parse_register(ps, true, false, &p)))
            return r;
        in.predicate = (uint32_t)p.value;
    }
    if (ps->lx.kind != PTX_T_WORD)
        return ptx_fail(ps, -EINVAL, "an instruction expected");
    char word[sizeof ps->lx.text];
    strcpy(word, ps->lx.text);
    ptx_next(&ps->lx);
    if (ptx_is(ps, ':') && !in.predicated) {
        if (strlen(word) >= PTX_NAME_BYTES)
            return ptx_fail(ps, -EINVAL, "a label of %zu letters", strlen(word));
        int label = ptx_label(ps, word);
        if (label < 0)
            return label;
        if (ps->labels[label].defined)
            return ptx_fail(ps, -EINVAL, "label %s twice", word);
        ps->labels[label].defined = true;
        ps->labels[label].at = ps->entry->code_count;
        ptx_next(&ps->lx);
        return 0;
    }
    const char *operands = "";
    if ((r = parse_opcode(ps, word, &in, &operands)) || (r = parse_operands(ps, &in, operands)) ||
        (r = check(ps, &in)))
        return r;
    if (!ptx_is(ps, ';'))
        return ptx_fail(ps, ptx_is(ps, '|') ? -ENOTSUP : -EINVAL, "';' expected");
    ptx_next(&ps->lx);
    return append(ps, &in);
}
