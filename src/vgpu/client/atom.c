/* Atoms: launches whose descriptor was made that of a part of their grid, with a prelude in the place of the kernel
 * (docs/hardware.md, "Atoms"). The prelude's machine code is followed as a card would run it. */
#include <string.h>

#include "hw/atom.h"
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

static bool is_line(const struct vgpu_atom *a)
{
    return a->prelude && a->kind == LITHOS_PRELUDE_LINE;
}

/* As the prelude computes, in 32 bits. */
bool vgpu_atom_exits(const struct vgpu_op *op, const uint32_t ctaid[3])
{
    const struct vgpu_atom *a = &op->launch.atom;
    if (is_line(a))
        return (ctaid[2] * a->height + ctaid[1]) * a->width + ctaid[0] - a->lo >= a->span;
    return a->prelude && ctaid[a->kind] < a->lo;
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

/* What the prelude reads of its entry. */
static CUresult read_entry(const struct vgpu_op *op, const struct lithos_prelude_meaning *m, uint64_t bank,
                           uint32_t bytes, struct vgpu_atom *a, uint64_t *ret_target)
{
    const struct {
        uint32_t offset;
        uint32_t *ret;
    } words[] = {{m->lo_offset, &a->lo},
                 {m->span_offset, &a->span},
                 {m->width_offset, &a->width},
                 {m->height_offset, &a->height}};
    unsigned count = m->kind == LITHOS_PRELUDE_LINE ? 4 : 1;
    for (unsigned i = 0; i < count; i++)
        VGPU_TRY(read_word(op, bank, bytes, words[i].offset, sizeof *words[i].ret, words[i].ret));
    return read_word(op, bank, bytes, m->target_offset, sizeof *ret_target, ret_target);
}

/* Of the blocks launched, those that end in the prelude. */
static uint64_t exits(const struct vgpu_op *op)
{
    const struct vgpu_atom *a = &op->launch.atom;
    uint64_t all = all_blocks(op), side = is_line(a) ? all : blocks_along(op, a->kind);
    uint64_t lo = LITHOS_MIN((uint64_t)a->lo, side);
    if (is_line(a)) /* slices of the slowest dimension: what is launched is the beginning of the line */
        return all - (LITHOS_MIN((uint64_t)a->lo + a->span, all) - lo);
    return side ? all / side * lo : 0;
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
    if (!lithos_qmd_get_bank(layout, qmd, m.bank, &bank, &bytes))
        return lost(op, CUDA_ERROR_ILLEGAL_ADDRESS,
                    "has a prelude that reads a constant bank which is not valid", entry);
    if (m.registers > op->launch.entry->registers)
        return lost(op, VGPU_CUDA_ERROR_ILLEGAL_INSTRUCTION,
                    "has a prelude that uses more registers than its kernel", entry);
    a->prelude = true;
    a->kind = m.kind;
    a->entry = bank;
    VGPU_TRY(read_entry(op, &m, bank, bytes, a, &target));
    if (is_line(a) && (a->width != op->launch.grid[0] || a->height != op->launch.grid[1]))
        return lost(op, CUDA_ERROR_LAUNCH_FAILED,
                    "has a prelude that was told of another grid than its kernel's", bank);
    op->msg.launch.exits = exits(op);
    if (op->msg.launch.exits < all_blocks(op) && target != op->launch.address)
        return lost(op, VGPU_CUDA_ERROR_ILLEGAL_INSTRUCTION,
                    "has a prelude that jumps to what is not its kernel", target);
    return CUDA_SUCCESS;
}

CUresult vgpu_atom_check(const struct vgpu_op *op)
{
    const struct vgpu_atom *a = &op->launch.atom;
    struct lithos_prelude_entry now;
    if (!a->prelude)
        return CUDA_SUCCESS;
    const uint8_t *host = vgpu_translate(a->entry, sizeof now, NULL);
    if (!host)
        return lost(op, CUDA_ERROR_ILLEGAL_ADDRESS,
                    "named a constant bank that is no longer mapped when it runs", a->entry);
    memcpy(&now, host, sizeof now);
    if (now.lo == a->lo &&
        (!is_line(a) || (now.span == a->span && now.width == a->width && now.height == a->height)))
        return CUDA_SUCCESS;
    return lost(op, CUDA_ERROR_LAUNCH_FAILED, "named a constant bank that has changed since it was launched",
                a->entry);
}

/* ---- each block once, over the atoms of a kernel */

static uint64_t product(const uint32_t d[3])
{
    return (uint64_t)d[0] * d[1] * d[2];
}

/* Along the slowest dimension ranges are counted in blocks of the line, where the next atom may begin within a slice. */
static uint64_t side_of(const uint32_t grid[3], unsigned dim)
{
    return dim == LITHOS_PRELUDE_LINE ? product(grid) : grid[dim];
}

static void close_cut(struct vgpu_op *op)
{
    struct CUstream_st *s = op->stream;
    if (!s->cut.address)
        return;
    uint64_t side = side_of(s->cut.grid, s->cut.dim);
    uint64_t missed = product(s->cut.grid) / side * (side - s->cut.next);
    op->msg.launch.cut_missed += missed;
    if (missed)
        lithos_warning("virtual GPU: of the kernel before %s in its stream %llu blocks were never launched",
                       op->msg.launch.kernel, (unsigned long long)missed);
    s->cut.address = 0;
}

static void begin_cut(struct vgpu_op *op, unsigned dim)
{
    struct CUstream_st *s = op->stream;
    s->cut.address = op->launch.address;
    s->cut.dim = dim;
    memcpy(s->cut.grid, op->launch.grid, sizeof s->cut.grid);
}

/* Under lock. */
static void account(struct vgpu_op *op)
{
    struct CUstream_st *s = op->stream;
    const struct vgpu_atom *a = &op->launch.atom;
    uint64_t unit = product(op->launch.grid) / a->units;
    bool same = s->cut.address == op->launch.address;
    if (a->from == 0) {
        close_cut(op);
        begin_cut(op, a->dim);
    } else if (!same || s->cut.dim != a->dim || s->cut.next != a->from ||
               memcmp(s->cut.grid, op->launch.grid, sizeof s->cut.grid) != 0) {
        bool twice = same && a->from < s->cut.next;
        lithos_warning("virtual GPU: kernel %s: an atom begins with block %llu along dimension %u, where "
                       "%llu was due",
                       op->msg.launch.kernel, (unsigned long long)a->from, a->dim,
                       (unsigned long long)(s->cut.address ? s->cut.next : 0));
        *(twice ? &op->msg.launch.cut_twice : &op->msg.launch.cut_missed) +=
            unit * (twice ? s->cut.next - a->from : a->from - (same ? s->cut.next : 0));
        begin_cut(op, a->dim);
    }
    s->cut.next = a->to;
    if (a->to == a->units)
        s->cut.address = 0;
}

void vgpu_atom_account(struct vgpu_op *op)
{
    const struct vgpu_atom *a = &op->launch.atom;
    if (op->kind != VGPU_OP_LAUNCH || !a->units)
        return;
    pthread_mutex_lock(&vgpu.lock);
    if (a->part)
        account(op);
    else
        close_cut(op);
    pthread_mutex_unlock(&vgpu.lock);
}

/* Along the slowest dimension ranges are counted in blocks of the line, where the next atom may begin within a slice. */
static void set_range(struct vgpu_op *op, unsigned dim, uint64_t from, uint64_t to)
{
    struct vgpu_atom *a = &op->launch.atom;
    if (dim == lithos_cut_dim(op->launch.grid)) {
        uint64_t slice = product(op->launch.grid) / op->launch.grid[dim];
        dim = LITHOS_PRELUDE_LINE;
        from *= slice;
        to *= slice;
    }
    a->dim = dim;
    a->from = from;
    a->to = to;
    a->units = side_of(op->launch.grid, dim);
}

/* As it is launched, before the hook has had it. */
static void reset(struct vgpu_op *op)
{
    op->launch.atom = (struct vgpu_atom){.prelude = false};
    op->msg.launch.exits = 0;
    op->msg.launch.flags &= ~VGPU_LAUNCH_ATOM;
}

CUresult vgpu_atom_read(struct vgpu_op *op)
{
    struct lithos_qmd_view view;
    lithos_qmd_decode(vgpu_qmd_layout(&vgpu.devices[op->stream->ctx->device].card), op->msg.launch.qmd,
                      &view);
    size_t bytes;
    struct vgpu_atom *a = &op->launch.atom;
    reset(op);
    if (view.entry != op->launch.address || vgpu_code_at(op->stream->ctx, view.entry, &bytes))
        VGPU_TRY(follow(op, view.entry));
    if (op->msg.launch.exits == all_blocks(op) && a->prelude)
        return CUDA_SUCCESS; /* nothing of it runs: not a part of anything */
    unsigned lowered = 0, slowest = lithos_cut_dim(op->launch.grid);
    unsigned dim = is_line(a) ? slowest : a->prelude ? a->kind : 0;
    bool other = false;
    for (unsigned i = 0; i < 3; i++)
        if (blocks_along(op, i) != op->launch.grid[i]) {
            lowered++;
            other = other || (a->prelude && i != dim);
            dim = i;
        }
    if (lowered > 1 || other || blocks_along(op, dim) > op->launch.grid[dim])
        return lost(op, CUDA_ERROR_LAUNCH_FAILED, "was made that of blocks that are no part of its grid",
                    view.entry);
    uint64_t lo = a->prelude ? a->lo : 0, hi = blocks_along(op, dim);
    if (is_line(a)) {
        dim = LITHOS_PRELUDE_LINE;
        hi = LITHOS_MIN(lo + a->span, all_blocks(op));
    }
    set_range(op, dim, lo, hi);
    a->part = lo || lowered || op->msg.launch.exits;
    if (a->part)
        op->msg.launch.flags |= VGPU_LAUNCH_ATOM;
    return CUDA_SUCCESS;
}
