/* How much of a best-effort tenant the card is given at a time (paper 5.3): what is in flight is followed by the stamps that the GPU writes into
 * the arena, and counted in predicted time. All of it is the issuer's. */
#include <string.h>

#include "base/log.h"
#include "driver/exports.h"
#include "tenant/attach.h"
#include "tenant/queue_internal.h"

/* Kernels that a stream has in flight whatever they take, where no rule says so: one runs while the next is on its way. */
#define FLOOR 2u
/* What is not known yet: a few of it fill a window. */
#define UNKNOWN_NS (30 * LITHOS_NSEC_PER_USEC)
/* Fewer TPCs than this part of the card say nothing of how long a kernel takes elsewhere. */
#define FEW_PART 8u
/* What is lent is many TPCs from this part on of what has been, or is about to be. */
#define MANY_PART 2u
#define WIDEST_NS LITHOS_NSEC_PER_SEC
/* So much of what a kernel is taken to take on lent TPCs is forgotten, each time that it is too long for them. */
#define FORGET_PART 32u
#define SHORTEST_NS LITHOS_NSEC_PER_USEC
#define LONGEST_NS (100 * LITHOS_NSEC_PER_SEC)
/* A kernel that finds its stream idle: from the call to its first block (docs/hardware.md, "Completion stamps"). */
#define LAUNCH_NS (8 * LITHOS_NSEC_PER_USEC)
/* Nothing has ended for so long, or for four times what it was predicted to take: the window is given up until something does. */
#define STALL_NS (100 * LITHOS_NSEC_PER_MSEC)
/* The dispatcher sleeps until shortly before there is room again in the window, and looks all the time for so long before and after. The
 * window fills the gap when it oversleeps. */
#define AWAKE_NS (30 * LITHOS_NSEC_PER_USEC)
#define AWAKE_MAX_NS (200 * LITHOS_NSEC_PER_USEC)
#define LATE_NS (200 * LITHOS_NSEC_PER_USEC)
#define NAP_MAX_NS (500 * LITHOS_NSEC_PER_USEC)
#define NAP_ON_HOLD_NS (50 * LITHOS_NSEC_PER_USEC)

typedef CUresult (*event_fn)(CUevent);

/* ---- the quota, for rules that lend beside it ---- */

static struct quota {
    _Atomic uint32_t seq;
    _Atomic uint8_t grant_index; /* 0xff: the grant does not name the device */
    struct lithos_topology topology;
    struct lithos_tpcset own;
} quotas[LITHOS_HOOK_MAX_DEVICES];
static pthread_mutex_t quotas_lock = PTHREAD_MUTEX_INITIALIZER;

void lithos_queue_set_quota(int device, uint8_t grant_index, const struct lithos_topology *topology,
                            struct lithos_tpcset own)
{
    static const struct lithos_topology none;
    struct quota *to = &quotas[device];
    pthread_mutex_lock(&quotas_lock);
    atomic_store_explicit(&to->grant_index, topology ? grant_index : 0xff, memory_order_relaxed);
    to->topology = topology ? *topology : none;
    to->own = own;
    atomic_fetch_add_explicit(&to->seq, 1, memory_order_release);
    pthread_mutex_unlock(&quotas_lock);
}

/* The child of a fork: the lock may have been held. */
void lithos_queue_window_forget(void)
{
    static const pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
    memcpy(&quotas_lock, &fresh, sizeof fresh);
}

/* ---- rules ---- */

/* Gates for the quota and what is lent beside it, or instead of it. Nothing is lent that is no TPC of the card. */
static void build_gates(struct queue_device *d, const struct quota *quota)
{
    const struct lithos_rule *r = &d->rule;
    static const struct lithos_tpcset none;
    struct lithos_tpcset base =
        lithos_tpcset_or(r->flags & LITHOS_RULE_INSTEAD ? none : quota->own, r->spare);
    d->spare = r->flags && !lithos_tpcset_empty(&r->spare) &&
               lithos_gate_build(&quota->topology, base, &d->spare_gate) == 0;
    const struct lithos_tpcset all = lithos_tpcset_or(base, r->lent);
    d->lent =
        r->flags && !lithos_tpcset_empty(&r->lent) && lithos_gate_build(&quota->topology, all, &d->gate) == 0;
    d->own_tpcs = lithos_tpcset_count(&base);
    d->lent_tpcs = lithos_tpcset_count(&all);
    const uint64_t now_ns = lithos_now_ns();
    if (d->lent && (d->lent_tpcs >= d->widest_tpcs || now_ns >= d->widest_until_ns)) {
        d->widest_tpcs = d->lent_tpcs;
        d->widest_until_ns = now_ns + WIDEST_NS;
    }
}

