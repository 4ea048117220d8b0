/* The reader of traces. The first byte says how: the rest is a file as it is; or a file whose CRCs are put right after
 * the mutation, so that what stands behind them is reached; or the payload of one block. What was read is written and
 * read again, and must be the same. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <zlib.h>

#include "base/assert.h"
#include "base/util.h"
#include "fuzz/fuzz.h"
#include "trace/export.h"
#include "trace/format.h"
#include "trace/reader.h"
#include "trace/stat.h"
#include "trace/writer.h"

struct memory {
    const uint8_t *at;
    size_t left;
};

static ssize_t read_memory(void *context, void *buf, size_t size)
{
    struct memory *m = context;
    size_t n = LITHOS_MIN(size, m->left);

    if (n)
        memcpy(buf, m->at, n);
    m->at += n;
    m->left -= n;
    return (ssize_t)n;
}

static void mend_header(uint8_t *file, size_t len)
{
    if (len < LITHOS_TRACE_HEADER_BYTES)
        return;
    lithos_trace_put64(file, LITHOS_TRACE_MAGIC);
    lithos_trace_put32(file + 36, (uint32_t)crc32(0, file, 36));
}

static void mend_blocks(uint8_t *file, size_t len)
{
    size_t at = LITHOS_TRACE_HEADER_BYTES;

    while (at + LITHOS_TRACE_BLOCK_HEADER_BYTES <= len) {
        uint8_t *h = file + at;
        size_t stored = lithos_trace_get32(h + 8);
        if (stored > len - at - LITHOS_TRACE_BLOCK_HEADER_BYTES)
            return;
        uLong crc = crc32(crc32(0, h, 24), h + LITHOS_TRACE_BLOCK_HEADER_BYTES, (uInt)stored);
        lithos_trace_put32(h + 24, (uint32_t)crc);
        at += LITHOS_TRACE_BLOCK_HEADER_BYTES + stored;
    }
}

/* Puts the headers of a file of one block before a payload. */
static size_t wrap(uint8_t *file, const uint8_t *payload, size_t len)
{
    uint8_t *h = file + LITHOS_TRACE_HEADER_BYTES;

    memset(file, 0, LITHOS_TRACE_HEADER_BYTES + LITHOS_TRACE_BLOCK_HEADER_BYTES);
    file[8] = LITHOS_TRACE_VERSION;
    file[10] = LITHOS_TRACE_HEADER_BYTES;
    lithos_trace_put32(h, LITHOS_TRACE_BLOCK_MAGIC);
    lithos_trace_put32(h + 4, LITHOS_TRACE_BLOCK_RESET);
    lithos_trace_put32(h + 8, (uint32_t)len);
    lithos_trace_put32(h + 12, (uint32_t)len);
    lithos_trace_put32(h + 16,
                       UINT32_MAX); /* as many as there are: the end is then an error, after the events */
    memcpy(h + LITHOS_TRACE_BLOCK_HEADER_BYTES, payload, len);
    len += LITHOS_TRACE_HEADER_BYTES + LITHOS_TRACE_BLOCK_HEADER_BYTES;
    mend_header(file, len);
    mend_blocks(file, len);
    return len;
}

/* All strings of an event are there and end: asan looks at each byte. */
static void touch(const struct lithos_trace_event *e)
{
    static volatile size_t sum;

    lithos_assert((unsigned)e->kind < LITHOS_TRACE_KIND_MAX);
    if (e->kind == LITHOS_TRACE_KERNEL)
        sum += strlen(e->kernel.function) + lithos_trace_duration_ns(&e->kernel);
    if (e->kind == LITHOS_TRACE_GPU)
        sum += strlen(e->gpu.name);
    if (e->kind == LITHOS_TRACE_TENANT)
        sum += strlen(e->tenant.name);
}

/* What the tools make of an event: nothing it says upsets them. */
struct tools {
    struct lithos_trace_stat *stat;
    struct lithos_trace_export *export;
};

static struct tools tools_new(unsigned by)
{
    static FILE *null;
    struct tools t = {.stat = lithos_trace_stat_new(by % LITHOS_TRACE_BY_MAX)};

