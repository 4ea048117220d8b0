/* Launch records: one ring a launching thread. */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/ticks.h"
#include "base/util.h"
#include "driver/atoms.h"
#include "driver/names.h"
#include "driver/qmd_hook.h"
#include "tenant/attach.h"
#include "tenant/before.h"
#include "tenant/observe.h"
#include "tenant/queue.h"

#define NAME_BYTES_MAX 1024u
#define UNNAMED 256u
#define PIECE sizeof(((struct lithos_record *)0)->name.text)
#define TLS __attribute__((tls_model("initial-exec")))

static struct {
    _Atomic uint32_t taken[LITHOS_RECORD_RINGS]; /* by which thread (gettid), 0: by none */
    /* Of graph nodes: seen in the callback, where the driver may not be asked for names. A row a ring, its writer's own. */
    uint64_t unnamed[LITHOS_RECORD_RINGS][UNNAMED];
    pthread_once_t once;
    pthread_key_t key;
    bool have_key;
} records = {.once = PTHREAD_ONCE_INIT};

struct lithos_tenant_numbers lithos_tenant_numbers LITHOS_LAUNCH_DATA;
struct lithos_before lithos_before[LITHOS_BEFORE_STREAMS];

static struct {
    _Atomic uint32_t renewed; /* how often other pages came */
    _Atomic uint8_t gpus[LITHOS_HOOK_MAX_DEVICES];
} looked_at LITHOS_LAUNCH_DATA;

/* The ring of this thread, counted from 1; 0: none. */
static __thread uint32_t my_ring TLS;
/* It, and its slots; NULL: none. */
static __thread struct lithos_record_ring *my_ring_at TLS;
static __thread struct lithos_record *my_slots TLS;
static __thread uint32_t my_slot_count TLS;
static __thread uint32_t my_renewed TLS;
/* A stamp set aside for this thread's next launch, 0: none. */
static __thread uint64_t my_stamp TLS;
/* The stamps are registered with the context that this thread last launched in. Which that will be next is known in the callback
 * alone, where nothing can be registered: the first launch in another one goes without a stamp. */
static __thread bool my_context_ready TLS;
static __thread uint32_t my_unnamed TLS; /* in the row of my_ring */

/* ---- rings ---- */

static void take_ring(uint32_t ring)
{
    struct lithos_record_rings *rings = &lithos_tenant_home.records;
    my_ring = ring;
    my_ring_at = ring ? &rings->ring[ring - 1] : NULL;
    my_slots = ring ? &rings->slots[lithos_record_slot(ring - 1, 0)] : NULL;
    my_slot_count = ring ? lithos_record_ring_slots(ring - 1) : 0;
    lithos_thread_counters = ring ? my_ring_at->counters : NULL;
}

static void thread_ends(void *ring)
{
    uint32_t i = (uint32_t)(uintptr_t)ring - 1;
    take_ring(0);
    my_unnamed = 0;
    lithos_stamps_cancel(my_stamp);
    my_stamp = 0;
    atomic_store_explicit(&lithos_tenant_home.records.ring[i].thread_id, 0, memory_order_relaxed);
    /* Head and tail go on: the next thread writes behind what the reader has not read. */
    atomic_store_explicit(&records.taken[i], 0, memory_order_release);
}

static void make_key(void)
{
    records.have_key = pthread_key_create(&records.key, thread_ends) == 0;
}

void lithos_records_thread_starts(void)
{
    uint32_t self = (uint32_t)syscall(SYS_gettid); /* once a thread */
    pthread_once(&records.once, make_key);
    for (uint32_t i = 0; records.have_key && i < LITHOS_RECORD_RINGS; i++) {
        uint32_t nobody = 0;
        if (atomic_load_explicit(&records.taken[i], memory_order_relaxed) ||
            !atomic_compare_exchange_strong_explicit(&records.taken[i], &nobody, self, memory_order_acquire,
                                                     memory_order_relaxed))
            continue;
        if (pthread_setspecific(records.key, (void *)(uintptr_t)(i + 1)) != 0) { /* NOLINT: a small number */
            atomic_store_explicit(&records.taken[i], 0, memory_order_release);
            return;
        }
        atomic_store_explicit(&lithos_tenant_home.records.ring[i].thread_id, self, memory_order_relaxed);
        take_ring(i + 1);
        return;
    }
}

