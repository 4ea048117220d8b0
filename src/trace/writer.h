/* Writes a trace: a header, then blocks. Only ever appends, so that a writer that dies loses the block it had in hand at
 * most. Memory is bounded (some 20 MiB at worst, little in practice) and no event is kept beyond its block. */
#pragma once

#include <stdint.h>

#include "trace/trace.h"

/* An event makes its block go out when the block's payload reaches this. */
#define LITHOS_TRACE_BLOCK_TARGET (64u << 10)
/* zlib's levels; 0 stores blocks as they are. docs/trace.md has the sizes and times. */
#define LITHOS_TRACE_LEVEL_DEFAULT 1

struct lithos_trace_writer; /* opaque */

struct lithos_trace_writer_options {
    uint64_t start_ns;    /* when the trace begins, CLOCK_MONOTONIC; 0: now */
    uint64_t realtime_ns; /* CLOCK_REALTIME at that moment; 0: as it was then by the clocks of now */
    int level;            /* 0 to 9 */
};

struct lithos_trace_writer_stats {
    uint64_t events, blocks; /* handed to the file */
    uint64_t bytes;          /* written, the header included */
    uint64_t payload_bytes;  /* of all blocks, before deflation */
};

/* Writes the header. The fd stays the caller's: it need not seek, and each write(2) blocks as it will. options NULL: from
 * now on, default level. 0; -EINVAL (level), -ENOMEM, or the negative errno of write(2). */
int lithos_trace_writer_new(int fd, const struct lithos_trace_writer_options *options,
                            struct lithos_trace_writer **ret_writer);
/* Add one event; strings are copied (cut at LITHOS_TRACE_STRING_MAX bytes), NULL is "". 0; -EINVAL: not an event, nothing
 * happened; else the writer has failed: the negative errno of what failed first, now and in every later call, and nothing
 * more is written. */
int lithos_trace_writer_event(struct lithos_trace_writer *w, const struct lithos_trace_event *e);
/* Write out the block in hand, if it has any events: for the caller to do each so many ms. 0 or as above. */
int lithos_trace_writer_flush(struct lithos_trace_writer *w);
struct lithos_trace_writer_stats lithos_trace_writer_stats(const struct lithos_trace_writer *w);
/* Flush and free; NULL is fine. 0, or the error that the writer failed with. */
int lithos_trace_writer_free(struct lithos_trace_writer *w);
