/* This process' side of a tenant: its arena, its grant, its connection to lithosd. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "proto/arena.h"

/* The arena of this process, at one address for good: plain zeroed memory at first, the daemon's memfd mapped
 * over it when attached. So that a launching thread may read and count there at any time, with no lock and no
 * test. */
extern struct lithos_arena lithos_tenant_home;

/* What the library exports beside the driver's names, as lithos_library_marker: tells it from a driver
 * (driver/loader.c), and lets a debugger or a test in the process look at its counters. */
struct lithos_library {
    uint32_t version; /* LITHOS_ARENA_VERSION */
    const struct lithos_arena *arena;
};

/* Was this process started by `lithos run`, or by a child of such (LITHOS_TENANT)? Reads the environment
 * once; a value that is not one is said once and taken for none. */
bool lithos_tenant_wanted(void);
/* Attach to the daemon, put the grant in force; when no daemon answers, the grant that came in LITHOS_GRANT.
 * Takes 1 s at most. 0, or negative errno (already said). Any thread, one at a time. */
int lithos_tenant_attach(void);
/* Connection of the last attach, or -1. Owned here. */
int lithos_tenant_socket(void);
/* Give up the connection (the daemon has gone): the grant stays in force, counting goes on. */
void lithos_tenant_detach(void);
/* The daemon asked to be woken by the next record, and here it is. Never waits. Leaves errno alone. */
void lithos_tenant_wake_daemon(void);
/* Put the grant in the arena in force if it is not the one that is. Never waits: another thread doing it
 * already is enough. */
void lithos_tenant_refresh(void);
/* Put the grant in force again: the devices have become known. */
void lithos_tenant_reapply(void);
/* In the child of a fork: no connection, memory of its own. */
void lithos_tenant_forget(void);

/* A thread of the library: detached, with little stack, and none of the app's signals. 0 or negative errno. */
int lithos_tenant_thread(void *(*body)(void *), void *arg);
/* The link thread (link.c): waits on the connection, attaches again when the daemon comes back.
 * wait_for_driver: the driver is not up yet (injection); the thread waits for it, then attaches. 0 or
 * negative errno. */
int lithos_tenant_link_start(bool wait_for_driver);
