#include "driver/graphs_follow.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "driver/atoms_context.h"
#include "driver/atoms_internal.h"
#include "driver/exports.h"
#include "driver/names.h"
#include "driver/order.h"
#include "driver/qmd_hook.h"
#include "driver/together.h"

#define BUCKETS 1024u /* a power of two */
#define EXECS_MAX 65536u
#define NODES_MAX (1u << 20) /* of all execs: 16 MB */
#define GRAPH_NODES_MAX 65536u
#define DEPTH_MAX 8u

_Atomic(CUgraphExec) lithos_graphs_fresh[LITHOS_GRAPHS_FRESH];
_Atomic(CUgraphExec) lithos_graphs_as_made[LITHOS_GRAPHS_FRESH];

/* A node that has a queue descriptor, or may have one. */
struct node {
    CUgraphNode handle;
    bool kernel;
    bool off; /* it was switched off, and could not be switched on */
};

/* A graph that execs were made from. */
struct source {
    struct source *next;
    CUgraph graph;
    uint32_t execs;
    bool ours; /* the app has destroyed it */
};

struct exec {
    struct exec *next;
    CUgraphExec handle;
    CUcontext ctx; /* where it was made */
    CUdevice device;
    struct source *source; /* NULL: there are no nodes */
    struct node *nodes;
    uint32_t count, room;
    uint32_t masks;              /* lithos_hook_masks as its nodes were shown */
    bool shown;                  /* they were, at all */
    bool changed;                /* by the app, since it was made */
    enum lithos_graph_keeps why; /* _MAX: none that is known of beforehand */
};

/* The lock is held while nodes are switched and listed: the driver calls nothing of ours from within, but for the callback, which does
 * not take it. */
static struct {
    pthread_mutex_t lock;
    struct exec *execs[BUCKETS];
    struct source *sources[BUCKETS];
    uint32_t exec_count, node_count;
    uint32_t apps; /* sources that the app has still */
} kept = {.lock = PTHREAD_MUTEX_INITIALIZER};

typedef CUresult (*nodes_fn)(CUgraph, CUgraphNode *, size_t *);
typedef CUresult (*type_fn)(CUgraphNode, int *);
typedef CUresult (*child_fn)(CUgraphNode, CUgraph *);
typedef CUresult (*params_fn)(CUgraphNode, CUDA_KERNEL_NODE_PARAMS_v2 *);
typedef CUresult (*attribute_fn)(CUgraphNode, int, CUlaunchAttributeValue *);
typedef CUresult (*set_enabled_fn)(CUgraphExec, CUgraphNode, unsigned);
typedef CUresult (*get_enabled_fn)(CUgraphExec, CUgraphNode, unsigned *);
typedef CUresult (*get_context_fn)(CUcontext *);
typedef CUresult (*get_device_fn)(CUdevice *);

/* Names the function that is called, and is true when that goes well. */
#define DONE(name, type, ...) (LITHOS_REAL(type, name)(__VA_ARGS__) == CUDA_SUCCESS)

/* LITHOS_FOLLOW_GRAPHS=off: graphs keep the TPCs that they were instantiated with, and nothing is kept for them. */
static bool is_wanted(void)
{
    static _Atomic int read; /* 0 not yet, 1 yes, -1 no */
    int v = atomic_load_explicit(&read, memory_order_relaxed);
    if (!v) {
        const char *text = getenv("LITHOS_FOLLOW_GRAPHS");
        v = text && !strcmp(text, "off") ? -1 : 1;
        atomic_store_explicit(&read, v, memory_order_relaxed);
    }
    return v > 0 && lithos_hook_get_state() == LITHOS_HOOK_SUBSCRIBED;
}

