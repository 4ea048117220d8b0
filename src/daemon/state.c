#include "daemon/state.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/socket.h"

#define STATE_VERSION 1
#define TIME_MAX_MS 9007199254740992ll /* 2^53 */

static const char *const mode_names[LITHOS_MODE_MAX] = {"mask", "coarse", "none"};

/* ---- writing ---- */

static json_t *encode_counters(const uint64_t counters[LITHOS_COUNTER_MAX])
{
    json_t *object = json_object();
    for (int c = 0; c < LITHOS_COUNTER_MAX; c++)
        json_object_set_new(object, lithos_counter_name((enum lithos_counter)c),
                            json_integer((json_int_t)(counters[c] & INT64_MAX)));
    return object;
}

/* What was said, in the core's units. */
static json_t *encode_share(const struct lithos_share *s)
{
    json_t *object = json_object();
    if (s->given & LITHOS_SHARE_WEIGHT)
        json_object_set_new(object, "weight", json_integer(s->weight));
    if (s->given & LITHOS_SHARE_FLOOR)
        json_object_set_new(object, "floor_tpcs", json_integer(s->floor_tpcs));
    if (s->given & LITHOS_SHARE_SLIP)
        json_object_set_new(object, "slip_ppm", json_integer(s->slip_ppm));
    if (s->given & LITHOS_SHARE_SLO)
        json_object_set_new(object, "slo_ns", json_integer((json_int_t)s->slo_ns));
    if (s->given & LITHOS_SHARE_GRAPHS)
        json_object_set_new(object, "graphs", json_integer(s->graphs));
    return object;
}

static json_t *encode_tenant(const struct lithosd_saved_tenant *t)
{
    char credentials[LITHOS_TENANT_TEXT_MAX], quota[16], atom[LITHOS_ATOM_POLICY_TEXT_MAX];
    json_t *gpus = json_array();
    for (uint32_t i = 0; i < t->gpu_count; i++) {
        char uuid[LITHOS_UUID_TEXT_MAX], own[LITHOS_TPCSET_TEXT_MAX];
        json_array_append_new(gpus, json_pack("{s:s,s:s}", "uuid", lithos_uuid_format(t->gpus[i].uuid, uuid),
                                              "own", lithos_tpcset_format(&t->gpus[i].own, own)));
    }
    return json_pack("{s:s,s:s,s:s,s:I,s:s,s:i,s:b,s:s,s:s,s:s,s:o,s:i,s:I,s:I,s:I,s:o,s:o}", "credentials",
                     lithos_tenant_format(t->id, t->token, credentials), "name", t->name, "command",
                     t->command, "uid", (json_int_t)t->uid, "mode", mode_names[t->mode], "thread_percentage",
                     (int)t->thread_percentage, "mps", (int)t->mps, "quota",
                     lithos_quota_format(&t->quota, quota), "atom", lithos_atom_policy_format(&t->atom, atom),
                     "class", lithos_class_name(t->class), "share", encode_share(&t->share), "root_pid",
                     (int)t->root_pid, "root_start", (json_int_t)t->root_start, "since_unix_ms",
                     (json_int_t)t->since_unix_ms, "epoch", (json_int_t)t->epoch, "gpus", gpus, "counters",
                     encode_counters(t->counters));
}

char *lithosd_state_encode(const struct lithosd_saved *s)
{
    json_t *tenants = json_array(), *processes = json_array();
    for (uint32_t i = 0; i < s->tenant_count; i++)
        json_array_append_new(tenants, encode_tenant(&s->tenants[i]));
    for (uint32_t i = 0; i < s->process_count; i++) {
        const struct lithosd_saved_process *p = &s->processes[i];
        json_array_append_new(processes,
                              json_pack("{s:i,s:I,s:i,s:s}", "pid", (int)p->pid, "start",
                                        (json_int_t)p->start, "tenant", (int)p->tenant, "name", p->name));
    }
    json_t *root = json_pack("{s:i,s:s,s:I,s:{s:b,s:i,s:s},s:o,s:o}", "lithosd_state", STATE_VERSION,
                             "boot_id", s->boot_id, "next_tenant", (json_int_t)s->next_tenant, "mps", "ours",
                             (int)s->mps.ours, "control_pid", (int)s->mps.control_pid, "pipe_dir",
                             s->mps.pipe_dir, "tenants", tenants, "processes", processes);
    char *text = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
    json_decref(root);
    return text;
}

/* ---- reading ---- */

/* What is being read, for the reason why not. */
struct reader {
    char *why;
    bool bad;
};

static void bad(struct reader *r, const char *key)
{
    if (!r->bad)
        snprintf(r->why, 256, "\"%s\" is missing, of the wrong type or out of range", key);
    r->bad = true;
}

static uint64_t read_integer(struct reader *r, const json_t *object, const char *key, json_int_t low,
                             json_int_t high)
{
    const json_t *v = json_object_get(object, key);
    if (json_is_integer(v) && json_integer_value(v) >= low && json_integer_value(v) <= high)
        return (uint64_t)json_integer_value(v);
    bad(r, key);
    return 0;
}

