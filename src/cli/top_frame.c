#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/tpcset.h"
#include "base/util.h"
#include "cli/document.h"
#include "cli/top.h"

#define TENANTS_MAX 64u
#define OPERATORS_SHOWN 4u

struct row {
    const json_t *tenant, *observed;
    const char *name;
    char letter;
    unsigned owner; /* colour */
    unsigned tpcs, lent, away;
};

struct picture {
    const json_t *document;
    const struct lithos_top_view *view;
    struct lithos_top_frame *frame;
    unsigned count;
    struct row row[TENANTS_MAX]; /* as sorted */
};

/* ---- text ---- */

/* A further line; false: the frame is full. */
static bool line(struct picture *p)
{
    unsigned last = p->view->keys && p->view->rows ? p->view->rows - 1 : p->view->rows;
    if (p->frame->rows >= last)
        return false;
    p->frame->text[p->frame->rows++][0] = '\0';
    return true;
}

static void put(struct picture *p, uint8_t style, const char *fmt, ...) LITHOS_PRINTF(3, 4);
/* More text on the line at hand. */
static void put(struct picture *p, uint8_t style, const char *fmt, ...)
{
    char *text = p->frame->text[p->frame->rows - 1];
    size_t at = strlen(text), room = p->view->columns - at;
    va_list ap;
    if (at >= p->view->columns)
        return;
    va_start(ap, fmt);
    vsnprintf(text + at, room + 1, fmt, ap);
    va_end(ap);
    memset(p->frame->style[p->frame->rows - 1] + at, style, strlen(text) - at);
}

/* Four digits or so, whatever the size. */
static const char *short_number(double v, char text[16])
{
    static const char units[] = " kMGTP";
    unsigned u = 0;
    while (v >= 9999.5 && units[u + 1]) {
        v /= 1000;
        u++;
    }
    if (u == 0 && v >= 100)
        snprintf(text, 16, "%.0f", v);
    else if (u == 0)
        snprintf(text, 16, "%.3g", v);
    else
        snprintf(text, 16, "%.0f%c", v, units[u]);
    return text;
}

static const char *short_time(double us, char text[16])
{
    if (us <= 0)
        snprintf(text, 16, "-");
    else if (us < 9999.5)
        snprintf(text, 16, us < 100 ? "%.1fus" : "%.0fus", us);
    else if (us < 9999500)
        snprintf(text, 16, us < 100000 ? "%.1fms" : "%.0fms", us / 1e3);
    else
        snprintf(text, 16, "%.1fs", us / 1e6);
    return text;
}

/* ---- tenants ---- */

static double sort_value(const struct row *r, enum lithos_top_sort sort)
{
    static const char *const keys[LITHOS_TOP_SORT_MAX] = {
        [LITHOS_TOP_BY_BUSY] = "busy_tpcs",     [LITHOS_TOP_BY_TIME] = "tpc_time_s",
        [LITHOS_TOP_BY_RATE] = "kernels_per_s", [LITHOS_TOP_BY_P50] = "p50_us",
        [LITHOS_TOP_BY_P99] = "p99_us",         [LITHOS_TOP_BY_QUEUE] = "queue",
    };
    return sort == LITHOS_TOP_BY_TPCS ? (double)r->tpcs : lithos_json_number(r->observed, keys[sort]);
}

static int compare(const void *a, const void *b, void *ctx)
{
    const struct row *x = a, *y = b;
    enum lithos_top_sort sort = *(const enum lithos_top_sort *)ctx;
    if (sort != LITHOS_TOP_BY_NAME) {
        double v = sort_value(x, sort), w = sort_value(y, sort);
        if (v != w)
            return v < w ? 1 : -1;
    }
    return strcmp(x->name, y->name);
}

