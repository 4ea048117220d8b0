#include "cli/client.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "cli/commands.h"

#define DOCUMENT_BYTES_MAX (64u << 20)

/* A tenant may go to another folder and the daemon does: only an absolute path stays the same. */
static int make_absolute(char path[LITHOS_PATH_BYTES])
{
    char whole[PATH_MAX + LITHOS_PATH_BYTES];

    if (path[0] == '/')
        return 0;
    if (!getcwd(whole, PATH_MAX))
        return -errno;
    size_t len = strlen(whole);
    if (len + 1 + strlen(path) >= LITHOS_PATH_BYTES)
        return -ENAMETOOLONG;
    snprintf(whole + len, sizeof(whole) - len, "/%s", path);
    strcpy(path, whole);
    return 0;
}

int lithos_client_path(const char *option, char path[LITHOS_PATH_BYTES])
{
    char buf[LITHOS_PATH_BYTES];
    int r = 0;

    if (!option)
        r = lithos_socket_path(buf, sizeof(buf));
    else if (!*option)
        r = -EINVAL;
    else if (strlen(option) >= sizeof(buf))
        r = -ENAMETOOLONG;
    else
        strcpy(buf, option);
    if (r == 0)
        r = make_absolute(buf);
    if (r < 0) {
        lithos_error("%s %s cannot be a socket's path: %s",
                     option ? "--socket" : "the socket of the environment",
                     option ? option : "(LITHOS_SOCKET, XDG_RUNTIME_DIR)", strerror(-r));
        return r;
    }
    strcpy(path, buf);
    return 0;
}

static void say_not_connected(const char *path, int error)
{
    struct stat st;

    if (error == -ENOENT || error == -ECONNREFUSED)
        lithos_error("no lithosd runs at %s: `lithos run' starts one, or start bin/lithosd", path);
    else if ((error == -EACCES || error == -EPERM) && stat(path, &st) == 0)
        lithos_error(
            "permission denied at %s: that lithosd belongs to uid %u and you are uid %u; use a daemon of "
            "your own (--socket PATH or LITHOS_SOCKET), or become that user",
            path, (unsigned)st.st_uid, (unsigned)geteuid());
    else if (error == -EACCES || error == -EPERM)
        lithos_error("permission denied at %s: its folder belongs to another user; use a daemon of your own "
                     "(--socket PATH or LITHOS_SOCKET)",
                     path);
    else
        lithos_error("cannot reach lithosd at %s: %s", path, strerror(-error));
}

int lithos_client_options(int argc, char **argv, const char *help, const char *flag, bool *ret_flag,
                          char path[LITHOS_PATH_BYTES])
{
    const struct option options[] = {{flag, 0, 0, 'f'}, {"socket", 1, 0, 's'}, {"help", 0, 0, 'h'}, {0}};
    const char *socket = NULL;
    int c;

    while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        switch (c) {
        case 'f':
            *ret_flag = true;
            break;
        case 's':
            socket = optarg;
            break;
        case 'h':
            return lithos_help(help);
        default:
            return lithos_usage(argv[0]);
        }
    }
    if (optind < argc) {
        lithos_error("%s: takes options only", argv[0]);
        return lithos_usage(argv[0]);
    }
    return lithos_client_path(socket, path) < 0 ? LITHOS_EXIT_FAILED : -1;
}

int lithos_client_connect(const char *path, bool quiet, int *ret_sock)
{
    int r = lithos_socket_connect(path, 5 * LITHOS_NSEC_PER_SEC, ret_sock);

    if (r < 0 && !(quiet && (r == -ENOENT || r == -ECONNREFUSED)))
        say_not_connected(path, r);
    return r;
}

static int receive_patiently(int sock, union lithos_message *m, int *fd)
{
    int r = lithos_socket_receive(sock, m, fd, LITHOS_NSEC_PER_SEC);

    if (r != -ETIMEDOUT)
        return r;
    lithos_log(LITHOS_LOG_ERROR,
               "waiting for lithosd (the first time on a card it measures which TPCs there are)");
    r = lithos_socket_receive(sock, m, fd, LITHOS_CLIENT_PATIENCE_NS);
    if (r == -ETIMEDOUT)
        lithos_error("lithosd did not answer in time: see its log, or `lithos doctor'");
    return r;
}

int lithos_client_ask(int sock, const union lithos_message *request, enum lithos_msg_type expected,
                      union lithos_message *ret_answer, int *ret_fd)
{
    static union lithos_message answer; /* large; this program has one thread */
    int fd = -1, r;

    r = lithos_socket_send(sock, request, -1, 5 * LITHOS_NSEC_PER_SEC);
    if (r == 0)
        r = receive_patiently(sock, &answer, ret_fd ? &fd : NULL);
    if (r == -EPROTONOSUPPORT)
        lithos_error(
            "this lithosd speaks another version of the protocol: stop it (`lithos stop' of its version) "
            "and start the one that belongs to this `lithos'");
    else if (r < 0 && r != -ETIMEDOUT)
        lithos_error("lithosd ended the talk: %s; see its log", strerror(-r));
    if (r < 0)
        goto fail;
    if (answer.h.type == LITHOS_MSG_ERROR) {
        lithos_error("%s", answer.error.text);
        r = answer.error.error < 0 ? answer.error.error : -EPROTO;
        goto fail;
    }
    if (answer.h.type != (uint16_t)expected) {
        lithos_error("lithosd gave an answer of kind %u where %u was due", answer.h.type, (unsigned)expected);
        r = -EPROTO;
        goto fail;
    }
    if (ret_answer)
        *ret_answer = answer;
    if (ret_fd)
        *ret_fd = fd;
    return 0;
fail:
    if (fd >= 0)
        close(fd);
    return r;
}

/* Bounded: what comes is another process's. */
static int read_all(int fd, size_t bytes, char **ret_text)
{
    char *text = malloc(bytes + 1);
    size_t got = 0;

    if (!text)
        return -ENOMEM;
    while (got < bytes) {
        ssize_t n = pread(fd, text + got, bytes - got, (off_t)got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            int r = n < 0 ? -errno : -EPROTO;
            free(text);
            return r;
        }
        got += (size_t)n;
    }
    text[bytes] = 0;
    *ret_text = text;
    return 0;
}

int lithos_client_document(int sock, json_t **ret_document)
{
    static union lithos_message request;

    lithos_message_init(&request, LITHOS_MSG_STATUS);
    return lithos_client_ask_document(sock, &request, ret_document);
}

int lithos_client_ask_document(int sock, const union lithos_message *request, json_t **ret_document)
{
    static union lithos_message answer;
    char *text = NULL;
    int fd = -1;

    int r = lithos_client_ask(sock, request, LITHOS_MSG_DOCUMENT, &answer, &fd);
    if (r < 0)
        return r;
    if (fd < 0 || answer.document.bytes > DOCUMENT_BYTES_MAX)
        r = -EPROTO;
    else
        r = read_all(fd, (size_t)answer.document.bytes, &text);
    if (fd >= 0)
        close(fd);
    if (r == 0) {
        json_t *document = json_loads(text, 0, NULL);
        if (json_is_object(document)) {
            *ret_document = document;
        } else {
            json_decref(document);
            r = -EPROTO;
        }
        free(text);
    }
    if (r < 0)
        lithos_error("lithosd's answer cannot be read: %s", strerror(-r));
    return r;
}