static uint32_t read_bool(struct reader *r, const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);
    if (!json_is_boolean(v))
        bad(r, key);
    return json_is_true(v);
}

/* Visible ASCII and spaces that fit. */
static void read_text(struct reader *r, const json_t *object, const char *key, char *to, size_t size)
{
    const json_t *v = json_object_get(object, key);
    const char *text = json_string_value(v);
    to[0] = '\0';
    if (!text || json_string_length(v) != strlen(text) || strlen(text) >= size) {
        bad(r, key);
        return;
    }
    for (const char *p = text; *p; p++)
        if (*p < ' ' || *p > '~') {
            bad(r, key);
            return;
        }
    memcpy(to, text, strlen(text) + 1);
}

static uint32_t read_mode(struct reader *r, const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    for (uint32_t m = 0; text && m < LITHOS_MODE_MAX; m++)
        if (!strcmp(text, mode_names[m]))
            return m;
    bad(r, key);
    return 0;
}

static void read_gpus(struct reader *r, const json_t *array, struct lithosd_saved_tenant *t)
{
    if (!json_is_array(array) || json_array_size(array) == 0 || json_array_size(array) > LITHOS_MAX_GPUS) {
        bad(r, "gpus");
        return;
    }
    for (size_t i = 0; i < json_array_size(array); i++) {
        const json_t *object = json_array_get(array, i);
        const char *uuid = json_string_value(json_object_get(object, "uuid"));
        const char *own = json_string_value(json_object_get(object, "own"));
        struct lithosd_saved_gpu *g = &t->gpus[i];
        if (!uuid || lithos_uuid_parse(uuid, g->uuid) < 0)
            bad(r, "uuid");
        if (!own || lithos_tpcset_parse(own, &g->own) < 0 || lithos_tpcset_empty(&g->own))
            bad(r, "own");
        for (size_t j = 0; j < i; j++)
            if (!memcmp(t->gpus[j].uuid, g->uuid, LITHOS_UUID_BYTES))
                bad(r, "uuid");
    }
    t->gpu_count = (uint32_t)json_array_size(array);
}

static uint64_t read_said(struct reader *r, const json_t *object, const char *key, uint32_t option,
                          json_int_t max, uint32_t *given)
{
    if (!json_object_get(object, key))
        return 0;
    *given |= option;
    return read_integer(r, object, key, 0, max);
}

/* Not in files of before. */
static void read_share(struct reader *r, const json_t *object, struct lithos_share *s)
{
    if (!object)
        return;
    s->weight =
        (uint32_t)read_said(r, object, "weight", LITHOS_SHARE_WEIGHT, LITHOS_SHARE_WEIGHT_MAX, &s->given);
    s->floor_tpcs =
        (uint32_t)read_said(r, object, "floor_tpcs", LITHOS_SHARE_FLOOR, LITHOS_TPC_BITS, &s->given);
    s->slip_ppm =
        (uint32_t)read_said(r, object, "slip_ppm", LITHOS_SHARE_SLIP, LITHOS_SHARE_SLIP_MAX_PPM, &s->given);
    s->slo_ns =
        read_said(r, object, "slo_ns", LITHOS_SHARE_SLO, (json_int_t)LITHOS_SHARE_SLO_MAX_NS, &s->given);
    s->graphs =
        (uint32_t)read_said(r, object, "graphs", LITHOS_SHARE_GRAPHS, LITHOS_GRAPHS_MAX - 1, &s->given);
    if (!json_is_object(object) || lithos_share_validate(s) < 0)
        bad(r, "share");
}

static void read_tenant(struct reader *r, const json_t *object, struct lithosd_saved_tenant *t)
{
    const char *credentials = json_string_value(json_object_get(object, "credentials"));
    const char *quota = json_string_value(json_object_get(object, "quota"));
    const json_t *counters = json_object_get(object, "counters");
    if (!credentials || lithos_tenant_parse(credentials, &t->id, t->token) < 0 || t->id > INT64_MAX)
        bad(r, "credentials");
    if (!quota || lithos_quota_parse(quota, &t->quota) < 0)
        bad(r, "quota");
    const json_t *atom = json_object_get(object, "atom"); /* not in files of before */
    if (atom && (!json_is_string(atom) || lithos_atom_policy_parse(json_string_value(atom), &t->atom) < 0))
        bad(r, "atom");
    const json_t *class = json_object_get(object, "class"); /* the same */
    if (class && (!json_is_string(class) || lithos_class_parse(json_string_value(class), &t->class) < 0))
        bad(r, "class");
    if (t->quota.value == 0 && t->class != LITHOS_CLASS_BEST_EFFORT)
        bad(r, "quota");
    read_share(r, json_object_get(object, "share"), &t->share);
    read_text(r, object, "name", t->name, sizeof t->name);
    if (!t->name[0] || strpbrk(t->name, " \"'\\"))
        bad(r, "name");
    read_text(r, object, "command", t->command, sizeof t->command);
    t->uid = (uid_t)read_integer(r, object, "uid", 0, UINT32_MAX);
    t->mode = read_mode(r, object, "mode");
    t->thread_percentage = (uint32_t)read_integer(r, object, "thread_percentage", 0, 100);
    t->mps = read_bool(r, object, "mps");
    t->root_pid = (pid_t)read_integer(r, object, "root_pid", 1, INT_MAX);
    t->root_start = read_integer(r, object, "root_start", 0, INT64_MAX);
    t->since_unix_ms = read_integer(r, object, "since_unix_ms", 0, TIME_MAX_MS);
    t->epoch = read_integer(r, object, "epoch", 1, INT64_MAX - 1);
    read_gpus(r, json_object_get(object, "gpus"), t);
    for (int c = 0; c < LITHOS_COUNTER_MAX; c++) /* a counter that a newer release has added reads as 0 */
        t->counters[c] =
            json_object_get(counters, lithos_counter_name((enum lithos_counter)c))
                ? read_integer(r, counters, lithos_counter_name((enum lithos_counter)c), 0, INT64_MAX)
                : 0;
}

