/* Ops: put into streams in the order that CUDA promises, sent to the server, and carried out when it says they ran. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vgpu/client/client.h"
#include "vgpu/client/hostfn.h"

#define BUCKETS 4096u

static struct vgpu_op *sent[BUCKETS]; /* by id; under lock */

struct vgpu_op *vgpu_op_new(struct CUstream_st *stream, enum vgpu_op_kind kind)
{
    struct vgpu_op *op = calloc(1, sizeof *op);
    if (!op)
        return NULL;
    op->id = vgpu_next_id();
    op->stream = stream;
    op->kind = kind;
    return op;
}

static struct vgpu_point *mark_new(void)
{
    struct vgpu_point *m = calloc(1, sizeof *m);
    if (m)
        m->refs = 1;
    return m;
}

void vgpu_point_unref(struct vgpu_point *mark)
{
    if (mark && --mark->refs == 0)
        free(mark);
}

/* Not under lock when it holds a mark. */
void vgpu_op_free(struct vgpu_op *op)
{
    if (!op)
        return;
    switch (op->kind) {
    case VGPU_OP_COPY:
        free(op->copy.staged);
        break;
    case VGPU_OP_LAUNCH:
        free(op->launch.params);
        free(op->launch.placement);
        vgpu_program_unref(op->launch.program);
        break;
    default:
        break;
    }
    if (op->mark) {
        pthread_mutex_lock(&vgpu.lock);
        vgpu_point_unref(op->mark);
        pthread_mutex_unlock(&vgpu.lock);
    }
    free(op);
}

/* ---- sending; all under issue */

static void remember(struct vgpu_op *op)
{
    pthread_mutex_lock(&vgpu.lock);
    struct vgpu_op **bucket = &sent[op->id % BUCKETS];
    op->hash_next = *bucket;
    *bucket = op;
    if (op->mark)
        op->mark->sent = true;
    pthread_mutex_unlock(&vgpu.lock);
}

/* The op may be done and freed before this returns. */
static void send_op(struct vgpu_op *op)
{
    switch (op->kind) {
    case VGPU_OP_LAUNCH:
    case VGPU_OP_MEMSET:
        op->msg.launch.op = op->id;
        op->msg.launch.stream = op->stream->id;
        remember(op);
        break;
    case VGPU_OP_COPY:
        op->msg.copy.op = op->id;
        op->msg.copy.stream = op->stream->id;
        remember(op);
        break;
    case VGPU_OP_MARK:
    case VGPU_OP_HOST: {
        struct vgpu_mark m = {.op = op->id, .stream = op->stream->id};
        vgpu_msg_init(&m.h, VGPU_MARK, sizeof m);
        if (op->mark)
            op->mark->id = op->id;
        remember(op);
        vgpu_link_send(&m, sizeof m);
        return;
    }
    case VGPU_OP_WAIT: {
        struct vgpu_wait w = {.stream = op->stream->id, .mark = op->mark->id};
        vgpu_msg_init(&w.h, VGPU_WAIT, sizeof w);
        pthread_mutex_lock(&vgpu.lock);
        bool done = op->mark->done;
        pthread_mutex_unlock(&vgpu.lock);
        vgpu_op_free(op);
        if (!done)
            vgpu_link_send(&w, sizeof w);
        return;
    }
    }
    /* A copy of the message: the op belongs to the reader once the server may have seen it. */
    struct vgpu_launch msg;
    size_t size = op->msg.h.size;
    memcpy(&msg, &op->msg, size);
    vgpu_link_send(&msg, size);
}

static bool sendable(const struct CUstream_st *s, const struct vgpu_op *op)
{
    return !s->host_blocked && (op->kind != VGPU_OP_WAIT || op->mark->sent);
}

/* Send what of a stream's queue may go. */
static bool pump_stream(struct CUstream_st *s)
{
    bool moved = false;
    for (;;) {
        pthread_mutex_lock(&vgpu.lock);
        struct vgpu_op *op = s->head;
        if (!op || !sendable(s, op)) {
            pthread_mutex_unlock(&vgpu.lock);
            return moved;
        }
        s->head = op->next;
        if (!s->head)
            s->tail = NULL;
        s->host_blocked = op->kind == VGPU_OP_HOST;
        pthread_mutex_unlock(&vgpu.lock);
        send_op(op);
        moved = true;
    }
}

