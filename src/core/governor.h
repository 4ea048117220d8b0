/* At which clock does the card save energy without its tenants feeling it (paper 5.6)? One a GPU, for all its tenants
 * together: the clock is the card's. Pure: no I/O, no clock, no thread, all memory given at init. docs/power.md has the
 * reasons and the figures.
 *
 * Each operator's time at a clock f is l(f) / l(f_max) - 1 = s (f_max / f - 1): s near 1 where SMs hold it up, near 0
 * where memory does; taken to be 1 until it has been seen at two clocks. With w an operator's share of its tenant's run
 * time, a tenant that may be slower by k (0.1 for slip 1.1) bears f = f_max / (1 + k / sum(w s)). The card runs at the
 * highest of what its tenants bear.
 *
 * That formula is a forecast. LITHOS_GOVERNOR_SLO goes by what was measured instead: the tenants' own latencies, against
 * their SLO, or slip times what they were at f_max. It steps down, waits for the switch and for enough requests, and
 * stays, goes on, or goes back and remembers. Work not seen at f_max before brings f_max back. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LITHOS_GOVERNOR_PPM 1000000u
#define LITHOS_GOVERNOR_TENANTS_MAX 64u

struct lithos_governor; /* opaque */

enum lithos_governor_mode {
    LITHOS_GOVERNOR_FORMULA, /* by sensitivities alone, as in the paper */
    LITHOS_GOVERNOR_SLO,     /* by measured latencies, where there are any */
    LITHOS_GOVERNOR_MODE_MAX,
};

struct lithos_governor_config {
    enum lithos_governor_mode mode;
    uint32_t max_mhz, min_mhz, step_mhz; /* what the card supports */
    uint32_t floor_mhz;                  /* never below; 0: min_mhz */
    uint32_t slip_ppm;                   /* of tenants that say nothing: 1100000 */
    uint32_t slo_part_ppm; /* of an SLO that is used up at most: what comes unforeseen needs the rest */
    uint32_t down_ppm;     /* a step down is at most that part of the clock */
    uint32_t unseen_ppm;   /* of run time in operators not seen at max_mhz, beyond which it goes there */
    uint64_t switch_ns;    /* from a clock asked for to the clock in force */
    uint64_t watch_ns;     /* at least, between decisions */
    uint64_t hold_ns;      /* how long a clock that was too low is not tried again, at first */
    uint64_t rebase_ns;    /* how long what was measured at max_mhz holds */
    uint32_t operators;    /* remembered, rounded up to a multiple of 8; 48 bytes each */
};

struct lithos_governor_tenant {
    bool high;         /* its slack is asked first: its latency counts. Else: only slip counts */
    uint32_t slip_ppm; /* 0: as configured; UINT32_MAX: it bears anything */
    uint64_t slo_ns;   /* 0: none */
};

enum lithos_governor_why {
    LITHOS_GOVERNOR_LEARN,  /* at max_mhz, to see what is not known */
    LITHOS_GOVERNOR_UNSEEN, /* back there for new work */
    LITHOS_GOVERNOR_WAIT,   /* switching, or too little seen since */
    LITHOS_GOVERNOR_DOWN,
    LITHOS_GOVERNOR_STAY, /* a step further would be too much */
    LITHOS_GOVERNOR_BACK, /* it was too much */
    LITHOS_GOVERNOR_IDLE, /* nothing runs */
    LITHOS_GOVERNOR_WHY_MAX,
};

struct lithos_governor_advice {
    uint32_t mhz; /* to be set now */
    enum lithos_governor_why why;
    uint32_t formula_mhz;     /* as the formula has it */
    uint32_t sensitivity_ppm; /* sum(w s) of all that ran */
    uint32_t unseen_ppm;      /* share of run time in operators not known */
    uint32_t tenant;          /* whose slack ended it; UINT32_MAX: nobody's */
};

/* For a card with these clocks. */
void lithos_governor_config_defaults(struct lithos_governor_config *config, uint32_t min_mhz,
                                     uint32_t max_mhz, uint32_t step_mhz);
/* 0; -EINVAL: clocks that are not whole steps, parts out of range, no operators. */
int lithos_governor_size(const struct lithos_governor_config *config, size_t *ret_bytes);
/* In mem (aligned to 16, the caller's). 0, -EINVAL, -ENOSPC. */
int lithos_governor_init(void *mem, size_t bytes, const struct lithos_governor_config *config,
                         struct lithos_governor **ret_governor);

/* A tenant comes, or is otherwise; slot below LITHOS_GOVERNOR_TENANTS_MAX. 0 or -EINVAL. */
int lithos_governor_tenant(struct lithos_governor *g, uint32_t slot,
                           const struct lithos_governor_tenant *tenant);
void lithos_governor_tenant_gone(struct lithos_governor *g, uint32_t slot);

/* A kernel of a tenant took so long, all of it at the clock in force (mhz as read, not as asked for; 0: not known or it
 * changed: counts as run time alone). key: function, shape and width. Any values. */
void lithos_governor_kernel(struct lithos_governor *g, uint32_t slot, uint64_t key, uint64_t duration_ns,
                            uint32_t mhz);
/* A request of a tenant took so long. */
void lithos_governor_request(struct lithos_governor *g, uint32_t slot, uint64_t latency_ns);

/* Decide. To be called every watch_ns or so; before it is time, the answer is the last one. */
struct lithos_governor_advice lithos_governor_step(struct lithos_governor *g, uint64_t now_ns);

/* What a clock would do to a tenant by its sensitivities: its run time over that at max_mhz, in ppm. */
uint32_t lithos_governor_slower_ppm(const struct lithos_governor *g, uint32_t slot, uint32_t mhz);
/* "down", ...; never NULL. */
const char *lithos_governor_why_name(enum lithos_governor_why why);
