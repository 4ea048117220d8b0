/* The account of a tenant: kernels, TPC time, durations, rates. */
#include "base/util.h"
#include "core/timeline_internal.h"

/* ---- durations ---- */

/* Below 16 exact, then 16 slots an octave. */
static uint32_t slot_of(uint64_t ns)
{
    if (ns < 16)
        return (uint32_t)ns;
    uint32_t octave = 63u - (uint32_t)__builtin_clzll(ns);
    uint32_t slot = (octave - 3) * 16 + (uint32_t)((ns >> (octave - 4)) & 15);
    return LITHOS_MIN(slot, LITHOS_TIMELINE_SLOTS - 1);
}

/* The middle of a slot. */
static uint64_t slot_ns(uint32_t slot)
{
    if (slot < 16)
        return slot;
    uint32_t shift = slot / 16 - 1;
    return ((16ull + slot % 16) << shift) + (1ull << shift) / 2;
}

static void add_duration(struct lithos_timeline_histogram *h, uint64_t ns, uint32_t weight)
{
    h->count += weight;
    h->slot[slot_of(ns)] += weight;
}

static uint64_t quantile(const struct lithos_timeline_histogram *a, const struct lithos_timeline_histogram *b,
                         double q)
{
    uint64_t count = a->count + (b ? b->count : 0), below = 0;
    if (!count)
        return 0;
    double want = q * (double)count;
    for (uint32_t i = 0; i < LITHOS_TIMELINE_SLOTS; i++) {
        below += a->slot[i] + (b ? b->slot[i] : 0);
        if (below && (double)below >= want)
            return slot_ns(i);
    }
    return slot_ns(LITHOS_TIMELINE_SLOTS - 1);
}

uint64_t lithos_timeline_quantile_ns(const struct lithos_timeline *tl, double q)
{
    return quantile(&tl->recent[0], &tl->recent[1], q);
}

uint64_t lithos_timeline_operator_quantile_ns(const struct lithos_timeline_operator *op, double q)
{
    return quantile(&op->durations, NULL, q);
}

/* ---- the last second ---- */

static struct timeline_bucket *rate_bucket(struct lithos_timeline *tl, uint64_t time_ns)
{
    uint64_t number = time_ns / TIMELINE_BUCKET_NS;
    struct timeline_bucket *b = &tl->rate[number % TIMELINE_BUCKETS];
    if (b->number > number)
        return NULL; /* older than what is kept */
    if (b->number < number)
        *b = (struct timeline_bucket){.number = number};
    return b;
}

void timeline_count_submit(struct lithos_timeline *tl, uint64_t submit_ns, uint32_t kernels)
{
    struct timeline_bucket *b = rate_bucket(tl, submit_ns);
    if (b)
        b->launches += kernels;
}

/* Spread over the time it ran: one kernel may be longer than a bucket. */
static void count_busy(struct lithos_timeline *tl, uint64_t start_ns, uint64_t end_ns, uint32_t tpcs)
{
    if (end_ns - start_ns > TIMELINE_BUCKETS * TIMELINE_BUCKET_NS)
        start_ns = end_ns - TIMELINE_BUCKETS * TIMELINE_BUCKET_NS;
    while (start_ns < end_ns) {
        uint64_t until_ns = LITHOS_MIN((start_ns / TIMELINE_BUCKET_NS + 1) * TIMELINE_BUCKET_NS, end_ns);
        struct timeline_bucket *b = rate_bucket(tl, start_ns);
        if (b)
            b->tpc_ns += (double)(until_ns - start_ns) * tpcs;
        start_ns = until_ns;
    }
}

struct lithos_timeline_rates lithos_timeline_rates(const struct lithos_timeline *tl, uint64_t now_ns)
{
    struct lithos_timeline_rates r = {0, 0};
    uint64_t number = now_ns / TIMELINE_BUCKET_NS; /* the one being filled is left out */
    for (uint32_t i = 0; i < TIMELINE_BUCKETS; i++) {
        const struct timeline_bucket *b = &tl->rate[i];
        if (b->number >= number || b->number + 10 < number)
            continue;
        r.launches_per_s += (double)b->launches;
        r.busy_tpcs += b->tpc_ns / 1e9;
    }
    return r;
}