/* With the quotas' lock. */
static void read_rule(struct queue_device *d, const struct quota *quota, uint32_t gpu)
{
    struct lithos_rule rule;
    uint32_t seq = 0;
    int r = lithos_arena_read_rule(&lithos_tenant_home, gpu, &rule, &seq);
    if (r == -EAGAIN)
        return; /* being written: the one before holds for this kernel */
    if (r == -EINVAL) {
        lithos_log_once(LITHOS_LOG_WARNING,
                        "the daemon published a rule that is not sane: launches go on without");
        rule = (struct lithos_rule){0};
        seq = lithos_arena_rule_seq(&lithos_tenant_home, gpu);
    }
    d->rule = rule;
    d->rule_seq = seq;
    d->quota_seq = atomic_load_explicit(&quota->seq, memory_order_relaxed);
    build_gates(d, quota);
}

/* The rule for a device, as it is now. */
static struct queue_device *look(struct queue *q, uint32_t device)
{
    struct queue_device *d = &q->devices[device];
    uint32_t generation = atomic_load_explicit(&q->generation, memory_order_relaxed);
    if (device >= LITHOS_HOOK_MAX_DEVICES)
        return d;
    struct quota *quota = &quotas[device];
    uint8_t gpu = atomic_load_explicit(&quota->grant_index, memory_order_relaxed);
    if (d->quota_seq == atomic_load_explicit(&quota->seq, memory_order_acquire) &&
        d->generation == generation &&
        (gpu >= LITHOS_MAX_GPUS || d->rule_seq == lithos_arena_rule_seq(&lithos_tenant_home, gpu)))
        return d;
    if (pthread_mutex_trylock(&quotas_lock) != 0)
        return d; /* the quota changes just now */
    gpu = atomic_load_explicit(&quota->grant_index, memory_order_relaxed);
    d->generation = generation;
    d->gpu = gpu;
    if (gpu < LITHOS_MAX_GPUS) {
        read_rule(d, quota, gpu);
    } else {
        d->rule = (struct lithos_rule){0};
        d->lent = d->spare = false;
        d->quota_seq = atomic_load_explicit(&quota->seq, memory_order_relaxed);
    }
    pthread_mutex_unlock(&quotas_lock);
    return d;
}

/* Is there anybody who would take it back? */
static bool lease_runs(void)
{
    uint64_t lease_ns = atomic_load_explicit(&lithos_tenant_home.lease_ns, memory_order_relaxed);
    uint64_t now_ns = lithos_now_ns();
    return lease_ns + LITHOS_LEASE_NS > now_ns;
}

static const struct lithos_rule *rule_of(struct queue_device *d)
{
    static const struct lithos_rule none;
    return d->rule.flags && lease_runs() ? &d->rule : &none;
}

/* For any thread: does the rule in force have this flag? */
static bool rule_has(uint32_t device, uint32_t flag)
{
    if (device >= LITHOS_HOOK_MAX_DEVICES)
        return false;
    uint8_t gpu = atomic_load_explicit(&quotas[device].grant_index, memory_order_relaxed);
    struct lithos_rule rule;
    uint32_t seq;
    if (gpu >= LITHOS_MAX_GPUS ||
        !(__atomic_load_n(&lithos_tenant_home.rules[gpu].rule.flags, __ATOMIC_RELAXED) & flag))
        return false;
    return lithos_arena_read_rule(&lithos_tenant_home, gpu, &rule, &seq) == 0 && rule.flags & flag &&
           lease_runs();
}

