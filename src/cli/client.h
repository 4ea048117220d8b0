/* Talking to lithosd. Functions that fail have said why on standard error, in words for people; their
 * negative errno is for the caller's decisions only. */
#pragma once

#include <jansson.h>

#include "proto/message.h"
#include "proto/socket.h"

/* How long a daemon that has just been started may take to answer: the first probe of a card takes seconds.
 */
#define LITHOS_CLIENT_PATIENCE_NS (70ull * 1000000000ull)

/* The socket's path, absolute: `option` where it is not NULL, else lithos_socket_path's. */
int lithos_client_path(const char *option, char path[LITHOS_PATH_BYTES]);

/* The options of a subcommand that has one flag (ret_flag), --socket and --help, and no other words. -1: go on, with path as
 * lithos_client_path makes it; else the exit code. */
int lithos_client_options(int argc, char **argv, const char *help, const char *flag, bool *ret_flag,
                          char path[LITHOS_PATH_BYTES]);

/* Connect to a daemon that should be running. quiet: say nothing when none runs (-ENOENT, -ECONNREFUSED). */
int lithos_client_connect(const char *path, bool quiet, int *ret_sock);

/* Start bin/lithosd --idle-exit 60 in a session of its own and connect to it. mps: "on", "off" or NULL for
 * its own choice. Says what it waits for when that takes over a second; -ETIMEDOUT after
 * LITHOS_CLIENT_PATIENCE_NS; when the daemon ends at once its own message is shown. */
int lithos_client_start_daemon(const char *path, const char *mps, int *ret_sock);

/* Ask, and wait for the answer, with a word to the user when it takes over a second. An answer of
 * LITHOS_MSG_ERROR is printed and returned as its errno; one that is not of type `expected` is -EPROTO.
 * ret_fd may be NULL. */
int lithos_client_ask(int sock, const union lithos_message *request, enum lithos_msg_type expected,
                      union lithos_message *ret_answer, int *ret_fd);

/* A document asked for. The caller owns it (json_decref). */
int lithos_client_ask_document(int sock, const union lithos_message *request, json_t **ret_document);

/* The status document. The same. */
int lithos_client_document(int sock, json_t **ret_document);
