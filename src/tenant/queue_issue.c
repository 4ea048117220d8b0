/* The issuer: sorts what was queued into its streams, and gives it to the driver in an order that the app cannot tell from its own.
 *
 * Within a stream calls keep their order. Across streams only what the driver's rules make them wait for matters: a context's default
 * stream and its blocking streams wait for what was called on the other before; a wait for an event is given to the driver after the
 * record that it is for and before the next one; a wait for a value in memory, after everything. All of these point from a later call to an earlier one, so the oldest call may
 * always go, as far as order is concerned. */
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "base/log.h"
#include "driver/exports.h"
#include "tenant/attach.h"
#include "tenant/queue_internal.h"

/* Calls of one stream before others get a turn. */
#define AT_A_TIME 8
/* The dispatcher looks on for so long after the last call: waking it up costs the app more than a launch. */
#define GRACE_NS (50 * LITHOS_NSEC_PER_USEC)
/* Where there is a CPU for it: longer than from one of an eager program's to the next on a slow host. */
#define SPARE_GRACE_NS (1 * LITHOS_NSEC_PER_MSEC)
/* Looks at the card before the processor is given to others, where there is none to spare. */
#define SPINS 64u
#define TIMER_SLACK_NS 1000ul

typedef CUresult (*ctx_set_fn)(CUcontext);
typedef CUresult (*event_fn)(CUevent);
typedef CUresult (*event_create_fn)(CUevent *, unsigned);
typedef CUresult (*event_record_fn)(CUevent, CUstream);

/* ---- taking in ---- */

static void number(struct queue *q, struct queue_entry *e)
{
    struct queue_event *v = e->event;
    e->number = ++q->number;
    if (!v)
        return;
    if (e->form == LITHOS_ORDER_FORM_WAIT && e->kind == QUEUE_CALL) {
        e->version = v->version;
        v->waits++;
        return;
    }
    e->version = e->kind == QUEUE_DESTROY ? v->version : ++v->version;
    e->waits = v->waits;
}

/* Entries that have to wait while others come and go do so elsewhere, so that no stream can fill the ring with what it may not issue. */
static void spill(struct queue *q)
{
    struct queue_entry *oldest;
    while (lithos_queue_ring_used(&q->ring) > QUEUE_RING_GRANULES / 2 &&
           (oldest = (struct queue_entry *)(void *)lithos_queue_ring_oldest(&q->ring))) {
        size_t bytes = (size_t)oldest->ring.granules * LITHOS_QUEUE_GRANULE;
        struct queue_entry *copy = aligned_alloc(LITHOS_QUEUE_GRANULE, bytes);
        if (!copy)
            return; /* the ring fills up, and the app waits */
        memcpy(copy, oldest, bytes);
        copy->spilled = true;
        TAILQ_INSERT_BEFORE(oldest, copy, link);
        TAILQ_REMOVE(&oldest->stream->entries, oldest, link);
        lithos_queue_ring_give_back(&q->ring, &oldest->ring);
    }
}

static void take_in(struct queue *q)
{
    struct queue_entry *e;
    while ((e = (struct queue_entry *)(void *)lithos_queue_ring_next(&q->ring))) {
        struct queue_stream *s = e->stream;
        number(q, e);
        lithos_queue_gather_takes(q, e);
        e->spilled = false;
        TAILQ_INSERT_TAIL(&s->entries, e, link);
        q->held++;
        if (!s->is_active) {
            s->is_active = true;
            TAILQ_INSERT_TAIL(&q->active, s, active);
        }
    }
    spill(q);
}

/* ---- may it go? ---- */

static bool before(const struct queue_stream *s, uint64_t number)
{
    const struct queue_entry *first = TAILQ_FIRST(&s->entries);
    return first && first->number < number;
}

static bool streams_allow(const struct queue *q, const struct queue_entry *e)
{
    const struct queue_stream *s = e->stream, *other;
    if (!s->context || !s->blocking)
        return true;
    if (!s->legacy)
        return !before(s->context->legacy, e->number);
    TAILQ_FOREACH(other, &q->active, active)
    if (other != s && other->context == s->context && other->blocking && before(other, e->number))
        return false;
    return true;
}

/* A wait for a value comes behind everything: were what writes it still queued, a call of the app's own thread could come between the two, and
 * have the one wait for the other. */
static bool others_allow(const struct queue *q, const struct queue_entry *e)
{
    const struct queue_stream *other;
    if (e->kind != QUEUE_CALL || e->form != LITHOS_ORDER_FORM_WAIT_VALUE)
        return true;
    TAILQ_FOREACH(other, &q->active, active)
    if (other != e->stream && before(other, e->number))
        return false;
    return true;
}

