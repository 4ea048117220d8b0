/* trace/stat and trace/export: figures counted by hand and by brute force; whatever a trace says, the export is JSON. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "trace/export.h"
#include "trace/stat.h"
#include "unit/trace_events.h"

static struct lithos_trace_event kernel(uint64_t tenant, const char *function, uint64_t start_ns,
                                        uint64_t took_ns)
{
    return (struct lithos_trace_event){.kind = LITHOS_TRACE_KERNEL,
                                       .time_ns = start_ns - 10,
                                       .kernel = {.tenant = tenant,
                                                  .stream = 1,
                                                  .pid = 5,
                                                  .function = function,
                                                  .grid = {1, 1, 1},
                                                  .block = {32, 1, 1},
                                                  .tpcs = {{0xf, 0}},
                                                  .start_ns = start_ns,
                                                  .end_ns = start_ns + took_ns}};
}

static void add(struct lithos_trace_stat *s, struct lithos_trace_event e)
{
    assert_int_equal(lithos_trace_stat_add(s, &e), 0);
}

static void figures_by_hand(void **state)
{
    (void)state;
    struct lithos_trace_stat *s = lithos_trace_stat_new(LITHOS_TRACE_BY_KERNEL);
    struct lithos_trace_event e;

    for (unsigned i = 1; i <= 100; i++)
        add(s, kernel(1, "gemm", 1000ull * i, i));
    add(s, kernel(2, "gemm", 7000, 9000)); /* another tenant's is another row */
    e = kernel(1, "softmax", 500, 60000);
    e.kernel.tpcs.w[0] = 3;
    e.kernel.predicted_ns = 10000; /* off by exactly 50 us: not yet a misprediction */
    e.kernel.flags = LITHOS_TRACE_ESTIMATE | LITHOS_TRACE_CLAMPED;
    add(s, e);
    e.kernel.predicted_ns = 9999;
    add(s, e);
    e.kernel.end_ns = e.kernel.start_ns - 1;
    e.kernel.predicted_ns = 0;
    add(s, e);
    add(s, (struct lithos_trace_event){.kind = LITHOS_TRACE_TENANT, .tenant = {1, 5, "one"}});
    add(s, (struct lithos_trace_event){.kind = LITHOS_TRACE_TENANT, .tenant = {1, 5, "uno"}});
    for (unsigned i = 0; i < 3; i++) {
        add(s, (struct lithos_trace_event){.kind = LITHOS_TRACE_CLOCK,
                                           .clock = {.gpu = 0, .bound_ns = 100 + i % 2}});
        add(s, (struct lithos_trace_event){
                   .kind = LITHOS_TRACE_DROP,
                   .drop = {.tenant = 2, .reason = LITHOS_TRACE_DROP_WRITER, .count = 5}});
    }
    const struct lithos_trace_summary sum = lithos_trace_stat_summary(s);
    assert_int_equal(sum.row_count, 3);
    const struct lithos_trace_row *softmax = &sum.rows[0], *other = &sum.rows[1], *gemm = &sum.rows[2];
    assert_string_equal(softmax->function, "softmax");
    assert_true(softmax->count == 3 && softmax->predicted == 2 && softmax->mispredicted == 1);
    assert_true(softmax->estimates == 3 && softmax->clamped == 3 && softmax->backwards == 1);
    assert_true(softmax->total_ns == 120000 && softmax->tpc_ns == 240000 && softmax->min_ns == 0);
    assert_true(other->tenant == 2 && other->count == 1 && other->p99_ns == 9000);
    assert_true(gemm->count == 100 && gemm->total_ns == 5050 && gemm->mean_ns == 50.5);
    assert_true(gemm->p50_ns == 50 && gemm->p99_ns == 99 && gemm->min_ns == 1 && gemm->max_ns == 100);
    assert_true(gemm->tpcs_min == 4 && gemm->tpcs_max == 4 && gemm->tpc_ns == 20200);
    assert_true(sum.total_ns == 134050 && sum.first_ns == 490 && sum.last_ns == 100100);
    assert_string_equal(lithos_trace_stat_tenant(s, 1), "uno");
    assert_string_equal(lithos_trace_stat_tenant(s, 2), "");
    assert_string_equal(lithos_trace_stat_tenant(s, 3), "");
    assert_true(sum.gpu_count == 1 && sum.gpus[0].clocks == 3 && sum.gpus[0].bound_ns == 101);
    assert_true(sum.drop_count == 1 && sum.drops[0].count == 15 && sum.drops[0].tenant == 2);
    lithos_trace_stat_free(s);
}