static void collect(struct picture *p, const json_t *document)
{
    const json_t *tenants = json_object_get(document, "tenants"), *tenant, *gpu;
    size_t i, j;
    json_array_foreach((json_t *)tenants, i, tenant)
    {
        if (p->count == TENANTS_MAX)
            break;
        struct row *r = &p->row[p->count];
        /* Letter and colour stay a tenant's own as long as those before it live: not the sort's. */
        *r = (struct row){.tenant = tenant,
                          .observed = json_object_get(tenant, "observed"),
                          .name = lithos_json_string(tenant, "name"),
                          .letter = (char)(p->count < 26   ? 'a' + p->count
                                           : p->count < 52 ? 'A' + p->count - 26
                                                           : '#'),
                          .owner = p->count % LITHOS_TOP_OWNERS};
        json_array_foreach(json_object_get(tenant, "gpus"), j, gpu)
        {
            r->tpcs += (unsigned)lithos_json_integer(gpu, "tpcs");
            r->lent += (unsigned)lithos_json_integer(gpu, "lent");
            r->away += (unsigned)lithos_json_integer(gpu, "lent_away");
        }
        p->count++;
    }
    enum lithos_top_sort sort = p->view->sort;
    qsort_r(p->row, p->count, sizeof p->row[0], compare, &sort);
}

static int64_t lost_of(const struct row *r)
{
    const json_t *value;
    const char *key;
    int64_t sum = 0;
    json_object_foreach((json_t *)json_object_get(r->observed, "lost"), key, value) sum +=
        json_integer_value(value);
    return sum;
}

static void heading(struct picture *p, enum lithos_top_sort by, const char *fmt, const char *text)
{
    char cell[32];
    snprintf(cell, sizeof cell, fmt, text);
    put(p, p->view->sort == by ? LITHOS_TOP_SELECTED : LITHOS_TOP_STRONG, "%s", cell);
}

static void add_headings(struct picture *p)
{
    if (!line(p))
        return;
    heading(p, LITHOS_TOP_BY_NAME, "  %-11s", "TENANT");
    heading(p, LITHOS_TOP_SORT_MAX, " %5s", "QUOTA");
    heading(p, LITHOS_TOP_BY_TPCS, " %5s", "TPCS");
    heading(p, LITHOS_TOP_BY_BUSY, " %5s", "BUSY");
    heading(p, LITHOS_TOP_BY_TIME, " %8s", "TPC-TIME");
    heading(p, LITHOS_TOP_BY_RATE, " %7s", "LAUNCH/S");
    heading(p, LITHOS_TOP_BY_P50, " %6s", "P50");
    heading(p, LITHOS_TOP_BY_P99, " %7s", "P99");
    heading(p, LITHOS_TOP_BY_QUEUE, " %5s", "QUEUE");
    heading(p, LITHOS_TOP_SORT_MAX, " %4s", "LOST");
    heading(p, LITHOS_TOP_SORT_MAX, " %4s", "BRCH");
}

static void add_tenant(struct picture *p, unsigned index)
{
    const struct row *r = &p->row[index];
    char a[16], b[16], c[16], d[16], e[16], f[16];
    const json_t *counters = json_object_get(r->tenant, "counters");
    int64_t breaches = lithos_json_integer(counters, "breaches"), lost = lost_of(r);
    uint8_t style = (int)index == p->view->selected ? LITHOS_TOP_SELECTED : LITHOS_TOP_PLAIN;
    if (!line(p))
        return;
    put(p, (uint8_t)(LITHOS_TOP_OWNER + r->owner), "%c", r->letter);
    char tpcs[32]; /* and what it has of others', or they have of it */
    if (r->lent || r->away)
        snprintf(tpcs, sizeof tpcs, "%u%+d", r->tpcs, r->lent ? (int)r->lent : -(int)r->away);
    else
        snprintf(tpcs, sizeof tpcs, "%u", r->tpcs);
    put(p, style, " %-11.11s %5s %5s", r->name, lithos_json_string(r->tenant, "quota"), tpcs);
    if (!json_is_object(r->observed)) {
        put(p, LITHOS_TOP_FAINT, " nothing of it has been observed");
        return;
    }
    snprintf(a, sizeof a, "%.0f%%",
             r->tpcs + r->lent ? 100 * lithos_json_number(r->observed, "busy_tpcs") / (r->tpcs + r->lent)
                               : 0.0);
    put(p, style, " %5s %7ss %8s %6s %7s", a, short_number(lithos_json_number(r->observed, "tpc_time_s"), b),
        short_number(lithos_json_number(r->observed, "kernels_per_s"), c),
        short_time(lithos_json_number(r->observed, "p50_us"), d),
        short_time(lithos_json_number(r->observed, "p99_us"), e));
    put(p, style, " %5s", short_number((double)lithos_json_integer(r->observed, "queue"), f));
    put(p, lost ? LITHOS_TOP_WARNING : style, " %4s", short_number((double)lost, a));
    put(p, breaches ? LITHOS_TOP_WARNING : style, " %4s", short_number((double)breaches, b));
}

