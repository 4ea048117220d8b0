/* What an owner can bear. Whoever comes back to TPCs that were lent waits for what still runs there; how much of that
 * is all right follows from what was promised to it and from how it comes and goes. */
#include "core/sched_internal.h"

/* Measured over predicted is taken for noise below this difference, and answered in steps no shorter than that. */
#define SQUEEZE_FROM_PPM 50000u
#define SQUEEZE_STEP_NS (20 * LITHOS_NSEC_PER_MSEC)
#define SQUEEZE_SAMPLES 16u
/* Of so many completions with nobody beside it, though somebody waits, after so long, what was known is of when there was more. */
#define SQUEEZE_OLD_SAMPLES 64u
#define SQUEEZE_OLD_NS (100 * LITHOS_NSEC_PER_MSEC)
#define SQUEEZE_LEAST_PPM 100000u
#define SQUEEZE_BACK_PPM 20000u
#define TELLING_NS (5 * LITHOS_NSEC_PER_USEC) /* shorter kernels say nothing about their neighbours */
#define PROBE_AFTER 64u
#define PROBE_SAMPLES 32u
#define PROBE_MOST_NS (200 * LITHOS_NSEC_PER_MSEC)
#define PROBE_PAUSE 50u
#define NEED_PPM 990000u
#define USUAL_PPM 500000u

/* An owner is foreseen when it comes back before so much of the time that it is usually idle for, one time in thirty-two at most. That is
 * known long before its safe time is sure. */
#define FORESEEN_PPM 750000u
#define EARLY_PPM 31250u
/* Then what stays past its return buys no more than its slack's part of that time: not worth a wait at each return below this part. */
#define PAST_RETURN_PART 4u

/* A program has the next request of its queue on the card within this, or an eighth of what a request takes. */
#define RUN_PAUSE_NS (100 * LITHOS_NSEC_PER_USEC)
#define RUN_PAUSE_PART 8u
/* pi / 2, of the square of a part in ppm */
#define EXCURSION_PPM2 1570796326795ull
#define RUN_MOST 1000000u
/* Of requests that come at random and need no pause, some have nobody before or behind them: (1 - load) e^-load of them, 4 % at a load of 0.9.
 * Where less of the time is in runs of one part than a thirty-second, parts are not taken for requests. */
#define RUN_SINGLE_PART 32u
#define RUN_MEAN_OF 64u

#define SLACK_MAX_NS (60 * LITHOS_NSEC_PER_SEC)
#define TRUST_STEP_PPM 10000u
#define TRUST_LEAST_PPM 50000u

void sched_owner_init(struct sched_tenant *t)
{
    lithos_demand_init(&t->demand);
    t->trust_ppm = t->beside.squeeze_ppm = LITHOS_SCHED_PPM;
}

static uint64_t part(uint64_t ns, uint64_t ppm)
{
    return (uint64_t)((unsigned __int128)ns * ppm / LITHOS_SCHED_PPM);
}

/* What its long requests may take longer, beyond 1; UINT32_MAX: not said, an SLO is. */
static uint32_t slip_ppm(const struct lithos_sched *s, const struct sched_tenant *t)
{
    if (t->desc.slip_ppm)
        return t->desc.slip_ppm - LITHOS_SCHED_PPM;
    return t->desc.slo_ns ? UINT32_MAX : s->config.slip_ppm - LITHOS_SCHED_PPM;
}

uint64_t sched_owner_slack_ns(const struct lithos_sched *s, const struct sched_tenant *t)
{
    const uint64_t need_ns = t->need_ns;
    uint64_t slack_ns = UINT64_MAX;

    /* A slip is a promise about the tail. Whoever comes at any time waits for half of what stays, in the mean, and it
     * is the mean that moves the tail: short waits make up for the long ones (docs/scheduler.md). */
    if (slip_ppm(s, t) != UINT32_MAX)
        slack_ns = 2 * part(need_ns, slip_ppm(s, t));
    /* An SLO is one about each request. Half of what that leaves: the other half is for what the tenant itself and its neighbours do otherwise
     * than before. */
    if (t->desc.slo_ns)
        slack_ns =
            LITHOS_MIN(slack_ns, t->desc.slo_ns > t->request_ns ? (t->desc.slo_ns - t->request_ns) / 2 : 0);

    return need_ns ? part(LITHOS_MIN(slack_ns, SLACK_MAX_NS), t->trust_ppm) : 0;
}

