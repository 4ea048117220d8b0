/* lithos-corebench: what the scheduler core takes for an event, grants included, with as many tenants as it takes.
 *
 * bench/core.py runs it. Tenants: owners that come and go, and best-effort tenants that always have work; time is made
 * up, work is not. One line of JSON. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/quantile.h"
#include "base/util.h"
#include "core/policy.h"
#include "core/sched.h"

#define SAMPLES_MAX (1u << 20)
#define STREAMS 4u

struct bench {
    struct lithos_sched *sched;
    struct lithos_topology topology;
    uint32_t owners, tenants;
    uint64_t now_ns, random;
    uint32_t outstanding[LITHOS_SCHED_TENANTS_MAX];
    uint64_t next_ns[LITHOS_SCHED_TENANTS_MAX];
    uint64_t events, grants, runs;
};

static const char help[] =
    "usage: lithos-corebench [--tenants N] [--owners N] [--events N] [--policy NAME]\n";

static uint64_t next_random(struct bench *b)
{
    b->random ^= b->random >> 12;
    b->random ^= b->random << 25;
    b->random ^= b->random >> 27;
    return b->random * 0x2545f4914f6cdd1dull;
}

/* The H200 of docs/hardware.md. */
static struct lithos_topology card(void)
{
    struct lithos_topology t = {.sms_per_tpc = 2, .gpc_stride = 9, .gpc_count = 8};
    (void)lithos_tpcset_parse("0-3,9-16,18-25,27-34,36-43,45-52,54-71,75,78,81,83", &t.valid);
    return t;
}

static void *begin(struct bench *b, const char *policy)
{
    struct lithos_sched_config c = {.topology = b->topology, .policy = lithos_policy_find(policy)};
    size_t bytes;

    lithos_sched_config_defaults(&c);
    if (!c.policy || lithos_sched_size(&c, &bytes) < 0) {
        fprintf(stderr, "lithos-corebench: there is no policy \"%s\"\n", policy);
        exit(2);
    }
    void *mem = malloc(bytes);
    if (!mem || lithos_sched_init(mem, bytes, &c, &b->sched) < 0)
        exit(1);
    unsigned bit = lithos_tpcset_next(&b->topology.valid, 0);
    for (uint32_t i = 0; i < b->tenants; i++) {
        struct lithos_sched_tenant t = {.id = i + 1,
                                        .class = i < b->owners ? LITHOS_SCHED_HIGH : LITHOS_SCHED_BEST_EFFORT,
                                        .weight = i >= b->owners};
        for (uint32_t n = 0; i < b->owners && n < 48 / b->owners; n++) {
            lithos_tpcset_add(&t.own, bit);
            bit = lithos_tpcset_next(&b->topology.valid, bit + 1);
        }
        t.slo_ns = 20 * LITHOS_NSEC_PER_MSEC;
        uint32_t slot;
        if (lithos_sched_add(b->sched, 0, &t, &slot) < 0 || slot != i)
            exit(1);
    }
    return mem;
}

/* What happens next to a tenant: an owner launches a few kernels, they end, it rests; a best-effort one always has work
 * queued and a launch under way. */
static void make_event(struct bench *b, uint32_t slot, struct lithos_sched_event *e)
{
    const struct lithos_tpcgrant *g = lithos_sched_grant(b->sched, slot);
    const uint64_t kernel_ns = 20000 + next_random(b) % 200000;
    const bool best_effort = slot >= b->owners;

    *e = (struct lithos_sched_event){.slot = slot};
    if (best_effort && next_random(b) % 64 == 0) {
        e->kind = LITHOS_SCHED_QUEUE;
        e->queue.launches = next_random(b) % 8 > 0;
        e->queue.head_ns = kernel_ns;
    } else if (b->outstanding[slot] && (b->outstanding[slot] == STREAMS || next_random(b) % 2)) {
        e->kind = LITHOS_SCHED_DONE;
        e->done.submit_ns = e->done.start_ns = b->now_ns - kernel_ns;
        e->done.end_ns = b->now_ns;
        e->done.predicted_ns = kernel_ns;
        b->outstanding[slot]--;
    } else {
        e->kind = LITHOS_SCHED_LAUNCH;
        e->launch.submit_ns = b->now_ns;
        e->launch.predicted_ns = kernel_ns;
        e->launch.tpcs = lithos_tpcset_or(g->own, lithos_tpcgrant_lent(g));
        e->launch.cluster_blocks = 2;
        b->outstanding[slot]++;
    }
    const bool rests = !best_effort && !b->outstanding[slot];
    b->next_ns[slot] =
        b->now_ns + (rests ? 500000 + next_random(b) % 4000000 : 5000 + next_random(b) % 60000);
}

