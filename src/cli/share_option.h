/* --weight, --floor, --graphs, --slip and --slo, of `lithos run` and `lithos set`. */
#pragma once

#include <getopt.h>

#include "proto/message.h"

/* Values of getopt, above those of any other option. */
#define LITHOS_SHARE_OPTION 512
#define LITHOS_SHARE_OPTIONS                                         \
    {"weight", 1, 0, LITHOS_SHARE_OPTION | LITHOS_SHARE_WEIGHT},     \
        {"floor", 1, 0, LITHOS_SHARE_OPTION | LITHOS_SHARE_FLOOR},   \
        {"slip", 1, 0, LITHOS_SHARE_OPTION | LITHOS_SHARE_SLIP},     \
        {"graphs", 1, 0, LITHOS_SHARE_OPTION | LITHOS_SHARE_GRAPHS}, \
    {                                                                \
        "slo", 1, 0, LITHOS_SHARE_OPTION | LITHOS_SHARE_SLO          \
    }
#define LITHOS_SHARE_HELP                                                                                   \
    "  --weight N       best-effort: its part of what is lent, against the others' (default 1; 0: what "    \
    "nobody "                                                                                               \
    "else\n"                                                                                                \
    "                   wants)\n"                                                                           \
    "  --floor N        best-effort: after a wait of 100 ms it gets so many TPCs, whatever their owner "    \
    "does\n"                                                                                                \
    "                   (default 0; 1 with --quota 0)\n"                                                    \
    "  --graphs W       best-effort: own, CUDA graphs keep to its own TPCs (default); borrow, they run on " \
    "all of the\n"                                                                                          \
    "                   card and wait at stops in them while a high-priority tenant is at work there\n"     \
    "  --slo DUR        high: requests are to be over within (15ms): its idle TPCs are lent for what that " \
    "leaves\n"                                                                                              \
    "  --slip X         high: requests may take X times as long as alone (default 1.1 without an SLO)\n"

/* An option that getopt gave as c, if it is one of these: 1; 0: it is not; -EINVAL after a message. */
int lithos_share_option(const char *command, int c, struct lithos_share *share);
