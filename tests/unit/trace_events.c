#include "unit/trace_events.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/util.h"

static uint64_t next_random(struct trace_random *r)
{
    r->state ^= r->state >> 12;
    r->state ^= r->state << 25;
    r->state ^= r->state >> 27;
    return r->state * 0x2545f4914f6cdd1dull;
}

static uint64_t below(struct trace_random *r, uint64_t n)
{
    return (next_random(r) >> 11) % n;
}

uint64_t trace_random_number(struct trace_random *r)
{
    static const uint64_t extremes[] = {0,          1,         127,        128,       INT32_MAX,
                                        UINT32_MAX, INT64_MAX, 1ull << 63, UINT64_MAX};

    if (below(r, 3) == 0)
        return extremes[below(r, LITHOS_ARRAY_SIZE(extremes))];
    return next_random(r) >> below(r, 64);
}

static uint64_t number(struct trace_random *r, bool wild, uint64_t n)
{
    return wild ? trace_random_number(r) : below(r, n);
}

static const char *name(struct trace_random *r, bool wild)
{
    uint64_t n = below(r, 40);

    if (wild && n == 0)
        return "";
    if (wild && n < 10)
        snprintf(r->name, sizeof(r->name), "\xff\n\"%llx", (unsigned long long)trace_random_number(r));
    else
        snprintf(r->name, sizeof(r->name), "_Z6kernel%lluPfS_i", (unsigned long long)n);
    return r->name;
}

static struct lithos_tpcset tpcs(struct trace_random *r, bool wild)
{
    if (wild && below(r, 2))
        return (struct lithos_tpcset){{trace_random_number(r), trace_random_number(r)}};
    return (struct lithos_tpcset){{0xffull << below(r, 8), 0}};
}

static void fill_kernel(struct trace_random *r, bool wild, struct lithos_trace_event *e)
{
    struct lithos_trace_kernel *k = &e->kernel;
    uint64_t start_ns = e->time_ns + below(r, 3) * below(r, 100000);
    uint64_t end_ns = start_ns + 5000 + below(r, 1000000);

    *k = (struct lithos_trace_kernel){
        .tenant = number(r, wild, 4),
        .stream = number(r, wild, 4),
        .pid = (uint32_t)number(r, wild, 4),
        .gpu = (uint32_t)number(r, wild, 2),
        .sequence = number(r, wild, 1000),
        .function = name(r, wild),
        .cluster_blocks = (uint32_t)number(r, wild, 2),
        .shared_bytes = (uint32_t)number(r, wild, 2) * 1024,
        .registers = (uint32_t)number(r, wild, 3) * 8,
        .flags = (uint32_t)number(r, wild, 16),
        .tpcs = tpcs(r, wild),
        .start_ns = wild ? trace_random_number(r) : start_ns,
        .end_ns = wild ? trace_random_number(r) : end_ns,
        .predicted_ns = below(r, 4) ? number(r, wild, 1000000) : 0,
    };
    for (unsigned i = 0; i < 3; i++) {
        k->grid[i] = (uint32_t)number(r, wild, 2) + 1;
        k->block[i] = (uint32_t)number(r, wild, 2) * 32 + 1;
    }
}

static void fill_gpu(struct trace_random *r, bool wild, struct lithos_trace_event *e)
{
    e->gpu = (struct lithos_trace_gpu){.index = (uint32_t)number(r, wild, 2), .name = name(r, wild)};
    for (unsigned i = 0; i < LITHOS_TRACE_UUID_BYTES; i++)
        e->gpu.uuid[i] = (uint8_t)next_random(r);
    if (below(r, 2))
        e->gpu.topology = (struct lithos_topology){
            .valid = {{1 + next_random(r), 0xfff}}, .sms_per_tpc = 2, .gpc_stride = 9, .gpc_count = 8};
}

