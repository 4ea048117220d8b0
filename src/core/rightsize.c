#include "core/rightsize.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "core/rightsize_internal.h"

#define OPERATORS_MOST (1u << 20)
#define SLIP_MOST_PPM (100 * LITHOS_RIGHTSIZE_PPM)
#define WORTH_PERCENT 6u
/* Its time counts as if it took so much of all TPCs besides. */
#define TIME_PRICE 0.15f
/* Of what a request earns, tries may spend all while it is new, and in one request of so many, for programs of few kernels; else this
 * part: widths in use spend of it as well, and there is always something to try. */
#define TRIES_PART 0.2
#define TRIES_ALL_FIRST 256u
#define TRIES_ALL_EVERY 128u

void lithos_rightsize_config_defaults(struct lithos_rightsize_config *config)
{
    config->operators = 1024;
    config->slip_ppm = 1100000;
    config->probe = true;
    config->earn_most_ns = LITHOS_NSEC_PER_MSEC;
    config->drain_ns = 2 * LITHOS_NSEC_PER_MSEC;
}

static uint32_t sets(const struct lithos_rightsize_config *c)
{
    return (c->operators + RIGHTSIZE_WAYS - 1) / RIGHTSIZE_WAYS;
}

int lithos_rightsize_size(const struct lithos_rightsize_config *config, size_t *ret_bytes)
{
    if (lithos_topology_validate(&config->topology) < 0 || !config->operators ||
        config->operators > OPERATORS_MOST || config->slip_ppm < LITHOS_RIGHTSIZE_PPM ||
        config->slip_ppm > SLIP_MOST_PPM)
        return -EINVAL;
    *ret_bytes = sizeof(struct lithos_rightsize) +
                 (size_t)sets(config) * RIGHTSIZE_WAYS * sizeof(struct rightsize_operator);
    return 0;
}

int lithos_rightsize_init(void *mem, size_t bytes, const struct lithos_rightsize_config *config,
                          struct lithos_rightsize **ret_rightsize)
{
    struct lithos_rightsize *r = mem;
    size_t need;

    const int e = lithos_rightsize_size(config, &need);
    if (e < 0)
        return e;
    if (bytes < need)
        return -ENOSPC;
    memset(mem, 0, need);
    r->config = *config;
    r->sets = sets(config);
    r->stats.slip_ppm = config->slip_ppm;
    *ret_rightsize = r;
    return 0;
}

/* --- how narrow --- */

uint32_t rightsize_worth(uint32_t all)
{
    return LITHOS_MAX(all * WORTH_PERCENT / 100, 1u);
}

/* Is a width enough? What both medians may be off by counts against it where it is new, and for it where it is in use:
 * otherwise one near the limit would be taken and left by turns. */
static bool enough(float limit_ns, const struct rightsize_point *all, const struct rightsize_point *p,
                   bool in_use)
{
    const float doubt_ns = (p->error_ns + all->error_ns) / 2;
    return p->median_ns + (in_use ? -doubt_ns : doubt_ns) / (in_use ? 2 : 1) <= limit_ns;
}

/* Widths that were measured, against what it may take; wider than `bad` from the start. */
struct bracket {
    uint32_t bad;  /* the widest that is too narrow */
    uint32_t good; /* the narrowest that is enough, or all */
};

static struct bracket bracket(const struct rightsize_operator *op, const struct rightsize_point *all,
                              uint32_t bad, float limit_ns)
{
    struct bracket b = {.bad = bad, .good = all->width};

    for (unsigned i = 0; i < RIGHTSIZE_WIDTHS; i++) {
        const struct rightsize_point *p = &op->point[i];
        if (!p->width || p->width >= all->width)
            continue;
        const bool far = p->count >= 2 && p->median_ns > 1.3f * limit_ns;
        const bool in_use = p->width == op->best && op->best_of == all->width;
        if (far || (p->count >= RIGHTSIZE_ENOUGH && !enough(limit_ns, all, p, in_use)))
            b.bad = LITHOS_MAX(b.bad, p->width);
    }
    for (unsigned i = 0; i < RIGHTSIZE_WIDTHS; i++) {
        const struct rightsize_point *p = &op->point[i];
        if (p->width > b.bad && p->width < b.good && p->count >= RIGHTSIZE_ENOUGH)
            b.good = p->width;
    }
    return b;
}