/* Does it come at even intervals: so long after it has gone, or after it came? */
static void foresee(struct sched_tenant *t)
{
    const uint64_t linger_ns = t->demand.linger_ns;
    const uint64_t gap_ns = lithos_demand_usual_gap_ns(&t->demand, linger_ns);
    const uint64_t early_gap_ns = lithos_demand_safe_ns(&t->demand, linger_ns, EARLY_PPM);
    const uint64_t interval_ns = lithos_demand_usual_interval_ns(&t->demand);
    const uint64_t early_interval_ns = lithos_demand_safe_interval_ns(&t->demand, 0, EARLY_PPM);

    t->even_gaps = early_gap_ns >= part(gap_ns, FORESEEN_PPM) && gap_ns;
    t->interval_ns = early_interval_ns >= part(interval_ns, FORESEEN_PPM) ? interval_ns : 0;
    if (t->even_gaps)
        t->even_ns = gap_ns;
    else
        t->even_ns = t->interval_ns - LITHOS_MIN(t->usual_ns, t->interval_ns);
}

uint64_t sched_owner_comes_ns(const struct sched_tenant *t)
{
    const uint64_t by_clock_ns =
        t->interval_ns ? LITHOS_MAX(t->period_ns + t->interval_ns, t->state_ns) : UINT64_MAX;

    if (!t->even_ns)
        return 0;
    return t->even_gaps ? LITHOS_MIN(t->state_ns + t->even_ns, by_clock_ns) : by_clock_ns;
}

/* Before which time it will not be back, but in one of 1 / hit_ppm cases. Where what was late does not make the next one late, it is the
 * clock that says: who waited for others once would else find them again, at each return that follows. */
static uint64_t safe_until_ns(const struct lithos_sched *s, const struct sched_tenant *t)
{
    const uint64_t idle_ns = s->now_ns - t->state_ns, since_ns = s->now_ns - t->period_ns;
    uint64_t until_ns = UINT64_MAX;

    if (t->even_gaps || !t->interval_ns)
        until_ns = t->state_ns + lithos_demand_safe_ns(&t->demand, idle_ns, s->config.hit_ppm);
    if (t->interval_ns)
        until_ns = LITHOS_MIN(
            until_ns, t->period_ns + lithos_demand_safe_interval_ns(&t->demand, since_ns, s->config.hit_ppm));
    return until_ns;
}

static uint64_t square_root(uint64_t x)
{
    uint64_t root = 0;

    for (uint64_t bit = 1ull << 31; bit; bit >>= 1)
        if ((root | bit) * (root | bit) <= x)
            root |= bit;
    return root;
}

/* What the longest request of a run took, with its wait for those before it. Where the run is of n requests, each on the card without a pause
 * as a graph is, and they came at random, sqrt(pi n / 2) wait at a time where most do, whatever the load is (the maximum of a Brownian
 * excursion: D. P. Kennedy, J. Appl. Prob. 13, 1976). Where requests pause themselves it may be one: all of it. What tells the two apart are the
 * runs of one part: where there are such, and they are no longer than twice the parts of this one, a part is a request. */
static uint64_t longest_request_ns(const struct sched_tenant *t, uint64_t lasted_ns)
{
    const uint64_t n = LITHOS_MIN(t->run_parts, RUN_MOST);

    if (t->single_time_ns < t->run_time_ns / RUN_SINGLE_PART || n * t->single_ns > 2 * lasted_ns)
        return lasted_ns;
    const uint64_t mean_ns = lasted_ns / n;
    const uint64_t queued_ns = mean_ns + part(mean_ns, square_root(EXCURSION_PPM2 * (n - 1)));
    return LITHOS_MIN(LITHOS_MAX(queued_ns, t->run_longest_ns), lasted_ns);
}

