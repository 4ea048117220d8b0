/* lithosd, the real program: admission, quotas, life and death of tenants and of itself, bad input. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fs.h"
#include "base/util.h"
#include "test_daemon_rig.h"

static const char *const mps_off[] = {"--mps=off", NULL};
static const char uuid1[LITHOS_UUID_BYTES] = {[15] = 1}, uuid2[LITHOS_UUID_BYTES] = {[15] = 2};

static int setup_h200(void **state)
{
    static struct rig rig;
    rig_init(&rig, rig_h200);
    rig_start(&rig, mps_off);
    *state = &rig;
    return 0;
}

static int setup_node(void **state)
{
    static struct rig rig;
    rig_init(&rig, rig_node);
    rig_start(&rig, mps_off);
    *state = &rig;
    return 0;
}

static int setup_none(void **state)
{
    static struct rig rig;
    rig_init(&rig, rig_h200);
    *state = &rig;
    return 0;
}

static int teardown(void **state)
{
    rig_finish(*state);
    return 0;
}

static const struct lithos_msg_admitted *admitted(const struct rig_tenant *t)
{
    if (t->answer.h.type == LITHOS_MSG_ERROR)
        print_error("refused: %s\n", t->answer.error.text);
    assert_int_equal(t->answer.h.type, LITHOS_MSG_ADMITTED);
    return &t->answer.admitted;
}

static struct lithos_tpcset own(const struct rig_tenant *t)
{
    return admitted(t)->grant.gpus[0].own;
}

static void tenants_get_disjoint_tpcs(void **state)
{
    struct rig *rig = *state;
    struct rig_tenant a = rig_tenant_named(rig, "a", "40%", RIG_WAIT),
                      b = rig_tenant_named(rig, "", "26", RIG_WAIT);
    struct rig_tenant c = rig_tenant_named(rig, "", "20%", RIG_WAIT);
    assert_int_equal(admitted(&a)->mode, LITHOS_MODE_MASK);
    assert_string_equal(admitted(&a)->name, "a");
    assert_string_equal(admitted(&b)->name, "python-1");
    assert_string_equal(admitted(&c)->name, "python-2");
    assert_non_null(strstr(admitted(&a)->note, "take turns")); /* --mps=off */
    struct lithos_tpcset sa = own(&a), sb = own(&b), sc = own(&c);
    assert_int_equal(lithos_tpcset_count(&sa), 26);
    assert_int_equal(lithos_tpcset_count(&sb), 26);
    assert_int_equal(lithos_tpcset_count(&sc), 13);
    struct lithos_tpcset all = lithos_tpcset_or(sa, lithos_tpcset_or(sb, sc));
    assert_int_equal(lithos_tpcset_count(&all), 65);
    json_t *status = rig_status(rig);
    assert_int_equal(rig_free(status, 0), 1);
    char text[LITHOS_TPCSET_TEXT_MAX];
    json_t *gpu = json_array_get(json_object_get(rig_find_tenant(status, "a"), "gpus"), 0);
    assert_string_equal(json_string_value(json_object_get(gpu, "bits")), lithos_tpcset_format(&sa, text));
    json_decref(status);
}

static void oversubscription_is_refused_with_a_table(void **state)
{
    struct rig *rig = *state;
    struct rig_tenant a = rig_tenant_named(rig, "training", "39", RIG_WAIT);
    admitted(&a);
    struct rig_tenant b = rig_tenant_named(rig, "b", "50%", RIG_WAIT);
    assert_int_equal(b.answer.h.type, LITHOS_MSG_ERROR);
    assert_int_equal(b.answer.error.error, -ENOSPC);
    const char *text = b.answer.error.text;
    char pid[32];
    snprintf(pid, sizeof pid, "pid %d", (int)a.pid);
    static const char *const parts[] = {"50%",        "training",   "39 TPCs", "27 of 66 TPCs free",
                                        "lithos set", "NVIDIA H200"};
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(parts); i++)
        if (!strstr(text, parts[i]))
            fail_msg("\"%s\" is not in: %s", parts[i], text);
    assert_non_null(strstr(text, pid));
    struct rig_tenant c = rig_tenant_named(rig, "training", "1", RIG_WAIT);
    assert_int_equal(c.answer.error.error, -EEXIST);
    struct rig_tenant d = rig_tenant_named(rig, "d", "67", RIG_WAIT);
    assert_int_equal(d.answer.error.error, -ERANGE);
    assert_int_equal(rig_wait_free(rig, 27) < UINT64_MAX, 1);
}

