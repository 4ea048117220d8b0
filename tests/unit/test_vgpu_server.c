/* lithos-vgpud over its socket, as the virtual driver talks to it: launches are decoded and obeyed, bad clients are cut
 * off, a process's end frees the card. The report is the witness. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/util.h"
#include "hw/qmd.h"
#include "vgpu/wire.h"

struct fixture {
    char folder[64], socket[80], stats[80];
    pid_t server;
};

union reply {
    struct vgpu_msg_header h;
    struct vgpu_welcome welcome;
    struct vgpu_card card;
    struct vgpu_done done;
    struct vgpu_placement placement;
    struct vgpu_fault fault;
};

static void start(struct fixture *f, const char *const *extra)
{
    int out[2];
    assert_int_equal(pipe(out), 0);
    f->server = fork();
    assert_true(f->server >= 0);
    if (!f->server) {
        const char *argv[32] = {"lithos-vgpud", "--socket", f->socket, "--stats", f->stats};
        unsigned n = 5;
        for (unsigned i = 0; extra[i]; i++)
            argv[n++] = extra[i];
        dup2(out[1], 1);
        close(out[0]);
        execv(LITHOS_BINARY_DIR "/libexec/lithos/lithos-vgpud", (char **)argv);
        _exit(127);
    }
    close(out[1]);
    char line[256] = "";
    FILE *from = fdopen(out[0], "r");
    assert_non_null(fgets(line, sizeof line, from));
    fclose(from);
    assert_memory_equal(line, "ready ", 6);
    assert_non_null(strstr(line, f->socket));
}

static json_t *stop(struct fixture *f)
{
    int status;
    kill(f->server, SIGTERM);
    assert_int_equal(waitpid(f->server, &status, 0), f->server);
    f->server = 0;
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(access(f->socket, F_OK), -1);
    json_t *report = json_load_file(f->stats, 0, NULL);
    assert_non_null(report);
    return report;
}

static void send_msg(int fd, void *msg, uint16_t type, size_t size)
{
    *(struct vgpu_msg_header *)msg =
        (struct vgpu_msg_header){VGPU_WIRE_MAGIC, VGPU_WIRE_VERSION, type, (uint32_t)size, 0};
    assert_int_equal(send(fd, msg, size, MSG_NOSIGNAL), size);
}

/* False at the end of the connection; fails after 20 s of silence. */
static bool receive(int fd, union reply *r)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 20000), 1);
    ssize_t n = recv(fd, r, sizeof *r, 0);
    if (n <= 0)
        return false;
    assert_true(n >= (ssize_t)sizeof r->h && r->h.size == (uint32_t)n && r->h.magic == VGPU_WIRE_MAGIC);
    return true;
}

static bool silent(int fd, int ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, ms) == 0;
}

static int dial(const struct fixture *f)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    snprintf(addr.sun_path, sizeof addr.sun_path, "%s", f->socket);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof addr), 0);
    return fd;
}

/* Connected, with stream 1 of context 1 on card 0. */
static int client(const struct fixture *f, uint64_t mps_domain)
{
    int fd = dial(f);
    struct vgpu_hello hello = {.mps = mps_domain != 0, .mps_domain = mps_domain};
    send_msg(fd, &hello, VGPU_HELLO, sizeof hello);
    union reply r;
    assert_true(receive(fd, &r) && r.h.type == VGPU_WELCOME && r.welcome.cards >= 1);
    for (unsigned i = 0, n = r.welcome.cards; i < n; i++)
        assert_true(receive(fd, &r) && r.h.type == VGPU_CARD && r.card.index == i);
    struct vgpu_ctx ctx = {.ctx = 1};
    send_msg(fd, &ctx, VGPU_CTX_CREATE, sizeof ctx);
    struct vgpu_stream stream = {.stream = 1, .ctx = 1};
    send_msg(fd, &stream, VGPU_STREAM_CREATE, sizeof stream);
    return fd;
}

