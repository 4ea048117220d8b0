/* The parts of right-sizing: operators and their widths (rightsize_operator.c), choices (rightsize.c), the tenant's own
 * latency (rightsize_loop.c), which TPCs (rightsize_set.c). */
#pragma once

#include "base/util.h"
#include "core/predict_internal.h"
#include "core/rightsize.h"

#define RIGHTSIZE_WIDTHS 6u
#define RIGHTSIZE_WINDOW 8u
#define RIGHTSIZE_WAYS 8u
/* Samples at a width before it is believed to be enough; at all TPCs, before anything else is tried. */
#define RIGHTSIZE_ENOUGH 4u
/* Latencies kept of requests of each kind. */
#define RIGHTSIZE_LATENCIES 256u

struct rightsize_point {
    uint16_t width;      /* 0: free */
    uint8_t count, next; /* samples in the window */
    uint32_t idle;       /* samples at other widths since */
    float sample_ns[RIGHTSIZE_WINDOW];
    float median_ns, error_ns; /* and what it may be off by: 2 standard errors */
};

struct rightsize_operator {
    uint64_t key;
    uint64_t used; /* 0: free; else the time of last use, in choices */
    uint32_t tag;
    uint16_t best; /* width in use; 0: all */
    uint16_t best_of, trying;
    uint8_t strikes;
    struct rightsize_point point[RIGHTSIZE_WIDTHS];
};

/* Latencies of requests of one kind, the newest. */
struct rightsize_latencies {
    uint32_t count, next;
    float us[RIGHTSIZE_LATENCIES];
};

struct rightsize_loop {
    bool open;      /* a request runs */
    bool reference; /* and it is one to compare with */
    uint64_t number;
    uint64_t stopped_until_ns, stop_for_ns;
    uint32_t good; /* looks in a row that found nothing to say */
    uint32_t since_look;
    bool begun_stopped;
    struct rightsize_latencies sized, whole;
};

struct lithos_rightsize {
    struct lithos_rightsize_config config;
    struct lithos_rightsize_stats stats;
    struct rightsize_loop loop;
    double earned_ns;
    uint64_t clock; /* of choices */
    uint32_t sets, tags;
    struct rightsize_operator op[];
};

/* rightsize_operator.c */
struct rightsize_operator *rightsize_find(struct lithos_rightsize *r, uint64_t key, bool make);
void rightsize_add(struct lithos_rightsize *r, struct rightsize_operator *op, uint64_t duration_ns,
                   uint32_t tpcs);
const struct rightsize_point *rightsize_point(const struct rightsize_operator *op, uint32_t width);
bool rightsize_fit(const struct rightsize_operator *op, double *ret_m_ns, double *ret_b_ns);

/* rightsize_loop.c: slip in force, in parts of what was asked for */
bool rightsize_stopped(const struct lithos_rightsize *r);