    if (!null)
        null = fopen("/dev/null", "we");
    lithos_assert(t.stat && null && lithos_trace_export_new(null, 1000, &t.export) == 0);
    return t;
}

static void tools_add(struct tools *t, const struct lithos_trace_event *e)
{
    lithos_assert(lithos_trace_stat_add(t->stat, e) == 0);
    lithos_assert(lithos_trace_export_add(t->export, e) == 0);
}

static void tools_free(struct tools *t)
{
    const struct lithos_trace_summary sum = lithos_trace_stat_summary(t->stat);
    uint64_t kernels = 0;

    for (size_t i = 0; i < sum.row_count; i++)
        kernels += sum.rows[i].count;
    lithos_assert(kernels == sum.events[LITHOS_TRACE_KERNEL]);
    lithos_assert(lithos_trace_export_end(t->export) == 0);
    lithos_trace_stat_free(t->stat);
    lithos_trace_export_free(t->export);
}

/* Reads a file; writes what it said, to fd. Returns the events. */
static uint64_t copy(const uint8_t *file, size_t len, int fd)
{
    struct memory m = {file, len};
    struct lithos_trace_reader *r;
    struct lithos_trace_writer *w;
    struct lithos_trace_event e;
    const char *why = NULL;
    uint64_t count = 0;
    int got = lithos_trace_reader_new(read_memory, &m, &r, &why);

    if (got < 0) {
        lithos_assert(why);
        return UINT64_MAX;
    }
    const struct lithos_trace_header h = lithos_trace_reader_header(r);
    const struct lithos_trace_writer_options o = {h.start_ns ? h.start_ns : 1, 1, 0};
    lithos_assert(lithos_trace_writer_new(fd, &o, &w) == 0);
    struct tools tools = tools_new((unsigned)len);
    while ((got = lithos_trace_reader_next(r, &e)) == 1) {
        touch(&e);
        tools_add(&tools, &e);
        lithos_assert(lithos_trace_writer_event(w, &e) == 0);
        count++;
    }
    tools_free(&tools);
    lithos_assert((got < 0) == !!lithos_trace_reader_why(r)[0]);
    lithos_assert(lithos_trace_writer_free(w) == 0);
    lithos_trace_reader_free(r);
    return count;
}

static uint8_t *bytes_of(int fd, size_t *ret_len)
{
    off_t len = lseek(fd, 0, SEEK_END);
    uint8_t *bytes = malloc((size_t)len);

    lithos_assert(bytes && pread(fd, bytes, (size_t)len, 0) == len);
    *ret_len = (size_t)len;
    return bytes;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t file[(1u << 20) + 4096];
    size_t len = size - 1, first_len, second_len;

    if (size < 1 || len > 1u << 20)
        return 0;
    if (data[0] % 3 == 2) {
        len = wrap(file, data + 1, len);
    } else {
        memcpy(file, data + 1, len);
        if (data[0] % 3 == 1) {
            mend_header(file, len);
            mend_blocks(file, len);
        }
    }
    int fd = memfd_create("fuzz", MFD_CLOEXEC), again = memfd_create("fuzz", MFD_CLOEXEC);
    lithos_assert(fd >= 0 && again >= 0);
    uint64_t events = copy(file, len, fd);
    if (events != UINT64_MAX) {
        uint8_t *first = bytes_of(fd, &first_len);
        lithos_assert(copy(first, first_len, again) == events);
        uint8_t *second = bytes_of(again, &second_len);
        lithos_assert(first_len == second_len && !memcmp(first, second, first_len));
        free(first);
        free(second);
    }
    close(fd);
    close(again);
    return 0;
}

