#include "driver/qmd_hook.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "cuda/cuda_abi.h"
#include "driver/atoms.h"
#include "driver/escape.h"
#include "driver/exports.h"
#include "driver/gate.h"
#include "driver/graphs.h"
#include "driver/graphs_follow.h"
#include "driver/narrow.h"
#include "driver/qmd_table.h"
#include "hw/qmd.h"

__thread struct lithos_ticket *lithos_ticket_current __attribute__((tls_model("initial-exec")));
__thread _Atomic uint64_t *lithos_thread_counters __attribute__((tls_model("initial-exec")));
atomic_bool lithos_hook_on LITHOS_LAUNCH_DATA;
static atomic_bool heard LITHOS_LAUNCH_DATA; /* the driver has called back */
static bool allow_unproved LITHOS_LAUNCH_DATA;
atomic_bool lithos_hook_escaped;
_Atomic uint32_t lithos_hook_seen LITHOS_LAUNCH_DATA;
_Atomic uint32_t lithos_hook_masks;
_Atomic int32_t lithos_hook_only_device LITHOS_LAUNCH_DATA = LITHOS_DEVICE_UNKNOWN;

#define FEW_FUNCTIONS 32u
/* Of each card known; a quota says it for certain. */
#define TPC_SMS 2u

/* One row of a gate as the callback reads it. */
struct mask {
    _Atomic uint64_t w[2];
    _Atomic uint32_t state; /* enum lithos_gate_state */
    atomic_bool anywhere;   /* cannot hang on any device of this process */
};

/* The masks of a device, in two copies: the callback reads the one that sequence & 1 names while the other is
 * written, so that it neither waits for a writer nor sees half a mask. What most launches look at of a device is one cache line. */
static struct device_line {
    _Alignas(64) _Atomic uint32_t sequence;
    uint16_t cc_major, cc_minor; /* of its entry in hook.devices */
    struct mask plain[2];        /* of kernels without clusters */
} lines[LITHOS_HOOK_MAX_DEVICES] LITHOS_LAUNCH_DATA;
_Static_assert(sizeof(struct device_line) == 64, "one cache line");

struct device_masks {
    _Atomic uint64_t all[2];                 /* TPCs of the card; empty: not known */
    struct mask rows[2][LITHOS_CLUSTER_MAX]; /* row 0 is not used */
};

static struct {
    _Atomic int state; /* enum lithos_hook_state */
    char why[256];
    _Atomic int device_count;
    struct lithos_hook_device devices[LITHOS_HOOK_MAX_DEVICES];
    struct device_masks masks[LITHOS_HOOK_MAX_DEVICES];
    /* Filled from the front, NULL: free. The driver's own kernels (a handful: memsets), by the CUfunctions seen where nothing of the app's
     * can be; and those whose blocks wait for each other, by their launches. */
    _Atomic(CUfunction) driver_functions[FEW_FUNCTIONS], waiting[FEW_FUNCTIONS];
} hook;

/* Of graphs with stops in them. Whoever has found one may still look at it when it is another: so long are those before it left alone. */
#define GRAPH_GATES 8u
static struct {
    _Atomic(const struct lithos_gate *) now; /* NULL: as all else */
    unsigned next;
    struct lithos_tpcset set;
    struct lithos_gate gates[GRAPH_GATES];
} of_graphs[LITHOS_HOOK_MAX_DEVICES];

/* ---- the callback: no driver call, no wait, no allocation ---- */

/* The mask of a device for a cluster size; false when the writer overtook us time and again (then nothing is
 * touched). */
static inline __attribute__((always_inline)) bool
read_mask(int32_t device, unsigned blocks, struct lithos_gate_row *ret_row, bool *ret_anywhere)
{
    const struct device_line *line = &lines[device];
    for (int tries = 0; tries < 16; tries++) {
        uint32_t before = atomic_load_explicit(&line->sequence, memory_order_acquire);
        const struct mask *m = __builtin_expect(blocks == 1, 1)
                                   ? &line->plain[before & 1]
                                   : &hook.masks[device].rows[before & 1][blocks - 1];
        struct lithos_gate_row row = {
            .set = {{atomic_load_explicit(&m->w[0], memory_order_acquire),
                     atomic_load_explicit(&m->w[1], memory_order_acquire)}},
            .state = (enum lithos_gate_state)atomic_load_explicit(&m->state, memory_order_acquire),
        };
        bool anywhere = atomic_load_explicit(&m->anywhere, memory_order_acquire);
        if (__builtin_expect(atomic_load_explicit(&line->sequence, memory_order_relaxed) == before, 1)) {
            *ret_row = row;
            *ret_anywhere = anywhere;
            return true;
        }
    }
    return false;
}

