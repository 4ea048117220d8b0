/* A chain of steps, each a child process or a timer that calls the next:
 *   look(candidate...) -> take over | start -> verify -> settle -> poll -> poll ...
 *   restart: quit -> kill -> wait until gone -> start;   stop: quit -> kill -> gone. */
#include "daemon/mps.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fs.h"
#include "base/log.h"
#include "daemon/procinfo.h"

#define CONTROL "nvidia-cuda-mps-control"
#define ANSWER_NS (3 * LITHOS_NSEC_PER_SEC)
#define START_NS (20 * LITHOS_NSEC_PER_SEC)
#define POLL_BUSY_NS (3 * LITHOS_NSEC_PER_SEC)
#define POLL_IDLE_NS (10 * LITHOS_NSEC_PER_SEC)
#define RETRY_NS (60 * LITHOS_NSEC_PER_SEC)
#define STRIKES_MAX 2u
#define CROWD_MAX 5u /* restarts, each within RETRY_NS of the one before */
#define VERIFY_NS (200 * LITHOS_NSEC_PER_MSEC)
#define VERIFY_MAX 15u
#define GONE_NS (50 * LITHOS_NSEC_PER_MSEC)
#define GONE_MAX 40u
#define CANARY_NS (10 * LITHOS_NSEC_PER_SEC)
#define CANARY_DELAY_NS (200 * LITHOS_NSEC_PER_MSEC)
#define CANARY_APART_NS (5 * LITHOS_NSEC_PER_SEC)

static void start(struct lithosd_mps *m);
static void look(struct lithosd_mps *m);
static void poll_again(struct lithosd_mps *m, uint64_t after_ns);

const char *lithosd_mps_state_name(enum lithosd_mps_state state)
{
    static const char *const names[LITHOSD_MPS_STATE_MAX] = {"off",      "starting", "ours",
                                                             "existing", "missing",  "failed"};
    lithos_assert((unsigned)state < LITHOSD_MPS_STATE_MAX);
    return names[state];
}

bool lithosd_mps_usable(const struct lithosd_mps *m)
{
    return m->state == LITHOSD_MPS_OURS || m->state == LITHOSD_MPS_EXISTING;
}

/* ---- running its programs ---- */

/* What of our own surroundings must not reach MPS or the canary. */
static void fill_env(struct lithosd_mps *m, struct lithosd_child_spec *spec)
{
    static const char *const removed[] = {
        "LD_PRELOAD",          "LITHOS_TENANT",         "LITHOS_GRANT",
        "LITHOS_SOCKET",       "CUDA_INJECTION64_PATH", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE",
        "CUDA_VISIBLE_DEVICES"};
    _Static_assert(LITHOS_ARRAY_SIZE(removed) + 3 <= LITHOSD_CHILD_ENV_MAX,
                   "room for the two folders and the end");
    size_t n = 0;
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(removed); i++)
        spec->env[n++] = removed[i];
    snprintf(m->env_pipe, sizeof m->env_pipe, "CUDA_MPS_PIPE_DIRECTORY=%s", m->pipe_dir);
    spec->env[n++] = m->env_pipe;
    if (m->ours) {
        snprintf(m->env_log, sizeof m->env_log, "CUDA_MPS_LOG_DIRECTORY=%s-log", m->pipe_dir);
        spec->env[n++] = m->env_log;
    }
}

static void control(struct lithosd_mps *m, const char *argument, const char *input, uint64_t timeout_ns,
                    lithosd_child_fn *fn)
{
    const char *argv[] = {CONTROL, argument, NULL};
    struct lithosd_child_spec spec = {.argv = argv, .input = input, .timeout_ns = timeout_ns};
    fill_env(m, &spec);
    int r = lithosd_child_start(m->loop, &m->command, &spec, fn, m);
    if (r < 0) { /* no process, no memory: as if it could not be run */
        struct lithosd_child_result result = {.exit_code = 126, .out = "", .err = strerror(-r)};
        fn(m, &result);
    }
}

/* ---- outcome ---- */

static void settle(struct lithosd_mps *m, enum lithosd_mps_state state, const char *fmt, ...)
    LITHOS_PRINTF(3, 4);
