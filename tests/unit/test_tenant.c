/* liblithos.so beside a daemon that the test plays: attaching, live changes, a daemon that dies, lies or is slow, forks. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cmocka.h>

#include "base/util.h"
#include "cards.h"
#include "cuda/cuda_abi.h"
#include "proto/arena.h"
#include "proto/grant_text.h"
#include "proto/message.h"
#include "proto/socket.h"
#include "stub/fake_daemon.h"

static void attaches(void)
{
    daemon_starts(GOOD, "9-16");
    tenant_starts();
    CHECK_EQ(fake.asked.tenant, TENANT);
    CHECK_EQ(fake.asked.token[3], 7);
    CHECK_EQ(fake.asked.hook_active, 1);
    CHECK(strstr(fake.asked.process, "test_tenant"));
    launch();
    CHECK(masked_with("9-16"));
    /* the daemon sees what is counted */
    CHECK_EQ(lithos_arena_counter(fake.arena, LITHOS_COUNTER_LAUNCHES), 1);
    CHECK_EQ(lithos_arena_counter(fake.arena, LITHOS_COUNTER_MASKED), 1);
    /* `lithos set`: in force with the next launch */
    struct lithos_grant grant = grant_of("0-3,75");
    for (int i = 0; i < 1000; i++) {
        grant.epoch++;
        CHECK_EQ(lithos_tpcset_parse(i & 1 ? "0-3,75" : "9-16", &grant.gpus[0].own), 0);
        lithos_arena_publish(fake.arena, &grant);
        launch();
        CHECK(masked_with(i & 1 ? "0-3,75" : "9-16"));
    }
    /* a grant that is not sane never comes into force */
    struct lithos_grant bad = grant;
    bad.gpus[0].own = (struct lithos_tpcset){{0, 0}};
    lithos_arena_publish(fake.arena, &bad);
    launch();
    CHECK(masked_with("0-3,75"));
    /* nor does half a one */
    atomic_fetch_add(&fake.arena->grant_seq, 1);
    launch();
    CHECK(masked_with("0-3,75"));
    daemon_dies();
}

static void test_attaches(void **state)
{
    (void)state;
    assert_int_equal(in_child(attaches, NULL, 0), 0);
}

static void publish(const char *own, enum lithos_class class)
{
    static uint64_t epoch = 1;
    struct lithos_grant grant = grant_of(own);
    grant.epoch = ++epoch;
    grant.class = class;
    lithos_arena_publish(fake.arena, &grant);
}

static int sms_told(void)
{
    int value = -1;
    CHECK_EQ(((CUresult(*)(int *, int, CUdevice))OURS("cuDeviceGetAttribute"))(
                 &value, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 0),
             CUDA_SUCCESS);
    return value;
}

/* The SMs that the app is told of follow the grant, with no launch in between. */
static void told_by_grant(void)
{
    daemon_starts(GOOD, "9-16");
    tenant_starts();
    lithos_tpcset_parse(H200_VALID, &stub->valid);
    CHECK_EQ(sms_told(), 16);
    publish("0-3", LITHOS_CLASS_HIGH);
    CHECK_EQ(sms_told(), 8);
    publish("0-3", LITHOS_CLASS_BEST_EFFORT); /* lent others' */
    CHECK_EQ(sms_told(), 132);
    publish("0-3,9-16,18-21", LITHOS_CLASS_HIGH);
    CHECK_EQ(sms_told(), 32);
    publish(H200_VALID, LITHOS_CLASS_HIGH);
    CHECK_EQ(sms_told(), 132);
    daemon_dies();
}

static void told_as_asked(void)
{
    setenv("LITHOS_SM_COUNT", "quota", 1);
    daemon_starts(GOOD, "9-16");
    tenant_starts();
    lithos_tpcset_parse(H200_VALID, &stub->valid);
    publish("0-3", LITHOS_CLASS_BEST_EFFORT);
    CHECK_EQ(sms_told(), 8);
    daemon_dies();
}

static void test_told(void **state)
{
    (void)state;
    assert_int_equal(in_child(told_by_grant, NULL, 0), 0);
    assert_int_equal(in_child(told_as_asked, NULL, 0), 0);
}

static void daemon_comes_back(void)
{
    daemon_starts(GOOD, "9-16");
    tenant_starts();
    launch();
    CHECK(masked_with("9-16"));
    for (int i = 0; i < 3; i++) {
        daemon_dies();
        usleep(50000);
        launch(); /* nobody there: the quota holds */
        CHECK(stub->last_masked);
        daemon_starts(GOOD, i & 1 ? "9-16" : "18-25"); /* the same sequence number for another grant */
        wait_for_attach();
        launch();
        CHECK(masked_with(i & 1 ? "9-16" : "18-25"));
    }
    /* what was counted before went along */
    CHECK_EQ(lithos_arena_counter(fake.arena, LITHOS_COUNTER_LAUNCHES), 7);
    daemon_dies();
}