static bool event_allows(const struct queue_entry *e)
{
    const struct queue_event *v = e->event;
    if (!v)
        return true;
    if (e->kind == QUEUE_CALL && e->form == LITHOS_ORDER_FORM_WAIT)
        return v->version_issued == e->version;
    return v->version_issued + (e->kind != QUEUE_DESTROY) == e->version && v->waits_issued == e->waits;
}

/* ---- issuing ---- */

/* After these every call of the context fails, and tells so itself. */
static bool is_final(CUresult result)
{
    switch (result) {
    case CUDA_ERROR_ILLEGAL_ADDRESS:
    case CUDA_ERROR_LAUNCH_TIMEOUT:
    case CUDA_ERROR_CONTEXT_IS_DESTROYED:
    case CUDA_ERROR_DEINITIALIZED:
    case CUDA_ERROR_UNKNOWN:
        return true;
    default:
        return (result >= CUDA_ERROR_HARDWARE_STACK_ERROR && result <= CUDA_ERROR_LAUNCH_FAILED) ||
               result == CUDA_ERROR_ASSERT ||
               (result >= CUDA_ERROR_MPS_CONNECTION_FAILED && result <= CUDA_ERROR_MPS_CLIENT_TERMINATED);
    }
}

void lithos_queue_note(struct queue_context *c, CUresult result)
{
    int none = 0;
    if (result == CUDA_SUCCESS)
        return;
    lithos_queue_count(LITHOS_COUNTER_QUEUE_FAILED);
    if (!c)
        return;
    atomic_compare_exchange_strong(&c->error, &none, result);
    if (is_final(result))
        atomic_store(&c->lost, true);
}

static void enter(struct queue *q, struct queue_context *c)
{
    uint32_t epoch = atomic_load_explicit(&q->context_epoch, memory_order_acquire);
    CUcontext ctx = atomic_load_explicit(&c->ctx, memory_order_acquire);
    if (ctx == q->current && epoch == q->current_epoch)
        return;
    LITHOS_REAL(ctx_set_fn, cuCtxSetCurrent)(ctx);
    q->current = ctx;
    q->current_epoch = epoch;
}

/* An event of our own behind a graph, whose kernels have no stamp that tells one launch of it from the next. NULL: there is none. */
static CUevent mark_end(struct queue *q, const struct queue_context *c, CUstream stream)
{
    CUevent event = NULL;
    for (uint32_t i = 0; i < q->pooled && !event; i++)
        if (q->pool_of[i] == c) {
            event = q->pool[i];
            q->pool[i] = q->pool[--q->pooled];
            q->pool_of[i] = q->pool_of[q->pooled];
        }
    if (!event &&
        LITHOS_REAL(event_create_fn, cuEventCreate)(&event, CU_EVENT_DISABLE_TIMING) != CUDA_SUCCESS)
        return NULL;
    if (LITHOS_REAL(event_record_fn, cuEventRecord)(event, stream) == CUDA_SUCCESS)
        return event;
    LITHOS_REAL(event_fn, cuEventDestroy_v2)(event);
    return NULL;
}

/* ---- waiting for the card ---- */

static void fall_open(struct queue *q)
{
    q->fallen_open = true;
    lithos_queue_count(LITHOS_COUNTER_QUEUE_OPENED);
    lithos_log_once(
        LITHOS_LOG_INFO,
        "nothing comes back from the card: what is queued is issued without a window until something does");
}

/* What lithosd is to know of what waits here. */
static void tell(struct queue *q, uint32_t depth)
{
    struct lithos_arena *a = &lithos_tenant_home;
    if (depth) {
        atomic_store_explicit(&a->queue_why, q->blocked, memory_order_relaxed);
        atomic_store_explicit(&a->queue_head_ns, q->blocked_ns, memory_order_relaxed);
    }
    atomic_store_explicit(&a->queue_depth, depth, memory_order_release);
}

/* Entries are there, and none may go: the card has enough to do, or lithosd has to say where. Should that sleep, nothing but this would
 * wake it: what is not launched leaves no record. */
