/* /etc/ld.so.cache: whatever stands there, the reader stays within it. */
#include <stdlib.h>
#include <string.h>

#include "driver/ldcache.h"
#include "fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    /* A copy of just that size, so that a byte read beyond it is caught. */
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy)
        return 0;
    memcpy(copy, data, size);
    for (unsigned n = 0; n < 3; n++) {
        memset(path, 1, sizeof path);
        if (lithos_ldcache_find(copy, size, "libcuda.so.1", n, path, sizeof path) == 0 &&
            !memchr(path, 0, sizeof path))
            abort();
    }
    free(copy);
    return 0;
}

/* A cache as ldconfig writes it, with two libraries; the second seed has an old-format table before it. */
static size_t make(uint8_t *buf, size_t size, int old)
{
    struct {
        char magic[20];
        uint32_t count, strings;
        uint8_t flags, pad[3];
        uint32_t extension, unused[3];
        struct {
            int32_t flags;
            uint32_t key, value, os;
            uint64_t hwcap;
        } entries[2];
        char text[80];
    } c = {.count = 2, .flags = 2};
    memcpy(c.magic, "glibc-ld.so.cache1.1", 20);
    uint32_t text = (uint32_t)((char *)c.text - (char *)&c);
    static const char strings[] = "libcuda.so.1\0/usr/lib/libcuda.so.1\0libc.so.6\0/lib/libc.so.6";
    memcpy(c.text, strings, sizeof strings);
    c.strings = sizeof strings;
    c.entries[0].flags = c.entries[1].flags = 0x0303;
    c.entries[0].key = text;
    c.entries[0].value = text + 13;
    c.entries[1].key = text + 35;
    c.entries[1].value = text + 45;
    size_t used = 0;
    if (old) {
        uint32_t count = 0;
        memcpy(buf, "ld.so-1.7.0", 12);
        memcpy(buf + 12, &count, 4);
        used = 16;
    }
    if (used + sizeof c > size)
        return 0;
    memcpy(buf + used, &c, sizeof c);
    return used + sizeof c;
}

size_t lithos_fuzz_seed(size_t n, uint8_t *buf, size_t size)
{
    return n < 2 ? make(buf, size, (int)n) : 0;
}