static void settle(struct lithosd_mps *m, enum lithosd_mps_state state, const char *fmt, ...)
{
    bool lost = m->settled && m->state == LITHOSD_MPS_STARTING, changed = m->state != state;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(m->why, sizeof m->why, fmt, ap);
    va_end(ap);
    m->state = state;
    m->strikes = 0;
    if (m->settled && changed)
        lithosd_event(m->config.events, "mps", "%s%s%s", lithosd_mps_state_name(state), *m->why ? ": " : "",
                      m->why);
    m->settled = true;
    if (state != LITHOSD_MPS_OFF && state != LITHOSD_MPS_MISSING)
        poll_again(m, state == LITHOSD_MPS_FAILED ? RETRY_NS : m->busy ? POLL_BUSY_NS : POLL_IDLE_NS);
    m->config.settled(m->config.ctx, lost);
}

static void read_control_pid(struct lithosd_mps *m)
{
    char path[LITHOS_PATH_BYTES + 48], *text;
    snprintf(path, sizeof path, "%s/" CONTROL ".pid", m->pipe_dir);
    m->control_pid = 0;
    if (lithos_read_file(path, 64, &text, NULL) < 0)
        return;
    m->control_pid = atoi(text) > 0 ? atoi(text) : 0;
    free(text);
}

/* ---- finding one ---- */

/* A folder of somebody else's could hold anything. */
static bool folder_ok(const char *path)
{
    struct stat st;
    return *path && strlen(path) < LITHOS_PATH_BYTES && stat(path, &st) == 0 && S_ISDIR(st.st_mode) &&
           (st.st_uid == geteuid() || st.st_uid == 0);
}

static void looked(void *ctx, const struct lithosd_child_result *result)
{
    struct lithosd_mps *m = ctx;
    if (result->exit_code == 127) {
        settle(m, LITHOSD_MPS_MISSING,
               CONTROL " is not in lithosd's PATH: install it with the driver, or say --mps=off");
        return;
    }
    if (!result->timed_out && result->exit_code == 0) {
        read_control_pid(m);
        settle(m, m->ours ? LITHOSD_MPS_OURS : LITHOSD_MPS_EXISTING, "%s", "");
        return;
    }
    if (result->timed_out && !m->ours) {
        settle(m, LITHOSD_MPS_FAILED,
               "the MPS at %s does not answer: end it with `pkill -9 nvidia-cuda-mps`, then restart lithosd",
               m->pipe_dir);
        return;
    }
    m->candidate++;
    look(m);
}

/* The next folder in which an MPS may live; when there are no more, one of our own. */
static void look(struct lithosd_mps *m)
{
    const char *env = getenv("CUDA_MPS_PIPE_DIRECTORY");
    const char *const candidates[] = {m->adopted_dir, m->config.ours_dir, env ? env : "", "/tmp/nvidia-mps"};
    for (; m->candidate < LITHOS_ARRAY_SIZE(candidates); m->candidate++) {
        const char *dir = candidates[m->candidate];
        if (!folder_ok(dir))
            continue;
        m->ours = m->candidate < 2;
        snprintf(m->pipe_dir, sizeof m->pipe_dir, "%s", dir);
        control(m, NULL, "get_server_list\n", ANSWER_NS, looked);
        return;
    }
    start(m);
}

/* ---- its processes ---- */

/* True when the process is an MPS program that was started with our pipe folder. */
static bool is_ours(const struct lithosd_mps *m, pid_t pid)
{
    char name[32], path[64], *text, wanted[sizeof m->env_pipe];
    size_t len;
    if (strncmp(lithosd_process_name(pid, name, sizeof name), "nvidia-cuda-mps", 15) != 0)
        return false;
    snprintf(path, sizeof path, "/proc/%d/environ", (int)pid);
    if (lithos_read_file(path, 1 << 20, &text, &len) < 0)
        return false;
    snprintf(wanted, sizeof wanted, "CUDA_MPS_PIPE_DIRECTORY=%s", m->pipe_dir);
    bool found = false;
    for (const char *p = text; p < text + len && !found; p += strlen(p) + 1)
        found = !strcmp(p, wanted);
    free(text);
    return found;
}

