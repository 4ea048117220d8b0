/* One case of the demo: programs started, warm, let go at the same moment, their figures read. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "cli/client.h"
#include "cli/demo.h"
#include "cli/document.h"

#define READY_NS (60 * LITHOS_NSEC_PER_SEC)

/* A program's command line and environment, as text that lives as long as the call that starts it. */
struct cast {
    char lithos[3200], program[3200], seconds[32], scale[32], period[32], warmup[32];
    char gpu_env[128], mps_env[384];
    const char *argv[40], *env[16];
};

static void add(const char **list, size_t room, const char *text)
{
    size_t n = 0;

    while (list[n])
        n++;
    if (n + 1 < room)
        list[n] = text;
}

#define ARG(c, text) add((c)->argv, LITHOS_ARRAY_SIZE((c)->argv), text)
#define ENV(c, text) add((c)->env, LITHOS_ARRAY_SIZE((c)->env), text)

static void write_part(const struct lithos_demo *d, enum lithos_demo_sharing sharing, bool service,
                       struct cast *c)
{
    static const char *const never[] = {"LITHOS_TENANT",
                                        "LITHOS_GRANT",
                                        "LITHOS_HOOK",
                                        "LD_PRELOAD",
                                        "CUDA_INJECTION64_PATH",
                                        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE",
                                        "CUDA_MPS_CLIENT_PRIORITY"};

    memset(c, 0, sizeof(*c));
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(never); i++)
        ENV(c, never[i]);
    snprintf(c->gpu_env, sizeof(c->gpu_env), "CUDA_VISIBLE_DEVICES=%s", d->gpu);
    snprintf(c->mps_env, sizeof(c->mps_env), "CUDA_MPS_PIPE_DIRECTORY=%s%s",
             sharing == LITHOS_DEMO_SLICED ? d->dir : d->mps_dir,
             sharing == LITHOS_DEMO_SLICED ? "/none" : "");
    ENV(c, c->gpu_env);
    ENV(c, c->mps_env);
    if (sharing == LITHOS_DEMO_LITHOS) {
        snprintf(c->lithos, sizeof(c->lithos), "%s/bin/lithos", d->base);
        const char *const run[] = {c->lithos, "run",   "--socket", d->socket, "--quota",
                                   "50%",     "--gpu", d->gpu,     "--name",  service ? "service" : "burner",
                                   "--"};
        for (size_t i = 0; i < LITHOS_ARRAY_SIZE(run); i++)
            ARG(c, run[i]);
    }
    snprintf(c->program, sizeof(c->program), "%s/libexec/lithos/%s", d->base,
             service ? "lithos-serve" : "lithos-burn");
    snprintf(c->seconds, sizeof(c->seconds), "%.6f", d->seconds);
    snprintf(c->scale, sizeof(c->scale), "%.6f", d->scale);
    snprintf(c->warmup, sizeof(c->warmup), "%.6f", 0.8 / d->scale);
    const char *const common[] = {c->program,     "--json", "--gate",   "--seconds", c->seconds,
                                  "--time-scale", c->scale, "--warmup", c->warmup};
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(common); i++)
        ARG(c, common[i]);
    if (sharing == LITHOS_DEMO_LITHOS)
        ARG(c, "--check");
    if (service) {
        snprintf(c->period, sizeof(c->period), "%.3f", d->period_us);
        ARG(c, "--period-us");
        ARG(c, c->period);
    }
}

static int fail(const struct lithos_child *child, const char *who, const char *what, int r)
{
    if (r != -EINTR)
        lithos_error("demo: the %s %s; it said: %s", who, what,
                     child->err.text && *child->err.text ? child->err.text : "nothing");
    return r;
}

static int start(const struct lithos_demo *d, enum lithos_demo_sharing sharing, bool service,
                 struct lithos_child *child)
{
    const char *who = service ? "service" : "burner";
    struct cast c;

    write_part(d, sharing, service, &c);
    int r = lithos_child_start(child, c.argv, c.env);
    if (r < 0) {
        lithos_error("demo: cannot start %s: %s", c.argv[0], strerror(-r));
        return r;
    }
    r = lithos_child_wait_for(child, "ready\n", lithos_now_ns() + READY_NS);
    if (r < 0)
        return fail(child, who,
                    r == -ECHILD ? "ended before it was warm" : "did not get warm within a minute", r);
    return 0;
}