unsigned lithos_hook_tpcs(int32_t device)
{
    struct lithos_gate_row row;
    bool anywhere;
    if (device < 0 || !read_mask(device, 1, &row, &anywhere) || row.state == LITHOS_GATE_CLOSED)
        return 0;
    return lithos_tpcset_count(&row.set);
}

static LITHOS_OFF_PATH void learn_function(_Atomic(CUfunction) known[FEW_FUNCTIONS], CUfunction function)
{
    for (unsigned i = 0; i < FEW_FUNCTIONS; i++) {
        CUfunction there = atomic_load_explicit(&known[i], memory_order_relaxed);
        if (!there)
            atomic_compare_exchange_strong_explicit(&known[i], &there, function, memory_order_relaxed,
                                                    memory_order_relaxed);
        if (!there || there == function)
            return;
    }
}

static LITHOS_LAUNCH_PATH bool is_learnt(_Atomic(CUfunction) known[FEW_FUNCTIONS], CUfunction function)
{
    for (unsigned i = 0; i < FEW_FUNCTIONS; i++) {
        CUfunction there = atomic_load_explicit(&known[i], memory_order_relaxed);
        if (!there || there == function)
            return there != NULL;
    }
    return false;
}

/* Is it what a launch ticket is for? A launch may make the driver run kernels of its own first (the function's module is loaded at
 * its first launch) or beside it. What the app named is a CUfunction, as the callback has it, or a CUkernel, which is another
 * handle: then all but the driver's known ones is taken for it. */
static LITHOS_LAUNCH_PATH bool is_launched(const struct lithos_ticket *ticket, CUfunction function)
{
    if (__builtin_expect(ticket->qmds_taken >= ticket->qmds_due, 0))
        return false;
    return __builtin_expect(ticket->function == function, 1) || !is_learnt(hook.driver_functions, function);
}

/* Whose QMD is it? Counts it; *ret_sure: it is sure that it is for the ticket's device. */
static LITHOS_LAUNCH_PATH enum lithos_qmd_owner attribute(struct lithos_ticket *ticket, CUfunction function,
                                                          bool empty, bool *ret_sure)
{
    *ret_sure = true; /* no ticket, no device: then it is the only one there is */
    if (!ticket) {
        lithos_count(LITHOS_COUNT_ESCAPED, 1);
        atomic_store_explicit(&lithos_hook_escaped, true, memory_order_relaxed);
        lithos_escape_say();
        return LITHOS_QMD_OWNER_ESCAPED;
    }
    ticket->qmds++;
    /* A launch is for the current context's device; a graph's nodes and a copy's ends may lie on others. */
    *ret_sure = ticket->kind == LITHOS_TICKET_LAUNCH ||
                atomic_load_explicit(&lithos_hook_only_device, memory_order_acquire) >= 0;
    if (ticket->kind == LITHOS_TICKET_GRAPH && !empty) {
        lithos_count(LITHOS_COUNT_GRAPH_QMDS, 1);
        return LITHOS_QMD_OWNER_GRAPH;
    }
    if (ticket->kind == LITHOS_TICKET_LAUNCH && is_launched(ticket, function)) {
        ticket->qmds_taken++;
        return LITHOS_QMD_OWNER_LAUNCH;
    }
    if (ticket->kind == LITHOS_TICKET_DRIVER && function)
        learn_function(hook.driver_functions, function);
    lithos_count(LITHOS_COUNT_DRIVER_QMDS, 1);
    return LITHOS_QMD_OWNER_DRIVER;
}