/* Over for good as well: the next request was not waiting while this one ran. */
static void close_run(struct sched_tenant *t)
{
    const uint64_t lasted_ns = t->run_ns - LITHOS_MIN(t->run_wait_ns, t->run_ns);

    t->run_time_ns += lasted_ns - t->run_time_ns / RUN_MEAN_OF;
    t->single_time_ns -= t->single_time_ns / RUN_MEAN_OF;
    if (t->run_parts == 1) {
        t->single_time_ns += lasted_ns;
        t->single_ns = t->single_ns ? t->single_ns - t->single_ns / 16 + lasted_ns / 16 : lasted_ns;
    }
    lithos_demand_run(&t->demand, longest_request_ns(t, lasted_ns));
    t->run_ns = t->run_wait_ns = t->run_longest_ns = 0;
    t->run_parts = 0;
}

/* It had nothing to do from end_ns to submit_ns: the part of a run that lies before that, and whether that was the last one. */
static void account_run(struct sched_tenant *t, uint64_t end_ns, uint64_t submit_ns)
{
    const uint64_t part_ns = end_ns - LITHOS_MIN(t->part_ns, end_ns);

    t->run_ns += part_ns;
    t->run_longest_ns = LITHOS_MAX(t->run_longest_ns, part_ns);
    t->run_parts++;
    if (submit_ns - LITHOS_MIN(end_ns, submit_ns) > LITHOS_MAX(RUN_PAUSE_NS, t->single_ns / RUN_PAUSE_PART))
        close_run(t);
    t->part_ns = submit_ns;
}

/* A launch that was told before the end of what was ahead of it: only those ends say whether there was a pause between. Of several the first. */
void sched_owner_follows(struct sched_tenant *t, uint64_t submit_ns)
{
    if (t->ahead || !t->came)
        return;
    t->ahead = t->outstanding;
    t->ahead_end_ns = 0;
    t->follows_ns = submit_ns;
}

static void ended_ahead(struct sched_tenant *t, uint64_t end_ns)
{
    if (!t->ahead)
        return;
    t->ahead_end_ns = LITHOS_MAX(t->ahead_end_ns, end_ns);
    if (!--t->ahead && t->ahead_end_ns < t->follows_ns)
        account_run(t, t->ahead_end_ns, t->follows_ns);
}

/* The busy period that ended when it went idle is over for good: gaps shorter than it lingers are part of it. */
static void close_period(struct sched_tenant *t)
{
    const uint64_t lasted_ns = t->state_ns - LITHOS_MIN(t->period_ns, t->state_ns);

    t->period_open = false;
    lithos_demand_period(&t->demand, lasted_ns - LITHOS_MIN(lasted_ns, t->period_wait_ns));
    t->need_ns = lithos_demand_need_ns(&t->demand, NEED_PPM);
    t->usual_ns = LITHOS_MIN(lithos_demand_need_ns(&t->demand, USUAL_PPM), t->need_ns);
    /* A long busy period is many requests that waited for each other, and none of them took all of it: about as much as half-way between a usual
     * one and it, if no less is known. */
    const uint64_t half_way_ns = t->usual_ns + (t->need_ns - t->usual_ns) / 2;
    const uint64_t longest_ns = lithos_demand_run_ns(&t->demand, NEED_PPM);
    t->request_ns = longest_ns ? LITHOS_MIN(longest_ns, half_way_ns) : half_way_ns;

    foresee(t);
    t->trust_ppm = LITHOS_MIN(t->trust_ppm + TRUST_STEP_PPM, LITHOS_SCHED_PPM);
}

/* How long work of others is predicted to stay on TPCs of an owner's. */
static uint64_t foreign_end_ns(const struct lithos_sched *s, struct lithos_tpcset tpcs)
{
    uint64_t end_ns = 0;

    for (unsigned b = lithos_tpcset_next(&tpcs, 0); b < LITHOS_TPC_BITS;
         b = lithos_tpcset_next(&tpcs, b + 1)) {
        const uint32_t user = s->tpc_user[b];
        if (user < s->config.tenants && s->tenants[user].used && s->tenants[user].outstanding)
            end_ns = LITHOS_MAX(end_ns, LITHOS_MIN(s->tpc_end_ns[b], s->tenants[user].end_ns));
    }
    return end_ns;
}

