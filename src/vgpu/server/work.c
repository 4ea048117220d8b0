/* From messages to the models, and back. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/util.h"
#include "hw/qmd.h"
#include "hw/qmd_atom.h"
#include "vgpu/server/server.h"

/* CUresult of cuda.h */
#define ERROR_LAUNCH_OUT_OF_RESOURCES 701
#define ERROR_LAUNCH_FAILED 719

static uint64_t domain_of(const struct client *c)
{
    /* processes without MPS are a domain each */
    return c->hello.mps ? c->hello.mps_domain : c->serial | 1ull << 63;
}

static void add_stats(struct lithos_model_stats *sum, const struct lithos_model_stats *s)
{
    sum->launches += s->launches;
    sum->hangs += s->hangs;
    sum->blocks += s->blocks;
    sum->copies += s->copies;
    sum->copy_bytes += s->copy_bytes;
    sum->blocks_beside_others += s->blocks_beside_others;
    sum->tpcs = lithos_tpcset_or(sum->tpcs, s->tpcs);
    for (unsigned b = 0; b < LITHOS_TPC_BITS; b++)
        sum->sm_ns[b] += s->sm_ns[b];
}

void work_usage(const struct client *c, unsigned card, struct lithos_model_stats *ret_stats)
{
    *ret_stats = c->usage[card].stats;
    for (const struct context *ctx = c->contexts; ctx; ctx = ctx->next) {
        struct lithos_model_stats live;
        if (ctx->card != card || !ctx->ctx)
            continue;
        lithos_model_context_stats(ctx->ctx, &live);
        add_stats(ret_stats, &live);
    }
}

/* --- marks: waits across cards go through gates --- */

static void mark_end(struct client *c, struct mark *mark)
{
    struct server *sv = c->server;
    for (unsigned card = 0; card < sv->card_count; card++) {
        if (!(mark->waiting_cards >> card & 1))
            continue;
        lithos_model_gate_open(sv->cards[card].model, server_card_ns(sv), c->serial, mark->id);
        server_touch(sv, card);
    }
    struct mark **at = &c->marks;
    while (*at != mark)
        at = &(*at)->next;
    *at = mark->next;
    idmap_remove(&c->mark_ids, mark->id);
    free(mark);
}

/* The context leaves the card: at once, whatever runs. */
static void context_leave(struct context *ctx)
{
    struct client *c = ctx->client;
    struct server *sv = c->server;
    if (!ctx->ctx)
        return;
    struct lithos_model_stats stats;
    uint64_t now_ns = server_card_ns(sv);
    /* up to now first, so that what has ended counts */
    lithos_model_context_destroy(sv->cards[ctx->card].model, now_ns, ctx->ctx, &stats);
    add_stats(&c->usage[ctx->card].stats, &stats);
    ctx->ctx = NULL;
    client_ops_done(c, ctx->open_ops);
    ctx->open_ops = 0;
    server_touch(sv, ctx->card);
    for (struct mark *m = c->marks, *next; m; m = next) {
        next = m->next;
        if (m->context == ctx)
            mark_end(c, m);
    }
}

static const char *context_create(struct client *c, const struct vgpu_ctx *m)
{
    struct server *sv = c->server;
    if (m->card >= sv->card_count)
        return "no such card";
    struct context *ctx = calloc(1, sizeof *ctx);
    lithos_assert(ctx);
    *ctx = (struct context){.client = c, .id = m->ctx, .card = m->card, .next = c->contexts};
    int r = idmap_add(&c->ctx_ids, m->ctx, ctx);
    if (r < 0) {
        free(ctx);
        return r == -EEXIST ? "the context's id is in use" : "out of memory";
    }
    const struct lithos_model_context_desc desc = {
        .user = ctx,
        .owner = c->serial,
        .domain = domain_of(c),
        .thread_percent = c->hello.mps ? c->hello.thread_percent : 0,
        .priority = c->hello.mps ? c->hello.priority : 0,
    };
    r = lithos_model_context_create(sv->cards[m->card].model, &desc, &ctx->ctx);
    lithos_assert(r == 0);
    c->contexts = ctx;
    return NULL;
}

static void free_streams(struct client *c, const struct context *ctx);

static const char *context_destroy(struct client *c, const struct vgpu_ctx *m)
{
    struct context *ctx = idmap_remove(&c->ctx_ids, m->ctx);
    if (!ctx)
        return "no such context";
    context_leave(ctx);
    free_streams(c, ctx);
    struct context **at = &c->contexts;
    while (*at != ctx)
        at = &(*at)->next;
    *at = ctx->next;
    free(ctx);
    return NULL;
}

