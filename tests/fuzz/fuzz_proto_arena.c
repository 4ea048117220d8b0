/* The arena and grant validators, over an arena that the other side has scribbled on. */
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "fuzz/fuzz.h"
#include "proto/arena.h"

/* Past the counters there is only padding. */
#define USED offsetof(struct lithos_arena, counters)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static _Alignas(4096) uint8_t pages[LITHOS_ARENA_BYTES];
    const struct lithos_arena *a = (const struct lithos_arena *)pages;
    struct lithos_grant g;
    uint32_t seq;
    memset(pages, 0, sizeof pages);
    memcpy(pages, data, LITHOS_MIN(size, USED));
    if (lithos_arena_validate(a, sizeof pages) == 0 &&
        (a->version != LITHOS_ARENA_VERSION || a->size > sizeof pages))
        abort();
    if (lithos_arena_validate(a, sizeof pages - 1) == 0)
        abort();
    if (lithos_arena_read_grant(a, &g, &seq) == 0) {
        if (seq & 1 || g.gpu_count == 0 || g.gpu_count > LITHOS_MAX_GPUS || g.class >= LITHOS_CLASS_MAX)
            abort();
        for (uint32_t i = 0; i < g.gpu_count; i++) {
            struct lithos_tpcset outside = lithos_tpcset_minus(g.gpus[i].own, g.gpus[i].topology.valid);
            if (lithos_tpcset_empty(&g.gpus[i].own) || !lithos_tpcset_empty(&outside))
                abort();
        }
    }
    for (uint32_t i = 0; i < LITHOS_MAX_GPUS; i++) {
        struct lithos_rule r;
        if (lithos_arena_read_rule(a, i, &r, &seq) == 0 && r.flags &&
            (seq & 1 || !(r.flags & LITHOS_RULE_ON) || r.floor == 0 || r.floor > LITHOS_RULE_FLOOR_MAX ||
             r.window_ns > LITHOS_RULE_WINDOW_MAX_NS || r.own_window_ns > LITHOS_RULE_WINDOW_MAX_NS))
            abort();
    }
    return 0;
}

size_t lithos_fuzz_seed(size_t n, uint8_t *buf, size_t size)
{
    static _Alignas(4096) uint8_t pages[LITHOS_ARENA_BYTES];
    struct lithos_arena *a = (struct lithos_arena *)pages;
    struct lithos_grant g = {.epoch = 1, .gpu_count = n ? LITHOS_MAX_GPUS : 1};
    if (n > 1 || size < USED)
        return 0;
    for (uint32_t i = 0; i < g.gpu_count; i++) {
        g.gpus[i].uuid[0] = (uint8_t)i;
        g.gpus[i].topology = (struct lithos_topology){{{0xffff, 0}}, 2, 9, 8, 0};
        g.gpus[i].own = (struct lithos_tpcset){{0xf0, 0}};
    }
    a->magic = LITHOS_ARENA_MAGIC;
    a->version = LITHOS_ARENA_VERSION;
    a->size = LITHOS_ARENA_BYTES;
    lithos_arena_publish(a, &g);
    struct lithos_rule r = {.flags = LITHOS_RULE_ON, .window_ns = 100000, .floor = 2, .lent = {{0xf00, 0}}};
    for (uint32_t i = 0; i < LITHOS_MAX_GPUS; i++)
        lithos_arena_set_rule(a, i, &r);
    memcpy(buf, pages, USED);
    return USED;
}
