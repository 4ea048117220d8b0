/* PTX declarations: directives, variables, entries. Instructions are in ptx_instr.c. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "vgpu/client/ptx_parser.h"

int ptx_fail(struct ptx_parser *ps, int code, const char *fmt, ...)
{
    char text[160];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    snprintf(ps->message, ps->message_size, "line %u: %s%s", ps->lx.line, text,
             code == -ENOTSUP ? ": not implemented by the virtual GPU" : "");
    return code;
}

bool ptx_is(const struct ptx_parser *ps, char punct)
{
    return ps->lx.kind == PTX_T_PUNCT && ps->lx.punct == punct;
}

int ptx_expect(struct ptx_parser *ps, char punct)
{
    if (!ptx_is(ps, punct))
        return ptx_fail(ps, -EINVAL, "'%c' expected", punct);
    ptx_next(&ps->lx);
    return 0;
}

static bool word(const struct ptx_parser *ps, const char *text)
{
    return ps->lx.kind == PTX_T_WORD && !strcmp(ps->lx.text, text);
}

static int expect_int(struct ptx_parser *ps, int64_t least, int64_t most, uint32_t *ret)
{
    if (ps->lx.kind != PTX_T_INT || ps->lx.integer < least || ps->lx.integer > most)
        return ptx_fail(ps, -EINVAL, "a number from %lld to %lld expected", (long long)least,
                        (long long)most);
    *ret = (uint32_t)ps->lx.integer;
    ptx_next(&ps->lx);
    return 0;
}

enum ptx_type ptx_type_named(const char *name)
{
    static const char *const names[] = {"",    "pred", "u8", "u16", "u32", "u64", "s8",  "s16",
                                        "s32", "s64",  "b8", "b16", "b32", "b64", "f32", "f64"};
    for (unsigned i = 1; i < LITHOS_ARRAY_SIZE(names); i++)
        if (!strcmp(name, names[i]))
            return (enum ptx_type)i;
    return PTX_NONE;
}

/* ---- symbols */

static int add_symbol(struct ptx_parser *ps, struct ptx_symbol s)
{
    if (ps->symbol_count == ps->symbol_room) {
        uint32_t room = ps->symbol_room ? ps->symbol_room * 2 : 64;
        struct ptx_symbol *more = realloc(ps->symbols, room * sizeof *more);
        if (!more)
            return -ENOMEM;
        ps->symbols = more;
        ps->symbol_room = room;
    }
    ps->symbols[ps->symbol_count++] = s;
    return 0;
}

/* "%r12" of ".reg .b32 %r<100>": its number, or -1. */
static int64_t numbered(const struct ptx_symbol *s, const char *name)
{
    size_t len = strlen(s->name);
    if (strncmp(name, s->name, len) || !name[len] || strlen(name + len) > 6)
        return -1;
    char *end;
    if (name[len] < '0' || name[len] > '9')
        return -1;
    unsigned long n = strtoul(name + len, &end, 10);
    return *end || n >= s->count ? -1 : (int64_t)n;
}

const struct ptx_symbol *ptx_symbol(const struct ptx_parser *ps, const char *name, uint32_t *ret_value)
{
    for (uint32_t i = ps->symbol_count; i-- > 0;) {
        const struct ptx_symbol *s = &ps->symbols[i];
        int64_t n = s->kind == PTX_S_REGS ? numbered(s, name) : strcmp(s->name, name) ? -1 : 0;
        if (n < 0)
            continue;
        *ret_value = s->value + (uint32_t)n;
        return s;
    }
    return NULL;
}

int ptx_label(struct ptx_parser *ps, const char *name)
{
    for (uint32_t i = 0; i < ps->label_count; i++)
        if (!strcmp(ps->labels[i].name, name))
            return (int)i;
    if (ps->label_count == ps->label_room) {
        uint32_t room = ps->label_room ? ps->label_room * 2 : 16;
        struct ptx_label *more = realloc(ps->labels, room * sizeof *more);
        if (!more)
            return -ENOMEM;
        ps->labels = more;
        ps->label_room = room;
    }
    struct ptx_label *l = &ps->labels[ps->label_count];
    *l = (struct ptx_label){0};
    snprintf(l->name, sizeof l->name, "%s", name);
    return (int)ps->label_count++;
}

