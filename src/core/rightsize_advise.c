/* What the next launches of an operator are to run on, said when one has ended. */
#include <errno.h>
#include <string.h>

#include "core/rightsize_internal.h"

#define SLIP_MOST_PPM (100 * LITHOS_RIGHTSIZE_PPM)
/* Requests differ: of what they have left over on the average, tries may cost a part. */
#define SPARE_PART 0.5
#define SPARE_SMOOTH 8.0
/* And of the time for which the card is idle within them, which most tries fall before. */
#define IDLE_PART 0.1
/* Every so many requests, what was set aside for operators that have not run for so many launches is free again. */
#define SWEEP_EVERY 64u
#define SWEEP_AGE 8192u
#define EVERY_MOST 128u

static void end_trial(struct lithos_rightsize *r, struct rightsize_operator *op)
{
    r->committed_ns -= (double)op->costs_ns;
    op->costs_ns = 0;
    op->trying = 0;
}

void rightsize_advise_request(struct lithos_rightsize *r)
{
    r->spare_ns += (LITHOS_MIN(r->earned_ns, r->slip_ns) - r->spare_ns) / SPARE_SMOOTH;
    r->slip_ns = 0;
    if (r->stats.requests % SWEEP_EVERY)
        return;
    for (uint32_t i = 0; i < r->sets * RIGHTSIZE_WAYS; i++)
        if (r->op[i].costs_ns > 0 && r->clock - r->op[i].used > SWEEP_AGE)
            end_trial(r, &r->op[i]);
}

bool lithos_rightsize_whole(const struct lithos_rightsize *r)
{
    const bool open_whole =
        r->loop.open && (r->loop.mode == RIGHTSIZE_REFERENCE || r->loop.mode == RIGHTSIZE_WHOLE);

    return open_whole || r->stats.slip_ppm <= LITHOS_RIGHTSIZE_PPM;
}

int lithos_rightsize_set_slip(struct lithos_rightsize *r, uint32_t slip_ppm)
{
    if (slip_ppm < LITHOS_RIGHTSIZE_PPM || slip_ppm > SLIP_MOST_PPM)
        return -EINVAL;
    r->config.slip_ppm = r->stats.slip_ppm = slip_ppm;
    memset(&r->loop, 0, sizeof r->loop);
    memset(&r->kinds, 0, sizeof r->kinds);
    memset(&r->room, 0, sizeof r->room);
    rightsize_strip_anew(r);
    return 0;
}

/* How often it is launched in a request. Ends are seen late, some in the next one: the larger of two counts. */
static void count_launch(const struct lithos_rightsize *r, struct rightsize_operator *op)
{
    const uint32_t request = (uint32_t)r->stats.requests;

    if (op->request != request) {
        op->usual = LITHOS_MAX(op->now, (uint16_t)(op->usual - op->usual / 4));
        op->request = request;
        op->now = 0;
    }
    op->now += op->now < UINT16_MAX;
}

static uint32_t probe_every(const struct lithos_rightsize *r, const struct rightsize_operator *op,
                            float costs_ns, float earns_ns)
{
    float every = LITHOS_MAX(op->usual, op->now);

    if (!r->loop.open) /* no requests are seen: it pays for itself */
        every = costs_ns > 0 ? costs_ns / LITHOS_MAX(earns_ns, 1.0f) + 1 : 1;
    uint32_t power = 1; /* so that it is seldom another */
    while ((float)power < every && power < EVERY_MOST)
        power *= 2;
    return power;
}

/* What a try of that width can cost, beyond what a launch takes now; nothing where a launch earns as much by itself. */
static float extra_ns(const struct lithos_rightsize *r, const struct rightsize_operator *op,
                      const struct lithos_rightsize_kernel *k, const struct rightsize_bounds *b, float may_ns,
                      float now_ns, uint32_t width)
{
    const float worst_ns = rightsize_worst_ns(r, op, k, b, width);
    return worst_ns <= may_ns ? 0 : worst_ns - now_ns;
}

