#include "driver/atoms.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "driver/atoms_context.h"
#include "driver/exports.h"
#include "driver/qmd_hook.h"
#include "hw/qmd_atom.h"
#include "hw/sm.h"

/* Overlapping launches came with Hopper. */
#define CHAIN_CC_MAJOR 9
/* Blocks that may end in the prelude, all atoms of a kernel together: 0.1 ns each (docs/hardware.md), so 7 ms. */
#define EXITS_MAX (1ull << 26)
#define ATTRIBUTES_MAX 24u
#define STREAMS 64u /* a power of two */
/* How long a launch waits while another thread is in the middle of a kernel of the same stream, and one of which it is not known
 * which stream it is for. */
#define WAIT_NS (100 * LITHOS_NSEC_PER_MSEC)
#define WAIT_ANY_NS (2 * LITHOS_NSEC_PER_MSEC)

_Atomic uint32_t lithos_atoms_state;

#define STATE_ON 1u
#define STATE_THREAD 2u

static struct {
    _Atomic uint64_t policy; /* mode below, count above */
    _Atomic uint64_t
        held[STREAMS]; /* by hash: the stream (its key) whose kernel a thread is in the middle of */
    _Atomic uint64_t
        cut[STREAMS]; /* by hash: the stream whose last kernel was cut into chained atoms, or SEVERAL */
} atoms;

#define SEVERAL UINT64_MAX

typedef CUresult (*launch_ex_fn)(const CUlaunchConfig *, CUfunction, void **, void **);
typedef CUresult (*is_capturing_fn)(CUstream, int *);

/* ---- policy ---- */

static bool switched_off(void)
{
    static _Atomic int off; /* 0 not looked yet */
    int v = atomic_load_explicit(&off, memory_order_relaxed);
    if (!v) {
        const char *env = getenv("LITHOS_ATOMS");
        v = env && !strcmp(env, "off") ? 1 : -1;
        atomic_store_explicit(&off, v, memory_order_relaxed);
    }
    return v > 0;
}

void lithos_atoms_set_policy(const struct lithos_atom_policy *p)
{
    bool on = p->mode != LITHOS_ATOM_OFF && lithos_atom_policy_validate(p) == 0 && !switched_off();
    atomic_store_explicit(&atoms.policy, on ? p->mode | (uint64_t)p->count << 32 : LITHOS_ATOM_OFF,
                          memory_order_relaxed);
    if (on)
        atomic_fetch_or_explicit(&lithos_atoms_state, STATE_ON, memory_order_relaxed);
    else
        atomic_fetch_and_explicit(&lithos_atoms_state, ~STATE_ON, memory_order_relaxed);
}

static struct lithos_atom_policy policy_now(void)
{
    uint64_t v = atomic_load_explicit(&atoms.policy, memory_order_relaxed);
    return (struct lithos_atom_policy){.mode = (uint32_t)v, .count = (uint32_t)(v >> 32)};
}

/* ---- the callback ---- */

/* Every entry that the cut will need, so that no later atom can find the room used up. */
static bool reserve(struct lithos_atom *a)
{
    for (uint32_t i = 1; i < a->cut.count; i++) {
        uint32_t lo, hi;
        lithos_cut_range(&a->cut, i, &lo, &hi);
        if (!lithos_atoms_context_entry(a->where, lo * a->unit_blocks, a->target))
            return false;
    }
    return true;
}

/* Most blocks that may be resident together. The shared memory in a QMD may or may not include what the system takes. */
static uint64_t wave_blocks(const struct lithos_sm *sm, const struct lithos_hook_device *device,
                            const struct lithos_qmd_view *v)
{
    uint32_t reserved = sm->block_shared_reserved_bytes;
    uint32_t shared = v->shared_bytes > reserved ? v->shared_bytes - reserved : 0;
    uint64_t threads = (uint64_t)v->block[0] * v->block[1] * v->block[2];
    uint32_t blocks =
        lithos_sm_blocks(sm, (uint32_t)LITHOS_MIN(threads, (uint64_t)UINT32_MAX), v->registers, shared);
    return (uint64_t)LITHOS_MAX(blocks, 1u) * (uint64_t)device->sm_count;
}

/* The driver may run kernels of its own within a launch. */
static bool is_of_launch(const struct lithos_atom *a, const struct lithos_qmd_view *v)
{
    for (int i = 0; i < 3; i++)
        if ((uint64_t)v->grid[i] * v->cluster[i] != a->grid[i] || v->block[i] != a->block[i])
            return false;
    return true;
}

