#include "cli/demo_report.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "base/util.h"
#include "cli/table.h"

static double alone_p99_us(const struct lithos_demo_report *report)
{
    for (size_t i = 0; i < report->count; i++)
        if (report->rows[i].hp && !report->rows[i].be)
            return report->rows[i].hp_p99_us;
    return 0;
}

static double alone_rate(const struct lithos_demo_report *report)
{
    for (size_t i = 0; i < report->count; i++)
        if (report->rows[i].be && !report->rows[i].hp)
            return report->rows[i].be_rate;
    return 0;
}

static double over(double a, double b)
{
    return b > 0 ? a / b : 0;
}

static void add_row(struct lithos_table *t, const struct lithos_demo_report *report,
                    const struct lithos_demo_result *r)
{
    /* Requests that were still waiting at the end count with the wait so far: the true figure is higher. */
    const char *least = r->hp_unserved ? ">" : "";

    lithos_table_cell(t, "%s", r->name);
    if (r->hp) {
        lithos_table_cell(t, "%s%.1f", least, r->hp_p50_us);
        lithos_table_cell(t, "%s%.1f", least, r->hp_p99_us);
        lithos_table_cell(t, "%s%.2f", least, over(r->hp_p99_us, alone_p99_us(report)));
        lithos_table_cell(t, "%" PRIu64 " of %" PRIu64, r->hp_served, r->hp_served + r->hp_unserved);
    } else {
        for (int i = 0; i < 4; i++)
            lithos_table_cell(t, "%s", "-");
    }
    if (r->be) {
        lithos_table_cell(t, "%.1f", r->be_rate);
        lithos_table_cell(t, "%.0f%%", 100 * over(r->be_rate, alone_rate(report)));
    } else {
        lithos_table_cell(t, "%s", "-");
        lithos_table_cell(t, "%s", "-");
    }
}

int lithos_demo_print(const struct lithos_demo_report *report, FILE *out)
{
    static const char *const headings[] = {"",        ">service p50 us",   ">p99 us", ">p99 / alone",
                                           ">served", ">burner kernels/s", ">kept"};
    struct lithos_table *t = lithos_table_new(headings, LITHOS_ARRAY_SIZE(headings));

    if (!t)
        return -ENOMEM;
    for (size_t i = 0; i < report->count; i++)
        add_row(t, report, &report->rows[i]);
    int r = lithos_table_print(t, out);
    lithos_table_free(t);
    for (size_t i = 0; i < report->count; i++) {
        if (report->rows[i].hp_unserved) {
            fputs("> the service did not keep up: requests that still waited at the end count with the wait "
                  "so far\n",
                  out);
            break;
        }
    }
    return r;
}

double lithos_demo_ratio(const struct lithos_demo_report *report)
{
    return over(report->rows[report->count - 1].hp_p99_us, alone_p99_us(report));
}

/* What the last row is judged by, apart from each other. */
struct bars {
    bool p99, apart, accounted, checked;
};

static struct bars measure(const struct lithos_demo_report *report)
{
    const struct lithos_demo_result *r = &report->rows[report->count - 1];
    struct lithos_tpcset both = lithos_tpcset_and(r->hp_tpcs, r->be_tpcs);
    double ratio = lithos_demo_ratio(report);

    return (struct bars){
        .p99 = ratio > 0 && ratio <= LITHOS_DEMO_P99_LIMIT && !r->hp_unserved,
        .apart = !lithos_tpcset_empty(&r->hp_tpcs) && !lithos_tpcset_empty(&r->be_tpcs) &&
                 lithos_tpcset_empty(&both),
        .accounted = r->escaped == 0 && r->breaches == 0,
        .checked = r->checked,
    };
}

bool lithos_demo_only_p99_missed(const struct lithos_demo_report *report)
{
    struct bars b = measure(report);

    return !b.p99 && b.apart && b.accounted && b.checked;
}

bool lithos_demo_other_bar_missed(const struct lithos_demo_report *report)
{
    struct bars b = measure(report);

    return !b.apart || !b.accounted || !b.checked;
}

