#include "proto/arena.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "base/util.h"

/* The grant crosses the seqlock as whole words. Each store is a release and each load an acquire, which
 * orders them against the odd sequence number without a fence (thread sanitizers know no fences; on x86-64
 * all of it is plain moves): a reader that sees one new word also sees the odd number when it looks again. */
typedef uint64_t __attribute__((may_alias)) grant_word;

#define GRANT_WORDS (sizeof(struct lithos_grant) / sizeof(grant_word))
#define RULE_WORDS (sizeof(struct lithos_rule) / sizeof(grant_word))
#define READ_TRIES 64

_Static_assert(sizeof(struct lithos_grant) % sizeof(grant_word) == 0, "the grant is whole words");
_Static_assert(sizeof(struct lithos_rule) % sizeof(grant_word) == 0, "a rule is whole words");
_Static_assert(offsetof(struct lithos_rule_slot, rule) % sizeof(grant_word) == 0, "a rule is aligned");
_Static_assert(offsetof(struct lithos_arena, grant) % sizeof(grant_word) == 0, "the grant is aligned");
_Static_assert(offsetof(struct lithos_arena, counters) % 4096 == 0, "the tenant's part has pages of its own");

int lithos_arena_validate(const struct lithos_arena *a, size_t mapped_bytes)
{
    if (mapped_bytes < LITHOS_ARENA_BYTES || a->magic != LITHOS_ARENA_MAGIC)
        return -EPROTO;
    if (a->version != LITHOS_ARENA_VERSION)
        return -EPROTONOSUPPORT;
    return a->size == LITHOS_ARENA_BYTES && a->size <= mapped_bytes ? 0 : -EPROTO;
}

int lithos_grant_validate(const struct lithos_grant *g)
{
    if (g->gpu_count == 0 || g->gpu_count > LITHOS_MAX_GPUS || g->class >= LITHOS_CLASS_MAX ||
        lithos_atom_policy_validate(&g->atom) < 0)
        return -EINVAL;
    if (g->share >= LITHOS_DOMAIN_MAX ||
        g->slice_us > (g->share == LITHOS_DOMAIN_PREEMPT ? LITHOS_SLICE_MAX_US : 0))
        return -EINVAL;
    for (uint32_t i = 0; i < g->gpu_count; i++) {
        const struct lithos_grant_gpu *gpu = &g->gpus[i];
        if (lithos_topology_validate(&gpu->topology) < 0 || lithos_tpcset_empty(&gpu->own))
            return -EINVAL;
        struct lithos_tpcset all = lithos_tpcset_or(gpu->own, gpu->graphs);
        struct lithos_tpcset outside = lithos_tpcset_minus(all, gpu->topology.valid);
        if (!lithos_tpcset_empty(&outside))
            return -EINVAL;
        for (uint32_t j = 0; j < i; j++)
            if (!memcmp(gpu->uuid, g->gpus[j].uuid, LITHOS_UUID_BYTES))
                return -EINVAL;
    }
    return 0;
}

void lithos_arena_publish(struct lithos_arena *a, const struct lithos_grant *g)
{
    const grant_word *from = (const grant_word *)g;
    grant_word *to = (grant_word *)&a->grant;
    uint32_t seq = atomic_load_explicit(&a->grant_seq, memory_order_relaxed) & ~1u;
    atomic_store_explicit(&a->grant_seq, seq + 1, memory_order_relaxed);
    for (size_t i = 0; i < GRANT_WORDS; i++)
        __atomic_store_n(&to[i], from[i], __ATOMIC_RELEASE);
    atomic_store_explicit(&a->grant_seq, seq + 2, memory_order_release);
    atomic_store_explicit(&a->lease_ns, lithos_now_ns(), memory_order_relaxed);
}

int lithos_arena_read_grant(const struct lithos_arena *a, struct lithos_grant *ret_grant, uint32_t *ret_seq)
{
    const grant_word *from = (const grant_word *)&a->grant;
    struct lithos_grant copy;
    grant_word *to = (grant_word *)&copy;
    for (int tries = 0; tries < READ_TRIES; tries++) {
        uint32_t seq = atomic_load_explicit(&a->grant_seq, memory_order_acquire);
        if (seq & 1) {
            __builtin_ia32_pause();
            continue;
        }
        for (size_t i = 0; i < GRANT_WORDS; i++)
            to[i] = __atomic_load_n(&from[i], __ATOMIC_ACQUIRE);
        if (atomic_load_explicit(&a->grant_seq, memory_order_relaxed) != seq)
            continue;
        int r = lithos_grant_validate(&copy);
        if (r < 0)
            return r;
        *ret_grant = copy;
        if (ret_seq)
            *ret_seq = seq;
        return 0;
    }
    return -EAGAIN;
}

