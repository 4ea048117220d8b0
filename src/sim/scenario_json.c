/* Scenarios from JSON (docs/simulator.md has the format). */
#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/util.h"
#include "sim/scenario.h"

#define FILE_MAX (4u << 20)
#define KERNELS_MAX 100000u
#define DEPTH_MAX 8u

struct reader {
    struct lithos_sim_scenario *sc;
    const json_t *root;
    const char *dir; /* where the scenario lies */
    uint32_t sms;    /* that the app is told of */
    char *error;
};

static int LITHOS_PRINTF(2, 3) fail(const struct reader *r, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(r->error, LITHOS_SIM_ERROR_BYTES, fmt, ap);
    va_end(ap);
    return -EINVAL;
}

/* A number within bounds; `otherwise` when it is not there. */
static int number(const struct reader *r, const json_t *o, const char *key, double least, double most,
                  double otherwise, double *ret)
{
    const json_t *v = json_object_get(o, key);
    if (v && (!json_is_number(v) || json_number_value(v) < least || json_number_value(v) > most))
        return fail(r, "\"%s\" is not a number from %g to %g", key, least, most);
    *ret = v ? json_number_value(v) : otherwise;
    return 0;
}

/* The same, as whole ns, of a key whose unit is so many ns. */
static int time_ns(const struct reader *r, const json_t *o, const char *key, double unit_ns,
                   uint64_t otherwise, uint64_t *ret)
{
    double v;
    const int e = number(r, o, key, 0, 1e15 / unit_ns, -1, &v);
    if (e < 0)
        return e;
    *ret = v < 0 ? otherwise : (uint64_t)(v * unit_ns + 0.5);
    return 0;
}

static int count(const struct reader *r, const json_t *o, const char *key, uint32_t least, uint32_t most,
                 uint32_t otherwise, uint32_t *ret)
{
    double v;
    const int e = number(r, o, key, least, most, otherwise, &v);
    if (e >= 0)
        *ret = (uint32_t)v;
    return e;
}

static int no_others(const struct reader *r, const json_t *o, const char *what, const char *const *keys)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)o, key, v)
    {
        const char *const *k = keys;
        while (*k && strcmp(*k, key))
            k++;
        if (!*k)
            return fail(r, "%s has a key \"%.40s\" that means nothing", what, key);
    }
    return 0;
}

/* --- programs --- */

static int add_kernel(const struct reader *r, const json_t *o, struct lithos_sim_program *p)
{
    static const char *const keys[] = {"us",          "blocks", "residency",  "saturation", "cluster", "cut",
                                       "cooperative", "memory", "persistent", "comment",    NULL};
    uint32_t blocks, residency, saturation, cluster, flags = 0;
    uint64_t duration_ns;
    double memory;
    int e = no_others(r, o, "a kernel", keys);

    if (e >= 0)
        e = time_ns(r, o, "us", 1e3, 5000, &duration_ns);
    if (e >= 0)
        e = count(r, o, "blocks", 1, 1u << 30, 132, &blocks);
    if (e >= 0)
        e = count(r, o, "residency", 1, 64, 1, &residency);
    if (e >= 0)
        e = count(r, o, "saturation", 1, 64, 1, &saturation);
    if (e >= 0)
        e = count(r, o, "cluster", 1, LITHOS_CLUSTER_MAX, 1, &cluster);
    if (e >= 0)
        e = number(r, o, "memory", 0, 4, 0, &memory);
    if (e < 0)
        return e;
    if (p->count >= KERNELS_MAX)
        return fail(r, "a program of more than %u kernels", KERNELS_MAX);
    if (json_is_true(
            json_object_get(o, "persistent"))) { /* a block for each multiprocessor that it is told of */
        blocks = LITHOS_MAX(r->sms / cluster * cluster, cluster);
        duration_ns = duration_ns * lithos_card_sms(&r->sc->card) / blocks;
    }
    flags |= json_is_true(json_object_get(o, "cut")) ? LITHOS_SIM_CUTTABLE : 0;
    flags |= json_is_true(json_object_get(o, "cooperative")) ? LITHOS_SIM_RESIDENT : 0;
    flags |= memory > 0.5 ? LITHOS_SIM_MEMORY : 0;
    /* alone on the card, memory holds it up already */
    const double held_up = r->sc->bandwidth && memory > 1 ? memory : 1;
    struct lithos_wave_kernel k = lithos_sim_kernel(&r->sc->card, (uint64_t)((double)duration_ns / held_up),
                                                    0, blocks, residency, saturation, cluster);
    k.bandwidth_ppm = (uint32_t)(memory * LITHOS_WAVE_PPM + 0.5);
    return lithos_sim_program_add(p, &k, duration_ns, flags);
}