/* Kill what is left of an MPS of ours. How many processes that were. */
static unsigned kill_ours(const struct lithosd_mps *m)
{
    unsigned count = 0;
    DIR *proc = opendir("/proc");
    struct dirent *e;
    while (proc && (e = readdir(proc))) {
        pid_t pid = (pid_t)atoi(e->d_name);
        if (pid <= 0 || pid == getpid() || !is_ours(m, pid))
            continue;
        kill(pid, SIGKILL);
        count++;
    }
    if (proc)
        closedir(proc);
    return count;
}

static void remove_folder(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *e;
    while (dir && (e = readdir(dir)))
        unlinkat(dirfd(dir), e->d_name, 0); /* a folder in it stays, and then this one does */
    if (dir)
        closedir(dir);
    rmdir(path);
}

static void remove_folders(const struct lithosd_mps *m, bool log_too)
{
    char log[LITHOS_PATH_BYTES + 8];
    snprintf(log, sizeof log, "%s-log", m->pipe_dir);
    remove_folder(m->pipe_dir);
    if (log_too)
        remove_folder(log);
}

/* ---- starting one ---- */

static void verify(void *ctx);

static void verified(void *ctx, const struct lithosd_child_result *result)
{
    struct lithosd_mps *m = ctx;
    if (!result->timed_out && result->exit_code == 0) {
        read_control_pid(m);
        settle(m, LITHOSD_MPS_OURS, "%s", "");
    } else if (!result->timed_out && ++m->polls < VERIFY_MAX) {
        lithosd_timer_set(m->loop, &m->timer, VERIFY_NS, verify, m);
    } else {
        kill_ours(m);
        settle(m, LITHOSD_MPS_FAILED, "MPS was started but does not answer (%s): see %s-log", result->err,
               m->pipe_dir);
    }
}

static void verify(void *ctx)
{
    control(ctx, NULL, "get_server_list\n", ANSWER_NS, verified);
}

static void started(void *ctx, const struct lithosd_child_result *result)
{
    struct lithosd_mps *m = ctx;
    m->polls = 0;
    if (result->exit_code == 127) {
        remove_folders(m, true);
        settle(m, LITHOSD_MPS_MISSING,
               CONTROL " is not in lithosd's PATH: install it with the driver, or say --mps=off");
    } else if (result->timed_out || result->exit_code != 0) {
        settle(m, LITHOSD_MPS_FAILED, "`" CONTROL " -d` %s: %s; see %s-log",
               result->timed_out ? "hangs" : "failed", result->err, m->pipe_dir);
    } else {
        verify(m);
    }
}

static int make_folders(const struct lithosd_mps *m)
{
    char log[LITHOS_PATH_BYTES + 8];
    mode_t mode = m->config.other_uids ? 0755 : 0700;
    snprintf(log, sizeof log, "%s-log", m->pipe_dir);
    remove_folder(m->pipe_dir);
    int r = lithos_mkdir_p(m->pipe_dir, mode);
    return r < 0 ? r : lithos_mkdir_p(log, mode);
}

static void start(struct lithosd_mps *m)
{
    m->ours = true;
    m->state = LITHOSD_MPS_STARTING;
    m->server_count = 0;
    m->control_pid = 0;
    snprintf(m->pipe_dir, sizeof m->pipe_dir, "%s", m->config.ours_dir);
    kill_ours(m);
    int r = make_folders(m);
    if (r < 0)
        settle(m, LITHOSD_MPS_FAILED, "its folder %s cannot be made: %s", m->pipe_dir, strerror(-r));
    else
        control(m, "-d", NULL, START_NS, started);
}

/* ---- restarting ours ---- */

static void wait_until_gone(void *ctx)
{
    struct lithosd_mps *m = ctx;
    if (kill_ours(m) > 0 && ++m->polls < GONE_MAX)
        lithosd_timer_set(m->loop, &m->timer, GONE_NS, wait_until_gone, m);
    else
        start(m);
}

static void quit_for_restart(void *ctx, const struct lithosd_child_result *result)
{
    (void)result;
    struct lithosd_mps *m = ctx;
    m->polls = 0;
    wait_until_gone(m);
}

