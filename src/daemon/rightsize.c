#include "daemon/rightsize.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "daemon/daemon.h"

#define OPERATORS 1024u
/* After the last TPC of an owner's has been taken back, an atom or two of others may still be there. */
#define FOREIGN_NS (2 * LITHOS_NSEC_PER_MSEC)
/* From a launch's submit time to its look at what it is to keep to, and some. */
#define TOLD_NS (100 * LITHOS_NSEC_PER_USEC)
/* For a request to count, at most one in so many of its launches that could have been on few TPCs may have been on all; and of all launches of a
 * reference on few: it has begun when its process is told. */
#define WIDE_PART 4u
#define NARROW_PART 8u

/* ---- who is right-sized ---- */

const char *lithosd_rightsize_why_not(const struct lithosd_tenant *t)
{
    const struct lithosd *d = t->daemon;
    if (!d->options.rightsize)
        return "lithosd runs without --rightsize=on";
    if (t->grant.class != LITHOS_CLASS_HIGH)
        return "it is not of class high";
    if (d->options.share == LITHOS_DOMAIN_PREEMPT)
        return "tenants take turns on all TPCs";
    if (t->grant.gpu_count != 1)
        return "it has more than one GPU";
    if (t->mode != LITHOS_MODE_MASK)
        return "its launches carry no TPC masks";
    return lithosd_times_why_not(t);
}

static bool is_wanted(const struct lithosd_tenant *t)
{
    return t->share.slip_ppm > LITHOS_RIGHTSIZE_PPM && !lithosd_rightsize_why_not(t);
}

static struct lithosd_rightsize *begin(const struct lithosd_tenant *t)
{
    struct lithos_rightsize_config c = {.topology = t->grant.gpus[0].topology};
    struct lithosd_rightsize *s = calloc(1, sizeof *s);
    size_t bytes = 0;
    lithos_rightsize_config_defaults(&c);
    c.operators = OPERATORS;
    c.slip_ppm = t->share.slip_ppm;
    void *mem =
        s && lithos_rightsize_size(&c, &bytes) == 0 ? aligned_alloc(64, (bytes + 63) / 64 * 64) : NULL;
    if (!mem || lithos_rightsize_init(mem, bytes, &c, &s->core) < 0) {
        lithos_warning("tenant %s is not right-sized: no memory, or its GPU's topology makes no sense",
                       t->name);
        free(mem);
        free(s);
        return NULL;
    }
    s->off = true;
    s->slip_ppm = t->share.slip_ppm;
    return s;
}

/* ---- what its processes are told ---- */

static void say(struct lithosd_tenant *t, bool off)
{
    for (unsigned i = 0; i < t->daemon->observe.process_high; i++) {
        struct lithosd_process *p = &t->daemon->processes[i];
        if (p->used && p->tenant == t && p->arena)
            atomic_store_explicit(&p->arena->sizing, !off, memory_order_release);
    }
    t->rightsize->off = off;
}

static void keep_to(struct lithosd_tenant *t, struct lithos_tpcset kept)
{
    struct lithosd_rightsize *s = t->rightsize;
    if (lithos_tpcset_equal(&kept, &s->kept))
        return;
    for (unsigned i = 0; i < t->daemon->observe.process_high; i++) {
        struct lithosd_process *p = &t->daemon->processes[i];
        if (p->used && p->tenant == t && p->arena)
            lithos_arena_keep(p->arena, kept);
    }
    t->daemon->lend.keep += !lithos_tpcset_empty(&kept);
    t->daemon->lend.keep -= !lithos_tpcset_empty(&s->kept);
    s->kept = kept;
    s->kept_ns = lithos_now_ns();
}

static void leave(struct lithosd_tenant *t, struct lithos_tpcset strip, uint64_t bears_ns)
{
    struct lithosd_rightsize *s = t->rightsize;
    if (lithos_tpcset_empty(&strip) && lithos_tpcset_empty(&s->strip))
        return;
    s->strip = strip;
    s->bears_ns = bears_ns;
    lithosd_lend_strip(t, strip, bears_ns);
}

