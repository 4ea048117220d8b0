#include "trace/intern.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

void lithos_intern_init(struct lithos_intern *t, uint32_t max_entries, size_t max_bytes)
{
    *t = (struct lithos_intern){.max_entries = max_entries, .max_bytes = max_bytes};
}

void lithos_intern_finish(struct lithos_intern *t)
{
    free(t->slots);
    free(t->entries);
    free(t->bytes);
    lithos_intern_init(t, t->max_entries, t->max_bytes);
}

void lithos_intern_reset(struct lithos_intern *t)
{
    if (t->slots)
        memset(t->slots, 0, t->slot_count * sizeof(*t->slots));
    t->count = 0;
    t->used = 0;
}

/* FNV-1a by words: names are long, tables are not attacked by collisions worse than a slow read. */
static uint32_t hash_of(const void *data, size_t len)
{
    const uint8_t *p = data;
    uint64_t h = 0xcbf29ce484222325ull ^ len, word;

    for (; len >= 8; len -= 8, p += 8) {
        memcpy(&word, p, 8);
        h = (h ^ word) * 0x9e3779b97f4a7c15ull;
        h ^= h >> 29;
    }
    for (; len; len--)
        h = (h ^ *p++) * 0x100000001b3ull;
    h ^= h >> 32;
    return (uint32_t)(h * 0x9e3779b97f4a7c15ull >> 32);
}

static uint32_t find(const struct lithos_intern *t, const void *data, size_t len, uint32_t hash)
{
    if (!t->slot_count)
        return LITHOS_INTERN_NONE;
    for (uint32_t i = hash & (t->slot_count - 1); t->slots[i]; i = (i + 1) & (t->slot_count - 1)) {
        const struct lithos_intern_entry *e = &t->entries[t->slots[i] - 1];
        if (e->hash == hash && e->len == len && !memcmp(t->bytes + e->offset, data, len))
            return t->slots[i] - 1;
    }
    return LITHOS_INTERN_NONE;
}

uint32_t lithos_intern_find(const struct lithos_intern *t, const void *data, size_t len)
{
    return find(t, data, len, hash_of(data, len));
}

static void take_slot(struct lithos_intern *t, uint32_t entry)
{
    uint32_t i = t->entries[entry].hash & (t->slot_count - 1);

    while (t->slots[i])
        i = (i + 1) & (t->slot_count - 1);
    t->slots[i] = entry + 1;
}

/* Room for one more in all three arrays; slots at most half full. */
static int make_room(struct lithos_intern *t, size_t len)
{
    if (t->count == t->entry_room) {
        uint32_t room = LITHOS_MIN(LITHOS_MAX(t->entry_room * 2, 64u), t->max_entries);
        void *entries = reallocarray(t->entries, room, sizeof(*t->entries));
        if (!entries)
            return -ENOMEM;
        t->entries = entries;
        t->entry_room = room;
    }
    if (t->used + len + 1 > t->byte_room) {
        size_t room = LITHOS_MIN(LITHOS_MAX(t->byte_room * 2, t->used + len + 4096), t->max_bytes);
        char *bytes = realloc(t->bytes, room);
        if (!bytes)
            return -ENOMEM;
        t->bytes = bytes;
        t->byte_room = room;
    }
    if ((t->count + 1) * 2 > t->slot_count) {
        uint32_t slot_count = LITHOS_MAX(t->slot_count * 2, 128u);
        uint32_t *slots = calloc(slot_count, sizeof(*slots));
        if (!slots)
            return -ENOMEM;
        free(t->slots);
        t->slots = slots;
        t->slot_count = slot_count;
        for (uint32_t i = 0; i < t->count; i++)
            take_slot(t, i);
    }
    return 0;
}

int lithos_intern_add(struct lithos_intern *t, const void *data, size_t len)
{
    uint32_t hash = hash_of(data, len);

    if (find(t, data, len, hash) != LITHOS_INTERN_NONE)
        return -EEXIST;
    if (len > t->max_bytes || !lithos_intern_has_room(t, 1, len))
        return -ENOSPC;
    int r = make_room(t, len);
    if (r < 0)
        return r;
    t->entries[t->count] = (struct lithos_intern_entry){(uint32_t)t->used, (uint32_t)len, hash};
    memcpy(t->bytes + t->used, data, len);
    t->bytes[t->used + len] = 0;
    t->used += len + 1;
    take_slot(t, t->count++);
    return 0;
}

const char *lithos_intern_get(const struct lithos_intern *t, uint32_t entry, size_t *ret_len)
{
    *ret_len = t->entries[entry].len;
    return t->bytes + t->entries[entry].offset;
}
