/* Host functions run on a thread of their own, so that one that blocks does not keep completions from being read. */
#pragma once

struct vgpu_op;
struct CUctx_st;

/* The stream has reached it. Takes over the op, which is done when its function has returned. */
void vgpu_hostfn_run(struct vgpu_op *op);
/* The op is done: its stream goes on. Consumes it. */
void vgpu_hostfn_end(struct vgpu_op *op);
/* ops.c: send what host functions held back. Under issue. */
void vgpu_pump_all(struct CUctx_st *ctx);
/* ops.c: forget all ops of a context. */
void vgpu_ops_drop(struct CUctx_st *ctx);
