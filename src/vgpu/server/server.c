/* The loop: messages in, card time on, events out. Card time is real time over the scale. */
#include "vgpu/server/server.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/util.h"

#define EVENTS 64
/* A wait shorter than this is not worth a sleep: waking costs as much. */
#define SPIN_NS (30 * LITHOS_NSEC_PER_USEC)

uint64_t server_card_ns(const struct server *sv)
{
    return (uint64_t)((double)(lithos_now_ns() - sv->start_real_ns) / sv->scale);
}

static uint64_t real_ns(const struct server *sv, uint64_t card_ns)
{
    double ns = ceil((double)card_ns * sv->scale) + 1;
    return ns > 9e18 ? UINT64_MAX : sv->start_real_ns + (uint64_t)ns;
}

void server_touch(struct server *sv, unsigned card)
{
    sv->cards[card].deadline_ns = 0;
}

static void run_cards(struct server *sv)
{
    for (unsigned i = 0; i < sv->card_count; i++) {
        struct card *card = &sv->cards[i];
        power_step(sv, i);
        uint64_t now_ns = server_card_ns(sv);
        while (now_ns >= card->deadline_ns) {
            struct lithos_model_event events[EVENTS];
            size_t n;
            do {
                n = lithos_model_advance(card->model, now_ns, events, EVENTS);
                for (size_t k = 0; k < n; k++)
                    work_event(i, &events[k]);
            } while (n == EVENTS);
            card->deadline_ns = lithos_model_quiet_until_ns(card->model);
            now_ns = server_card_ns(sv);
        }
    }
}

static uint64_t next_real_ns(const struct server *sv)
{
    uint64_t next = LITHOS_MODEL_NEVER;
    for (unsigned i = 0; i < sv->card_count; i++)
        next = LITHOS_MIN(LITHOS_MIN(next, sv->cards[i].deadline_ns), power_next_ns(&sv->cards[i]));
    return next == LITHOS_MODEL_NEVER ? next : real_ns(sv, next);
}

static void arm(struct server *sv, uint64_t at_real_ns)
{
    if (at_real_ns == sv->armed_real_ns)
        return;
    struct itimerspec t = {0};
    if (at_real_ns != LITHOS_MODEL_NEVER) {
        t.it_value.tv_sec = (time_t)(at_real_ns / LITHOS_NSEC_PER_SEC);
        t.it_value.tv_nsec = (long)(at_real_ns % LITHOS_NSEC_PER_SEC);
    }
    lithos_assert(timerfd_settime(sv->timer_fd, TFD_TIMER_ABSTIME, &t, NULL) == 0);
    sv->armed_real_ns = at_real_ns;
}

static void on_signal(struct server *sv)
{
    struct signalfd_siginfo info;
    while (read(sv->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        int signo = (int)info.ssi_signo;
        if (signo == SIGUSR1)
            server_report(sv);
        else if (signo == SIGCHLD)
            sv->ended |= child_reap(sv);
        else if (sv->child && info.ssi_code != SI_KERNEL)
            child_signal(sv, signo); /* its end is ours; what a terminal sends has reached it already */
        else if (sv->child)
            continue;
        else
            sv->ended = true;
    }
}

static void on_event(struct server *sv, const struct epoll_event *ev)
{
    if (ev->data.ptr == &sv->listen_fd) {
        client_accept(sv);
    } else if (ev->data.ptr == &sv->signal_fd) {
        on_signal(sv);
    } else if (ev->data.ptr == &sv->timer_fd) {
        uint64_t times;
        if (read(sv->timer_fd, &times, sizeof times) > 0)
            sv->armed_real_ns = 0;
    } else {
        struct client *c = ev->data.ptr;
        if (ev->events & EPOLLOUT)
            client_writable(c);
        if (ev->events & EPOLLIN)
            client_readable(c);
        else if (ev->events & (EPOLLHUP | EPOLLERR))
            c->gone = true;
    }
}

int server_loop(struct server *sv)
{
    while (!sv->ended) {
        uint64_t next = next_real_ns(sv), now = lithos_now_ns();
        /* a short spin only where a microsecond of the card is one of ours */
        bool spin = next <= now || (sv->scale < 4 && next - now < SPIN_NS);
        if (!spin)
            arm(sv, next);
        struct epoll_event events[EVENTS];
        int n = epoll_wait(sv->epoll_fd, events, EVENTS, spin ? 0 : -1);
        if (n < 0 && errno != EINTR)
            return -errno;
        for (int i = 0; i < n; i++)
            on_event(sv, &events[i]);
        run_cards(sv);
        client_reap(sv);
    }
    return 0;
}

static int watch(struct server *sv, int *fd)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = fd};
    return epoll_ctl(sv->epoll_fd, EPOLL_CTL_ADD, *fd, &ev) < 0 ? -errno : 0;
}

