#include "daemon/observe.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "daemon/daemon.h"

/* While records come it looks so often, or sooner, lest a ring fill to more than a part; then less and less often. Each look costs
 * some 20 us. */
#define BUSY_NS LITHOS_NSEC_PER_MSEC
#define SOONEST_NS (50 * LITHOS_NSEC_PER_USEC)
/* While graphs are replayed: the next replay's stamps take the place of those not read yet. */
#define REPLAY_NS (250 * LITHOS_NSEC_PER_USEC)
#define FILL_PART 8u
#define IDLE_NS (20 * LITHOS_NSEC_PER_MSEC)
/* Before a longer sleep it asks to be woken. A large ring takes twice as long to fill at a launch a microsecond. */
#define ASK_NS (2 * LITHOS_NSEC_PER_MSEC)
/* With kernels outstanding it looks at least so often: how late an end is seen bounds how well the clock is known. */
#define OUTSTANDING_NS (4 * LITHOS_NSEC_PER_MSEC)
/* How long and how often it looks without a pause: half a percent of a core while kernels are on their way, and ten times that
 * in the first second after a pause, when little is known of the clock. */
#define SPIN_NS (400 * LITHOS_NSEC_PER_USEC)
#define SPIN_EVERY_NS (80 * LITHOS_NSEC_PER_MSEC)
#define SPIN_FIRST_NS (8 * LITHOS_NSEC_PER_MSEC)
#define SPIN_FIRST 100u
#define SPIN_FORGOTTEN_NS LITHOS_NSEC_PER_SEC
/* And while somebody borrows, until it is the sockets' turn. */
#define WATCH_NS (500 * LITHOS_NSEC_PER_USEC)
/* Ticks and time are read at the same moment when no more passes between. */
#define CLOCK_PAIR_NS 2000
#define CLOCK_TRIES 3
/* A record that is missing between others is waited for so long: its thread may be about to write it. */
#define GAP_NS (500 * LITHOS_NSEC_PER_USEC)
/* Records of a process read before it is others' turn, and turns before it is the sockets'. */
#define BATCH 1024u
#define TURNS 8u
/* Damaged ones of a ring passed over at a time. */
#define SKIPS 64u
/* From the end of cuLaunchKernel to the kernel's first block, and from the end of a kernel to the first block of the one behind it
 * (docs/hardware.md, "Completion stamps"). */
#define LAUNCH_LATENCY_NS 4300u
#define TURN_NS 1500u
/* Of the virtual GPU, whose launch call takes the time of a message: counted from its beginning. */
#define VIRTUAL_LATENCY_NS 4000u

/* ---- memory ---- */

/* What a tenant's kernels have shown of the clocks of its GPUs is good for the next one. */
static void keep_drift(struct lithosd_tenant *t)
{
    for (uint32_t i = 0; t->observed && i < t->grant.gpu_count; i++) {
        const struct lithos_clockmap *m = lithos_timeline_clock(t->observed->timeline, i);
        struct lithosd_gpu *gpu = &t->daemon->gpus.gpu[t->gpu[i]];
        if (!m->fitted || !m->slope_known)
            continue;
        gpu->drift_known = true;
        gpu->drift_ppb = lithos_clockmap_drift_ppb(m);
    }
}

int64_t lithosd_clock_drift_ppb(const struct lithosd_tenant *t, uint32_t i)
{
    const struct lithos_clockmap *m = t->observed ? lithos_timeline_clock(t->observed->timeline, i) : NULL;
    const struct lithosd_gpu *gpu = &t->daemon->gpus.gpu[t->gpu[i]];

    if (m && m->fitted && (m->slope_known || t->daemon->gpus.is_virtual))
        return lithos_clockmap_drift_ppb(m);
    return gpu->drift_known ? gpu->drift_ppb : 0;
}

/* Of a kernel that runs in parts each part is told of by itself: each has the TPCs of its moment. */
static void atom_ended(void *ctx, const struct lithos_kernel_event *k)
{
    const struct lithosd_tenant *t = ctx;
    const struct lithos_timeline_launch *l = k->launch;
    if (!t->daemon->observe.recording_count)
        return;
    const struct lithos_trace_event e = {
        .kind = LITHOS_TRACE_ATOM,
        .time_ns = k->start_ns,
        .atom = {.tenant = t->id,
                 .stream = l->stream,
                 .pid = (uint32_t)t->daemon->processes[l->process].pid,
                 .gpu = t->daemon->gpus.gpu[t->gpu[l->gpu]].index,
                 .sequence = l->sequence,
                 .tpcs = l->tpcs,
                 .took_ns = k->end_ns - k->start_ns},
    };
    lithosd_recordings_event(t, &e);
}

