/* What the kernel knows of a process. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Start time in clock ticks since boot: with the pid it names a process for good. 0, or -ESRCH. */
int lithosd_process_start(pid_t pid, uint64_t *ret_start);
/* Its short name ("python3"), visible ASCII; "?" when it is gone. Returns buf. */
char *lithosd_process_name(pid_t pid, char *buf, size_t size);
/* A pidfd of it (close-on-exec), which can be polled for its end. Negative errno; -ESRCH when it is gone. */
int lithosd_process_open(pid_t pid);
/* A pidfd of a socket's peer, without the risk that the pid was given to another process since; where the kernel is
 * too old for that (before 6.5) by its pid. */
int lithosd_process_open_peer(int sock, pid_t pid);
/* True when the process has ended (or is a zombie). */
bool lithosd_process_ended(int pidfd);
/* How it ended, where the kernel tells (6.15 and up): true when a signal killed it, and also when it cannot be told. */
bool lithosd_process_killed(int pidfd);
/* The identifier of this boot into buf: pids and start times mean nothing in another. 0 or negative errno. */
int lithosd_boot_id(char *buf, size_t size);
/* Copy text for people: anything but visible ASCII becomes '?'. */
void lithosd_clean_text(char *to, const char *from, size_t size);
