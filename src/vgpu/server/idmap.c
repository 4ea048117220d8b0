#include "vgpu/server/idmap.h"

#include <errno.h>
#include <stdlib.h>

static size_t home(const struct idmap *map, uint64_t id)
{
    return (size_t)((id * 0x9e3779b97f4a7c15ull) >> 20) & (map->room - 1);
}

static size_t find(const struct idmap *map, uint64_t id)
{
    size_t i = home(map, id);
    while (map->slots[i].id && map->slots[i].id != id)
        i = (i + 1) & (map->room - 1);
    return i;
}

void *idmap_get(const struct idmap *map, uint64_t id)
{
    return map->room ? map->slots[find(map, id)].value : NULL;
}

static int grow(struct idmap *map)
{
    struct idmap next = {.room = map->room ? 2 * map->room : 16};
    next.slots = calloc(next.room, sizeof *next.slots);
    if (!next.slots)
        return -ENOMEM;
    for (size_t i = 0; i < map->room; i++) {
        if (map->slots[i].id)
            next.slots[find(&next, map->slots[i].id)] = map->slots[i];
    }
    next.count = map->count;
    free(map->slots);
    *map = next;
    return 0;
}

int idmap_add(struct idmap *map, uint64_t id, void *value)
{
    if (2 * (map->count + 1) > map->room) {
        int r = grow(map);
        if (r < 0)
            return r;
    }
    size_t i = find(map, id);
    if (map->slots[i].id)
        return -EEXIST;
    map->slots[i].id = id;
    map->slots[i].value = value;
    map->count++;
    return 0;
}

void *idmap_remove(struct idmap *map, uint64_t id)
{
    if (!map->room)
        return NULL;
    size_t i = find(map, id), mask = map->room - 1;
    if (!map->slots[i].id)
        return NULL;
    void *value = map->slots[i].value;
    /* pull back what stands behind, so that no search ends at the gap */
    for (size_t next = (i + 1) & mask; map->slots[next].id; next = (next + 1) & mask) {
        size_t want = home(map, map->slots[next].id);
        if (((next - want) & mask) >= ((next - i) & mask)) {
            map->slots[i] = map->slots[next];
            i = next;
        }
    }
    map->slots[i].id = 0;
    map->slots[i].value = NULL;
    map->count--;
    return value;
}

void idmap_free(struct idmap *map)
{
    free(map->slots);
    *map = (struct idmap){0};
}