static void longest_refusal_fits(void **state)
{
    struct rig *rig = *state;
    for (int i = 0; i < 63; i++) {
        char name[LITHOS_NAME_MAX];
        snprintf(name, sizeof name, "%02d-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", i);
        struct rig_tenant t = rig_tenant_named(rig, name, "1", RIG_WAIT);
        admitted(&t);
    }
    struct rig_tenant t = rig_tenant_named(rig, "", "4", RIG_WAIT);
    assert_int_equal(t.answer.error.error, -ENOSPC);
    assert_non_null(strstr(t.answer.error.text, "and 56 more"));
    assert_non_null(strstr(t.answer.error.text, "or end one."));
    struct rig_tenant last = rig_tenant_named(rig, "", "1", RIG_WAIT),
                      over = rig_tenant_named(rig, "", "1", RIG_WAIT);
    admitted(&last);
    assert_int_equal(over.answer.error.error, -ENFILE); /* 64 are the most */
}

static void several_gpus_all_or_none(void **state)
{
    struct rig *rig = *state;
    union lithos_message m;
    rig_admit_message(&m, "both", "50%");
    m.admit.gpu_count = 2;
    memcpy(m.admit.gpus[0], uuid1, sizeof uuid1);
    memcpy(m.admit.gpus[1], uuid2, sizeof uuid2);
    struct rig_tenant both = rig_tenant(rig, &m, RIG_WAIT);
    assert_int_equal(admitted(&both)->grant.gpu_count, 2);
    assert_int_equal(admitted(&both)->mode, LITHOS_MODE_NONE); /* one has no hook, and MPS is off */
    assert_non_null(strstr(admitted(&both)->note, "the driver is not known"));
    /* Most room wins; a named GPU is taken as named. */
    rig_admit_message(&m, "second", "20");
    m.admit.gpu_count = 1;
    memcpy(m.admit.gpus[0], uuid2, sizeof uuid2);
    struct rig_tenant second = rig_tenant(rig, &m, RIG_WAIT);
    assert_memory_equal(admitted(&second)->grant.gpus[0].uuid, uuid2, sizeof uuid2);
    struct rig_tenant most = rig_tenant_named(rig, "most", "5", RIG_WAIT);
    assert_memory_equal(admitted(&most)->grant.gpus[0].uuid, uuid1, sizeof uuid1);
    /* 20 TPCs fit the first and not the second: nothing may be taken from the first. */
    rig_admit_message(&m, "no", "20");
    m.admit.gpu_count = 2;
    memcpy(m.admit.gpus[0], uuid1, sizeof uuid1);
    memcpy(m.admit.gpus[1], uuid2, sizeof uuid2);
    struct rig_tenant no = rig_tenant(rig, &m, RIG_WAIT);
    assert_int_equal(no.answer.error.error, -ENOSPC);
    json_t *status = rig_status(rig);
    assert_int_equal(rig_free(status, 0), 28);
    assert_int_equal(rig_free(status, 1), 13);
    json_decref(status);
    /* Only what is visible is picked. */
    rig_admit_message(&m, "visible", "1");
    m.admit.visible_count = 1;
    memcpy(m.admit.visible[0], uuid2, sizeof uuid2);
    struct rig_tenant visible = rig_tenant(rig, &m, RIG_WAIT);
    assert_memory_equal(admitted(&visible)->grant.gpus[0].uuid, uuid2, sizeof uuid2);
    rig_admit_message(&m, "unknown", "1");
    m.admit.gpu_count = 1;
    m.admit.gpus[0][0] = 77;
    struct rig_tenant unknown = rig_tenant(rig, &m, RIG_WAIT);
    assert_int_equal(unknown.answer.error.error, -ENODEV);
}

