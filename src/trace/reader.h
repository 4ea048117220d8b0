/* Reads a trace, event by event, from anything that can be read from front to end. Trusts nothing of it: every length is
 * checked, every block by its CRC before any of its events is given out, memory is bounded (some 25 MiB at worst). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "trace/trace.h"

struct lithos_trace_reader; /* opaque */

struct lithos_trace_header {
    uint32_t version;
    uint64_t start_ns;    /* CLOCK_MONOTONIC when the trace began */
    uint64_t realtime_ns; /* CLOCK_REALTIME then */
};

/* As read(2): bytes given, 0 at the end, or negative errno. */
typedef ssize_t (*lithos_trace_read_fn)(void *context, void *buf, size_t size);

/* Reads and checks the header. ret_why (may be NULL) gets a static text on failure. 0; -EBADMSG: not a trace, or a damaged
 * header; -EPROTONOSUPPORT: a version or flags that this reader does not know; -ENODATA: shorter than a header;
 * -ENOMEM; or what read gave. */
int lithos_trace_reader_new(lithos_trace_read_fn read, void *context, struct lithos_trace_reader **ret_reader,
                            const char **ret_why);
/* The same of an fd, which stays the caller's and open until the reader is freed. */
int lithos_trace_reader_new_fd(int fd, struct lithos_trace_reader **ret_reader, const char **ret_why);
void lithos_trace_reader_free(struct lithos_trace_reader *r);

struct lithos_trace_header lithos_trace_reader_header(const struct lithos_trace_reader *r);
/* The next event, in the order of the file. 1; 0 at the end (see lithos_trace_reader_truncated); -EBADMSG: damaged, see
 * lithos_trace_reader_why; -ENOMEM; or what read gave. Errors stay. */
int lithos_trace_reader_next(struct lithos_trace_reader *r, struct lithos_trace_event *ret_event);
/* After the end: bytes of a last block that was not written to its end, which are lost; 0 for a whole file. */
uint64_t lithos_trace_reader_truncated(const struct lithos_trace_reader *r);
/* What is wrong and where ("block 3 at byte 4711: the CRC is wrong"), "" when nothing is. */
const char *lithos_trace_reader_why(const struct lithos_trace_reader *r);

struct lithos_trace_reader_stats {
    uint64_t bytes;         /* of the header and all whole blocks so far */
    uint64_t payload_bytes; /* of their blocks, unpacked */
    uint64_t blocks;        /* begun; a rewriter that flushes when it grows makes the same blocks */
    uint64_t resets;        /* blocks that started with empty tables, the first included */
    uint64_t unknown;       /* records passed over: of kinds of a later release */
    uint64_t events[LITHOS_TRACE_KIND_MAX];
};
struct lithos_trace_reader_stats lithos_trace_reader_stats(const struct lithos_trace_reader *r);
