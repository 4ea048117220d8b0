/* A trace as the JSON that chrome://tracing and ui.perfetto.dev show: tenants are processes, streams threads, kernels
 * slices; TPCs owned are counters, grants, syncs and drops marks. docs/trace.md says what stands where. */
#pragma once

#include <stdint.h>
#include <stdio.h>

#include "trace/trace.h"

struct lithos_trace_export; /* opaque */

/* Begins the document on `out`, which stays the caller's. Times are told from start_ns on. Written event by event: memory
 * grows with tenants and streams only. 0, -ENOMEM, or negative errno of the
 * write. */
int lithos_trace_export_new(FILE *out, uint64_t start_ns, struct lithos_trace_export **ret_export);
/* 0, -ENOMEM, or negative errno of the write: the document is not to be gone on with. */
int lithos_trace_export_add(struct lithos_trace_export *x, const struct lithos_trace_event *e);
/* Ends the document and flushes `out`. Without it the document is no JSON. 0 or as above. */
int lithos_trace_export_end(struct lithos_trace_export *x);
void lithos_trace_export_free(struct lithos_trace_export *x);
