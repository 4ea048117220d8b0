/* The wave model: streams, their launches, and time. */
#include "model/wave.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "model/wave_internal.h"

/* The model lives in simulators and tests, never in a tenant: out of memory is the end. */
void *wave_alloc(size_t size)
{
    void *p = calloc(1, size);
    lithos_assert(p);
    return p;
}

/* --- timers: a heap by time, equal times in the order they were set --- */

static bool timer_before(const struct wave_timer *a, const struct wave_timer *b)
{
    return a->at_ns < b->at_ns || (a->at_ns == b->at_ns && a->seq < b->seq);
}

static void timer_sift_down(struct lithos_wave *w, size_t i)
{
    const struct wave_timer t = w->timers[i];
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= w->timer_count)
            break;
        if (child + 1 < w->timer_count && timer_before(&w->timers[child + 1], &w->timers[child]))
            child++;
        if (!timer_before(&w->timers[child], &t))
            break;
        w->timers[i] = w->timers[child];
        i = child;
    }
    w->timers[i] = t;
}

static void timer_add(struct lithos_wave *w, uint64_t at_ns, struct wave_op *op)
{
    if (w->timer_count == w->timer_room) {
        w->timer_room = w->timer_room ? 2 * w->timer_room : 64;
        w->timers = realloc(w->timers, w->timer_room * sizeof *w->timers);
        lithos_assert(w->timers);
    }
    const struct wave_timer t = {at_ns, w->seq++, op};
    size_t i = w->timer_count++;
    for (; i && timer_before(&t, &w->timers[(i - 1) / 2]); i = (i - 1) / 2)
        w->timers[i] = w->timers[(i - 1) / 2];
    w->timers[i] = t;
    op->timer = true;
}

static struct wave_op *timer_pop(struct lithos_wave *w)
{
    struct wave_op *op = w->timers[0].op;
    w->timers[0] = w->timers[--w->timer_count];
    if (w->timer_count)
        timer_sift_down(w, 0);
    op->timer = false;
    return op;
}

static void timer_drop(struct lithos_wave *w, struct wave_op *op)
{
    size_t i = 0;
    if (!op->timer)
        return;
    op->timer = false;
    while (w->timers[i].op != op)
        i++;
    w->timers[i] = w->timers[--w->timer_count];
    for (i = w->timer_count / 2; i-- > 0;)
        timer_sift_down(w, i);
}

static uint64_t timer_next_ns(const struct lithos_wave *w)
{
    return w->timer_count ? w->timers[0].at_ns : LITHOS_WAVE_NEVER;
}

/* --- events --- */

static void emit(struct lithos_wave *w, const struct wave_op *op, enum lithos_wave_event_kind kind)
{
    if (w->out_count == w->out_room) {
        const size_t room = w->out_room ? 2 * w->out_room : 64;
        struct lithos_wave_event *out = wave_alloc(room * sizeof *out);
        for (size_t i = 0; i < w->out_count; i++)
            out[i] = w->out[(w->out_first + i) % w->out_room];
        free(w->out);
        w->out = out;
        w->out_first = 0;
        w->out_room = room;
    }
    w->out[(w->out_first + w->out_count++) % w->out_room] =
        (struct lithos_wave_event){kind, op->launch.op, op->stream->user, op->start_ns, op->end_ns, op->ran};
}

/* --- the life of a launch --- */

/* Its next kernel is at the card. */
static void arrive(struct lithos_wave *w, struct wave_op *op)
{
    const struct lithos_wave_kernel *k = &op->launch.kernels[op->node];
    const struct lithos_topology *t = &w->card.topology;

    op->seq = w->seq++;
    op->k = k;
    if (op->node == 0) {
        op->start_ns = w->now_ns;
        wave_slice_active(w, op->stream->domain, 1);
    }
    if (!lithos_topology_has_room(t, op->launch.tpcs, k->cluster_blocks)) {
        op->state = WAVE_HUNG;
        emit(w, op, LITHOS_WAVE_HANG);
        return;
    }
    op->state = WAVE_PLACING;
    wave_op_arrive(w, op);
}

static void begin(struct lithos_wave *w, struct wave_op *op, uint64_t at_ns)
{
    op->state = WAVE_WAITING;
    if (at_ns > w->now_ns)
        timer_add(w, at_ns, op);
    else
        arrive(w, op);
}

