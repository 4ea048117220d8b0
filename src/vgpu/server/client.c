/* Connections: messages in and out, never waiting for a client. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/util.h"
#include "vgpu/server/server.h"

#define BATCH 32
#define PAST_MAX 4096u

static void watch(struct client *c)
{
    uint32_t events = (c->paused ? 0 : EPOLLIN) | (c->unread ? EPOLLOUT : 0);
    if (c->gone || events == c->events)
        return;
    c->events = events;
    struct epoll_event ev = {.events = events, .data.ptr = c};
    lithos_assert(epoll_ctl(c->server->epoll_fd, EPOLL_CTL_MOD, c->fd, &ev) == 0);
}

static void read_program(struct client *c)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/comm", (int)c->pid);
    FILE *f = fopen(path, "re");
    if (!f || !fgets(c->program, sizeof c->program, f))
        strcpy(c->program, "?");
    c->program[strcspn(c->program, "\n")] = '\0';
    if (f)
        fclose(f);
}

void client_accept(struct server *sv)
{
    int fd = accept4(sv->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
            lithos_log_once(LITHOS_LOG_WARNING, "a client could not be let in: %s", strerror(errno));
        return;
    }
    struct ucred cred = {.uid = (uid_t)-1};
    socklen_t len = sizeof cred;
    struct client *c = calloc(1, sizeof *c);
    lithos_assert(c);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
        cred.pid = 0;
    *c = (struct client){
        .server = sv, .fd = fd, .pid = cred.pid, .uid = cred.uid, .serial = ++sv->serial, .events = EPOLLIN};
    c->unread_end = &c->unread;
    c->started_ns = server_card_ns(sv);
    read_program(c);
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(sv->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0) {
        lithos_warning("client %d could not be let in: %s", (int)c->pid, strerror(errno));
        close(fd);
        free(c);
        return;
    }
    c->next = sv->clients;
    sv->clients = c;
    lithos_debug("client %d (%s) is connected", (int)c->pid, c->program);
}

/* 0 when it went out, -EAGAIN when the client has to read first, else what ended the connection. */
static int send_now(struct client *c, const void *msg, size_t size)
{
    ssize_t n;
    do {
        n = send(c->fd, msg, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n == (ssize_t)size)
        return 0;
    return n < 0 ? (errno == ENOBUFS ? -EAGAIN : -errno) : -EIO;
}

void client_send(struct client *c, void *msg, uint16_t type, size_t size)
{
    *(struct vgpu_msg_header *)msg = (struct vgpu_msg_header){
        .magic = VGPU_WIRE_MAGIC, .version = VGPU_WIRE_VERSION, .type = type, .size = (uint32_t)size};
    if (c->gone)
        return;
    int r = c->unread ? -EAGAIN : send_now(c, msg, size);
    if (r == 0)
        return;
    if (r != -EAGAIN) {
        c->gone = true;
        return;
    }
    if (c->unread_bytes + size > CLIENT_UNREAD_MAX) {
        lithos_warning("client %d (%s) does not read what it is told: cut off", (int)c->pid, c->program);
        c->gone = true;
        return;
    }
    struct message *m = malloc(sizeof *m + size);
    lithos_assert(m);
    m->next = NULL;
    m->len = size;
    memcpy(m->bytes, msg, size);
    *c->unread_end = m;
    c->unread_end = &m->next;
    c->unread_bytes += size;
    watch(c);
}

void client_writable(struct client *c)
{
    while (c->unread && !c->gone) {
        struct message *m = c->unread;
        int r = send_now(c, m->bytes, m->len);
        if (r == -EAGAIN)
            break;
        if (r < 0)
            c->gone = true;
        c->unread = m->next;
        if (!c->unread)
            c->unread_end = &c->unread;
        c->unread_bytes -= m->len;
        free(m);
    }
    watch(c);
}

void client_cut(struct client *c, const char *fmt, ...)
{
    struct vgpu_fault fault = {.result = 999}; /* CUDA_ERROR_UNKNOWN */
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(fault.text, sizeof fault.text, fmt, ap);
    va_end(ap);
    lithos_warning("client %d (%s) is cut off: %s", (int)c->pid, c->program, fault.text);
    client_send(c, &fault, VGPU_FAULT, sizeof fault);
    c->gone = true;
}

void client_ops_done(struct client *c, unsigned count)
{
    c->open_ops -= LITHOS_MIN(count, c->open_ops);
    if (c->paused && c->open_ops < CLIENT_OPS_MAX / 2) {
        c->paused = false;
        watch(c);
    }
}

void client_readable(struct client *c)
{
    static union vgpu_client_msg
        msgs[BATCH]; /* one thread; copied in by recvmmsg before they are looked at */
    struct iovec iov[BATCH];
    struct mmsghdr hdr[BATCH];
    memset(hdr, 0, sizeof hdr);
    for (unsigned i = 0; i < BATCH; i++) {
        iov[i] = (struct iovec){&msgs[i], sizeof msgs[i]};
        hdr[i].msg_hdr.msg_iov = &iov[i];
        hdr[i].msg_hdr.msg_iovlen = 1;
    }
    int n = recvmmsg(c->fd, hdr, BATCH, MSG_DONTWAIT, NULL);
    if (n < 0) {
        if (errno != EAGAIN && errno != EINTR)
            c->gone = true;
        return;
    }
    for (int i = 0; i < n && !c->gone; i++) {
        const char *why = "longer than any message";
        if (hdr[i].msg_len == 0) {
            c->gone = true; /* the end of the connection */
            return;
        }
        if (hdr[i].msg_hdr.msg_flags & MSG_TRUNC ||
            vgpu_check_client_msg(&msgs[i], hdr[i].msg_len, &why) < 0) {
            client_cut(c, "it sent what is no message: %s", why);
            return;
        }
        why = work_message(c, &msgs[i]);
        if (why)
            client_cut(c, "its message of type %u cannot be: %s", msgs[i].h.type, why);
    }
    if (c->open_ops >= CLIENT_OPS_MAX) {
        c->paused = true;
        watch(c);
    }
}

static void forget_oldest(struct server *sv)
{
    struct client **at = &sv->past;
    while (*at && (*at)->next)
        at = &(*at)->next;
    free(*at);
    *at = NULL;
    sv->past_count--;
}

void client_reap(struct server *sv)
{
    for (struct client **at = &sv->clients; *at;) {
        struct client *c = *at;
        if (!c->gone) {
            at = &c->next;
            continue;
        }
        *at = c->next;
        work_drop(c);
        close(c->fd);
        while (c->unread) {
            struct message *m = c->unread;
            c->unread = m->next;
            free(m);
        }
        c->ended_ns = server_card_ns(sv);
        lithos_debug("client %d (%s) has gone", (int)c->pid, c->program);
        if (sv->past_count == PAST_MAX)
            forget_oldest(sv);
        c->next = sv->past;
        sv->past = c;
        sv->past_count++;
    }
}