static struct lithosd_observed *new_observed(const struct lithosd_tenant *t)
{
    struct lithosd *d = t->daemon;
    for (unsigned i = 0; i < LITHOSD_TENANT_MAX; i++)
        if (d->tenants[i].used)
            keep_drift(&d->tenants[i]);
    struct lithos_timeline_config c = {.launches = 65536,
                                       .streams = 1024,
                                       .operators = 256,
                                       .gpu_count = t->grant.gpu_count,
                                       .missing_ns = 50 * LITHOS_NSEC_PER_MSEC,
                                       .replay_ns = 2 * LITHOS_NSEC_PER_SEC,
                                       .atom = atom_ended};
    for (uint32_t i = 0; i < c.gpu_count; i++) {
        c.gpu[i].tpcs = lithosd_gpu_tpcs(&d->gpus.gpu[t->gpu[i]]);
        c.gpu[i].launch_latency_ns = d->gpus.is_virtual ? VIRTUAL_LATENCY_NS : LAUNCH_LATENCY_NS;
        c.gpu[i].turn_ns = d->gpus.is_virtual ? 0 : TURN_NS;
        c.gpu[i].drift_max_ppb = d->gpus.is_virtual ? 0 : LITHOS_CLOCKMAP_DRIFT_MAX_PPB;
        c.gpu[i].drift_known = d->gpus.gpu[t->gpu[i]].drift_known;
        c.gpu[i].drift_ppb = d->gpus.gpu[t->gpu[i]].drift_ppb;
    }
    size_t bytes;
    struct lithosd_observed *o = calloc(1, sizeof *o);
    void *mem = o && lithos_timeline_size(&c, &bytes) == 0 ? calloc(1, bytes) : NULL;
    if (!mem || lithos_timeline_init(mem, bytes, &c, &o->timeline) < 0) {
        free(mem);
        free(o);
        return NULL;
    }
    o->flags = LITHOS_OBSERVE_RECORDS | (d->observe.ticks_steady ? LITHOS_OBSERVE_TICKS : 0) |
               (d->options.rightsize ? LITHOS_OBSERVE_BEFORE : 0);
    bool stamps = !d->observe.stamps_off && t->mode != LITHOS_MODE_COARSE;
    for (uint32_t i = 0; i < c.gpu_count; i++)
        stamps = stamps && d->gpus.gpu[t->gpu[i]].stamps;
    if (stamps)
        o->flags |= LITHOS_OBSERVE_STAMPS;
    return o;
}

/* ---- records in ---- */

/* Times as everybody else has them. */
static void tell_time(const struct lithosd *d, struct lithos_record *r)
{
    if (!(r->flags & LITHOS_RECORD_TICKS))
        return;
    if (r->kind == LITHOS_RECORD_LAUNCH || r->kind == LITHOS_RECORD_GRAPH_LAUNCH ||
        r->kind == LITHOS_RECORD_SYNC) {
        double took_ns = r->launch.call_ns * d->observe.ticks.ns_a_tick;
        if (r->launch.call_ns != UINT32_MAX) /* else it took longer than that */
            r->launch.call_ns = took_ns < UINT32_MAX ? (uint32_t)took_ns : UINT32_MAX;
    }
    r->submit_ns = lithos_ticks_map_ns(&d->observe.ticks, r->submit_ns);
    r->flags &= (uint16_t)~LITHOS_RECORD_TICKS;
}

/* The next record of each ring that has one; returns the ring whose is first, or -1. */
static int first_ring(struct lithosd_process *p)
{
    struct lithosd_reader *reader = p->reader;
    struct lithosd_observed *o = p->tenant->observed;
    int first = -1;
    for (unsigned i = 0; i < LITHOS_RECORD_RINGS; i++) {
        /* Bounded: a process may fill its ring with rubbish as fast as it is read. */
        for (unsigned tries = 0; !reader->have[i] && tries < SKIPS; tries++) {
            uint32_t lost = 0;
            int r =
                lithos_record_get(&p->arena->records, i, &p->arena->record_tails[i], &reader->head[i], &lost);
            if (r == 0)
                break;
            reader->have[i] = r == 1;
            if (r == 1)
                tell_time(p->daemon, &reader->head[i]);
            o->damaged += r == -EPROTO;
            o->overrun += r == -EOVERFLOW ? lost : 0;
        }
        if (reader->have[i] && (first < 0 || reader->head[i].sequence < reader->head[first].sequence))
            first = (int)i;
    }
    return first;
}

