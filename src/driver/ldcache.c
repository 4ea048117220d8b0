#include "driver/ldcache.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

/* glibc, sysdeps/generic/dl-cache.h: struct cache_file_new and struct file_entry_new. All offsets count from
 * the header of the new format, which an old-format table ("ld.so-1.7.0") may precede. */
#define OLD_MAGIC "ld.so-1.7.0"
#define NEW_MAGIC "glibc-ld.so.cache1.1"
#define FLAG_ELF_LIBC6 0x0003
#define FLAG_X8664_LIB64 0x0300
#define ENDIAN_MASK 3u
#define ENDIAN_LITTLE 2u

struct cache_header {
    char magic[20]; /* with the version, no NUL */
    uint32_t count;
    uint32_t strings_bytes;
    uint8_t flags;
    uint8_t pad[3];
    uint32_t extension_offset;
    uint32_t unused[3];
};

struct cache_entry {
    int32_t flags;
    uint32_t key;
    uint32_t value;
    uint32_t os_version;
    uint64_t hwcap;
};

struct old_header {
    char magic[12]; /* with its NUL */
    uint32_t count;
};

#define OLD_ENTRY_BYTES 12u

/* The new-format table within data. */
static int find_table(const uint8_t *data, size_t bytes, const uint8_t **ret_table, size_t *ret_bytes)
{
    struct old_header old;
    size_t at = 0;
    if (bytes >= sizeof old && !memcmp(data, OLD_MAGIC, sizeof OLD_MAGIC - 1)) {
        memcpy(&old, data, sizeof old);
        if (old.count > (bytes - sizeof old) / OLD_ENTRY_BYTES)
            return -EBADMSG;
        at = (sizeof old + old.count * (size_t)OLD_ENTRY_BYTES + 7) / 8 * 8;
    }
    if (at > bytes || bytes - at < sizeof(struct cache_header) ||
        memcmp(data + at, NEW_MAGIC, sizeof NEW_MAGIC - 1) != 0)
        return -EBADMSG;
    *ret_table = data + at;
    *ret_bytes = bytes - at;
    return 0;
}

/* The NUL-ended string at an offset, or NULL when it does not end inside the table. */
static const char *string_at(const uint8_t *table, size_t bytes, uint32_t offset)
{
    if (offset >= bytes || !memchr(table + offset, 0, bytes - offset))
        return NULL;
    return (const char *)table + offset;
}

int lithos_ldcache_find(const void *data, size_t bytes, const char *name, unsigned n, char *ret_path,
                        size_t path_size)
{
    const uint8_t *table;
    size_t table_bytes;
    int r = find_table(data, bytes, &table, &table_bytes);
    if (r < 0)
        return r;
    struct cache_header header;
    memcpy(&header, table, sizeof header);
    if ((header.flags & ENDIAN_MASK) != 0 && (header.flags & ENDIAN_MASK) != ENDIAN_LITTLE)
        return -EBADMSG;
    if (header.count > (table_bytes - sizeof header) / sizeof(struct cache_entry))
        return -EBADMSG;
    for (uint32_t i = 0; i < header.count; i++) {
        struct cache_entry entry;
        memcpy(&entry, table + sizeof header + i * sizeof entry, sizeof entry);
        const char *key = string_at(table, table_bytes, entry.key);
        const char *value = string_at(table, table_bytes, entry.value);
        if (!key || !value)
            return -EBADMSG;
        if (entry.flags != (FLAG_ELF_LIBC6 | FLAG_X8664_LIB64) || strcmp(key, name) != 0)
            continue;
        if (n-- > 0)
            continue;
        if (strlen(value) >= path_size)
            return -ENAMETOOLONG;
        strcpy(ret_path, value); /* length checked above */
        return 0;
    }
    return -ENOENT;
}
