/* Makes a program's calls. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "order.h"

#define RELAXED 2 /* CU_STREAM_CAPTURE_MODE_RELAXED */
#define GEQ 0     /* CU_STREAM_WAIT_VALUE_GEQ */
#define ROW (BYTES / 2)
#define SHARED (64u * 1024) /* more than a launch may have without asking */

static const char ptx[] =
    ".version 7.0\n.target sm_52\n.address_size 64\n"
    ".visible .entry order_axpb(.param .u64 p_a, .param .u32 p_p, .param .u32 p_q)\n{\n"
    "    .reg .b32 %r<6>;\n    .reg .b64 %rd<4>;\n"
    "    ld.param.u64 %rd1, [p_a];\n    ld.param.u32 %r1, [p_p];\n    ld.param.u32 %r2, [p_q];\n"
    "    mov.u32 %r3, %tid.x;\n    cvta.to.global.u64 %rd2, %rd1;\n    mul.wide.u32 %rd3, %r3, 4;\n"
    "    add.u64 %rd2, %rd2, %rd3;\n    ld.global.u32 %r4, [%rd2];\n    mad.lo.u32 %r4, %r4, %r1, %r2;\n"
    "    add.u32 %r4, %r4, %r3;\n    st.global.u32 [%rd2], %r4;\n    ret;\n}\n"
    ".visible .entry order_mix(.param .u64 p_a, .param .u64 p_b, .param .u32 p_p)\n{\n"
    "    .reg .b32 %r<6>;\n    .reg .b64 %rd<6>;\n"
    "    ld.param.u64 %rd1, [p_a];\n    ld.param.u64 %rd4, [p_b];\n    ld.param.u32 %r1, [p_p];\n"
    "    mov.u32 %r3, %tid.x;\n    mul.wide.u32 %rd3, %r3, 4;\n"
    "    cvta.to.global.u64 %rd2, %rd1;\n    cvta.to.global.u64 %rd5, %rd4;\n"
    "    add.u64 %rd2, %rd2, %rd3;\n    add.u64 %rd5, %rd5, %rd3;\n"
    "    ld.global.u32 %r4, [%rd2];\n    ld.global.u32 %r2, [%rd5];\n"
    "    mad.lo.u32 %r4, %r4, %r1, %r2;\n    st.global.u32 [%rd2], %r4;\n    ret;\n}\n";

static struct {
#define X(name, symbol, args) CUresult(*name) args;
    ORDER_CUDA(X)
#undef X
} more;

#define MORE(name, ...) sample_check_result(#name, more.name(__VA_ARGS__))

struct graph {
    CUgraph graph;
    CUgraphExec exec;
};

/* What a program runs in. */
static struct world {
    CUcontext ctx;
    CUmodule module;
    CUfunction axpb, mix, own[THREADS];
    CUdeviceptr device[DEVICE_CELLS], signal;
    uint32_t *pinned[PINNED_CELLS];
    CUstream streams[1 + CREATED], capture[THREADS];
    CUevent events[EVENTS];
    struct graph graphs[GRAPHS];
} worlds[2], *world;

struct host_work {
    uint32_t *v, p, q;
};

static CUdevice device;
static __thread unsigned me; /* which thread */

void order_fail(const char *text)
{
    fprintf(stderr, "order: %s\n", text);
    exit(1);
}

/* ---- places */

static CUdeviceptr address(unsigned cell)
{
    return cell < DEVICE_CELLS ? world->device[cell] : (uintptr_t)world->pinned[cell - DEVICE_CELLS];
}

static CUstream stream_of(const struct op *o)
{
    return o->stream > CREATED ? CU_STREAM_PER_THREAD : world->streams[o->stream];
}

/* ---- beginning and end */

void order_open(void)
{
    const struct sample_options options = SAMPLE_OPTIONS_DEFAULT;
    static struct sample_context ctx;
    sample_open(&options, &ctx);
    device = ctx.device;
#define X(name, symbol, args) sample_find(#name, symbol, &more.name, sizeof more.name);
    ORDER_CUDA(X)
#undef X
    MORE(cuCtxGetCurrent, &worlds[0].ctx);
}

