/* lithos-graphatoms: what its parts share. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "driver/prelude.h"
#include "hw/atom.h"
#include "samples/sample.h"

#define BLOCKS 4096u
#define ATOMS_MAX 256u
#define LOG 1024u
#define STRAGGLER_NS 3000000u
#define MODE_RELAXED 2 /* CU_STREAM_CAPTURE_MODE_RELAXED */

/* CUDA_KERNEL_NODE_PARAMS_v2, CUgraphEdgeData, CUgraphKernelNodePort. */
struct node_params {
    CUfunction func;
    unsigned grid[3], block[3], shared_bytes;
    void **params, **extra;
    void *kern;
    CUcontext ctx;
};
struct edge_data {
    unsigned char from_port, to_port, type, reserved[5];
};
/* CUDA_MEMSET_NODE_PARAMS */
struct memset_params {
    CUdeviceptr dst;
    size_t pitch;
    unsigned value, element_bytes;
    size_t width, height;
};
enum { PORT_DEFAULT, PORT_PROGRAMMATIC, PORT_LAUNCH_ORDER };
enum { EDGE_DEFAULT, EDGE_PROGRAMMATIC };

#define GRAPH_CUDA(X)                                                                                    \
    X(cuGraphCreate, "cuGraphCreate", (CUgraph *, unsigned))                                             \
    X(cuGraphDestroy, "cuGraphDestroy", (CUgraph))                                                       \
    X(cuGraphAddKernelNode, "cuGraphAddKernelNode_v2",                                                   \
      (CUgraphNode *, CUgraph, const CUgraphNode *, size_t, const struct node_params *))                 \
    X(cuGraphAddDependencies_v2, "cuGraphAddDependencies_v2",                                            \
      (CUgraph, const CUgraphNode *, const CUgraphNode *, const struct edge_data *, size_t))             \
    X(cuGraphAddEmptyNode, "cuGraphAddEmptyNode", (CUgraphNode *, CUgraph, const CUgraphNode *, size_t)) \
    X(cuGraphAddMemcpyNode, "cuGraphAddMemcpyNode",                                                      \
      (CUgraphNode *, CUgraph, const CUgraphNode *, size_t, const CUDA_MEMCPY3D *, CUcontext))           \
    X(cuGraphAddMemsetNode, "cuGraphAddMemsetNode",                                                      \
      (CUgraphNode *, CUgraph, const CUgraphNode *, size_t, const struct memset_params *, CUcontext))    \
    X(cuGraphAddChildGraphNode, "cuGraphAddChildGraphNode",                                              \
      (CUgraphNode *, CUgraph, const CUgraphNode *, size_t, CUgraph))                                    \
    X(cuGraphChildGraphNodeGetGraph, "cuGraphChildGraphNodeGetGraph", (CUgraphNode, CUgraph *))          \
    X(cuGraphNodeFindInClone, "cuGraphNodeFindInClone", (CUgraphNode *, CUgraphNode, CUgraph))           \
    X(cuCtxGetCurrent, "cuCtxGetCurrent", (CUcontext *))                                                 \
    X(cuStreamWaitEvent, "cuStreamWaitEvent", (CUstream, CUevent, unsigned))                             \
    X(cuMemcpyDtoHAsync, "cuMemcpyDtoHAsync_v2", (void *, CUdeviceptr, size_t, CUstream))                \
    X(cuGraphInstantiateWithFlags, "cuGraphInstantiateWithFlags",                                        \
      (CUgraphExec *, CUgraph, unsigned long long))                                                      \
    X(cuGraphExecDestroy, "cuGraphExecDestroy", (CUgraphExec))                                           \
    X(cuGraphUpload, "cuGraphUpload", (CUgraphExec, CUstream))                                           \
    X(cuGraphLaunch, "cuGraphLaunch", (CUgraphExec, CUstream))                                           \
    X(cuGraphNodeSetEnabled, "cuGraphNodeSetEnabled", (CUgraphExec, CUgraphNode, unsigned))              \
    X(cuGraphExecKernelNodeSetParams, "cuGraphExecKernelNodeSetParams_v2",                               \
      (CUgraphExec, CUgraphNode, const struct node_params *))                                            \
    X(cuStreamBeginCapture, "cuStreamBeginCapture_v2", (CUstream, int))                                  \
    X(cuStreamEndCapture, "cuStreamEndCapture", (CUstream, CUgraph *))                                   \
    X(cuLaunchKernelEx, "cuLaunchKernelEx", (const CUlaunchConfig *, CUfunction, void **, void **))      \
    X(cuMemHostAlloc, "cuMemHostAlloc", (void **, size_t, unsigned))                                     \
    X(cuMemHostGetDevicePointer, "cuMemHostGetDevicePointer_v2", (CUdeviceptr *, void *, unsigned))      \
    X(cuGetExportTable, "cuGetExportTable", (const void **, const CUuuid *))                             \
    X(cuEventElapsedTime, "cuEventElapsedTime", (float *, CUevent, CUevent))

struct graph_cuda {
#define X(name, symbol, args) CUresult(*name) args;
    GRAPH_CUDA(X)
#undef X
};
extern struct graph_cuda g;

struct graph_bench {
    struct sample_context ctx;
    CUcontext context;
    CUmodule module, prelude;
    CUfunction mark, sum, null, fma;
    CUdeviceptr out, out2, ret, pool;
    struct lithos_prelude_entry *entries; /* pinned */
    CUevent begin, end;
    int cc[2];
};
extern struct graph_bench t;

#define WORDS 11u /* of what the callback is told: 0x58 bytes */

struct seen {
    uint64_t words[WORDS];
    uint32_t grid[3];
    uint64_t function, count, entry;
    bool prelude, latch, pre_exit, bank;
};

/* What the callback saw, and what it is to do. */
struct graph_hook {
    struct seen log[LOG];
    unsigned logged;
    bool locate; /* the prelude, by itself */
    /* what is done to the QMDs of `function`: they are its atoms, in the order they come */
    uint64_t function, target, code;
    struct lithos_cut cut;
    unsigned next;
    bool edit, pre_exit;
    bool one;      /* `next` stays: it is that atom's turn */
    bool empty;    /* the first is to run all, the others nothing */
    unsigned made; /* QMDs that were made atoms */
    int error;
};
extern struct graph_hook hook;

/* A driver that cannot is an answer: false, and said. */
bool ok(const char *trial, const char *call, CUresult r);
#define OK(trial, name, ...) ok(trial, #name, g.name(__VA_ARGS__))

/* Driver, kernels, memory, the prelude and where it lies. */
void open_all(const struct sample_options *o);
/* From now on the kernel's QMDs are those of its atoms, in the order they come; until end_atoms. */
void begin_atoms(CUfunction f, unsigned blocks, unsigned count, bool pre_exit);
void end_atoms(void);
/* graphatoms_shape.c */
void shape_trials(void);