/* Its launches have all of its TPCs, or what they need, again. */
static void take_back(struct lithosd_tenant *t)
{
    static const struct lithos_tpcset none;
    leave(t, none, 0);
    keep_to(t, none);
}

void lithosd_rightsize_ended(struct lithosd_tenant *t)
{
    if (!t->rightsize)
        return;
    t->daemon->lend.keep -= !lithos_tpcset_empty(&t->rightsize->kept);
    free(t->rightsize->core);
    free(t->rightsize);
    t->rightsize = NULL;
}

/* Nothing is seen of its requests until it goes on. */
static void pause(struct lithosd_tenant *t)
{
    t->rightsize->begun = false;
    lithos_rightsize_pause(t->rightsize->core, lithos_now_ns());
    for (unsigned i = 0; i < t->daemon->observe.process_high; i++) {
        const struct lithosd_process *p = &t->daemon->processes[i];
        if (p->used && p->tenant == t && p->reader && p->reader->sizes)
            memset(p->reader->sizes->request, 0, sizeof p->reader->sizes->request);
    }
    say(t, true);
}

void lithosd_rightsize_renew(struct lithosd_tenant *t)
{
    const bool wanted = is_wanted(t);
    if (wanted && !t->rightsize)
        t->rightsize = begin(t);
    struct lithosd_rightsize *s = t->rightsize;
    if (!s)
        return;
    s->paused = !wanted;
    take_back(t); /* its TPCs may be others now */
    if (!wanted) {
        pause(t);
    } else if (s->slip_ppm != t->share.slip_ppm) {
        s->begun = false;
        s->slip_ppm = t->share.slip_ppm;
        lithos_rightsize_set_slip(s->core, s->slip_ppm);
    }
}

void lithosd_rightsize_attach(struct lithosd_process *p)
{
    const struct lithosd_rightsize *s = p->tenant->rightsize;
    if (s)
        lithos_arena_keep(p->arena, s->kept);
    atomic_store_explicit(&p->arena->sizing, s && !s->off, memory_order_release);
}

void lithosd_rightsize_detach(struct lithosd_process *p)
{
    free(p->reader->sizes);
    p->reader->sizes = NULL;
}

static struct lithosd_sizes *sizes_of(struct lithosd_process *p)
{
    if (!p->reader->sizes)
        p->reader->sizes = calloc(1, sizeof *p->reader->sizes);
    if (!p->reader->sizes)
        lithos_log_once(LITHOS_LOG_WARNING, "no memory to right-size kernels of some processes");
    return p->reader->sizes;
}

static struct lithosd_size *find(struct lithosd_sizes *s, uint64_t key)
{
    struct lithosd_size *set = &s->row[lithos_size_row_of(key)];
    for (uint32_t i = 0; i < LITHOS_SIZE_WAYS; i++)
        if (set[i].key == key)
            return &set[i];
    return NULL;
}

/* One that made room for it. */
static struct lithosd_size *make(struct lithosd_sizes *s, uint64_t key)
{
    const uint32_t first = lithos_size_row_of(key);
    struct lithosd_size *row = &s->row[first + s->next[first / LITHOS_SIZE_WAYS]++ % LITHOS_SIZE_WAYS];
    *row = (struct lithosd_size){.key = key};
    return row;
}

/* Lines that launching threads read are written only when there is something new. */
static void publish(struct lithosd_process *p, struct lithosd_size *row, const struct lithos_size *size)
{
    const uint32_t at = (uint32_t)(row - p->reader->sizes->row);
    if (lithos_tpcset_equal(&row->size.tpcs, &size->tpcs) &&
        lithos_tpcset_equal(&row->size.probe, &size->probe) && row->size.probe_every == size->probe_every &&
        row->size.least_tpcs == size->least_tpcs)
        return;
    row->size = *size;
    lithos_size_put(p->arena->sizes, row->key, at - lithos_size_row_of(row->key), size);
}

