/* The QMD hook: the driver calls us just before it hands a kernel's descriptor to the card, and we confine it
 * to the tenant's TPCs (docs/hardware.md, "Seeing every launch"). */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/tpcset.h"
#include "base/util.h"
#include "driver/client.h"
#include "driver/order.h"
#include "driver/ticket.h"
#include "hw/topology.h"

#define LITHOS_HOOK_MAX_DEVICES 16

/* A device as this process sees it (CUDA_VISIBLE_DEVICES applied). */
struct lithos_hook_device {
    int handle; /* CUdevice */
    uint8_t uuid[16];
    int cc_major, cc_minor;
    int sm_count;
    _Atomic unsigned tpc_sms;  /* SMs of a TPC, as the quota says */
    _Atomic unsigned told_sms; /* as of the quota in force */
};

/* How far the hook got in this process. */
enum lithos_hook_state {
    LITHOS_HOOK_NONE,       /* not tried, or not wanted */
    LITHOS_HOOK_SUBSCRIBED, /* the callback is in place */
    LITHOS_HOOK_FAILED,     /* see lithos_hook_why */
};

/* Launches are counted and QMDs masked from now on (true), or the hooked functions are passed through
 * (false). */
extern atomic_bool lithos_hook_on __attribute__((visibility("hidden")));
/* The client's *watch that the masks in force were built from. */
extern _Atomic uint32_t lithos_hook_seen __attribute__((visibility("hidden")));
/* Another one each time that the masks in force are others than before. */
extern _Atomic uint32_t lithos_hook_masks __attribute__((visibility("hidden")));
/* A kernel was seen that no hooked function accounts for: what else goes past the hooks is not known. */
extern atomic_bool lithos_hook_escaped __attribute__((visibility("hidden")));
/* Index of the only device of the process, or LITHOS_DEVICE_UNKNOWN when there are several or they are not
 * known. */
extern _Atomic int32_t lithos_hook_only_device __attribute__((visibility("hidden")));

/* Ask the real driver for its QMD table and subscribe to it. 0; -ENOTSUP when the driver has no such table or
 * it does not look as it should; -EBUSY when the driver refuses (another tool has subscribed). At most once a
 * process. */
int lithos_hook_subscribe(void);
/* Instead: leave it to somebody else. */
void lithos_hook_step_aside(const char *why);
enum lithos_hook_state lithos_hook_get_state(void);
/* It has been called in this process: to subscribe is not enough where another tool was first. */
bool lithos_hook_heard(void);
/* Why it failed, for people. */
const char *lithos_hook_why(void);

/* Note the devices of this process. Calls the driver: after cuInit, never inside the callback. Negative errno
 * when the driver does not answer (-EAGAIN: not initialized yet). */
int lithos_hook_scan_devices(void);
/* Devices found; *ret_devices points to them, for good. */
int lithos_hook_devices(const struct lithos_hook_device **ret_devices);

/* How many TPCs a kernel of this process may use on a device (index), by the masks in force; 0: not confined. */
unsigned lithos_hook_tpcs(int32_t device);

/* Where graphs with stops in them run on a device (index), for tickets; NULL: as all else. */
const struct lithos_gate *lithos_hook_graphs(int32_t device);

/* The quota on one device (index), NULL topology for none: its launches are then left as they are. 0 or
 * -EINVAL (lithos_gate_build). Readers never wait for it; callers take turns. */
struct lithos_hook_quota {
    bool present;
    struct lithos_topology topology;
    struct lithos_tpcset own;
    struct lithos_tpcset graphs; /* of those with stops in them; empty: as all else */
    unsigned told_sms; /* the app is told of no more SMs than this; 0: of those that the driver tells */
};
/* Put the quotas of all devices in force, in device order. 0, or -EINVAL when one of them is not sane (that
 * device is then left unmasked, the others hold). */
int lithos_hook_set_quotas(const struct lithos_hook_quota *quotas, int count);

/* Slow paths of lithos_ticket_open. */
LITHOS_OFF_PATH void lithos_hook_refresh(void);
int32_t lithos_hook_current_device(void);

/* Forget everything about this process' driver: for the child after a fork. */
void lithos_hook_forget(void);

/* Counters that this thread alone writes, by enum lithos_hook_count; NULL: it counts into the client's common ones. */
extern __thread _Atomic uint64_t *lithos_thread_counters
    __attribute__((tls_model("initial-exec"), visibility("hidden")));

static inline void lithos_count(enum lithos_hook_count what, uint64_t n)
{
    _Atomic uint64_t *own = lithos_thread_counters;
    if (__builtin_expect(own != NULL, 1))
        lithos_add_alone(&own[what], n);
    else
        atomic_fetch_add_explicit(&lithos_hook_client.counters[what], n, memory_order_relaxed);
}

/* Counters of its own for this thread, if it can have any. */
static inline void lithos_thread_ready(void)
{
    if (__builtin_expect(!lithos_thread_counters, 0))
        lithos_hook_client.thread_starts();
}

/* Take up a grant that the client has been given since. */
static inline void lithos_hook_follow(void)
{
    if (__builtin_expect(atomic_load_explicit(lithos_hook_client.watch, memory_order_relaxed) !=
                             atomic_load_explicit(&lithos_hook_seen, memory_order_relaxed),
                         0))
        lithos_hook_refresh();
}

/* Open a ticket for what this thread is about to ask of the driver; close it right after. function: as in the ticket. atom: NULL,
 * or what its kernel is to be made. */
static inline void lithos_ticket_open_atom(struct lithos_ticket *t, enum lithos_ticket_kind kind,
                                           CUfunction function, struct lithos_atom *atom)
{
    lithos_hook_follow();
    lithos_thread_ready();
    t->kind = kind;
    t->function = function;
    t->gate = lithos_order_issue ? lithos_order_issue->gate : NULL;
    t->atom = atom;
    t->graph = NULL;
    t->exec = NULL;
    t->narrow = false;
    t->qmds = 0;
    t->qmds_taken = 0;
    t->qmds_due = kind == LITHOS_TICKET_LAUNCH;
    t->together_sms = 0;
    t->device = atomic_load_explicit(&lithos_hook_only_device, memory_order_acquire);
    if (__builtin_expect(t->device < 0, 0))
        t->device = lithos_hook_current_device();
    t->observe = atomic_load_explicit(lithos_hook_client.observer->observe, memory_order_relaxed);
    if (__builtin_expect(t->observe, 1))
        lithos_hook_client.observer->open(t);
    t->previous = lithos_ticket_current;
    lithos_ticket_current = t;
}

static inline void lithos_ticket_open(struct lithos_ticket *t, enum lithos_ticket_kind kind,
                                      CUfunction function)
{
    lithos_ticket_open_atom(t, kind, function, NULL);
}

/* Of LITHOS_TICKET_LAUNCH and _GRAPH the client hears what became of it afterwards. */
static inline void lithos_ticket_close(struct lithos_ticket *t)
{
    lithos_ticket_current = t->previous;
    if (__builtin_expect(t->kind == LITHOS_TICKET_DRIVER, 0) && t->observe)
        lithos_hook_client.observer->closed();
}

static inline bool lithos_hook_active(void)
{
    return __builtin_expect(atomic_load_explicit(&lithos_hook_on, memory_order_relaxed), 1);
}

/* The callback itself, for tests. */
void lithos_hook_callback(void *user, int domain, int id, const void *params);