static struct vgpu_launch launch_msg(uint64_t op, const char *kernel, uint32_t blocks, uint64_t iters,
                                     const char *tpcs)
{
    struct vgpu_launch m = {.op = op, .stream = 1, .param_count = 2, .params = {0, iters}};
    struct lithos_qmd_view v = {.type = LITHOS_QMD_TYPE_GRID,
                                .grid = {blocks, 1, 1},
                                .block = {128, 1, 1},
                                .cluster = {1, 1, 1},
                                .registers = 16,
                                .masked = tpcs != NULL};
    v.tpcs = (struct lithos_tpcset){{UINT64_MAX, UINT64_MAX}};
    if (tpcs)
        assert_int_equal(lithos_tpcset_parse(tpcs, &v.tpcs), 0);
    snprintf(m.kernel, sizeof m.kernel, "%s", kernel);
    assert_int_equal(lithos_qmd_encode(lithos_qmd_layout(LITHOS_QMD_V04_00), &v, m.qmd), 0);
    return m;
}

static void launch(int fd, uint64_t op, const char *kernel, uint32_t blocks, uint64_t iters, const char *tpcs)
{
    struct vgpu_launch m = launch_msg(op, kernel, blocks, iters, tpcs);
    send_msg(fd, &m, VGPU_LAUNCH, sizeof m);
}

static void expect_done(int fd, uint64_t op, union reply *r)
{
    assert_true(receive(fd, r));
    assert_int_equal(r->h.type, VGPU_DONE);
    assert_int_equal(r->done.op, op);
    assert_int_equal(r->done.blocks_missed + r->done.blocks_twice, 0);
}

static const json_t *usage_of(const json_t *report, size_t client, unsigned card)
{
    const json_t *c = json_array_get(json_object_get(report, "clients"), client);
    return json_array_get(json_object_get(c, "cards"), card);
}

static json_int_t number(const json_t *o, const char *key)
{
    assert_true(json_is_integer(json_object_get(o, key)));
    return json_integer_value(json_object_get(o, key));
}

static void test_obeys_the_mask(void **state)
{
    struct fixture *f = *state;
    start(f, (const char *const[]){"--card", "h200", NULL});
    int fd = client(f, 0);
    struct vgpu_launch m = launch_msg(7, "lithos_smid_census", 2000, 0, "2,75");
    m.flags = VGPU_LAUNCH_WANT_PLACEMENT;
    send_msg(fd, &m, VGPU_LAUNCH, sizeof m);
    union reply r;
    unsigned blocks = 0;
    while (receive(fd, &r) && r.h.type == VGPU_PLACEMENT) {
        assert_int_equal(r.placement.first_block, blocks);
        for (unsigned i = 0; i < r.placement.count; i++) {
            unsigned sm = r.placement.sm[i];
            /* bit 2 is the third TPC of the card, bit 75 the 63rd: four of its SMs */
            assert_true(sm == 4 || sm == 5 || sm == 124 || sm == 125);
        }
        blocks += r.placement.count;
    }
    assert_int_equal(blocks, 2000);
    assert_int_equal(r.h.type, VGPU_DONE);
    assert_int_equal(r.done.blocks, 2000);
    close(fd);
    usleep(50000);
    json_t *report = stop(f);
    const json_t *u = usage_of(report, 0, 0);
    assert_string_equal(json_string_value(json_object_get(u, "tpcs")), "2,75");
    assert_int_equal(number(u, "blocks"), 2000);
    assert_int_equal(number(u, "launches"), 1);
    json_decref(report);
}

static void test_hangs_as_a_card_does(void **state)
{
    struct fixture *f = *state;
    start(f, (const char *const[]){"--card", "h200", NULL});
    int fd = client(f, 5), other = client(f, 5);
    union reply r;
    launch(fd, 1, "lithos_null", 1, 0, "5"); /* bit 5 names no TPC */
    launch(fd, 2, "lithos_null", 1, 0, NULL);
    assert_true(silent(fd, 300));
    launch(other, 3, "lithos_null", 1, 0, NULL);
    expect_done(other, 3, &r);
    close(fd);
    close(other);
    json_t *report = stop(f);
    assert_int_equal(number(usage_of(report, 1, 0), "hangs") + number(usage_of(report, 0, 0), "hangs"), 1);
    json_decref(report);
}

static void test_end_of_a_process_frees_the_card(void **state)
{
    struct fixture *f = *state;
    start(f, (const char *const[]){"--card", "h200", NULL});
    int fd = client(f, 5), other = client(f, 5);
    union reply r;
    launch(fd, 1, "lithos_fma", 84480, 20000000, NULL); /* 15 s */
    usleep(50000);
    launch(other, 2, "lithos_null", 1, 0, NULL);
    assert_true(silent(other, 200)); /* behind the other's blocks */
    close(fd);
    uint64_t before = lithos_now_ns();
    expect_done(other, 2, &r);
    assert_true(lithos_now_ns() - before < LITHOS_NSEC_PER_SEC);
    close(other);
    json_decref(stop(f));
}