/* One event of each kind, and some kernels. */
static size_t small_trace(uint8_t *buf, size_t size, int level)
{
    const struct lithos_trace_writer_options o = {.start_ns = 1000, .realtime_ns = 1, .level = level};
    const struct lithos_tpcset tpcs = {{0xff, 0}};
    struct lithos_trace_event events[] = {
        {.kind = LITHOS_TRACE_GPU, .gpu = {.name = "card", .topology = {{{0xffff, 0}}, 2, 8, 2, 0}}},
        {.kind = LITHOS_TRACE_TENANT, .tenant = {7, 1234, "serve"}},
        {.kind = LITHOS_TRACE_GRANT, .grant = {7, 0, tpcs}},
        {.kind = LITHOS_TRACE_CLOCK, .clock = {0, 77, -1234567, 12, 900}},
        {.kind = LITHOS_TRACE_SYNC, .sync = {7, LITHOS_TRACE_ALL_STREAMS, 1234, 0, 9}},
        {.kind = LITHOS_TRACE_DROP, .drop = {7, 1234, 0, LITHOS_TRACE_DROP_RECORD_RING, 3}},
        {.kind = LITHOS_TRACE_ATOM, .atom = {7, 2, 1234, 0, 9, tpcs, 250000}},
        {.kind = LITHOS_TRACE_KERNEL},
        {.kind = LITHOS_TRACE_TENANT_END, .tenant = {.id = 7}},
    };
    static const char *const names[] = {"gemm", "softmax", "layernorm"};
    struct lithos_trace_writer *w;
    size_t len;
    int fd = memfd_create("seed", MFD_CLOEXEC);

    lithos_assert(fd >= 0 && lithos_trace_writer_new(fd, &o, &w) == 0);
    for (unsigned i = 0; i < LITHOS_ARRAY_SIZE(events); i++) {
        events[i].time_ns = 1000 + 100ull * i;
        for (unsigned k = 0; events[i].kind == LITHOS_TRACE_KERNEL && k < 12; k++) {
            events[i].time_ns += 5000;
            events[i].kernel = (struct lithos_trace_kernel){.tenant = 7,
                                                            .stream = k % 2,
                                                            .pid = 1234,
                                                            .sequence = k + 1,
                                                            .function = names[k % 3],
                                                            .grid = {132, 1, 1},
                                                            .block = {128, 1, 1},
                                                            .tpcs = tpcs,
                                                            .flags = k % 5 == 0,
                                                            .start_ns = events[i].time_ns + 3000,
                                                            .end_ns = events[i].time_ns + 9000 + 17ull * k,
                                                            .predicted_ns = k > 6 ? 6000 : 0};
            lithos_assert(lithos_trace_writer_event(w, &events[i]) == 0);
        }
        if (events[i].kind != LITHOS_TRACE_KERNEL)
            lithos_assert(lithos_trace_writer_event(w, &events[i]) == 0);
        if (i % 3 == 2)
            lithos_assert(lithos_trace_writer_flush(w) == 0);
    }
    lithos_assert(lithos_trace_writer_free(w) == 0);
    uint8_t *bytes = bytes_of(fd, &len);
    lithos_assert(len <= size);
    memcpy(buf, bytes, len);
    free(bytes);
    close(fd);
    return len;
}

size_t lithos_fuzz_seed(size_t n, uint8_t *buf, size_t size)
{
    /* how, and the level; a payload is what stands behind the headers of a file of one block, stored */
    static const uint8_t how[][2] = {{0, 0}, {1, 0}, {1, 6}, {2, 0}};
    const size_t headers = LITHOS_TRACE_HEADER_BYTES + LITHOS_TRACE_BLOCK_HEADER_BYTES;

    if (n >= LITHOS_ARRAY_SIZE(how))
        return 0;
    buf[0] = how[n][0];
    size_t len = small_trace(buf + 1, size - 1, how[n][1]);
    if (how[n][0] != 2)
        return len + 1;
    size_t first = lithos_trace_get32(buf + 1 + LITHOS_TRACE_HEADER_BYTES + 8), second = 1 + headers + first;
    size_t second_len = lithos_trace_get32(buf + second + 8),
           third = second + LITHOS_TRACE_BLOCK_HEADER_BYTES + second_len;
    size_t third_len = lithos_trace_get32(buf + third + 8), at = 1;
    memmove(buf + at, buf + 1 + headers, first);
    at += first;
    memmove(buf + at, buf + second + LITHOS_TRACE_BLOCK_HEADER_BYTES, second_len);
    at += second_len;
    memmove(buf + at, buf + third + LITHOS_TRACE_BLOCK_HEADER_BYTES, third_len);
    return at + third_len;
}
