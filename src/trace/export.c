#include "trace/export.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "trace/codec.h"
#include "trace/json.h"

/* Process 1 is that of the GPUs; tenants come after it, in the order they appear. */
#define GPUS_PROCESS 1u
#define FIRST_TENANT 2u
#define TENANTS_MAX (1u << 24)
#define LANES_MAX (1u << 24)

struct lithos_trace_export {
    FILE *out;
    uint64_t start_ns;
    bool comma;
    uint64_t events[LITHOS_TRACE_KIND_MAX], dropped;
    struct lithos_intern tenants; /* by id */
    struct lithos_intern lanes;   /* threads */
    uint64_t *granted;            /* a tenant: bits of GPUs below 64 that it holds TPCs of */
    size_t granted_room;
};

static json_t *microseconds(uint64_t ns)
{
    return json_real((double)(int64_t)ns / 1000);
}

/* Why `out` failed: errno as it knows. */
static int failure(void)
{
    return errno ? -errno : -EIO;
}

/* One event of the document; takes the reference, NULL is "no memory". */
static int emit(struct lithos_trace_export *x, json_t *event)
{
    if (!event)
        return -ENOMEM;
    errno = 0;
    int r = fputs(x->comma ? ",\n" : "\n", x->out) == EOF ||
                    json_dumpf(event, x->out, JSON_COMPACT | JSON_REAL_PRECISION(15)) < 0
                ? failure()
                : 0;
    x->comma = true;
    json_decref(event);
    return r;
}

static int emit_name(struct lithos_trace_export *x, const char *what, uint32_t pid, uint32_t tid,
                     const char *name)
{
    return emit(x, json_pack("{s:s, s:s, s:I, s:I, s:{s:o}}", "name", what, "ph", "M", "pid", (json_int_t)pid,
                             "tid", (json_int_t)tid, "args", "name", lithos_trace_json_text(name)));
}

/* A mark of a whole process, or of a thread. */
static int emit_mark(struct lithos_trace_export *x, uint64_t time_ns, uint32_t pid, uint32_t tid,
                     const char *name, json_t *args)
{
    return emit(x, json_pack("{s:s, s:s, s:s, s:o, s:I, s:I, s:o}", "name", name, "ph", "i", "s",
                             tid ? "t" : "p", "ts", microseconds(time_ns - x->start_ns), "pid",
                             (json_int_t)pid, "tid", (json_int_t)tid, "args", args));
}

static int emit_counter(struct lithos_trace_export *x, uint64_t time_ns, uint32_t pid, const char *name,
                        const char *series, uint64_t value)
{
    return emit(x, json_pack("{s:s, s:s, s:o, s:I, s:{s:I}}", "name", name, "ph", "C", "ts",
                             microseconds(time_ns - x->start_ns), "pid", (json_int_t)pid, "args", series,
                             (json_int_t)value));
}

/* The process of a tenant; named by its id until its name is told. */
static int tenant_process(struct lithos_trace_export *x, uint64_t id, uint32_t *ret_pid)
{
    char name[64];
    uint32_t i = lithos_intern_find(&x->tenants, &id, sizeof(id));

    if (i != LITHOS_INTERN_NONE) {
        *ret_pid = FIRST_TENANT + i;
        return 0;
    }
    i = x->tenants.count;
    if (i >= x->granted_room) {
        size_t room = LITHOS_MAX(x->granted_room * 2, (size_t)16);
        uint64_t *granted = reallocarray(x->granted, room, sizeof(*granted));
        if (!granted)
            return -ENOMEM;
        x->granted = granted;
        x->granted_room = room;
    }
    int r = lithos_intern_add(&x->tenants, &id, sizeof(id));
    if (r < 0)
        return r;
    x->granted[i] = 0;
    *ret_pid = FIRST_TENANT + i;
    snprintf(name, sizeof(name), "tenant %" PRIu64, id);
    return emit_name(x, "process_name", *ret_pid, 0, name);
}