/* A kernel's name, a kernel, a list of these, or {"repeat": n, "of": [...]}. */
static int add_sequence(const struct reader *r, const json_t *o, unsigned depth, struct lithos_sim_program *p)
{
    uint32_t repeat = 1;
    int e = 0;

    if (depth > DEPTH_MAX)
        return fail(r, "a sequence nested more than %u deep", DEPTH_MAX);
    if (json_is_string(o)) {
        const json_t *k = json_object_get(json_object_get(r->root, "kernels"), json_string_value(o));
        if (!json_is_object(k))
            return fail(r, "there is no kernel \"%.40s\"", json_string_value(o));
        return add_kernel(r, k, p);
    }
    if (json_is_object(o) && json_object_get(o, "of")) {
        e = count(r, o, "repeat", 1, KERNELS_MAX, 1, &repeat);
        o = json_object_get(o, "of");
    } else if (json_is_object(o)) {
        return add_kernel(r, o, p);
    }
    if (e >= 0 && !json_is_array(o))
        return fail(r, "a sequence is a list of kernels");
    while (e >= 0 && repeat--) {
        for (size_t i = 0; i < json_array_size(o) && e >= 0; i++)
            e = add_sequence(r, json_array_get(o, i), depth + 1, p);
    }
    return e;
}

/* {"part of a name": share of the card's memory bandwidth, ...}; order counts. */
static int read_memories(const struct reader *r, const json_t *o, struct lithos_sim_memory *memories,
                         size_t *ret_count)
{
    const char *key;
    json_t *v;
    double share;

    *ret_count = 0;
    if (o && (!json_is_object(o) || json_object_size(o) > LITHOS_SIM_MEMORIES_MAX))
        return fail(r, "\"memory\" of a trace is not an object of at most %u names", LITHOS_SIM_MEMORIES_MAX);
    json_object_foreach((json_t *)o, key, v)
    {
        const int e = number(r, o, key, 0, 4, 0, &share);
        if (e < 0)
            return e;
        memories[(*ret_count)++] =
            (struct lithos_sim_memory){key, r->sc->bandwidth ? (uint32_t)(share * LITHOS_WAVE_PPM + 0.5) : 0};
    }
    return 0;
}

/* A program that was recorded. */
static int read_trace(const struct reader *r, const json_t *o, struct lithos_sim_program *p)
{
    const char *path = json_string_value(json_object_get(o, "trace"));
    const char *tenant = json_string_value(json_object_get(o, "tenant"));
    struct lithos_sim_memory memories[LITHOS_SIM_MEMORIES_MAX];
    size_t memory_count = 0;
    uint32_t most;
    char full[4096];

    int e = count(r, o, "kernels", 1, KERNELS_MAX, 10000, &most);
    if (e >= 0)
        e = read_memories(r, json_object_get(o, "memory"), memories, &memory_count);
    if (e < 0)
        return e;
    if (!path)
        return fail(r, "\"trace\" is not a file's name");
    snprintf(full, sizeof full, "%s%s%s", *path == '/' ? "" : r->dir, *path == '/' ? "" : "/", path);
    return lithos_sim_program_from_trace(p, &r->sc->card, full, tenant, most, memories, memory_count,
                                         r->error);
}

static int read_program(struct reader *r, const char *name, uint32_t sms, struct lithos_sim_program *p)
{
    static const char *const keys[] = {"graph",   "sequence", "comment", "trace", "tenant",
                                       "kernels", "memory",   "gaps",    NULL};
    const json_t *o = json_object_get(json_object_get(r->root, "programs"), name);

    if (!json_is_object(o))
        return fail(r, "there is no program \"%.40s\"", name);
    r->sms = sms;
    int e = no_others(r, o, "a program", keys);
    if (e >= 0 && json_object_get(o, "trace"))
        e = read_trace(r, o, p);
    else if (e >= 0)
        e = add_sequence(r, json_object_get(o, "sequence"), 0, p);
    if (e >= 0 && !p->count)
        e = fail(r, "the program \"%.40s\" has no kernels", name);
    if (json_is_false(json_object_get(o, "gaps"))) {
        free(p->gaps_ns);
        p->gaps_ns = NULL;
    }
    p->graph = json_is_true(json_object_get(o, "graph"));
    return e;
}