uint32_t lithos_records_thread(void)
{
    return my_ring;
}

/* Whose launch or wait it is: not always this thread's, which may issue what others have queued. */
static inline uint32_t whose(void)
{
    const struct lithos_issue *issue = lithos_order_issue;
    return (__builtin_expect(issue != NULL, 0) && issue->thread ? issue->thread : my_ring) - 1;
}

static inline void add(enum lithos_counter what, uint64_t n)
{
    _Atomic uint64_t *own = lithos_thread_counters;
    if (__builtin_expect(own != NULL, 1))
        lithos_add_alone(&own[what], n);
    else
        lithos_arena_count(&lithos_tenant_home, what, n);
}

void lithos_records_count(enum lithos_counter what, uint64_t n)
{
    add(what, n);
}

static inline void count(enum lithos_counter what)
{
    add(what, 1);
}

static uint64_t now(const struct lithos_ticket_notes *n)
{
    return __builtin_expect(n->ticks, 1) ? lithos_ticks() : lithos_now_ns();
}

/* Where this thread's next record goes; NULL: nowhere. */
static inline struct lithos_record *begin_record(uint32_t *ret_head)
{
    return my_ring_at ? lithos_record_begin(my_ring_at, my_slots, my_slot_count,
                                            &lithos_tenant_home.record_tails[my_ring - 1], ret_head)
                      : NULL;
}

/* It was written there, or had no place. */
static inline bool end_record(const struct lithos_record *slot, uint32_t head, uint16_t kind)
{
    bool done =
        __builtin_expect(slot != NULL, 1) && __builtin_expect(lithos_record_end(my_ring_at, slot, head), 1);
    if (__builtin_expect(my_ring_at != NULL, 1) && __builtin_expect(lithos_record_wake(my_ring_at), 0))
        lithos_tenant_wake_daemon();
    if (__builtin_expect(done, 1)) {
        count(LITHOS_COUNTER_RECORDS);
        return true;
    }
    count(LITHOS_COUNTER_RECORDS_DROPPED);
    if (kind == LITHOS_RECORD_LAUNCH || kind == LITHOS_RECORD_DRIVER)
        count(LITHOS_COUNTER_LAUNCHES_DROPPED);
    return false;
}

static uint16_t clock_flag(const struct lithos_ticket_notes *n)
{
    return n->ticks ? LITHOS_RECORD_TICKS : 0;
}

static bool put(const struct lithos_ticket_notes *n, const struct lithos_record *r)
{
    uint32_t head = 0;
    struct lithos_record *slot = begin_record(&head);
    if (slot) {
        *slot = *r;
        slot->flags |= clock_flag(n);
    }
    return end_record(slot, head, r->kind);
}

/* ---- names ---- */

static CUfunction handle_of(uint64_t function)
{
    return (CUfunction)(uintptr_t)function; /* NOLINT(performance-no-int-to-ptr): from the driver */
}

static LITHOS_OFF_PATH void put_name(const struct lithos_ticket_notes *n, uint64_t function)
{
    const char *name = lithos_names_of(handle_of(function));
    size_t total = name ? strnlen(name, NAME_BYTES_MAX) : 0;
    for (size_t offset = 0; offset < total; offset += PIECE) {
        struct lithos_record r = {
            .sequence = n->sequence,
            .submit_ns = n->submit_ns,
            .function = function,
            .kind = LITHOS_RECORD_NAME,
            .gpu = 0xff,
            .cluster = 1,
        };
        r.name.offset = (uint16_t)offset;
        r.name.total = (uint16_t)total;
        memcpy(r.name.text, name + offset, LITHOS_MIN(PIECE, total - offset));
        if (!put(n, &r)) {
            lithos_names_unsay(handle_of(function)); /* its next launch tries again */
            return;
        }
    }
}