static int take_name(struct ptx_parser *ps, char name[PTX_NAME_BYTES])
{
    if (ps->lx.kind != PTX_T_WORD || strlen(ps->lx.text) >= PTX_NAME_BYTES || strchr(ps->lx.text, '.'))
        return ptx_fail(ps, -EINVAL, "a name of less than %u letters expected", PTX_NAME_BYTES);
    strcpy(name, ps->lx.text);
    ptx_next(&ps->lx);
    return 0;
}

/* ---- registers: .reg .b32 %r<10>, %x; */

static int add_regs(struct ptx_parser *ps, struct ptx_symbol *s)
{
    struct ptx_entry *e = ps->entry;
    if (s->count > PTX_MAX_REGS - e->reg_count)
        return ptx_fail(ps, -ENOTSUP, "more than %u registers", PTX_MAX_REGS);
    uint32_t total = e->reg_count + s->count;
    if (total > ps->reg_room) {
        uint8_t *more = realloc(ps->reg_bytes, total * 2);
        if (!more)
            return -ENOMEM;
        ps->reg_bytes = more;
        ps->reg_room = total * 2;
    }
    memset(ps->reg_bytes + e->reg_count, s->type == PTX_PRED ? 0 : (int)ptx_size(s->type), s->count);
    s->value = e->reg_count;
    e->reg_count = total;
    return add_symbol(ps, *s);
}

static int parse_reg(struct ptx_parser *ps)
{
    ptx_next(&ps->lx);
    enum ptx_type type = ps->lx.kind == PTX_T_WORD ? ptx_type_named(ps->lx.text + 1) : PTX_NONE;
    if (type == PTX_NONE)
        return ptx_fail(ps, -ENOTSUP, "register type %s", ps->lx.text);
    do {
        ptx_next(&ps->lx);
        struct ptx_symbol s = {.kind = PTX_S_REG, .type = type, .count = 1};
        int r = take_name(ps, s.name);
        if (r)
            return r;
        if (ptx_is(ps, '<')) {
            s.kind = PTX_S_REGS;
            ptx_next(&ps->lx);
            if ((r = expect_int(ps, 1, PTX_MAX_REGS, &s.count)) || (r = ptx_expect(ps, '>')))
                return r;
        }
        if ((r = add_regs(ps, &s)))
            return r;
    } while (ptx_is(ps, ','));
    return ptx_expect(ps, ';');
}

/* ---- variables: [.extern] .shared .align 4 .b32 name[10]; .global .u32 n = 5; */

struct declared {
    enum ptx_type type;
    uint32_t align, bytes;
    bool open; /* name[]: as large as the launch says */
    char name[PTX_NAME_BYTES];
};

/* From the word after the state space to what follows the name and its brackets. */
static int parse_declared(struct ptx_parser *ps, struct declared *d)
{
    *d = (struct declared){0};
    int r;
    while (ps->lx.kind == PTX_T_WORD && ps->lx.text[0] == '.') {
        if (word(ps, ".align")) {
            ptx_next(&ps->lx);
            if ((r = expect_int(ps, 1, 1024, &d->align)))
                return r;
            if (d->align & (d->align - 1))
                return ptx_fail(ps, -EINVAL, ".align %u is no power of two", d->align);
            continue;
        }
        if (word(ps, ".ptr") || word(ps, ".global") || word(ps, ".shared") || word(ps, ".const")) {
            ptx_next(&ps->lx); /* attributes of a pointer parameter: hints */
            continue;
        }
        if (d->type != PTX_NONE || (d->type = ptx_type_named(ps->lx.text + 1)) == PTX_NONE ||
            d->type == PTX_PRED)
            return ptx_fail(ps, -ENOTSUP, "variable type %s", ps->lx.text);
        ptx_next(&ps->lx);
    }
    if (d->type == PTX_NONE)
        return ptx_fail(ps, -EINVAL, "a type expected");
    if ((r = take_name(ps, d->name)))
        return r;
    uint64_t bytes = ptx_size(d->type);
    while (ptx_is(ps, '[')) {
        ptx_next(&ps->lx);
        uint32_t n = 0;
        if (ptx_is(ps, ']'))
            d->open = true;
        else if ((r = expect_int(ps, 0, 1 << 30, &n)))
            return r;
        if ((r = ptx_expect(ps, ']')))
            return r;
        bytes *= d->open ? 0 : n;
        if (bytes > 1u << 30)
            return ptx_fail(ps, -ENOTSUP, "%s of more than 1 GiB", d->name);
    }
    d->bytes = (uint32_t)bytes;
    d->align = LITHOS_MAX(d->align, ptx_size(d->type));
    return 0;
}

