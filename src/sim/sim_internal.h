/* Inside of the simulator: tenants and their queues (tenant.c), the daemon and the clock (engine.c), what goes wrong
 * (fault.c), what is right (check.c). */
#pragma once

#include <errno.h>

#include "base/assert.h"
#include "base/util.h"
#include "core/governor.h"
#include "sim/random.h"
#include "sim/sim.h"

#define SIM_FLIGHTS 1024u /* a power of two; launches of a tenant under way */
#define SIM_RUN_AHEAD 1024u
#define SIM_TICK_NS LITHOS_NSEC_PER_MSEC           /* between looks at what waits */
#define SIM_LEASE_NS (5 * LITHOS_NSEC_PER_MSEC)    /* without a daemon for so long, lent TPCs are not used */
#define SIM_MISSING_NS (20 * LITHOS_NSEC_PER_MSEC) /* a stamp that is not there by then never will be */
#define SIM_DEATH_NS (200 * LITHOS_NSEC_PER_USEC)  /* until the daemon hears of a death */

/* A launch under way: a kernel, an atom, a graph. */
struct sim_flight {
    uint64_t op; /* counts from 1, tenant by tenant */
    uint64_t round;
    uint32_t kernel;
    bool last; /* the kernel's last part */
    bool chained;
    uint64_t first, blocks;
    uint64_t submit_ns, predicted_ns, placed, ended;
    uint64_t told_ns; /* the daemon knows of it from then on */
    struct lithos_tpcset tpcs;
    struct lithos_rightsize_ticket sized; /* when the tenant is right-sized */
};

struct sim_check_tenant {
    uint64_t busy_ns, idle_ns; /* in truth: has something under way since, or not since */
    uint64_t next_block;
    bool returning;
    uint64_t wait_until_ns; /* a return's first block is due by then */
    /* Its queue waits with nothing under way, and TPCs are idle: since when without a break, and how long in all. */
    uint64_t idle_since_ns, idle_seen_ns;
    struct lithos_tpcset lent, own;
    /* Its launches keep off these; until a while ago off those. */
    struct lithos_tpcset strip, strip_before;
    uint64_t strip_ns; /* strip_before was given up */
};

struct sim_tenant {
    const struct lithos_sim_tenant *spec;
    const struct lithos_sim_program *program;
    uint32_t index, slot;
    uint32_t life;     /* how often it has been started */
    bool alive, known; /* the daemon knows of it, under slot */
    struct lithos_tpcset own;
    struct lithos_wave_domain *domain;
    struct lithos_wave_stream *stream;
    struct lithos_tpcgrant grant;
    struct lithos_random arrivals,
        random; /* apart, so that the same requests come whatever is done with them */

    /* the app */
    uint64_t arrival_ns; /* the next one, or NEVER */
    uint64_t *pending;   /* ring: arrivals not yet begun */
    size_t pending_first, pending_count, pending_room;
    bool issuing; /* within a round */
    uint64_t round, rounds_done;
    uint64_t began_ns; /* arrival of the round that runs; closed: end of the last one */
    uint64_t app_ns;   /* when the app has issued the next launch */
    uint64_t ended_ns;
    uint32_t kernel; /* the next to launch */
    uint64_t first;  /* and its next block */

    /* the dispatcher */
    uint64_t pump_ns;
    uint64_t op;
    struct sim_flight flights[SIM_FLIGHTS];
    uint32_t flying, flight_first; /* ring */
    uint64_t unseen;               /* completions that have not been seen: counted as outstanding */
    uint64_t outstanding_ns;       /* predicted, of all under way */
    uint64_t head_ns;              /* when the first of them is taken to have started */
    uint64_t held_ns, last_launch_ns;
    struct lithos_tpcset graph_tpcs;
    uint64_t graph_ns; /* how long the graph takes, as seen: a running median */
    enum lithos_tpcpick why;
    bool queue_told;
    uint64_t head_told_ns;
    uint64_t waits_ns; /* for `why` since */

    struct lithos_rightsize *rightsize; /* NULL: its kernels have all its TPCs */
    void *rightsize_mem;
    struct lithos_tpcset foreign; /* its own TPCs where others' work may be, */
    uint64_t foreign_ns;          /* until then */
    struct lithos_tpcset strip;   /* the daemon was told that its launches keep off these */

    struct sim_check_tenant check;
    struct lithos_sim_tenant_result result;
    size_t latency_room;
};

struct sim_message {
    uint64_t at_ns;
    uint32_t tenant, life;
    struct lithos_sched_event event;
};

struct sim_ring {
    struct sim_message *messages;
    size_t first, count, room;
};

/* Ways of a message to the daemon. */
enum sim_way {
    SIM_RECORDS,
    SIM_STAMPS,
    SIM_MISSED, /* stamps that never came */
    SIM_WAY_MAX,
};

struct sim {
    const struct lithos_sim_scenario *sc;
    const struct lithos_sim_options *options;
    struct lithos_wave *wave;
    struct lithos_sched *sched;
    void *sched_mem;
    size_t sched_bytes;
    struct lithos_sched_config config;
    uint64_t now_ns, end_ns;
    struct sim_tenant *tenants;
    struct sim_ring rings[SIM_WAY_MAX]; /* on their way to the daemon */
    bool daemon_up;
    uint64_t daemon_ns; /* nothing to do before */
    uint64_t lease_ns;  /* the daemon last looked */
    uint64_t fault_ns;  /* next beginning or end of a fault */
    uint64_t tick_ns;
    uint64_t stamp_count;
    struct {
        struct lithos_governor *governor; /* NULL: none */
        void *mem;
        uint32_t mhz, asked_mhz; /* in force; and from switch_ns on */
        uint64_t switch_ns, since_ns, next_ns, watch_ns;
        uint64_t
            stretch_ns; /* at this clock, not accounted for yet; what the card did, in ppm of it, times ns: */
        double busy, traffic;
    } power;
    struct lithos_check_report check;
    struct lithos_sim_result *result;
    size_t span_room;
};

