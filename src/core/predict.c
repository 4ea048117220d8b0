#include "core/predict.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "core/predict_internal.h"

#define WARP_THREADS 32u
/* What an error of a fifth of miss_ns means is for the caller to forget. */
#define NEGLIGIBLE_PART 0.2f

/* The methods, the one that knows most about a launch first. */
static const uint8_t particular_first[LITHOS_PREDICT_METHOD_MAX] = {
    LITHOS_PREDICT_BY_PATH,
    LITHOS_PREDICT_BY_CONTEXT,
    LITHOS_PREDICT_BY_ORDINAL,
    LITHOS_PREDICT_BY_SHAPE,
};

/* Launches after which an operator has a say on how the methods fare with it. */
#define JUDGE_LAUNCHES 2u
/* Weight of a new error of a kind, and the largest that counts. */
#define KIND_ERROR_WEIGHT 0.05f
#define KIND_ERROR_MOST 2.0f

/* The shape of a launch. */

static uint32_t product(const uint32_t dim[3])
{
    uint64_t n = 1;
    for (unsigned i = 0; i < 3; i++) {
        if (dim[i] > 1)
            n *= dim[i]; /* below 2^64: two factors of 32 bits */
        n = LITHOS_MIN(n, UINT32_MAX);
    }
    return (uint32_t)n;
}

static uint64_t hash_shape(const struct lithos_kernel_shape *s)
{
    uint64_t h = lithos_predict_mix(s->function, (uint64_t)s->grid[0] << 32 | s->grid[1]);
    h = lithos_predict_mix(h, (uint64_t)s->grid[2] << 32 | s->block[0]);
    h = lithos_predict_mix(h, (uint64_t)s->block[1] << 32 | s->block[2]);
    return lithos_predict_mix(h,
                              ((uint64_t)s->shared_bytes << 32 | s->registers) ^ (uint64_t)s->cluster << 20);
}

/* Blocks that an SM holds at once, at least 1. */
static uint32_t occupancy(const struct lithos_predict_config *c, const struct lithos_kernel_shape *s)
{
    const uint32_t warps =
        LITHOS_MAX((uint32_t)(((uint64_t)product(s->block) + WARP_THREADS - 1) / WARP_THREADS), 1u);
    const uint64_t unit = c->warp_register_unit;
    const uint64_t warp_registers = ((uint64_t)s->registers * WARP_THREADS + unit - 1) / unit * unit;
    const uint64_t shared = (uint64_t)s->shared_bytes + c->block_shared_reserved_bytes;
    uint64_t n = LITHOS_MIN(c->sm_blocks, c->sm_threads / WARP_THREADS / warps);

    if (warp_registers)
        n = LITHOS_MIN(n, c->sm_registers / warp_registers / warps);
    if (shared)
        n = LITHOS_MIN(n, c->sm_shared_bytes / shared);
    return (uint32_t)LITHOS_MAX(n, 1u);
}

/* More TPCs than one for each so many blocks as it has SMs are of no use to a grid: such widths are one width. */
static uint16_t width_of(const struct lithos_predictor *p, uint32_t useful_tpcs, uint32_t tpcs)
{
    if (tpcs == 0 || tpcs > p->config.tpcs)
        tpcs = p->config.tpcs;
    return (uint16_t)LITHOS_MIN(tpcs, useful_tpcs);
}

/* Streams. */

static struct lithos_predict_stream *find_stream(struct lithos_predictor *p, uint64_t id)
{
    bool new;
    struct lithos_predict_stream *s =
        &p->stream[lithos_predict_table_get(&p->stream_table, lithos_predict_mix(id, 0), &new)];
    if (new || s->epoch != p->epoch)
        *s = (struct lithos_predict_stream){.epoch = p->epoch};
    return s;
}

static uint64_t hash_context(const struct lithos_predictor *p, const struct lithos_predict_stream *s,
                             uint64_t shape)
{
    uint64_t h = shape;
    for (uint32_t i = 1; i <= p->config.context_depth; i++)
        h = lithos_predict_mix(h, s->before[(s->place - i) % LITHOS_PREDICT_PATH_MAX]);
    return h;
}

static void step(const struct lithos_predictor *p, struct lithos_predict_stream *s, uint64_t shape)
{
    const uint64_t leaves = s->before[(s->place - p->config.path_depth) % LITHOS_PREDICT_PATH_MAX];
    s->path = s->path * LITHOS_PREDICT_PATH_FACTOR + shape - leaves * p->path_leaves;
    s->before[s->place++ % LITHOS_PREDICT_PATH_MAX] = shape;
}