static void wait_for_card(struct queue *q, uint32_t *spins)
{
    if (lithos_record_wake(&lithos_tenant_home.records.ring[0]))
        lithos_tenant_wake_daemon();
    if (++*spins < SPINS) {
        for (int i = 0; i < 16; i++)
            __builtin_ia32_pause();
        return;
    }
    *spins = 0;
    uint64_t now_ns = lithos_now_ns();
    if (lithos_queue_stalled(q, now_ns))
        fall_open(q);
    uint64_t nap_ns = lithos_queue_nap_ns(q, now_ns);
    if (nap_ns)
        lithos_queue_rest(q, nap_ns);
    else if (!atomic_load_explicit(&q->spare, memory_order_relaxed))
        sched_yield(); /* it may be a tick until it is ours again, whatever the others are */
}

static bool is_graph(const struct queue_entry *e)
{
    return e->kind == QUEUE_CALL && e->form == LITHOS_ORDER_FORM_GRAPH;
}

/* Graphs with stops in them wait there, on the card. */
static bool waits_at_stops(bool graph)
{
    return graph && atomic_load_explicit(&lithos_tenant_home.stops, memory_order_relaxed) != 0;
}

/* Must what takes so long wait for the rule, or for what is in flight? lithosd is told why, and how long it is. Calls that are no kernels
 * wait for the rule alone, and graphs, whose kernels keep to the quota, not for wider TPCs. */
static bool blocked(struct queue *q, struct queue_stream *s, uint64_t key, uint32_t parts, bool graph)
{
    const struct queue_length length = lithos_queue_length(q, s, key, parts);
    enum lithos_tpcpick why = waits_at_stops(graph)                                   ? LITHOS_PICK_RUN
                              : lithos_queue_held(q, s)                               ? LITHOS_PICK_HELD
                              : key && lithos_queue_outlives(q, s, &length)           ? LITHOS_PICK_OUTLIVES
                              : key && !lithos_queue_room(q, s, &length)              ? LITHOS_PICK_WINDOW
                              : !graph && lithos_queue_waits_for_wider(q, s, &length) ? LITHOS_PICK_WIDER
                                                                                      : LITHOS_PICK_RUN;
    if (why == LITHOS_PICK_RUN) {
        s->waits_since_ns = 0;
        return false;
    }
    q->blocked = why;
    q->blocked_ns = length.ns[QUEUE_LENT];
    return true;
}

/* ---- giving ---- */

/* What is being given to the card, kernels in atoms one by one. */
struct giving {
    struct lithos_issue issue; /* first */
    struct queue *q;
    struct queue_stream *s;
    uint64_t key;
    bool paced;     /* its atoms go one by one, else all at once */
    uint32_t atoms; /* that it is in; 0: whole */
    uint32_t parts; /* that are followed one by one; 0: it is followed as a whole */
    /* of what goes next */
    enum queue_width width;
    uint64_t ns;
    uint32_t estimate;
};

/* Where the next may run, and how long it takes there. Few TPCs say nothing of how long it takes elsewhere. */
static void choose_gate(struct giving *g, uint32_t parts)
{
    const struct queue_length length = lithos_queue_length(g->q, g->s, g->key, parts);
    lithos_queue_predict_ns(g->q, g->key, QUEUE_OWN, &g->estimate);
    g->issue.gate = lithos_queue_gate(g->q, g->s, &length, &g->width);
    uint32_t longer = lithos_queue_longer(g->q, g->s, g->issue.gate);
    g->ns = length.ns[g->width] * longer;
    if (longer > 1 || (g->width == QUEUE_LENT && length.few))
        g->estimate = QUEUE_ESTIMATES;
    if (g->width == QUEUE_OWN)
        lithos_queue_forget_a_little(g->q, g->s, g->key, &length);
}

/* It is on its way. The last of several atoms may be shorter than the others, and says nothing of them. */
static void follow(struct giving *g, CUevent event, bool last)
{
    const struct queue_takeoff t = {.stamp = g->issue.stamp,
                                    .event = event,
                                    .predicted_ns = g->ns,
                                    .estimate = last && g->parts ? QUEUE_ESTIMATES : g->estimate,
                                    .parts = g->parts,
                                    .width = g->width};
    lithos_queue_fly(g->q, g->s, &t);
    g->issue.stamp = 0;
}

/* Between two atoms of a kernel: the next goes when the rule, as it is by then, and the window let it. What is queued behind waits as well:
 * this is the issuer's thread. */
static void pace(struct lithos_issue *issue, uint32_t atoms)
{
    struct giving *g = (struct giving *)(void *)issue;
    uint32_t spins = 0;
    g->atoms = atoms;
    if (!g->paced)
        return;
    if (!g->parts) /* nobody knew that it would be cut */
        g->ns = lithos_queue_length(g->q, g->s, g->key, atoms).ns[g->width];
    g->parts = atoms;
    follow(g, NULL, false);
    while (blocked(g->q, g->s, g->key, atoms, false)) {
        tell(g->q, lithos_queue_depth(g->q));
        if (!lithos_queue_reap(g->q))
            wait_for_card(g->q, &spins);
    }
    choose_gate(g, atoms);
}

