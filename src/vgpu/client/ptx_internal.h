/* Parsed PTX, between the parser and the interpreter. */
#pragma once

#include "vgpu/client/ptx.h"

enum ptx_op {
    PTX_LD,
    PTX_ST,
    PTX_MOV,
    PTX_ADD,
    PTX_SUB,
    PTX_MUL,
    PTX_MAD,
    PTX_FMA,
    PTX_DIV,
    PTX_REM,
    PTX_MIN,
    PTX_MAX,
    PTX_AND,
    PTX_OR,
    PTX_XOR,
    PTX_NOT,
    PTX_SHL,
    PTX_SHR,
    PTX_SETP,
    PTX_SELP,
    PTX_CVT,
    PTX_CVTA,
    PTX_BRA,
    PTX_EXIT,
    PTX_BAR,
    PTX_ATOM,
    PTX_NEG,
    PTX_ABS,
    PTX_SQRT,
    PTX_RCP,
    PTX_RSQRT,
    PTX_POPC,
    PTX_CLZ,
    PTX_NOP,
};

enum ptx_type {
    PTX_NONE,
    PTX_PRED,
    PTX_U8,
    PTX_U16,
    PTX_U32,
    PTX_U64,
    PTX_S8,
    PTX_S16,
    PTX_S32,
    PTX_S64,
    PTX_B8,
    PTX_B16,
    PTX_B32,
    PTX_B64,
    PTX_F32,
    PTX_F64,
};

enum ptx_space { PTX_GENERIC, PTX_GLOBAL, PTX_SHARED, PTX_PARAM };
enum ptx_half { PTX_LO, PTX_HI, PTX_WIDE };
enum ptx_round { PTX_RN, PTX_RZ, PTX_RM, PTX_RP, PTX_RNI, PTX_RZI, PTX_RMI, PTX_RPI };
enum ptx_cmp {
    PTX_EQ,
    PTX_NE,
    PTX_LT,
    PTX_LE,
    PTX_GT,
    PTX_GE,
    PTX_EQU,
    PTX_NEU,
    PTX_LTU,
    PTX_LEU,
    PTX_GTU,
    PTX_GEU,
    PTX_NUM,
    PTX_NAN,
};
enum ptx_atom {
    PTX_ATOM_ADD,
    PTX_ATOM_MIN,
    PTX_ATOM_MAX,
    PTX_ATOM_AND,
    PTX_ATOM_OR,
    PTX_ATOM_XOR,
    PTX_ATOM_EXCH,
    PTX_ATOM_CAS,
    PTX_ATOM_INC,
    PTX_ATOM_DEC
};

/* %tid.x is PTX_SR_TID + 0, and so on. */
enum ptx_sreg {
    PTX_SR_TID = 0,
    PTX_SR_NTID = 3,
    PTX_SR_CTAID = 6,
    PTX_SR_NCTAID = 9,
    PTX_SR_CLUSTERID = 12,
    PTX_SR_NCLUSTERID = 15,
    PTX_SR_CLUSTER_CTAID = 18,
    PTX_SR_CLUSTER_NCTAID = 21,
    PTX_SR_SMID = 24,
    PTX_SR_NSMID,
    PTX_SR_LANEID,
    PTX_SR_WARPID,
    PTX_SR_NWARPID,
    PTX_SR_GLOBALTIMER,
    PTX_SR_GLOBALTIMER_LO,
    PTX_SR_GLOBALTIMER_HI,
    PTX_SR_CLOCK,
    PTX_SR_CLOCK64,
    PTX_SR_CLUSTER_CTARANK,
    PTX_SR_CLUSTER_NCTARANK,
    PTX_SR_DYNAMIC_SMEM,
    PTX_SR_GRIDID,
};

enum ptx_operand_kind {
    PTX_O_NONE,
    PTX_O_REG,     /* value: register */
    PTX_O_IMM,     /* value: bits */
    PTX_O_SREG,    /* value: enum ptx_sreg */
    PTX_O_GLOBAL,  /* value: variable of the program; its device address */
    PTX_O_SHARED,  /* value: offset in the block's shared memory */
    PTX_O_DYNAMIC, /* where the shared memory that the launch adds begins */
    PTX_O_PARAM,   /* value: offset in the parameters */
    PTX_O_SINK,    /* "_": a result that nobody wants */
};

struct ptx_operand {
    uint8_t kind;
    uint64_t value;
};

#define PTX_OPERANDS 4u

struct ptx_instr {
    uint8_t op, type, from; /* from: source type of cvt */
    uint8_t space, half, round, cmp, atom;
    bool ftz, sat, to_shared; /* to_shared: cvta.to */
    bool predicated, predicate_not;
    uint8_t vector; /* ld, st: elements, else 1 */
    uint32_t predicate;
    uint32_t target; /* bra */
    uint32_t line;
    int64_t offset; /* of an address */
    /* ld: [0..vector) destinations, address in `address`; st: [0..vector) sources; others: 0 the destination. */
    struct ptx_operand o[PTX_OPERANDS];
    struct ptx_operand address;
};

/* Generic addresses of a block's shared memory. */
#define PTX_SHARED_WINDOW 0x0000900000000000ull

static inline unsigned ptx_size(enum ptx_type t)
{
    static const uint8_t sizes[] = {0, 1, 1, 2, 4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 4, 8};
    return sizes[t];
}

static inline bool ptx_is_float(enum ptx_type t)
{
    return t == PTX_F32 || t == PTX_F64;
}

static inline bool ptx_is_signed(enum ptx_type t)
{
    return t >= PTX_S8 && t <= PTX_S64;
}

/* ---- ptx_lex.c */
enum ptx_token { PTX_T_END, PTX_T_WORD, PTX_T_INT, PTX_T_FLOAT, PTX_T_PUNCT, PTX_T_STRING, PTX_T_BAD };

struct ptx_lexer {
    const char *p, *end;
    unsigned line;
    enum ptx_token kind;
    char text[160];   /* WORD: letters, digits, _ $ % and dots */
    int64_t integer;  /* INT */
    double real;      /* FLOAT */
    char punct;       /* PUNCT */
    bool timing_only; /* the comment was seen; whoever uses it clears it */
};

void ptx_next(struct ptx_lexer *lx);

/* ---- ptx_regs.c: estimate of the registers a compiler would need. */
uint32_t ptx_estimate_registers(const struct ptx_entry *entry, const uint8_t *reg_bytes);

/* ---- ptx_instr.c: one instruction, from its opcode word on, to its semicolon. */
struct ptx_parser;
int ptx_parse_instr(struct ptx_parser *ps);
