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
    return r;
}

/* The first few pids: a data loader's workers would fill the screen. */
static void add_pids(struct lithos_table *t, const json_t *tenant)
{
    const json_t *pids = json_object_get(tenant, "pids"), *pid;
    char text[64] = "";
    size_t i, n = 0;

    json_array_foreach((json_t *)pids, i, pid)
    {
        if (i == 3) {
            n += (size_t)snprintf(text + n, sizeof(text) - n, ",+%zu", json_array_size(pids) - i);
            break;
        }
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%lld", i ? "," : "",
                              (long long)lithos_json_integer(pid, "pid"));
    }
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
    static const char *const headings[] = {"TENANT", "PIDS", ">GPU",      ">QUOTA",   ">TPCS",
                                           "BITS",   "MODE", ">LAUNCHES", ">ESCAPED", ">BREACHES"};
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

int lithos_status_print(const json_t *document, FILE *out)
{
    int r = print_gpus(document, out);

    if (r < 0)
        return r;
    fputc('\n', out);
    return print_tenants(document, out);
}
