/* What a kernel does to memory, once the server has said where and when its blocks ran. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vgpu/client/client.h"

#define BUDGET 200000000ull /* instructions a launch may take to interpret */
#define NEVER UINT16_MAX
#define MAX_SMS 1024u

/* Under MPS a kernel sees the SMs that its mask allows numbered from 0 (docs/hardware.md, "TPC masks"). */
static void renumber(struct vgpu_op *op, const struct vgpu_card *card, uint32_t *ret_nsmid)
{
    static uint16_t seen_as[MAX_SMS]; /* the reader thread's alone */
    uint32_t sm = 0, n = 0;
    for (unsigned b = lithos_tpcset_next(&card->tpcs, 0); b < LITHOS_TPC_BITS;
         b = lithos_tpcset_next(&card->tpcs, b + 1))
        for (uint32_t i = 0; i < card->sms_per_tpc && sm < MAX_SMS; i++, sm++)
            seen_as[sm] = lithos_tpcset_has(&op->launch.mask, b) ? (uint16_t)n++ : NEVER;
    uint16_t *placement = op->launch.placement;
    for (uint64_t i = 0; i < op->launch.placement_blocks; i++)
        if (placement[i] < sm && seen_as[placement[i]] != NEVER)
            placement[i] = seen_as[placement[i]];
    *ret_nsmid = n;
}

static CUresult result_of(int r)
{
    switch (r) {
    case -EFAULT:
        return CUDA_ERROR_ILLEGAL_ADDRESS;
    case -EILSEQ:
        return VGPU_CUDA_ERROR_MISALIGNED_ADDRESS;
    case -EOVERFLOW:
        return CUDA_ERROR_LAUNCH_TIMEOUT;
    case -ENOMEM:
        return CUDA_ERROR_OUT_OF_MEMORY;
    default:
        return CUDA_ERROR_LAUNCH_FAILED;
    }
}

/* Block i as the server counts: cluster by cluster, x fastest among clusters and within one. */
static void block_index(const struct vgpu_op *op, uint64_t i, uint32_t ret_ctaid[3])
{
    const uint32_t *g = op->launch.qmd_grid, *c = op->launch.qmd_cluster;
    uint64_t of_cluster = (uint64_t)c[0] * c[1] * c[2];
    uint64_t cluster = i / of_cluster;
    uint32_t within = (uint32_t)(i % of_cluster);
    ret_ctaid[0] = (uint32_t)(cluster % g[0]) * c[0] + within % c[0];
    ret_ctaid[1] = (uint32_t)(cluster / g[0] % g[1]) * c[1] + within / c[0] % c[1];
    ret_ctaid[2] = (uint32_t)(cluster / ((uint64_t)g[0] * g[1])) * c[2] + within / (c[0] * c[1]);
}

static int run_blocks(struct vgpu_op *op, struct ptx_launch *launch)
{
    /* Blocks that end in the prelude were not placed: those that were follow one another without them. */
    for (uint64_t i = 0, placed = 0; placed < op->launch.placement_blocks; i++) {
        uint32_t ctaid[3];
        block_index(op, i, ctaid);
        if (vgpu_atom_exits(op, ctaid))
            continue;
        uint16_t sm = op->launch.placement[placed++];
        int r = sm == NEVER ? 0 : ptx_run_block(op->launch.entry, launch, ctaid, sm);
        if (r)
            return r;
    }
    return 0;
}

void vgpu_launch_effect(struct vgpu_op *op, const struct vgpu_done *done)
{
    if (done->blocks_twice)
        lithos_warning("virtual GPU: kernel %s: %u blocks ran more than once", op->launch.entry->name,
                       done->blocks_twice);
    if (vgpu_atom_check(op) || !op->launch.placement)
        return;
    struct CUctx_st *ctx = op->stream->ctx;
    struct ptx_scratch scratch = {NULL, 0};
    struct ptx_launch launch = {
        .shared_dynamic = op->launch.shared_dynamic,
        .params = op->launch.params,
        .globals = op->launch.globals,
        .memory = vgpu_memory_snapshot(),
        .nsmid = (uint32_t)vgpu.devices[ctx->device].card.sm_count,
        .start_ns = done->start_ns,
        .budget = BUDGET,
        .scratch = &scratch,
    };
    memcpy(launch.grid, op->launch.grid, sizeof launch.grid);
    memcpy(launch.block, op->launch.block, sizeof launch.block);
    memcpy(launch.cluster, op->launch.cluster, sizeof launch.cluster);
    if (vgpu.mps && op->launch.masked)
        renumber(op, &vgpu.devices[ctx->device].card, &launch.nsmid);
    int r = launch.memory ? run_blocks(op, &launch) : -ENOMEM;
    free((void *)launch.memory);
    free(scratch.bytes);
    if (r)
        vgpu_context_fault(ctx, result_of(r), "kernel %s: %s", op->launch.entry->name,
                           r == -ENOMEM ? "no memory to interpret it" : launch.message);
}