static const char *context_slice(struct client *c, const struct vgpu_slice *m)
{
    struct context *ctx = idmap_get(&c->ctx_ids, m->ctx);
    if (!ctx)
        return "no such context";
    /* A client of an MPS server has no group of its own: the server's is everybody's. */
    if (ctx->ctx && !c->hello.mps) {
        lithos_model_context_slice(c->server->cards[ctx->card].model, server_card_ns(c->server), ctx->ctx,
                                   m->us * LITHOS_NSEC_PER_USEC);
        server_touch(c->server, ctx->card);
    }
    return NULL;
}

static const char *stream_create(struct client *c, const struct vgpu_stream *m)
{
    struct context *ctx = idmap_get(&c->ctx_ids, m->ctx);
    if (!ctx)
        return "no such context";
    struct stream *s = calloc(1, sizeof *s);
    lithos_assert(s);
    s->id = m->stream;
    s->context = ctx;
    s->next = c->streams;
    int r = idmap_add(&c->stream_ids, m->stream, s);
    if (r < 0) {
        free(s);
        return r == -EEXIST ? "the stream's id is in use" : "out of memory";
    }
    c->streams = s;
    if (ctx->ctx)
        lithos_assert(
            lithos_model_stream_create(c->server->cards[ctx->card].model, ctx->ctx, m->priority, &s->s) == 0);
    return NULL;
}

static void free_streams(struct client *c, const struct context *ctx)
{
    for (struct stream **at = &c->streams; *at;) {
        struct stream *s = *at;
        if (s->context != ctx) {
            at = &s->next;
            continue;
        }
        *at = s->next;
        idmap_remove(&c->stream_ids, s->id);
        free(s);
    }
}

static const char *stream_destroy(struct client *c, const struct vgpu_stream *m)
{
    struct stream *s = idmap_remove(&c->stream_ids, m->stream);
    if (!s)
        return "no such stream";
    if (s->context->ctx && s->s) {
        unsigned card = s->context->card;
        lithos_model_stream_destroy(c->server->cards[card].model, server_card_ns(c->server), s->s);
        server_touch(c->server, card);
    }
    struct stream **at = &c->streams;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    free(s);
    return NULL;
}

/* --- launches --- */

static void fault(struct context *ctx, uint64_t op, int32_t result, const char *kernel, const char *text)
{
    struct client *c = ctx->client;
    struct vgpu_fault m = {.ctx = ctx->id, .op = op, .result = result};
    snprintf(m.text, sizeof m.text, "kernel %.60s: %s", kernel, text);
    lithos_warning("client %d (%s): %s", (int)c->pid, c->program, m.text);
    c->usage[ctx->card].faults++;
    context_leave(ctx);
    client_send(c, &m, VGPU_FAULT, sizeof m);
}

/* What the QMD asks for. NULL, or what a card does with it. */
static const char *read_qmd(const struct lithos_card *card, const struct vgpu_launch *m,
                            struct lithos_model_kernel *k)
{
    const struct lithos_qmd_layout *layout;
    if (lithos_qmd_identify(card->cc_major, card->cc_minor, m->qmd, true, &layout) < 0 ||
        lithos_qmd_layout_version(layout) != card->qmd)
        return "its QMD is not of the version that the card obeys: the launch fails";
    struct lithos_qmd_view v;
    lithos_qmd_decode(layout, m->qmd, &v);
    k->blocks = (uint64_t)v.grid[0] * v.grid[1];
    if (v.grid[2] && k->blocks > (1ull << 40) / v.grid[2])
        return "its QMD names more than 2^40 blocks: the launch would run for years";
    k->blocks *= v.grid[2];
    k->cluster_blocks = 1;
    if (v.type == LITHOS_QMD_TYPE_CLUSTERS) {
        uint64_t cluster = (uint64_t)v.cluster[0] * v.cluster[1] * v.cluster[2];
        if (!cluster || cluster > card->largest_cluster_blocks)
            return "its QMD names a cluster larger than the card takes: the launch fails";
        k->cluster_blocks = (uint32_t)cluster;
        k->blocks *= cluster; /* the hardware counts clusters */
    }
    if (m->exits > k->blocks || m->exits % k->cluster_blocks)
        return "its prelude ends a part of a cluster: the launch fails";
    k->exits = m->exits;
    k->blocks -= m->exits;
    k->pre_exit = lithos_qmd_get_pre_exit(layout, m->qmd) || m->flags & VGPU_LAUNCH_ORDERED;
    k->overlap = lithos_qmd_waits_on_latch(layout, m->qmd);
    uint64_t threads = (uint64_t)v.block[0] * v.block[1] * v.block[2];
    if (!threads || threads > card->sm_threads)
        return "its QMD names a block of no threads or more than an SM holds: the launch fails";
    k->threads = (uint32_t)threads;
    k->registers = v.registers;
    k->shared_bytes = v.shared_bytes;
    k->masked = v.masked;
    k->tpcs = v.tpcs;
    return NULL;
}

