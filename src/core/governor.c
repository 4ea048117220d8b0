#include "core/governor.h"

#include <errno.h>
#include <string.h>

#include "core/governor_internal.h"

#define OPERATORS_MOST (1u << 20)
#define HOLD_MOST_NS (120 * LITHOS_NSEC_PER_SEC)
/* A step down uses this part of the slack measured, if all of a request's time were in the SMs' clock. It is not, so that a step is
 * never too much, and there are more of them: sensitivities seen at high clocks say little of low ones, where what memory
 * held up before comes to wait for the SMs. */
#define PART_OF_SLACK 0.8
/* Requests of a tenant, at least, before a clock is judged by them; less, and it is waited for up to so many watches. */
#define FEW_REQUESTS 8u
#define WATCHES_MOST 10u

void lithos_governor_config_defaults(struct lithos_governor_config *config, uint32_t min_mhz,
                                     uint32_t max_mhz, uint32_t step_mhz)
{
    *config = (struct lithos_governor_config){
        .mode = LITHOS_GOVERNOR_SLO,
        .max_mhz = max_mhz,
        .min_mhz = min_mhz,
        .step_mhz = step_mhz,
        .floor_mhz = max_mhz * 2 / 5,
        .slip_ppm = 1100000,
        .slo_part_ppm = 850000,
        .down_ppm = 80000,
        .unseen_ppm = 50000,
        .switch_ns = 50 * LITHOS_NSEC_PER_MSEC,
        .watch_ns = 250 * LITHOS_NSEC_PER_MSEC,
        .hold_ns = 5 * LITHOS_NSEC_PER_SEC,
        .rebase_ns = 60 * LITHOS_NSEC_PER_SEC,
        .operators = 4096,
    };
}

static uint32_t sets(const struct lithos_governor_config *c)
{
    return (c->operators + GOVERNOR_WAYS - 1) / GOVERNOR_WAYS;
}

int lithos_governor_size(const struct lithos_governor_config *c, size_t *ret_bytes)
{
    if (!c->min_mhz || c->max_mhz < c->min_mhz || c->max_mhz > 100000 || !c->step_mhz ||
        (c->max_mhz - c->min_mhz) % c->step_mhz || c->floor_mhz > c->max_mhz ||
        c->slip_ppm < LITHOS_GOVERNOR_PPM || c->slo_part_ppm > LITHOS_GOVERNOR_PPM ||
        c->down_ppm > LITHOS_GOVERNOR_PPM || c->mode >= LITHOS_GOVERNOR_MODE_MAX || !c->operators ||
        c->operators > OPERATORS_MOST)
        return -EINVAL;
    *ret_bytes =
        sizeof(struct lithos_governor) + (size_t)sets(c) * GOVERNOR_WAYS * sizeof(struct governor_operator);
    return 0;
}

int lithos_governor_init(void *mem, size_t bytes, const struct lithos_governor_config *config,
                         struct lithos_governor **ret_governor)
{
    struct lithos_governor *g = mem;
    size_t need;

    const int r = lithos_governor_size(config, &need);
    if (r < 0)
        return r;
    if (bytes < need)
        return -ENOSPC;
    memset(mem, 0, need);
    g->config = *config;
    g->sets = sets(config);
    g->advice = (struct lithos_governor_advice){
        .mhz = config->max_mhz, .formula_mhz = config->max_mhz, .tenant = UINT32_MAX};
    g->hold_ns = config->hold_ns;
    *ret_governor = g;
    return 0;
}

int lithos_governor_tenant(struct lithos_governor *g, uint32_t slot,
                           const struct lithos_governor_tenant *tenant)
{
    if (slot >= LITHOS_GOVERNOR_TENANTS_MAX || (tenant->slip_ppm && tenant->slip_ppm < LITHOS_GOVERNOR_PPM))
        return -EINVAL;
    if (!g->tenants[slot].used)
        g->tenants[slot] = (struct governor_tenant){.used = true};
    g->tenants[slot].is = *tenant;
    return 0;
}

