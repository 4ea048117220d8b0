#include "daemon/power.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/util.h"
#include "daemon/daemon.h"

#define TICK_NS (100 * LITHOS_NSEC_PER_MSEC)
/* A clock that was told is looked at again that much later: what ran until then may have run at another. */
#define STEADY_NS (2 * TICK_NS)
#define RESTART_NS LITHOS_NSEC_PER_SEC
/* The governor asks for that long without an answer: lithos-clocks hangs in the driver. */
#define SILENT_NS (10 * LITHOS_NSEC_PER_SEC)

static uint32_t slot_of(const struct lithosd_tenant *t)
{
    return (uint32_t)(t - t->daemon->tenants);
}

/* ---- the governor ---- */

/* What a tenant has said of its requests. A best-effort one is held to its slip by the formula alone. */
static void tell_governor(const struct lithosd_power_gpu *g, const struct lithosd_tenant *t)
{
    const struct lithos_governor_tenant is = {.high = t->grant.class != LITHOS_CLASS_BEST_EFFORT,
                                              .slip_ppm = t->share.slip_ppm,
                                              .slo_ns = t->share.slo_ns};
    const uint32_t slot = slot_of(t);

    if (g->governor && slot < LITHOS_GOVERNOR_TENANTS_MAX)
        (void)lithos_governor_tenant(g->governor, slot, &is);
}

void lithosd_power_renew(struct lithosd_tenant *t)
{
    struct lithosd *d = t->daemon;

    for (unsigned i = 0; i < d->gpus.count; i++)
        tell_governor(&d->power.gpu[i], t);
}

static void governor_start(struct lithosd *d, struct lithosd_power_gpu *g)
{
    struct lithos_governor_config c;
    const uint32_t step_mhz =
        g->told.steps > 1 ? (g->told.max_mhz - g->told.min_mhz) / (g->told.steps - 1) : g->told.max_mhz;
    size_t bytes;

    free(g->governor);
    g->governor = NULL;
    lithos_governor_config_defaults(&c, g->told.min_mhz, g->told.max_mhz, LITHOS_MAX(step_mhz, 1u));
    /* whose advice nobody follows sees no effect of it: it has to go by the formula */
    c.mode = d->power.mode == LITHOSD_POWER_ON ? d->options.power_law : LITHOS_GOVERNOR_FORMULA;
    c.watch_ns = d->options.power_watch_ns ? d->options.power_watch_ns : c.watch_ns;
    if (lithos_governor_size(&c, &bytes) < 0) {
        g->error = -EOPNOTSUPP;
        return;
    }
    void *mem = malloc(bytes);
    if (!mem || lithos_governor_init(mem, bytes, &c, &g->governor) < 0) {
        free(mem);
        g->error = -ENOMEM;
        return;
    }
    for (unsigned i = 0; i < LITHOSD_TENANT_MAX; i++)
        if (d->tenants[i].used)
            tell_governor(g, &d->tenants[i]);
}

static void only_advise(struct lithosd *d, const char *why)
{
    if (d->power.mode != LITHOSD_POWER_ON)
        return;
    d->power.mode = LITHOSD_POWER_ADVISE;
    snprintf(d->power.why, sizeof d->power.why, "%s", why);
    lithos_warning("power: only advice is given: %s", why);
    for (unsigned i = 0; i < d->gpus.count; i++)
        if (d->power.gpu[i].known)
            governor_start(d, &d->power.gpu[i]);
}

static void off(struct lithosd *d, const char *why)
{
    d->power.mode = LITHOSD_POWER_OFF;
    snprintf(d->power.why, sizeof d->power.why, "%s", why);
    lithos_warning("power: off: %s", why);
    lithosd_power_stop(d);
}

/* ---- lithos-clocks ---- */

static void ask(struct lithosd *d, unsigned gpu, enum lithos_clocks_what what, uint32_t mhz)
{
    struct lithos_clocks_ask a = {
        .magic = LITHOS_CLOCKS_MAGIC, .version = LITHOS_CLOCKS_VERSION, .what = what, .gpu = gpu, .mhz = mhz};
    memcpy(a.uuid, d->gpus.gpu[gpu].uuid, sizeof a.uuid);
    if (d->power.link.fd >= 0 &&
        send(d->power.link.fd, &a, sizeof a, MSG_NOSIGNAL | MSG_DONTWAIT) == sizeof a)
        d->power.gpu[gpu].asked = true;
}

