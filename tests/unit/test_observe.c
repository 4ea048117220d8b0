/* Around observation: names of kernels as they come in pieces, what TRACE may say, and the frames of `lithos top`. */
#include <errno.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "cli/top.h"
#include "daemon/names.h"
#include "proto/message.h"

/* ---- names ---- */

static struct lithosd_names names;
static struct lithosd_handles handles;

static int finish(void **state)
{
    (void)state;
    lithosd_names_finish(&names);
    lithosd_handles_finish(&handles);
    return 0;
}

static void piece(uint64_t handle, const char *name, uint16_t offset)
{
    struct lithos_record r = {.kind = LITHOS_RECORD_NAME, .function = handle, .cluster = 1};
    size_t total = strlen(name);
    r.name.offset = offset;
    r.name.total = (uint16_t)total;
    memcpy(r.name.text, name + offset, LITHOS_MIN(total - offset, sizeof r.name.text));
    lithosd_names_piece(&names, &handles, &r);
}

static void whole(uint64_t handle, const char *name)
{
    for (size_t offset = 0; offset < strlen(name); offset += LITHOS_RECORD_NAME_BYTES - 8)
        piece(handle, name, (uint16_t)offset);
}

static const char *known(uint64_t handle)
{
    return lithosd_names_text(&names, lithosd_names_function(&handles, handle));
}

static void names_come_in_pieces(void **state)
{
    (void)state;
    char name[301];
    memset(name, 'x', 300);
    memcpy(name, "_Z4long", 7);
    name[300] = '\0';
    assert_null(known(5));
    assert_true(lithosd_names_function(&handles, 5) != 0);
    piece(5, name, 0);
    assert_null(known(5));
    piece(5, name, 160); /* one is missing before it */
    piece(5, name, 240);
    assert_null(known(5));
    whole(5, name);
    assert_string_equal(known(5), name);
    whole(6, "short");
    whole(7, "short"); /* another process's handle, the same function */
    assert_int_equal(lithosd_names_function(&handles, 6), lithosd_names_function(&handles, 7));
    whole(6, "anew"); /* the handle is used again */
    assert_string_equal(known(6), "anew");
    assert_string_equal(known(7), "short");
    whole(8, "evil\033[2J\n\"name");
    assert_string_equal(known(8), "evil_[2J_\"name");
}

static void names_are_bounded(void **state)
{
    (void)state;
    char name[3001];
    memset(name, 'y', 3000);
    name[3000] = '\0';
    whole(1, name);
    assert_int_equal(strlen(known(1)), LITHOSD_NAME_BYTES_MAX);
    for (uint64_t i = 2; i < 3 * LITHOSD_NAMES_MAX; i++) {
        snprintf(name, sizeof name, "f%llu", (unsigned long long)i);
        whole(i << 8, name);
    }
    assert_int_equal(names.count, LITHOSD_NAMES_MAX);
    assert_int_equal(handles.count, LITHOSD_NAMES_MAX);
    assert_string_equal(known(2 << 8), "f2");
    assert_null(known((3 * LITHOSD_NAMES_MAX - 1) << 8));
    whole(0, "no handle");
}

/* ---- TRACE ---- */

static void trace_messages(void **state)
{
    (void)state;
    union lithos_message m;
    lithos_message_init(&m, LITHOS_MSG_TRACE);
    assert_int_equal(lithos_message_validate(&m, sizeof m.trace, NULL), 0);
    assert_int_equal(lithos_message_validate(&m, sizeof m.trace - 1, NULL), -EPROTO);
    m.trace.action = LITHOS_TRACE_ACTION_MAX;
    assert_int_equal(lithos_message_validate(&m, sizeof m.trace, NULL), -EPROTO);
    m.trace.action = LITHOS_TRACE_STOP;
    strcpy(m.trace.tenant, "a b");
    assert_int_equal(lithos_message_validate(&m, sizeof m.trace, NULL), -EINVAL);
    memset(m.trace.tenant, 'x', sizeof m.trace.tenant);
    assert_int_equal(lithos_message_validate(&m, sizeof m.trace, NULL), -EINVAL);
    lithos_message_init(&m, LITHOS_MSG_TRACED);
    assert_int_equal(lithos_message_validate(&m, sizeof m.traced, NULL), 0);
}

/* ---- top ---- */

static const char card[] =
    "{\"power\":{\"mode\":\"advise\",\"gpus\":[{\"index\":0,\"known\":true,\"watts\":412.3,\"mhz\":1410}]},"
    "\"version\":\"0.1.0\",\"uptime\":12.5,\"virtual\":true,\"mps\":{\"state\":\"ours\"},"
    "\"gpus\":[{\"index\":0,\"uuid\":\"GPU-1\",\"name\":\"NVIDIA H200\",\"tpcs\":66,\"free\":10,"
    "\"stamps\":true,\"bits\":\"0-3,9-16,75\",\"gpcs\":[\"0-3\",\"9-16\",\"75\"]}],\"tenants\":[%s]}";
