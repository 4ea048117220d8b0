/* Atoms: launches whose descriptor was made that of a part of their grid, with a prelude in the place of the kernel
 * (docs/hardware.md, "Atoms"). The prelude's machine code is followed as a card would run it. */
#include <string.h>

#include "hw/prelude.h"
#include "hw/qmd_atom.h"
#include "vgpu/client/client.h"

static uint64_t blocks_along(const struct vgpu_op *op, unsigned dim)
{
    return (uint64_t)op->launch.qmd_grid[dim] * op->launch.qmd_cluster[dim];
}

static uint64_t all_blocks(const struct vgpu_op *op)
{
    return blocks_along(op, 0) * blocks_along(op, 1) * blocks_along(op, 2);
}

bool vgpu_atom_exits(const struct vgpu_op *op, const uint32_t ctaid[3])
{
    const struct vgpu_atom *a = &op->launch.atom;
    return a->prelude && ctaid[a->dim] < a->lo;
}

/* ---- the prelude */

static CUresult lost(const struct vgpu_op *op, CUresult result, const char *what, uint64_t address)
{
    vgpu_context_fault(op->stream->ctx, result, "kernel %s: its QMD %s (%#llx)", op->msg.launch.kernel, what,
                       (unsigned long long)address);
    return result;
}

static CUresult read_word(const struct vgpu_op *op, uint64_t bank, uint32_t bank_bytes, uint32_t offset,
                          uint32_t size, void *ret)
{
    const uint8_t *host = vgpu_translate(bank + offset, size, NULL);
    if (offset + size > bank_bytes)
        return lost(op, CUDA_ERROR_ILLEGAL_ADDRESS, "has a prelude that reads beyond its constant bank",
                    bank);
    if (!host)
        return lost(op, CUDA_ERROR_ILLEGAL_ADDRESS, "names a constant bank where nothing is mapped", bank);
    memcpy(ret, host, size);
    return CUDA_SUCCESS;
}

static CUresult follow(struct vgpu_op *op, uint64_t entry)
{
    const struct lithos_qmd_layout *layout = vgpu_qmd_layout(&vgpu.devices[op->stream->ctx->device].card);
    const void *qmd = op->msg.launch.qmd;
    struct vgpu_atom *a = &op->launch.atom;
    struct lithos_prelude_meaning m;
    uint64_t bank, target;
    uint32_t bytes;
    size_t code_bytes;
    const uint8_t *code = vgpu_code_at(op->stream->ctx, entry, &code_bytes);
    if (!code || entry % LITHOS_PRELUDE_INSTRUCTION_BYTES || lithos_prelude_decode(code, code_bytes, &m) < 0)
        return lost(op, VGPU_CUDA_ERROR_ILLEGAL_INSTRUCTION,
                    "was made to start where the virtual GPU has no code that it understands", entry);
    if (m.lo_bank != m.target_bank || !lithos_qmd_get_bank(layout, qmd, m.lo_bank, &bank, &bytes))
        return lost(op, CUDA_ERROR_ILLEGAL_ADDRESS,
                    "has a prelude that reads a constant bank which is not valid", entry);
    if (m.registers > op->launch.entry->registers)
        return lost(op, VGPU_CUDA_ERROR_ILLEGAL_INSTRUCTION,
                    "has a prelude that uses more registers than its kernel", entry);
    a->prelude = true;
    a->dim = m.dim;
    a->entry = bank;
    VGPU_TRY(read_word(op, bank, bytes, m.lo_offset, sizeof a->lo, &a->lo));
    VGPU_TRY(read_word(op, bank, bytes, m.target_offset, sizeof target, &target));
    uint64_t side = blocks_along(op, a->dim), below = LITHOS_MIN((uint64_t)a->lo, side);
    op->msg.launch.exits = side ? all_blocks(op) / side * below : 0;
    if (op->msg.launch.exits < all_blocks(op) && target != op->launch.address)
        return lost(op, VGPU_CUDA_ERROR_ILLEGAL_INSTRUCTION,
                    "has a prelude that jumps to what is not its kernel", target);
    return CUDA_SUCCESS;
}

