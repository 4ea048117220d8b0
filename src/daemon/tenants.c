/* Tenants: admitted, resized, released. All TPCs pass through core/alloc.h. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"
#include "daemon/daemon.h"
#include "daemon/procinfo.h"
#include "proto/socket.h"

/* ---- the table ---- */

struct lithosd_tenant *lithosd_tenant_by_name(struct lithosd *d, const char *name)
{
    for (unsigned i = 0; i < LITHOSD_TENANT_MAX; i++)
        if (d->tenants[i].used && !strcmp(d->tenants[i].name, name))
            return &d->tenants[i];
    return NULL;
}

struct lithosd_tenant *lithosd_tenant_by_id(struct lithosd *d, uint64_t id)
{
    for (unsigned i = 0; i < LITHOSD_TENANT_MAX; i++)
        if (d->tenants[i].used && d->tenants[i].id == id)
            return &d->tenants[i];
    return NULL;
}

struct lithosd_tenant *lithosd_tenant_new(struct lithosd *d)
{
    for (unsigned i = 0; i < LITHOSD_TENANT_MAX; i++) {
        struct lithosd_tenant *t = &d->tenants[i];
        if (t->used)
            continue;
        *t = (struct lithosd_tenant){.used = true, .root.fd = -1, .atom_ceiling_ns = UINT64_MAX, .daemon = d};
        d->tenant_count++;
        return t;
    }
    return NULL;
}

static void root_ended(void *ctx, uint32_t events)
{
    (void)events;
    struct lithosd_tenant *t = ctx;
    struct lithosd *d = t->daemon;
    int fd = t->root.fd;
    lithosd_watch_remove(&d->loop, &t->root);
    close(fd);
    if (!lithosd_tenant_check(t))
        lithosd_state_save(d);
}

int lithosd_tenant_watch_root(struct lithosd_tenant *t, int pidfd)
{
    return lithosd_watch_add(&t->daemon->loop, &t->root, pidfd, EPOLLIN, root_ended, t);
}

bool lithosd_tenant_is_on(const struct lithosd_tenant *t, unsigned gpu)
{
    for (uint32_t i = 0; i < t->grant.gpu_count; i++)
        if (t->gpu[i] == gpu)
            return true;
    return false;
}

void lithosd_tenant_release(struct lithosd_tenant *t)
{
    struct lithosd *d = t->daemon;
    lithos_assert(t->used && t->processes == 0);
    lithosd_observe_ended(t);
    lithosd_rightsize_ended(t);
    lithosd_lend_remove(t);
    for (uint32_t i = 0; lithosd_owns(t) && i < t->grant.gpu_count; i++)
        lithos_assert(lithos_alloc_release(&d->gpus.gpu[t->gpu[i]].alloc, t->id) == 0);
    lithosd_timer_cancel(&d->loop, &t->grace);
    if (t->root.fd >= 0) {
        int fd = t->root.fd;
        lithosd_watch_remove(&d->loop, &t->root);
        close(fd);
    }
    t->used = false;
    d->tenant_count--;
    lithosd_refuges_renew(d);
    lithosd_plans_tenants_changed(d);
}

bool lithosd_tenant_check(struct lithosd_tenant *t)
{
    struct lithosd *d = t->daemon;
    if (t->root.fd >= 0 || t->processes > 0 || t->grace.armed)
        return false;
    lithosd_event(&d->events, "ended", "tenant %s (pid %d): no process of it is left, its TPCs are free",
                  t->name, (int)t->root_pid);
    lithosd_tenant_release(t);
    lithosd_state_save(d);
    lithosd_tenants_changed(d);
    return true;
}

void lithosd_tenant_counters(const struct lithosd_tenant *t, uint64_t ret_counters[LITHOS_COUNTER_MAX])
{
    memcpy(ret_counters, t->counters, sizeof t->counters);
    for (unsigned i = 0; i < LITHOSD_PROCESS_MAX; i++) {
        const struct lithosd_process *p = &t->daemon->processes[i];
        uint64_t counters[LITHOS_COUNTER_MAX];
        if (!p->used || p->tenant != t || !p->arena)
            continue;
        lithos_arena_read_counters(p->arena, counters);
        for (int c = 0; c < LITHOS_COUNTER_MAX; c++)
            ret_counters[c] += counters[c];
    }
}

