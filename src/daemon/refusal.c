/* What a refused user needs to know: who holds what, how much is left, what can be done. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/daemon.h"

/* Lines of tenants in one message, the largest holders first; it has to fit LITHOS_TEXT_MAX. */
#define LINES_MAX 7u

struct text {
    char *at;
    size_t left;
};

static void LITHOS_PRINTF(2, 3) add(struct text *t, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(t->at, t->left, fmt, ap);
    va_end(ap);
    size_t used = n < 0 ? 0 : LITHOS_MIN((size_t)n, t->left - 1);
    t->at += used;
    t->left -= used;
}

struct row {
    const struct lithosd_tenant *tenant;
    unsigned tpcs;
};

static int larger_first(const void *a, const void *b)
{
    const struct row *x = a, *y = b;
    return x->tpcs == y->tpcs ? strcmp(x->tenant->name, y->tenant->name) : x->tpcs < y->tpcs ? 1 : -1;
}

static unsigned collect(struct lithosd *d, const struct lithosd_gpu *gpu, struct row rows[LITHOS_ALLOC_MAX])
{
    unsigned count = 0;
    const struct lithos_alloc_holder *h;
    for (size_t n = 0; (h = lithos_alloc_holder_at(&gpu->alloc, n)); n++) {
        const struct lithosd_tenant *tenant = lithosd_tenant_by_id(d, h->tenant);
        if (tenant)
            rows[count++] = (struct row){tenant, lithos_tpcset_count(&h->set)};
    }
    qsort(rows, count, sizeof *rows, larger_first);
    return count;
}

static void add_gpu(struct lithosd *d, const struct lithosd_gpu *gpu, unsigned lines, struct text *text)
{
    struct row rows[LITHOS_ALLOC_MAX];
    unsigned count = collect(d, gpu, rows), tpcs = lithosd_gpu_tpcs(gpu);
    unsigned unused = lithos_alloc_free_count(&gpu->alloc);
    add(text, "\n  GPU %u (%.24s): %u of %u TPCs free (%u%%)", gpu->index, gpu->name, unused, tpcs,
        unused * 100 / tpcs);
    for (unsigned i = 0; i < LITHOS_MIN(count, lines); i++) {
        char quota[16];
        add(text, "\n    %-20.32s %3u TPCs  quota %-6s pid %d", rows[i].tenant->name, rows[i].tpcs,
            lithos_quota_format(&rows[i].tenant->quota, quota), (int)rows[i].tenant->root_pid);
    }
    if (count > lines)
        add(text, "\n    and %u more (`lithos status`)", count - lines);
}

void lithosd_refusal(struct lithosd *d, const unsigned *gpus, unsigned gpu_count, char text[LITHOS_TEXT_MAX],
                     const char *fmt, ...)
{
    static const char advice[] =
        "\n  Ask for less, make another tenant smaller (`lithos set NAME QUOTA`), or end one.";
    struct text t = {text, LITHOS_TEXT_MAX - sizeof advice + 1};
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(t.at, t.left, fmt, ap);
    va_end(ap);
    size_t used = n < 0 ? 0 : LITHOS_MIN((size_t)n, t.left - 1);
    t.at += used;
    t.left -= used;
    unsigned shown = LITHOS_MIN(gpu_count, 4u), lines = shown > 1 ? 2 : LINES_MAX;
    for (unsigned i = 0; i < shown; i++)
        add_gpu(d, &d->gpus.gpu[gpus[i]], lines, &t);
    if (gpu_count > shown)
        add(&t, "\n  and %u more GPUs (`lithos status`)", gpu_count - shown);
    memcpy(t.at, advice, sizeof advice);
}
