/* The picture: a row a TPC, a box for blocks that were there; below it, how long requests took. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

#include "base/util.h"
#include "sim/report.h"

#define LEFT 70
#define WIDTH 900
#define ROW 5u
#define TOP 46u
#define CDF_HEIGHT 180
#define LETTER 7

/* Colours that differ for everybody (Okabe and Ito). */
static const char *const colours[] = {"#0072b2", "#e69f00", "#009e73", "#cc79a7",
                                      "#56b4e9", "#d55e00", "#f0e442", "#000000"};

struct frame {
    FILE *out;
    const struct lithos_sim_scenario *sc;
    const struct lithos_sim_result *r;
    uint64_t from_ns, to_ns;
    uint8_t row_of[LITHOS_TPC_BITS];
    uint32_t rows;
};

static const char *colour(uint32_t tenant)
{
    return colours[tenant % LITHOS_ARRAY_SIZE(colours)];
}

static double x_of(const struct frame *f, uint64_t ns)
{
    const uint64_t at = LITHOS_MIN(LITHOS_MAX(ns, f->from_ns), f->to_ns) - f->from_ns;
    return LEFT + WIDTH * (double)at / (double)(f->to_ns - f->from_ns);
}

/* Text that means something in XML. */
static void print_text(const struct frame *f, double x, double y, const char *anchor, const char *text)
{
    fprintf(f->out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x, y, anchor);
    for (; *text; text++) {
        if (*text == '&' || *text == '<')
            fputs(*text == '&' ? "&amp;" : "&lt;", f->out);
        else
            fputc(*text, f->out);
    }
    fputs("</text>\n", f->out);
}

/* Time in which a tenant had blocks in a row without a break that can be seen, then in rows that follow one another. */
struct box {
    double x, to;
    uint32_t tenant, row, rows;
};

struct boxes {
    struct box *box;
    size_t count, room;
};

#define UNSEEN 0.4 /* of a pixel */

static struct box *box_add(struct boxes *b, struct box box)
{
    if (b->count == b->room) {
        b->room = b->room ? 2 * b->room : 4096;
        b->box = realloc(b->box, b->room * sizeof *b->box);
        lithos_assert(b->box);
    }
    b->box[b->count] = box;
    return &b->box[b->count++];
}

static int span_before(const void *a, const void *b)
{
    const struct lithos_sim_span *x = a, *y = b;
    return x->from_ns < y->from_ns ? -1 : x->from_ns > y->from_ns;
}

/* Spans in the order of their beginnings, so that the newest box of a row and tenant is the one that may go on. */
static void boxes_of_rows(const struct frame *f, struct boxes *b)
{
    size_t newest[LITHOS_SIM_TENANTS_MAX][LITHOS_TPC_BITS];

    memset(newest, 0xff, sizeof newest);
    for (size_t i = 0; i < f->r->span_count; i++) {
        const struct lithos_sim_span *s = &f->r->spans[i];
        const double x = x_of(f, s->from_ns), to = x_of(f, s->to_ns ? s->to_ns : f->to_ns);
        for (unsigned bit = lithos_tpcset_next(&s->tpcs, 0); bit < LITHOS_TPC_BITS;
             bit = lithos_tpcset_next(&s->tpcs, bit + 1)) {
            const uint32_t row = f->row_of[bit];
            const size_t last = newest[s->tenant][row];
            struct box *before = b->box && last < b->count ? &b->box[last] : NULL;
            if (before && x <= before->to + UNSEEN) {
                before->to = LITHOS_MAX(before->to, to);
                continue;
            }
            newest[s->tenant][row] = b->count;
            box_add(b, (struct box){x, to, s->tenant, row, 1});
        }
    }
}

static int box_before(const void *a, const void *b)
{
    const struct box *p = a, *q = b;
    if (p->tenant != q->tenant)
        return p->tenant < q->tenant ? -1 : 1;
    if (fabs(p->x - q->x) > 0.01)
        return p->x < q->x ? -1 : 1;
    if (fabs(p->to - q->to) > 0.01)
        return p->to < q->to ? -1 : 1;
    return p->row < q->row ? -1 : p->row > q->row;
}

