/* What must outlive the daemon: who was admitted, with which TPCs and which secret.
 *
 * One JSON file, readable by its owner alone, replaced as a whole at each change. What is read back is checked to the
 * last field: a file that does not hold up is set aside, not half believed. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/message.h"

#define LITHOSD_TENANT_MAX 64u
#define LITHOSD_PROCESS_MAX 1024u
#define LITHOSD_BOOT_ID_MAX 64u

struct lithosd_saved_gpu {
    uint8_t uuid[LITHOS_UUID_BYTES];
    struct lithos_tpcset own;
};

struct lithosd_saved_process {
    pid_t pid;
    uint64_t start;  /* procinfo.h */
    uint32_t tenant; /* index into tenants */
    char name[LITHOS_NAME_MAX];
};

struct lithosd_saved_tenant {
    uint64_t id;
    uint8_t token[LITHOS_TOKEN_BYTES];
    char name[LITHOS_NAME_MAX], command[LITHOS_NAME_MAX];
    uid_t uid;
    uint32_t mode, thread_percentage, mps;
    struct lithos_quota quota;
    struct lithos_atom_policy atom;
    uint32_t class; /* enum lithos_class */
    struct lithos_share share;
    pid_t root_pid;
    uint64_t root_start;
    uint64_t since_unix_ms, epoch;
    uint32_t gpu_count;
    struct lithosd_saved_gpu gpus[LITHOS_MAX_GPUS];
    uint64_t counters[LITHOS_COUNTER_MAX]; /* of processes that have ended */
};

struct lithosd_saved_mps {
    uint32_t ours;     /* 1: this daemon's predecessor started it */
    pid_t control_pid; /* 0: not known */
    char pipe_dir[LITHOS_PATH_BYTES];
};

struct lithosd_saved {
    char boot_id[LITHOSD_BOOT_ID_MAX];
    uint64_t next_tenant;
    struct lithosd_saved_mps mps;
    uint32_t tenant_count, process_count;
    struct lithosd_saved_tenant tenants[LITHOSD_TENANT_MAX];
    struct lithosd_saved_process processes[LITHOSD_PROCESS_MAX];
};

/* JSON text, owned by the caller (free), or NULL without memory. */
char *lithosd_state_encode(const struct lithosd_saved *saved);
/* The reverse. 0, or -EINVAL with the reason in why; *ret_saved is then untouched. Sets of two tenants on one GPU
 * never overlap in what is accepted, ids, names and tokens are unique, every range is checked. */
int lithosd_state_decode(const char *text, size_t len, struct lithosd_saved *ret_saved, char why[256]);
