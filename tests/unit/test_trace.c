/* trace/writer and trace/reader: what goes in comes out, to the byte; what is damaged or cut is said and bounded. */
#include <errno.h>
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
#include <zlib.h>

#include "trace/format.h"
#include "unit/trace_events.h"

#define MANY 100000u

static const struct lithos_trace_writer_options fixed = {
    .start_ns = 1000000000, .realtime_ns = 1, .level = 6};

/* The bytes of a trace of random events, flushed now and then. */
static uint8_t *random_trace(uint64_t seed, unsigned count, bool wild, int level, size_t *ret_len)
{
    struct lithos_trace_writer_options o = fixed;
    struct trace_random r = {.state = seed};
    struct lithos_trace_writer *w;
    int fd = trace_file();

    o.level = level;
    assert_int_equal(lithos_trace_writer_new(fd, &o, &w), 0);
    for (unsigned i = 0; i < count; i++) {
        struct lithos_trace_event e = trace_random_event(&r, wild);
        assert_int_equal(lithos_trace_writer_event(w, &e), 0);
        if (i % 4999 == 4998)
            assert_int_equal(lithos_trace_writer_flush(w), 0);
    }
    assert_int_equal(lithos_trace_writer_free(w), 0);
    uint8_t *bytes = trace_file_bytes(fd, ret_len);
    close(fd);
    return bytes;
}

static struct lithos_trace_reader *reader_of(struct trace_memory *m)
{
    struct lithos_trace_reader *r = NULL;
    const char *why = "";

    int error = lithos_trace_reader_new(trace_memory_read, m, &r, &why);
    if (error < 0)
        fail_msg("%s", why);
    return r;
}

/* Each event read is the one that was written; none is missing. */
static void check_events(const uint8_t *bytes, size_t len, uint64_t seed, unsigned count, bool wild)
{
    struct trace_memory m = {bytes, len, 4093};
    struct trace_random random = {.state = seed};
    struct lithos_trace_reader *r = reader_of(&m);
    struct lithos_trace_event got;

    for (unsigned i = 0; i < count; i++) {
        struct lithos_trace_event e = trace_random_event(&random, wild);
        if (lithos_trace_reader_next(r, &got) != 1)
            fail_msg("event %u: %s", i, lithos_trace_reader_why(r));
        if (!trace_events_equal(&e, &got))
            fail_msg("event %u (%s) differs", i, lithos_trace_kind_name(e.kind));
    }
    assert_int_equal(lithos_trace_reader_next(r, &got), 0);
    assert_int_equal(lithos_trace_reader_truncated(r), 0);
    assert_string_equal(lithos_trace_reader_why(r), "");
    const struct lithos_trace_reader_stats s = lithos_trace_reader_stats(r);
    for (unsigned k = 0; k < LITHOS_TRACE_KIND_MAX; k++)
        assert_true(s.events[k] > 0);
    assert_int_equal(s.bytes, len);
    lithos_trace_reader_free(r);
}

static uint8_t *rewrite(const uint8_t *bytes, size_t len, int level, size_t *ret_len)
{
    struct trace_memory m = {bytes, len, 0};
    struct lithos_trace_reader *r = reader_of(&m);
    int fd = trace_file();

    assert_int_equal(trace_rewrite(r, fd, level), 0);
    lithos_trace_reader_free(r);
    uint8_t *again = trace_file_bytes(fd, ret_len);
    close(fd);
    return again;
}

static void round_trip(bool wild, int level)
{
    size_t len, again_len;
    uint8_t *bytes = random_trace(7, MANY, wild, level, &len);

    check_events(bytes, len, 7, MANY, wild);
    uint8_t *again = rewrite(bytes, len, level, &again_len);
    assert_int_equal(again_len, len);
    assert_memory_equal(again, bytes, len);
    free(again);
    free(bytes);
}

static void what_is_written_is_read(void **state)
{
    (void)state;
    round_trip(false, 6);
    round_trip(false, 0);
}