void lithos_predictor_sync(struct lithos_predictor *p, uint64_t stream)
{
    *find_stream(p, stream) = (struct lithos_predict_stream){.epoch = p->epoch};
}

void lithos_predictor_sync_all(struct lithos_predictor *p)
{
    p->epoch++;
}

/* Predicting. */

static bool function_known(const struct lithos_predictor *p, const struct lithos_predict_ticket *t)
{
    return lithos_predict_table_holds(&p->function_table, t->function, t->function_tag);
}

static void estimate(const struct lithos_predictor *p, const struct lithos_predict_ticket *t, uint16_t width,
                     struct lithos_predict_estimate ret_estimate[LITHOS_PREDICT_METHOD_MAX])
{
    struct lithos_predict_estimate *shape = &ret_estimate[LITHOS_PREDICT_BY_SHAPE];

    for (unsigned m = 0; m < LITHOS_PREDICT_METHOD_MAX; m++) {
        ret_estimate[m] = (struct lithos_predict_estimate){0};
        if (lithos_predict_table_holds(&p->table[m], t->op[m], t->tag[m]))
            lithos_predict_operator_estimate(&p->op[m][t->op[m]], width, &ret_estimate[m]);
    }
    if (shape->kind == LITHOS_PREDICT_KIND_NONE && function_known(p, t))
        lithos_predict_function_estimate(
            &p->function[t->function],
            lithos_predict_waves(t->blocks, t->blocks_per_sm, width, p->config.sms_per_tpc), shape);
    for (unsigned m = 0; m < LITHOS_PREDICT_METHOD_MAX; m++)
        ret_estimate[m].guess += p->kind_error[ret_estimate[m].kind];
}

static enum lithos_predict_source source_of(enum lithos_predict_kind kind, unsigned method)
{
    static const enum lithos_predict_source exact[LITHOS_PREDICT_METHOD_MAX] = {
        [LITHOS_PREDICT_BY_ORDINAL] = LITHOS_PREDICT_ORDINAL,
        [LITHOS_PREDICT_BY_SHAPE] = LITHOS_PREDICT_SHAPE,
        [LITHOS_PREDICT_BY_CONTEXT] = LITHOS_PREDICT_CONTEXT,
        [LITHOS_PREDICT_BY_PATH] = LITHOS_PREDICT_PATH,
    };
    switch (kind) {
    case LITHOS_PREDICT_KIND_EXACT:
        return exact[method];
    case LITHOS_PREDICT_KIND_FITTED:
        return LITHOS_PREDICT_FITTED;
    case LITHOS_PREDICT_KIND_LINEAR:
        return LITHOS_PREDICT_LINEAR;
    case LITHOS_PREDICT_KIND_WAVES:
        return LITHOS_PREDICT_WAVES;
    case LITHOS_PREDICT_KIND_NONE:
    case LITHOS_PREDICT_KIND_MAX:
        break;
    }
    return LITHOS_PREDICT_NONE;
}

static bool usable(const struct lithos_predictor *p, const struct lithos_predict_ticket *t,
                   const struct lithos_predict_estimate *e, unsigned method)
{
    if (e[method].kind == LITHOS_PREDICT_KIND_NONE || !(p->config.methods >> method & 1))
        return false;
    /* A place whose last kernel was another says nothing of this one. */
    return method != LITHOS_PREDICT_BY_ORDINAL ||
           p->op[method][t->op[method]].shape == t->tag[LITHOS_PREDICT_BY_SHAPE];
}

/* Whose record tells how the methods fare with such a launch: the most particular operator that has one. Errors
 * are compared on the same launches there. Over all launches of a shape its median may have been right for long,
 * and yet be wrong each time that this launch comes. */
static const struct lithos_predict_operator *judge(const struct lithos_predictor *p,
                                                   const struct lithos_predict_ticket *t,
                                                   const struct lithos_predict_estimate *e)
{
    for (unsigned i = 0; i < LITHOS_PREDICT_METHOD_MAX; i++) {
        const unsigned m = particular_first[i];
        if (m != LITHOS_PREDICT_BY_ORDINAL && (p->config.methods >> m & 1) &&
            e[m].kind != LITHOS_PREDICT_KIND_NONE && e[m].kind != LITHOS_PREDICT_KIND_WAVES &&
            p->op[m][t->op[m]].observed >= JUDGE_LAUNCHES)
            return &p->op[m][t->op[m]];
    }
    return NULL;
}

