/* The launch queues over a driver that is a table of functions here: each notes that it was called, and says yes. What has been queued is held
 * back by a rule until the test lets it go. */
#pragma once

#include "tenant/queue_internal.h"

#define RIG_CTX ((CUcontext)0x1110)
#define RIG_STREAM ((CUstream)0x2220)
#define RIG_FUNCTION ((CUfunction)0x3330)
#define RIG_WORDS 11u

struct rig_call {
    uint32_t function; /* enum lithos_export */
    uintptr_t args[RIG_WORDS];
    bool by_app;               /* else by the dispatcher */
    uint32_t thread;           /* whose it is, where that is not who made it */
    unsigned char pointed[64]; /* where a copy's first argument points */
};

/* Once a process: the stub driver's cuInit, then the table. Queues are on. how: LITHOS_QUEUE. */
void rig_open(const char *how);
/* The rule: nothing is issued; all goes where it says; nothing is said. */
void rig_hold(void);
void rig_lend(void);
void rig_let_go(void);
/* Until nothing is queued. */
void rig_settle(void);
/* What has been called, in order; forget it. */
size_t rig_calls(const struct rig_call **ret_calls);
void rig_forget_calls(void);
/* Place of a function's first call, by whoever; -1: it was not called. */
int rig_find(uint32_t function);
/* What the next calls of a function return. */
void rig_answer(uint32_t function, CUresult result);
/* A kernel on a stream, through our own cuLaunchKernel. */
CUresult rig_launch(CUstream stream);
CUresult rig_launch_shared(CUstream stream, unsigned shared_bytes);