/* Every value in every field; so many entries that the tables start anew. */
static void wild_values_survive(void **state)
{
    (void)state;
    size_t len;
    struct lithos_trace_event e;

    round_trip(true, 1);
    uint8_t *bytes = random_trace(7, MANY, true, 1, &len);
    struct trace_memory m = {bytes, len, 0};
    struct lithos_trace_reader *r = reader_of(&m);
    while (lithos_trace_reader_next(r, &e) == 1)
        ;
    assert_true(lithos_trace_reader_stats(r).resets > 1);
    lithos_trace_reader_free(r);
    free(bytes);
}

static void long_strings_are_cut(void **state)
{
    (void)state;
    char *name = malloc(40000);
    struct lithos_trace_event e = {.kind = LITHOS_TRACE_KERNEL, .time_ns = 5}, got;
    struct lithos_trace_writer *w;
    int fd = trace_file();

    assert_int_equal(lithos_trace_writer_new(fd, &fixed, &w), 0);
    memset(name, 'x', 39999);
    name[39999] = 0;
    e.kernel.function = name;
    assert_int_equal(lithos_trace_writer_event(w, &e), 0);
    e.kernel.function = NULL;
    assert_int_equal(lithos_trace_writer_event(w, &e), 0);
    /* strings alone can fill the tables */
    e.kernel.function = name;
    for (unsigned i = 0; i < 1000; i++) {
        memcpy(name, (char[]){'a' + (char)(i % 26), 'a' + (char)(i / 26 % 26), 'a' + (char)(i / 676)}, 3);
        assert_int_equal(lithos_trace_writer_event(w, &e), 0);
    }
    assert_int_equal(lithos_trace_writer_free(w), 0);
    lseek(fd, 0, SEEK_SET);
    struct lithos_trace_reader *r;
    assert_int_equal(lithos_trace_reader_new_fd(fd, &r, NULL), 0);
    assert_int_equal(lithos_trace_reader_next(r, &got), 1);
    assert_int_equal(strlen(got.kernel.function), LITHOS_TRACE_STRING_MAX);
    assert_int_equal(strspn(got.kernel.function, "x"), LITHOS_TRACE_STRING_MAX);
    assert_int_equal(lithos_trace_reader_next(r, &got), 1);
    assert_string_equal(got.kernel.function, "");
    for (unsigned i = 0; i < 1000; i++)
        assert_int_equal(lithos_trace_reader_next(r, &got), 1);
    assert_int_equal(lithos_trace_reader_next(r, &got), 0);
    assert_true(lithos_trace_reader_stats(r).resets == 2);
    lithos_trace_reader_free(r);
    close(fd);
    free(name);
}

/* What a file cut at `keep` bytes gives: events, and the bytes said to be lost. */
static unsigned read_cut(const uint8_t *bytes, size_t keep, uint64_t *ret_lost, uint64_t *ret_whole)
{
    struct trace_memory m = {bytes, keep, 0};
    struct lithos_trace_reader *r = reader_of(&m);
    struct lithos_trace_event e;
    unsigned events = 0;

    while (lithos_trace_reader_next(r, &e) == 1)
        events++;
    assert_string_equal(lithos_trace_reader_why(r), "");
    assert_int_equal(lithos_trace_reader_next(r, &e), 0);
    *ret_lost = lithos_trace_reader_truncated(r);
    *ret_whole = lithos_trace_reader_stats(r).bytes;
    lithos_trace_reader_free(r);
    return events;
}