/* A socket left by a server that is no more is taken over; one that answers is not. */
static int listen_at(struct server *sv, const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof addr.sun_path)
        return -ENAMETOOLONG;
    strcpy(addr.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    struct stat st;
    if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode)) {
        if (connect(fd, (struct sockaddr *)&addr, sizeof addr) == 0 || errno == EAGAIN) {
            close(fd);
            return -EADDRINUSE;
        }
        unlink(path);
    }
    mode_t old = umask(0077); /* the user's own cards */
    int r = bind(fd, (struct sockaddr *)&addr, sizeof addr) < 0 || listen(fd, 128) < 0 ? -errno : 0;
    umask(old);
    if (r < 0) {
        close(fd);
        return r;
    }
    sv->listen_fd = fd;
    strcpy(sv->socket_path, path);
    return 0;
}

static int open_fds(struct server *sv)
{
    sigset_t set;
    sigemptyset(&set);
    const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGCHLD, SIGUSR1, SIGUSR2};
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(signals); i++)
        sigaddset(&set, signals[i]);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return -errno;
    sv->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    sv->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    sv->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (sv->signal_fd < 0 || sv->epoll_fd < 0 || sv->timer_fd < 0)
        return -errno;
    int r = watch(sv, &sv->signal_fd);
    if (r == 0)
        r = watch(sv, &sv->timer_fd);
    if (r == 0)
        r = watch(sv, &sv->listen_fd);
    return r;
}

int server_open(struct server *sv, const char *path)
{
    sv->listen_fd = sv->epoll_fd = sv->timer_fd = sv->signal_fd = -1;
    prctl(PR_SET_TIMERSLACK, 1000ul); /* timers to the microsecond */
    int r = listen_at(sv, path);
    if (r == 0)
        r = open_fds(sv);
    sv->start_real_ns = lithos_now_ns();
    for (unsigned i = 0; i < sv->card_count; i++)
        sv->cards[i].deadline_ns = LITHOS_MODEL_NEVER;
    return r;
}

void server_close(struct server *sv)
{
    for (struct client *c = sv->clients; c; c = c->next)
        c->gone = true;
    client_reap(sv);
    server_report(sv);
    while (sv->past) {
        struct client *c = sv->past;
        sv->past = c->next;
        free(c);
    }
    const int fds[] = {sv->listen_fd, sv->epoll_fd, sv->timer_fd, sv->signal_fd};
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(fds); i++) {
        if (fds[i] >= 0)
            close(fds[i]);
    }
    if (*sv->socket_path)
        unlink(sv->socket_path);
    for (unsigned i = 0; i < sv->card_count; i++)
        lithos_model_destroy(sv->cards[i].model);
    lithos_costs_free(sv->costs);
}

void server_report(struct server *sv)
{
    if (!sv->stats_path)
        return;
    char *text = report_text(sv);
    int r = text ? lithos_write_file_atomic(sv->stats_path, text, strlen(text), 0644) : -ENOMEM;
    if (r < 0)
        lithos_error("the report cannot be written to %s: %s", sv->stats_path, strerror(-r));
    free(text);
}