/* Blocks that wait for each other have to be there at once: the whole card where the mask has too few SMs for them. */
static LITHOS_OFF_PATH void make_room(struct lithos_gate_row *row, uint32_t sms, int32_t device)
{
    const struct device_masks *masks = &hook.masks[device];
    struct lithos_tpcset all = {{atomic_load_explicit(&masks->all[0], memory_order_acquire),
                                 atomic_load_explicit(&masks->all[1], memory_order_acquire)}};
    uint32_t here = lithos_tpcset_count(&row->set) *
                    atomic_load_explicit(&hook.devices[device].tpc_sms, memory_order_relaxed);
    if (sms <= here || lithos_tpcset_empty(&all) || lithos_tpcset_equal(&all, &row->set))
        return;
    row->set = all;
    row->state = LITHOS_GATE_BREACH;
    lithos_log_once(
        LITHOS_LOG_WARNING,
        "a kernel whose blocks wait for each other takes %u SMs to have them all there, and the quota "
        "has %u: such kernels run on the whole GPU (counted as breaches), for they would hang. Told of "
        "fewer SMs (lithos run --sm-count quota) most libraries launch fewer blocks",
        sms, here);
}

/* Has the kernel that this QMD is of blocks that wait for each other? SMs that it takes then, else 0. Nodes of graphs: where the function
 * was launched before. */
static uint32_t together_of(const struct lithos_ticket *ticket, const struct lithos_qmd_seen *seen)
{
    if (ticket && ticket->together_sms && seen->owner == LITHOS_QMD_OWNER_LAUNCH) {
        learn_function(hook.waiting, seen->function);
        return ticket->together_sms;
    }
    return seen->owner == LITHOS_QMD_OWNER_GRAPH && is_learnt(hook.waiting, seen->function) ? UINT32_MAX : 0;
}

/* Confine a QMD: to a gate that came with its ticket, or to the quota. together_sms: as in a ticket. False: left as it was. */
static LITHOS_LAUNCH_PATH bool confine(struct lithos_qmd_seen *seen, const struct lithos_ticket *ticket,
                                       uint32_t together_sms, int32_t device, bool sure)
{
    const struct lithos_gate *gate = ticket ? ticket->gate : NULL;
    struct lithos_gate_row row;
    bool anywhere = false;
    unsigned blocks = seen->brief.cluster_blocks;
    if (blocks < 1 || blocks > LITHOS_CLUSTER_MAX)
        return false;
    if (__builtin_expect(gate != NULL, 0) && sure)
        row = gate->rows[blocks - 1];
    else if (!read_mask(device, blocks, &row, &anywhere))
        return false;
    if (row.state == LITHOS_GATE_CLOSED)
        return false;
    if (__builtin_expect(together_sms != 0, 0) && sure)
        make_room(&row, together_sms, device);
    else if (ticket && ticket->narrow && sure && !gate && seen->owner == LITHOS_QMD_OWNER_LAUNCH &&
             row.state == LITHOS_GATE_OWN)
        lithos_narrow(ticket, seen->function, blocks, &row.set);
    if (!sure && !anywhere) {
        lithos_log_once(LITHOS_LOG_WARNING,
                        "a graph or copy may be for another GPU, where this quota's mask would hang "
                        "it: left unmasked (counted as unmasked)");
        return false;
    }
    if (lithos_qmd_set_tpcs(seen->layout, seen->qmd, &row.set) < 0)
        return false;
    seen->tpcs = row.set;
    seen->breach = row.state == LITHOS_GATE_BREACH;
    if (seen->breach)
        lithos_count(LITHOS_COUNT_BREACHES, 1);
    if (seen->breach && !together_sms) {
        lithos_log_once(
            LITHOS_LOG_WARNING,
            "a kernel with clusters of %u blocks has no room in the quota: it runs on the smallest set of "
            "TPCs that takes it (counted as a breach). A larger quota has room: lithos set",
            blocks);
    }
    return true;
}

/* Say once why the QMDs of a device are left alone: r of lithos_qmd_identify. */
static LITHOS_OFF_PATH void say_unknown(int r, int32_t device)
{
    if (r == -ENODEV) {
        lithos_log_once(LITHOS_LOG_WARNING,
                        "a kernel whose GPU is not known was left unmasked (counted as unmasked)");
        return;
    }
    lithos_log_once(
        LITHOS_LOG_WARNING,
        "the queue descriptors of this GPU (compute capability %d.%d) are %s: launches are left as they "
        "are. Use `lithos run --coarse`%s",
        hook.devices[device].cc_major, hook.devices[device].cc_minor,
        r == -EPERM ? "of a layout not proved on a card" : "of a layout that is not known",
        r == -EPERM ? ", or LITHOS_UNTESTED_GPU=1 to try it" : "");
}