static void test_daemon_comes_back(void **state)
{
    (void)state;
    assert_int_equal(in_child(daemon_comes_back, NULL, 0), 0);
}

/* Whatever the daemon does, the app starts within a bound and holds the quota that `lithos run` was granted. */
static void bad_daemon(void)
{
    char text[LITHOS_GRANT_TEXT_MAX];
    struct lithos_grant grant = grant_of("54-62");
    CHECK_EQ(lithos_grant_format(&grant, text, sizeof text), 0);
    setenv("LITHOS_GRANT", text, 1);
    const char *manner = getenv("MANNER");
    CHECK(manner);
    daemon_starts((enum manner)atoi(manner), "9-16");
    tenant_starts();
    launch();
    CHECK(masked_with("54-62"));
    CHECK_EQ(lithos_arena_counter(home, LITHOS_COUNTER_LAUNCHES), 1);
}

static void test_bad_daemons(void **state)
{
    (void)state;
    for (int manner = SILENT; manner <= TORN; manner++) {
        char number[16];
        snprintf(number, sizeof number, "%d", manner);
        setenv("MANNER", number, 1);
        assert_int_equal(in_child(bad_daemon, NULL, 0), 0);
    }
}

static void bad_grant_text(void)
{
    setenv("LITHOS_SOCKET", "/nonexistent/sock", 1);
    setenv("LITHOS_GRANT", "GPU-a0a0;", 1);
    tenant_starts();
    launch();
    CHECK(!stub->last_masked);
    CHECK_EQ(lithos_arena_counter(home, LITHOS_COUNTER_UNMASKED), 1);
}

static void bad_tenant_text(void)
{
    load_stub();
    setenv("LITHOS_TENANT", "nonsense", 1);
    CHECK_EQ(((init_fn)OURS("cuInit"))(0), 0);
    CHECK_EQ(stub->subscriptions, 0);
}

static void test_bad_environment(void **state)
{
    (void)state;
    char said[4096];
    assert_int_equal(in_child(bad_grant_text, said, sizeof said), 0);
    assert_non_null(strstr(said, "LITHOS_GRANT cannot be read"));
    unsetenv("LITHOS_GRANT");
    assert_int_equal(in_child(bad_tenant_text, said, sizeof said), 0);
    assert_non_null(strstr(said, "LITHOS_TENANT is not of the form"));
}

/* ---- forks and threads ---- */

static void forks(void)
{
    daemon_starts(GOOD, "9-16");
    tenant_starts();
    launch();
    pid_t pid = fork();
    if (pid == 0) {
        alarm(10);
        CHECK_EQ(lithos_arena_counter(home, LITHOS_COUNTER_LAUNCHES), 0); /* memory of its own */
        CHECK_EQ(((init_fn)OURS("cuInit"))(0), 0);                        /* attaches by itself */
        launch();
        CHECK(masked_with("9-16"));
        CHECK_EQ(lithos_arena_counter(home, LITHOS_COUNTER_LAUNCHES), 1);
        _exit(0);
    }
    int status;
    waitpid(pid, &status, 0);
    CHECK_EQ(status, 0);
    CHECK_EQ(lithos_arena_counter(home, LITHOS_COUNTER_LAUNCHES), 1);
    CHECK_EQ(atomic_load(&fake.attached), 2);
    launch();
    CHECK(masked_with("9-16"));
    daemon_dies();
}

static void test_forks(void **state)
{
    (void)state;
    assert_int_equal(in_child(forks, NULL, 0), 0);
}

static _Atomic int publishing;

static void *publish_on_and_on(void *unused)
{
    struct lithos_grant grant = grant_of("9-16");
    while (atomic_load(&publishing)) {
        grant.epoch++;
        lithos_tpcset_parse(grant.epoch & 1 ? "0-3" : "9-16", &grant.gpus[0].own);
        lithos_arena_publish(fake.arena, &grant);
    }
    return unused;
}

static _Atomic int odd_masks, masks;

static void mask_seen(const struct lithos_tpcset *set, int masked)
{
    char text[LITHOS_TPCSET_TEXT_MAX];
    lithos_tpcset_format(set, text);
    masks++;
    if (!masked || (strcmp(text, "0-3") != 0 && strcmp(text, "9-16") != 0))
        odd_masks++;
}

