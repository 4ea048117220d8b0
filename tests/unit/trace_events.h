/* Traces for tests: events of all kinds, random within and beyond reason, and files in memory. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "trace/reader.h"
#include "trace/writer.h"

struct trace_random {
    uint64_t state; /* not 0 */
    char name[64];  /* of the last event, which points here */
};

/* A number, often an extreme one. */
uint64_t trace_random_number(struct trace_random *r);
/* An event of any kind. wild: any value in any field; else what a machine with a few tenants does. */
struct lithos_trace_event trace_random_event(struct trace_random *r, bool wild);
/* The same in all fields of its kind. */
bool trace_events_equal(const struct lithos_trace_event *a, const struct lithos_trace_event *b);

/* A memfd, -1 on failure. */
int trace_file(void);
/* All of a file, from its beginning; the caller frees it. */
uint8_t *trace_file_bytes(int fd, size_t *ret_len);
/* Reads a trace and writes what it read to fd, block for block, with zlib's level: the same bytes when that is the level it was
 * written with. 0, or the negative errno of what failed. */
int trace_rewrite(struct lithos_trace_reader *from, int fd, int level);
/* A file in memory to read: context of trace_memory_read. */
struct trace_memory {
    const uint8_t *at;
    size_t left;
    size_t step; /* most bytes a read gives, 0: any */
};
ssize_t trace_memory_read(void *context, void *buf, size_t size);
