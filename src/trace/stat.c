#include "trace/stat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/quantile.h"
#include "base/util.h"
#include "trace/intern.h"

#define MANY (1u << 30)
#define BYTES UINT32_MAX

struct key {
    uint64_t tenant, stream;
    uint32_t pid, gpu;
    char function[LITHOS_TRACE_STRING_MAX];
};

/* Of tenants and GPUs whose name is not told; not to be freed. */
static const char nameless[] = "";

struct samples {
    double *values;
    size_t count, room;
};

struct lithos_trace_stat {
    enum lithos_trace_by by;
    struct lithos_trace_summary summary;
    /* entries of a table and elements of the array beside it have the same numbers */
    struct lithos_intern row_keys, drop_keys, gpu_keys, tenant_keys;
    struct lithos_trace_row *rows, *sorted;
    struct samples *samples;
    struct lithos_trace_drop_count *drops;
    struct lithos_trace_gpu_figures *gpus;
    struct lithos_trace_tenant *tenants;
    size_t row_room, sample_room, drop_room, gpu_room, tenant_room;
    struct key key; /* in hand: too large for a stack */
};

struct lithos_trace_stat *lithos_trace_stat_new(enum lithos_trace_by by)
{
    struct lithos_trace_stat *s = calloc(1, sizeof(*s));

    if (!s)
        return NULL;
    s->by = by;
    lithos_intern_init(&s->row_keys, MANY, BYTES);
    lithos_intern_init(&s->drop_keys, MANY, BYTES);
    lithos_intern_init(&s->gpu_keys, MANY, BYTES);
    lithos_intern_init(&s->tenant_keys, MANY, BYTES);
    return s;
}

static void free_name(const char *name)
{
    if (name != nameless)
        free((char *)name);
}

void lithos_trace_stat_free(struct lithos_trace_stat *s)
{
    if (!s)
        return;
    for (uint32_t i = 0; i < s->row_keys.count; i++)
        free(s->samples[i].values);
    for (uint32_t i = 0; i < s->gpu_keys.count; i++)
        free_name(s->gpus[i].gpu.name);
    for (uint32_t i = 0; i < s->tenant_keys.count; i++)
        free_name(s->tenants[i].name);
    lithos_intern_finish(&s->row_keys);
    lithos_intern_finish(&s->drop_keys);
    lithos_intern_finish(&s->gpu_keys);
    lithos_intern_finish(&s->tenant_keys);
    free(s->rows);
    free(s->sorted);
    free(s->samples);
    free(s->drops);
    free(s->gpus);
    free(s->tenants);
    free(s);
}

/* Room for `count` elements of `size` bytes. */
static int grow(void *array, size_t *room, size_t count, size_t size)
{
    void *before, *after;

    if (count <= *room)
        return 0;
    size_t more = LITHOS_MAX(*room * 2, (size_t)16);
    memcpy(&before, array, sizeof(before)); /* the array's own type is the caller's */
    after = reallocarray(before, more, size);
    if (!after)
        return -ENOMEM;
    memcpy(array, &after, sizeof(after));
    *room = more;
    /* cppcheck-suppress memleak ; it went into the array */
    return 0;
}

/* The entry of a key and whether it is new: then the element beside it has room and is the caller's to fill. */
static int entry_of(struct lithos_intern *keys, const void *key, size_t len, void *array, size_t *room,
                    size_t size, uint32_t *ret_entry)
{
    uint32_t entry = lithos_intern_find(keys, key, len);

    if (entry != LITHOS_INTERN_NONE) {
        *ret_entry = entry;
        return 0;
    }
    entry = keys->count;
    int r = grow(array, room, entry + 1, size);
    if (r == 0)
        r = lithos_intern_add(keys, key, len);
    if (r < 0)
        return r;
    *ret_entry = entry;
    return 1;
}

static int tenant_of(struct lithos_trace_stat *s, uint64_t id, struct lithos_trace_tenant **ret_tenant)
{
    uint32_t i = 0;
    int r = entry_of(&s->tenant_keys, &id, sizeof(id), &s->tenants, &s->tenant_room, sizeof(*s->tenants), &i);

    if (r < 0)
        return r;
    if (r == 1)
        s->tenants[i] = (struct lithos_trace_tenant){.id = id, .name = nameless};
    *ret_tenant = &s->tenants[i];
    return 0;
}

static int gpu_of(struct lithos_trace_stat *s, uint32_t index, struct lithos_trace_gpu_figures **ret_gpu)
{
    uint32_t i = 0;
    int r = entry_of(&s->gpu_keys, &index, sizeof(index), &s->gpus, &s->gpu_room, sizeof(*s->gpus), &i);

    if (r < 0)
        return r;
    if (r == 1)
        s->gpus[i] = (struct lithos_trace_gpu_figures){.gpu = {.index = index, .name = nameless}};
    *ret_gpu = &s->gpus[i];
    return 0;
}

