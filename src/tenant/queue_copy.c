/* What a call is made of: whether its arguments can be kept until it is issued, keeping them, and making the call from them. */
#include <string.h>

#include "driver/exports.h"
#include "tenant/queue_internal.h"

#define GRID_X_MAX 0x7fffffffu
#define GRID_YZ_MAX 65535u

typedef CUresult (*pointer_fn)(void *, int, CUdeviceptr);

/* ---- kernels ---- */

/* What an attribute holds is copied with it, but for those that name an event or a place to write to. */
static bool attribute_keeps(int id)
{
    switch (id) {
    case CU_LAUNCH_ATTRIBUTE_IGNORE:
    case CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW:
    case CU_LAUNCH_ATTRIBUTE_COOPERATIVE:
    case CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY:
    case CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION:
    case CU_LAUNCH_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE:
    case CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION:
    case CU_LAUNCH_ATTRIBUTE_PRIORITY:
    case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP:
    case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN:
    case CU_LAUNCH_ATTRIBUTE_PREFERRED_CLUSTER_DIMENSION:
    case CU_LAUNCH_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
        return true;
    default:
        return false;
    }
}

/* The one buffer of parameters that cuLaunchKernel may be given instead: its bytes, or -1 when there is none that can be told. */
static int64_t buffer_of(void **extra, const void **ret_buffer)
{
    const void *buffer = NULL;
    int64_t bytes = -1;
    for (unsigned i = 0; i < 4; i += 2) {
        uintptr_t what = (uintptr_t)extra[i];
        if (what == CU_LAUNCH_PARAM_END)
            break;
        if (what == CU_LAUNCH_PARAM_BUFFER_POINTER)
            buffer = extra[i + 1];
        else if (what == CU_LAUNCH_PARAM_BUFFER_SIZE && extra[i + 1])
            bytes = (int64_t)LITHOS_MIN(*(const size_t *)extra[i + 1], (size_t)INT32_MAX);
        else
            return -1;
    }
    *ret_buffer = buffer;
    return buffer && bytes <= QUEUE_PARAMETER_BYTES ? bytes : -1;
}

static uint64_t hash_bytes(uint64_t hash, const void *data, size_t bytes)
{
    const unsigned char *from = data;
    for (uint64_t word = 0; bytes; bytes -= LITHOS_MIN(bytes, sizeof word)) {
        memcpy(&word, from, LITHOS_MIN(bytes, sizeof word));
        hash = lithos_queue_mix(hash, word);
        from += sizeof word;
        word = 0;
    }
    return hash;
}

/* Of launches that are alike in this the driver takes all or none. */
static uint64_t launch_hash(const struct lithos_launch *l, const struct queue_function *f)
{
    bool special = l->cooperative || (l->config && l->config->numAttrs);
    uint64_t h = lithos_queue_mix(0x71, (uintptr_t)l->function);
    h = lithos_queue_mix(h, (uint64_t)atomic_load_explicit(&f->version, memory_order_relaxed) << 32 |
                                atomic_load_explicit(&f->epoch, memory_order_relaxed));
    h = lithos_queue_mix(h, (uint64_t)l->block[0] << 32 | l->block[1]);
    h = lithos_queue_mix(h, (uint64_t)l->block[2] << 32 | l->shared_bytes);
    h = lithos_queue_mix(h, (uint64_t)special << 1 | l->cooperative);
    if (special)
        h = hash_bytes(h, l->grid, sizeof l->grid);
    for (unsigned i = 0; special && l->config && i < l->config->numAttrs; i++) {
        h = lithos_queue_mix(h, (uint64_t)(unsigned)l->config->attrs[i].id);
        h = hash_bytes(h, &l->config->attrs[i].value, sizeof l->config->attrs[i].value);
    }
    return h | 1; /* 0 is an empty place */
}

bool lithos_queue_can_launch(const struct lithos_launch *l, const struct queue_function *f,
                             uint64_t *ret_hash, size_t *ret_bytes)
{
    unsigned attributes = l->config ? l->config->numAttrs : 0;
    const void *buffer;
    int64_t bytes = f->bytes;
    if (l->grid[0] - 1 >= GRID_X_MAX || l->grid[1] - 1 >= GRID_YZ_MAX || l->grid[2] - 1 >= GRID_YZ_MAX ||
        attributes > QUEUE_ATTRIBUTES || (attributes && !l->config->attrs))
        return false;
    for (unsigned i = 0; i < attributes; i++)
        if (!attribute_keeps(l->config->attrs[i].id))
            return false;
    if (l->extra)
        bytes = l->params ? -1 : buffer_of(l->extra, &buffer);
    else if (f->parameters && !l->params)
        return false; /* the driver says what it thinks of that */
    if (bytes < 0)
        return false;
    *ret_hash = launch_hash(l, f);
    *ret_bytes = attributes * sizeof(CUlaunchAttribute) + LITHOS_QUEUE_ROUND((size_t)bytes, 16);
    return true;
}

