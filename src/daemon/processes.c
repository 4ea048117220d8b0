/* Attached processes: their arenas, their life, their counters. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"
#include "daemon/daemon.h"
#include "daemon/procinfo.h"

#define LEASE_NS (100 * LITHOS_NSEC_PER_MSEC)
/* Breaches and escapes are looked for at every so many leases. */
#define LOOK_EVERY 10u

static struct lithosd_process *process_new(struct lithosd_tenant *t)
{
    struct lithosd *d = t->daemon;
    for (unsigned i = 0; i < LITHOSD_PROCESS_MAX; i++) {
        struct lithosd_process *p = &d->processes[i];
        if (p->used)
            continue;
        *p = (struct lithosd_process){.used = true, .tenant = t, .life.fd = -1, .daemon = d};
        d->process_count++;
        t->processes++;
        return p;
    }
    return NULL;
}

/* What a process has counted stays with its tenant. */
static void keep_counters(struct lithosd_process *p)
{
    uint64_t counters[LITHOS_COUNTER_MAX];
    if (!p->arena)
        return;
    lithos_arena_read_counters(p->arena, counters);
    for (int c = 0; c < LITHOS_COUNTER_MAX; c++)
        p->tenant->counters[c] += counters[c];
}

static void process_forget(struct lithosd_process *p)
{
    struct lithosd *d = p->daemon;
    lithosd_observe_detach(p);
    if (p->arena)
        munmap(p->arena, LITHOS_ARENA_BYTES);
    if (p->life.fd >= 0) {
        int fd = p->life.fd;
        lithosd_watch_remove(&d->loop, &p->life);
        close(fd);
    }
    if (p->connection)
        p->connection->process = NULL;
    lithos_assert(p->tenant->processes > 0);
    p->tenant->processes--;
    p->used = false;
    lithosd_lend_processes(p->tenant);
    lithosd_lend_look(d); /* what died with it */
    d->process_count--;
    if (d->process_count == 0)
        lithosd_timer_cancel(&d->loop, &d->lease);
}

static void process_ended(struct lithosd_process *p, bool killed)
{
    struct lithosd *d = p->daemon;
    struct lithosd_tenant *t = p->tenant;
    uint64_t counters[LITHOS_COUNTER_MAX] = {0};
    if (p->arena)
        lithos_arena_read_counters(p->arena, counters);
    bool launched = counters[LITHOS_COUNTER_QMDS] || counters[LITHOS_COUNTER_LAUNCHES];
    keep_counters(p);
    process_forget(p);
    if (killed && launched && t->mps)
        lithosd_mps_suspect(&d->mps);
    if (!lithosd_tenant_check(t))
        lithosd_state_save(d);
}

static void life_ended(void *ctx, uint32_t events)
{
    (void)events;
    struct lithosd_process *p = ctx;
    process_ended(p, lithosd_process_killed(p->life.fd));
}

void lithosd_process_disconnected(struct lithosd_process *p)
{
    p->connection = NULL;
    if (p->life.fd < 0)
        process_ended(p, true);
}

/* ---- the lease ---- */

/* Tell of breaches and escapes once, and again each time their number has doubled. */
static void look_at_counters(struct lithosd *d)
{
    for (unsigned i = 0; i < LITHOSD_TENANT_MAX; i++) {
        struct lithosd_tenant *t = &d->tenants[i];
        uint64_t counters[LITHOS_COUNTER_MAX];
        if (!t->used || !t->processes)
            continue;
        lithosd_tenant_counters(t, counters);
        uint64_t breaches = counters[LITHOS_COUNTER_BREACHES], escaped = counters[LITHOS_COUNTER_ESCAPED];
        if (breaches > 2 * t->breaches_told) {
            lithosd_event(&d->events, "breach",
                          "tenant %s: %llu launches had clusters, or blocks that wait for each other, for "
                          "which its quota "
                          "has no room, and ran on more TPCs",
                          t->name, (unsigned long long)breaches);
            t->breaches_told = breaches;
        }
        if (escaped > 2 * t->escaped_told) {
            lithosd_event(&d->events, "escaped", "tenant %s: %llu launches went past every hooked function",
                          t->name, (unsigned long long)escaped);
            t->escaped_told = escaped;
        }
    }
}