static void told(struct lithosd *d, const struct lithos_clocks_tell *t)
{
    struct lithosd_power_gpu *g = &d->power.gpu[t->gpu];
    const uint64_t now_ns = lithos_now_ns();

    g->asked = false;
    if (t->what == LITHOS_CLOCKS_OPEN && t->result < 0) {
        g->error = t->result;
        lithos_warning("power: NVML does not know GPU %u: %s", d->gpus.gpu[t->gpu].index,
                       strerror(-t->result));
        return;
    }
    if (t->mhz != g->told.mhz)
        g->clock_ns = now_ns;
    if (t->restored != g->told.restored)
        g->set_mhz = 0; /* it has given the clocks back meanwhile */
    g->told = *t;
    if (t->what == LITHOS_CLOCKS_OPEN && !g->known) {
        g->known = true;
        governor_start(d, g);
    }
    if (t->result < 0 && (t->what == LITHOS_CLOCKS_LOCK || t->what == LITHOS_CLOCKS_RESET)) {
        g->error = t->result;
        g->set_mhz = 0;
        only_advise(d, t->result == -EACCES ? "clocks may be set by root alone" : strerror(-t->result));
    }
    lithos_energy_look(&g->energy, now_ns, t->energy_mj);
}

static int spawn(struct lithosd *d, bool lock, bool restore_only)
{
    char here[PATH_MAX / 2], path[PATH_MAX];
    char *argv[] = {path, (char *)"--marker", d->power.marker, NULL, NULL};
    int ends[2];

    int r = lithos_program_dir(here, sizeof here);
    if (r < 0)
        return r;
    snprintf(path, sizeof path, "%s/../libexec/lithos/lithos-clocks", here);
    argv[3] = restore_only ? (char *)"--restore" : lock ? (char *)"--lock" : NULL;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        return -errno;
    d->power.pid = fork();
    if (d->power.pid == 0) {
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        unsetenv("LD_PRELOAD");
        if (dup2(ends[1], STDIN_FILENO) == STDIN_FILENO)
            execv(path, argv);
        _exit(127);
    }
    close(ends[1]);
    if (d->power.pid < 0) {
        r = -errno;
        d->power.pid = 0;
        close(ends[0]);
        return r;
    }
    return ends[0];
}

static void link_ready(void *ctx, uint32_t events);

static void start_clocks(struct lithosd *d)
{
    struct lithosd_power *p = &d->power;
    const int fd = spawn(d, p->mode == LITHOSD_POWER_ON, false);
    int r = fd;

    p->link.fd = -1;
    if (fd >= 0)
        r = lithosd_watch_add(&d->loop, &p->link, fd, EPOLLIN, link_ready, d);
    if (r < 0) {
        if (fd >= 0)
            close(fd);
        off(d, strerror(-r));
        return;
    }
    p->starts++;
    p->started_ns = p->heard_ns = lithos_now_ns();
    for (unsigned i = 0; i < d->gpus.count; i++) {
        p->gpu[i].asked = false;
        p->gpu[i].set_mhz = 0; /* its first deed is to give back what the one before has set */
        if (!d->gpus.gpu[i].error[0])
            ask(d, i, LITHOS_CLOCKS_OPEN, 0);
    }
}

static void let_go(struct lithosd *d)
{
    const int fd = d->power.link.fd;

    if (fd < 0)
        return;
    lithosd_watch_remove(&d->loop, &d->power.link);
    close(fd);
    d->power.link.fd = -1;
}

/* It is gone. What it had locked the next one gives back. */
static void clocks_gone(struct lithosd *d)
{
    int status = 0;

    let_go(d);
    if (d->power.pid && waitpid(d->power.pid, &status, 0) == d->power.pid)
        d->power.pid = 0;
    if (WIFEXITED(status) && (WEXITSTATUS(status) == 3 || WEXITSTATUS(status) == 127))
        off(d, WEXITSTATUS(status) == 3 ? "NVML cannot be used; lithos-clocks has said why"
                                        : "lithos-clocks cannot be run");
    else
        lithos_warning("power: lithos-clocks is gone, and is started anew");
}

