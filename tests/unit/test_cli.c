/* The parts of `lithos` that need no daemon: choosing GPUs, the environment, tables, status, children, ELF.
 */
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "cli/child.h"
#include "cli/demo_report.h"
#include "cli/document.h"
#include "cli/elf_needed.h"
#include "cli/environment.h"
#include "cli/gpus.h"
#include "cli/status_table.h"
#include "cli/table.h"
#include "proto/socket.h"

static const struct lithos_gpu_info three[] = {
    {.index = 0,
     .uuid_text = "GPU-00112233-4455-6677-8899-aabbccddeeff",
     .name = "A",
     .tpcs = 66,
     .free = 66},
    {.index = 1,
     .uuid_text = "GPU-00112244-4455-6677-8899-aabbccddeeff",
     .name = "B",
     .tpcs = 66,
     .free = 10},
    {.index = 2,
     .uuid_text = "GPU-f0112244-4455-6677-8899-aabbccddeeff",
     .name = "C",
     .tpcs = 54,
     .free = 54},
};

static void visible_as_the_driver_reads_it(void **state)
{
    static const struct {
        const char *text;
        unsigned count, gpus[3];
    } cases[] = {
        {"0", 1, {0}},
        {"2,0", 2, {2, 0}},
        {" 1 , 2", 2, {1, 2}},
        {"1,9,0", 1, {1}},  /* ends at the first that names none */
        {"1,1", 1, {1}},    /* and at a repeated one */
        {"GPU-f0", 1, {2}}, /* a beginning that fits one */
        {"gpu-F0112244-4455-6677-8899-AABBCCDDEEFF,0", 2, {2, 0}},
    };
    static const char *const none[] = {"",           "-1",    "9",  "GPU-", "GPU-0011",
                                       "NoDevFiles", "GPU-x", ",0", "0x1",  "99999999999"};
    struct lithos_gpu_choice c;
    char why[512];
    (void)state;

    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(cases); i++) {
        assert_int_equal(lithos_gpus_visible(cases[i].text, three, 3, &c, why, sizeof(why)), 0);
        assert_int_equal(c.count, cases[i].count);
        assert_memory_equal(c.gpus, cases[i].gpus, c.count * sizeof(unsigned));
    }
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(none); i++) {
        c.count = 77;
        assert_int_equal(lithos_gpus_visible(none[i], three, 3, &c, why, sizeof(why)), -ENODEV);
        assert_int_equal(c.count, 77);
        assert_non_null(strstr(why, "CUDA_VISIBLE_DEVICES"));
    }
}

static void gpu_option(void **state)
{
    const struct lithos_gpu_choice all = {3, {0, 1, 2}}, some = {2, {2, 0}};
    static const char *const bad[] = {"3", "", "0,", "x", "0,0", "-1", "0 1", "GPU-0011", "0,GPU-00112233"};
    struct lithos_gpu_choice c;
    char why[512];
    (void)state;

    assert_int_equal(lithos_gpus_choose("all", three, 3, &some, &c, why, sizeof(why)), 0);
    assert_memory_equal(&c, &some, sizeof(c));
    assert_int_equal(lithos_gpus_choose("1,GPU-f0", three, 3, &all, &c, why, sizeof(why)), 0);
    assert_int_equal(c.count, 2);
    assert_int_equal(c.gpus[0], 1);
    assert_int_equal(c.gpus[1], 2);
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(bad); i++)
        assert_int_equal(lithos_gpus_choose(bad[i], three, 3, &all, &c, why, sizeof(why)), -EINVAL);
    assert_int_equal(lithos_gpus_choose("1", three, 3, &some, &c, why, sizeof(why)), -EINVAL);
    assert_non_null(strstr(why, "hides GPU 1"));
}

static void preload(void **state)
{
    static const struct {
        const char *old, *value;
    } cases[] = {
        {NULL, "/l/x.so"},
        {"", "/l/x.so"},
        {"/a.so", "/l/x.so:/a.so"},
        {"/a.so /b.so", "/l/x.so:/a.so:/b.so"},
        {"/l/x.so:/a.so", "/l/x.so:/a.so"},
        {"/a.so::/l/x.so:/l/x.so2", "/l/x.so:/a.so:/l/x.so2"},
    };
    (void)state;

    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(cases); i++) {
        char *v = lithos_preload_value("/l/x.so", cases[i].old);
        assert_string_equal(v, cases[i].value);
        free(v);
    }
}

