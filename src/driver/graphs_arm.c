/* Each node of a chain is made its atom by itself: switched off and on, uploaded, and the one QMD that the driver shows then is edited.
 * All at once they come in an order of the driver's own, and look alike (docs/hardware.md, "Atoms in graphs"). */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "driver/atoms_context.h"
#include "driver/exports.h"
#include "driver/graphs_follow.h"
#include "driver/graphs_internal.h"
#include "driver/qmd_hook.h"
#include "hw/qmd_atom.h"

struct lithos_graph_watch {
    const struct lithos_graph_exec *exec;
    struct lithos_graph_kernel *arming; /* whose node atom.index is to be shown; NULL: none */
    uint32_t shown;                     /* QMDs that may have been that node's */
    uint32_t strays;                    /* of other kernels, or of any while none is to be shown */
};

typedef CUresult (*run_fn)(CUgraphExec, CUstream);
typedef CUresult (*enable_fn)(CUgraphExec, CUgraphNode, unsigned);

/* ---- in the callback ---- */

static bool is_of(const struct lithos_graph_kernel *k, const struct lithos_qmd_seen *seen,
                  const struct lithos_qmd_view *v)
{
    if (k->function != seen->function)
        return false;
    for (int i = 0; i < 3; i++)
        if ((uint64_t)v->grid[i] * v->cluster[i] != k->atom.grid[i] || v->block[i] != k->atom.block[i])
            return false;
    return true;
}

bool lithos_graphs_qmd(struct lithos_graph_watch *w, const struct lithos_hook_device *device,
                       struct lithos_qmd_seen *seen)
{
    struct lithos_graph_kernel *k = w->arming;
    struct lithos_qmd_view v;
    if (!seen->layout)
        return true;
    if (lithos_atoms_context_is_prelude(w->exec->where, lithos_qmd_entry(seen->layout, seen->qmd)))
        return false; /* an atom, shown again as it is */
    lithos_qmd_decode(seen->layout, seen->qmd, &v);
    if (k && seen->ctx == lithos_atoms_context_handle(k->atom.where) && is_of(k, seen, &v)) {
        if (w->shown++)
            return false;
        seen->grid = k->atom.grid;
        return lithos_atoms_node_qmd(&k->atom, device, seen);
    }
    for (uint32_t i = 0; i < w->exec->kernel_count; i++)
        if (is_of(&w->exec->kernels[i], seen, &v)) {
            w->strays++;
            return false;
        }
    return true;
}

/* ---- calls ---- */

static CUresult call(CUgraphExec exec, CUstream stream, bool launch, struct lithos_graph_watch *watch)
{
    run_fn real = launch ? LITHOS_REAL(run_fn, cuGraphLaunch) : LITHOS_REAL(run_fn, cuGraphUpload);
    struct lithos_ticket ticket;
    lithos_ticket_open(&ticket, LITHOS_TICKET_GRAPH, NULL);
    ticket.graph = watch;
    ticket.exec = exec;
    if (watch && watch->exec->stops)
        ticket.gate = lithos_hook_graphs(ticket.device);
    if (ticket.observe) {
        ticket.notes.graph = (uintptr_t)exec;
        ticket.notes.stream = (uintptr_t)stream;
        if (launch)
            lithos_hook_client.observer->graph_begins();
    }
    CUresult result = real(exec, stream);
    lithos_ticket_close(&ticket);
    if (launch && result == CUDA_SUCCESS) {
        lithos_count(LITHOS_COUNT_GRAPH_LAUNCHES, 1);
        if (watch)
            lithos_count(LITHOS_COUNT_GRAPH_CUT_LAUNCHES, 1);
    }
    if (ticket.observe && launch)
        lithos_hook_client.observer->graph_launched(&ticket, result == CUDA_SUCCESS);
    else if (ticket.observe)
        lithos_hook_client.observer->closed();
    return result;
}

CUresult lithos_graph_call(struct lithos_graph_exec *x, CUgraphExec exec, CUstream stream, bool launch,
                           uint32_t *ret_strays)
{
    struct lithos_graph_watch watch = {.exec = x};
    CUresult result = call(exec, stream, launch, exec == x->app ? NULL : &watch);
    *ret_strays = watch.strays;
    return result;
}

/* ---- arming ---- */

static bool switch_node(CUgraphExec exec, CUgraphNode node)
{
    enable_fn enable = LITHOS_REAL(enable_fn, cuGraphNodeSetEnabled);
    return enable(exec, node, 0) == CUDA_SUCCESS && enable(exec, node, 1) == CUDA_SUCCESS;
}

