/* lithosd as the minder of MPS, against a control program that is a script: found, started, dead, wedged, stopped. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fs.h"
#include "base/util.h"
#include "test_daemon_rig.h"

/* Speaks as much of the real one's language as lithosd does. Files in the pipe folder make it misbehave: wedge (no
 * answer), fault (a server in the state FAULT). */
static const char script[] =
    "#!/bin/sh\n"
    "P=${CUDA_MPS_PIPE_DIRECTORY:-/tmp/nvidia-mps}\n"
    "case \"$1\" in\n"
    "-d)\n"
    "  [ -e \"$0.broken\" ] && { echo 'no device' >&2; exit 1; }\n"
    "  setsid \"$0\" serve </dev/null >/dev/null 2>&1 &\n"
    "  while [ ! -e $P/control ]; do sleep 0.02; done\n"
    "  exit 0;;\n"
    "serve)\n"
    "  echo $$ >$P/nvidia-cuda-mps-control.pid\n"
    "  touch $P/control\n"
    "  while [ ! -e $P/quit ]; do sleep 0.05; done\n"
    "  rm -f $P/control; exit 0;;\n"
    "esac\n"
    "if ! kill -0 $(cat $P/nvidia-cuda-mps-control.pid 2>/dev/null || echo 0) 2>/dev/null || [ ! -e "
    "$P/control ]\n"
    "then echo 'Cannot find MPS control daemon process' >&2; exit 1; fi\n"
    "while read command rest; do\n"
    "  [ -e $P/wedge ] && exec sleep 1000\n"
    "  case $command in\n"
    "  get_server_list) echo 4242;;\n"
    "  get_server_status) if [ -e $P/fault ]; then echo FAULT; else echo ACTIVE; fi;;\n"
    "  quit) touch $P/quit; while [ -e $P/control ]; do sleep 0.02; done; exit 0;;\n"
    "  esac\n"
    "done\n"
    "exit 0\n";

static int setup(void **state)
{
    static struct rig rig;
    char path[128];
    rig_init(&rig, rig_node);
    snprintf(path, sizeof path, "%s/bin", rig.dir);
    assert_int_equal(lithos_mkdir_p(path, 0755), 0);
    snprintf(path, sizeof path, "%s/bin/nvidia-cuda-mps-control", rig.dir);
    assert_int_equal(lithos_write_file_atomic(path, script, sizeof script - 1, 0755), 0);
    *state = &rig;
    return 0;
}

static int teardown(void **state)
{
    struct rig *rig = *state;
    char path[128], *text;
    if (rig->daemon) /* also when a test failed half way */
        kill(rig->daemon, SIGCONT);
    snprintf(path, sizeof path, "%s/d-mps/nvidia-cuda-mps-control.pid", rig->dir);
    if (lithos_read_file(path, 64, &text, NULL) == 0) { /* left running for tenants: end it here */
        if (!rig->daemon && atoi(text) > 0)
            kill(atoi(text), SIGKILL);
        free(text);
    }
    rig_finish(rig);
    return 0;
}

static void touch(const struct rig *rig, const char *name)
{
    char path[160];
    snprintf(path, sizeof path, "%s/d-mps/%s", rig->dir, name);
    assert_int_equal(lithos_write_file_atomic(path, "", 0, 0600), 0);
}

static void mps(const struct rig *rig, char state[32], int *ret_pid, int *ret_restarts, char why[512])
{
    json_t *status = rig_status(rig), *m = json_object_get(status, "mps");
    snprintf(state, 32, "%s", json_string_value(json_object_get(m, "state")));
    *ret_pid = (int)json_integer_value(json_object_get(m, "control_pid"));
    *ret_restarts = (int)json_integer_value(json_object_get(m, "restarts"));
    snprintf(why, 512, "%s", json_string_value(json_object_get(m, "why")));
    json_decref(status);
}

/* Ended, be it that nobody has collected its exit code. */
static bool ended(int pid)
{
    char path[64], *text;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    if (lithos_read_file(path, 8192, &text, NULL) < 0)
        return true;
    bool zombie = strstr(text, ") Z ") != NULL;
    free(text);
    return zombie;
}

/* Until it has been restarted so often and is ours again: the new control's pid. */
static int wait_restarts(const struct rig *rig, int wanted, unsigned seconds)
{
    char state[32], why[512];
    int pid = 0, restarts = 0;
    for (unsigned i = 0; i < seconds * 20; i++) {
        mps(rig, state, &pid, &restarts, why);
        if (restarts == wanted && !strcmp(state, "ours"))
            return pid;
        rig_sleep_ms(50);
    }
    fail_msg("%d restarts, wanted %d, state %s %s", restarts, wanted, state, why);
    return -1;
}

/* GPU 1 of the node has no hook: there quotas are held through MPS. */
static void coarse_message(union lithos_message *m, const char *name, const char *quota)
{
    rig_admit_message(m, name, quota);
    m->admit.gpu_count = 1;
    m->admit.gpus[0][15] = 2;
}

