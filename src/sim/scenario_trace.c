/* Programs from traces that were recorded on a card (docs/trace.md). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "sim/scenario.h"
#include "trace/reader.h"

struct kept {
    uint64_t submit_ns, start_ns, end_ns;
    uint32_t blocks, residency, cluster_blocks, tpcs, bandwidth_ppm;
    bool one_wave, sync;
};

struct recording {
    const struct lithos_card *card;
    const char *wanted; /* name; NULL: all */
    uint64_t tenant;    /* 0: not seen yet */
    bool synced;
    struct kept *kernels;
    size_t count, room, most;
    const struct lithos_sim_memory *memories;
    size_t memory_count;
};

/* Blocks that an SM holds, by what a block takes of it. */
static uint32_t residency(const struct lithos_card *card, const struct lithos_trace_kernel *k)
{
    const uint64_t threads = LITHOS_MAX((uint64_t)k->block[0] * k->block[1] * k->block[2], 1);
    const uint64_t warps = (threads + 31) / 32, unit = card->warp_register_unit;
    const uint64_t registers = warps * (((uint64_t)k->registers * 32 + unit - 1) / unit * unit);
    const uint64_t shared = (uint64_t)k->shared_bytes + card->block_shared_reserved_bytes;
    uint64_t n =
        LITHOS_MIN((uint64_t)card->sm_blocks, card->sm_threads / LITHOS_MIN(warps * 32, card->sm_threads));

    if (registers)
        n = LITHOS_MIN(n, card->sm_registers / registers);
    if (shared)
        n = LITHOS_MIN(n, card->sm_shared_bytes / shared);
    return (uint32_t)LITHOS_MAX(n, 1);
}

static uint32_t bandwidth_ppm(const struct recording *r, const char *function)
{
    for (size_t i = 0; i < r->memory_count; i++)
        if (strstr(function, r->memories[i].part))
            return r->memories[i].bandwidth_ppm;
    return 0;
}

static int keep(struct recording *r, const struct lithos_trace_event *e)
{
    const struct lithos_trace_kernel *k = &e->kernel;
    const struct lithos_tpcset on = lithos_tpcset_and(k->tpcs, r->card->topology.valid);
    const uint64_t blocks = (uint64_t)k->grid[0] * LITHOS_MAX(k->grid[1], 1u) * LITHOS_MAX(k->grid[2], 1u);

    if (r->count == r->most || !blocks)
        return 0;
    if (r->count == r->room) {
        const size_t room = r->room ? 2 * r->room : 1024;
        struct kept *kernels = realloc(r->kernels, room * sizeof *kernels);
        if (!kernels)
            return -ENOMEM;
        r->kernels = kernels;
        r->room = room;
    }
    struct kept *n = &r->kernels[r->count++];
    *n = (struct kept){
        .submit_ns = e->time_ns,
        .start_ns = k->start_ns,
        .end_ns = LITHOS_MAX(k->end_ns, k->start_ns + 1),
        .blocks = (uint32_t)LITHOS_MIN(blocks, 1u << 30),
        .residency = LITHOS_MIN(residency(r->card, k), 64u),
        .cluster_blocks = LITHOS_MIN(LITHOS_MAX(k->cluster_blocks, 1u), r->card->largest_cluster_blocks),
        .tpcs = lithos_tpcset_count(&on),
        .sync = r->synced,
        .bandwidth_ppm = bandwidth_ppm(r, k->function ? k->function : ""),
    };
    n->one_wave = n->blocks <= LITHOS_MAX(n->tpcs, 1u) * r->card->topology.sms_per_tpc * n->residency;
    r->synced = false;
    return 0;
}

static int take(struct recording *r, const struct lithos_trace_event *e)
{
    switch (e->kind) {
    case LITHOS_TRACE_TENANT:
        if (r->wanted && !strcmp(e->tenant.name, r->wanted))
            r->tenant = e->tenant.id;
        return 0;
    case LITHOS_TRACE_SYNC:
        r->synced |= !r->wanted || e->sync.tenant == r->tenant;
        return 0;
    case LITHOS_TRACE_KERNEL:
        return !r->wanted || (r->tenant && e->kernel.tenant == r->tenant) ? keep(r, e) : 0;
    default:
        return 0;
    }
}