static void make_world(struct world *w)
{
    CU(cuModuleLoadData, &w->module, ptx);
    CU(cuModuleGetFunction, &w->axpb, w->module, "order_axpb");
    CU(cuModuleGetFunction, &w->mix, w->module, "order_mix");
    for (unsigned i = 0; i < THREADS; i++) {
        CUmodule of_thread;
        CU(cuModuleLoadData, &of_thread, ptx);
        CU(cuModuleGetFunction, &w->own[i], of_thread, "order_axpb");
    }
    for (unsigned i = 0; i < DEVICE_CELLS; i++)
        CU(cuMemAlloc, &w->device[i], BYTES);
    CU(cuMemAlloc, &w->signal, sizeof(uint32_t));
    for (unsigned i = 0; i < PINNED_CELLS; i++)
        MORE(cuMemHostAlloc, (void **)&w->pinned[i], BYTES, 0);
    for (unsigned i = 1; i <= CREATED; i++)
        CU(cuStreamCreateWithPriority, &w->streams[i], i > BLOCKING ? CU_STREAM_NON_BLOCKING : 0, 0);
    for (unsigned i = 0; i < THREADS; i++)
        CU(cuStreamCreateWithPriority, &w->capture[i], CU_STREAM_NON_BLOCKING, 0);
    for (unsigned i = 0; i < EVENTS; i++)
        CU(cuEventCreate, &w->events[i], 0);
}

void order_enter(const struct program *p)
{
    uint32_t zero = 0;
    world = &worlds[p->second_context];
    if (p->second_context)
        MORE(cuCtxCreate_v2, &world->ctx, 0, device);
    else
        CU(cuCtxSetCurrent, world->ctx);
    if (!world->module)
        make_world(world);
    CU(cuMemcpyHtoD, world->signal, &zero, sizeof zero);
    for (unsigned c = 0; c < CELLS; c++)
        if (c < DEVICE_CELLS)
            CU(cuMemcpyHtoD, world->device[c], p->before[c], BYTES);
        else
            memcpy(world->pinned[c - DEVICE_CELLS], p->before[c], BYTES);
}

/* Its second context ends with the program, in the middle of what else is queued, if anything is. */
static void leave(const struct program *p)
{
    for (unsigned i = 0; i < GRAPHS; i++) {
        struct graph *g = &world->graphs[i];
        if (g->exec) {
            MORE(cuGraphExecDestroy, g->exec);
            MORE(cuGraphDestroy, g->graph);
        }
        *g = (struct graph){0};
    }
    if (!p->second_context)
        return;
    for (unsigned i = 0; i < PINNED_CELLS; i++)
        MORE(cuMemFreeHost, world->pinned[i]);
    MORE(cuCtxDestroy, world->ctx);
    memset(world, 0, sizeof *world);
}

void order_thread_begins(const struct program *p)
{
    (void)p;
    CU(cuCtxSetCurrent, world->ctx);
}

bool order_matches(const struct program *p)
{
    bool same = true;
    CU(cuCtxSynchronize);
    for (unsigned c = 0; c < CELLS && same; c++) {
        uint32_t got[WORDS];
        if (c < DEVICE_CELLS)
            CU(cuMemcpyDtoH, got, world->device[c], BYTES);
        else
            memcpy(got, world->pinned[c - DEVICE_CELLS], BYTES);
        for (unsigned i = 0; i < WORDS && same; i++)
            if (got[i] != p->after[c][i]) {
                fprintf(stderr, "order: program %llu: word %u of cell %u is %08x instead of %08x\n",
                        (unsigned long long)p->seed, i, c, got[i], p->after[c][i]);
                same = false;
            }
    }
    leave(p);
    return same;
}

