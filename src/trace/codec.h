/* Events to bytes and back: what writer and reader have in common. Both keep the same tables and the same states, which
 * is what makes a kernel short: most of it is a difference from what came before. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trace/intern.h"
#include "trace/trace.h"

/* Keys of tables: no padding. */
struct lithos_trace_shape {
    uint32_t function; /* of the strings */
    uint32_t grid[3], block[3];
    uint32_t cluster_blocks, shared_bytes, registers;
};

struct lithos_trace_lane {
    uint64_t tenant, stream;
    uint32_t pid, gpu;
};

struct lithos_trace_tables {
    struct lithos_intern strings, shapes, lanes, tpcs;
    struct lithos_trace_shape_state { /* one a shape */
        uint32_t next;                /* the shape that came after it in its lane, or LITHOS_INTERN_NONE */
        uint64_t duration_ns, predicted_ns;
    } * shape_states;
    struct lithos_trace_lane_state { /* one a lane: its last kernel */
        uint32_t shape, tpcs, flags;
        uint64_t sequence, submit_ns, end_ns;
    } * lane_states;
    uint32_t shape_room, lane_room;
    uint64_t start_ns; /* of the file: what first times are told from */
    uint64_t time_ns;  /* of the last event that was no kernel */
    uint32_t lane;     /* of the last kernel, or LITHOS_INTERN_NONE */
};

/* Allocates nothing yet. */
void lithos_trace_tables_init(struct lithos_trace_tables *t, uint64_t start_ns);
void lithos_trace_tables_finish(struct lithos_trace_tables *t);
/* As at the start of a file, memory kept. */
void lithos_trace_tables_reset(struct lithos_trace_tables *t);
/* Add an entry. 0; -EEXIST, -ENOSPC, -ENOMEM as lithos_intern_add. */
int lithos_trace_tables_add_shape(struct lithos_trace_tables *t, const struct lithos_trace_shape *shape);
int lithos_trace_tables_add_lane(struct lithos_trace_tables *t, const struct lithos_trace_lane *lane);
/* True when any event still fits. */
bool lithos_trace_tables_have_room(const struct lithos_trace_tables *t);

/* What a kernel is told as a difference from. */
uint64_t lithos_trace_expected_start(const struct lithos_trace_lane_state *lane, uint64_t submit_ns);
/* Remember a kernel that was written or read: of `lane`, with entries `shape` and `tpcs`. */
void lithos_trace_tables_note(struct lithos_trace_tables *t, uint32_t lane, uint32_t shape, uint32_t tpcs,
                              const struct lithos_trace_event *e);

enum lithos_trace_field_type {
    LITHOS_TRACE_FIELD_U32,
    LITHOS_TRACE_FIELD_U64,
    LITHOS_TRACE_FIELD_S64,
    LITHOS_TRACE_FIELD_STRING,
    LITHOS_TRACE_FIELD_TPCS,
    LITHOS_TRACE_FIELD_UUID,
};

struct lithos_trace_field {
    enum lithos_trace_kind kind;
    enum lithos_trace_field_type type;
    size_t offset; /* in struct lithos_trace_event */
};

extern const struct lithos_trace_field lithos_trace_fields[];
extern const size_t lithos_trace_field_count;

/* 0, or -EINVAL: a kind that is none, a GPU whose topology is neither valid nor all 0 ("not known"). */
int lithos_trace_event_validate(const struct lithos_trace_event *e);

/* Most bytes one event takes, with all it adds to the tables. */
#define LITHOS_TRACE_ENCODED_MAX (LITHOS_TRACE_STRING_MAX + 1024u)
/* A valid event into buf (room for LITHOS_TRACE_ENCODED_MAX), for which the tables have room. 0; -ENOMEM: buf and
 * tables no longer agree, nothing more may be written. */
int lithos_trace_encode(struct lithos_trace_tables *t, const struct lithos_trace_event *e, uint8_t *buf,
                        size_t *ret_len);

enum lithos_trace_decoded {
    LITHOS_TRACE_DECODED_EVENT,
    LITHOS_TRACE_DECODED_TABLE, /* an entry of a table */
    LITHOS_TRACE_DECODED_OTHER, /* a record of a kind that this version does not know */
};

/* The record at *at, which is before end; moves *at behind it. Trusts nothing. An enum lithos_trace_decoded, or
 * -EBADMSG (*ret_why says what is wrong), -ENOMEM. */
int lithos_trace_decode(struct lithos_trace_tables *t, const uint8_t **at, const uint8_t *end,
                        struct lithos_trace_event *ret_event, const char **ret_why);
