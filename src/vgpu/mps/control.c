#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/util.h"
#include "vgpu/mps/mps.h"
#include "vgpu/mps/pipe.h"

#define MAX_SERVERS 8u
#define MAX_PENDING 64u
#define PID_FILE "nvidia-cuda-mps-control.pid"
#define LOCK_FILE "control_lock"
#define CHECK_NS (5 * LITHOS_NSEC_PER_SEC)

struct server {
    pid_t pid;
    uid_t uid;
    int channel;
};

static struct {
    int dir; /* the pipe folder */
    int listener, signals;
    struct server servers[MAX_SERVERS];
    unsigned server_count;
    int pending[MAX_PENDING]; /* connected, nothing said yet */
    unsigned pending_count;
    bool quitting;
    uint64_t deadline_ns; /* of quit -t, 0 = none */
} control;

/* ---- helpers shared with the server */

void mps_log(const char *file, const char *who, const char *fmt, ...)
{
    char path[512], text[512], line[768];
    const char *dir = getenv("CUDA_MPS_LOG_DIRECTORY");
    snprintf(path, sizeof path, "%s/%s", dir && *dir ? dir : "/var/log/nvidia-mps", file);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    struct timespec ts;
    struct tm tm;
    char when[32];
    clock_gettime(CLOCK_REALTIME, &ts);
    strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", localtime_r(&ts.tv_sec, &tm));
    int n = snprintf(line, sizeof line, "[%s.%03ld %s %d] %s\n", when, ts.tv_nsec / 1000000, who,
                     (int)getpid(), text);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd < 0)
        return; /* no folder for it: nothing else depends on the log */
    ssize_t written = write(fd, line, (size_t)n);
    (void)written;
    close(fd);
}

int mps_send(int channel, const char *text, int fd)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text)};
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } space = {{0}};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fd >= 0) {
        msg.msg_control = space.bytes;
        msg.msg_controllen = sizeof space.bytes;
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    return sendmsg(channel, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

ssize_t mps_receive(int channel, char *text, int *ret_fd)
{
    struct iovec iov = {.iov_base = text, .iov_len = MPS_TEXT_BYTES - 1};
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } space;
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = space.bytes, .msg_controllen = sizeof space.bytes};
    ssize_t n;
    do {
        n = recvmsg(channel, &msg, MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    text[n] = 0;
    *ret_fd = -1;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
            memcpy(ret_fd, CMSG_DATA(c), sizeof(int));
    return n;
}

pid_t mps_peer(int fd, uid_t *ret_uid)
{
    struct ucred cred = {.uid = (uid_t)-1};
    socklen_t len = sizeof cred;
    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len);
    *ret_uid = cred.uid;
    return cred.pid;
}

/* ---- servers */

static struct server *server_of(uid_t uid)
{
    for (unsigned i = 0; i < control.server_count; i++)
        if (control.servers[i].uid == uid)
            return &control.servers[i];
    return NULL;
}

static struct server *server_named(const char *text)
{
    char *end;
    long pid = strtol(text, &end, 10);
    for (unsigned i = 0; end != text && i < control.server_count; i++)
        if (control.servers[i].pid == pid)
            return &control.servers[i];
    return NULL;
}

/* In the child: nothing of the control's stays open, its lock least of all. */
static _Noreturn void become_server(int channel, pid_t parent, uid_t uid)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    dup2(channel, 3);
    close_range(4, ~0u, 0);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (getuid() != uid && (setgid((gid_t)uid) || setuid(uid)))
        _exit(1);
    mps_server_run(3);
}

static struct server *server_start(uid_t uid)
{
    int pair[2];
    if (control.server_count == MAX_SERVERS || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
        return NULL;
    pid_t parent = getpid(), pid = fork();
    if (pid == 0)
        become_server(pair[1], parent, uid);
    close(pair[1]);
    if (pid < 0) {
        close(pair[0]);
        return NULL;
    }
    mps_log("control.log", "Control", "Starting new server %d for user %u", (int)pid, (unsigned)uid);
    struct server *s = &control.servers[control.server_count++];
    *s = (struct server){pid, uid, pair[0]};
    return s;
}

static void reap_servers(void)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        for (unsigned i = 0; i < control.server_count; i++)
            if (control.servers[i].pid == pid) {
                mps_log("control.log", "Control", "Server %d exited with status %d", (int)pid, status);
                close(control.servers[i].channel);
                control.servers[i] = control.servers[--control.server_count];
                break;
            }
}

/* ---- commands */

static void answer(int fd, const char *text)
{
    char out[MPS_TEXT_BYTES + 1];
    int n = snprintf(out, sizeof out, "%c%s", MPS_ANSWER, text);
    ssize_t sent = send(fd, out, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)sent; /* who asked may be gone */
}

