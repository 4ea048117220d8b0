/* What becomes of a record that a tenant's process has written: a launch foretold and followed, a graph's nodes kept for its replays. */
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

static struct lithos_timeline_launch launch_of(const struct lithosd_process *p, const struct lithos_record *r)
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

static void submit(struct lithosd_process *p, struct lithos_timeline_launch *l)
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
        l->predicted_ns = prediction.duration_ns;
    }
    bool followed = lithos_timeline_submit(o->timeline, l);
    if (l->atom == 0)
        lithosd_lend_launch(p->tenant, l, followed);
    else
        lithosd_lend_atom(p->tenant, l);
}

static bool has_no_blocks(const struct lithos_record *r)
{
    return !r->launch.grid[0] || !r->launch.grid[1] || !r->launch.grid[2];
}

/* A node that was changed takes the place of what it was. */
static bool graph_node_changed(struct lithosd_process *p, const struct lithos_record *r)
{
    struct lithosd_reader *reader = p->reader;
    for (uint32_t i = 0; i < reader->node_count; i++) {
        struct lithosd_graph_node *n = &reader->nodes[i];
        if (n->graph != r->launch.graph || n->launch.stamp != r->launch.stamp)
            continue;
        n->launch = launch_of(p, r);
        n->launch.flags |= LITHOS_KERNEL_GRAPH_NODE;
        n->off = has_no_blocks(r);
        n->handle = r->function;
        return true;
    }
    return false;
}

/* Other nodes that come after their graph was launched are of another instantiation under the same handle. */
static void graph_node(struct lithosd_process *p, const struct lithos_record *r)
{
    struct lithosd_reader *reader = p->reader;
    if (r->flags & LITHOS_RECORD_NODE_CHANGED && graph_node_changed(p, r))
        return;
    if (!reader->node_ends && !(reader->node_ends = calloc(LITHOS_STAMP_SLOTS, sizeof *reader->node_ends)))
        return;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < reader->node_count; i++)
        if (reader->nodes[i].graph != r->launch.graph || !reader->nodes[i].launches)
            reader->nodes[kept++] = reader->nodes[i];
    reader->node_count = kept;
    if (reader->node_count == reader->node_room) {
        uint32_t room = reader->node_room ? reader->node_room * 2 : 64;
        struct lithosd_graph_node *nodes =
            room <= LITHOSD_GRAPH_NODES_MAX ? realloc(reader->nodes, room * sizeof *nodes) : NULL;
        if (!nodes)
            return; /* its replays are not seen */
        reader->nodes = nodes;
        reader->node_room = room;
    }
    struct lithosd_graph_node *n = &reader->nodes[reader->node_count++];
    *n = (struct lithosd_graph_node){
        .graph = r->launch.graph, .off = has_no_blocks(r), .handle = r->function, .launch = launch_of(p, r)};
    n->launch.flags |= LITHOS_KERNEL_GRAPH_NODE;
}

/* By graph, and the nodes of one by when each ended last. */
static int compare_nodes(const void *left, const void *right, void *ends_by_slot)
{
    const struct lithosd_graph_node *a = left, *b = right;
    const uint64_t *ends = ends_by_slot;
    const uint64_t a_end = ends[a->launch.stamp % LITHOS_STAMP_SLOTS],
                   b_end = ends[b->launch.stamp % LITHOS_STAMP_SLOTS];
    if (a->graph != b->graph)
        return a->graph < b->graph ? -1 : 1;
    return a_end < b_end ? -1 : a_end > b_end;
}

/* Drivers upload a graph's nodes in an order of their own (580: the last one first), while its kernels are followed as they run: each from
 * the end of the one before. A replay that is over shows their order; it is looked at after the 1st, 2nd, 4th, ... */
static void graph_order(const struct lithosd_process *p, const struct lithosd_graph_node *first)
{
    struct lithosd_reader *reader = p->reader;
    const struct lithos_timeline_stats *stats = lithos_timeline_stats(p->tenant->observed->timeline);
    if (first->launches && !(first->launches & (first->launches - 1)) && !stats->outstanding)
        qsort_r(reader->nodes, reader->node_count, sizeof *reader->nodes, compare_nodes, reader->node_ends);
}

static void graph_launch(struct lithosd_process *p, const struct lithos_record *r)
{
    struct lithosd_reader *reader = p->reader;
    p->daemon->observe.replays = true;
    for (uint32_t i = 0; i < reader->node_count; i++)
        if (reader->nodes[i].graph == r->launch.graph) {
            graph_order(p, &reader->nodes[i]);
            break;
        }
    for (uint32_t i = 0, sent = 0; i < reader->node_count && sent < LITHOSD_GRAPH_REPLAY_MAX; i++) {
        struct lithosd_graph_node *n = &reader->nodes[i];
        if (n->graph != r->launch.graph)
            continue;
        n->launches += n->launches < UINT32_MAX;
        if (n->off)
            continue;
        sent++;
        struct lithos_timeline_launch l = n->launch;
        l.function = lithosd_names_function(&reader->functions, n->handle);
        l.not_time_ns = reader->node_ends[l.stamp % LITHOS_STAMP_SLOTS];
        l.stream = r->stream;
        l.sequence = r->sequence;
        l.submit_ns = r->submit_ns;
        l.call_ns = p->daemon->gpus.is_virtual ? 0 : r->launch.call_ns;
        submit(p, &l);
    }
}

static void sync_seen(struct lithosd_process *p, const struct lithos_record *r)
{
    struct lithosd_observed *o = p->tenant->observed;
    bool all = r->stream == LITHOS_RECORD_ALL_STREAMS;
    uint32_t process = (uint32_t)(p - p->daemon->processes);
    for (uint32_t g = 0; g < p->tenant->grant.gpu_count; g++) {
        if (!o->predictor[g])
            continue;
        if (all)
            lithos_predictor_sync_all(o->predictor[g]);
        else
            lithos_predictor_sync(o->predictor[g], r->stream ^ (uint64_t)process << 48);
    }
    if (r->flags & LITHOS_RECORD_ENDED)
        lithos_timeline_waited(o->timeline, process, r->stream, all, r->launch.stamp, lithos_now_ns());
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
        l = launch_of(p, r);
        if (p->tenant->rightsize)
            lithosd_rightsize_launch(p, r, &l);
        submit(p, &l);
        break;
    case LITHOS_RECORD_GRAPH_NODE:
        graph_node(p, r);
        break;
    case LITHOS_RECORD_GRAPH_LAUNCH:
        if (p->tenant->rightsize)
            lithosd_rightsize_launch(p, r, NULL);
        graph_launch(p, r);
        break;
    case LITHOS_RECORD_SYNC:
        sync_seen(p, r);
        if (p->tenant->rightsize)
            lithosd_rightsize_sync(p, r);
        break;
    case LITHOS_RECORD_NAME:
        lithosd_names_piece(&o->names, &p->reader->functions, r);
        break;
    case LITHOS_RECORD_KIND_MAX:
        break;
    }
}
