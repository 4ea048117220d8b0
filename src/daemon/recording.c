/* Traces: what happens to tenants, written to a file that a client has opened. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "daemon/daemon.h"

/* The loop waits for the compression: the fast kind. */
#define LEVEL 1

static bool wants(const struct lithosd_recording *r, const struct lithosd_tenant *t)
{
    return !r->tenant[0] || !strcmp(r->tenant, t->name);
}

/* The writer has failed: what it wrote stays, and whoever asked for it is told when they ask. */
static void fail(struct lithosd_recording *r, int error)
{
    lithos_warning("a trace cannot be written on: %s", strerror(-error));
    r->error = error;
    r->bytes = lithos_trace_writer_stats(r->writer).bytes;
    lithos_trace_writer_free(r->writer);
    r->writer = NULL;
}

static void put(struct lithosd_recording *r, const struct lithos_trace_event *e)
{
    int error = r->writer ? lithos_trace_writer_event(r->writer, e) : -EINVAL;
    if (error == 0) {
        r->events++;
        r->kernels += e->kind == LITHOS_TRACE_KERNEL;
    } else if (r->writer && error != -EINVAL) { /* EINVAL: not an event, nothing happened */
        fail(r, error);
    }
}

void lithosd_recordings_event(const struct lithosd_tenant *t, const struct lithos_trace_event *e)
{
    struct lithosd_observe *o = &t->daemon->observe;
    for (unsigned i = 0; o->recording_count && i < LITHOSD_RECORDINGS_MAX; i++)
        if (o->recordings[i].connection && wants(&o->recordings[i], t))
            put(&o->recordings[i], e);
}

bool lithosd_recordings_want(const struct lithosd_tenant *t)
{
    const struct lithosd_observe *o = &t->daemon->observe;
    for (unsigned i = 0; o->recording_count && i < LITHOSD_RECORDINGS_MAX; i++)
        if (o->recordings[i].connection && wants(&o->recordings[i], t))
            return true;
    return false;
}

/* ---- what a trace tells beside kernels ---- */

static void put_gpus(struct lithosd_recording *r, const struct lithosd *d)
{
    for (unsigned i = 0; i < d->gpus.count; i++) {
        const struct lithosd_gpu *g = &d->gpus.gpu[i];
        struct lithos_trace_event e = {.kind = LITHOS_TRACE_GPU, .time_ns = lithos_now_ns()};
        if (g->error[0])
            continue;
        e.gpu.index = g->index;
        e.gpu.name = g->name;
        e.gpu.topology = g->alloc.topology;
        memcpy(e.gpu.uuid, g->uuid, sizeof e.gpu.uuid);
        put(r, &e);
    }
}

static void put_grants(struct lithosd_recording *r, const struct lithosd_tenant *t)
{
    for (uint32_t i = 0; i < t->grant.gpu_count; i++) {
        struct lithos_trace_event e = {.kind = LITHOS_TRACE_GRANT,
                                       .time_ns = lithos_now_ns(),
                                       .grant = {.tenant = t->id,
                                                 .gpu = t->daemon->gpus.gpu[t->gpu[i]].index,
                                                 .tpcs = t->grant.gpus[i].own}};
        put(r, &e);
    }
}

static void put_tenant(struct lithosd_recording *r, const struct lithosd_tenant *t)
{
    struct lithos_trace_event e = {.kind = LITHOS_TRACE_TENANT,
                                   .time_ns = lithos_now_ns(),
                                   .tenant = {.id = t->id, .pid = (uint32_t)t->root_pid, .name = t->name}};
    put(r, &e);
    put_grants(r, t);
}

static uint64_t *told_of(struct lithosd_recording *r, const struct lithosd_tenant *t)
{
    return &r->told[(size_t)(t - t->daemon->tenants) * LITHOSD_DROPS];
}

/* What has been lost since it was told last. */
static void put_drops(struct lithosd_recording *r, const struct lithosd_tenant *t)
{
    uint64_t drops[LITHOSD_DROPS], *told = told_of(r, t);
    lithosd_observe_drops(t, drops);
    for (uint32_t reason = 0; reason < LITHOSD_DROPS; reason++) {
        if (drops[reason] <= told[reason])
            continue;
        struct lithos_trace_event e = {
            .kind = LITHOS_TRACE_DROP,
            .time_ns = lithos_now_ns(),
            .drop = {
                .tenant = t->id, .gpu = UINT32_MAX, .reason = reason, .count = drops[reason] - told[reason]}};
        put(r, &e);
        r->dropped += drops[reason] - told[reason];
        told[reason] = drops[reason];
    }
}