struct lithos_trace_event trace_random_event(struct trace_random *r, bool wild)
{
    struct lithos_trace_event e = {.kind =
                                       below(r, 4) ? LITHOS_TRACE_KERNEL : below(r, LITHOS_TRACE_KIND_MAX)};

    e.time_ns = wild ? trace_random_number(r) : 1000000000 + below(r, 1000000000);
    switch (e.kind) {
    case LITHOS_TRACE_KERNEL:
        fill_kernel(r, wild, &e);
        break;
    case LITHOS_TRACE_GPU:
        fill_gpu(r, wild, &e);
        break;
    case LITHOS_TRACE_TENANT:
        e.tenant =
            (struct lithos_trace_tenant){number(r, wild, 4), (uint32_t)number(r, wild, 4), name(r, wild)};
        break;
    case LITHOS_TRACE_TENANT_END:
        e.tenant.id = number(r, wild, 4);
        break;
    case LITHOS_TRACE_GRANT:
        e.grant =
            (struct lithos_trace_grant){number(r, wild, 4), (uint32_t)number(r, wild, 2), tpcs(r, wild)};
        break;
    case LITHOS_TRACE_SYNC:
        e.sync = (struct lithos_trace_sync){
            number(r, wild, 4), below(r, 2) ? LITHOS_TRACE_ALL_STREAMS : number(r, wild, 4),
            (uint32_t)number(r, wild, 4), (uint32_t)number(r, wild, 2), number(r, wild, 1000)};
        break;
    case LITHOS_TRACE_DROP:
        e.drop = (struct lithos_trace_drop){number(r, wild, 4), (uint32_t)number(r, wild, 4),
                                            (uint32_t)number(r, wild, 2), (uint32_t)number(r, wild, 10),
                                            number(r, wild, 100)};
        break;
    case LITHOS_TRACE_CLOCK:
        e.clock = (struct lithos_trace_clock){(uint32_t)number(r, wild, 2), number(r, wild, 1000000),
                                              (int64_t)(number(r, wild, 1000) - 500),
                                              (int64_t)(number(r, wild, 100) - 50), number(r, wild, 2000)};
        break;
    case LITHOS_TRACE_ATOM:
        e.atom = (struct lithos_trace_atom){number(r, wild, 4),           number(r, wild, 4),
                                            (uint32_t)number(r, wild, 4), (uint32_t)number(r, wild, 2),
                                            number(r, wild, 1000),        tpcs(r, wild),
                                            number(r, wild, 1000000)};
        break;
    case LITHOS_TRACE_KIND_MAX:
        abort();
    }
    return e;
}

static bool kernels_equal(const struct lithos_trace_kernel *a, const struct lithos_trace_kernel *b)
{
    return a->tenant == b->tenant && a->stream == b->stream && a->pid == b->pid && a->gpu == b->gpu &&
           a->sequence == b->sequence && !strcmp(a->function, b->function) &&
           !memcmp(a->grid, b->grid, sizeof(a->grid)) && !memcmp(a->block, b->block, sizeof(a->block)) &&
           a->cluster_blocks == b->cluster_blocks && a->shared_bytes == b->shared_bytes &&
           a->registers == b->registers && a->flags == b->flags && lithos_tpcset_equal(&a->tpcs, &b->tpcs) &&
           a->start_ns == b->start_ns && a->end_ns == b->end_ns && a->predicted_ns == b->predicted_ns;
}

