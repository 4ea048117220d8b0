/* The daemon's event loop: file descriptors and timers, one callback at a time. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

typedef void lithosd_watch_fn(void *ctx, uint32_t epoll_events);
typedef void lithosd_timer_fn(void *ctx);

/* A file descriptor under watch. The owner keeps it alive until lithosd_watch_remove; fd is -1 when not watched. */
struct lithosd_watch {
    int fd;
    lithosd_watch_fn *fn;
    void *ctx;
};

struct lithosd_timer {
    uint64_t deadline_ns;
    lithosd_timer_fn *fn;
    void *ctx;
    struct lithosd_timer *next;
    bool armed;
};

struct lithosd_loop {
    int epoll_fd;
    struct lithosd_watch clock; /* a timerfd set to the earliest timer */
    struct lithosd_timer *timers;
    lithosd_timer_fn *poll; /* NULL: none */
    void *poll_ctx;
    bool stop;
};

/* 0 or negative errno. */
int lithosd_loop_init(struct lithosd_loop *loop);
void lithosd_loop_finish(struct lithosd_loop *loop);
/* Call back until loop->stop is set. 0 or negative errno of epoll. */
int lithosd_loop_run(struct lithosd_loop *loop);

/* From now on fn(ctx) again and again, one callback for a descriptor or the timers between two of it, without a sleep; NULL: no more. */
void lithosd_loop_poll(struct lithosd_loop *loop, lithosd_timer_fn *fn, void *ctx);

int lithosd_watch_add(struct lithosd_loop *loop, struct lithosd_watch *watch, int fd, uint32_t epoll_events,
                      lithosd_watch_fn *fn, void *ctx);
void lithosd_watch_modify(struct lithosd_loop *loop, struct lithosd_watch *watch, uint32_t epoll_events);
/* No callback for it comes after this. Does not close the descriptor. Nothing when it is not watched. */
void lithosd_watch_remove(struct lithosd_loop *loop, struct lithosd_watch *watch);

/* (Re)arm: fn(ctx) once, this long from now. */
void lithosd_timer_set(struct lithosd_loop *loop, struct lithosd_timer *timer, uint64_t after_ns,
                       lithosd_timer_fn *fn, void *ctx);
void lithosd_timer_cancel(struct lithosd_loop *loop, struct lithosd_timer *timer);
