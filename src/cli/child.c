#include "cli/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"

static bool (*is_interrupted)(void);

void lithos_child_set_interrupted(bool (*interrupted)(void))
{
    is_interrupted = interrupted;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void apply_env(const char *const *env)
{
    for (; env && *env; env++) {
        if (strchr(*env, '='))
            putenv((char *)*env);
        else
            unsetenv(*env);
    }
}

/* In the child. Errors of exec travel through the pipe, which exec closes. */
static void become(const char *const *argv, const char *const *env, const int fds[3], int error_fd,
                   pid_t parent)
{
    sigset_t none;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(127);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setpgid(0, 0); /* Ctrl-C is for the parent, which then ends its children in order */
    signal(SIGPIPE, SIG_DFL);
    for (int i = 0; i < 3; i++)
        if (dup2(fds[i], i) < 0)
            _exit(127);
    apply_env(env);
    execvp(argv[0], (char *const *)argv);
    int error = errno;
    ssize_t n = write(error_fd, &error, sizeof(error));
    _exit(n == sizeof(error) ? 127 : 126);
}

int lithos_child_start(struct lithos_child *c, const char *const *argv, const char *const *env)
{
    int pipes[4][2], error = 0, made = 0; /* stdin, stdout, stderr, errors of exec */

    for (; made < 4; made++) {
        if (pipe2(pipes[made], O_CLOEXEC) < 0) {
            error = errno;
            goto out;
        }
    }
    pid_t parent = getpid(), pid = fork();
    if (pid < 0) {
        error = errno;
        goto out;
    }
    if (pid == 0) {
        const int fds[3] = {pipes[0][0], pipes[1][1], pipes[2][1]};
        become(argv, env, fds, pipes[3][1], parent);
    }
    close_fd(&pipes[3][1]);
    if (read(pipes[3][0], &error, sizeof(error)) == sizeof(error)) {
        waitpid(pid, NULL, 0);
        goto out;
    }
    error = 0;
    *c = (struct lithos_child){.pid = pid, .in = pipes[0][1], .out.fd = pipes[1][0], .err.fd = pipes[2][0]};
    fcntl(c->out.fd, F_SETFL, O_NONBLOCK);
    fcntl(c->err.fd, F_SETFL, O_NONBLOCK);
    pipes[0][1] = pipes[1][0] = pipes[2][0] = -1;
out:
    for (int i = 0; i < made; i++) {
        close_fd(&pipes[i][0]);
        close_fd(&pipes[i][1]);
    }
    return -error;
}

static void pump_one(struct lithos_child_text *t)
{
    char buf[4096];
    ssize_t n;

    while (t->fd >= 0 && (n = read(t->fd, buf, sizeof(buf))) != -1) {
        if (n == 0) {
            close_fd(&t->fd);
            return;
        }
        size_t keep = LITHOS_MIN((size_t)n, LITHOS_CHILD_TEXT_MAX - t->len);
        char *text = realloc(t->text, t->len + keep + 1);
        if (!text)
            return;
        memcpy(text + t->len, buf, keep);
        t->text = text;
        t->len += keep;
        text[t->len] = 0;
    }
}

/* Read what there is, waiting at most some 50 ms for it. False when both outputs are at their end. */
static bool pump(struct lithos_child *c, uint64_t until_ns)
{
    struct pollfd p[2] = {{.fd = c->out.fd, .events = POLLIN}, {.fd = c->err.fd, .events = POLLIN}};
    uint64_t now_ns = lithos_now_ns(), wait_ns = until_ns > now_ns ? until_ns - now_ns : 0;

    poll(p, 2, (int)(LITHOS_MIN(wait_ns, 50 * LITHOS_NSEC_PER_MSEC) / LITHOS_NSEC_PER_MSEC));
    pump_one(&c->out);
    pump_one(&c->err);
    return c->out.fd >= 0 || c->err.fd >= 0;
}

static bool interrupted(void)
{
    return is_interrupted && is_interrupted();
}

int lithos_child_wait_for(struct lithos_child *c, const char *text, uint64_t deadline_ns)
{
    for (;;) {
        bool open = pump(c, deadline_ns);
        if (c->out.text && strstr(c->out.text, text))
            return 0;
        if (!open)
            return -ECHILD;
        if (interrupted())
            return -EINTR;
        if (lithos_now_ns() >= deadline_ns)
            return -ETIMEDOUT;
    }
}

/* A grandchild may hold the pipes open after the child has ended, so the end is the child's, not the pipes'.
 */
int lithos_child_wait(struct lithos_child *c, uint64_t deadline_ns, int *ret_status)
{
    for (;;) {
        bool open = pump(c, deadline_ns);
        pid_t r = waitpid(c->pid, ret_status, WNOHANG);
        if (r == c->pid) {
            pump(c, 0);
            c->pid = 0;
            return 0;
        }
        if (r < 0 && errno != EINTR)
            return -errno;
        if (interrupted())
            return -EINTR;
        if (lithos_now_ns() >= deadline_ns)
            return -ETIMEDOUT;
        if (!open)
            usleep(1000); /* closed its outputs and lives on */
    }
}

int lithos_child_sleep(struct lithos_child *c, uint64_t until_ns)
{
    while (lithos_now_ns() < until_ns) {
        if (!pump(c, until_ns))
            usleep(10000);
        if (interrupted())
            return -EINTR;
    }
    return 0;
}

int lithos_child_tell(struct lithos_child *c, const char *line)
{
    size_t len = strlen(line);

    /* Fits in the pipe's buffer; a child that has gone must not take us along. */
    signal(SIGPIPE, SIG_IGN);
    return c->in >= 0 && write(c->in, line, len) == (ssize_t)len ? 0 : -EPIPE;
}

void lithos_child_end(struct lithos_child *c, unsigned grace_ms)
{
    if (c->pid > 0) {
        uint64_t deadline_ns = lithos_now_ns() + grace_ms * LITHOS_NSEC_PER_MSEC;
        kill(c->pid, SIGTERM);
        while (waitpid(c->pid, NULL, WNOHANG) == 0) {
            if (lithos_now_ns() >= deadline_ns) {
                kill(-c->pid, SIGKILL); /* with what it started; its group is set before exec */
                kill(c->pid, SIGKILL);
                waitpid(c->pid, NULL, 0);
                break;
            }
            if (!pump(c, lithos_now_ns() + 10 * LITHOS_NSEC_PER_MSEC))
                usleep(2000);
        }
    }
    close_fd(&c->in);
    close_fd(&c->out.fd);
    close_fd(&c->err.fd);
    free(c->out.text);
    free(c->err.text);
    *c = (struct lithos_child)LITHOS_CHILD_NONE;
}

int lithos_child_run(struct lithos_child *c, const char *const *argv, const char *const *env,
                     uint64_t timeout_ns, int *ret_status)
{
    int r = lithos_child_start(c, argv, env);

    if (r < 0)
        return r;
    close_fd(&c->in);
    r = lithos_child_wait(c, lithos_now_ns() + timeout_ns, ret_status);
    if (r < 0 && c->pid > 0) {
        kill(c->pid, SIGKILL);
        waitpid(c->pid, NULL, 0);
        c->pid = 0;
    }
    return r;
}
