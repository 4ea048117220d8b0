/* The daemon as a whole: one struct, passed to every part. */
#pragma once

#include "daemon/child.h"
#include "daemon/events.h"
#include "daemon/gpus.h"
#include "daemon/hold.h"
#include "daemon/lend.h"
#include "daemon/loop.h"
#include "daemon/mps.h"
#include "daemon/observe.h"
#include "daemon/options.h"
#include "daemon/power.h"
#include "daemon/rightsize.h"
#include "daemon/state.h"
#include "proto/message.h"

#define LITHOSD_CONNECTIONS_MAX (LITHOSD_PROCESS_MAX + 64u)
/* How long a tenant without a living process is kept after a restart for processes that the state file missed. */
#define LITHOSD_GRACE_NS (2 * LITHOS_NSEC_PER_SEC)

struct lithosd;

struct lithosd_tenant {
    bool used;
    uint64_t id;
    uint8_t token[LITHOS_TOKEN_BYTES];
    char name[LITHOS_NAME_MAX], command[LITHOS_NAME_MAX];
    uid_t uid;
    enum lithos_mode mode;
    uint32_t thread_percentage;
    bool mps;      /* was sent to MPS */
    bool mps_lost; /* and that was restarted since: its contexts of then are gone */
    struct lithos_quota quota;
    struct lithos_atom_policy atom; /* as asked for; grant.atom is what it gets */
    uint64_t
        atom_ceiling_ns; /* how long its atoms may be for its neighbours' sake (plans.c); UINT64_MAX: as long as they are asked for */
    struct lithos_share share; /* as asked for; lithosd_share is what it gets */
    pid_t root_pid;
    uint64_t root_start;
    struct lithosd_watch root; /* pidfd; fd is -1 once the root process has ended */
    uint64_t since_unix_ms;
    struct lithos_grant grant;
    struct lithosd_lent lent[LITHOS_MAX_GPUS]; /* in the order of grant.gpus */
    unsigned gpu[LITHOS_MAX_GPUS];             /* grant.gpus[i] is this one of lithosd_gpus */
    unsigned processes;                        /* attached and alive */
    uint64_t counters[LITHOS_COUNTER_MAX];     /* of processes that have ended */
    uint64_t breaches_told, escaped_told;
    struct lithosd_timer grace;
    struct lithosd_observed *observed;   /* NULL: nothing of it has been observed */
    struct lithosd_rightsize *rightsize; /* NULL: it is not right-sized */
    struct lithosd_hold hold;
    struct lithosd *daemon;
};

struct lithosd_connection {
    struct lithosd *daemon;
    struct lithosd_watch watch;
    pid_t pid;
    uid_t uid;
    struct lithosd_process *process;   /* that attached over it */
    struct lithos_msg_admit *deferred; /* waits until MPS has settled */
    struct lithosd_connection *next;
};

struct lithosd_process {
    bool used;
    struct lithosd_tenant *tenant;
    pid_t pid;
    uint64_t start;
    char name[LITHOS_NAME_MAX];
    bool hook_active;
    struct lithosd_watch life; /* pidfd; fd is -1 where none can be had: then the connection is its life */
    struct lithosd_reader *reader;         /* of the arena's records; NULL: not observed */
    struct lithos_arena *arena;            /* NULL: known from the state file, not attached again yet */
    struct lithosd_connection *connection; /* NULL: lost */
    struct lithosd *daemon;
};

struct lithosd {
    struct lithosd_options options;
    struct lithosd_loop loop;
    struct lithosd_events events;
    struct lithosd_gpus gpus;
    struct lithosd_mps mps;
    uint64_t start_ns;
    char boot_id[LITHOSD_BOOT_ID_MAX];
    /* tenants.c, processes.c */
    uint64_t next_tenant;
    unsigned tenant_count, process_count;
    struct lithosd_tenant tenants[LITHOSD_TENANT_MAX];
    struct lithosd_process processes[LITHOSD_PROCESS_MAX];
    struct lithosd_timer lease, idle;
    struct lithosd_observe observe;
    struct lithosd_lend lend;
    struct lithosd_power power;
    unsigned lease_ticks;
    bool atoms_off; /* LITHOS_ATOMS=off */
    /* persist.c */
    char state_path[PATH_MAX];
    bool state_failed; /* said already that it cannot be written */
    /* server.c */
    int lock_fd;
    struct lithosd_watch listener, signals;
    struct lithosd_timer accept_pause;
    unsigned connection_count;
    struct lithosd_connection *connections;
    /* main.c */
    struct lithosd_child probe;
    bool serving, stopping;
    int exit_code;
    int ready_fd; /* told when clients can connect (--background), or -1 */
};

/* ---- tenants.c: who is admitted ---- */

/* Refusals put a text for people into text[LITHOS_TEXT_MAX] and return a negative errno. */
int lithosd_admit(struct lithosd *d, struct lithosd_connection *c, const struct lithos_msg_admit *request,
                  union lithos_message *ret_answer, char text[LITHOS_TEXT_MAX]);