void lithos_graph_keeps(enum lithos_graph_keeps why)
{
    static const char *const whys[] = {
#define W(name, text) text,
#include "hw/graph_keeps.def"
#undef W
    };
    lithos_count((enum lithos_hook_count)(LITHOS_COUNT_GRAPH_KEEPS_NODES + (int)why), 1);
    lithos_log_once(
        LITHOS_LOG_WARNING,
        "this tenant's TPCs have changed, and kernels of a CUDA graph keep those they had: %s. They follow "
        "once the program instantiates it anew; how many there are is in `lithos status`",
        whys[why]);
}

/* ---- what is kept, under the lock ---- */

static unsigned bucket(const void *handle)
{
    return (unsigned)(((uintptr_t)handle * 0x9e3779b97f4a7c15ull) >> 48) & (BUCKETS - 1);
}

static struct exec *find_exec(CUgraphExec handle)
{
    struct exec *x = kept.execs[bucket(handle)];
    while (x && x->handle != handle)
        x = x->next;
    return x;
}

static struct source *find_source(CUgraph graph)
{
    struct source *s = kept.sources[bucket(graph)];
    while (s && s->graph != graph)
        s = s->next;
    return s;
}

static struct source *take_source(CUgraph graph)
{
    struct source *s = find_source(graph);
    if (!s) {
        s = calloc(1, sizeof *s);
        if (!s)
            return NULL;
        s->graph = graph;
        s->next = kept.sources[bucket(graph)];
        kept.sources[bucket(graph)] = s;
        kept.apps++;
    }
    s->execs++;
    return s;
}

static void no_longer_as_made(CUgraphExec exec)
{
    CUgraphExec there = exec;
    atomic_compare_exchange_strong(&lithos_graphs_as_made[lithos_graph_place(exec)], &there, NULL);
}

/* The exec goes by no nodes any more. The graph that was kept for it alone, or NULL. */
static CUgraph drop_nodes(struct exec *x)
{
    struct source *s = x->source, **at;
    CUgraph left = NULL;
    kept.node_count -= x->count;
    free(x->nodes);
    x->nodes = NULL;
    x->count = 0;
    x->source = NULL;
    if (!s || --s->execs)
        return NULL;
    for (at = &kept.sources[bucket(s->graph)]; *at != s; at = &(*at)->next)
        ;
    *at = s->next;
    if (s->ours)
        left = s->graph;
    else
        kept.apps--;
    free(s);
    return left;
}

/* The same, and it is forgotten. */
static CUgraph drop_exec(struct exec *x)
{
    struct exec **at = &kept.execs[bucket(x->handle)];
    while (*at != x)
        at = &(*at)->next;
    *at = x->next;
    kept.exec_count--;
    no_longer_as_made(x->handle);
    CUgraph left = drop_nodes(x);
    free(x);
    return left;
}

void lithos_graphs_not_fresh(void)
{
    for (unsigned i = 0; i < LITHOS_GRAPHS_FRESH; i++)
        atomic_store(&lithos_graphs_fresh[i], NULL);
}

/* ---- the nodes of a graph ---- */

/* All of them, to be freed. False: the driver does not tell, or they are too many (*ret_count). */
static bool nodes_of(CUgraph graph, CUgraphNode **ret_nodes, size_t *ret_count)
{
    CUgraphNode *nodes = NULL;
    size_t count = 0;
    bool ok = DONE(cuGraphGetNodes, nodes_fn, graph, NULL, &count) && count <= GRAPH_NODES_MAX;
    if (ok && count) {
        nodes = calloc(count, sizeof(void *)); /* a CUgraphNode is a pointer */
        ok = nodes && DONE(cuGraphGetNodes, nodes_fn, graph, nodes, &count);
    }
    if (!ok) {
        free(nodes);
        nodes = NULL;
    }
    *ret_nodes = nodes;
    *ret_count = count;
    return ok;
}

static void add_node(struct exec *x, CUgraphNode node, bool kernel)
{
    if (x->count == x->room) {
        uint32_t room = LITHOS_MAX(2 * x->room, 32u);
        struct node *grown = x->count < GRAPH_NODES_MAX ? realloc(x->nodes, room * sizeof *grown) : NULL;
        if (!grown) {
            x->why = LITHOS_GRAPH_KEEPS_ROOM;
            return;
        }
        x->nodes = grown;
        x->room = room;
    }
    x->nodes[x->count++] = (struct node){.handle = node, .kernel = kernel};
}