static void enqueue(struct vgpu_op *op)
{
    struct CUstream_st *s = op->stream;
    pthread_mutex_lock(&vgpu.lock);
    if (op->kind != VGPU_OP_WAIT)
        s->issued++;
    op->next = NULL;
    if (s->tail)
        s->tail->next = op;
    else
        s->head = op;
    s->tail = op;
    pthread_mutex_unlock(&vgpu.lock);
    pump_stream(s);
}

/* A host function has returned: what waited for it goes on, in its own stream and in others. */
void vgpu_pump_all(struct CUctx_st *ctx)
{
    bool moved = true;
    while (moved) {
        moved = false;
        for (struct CUstream_st *s = ctx->streams; s; s = s->next)
            moved |= pump_stream(s);
    }
}

/* ---- order between streams */

static struct vgpu_point *put_mark(struct CUstream_st *s)
{
    struct vgpu_op *op = vgpu_op_new(s, VGPU_OP_MARK);
    struct vgpu_point *m = op ? mark_new() : NULL;
    if (!m) {
        free(op);
        return NULL;
    }
    m->refs = 2; /* the op's and the caller's */
    op->mark = m;
    enqueue(op);
    return m;
}

/* Takes over the reference. */
static bool put_wait(struct CUstream_st *s, struct vgpu_point *m)
{
    struct vgpu_op *op = vgpu_op_new(s, VGPU_OP_WAIT);
    if (!op)
        return false;
    op->mark = m;
    enqueue(op);
    return true;
}

static bool idle(struct CUstream_st *s)
{
    pthread_mutex_lock(&vgpu.lock);
    bool is = s->issued == s->done && !s->head;
    pthread_mutex_unlock(&vgpu.lock);
    return is;
}

/* The legacy stream waits for all blocking streams. */
static bool join_blocking(struct CUstream_st *legacy)
{
    for (struct CUstream_st *s = legacy->ctx->streams; s; s = s->next) {
        if (s == legacy || (s->flags & CU_STREAM_NON_BLOCKING) || !s->dirty)
            continue;
        s->dirty = false;
        if (idle(s))
            continue;
        struct vgpu_point *m = put_mark(s);
        if (!m || !put_wait(legacy, m))
            return false;
    }
    return true;
}

/* A blocking stream waits for the legacy stream. */
static bool join_legacy(struct CUstream_st *s)
{
    struct CUctx_st *ctx = s->ctx;
    if (s->legacy_seen == ctx->legacy_seq)
        return true;
    s->legacy_seen = ctx->legacy_seq;
    if (idle(ctx->legacy))
        return true;
    if (!ctx->legacy_mark || ctx->legacy_marked != ctx->legacy_seq) {
        struct vgpu_point *m = put_mark(ctx->legacy);
        if (!m)
            return false;
        pthread_mutex_lock(&vgpu.lock);
        vgpu_point_unref(ctx->legacy_mark);
        ctx->legacy_mark = m;
        pthread_mutex_unlock(&vgpu.lock);
        ctx->legacy_marked = ctx->legacy_seq;
    }
    pthread_mutex_lock(&vgpu.lock);
    ctx->legacy_mark->refs++;
    pthread_mutex_unlock(&vgpu.lock);
    return put_wait(s, ctx->legacy_mark);
}

static bool order(struct CUstream_st *s)
{
    if (s->kind == VGPU_STREAM_LEGACY) {
        s->ctx->legacy_seq++;
        return join_blocking(s);
    }
    if (s->flags & CU_STREAM_NON_BLOCKING)
        return true;
    s->dirty = true;
    return join_legacy(s);
}

/* ---- issuing and waiting */

static CUresult state(const struct CUctx_st *ctx)
{
    return ctx->destroyed ? CUDA_ERROR_CONTEXT_IS_DESTROYED : ctx->sticky ? ctx->sticky : vgpu.lost;
}

static CUresult wait_until(struct CUstream_st *s, uint64_t count)
{
    pthread_mutex_lock(&vgpu.lock);
    CUresult r;
    while (!(r = state(s->ctx)) && s->done < count)
        pthread_cond_wait(&vgpu.changed, &vgpu.lock);
    pthread_mutex_unlock(&vgpu.lock);
    return r;
}

