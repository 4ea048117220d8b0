/* The instructions are those that ptxas 13.0 makes of `if (blockIdx.x < lo) return;` for each generation, with the constants in
 * bank 6 and the jump behind them that was measured (docs/hardware.md, "Atoms"). tests/data/prelude holds what ptxas made. */
#include "hw/prelude.h"

#include <elf.h>
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "hw/prelude_internal.h"

#define EM_CUDA_ 190u
#define PER_KIND (LITHOS_PRELUDE_STRIDE / LITHOS_PRELUDE_INSTRUCTION_BYTES)
#define CODE_MAX 12u

struct code {
    unsigned count;
    struct lithos_instruction at[CODE_MAX];
};

struct lithos_prelude_row {
    struct {
        uint8_t major, minor;
    } cc[4];
    bool proved; /* docs/hardware.md: run on a card */
    uint32_t registers;
    struct code slices; /* for x */
    struct code line;
};

#define BANK ((uint64_t)LITHOS_PRELUDE_BANK << LITHOS_SASS_BANK_LOW)
#define AT(member) ((uint64_t)offsetof(struct lithos_prelude_entry, member) << LITHOS_SASS_OFFSET_LOW)
#define AT_LDCU(member) \
    ((uint64_t)offsetof(struct lithos_prelude_entry, member) << LITHOS_SASS_LDCU_OFFSET_LOW)

#define EXIT_NOT_P0                                  \
    {                                                \
        0x000000000000894dull, 0x000fea0003800000ull \
    }
#define EXIT_P0                                      \
    {                                                \
        0x000000000000094dull, 0x000fea0003800000ull \
    }
#define JUMP_TO_TARGET                                                   \
    {                                                                    \
        0x0000000000007b4aull | BANK | AT(target), 0x001fea0003800000ull \
    }
/* Never reached. */
#define STAY                                         \
    {                                                \
        0xfffffffc00fc7947ull, 0x000fc0000383ffffull \
    }
#define NOP                                          \
    {                                                \
        0x0000000000007918ull, 0x000fc00000000000ull \
    }

