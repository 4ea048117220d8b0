#include "driver/graphs.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "driver/atoms_context.h"
#include "driver/exports.h"
#include "driver/graphs_follow.h"
#include "driver/graphs_internal.h"
#include "driver/qmd_hook.h"

#define BUCKETS 256u /* a power of two */
#define KEPT_MAX 4096u
/* An exec is cut anew when it was updated by another graph only after so many launches: that takes longer than an update. */
#define LAUNCHES_TO_CUT_AGAIN 16u

_Atomic uint32_t lithos_graphs_kept;

static struct {
    pthread_mutex_t lock; /* held for a look-up alone; never while the driver is called */
    struct lithos_graph_exec *buckets[BUCKETS];
} table = {.lock = PTHREAD_MUTEX_INITIALIZER};

typedef CUresult (*exec_fn)(CUgraphExec);
typedef CUresult (*event_create_fn)(CUevent *, unsigned);
typedef CUresult (*event_fn)(CUevent);
typedef CUresult (*event_record_fn)(CUevent, CUstream);
typedef CUresult (*stream_wait_fn)(CUstream, CUevent, unsigned);
typedef CUresult (*synchronize_fn)(void);

/* ---- the table ---- */

static struct lithos_graph_exec **bucket_of(CUgraphExec app)
{
    return &table.buckets[((uintptr_t)app * 0x9e3779b97f4a7c15ull) >> 56 & (BUCKETS - 1)];
}

/* With its lock and a reference; NULL: there is none. */
static struct lithos_graph_exec *take(CUgraphExec app)
{
    pthread_mutex_lock(&table.lock);
    struct lithos_graph_exec *x = *bucket_of(app);
    while (x && x->app != app)
        x = x->next;
    if (x)
        x->refs++;
    pthread_mutex_unlock(&table.lock);
    if (x)
        pthread_mutex_lock(&x->lock);
    return x;
}

static void give(struct lithos_graph_exec *x)
{
    pthread_mutex_unlock(&x->lock);
    pthread_mutex_lock(&table.lock);
    bool last = --x->refs == 0 && x->gone;
    pthread_mutex_unlock(&table.lock);
    if (!last)
        return;
    pthread_mutex_destroy(&x->lock);
    free(x);
}

/* Under the table's lock: nobody finds it any more. */
static void take_out(struct lithos_graph_exec *x)
{
    struct lithos_graph_exec **at = bucket_of(x->app);
    while (*at && *at != x)
        at = &(*at)->next;
    if (!*at)
        return;
    *at = x->next;
    x->gone = true;
    atomic_fetch_sub_explicit(&lithos_graphs_kept, 1, memory_order_relaxed);
}

static void put_in(struct lithos_graph_exec *x)
{
    pthread_mutex_lock(&table.lock);
    x->next = *bucket_of(x->app);
    *bucket_of(x->app) = x;
    atomic_fetch_add_explicit(&lithos_graphs_kept, 1, memory_order_relaxed);
    pthread_mutex_unlock(&table.lock);
}

/* ---- one and the other ---- */

static void left_whole(enum lithos_graph_whole why)
{
    static const char *const whys[] = {
#define W(name, text) text,
#include "hw/graph_whole.def"
#undef W
    };
    lithos_count((enum lithos_hook_count)(LITHOS_COUNT_GRAPH_WHOLE_NODES + (int)why), 1);
    lithos_debug("the kernels of a graph stay whole: %s", whys[why]);
}

static void destroy_exec(CUgraphExec exec)
{
    if (!exec)
        return;
    LITHOS_REAL(exec_fn, cuGraphExecDestroy)(exec);
    lithos_hook_client.observer->graph_ended((uintptr_t)exec);
}

/* From now on the app's own is launched. What was given up may be running still: it goes when the next one does, or the app's. */
static void give_up(struct lithos_graph_exec *x)
{
    destroy_exec(x->old);
    x->old = x->cut;
    x->cut = NULL;
    lithos_graph_uncut(x);
}

/* A launch of one is behind every launch of the other, whichever streams they are in, as launches of one exec are. */
static void put_behind_last(struct lithos_graph_exec *x, bool cut, CUstream stream)
{
    bool same = x->stream == stream && stream != CU_STREAM_PER_THREAD; /* of which each thread has one */
    if (!x->recorded || x->cut_last == cut || same)
        return;
    if (LITHOS_REAL(stream_wait_fn, cuStreamWaitEvent)(stream, x->event, 0) != CUDA_SUCCESS)
        LITHOS_REAL(synchronize_fn, cuCtxSynchronize)();
}

static void note_last(struct lithos_graph_exec *x, bool cut, CUstream stream)
{
    x->launches++;
    x->cut_last = cut;
    x->stream = stream;
    x->recorded = LITHOS_REAL(event_record_fn, cuEventRecord)(x->event, stream) == CUDA_SUCCESS;
}

