/* The parts of the governor: operators and their sensitivities (governor_operator.c), decisions (governor.c). */
#pragma once

#include "base/util.h"
#include "core/governor.h"

#define GOVERNOR_WAYS 8u
#define GOVERNOR_LATENCIES 256u
/* The median of 8 latencies, the 90th percentile of 20, the 99th of 100. */
#define GOVERNOR_QUANTILES 3u
/* Samples of an operator at max_mhz before it counts as seen; at other clocks, before its s is believed, and how near its mean has to
 * be then (one standard error). */
#define GOVERNOR_SEEN 3u
#define GOVERNOR_SURE 4u
#define GOVERNOR_NEAR 0.25f

struct governor_operator {
    uint64_t key;
    uint64_t used;     /* time of last use, in samples; 0: free */
    float top_ns;      /* at max_mhz: running mean */
    float s, s_square; /* running means of it and of its square */
    double recent_ns;  /* run time lately: halved at each decision */
    uint32_t slot;
    uint16_t top_count, low_count;
};

struct governor_latencies {
    uint32_t count, next;
    float us[GOVERNOR_LATENCIES];
};

struct governor_tenant {
    bool used;
    struct lithos_governor_tenant is;
    struct governor_latencies now;    /* at the clock in force */
    float top_us[GOVERNOR_QUANTILES]; /* at max_mhz; 0: not known */
    double recent_ns, sensitive_ns, unseen_ns;
};

struct lithos_governor {
    struct lithos_governor_config config;
    struct lithos_governor_advice advice;
    uint64_t decided_ns; /* the last decision */
    uint64_t ready_ns;   /* nothing is decided before */
    uint64_t based_ns;   /* at max_mhz last */
    uint32_t bad_mhz;    /* too low, until bad_until_ns; 0: none is known to be */
    uint64_t bad_until_ns, hold_ns;
    uint64_t clock;
    uint32_t sets;
    struct governor_tenant tenants[LITHOS_GOVERNOR_TENANTS_MAX];
    struct governor_operator op[];
};

/* governor_operator.c */
struct governor_operator *governor_find(struct lithos_governor *g, uint32_t slot, uint64_t key);
void governor_sample(const struct lithos_governor *g, struct governor_operator *op, float ns, uint32_t mhz);
/* Sum run time up, tenant by tenant, and halve it. */
void governor_sum(struct lithos_governor *g);
/* governor_latency.c */
void governor_latency_add(struct governor_latencies *l, float us);
/* 0 where there are too few for it. */
void governor_latency_quantiles(const struct governor_latencies *l, float ret_us[GOVERNOR_QUANTILES]);