static void put_clocks(struct lithosd_recording *r, const struct lithosd_tenant *t)
{
    for (uint32_t i = 0; t->observed && i < t->grant.gpu_count; i++) {
        const struct lithos_clockmap *m = lithos_timeline_clock(t->observed->timeline, i);
        struct lithos_trace_event e = {.kind = LITHOS_TRACE_CLOCK,
                                       .time_ns = lithos_now_ns(),
                                       .clock = {.gpu = t->daemon->gpus.gpu[t->gpu[i]].index,
                                                 .gpu_ns = m->gpu_anchor,
                                                 .offset_ns = lithos_clockmap_offset_ns(m, m->gpu_anchor),
                                                 .drift_ppb = lithos_clockmap_drift_ppb(m),
                                                 .bound_ns = lithosd_clock_bound_ns(t, i)}};
        if (m->fitted)
            put(r, &e);
    }
}

void lithosd_recordings_admitted(const struct lithosd_tenant *t)
{
    struct lithosd_observe *o = &t->daemon->observe;
    for (unsigned i = 0; o->recording_count && i < LITHOSD_RECORDINGS_MAX; i++) {
        struct lithosd_recording *r = &o->recordings[i];
        if (!r->connection || !wants(r, t))
            continue;
        memset(told_of(r, t), 0, LITHOSD_DROPS * sizeof *r->told);
        put_tenant(r, t);
    }
}

void lithosd_recordings_granted(const struct lithosd_tenant *t)
{
    struct lithosd_observe *o = &t->daemon->observe;
    for (unsigned i = 0; o->recording_count && i < LITHOSD_RECORDINGS_MAX; i++)
        if (o->recordings[i].connection && wants(&o->recordings[i], t))
            put_grants(&o->recordings[i], t);
}

void lithosd_recordings_ended(const struct lithosd_tenant *t)
{
    struct lithosd_observe *o = &t->daemon->observe;
    for (unsigned i = 0; o->recording_count && i < LITHOSD_RECORDINGS_MAX; i++) {
        struct lithosd_recording *r = &o->recordings[i];
        struct lithos_trace_event e = {
            .kind = LITHOS_TRACE_TENANT_END, .time_ns = lithos_now_ns(), .tenant = {.id = t->id, .name = ""}};
        if (!r->connection || !wants(r, t))
            continue;
        put_drops(r, t);
        put(r, &e);
    }
}

static void put_second(struct lithosd_recording *r, struct lithosd *d)
{
    for (unsigned i = 0; i < LITHOSD_TENANT_MAX; i++) {
        const struct lithosd_tenant *t = &d->tenants[i];
        if (!t->used || !wants(r, t))
            continue;
        put_drops(r, t);
        put_clocks(r, t);
    }
    int error = r->writer ? lithos_trace_writer_flush(r->writer) : 0;
    if (error < 0)
        fail(r, error);
}

void lithosd_recordings_second(struct lithosd *d)
{
    for (unsigned i = 0; i < LITHOSD_RECORDINGS_MAX; i++)
        if (d->observe.recordings[i].connection)
            put_second(&d->observe.recordings[i], d);
}

/* ---- requests ---- */

static struct lithosd_recording *recording_of(const struct lithosd_connection *c)
{
    struct lithosd_observe *o = &c->daemon->observe;
    for (unsigned i = 0; i < LITHOSD_RECORDINGS_MAX; i++)
        if (o->recordings[i].connection == c)
            return &o->recordings[i];
    return NULL;
}

/* Only what this program opens may make the daemon wait: a pipe's reader could for ever. */
static int check_file(int fd, char text[LITHOS_TEXT_MAX])
{
    struct stat st;
    int flags = fd < 0 ? -1 : fcntl(fd, F_GETFL);
    if (fd < 0 || flags < 0 || (flags & O_ACCMODE) == O_RDONLY || (flags & O_PATH)) {
        snprintf(text, LITHOS_TEXT_MAX, "no file that can be written came along");
        return -EBADF;
    }
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        snprintf(text, LITHOS_TEXT_MAX, "traces are written to regular files only");
        return -EINVAL;
    }
    return 0;
}

