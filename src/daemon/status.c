/* The status document: docs/status.md. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/daemon.h"
#include "daemon/procinfo.h"
#include "proto/socket.h"

#define STATUS_VERSION 1
#ifndef LITHOS_VERSION
#define LITHOS_VERSION "0.1.0"
#endif

static const char *const mode_names[LITHOS_MODE_MAX] = {"mask", "coarse", "none"};

static json_t *text_or_null(const char *text)
{
    return *text ? json_string(text) : json_null();
}

static json_t *mps_status(const struct lithosd_mps *m)
{
    json_t *servers = json_array();
    for (unsigned i = 0; i < m->server_count; i++)
        json_array_append_new(servers, json_integer(m->servers[i]));
    return json_pack("{s:s,s:o,s:o,s:o,s:i,s:o}", "state", lithosd_mps_state_name(m->state), "pipe_dir",
                     text_or_null(m->pipe_dir), "control_pid",
                     m->control_pid ? json_integer(m->control_pid) : json_null(), "server_pids", servers,
                     "restarts", (int)m->restarts, "why", json_string(m->why));
}

/* The GPCs as TPC sets, and last the TPCs that belong to none. */
static json_t *gpc_status(const struct lithosd_gpu *g)
{
    json_t *array = json_array();
    char bits[LITHOS_TPCSET_TEXT_MAX];
    if (g->error[0])
        return array;
    const struct lithos_topology *t = &g->alloc.topology;
    struct lithos_tpcset singles = t->valid;
    for (uint32_t gpc = 0; gpc < t->gpc_count; gpc++) {
        struct lithos_tpcset set = lithos_topology_gpc(t, gpc);
        singles = lithos_tpcset_minus(singles, set);
        if (!lithos_tpcset_empty(&set))
            json_array_append_new(array, json_string(lithos_tpcset_format(&set, bits)));
    }
    if (!lithos_tpcset_empty(&singles))
        json_array_append_new(array, json_string(lithos_tpcset_format(&singles, bits)));
    return array;
}

static json_t *gpu_status(const struct lithosd_gpu *g)
{
    char uuid[LITHOS_UUID_TEXT_MAX], valid[LITHOS_TPCSET_TEXT_MAX], unused[LITHOS_TPCSET_TEXT_MAX];
    bool usable = !g->error[0];
    json_t *o = json_object();
    json_object_set_new(o, "index", json_integer(g->index));
    json_object_set_new(o, "uuid", json_string(lithos_uuid_format(g->uuid, uuid)));
    json_object_set_new(o, "name", json_string(g->name));
    json_object_set_new(o, "cc", json_pack("[i,i]", g->cc[0], g->cc[1]));
    json_object_set_new(o, "sm_count", json_integer(g->sm_count));
    json_object_set_new(o, "tpcs", json_integer(lithosd_gpu_tpcs(g)));
    json_object_set_new(o, "free", json_integer(usable ? lithos_alloc_free_count(&g->alloc) : 0));
    json_object_set_new(o, "bits",
                        json_string(usable ? lithos_tpcset_format(&g->alloc.topology.valid, valid) : "-"));
    json_object_set_new(o, "free_bits",
                        json_string(usable ? lithos_tpcset_format(&g->alloc.free, unused) : "-"));
    json_object_set_new(o, "measured", json_boolean(g->measured));
    json_object_set_new(o, "qmd", text_or_null(g->qmd));
    json_object_set_new(o, "hook", json_boolean(g->hook));
    json_object_set_new(o, "hook_why", json_string(g->hook_why));
    json_object_set_new(o, "stamps", json_boolean(g->stamps));
    json_object_set_new(o, "atoms", json_boolean(g->atoms));
    json_object_set_new(o, "atoms_why", json_string(g->atoms_why));
    json_object_set_new(o, "gpcs", gpc_status(g));
    json_object_set_new(o, "error", text_or_null(g->error));
    return o;
}