/* ---- instantiation ---- */

static bool may_be_cut(CUgraph graph, unsigned long long flags, enum lithos_graph_whole *ret_why)
{
    const struct lithos_hook_device *device = lithos_atoms_device_here();
    bool strange;
    if (!device || (!lithos_graph_worth(graph, &strange) && !lithos_graphs_want_stops()))
        return false;
    if (strange)
        *ret_why = LITHOS_GRAPH_WHOLE_NODES;
    else if (flags & CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH)
        *ret_why = LITHOS_GRAPH_WHOLE_DEVICE;
    else if (device->cc_major < LITHOS_ATOMS_CHAIN_CC_MAJOR)
        *ret_why = LITHOS_GRAPH_WHOLE_GPU;
    else if (atomic_load_explicit(&lithos_graphs_kept, memory_order_relaxed) >= KEPT_MAX)
        *ret_why = LITHOS_GRAPH_WHOLE_ROOM;
    else
        return true;
    left_whole(*ret_why);
    return false;
}

/* Into x, whose app and flags are filled in. */
static bool cut(struct lithos_graph_exec *x, CUgraph graph)
{
    enum lithos_graph_whole why;
    if (!may_be_cut(graph, x->flags, &why))
        return false;
    struct lithos_atoms_context *where = lithos_atoms_context_here();
    int r = -1;
    why = LITHOS_GRAPH_WHOLE_NOT_READY;
    if (where && (!x->where || x->where == where)) {
        x->where = where;
        r = lithos_graph_cut(x, graph, &why);
    }
    if (r < 0)
        left_whole(why);
    return r > 0;
}

static void make(CUgraphExec exec, CUgraph graph, unsigned long long flags)
{
    struct lithos_graph_exec *x = calloc(1, sizeof *x);
    if (!x) {
        left_whole(LITHOS_GRAPH_WHOLE_ROOM);
        return;
    }
    x->app = exec;
    x->flags = flags;
    pthread_mutex_init(&x->lock, NULL);
    if (cut(x, graph)) {
        if (LITHOS_REAL(event_create_fn, cuEventCreate)(&x->event, CU_EVENT_DISABLE_TIMING) == CUDA_SUCCESS) {
            put_in(x);
            return;
        }
        left_whole(LITHOS_GRAPH_WHOLE_DRIVER);
        destroy_exec(x->cut);
        lithos_graph_uncut(x);
    }
    pthread_mutex_destroy(&x->lock);
    free(x);
}

/* Of an exec that has ended with its context, another one may have the handle now. */
static void forget(CUgraphExec exec)
{
    struct lithos_graph_exec *x = lithos_graphs_any() ? take(exec) : NULL;
    if (!x)
        return;
    pthread_mutex_lock(&table.lock);
    take_out(x);
    pthread_mutex_unlock(&table.lock);
    give(x);
}

void lithos_graphs_made(CUgraphExec exec, CUgraph graph, unsigned long long flags)
{
    forget(exec);
    if (lithos_atoms_policy().mode == LITHOS_ATOM_OFF && !lithos_graphs_want_stops())
        return;
    int mode = lithos_atoms_relax_capture(CU_STREAM_CAPTURE_MODE_RELAXED);
    make(exec, graph, flags);
    if (mode >= 0)
        lithos_atoms_relax_capture(mode);
}

/* ---- launches ---- */

static bool any_is_cut(const struct lithos_graph_exec *x)
{
    for (uint32_t i = 0; i < x->kernel_count; i++)
        if (x->kernels[i].atom.cut.count || !x->kernels[i].armed)
            return true;
    return x->stops;
}

/* As is done to the app's own exec (driver/graphs_follow.h), when the masks in force have changed. False: it cannot be. */
static bool follow_masks(struct lithos_graph_exec *x, uint32_t masks)
{
    int nodes = x->masks && x->masks != masks ? lithos_graph_rearm(x) : 0;
    x->masks = masks;
    if (nodes > 0) {
        lithos_count(LITHOS_COUNT_GRAPH_FOLLOWED, 1);
        lithos_count(LITHOS_COUNT_GRAPH_FOLLOWED_NODES, (uint64_t)nodes);
    }
    return nodes >= 0;
}

/* Whether the cut one is to be launched now, and can be. */
static bool ready(struct lithos_graph_exec *x, CUstream stream)
{
    enum lithos_graph_whole why = LITHOS_GRAPH_WHOLE_DRIVER;
    if (!x->cut || (x->kernel_count && lithos_atoms_policy().mode == LITHOS_ATOM_OFF))
        return false;
    if ((x->stops && !lithos_graph_stops_hold(x)) || !follow_masks(x, atomic_load(&lithos_hook_masks))) {
        left_whole(why);
        give_up(x);
        return false;
    }
    if (x->dirty && lithos_atoms_context_here() != x->where)
        return false; /* of another device, perhaps, than what the callback is told */
    if (x->dirty)
        put_behind_last(x, true, stream);
    bool armed = lithos_graph_arm(x, stream, &why);
    if (armed && any_is_cut(x))
        return true;
    if (!armed)
        left_whole(why);
    give_up(x);
    return false;
}

