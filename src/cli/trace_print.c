/* The figures of `lithos trace stat`, for people and as JSON. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "cli/table.h"
#include "cli/trace.h"
#include "trace/json.h"
#include "trace/stat.h"

/* Columns that a kernel's name gets; C++ knows names of thousands. */
#define NAME_COLUMNS 72
#define TEXT_BYTES 512

static const char *const by_names[] = {"kernel", "tenant", "stream"};

/* What may go to a terminal: a name of a trace may be anything. A longer one than `columns` loses its middle, since names
 * of templates often differ in their ends only. */
static const char *printable(const char *s, size_t columns, char text[TEXT_BYTES])
{
    size_t len = strlen(s), head = len > columns ? (columns - 3) / 2 : len, n = 0;

    for (size_t i = 0; i < len; i++) {
        if (i == head) {
            memcpy(text + n, "...", 3);
            n += 3;
            i = len - (columns - 3 - head);
        }
        text[n++] = s[i] >= ' ' && s[i] < 0x7f ? s[i] : '?';
    }
    text[n] = 0;
    return text;
}

static const char *tenant_label(const struct lithos_trace_stat *stat, uint64_t id, char text[TEXT_BYTES])
{
    const char *name = lithos_trace_stat_tenant(stat, id);

    if (*name)
        return printable(name, 64, text);
    snprintf(text, TEXT_BYTES, "%" PRIu64, id);
    return text;
}

static double span_ns(const struct lithos_trace_summary *sum)
{
    return sum->last_ns > sum->first_ns ? (double)(sum->last_ns - sum->first_ns) : 0;
}

static double part(double a, double b)
{
    return b > 0 ? a / b : 0;
}

/* Sums over the rows. */
struct totals {
    uint64_t estimates, clamped, backwards, predicted, mispredicted;
};

static struct totals totals_of(const struct lithos_trace_summary *sum)
{
    struct totals t = {0};

    for (size_t i = 0; i < sum->row_count; i++) {
        t.estimates += sum->rows[i].estimates;
        t.clamped += sum->rows[i].clamped;
        t.backwards += sum->rows[i].backwards;
        t.predicted += sum->rows[i].predicted;
        t.mispredicted += sum->rows[i].mispredicted;
    }
    return t;
}

static void print_gpus(const struct lithos_trace_summary *sum, FILE *out)
{
    char text[TEXT_BYTES];

    for (size_t i = 0; i < sum->gpu_count; i++) {
        const struct lithos_trace_gpu_figures *g = &sum->gpus[i];
        fprintf(out, "GPU %" PRIu32, g->gpu.index);
        if (*g->gpu.name)
            fprintf(out, " %s", printable(g->gpu.name, 64, text));
        if (!lithos_tpcset_empty(&g->gpu.topology.valid))
            fprintf(out, ", %u TPCs", lithos_tpcset_count(&g->gpu.topology.valid));
        if (g->clocks)
            fprintf(out, ": times are right within %.3f us (%" PRIu64 " clock mappings)\n",
                    (double)g->bound_ns / 1e3, g->clocks);
        else
            fputs(": no clock mapping in the trace, so nothing is known of how right its times are\n", out);
    }
}

static void print_missing(const struct lithos_trace_stat *stat, const struct lithos_trace_summary *sum,
                          FILE *out)
{
    char text[TEXT_BYTES];

    if (!sum->drop_count)
        fputs("nothing dropped\n", out);
    for (size_t i = 0; i < sum->drop_count; i++)
        fprintf(out, "dropped: %" PRIu64 " of tenant %s: %s\n", sum->drops[i].count,
                tenant_label(stat, sum->drops[i].tenant, text), lithos_trace_drop_name(sum->drops[i].reason));
}

static void print_remarks(const struct lithos_trace_summary *sum, FILE *out)
{
    const struct totals t = totals_of(sum);

    if (t.predicted)
        fprintf(out, "predicted: %" PRIu64 " kernels, %.3f %% of them off by more than %u us\n", t.predicted,
                100 * part((double)t.mispredicted, (double)t.predicted), LITHOS_TRACE_MISPREDICTED_NS / 1000);
    if (t.estimates)
        fprintf(out, "estimated: %" PRIu64 " kernels, since streams overlapped\n", t.estimates);
    if (t.clamped)
        fprintf(out, "clamped: %" PRIu64 " kernels had a time moved to keep submit <= start <= end\n",
                t.clamped);
    if (t.backwards)
        fprintf(out, "backwards: %" PRIu64 " kernels end before they start and count as of no time\n",
                t.backwards);
}

