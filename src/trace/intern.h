/* Byte strings kept once, found by value, named by the order in which they came. Bounded. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define LITHOS_INTERN_NONE UINT32_MAX

struct lithos_intern {
    uint32_t max_entries;
    size_t max_bytes; /* of all entries, a NUL after each included */
    uint32_t count;
    uint32_t *slots; /* entry + 1, 0 free; a power of two of them */
    uint32_t slot_count;
    struct lithos_intern_entry {
        uint32_t offset, len, hash;
    } * entries;
    uint32_t entry_room;
    char *bytes;
    size_t used, byte_room;
};

/* max_entries below 2^31, max_bytes below 2^32. Allocates nothing yet. */
void lithos_intern_init(struct lithos_intern *t, uint32_t max_entries, size_t max_bytes);
void lithos_intern_finish(struct lithos_intern *t);
/* Forget all entries, keep the memory. */
void lithos_intern_reset(struct lithos_intern *t);
/* The entry of that value, or LITHOS_INTERN_NONE. */
uint32_t lithos_intern_find(const struct lithos_intern *t, const void *data, size_t len);
/* Add a value that is not in the table: its number is the count before. 0; -EEXIST it is there; -ENOSPC the table is
 * full; -ENOMEM. */
int lithos_intern_add(struct lithos_intern *t, const void *data, size_t len);
/* Bytes of an entry below count, a NUL behind them; valid until the next add. */
const char *lithos_intern_get(const struct lithos_intern *t, uint32_t entry, size_t *ret_len);
/* Room for one more entry of len bytes, by the limits. */
static inline int lithos_intern_has_room(const struct lithos_intern *t, uint32_t entries, size_t bytes)
{
    return t->count + entries <= t->max_entries && t->used + bytes + entries <= t->max_bytes;
}
