/* "rightsize" of a tenant in the status document. */
#include <stdlib.h>

#include "daemon/daemon.h"

#define OPERATORS_SHOWN 16u

static json_t *number(uint64_t v)
{
    return json_integer((json_int_t)(v & INT64_MAX));
}

struct shown {
    const struct lithosd_size *size;
    uint32_t tpcs;
};

static int by_launches(const void *left, const void *right)
{
    const struct shown *a = left, *b = right;
    return (a->size->launches < b->size->launches) - (a->size->launches > b->size->launches);
}

/* Put it among those launched most often, most first. */
static unsigned enter(struct shown list[OPERATORS_SHOWN], unsigned n, const struct lithosd_size *size)
{
    const struct shown s = {size, lithos_tpcset_count(&size->size.tpcs)};
    if (n < OPERATORS_SHOWN)
        list[n++] = s;
    else if (list[n - 1].size->launches < size->launches)
        list[n - 1] = s;
    qsort(list, n, sizeof *list, by_launches);
    return n;
}

/* Those that are known, of all its processes. */
static json_t *operators(const struct lithosd_tenant *t)
{
    json_t *array = json_array();
    struct shown list[OPERATORS_SHOWN];
    unsigned n = 0;
    for (unsigned i = 0; i < t->daemon->observe.process_high; i++) {
        const struct lithosd_process *p = &t->daemon->processes[i];
        const struct lithosd_sizes *s = p->used && p->tenant == t && p->reader ? p->reader->sizes : NULL;
        for (uint32_t r = 0; s && r < LITHOS_SIZE_ROWS; r++)
            if (s->row[r].key)
                n = enter(list, n, &s->row[r]);
    }
    for (unsigned i = 0; i < n; i++) {
        const struct lithosd_size *s = list[i].size;
        const char *name = lithosd_names_text(&t->observed->names, s->function);
        json_array_append_new(
            array, json_pack("{s:s,s:o,s:i,s:i,s:i,s:i,s:s}", "name", name ? name : "(unknown)", "launches",
                             number(s->launches), "tpcs", (int)list[i].tpcs, "of", (int)s->of, "tries",
                             s->size.probe_every ? (int)lithos_tpcset_count(&s->size.probe) : 0, "least",
                             (int)s->size.least_tpcs, "why", lithos_rightsize_why_name(s->why)));
    }
    return array;
}

/* What it leaves to others. */
static json_t *strip_status(const struct lithosd_rightsize *s, const struct lithos_rightsize_stats *st)
{
    char text[LITHOS_TPCSET_TEXT_MAX];
    return json_pack("{s:i,s:s,s:f,s:f,s:o,s:o,s:o,s:o,s:o,s:o}", "tpcs", (int)lithos_tpcset_count(&s->strip),
                     "bits", lithos_tpcset_format(&s->strip, text), "bears_us", (double)s->bears_ns / 1e3,
                     "used_percent", 100.0 * (double)lithos_rightsize_used_part(s->core), "requests",
                     number(st->lent), "unused", number(st->unused), "narrowed", number(st->narrowed), "met",
                     number(st->met), "dear", number(st->dear), "whole", number(st->whole));
}

/* Why it was undone, the last time. */
static json_t *undone_status(const struct lithos_rightsize_undone *u)
{
    if (!u->request)
        return json_null();
    return json_pack("{s:o,s:o,s:f,s:f,s:s}", "request", number(u->request), "launches", number(u->launches),
                     "reference_us", (double)u->reference_us, "median_us", (double)u->median_us, "by",
                     u->tail ? "tail" : "rank");
}

json_t *lithosd_rightsize_status(const struct lithosd_tenant *t)
{
    const struct lithosd_rightsize *s = t->rightsize;
    json_t *slip = t->share.slip_ppm ? json_real(t->share.slip_ppm / 1e6) : json_null();
    if (!s || s->paused) {
        const char *why = t->share.slip_ppm ? lithosd_rightsize_why_not(t) : "it has not said a slip";
        return json_pack("{s:b,s:o,s:s}", "on", 0, "slip", slip, "why",
                         why ? why : "its slip leaves nothing");
    }
    const struct lithos_rightsize_stats *st = lithos_rightsize_stats(s->core);
    json_t *kernels = json_object();
    for (int w = LITHOS_RIGHTSIZE_REFERENCE; w < LITHOS_RIGHTSIZE_WHY_MAX; w++)
        if (w != LITHOS_RIGHTSIZE_FOREIGN && w != LITHOS_RIGHTSIZE_LENT)
            json_object_set_new(kernels, lithos_rightsize_why_name((enum lithos_rightsize_why)w),
                                number(st->chosen[w]));
    return json_pack(
        "{s:b,s:o,s:s,s:f,s:f,s:b,s:f,s:f,s:f,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "on", 1, "slip",
        slip, "why", "", "slip_in_force", st->slip_ppm / 1e6, "kernel_slip",
        (double)lithos_rightsize_kernel_slip(s->core), "whole", (int)s->off, "tpc_time_s", st->tpc_ns / 1e9,
        "tpc_time_saved_percent", st->whole_tpc_ns > 0 ? 100 * (1 - st->tpc_ns / st->whole_tpc_ns) : 0,
        "slower_percent", st->whole_kernel_ns > 0 ? 100 * (st->kernel_ns / st->whole_kernel_ns - 1) : 0,
        "kernels", kernels, "requests", number(st->requests), "references", number(st->references), "spoilt",
        number(s->spoilt), "reckoned", number(st->reckoned), "unreckoned", number(st->unreckoned), "undone",
        number(st->undone), "stopped", number(st->stopped), "last_undone", undone_status(&st->last_undone),
        "strip", strip_status(s, st), "operators", t->observed ? operators(t) : json_array());
}