static void link_ready(void *ctx, uint32_t events)
{
    struct lithosd *d = ctx;
    struct lithos_clocks_tell t;

    (void)events;
    for (;;) {
        const ssize_t n = recv(d->power.link.fd, &t, sizeof t, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n != (ssize_t)sizeof t || t.magic != LITHOS_CLOCKS_MAGIC || t.version != LITHOS_CLOCKS_VERSION ||
            t.gpu >= d->gpus.count || t.what >= LITHOS_CLOCKS_WHAT_MAX) {
            if (d->power.pid && n > 0)
                kill(d->power.pid, SIGKILL);
            clocks_gone(d);
            return;
        }
        d->power.heard_ns = lithos_now_ns();
        told(d, &t);
    }
}

/* ---- every tenth of a second ---- */

static void govern(struct lithosd *d, unsigned gpu, uint64_t now_ns)
{
    struct lithosd_power_gpu *g = &d->power.gpu[gpu];

    if (g->asked)
        return;
    if (!g->known) {
        ask(d, gpu, LITHOS_CLOCKS_OPEN, 0);
        return;
    }
    if (!g->governor) {
        ask(d, gpu, LITHOS_CLOCKS_STATE, 0);
        return;
    }
    g->advice = lithos_governor_step(g->governor, now_ns);
    /* at the highest clock the driver does as it likes */
    const uint32_t want_mhz = g->advice.mhz == g->told.max_mhz ? 0 : g->advice.mhz;
    if (d->power.mode != LITHOSD_POWER_ON || want_mhz == g->set_mhz) {
        ask(d, gpu, LITHOS_CLOCKS_STATE, 0);
        return;
    }
    g->set_mhz = want_mhz;
    ask(d, gpu, want_mhz ? LITHOS_CLOCKS_LOCK : LITHOS_CLOCKS_RESET, want_mhz);
}

static void tick(void *ctx)
{
    struct lithosd *d = ctx;
    struct lithosd_power *p = &d->power;
    const uint64_t now_ns = lithos_now_ns();

    if (p->mode == LITHOSD_POWER_OFF)
        return;
    lithosd_timer_set(&d->loop, &p->tick, TICK_NS, tick, d);
    if (p->link.fd < 0) {
        if (now_ns >= p->started_ns + RESTART_NS)
            start_clocks(d);
        return;
    }
    if (now_ns >= p->heard_ns + SILENT_NS) {
        p->heard_ns = now_ns;
        lithos_warning("power: lithos-clocks has not answered for 10 s: does the driver hang?");
    }
    for (unsigned i = 0; i < d->gpus.count; i++)
        if (!d->gpus.gpu[i].error[0] && !(p->gpu[i].error && !p->gpu[i].known))
            govern(d, i, now_ns);
}

/* ---- what runs ---- */

static uint64_t operator_of(const struct lithos_timeline_launch *l)
{
    uint64_t h = l->function;
    for (unsigned i = 0; i < 3; i++)
        h = (h ^ ((uint64_t)l->grid[i] << 32 | l->block[i])) * 0x9e3779b97f4a7c15ull;
    return (h ^ l->tpc_count) * 0xbf58476d1ce4e5b9ull;
}

static void period(struct lithosd *d, struct lithosd_power_gpu *g, uint32_t slot, uint64_t begin_ns,
                   uint64_t end_ns)
{
    struct lithosd_power_period *w = &d->power.period[slot];

    if (w->end_ns && begin_ns > w->end_ns + d->options.power_pause_ns) {
        w->requests += !w->waits;
        if (g->governor)
            lithos_governor_request(g->governor, slot, w->end_ns - w->begin_ns);
        w->begin_ns = begin_ns;
    } else if (!w->end_ns) {
        w->begin_ns = begin_ns;
    }
    w->end_ns = LITHOS_MAX(w->end_ns, end_ns);
}

static struct lithosd_power_period *period_of(struct lithosd_tenant *t)
{
    struct lithosd_power *p = &t->daemon->power;
    const uint32_t slot = slot_of(t);