/* Does a thread say that it may still write a record under a number that it has? One that was killed says so for ever. */
static bool is_writing(const struct lithosd_process *p)
{
    for (unsigned i = 0; i < LITHOS_RECORD_RINGS; i++)
        if (atomic_load_explicit(&p->arena->records.ring[i].writing, memory_order_acquire))
            return true;
    return false;
}

/* The ring to read from, or -1: none has a record. A gap before it is waited for while somebody may fill it, but not for long: then
 * *ret_waits, and -1. */
static int next_ring(struct lithosd_process *p, uint64_t now_ns, bool last, bool *ret_waits)
{
    const struct lithosd_reader *reader = p->reader;
    for (int ring = first_ring(p), before = -1;; before = ring, ring = first_ring(p)) {
        if (ring < 0 || ring == before)
            return ring;
        const struct lithos_record *r = &reader->head[ring];
        uint64_t age_ns = now_ns > r->submit_ns ? now_ns - r->submit_ns : GAP_NS;
        if (last || !reader->next_sequence || r->sequence <= reader->next_sequence || age_ns >= GAP_NS)
            return ring;
        if (is_writing(p)) {
            *ret_waits = true;
            return -1;
        }
        /* nobody is: but somebody may have been, and have written it since the rings were looked at */
    }
}

/* Records of all rings in the order of their sequence, a batch of them. */
static unsigned drain(struct lithosd_process *p, bool last, bool *ret_waits)
{
    struct lithosd_reader *reader = p->reader;
    uint64_t now_ns = lithos_now_ns();
    unsigned n = 0;
    for (int ring; n < BATCH && (ring = next_ring(p, now_ns, last, ret_waits)) >= 0; n++) {
        const struct lithos_record *r = &reader->head[ring];
        lithosd_observe_record(p, r);
        reader->next_sequence = LITHOS_MAX(reader->next_sequence, r->sequence + 1);
        reader->have[ring] = false;
    }
    return n;
}

/* ---- stamps in, events out ---- */

static int read_stamp(void *ctx, uint32_t process, uint64_t stamp, uint64_t *ret_gpu_ns,
                      uint64_t *ret_seen_ns)
{
    const struct lithosd_tenant *t = ctx;
    const struct lithosd_process *p = &t->daemon->processes[process];
    int r =
        p->used && p->tenant == t && p->arena ? lithos_stamp_read(p->arena->stamps, stamp, ret_gpu_ns) : 0;
    if (r == 1)
        *ret_seen_ns = lithos_now_ns();
    return r;
}

static uint32_t trace_flags(uint32_t flags)
{
    return (flags & LITHOS_KERNEL_GRAPH_NODE ? LITHOS_TRACE_GRAPH_NODE : 0) |
           (flags & LITHOS_KERNEL_DRIVER ? LITHOS_TRACE_DRIVER : 0) |
           (flags & (LITHOS_KERNEL_OVERLAPPED | LITHOS_KERNEL_AFTER_GAP) ? LITHOS_TRACE_ESTIMATE : 0) |
           (flags & LITHOS_KERNEL_CLAMPED ? LITHOS_TRACE_CLAMPED : 0);
}

