/* proto: the socket calls, against a peer that is slow, gone or hostile. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "proto/socket.h"

#define SHORT_NS (50 * LITHOS_NSEC_PER_MSEC)

static void pair(int fds[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
}

static int open_fds(void)
{
    int n = 0;
    for (int fd = 0; fd < 256; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void message_and_descriptor_arrive(void **state)
{
    (void)state;
    int fds[2], got = -2, mem = memfd_create("t", MFD_CLOEXEC);
    union lithos_message m, back;
    pair(fds);
    lithos_message_init(&m, LITHOS_MSG_DOCUMENT);
    m.document.bytes = 5;
    assert_int_equal(write(mem, "hello", 5), 5);
    assert_int_equal(lithos_socket_send(fds[0], &m, mem, SHORT_NS), 0);
    assert_int_equal(lithos_socket_receive(fds[1], &back, &got, SHORT_NS), 0);
    assert_int_equal(back.h.type, LITHOS_MSG_DOCUMENT);
    char text[6] = "";
    assert_int_equal(pread(got, text, 5, 0), 5);
    assert_string_equal(text, "hello");
    assert_true(fcntl(got, F_GETFD) & FD_CLOEXEC);
    close(got);
    assert_int_equal(lithos_socket_send(fds[0], &m, -1, SHORT_NS), 0);
    assert_int_equal(lithos_socket_receive(fds[1], &back, &got, SHORT_NS), 0);
    assert_int_equal(got, -1);
    close(mem);
    close(fds[0]);
    close(fds[1]);
}

static void unasked_descriptors_do_not_leak(void **state)
{
    (void)state;
    int fds[2];
    union lithos_message m, back;
    pair(fds);
    int before = open_fds();
    lithos_message_init(&m, LITHOS_MSG_OK);
    assert_int_equal(lithos_socket_send(fds[0], &m, STDERR_FILENO, SHORT_NS), 0);
    assert_int_equal(lithos_socket_receive(fds[1], &back, NULL, SHORT_NS), 0);
    assert_int_equal(open_fds(), before);
    m.h.magic = 1; /* damaged: refused, and its descriptor closed */
    int got = -2;
    assert_int_equal(lithos_socket_send(fds[0], &m, STDERR_FILENO, SHORT_NS), 0);
    assert_int_equal(lithos_socket_receive(fds[1], &back, &got, SHORT_NS), -EPROTO);
    assert_int_equal(got, -2);
    assert_int_equal(open_fds(), before);
    close(fds[0]);
    close(fds[1]);
}

static void waits_are_bounded(void **state)
{
    (void)state;
    int fds[2];
    union lithos_message m, back;
    pair(fds);
    uint64_t start_ns = lithos_now_ns();
    assert_int_equal(lithos_socket_receive(fds[0], &back, NULL, SHORT_NS), -ETIMEDOUT);
    lithos_message_init(&m, LITHOS_MSG_ERROR);
    m.error.error = -EBUSY;
    int r, sent = 0;
    while ((r = lithos_socket_send(fds[0], &m, -1, SHORT_NS)) == 0)
        sent++;
    assert_int_equal(r, -ETIMEDOUT); /* a peer that does not read */
    assert_true(sent > 0);
    uint64_t spent_ns = lithos_now_ns() - start_ns;
    assert_true(spent_ns >= 2 * SHORT_NS && spent_ns < 20 * SHORT_NS);
    close(fds[0]);
    close(fds[1]);
}

static void end_of_connection_is_told(void **state)
{
    (void)state;
    int fds[2];
    union lithos_message m, back;
    pair(fds);
    close(fds[1]);
    lithos_message_init(&m, LITHOS_MSG_STATUS);
    assert_int_equal(lithos_socket_receive(fds[0], &back, NULL, SHORT_NS), -ECONNRESET);
    assert_int_equal(lithos_socket_send(fds[0], &m, -1, SHORT_NS), -ECONNRESET); /* and no SIGPIPE */
    close(fds[0]);
}

static void oversized_packet_is_refused(void **state)
{
    (void)state;
    int fds[2];
    union lithos_message back;
    pair(fds);
    size_t size = sizeof back + 1;
    char *big = calloc(1, size);
    union lithos_message *m = (union lithos_message *)big;
    lithos_message_init(m, LITHOS_MSG_OK);
    assert_int_equal(send(fds[0], big, size, 0), (int)size);
    assert_int_equal(lithos_socket_receive(fds[1], &back, NULL, SHORT_NS), -EPROTO);
    free(big);
    close(fds[0]);
    close(fds[1]);
}

static void connect_says_why_not(void **state)
{
    (void)state;
    char dir[] = "/tmp/lithos-test-XXXXXX", path[64], long_path[200];
    int fd;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/s", dir);
    assert_int_equal(lithos_socket_connect(path, SHORT_NS, &fd), -ENOENT);
    memset(long_path, 'a', sizeof long_path - 1);
    long_path[sizeof long_path - 1] = '\0';
    assert_int_equal(lithos_socket_connect(long_path, SHORT_NS, &fd), -ENAMETOOLONG);

    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, path);
    int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(lithos_socket_connect(path, SHORT_NS, &fd), -ECONNREFUSED);
    assert_int_equal(listen(listener, 0), 0);
    int held[64], n = 0, r; /* a daemon that never accepts: the backlog fills up */
    while (n < 64 && (r = lithos_socket_connect(path, SHORT_NS, &held[n])) == 0)
        n++;
    assert_int_equal(r, -ETIMEDOUT);
    pid_t pid;
    uid_t uid;
    gid_t gid;
    assert_int_equal(lithos_socket_peer(held[0], &pid, &uid, &gid), 0);
    assert_int_equal(pid, getpid());
    assert_int_equal(uid, geteuid());
    while (n)
        close(held[--n]);
    close(listener);
    unlink(path);
    rmdir(dir);
}

static void socket_path_follows_the_environment(void **state)
{
    (void)state;
    char path[128], small[8];
    setenv("LITHOS_SOCKET", "/x/y.sock", 1);
    assert_int_equal(lithos_socket_path(path, sizeof path), 0);
    assert_string_equal(path, "/x/y.sock");
    assert_int_equal(lithos_socket_path(small, sizeof small), -ENAMETOOLONG);
    unsetenv("LITHOS_SOCKET");
    setenv("XDG_RUNTIME_DIR", "/run/user/7", 1);
    assert_int_equal(lithos_socket_path(path, sizeof path), 0);
    assert_string_equal(path, geteuid() ? "/run/user/7/lithos/lithosd.sock" : "/run/lithos/lithosd.sock");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(message_and_descriptor_arrive),
        cmocka_unit_test(unasked_descriptors_do_not_leak),
        cmocka_unit_test(waits_are_bounded),
        cmocka_unit_test(end_of_connection_is_told),
        cmocka_unit_test(oversized_packet_is_refused),
        cmocka_unit_test(connect_says_why_not),
        cmocka_unit_test(socket_path_follows_the_environment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