/* ---- kernels ---- */

uint64_t lithosd_rightsize_key(const struct lithosd_tenant *t, const struct lithos_record *r)
{
    if (!t->rightsize || t->rightsize->paused || r->kind != LITHOS_RECORD_LAUNCH || r->launch.atoms ||
        r->gpu || r->flags & (LITHOS_RECORD_COOPERATIVE | LITHOS_RECORD_BREACH))
        return 0;
    return lithos_size_key(r->function, r->launch.grid, r->launch.block, r->launch.before);
}

void lithosd_rightsize_kernel(struct lithosd_tenant *t, const struct lithos_kernel_event *k)
{
    const struct lithos_timeline_launch *l = k->launch;
    struct lithosd_process *p = &t->daemon->processes[l->process];
    if (!t->rightsize || t->rightsize->paused || l->flags & LITHOS_KERNEL_GRAPH_NODE ||
        k->flags & (LITHOS_KERNEL_AFTER_GAP | LITHOS_KERNEL_OVERLAPPED | LITHOS_KERNEL_CLAMPED))
        return;
    const struct lithos_tpcset own = lithosd_lend_own(t, 0);
    const uint32_t all = lithos_tpcset_count(&own);
    const struct lithos_rightsize_run run = {
        .key = l->size_key ? lithos_size_key(l->function, l->grid, l->block, l->size_before) : 0,
        .ready_ns = l->submit_ns + l->call_ns,
        .took_ns = k->busy_ns,
        .tpcs = l->tpc_count ? l->tpc_count : all,
        .all = all};
    lithos_rightsize_ran(t->rightsize->core, &run);
    if (!l->size_key || !p->used || p->tenant != t || !p->reader || !p->arena || !sizes_of(p))
        return;
    struct lithos_rightsize_kernel kernel;
    struct lithos_rightsize_advice a = {.why = LITHOS_RIGHTSIZE_LEARN, .tpcs = own};
    const bool beside = k->start_ns < t->rightsize->foreign_until_ns;
    struct lithosd_size *row = find(p->reader->sizes, l->size_key);
    if (beside && row)
        return; /* what it takes beside others says nothing of how it scales */
    if (!row)
        row = make(p->reader->sizes, l->size_key);
    lithosd_rightsize_shape(t, l, all, row, &kernel);
    kernel.key = run.key;
    if (!beside)
        lithos_rightsize_ended(t->rightsize->core, &kernel, own, run.took_ns, run.tpcs, &a);
    row->function = l->function;
    row->launches++;
    row->of = all;
    row->why = a.why;
    const struct lithos_size size = {
        .tpcs = a.tpcs, .probe = a.probe, .probe_every = a.probe_every, .least_tpcs = kernel.least_tpcs};
    if (!lithos_tpcset_empty(&size.tpcs))
        publish(p, row, &size);
}

/* ---- requests ---- */

/* While others' work is on its TPCs all launches have all of them, unless it was told to keep off. */
static void set_mode(struct lithosd_tenant *t, uint64_t now_ns)
{
    struct lithosd_rightsize *s = t->rightsize;
    const struct lithos_tpcset away = lithosd_lend_away(t, 0);
    if (!lithos_tpcset_empty(&away))
        s->foreign_until_ns = now_ns + FOREIGN_NS;
    const bool beside = now_ns < s->foreign_until_ns && lithos_tpcset_empty(&s->kept);
    const bool off = s->paused || beside || lithos_rightsize_whole(s->core);
    if (off != s->off)
        say(t, off);
}

/* Did it go where its launches were told not to go? What it was about to launch when they were told does not count. What others have was told
 * of with the set before this one: that a level has just changed is no excuse for going there. */