static void kernel_ended(void *ctx, const struct lithos_kernel_event *k)
{
    struct lithosd_tenant *t = ctx;
    struct lithosd_observed *o = t->observed;
    const struct lithos_timeline_launch *l = k->launch;
    struct lithosd_reader *reader = t->daemon->processes[l->process].reader;
    const bool spoilt = lithosd_hold_spoils(t, k);
    if (l->flags & LITHOS_KERNEL_GRAPH_NODE && reader)
        lithosd_graph_ended(reader, k, spoilt);
    if (o->predictor[l->gpu] && !(k->flags & LITHOS_KERNEL_AFTER_GAP) && !spoilt)
        lithos_predictor_observe(o->predictor[l->gpu], &l->ticket, k->busy_ns, l->tpc_count);
    lithosd_lend_done(t, k);
    lithosd_rightsize_took(t, k);
    if (l->operator_key)
        lithosd_plans_observe(t, k);
    lithosd_rightsize_kernel(t, k);
    lithosd_power_kernel(t, k);
    if (!t->daemon->observe.recording_count || l->kernels > 1) /* under way already when it began to record */
        return;
    char unknown[32];
    const char *name = lithosd_names_text(&o->names, l->function);
    if (!name) {
        snprintf(unknown, sizeof unknown, "function_%016llx", (unsigned long long)l->function);
        name = unknown;
    }
    struct lithos_trace_event e = {
        .kind = LITHOS_TRACE_KERNEL,
        .time_ns = l->submit_ns,
        .kernel = {.tenant = t->id,
                   .stream = l->stream,
                   .pid = (uint32_t)t->daemon->processes[l->process].pid,
                   .gpu = t->daemon->gpus.gpu[t->gpu[l->gpu]].index,
                   .sequence = l->sequence,
                   .function = name,
                   .cluster_blocks = l->cluster_blocks,
                   .shared_bytes = l->shared_bytes,
                   .registers = l->registers,
                   .flags = trace_flags(k->flags),
                   .tpcs = l->tpcs,
                   .start_ns = k->start_ns,
                   .end_ns = k->end_ns,
                   .predicted_ns = l->predicted_ns},
    };
    memcpy(e.kernel.grid, l->grid, sizeof l->grid);
    memcpy(e.kernel.block, l->block, sizeof l->block);
    lithosd_recordings_event(t, &e);
}

static unsigned poll_stamps(struct lithosd_tenant *t)
{
    return lithos_timeline_poll(t->observed->timeline, lithos_now_ns(), read_stamp, kernel_ended, t);
}

/* ---- the timer ---- */

/* What a look came upon. */
struct sight {
    bool happened;    /* records were read, or are about to be, or kernels have ended */
    bool outstanding; /* kernels are on their way */
    bool more;        /* records are left */
    bool replays;     /* graphs are replayed */
    uint32_t fill;    /* of the fullest ring, in 1/1024 */
};

/* How full the rings of a process are. Its heads are its own: any value. */
static uint32_t fill_of(const struct lithosd_process *p)
{
    uint32_t fill = 0;
    for (unsigned i = 0; i < LITHOS_RECORD_RINGS; i++) {
        uint32_t slots = lithos_record_ring_slots(i);
        uint32_t unread = atomic_load_explicit(&p->arena->records.ring[i].head, memory_order_relaxed) -
                          atomic_load_explicit(&p->arena->record_tails[i], memory_order_relaxed);
        fill = LITHOS_MAX(fill, LITHOS_MIN(unread, slots) * 1024u / slots);
    }
    return fill;
}

static void drain_all(struct lithosd *d, struct sight *sight)
{
    for (unsigned i = 0; i < d->observe.process_high; i++)
        if (d->processes[i].used && d->processes[i].reader)
            sight->fill = LITHOS_MAX(sight->fill, fill_of(&d->processes[i]));
    sight->more = true;
    for (unsigned turn = 0; turn < TURNS && sight->more; turn++) {
        sight->more = false;
        for (unsigned i = 0; i < d->observe.process_high; i++) {
            unsigned n = 0;
            if (d->processes[i].used && d->processes[i].reader)
                n = drain(&d->processes[i], false, &sight->happened);
            sight->happened = sight->happened || n > 0;
            sight->more = sight->more || n == BATCH;
        }
    }
}

/* A pair of which both halves were read at the same time: not when something came between them. */
static void compare_clocks(struct lithos_ticks_map *m)
{
    for (int i = 0; i < CLOCK_TRIES; i++) {
        uint64_t before = lithos_ticks(), now_ns = lithos_now_ns(), after = lithos_ticks();
        if ((double)(after - before) * m->ns_a_tick > CLOCK_PAIR_NS)
            continue;
        lithos_ticks_map_update(m, before + (after - before) / 2, now_ns);
        return;
    }
}

static struct sight look(struct lithosd *d)
{
    struct sight sight = {0};
    if (d->observe.ticks_steady)
        compare_clocks(&d->observe.ticks);
    drain_all(d, &sight);
    sight.replays = d->observe.replays;
    d->observe.replays = false;
    for (unsigned i = 0; i < LITHOSD_TENANT_MAX; i++) {
        struct lithosd_tenant *t = &d->tenants[i];
        if (!t->used || !t->observed || !lithos_timeline_stats(t->observed->timeline)->outstanding)
            continue;
        sight.happened = poll_stamps(t) > 0 || sight.happened;
        sight.outstanding = sight.outstanding || lithos_timeline_stats(t->observed->timeline)->outstanding;
    }
    lithosd_lend_look(d);
    lithosd_rightsize_look(d);
    return sight;
}