static uint32_t align_up(uint32_t n, uint32_t align)
{
    return (n + align - 1) & ~(align - 1);
}

static int parse_shared(struct ptx_parser *ps)
{
    ptx_next(&ps->lx);
    struct declared d;
    int r = parse_declared(ps, &d);
    if (r)
        return r;
    struct ptx_symbol s = {.kind = d.open ? PTX_S_DYNAMIC : PTX_S_SHARED, .type = d.type};
    strcpy(s.name, d.name);
    uint32_t *used = ps->entry ? &ps->entry->shared_bytes : &ps->shared_bytes;
    if (!d.open) {
        s.value = align_up(*used, d.align);
        if (d.bytes > PTX_MAX_SHARED - LITHOS_MIN(s.value, PTX_MAX_SHARED))
            return ptx_fail(ps, -EINVAL, "too much shared memory");
        *used = s.value + d.bytes;
    }
    if ((r = add_symbol(ps, s)))
        return r;
    return ptx_expect(ps, ';');
}

static int put_init(struct ptx_parser *ps, struct ptx_var *v, enum ptx_type type, uint32_t *at, bool negative)
{
    unsigned size = ptx_size(type);
    uint64_t bits;
    if (ps->lx.kind == PTX_T_INT && !ptx_is_float(type)) {
        bits = negative ? 0 - (uint64_t)ps->lx.integer : (uint64_t)ps->lx.integer;
    } else if (ps->lx.kind == PTX_T_FLOAT && ptx_is_float(type)) {
        double real = negative ? -ps->lx.real : ps->lx.real;
        float single = (float)real;
        uint32_t single_bits;
        memcpy(&single_bits, &single, 4);
        memcpy(&bits, &real, 8);
        bits = type == PTX_F32 ? single_bits : bits;
    } else {
        return ptx_fail(ps, -ENOTSUP, "initial value of %s", v->name);
    }
    if (size > v->size - *at)
        return ptx_fail(ps, -EINVAL, "too many initial values of %s", v->name);
    memcpy(v->init + *at, &bits, size);
    *at += size;
    ptx_next(&ps->lx);
    return 0;
}

static int parse_init(struct ptx_parser *ps, struct ptx_var *v, enum ptx_type type)
{
    ptx_next(&ps->lx);
    v->init = calloc(1, LITHOS_MAX(v->size, 1u));
    if (!v->init)
        return -ENOMEM;
    bool list = ptx_is(ps, '{');
    uint32_t at = 0;
    if (list)
        ptx_next(&ps->lx);
    for (;;) {
        bool negative = ptx_is(ps, '-');
        if (negative)
            ptx_next(&ps->lx);
        int r = put_init(ps, v, type, &at, negative);
        if (r)
            return r;
        if (!list)
            return 0;
        if (!ptx_is(ps, ','))
            return ptx_expect(ps, '}');
        ptx_next(&ps->lx);
    }
}