/* Error of a method as the judge has it or as its own operator has, whichever is larger: a few launches may have
 * gone well by chance. 0: nothing measured. */
static float measured_ns(const struct lithos_predictor *p, const struct lithos_predict_ticket *t,
                         const struct lithos_predict_operator *by, unsigned method)
{
    float error_ns = by ? LITHOS_MAX(by->error_ns[method], 0.0f) : 0;
    if (lithos_predict_table_holds(&p->table[method], t->op[method], t->tag[method]))
        error_ns = LITHOS_MAX(error_ns, p->op[method][t->op[method]].error_ns[method]);
    return error_ns;
}

/* The estimate with the least expected error; of equal ones the one that knows most about the launch. What is
 * guessed counts as a share of one duration for all, or the shortest estimate would win. */
static void choose(const struct lithos_predictor *p, const struct lithos_predict_ticket *t,
                   const struct lithos_predict_estimate *e, struct lithos_prediction *ret_prediction)
{
    const struct lithos_predict_operator *by = judge(p, t, e);
    const struct lithos_predict_estimate *best = NULL;
    unsigned method = LITHOS_PREDICT_BY_SHAPE;
    float longest_ns = 0, best_measured_ns = 0, least_ns = 0;

    for (unsigned m = 0; m < LITHOS_PREDICT_METHOD_MAX; m++) {
        if (usable(p, t, e, m))
            longest_ns = LITHOS_MAX(longest_ns, e[m].duration_ns);
    }
    for (unsigned i = 0; i < LITHOS_PREDICT_METHOD_MAX; i++) {
        const unsigned m = particular_first[i];
        if (!usable(p, t, e, m))
            continue;
        const float error_ns = measured_ns(p, t, by, m), expected_ns = error_ns + e[m].guess * longest_ns;
        if (!best || expected_ns < least_ns) {
            best = &e[m];
            best_measured_ns = error_ns;
            least_ns = expected_ns;
            method = m;
        }
    }
    *ret_prediction = (struct lithos_prediction){.method = (enum lithos_predict_method)method};
    if (!best)
        return;
    const float n = (float)best->samples;
    const float whole_ns = best->duration_ns + NEGLIGIBLE_PART * (float)p->config.miss_ns + 1;
    const float error_ns = best_measured_ns + best->guess * best->duration_ns;
    ret_prediction->duration_ns = (uint64_t)best->duration_ns;
    ret_prediction->confidence = n / (n + 1) / (1 + 2 * error_ns / whole_ns);
    ret_prediction->source = source_of(best->kind, method);
}

/* The entry of one method's operator, begun anew when it was another's. */
static void find_operator(struct lithos_predictor *p, unsigned method, uint64_t hash,
                          struct lithos_predict_ticket *t)
{
    bool new;
    const uint32_t at = lithos_predict_table_get(&p->table[method], hash, &new);
    if (new)
        lithos_predict_operator_begin(&p->op[method][at]);
    t->op[method] = at;
    t->tag[method] = lithos_predict_tag(hash);
}

static void find_function(struct lithos_predictor *p, uint64_t hash, struct lithos_predict_ticket *t)
{
    bool new;
    t->function = lithos_predict_table_get(&p->function_table, hash, &new);
    t->function_tag = lithos_predict_tag(hash);
    if (new)
        memset(&p->function[t->function], 0, sizeof(p->function[t->function]));
}

static void recognise(struct lithos_predictor *p, uint64_t stream, const struct lithos_kernel_shape *shape,
                      struct lithos_predict_ticket *t)
{
    struct lithos_predict_stream *s = find_stream(p, stream);
    const uint64_t h = hash_shape(shape);

    if (s->place < p->config.ordinals) {
        find_operator(p, LITHOS_PREDICT_BY_ORDINAL, lithos_predict_mix(stream, s->place), t);
    } else {
        t->op[LITHOS_PREDICT_BY_ORDINAL] = LITHOS_PREDICT_NOWHERE;
        p->stats.past_ordinals++;
    }
    find_operator(p, LITHOS_PREDICT_BY_SHAPE, h, t);
    find_operator(p, LITHOS_PREDICT_BY_CONTEXT, hash_context(p, s, h), t);
    find_operator(p, LITHOS_PREDICT_BY_PATH, lithos_predict_mix(s->path, h), t);
    find_function(p, lithos_predict_mix(shape->function, 1), t);
    step(p, s, h);
}