void lithos_governor_tenant_gone(struct lithos_governor *g, uint32_t slot)
{
    if (slot < LITHOS_GOVERNOR_TENANTS_MAX)
        g->tenants[slot].used = false;
    for (uint32_t i = 0; i < g->sets * GOVERNOR_WAYS; i++)
        if (g->op[i].slot == slot)
            g->op[i].used = 0;
}

void lithos_governor_kernel(struct lithos_governor *g, uint32_t slot, uint64_t key, uint64_t duration_ns,
                            uint32_t mhz)
{
    if (slot >= LITHOS_GOVERNOR_TENANTS_MAX || !g->tenants[slot].used)
        return;
    struct governor_operator *op = governor_find(g, slot, key);
    op->used = ++g->clock;
    op->recent_ns += (double)duration_ns;
    if (mhz)
        governor_sample(g, op, (float)duration_ns, mhz);
}

void lithos_governor_request(struct lithos_governor *g, uint32_t slot, uint64_t latency_ns)
{
    if (slot < LITHOS_GOVERNOR_TENANTS_MAX && g->tenants[slot].used)
        governor_latency_add(&g->tenants[slot].now, (float)latency_ns / 1000);
}

/* --- what tenants bear --- */

static double slip(const struct lithos_governor *g, const struct governor_tenant *t)
{
    const uint32_t ppm = t->is.slip_ppm ? t->is.slip_ppm : g->config.slip_ppm;
    return (double)(ppm - LITHOS_GOVERNOR_PPM) / LITHOS_GOVERNOR_PPM;
}

static uint32_t step_up(const struct lithos_governor *g, double mhz)
{
    const struct lithos_governor_config *c = &g->config;
    const uint32_t floor = LITHOS_MAX(c->floor_mhz, c->min_mhz);

    mhz = LITHOS_MAX(mhz, (double)floor);
    if (mhz >= c->max_mhz)
        return c->max_mhz;
    const double steps = (mhz - c->min_mhz) / c->step_mhz;
    uint32_t up = (uint32_t)steps;
    up += (double)up < steps - 1e-9;
    return LITHOS_MIN(c->min_mhz + up * c->step_mhz, c->max_mhz);
}

/* Paper 5.6: sum(w s) (f_max / f - 1) <= k. */
static double formula_mhz(const struct lithos_governor *g, const struct governor_tenant *t)
{
    const double ws = t->recent_ns > 0 ? t->sensitive_ns / t->recent_ns : 0;
    return ws > 0 ? g->config.max_mhz / (1 + slip(g, t) / ws) : 0;
}

uint32_t lithos_governor_slower_ppm(const struct lithos_governor *g, uint32_t slot, uint32_t mhz)
{
    if (slot >= LITHOS_GOVERNOR_TENANTS_MAX || !mhz)
        return LITHOS_GOVERNOR_PPM;
    const struct governor_tenant *t = &g->tenants[slot];
    const double ws = t->recent_ns > 0 ? t->sensitive_ns / t->recent_ns : 1;
    const double slower = 1 + ws * ((double)g->config.max_mhz / LITHOS_MIN(mhz, g->config.max_mhz) - 1);
    return (uint32_t)(slower * LITHOS_GOVERNOR_PPM);
}

/* How much of what it may take a tenant does take: the worst of its quantiles. 0: not known. */
static double used_up(const struct lithos_governor *g, const struct governor_tenant *t)
{
    float now_us[GOVERNOR_QUANTILES];
    double worst = 0;

    governor_latency_quantiles(&t->now, now_us);
    for (unsigned q = 0; q < GOVERNOR_QUANTILES; q++) {
        double may_us = (1 + slip(g, t)) * (double)t->top_us[q];
        /* an SLO is meant for the slowest; beside it the others may take what they like */
        if (t->is.slo_ns)
            may_us = (double)t->is.slo_ns / 1000 * g->config.slo_part_ppm / LITHOS_GOVERNOR_PPM;
        if (now_us[q] > 0 && may_us > 0)
            worst = LITHOS_MAX(worst, (double)now_us[q] / may_us);
    }
    return worst;
}

/* --- decisions --- */

