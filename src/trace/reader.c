#include "trace/reader.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "base/util.h"
#include "trace/codec.h"
#include "trace/format.h"

struct block {
    uint32_t flags, stored, payload, events, number;
};

struct lithos_trace_reader {
    lithos_trace_read_fn read;
    void *context;
    int error;
    bool ended;
    struct lithos_trace_header header;
    struct lithos_trace_reader_stats stats;
    uint64_t truncated;
    struct lithos_trace_tables tables;
    struct block block;
    uint64_t block_offset;
    uint32_t left; /* events of the block not yet given out */
    const uint8_t *at, *end;
    z_stream inflate;
    uint8_t stored[LITHOS_TRACE_PAYLOAD_MAX];
    uint8_t payload[LITHOS_TRACE_PAYLOAD_MAX];
    char why[160];
};

static int broken(struct lithos_trace_reader *r, const char *what)
{
    snprintf(r->why, sizeof(r->why), "block %" PRIu64 " at byte %" PRIu64 ": %s", r->stats.blocks,
             r->block_offset, what);
    return -EBADMSG;
}

/* Bytes read, less than size at the end only; or negative errno. */
static ssize_t read_full(struct lithos_trace_reader *r, uint8_t *buf, size_t size)
{
    size_t done = 0;

    while (done < size) {
        ssize_t n = r->read(r->context, buf + done, size - done);
        if (n == -EINTR)
            continue;
        if (n < 0)
            return n;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

static int read_header(struct lithos_trace_reader *r, const char **ret_why)
{
    uint8_t h[LITHOS_TRACE_HEADER_BYTES];
    ssize_t n = read_full(r, h, sizeof(h));

    if (n < 0) {
        *ret_why = "it cannot be read";
        return (int)n;
    }
    if (n < 8 || lithos_trace_get64(h) != LITHOS_TRACE_MAGIC) {
        *ret_why = "it is not a trace";
        return -EBADMSG;
    }
    if ((size_t)n < sizeof(h)) {
        *ret_why = "it ends within its header";
        return -ENODATA;
    }
    if ((h[8] | h[9] << 8) != LITHOS_TRACE_VERSION) {
        *ret_why = "its version is not one that this release knows";
        return -EPROTONOSUPPORT;
    }
    if ((h[10] | h[11] << 8) != LITHOS_TRACE_HEADER_BYTES || lithos_trace_get32(h + 32) != 0 ||
        lithos_trace_get32(h + 36) != (uint32_t)crc32(0, h, 36)) {
        *ret_why = "its header is damaged";
        return -EBADMSG;
    }
    if (lithos_trace_get32(h + 12) != 0) {
        *ret_why = "its flags are not ones that this release knows";
        return -EPROTONOSUPPORT;
    }
    r->header = (struct lithos_trace_header){LITHOS_TRACE_VERSION, lithos_trace_get64(h + 16),
                                             lithos_trace_get64(h + 24)};
    r->stats.bytes = sizeof(h);
    return 0;
}

int lithos_trace_reader_new(lithos_trace_read_fn read, void *context, struct lithos_trace_reader **ret_reader,
                            const char **ret_why)
{
    const char *why = "no memory";
    struct lithos_trace_reader *r = malloc(sizeof(*r));
    int error = -ENOMEM;

    if (!r)
        goto fail;
    memset(r, 0, offsetof(struct lithos_trace_reader, stored));
    r->why[0] = 0;
    r->read = read;
    r->context = context;
    if (inflateInit(&r->inflate) != Z_OK)
        goto fail_free;
    error = read_header(r, &why);
    if (error < 0)
        goto fail_inflate;
    lithos_trace_tables_init(&r->tables, r->header.start_ns);
    *ret_reader = r;
    return 0;
fail_inflate:
    inflateEnd(&r->inflate);
fail_free:
    free(r);
fail:
    if (ret_why)
        *ret_why = why;
    return error;
}

static ssize_t read_fd(void *context, void *buf, size_t size)
{
    ssize_t n = read((int)(intptr_t)context, buf, size);

    return n < 0 ? -errno : n;
}

int lithos_trace_reader_new_fd(int fd, struct lithos_trace_reader **ret_reader, const char **ret_why)
{
    return lithos_trace_reader_new(read_fd, (void *)(intptr_t)fd, ret_reader, ret_why);
}

void lithos_trace_reader_free(struct lithos_trace_reader *r)
{
    if (!r)
        return;
    inflateEnd(&r->inflate);
    lithos_trace_tables_finish(&r->tables);
    free(r);
}

static int check_block(struct lithos_trace_reader *r)
{
    const struct block *b = &r->block;

    if (b->flags & ~LITHOS_TRACE_BLOCK_FLAGS)
        return broken(r, "its flags are not ones that this release knows");
    if (!b->payload || b->payload > LITHOS_TRACE_PAYLOAD_MAX || !b->stored || b->stored > b->payload)
        return broken(r, "its length is not possible");
    if (!(b->flags & LITHOS_TRACE_BLOCK_DEFLATE) && b->stored != b->payload)
        return broken(r, "its lengths differ but it is not deflated");
    if (b->number != (uint32_t)r->stats.blocks)
        return broken(r, "its number is not the next: a block is missing or moved");
    if (!r->stats.blocks && !(b->flags & LITHOS_TRACE_BLOCK_RESET))
        return broken(r, "the first block does not start the tables");
    return 0;
}

static int unpack(struct lithos_trace_reader *r)
{
    if (!(r->block.flags & LITHOS_TRACE_BLOCK_DEFLATE)) {
        memcpy(r->payload, r->stored, r->block.payload);
        return 0;
    }
    if (inflateReset(&r->inflate) != Z_OK)
        return -ENOMEM;
    r->inflate.next_in = r->stored;
    r->inflate.avail_in = r->block.stored;
    r->inflate.next_out = r->payload;
    r->inflate.avail_out = r->block.payload;
    int z = inflate(&r->inflate, Z_FINISH);
    if (z == Z_MEM_ERROR)
        return -ENOMEM;
    if (z != Z_STREAM_END || r->inflate.avail_in || r->inflate.avail_out)
        return broken(r, "it does not inflate to its length");
    return 0;
}

/* 1: a block is there; 0: the end, whole or not; negative errno */
static int read_block(struct lithos_trace_reader *r)
{
    uint8_t h[LITHOS_TRACE_BLOCK_HEADER_BYTES];
    ssize_t n = read_full(r, h, sizeof(h));

    r->block_offset = r->stats.bytes;
    if (n <= 0)
        return (int)n;
    if (memcmp(h, "LTBK", LITHOS_MIN((size_t)n, (size_t)4)) != 0)
        return broken(r, "no block begins here");
    if ((size_t)n < sizeof(h)) {
        r->truncated = (uint64_t)n;
        return 0;
    }
    r->block =
        (struct block){lithos_trace_get32(h + 4), lithos_trace_get32(h + 8), lithos_trace_get32(h + 12),
                       lithos_trace_get32(h + 16), lithos_trace_get32(h + 20)};
    int error = check_block(r);
    if (error < 0)
        return error;
    n = read_full(r, r->stored, r->block.stored);
    if (n < 0)
        return (int)n;
    if ((size_t)n < r->block.stored) {
        r->truncated = sizeof(h) + (uint64_t)n;
        return 0;
    }
    if ((uint32_t)crc32(crc32(0, h, 24), r->stored, r->block.stored) != lithos_trace_get32(h + 24))
        return broken(r, "the CRC is wrong");
    error = unpack(r);
    if (error < 0)
        return error;
    if (r->block.flags & LITHOS_TRACE_BLOCK_RESET) {
        lithos_trace_tables_reset(&r->tables);
        r->stats.resets++;
    }
    r->stats.blocks++;
    r->stats.bytes += sizeof(h) + r->block.stored;
    r->stats.payload_bytes += r->block.payload;
    r->left = r->block.events;
    r->at = r->payload;
    r->end = r->payload + r->block.payload;
    return 1;
}

/* As lithos_trace_reader_next. */
static int next(struct lithos_trace_reader *r, struct lithos_trace_event *ret_event)
{
    const char *why = NULL;

    for (;;) {
        if (r->at == r->end) {
            if (r->left)
                return broken(r, "it has fewer events than it says");
            int got = read_block(r);
            if (got <= 0)
                return got;
        }
        int what = lithos_trace_decode(&r->tables, &r->at, r->end, ret_event, &why);
        if (what == -EBADMSG)
            return broken(r, why);
        if (what < 0)
            return what;
        if (what == LITHOS_TRACE_DECODED_OTHER)
            r->stats.unknown++;
        if (what != LITHOS_TRACE_DECODED_EVENT)
            continue;
        if (!r->left--)
            return broken(r, "it has more events than it says");
        r->stats.events[ret_event->kind]++;
        return 1;
    }
}

int lithos_trace_reader_next(struct lithos_trace_reader *r, struct lithos_trace_event *ret_event)
{
    struct lithos_trace_event e;

    if (r->error || r->ended)
        return r->error;
    int got = next(r, &e);
    if (got == 1)
        *ret_event = e;
    else if (got == 0)
        r->ended = true;
    else
        r->error = got;
    if (got < 0 && !r->why[0])
        snprintf(r->why, sizeof(r->why), "byte %" PRIu64 ": %s", r->stats.bytes, strerror(-got));
    return got;
}

struct lithos_trace_header lithos_trace_reader_header(const struct lithos_trace_reader *r)
{
    return r->header;
}

uint64_t lithos_trace_reader_truncated(const struct lithos_trace_reader *r)
{
    return r->truncated;
}

const char *lithos_trace_reader_why(const struct lithos_trace_reader *r)
{
    return r->why;
}

struct lithos_trace_reader_stats lithos_trace_reader_stats(const struct lithos_trace_reader *r)
{
    return r->stats;
}