static void expect(const struct op *o, const uint32_t got[WORDS])
{
    char text[160];
    for (unsigned i = 0; i < WORDS; i++)
        if (got[i] != o->expect[i]) {
            snprintf(text, sizeof text, "%s: word %u of cell %u is %08x instead of %08x",
                     order_op_name(o->kind), i, o->a, got[i], o->expect[i]);
            order_fail(text);
        }
}

/* ---- kernels */

/* In each of the ways that launches come. */
static void launch_in(CUstream s, unsigned how, CUfunction f, CUdeviceptr a, uint32_t p, uint32_t q)
{
    struct {
        CUdeviceptr a;
        uint32_t p, q;
    } buffer = {a, p, q};
    size_t bytes = sizeof buffer;
    void *params[] = {&a, &p, &q};
    void *extra[] = {(void *)CU_LAUNCH_PARAM_BUFFER_POINTER, &buffer, (void *)CU_LAUNCH_PARAM_BUFFER_SIZE,
                     &bytes, (void *)CU_LAUNCH_PARAM_END};
    CUlaunchAttribute attribute = {.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION,
                                   .value.clusterDim = {1, 1, 1}};
    CUlaunchConfig config = {1, 1, 1, WORDS, 1, 1, 0, s, &attribute, how % 2};
    switch (how % 6) {
    case 0:
        MORE(cuLaunchCooperativeKernel, f, 1, 1, 1, WORDS, 1, 1, 0, s, params);
        break;
    case 1:
    case 2:
        MORE(cuLaunchKernelEx, &config, f, params, NULL);
        break;
    case 3:
        CU(cuLaunchKernel, f, 1, 1, 1, WORDS, 1, 1, 0, s, NULL, extra);
        break;
    default:
        if (s == CU_STREAM_PER_THREAD)
            MORE(cuLaunchKernel_ptsz, f, 1, 1, 1, WORDS, 1, 1, 0, NULL, params, NULL);
        else
            CU(cuLaunchKernel, f, 1, 1, 1, WORDS, 1, 1, 0, s, params, NULL);
        break;
    }
    memset(&buffer, 0xee, sizeof buffer); /* it is the app's again */
    a = 0;
    p = q = 0xeeeeeeee;
}

static void on_axpb(const struct op *o)
{
    launch_in(stream_of(o), o->how, world->axpb, address(o->a), o->p, o->q);
}

static void on_mix(const struct op *o)
{
    CUdeviceptr a = address(o->a), b = address(o->b);
    uint32_t p = o->p;
    void *params[] = {&a, &b, &p};
    CU(cuLaunchKernel, world->mix, 1, 1, 1, WORDS, 1, 1, 0, stream_of(o), params, NULL);
}

static void on_module(const struct op *o)
{
    CUmodule module;
    CUfunction f;
    CU(cuModuleLoadData, &module, ptx);
    CU(cuModuleGetFunction, &f, module, "order_axpb");
    launch_in(stream_of(o), 4, f, address(o->a), o->p, o->q);
    launch_in(stream_of(o), 4, f, address(o->a), o->q | 1, o->p);
    MORE(cuModuleUnload, module);
}

/* Without the attribute the driver would refuse it. */
static void on_attribute(const struct op *o)
{
    CUdeviceptr a = address(o->a);
    uint32_t p[2] = {o->p, o->q | 1}, q[2] = {o->q, o->p};
    MORE(cuFuncSetAttribute, world->own[me], CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, SHARED);
    for (unsigned i = 0; i < 2; i++) {
        void *params[] = {&a, &p[i], &q[i]};
        CU(cuLaunchKernel, world->own[me], 1, 1, 1, WORDS, 1, 1, SHARED, stream_of(o), params, NULL);
    }
    MORE(cuFuncSetAttribute, world->own[me], CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 0);
}

/* ---- copies and sets */

