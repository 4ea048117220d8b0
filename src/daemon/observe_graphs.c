/* Graphs of a tenant's process: their nodes are kept for their replays. A replay is followed kernel by kernel as far as that costs little, else
 * as one launch that ends with its last kernel: at 250000 kernels a second, as servers that decode reach, there is no time for each. */
#include <stdlib.h>
#include <string.h>

#include "daemon/daemon.h"
#include "daemon/observe.h"

/* Replays in a row that ended with the same kernel, until it is taken for granted. */
#define STEADY_REPLAYS 4u
#define PPM 1000000u
#define KERNEL_FORGET 64u

/* ---- what is known of graphs ---- */

static int by_graph_and_rank(const void *left, const void *right)
{
    const struct lithosd_graph_node *a = left, *b = right;
    if (a->graph != b->graph)
        return a->graph < b->graph ? -1 : 1;
    return a->rank < b->rank ? -1 : a->rank > b->rank;
}

static int by_id(const void *id, const void *graph)
{
    const uint32_t a = *(const uint32_t *)id, b = ((const struct lithosd_graph *)graph)->id;
    return a < b ? -1 : a > b;
}

static struct lithosd_graph *graph_of(const struct lithosd_reader *reader, uint32_t id)
{
    return reader->graph_count
               ? bsearch(&id, reader->graphs, reader->graph_count, sizeof *reader->graphs, by_id)
               : NULL;
}

/* What its nodes say of it as a whole, if any has come or changed since. */
static void sum_up(const struct lithosd_reader *reader, struct lithosd_graph *g)
{
    if (!g->dirty)
        return;
    g->dirty = false;
    g->kernels = 0;
    g->tpcs = (struct lithos_tpcset){{0, 0}};
    for (uint32_t i = g->first; i < g->first + g->count; i++) {
        const struct lithosd_graph_node *n = &reader->nodes[i];
        if (n->off || g->kernels == LITHOSD_GRAPH_REPLAY_MAX)
            continue;
        g->kernels++;
        g->tpcs = lithos_tpcset_or(g->tpcs, n->launch.tpcs);
    }
}

/* The graph, known from now on; NULL: there is no memory. Others may have moved. */
static struct lithosd_graph *add_graph(struct lithosd_reader *reader, uint32_t id)
{
    if (reader->graph_count == reader->graph_room) {
        uint32_t room = reader->graph_room ? reader->graph_room * 2 : 16;
        struct lithosd_graph *graphs =
            room <= LITHOSD_GRAPHS_MAX ? realloc(reader->graphs, room * sizeof *graphs) : NULL;
        if (!graphs)
            return NULL;
        reader->graphs = graphs;
        reader->graph_room = room;
    }
    uint32_t at = reader->graph_count++;
    for (; at > 0 && reader->graphs[at - 1].id > id; at--)
        reader->graphs[at] = reader->graphs[at - 1];
    reader->graphs[at] = (struct lithosd_graph){.id = id, .dirty = true};
    return &reader->graphs[at];
}

/* The last node is one more of the graph. Most come one behind another; where two graphs are made at a time all have to be sorted first. */
static bool count_last_node(struct lithosd_reader *reader, uint32_t id)
{
    struct lithosd_graph *g = graph_of(reader, id);
    const uint32_t last = reader->node_count - 1;
    if (!g && !(g = add_graph(reader, id)))
        return false;
    if (!g->count)
        g->first = last;
    else if (g->first + g->count != last)
        reader->unsorted = true;
    g->count += g->first + g->count == last;
    g->dirty = true;
    return true;
}

static void sort_nodes(struct lithosd_reader *reader)
{
    if (!reader->unsorted)
        return;
    reader->unsorted = false;
    qsort(reader->nodes, reader->node_count, sizeof *reader->nodes, by_graph_and_rank);
    for (uint32_t i = 0; i < reader->graph_count; i++)
        reader->graphs[i].count = 0;
    for (uint32_t i = 0; i < reader->node_count; i++) {
        struct lithosd_graph *g = graph_of(reader, reader->nodes[i].graph); /* each has one */
        if (!g->count++)
            g->first = i;
        g->dirty = true;
    }
}

void lithosd_graphs_finish(struct lithosd_reader *reader)
{
    free(reader->nodes);
    free(reader->graphs);
    free(reader->node_ends);
    free(reader->node_graphs);
}

/* ---- nodes in ---- */

static bool has_no_blocks(const struct lithos_record *r)
{
    return !r->launch.grid[0] || !r->launch.grid[1] || !r->launch.grid[2];
}

