#include "driver/atoms.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "driver/atoms_context.h"
#include "driver/atoms_internal.h"
#include "driver/exports.h"
#include "driver/graphs.h"
#include "driver/graphs_follow.h"
#include "driver/names.h"
#include "driver/order.h"
#include "driver/qmd_hook.h"

#define ATTRIBUTES_MAX 24u
#define STREAMS 64u /* a power of two */
/* How long a launch waits while another thread is in the middle of a kernel of the same stream, and one of which it is not known
 * which stream it is for. */
#define WAIT_NS (100 * LITHOS_NSEC_PER_MSEC)
#define WAIT_ANY_NS (2 * LITHOS_NSEC_PER_MSEC)
/* Of an operator that is on trial, one launch in so many is left whole. */
#define TRIAL_EVERY 8u

_Atomic uint32_t lithos_atoms_state LITHOS_LAUNCH_DATA;

#define STATE_ON 1u
#define STATE_THREAD 2u

static struct {
    _Atomic uint64_t policy; /* mode below, count or length above */
    _Atomic uint64_t
        held[STREAMS]; /* by hash: the stream (its key) whose kernel a thread is in the middle of */
    _Atomic uint64_t
        cut[STREAMS]; /* by hash: the stream whose last kernel was cut into chained atoms, or SEVERAL */
} atoms;

#define SEVERAL UINT64_MAX

typedef CUresult (*launch_ex_fn)(const CUlaunchConfig *, CUfunction, void **, void **);
typedef CUresult (*is_capturing_fn)(CUstream, int *);

/* ---- policy ---- */

enum environment {
    ENVIRONMENT_UNREAD,
    ENVIRONMENT_ON,
    ENVIRONMENT_PLAIN, /* atoms are not chained: for measurements */
    ENVIRONMENT_OFF,
};

static enum environment environment(void)
{
    static _Atomic int read;
    int v = atomic_load_explicit(&read, memory_order_relaxed);
    if (v == ENVIRONMENT_UNREAD) {
        const char *env = getenv("LITHOS_ATOMS");
        v = !env                    ? ENVIRONMENT_ON
            : !strcmp(env, "off")   ? ENVIRONMENT_OFF
            : !strcmp(env, "plain") ? ENVIRONMENT_PLAIN
                                    : ENVIRONMENT_ON;
        atomic_store_explicit(&read, v, memory_order_relaxed);
    }
    return (enum environment)v;
}

void lithos_atoms_set_policy(const struct lithos_atom_policy *p)
{
    bool on =
        p->mode != LITHOS_ATOM_OFF && lithos_atom_policy_validate(p) == 0 && environment() != ENVIRONMENT_OFF;
    uint64_t value = p->mode == LITHOS_ATOM_DURATION ? p->atom_ns : p->count;
    atomic_store_explicit(&atoms.policy, on ? p->mode | value << 32 : LITHOS_ATOM_OFF, memory_order_relaxed);
    if (on)
        atomic_fetch_or_explicit(&lithos_atoms_state, STATE_ON, memory_order_relaxed);
    else
        atomic_fetch_and_explicit(&lithos_atoms_state, ~STATE_ON, memory_order_relaxed);
}