static void on_copy(const struct op *o)
{
    CUdeviceptr to = address(o->a), from = address(o->b);
    bool pinned_to = o->a >= DEVICE_CELLS, pinned_from = o->b >= DEVICE_CELLS;
    if (o->how % 2)
        MORE(cuMemcpyAsync, to, from, BYTES, stream_of(o));
    else if (pinned_to && !pinned_from)
        MORE(cuMemcpyDtoHAsync, world->pinned[o->a - DEVICE_CELLS], from, BYTES, stream_of(o));
    else if (pinned_from && !pinned_to)
        MORE(cuMemcpyHtoDAsync, to, world->pinned[o->b - DEVICE_CELLS], BYTES, stream_of(o));
    else if (!pinned_to)
        MORE(cuMemcpyDtoDAsync, to, from, BYTES, stream_of(o));
    else
        MORE(cuMemcpyAsync, to, from, BYTES, stream_of(o));
}

static void on_copy_2d(const struct op *o)
{
    CUDA_MEMCPY2D c = {.srcMemoryType = CU_MEMORYTYPE_DEVICE,
                       .srcPitch = ROW,
                       .dstMemoryType = CU_MEMORYTYPE_DEVICE,
                       .dstPitch = ROW,
                       .WidthInBytes = ROW,
                       .Height = 2};
    c.srcDevice = address(o->b);
    c.dstDevice = address(o->a);
    if (o->a >= DEVICE_CELLS) {
        c.dstMemoryType = CU_MEMORYTYPE_HOST;
        c.dstHost = world->pinned[o->a - DEVICE_CELLS];
    }
    if (o->b >= DEVICE_CELLS) {
        c.srcMemoryType = CU_MEMORYTYPE_HOST;
        c.srcHost = world->pinned[o->b - DEVICE_CELLS];
    }
    MORE(cuMemcpy2DAsync, &c, stream_of(o));
    memset(&c, 0xee, sizeof c);
}

static void fill(uint32_t v[WORDS], const struct op *o)
{
    for (unsigned i = 0; i < WORDS; i++)
        v[i] = o->p + i * o->q;
}

static void on_from_pageable(const struct op *o)
{
    uint32_t v[WORDS];
    fill(v, o);
    if (o->how % 2)
        MORE(cuMemcpyHtoDAsync, address(o->a), v, BYTES, stream_of(o));
    else
        MORE(cuMemcpyAsync, address(o->a), (uintptr_t)v, BYTES, stream_of(o));
    memset(v, 0xee, sizeof v);
}

static void on_to_pageable(const struct op *o)
{
    uint32_t v[WORDS] = {0};
    MORE(cuMemcpyDtoHAsync, v, address(o->a), BYTES, stream_of(o));
    expect(o, v);
}

static void on_set(const struct op *o)
{
    switch ((enum kind)o->kind) {
    case OP_SET_32:
        MORE(cuMemsetD32Async, address(o->a), o->p, WORDS, stream_of(o));
        break;
    case OP_SET_16:
        MORE(cuMemsetD16Async, address(o->a), (unsigned short)o->p, BYTES / 2, stream_of(o));
        break;
    case OP_SET_8:
        MORE(cuMemsetD8Async, address(o->a), (unsigned char)o->p, BYTES, stream_of(o));
        break;
    case OP_SET_2D:
        MORE(cuMemsetD2D32Async, address(o->a), ROW, o->p, WORDS / 4, 2, stream_of(o));
        break;
    default:
        CU(cuMemsetD32, address(o->a), o->p, WORDS);
        break;
    }
}

static void on_sync_copy(const struct op *o)
{
    uint32_t v[WORDS] = {0};
    if (o->kind == OP_SYNC_COPY_OUT) {
        CU(cuMemcpyDtoH, v, address(o->a), BYTES);
        expect(o, v);
        return;
    }
    if (o->kind == OP_REALLOCATE) {
        CU(cuMemFree, world->device[o->a]);
        CU(cuMemAlloc, &world->device[o->a], BYTES);
    }
    fill(v, o);
    CU(cuMemcpyHtoD, address(o->a), v, BYTES);
}

