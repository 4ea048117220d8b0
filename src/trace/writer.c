#include "trace/writer.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

#include "base/assert.h"
#include "base/util.h"
#include "trace/codec.h"
#include "trace/format.h"

#define PAYLOAD_ROOM (LITHOS_TRACE_BLOCK_TARGET + LITHOS_TRACE_ENCODED_MAX)

_Static_assert(PAYLOAD_ROOM <= LITHOS_TRACE_PAYLOAD_MAX, "readers take what writers write");

struct lithos_trace_writer {
    int fd, error, level;
    bool reset; /* the block in hand starts with empty tables */
    struct lithos_trace_tables tables;
    struct lithos_trace_writer_stats stats;
    z_stream deflate;
    uint32_t events; /* in hand */
    size_t len;
    uint8_t payload[PAYLOAD_ROOM];
    /* what is written: a block's header and body */
    uint8_t block[LITHOS_TRACE_BLOCK_HEADER_BYTES + PAYLOAD_ROOM];
};

static int write_all(struct lithos_trace_writer *w, const uint8_t *data, size_t len)
{
    while (len) {
        ssize_t n = write(w->fd, data, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        data += n;
        len -= (size_t)n;
        w->stats.bytes += (uint64_t)n;
    }
    return 0;
}

static int write_header(struct lithos_trace_writer *w, const struct lithos_trace_writer_options *o)
{
    uint8_t h[LITHOS_TRACE_HEADER_BYTES] = {0};

    lithos_trace_put64(h, LITHOS_TRACE_MAGIC);
    h[8] = LITHOS_TRACE_VERSION;
    h[10] = LITHOS_TRACE_HEADER_BYTES;
    lithos_trace_put64(h + 16, o->start_ns);
    lithos_trace_put64(h + 24, o->realtime_ns);
    lithos_trace_put32(h + 36, (uint32_t)crc32(0, h, 36));
    return write_all(w, h, sizeof(h));
}

static struct lithos_trace_writer_options complete(const struct lithos_trace_writer_options *options)
{
    struct lithos_trace_writer_options o = {.level = LITHOS_TRACE_LEVEL_DEFAULT};
    uint64_t now_ns = lithos_now_ns();
    struct timespec ts;

    if (options)
        o = *options;
    if (!o.start_ns)
        o.start_ns = now_ns;
    if (!o.realtime_ns) {
        clock_gettime(CLOCK_REALTIME, &ts);
        o.realtime_ns =
            (uint64_t)ts.tv_sec * LITHOS_NSEC_PER_SEC + (uint64_t)ts.tv_nsec - now_ns + o.start_ns;
    }
    return o;
}

int lithos_trace_writer_new(int fd, const struct lithos_trace_writer_options *options,
                            struct lithos_trace_writer **ret_writer)
{
    const struct lithos_trace_writer_options o = complete(options);

    if (o.level < 0 || o.level > 9)
        return -EINVAL;
    struct lithos_trace_writer *w = calloc(1, sizeof(*w));
    if (!w)
        return -ENOMEM;
    w->fd = fd;
    w->level = o.level;
    w->reset = true;
    lithos_trace_tables_init(&w->tables, o.start_ns);
    if (w->level && deflateInit(&w->deflate, w->level) != Z_OK) {
        free(w);
        return -ENOMEM;
    }
    int r = write_header(w, &o);
    if (r < 0) {
        w->error = r;
        lithos_trace_writer_free(w);
        return r;
    }
    *ret_writer = w;
    return 0;
}

/* The payload's stored form behind the block's header: deflated where that is shorter. Returns its bytes. */
static size_t store(struct lithos_trace_writer *w, uint32_t *ret_flags)
{
    uint8_t *body = w->block + LITHOS_TRACE_BLOCK_HEADER_BYTES;

    if (w->level) {
        lithos_assert(deflateReset(&w->deflate) == Z_OK);
        w->deflate.next_in = w->payload;
        w->deflate.avail_in = (uInt)w->len;
        w->deflate.next_out = body;
        w->deflate.avail_out = (uInt)(w->len - 1);
        if (deflate(&w->deflate, Z_FINISH) == Z_STREAM_END) {
            *ret_flags |= LITHOS_TRACE_BLOCK_DEFLATE;
            return w->deflate.total_out;
        }
    }
    memcpy(body, w->payload, w->len);
    return w->len;
}

int lithos_trace_writer_flush(struct lithos_trace_writer *w)
{
    uint32_t flags = w->reset ? LITHOS_TRACE_BLOCK_RESET : 0;
    uint8_t *h = w->block;

    if (w->error || !w->events)
        return w->error;
    size_t stored = store(w, &flags);
    lithos_trace_put32(h, LITHOS_TRACE_BLOCK_MAGIC);
    lithos_trace_put32(h + 4, flags);
    lithos_trace_put32(h + 8, (uint32_t)stored);
    lithos_trace_put32(h + 12, (uint32_t)w->len);
    lithos_trace_put32(h + 16, w->events);
    lithos_trace_put32(h + 20, (uint32_t)w->stats.blocks);
    uLong crc = crc32(0, h, 24);
    crc = crc32(crc, h + LITHOS_TRACE_BLOCK_HEADER_BYTES, (uInt)stored);
    lithos_trace_put32(h + 24, (uint32_t)crc);
    w->error = write_all(w, h, LITHOS_TRACE_BLOCK_HEADER_BYTES + stored);
    if (w->error)
        return w->error;
    w->stats.blocks++;
    w->stats.events += w->events;
    w->stats.payload_bytes += w->len;
    w->events = 0;
    w->len = 0;
    w->reset = false;
    return 0;
}

int lithos_trace_writer_event(struct lithos_trace_writer *w, const struct lithos_trace_event *e)
{
    size_t len;
    int r = lithos_trace_event_validate(e);

    if (w->error || r < 0)
        return w->error ? w->error : r;
    if (!lithos_trace_tables_have_room(&w->tables)) {
        r = lithos_trace_writer_flush(w);
        if (r < 0)
            return r;
        lithos_trace_tables_reset(&w->tables);
        w->reset = true;
    }
    r = lithos_trace_encode(&w->tables, e, w->payload + w->len, &len);
    if (r < 0)
        return w->error = r;
    w->len += len;
    w->events++;
    return w->len >= LITHOS_TRACE_BLOCK_TARGET ? lithos_trace_writer_flush(w) : 0;
}

struct lithos_trace_writer_stats lithos_trace_writer_stats(const struct lithos_trace_writer *w)
{
    return w->stats;
}

int lithos_trace_writer_free(struct lithos_trace_writer *w)
{
    if (!w)
        return 0;
    int r = lithos_trace_writer_flush(w);
    if (w->level)
        deflateEnd(&w->deflate);
    lithos_trace_tables_finish(&w->tables);
    free(w);
    return r;
}
