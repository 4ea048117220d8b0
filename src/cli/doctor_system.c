#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "cli/client.h"
#include "cli/doctor.h"
#include "cli/document.h"
#include "cli/elf_needed.h"

void lithos_doctor_installation(struct lithos_doctor *d)
{
    static const char *const programs[] = {"bin/lithosd", "libexec/lithos/lithos-probe"};
    char path[4200];
    unsigned bad = 0;

    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(programs); i++) {
        snprintf(path, sizeof(path), "%s/%s", d->base, programs[i]);
        if (access(path, X_OK) == 0)
            continue;
        lithos_doctor_report(d, LITHOS_FINDING_FAIL, "installation", "install LithOS again, all of it",
                             "%s: %s", path, strerror(errno));
        bad++;
    }
    if (strpbrk(d->base, ": \t\n")) {
        lithos_doctor_report(d, LITHOS_FINDING_FAIL, "installation",
                             "move it: LD_PRELOAD cannot hold such a path",
                             "%s has a blank or colon in its name", d->base);
        bad++;
    }
    if (!bad)
        lithos_doctor_report(d, LITHOS_FINDING_OK, "installation", NULL, "whole, at %s", d->base);
}

static void library_path(const struct lithos_doctor *d, char *path, size_t size)
{
    snprintf(path, size, "%s/lib/lithos/liblithos.so", d->base);
}

void lithos_doctor_library(struct lithos_doctor *d)
{
    char path[4200], names[512], odd[512] = "";
    library_path(d, path, sizeof(path));
    int r = lithos_elf_needed(path, names, sizeof(names));

    if (r < 0) {
        lithos_doctor_report(d, LITHOS_FINDING_FAIL, "liblithos", "install LithOS again", "%s: %s", path,
                             strerror(-r));
        return;
    }
    for (char *save, *name = strtok_r(names, " ", &save); name; name = strtok_r(NULL, " ", &save))
        if (strncmp(name, "libc.so", 7) && strncmp(name, "ld-linux", 8))
            snprintf(odd + strlen(odd), sizeof(odd) - strlen(odd), "%s%s", *odd ? ", " : "", name);
    if (*odd)
        lithos_doctor_report(d, LITHOS_FINDING_WARN, "liblithos",
                             "use a release build: what it needs, each tenant needs",
                             "needs more than libc: %s", odd);
    else
        lithos_doctor_report(d, LITHOS_FINDING_OK, "liblithos", NULL, "needs nothing but libc");
}

/* Run this program again with the library preloaded and look at what the loader mapped. */
void lithos_doctor_preload(struct lithos_doctor *d)
{
    char path[4200], real[4200], preload[4300];
    const char *const argv[] = {"/proc/self/exe", "doctor", "--print-maps", NULL};
    const char *const env[] = {preload, NULL};
    struct lithos_child c = LITHOS_CHILD_NONE;
    int status = 0;

    library_path(d, path, sizeof(path));
    if (!realpath(path, real))
        return; /* said by lithos_doctor_library */
    snprintf(preload, sizeof(preload), "LD_PRELOAD=%s", real);
    int r = lithos_child_run(&c, argv, env, 10 * LITHOS_NSEC_PER_SEC, &status);
    if (r < 0)
        lithos_doctor_report(d, LITHOS_FINDING_FAIL, "LD_PRELOAD", NULL,
                             "a program with liblithos.so did not end: %s", strerror(-r));
    else if (status == 0 && c.out.text && strstr(c.out.text, real))
        lithos_doctor_report(d, LITHOS_FINDING_OK, "LD_PRELOAD", NULL,
                             "the loader puts liblithos.so into programs");
    else
        lithos_doctor_report(
            d, LITHOS_FINDING_FAIL, "LD_PRELOAD",
            "LithOS needs it: a loader or security module that ignores LD_PRELOAD cannot be used",
            "liblithos.so did not come into a program%s%s", c.err.text ? ": " : "",
            lithos_first_line(c.err.text));
    lithos_child_end(&c, 0);
}

void lithos_doctor_kernel(struct lithos_doctor *d)
{
    struct utsname u;
    int memfd = memfd_create("lithos-doctor", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int memfd_errno = errno, pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0), pidfd_errno = errno;

    uname(&u);
    if (memfd < 0)
        lithos_doctor_report(d, LITHOS_FINDING_FAIL, "kernel",
                             "use Linux 5.4 or newer, and let memfd_create through seccomp",
                             "memfd_create: %s", strerror(memfd_errno));
    if (pidfd < 0)
        lithos_doctor_report(
            d, LITHOS_FINDING_WARN, "kernel",
            "use Linux 5.4 or newer, and let pidfd_open through seccomp: a killed tenant is seen later "
            "without it",
            "pidfd_open: %s", strerror(pidfd_errno));
    if (memfd >= 0 && pidfd >= 0)
        lithos_doctor_report(d, LITHOS_FINDING_OK, "kernel", NULL, "%s has memfd and pidfd", u.release);
    if (memfd >= 0)
        close(memfd);
    if (pidfd >= 0)
        close(pidfd);
}