/* The width to try: that, or one nearer to the one in use, as far as there is something left for it. 0: none now. */
static uint32_t trial(struct lithos_rightsize *r, struct rightsize_operator *op,
                      const struct lithos_rightsize_kernel *k, const struct rightsize_bounds *b, float may_ns,
                      float now_ns, uint32_t width)
{
    const double left_ns = r->loop.open ? r->spare_ns * SPARE_PART + rightsize_idle_ns(r) * IDLE_PART
                                        : (double)r->config.earn_most_ns;
    const double budget_ns = left_ns - (r->committed_ns - (double)op->costs_ns);
    float costs_ns = extra_ns(r, op, k, b, may_ns, now_ns, width);

    if ((double)costs_ns > budget_ns && costs_ns > 0 && width != op->trying) {
        const double good_ns = (double)rightsize_point(op, b->good)->median_ns;
        const double most_ns = LITHOS_MAX((double)now_ns + budget_ns, (double)may_ns);
        width = (uint32_t)(good_ns * b->good / most_ns) + 2;
        if (width <= b->bad || width + rightsize_worth(b->all) > b->good)
            return 0;
        costs_ns = extra_ns(r, op, k, b, may_ns, now_ns, width);
    }
    if (costs_ns > 0 && (double)costs_ns > budget_ns)
        return 0;
    end_trial(r, op);
    r->committed_ns += (double)costs_ns;
    op->costs_ns = costs_ns;
    op->trying = (uint16_t)width;
    return width;
}

static void advise(struct lithos_rightsize *r, struct rightsize_operator *op,
                   const struct lithos_rightsize_kernel *k, struct lithos_tpcset available,
                   struct lithos_rightsize_advice *ret)
{
    const struct lithos_topology *t = &r->config.topology;
    const struct rightsize_point *all = rightsize_point(op, lithos_tpcset_count(&available));

    *ret = (struct lithos_rightsize_advice){.why = LITHOS_RIGHTSIZE_LEARN, .tpcs = available};
    if (!all || all->count < RIGHTSIZE_ENOUGH) {
        end_trial(r, op);
        return;
    }
    struct rightsize_bounds next;
    uint32_t try;
    const struct rightsize_bounds b = rightsize_look(r, op, k, all, &next, &try);
    const float now_ns = LITHOS_MAX(rightsize_point(op, b.use)->median_ns, b.all_ns);

    r->earned_ns += (double)(b.limit_ns - now_ns);
    r->slip_ns += (double)(b.slip_ns - b.all_ns);
    ret->why = b.use < b.all ? LITHOS_RIGHTSIZE_SIZED : rightsize_why_all(op);
    ret->tpcs = lithos_rightsize_pick(t, available, b.use, k->cluster_blocks);
    const uint32_t width = try ? trial(r, op, k, &next, b.limit_ns, now_ns, try) : 0;
    if (!width) {
        end_trial(r, op);
        return;
    }
    ret->why = LITHOS_RIGHTSIZE_PROBE;
    ret->probe = lithos_rightsize_pick(t, available, width, k->cluster_blocks);
    ret->probe_every = probe_every(r, op, op->costs_ns, b.limit_ns - now_ns);
}

/* What it ran as. */
static enum lithos_rightsize_why ran_as(const struct rightsize_operator *op, uint32_t tpcs, uint32_t all)
{
    if (tpcs < all)
        return tpcs == op->trying ? LITHOS_RIGHTSIZE_PROBE : LITHOS_RIGHTSIZE_SIZED;
    const struct rightsize_point *p = rightsize_point(op, all);
    if (!p || p->count < RIGHTSIZE_ENOUGH)
        return LITHOS_RIGHTSIZE_LEARN;
    return op->best && op->best < all ? LITHOS_RIGHTSIZE_REFERENCE : rightsize_why_all(op);
}

void lithos_rightsize_ended(struct lithos_rightsize *r, const struct lithos_rightsize_kernel *kernel,
                            struct lithos_tpcset available, uint64_t duration_ns, uint32_t tpcs,
                            struct lithos_rightsize_advice *ret_advice)
{
    struct rightsize_operator *op = rightsize_find(r, kernel->key, true);

    available = lithos_tpcset_and(available, r->config.topology.valid);
    const uint32_t all = lithos_tpcset_count(&available);
    op->used = ++r->clock;
    count_launch(r, op);
    r->stats.chosen[ran_as(op, tpcs, all)]++;
    const struct lithos_rightsize_ticket ticket = {(uint32_t)(op - r->op), op->tag, (uint16_t)all,
                                                   (uint16_t)tpcs,         false,   false};
    lithos_rightsize_observe(r, &ticket, duration_ns, tpcs);
    advise(r, op, kernel, available, ret_advice);
}
