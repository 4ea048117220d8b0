#include "proto/socket.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/util.h"

/* Descriptors a hostile peer may push at us in one packet; those beyond are dropped by the kernel. */
#define FDS_MAX 4

int lithos_socket_path(char *buf, size_t size)
{
    const char *path = getenv("LITHOS_SOCKET"), *runtime = getenv("XDG_RUNTIME_DIR");
    int n;
    if (path && *path)
        n = snprintf(buf, size, "%s", path);
    else if (geteuid() == 0)
        n = snprintf(buf, size, "/run/lithos/lithosd.sock");
    else if (runtime && *runtime)
        n = snprintf(buf, size, "%s/lithos/lithosd.sock", runtime);
    else
        n = snprintf(buf, size, "/tmp/lithos-%u/lithosd.sock", (unsigned)geteuid());
    return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

static uint64_t deadline_after(uint64_t timeout_ns)
{
    uint64_t now_ns = lithos_now_ns();
    return timeout_ns > UINT64_MAX - now_ns ? UINT64_MAX : now_ns + timeout_ns;
}

/* Wait until the socket can be read or written. 0, -ETIMEDOUT or negative errno. */
static int wait_for(int sock, short events, uint64_t deadline_ns)
{
    for (;;) {
        uint64_t now_ns = lithos_now_ns();
        if (now_ns >= deadline_ns)
            return -ETIMEDOUT;
        uint64_t left_ns = deadline_ns - now_ns;
        struct timespec ts = {(time_t)LITHOS_MIN(left_ns / LITHOS_NSEC_PER_SEC, 1000000ull),
                              (long)(left_ns % LITHOS_NSEC_PER_SEC)};
        struct pollfd p = {.fd = sock, .events = events};
        int n = ppoll(&p, 1, &ts, NULL);
        if (n > 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return -errno;
    }
}

static int set_send_timeout(int fd, uint64_t timeout_ns)
{
    struct timeval tv = {(time_t)LITHOS_MIN(timeout_ns / LITHOS_NSEC_PER_SEC, 1000000ull),
                         (suseconds_t)(timeout_ns % LITHOS_NSEC_PER_SEC / 1000)};
    return setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv) < 0 ? -errno : 0;
}

int lithos_socket_connect(const char *path, uint64_t timeout_ns, int *ret_fd)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return -ENAMETOOLONG;
    memcpy(address.sun_path, path, strlen(path) + 1);
    uint64_t deadline_ns = deadline_after(timeout_ns);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int r;
    for (;;) {
        uint64_t now_ns = lithos_now_ns();
        /* A full backlog blocks connect(); a zero timeout would mean for ever. */
        r = set_send_timeout(fd, now_ns < deadline_ns ? LITHOS_MAX(deadline_ns - now_ns, 1000ull) : 1000);
        if (r < 0)
            break;
        r = connect(fd, (struct sockaddr *)&address, sizeof address) < 0 ? -errno : 0;
        if (r != -EINTR || lithos_now_ns() >= deadline_ns)
            break;
    }
    if (r == -EAGAIN || r == -EINTR)
        r = -ETIMEDOUT;
    if (r == 0)
        r = set_send_timeout(fd, 0);
    if (r < 0) {
        close(fd);
        return r;
    }
    *ret_fd = fd;
    return 0;
}

int lithos_socket_send(int sock, const union lithos_message *m, int fd, uint64_t timeout_ns)
{
    uint64_t deadline_ns = deadline_after(timeout_ns);
    if (m->h.size < sizeof m->h || m->h.size > sizeof *m)
        return -EINVAL;
    struct iovec iov = {.iov_base = (void *)m, .iov_len = m->h.size};
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    memset(&control, 0, sizeof control);
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fd >= 0) {
        msg.msg_control = control.bytes;
        msg.msg_controllen = sizeof control.bytes;
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        *c = (struct cmsghdr){
            .cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    for (;;) {
        ssize_t n = sendmsg(sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n >= 0)
            return (size_t)n == m->h.size ? 0 : -EIO; /* a packet goes whole or not at all */
        if (errno == EPIPE)
            return -ECONNRESET;
        if (errno != EAGAIN && errno != EINTR)
            return -errno;
        int r = wait_for(sock, POLLOUT, deadline_ns);
        if (r < 0)
            return r;
    }
}

/* The first descriptor that came along, or -1; the others are closed. */
static int take_descriptors(struct msghdr *msg)
{
    int kept = -1;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (kept < 0)
                kept = fd;
            else
                close(fd);
        }
    }
    return kept;
}

static int receive_once(int sock, union lithos_message *ret_m, int *ret_fd)
{
    union lithos_message m;
    memset(&m, 0, sizeof m);
    struct iovec iov = {.iov_base = &m, .iov_len = sizeof m};
    union {
        char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.bytes,
                         .msg_controllen = sizeof control.bytes};
    ssize_t n = recvmsg(sock, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0)
        return -errno;
    int fd = take_descriptors(&msg);
    int r = n == 0 ? -ECONNRESET : 0;
    if (!r && msg.msg_flags & MSG_TRUNC)
        r = -EPROTO;
    if (!r)
        r = lithos_message_validate(&m, (size_t)n, NULL);
    if (fd >= 0 && (r < 0 || !ret_fd)) {
        close(fd);
        fd = -1;
    }
    if (r < 0)
        return r;
    *ret_m = m;
    if (ret_fd)
        *ret_fd = fd;
    return 0;
}

int lithos_socket_receive(int sock, union lithos_message *ret_m, int *ret_fd, uint64_t timeout_ns)
{
    uint64_t deadline_ns = deadline_after(timeout_ns);
    for (;;) {
        int r = receive_once(sock, ret_m, ret_fd);
        if (r != -EAGAIN && r != -EINTR)
            return r;
        r = wait_for(sock, POLLIN, deadline_ns);
        if (r < 0)
            return r;
    }
}

int lithos_socket_call(int sock, const union lithos_message *request, union lithos_message *ret_answer,
                       int *ret_fd, uint64_t timeout_ns)
{
    uint64_t start_ns = lithos_now_ns();
    int r = lithos_socket_send(sock, request, -1, timeout_ns);
    if (r < 0)
        return r;
    uint64_t spent_ns = lithos_now_ns() - start_ns;
    return lithos_socket_receive(sock, ret_answer, ret_fd, spent_ns < timeout_ns ? timeout_ns - spent_ns : 0);
}

int lithos_socket_peer(int sock, pid_t *ret_pid, uid_t *ret_uid, gid_t *ret_gid)
{
    struct ucred cred;
    socklen_t size = sizeof cred;
    if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &size) < 0)
        return -errno;
    *ret_pid = cred.pid;
    *ret_uid = cred.uid;
    *ret_gid = cred.gid;
    return 0;
}
