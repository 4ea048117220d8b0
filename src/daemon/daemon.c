/* The life of the daemon: lock, probe, take over, MPS, serve, stop. */
#include "daemon/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "daemon/procinfo.h"

#define PROBE_NS (60 * LITHOS_NSEC_PER_SEC)
/* MPS puts sockets into its folder, whose whole paths must fit sockaddr_un. */
#define MPS_DIR_MAX 80u

/* ---- stopping ---- */

static void mps_stopped(void *ctx)
{
    struct lithosd *d = ctx;
    d->loop.stop = true;
}

void lithosd_stop(struct lithosd *d, const char *why)
{
    if (d->stopping)
        return;
    d->stopping = true;
    bool keep = d->tenant_count > 0;
    lithos_info("ending: %s", why);
    lithosd_child_cancel(&d->probe);
    if (d->listener.fd >= 0) { /* nobody new; the lock is held until the end */
        int fd = d->listener.fd;
        lithosd_watch_remove(&d->loop, &d->listener);
        unlink(d->options.socket);
        close(fd);
    }
    if (keep)
        lithosd_state_save(d);
    if (keep && d->mps.state == LITHOSD_MPS_OURS)
        lithos_warning("%u tenants live on, so MPS is left running for them and for the next lithosd; to end "
                       "it: `echo quit | "
                       "CUDA_MPS_PIPE_DIRECTORY=%s nvidia-cuda-mps-control`",
                       d->tenant_count, d->mps.pipe_dir);
    if (d->mps.loop)
        lithosd_mps_stop(&d->mps, keep, mps_stopped);
    else /* the probe had not ended yet: there is no MPS to stop */
        mps_stopped(d);
}

static void on_signal(void *ctx, uint32_t events)
{
    (void)events;
    struct lithosd *d = ctx;
    struct signalfd_siginfo info;
    if (read(d->signals.fd, &info, sizeof info) == (ssize_t)sizeof info)
        lithosd_stop(d, strsignal((int)info.ssi_signo));
}

/* ---- MPS ---- */

/* --background: whoever started us goes on, and what we say from now on would only clutter their terminal. */
static void tell_ready(struct lithosd *d)
{
    if (d->ready_fd < 0)
        return;
    ssize_t n = write(d->ready_fd, "", 1);
    (void)n; /* they may have gone */
    close(d->ready_fd);
    d->ready_fd = -1;
    int null = d->options.log ? -1 : open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (null >= 0) {
        dup2(null, STDERR_FILENO);
        close(null);
    }
}

static void mps_settled(void *ctx, bool lost)
{
    struct lithosd *d = ctx;
    if (d->stopping)
        return;
    for (unsigned i = 0; lost && i < LITHOSD_TENANT_MAX; i++)
        if (d->tenants[i].used && d->tenants[i].mps)
            d->tenants[i].mps_lost = true;
    lithosd_state_save(d);
    if (d->serving) {
        lithosd_server_resume(d);
        return;
    }
    d->serving = true;
    if (lithosd_server_listen(d) < 0) {
        d->exit_code = 1;
        lithosd_stop(d, "the socket cannot be opened");
        return;
    }
    lithos_info("ready at %s: %u GPUs, MPS %s", d->options.socket, d->gpus.count,
                lithosd_mps_state_name(d->mps.state));
    tell_ready(d);
    lithosd_tenants_changed(d);
}

static uint64_t launches(void *ctx)
{
    struct lithosd *d = ctx;
    uint64_t sum = 0;
    for (unsigned i = 0; i < LITHOSD_PROCESS_MAX; i++) {
        uint64_t counters[LITHOS_COUNTER_MAX];
        if (!d->processes[i].used || !d->processes[i].arena)
            continue;
        lithos_arena_read_counters(d->processes[i].arena, counters);
        sum += counters[LITHOS_COUNTER_LAUNCHES] + counters[LITHOS_COUNTER_QMDS];
    }
    return sum;
}

/* Beside the socket, where the path is short enough for MPS. */
static void mps_folder(const struct lithosd *d, char dir[LITHOS_PATH_BYTES])
{
    size_t len = strlen(d->options.socket),
           stem = len > 5 && !strcmp(d->options.socket + len - 5, ".sock") ? len - 5 : len;
    if (stem + 4 <= MPS_DIR_MAX)
        snprintf(dir, LITHOS_PATH_BYTES, "%.*s-mps", (int)stem, d->options.socket);
    else
        snprintf(dir, LITHOS_PATH_BYTES, "/tmp/lithos-mps-%u-%d", (unsigned)geteuid(), (int)getpid());
}

static void start_mps(struct lithosd *d, const struct lithosd_saved_mps *saved)
{
    struct lithosd_mps_config config = {
        .on = d->options.mps && d->gpus.count > 0,
        .off_why = d->options.mps ? "there is no GPU" : "lithosd runs with --mps=off",
        .probe = d->options.probe,
        .other_uids = d->options.allow_all || d->options.uid_count,
        .events = &d->events,
        .settled = mps_settled,
        .progress = launches,
        .ctx = d,
    };
    mps_folder(d, config.ours_dir);
    lithosd_mps_start(&d->mps, &d->loop, &config, saved);
}

/* ---- the probe ---- */