static inline void sim_mix(struct sim *s, uint64_t kind, uint64_t a, uint64_t b)
{
    const uint64_t h = s->result->hash ^ lithos_random_mix(s->now_ns * 0x9e3779b97f4a7c15ull + kind);
    s->result->hash = lithos_random_mix(h + a * 0xff51afd7ed558ccdull + (b ^ 0x2545f4914f6cdd1dull));
    s->result->events++;
}

static inline struct sim_flight *sim_flight(struct sim_tenant *t, uint32_t nth)
{
    return &t->flights[(t->flight_first + nth) % SIM_FLIGHTS];
}

/* tenant.c */
void sim_tenant_start(struct sim *s, struct sim_tenant *t);
void sim_tenant_stop(struct sim *s, struct sim_tenant *t);
void sim_tenant_arrive(struct sim *s, struct sim_tenant *t);
/* Submit what may be submitted now. */
void sim_tenant_pump(struct sim *s, struct sim_tenant *t);
void sim_tenant_done(struct sim *s, struct sim_tenant *t, const struct lithos_wave_event *e);
/* What waits in its launch queue, as told last; waiting: false: nothing does. */
struct lithos_sched_event sim_queue_event(const struct sim *s, const struct sim_tenant *t, bool waiting);
void sim_tenant_granted(struct sim *s, struct sim_tenant *t, const struct lithos_tpcgrant *g);
/* Nothing to do any more and nothing under way. */
bool sim_tenant_finished(const struct sim *s, const struct sim_tenant *t);
uint64_t sim_tenant_next_ns(const struct sim_tenant *t);

/* engine.c: messages to the daemon */
/* Returns when it will be read, which is not before least_ns. */
uint64_t sim_tell(struct sim *s, enum sim_way way, struct sim_tenant *t, uint64_t delay_ns, uint64_t least_ns,
                  const struct lithos_sched_event *e);
void sim_daemon_start(struct sim *s);
void sim_daemon_stop(struct sim *s);
void sim_tenant_admit(struct sim *s, struct sim_tenant *t);

/* rightsize.c */
int sim_rightsize_begin(struct sim *s, struct sim_tenant *t);
void sim_rightsize_request(struct sim *s, struct sim_tenant *t);
void sim_rightsize_request_done(struct sim *s, struct sim_tenant *t, uint64_t took_ns);
/* Somebody's launch goes there. */
void sim_rightsize_beside(struct sim *s, struct lithos_tpcset tpcs);
/* Fewer of the TPCs of its next launch. */
void sim_rightsize_choose(struct sim *s, struct sim_tenant *t, struct lithos_tpcset *tpcs,
                          struct lithos_rightsize_ticket *ret_ticket);
void sim_rightsize_done(struct sim *s, struct sim_tenant *t, const struct sim_flight *f,
                        const struct lithos_wave_event *e);
void sim_rightsize_finish(struct sim_tenant *t);

uint64_t sim_kernel_key(const struct lithos_wave_kernel *k);

/* power.c */
int sim_power_begin(struct sim *s);
void sim_power_tenant(struct sim *s, const struct sim_tenant *t);
void sim_power_until(struct sim *s, uint64_t to_ns);
void sim_power_account(struct sim *s); /* before the clock changes, and at the end */
uint64_t sim_power_next_ns(const struct sim *s);
void sim_power_step(struct sim *s);
void sim_power_done(struct sim *s, const struct sim_tenant *t, const struct sim_flight *f,
                    const struct lithos_wave_event *e);
void sim_power_request(struct sim *s, const struct sim_tenant *t, uint64_t latency_ns);

/* fault.c: what is wrong now */
uint64_t sim_fault_next_ns(const struct sim *s);
void sim_faults(struct sim *s);
uint32_t sim_fault_factor_ppm(const struct sim *s, const struct sim_tenant *t);
uint64_t sim_fault_stamp_delay_ns(const struct sim *s, const struct sim_tenant *t);
bool sim_fault_stamp_lost(struct sim *s, const struct sim_tenant *t);
uint64_t sim_fault_daemon_delay_ns(const struct sim *s);

/* check.c */
void check_start(struct sim *s, struct sim_tenant *t);
void check_grant(struct sim *s, struct sim_tenant *t);
void check_strip(struct sim *s, struct sim_tenant *t, struct lithos_tpcset strip);
void check_daemon(struct sim *s); /* all grants of a step are out */
void check_submit(struct sim *s, struct sim_tenant *t, const struct sim_flight *f);
void check_recalled(const struct sim *s, struct sim_tenant *t, const struct sim_flight *f);
void check_placing(void *sim, const struct lithos_wave_placing *p);
void check_done(struct sim *s, struct sim_tenant *t, const struct sim_flight *f,
                const struct lithos_wave_event *e);
void check_tick(struct sim *s);
void check_end(struct sim *s);
void check_fire(struct sim *s, enum lithos_check_rule rule, const struct sim_tenant *t, const char *fmt, ...)
    LITHOS_PRINTF(4, 5);