/* One difference to ptxas: where it lets one barrier announce the last of several values that are read in order, each has one. */
static const struct lithos_prelude_row rows[] = {
    {.cc = {{8, 0}, {8, 6}, {8, 9}},
     .registers = 6,
     .slices = {.count = 4,
                .at = {{0x0000000000007919ull, 0x000e240000002500ull}, /* S2R R0, SR_CTAID.X */
                       {0x0000000000007a0cull | BANK | AT(lo),
                        0x001fda0003f06070ull}, /* ISETP.GE P0, R0, c[6][lo] */
                       EXIT_NOT_P0,
                       JUMP_TO_TARGET}},
     .line = {.count = 9,
              .at = {{0x0000000000007919ull, 0x000e280000002600ull}, /* S2R R0, SR_CTAID.Y */
                     {0x0000000000057919ull, 0x000e280000002700ull}, /* S2R R5, SR_CTAID.Z */
                     {0x0000000000037919ull, 0x000e620000002500ull}, /* S2R R3, SR_CTAID.X */
                     {0x0000000005007a24ull | BANK | AT(height),
                      0x001fc800078e0200ull}, /* IMAD R0, R5, c[6][height], R0 */
                     {0x0000000000007a24ull | BANK | AT(width),
                      0x002fca00078e0203ull}, /* IMAD R0, R0, c[6][width], R3 */
                     {0x8000000000007a10ull | BANK | AT(lo),
                      0x000fc80007ffe0ffull}, /* IADD3 R0, R0, -c[6][lo], RZ */
                     {0x0000000000007a0cull | BANK | AT(span),
                      0x000fda0003f06070ull}, /* ISETP.GE P0, R0, c[6][span] */
                     EXIT_P0,
                     JUMP_TO_TARGET}}},
    {.cc = {{9, 0}},
     .proved = true,
     .registers = 4,
     .slices = {.count = 5,
                .at = {{0x00000000000479c3ull, 0x000e300000002500ull}, /* S2UR UR4, SR_CTAID.X */
                       {0x00000000ff007b82ull | BANK | AT(lo), 0x000e240000000800ull}, /* LDC R0, c[6][lo] */
                       {0x0000000400007c0cull, 0x001fda000bf03070ull}, /* ISETP.LE P0, R0, UR4 */
                       EXIT_NOT_P0,
                       JUMP_TO_TARGET}},
     .line = {.count = 11,
              .at = {{0x00000000000479c3ull, 0x000e220000002600ull}, /* S2UR UR4, SR_CTAID.Y */
                     {0x0000000000087ab9ull | BANK | AT(width),
                      0x000fce0000000a00ull},                        /* ULDC.64 UR8, c[6][width] */
                     {0x00000000000679c3ull, 0x000e300000002700ull}, /* S2UR UR6, SR_CTAID.Z */
                     {0x00000000000579c3ull, 0x000e700000002500ull}, /* S2UR UR5, SR_CTAID.X */
                     {0x00000000ff027b82ull | BANK | AT(lo), 0x000ea20000000a00ull}, /* LDC.64 R2, c[6][lo] */
                     {0x00000009060472a4ull, 0x001fc8000f8e0204ull}, /* UIMAD UR4, UR6, UR9, UR4 */
                     {0x00000008040472a4ull, 0x002fcc000f8e0205ull}, /* UIMAD UR4, UR4, UR8, UR5 */
                     {0x0000000402007c10ull, 0x004fc8000fffe1ffull}, /* IADD3 R0, -R2, UR4, RZ */
                     {0x000000030000720cull, 0x000fda0003f06070ull}, /* ISETP.GE P0, R0, R3 */
                     EXIT_P0,
                     JUMP_TO_TARGET}}},
    {.cc = {{10, 0},
            {12, 0}}, /* the same words but for LDCU and how long one takes, from another compiler run */
     .registers = 4,
     .slices = {.count = 5,
                .at = {{0x00000000000479c3ull, 0x000e300000002500ull},
                       {0x00000000ff007b82ull | BANK | AT(lo), 0x000e240000000800ull},
                       {0x0000000400007c0cull, 0x001fda000bf03070ull},
                       EXIT_NOT_P0,
                       JUMP_TO_TARGET}},
     .line = {.count = 11,
              .at = {{0x00000000000479c3ull, 0x000e220000002600ull},
                     {0x00000000ff0877acull | BANK | AT_LDCU(width),
                      0x000e2e0008000a00ull}, /* LDCU.64 UR8, c[6][width] */
                     {0x00000000000679c3ull, 0x000e300000002700ull},
                     {0x00000000000579c3ull, 0x000e700000002500ull},
                     {0x00000000ff027b82ull | BANK | AT(lo), 0x000ea20000000a00ull},
                     {0x00000009060472a4ull, 0x001fc8000f8e0204ull},
                     {0x00000008040472a4ull, 0x002fcc000f8e0205ull},
                     {0x0000000402007c10ull, 0x004fca000fffe1ffull},
                     {0x000000030000720cull, 0x000fda0003f06070ull},
                     EXIT_P0,
                     JUMP_TO_TARGET}}},
};

int lithos_prelude_find(int cc_major, int cc_minor, bool allow_unproved,
                        const struct lithos_prelude_row **ret_row)
{
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(rows); i++)
        for (size_t c = 0; c < LITHOS_ARRAY_SIZE(rows[i].cc); c++) {
            if (!rows[i].cc[c].major || rows[i].cc[c].major != cc_major || rows[i].cc[c].minor != cc_minor)
                continue;
            if (!rows[i].proved && !allow_unproved)
                return -EPERM;
            *ret_row = &rows[i];
            return 0;
        }
    return -ENOTSUP;
}

uint32_t lithos_prelude_registers(const struct lithos_prelude_row *row)
{
    return row->registers;
}

static void write_kind(const struct code *code, struct lithos_instruction *at)
{
    static const struct lithos_instruction stay = STAY, nop = NOP;
    memcpy(at, code->at, code->count * sizeof *at);
    at[code->count] = stay;
    for (unsigned i = code->count + 1; i < PER_KIND; i++)
        at[i] = nop;
}

void lithos_prelude_write(const struct lithos_prelude_row *row, void *text)
{
    struct lithos_instruction code[LITHOS_PRELUDE_KINDS * PER_KIND];
    _Static_assert(sizeof code == LITHOS_PRELUDE_BYTES, "as many times the code of one");
    _Static_assert(CODE_MAX + 1 <= PER_KIND, "the code of one has room");
    for (unsigned dim = 0; dim < LITHOS_PRELUDE_LINE; dim++) {
        write_kind(&row->slices, &code[dim * PER_KIND]);
        /* SR_CTAID.X, .Y, .Z stand in a row */
        code[dim * PER_KIND].high += (uint64_t)dim << LITHOS_SASS_SPECIAL_LOW;
    }
    write_kind(&row->line, &code[LITHOS_PRELUDE_LINE * PER_KIND]);
    memcpy(text, code, sizeof code);
}