/* It is not in atoms this time. */
static void go_whole(struct lithos_issue *issue)
{
    choose_gate((struct giving *)(void *)issue, 0);
}

static bool may_try(struct lithos_issue *issue)
{
    const struct giving *g = (struct giving *)(void *)issue;
    return lithos_queue_whole_goes_there(g->q, g->s, g->key, g->issue.gate);
}

/* One that is cut is left whole now and then, to see what the cut costs: once says nothing. */
static void note_parts(struct queue_estimate *e, uint32_t parts)
{
    e->wholes = parts ? 0 : e->wholes + (e->wholes < UINT32_MAX);
    if (parts || e->wholes > 1)
        e->parts = parts;
}

/* Make a call, and follow what it gave to the card. key: 0, that is nothing which counts. paced: atoms go one by one, with a look at the
 * rule before each; else all at once, followed by the stamp of the last. */
static CUresult give(struct queue *q, struct queue_stream *s, uint64_t key, bool graph, bool paced,
                     CUstream handle, CUresult (*call)(const void *), const void *arg)
{
    struct giving g = {.q = q, .s = s, .key = key, .paced = paced};
    CUevent event = NULL;
    if (key)
        choose_gate(&g, QUEUE_AS_EVER);
    if (key && graph) { /* what its kernels carry stays in them for later launches */
        g.issue.gate = NULL;
        g.width = QUEUE_OWN;
        g.ns = lithos_queue_predict_ns(q, key, QUEUE_OWN, &g.estimate);
    } else if (key) {
        g.issue.pace = pace;
        g.issue.whole = go_whole;
        g.issue.may_try = may_try;
    }
    lithos_order_issue = &g.issue;
    CUresult result = call(arg);
    if (result == CUDA_SUCCESS && graph)
        event = mark_end(q, s->context, handle);
    lithos_order_issue = NULL;
    if (!key)
        return result;
    uint32_t place;
    lithos_queue_predict_ns(q, key, QUEUE_OWN, &place);
    note_parts(&q->estimates[place], g.atoms);
    if (result == CUDA_SUCCESS)
        follow(&g, event, true);
    return result;
}

static CUresult make_entry(const void *entry)
{
    const struct queue_entry *e = entry;
    lithos_order_issue->thread = e->thread;
    return lithos_queue_make(e);
}

static void make(struct queue *q, struct queue_entry *e)
{
    bool graph = is_graph(e);
    CUstream handle = graph ? (CUstream)e->args[1] : NULL; /* NOLINT(performance-no-int-to-ptr): a word */
    enter(q, e->stream->context);
    lithos_queue_note(e->stream->context,
                      give(q, e->stream, e->estimate_key, graph, true, handle, make_entry, e));
}

bool lithos_queue_issue_now(struct queue *q, struct queue_stream *s, uint64_t key, bool graph,
                            CUstream handle, CUresult (*call)(const void *), const void *arg,
                            CUresult *ret_result)
{
    if (!lithos_queue_try_turn(q))
        return false;
    const struct queue_length length = lithos_queue_length(q, s, key, QUEUE_AS_EVER);
    /* A kernel in atoms is left to the dispatcher, which gives them out one by one. */
    bool alone = !lithos_queue_depth(q);
    bool may =
        !lithos_queue_held(q, s) && !(key && (lithos_queue_outlives(q, s, &length) || length.parts)) &&
        (lithos_queue_room(q, s, &length) || (lithos_queue_reap(q) && lithos_queue_room(q, s, &length))) &&
        (graph || !lithos_queue_waits_for_wider(q, s, &length));
    bool room = alone && (may || waits_at_stops(graph));
    if (alone)
        s->waits_since_ns = 0; /* if it is not made now the dispatcher looks anew */
    if (room)
        *ret_result = give(q, s, key, graph, false, handle, call, arg);
    lithos_queue_give_turn(q);
    return room;
}

static void destroy_event(struct queue *q, const struct queue_entry *e)
{
    CUevent handle = (CUevent)e->args[0]; /* NOLINT(performance-no-int-to-ptr): the word of a call */
    lithos_queue_forget_event(q, handle); /* before the driver gives the handle to another */
    lithos_queue_note(NULL, LITHOS_REAL(event_fn, cuEventDestroy_v2)(handle));
}