static int parse_global(struct ptx_parser *ps)
{
    struct ptx_program *prog = ps->program;
    if (ps->entry)
        return ptx_fail(ps, -ENOTSUP, "a %s variable inside an entry", ps->lx.text);
    ptx_next(&ps->lx);
    struct declared d;
    int r = parse_declared(ps, &d);
    if (r)
        return r;
    if (d.open || prog->var_count == PTX_MAX_VARS)
        return ptx_fail(ps, -ENOTSUP, d.open ? "%s of open size" : "variable %s: too many", d.name);
    struct ptx_var *more = realloc(prog->vars, (prog->var_count + 1) * sizeof *more);
    if (!more)
        return -ENOMEM;
    prog->vars = more;
    struct ptx_var *v = &more[prog->var_count++];
    *v = (struct ptx_var){.size = d.bytes, .align = d.align};
    strcpy(v->name, d.name);
    struct ptx_symbol s = {.kind = PTX_S_GLOBAL, .type = d.type, .value = prog->var_count - 1};
    strcpy(s.name, d.name);
    if ((r = add_symbol(ps, s)) || (ptx_is(ps, '=') && (r = parse_init(ps, v, d.type))))
        return r;
    return ptx_expect(ps, ';');
}

/* ---- entries */

static int parse_params(struct ptx_parser *ps)
{
    struct ptx_entry *e = ps->entry;
    if (!ptx_is(ps, '('))
        return 0;
    ptx_next(&ps->lx);
    while (!ptx_is(ps, ')')) {
        if (!word(ps, ".param"))
            return ptx_fail(ps, -EINVAL, ".param expected");
        ptx_next(&ps->lx);
        struct declared d;
        int r = parse_declared(ps, &d);
        if (r)
            return r;
        struct ptx_param *more = realloc(e->params, (e->param_count + 1) * sizeof *more);
        if (!more)
            return -ENOMEM;
        e->params = more;
        uint32_t offset = align_up(e->param_bytes, d.align);
        if (d.open || !d.bytes || d.bytes > 4096 - LITHOS_MIN(offset, 4096u))
            return ptx_fail(ps, -ENOTSUP, "parameters of more than 4096 bytes, or of none");
        more[e->param_count++] = (struct ptx_param){offset, d.bytes};
        e->param_bytes = offset + d.bytes;
        struct ptx_symbol s = {.kind = PTX_S_PARAM, .type = d.type, .value = offset, .count = d.bytes};
        strcpy(s.name, d.name);
        if ((r = add_symbol(ps, s)))
            return r;
        if (ptx_is(ps, ','))
            ptx_next(&ps->lx);
        else if (!ptx_is(ps, ')'))
            return ptx_fail(ps, -EINVAL, "',' or ')' expected");
    }
    ptx_next(&ps->lx);
    return 0;
}

/* .maxntid 128, 1, 1 and the like: n up to three numbers into v. */
static int parse_triple(struct ptx_parser *ps, uint32_t v[3])
{
    v[0] = v[1] = v[2] = 1;
    for (int i = 0; i < 3; i++) {
        ptx_next(&ps->lx);
        int r = expect_int(ps, 1, 1 << 20, &v[i]);
        if (r)
            return r;
        if (!ptx_is(ps, ','))
            return 0;
    }
    return ptx_fail(ps, -EINVAL, "more than three numbers");
}

static int parse_entry_directives(struct ptx_parser *ps)
{
    struct ptx_entry *e = ps->entry;
    uint32_t v[3];
    int r = 0;
    while (r == 0 && !ptx_is(ps, '{')) {
        if (word(ps, ".maxntid") || word(ps, ".reqntid")) {
            r = parse_triple(ps, v);
            uint64_t threads = r ? 0 : (uint64_t)v[0] * v[1] * v[2];
            e->max_threads = threads > 1024 ? 1024 : (uint32_t)threads;
        } else if (word(ps, ".reqnctapercluster")) {
            if ((r = parse_triple(ps, v)) == 0)
                memcpy(e->cluster, v, sizeof v);
        } else if (word(ps, ".minnctapersm") || word(ps, ".maxnreg") || word(ps, ".maxclusterrank")) {
            r = parse_triple(ps, v);
        } else if (word(ps, ".explicitcluster")) {
            ptx_next(&ps->lx);
        } else {
            r = ptx_fail(ps, ps->lx.kind == PTX_T_WORD ? -ENOTSUP : -EINVAL, "%s before the body of %s",
                         ps->lx.text, e->name);
        }
    }
    return r;
}