CUresult vgpu_atom_check(const struct vgpu_op *op)
{
    const struct vgpu_atom *a = &op->launch.atom;
    uint32_t lo;
    if (!a->prelude)
        return CUDA_SUCCESS;
    const uint8_t *host = vgpu_translate(a->entry, sizeof lo, NULL);
    if (!host)
        return lost(op, CUDA_ERROR_ILLEGAL_ADDRESS,
                    "named a constant bank that is no longer mapped when it runs", a->entry);
    memcpy(&lo, host + offsetof(struct lithos_prelude_entry, lo), sizeof lo);
    if (lo == a->lo)
        return CUDA_SUCCESS;
    return lost(op, CUDA_ERROR_LAUNCH_FAILED, "named a constant bank that has changed since it was launched",
                a->entry);
}

/* ---- each block once, over the atoms of a kernel */

static uint64_t product(const uint32_t d[3])
{
    return (uint64_t)d[0] * d[1] * d[2];
}

static void close_cut(struct vgpu_op *op)
{
    struct CUstream_st *s = op->stream;
    if (!s->cut.address)
        return;
    uint32_t side = s->cut.grid[s->cut.dim];
    uint64_t missed = product(s->cut.grid) / side * (side - s->cut.next);
    op->msg.launch.cut_missed += missed;
    if (missed)
        lithos_warning("virtual GPU: of the kernel before %s in its stream %llu blocks were never launched",
                       op->msg.launch.kernel, (unsigned long long)missed);
    s->cut.address = 0;
}

/* A range of blocks along one dimension. Under lock. */
static void account(struct vgpu_op *op, unsigned dim, uint32_t lo, uint32_t hi)
{
    struct CUstream_st *s = op->stream;
    uint64_t slice = product(op->launch.grid) / op->launch.grid[dim];
    if (lo == 0) {
        close_cut(op);
        s->cut.address = op->launch.address;
        s->cut.dim = dim;
        memcpy(s->cut.grid, op->launch.grid, sizeof s->cut.grid);
    } else if (s->cut.address != op->launch.address || s->cut.dim != dim || s->cut.next != lo ||
               memcmp(s->cut.grid, op->launch.grid, sizeof s->cut.grid) != 0) {
        bool twice = s->cut.address == op->launch.address && lo < s->cut.next;
        lithos_warning(
            "virtual GPU: kernel %s: an atom begins with block %u along dimension %u, where %u was due",
            op->msg.launch.kernel, lo, dim, s->cut.address ? s->cut.next : 0);
        *(twice ? &op->msg.launch.cut_twice : &op->msg.launch.cut_missed) +=
            slice *
            (twice ? s->cut.next - lo : lo - (s->cut.address == op->launch.address ? s->cut.next : 0));
        s->cut.address = op->launch.address;
        s->cut.dim = dim;
        memcpy(s->cut.grid, op->launch.grid, sizeof s->cut.grid);
    }
    s->cut.next = hi;
    if (hi == op->launch.grid[dim])
        s->cut.address = 0;
}

CUresult vgpu_atom_read(struct vgpu_op *op)
{
    struct lithos_qmd_view view;
    lithos_qmd_decode(vgpu_qmd_layout(&vgpu.devices[op->stream->ctx->device].card), op->msg.launch.qmd,
                      &view);
    size_t bytes;
    struct vgpu_atom *a = &op->launch.atom;
    if (view.entry != op->launch.address || vgpu_code_at(op->stream->ctx, view.entry, &bytes))
        VGPU_TRY(follow(op, view.entry));
    unsigned lowered = 0, dim = a->prelude ? a->dim : 0;
    for (unsigned i = 0; i < 3; i++)
        if (blocks_along(op, i) != op->launch.grid[i]) {
            lowered++;
            dim = i;
        }
    if (op->msg.launch.exits == all_blocks(op) && a->prelude)
        return CUDA_SUCCESS; /* nothing of it runs: not a part of anything */
    if (lowered > 1 || (lowered && a->prelude && dim != a->dim) ||
        blocks_along(op, dim) > op->launch.grid[dim])
        return lost(op, CUDA_ERROR_LAUNCH_FAILED, "was made that of blocks that are no part of its grid",
                    view.entry);
    uint32_t lo = a->prelude ? a->lo : 0, hi = (uint32_t)blocks_along(op, dim);
    if (lo || lowered)
        op->msg.launch.flags |= VGPU_LAUNCH_ATOM;
    pthread_mutex_lock(&vgpu.lock);
    if (lo || lowered)
        account(op, dim, lo, hi);
    else
        close_cut(op);
    pthread_mutex_unlock(&vgpu.lock);
    return CUDA_SUCCESS;
}