/* Bring what may start now to the card: the head, or a chained launch behind one that has placed all its blocks. */
static void stream_kick(struct lithos_wave *w, struct lithos_wave_stream *s)
{
    const struct wave_op *before = NULL;
    for (struct wave_op *op = s->head; op; before = op, op = op->next) {
        if (op->state != WAVE_QUEUED)
            continue;
        if (before && !(op->launch.chained && before->state >= WAVE_PLACED &&
                        before->state <= WAVE_COMPLETE && before->node + 1 == before->launch.count))
            return;
        begin(w, op, LITHOS_MAX(op->submit_ns + w->card.launch_ns, w->now_ns) + op->launch.lead_ns);
        if (op->state < WAVE_PLACED)
            return;
    }
}

void wave_blocks_placed(struct lithos_wave *w, struct wave_op *op)
{
    op->state = WAVE_PLACED;
    if (op->next && op->next->launch.chained)
        stream_kick(w, op->stream);
}

void wave_blocks_ended(struct lithos_wave *w, struct wave_op *op)
{
    if (op->node + 1 < op->launch.count) {
        op->node++;
        begin(w, op, w->now_ns + w->config.node_gap_ns);
        return;
    }
    op->state = WAVE_ENDED;
    timer_add(w, w->now_ns + w->card.complete_ns, op);
}

static void op_free(struct lithos_wave *w, struct wave_op *op)
{
    op->next = w->free_ops;
    w->free_ops = op;
}

static void complete(struct lithos_wave *w, struct wave_op *op)
{
    struct lithos_wave_stream *s = op->stream;
    int done = 0;

    op->state = WAVE_COMPLETE;
    op->end_ns = w->now_ns;
    while (s->head && s->head->state == WAVE_COMPLETE) {
        struct wave_op *first = s->head;
        first->end_ns = w->now_ns; /* a chained one may have ended before one ahead of it */
        emit(w, first, LITHOS_WAVE_DONE);
        s->head = first->next;
        if (!s->head)
            s->tail = NULL;
        op_free(w, first);
        done++;
    }
    /* the next of the stream first, so that a domain with work queued keeps its turn */
    stream_kick(w, s);
    if (done)
        wave_slice_active(w, s->domain, -done);
}

static int check_kernel(const struct lithos_wave *w, const struct lithos_wave_kernel *k)
{
    if (!k->blocks || !k->residency || k->residency > 64 || !k->cluster_blocks || k->alone_ns > 1ull << 50)
        return -EINVAL;
    if (k->cluster_blocks > w->card.largest_cluster_blocks || k->blocks % k->cluster_blocks)
        return -EINVAL;
    if (k->share_ppm > LITHOS_WAVE_PPM || k->stagger_ppm > LITHOS_WAVE_PPM ||
        k->bandwidth_ppm > 4 * LITHOS_WAVE_PPM)
        return -EINVAL;
    return 0;
}

static void run(struct lithos_wave *w, uint64_t now_ns);

int lithos_wave_launch(struct lithos_wave *w, uint64_t now_ns, struct lithos_wave_stream *s,
                       const struct lithos_wave_launch *launch)
{
    if (!launch->count || (launch->count > 1 && (launch->blocks || launch->chained)))
        return -EINVAL;
    for (uint32_t i = 0; i < launch->count; i++) {
        const int r = check_kernel(w, &launch->kernels[i]);
        if (r < 0)
            return r;
    }
    if (launch->blocks > launch->kernels->blocks || launch->blocks % launch->kernels->cluster_blocks)
        return -EINVAL;
    run(w, now_ns);
    struct wave_op *op = w->free_ops;
    if (op)
        w->free_ops = op->next;
    else
        op = wave_alloc(sizeof *op);
    *op = (struct wave_op){.stream = s, .launch = *launch, .rank = s->rank, .submit_ns = w->now_ns};
    op->launch.tpcs = lithos_tpcset_and(op->launch.tpcs, w->card.topology.valid);
    if (s->tail)
        s->tail->next = op;
    else
        s->head = op;
    s->tail = op;
    stream_kick(w, s);
    return 0;
}

