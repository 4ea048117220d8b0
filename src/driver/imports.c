/* An import of a library is a word of its global offset table, which the loader has filled when dlopen returns: relocation
 * entries say which word, by the name of the function. */
#include "driver/imports.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <link.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/util.h"

/* Imports of one name in one library: through calls, through pointers. */
#define SLOTS_MAX 16u

struct image {
    uintptr_t base;
    const char *strings;
    const ElfW(Sym) * symbols;
    size_t string_bytes;
    struct {
        const ElfW(Rela) * first;
        size_t count;
    } relocations[2];
    uintptr_t readonly_from, readonly_to; /* made so by the loader once it had filled it */
};

static void *address(const struct image *m, ElfW(Addr) a)
{
    /* glibc has put the load address into these, other loaders leave them as they are in the file. */
    return (void *)(a < m->base ? m->base + a : a);
}

static int find_protected(struct dl_phdr_info *info, size_t size, void *ctx)
{
    struct image *m = ctx;
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    (void)size;
    if (info->dlpi_addr != m->base)
        return 0;
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        if (p->p_type != PT_GNU_RELRO)
            continue;
        m->readonly_from = (m->base + p->p_vaddr) & ~(page - 1);
        m->readonly_to = (m->base + p->p_vaddr + p->p_memsz) & ~(page - 1);
    }
    return 1;
}

static int open_image(void *handle, struct image *ret)
{
    struct link_map *map;
    struct image m = {0};
    if (dlinfo(handle, RTLD_DI_LINKMAP, &map) != 0 || !map->l_ld)
        return -EINVAL;
    m.base = map->l_addr;
    for (const ElfW(Dyn) *d = map->l_ld; d->d_tag != DT_NULL; d++) {
        if (d->d_tag == DT_STRTAB)
            m.strings = address(&m, d->d_un.d_ptr);
        else if (d->d_tag == DT_STRSZ)
            m.string_bytes = d->d_un.d_val;
        else if (d->d_tag == DT_SYMTAB)
            m.symbols = address(&m, d->d_un.d_ptr);
        else if (d->d_tag == DT_RELA)
            m.relocations[0].first = address(&m, d->d_un.d_ptr);
        else if (d->d_tag == DT_RELASZ)
            m.relocations[0].count = d->d_un.d_val / sizeof(ElfW(Rela));
        else if (d->d_tag == DT_JMPREL)
            m.relocations[1].first = address(&m, d->d_un.d_ptr);
        else if (d->d_tag == DT_PLTRELSZ)
            m.relocations[1].count = d->d_un.d_val / sizeof(ElfW(Rela));
    }
    if (!m.strings || !m.symbols)
        return -ENOEXEC;
    dl_iterate_phdr(find_protected, &m);
    *ret = m;
    return 0;
}

static bool imports(const struct image *m, const ElfW(Rela) * r, const char *name)
{
    const uint64_t type = ELF64_R_TYPE(r->r_info), symbol = ELF64_R_SYM(r->r_info);
    if ((type != R_X86_64_JUMP_SLOT && type != R_X86_64_GLOB_DAT && type != R_X86_64_64) || !symbol)
        return false;
    const size_t at = m->symbols[symbol].st_name;
    return at < m->string_bytes && !strcmp(m->strings + at, name);
}

static unsigned find_slots(const struct image *m, const char *name, void **slots[SLOTS_MAX])
{
    unsigned count = 0;
    for (unsigned t = 0; t < LITHOS_ARRAY_SIZE(m->relocations); t++)
        for (size_t i = 0; m->relocations[t].first && i < m->relocations[t].count; i++) {
            const ElfW(Rela) *r = &m->relocations[t].first[i];
            if (imports(m, r, name) && count < SLOTS_MAX)
                slots[count++] = (void **)(m->base + r->r_offset);
        }
    return count;
}

static int write_slot(const struct image *m, void **slot, void *value)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)slot & ~(page - 1);
    const bool readonly = at >= m->readonly_from && at < m->readonly_to;
    if (readonly && mprotect((void *)at, page, PROT_READ | PROT_WRITE) < 0)
        return -errno;
    __atomic_store_n(slot, value, __ATOMIC_RELEASE);
    if (readonly)
        mprotect((void *)at, page, PROT_READ);
    return 0;
}

int lithos_import_replace(void *handle, const char *name, void *with, void **ret_before)
{
    struct image m;
    void **slots[SLOTS_MAX];
    int r = open_image(handle, &m);
    if (r < 0)
        return r;
    const unsigned count = find_slots(&m, name, slots);
    if (!count)
        return -ENOENT;
    void *before = __atomic_load_n(slots[0], __ATOMIC_ACQUIRE);
    for (unsigned i = 1; i < count; i++)
        if (__atomic_load_n(slots[i], __ATOMIC_ACQUIRE) != before)
            return -EBUSY;
    *ret_before = before; /* known before the first call can come */
    unsigned done = 0;
    while (done < count && r == 0) {
        r = write_slot(&m, slots[done], with);
        done += r == 0;
    }
    while (r < 0 && done > 0)
        write_slot(&m, slots[--done], before);
    return r;
}
