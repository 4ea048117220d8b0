#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vgpu/mps/mps.h"
#include "vgpu/mps/pipe.h"

#define MAX_CLIENTS 60u /* as Volta and later */

struct server {
    int channel;
    int clients[MAX_CLIENTS];
    unsigned count;
    int draining;
};

static void answer(int fd, const char *text)
{
    char out[MPS_TEXT_BYTES];
    int n = snprintf(out, sizeof out, "%c%s", MPS_ANSWER, text);
    ssize_t sent = send(fd, out, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)sent; /* who asked may be gone */
}

static void add_client(struct server *s, int fd)
{
    char text[64];
    uid_t uid;
    if (s->count == MAX_CLIENTS || s->draining) {
        snprintf(text, sizeof text, s->draining ? "the server is shutting down" : "too many clients");
        send(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT);
        close(fd);
        return;
    }
    snprintf(text, sizeof text, VGPU_MPS_CLIENT_WELCOME " %d", (int)getpid());
    if (send(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
        close(fd);
        return;
    }
    mps_log("server.log", "Server", "New client %d connected", (int)mps_peer(fd, &uid));
    s->clients[s->count++] = fd;
}

static void tell_clients(const struct server *s, int fd)
{
    char list[MPS_TEXT_BYTES / 2] = "";
    size_t n = 0;
    uid_t uid;
    for (unsigned i = 0; i < s->count; i++)
        n += (size_t)snprintf(list + n, sizeof list - n, "%d\n", (int)mps_peer(s->clients[i], &uid));
    answer(fd, list);
}

static void from_control(struct server *s)
{
    char text[MPS_TEXT_BYTES];
    int fd = -1;
    ssize_t n = mps_receive(s->channel, text, &fd);
    if (n <= 0)
        _exit(0); /* the control is gone */
    if (!strcmp(text, MPS_TO_SERVER_DRAIN)) {
        s->draining = 1;
    } else if (fd >= 0 && !strcmp(text, MPS_TO_SERVER_CLIENT)) {
        add_client(s, fd);
        return;
    } else if (fd >= 0 && !strcmp(text, MPS_TO_SERVER_STATUS)) {
        answer(fd, "ACTIVE\n");
    } else if (fd >= 0 && !strcmp(text, MPS_TO_SERVER_LIST)) {
        tell_clients(s, fd);
    }
    if (fd >= 0)
        close(fd);
}

_Noreturn void mps_server_run(int channel)
{
    static struct server s;
    s.channel = channel;
    prctl(PR_SET_NAME, "nvidia-cuda-mps");
    mps_log("server.log", "Server", "Started");
    while (!s.draining || s.count) {
        struct pollfd fds[1 + MAX_CLIENTS] = {{.fd = channel, .events = POLLIN}};
        unsigned count = s.count;
        for (unsigned i = 0; i < count; i++)
            fds[1 + i] = (struct pollfd){.fd = s.clients[i], .events = POLLIN};
        if (poll(fds, 1 + count, -1) < 0 && errno != EINTR)
            break;
        for (unsigned i = count; i-- > 0;) {
            if (!fds[1 + i].revents)
                continue; /* a client says nothing more: it has ended */
            close(s.clients[i]);
            s.clients[i] = s.clients[--s.count];
        }
        if (fds[0].revents)
            from_control(&s);
    }
    mps_log("server.log", "Server", "Exiting");
    _exit(0);
}
