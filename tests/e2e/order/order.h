/* Random programs of the driver's stream-ordered calls, and what they must leave in memory.
 *
 * A program is a list of calls, each of one thread on one stream. It touches some cells of memory, each of which belongs at any time to one
 * stream or to the host: before another takes a cell over, the program orders the two by an event, a wait, a query, or by the rules of the
 * default stream. So every order that keeps what CUDA promises gives the same result, that of the list from its beginning to its end,
 * which is worked out while the list is made. What is done to a cell does not commute: two calls in the wrong order show. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "samples/sample.h"

#define WORDS 8u /* of a cell */
#define BYTES (WORDS * sizeof(uint32_t))
#define DEVICE_CELLS 10u
#define PINNED_CELLS 4u
#define CELLS (DEVICE_CELLS + PINNED_CELLS)
#define GRAPH_CELLS 2u /* the first: graphs name their addresses, so they stay where they are */
#define THREADS 4u
#define CREATED 7u /* streams 1 to 7: 1 to 4 wait for the default stream, the others do not */
#define BLOCKING 4u
#define STREAMS (1u + CREATED + THREADS) /* 0: the default one; the last: each thread's own */
#define EVENTS 6u
#define GRAPHS GRAPH_CELLS
#define OPS_MAX 512u
#define DEPS_MAX 6u
#define HOST (-1)

enum kind {
    OP_AXPB,   /* a = a * p + q, a kernel */
    OP_MIX,    /* a = a * p + b */
    OP_MODULE, /* two of a module that is loaded and unloaded for them */
    OP_ATTRIBUTE, /* two of a function of the thread's own, with an attribute that they need, which is then taken back */
    OP_COPY, /* a = b */
    OP_COPY_2D,
    OP_FROM_PAGEABLE, /* a = p, p + q, ... from memory that is used for something else at once */
    OP_TO_PAGEABLE,   /* what has been copied must be there when the call returns */
    OP_SET_32,        /* a = p in each word */
    OP_SET_16,
    OP_SET_8,
    OP_SET_2D,        /* two words of each half of a = p */
    OP_WRITE,         /* one word of a */
    OP_HOST_FUNCTION, /* a = a * p + q, in pinned memory */
    OP_CALLBACK,
    OP_TEMPORARY,  /* memory of the stream's own: a goes there, is changed there, and comes back */
    OP_GRAPH_MAKE, /* a graph of two kernels on a, captured */
    OP_GRAPH_CHANGE,
    OP_GRAPH_LAUNCH,
    OP_SYNC_COPY_IN, /* on the default stream, and waited for */
    OP_SYNC_COPY_OUT,
    OP_SYNC_SET,
    OP_REALLOCATE, /* a is freed and allocated anew while work may be queued on it */
    OP_RECORD,
    OP_WAIT,
    OP_WAIT_VALUE, /* for the word that OP_SIGNAL writes */
    OP_SIGNAL,
    OP_RENEW_EVENT, /* destroyed, perhaps with all of its use still queued; another takes its place */
    OP_RENEW_STREAM,
    OP_SYNC_EVENT,
    OP_SYNC_STREAM,
    OP_SYNC_CONTEXT,
    OP_POLL_EVENT,
    OP_POLL_STREAM,
    OP_HOST_WRITE, /* a = a * p + q, by the thread itself */
    OP_HOST_READ,
    OP_ASK, /* questions whose answers may be anything, but not an error */
    OP_FORK,
    OP_MAX,
};

struct op {
    uint8_t kind, thread, how, stream, a, b, event;
    uint8_t deps_n;
    uint16_t deps[DEPS_MAX]; /* calls that must have returned before */
    uint32_t p, q;
    uint32_t expect[WORDS]; /* of a, where that is looked at */
};

struct program {
    uint64_t seed;
    bool second_context; /* in one of its own, not the primary one */
    unsigned n;
    struct op ops[OPS_MAX];
    uint32_t before[CELLS][WORDS], after[CELLS][WORDS];
};

/* order_program.c: about so many calls, beside those that order them. forks: some of the calls are forks. */
void order_make_program(uint64_t seed, unsigned calls, bool forks, struct program *ret_program);
const char *order_op_name(enum kind kind);