static float costs(const struct rightsize_point *p, uint32_t all)
{
    return ((float)p->width + TIME_PRICE * (float)all) * p->median_ns;
}

/* Within the slip the narrowest that is enough. Narrower ones, for which there is room, have to be worth it: many kernels take just as many times
 * as long as they have fewer TPCs, which saves nobody anything. */
static uint32_t most_worth(const struct rightsize_operator *op, uint32_t within, uint32_t good, uint32_t all)
{
    const struct rightsize_point *use = rightsize_point(op, within);

    for (unsigned i = 0; i < RIGHTSIZE_WIDTHS; i++) {
        const struct rightsize_point *p = &op->point[i];
        if (p->width >= good && p->width < within && p->count >= RIGHTSIZE_ENOUGH &&
            costs(p, all) < costs(use, all))
            use = p;
    }
    return use->width;
}

struct rightsize_bounds rightsize_measured(const struct lithos_rightsize *r,
                                           const struct rightsize_operator *op,
                                           const struct lithos_rightsize_kernel *k,
                                           const struct rightsize_point *all, float kernel_slip)
{
    struct rightsize_bounds b = {.all_ns = all->median_ns, .all = all->width};
    uint32_t bad = 0;

    if (k->least_tpcs > 1)
        bad = LITHOS_MIN(k->least_tpcs, b.all) - 1;
    if (rightsize_is_mixed(op))
        bad = b.all - 1;
    b.slip_ns = all->median_ns * (float)r->stats.slip_ppm / (float)LITHOS_RIGHTSIZE_PPM;
    b.limit_ns = all->median_ns * kernel_slip;
    const struct bracket room = bracket(op, all, bad, b.limit_ns);
    const struct bracket slip = b.limit_ns > b.slip_ns ? bracket(op, all, bad, b.slip_ns) : room;
    b.bad = room.bad;
    b.good = room.good;
    b.use = most_worth(op, slip.good, room.good, b.all);
    return b;
}

/* The fewest TPCs of which the grid makes no more waves than of so many. */
static uint32_t same_waves(const struct lithos_topology *t, const struct lithos_rightsize_kernel *k,
                           uint32_t tpcs)
{
    const uint64_t per_tpc = (uint64_t)t->sms_per_tpc * k->residency;

    if (!k->blocks || !per_tpc)
        return tpcs;
    const uint64_t waves = lithos_rightsize_waves(t, k, tpcs);
    return (uint32_t)((k->blocks + waves * per_tpc - 1) / (waves * per_tpc));
}

/* A width between the one in use and a narrower one that was not worth it, unless one was tried there. */
static uint32_t between(const struct lithos_rightsize *r, const struct rightsize_operator *op,
                        const struct lithos_rightsize_kernel *k, const struct rightsize_bounds *b)
{
    const uint32_t worth = rightsize_worth(b->all);
    const uint32_t width =
        LITHOS_MAX(same_waves(&r->config.topology, k, (b->good + b->use) / 2), b->good + worth);

    for (unsigned i = 0; i < RIGHTSIZE_WIDTHS; i++)
        if (op->point[i].width > b->good && op->point[i].width < b->use &&
            op->point[i].count >= RIGHTSIZE_ENOUGH)
            return 0;
    return width + worth <= b->use ? width : 0;
}

/* A few samples each of many widths say nothing: one of which there are some, that being tried first. 0: there is none. */
static uint32_t begun_width(const struct rightsize_operator *op, const struct rightsize_bounds *b)
{
    const struct rightsize_point *most = NULL;

    for (unsigned i = 0; i < RIGHTSIZE_WIDTHS; i++) {
        const struct rightsize_point *p = &op->point[i];
        if (!p->count || p->count >= RIGHTSIZE_ENOUGH || p->width <= b->bad || p->width >= b->use)
            continue;
        if (p->width == op->trying)
            return p->width;
        most = !most || p->count > most->count ? p : most;
    }
    return most ? most->width : 0;
}

