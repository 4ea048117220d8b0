/* Kernel launches: checked as the real driver checks them, turned into a QMD, shown to the hook, sent. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hw/qmd.h"
#include "vgpu/client/client.h"

#define MEMSET_ADDRESS 0x00006f0000000000ull /* the driver's own kernel */
#define MEMSET_THREADS 256u
#define PORTABLE_CLUSTER 8u
#define MAX_CLUSTER 16u
#define MAX_PLACED \
    (1u << 24) /* blocks of an interpreted launch: the server tells where no more of them ran */

/* The generation's own layout, as its driver would build. */
const struct lithos_qmd_layout *vgpu_qmd_layout(const struct vgpu_card *card)
{
    if (card->cc_major >= 10)
        return lithos_qmd_layout(LITHOS_QMD_V05_00);
    if (card->cc_major == 9)
        return lithos_qmd_layout(LITHOS_QMD_V04_00);
    return lithos_qmd_layout(card->cc_major == 8 ? LITHOS_QMD_V03_00 : LITHOS_QMD_V02_04);
}

static uint64_t product(const uint32_t d[3])
{
    return (uint64_t)d[0] * d[1] * d[2];
}

/* ---- checks */

static CUresult check_block(const struct CUfunc_st *f, const struct vgpu_card *card,
                            const struct vgpu_launch_request *r)
{
    const int *a = card->attributes;
    for (int i = 0; i < 3; i++)
        if (!r->grid[i] || !r->block[i] || r->block[i] > (uint32_t)a[2 + i] ||
            r->grid[i] > (uint32_t)a[5 + i])
            return CUDA_ERROR_INVALID_VALUE;
    uint64_t threads = product(r->block);
    if (threads > (uint64_t)a[CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK])
        return CUDA_ERROR_INVALID_VALUE;
    if (f->entry->max_threads && threads > f->entry->max_threads)
        return CUDA_ERROR_INVALID_VALUE;
    if (threads * f->entry->registers > 65536)
        return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
    if (r->shared_dynamic > (uint32_t)atomic_load(&f->max_dynamic_shared))
        return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

static CUresult check_cluster(const struct CUfunc_st *f, const struct vgpu_card *card,
                              const struct vgpu_launch_request *r)
{
    uint64_t blocks = product(r->cluster);
    if (f->entry->cluster[0] && memcmp(f->entry->cluster, r->cluster, sizeof r->cluster))
        return VGPU_CUDA_ERROR_INVALID_CLUSTER_SIZE;
    if (blocks == 1)
        return CUDA_SUCCESS;
    if (card->cc_major < 9)
        return CUDA_ERROR_NOT_SUPPORTED;
    if (blocks > (f->nonportable_cluster ? MAX_CLUSTER : PORTABLE_CLUSTER))
        return VGPU_CUDA_ERROR_INVALID_CLUSTER_SIZE;
    for (int i = 0; i < 3; i++)
        if (r->grid[i] % r->cluster[i])
            return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

static CUresult check(const struct CUfunc_st *f, const struct vgpu_launch_request *r)
{
    const struct vgpu_device *d = &vgpu.devices[f->module->ctx->device];
    VGPU_TRY(check_block(f, &d->card, r));
    VGPU_TRY(check_cluster(f, &d->card, r));
    if (r->cooperative) {
        int resident = vgpu_occupancy(f, (int)product(r->block), r->shared_dynamic);
        if (product(r->grid) > (uint64_t)resident * (uint64_t)d->sm_count)
            return VGPU_CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE;
    }
    return CUDA_SUCCESS;
}

/* ---- the op */

/* CU_LAUNCH_PARAM_BUFFER_POINTER 1 and _SIZE 2, up to _END 0. */
static CUresult params_from_extra(const struct ptx_entry *e, void **extra, uint8_t *out)
{
    const void *buffer = NULL;
    size_t size = 0;
    for (unsigned i = 0; extra[i] && i < 8; i += 2)
        if ((uintptr_t)extra[i] == 1)
            buffer = extra[i + 1];
        else if ((uintptr_t)extra[i] == 2)
            size = *(const size_t *)extra[i + 1];
        else
            return CUDA_ERROR_INVALID_VALUE;
    if (!buffer || size > VGPU_MAX_PARAM_BYTES || size < e->param_bytes)
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(out, buffer, e->param_bytes);
    return CUDA_SUCCESS;
}

static CUresult copy_params(const struct ptx_entry *e, void **params, void **extra, uint8_t *out)
{
    if (params && extra)
        return CUDA_ERROR_INVALID_VALUE;
    if (extra)
        return params_from_extra(e, extra, out);
    if (!params && e->param_count)
        return CUDA_ERROR_INVALID_VALUE;
    for (uint32_t i = 0; i < e->param_count; i++) {
        if (!params[i])
            return CUDA_ERROR_INVALID_VALUE;
        memcpy(out + e->params[i].offset, params[i], e->params[i].size);
    }
    return CUDA_SUCCESS;
}

static void tell_params(const struct ptx_entry *e, const uint8_t *params, struct vgpu_launch *msg)
{
    msg->param_count = LITHOS_MIN(e->param_count, VGPU_PARAMS);
    for (uint32_t i = 0; i < msg->param_count; i++)
        memcpy(&msg->params[i], params + e->params[i].offset, LITHOS_MIN(e->params[i].size, 8u));
}

static CUresult encode(struct vgpu_launch *msg, const struct vgpu_card *card,
                       const struct lithos_qmd_view *view)
{
    return lithos_qmd_encode(vgpu_qmd_layout(card), view, msg->qmd) ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

/* As the driver sets them on cards that have them (docs/hardware.md, "Completion stamps": the audit). */
static void mark_latches(const struct vgpu_card *card, struct vgpu_launch *msg, bool overlap)
{
    const struct lithos_qmd_layout *layout = vgpu_qmd_layout(card);
    if (!lithos_qmd_has(layout, LITHOS_QMD_WAIT_ON_LATCH_VALID))
        return;
    lithos_qmd_set(layout, msg->qmd, LITHOS_QMD_ENABLE_PROGRAM_PRE_EXIT, 0, 1);
    lithos_qmd_set(layout, msg->qmd, LITHOS_QMD_ARRIVE_AT_LATCH_VALID, 0, 1);
    lithos_qmd_set(layout, msg->qmd, LITHOS_QMD_WAIT_ON_LATCH_VALID, 0, overlap);
}

CUresult vgpu_launch_prepare(struct CUfunc_st *f, struct CUstream_st *stream,
                             const struct vgpu_launch_request *r, void **params, void **extra,
                             struct vgpu_op **ret_op)
{
    const struct ptx_entry *e = f->entry;
    const struct vgpu_card *card = &vgpu.devices[f->module->ctx->device].card;
    if (f->module->ctx != stream->ctx)
        return CUDA_ERROR_INVALID_HANDLE;
    VGPU_TRY(check(f, r));
    struct vgpu_op *op = vgpu_op_new(stream, VGPU_OP_LAUNCH);
    if (!op)
        return CUDA_ERROR_OUT_OF_MEMORY;
    atomic_fetch_add(&f->module->program->refs, 1);
    op->launch.func = f;
    op->launch.program = f->module->program;
    op->launch.entry = e;
    op->launch.globals = f->module->globals;
    op->launch.address = f->address;
    op->launch.shared_dynamic = r->shared_dynamic;
    op->launch.cooperative = r->cooperative;
    memcpy(op->launch.grid, r->grid, sizeof r->grid);
    memcpy(op->launch.block, r->block, sizeof r->block);
    memcpy(op->launch.cluster, r->cluster, sizeof r->cluster);
    struct vgpu_launch *msg = &op->msg.launch;
    vgpu_msg_init(&msg->h, VGPU_LAUNCH, sizeof *msg);
    snprintf(msg->kernel, sizeof msg->kernel, "%s", e->name);
    bool clusters = product(r->cluster) > 1;
    struct lithos_qmd_view view = {
        .type = clusters ? LITHOS_QMD_TYPE_CLUSTERS : LITHOS_QMD_TYPE_GRID,
        .registers = e->registers,
        .shared_bytes = e->shared_bytes + r->shared_dynamic,
        .entry = f->address,
        .tpcs = {{UINT64_MAX, UINT64_MAX}},
    };
    for (int i = 0; i < 3; i++) {
        view.grid[i] = r->grid[i] / (clusters ? r->cluster[i] : 1);
        view.block[i] = r->block[i];
        view.cluster[i] = r->cluster[i];
    }
    CUresult result = encode(msg, card, &view);
    if (!result)
        mark_latches(card, msg, r->overlap);
    if (!result && !(op->launch.params = calloc(1, LITHOS_MAX(e->param_bytes, 1u))))
        result = CUDA_ERROR_OUT_OF_MEMORY;
    if (!result)
        result = copy_params(e, params, extra, op->launch.params);
    if (result) {
        vgpu_op_free(op);
        return result;
    }
    tell_params(e, op->launch.params, msg);
    *ret_op = op;
    return CUDA_SUCCESS;
}

CUresult vgpu_memset_prepare(struct CUstream_st *stream, CUdeviceptr dst, uint32_t value, unsigned width,
                             size_t count, struct vgpu_op **ret_op)
{
    if (dst % width || (count && count > SIZE_MAX / width))
        return CUDA_ERROR_INVALID_VALUE;
    uint8_t *host = vgpu_translate(dst, count * width, NULL);
    if (!host)
        return CUDA_ERROR_INVALID_VALUE;
    struct vgpu_op *op = vgpu_op_new(stream, VGPU_OP_MEMSET);
    if (!op)
        return CUDA_ERROR_OUT_OF_MEMORY;
    const struct vgpu_card *card = &vgpu.devices[stream->ctx->device].card;
    op->memset.dst = host;
    op->memset.count = count;
    op->memset.value = value;
    op->memset.width = width;
    struct vgpu_launch *msg = &op->msg.launch;
    vgpu_msg_init(&msg->h, VGPU_LAUNCH, sizeof *msg);
    strcpy(msg->kernel, VGPU_MEMSET_KERNEL);
    msg->param_count = 3;
    msg->params[0] = dst;
    msg->params[1] = value;
    msg->params[2] = count * width;
    /* 16 bytes a thread, no more blocks than fill the card once. */
    uint64_t blocks = (count * width + MEMSET_THREADS * 16 - 1) / (MEMSET_THREADS * 16);
    blocks = LITHOS_MAX(1u, LITHOS_MIN(blocks, (uint64_t)card->sm_count * 8));
    struct lithos_qmd_view view = {
        .type = LITHOS_QMD_TYPE_GRID,
        .grid = {(uint32_t)blocks, 1, 1},
        .block = {MEMSET_THREADS, 1, 1},
        .cluster = {1, 1, 1},
        .registers = 16,
        .entry = MEMSET_ADDRESS,
        .tpcs = {{UINT64_MAX, UINT64_MAX}},
    };
    CUresult r = encode(msg, card, &view);
    if (r) {
        vgpu_op_free(op);
        return r;
    }
    *ret_op = op;
    return CUDA_SUCCESS;
}

/* ---- the hook */

static CUresult make_placement(struct vgpu_op *op)
{
    uint64_t blocks = product(op->launch.qmd_grid) * product(op->launch.qmd_cluster) - op->msg.launch.exits;
    if (blocks > MAX_PLACED) {
        lithos_warning("virtual GPU: kernel %s: %llu blocks are too many to interpret",
                       op->launch.entry->name, (unsigned long long)blocks);
        return CUDA_ERROR_NOT_SUPPORTED;
    }
    free(op->launch.placement); /* of a graph's node before it was changed */
    op->launch.placement = malloc(LITHOS_MAX(blocks, 1u) * sizeof(uint16_t));
    if (!op->launch.placement)
        return CUDA_ERROR_OUT_OF_MEMORY;
    memset(op->launch.placement, 0xff, blocks * sizeof(uint16_t));
    op->launch.placement_blocks = blocks;
    op->msg.launch.flags |= VGPU_LAUNCH_WANT_PLACEMENT;
    return CUDA_SUCCESS;
}

/* What is in the QMD once its subscriber has had it. */
static CUresult read_back(struct vgpu_op *op)
{
    const struct vgpu_card *card = &vgpu.devices[op->stream->ctx->device].card;
    struct lithos_qmd_view view;
    lithos_qmd_decode(vgpu_qmd_layout(card), op->msg.launch.qmd, &view);
    if (op->kind == VGPU_OP_MEMSET && view.entry != MEMSET_ADDRESS) {
        vgpu_context_fault(op->stream->ctx, VGPU_CUDA_ERROR_ILLEGAL_INSTRUCTION,
                           "kernel %s: its QMD was made to start at %#llx", op->msg.launch.kernel,
                           (unsigned long long)view.entry);
        return VGPU_CUDA_ERROR_ILLEGAL_INSTRUCTION;
    }
    VGPU_TRY(vgpu_stamps_check(op));
    if (op->kind != VGPU_OP_LAUNCH)
        return CUDA_SUCCESS;
    for (int i = 0; i < 3; i++) {
        op->launch.qmd_grid[i] = view.grid[i];
        op->launch.qmd_cluster[i] =
            view.type == LITHOS_QMD_TYPE_CLUSTERS ? LITHOS_MAX(view.cluster[i], 1u) : 1;
    }
    op->launch.masked = view.masked;
    op->launch.mask = view.tpcs;
    op->launch.nothing = product(op->launch.qmd_grid) == 0;
    if (op->launch.nothing)
        return CUDA_SUCCESS;
    VGPU_TRY(vgpu_atom_read(op));
    return op->launch.entry->timing_only ? CUDA_SUCCESS : make_placement(op);
}

CUresult vgpu_launch_hook(struct vgpu_op *op, bool in_graph)
{
    vgpu_qmd_fire(op->msg.launch.qmd, op->stream->ctx, op->kind == VGPU_OP_LAUNCH ? op->launch.func : NULL);
    VGPU_TRY(read_back(op));
    if (!in_graph)
        vgpu_atom_account(op);
    return CUDA_SUCCESS;
}

struct vgpu_op *vgpu_op_clone(const struct vgpu_op *op, struct CUstream_st *stream)
{
    struct vgpu_op *c = vgpu_op_new(stream, op->kind);
    if (!c)
        return NULL;
    uint64_t id = c->id;
    *c = *op;
    c->id = id;
    c->stream = stream;
    c->next = c->hash_next = NULL;
    c->mark = NULL;
    if (op->kind == VGPU_OP_COPY && op->copy.staged) {
        c->copy.staged = malloc(LITHOS_MAX(op->copy.bytes, 1u));
        if (c->copy.staged)
            memcpy(c->copy.staged, op->copy.staged, op->copy.bytes);
        c->copy.src = c->copy.staged;
    }
    if (op->kind != VGPU_OP_LAUNCH)
        return c;
    c->msg.launch.cut_missed = c->msg.launch.cut_twice = 0; /* told once */
    atomic_fetch_add(&c->launch.program->refs, 1);
    size_t bytes = LITHOS_MAX(op->launch.entry->param_bytes, 1u);
    c->launch.params = malloc(bytes);
    if (op->launch.placement)
        c->launch.placement = malloc(LITHOS_MAX(op->launch.placement_blocks, 1u) * sizeof(uint16_t));
    if (!c->launch.params || (op->launch.placement && !c->launch.placement)) {
        vgpu_op_free(c);
        return NULL;
    }
    memcpy(c->launch.params, op->launch.params, bytes);
    if (c->launch.placement)
        memset(c->launch.placement, 0xff, op->launch.placement_blocks * sizeof(uint16_t));
    return c;
}

CUresult vgpu_submit(struct vgpu_op *op, bool wait)
{
    if (op->stream->capture) {
        if (!wait)
            return vgpu_capture_add(op->stream, op);
        vgpu_op_free(op);
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    if (op->kind == VGPU_OP_LAUNCH || op->kind == VGPU_OP_MEMSET) {
        CUresult r = vgpu_launch_hook(op, false);
        if (r) {
            vgpu_op_free(op);
            return r;
        }
    }
    return vgpu_issue(op, wait);
}

/* ---- entry points */

static CUresult launch(CUfunction handle, const struct vgpu_launch_request *r, CUstream stream,
                       bool per_thread, void **params, void **extra)
{
    struct CUstream_st *s;
    struct CUfunc_st *f;
    struct vgpu_op *op;
    VGPU_TRY(vgpu_stream_get(stream, per_thread, &s));
    VGPU_TRY(vgpu_func_get(handle, &f));
    struct vgpu_launch_request full = *r;
    if (f->entry->cluster[0] && product(full.cluster) == 1)
        memcpy(full.cluster, f->entry->cluster, sizeof full.cluster); /* .reqnctapercluster */
    VGPU_TRY(vgpu_launch_prepare(f, s, &full, params, extra, &op));
    return vgpu_submit(op, false);
}

#define GRID_PARAMS                                                                                       \
    unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx, unsigned int by, unsigned int bz, \
        unsigned int shared, CUstream stream
#define GRID_REQUEST(coop)                                         \
    &(struct vgpu_launch_request)                                  \
    {                                                              \
        {gx, gy, gz}, {bx, by, bz}, {1, 1, 1}, shared, coop, false \
    }

CU_API(cuLaunchKernel, CUfunction f, GRID_PARAMS, void **params, void **extra)
{
    return launch(f, GRID_REQUEST(false), stream, false, params, extra);
}

CU_API(cuLaunchKernel_ptsz, CUfunction f, GRID_PARAMS, void **params, void **extra)
{
    return launch(f, GRID_REQUEST(false), stream, true, params, extra);
}

CU_API(cuLaunchCooperativeKernel, CUfunction f, GRID_PARAMS, void **params)
{
    return launch(f, GRID_REQUEST(true), stream, false, params, NULL);
}

CU_API(cuLaunchCooperativeKernel_ptsz, CUfunction f, GRID_PARAMS, void **params)
{
    return launch(f, GRID_REQUEST(true), stream, true, params, NULL);
}

/* What of CUlaunchAttributeID has a meaning here; hints are taken and ignored. */
static CUresult apply_attribute(const CUlaunchAttribute *a, struct vgpu_launch_request *r)
{
    switch (a->id) {
    case CU_LAUNCH_ATTRIBUTE_COOPERATIVE:
        r->cooperative = a->value.cooperative != 0;
        return CUDA_SUCCESS;
    case CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION:
        r->cluster[0] = a->value.clusterDim.x;
        r->cluster[1] = a->value.clusterDim.y;
        r->cluster[2] = a->value.clusterDim.z;
        return r->cluster[0] && r->cluster[1] && r->cluster[2] ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    case CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION:
        r->overlap = a->value.programmaticStreamSerializationAllowed != 0;
        return CUDA_SUCCESS;
    case CU_LAUNCH_ATTRIBUTE_PRIORITY:
    case 0:  /* IGNORE */
    case 1:  /* ACCESS_POLICY_WINDOW */
    case 3:  /* SYNCHRONIZATION_POLICY */
    case 5:  /* CLUSTER_SCHEDULING_POLICY_PREFERENCE */
    case 9:  /* MEM_SYNC_DOMAIN_MAP */
    case 10: /* MEM_SYNC_DOMAIN */
    case 14: /* PREFERRED_SHARED_MEMORY_CARVEOUT */
        return CUDA_SUCCESS;
    default:
        lithos_warning("virtual GPU: cuLaunchKernelEx: launch attribute %d is not implemented", a->id);
        return CUDA_ERROR_NOT_SUPPORTED;
    }
}

static CUresult launch_ex(const CUlaunchConfig *c, CUfunction f, void **params, void **extra, bool per_thread)
{
    VGPU_ENTER();
    if (!c || (c->numAttrs && !c->attrs))
        return CUDA_ERROR_INVALID_VALUE;
    struct vgpu_launch_request r = {
        .grid = {c->gridDimX, c->gridDimY, c->gridDimZ},
        .block = {c->blockDimX, c->blockDimY, c->blockDimZ},
        .cluster = {1, 1, 1},
        .shared_dynamic = c->sharedMemBytes,
    };
    for (unsigned i = 0; i < c->numAttrs; i++)
        VGPU_TRY(apply_attribute(&c->attrs[i], &r));
    return launch(f, &r, c->hStream, per_thread, params, extra);
}

CU_API(cuLaunchKernelEx, const CUlaunchConfig *config, CUfunction f, void **params, void **extra)
{
    return launch_ex(config, f, params, extra, false);
}

CU_API(cuLaunchKernelEx_ptsz, const CUlaunchConfig *config, CUfunction f, void **params, void **extra)
{
    return launch_ex(config, f, params, extra, true);
}