/* ---- kernels ---- */

static struct lithos_timeline_operator *operator_of(struct lithos_timeline *tl, uint64_t function)
{
    for (uint32_t i = 0; i < tl->operator_count; i++)
        if (tl->operators[i].function == function)
            return &tl->operators[i];
    if (tl->operator_count == tl->config.operators) {
        tl->operators[tl->operator_count - 1].function = 0; /* the last place is everybody else's */
        return &tl->operators[tl->operator_count - 1];
    }
    struct lithos_timeline_operator *op = &tl->operators[tl->operator_count++];
    op->function = function;
    return op;
}

/* How long it took, for itself and for those like it of which only the sum is known. */
static void count_operator(struct lithos_timeline *tl, const struct lithos_kernel_event *e, uint32_t tpcs)
{
    const uint32_t weight = LITHOS_MAX(e->launch->weight, 1u);
    struct lithos_timeline_operator *op = operator_of(tl, e->launch->function);

    if (e->end_ns - tl->recent_begin_ns > TIMELINE_RECENT_NS && e->end_ns > tl->recent_begin_ns) {
        tl->recent[1] = tl->recent[0];
        tl->recent[0] = (struct lithos_timeline_histogram){0};
        tl->recent_begin_ns = e->end_ns;
    }
    add_duration(&tl->recent[0], e->busy_ns, weight);
    op->kernels += weight;
    op->total_ns += e->busy_ns * weight;
    op->tpc_ns += e->busy_ns * tpcs * weight;
    add_duration(&op->durations, e->busy_ns, weight);
}

void timeline_count_kernel(struct lithos_timeline *tl, const struct lithos_kernel_event *e)
{
    const struct lithos_timeline_launch *l = e->launch;
    struct timeline_gpu *g = &tl->gpu[l->gpu];
    uint32_t all = tl->config.gpu[l->gpu].tpcs;
    uint32_t tpcs = l->tpc_count && l->tpc_count < all ? l->tpc_count : all;

    tl->stats.kernels += LITHOS_MAX(l->kernels, 1u);
    tl->stats.tpc_ns += e->busy_ns * tpcs;
    tl->stats.overlapped += (e->flags & LITHOS_KERNEL_OVERLAPPED) != 0;
    tl->stats.clamped += (e->flags & LITHOS_KERNEL_CLAMPED) != 0;
    if (l->kernels <= 1)
        count_operator(tl, e, tpcs);
    /* Ends come in order, so what was busy before is known up to the latest of them. */
    uint64_t from_ns = LITHOS_MAX(e->start_ns, g->busy_until_ns);
    if (from_ns < e->end_ns) {
        count_busy(tl, from_ns, e->end_ns, tpcs);
        g->busy_until_ns = e->end_ns;
    }
}

const struct lithos_timeline_stats *lithos_timeline_stats(const struct lithos_timeline *tl)
{
    return &tl->stats;
}

const struct lithos_timeline_operator *lithos_timeline_operator(const struct lithos_timeline *tl, uint32_t i)
{
    return i < tl->operator_count ? &tl->operators[i] : NULL;
}

const struct lithos_clockmap *lithos_timeline_clock(const struct lithos_timeline *tl, uint32_t gpu)
{
    return gpu < tl->config.gpu_count ? &tl->gpu[gpu].clock : NULL;
}

const char *lithos_timeline_lost_name(enum lithos_timeline_lost lost)
{
    static const char *const names[LITHOS_LOST_MAX] = {
        [LITHOS_LOST_NO_SLOT] = "no_slot", [LITHOS_LOST_TAKEN] = "semaphore_taken",
        [LITHOS_LOST_OFF] = "stamps_off",  [LITHOS_LOST_OVERWRITTEN] = "overwritten",
        [LITHOS_LOST_MISSING] = "missing", [LITHOS_LOST_NO_ROOM] = "no_room",
        [LITHOS_LOST_DIED] = "died",       [LITHOS_LOST_REPLAY] = "graph_replay",
    };
    return (unsigned)lost < LITHOS_LOST_MAX ? names[lost] : "unknown";
}
