/* Completion stamps: what a launch's QMD asks to be written to memory when its kernel is over (docs/hardware.md,
 * "Completion stamps"). Release semaphores 1 and 2; number 0 is the driver's, and this driver needs none. */
#include "hw/qmd.h"
#include "vgpu/client/client.h"

struct semaphore {
    enum lithos_qmd_field addr_lower, addr_upper, payload_lower, payload_upper;
};

#define SEMAPHORE(n)                                                                                         \
    {                                                                                                        \
        LITHOS_QMD_RELEASE_SEMAPHORE##n##_ADDR_LOWER, LITHOS_QMD_RELEASE_SEMAPHORE##n##_ADDR_UPPER,          \
            LITHOS_QMD_RELEASE_SEMAPHORE##n##_PAYLOAD_LOWER, LITHOS_QMD_RELEASE_SEMAPHORE##n##_PAYLOAD_UPPER \
    }
#define SEMAPHORES 3u
static const struct semaphore semaphores[SEMAPHORES] = {SEMAPHORE(0), SEMAPHORE(1), SEMAPHORE(2)};

static uint64_t wide(const struct lithos_qmd_layout *layout, const void *qmd, enum lithos_qmd_field lower,
                     enum lithos_qmd_field upper)
{
    return (uint64_t)lithos_qmd_get(layout, qmd, upper, 0) << 32 | lithos_qmd_get(layout, qmd, lower, 0);
}

static bool enabled(const struct lithos_qmd_layout *layout, const void *qmd, unsigned i)
{
    return lithos_qmd_get(layout, qmd, LITHOS_QMD_RELEASE_ENABLE, i) != 0;
}

CUresult vgpu_stamps_check(const struct vgpu_op *op)
{
    const struct lithos_qmd_layout *layout = vgpu_qmd_layout(&vgpu.devices[op->stream->ctx->device].card);
    const void *qmd = op->msg.launch.qmd;
    for (unsigned i = 0; i < SEMAPHORES; i++) {
        if (!enabled(layout, qmd, i))
            continue;
        const char *why = NULL;
        if (i == 0)
            why = "the driver's own";
        else if (lithos_qmd_get(layout, qmd, LITHOS_QMD_RELEASE_STRUCTURE_SIZE, i))
            why = "not of four words";
        else if (lithos_qmd_get(layout, qmd, LITHOS_QMD_RELEASE_REDUCTION_ENABLE, i))
            why = "a reduction";
        else if (lithos_qmd_get(layout, qmd, LITHOS_QMD_RELEASE_TRAP_TYPE, i))
            why = "one with a trap";
        if (!why)
            continue;
        lithos_warning("virtual GPU: kernel %s: its QMD turns on release semaphore %u, %s: not implemented",
                       op->msg.launch.kernel, i, why);
        return CUDA_ERROR_NOT_SUPPORTED;
    }
    return CUDA_SUCCESS;
}

void vgpu_stamps_write(const struct vgpu_op *op, uint64_t end_ns)
{
    struct CUctx_st *ctx = op->stream->ctx;
    const struct lithos_qmd_layout *layout = vgpu_qmd_layout(&vgpu.devices[ctx->device].card);
    const void *qmd = op->msg.launch.qmd;
    for (unsigned i = 1; i < SEMAPHORES; i++) {
        const struct semaphore *s = &semaphores[i];
        if (!enabled(layout, qmd, i))
            continue;
        uint64_t address = wide(layout, qmd, s->addr_lower, s->addr_upper);
        CUresult r =
            vgpu_memory_release(ctx, address, wide(layout, qmd, s->payload_lower, s->payload_upper), end_ns);
        if (!r)
            continue;
        vgpu_context_fault(ctx, r, "kernel %s: release semaphore %u writes to %#llx, %s",
                           op->msg.launch.kernel, i, (unsigned long long)address,
                           r == VGPU_CUDA_ERROR_MISALIGNED_ADDRESS ? "which is no multiple of 16"
                                                                   : "which is not mapped to be written");
        return;
    }
}