void lithos_queue_fill_launch(struct queue_entry *e, const struct lithos_launch *l,
                              const struct queue_function *f)
{
    unsigned attributes = l->config ? l->config->numAttrs : 0;
    unsigned char *to = e->data;
    e->kind = QUEUE_LAUNCH;
    e->launch.function = l->function;
    e->launch.of = f;
    e->launch.stream = l->config ? l->config->hStream : l->stream;
    memcpy(e->launch.grid, l->grid, sizeof l->grid);
    memcpy(e->launch.block, l->block, sizeof l->block);
    e->launch.shared_bytes = l->shared_bytes;
    e->launch.attributes = (uint16_t)attributes;
    if (attributes) {
        memcpy(to, l->config->attrs, attributes * sizeof(CUlaunchAttribute));
        to += attributes * sizeof(CUlaunchAttribute);
    }
    e->launch.extra = l->extra != NULL;
    e->launch.bytes = f->bytes;
    if (l->extra) {
        const void *buffer = NULL;
        e->launch.bytes = (uint32_t)buffer_of(l->extra, &buffer);
        if (buffer)
            memcpy(to, buffer, e->launch.bytes);
        return;
    }
    for (uint32_t i = 0; i < f->parameters; i++)
        memcpy(to + f->parameter[i].offset, l->params[i], f->parameter[i].bytes);
}

typedef CUresult (*launch_kernel_fn)(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                                     unsigned, CUstream, void **, void **);
typedef CUresult (*launch_ex_fn)(const CUlaunchConfig *, CUfunction, void **, void **);
typedef CUresult (*launch_cooperative_fn)(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned,
                                          unsigned, unsigned, CUstream, void **);

CUresult lithos_queue_launch(enum lithos_export function, const struct lithos_launch *l)
{
    void *entry = lithos_export_address(function);
    const unsigned *g = l->grid, *b = l->block;
    switch (function) {
    case LITHOS_EXPORT_cuLaunchKernelEx:
    case LITHOS_EXPORT_cuLaunchKernelEx_ptsz:
        return ((launch_ex_fn)entry)(l->config, l->function, l->params, l->extra);
    case LITHOS_EXPORT_cuLaunchCooperativeKernel:
    case LITHOS_EXPORT_cuLaunchCooperativeKernel_ptsz:
        return ((launch_cooperative_fn)entry)(l->function, g[0], g[1], g[2], b[0], b[1], b[2],
                                              l->shared_bytes, l->stream, l->params);
    default: /* cuLaunchKernel, cuLaunchKernel_ptsz: no other is asked about */
        return ((launch_kernel_fn)entry)(l->function, g[0], g[1], g[2], b[0], b[1], b[2], l->shared_bytes,
                                         l->stream, l->params, l->extra);
    }
}

static CUresult make_launch(const struct queue_entry *e)
{
    /* The driver reads them, it does not write. */
    unsigned char *data = (unsigned char *)(uintptr_t)e->data;
    CUlaunchAttribute *attributes = (CUlaunchAttribute *)(void *)data;
    unsigned char *parameters = data + e->launch.attributes * sizeof *attributes;
    size_t bytes = e->launch.bytes;
    void *extra[] = {(void *)CU_LAUNCH_PARAM_BUFFER_POINTER, parameters, (void *)CU_LAUNCH_PARAM_BUFFER_SIZE,
                     &bytes, (void *)CU_LAUNCH_PARAM_END};
    void *pointers[QUEUE_PARAMETERS];
    struct lithos_launch l = {.function = e->launch.function,
                              .stream = e->launch.stream,
                              .shared_bytes = e->launch.shared_bytes,
                              .params = pointers};
    CUlaunchConfig config = {.gridDimX = e->launch.grid[0],
                             .gridDimY = e->launch.grid[1],
                             .gridDimZ = e->launch.grid[2],
                             .blockDimX = e->launch.block[0],
                             .blockDimY = e->launch.block[1],
                             .blockDimZ = e->launch.block[2],
                             .sharedMemBytes = e->launch.shared_bytes,
                             .hStream = e->launch.stream,
                             .attrs = attributes,
                             .numAttrs = e->launch.attributes};
    memcpy(l.grid, e->launch.grid, sizeof l.grid);
    memcpy(l.block, e->launch.block, sizeof l.block);
    l.config = &config;
    if (e->launch.extra) {
        l.params = NULL;
        l.extra = extra;
    }
    for (uint32_t i = 0; !e->launch.extra && i < e->launch.of->parameters; i++)
        pointers[i] = parameters + e->launch.of->parameter[i].offset;
    return lithos_queue_launch((enum lithos_export)e->function, &l);
}

/* ---- other calls ---- */

/* Memory that the driver knows, at both ends: the card's, or pinned. What is copied from or to pageable memory is copied while the app
 * waits, and an address that is none is refused at once. */