void lithos_predictor_submit(struct lithos_predictor *p, uint64_t stream,
                             const struct lithos_kernel_shape *shape, uint32_t tpcs,
                             struct lithos_prediction *ret_prediction,
                             struct lithos_predict_ticket *ret_ticket)
{
    struct lithos_predict_ticket t = {.blocks = product(shape->grid),
                                      .blocks_per_sm = occupancy(&p->config, shape)};
    struct lithos_predict_estimate e[LITHOS_PREDICT_METHOD_MAX];
    struct lithos_prediction answer;

    p->stats.submitted++;
    t.useful_tpcs = (uint16_t)LITHOS_MIN(
        ((uint64_t)t.blocks + p->config.sms_per_tpc - 1) / p->config.sms_per_tpc, p->config.tpcs);
    t.width = width_of(p, t.useful_tpcs, tpcs);
    recognise(p, stream, shape, &t);
    estimate(p, &t, t.width, e);
    choose(p, &t, e, &answer);
    for (unsigned m = 0; m < LITHOS_PREDICT_METHOD_MAX; m++) {
        t.estimate_ns[m] = e[m].kind == LITHOS_PREDICT_KIND_NONE ? -1 : e[m].duration_ns;
        t.kind[m] = (uint8_t)e[m].kind;
    }
    t.answer_ns = answer.source == LITHOS_PREDICT_NONE ? -1 : (float)answer.duration_ns;
    t.source = (uint8_t)answer.source;
    t.method = (uint8_t)answer.method;
    *ret_prediction = answer;
    *ret_ticket = t;
}

void lithos_predictor_what_if(const struct lithos_predictor *p, const struct lithos_predict_ticket *ticket,
                              uint32_t tpcs, struct lithos_prediction *ret_prediction)
{
    struct lithos_predict_estimate e[LITHOS_PREDICT_METHOD_MAX];
    estimate(p, ticket, width_of(p, ticket->useful_tpcs, tpcs), e);
    choose(p, ticket, e, ret_prediction);
}

/* Learning. */

static unsigned error_slot(uint64_t error_ns)
{
    unsigned slot = (unsigned)error_ns;
    if (error_ns >= 8) {
        const unsigned octave = 63u - (unsigned)__builtin_clzll(error_ns);
        slot = (octave - 2) * 8 + (unsigned)(error_ns >> (octave - 3) & 7);
    }
    return LITHOS_MIN(slot, LITHOS_PREDICT_ERROR_SLOTS - 1);
}

static float error_of(float answer_ns, float duration_ns)
{
    return answer_ns < 0 ? duration_ns : __builtin_fabsf(answer_ns - duration_ns);
}

/* True when it was off. */
static bool mark(struct lithos_predict_score *score, float answer_ns, float duration_ns, uint64_t miss_ns)
{
    const bool off = error_of(answer_ns, duration_ns) > (float)miss_ns;
    score->launches++;
    score->silent += answer_ns < 0;
    score->off += off;
    return off;
}

static void mark_all(struct lithos_predictor *p, const struct lithos_predict_ticket *t, float duration_ns)
{
    const uint64_t miss_ns = p->config.miss_ns;
    const unsigned source = LITHOS_MIN(t->source, LITHOS_PREDICT_SOURCE_MAX - 1);

    p->stats.source[source]++;
    p->stats.source_off[source] += mark(&p->stats.chosen, t->answer_ns, duration_ns, miss_ns);
    p->stats.error[error_slot((uint64_t)error_of(t->answer_ns, duration_ns))]++;
    for (unsigned m = 0; m < LITHOS_PREDICT_METHOD_MAX; m++)
        mark(&p->stats.method[m], t->estimate_ns[m], duration_ns, miss_ns);
}

/* How far off the methods were that knew the width, negative for others. Of those that did not, the most particular
 * one tells how good its kind of estimate is: the others may have been wrong for another reason. */