static void started_used_and_stopped(void **state)
{
    struct rig *rig = *state;
    char text[LITHOS_TEXT_MAX], dir[128];
    union lithos_message m;
    rig_start(rig, NULL);
    int pid = wait_restarts(rig, 0, 5);
    assert_true(pid > 0 && kill(pid, 0) == 0);
    struct rig_tenant masked = rig_tenant_named(rig, "masked", "33", RIG_WAIT);
    snprintf(dir, sizeof dir, "%s/d-mps", rig->dir);
    assert_int_equal(masked.answer.admitted.mode, LITHOS_MODE_MASK);
    assert_int_equal(masked.answer.admitted.mps, 1);
    assert_string_equal(masked.answer.admitted.mps_pipe_dir, dir);
    assert_string_equal(masked.answer.admitted.note, "");
    coarse_message(&m, "coarse", "22");
    struct rig_tenant coarse = rig_tenant(rig, &m, RIG_WAIT);
    assert_int_equal(coarse.answer.admitted.mode, LITHOS_MODE_COARSE);
    assert_int_equal(coarse.answer.admitted.thread_percentage, 33); /* 22 of 66 */
    assert_non_null(strstr(coarse.answer.admitted.note, "33%"));
    rig_admit_message(&m, "asked", "1");
    m.admit.want_coarse = 1;
    struct rig_tenant asked = rig_tenant(rig, &m, RIG_WAIT);
    assert_int_equal(asked.answer.admitted.mode, LITHOS_MODE_COARSE);
    assert_int_equal(asked.answer.admitted.thread_percentage, 1);
    assert_int_equal(rig_set(rig, "coarse", "2", text), -EOPNOTSUPP);
    kill(masked.pid, SIGKILL);
    kill(coarse.pid, SIGKILL);
    kill(asked.pid, SIGKILL);
    assert_true(rig_wait_free(rig, 66) < UINT64_MAX);
    assert_int_equal(rig_end(rig, SIGTERM), 0);
    assert_true(ended(pid));
    assert_int_equal(access(dir, F_OK), -1);
}

static void dead_and_wedged_are_restarted(void **state)
{
    struct rig *rig = *state;
    rig_start(rig, NULL);
    int pid = wait_restarts(rig, 0, 5);
    struct rig_tenant a = rig_tenant_named(rig, "a", "10", RIG_WAIT); /* busy: minded every 3 s */
    assert_int_equal(a.answer.admitted.mps, 1);
    kill(pid, SIGKILL);
    int second = wait_restarts(rig, 1, 10);
    assert_int_not_equal(second, pid);
    json_t *status = rig_status(rig);
    assert_true(json_is_true(json_object_get(rig_find_tenant(status, "a"), "mps_lost")));
    json_decref(status);
    touch(rig, "wedge");
    int third = wait_restarts(rig, 2, 25);
    assert_true(ended(second));
    touch(rig, "fault");
    int fourth = wait_restarts(rig, 3, 10);
    assert_int_not_equal(third, fourth);
    /* The daemon answered all the while: wait_restarts asks it 20 times a second. */
}

/* A tenant killed in the middle of its work may wedge the server in a way that only a kernel shows. */
static void hung_canary_restarts(void **state)
{
    struct rig *rig = *state;
    char path[128], *text;
    rig_start(rig, NULL);
    wait_restarts(rig, 0, 5);
    touch(rig, "hang");
    struct rig_tenant a = rig_tenant_named(rig, "a", "10", RIG_ATTACH);
    rig_sleep_ms(100);
    kill(a.pid, SIGKILL);
    wait_restarts(rig, 1, 20);
    struct rig_tenant b = rig_tenant_named(rig, "b", "10", RIG_ATTACH);
    rig_sleep_ms(100);
    kill(b.pid, SIGKILL); /* the folder is new and nothing hangs: no restart */
    rig_sleep_ms(1000);
    wait_restarts(rig, 1, 1);
    snprintf(path, sizeof path, "%s/canaries", rig->dir);
    assert_int_equal(lithos_read_file(path, 1000, &text, NULL), 0);
    assert_true(strlen(text) >= 1);
    free(text);
}

static void successor_takes_mps_over(void **state)
{
    struct rig *rig = *state;
    rig_start(rig, NULL);
    int pid = wait_restarts(rig, 0, 5);
    struct rig_tenant a = rig_tenant_named(rig, "a", "10", RIG_WAIT);
    rig_end(rig, SIGKILL);
    rig_start(rig, NULL);
    assert_int_equal(wait_restarts(rig, 0, 5), pid);
    assert_int_equal(rig_end(rig, SIGTERM), 0); /* a tenant lives: its MPS does too */
    assert_int_equal(kill(pid, 0), 0);
    kill(a.pid, SIGKILL);
    rig_start(rig, NULL);
    assert_int_equal(wait_restarts(rig, 0, 5), pid);
    assert_true(rig_wait_free(rig, 66) < UINT64_MAX);
    assert_int_equal(rig_end(rig, SIGTERM), 0);
    assert_true(ended(pid));
}

static void failing_start_is_told(void **state)
{
    struct rig *rig = *state;
    char path[160], mps_state[32], why[512];
    int pid, restarts;
    snprintf(path, sizeof path, "%s/bin/nvidia-cuda-mps-control.broken", rig->dir);
    assert_int_equal(lithos_write_file_atomic(path, "", 0, 0600), 0);
    rig_start(rig, NULL);
    mps(rig, mps_state, &pid, &restarts, why);
    assert_string_equal(mps_state, "failed");
    assert_non_null(strstr(why, "no device"));
    struct rig_tenant a = rig_tenant_named(rig, "a", "10", RIG_WAIT);
    assert_int_equal(a.answer.admitted.mps, 0);
    assert_int_equal(a.answer.admitted.mode, LITHOS_MODE_MASK);
    assert_non_null(strstr(a.answer.admitted.note, "take turns"));
    assert_non_null(strstr(a.answer.admitted.note, "no device"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(started_used_and_stopped, setup, teardown),
        cmocka_unit_test_setup_teardown(dead_and_wedged_are_restarted, setup, teardown),
        cmocka_unit_test_setup_teardown(hung_canary_restarts, setup, teardown),
        cmocka_unit_test_setup_teardown(successor_takes_mps_over, setup, teardown),
        cmocka_unit_test_setup_teardown(failing_start_is_told, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