static const char tenant[] =
    "{\"name\":\"%s\",\"command\":\"python\",\"quota\":\"40%%\",\"mode\":\"mask\",\"pids\":[{\"pid\":1}],"
    "\"gpus\":[{\"uuid\":\"GPU-1\",\"tpcs\":%d,\"bits\":\"%s\",\"lent_away\":3}],\"counters\":{\"breaches\":"
    "3},"
    "\"energy\":{\"joules\":3.0,\"requests\":24,\"joules_per_request\":0.125},"
    "\"observed\":{\"kernels_per_s\":%g,\"tpc_time_s\":%g,\"busy_tpcs\":2,\"p50_us\":98.04,\"p99_us\":15000,"
    "\"queue\":7,"
    "\"lost\":{\"died\":4,\"missing\":1},\"prediction\":{\"mispredicted_percent\":0.5},\"clock\":{\"offset_"
    "bound_us\":9.2},"
    "\"operators\":[{\"name\":\"gemm_kernel\",\"kernels\":12,\"seconds\":1.5,\"p50_us\":98,\"p99_us\":200}]}"
    "}";

static json_t *document(unsigned tenants)
{
    static char text[65536], list[60000], one[1024];
    list[0] = '\0';
    for (unsigned i = 0; i < tenants; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s%02u", i % 2 ? "a-tenant-with-a-very-long-name-" : "t", i);
        snprintf(one, sizeof one, tenant, name, 4 + (int)i,
                 i == 0   ? "0-3"
                 : i == 1 ? "9-12"
                          : "-",
                 1234.0 * i, i == 2 ? 9e9 : 10.0 - i);
        strcat(strcat(list, i ? "," : ""), one);
    }
    snprintf(text, sizeof text, card, list);
    json_error_t error;
    json_t *d = json_loads(text, 0, &error);
    assert_non_null(d);
    return d;
}

static bool shows(const struct lithos_top_frame *f, const char *text)
{
    for (unsigned i = 0; i < f->rows; i++)
        if (strstr(f->text[i], text))
            return true;
    return false;
}

static struct lithos_top_frame frame;

static void top_shows_it(void **state)
{
    (void)state;
    struct lithos_top_view view = {
        .rows = 24, .columns = 80, .sort = LITHOS_TOP_BY_NAME, .selected = -1, .keys = true};
    json_t *d = document(2);
    lithos_top_frame(d, &view, &frame);
    assert_int_equal(frame.rows, 24);
    assert_true(shows(&frame, "GPU 0 NVIDIA H200  66 TPCs, 10 free, 412 W at 1410 MHz"));
    assert_true(shows(&frame, "  aaaa bbbb.... .")); /* by GPC, by owner */
    assert_true(shows(&frame, "98.0us  15.0ms     7    5    3"));
    assert_true(shows(&frame, "-3 ")); /* what others have of it */
    assert_false(shows(&frame, "gemm_kernel"));
    assert_true(shows(&frame, "q quit"));
    view.selected = 0;
    lithos_top_frame(d, &view, &frame);
    assert_true(shows(&frame, "gemm_kernel"));
    assert_true(shows(&frame, "0.125 J a request"));
    assert_int_equal(frame.style[3 - 1][2], LITHOS_TOP_OWNER);
    assert_int_equal(frame.style[3 - 1][7], LITHOS_TOP_OWNER + 1);
    json_decref(d);
}

static void top_sorts(void **state)
{
    (void)state;
    json_t *d = document(3);
    struct lithos_top_view view = {.rows = 24, .columns = 80, .sort = LITHOS_TOP_BY_TIME, .selected = 9};
    lithos_top_frame(d, &view, &frame);
    assert_int_equal(view.selected, 2); /* put in range */
    assert_true(strncmp(frame.text[5], "c t02", 5) == 0);
    view.sort = LITHOS_TOP_BY_RATE;
    lithos_top_frame(d, &view, &frame);
    assert_true(strncmp(frame.text[7], "a t00", 5) == 0); /* its letter is its own whatever the order */
    json_decref(d);
}

/* No size of the window, no document: no crash, and nothing outside. */
static void top_fits_any_window(void **state)
{
    (void)state;
    static const unsigned sizes[] = {0, 1, 2, 3, 5, 10, 24, 79, 80, 199, 200, 201, 5000};
    json_t *documents[] = {document(0), document(2), document(64), json_object(),
                           json_pack("{s:s,s:[i,s]}", "gpus", "x", "tenants", 1, "y")};
    for (size_t k = 0; k < LITHOS_ARRAY_SIZE(documents); k++) {
        assert_non_null(documents[k]);
        for (size_t i = 0; i < LITHOS_ARRAY_SIZE(sizes); i++)
            for (size_t j = 0; j < LITHOS_ARRAY_SIZE(sizes); j++) {
                struct lithos_top_view view = {
                    .rows = sizes[i], .columns = sizes[j], .selected = 1, .keys = k % 2};
                lithos_top_frame(documents[k], &view, &frame);
                assert_true(frame.rows <= sizes[i] && frame.rows <= LITHOS_TOP_ROWS_MAX);
                for (unsigned y = 0; y < frame.rows; y++)
                    assert_true(strlen(frame.text[y]) <= sizes[j]);
            }
        json_decref(documents[k]);
    }
}

static void rows_are_80_wide(void **state)
{
    (void)state;
    json_t *d = document(4);
    struct lithos_top_view view = {.rows = 40, .columns = 200, .selected = -1};
    lithos_top_frame(d, &view, &frame);
    for (unsigned y = 3; y < frame.rows; y++)
        assert_true(strlen(frame.text[y]) <= 80);
    json_decref(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(names_come_in_pieces, finish),
        cmocka_unit_test_teardown(names_are_bounded, finish),
        cmocka_unit_test(trace_messages),
        cmocka_unit_test(top_shows_it),
        cmocka_unit_test(top_sorts),
        cmocka_unit_test(top_fits_any_window),
        cmocka_unit_test(rows_are_80_wide),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