/* What the first atom's QMD says: fills in the cut, or tells why not. */
static enum lithos_whole decide(struct lithos_atom *a, const struct lithos_hook_device *device,
                                const struct lithos_qmd_layout *layout, const void *qmd)
{
    const struct lithos_sm *sm = device ? lithos_sm(device->cc_major, device->cc_minor) : NULL;
    struct lithos_qmd_view v;
    if (!layout || !sm || lithos_qmd_atom_capable(layout, a->chained) < 0)
        return LITHOS_WHOLE_UNKNOWN;
    if (lithos_qmd_waits_on_latch(layout, qmd))
        return LITHOS_WHOLE_PDL;
    if (lithos_qmd_bank_used(layout, qmd, LITHOS_PRELUDE_BANK))
        return LITHOS_WHOLE_SLOT;
    lithos_qmd_decode(layout, qmd, &v);
    if ((v.type != LITHOS_QMD_TYPE_GRID && v.type != LITHOS_QMD_TYPE_CLUSTERS) || !is_of_launch(a, &v) ||
        !v.entry || v.registers < lithos_atoms_context_registers(a->where))
        return LITHOS_WHOLE_UNKNOWN;
    uint64_t units = (uint64_t)v.grid[0] * v.grid[1] * v.grid[2];
    uint64_t cluster = (uint64_t)v.cluster[0] * v.cluster[1] * v.cluster[2];
    if (!cluster || units * cluster <= wave_blocks(sm, device, &v))
        return LITHOS_WHOLE_ONE_WAVE;
    struct lithos_cut cut = lithos_cut_make(v.grid, 1, a->policy.count);
    if (cut.count < 2)
        return LITHOS_WHOLE_ONE_WAVE;
    if (lithos_cut_exits(&cut, units / cut.units * cluster) > EXITS_MAX)
        return LITHOS_WHOLE_EXITS;
    a->cut = cut;
    a->unit_blocks = v.cluster[cut.dim];
    a->target = v.entry;
    return reserve(a) ? LITHOS_WHOLE_NOT : LITHOS_WHOLE_POOL;
}

static int make_part(struct lithos_atom *a, const struct lithos_qmd_layout *layout, void *qmd)
{
    uint32_t lo, hi;
    lithos_cut_range(&a->cut, a->index, &lo, &hi);
    struct lithos_qmd_atom part = {
        .dim = a->cut.dim, .hi = hi, .pre_exit = a->chained && a->index + 1 < a->cut.count};
    if (a->index) {
        if (lithos_qmd_entry(layout, qmd) != a->target)
            return -ESTALE;
        part.code = lithos_atoms_context_code(a->where, a->cut.dim);
        part.entry = lithos_atoms_context_entry(a->where, lo * a->unit_blocks, a->target);
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
        .hi = 1, .code = code, .entry = lithos_atoms_context_entry(a->where, LITHOS_PRELUDE_NOTHING, 0)};
    if (lithos_qmd_set_atom(layout, qmd, &nothing) == 0)
        lithos_atoms_context_located(a->where, code);
}

void lithos_atoms_qmd(struct lithos_atom *a, const struct lithos_hook_device *device,
                      const struct lithos_qmd_layout *layout, void *qmd)
{
    if (a->locate) {
        locate(a, layout, qmd);
        return;
    }
    if (a->index == 0) {
        a->whole = decide(a, device, layout, qmd);
        if (a->whole == LITHOS_WHOLE_NOT && make_part(a, layout, qmd) < 0)
            a->whole = LITHOS_WHOLE_UNKNOWN;
        if (a->whole != LITHOS_WHOLE_NOT)
            a->cut.count = 0;
        return;
    }
    a->error = layout ? make_part(a, layout, qmd) : -ENOTSUP;
    if (a->error < 0 && layout) /* its blocks below lo have run: rather none than some twice */
        lithos_qmd_set_side(layout, qmd, a->cut.dim, 0);
}

/* ---- streams ---- */

/* Each thread has a default stream of its own under one name. */
static uint64_t key_of(CUstream stream)
{
    return stream == CU_STREAM_PER_THREAD ? (uint64_t)pthread_self() | 1 : (uint64_t)(uintptr_t)stream + 2;
}

static uint32_t place_of(uint64_t key)
{
    return (uint32_t)(key * 0x9e3779b97f4a7c15ull >> 40) & (STREAMS - 1);
}

