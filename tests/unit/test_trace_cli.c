/* lithos trace, the program: a trace of two tenants through stat, export and validate, judged by Python's JSON. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "trace/writer.h"

static char folder[] = "/tmp/lithos-trace-XXXXXX";

/* Exit code of a command, run in the folder with `lithos` in the PATH. */
static int run(const char *command)
{
    char *line = NULL;

    assert_true(asprintf(&line,
                         "cd %s && PATH=%s/bin:$PATH; { %s; } 2>errors; code=$?; mv errors said; exit $code",
                         folder, LITHOS_BINARY_DIR, command) > 0);
    int status = system(line);
    free(line);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#define CHECK(command, code)                                 \
    do {                                                     \
        int code_ = run(command);                            \
        if (code_ != (code))                                 \
            fail_msg("exit code %d of: %s", code_, command); \
    } while (0)

static void add(struct lithos_trace_writer *w, struct lithos_trace_event e)
{
    assert_int_equal(lithos_trace_writer_event(w, &e), 0);
}

static void write_trace(int fd)
{
    const struct lithos_trace_writer_options o = {
        .start_ns = 1000000, .realtime_ns = 1700000000000000000, .level = 1};
    struct lithos_trace_writer *w;

    assert_int_equal(lithos_trace_writer_new(fd, &o, &w), 0);
    add(w,
        (struct lithos_trace_event){.kind = LITHOS_TRACE_GPU,
                                    .time_ns = 1000000,
                                    .gpu = {.name = "NVIDIA H200", .topology = {{{0xffff, 0}}, 2, 8, 2, 0}}});
    for (uint32_t t = 1; t <= 2; t++) {
        add(w, (struct lithos_trace_event){.kind = LITHOS_TRACE_TENANT,
                                           .time_ns = 1000000,
                                           .tenant = {t, 100 + t, t == 1 ? "serve" : "train\x1b[2J"}});
        add(w, (struct lithos_trace_event){.kind = LITHOS_TRACE_GRANT,
                                           .time_ns = 1000000,
                                           .grant = {t, 0, {{t == 1 ? 0xff : 0xf00, 0}}}});
    }
    for (unsigned i = 0; i < 200; i++) {
        uint32_t t = 1 + i % 2;
        uint64_t at_ns = 2000000 + 10000ull * i;
        add(w, (struct lithos_trace_event){.kind = LITHOS_TRACE_KERNEL,
                                           .time_ns = at_ns,
                                           .kernel = {.tenant = t,
                                                      .stream = i % 4,
                                                      .pid = 100 + t,
                                                      .sequence = i / 2 + 1,
                                                      .function = i % 4 < 2 ? "gemm" : "\xff\"odd\"",
                                                      .grid = {132, 1, 1},
                                                      .block = {256, 1, 1},
                                                      .tpcs = {{t == 1 ? 0xff : 0xf00, 0}},
                                                      .start_ns = at_ns + 2000,
                                                      .end_ns = at_ns + 2000 + (t == 1 ? 5000 : 15000),
                                                      .predicted_ns = 5000}});
        if (i == 99)
            assert_int_equal(lithos_trace_writer_flush(w), 0);
    }
    add(w, (struct lithos_trace_event){
               .kind = LITHOS_TRACE_CLOCK, .time_ns = 2000000, .clock = {0, 5, 7, 1, 800}});
    add(w, (struct lithos_trace_event){.kind = LITHOS_TRACE_DROP,
                                       .time_ns = 3000000,
                                       .drop = {2, 102, 0, LITHOS_TRACE_DROP_STAMP_RING, 3}});
    add(w, (struct lithos_trace_event){
               .kind = LITHOS_TRACE_TENANT_END, .time_ns = 4000000, .tenant = {.id = 1}});
    assert_int_equal(lithos_trace_writer_free(w), 0);
}

static int setup(void **state)
{
    (void)state;
    char path[64];

    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof(path), "%s/t.lt", folder);
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    write_trace(fd);
    close(fd);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    char command[64];

    snprintf(command, sizeof(command), "rm -r %s", folder);
    return system(command);
}