static bool measured(const struct lithos_governor *g, const struct governor_tenant *t)
{
    return g->config.mode == LITHOS_GOVERNOR_SLO && t->is.high && t->top_us[0] > 0;
}

/* The clock that a tenant bears as far as can be told from the one in force. */
static double borne_mhz(const struct lithos_governor *g, const struct governor_tenant *t, bool *ret_over)
{
    *ret_over = false;
    if (t->is.slip_ppm == UINT32_MAX)
        return 0;
    if (!measured(g, t))
        return formula_mhz(g, t);
    const double used = used_up(g, t), now_mhz = g->advice.mhz;
    if (used <= 0)
        return now_mhz; /* wait for more */
    *ret_over = used > 1;
    if (used > 1) /* back by as much as it was too slow */
        return now_mhz * (1 + 2 * (used - 1));
    return now_mhz / (1 + PART_OF_SLACK * (1 / used - 1));
}

/* Enough requests of each tenant that has any since the clock changed? */
static bool seen_enough(const struct lithos_governor *g, uint64_t now_ns)
{
    if (g->config.mode == LITHOS_GOVERNOR_FORMULA ||
        now_ns >= g->ready_ns + WATCHES_MOST * g->config.watch_ns)
        return true;
    for (uint32_t i = 0; i < LITHOS_GOVERNOR_TENANTS_MAX; i++) {
        const struct governor_tenant *t = &g->tenants[i];
        if (t->used && t->is.high && t->top_us[0] > 0 && t->now.count < FEW_REQUESTS)
            return false;
    }
    return true;
}

static void switch_to(struct lithos_governor *g, uint64_t now_ns, uint32_t mhz)
{
    if (mhz == g->advice.mhz)
        return;
    g->advice.mhz = mhz;
    g->ready_ns = now_ns + 2 * g->config.switch_ns + g->config.watch_ns;
    for (uint32_t i = 0; i < LITHOS_GOVERNOR_TENANTS_MAX; i++)
        g->tenants[i].now.count = g->tenants[i].now.next = 0;
}

/* At max_mhz what is measured is the measure for the rest. */
static bool rebase(struct lithos_governor *g, uint64_t now_ns)
{
    bool known = true;

    for (uint32_t i = 0; i < LITHOS_GOVERNOR_TENANTS_MAX; i++) {
        struct governor_tenant *t = &g->tenants[i];
        float us[GOVERNOR_QUANTILES];
        if (!t->used || !t->now.count)
            continue;
        governor_latency_quantiles(&t->now, us);
        for (unsigned q = 0; q < GOVERNOR_QUANTILES; q++)
            t->top_us[q] = us[q] > 0 ? us[q] : t->top_us[q];
        known &= t->now.count >= 4 * FEW_REQUESTS || !t->is.high;
    }
    g->based_ns = now_ns;
    /* who has so few requests goes by the formula */
    return known || now_ns >= g->ready_ns + WATCHES_MOST * g->config.watch_ns;
}

static void too_low(struct lithos_governor *g, uint64_t now_ns)
{
    g->hold_ns = g->bad_mhz && now_ns < g->bad_until_ns + g->hold_ns
                     ? LITHOS_MIN(2 * g->hold_ns, HOLD_MOST_NS)
                     : g->config.hold_ns;
    g->bad_mhz = LITHOS_MAX(g->advice.mhz, now_ns < g->bad_until_ns ? g->bad_mhz : 0);
    g->bad_until_ns = now_ns + g->hold_ns;
}