static void add_row(struct lithos_table *t, const struct lithos_trace_stat *stat,
                    const struct lithos_trace_summary *sum, const struct lithos_trace_row *row, int by)
{
    char text[TEXT_BYTES];

    lithos_table_cell(t, "%" PRIu64, row->count);
    lithos_table_cell(t, "%.3f", row->total_ns / 1e6);
    lithos_table_cell(t, "%.1f%%", 100 * part(row->total_ns, sum->total_ns));
    lithos_table_cell(t, "%.2f", row->mean_ns / 1e3);
    lithos_table_cell(t, "%.2f", row->p50_ns / 1e3);
    lithos_table_cell(t, "%.2f", row->p99_ns / 1e3);
    if (row->tpcs_min == row->tpcs_max)
        lithos_table_cell(t, "%" PRIu32, row->tpcs_min);
    else
        lithos_table_cell(t, "%" PRIu32 "-%" PRIu32, row->tpcs_min, row->tpcs_max);
    lithos_table_cell(t, "%.1f%%", 100 * part(row->tpc_ns, sum->tpc_ns));
    lithos_table_cell(t, "%s", tenant_label(stat, row->tenant, text));
    if (by == LITHOS_TRACE_BY_KERNEL)
        lithos_table_cell(t, "%s", printable(row->function, NAME_COLUMNS, text));
    if (by == LITHOS_TRACE_BY_STREAM)
        lithos_table_cell(t, "GPU %" PRIu32 " stream %#" PRIx64 " (pid %" PRIu32 ")", row->gpu, row->stream,
                          row->pid);
}

static int print_rows(const struct lithos_trace_stat *stat, const struct lithos_trace_summary *sum, int by,
                      size_t top, FILE *out)
{
    const char *headings[] = {">COUNT",  ">TOTAL ms", ">SHARE",    ">MEAN us", ">P50 us",
                              ">P99 us", ">TPCS",     ">TPC-TIME", "TENANT",   by ? "STREAM" : "KERNEL"};
    size_t rows = top ? LITHOS_MIN(top, sum->row_count) : sum->row_count;
    struct lithos_table *t =
        lithos_table_new(headings, LITHOS_ARRAY_SIZE(headings) - (by == LITHOS_TRACE_BY_TENANT));

    if (!t)
        return -ENOMEM;
    for (size_t i = 0; i < rows; i++)
        add_row(t, stat, sum, &sum->rows[i], by);
    int r = lithos_table_print(t, out);
    lithos_table_free(t);
    if (rows < sum->row_count)
        fprintf(out, "... and %zu more\n", sum->row_count - rows);
    return r;
}

int lithos_trace_stat_print(const struct lithos_trace_input *in, struct lithos_trace_stat *stat,
                            const struct lithos_trace_summary *sum, int by, size_t top, FILE *out)
{
    const struct lithos_trace_reader_stats s = lithos_trace_reader_stats(in->reader);

    fprintf(out, "%" PRIu64 " kernels of %zu tenants, %.3f ms of kernel time in %.3f ms, %" PRIu64 " syncs",
            sum->events[LITHOS_TRACE_KERNEL], sum->tenant_count, sum->total_ns / 1e6, span_ns(sum) / 1e6,
            sum->events[LITHOS_TRACE_SYNC]);
    if (sum->events[LITHOS_TRACE_ATOM])
        fprintf(out, ", %" PRIu64 " atoms", sum->events[LITHOS_TRACE_ATOM]);
    fputc('\n', out);
    print_gpus(sum, out);
    print_missing(stat, sum, out);
    print_remarks(sum, out);
    if (s.unknown)
        fprintf(out, "%" PRIu64 " records of kinds that this release does not know\n", s.unknown);
    if (!sum->row_count)
        return 0;
    fputc('\n', out);
    return print_rows(stat, sum, by, top, out);
}

static json_t *row_json(const struct lithos_trace_stat *stat, const struct lithos_trace_summary *sum,
                        const struct lithos_trace_row *row, int by)
{
    json_t *j = json_pack(
        "{s:I, s:o, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:I, s:I, s:I, s:I, s:I, s:I}",
        "tenant", (json_int_t)row->tenant, "name",
        lithos_trace_json_text(lithos_trace_stat_tenant(stat, row->tenant)), "count", (json_int_t)row->count,
        "total_ns", row->total_ns, "share", part(row->total_ns, sum->total_ns), "mean_ns", row->mean_ns,
        "min_ns", row->min_ns, "p50_ns", row->p50_ns, "p99_ns", row->p99_ns, "max_ns", row->max_ns, "tpc_ns",
        row->tpc_ns, "tpc_share", part(row->tpc_ns, sum->tpc_ns), "tpcs_min", (json_int_t)row->tpcs_min,
        "tpcs_max", (json_int_t)row->tpcs_max, "estimates", (json_int_t)row->estimates, "clamped",
        (json_int_t)row->clamped, "backwards", (json_int_t)row->backwards, "predicted",
        (json_int_t)row->predicted, "mispredicted", (json_int_t)row->mispredicted);

    if (by == LITHOS_TRACE_BY_KERNEL) {
        json_object_set_new(j, "kernel", lithos_trace_json_text(row->function));
    } else if (by == LITHOS_TRACE_BY_STREAM) {
        json_object_set_new(j, "gpu", json_integer(row->gpu));
        json_object_set_new(j, "pid", json_integer(row->pid));
        json_object_set_new(j, "stream", json_integer((json_int_t)row->stream));
    }
    return j;
}