uint32_t lithos_wave_recall(struct lithos_wave *w, uint64_t now_ns, struct lithos_wave_stream *s)
{
    struct wave_op *last = NULL, *op;
    uint32_t count = 0;

    run(w, now_ns);
    for (op = s->head; op; op = op->next) {
        const bool untouched = op->node == 0 && op->left == op->blocks;
        if (op->state > WAVE_PLACING || !untouched)
            last = op;
    }
    op = last ? last->next : s->head;
    while (op) {
        struct wave_op *next = op->next;
        timer_drop(w, op);
        if (op->state == WAVE_PLACING) {
            wave_op_drop(w, op);
            wave_slice_active(w, s->domain, -1);
        }
        op_free(w, op);
        op = next;
        count++;
    }
    s->tail = last;
    if (last)
        last->next = NULL;
    else
        s->head = NULL;
    if (count)
        wave_place_all(w, s->domain);
    return count;
}

/* --- streams --- */

struct lithos_wave_domain *lithos_wave_domain_create(struct lithos_wave *w, uint64_t slice_ns)
{
    struct lithos_wave_domain *d = wave_alloc(sizeof *d);
    d->wave = w;
    d->slice_ns = slice_ns ? slice_ns : w->card.slice_ns;
    wave_domain_init(w, d);
    d->next = w->domains ? w->domains->next : d;
    if (w->domains)
        w->domains->next = d;
    w->domains = d;
    return d;
}

struct lithos_wave_stream *lithos_wave_stream_create(struct lithos_wave *w, struct lithos_wave_domain *d,
                                                     int32_t rank, void *user)
{
    struct lithos_wave_stream *s = wave_alloc(sizeof *s);
    *s = (struct lithos_wave_stream){.next = w->streams, .wave = w, .domain = d, .user = user, .rank = rank};
    w->streams = s;
    return s;
}

void lithos_wave_stream_set_rank(struct lithos_wave_stream *s, int32_t rank)
{
    s->rank = rank;
}

void lithos_wave_stream_kill(struct lithos_wave *w, uint64_t now_ns, struct lithos_wave_stream *s)
{
    int active = 0;

    run(w, now_ns);
    while (s->head) {
        struct wave_op *op = s->head;
        s->head = op->next;
        timer_drop(w, op);
        active += op->state >= WAVE_PLACING || op->node > 0;
        if (op->state == WAVE_PLACING || op->state == WAVE_PLACED)
            wave_op_drop(w, op);
        op_free(w, op);
    }
    struct lithos_wave_stream **at = &w->streams;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    if (active)
        wave_slice_active(w, s->domain, -active);
    wave_place_all(w, s->domain);
    /* nothing is told of a stream that is gone */
    size_t kept = 0;
    for (size_t i = 0; i < w->out_count; i++) {
        const struct lithos_wave_event e = w->out[(w->out_first + i) % w->out_room];
        if (e.user != s->user)
            w->out[(w->out_first + kept++) % w->out_room] = e;
    }
    w->out_count = kept;
    free(s);
}

/* --- time --- */

/* The next thing that happens, if that is by then. */
static bool step(struct lithos_wave *w, uint64_t until_ns, lithos_wave_passes *passes)
{
    const uint64_t blocks = wave_cells_next_ns(w), timer = timer_next_ns(w);
    const uint64_t next = LITHOS_MIN(LITHOS_MIN(blocks, timer), w->phase_end_ns);

    if (next == LITHOS_WAVE_NEVER || next > until_ns)
        return false;
    if (passes)
        passes(w->config.ctx, next);
    w->now_ns = LITHOS_MAX(w->now_ns, next);
    if (next == blocks) {
        wave_cells_step(w);
    } else if (next == timer) {
        struct wave_op *op = timer_pop(w);
        if (op->state == WAVE_ENDED)
            complete(w, op);
        else
            arrive(w, op);
    } else {
        wave_slice_timer(w);
    }
    return true;
}

static void run(struct lithos_wave *w, uint64_t now_ns)
{
    while (step(w, now_ns, NULL))
        ;
    w->now_ns = LITHOS_MAX(w->now_ns, now_ns);
}

bool lithos_wave_until(struct lithos_wave *w, uint64_t until_ns, uint64_t *ret_ns)
{
    while (!w->out_count && step(w, until_ns, w->config.passes))
        ;
    *ret_ns = w->now_ns;
    return w->out_count > 0;
}