/* It does not work any more. Ours is started anew; with somebody else's all we can do is say so. */
static void broken(struct lithosd_mps *m, const char *why)
{
    uint64_t now_ns = lithos_now_ns();
    lithosd_child_cancel(&m->command);
    lithosd_child_cancel(&m->canary);
    lithosd_timer_cancel(m->loop, &m->timer);
    lithosd_timer_cancel(m->loop, &m->canary_timer);
    if (!m->ours) {
        settle(m, LITHOSD_MPS_FAILED,
               "the MPS at %s, which lithosd did not start, %s. To mend it: `echo quit -t 1 | "
               "CUDA_MPS_PIPE_DIRECTORY=%s " CONTROL "`, `pkill -9 nvidia-cuda-mps`, then restart lithosd",
               m->pipe_dir, why, m->pipe_dir);
        return;
    }
    m->crowd = m->restarts && now_ns - m->last_restart_ns < RETRY_NS ? m->crowd + 1 : 1;
    if (m->crowd > CROWD_MAX) {
        m->crowd = 0;
        settle(m, LITHOSD_MPS_FAILED, "MPS %s, and restarting it %u times did not help: see %s-log", why,
               CROWD_MAX, m->pipe_dir);
        return;
    }
    m->restarts++;
    m->last_restart_ns = now_ns;
    lithosd_event(m->config.events, "mps",
                  "MPS %s: it is started anew, tenants under it have lost their CUDA contexts", why);
    m->state = LITHOSD_MPS_STARTING;
    snprintf(m->why, sizeof m->why, "it is being restarted: it %s", why);
    control(m, NULL, "quit -t 1\n", ANSWER_NS, quit_for_restart);
}

/* ---- minding ---- */

static void ask_next_server(struct lithosd_mps *m);

static void no_answer(struct lithosd_mps *m)
{
    if (++m->strikes >= STRIKES_MAX)
        broken(m, "does not answer");
    else
        poll_again(m, VERIFY_NS);
}

static void poll_again_later(struct lithosd_mps *m)
{
    m->strikes = 0;
    poll_again(m, m->busy ? POLL_BUSY_NS : POLL_IDLE_NS);
}

static void server_told(void *ctx, const struct lithosd_child_result *result)
{
    struct lithosd_mps *m = ctx;
    if (result->timed_out) {
        no_answer(m);
    } else if (strstr(result->out, "FAULT")) {
        broken(m, "has a server in the state FAULT");
    } else {
        m->asked++;
        ask_next_server(m);
    }
}

static void ask_next_server(struct lithosd_mps *m)
{
    char input[64];
    if (m->asked >= m->server_count) {
        poll_again_later(m);
        return;
    }
    snprintf(input, sizeof input, "get_server_status %d\n", (int)m->servers[m->asked]);
    control(m, NULL, input, ANSWER_NS, server_told);
}

static void keep_servers(struct lithosd_mps *m, const char *text)
{
    m->server_count = 0;
    for (const char *p = text; *p && m->server_count < LITHOSD_MPS_SERVERS_MAX;) {
        char *end;
        long pid = strtol(p, &end, 10);
        if (end != p && pid > 0)
            m->servers[m->server_count++] = (pid_t)pid;
        p = end == p ? p + 1 : end;
    }
}

static void canary(void *ctx);

static void list_told(void *ctx, const struct lithosd_child_result *result)
{
    struct lithosd_mps *m = ctx;
    if (m->state == LITHOSD_MPS_FAILED) { /* somebody else's: is it well again? The canary decides. */
        if (result->timed_out || result->exit_code != 0)
            poll_again(m, RETRY_NS);
        else
            canary(m);
        return;
    }
    if (result->timed_out) {
        no_answer(m);
    } else if (result->exit_code != 0) {
        broken(m, "has ended");
    } else {
        keep_servers(m, result->out);
        m->asked = 0;
        ask_next_server(m);
    }
}

static void poll_now(void *ctx)
{
    struct lithosd_mps *m = ctx;
    if (m->state == LITHOSD_MPS_FAILED && m->ours)
        start(m);
    else
        control(m, NULL, "get_server_list\n", ANSWER_NS, list_told);
}

static void poll_again(struct lithosd_mps *m, uint64_t after_ns)
{
    if (!m->stopping)
        lithosd_timer_set(m->loop, &m->timer, after_ns, poll_now, m);
}

/* ---- the canary: does a kernel still finish? ---- */