static void environment(void **state)
{
    static struct lithos_msg_admitted a;
    char tenant[LITHOS_TENANT_TEXT_MAX];
    (void)state;

    a.tenant = 7;
    memset(a.token, 0xab, sizeof(a.token));
    a.mode = LITHOS_MODE_COARSE;
    a.mps = 1;
    a.thread_percentage = 41;
    strcpy(a.mps_pipe_dir, "/p");
    a.grant.gpu_count = 2;
    assert_int_equal(lithos_uuid_parse(three[1].uuid_text, a.grant.gpus[0].uuid), 0);
    assert_int_equal(lithos_uuid_parse(three[2].uuid_text, a.grant.gpus[1].uuid), 0);
    unsetenv("LD_PRELOAD");
    setenv("CUDA_INJECTION64_PATH", "/their.so", 1);
    setenv("LITHOS_GRANT", "of an outer tenant", 1);
    assert_int_equal(lithos_environment_apply(&a, "/l/x.so", "/s", NULL), 0);
    assert_string_equal(getenv("LD_PRELOAD"), "/l/x.so");
    assert_string_equal(getenv("CUDA_INJECTION64_PATH"), "/their.so");
    assert_string_equal(getenv("LITHOS_TENANT"), lithos_tenant_format(7, a.token, tenant));
    assert_string_equal(getenv("LITHOS_SOCKET"), "/s");
    assert_string_equal(getenv("LITHOS_HOOK"), "off");
    assert_string_equal(getenv("CUDA_MPS_PIPE_DIRECTORY"), "/p");
    assert_string_equal(getenv("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"), "41");
    assert_string_equal(getenv("CUDA_VISIBLE_DEVICES"),
                        "GPU-00112244-4455-6677-8899-aabbccddeeff,GPU-f0112244-4455-6677-8899-aabbccddeeff");
    assert_null(getenv("LITHOS_GRANT"));
    a.mode = LITHOS_MODE_MASK;
    unsetenv("LD_PRELOAD");
    unsetenv("CUDA_INJECTION64_PATH");
    assert_int_equal(lithos_environment_apply(&a, "/l/x.so", "/s", "grant"), 0);
    assert_string_equal(getenv("CUDA_INJECTION64_PATH"), "/l/x.so");
    assert_null(getenv("LITHOS_HOOK"));
    assert_string_equal(getenv("LITHOS_GRANT"), "grant");
    a.mode =
        LITHOS_MODE_COARSE; /* a tenant of a tenant: profilers refuse to work beside what the outer one set */
    assert_int_equal(lithos_environment_apply(&a, "/l/x.so", "/s", NULL), 0);
    assert_null(getenv("CUDA_INJECTION64_PATH"));
    assert_int_equal(lithos_environment_apply(&a, "/l l/x.so", "/s", NULL), -EINVAL);
    assert_int_equal(lithos_environment_apply(&a, "/l:l/x.so", "/s", NULL), -EINVAL);
    unsetenv("LD_PRELOAD");
}

static char *printed_table(const struct lithos_table *t)
{
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);

    assert_int_equal(lithos_table_print(t, f), 0);
    fclose(f);
    return text;
}

static void table(void **state)
{
    static const char *const headings[] = {"NAME", ">N", "WHAT"};
    struct lithos_table *t = lithos_table_new(headings, 3);
    (void)state;

    lithos_table_cell(t, "%s", "a");
    lithos_table_cell(t, "%d", 5);
    lithos_table_cell(t, "%s", "\xc3\xa9t\xc3\xa9"); /* two bytes, one column */
    lithos_table_cell(t, "%s", "longer");
    lithos_table_cell(t, "%d", 1000);
    char *text = printed_table(t);
    assert_string_equal(text, "NAME       N  WHAT\n"
                              "a          5  \xc3\xa9t\xc3\xa9\n"
                              "longer  1000\n");
    free(text);
    lithos_table_free(t);
    assert_null(lithos_table_new(headings, 0));
    assert_null(lithos_table_new(headings, LITHOS_TABLE_COLUMNS_MAX + 1));
}

