/* The clone of a graph in which kernels are chains of nodes. */
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "driver/atoms_context.h"
#include "driver/exports.h"
#include "driver/graphs_internal.h"
#include "driver/names.h"
#include "driver/qmd_hook.h"

#define DEPTH_MAX 8u
#define NODES_MAX 65536u

typedef CUresult (*nodes_fn)(CUgraph, CUgraphNode *, size_t *);
typedef CUresult (*edges_fn)(CUgraph, CUgraphNode *, CUgraphNode *, CUgraphEdgeData *, size_t *);
typedef CUresult (*dependents_fn)(CUgraphNode, CUgraphNode *, CUgraphEdgeData *, size_t *);
typedef CUresult (*dependencies_fn)(CUgraph, const CUgraphNode *, const CUgraphNode *,
                                    const CUgraphEdgeData *, size_t);
typedef CUresult (*type_fn)(CUgraphNode, int *);
typedef CUresult (*child_fn)(CUgraphNode, CUgraph *);
typedef CUresult (*clone_fn)(CUgraph *, CUgraph);
typedef CUresult (*find_fn)(CUgraphNode *, CUgraphNode, CUgraph);
typedef CUresult (*params_fn)(CUgraphNode, CUDA_KERNEL_NODE_PARAMS_v2 *);
typedef CUresult (*add_fn)(CUgraphNode *, CUgraph, const CUgraphNode *, size_t,
                           const CUDA_KERNEL_NODE_PARAMS_v2 *);
typedef CUresult (*attribute_fn)(CUgraphNode, int, CUlaunchAttributeValue *);
typedef CUresult (*copy_attributes_fn)(CUgraphNode, CUgraphNode);
typedef CUresult (*instantiate_fn)(CUgraphExec *, CUgraph, unsigned long long);
typedef CUresult (*graph_fn)(CUgraph);
typedef CUresult (*kernel_function_fn)(CUfunction *, CUkernel);
typedef CUresult (*occupancy_fn)(int *, CUfunction, int, size_t);

/* Names the function that is called, and is true when that goes well. */
#define DONE(name, type, ...) (LITHOS_REAL(type, name)(__VA_ARGS__) == CUDA_SUCCESS)

/* ---- kernels: which are cut, and into how many nodes ---- */

/* A node that may be cooperative, or of which that is not told, stays whole. */
static bool look_at_attributes(CUgraphNode node, uint64_t *ret_cluster)
{
    CUlaunchAttributeValue v = {0};
    if (!DONE(cuGraphKernelNodeGetAttribute, attribute_fn, node, CU_LAUNCH_ATTRIBUTE_COOPERATIVE, &v) ||
        v.cooperative)
        return false;
    memset(&v, 0, sizeof v);
    bool told =
        DONE(cuGraphKernelNodeGetAttribute, attribute_fn, node, CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION, &v);
    if (told && (uint64_t)v.clusterDim.x * v.clusterDim.y * v.clusterDim.z > 1)
        *ret_cluster = v.clusterDim.x | (uint64_t)v.clusterDim.y << 16 | (uint64_t)v.clusterDim.z << 32;
    return true;
}

/* Blocks of it that an SM holds at once, by the driver; the callback knows better. */
static uint64_t occupancy(const struct lithos_graph_kernel *k)
{
    int blocks = 0;
    uint64_t threads = (uint64_t)k->atom.block[0] * k->atom.block[1] * k->atom.block[2];
    bool told = threads <= INT32_MAX && DONE(cuOccupancyMaxActiveBlocksPerMultiprocessor, occupancy_fn,
                                             &blocks, k->function, (int)threads, k->shared_bytes);
    return told && blocks > 0 ? (uint64_t)blocks : 1;
}

static uint64_t waves_of(uint64_t blocks, uint64_t wave)
{
    return (blocks + wave - 1) / wave;
}

/* How many atoms it would be, for what is known of its operator; below 2: none. */
static uint64_t atoms_by_length(struct lithos_graph_kernel *k, uint64_t cluster, uint64_t blocks,
                                uint64_t waves)
{
    const struct lithos_launch l = {.function = k->launched,
                                    .grid = {k->atom.grid[0], k->atom.grid[1], k->atom.grid[2]},
                                    .block = {k->atom.block[0], k->atom.block[1], k->atom.block[2]},
                                    .shared_bytes = k->shared_bytes};
    struct lithos_atom *a = &k->atom;
    a->known = lithos_hook_client.atom_choice(lithos_atoms_operator_key(&l, cluster), &a->choice);
    if (!a->known)
        a->choice = lithos_atom_choice_first(&a->policy, waves);
    return a->choice.waves ? LITHOS_MIN(waves_of(waves, a->choice.waves), blocks) : 0;
}

