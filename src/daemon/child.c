#include "daemon/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"

#define OUT_MAX (1u << 20)
#define ERR_MAX 4096u

/* Standard output goes to a memfd and not to a pipe: a program that leaves a daemon behind (MPS) would hold a pipe
 * open for ever, and one that writes much would need to be read while it runs. */
static int make_stream(const char *text)
{
    int fd = memfd_create("lithosd-child", MFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (text && (write(fd, text, strlen(text)) != (ssize_t)strlen(text) || lseek(fd, 0, SEEK_SET) != 0)) {
        close(fd);
        return -EIO;
    }
    return fd;
}

static _Noreturn void run_program(const struct lithosd_child_spec *spec, int in_fd, int out_fd, int err_fd)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (dup2(in_fd, 0) < 0 || dup2(out_fd, 1) < 0 || dup2(err_fd, 2) < 0)
        _exit(127);
    for (size_t i = 0; i < LITHOSD_CHILD_ENV_MAX && spec->env[i]; i++) {
        if (strchr(spec->env[i], '='))
            putenv((char *)spec->env[i]);
        else
            unsetenv(spec->env[i]);
    }
    execvp(spec->argv[0], (char *const *)spec->argv);
    dprintf(2, "%s: %s\n", spec->argv[0], strerror(errno));
    _exit(127);
}

static char *read_stream(int fd, size_t max_bytes, bool tail)
{
    struct stat st;
    size_t size = fstat(fd, &st) == 0 ? (size_t)st.st_size : 0, len = LITHOS_MIN(size, max_bytes);
    char *text = malloc(len + 1);
    if (!text)
        return NULL;
    ssize_t n = pread(fd, text, len, tail ? (off_t)(size - len) : 0);
    text[n > 0 ? n : 0] = '\0';
    return text;
}

/* The last line that says something. */
static const char *last_line(char *text)
{
    size_t len = strlen(text);
    while (len && (text[len - 1] == '\n' || text[len - 1] == ' '))
        text[--len] = '\0';
    char *newline = strrchr(text, '\n');
    return newline ? newline + 1 : text;
}

static void forget(struct lithosd_child *child)
{
    int fd = child->watch.fd;
    lithosd_timer_cancel(child->loop, &child->timer);
    lithosd_watch_remove(child->loop, &child->watch);
    close(fd);
    close(child->out_fd);
    close(child->err_fd);
    child->running = false;
}

static void ended(void *ctx, uint32_t events)
{
    (void)events;
    struct lithosd_child *child = ctx;
    int status = 0;
    if (waitpid(child->pid, &status, WNOHANG) != child->pid)
        return;
    char *out = read_stream(child->out_fd, OUT_MAX, false), *err = read_stream(child->err_fd, ERR_MAX, true);
    forget(child);
    struct lithosd_child_result result = {
        .timed_out = child->timed_out,
        .exit_code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status),
        .out = out ? out : "",
        .err = err ? last_line(err) : "",
    };
    child->fn(child->ctx, &result);
    free(out);
    free(err);
}

static void too_late(void *ctx)
{
    struct lithosd_child *child = ctx;
    child->timed_out = true;
    kill(-child->pid, SIGKILL);
    kill(child->pid, SIGKILL); /* its end comes through the pidfd */
}

static int watch_child(struct lithosd_loop *loop, struct lithosd_child *child)
{
    int fd = (int)syscall(SYS_pidfd_open, child->pid, 0);
    int r = fd < 0 ? -errno : lithosd_watch_add(loop, &child->watch, fd, EPOLLIN, ended, child);
    if (r < 0) {
        kill(child->pid, SIGKILL);
        waitpid(child->pid, NULL, 0);
        if (fd >= 0)
            close(fd);
    }
    return r;
}

int lithosd_child_start(struct lithosd_loop *loop, struct lithosd_child *child,
                        const struct lithosd_child_spec *spec, lithosd_child_fn *fn, void *ctx)
{
    if (child->running)
        return -EBUSY;
    *child = (struct lithosd_child){.loop = loop, .fn = fn, .ctx = ctx, .watch.fd = -1};
    int in_fd = make_stream(spec->input), out_fd = make_stream(NULL), err_fd = make_stream(NULL);
    int r = LITHOS_MIN(in_fd, LITHOS_MIN(out_fd, err_fd));
    if (r >= 0) {
        child->pid = fork();
        if (child->pid == 0)
            run_program(spec, in_fd, out_fd, err_fd);
        r = child->pid < 0 ? -errno : watch_child(loop, child);
    }
    if (in_fd >= 0)
        close(in_fd);
    if (r < 0) {
        if (out_fd >= 0)
            close(out_fd);
        if (err_fd >= 0)
            close(err_fd);
        return r;
    }
    child->out_fd = out_fd;
    child->err_fd = err_fd;
    child->running = true;
    lithosd_timer_set(loop, &child->timer, spec->timeout_ns, too_late, child);
    return 0;
}

void lithosd_child_cancel(struct lithosd_child *child)
{
    if (!child->running)
        return;
    kill(-child->pid, SIGKILL);
    kill(child->pid, SIGKILL);
    waitpid(child->pid, NULL, 0);
    forget(child);
}