static void killed_tenant_gives_back_at_once(void **state)
{
    struct rig *rig = *state;
    for (int i = 0; i < 5; i++) {
        struct rig_tenant a = rig_tenant_named(rig, "a", "40%", i % 2 ? RIG_ATTACH : RIG_WAIT);
        admitted(&a);
        assert_true(rig_wait_free(rig, 40) < UINT64_MAX);
        kill(a.pid, SIGKILL);
        uint64_t took_ns = rig_wait_free(rig, 66);
        print_message("free again after %.1f ms\n", (double)took_ns / 1e6);
        assert_true(took_ns < 100 * LITHOS_NSEC_PER_MSEC);
    }
}

static void attached_process_outlives_root(void **state)
{
    struct rig *rig = *state;
    struct rig_tenant a = rig_tenant_named(rig, "a", "26", RIG_ORPHAN);
    admitted(&a);
    assert_int_equal(waitpid(a.pid, NULL, 0), a.pid);
    rig_sleep_ms(50);
    json_t *status = rig_status(rig);
    assert_int_equal(rig_free(status, 0), 40);
    json_t *pids = json_object_get(rig_find_tenant(status, "a"), "pids");
    assert_int_equal(json_array_size(pids), 2);
    assert_true(json_is_false(json_object_get(json_array_get(pids, 0), "alive")));
    assert_true(json_is_true(json_object_get(json_array_get(pids, 1), "attached")));
    json_decref(status);
    kill(-a.pid, SIGKILL);
    assert_true(rig_wait_free(rig, 66) < 100 * LITHOS_NSEC_PER_MSEC);
}

static json_int_t launches(struct rig *rig, const char *name)
{
    json_t *status = rig_status(rig), *t = rig_find_tenant(status, name);
    json_int_t n = t ? json_integer_value(json_object_get(json_object_get(t, "counters"), "launches")) : -1;
    json_decref(status);
    return n;
}

static void restarted_daemon_takes_over(void **state)
{
    struct rig *rig = *state;
    struct rig_tenant a = rig_tenant_named(rig, "a", "26", RIG_ATTACH),
                      b = rig_tenant_named(rig, "b", "13", RIG_WAIT);
    struct rig_tenant gone = rig_tenant_named(rig, "gone", "5", RIG_WAIT);
    struct lithos_tpcset had = own(&a);
    admitted(&b);
    admitted(&gone);
    rig_sleep_ms(50);
    json_int_t before = launches(rig, "a");
    assert_true(before > 0);
    rig_end(rig, SIGKILL);
    kill(gone.pid, SIGKILL);
    waitpid(gone.pid, NULL, 0);
    rig_start(rig, mps_off);
    json_t *status = rig_status(rig);
    char text[LITHOS_TPCSET_TEXT_MAX];
    json_t *gpu = json_array_get(json_object_get(rig_find_tenant(status, "a"), "gpus"), 0);
    assert_string_equal(json_string_value(json_object_get(gpu, "bits")), lithos_tpcset_format(&had, text));
    assert_non_null(rig_find_tenant(status, "b"));
    assert_int_equal(rig_free(status, 0), 22); /* that of the dead one is kept for a moment */
    json_decref(status);
    uint64_t took_ns = rig_wait_free(rig, 27);
    assert_true(took_ns > LITHOS_NSEC_PER_SEC && took_ns < 4 * LITHOS_NSEC_PER_SEC);
    assert_true(launches(rig, "a") > before); /* it attached again and brought its counts */
    char why[LITHOS_TEXT_MAX];
    assert_int_equal(rig_set(rig, "a", "30", why), 0);
    kill(a.pid, SIGKILL);
    assert_true(rig_wait_free(rig, 53) < 200 * LITHOS_NSEC_PER_MSEC);
}