static void leave_event(const struct queue_entry *e)
{
    struct queue_event *v = e->event;
    if (!v)
        return;
    if (e->kind == QUEUE_CALL && e->form == LITHOS_ORDER_FORM_WAIT) {
        v->waits_issued++;
    } else if (e->kind == QUEUE_CALL) {
        v->version_issued++;
        atomic_fetch_add_explicit(&v->records_issued, 1, memory_order_release);
    }
    atomic_fetch_add_explicit(&v->touches_issued, 1, memory_order_release);
}

static void issue(struct queue *q, struct queue_entry *e)
{
    struct queue_stream *s = e->stream;
    TAILQ_REMOVE(&s->entries, e, link);
    q->held--;
    if (TAILQ_EMPTY(&s->entries)) { /* before the app sees it empty, and may give its place to another */
        s->is_active = false;
        TAILQ_REMOVE(&q->active, s, active);
    }
    if (e->kind == QUEUE_DESTROY) {
        leave_event(e);
        destroy_event(q, e);
    } else {
        make(q, e);
        leave_event(e);
    }
    if (e->spilled)
        free(e);
    else
        lithos_queue_ring_give_back(&q->ring, &e->ring);
    atomic_fetch_add_explicit(&s->issued, 1, memory_order_release);
    atomic_fetch_add_explicit(&q->issued, 1, memory_order_release);
    lithos_queue_progress(q);
}

/* As many of a stream's as may go now. */
static bool issue_stream(struct queue *q, struct queue_stream *s)
{
    bool any = false;
    for (int i = 0; i < AT_A_TIME; i++) {
        struct queue_entry *e = TAILQ_FIRST(&s->entries);
        if (!e || !streams_allow(q, e) || !event_allows(e) || !others_allow(q, e) ||
            blocked(q, s, e->estimate_key, QUEUE_AS_EVER, is_graph(e)))
            break;
        issue(q, e);
        any = true;
    }
    return any;
}

static bool issue_some(struct queue *q)
{
    struct queue_stream *s, *next;
    bool any = false;
    for (s = TAILQ_FIRST(&q->active); s; s = next) {
        next = TAILQ_NEXT(s, active);
        any |= issue_stream(q, s);
    }
    return any;
}

/* ---- the dispatcher ---- */

/* As long as there is something to do, and a little longer. */
static void dispatch(struct queue *q)
{
    uint64_t idle_since_ns = 0;
    uint32_t spins = 0;
    for (;;) {
        take_in(q);
        bool any = lithos_queue_reap(q);
        q->blocked = LITHOS_PICK_RUN;
        const bool gathers = lithos_queue_gathers(q);
        if (!gathers)
            any |= issue_some(q);
        uint32_t depth = lithos_queue_depth(q);
        if (atomic_load_explicit(&q->turn_wanted, memory_order_relaxed)) {
            tell(q, gathers ? 0 : depth);
            return;
        }
        /* What is lent in a pause of a request is in the way of the rest of it, and whoever lends would have to wait after each to know that it is
         * none: while there is more to come it counts as one call that waits. */
        tell(q, gathers ? 0 : depth + lithos_queue_flows(q));
        if (gathers) {
            idle_since_ns = 0;
            lithos_queue_gather_rest(q);
            continue;
        }
        if (depth) {
            idle_since_ns = 0;
            if (any)
                spins = 0;
            else if (q->held)
                wait_for_card(q, &spins);
            else if (++spins % SPINS == 0) /* a writer is not done */
                sched_yield();
            continue;
        }
        uint64_t now_ns = lithos_now_ns();
        if (!idle_since_ns)
            idle_since_ns = now_ns;
        bool spare = atomic_load_explicit(&q->spare, memory_order_relaxed);
        if (now_ns - idle_since_ns > (spare ? SPARE_GRACE_NS : GRACE_NS)) {
            tell(q, 0);
            return;
        }
        __builtin_ia32_pause();
    }
}

void *lithos_queue_dispatcher(void *queue)
{
    struct queue *q = queue;
    prctl(PR_SET_NAME, "lithos-queue");
    prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS);
    (void)lithos_queue_relax(); /* what another thread captures is no concern of this one */
    for (;;) {
        while (!lithos_queue_depth(q))
            lithos_queue_rest(q, 0);
        lithos_queue_take_turn(q);
        dispatch(q);
        lithos_queue_give_turn(q);
        while (atomic_load_explicit(&q->turn_wanted, memory_order_relaxed))
            sched_yield();
    }
    return NULL;
}
