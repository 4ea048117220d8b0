/* What the demo's rows say: the table, the verdict, the JSON. Pure. */
#pragma once

#include <jansson.h>
#include <stddef.h>
#include <stdio.h>

#include "cli/demo.h"

/* How much slower the service's p99 may be under LithOS than alone. */
#define LITHOS_DEMO_P99_LIMIT 1.2

#define LITHOS_DEMO_ATTEMPTS 3u

/* Rows in the order they were played: the service alone, the burner alone, then both together, LithOS last.
 */
struct lithos_demo_report {
    unsigned attempts;                   /* how often the first and the last row were measured */
    double ratios[LITHOS_DEMO_ATTEMPTS]; /* of each: p99 under LithOS over alone */
    size_t count;
    struct lithos_demo_result rows[8];
};

/* The service's p99 under LithOS over that alone; 0 when there is none. */
double lithos_demo_ratio(const struct lithos_demo_report *report);
/* True when the last row holds all that LithOS promises but the p99. */
bool lithos_demo_only_p99_missed(const struct lithos_demo_report *report);
/* True when it misses anything beside the p99. */
bool lithos_demo_other_bar_missed(const struct lithos_demo_report *report);
int lithos_demo_print(const struct lithos_demo_report *report, FILE *out);
/* Whether the last row holds what LithOS promises. Says on `out` what it looked at. */
bool lithos_demo_verdict(const struct lithos_demo_report *report, FILE *out);
/* The caller owns it. NULL: no memory. */
json_t *lithos_demo_json(const struct lithos_demo *d, const struct lithos_demo_report *report, bool passed);