static int lane_thread(struct lithos_trace_export *x, const struct lithos_trace_lane *lane, uint32_t *ret_pid,
                       uint32_t *ret_tid)
{
    char name[96];
    int r = tenant_process(x, lane->tenant, ret_pid);
    if (r < 0)
        return r;
    uint32_t i = lithos_intern_find(&x->lanes, lane, sizeof(*lane));
    if (i != LITHOS_INTERN_NONE) {
        *ret_tid = i + 1;
        return 0;
    }
    *ret_tid = x->lanes.count + 1;
    r = lithos_intern_add(&x->lanes, lane, sizeof(*lane));
    if (r < 0)
        return r;
    snprintf(name, sizeof(name), "GPU %" PRIu32 " stream %#" PRIx64 " (pid %" PRIu32 ")", lane->gpu,
             lane->stream, lane->pid);
    return emit_name(x, "thread_name", *ret_pid, *ret_tid, name);
}

static json_t *flags_of(uint32_t flags)
{
    static const struct {
        uint32_t flag;
        const char *name;
    } names[] = {{LITHOS_TRACE_GRAPH_NODE, "graph_node"},
                 {LITHOS_TRACE_DRIVER, "driver"},
                 {LITHOS_TRACE_ESTIMATE, "estimate"},
                 {LITHOS_TRACE_CLAMPED, "clamped"}};
    json_t *list = json_array();

    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(names); i++)
        if (flags & names[i].flag)
            json_array_append_new(list, json_string(names[i].name));
    return list;
}

static json_t *kernel_args(const struct lithos_trace_event *e)
{
    const struct lithos_trace_kernel *k = &e->kernel;
    uint64_t took_ns = lithos_trace_duration_ns(k);
    char bits[LITHOS_TPCSET_TEXT_MAX];
    json_t *args =
        json_pack("{s:[I,I,I], s:[I,I,I], s:I, s:I, s:I, s:s, s:I, s:o}", "grid", (json_int_t)k->grid[0],
                  (json_int_t)k->grid[1], (json_int_t)k->grid[2], "block", (json_int_t)k->block[0],
                  (json_int_t)k->block[1], (json_int_t)k->block[2], "shared_bytes",
                  (json_int_t)k->shared_bytes, "registers", (json_int_t)k->registers, "tpcs",
                  (json_int_t)lithos_tpcset_count(&k->tpcs), "tpc_bits", lithos_tpcset_format(&k->tpcs, bits),
                  "sequence", (json_int_t)k->sequence, "queued_us", microseconds(k->start_ns - e->time_ns));

    if (k->cluster_blocks > 1)
        json_object_set_new(args, "cluster_blocks", json_integer(k->cluster_blocks));
    if (k->flags)
        json_object_set_new(args, "flags", flags_of(k->flags));
    if (k->predicted_ns) {
        json_object_set_new(args, "predicted_us", microseconds(k->predicted_ns));
        json_object_set_new(args, "off_us", microseconds(took_ns - k->predicted_ns));
    }
    return args;
}

/* name and args are taken, also where that fails. */
static int emit_slice(struct lithos_trace_export *x, const struct lithos_trace_lane *lane, json_t *name,
                      const char *category, uint64_t start_ns, uint64_t took_ns, json_t *args)
{
    uint32_t pid, tid;
    int r = lane_thread(x, lane, &pid, &tid);

    if (r < 0) {
        json_decref(name);
        json_decref(args);
        return r;
    }
    return emit(x, json_pack("{s:o, s:s, s:s, s:o, s:o, s:I, s:I, s:o}", "name", name, "cat", category, "ph",
                             "X", "ts", microseconds(start_ns - x->start_ns), "dur", microseconds(took_ns),
                             "pid", (json_int_t)pid, "tid", (json_int_t)tid, "args", args));
}

static int add_kernel(struct lithos_trace_export *x, const struct lithos_trace_event *e)
{
    const struct lithos_trace_kernel *k = &e->kernel;
    const struct lithos_trace_lane lane = {k->tenant, k->stream, k->pid, k->gpu};

    return emit_slice(x, &lane, lithos_trace_json_text(k->function), "kernel", k->start_ns,
                      lithos_trace_duration_ns(k), kernel_args(e));
}

static int add_gpu(struct lithos_trace_export *x, const struct lithos_trace_event *e)
{
    const uint8_t *u = e->gpu.uuid;
    char name[64], uuid[48];

    snprintf(name, sizeof(name), "GPU %" PRIu32, e->gpu.index);
    snprintf(uuid, sizeof(uuid), "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
             u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14],
             u[15]);
    return emit_mark(x, e->time_ns, GPUS_PROCESS, 0, name,
                     json_pack("{s:o, s:s, s:I}", "name", lithos_trace_json_text(e->gpu.name), "uuid", uuid,
                               "tpcs", (json_int_t)lithos_tpcset_count(&e->gpu.topology.valid)));
}

