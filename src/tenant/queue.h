/* Launch queues (paper 5.2; docs/adr/0013-launch-queues.md): what a best-effort program asks of its streams waits here, is given to the
 * driver in order by a thread of our own, the dispatcher, and of kernels only so many at a time that the card can soon be taken back.
 * What each function of the driver does with order stands in driver/order.def.
 *
 * A program of class high that has CPUs to spare has them for the sake of that thread alone (ADR 29): nothing is held back. Any other has
 * no queues, no thread and no cost but a comparison a call. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "cuda/cuda_abi.h"
#include "driver/client.h"
#include "hw/topology.h"

/* Where calls go while there are queues. */
extern const struct lithos_hook_order lithos_queue_order;

enum lithos_queue_use {
    LITHOS_QUEUE_UNUSED,
    LITHOS_QUEUE_WINDOW,    /* little of it is on the card at a time */
    LITHOS_QUEUE_HAND_OVER, /* all is issued at once, beside the program */
};

/* What this tenant has queues for: they are made the first time that it is something, and are left empty when it is nothing any more. When
 * they cannot be made, launches go on as without. spare: the program has a CPU for the thread that issues, which looks on for longer then, and is
 * left all launches while it does (docs/adr/0029-hand-over-by-default.md). Any thread, one at a time. */
void lithos_queue_set_use(enum lithos_queue_use use, bool spare);
/* For how long calls are gathered at most while they are handed over, in ns: they stay queued until the program waits for them
 * (docs/adr/0037-gathering.md). 0, at first: they are not. Before lithos_queue_set_use, by the same thread. */
void lithos_queue_set_gather(uint64_t gather_ns);
/* What the grant says of a device (index of driver/qmd_hook.h): its place in the grant and the quota, for rules; topology NULL: it has
 * none. Any thread, one at a time. */
void lithos_queue_set_quota(int device, uint8_t grant_index, const struct lithos_topology *topology,
                            struct lithos_tpcset own);
/* After a context, or with ctx NULL one of a device's, was to end. */
void lithos_queue_context_ended(CUcontext ctx, CUdevice device, bool ended);
/* Other pages lie at lithos_tenant_home: stamps under way will not come. */
void lithos_queue_renew(void);
/* In the child of a fork: no queues. What the parent had queued is the parent's. */
void lithos_queue_forget(void);
