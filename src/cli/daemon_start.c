/* Starting a lithosd for a user who has none running. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/util.h"
#include "cli/client.h"

struct start {
    char daemon[LITHOS_PATH_BYTES + 16], log[LITHOS_PATH_BYTES + 16];
    const char *socket, *mps;
};

static int prepare(const char *socket, const char *mps, struct start *ret)
{
    struct start s = {.socket = socket, .mps = mps};
    char bin[LITHOS_PATH_BYTES], folder[LITHOS_PATH_BYTES];
    int r = lithos_program_dir(bin, sizeof(bin));

    if (r < 0) {
        lithos_error("cannot tell where this program lies, so not where lithosd is: %s", strerror(-r));
        return r;
    }
    snprintf(s.daemon, sizeof(s.daemon), "%s/lithosd", bin);
    if (access(s.daemon, X_OK) < 0) {
        r = -errno;
        lithos_error("cannot start %s: %s; is the installation whole?", s.daemon, strerror(-r));
        return r;
    }
    snprintf(folder, sizeof(folder), "%s", socket);
    const char *parent = dirname(folder);
    r = lithos_mkdir_p(parent, 0700);
    if (r < 0) {
        lithos_error("cannot make %s for lithosd's socket: %s; set LITHOS_SOCKET to a path you may write",
                     parent, strerror(-r));
        return r;
    }
    snprintf(s.log, sizeof(s.log), "%s/lithosd.log", parent);
    *ret = s;
    return 0;
}

/* In the grandchild: nothing of the user's terminal or of a tenant's surroundings may cling to the daemon. */
static void become_daemon(const struct start *s, int log_fd)
{
    static const char *const tenant_only[] = {"LITHOS_TENANT",
                                              "LITHOS_GRANT",
                                              "LITHOS_HOOK",
                                              "LD_PRELOAD",
                                              "CUDA_VISIBLE_DEVICES",
                                              "CUDA_INJECTION64_PATH",
                                              "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"};
    const char *argv[8] = {s->daemon, "--socket", s->socket, "--idle-exit", "60"};
    char mps[32];
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(tenant_only); i++)
        unsetenv(tenant_only[i]);
    if (s->mps) {
        snprintf(mps, sizeof(mps), "--mps=%s", s->mps);
        argv[5] = mps;
    }
    if (null < 0 || dup2(null, 0) < 0 || dup2(log_fd, 1) < 0 || dup2(log_fd, 2) < 0)
        _exit(1);
    close_range(3, ~0u, 0);
    if (chdir("/") < 0)
        _exit(1);
    execv(s->daemon, (char *const *)argv);
    dprintf(2, "lithosd: cannot be run: %s\n", strerror(errno));
    _exit(1);
}

/* Fork twice: the daemon must not be a child of the program that `lithos run` is about to become. */
static int spawn(const struct start *s, pid_t *ret_pid)
{
    int pipe_fds[2], status;
    pid_t daemon = -1;
    int log_fd = open(s->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (log_fd < 0) {
        int r = -errno;
        lithos_error("cannot write lithosd's log %s: %s", s->log, strerror(-r));
        return r;
    }
    if (pipe2(pipe_fds, O_CLOEXEC) < 0) {
        int r = -errno;
        close(log_fd);
        return r;
    }
    pid_t child = fork();
    if (child == 0) {
        setsid();
        pid_t grandchild = fork();
        if (grandchild == 0)
            become_daemon(s, log_fd);
        _exit(write(pipe_fds[1], &grandchild, sizeof(grandchild)) == sizeof(grandchild) && grandchild > 0
                  ? 0
                  : 1);
    }
    close(log_fd);
    close(pipe_fds[1]);
    ssize_t n = child > 0 ? read(pipe_fds[0], &daemon, sizeof(daemon)) : -1;
    close(pipe_fds[0]);
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (n != sizeof(daemon) || daemon <= 0) {
        lithos_error("cannot start lithosd: no process could be made");
        return -EAGAIN;
    }
    *ret_pid = daemon;
    return 0;
}

/* What the daemon wrote since `from`, line by line. */
static void show_log(const char *path, off_t from)
{
    FILE *f = fopen(path, "re");
    char line[1024];

    if (!f)
        return;
    if (fseeko(f, from, SEEK_SET) == 0)
        while (fgets(line, sizeof(line), f))
            fprintf(stderr, "  %s", line);
    fclose(f);
}

static off_t log_size(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    off_t size = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);

    if (fd >= 0)
        close(fd);
    return size < 0 ? 0 : size;
}

/* True when the daemon ends within the time; sleeps it out otherwise. */
static bool ends_within(int pidfd, int timeout_ms)
{
    struct pollfd p = {.fd = pidfd, .events = POLLIN};

    return poll(&p, pidfd >= 0, timeout_ms) > 0;
}

/* Several `lithos run' at once: one starts the daemon, the others wait for that. Returns the lock's descriptor, which
 * closing releases, or negative errno. */
static int lock_start(const struct start *s)
{
    uint64_t deadline_ns = lithos_now_ns() + LITHOS_CLIENT_PATIENCE_NS;
    char path[LITHOS_PATH_BYTES + 16];

    snprintf(path, sizeof(path), "%s.start", s->socket);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        int r = -errno;
        lithos_error("cannot write %s: %s", path, strerror(-r));
        return r;
    }
    while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK || lithos_now_ns() > deadline_ns) {
            int r = errno == EWOULDBLOCK ? -ETIMEDOUT : -errno;
            lithos_error("another command that starts lithosd does not get done (lock %s): %s", path,
                         strerror(-r));
            close(fd);
            return r;
        }
        usleep(5000);
    }
    return fd;
}

/* Until it answers, has ended, or patience has. */
static int wait_for_answer(const struct start *s, pid_t pid, bool *ret_ended, int *ret_sock)
{
    int r, pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    bool ended = pidfd < 0 && errno == ESRCH, said = false;
    uint64_t begin_ns = lithos_now_ns();

    for (;;) {
        r = lithos_socket_connect(s->socket, LITHOS_NSEC_PER_SEC, ret_sock);
        uint64_t waited_ns = lithos_now_ns() - begin_ns;
        if (r == 0 || ended || waited_ns > LITHOS_CLIENT_PATIENCE_NS)
            break;
        if (!said && waited_ns > LITHOS_NSEC_PER_SEC) {
            lithos_error("starting lithosd (it measures the GPUs the first time; its log is %s)", s->log);
            said = true;
        }
        /* One that finds another at the socket ends: then the other answers at the next try. */
        ended = ends_within(pidfd, 10);
    }
    if (pidfd >= 0)
        close(pidfd);
    *ret_ended = ended;
    return r;
}

int lithos_client_start_daemon(const char *path, const char *mps, int *ret_sock)
{
    struct start s;
    bool ended = false;
    off_t logged = 0;
    pid_t pid = -1;
    int r = prepare(path, mps, &s), lock = r < 0 ? r : lock_start(&s);

    if (lock < 0)
        return lock;
    r = lithos_socket_connect(path, LITHOS_NSEC_PER_SEC, ret_sock); /* somebody else may have started it */
    if (r == 0)
        goto out;
    logged = log_size(s.log);
    r = spawn(&s, &pid);
    if (r < 0)
        goto out;
    r = wait_for_answer(&s, pid, &ended, ret_sock);
    if (r < 0) {
        lithos_error(ended ? "lithosd ended at once; it said:" : "lithosd does not answer at %s; it said:",
                     path);
        show_log(s.log, logged);
    }
out:
    close(lock);
    return r;
}
