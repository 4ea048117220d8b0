/* A scheduler on the measured H200, its clock, and what it handed out: for tests that tell it events. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/sched.h"
#include "unit/cards.h"

#define US 1000ull
#define MS 1000000ull

struct stand {
    struct lithos_sched *s;
    void *mem;
    uint64_t now;
    struct lithos_tpcgrant grant[LITHOS_SCHED_TENANTS_MAX]; /* as handed out last */
    unsigned handed;
};

struct lithos_tpcset set(const char *text);
void assert_set(struct lithos_tpcset s, const char *text);
struct lithos_tpcset lent(const struct stand *st, uint32_t slot);
bool nothing(struct lithos_tpcset s);
int stand_begin(void **state);
int stand_end(void **state);
/* Decide, and take what is handed out: every grant validates, keeps to the own TPCs, and nothing is lent twice. */
void run(struct stand *st);
/* Run all timers up to then. */
void wait_until(struct stand *st, uint64_t at_ns);
uint32_t add(struct stand *st, const struct lithos_sched_tenant *t);
uint32_t add_owner(struct stand *st, uint64_t id, const char *own, uint64_t slo_ns, uint32_t slip_ppm);
uint32_t add_best_effort(struct stand *st, uint64_t id, const char *own, uint32_t weight);
void tell(struct stand *st, struct lithos_sched_event e);
void launch_on(struct stand *st, uint32_t slot, uint64_t predicted_ns, struct lithos_tpcset tpcs,
               uint32_t cluster);
void launch(struct stand *st, uint32_t slot, uint64_t predicted_ns);
void done(struct stand *st, uint32_t slot, uint64_t took_ns, uint64_t predicted_ns);
void queue(struct stand *st, uint32_t slot, uint32_t launches, uint64_t head_ns, enum lithos_tpcpick why);
/* A request: a launch of so long, then idle for so long. */
void request(struct stand *st, uint32_t slot, uint64_t busy_ns, uint64_t idle_ns);
struct lithos_sched_explain explain(struct stand *st, uint32_t slot);
unsigned count(struct lithos_tpcset s);