int lithosd_set(struct lithosd *d, const struct lithosd_connection *c, const struct lithos_msg_set *request,
                char text[LITHOS_TEXT_MAX]);
struct lithosd_tenant *lithosd_tenant_by_name(struct lithosd *d, const char *name);
struct lithosd_tenant *lithosd_tenant_by_id(struct lithosd *d, uint64_t id);
/* A slot, zeroed, in use; NULL when all are. */
struct lithosd_tenant *lithosd_tenant_new(struct lithosd *d);
/* Watch the root process through a pidfd, which becomes the tenant's. 0 or negative errno. */
int lithosd_tenant_watch_root(struct lithosd_tenant *t, int pidfd);
/* Is this GPU, by its place in d->gpus, one of its? */
bool lithosd_tenant_is_on(const struct lithosd_tenant *t, unsigned gpu);
/* Give its TPCs back and forget it. */
void lithosd_tenant_release(struct lithosd_tenant *t);
/* Release it if nothing of it lives any more. True when it is gone. */
bool lithosd_tenant_check(struct lithosd_tenant *t);
/* Ended and living processes together. */
void lithosd_tenant_counters(const struct lithosd_tenant *t, uint64_t ret_counters[LITHOS_COUNTER_MAX]);
/* Start or stop the timer of --idle-exit, and tell the MPS minder whether tenants live. */
void lithosd_tenants_changed(struct lithosd *d);

/* ---- atoms.c ---- */

/* Why the tenant's kernels are not cut, whatever it asked for; NULL: they can be. */
const char *lithosd_atoms_why_not(const struct lithosd_tenant *t);
/* Why it is not known how long its kernels take; NULL: it is. */
const char *lithosd_times_why_not(const struct lithosd_tenant *t);
/* What it gets. */
struct lithos_atom_policy lithosd_atoms_grant(const struct lithosd_tenant *t);
/* 0, or -EOPNOTSUP with the reason. */
int lithosd_atoms_check(const struct lithosd_tenant *t, const struct lithos_atom_policy *policy,
                        char text[LITHOS_TEXT_MAX]);
/* "atoms" of a tenant in docs/status.md. */
json_t *lithosd_atoms_status(const struct lithosd_tenant *t, const uint64_t counters[LITHOS_COUNTER_MAX]);

/* ---- slice.c: turns on the card ---- */

/* How long those of the tenant are to be. */
void lithosd_slice_grant(const struct lithosd_tenant *t, struct lithos_grant *g);
/* "slice" of a tenant in docs/status.md. */
json_t *lithosd_slice_status(const struct lithosd_tenant *t);

/* ---- refusal.c ---- */

/* Who holds what on those GPUs, how much is free, and what to do, after the first line that fmt makes. */
void lithosd_refusal(struct lithosd *d, const unsigned *gpus, unsigned gpu_count, char text[LITHOS_TEXT_MAX],
                     const char *fmt, ...) LITHOS_PRINTF(5, 6);

/* ---- processes.c: attached processes and their arenas ---- */

int lithosd_attach(struct lithosd *d, struct lithosd_connection *c, const struct lithos_msg_attach *request,
                   union lithos_message *ret_answer, int *ret_fd, char text[LITHOS_TEXT_MAX]);
/* Enter a process of the state file that still lives; it attaches again by itself. 0 or negative errno. */
int lithosd_process_adopt(struct lithosd_tenant *t, const struct lithosd_saved_process *saved);
/* Its connection has ended: the process may live on. */
void lithosd_process_disconnected(struct lithosd_process *p);
/* Its grant as launches are to keep to it: where the policy goes by quotas, that of the tenant. */
struct lithos_grant lithosd_grant(const struct lithosd_tenant *t);
/* Give that to all its processes. */
void lithosd_publish(struct lithosd_tenant *t);
void lithosd_processes_finish(struct lithosd *d);

/* ---- persist.c: the state file ---- */

/* Read what a predecessor left and take its tenants over. Returns what it says of MPS in ret_mps (zero: nothing). */
void lithosd_state_load(struct lithosd *d, struct lithosd_saved_mps *ret_mps);
/* Write it. A failure is said once and survived. */
void lithosd_state_save(struct lithosd *d);

/* ---- server.c: the socket ---- */

/* Take the lock and be the only daemon of this socket; 0 or negative errno after a message. */
int lithosd_server_lock(struct lithosd *d);
/* From now on clients can connect. 0 or negative errno after a message. */
int lithosd_server_listen(struct lithosd *d);
/* Answer those who waited for MPS. */
void lithosd_server_resume(struct lithosd *d);
void lithosd_server_finish(struct lithosd *d);

/* ---- status.c ---- */

/* The document of docs/status.md; owned by the caller (free), NULL without memory. */
char *lithosd_status(struct lithosd *d);

/* ---- daemon.c ---- */

int lithosd_run(struct lithosd *d);
/* Begin to end, with this exit code. */
void lithosd_stop(struct lithosd *d, const char *why);