static void say(FILE *out, bool good, const char *fmt, ...) LITHOS_PRINTF(3, 4);

static void say(FILE *out, bool good, const char *fmt, ...)
{
    va_list ap;

    fputs(good ? "ok    " : "FAIL  ", out);
    va_start(ap, fmt);
    vfprintf(out, fmt, ap);
    va_end(ap);
    fputc('\n', out);
}

bool lithos_demo_verdict(const struct lithos_demo_report *report, FILE *out)
{
    const struct lithos_demo_result *r = &report->rows[report->count - 1];
    struct bars b = measure(report);
    char hp[LITHOS_TPCSET_TEXT_MAX], be[LITHOS_TPCSET_TEXT_MAX];

    say(out, b.p99, "service p99 under LithOS is %.2f times that alone (at most %.2f)%s",
        lithos_demo_ratio(report), LITHOS_DEMO_P99_LIMIT,
        report->attempts > 1 ? ", the lower of several measurements each: this machine is busy" : "");
    say(out, b.apart, "service on TPCs %s, burner on %s: %s (%s)", lithos_tpcset_format(&r->hp_tpcs, hp),
        lithos_tpcset_format(&r->be_tpcs, be), b.apart ? "nothing shared" : "not apart", r->mode);
    say(out, b.accounted, "%" PRId64 " launches escaped, %" PRId64 " did not fit the quota", r->escaped,
        r->breaches);
    say(out, b.checked, "results of both programs are %s; they used %d and %d SMs",
        b.checked ? "right" : "WRONG", r->hp_sms, r->be_sms);
    return b.p99 && b.apart && b.accounted && b.checked;
}

static json_t *row_json(const struct lithos_demo_report *report, const struct lithos_demo_result *r)
{
    json_t *row = json_pack("{s:s}", "case", r->name);

    if (r->hp)
        json_object_update_new(
            row, json_pack("{s:f, s:f, s:f, s:f, s:f, s:I, s:I}", "hp_p50_us", r->hp_p50_us, "hp_p99_us",
                           r->hp_p99_us, "hp_max_us", r->hp_max_us, "hp_p99_over_alone",
                           over(r->hp_p99_us, alone_p99_us(report)), "hp_rate_per_s", r->hp_rate, "hp_served",
                           (json_int_t)r->hp_served, "hp_unserved", (json_int_t)r->hp_unserved));
    if (r->be)
        json_object_update_new(row, json_pack("{s:f, s:f}", "be_kernels_per_s", r->be_rate, "be_kept",
                                              over(r->be_rate, alone_rate(report))));
    if (r->mode[0]) {
        char hp[LITHOS_TPCSET_TEXT_MAX], be[LITHOS_TPCSET_TEXT_MAX];
        json_object_update_new(row,
                               json_pack("{s:s, s:s, s:s, s:I, s:I, s:b, s:i, s:i}", "mode", r->mode,
                                         "hp_tpcs", lithos_tpcset_format(&r->hp_tpcs, hp), "be_tpcs",
                                         lithos_tpcset_format(&r->be_tpcs, be), "escaped",
                                         (json_int_t)r->escaped, "breaches", (json_int_t)r->breaches,
                                         "checked", r->checked, "hp_sms", r->hp_sms, "be_sms", r->be_sms));
    }
    return row;
}

json_t *lithos_demo_json(const struct lithos_demo *d, const struct lithos_demo_report *report, bool passed)
{
    json_t *cases = json_array(), *ratios = json_array();

    for (unsigned i = 0; i < report->attempts; i++)
        json_array_append_new(ratios, json_real(report->ratios[i]));
    for (size_t i = 0; i < report->count; i++)
        json_array_append_new(cases, row_json(report, &report->rows[i]));
    return json_pack("{s:s, s:s, s:s, s:b, s:f, s:f, s:f, s:o, s:o, s:b}", "name", "demo", "card",
                     d->gpu_name, "driver", d->driver, "virtual", d->virtual_gpu, "scale", d->scale,
                     "seconds", d->seconds, "period_us", d->period_us, "hp_p99_over_alone_attempts", ratios,
                     "cases", cases, "passed", passed);
}