static void *launch_on_and_on(void *unused)
{
    for (int i = 0; i < 3000; i++)
        launch();
    return unused;
}

/* Live changes under many launching threads: each QMD gets one grant or the other, never a mixture. */
static void races(void)
{
    daemon_starts(GOOD, "9-16");
    tenant_starts();
    stub->on_mask = mask_seen;
    pthread_t publisher, threads[4];
    atomic_store(&publishing, 1);
    CHECK(!pthread_create(&publisher, NULL, publish_on_and_on, NULL));
    for (int i = 0; i < 4; i++)
        CHECK(!pthread_create(&threads[i], NULL, launch_on_and_on, NULL));
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    atomic_store(&publishing, 0);
    pthread_join(publisher, NULL);
    CHECK_EQ(masks, 12000);
    CHECK_EQ(odd_masks, 0);
    CHECK_EQ(lithos_arena_counter(home, LITHOS_COUNTER_LAUNCHES), 12000);
    CHECK_EQ(lithos_arena_counter(home, LITHOS_COUNTER_ESCAPED), 0);
    daemon_dies();
}

static void test_races(void **state)
{
    (void)state;
    assert_int_equal(in_child(races, NULL, 0), 0);
}

static unsigned other_calls;

static void other_callback(void *user, int domain, int id, const void *params)
{
    (void)user, (void)domain, (void)id, (void)params;
    other_calls++;
}

/* As a profiler in the program does, which finds cuGetExportTable so. */
static void other_subscribes(CUresult (*get_table)(const void **, const CUuuid *))
{
    static const CUuuid uuid = LITHOS_QMD_TABLE_UUID;
    const void *table = NULL;
    uint32_t handle;
    CHECK_EQ(get_table(&table, &uuid), 0);
    void *const *entries = table;
    CHECK_EQ(((lithos_qmd_subscribe_fn)entries[LITHOS_QMD_TABLE_SUBSCRIBE])(&handle, other_callback, NULL),
             0);
    CHECK_EQ(((lithos_qmd_enable_fn)entries[LITHOS_QMD_TABLE_ENABLE])(1, handle, LITHOS_QMD_DOMAIN,
                                                                      LITHOS_QMD_CALLBACK_ID),
             0);
}

/* First: LithOS leaves the driver's callback to it, and says so at once. */
static void steps_aside(void)
{
    daemon_starts(GOOD, "9-16");
    setenv("LITHOS_TENANT", "42:07070707070707070707070707070707", 1);
    load_stub();
    other_subscribes((CUresult(*)(const void **, const CUuuid *))OURS("cuGetExportTable"));
    tenant_starts();
    CHECK_EQ(stub->subscriptions, 1);
    launch();
    CHECK_EQ(other_calls, 1);
    CHECK_EQ(lithos_arena_counter(home, LITHOS_COUNTER_LAUNCHES), 1);
    CHECK_EQ(lithos_arena_counter(home, LITHOS_COUNTER_QMDS), 0);
    daemon_dies();
}

static void test_steps_aside(void **state)
{
    (void)state;
    char said[4096];
    assert_int_equal(in_child(steps_aside, said, sizeof said), 0);
    assert_non_null(strstr(said, "has subscribed to the driver first"));
    assert_non_null(strstr(said, "lithos run --coarse"));
}

/* Second: it is told that it will see nothing; the quota is held. */
static void comes_second(void)
{
    daemon_starts(GOOD, "9-16");
    load_stub();
    tenant_starts();
    other_subscribes((CUresult(*)(const void **, const CUuuid *))OURS("cuGetExportTable"));
    launch();
    CHECK_EQ(other_calls, 0);
    CHECK_EQ(lithos_arena_counter(home, LITHOS_COUNTER_MASKED), 1);
    daemon_dies();
}

static void test_comes_second(void **state)
{
    (void)state;
    char said[4096];
    assert_int_equal(in_child(comes_second, said, sizeof said), 0);
    assert_non_null(strstr(said, "the tool will see no kernels"));
}

/* CUPTI refuses without asking the driver: the profiler that called it is told why. */
static void cupti_subscribes(void)
{
    typedef int (*subscribe_fn)(void **, void *, void *);
    daemon_starts(GOOD, "9-16");
    load_stub();
    tenant_starts();
    subscribe_fn subscribe = (subscribe_fn)OURS("cuptiSubscribe");
    CHECK_EQ(subscribe(NULL, NULL, NULL), 15); /* none is loaded */
    CHECK(dlopen(STUB_CUPTI_PATH, RTLD_NOW | RTLD_LOCAL));
    CHECK_EQ(subscribe(NULL, NULL, NULL), 39);
    daemon_dies();
}

