/* What a shared library asks the loader for. */
#pragma once

#include <stddef.h>

/* DT_NEEDED names of an ELF file of this machine, with blanks between. 0; -ENOEXEC when it is no such file or
 * is damaged; -ENAMETOOLONG when they do not fit; else the errno of reading it. */
int lithos_elf_needed(const char *path, char *ret_names, size_t size);
/* The same of a file's bytes. */
int lithos_elf_needed_in(const void *bytes, size_t len, char *ret_names, size_t size);
