/* Programs run by `lithos doctor' and `lithos demo': their output read, their time bounded, ended with us. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* What a child wrote, ended by NUL; at most LITHOS_CHILD_TEXT_MAX bytes are kept. */
#define LITHOS_CHILD_TEXT_MAX (1u << 20)
struct lithos_child_text {
    char *text; /* NULL: nothing yet */
    size_t len;
    int fd;
};

struct lithos_child {
    pid_t pid; /* 0: none, or reaped */
    int in;    /* its standard input, -1 when closed */
    struct lithos_child_text out, err;
};

/* Start argv[0] (sought in PATH). env: NULL-ended list of "NAME=value" to set and "NAME" to remove beside
 * what this process has; NULL for none. The child gets SIGKILL when this process dies. 0 or negative errno
 * (that of exec too). Fill with LITHOS_CHILD_NONE before; release with lithos_child_end. */
#define LITHOS_CHILD_NONE                    \
    {                                        \
        .in = -1, .out.fd = -1, .err.fd = -1 \
    }
int lithos_child_start(struct lithos_child *c, const char *const *argv, const char *const *env);

/* Called between waits: true makes them end early with -EINTR. Set once, before children are started. */
void lithos_child_set_interrupted(bool (*interrupted)(void));

/* Until its standard output holds `text`: 0; -ECHILD when it ended before; -ETIMEDOUT; -EINTR. */
int lithos_child_wait_for(struct lithos_child *c, const char *text, uint64_t deadline_ns);
/* Until it has ended: 0 with its wait status; -ETIMEDOUT; -EINTR. */
int lithos_child_wait(struct lithos_child *c, uint64_t deadline_ns, int *ret_status);
/* Reads for that long, so that a child with much to say does not stop at a full pipe. 0 or -EINTR. */
int lithos_child_sleep(struct lithos_child *c, uint64_t until_ns);
/* Send a line to its standard input. */
int lithos_child_tell(struct lithos_child *c, const char *line);
/* SIGTERM, then SIGKILL after grace_ms; reaps, closes, frees. Also for children that have ended or never
 * started. */
void lithos_child_end(struct lithos_child *c, unsigned grace_ms);

/* Run to the end: 0 with wait status and output (the caller ends `c`), -ETIMEDOUT (killed), or what start
 * returns. */
int lithos_child_run(struct lithos_child *c, const char *const *argv, const char *const *env,
                     uint64_t timeout_ns, int *ret_status);