uint64_t lithos_sched_beside_ns(const struct lithos_sched *s, uint64_t now_ns, uint32_t slot,
                                struct lithos_tpcset tpcs)
{
    if (slot >= s->config.tenants || !s->tenants[slot].used)
        return 0;
    const uint64_t end_ns = foreign_end_ns(s, lithos_tpcset_and(tpcs, s->tenants[slot].desc.own));
    return end_ns ? LITHOS_MAX(end_ns, now_ns + 1) : 0;
}

void sched_owner_returns(struct lithos_sched *s, struct sched_tenant *t, uint64_t submit_ns)
{
    const uint64_t gap_ns = submit_ns - LITHOS_MIN(t->state_ns, submit_ns);
    struct sched_bucket *bucket = sched_bucket(t, s->now_ns);

    if (t->came)
        account_run(t, t->state_ns, submit_ns);
    else
        t->part_ns = submit_ns;
    t->ahead = 0;
    if (t->period_open && gap_ns > t->demand.linger_ns)
        close_period(t);
    if (!t->period_open) {
        if (t->came)
            lithos_demand_interval(&t->demand, submit_ns - LITHOS_MIN(t->period_ns, submit_ns));
        t->period_ns = submit_ns;
        t->period_wait_ns = 0;
        t->period_open = true;
    }
    if (t->came)
        lithos_demand_gap(&t->demand, gap_ns, s->config.atom_ns);
    t->came = true;
    t->returning = true;
    t->foreign_ns = foreign_end_ns(s, lithos_tpcset_minus(t->desc.own, t->strip)); /* where its launches go */
    const struct lithos_tpcset in_its_way = lithos_tpcset_minus(t->lent_away, t->strip);
    if (!lithos_tpcset_empty(&in_its_way))
        bucket->returns++;
    if (t->foreign_ns > submit_ns + s->config.useful_ns)
        bucket->hits++;
}

/* The first completion since it came back says what it waited for: no more than what was in its way. */
static void measure_wait(struct lithos_sched *s, struct sched_tenant *t, uint64_t submit_ns, uint64_t end_ns,
                         uint64_t predicted_ns)
{
    t->returning = false;
    if (t->foreign_ns <= submit_ns)
        return;
    const uint64_t took_ns = end_ns - LITHOS_MIN(submit_ns, end_ns),
                   usual_ns = predicted_ns + s->config.reach_ns;
    uint64_t wait_ns = t->foreign_ns - submit_ns;
    if (predicted_ns)
        wait_ns = LITHOS_MIN(wait_ns, took_ns - LITHOS_MIN(took_ns, usual_ns));
    /* Predictions that are far off, or work that was kept from ending: lend for less, until that is long ago. */
    if (wait_ns > 2 * (sched_owner_slack_ns(s, t) + s->config.useful_ns))
        t->trust_ppm = LITHOS_MAX(t->trust_ppm / 2, TRUST_LEAST_PPM);
    t->period_wait_ns += wait_ns;
    t->run_wait_ns += wait_ns;
    sched_bucket(t, s->now_ns)->wait_ns += wait_ns;
}

static void mean_add(uint32_t *mean_ppm, uint64_t ppm)
{
    *mean_ppm = *mean_ppm ? (uint32_t)(*mean_ppm - *mean_ppm / 32 + ppm / 32) : (uint32_t)ppm;
}

static void squeeze_to(struct lithos_sched *s, struct sched_beside *b, uint32_t ppm)
{
    if (b->squeeze_ppm != ppm)
        s->dirty = true;
    b->squeeze_ppm = ppm;
    b->step_ns = s->now_ns;
    b->alone_samples = 0;
}

/* Lend less when it runs slower beside others, more again when it does not: down by a quarter, up by a fiftieth, and in between nothing changes.
 * Where what is left is of no use to who waits nobody is beside it, and nothing would change any more: then a step down is undone. */
