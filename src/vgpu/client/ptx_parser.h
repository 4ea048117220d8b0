/* State of the parser, shared by ptx_parse.c (declarations) and ptx_instr.c (instructions). */
#pragma once

#include "vgpu/client/ptx_internal.h"

#define PTX_MAX_REGS 16384u
#define PTX_MAX_CODE (1u << 18)
#define PTX_MAX_ENTRIES 512u
#define PTX_MAX_SHARED (1u << 20)

enum ptx_symbol_kind { PTX_S_REG, PTX_S_REGS, PTX_S_PARAM, PTX_S_SHARED, PTX_S_DYNAMIC, PTX_S_GLOBAL };

struct ptx_symbol {
    char name[PTX_NAME_BYTES];
    enum ptx_symbol_kind kind;
    enum ptx_type type;
    uint32_t value; /* REG, REGS: first register; PARAM, SHARED: offset; GLOBAL: index */
    uint32_t count; /* REGS: how many; PARAM: bytes */
};

struct ptx_label {
    char name[PTX_NAME_BYTES];
    uint32_t at;
    bool defined;
};

struct ptx_parser {
    struct ptx_lexer lx;
    struct ptx_program *program;
    char *message;
    size_t message_size;
    struct ptx_symbol *symbols; /* innermost last */
    uint32_t symbol_count, symbol_room;
    struct ptx_label *labels; /* of this entry */
    uint32_t label_count, label_room;
    uint8_t *reg_bytes; /* width of each register of this entry: 0 for predicates */
    uint32_t reg_room;
    struct ptx_entry *entry;
    uint32_t code_room;
    uint32_t shared_bytes; /* of the module */
    bool timing_only;
};

/* Sets the message, with the line; returns code. */
int ptx_fail(struct ptx_parser *ps, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
bool ptx_is(const struct ptx_parser *ps, char punct);
int ptx_expect(struct ptx_parser *ps, char punct);
const struct ptx_symbol *ptx_symbol(const struct ptx_parser *ps, const char *name, uint32_t *ret_value);
enum ptx_type ptx_type_named(const char *name);
/* The index of a label, made when it is not known yet; -ENOMEM. */
int ptx_label(struct ptx_parser *ps, const char *name);