/* Whose the QMD is that a ticket's atom is about. */
static enum lithos_qmd_owner ticket_owner(const struct lithos_ticket *ticket)
{
    return ticket->kind == LITHOS_TICKET_LAUNCH ? LITHOS_QMD_OWNER_LAUNCH : LITHOS_QMD_OWNER_DRIVER;
}

/* A launch of the app to which nothing is special, which most are: what handle_qmd does to it, in a fraction of the instructions. -1: there
 * is something, and nothing was done; else whether it was masked. */
static LITHOS_LAUNCH_PATH int handle_plain(struct lithos_ticket *ticket, void *qmd, CUcontext ctx,
                                           CUfunction function)
{
    if (__builtin_expect(ticket->kind != LITHOS_TICKET_LAUNCH || ticket->device < 0 || ticket->gate ||
                             ticket->atom || ticket->together_sms || !is_launched(ticket, function),
                         0))
        return -1;
    const struct device_line *device = &lines[ticket->device];
    struct lithos_qmd_seen seen;
    if (__builtin_expect(
            lithos_qmd_identify(device->cc_major, device->cc_minor, qmd, allow_unproved, &seen.layout) < 0,
            0))
        return -1;
    lithos_qmd_brief(seen.layout, qmd, &seen.brief);
    struct lithos_gate_row row;
    bool anywhere;
    if (__builtin_expect(seen.brief.empty || seen.brief.cluster_blocks > LITHOS_CLUSTER_MAX ||
                             !read_mask(ticket->device, seen.brief.cluster_blocks, &row, &anywhere) ||
                             row.state != LITHOS_GATE_OWN,
                         0))
        return -1;
    if (__builtin_expect(ticket->narrow, 0))
        lithos_narrow(ticket, function, seen.brief.cluster_blocks, &row.set);
    if (__builtin_expect(lithos_qmd_set_tpcs(seen.layout, qmd, &row.set) < 0, 0))
        return -1;
    ticket->qmds++;
    ticket->qmds_taken++;
    if (__builtin_expect(ticket->observe, 1)) {
        seen.owner = LITHOS_QMD_OWNER_LAUNCH;
        seen.qmd = qmd;
        seen.ctx = ctx;
        seen.function = function;
        seen.grid = NULL;
        seen.breach = false;
        seen.tpcs = row.set;
        lithos_hook_client.observer->qmd(ticket, &seen);
    }
    return 1;
}

static __attribute__((noinline)) bool handle_qmd(void *qmd, CUcontext ctx, CUfunction function)
{
    struct lithos_ticket *ticket = lithos_ticket_current;
    int32_t device =
        ticket ? ticket->device : atomic_load_explicit(&lithos_hook_only_device, memory_order_acquire);
    struct lithos_qmd_seen seen = {
        .qmd = qmd, .ctx = ctx, .function = function, .tpcs = {{UINT64_MAX, UINT64_MAX}}};
    bool sure;
    int r = -ENODEV;
    if (device >= 0)
        r = lithos_qmd_identify(hook.devices[device].cc_major, hook.devices[device].cc_minor, qmd,
                                allow_unproved, &seen.layout);
    if (r == 0)
        lithos_qmd_brief(seen.layout, qmd, &seen.brief);
    seen.owner = attribute(ticket, function, seen.brief.empty, &sure);
    if (seen.brief.empty) { /* nothing runs: nothing to confine, nothing to count as missed */
        if (ticket && ticket->kind == LITHOS_TICKET_GRAPH && ticket->observe)
            lithos_hook_client.observer->empty_qmd(ticket, &seen);
        return true;
    }
    if (r == 0 && ticket && seen.owner == LITHOS_QMD_OWNER_GRAPH && lithos_graph_reads_ahead(ticket->exec))
        lithos_qmd_read_ahead(seen.layout, qmd);
    bool masked = r == 0 && confine(&seen, ticket, together_of(ticket, &seen), device, sure);
    if (r < 0)
        say_unknown(r, device);
    if (ticket && __builtin_expect(ticket->atom != NULL, 0) && seen.owner == ticket_owner(ticket))
        lithos_atoms_qmd(ticket->atom, device < 0 ? NULL : &hook.devices[device], &seen);
    bool noted = ticket && ticket->observe;
    if (ticket && __builtin_expect(ticket->graph != NULL, 0) && seen.owner == LITHOS_QMD_OWNER_GRAPH)
        noted &= lithos_graphs_qmd(ticket->graph, device < 0 ? NULL : &hook.devices[device], &seen);
    if (__builtin_expect(noted, 1))
        lithos_hook_client.observer->qmd(ticket, &seen);
    return masked;
}