static void on_temporary(const struct op *o)
{
    CUdeviceptr t;
    MORE(cuMemAllocAsync, &t, BYTES, stream_of(o));
    MORE(cuMemcpyDtoDAsync, t, address(o->a), BYTES, stream_of(o));
    launch_in(stream_of(o), o->how, world->axpb, t, o->p, o->q);
    MORE(cuMemcpyDtoDAsync, address(o->a), t, BYTES, stream_of(o));
    MORE(cuMemFreeAsync, t, stream_of(o));
}

/* ---- words and host functions */

static void on_words(const struct op *o)
{
    if (o->kind == OP_WAIT_VALUE)
        MORE(cuStreamWaitValue32, stream_of(o), world->signal, o->p, GEQ);
    else if (o->kind == OP_SIGNAL)
        MORE(cuStreamWriteValue32, stream_of(o), world->signal, o->p, 0);
    else
        MORE(cuStreamWriteValue32, stream_of(o), address(o->a) + o->how % WORDS * sizeof(uint32_t), o->p, 0);
}

static void work(void *arg)
{
    struct host_work *w = arg;
    for (unsigned i = 0; i < WORDS; i++)
        w->v[i] = w->v[i] * w->p + w->q + i;
    free(w);
}

static void called_back(CUstream s, CUresult result, void *arg)
{
    (void)s;
    if (result != CUDA_SUCCESS)
        order_fail("a callback was told of an error");
    work(arg);
}

static void on_host_function(const struct op *o)
{
    struct host_work *w = malloc(sizeof *w);
    if (!w)
        order_fail("no memory");
    *w = (struct host_work){world->pinned[o->a - DEVICE_CELLS], o->p, o->q};
    if (o->kind == OP_CALLBACK)
        MORE(cuStreamAddCallback, stream_of(o), called_back, w, 0);
    else
        MORE(cuLaunchHostFunc, stream_of(o), work, w);
}

static void on_host(const struct op *o)
{
    uint32_t *v = world->pinned[o->a - DEVICE_CELLS];
    if (o->kind == OP_HOST_READ) {
        expect(o, v);
        return;
    }
    for (unsigned i = 0; i < WORDS; i++)
        v[i] = v[i] * o->p + o->q + i;
}

/* ---- graphs */

static void on_graph_make(const struct op *o)
{
    struct graph *g = &world->graphs[o->a];
    CUstream s = world->capture[me];
    if (g->exec) {
        MORE(cuGraphExecDestroy, g->exec);
        MORE(cuGraphDestroy, g->graph);
    }
    MORE(cuStreamBeginCapture, s, RELAXED);
    launch_in(s, 4, world->axpb, address(o->a), o->p, o->q);
    launch_in(s, 4, world->axpb, address(o->a), o->q | 1, o->p);
    MORE(cuStreamEndCapture, s, &g->graph);
    MORE(cuGraphInstantiateWithFlags, &g->exec, g->graph, 0);
}

static void on_graph_change(const struct op *o)
{
    struct graph *g = &world->graphs[o->a];
    CUgraphNode nodes[2];
    size_t n = 2;
    CUdeviceptr a = address(o->a);
    uint32_t p[2] = {o->p, o->q | 1}, q[2] = {o->q, o->p};
    MORE(cuGraphGetNodes, g->graph, nodes, &n);
    for (unsigned i = 0; i < 2; i++) {
        void *params[] = {&a, &p[i], &q[i]};
        CUDA_KERNEL_NODE_PARAMS_v2 node = {world->axpb, 1, 1, 1, WORDS, 1, 1, 0, params, NULL, NULL, NULL};
        MORE(cuGraphExecKernelNodeSetParams, g->exec, nodes[i], &node);
    }
}

static void on_graph_launch(const struct op *o)
{
    MORE(cuGraphLaunch, world->graphs[o->a].exec, stream_of(o));
}

/* ---- order and waits */

