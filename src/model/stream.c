/* Streams: FIFOs of ops, and what each op waits for. */
#include <errno.h>
#include <stdlib.h>

#include "model/internal.h"

static void kick(struct lithos_model *m, struct lithos_model_stream *s)
{
    if (s->kicked)
        return;
    s->kicked = true;
    s->kick_next = NULL;
    *m->kicked_end = s;
    m->kicked_end = &s->kick_next;
}

/* --- marks and gates --- */

static struct mark **mark_bucket(struct lithos_model *m, uint64_t owner, uint64_t number)
{
    uint64_t h = (owner ^ number) * 0x9e3779b97f4a7c15ull;
    return &m->marks[(h >> 32) % MARK_BUCKETS];
}

static struct mark *mark_find(struct lithos_model *m, uint64_t owner, uint64_t number, bool gate)
{
    for (struct mark *k = *mark_bucket(m, owner, number); k; k = k->next) {
        if (k->owner == owner && k->number == number && k->gate == gate)
            return k;
    }
    return NULL;
}

static struct mark *mark_add(struct lithos_model *m, uint64_t owner, uint64_t number, bool gate)
{
    struct mark **bucket = mark_bucket(m, owner, number), *k = model_alloc(sizeof *k);
    *k = (struct mark){.next = *bucket, .owner = owner, .number = number, .gate = gate};
    *bucket = k;
    return k;
}

static void mark_unhash(struct lithos_model *m, struct mark *mark)
{
    struct mark **at = mark_bucket(m, mark->owner, mark->number);
    while (*at != mark)
        at = &(*at)->next;
    *at = mark->next;
}

static void mark_done(struct lithos_model *m, struct mark *mark)
{
    mark->done = true;
    mark_unhash(m, mark);
    if (!mark->waiters) {
        free(mark);
        return;
    }
    for (struct lithos_model_context *c = m->contexts; c; c = c->next) {
        for (struct lithos_model_stream *s = c->streams; s; s = s->next) {
            if (s->head && s->head->kind == OP_WAIT && s->head->mark == mark)
                kick(m, s);
        }
    }
}

static void mark_leave(struct lithos_model *m, struct mark *mark)
{
    if (--mark->waiters)
        return;
    if (mark->gate && !mark->done) {
        mark_unhash(m, mark);
        free(mark);
    } else if (mark->done) {
        free(mark);
    }
}

/* --- ops --- */

static void launch_free(struct launch *l)
{
    free(l->seen);
    free(l->placement);
    free(l);
}

static void op_free(struct op *op)
{
    if (op->kind == OP_LAUNCH)
        launch_free(op->launch);
    free(op);
}

static void stream_unlink(struct lithos_model_stream *s)
{
    struct lithos_model_stream **at = &s->context->streams;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    free(s);
}

static struct op *stream_pop(struct lithos_model *m, struct lithos_model_stream *s)
{
    struct op *op = s->head;
    s->head = op->next;
    if (!s->head)
        s->tail = NULL;
    kick(m, s);
    return op;
}

static struct lithos_model_event *emit_op(struct lithos_model *m, const struct op *op,
                                          enum lithos_model_event_kind kind)
{
    struct lithos_model_event *e = model_emit(m);
    *e = (struct lithos_model_event){
        .kind = kind,
        .op = op->cookie,
        .context = op->stream->context,
        .user = op->stream->context->desc.user,
        .start_ns = op->start_ns,
        .end_ns = op->end_ns,
    };
    return e;
}

/* The head of a stream, over since op->end_ns. */
static void launch_tell(struct lithos_model *m, struct op *op)
{
    struct launch *l = op->launch;
    struct lithos_model_event *e = emit_op(m, op, LITHOS_MODEL_DONE);
    uint64_t missed = l->k.blocks - LITHOS_MIN(l->k.blocks, l->ended);
    if (l->seen) {
        uint64_t ran = 0;
        for (uint64_t w = 0; w < (l->k.blocks + 63) / 64; w++)
            ran += (uint64_t)__builtin_popcountll(l->seen[w]);
        missed = l->k.blocks - ran;
    }
    e->blocks = l->ended;
    e->blocks_missed = (uint32_t)LITHOS_MIN(missed, UINT32_MAX);
    e->blocks_twice = l->twice;
    e->placement = l->placement;
    l->placement = NULL;
    op_free(stream_pop(m, op->stream));
}

static void launch_done(struct lithos_model *m, struct op *op)
{
    struct domain *d = op->launch->context->domain;
    struct lithos_model_stream *s = op->stream;
    op->end_ns = m->now_ns;
    op->state = OP_ENDED;
    while (s->head && s->head->kind == OP_LAUNCH && s->head->state == OP_ENDED)
        launch_tell(m, s->head);
    /* the next launch of the stream first, so that a domain with work queued keeps its turn */
    stream_drain(m);
    slice_active(m, d, -1);
}