/* --- tenants --- */

static int read_arrivals(const struct reader *r, const json_t *o, struct lithos_sim_tenant *t)
{
    static const char *const keys[] = {
        "every_us", "poisson_per_s", "bursts_per_s", "on_ms", "off_ms", "think_us", NULL};
    const bool periodic = json_object_get(o, "every_us"), poisson = json_object_get(o, "poisson_per_s"),
               bursts = json_object_get(o, "bursts_per_s");
    double per_s = 0;
    int e = no_others(r, o, "\"arrivals\"", keys);

    if (periodic + poisson + bursts > 1)
        return fail(r, "arrivals are of one kind");
    t->arrival = periodic  ? LITHOS_SIM_PERIODIC
                 : poisson ? LITHOS_SIM_POISSON
                 : bursts  ? LITHOS_SIM_BURSTS
                           : LITHOS_SIM_CLOSED;
    if (e >= 0)
        e = time_ns(r, o, "every_us", 1e3, 0, &t->interval_ns);
    if (e >= 0)
        e = number(r, o, poisson ? "poisson_per_s" : "bursts_per_s", 0.001, 1e6, 0, &per_s);
    if (e >= 0)
        e = time_ns(r, o, "on_ms", 1e6, LITHOS_NSEC_PER_MSEC, &t->on_ns);
    if (e >= 0)
        e = time_ns(r, o, "off_ms", 1e6, LITHOS_NSEC_PER_MSEC, &t->off_ns);
    if (e >= 0)
        e = time_ns(r, o, "think_us", 1e3, 10000, &t->think_ns);
    if (e >= 0 && per_s > 0)
        t->interval_ns = (uint64_t)(1e9 / per_s);
    if (e >= 0 && t->arrival != LITHOS_SIM_CLOSED && !t->interval_ns)
        return fail(r, "arrivals need an interval or a rate");
    return e;
}

/* How the app's own work goes: a part of its time, drawn anew each so often. */
static int read_pace(const struct reader *r, const json_t *o, struct lithos_sim_tenant *t)
{
    static const char *const keys[] = {"from", "to", "every_ms", NULL};
    double from, to;
    if (!o)
        return 0;
    int e = no_others(r, o, "\"pace\"", keys);
    if (e >= 0)
        e = number(r, o, "from", 0.01, 100, 1, &from);
    if (e >= 0)
        e = number(r, o, "to", from, 100, from, &to);
    if (e >= 0)
        e = time_ns(r, o, "every_ms", 1e6, 500 * LITHOS_NSEC_PER_MSEC, &t->pace_ns);
    if (e < 0)
        return e;
    if (!t->pace_ns)
        return fail(r, "\"every_ms\" of a pace is 0");
    t->pace_from_ppm = (uint32_t)(from * LITHOS_WAVE_PPM + 0.5);
    t->pace_to_ppm = (uint32_t)(to * LITHOS_WAVE_PPM + 0.5);
    return 0;
}

static int read_promises(const struct reader *r, const json_t *o, struct lithos_sim_tenant *t)
{
    double quota, slip, jitter, rightsize;
    int e = number(r, o, "quota", 0, 100, 0, &quota);

    if (e >= 0)
        e = number(r, o, "slip", 1, 100, 0, &slip);
    if (e >= 0)
        e = number(r, o, "rightsize", 1, 100, 0, &rightsize);
    if (e >= 0)
        e = number(r, o, "jitter", 0, 0.9, 0.02, &jitter);
    if (e >= 0)
        e = time_ns(r, o, "slo_ms", 1e6, 0, &t->slo_ns);
    if (e >= 0)
        e = count(r, o, "weight", 0, 1000, t->class == LITHOS_SCHED_BEST_EFFORT, &t->weight);
    if (e >= 0)
        e = count(r, o, "floor_tpcs", 0, LITHOS_TPC_BITS, 0, &t->floor_tpcs);
    if (e < 0)
        return e;
    t->quota = (uint32_t)(quota * 100 + 0.5);
    t->slip_ppm = (uint32_t)(slip * LITHOS_SCHED_PPM + 0.5);
    t->rightsize_ppm = (uint32_t)(rightsize * LITHOS_SCHED_PPM + 0.5);
    t->jitter_ppm = (uint32_t)(jitter * LITHOS_SCHED_PPM + 0.5);
    return 0;
}