/* Nodes that it needs; below 2: it stays whole. */
static uint32_t nodes_for(struct lithos_graph_kernel *k, uint64_t cluster)
{
    const struct lithos_hook_device *device = lithos_atoms_device_here(), *devices;
    const uint32_t *g = k->atom.grid;
    uint64_t blocks = (uint64_t)g[0] * g[1];
    if (!device || k->atom.policy.mode == LITHOS_ATOM_OFF || (g[2] && blocks > UINT64_MAX / g[2]))
        return 0;
    blocks *= g[2];
    uint64_t fit = occupancy(k), sms = (uint64_t)device->sm_count;
    if (blocks <= fit * sms || lithos_names_told_whole(k->launched) || lithos_names_waits(k->launched))
        return 0;
    if (k->atom.policy.mode == LITHOS_ATOM_FORCE)
        return (uint32_t)LITHOS_MIN((uint64_t)k->atom.policy.count, blocks);
    lithos_hook_devices(&devices);
    uint64_t granted = (uint64_t)lithos_hook_tpcs((int32_t)(device - devices)) *
                       atomic_load_explicit(&device->tpc_sms, memory_order_relaxed);
    if (granted)
        sms = LITHOS_MIN(sms, granted);
    uint64_t atoms = atoms_by_length(k, cluster, blocks, waves_of(blocks, fit * sms));
    return (uint32_t)LITHOS_MIN(atoms, (uint64_t)LITHOS_ATOMS_MAX);
}

bool lithos_graph_kernel_is(struct lithos_graph_kernel *k, const CUDA_KERNEL_NODE_PARAMS_v2 *p)
{
    k->armed = k->atom.decided = false;
    k->launched = p->func ? p->func : (CUfunction)(void *)p->kern;
    k->function = p->func;
    k->shared_bytes = p->sharedMemBytes;
    memcpy(k->atom.grid, (const uint32_t[]){p->gridDimX, p->gridDimY, p->gridDimZ}, sizeof k->atom.grid);
    memcpy(k->atom.block, (const uint32_t[]){p->blockDimX, p->blockDimY, p->blockDimZ}, sizeof k->atom.block);
    return p->func || (p->kern && DONE(cuKernelGetFunction, kernel_function_fn, &k->function, p->kern));
}

/* As it is in the app's graph. Below 2: it stays whole. */
static uint32_t look_at_kernel(CUgraphNode node, struct lithos_graph_kernel *k,
                               CUDA_KERNEL_NODE_PARAMS_v2 *ret_params)
{
    CUDA_KERNEL_NODE_PARAMS_v2 p = {0};
    uint64_t cluster = 0;
    *k = (struct lithos_graph_kernel){.on = true, .atom.policy = lithos_atoms_policy()};
    if (!DONE(cuGraphKernelNodeGetParams_v2, params_fn, node, &p) || !lithos_graph_kernel_is(k, &p) ||
        !look_at_attributes(node, &cluster))
        return 0;
    *ret_params = p;
    return nodes_for(k, cluster);
}

/* ---- a graph's nodes and edges ---- */

/* Never for none. */
static void *room(size_t count, size_t size)
{
    return calloc(count + 1, size);
}

#define NODE_BYTES sizeof(void *) /* of a CUgraphNode, which is a pointer */

static void level_free(struct lithos_graph_level *l)
{
    free(l->nodes);
    free(l->from);
    free(l->to);
    free(l->data);
    free(l->order);
    free(l->programmatic);
}

static int by_address(const void *a, const void *b)
{
    uintptr_t x = (uintptr_t) * (const CUgraphNode *)a, y = (uintptr_t) * (const CUgraphNode *)b;
    return (x > y) - (x < y);
}

uint32_t lithos_graph_index_of(const struct lithos_graph_level *l, CUgraphNode node)
{
    const CUgraphNode *at = bsearch(&node, l->nodes, l->count, NODE_BYTES, by_address);
    return at ? (uint32_t)(at - l->nodes) : UINT32_MAX;
}

static bool read_nodes(CUgraph graph, struct lithos_graph_level *l)
{
    if (!DONE(cuGraphGetNodes, nodes_fn, graph, NULL, &l->count) || l->count > NODES_MAX ||
        !(l->nodes = room(l->count, NODE_BYTES)) || !(l->order = room(l->count, sizeof *l->order)) ||
        !(l->programmatic = room(l->count, sizeof *l->programmatic)) ||
        (l->count && !DONE(cuGraphGetNodes, nodes_fn, graph, l->nodes, &l->count)))
        return false;
    qsort(l->nodes, l->count, NODE_BYTES, by_address);
    return true;
}