static void new_client(int fd)
{
    uid_t uid;
    pid_t pid = mps_peer(fd, &uid);
    const char *why = NULL;
    if (control.quitting)
        why = "the control is shutting down";
    else if (uid != getuid() && getuid() != 0)
        why = "this MPS belongs to another user";
    struct server *s = why ? NULL : server_of(uid);
    mps_log("control.log", "Control", "NEW CLIENT %d from user %u: %s", (int)pid, (unsigned)uid,
            why ? why
            : s ? "Server already exists"
                : "Server is not ready, push client to pending list");
    if (!why && !s && !(s = server_start(uid)))
        why = "no server could be started";
    if (!why && mps_send(s->channel, MPS_TO_SERVER_CLIENT, fd))
        why = "the server takes no more clients";
    if (why)
        send(fd, why, strlen(why), MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void list_servers(int fd)
{
    char text[MAX_SERVERS * 16] = "";
    size_t n = 0;
    for (unsigned i = 0; i < control.server_count; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "%d\n", (int)control.servers[i].pid);
    answer(fd, text);
}

/* The server answers for itself: one that is wedged does not. */
static void ask_server(int fd, const char *pid, const char *what)
{
    struct server *s = server_named(pid);
    if (!s)
        answer(fd, "Server not found\n");
    else
        mps_send(s->channel, what, fd);
}

static void shutdown_server(int fd, const char *args)
{
    struct server *s = server_named(args);
    if (!s) {
        answer(fd, "Server not found\n");
        return;
    }
    if (strstr(args, "-f"))
        kill(s->pid, SIGKILL);
    else
        mps_send(s->channel, MPS_TO_SERVER_DRAIN, -1);
    answer(fd, "");
}

static void start_server(int fd, const char *args)
{
    const char *p = strstr(args, "-uid");
    uid_t uid = p ? (uid_t)strtoul(p + 4, NULL, 10) : getuid();
    if (uid != getuid() && getuid() != 0)
        answer(fd, "Only root may start a server for another user\n");
    else if (server_of(uid) || server_start(uid))
        answer(fd, "");
    else
        answer(fd, "No server could be started\n");
}

static void quit(int fd, const char *args)
{
    const char *p = strstr(args, "-t");
    control.quitting = true;
    if (p)
        control.deadline_ns = lithos_now_ns() + strtoull(p + 2, NULL, 10) * LITHOS_NSEC_PER_SEC;
    for (unsigned i = 0; i < control.server_count; i++)
        mps_send(control.servers[i].channel, MPS_TO_SERVER_DRAIN, -1);
    mps_log("control.log", "Control", "Quit requested%s", p ? " with a time limit" : "");
    answer(fd, "");
}

/* For tests: the servers stop doing anything, as after a client was killed at a bad moment. */
static void wedge(int fd)
{
    for (unsigned i = 0; i < control.server_count; i++)
        kill(control.servers[i].pid, SIGSTOP);
    answer(fd, "");
}

static bool starts(const char *text, const char *word, const char **ret_args)
{
    size_t n = strlen(word);
    if (strncmp(text, word, n) || (text[n] && text[n] != ' '))
        return false;
    *ret_args = text + n + strspn(text + n, " ");
    return true;
}

static void command(int fd, const char *text)
{
    const char *args;
    uid_t uid;
    mps_peer(fd, &uid);
    if (starts(text, VGPU_MPS_CLIENT_HELLO, &args))
        new_client(fd);
    else if (uid != getuid() && uid != 0)
        answer(fd, "Only the user who started this MPS may command it\n");
    else if (starts(text, "get_server_list", &args))
        list_servers(fd);
    else if (starts(text, "get_server_status", &args))
        ask_server(fd, args, MPS_TO_SERVER_STATUS);
    else if (starts(text, "get_client_list", &args))
        ask_server(fd, args, MPS_TO_SERVER_LIST);
    else if (starts(text, "start_server", &args))
        start_server(fd, args);
    else if (starts(text, "shutdown_server", &args))
        shutdown_server(fd, args);
    else if (starts(text, "quit", &args))
        quit(fd, args);
    else if (starts(text, "lithos_wedge", &args))
        wedge(fd);
    else
        answer(fd, "Command not found, or not implemented by the virtual GPU's MPS\n");
}

/* ---- the loop */

static void accept_one(void)
{
    int fd = accept4(control.listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    if (control.pending_count == MAX_PENDING) {
        close(control.pending[0]); /* the one that has been silent longest */
        memmove(control.pending, control.pending + 1, (MAX_PENDING - 1) * sizeof(int));
        control.pending_count--;
    }
    control.pending[control.pending_count++] = fd;
}

static void hear(unsigned i)
{
    char text[MPS_TEXT_BYTES];
    int fd = control.pending[i], passed = -1;
    control.pending[i] = control.pending[--control.pending_count];
    if (mps_receive(fd, text, &passed) > 0)
        command(fd, text);
    if (passed >= 0)
        close(passed);
    close(fd);
}

/* true: SIGTERM or SIGINT */
static bool read_signal(void)
{
    struct signalfd_siginfo info;
    if (read(control.signals, &info, sizeof info) != sizeof info)
        return false;
    reap_servers();
    return info.ssi_signo != SIGCHLD;
}

/* Now and then: is the folder still there? Who removes it can reach us no more, and would leave us behind for ever. */
static bool abandoned(void)
{
    struct stat st;
    return fstatat(control.dir, VGPU_MPS_CONTROL, &st, 0) < 0 && errno == ENOENT;
}

static int timeout_ms(void)
{
    uint64_t now = lithos_now_ns(), until = control.deadline_ns;
    if (!until || until > now + CHECK_NS)
        until = now + CHECK_NS;
    return now >= until ? 0 : (int)((until - now) / LITHOS_NSEC_PER_MSEC) + 1;
}

static void serve(void)
{
    for (;;) {
        if (control.quitting && !control.server_count)
            return;
        struct pollfd fds[2 + MAX_PENDING] = {{.fd = control.listener, .events = POLLIN},
                                              {.fd = control.signals, .events = POLLIN}};
        unsigned count = control.pending_count;
        for (unsigned i = 0; i < count; i++)
            fds[2 + i] = (struct pollfd){.fd = control.pending[i], .events = POLLIN};
        int n = poll(fds, 2 + count, timeout_ms());
        if ((n < 0 && errno != EINTR) || (n == 0 && abandoned()))
            return;
        if (control.deadline_ns && lithos_now_ns() >= control.deadline_ns)
            return;
        if (fds[1].revents && read_signal())
            return;
        for (unsigned i = count; i-- > 0;)
            if (fds[2 + i].revents)
                hear(i);
        if (fds[0].revents)
            accept_one();
    }
}

static int open_folder(void)
{
    const char *path = vgpu_mps_pipe_dir();
    int r = lithos_mkdir_p(path, 0755);
    if (r == 0 && (control.dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC)) < 0)
        r = -errno;
    if (r) {
        fprintf(stderr, "nvidia-cuda-mps-control: %s (CUDA_MPS_PIPE_DIRECTORY): %s\n", path, strerror(-r));
        return r;
    }
    int lock = openat(control.dir, LOCK_FILE, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (lock < 0 || flock(lock, LOCK_EX | LOCK_NB)) {
        r = -errno;
        fprintf(stderr, errno == EWOULDBLOCK ? "An instance of this daemon is already running\n"
                                             : "nvidia-cuda-mps-control: cannot lock " LOCK_FILE "\n");
    }
    return r;
}

static int open_socket(void)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    snprintf(addr.sun_path, sizeof addr.sun_path, "/proc/self/fd/%d/" VGPU_MPS_CONTROL, control.dir);
    unlinkat(control.dir, VGPU_MPS_CONTROL, 0);
    control.listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (control.listener < 0 || bind(control.listener, (struct sockaddr *)&addr, sizeof addr) ||
        listen(control.listener, 64)) {
        int r = -errno;
        fprintf(stderr, "nvidia-cuda-mps-control: %s/" VGPU_MPS_CONTROL ": %s\n", vgpu_mps_pipe_dir(),
                strerror(-r));
        return r;
    }
    return 0;
}

static void write_pid(void)
{
    int fd = openat(control.dir, PID_FILE, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd >= 0) {
        dprintf(fd, "%d\n", (int)getpid());
        close(fd);
    }
}

int mps_control_run(int ready)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    control.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    int r = control.signals < 0 ? -errno : open_folder();
    if (r == 0)
        r = open_socket();
    if (r)
        return r;
    const char *log_dir = getenv("CUDA_MPS_LOG_DIRECTORY");
    lithos_mkdir_p(log_dir && *log_dir ? log_dir : "/var/log/nvidia-mps", 0755);
    write_pid();
    mps_log("control.log", "Control", "Starting control daemon using socket %s/" VGPU_MPS_CONTROL,
            vgpu_mps_pipe_dir());
    if (ready >= 0) {
        ssize_t n = write(ready, "", 1);
        (void)n;
        close(ready);
        dup2(STDIN_FILENO, STDERR_FILENO); /* /dev/null: the caller is let go */
    }
    serve();
    mps_log("control.log", "Control", "Exiting");
    unlinkat(control.dir, VGPU_MPS_CONTROL, 0);
    unlinkat(control.dir, PID_FILE, 0);
    for (unsigned i = 0; i < control.server_count; i++)
        kill(control.servers[i].pid, SIGKILL);
    return 0;
}