LITHOS_FUSED void lithos_hook_callback(void *user, int domain, int id, const void *params)
{
    (void)user;
    if (__builtin_expect(domain != LITHOS_QMD_DOMAIN || id != LITHOS_QMD_CALLBACK_ID || !params ||
                             !lithos_hook_active(),
                         0))
        return;
    lithos_count(LITHOS_COUNT_QMDS, 1);
    if (__builtin_expect(!atomic_load_explicit(&heard, memory_order_relaxed), 0))
        atomic_store_explicit(&heard, true, memory_order_relaxed);
    uint64_t words[LITHOS_QMD_PARAMS_QMD + 1];
    uint32_t bytes;
    memcpy(&bytes, params, sizeof bytes);
    if (__builtin_expect(bytes != LITHOS_QMD_PARAMS_BYTES, 0)) {
        lithos_log_once(
            LITHOS_LOG_WARNING,
            "the driver's QMD callback passes %u bytes instead of %u: launches are left as they are. Use "
            "`lithos run --coarse` with this driver",
            bytes, LITHOS_QMD_PARAMS_BYTES);
        lithos_count(LITHOS_COUNT_UNMASKED, 1);
        return;
    }
    memcpy(words, params, sizeof words);
    /* NOLINTBEGIN(performance-no-int-to-ptr): given as numbers */
    void *qmd = (void *)(uintptr_t)words[LITHOS_QMD_PARAMS_QMD];
    CUcontext ctx = (CUcontext)(uintptr_t)words[LITHOS_QMD_PARAMS_CONTEXT];
    CUfunction function = (CUfunction)(uintptr_t)words[LITHOS_QMD_PARAMS_FUNCTION];
    /* NOLINTEND(performance-no-int-to-ptr) */
    struct lithos_ticket *ticket = lithos_ticket_current;
    int masked = __builtin_expect(qmd && ticket, 1) ? handle_plain(ticket, qmd, ctx, function) : -1;
    if (__builtin_expect(masked < 0, 0))
        masked = qmd && handle_qmd(qmd, ctx, function);
    lithos_count(masked ? LITHOS_COUNT_MASKED : LITHOS_COUNT_UNMASKED, 1);
}

/* ---- putting it in place ---- */

int lithos_hook_subscribe(void)
{
    const char *env = getenv("LITHOS_UNTESTED_GPU");
    allow_unproved = env && !strcmp(env, "1");
    lithos_escape_prepare();
    int r = lithos_qmd_table_subscribe(LITHOS_REAL(lithos_export_table_fn, cuGetExportTable),
                                       lithos_hook_callback, NULL, hook.why, sizeof hook.why);
    atomic_store(&hook.state, r < 0 ? LITHOS_HOOK_FAILED : LITHOS_HOOK_SUBSCRIBED);
    return r;
}

void lithos_hook_step_aside(const char *why)
{
    snprintf(hook.why, sizeof hook.why, "%s", why);
    atomic_store(&hook.state, LITHOS_HOOK_FAILED);
}

enum lithos_hook_state lithos_hook_get_state(void)
{
    return (enum lithos_hook_state)atomic_load(&hook.state);
}

bool lithos_hook_heard(void)
{
    return atomic_load_explicit(&heard, memory_order_relaxed);
}

const char *lithos_hook_why(void)
{
    return hook.why;
}

/* ---- devices ---- */

typedef CUresult (*device_count_fn)(int *);
typedef CUresult (*device_get_fn)(CUdevice *, int);
typedef CUresult (*device_uuid_fn)(CUuuid *, CUdevice);
typedef CUresult (*device_attribute_fn)(int *, int, CUdevice);
typedef CUresult (*ctx_device_fn)(CUdevice *);