/* A writer that dies leaves some beginning of the file: whole blocks of it are read, the rest is reported. */
static void a_cut_file_loses_its_last_block_only(void **state)
{
    (void)state;
    size_t len;
    uint64_t lost, whole, last_whole = 0;
    unsigned last = 0, steps = 0;
    uint8_t *bytes = random_trace(3, 12000, false, 6, &len);

    for (size_t keep = LITHOS_TRACE_HEADER_BYTES; keep <= len; keep += keep + 3100 < len  ? 2999
                                                                       : keep + 128 < len ? 31
                                                                                          : 1) {
        unsigned events = read_cut(bytes, keep, &lost, &whole);
        assert_true(events >= last);
        assert_int_equal(whole + lost, keep);
        steps += whole != last_whole;
        last = events;
        last_whole = whole;
    }
    assert_int_equal(last, 12000);
    assert_true(steps >= 3);
    for (size_t keep = 0; keep < LITHOS_TRACE_HEADER_BYTES; keep++) {
        struct trace_memory m = {bytes, keep, 0};
        struct lithos_trace_reader *r = NULL;
        const char *why = NULL;
        assert_int_equal(lithos_trace_reader_new(trace_memory_read, &m, &r, &why),
                         keep < 8 ? -EBADMSG : -ENODATA);
        assert_non_null(why);
    }
    free(bytes);
}

/* Any bit that flips is noticed: at the latest by the CRC, and what stands before it is still read. */
static void damage_is_noticed(void **state)
{
    (void)state;
    size_t len;
    uint8_t *bytes = random_trace(3, 12000, false, 6, &len);
    struct lithos_trace_event e;

    for (size_t at = 0; at < len; at += at < 200 ? 1 : 997) {
        bytes[at] ^= (uint8_t)(1u << (at % 8));
        struct trace_memory m = {bytes, len, 0};
        struct lithos_trace_reader *r = NULL;
        int got = lithos_trace_reader_new(trace_memory_read, &m, &r, NULL);
        if (at < LITHOS_TRACE_HEADER_BYTES) {
            assert_true(got == -EBADMSG || got == -EPROTONOSUPPORT);
        } else {
            unsigned events = 0;
            assert_int_equal(got, 0);
            while ((got = lithos_trace_reader_next(r, &e)) == 1)
                events++;
            /* a length of a header may also point past the end */
            assert_true(got == -EBADMSG || lithos_trace_reader_truncated(r));
            if (got < 0)
                assert_non_null(strstr(lithos_trace_reader_why(r), " at byte "));
            assert_int_equal(lithos_trace_reader_next(r, &e), got);
            assert_true(events < 12000 && (at < len / 2 || events > 0));
        }
        lithos_trace_reader_free(r);
        bytes[at] ^= (uint8_t)(1u << (at % 8));
    }
    free(bytes);
}

static void a_newer_version_is_refused(void **state)
{
    (void)state;
    size_t len;
    uint8_t *bytes = random_trace(3, 10, false, 6, &len);
    struct lithos_trace_reader *r;
    const char *why = "";

    bytes[8]++;
    lithos_trace_put32(bytes + 36, (uint32_t)crc32(0, bytes, 36));
    struct trace_memory m = {bytes, len, 0};
    assert_int_equal(lithos_trace_reader_new(trace_memory_read, &m, &r, &why), -EPROTONOSUPPORT);
    assert_non_null(strstr(why, "version"));
    free(bytes);
}

/* A file whose blocks are these payloads, with right headers. */
static size_t wrap(const uint8_t *payload, size_t len, uint32_t events, uint8_t *file)
{
    uint8_t *h = file + LITHOS_TRACE_HEADER_BYTES;

    memset(file, 0, LITHOS_TRACE_HEADER_BYTES);
    lithos_trace_put64(file, LITHOS_TRACE_MAGIC);
    file[8] = LITHOS_TRACE_VERSION;
    file[10] = LITHOS_TRACE_HEADER_BYTES;
    lithos_trace_put32(file + 36, (uint32_t)crc32(0, file, 36));
    lithos_trace_put32(h, LITHOS_TRACE_BLOCK_MAGIC);
    lithos_trace_put32(h + 4, LITHOS_TRACE_BLOCK_RESET);
    lithos_trace_put32(h + 8, (uint32_t)len);
    lithos_trace_put32(h + 12, (uint32_t)len);
    lithos_trace_put32(h + 16, events);
    lithos_trace_put32(h + 20, 0);
    memcpy(h + LITHOS_TRACE_BLOCK_HEADER_BYTES, payload, len);
    lithos_trace_put32(h + 24, (uint32_t)crc32(crc32(0, h, 24), payload, (uInt)len));
    return LITHOS_TRACE_HEADER_BYTES + LITHOS_TRACE_BLOCK_HEADER_BYTES + len;
}