static int read_tenant(struct reader *r, const json_t *o, struct lithos_sim_tenant *t)
{
    static const char *const keys[] = {"name",   "class",      "quota",     "slo_ms",   "slip",
                                       "weight", "floor_tpcs", "program",   "arrivals", "launch_us",
                                       "jitter", "start_ms",   "rightsize", "stop_ms",  "waits",
                                       "sms",    "pace",       "comment",   NULL};
    const uint32_t card_sms = lithos_card_sms(&r->sc->card);
    uint32_t sms;
    const char *name = json_string_value(json_object_get(o, "name"));
    const char *class = json_string_value(json_object_get(o, "class"));
    const char *program = json_string_value(json_object_get(o, "program"));
    int e = no_others(r, o, "a tenant", keys);

    if (e < 0)
        return e;
    if (!name || !*name || strlen(name) >= sizeof t->name)
        return fail(r, "a tenant's \"name\" is missing or too long");
    strcpy(t->name, name);
    if (!class || (strcmp(class, "high") && strcmp(class, "best-effort")))
        return fail(r, "\"class\" of %s is not \"high\" or \"best-effort\"", t->name);
    t->class = strcmp(class, "high") ? LITHOS_SCHED_BEST_EFFORT : LITHOS_SCHED_HIGH;
    if (!program)
        return fail(r, "\"program\" of %s is missing", t->name);
    e = count(r, o, "sms", 1, card_sms, card_sms, &sms);
    if (e >= 0)
        e = read_program(r, program, sms, &t->program);
    if (e >= 0 && sms != card_sms)
        e = read_program(r, program, card_sms, &t->full);
    if (e >= 0)
        e = read_arrivals(r, json_object_get(o, "arrivals"), t);
    if (e >= 0)
        e = read_pace(r, json_object_get(o, "pace"), t);
    if (e >= 0)
        e = read_promises(r, o, t);
    if (e >= 0)
        e = time_ns(r, o, "launch_us", 1e3, 4000, &t->launch_ns);
    if (e >= 0)
        e = time_ns(r, o, "start_ms", 1e6, 0, &t->start_ns);
    if (e >= 0)
        e = time_ns(r, o, "stop_ms", 1e6, LITHOS_SIM_NEVER, &t->stop_ns);
    t->waits = json_is_true(json_object_get(o, "waits"));
    return e;
}

static int read_fault(const struct reader *r, const json_t *o, struct lithos_sim_fault *f)
{
    static const char *const kinds[LITHOS_SIM_FAULT_MAX] = {"dies",        "mispredicts",  "stamps_late",
                                                            "stamps_lost", "daemon_stops", "daemon_slow"};
    static const char *const keys[] = {"kind",     "tenant", "from_ms", "to_ms",
                                       "delay_us", "factor", "every",   NULL};
    const char *kind = json_string_value(json_object_get(o, "kind"));
    const char *tenant = json_string_value(json_object_get(o, "tenant"));
    double factor;
    int e = no_others(r, o, "a fault", keys);

    if (e < 0)
        return e;
    for (f->kind = 0; f->kind < LITHOS_SIM_FAULT_MAX && (!kind || strcmp(kind, kinds[f->kind]));)
        f->kind++;
    if (f->kind == LITHOS_SIM_FAULT_MAX)
        return fail(r, "a fault's \"kind\" is missing or unknown");
    f->tenant = UINT32_MAX;
    for (uint32_t i = 0; tenant && i < r->sc->tenant_count; i++)
        if (!strcmp(r->sc->tenants[i].name, tenant))
            f->tenant = i;
    if (tenant && f->tenant == UINT32_MAX)
        return fail(r, "a fault names a tenant \"%.40s\" that there is not", tenant);
    e = time_ns(r, o, "from_ms", 1e6, 0, &f->from_ns);
    if (e >= 0)
        e = time_ns(r, o, "to_ms", 1e6, LITHOS_SIM_NEVER, &f->to_ns);
    if (e >= 0)
        e = time_ns(r, o, "delay_us", 1e3, 0, &f->delay_ns);
    if (e >= 0)
        e = number(r, o, "factor", 0.01, 100, 1, &factor);
    if (e >= 0)
        e = count(r, o, "every", 1, 1000000, 100, &f->every);
    if (e >= 0)
        f->factor_ppm = (uint32_t)(factor * LITHOS_SCHED_PPM);
    return e;
}