static int scan_device(int ordinal, struct lithos_hook_device *d)
{
    CUuuid uuid;
    device_attribute_fn attribute_of = LITHOS_REAL(device_attribute_fn, cuDeviceGetAttribute);
    if (LITHOS_REAL(device_get_fn, cuDeviceGet)(&d->handle, ordinal) != CUDA_SUCCESS)
        return -EIO;
    /* cuDeviceGetUuid_v2 came with 11.4; the older one gives the same for whole GPUs. */
    if (LITHOS_REAL(device_uuid_fn, cuDeviceGetUuid_v2)(&uuid, d->handle) != CUDA_SUCCESS &&
        LITHOS_REAL(device_uuid_fn, cuDeviceGetUuid)(&uuid, d->handle) != CUDA_SUCCESS)
        return -EIO;
    memcpy(d->uuid, uuid.bytes, sizeof d->uuid);
    if (attribute_of(&d->cc_major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, d->handle) != CUDA_SUCCESS ||
        attribute_of(&d->cc_minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, d->handle) != CUDA_SUCCESS ||
        attribute_of(&d->sm_count, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, d->handle) != CUDA_SUCCESS)
        return -EIO;
    atomic_store_explicit(&d->tpc_sms, TPC_SMS, memory_order_relaxed);
    return 0;
}

int lithos_hook_scan_devices(void)
{
    int count = 0;
    CUresult result = LITHOS_REAL(device_count_fn, cuDeviceGetCount)(&count);
    if (result != CUDA_SUCCESS)
        return result == CUDA_ERROR_NOT_INITIALIZED ? -EAGAIN : -EIO;
    int known = LITHOS_MIN(count, LITHOS_HOOK_MAX_DEVICES);
    for (int i = 0; i < known; i++) {
        int r = scan_device(i, &hook.devices[i]);
        if (r < 0)
            return r;
        lines[i].cc_major = (uint16_t)hook.devices[i].cc_major;
        lines[i].cc_minor = (uint16_t)hook.devices[i].cc_minor;
    }
    if (known < count)
        lithos_warning("%d GPUs, of which LithOS looks after the first %d", count, known);
    atomic_store(&hook.device_count, known);
    atomic_store(&lithos_hook_only_device, count == 1 ? 0 : LITHOS_DEVICE_UNKNOWN);
    return 0;
}

int lithos_hook_devices(const struct lithos_hook_device **ret_devices)
{
    *ret_devices = hook.devices;
    return atomic_load(&hook.device_count);
}

/* Several devices: the current context's. Costs a look into the driver's thread state. */
int32_t lithos_hook_current_device(void)
{
    CUdevice handle;
    int count = atomic_load_explicit(&hook.device_count, memory_order_acquire);
    if (count < 2 || LITHOS_REAL(ctx_device_fn, cuCtxGetDevice)(&handle) != CUDA_SUCCESS)
        return LITHOS_DEVICE_UNKNOWN;
    for (int i = 0; i < count; i++)
        if (hook.devices[i].handle == handle)
            return i;
    return LITHOS_DEVICE_UNKNOWN;
}

/* ---- masks ---- */

static bool safe_on_all(const struct lithos_gate *gates, const bool *present, int count,
                        const struct lithos_gate_row *row, unsigned blocks)
{
    for (int i = 0; i < count; i++)
        if (!present[i] || !lithos_gate_safe_on(&gates[i].topology, row->set, blocks))
            return false;
    return true;
}

/* By the one thread that writes it. */
static bool is_mask(const struct mask *m, const struct lithos_gate_row *row, bool anywhere)
{
    return atomic_load_explicit(&m->w[0], memory_order_relaxed) == row->set.w[0] &&
           atomic_load_explicit(&m->w[1], memory_order_relaxed) == row->set.w[1] &&
           atomic_load_explicit(&m->state, memory_order_relaxed) == row->state &&
           atomic_load_explicit(&m->anywhere, memory_order_relaxed) == anywhere;
}

/* gate NULL: no quota there. Whether that is anything new. */
static bool publish(int device, const struct lithos_gate *gate, const bool anywhere[LITHOS_CLUSTER_MAX])
{
    struct device_line *line = &lines[device];
    struct device_masks *masks = &hook.masks[device];
    uint32_t sequence = atomic_load_explicit(&line->sequence, memory_order_relaxed);
    uint32_t copy = (sequence + 1) & 1;
    bool changed = false;
    for (unsigned i = 0; i < LITHOS_CLUSTER_MAX; i++) {
        static const struct lithos_gate_row closed;
        const struct lithos_gate_row *row = gate ? &gate->rows[i] : &closed;
        /* release: a reader that sees any of this also sees the sequence that made its copy the old one */
        struct mask *m = i == 0 ? &line->plain[copy] : &masks->rows[copy][i];
        const struct mask *before = i == 0 ? &line->plain[sequence & 1] : &masks->rows[sequence & 1][i];
        changed |= !is_mask(before, row, gate && anywhere[i]);
        atomic_store_explicit(&m->w[0], row->set.w[0], memory_order_release);
        atomic_store_explicit(&m->w[1], row->set.w[1], memory_order_release);
        atomic_store_explicit(&m->state, row->state, memory_order_release);
        atomic_store_explicit(&m->anywhere, gate && anywhere[i], memory_order_release);
    }
    static const struct lithos_topology unknown;
    const struct lithos_tpcset *all = gate ? &gate->topology.valid : &unknown.valid;
    atomic_store_explicit(&masks->all[0], all->w[0], memory_order_release);
    atomic_store_explicit(&masks->all[1], all->w[1], memory_order_release);
    atomic_store_explicit(&line->sequence, sequence + 1, memory_order_release);
    return changed;
}