static int read_trace(struct recording *r, const char *path, char *error)
{
    struct lithos_trace_reader *reader;
    struct lithos_trace_event e;
    const char *why = "";
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    int result = fd < 0 ? -errno : 0, got;

    if (result < 0) {
        snprintf(error, LITHOS_SIM_ERROR_BYTES, "trace %.150s: %s", path, strerror(-result));
        return result;
    }
    result = lithos_trace_reader_new_fd(fd, &reader, &why);
    if (result == 0) {
        while ((got = lithos_trace_reader_next(reader, &e)) == 1 && result == 0)
            result = take(r, &e);
        if (got < 0) {
            snprintf(error, LITHOS_SIM_ERROR_BYTES, "trace %.100s: %.120s", path,
                     lithos_trace_reader_why(reader));
            result = -EINVAL;
        }
        lithos_trace_reader_free(reader);
    } else {
        snprintf(error, LITHOS_SIM_ERROR_BYTES, "trace %.150s: %.80s", path, why ? why : "");
        result = -EINVAL;
    }
    close(fd);
    return result;
}

static int by_submission(const void *a, const void *b)
{
    const struct kept *x = a, *y = b;
    return x->submit_ns < y->submit_ns ? -1 : x->submit_ns > y->submit_ns;
}

/* Before a kernel the app did something for so long: since it launched the one before, or since all before had ended. */
static uint64_t gap_ns(const struct kept *before, const struct kept *k)
{
    const uint64_t since = k->sync ? LITHOS_MIN(before->end_ns, k->submit_ns) : before->submit_ns;
    return k->submit_ns - since;
}

static int make_program(struct lithos_sim_program *p, struct recording *r)
{
    qsort(r->kernels, r->count, sizeof *r->kernels, by_submission);
    p->gaps_ns = calloc(r->count, sizeof *p->gaps_ns);
    if (!p->gaps_ns)
        return -ENOMEM;
    for (size_t i = 0; i < r->count; i++) {
        const struct kept *k = &r->kernels[i];
        const uint64_t duration_ns = k->end_ns - k->start_ns;
        /* alone on the card, memory held it up already */
        const uint64_t held_up = LITHOS_MAX(k->bandwidth_ppm, LITHOS_WAVE_PPM);
        struct lithos_wave_kernel w =
            lithos_sim_kernel(r->card, LITHOS_MAX(duration_ns * LITHOS_WAVE_PPM / held_up, 1), k->tpcs,
                              k->blocks, k->residency, (k->residency + 1) / 2, k->cluster_blocks);
        w.bandwidth_ppm = k->bandwidth_ppm;
        const int e = lithos_sim_program_add(
            p, &w, duration_ns,
            (k->bandwidth_ppm > LITHOS_WAVE_PPM / 2 ? LITHOS_SIM_MEMORY : 0) |
                (k->one_wave ? 0 : LITHOS_SIM_CUTTABLE) | (k->sync && i ? LITHOS_SIM_SYNC : 0));
        if (e < 0)
            return e;
        p->gaps_ns[i] = i ? gap_ns(&r->kernels[i - 1], k) : 0;
    }
    return 0;
}

int lithos_sim_program_from_trace(struct lithos_sim_program *p, const struct lithos_card *card,
                                  const char *path, const char *tenant, uint32_t most,
                                  const struct lithos_sim_memory *memories, size_t memory_count,
                                  char error[LITHOS_SIM_ERROR_BYTES])
{
    struct recording r = {
        .card = card, .wanted = tenant, .most = most, .memories = memories, .memory_count = memory_count};

    int e = read_trace(&r, path, error);
    if (e == 0 && !r.count) {
        snprintf(error, LITHOS_SIM_ERROR_BYTES, "trace %.100s has no kernels of %.60s", path,
                 tenant ? tenant : "anybody");
        e = -EINVAL;
    }
    if (e == 0)
        e = make_program(p, &r);
    free(r.kernels);
    return e;
}