void launch_blocks_ended(struct lithos_model *m, struct launch *l)
{
    l->op->state = OP_COMPLETE;
    timer_add(m, m->now_ns + m->card.complete_ns, l->op);
}

/* Blocks that end in the prelude have; now the others. */
static void launch_place(struct lithos_model *m, struct op *op)
{
    struct launch *l = op->launch;
    struct domain *d = l->context->domain;
    l->exited = true;
    if (!l->k.blocks) {
        launch_blocks_ended(m, l);
        launch_blocks_placed(m, l);
        return;
    }
    /* only now: a queue may hold many launches */
    if (l->k.blocks <= LITHOS_MODEL_TRACKED_BLOCKS) {
        l->seen = model_alloc((l->k.blocks + 63) / 64 * sizeof *l->seen);
        if (l->k.want_placement)
            l->placement = model_alloc(l->k.blocks * sizeof *l->placement);
    }
    place_list(d, l);
    place_all(m, d);
}

/* The launch is at the card. */
static void launch_arrive(struct lithos_model *m, struct op *op)
{
    struct launch *l = op->launch;
    struct domain *d = l->context->domain;
    const struct lithos_topology *t = &m->card.topology;
    struct lithos_tpcset set = lithos_tpcset_and(l->k.masked ? l->k.tpcs : l->context->cap, t->valid);
    l->context->stats.launches++;
    op->start_ns = m->now_ns;
    enum lithos_hang_reason hang = LITHOS_HANG_NONE;
    if (lithos_tpcset_empty(&set))
        hang = LITHOS_HANG_EMPTY_MASK;
    else if (!lithos_topology_has_room(t, set, l->k.cluster_blocks))
        hang = LITHOS_HANG_NO_CLUSTER_ROOM;
    if (hang != LITHOS_HANG_NONE) {
        op->state = OP_HUNG;
        l->context->stats.hangs++;
        struct lithos_model_event *e = emit_op(m, op, LITHOS_MODEL_HANG);
        e->reason = hang;
        e->tpcs = l->k.masked ? l->k.tpcs : set;
        e->cluster_blocks = l->k.cluster_blocks;
        slice_active(m, d, 1);
        return;
    }
    op->state = OP_RUNNING;
    l->seq = m->seq++;
    l->sms = place_sms(m, &set);
    slice_active(m, d, 1);
    uint64_t exits_ns = (uint64_t)((unsigned __int128)l->k.exits * m->card.exit_ps / 1000);
    if (exits_ns)
        timer_add(m, m->now_ns + exits_ns, op);
    else
        launch_place(m, op);
}

static void engine_start(struct lithos_model *m, enum lithos_copy_engine engine)
{
    struct op *op = m->engines[engine].head;
    if (!op)
        return;
    op->start_ns = m->now_ns;
    uint64_t rate = m->card.copy_bytes_per_us[engine];
    uint64_t bytes_ns = (uint64_t)((unsigned __int128)op->copy.bytes * LITHOS_NSEC_PER_USEC / rate);
    timer_add(m, m->now_ns + m->card.copy_latency_ns + bytes_ns, op);
}

static void copy_done(struct lithos_model *m, struct op *op)
{
    enum lithos_copy_engine engine = op->copy.engine;
    struct lithos_model_stats *stats = &op->stream->context->stats;
    stats->copies++;
    stats->copy_bytes += op->copy.bytes;
    m->engines[engine].head = op->copy.next;
    if (!m->engines[engine].head)
        m->engines[engine].tail = NULL;
    op->end_ns = m->now_ns;
    emit_op(m, op, LITHOS_MODEL_DONE);
    op_free(stream_pop(m, op->stream));
    engine_start(m, engine);
}

void stream_timer(struct lithos_model *m, struct op *op)
{
    if (op->kind == OP_COPY)
        copy_done(m, op);
    else if (op->state == OP_COMPLETE)
        launch_done(m, op);
    else if (op->state == OP_RUNNING)
        launch_place(m, op);
    else
        launch_arrive(m, op);
}