static void idle_too_long(void *ctx)
{
    struct lithosd *d = ctx;
    if (d->tenant_count == 0 && d->connection_count == 0)
        lithosd_stop(d, "no tenant for as long as --idle-exit says");
    else if (d->tenant_count == 0) /* somebody is just asking for something */
        lithosd_timer_set(&d->loop, &d->idle, LITHOS_NSEC_PER_SEC, idle_too_long, d);
}

void lithosd_tenants_changed(struct lithosd *d)
{
    lithosd_mps_set_busy(&d->mps, d->tenant_count > 0);
    if (d->tenant_count > 0)
        lithosd_timer_cancel(&d->loop, &d->idle);
    else if (d->options.idle_exit_ns && !d->idle.armed)
        lithosd_timer_set(&d->loop, &d->idle, d->options.idle_exit_ns, idle_too_long, d);
}

/* ---- admission ---- */

/* Candidates and the choice among them. */
struct selection {
    unsigned count;
    unsigned gpu[LITHOS_MAX_GPUS];
    unsigned tpcs[LITHOS_MAX_GPUS]; /* the quota on each */
};

static unsigned quota_on(const struct lithosd_gpu *g, const struct lithos_quota *q)
{
    unsigned tpcs = lithosd_gpu_tpcs(g);
    if (q->unit == LITHOS_QUOTA_TPCS)
        return q->value <= tpcs ? q->value : 0;
    return lithos_alloc_quota_tpcs(tpcs, q->value);
}

static int named_gpus(const struct lithosd *d, uint32_t count, const uint8_t uuids[][LITHOS_UUID_BYTES],
                      struct selection *ret, char text[LITHOS_TEXT_MAX])
{
    char uuid[LITHOS_UUID_TEXT_MAX];
    for (uint32_t i = 0; i < count; i++) {
        int gpu = lithosd_gpus_find(&d->gpus, uuids[i]);
        if (gpu < 0) {
            snprintf(text, LITHOS_TEXT_MAX, "%s is no GPU of this machine: `lithos status` lists them",
                     lithos_uuid_format(uuids[i], uuid));
            return -ENODEV;
        }
        if (d->gpus.gpu[gpu].error[0]) {
            snprintf(text, LITHOS_TEXT_MAX, "GPU %u (%s) cannot be used: %s", d->gpus.gpu[gpu].index,
                     d->gpus.gpu[gpu].name, d->gpus.gpu[gpu].error);
            return -ENODEV;
        }
        ret->gpu[ret->count++] = (unsigned)gpu;
    }
    return 0;
}

/* GPUs the tenant may be put on when it names none: those visible to it that work. */
static int visible_gpus(const struct lithosd *d, const struct lithos_msg_admit *m, struct selection *ret,
                        char text[LITHOS_TEXT_MAX])
{
    const char *first_error = "";
    for (unsigned i = 0; i < d->gpus.count; i++) {
        bool visible = m->visible_count == 0;
        for (uint32_t v = 0; v < m->visible_count; v++)
            visible = visible || !memcmp(m->visible[v], d->gpus.gpu[i].uuid, LITHOS_UUID_BYTES);
        if (visible && !d->gpus.gpu[i].error[0])
            ret->gpu[ret->count++] = i;
        else if (visible && !*first_error)
            first_error = d->gpus.gpu[i].error;
    }
    if (ret->count)
        return 0;
    if (*first_error)
        snprintf(text, LITHOS_TEXT_MAX, "no visible GPU can be used: %s", first_error);
    else
        snprintf(text, LITHOS_TEXT_MAX,
                 "CUDA_VISIBLE_DEVICES shows none of the GPUs of this machine: `lithos status` lists them");
    return -ENODEV;
}

static int too_large(const struct lithosd_gpu *g, const struct lithos_quota *q, char text[LITHOS_TEXT_MAX])
{
    char quota[16];
    snprintf(text, LITHOS_TEXT_MAX,
             "a quota of %s TPCs is more than GPU %u (%s) has: %u; ask for at most that, or for "
             "a share such as 50%%",
             lithos_quota_format(q, quota), g->index, g->name, lithosd_gpu_tpcs(g));
    return -ERANGE;
}

