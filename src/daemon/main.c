/* lithosd */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "daemon/daemon.h"

static int open_log(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0 || dup2(fd, STDERR_FILENO) < 0) {
        int r = -errno;
        lithos_error("cannot write the log %s: %s", path, strerror(-r));
        return r;
    }
    close(fd);
    return 0;
}

/* In the parent: end when clients can connect, or with the daemon's own exit code when it gives up before. */
static _Noreturn void wait_until_ready(int ready_fd, pid_t child)
{
    char byte;
    ssize_t n;
    while ((n = read(ready_fd, &byte, 1)) < 0 && errno == EINTR)
        ;
    if (n == 1)
        _exit(0);
    int status = 0;
    waitpid(child, &status, 0);
    _exit(WIFEXITED(status) && WEXITSTATUS(status) ? WEXITSTATUS(status) : 1);
}

static int go_background(struct lithosd *d)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) < 0)
        return -errno;
    pid_t child = fork();
    if (child < 0)
        return -errno;
    if (child > 0) {
        close(fds[1]);
        wait_until_ready(fds[0], child);
    }
    close(fds[0]);
    d->ready_fd = fds[1];
    setsid();
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0 || chdir("/") < 0)
        return -errno;
    dup2(null, STDIN_FILENO);
    dup2(null, STDOUT_FILENO);
    return 0;
}

static int absolute(char *path, size_t size)
{
    char *full;
    if (path[0] == '/')
        return 0;
    char *cwd = getcwd(NULL, 0);
    int n = cwd ? asprintf(&full, "%s/%s", cwd, path) : -1;
    free(cwd);
    if (n < 0)
        return -ENOMEM;
    int r = (size_t)n < size ? 0 : -ENAMETOOLONG;
    if (r == 0)
        memcpy(path, full, (size_t)n + 1);
    free(full);
    return r;
}

int main(int argc, char **argv)
{
    static struct lithosd d = {.ready_fd = -1};
    lithos_log_set_name("lithosd");
    if (!getenv("LITHOS_LOG"))
        lithos_log_set_threshold(LITHOS_LOG_INFO);
    int r = lithosd_options_parse(argc, argv, &d.options);
    if (r)
        return r > 0 ? 0 : 2;
    /* The daemon changes its folder; what it was told does not. */
    if (absolute(d.options.socket, sizeof d.options.socket) < 0 ||
        absolute(d.options.state_dir, sizeof d.options.state_dir) < 0 ||
        (strchr(d.options.probe, '/') && absolute(d.options.probe, sizeof d.options.probe) < 0)) {
        lithos_error("a path is too long");
        return 2;
    }
    if (d.options.log && open_log(d.options.log) < 0)
        return 1;
    r = d.options.background ? go_background(&d) : 0;
    if (r < 0) {
        lithos_error("cannot go into the background: %s", strerror(-r));
        return 1;
    }
    return lithosd_run(&d);
}
