/* Stops in a graph's clone: nodes that wait for a word in the host's memory, so that a replay under way is held within so many kernels, whatever runs
 * after it. A stop costs some 3.5 us (docs/hardware.md, "Graphs held half-way"). */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "driver/exports.h"
#include "driver/graphs_internal.h"
#include "driver/qmd_hook.h"

typedef CUresult (*add_memop_fn)(CUgraphNode *, CUgraph, const CUgraphNode *, size_t,
                                 const CUDA_BATCH_MEM_OP_NODE_PARAMS *);
typedef CUresult (*dependencies_fn)(CUgraph, const CUgraphNode *, const CUgraphNode *,
                                    const CUgraphEdgeData *, size_t);
typedef CUresult (*ctx_current_fn)(CUcontext *);

struct stops {
    struct lithos_graph_exec *x;
    CUcontext ctx;
};

static bool add_stop(struct stops *s, CUgraphNode *ret_stop)
{
    CUstreamBatchMemOpParams op;
    memset(&op, 0, sizeof op);
    op.waitValue.operation = CU_STREAM_MEM_OP_WAIT_VALUE_32;
    op.waitValue.address = s->x->stop_address;
    op.waitValue.value = 1;
    op.waitValue.flags = CU_STREAM_WAIT_VALUE_GEQ;
    const CUDA_BATCH_MEM_OP_NODE_PARAMS p = {.ctx = s->ctx, .count = 1, .paramArray = &op};
    const add_memop_fn add = LITHOS_REAL(add_memop_fn, cuGraphAddBatchMemOpNode); /* since CUDA 11.7 */
    if (!add || add(ret_stop, s->x->clone, NULL, 0, &p) != CUDA_SUCCESS)
        return false;
    s->x->stops++;
    return true;
}

static bool waits_for(const struct stops *s, CUgraphNode node, CUgraphNode stop)
{
    static const CUgraphEdgeData full;
    return LITHOS_REAL(dependencies_fn, cuGraphAddDependencies_v2)(s->x->clone, &stop, &node, &full, 1) ==
           CUDA_SUCCESS;
}

/* What stands for the app's node in the clone: of a chain the first or the last. */
static CUgraphNode ours(const struct lithos_graph_exec *x, CUgraphNode app, bool last)
{
    const struct lithos_graph_pair *p = lithos_graph_pair_of(x, app);
    if (!p || !p->kernel || !last)
        return p ? p->ours : NULL;
    const struct lithos_graph_kernel *k = &x->kernels[p->kernel - 1];
    return k->nodes[k->atom.nodes - 1];
}

/* The longest way to each node, in kernels, itself included; and is anything behind it? */
static bool measure_depths(const struct lithos_graph_exec *x, const struct lithos_graph_level *l,
                           uint32_t *depths, bool *goes_on)
{
    uint32_t *first = calloc(l->count + 1, sizeof *first), *next = calloc(l->edges + 1, sizeof *next);
    const bool ok = first && next;
    for (size_t e = 0; ok && e < l->edges; e++) {
        const uint32_t from = lithos_graph_index_of(l, l->from[e]);
        next[e] = first[from];
        first[from] = (uint32_t)e + 1;
        goes_on[from] = true;
    }
    for (size_t i = 0; ok && i < l->count; i++) {
        const uint32_t at = l->order[i];
        const struct lithos_graph_pair *p = lithos_graph_pair_of(x, l->nodes[at]);
        depths[at] += p && (p->type == CU_GRAPH_NODE_TYPE_KERNEL || p->type == CU_GRAPH_NODE_TYPE_GRAPH);
        for (uint32_t e = first[at]; e; e = next[e - 1]) {
            uint32_t *behind = &depths[lithos_graph_index_of(l, l->to[e - 1])];
            *behind = LITHOS_MAX(*behind, depths[at]);
        }
    }
    free(first);
    free(next);
    return ok;
}

/* Nodes that wait for nothing wait for one at the beginning. */
static bool stop_at_first(struct stops *s, const struct lithos_graph_level *l)
{
    bool *waits = calloc(l->count + 1, sizeof *waits), ok = waits != NULL;
    CUgraphNode stop;
    for (size_t e = 0; ok && e < l->edges; e++)
        waits[lithos_graph_index_of(l, l->to[e])] = true;
    ok = ok && add_stop(s, &stop);
    for (size_t i = 0; ok && i < l->count; i++) {
        const CUgraphNode node = waits[i] ? NULL : ours(s->x, l->nodes[i], false);
        ok = waits[i] || (node && waits_for(s, node, stop));
    }
    free(waits);
    return ok;
}

/* Every way from the beginning has a kernel of each depth, and so whatever is deeper than a stop waits for one. */
static bool stop_behind(struct stops *s, CUgraphNode app)
{
    const CUgraphNode node = ours(s->x, app, true);
    CUgraphNode stop;
    return node && add_stop(s, &stop) && lithos_graph_move_dependents(s->x->clone, node, stop) &&
           waits_for(s, stop, node);
}

bool lithos_graph_stops(struct lithos_graph_exec *x, const struct lithos_graph_level *l)
{
    const uint32_t apart = atomic_load_explicit(lithos_hook_client.stops, memory_order_relaxed);
    struct stops s = {.x = x};
    uint32_t *depths = calloc(l->count + 1, sizeof *depths);
    bool *goes_on = calloc(l->count + 1, sizeof *goes_on);
    bool ok = depths && goes_on && apart && l->count &&
              LITHOS_REAL(ctx_current_fn, cuCtxGetCurrent)(&s.ctx) == CUDA_SUCCESS && s.ctx &&
              (x->stop_address = lithos_hook_client.stop_address(s.ctx)) &&
              measure_depths(x, l, depths, goes_on) && stop_at_first(&s, l);
    for (size_t i = 0; ok && i < l->count; i++) {
        const uint32_t at = l->order[i];
        /* A node of which a kernel waits in part cannot be waited for by a stop in its place. */
        if (depths[at] && depths[at] % apart == 0 && goes_on[at] && !l->programmatic[at])
            ok = stop_behind(&s, l->nodes[at]);
    }
    free(depths);
    free(goes_on);
    return ok;
}

bool lithos_graph_stops_hold(const struct lithos_graph_exec *x)
{
    CUcontext ctx = NULL;
    return LITHOS_REAL(ctx_current_fn, cuCtxGetCurrent)(&ctx) == CUDA_SUCCESS && ctx &&
           lithos_hook_client.stop_address(ctx) == x->stop_address;
}