/* The GPU with most free TPCs that has room; else who is in the way. */
static int pick_gpu(struct lithosd *d, const struct lithos_quota *q, struct selection *s,
                    char text[LITHOS_TEXT_MAX])
{
    int best = -1;
    unsigned best_free = 0, fits_empty = 0;
    char quota[16];
    for (unsigned i = 0; i < s->count; i++) {
        const struct lithosd_gpu *g = &d->gpus.gpu[s->gpu[i]];
        unsigned want = quota_on(g, q), unused = lithos_alloc_free_count(&g->alloc);
        fits_empty += want > 0 || q->value == 0;
        if ((want == 0 && q->value) || unused < want || (best >= 0 && unused <= best_free))
            continue;
        best = (int)s->gpu[i];
        best_free = unused;
    }
    if (best < 0 && !fits_empty)
        return too_large(&d->gpus.gpu[s->gpu[0]], q, text);
    if (best < 0) {
        lithosd_refusal(d, s->gpu, s->count, text,
                        "no GPU has room for a quota of %s%s:", lithos_quota_format(q, quota),
                        q->unit == LITHOS_QUOTA_TPCS ? " TPCs" : "");
        return -ENOSPC;
    }
    s->count = 1;
    s->gpu[0] = (unsigned)best;
    return 0;
}

static int select_gpus(struct lithosd *d, const struct lithos_msg_admit *m, struct selection *ret,
                       char text[LITHOS_TEXT_MAX])
{
    struct selection s = {.count = 0};
    int r;
    if (!d->gpus.count) {
        snprintf(text, LITHOS_TEXT_MAX, "no GPU can be used: %s (`lithos doctor` says more)", d->gpus.error);
        return -ENODEV;
    }
    if (m->gpu_count) {
        r = named_gpus(d, m->gpu_count, m->gpus, &s, text);
    } else {
        r = visible_gpus(d, m, &s, text);
        if (r == 0)
            r = pick_gpu(d, &m->quota, &s, text);
    }
    for (unsigned i = 0; r == 0 && i < s.count; i++) {
        s.tpcs[i] = quota_on(&d->gpus.gpu[s.gpu[i]], &m->quota);
        if (s.tpcs[i] == 0 && m->quota.value)
            r = too_large(&d->gpus.gpu[s.gpu[i]], &m->quota, text);
    }
    if (r == 0)
        *ret = s;
    return r;
}

/* On all GPUs or on none. */
static int place(struct lithosd *d, struct lithosd_tenant *t, const struct selection *s,
                 char text[LITHOS_TEXT_MAX])
{
    struct lithos_grant g = {.epoch = 1, .gpu_count = s->count};
    for (unsigned i = 0; i < s->count; i++) {
        struct lithosd_gpu *gpu = &d->gpus.gpu[s->gpu[i]];
        int r = lithosd_owns(t) ? lithos_alloc_place(&gpu->alloc, t->id, s->tpcs[i], &g.gpus[i].own) : 0;
        if (!lithosd_owns(t))
            g.gpus[i].own = lithosd_refuge(d, t, s->gpu[i]);
        if (r == 0) {
            memcpy(g.gpus[i].uuid, gpu->uuid, LITHOS_UUID_BYTES);
            g.gpus[i].topology = gpu->alloc.topology;
            t->gpu[i] = s->gpu[i];
            continue;
        }
        if (r == -ENOSPC)
            lithosd_refusal(d, &s->gpu[i], 1, text, "GPU %u (%s) has no room for %u TPCs:", gpu->index,
                            gpu->name, s->tpcs[i]);
        else
            snprintf(text, LITHOS_TEXT_MAX, "GPU %u (%s): its TPCs cannot be given out: %s", gpu->index,
                     gpu->name, strerror(-r));
        while (i-- > 0) /* one that owns nothing is never refused here */
            lithos_alloc_release(&d->gpus.gpu[s->gpu[i]].alloc, t->id);
        return r;
    }
    t->grant = g;
    return 0;
}

static void note(char text[LITHOS_TEXT_MAX], const char *fmt, ...) LITHOS_PRINTF(2, 3);
static void note(char text[LITHOS_TEXT_MAX], const char *fmt, ...)
{
    size_t len = strlen(text);
    if (len && len + 3 < LITHOS_TEXT_MAX) {
        memcpy(text + len, "; ", 3);
        len += 2;
    }
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text + len, LITHOS_TEXT_MAX - len, fmt, ap);
    va_end(ap);
}