static void decide(struct lithos_governor *g, uint64_t now_ns, double wanted_mhz, bool over)
{
    const struct lithos_governor_config *c = &g->config;
    uint32_t mhz = step_up(g, wanted_mhz);

    if (over) {
        too_low(g, now_ns);
        mhz = LITHOS_MAX(mhz, LITHOS_MIN(g->advice.mhz + 2 * c->step_mhz, c->max_mhz));
        g->advice.why = LITHOS_GOVERNOR_BACK;
        switch_to(g, now_ns, mhz);
        return;
    }
    mhz = LITHOS_MAX(
        mhz, step_up(g, (double)g->advice.mhz * (LITHOS_GOVERNOR_PPM - c->down_ppm) / LITHOS_GOVERNOR_PPM));
    if (now_ns < g->bad_until_ns)
        mhz = LITHOS_MAX(mhz, LITHOS_MIN(g->bad_mhz + c->step_mhz, g->advice.mhz));
    /* a single step is worth no switch */
    if (mhz + c->step_mhz >= g->advice.mhz && mhz <= g->advice.mhz) {
        g->advice.why = LITHOS_GOVERNOR_STAY;
        return;
    }
    g->advice.why = mhz < g->advice.mhz ? LITHOS_GOVERNOR_DOWN : LITHOS_GOVERNOR_BACK;
    switch_to(g, now_ns, mhz);
}

/* What all tenants together say. */
static double gather(struct lithos_governor *g, bool *ret_over)
{
    struct lithos_governor_advice *a = &g->advice;
    double wanted = 0, formula = 0, recent = 0, sensitive = 0, unseen = 0;
    bool over;

    *ret_over = false;
    a->tenant = UINT32_MAX;
    for (uint32_t i = 0; i < LITHOS_GOVERNOR_TENANTS_MAX; i++) {
        const struct governor_tenant *t = &g->tenants[i];
        if (!t->used || (t->recent_ns <= 0 && !t->now.count))
            continue;
        recent += t->recent_ns;
        sensitive += t->sensitive_ns;
        unseen += t->unseen_ns;
        if (t->is.slip_ppm != UINT32_MAX)
            formula = LITHOS_MAX(formula, formula_mhz(g, t));
        const double borne = borne_mhz(g, t, &over);
        *ret_over |= over;
        if (borne > wanted) {
            wanted = borne;
            a->tenant = i;
        }
    }
    a->formula_mhz = step_up(g, formula);
    a->sensitivity_ppm = recent > 0 ? (uint32_t)(sensitive / recent * LITHOS_GOVERNOR_PPM) : 0;
    a->unseen_ppm = recent > 0 ? (uint32_t)(unseen / recent * LITHOS_GOVERNOR_PPM) : 0;
    if (recent <= 0)
        a->why = LITHOS_GOVERNOR_IDLE;
    return recent > 0 ? wanted : -1;
}

struct lithos_governor_advice lithos_governor_step(struct lithos_governor *g, uint64_t now_ns)
{
    const struct lithos_governor_config *c = &g->config;
    const bool top = g->advice.mhz == c->max_mhz;
    bool over;

    if (!g->ready_ns)
        g->ready_ns = now_ns + c->watch_ns;
    if (now_ns < g->ready_ns || now_ns < g->decided_ns + c->watch_ns || !seen_enough(g, now_ns)) {
        g->advice.why = LITHOS_GOVERNOR_WAIT;
        return g->advice;
    }
    g->decided_ns = now_ns;
    governor_sum(g);
    const double wanted = gather(g, &over);
    if (wanted < 0)
        return g->advice; /* idle: as it is */
    if (g->advice.unseen_ppm > c->unseen_ppm || (!top && now_ns > g->based_ns + c->rebase_ns)) {
        g->advice.why = top ? LITHOS_GOVERNOR_LEARN : LITHOS_GOVERNOR_UNSEEN;
        switch_to(g, now_ns, c->max_mhz);
        return g->advice;
    }
    if (top && !rebase(g, now_ns)) {
        g->advice.why = LITHOS_GOVERNOR_LEARN;
        return g->advice;
    }
    decide(g, now_ns, top && c->mode == LITHOS_GOVERNOR_SLO ? LITHOS_MIN(wanted, (double)c->max_mhz) : wanted,
           over && !top);
    return g->advice;
}

const char *lithos_governor_why_name(enum lithos_governor_why why)
{
    static const char *const names[LITHOS_GOVERNOR_WHY_MAX] = {"learn", "unseen", "wait", "down",
                                                               "stay",  "back",   "idle"};
    return why < LITHOS_GOVERNOR_WHY_MAX ? names[why] : "unknown";
}