/* ---- the selected tenant ---- */

static void add_details(struct picture *p)
{
    if (p->view->selected < 0 || !line(p) || !line(p))
        return;
    const struct row *r = &p->row[p->view->selected];
    const json_t *prediction = json_object_get(r->observed, "prediction"), *op,
                 *pids = json_object_get(r->tenant, "pids");
    const json_t *clock = json_object_get(r->observed, "clock");
    char p50[16], p99[16], total[16], text[16];
    size_t i;
    put(p, LITHOS_TOP_STRONG, "%s", r->name);
    put(p, LITHOS_TOP_PLAIN, ": %s, %zu processes, %s; ", lithos_json_string(r->tenant, "command"),
        json_array_size(pids), lithos_json_string(r->tenant, "mode"));
    if (lithos_json_integer(json_object_get(r->tenant, "energy"), "requests"))
        put(p, LITHOS_TOP_PLAIN, "%.3g J a request; ",
            lithos_json_number(json_object_get(r->tenant, "energy"), "joules_per_request"));
    put(p, LITHOS_TOP_PLAIN, "mispredicted %.2f %%, clock within %s",
        lithos_json_number(prediction, "mispredicted_percent"),
        short_time(lithos_json_number(clock, "offset_bound_us"), text));
    json_array_foreach((json_t *)json_object_get(r->observed, "operators"), i, op)
    {
        if (i == OPERATORS_SHOWN || !line(p))
            break;
        put(p, LITHOS_TOP_PLAIN, "  %8s %7s %7s %6s  %s",
            short_time(lithos_json_number(op, "seconds") * 1e6, total),
            short_time(lithos_json_number(op, "p50_us"), p50),
            short_time(lithos_json_number(op, "p99_us"), p99),
            short_number((double)lithos_json_integer(op, "kernels"), text), lithos_json_string(op, "name"));
    }
}

/* ---- the card ---- */

static const struct row *owner_of(const struct picture *p, const char *uuid, unsigned bit)
{
    for (unsigned i = 0; i < p->count; i++) {
        const json_t *gpu;
        size_t j;
        json_array_foreach(json_object_get(p->row[i].tenant, "gpus"), j, gpu)
        {
            struct lithos_tpcset set;
            if (!strcmp(lithos_json_string(gpu, "uuid"), uuid) &&
                lithos_tpcset_parse(lithos_json_string(gpu, "bits"), &set) == 0 &&
                lithos_tpcset_has(&set, bit))
                return &p->row[i];
        }
    }
    return NULL;
}

static void add_group(struct picture *p, const json_t *gpu, const char *bits, bool first)
{
    struct lithos_tpcset set;
    if (lithos_tpcset_parse(bits, &set) < 0)
        return;
    size_t used = strlen(p->frame->text[p->frame->rows - 1]);
    if (used + lithos_tpcset_count(&set) + 1 > p->view->columns) {
        if (!line(p))
            return;
        put(p, LITHOS_TOP_PLAIN, "  ");
    } else if (!first) {
        put(p, LITHOS_TOP_PLAIN, " ");
    }
    for (unsigned b = lithos_tpcset_next(&set, 0); b < LITHOS_TPC_BITS; b = lithos_tpcset_next(&set, b + 1)) {
        const struct row *r = owner_of(p, lithos_json_string(gpu, "uuid"), b);
        if (r)
            put(p, (uint8_t)(LITHOS_TOP_OWNER + r->owner), "%c", r->letter);
        else
            put(p, LITHOS_TOP_FAINT, ".");
    }
}