/* How the quota will be held, and what the user should know about it. */
static void choose_mode(struct lithosd *d, struct lithosd_tenant *t, bool want_coarse,
                        char text[LITHOS_TEXT_MAX])
{
    const struct lithosd_gpu *unhooked = NULL;
    unsigned percent = 100;
    for (uint32_t i = 0; i < t->grant.gpu_count; i++) {
        const struct lithosd_gpu *g = &d->gpus.gpu[t->gpu[i]];
        if (!g->hook && !unhooked)
            unhooked = g;
        percent = LITHOS_MIN(percent, lithos_tpcset_count(&t->grant.gpus[i].own) * 100 / lithosd_gpu_tpcs(g));
    }
    t->mps = lithosd_mps_usable(&d->mps);
    t->mode = !unhooked && !want_coarse ? LITHOS_MODE_MASK : t->mps ? LITHOS_MODE_COARSE : LITHOS_MODE_NONE;
    const char *why = want_coarse ? "as asked" : unhooked ? unhooked->hook_why : "";
    if (t->mode == LITHOS_MODE_COARSE) {
        t->thread_percentage = LITHOS_MAX(percent, 1u);
        note(text, "the quota is held coarsely, as %u%% of the SMs through MPS and not as named TPCs: %s",
             t->thread_percentage, *why ? why : "TPC masks cannot be had");
    }
    if (t->mode == LITHOS_MODE_NONE)
        note(text,
             "the quota is not held: TPC masks cannot be used (%s) and MPS is not there to hold it coarsely",
             *why ? why : "TPC masks cannot be had");
    if (!t->mps)
        note(text, "tenants of this GPU take turns instead of running side by side: %s", d->mps.why);
    if (d->gpus.is_virtual)
        note(text, "this is the virtual GPU");
}

