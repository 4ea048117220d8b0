/* A real lithosd in a folder of its own, with a probe that is a script, and tenants that are processes. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/socket.h"

#define RIG_TENANTS 80

struct rig {
    char dir[64], socket[96], state[112], log[96];
    pid_t daemon;
    unsigned tenant_count;
    pid_t tenants[RIG_TENANTS]; /* process groups */
};

struct rig_tenant {
    pid_t pid;                   /* the root process, a group of its own */
    union lithos_message answer; /* to ADMIT */
};

enum rig_after {
    RIG_WAIT,   /* the root process does nothing more */
    RIG_ATTACH, /* it attaches (again and again), and counts one launch each millisecond */
    RIG_ORPHAN, /* a child of it does that; the root process ends once attached */
};

/* A folder, and the probe script in it, printing this JSON. */
void rig_init(struct rig *rig, const char *probe_json);
/* one H200; one whose kernels are stamped; two GPUs of which the second is an H200 without the hook */
extern const char rig_h200[], rig_stamps[], rig_node[];

/* Start lithosd with these further options (NULL-ended) and wait until it answers. */
void rig_start(struct rig *rig, const char *const *options);
/* Start it, expect it to end by itself: its exit code. */
int rig_start_and_end(struct rig *rig, const char *const *options);
/* Signal it and wait for its end. Returns the wait status. */
int rig_end(struct rig *rig, int signal);
/* End everything, remove the folder. */
void rig_finish(struct rig *rig);

/* The log so far, owned by the caller. */
char *rig_log(const struct rig *rig);
int rig_connect(const struct rig *rig);
json_t *rig_status(const struct rig *rig);
/* One request, one answer. */
void rig_call(const struct rig *rig, const union lithos_message *request, union lithos_message *ret_answer);
/* ADMIT, as `lithos run` would fill it. */
void rig_admit_message(union lithos_message *m, const char *name, const char *quota);
/* A new process asks to be admitted, with m, and then goes on as said. Returns once that has happened. */
struct rig_tenant rig_tenant(struct rig *rig, const union lithos_message *m, enum rig_after after);
struct rig_tenant rig_tenant_named(struct rig *rig, const char *name, const char *quota,
                                   enum rig_after after);
/* This process attaches as one more of the tenant's, over sock: its arena, mapped. */
struct lithos_arena *rig_attach(const struct rig_tenant *t, int sock);
int rig_set(const struct rig *rig, const char *name, const char *quota, char text[LITHOS_TEXT_MAX]);

/* From a status document. */
json_t *rig_find_tenant(json_t *status, const char *name); /* borrowed; NULL */
int rig_free(json_t *status, unsigned gpu);
/* Poll until GPU 0 has this many free TPCs; returns after how long, or UINT64_MAX after 10 s. */
uint64_t rig_wait_free(const struct rig *rig, int free);
void rig_sleep_ms(unsigned ms);
