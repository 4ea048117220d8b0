/* Plans: for each process a book of its operators (core/atoms.h), whose rows stand in its arena. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "daemon/daemon.h"

/* What a high-priority neighbour's request may lose to one atom, of the time that it has: a tenth. */
#define SLO_PART 10u

static bool share_a_gpu(const struct lithosd_tenant *a, const struct lithosd_tenant *b)
{
    for (uint32_t i = 0; i < a->grant.gpu_count; i++)
        if (lithosd_tenant_is_on(b, a->gpu[i]))
            return true;
    return false;
}

/* How long an atom of the tenant's may be for its neighbours' sake; UINT64_MAX: as long as it likes. */
static uint64_t ceiling_ns(const struct lithosd *d, const struct lithosd_tenant *t)
{
    uint64_t ceiling = UINT64_MAX;
    for (unsigned n = 0; n < LITHOSD_TENANT_MAX; n++) {
        const struct lithosd_tenant *u = &d->tenants[n];
        uint64_t slo_ns =
            u->used && u != t && u->grant.class == LITHOS_CLASS_HIGH ? lithosd_share(u).slo_ns : 0;
        if (slo_ns && share_a_gpu(t, u))
            ceiling = LITHOS_MIN(ceiling, slo_ns / SLO_PART);
    }
    return ceiling;
}

/* Limits of a tenant on one of its GPUs. */
static struct lithos_atom_limits limits_of(const struct lithosd_tenant *t, uint32_t gpu)
{
    const struct lithosd_gpu *g = &t->daemon->gpus.gpu[t->gpu[gpu]];
    struct lithos_atom_limits l;
    lithos_atom_limits_init(&l, &t->grant.atom, g->exit_ps, g->sm_count);
    l.atom_ns = LITHOS_MIN(l.atom_ns, t->atom_ceiling_ns); /* the floor holds all the same */
    return l;
}

static void publish(struct lithosd_process *p, const struct lithos_atom_row *row)
{
    const struct lithos_plan plan = {
        .choice = row->choice, .predicted_ns = row->predicted_ns, .wave_ns = row->wave_ns};
    lithos_plan_put(p->arena->plans, row->row, row->key, &plan);
}

static struct lithos_atom_book *book_of(struct lithosd_process *p)
{
    if (p->reader->book)
        return p->reader->book;
    size_t bytes = (lithos_atom_book_bytes() + 63) / 64 * 64;
    void *mem = aligned_alloc(64, bytes);
    if (!mem) {
        lithos_log_once(LITHOS_LOG_WARNING, "no memory for plans: kernels are cut as if each were new");
        return NULL;
    }
    memset(mem, 0, bytes);
    return p->reader->book = lithos_atom_book_init(mem);
}

void lithosd_plans_observe(struct lithosd_tenant *t, const struct lithos_kernel_event *k)
{
    const struct lithos_timeline_launch *l = k->launch;
    struct lithosd_process *p = &t->daemon->processes[l->process];
    if (t->grant.atom.mode != LITHOS_ATOM_DURATION || k->flags & LITHOS_KERNEL_AFTER_GAP || !p->used ||
        p->tenant != t || !p->reader || !p->arena || !book_of(p))
        return;
    const struct lithosd_gpu *g = &t->daemon->gpus.gpu[t->gpu[l->gpu]];
    uint32_t tpcs = l->tpc_count ? l->tpc_count : lithosd_gpu_tpcs(g);
    unsigned __int128 blocks = (unsigned __int128)l->grid[0] * l->grid[1] * l->grid[2];
    struct lithos_atom_sample s = {
        .key = l->operator_key,
        .blocks = (uint64_t)LITHOS_MIN(blocks, (unsigned __int128)UINT64_MAX),
        .duration_ns = k->busy_ns,
        .blocks_per_sm = l->blocks_per_sm,
        .sms = LITHOS_MIN(tpcs * g->alloc.topology.sms_per_tpc, g->sm_count),
        .atoms = k->atoms,
        .fair = !(k->flags & (LITHOS_KERNEL_OVERLAPPED | LITHOS_KERNEL_CLAMPED)),
    };
    struct lithos_atom_limits limits = limits_of(t, l->gpu);
    struct lithos_atom_row row;
    if (lithos_atom_book_observe(p->reader->book, &limits, &s, &row))
        publish(p, &row);
}

void lithosd_plans_renew(struct lithosd_tenant *t)
{
    if (t->grant.atom.mode != LITHOS_ATOM_DURATION)
        return; /* not looked at then */
    struct lithos_atom_limits limits = limits_of(t, 0);
    for (unsigned i = 0; i < LITHOSD_PROCESS_MAX; i++) {
        struct lithosd_process *p = &t->daemon->processes[i];
        struct lithos_atom_row row;
        uint32_t cursor = 0;
        if (!p->used || p->tenant != t || !p->reader || !p->reader->book || !p->arena)
            continue;
        while (lithos_atom_book_replan(p->reader->book, &limits, &cursor, &row))
            publish(p, &row);
    }
}

void lithosd_plans_tenants_changed(struct lithosd *d)
{
    for (unsigned n = 0; n < LITHOSD_TENANT_MAX; n++) {
        struct lithosd_tenant *t = &d->tenants[n];
        uint64_t ceiling = t->used ? ceiling_ns(d, t) : UINT64_MAX;
        if (t->used && ceiling != t->atom_ceiling_ns) {
            t->atom_ceiling_ns = ceiling;
            lithosd_plans_renew(t);
        }
    }
}

void lithosd_plans_forget(struct lithosd_process *p)
{
    free(p->reader->book);
    p->reader->book = NULL;
}

static json_t *number(uint64_t v)
{
    return json_integer((json_int_t)(v & INT64_MAX));
}

json_t *lithosd_plans_status(const struct lithosd_tenant *t)
{
    struct lithos_atom_book_stats sum = {0};
    for (unsigned i = 0; i < LITHOSD_PROCESS_MAX; i++) {
        const struct lithosd_process *p = &t->daemon->processes[i];
        struct lithos_atom_book_stats s;
        if (!p->used || p->tenant != t || !p->reader || !p->reader->book)
            continue;
        lithos_atom_book_stats(p->reader->book, &s);
        sum.operators += s.operators;
        sum.cut += s.cut;
        sum.trials += s.trials;
        sum.slower += s.slower;
        sum.forgotten += s.forgotten;
        for (int w = 0; w < LITHOS_WHOLE_MAX; w++)
            sum.whole[w] += s.whole[w];
    }
    return json_pack("{s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "known", number(sum.operators), "cut",
                     number(sum.cut), "short", number(sum.whole[LITHOS_WHOLE_SHORT]), "one_wave",
                     number(sum.whole[LITHOS_WHOLE_ONE_WAVE]), "exits", number(sum.whole[LITHOS_WHOLE_EXITS]),
                     "slower", number(sum.whole[LITHOS_WHOLE_SLOWER]), "trials", number(sum.trials),
                     "trials_slower", number(sum.slower), "forgotten", number(sum.forgotten));
}
