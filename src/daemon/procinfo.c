#include "daemon/procinfo.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fs.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

/* linux/pidfd.h of kernel 6.15: not in the headers of older systems. */
struct pidfd_info_v1 {
    uint64_t mask, cgroupid;
    uint32_t pid, tgid, ppid, ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid;
    int32_t exit_code;
};
#define PIDFD_GET_INFO_V1 _IOWR(0xFF, 11, struct pidfd_info_v1)
#define PIDFD_INFO_EXIT_V1 (1ull << 3)
_Static_assert(sizeof(struct pidfd_info_v1) == 64, "PIDFD_INFO_SIZE_VER0");

int lithosd_process_start(pid_t pid, uint64_t *ret_start)
{
    char path[64], *text;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    if (lithos_read_file(path, 8192, &text, NULL) < 0)
        return -ESRCH;
    /* pid (comm) state ...: comm may hold anything, so count fields from the last parenthesis; start time is field 22 */
    char *p = strrchr(text, ')');
    for (int field = 2; p && field < 22; field++)
        p = strchr(p + 1, ' ');
    if (p)
        *ret_start = strtoull(p + 1, NULL, 10);
    free(text);
    return p ? 0 : -ESRCH;
}

void lithosd_clean_text(char *to, const char *from, size_t size)
{
    size_t i = 0;
    for (; i + 1 < size && from[i]; i++)
        to[i] = (char)(from[i] >= ' ' && from[i] <= '~' ? from[i] : '?');
    to[i] = '\0';
}

char *lithosd_process_name(pid_t pid, char *buf, size_t size)
{
    char path[64], *text;
    snprintf(path, sizeof path, "/proc/%d/comm", (int)pid);
    if (lithos_read_file(path, 256, &text, NULL) < 0) {
        snprintf(buf, size, "?");
        return buf;
    }
    text[strcspn(text, "\n")] = '\0';
    lithosd_clean_text(buf, text, size);
    free(text);
    return buf;
}

int lithosd_process_open(pid_t pid)
{
    int fd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : (errno = ESRCH, -1);
    return fd < 0 ? -errno : fd;
}

int lithosd_process_open_peer(int sock, pid_t pid)
{
    int fd = -1;
    socklen_t size = sizeof fd;
    if (getsockopt(sock, SOL_SOCKET, SO_PEERPIDFD, &fd, &size) == 0 && fd >= 0)
        return fd;
    return lithosd_process_open(pid);
}

bool lithosd_process_ended(int pidfd)
{
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    return poll(&p, 1, 0) > 0;
}

bool lithosd_process_killed(int pidfd)
{
    struct pidfd_info_v1 info = {.mask = PIDFD_INFO_EXIT_V1};
    if (ioctl(pidfd, PIDFD_GET_INFO_V1, &info) < 0 || !(info.mask & PIDFD_INFO_EXIT_V1))
        return true;
    return WIFSIGNALED(info.exit_code);
}

int lithosd_boot_id(char *buf, size_t size)
{
    char *text;
    int r = lithos_read_file("/proc/sys/kernel/random/boot_id", 256, &text, NULL);
    if (r < 0)
        return r;
    text[strcspn(text, "\n")] = '\0';
    snprintf(buf, size, "%s", text);
    free(text);
    return 0;
}