static bool read_edges(CUgraph graph, struct lithos_graph_level *l)
{
    static const CUgraphEdgeData full;
    if (!DONE(cuGraphGetEdges_v2, edges_fn, graph, NULL, NULL, NULL, &l->edges) ||
        l->edges > (size_t)NODES_MAX * 64 || !(l->from = room(l->edges, NODE_BYTES)) ||
        !(l->to = room(l->edges, NODE_BYTES)) || !(l->data = room(l->edges, sizeof *l->data)) ||
        (l->edges && !DONE(cuGraphGetEdges_v2, edges_fn, graph, l->from, l->to, l->data, &l->edges)))
        return false;
    for (size_t i = 0; i < l->edges; i++) {
        uint32_t from = lithos_graph_index_of(l, l->from[i]), to = lithos_graph_index_of(l, l->to[i]);
        if (from == UINT32_MAX || to == UINT32_MAX)
            return false;
        if (memcmp(&l->data[i], &full, sizeof full) != 0)
            l->programmatic[from] = l->programmatic[to] = true;
    }
    return true;
}

/* Nodes of which all that they wait for have been placed, again and again. */
static bool put_in_order(struct lithos_graph_level *l)
{
    uint32_t *waits = room(l->count, sizeof *waits), *first = room(l->count, sizeof *first),
             *next = room(l->edges, sizeof *next), placed = 0;
    bool ok = waits && first && next;
    for (size_t i = 0; ok && i < l->edges; i++) {
        uint32_t from = lithos_graph_index_of(l, l->from[i]);
        waits[lithos_graph_index_of(l, l->to[i])]++;
        next[i] = first[from];
        first[from] = (uint32_t)i + 1;
    }
    for (uint32_t i = 0; ok && i < l->count; i++)
        if (!waits[i])
            l->order[placed++] = i;
    for (uint32_t i = 0; ok && i < placed; i++)
        for (uint32_t e = first[l->order[i]]; e; e = next[e - 1]) {
            uint32_t to = lithos_graph_index_of(l, l->to[e - 1]);
            if (--waits[to] == 0)
                l->order[placed++] = to;
        }
    free(waits);
    free(first);
    free(next);
    return ok && placed == l->count;
}

static bool level_read(CUgraph graph, struct lithos_graph_level *l)
{
    *l = (struct lithos_graph_level){.count = 0};
    return read_nodes(graph, l) && read_edges(graph, l) && put_in_order(l);
}

/* ---- what there is to cut ---- */

static bool may_be_twice(int type)
{
    return type == CU_GRAPH_NODE_TYPE_KERNEL || type == CU_GRAPH_NODE_TYPE_MEMCPY ||
           type == CU_GRAPH_NODE_TYPE_MEMSET || type == CU_GRAPH_NODE_TYPE_HOST ||
           type == CU_GRAPH_NODE_TYPE_GRAPH || type == CU_GRAPH_NODE_TYPE_EMPTY ||
           type == CU_GRAPH_NODE_TYPE_WAIT_EVENT || type == CU_GRAPH_NODE_TYPE_EVENT_RECORD;
}

static uint32_t worth_node(CUgraphNode node, unsigned depth, bool *ret_strange);

static uint32_t worth(CUgraph graph, unsigned depth, bool *ret_strange)
{
    struct lithos_graph_level l = {.count = 0};
    uint32_t kernels = 0;
    bool read = depth < DEPTH_MAX && read_nodes(graph, &l);
    *ret_strange |= !read;
    for (size_t i = 0; read && i < l.count; i++)
        kernels += worth_node(l.nodes[i], depth, ret_strange);
    level_free(&l);
    return kernels;
}

static uint32_t worth_node(CUgraphNode node, unsigned depth, bool *ret_strange)
{
    struct lithos_graph_kernel k;
    CUDA_KERNEL_NODE_PARAMS_v2 p;
    CUgraph child;
    int type = -1;
    if (!DONE(cuGraphNodeGetType, type_fn, node, &type) || !may_be_twice(type))
        *ret_strange = true;
    if (type == CU_GRAPH_NODE_TYPE_KERNEL)
        return look_at_kernel(node, &k, &p) > 1;
    if (type != CU_GRAPH_NODE_TYPE_GRAPH)
        return 0;
    if (DONE(cuGraphChildGraphNodeGetGraph, child_fn, node, &child))
        return worth(child, depth + 1, ret_strange);
    *ret_strange = true;
    return 0;
}