static void list(struct exec *x, CUgraph graph, unsigned depth);

static void list_node(struct exec *x, CUgraphNode node, unsigned depth)
{
    CUgraph child;
    int type = -1;
    bool told = DONE(cuGraphNodeGetType, type_fn, node, &type);
    if (told && (type == CU_GRAPH_NODE_TYPE_KERNEL || type == CU_GRAPH_NODE_TYPE_MEMSET))
        add_node(x, node, type == CU_GRAPH_NODE_TYPE_KERNEL);
    else if (told && type == CU_GRAPH_NODE_TYPE_GRAPH &&
             DONE(cuGraphChildGraphNodeGetGraph, child_fn, node, &child))
        list(x, child, depth + 1);
    else if (!told || type == CU_GRAPH_NODE_TYPE_GRAPH)
        x->why = LITHOS_GRAPH_KEEPS_DRIVER;
    else if (type > CU_GRAPH_NODE_TYPE_BATCH_MEM_OP)
        x->why = LITHOS_GRAPH_KEEPS_NODES;
}

/* Add what there is to follow. What is not told is left out, and x->why says so. */
static void list(struct exec *x, CUgraph graph, unsigned depth)
{
    CUgraphNode *nodes;
    size_t count;
    if (depth >= DEPTH_MAX || !nodes_of(graph, &nodes, &count)) {
        x->why = LITHOS_GRAPH_KEEPS_DRIVER;
        return;
    }
    for (size_t i = 0; i < count; i++)
        list_node(x, nodes[i], depth);
    free(nodes);
}

/* ---- instantiation ---- */

/* Into x, whose handle is filled in. */
static void look_at_graph(struct exec *x, CUgraph graph, unsigned long long flags)
{
    x->why = LITHOS_GRAPH_KEEPS_MAX;
    if (!DONE(cuCtxGetCurrent, get_context_fn, &x->ctx) || !DONE(cuCtxGetDevice, get_device_fn, &x->device))
        x->device = -1;
    if (flags & CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH)
        x->why = LITHOS_GRAPH_KEEPS_DEVICE;
    else
        list(x, graph, 0);
}

static void forget(CUgraphExec handle)
{
    struct exec *x = find_exec(handle);
    if (x)
        drop_exec(x); /* it has ended with its context, and what was kept for it */
    atomic_store(lithos_graph_fresh_place(handle), NULL);
}

static bool put_in(struct exec *x, CUgraph graph)
{
    struct node *fit = x->count ? realloc(x->nodes, x->count * sizeof *fit) : NULL;
    bool ok = kept.exec_count < EXECS_MAX && kept.node_count + x->count <= NODES_MAX;
    if (fit)
        x->nodes = fit;
    if (ok && x->count)
        ok = (x->source = take_source(graph)) != NULL;
    if (!ok)
        return false;
    x->next = kept.execs[bucket(x->handle)];
    kept.execs[bucket(x->handle)] = x;
    kept.exec_count++;
    kept.node_count += x->count;
    return true;
}

void lithos_graph_follow_made(CUgraphExec exec, CUgraph graph, unsigned long long flags, uint32_t masks,
                              bool shown)
{
    if (!is_wanted())
        return;
    struct exec *x = calloc(1, sizeof *x);
    pthread_mutex_lock(&kept.lock);
    forget(exec);
    if (x) {
        x->handle = exec;
        x->masks = masks;
        x->shown = shown;
        look_at_graph(x, graph, flags);
    }
    bool ok = x && put_in(x, graph);
    pthread_mutex_unlock(&kept.lock);
    if (ok)
        return;
    lithos_count(LITHOS_COUNT_GRAPH_KEEPS_ROOM, 1);
    lithos_log_once(LITHOS_LOG_WARNING, "more CUDA graphs than LithOS keeps: were this tenant's TPCs to "
                                        "change, some would keep those they have now");
    if (x)
        free(x->nodes);
    free(x);
}

