/* The command line of lithosd. */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct lithos_policy;

#define LITHOSD_UIDS_MAX 64u

struct lithosd_options {
    char socket[108];                   /* sockaddr_un's room */
    char state_dir[PATH_MAX];           /* default: the socket's folder */
    char probe[PATH_MAX];               /* default: libexec/lithos/lithos-probe beside this program */
    const struct lithos_policy *policy; /* NULL: the first of core/policies.def */
    const char *log;                    /* file, or NULL for standard error */
    bool background, mps, observe, allow_all;
    unsigned uid_count;
    uid_t uids[LITHOSD_UIDS_MAX];
    uint64_t idle_exit_ns; /* 0: never */
};

/* 0; 1 when everything was said (--help, --version) and the program should end well; -EINVAL after a message. */
int lithosd_options_parse(int argc, char **argv, struct lithosd_options *ret_options);
