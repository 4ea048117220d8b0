/* Ids that a client has chosen (never 0) to what they mean here. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct idmap {
    struct {
        uint64_t id; /* 0: empty */
        void *value;
    } * slots;
    size_t room, count; /* room: a power of two, or 0 */
};

void *idmap_get(const struct idmap *map, uint64_t id); /* NULL when there is none */
/* -EEXIST, -ENOMEM */
int idmap_add(struct idmap *map, uint64_t id, void *value);
void *idmap_remove(struct idmap *map, uint64_t id); /* what it was, NULL when there was none */
void idmap_free(struct idmap *map);                 /* not the values */
