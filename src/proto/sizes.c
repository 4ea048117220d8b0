#include "proto/sizes.h"

static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9e3779b97f4a7c15ull;
    return h ^ h >> 29;
}

static uint64_t mix_shape(uint64_t h, const uint32_t grid[3], const uint32_t block[3])
{
    h = mix(h, (uint64_t)grid[0] << 32 | grid[1]);
    h = mix(h, (uint64_t)grid[2] << 32 | block[0]);
    return mix(h, (uint64_t)block[1] << 32 | block[2]);
}

uint32_t lithos_size_shape(const uint32_t grid[3], const uint32_t block[3])
{
    const uint32_t shape = (uint32_t)(mix_shape(0, grid, block) >> 32);
    return shape ? shape : 1;
}

uint64_t lithos_size_key(uint64_t function, const uint32_t grid[3], const uint32_t block[3], uint32_t before)
{
    const uint64_t h = mix_shape(mix(function, before), grid, block);
    return h ? h : 1;
}

static void store(_Atomic uint64_t to[2], const struct lithos_tpcset *from)
{
    atomic_store_explicit(&to[0], from->w[0], memory_order_release);
    atomic_store_explicit(&to[1], from->w[1], memory_order_release);
}

static struct lithos_tpcset load(const _Atomic uint64_t from[2])
{
    return (struct lithos_tpcset){{atomic_load_explicit(&from[0], memory_order_acquire),
                                   atomic_load_explicit(&from[1], memory_order_acquire)}};
}

void lithos_size_put(struct lithos_size_row *rows, uint64_t key, uint32_t way, const struct lithos_size *size)
{
    struct lithos_size_row *r = &rows[lithos_size_row_of(key) + way % LITHOS_SIZE_WAYS];
    /* A reader that sees a new word also sees that the key is not its own, or is again when all is new. */
    atomic_store_explicit(&r->key, 0, memory_order_relaxed);
    store(r->tpcs, &size->tpcs);
    store(r->probe, &size->probe);
    atomic_store_explicit(&r->every, (uint64_t)size->least_tpcs << 32 | size->probe_every,
                          memory_order_release);
    atomic_store_explicit(&r->key, key, memory_order_release);
}

bool lithos_size_get(const struct lithos_size_row *rows, uint64_t key, struct lithos_size *ret_size)
{
    for (uint32_t i = lithos_size_row_of(key), end = i + LITHOS_SIZE_WAYS; i < end; i++) {
        const struct lithos_size_row *r = &rows[i];
        if (atomic_load_explicit(&r->key, memory_order_acquire) != key)
            continue;
        const struct lithos_size s = {.tpcs = load(r->tpcs), .probe = load(r->probe)};
        const uint64_t both = atomic_load_explicit(&r->every, memory_order_acquire),
                       every = both & UINT32_MAX;
        if (atomic_load_explicit(&r->key, memory_order_relaxed) != key || every > LITHOS_SIZE_EVERY_MAX ||
            lithos_tpcset_empty(&s.tpcs) || (every && lithos_tpcset_empty(&s.probe)))
            return false;
        *ret_size = s;
        ret_size->probe_every = (uint32_t)every;
        ret_size->least_tpcs = (uint32_t)(both >> 32);
        return true;
    }
    return false;
}