static int parse_statement(struct ptx_parser *ps)
{
    if (word(ps, ".reg"))
        return parse_reg(ps);
    if (word(ps, ".shared"))
        return parse_shared(ps);
    if (word(ps, ".loc") || word(ps, ".pragma")) {
        while (ps->lx.kind != PTX_T_END && !ptx_is(ps, ';') && !ptx_is(ps, '}')) {
            unsigned line = ps->lx.line;
            ptx_next(&ps->lx);
            if (ps->lx.line != line) /* .loc has no semicolon */
                return 0;
        }
        return ptx_is(ps, ';') ? ptx_expect(ps, ';') : 0;
    }
    if (ps->lx.kind == PTX_T_WORD && ps->lx.text[0] == '.')
        return ptx_fail(ps, -ENOTSUP, "%s", ps->lx.text);
    return ptx_parse_instr(ps);
}

static int parse_body(struct ptx_parser *ps)
{
    uint32_t scopes[32], depth = 0;
    ptx_next(&ps->lx); /* the opening brace */
    for (;;) {
        int r = 0;
        if (ps->lx.kind == PTX_T_END) {
            return ptx_fail(ps, -EINVAL, "the body of %s does not end", ps->entry->name);
        } else if (ptx_is(ps, '{')) {
            if (depth == LITHOS_ARRAY_SIZE(scopes))
                return ptx_fail(ps, -ENOTSUP, "so many braces");
            scopes[depth++] = ps->symbol_count;
            ptx_next(&ps->lx);
        } else if (ptx_is(ps, '}')) {
            ps->lx.timing_only = false; /* said in a body, it says nothing of the next entry */
            ptx_next(&ps->lx);
            if (!depth)
                return 0;
            ps->symbol_count = scopes[--depth];
        } else {
            r = parse_statement(ps);
        }
        if (r)
            return r;
    }
}

static int resolve_labels(struct ptx_parser *ps)
{
    struct ptx_entry *e = ps->entry;
    for (uint32_t i = 0; i < e->code_count; i++) {
        struct ptx_instr *in = &e->code[i];
        if (in->op != PTX_BRA)
            continue;
        const struct ptx_label *l = &ps->labels[in->target];
        if (!l->defined) {
            ps->lx.line = in->line;
            return ptx_fail(ps, -EINVAL, "no label %s", l->name);
        }
        in->target = l->at;
    }
    return 0;
}

static int parse_entry(struct ptx_parser *ps)
{
    struct ptx_program *prog = ps->program;
    if (prog->entry_count == PTX_MAX_ENTRIES)
        return ptx_fail(ps, -ENOTSUP, "more than %u entries", PTX_MAX_ENTRIES);
    struct ptx_entry *more = realloc(prog->entries, (prog->entry_count + 1) * sizeof *more);
    if (!more)
        return -ENOMEM;
    prog->entries = more;
    struct ptx_entry *e = ps->entry = &more[prog->entry_count++];
    *e = (struct ptx_entry){.shared_bytes = ps->shared_bytes};
    e->timing_only = ps->lx.timing_only;
    ps->lx.timing_only = false;
    uint32_t outer = ps->symbol_count;
    ps->label_count = ps->code_room = 0;
    ptx_next(&ps->lx);
    int r;
    if ((r = take_name(ps, e->name)) || (r = parse_params(ps)) || (r = parse_entry_directives(ps)) ||
        (r = parse_body(ps)) || (r = resolve_labels(ps)))
        return r;
    e->registers = ptx_estimate_registers(e, ps->reg_bytes);
    ps->symbol_count = outer;
    ps->entry = NULL;
    return 0;
}

/* ---- the module */