/* A pid that was given to another process since is not the tenant. */
static void reused_pid_is_not_mistaken(void **state)
{
    struct rig *rig = *state;
    struct rig_tenant a = rig_tenant_named(rig, "a", "26", RIG_WAIT);
    admitted(&a);
    rig_end(rig, SIGKILL);
    json_t *saved = json_load_file(rig->state, 0, NULL),
           *t = json_array_get(json_object_get(saved, "tenants"), 0);
    assert_non_null(t);
    json_object_set_new(t, "root_start",
                        json_integer(json_integer_value(json_object_get(t, "root_start")) + 1));
    assert_int_equal(json_dump_file(saved, rig->state, 0), 0);
    json_decref(saved);
    rig_start(rig, mps_off);
    assert_true(rig_wait_free(rig, 66) < 4 * LITHOS_NSEC_PER_SEC);
}

static void clean_stop_keeps_state_of_living_tenants(void **state)
{
    struct rig *rig = *state;
    struct rig_tenant a = rig_tenant_named(rig, "a", "26", RIG_WAIT);
    admitted(&a);
    assert_int_equal(rig_end(rig, SIGTERM), 0);
    assert_int_equal(access(rig->socket, F_OK), -1);
    rig_start(rig, mps_off);
    assert_true(rig_wait_free(rig, 40) < UINT64_MAX);
    kill(a.pid, SIGKILL);
    assert_true(rig_wait_free(rig, 66) < UINT64_MAX);
    assert_int_equal(rig_end(rig, SIGTERM), 0);
    assert_int_equal(access(rig->state, F_OK), -1);
    rig_start(rig, mps_off);
}

static void quota_is_set_live(void **state)
{
    struct rig *rig = *state;
    char text[LITHOS_TEXT_MAX];
    struct rig_tenant a = rig_tenant_named(rig, "a", "26", RIG_WAIT),
                      b = rig_tenant_named(rig, "b", "13", RIG_WAIT);
    admitted(&b);
    /* A second process of a, here: its arena must follow. */
    union lithos_message m;
    int sock = rig_connect(rig), fd = -1;
    lithos_message_init(&m, LITHOS_MSG_ATTACH);
    m.attach.tenant = admitted(&a)->tenant;
    m.attach.token[0] = (uint8_t)(admitted(&a)->token[0] + 1);
    assert_int_equal(lithos_socket_call(sock, &m, &m, &fd, LITHOS_NSEC_PER_SEC), 0);
    assert_int_equal(m.error.error, -ENOENT); /* a wrong token */
    struct lithos_arena *arena = rig_attach(&a, sock);
    struct lithos_grant g;
    uint32_t seq;
    assert_int_equal(lithos_arena_read_grant(arena, &g, &seq), 0);
    assert_int_equal(lithos_tpcset_count(&g.gpus[0].own), 26);
    uint64_t epoch = g.epoch, lease_ns = atomic_load(&arena->lease_ns);

    assert_int_equal(rig_set(rig, "a", "39", text), 0);
    assert_int_not_equal(lithos_arena_grant_seq(arena), seq);
    assert_int_equal(lithos_arena_read_grant(arena, &g, &seq), 0);
    assert_int_equal(lithos_tpcset_count(&g.gpus[0].own), 39);
    assert_true(g.epoch > epoch);
    assert_int_equal(rig_set(rig, "a", "100%", text), -ENOSPC);
    assert_non_null(strstr(text, "b "));
    assert_int_equal(rig_set(rig, "a", "1", text), 0);
    assert_int_equal(rig_set(rig, "nobody", "1", text), -ENOENT);
    assert_true(rig_wait_free(rig, 52) < UINT64_MAX);
    rig_sleep_ms(250);
    assert_true(atomic_load(&arena->lease_ns) > lease_ns + 100 * LITHOS_NSEC_PER_MSEC);
    memset((void *)arena, 0xff, LITHOS_ARENA_BYTES); /* a tenant that scribbles hurts itself only */
    json_decref(rig_status(rig));
    assert_int_equal(rig_set(rig, "a", "2", text), 0);
    munmap(arena, LITHOS_ARENA_BYTES);
    close(sock);
}