static int row_of(struct lithos_trace_stat *s, const struct lithos_trace_kernel *k, uint32_t *ret_row)
{
    struct key *key = &s->key;
    size_t len = offsetof(struct key, function);
    uint32_t i = 0;

    *key = (struct key){.tenant = k->tenant};
    if (s->by == LITHOS_TRACE_BY_STREAM) {
        key->stream = k->stream;
        key->pid = k->pid;
        key->gpu = k->gpu;
    } else if (s->by == LITHOS_TRACE_BY_KERNEL) {
        size_t n = strnlen(k->function, sizeof(key->function));
        memcpy(key->function, k->function, n);
        len += n;
    }
    int r = grow(&s->samples, &s->sample_room, s->row_keys.count + 1, sizeof(*s->samples));
    if (r == 0)
        r = entry_of(&s->row_keys, key, len, &s->rows, &s->row_room, sizeof(*s->rows), &i);
    if (r < 0)
        return r;
    if (r == 1) {
        s->samples[i] = (struct samples){0};
        s->rows[i] = (struct lithos_trace_row){.tenant = k->tenant,
                                               .stream = key->stream,
                                               .pid = key->pid,
                                               .gpu = key->gpu,
                                               .tpcs_min = UINT32_MAX};
    }
    *ret_row = i;
    return 0;
}

static void count_prediction(struct lithos_trace_row *row, const struct lithos_trace_kernel *k)
{
    uint64_t took_ns = lithos_trace_duration_ns(k), said_ns = k->predicted_ns;

    if (!said_ns)
        return;
    row->predicted++;
    row->mispredicted +=
        (took_ns > said_ns ? took_ns - said_ns : said_ns - took_ns) > LITHOS_TRACE_MISPREDICTED_NS;
}

static int add_kernel(struct lithos_trace_stat *s, const struct lithos_trace_event *e)
{
    const struct lithos_trace_kernel *k = &e->kernel;
    struct lithos_trace_tenant *tenant;
    struct lithos_trace_gpu_figures *gpu;
    uint32_t i = 0, tpcs = lithos_tpcset_count(&k->tpcs);
    double took_ns = (double)lithos_trace_duration_ns(k);
    int r = tenant_of(s, k->tenant, &tenant);

    if (r == 0)
        r = gpu_of(s, k->gpu, &gpu);
    if (r == 0)
        r = row_of(s, k, &i);
    if (r == 0)
        r = grow(&s->samples[i].values, &s->samples[i].room, s->samples[i].count + 1, sizeof(double));
    if (r < 0)
        return r;
    struct lithos_trace_row *row = &s->rows[i];
    s->samples[i].values[s->samples[i].count++] = took_ns;
    row->count++;
    row->total_ns += took_ns;
    row->tpc_ns += took_ns * tpcs;
    row->tpcs_min = LITHOS_MIN(row->tpcs_min, tpcs);
    row->tpcs_max = LITHOS_MAX(row->tpcs_max, tpcs);
    row->estimates += !!(k->flags & LITHOS_TRACE_ESTIMATE);
    row->clamped += !!(k->flags & LITHOS_TRACE_CLAMPED);
    row->backwards += k->end_ns < k->start_ns;
    count_prediction(row, k);
    if (s->summary.events[LITHOS_TRACE_KERNEL] == 1 || e->time_ns < s->summary.first_ns)
        s->summary.first_ns = e->time_ns;
    s->summary.last_ns = LITHOS_MAX(s->summary.last_ns, k->end_ns);
    return 0;
}

static int add_drop(struct lithos_trace_stat *s, const struct lithos_trace_drop *d)
{
    const uint64_t key[2] = {d->tenant, d->reason};
    uint32_t i = 0;
    int r = entry_of(&s->drop_keys, key, sizeof(key), &s->drops, &s->drop_room, sizeof(*s->drops), &i);

    if (r < 0)
        return r;
    if (r == 1)
        s->drops[i] = (struct lithos_trace_drop_count){d->tenant, d->reason, 0};
    s->drops[i].count += d->count;
    return 0;
}

/* A name that is told again replaces the one before. */
static int replace_name(const char **name, const char *with)
{
    char *copy = strdup(with);

    if (!copy)
        return -ENOMEM;
    free_name(*name);
    *name = copy;
    return 0;
}

