/* Reader of /etc/ld.so.cache (format glibc-ld.so.cache1.1): where the dynamic linker would look for a
 * library. */
#pragma once

#include <stddef.h>

/* Longest cache worth reading; real ones are some 100 KB. */
#define LITHOS_LDCACHE_MAX_BYTES (16u << 20)

/* The n-th path (from 0) that the cache gives for an x86-64 library of this name. 0; -ENOENT when there are
 * no more; -EBADMSG when the data is not a cache of that format or is damaged; -ENAMETOOLONG. data is not
 * trusted: nothing outside it is read. */
int lithos_ldcache_find(const void *data, size_t bytes, const char *name, unsigned n, char *ret_path,
                        size_t path_size);