static bool wait_while(const _Atomic uint64_t *word, uint64_t value, uint64_t limit_ns)
{
    uint64_t deadline_ns = lithos_now_ns() + limit_ns;
    while (atomic_load_explicit(word, memory_order_acquire) == value) {
        if (lithos_now_ns() > deadline_ns)
            return false;
        sched_yield();
    }
    return true;
}

void lithos_atoms_wait(CUstream stream)
{
    uint64_t key = key_of(stream);
    const _Atomic uint64_t *held = &atoms.held[place_of(key)];
    if (atomic_load_explicit(held, memory_order_acquire) == key)
        wait_while(held, key, WAIT_NS);
}

void lithos_atoms_wait_any(void)
{
    uint64_t deadline_ns = lithos_now_ns() + WAIT_ANY_NS;
    while (lithos_atoms_busy() && lithos_now_ns() < deadline_ns)
        sched_yield();
}

static bool hold(uint64_t key)
{
    _Atomic uint64_t *held = &atoms.held[place_of(key)];
    uint64_t nobody = 0;
    atomic_fetch_add_explicit(&lithos_atoms_state, STATE_THREAD, memory_order_relaxed);
    if (atomic_compare_exchange_strong_explicit(held, &nobody, key, memory_order_acquire,
                                                memory_order_relaxed) ||
        (wait_while(held, nobody, WAIT_NS) &&
         (nobody = 0, atomic_compare_exchange_strong(held, &nobody, key))))
        return true;
    atomic_fetch_sub_explicit(&lithos_atoms_state, STATE_THREAD, memory_order_relaxed);
    return false;
}

static void let_go(uint64_t key)
{
    atomic_store_explicit(&atoms.held[place_of(key)], 0, memory_order_release);
    atomic_fetch_sub_explicit(&lithos_atoms_state, STATE_THREAD, memory_order_relaxed);
}

/* The stream's last kernel was cut, and its atoms overlap. */
static void note_cut(uint64_t key)
{
    _Atomic uint64_t *cut = &atoms.cut[place_of(key)];
    uint64_t before = atomic_load_explicit(cut, memory_order_relaxed);
    if (before != key && before != SEVERAL)
        atomic_store_explicit(cut, before ? SEVERAL : key, memory_order_relaxed);
}

static void note_whole(uint64_t key)
{
    uint64_t before = key;
    if (__builtin_expect(atomic_load_explicit(&atoms.cut[place_of(key)], memory_order_relaxed) == key, 0))
        atomic_compare_exchange_strong_explicit(&atoms.cut[place_of(key)], &before, 0, memory_order_relaxed,
                                                memory_order_relaxed);
}

static bool was_cut(uint64_t key)
{
    uint64_t v = atomic_load_explicit(&atoms.cut[place_of(key)], memory_order_relaxed);
    return v == key || v == SEVERAL;
}

/* ---- attributes ---- */

static enum lithos_whole look_at_attributes(const CUlaunchConfig *c)
{
    if (c->numAttrs > ATTRIBUTES_MAX)
        return LITHOS_WHOLE_UNKNOWN;
    for (unsigned i = 0; c->attrs && i < c->numAttrs; i++) {
        const CUlaunchAttribute *a = &c->attrs[i];
        switch (a->id) {
        case CU_LAUNCH_ATTRIBUTE_IGNORE:
        case CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW:
        case CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY:
        case CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION:
        case CU_LAUNCH_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE:
        case CU_LAUNCH_ATTRIBUTE_PRIORITY:
        case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP:
        case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN:
        case CU_LAUNCH_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
            break;
        case CU_LAUNCH_ATTRIBUTE_COOPERATIVE:
            if (a->value.cooperative)
                return LITHOS_WHOLE_COOPERATIVE;
            break;
        case CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION:
            if (a->value.programmaticStreamSerializationAllowed)
                return LITHOS_WHOLE_PDL;
            break;
        case CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT:
        case CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT:
            return LITHOS_WHOLE_PDL;
        default:
            return LITHOS_WHOLE_UNKNOWN;
        }
    }
    return LITHOS_WHOLE_NOT;
}

/* The app's attributes, with leave to overlap with the launch before given or taken away. */
static void with_overlap(const CUlaunchConfig *from, bool allow, CUlaunchAttribute room[ATTRIBUTES_MAX + 1],
                         CUlaunchConfig *ret)
{
    unsigned n = 0;
    for (unsigned i = 0; from->attrs && i < from->numAttrs && n < ATTRIBUTES_MAX; i++)
        if (from->attrs[i].id != CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION)
            room[n++] = from->attrs[i];
    if (allow)
        room[n++] = (CUlaunchAttribute){.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
                                        .value.programmaticStreamSerializationAllowed = 1};
    *ret = *from;
    ret->attrs = room;
    ret->numAttrs = n;
}