static void set_node(const struct lithosd_process *p, struct lithosd_graph_node *n,
                     const struct lithos_record *r)
{
    n->graph = r->launch.graph;
    n->off = has_no_blocks(r);
    n->handle = r->function;
    n->launch = lithosd_observe_launch_of(p, r);
    n->launch.flags |= LITHOS_KERNEL_GRAPH_NODE;
    n->launch.graph = n->graph;
}

/* A node that was changed takes the place of what it was. They come in the order of their stamps, or nearly: the next one is looked at first. */
static bool node_changed(struct lithosd_process *p, const struct lithos_record *r)
{
    struct lithosd_reader *reader = p->reader;
    sort_nodes(reader);
    struct lithosd_graph *g = graph_of(reader, r->launch.graph);
    for (uint32_t i = 0; g && i < g->count; i++) {
        const uint32_t at = (g->changed + i) % g->count;
        struct lithosd_graph_node *n = &reader->nodes[g->first + at];
        if (n->launch.stamp != r->launch.stamp)
            continue;
        set_node(p, n, r);
        g->changed = at;
        g->dirty = true;
        return true;
    }
    return false;
}

static void forget_nodes(struct lithosd_reader *reader, struct lithosd_graph *g)
{
    const uint32_t first = g->first, count = g->count;
    memmove(reader->nodes + first, reader->nodes + first + count,
            (reader->node_count - first - count) * sizeof *reader->nodes);
    reader->node_count -= count;
    for (uint32_t i = 0; i < reader->graph_count; i++)
        reader->graphs[i].first -= reader->graphs[i].first > first ? count : 0;
    *g = (struct lithosd_graph){.id = g->id, .dirty = true};
}

/* Nobody says when a graph has ended. One of whose nodes the stamp's slot is another graph's now has. */
static bool has_ended(const struct lithosd_reader *reader, const struct lithosd_graph *g)
{
    for (uint32_t i = g->first; i < g->first + g->count; i++) {
        const uint64_t stamp = reader->nodes[i].launch.stamp;
        if (stamp && reader->node_graphs[stamp % LITHOS_STAMP_SLOTS] != g->id)
            return true;
    }
    return !g->count;
}

static void forget_ended(struct lithosd_reader *reader)
{
    uint32_t kept = 0;
    sort_nodes(reader);
    for (uint32_t i = 0; i < reader->graph_count; i++)
        if (has_ended(reader, &reader->graphs[i]))
            forget_nodes(reader, &reader->graphs[i]);
    for (uint32_t i = 0; i < reader->graph_count; i++)
        if (reader->graphs[i].count)
            reader->graphs[kept++] = reader->graphs[i];
    reader->graph_count = kept;
}

static bool keeps_ends(struct lithosd_reader *reader)
{
    if (!reader->node_ends)
        reader->node_ends = calloc(LITHOS_STAMP_SLOTS, sizeof *reader->node_ends);
    if (!reader->node_graphs)
        reader->node_graphs = calloc(LITHOS_STAMP_SLOTS, sizeof *reader->node_graphs);
    return reader->node_ends && reader->node_graphs;
}

static struct lithosd_graph_node *new_node(struct lithosd_reader *reader)
{
    if (reader->node_count == reader->node_room) {
        uint32_t room = reader->node_room ? reader->node_room * 2 : 64;
        struct lithosd_graph_node *nodes =
            room <= LITHOSD_GRAPH_NODES_MAX ? realloc(reader->nodes, room * sizeof *nodes) : NULL;
        if (!nodes)
            return NULL;
        reader->nodes = nodes;
        reader->node_room = room;
    }
    struct lithosd_graph_node *n = &reader->nodes[reader->node_count++];
    *n = (struct lithosd_graph_node){.rank = reader->node_rank++};
    return n;
}

/* Other nodes that come after their graph was launched are of another instantiation under the same handle. */
void lithosd_graph_node(struct lithosd_process *p, const struct lithos_record *r)
{
    struct lithosd_reader *reader = p->reader;
    if (r->flags & LITHOS_RECORD_NODE_CHANGED && node_changed(p, r))
        return;
    if (!keeps_ends(reader))
        return;
    if (reader->node_count == LITHOSD_GRAPH_NODES_MAX || reader->graph_count == LITHOSD_GRAPHS_MAX)
        forget_ended(reader);
    reader->node_graphs[r->launch.stamp % LITHOS_STAMP_SLOTS] = r->launch.graph;
    struct lithosd_graph *g = graph_of(reader, r->launch.graph);
    if (g && g->launches) {
        sort_nodes(reader);
        forget_nodes(reader, g);
    }
    struct lithosd_graph_node *n = new_node(reader);
    if (n)
        set_node(p, n, r);
    if (n && count_last_node(reader, n->graph))
        return;
    reader->node_count -= n != NULL;
    reader->unseen = true;
}