bool lithos_queue_holds(uint32_t device)
{
    return rule_has(device, LITHOS_RULE_HOLD);
}

bool lithos_queue_is_ruled(uint32_t device)
{
    return rule_has(device, LITHOS_RULE_ON);
}

bool lithos_queue_owns_nothing(uint32_t device)
{
    return rule_has(device, LITHOS_RULE_INSTEAD);
}

static struct queue_device *device_of(struct queue *q, const struct queue_stream *s)
{
    return look(q, s->context ? s->context->device : QUEUE_DEVICES - 1);
}

bool lithos_queue_held(struct queue *q, struct queue_stream *s)
{
    if (atomic_load_explicit(&q->open, memory_order_relaxed))
        return false;
    return rule_of(device_of(q, s))->flags & LITHOS_RULE_HOLD;
}

/* How long the first of a stream's flights has run, as far as it was foretold. */
static uint64_t ran_ns(const struct queue_stream *s)
{
    if (!s->in_flight)
        return 0;
    const struct queue_flight *f = &s->flights[s->first];
    uint64_t begin_ns = LITHOS_MAX(f->issued_ns + LAUNCH_NS, s->end_host_ns), now_ns = lithos_now_ns();
    return LITHOS_MIN(now_ns > begin_ns ? now_ns - begin_ns : 0, f->predicted_ns);
}

/* When what is issued now begins: behind what is outstanding. */
static uint64_t begin_ns(const struct queue_device *d, const struct queue_stream *s)
{
    return lithos_now_ns() + d->outstanding_ns - LITHOS_MIN(ran_ns(s), d->outstanding_ns);
}

/* Do the owners of what is lent bear it? It comes behind what is outstanding. */
static bool borne(const struct queue_device *d, const struct queue_stream *s, const struct lithos_rule *rule,
                  uint64_t lent_ns)
{
    if (!rule->longest_ns || lent_ns <= rule->longest_ns)
        return true;
    if (!rule->until_ns)
        return false;
    return begin_ns(d, s) + lent_ns + (d->in_flight ? 0 : LAUNCH_NS) <= rule->until_ns;
}

bool lithos_queue_room(struct queue *q, struct queue_stream *s, const struct queue_length *length)
{
    if (q->fallen_open || atomic_load_explicit(&q->open, memory_order_relaxed) ||
        (s->context && atomic_load_explicit(&s->context->lost, memory_order_relaxed)))
        return true;
    struct queue_device *d = device_of(q, s);
    const struct lithos_rule *rule = rule_of(d);
    uint32_t floor = rule->flags ? rule->floor : FLOOR;
    uint64_t window_ns = !rule->flags                                           ? lithos_queue_window_ns
                         : d->lent && borne(d, s, rule, length->ns[QUEUE_LENT]) ? rule->window_ns
                                                                                : rule->own_window_ns;
    uint32_t in_flight = rule->flags & LITHOS_RULE_STRICT ? d->in_flight : s->in_flight;
    if (in_flight < floor || d->outstanding_ns < window_ns)
        return true;
    return rule->flags && d->outstanding_ns < window_ns + ran_ns(s);
}

const struct lithos_gate *lithos_queue_gate(struct queue *q, struct queue_stream *s,
                                            const struct queue_length *length, enum queue_width *ret_width)
{
    struct queue_device *d = device_of(q, s);
    const struct lithos_rule *rule = rule_of(d);
    *ret_width = QUEUE_OWN;
    if (!rule->flags)
        return NULL;
    if (d->lent && borne(d, s, rule, length->ns[QUEUE_LENT])) {
        *ret_width = QUEUE_LENT;
        return &d->gate;
    }
    return d->spare ? &d->spare_gate : NULL;
}

bool lithos_queue_whole_goes_there(struct queue *q, struct queue_stream *s, uint64_t key,
                                   const struct lithos_gate *gate)
{
    const struct queue_length whole = lithos_queue_length(q, s, key, 0);
    enum queue_width width;
    return lithos_queue_gate(q, s, &whole, &width) == gate;
}

