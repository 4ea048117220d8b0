/* How much of the machine's processors a process may use. */
#pragma once

/* CPUs that this process may use at a time: those of its affinity, and no more than its control groups allow it of their time, rounded down;
 * at least 1. root: folder in which /proc/self/cgroup and /sys/fs/cgroup are looked up, "" for the machine's. What cannot be read limits
 * nothing. Source: cgroups(7), the kernel's cgroup-v2 (cpu.max) and sched-bwc (cpu.cfs_quota_us). */
unsigned lithos_cpus(const char *root);