/* Start the op at the head. True when it is done at once and the next may start. */
static bool start_head(struct lithos_model *m, struct lithos_model_stream *s)
{
    struct op *op = s->head;
    if (op->kind == OP_WAIT) {
        if (op->mark && !op->mark->done)
            return false;
        if (op->mark)
            mark_leave(m, op->mark);
        op_free(stream_pop(m, s));
        return true;
    }
    if (op->state != OP_QUEUED)
        return false;
    if (op->kind == OP_MARK) {
        op->start_ns = op->end_ns = m->now_ns;
        emit_op(m, op, LITHOS_MODEL_DONE);
        mark_done(m, op->mark);
        op_free(stream_pop(m, s));
        return true;
    }
    if (op->kind == OP_COPY) {
        op->state = OP_RUNNING;
        struct op *last = m->engines[op->copy.engine].tail;
        m->engines[op->copy.engine].tail = op;
        if (last) {
            last->copy.next = op;
        } else {
            m->engines[op->copy.engine].head = op;
            engine_start(m, op->copy.engine);
        }
        return false;
    }
    op->state = OP_LATENCY;
    uint64_t ready_ns = op->submit_ns + m->card.launch_ns;
    if (ready_ns > m->now_ns)
        timer_add(m, ready_ns, op);
    else
        launch_arrive(m, op);
    return false;
}

/* A launch that may overlap with the one before it, once that lets it. */
static bool may_overlap(const struct op *before, const struct op *op)
{
    return op && op->kind == OP_LAUNCH && op->state == OP_QUEUED && op->launch->k.overlap &&
           before->kind == OP_LAUNCH && before->launch->k.pre_exit && before->launch->exited &&
           before->launch->placed == before->launch->k.blocks;
}

/* By the timer also when it is time now: blocks may just be being placed. */
static void overlap_start(struct lithos_model *m, struct op *op)
{
    op->state = OP_LATENCY;
    timer_add(m, LITHOS_MAX(op->submit_ns + m->card.launch_ns, m->now_ns), op);
}

void launch_blocks_placed(struct lithos_model *m, struct launch *l)
{
    if (may_overlap(l->op, l->op->next))
        overlap_start(m, l->op->next);
}

void stream_drain(struct lithos_model *m)
{
    while (m->kicked) {
        struct lithos_model_stream *s = m->kicked;
        m->kicked = s->kick_next;
        if (!m->kicked)
            m->kicked_end = &m->kicked;
        s->kicked = false;
        while (s->head && start_head(m, s))
            ;
        if (!s->head && s->closing && !s->kicked)
            stream_unlink(s);
    }
}

static void submit(struct lithos_model *m, struct lithos_model_stream *s, struct op *op)
{
    lithos_assert(!s->closing);
    op->stream = s;
    op->submit_ns = m->now_ns;
    struct op *before = s->tail;
    if (before)
        before->next = op;
    else
        s->head = op;
    s->tail = op;
    if (s->head == op) {
        kick(m, s);
        stream_drain(m);
    } else if (may_overlap(before, op)) {
        overlap_start(m, op);
    }
}

static struct op *op_new(enum op_kind kind, uint64_t cookie)
{
    struct op *op = model_alloc(sizeof *op);
    op->kind = kind;
    op->cookie = cookie;
    return op;
}

static int check_kernel(const struct lithos_card *card, const struct lithos_model_kernel *k)
{
    if (!k->threads || !k->cluster_blocks || !k->cost.group || k->cost.spread_ppm > FULL_PPM ||
        k->cost.stagger_ppm > FULL_PPM || k->cost.share_ppm > FULL_PPM || k->cost.alone_ns > 1ull << 50)
        return -EINVAL;
    if (k->cluster_blocks > card->largest_cluster_blocks || k->blocks % k->cluster_blocks)
        return -EINVAL;
    if (k->threads > card->sm_threads || k->registers > card->sm_registers ||
        k->shared_bytes > card->sm_shared_bytes)
        return -E2BIG;
    return 0;
}

int lithos_model_launch(struct lithos_model *m, uint64_t now_ns, struct lithos_model_stream *s,
                        uint64_t cookie, const struct lithos_model_kernel *k)
{
    const struct lithos_card *card = &m->card;
    int r = check_kernel(card, k);
    if (r < 0)
        return r;
    model_run(m, now_ns);
    struct launch *l = model_alloc(sizeof *l);
    uint32_t warps = (k->threads + 31) / 32, unit = card->warp_register_unit;
    l->k = *k;
    l->context = s->context;
    l->rank = s->context->desc.priority * 64 + s->priority;
    l->block_threads = warps * 32;
    l->block_registers = warps * ((k->registers * 32 + unit - 1) / unit * unit);
    l->block_shared = (k->shared_bytes + card->block_shared_reserved_bytes + 127) / 128 * 128;
    if (!place_fits_empty_sm(card, l)) {
        free(l);
        return -E2BIG;
    }
    struct op *op = op_new(OP_LAUNCH, cookie);
    op->launch = l;
    l->op = op;
    submit(m, s, op);
    return 0;
}