static void tell_clocks(const struct lithosd_process *p)
{
    for (uint32_t i = 0; i < p->tenant->grant.gpu_count; i++)
        atomic_store_explicit(&p->arena->clock_drift_ppb[i], lithosd_clock_drift_ppb(p->tenant, i),
                              memory_order_relaxed);
}

static void renew_leases(void *ctx)
{
    struct lithosd *d = ctx;
    uint64_t now_ns = lithos_now_ns();
    for (unsigned i = 0; i < LITHOSD_PROCESS_MAX; i++) {
        struct lithosd_process *p = &d->processes[i];
        if (!p->used || !p->arena)
            continue;
        tell_clocks(p);
        atomic_store_explicit(&p->arena->lease_ns, now_ns, memory_order_relaxed);
    }
    if (++d->lease_ticks % LOOK_EVERY == 0)
        look_at_counters(d);
    lithosd_timer_set(&d->loop, &d->lease, LEASE_NS, renew_leases, d);
}

struct lithos_grant lithosd_grant(const struct lithosd_tenant *t)
{
    struct lithos_grant g = t->grant;
    for (uint32_t i = 0; i < g.gpu_count; i++)
        g.gpus[i].own = lithosd_lend_own(t, i);
    lithosd_slice_grant(t, &g);
    return g;
}

void lithosd_publish(struct lithosd_tenant *t)
{
    struct lithos_grant g = lithosd_grant(t);
    for (unsigned i = 0; i < LITHOSD_PROCESS_MAX; i++) {
        struct lithosd_process *p = &t->daemon->processes[i];
        if (p->used && p->tenant == t && p->arena)
            lithos_arena_publish(p->arena, &g);
    }
}

/* ---- attaching ---- */

