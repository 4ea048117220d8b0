/* cuLink*: PTX text in, an image out, as a driver's linker makes one: an ELF file with a section of machine code for each kernel. Ours
 * carries the PTX along, since that is what runs; the code is a stand-in of the right form (an instruction that ends the thread, then
 * some that do nothing), which a program may replace. */
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "vgpu/client/client.h"

#define EM_CUDA_ 190
#define PTX_SECTION ".lithos.ptx"
#define INSTRUCTION 16u
#define CODE_UNIT 128u
#define IMAGE_MAX (64u << 20)

struct CUlinkState_st {
    char *ptx;
    struct vgpu_program *program;
    uint8_t *image;
};

/* ---- code */

static size_t code_bytes(const struct ptx_entry *e)
{
    return ((size_t)e->code_count * INSTRUCTION + CODE_UNIT) / CODE_UNIT * CODE_UNIT;
}

/* EXIT, and NOP up to the end: the same words from Volta on. */
static void stand_in(uint8_t *text, size_t bytes)
{
    static const uint64_t exit_[2] = {0x000000000000794dull, 0x000fea0003800000ull},
                          nop[2] = {0x0000000000007918ull, 0x000fc00000000000ull};
    for (size_t at = 0; at < bytes; at += INSTRUCTION)
        memcpy(text + at, at ? nop : exit_, INSTRUCTION);
}

/* ---- images */

struct image {
    uint8_t *bytes;
    size_t size;
    Elf64_Shdr sections[3 + 64];
    unsigned count;
    char names[8192];
    size_t names_size;
};

static void add_section(struct image *im, const char *prefix, const char *name, uint32_t type, uint64_t flags,
                        size_t size)
{
    Elf64_Shdr *s = &im->sections[im->count++];
    im->size = (im->size + CODE_UNIT - 1) / CODE_UNIT * CODE_UNIT;
    s->sh_name = (uint32_t)im->names_size;
    s->sh_type = type;
    s->sh_flags = flags;
    s->sh_offset = im->size;
    s->sh_size = size;
    s->sh_addralign = CODE_UNIT;
    im->names_size += (size_t)snprintf(im->names + im->names_size, sizeof im->names - im->names_size, "%s%s",
                                       prefix, name) +
                      1;
    im->size += size;
}

