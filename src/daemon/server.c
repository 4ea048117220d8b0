/* The socket: who may connect, and one answer for each request. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "daemon/daemon.h"
#include "proto/socket.h"

#define ACCEPT_PAUSE_NS (100 * LITHOS_NSEC_PER_MSEC)
/* For so long a lock of somebody dead is waited for, and looked at each time. */
#define LOCK_NS (2 * LITHOS_NSEC_PER_SEC)
#define LOCK_WAIT_US 10000

/* ---- the socket's place ---- */

/* A folder that somebody else can write to would let them put their socket in the place of ours. */
static int check_folder(const char *folder, bool open_to_others)
{
    struct stat st;
    int r = lithos_mkdir_p(folder, open_to_others ? 0755 : 0700);
    if (r == 0 && lstat(folder, &st) < 0)
        r = -errno;
    if (r < 0) {
        lithos_error("cannot make the socket's folder %s: %s; choose another with --socket or LITHOS_SOCKET",
                     folder, strerror(-r));
        return r;
    }
    bool writable = (st.st_mode & 022) && !(st.st_mode & S_ISVTX);
    if (!S_ISLNK(st.st_mode) && (writable || (st.st_uid != geteuid() && st.st_uid != 0))) {
        lithos_error("the socket's folder %s belongs to, or can be written by, another user: choose another "
                     "with --socket "
                     "or LITHOS_SOCKET",
                     folder);
        return -EPERM;
    }
    return 0;
}

static int holder(const char *lock)
{
    char *text = NULL;
    lithos_read_file(lock, 64, &text, NULL);
    const int pid = text ? atoi(text) : 0;
    free(text);
    return pid;
}

/* What a lithosd that was killed had just forked holds the lock until it executes its program. */
static int take_lock(int fd, const char *lock)
{
    const uint64_t until_ns = lithos_now_ns() + LOCK_NS;
    while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        const int r = -errno, pid = holder(lock);
        if (r != -EWOULDBLOCK || pid <= 0 || kill(pid, 0) == 0 || errno != ESRCH ||
            lithos_now_ns() > until_ns)
            return r;
        usleep(LOCK_WAIT_US);
    }
    return 0;
}

static void say_who_holds(const char *socket, const char *lock)
{
    const int pid = holder(lock);
    lithos_error("another lithosd (pid %d) serves %s: use that one (`lithos status`), stop it with `kill "
                 "%d`, or choose "
                 "another --socket",
                 pid, socket, pid);
}

int lithosd_server_lock(struct lithosd *d)
{
    char folder[sizeof d->options.socket], path[sizeof d->options.socket + 8];
    snprintf(folder, sizeof folder, "%s", d->options.socket);
    int r = check_folder(dirname(folder), d->options.allow_all || d->options.uid_count);
    if (r < 0)
        return r;
    snprintf(path, sizeof path, "%s.lock", d->options.socket);
    d->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (d->lock_fd < 0) {
        r = -errno;
        lithos_error("cannot open %s: %s; choose another --socket", path, strerror(-r));
        return r;
    }
    r = take_lock(d->lock_fd, path);
    if (r < 0) {
        close(d->lock_fd);
        d->lock_fd = -1;
        if (r == -EWOULDBLOCK)
            say_who_holds(d->options.socket, path);
        else
            lithos_error("cannot lock %s: %s", path, strerror(-r));
        return r;
    }
    if (ftruncate(d->lock_fd, 0) < 0 || dprintf(d->lock_fd, "%d\n", (int)getpid()) < 0)
        lithos_warning("cannot write %s: %s", path, strerror(errno));
    return 0;
}

/* ---- connections ---- */

static void connection_close(struct lithosd_connection *c)
{
    struct lithosd *d = c->daemon;
    struct lithosd_connection **link = &d->connections;
    while (*link != c)
        link = &(*link)->next;
    *link = c->next;
    int fd = c->watch.fd;
    lithosd_watch_remove(&d->loop, &c->watch);
    close(fd);
    d->connection_count--;
    lithosd_recording_end(c);
    if (c->process)
        lithosd_process_disconnected(c->process);
    free(c->deferred);
    free(c);
}

