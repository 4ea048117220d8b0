/* "lithos-vgpud … -- command": the command finds the virtual GPU by its environment, and its end is the server's. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "vgpu/server/server.h"

#define PATH_ROOM 4096

static int prepend(const char *name, const char *folder)
{
    char text[2 * PATH_ROOM];
    const char *old = getenv(name);
    int n = snprintf(text, sizeof text, "%s%s%s", folder, old && *old ? ":" : "", old ? old : "");
    if (n < 0 || (size_t)n >= sizeof text)
        return -ENAMETOOLONG;
    return setenv(name, text, 1) < 0 ? -errno : 0;
}

/* Siblings: lib/lithos/vgpu and libexec/lithos/vgpu of the tree that this program lies in (libexec/lithos). */
static int set_environment(const struct server *sv)
{
    char here[PATH_ROOM / 2], lib[PATH_ROOM], bin[PATH_ROOM], cuda[PATH_ROOM + 16], nvml[PATH_ROOM + 24],
        daemon[PATH_ROOM];
    int r = lithos_program_dir(here, sizeof here);
    if (r < 0)
        return r;
    snprintf(lib, sizeof lib, "%s/../../lib/lithos/vgpu", here);
    snprintf(bin, sizeof bin, "%s/vgpu", here);
    snprintf(cuda, sizeof cuda, "%s/libcuda.so.1", lib);
    snprintf(nvml, sizeof nvml, "%s/libnvidia-ml.so.1", lib);
    if (setenv("LITHOS_VGPU_SOCKET", sv->socket_path, 1) < 0 || setenv("LITHOS_LIBCUDA", cuda, 1) < 0 ||
        setenv("LITHOS_LIBNVML", nvml, 1) < 0)
        return -errno;
    /* A lithosd that knows these cards must not answer those who look for the machine's, nor the other way round. */
    snprintf(daemon, sizeof daemon, "%s.lithosd", sv->socket_path);
    if (setenv("LITHOS_SOCKET", daemon, 0) < 0)
        return -errno;
    r = prepend("LD_LIBRARY_PATH", lib);
    return r < 0 ? r : prepend("PATH", bin);
}

int child_start(struct server *sv, char **argv)
{
    pid_t parent = getpid(), pid = fork();
    if (pid < 0) {
        lithos_error("no process for %s: %s", argv[0], strerror(errno));
        return 126;
    }
    if (pid > 0) {
        sv->child = pid;
        return 0;
    }
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    prctl(PR_SET_TIMERSLACK, 0ul);
    /* without its cards it would only wait */
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        _exit(126);
    int r = set_environment(sv);
    if (r < 0) {
        lithos_error("the environment of %s cannot be set: %s", argv[0], strerror(-r));
        _exit(126);
    }
    execvp(argv[0], argv);
    r = errno == ENOENT ? 127 : 126;
    lithos_error("%s cannot be run: %s", argv[0], strerror(errno));
    _exit(r);
}

void child_signal(struct server *sv, int signo)
{
    kill(sv->child, signo);
}

bool child_reap(struct server *sv)
{
    int status;
    if (!sv->child || waitpid(sv->child, &status, WNOHANG) != sv->child)
        return false;
    sv->child = 0;
    sv->exit_code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    return true;
}
