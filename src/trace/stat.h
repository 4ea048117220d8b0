/* Figures of a trace: kernels by function, tenant or stream, and what is known of what is missing. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "trace/trace.h"

enum lithos_trace_by {
    LITHOS_TRACE_BY_KERNEL, /* a row a tenant and function */
    LITHOS_TRACE_BY_TENANT,
    LITHOS_TRACE_BY_STREAM, /* a row a tenant, process, GPU and stream */
    LITHOS_TRACE_BY_MAX,
};

/* A prediction off by more than this is a misprediction (paper 7.6). */
#define LITHOS_TRACE_MISPREDICTED_NS 50000u

struct lithos_trace_row {
    uint64_t tenant;
    uint64_t stream; /* BY_STREAM, else 0, as pid and gpu */
    uint32_t pid, gpu;
    const char *function; /* BY_KERNEL, else "" */
    uint64_t count;
    double total_ns;                                /* of durations */
    double tpc_ns;                                  /* durations times TPCs */
    double min_ns, mean_ns, p50_ns, p99_ns, max_ns; /* exact, by nearest rank */
    uint32_t tpcs_min, tpcs_max;                    /* TPCs that the kernels might run on */
    uint64_t estimates, clamped;                    /* kernels with these flags */
    uint64_t backwards; /* that end before they start: counted as of no duration */
    uint64_t predicted, mispredicted;
};

struct lithos_trace_drop_count {
    uint64_t tenant;
    uint32_t reason;
    uint64_t count;
};

struct lithos_trace_gpu_figures {
    struct lithos_trace_gpu gpu; /* name "" and all 0 but the index when the trace does not describe it */
    uint64_t clocks;             /* clock mappings */
    uint64_t bound_ns;           /* the largest: no time of this GPU's is off by more */
};

struct lithos_trace_summary {
    uint64_t events[LITHOS_TRACE_KIND_MAX];
    uint64_t first_ns, last_ns; /* first submission and last end of kernels; 0 when there are none */
    double total_ns, tpc_ns;    /* of all rows */
    size_t row_count, drop_count, gpu_count, tenant_count;
    const struct lithos_trace_row *rows; /* longest total first */
    const struct lithos_trace_drop_count *drops;
    const struct lithos_trace_gpu_figures *gpus;
    const struct lithos_trace_tenant *tenants; /* in the order they appear; name "" when it is not told */
};

struct lithos_trace_stat; /* opaque */

/* NULL: no memory. */
struct lithos_trace_stat *lithos_trace_stat_new(enum lithos_trace_by by);
void lithos_trace_stat_free(struct lithos_trace_stat *s);
/* Count an event in. Keeps 8 bytes a kernel, for exact percentiles. 0, -ENOMEM, or -ENOSPC (4 GiB of different names). */
int lithos_trace_stat_add(struct lithos_trace_stat *s, const struct lithos_trace_event *e);
/* The figures so far: valid until the next add or free. */
struct lithos_trace_summary lithos_trace_stat_summary(struct lithos_trace_stat *s);
/* Name of a tenant, "" when the trace does not tell it. */
const char *lithos_trace_stat_tenant(const struct lithos_trace_stat *s, uint64_t tenant);
