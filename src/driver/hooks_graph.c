/* Functions of the driver that are about graphs which can be launched: made, launched, changed, destroyed. */
#include "driver/atoms.h"
#include "driver/client.h"
#include "driver/graphs.h"
#include "driver/graphs_follow.h"
#include "driver/hooks.h"
#include "driver/order.h"
#include "driver/qmd_hook.h"

/* Called from exports.S alone, under the names that hooks.def gives. */
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#define HIDDEN __attribute__((visibility("hidden")))
#define PER_THREAD(stream) ((stream) ? (stream) : CU_STREAM_PER_THREAD)

/* ---- made and launched ---- */

/* An upload or launch of `exec` on a stream. Opening the ticket takes up a new grant, which the exec may then have to follow. */
#define GRAPH_RUN(name, type, call, stream_of, launches)                                        \
    type real = LITHOS_REAL(type, name);                                                        \
    if (!lithos_hook_active())                                                                  \
        return real call;                                                                       \
    CUresult result;                                                                            \
    if (lithos_order_on() && !lithos_order_issue &&                                             \
        (result = lithos_graph_follow_early(exec, stream_of)) != CUDA_SUCCESS)                  \
        return result;                                                                          \
    LITHOS_ORDER(name, (uintptr_t)exec, (uintptr_t)stream, 0, 0, 0, 0)                          \
    if (lithos_atoms_busy())                                                                    \
        lithos_atoms_wait(stream_of);                                                           \
    if (lithos_graphs_any() && lithos_graphs_run(exec, stream_of, launches, &result)) {         \
        LITHOS_HOOK_CALLED(name);                                                               \
        return result;                                                                          \
    }                                                                                           \
    struct lithos_ticket ticket;                                                                \
    lithos_ticket_open(&ticket, LITHOS_TICKET_GRAPH, NULL);                                     \
    ticket.exec = exec;                                                                         \
    if (__builtin_expect(ticket.observe, 0)) {                                                  \
        ticket.notes.graph = (uintptr_t)exec;                                                   \
        ticket.notes.stream = (uintptr_t)(stream_of);                                           \
        if (launches)                                                                           \
            lithos_hook_client.observer->graph_begins();                                        \
    }                                                                                           \
    result = lithos_graph_is_fresh(exec) ? CUDA_SUCCESS : lithos_graph_follow(exec, stream_of); \
    if (__builtin_expect(result == CUDA_SUCCESS, 1))                                            \
        result = real call;                                                                     \
    lithos_ticket_close(&ticket);                                                               \
    LITHOS_HOOK_CALLED(name);                                                                   \
    if ((launches) && result == CUDA_SUCCESS)                                                   \
        lithos_count(LITHOS_COUNT_GRAPH_LAUNCHES, 1);                                           \
    if (__builtin_expect((launches) && ticket.observe, 0))                                      \
        lithos_hook_client.observer->graph_launched(&ticket, result == CUDA_SUCCESS);           \
    else if (__builtin_expect(ticket.observe, 0))                                               \
        lithos_hook_client.observer->closed();                                                  \
    return result

/* With CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD (or _DEVICE_LAUNCH) instantiation uploads at once. */
#define GRAPH_MAKE(name, type, call, flags)                                                                  \
    type real = LITHOS_REAL(type, name);                                                                     \
    if (!lithos_hook_active())                                                                               \
        return real call;                                                                                    \
    struct lithos_ticket ticket;                                                                             \
    lithos_ticket_open(&ticket, LITHOS_TICKET_GRAPH, NULL);                                                  \
    uint32_t masks = atomic_load(&lithos_hook_masks);                                                        \
    CUresult result = real call;                                                                             \
    lithos_ticket_close(&ticket);                                                                            \
    LITHOS_HOOK_CALLED(name);                                                                                \
    if (__builtin_expect(ticket.observe && ticket.qmds, 0))                                                  \
        lithos_hook_client.observer->graph_made(&ticket, result == CUDA_SUCCESS ? (uintptr_t)*ret_exec : 0); \
    if (__builtin_expect(ticket.observe, 0))                                                                 \
        lithos_hook_client.observer->closed();                                                               \
    if (result == CUDA_SUCCESS)                                                                              \
        lithos_graph_follow_made(*ret_exec, graph, flags, masks, ticket.qmds != 0);                          \
    if (result == CUDA_SUCCESS && (lithos_graphs_any() || lithos_graphs_want_stops() ||                      \
                                   atomic_load_explicit(&lithos_atoms_state, memory_order_relaxed)))         \
        lithos_graphs_made(*ret_exec, graph, flags);                                                         \
    return result

