/* Between the daemon's memory and its state file. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "daemon/daemon.h"
#include "daemon/procinfo.h"

#define STATE_BYTES_MAX (4u << 20)

/* ---- saving ---- */

static void save_tenant(const struct lithosd_tenant *t, struct lithosd_saved_tenant *s)
{
    s->id = t->id;
    memcpy(s->token, t->token, sizeof s->token);
    memcpy(s->name, t->name, sizeof s->name);
    memcpy(s->command, t->command, sizeof s->command);
    s->uid = t->uid;
    s->mode = t->mode;
    s->thread_percentage = t->thread_percentage;
    s->mps = t->mps;
    s->quota = t->quota;
    s->atom = t->atom;
    s->share = t->share;
    s->class = t->grant.class;
    s->root_pid = t->root_pid;
    s->root_start = t->root_start;
    s->since_unix_ms = t->since_unix_ms;
    s->epoch = t->grant.epoch;
    s->gpu_count = t->grant.gpu_count;
    for (uint32_t i = 0; i < t->grant.gpu_count; i++) {
        memcpy(s->gpus[i].uuid, t->grant.gpus[i].uuid, LITHOS_UUID_BYTES);
        s->gpus[i].own = t->grant.gpus[i].own;
    }
    memcpy(s->counters, t->counters, sizeof s->counters);
}

static void collect(const struct lithosd *d, struct lithosd_saved *s)
{
    uint32_t slot[LITHOSD_TENANT_MAX] = {0};
    memcpy(s->boot_id, d->boot_id, sizeof s->boot_id);
    s->next_tenant = d->next_tenant;
    s->mps.ours = d->mps.state == LITHOSD_MPS_OURS;
    s->mps.control_pid = s->mps.ours ? d->mps.control_pid : 0;
    if (s->mps.ours)
        memcpy(s->mps.pipe_dir, d->mps.pipe_dir, sizeof s->mps.pipe_dir);
    for (unsigned i = 0; i < LITHOSD_TENANT_MAX; i++)
        if (d->tenants[i].used) {
            slot[i] = s->tenant_count;
            save_tenant(&d->tenants[i], &s->tenants[s->tenant_count++]);
        }
    for (unsigned i = 0; i < LITHOSD_PROCESS_MAX; i++) {
        const struct lithosd_process *p = &d->processes[i];
        if (!p->used)
            continue;
        struct lithosd_saved_process *to = &s->processes[s->process_count++];
        to->pid = p->pid;
        to->start = p->start;
        to->tenant = slot[p->tenant - d->tenants];
        memcpy(to->name, p->name, sizeof to->name);
    }
}

void lithosd_state_save(struct lithosd *d)
{
    struct lithosd_saved *s = calloc(1, sizeof *s);
    char *text = NULL;
    if (s) {
        collect(d, s);
        text = lithosd_state_encode(s);
    }
    free(s);
    int r = text ? lithos_write_file_atomic(d->state_path, text, strlen(text), 0600) : -ENOMEM;
    free(text);
    if (r < 0 && !d->state_failed)
        lithosd_event(&d->events, "state",
                      "%s cannot be written: %s. Tenants run on, but a restarted lithosd would not know "
                      "them: make room, or "
                      "use --state-dir",
                      d->state_path, strerror(-r));
    else if (r == 0 && d->state_failed)
        lithosd_event(&d->events, "state", "%s can be written again", d->state_path);
    d->state_failed = r < 0;
}

/* ---- taking over ---- */

/* Exactly the TPCs it had, or nothing: another card, or another topology than then. */
static int adopt_tpcs(struct lithosd *d, struct lithosd_tenant *t, const struct lithosd_saved_tenant *s)
{
    struct lithos_grant g = {.epoch = s->epoch + 1, .gpu_count = s->gpu_count};
    for (uint32_t i = 0; i < s->gpu_count; i++) {
        int gpu = lithosd_gpus_find(&d->gpus, s->gpus[i].uuid);
        int r = gpu < 0 || d->gpus.gpu[gpu].error[0] ? -ENODEV
                : lithosd_owns(t) ? lithos_alloc_adopt(&d->gpus.gpu[gpu].alloc, s->id, &s->gpus[i].own)
                                  : 0;
        if (r < 0) {
            while (lithosd_owns(t) && i-- > 0)
                lithos_alloc_release(&d->gpus.gpu[t->gpu[i]].alloc, s->id);
            return r;
        }
        t->gpu[i] = (unsigned)gpu;
        memcpy(g.gpus[i].uuid, s->gpus[i].uuid, LITHOS_UUID_BYTES);
        g.gpus[i].topology = d->gpus.gpu[gpu].alloc.topology;
        g.gpus[i].own = s->gpus[i].own;
    }
    t->grant = g;
    return 0;
}