static void squeeze(struct lithos_sched *s, struct sched_tenant *t)
{
    struct sched_beside *b = &t->beside;
    const uint64_t bears_ppm = LITHOS_MIN(slip_ppm(s, t), LITHOS_SCHED_PPM) / 2;
    const uint64_t high_ppm = LITHOS_SCHED_PPM + LITHOS_MAX(bears_ppm, SQUEEZE_FROM_PPM);
    const uint32_t ppm = b->squeeze_ppm;

    if (!b->alone_ppm || !b->beside_ppm || s->now_ns < b->step_ns + SQUEEZE_STEP_NS)
        return;
    if (b->samples >= SQUEEZE_SAMPLES) {
        const uint64_t slower_ppm = (uint64_t)b->beside_ppm * LITHOS_SCHED_PPM / b->alone_ppm;
        b->samples = 0;
        if (slower_ppm > high_ppm)
            squeeze_to(s, b, LITHOS_MAX(ppm / 4 * 3, SQUEEZE_LEAST_PPM));
        else if (slower_ppm < LITHOS_SCHED_PPM + (high_ppm - LITHOS_SCHED_PPM) / 2)
            squeeze_to(s, b, LITHOS_MIN(ppm + SQUEEZE_BACK_PPM, LITHOS_SCHED_PPM));
        else
            squeeze_to(s, b, ppm);
    } else if (b->alone_samples >= SQUEEZE_OLD_SAMPLES && s->now_ns >= b->step_ns + SQUEEZE_OLD_NS) {
        squeeze_to(s, b, LITHOS_MIN(ppm / 3 * 4, LITHOS_SCHED_PPM));
    }
}

/* Is work of others under way on TPCs that are lent? What they have of their own cannot be taken from them. */
static bool somebody_beside(const struct lithos_sched *s, const struct sched_tenant *t)
{
    for (uint64_t others = s->borrowers & s->busy & ~(1ull << sched_slot(s, t)); others; others &= others - 1)
        if (s->tenants[__builtin_ctzll(others)].outstanding)
            return true;
    return false;
}

static bool somebody_waits(const struct lithos_sched *s)
{
    for (uint64_t busy = s->busy; busy; busy &= busy - 1) {
        const struct sched_tenant *t = &s->tenants[__builtin_ctzll(busy)];
        if (t->queued && !t->outstanding)
            return true;
    }
    return false;
}

/* Now and then nothing is lent while it is busy, to see how fast it is then: where somebody always borrows there is no
 * other way to know. At most a fiftieth of the time. */
static void probe(struct lithos_sched *s, struct sched_tenant *t, bool beside)
{
    struct sched_beside *b = &t->beside;

    if (!b->probes) {
        b->probe_samples += beside;
        if (!beside || b->probe_samples < PROBE_AFTER || s->now_ns < b->probe_ns)
            return;
        b->probe_ns = s->now_ns;
    } else {
        b->probe_samples += !beside;
        const uint64_t took_ns = s->now_ns - b->probe_ns;
        if (b->probe_samples < PROBE_SAMPLES && took_ns < PROBE_MOST_NS)
            return;
        b->probe_ns = s->now_ns + PROBE_PAUSE * took_ns;
    }
    b->probes = !b->probes;
    b->probe_samples = 0;
    s->dirty = true;
}

void sched_owner_done(struct lithos_sched *s, struct sched_tenant *t, uint64_t submit_ns, uint64_t start_ns,
                      uint64_t end_ns, uint64_t predicted_ns)
{
    const uint64_t ran_ns = end_ns - LITHOS_MIN(start_ns, end_ns);

    ended_ahead(t, LITHOS_MIN(end_ns, s->now_ns));
    if (t->returning)
        measure_wait(s, t, submit_ns, end_ns, predicted_ns);
    else if (predicted_ns >= TELLING_NS && ran_ns && t->desc.class == LITHOS_SCHED_HIGH) {
        const uint64_t ppm =
            LITHOS_MIN((unsigned __int128)ran_ns * LITHOS_SCHED_PPM / predicted_ns, 8 * LITHOS_SCHED_PPM);
        const bool beside = somebody_beside(s, t);
        mean_add(beside ? &t->beside.beside_ppm : &t->beside.alone_ppm, ppm);
        t->beside.samples += beside;
        if (!beside && t->beside.squeeze_ppm < LITHOS_SCHED_PPM && somebody_waits(s))
            t->beside.alone_samples++;
        probe(s, t, beside);
        squeeze(s, t);
    }
}

