/* The instructions are those that ptxas 13.0 makes of `if (blockIdx.x < lo) return;` for each generation, with the constants in
 * bank 6 and the jump behind them that was measured (docs/hardware.md, "Atoms"). tests/data/prelude holds what ptxas made. */
#include "hw/prelude.h"

#include <elf.h>
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "hw/prelude_internal.h"

#define EM_CUDA_ 190u
#define PER_DIM (LITHOS_PRELUDE_STRIDE / LITHOS_PRELUDE_INSTRUCTION_BYTES)
#define CODE_MAX 6u

struct lithos_prelude_row {
    struct {
        uint8_t major, minor;
    } cc[4];
    bool proved; /* docs/hardware.md: run on a card */
    uint32_t registers;
    unsigned count;
    struct lithos_instruction code[CODE_MAX]; /* for x */
};

#define BANK ((uint64_t)LITHOS_PRELUDE_BANK << LITHOS_SASS_BANK_LOW)
#define LO ((uint64_t)offsetof(struct lithos_prelude_entry, lo) << LITHOS_SASS_OFFSET_LOW)
#define TARGET ((uint64_t)offsetof(struct lithos_prelude_entry, target) << LITHOS_SASS_OFFSET_LOW)

#define EXIT_NOT_P0                                  \
    {                                                \
        0x000000000000894dull, 0x000fea0003800000ull \
    }
#define JUMP_TO_TARGET                                               \
    {                                                                \
        0x0000000000007b4aull | BANK | TARGET, 0x001fea0003800000ull \
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

static const struct lithos_prelude_row rows[] = {
    {.cc = {{8, 0}, {8, 6}, {8, 9}},
     .registers = 1,
     .count = 4,
     .code = {{0x0000000000007919ull, 0x000e240000002500ull},             /* S2R R0, SR_CTAID.X */
              {0x0000000000007a0cull | BANK | LO, 0x001fda0003f06070ull}, /* ISETP.GE.U32 P0, R0, c[6][lo] */
              EXIT_NOT_P0,
              JUMP_TO_TARGET}},
    {.cc = {{9, 0}},
     .proved = true,
     .registers = 1,
     .count = 5,
     .code = {{0x00000000000479c3ull, 0x000e300000002500ull},             /* S2UR UR4, SR_CTAID.X */
              {0x00000000ff007b82ull | BANK | LO, 0x000e240000000800ull}, /* LDC R0, c[6][lo] */
              {0x0000000400007c0cull, 0x001fda000bf03070ull},             /* ISETP.LE.U32 P0, R0, UR4 */
              EXIT_NOT_P0,
              JUMP_TO_TARGET}},
    {.cc = {{10, 0}, {12, 0}}, /* the same words, from another compiler run */
     .registers = 1,
     .count = 5,
     .code = {{0x00000000000479c3ull, 0x000e300000002500ull},
              {0x00000000ff007b82ull | BANK | LO, 0x000e240000000800ull},
              {0x0000000400007c0cull, 0x001fda000bf03070ull},
              EXIT_NOT_P0,
              JUMP_TO_TARGET}},
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

void lithos_prelude_write(const struct lithos_prelude_row *row, void *text)
{
    static const struct lithos_instruction stay = STAY, nop = NOP;
    struct lithos_instruction code[3 * PER_DIM];
    _Static_assert(sizeof code == LITHOS_PRELUDE_BYTES, "three times the code of a dimension");
    _Static_assert(CODE_MAX + 1 <= PER_DIM, "the code of a dimension has room");
    for (unsigned dim = 0; dim < 3; dim++) {
        struct lithos_instruction *at = &code[dim * PER_DIM];
        memcpy(at, row->code, row->count * sizeof *at);
        at[0].high += (uint64_t)dim << LITHOS_SASS_SPECIAL_LOW; /* SR_CTAID.X, .Y, .Z stand in a row */
        at[row->count] = stay;
        for (unsigned i = row->count + 1; i < PER_DIM; i++)
            at[i] = nop;
    }
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
    for (unsigned dim = 0; dim < 3; dim++) {
        struct lithos_prelude_meaning m;
        r = lithos_prelude_decode(text + dim * LITHOS_PRELUDE_STRIDE, LITHOS_PRELUDE_STRIDE, &m);
        if (r < 0)
            return r;
        if (m.dim != dim || m.lo_bank != LITHOS_PRELUDE_BANK || m.target_bank != LITHOS_PRELUDE_BANK ||
            m.lo_offset != offsetof(struct lithos_prelude_entry, lo) ||
            m.target_offset != offsetof(struct lithos_prelude_entry, target) || m.registers > row->registers)
            return -EINVAL;
    }
    return 0;
}