uint32_t lithos_graph_worth(CUgraph graph, bool *ret_strange)
{
    *ret_strange = false;
    return worth(graph, 0, ret_strange);
}

/* ---- chains ---- */

struct build {
    struct lithos_graph_exec *x;
    uint32_t pair_room, kernel_room, added;
    enum lithos_graph_whole why; /* when something goes wrong */
};

/* Room for one more at the end of an array. */
static void *grow(void *array, uint32_t count, uint32_t *io_room, size_t size)
{
    if (count < *io_room)
        return array;
    uint32_t more = *io_room ? 2 * *io_room : 32;
    void *grown = realloc(array, more * size);
    if (grown)
        *io_room = more;
    return grown;
}

/* What waited for the node waits for the last of its chain. */
bool lithos_graph_move_dependents(CUgraph graph, CUgraphNode from, CUgraphNode to)
{
    size_t count = 0;
    if (!DONE(cuGraphNodeGetDependentNodes_v2, dependents_fn, from, NULL, NULL, &count))
        return false;
    if (!count)
        return true;
    CUgraphNode *behind = room(count, NODE_BYTES), *here = room(count, NODE_BYTES);
    CUgraphEdgeData *data = room(count, sizeof *data);
    bool ok = behind && here && data &&
              DONE(cuGraphNodeGetDependentNodes_v2, dependents_fn, from, behind, data, &count);
    for (size_t i = 0; ok && i < count; i++)
        here[i] = from;
    ok = ok && DONE(cuGraphRemoveDependencies_v2, dependencies_fn, graph, here, behind, data, count);
    for (size_t i = 0; ok && i < count; i++)
        here[i] = to;
    ok = ok && DONE(cuGraphAddDependencies_v2, dependencies_fn, graph, here, behind, data, count);
    free(behind);
    free(here);
    free(data);
    return ok;
}

/* The node is the first; the others are made like it, each behind the one before it in launch order. */
static bool make_chain(CUgraph graph, const struct lithos_graph_kernel *k,
                       const CUDA_KERNEL_NODE_PARAMS_v2 *p)
{
    const CUgraphEdgeData order = {.from_port = CU_GRAPH_KERNEL_NODE_PORT_LAUNCH_ORDER,
                                   .type = CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC};
    CUgraphNode *n = k->nodes;
    for (uint32_t i = 1; i < k->atom.nodes; i++)
        if (!DONE(cuGraphAddKernelNode_v2, add_fn, &n[i], graph, NULL, 0, p) ||
            !DONE(cuGraphKernelNodeCopyAttributes, copy_attributes_fn, n[i], n[0]))
            return false;
    if (!lithos_graph_move_dependents(graph, n[0], n[k->atom.nodes - 1]))
        return false;
    for (uint32_t i = 1; i < k->atom.nodes; i++)
        if (!DONE(cuGraphAddDependencies_v2, dependencies_fn, graph, &n[i - 1], &n[i], &order, 1))
            return false;
    return true;
}

/* *ret_kernel: its index from 1; 0: it stays whole. */
static bool cut_kernel(struct build *b, CUgraph graph, CUgraphNode app, CUgraphNode ours,
                       uint32_t *ret_kernel)
{
    struct lithos_graph_exec *x = b->x;
    struct lithos_graph_kernel k;
    CUDA_KERNEL_NODE_PARAMS_v2 p;
    uint32_t nodes = look_at_kernel(app, &k, &p);
    *ret_kernel = 0;
    if (nodes < 2 || !DONE(cuGraphKernelNodeGetParams_v2, params_fn, ours, &p))
        return nodes < 2;
    b->why = LITHOS_GRAPH_WHOLE_ROOM;
    struct lithos_graph_kernel *kernels = grow(x->kernels, x->kernel_count, &b->kernel_room, sizeof k);
    b->added += nodes;
    if (!kernels)
        return false;
    x->kernels = kernels;
    if (b->added > LITHOS_GRAPH_ATOMS_MAX || !(k.nodes = room(nodes, NODE_BYTES)))
        return false;
    k.nodes[0] = ours;
    k.atom.nodes = nodes;
    k.atom.where = x->where;
    x->kernels[x->kernel_count++] = k; /* owns its nodes from now on */
    *ret_kernel = x->kernel_count;
    b->why = LITHOS_GRAPH_WHOLE_DRIVER;
    return make_chain(graph, &k, &p);
}