/* --- the whole --- */

static int read_tuning(const struct reader *r, const json_t *o, struct lithos_sched_config *c)
{
    const struct {
        const char *key;
        uint64_t *to;
    } times[] = {
        {"window_us", &c->window_ns},   {"lent_window_us", &c->lent_window_ns},
        {"atom_us", &c->atom_ns},       {"idle_longest_us", &c->idle_longest_ns},
        {"useful_us", &c->useful_ns},   {"turn_us", &c->turn_ns},
        {"starved_us", &c->starved_ns}, {"react_us", &c->react_ns},
        {"beside_us", &c->beside_ns},
    };
    static const char *const keys[] = {"window_us", "lent_window_us", "atom_us",   "idle_longest_us",
                                       "useful_us", "turn_us",        "beside_us", "starved_us",
                                       "react_us",  "slip",           "hit",       "thin",
                                       NULL};
    double slip, hit, thin;
    int e = no_others(r, o, "\"tuning\"", keys);

    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(times) && e >= 0; i++)
        e = time_ns(r, o, times[i].key, 1e3, *times[i].to, times[i].to);
    if (e >= 0)
        e = number(r, o, "slip", 1, 100, (double)c->slip_ppm / LITHOS_SCHED_PPM, &slip);
    if (e >= 0)
        e = number(r, o, "hit", 0, 1, (double)c->hit_ppm / LITHOS_SCHED_PPM, &hit);
    if (e >= 0)
        e = number(r, o, "thin", 0, 1, (double)c->thin_ppm / LITHOS_SCHED_PPM, &thin);
    if (e < 0)
        return e;
    c->slip_ppm = (uint32_t)(slip * LITHOS_SCHED_PPM + 0.5);
    c->hit_ppm = (uint32_t)(hit * LITHOS_SCHED_PPM + 0.5);
    c->thin_ppm = (uint32_t)(thin * LITHOS_SCHED_PPM + 0.5);
    return 0;
}

int lithos_sim_scenario_tune(struct lithos_sim_scenario *sc, const char *assignment,
                             char error[LITHOS_SIM_ERROR_BYTES])
{
    const struct reader r = {.sc = sc, .error = error};
    const char *equals = strchr(assignment, '=');
    char key[64], *end;

    if (!equals || equals == assignment || (size_t)(equals - assignment) >= sizeof key)
        return fail(&r, "is not KEY=VALUE");
    snprintf(key, sizeof key, "%.*s", (int)(equals - assignment), assignment);
    const double value = strtod(equals + 1, &end);
    if (end == equals + 1 || *end)
        return fail(&r, "is not KEY=NUMBER");
    json_t *o = json_pack("{s:f}", key, value);
    if (!o)
        return -ENOMEM;
    const int e = read_tuning(&r, o, &sc->tuning);
    json_decref(o);
    return e;
}

static int read_card(const struct reader *r, const char *card_dir)
{
    const char *name = json_string_value(json_object_get(r->root, "card"));
    char path[4096], why[LITHOS_MODEL_ERROR_BYTES];

    name = name ? name : "h200";
    if (strchr(name, '/'))
        snprintf(path, sizeof path, "%s", name);
    else
        snprintf(path, sizeof path, "%s/%s.json", card_dir, name);
    const int e = lithos_card_load(path, &r->sc->card, why);
    return e < 0 ? fail(r, "card %.60s: %.120s", name, why) : 0;
}