struct lithos_atom_policy lithos_atoms_policy(void)
{
    uint64_t v = atomic_load_explicit(&atoms.policy, memory_order_relaxed);
    struct lithos_atom_policy p = {.mode = (uint32_t)v};
    *(p.mode == LITHOS_ATOM_DURATION ? &p.atom_ns : &p.count) = (uint32_t)(v >> 32);
    return p;
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

/* ret_cluster: the shape asked for, if any. */
static enum lithos_whole look_at_attributes(const CUlaunchConfig *c, uint64_t *ret_cluster)
{
    if (c->numAttrs > ATTRIBUTES_MAX)
        return LITHOS_WHOLE_UNKNOWN;
    for (unsigned i = 0; c->attrs && i < c->numAttrs; i++) {
        const CUlaunchAttribute *a = &c->attrs[i];
        switch (a->id) {
        case CU_LAUNCH_ATTRIBUTE_IGNORE:
        case CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW:
        case CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY:
        case CU_LAUNCH_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE:
        case CU_LAUNCH_ATTRIBUTE_PRIORITY:
        case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP:
        case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN:
        case CU_LAUNCH_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
            break;
        case CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION:
            *ret_cluster = a->value.clusterDim.x | (uint64_t)a->value.clusterDim.y << 16 |
                           (uint64_t)a->value.clusterDim.z << 32;
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
        part.blocks_per_sm = a ? a->blocks_per_sm : 0;
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
    struct lithos_issue *issue = lithos_order_issue;
    for (a->index = 1; result == CUDA_SUCCESS && a->index < a->cut.count; a->index++) {
        if (issue && issue->pace)
            issue->pace(issue, a->cut.count);
        result = launch_one(l, &rest, a, &qmds);
    }
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
    if (lithos_atoms_policy().mode != LITHOS_ATOM_OFF)
        lithos_count((enum lithos_hook_count)which, launches);
}

/* What can be said before the driver is asked for anything. */
static enum lithos_whole look_at_launch(const struct lithos_launch *l,
                                        const struct lithos_hook_device *device, uint64_t *ret_cluster)
{
    if (l->cooperative)
        return LITHOS_WHOLE_COOPERATIVE;
    if (!l->cuttable || !device)
        return LITHOS_WHOLE_UNKNOWN;
    enum lithos_whole why = l->config ? look_at_attributes(l->config, ret_cluster) : LITHOS_WHOLE_NOT;
    if (why != LITHOS_WHOLE_NOT)
        return why;
    uint64_t blocks = (uint64_t)l->grid[0] * l->grid[1];
    if (l->grid[2] && blocks > UINT64_MAX / l->grid[2])
        return LITHOS_WHOLE_UNKNOWN; /* the driver refuses it */
    /* An SM holds a block at least. The whole truth stands in the QMD. */
    return blocks * l->grid[2] <= (uint64_t)device->sm_count ? LITHOS_WHOLE_ONE_WAVE : LITHOS_WHOLE_NOT;
}

bool lithos_atoms_is_capturing(CUstream stream)
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

/* It was launched, whole: counts it. */
static void launched_whole(uint64_t stream_key, enum lithos_whole why)
{
    lithos_count(LITHOS_COUNT_LAUNCHES, 1);
    lithos_atoms_left_whole(why, 1);
    note_whole(stream_key);
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
    if (!a->cut.count) {
        launched_whole(key, a->whole);
        return result;
    }
    lithos_count(LITHOS_COUNT_LAUNCHES, 1);
    lithos_count(LITHOS_COUNT_CUT, 1);
    lithos_count(LITHOS_COUNT_ATOMS, a->cut.count);
    if (a->chained)
        note_cut(key);
    lithos_atoms_context_promote(a->where);
    return result;
}

/* Where all of it may run is another matter than where an atom may. */
static void tell_whole(void)
{
    struct lithos_issue *issue = lithos_order_issue;
    if (issue && issue->whole)
        issue->whole(issue);
}

/* Known to be better left whole; the record names the operator, so that it is noticed when that changes. */
static CUresult launch_whole(const struct lithos_launch *l, enum lithos_whole why)
{
    CUlaunchConfig config = config_of(l);
    uint32_t qmds;
    tell_whole();
    if (lithos_atoms_busy())
        lithos_atoms_wait(l->stream);
    CUresult result = launch_one(l, &config, NULL, &qmds);
    if (result == CUDA_SUCCESS)
        launched_whole(key_of(l->stream), why);
    return result;
}

const struct lithos_hook_device *lithos_atoms_device_here(void)
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
    tell_whole();
    lithos_atoms_left_whole(why, 1);
    note_whole(key);
    if (lithos_atoms_busy())
        lithos_atoms_wait(l->stream);
    return false;
}

static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9e3779b97f4a7c15ull;
    return h ^ h >> 29;
}

uint64_t lithos_atoms_operator_key(const struct lithos_launch *l, uint64_t cluster)
{
    uint64_t h = mix((uintptr_t)l->function, (uint64_t)l->grid[0] << 32 | l->grid[1]);
    h = mix(h, (uint64_t)l->grid[2] << 32 | l->block[0]);
    h = mix(h, (uint64_t)l->block[1] << 32 | l->block[2]);
    h = mix(h, (uint64_t)l->shared_bytes ^ cluster << 20);
    return h ? h : 1;
}

static bool may_try_whole(void)
{
    struct lithos_issue *issue = lithos_order_issue;
    return !issue || !issue->may_try || issue->may_try(issue);
}

/* What its operator is known to be best served with. */
static enum lithos_whole choose(const struct lithos_launch *l, struct lithos_atom *a)
{
    static __thread unsigned trials __attribute__((tls_model("initial-exec")));
    a->known = lithos_hook_client.atom_choice(l->operator_key, &a->choice);
    if (!a->known)
        return LITHOS_WHOLE_NOT; /* the callback knows more */
    if (a->choice.trial && ++trials % TRIAL_EVERY == 0 && may_try_whole())
        return LITHOS_WHOLE_TRIAL;
    return a->choice.waves ? LITHOS_WHOLE_NOT : a->choice.whole;
}

/* One that may overlap with the kernel before it, which was cut: launched here so that it does not. */
static bool launched_apart(const struct lithos_launch *l, enum lithos_whole why, CUresult *ret_result)
{
    uint64_t key = key_of(l->stream);
    if (why != LITHOS_WHOLE_PDL || l->config->numAttrs > ATTRIBUTES_MAX || !was_cut(key))
        return false;
    lithos_atoms_wait(l->stream);
    *ret_result = launch_apart(l);
    if (*ret_result == CUDA_SUCCESS)
        launched_whole(key, why);
    return true;
}

static bool launch_some(struct lithos_launch *l, const struct lithos_atom_policy *policy,
                        CUresult *ret_result)
{
    const struct lithos_hook_device *device = lithos_atoms_device_here();
    uint64_t key = key_of(l->stream), cluster = 0;
    struct lithos_atom a = {.policy = *policy};
    enum lithos_whole why = look_at_launch(l, device, &cluster);
    if (launched_apart(l, why, ret_result))
        return true;
    if (why == LITHOS_WHOLE_NOT && lithos_names_waits(l->function))
        why = LITHOS_WHOLE_COOPERATIVE;
    if (why == LITHOS_WHOLE_NOT && lithos_names_told_whole(l->function))
        why = LITHOS_WHOLE_TOLD;
    if (why == LITHOS_WHOLE_NOT && policy->mode == LITHOS_ATOM_DURATION) {
        l->operator_key = lithos_atoms_operator_key(l, cluster);
        why = choose(l, &a);
        if (why != LITHOS_WHOLE_NOT) {
            *ret_result = launch_whole(l, why);
            return true;
        }
    }
    if (why == LITHOS_WHOLE_NOT &&
        lithos_atoms_is_capturing(l->stream)) /* asked last: it is a call of the driver */
        why = LITHOS_WHOLE_CAPTURE;
    if (why == LITHOS_WHOLE_NOT && (!(a.where = lithos_atoms_context_here()) || !hold(key)))
        why = LITHOS_WHOLE_NOT_READY;
    if (why != LITHOS_WHOLE_NOT)
        return leave_whole(l, key, why);
    a.chained = device->cc_major >= LITHOS_ATOMS_CHAIN_CC_MAJOR && environment() != ENVIRONMENT_PLAIN;
    memcpy(a.grid, l->grid, sizeof a.grid);
    memcpy(a.block, l->block, sizeof a.block);
    *ret_result = launch_cut(l, &a);
    let_go(key);
    return true;
}

bool lithos_atoms_launch(const struct lithos_launch *l, CUresult *ret_result)
{
    struct lithos_atom_policy policy = lithos_atoms_policy();
    struct lithos_launch launch = *l;
    if (policy.mode != LITHOS_ATOM_OFF)
        return launch_some(&launch, &policy, ret_result);
    lithos_atoms_wait(l->stream); /* a thread is still in the middle of a kernel */
    return false;
}

/* ---- the process ---- */

void lithos_atoms_context_ends(CUcontext ctx, CUdevice device)
{
    lithos_atoms_contexts_end(ctx, device);
}

void lithos_atoms_context_ended(CUcontext ctx, CUdevice device, bool ended)
{
    lithos_atoms_contexts_ended(ctx, device, ended);
    if (!ended)
        return;
    lithos_graphs_context_ended(ctx, device);
    lithos_graph_follow_context_ended(ctx, device);
}

void lithos_atoms_forget(void)
{
    atomic_store(&lithos_atoms_state, 0);
    atomic_store(&atoms.policy, LITHOS_ATOM_OFF);
    memset(atoms.held, 0, sizeof atoms.held);
    memset(atoms.cut, 0, sizeof atoms.cut);
    lithos_atoms_contexts_forget();
    lithos_graphs_forget();
}