/* The answer, or the end of the connection: nobody may make the daemon wait. False when it is closed. */
static bool answer(struct lithosd_connection *c, const union lithos_message *m, int fd)
{
    if (lithos_socket_send(c->watch.fd, m, fd, 0) == 0)
        return true;
    connection_close(c);
    return false;
}

static void error_message(union lithos_message *ret, int error, const char *text)
{
    lithos_message_init(ret, LITHOS_MSG_ERROR);
    ret->error.error = error;
    snprintf(ret->error.text, sizeof ret->error.text, "%s", text);
}

static bool answer_error(struct lithosd_connection *c, int error, const char *text)
{
    union lithos_message m;
    error_message(&m, error, text);
    return answer(c, &m, -1);
}

/* Takes text, which may be NULL. */
static bool answer_document(struct lithosd_connection *c, char *text)
{
    size_t len = text ? strlen(text) : 0;
    int fd = memfd_create("lithos-status", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    bool written = text && fd >= 0 && write(fd, text, len) == (ssize_t)len &&
                   fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) == 0 &&
                   lseek(fd, 0, SEEK_SET) == 0;
    union lithos_message m;
    bool open;
    if (written) {
        lithos_message_init(&m, LITHOS_MSG_DOCUMENT);
        m.document.bytes = len;
        open = answer(c, &m, fd);
    } else {
        open = answer_error(c, -ENOMEM, "lithosd is out of memory or file descriptors: try again");
    }
    free(text);
    if (fd >= 0)
        close(fd);
    return open;
}

static bool answer_admit(struct lithosd_connection *c, const struct lithos_msg_admit *request)
{
    struct lithosd *d = c->daemon;
    union lithos_message m;
    char text[LITHOS_TEXT_MAX] = "";
    int r = lithosd_admit(d, c, request, &m, text);
    if (r == 0)
        return answer(c, &m, -1);
    lithosd_event(&d->events, "refused", "pid %d (%.40s): %.*s", (int)c->pid, request->command,
                  (int)strcspn(text, "\n"), text);
    return answer_error(c, r, text);
}

static bool handle_admit(struct lithosd_connection *c, const struct lithos_msg_admit *request)
{
    if (c->daemon->mps.state != LITHOSD_MPS_STARTING)
        return answer_admit(c, request);
    c->deferred = malloc(sizeof *c->deferred);
    if (!c->deferred)
        return answer_error(c, -ENOMEM, "lithosd is out of memory");
    *c->deferred = *request;
    lithosd_watch_modify(&c->daemon->loop, &c->watch, 0); /* hang-ups are told all the same */
    return true;
}

static bool handle_attach(struct lithosd_connection *c, const struct lithos_msg_attach *request)
{
    union lithos_message m;
    char text[LITHOS_TEXT_MAX] = "";
    int fd = -1;
    int r = lithosd_attach(c->daemon, c, request, &m, &fd, text);
    bool open = r == 0 ? answer(c, &m, fd) : answer_error(c, r, text);
    if (fd >= 0 && r == 0)
        close(fd);
    return open;
}

static bool handle_set(struct lithosd_connection *c, const struct lithos_msg_set *request)
{
    struct lithosd *d = c->daemon;
    union lithos_message m;
    char text[LITHOS_TEXT_MAX] = "";
    int r = lithosd_set(d, c, request, text);
    if (r < 0) {
        lithosd_event(&d->events, "refused", "set %s: %.*s", request->name, (int)strcspn(text, "\n"), text);
        return answer_error(c, r, text);
    }
    lithos_message_init(&m, LITHOS_MSG_OK);
    return answer(c, &m, -1);
}

static bool handle_explain(struct lithosd_connection *c, const struct lithos_msg_explain *request)
{
    struct lithosd_tenant *t = lithosd_tenant_by_name(c->daemon, request->name);
    char text[LITHOS_TEXT_MAX];
    if (t)
        return answer_document(c, lithosd_explain(t));
    snprintf(text, sizeof text, "there is no tenant named %s: `lithos status` lists them", request->name);
    return answer_error(c, -ENOENT, text);
}