static void score(struct lithos_predictor *p, const struct lithos_predict_ticket *t, float duration_ns,
                  float ret_error_ns[LITHOS_PREDICT_METHOD_MAX])
{
    bool told[LITHOS_PREDICT_KIND_MAX] = {
        [LITHOS_PREDICT_KIND_NONE] = true, [LITHOS_PREDICT_KIND_EXACT] = true};

    for (unsigned i = 0; i < LITHOS_PREDICT_METHOD_MAX; i++) {
        const unsigned m = particular_first[i], kind = t->kind[m];
        const float error_ns = error_of(t->estimate_ns[m], duration_ns);

        ret_error_ns[m] = kind == LITHOS_PREDICT_KIND_EXACT ? error_ns : -1;
        if (kind < LITHOS_PREDICT_KIND_MAX && !told[kind]) {
            const float share = LITHOS_MIN(error_ns / (duration_ns + 1), KIND_ERROR_MOST);
            p->kind_error[kind] += KIND_ERROR_WEIGHT * (share - p->kind_error[kind]);
            told[kind] = true;
        }
    }
}

static void learn(struct lithos_predictor *p, unsigned method, const struct lithos_predict_ticket *t,
                  uint16_t width, float duration_ns, const float *error_ns)
{
    struct lithos_predict_operator *op;
    float median_ns;

    if (t->op[method] == LITHOS_PREDICT_NOWHERE)
        return;
    if (!lithos_predict_table_holds(&p->table[method], t->op[method], t->tag[method])) {
        p->stats.late++;
        return;
    }
    op = &p->op[method][t->op[method]];
    if (width == t->width)
        lithos_predict_operator_score(op, error_ns);
    p->stats.changes += lithos_predict_operator_add(op, width, duration_ns, p->config.window, &median_ns);
    op->shape = t->tag[LITHOS_PREDICT_BY_SHAPE];
    if (method == LITHOS_PREDICT_BY_SHAPE && function_known(p, t))
        lithos_predict_function_add(
            &p->function[t->function], t->blocks,
            lithos_predict_waves(t->blocks, t->blocks_per_sm, width, p->config.sms_per_tpc), median_ns);
}

int lithos_predictor_observe(struct lithos_predictor *p, const struct lithos_predict_ticket *ticket,
                             uint64_t duration_ns, uint32_t tpcs)
{
    const uint16_t width = width_of(p, ticket->useful_tpcs, tpcs);
    float error_ns[LITHOS_PREDICT_METHOD_MAX];

    if (duration_ns > LITHOS_PREDICT_DURATION_MAX_NS) {
        p->stats.refused++;
        return -ERANGE;
    }
    if (width == ticket->width) {
        mark_all(p, ticket, (float)duration_ns);
        score(p, ticket, (float)duration_ns, error_ns);
    } else {
        p->stats.other_width++;
    }
    for (unsigned m = 0; m < LITHOS_PREDICT_METHOD_MAX; m++)
        learn(p, m, ticket, width, (float)duration_ns, error_ns);
    return 0;
}

/* Telling. */

const struct lithos_predict_stats *lithos_predictor_stats(const struct lithos_predictor *p)
{
    return &p->stats;
}

uint64_t lithos_predict_error_quantile_ns(const uint64_t error[LITHOS_PREDICT_ERROR_SLOTS], double q)
{
    uint64_t all = 0, seen = 0;

    for (unsigned slot = 0; slot < LITHOS_PREDICT_ERROR_SLOTS; slot++)
        all += error[slot];
    const double rank = (q > 0 ? q < 1 ? q : 1 : 0) * (double)all;
    for (unsigned slot = 0; slot < LITHOS_PREDICT_ERROR_SLOTS; slot++) {
        seen += error[slot];
        if (seen && (double)seen >= rank)
            return slot < 8 ? slot : ((uint64_t)(slot % 8 + 9) << (slot / 8 - 1)) - 1;
    }
    return 0;
}

const char *lithos_predict_source_name(enum lithos_predict_source source)
{
    static const char *const names[LITHOS_PREDICT_SOURCE_MAX] = {
        [LITHOS_PREDICT_NONE] = "none",     [LITHOS_PREDICT_ORDINAL] = "ordinal",
        [LITHOS_PREDICT_SHAPE] = "shape",   [LITHOS_PREDICT_CONTEXT] = "context",
        [LITHOS_PREDICT_PATH] = "path",     [LITHOS_PREDICT_FITTED] = "fitted",
        [LITHOS_PREDICT_LINEAR] = "linear", [LITHOS_PREDICT_WAVES] = "waves",
    };
    return (unsigned)source < LITHOS_PREDICT_SOURCE_MAX ? names[source] : "unknown";
}
