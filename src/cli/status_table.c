#include "cli/status_table.h"

#include <errno.h>
#include <string.h>

#include "base/tpcset.h"
#include "base/util.h"
#include "cli/document.h"
#include "cli/table.h"

static int print_gpus(const json_t *document, FILE *out)
{
    static const char *const headings[] = {">GPU", "NAME", ">TPCS", ">FREE", "UUID"};
    struct lithos_gpu_info gpus[LITHOS_MAX_GPUS];
    unsigned n = lithos_document_gpus(document, gpus);
    struct lithos_table *t = lithos_table_new(headings, LITHOS_ARRAY_SIZE(headings));

    if (!t)
        return -ENOMEM;
    for (unsigned i = 0; i < n; i++) {
        lithos_table_cell(t, "%u", gpus[i].index);
        lithos_table_cell(t, "%s", gpus[i].name);
        lithos_table_cell(t, "%u", gpus[i].tpcs);
        lithos_table_cell(t, "%u", gpus[i].free);
        lithos_table_cell(t, "%s", gpus[i].uuid_text);
    }
    int r = lithos_table_print(t, out);
    lithos_table_free(t);
    for (unsigned i = 0; i < n; i++)
        if (gpus[i].error[0])
            fprintf(out, "GPU %u cannot be used: %s\n", gpus[i].index, gpus[i].error);
    return r;
}

/* What people should know of the daemon beside its tenants: one line each, none when all is as it should be. */
static void print_remarks(const json_t *document, FILE *out)
{
    const json_t *mps = json_object_get(document, "mps");
    const char *error = lithos_json_string(document, "error"), *why = lithos_json_string(mps, "why");

    if (*error)
        fprintf(out, "no GPU can be used: %s\n", error);
    if (mps)
        fprintf(out, "MPS: %s%s%s\n", lithos_json_string(mps, "state"), *why ? ": " : "", why);
    if (json_is_false(json_object_get(document, "state_written")))
        fprintf(out, "%s cannot be written: tenants would be forgotten by a restart\n",
                lithos_json_string(document, "state_file"));
}

/* The first few pids: a data loader's workers would fill the screen. */
static void add_pids(struct lithos_table *t, const json_t *tenant)
{
    const json_t *pids = json_object_get(tenant, "pids"), *pid;
    char text[128] = "";
    size_t i, n = 0, shown = 0;

    json_array_foreach((json_t *)pids, i, pid)
    {
        if (json_is_false(json_object_get(pid, "alive")))
            continue; /* the root process, which its children have outlived */
        if (shown++ < 3)
            n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%lld", n ? "," : "",
                                  (long long)lithos_json_integer(pid, "pid"));
    }
    if (shown > 3)
        snprintf(text + n, sizeof(text) - n, ",+%zu", shown - 3);
    lithos_table_cell(t, "%s", text);
}

static void add_tenant(struct lithos_table *t, const json_t *tenant, const json_t *gpu, bool first)
{
    const json_t *counters = json_object_get(tenant, "counters");
    static const char *const counted[] = {"launches", "escaped", "breaches"};
    const char *bits = lithos_json_string(gpu, "bits");
    struct lithos_tpcset set = {{0, 0}};

    lithos_table_cell(t, "%s", first ? lithos_json_string(tenant, "name") : "");
    if (first)
        add_pids(t, tenant);
    else
        lithos_table_cell(t, "%s", "");
    lithos_table_cell(t, "%lld", (long long)lithos_json_integer(gpu, "index"));
    lithos_table_cell(t, "%s", lithos_json_string(tenant, "quota"));
    if (lithos_tpcset_parse(bits, &set) < 0)
        bits = "?";
    lithos_table_cell(t, "%u", lithos_tpcset_count(&set));
    lithos_table_cell(t, "%s", bits);
    lithos_table_cell(t, "%lld", (long long)lithos_json_integer(gpu, "lent"));
    lithos_table_cell(t, "%lld", (long long)lithos_json_integer(gpu, "lent_away"));
    lithos_table_cell(t, "%s", lithos_json_string(tenant, "mode"));
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(counted); i++) {
        if (first)
            lithos_table_cell(t, "%lld", (long long)lithos_json_integer(counters, counted[i]));
        else
            lithos_table_cell(t, "%s", "");
    }
}