/* Another set than before? */
static bool set_graphs(int device, const struct lithos_hook_quota *q)
{
    const struct lithos_tpcset none = {{0, 0}}, set = q->present ? q->graphs : none;
    struct lithos_gate *gate = &of_graphs[device].gates[of_graphs[device].next % GRAPH_GATES];
    if (lithos_tpcset_equal(&set, &of_graphs[device].set))
        return false;
    of_graphs[device].set = set;
    of_graphs[device].next++;
    const bool built = !lithos_tpcset_empty(&set) && lithos_gate_build(&q->topology, set, gate) == 0;
    atomic_store_explicit(&of_graphs[device].now, built ? gate : NULL, memory_order_release);
    return true;
}

const struct lithos_gate *lithos_hook_graphs(int32_t device)
{
    return device >= 0 && device < LITHOS_HOOK_MAX_DEVICES
               ? atomic_load_explicit(&of_graphs[device].now, memory_order_acquire)
               : NULL;
}

int lithos_hook_set_quotas(const struct lithos_hook_quota *quotas, int count)
{
    struct lithos_gate gates[LITHOS_HOOK_MAX_DEVICES];
    bool present[LITHOS_HOOK_MAX_DEVICES] = {false};
    bool changed = false;
    int r = 0;
    for (int i = 0; i < count; i++) {
        if (!quotas[i].present)
            continue;
        present[i] = lithos_gate_build(&quotas[i].topology, quotas[i].own, &gates[i]) == 0;
        if (!present[i]) {
            r = -EINVAL;
            continue;
        }
        lithos_narrow_set_topology(i, &quotas[i].topology);
        atomic_store_explicit(&hook.devices[i].tpc_sms, quotas[i].topology.sms_per_tpc, memory_order_relaxed);
    }
    for (int i = 0; i < count; i++) {
        bool anywhere[LITHOS_CLUSTER_MAX] = {false};
        for (unsigned b = 0; present[i] && b < LITHOS_CLUSTER_MAX; b++)
            anywhere[b] = safe_on_all(gates, present, count, &gates[i].rows[b], b + 1);
        changed |= publish(i, present[i] ? &gates[i] : NULL, anywhere);
        changed |= set_graphs(i, &quotas[i]);
        atomic_store_explicit(&hook.devices[i].told_sms, present[i] ? quotas[i].told_sms : 0,
                              memory_order_relaxed);
    }
    if (changed) { /* after they can be seen: who sees the number sees them */
        atomic_fetch_add(&lithos_hook_masks, 1);
        lithos_graphs_not_fresh();
    }
    return r;
}

void lithos_hook_refresh(void)
{
    lithos_hook_client.refresh();
}

void lithos_hook_forget(void)
{
    atomic_store(&lithos_hook_on, false);
    atomic_store(&hook.state, LITHOS_HOOK_NONE);
    lithos_narrow_forget();
    atomic_store(&heard, false);
    atomic_store(&hook.device_count, 0);
    atomic_store(&lithos_hook_only_device, LITHOS_DEVICE_UNKNOWN);
    for (int i = 0; i < LITHOS_HOOK_MAX_DEVICES; i++)
        publish(i, NULL, NULL);
    for (unsigned i = 0; i < FEW_FUNCTIONS; i++)
        atomic_store(&hook.driver_functions[i], NULL);
    lithos_ticket_current = NULL;
    atomic_store(&lithos_hook_escaped, false);
    lithos_atoms_forget();
    lithos_graph_follow_forget();
}
