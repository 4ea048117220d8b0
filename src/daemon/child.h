/* Programs that the daemon runs without waiting for them: the probe, the MPS control. */
#pragma once

#include <sys/types.h>

#include "daemon/loop.h"

#define LITHOSD_CHILD_ENV_MAX 16

struct lithosd_child_result {
    bool timed_out;  /* it was killed, and all of its process group */
    int exit_code;   /* 128 + signal when one ended it; 127 when it could not be run */
    const char *out; /* standard output, at most 1 MiB, ended */
    const char *err; /* last line of standard error, for messages */
};

typedef void lithosd_child_fn(void *ctx, const struct lithosd_child_result *result);

/* One run at a time; zero it before the first. */
struct lithosd_child {
    struct lithosd_loop *loop;
    bool running, timed_out;
    pid_t pid;
    int out_fd, err_fd;
    struct lithosd_watch watch;
    struct lithosd_timer timer;
    lithosd_child_fn *fn;
    void *ctx;
};

struct lithosd_child_spec {
    const char *const *argv;                /* argv[0] is searched in PATH when it has no slash */
    const char *env[LITHOSD_CHILD_ENV_MAX]; /* "NAME=value" sets, "NAME" removes; ends at NULL */
    const char *input;                      /* standard input, or NULL for none */
    uint64_t timeout_ns;
};

/* Start it; fn(ctx, result) is called once, from the loop. 0, or negative errno and fn is not called. */
int lithosd_child_start(struct lithosd_loop *loop, struct lithosd_child *child,
                        const struct lithosd_child_spec *spec, lithosd_child_fn *fn, void *ctx);
/* End a run that is under way without calling back. */
void lithosd_child_cancel(struct lithosd_child *child);