static CUresult build(const struct vgpu_card *card, const struct CUlinkState_st *state, uint8_t **ret_image,
                      size_t *ret_size)
{
    const struct ptx_program *ptx = state->program->ptx;
    struct image *im = calloc(1, sizeof *im);
    if (!im || ptx->entry_count > 48) { /* names and headers have room for no more */
        free(im);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    size_t text_size = strlen(state->ptx) + 1;
    im->count = 1;
    im->names_size = 1;
    im->size = sizeof(Elf64_Ehdr);
    for (uint32_t i = 0; i < ptx->entry_count; i++)
        add_section(im, ".text.", ptx->entries[i].name, SHT_PROGBITS, SHF_ALLOC | SHF_EXECINSTR,
                    code_bytes(&ptx->entries[i]));
    add_section(im, "", PTX_SECTION, SHT_PROGBITS, 0, text_size);
    add_section(im, "", ".shstrtab", SHT_STRTAB, 0, sizeof im->names);
    size_t headers = (im->size + 63) / 64 * 64, size = headers + im->count * sizeof(Elf64_Shdr);
    uint8_t *bytes = calloc(1, size);
    if (bytes) {
        Elf64_Ehdr h = {.e_type = ET_EXEC,
                        .e_machine = EM_CUDA_,
                        .e_version = EV_CURRENT,
                        .e_shoff = headers,
                        .e_flags = (uint32_t)(card->cc_major * 10 + card->cc_minor),
                        .e_ehsize = sizeof h,
                        .e_shentsize = sizeof(Elf64_Shdr),
                        .e_shnum = (uint16_t)im->count,
                        .e_shstrndx = (uint16_t)(im->count - 1)};
        memcpy(h.e_ident, ELFMAG, SELFMAG);
        h.e_ident[EI_CLASS] = ELFCLASS64;
        h.e_ident[EI_DATA] = ELFDATA2LSB;
        h.e_ident[EI_VERSION] = EV_CURRENT;
        memcpy(bytes, &h, sizeof h);
        for (uint32_t i = 0; i < ptx->entry_count; i++)
            stand_in(bytes + im->sections[1 + i].sh_offset, im->sections[1 + i].sh_size);
        memcpy(bytes + im->sections[im->count - 2].sh_offset, state->ptx, text_size);
        memcpy(bytes + im->sections[im->count - 1].sh_offset, im->names, sizeof im->names);
        memcpy(bytes + headers, im->sections, im->count * sizeof(Elf64_Shdr));
        *ret_image = bytes;
        *ret_size = size;
    }
    free(im);
    return bytes ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

bool vgpu_image_is_elf(const void *image)
{
    return !memcmp(image, ELFMAG, SELFMAG);
}

/* A section by name. The caller of cuModuleLoadData gives no size: what the image says of itself is believed, within reason, as
 * the driver does. */
static const uint8_t *section(const void *image, const char *prefix, const char *name, size_t *ret_size)
{
    char wanted[PTX_NAME_BYTES + 16];
    Elf64_Ehdr h;
    memcpy(&h, image, sizeof h);
    if (h.e_machine != EM_CUDA_ || h.e_shentsize != sizeof(Elf64_Shdr) || h.e_shstrndx >= h.e_shnum ||
        h.e_shoff > IMAGE_MAX)
        return NULL;
    const uint8_t *bytes = image;
    Elf64_Shdr names, s;
    snprintf(wanted, sizeof wanted, "%s%s", prefix, name);
    memcpy(&names, bytes + h.e_shoff + h.e_shstrndx * sizeof names, sizeof names);
    for (unsigned i = 0; i < h.e_shnum; i++) {
        memcpy(&s, bytes + h.e_shoff + i * sizeof s, sizeof s);
        if (s.sh_name < names.sh_size && s.sh_offset < IMAGE_MAX && s.sh_size < IMAGE_MAX &&
            !strncmp((const char *)bytes + names.sh_offset + s.sh_name, wanted, names.sh_size - s.sh_name)) {
            *ret_size = s.sh_size;
            return bytes + s.sh_offset;
        }
    }
    return NULL;
}

CUresult vgpu_image_ptx(const void *image, char **ret_text)
{
    size_t size;
    const uint8_t *text = section(image, "", PTX_SECTION, &size);
    if (!text || !size || text[size - 1]) {
        lithos_warning("virtual GPU: module is a cubin that was not linked here: not implemented");
        return CUDA_ERROR_INVALID_IMAGE;
    }
    *ret_text = malloc(size);
    if (!*ret_text)
        return CUDA_ERROR_OUT_OF_MEMORY;
    memcpy(*ret_text, text, size);
    return CUDA_SUCCESS;
}

CUresult vgpu_image_code(const void *image, const struct vgpu_card *card, struct vgpu_program *program)
{
    const struct ptx_program *ptx = program->ptx;
    Elf64_Ehdr h;
    memcpy(&h, image, sizeof h);
    if (h.e_flags != (uint32_t)(card->cc_major * 10 + card->cc_minor))
        return CUDA_ERROR_NO_BINARY_FOR_GPU;
    program->code = calloc(LITHOS_MAX(ptx->entry_count, 1u), sizeof *program->code);
    if (!program->code)
        return CUDA_ERROR_OUT_OF_MEMORY;
    for (uint32_t i = 0; i < ptx->entry_count; i++) {
        size_t size;
        const uint8_t *text = section(image, ".text.", ptx->entries[i].name, &size);
        uint8_t *made = text && size == code_bytes(&ptx->entries[i]) ? malloc(size) : NULL;
        if (!made)
            return CUDA_ERROR_INVALID_IMAGE;
        stand_in(made, size);
        if (!memcmp(made, text, size)) {
            free(made);
            continue;
        }
        memcpy(made, text, size);
        program->code[i] = (struct vgpu_code){made, size};
    }
    return CUDA_SUCCESS;
}

/* ---- entry points */

CU_API(cuLinkCreate_v2, unsigned int n, int *options, void **values, CUlinkState *ret)
{
    struct CUctx_st *ctx;
    (void)n;
    (void)options; /* where logs go, how much to optimise: nothing to do for any */
    (void)values;
    VGPU_TRY(vgpu_current(&ctx));
    if (!ret)
        return CUDA_ERROR_INVALID_VALUE;
    struct CUlinkState_st *state = calloc(1, sizeof *state);
    if (!state)
        return CUDA_ERROR_OUT_OF_MEMORY;
    vgpu_handle_add(state, VGPU_H_LINK);
    *ret = state;
    return CUDA_SUCCESS;
}

CU_API(cuLinkAddData_v2, CUlinkState state, int type, void *data, size_t size, const char *name,
       unsigned int n, int *options, void **values)
{
    (void)name;
    VGPU_ENTER();
    if (!vgpu_handle_is(state, VGPU_H_LINK))
        return CUDA_ERROR_INVALID_HANDLE;
    if (!data || !size)
        return CUDA_ERROR_INVALID_VALUE;
    if (type != CU_JIT_INPUT_PTX || state->ptx) {
        lithos_warning("virtual GPU: cuLinkAddData: only one input, PTX text, is implemented");
        return CUDA_ERROR_NOT_SUPPORTED;
    }
    char *text = calloc(1, size + 1);
    if (!text)
        return CUDA_ERROR_OUT_OF_MEMORY;
    memcpy(text, data, size);
    CUresult r = vgpu_program_parse(text, n, options, values, &state->program);
    if (r) {
        free(text);
        return r;
    }
    state->ptx = text;
    return CUDA_SUCCESS;
}

CU_API(cuLinkComplete, CUlinkState state, void **ret_image, size_t *ret_size)
{
    struct CUctx_st *ctx;
    size_t size;
    VGPU_TRY(vgpu_current(&ctx));
    if (!vgpu_handle_is(state, VGPU_H_LINK))
        return CUDA_ERROR_INVALID_HANDLE;
    if (!ret_image || !state->program || state->image)
        return CUDA_ERROR_INVALID_VALUE;
    VGPU_TRY(build(&vgpu.devices[ctx->device].card, state, &state->image, &size));
    *ret_image = state->image;
    if (ret_size)
        *ret_size = size;
    return CUDA_SUCCESS;
}

CU_API(cuLinkDestroy, CUlinkState state)
{
    VGPU_ENTER();
    if (!vgpu_handle_is(state, VGPU_H_LINK))
        return CUDA_ERROR_INVALID_HANDLE;
    vgpu_handle_remove(state);
    vgpu_program_unref(state->program);
    free(state->ptx);
    free(state->image);
    free(state);
    return CUDA_SUCCESS;
}