static bool handle_shutdown(struct lithosd_connection *c)
{
    struct lithosd *d = c->daemon;
    union lithos_message m;
    if (c->uid != 0 && c->uid != geteuid())
        return answer_error(c, -EPERM, "only root and the user that lithosd runs as may stop it");
    lithos_message_init(&m, LITHOS_MSG_OK);
    bool open = answer(c, &m, -1);
    lithosd_stop(d, "asked to over its socket");
    return open;
}

static bool handle_trace(struct lithosd_connection *c, const struct lithos_msg_trace *request, int fd)
{
    union lithos_message m;
    char text[LITHOS_TEXT_MAX] = "";
    int r = lithosd_recording_request(c, request, fd, &m, text);
    return r == 0 ? answer(c, &m, -1) : answer_error(c, r, text);
}

/* fd: what came along, or -1; the caller's. */
static bool handle(struct lithosd_connection *c, const union lithos_message *m, int fd)
{
    switch ((enum lithos_msg_type)m->h.type) {
    case LITHOS_MSG_ADMIT:
        return handle_admit(c, &m->admit);
    case LITHOS_MSG_ATTACH:
        return handle_attach(c, &m->attach);
    case LITHOS_MSG_STATUS:
        return answer_document(c, lithosd_status(c->daemon));
    case LITHOS_MSG_EXPLAIN:
        return handle_explain(c, &m->explain);
    case LITHOS_MSG_SET:
        return handle_set(c, &m->set);
    case LITHOS_MSG_SHUTDOWN:
        return handle_shutdown(c);
    case LITHOS_MSG_TRACE:
        return handle_trace(c, &m->trace, fd);
    case LITHOS_MSG_WAKE:
        if (!c->process)
            return answer_error(c, -ENOTCONN, "only an attached process wakes lithosd");
        lithosd_observe_woken(c->process);
        return true;
    default:
        if (answer_error(c, -EPROTO, "a message that only lithosd sends"))
            connection_close(c);
        return false;
    }
}

/* Room for one descriptor is given: what else a client pushes at us, the kernel drops. */
static int descriptor_of(struct msghdr *msg)
{
    const struct cmsghdr *c = CMSG_FIRSTHDR(msg);
    int fd = -1;
    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len >= CMSG_LEN(sizeof fd))
        memcpy(&fd, CMSG_DATA(c), sizeof fd);
    return fd;
}

static void readable(void *ctx, uint32_t events)
{
    struct lithosd_connection *c = ctx;
    union lithos_message m;
    const char *why = "";
    memset(&m, 0, sizeof m);
    struct iovec iov = {.iov_base = &m, .iov_len = sizeof m};
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.bytes,
                         .msg_controllen = sizeof control.bytes};
    if (c->deferred && !(events & (EPOLLHUP | EPOLLERR)))
        return;
    ssize_t n = c->deferred ? 0 : recvmsg(c->watch.fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        connection_close(c);
        return;
    }
    int fd = descriptor_of(&msg);
    int r = msg.msg_flags & MSG_TRUNC ? -EPROTO : lithos_message_validate(&m, (size_t)n, &why);
    if (r == 0)
        handle(c, &m, fd);
    if (fd >= 0) /* a recording has a copy */
        close(fd);
    if (r == 0)
        return;
    char text[LITHOS_TEXT_MAX];
    snprintf(text, sizeof text, "lithosd does not understand: %s", *why ? why : "the message is too long");
    lithos_debug("pid %d: %s", (int)c->pid, text);
    bool open = answer_error(c, r, text);
    if (open && r != -EINVAL) /* a value out of range is a mistake; anything else is not our protocol */
        connection_close(c);
}

static bool allowed(const struct lithosd *d, uid_t uid)
{
    bool yes = d->options.allow_all || uid == 0 || uid == geteuid();
    for (unsigned i = 0; i < d->options.uid_count; i++)
        yes = yes || d->options.uids[i] == uid;
    return yes;
}