/* ---- replays ---- */

/* The nodes of a graph by when each ended last. */
static int by_end(const void *left, const void *right, void *ends_by_slot)
{
    const struct lithosd_graph_node *a = left, *b = right;
    const uint64_t *ends = ends_by_slot;
    const uint64_t a_end = ends[a->launch.stamp % LITHOS_STAMP_SLOTS],
                   b_end = ends[b->launch.stamp % LITHOS_STAMP_SLOTS];
    return a_end < b_end ? -1 : a_end > b_end;
}

/* Drivers upload a graph's nodes in an order of their own (580: the last one first), while its kernels are followed as they run: each from
 * the end of the one before. A replay that is over shows their order; it is looked at after the 1st, 2nd, 4th, ... */
static void order(const struct lithosd_process *p, const struct lithosd_graph *g)
{
    struct lithosd_reader *reader = p->reader;
    const struct lithos_timeline_stats *stats = lithos_timeline_stats(p->tenant->observed->timeline);
    if (!g->launches || g->launches & (g->launches - 1) || g->skipped || stats->outstanding)
        return;
    qsort_r(reader->nodes + g->first, g->count, sizeof *reader->nodes, by_end, reader->node_ends);
    for (uint32_t i = g->first; i < g->first + g->count; i++)
        reader->nodes[i].rank = reader->node_rank++;
}

/* Is the time there to follow each kernel of a replay? */
static bool has_time(struct lithosd_observed *o)
{
    const uint64_t now_ns = lithos_now_ns();
    const uint64_t since_ns = LITHOS_MIN(now_ns - o->graph_kernels_ns, LITHOS_NSEC_PER_SEC);
    const int64_t more = (int64_t)(since_ns * LITHOSD_GRAPH_KERNELS_PER_S / LITHOS_NSEC_PER_SEC);
    if (more) {
        o->graph_kernels = LITHOS_MIN(o->graph_kernels + more, (int64_t)LITHOSD_GRAPH_KERNELS_PER_S);
        o->graph_kernels_ns = now_ns;
    }
    return o->graph_kernels > 0;
}

/* The kernel that ends a replay, if it is known, and is the last in its order, too. */
static const struct lithosd_graph_node *last_of(const struct lithosd_reader *reader,
                                                const struct lithosd_graph *g)
{
    for (uint32_t i = g->first + g->count; i-- > g->first;)
        if (!reader->nodes[i].off)
            return g->steady >= STEADY_REPLAYS && reader->nodes[i].launch.stamp == g->last_stamp
                       ? &reader->nodes[i]
                       : NULL;
    return NULL;
}

static void replay(struct lithosd_process *p, const struct lithos_record *r, struct lithos_timeline_launch *l)
{
    l->stream = r->stream;
    l->sequence = r->sequence;
    l->submit_ns = r->submit_ns;
    l->call_ns = p->daemon->gpus.is_virtual ? 0 : r->launch.call_ns;
    l->before_end_ns = &p->reader->node_ends[l->stamp % LITHOS_STAMP_SLOTS];
    lithosd_observe_submit(p, l);
}

static void as_one(struct lithosd_process *p, const struct lithos_record *r, struct lithosd_graph *g,
                   const struct lithosd_graph_node *last)
{
    struct lithos_timeline_launch l = last->launch;
    l.function =
        ((uint64_t)g->id << 32 | g->kernels) * 0x9e3779b97f4a7c15ull; /* it is an operator by itself */
    l.kernels = g->kernels;
    l.tpcs = g->tpcs;
    l.tpc_count = lithos_tpcset_count(&g->tpcs);
    l.busy_ppm = g->busy_ppm;
    l.predicted_ns = g->took_ns;
    g->skipped += g->skipped < UINT32_MAX - 1;
    replay(p, r, &l);
}