static const char document_text[] =
    "{\"gpus\": [{\"index\": 0, \"uuid\": \"GPU-00112233-4455-6677-8899-aabbccddeeff\", \"name\": \"H\", "
    "\"tpcs\": 66, \"free\": 53},"
    "  {\"index\": 1, \"uuid\": \"broken\", \"tpcs\": 5}, 3],"
    " \"tenants\": [{\"name\": \"one\", \"pids\": [{\"pid\": 10, \"alive\": false}, {\"pid\": 11, \"alive\": "
    "true}, {\"pid\": 12}, {\"pid\": 13}, {\"pid\": "
    "14}],"
    "   \"quota\": \"20%\", \"mode\": \"mask\", \"gpus\": [{\"index\": 0, \"bits\": \"0-3,9-17\", \"lent\": "
    "7, \"lent_away\": 2}, "
    "{\"index\": 1, \"bits\": \"4\"}],"
    "   \"graphs\": {\"followed\": 4, \"nodes\": 12, \"keep\": {\"nodes\": 0, \"driver\": 1, \"together\": "
    "2}},"
    "   \"counters\": {\"launches\": 100, \"escaped\": 1, \"breaches\": 2}},"
    "  {\"name\": \"quiet\", \"gpus\": [], \"graphs\": {\"followed\": 4, \"keep\": {\"nodes\": 0}}},"
    "  {\"name\": \"damaged\", \"gpus\": [{\"index\": 0, \"bits\": \"9-0\"}]}, null]}";

static void status(void **state)
{
    json_t *document = json_loads(document_text, 0, NULL), *empty = json_object();
    struct lithos_gpu_info gpus[LITHOS_MAX_GPUS];
    char *text = NULL;
    size_t len;
    (void)state;

    assert_non_null(document);
    assert_int_equal(lithos_document_gpus(document, gpus), 1);
    assert_int_equal(gpus[0].tpcs, 66);
    assert_int_equal(gpus[0].free, 53);
    FILE *f = open_memstream(&text, &len);
    assert_int_equal(lithos_status_print(document, f), 0);
    assert_int_equal(lithos_status_print(empty, f), 0);
    fclose(f);
    assert_non_null(strstr(
        text,
        "one      11,12,13,+1    0    20%    13  0-3,9-17     7     2  mask       100        1         2\n"));
    assert_non_null(strstr(text, "no tenants\n"));
    assert_non_null(strstr(text, "\none: graphs that were given other TPCs: 4; that kept some of those "
                                 "before: 1 driver, 2 together\n"));
    assert_null(strstr(text, "quiet: graphs"));
    free(text);
    json_decref(document);
    json_decref(empty);
}

static void children(void **state)
{
    struct lithos_child c = LITHOS_CHILD_NONE;
    const char *const echo[] = {"sh", "-c", "echo \"$GREETING ${GONE-unset}\"; echo err >&2; exit 3", NULL};
    const char *const env[] = {"GREETING=hello", "GONE", NULL};
    const char *const missing[] = {"/no/such/program", NULL};
    const char *const slow[] = {"sleep", "100", NULL};
    const char *const talk[] = {"sh", "-c", "echo ready; read x; echo got $x; sleep 0.1; echo end", NULL};
    int status;
    (void)state;

    setenv("GONE", "here", 1);
    assert_int_equal(lithos_child_run(&c, echo, env, 10 * LITHOS_NSEC_PER_SEC, &status), 0);
    assert_int_equal(WEXITSTATUS(status), 3);
    assert_string_equal(c.out.text, "hello unset\n");
    assert_string_equal(c.err.text, "err\n");
    lithos_child_end(&c, 0);
    assert_int_equal(lithos_child_run(&c, missing, NULL, LITHOS_NSEC_PER_SEC, &status), -ENOENT);
    assert_int_equal(lithos_child_run(&c, slow, NULL, LITHOS_NSEC_PER_SEC / 10, &status), -ETIMEDOUT);
    lithos_child_end(&c, 0);

    assert_int_equal(lithos_child_start(&c, talk, NULL), 0);
    assert_int_equal(lithos_child_wait_for(&c, "ready\n", lithos_now_ns() + 5 * LITHOS_NSEC_PER_SEC), 0);
    assert_int_equal(lithos_child_tell(&c, "word\n"), 0);
    assert_int_equal(lithos_child_wait(&c, lithos_now_ns() + 5 * LITHOS_NSEC_PER_SEC, &status), 0);
    assert_int_equal(status, 0);
    assert_string_equal(c.out.text, "ready\ngot word\nend\n");
    assert_int_equal(lithos_child_wait_for(&c, "never", lithos_now_ns() + LITHOS_NSEC_PER_SEC), -ECHILD);
    lithos_child_end(&c, 0);

    assert_int_equal(lithos_child_start(&c, slow, NULL), 0);
    pid_t pid = c.pid;
    lithos_child_end(&c, 1000);
    assert_int_equal(kill(pid, 0), -1);
    assert_int_equal(errno, ESRCH);
}