/* Names of the nodes that this thread's callbacks have noted. */
static LITHOS_OFF_PATH void put_names(const struct lithos_ticket_notes *n)
{
    for (; my_unnamed; my_unnamed--) {
        uint64_t function = records.unnamed[my_ring - 1][my_unnamed - 1];
        if (lithos_names_say(handle_of(function)))
            put_name(n, function);
    }
}

/* ---- before the call, in the callback ---- */

/* What the launch will write: fetched while the driver is at work. */
static LITHOS_LAUNCH_PATH void prefetch(void)
{
    const _Atomic uint32_t *head = &my_ring_at->head;
    const struct lithos_record *next =
        &my_slots[atomic_load_explicit(head, memory_order_relaxed) & (my_slot_count - 1)];
    lithos_prefetch_write(next);
    lithos_prefetch_write((const char *)next + 64);
    lithos_prefetch_write(head);
}

/* Other pages than at this thread's last ticket. */
static LITHOS_OFF_PATH void renew(uint32_t renewed)
{
    my_renewed = renewed;
    my_stamp = 0; /* of the pages before */
    my_context_ready = false;
    atomic_store_explicit(&my_ring_at->thread_id,
                          atomic_load_explicit(&records.taken[my_ring - 1], memory_order_relaxed),
                          memory_order_relaxed);
}

static void say_writing(uint32_t writing)
{
    if (my_ring_at)
        atomic_store_explicit(&my_ring_at->writing, writing, memory_order_release);
}

/* Whoever finds a record with a later number also finds that this thread is writing, or what it has written. */
static uint64_t next_sequence(void)
{
    say_writing(1);
    return atomic_fetch_add_explicit(&lithos_tenant_numbers.sequence, 1, memory_order_acq_rel) + 1;
}

static void closed(void)
{
    say_writing(0);
}

static LITHOS_FUSED void open_ticket(struct lithos_ticket *t)
{
    struct lithos_ticket_notes *n = &t->notes;
    uint32_t renewed = atomic_load_explicit(&looked_at.renewed, memory_order_relaxed);
    bool stamps = (t->observe & LITHOS_OBSERVE_STAMPS) != 0;
    n->stream = UINT64_MAX;  /* not known */
    n->graph = (uintptr_t)t; /* until its handle is known: nothing else has this address meanwhile */
    n->seen = false;
    if (__builtin_expect(t->atom != NULL, 0) && t->atom->index) /* one launch of the app's */
        n->sequence = t->atom->sequence;
    else
        n->sequence = next_sequence();
    if (__builtin_expect(t->atom != NULL, 0))
        t->atom->sequence = n->sequence;
    if (__builtin_expect(my_ring != 0, 1)) {
        if (__builtin_expect(my_renewed != renewed, 0))
            renew(renewed);
        if (__builtin_expect(t->kind == LITHOS_TICKET_LAUNCH, 1)) {
            if (__builtin_expect(stamps && !my_stamp, 1))
                my_stamp = lithos_stamps_reserve();
            prefetch();
        }
    }
    if (stamps && __builtin_expect(!my_context_ready, 0)) {
        lithos_stamps_ready();
        my_context_ready = true;
    }
    n->ticks = (t->observe & LITHOS_OBSERVE_TICKS) != 0;
    n->submit_ns = now(n);
    if (__builtin_expect(my_unnamed != 0, 0))
        put_names(n);
}

static uint8_t gpu_of(int32_t device)
{
    /* kept plus one, so that zeroed means unknown */
    return device < 0 ? 0xff
                      : (uint8_t)(atomic_load_explicit(&looked_at.gpus[device], memory_order_relaxed) - 1);
}

/* The slot set aside for a launch, or one looked for now (multi-device launches, kernels of the driver). */
static LITHOS_LAUNCH_PATH int take_stamp(uint64_t base, const struct lithos_qmd_seen *seen,
                                         uint64_t *ret_sequence)
{
    uint64_t reserved = my_stamp ? my_stamp : lithos_stamps_reserve();
    my_stamp = 0;
    int r = lithos_stamps_take(base, seen->layout, seen->qmd, reserved);
    if (r == 0)
        *ret_sequence = reserved;
    return r;
}