/* Rows by any key hold every kernel once. */
static void rows_add_up(void **state)
{
    (void)state;
    for (int by = 0; by < LITHOS_TRACE_BY_MAX; by++) {
        struct lithos_trace_stat *s = lithos_trace_stat_new(by);
        struct trace_random r = {.state = 5};
        uint64_t kernels = 0, counted = 0;
        double total_ns = 0, of_rows_ns = 0;

        for (unsigned i = 0; i < 20000; i++) {
            struct lithos_trace_event e = trace_random_event(&r, false);
            assert_int_equal(lithos_trace_stat_add(s, &e), 0);
            kernels += e.kind == LITHOS_TRACE_KERNEL;
            total_ns += e.kind == LITHOS_TRACE_KERNEL ? (double)lithos_trace_duration_ns(&e.kernel) : 0;
        }
        const struct lithos_trace_summary sum = lithos_trace_stat_summary(s);
        for (size_t i = 0; i < sum.row_count; i++) {
            const struct lithos_trace_row *row = &sum.rows[i];
            counted += row->count;
            of_rows_ns += row->total_ns;
            assert_true(i == 0 || row->total_ns <= sum.rows[i - 1].total_ns);
            assert_true(row->min_ns <= row->p50_ns && row->p50_ns <= row->p99_ns &&
                        row->p99_ns <= row->max_ns);
        }
        assert_int_equal(counted, kernels);
        assert_true(of_rows_ns == total_ns && sum.total_ns == total_ns);
        static const size_t rows[] = {4 * 40, 4, 4 * 4 * 4 * 2};
        assert_int_equal(sum.row_count, rows[by]);
        lithos_trace_stat_free(s);
    }
}

static size_t count_of(const json_t *events, const char *phase, const char *name)
{
    size_t i, n = 0;
    json_t *e;

    json_array_foreach((json_t *)events, i, e) n +=
        !strcmp(json_string_value(json_object_get(e, "ph")), phase) &&
        (!name || !strcmp(json_string_value(json_object_get(e, "name")), name));
    return n;
}

static void any_trace_exports_to_json(void **state)
{
    (void)state;
    for (int wild = 0; wild < 2; wild++) {
        struct trace_random r = {.state = 11};
        struct lithos_trace_export *x;
        uint64_t counts[LITHOS_TRACE_KIND_MAX] = {0};
        char *text = NULL;
        size_t len;
        FILE *out = open_memstream(&text, &len);

        assert_int_equal(lithos_trace_export_new(out, 1000000000, &x), 0);
        for (unsigned i = 0; i < 5000; i++) {
            struct lithos_trace_event e = trace_random_event(&r, wild);
            assert_int_equal(lithos_trace_export_add(x, &e), 0);
            counts[e.kind]++;
        }
        assert_int_equal(lithos_trace_export_end(x), 0);
        lithos_trace_export_free(x);
        fclose(out);
        json_error_t error;
        json_t *document = json_loads(text, 0, &error);
        if (!document)
            fail_msg("%s at %d", error.text, error.position);
        const json_t *events = json_object_get(document, "traceEvents");
        assert_int_equal(count_of(events, "X", NULL),
                         counts[LITHOS_TRACE_KERNEL] + counts[LITHOS_TRACE_ATOM]);
        assert_int_equal(count_of(events, "X", "atom"), counts[LITHOS_TRACE_ATOM]);
        assert_int_equal(count_of(events, "i", "grant"), counts[LITHOS_TRACE_GRANT]);
        assert_int_equal(count_of(events, "i", "admitted"), counts[LITHOS_TRACE_TENANT]);
        assert_int_equal(count_of(events, "i", "ended"), counts[LITHOS_TRACE_TENANT_END]);
        assert_true(count_of(events, "C", NULL) >= counts[LITHOS_TRACE_GRANT] + counts[LITHOS_TRACE_CLOCK]);
        if (!wild) { /* 4 tenants and the GPUs; 4 x 4 x 4 x 2 lanes */
            assert_int_equal(count_of(events, "M", "process_name"), 5 + counts[LITHOS_TRACE_TENANT]);
            assert_int_equal(count_of(events, "M", "thread_name"), 4 * 4 * 4 * 2);
        }
        json_decref(document);
        free(text);
    }
}

static void a_full_disk_is_told(void **state)
{
    (void)state;
    struct lithos_trace_export *x;
    struct lithos_trace_event e = kernel(1, "k", 1000, 10);
    FILE *full = fopen("/dev/full", "we");
    int r = lithos_trace_export_new(full, 0, &x);

    assert_int_equal(r, 0); /* nothing has been flushed yet */
    for (unsigned i = 0; i < 1000 && r == 0; i++)
        r = lithos_trace_export_add(x, &e);
    assert_int_equal(r, -ENOSPC);
    lithos_trace_export_free(x);
    fclose(full);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(figures_by_hand),
        cmocka_unit_test(rows_add_up),
        cmocka_unit_test(any_trace_exports_to_json),
        cmocka_unit_test(a_full_disk_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