typedef CUresult (*graph_launch_fn)(CUgraphExec, CUstream);

HIDDEN CUresult lithos_hook_cuGraphLaunch(CUgraphExec exec, CUstream stream)
{
    GRAPH_RUN(cuGraphLaunch, graph_launch_fn, (exec, stream), stream, true);
}

HIDDEN CUresult lithos_hook_cuGraphLaunch_ptsz(CUgraphExec exec, CUstream stream)
{
    GRAPH_RUN(cuGraphLaunch_ptsz, graph_launch_fn, (exec, stream), PER_THREAD(stream), true);
}

HIDDEN CUresult lithos_hook_cuGraphUpload(CUgraphExec exec, CUstream stream)
{
    GRAPH_RUN(cuGraphUpload, graph_launch_fn, (exec, stream), stream, false);
}

HIDDEN CUresult lithos_hook_cuGraphUpload_ptsz(CUgraphExec exec, CUstream stream)
{
    GRAPH_RUN(cuGraphUpload_ptsz, graph_launch_fn, (exec, stream), PER_THREAD(stream), false);
}

typedef CUresult (*graph_instantiate_fn)(CUgraphExec *, CUgraph, CUgraphNode *, char *, size_t);

HIDDEN CUresult lithos_hook_cuGraphInstantiate(CUgraphExec *ret_exec, CUgraph graph, CUgraphNode *ret_node,
                                               char *log, size_t log_bytes)
{
    GRAPH_MAKE(cuGraphInstantiate, graph_instantiate_fn, (ret_exec, graph, ret_node, log, log_bytes), 0);
}

HIDDEN CUresult lithos_hook_cuGraphInstantiate_v2(CUgraphExec *ret_exec, CUgraph graph, CUgraphNode *ret_node,
                                                  char *log, size_t log_bytes)
{
    GRAPH_MAKE(cuGraphInstantiate_v2, graph_instantiate_fn, (ret_exec, graph, ret_node, log, log_bytes), 0);
}

typedef CUresult (*graph_instantiate_flags_fn)(CUgraphExec *, CUgraph, unsigned long long);

HIDDEN CUresult lithos_hook_cuGraphInstantiateWithFlags(CUgraphExec *ret_exec, CUgraph graph,
                                                        unsigned long long flags)
{
    GRAPH_MAKE(cuGraphInstantiateWithFlags, graph_instantiate_flags_fn, (ret_exec, graph, flags), flags);
}

typedef CUresult (*graph_instantiate_params_fn)(CUgraphExec *, CUgraph, CUDA_GRAPH_INSTANTIATE_PARAMS *);

HIDDEN CUresult lithos_hook_cuGraphInstantiateWithParams(CUgraphExec *ret_exec, CUgraph graph,
                                                         CUDA_GRAPH_INSTANTIATE_PARAMS *params)
{
    LITHOS_ORDER(cuGraphInstantiateWithParams, (uintptr_t)ret_exec, (uintptr_t)graph, (uintptr_t)params, 0, 0,
                 0)
    GRAPH_MAKE(cuGraphInstantiateWithParams, graph_instantiate_params_fn, (ret_exec, graph, params),
               params->flags);
}

HIDDEN CUresult lithos_hook_cuGraphInstantiateWithParams_ptsz(CUgraphExec *ret_exec, CUgraph graph,
                                                              CUDA_GRAPH_INSTANTIATE_PARAMS *params)
{
    LITHOS_ORDER(cuGraphInstantiateWithParams_ptsz, (uintptr_t)ret_exec, (uintptr_t)graph, (uintptr_t)params,
                 0, 0, 0)
    GRAPH_MAKE(cuGraphInstantiateWithParams_ptsz, graph_instantiate_params_fn, (ret_exec, graph, params),
               params->flags);
}

/* ---- changed ---- */