int lithos_model_copy(struct lithos_model *m, uint64_t now_ns, struct lithos_model_stream *s, uint64_t cookie,
                      enum lithos_copy_engine engine, uint64_t bytes)
{
    if ((unsigned)engine >= LITHOS_COPY_ENGINE_MAX || bytes > 1ull << 50)
        return -EINVAL;
    model_run(m, now_ns);
    struct op *op = op_new(OP_COPY, cookie);
    op->copy.engine = engine;
    op->copy.bytes = bytes;
    submit(m, s, op);
    return 0;
}

int lithos_model_mark(struct lithos_model *m, uint64_t now_ns, struct lithos_model_stream *s, uint64_t cookie)
{
    model_run(m, now_ns);
    struct op *op = op_new(OP_MARK, cookie);
    op->mark = mark_add(m, s->context->desc.owner, cookie, false);
    submit(m, s, op);
    return 0;
}

static void submit_wait(struct lithos_model *m, struct lithos_model_stream *s, struct mark *mark)
{
    struct op *op = op_new(OP_WAIT, 0);
    op->mark = mark;
    if (mark)
        mark->waiters++;
    submit(m, s, op);
}

int lithos_model_wait(struct lithos_model *m, uint64_t now_ns, struct lithos_model_stream *s, uint64_t mark)
{
    model_run(m, now_ns);
    submit_wait(m, s, mark_find(m, s->context->desc.owner, mark, false));
    return 0;
}

int lithos_model_gate(struct lithos_model *m, uint64_t now_ns, struct lithos_model_stream *s, uint64_t number)
{
    model_run(m, now_ns);
    uint64_t owner = s->context->desc.owner;
    struct mark *gate = mark_find(m, owner, number, true);
    submit_wait(m, s, gate ? gate : mark_add(m, owner, number, true));
    return 0;
}

void lithos_model_gate_open(struct lithos_model *m, uint64_t now_ns, uint64_t owner, uint64_t number)
{
    model_run(m, now_ns);
    struct mark *gate = mark_find(m, owner, number, true);
    if (!gate)
        return;
    mark_done(m, gate);
    stream_drain(m);
}

int lithos_model_stream_create(struct lithos_model *m, struct lithos_model_context *c, int32_t priority,
                               struct lithos_model_stream **ret_stream)
{
    struct lithos_model_stream *s = model_alloc(sizeof *s);
    s->context = c;
    s->priority = LITHOS_MIN(LITHOS_MAX(priority, m->card.priority_greatest), m->card.priority_least);
    s->next = c->streams;
    c->streams = s;
    *ret_stream = s;
    return 0;
}

void lithos_model_stream_destroy(struct lithos_model *m, uint64_t now_ns, struct lithos_model_stream *s)
{
    model_run(m, now_ns);
    s->closing = true;
    if (!s->head)
        stream_unlink(s);
}

/* --- the end of a context --- */

static void engine_drop(struct lithos_model *m, const struct lithos_model_context *c)
{
    for (unsigned e = 0; e < LITHOS_COPY_ENGINE_MAX; e++) {
        struct op *first = m->engines[e].head, **at = &m->engines[e].head;
        m->engines[e].tail = NULL;
        while (*at) {
            if ((*at)->stream->context == c) {
                *at = (*at)->copy.next;
            } else {
                m->engines[e].tail = *at;
                at = &(*at)->copy.next;
            }
        }
        if (m->engines[e].head != first)
            engine_start(m, e);
    }
}

static uint32_t drop_ops(struct lithos_model *m, struct lithos_model_stream *s)
{
    uint32_t active = 0;
    while (s->head) {
        struct op *op = s->head;
        s->head = op->next;
        if (op->kind == OP_LAUNCH)
            active += op->state == OP_RUNNING || op->state == OP_COMPLETE || op->state == OP_HUNG;
        else if (op->kind == OP_WAIT && op->mark)
            mark_leave(m, op->mark);
        else if (op->kind == OP_MARK)
            mark_done(m, op->mark);
        op_free(op);
    }
    s->tail = NULL;
    return active;
}

void stream_drop_context(struct lithos_model *m, struct lithos_model_context *c)
{
    struct domain *d = c->domain;
    timer_drop_context(m, c);
    place_drop_context(m, d, c);
    engine_drop(m, c);
    uint32_t active = 0;
    for (struct lithos_model_stream *s = c->streams; s; s = s->next)
        active += drop_ops(m, s);
    /* marks of this context may have let others go, and its own streams may stand in the list: empty it first
     */
    stream_drain(m);
    while (c->streams) {
        struct lithos_model_stream *s = c->streams;
        c->streams = s->next;
        free(s);
    }
    if (active)
        slice_active(m, d, -(int)active);
    place_all(m, d);
}