static void refuse_connection(int fd, int error, const char *text)
{
    union lithos_message m;
    error_message(&m, error, text);
    lithos_socket_send(fd, &m, -1, 0);
    close(fd);
}

static void welcome(struct lithosd *d, int fd)
{
    pid_t pid;
    uid_t uid;
    gid_t gid;
    char text[256];
    if (lithos_socket_peer(fd, &pid, &uid, &gid) < 0) {
        close(fd);
        return;
    }
    if (!allowed(d, uid)) {
        snprintf(text, sizeof text,
                 "this lithosd runs as uid %u and does not serve uid %u: start it with --allow-uid %u, or "
                 "run one of your own (LITHOS_SOCKET)",
                 (unsigned)geteuid(), (unsigned)uid, (unsigned)uid);
        lithosd_event(&d->events, "refused", "pid %d: uid %u is not allowed", (int)pid, (unsigned)uid);
        refuse_connection(fd, -EACCES, text);
        return;
    }
    struct lithosd_connection *c =
        d->connection_count < LITHOSD_CONNECTIONS_MAX ? calloc(1, sizeof *c) : NULL;
    if (!c) {
        refuse_connection(fd, -EMFILE, "lithosd has as many connections as it takes: try again");
        return;
    }
    *c = (struct lithosd_connection){.daemon = d, .pid = pid, .uid = uid, .next = d->connections};
    if (lithosd_watch_add(&d->loop, &c->watch, fd, EPOLLIN, readable, c) < 0) {
        close(fd);
        free(c);
        return;
    }
    d->connections = c;
    d->connection_count++;
}

static void accept_again(void *ctx)
{
    struct lithosd *d = ctx;
    if (d->listener.fd >= 0)
        lithosd_watch_modify(&d->loop, &d->listener, EPOLLIN);
}

static void incoming(void *ctx, uint32_t events)
{
    (void)events;
    struct lithosd *d = ctx;
    int fd = accept4(d->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) {
        welcome(d, fd);
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
        lithos_log_once(LITHOS_LOG_WARNING, "cannot accept connections for now: %s", strerror(errno));
        lithosd_watch_modify(&d->loop, &d->listener, 0);
        lithosd_timer_set(&d->loop, &d->accept_pause, ACCEPT_PAUSE_NS, accept_again, d);
    }
}

int lithosd_server_listen(struct lithosd *d)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", d->options.socket);
    bool others = d->options.allow_all || d->options.uid_count;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), r = 0;
    unlink(d->options.socket); /* ours by the lock: what lies there is a dead daemon's */
    mode_t before = umask(0177);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
        (others && chmod(d->options.socket, 0666) < 0) || listen(fd, 128) < 0)
        r = -errno;
    umask(before);
    if (r == 0)
        r = lithosd_watch_add(&d->loop, &d->listener, fd, EPOLLIN, incoming, d);
    if (r < 0) {
        lithos_error("cannot listen at %s: %s", d->options.socket, strerror(-r));
        if (fd >= 0)
            close(fd);
    }
    return r;
}

void lithosd_server_resume(struct lithosd *d)
{
    for (struct lithosd_connection *c = d->connections, *next; c; c = next) {
        next = c->next;
        if (!c->deferred)
            continue;
        struct lithos_msg_admit *request = c->deferred;
        c->deferred = NULL;
        lithosd_watch_modify(&d->loop, &c->watch, EPOLLIN);
        answer_admit(c, request);
        free(request);
    }
}

void lithosd_server_finish(struct lithosd *d)
{
    if (d->listener.fd >= 0) {
        int fd = d->listener.fd;
        lithosd_watch_remove(&d->loop, &d->listener);
        unlink(d->options.socket);
        close(fd);
    }
    for (struct lithosd_connection *c = d->connections, *next; c; c = next) {
        next = c->next;
        lithosd_recording_end(c);
        if (c->process) {
            c->process->connection = NULL;
            c->process = NULL;
        }
        connection_close(c);
    }
    if (d->lock_fd >= 0)
        close(d->lock_fd); /* the file stays: removing it would let two daemons lock two files of one name */
    d->lock_fd = -1;
}
