/* The callback's part of atoms: what a kernel's queue descriptor says decides how it is cut, and becomes that of an atom. No driver
 * call, wait or allocation. */
#include <errno.h>

#include "base/util.h"
#include "driver/atoms.h"
#include "driver/atoms_context.h"
#include "driver/qmd_hook.h"
#include "hw/qmd_atom.h"
#include "hw/sm.h"

/* Blocks that may end in the prelude, all atoms of a kernel together: some 60 ps each (docs/hardware.md), so 4 ms. */
#define EXITS_MAX (1ull << 26)

static struct lithos_prelude_entry entry_of(const struct lithos_atom *a, const struct lithos_part *p)
{
    struct lithos_prelude_entry e = {.lo = p->lo * a->unit_blocks, .target = a->target};
    if (a->cut.line) {
        e.span = (p->hi - p->lo) * a->unit_blocks;
        e.width = a->grid[0];
        e.height = a->grid[1];
    }
    return e;
}

/* Every entry that the cut will need, so that no later atom can find the room used up. */
static bool reserve(const struct lithos_atom *a)
{
    for (uint32_t i = 0; i < a->cut.count; i++) {
        struct lithos_part p = lithos_cut_part(&a->cut, i);
        struct lithos_prelude_entry e = entry_of(a, &p);
        if (p.has_exits && !lithos_atoms_context_entry(a->where, &e))
            return false;
    }
    return true;
}

/* Most blocks of it that an SM may hold at once, at least 1. The shared memory in a QMD may or may not include what the system
 * takes. */
static uint32_t blocks_per_sm(const struct lithos_sm *sm, const struct lithos_qmd_view *v)
{
    uint32_t reserved = sm->block_shared_reserved_bytes;
    uint32_t shared = v->shared_bytes > reserved ? v->shared_bytes - reserved : 0;
    uint64_t threads = (uint64_t)v->block[0] * v->block[1] * v->block[2];
    uint32_t blocks =
        lithos_sm_blocks(sm, (uint32_t)LITHOS_MIN(threads, (uint64_t)UINT32_MAX), v->registers, shared);
    return LITHOS_MAX(blocks, 1u);
}

/* The driver may run kernels of its own within a launch. */
static bool is_of_launch(const struct lithos_atom *a, const struct lithos_qmd_view *v)
{
    for (int i = 0; i < 3; i++)
        if ((uint64_t)v->grid[i] * v->cluster[i] != a->grid[i] || v->block[i] != a->block[i])
            return false;
    return true;
}

/* Whether it can be an atom's at all. */
static enum lithos_whole examine(const struct lithos_atom *a, const struct lithos_qmd_layout *layout,
                                 const void *qmd, struct lithos_qmd_view *ret_view)
{
    struct lithos_qmd_view v;
    if (lithos_qmd_atom_capable(layout, a->chained) < 0)
        return LITHOS_WHOLE_UNKNOWN;
    if (lithos_qmd_waits_on_latch(layout, qmd))
        return LITHOS_WHOLE_PDL;
    if (lithos_qmd_bank_used(layout, qmd, LITHOS_PRELUDE_BANK))
        return LITHOS_WHOLE_SLOT;
    lithos_qmd_decode(layout, qmd, &v);
    if ((v.type != LITHOS_QMD_TYPE_GRID && v.type != LITHOS_QMD_TYPE_CLUSTERS) || !is_of_launch(a, &v) ||
        !v.entry || v.registers < lithos_atoms_context_registers(a->where) || !v.cluster[0] ||
        !v.cluster[1] || !v.cluster[2])
        return LITHOS_WHOLE_UNKNOWN;
    *ret_view = v;
    return LITHOS_WHOLE_NOT;
}

static enum lithos_whole cut_by_choice(struct lithos_atom *a, const struct lithos_qmd_view *v, bool line,
                                       uint64_t blocks, uint64_t wave_blocks)
{
    uint32_t cluster = v->cluster[0] * v->cluster[1] * v->cluster[2];
    struct lithos_atom_choice choice = a->choice;
    if (!a->known)
        choice = lithos_atom_choice_first(&a->policy, (blocks + wave_blocks - 1) / wave_blocks);
    if (!choice.waves)
        return choice.whole;
    a->cut = lithos_cut_waves(v->grid, line, LITHOS_MAX(wave_blocks / cluster, 1u), choice.waves);
    return a->cut.count < 2 ? LITHOS_WHOLE_SHORT : LITHOS_WHOLE_NOT;
}