/* When to look again. */
static uint64_t next_period_ns(const struct sight *sight, uint64_t period_ns)
{
    if (sight->more)
        return SOONEST_NS;
    if (!sight->happened)
        return LITHOS_MIN(period_ns * 2, sight->outstanding ? OUTSTANDING_NS : IDLE_NS);
    /* as long as it takes the fullest ring, at the pace of the last period, to fill to a part */
    uint64_t to_part_ns = period_ns * (1024u / FILL_PART) / LITHOS_MAX(sight->fill, 1u);
    return LITHOS_MAX(SOONEST_NS, LITHOS_MIN(sight->replays ? REPLAY_NS : BUSY_NS, to_part_ns));
}

static void ask_for_wake(struct lithosd *d, bool wake)
{
    for (unsigned i = 0; i < d->observe.process_high; i++)
        if (d->processes[i].used && d->processes[i].reader)
            lithos_record_ask(&d->processes[i].arena->records, wake);
    d->observe.asked = wake;
}

/* Look without a pause for a while, so that some ends are seen as they come: that is what ties the GPU's clock to the host's. Also
 * while nothing is outstanding: a program that waits for each kernel launches the next one any moment. */
static void spin(struct lithosd *d, struct sight *sight)
{
    struct lithosd_observe *o = &d->observe;
    uint64_t begin_ns = lithos_now_ns(), since_ns = begin_ns - o->spun_ns;
    bool happened = sight->happened;
    if (since_ns > SPIN_FORGOTTEN_NS)
        o->spins = 0;
    if (since_ns < (o->spins < SPIN_FIRST ? SPIN_FIRST_NS : SPIN_EVERY_NS))
        return;
    o->spins++;
    while (lithos_now_ns() - begin_ns < SPIN_NS) {
        *sight = look(d);
        happened = happened || sight->happened;
    }
    sight->happened = happened;
    o->spun_ns = begin_ns;
}

static void each_second(struct lithosd *d)
{
    struct lithosd_observe *o = &d->observe;
    uint64_t now_ns = lithos_now_ns();
    if (!o->recording_count || now_ns - o->second_ns < LITHOS_NSEC_PER_SEC)
        return;
    o->second_ns = now_ns;
    lithosd_recordings_second(d);
}

static void tick(void *ctx);

/* Somebody borrows: owners are to be seen as they come back. Sockets have their turn in between. No timer and no sleep: on some machines
 * (in a sandbox, say) waking up takes longer than an owner's request. */
static void watch(void *ctx)
{
    struct lithosd *d = ctx;
    uint64_t begin_ns = lithos_now_ns();
    while (lithos_now_ns() - begin_ns < WATCH_NS && lithosd_lend_period_ns(d) == 0)
        look(d);
    each_second(d);
    if (lithosd_lend_period_ns(d) == 0)
        return;
    lithosd_loop_poll(&d->loop, NULL, NULL);
    d->observe.period_ns = BUSY_NS;
    tick(d);
}

static void begin_to_watch(struct lithosd *d)
{
    if (d->observe.asked)
        ask_for_wake(d, false);
    lithosd_timer_cancel(&d->loop, &d->observe.tick);
    lithosd_loop_poll(&d->loop, watch, d);
}

static void tick(void *ctx)
{
    struct lithosd *d = ctx;
    struct lithosd_observe *o = &d->observe;
    struct sight sight = look(d);
    if (d->loop.poll)
        return;
    if (lithosd_lend_period_ns(d) == 0) {
        begin_to_watch(d);
        return;
    }
    /* A virtual GPU's clock follows from the host's. */
    if ((sight.outstanding || sight.happened) && !d->gpus.is_virtual)
        spin(d, &sight);
    o->period_ns = LITHOS_MIN(next_period_ns(&sight, o->period_ns), lithosd_lend_period_ns(d));
    if (o->period_ns > ASK_NS) {
        ask_for_wake(d, true);
        sight = look(d); /* what came before the tenants could see it */
        if (sight.happened)
            o->period_ns = BUSY_NS;
    }
    if (o->period_ns <= ASK_NS && o->asked)
        ask_for_wake(d, false);
    each_second(d);
    if (d->process_count)
        lithosd_timer_set(&d->loop, &o->tick, o->period_ns, tick, d);
}

