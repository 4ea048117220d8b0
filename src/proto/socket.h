/* Reaching lithosd. All calls are bounded by their timeout; none raises SIGPIPE. */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "proto/message.h"

/* The daemon's socket: $LITHOS_SOCKET, else /run/lithos/lithosd.sock for root, else
 * $XDG_RUNTIME_DIR/lithos/lithosd.sock, else /tmp/lithos-UID/lithosd.sock. 0 or -ENAMETOOLONG. */
int lithos_socket_path(char *buf, size_t size);

/* Connected SOCK_SEQPACKET socket, close-on-exec. Negative errno: -ENOENT or -ECONNREFUSED when no daemon runs,
 * -ETIMEDOUT. */
int lithos_socket_connect(const char *path, uint64_t timeout_ns, int *ret_fd);
/* Send one message (its header's size), with a file descriptor when fd >= 0. */
int lithos_socket_send(int sock, const union lithos_message *m, int fd, uint64_t timeout_ns);
/* Receive and validate one message; ret_fd (may be NULL) gets the descriptor that came with it, else -1; descriptors
 * nobody asked for are closed. -ECONNRESET at the end of the connection, -ETIMEDOUT, else lithos_message_validate's. */
int lithos_socket_receive(int sock, union lithos_message *ret_m, int *ret_fd, uint64_t timeout_ns);
/* Send, receive the answer. A LITHOS_MSG_ERROR answer is returned as a message, not as an error. */
int lithos_socket_call(int sock, const union lithos_message *request, union lithos_message *ret_answer,
                       int *ret_fd, uint64_t timeout_ns);
/* Peer's pid, uid and gid by SO_PEERCRED. */
int lithos_socket_peer(int sock, pid_t *ret_pid, uid_t *ret_uid, gid_t *ret_gid);

/* LITHOS_TENANT in a tenant's environment: "ID:TOKEN", hexadecimal. Returns text / 0 or -EINVAL. */
#define LITHOS_TENANT_TEXT_MAX 64u
char *lithos_tenant_format(uint64_t tenant, const uint8_t token[LITHOS_TOKEN_BYTES],
                           char text[LITHOS_TENANT_TEXT_MAX]);
int lithos_tenant_parse(const char *text, uint64_t *ret_tenant, uint8_t ret_token[LITHOS_TOKEN_BYTES]);

/* "GPU-8f8b...": text of a UUID, and back (with or without "GPU-"). */
#define LITHOS_UUID_TEXT_MAX 41u
char *lithos_uuid_format(const uint8_t uuid[LITHOS_UUID_BYTES], char text[LITHOS_UUID_TEXT_MAX]);
int lithos_uuid_parse(const char *text, uint8_t ret_uuid[LITHOS_UUID_BYTES]);