void lithos_doctor_environment(struct lithos_doctor *d)
{
    const char *injection = getenv("CUDA_INJECTION64_PATH"), *hook = getenv("LITHOS_HOOK");

    if (injection && !strstr(injection, "liblithos"))
        lithos_doctor_report(d, LITHOS_FINDING_WARN, "environment",
                             "unset it unless you mean to profile or debug",
                             "CUDA_INJECTION64_PATH=%s: two tools may want the same hook", injection);
    if (hook && !strcmp(hook, "off"))
        lithos_doctor_report(d, LITHOS_FINDING_WARN, "environment", "unset it to have TPC masks",
                             "LITHOS_HOOK=off: `lithos run' holds quotas coarsely");
    if (getenv("LITHOS_TENANT"))
        lithos_doctor_report(d, LITHOS_FINDING_WARN, "environment", "run it outside `lithos run'",
                             "this runs inside a tenant: what it sees is the tenant's");
}

static const char *find_in_path(const char *name, char *buf, size_t size)
{
    const char *path = getenv("PATH");

    for (const char *p = path ? path : "/usr/local/bin:/usr/bin:/bin"; *p;) {
        size_t len = strcspn(p, ":");
        snprintf(buf, size, "%.*s/%s", (int)len, p, name);
        if (len && access(buf, X_OK) == 0)
            return buf;
        p += len + (p[len] == ':');
    }
    return NULL;
}

void lithos_doctor_mps(struct lithos_doctor *d)
{
    char control[4096], pipe[4200];
    const char *dir = getenv("CUDA_MPS_PIPE_DIRECTORY");
    struct stat st;

    if (!find_in_path("nvidia-cuda-mps-control", control, sizeof(control))) {
        lithos_doctor_report(
            d, LITHOS_FINDING_WARN, "MPS",
            "install it (package nvidia-compute-utils or cuda-mps of your driver's version)",
            "there is no nvidia-cuda-mps-control in PATH: tenants take turns instead of running side by "
            "side");
        return;
    }
    snprintf(pipe, sizeof(pipe), "%s/control", dir && *dir ? dir : "/tmp/nvidia-mps");
    if (stat(pipe, &st) < 0)
        lithos_doctor_report(d, LITHOS_FINDING_OK, "MPS", NULL,
                             "%s; none runs at %.*s, lithosd starts its own", control,
                             (int)(strrchr(pipe, '/') - pipe), pipe);
    else if (st.st_uid != geteuid() && geteuid() != 0)
        lithos_doctor_report(d, LITHOS_FINDING_WARN, "MPS",
                             "ask its owner to end it (echo quit | nvidia-cuda-mps-control), or be that user",
                             "one at %s belongs to uid %u: its server may refuse your programs", pipe,
                             (unsigned)st.st_uid);
    else
        lithos_doctor_report(d, LITHOS_FINDING_OK, "MPS", NULL, "%s; one of uid %u is at %s and will be used",
                             control, (unsigned)st.st_uid, pipe);
}

static void report_running(struct lithos_doctor *d, int sock)
{
    pid_t pid = 0;
    uid_t uid = 0;
    gid_t gid = 0;
    json_t *document;

    lithos_socket_peer(sock, &pid, &uid, &gid);
    if (lithos_client_document(sock, &document) < 0) {
        lithos_doctor_report(d, LITHOS_FINDING_FAIL, "daemon",
                             "stop it (kill its pid) and let `lithos run' start another",
                             "lithosd at %s (pid %d) does not answer", d->socket, (int)pid);
        return;
    }
    lithos_doctor_report(d, LITHOS_FINDING_OK, "daemon", NULL,
                         "lithosd at %s, pid %d, uid %u, %zu GPUs, %zu tenants", d->socket, (int)pid,
                         (unsigned)uid, json_array_size(json_object_get(document, "gpus")),
                         json_array_size(json_object_get(document, "tenants")));
    const json_t *mps = json_object_get(document, "mps");
    const char *error = lithos_json_string(mps, "error");
    if (*error)
        lithos_doctor_report(d, LITHOS_FINDING_WARN, "daemon",
                             "tenants take turns until MPS works: see lithosd's log",
                             "its MPS does not work: %s", error);
    json_decref(document);
}

void lithos_doctor_daemon(struct lithos_doctor *d)
{
    struct stat st;
    int sock, r = lithos_socket_connect(d->socket, 5 * LITHOS_NSEC_PER_SEC, &sock);

    if (r == 0) {
        report_running(d, sock);
        close(sock);
    } else if (r == -ENOENT || r == -ECONNREFUSED) {
        lithos_doctor_report(d, LITHOS_FINDING_OK, "daemon", NULL, "none runs at %s; `lithos run' starts one",
                             d->socket);
    } else if (r == -EACCES || r == -EPERM) {
        bool known = stat(d->socket, &st) == 0;
        lithos_doctor_report(d, LITHOS_FINDING_FAIL, "daemon",
                             "use one of your own: set LITHOS_SOCKET to a path you may write",
                             "permission denied at %s%s", d->socket, known ? ": it is another user's" : "");
    } else {
        lithos_doctor_report(d, LITHOS_FINDING_FAIL, "daemon", "end it and let `lithos run' start another",
                             "lithosd at %s cannot be reached: %s", d->socket, strerror(-r));
    }
}