/* The stamp of a QMD: its sequence, or 0 with the flag that says why. */
static LITHOS_LAUNCH_PATH uint64_t stamp(struct lithos_ticket *t, const struct lithos_qmd_seen *seen,
                                         uint16_t *ret_flags)
{
    uint64_t sequence = 0;
    uint64_t base = 0;
    int r = -ENOTSUP;
    if (__builtin_expect((t->observe & LITHOS_OBSERVE_STAMPS) != 0, 1))
        base = lithos_stamps_base(seen->ctx);
    my_context_ready = base != 0; /* else looked after before the next launch */
    if (__builtin_expect(base && seen->layout, 1))
        r = __builtin_expect(seen->owner == LITHOS_QMD_OWNER_GRAPH, 0)
                ? lithos_stamps_take_node(base, seen->layout, seen->qmd, t->notes.graph, &sequence)
                : take_stamp(base, seen, &sequence);
    if (__builtin_expect(r >= 0, 1)) {
        count(LITHOS_COUNTER_STAMPS);
        *ret_flags |= r ? LITHOS_RECORD_NODE_CHANGED : 0;
        return sequence;
    }
    if (r == -EBUSY || r == -ENOSPC)
        count(LITHOS_COUNTER_STAMPS_DROPPED);
    *ret_flags |= r == -EBUSY    ? LITHOS_RECORD_NO_STAMP_TAKEN
                  : r == -ENOSPC ? LITHOS_RECORD_NO_STAMP_FULL
                                 : LITHOS_RECORD_NO_STAMP_OFF;
    return 0;
}

/* A node's function is named as soon as the driver may be asked. */
static void note_unnamed(uint64_t function)
{
    if (my_ring && my_unnamed < UNNAMED && !lithos_names_said(handle_of(function)))
        records.unnamed[my_ring - 1][my_unnamed++] = function;
}

/* A kernel that the app did not launch by itself: all that is known of it stands in its QMD. */
static LITHOS_OFF_PATH void put_other(struct lithos_ticket *t, const struct lithos_qmd_seen *seen,
                                      uint64_t stamped, uint16_t flags)
{
    bool node = seen->owner == LITHOS_QMD_OWNER_GRAPH;
    struct lithos_record r = {
        .sequence = t->notes.sequence,
        .submit_ns = t->notes.submit_ns,
        .function = (uintptr_t)seen->function,
        .stream = t->notes.stream,
        .kind = node ? LITHOS_RECORD_GRAPH_NODE : LITHOS_RECORD_DRIVER,
        .flags = flags,
        .gpu = gpu_of(t->device),
        .cluster = 1,
    };
    r.launch.stamp = stamped;
    r.launch.tpcs = seen->tpcs;
    r.launch.thread = whose();
    if (node && t->notes.graph != (uintptr_t)t)
        r.launch.graph = (uint32_t)t->notes.graph;
    if (seen->layout) {
        struct lithos_qmd_view v;
        lithos_qmd_decode(seen->layout, seen->qmd, &v);
        r.registers = (uint16_t)v.registers;
        r.cluster = (uint8_t)LITHOS_MAX(1u, LITHOS_MIN(255u, v.cluster[0] * v.cluster[1] * v.cluster[2]));
        for (int i = 0; i < 3; i++) {
            r.launch.grid[i] = seen->grid ? seen->grid[i] : v.grid[i] * LITHOS_MAX(1u, v.cluster[i]);
            r.launch.block[i] = v.block[i];
        }
        r.launch.shared_bytes = v.shared_bytes;
    }
    put(&t->notes, &r);
    if (node && r.function)
        note_unnamed(r.function);
}

/* A node that has a stamp of ours and no blocks was switched off. */
static void empty_qmd_seen(struct lithos_ticket *t, const struct lithos_qmd_seen *seen)
{
    uint64_t base = t->observe & LITHOS_OBSERVE_STAMPS ? lithos_stamps_base(seen->ctx) : 0;
    uint64_t stamped =
        base && seen->layout ? lithos_stamps_of_node(base, seen->layout, seen->qmd, t->notes.graph) : 0;
    if (!stamped)
        return;
    struct lithos_qmd_seen node = *seen;
    node.owner = LITHOS_QMD_OWNER_GRAPH; /* it is counted as the driver's, as all that runs nothing */
    put_other(t, &node, stamped, LITHOS_RECORD_NODE_CHANGED);
}