static int add_tenant(struct lithos_trace_export *x, const struct lithos_trace_event *e)
{
    uint32_t pid;
    char *name = NULL;
    int r = tenant_process(x, e->tenant.id, &pid);

    if (r < 0)
        return r;
    if (asprintf(&name, "%s (tenant %" PRIu64 ")", e->tenant.name, e->tenant.id) < 0)
        return -ENOMEM;
    r = emit_name(x, "process_name", pid, 0, name);
    free(name);
    if (r < 0)
        return r;
    return emit_mark(x, e->time_ns, pid, 0, "admitted", json_pack("{s:I}", "pid", (json_int_t)e->tenant.pid));
}

static int emit_tpcs(struct lithos_trace_export *x, uint64_t time_ns, uint32_t pid, uint32_t gpu,
                     unsigned tpcs)
{
    char name[48];

    snprintf(name, sizeof(name), "TPCs of GPU %" PRIu32, gpu);
    return emit_counter(x, time_ns, pid, name, "TPCs", tpcs);
}

static int add_grant(struct lithos_trace_export *x, const struct lithos_trace_event *e)
{
    const struct lithos_trace_grant *g = &e->grant;
    char bits[LITHOS_TPCSET_TEXT_MAX];
    uint32_t pid;
    int r = tenant_process(x, g->tenant, &pid);

    if (r < 0)
        return r;
    if (g->gpu < 64)
        x->granted[pid - FIRST_TENANT] |= 1ull << g->gpu;
    r = emit_tpcs(x, e->time_ns, pid, g->gpu, lithos_tpcset_count(&g->tpcs));
    if (r < 0)
        return r;
    return emit_mark(x, e->time_ns, pid, 0, "grant",
                     json_pack("{s:I, s:I, s:s}", "gpu", (json_int_t)g->gpu, "tpcs",
                               (json_int_t)lithos_tpcset_count(&g->tpcs), "tpc_bits",
                               lithos_tpcset_format(&g->tpcs, bits)));
}

static int add_tenant_end(struct lithos_trace_export *x, const struct lithos_trace_event *e)
{
    uint32_t pid;
    int r = tenant_process(x, e->tenant.id, &pid);

    if (r < 0)
        return r;
    for (uint64_t *gpus = &x->granted[pid - FIRST_TENANT]; r == 0 && *gpus; *gpus &= *gpus - 1)
        r = emit_tpcs(x, e->time_ns, pid, (uint32_t)__builtin_ctzll(*gpus), 0);
    return r < 0 ? r : emit_mark(x, e->time_ns, pid, 0, "ended", json_object());
}

static int add_sync(struct lithos_trace_export *x, const struct lithos_trace_event *e)
{
    const struct lithos_trace_sync *s = &e->sync;
    const struct lithos_trace_lane lane = {s->tenant, s->stream, s->pid, s->gpu};
    bool all = s->stream == LITHOS_TRACE_ALL_STREAMS;
    uint32_t pid, tid = 0;
    int r = all ? tenant_process(x, s->tenant, &pid) : lane_thread(x, &lane, &pid, &tid);

    if (r < 0)
        return r;
    return emit_mark(x, e->time_ns, pid, tid, all ? "sync of all streams" : "sync",
                     json_pack("{s:I, s:I, s:I}", "pid", (json_int_t)s->pid, "gpu", (json_int_t)s->gpu,
                               "sequence", (json_int_t)s->sequence));
}

static int add_drop(struct lithos_trace_export *x, const struct lithos_trace_event *e)
{
    const struct lithos_trace_drop *d = &e->drop;
    char name[96];
    uint32_t pid;
    int r = tenant_process(x, d->tenant, &pid);

    if (r < 0)
        return r;
    x->dropped += d->count;
    snprintf(name, sizeof(name), "%" PRIu64 " dropped: %s", d->count, lithos_trace_drop_name(d->reason));
    return emit_mark(x, e->time_ns, pid, 0, name,
                     json_pack("{s:s, s:I, s:I, s:I}", "reason", lithos_trace_drop_name(d->reason), "count",
                               (json_int_t)d->count, "pid", (json_int_t)d->pid, "gpu",
                               d->gpu == UINT32_MAX ? (json_int_t)-1 : (json_int_t)d->gpu));
}

