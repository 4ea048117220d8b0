#include "vgpu/mps/pipe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

const char *vgpu_mps_pipe_dir(void)
{
    const char *dir = getenv("CUDA_MPS_PIPE_DIRECTORY");
    return dir && *dir ? dir : "/tmp/nvidia-mps";
}

int vgpu_mps_pipe_connect(void)
{
    /* By way of the folder's descriptor: a socket address holds 107 bytes, a path many more. */
    int dir = open(vgpu_mps_pipe_dir(), O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return -errno;
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    snprintf(addr.sun_path, sizeof addr.sun_path, "/proc/self/fd/%d/" VGPU_MPS_CONTROL, dir);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    int r = fd < 0 ? -errno : 0;
    if (fd >= 0) {
        while (connect(fd, (struct sockaddr *)&addr, sizeof addr) < 0)
            if (errno != EINTR) {
                r = -errno;
                close(fd);
                break;
            }
    }
    close(dir);
    return r ? r : fd;
}
