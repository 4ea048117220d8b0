/* nvidia-cuda-mps-control of the virtual GPU: -d starts the control in the background, -f in the foreground; without
 * either, commands from standard input go to the control that runs. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vgpu/mps/mps.h"
#include "vgpu/mps/pipe.h"

static int say(const char *text)
{
    char answer[MPS_TEXT_BYTES + 1] = "";
    int fd = vgpu_mps_pipe_connect();
    if (fd < 0) {
        fprintf(stderr, "Cannot find MPS control daemon process\n");
        return 1;
    }
    ssize_t n = send(fd, text, strlen(text), MSG_NOSIGNAL);
    if (n > 0)
        n = recv(fd, answer, sizeof answer - 1, 0);
    close(fd);
    if (n <= 0 || answer[0] != MPS_ANSWER) {
        fprintf(stderr, "Lost the MPS control daemon\n");
        return 1;
    }
    fwrite(answer + 1, 1, (size_t)n - 1, stdout);
    fflush(stdout);
    return 0;
}

static int talk(void)
{
    char line[MPS_TEXT_BYTES];
    int r = 0;
    while (r == 0 && fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\r\n")] = 0;
        const char *text = line + strspn(line, " \t");
        if (*text)
            r = say(text);
    }
    return r;
}

/* In the background once clients may come; the exit code of the parent says whether they may. */
static int detach(void)
{
    int ready[2];
    char byte;
    if (pipe2(ready, O_CLOEXEC)) {
        perror("nvidia-cuda-mps-control: pipe");
        return 1;
    }
    pid_t pid = fork();
    if (pid < 0) {
        perror("nvidia-cuda-mps-control: fork");
        return 1;
    }
    if (pid > 0) {
        close(ready[1]);
        waitpid(pid, NULL, 0);
        return read(ready[0], &byte, 1) == 1 ? 0 : 1;
    }
    close(ready[0]);
    setsid();
    if (fork() != 0)
        _exit(0);
    /* Nothing of the caller's stays open: who reads our output to its end must not wait for us. Errors of the start
     * still go to the caller's standard error, until it is let go of. */
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    dup2(null, 0);
    dup2(null, 1);
    if (ready[1] > 3)
        close_range(3, (unsigned)ready[1] - 1, 0);
    close_range((unsigned)ready[1] + 1, ~0u, 0);
    return mps_control_run(ready[1]) ? 1 : 0;
}

int main(int argc, char **argv)
{
    if (argc == 1)
        return talk();
    if (argc == 2 && !strcmp(argv[1], "-d"))
        return detach();
    if (argc == 2 && !strcmp(argv[1], "-f"))
        return mps_control_run(-1) ? 1 : 0;
    fprintf(stderr,
            "Usage: nvidia-cuda-mps-control [-d | -f]\n"
            "-d starts the virtual GPU's MPS in the background, -f in the foreground; commands are read from "
            "standard input:\nget_server_list, get_server_status PID, get_client_list PID, start_server -uid "
            "UID, shutdown_server PID [-f], quit [-t SECONDS]\n");
    return argc == 2 && (!strcmp(argv[1], "-h") || !strcmp(argv[1], "--help")) ? 0 : 2;
}