uint32_t lithos_queue_longer(struct queue *q, struct queue_stream *s, const struct lithos_gate *gate)
{
    if (!gate || !(rule_of(device_of(q, s))->flags & LITHOS_RULE_INSTEAD))
        return 1;
    uint32_t all = lithos_tpcset_count(&gate->topology.valid), here = lithos_tpcset_count(&gate->rows[0].set);
    return here && here * FEW_PART < all ? all / here : 1;
}

bool lithos_queue_waits_for_wider(struct queue *q, struct queue_stream *s, const struct queue_length *length)
{
    if (atomic_load_explicit(&q->open, memory_order_relaxed))
        return false;
    struct queue_device *d = device_of(q, s);
    const struct lithos_rule *rule = rule_of(d);
    const bool on_lent = d->lent && borne(d, s, rule, length->ns[QUEUE_LENT]);
    if (!rule->wider_tpcs || (on_lent ? !length->few : !d->own_tpcs))
        return false;
    uint64_t run_ns = length->ns[on_lent ? QUEUE_LENT : QUEUE_OWN], wide_ns = length->wide_ns;
    if (!on_lent && !length->learnt[QUEUE_OWN] && length->learnt[QUEUE_LENT])
        run_ns = wide_ns * (d->own_tpcs + rule->wider_tpcs) / d->own_tpcs;
    if (wide_ns > rule->wider_longest_ns)
        return false;
    if (!on_lent)
        run_ns *= lithos_queue_longer(q, s, d->spare ? &d->spare_gate : NULL);
    const uint64_t now_ns = lithos_now_ns();
    if (!s->waits_since_ns)
        s->waits_since_ns = now_ns;
    if (now_ns - s->waits_since_ns >= 2 * run_ns)
        return false;
    const uint64_t here_ns = begin_ns(d, s);
    return LITHOS_MAX(rule->wider_ns, here_ns) + wide_ns < here_ns + run_ns;
}

bool lithos_queue_outlives(struct queue *q, struct queue_stream *s, const struct queue_length *length)
{
    if (atomic_load_explicit(&q->open, memory_order_relaxed))
        return false;
    struct queue_device *d = device_of(q, s);
    const struct lithos_rule *rule = rule_of(d);
    return rule->flags & LITHOS_RULE_INSTEAD && !d->spare &&
           !(d->lent && borne(d, s, rule, length->ns[QUEUE_LENT]));
}

/* ---- durations ---- */

uint64_t lithos_queue_estimate_key(const struct lithos_launch *l)
{
    uint64_t h = lithos_queue_mix(0x33, (uintptr_t)l->function);
    h = lithos_queue_mix(h, (uint64_t)l->grid[0] << 32 | l->grid[1]);
    h = lithos_queue_mix(h, (uint64_t)l->grid[2] << 32 | l->block[0]);
    h = lithos_queue_mix(h, (uint64_t)l->block[1] << 32 | l->block[2]);
    return lithos_queue_mix(h, l->shared_bytes) | 1;
}

static struct queue_estimate *estimate_of(struct queue *q, uint64_t key, uint32_t *ret_place)
{
    *ret_place = (uint32_t)key & (QUEUE_ESTIMATES - 1);
    struct queue_estimate *e = &q->estimates[*ret_place];
    if (e->key != key)
        *e = (struct queue_estimate){.key = key, .ns = {UNKNOWN_NS, UNKNOWN_NS}};
    return e;
}

uint64_t lithos_queue_predict_ns(struct queue *q, uint64_t key, enum queue_width width,
                                 uint32_t *ret_estimate)
{
    const struct queue_estimate *e = estimate_of(q, key, ret_estimate);
    enum queue_width other = width == QUEUE_OWN ? QUEUE_LENT : QUEUE_OWN;
    return e->ns[!e->learnt[width] && e->learnt[other] ? other : width];
}

