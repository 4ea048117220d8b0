/* The trace file's numbers (docs/trace.md): one list for writer and reader. */
#pragma once

#include <stdint.h>
#include <string.h>

#include "trace/trace.h"

#define LITHOS_TRACE_MAGIC 0x0a45434152544c89ull /* "\x89LTRACE\n" */
#define LITHOS_TRACE_VERSION 1u
#define LITHOS_TRACE_HEADER_BYTES 40u
#define LITHOS_TRACE_BLOCK_MAGIC 0x4b42544cu /* "LTBK" */
#define LITHOS_TRACE_BLOCK_HEADER_BYTES 28u
/* Of a block's payload, before and after it is unpacked: more is refused. */
#define LITHOS_TRACE_PAYLOAD_MAX (1u << 20)

enum lithos_trace_block_flag {
    LITHOS_TRACE_BLOCK_DEFLATE = 1u << 0, /* stored as a zlib stream */
    LITHOS_TRACE_BLOCK_RESET = 1u << 1,   /* tables and states start anew */
    LITHOS_TRACE_BLOCK_FLAGS = (1u << 2) - 1,
};

/* Records other than kernels: the first byte is kind << 1. */
enum lithos_trace_record {
    LITHOS_TRACE_RECORD_STRING = 1,
    LITHOS_TRACE_RECORD_SHAPE = 2,
    LITHOS_TRACE_RECORD_LANE = 3,
    LITHOS_TRACE_RECORD_TPCS = 4,
    LITHOS_TRACE_RECORD_EVENT = 16, /* + enum lithos_trace_kind */
    LITHOS_TRACE_RECORD_MAX = 128,
};

/* The first byte of a kernel's record: which fields follow, in this order. */
enum lithos_trace_kernel_has {
    LITHOS_TRACE_HAS_KERNEL = 1u << 0, /* always set */
    LITHOS_TRACE_HAS_LANE = 1u << 1,
    LITHOS_TRACE_HAS_SHAPE = 1u << 2,
    LITHOS_TRACE_HAS_SEQUENCE = 1u << 3,
    LITHOS_TRACE_HAS_TPCS = 1u << 4,
    LITHOS_TRACE_HAS_FLAGS = 1u << 5,
    LITHOS_TRACE_HAS_START = 1u << 6,
    LITHOS_TRACE_HAS_PREDICTED = 1u << 7,
};

/* Entries a table may have between two resets, and bytes of all strings together, their ends included. */
#define LITHOS_TRACE_STRINGS_MAX 32768u
#define LITHOS_TRACE_STRING_BYTES_MAX (8u << 20)
#define LITHOS_TRACE_SHAPES_MAX 32768u
#define LITHOS_TRACE_LANES_MAX 16384u
#define LITHOS_TRACE_TPCS_MAX 16384u

/* Longest a number gets. */
#define LITHOS_TRACE_VARINT_MAX 10u

static inline void lithos_trace_put32(uint8_t *p, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static inline void lithos_trace_put64(uint8_t *p, uint64_t v)
{
    for (unsigned i = 0; i < 8; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static inline uint32_t lithos_trace_get32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t lithos_trace_get64(const uint8_t *p)
{
    return (uint64_t)lithos_trace_get32(p) | (uint64_t)lithos_trace_get32(p + 4) << 32;
}

/* Differences, modulo 2^64, so that small ones of either sign are short. */
static inline uint64_t lithos_trace_zigzag(uint64_t difference)
{
    return difference << 1 ^ (0 - (difference >> 63));
}

static inline uint64_t lithos_trace_unzigzag(uint64_t z)
{
    return z >> 1 ^ (0 - (z & 1));
}
