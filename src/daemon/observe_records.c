/* What becomes of a record that a tenant's process has written: a launch is foretold and followed. */
#include "daemon/observe.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/daemon.h"
#include "hw/sm.h"

static struct lithos_predictor *new_predictor(const struct lithosd_gpu *gpu)
{
    const struct lithos_sm *sm = lithos_sm(gpu->cc[0], gpu->cc[1]);
    if (!sm)
        return NULL;
    struct lithos_predict_config c = {.tpcs = lithosd_gpu_tpcs(gpu),
                                      .sms_per_tpc = gpu->alloc.topology.sms_per_tpc,
                                      .sm_threads = sm->threads,
                                      .sm_blocks = sm->blocks,
                                      .sm_registers = sm->registers,
                                      .sm_shared_bytes = sm->shared_bytes,
                                      .block_shared_reserved_bytes = sm->block_shared_reserved_bytes,
                                      .warp_register_unit = sm->warp_register_unit};
    lithos_predict_config_defaults(&c);
    size_t bytes;
    struct lithos_predictor *p = NULL;
    if (lithos_predictor_size(&c, &bytes) < 0)
        return NULL;
    void *mem = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    if (mem && (lithos_predictor_init(mem, bytes, &c, &p) < 0 || (void *)p != mem)) {
        free(mem); /* it is freed by its name, so it must begin where its memory does */
        p = NULL;
    }
    return p;
}

static struct lithos_predictor *predictor(struct lithosd_tenant *t, uint32_t gpu)
{
    struct lithosd_observed *o = t->observed;
    if (gpu >= t->grant.gpu_count || o->no_predictor[gpu])
        return NULL;
    if (!o->predictor[gpu]) {
        o->predictor[gpu] = new_predictor(&t->daemon->gpus.gpu[t->gpu[gpu]]);
        o->no_predictor[gpu] = !o->predictor[gpu];
    }
    return o->predictor[gpu];
}

struct lithos_timeline_launch lithosd_observe_launch_of(const struct lithosd_process *p,
                                                        const struct lithos_record *r)
{
    const struct lithosd_tenant *t = p->tenant;
    uint32_t gpu = LITHOS_MIN((uint32_t)r->gpu, t->grant.gpu_count - 1);
    struct lithos_tpcset here = lithos_tpcset_and(r->launch.tpcs, t->grant.gpus[gpu].topology.valid);
    struct lithos_timeline_launch l = {
        .process = (uint32_t)(p - p->daemon->processes),
        .gpu = gpu,
        .stream = r->stream,
        .sequence = r->sequence,
        .stamp = r->launch.stamp,
        .submit_ns = r->submit_ns,
        .call_ns = p->daemon->gpus.is_virtual ? 0 : r->launch.call_ns,
        .function = lithosd_names_function(&p->reader->functions, r->function),
        .cluster_blocks = r->cluster,
        .shared_bytes = r->launch.shared_bytes,
        .registers = r->registers,
        .atom = r->launch.atom,
        .atoms = r->launch.atoms,
        .operator_key = r->launch.operator_key,
        .size_key = lithosd_rightsize_key(t, r),
        .size_before = r->launch.before,
        .blocks_per_sm = r->launch.blocks_per_sm,
        .flags = r->kind == LITHOS_RECORD_DRIVER ? LITHOS_KERNEL_DRIVER : 0,
        .lost = r->flags & LITHOS_RECORD_NO_STAMP_FULL    ? LITHOS_LOST_NO_SLOT
                : r->flags & LITHOS_RECORD_NO_STAMP_TAKEN ? LITHOS_LOST_TAKEN
                                                          : LITHOS_LOST_OFF,
        .tpcs = here,
        .tpc_count = lithos_tpcset_count(&here),
    };
    if (r->stream == 2) /* each thread has one of its own under this name */
        l.stream |= (uint64_t)r->launch.thread << 32;
    memcpy(l.grid, r->launch.grid, sizeof l.grid);
    memcpy(l.block, r->launch.block, sizeof l.block);
    return l;
}