struct queue_length lithos_queue_length(struct queue *q, struct queue_stream *s, uint64_t key, uint32_t parts)
{
    struct queue_length l = {0};
    uint32_t place;
    if (!key)
        return l;
    const struct queue_estimate *e = estimate_of(q, key, &place);
    const struct queue_device *d = device_of(q, s);
    if (parts == QUEUE_AS_EVER)
        parts = e->parts;
    l.parts = parts;
    for (int w = 0; w < QUEUE_WIDTHS; w++)
        l.ns[w] = lithos_queue_predict_ns(q, key, (enum queue_width)w, &place) / LITHOS_MAX(parts, 1u);
    /* It is taken to be the faster the more TPCs it has, until it is seen how much (paper 5.7). What was first seen on a small quota would never
     * be borne on what is lent otherwise. */
    memcpy(l.learnt, e->learnt, sizeof l.learnt);
    const uint32_t wide_tpcs = LITHOS_MAX(d->own_tpcs + d->rule.wider_tpcs, d->lent ? d->widest_tpcs : 0);
    const bool from_own = !e->learnt[QUEUE_LENT] && d->own_tpcs;
    if (e->learnt[QUEUE_OWN] && e->learnt[QUEUE_LENT])
        l.ns[QUEUE_LENT] = LITHOS_MIN(l.ns[QUEUE_LENT], l.ns[QUEUE_OWN]);
    l.wide_ns = from_own && wide_tpcs ? l.ns[QUEUE_OWN] * d->own_tpcs / wide_tpcs : l.ns[QUEUE_LENT];
    l.few = d->lent && d->lent_tpcs * MANY_PART < wide_tpcs;
    if (from_own && d->lent_tpcs)
        l.ns[QUEUE_LENT] = l.ns[QUEUE_OWN] * d->own_tpcs / d->lent_tpcs;
    else if (l.few && e->learnt[QUEUE_LENT])
        l.ns[QUEUE_LENT] = l.wide_ns * wide_tpcs / d->lent_tpcs;
    return l;
}

/* A quarter of the way at a time: the middle of what it takes, with no past to keep. */
static void learn(struct queue *q, const struct queue_flight *f, uint64_t took_ns)
{
    struct queue_estimate *e = &q->estimates[f->estimate];
    took_ns = LITHOS_MIN(LITHOS_MAX(took_ns, SHORTEST_NS), LONGEST_NS) * LITHOS_MAX(f->parts, 1u);
    uint64_t *ns = &e->ns[f->width];
    *ns = e->learnt[f->width] ? (uint64_t)((int64_t)*ns + ((int64_t)took_ns - (int64_t)*ns) / 4) : took_ns;
    e->learnt[f->width] = true;
}

/* Who returns to TPCs that were lent makes what is there last longer. What is thereby taken for longer than owners bear runs elsewhere from then
 * on, and nothing would be learnt of it there any more. */
void lithos_queue_forget_a_little(struct queue *q, struct queue_stream *s, uint64_t key,
                                  const struct queue_length *length)
{
    uint32_t place;
    struct queue_device *d = device_of(q, s);
    const uint64_t longest_ns = rule_of(d)->longest_ns;
    struct queue_estimate *e = estimate_of(q, key, &place);
    if (d->lent && !length->few && e->learnt[QUEUE_LENT] && longest_ns > 1 &&
        length->ns[QUEUE_LENT] > longest_ns)
        e->ns[QUEUE_LENT] -= e->ns[QUEUE_LENT] / FORGET_PART;
}

/* ---- in flight ---- */

static void give_event_back(struct queue *q, struct queue_stream *s, CUevent event)
{
    if (!event)
        return;
    if (q->pooled < QUEUE_EVENT_POOL) {
        q->pool_of[q->pooled] = s->context;
        q->pool[q->pooled++] = event;
    } else {
        LITHOS_REAL(event_fn, cuEventDestroy_v2)(event);
    }
}