static void read_process(struct reader *r, const json_t *object, uint32_t tenants,
                         struct lithosd_saved_process *p)
{
    p->pid = (pid_t)read_integer(r, object, "pid", 1, INT_MAX);
    p->start = read_integer(r, object, "start", 0, INT64_MAX);
    p->tenant = (uint32_t)read_integer(r, object, "tenant", 0, (json_int_t)tenants - 1);
    read_text(r, object, "name", p->name, sizeof p->name);
}

static bool overlap(const struct lithosd_saved_tenant *a, const struct lithosd_saved_tenant *b)
{
    for (uint32_t i = 0; i < a->gpu_count; i++)
        for (uint32_t j = 0; j < b->gpu_count; j++) {
            struct lithos_tpcset both = lithos_tpcset_and(a->gpus[i].own, b->gpus[j].own);
            if (!memcmp(a->gpus[i].uuid, b->gpus[j].uuid, LITHOS_UUID_BYTES) && !lithos_tpcset_empty(&both) &&
                a->quota.value && b->quota.value) /* the others own nothing */
                return true;
        }
    return false;
}

static void check_tenants(struct reader *r, const struct lithosd_saved *s)
{
    for (uint32_t i = 0; i < s->tenant_count && !r->bad; i++)
        for (uint32_t j = 0; j < i && !r->bad; j++) {
            const struct lithosd_saved_tenant *a = &s->tenants[i], *b = &s->tenants[j];
            if (a->id != b->id && strcmp(a->name, b->name) != 0 && !overlap(a, b))
                continue;
            r->bad = true;
            snprintf(r->why, 256, "two tenants (%.60s, %.60s) share an id, a name or a TPC", a->name,
                     b->name);
        }
    for (uint32_t i = 0; i < s->tenant_count; i++)
        if (s->tenants[i].id >= s->next_tenant)
            bad(r, "next_tenant");
}

static void read_root(struct reader *r, const json_t *root, struct lithosd_saved *s)
{
    const json_t *tenants = json_object_get(root, "tenants"), *processes = json_object_get(root, "processes");
    const json_t *mps = json_object_get(root, "mps");
    read_integer(r, root, "lithosd_state", STATE_VERSION, STATE_VERSION);
    read_text(r, root, "boot_id", s->boot_id, sizeof s->boot_id);
    s->next_tenant = read_integer(r, root, "next_tenant", 1, INT64_MAX);
    s->mps.ours = read_bool(r, mps, "ours");
    s->mps.control_pid = (pid_t)read_integer(r, mps, "control_pid", 0, INT_MAX);
    read_text(r, mps, "pipe_dir", s->mps.pipe_dir, sizeof s->mps.pipe_dir);
    if (!json_is_array(tenants) || json_array_size(tenants) > LITHOSD_TENANT_MAX)
        bad(r, "tenants");
    if (!json_is_array(processes) || json_array_size(processes) > LITHOSD_PROCESS_MAX)
        bad(r, "processes");
    if (r->bad)
        return;
    s->tenant_count = (uint32_t)json_array_size(tenants);
    s->process_count = (uint32_t)json_array_size(processes);
    for (uint32_t i = 0; i < s->tenant_count; i++)
        read_tenant(r, json_array_get(tenants, i), &s->tenants[i]);
    for (uint32_t i = 0; i < s->process_count; i++)
        read_process(r, json_array_get(processes, i), s->tenant_count, &s->processes[i]);
    check_tenants(r, s);
}

int lithosd_state_decode(const char *text, size_t len, struct lithosd_saved *ret_saved, char why[256])
{
    json_error_t error;
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(root)) {
        snprintf(why, 256, "not a JSON object: %.160s", root ? "another type" : error.text);
        json_decref(root);
        return -EINVAL;
    }
    struct lithosd_saved *s = calloc(1, sizeof *s);
    struct reader r = {.why = why};
    if (s)
        read_root(&r, root, s);
    else
        snprintf(why, 256, "out of memory");
    int result = s && !r.bad ? 0 : -EINVAL;
    if (result == 0)
        *ret_saved = *s;
    free(s);
    json_decref(root);
    return result;
}