/* The width to try next, between what is too narrow and what is enough; 0: none is worth it. */
uint32_t rightsize_next_try(const struct lithos_rightsize *r, const struct rightsize_operator *op,
                            const struct lithos_rightsize_kernel *k, const struct rightsize_bounds *b)
{
    const struct lithos_topology *t = &r->config.topology;
    const uint32_t bound = lithos_rightsize_bound(t, k, b->all);
    const uint32_t worth = rightsize_worth(b->all);
    double m_ns, base_ns;
    uint32_t width;

    const uint32_t begun = begun_width(op, b);
    if (begun)
        return begun;
    if (b->good < b->use && b->good <= bound)
        return between(r, op, k, b); /* narrower than is worth anything already */
    if (b->good - b->bad <= worth)
        return 0;
    if (bound + worth <= b->good && bound > b->bad)
        return bound; /* what it cannot use goes first: that costs nothing, if it is true */
    if (rightsize_fit(op, &m_ns, &base_ns)) {
        const double room_ns = (double)b->limit_ns - base_ns;
        width = room_ns > 0 && m_ns / room_ns < b->all ? (uint32_t)(m_ns / room_ns) + 1 : b->all;
    } else {
        width = (b->good + 1) / 2;
    }
    if (width <= b->bad || width + worth > b->good) /* the line has been wrong there, or says nothing new */
        width = b->bad + (b->good - b->bad + 1) / 2;
    const uint32_t edge = same_waves(t, k, width);
    if (edge > b->bad && edge < width)
        width = edge;
    return width + worth <= b->good && width > b->bad ? width : 0;
}

struct rightsize_bounds rightsize_look(const struct lithos_rightsize *r, struct rightsize_operator *op,
                                       const struct lithos_rightsize_kernel *k,
                                       const struct rightsize_point *all, struct rightsize_bounds *ret_next,
                                       uint32_t *ret_try)
{
    const float may = rightsize_may_take(r, op), may_next = rightsize_may_take_next(r, op);
    const struct rightsize_bounds b = rightsize_measured(r, op, k, all, may);

    *ret_next = may_next > may ? rightsize_measured(r, op, k, all, may_next) : b;
    *ret_try = r->config.probe ? rightsize_next_try(r, op, k, ret_next) : 0;
    rightsize_room_operator(r, op, k, all);
    op->best = (uint16_t)b.use;
    op->best_of = (uint16_t)b.all;
    return b;
}

/* The longest it may take on so many TPCs: in proportion, or by waves when they grow faster, or as the line has it. */
float rightsize_worst_ns(const struct lithos_rightsize *r, const struct rightsize_operator *op,
                         const struct lithos_rightsize_kernel *k, const struct rightsize_bounds *b,
                         uint32_t width)
{
    const struct lithos_topology *t = &r->config.topology;
    const float waves =
        (float)lithos_rightsize_waves(t, k, width) / (float)lithos_rightsize_waves(t, k, b->good);
    const struct rightsize_point *seen = rightsize_point(op, width);
    const float slower = LITHOS_MAX(waves, (float)b->good / (float)width);
    const struct rightsize_point *good = rightsize_point(op, b->good);

    if (width == lithos_rightsize_bound(t, k, b->all) && waves <= 1)
        return b->slip_ns;
    if (seen && seen->count)
        return LITHOS_MAX(seen->median_ns * 1.1f, b->all_ns);
    return LITHOS_MAX(good->median_ns * slower, b->all_ns);
}