static CUresult run(struct lithos_graph_exec *x, CUstream stream, bool launch)
{
    uint32_t strays;
    lithos_hook_follow();
    bool is_cut = ready(x, stream);
    CUresult follows = CUDA_SUCCESS;
    if (!is_cut && !lithos_graph_is_fresh(x->app))
        follows = lithos_graph_follow(x->app, stream);
    if (follows != CUDA_SUCCESS)
        return follows;
    put_behind_last(x, is_cut, stream);
    CUresult result = lithos_graph_call(x, is_cut ? x->cut : x->app, stream, launch, &strays);
    if (launch && result == CUDA_SUCCESS)
        note_last(x, is_cut, stream);
    if (strays && result == CUDA_SUCCESS) {
        lithos_log_once(LITHOS_LOG_ERROR,
                        "nodes of a graph that had been made atoms were made anew by the driver as it was "
                        "launched: the launch is reported as failed");
        left_whole(LITHOS_GRAPH_WHOLE_SHOWN);
        give_up(x);
        return CUDA_ERROR_LAUNCH_FAILED;
    }
    return result;
}

bool lithos_graphs_run(CUgraphExec exec, CUstream stream, bool launch, CUresult *ret_result)
{
    struct lithos_graph_exec *x = take(exec);
    if (!x)
        return false;
    bool ours = !lithos_atoms_is_capturing(stream); /* else it becomes a node of another graph, as it is */
    if (ours)
        *ret_result = run(x, stream, launch);
    give(x);
    return ours;
}

/* ---- changes ---- */

/* As in CUgraphNodeParams, where its type says that it is a kernel's. */
struct any_params {
    int type; /* CU_GRAPH_NODE_TYPE_* */
    int reserved[3];
    CUDA_KERNEL_NODE_PARAMS_v2 kernel;
};

static bool kernel_params(enum lithos_graph_change change, uintptr_t c, CUDA_KERNEL_NODE_PARAMS_v2 *ret)
{
    const void *params = (const void *)c; /* NOLINT(performance-no-int-to-ptr): the app's */
    memset(ret, 0, sizeof *ret);
    if (change == LITHOS_GRAPH_CHANGE_KERNEL_V1)
        memcpy(ret, params, sizeof(CUDA_KERNEL_NODE_PARAMS_v1));
    else if (change == LITHOS_GRAPH_CHANGE_KERNEL)
        memcpy(ret, params, sizeof *ret);
    else if (change == LITHOS_GRAPH_CHANGE_ANY &&
             ((const struct any_params *)params)->type == CU_GRAPH_NODE_TYPE_KERNEL)
        *ret = ((const struct any_params *)params)->kernel;
    else
        return false;
    return true;
}

/* All but what its arguments are: that is in the QMD. */
static bool same_kernel(const struct lithos_graph_kernel *k, const CUDA_KERNEL_NODE_PARAMS_v2 *p)
{
    const uint32_t *g = k->atom.grid, *b = k->atom.block;
    return k->launched == (p->func ? p->func : (CUfunction)(void *)p->kern) && g[0] == p->gridDimX &&
           g[1] == p->gridDimY && g[2] == p->gridDimZ && b[0] == p->blockDimX && b[1] == p->blockDimY &&
           b[2] == p->blockDimZ && k->shared_bytes == p->sharedMemBytes;
}

/* A call about the app's node, made for each of ours. */
static bool follow(const struct lithos_graph_exec *x, const struct lithos_graph_pair *pair,
                   lithos_graph_change_fn real, uintptr_t c, uintptr_t d)
{
    if (!pair->kernel)
        return real(x->cut, pair->ours, c, d) == CUDA_SUCCESS;
    const struct lithos_graph_kernel *k = &x->kernels[pair->kernel - 1];
    for (uint32_t i = 0; i < k->atom.nodes; i++)
        if (real(x->cut, k->nodes[i], c, d) != CUDA_SUCCESS)
            return false;
    return true;
}

static int by_app_node(const void *key, const void *element)
{
    uintptr_t node = (uintptr_t)key, there = (uintptr_t)((const struct lithos_graph_pair *)element)->app;
    return (node > there) - (node < there);
}

const struct lithos_graph_pair *lithos_graph_pair_of(const struct lithos_graph_exec *x, CUgraphNode app)
{
    return x->pair_count ? bsearch(app, x->pairs, x->pair_count, sizeof *x->pairs, by_app_node) : NULL;
}