uint64_t lithos_wave_next_ns(const struct lithos_wave *w)
{
    if (w->out_count)
        return w->now_ns;
    const uint64_t next = LITHOS_MIN(wave_cells_next_ns(w), timer_next_ns(w));
    return LITHOS_MIN(next, w->phase_end_ns);
}

size_t lithos_wave_advance(struct lithos_wave *w, uint64_t now_ns, struct lithos_wave_event *events,
                           size_t max)
{
    run(w, now_ns);
    const size_t n = LITHOS_MIN(w->out_count, max);
    for (size_t i = 0; i < n; i++) {
        events[i] = w->out[w->out_first];
        w->out_first = (w->out_first + 1) % w->out_room;
    }
    w->out_count -= n;
    return n;
}

int lithos_wave_create(const struct lithos_wave_config *config, struct lithos_wave **ret_wave)
{
    char error[LITHOS_MODEL_ERROR_BYTES];
    const int r = lithos_card_validate(config->card, error);
    if (r < 0)
        return r;
    struct lithos_wave *w = calloc(1, sizeof *w);
    if (!w)
        return -ENOMEM;
    w->card = *config->card;
    w->config = *config;
    w->config.card = &w->card;
    w->sms = lithos_card_sms(&w->card);
    w->phase_end_ns = LITHOS_WAVE_NEVER;
    w->clock_ppm = LITHOS_WAVE_PPM;
    *ret_wave = w;
    return 0;
}

void lithos_wave_destroy(struct lithos_wave *w)
{
    if (!w)
        return;
    while (w->streams)
        lithos_wave_stream_kill(w, w->now_ns, w->streams);
    while (w->free_ops) {
        struct wave_op *op = w->free_ops;
        w->free_ops = op->next;
        free(op);
    }
    for (struct lithos_wave_domain *d = w->domains ? w->domains->next : NULL, *next; d; d = next) {
        next = d == w->domains ? NULL : d->next;
        wave_domain_free(d);
        free(d);
    }
    while (w->free_cells) {
        struct wave_cell *c = w->free_cells;
        w->free_cells = c->groups[0].op ? (struct wave_cell *)(void *)c->groups[0].op : NULL;
        free(c);
    }
    free(w->timers);
    free(w->out);
    free(w);
}

uint64_t lithos_wave_duration_ns(const struct lithos_card *card, const struct lithos_wave_kernel *kernel,
                                 uint32_t blocks, uint32_t residency, uint32_t tpcs)
{
    const uint32_t sms = LITHOS_MAX(tpcs, 1u) * card->topology.sms_per_tpc;
    const uint32_t each = residency ? LITHOS_MIN(residency, kernel->residency) : kernel->residency;
    const uint64_t wave = (uint64_t)sms * each, waves = blocks / wave;
    const uint32_t last = (uint32_t)((blocks - waves * wave + sms - 1) / sms);
    const uint64_t full_ppm = LITHOS_MAX((uint64_t)each * kernel->share_ppm, LITHOS_WAVE_PPM);
    const uint64_t last_ppm = LITHOS_MAX((uint64_t)last * kernel->share_ppm, LITHOS_WAVE_PPM);

    return waves * wave_mul_div(kernel->alone_ns, full_ppm, LITHOS_WAVE_PPM) +
           (last ? wave_mul_div(kernel->alone_ns, last_ppm, LITHOS_WAVE_PPM) : 0);
}

void lithos_wave_set_clock(struct lithos_wave *w, uint64_t now_ns, uint32_t clock_ppm)
{
    struct lithos_wave_domain *d = w->domains;

    lithos_assert(clock_ppm > 0 && clock_ppm <= LITHOS_WAVE_PPM && now_ns >= w->now_ns);
    w->now_ns = now_ns; /* advanced to before: nothing happens in between */
    w->clock_ppm = clock_ppm;
    do {
        if (d)
            wave_domain_clocked(w, d);
        d = d ? d->next : NULL;
    } while (d && d != w->domains);
}

struct lithos_power_load lithos_wave_load(const struct lithos_wave *w)
{
    if (!w->current || !w->current->running)
        return (struct lithos_power_load){0};
    return wave_domain_load(w, w->current);
}
