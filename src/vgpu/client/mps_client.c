#include "vgpu/client/mps_client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "vgpu/mps/pipe.h"

#define ANSWER_TIMEOUT_MS 60000

CUresult vgpu_mps_connect(int *ret_fd, uint64_t *ret_domain)
{
    *ret_fd = -1;
    *ret_domain = 0;
    int fd = vgpu_mps_pipe_connect();
    if (fd < 0)
        return CUDA_SUCCESS;
    static const char hello[] = VGPU_MPS_CLIENT_HELLO;
    char answer[128];
    struct pollfd pfd = {.fd = fd, .events = POLLIN};
    ssize_t n = send(fd, hello, sizeof hello - 1, MSG_NOSIGNAL);
    if (n > 0 && poll(&pfd, 1, ANSWER_TIMEOUT_MS) == 0) {
        lithos_error(
            "virtual GPU: the MPS server gives no answer: restart it (echo quit | nvidia-cuda-mps-control)");
        close(fd);
        return CUDA_ERROR_MPS_SERVER_NOT_READY;
    }
    if (n > 0)
        n = recv(fd, answer, sizeof answer - 1, 0);
    unsigned long long server = 0;
    answer[n > 0 ? n : 0] = 0;
    if (sscanf(answer, VGPU_MPS_CLIENT_WELCOME " %llu", &server) != 1) {
        lithos_error("virtual GPU: MPS lets no client in%s%s", n > 0 ? ": " : "", answer);
        close(fd);
        return CUDA_ERROR_MPS_CONNECTION_FAILED;
    }
    *ret_fd = fd;
    *ret_domain = server;
    return CUDA_SUCCESS;
}