void lithosd_observe_submit(struct lithosd_process *p, struct lithos_timeline_launch *l)
{
    struct lithosd_observed *o = p->tenant->observed;
    /* A kernel in atoms is foretold, and looked back on, as the one launch that it is. */
    struct lithos_predictor *foretell = l->stamp && !l->atom ? predictor(p->tenant, l->gpu) : NULL;
    if (foretell) {
        struct lithos_kernel_shape shape = {.function = l->function,
                                            .shared_bytes = l->shared_bytes,
                                            .registers = l->registers,
                                            .cluster = l->cluster_blocks};
        struct lithos_prediction prediction;
        memcpy(shape.grid, l->grid, sizeof shape.grid);
        memcpy(shape.block, l->block, sizeof shape.block);
        lithos_predictor_submit(foretell, l->stream ^ (uint64_t)l->process << 48, &shape, l->tpc_count,
                                &prediction, &l->ticket);
        l->predicted_ns = prediction.duration_ns ? prediction.duration_ns : l->predicted_ns;
    }
    bool followed = lithos_timeline_submit(o->timeline, l);
    if (l->atom == 0)
        lithosd_lend_launch(p->tenant, l, followed);
    else
        lithosd_lend_atom(p->tenant, l);
}

/* A call that took longer than its record can say ended before it was read. */
static uint64_t wait_over_ns(const struct lithos_record *r, uint64_t now_ns)
{
    return r->launch.call_ns == UINT32_MAX ? now_ns : LITHOS_MIN(r->submit_ns + r->launch.call_ns, now_ns);
}

static void sync_seen(struct lithosd_process *p, const struct lithos_record *r)
{
    struct lithosd_observed *o = p->tenant->observed;
    bool all = r->stream == LITHOS_RECORD_ALL_STREAMS;
    uint32_t process = (uint32_t)(p - p->daemon->processes);
    uint64_t now_ns = lithos_now_ns();
    for (uint32_t g = 0; g < p->tenant->grant.gpu_count; g++) {
        if (!o->predictor[g])
            continue;
        if (all)
            lithos_predictor_sync_all(o->predictor[g]);
        else
            lithos_predictor_sync(o->predictor[g], r->stream ^ (uint64_t)process << 48);
    }
    if (r->flags & LITHOS_RECORD_ENDED)
        lithos_timeline_waited(o->timeline, process, r->stream, all, r->launch.stamp, wait_over_ns(r, now_ns),
                               now_ns);
    uint32_t gpu = LITHOS_MIN((uint32_t)r->gpu, p->tenant->grant.gpu_count - 1);
    struct lithos_trace_event e = {
        .kind = LITHOS_TRACE_SYNC,
        .time_ns = r->submit_ns,
        .sync = {.tenant = p->tenant->id,
                 .stream = all ? LITHOS_TRACE_ALL_STREAMS : r->stream,
                 .pid = (uint32_t)p->pid,
                 .gpu = p->daemon->gpus.gpu[p->tenant->gpu[gpu]].index,
                 .sequence = r->sequence},
    };
    lithosd_recordings_event(p->tenant, &e);
}

/* The driver does not tell the names of its own kernels. */
static void name_driver_kernel(struct lithosd_process *p, const struct lithos_record *r)
{
    static const char name[] = "(driver)";
    struct lithosd_names *names = &p->tenant->observed->names;
    if (lithosd_names_text(names, lithosd_names_function(&p->reader->functions, r->function)))
        return;
    struct lithos_record piece = {.function = r->function, .kind = LITHOS_RECORD_NAME};
    piece.name.total = sizeof name - 1;
    memcpy(piece.name.text, name, sizeof name - 1);
    lithosd_names_piece(names, &p->reader->functions, &piece);
}

void lithosd_observe_record(struct lithosd_process *p, const struct lithos_record *r)
{
    struct lithosd_observed *o = p->tenant->observed;
    struct lithos_timeline_launch l;
    o->records[r->kind]++;
    switch ((enum lithos_record_kind)r->kind) {
    case LITHOS_RECORD_DRIVER:
        name_driver_kernel(p, r);
        /* fall through */
    case LITHOS_RECORD_LAUNCH:
        l = lithosd_observe_launch_of(p, r);
        if (p->tenant->rightsize)
            lithosd_rightsize_launch(p, r, &l);
        if (r->kind == LITHOS_RECORD_LAUNCH)
            lithosd_power_launched(p->tenant);
        lithosd_observe_submit(p, &l);
        break;
    case LITHOS_RECORD_GRAPH_NODE:
        lithosd_graph_node(p, r);
        break;
    case LITHOS_RECORD_GRAPH_LAUNCH:
        if (p->tenant->rightsize)
            lithosd_rightsize_launch(p, r, NULL);
        lithosd_power_launched(p->tenant);
        lithosd_graph_launch(p, r);
        break;
    case LITHOS_RECORD_SYNC:
        sync_seen(p, r);
        if (p->tenant->rightsize)
            lithosd_rightsize_sync(p, r);
        lithosd_power_waited(p->tenant);
        break;
    case LITHOS_RECORD_NAME:
        lithosd_names_piece(&o->names, &p->reader->functions, r);
        break;
    case LITHOS_RECORD_KIND_MAX:
        break;
    }
}