/* Try it, or a width nearer to the one in use, if what that can cost has been earned. 0: not now. */
static uint32_t affordable(struct lithos_rightsize *r, struct rightsize_operator *op,
                           const struct lithos_rightsize_kernel *k, const struct rightsize_bounds *b,
                           uint32_t width)
{
    const uint32_t worth = rightsize_worth(b->all);
    const double has_ns = LITHOS_MIN(r->earned_ns, r->tries_ns);
    double costs_ns = (double)(rightsize_worst_ns(r, op, k, b, width) - b->all_ns);

    if (costs_ns > has_ns && width != op->trying) {
        const double good_ns = (double)rightsize_point(op, b->good)->median_ns;
        width = (uint32_t)(good_ns * b->good / ((double)b->all_ns + LITHOS_MAX(has_ns, 0.0))) + 2;
        if (width <= b->bad || width + worth > b->good)
            return 0;
        costs_ns = (double)(rightsize_worst_ns(r, op, k, b, width) - b->all_ns);
    }
    if (costs_ns > has_ns)
        return 0;
    r->earned_ns -= costs_ns;
    r->tries_ns -= costs_ns;
    op->trying = (uint16_t)width;
    return width;
}

static double tries_part(const struct lithos_rightsize *r)
{
    const uint64_t n = r->stats.requests;
    return n <= TRIES_ALL_FIRST || n % TRIES_ALL_EVERY == 0 ? 1 : TRIES_PART;
}

static enum lithos_rightsize_why decide(struct lithos_rightsize *r, struct rightsize_operator *op,
                                        const struct lithos_rightsize_kernel *k, uint32_t all,
                                        uint32_t *ret_width)
{
    const struct rightsize_point *p = rightsize_point(op, all);

    if (!p || p->count < RIGHTSIZE_ENOUGH)
        return LITHOS_RIGHTSIZE_LEARN;
    struct rightsize_bounds next;
    uint32_t try;
    const struct rightsize_bounds b = rightsize_look(r, op, k, p, &next, &try);
    const float earns_ns = b.limit_ns - b.all_ns;
    const struct rightsize_point *used = rightsize_point(op, b.use);
    const float costs_ns = LITHOS_MAX(used->median_ns - b.all_ns, 0.0f);

    r->earned_ns += (double)earns_ns;
    r->tries_ns += (double)(b.slip_ns - b.all_ns) * tries_part(r);
    if (!r->loop.open) {
        r->earned_ns = LITHOS_MIN(r->earned_ns, (double)r->config.earn_most_ns);
        r->tries_ns = r->earned_ns;
    }
    const uint32_t width = try ? affordable(r, op, k, &next, try) : 0;
    if (width) {
        *ret_width = width;
        return LITHOS_RIGHTSIZE_PROBE;
    }
    r->earned_ns -= (double)costs_ns;
    *ret_width = b.use;
    return b.use < all ? LITHOS_RIGHTSIZE_SIZED : rightsize_why_all(op);
}

/* While others may be on the strip, launches have all of the rest: less would free nothing more. False: that is not the case, or
 * this one needs them all, and the strip is taken back. */
static bool keep_off_strip(struct lithos_rightsize *r, const struct lithos_rightsize_kernel *kernel,
                           struct lithos_tpcset available, const struct rightsize_operator *op,
                           struct lithos_rightsize_choice *ret)
{
    const struct lithos_tpcset kept = lithos_rightsize_kept(r, available);
    const struct lithos_rightsize_ticket ticket = {(uint32_t)(op - r->op),
                                                   op->tag,
                                                   (uint16_t)lithos_tpcset_count(&available),
                                                   (uint16_t)lithos_tpcset_count(&kept),
                                                   false,
                                                   true};

    if (lithos_tpcset_empty(&kept))
        return false;
    if (!rightsize_strip_bears(r, kernel, kept)) {
        lithos_rightsize_met(r);
        return false;
    }
    r->stats.chosen[LITHOS_RIGHTSIZE_LENT]++;
    *ret = (struct lithos_rightsize_choice){LITHOS_RIGHTSIZE_LENT, kept, ticket};
    return true;
}