void lithosd_observe_woken(struct lithosd_process *p)
{
    struct lithosd *d = p->daemon;
    if (!d->observe.asked) /* one before it was faster; or nobody asked */
        return;
    d->observe.period_ns = BUSY_NS;
    ask_for_wake(d, false);
    tick(d);
}

void lithosd_observe_now(struct lithosd *d)
{
    look(d);
}

/* ---- processes and tenants ---- */

void lithosd_observe_attach(struct lithosd_process *p)
{
    struct lithosd *d = p->daemon;
    struct lithosd_tenant *t = p->tenant;
    if (!d->options.observe)
        return;
    if (!t->observed)
        t->observed = new_observed(t);
    p->reader = t->observed ? calloc(1, sizeof *p->reader) : NULL;
    if (!p->reader) {
        lithos_warning("no memory to observe tenant %s: its kernels are not known", t->name);
        return;
    }
    atomic_store_explicit(&p->arena->observe, t->observed->flags, memory_order_release);
    lithosd_rightsize_attach(p);
    d->observe.process_high = LITHOS_MAX(d->observe.process_high, (unsigned)(p - d->processes) + 1);
    d->observe.period_ns = BUSY_NS;
    lithosd_timer_set(&d->loop, &d->observe.tick, BUSY_NS, tick, d);
}

void lithosd_observe_detach(struct lithosd_process *p)
{
    struct lithosd *d = p->daemon;
    if (!p->reader)
        return;
    /* All that its rings can hold, and no more: it may be alive and write on. */
    bool waits = false;
    for (unsigned n = 0;
         n <= (LITHOS_RECORD_SLOTS + LITHOS_RECORD_RINGS) / BATCH && drain(p, true, &waits) > 0; n++)
        ;
    poll_stamps(p->tenant);
    lithos_timeline_forget(p->tenant->observed->timeline, (uint32_t)(p - d->processes));
    lithosd_handles_finish(&p->reader->functions);
    lithosd_plans_forget(p);
    lithosd_rightsize_detach(p);
    lithosd_graphs_finish(p->reader);
    free(p->reader);
    p->reader = NULL;
    if (d->process_count <= 1)
        lithosd_timer_cancel(&d->loop, &d->observe.tick);
}

void lithosd_observe_ended(struct lithosd_tenant *t)
{
    struct lithosd_observed *o = t->observed;
    lithosd_power_forget(t);
    lithosd_recordings_ended(t);
    if (!o)
        return;
    keep_drift(t);
    for (unsigned g = 0; g < LITHOS_MAX_GPUS; g++)
        free(o->predictor[g]);
    free(o->timeline);
    lithosd_names_finish(&o->names);
    free(o);
    t->observed = NULL;
}

void lithosd_observe_drops(const struct lithosd_tenant *t, uint64_t ret_drops[LITHOSD_DROPS])
{
    static const uint32_t reasons[LITHOS_LOST_MAX] = {
        [LITHOS_LOST_NO_SLOT] = LITHOS_TRACE_DROP_STAMP_RING,
        [LITHOS_LOST_TAKEN] = LITHOS_TRACE_DROP_NO_SEMAPHORE,
        [LITHOS_LOST_OFF] = LITHOS_TRACE_DROP_STAMPS_OFF,
        [LITHOS_LOST_OVERWRITTEN] = LITHOS_TRACE_DROP_SLOT_REUSED,
        [LITHOS_LOST_MISSING] = LITHOS_TRACE_DROP_INVALID,
        [LITHOS_LOST_NO_ROOM] = LITHOS_TRACE_DROP_STAMP_RING,
        [LITHOS_LOST_DIED] = LITHOS_TRACE_DROP_TENANT_ENDED,
        [LITHOS_LOST_REPLAY] = LITHOS_TRACE_DROP_GRAPH_REPLAY,
    };
    memset(ret_drops, 0, LITHOSD_DROPS * sizeof *ret_drops);
    if (!t->observed)
        return;
    uint64_t counters[LITHOS_COUNTER_MAX];
    const struct lithos_timeline_stats *s = lithos_timeline_stats(t->observed->timeline);
    lithosd_tenant_counters(t, counters);
    for (int i = 0; i < LITHOS_LOST_MAX; i++)
        ret_drops[reasons[i]] += s->lost[i];
    ret_drops[LITHOS_TRACE_DROP_RECORD_RING] += counters[LITHOS_COUNTER_LAUNCHES_DROPPED];
    ret_drops[LITHOS_TRACE_DROP_INVALID] += t->observed->damaged + t->observed->overrun;
}