/* Sealed, so that the tenant cannot cut it short under our hands; all of it allocated, so that neither side can fault. */
static int make_arena(const struct lithosd_tenant *t, struct lithos_arena **ret_arena, int *ret_fd)
{
    int fd = memfd_create("lithos-arena", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    struct lithos_arena *a = MAP_FAILED;
    int r = ftruncate(fd, LITHOS_ARENA_BYTES) < 0 ? -errno : -posix_fallocate(fd, 0, LITHOS_ARENA_BYTES);
    if (r == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        r = -errno;
    if (r == 0) {
        a = mmap(NULL, LITHOS_ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        r = a == MAP_FAILED ? -errno : 0;
    }
    if (r < 0) {
        close(fd);
        return r;
    }
    a->magic = LITHOS_ARENA_MAGIC;
    a->version = LITHOS_ARENA_VERSION;
    a->size = LITHOS_ARENA_BYTES;
    a->tenant = t->id;
    struct lithos_grant g = lithosd_grant(t);
    lithos_arena_publish(a, &g);
    *ret_arena = a;
    *ret_fd = fd;
    return 0;
}

static bool tokens_equal(const uint8_t a[LITHOS_TOKEN_BYTES], const uint8_t b[LITHOS_TOKEN_BYTES])
{
    volatile uint8_t difference = 0; /* takes as long for a near miss as for any other */
    for (size_t i = 0; i < LITHOS_TOKEN_BYTES; i++)
        difference |= a[i] ^ b[i];
    return difference == 0;
}

static struct lithosd_tenant *authenticate(struct lithosd *d, const struct lithosd_connection *c,
                                           const struct lithos_msg_attach *m)
{
    struct lithosd_tenant *t = lithosd_tenant_by_id(d, m->tenant);
    static const uint8_t nothing[LITHOS_TOKEN_BYTES];
    bool right = tokens_equal(t ? t->token : nothing, m->token);
    return t && right && (c->uid == t->uid || c->uid == 0) ? t : NULL;
}

/* A process that lost its connection (it may close descriptors it does not know), or was known from the state file:
 * its new arena takes the place of the old one, whose counts it carries over into the new one (tenant/attach.c). */
static void replace_lost(struct lithosd_tenant *t, pid_t pid, uint64_t start)
{
    struct lithosd *d = t->daemon;
    for (unsigned i = 0; i < LITHOSD_PROCESS_MAX; i++) {
        struct lithosd_process *p = &d->processes[i];
        if (p->used && p->tenant == t && p->pid == pid && p->start == start && !p->connection)
            process_forget(p);
    }
}

static int watch_life(struct lithosd_process *p, int pidfd)
{
    int r = lithosd_watch_add(&p->daemon->loop, &p->life, pidfd, EPOLLIN, life_ended, p);
    if (r < 0)
        close(pidfd);
    return r;
}

static int enter(struct lithosd_tenant *t, struct lithosd_connection *c, const struct lithos_msg_attach *m,
                 int *ret_fd)
{
    struct lithosd_process *p = process_new(t);
    if (!p)
        return -ENFILE;
    p->pid = c->pid;
    p->hook_active = m->hook_active;
    lithosd_clean_text(p->name, m->process, sizeof p->name);
    int r = make_arena(t, &p->arena, ret_fd);
    int pidfd = r < 0 ? -1 : lithosd_process_open_peer(c->watch.fd, c->pid);
    if (pidfd >= 0) {
        lithosd_process_start(c->pid, &p->start); /* 0 when it has ended: the pidfd will tell */
        r = watch_life(p, pidfd);
    }
    if (r < 0) {
        if (p->arena)
            close(*ret_fd);
        process_forget(p);
        return r;
    }
    p->connection = c;
    c->process = p;
    lithosd_observe_attach(p);
    lithosd_lend_processes(t);
    return 0;
}

int lithosd_attach(struct lithosd *d, struct lithosd_connection *c, const struct lithos_msg_attach *m,
                   union lithos_message *ret_answer, int *ret_fd, char text[LITHOS_TEXT_MAX])
{
    struct lithosd_tenant *t = authenticate(d, c, m);
    uint64_t start = 0;
    if (c->process) {
        snprintf(text, LITHOS_TEXT_MAX, "this connection is attached already");
        return -EALREADY;
    }
    if (!t) {
        snprintf(text, LITHOS_TEXT_MAX,
                 "there is no tenant %llx with that token: it has ended, or LITHOS_TENANT is not from "
                 "this lithosd; start the program with `lithos run`",
                 (unsigned long long)m->tenant);
        return -ENOENT;
    }
    lithosd_process_start(c->pid, &start);
    replace_lost(t, c->pid, start);
    int r = enter(t, c, m, ret_fd);
    if (r < 0) {
        snprintf(text, LITHOS_TEXT_MAX, "process %d cannot be attached: %s", (int)c->pid,
                 r == -ENFILE ? "there are 1024 already, the most lithosd takes" : strerror(-r));
        lithosd_tenant_check(t);
        return r;
    }
    lithosd_timer_cancel(&d->loop, &t->grace);
    if (!d->lease.armed)
        lithosd_timer_set(&d->loop, &d->lease, LEASE_NS, renew_leases, d);
    lithosd_state_save(d);
    lithos_debug("tenant %s: process %d (%s) attached", t->name, (int)c->pid, c->process->name);
    lithos_message_init(ret_answer, LITHOS_MSG_ATTACHED);
    ret_answer->attached.tenant = t->id;
    ret_answer->attached.arena_bytes = LITHOS_ARENA_BYTES;
    return 0;
}

int lithosd_process_adopt(struct lithosd_tenant *t, const struct lithosd_saved_process *saved)
{
    uint64_t start;
    int pidfd = lithosd_process_open(saved->pid);
    if (pidfd < 0)
        return pidfd;
    /* Opened first: if it is the right one now, the descriptor names it for good. */
    struct lithosd_process *p = NULL;
    if (lithosd_process_start(saved->pid, &start) < 0 || start != saved->start ||
        lithosd_process_ended(pidfd) || !(p = process_new(t))) {
        close(pidfd);
        return p ? -ENFILE : -ESRCH;
    }
    p->pid = saved->pid;
    p->start = start;
    memcpy(p->name, saved->name, sizeof p->name);
    int r = watch_life(p, pidfd);
    if (r < 0)
        process_forget(p);
    lithosd_lend_processes(t);
    return r;
}

void lithosd_processes_finish(struct lithosd *d)
{
    for (unsigned i = 0; i < LITHOSD_PROCESS_MAX; i++)
        if (d->processes[i].used)
            process_forget(&d->processes[i]);
}