static void adopt_root(struct lithosd_tenant *t)
{
    uint64_t start;
    int pidfd = lithosd_process_open(t->root_pid);
    if (pidfd < 0)
        return;
    if (lithosd_process_start(t->root_pid, &start) < 0 || start != t->root_start ||
        lithosd_process_ended(pidfd) || lithosd_tenant_watch_root(t, pidfd) < 0)
        close(pidfd);
}

static void grace_over(void *ctx)
{
    lithosd_tenant_check(ctx);
}

static struct lithosd_tenant *adopt_tenant(struct lithosd *d, const struct lithosd_saved_tenant *s)
{
    struct lithosd_tenant *t = lithosd_tenant_new(d);
    t->id = s->id;
    memcpy(t->token, s->token, sizeof t->token);
    memcpy(t->name, s->name, sizeof t->name);
    memcpy(t->command, s->command, sizeof t->command);
    t->uid = s->uid;
    t->mode = (enum lithos_mode)s->mode;
    t->thread_percentage = s->thread_percentage;
    t->mps = s->mps;
    t->quota = s->quota;
    t->atom = s->atom;
    t->share = s->share;
    t->root_pid = s->root_pid;
    t->root_start = s->root_start;
    t->since_unix_ms = s->since_unix_ms;
    memcpy(t->counters, s->counters, sizeof t->counters);
    int r = adopt_tpcs(d, t, s);
    if (r < 0) {
        lithosd_event(&d->events, "lost",
                      "tenant %s cannot be taken over, its TPCs are not there any more: %s", t->name,
                      strerror(-r));
        lithosd_tenant_release(t);
        return NULL;
    }
    t->grant.atom = lithosd_atoms_grant(t);
    t->grant.class = s->class;
    lithosd_lend_add(t);
    lithosd_rightsize_renew(t);
    lithosd_power_renew(t);
    adopt_root(t);
    return t;
}

static void adopt_all(struct lithosd *d, const struct lithosd_saved *s)
{
    struct lithosd_tenant *tenants[LITHOSD_TENANT_MAX] = {NULL};
    for (uint32_t i = 0; i < s->tenant_count; i++)
        tenants[i] = adopt_tenant(d, &s->tenants[i]);
    for (uint32_t i = 0; i < s->process_count; i++)
        if (tenants[s->processes[i].tenant])
            lithosd_process_adopt(tenants[s->processes[i].tenant], &s->processes[i]);
    lithosd_refuges_renew(d);
    lithosd_plans_tenants_changed(d);
    for (uint32_t i = 0; i < s->tenant_count; i++) {
        struct lithosd_tenant *t = tenants[i];
        if (!t)
            continue;
        bool lives = t->root.fd >= 0 || t->processes > 0;
        if (!lives)
            lithosd_timer_set(&d->loop, &t->grace, LITHOSD_GRACE_NS, grace_over, t);
        lithosd_event(&d->events, "taken over", "tenant %s (pid %d) keeps its %u TPCs%s", t->name,
                      (int)t->root_pid, lithos_tpcset_count(&t->grant.gpus[0].own),
                      lives ? "" : " for 2 s, should anything of it still live");
    }
}

static void set_aside(struct lithosd *d, const char *why)
{
    char bad[PATH_MAX + 8];
    snprintf(bad, sizeof bad, "%s.bad", d->state_path);
    int r = rename(d->state_path, bad);
    lithos_warning("%s is not a state file of lithosd (%s): %s. Tenants of before are not known; those still "
                   "running keep "
                   "their TPCs without lithosd's knowledge: end them",
                   d->state_path, why, r == 0 ? "renamed to .bad" : strerror(errno));
    lithosd_event(&d->events, "state", "the state file was damaged (%.100s) and set aside", why);
}

/* Nobody else may have been able to write it: it holds secrets and hands out TPCs. */
static int check_owner(const char *path)
{
    struct stat st;
    if (lstat(path, &st) < 0)
        return -errno;
    return S_ISREG(st.st_mode) && st.st_uid == geteuid() && !(st.st_mode & 022) ? 0 : -EPERM;
}

void lithosd_state_load(struct lithosd *d, struct lithosd_saved_mps *ret_mps)
{
    char *text, why[256] = "";
    size_t len;
    int r = check_owner(d->state_path);
    if (r == -ENOENT)
        return;
    if (r == 0)
        r = lithos_read_file(d->state_path, STATE_BYTES_MAX, &text, &len);
    if (r < 0) {
        set_aside(d, r == -EPERM ? "it belongs to, or can be written by, somebody else" : strerror(-r));
        return;
    }
    struct lithosd_saved *s = calloc(1, sizeof *s);
    r = s ? lithosd_state_decode(text, len, s, why) : -ENOMEM;
    free(text);
    if (r == 0 && strcmp(s->boot_id, d->boot_id) == 0) {
        d->next_tenant = s->next_tenant;
        *ret_mps = s->mps;
        adopt_all(d, s);
    } else if (r == -EINVAL) {
        set_aside(d, why);
    }
    free(s);
}