/* ---- launches ---- */

/* One call of the driver. */
static CUresult launch_one(const struct lithos_launch *l, const CUlaunchConfig *config, struct lithos_atom *a,
                           uint32_t *ret_qmds)
{
    struct lithos_ticket ticket;
    lithos_ticket_open_atom(&ticket, LITHOS_TICKET_LAUNCH, l->function, a);
    CUresult result = LITHOS_REAL(launch_ex_fn, cuLaunchKernelEx)(config, l->function, l->params, l->extra);
    lithos_ticket_close(&ticket);
    *ret_qmds = ticket.qmds;
    if (result == CUDA_SUCCESS && a && (a->error < 0 || (a->index && !ticket.qmds))) {
        lithos_log_once(
            LITHOS_LOG_ERROR,
            "atom %u of a kernel could not be launched as such (%s): the launch is reported as failed",
            a->index, a->error < 0 ? strerror(-a->error) : "its queue descriptor was not seen");
        result = CUDA_ERROR_LAUNCH_FAILED;
    }
    if (__builtin_expect(ticket.observe, 0)) {
        struct lithos_launch part = *l;
        part.atom = a && a->cut.count ? a->index : 0;
        part.atoms = a ? a->cut.count : 0;
        lithos_hook_client.observer->launched(&ticket, &part, result == CUDA_SUCCESS);
    }
    return result;
}

/* The first part is launched, and was made one: the others. */
static CUresult launch_rest(const struct lithos_launch *l, const CUlaunchConfig *config,
                            struct lithos_atom *a)
{
    CUlaunchAttribute room[ATTRIBUTES_MAX + 1];
    CUlaunchConfig rest = *config;
    CUresult result = CUDA_SUCCESS;
    uint32_t qmds;
    if (a->chained)
        with_overlap(config, true, room, &rest);
    for (a->index = 1; result == CUDA_SUCCESS && a->index < a->cut.count; a->index++)
        result = launch_one(l, &rest, a, &qmds);
    return result;
}

static CUlaunchConfig config_of(const struct lithos_launch *l)
{
    CUlaunchConfig c = {0};
    if (l->config)
        c = *l->config;
    c.gridDimX = l->grid[0];
    c.gridDimY = l->grid[1];
    c.gridDimZ = l->grid[2];
    c.blockDimX = l->block[0];
    c.blockDimY = l->block[1];
    c.blockDimZ = l->block[2];
    c.sharedMemBytes = l->shared_bytes;
    c.hStream = l->stream;
    return c;
}

void lithos_atoms_left_whole(enum lithos_whole why, uint32_t launches)
{
    int which = LITHOS_COUNT_WHOLE_COOPERATIVE + (int)why - LITHOS_WHOLE_COOPERATIVE;
    if (policy_now().mode != LITHOS_ATOM_OFF)
        lithos_count((enum lithos_hook_count)which, launches);
}

/* What can be said before the driver is asked for anything. */
static enum lithos_whole look_at_launch(const struct lithos_launch *l,
                                        const struct lithos_hook_device *device)
{
    if (l->cooperative)
        return LITHOS_WHOLE_COOPERATIVE;
    if (!l->cuttable || !device)
        return LITHOS_WHOLE_UNKNOWN;
    enum lithos_whole why = l->config ? look_at_attributes(l->config) : LITHOS_WHOLE_NOT;
    if (why != LITHOS_WHOLE_NOT)
        return why;
    uint64_t blocks = (uint64_t)l->grid[0] * l->grid[1];
    if (l->grid[2] && blocks > UINT64_MAX / l->grid[2])
        return LITHOS_WHOLE_UNKNOWN; /* the driver refuses it */
    /* An SM holds a block at least. The whole truth stands in the QMD. */
    return blocks * l->grid[2] <= (uint64_t)device->sm_count ? LITHOS_WHOLE_ONE_WAVE : LITHOS_WHOLE_NOT;
}

static bool is_capturing(CUstream stream)
{
    int status = -1;
    return LITHOS_REAL(is_capturing_fn, cuStreamIsCapturing)(stream, &status) != CUDA_SUCCESS ||
           status != CU_STREAM_CAPTURE_STATUS_NONE;
}

/* A kernel that may overlap with the one before it, behind one that was cut: what it would wait for is the last atom, and an
 * earlier one may still run. So it may not overlap; leave to do so is no promise. */
