#include "cli/elf_needed.h"

#include <elf.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"

#define LIBRARY_BYTES_MAX (256u << 20)

struct image {
    const char *bytes;
    size_t len;
};

static const void *at(const struct image *f, uint64_t offset, uint64_t bytes)
{
    return offset <= f->len && bytes <= f->len - offset ? f->bytes + offset : NULL;
}

/* Copies: nothing in a file need be aligned. */
static int section(const struct image *f, const Elf64_Ehdr *e, unsigned index, Elf64_Shdr *ret)
{
    const void *p = at(f, e->e_shoff + (uint64_t)index * sizeof(*ret), sizeof(*ret));

    if (index >= e->e_shnum || !p)
        return -ENOEXEC;
    memcpy(ret, p, sizeof(*ret));
    return 0;
}

static int append_names(const struct image *f, const Elf64_Shdr *dynamic, const Elf64_Shdr *strings,
                        char *names, size_t size)
{
    const char *table = at(f, strings->sh_offset, strings->sh_size);
    size_t n = 0;

    if (!table || !strings->sh_size || table[strings->sh_size - 1])
        return -ENOEXEC;
    for (uint64_t i = 0; i < dynamic->sh_size / sizeof(Elf64_Dyn); i++) {
        const void *p = at(f, dynamic->sh_offset + i * sizeof(Elf64_Dyn), sizeof(Elf64_Dyn));
        Elf64_Dyn entry;
        if (!p)
            return -ENOEXEC;
        memcpy(&entry, p, sizeof(entry));
        if (entry.d_tag == DT_NULL)
            break;
        if (entry.d_tag != DT_NEEDED)
            continue;
        if (entry.d_un.d_val >= strings->sh_size)
            return -ENOEXEC;
        const char *name = table + entry.d_un.d_val;
        size_t len = strlen(name);
        if (n + len + 2 > size)
            return -ENAMETOOLONG;
        if (n)
            names[n++] = ' ';
        memcpy(names + n, name, len);
        n += len;
    }
    names[n] = 0;
    return 0;
}

int lithos_elf_needed_in(const void *bytes, size_t len, char *ret_names, size_t size)
{
    struct image f = {bytes, len};
    Elf64_Ehdr e;
    Elf64_Shdr dynamic, strings;
    char names[4096];

    if (len < sizeof(e) || memcmp(bytes, ELFMAG, SELFMAG) || f.bytes[EI_CLASS] != ELFCLASS64)
        return -ENOEXEC;
    memcpy(&e, bytes, sizeof(e));
    if (e.e_machine != EM_X86_64 || e.e_shentsize != sizeof(Elf64_Shdr) || e.e_shoff > len)
        return -ENOEXEC;
    for (unsigned i = 0; i < e.e_shnum; i++) {
        if (section(&f, &e, i, &dynamic) < 0)
            return -ENOEXEC;
        if (dynamic.sh_type != SHT_DYNAMIC)
            continue;
        if (section(&f, &e, dynamic.sh_link, &strings) < 0)
            return -ENOEXEC;
        int r = append_names(&f, &dynamic, &strings, names, sizeof(names) < size ? sizeof(names) : size);
        if (r == 0)
            strcpy(ret_names, names);
        return r;
    }
    return -ENOEXEC;
}

int lithos_elf_needed(const char *path, char *ret_names, size_t size)
{
    char *text;
    size_t len;
    int r = lithos_read_file(path, LIBRARY_BYTES_MAX, &text, &len);

    if (r < 0)
        return r;
    r = lithos_elf_needed_in(text, len, ret_names, size);
    free(text);
    return r;
}