static void garbage_gets_an_error_and_the_door(void **state)
{
    struct rig *rig = *state;
    struct rig_tenant a = rig_tenant_named(rig, "a", "26", RIG_WAIT);
    admitted(&a);
    srand(1); /* NOLINT(cert-msc32-c,cert-msc51-cpp): the same garbage each time */
    for (int i = 0; i < 300; i++) {
        union lithos_message m, answer;
        char *bytes = (char *)&m;
        size_t size = 1 + (size_t)rand() % sizeof m;
        int sock = rig_connect(rig);
        for (size_t b = 0; b < sizeof m; b++)
            bytes[b] = (char)rand();
        if (i % 2) { /* the right header, nonsense behind it */
            lithos_message_init(&answer, (enum lithos_msg_type)(1 + i / 2 % (LITHOS_MSG_TYPE_MAX - 1)));
            m.h = answer.h;
            size = m.h.size;
            if (m.h.type == LITHOS_MSG_SHUTDOWN ||
                m.h.type == LITHOS_MSG_STATUS) /* these have no more than a header */
                m.h.reserved = 1;
        }
        assert_int_equal(send(sock, bytes, size, MSG_NOSIGNAL), (ssize_t)size);
        assert_int_equal(lithos_socket_receive(sock, &answer, NULL, 5 * LITHOS_NSEC_PER_SEC), 0);
        assert_int_equal(answer.h.type, LITHOS_MSG_ERROR);
        assert_true(strlen(answer.error.text) > 10);
        close(sock);
    }
    int silent[40]; /* those who only connect do not keep others out */
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(silent); i++)
        silent[i] = rig_connect(rig);
    assert_true(rig_wait_free(rig, 40) < UINT64_MAX);
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(silent); i++)
        close(silent[i]);
}

