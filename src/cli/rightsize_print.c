/* On how few TPCs a tenant's kernels run: "rightsize" of the documents, for people. */
#include <string.h>

#include "cli/document.h"
#include "cli/status_table.h"

static double number(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static bool said(const json_t *rightsize)
{
    return json_is_number(json_object_get(rightsize, "slip"));
}

void lithos_rightsize_print(const json_t *rightsize, FILE *out)
{
    const char *why = lithos_json_string(rightsize, "why");

    fprintf(out, "slip %.4g: ", number(rightsize, "slip"));
    if (!lithos_json_true(rightsize, "on")) {
        fprintf(out, "kernels have all TPCs: %s\n", why);
        return;
    }
    fprintf(out, "%.1f %% of its TPC time saved, kernels take %.1f %% longer",
            number(rightsize, "tpc_time_saved_percent"), number(rightsize, "slower_percent"));
    if (number(rightsize, "slip_in_force") < number(rightsize, "slip"))
        fprintf(out, "; requests suffered %lld times, so that it is %.4g for now",
                (long long)lithos_json_integer(rightsize, "undone"), number(rightsize, "slip_in_force"));
    if (number(rightsize, "kernel_slip") > 1.001 * number(rightsize, "slip"))
        fprintf(out, "; they may take %.3g times as long, for the card waits for its launches",
                number(rightsize, "kernel_slip"));
    if (lithos_json_integer(rightsize, "stopped"))
        fprintf(out, "; stopped %lld times", (long long)lithos_json_integer(rightsize, "stopped"));
    const json_t *strip = json_object_get(rightsize, "strip");
    if (lithos_json_integer(strip, "tpcs"))
        fprintf(out, "; lends %lld TPCs that its kernels leave, of which %.0f %% are used",
                (long long)lithos_json_integer(strip, "tpcs"), number(strip, "used_percent"));
    fputs(lithos_json_true(rightsize, "whole") ? "; all TPCs just now\n" : "\n", out);
}

void lithos_rightsize_print_all(const json_t *document, FILE *out)
{
    const json_t *tenants = json_object_get(document, "tenants"), *tenant;
    size_t i;

    json_array_foreach((json_t *)tenants, i, tenant)
    {
        const json_t *rightsize = json_object_get(tenant, "rightsize");
        if (!said(rightsize))
            continue;
        fprintf(out, "%s: ", lithos_json_string(tenant, "name"));
        lithos_rightsize_print(rightsize, out);
    }
}

void lithos_rightsize_explain(const json_t *rightsize, FILE *out)
{
    const json_t *operator, * operators = json_object_get(rightsize, "operators");
    size_t i;

    if (!said(rightsize))
        return;
    lithos_rightsize_print(rightsize, out);
    json_array_foreach((json_t *)operators, i, operator)
    {
        const long long tries = (long long)lithos_json_integer(operator, "tries");
        fprintf(out, "  %3lld of %lld TPCs", (long long)lithos_json_integer(operator, "tpcs"),
                (long long)lithos_json_integer(operator, "of"));
        if (tries)
            fprintf(out, ", tries %lld", tries);
        if (!strcmp(lithos_json_string(operator, "why"), "learn"))
            fputs(", its time on all of them is not known yet", out);
        fprintf(out, ": %.100s\n", lithos_json_string(operator, "name"));
    }
}
