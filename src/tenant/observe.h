/* What this process tells lithosd of its launches: records (records.c), and stamps by the GPU (stamps.c). Nothing here waits,
 * allocates or takes a lock on the way of a launch; what does not fit is dropped and counted. */
#pragma once

#include "base/util.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "driver/client.h"
#include "proto/records.h"

/* What every launching thread counts on: one cache line, which they take from each other once a launch. */
struct lithos_tenant_numbers {
    _Alignas(64) _Atomic uint64_t sequence; /* of records, last given (records.c) */
    _Atomic uint64_t stamps;                /* plain stamps ever asked for (stamps.c) */
};
extern struct lithos_tenant_numbers lithos_tenant_numbers;

/* ---- records.c ---- */

extern const struct lithos_hook_observer lithos_tenant_observer;
/* A ring, and with it counters, for this thread; none when all are taken. */
void lithos_records_thread_starts(void);
/* The ring of this thread, counted from 1: who it is in records of what another issues for it. 0: it has none, until it waits or launches
 * by itself. */
uint32_t lithos_records_thread(void);
/* Other pages lie at lithos_tenant_home: its reader knows no names yet. */
void lithos_records_renew(void);
/* Child of a fork: one thread, nothing noted. */
void lithos_records_forget(void);
/* Count for the calling thread. */
void lithos_records_count(enum lithos_counter what, uint64_t n);
/* Index into the grant of each device, 0xff where it has none. */
void lithos_records_set_gpu(int device, uint8_t grant_index);

/* ---- stamps.c ---- */

/* Register the stamps with the current context, if they are not yet. Calls the driver: never in the callback. */
LITHOS_OFF_PATH void lithos_stamps_ready(void);
/* Address of the stamps as the GPU of a context sees it, 0 when there are none. For the callback. */
uint64_t lithos_stamps_base(CUcontext ctx);
/* Where it finds the word that graphs with stops in them go by, of the current context; 0: nowhere. Calls the driver. */
uint64_t lithos_stamps_stop_address(CUcontext ctx);
/* Set a slot aside for a launch to come, so that the callback need not look for one: its sequence, 0 when none is free. */
uint64_t lithos_stamps_reserve(void);
/* It will not be needed. */
void lithos_stamps_cancel(uint64_t reserved);
/* Have the GPU stamp this QMD. 0: it will write `reserved`; -ENOSPC there is none (0, or the pages have been exchanged since);
 * -EBUSY, -ENOTSUP, -ERANGE as lithos_qmd_set_release, and the slot is free again. For the callback. */
int lithos_stamps_take(uint64_t base, const struct lithos_qmd_layout *layout, void *qmd, uint64_t reserved);
/* The same for a node of a graph, whose slot stays its own until the graph ends. owner: not 0. 1 instead of 0: the QMD is one seen
 * before, made again because the node was changed, and goes on with the slot it has. */
int lithos_stamps_take_node(uint64_t base, const struct lithos_qmd_layout *layout, void *qmd, uint64_t owner,
                            uint64_t *ret_sequence);
/* The stamp of a node of that owner's, from its QMD; 0: there is none of ours in it. For the callback. */
uint64_t lithos_stamps_of_node(uint64_t base, const struct lithos_qmd_layout *layout, const void *qmd,
                               uint64_t owner);
/* The launch that was to write it failed. */
void lithos_stamps_give_back(uint64_t sequence);
/* The nodes of `from` are those of `to`; 0: nobody's. */
void lithos_stamps_pass_on(uint64_t from, uint64_t to);
void lithos_stamps_context_ends(CUcontext ctx, CUdevice device);
void lithos_stamps_context_ended(CUcontext ctx, CUdevice device, bool ended);
/* Around the exchange of the pages at lithos_tenant_home: no stamps between the two. */
void lithos_stamps_pause(void);
void lithos_stamps_resume(void);
void lithos_stamps_forget(void);