/* Each takes four words or fewer. It is the app's exec that is changed, and that decides what comes of it. */
#define GRAPH_CHANGE(name, what)                                                                     \
    HIDDEN CUresult lithos_hook_##name(CUgraphExec exec, CUgraphNode node, uintptr_t c, uintptr_t d) \
    {                                                                                                \
        lithos_graph_change_fn real = LITHOS_REAL(lithos_graph_change_fn, name);                     \
        if (!lithos_hook_active())                                                                   \
            return real(exec, node, c, d);                                                           \
        LITHOS_ORDER(name, (uintptr_t)exec, (uintptr_t)node, c, d, 0, 0)                             \
        CUresult result = real(exec, node, c, d);                                                    \
        LITHOS_HOOK_CALLED(name);                                                                    \
        lithos_graph_follow_changed(exec);                                                           \
        if (result == CUDA_SUCCESS && lithos_graphs_any())                                           \
            lithos_graphs_changed(LITHOS_GRAPH_CHANGE_##what, real, exec, node, c, d);               \
        return result;                                                                               \
    }

GRAPH_CHANGE(cuGraphExecKernelNodeSetParams, KERNEL_V1)
GRAPH_CHANGE(cuGraphExecKernelNodeSetParams_v2, KERNEL)
GRAPH_CHANGE(cuGraphExecNodeSetParams, ANY)
GRAPH_CHANGE(cuGraphExecMemcpyNodeSetParams, NODE)
GRAPH_CHANGE(cuGraphExecMemsetNodeSetParams, NODE)
GRAPH_CHANGE(cuGraphExecHostNodeSetParams, NODE)
GRAPH_CHANGE(cuGraphExecEventRecordNodeSetEvent, NODE)
GRAPH_CHANGE(cuGraphExecEventWaitNodeSetEvent, NODE)
GRAPH_CHANGE(cuGraphExecChildGraphNodeSetParams, CHILD)
GRAPH_CHANGE(cuGraphNodeSetEnabled, ENABLED)

typedef CUresult (*graph_update_fn)(CUgraphExec, CUgraph, uintptr_t, uintptr_t);

#define GRAPH_UPDATE(name)                                                                        \
    HIDDEN CUresult lithos_hook_##name(CUgraphExec exec, CUgraph graph, uintptr_t c, uintptr_t d) \
    {                                                                                             \
        graph_update_fn real = LITHOS_REAL(graph_update_fn, name);                                \
        if (!lithos_hook_active())                                                                \
            return real(exec, graph, c, d);                                                       \
        LITHOS_ORDER(name, (uintptr_t)exec, (uintptr_t)graph, c, d, 0, 0)                         \
        CUresult result = real(exec, graph, c, d);                                                \
        LITHOS_HOOK_CALLED(name);                                                                 \
        lithos_graph_follow_changed(exec);                                                        \
        if (lithos_graphs_any())                                                                  \
            lithos_graphs_updated(exec, graph, result == CUDA_SUCCESS);                           \
        return result;                                                                            \
    }

GRAPH_UPDATE(cuGraphExecUpdate)
GRAPH_UPDATE(cuGraphExecUpdate_v2)

/* ---- destroyed ---- */

typedef CUresult (*graph_exec_fn)(CUgraphExec);

typedef CUresult (*graph_fn)(CUgraph);
typedef CUresult (*graph_node_fn)(CUgraphNode);

HIDDEN CUresult lithos_hook_cuGraphExecDestroy(CUgraphExec exec)
{
    graph_exec_fn real = LITHOS_REAL(graph_exec_fn, cuGraphExecDestroy);
    LITHOS_ORDER(cuGraphExecDestroy, (uintptr_t)exec, 0, 0, 0, 0, 0)
    if (!lithos_hook_active())
        return real(exec);
    CUgraph left = lithos_graph_follow_ends(exec);
    CUresult result = real(exec);
    LITHOS_HOOK_CALLED(cuGraphExecDestroy);
    if (left)
        LITHOS_REAL(graph_fn, cuGraphDestroy)(left);
    if (result != CUDA_SUCCESS)
        return result;
    lithos_hook_client.observer->graph_ended((uintptr_t)exec);
    if (lithos_graphs_any())
        lithos_graphs_destroyed(exec);
    return result;
}

/* One that an exec goes by is destroyed with it. */
HIDDEN CUresult lithos_hook_cuGraphDestroy(CUgraph graph)
{
    graph_fn real = LITHOS_REAL(graph_fn, cuGraphDestroy);
    if (!lithos_hook_active())
        return real(graph);
    LITHOS_HOOK_CALLED(cuGraphDestroy);
    switch (lithos_graph_destroyed(graph)) {
    case LITHOS_GRAPH_STAYS:
        return CUDA_SUCCESS;
    case LITHOS_GRAPH_GONE:
        return CUDA_ERROR_INVALID_VALUE;
    default:
        return real(graph);
    }
}

HIDDEN CUresult lithos_hook_cuGraphDestroyNode(CUgraphNode node)
{
    graph_node_fn real = LITHOS_REAL(graph_node_fn, cuGraphDestroyNode);
    if (!lithos_hook_active())
        return real(node);
    LITHOS_HOOK_CALLED(cuGraphDestroyNode);
    lithos_graph_node_destroyed(node);
    return real(node);
}