static json_t *gpus_json(const struct lithos_trace_summary *sum)
{
    json_t *list = json_array();

    for (size_t i = 0; i < sum->gpu_count; i++) {
        const struct lithos_trace_gpu_figures *g = &sum->gpus[i];
        json_array_append_new(list,
                              json_pack("{s:I, s:o, s:I, s:I, s:o}", "index", (json_int_t)g->gpu.index,
                                        "name", lithos_trace_json_text(g->gpu.name), "tpcs",
                                        (json_int_t)lithos_tpcset_count(&g->gpu.topology.valid), "clocks",
                                        (json_int_t)g->clocks, "clock_bound_ns",
                                        g->clocks ? json_integer((json_int_t)g->bound_ns) : json_null()));
    }
    return list;
}

static json_t *drops_json(const struct lithos_trace_stat *stat, const struct lithos_trace_summary *sum)
{
    json_t *list = json_array();

    for (size_t i = 0; i < sum->drop_count; i++)
        json_array_append_new(
            list, json_pack("{s:I, s:o, s:s, s:I}", "tenant", (json_int_t)sum->drops[i].tenant, "name",
                            lithos_trace_json_text(lithos_trace_stat_tenant(stat, sum->drops[i].tenant)),
                            "reason", lithos_trace_drop_name(sum->drops[i].reason), "count",
                            (json_int_t)sum->drops[i].count));
    return list;
}

static json_t *tenants_json(const struct lithos_trace_summary *sum)
{
    json_t *list = json_array();

    for (size_t i = 0; i < sum->tenant_count; i++)
        json_array_append_new(list, json_pack("{s:I, s:o}", "id", (json_int_t)sum->tenants[i].id, "name",
                                              lithos_trace_json_text(sum->tenants[i].name)));
    return list;
}

int lithos_trace_stat_print_json(const struct lithos_trace_input *in, struct lithos_trace_stat *stat,
                                 const struct lithos_trace_summary *sum, int by, size_t top, int read_error,
                                 FILE *out)
{
    const struct lithos_trace_header h = lithos_trace_reader_header(in->reader);
    const struct lithos_trace_reader_stats s = lithos_trace_reader_stats(in->reader);
    size_t count = top ? LITHOS_MIN(top, sum->row_count) : sum->row_count;
    const char *why =
        *lithos_trace_reader_why(in->reader) ? lithos_trace_reader_why(in->reader) : strerror(-read_error);
    json_t *rows = json_array(), *events = json_object();

    for (size_t i = 0; i < count; i++)
        json_array_append_new(rows, row_json(stat, sum, &sum->rows[i], by));
    for (unsigned k = 0; k < LITHOS_TRACE_KIND_MAX; k++)
        json_object_set_new(events, lithos_trace_kind_name(k), json_integer((json_int_t)sum->events[k]));
    json_t *j = json_pack(
        "{s:o, s:o, s:I, s:I, s:I, s:I, s:f, s:o, s:o, s:o, s:o, s:f, s:f, s:s, s:I, s:o}", "file",
        lithos_trace_json_text(in->path), "error", read_error < 0 ? lithos_trace_json_text(why) : json_null(),
        "truncated_bytes", (json_int_t)lithos_trace_reader_truncated(in->reader), "unknown_records",
        (json_int_t)s.unknown, "start_monotonic_ns", (json_int_t)h.start_ns, "start_realtime_ns",
        (json_int_t)h.realtime_ns, "span_ns", span_ns(sum), "events", events, "gpus", gpus_json(sum), "drops",
        drops_json(stat, sum), "tenants", tenants_json(sum), "total_ns", sum->total_ns, "tpc_ns", sum->tpc_ns,
        "by", by_names[by], "rows_in_all", (json_int_t)sum->row_count, "rows", rows);
    if (!j)
        return -ENOMEM;
    int r = json_dumpf(j, out, JSON_INDENT(2) | JSON_REAL_PRECISION(15)) < 0 || fputc('\n', out) == EOF ? -EIO
                                                                                                        : 0;
    json_decref(j);
    return r;
}