/* ---- launches ---- */

CUresult lithos_graph_show_again(CUgraphExec exec, CUgraphNode node, bool *io_off,
                                 enum lithos_graph_shown *ret_shown)
{
    set_enabled_fn set = LITHOS_REAL(set_enabled_fn, cuGraphNodeSetEnabled);
    unsigned on = 1;
    if (!*io_off) {
        *ret_shown = LITHOS_GRAPH_REFUSED;
        if (!DONE(cuGraphNodeGetEnabled, get_enabled_fn, exec, node, &on) ||
            (on && set(exec, node, 0) != CUDA_SUCCESS))
            return CUDA_SUCCESS;
    }
    *ret_shown = on ? LITHOS_GRAPH_SHOWN : LITHOS_GRAPH_OFF;
    CUresult result = on ? set(exec, node, 1) : CUDA_SUCCESS;
    *io_off = result != CUDA_SUCCESS;
    return result;
}

bool lithos_graph_has_place(CUgraphNode node, enum lithos_graph_keeps *ret_why)
{
    const struct lithos_hook_device *devices, *device = lithos_atoms_device_here();
    CUDA_KERNEL_NODE_PARAMS_v2 p = {0};
    CUlaunchAttributeValue v = {0};
    *ret_why = LITHOS_GRAPH_KEEPS_DRIVER;
    if (!device ||
        !DONE(cuGraphKernelNodeGetAttribute, attribute_fn, node, CU_LAUNCH_ATTRIBUTE_COOPERATIVE, &v) ||
        !DONE(cuGraphKernelNodeGetParams_v2, params_fn, node, &p))
        return false;
    const struct lithos_launch l = {.function = p.func ? p.func : (CUfunction)(void *)p.kern,
                                    .grid = {p.gridDimX, p.gridDimY, p.gridDimZ},
                                    .block = {p.blockDimX, p.blockDimY, p.blockDimZ},
                                    .shared_bytes = p.sharedMemBytes};
    if (!v.cooperative && !lithos_names_waits(l.function))
        return true;
    *ret_why = LITHOS_GRAPH_KEEPS_TOGETHER;
    lithos_hook_devices(&devices);
    return lithos_together_sms(&l) <= lithos_hook_tpcs((int32_t)(device - devices)) *
                                          atomic_load_explicit(&device->tpc_sms, memory_order_relaxed);
}

/* Have all its nodes shown in the next launch. Not success: one could not be switched on again. */
static CUresult show_all(struct exec *x)
{
    enum lithos_graph_keeps why = x->why, found;
    uint32_t shown = 0;
    int mode = lithos_atoms_relax_capture(CU_STREAM_CAPTURE_MODE_RELAXED);
    CUresult result = CUDA_SUCCESS;
    if (!x->changed)
        atomic_store_explicit(&lithos_graphs_as_made[lithos_graph_place(x->handle)], x->handle,
                              memory_order_release);
    for (uint32_t i = 0; result == CUDA_SUCCESS && i < x->count; i++) {
        struct node *n = &x->nodes[i];
        enum lithos_graph_shown now;
        if (n->kernel && !n->off && !lithos_graph_has_place(n->handle, &found)) {
            why = found;
            continue;
        }
        result = lithos_graph_show_again(x->handle, n->handle, &n->off, &now);
        if (now == LITHOS_GRAPH_REFUSED)
            why = LITHOS_GRAPH_KEEPS_DRIVER;
        shown += now == LITHOS_GRAPH_SHOWN;
    }
    if (mode >= 0)
        lithos_atoms_relax_capture(mode);
    if (shown) {
        lithos_count(LITHOS_COUNT_GRAPH_FOLLOWED, 1);
        lithos_count(LITHOS_COUNT_GRAPH_FOLLOWED_NODES, shown);
    }
    if (why != LITHOS_GRAPH_KEEPS_MAX)
        lithos_graph_keeps(why);
    return result;
}