bool trace_events_equal(const struct lithos_trace_event *a, const struct lithos_trace_event *b)
{
    if (a->kind != b->kind || a->time_ns != b->time_ns)
        return false;
    switch (a->kind) {
    case LITHOS_TRACE_KERNEL:
        return kernels_equal(&a->kernel, &b->kernel);
    case LITHOS_TRACE_GPU:
        return a->gpu.index == b->gpu.index && !memcmp(a->gpu.uuid, b->gpu.uuid, sizeof(a->gpu.uuid)) &&
               !strcmp(a->gpu.name, b->gpu.name) &&
               !memcmp(&a->gpu.topology, &b->gpu.topology, sizeof(a->gpu.topology));
    case LITHOS_TRACE_TENANT:
        return a->tenant.id == b->tenant.id && a->tenant.pid == b->tenant.pid &&
               !strcmp(a->tenant.name, b->tenant.name);
    case LITHOS_TRACE_TENANT_END:
        return a->tenant.id == b->tenant.id;
    case LITHOS_TRACE_GRANT:
        return a->grant.tenant == b->grant.tenant && a->grant.gpu == b->grant.gpu &&
               lithos_tpcset_equal(&a->grant.tpcs, &b->grant.tpcs);
    case LITHOS_TRACE_SYNC:
        return a->sync.tenant == b->sync.tenant && a->sync.stream == b->sync.stream &&
               a->sync.pid == b->sync.pid && a->sync.gpu == b->sync.gpu &&
               a->sync.sequence == b->sync.sequence;
    case LITHOS_TRACE_DROP:
        return a->drop.tenant == b->drop.tenant && a->drop.pid == b->drop.pid && a->drop.gpu == b->drop.gpu &&
               a->drop.reason == b->drop.reason && a->drop.count == b->drop.count;
    case LITHOS_TRACE_CLOCK:
        return a->clock.gpu == b->clock.gpu && a->clock.gpu_ns == b->clock.gpu_ns &&
               a->clock.offset_ns == b->clock.offset_ns && a->clock.drift_ppb == b->clock.drift_ppb &&
               a->clock.bound_ns == b->clock.bound_ns;
    case LITHOS_TRACE_ATOM:
        return a->atom.tenant == b->atom.tenant && a->atom.stream == b->atom.stream &&
               a->atom.pid == b->atom.pid && a->atom.gpu == b->atom.gpu &&
               a->atom.sequence == b->atom.sequence && lithos_tpcset_equal(&a->atom.tpcs, &b->atom.tpcs) &&
               a->atom.took_ns == b->atom.took_ns;
    case LITHOS_TRACE_KIND_MAX:
        break;
    }
    return false;
}

int trace_file(void)
{
    return memfd_create("trace", MFD_CLOEXEC);
}

uint8_t *trace_file_bytes(int fd, size_t *ret_len)
{
    off_t size = lseek(fd, 0, SEEK_END);
    uint8_t *bytes = malloc((size_t)size + 1);

    if (!bytes || pread(fd, bytes, (size_t)size, 0) != size)
        abort();
    *ret_len = (size_t)size;
    return bytes;
}

int trace_rewrite(struct lithos_trace_reader *r, int fd, int level)
{
    const struct lithos_trace_header h = lithos_trace_reader_header(r);
    const struct lithos_trace_writer_options o = {h.start_ns, h.realtime_ns, level};
    struct lithos_trace_writer *w;
    struct lithos_trace_event e;
    uint64_t blocks = 1;
    int error = lithos_trace_writer_new(fd, &o, &w), got = 0;

    if (error < 0)
        return error;
    while (error == 0 && (got = lithos_trace_reader_next(r, &e)) == 1) {
        if (lithos_trace_reader_stats(r).blocks != blocks)
            error = lithos_trace_writer_flush(w);
        blocks = lithos_trace_reader_stats(r).blocks;
        if (error == 0)
            error = lithos_trace_writer_event(w, &e);
    }
    int end = lithos_trace_writer_free(w);
    return error < 0 ? error : got < 0 ? got : end;
}

ssize_t trace_memory_read(void *context, void *buf, size_t size)
{
    struct trace_memory *m = context;
    size_t n = LITHOS_MIN(size, m->left);

    if (m->step)
        n = LITHOS_MIN(n, m->step);
    memcpy(buf, m->at, n);
    m->at += n;
    m->left -= n;
    return (ssize_t)n;
}