/* Would the callback take a whole kernel with these parameters for one that is cut? */
static bool looks_cut(const struct lithos_graph_exec *x, const CUDA_KERNEL_NODE_PARAMS_v2 *p)
{
    struct lithos_graph_kernel k = {.on = true};
    if (!lithos_graph_kernel_is(&k, p))
        return true;
    for (uint32_t i = 0; i < x->kernel_count; i++) {
        const struct lithos_graph_kernel *cut = &x->kernels[i];
        if (cut->function == k.function && !memcmp(cut->atom.grid, k.atom.grid, sizeof k.atom.grid) &&
            !memcmp(cut->atom.block, k.atom.block, sizeof k.atom.block))
            return true;
    }
    return false;
}

static bool change_node(struct lithos_graph_exec *x, enum lithos_graph_change change,
                        lithos_graph_change_fn real, CUgraphNode node, uintptr_t c, uintptr_t d)
{
    CUDA_KERNEL_NODE_PARAMS_v2 p;
    const struct lithos_graph_pair *pair = lithos_graph_pair_of(x, node);
    if (!pair || change == LITHOS_GRAPH_CHANGE_CHILD)
        return false;
    bool kernel = kernel_params(change, c, &p);
    struct lithos_graph_kernel *k = pair->kernel ? &x->kernels[pair->kernel - 1] : NULL;
    if ((!k && kernel && looks_cut(x, &p)) || !follow(x, pair, real, c, d))
        return false;
    x->dirty = true;
    if (k && change == LITHOS_GRAPH_CHANGE_ENABLED) {
        k->on = (unsigned)c != 0;
        k->armed = false;
        return true;
    }
    return !k || (kernel && (same_kernel(k, &p) || lithos_graph_kernel_is(k, &p)));
}

void lithos_graphs_changed(enum lithos_graph_change change, lithos_graph_change_fn real, CUgraphExec exec,
                           CUgraphNode node, uintptr_t c, uintptr_t d)
{
    struct lithos_graph_exec *x = take(exec);
    if (!x)
        return;
    if (x->cut && !change_node(x, change, real, node, c, d)) {
        left_whole(LITHOS_GRAPH_WHOLE_CHANGED);
        give_up(x);
    }
    give(x);
}

/* What it is now stands in the graph that it was updated by, and only now. */
void lithos_graphs_updated(CUgraphExec exec, CUgraph by, bool success)
{
    struct lithos_graph_exec *x = take(exec);
    if (!x)
        return;
    bool again = success && (lithos_atoms_policy().mode != LITHOS_ATOM_OFF || lithos_graphs_want_stops());
    bool often = x->launches < LAUNCHES_TO_CUT_AGAIN, was_cut = x->cut != NULL;
    if (was_cut)
        give_up(x);
    if (again && !often) {
        int mode = lithos_atoms_relax_capture(CU_STREAM_CAPTURE_MODE_RELAXED);
        cut(x, by);
        if (mode >= 0)
            lithos_atoms_relax_capture(mode);
    } else if (was_cut) {
        left_whole(again ? LITHOS_GRAPH_WHOLE_UPDATED : LITHOS_GRAPH_WHOLE_CHANGED);
    }
    x->launches = 0;
    give(x);
}

/* ---- ends ---- */

void lithos_graphs_destroyed(CUgraphExec exec)
{
    struct lithos_graph_exec *x = take(exec);
    if (!x)
        return;
    pthread_mutex_lock(&table.lock);
    take_out(x);
    pthread_mutex_unlock(&table.lock);
    destroy_exec(x->cut);
    destroy_exec(x->old);
    LITHOS_REAL(event_fn, cuEventDestroy_v2)(x->event);
    x->cut = x->old = NULL;
    lithos_graph_uncut(x);
    give(x);
}

/* What belonged to it has ended with it, and is not touched. */
void lithos_graphs_context_ended(CUcontext ctx, CUdevice device)
{
    pthread_mutex_lock(&table.lock);
    for (uint32_t i = 0; i < BUCKETS; i++)
        for (struct lithos_graph_exec *x = table.buckets[i], *next; x; x = next) {
            next = x->next;
            bool ended = ctx ? lithos_atoms_context_handle(x->where) == ctx
                             : lithos_atoms_context_device(x->where) == device;
            if (!ended)
                continue;
            take_out(x);
            if (x->refs)
                continue; /* its last user sees to it */
            x->clone = NULL;
            lithos_graph_uncut(x);
            free(x);
        }
    pthread_mutex_unlock(&table.lock);
}

void lithos_graphs_forget(void)
{
    static const pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
    memcpy(&table.lock, &fresh, sizeof fresh);
    memset(table.buckets, 0, sizeof table.buckets);
    atomic_store(&lithos_graphs_kept, 0);
}