static void on_event(const struct op *o)
{
    CUevent *e = &world->events[o->event];
    switch ((enum kind)o->kind) {
    case OP_RECORD:
        CU(cuEventRecord, *e, stream_of(o));
        break;
    case OP_WAIT:
        MORE(cuStreamWaitEvent, stream_of(o), *e, 0);
        break;
    case OP_RENEW_EVENT:
        MORE(cuEventDestroy, *e);
        CU(cuEventCreate, e, 0);
        break;
    default:
        CU(cuEventSynchronize, *e);
        break;
    }
}

static void poll_until_ready(const struct op *o)
{
    CUresult r;
    while ((r = o->kind == OP_POLL_EVENT ? more.cuEventQuery(world->events[o->event])
                                         : more.cuStreamQuery(stream_of(o))) == CUDA_ERROR_NOT_READY)
        sched_yield();
    sample_check_result(order_op_name(o->kind), r);
}

static void on_wait(const struct op *o)
{
    if (o->kind == OP_SYNC_STREAM)
        CU(cuStreamSynchronize, stream_of(o));
    else
        CU(cuCtxSynchronize);
}

static void on_renew_stream(const struct op *o)
{
    CUstream *s = &world->streams[o->stream];
    MORE(cuStreamDestroy, *s);
    CU(cuStreamCreateWithPriority, s, o->stream > BLOCKING ? CU_STREAM_NON_BLOCKING : 0, 0);
}

static void on_ask(const struct op *o)
{
    size_t free_bytes, total;
    CUresult r = more.cuStreamQuery(stream_of(o));
    if (r != CUDA_ERROR_NOT_READY)
        sample_check_result("cuStreamQuery", r);
    MORE(cuMemGetInfo, &free_bytes, &total);
}

/* The child has no queues, and no driver either; it only has to end. */
static void on_fork(const struct op *o)
{
    int status;
    pid_t child = fork();
    if (child == 0)
        _exit(more.cuStreamQuery(stream_of(o)) == CUDA_SUCCESS);
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status))
        order_fail("a child of fork() did not end as it should");
}

/* ---- */

void order_call(const struct op *o)
{
    static void (*const calls[OP_MAX])(const struct op *) = {
        [OP_AXPB] = on_axpb,
        [OP_MIX] = on_mix,
        [OP_MODULE] = on_module,
        [OP_ATTRIBUTE] = on_attribute,
        [OP_COPY] = on_copy,
        [OP_COPY_2D] = on_copy_2d,
        [OP_FROM_PAGEABLE] = on_from_pageable,
        [OP_TO_PAGEABLE] = on_to_pageable,
        [OP_SET_32] = on_set,
        [OP_SET_16] = on_set,
        [OP_SET_8] = on_set,
        [OP_SET_2D] = on_set,
        [OP_WRITE] = on_words,
        [OP_WAIT_VALUE] = on_words,
        [OP_SIGNAL] = on_words,
        [OP_HOST_FUNCTION] = on_host_function,
        [OP_CALLBACK] = on_host_function,
        [OP_TEMPORARY] = on_temporary,
        [OP_GRAPH_MAKE] = on_graph_make,
        [OP_GRAPH_CHANGE] = on_graph_change,
        [OP_GRAPH_LAUNCH] = on_graph_launch,
        [OP_SYNC_COPY_IN] = on_sync_copy,
        [OP_SYNC_COPY_OUT] = on_sync_copy,
        [OP_SYNC_SET] = on_set,
        [OP_REALLOCATE] = on_sync_copy,
        [OP_RECORD] = on_event,
        [OP_WAIT] = on_event,
        [OP_RENEW_EVENT] = on_event,
        [OP_SYNC_EVENT] = on_event,
        [OP_POLL_EVENT] = poll_until_ready,
        [OP_POLL_STREAM] = poll_until_ready,
        [OP_SYNC_STREAM] = on_wait,
        [OP_SYNC_CONTEXT] = on_wait,
        [OP_RENEW_STREAM] = on_renew_stream,
        [OP_HOST_WRITE] = on_host,
        [OP_HOST_READ] = on_host,
        [OP_ASK] = on_ask,
        [OP_FORK] = on_fork,
    };
    me = o->thread;
    calls[o->kind](o);
}