static LITHOS_FUSED void qmd_seen(struct lithos_ticket *t, const struct lithos_qmd_seen *seen)
{
    if (seen->owner == LITHOS_QMD_OWNER_ESCAPED)
        return;
    uint16_t flags = seen->breach ? LITHOS_RECORD_BREACH : 0;
    uint64_t stamped = stamp(t, seen, &flags);
    if (__builtin_expect(lithos_order_issue != NULL, 0) && seen->owner != LITHOS_QMD_OWNER_GRAPH)
        lithos_order_issue->stamp = stamped;
    if (__builtin_expect(seen->owner != LITHOS_QMD_OWNER_LAUNCH, 0)) {
        put_other(t, seen, stamped, flags);
        return;
    }
    struct lithos_ticket_notes *n = &t->notes;
    n->seen = true;
    n->function = (uintptr_t)seen->function;
    n->stamp = stamped;
    n->flags = flags;
    n->tpcs = seen->tpcs;
    n->cluster = seen->layout ? (uint8_t)seen->brief.cluster_blocks : 1;
    n->registers = seen->layout ? (uint16_t)seen->brief.registers : 0;
}

/* ---- after the call ---- */

static uint32_t call_ns(const struct lithos_ticket_notes *n)
{
    uint64_t took_ns = now(n) - n->submit_ns;
    return (uint32_t)LITHOS_MIN(took_ns, (uint64_t)UINT32_MAX);
}

static LITHOS_LAUNCH_PATH void put_launch(struct lithos_ticket *t, const struct lithos_launch *launch,
                                          bool success)
{
    const struct lithos_ticket_notes *n = &t->notes;
    if (__builtin_expect(!n->seen, 0))
        return; /* into a graph, while the stream captures */
    if (__builtin_expect(!success, 0)) {
        lithos_stamps_give_back(n->stamp);
        return;
    }
    uint32_t took_ns = call_ns(n);
    uint64_t function = n->function ? n->function : (uintptr_t)launch->function;
    if (__builtin_expect(lithos_names_say(handle_of(function)), 0))
        put_name(n, function);
    bool alone =
        __builtin_expect(t->qmds_due == 1, 1); /* else one QMD a device, and nothing says which is whose */
    uint32_t before = 0;
    if (__builtin_expect((t->observe & LITHOS_OBSERVE_BEFORE) != 0, 0)) {
        before = lithos_before_get((uintptr_t)launch->stream);
        lithos_before_set((uintptr_t)launch->stream, lithos_size_shape(launch->grid, launch->block));
    }
    uint32_t head = 0;
    struct lithos_record *slot = begin_record(&head);
    if (__builtin_expect(slot != NULL, 1))
        *slot = (struct lithos_record){
            .sequence = n->sequence,
            .submit_ns = n->submit_ns,
            .function = function,
            .stream = (uintptr_t)launch->stream,
            .kind = LITHOS_RECORD_LAUNCH,
            .flags =
                (uint16_t)(n->flags | clock_flag(n) | (launch->cooperative ? LITHOS_RECORD_COOPERATIVE : 0) |
                           (alone ? 0 : LITHOS_RECORD_NO_STAMP_OFF)),
            .gpu = gpu_of(t->device),
            .cluster = n->cluster,
            .registers = n->registers,
            .launch = {.stamp = alone ? n->stamp : 0,
                       .grid = {launch->grid[0], launch->grid[1], launch->grid[2]},
                       .block = {launch->block[0], launch->block[1], launch->block[2]},
                       .shared_bytes = launch->shared_bytes,
                       .thread = whose(),
                       .tpcs = n->tpcs,
                       .call_ns = took_ns,
                       .atom = (uint16_t)launch->atom,
                       .atoms = (uint16_t)launch->atoms,
                       .blocks_per_sm = (uint16_t)launch->blocks_per_sm,
                       .graph = 0,
                       .reserved = 0,
                       .before = before,
                       .padding = 0,
                       .operator_key = launch->operator_key},
        };
    end_record(slot, head, LITHOS_RECORD_LAUNCH);
}