/* Behind the GPU's line, with --power. */
static void add_power(struct picture *p, const json_t *gpu)
{
    const json_t *power, *all = json_object_get(json_object_get(p->document, "power"), "gpus");
    size_t i;

    json_array_foreach((json_t *)all, i, power)
    {
        if (lithos_json_integer(power, "index") == lithos_json_integer(gpu, "index") &&
            lithos_json_true(power, "known"))
            put(p, LITHOS_TOP_PLAIN, ", %.0f W at %" PRId64 " MHz", lithos_json_number(power, "watts"),
                lithos_json_integer(power, "mhz"));
    }
}

static void add_gpu(struct picture *p, const json_t *gpu)
{
    const json_t *gpcs = json_object_get(gpu, "gpcs"), *bits;
    size_t i;
    if (!line(p))
        return;
    put(p, LITHOS_TOP_STRONG, "GPU %" PRId64 " %s", lithos_json_integer(gpu, "index"),
        lithos_json_string(gpu, "name"));
    if (json_is_string(json_object_get(gpu, "error"))) {
        put(p, LITHOS_TOP_WARNING, "  cannot be used: %s", lithos_json_string(gpu, "error"));
        return;
    }
    put(p, LITHOS_TOP_PLAIN, "  %" PRId64 " TPCs, %" PRId64 " free%s", lithos_json_integer(gpu, "tpcs"),
        lithos_json_integer(gpu, "free"),
        lithos_json_true(gpu, "stamps") ? "" : "; no kernel times on this driver");
    add_power(p, gpu);
    if (!line(p))
        return;
    put(p, LITHOS_TOP_PLAIN, "  ");
    if (json_array_size(gpcs) == 0)
        add_group(p, gpu, lithos_json_string(gpu, "bits"), true);
    json_array_foreach((json_t *)gpcs, i, bits)
    {
        const char *text = json_string_value(bits);
        add_group(p, gpu, text ? text : "-", i == 0);
    }
}

/* ---- the whole ---- */

static void add_keys(struct picture *p)
{
    while (p->frame->rows + 1 < p->view->rows)
        p->frame->text[p->frame->rows++][0] = '\0';
    p->frame->text[p->frame->rows++][0] = '\0';
    put(p, LITHOS_TOP_FAINT, "q quit   left, right: sort by   up, down: select");
}

void lithos_top_frame(const json_t *document, struct lithos_top_view *view,
                      struct lithos_top_frame *ret_frame)
{
    static struct picture p; /* large; this program has one thread */
    const json_t *gpus = json_object_get(document, "gpus"), *gpu, *mps = json_object_get(document, "mps");
    size_t i;
    view->rows = LITHOS_MIN(view->rows, LITHOS_TOP_ROWS_MAX);
    view->columns = LITHOS_MIN(view->columns, LITHOS_TOP_COLUMNS_MAX);
    memset(ret_frame, 0, sizeof *ret_frame);
    p = (struct picture){.document = document, .view = view, .frame = ret_frame};
    if (view->rows < 2 || view->columns < 2)
        return;
    collect(&p, document);
    if (view->selected >= (int)p.count)
        view->selected = (int)p.count - 1;
    line(&p);
    put(&p, LITHOS_TOP_STRONG, "lithos %s", lithos_json_string(document, "version"));
    put(&p, LITHOS_TOP_PLAIN, "  up %.0f s, %u tenants, MPS %s%s", lithos_json_number(document, "uptime"),
        p.count, lithos_json_string(mps, "state"),
        lithos_json_true(document, "virtual") ? ", virtual GPU" : "");
    if (json_is_string(json_object_get(document, "error")) && line(&p))
        put(&p, LITHOS_TOP_WARNING, "no GPU can be used: %s", lithos_json_string(document, "error"));
    json_array_foreach((json_t *)gpus, i, gpu) add_gpu(&p, gpu);
    line(&p); /* a blank one */
    add_headings(&p);
    for (unsigned t = 0; t < p.count; t++)
        add_tenant(&p, t);
    add_details(&p);
    if (view->keys)
        add_keys(&p);
}

void lithos_top_print(const struct lithos_top_frame *frame, FILE *out)
{
    for (unsigned i = 0; i < frame->rows; i++)
        fprintf(out, "%s\n", frame->text[i]);
}