static void generate_name(struct lithosd *d, const char *command, char ret_name[LITHOS_NAME_MAX])
{
    char base[LITHOS_NAME_MAX - 8];
    size_t len = 0;
    for (; command[len] && len + 1 < sizeof base; len++) {
        char c = command[len];
        bool plain =
            (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("._-+", c);
        base[len] = plain ? c : '_';
    }
    base[len] = '\0';
    for (unsigned n = 1;; n++) {    /* ends: there are fewer tenants than numbers */
        char name[LITHOS_NAME_MAX]; /* not ret_name: that is a name in the table already */
        snprintf(name, sizeof name, "%s-%u", len ? base : "tenant", n);
        if (lithosd_tenant_by_name(d, name))
            continue;
        memcpy(ret_name, name, sizeof name);
        return;
    }
}

/* Name, credentials, root process. */
static int introduce(struct lithosd *d, struct lithosd_connection *c, const struct lithos_msg_admit *m,
                     struct lithosd_tenant *t, char text[LITHOS_TEXT_MAX])
{
    if (m->name[0])
        memcpy(t->name, m->name, sizeof t->name);
    else
        generate_name(d, m->command, t->name);
    lithosd_clean_text(t->command, m->command, sizeof t->command);
    t->quota = m->quota;
    t->atom = m->atom;
    t->share = m->share;
    t->uid = c->uid;
    t->root_pid = c->pid;
    t->since_unix_ms = lithosd_unix_ms();
    if (getrandom(t->token, sizeof t->token, 0) != (ssize_t)sizeof t->token) {
        snprintf(text, LITHOS_TEXT_MAX, "the kernel gives no random numbers: %s", strerror(errno));
        return -EIO;
    }
    int pidfd = lithosd_process_open_peer(c->watch.fd, c->pid);
    int r = pidfd < 0 ? pidfd : lithosd_process_start(c->pid, &t->root_start);
    if (r == 0)
        r = lithosd_tenant_watch_root(t, pidfd);
    if (r < 0) {
        if (pidfd >= 0)
            close(pidfd);
        snprintf(text, LITHOS_TEXT_MAX,
                 "the process %d that asks cannot be watched (%s): lithosd must run in the same pid "
                 "namespace as its tenants",
                 (int)c->pid, strerror(-r));
    }
    return r;
}

static void fill_answer(const struct lithosd *d, const struct lithosd_tenant *t, const char *text,
                        union lithos_message *ret)
{
    lithos_message_init(ret, LITHOS_MSG_ADMITTED);
    struct lithos_msg_admitted *a = &ret->admitted;
    a->tenant = t->id;
    memcpy(a->token, t->token, sizeof a->token);
    a->mode = t->mode;
    a->mps = t->mps;
    a->thread_percentage = t->thread_percentage;
    memcpy(a->name, t->name, sizeof a->name);
    if (t->mps)
        snprintf(a->mps_pipe_dir, sizeof a->mps_pipe_dir, "%s", d->mps.pipe_dir);
    snprintf(a->note, sizeof a->note, "%s", text);
    /* Not of one without TPCs of its own: beside an owner that never pauses it would starve on the card. */
    a->client_priority = t->mps && lithosd_owns(t) && t->grant.class == LITHOS_CLASS_BEST_EFFORT &&
                         d->lend.policy->needs & LITHOS_NEED_PRIORITY;
    a->grant = lithosd_grant(t);
}

int lithosd_admit(struct lithosd *d, struct lithosd_connection *c, const struct lithos_msg_admit *m,
                  union lithos_message *ret_answer, char text[LITHOS_TEXT_MAX])
{
    struct selection s = {.count = 0};
    char notes[LITHOS_TEXT_MAX] = "";
    const struct lithosd_tenant *same = m->name[0] ? lithosd_tenant_by_name(d, m->name) : NULL;
    if (same) {
        snprintf(text, LITHOS_TEXT_MAX,
                 "a tenant named %s runs already (pid %d): choose another --name, or leave it out", m->name,
                 (int)same->root_pid);
        return -EEXIST;
    }
    int r = lithosd_share_check(d, m->class, &m->quota, &m->share, text);
    if (r == 0)
        r = select_gpus(d, m, &s, text);
    if (r < 0)
        return r;
    struct lithosd_tenant *t = lithosd_tenant_new(d);
    if (!t) {
        snprintf(text, LITHOS_TEXT_MAX, "there are %u tenants, which is the most lithosd takes: end one",
                 LITHOSD_TENANT_MAX);
        return -ENFILE;
    }
    t->id = d->next_tenant++;
    r = introduce(d, c, m, t, text);
    if (r == 0)
        r = place(d, t, &s, text);
    if (r < 0) {
        lithosd_tenant_release(t);
        return r;
    }
    choose_mode(d, t, m->want_coarse, notes);
    char why[LITHOS_TEXT_MAX];
    if (lithosd_atoms_check(t, &t->atom, why) < 0)
        note(notes, "%s", why);
    t->grant.atom = lithosd_atoms_grant(t);
    t->grant.class = m->class;
    if (!lithosd_owns(t) && t->mode != LITHOS_MODE_MASK) {
        snprintf(text, LITHOS_TEXT_MAX, "a quota of 0 needs TPC masks, to be lent some: %s", notes);
        lithosd_tenant_release(t);
        return -EOPNOTSUPP;
    }
    lithosd_lend_add(t);
    lithosd_rightsize_renew(t);
    lithosd_power_renew(t);
    lithosd_refuges_renew(d);
    lithosd_plans_tenants_changed(d);
    lithosd_state_save(d);
    char quota[16];
    lithosd_event(&d->events, "admitted", "tenant %s (pid %d, %s): quota %s, %u TPCs of GPU %u%s", t->name,
                  (int)t->root_pid, t->command, lithos_quota_format(&t->quota, quota), s.tpcs[0],
                  d->gpus.gpu[s.gpu[0]].index, s.count > 1 ? " and others" : "");
    lithosd_tenants_changed(d);
    lithosd_recordings_admitted(t);
    fill_answer(d, t, notes, ret_answer);
    return 0;
}

/* ---- lithos set ---- */

/* From or to nothing as well. */
static int resize_on(struct lithos_alloc *a, const struct lithosd_tenant *t, unsigned want,
                     struct lithos_tpcset *own)
{
    if (want == 0)
        return lithosd_owns(t) ? lithos_alloc_release(a, t->id) : 0;
    return lithosd_owns(t) ? lithos_alloc_resize(a, t->id, want, own)
                           : lithos_alloc_place(a, t->id, want, own);
}

/* Resize on copies of the allocators, so that it happens on all GPUs or on none. */
static int resize(struct lithosd *d, const struct lithosd_tenant *t, const struct lithos_quota *q,
                  struct lithos_alloc *allocs, struct lithos_grant *g, char text[LITHOS_TEXT_MAX])
{
    for (uint32_t i = 0; i < g->gpu_count; i++) {
        struct lithosd_gpu *gpu = &d->gpus.gpu[t->gpu[i]];
        unsigned want = quota_on(gpu, q), has = lithosd_owns(t) ? lithos_tpcset_count(&g->gpus[i].own) : 0;
        if (want == 0 && q->value)
            return too_large(gpu, q, text);
        allocs[i] = gpu->alloc;
        int r = resize_on(&allocs[i], t, want, &g->gpus[i].own);
        if (r == -ENOSPC)
            lithosd_refusal(d, t->gpu, g->gpu_count, text,
                            "GPU %u (%s) has no room to take %s from %u to %u TPCs:", gpu->index, gpu->name,
                            t->name, has, want);
        else if (r < 0)
            snprintf(text, LITHOS_TEXT_MAX, "GPU %u: the quota of %s cannot be changed: %s", gpu->index,
                     t->name, strerror(-r));
        if (r < 0)
            return r;
    }
    return 0;
}

static int set_quota(struct lithosd *d, struct lithosd_tenant *t, const struct lithos_quota *q,
                     struct lithos_grant *g, char text[LITHOS_TEXT_MAX])
{
    struct lithos_alloc allocs[LITHOS_MAX_GPUS];
    if (t->mode == LITHOS_MODE_COARSE) {
        snprintf(text, LITHOS_TEXT_MAX,
                 "the quota of %s is held through MPS, which fixes it when a program starts: run the "
                 "program again with the new quota",
                 t->name);
        return -EOPNOTSUPP;
    }
    if (q->value == 0 && t->mode != LITHOS_MODE_MASK) {
        snprintf(text, LITHOS_TEXT_MAX, "%s cannot live on what is lent: its launches carry no TPC masks",
                 t->name);
        return -EOPNOTSUPP;
    }
    int r = resize(d, t, q, allocs, g, text);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < g->gpu_count; i++)
        d->gpus.gpu[t->gpu[i]].alloc = allocs[i];
    t->quota = *q;
    return 0;
}