static void count_op(struct context *ctx)
{
    ctx->open_ops++;
    ctx->client->open_ops++;
}

static void launch(struct client *c, struct stream *s, const struct vgpu_launch *m)
{
    struct server *sv = c->server;
    struct card *card = &sv->cards[s->context->card];
    struct lithos_model_kernel k = {.want_placement = m->flags & VGPU_LAUNCH_WANT_PLACEMENT};
    const char *why = read_qmd(&card->data, m, &k);
    if (why) {
        fault(s->context, m->op, ERROR_LAUNCH_FAILED, m->kernel, why);
        return;
    }
    struct usage *usage = &c->usage[s->context->card];
    usage->atoms += (m->flags & VGPU_LAUNCH_ATOM) != 0;
    usage->exits += m->exits;
    usage->blocks_missed += m->cut_missed;
    usage->blocks_twice += m->cut_twice;
    lithos_costs_find(sv->costs, m->kernel, m->params, m->param_count, k.threads, &k.cost);
    int r = lithos_model_launch(card->model, server_card_ns(sv), s->s, m->op, &k);
    if (r == -E2BIG)
        fault(s->context, m->op, ERROR_LAUNCH_OUT_OF_RESOURCES, m->kernel,
              "a block needs more registers or shared memory than an SM has: the launch fails");
    else if (r < 0)
        fault(s->context, m->op, ERROR_LAUNCH_FAILED, m->kernel, "the card cannot run it: the launch fails");
    else
        count_op(s->context);
}

static const char *op_message(struct client *c, const union vgpu_client_msg *m, uint64_t stream)
{
    struct server *sv = c->server;
    struct stream *s = idmap_get(&c->stream_ids, stream);
    if (!s)
        return "no such stream";
    if (!s->context->ctx || !s->s)
        return NULL; /* the context is lost: the client has been told */
    unsigned card = s->context->card;
    struct lithos_model *model = sv->cards[card].model;
    uint64_t now_ns = server_card_ns(sv);
    switch (m->h.type) {
    case VGPU_LAUNCH:
        launch(c, s, &m->launch);
        break;
    case VGPU_COPY:
        lithos_assert(lithos_model_copy(model, now_ns, s->s, m->copy.op,
                                        (enum lithos_copy_engine)m->copy.kind, m->copy.bytes) == 0);
        count_op(s->context);
        break;
    case VGPU_MARK: {
        struct mark *mark = calloc(1, sizeof *mark);
        lithos_assert(mark);
        *mark = (struct mark){.next = c->marks, .context = s->context, .id = m->mark.op};
        if (idmap_add(&c->mark_ids, mark->id, mark) < 0) {
            free(mark);
            return "the mark's id is in use";
        }
        c->marks = mark;
        lithos_assert(lithos_model_mark(model, now_ns, s->s, mark->id) == 0);
        count_op(s->context);
        break;
    }
    case VGPU_WAIT: {
        struct mark *mark = idmap_get(&c->mark_ids, m->wait.mark);
        if (mark && mark->context->card != card) {
            mark->waiting_cards |= 1u << card;
            lithos_assert(lithos_model_gate(model, now_ns, s->s, mark->id) == 0);
        } else if (mark) {
            lithos_assert(lithos_model_wait(model, now_ns, s->s, mark->id) == 0);
        }
        break;
    }
    }
    server_touch(sv, card);
    return NULL;
}