static void print_boxes(const struct frame *f)
{
    struct boxes b = {0};

    if (!f->r->span_count)
        return;
    qsort(f->r->spans, f->r->span_count, sizeof *f->r->spans, span_before);
    boxes_of_rows(f, &b);
    if (!b.box)
        return;
    qsort(b.box, b.count, sizeof *b.box, box_before);
    for (size_t i = 0, next; i < b.count; i = next) {
        struct box *box = &b.box[i];
        for (next = i + 1; next < b.count; next++) {
            const struct box *n = &b.box[next];
            if (n->tenant != box->tenant || n->row != box->row + box->rows || fabs(n->x - box->x) > 0.01 ||
                fabs(n->to - box->to) > 0.01)
                break;
            box->rows++;
        }
        fprintf(f->out, "<rect x=\"%.1f\" y=\"%u\" width=\"%.1f\" height=\"%u\" fill=\"%s\"/>\n", box->x,
                TOP + box->row * ROW, LITHOS_MAX(box->to - box->x, 0.2), box->rows * ROW,
                colour(box->tenant));
    }
    free(b.box);
}

static void print_axis(const struct frame *f)
{
    const double span_ms = (double)(f->to_ns - f->from_ns) / 1e6;
    const double step = pow(10, floor(log10(span_ms / 4))); /* 1, 10, 100, ... of something */
    const double bottom = TOP + f->rows * ROW;
    char text[64];

    fprintf(f->out, "<rect x=\"%d\" y=\"%u\" width=\"%d\" height=\"%u\" fill=\"none\" stroke=\"#888\"/>\n",
            LEFT, TOP, WIDTH, f->rows * ROW);
    const double tick = step * (span_ms / step > 20 ? 5 : span_ms / step > 10 ? 2 : 1);
    for (unsigned n = 0; n * tick <= span_ms + 1e-9; n++) {
        const double at = n * tick, x = LEFT + WIDTH * at / span_ms;
        fprintf(f->out, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#888\"/>\n", x,
                bottom, x, bottom + 4);
        snprintf(text, sizeof text, "%g", at);
        print_text(f, x, bottom + 16, "middle", text);
    }
    print_text(f, LEFT + WIDTH, bottom + 30, "end", "ms");
    print_text(f, LEFT - 8, TOP + 10, "end", "TPC 0");
    snprintf(text, sizeof text, "%u", f->rows - 1);
    print_text(f, LEFT - 8, bottom, "end", text);
}

/* Which TPCs are whose: a bar at the left. */
static void print_owners(const struct frame *f, const struct lithos_tpcset *own)
{
    for (uint32_t i = 0; i < f->sc->tenant_count; i++) {
        const struct lithos_sim_span bar = {.tpcs = own[i], .tenant = i};
        for (unsigned b = lithos_tpcset_next(&bar.tpcs, 0); b < LITHOS_TPC_BITS;
             b = lithos_tpcset_next(&bar.tpcs, b + 1))
            fprintf(f->out, "<rect x=\"%d\" y=\"%u\" width=\"5\" height=\"%u\" fill=\"%s\"/>\n", LEFT - 6,
                    TOP + f->row_of[b] * ROW, ROW, colour(i));
    }
}

static void print_legend(const struct frame *f, const char *policy)
{
    char text[160];
    double x = LEFT;

    snprintf(text, sizeof text, "%s, %s", f->sc->name, policy);
    print_text(f, LEFT, 16, "start", text);
    for (uint32_t i = 0; i < f->sc->tenant_count; i++) {
        fprintf(f->out, "<rect x=\"%.1f\" y=\"26\" width=\"10\" height=\"10\" fill=\"%s\"/>\n", x, colour(i));
        print_text(f, x + 14, 35, "start", f->sc->tenants[i].name);
        x += 32 + LETTER * (double)strlen(f->sc->tenants[i].name);
    }
}