/* The oldest has ended, at end_ns by the card's clock (0: not known). */
static void land(struct queue *q, struct queue_stream *s, uint64_t end_ns)
{
    struct queue_flight *f = &s->flights[s->first];
    struct queue_device *d = &q->devices[f->device]; /* the stream may be another's by now */
    uint64_t now_ns = lithos_now_ns();
    if (d->gpu < LITHOS_MAX_GPUS)
        lithos_queue_clock_drift(&d->clock, atomic_load_explicit(&lithos_tenant_home.clock_drift_ppb[d->gpu],
                                                                 memory_order_relaxed));
    uint64_t end_host_ns = f->event ? now_ns
                           : end_ns ? lithos_queue_clock_at_ns(&d->clock, end_ns, now_ns, f->issued_ns)
                                    : 0;
    bool behind_another = f->issued_ns < s->end_host_ns;
    if (f->behind_more)
        ; /* from whose end it ran is not known */
    else if (end_ns && s->end_ns && behind_another && end_ns > s->end_ns)
        learn(q, f, (uint64_t)lithos_queue_clock_span_ns(&d->clock, (int64_t)(end_ns - s->end_ns)));
    else if (behind_another && end_host_ns > s->end_host_ns)
        learn(q, f, end_host_ns - s->end_host_ns);
    else if (!behind_another && end_host_ns > f->issued_ns)
        learn(q, f, end_host_ns - f->issued_ns - LITHOS_MIN(end_host_ns - f->issued_ns, LAUNCH_NS));
    s->end_ns = end_ns;
    s->end_host_ns = end_host_ns;
    q->landed_ns = LITHOS_MAX(q->landed_ns, end_host_ns ? end_host_ns : now_ns);
    s->first = (s->first + 1) % QUEUE_FLIGHTS;
    s->in_flight--;
    s->outstanding_ns -= LITHOS_MIN(s->outstanding_ns, f->predicted_ns);
    d->outstanding_ns -= LITHOS_MIN(d->outstanding_ns, f->predicted_ns);
    d->in_flight -= d->in_flight > 0;
    give_event_back(q, s, f->event);
}

/* Of a stream that is gone, and its context perhaps with it: its events are not touched any more. */
static void drop_flights(struct queue *q, struct queue_stream *s)
{
    while (s->in_flight) {
        s->flights[s->first].event = NULL;
        land(q, s, 0);
    }
    s->end_ns = s->end_host_ns = 0;
}

/* Is it another stream than it was? True: what the one before had in flight has been dropped. */
static bool meet(struct queue *q, struct queue_stream *s)
{
    if (!atomic_load_explicit(&s->renewed, memory_order_relaxed) ||
        !atomic_exchange_explicit(&s->renewed, false, memory_order_acquire))
        return false;
    bool any = s->in_flight != 0;
    drop_flights(q, s);
    return any;
}

void lithos_queue_fly(struct queue *q, struct queue_stream *s, const struct queue_takeoff *t)
{
    if (!t->stamp && !t->event)
        return; /* nothing would tell of its end: it is not followed */
    struct queue_device *d = device_of(q, s);
    meet(q, s);
    if (s->in_flight == QUEUE_FLIGHTS) { /* the window was open: there are enough to go by */
        s->has_more = true;
        give_event_back(q, s, t->event);
        return;
    }
    if (!s->in_flight)
        q->progress_ns = lithos_now_ns();
    s->flights[(s->first + s->in_flight++) % QUEUE_FLIGHTS] = (struct queue_flight){
        .stamp = t->stamp,
        .event = t->event,
        .generation = atomic_load_explicit(&q->generation, memory_order_relaxed),
        .estimate = t->estimate,
        .parts = t->parts,
        .width = t->width,
        .behind_more = s->has_more,
        .device = (uint32_t)(d - q->devices),
        .predicted_ns = t->predicted_ns,
        .issued_ns = lithos_now_ns(),
    };
    s->has_more = false;
    s->outstanding_ns += t->predicted_ns;
    d->outstanding_ns += t->predicted_ns;
    d->in_flight++;
    if (!s->is_flying) {
        s->is_flying = true;
        TAILQ_INSERT_TAIL(&q->flying, s, flying);
    }
}

/* Has it ended? */
static bool ended(const struct queue *q, const struct queue_flight *f, uint64_t *ret_end_ns)
{
    *ret_end_ns = 0;
    if (f->event)
        return LITHOS_REAL(event_fn, cuEventQuery)(f->event) != CUDA_ERROR_NOT_READY;
    if (f->generation != atomic_load_explicit(&q->generation, memory_order_relaxed))
        return true; /* its stamp went to pages that are not looked at any more */
    return lithos_stamp_read(lithos_tenant_home.stamps, f->stamp, ret_end_ns) != 0;
}