static void test_report_while_running(void **state)
{
    struct fixture *f = *state;
    start(f, (const char *const[]){"--card", "a100", "--card", "h200", "--scale", "2", NULL});
    int fd = client(f, 0);
    struct vgpu_copy copy = {.op = 1, .stream = 1, .bytes = 4096};
    send_msg(fd, &copy, VGPU_COPY, sizeof copy);
    union reply r;
    expect_done(fd, 1, &r);
    assert_int_equal(access(f->stats, F_OK), -1);
    kill(f->server, SIGUSR1);
    json_t *report = NULL;
    for (unsigned i = 0; i < 200 && !report; i++) {
        usleep(10000);
        report = json_load_file(f->stats, 0, NULL); /* replaced in one step: whole or not there */
    }
    assert_non_null(report);
    const json_t *c = json_array_get(json_object_get(report, "clients"), 0);
    assert_true(json_is_true(json_object_get(c, "alive")));
    assert_int_equal(number(c, "pid"), getpid());
    assert_int_equal(number(usage_of(report, 0, 0), "copy_bytes"), 4096);
    assert_int_equal(number(usage_of(report, 0, 1), "copies"), 0);
    json_decref(report);
    close(fd);
    json_decref(stop(f));
}

/* More ops than the server takes at once: the sender waits, nothing is lost, the order holds. */
static void test_flood(void **state)
{
    struct fixture *f = *state;
    start(f, (const char *const[]){"--card", "h200", NULL});
    int fd = client(f, 0);
    const uint64_t ops = 20000;
    pid_t sender = fork();
    assert_true(sender >= 0);
    if (!sender) {
        for (uint64_t op = 1; op <= ops; op++)
            launch(fd, op, "lithos_null", 1, 0, NULL);
        _exit(0);
    }
    union reply r;
    usleep(200000); /* nobody reads: the server keeps what it has to say */
    for (uint64_t op = 1; op <= ops; op++)
        expect_done(fd, op, &r);
    assert_int_equal(waitpid(sender, NULL, 0), sender);
    close(fd);
    json_decref(stop(f));
}

static void test_marks_across_cards(void **state)
{
    struct fixture *f = *state;
    start(f, (const char *const[]){"--card", "h200", "--card", "h100", NULL});
    int fd = client(f, 0);
    struct vgpu_ctx ctx = {.ctx = 2, .card = 1};
    send_msg(fd, &ctx, VGPU_CTX_CREATE, sizeof ctx);
    struct vgpu_stream stream = {.stream = 2, .ctx = 2};
    send_msg(fd, &stream, VGPU_STREAM_CREATE, sizeof stream);
    launch(fd, 10, "lithos_fma", 84480, 20000, NULL);
    struct vgpu_mark mark = {.op = 11, .stream = 1};
    send_msg(fd, &mark, VGPU_MARK, sizeof mark);
    struct vgpu_wait wait = {.stream = 2, .mark = 11};
    send_msg(fd, &wait, VGPU_WAIT, sizeof wait);
    struct vgpu_copy copy = {.op = 12, .stream = 2, .bytes = 4096};
    send_msg(fd, &copy, VGPU_COPY, sizeof copy);
    union reply r;
    expect_done(fd, 10, &r);
    expect_done(fd, 11, &r);
    expect_done(fd, 12, &r);
    close(fd);
    json_decref(stop(f));
}