static void test_cupti_subscribes(void **state)
{
    (void)state;
    char said[4096];
    assert_int_equal(in_child(cupti_subscribes, said, sizeof said), 0);
    assert_non_null(strstr(said, "the tool will see no kernels"));
}

/* One that holds the one QMD subscription and went past us to get it: launches go on, the user is told that the quota is not held. */
static void deaf(void)
{
    daemon_starts(GOOD, "9-16");
    load_stub();
    void *driver = dlopen(STUB_PATH, RTLD_NOW | RTLD_NOLOAD);
    CHECK(driver);
    other_subscribes((CUresult(*)(const void **, const CUuuid *))dlsym(driver, "cuGetExportTable"));
    tenant_starts();
    for (int i = 0; i < 1500; i++)
        launch();
    CHECK_EQ(lithos_arena_counter(home, LITHOS_COUNTER_LAUNCHES), 1500);
    CHECK_EQ(lithos_arena_counter(home, LITHOS_COUNTER_QMDS), 0);
    usleep(1300000); /* the link thread looks once a second */
    daemon_dies();
}

static void test_deaf(void **state)
{
    (void)state;
    char said[4096];
    assert_int_equal(in_child(deaf, said, sizeof said), 0);
    assert_non_null(strstr(said, "does not call the QMD hook"));
}

/* A program that never calls CUDA gets neither thread nor connection. */
static void idle(void)
{
    daemon_starts(GOOD, "9-16");
    setenv("LITHOS_TENANT", "42:07070707070707070707070707070707", 1);
    load_with(STUB_PATH);
    usleep(50000);
    CHECK_EQ(atomic_load(&fake.attached), 0);
    daemon_dies();
}

static void test_idle(void **state)
{
    (void)state;
    assert_int_equal(in_child(idle, NULL, 0), 0);
}

/* ---- the grant as text ---- */

static void test_grant_text(void **state)
{
    (void)state;
    char text[LITHOS_GRANT_TEXT_MAX];
    struct lithos_grant grant = grant_of("0-3,54-62"), back;
    grant.gpu_count = LITHOS_MAX_GPUS;
    for (unsigned i = 1; i < LITHOS_MAX_GPUS; i++) {
        grant.gpus[i] = grant.gpus[0];
        memset(grant.gpus[i].uuid, (int)i, LITHOS_UUID_BYTES);
    }
    grant.epoch = 0;
    assert_int_equal(lithos_grant_format(&grant, text, sizeof text), 0);
    assert_int_equal(lithos_grant_parse(text, &back), 0);
    assert_memory_equal(&grant, &back, sizeof grant);
    assert_int_equal(lithos_grant_format(&grant, text, 20), -ENOSPC);
    static const char *const bad[] = {
        "",
        ";",
        "GPU-00000000-0000-0000-0000-000000000001",
        "GPU-00000000-0000-0000-0000-000000000001/0-3/0-3/2/9",
        "GPU-00000000-0000-0000-0000-000000000001/0-3/0-3/2/9/8/1",
        "GPU-00000000-0000-0000-0000-000000000001/-/0-3/2/9/8",
        "GPU-00000000-0000-0000-0000-000000000001/5/0-3/2/9/8",
        "GPU-00000000-0000-0000-0000-000000000001/0-3/0-3/-2/9/8",
        "GPU-00000000-0000-0000-0000-000000000001/0-3/0-3/2/9/99999",
        "GPU-00000000-0000-0000-0000-000000000001/0-3/0-3/2/9/8;",
        "GPU-00000000-0000-0000-0000-00000000000/0-3/0-3/2/9/8",
    };
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(bad); i++)
        if (lithos_grant_parse(bad[i], &back) != -EINVAL)
            fail_msg("taken: %s", bad[i]);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    unsetenv("LITHOS_TENANT");
    unsetenv("LITHOS_GRANT");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attaches),     cmocka_unit_test(test_daemon_comes_back),
        cmocka_unit_test(test_bad_daemons),  cmocka_unit_test(test_bad_environment),
        cmocka_unit_test(test_told),         cmocka_unit_test(test_forks),
        cmocka_unit_test(test_races),        cmocka_unit_test(test_idle),
        cmocka_unit_test(test_deaf),         cmocka_unit_test(test_steps_aside),
        cmocka_unit_test(test_comes_second), cmocka_unit_test(test_cupti_subscribes),
        cmocka_unit_test(test_grant_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