static void elf(void **state)
{
    char names[4096];
    (void)state;

    strcpy(names, "untouched");
    assert_int_equal(lithos_elf_needed("/etc/passwd", names, sizeof(names)), -ENOEXEC);
    assert_int_equal(lithos_elf_needed("/no/such/file", names, sizeof(names)), -ENOENT);
    assert_string_equal(names, "untouched");
    assert_int_equal(lithos_elf_needed("/proc/self/exe", names, sizeof(names)), 0);
    assert_non_null(strstr(names, "libc.so.6"));
    assert_non_null(strstr(names, "libcmocka.so"));
    assert_int_equal(lithos_elf_needed("/proc/self/exe", names, 5), -ENAMETOOLONG);
}

static struct lithos_demo_report good_report(void)
{
    struct lithos_demo_report r = {
        .count = 3,
        .rows = {{.name = "hp", .hp = true, .hp_p50_us = 98, .hp_p99_us = 100, .hp_served = 400},
                 {.name = "be", .be = true, .be_rate = 66},
                 {.name = "both",
                  .hp = true,
                  .be = true,
                  .hp_p50_us = 98,
                  .hp_p99_us = 119,
                  .hp_served = 400,
                  .be_rate = 33,
                  .mode = "mask",
                  .checked = true}},
    };

    lithos_tpcset_add(&r.rows[2].hp_tpcs, 3);
    lithos_tpcset_add(&r.rows[2].be_tpcs, 100);
    return r;
}

static bool passes(const struct lithos_demo_report *r)
{
    FILE *null = fopen("/dev/null", "w");
    bool passed = lithos_demo_verdict(r, null);

    fclose(null);
    return passed;
}

static void verdict(void **state)
{
    struct lithos_demo_report r = good_report();
    struct lithos_demo_result *last = &r.rows[2];
    (void)state;

    assert_true(passes(&r));
    last->hp_p99_us = 121;
    assert_false(passes(&r));
    r = good_report();
    lithos_tpcset_add(&last->be_tpcs, 3);
    assert_false(passes(&r));
    r = good_report();
    last->be_tpcs = (struct lithos_tpcset){{0, 0}};
    assert_false(passes(&r));
    r = good_report();
    last->escaped = 1;
    assert_false(passes(&r));
    r = good_report();
    last->breaches = 1;
    assert_false(passes(&r));
    r = good_report();
    last->checked = false;
    assert_false(passes(&r));
    r = good_report();
    last->hp_unserved = 1;
    assert_false(passes(&r));
    r = good_report();
    r.rows[0].hp_p99_us = 0; /* nothing to compare with */
    assert_false(passes(&r));
}

static void demo_table_and_json(void **state)
{
    struct lithos_demo_report r = good_report();
    static struct lithos_demo d;
    static const char format[] = "%-4s  %14s  %6s  %11s  %10s  %16s  %4s\n";
    char *text = NULL, expected[256];
    size_t len;
    (void)state;

    r.rows[2].hp_unserved = 7;
    FILE *f = open_memstream(&text, &len);
    assert_int_equal(lithos_demo_print(&r, f), 0);
    fclose(f);
    snprintf(expected, sizeof(expected), format, "be", "-", "-", "-", "-", "66.0", "100%");
    assert_non_null(strstr(text, expected));
    snprintf(expected, sizeof(expected), format, "both", ">98.0", ">119.0", ">1.19", "400 of 407", "33.0",
             "50%");
    assert_non_null(strstr(text, expected));
    free(text);
    json_t *document = lithos_demo_json(&d, &r, true),
           *last = json_array_get(json_object_get(document, "cases"), 2);
    assert_string_equal(lithos_json_string(last, "be_tpcs"), "100");
    assert_true(lithos_json_number(last, "be_kept") == 0.5);
    assert_true(lithos_json_true(document, "passed"));
    json_decref(document);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(visible_as_the_driver_reads_it),
        cmocka_unit_test(gpu_option),
        cmocka_unit_test(preload),
        cmocka_unit_test(environment),
        cmocka_unit_test(table),
        cmocka_unit_test(status),
        cmocka_unit_test(children),
        cmocka_unit_test(elf),
        cmocka_unit_test(verdict),
        cmocka_unit_test(demo_table_and_json),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