static int add_tenant(struct lithos_trace_stat *s, const struct lithos_trace_tenant *tenant)
{
    struct lithos_trace_tenant *t;
    int r = tenant_of(s, tenant->id, &t);

    if (r < 0)
        return r;
    t->pid = tenant->pid;
    return replace_name(&t->name, tenant->name);
}

static int add_gpu(struct lithos_trace_stat *s, const struct lithos_trace_gpu *gpu)
{
    struct lithos_trace_gpu_figures *g;
    int r = gpu_of(s, gpu->index, &g);

    if (r < 0)
        return r;
    const char *name = g->gpu.name;
    r = replace_name(&name, gpu->name);
    if (r < 0)
        return r;
    g->gpu = *gpu;
    g->gpu.name = name;
    return 0;
}

static int add_clock(struct lithos_trace_stat *s, const struct lithos_trace_clock *clock)
{
    struct lithos_trace_gpu_figures *g;
    int r = gpu_of(s, clock->gpu, &g);

    if (r < 0)
        return r;
    g->clocks++;
    g->bound_ns = LITHOS_MAX(g->bound_ns, clock->bound_ns);
    return 0;
}

int lithos_trace_stat_add(struct lithos_trace_stat *s, const struct lithos_trace_event *e)
{
    s->summary.events[e->kind]++;
    switch (e->kind) {
    case LITHOS_TRACE_KERNEL:
        return add_kernel(s, e);
    case LITHOS_TRACE_GPU:
        return add_gpu(s, &e->gpu);
    case LITHOS_TRACE_TENANT:
        return add_tenant(s, &e->tenant);
    case LITHOS_TRACE_DROP:
        return add_drop(s, &e->drop);
    case LITHOS_TRACE_CLOCK:
        return add_clock(s, &e->clock);
    case LITHOS_TRACE_TENANT_END:
    case LITHOS_TRACE_GRANT:
    case LITHOS_TRACE_SYNC:
    case LITHOS_TRACE_ATOM:
    case LITHOS_TRACE_KIND_MAX:
        break;
    }
    return 0;
}

static int longer_first(const void *a, const void *b)
{
    const struct lithos_trace_row *x = a, *y = b;

    if (x->total_ns != y->total_ns)
        return x->total_ns < y->total_ns ? 1 : -1;
    if (x->tenant != y->tenant)
        return x->tenant > y->tenant ? 1 : -1;
    if (x->gpu != y->gpu)
        return x->gpu > y->gpu ? 1 : -1;
    if (x->stream != y->stream)
        return x->stream > y->stream ? 1 : -1;
    return strcmp(x->function, y->function);
}

static void finish_row(struct lithos_trace_row *row, struct samples *samples)
{
    lithos_sort_samples(samples->values, samples->count);
    row->min_ns = samples->values[0];
    row->max_ns = samples->values[samples->count - 1];
    row->mean_ns = row->total_ns / (double)row->count;
    row->p50_ns = lithos_quantile(samples->values, samples->count, 0.5);
    row->p99_ns = lithos_quantile(samples->values, samples->count, 0.99);
}

struct lithos_trace_summary lithos_trace_stat_summary(struct lithos_trace_stat *s)
{
    struct lithos_trace_summary *sum = &s->summary;
    size_t len, head = offsetof(struct key, function);

    sum->total_ns = sum->tpc_ns = 0;
    for (uint32_t i = 0; i < s->row_keys.count; i++) {
        s->rows[i].function = lithos_intern_get(&s->row_keys, i, &len) + head;
        finish_row(&s->rows[i], &s->samples[i]);
        sum->total_ns += s->rows[i].total_ns;
        sum->tpc_ns += s->rows[i].tpc_ns;
    }
    sum->row_count = s->row_keys.count;
    sum->drop_count = s->drop_keys.count;
    sum->gpu_count = s->gpu_keys.count;
    sum->tenant_count = s->tenant_keys.count;
    free(s->sorted);
    s->sorted = reallocarray(NULL, sum->row_count + 1, sizeof(*s->rows));
    sum->rows = s->rows;
    if (s->sorted && sum->row_count) { /* else in the order they came: nothing worse */
        memcpy(s->sorted, s->rows, sum->row_count * sizeof(*s->rows));
        qsort(s->sorted, sum->row_count, sizeof(*s->rows), longer_first);
        sum->rows = s->sorted;
    }
    sum->drops = s->drops;
    sum->gpus = s->gpus;
    sum->tenants = s->tenants;
    return *sum;
}

const char *lithos_trace_stat_tenant(const struct lithos_trace_stat *s, uint64_t tenant)
{
    uint32_t i = lithos_intern_find(&s->tenant_keys, &tenant, sizeof(tenant));

    return i == LITHOS_INTERN_NONE ? "" : s->tenants[i].name;
}
