/* How much operators feel the clock. */
#include <string.h>

#include "core/governor_internal.h"

#define MEAN_WEIGHT 0.125f
/* So many samples are in a running mean. */
#define MEAN_SAMPLES 16u
/* A clock nearer to the highest than this says nothing of s but noise. */
#define APART 0.04f

struct governor_operator *governor_find(struct lithos_governor *g, uint32_t slot, uint64_t key)
{
    uint64_t h = (key + slot * 0x9e3779b97f4a7c15ull) * 0xbf58476d1ce4e5b9ull;
    struct governor_operator *set, *oldest;

    h ^= h >> 31;
    set = oldest = &g->op[h % g->sets * GOVERNOR_WAYS];
    for (unsigned i = 0; i < GOVERNOR_WAYS; i++) {
        if (set[i].used && set[i].key == key && set[i].slot == slot)
            return &set[i];
        if (set[i].used < oldest->used)
            oldest = &set[i];
    }
    *oldest = (struct governor_operator){.key = key, .slot = slot, .s = 1};
    return oldest;
}

static float mean(float old, float x, uint16_t count)
{
    const float weight = LITHOS_MAX(MEAN_WEIGHT, 1.0f / (float)(count + 1));
    return old + weight * (x - old);
}

void governor_sample(const struct lithos_governor *g, struct governor_operator *op, float ns, uint32_t mhz)
{
    /* a card that does as it likes is a step or two off its highest clock when it is warm */
    if (mhz + 2 * g->config.step_mhz >= g->config.max_mhz) {
        op->top_ns = mean(op->top_ns, ns, op->top_count);
        op->top_count += op->top_count < UINT16_MAX;
        return;
    }
    const float slower = (float)g->config.max_mhz / (float)LITHOS_MAX(mhz, 1u) - 1;
    if (op->top_count < GOVERNOR_SEEN || slower < APART || op->top_ns <= 0)
        return;
    const float s = (ns / op->top_ns - 1) / slower;
    op->s = mean(op->low_count ? op->s : 0, s, op->low_count);
    op->s_square = mean(op->low_count ? op->s_square : 0, s * s, op->low_count);
    op->low_count += op->low_count < UINT16_MAX;
}

/* Until it is known s is 1, the most that a clock can do. It never is of what takes now so long, now so, at any clock: the same function
 * with the same grid on matrices of several depths. */
static double sensitivity(const struct governor_operator *op)
{
    const float count = (float)LITHOS_MIN(op->low_count, MEAN_SAMPLES);

    if (op->low_count < GOVERNOR_SURE || op->s_square - op->s * op->s > GOVERNOR_NEAR * GOVERNOR_NEAR * count)
        return 1;
    return (double)LITHOS_MIN(LITHOS_MAX(op->s, 0.0f), 1.0f);
}

void governor_sum(struct lithos_governor *g)
{
    for (uint32_t i = 0; i < LITHOS_GOVERNOR_TENANTS_MAX; i++)
        g->tenants[i].recent_ns = g->tenants[i].sensitive_ns = g->tenants[i].unseen_ns = 0;
    for (uint32_t i = 0; i < g->sets * GOVERNOR_WAYS; i++) {
        struct governor_operator *op = &g->op[i];
        if (!op->used || op->recent_ns < 1 || op->slot >= LITHOS_GOVERNOR_TENANTS_MAX)
            continue;
        struct governor_tenant *t = &g->tenants[op->slot];
        t->recent_ns += op->recent_ns;
        t->sensitive_ns += op->recent_ns * sensitivity(op);
        t->unseen_ns += op->top_count < GOVERNOR_SEEN ? op->recent_ns : 0;
        op->recent_ns /= 2;
    }
}