/* What one may see of others is what `lithos status` shows; the kernels of a tenant are its owner's. */
static int check_rights(struct lithosd_connection *c, const char *tenant, char text[LITHOS_TEXT_MAX])
{
    const struct lithosd_tenant *t = tenant[0] ? lithosd_tenant_by_name(c->daemon, tenant) : NULL;
    if (tenant[0] && !t) {
        snprintf(text, LITHOS_TEXT_MAX, "there is no tenant named %s: `lithos status` lists them", tenant);
        return -ENOENT;
    }
    if (c->uid == 0 || c->uid == geteuid() || (t && t->uid == c->uid))
        return 0;
    snprintf(text, LITHOS_TEXT_MAX,
             "only root and the user that lithosd runs as may trace other users' tenants: name one of "
             "yours with --tenant");
    return -EPERM;
}

static int start(struct lithosd_connection *c, const struct lithos_msg_trace *m, int fd,
                 char text[LITHOS_TEXT_MAX])
{
    struct lithosd *d = c->daemon;
    struct lithosd_recording *r = NULL;
    struct lithos_trace_writer_options options = {.level = LEVEL};
    for (unsigned i = 0; !r && i < LITHOSD_RECORDINGS_MAX; i++)
        if (!d->observe.recordings[i].connection)
            r = &d->observe.recordings[i];
    int error = check_rights(c, m->tenant, text);
    if (error == 0)
        error = check_file(fd, text);
    if (error < 0)
        return error;
    if (!r || recording_of(c)) {
        snprintf(text, LITHOS_TEXT_MAX,
                 r ? "this connection records already"
                   : "as many traces are being recorded as lithosd takes: end one");
        return r ? -EALREADY : -EMFILE;
    }
    if (!d->options.observe) {
        snprintf(text, LITHOS_TEXT_MAX, "lithosd runs with --observe=off: start it without");
        return -EOPNOTSUPP;
    }
    *r = (struct lithosd_recording){.fd = fcntl(fd, F_DUPFD_CLOEXEC, 0)};
    memcpy(r->tenant, m->tenant, sizeof r->tenant);
    r->told = calloc((size_t)LITHOSD_TENANT_MAX * LITHOSD_DROPS, sizeof *r->told);
    error = r->fd < 0 ? -EMFILE : !r->told ? -ENOMEM : lithos_trace_writer_new(r->fd, &options, &r->writer);
    if (error < 0) {
        snprintf(text, LITHOS_TEXT_MAX, "the trace cannot be begun: %s", strerror(-error));
        if (r->fd >= 0)
            close(r->fd);
        free(r->told);
        return error;
    }
    lithosd_observe_now(d); /* what was before is not in it */
    r->connection = c;
    d->observe.recording_count++;
    put_gpus(r, d);
    for (unsigned i = 0; i < LITHOSD_TENANT_MAX; i++)
        if (d->tenants[i].used && wants(r, &d->tenants[i])) {
            lithosd_observe_drops(&d->tenants[i], told_of(r, &d->tenants[i]));
            put_tenant(r, &d->tenants[i]);
        }
    return 0;
}

static int stop(struct lithosd_recording *r, struct lithosd *d)
{
    if (r->writer) {
        lithosd_observe_now(d);
        put_second(r, d);
    }
    if (r->writer) {
        r->bytes = lithos_trace_writer_stats(r->writer).bytes;
        r->error = lithos_trace_writer_free(r->writer);
    }
    close(r->fd);
    free(r->told);
    r->connection = NULL;
    r->writer = NULL;
    d->observe.recording_count--;
    return r->error;
}

int lithosd_recording_request(struct lithosd_connection *c, const struct lithos_msg_trace *m, int fd,
                              union lithos_message *ret_answer, char text[LITHOS_TEXT_MAX])
{
    int error = m->action == LITHOS_TRACE_START ? start(c, m, fd, text) : 0;
    if (error < 0)
        return error;
    struct lithosd_recording *r = recording_of(c);
    if (!r) {
        snprintf(text, LITHOS_TEXT_MAX, "this connection records nothing");
        return -ENOENT;
    }
    if (m->action == LITHOS_TRACE_STOP)
        stop(r, c->daemon);
    else if (r->writer)
        r->bytes = lithos_trace_writer_stats(r->writer).bytes;
    if (r->error < 0) {
        snprintf(text, LITHOS_TEXT_MAX, "the trace ends early, after %llu bytes: %s",
                 (unsigned long long)r->bytes, strerror(-r->error));
        return r->error;
    }
    lithos_message_init(ret_answer, LITHOS_MSG_TRACED);
    ret_answer->traced.events = r->events;
    ret_answer->traced.kernels = r->kernels;
    ret_answer->traced.dropped = r->dropped;
    ret_answer->traced.bytes = r->bytes;
    return 0;
}

void lithosd_recording_end(struct lithosd_connection *c)
{
    struct lithosd_recording *r = recording_of(c);
    if (r)
        stop(r, c->daemon);
}
