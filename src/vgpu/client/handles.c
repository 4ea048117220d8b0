/* Which handles are alive: a hash set of addresses. A wild or stale handle is found out without touching it. */
#include <stdlib.h>

#include "vgpu/client/client.h"

struct slot {
    const void *p;
    enum vgpu_handle kind; /* NONE with p set: removed */
};

static pthread_rwlock_t guard = PTHREAD_RWLOCK_INITIALIZER;
static struct slot *slots;
static size_t capacity, used; /* used: removed ones too */

static size_t hash(const void *p)
{
    return (size_t)(((uintptr_t)p >> 3) * 0x9e3779b97f4a7c15ull >> 20);
}

static struct slot *find(const void *p)
{
    if (!capacity)
        return NULL;
    for (size_t i = hash(p) & (capacity - 1);; i = (i + 1) & (capacity - 1)) {
        if (!slots[i].p)
            return NULL;
        if (slots[i].p == p)
            return &slots[i];
    }
}

static void put(struct slot *table, size_t size, struct slot s)
{
    size_t i = hash(s.p) & (size - 1);
    while (table[i].p)
        i = (i + 1) & (size - 1);
    table[i] = s;
}

static bool grow(void)
{
    size_t size = capacity ? capacity * 2 : 256, kept = 0;
    struct slot *table = calloc(size, sizeof *table);
    if (!table)
        return false;
    for (size_t i = 0; i < capacity; i++)
        if (slots[i].p && slots[i].kind != VGPU_H_NONE) {
            put(table, size, slots[i]);
            kept++;
        }
    free(slots);
    slots = table;
    capacity = size;
    used = kept;
    return true;
}

void vgpu_handle_add(const void *p, enum vgpu_handle kind)
{
    pthread_rwlock_wrlock(&guard);
    struct slot *s = find(p);
    if (s) {
        s->kind = kind;
    } else if (used * 4 < capacity * 3 || grow()) {
        put(slots, capacity, (struct slot){p, kind});
        used++;
    } /* else no memory: the handle reads as invalid */
    pthread_rwlock_unlock(&guard);
}

void vgpu_handle_remove(const void *p)
{
    pthread_rwlock_wrlock(&guard);
    struct slot *s = find(p);
    if (s)
        s->kind = VGPU_H_NONE;
    pthread_rwlock_unlock(&guard);
}

bool vgpu_handle_is(const void *p, enum vgpu_handle kind)
{
    if (!p)
        return false;
    pthread_rwlock_rdlock(&guard);
    struct slot *s = find(p);
    bool is = s && s->kind == kind;
    pthread_rwlock_unlock(&guard);
    return is;
}