/* ---- the image ---- */

/* Names end within their table, sections within the image: everything is looked at before it is used. */
static bool within(uint64_t offset, uint64_t size, uint64_t all)
{
    return offset <= all && size <= all - offset;
}

static int read_headers(const uint8_t *image, size_t bytes, Elf64_Ehdr *ret_header, Elf64_Shdr *ret_names)
{
    if (bytes < sizeof *ret_header)
        return -EBADMSG;
    memcpy(ret_header, image, sizeof *ret_header);
    const Elf64_Ehdr *h = ret_header;
    if (memcmp(h->e_ident, ELFMAG, SELFMAG) != 0 || h->e_ident[EI_CLASS] != ELFCLASS64 ||
        h->e_ident[EI_DATA] != ELFDATA2LSB || h->e_machine != EM_CUDA_ ||
        h->e_shentsize != sizeof *ret_names || h->e_shstrndx >= h->e_shnum ||
        !within(h->e_shoff, (uint64_t)h->e_shnum * sizeof *ret_names, bytes))
        return -EBADMSG;
    memcpy(ret_names, image + h->e_shoff + h->e_shstrndx * sizeof *ret_names, sizeof *ret_names);
    return ret_names->sh_type == SHT_STRTAB && within(ret_names->sh_offset, ret_names->sh_size, bytes)
               ? 0
               : -EBADMSG;
}

int lithos_prelude_text(const void *image_, size_t bytes, size_t *ret_offset, size_t *ret_bytes)
{
    static const char wanted[] = ".text." LITHOS_PRELUDE_KERNEL;
    const uint8_t *image = image_;
    Elf64_Ehdr header;
    Elf64_Shdr names, s;
    if (read_headers(image, bytes, &header, &names) < 0)
        return -EBADMSG;
    for (unsigned i = 0; i < header.e_shnum; i++) {
        memcpy(&s, image + header.e_shoff + i * sizeof s, sizeof s);
        if (s.sh_type != SHT_PROGBITS || !(s.sh_flags & SHF_EXECINSTR) ||
            !within(s.sh_name, sizeof wanted, names.sh_size) ||
            memcmp(image + names.sh_offset + s.sh_name, wanted, sizeof wanted) != 0)
            continue;
        if (!within(s.sh_offset, s.sh_size, bytes) || s.sh_size < LITHOS_PRELUDE_BYTES)
            return -EBADMSG;
        *ret_offset = s.sh_offset;
        *ret_bytes = s.sh_size;
        return 0;
    }
    return -EBADMSG;
}

static bool reads_entry(const struct lithos_prelude_meaning *m)
{
    bool line = m->kind == LITHOS_PRELUDE_LINE;
    return m->bank == LITHOS_PRELUDE_BANK && m->lo_offset == offsetof(struct lithos_prelude_entry, lo) &&
           m->target_offset == offsetof(struct lithos_prelude_entry, target) &&
           m->span_offset == (line ? offsetof(struct lithos_prelude_entry, span) : 0) &&
           m->width_offset == (line ? offsetof(struct lithos_prelude_entry, width) : 0) &&
           m->height_offset == (line ? offsetof(struct lithos_prelude_entry, height) : 0);
}

int lithos_prelude_patch(const struct lithos_prelude_row *row, void *image, size_t bytes)
{
    static const struct lithos_instruction nop = NOP;
    size_t offset, room;
    int r = lithos_prelude_text(image, bytes, &offset, &room);
    if (r < 0)
        return r;
    uint8_t *text = (uint8_t *)image + offset;
    lithos_prelude_write(row, text);
    for (size_t at = LITHOS_PRELUDE_BYTES; at + sizeof nop <= room; at += sizeof nop)
        memcpy(text + at, &nop, sizeof nop);
    for (unsigned kind = 0; kind < LITHOS_PRELUDE_KINDS; kind++) {
        struct lithos_prelude_meaning m;
        r = lithos_prelude_decode(text + kind * LITHOS_PRELUDE_STRIDE, LITHOS_PRELUDE_STRIDE, &m);
        if (r < 0)
            return r;
        if (m.kind != kind || m.registers > row->registers || !reads_entry(&m))
            return -EINVAL;
    }
    return 0;
}