static bool arm_node(struct lithos_graph_exec *x, struct lithos_graph_kernel *k, CUstream stream,
                     enum lithos_graph_whole *ret_why)
{
    struct lithos_graph_watch watch = {.exec = x, .arming = k};
    *ret_why = LITHOS_GRAPH_WHOLE_DRIVER;
    if (!switch_node(x->cut, k->nodes[k->atom.index]) || call(x->cut, stream, false, &watch) != CUDA_SUCCESS)
        return false;
    *ret_why = LITHOS_GRAPH_WHOLE_SHOWN;
    return watch.shown == 1 && !watch.strays && !k->atom.error;
}

/* Node 0 decides. The entries of the others are then copied to the GPU's memory, since what is in a graph's QMD stays. */
static bool arm_kernel(struct lithos_graph_exec *x, struct lithos_graph_kernel *k, CUstream stream,
                       enum lithos_graph_whole *ret_why)
{
    k->atom.error = 0;
    for (k->atom.index = 0; k->atom.index < k->atom.nodes; k->atom.index++) {
        if (!arm_node(x, k, stream, ret_why))
            return false;
        if (k->atom.index == 0 && k->atom.cut.count)
            lithos_atoms_context_settle(x->where);
    }
    k->armed = k->atom.decided = true;
    /* The node that told the kernel's end would still do so. */
    *ret_why = LITHOS_GRAPH_WHOLE_CHANGED;
    return !k->counted || k->cuts == k->atom.cut.count;
}

static void count(struct lithos_graph_kernel *k)
{
    if (!k->counted && k->atom.cut.count) {
        lithos_count(LITHOS_COUNT_GRAPH_CUT, 1);
        lithos_count(LITHOS_COUNT_GRAPH_ATOMS, k->atom.cut.count);
    }
    k->counted = true;
    k->cuts = k->atom.cut.count;
}

/* Nodes that the next upload may show as they are: those of kernels that are not armed. */
static uint32_t due(const struct lithos_graph_exec *x)
{
    uint32_t nodes = 0;
    for (uint32_t i = 0; i < x->kernel_count; i++)
        nodes += x->kernels[i].armed || !x->kernels[i].on ? 0 : x->kernels[i].atom.nodes;
    return nodes;
}

bool lithos_graph_arm(struct lithos_graph_exec *x, CUstream stream, enum lithos_graph_whole *ret_why)
{
    struct lithos_graph_watch watch = {.exec = x};
    if (!x->dirty)
        return true;
    *ret_why = LITHOS_GRAPH_WHOLE_DRIVER;
    if (call(x->cut, stream, false, &watch) != CUDA_SUCCESS)
        return false;
    *ret_why = LITHOS_GRAPH_WHOLE_SHOWN;
    if (watch.strays > due(x))
        return false;
    for (uint32_t i = 0; i < x->kernel_count; i++) {
        struct lithos_graph_kernel *k = &x->kernels[i];
        if (!k->on || k->armed)
            continue;
        if (!arm_kernel(x, k, stream, ret_why))
            return false;
        count(k);
    }
    x->dirty = false;
    return true;
}

static bool has_qmd(const struct lithos_graph_pair *p)
{
    return !p->kernel && (p->type == CU_GRAPH_NODE_TYPE_KERNEL || p->type == CU_GRAPH_NODE_TYPE_MEMSET);
}

/* Of the nodes that are no atoms. */
static int show_whole(struct lithos_graph_exec *x)
{
    enum lithos_graph_keeps why = LITHOS_GRAPH_KEEPS_MAX, found;
    int nodes = 0;
    for (uint32_t i = 0; i < x->pair_count; i++) {
        struct lithos_graph_pair *p = &x->pairs[i];
        enum lithos_graph_shown shown = LITHOS_GRAPH_OFF;
        if (!has_qmd(p))
            continue;
        if (p->type == CU_GRAPH_NODE_TYPE_KERNEL && !lithos_graph_has_place(p->ours, &found))
            why = found;
        else if (lithos_graph_show_again(x->cut, p->ours, &p->off, &shown) != CUDA_SUCCESS)
            return -EIO;
        if (shown == LITHOS_GRAPH_REFUSED)
            why = LITHOS_GRAPH_KEEPS_DRIVER;
        nodes += shown == LITHOS_GRAPH_SHOWN;
    }
    if (why != LITHOS_GRAPH_KEEPS_MAX)
        lithos_graph_keeps(why);
    return nodes;
}

/* What a kernel is cut into stays: the node that tells its end is to be the same. */
int lithos_graph_rearm(struct lithos_graph_exec *x)
{
    int nodes = show_whole(x);
    for (uint32_t i = 0; nodes >= 0 && i < x->kernel_count; i++) {
        struct lithos_graph_kernel *k = &x->kernels[i];
        k->armed = false;
        nodes += k->on ? (int)k->atom.nodes : 0;
    }
    x->dirty = true;
    return nodes;
}