/* Limits for a high-priority owner that has been idle for idle_ns. */
static enum lithos_sched_why high_bears(struct lithos_sched *s, struct sched_tenant *t, uint64_t idle_ns,
                                        uint64_t *ret_longest_ns, uint64_t *ret_until_ns)
{
    const struct lithos_sched_config *c = &s->config;
    const uint64_t lost_ns = c->react_ns + c->lent_window_ns, least_ns = lost_ns + c->useful_ns;

    sched_wake_at(s, t->state_ns + lithos_demand_next_look_ns(&t->demand, idle_ns));
    if (idle_ns < t->demand.linger_ns)
        return LITHOS_WHY_OWNER_SOON;
    if (t->period_open)
        close_period(t);
    const uint64_t until_ns = safe_until_ns(s, t);
    const uint64_t slack_ns = sched_owner_slack_ns(s, t);
    const bool soon = until_ns < s->now_ns + least_ns;

    const bool waits_for_little = slack_ns < t->even_ns / PAST_RETURN_PART;

    *ret_longest_ns = slack_ns >= least_ns && !waits_for_little ? slack_ns - lost_ns : 0;
    *ret_until_ns = soon ? 0 : until_ns - c->react_ns;
    if (!soon || *ret_longest_ns)
        return LITHOS_WHY_ALL;
    return slack_ns < least_ns ? LITHOS_WHY_OWNER_SLACK : LITHOS_WHY_OWNER_SOON;
}

enum lithos_sched_why sched_owner_bears(struct lithos_sched *s, struct sched_tenant *t,
                                        uint64_t *ret_longest_ns, uint64_t *ret_until_ns)
{
    *ret_longest_ns = *ret_until_ns = 0;
    if (sched_is_busy(t))
        return LITHOS_WHY_OWNER_BUSY;
    if (sched_is_best_effort(t)) {
        *ret_longest_ns = s->config.idle_longest_ns;
        return LITHOS_WHY_ALL;
    }
    return high_bears(s, t, s->now_ns - t->state_ns, ret_longest_ns, ret_until_ns);
}

uint64_t sched_owner_will_bear_ns(const struct lithos_sched *s, const struct sched_tenant *t)
{
    const uint64_t linger_ns = t->demand.linger_ns, lost_ns = s->config.react_ns + s->config.lent_window_ns;
    const uint64_t safe_ns = lithos_demand_safe_ns(&t->demand, linger_ns, s->config.hit_ppm);
    const uint64_t slack_ns = sched_owner_slack_ns(s, t);
    const uint64_t bears_ns =
        slack_ns > lost_ns && slack_ns >= t->even_ns / PAST_RETURN_PART ? slack_ns - lost_ns : 0;

    return LITHOS_MAX(bears_ns, safe_ns - LITHOS_MIN(safe_ns, linger_ns));
}

struct lithos_tpcset sched_owner_strip(const struct lithos_sched *s, const struct sched_tenant *t,
                                       uint64_t *ret_longest_ns)
{
    const uint64_t lost_ns = s->config.react_ns + s->config.lent_window_ns;
    const uint64_t slack_ns = part(LITHOS_MIN(t->strip_bears_ns, SLACK_MAX_NS), t->trust_ppm);

    *ret_longest_ns = 0;
    if (slack_ns < lost_ns + s->config.useful_ns)
        return (struct lithos_tpcset){{0, 0}};
    *ret_longest_ns = slack_ns - lost_ns;
    return t->strip;
}

/* Nor while a kernel of its own takes longer than that: what is nobody's would be kept from all others as well. */
static bool is_watched_alone(struct lithos_sched *s, const struct sched_tenant *t)
{
    const uint64_t until_ns = t->beside.probe_ns + PROBE_MOST_NS;

    if (!t->beside.probes || s->now_ns >= until_ns)
        return false;
    sched_wake_at(s, until_ns);
    return true;
}

uint32_t sched_owner_squeeze_ppm(struct lithos_sched *s)
{
    uint32_t least_ppm = LITHOS_SCHED_PPM;

    for (uint64_t busy = s->busy; busy; busy &= busy - 1) {
        const struct sched_tenant *t = &s->tenants[__builtin_ctzll(busy)];
        if (!sched_is_best_effort(t))
            least_ppm = LITHOS_MIN(least_ppm, is_watched_alone(s, t) ? 0 : t->beside.squeeze_ppm);
    }
    return least_ppm;
}