static bool is_due(const struct exec *x)
{
    return x->shown && x->masks != atomic_load(&lithos_hook_masks);
}

/* Not by the queue's thread while the app has the graph: it may be about to change it. Nor where it is not sure that the callback is told
 * of the device that its kernels are for. */
static bool may_be_shown(const struct exec *x)
{
    CUcontext ctx;
    if (lithos_order_issue && x->source && !x->source->ours)
        return false;
    return atomic_load_explicit(&lithos_hook_only_device, memory_order_acquire) >= 0 ||
           (DONE(cuCtxGetCurrent, get_context_fn, &ctx) && ctx == x->ctx);
}

CUresult lithos_graph_follow(CUgraphExec exec, CUstream stream)
{
    if (lithos_atoms_is_capturing(stream)) /* it becomes a node of another graph */
        return CUDA_SUCCESS;
    CUresult result = CUDA_SUCCESS;
    bool fresh = true;
    pthread_mutex_lock(&kept.lock);
    uint32_t masks = atomic_load(&lithos_hook_masks);
    struct exec *x = find_exec(exec);
    if (x && is_due(x)) {
        fresh = may_be_shown(x);
        result = fresh ? show_all(x) : CUDA_SUCCESS;
    }
    fresh &= result == CUDA_SUCCESS;
    if (x && fresh) {
        x->masks = masks;
        x->shown = true;
    }
    pthread_mutex_unlock(&kept.lock);
    if (!fresh)
        return result;
    atomic_store(lithos_graph_fresh_place(exec), exec);
    if (atomic_load(&lithos_hook_masks) !=
        masks) /* changed meanwhile: it may have been taken back before it was said */
        atomic_store(lithos_graph_fresh_place(exec), NULL);
    return CUDA_SUCCESS;
}

void lithos_graph_follow_changed(CUgraphExec exec)
{
    pthread_mutex_lock(&kept.lock);
    struct exec *x = find_exec(exec);
    if (x)
        x->changed = true;
    no_longer_as_made(exec);
    pthread_mutex_unlock(&kept.lock);
}

CUresult lithos_graph_follow_early(CUgraphExec exec, CUstream stream)
{
    lithos_hook_follow();
    if (lithos_graph_is_fresh(exec))
        return CUDA_SUCCESS;
    pthread_mutex_lock(&kept.lock);
    const struct exec *x = find_exec(exec);
    bool here = x && is_due(x) && x->source && !x->source->ours;
    pthread_mutex_unlock(&kept.lock);
    if (!here)
        return CUDA_SUCCESS;
    const uintptr_t args[6] = {(uintptr_t)exec};
    CUresult result;
    if (lithos_order_call(LITHOS_EXPORT_cuGraphNodeSetEnabled, args, &result))
        return CUDA_SUCCESS;
    return lithos_graph_follow(exec, stream);
}

/* ---- ends ---- */

/* Its nodes are gone, by a way that was not ours to see. */
static void lose_source(CUgraph graph)
{
    struct source *s = find_source(graph);
    for (uint32_t i = 0; s && i < BUCKETS; i++)
        for (struct exec *x = kept.execs[i]; x; x = x->next)
            if (x->source == s) {
                bool last = s->execs == 1;
                x->why = LITHOS_GRAPH_KEEPS_CHANGED;
                drop_nodes(x);
                if (last)
                    return;
            }
}

/* Those that the app has still: one of them may be the body of a conditional node that ends, which cannot be told. */
static void lose_all_of_app(void)
{
    for (uint32_t i = 0; i < BUCKETS; i++)
        for (struct exec *x = kept.execs[i]; x; x = x->next)
            if (x->source && !x->source->ours) {
                x->why = LITHOS_GRAPH_KEEPS_CHANGED;
                drop_nodes(x);
            }
}