static int read_lists(struct reader *r)
{
    const json_t *tenants = json_object_get(r->root, "tenants"), *faults = json_object_get(r->root, "faults");
    struct lithos_sim_scenario *sc = r->sc;
    int e = 0;

    if (!json_array_size(tenants) || json_array_size(tenants) > LITHOS_SIM_TENANTS_MAX)
        return fail(r, "\"tenants\" is not a list of 1 to %u", LITHOS_SIM_TENANTS_MAX);
    if (json_array_size(faults) > LITHOS_SIM_FAULTS_MAX)
        return fail(r, "more than %u faults", LITHOS_SIM_FAULTS_MAX);
    for (size_t i = 0; i < json_array_size(tenants) && e >= 0; i++)
        e = read_tenant(r, json_array_get(tenants, i), &sc->tenants[sc->tenant_count++]);
    for (size_t i = 0; i < json_array_size(faults) && e >= 0; i++)
        e = read_fault(r, json_array_get(faults, i), &sc->faults[sc->fault_count++]);
    return e;
}

static int read_scenario(struct reader *r, const char *card_dir)
{
    static const char *const keys[] = {
        "name",    "comment",     "card",    "seconds",   "warm_seconds", "quiet_seconds",
        "kernels", "programs",    "tenants", "faults",    "tuning",       "bandwidth",
        "recall",  "node_gap_us", "see_us",  "submit_us", "wake_us",      NULL};
    struct lithos_sim_scenario *sc = r->sc;
    const char *name = json_string_value(json_object_get(r->root, "name"));
    int e = no_others(r, r->root, "the scenario", keys);

    if (e >= 0 && (!name || !*name || strlen(name) >= sizeof sc->name))
        e = fail(r, "\"name\" is missing or too long");
    if (e >= 0) {
        snprintf(sc->name, sizeof sc->name, "%s", name ? name : "");
        sc->bandwidth = json_is_true(json_object_get(r->root, "bandwidth"));
        e = read_card(r, card_dir);
    }
    if (e >= 0)
        e = time_ns(r, r->root, "seconds", 1e9, LITHOS_NSEC_PER_SEC, &sc->duration_ns);
    if (e >= 0)
        e = time_ns(r, r->root, "warm_seconds", 1e9, sc->duration_ns / 10, &sc->warm_ns);
    if (e >= 0)
        e = time_ns(r, r->root, "quiet_seconds", 1e9, sc->quiet_ns, &sc->quiet_ns);
    if (e >= 0)
        e = time_ns(r, r->root, "node_gap_us", 1e3, sc->node_gap_ns, &sc->node_gap_ns);
    if (e >= 0)
        e = time_ns(r, r->root, "see_us", 1e3, sc->see_ns, &sc->see_ns);
    if (e >= 0)
        e = time_ns(r, r->root, "submit_us", 1e3, sc->submit_ns, &sc->submit_ns);
    if (e >= 0)
        e = time_ns(r, r->root, "wake_us", 1e3, sc->wake_ns, &sc->wake_ns);
    if (e >= 0)
        e = read_tuning(r, json_object_get(r->root, "tuning"), &sc->tuning);
    if (e < 0)
        return e;
    sc->recall = json_is_true(json_object_get(r->root, "recall"));
    return read_lists(r);
}

int lithos_sim_scenario_parse(const char *text, const char *dir, const char *card_dir,
                              struct lithos_sim_scenario *sc, char error[LITHOS_SIM_ERROR_BYTES])
{
    json_error_t where;
    struct reader r = {.sc = sc, .dir = dir, .error = error};

    lithos_sim_scenario_init(sc);
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, &where);
    r.root = root;
    if (!root)
        return fail(&r, "line %d: %s", where.line, where.text);
    const int e = json_is_object(root) ? read_scenario(&r, card_dir) : fail(&r, "not a JSON object");
    json_decref(root);
    return e;
}

int lithos_sim_scenario_load(const char *path, const char *card_dir, struct lithos_sim_scenario *sc,
                             char error[LITHOS_SIM_ERROR_BYTES])
{
    const char *slash = strrchr(path, '/');
    char *text, dir[4096];
    size_t len;

    snprintf(dir, sizeof dir, "%.*s", slash ? (int)LITHOS_MAX(slash - path, 1) : 1, slash ? path : ".");
    int r = lithos_read_file(path, FILE_MAX, &text, &len);
    if (r < 0) {
        lithos_sim_scenario_init(sc);
        snprintf(error, LITHOS_SIM_ERROR_BYTES, "cannot be read: %s", strerror(-r));
        return r;
    }
    r = lithos_sim_scenario_parse(text, dir, card_dir, sc, error);
    free(text);
    return r;
}
