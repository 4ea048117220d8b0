/* What a predictor is made of, and where in its memory the parts lie. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "core/predict_internal.h"

#define ENTRIES_MAX (1u << 20)
#define TPCS_MAX 65535u
#define ALIGNMENT 64u
#define METHODS_ALL ((1u << LITHOS_PREDICT_METHOD_MAX) - 1)

static_assert(sizeof(struct lithos_predict_ticket) == 80, "what predict.h says");
static_assert(sizeof(struct lithos_predict_operator) == 320 && sizeof(struct lithos_predict_set) == 64,
              "what predict.h says");

/* Before the first estimate of a kind has been put to the test; medians have their own measure, and this none. */
static const float kind_error_first[LITHOS_PREDICT_KIND_MAX] = {
    [LITHOS_PREDICT_KIND_FITTED] = 0.1f,
    [LITHOS_PREDICT_KIND_LINEAR] = 0.3f,
    [LITHOS_PREDICT_KIND_WAVES] = 0.4f,
};

/* Where the parts lie, from the first aligned byte. */
struct layout {
    size_t set[LITHOS_PREDICT_METHOD_MAX], op[LITHOS_PREDICT_METHOD_MAX];
    size_t function_set, function, stream_set, stream, end;
};

void lithos_predict_config_defaults(struct lithos_predict_config *config)
{
    config->ordinals = config->shapes = config->contexts = config->paths = 4096;
    config->functions = 1024;
    config->streams = 64;
    config->window = 9;
    config->context_depth = 2;
    config->path_depth = 64;
    config->miss_ns = 50 * LITHOS_NSEC_PER_USEC;
    config->methods = METHODS_ALL;
}

static bool entries_valid(uint32_t entries)
{
    return entries > 0 && entries <= ENTRIES_MAX;
}

static bool config_valid(const struct lithos_predict_config *c)
{
    return c->tpcs > 0 && c->tpcs <= TPCS_MAX && c->sms_per_tpc > 0 && c->sm_threads > 0 &&
           c->sm_blocks > 0 && c->sm_registers > 0 && c->sm_shared_bytes > 0 && c->warp_register_unit > 0 &&
           entries_valid(c->ordinals) && entries_valid(c->shapes) && entries_valid(c->contexts) &&
           entries_valid(c->paths) && entries_valid(c->functions) && entries_valid(c->streams) &&
           c->window > 0 && c->window <= LITHOS_PREDICT_WINDOW_MAX && c->context_depth > 0 &&
           c->context_depth <= LITHOS_PREDICT_PATH_MAX && c->path_depth > 0 &&
           c->path_depth <= LITHOS_PREDICT_PATH_MAX && c->methods > 0 && c->methods <= METHODS_ALL;
}

static uint32_t whole_sets(uint32_t entries)
{
    return (entries + LITHOS_PREDICT_WAYS - 1) / LITHOS_PREDICT_WAYS * LITHOS_PREDICT_WAYS;
}

static size_t place(size_t *end, size_t count, size_t bytes)
{
    const size_t at = (*end + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    *end = at + count * bytes;
    return at;
}

static size_t place_sets(size_t *end, uint32_t entries)
{
    return place(end, entries / LITHOS_PREDICT_WAYS, sizeof(struct lithos_predict_set));
}

static void round_up(struct lithos_predict_config *c, uint32_t ret_entries[LITHOS_PREDICT_METHOD_MAX])
{
    c->functions = whole_sets(c->functions);
    c->streams = whole_sets(c->streams);
    ret_entries[LITHOS_PREDICT_BY_ORDINAL] = c->ordinals = whole_sets(c->ordinals);
    ret_entries[LITHOS_PREDICT_BY_SHAPE] = c->shapes = whole_sets(c->shapes);
    ret_entries[LITHOS_PREDICT_BY_CONTEXT] = c->contexts = whole_sets(c->contexts);
    ret_entries[LITHOS_PREDICT_BY_PATH] = c->paths = whole_sets(c->paths);
}

static void lay_out(const struct lithos_predict_config *c, const uint32_t *entries, struct layout *l)
{
    size_t end = sizeof(struct lithos_predictor);
    for (unsigned m = 0; m < LITHOS_PREDICT_METHOD_MAX; m++) {
        l->set[m] = place_sets(&end, entries[m]);
        l->op[m] = place(&end, entries[m], sizeof(struct lithos_predict_operator));
    }
    l->function_set = place_sets(&end, c->functions);
    l->function = place(&end, c->functions, sizeof(struct lithos_predict_function));
    l->stream_set = place_sets(&end, c->streams);
    l->stream = place(&end, c->streams, sizeof(struct lithos_predict_stream));
    l->end = end;
}

int lithos_predictor_size(const struct lithos_predict_config *config, size_t *ret_bytes)
{
    struct lithos_predict_config c = *config;
    uint32_t entries[LITHOS_PREDICT_METHOD_MAX];
    struct layout l;

    if (!config_valid(config))
        return -EINVAL;
    round_up(&c, entries);
    lay_out(&c, entries, &l);
    *ret_bytes = l.end + ALIGNMENT - 1;
    return 0;
}

int lithos_predictor_init(void *mem, size_t bytes, const struct lithos_predict_config *config,
                          struct lithos_predictor **ret_predictor)
{
    uint32_t entries[LITHOS_PREDICT_METHOD_MAX];
    struct lithos_predictor *p;
    struct layout l;
    size_t needed;
    uint8_t *base;
    int r;

    r = lithos_predictor_size(config, &needed);
    if (r < 0)
        return r;
    if (bytes < needed)
        return -ENOSPC;
    base = (uint8_t *)mem + (ALIGNMENT - (uintptr_t)mem % ALIGNMENT) % ALIGNMENT;
    p = (struct lithos_predictor *)base;
    memset(p, 0, sizeof(*p));
    p->config = *config;
    round_up(&p->config, entries);
    lay_out(&p->config, entries, &l);
    for (unsigned m = 0; m < LITHOS_PREDICT_METHOD_MAX; m++) {
        lithos_predict_table_init(&p->table[m], (struct lithos_predict_set *)(base + l.set[m]), entries[m],
                                  &p->stats.forgotten);
        p->op[m] = (struct lithos_predict_operator *)(base + l.op[m]);
    }
    lithos_predict_table_init(&p->function_table, (struct lithos_predict_set *)(base + l.function_set),
                              p->config.functions, &p->stats.forgotten_functions);
    p->function = (struct lithos_predict_function *)(base + l.function);
    lithos_predict_table_init(&p->stream_table, (struct lithos_predict_set *)(base + l.stream_set),
                              p->config.streams, &p->stats.forgotten_streams);
    p->stream = (struct lithos_predict_stream *)(base + l.stream);
    for (unsigned k = 0; k < LITHOS_PREDICT_KIND_MAX; k++)
        p->kind_error[k] = kind_error_first[k];
    p->path_leaves = 1;
    for (uint32_t i = 0; i < p->config.path_depth; i++)
        p->path_leaves *= LITHOS_PREDICT_PATH_FACTOR;
    *ret_predictor = p;
    return 0;
}