static void lose_node(CUgraphNode node)
{
    for (uint32_t i = 0; i < BUCKETS; i++)
        for (struct exec *x = kept.execs[i]; x; x = x->next)
            for (uint32_t n = 0; n < x->count; n++)
                if (x->nodes[n].handle == node) {
                    x->nodes[n] = x->nodes[--x->count];
                    kept.node_count--;
                    x->why = LITHOS_GRAPH_KEEPS_CHANGED;
                    break;
                }
}

static void graph_ends(CUgraph graph, bool nodes_too, unsigned depth);

/* A node ends, and what is in it. nodes_too: of a graph that itself stays, so that execs may go by the node. */
static void node_ends(CUgraphNode node, bool nodes_too, unsigned depth)
{
    CUgraph child;
    int type;
    if (nodes_too)
        lose_node(node);
    if (!DONE(cuGraphNodeGetType, type_fn, node, &type))
        return;
    if (type == CU_GRAPH_NODE_TYPE_GRAPH && DONE(cuGraphChildGraphNodeGetGraph, child_fn, node, &child)) {
        lose_source(child);
        graph_ends(child, nodes_too, depth + 1);
    } else if (type > CU_GRAPH_NODE_TYPE_BATCH_MEM_OP) {
        lose_all_of_app();
    }
}

static void graph_ends(CUgraph graph, bool nodes_too, unsigned depth)
{
    CUgraphNode *nodes;
    size_t count;
    if (depth >= DEPTH_MAX || !nodes_of(graph, &nodes, &count)) {
        lose_all_of_app();
        return;
    }
    for (size_t i = 0; i < count; i++)
        node_ends(nodes[i], nodes_too, depth);
    free(nodes);
}

CUgraph lithos_graph_follow_ends(CUgraphExec exec)
{
    pthread_mutex_lock(&kept.lock);
    struct exec *x = find_exec(exec);
    CUgraph left = x ? drop_exec(x) : NULL;
    if (left && kept.apps) /* a graph that the app has may be one within it */
        graph_ends(left, false, 0);
    atomic_store(lithos_graph_fresh_place(exec), NULL);
    pthread_mutex_unlock(&kept.lock);
    return left;
}

enum lithos_graph_end lithos_graph_destroyed(CUgraph graph)
{
    enum lithos_graph_end end = LITHOS_GRAPH_ENDS;
    pthread_mutex_lock(&kept.lock);
    struct source *s = find_source(graph);
    if (s && s->ours)
        end = LITHOS_GRAPH_GONE;
    if (s && !s->ours) {
        s->ours = true;
        kept.apps--;
        end = LITHOS_GRAPH_STAYS;
    }
    if (!s && kept.apps)
        graph_ends(graph, false, 0);
    pthread_mutex_unlock(&kept.lock);
    return end;
}

void lithos_graph_node_destroyed(CUgraphNode node)
{
    pthread_mutex_lock(&kept.lock);
    if (kept.apps)
        node_ends(node, true, 0);
    pthread_mutex_unlock(&kept.lock);
}

/* What belonged to it has ended with it, and is not touched. */
void lithos_graph_follow_context_ended(CUcontext ctx, CUdevice device)
{
    pthread_mutex_lock(&kept.lock);
    for (uint32_t i = 0; i < BUCKETS; i++)
        for (struct exec *x = kept.execs[i], *next; x; x = next) {
            next = x->next;
            if (ctx ? x->ctx == ctx : x->device == device)
                drop_exec(x);
        }
    pthread_mutex_unlock(&kept.lock);
}

void lithos_graph_follow_forget(void)
{
    static const pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
    memset(&kept, 0, sizeof kept);
    memcpy(&kept.lock, &fresh, sizeof fresh);
    lithos_graphs_not_fresh();
    for (unsigned i = 0; i < LITHOS_GRAPHS_FRESH; i++)
        atomic_store(&lithos_graphs_as_made[i], NULL);
}