static void canary_done(void *ctx, const struct lithosd_child_result *result)
{
    struct lithosd_mps *m = ctx;
    if (!result->timed_out && result->exit_code == 0) {
        if (m->state == LITHOSD_MPS_FAILED)
            settle(m, LITHOSD_MPS_EXISTING, "%s", "");
        return;
    }
    if (!result->timed_out) { /* an error is an answer: it says what is wrong, and is no hang */
        lithosd_event(m->config.events, "mps", "the trial kernel under MPS failed (exit code %d): %.160s",
                      result->exit_code, result->err);
        if (m->state == LITHOSD_MPS_FAILED)
            poll_again(m, RETRY_NS);
        return;
    }
    if (m->config.progress(m->config.ctx) != m->progress_before) {
        lithosd_event(m->config.events, "mps",
                      "the trial kernel did not finish within 10 s, but tenants get on: the GPU is busy");
        return;
    }
    broken(m, "does not run kernels any more");
}

static void canary(void *ctx)
{
    struct lithosd_mps *m = ctx;
    const char *argv[] = {m->config.probe, "--canary", NULL};
    struct lithosd_child_spec spec = {.argv = argv, .timeout_ns = CANARY_NS};
    if (m->state == LITHOSD_MPS_STARTING || m->stopping)
        return;
    fill_env(m, &spec);
    m->last_canary_ns = lithos_now_ns();
    m->progress_before = m->config.progress(m->config.ctx);
    lithosd_child_start(m->loop, &m->canary, &spec, canary_done, m);
}

void lithosd_mps_suspect(struct lithosd_mps *m)
{
    if (!lithosd_mps_usable(m) || m->canary.running || m->canary_timer.armed || m->stopping)
        return;
    uint64_t since_ns = lithos_now_ns() - m->last_canary_ns;
    uint64_t wait_ns = m->last_canary_ns && since_ns < CANARY_APART_NS ? CANARY_APART_NS - since_ns : 0;
    lithosd_timer_set(m->loop, &m->canary_timer, LITHOS_MAX(wait_ns, (uint64_t)CANARY_DELAY_NS), canary, m);
}

/* ---- from outside ---- */

void lithosd_mps_start(struct lithosd_mps *m, struct lithosd_loop *loop,
                       const struct lithosd_mps_config *config, const struct lithosd_saved_mps *saved)
{
    *m = (struct lithosd_mps){.config = *config, .loop = loop, .state = LITHOSD_MPS_STARTING};
    if (saved && saved->ours)
        snprintf(m->adopted_dir, sizeof m->adopted_dir, "%s", saved->pipe_dir);
    if (config->on)
        look(m);
    else
        settle(m, LITHOSD_MPS_OFF, "%s", config->off_why);
}

void lithosd_mps_set_busy(struct lithosd_mps *m, bool busy)
{
    bool sooner = busy && !m->busy && lithosd_mps_usable(m) && m->timer.armed;
    m->busy = busy;
    if (sooner)
        poll_again(m, POLL_BUSY_NS);
}

static void stop_step(void *ctx)
{
    struct lithosd_mps *m = ctx;
    if (kill_ours(m) > 0 && ++m->polls < GONE_MAX) {
        lithosd_timer_set(m->loop, &m->timer, GONE_NS, stop_step, m);
        return;
    }
    remove_folders(m, m->restarts == 0); /* else somebody will want to read the log */
    m->state = LITHOSD_MPS_OFF;
    m->stopped(m->config.ctx);
}

static void quit_for_stop(void *ctx, const struct lithosd_child_result *result)
{
    (void)result;
    struct lithosd_mps *m = ctx;
    m->polls = 0;
    stop_step(m);
}

void lithosd_mps_stop(struct lithosd_mps *m, bool keep, void (*stopped)(void *ctx))
{
    m->stopping = true;
    m->stopped = stopped;
    lithosd_child_cancel(&m->command);
    lithosd_child_cancel(&m->canary);
    lithosd_timer_cancel(m->loop, &m->timer);
    lithosd_timer_cancel(m->loop, &m->canary_timer);
    if (keep || !m->ours || m->state == LITHOSD_MPS_OFF || m->state == LITHOSD_MPS_MISSING)
        stopped(m->config.ctx);
    else
        control(m, NULL, "quit -t 1\n", ANSWER_NS, quit_for_stop);
}