void lithos_arena_keep(struct lithos_arena *a, struct lithos_tpcset kept)
{
    atomic_store_explicit(&a->kept[0], kept.w[0], memory_order_release);
    atomic_store_explicit(&a->kept[1], kept.w[1], memory_order_release);
}

struct lithos_tpcset lithos_arena_kept(const struct lithos_arena *a)
{
    return (struct lithos_tpcset){{atomic_load_explicit(&a->kept[0], memory_order_acquire),
                                   atomic_load_explicit(&a->kept[1], memory_order_acquire)}};
}

int lithos_rule_validate(const struct lithos_rule *r)
{
    if (!(r->flags & LITHOS_RULE_ON))
        return r->flags ? -EINVAL : 0;
    return r->flags & ~(LITHOS_RULE_ON | LITHOS_RULE_HOLD | LITHOS_RULE_STRICT | LITHOS_RULE_INSTEAD) ||
                   r->window_ns > LITHOS_RULE_WINDOW_MAX_NS || r->own_window_ns > LITHOS_RULE_WINDOW_MAX_NS ||
                   r->floor < 1 || r->floor > LITHOS_RULE_FLOOR_MAX
               ? -EINVAL
               : 0;
}

void lithos_arena_set_rule(struct lithos_arena *a, uint32_t gpu, const struct lithos_rule *r)
{
    struct lithos_rule_slot *slot = &a->rules[gpu];
    const grant_word *from = (const grant_word *)r;
    grant_word *to = (grant_word *)&slot->rule;
    uint32_t seq = atomic_load_explicit(&slot->seq, memory_order_relaxed) & ~1u;
    atomic_store_explicit(&slot->seq, seq + 1, memory_order_relaxed);
    for (size_t i = 0; i < RULE_WORDS; i++)
        __atomic_store_n(&to[i], from[i], __ATOMIC_RELEASE);
    atomic_store_explicit(&slot->seq, seq + 2, memory_order_release);
}

int lithos_arena_read_rule(const struct lithos_arena *a, uint32_t gpu, struct lithos_rule *ret_rule,
                           uint32_t *ret_seq)
{
    const struct lithos_rule_slot *slot = &a->rules[gpu];
    const grant_word *from = (const grant_word *)&slot->rule;
    struct lithos_rule copy;
    grant_word *to = (grant_word *)&copy;
    for (int tries = 0; tries < READ_TRIES; tries++) {
        uint32_t seq = atomic_load_explicit(&slot->seq, memory_order_acquire);
        if (seq & 1) {
            __builtin_ia32_pause();
            continue;
        }
        for (size_t i = 0; i < RULE_WORDS; i++)
            to[i] = __atomic_load_n(&from[i], __ATOMIC_ACQUIRE);
        if (atomic_load_explicit(&slot->seq, memory_order_relaxed) != seq)
            continue;
        int r = lithos_rule_validate(&copy);
        if (r < 0)
            return r;
        *ret_rule = copy;
        *ret_seq = seq;
        return 0;
    }
    return -EAGAIN;
}

void lithos_arena_read_counters(const struct lithos_arena *a, uint64_t ret_counters[LITHOS_COUNTER_MAX])
{
    for (int i = 0; i < LITHOS_COUNTER_MAX; i++)
        ret_counters[i] = lithos_arena_counter(a, (enum lithos_counter)i);
}

/* The stable names come from the one list, which is upper case: lowered once, at the first question. */
static char counter_names[LITHOS_COUNTER_MAX][32];

static void lower_names(void)
{
    static const char *const upper[LITHOS_COUNTER_MAX] = {
#define X(name, what) [LITHOS_COUNTER_##name] = #name,
#include "proto/counters.def"
#undef X
    };
    for (int c = 0; c < LITHOS_COUNTER_MAX; c++)
        for (size_t i = 0; upper[c][i] && i < sizeof counter_names[c] - 1; i++)
            counter_names[c][i] =
                (char)(upper[c][i] >= 'A' && upper[c][i] <= 'Z' ? upper[c][i] - 'A' + 'a' : upper[c][i]);
}

const char *lithos_counter_name(enum lithos_counter c)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, lower_names);
    return (unsigned)c < LITHOS_COUNTER_MAX ? counter_names[c] : "?";
}