static void stat_counts(void **state)
{
    (void)state;
    CHECK("lithos trace stat t.lt --json > stat.json", 0);
    CHECK("python3 -c 'import json; d = json.load(open(\"stat.json\")); r = d[\"rows\"]\n"
          "assert d[\"events\"][\"kernel\"] == 200 and d[\"truncated_bytes\"] == 0 and d[\"error\"] is None\n"
          "assert len(r) == 4 and [x[\"count\"] for x in r] == [50] * 4, r\n"
          "assert r[0][\"tenant\"] == 2 and r[0][\"p50_ns\"] == 15000 and r[0][\"share\"] == 0.375, r[0]\n"
          "assert d[\"gpus\"][0][\"clock_bound_ns\"] == 800 and d[\"gpus\"][0][\"tpcs\"] == 16\n"
          "assert d[\"drops\"] == [dict(tenant=2, name=d[\"drops\"][0][\"name\"], reason=\"stamp_ring\", "
          "count=3)]'",
          0);
    CHECK(
        "lithos trace stat --by tenant t.lt > table; grep -q '^  100 .* serve$' table && grep -q 0.800 table",
        0);
    CHECK("grep -q 'dropped: 3 of tenant train?.2J: stamp_ring' table && ! grep -q '\x1b' table", 0);
    CHECK("lithos trace stat --by stream --json t.lt | python3 -c 'import json, sys\n"
          "assert [x[\"stream\"] for x in json.load(sys.stdin)[\"rows\"]] == [1, 3, 0, 2]'",
          0);
    CHECK("lithos trace stat --top 1 t.lt | grep -q '^... and 3 more$'", 0);
    CHECK("lithos trace stat - < t.lt > again && lithos trace stat t.lt | cmp - again", 0);
}

static void export_is_what_perfetto_reads(void **state)
{
    (void)state;
    CHECK("lithos trace export t.lt -o t.json && lithos trace export t.lt | cmp - t.json", 0);
    CHECK(
        "python3 -c 'import json, collections; d = json.load(open(\"t.json\")); e = d[\"traceEvents\"]\n"
        "ph = collections.Counter(x[\"ph\"] for x in e)\n"
        "assert ph == dict(X=200, C=4, i=7, M=9), ph\n" /* 2 grants, 1 end, 1 clock; 1 GPU, 2 + 2 + 1 tenants, 1 drop */
        "k = [x for x in e if x[\"ph\"] == \"X\"]\n"
        "assert k[0][\"ts\"] == 1002 and k[0][\"dur\"] == 5 and k[1][\"dur\"] == 15, k[0]\n"
        "assert k[0][\"args\"][\"tpcs\"] == 8 and k[1][\"args\"][\"tpc_bits\"] == \"8-11\"\n"
        "assert k[1][\"args\"][\"off_us\"] == 10 and k[0][\"args\"][\"queued_us\"] == 2\n"
        "assert k[2][\"name\"] == \"?\\\"odd\\\"\" and len({x[\"tid\"] for x in k}) == 4\n"
        "assert [x[\"args\"][\"TPCs\"] for x in e if x[\"name\"] == \"TPCs of GPU 0\"] == [8, 4, 0]\n"
        "assert d[\"otherData\"][\"dropped\"] == 3'",
        0);
}

static void damage_and_cuts_are_told(void **state)
{
    (void)state;
    CHECK("lithos trace validate t.lt | grep -q '^t.lt: whole: 208 events in 2 blocks'", 0);
    CHECK("head -c -9 t.lt > cut.lt; lithos trace validate cut.lt > out", 1);
    CHECK(
        "grep -q '^cut.lt: cut: 105 events in 1 blocks' out && grep -q 'last [0-9]* bytes are left out' said",
        0);
    CHECK("lithos trace stat --json cut.lt > cut.json && grep -q 'left out' errors", 0);
    CHECK("python3 -c 'import json; d = json.load(open(\"cut.json\"))\n"
          "assert d[\"truncated_bytes\"] > 0 and d[\"events\"][\"kernel\"] == 100, d'",
          0);
    CHECK("(head -c 200 t.lt; echo; tail -c +202 t.lt) > bad.lt; lithos trace export bad.lt -o bad.json", 1);
    CHECK("python3 -c 'import json; json.load(open(\"bad.json\"))'", 0);
    CHECK("lithos trace stat --json bad.lt | grep -q 'block 0 at byte 40: the CRC is wrong'", 0);
    CHECK("lithos trace stat /dev/null", 1);
    CHECK("lithos trace stat no-such-file", 1);
    CHECK("lithos trace stat t.lt > /dev/full", 1);
    CHECK("lithos trace export t.lt -o /dev/full", 1);
}

static void words_are_checked(void **state)
{
    (void)state;
    CHECK("lithos trace --help | grep -q validate", 0);
    CHECK("lithos trace", 2);
    CHECK("lithos trace nonsense", 2);
    CHECK("lithos trace record --seconds 0", 2);
    CHECK("lithos trace record stray", 2);
    CHECK("lithos trace record --socket /nonexistent/socket -o /nonexistent/trace", 1);
    CHECK("lithos trace stat", 2);
    CHECK("lithos trace stat t.lt t.lt", 2);
    CHECK("lithos trace stat --by colour t.lt", 2);
    CHECK("lithos trace stat --top 0 t.lt", 2);
    CHECK("lithos trace stat --top -1 t.lt", 2);
    CHECK("lithos trace validate -o x t.lt", 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stat_counts),
        cmocka_unit_test(export_is_what_perfetto_reads),
        cmocka_unit_test(damage_and_cuts_are_told),
        cmocka_unit_test(words_are_checked),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