/* The root process first, then those attached (the root among them again only if it attached: then it is one entry). */
static json_t *pids_status(const struct lithosd *d, const struct lithosd_tenant *t)
{
    char name[LITHOS_NAME_MAX];
    bool alive = t->root.fd >= 0, root_attached = false;
    json_t *array = json_array(), *root = json_object();
    json_array_append_new(array, root);
    for (unsigned i = 0; i < LITHOSD_PROCESS_MAX; i++) {
        const struct lithosd_process *p = &d->processes[i];
        if (!p->used || p->tenant != t)
            continue;
        if (p->pid == t->root_pid && alive) {
            root_attached = root_attached || p->arena;
            continue;
        }
        json_array_append_new(array, json_pack("{s:i,s:s,s:b,s:b,s:b,s:b}", "pid", (int)p->pid, "process",
                                               p->name, "root", 0, "alive", 1, "attached", p->arena != NULL,
                                               "hook", p->hook_active));
    }
    json_object_set_new(root, "pid", json_integer(t->root_pid));
    json_object_set_new(
        root, "process",
        json_string(alive ? lithosd_process_name(t->root_pid, name, sizeof name) : t->command));
    json_object_set_new(root, "root", json_true());
    json_object_set_new(root, "alive", json_boolean(alive));
    json_object_set_new(root, "attached", json_boolean(root_attached));
    return array;
}

static json_t *tenant_gpus(const struct lithosd *d, const struct lithosd_tenant *t)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < t->grant.gpu_count; i++) {
        char bits[LITHOS_TPCSET_TEXT_MAX], uuid[LITHOS_UUID_TEXT_MAX], quota[16];
        const struct lithos_grant_gpu *g = &t->grant.gpus[i];
        static const struct lithos_tpcset none;
        struct lithos_tpcset own = lithosd_owns(t) ? lithosd_lend_own(t, i) : none;
        struct lithos_tpcset lent = lithosd_lend_lent(t, i), away = lithosd_lend_away(t, i);
        char lent_bits[LITHOS_TPCSET_TEXT_MAX], away_bits[LITHOS_TPCSET_TEXT_MAX];
        json_array_append_new(
            array,
            json_pack("{s:i,s:s,s:s,s:i,s:s,s:i,s:s,s:i,s:s}", "index", (int)d->gpus.gpu[t->gpu[i]].index,
                      "uuid", lithos_uuid_format(g->uuid, uuid), "quota",
                      lithos_quota_format(&t->quota, quota), "tpcs", (int)lithos_tpcset_count(&own), "bits",
                      lithos_tpcset_format(&own, bits), "lent", (int)lithos_tpcset_count(&lent), "lent_bits",
                      lithos_tpcset_format(&lent, lent_bits), "lent_away", (int)lithos_tpcset_count(&away),
                      "lent_away_bits", lithos_tpcset_format(&away, away_bits)));
    }
    return array;
}

static json_t *number(uint64_t v)
{
    return json_integer((json_int_t)(v & INT64_MAX));
}