static int parse_header(struct ptx_parser *ps)
{
    if (!word(ps, ".version"))
        return ptx_fail(ps, -EINVAL, ".version expected");
    ptx_next(&ps->lx);
    if (ps->lx.kind != PTX_T_FLOAT || ps->lx.real < 1 || ps->lx.real > 99)
        return ptx_fail(ps, -EINVAL, "a version such as 7.0 expected");
    ps->program->version = (int)(ps->lx.real * 10 + 0.5);
    if (ps->program->version < 60 || ps->program->version > 90)
        return ptx_fail(ps, -ENOTSUP, "PTX version %g", ps->lx.real);
    ptx_next(&ps->lx);
    if (!word(ps, ".target"))
        return ptx_fail(ps, -EINVAL, ".target expected");
    ptx_next(&ps->lx);
    if (ps->lx.kind != PTX_T_WORD || sscanf(ps->lx.text, "sm_%d", &ps->program->target) != 1 ||
        ps->program->target < 10 || ps->program->target > 999)
        return ptx_fail(ps, -EINVAL, "a target such as sm_52 expected");
    ptx_next(&ps->lx);
    while (ptx_is(ps, ',')) { /* "debug" and the like */
        ptx_next(&ps->lx);
        ptx_next(&ps->lx);
    }
    if (word(ps, ".address_size")) {
        ptx_next(&ps->lx);
        if (ps->lx.kind != PTX_T_INT || ps->lx.integer != 64)
            return ptx_fail(ps, -ENOTSUP, "an address size other than 64");
        ptx_next(&ps->lx);
    }
    return 0;
}

static int parse_file_directive(struct ptx_parser *ps)
{
    unsigned line = ps->lx.line;
    while (ps->lx.kind != PTX_T_END && ps->lx.line == line)
        ptx_next(&ps->lx);
    return 0;
}

static int parse_module(struct ptx_parser *ps)
{
    int r = parse_header(ps);
    while (r == 0 && ps->lx.kind != PTX_T_END) {
        if (word(ps, ".visible") || word(ps, ".weak") || word(ps, ".extern"))
            ptx_next(&ps->lx);
        else if (word(ps, ".entry"))
            r = parse_entry(ps);
        else if (word(ps, ".shared"))
            r = parse_shared(ps);
        else if (word(ps, ".global") || word(ps, ".const"))
            r = parse_global(ps);
        else if (word(ps, ".file"))
            r = parse_file_directive(ps);
        else
            r = ptx_fail(ps, ps->lx.kind == PTX_T_WORD ? -ENOTSUP : -EINVAL, "\"%s\"", ps->lx.text);
    }
    return r;
}

int ptx_parse(const char *text, size_t len, struct ptx_program **ret_program, char *message,
              size_t message_size)
{
    struct ptx_parser ps = {.message = message, .message_size = message_size};
    ps.lx = (struct ptx_lexer){.p = text, .end = text + strnlen(text, len), .line = 1};
    ps.program = calloc(1, sizeof *ps.program);
    snprintf(message, message_size, "out of memory");
    int r = -ENOMEM;
    if (ps.program) {
        ptx_next(&ps.lx);
        r = parse_module(&ps);
    }
    free(ps.symbols);
    free(ps.labels);
    free(ps.reg_bytes);
    if (r)
        ptx_free(ps.program);
    else
        *ret_program = ps.program;
    return r;
}

void ptx_free(struct ptx_program *program)
{
    if (!program)
        return;
    for (uint32_t i = 0; i < program->entry_count; i++) {
        free(program->entries[i].params);
        free(program->entries[i].code);
    }
    for (uint32_t i = 0; i < program->var_count; i++)
        free(program->vars[i].init);
    free(program->entries);
    free(program->vars);
    free(program);
}

const struct ptx_entry *ptx_find(const struct ptx_program *program, const char *name)
{
    for (uint32_t i = 0; i < program->entry_count; i++)
        if (!strcmp(program->entries[i].name, name))
            return &program->entries[i];
    return NULL;
}