static const char *greet(struct client *c, const struct vgpu_hello *hello)
{
    struct server *sv = c->server;
    if (c->greeted)
        return "a second HELLO";
    c->greeted = true;
    c->hello = *hello;
    struct vgpu_welcome welcome = {
        .cards = sv->card_count, .driver_version = sv->cards[0].data.driver_version, .scale = sv->scale};
    client_send(c, &welcome, VGPU_WELCOME, sizeof welcome);
    for (unsigned i = 0; i < sv->card_count; i++) {
        const struct lithos_card *d = &sv->cards[i].data;
        struct vgpu_card card = {
            .index = i,
            .sm_count = lithos_card_sms(d),
            .total_mem = d->memory_bytes,
            .cc_major = d->cc_major,
            .cc_minor = d->cc_minor,
            .priority_least = d->priority_least,
            .priority_greatest = d->priority_greatest,
            .tpcs = d->topology.valid,
            .sms_per_tpc = d->topology.sms_per_tpc,
        };
        memcpy(card.uuid, sv->cards[i].uuid, sizeof card.uuid);
        _Static_assert(sizeof card.name == sizeof d->name && sizeof card.attributes == sizeof d->attributes,
                       "");
        memcpy(card.name, d->name, sizeof card.name);
        memcpy(card.attributes, d->attributes, sizeof card.attributes);
        client_send(c, &card, VGPU_CARD, sizeof card);
    }
    return NULL;
}

const char *work_message(struct client *c, const union vgpu_client_msg *m)
{
    if (m->h.type == VGPU_HELLO)
        return greet(c, &m->hello);
    if (!c->greeted)
        return "it came before HELLO";
    switch (m->h.type) {
    case VGPU_CTX_CREATE:
        return context_create(c, &m->ctx);
    case VGPU_CTX_DESTROY:
        return context_destroy(c, &m->ctx);
    case VGPU_CTX_SLICE:
        return context_slice(c, &m->slice);
    case VGPU_STREAM_CREATE:
        return stream_create(c, &m->stream);
    case VGPU_STREAM_DESTROY:
        return stream_destroy(c, &m->stream);
    case VGPU_LAUNCH:
        return op_message(c, m, m->launch.stream);
    case VGPU_COPY:
        return op_message(c, m, m->copy.stream);
    case VGPU_QUERY:
        return power_query(c, &m->query);
    case VGPU_MARK:
        return op_message(c, m, m->mark.stream);
    default:
        return op_message(c, m, m->wait.stream);
    }
}

/* --- what has happened --- */

static void send_placement(struct client *c, const struct lithos_model_event *e)
{
    struct vgpu_placement m = {.op = e->op};
    for (uint64_t first = 0; first < e->blocks; first += m.count) {
        m.first_block = first;
        m.count = (uint32_t)LITHOS_MIN(e->blocks - first, VGPU_PLACEMENTS);
        memcpy(m.sm, e->placement + first, m.count * sizeof *m.sm);
        client_send(c, &m, VGPU_PLACEMENT, offsetof(struct vgpu_placement, sm) + m.count * sizeof *m.sm);
    }
}

void work_event(unsigned card, struct lithos_model_event *e)
{
    struct context *ctx = e->user;
    struct client *c = ctx->client;
    struct usage *usage = &c->usage[card];
    if (e->kind == LITHOS_MODEL_HANG) {
        char text[512];
        lithos_warning("client %d (%s), card %u: %s", (int)c->pid, c->program, card,
                       lithos_model_hang_text(e, text, sizeof text));
        return;
    }
    if (e->blocks_missed || e->blocks_twice) {
        usage->blocks_missed += e->blocks_missed;
        usage->blocks_twice += e->blocks_twice;
        lithos_warning("client %d (%s), card %u: of %llu blocks %u did not run and %u ran more than once",
                       (int)c->pid, c->program, card, (unsigned long long)e->blocks, e->blocks_missed,
                       e->blocks_twice);
    }
    struct mark *mark = idmap_get(&c->mark_ids, e->op);
    if (mark)
        mark_end(c, mark);
    if (e->placement)
        send_placement(c, e);
    free(e->placement);
    struct vgpu_done done = {
        .op = e->op,
        .start_ns = e->start_ns,
        .end_ns = e->end_ns,
        .blocks = e->blocks,
        .blocks_missed = e->blocks_missed,
        .blocks_twice = e->blocks_twice,
    };
    client_send(c, &done, VGPU_DONE, sizeof done);
    ctx->open_ops--;
    client_ops_done(c, 1);
}

void work_drop(struct client *c)
{
    while (c->contexts) {
        struct context *ctx = c->contexts;
        context_leave(ctx);
        free_streams(c, ctx);
        c->contexts = ctx->next;
        free(ctx);
    }
    idmap_free(&c->ctx_ids);
    idmap_free(&c->stream_ids);
    idmap_free(&c->mark_ids);
}