static LITHOS_FUSED void launched(struct lithos_ticket *t, const struct lithos_launch *launch, bool success)
{
    put_launch(t, launch, success);
    closed();
}

static void put_event(const struct lithos_ticket_notes *n, uint16_t kind, uint16_t flags, uint64_t stream,
                      uint64_t began, uint64_t graph, uint8_t gpu)
{
    struct lithos_record r = {
        .sequence = n->sequence,
        .submit_ns = n->submit_ns,
        .stream = stream,
        .kind = kind,
        .flags = flags,
        .gpu = gpu,
        .cluster = 1,
    };
    r.launch.thread = whose();
    r.launch.stamp = began;
    r.launch.graph = (uint32_t)graph;
    r.launch.call_ns = call_ns(n);
    put(n, &r);
}

/* The call takes some 20 to 60 us: as long as lithosd and the kernel that runs need to leave the TPCs. */
static void graph_begins(void)
{
    atomic_fetch_add_explicit(&lithos_tenant_home.graphs_begun, 1, memory_order_release);
}

static void graph_launched(const struct lithos_ticket *t, bool success)
{
    if (success && my_unnamed)
        put_names(&t->notes);
    if (success)
        put_event(&t->notes, LITHOS_RECORD_GRAPH_LAUNCH, 0, t->notes.stream, 0, t->notes.graph,
                  gpu_of(t->device));
    closed();
    atomic_fetch_add_explicit(&lithos_tenant_home.graphs_given, 1, memory_order_release);
}

static void graph_made(struct lithos_ticket *t, uint64_t graph)
{
    lithos_stamps_pass_on((uintptr_t)t, graph);
}

static void waited(const struct lithos_ticket_notes *notes, uint64_t stream, bool ended)
{
    struct lithos_ticket_notes now = *notes;
    now.sequence = next_sequence();
    put_event(&now, LITHOS_RECORD_SYNC, ended ? LITHOS_RECORD_ENDED : 0, stream, notes->sequence, 0, 0xff);
    closed();
}

static void context_ended(CUcontext ctx, CUdevice device, bool ended)
{
    my_context_ready = false;
    lithos_stamps_context_ended(ctx, device, ended);
    lithos_queue_context_ended(ctx, device, ended);
}

static void graph_ended(uint64_t graph)
{
    lithos_stamps_pass_on(graph, 0);
}

const struct lithos_hook_observer lithos_tenant_observer = {
    .observe = &lithos_tenant_home.observe,
    .open = open_ticket,
    .closed = closed,
    .qmd = qmd_seen,
    .empty_qmd = empty_qmd_seen,
    .launched = launched,
    .graph_begins = graph_begins,
    .graph_launched = graph_launched,
    .graph_made = graph_made,
    .waited = waited,
    .context_ends = lithos_stamps_context_ends,
    .context_ended = context_ended,
    .graph_ended = graph_ended,
};

void lithos_records_set_gpu(int device, uint8_t grant_index)
{
    atomic_store_explicit(&looked_at.gpus[device], (uint8_t)(grant_index + 1), memory_order_relaxed);
}

void lithos_records_renew(void)
{
    lithos_names_unsay_all();
    atomic_fetch_add_explicit(&looked_at.renewed, 1, memory_order_relaxed);
}

void lithos_records_forget(void)
{
    for (unsigned i = 0; i < LITHOS_RECORD_RINGS; i++)
        atomic_store(&records.taken[i], 0);
    if (my_ring) /* the key's value is the parent's ring */
        pthread_setspecific(records.key, NULL);
    take_ring(0);
    my_unnamed = 0;
    my_stamp = 0;
    my_context_ready = false;
    atomic_store(&lithos_tenant_numbers.sequence, 0);
    lithos_records_renew();
}
