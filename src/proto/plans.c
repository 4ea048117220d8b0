#include "proto/plans.h"

/* A choice in one word, so that it is never seen half: waves in the low half. */
#define WHOLE_LOW 32
#define TRIAL_LOW 40
#define USED_BITS 41

static uint64_t encode(const struct lithos_atom_choice *c)
{
    return c->waves | (uint64_t)c->whole << WHOLE_LOW | (uint64_t)c->trial << TRIAL_LOW;
}

static bool decode(uint64_t word, struct lithos_atom_choice *ret)
{
    struct lithos_atom_choice c = {.waves = (uint32_t)word,
                                   .whole = (enum lithos_whole)(word >> WHOLE_LOW & 0xff),
                                   .trial = word >> TRIAL_LOW & 1};
    if (word >> USED_BITS || c.whole >= LITHOS_WHOLE_MAX || (c.waves == 0) != (c.whole != LITHOS_WHOLE_NOT))
        return false;
    *ret = c;
    return true;
}

void lithos_plan_put(struct lithos_plan_row *rows, uint32_t row, uint64_t key, const struct lithos_plan *plan)
{
    struct lithos_plan_row *r = &rows[row];
    /* A reader that sees a new word also sees that the key is not its own, or is again when all is new. */
    atomic_store_explicit(&r->key, 0, memory_order_relaxed);
    atomic_store_explicit(&r->choice, encode(&plan->choice), memory_order_release);
    atomic_store_explicit(&r->predicted_ns, plan->predicted_ns, memory_order_release);
    atomic_store_explicit(&r->wave_ns, plan->wave_ns, memory_order_release);
    atomic_store_explicit(&r->key, key, memory_order_release);
}

bool lithos_plan_get(const struct lithos_plan_row *rows, uint64_t key, struct lithos_plan *ret_plan)
{
    for (uint32_t i = lithos_plan_row_of(key), end = i + LITHOS_PLAN_WAYS; i < end; i++) {
        const struct lithos_plan_row *r = &rows[i];
        if (atomic_load_explicit(&r->key, memory_order_acquire) != key)
            continue;
        struct lithos_plan p = {.predicted_ns = atomic_load_explicit(&r->predicted_ns, memory_order_acquire),
                                .wave_ns = atomic_load_explicit(&r->wave_ns, memory_order_acquire)};
        uint64_t word = atomic_load_explicit(&r->choice, memory_order_acquire);
        if (atomic_load_explicit(&r->key, memory_order_relaxed) != key || !decode(word, &p.choice))
            return false;
        *ret_plan = p;
        return true;
    }
    return false;
}