static void step(struct bench *b, const struct lithos_sched_event *e)
{
    const struct lithos_tpcgrant *g;
    uint32_t slot;

    lithos_sched_event(b->sched, b->now_ns, e);
    lithos_sched_run(b->sched, b->now_ns);
    while (lithos_sched_next(b->sched, &slot, &g))
        b->grants++;
}

static uint32_t first(const struct bench *b)
{
    uint32_t least = 0;
    for (uint32_t i = 1; i < b->tenants; i++)
        if (b->next_ns[i] < b->next_ns[least])
            least = i;
    return least;
}

/* Timed one by one, so that what the clock takes is in it; and the same again in one go, where it is not. */
static void measure(struct bench *b, uint64_t count)
{
    static double ns[SAMPLES_MAX];
    static struct lithos_sched_event events[SAMPLES_MAX];
    uint64_t total_ns = 0;

    for (uint64_t n = 0; n < count; n++) {
        const uint32_t slot = first(b);
        b->now_ns = LITHOS_MAX(b->now_ns + 1, b->next_ns[slot]);
        make_event(b, slot, &events[n]);
        const uint64_t start_ns = lithos_now_ns();
        step(b, &events[n]);
        const uint64_t took_ns = lithos_now_ns() - start_ns;
        ns[n] = (double)took_ns;
        total_ns += took_ns;
    }
    uint64_t clock_ns = lithos_now_ns();
    for (unsigned n = 0; n < 1000; n++)
        (void)lithos_now_ns();
    clock_ns = (lithos_now_ns() - clock_ns) / 1001;
    lithos_sort_samples(ns, count);
    const double mean = (double)total_ns / (double)count - (double)clock_ns;
    printf("{\"tenants\": %u, \"events\": %lu, \"mean_ns\": %.1f, \"p50_ns\": %.0f, \"p99_ns\": %.0f, "
           "\"max_ns\": %.0f, "
           "\"clock_ns\": %lu, \"events_per_s\": %.0f, \"grants\": %lu}\n",
           b->tenants, (unsigned long)count, mean, lithos_quantile(ns, count, 0.5),
           lithos_quantile(ns, count, 0.99), lithos_quantile(ns, count, 1), (unsigned long)clock_ns,
           1e9 / mean, (unsigned long)b->grants);
}

static uint64_t number(const char *text, uint64_t least, uint64_t most)
{
    char *end;
    const unsigned long v = strtoul(text, &end, 10);
    if (*end || v < least || v > most) {
        fprintf(stderr, "lithos-corebench: %s is not a number from %lu to %lu\n", text, (unsigned long)least,
                (unsigned long)most);
        exit(2);
    }
    return v;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"tenants", 1, 0, 't'}, {"owners", 1, 0, 'o'},
                                            {"events", 1, 0, 'e'},  {"policy", 1, 0, 'p'},
                                            {"help", 0, 0, 'h'},    {0}};
    struct bench b = {
        .topology = card(), .owners = 8, .tenants = LITHOS_SCHED_TENANTS_MAX, .random = 88172645463325252ull};
    const char *policy = "lithos";
    uint64_t events = 400000;
    int c;

    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (c) {
        case 't':
            b.tenants = (uint32_t)number(optarg, 2, LITHOS_SCHED_TENANTS_MAX);
            break;
        case 'o':
            b.owners = (uint32_t)number(optarg, 1, 48);
            break;
        case 'e':
            events = number(optarg, 1000, SAMPLES_MAX);
            break;
        case 'p':
            policy = optarg;
            break;
        case 'h':
            fputs(help, stdout);
            return 0;
        default:
            fputs(help, stderr);
            return 2;
        }
    }
    b.owners = LITHOS_MIN(b.owners, b.tenants - 1);
    void *mem = begin(&b, policy);
    measure(&b, events);
    free(mem);
    return 0;
}