/* order_calls.c */
#define ORDER_CUDA(X)                                                                                        \
    X(cuLaunchKernelEx, "cuLaunchKernelEx", (const CUlaunchConfig *, CUfunction, void **, void **))          \
    X(cuLaunchKernel_ptsz, "cuLaunchKernel_ptsz",                                                            \
      (CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream, void **,  \
       void **))                                                                                             \
    X(cuLaunchCooperativeKernel, "cuLaunchCooperativeKernel",                                                \
      (CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream, void **)) \
    X(cuFuncSetAttribute, "cuFuncSetAttribute", (CUfunction, int, int))                                      \
    X(cuModuleUnload, "cuModuleUnload", (CUmodule))                                                          \
    X(cuMemcpyAsync, "cuMemcpyAsync", (CUdeviceptr, CUdeviceptr, size_t, CUstream))                          \
    X(cuMemcpyHtoDAsync, "cuMemcpyHtoDAsync_v2", (CUdeviceptr, const void *, size_t, CUstream))              \
    X(cuMemcpyDtoHAsync, "cuMemcpyDtoHAsync_v2", (void *, CUdeviceptr, size_t, CUstream))                    \
    X(cuMemcpyDtoDAsync, "cuMemcpyDtoDAsync_v2", (CUdeviceptr, CUdeviceptr, size_t, CUstream))               \
    X(cuMemcpy2DAsync, "cuMemcpy2DAsync_v2", (const CUDA_MEMCPY2D *, CUstream))                              \
    X(cuMemsetD32Async, "cuMemsetD32Async", (CUdeviceptr, unsigned, size_t, CUstream))                       \
    X(cuMemsetD16Async, "cuMemsetD16Async", (CUdeviceptr, unsigned short, size_t, CUstream))                 \
    X(cuMemsetD8Async, "cuMemsetD8Async", (CUdeviceptr, unsigned char, size_t, CUstream))                    \
    X(cuMemsetD2D32Async, "cuMemsetD2D32Async", (CUdeviceptr, size_t, unsigned, size_t, size_t, CUstream))   \
    X(cuStreamWriteValue32, "cuStreamWriteValue32_v2", (CUstream, CUdeviceptr, uint32_t, unsigned))          \
    X(cuStreamWaitValue32, "cuStreamWaitValue32_v2", (CUstream, CUdeviceptr, uint32_t, unsigned))            \
    X(cuLaunchHostFunc, "cuLaunchHostFunc", (CUstream, void (*)(void *), void *))                            \
    X(cuStreamAddCallback, "cuStreamAddCallback",                                                            \
      (CUstream, void (*)(CUstream, CUresult, void *), void *, unsigned))                                    \
    X(cuMemAllocAsync, "cuMemAllocAsync", (CUdeviceptr *, size_t, CUstream))                                 \
    X(cuMemFreeAsync, "cuMemFreeAsync", (CUdeviceptr, CUstream))                                             \
    X(cuMemHostAlloc, "cuMemHostAlloc", (void **, size_t, unsigned))                                         \
    X(cuMemFreeHost, "cuMemFreeHost", (void *))                                                              \
    X(cuMemGetInfo, "cuMemGetInfo_v2", (size_t *, size_t *))                                                 \
    X(cuStreamBeginCapture, "cuStreamBeginCapture_v2", (CUstream, int))                                      \
    X(cuStreamEndCapture, "cuStreamEndCapture", (CUstream, CUgraph *))                                       \
    X(cuGraphInstantiateWithFlags, "cuGraphInstantiateWithFlags",                                            \
      (CUgraphExec *, CUgraph, unsigned long long))                                                          \
    X(cuGraphGetNodes, "cuGraphGetNodes", (CUgraph, CUgraphNode *, size_t *))                                \
    X(cuGraphExecKernelNodeSetParams, "cuGraphExecKernelNodeSetParams_v2",                                   \
      (CUgraphExec, CUgraphNode, const CUDA_KERNEL_NODE_PARAMS_v2 *))                                        \
    X(cuGraphLaunch, "cuGraphLaunch", (CUgraphExec, CUstream))                                               \
    X(cuGraphExecDestroy, "cuGraphExecDestroy", (CUgraphExec))                                               \
    X(cuGraphDestroy, "cuGraphDestroy", (CUgraph))                                                           \
    X(cuStreamDestroy, "cuStreamDestroy_v2", (CUstream))                                                     \
    X(cuStreamQuery, "cuStreamQuery", (CUstream))                                                            \
    X(cuStreamWaitEvent, "cuStreamWaitEvent", (CUstream, CUevent, unsigned))                                 \
    X(cuEventQuery, "cuEventQuery", (CUevent))                                                               \
    X(cuEventDestroy, "cuEventDestroy_v2", (CUevent))                                                        \
    X(cuCtxCreate_v2, "cuCtxCreate_v2", (CUcontext *, unsigned, CUdevice))                                   \
    X(cuCtxDestroy, "cuCtxDestroy_v2", (CUcontext))                                                          \
    X(cuCtxGetCurrent, "cuCtxGetCurrent", (CUcontext *))

/* The driver's functions, and the primary context with all that programs use. Once. */
void order_open(void);
/* Its memory as it is before the program; current for the caller from then on. */
void order_enter(const struct program *p);
/* On a thread of its own, with the program's context current. Ends the process when a call fails or finds what it should not. */
void order_thread_begins(const struct program *p);
void order_call(const struct op *op);
/* True: all is as it must be. Says on standard error what is not. */
bool order_matches(const struct program *p);
/* What is looked at within a program: ends the process when it differs. */
_Noreturn void order_fail(const char *text);