static int print_tenants(const json_t *document, FILE *out)
{
    static const char *const headings[] = {"TENANT", "PIDS",  ">GPU", ">QUOTA",    ">TPCS",    "BITS",
                                           ">LENT",  ">AWAY", "MODE", ">LAUNCHES", ">ESCAPED", ">BREACHES"};
    const json_t *tenants = json_object_get(document, "tenants"), *tenant, *gpu;
    size_t i, j;

    if (json_array_size(tenants) == 0) {
        fputs("no tenants\n", out);
        return 0;
    }
    struct lithos_table *t = lithos_table_new(headings, LITHOS_ARRAY_SIZE(headings));
    if (!t)
        return -ENOMEM;
    json_array_foreach((json_t *)tenants, i, tenant)
    {
        json_array_foreach(json_object_get(tenant, "gpus"), j, gpu) add_tenant(t, tenant, gpu, j == 0);
    }
    int r = lithos_table_print(t, out);
    lithos_table_free(t);
    return r;
}

/* "; left whole: 3 one_wave, 1 capture": the counts that are not 0. */
static void print_counts(const json_t *counts, const char *what, FILE *out)
{
    const char *name, *separator = what;
    json_t *count;

    json_object_foreach((json_t *)counts, name, count)
    {
        if (json_integer_value(count) == 0)
            continue;
        fprintf(out, "%s%lld %s", separator, (long long)json_integer_value(count), name);
        separator = ", ";
    }
}

/* A line for each GPU whose power is looked after. */
static void print_power(const json_t *document, FILE *out)
{
    const json_t *power = json_object_get(document, "power"), *gpu, *advice;
    const char *mode = lithos_json_string(power, "mode"), *why = lithos_json_string(power, "why");
    size_t i;

    if (*why)
        fprintf(out, "power %s: %s\n", mode, why);
    json_array_foreach((json_t *)json_object_get(power, "gpus"), i, gpu)
    {
        advice = json_object_get(gpu, "advice");
        fprintf(out, "GPU %lld: %.0f W at %lld MHz; power %s", (long long)lithos_json_integer(gpu, "index"),
                json_number_value(json_object_get(gpu, "watts")), (long long)lithos_json_integer(gpu, "mhz"),
                mode);
        if (json_is_object(advice))
            fprintf(out, ": %s %lld MHz (%s)", strcmp(mode, "on") ? "would set" : "sets",
                    (long long)lithos_json_integer(advice, "mhz"), lithos_json_string(advice, "why"));
        fputc('\n', out);
    }
}

/* What tenants' requests cost. */
static void print_energy(const json_t *document, FILE *out)
{
    const json_t *tenants = json_object_get(document, "tenants"), *tenant;
    size_t i;

    json_array_foreach((json_t *)tenants, i, tenant)
    {
        const json_t *energy = json_object_get(tenant, "energy");
        if (!json_is_object(energy))
            continue;
        fprintf(out, "%s: %.1f J (%.1f J beyond what the GPU draws idle)", lithos_json_string(tenant, "name"),
                json_number_value(json_object_get(energy, "joules")),
                json_number_value(json_object_get(energy, "joules_least")));
        if (lithos_json_integer(energy, "requests"))
            fprintf(out, ", %.4g J a request",
                    json_number_value(json_object_get(energy, "joules_per_request")));
        fputc('\n', out);
    }
}

/* A line for each tenant that asked for atoms: what came of its launches. */
static void print_atoms(const json_t *document, FILE *out)
{
    const json_t *tenants = json_object_get(document, "tenants"), *tenant;
    size_t i;

    json_array_foreach((json_t *)tenants, i, tenant)
    {
        json_t *atoms = json_object_get(tenant, "atoms");
        const char *policy = lithos_json_string(atoms, "policy"), *why = lithos_json_string(atoms, "why");
        if (!*policy || !strcmp(policy, "off"))
            continue;
        fprintf(out, "%s: atoms %s", lithos_json_string(tenant, "name"), policy);
        if (*why)
            fprintf(out, ", not available: %s", why);
        fprintf(out, "; %lld launches cut into %lld", (long long)lithos_json_integer(atoms, "cut"),
                (long long)lithos_json_integer(atoms, "atoms"));
        print_counts(json_object_get(atoms, "whole"), "; left whole: ", out);
        const json_t *graphs = json_object_get(atoms, "graphs");
        if (lithos_json_integer(graphs, "cut"))
            fprintf(out, "; kernels of graphs cut: %lld into %lld",
                    (long long)lithos_json_integer(graphs, "cut"),
                    (long long)lithos_json_integer(graphs, "atoms"));
        print_counts(json_object_get(graphs, "whole"), "; graphs left whole: ", out);
        fputc('\n', out);
    }
}

