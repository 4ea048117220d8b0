/* What a trace says: events of tenants, grants, clocks, and above all kernels. The file they are kept in is described in
 * docs/trace.md; trace/writer.h writes it, trace/reader.h reads it.
 *
 * All times are ns of the recording machine's CLOCK_MONOTONIC unless it says otherwise. Strings end in a NUL; those of
 * an event that a reader gave are the reader's and live until its next call. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/tpcset.h"
#include "hw/topology.h"

#define LITHOS_TRACE_UUID_BYTES 16u
/* Bytes of a string that are kept, without its end: a longer one (C++ knows names of that length) is cut there. */
#define LITHOS_TRACE_STRING_MAX 16383u
/* The stream of a sync that waits for all of its GPU's streams. */
#define LITHOS_TRACE_ALL_STREAMS UINT64_MAX

enum lithos_trace_kind {
    LITHOS_TRACE_KERNEL,
    LITHOS_TRACE_GPU,        /* a GPU of this machine; stands before all that names it */
    LITHOS_TRACE_TENANT,     /* a tenant was admitted */
    LITHOS_TRACE_TENANT_END, /* it ended, and all its processes */
    LITHOS_TRACE_GRANT,      /* a tenant's TPCs of a GPU are these from now on */
    LITHOS_TRACE_SYNC,       /* a process waited for its kernels */
    LITHOS_TRACE_DROP,       /* something is missing from the trace, and why */
    LITHOS_TRACE_CLOCK,      /* how a GPU's clock maps to CLOCK_MONOTONIC */
    LITHOS_TRACE_ATOM,       /* a part of a kernel ran; the kernel's own event comes when all have */
    LITHOS_TRACE_KIND_MAX,
};

/* Of a kernel. Values of files: never renumbered. */
enum lithos_trace_kernel_flag {
    LITHOS_TRACE_GRAPH_NODE = 1u << 0, /* a node of a CUDA graph */
    LITHOS_TRACE_DRIVER = 1u << 1,     /* the driver's own, a memset for example */
    LITHOS_TRACE_ESTIMATE = 1u << 2,   /* streams overlapped: start and so the duration are estimates */
    LITHOS_TRACE_CLAMPED = 1u << 3,    /* a time was moved to keep submit <= start <= end <= seen */
};

/* Why something is missing. Values of files: never renumbered. */
enum lithos_trace_drop_reason {
    LITHOS_TRACE_DROP_RECORD_RING = 1,  /* launches: the tenant's ring of launch records was full */
    LITHOS_TRACE_DROP_STAMP_RING = 2,   /* completions: no slot was free for the GPU's stamp */
    LITHOS_TRACE_DROP_SLOT_REUSED = 3,  /* completions: a stamp was overwritten before it was read */
    LITHOS_TRACE_DROP_NO_SEMAPHORE = 4, /* completions: somebody else uses the QMD's release semaphore */
    LITHOS_TRACE_DROP_TENANT_ENDED = 5, /* launches: their tenant ended before they did */
    LITHOS_TRACE_DROP_GRAPH_REPLAY = 6, /* completions: a graph's node ran again before its stamp was read */
    LITHOS_TRACE_DROP_WRITER = 7,       /* events: the trace could not be written fast enough */
    LITHOS_TRACE_DROP_INVALID = 8,      /* launches or completions that did not validate */
    LITHOS_TRACE_DROP_STAMPS_OFF =
        9, /* completions: stamps are off, or the GPU could not reach their memory */
    LITHOS_TRACE_DROP_REASON_MAX,
};

struct lithos_trace_kernel {
    uint64_t tenant;
    uint64_t stream;   /* the driver's number or handle: one value, one stream, within pid and gpu */
    uint32_t pid;      /* of the process that launched it */
    uint32_t gpu;      /* index, as in the GPU event */
    uint64_t sequence; /* the process's count of launches, this one included */
    const char *function;
    uint32_t grid[3];          /* blocks */
    uint32_t block[3];         /* threads */
    uint32_t cluster_blocks;   /* 0 or 1: none */
    uint32_t shared_bytes;     /* a block, static and dynamic */
    uint32_t registers;        /* a thread */
    uint32_t flags;            /* enum lithos_trace_kernel_flag; others are kept */
    struct lithos_tpcset tpcs; /* where it might run */
    uint64_t start_ns;         /* estimated: the GPU stamps ends only */
    uint64_t end_ns;
    uint64_t predicted_ns; /* its duration as foretold at submission; 0: was not */
};

struct lithos_trace_gpu {
    uint32_t index;
    uint8_t uuid[LITHOS_TRACE_UUID_BYTES];
    const char *name;
    struct lithos_topology topology;
};

struct lithos_trace_tenant { /* TENANT, and TENANT_END: id alone */
    uint64_t id;
    uint32_t pid; /* of the process that asked for admission */
    const char *name;
};

struct lithos_trace_grant {
    uint64_t tenant;
    uint32_t gpu;
    struct lithos_tpcset tpcs; /* empty: none any more */
};

struct lithos_trace_sync {
    uint64_t tenant;
    uint64_t stream; /* or LITHOS_TRACE_ALL_STREAMS */
    uint32_t pid;
    uint32_t gpu;
    uint64_t sequence; /* the process's last launch before it */
};

struct lithos_trace_drop {
    uint64_t tenant;
    uint32_t pid;    /* 0: of no one process */
    uint32_t gpu;    /* UINT32_MAX: of no one GPU */
    uint32_t reason; /* enum lithos_trace_drop_reason; others are kept */
    uint64_t count;
};

struct lithos_trace_clock { /* host = gpu + offset + drift * (gpu - gpu_ns) / 1e9, within bound */
    uint32_t gpu;
    uint64_t gpu_ns;   /* where the offset holds exactly, on the GPU's own clock */
    int64_t offset_ns; /* CLOCK_MONOTONIC minus the GPU's clock */
    int64_t drift_ppb; /* by how much the host's clock is faster, in 1e-9 */
    uint64_t bound_ns; /* mapped times are off by no more */
};

struct lithos_trace_atom {
    uint64_t tenant;
    uint64_t stream;
    uint32_t pid;
    uint32_t gpu;
    uint64_t sequence;         /* of the kernel that it is a part of */
    struct lithos_tpcset tpcs; /* where it might run: each atom has those of its moment */
    uint64_t took_ns;          /* from its start, which is the event's time */
};

struct lithos_trace_event {
    enum lithos_trace_kind kind;
    /* When it happened; a kernel: when it was submitted; an atom: when it began, an estimate. */
    uint64_t time_ns;
    union {
        struct lithos_trace_kernel kernel;
        struct lithos_trace_gpu gpu;
        struct lithos_trace_tenant tenant; /* TENANT, TENANT_END */
        struct lithos_trace_grant grant;
        struct lithos_trace_sync sync;
        struct lithos_trace_drop drop;
        struct lithos_trace_clock clock;
        struct lithos_trace_atom atom;
    };
};

/* Stable lower-case names for tables and JSON ("kernel", "record_ring"); "unknown" for values that are none. */
const char *lithos_trace_kind_name(enum lithos_trace_kind kind);
const char *lithos_trace_drop_name(uint32_t reason);
/* end - start, 0 for one that ends before it starts */
static inline uint64_t lithos_trace_duration_ns(const struct lithos_trace_kernel *k)
{
    return k->end_ns > k->start_ns ? k->end_ns - k->start_ns : 0;
}
