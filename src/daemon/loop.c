#include "daemon/loop.h"

#include <errno.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/util.h"

static void set_clock(struct lithosd_loop *loop)
{
    uint64_t earliest_ns = UINT64_MAX;
    for (struct lithosd_timer *t = loop->timers; t; t = t->next)
        earliest_ns = LITHOS_MIN(earliest_ns, t->deadline_ns);
    struct itimerspec spec = {{0, 0}, {0, 0}};
    if (earliest_ns != UINT64_MAX) {
        spec.it_value.tv_sec = (time_t)(earliest_ns / LITHOS_NSEC_PER_SEC);
        spec.it_value.tv_nsec = (long)(earliest_ns % LITHOS_NSEC_PER_SEC);
    }
    lithos_assert(timerfd_settime(loop->clock.fd, TFD_TIMER_ABSTIME, &spec, NULL) == 0);
}

static struct lithosd_timer *due(struct lithosd_loop *loop, uint64_t now_ns)
{
    struct lithosd_timer *first = NULL;
    for (struct lithosd_timer *t = loop->timers; t; t = t->next)
        if (t->deadline_ns <= now_ns && (!first || t->deadline_ns < first->deadline_ns))
            first = t;
    return first;
}

/* A callback may set or cancel any timer, so the list is searched anew after each. Timers set by callbacks lie after
 * now_ns: this ends. */
static void run_timers(void *ctx, uint32_t events)
{
    (void)events;
    struct lithosd_loop *loop = ctx;
    uint64_t expirations, now_ns = lithos_now_ns();
    ssize_t n = read(loop->clock.fd, &expirations, sizeof expirations);
    (void)n; /* EAGAIN when the timer was set again since */
    struct lithosd_timer *t;
    while ((t = due(loop, now_ns))) {
        lithosd_timer_cancel(loop, t);
        t->fn(t->ctx);
    }
    set_clock(loop);
}

int lithosd_loop_init(struct lithosd_loop *loop)
{
    *loop = (struct lithosd_loop){.epoll_fd = epoll_create1(EPOLL_CLOEXEC), .clock.fd = -1};
    if (loop->epoll_fd < 0)
        return -errno;
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    int r = fd < 0 ? -errno : lithosd_watch_add(loop, &loop->clock, fd, EPOLLIN, run_timers, loop);
    if (r < 0) {
        if (fd >= 0)
            close(fd);
        close(loop->epoll_fd);
    }
    return r;
}

void lithosd_loop_finish(struct lithosd_loop *loop)
{
    int fd = loop->clock.fd;
    lithosd_watch_remove(loop, &loop->clock);
    close(fd);
    close(loop->epoll_fd);
}

/* One event at a time: a callback may remove any watch, and no event fetched earlier may then name it. */
int lithosd_loop_run(struct lithosd_loop *loop)
{
    while (!loop->stop) {
        struct epoll_event event;
        int n = epoll_wait(loop->epoll_fd, &event, 1, loop->poll ? 0 : -1);
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n == 1) {
            struct lithosd_watch *watch = event.data.ptr;
            watch->fn(watch->ctx, event.events);
        }
        if (loop->poll && !loop->stop)
            loop->poll(loop->poll_ctx);
    }
    return 0;
}

void lithosd_loop_poll(struct lithosd_loop *loop, lithosd_timer_fn *fn, void *ctx)
{
    loop->poll = fn;
    loop->poll_ctx = ctx;
}

int lithosd_watch_add(struct lithosd_loop *loop, struct lithosd_watch *watch, int fd, uint32_t epoll_events,
                      lithosd_watch_fn *fn, void *ctx)
{
    struct epoll_event event = {.events = epoll_events, .data.ptr = watch};
    *watch = (struct lithosd_watch){fd, fn, ctx};
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0)
        return 0;
    watch->fd = -1;
    return -errno;
}

void lithosd_watch_modify(struct lithosd_loop *loop, struct lithosd_watch *watch, uint32_t epoll_events)
{
    struct epoll_event event = {.events = epoll_events, .data.ptr = watch};
    lithos_assert(epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, watch->fd, &event) == 0);
}

void lithosd_watch_remove(struct lithosd_loop *loop, struct lithosd_watch *watch)
{
    if (watch->fd < 0)
        return;
    lithos_assert(epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, watch->fd, NULL) == 0);
    watch->fd = -1;
}

void lithosd_timer_set(struct lithosd_loop *loop, struct lithosd_timer *timer, uint64_t after_ns,
                       lithosd_timer_fn *fn, void *ctx)
{
    timer->deadline_ns = lithos_now_ns() + LITHOS_MAX(after_ns, 1ull);
    timer->fn = fn;
    timer->ctx = ctx;
    if (!timer->armed) {
        timer->armed = true;
        timer->next = loop->timers;
        loop->timers = timer;
    }
    set_clock(loop);
}

void lithosd_timer_cancel(struct lithosd_loop *loop, struct lithosd_timer *timer)
{
    if (!timer->armed)
        return;
    struct lithosd_timer **link = &loop->timers;
    while (*link != timer)
        link = &(*link)->next;
    *link = timer->next;
    timer->armed = false;
    set_clock(loop);
}