/* The program's end and its figures: the JSON line after "ready". */
static int collect(struct lithos_child *child, const char *who, uint64_t deadline_ns, json_t **ret_figures)
{
    int status = 0, r = lithos_child_wait(child, deadline_ns, &status);

    if (r < 0)
        return fail(child, who, "did not end in time", r);
    const char *text = child->out.text ? strchr(child->out.text, '{') : NULL;
    json_t *figures = text ? json_loads(text, JSON_DISABLE_EOF_CHECK, NULL) : NULL;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0 || !json_is_object(figures)) {
        json_decref(figures);
        return fail(child, who, WIFSIGNALED(status) ? "was killed by a signal" : "failed", -EIO);
    }
    *ret_figures = figures;
    return 0;
}

static void read_tenant(const json_t *tenant, struct lithos_demo_result *result)
{
    const json_t *gpu = json_array_get(json_object_get(tenant, "gpus"), 0),
                 *counters = json_object_get(tenant, "counters");
    bool service = !strcmp(lithos_json_string(tenant, "name"), "service");

    lithos_tpcset_parse(lithos_json_string(gpu, "bits"), service ? &result->hp_tpcs : &result->be_tpcs);
    snprintf(result->mode, sizeof(result->mode), "%s", lithos_json_string(tenant, "mode"));
    result->escaped += lithos_json_integer(counters, "escaped");
    result->breaches += lithos_json_integer(counters, "breaches");
}

/* What the daemon says of the two, while they run. */
static int look(const struct lithos_demo *d, struct lithos_demo_result *result)
{
    json_t *document, *tenant;
    size_t i;
    int sock, r = lithos_client_connect(d->socket, false, &sock);

    if (r < 0)
        return r;
    r = lithos_client_document(sock, &document);
    close(sock);
    if (r < 0)
        return r;
    json_array_foreach(json_object_get(document, "tenants"), i, tenant) read_tenant(tenant, result);
    json_decref(document);
    return 0;
}

static void read_figures(const json_t *hp, const json_t *be, struct lithos_demo_result *result)
{
    result->hp_p50_us = lithos_json_number(hp, "p50_us");
    result->hp_p99_us = lithos_json_number(hp, "p99_us");
    result->hp_max_us = lithos_json_number(hp, "max_us");
    result->hp_rate = lithos_json_number(hp, "rate_per_s");
    result->hp_served = (uint64_t)lithos_json_integer(hp, "requests");
    result->hp_unserved = (uint64_t)lithos_json_integer(hp, "unserved");
    result->be_rate = lithos_json_number(be, "kernels_per_s");
    result->hp_sms = (int)lithos_json_integer(hp, "sms_used");
    result->be_sms = (int)lithos_json_integer(be, "sms_used");
    result->checked = lithos_json_true(hp, "check") && lithos_json_true(be, "check");
}

int lithos_demo_play(struct lithos_demo *d, const char *name, enum lithos_demo_sharing sharing, bool hp,
                     bool be, struct lithos_demo_result *ret_result)
{
    struct lithos_demo_result result = {.name = name, .hp = hp, .be = be};
    struct lithos_child service = LITHOS_CHILD_NONE, burner = LITHOS_CHILD_NONE;
    json_t *hp_figures = NULL, *be_figures = NULL;
    int r = be ? start(d, sharing, false, &burner) : 0;

    if (r == 0 && hp)
        r = start(d, sharing, true, &service);
    uint64_t begin_ns = lithos_now_ns(), length_ns = (uint64_t)(d->seconds * d->scale * 1e9);
    if (r == 0 && be)
        r = lithos_child_tell(&burner, "go\n");
    if (r == 0 && hp)
        r = lithos_child_tell(&service, "go\n");
    if (r == 0 && sharing == LITHOS_DEMO_LITHOS) {
        r = lithos_child_sleep(&service, begin_ns + length_ns * 8 / 10);
        if (r == 0)
            r = look(d, &result);
    }
    uint64_t deadline_ns = begin_ns + length_ns + READY_NS;
    if (r == 0 && hp)
        r = collect(&service, "service", deadline_ns, &hp_figures);
    if (r == 0 && be)
        r = collect(&burner, "burner", deadline_ns, &be_figures);
    if (r == 0) {
        read_figures(hp_figures, be_figures, &result);
        *ret_result = result;
    }
    json_decref(hp_figures);
    json_decref(be_figures);
    lithos_child_end(&service, 2000);
    lithos_child_end(&burner, 2000);
    return r;
}