static CUresult launch_apart(const struct lithos_launch *l)
{
    CUlaunchAttribute room[ATTRIBUTES_MAX + 1];
    CUlaunchConfig config = config_of(l), apart;
    uint32_t qmds;
    with_overlap(&config, false, room, &apart);
    return launch_one(l, &apart, NULL, &qmds);
}

static CUresult launch_cut(const struct lithos_launch *l, struct lithos_atom *a)
{
    uint64_t key = key_of(l->stream);
    CUlaunchConfig config = config_of(l);
    uint32_t qmds;
    CUresult result = launch_one(l, &config, a, &qmds);
    if (result == CUDA_SUCCESS && !qmds)
        a->whole = LITHOS_WHOLE_UNKNOWN;
    if (result == CUDA_SUCCESS && a->cut.count)
        result = launch_rest(l, &config, a);
    if (result != CUDA_SUCCESS)
        return result;
    lithos_count(LITHOS_COUNT_LAUNCHES, 1);
    if (!a->cut.count) {
        lithos_atoms_left_whole(a->whole, 1);
        note_whole(key);
        return result;
    }
    lithos_count(LITHOS_COUNT_CUT, 1);
    lithos_count(LITHOS_COUNT_ATOMS, a->cut.count);
    if (a->chained)
        note_cut(key);
    lithos_atoms_context_promote(a->where);
    return result;
}

static const struct lithos_hook_device *device_here(void)
{
    const struct lithos_hook_device *devices;
    int count = lithos_hook_devices(&devices);
    int32_t at = atomic_load_explicit(&lithos_hook_only_device, memory_order_acquire);
    if (at < 0)
        at = lithos_hook_current_device();
    return at >= 0 && at < count ? &devices[at] : NULL;
}

/* Left to the caller: it counts the launch once it is made, we why it was not cut. */
static bool leave_whole(const struct lithos_launch *l, uint64_t key, enum lithos_whole why)
{
    lithos_atoms_left_whole(why, 1);
    note_whole(key);
    if (lithos_atoms_busy())
        lithos_atoms_wait(l->stream);
    return false;
}

bool lithos_atoms_launch(const struct lithos_launch *l, CUresult *ret_result)
{
    const struct lithos_hook_device *device = device_here();
    uint64_t key = key_of(l->stream);
    struct lithos_atom a = {.policy = policy_now()};
    if (a.policy.mode == LITHOS_ATOM_OFF) { /* but a thread is still in the middle of a kernel */
        lithos_atoms_wait(l->stream);
        return false;
    }
    enum lithos_whole why = look_at_launch(l, device);
    if (why == LITHOS_WHOLE_PDL && l->config->numAttrs <= ATTRIBUTES_MAX && was_cut(key)) {
        lithos_atoms_wait(l->stream);
        *ret_result = launch_apart(l);
        if (*ret_result == CUDA_SUCCESS) {
            lithos_count(LITHOS_COUNT_LAUNCHES, 1);
            lithos_atoms_left_whole(why, 1);
            note_whole(key);
        }
        return true;
    }
    if (why == LITHOS_WHOLE_NOT && is_capturing(l->stream))
        why = LITHOS_WHOLE_CAPTURE;
    if (why == LITHOS_WHOLE_NOT && (!(a.where = lithos_atoms_context_here()) || !hold(key)))
        why = LITHOS_WHOLE_NOT_READY;
    if (why != LITHOS_WHOLE_NOT)
        return leave_whole(l, key, why);
    a.chained = device->cc_major >= CHAIN_CC_MAJOR;
    memcpy(a.grid, l->grid, sizeof a.grid);
    memcpy(a.block, l->block, sizeof a.block);
    *ret_result = launch_cut(l, &a);
    let_go(key);
    return true;
}

/* ---- the process ---- */

void lithos_atoms_context_ends(CUcontext ctx, CUdevice device)
{
    lithos_atoms_contexts_end(ctx, device);
}

void lithos_atoms_context_ended(CUcontext ctx, CUdevice device, bool ended)
{
    lithos_atoms_contexts_ended(ctx, device, ended);
}

void lithos_atoms_forget(void)
{
    atomic_store(&lithos_atoms_state, 0);
    atomic_store(&atoms.policy, LITHOS_ATOM_OFF);
    memset(atoms.held, 0, sizeof atoms.held);
    memset(atoms.cut, 0, sizeof atoms.cut);
    lithos_atoms_contexts_forget();
}
