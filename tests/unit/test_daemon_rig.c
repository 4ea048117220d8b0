#include "test_daemon_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fs.h"
#include "base/util.h"

#define CALL_NS (10 * LITHOS_NSEC_PER_SEC)
#define H200(index, uuid, hook, why, topology) H200_MORE(index, uuid, hook, why, topology, "")
#define H200_MORE(index, uuid, hook, why, topology, more)                                                 \
    "{\"index\":" #index ",\"uuid\":\"" uuid "\",\"name\":\"NVIDIA H200\",\"cc\":[9,0],\"sm_count\":132," \
    "\"qmd\":\"V04_00\",\"hook\":" hook ",\"hook_why\":\"" why "\",\"topology\":" topology                \
    ",\"cached\":true," more "\"error\":null}"
#define TOPOLOGY                                                                                            \
    "{\"valid\":\"0-3,9-16,18-25,27-34,36-43,45-52,54-71,75,78,81,83\",\"sms_per_tpc\":2,\"gpc_stride\":9," \
    "\"gpc_count\":8}"
#define HEAD "{\"driver\":\"580.159.04\",\"virtual\":false,\"error\":null,\"gpus\":["

const char rig_h200[] = HEAD H200(0, "GPU-00000000-0000-0000-0000-000000000001", "true", "", TOPOLOGY) "]}";
const char rig_stamps[] = HEAD H200_MORE(0, "GPU-00000000-0000-0000-0000-000000000001", "true", "", TOPOLOGY,
                                         "\"stamps\":true,") "]}";
const char rig_node[] =
    HEAD H200(0, "GPU-00000000-0000-0000-0000-000000000001", "true", "", TOPOLOGY) "," H200(
        1, "GPU-00000000-0000-0000-0000-000000000002", "false", "the driver is not known", "null") "]}";

void rig_sleep_ms(unsigned ms)
{
    usleep(ms * 1000);
}

static void write_script(const struct rig *rig, const char *name, const char *text)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", rig->dir, name);
    assert_int_equal(lithos_write_file_atomic(path, text, strlen(text), 0755), 0);
}

void rig_init(struct rig *rig, const char *probe_json)
{
    char script[8192];
    *rig = (struct rig){.dir = "/tmp/lithosd-test-XXXXXX"};
    assert_non_null(mkdtemp(rig->dir));
    snprintf(rig->socket, sizeof rig->socket, "%s/d.sock", rig->dir);
    snprintf(rig->state, sizeof rig->state, "%s/d.sock.state", rig->dir);
    snprintf(rig->log, sizeof rig->log, "%s/log", rig->dir);
    /* --canary: ends well unless told to hang */
    snprintf(script, sizeof script,
             "#!/bin/sh\nif [ \"$1\" = --canary ]; then\n echo >>%s/canaries\n [ -e "
             "\"$CUDA_MPS_PIPE_DIRECTORY/hang\" ] && "
             "exec sleep 1000\n exit 0\nfi\ncat <<'END'\n%s\nEND\n",
             rig->dir, probe_json);
    write_script(rig, "probe", script);
}

static const char LITHOSD[] = LITHOS_BINARY_DIR "/bin/lithosd";

static pid_t spawn(const struct rig *rig, const char *const *options)
{
    char probe[128], path[512];
    const char *argv[32] = {LITHOSD, "--socket", rig->socket, "--probe", probe, "--log", rig->log};
    size_t n = 7;
    snprintf(probe, sizeof probe, "%s/probe", rig->dir);
    for (; options && *options; options++)
        argv[n++] = *options;
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        snprintf(path, sizeof path, "%s/bin:%s", rig->dir, getenv("PATH"));
        setenv("PATH", path, 1);
        setenv("LITHOS_LOG", "debug", 1);
        unsetenv("CUDA_MPS_PIPE_DIRECTORY");
        execv(argv[0], (char *const *)argv);
        _exit(127);
    }
    return pid;
}

void rig_start(struct rig *rig, const char *const *options)
{
    int fd;
    rig->daemon = spawn(rig, options);
    for (int tries = 0; lithos_socket_connect(rig->socket, CALL_NS, &fd) < 0; tries++) {
        assert_true(tries < 2000);
        assert_int_equal(waitpid(rig->daemon, NULL, WNOHANG), 0);
        rig_sleep_ms(5);
    }
    close(fd);
}