bool lithos_queue_reap_stream(struct queue *q, struct queue_stream *s)
{
    bool any = meet(q, s);
    uint64_t end_ns;
    while (s->in_flight && ended(q, &s->flights[s->first], &end_ns)) {
        land(q, s, end_ns);
        any = true;
    }
    if (!s->in_flight && s->is_flying) {
        s->is_flying = false;
        TAILQ_REMOVE(&q->flying, s, flying);
    }
    if (any) {
        q->progress_ns = lithos_now_ns();
        q->fallen_open = false;
    }
    return any;
}

bool lithos_queue_reap(struct queue *q)
{
    struct queue_stream *s, *next;
    bool any = false;
    for (s = TAILQ_FIRST(&q->flying); s; s = next) {
        next = TAILQ_NEXT(s, flying);
        any |= lithos_queue_reap_stream(q, s);
    }
    return any;
}

/* With what they follow, if it follows any. */
static void drop_events_of(struct queue *q, struct queue_stream *s)
{
    bool any = false;
    for (uint32_t i = 0; i < s->in_flight; i++) {
        CUevent event = s->flights[(s->first + i) % QUEUE_FLIGHTS].event;
        if (event)
            LITHOS_REAL(event_fn, cuEventDestroy_v2)(event);
        any |= event != NULL;
    }
    if (any)
        drop_flights(q, s);
}

void lithos_queue_drop_events(struct queue *q)
{
    lithos_queue_take_turn(q);
    for (struct queue_stream *s = TAILQ_FIRST(&q->flying); s; s = TAILQ_NEXT(s, flying))
        drop_events_of(q, s);
    while (q->pooled)
        LITHOS_REAL(event_fn, cuEventDestroy_v2)(q->pool[--q->pooled]);
    lithos_queue_give_turn(q);
}

bool lithos_queue_stalled(const struct queue *q, uint64_t now_ns)
{
    const struct queue_stream *s;
    uint64_t limit_ns = STALL_NS;
    TAILQ_FOREACH(s, &q->flying, flying)
    if (s->in_flight)
        limit_ns = LITHOS_MAX(limit_ns, 4 * s->flights[s->first].predicted_ns);
    return now_ns > q->progress_ns + limit_ns;
}

/* When the oldest of a stream should have ended, by our clock. */
static uint64_t due_ns(const struct queue_stream *s)
{
    const struct queue_flight *f = &s->flights[s->first];
    bool behind_another = f->issued_ns < s->end_host_ns;
    return (behind_another ? s->end_host_ns : f->issued_ns + LAUNCH_NS) + f->predicted_ns;
}

/* So long before that it may be time to give the card more. */
static uint64_t awake_ns(const struct queue *q, const struct queue_stream *s)
{
    const struct lithos_rule *rule = &q->devices[s->flights[s->first].device].rule;
    uint64_t window_ns = rule->flags ? rule->own_window_ns : lithos_queue_window_ns;
    return LITHOS_MIN(window_ns + AWAKE_NS, AWAKE_MAX_NS);
}

uint64_t lithos_queue_nap_ns(const struct queue *q, uint64_t now_ns)
{
    const struct queue_stream *s;
    uint64_t next_ns = UINT64_MAX, before_ns = AWAKE_NS;
    TAILQ_FOREACH(s, &q->flying, flying)
    if (s->in_flight && due_ns(s) < next_ns) {
        next_ns = due_ns(s);
        before_ns = awake_ns(q, s);
    }
    if (next_ns == UINT64_MAX) /* held, with nothing in flight */
        return NAP_ON_HOLD_NS;
    if (next_ns > now_ns)
        return next_ns - now_ns < before_ns + AWAKE_NS ? 0
                                                       : LITHOS_MIN(next_ns - now_ns - before_ns, NAP_MAX_NS);
    uint64_t late_ns = now_ns - next_ns; /* others run as well, or it takes longer this time */
    return late_ns < LATE_NS ? 0 : LITHOS_MIN(late_ns / 4, NAP_MAX_NS);
}