CUresult vgpu_issue(struct vgpu_op *op, bool wait)
{
    struct CUstream_st *s = op->stream;
    /* As deep as a card's queue, and no deeper: the app then waits. Not under issue: other streams go on. */
    pthread_mutex_lock(&vgpu.lock);
    uint64_t floor = s->issued > VGPU_MAX_OUTSTANDING ? s->issued - VGPU_MAX_OUTSTANDING : 0;
    pthread_mutex_unlock(&vgpu.lock);
    CUresult r = wait_until(s, floor);
    if (r) {
        vgpu_op_free(op);
        return r;
    }
    pthread_mutex_lock(&vgpu.issue);
    bool ok = order(s);
    if (ok)
        enqueue(op);
    uint64_t upto = s->issued;
    pthread_mutex_unlock(&vgpu.issue);
    if (!ok) {
        vgpu_op_free(op);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    return wait ? wait_until(s, upto) : CUDA_SUCCESS;
}

CUresult vgpu_issue_mark(struct CUstream_st *stream, struct vgpu_point **ret_mark)
{
    struct vgpu_op *op = vgpu_op_new(stream, VGPU_OP_MARK);
    struct vgpu_point *m = op ? mark_new() : NULL;
    if (!m) {
        free(op);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    m->refs = 2;
    op->mark = m;
    CUresult r = vgpu_issue(op, false);
    if (r) {
        pthread_mutex_lock(&vgpu.lock);
        vgpu_point_unref(m);
        pthread_mutex_unlock(&vgpu.lock);
        return r;
    }
    *ret_mark = m;
    return CUDA_SUCCESS;
}

/* The wait, then a mark of its own: so that a later synchronise of the stream covers the wait. */
CUresult vgpu_issue_wait(struct CUstream_st *stream, struct vgpu_point *mark)
{
    pthread_mutex_lock(&vgpu.lock);
    mark->refs++;
    pthread_mutex_unlock(&vgpu.lock);
    pthread_mutex_lock(&vgpu.issue);
    bool ok = order(stream) && put_wait(stream, mark);
    struct vgpu_point *own = ok ? put_mark(stream) : NULL;
    pthread_mutex_lock(&vgpu.lock);
    vgpu_point_unref(own);
    pthread_mutex_unlock(&vgpu.lock);
    pthread_mutex_unlock(&vgpu.issue);
    return own ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult vgpu_wait_stream(struct CUstream_st *stream)
{
    pthread_mutex_lock(&vgpu.lock);
    uint64_t upto = stream->issued;
    pthread_mutex_unlock(&vgpu.lock);
    return wait_until(stream, upto);
}

CUresult vgpu_wait_context(struct CUctx_st *ctx)
{
    CUresult r;
    pthread_mutex_lock(&vgpu.lock);
    for (struct CUstream_st *s = ctx->streams; !(r = state(ctx)) && s;) {
        if (s->done < s->issued) {
            pthread_cond_wait(&vgpu.changed, &vgpu.lock);
            s = ctx->streams; /* it may have changed while we slept */
        } else {
            s = s->next;
        }
    }
    pthread_mutex_unlock(&vgpu.lock);
    return r;
}

CUresult vgpu_wait_mark(struct CUctx_st *ctx, struct vgpu_point *mark)
{
    CUresult r;
    pthread_mutex_lock(&vgpu.lock);
    while (!(r = state(ctx)) && !mark->done)
        pthread_cond_wait(&vgpu.changed, &vgpu.lock);
    pthread_mutex_unlock(&vgpu.lock);
    return r;
}

/* ---- what the server says; on the reader thread */

static struct vgpu_op *look_up(uint64_t id, bool take)
{
    for (struct vgpu_op **p = &sent[id % BUCKETS]; *p; p = &(*p)->hash_next)
        if ((*p)->id == id) {
            struct vgpu_op *op = *p;
            if (take)
                *p = op->hash_next;
            return op;
        }
    return NULL;
}

static void effect(struct vgpu_op *op, const struct vgpu_done *done)
{
    switch (op->kind) {
    case VGPU_OP_COPY:
        vgpu_copy_effect(op);
        break;
    case VGPU_OP_MEMSET:
        vgpu_memset_effect(op);
        vgpu_stamps_write(op, done->end_ns);
        break;
    case VGPU_OP_LAUNCH:
        vgpu_launch_effect(op, done);
        vgpu_stamps_write(op, done->end_ns);
        break;
    case VGPU_OP_MARK:
        if (op->free_ptr)
            vgpu_release(op->free_ptr);
        break;
    default:
        break;
    }
}

void vgpu_op_done(const struct vgpu_done *done)
{
    pthread_mutex_lock(&vgpu.lock);
    struct vgpu_op *op = look_up(done->op, true);
    struct CUctx_st *ctx = op ? op->stream->ctx : NULL;
    bool host = op && op->kind == VGPU_OP_HOST;
    vgpu.busy = host ? NULL : ctx; /* destroying the context waits for this */
    pthread_mutex_unlock(&vgpu.lock);
    if (!op)
        return; /* of a context that was lost or destroyed meanwhile */
    if (host) { /* it ends when the function has returned, or the word is there */
        if (op->is_word)
            vgpu_word_wait(op);
        else
            vgpu_hostfn_run(op);
        return;
    }
    effect(op, done);
    pthread_mutex_lock(&vgpu.lock);
    vgpu.busy = NULL;
    if (op->stream->done < op->stream->issued)
        op->stream->done++;
    if (op->mark) {
        op->mark->end_ns = done->end_ns;
        op->mark->done = true;
    }
    pthread_cond_broadcast(&vgpu.changed);
    pthread_mutex_unlock(&vgpu.lock);
    vgpu_op_free(op);
}

void vgpu_op_placed(const struct vgpu_placement *p, size_t size)
{
    size_t room = (size - offsetof(struct vgpu_placement, sm)) / sizeof p->sm[0];
    pthread_mutex_lock(&vgpu.lock);
    struct vgpu_op *op = look_up(p->op, false);
    pthread_mutex_unlock(&vgpu.lock);
    if (!op || op->kind != VGPU_OP_LAUNCH || !op->launch.placement || p->count > room ||
        p->first_block > op->launch.placement_blocks ||
        p->count > op->launch.placement_blocks - p->first_block)
        return;
    memcpy(op->launch.placement + p->first_block, p->sm, p->count * sizeof p->sm[0]);
}

/* All ops of the context out of the tables, as a list. Under lock. */
static struct vgpu_op *take_ops(struct CUctx_st *ctx)
{
    struct vgpu_op *list = NULL;
    for (unsigned b = 0; b < BUCKETS; b++)
        for (struct vgpu_op **p = &sent[b]; *p;) {
            struct vgpu_op *op = *p;
            if (op->stream->ctx != ctx) {
                p = &op->hash_next;
                continue;
            }
            *p = op->hash_next;
            op->next = list;
            list = op;
        }
    for (struct CUstream_st *s = ctx->streams; s; s = s->next) {
        if (s->tail) {
            s->tail->next = list;
            list = s->head;
            s->head = s->tail = NULL;
        }
        s->done = s->issued;
    }
    return list;
}

void vgpu_ops_drop(struct CUctx_st *ctx)
{
    pthread_mutex_lock(&vgpu.lock);
    struct vgpu_op *list = take_ops(ctx);
    for (struct vgpu_op *op = list; op; op = op->next)
        if (op->mark && op->kind == VGPU_OP_MARK)
            op->mark->sent = op->mark->done = true; /* nobody waits for what will not come */
    pthread_cond_broadcast(&vgpu.changed);
    pthread_mutex_unlock(&vgpu.lock);
    while (list) {
        struct vgpu_op *next = list->next;
        vgpu_op_free(list);
        list = next;
    }
}

void vgpu_context_fault(struct CUctx_st *ctx, CUresult result, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    pthread_mutex_lock(&vgpu.lock);
    bool first = !ctx->sticky;
    if (first)
        ctx->sticky = result;
    pthread_mutex_unlock(&vgpu.lock);
    if (first)
        lithos_error("virtual GPU: %s (every call of this context now fails with error %d)", text, result);
    vgpu_ops_drop(ctx);
}

void vgpu_fault_message(const struct vgpu_fault *fault)
{
    pthread_mutex_lock(&vgpu.lock);
    struct CUctx_st *ctx = vgpu.contexts;
    while (ctx && ctx->id != fault->ctx)
        ctx = ctx->next;
    pthread_mutex_unlock(&vgpu.lock);
    if (ctx)
        vgpu_context_fault(ctx, fault->result ? fault->result : CUDA_ERROR_UNKNOWN, "%.*s",
                           (int)sizeof fault->text, fault->text);
}

void vgpu_lost(CUresult result, const char *why)
{
    pthread_mutex_lock(&vgpu.lock);
    bool first = !vgpu.lost;
    if (first)
        vgpu.lost = result;
    pthread_cond_broadcast(&vgpu.changed);
    pthread_mutex_unlock(&vgpu.lock);
    if (first)
        lithos_error("virtual GPU: %s: every call now fails with error %d", why, result);
}