static bool known(CUdeviceptr at, size_t bytes)
{
    pointer_fn ask = LITHOS_REAL(pointer_fn, cuPointerGetAttribute);
    unsigned type = 0;
    for (int end = 0; end < 2; end++) {
        CUdeviceptr p = end && bytes ? at + bytes - 1 : at;
        if (ask(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, p) != CUDA_SUCCESS || type == 0)
            return false;
        if (bytes < 2)
            break;
    }
    return true;
}

/* One side of a copy by structure. */
static bool side_keeps(int type, const void *host, CUdeviceptr address)
{
    return type == CU_MEMORYTYPE_DEVICE || type == CU_MEMORYTYPE_ARRAY ||
           (type == CU_MEMORYTYPE_HOST && known((uintptr_t)host, 1)) ||
           (type == CU_MEMORYTYPE_UNIFIED && known(address, 1));
}

static bool copy_2d_keeps(const CUDA_MEMCPY2D *c)
{
    return c && side_keeps(c->srcMemoryType, c->srcHost, c->srcDevice) &&
           side_keeps(c->dstMemoryType, c->dstHost, c->dstDevice);
}

static bool copy_3d_keeps(const CUDA_MEMCPY3D *c)
{
    return c && side_keeps(c->srcMemoryType, c->srcHost, c->srcDevice) &&
           side_keeps(c->dstMemoryType, c->dstHost, c->dstDevice);
}

/* NOLINTBEGIN(performance-no-int-to-ptr): the words of a call */
bool lithos_queue_can_call(const struct lithos_order_row *row, const uintptr_t *args, size_t *ret_bytes,
                           enum lithos_drain *ret_why)
{
    *ret_bytes = 0;
    *ret_why = LITHOS_DRAIN_PAGEABLE;
    switch ((enum lithos_order_form)row->what) {
    case LITHOS_ORDER_FORM_COPY:
        return args[2] == 0 || (known(args[0], args[2]) && known(args[1], args[2]));
    case LITHOS_ORDER_FORM_COPY_2D:
        *ret_bytes = sizeof(CUDA_MEMCPY2D);
        return copy_2d_keeps((const CUDA_MEMCPY2D *)args[0]);
    case LITHOS_ORDER_FORM_COPY_3D:
        *ret_bytes = sizeof(CUDA_MEMCPY3D);
        return copy_3d_keeps((const CUDA_MEMCPY3D *)args[0]);
    case LITHOS_ORDER_FORM_MEMSET_1:
    case LITHOS_ORDER_FORM_MEMSET_2:
    case LITHOS_ORDER_FORM_MEMSET_4: {
        unsigned shift = row->what - LITHOS_ORDER_FORM_MEMSET_1; /* 1, 2, 4 bytes each */
        *ret_why = LITHOS_DRAIN_UNKNOWN;
        return args[2] <= SIZE_MAX >> shift && known(args[0], args[2] << shift);
    }
    case LITHOS_ORDER_FORM_FREE:
        *ret_why = LITHOS_DRAIN_UNKNOWN;
        return known(args[0], 1);
    case LITHOS_ORDER_FORM_HOST:
        *ret_why = LITHOS_DRAIN_UNKNOWN;
        return args[1] != 0 && (row->arguments < 4 || (unsigned)args[3] == 0);
    case LITHOS_ORDER_FORM_RECORD:
    case LITHOS_ORDER_FORM_WAIT:
        *ret_why = LITHOS_DRAIN_EVENT;
        return row->arguments < 3 || (unsigned)args[2] == 0;
    default:
        *ret_why = LITHOS_DRAIN_UNKNOWN;
        return true;
    }
}

void lithos_queue_fill_call(struct queue_entry *e, const struct lithos_order_row *row, const uintptr_t *args)
{
    e->kind = QUEUE_CALL;
    for (unsigned i = 0; i < QUEUE_ARGUMENTS; i++)
        e->args[i] = i < row->arguments ? args[i] : 0;
    if (row->what == LITHOS_ORDER_FORM_COPY_2D)
        memcpy(e->data, (const void *)args[0], sizeof(CUDA_MEMCPY2D));
    if (row->what == LITHOS_ORDER_FORM_COPY_3D)
        memcpy(e->data, (const void *)args[0], sizeof(CUDA_MEMCPY3D));
}
/* NOLINTEND(performance-no-int-to-ptr) */

CUresult lithos_queue_make(const struct queue_entry *e)
{
    uintptr_t args[LITHOS_ORDER_WORDS] = {0};
    if (e->kind == QUEUE_LAUNCH)
        return make_launch(e);
    memcpy(args, e->args, sizeof e->args);
    if (e->form == LITHOS_ORDER_FORM_COPY_2D || e->form == LITHOS_ORDER_FORM_COPY_3D)
        args[0] = (uintptr_t)e->data;
    return lithos_order_ours((enum lithos_export)e->function, args);
}