/* Who asks, and for whom. */
static struct lithosd_tenant *tenant_of(struct lithosd *d, const struct lithosd_connection *c,
                                        const char *name, int *ret_error, char text[LITHOS_TEXT_MAX])
{
    struct lithosd_tenant *t = lithosd_tenant_by_name(d, name);
    if (!t) {
        snprintf(text, LITHOS_TEXT_MAX, "there is no tenant named %s: `lithos status` lists them", name);
        *ret_error = -ENOENT;
        return NULL;
    }
    if (c->uid != t->uid && c->uid != geteuid() && c->uid != 0) {
        snprintf(text, LITHOS_TEXT_MAX, "tenant %s belongs to another user (uid %u)", t->name,
                 (unsigned)t->uid);
        *ret_error = -EPERM;
        return NULL;
    }
    return t;
}

int lithosd_set(struct lithosd *d, const struct lithosd_connection *c, const struct lithos_msg_set *m,
                char text[LITHOS_TEXT_MAX])
{
    int r = 0;
    struct lithosd_tenant *t = tenant_of(d, c, m->name, &r, text);
    if (!t)
        return r;
    struct lithos_grant g = t->grant;
    if (m->what & LITHOS_SET_ATOM)
        r = lithosd_atoms_check(t, &m->atom, text);
    if (r == 0)
        r = lithosd_share_check(d, m->what & LITHOS_SET_CLASS ? m->class : t->grant.class,
                                m->what & LITHOS_SET_QUOTA ? &m->quota : &t->quota, &m->share, text);
    if (r == 0 && m->what & LITHOS_SET_QUOTA)
        r = set_quota(d, t, &m->quota, &g, text);
    if (r < 0)
        return r;
    if (m->what & LITHOS_SET_ATOM)
        t->atom = m->atom;
    g.atom = lithosd_atoms_grant(t);
    if (m->what & LITHOS_SET_CLASS)
        g.class = m->class;
    lithos_share_merge(&t->share, &m->share);
    g.epoch++;
    t->grant = g;
    if (m->what & LITHOS_SET_ATOM)
        lithosd_plans_renew(t);
    lithosd_lend_change(t);
    lithosd_rightsize_renew(t);
    lithosd_power_renew(t);
    lithosd_refuges_renew(d);
    lithosd_plans_tenants_changed(d);
    lithosd_publish(t);
    lithosd_recordings_granted(t);
    lithosd_state_save(d);
    char quota[16], atom[LITHOS_ATOM_POLICY_TEXT_MAX];
    lithosd_event(&d->events, "set", "tenant %s: quota %s, now %u TPCs on its %s; %s; atoms %s", t->name,
                  lithos_quota_format(&t->quota, quota), lithos_tpcset_count(&g.gpus[0].own),
                  g.gpu_count > 1 ? "first GPU" : "GPU", lithos_class_name(g.class),
                  lithos_atom_policy_format(&t->atom, atom));
    return 0;
}