static bool any_count(const json_t *counts)
{
    const char *name;
    json_t *count;
    json_object_foreach((json_t *)counts, name, count)
    {
        if (json_integer_value(count))
            return true;
    }
    return false;
}

/* A line for each tenant with CUDA graphs that do not keep to what it has now. */
static void print_graphs(const json_t *document, FILE *out)
{
    const json_t *tenants = json_object_get(document, "tenants"), *tenant;
    size_t i;

    json_array_foreach((json_t *)tenants, i, tenant)
    {
        const json_t *graphs = json_object_get(tenant, "graphs"), *keep = json_object_get(graphs, "keep");
        if (!any_count(keep))
            continue;
        fprintf(out, "%s: graphs that were given other TPCs: %lld", lithos_json_string(tenant, "name"),
                (long long)lithos_json_integer(graphs, "followed"));
        print_counts(keep, "; that kept some of those before: ", out);
        fputc('\n', out);
    }
}

/* A line for each best-effort tenant: what its launch queues do; and for each whose launches are gathered. */
static void print_queues(const json_t *document, FILE *out)
{
    const json_t *tenants = json_object_get(document, "tenants"), *tenant;
    size_t i;

    json_array_foreach((json_t *)tenants, i, tenant)
    {
        const json_t *queue = json_object_get(tenant, "queue"),
                     *gathered = json_object_get(queue, "gathered");
        if (any_count(gathered)) {
            fprintf(out, "%s: launches gathered", lithos_json_string(tenant, "name"));
            print_counts(gathered, ", and made: ", out);
            fputc('\n', out);
        }
        if (strcmp(lithos_json_string(tenant, "class"), "best-effort"))
            continue;
        fprintf(out, "%s: best-effort; %lld calls queued, %lld now; %lld launches at once",
                lithos_json_string(tenant, "name"), (long long)lithos_json_integer(queue, "queued"),
                (long long)lithos_json_integer(queue, "depth"),
                (long long)lithos_json_integer(queue, "unqueued"));
        print_counts(json_object_get(queue, "drained"), "; drained: ", out);
        fputc('\n', out);
    }
}

void lithos_slice_print(const json_t *slice, FILE *out)
{
    const json_t *us = json_object_get(slice, "us");
    const char *why = lithos_json_string(slice, "why");

    if (json_is_integer(us))
        fprintf(out, "turns of %lld us on the GPU: %lld of %lld channel groups have them",
                (long long)json_integer_value(us), (long long)lithos_json_integer(slice, "set"),
                (long long)lithos_json_integer(slice, "groups"));
    else
        fprintf(out, "turns of the driver's own length on the GPU, %lld channel groups",
                (long long)lithos_json_integer(slice, "groups"));
    if (lithos_json_integer(slice, "refused"))
        fprintf(out, ", %lld refused", (long long)lithos_json_integer(slice, "refused"));
    fprintf(out, "%s%s\n", *why ? ": " : "", why);
}

/* A line for each tenant where tenants take turns of different lengths. */
static void print_slices(const json_t *document, FILE *out)
{
    const json_t *tenants = json_object_get(document, "tenants"), *tenant;
    size_t i;

    json_array_foreach((json_t *)tenants, i, tenant)
    {
        const json_t *slice = json_object_get(tenant, "slice");
        if (!json_is_object(slice))
            continue;
        fprintf(out, "%s: ", lithos_json_string(tenant, "name"));
        lithos_slice_print(slice, out);
    }
}

int lithos_status_print(const json_t *document, FILE *out)
{
    int r = print_gpus(document, out);

    if (r < 0)
        return r;
    print_remarks(document, out);
    fputc('\n', out);
    r = print_tenants(document, out);
    print_queues(document, out);
    print_atoms(document, out);
    print_graphs(document, out);
    print_slices(document, out);
    lithos_rightsize_print_all(document, out);
    print_power(document, out);
    print_energy(document, out);
    return r;
}