    return p->mode == LITHOSD_POWER_OFF || slot >= LITHOS_ENERGY_TENANTS_MAX ? NULL : &p->period[slot];
}

void lithosd_power_launched(struct lithosd_tenant *t)
{
    struct lithosd_power_period *w = period_of(t);

    if (w)
        w->launched = true;
}

void lithosd_power_waited(struct lithosd_tenant *t)
{
    struct lithosd_power_period *w = period_of(t);

    if (!w || !w->launched)
        return;
    w->requests++;
    w->waits = true;
    w->launched = false;
}

void lithosd_power_kernel(struct lithosd_tenant *t, const struct lithos_kernel_event *k)
{
    struct lithosd_power *p = &t->daemon->power;
    const struct lithos_timeline_launch *l = k->launch;
    const uint32_t slot = slot_of(t);

    if (!period_of(t))
        return;
    struct lithosd_power_gpu *g = &p->gpu[t->gpu[l->gpu]];
    const uint32_t tpcs =
        l->tpc_count ? l->tpc_count : lithosd_gpu_tpcs(&t->daemon->gpus.gpu[t->gpu[l->gpu]]);
    lithos_energy_kernel(&g->energy, slot, k->busy_ns, tpcs);
    period(t->daemon, g, slot, l->submit_ns, k->end_ns);
    if (!g->governor || (k->flags & (LITHOS_KERNEL_AFTER_GAP | LITHOS_KERNEL_OVERLAPPED)))
        return; /* its start is a guess */
    const bool steady = g->told.mhz && g->clock_ns + STEADY_NS <= k->start_ns;
    lithos_governor_kernel(g->governor, slot, operator_of(l), k->busy_ns, steady ? g->told.mhz : 0);
}

void lithosd_power_forget(struct lithosd_tenant *t)
{
    struct lithosd_power *p = &t->daemon->power;
    const uint32_t slot = slot_of(t);

    if (slot >= LITHOS_ENERGY_TENANTS_MAX)
        return;
    p->period[slot] = (struct lithosd_power_period){0};
    for (unsigned i = 0; i < t->daemon->gpus.count; i++) {
        lithos_energy_forget(&p->gpu[i].energy, slot);
        if (p->gpu[i].governor)
            lithos_governor_tenant_gone(p->gpu[i].governor, slot);
    }
}

/* ---- begin and end ---- */

/* One before us may have left clocks behind, if its lithos-clocks was killed, too. */
static void restore_left(struct lithosd *d)
{
    if (access(d->power.marker, F_OK) < 0)
        return;
    lithos_info("power: giving back clocks that an earlier lithosd has left");
    const int fd = spawn(d, false, true);
    if (fd < 0)
        lithos_warning("power: they cannot be: %s; `nvidia-smi -rgc' does it", strerror(-fd));
    else
        close(fd);
    d->power.pid = 0; /* it ends by itself */
}

void lithosd_power_start(struct lithosd *d)
{
    struct lithosd_power *p = &d->power;

    p->link.fd = -1;
    p->mode = d->options.power;
    const int n = snprintf(p->marker, sizeof p->marker, "%s.clocks", d->state_path);
    if (n < 0 || (size_t)n >= sizeof p->marker)
        return off(d, "the path of the state file is too long");
    for (unsigned i = 0; i < LITHOS_MAX_GPUS; i++)
        lithos_energy_init(&p->gpu[i].energy);
    if (p->mode != LITHOSD_POWER_ON)
        restore_left(d);
    if (p->mode == LITHOSD_POWER_OFF || !d->gpus.count)
        return;
    start_clocks(d);
    if (p->mode != LITHOSD_POWER_OFF)
        lithosd_timer_set(&d->loop, &p->tick, TICK_NS, tick, d);
}

void lithosd_power_stop(struct lithosd *d)
{
    lithosd_timer_cancel(&d->loop, &d->power.tick);
    if (d->power.link.fd > 0)
        let_go(d);
    for (unsigned i = 0; i < LITHOS_MAX_GPUS; i++) {
        free(d->power.gpu[i].governor);
        d->power.gpu[i].governor = NULL;
    }
}