static int add_clock(struct lithos_trace_export *x, const struct lithos_trace_event *e)
{
    char name[64];

    snprintf(name, sizeof(name), "clock bound of GPU %" PRIu32, e->clock.gpu);
    return emit_counter(x, e->time_ns, GPUS_PROCESS, name, "ns", e->clock.bound_ns);
}

/* Within the slice of its kernel, which is told of later. */
static int add_atom(struct lithos_trace_export *x, const struct lithos_trace_event *e)
{
    const struct lithos_trace_atom *a = &e->atom;
    const struct lithos_trace_lane lane = {a->tenant, a->stream, a->pid, a->gpu};

    return emit_slice(x, &lane, json_string("atom"), "atom", e->time_ns, a->took_ns,
                      json_pack("{s:I, s:I}", "tpcs", (json_int_t)lithos_tpcset_count(&a->tpcs), "sequence",
                                (json_int_t)a->sequence));
}

int lithos_trace_export_add(struct lithos_trace_export *x, const struct lithos_trace_event *e)
{
    static int (*const add[])(struct lithos_trace_export *, const struct lithos_trace_event *) = {
        [LITHOS_TRACE_KERNEL] = add_kernel, [LITHOS_TRACE_GPU] = add_gpu,
        [LITHOS_TRACE_TENANT] = add_tenant, [LITHOS_TRACE_TENANT_END] = add_tenant_end,
        [LITHOS_TRACE_GRANT] = add_grant,   [LITHOS_TRACE_SYNC] = add_sync,
        [LITHOS_TRACE_DROP] = add_drop,     [LITHOS_TRACE_CLOCK] = add_clock,
        [LITHOS_TRACE_ATOM] = add_atom,
    };
    _Static_assert(LITHOS_ARRAY_SIZE(add) == LITHOS_TRACE_KIND_MAX, "one each");

    x->events[e->kind]++;
    return add[e->kind](x, e);
}

int lithos_trace_export_new(FILE *out, uint64_t start_ns, struct lithos_trace_export **ret_export)
{
    struct lithos_trace_export *x = calloc(1, sizeof(*x));

    if (!x)
        return -ENOMEM;
    x->out = out;
    x->start_ns = start_ns;
    lithos_intern_init(&x->tenants, TENANTS_MAX, TENANTS_MAX * 9ull);
    lithos_intern_init(&x->lanes, LANES_MAX, LANES_MAX * 25ull);
    errno = 0;
    int r = fputs("{\"traceEvents\":[", out) == EOF ? failure() : 0;
    if (r == 0)
        r = emit_name(x, "process_name", GPUS_PROCESS, 0, "GPUs");
    if (r < 0) {
        lithos_trace_export_free(x);
        return r;
    }
    *ret_export = x;
    return 0;
}

int lithos_trace_export_end(struct lithos_trace_export *x)
{
    json_t *counts = json_object();

    for (unsigned k = 0; k < LITHOS_TRACE_KIND_MAX; k++)
        json_object_set_new(counts, lithos_trace_kind_name(k), json_integer((json_int_t)x->events[k]));
    json_t *other = json_pack("{s:I, s:I, s:o}", "start_monotonic_ns", (json_int_t)x->start_ns, "dropped",
                              (json_int_t)x->dropped, "events", counts);
    if (!other)
        return -ENOMEM;
    errno = 0;
    bool failed = fputs("\n],\"displayTimeUnit\":\"ns\",\"otherData\":", x->out) == EOF ||
                  json_dumpf(other, x->out, JSON_COMPACT) < 0 || fputs("}\n", x->out) == EOF ||
                  fflush(x->out) != 0;
    int r = failed ? failure() : 0;
    json_decref(other);
    return r;
}

void lithos_trace_export_free(struct lithos_trace_export *x)
{
    if (!x)
        return;
    lithos_intern_finish(&x->tenants);
    lithos_intern_finish(&x->lanes);
    free(x->granted);
    free(x);
}