void lithos_rightsize_choose(struct lithos_rightsize *r, const struct lithos_rightsize_kernel *kernel,
                             struct lithos_tpcset available, struct lithos_tpcset foreign,
                             struct lithos_rightsize_choice *ret_choice)
{
    const struct lithos_topology *t = &r->config.topology;
    enum lithos_rightsize_why why = LITHOS_RIGHTSIZE_OFF;
    struct rightsize_operator *op = rightsize_find(r, kernel->key, true);

    available = lithos_tpcset_and(available, t->valid);
    const uint32_t all = lithos_tpcset_count(&available);
    const struct lithos_tpcset ours = lithos_tpcset_minus(available, foreign);
    struct lithos_tpcset from = available;
    uint32_t width = all;
    op->used = ++r->clock;
    rightsize_strip_note(r, kernel);
    if (keep_off_strip(r, kernel, available, op, ret_choice))
        return;
    if (r->loop.open && r->loop.mode == RIGHTSIZE_REFERENCE)
        why = LITHOS_RIGHTSIZE_REFERENCE;
    else if (r->loop.open && r->loop.mode == RIGHTSIZE_WHOLE)
        why = LITHOS_RIGHTSIZE_OFF;
    else if (all && !rightsize_stopped(r) && r->stats.slip_ppm > LITHOS_RIGHTSIZE_PPM)
        why = decide(r, op, kernel, all, &width);
    if (width < all) {
        from = ours;
        if (lithos_tpcset_count(&ours) < width ||
            !lithos_topology_has_room(t, ours, kernel->cluster_blocks)) {
            why = LITHOS_RIGHTSIZE_FOREIGN;
            from = available;
            width = all;
        }
    }
    r->stats.chosen[why]++;
    *ret_choice = (struct lithos_rightsize_choice){
        .why = why,
        .tpcs = lithos_rightsize_pick(t, from, width, kernel->cluster_blocks),
        .ticket = {(uint32_t)(op - r->op), op->tag, (uint16_t)all, (uint16_t)width,
                   why == LITHOS_RIGHTSIZE_REFERENCE, false}};
}

void lithos_rightsize_observe(struct lithos_rightsize *r, const struct lithos_rightsize_ticket *ticket,
                              uint64_t duration_ns, uint32_t tpcs)
{
    double whole_ns = (double)duration_ns;

    if (!tpcs || tpcs > LITHOS_TPC_BITS || ticket->op >= r->sets * RIGHTSIZE_WAYS)
        return;
    struct rightsize_operator *op = &r->op[ticket->op];
    if (op->tag == ticket->tag && op->used) {
        if (!ticket->beside)
            rightsize_add(r, op, duration_ns, tpcs);
        const struct rightsize_point *all = rightsize_point(op, ticket->all);
        if (tpcs < ticket->all && all)
            whole_ns = (double)all->median_ns;
    }
    r->stats.tpc_ns += (double)duration_ns * tpcs;
    r->stats.whole_tpc_ns += whole_ns * LITHOS_MAX(ticket->all, tpcs);
    r->stats.kernel_ns += (double)duration_ns;
    r->stats.whole_kernel_ns += whole_ns;
}

bool lithos_rightsize_line(const struct lithos_rightsize *r, uint64_t key, double *ret_m_ns, double *ret_b_ns)
{
    /* not made: nothing is changed */
    const struct rightsize_operator *op = rightsize_find((struct lithos_rightsize *)r, key, false);
    return op && rightsize_fit(op, ret_m_ns, ret_b_ns);
}

const struct lithos_rightsize_stats *lithos_rightsize_stats(const struct lithos_rightsize *r)
{
    return &r->stats;
}

const char *lithos_rightsize_why_name(enum lithos_rightsize_why why)
{
    static const char *const names[LITHOS_RIGHTSIZE_WHY_MAX] = {
        "off", "reference", "foreign", "learn", "all", "sized", "probe", "lent", "mixed"};
    return why < LITHOS_RIGHTSIZE_WHY_MAX ? names[why] : "unknown";
}
