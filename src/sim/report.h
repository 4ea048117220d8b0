/* Results for people and for programs. */
#pragma once

#include <jansson.h>
#include <stdio.h>

#include "sim/sim.h"

/* A tenant with the card to itself. */
struct lithos_sim_alone {
    double per_s, p50_us, p99_us;
};

/* One run as a table. alone: one a tenant, or NULL: columns that compare are left out. */
void lithos_sim_report_text(FILE *out, const struct lithos_sim_scenario *sc,
                            const struct lithos_policy *policy, const struct lithos_sim_result *r,
                            const struct lithos_sim_alone *alone);
/* The same as an object that the caller owns; NULL: no memory. */
/* What the governor did to energy and latency, beside the same run at the highest clock. */
void lithos_sim_report_power_text(FILE *out, const struct lithos_sim_scenario *sc,
                                  const struct lithos_sim_result *r, const struct lithos_sim_result *top);
json_t *lithos_sim_report_power_json(const struct lithos_sim_scenario *sc, const struct lithos_sim_result *r,
                                     const struct lithos_sim_result *top);
/* What right-sizing did: beside the same run without it. Nothing for tenants that are not right-sized. */
void lithos_sim_report_sized_text(FILE *out, const struct lithos_sim_scenario *sc,
                                  const struct lithos_sim_result *r, const struct lithos_sim_result *whole);
/* "rightsized" of the report: an array of one object a right-sized tenant. */
json_t *lithos_sim_report_sized_json(const struct lithos_sim_scenario *sc, const struct lithos_sim_result *r,
                                     const struct lithos_sim_result *whole);
json_t *lithos_sim_report_json(const struct lithos_sim_scenario *sc, const struct lithos_policy *policy,
                               uint64_t seed, const struct lithos_sim_result *r,
                               const struct lithos_sim_alone *alone);
/* Picture: who ran where from options->span_from_ns to span_to_ns, and how long requests took. 0, or negative errno
 * of writing. */
int lithos_sim_report_svg(FILE *out, const struct lithos_sim_scenario *sc,
                          const struct lithos_sim_options *options, const struct lithos_sim_result *r);