/* Launch queues of all its processes. */
static json_t *queue_status(const struct lithosd_tenant *t, const uint64_t counters[LITHOS_COUNTER_MAX])
{
    uint64_t depth = 0;
    json_t *drained = json_object();
    for (unsigned i = 0; i < LITHOSD_PROCESS_MAX; i++) {
        const struct lithosd_process *p = &t->daemon->processes[i];
        if (p->used && p->tenant == t && p->arena)
            depth += atomic_load_explicit(&p->arena->queue_depth, memory_order_relaxed);
    }
#define W(name, why)                                                                                      \
    json_object_set_new(drained, lithos_counter_name(LITHOS_COUNTER_DRAINED_##name) + strlen("drained_"), \
                        number(counters[LITHOS_COUNTER_DRAINED_##name]));
#include "hw/drain.def"
#undef W
    json_t *gathered = json_pack("{s:o,s:o,s:o}", "wanted", number(counters[LITHOS_COUNTER_GATHERED_WANTED]),
                                 "ahead", number(counters[LITHOS_COUNTER_GATHERED_AHEAD]), "time",
                                 number(counters[LITHOS_COUNTER_GATHERED_TIME]));
    return json_pack("{s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "depth", number(depth), "queued",
                     number(counters[LITHOS_COUNTER_QUEUED]), "unqueued",
                     number(counters[LITHOS_COUNTER_UNQUEUED]), "full",
                     number(counters[LITHOS_COUNTER_QUEUE_FULL]), "failed",
                     number(counters[LITHOS_COUNTER_QUEUE_FAILED]), "opened",
                     number(counters[LITHOS_COUNTER_QUEUE_OPENED]), "gathered", gathered, "drained", drained);
}

/* CUDA graphs whose kernels were given other TPCs as those of the tenant changed, and those that kept what they had. */
static json_t *graphs_status(const struct lithosd_tenant *t, const uint64_t counters[LITHOS_COUNTER_MAX])
{
    json_t *keep = json_object();
#define W(name, why)                                                                                     \
    json_object_set_new(keep,                                                                            \
                        lithos_counter_name(LITHOS_COUNTER_GRAPH_KEEPS_##name) + strlen("graph_keeps_"), \
                        number(counters[LITHOS_COUNTER_GRAPH_KEEPS_##name]));
#include "hw/graph_keeps.def"
#undef W
    return json_pack("{s:o,s:o,s:o,s:o}", "followed", number(counters[LITHOS_COUNTER_GRAPH_FOLLOWED]),
                     "nodes", number(counters[LITHOS_COUNTER_GRAPH_FOLLOWED_NODES]), "keep", keep, "hold",
                     lithosd_hold_status(t));
}

static json_t *tenant_status(const struct lithosd *d, const struct lithosd_tenant *t)
{
    char id[24], quota[16];
    uint64_t counters[LITHOS_COUNTER_MAX];
    json_t *counts = json_object();
    lithosd_tenant_counters(t, counters);
    for (int c = 0; c < LITHOS_COUNTER_MAX; c++)
        json_object_set_new(counts, lithos_counter_name((enum lithos_counter)c),
                            json_integer((json_int_t)(counters[c] & INT64_MAX)));
    snprintf(id, sizeof id, "%llx", (unsigned long long)t->id);
    return json_pack(
        "{s:s,s:s,s:s,s:i,s:s,s:s,s:s,s:i,s:b,s:b,s:f,s:f,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}",
        "name", t->name, "id", id, "command", t->command, "uid", (int)t->uid, "mode", mode_names[t->mode],
        "class", lithos_class_name(t->grant.class), "quota", lithos_quota_format(&t->quota, quota),
        "thread_percentage", (int)t->thread_percentage, "mps", (int)t->mps, "mps_lost", (int)t->mps_lost,
        "since", (double)t->since_unix_ms / 1000, "seconds",
        ((double)lithosd_unix_ms() - (double)t->since_unix_ms) / 1000, "pids", pids_status(d, t), "gpus",
        tenant_gpus(d, t), "counters", counts, "queue", queue_status(t, counters), "share",
        lithosd_share_status(t), "atoms", lithosd_atoms_status(t, counters), "graphs",
        graphs_status(t, counters), "observed", lithosd_observe_status(t), "energy",
        lithosd_power_tenant_status(t), "slice", lithosd_slice_status(t), "rightsize",
        lithosd_rightsize_status(t));
}

static json_t *events_status(const struct lithosd_events *e)
{
    json_t *array = json_array();
    for (uint64_t i = e->count > LITHOSD_EVENTS ? e->count - LITHOSD_EVENTS : 0; i < e->count; i++) {
        const struct lithosd_event *event = &e->ring[i % LITHOSD_EVENTS];
        json_t *text = json_string(event->text);
        json_array_append_new(array, json_pack("{s:f,s:s,s:o}", "time", (double)event->unix_ms / 1000, "kind",
                                               event->kind, "text", text ? text : json_string("(not text)")));
    }
    return array;
}

char *lithosd_status(struct lithosd *d)
{
    json_t *root = json_object(), *gpus = json_array(), *tenants = json_array();
    json_object_set_new(root, "schema", json_integer(STATUS_VERSION));
    json_object_set_new(root, "version", json_string(LITHOS_VERSION));
    json_object_set_new(root, "pid", json_integer(getpid()));
    json_object_set_new(root, "uid", json_integer(geteuid()));
    json_object_set_new(root, "uptime", json_real((double)(lithos_now_ns() - d->start_ns) / 1e9));
    json_object_set_new(root, "socket", json_string(d->options.socket));
    json_object_set_new(root, "state_file", json_string(d->state_path));
    json_object_set_new(root, "state_written", json_boolean(!d->state_failed));
    json_object_set_new(root, "driver", text_or_null(d->gpus.driver));
    json_object_set_new(root, "virtual", json_boolean(d->gpus.is_virtual));
    json_object_set_new(root, "error", text_or_null(d->gpus.error));
    json_object_set_new(root, "mps", mps_status(&d->mps));
    json_object_set_new(root, "scheduler", lithosd_lend_status(d));
    json_object_set_new(root, "power", lithosd_power_status(d));
    for (unsigned i = 0; i < d->gpus.count; i++)
        json_array_append_new(gpus, gpu_status(&d->gpus.gpu[i]));
    json_object_set_new(root, "gpus", gpus);
    for (unsigned i = 0; i < LITHOSD_TENANT_MAX; i++)
        if (d->tenants[i].used)
            json_array_append_new(tenants, tenant_status(d, &d->tenants[i]));
    json_object_set_new(root, "tenants", tenants);
    json_object_set_new(root, "events", events_status(&d->events));
    char *text = json_dumps(root, JSON_INDENT(2));
    json_decref(root);
    return text;
}