int rig_start_and_end(struct rig *rig, const char *const *options)
{
    int status = 0;
    pid_t pid = spawn(rig, options);
    for (int tries = 0; waitpid(pid, &status, WNOHANG) == 0; tries++) {
        if (tries > 2000)
            kill(pid, SIGKILL);
        rig_sleep_ms(5);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int rig_end(struct rig *rig, int signal)
{
    int status = 0;
    kill(rig->daemon, signal);
    for (int tries = 0; waitpid(rig->daemon, &status, WNOHANG) == 0; tries++) {
        if (tries > 3000)
            kill(rig->daemon, SIGKILL);
        rig_sleep_ms(5);
    }
    rig->daemon = 0;
    return status;
}

void rig_finish(struct rig *rig)
{
    char command[128];
    for (unsigned i = 0; i < rig->tenant_count; i++) {
        kill(-rig->tenants[i], SIGKILL);
        waitpid(rig->tenants[i], NULL, 0);
    }
    if (rig->daemon)
        assert_int_equal(rig_end(rig, SIGTERM), 0);
    snprintf(command, sizeof command, "rm -rf '%s'", rig->dir);
    assert_int_equal(system(command), 0);
}

char *rig_log(const struct rig *rig)
{
    char *text;
    assert_int_equal(lithos_read_file(rig->log, 1 << 24, &text, NULL), 0);
    return text;
}

int rig_connect(const struct rig *rig)
{
    int fd;
    assert_int_equal(lithos_socket_connect(rig->socket, CALL_NS, &fd), 0);
    return fd;
}

void rig_call(const struct rig *rig, const union lithos_message *request, union lithos_message *ret_answer)
{
    int fd = rig_connect(rig);
    assert_int_equal(lithos_socket_call(fd, request, ret_answer, NULL, CALL_NS), 0);
    close(fd);
}

json_t *rig_status(const struct rig *rig)
{
    union lithos_message m;
    int sock = rig_connect(rig), fd = -1;
    lithos_message_init(&m, LITHOS_MSG_STATUS);
    assert_int_equal(lithos_socket_call(sock, &m, &m, &fd, CALL_NS), 0);
    close(sock);
    assert_int_equal(m.h.type, LITHOS_MSG_DOCUMENT);
    json_error_t error;
    json_t *status = json_loadfd(fd, JSON_REJECT_DUPLICATES, &error);
    close(fd);
    assert_non_null(status);
    return status;
}

json_t *rig_find_tenant(json_t *status, const char *name)
{
    size_t i;
    json_t *t;
    json_array_foreach(json_object_get(status, "tenants"), i,
                       t) if (!strcmp(json_string_value(json_object_get(t, "name")), name)) return t;
    return NULL;
}

int rig_free(json_t *status, unsigned gpu)
{
    return (int)json_integer_value(
        json_object_get(json_array_get(json_object_get(status, "gpus"), gpu), "free"));
}

uint64_t rig_wait_free(const struct rig *rig, int wanted)
{
    uint64_t start_ns = lithos_now_ns();
    while (lithos_now_ns() - start_ns < CALL_NS) {
        json_t *status = rig_status(rig);
        int got = rig_free(status, 0);
        json_decref(status);
        if (got == wanted)
            return lithos_now_ns() - start_ns;
        rig_sleep_ms(1);
    }
    return UINT64_MAX;
}

void rig_admit_message(union lithos_message *m, const char *name, const char *quota)
{
    lithos_message_init(m, LITHOS_MSG_ADMIT);
    snprintf(m->admit.name, sizeof m->admit.name, "%s", name);
    snprintf(m->admit.command, sizeof m->admit.command, "python");
    assert_int_equal(lithos_quota_parse(quota, &m->admit.quota), 0);
}

struct lithos_arena *rig_attach(const struct rig_tenant *t, int sock)
{
    union lithos_message m;
    int fd = -1;
    assert_int_equal(t->answer.h.type, LITHOS_MSG_ADMITTED);
    lithos_message_init(&m, LITHOS_MSG_ATTACH);
    m.attach.tenant = t->answer.admitted.tenant;
    memcpy(m.attach.token, t->answer.admitted.token, LITHOS_TOKEN_BYTES);
    m.attach.hook_active = 1;
    assert_int_equal(lithos_socket_call(sock, &m, &m, &fd, LITHOS_NSEC_PER_SEC), 0);
    assert_int_equal(m.h.type, LITHOS_MSG_ATTACHED);
    struct lithos_arena *arena = mmap(NULL, LITHOS_ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(arena != MAP_FAILED);
    close(fd);
    return arena;
}

int rig_set(const struct rig *rig, const char *name, const char *quota, char text[LITHOS_TEXT_MAX])
{
    union lithos_message m;
    lithos_message_init(&m, LITHOS_MSG_SET);
    snprintf(m.set.name, sizeof m.set.name, "%s", name);
    m.set.what = LITHOS_SET_QUOTA;
    assert_int_equal(lithos_quota_parse(quota, &m.set.quota), 0);
    rig_call(rig, &m, &m);
    text[0] = '\0';
    if (m.h.type == LITHOS_MSG_OK)
        return 0;
    assert_int_equal(m.h.type, LITHOS_MSG_ERROR);
    snprintf(text, LITHOS_TEXT_MAX, "%s", m.error.text);
    return m.error.error;
}

/* ---- what a tenant's process does ---- */

/* Like liblithos: attach, count in the arena; when the daemon goes, keep counting, attach again, carry the counts over. */
static _Noreturn void attached_life(const char *socket, const struct lithos_msg_admitted *a, int told_fd)
{
    static uint64_t counted;
    for (bool told = false;; rig_sleep_ms(20)) {
        union lithos_message m;
        int sock, fd = -1;
        if (lithos_socket_connect(socket, CALL_NS, &sock) < 0)
            continue;
        lithos_message_init(&m, LITHOS_MSG_ATTACH);
        m.attach.tenant = a->tenant;
        memcpy(m.attach.token, a->token, sizeof m.attach.token);
        m.attach.hook_active = 1;
        snprintf(m.attach.process, sizeof m.attach.process, "worker");
        if (lithos_socket_call(sock, &m, &m, &fd, CALL_NS) < 0 || m.h.type != LITHOS_MSG_ATTACHED || fd < 0)
            _exit(9);
        struct lithos_arena *arena =
            mmap(NULL, LITHOS_ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (arena == MAP_FAILED || lithos_arena_validate(arena, LITHOS_ARENA_BYTES) < 0 ||
            ftruncate(fd, 1) == 0)
            _exit(8); /* also when it is not sealed */
        close(fd);
        lithos_arena_count(arena, LITHOS_COUNTER_LAUNCHES, counted);
        if (!told && write(told_fd, "a", 1) != 1)
            _exit(7);
        told = true;
        while (lithos_socket_receive(sock, &m, NULL, LITHOS_NSEC_PER_MSEC) == -ETIMEDOUT) {
            counted++;
            lithos_arena_count(arena, LITHOS_COUNTER_LAUNCHES, 1);
        }
        close(sock);
    }
}

static _Noreturn void tenant_life(const char *socket, const union lithos_message *m, enum rig_after after,
                                  int told_fd)
{
    union lithos_message answer;
    int sock;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setpgid(0, 0);
    if (lithos_socket_connect(socket, CALL_NS, &sock) < 0 ||
        lithos_socket_call(sock, m, &answer, NULL, 4 * CALL_NS) < 0 ||
        write(told_fd, &answer, sizeof answer) != (ssize_t)sizeof answer)
        _exit(10);
    close(sock);
    bool admitted = answer.h.type == LITHOS_MSG_ADMITTED;
    if (admitted && after == RIG_ATTACH)
        attached_life(socket, &answer.admitted, told_fd);
    if (admitted && after == RIG_ORPHAN && fork() == 0)
        attached_life(socket, &answer.admitted, told_fd);
    if (admitted && after == RIG_ORPHAN) {
        rig_sleep_ms(300);
        _exit(0);
    }
    if (write(told_fd, "w", 1) != 1)
        _exit(11);
    for (;;)
        pause();
}

struct rig_tenant rig_tenant(struct rig *rig, const union lithos_message *m, enum rig_after after)
{
    struct rig_tenant t;
    int fds[2];
    char byte = 0;
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    t.pid = fork();
    if (t.pid == 0)
        tenant_life(rig->socket, m, after, fds[1]);
    close(fds[1]);
    assert_true(rig->tenant_count < RIG_TENANTS);
    rig->tenants[rig->tenant_count++] = t.pid;
    assert_int_equal(read(fds[0], &t.answer, sizeof t.answer), sizeof t.answer);
    assert_int_equal(read(fds[0], &byte, 1), 1);
    close(fds[0]);
    return t;
}

struct rig_tenant rig_tenant_named(struct rig *rig, const char *name, const char *quota, enum rig_after after)
{
    union lithos_message m;
    rig_admit_message(&m, name, quota);
    return rig_tenant(rig, &m, after);
}