static void probe_failed(struct lithosd *d, const struct lithosd_child_result *result)
{
    const char *probe = d->options.probe;
    if (result->timed_out)
        snprintf(d->gpus.error, sizeof d->gpus.error,
                 "%.200s did not end within 60 s: the driver hangs; see `nvidia-smi` and `dmesg`, then "
                 "restart lithosd",
                 probe);
    else if (result->exit_code == 127 || result->exit_code == 126)
        snprintf(d->gpus.error, sizeof d->gpus.error,
                 "%.200s cannot be run (%.100s): is the installation whole? See --probe", probe, result->err);
    else
        snprintf(d->gpus.error, sizeof d->gpus.error, "%.200s ended with %d: %.200s", probe,
                 result->exit_code, *result->err ? result->err : "it said nothing");
}

static void probed(void *ctx, const struct lithosd_child_result *result)
{
    struct lithosd *d = ctx;
    struct lithosd_saved_mps saved = {0};
    char why[256];
    /* Its JSON may say more than its exit code. */
    if (result->timed_out || lithosd_gpus_parse(result->out, strlen(result->out), &d->gpus, why) < 0) {
        if (!result->timed_out && result->exit_code == 0)
            snprintf(d->gpus.error, sizeof d->gpus.error, "%.200s printed something else than GPUs: %.160s",
                     d->options.probe, why);
        else
            probe_failed(d, result);
    }
    if (d->gpus.error[0])
        lithos_warning("no GPU can be used: %s. lithosd runs, and refuses every tenant", d->gpus.error);
    lithosd_lend_start(d);
    lithosd_state_load(d, &saved);
    lithosd_power_start(d);
    start_mps(d, &saved);
}

static void start_probe(struct lithosd *d)
{
    const char *argv[] = {d->options.probe, "--json", NULL};
    struct lithosd_child_spec spec = {
        .argv = argv,
        .env = {"LD_PRELOAD", "LITHOS_TENANT", "LITHOS_GRANT", "LITHOS_SOCKET", "LITHOS_HOOK",
                "CUDA_INJECTION64_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"},
        .timeout_ns = PROBE_NS,
    };
    int r = lithosd_child_start(&d->loop, &d->probe, &spec, probed, d);
    if (r < 0) {
        struct lithosd_child_result result = {.exit_code = 126, .out = "", .err = strerror(-r)};
        probed(d, &result);
    }
}

/* ---- the whole ---- */

static void raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) { /* two a process attached */
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int watch_signals(struct lithosd *d)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return -errno;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a trace that grows too large is an error of its writer */
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd < 0 ? -errno : lithosd_watch_add(&d->loop, &d->signals, fd, EPOLLIN, on_signal, d);
}

static int state_place(struct lithosd *d)
{
    char socket[sizeof d->options.socket];
    snprintf(socket, sizeof socket, "%s", d->options.socket);
    int n =
        snprintf(d->state_path, sizeof d->state_path, "%s/%s.state", d->options.state_dir, basename(socket));
    int r = n < 0 || (size_t)n >= sizeof d->state_path ? -ENAMETOOLONG
                                                       : lithos_mkdir_p(d->options.state_dir, 0700);
    if (r < 0)
        lithos_error("cannot use %s for the state file: %s; choose another with --state-dir",
                     d->options.state_dir, strerror(-r));
    return r;
}

static void finish(struct lithosd *d)
{
    lithosd_server_finish(d);
    lithosd_processes_finish(d);
    lithosd_power_stop(d);
    if (d->tenant_count == 0 && d->serving)
        unlink(d->state_path);
    for (unsigned i = 0; i < LITHOSD_TENANT_MAX; i++)
        if (d->tenants[i].used)
            lithosd_tenant_release(&d->tenants[i]);
    lithosd_lend_finish(d);
    int fd = d->signals.fd;
    lithosd_watch_remove(&d->loop, &d->signals);
    close(fd);
    lithosd_loop_finish(&d->loop);
}

int lithosd_run(struct lithosd *d)
{
    d->start_ns = lithos_now_ns();
    d->next_tenant = 1;
    d->lock_fd = d->listener.fd = d->signals.fd = d->power.link.fd = -1;
    int r = lithosd_server_lock(d);
    if (r == 0)
        r = state_place(d);
    if (r < 0)
        return 1;
    raise_file_limit();
    const char *stamps = getenv("LITHOS_STAMPS"), *atoms = getenv("LITHOS_ATOMS");
    d->observe.stamps_off = stamps && !strcmp(stamps, "off");
    d->observe.ticks_steady = lithos_ticks_steady();
    if (d->observe.ticks_steady)
        lithos_ticks_map_init(&d->observe.ticks, lithos_ticks(), lithos_now_ns());
    d->atoms_off = atoms && !strcmp(atoms, "off");
    lithosd_boot_id(d->boot_id, sizeof d->boot_id);
    r = lithosd_loop_init(&d->loop);
    if (r == 0)
        r = watch_signals(d);
    if (r < 0) {
        lithos_error("cannot start: %s", strerror(-r));
        return 1;
    }
    start_probe(d);
    r = lithosd_loop_run(&d->loop);
    if (r < 0)
        lithos_error("the event loop failed: %s", strerror(-r));
    finish(d);
    return r < 0 ? 1 : d->exit_code;
}
