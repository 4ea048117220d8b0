/* A context's channel group: made, and gone, by calls into the kernel driver (vgpu/rm), as NVIDIA's libcuda does it. */
#include <sys/ioctl.h>

#include "cuda/rm_abi.h"
#include "vgpu/client/client.h"

/* Handles as NVIDIA's look; a device's is its parent's. */
#define CLIENT 0xc1d00001u
#define DEVICE 0x5c000001u

void vgpu_group_make(const struct CUctx_st *ctx)
{
    uint64_t number = ctx->id;
    struct lithos_rm_alloc a = {.client = CLIENT,
                                .parent = DEVICE + (uint32_t)ctx->device,
                                .object = (uint32_t)ctx->id,
                                .class = LITHOS_RM_CLASS_CHANNEL_GROUP,
                                .params = (uintptr_t)&number,
                                .params_bytes = sizeof number};
    /* Under MPS the channels are the server's. */
    if (!vgpu.mps && ioctl(vgpu.fd, LITHOS_RM_REQUEST(LITHOS_RM_ALLOC, struct lithos_rm_alloc), &a) < 0)
        lithos_debug("virtual GPU: no channel group");
}

void vgpu_group_free(const struct CUctx_st *ctx)
{
    struct lithos_rm_free f = {
        .client = CLIENT, .parent = DEVICE + (uint32_t)ctx->device, .object = (uint32_t)ctx->id};
    if (!vgpu.mps && ioctl(vgpu.fd, LITHOS_RM_REQUEST(LITHOS_RM_FREE, struct lithos_rm_free), &f) < 0)
        lithos_debug("virtual GPU: no channel group to free");
}
