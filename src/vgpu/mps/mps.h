/* The virtual GPU's MPS: a control process, and a server process for each user, as NVIDIA's. The server does nothing
 * but be there: its clients share a virtual card because they name the same server to lithos-vgpud, and learn of its
 * end because their connection to it ends. */
#pragma once

#include <stddef.h>
#include <sys/types.h>

#define MPS_TEXT_BYTES 4096u
/* First byte of an answer to a command, so that an empty answer is no end of file. */
#define MPS_ANSWER '='

/* control.c: serve in this process until `quit` or SIGTERM. 0, or negative errno with a message on standard error.
 * ready: a descriptor to write a byte to when clients may come, or -1. */
int mps_control_run(int ready);

/* server.c: the body of a server process; channel: to the control (SOCK_SEQPACKET; a text, often with a descriptor).
 * Ends the process. */
_Noreturn void mps_server_run(int channel);

/* Control to server: the descriptor beside it is a client's, or a command's connection to be answered. */
#define MPS_TO_SERVER_CLIENT "client"
#define MPS_TO_SERVER_STATUS "status"
#define MPS_TO_SERVER_LIST "list"
/* End when there are no clients any more. */
#define MPS_TO_SERVER_DRAIN "drain"

/* A line of control.log or server.log in $CUDA_MPS_LOG_DIRECTORY. */
void mps_log(const char *file, const char *who, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Text, with fd beside it unless it is -1. 0 or negative errno; never waits. */
int mps_send(int channel, const char *text, int fd);
/* Text into a buffer of MPS_TEXT_BYTES, NUL-ended. Its length, 0 at the end, negative errno. */
ssize_t mps_receive(int channel, char *text, int *ret_fd);
/* The process at the other end. */
pid_t mps_peer(int fd, uid_t *ret_uid);