static void foreign_user_is_refused(void **state)
{
    struct rig *rig = *state;
    static const char *const options[] = {"--mps=off", "--allow-uid", "12345", NULL};
    if (geteuid() != 0)
        skip();
    assert_int_equal(chmod(rig->dir, 0755), 0);
    rig_start(rig, options);
    pid_t child = fork();
    if (child == 0) {
        union lithos_message m;
        int sock;
        if (setgid(54321) < 0 || setuid(54321) < 0 ||
            lithos_socket_connect(rig->socket, LITHOS_NSEC_PER_SEC, &sock) < 0)
            _exit(1);
        if (lithos_socket_receive(sock, &m, NULL, 5 * LITHOS_NSEC_PER_SEC) < 0 ||
            m.h.type != LITHOS_MSG_ERROR)
            _exit(2);
        _exit(m.error.error == -EACCES && strstr(m.error.text, "--allow-uid 54321") ? 0 : 3);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    struct rig_tenant a = rig_tenant_named(rig, "roots", "1", RIG_WAIT);
    admitted(&a);
    child = fork(); /* an allowed user may come in, but not change or join another's tenant */
    if (child == 0) {
        union lithos_message m;
        int sock;
        if (setgid(12345) < 0 || setuid(12345) < 0 ||
            lithos_socket_connect(rig->socket, LITHOS_NSEC_PER_SEC, &sock) < 0)
            _exit(1);
        lithos_message_init(&m, LITHOS_MSG_SET);
        strcpy(m.set.name, "roots");
        m.set.quota.value = 2;
        m.set.what = LITHOS_SET_QUOTA;
        if (lithos_socket_call(sock, &m, &m, NULL, LITHOS_NSEC_PER_SEC) < 0 || m.error.error != -EPERM)
            _exit(2);
        lithos_message_init(&m, LITHOS_MSG_ATTACH);
        m.attach.tenant = a.answer.admitted.tenant;
        memcpy(m.attach.token, a.answer.admitted.token, LITHOS_TOKEN_BYTES);
        if (lithos_socket_call(sock, &m, &m, NULL, LITHOS_NSEC_PER_SEC) < 0 || m.error.error != -ENOENT)
            _exit(3);
        lithos_message_init(&m, LITHOS_MSG_SHUTDOWN);
        if (lithos_socket_call(sock, &m, &m, NULL, LITHOS_NSEC_PER_SEC) < 0 || m.error.error != -EPERM)
            _exit(4);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void damaged_state_is_set_aside(void **state)
{
    struct rig *rig = *state;
    char bad[128];
    struct stat st;
    snprintf(bad, sizeof bad, "%s.bad", rig->state);
    assert_int_equal(lithos_write_file_atomic(rig->state, "{\"lithosd_state\":1,", 19, 0600), 0);
    rig_start(rig, mps_off);
    assert_int_equal(stat(bad, &st), 0);
    char *log = rig_log(rig);
    assert_non_null(strstr(log, "is not a state file"));
    free(log);
    struct rig_tenant a = rig_tenant_named(rig, "a", "100%", RIG_WAIT);
    admitted(&a);
    assert_int_equal(stat(rig->state, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    unlink(bad);
}

static void full_disk_is_survived(void **state)
{
    struct rig *rig = *state;
    char dir[96], command[512];
    const char *const options[] = {"--mps=off", "--state-dir", dir, NULL};
    snprintf(dir, sizeof dir, "%s/small", rig->dir);
    snprintf(command, sizeof command,
             "mkdir %s && mount -t tmpfs -o size=4k none %s 2>/dev/null && "
             "dd if=/dev/zero of=%s/full bs=4k count=1 2>/dev/null",
             dir, dir, dir);
    if (geteuid() != 0 || system(command) != 0)
        skip();
    rig_start(rig, options);
    struct rig_tenant a = rig_tenant_named(rig, "a", "10", RIG_ATTACH);
    admitted(&a);
    json_t *status = rig_status(rig);
    assert_true(json_is_false(json_object_get(status, "state_written")));
    json_decref(status);
    char *log = rig_log(rig), *first = strstr(log, "cannot be written");
    assert_non_null(first);
    assert_null(strstr(first + 1, "cannot be written")); /* said once */
    free(log);
    rig_end(rig, SIGTERM);
    snprintf(command, sizeof command, "umount %s", dir);
    assert_int_equal(system(command), 0);
}

static void one_daemon_a_socket(void **state)
{
    struct rig *rig = *state;
    char pid[32];
    rig_start(rig, mps_off);
    assert_int_equal(rig_start_and_end(rig, mps_off), 1);
    char *log = rig_log(rig);
    snprintf(pid, sizeof pid, "(pid %d)", (int)rig->daemon);
    assert_non_null(strstr(log, pid));
    free(log);
    rig_end(rig, SIGKILL); /* leaves its socket behind */
    assert_int_equal(access(rig->socket, F_OK), 0);
    rig_start(rig, mps_off);
    union lithos_message m;
    lithos_message_init(&m, LITHOS_MSG_SHUTDOWN);
    rig_call(rig, &m, &m);
    assert_int_equal(m.h.type, LITHOS_MSG_OK);
    int status;
    assert_int_equal(waitpid(rig->daemon, &status, 0), rig->daemon);
    rig->daemon = 0;
    assert_int_equal(status, 0);
}

static void idle_daemon_ends(void **state)
{
    struct rig *rig = *state;
    static const char *const options[] = {"--mps=off", "--idle-exit", "1", NULL};
    rig_start(rig, options);
    struct rig_tenant a = rig_tenant_named(rig, "a", "1", RIG_WAIT);
    admitted(&a);
    rig_sleep_ms(1500);
    assert_true(rig_wait_free(rig, 65) < UINT64_MAX); /* not while a tenant lives */
    kill(a.pid, SIGKILL);
    int status = 1;
    uint64_t start_ns = lithos_now_ns();
    assert_int_equal(waitpid(rig->daemon, &status, 0), rig->daemon);
    rig->daemon = 0;
    assert_int_equal(status, 0);
    assert_true(lithos_now_ns() - start_ns < 3 * LITHOS_NSEC_PER_SEC);
}

static void without_a_gpu_it_says_why(void **state)
{
    struct rig *rig = *state;
    char probe[128];
    snprintf(probe, sizeof probe, "%s/probe", rig->dir);
    static const char script[] = "#!/bin/sh\necho 'libcuda.so.1 is not installed' >&2\nexit 3\n";
    assert_int_equal(lithos_write_file_atomic(probe, script, sizeof script - 1, 0755), 0);
    rig_start(rig, mps_off);
    struct rig_tenant a = rig_tenant_named(rig, "a", "1", RIG_WAIT);
    assert_int_equal(a.answer.error.error, -ENODEV);
    assert_non_null(strstr(a.answer.error.text, "libcuda.so.1 is not installed"));
    assert_non_null(strstr(a.answer.error.text, "lithos doctor"));
    json_t *status = rig_status(rig);
    assert_int_equal(json_array_size(json_object_get(status, "gpus")), 0);
    assert_true(json_is_string(json_object_get(status, "error")));
    json_decref(status);
}

static void bad_options_are_refused(void **state)
{
    struct rig *rig = *state;
    static const char *const bad[][3] = {
        {"--mps=maybe"}, {"--idle-exit", "soon"}, {"--allow-uid", "-1"}, {"--nonsense"}, {"word"}};
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(bad); i++)
        assert_int_equal(rig_start_and_end(rig, bad[i]), 2);
    static const char *const help[] = {"--help", NULL};
    assert_int_equal(rig_start_and_end(rig, help), 0);
}

/* Holds the lock for so long; the file says that it is pid's. */
static pid_t hold_lock(const struct rig *rig, pid_t pid, unsigned ms)
{
    char path[112];
    snprintf(path, sizeof path, "%s.lock", rig->socket);
    const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 && dprintf(fd, "%d\n", (int)pid) > 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        usleep(ms * 1000);
        _exit(0);
    }
    close(fd);
    return child;
}

/* A lithosd is killed just as it forks, and what it has forked has its lock until it executes a program: the next one waits for that. */
static void waits_for_what_a_dead_one_forked(void **state)
{
    struct rig *rig = *state;
    const pid_t dead = fork();
    if (dead == 0)
        _exit(0);
    assert_int_equal(waitpid(dead, NULL, 0), dead);
    const pid_t child = hold_lock(rig, dead, 300);
    rig_start(rig, mps_off);
    assert_int_equal(waitpid(child, NULL, 0), child);
}

static void does_not_wait_for_one_that_lives(void **state)
{
    struct rig *rig = *state;
    const pid_t child = hold_lock(rig, getpid(), 20000);
    const uint64_t before_ns = lithos_now_ns();
    assert_int_not_equal(rig_start_and_end(rig, mps_off), 0);
    assert_true(lithos_now_ns() - before_ns < 10 * LITHOS_NSEC_PER_SEC);
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
}

#define WITH(setup, test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH(setup_h200, tenants_get_disjoint_tpcs),
        WITH(setup_h200, oversubscription_is_refused_with_a_table),
        WITH(setup_h200, longest_refusal_fits),
        WITH(setup_node, several_gpus_all_or_none),
        WITH(setup_h200, killed_tenant_gives_back_at_once),
        WITH(setup_h200, attached_process_outlives_root),
        WITH(setup_h200, restarted_daemon_takes_over),
        WITH(setup_h200, reused_pid_is_not_mistaken),
        WITH(setup_h200, clean_stop_keeps_state_of_living_tenants),
        WITH(setup_h200, quota_is_set_live),
        WITH(setup_h200, garbage_gets_an_error_and_the_door),
        WITH(setup_none, foreign_user_is_refused),
        WITH(setup_none, damaged_state_is_set_aside),
        WITH(setup_none, full_disk_is_survived),
        WITH(setup_none, one_daemon_a_socket),
        WITH(setup_none, waits_for_what_a_dead_one_forked),
        WITH(setup_none, does_not_wait_for_one_that_lives),
        WITH(setup_none, idle_daemon_ends),
        WITH(setup_none, without_a_gpu_it_says_why),
        WITH(setup_none, bad_options_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
