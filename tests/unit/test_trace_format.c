/* docs/trace.md and src/trace agree: a reader written from the page alone (trace_reader.py) finds in each field what
 * was written. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>
#include <zlib.h>

#include "unit/trace_events.h"

static struct sum {
    enum lithos_trace_kind kind;
    const char *field;
    uint64_t sum;
} sums[128];
static size_t sum_count;

static void add(const struct lithos_trace_event *e, const char *field, uint64_t value)
{
    for (size_t i = 0; i < sum_count; i++) {
        if (sums[i].kind == e->kind && !strcmp(sums[i].field, field)) {
            sums[i].sum += value;
            return;
        }
    }
    assert_true(sum_count < sizeof(sums) / sizeof(*sums));
    sums[sum_count++] = (struct sum){e->kind, field, value};
}

static void add_text(const struct lithos_trace_event *e, const char *field, const void *text, size_t len)
{
    add(e, field, crc32(0, text, (uInt)len));
}

static void add_set(const struct lithos_trace_event *e, const char *field, const struct lithos_tpcset *set)
{
    add(e, field, set->w[0] + set->w[1]);
}

static void add_kernel(const struct lithos_trace_event *e)
{
    static const char *const axes[] = {"gx", "gy", "gz", "bx", "by", "bz"};
    const struct lithos_trace_kernel *k = &e->kernel;

    add(e, "tenant", k->tenant);
    add(e, "stream", k->stream);
    add(e, "pid", k->pid);
    add(e, "gpu", k->gpu);
    add_text(e, "function", k->function, strlen(k->function));
    for (unsigned i = 0; i < 6; i++)
        add(e, axes[i], i < 3 ? k->grid[i] : k->block[i - 3]);
    add(e, "cluster", k->cluster_blocks);
    add(e, "shared", k->shared_bytes);
    add(e, "registers", k->registers);
    add(e, "sequence", k->sequence);
    add_set(e, "tpcs", &k->tpcs);
    add(e, "flags", k->flags);
    add(e, "start", k->start_ns);
    add(e, "end", k->end_ns);
    add(e, "predicted", k->predicted_ns);
}

static void add_gpu(const struct lithos_trace_event *e)
{
    add(e, "index", e->gpu.index);
    add_text(e, "uuid", e->gpu.uuid, sizeof(e->gpu.uuid));
    add_text(e, "name", e->gpu.name, strlen(e->gpu.name));
    add_set(e, "valid", &e->gpu.topology.valid);
    add(e, "sms", e->gpu.topology.sms_per_tpc);
    add(e, "stride", e->gpu.topology.gpc_stride);
    add(e, "gpcs", e->gpu.topology.gpc_count);
}

static void add_clock(const struct lithos_trace_event *e)
{
    add(e, "gpu", e->clock.gpu);
    add(e, "gpu_ns", e->clock.gpu_ns);
    add(e, "offset", (uint64_t)e->clock.offset_ns);
    add(e, "drift", (uint64_t)e->clock.drift_ppb);
    add(e, "bound", e->clock.bound_ns);
}

static void add_sync(const struct lithos_trace_event *e)
{
    add(e, "tenant", e->sync.tenant);
    add(e, "stream", e->sync.stream);
    add(e, "pid", e->sync.pid);
    add(e, "gpu", e->sync.gpu);
    add(e, "sequence", e->sync.sequence);
}

static void add_drop(const struct lithos_trace_event *e)
{
    add(e, "tenant", e->drop.tenant);
    add(e, "pid", e->drop.pid);
    add(e, "gpu", e->drop.gpu);
    add(e, "reason", e->drop.reason);
    add(e, "count", e->drop.count);
}

static void add_atom(const struct lithos_trace_event *e)
{
    add(e, "tenant", e->atom.tenant);
    add(e, "stream", e->atom.stream);
    add(e, "pid", e->atom.pid);
    add(e, "gpu", e->atom.gpu);
    add(e, "sequence", e->atom.sequence);
    add_set(e, "tpcs", &e->atom.tpcs);
    add(e, "took", e->atom.took_ns);
}

static void add_event(const struct lithos_trace_event *e)
{
    add(e, "events", 1);
    add(e, "time", e->time_ns);
    switch (e->kind) {
    case LITHOS_TRACE_KERNEL:
        add_kernel(e);
        break;
    case LITHOS_TRACE_GPU:
        add_gpu(e);
        break;
    case LITHOS_TRACE_TENANT:
        add(e, "pid", e->tenant.pid);
        add_text(e, "name", e->tenant.name, strlen(e->tenant.name));
        __attribute__((fallthrough));
    case LITHOS_TRACE_TENANT_END:
        add(e, "id", e->tenant.id);
        break;
    case LITHOS_TRACE_GRANT:
        add(e, "tenant", e->grant.tenant);
        add(e, "gpu", e->grant.gpu);
        add_set(e, "tpcs", &e->grant.tpcs);
        break;
    case LITHOS_TRACE_SYNC:
        add_sync(e);
        break;
    case LITHOS_TRACE_DROP:
        add_drop(e);
        break;
    case LITHOS_TRACE_CLOCK:
        add_clock(e);
        break;
    case LITHOS_TRACE_ATOM:
        add_atom(e);
        break;
    case LITHOS_TRACE_KIND_MAX:
        abort();
    }
}

static json_t *read_by_the_page(const char *path)
{
    char command[512];
    json_error_t error;

    snprintf(command, sizeof(command), "python3 %s/tests/unit/trace_reader.py %s", LITHOS_SOURCE_DIR, path);
    FILE *p = popen(command, "re");
    json_t *found = json_loadf(p, 0, &error);
    assert_int_equal(pclose(p), 0);
    if (!found)
        fail_msg("%s", error.text);
    return found;
}

static void check_format(bool wild, int level)
{
    char path[] = "/tmp/lithos-trace-XXXXXX";
    const struct lithos_trace_writer_options o = {.start_ns = 1000000000, .realtime_ns = 1, .level = level};
    struct trace_random r = {.state = 99};
    struct lithos_trace_writer *w;
    int fd = mkstemp(path);
    size_t fields = 0;

    sum_count = 0;
    assert_int_equal(lithos_trace_writer_new(fd, &o, &w), 0);
    for (unsigned i = 0; i < 40000; i++) { /* wild ones start their tables anew */
        struct lithos_trace_event e = trace_random_event(&r, wild);
        add_event(&e);
        assert_int_equal(lithos_trace_writer_event(w, &e), 0);
        if (i % 7777 == 7776)
            assert_int_equal(lithos_trace_writer_flush(w), 0);
    }
    assert_int_equal(lithos_trace_writer_free(w), 0);
    close(fd);
    json_t *found = read_by_the_page(path);
    unlink(path);
    for (size_t i = 0; i < sum_count; i++) {
        const char *kind = lithos_trace_kind_name(sums[i].kind);
        const char *text = json_string_value(json_object_get(json_object_get(found, kind), sums[i].field));
        if (!text || strtoull(text, NULL, 10) != sums[i].sum)
            fail_msg("%s %s: the page finds %s, written was %llu", kind, sums[i].field,
                     text ? text : "nothing", (unsigned long long)sums[i].sum);
    }
    const char *key;
    json_t *of;
    json_object_foreach(found, key, of) fields += json_object_size(of);
    assert_int_equal(fields, sum_count);
    json_decref(found);
}

static void the_page_and_the_code_agree(void **state)
{
    (void)state;
    check_format(false, 6);
    check_format(true, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_page_and_the_code_agree)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