/* Share of requests (or iterations) that took no longer; time on a logarithmic axis of whole decades. */
static void print_cdf(const struct frame *f, double top)
{
    double least = INFINITY, most = 0;
    char text[64];

    for (uint32_t i = 0; i < f->sc->tenant_count; i++) {
        const struct lithos_sim_tenant_result *t = &f->r->tenants[i];
        if (!t->done)
            continue;
        least = LITHOS_MIN(least, t->latency_us[0]);
        most = LITHOS_MAX(most, t->latency_us[t->done - 1]);
    }
    if (!(most > 0))
        return;
    const double from = floor(log10(LITHOS_MAX(least, 0.1))), to = ceil(log10(most) + 1e-9);
    fprintf(f->out, "<rect x=\"%d\" y=\"%.1f\" width=\"%d\" height=\"%d\" fill=\"none\" stroke=\"#888\"/>\n",
            LEFT, top, WIDTH, CDF_HEIGHT);
    for (int d = (int)from; d <= (int)to; d++) {
        const double x = LEFT + WIDTH * (d - from) / (to - from);
        fprintf(f->out, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#ccc\"/>\n", x, top,
                x, top + CDF_HEIGHT);
        snprintf(text, sizeof text, "%g ms", pow(10, d - 3));
        print_text(f, x, top + CDF_HEIGHT + 14, "middle", text);
    }
    print_text(f, LEFT - 8, top + 10, "end", "100 %");
    print_text(f, LEFT - 8, top + CDF_HEIGHT, "end", "0");
    print_text(f, LEFT + WIDTH, top + CDF_HEIGHT + 30, "end", "requests, iterations: latency");
    for (uint32_t i = 0; i < f->sc->tenant_count; i++) {
        const struct lithos_sim_tenant_result *t = &f->r->tenants[i];
        const uint64_t step = t->done / 400 + 1;
        if (!t->done)
            continue;
        fprintf(f->out, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"1.5\" points=\"", colour(i));
        for (uint64_t n = 0; n < t->done;
             n += n + step < t->done || n + 1 == t->done ? step : t->done - 1 - n)
            fprintf(f->out, "%.1f,%.1f ",
                    LEFT + WIDTH * (log10(LITHOS_MAX(t->latency_us[n], 0.1)) - from) / (to - from),
                    top + CDF_HEIGHT * (1 - (double)(n + 1) / (double)t->done));
        fputs("\"/>\n", f->out);
    }
}

int lithos_sim_report_svg(FILE *out, const struct lithos_sim_scenario *sc,
                          const struct lithos_sim_options *options, const struct lithos_sim_result *r)
{
    struct frame f = {
        .out = out, .sc = sc, .r = r, .from_ns = options->span_from_ns, .to_ns = options->span_to_ns};
    const struct lithos_tpcset *valid = &sc->card.topology.valid;

    if (f.to_ns <= f.from_ns)
        return -EINVAL;
    for (unsigned b = lithos_tpcset_next(valid, 0); b < LITHOS_TPC_BITS; b = lithos_tpcset_next(valid, b + 1))
        f.row_of[b] = (uint8_t)f.rows++;
    const double cdf_top = TOP + f.rows * ROW + 60;
    fprintf(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%.0f\" font-family=\"sans-serif\" "
        "font-size=\"12\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
        LEFT + WIDTH + 30, cdf_top + CDF_HEIGHT + 40);
    print_legend(&f, options->policy->name);
    fputs("<g fill-opacity=\"0.6\">\n", out);
    print_boxes(&f);
    fputs("</g>\n", out);

    print_owners(&f, r->own);
    print_axis(&f);
    print_cdf(&f, cdf_top);
    fputs("</svg>\n", out);
    return fflush(out) == 0 && !ferror(out) ? 0 : -EIO;
}