static bool is_astray(const struct lithosd_rightsize *s, const struct lithos_record *r,
                      const struct lithos_timeline_launch *l)
{
    if (lithos_tpcset_empty(&s->kept))
        return false;
    const struct lithos_tpcset met = l ? lithos_tpcset_and(l->tpcs, s->strip) : s->strip;
    const uint64_t told_ns = lithos_tpcset_empty(&met) ? s->kept_ns : s->strip_told_ns;
    if (r->submit_ns < told_ns + TOLD_NS)
        return false;
    const struct lithos_tpcset outside = l ? lithos_tpcset_minus(l->tpcs, s->kept) : s->kept;
    return !lithos_tpcset_empty(&outside) && !(l && l->flags & LITHOS_KERNEL_DRIVER);
}

void lithosd_rightsize_launch(struct lithosd_process *p, const struct lithos_record *r,
                              const struct lithos_timeline_launch *l)
{
    static const struct lithos_tpcset none;
    struct lithosd_rightsize *s = p->tenant->rightsize;
    if (s->paused || !sizes_of(p))
        return;
    if (is_astray(s, r, l)) {
        lithos_rightsize_met(s->core);
        leave(p->tenant, none, 0);
    }
    struct lithosd_request *request = &p->reader->sizes->request[r->launch.thread % LITHOS_RECORD_RINGS];
    if (!request->begin_ns)
        *request = (struct lithosd_request){.begin_ns = LITHOS_MAX(r->submit_ns, 1ull)};
    request->launches++;
    if (!l)
        lithos_rightsize_unseen(s->core);
    const struct lithosd_size *row = l && l->size_key ? find(p->reader->sizes, l->size_key) : NULL;
    if (!row)
        return;
    if (l->tpc_count && l->tpc_count < row->of)
        request->narrow++;
    else if (lithos_tpcset_count(&row->size.tpcs) < row->of)
        request->wide++;
}

/* The thread's own; one that has launched nothing waits for others'. */
static struct lithosd_request *waited_for(struct lithosd_sizes *s, uint32_t thread)
{
    struct lithosd_request *first = &s->request[thread % LITHOS_RECORD_RINGS];
    if (first->begin_ns)
        return first;
    first = NULL;
    for (unsigned i = 0; i < LITHOS_RECORD_RINGS; i++)
        if (s->request[i].begin_ns && (!first || s->request[i].begin_ns < first->begin_ns))
            first = &s->request[i];
    return first;
}

/* Were others on its TPCs, where it had not left them any? */
static bool is_beside(const struct lithosd_rightsize *s, const struct lithosd_request *q)
{
    return lithos_tpcset_empty(&s->kept) && s->foreign_until_ns > q->begin_ns;
}

static bool is_whole(const struct lithosd_request *q)
{
    return q->narrow * NARROW_PART <= q->launches;
}

/* Ran it as it was to? Where nothing is known to be enough yet, as any other. */
static bool is_clean(const struct lithosd_rightsize *s, const struct lithosd_request *q)
{
    if (!lithos_tpcset_empty(&s->kept))
        return s->kept_ns <= q->begin_ns;
    return lithos_rightsize_whole(s->core) ? is_whole(q) : q->wide * WIDE_PART <= q->narrow;
}

/* What it is to keep to in the request that begins. Until the one that has ended was, launches may have been under way that had not been
 * told so: of the strip only that is left which they kept off as well. */
static void follow(struct lithosd_tenant *t)
{
    struct lithosd_rightsize *s = t->rightsize;
    const struct lithos_tpcset own = lithosd_lend_own(t, 0), before = s->kept;
    uint64_t bears_ns;
    const struct lithos_tpcset strip = lithos_rightsize_strip(s->core, own, &bears_ns);
    leave(t, lithos_tpcset_minus(strip, lithos_tpcset_empty(&before) ? own : before), bears_ns);
    s->strip_told_ns = s->kept_ns;
    keep_to(t, lithos_rightsize_kept(s->core, own));
    set_mode(t, lithos_now_ns());
}