static void check_payload(const char *payload, size_t len, uint32_t events, const char *why)
{
    uint8_t file[512];
    struct trace_memory m = {file, wrap((const uint8_t *)payload, len, events, file), 0};
    struct lithos_trace_reader *r = reader_of(&m);
    struct lithos_trace_event e;
    int got;

    while ((got = lithos_trace_reader_next(r, &e)) == 1)
        ;
    if (why) {
        assert_int_equal(got, -EBADMSG);
        if (!strstr(lithos_trace_reader_why(r), why))
            fail_msg("\"%s\" instead of \"%s\"", lithos_trace_reader_why(r), why);
    } else if (got < 0) {
        fail_msg("%s", lithos_trace_reader_why(r));
    }
    lithos_trace_reader_free(r);
}

/* Blocks with a right CRC and wrong contents, by hand, as docs/trace.md has them. */
static void contents_are_checked(void **state)
{
    (void)state;
#define STRING "\2\1k"
#define SHAPE "\4\12\0\1\1\1\40\1\1\0\0\20"
#define LANE "\6\4\1\2\3\0"
#define TPCS "\10\20\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
    static const char tenant_end[] = "\46\2\2\7", unknown[] = "\20\3abc", longer[] = "\46\3\2\7\11";
    static const struct {
        const char *payload;
        size_t len;
        uint32_t events;
        const char *why; /* NULL: it is fine */
    } cases[] = {
#define CASE(payload, events, why) {payload, sizeof(payload) - 1, events, why}
        CASE(STRING SHAPE LANE TPCS "\27\0\0\0\2\6", 1, NULL),
        CASE(STRING SHAPE LANE TPCS "\27\0\0\0\2\6\1\2\0", 2, "the shape after none"),
        CASE(STRING SHAPE LANE TPCS "\27\0\0\0\2\6\5\0\2\0\1\2\0", 3, NULL),
        CASE(STRING SHAPE LANE TPCS "\27\0\0\0\2", 1, "a number goes beyond"),
        CASE(STRING SHAPE LANE TPCS "\25\0\0\2\6", 1, "the same lane as none"),
        CASE(STRING SHAPE LANE TPCS "\7\0\0\2\6", 1, "the same TPCs as none"),
        CASE(STRING SHAPE LANE TPCS "\27\1\0\0\2\6", 1, "a lane that was not defined"),
        CASE(STRING SHAPE LANE TPCS "\27\0\1\0\2\6", 1, "a shape that was not defined"),
        CASE(STRING SHAPE LANE TPCS "\27\0\0\1\2\6", 1, "a TPC set that was not defined"),
        CASE(SHAPE, 0, "function was not defined"),
        CASE(STRING STRING, 0, "defined twice"),
        CASE("\2\2a\0", 0, "a NUL in it"),
        CASE("\2\5a", 0, "beyond"),
        CASE("\6\3\1\2\3", 0, "a number goes beyond"),
        CASE("\46\3\202\0\7", 1, "a number is too long"),
        CASE("\6\10\1\2\200\200\200\200\20\1", 0, "32 bits"),
        CASE("\46\13\377\377\377\377\377\377\377\377\377\2\1", 1, "a number is too long"),
#undef CASE
        {tenant_end, 4, 1, NULL},
        {tenant_end, 4, 2, "fewer events"},
        {tenant_end, 4, 0, "more events"},
        {unknown, 5, 0, NULL},
        {longer, 5, 1, NULL}, /* a field that a later release added */
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        check_payload(cases[i].payload, cases[i].len, cases[i].events, cases[i].why);
}

/* The one above that is fine says what docs/trace.md says it does. */
static void a_kernel_by_hand(void **state)
{
    (void)state;
    static const char payload[] = STRING SHAPE LANE TPCS "\27\0\0\0\2\6";
    uint8_t file[512];
    struct trace_memory m = {file, wrap((const uint8_t *)payload, sizeof(payload) - 1, 1, file), 1};
    struct lithos_trace_reader *r = reader_of(&m);
    struct lithos_trace_event e;
    const struct lithos_trace_event expected = {
        .kind = LITHOS_TRACE_KERNEL,
        .time_ns = 1,
        .kernel = {.tenant = 1,
                   .stream = 2,
                   .pid = 3,
                   .sequence = 1,
                   .function = "k",
                   .grid = {1, 1, 1},
                   .block = {32, 1, 1},
                   .registers = 16,
                   .tpcs = {{1, 0}},
                   .start_ns = 1,
                   .end_ns = 4},
    };

    assert_int_equal(lithos_trace_reader_next(r, &e), 1);
    assert_true(trace_events_equal(&e, &expected));
    lithos_trace_reader_free(r);
}

static void errors_stay(void **state)
{
    (void)state;
    struct lithos_trace_event e = {.kind = LITHOS_TRACE_TENANT_END}, bad = {.kind = LITHOS_TRACE_KIND_MAX};
    struct lithos_trace_writer *w = NULL;
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC), null = open("/dev/null", O_RDWR | O_CLOEXEC), ends[2];
    struct lithos_trace_writer_options o = fixed;

    assert_int_equal(lithos_trace_writer_new(full, &fixed, &w), -ENOSPC);
    o.level = 10;
    assert_int_equal(lithos_trace_writer_new(null, &o, &w), -EINVAL);
    assert_null(w);
    assert_int_equal(lithos_trace_writer_new(null, &fixed, &w), 0);
    assert_int_equal(lithos_trace_writer_event(w, &bad), -EINVAL);
    bad = (struct lithos_trace_event){.kind = LITHOS_TRACE_GPU, .gpu.topology.sms_per_tpc = 99};
    assert_int_equal(lithos_trace_writer_event(w, &bad), -EINVAL);
    assert_int_equal(lithos_trace_writer_event(w, &e), 0); /* an event that is none does no harm */
    assert_int_equal(dup2(full, null), null);
    assert_int_equal(lithos_trace_writer_flush(w), -ENOSPC);
    assert_int_equal(lithos_trace_writer_event(w, &e), -ENOSPC);
    assert_int_equal(lithos_trace_writer_stats(w).events, 0);
    assert_int_equal(lithos_trace_writer_free(w), -ENOSPC);
    close(full);
    close(null);

    struct lithos_trace_reader *r = NULL;
    const char *why = NULL;
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(lithos_trace_reader_new_fd(ends[1], &r, &why),
                     -EBADF); /* the end that is not for reading */
    assert_non_null(why);
    close(ends[0]);
    close(ends[1]);
}

static void everything_has_a_name(void **state)
{
    (void)state;
    assert_string_equal(lithos_trace_kind_name(LITHOS_TRACE_CLOCK), "clock");
    assert_string_equal(lithos_trace_kind_name(LITHOS_TRACE_KIND_MAX), "unknown");
    assert_string_equal(lithos_trace_drop_name(LITHOS_TRACE_DROP_INVALID), "invalid");
    assert_string_equal(lithos_trace_drop_name(LITHOS_TRACE_DROP_STAMPS_OFF), "stamps_off");
    assert_string_equal(lithos_trace_drop_name(12345), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(wild_values_survive),
        cmocka_unit_test(long_strings_are_cut),
        cmocka_unit_test(a_cut_file_loses_its_last_block_only),
        cmocka_unit_test(damage_is_noticed),
        cmocka_unit_test(a_newer_version_is_refused),
        cmocka_unit_test(contents_are_checked),
        cmocka_unit_test(a_kernel_by_hand),
        cmocka_unit_test(errors_stay),
        cmocka_unit_test(everything_has_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