static bool add_pair(struct build *b, const struct lithos_graph_pair *pair)
{
    struct lithos_graph_exec *x = b->x;
    struct lithos_graph_pair *pairs = grow(x->pairs, x->pair_count, &b->pair_room, sizeof *pairs);
    if (!pairs) {
        b->why = LITHOS_GRAPH_WHOLE_ROOM;
        return false;
    }
    x->pairs = pairs;
    pairs[x->pair_count++] = *pair;
    return true;
}

static bool cut_graph(struct build *b, CUgraph app, CUgraph ours, bool stops);

static bool cut_node(struct build *b, CUgraph graph, CUgraphNode app, bool programmatic)
{
    struct lithos_graph_pair pair = {.app = app};
    CUgraph child, child_ours;
    if (!DONE(cuGraphNodeGetType, type_fn, app, &pair.type) ||
        !DONE(cuGraphNodeFindInClone, find_fn, &pair.ours, app, graph))
        return false;
    if (pair.type == CU_GRAPH_NODE_TYPE_GRAPH &&
        (!DONE(cuGraphChildGraphNodeGetGraph, child_fn, app, &child) ||
         !DONE(cuGraphChildGraphNodeGetGraph, child_fn, pair.ours, &child_ours) ||
         !cut_graph(b, child, child_ours, false)))
        return false;
    if (pair.type == CU_GRAPH_NODE_TYPE_KERNEL && !programmatic &&
        !cut_kernel(b, graph, app, pair.ours, &pair.kernel))
        return false;
    return add_pair(b, &pair);
}

static int by_app_node(const void *a, const void *b)
{
    return by_address(&((const struct lithos_graph_pair *)a)->app,
                      &((const struct lithos_graph_pair *)b)->app);
}

/* As deep as lithos_graph_worth has found it to be. */
static bool cut_graph(struct build *b, CUgraph app, CUgraph ours, bool stops)
{
    struct lithos_graph_level l;
    bool ok = level_read(app, &l);
    for (size_t i = 0; ok && i < l.count; i++)
        ok = cut_node(b, ours, l.nodes[l.order[i]], l.programmatic[l.order[i]]);
    if (ok && stops) {
        qsort(b->x->pairs, b->x->pair_count, sizeof *b->x->pairs, by_app_node);
        ok = lithos_graph_stops(b->x, &l);
    }
    level_free(&l);
    return ok;
}

/* The second exec is uploaded when it is armed. */
static bool instantiate(struct lithos_graph_exec *x)
{
    unsigned long long flags = x->flags & ~(unsigned long long)CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD;
    struct lithos_ticket ticket;
    lithos_ticket_open(&ticket, LITHOS_TICKET_GRAPH, NULL);
    if (ticket.observe)
        lithos_hook_client.observer->closed();
    ticket.observe = 0;
    bool ok = DONE(cuGraphInstantiateWithFlags, instantiate_fn, &x->cut, x->clone, flags);
    lithos_ticket_close(&ticket);
    if (!ok)
        x->cut = NULL;
    return ok;
}

int lithos_graph_cut(struct lithos_graph_exec *x, CUgraph graph, enum lithos_graph_whole *ret_why)
{
    struct build b = {.x = x, .why = LITHOS_GRAPH_WHOLE_DRIVER};
    bool ok = DONE(cuGraphClone, clone_fn, &x->clone, graph);
    if (!ok)
        x->clone = NULL;
    ok = ok && cut_graph(&b, graph, x->clone, atomic_load(lithos_hook_client.stops) != 0);
    if (ok && (x->kernel_count || x->stops)) {
        qsort(x->pairs, x->pair_count, sizeof *x->pairs, by_app_node);
        b.why = LITHOS_GRAPH_WHOLE_DRIVER;
        ok = instantiate(x);
    }
    if (ok && (x->kernel_count || x->stops)) {
        x->dirty = true;
        x->masks = 0;
        x->launches = 0;
        return 1;
    }
    lithos_graph_uncut(x);
    *ret_why = b.why;
    return ok ? 0 : -1;
}

void lithos_graph_uncut(struct lithos_graph_exec *x)
{
    if (x->clone)
        LITHOS_REAL(graph_fn, cuGraphDestroy)(x->clone);
    for (uint32_t i = 0; i < x->kernel_count; i++)
        free(x->kernels[i].nodes);
    free(x->kernels);
    free(x->pairs);
    x->clone = NULL;
    x->kernels = NULL;
    x->pairs = NULL;
    x->kernel_count = x->pair_count = x->stops = 0;
}