static void test_bad_clients_are_cut_off(void **state)
{
    struct fixture *f = *state;
    start(f, (const char *const[]){"--card", "h200", NULL});
    union reply r;
    /* no message, a launch before HELLO, an unknown stream, an id used twice */
    for (unsigned i = 0; i < 4; i++) {
        int fd = i < 2 ? dial(f) : client(f, 0);
        struct vgpu_launch m = launch_msg(1, "lithos_null", 1, 0, NULL);
        struct vgpu_ctx ctx = {.ctx = 1};
        if (i == 0)
            assert_int_equal(send(fd, "hello", 5, 0), 5);
        else if (i == 3)
            send_msg(fd, &ctx, VGPU_CTX_CREATE, sizeof ctx);
        m.stream = 99;
        if (i == 1 || i == 2)
            send_msg(fd, &m, VGPU_LAUNCH, sizeof m);
        assert_true(receive(fd, &r));
        assert_int_equal(r.h.type, VGPU_FAULT);
        assert_false(receive(fd, &r));
        close(fd);
    }
    /* an unknown QMD: the context is lost, the connection is not */
    int fd = client(f, 0);
    struct vgpu_launch m = launch_msg(5, "lithos_null", 1, 0, NULL);
    m.qmd[72] = 0x77;
    send_msg(fd, &m, VGPU_LAUNCH, sizeof m);
    assert_true(receive(fd, &r));
    assert_int_equal(r.h.type, VGPU_FAULT);
    assert_int_equal(r.fault.op, 5);
    launch(fd, 6, "lithos_null", 1, 0, NULL);
    assert_true(silent(fd, 100));
    close(fd);
    json_decref(stop(f));
}

static void test_command(void **state)
{
    struct fixture *f = *state;
    (void)f;
    int status = system(LITHOS_BINARY_DIR "/libexec/lithos/lithos-vgpud --card h100 -- sh -c "
                                          "'test -S \"$LITHOS_VGPU_SOCKET\" && case $LITHOS_LIBCUDA in "
                                          "*/lib/lithos/vgpu/libcuda.so.1) exit 7;; esac; exit 1'");
    assert_int_equal(WEXITSTATUS(status), 7);
    status = system(LITHOS_BINARY_DIR "/libexec/lithos/lithos-vgpud -- sh -c 'kill -9 $$'");
    assert_int_equal(WEXITSTATUS(status), 128 + SIGKILL);
    status = system(LITHOS_BINARY_DIR "/libexec/lithos/lithos-vgpud -- /no/such/program 2>/dev/null");
    assert_int_equal(WEXITSTATUS(status), 127);
}

/* A signal goes to the command, whose end is the server's; a socket that another server holds is not taken. */
static void test_command_is_told(void **state)
{
    struct fixture *f = *state;
    int out[2], status;
    assert_int_equal(pipe(out), 0);
    f->server = fork();
    assert_true(f->server >= 0);
    if (!f->server) {
        dup2(out[1], 1);
        close(out[0]);
        close(out[1]);
        execl(LITHOS_BINARY_DIR "/libexec/lithos/lithos-vgpud", "lithos-vgpud", "--socket", f->socket, "--",
              "sh", "-c", "trap 'exit 9' TERM; echo up; while :; do sleep 0.05; done", NULL);
        _exit(127);
    }
    close(out[1]);
    char up[8] = "";
    assert_true(read(out[0], up, sizeof up) == 3);
    close(out[0]);
    char second[256];
    snprintf(second, sizeof second,
             LITHOS_BINARY_DIR "/libexec/lithos/lithos-vgpud --socket %s -- true 2>/dev/null", f->socket);
    status = system(second);
    assert_int_equal(WEXITSTATUS(status), 1);
    assert_int_equal(access(f->socket, F_OK), 0);
    kill(f->server, SIGTERM);
    assert_int_equal(waitpid(f->server, &status, 0), f->server);
    f->server = 0;
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 9);
}

static int setup(void **state)
{
    static struct fixture f;
    strcpy(f.folder, "/tmp/lithos-test-vgpud-XXXXXX");
    assert_non_null(mkdtemp(f.folder));
    snprintf(f.socket, sizeof f.socket, "%s/s", f.folder);
    snprintf(f.stats, sizeof f.stats, "%s/stats.json", f.folder);
    f.server = 0;
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    if (f->server) {
        kill(f->server, SIGKILL);
        waitpid(f->server, NULL, 0);
    }
    unlink(f->socket);
    unlink(f->stats);
    rmdir(f->folder);
    return 0;
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_obeys_the_mask),
        TEST(test_hangs_as_a_card_does),
        TEST(test_end_of_a_process_frees_the_card),
        TEST(test_marks_across_cards),
        TEST(test_report_while_running),
        TEST(test_flood),
        TEST(test_bad_clients_are_cut_off),
        TEST(test_command),
        TEST(test_command_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