/* What the first atom's QMD says: fills in the cut, or tells why not. */
static enum lithos_whole decide(struct lithos_atom *a, const struct lithos_hook_device *device,
                                const struct lithos_qmd_seen *seen)
{
    const struct lithos_sm *sm = device ? lithos_sm(device->cc_major, device->cc_minor) : NULL;
    struct lithos_qmd_view v;
    if (!seen->layout || !sm)
        return LITHOS_WHOLE_UNKNOWN;
    enum lithos_whole why = examine(a, seen->layout, seen->qmd, &v);
    if (why != LITHOS_WHOLE_NOT)
        return why;
    uint64_t cluster = (uint64_t)v.cluster[0] * v.cluster[1] * v.cluster[2];
    uint64_t blocks = (uint64_t)v.grid[0] * v.grid[1] * v.grid[2] * cluster;
    uint32_t tpc_sms = atomic_load_explicit(&device->tpc_sms, memory_order_relaxed);
    uint32_t sms = LITHOS_MIN(lithos_tpcset_count(&seen->tpcs) * tpc_sms, (uint32_t)device->sm_count);
    bool line = v.cluster[1] == 1 && v.cluster[2] == 1 && blocks <= UINT32_MAX;
    a->blocks_per_sm = blocks_per_sm(sm, &v);
    if (blocks <= (uint64_t)a->blocks_per_sm * (uint64_t)device->sm_count)
        return LITHOS_WHOLE_ONE_WAVE;
    if (a->policy.mode == LITHOS_ATOM_FORCE) {
        a->cut = lithos_cut_make(v.grid, line, a->policy.count);
        why = a->cut.count < 2 ? LITHOS_WHOLE_ONE_WAVE : LITHOS_WHOLE_NOT;
    } else {
        why = cut_by_choice(a, &v, line, blocks, (uint64_t)a->blocks_per_sm * LITHOS_MAX(sms, 1u));
    }
    if (why != LITHOS_WHOLE_NOT)
        return why;
    if (a->nodes && a->cut.count > a->nodes)
        a->cut = lithos_cut_make(v.grid, line, a->nodes);
    if (lithos_cut_exits(&a->cut, blocks / a->cut.units) > EXITS_MAX)
        return LITHOS_WHOLE_EXITS;
    a->unit_blocks = a->cut.line ? v.cluster[0] : v.cluster[a->cut.dim];
    a->target = v.entry;
    return reserve(a) ? LITHOS_WHOLE_NOT : LITHOS_WHOLE_POOL;
}

static int make_part(const struct lithos_atom *a, const struct lithos_qmd_layout *layout, void *qmd)
{
    struct lithos_part p = lithos_cut_part(&a->cut, a->index);
    struct lithos_qmd_atom part = {
        .dim = a->cut.dim, .hi = p.side, .pre_exit = a->chained && a->index + 1 < a->cut.count};
    if (lithos_qmd_entry(layout, qmd) != a->target)
        return -ESTALE;
    if (p.has_exits) {
        struct lithos_prelude_entry e = entry_of(a, &p);
        part.code = lithos_atoms_context_code(a->where, a->cut.line ? LITHOS_PRELUDE_LINE : a->cut.dim);
        part.entry = lithos_atoms_context_entry(a->where, &e);
        if (!part.entry)
            return -ENOSPC;
    }
    return lithos_qmd_set_atom(layout, qmd, &part);
}

/* The prelude's own launch. */
static void locate(struct lithos_atom *a, const struct lithos_qmd_layout *layout, void *qmd)
{
    if (!layout)
        return;
    uint64_t code = lithos_qmd_entry(layout, qmd);
    const struct lithos_qmd_atom nothing = {
        .hi = 1, .code = code, .entry = lithos_atoms_context_nothing(a->where)};
    if (lithos_qmd_set_atom(layout, qmd, &nothing) == 0)
        lithos_atoms_context_located(a->where, code);
}

/* By the first atom's QMD, which becomes it or stays as it is. */
static void make_first(struct lithos_atom *a, const struct lithos_hook_device *device,
                       const struct lithos_qmd_seen *seen)
{
    a->whole = decide(a, device, seen);
    if (a->whole == LITHOS_WHOLE_NOT && make_part(a, seen->layout, seen->qmd) < 0)
        a->whole = LITHOS_WHOLE_UNKNOWN;
    if (a->whole != LITHOS_WHOLE_NOT)
        a->cut.count = 0;
}

bool lithos_atoms_node_qmd(struct lithos_atom *a, const struct lithos_hook_device *device,
                           const struct lithos_qmd_seen *seen)
{
    if (!seen->layout) {
        a->error = -ENOTSUP;
        return false;
    }
    if (a->index == 0 && !a->decided)
        make_first(a, device, seen);
    else if (a->index < a->cut.count)
        a->error = make_part(a, seen->layout, seen->qmd);
    else if (a->index > 0)
        a->error = lithos_qmd_set_side(seen->layout, seen->qmd, 0, 0);
    return a->index + 1 == LITHOS_MAX(a->cut.count, 1u);
}

void lithos_atoms_qmd(struct lithos_atom *a, const struct lithos_hook_device *device,
                      const struct lithos_qmd_seen *seen)
{
    if (a->locate) {
        locate(a, seen->layout, seen->qmd);
        return;
    }
    if (a->index == 0) {
        make_first(a, device, seen);
        return;
    }
    a->error = seen->layout ? make_part(a, seen->layout, seen->qmd) : -ENOTSUP;
    if (a->error < 0 && seen->layout) /* blocks before it have run: rather none than some twice */
        lithos_qmd_set_side(seen->layout, seen->qmd, a->cut.dim, 0);
}