static void kernel_by_kernel(struct lithosd_process *p, const struct lithos_record *r,
                             struct lithosd_graph *g)
{
    struct lithosd_reader *reader = p->reader;
    for (uint32_t i = g->first, sent = 0; i < g->first + g->count && sent < g->kernels; i++) {
        const struct lithosd_graph_node *n = &reader->nodes[i];
        if (n->off)
            continue;
        sent++;
        struct lithos_timeline_launch l = n->launch;
        l.function = lithosd_names_function(&reader->functions, n->handle);
        l.weight = g->skipped + 1;
        replay(p, r, &l);
    }
    g->skipped = 0;
    struct lithosd_observed *o = p->tenant->observed;
    o->graph_kernels = LITHOS_MAX(o->graph_kernels - g->kernels, -(int64_t)LITHOSD_GRAPH_KERNELS_PER_S);
}

/* A graph of which no node is known, though it may have some, keeps its tenant busy for a while, like any launch that is not followed. */
static void unseen(struct lithosd_process *p, const struct lithos_record *r)
{
    struct lithos_timeline_launch l = lithosd_observe_launch_of(p, r);
    l.tpcs = p->tenant->grant.gpus[l.gpu].own;
    if (p->reader->unseen)
        lithosd_lend_launch(p->tenant, &l, false);
}

void lithosd_graph_launch(struct lithosd_process *p, const struct lithos_record *r)
{
    struct lithosd_reader *reader = p->reader;
    p->daemon->observe.replays = true;
    sort_nodes(reader);
    struct lithosd_graph *g = graph_of(reader, r->launch.graph);
    if (!g || !g->count) {
        unseen(p, r);
        return;
    }
    sum_up(reader, g);
    order(p, g);
    g->launches += g->launches < UINT32_MAX;
    const struct lithosd_graph_node *last = last_of(reader, g);
    if (last && last->launch.stamp && g->kernels > 1 && !lithosd_recordings_want(p->tenant) &&
        !has_time(p->tenant->observed))
        as_one(p, r, g, last);
    else
        kernel_by_kernel(p, r, g);
}

/* All its kernels have ended by then: what they show up to there is not the end of their next replay. */
static void ended_as_one(struct lithosd_reader *reader, const struct lithos_kernel_event *k)
{
    const struct lithosd_graph *g = graph_of(reader, k->launch->graph);
    for (uint32_t i = 0; g && i < g->count; i++)
        reader->node_ends[reader->nodes[g->first + i].launch.stamp % LITHOS_STAMP_SLOTS] = k->gpu_end_ns;
}

static void note_times(struct lithosd_reader *reader, struct lithosd_graph *g)
{
    const uint64_t kernel_ns = g->busy_ns / g->kernels;
    g->took_ns = g->end_ns - LITHOS_MIN(g->begin_ns, g->end_ns);
    g->busy_ppm =
        g->took_ns ? (uint32_t)LITHOS_MIN((unsigned __int128)g->busy_ns * PPM / g->took_ns, PPM) : 0;
    reader->kernel_ns = LITHOS_MAX(kernel_ns, reader->kernel_ns - reader->kernel_ns / KERNEL_FORGET);
}

/* What a replay that was followed kernel by kernel took, and which of them was its last. */
static void ended_kernel(struct lithosd_reader *reader, struct lithosd_graph *g,
                         const struct lithos_kernel_event *k, bool spoilt)
{
    const struct lithos_timeline_launch *l = k->launch;
    if (g->sequence != l->sequence) {
        g->sequence = l->sequence;
        g->ended = 0;
        g->begin_ns = k->start_ns;
        g->end_ns = g->busy_ns = g->last_gpu_ns = 0;
        g->spoilt = false;
    }
    g->spoilt = g->spoilt || spoilt;
    g->ended++;
    g->busy_ns += k->busy_ns;
    g->end_ns = LITHOS_MAX(g->end_ns, k->end_ns);
    if (k->gpu_end_ns >= g->last_gpu_ns) {
        g->last_gpu_ns = k->gpu_end_ns;
        g->end_stamp = l->stamp;
    }
    if (g->ended != g->kernels)
        return;
    g->steady = g->end_stamp == g->last_stamp ? g->steady + (g->steady < STEADY_REPLAYS) : 0;
    g->last_stamp = g->end_stamp;
    if (!g->spoilt)
        note_times(reader, g);
}

void lithosd_graph_ended(struct lithosd_reader *reader, const struct lithos_kernel_event *k, bool spoilt)
{
    struct lithosd_graph *g = graph_of(reader, k->launch->graph);
    if (!reader->node_ends)
        return;
    reader->node_ends[k->launch->stamp % LITHOS_STAMP_SLOTS] = k->gpu_end_ns;
    if (k->launch->kernels > 1)
        ended_as_one(reader, k);
    else if (g)
        ended_kernel(reader, g, k, spoilt);
}