static void next_request(struct lithosd_tenant *t, uint64_t now_ns)
{
    lithos_rightsize_lend(t->rightsize->core, lithosd_lend_wanted(t));
    lithos_rightsize_request(t->rightsize->core, now_ns);
}

struct lithos_tpcset lithosd_rightsize_strip(const struct lithosd_tenant *t)
{
    static const struct lithos_tpcset none;
    return t->rightsize ? t->rightsize->strip : none;
}

void lithosd_rightsize_beside(struct lithosd *d, unsigned gpu, const struct lithos_tpcset *tpcs)
{
    for (unsigned i = 0; d->lend.keep && i < LITHOSD_TENANT_MAX; i++) {
        const struct lithosd_tenant *t = &d->tenants[i];
        const struct lithos_tpcset strip = lithosd_rightsize_strip(t);
        const struct lithos_tpcset there = lithos_tpcset_and(strip, *tpcs);
        if (t->used && !lithos_tpcset_empty(&there) && t->gpu[0] == gpu)
            lithos_rightsize_used(t->rightsize->core);
    }
}

void lithosd_rightsize_took(const struct lithosd_tenant *other, const struct lithos_kernel_event *k)
{
    struct lithosd *d = other->daemon;
    for (unsigned i = 0; d->lend.keep && i < LITHOSD_TENANT_MAX; i++) {
        const struct lithosd_tenant *t = &d->tenants[i];
        if (t->used && t != other && t->rightsize && t->gpu[0] == other->gpu[k->launch->gpu])
            lithos_rightsize_took(t->rightsize->core, k->launch->tpcs, k->busy_ns);
    }
}

static void ended(struct lithosd_rightsize *s, const struct lithosd_request *q, uint64_t end_ns)
{
    const uint64_t took_ns = end_ns - q->begin_ns;
    if (is_beside(s, q) && is_whole(q)) {
        lithos_rightsize_request_beside(s->core, end_ns, took_ns, q->launches);
    } else if (!is_beside(s, q) && is_clean(s, q)) {
        lithos_rightsize_request_done(s->core, end_ns, took_ns, q->launches);
    } else {
        s->spoilt++;
        lithos_rightsize_request_spoilt(s->core, end_ns, took_ns, q->launches);
    }
}

/* How long others will be on what it kept off. */
static uint64_t beside_ns(const struct lithosd_tenant *t)
{
    const struct lithos_tpcset own = lithosd_lend_own(t, 0);
    return lithos_tpcset_empty(&t->rightsize->kept)
               ? 0
               : lithosd_lend_beside_ns(t, lithos_tpcset_minus(own, t->rightsize->kept));
}

void lithosd_rightsize_sync(struct lithosd_process *p, const struct lithos_record *r)
{
    struct lithosd_rightsize *s = p->tenant->rightsize;
    struct lithosd_request *q = sizes_of(p) ? waited_for(p->reader->sizes, r->launch.thread) : NULL;
    const uint64_t end_ns = r->submit_ns + r->launch.call_ns;
    if (s->paused || !q || end_ns <= q->begin_ns)
        return;
    lithos_rightsize_beside(s->core, end_ns, beside_ns(p->tenant));
    if (s->begun)
        ended(s, q, end_ns);
    s->begun = true;
    next_request(p->tenant, end_ns);
    follow(p->tenant);
    *q = (struct lithosd_request){0};
}

/* ---- now ---- */

void lithosd_rightsize_look(struct lithosd *d)
{
    if (!d->options.rightsize)
        return;
    const uint64_t now_ns = lithos_now_ns();
    for (unsigned i = 0; i < LITHOSD_TENANT_MAX; i++)
        if (d->tenants[i].used && d->tenants[i].rightsize)
            set_mode(&d->tenants[i], now_ns);
}
