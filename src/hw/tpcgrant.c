#include "hw/tpcgrant.h"

#include <errno.h>

#include "base/util.h"

#define FLAGS_ALL                                                                                           \
    (LITHOS_TPCGRANT_HOLD | LITHOS_TPCGRANT_RECALL | LITHOS_TPCGRANT_UNMASKED | LITHOS_TPCGRANT_NO_MEMORY | \
     LITHOS_TPCGRANT_NO_COMPUTE)
#define PPM 1000000u
#define TRIM_PART 4u

const char *lithos_tpcpick_name(enum lithos_tpcpick why)
{
    static const char *const names[LITHOS_PICK_MAX] = {
        [LITHOS_PICK_RUN] = "run",         [LITHOS_PICK_HELD] = "held",
        [LITHOS_PICK_PACED] = "paced",     [LITHOS_PICK_WINDOW] = "window",
        [LITHOS_PICK_NO_TPCS] = "no_tpcs", [LITHOS_PICK_OUTLIVES] = "outlives",
        [LITHOS_PICK_NO_ROOM] = "no_room", [LITHOS_PICK_NOT_RESIDENT] = "not_resident",
        [LITHOS_PICK_WIDER] = "wider",     [LITHOS_PICK_PROFILE] = "profile",
    };
    return (unsigned)why < LITHOS_PICK_MAX ? names[why] : "unknown";
}

static bool within(struct lithos_tpcset a, struct lithos_tpcset b)
{
    const struct lithos_tpcset rest = lithos_tpcset_minus(a, b);
    return lithos_tpcset_empty(&rest);
}

int lithos_tpcgrant_validate(const struct lithos_tpcgrant *g, const struct lithos_topology *t)
{
    struct lithos_tpcset seen = g->own;

    if (g->part_count > LITHOS_TPCGRANT_PARTS || (g->flags & ~FLAGS_ALL) || g->thin_ppm > PPM || g->reserved)
        return -EINVAL;
    if (!within(g->own, t->valid) || !within(g->wider, t->valid))
        return -EINVAL;
    for (uint32_t i = 0; i < g->part_count; i++) {
        const struct lithos_tpcset *p = &g->parts[i].tpcs, both = lithos_tpcset_and(*p, seen);
        if (lithos_tpcset_empty(p) || !lithos_tpcset_empty(&both) || !within(*p, t->valid))
            return -EINVAL;
        seen = lithos_tpcset_or(seen, *p);
    }
    return 0;
}

struct lithos_tpcset lithos_tpcgrant_lent(const struct lithos_tpcgrant *g)
{
    struct lithos_tpcset lent = {{0, 0}};
    for (uint32_t i = 0; i < LITHOS_MIN(g->part_count, LITHOS_TPCGRANT_PARTS); i++)
        lent = lithos_tpcset_or(lent, g->parts[i].tpcs);
    return lent;
}

/* --- how long --- */

static uint64_t scaled(uint64_t ns, uint64_t by, uint64_t of)
{
    uint64_t small;

    if (!__builtin_mul_overflow(ns, by, &small)) /* nearly always, and some ten times faster */
        return LITHOS_MIN(small / of, UINT64_MAX / 4);
    const unsigned __int128 product = (unsigned __int128)ns * by / of;
    return product > UINT64_MAX / 4 ? UINT64_MAX / 4 : (uint64_t)product;
}

static uint64_t sum(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static struct lithos_tpcwork sane(const struct lithos_tpcwork *work)
{
    struct lithos_tpcwork w = *work;
    w.blocks = LITHOS_MAX(w.blocks, 1);
    w.residency = LITHOS_MIN(LITHOS_MAX(w.residency, 1), 1024);
    w.cluster_blocks = LITHOS_MIN(LITHOS_MAX(w.cluster_blocks, 1), LITHOS_CLUSTER_MAX);
    if (!w.saturation || w.saturation > w.residency)
        w.saturation = (w.residency + 1) / 2;
    return w;
}

static uint64_t ceil_div(uint64_t a, uint64_t b)
{
    return a / b + (a % b != 0);
}

/* Of a block in an SM that holds so many. */
static uint64_t lifetime_ns(const struct lithos_tpcwork *w, uint64_t held)
{
    return scaled(w->lifetime_ns, LITHOS_MAX(held, w->saturation), w->residency);
}

/* So many blocks at once, `held` of them an SM: a block's time, or the time that memory takes for as many. */
static uint64_t at_once_ns(const struct lithos_tpcwork *w, uint64_t blocks, uint64_t held)
{
    const uint64_t life_ns = lifetime_ns(w, held);
    return w->least_ns ? LITHOS_MAX(life_ns, scaled(w->least_ns, blocks, w->blocks)) : life_ns;
}

static uint64_t duration_ns(const struct lithos_topology *t, const struct lithos_tpcwork *w, uint64_t blocks,
                            uint32_t tpcs, uint32_t residency)
{
    const uint64_t sms = (uint64_t)LITHOS_MAX(tpcs, 1u) * t->sms_per_tpc;
    const uint64_t each = residency ? LITHOS_MIN(residency, w->residency) : w->residency, wave = sms * each;
    const uint64_t rest = blocks % wave;

    return sum(scaled(at_once_ns(w, wave, each), blocks / wave, 1),
               rest ? at_once_ns(w, rest, ceil_div(rest, sms)) : 0);
}

uint64_t lithos_tpcwork_duration_ns(const struct lithos_topology *t, const struct lithos_tpcwork *work,
                                    uint64_t blocks, uint32_t tpcs, uint32_t residency)
{
    const struct lithos_tpcwork w = sane(work);
    return duration_ns(t, &w, blocks, tpcs, residency);
}

/* --- where --- */

/* How long a launch may take that uses the first `parts` parts: what the strictest of them bears. */
static uint64_t bearable_ns(const struct lithos_tpcgrant *g, uint32_t parts,
                            const struct lithos_tpcmoment *at)
{
    const uint64_t start_ns = sum(at->now_ns, at->ahead_ns);
    uint64_t least = UINT64_MAX;

    for (uint32_t i = 0; i < parts; i++) {
        const struct lithos_tpcgrant_part *p = &g->parts[i];
        const uint64_t until = p->until_ns > start_ns ? p->until_ns - start_ns : 0;
        least = LITHOS_MIN(least, LITHOS_MAX(p->longest_ns, until));
    }
    return least;
}

static struct lithos_tpcset first_parts(const struct lithos_tpcgrant *g, uint32_t parts)
{
    struct lithos_tpcset s = g->own;
    for (uint32_t i = 0; i < parts; i++)
        s = lithos_tpcset_or(s, g->parts[i].tpcs);
    return s;
}

/* Its first wave, of `each` blocks an SM. */
static uint64_t wave_ns(const struct lithos_tpcwork *w, uint64_t sms, uint32_t each)
{
    return at_once_ns(w, LITHOS_MIN(sms * each, w->blocks), each);
}

/* Blocks of a kernel of many waves do not end together: the last ones outlast their wave by up to half their time. */
static uint64_t outlast_ns(const struct lithos_tpcwork *w, uint64_t sms, uint32_t each)
{
    return w->blocks > sms * each ? wave_ns(w, sms, each) / 2 : 0;
}

/* An atom, or all that is left, that is over within bearable where lent is true. False: not even one wave of as few
 * blocks an SM as the grant allows. */
static bool cut(const struct lithos_tpcgrant *g, const struct lithos_topology *t,
                const struct lithos_tpcwork *w, uint64_t bearable, bool lent, struct lithos_tpcchoice *c)
{
    const uint32_t tpcs = lithos_tpcset_count(&c->tpcs);
    const uint64_t sms = (uint64_t)tpcs * t->sms_per_tpc;
    const bool cuttable = (w->flags & LITHOS_TPCWORK_CUTTABLE) && g->atom_ns;
    uint32_t each = w->residency;

    c->blocks = w->blocks;
    c->residency = 0;
    c->duration_ns = duration_ns(t, w, w->blocks, tpcs, 0);
    const bool fits = !lent || sum(c->duration_ns, outlast_ns(w, sms, each)) <= bearable;
    if (!cuttable || (fits && c->duration_ns <= g->atom_ns))
        return fits;
    const uint32_t least = (uint32_t)LITHOS_MAX((uint64_t)w->residency * g->thin_ppm / PPM, 1);
    while (lent && each > least && sum(wave_ns(w, sms, each), outlast_ns(w, sms, each)) > bearable)
        each--;
    const uint64_t life = LITHOS_MAX(wave_ns(w, sms, each), 1), outlast = outlast_ns(w, sms, each);
    if (lent && sum(life, outlast) > bearable)
        return false;
    c->residency = each < w->residency ? each : 0;
    const uint64_t wave = sms * each,
                   atom_ns = lent ? LITHOS_MIN(g->atom_ns, bearable - outlast) : g->atom_ns;
    const uint64_t most = scaled(wave, LITHOS_MAX(atom_ns / life, 1), 1);
    /* what would be left over for a last atom of less than half a wave goes with this one */
    if (most < w->blocks && (w->blocks - most > wave / 2 || lent))
        c->blocks = most - (most >= w->cluster_blocks ? most % w->cluster_blocks : 0);
    c->duration_ns = duration_ns(t, w, c->blocks, tpcs, c->residency);
    return true;
}

/* A launch of few waves may need fewer TPCs for the same time: give back lent ones of the strictest part first. */
static void trim(const struct lithos_tpcgrant *g, const struct lithos_topology *t,
                 const struct lithos_tpcwork *w, uint32_t parts, struct lithos_tpcchoice *c)
{
    const uint32_t each = c->residency ? c->residency : w->residency;
    const uint32_t tpcs = lithos_tpcset_count(&c->tpcs);
    const uint64_t a_tpc = (uint64_t)t->sms_per_tpc * each, waves = ceil_div(c->blocks, tpcs * a_tpc);
    /* one wave is spread out as far as it goes: its blocks share SMs else */
    const uint64_t need =
        waves == 1 ? ceil_div(c->blocks, t->sms_per_tpc) : ceil_div(ceil_div(c->blocks, waves), a_tpc);
    uint64_t extra = need < tpcs ? tpcs - need : 0;

    if (extra < tpcs / TRIM_PART) /* not worth a mask of its own */
        return;

    for (uint32_t i = parts; i-- > 0 && extra;) {
        for (unsigned b = LITHOS_TPC_BITS; b-- > 0 && extra;) {
            if (!lithos_tpcset_has(&g->parts[i].tpcs, b))
                continue;
            lithos_tpcset_remove(&c->tpcs, b);
            if (!lithos_topology_has_room(t, c->tpcs, w->cluster_blocks))
                lithos_tpcset_add(&c->tpcs, b);
            else
                extra--;
        }
    }
    c->lent = !within(c->tpcs, g->own);
}

static enum lithos_tpcpick choose(const struct lithos_tpcgrant *g, const struct lithos_topology *t,
                                  const struct lithos_tpcwork *w, const struct lithos_tpcmoment *at,
                                  struct lithos_tpcchoice *c)
{
    enum lithos_tpcpick why = LITHOS_PICK_NO_TPCS;
    const uint64_t all_at_once = w->flags & LITHOS_TPCWORK_RESIDENT ? w->blocks : 0;

    for (uint32_t parts = LITHOS_MIN(g->part_count, LITHOS_TPCGRANT_PARTS) + 1; parts-- > 0;) {
        c->tpcs = lithos_tpcset_and(first_parts(g, parts), t->valid);
        c->lent = parts > 0;
        if (lithos_tpcset_empty(&c->tpcs))
            return why;
        if (!lithos_topology_has_room(t, c->tpcs, w->cluster_blocks)) {
            why = LITHOS_PICK_NO_ROOM;
            continue;
        }
        if ((uint64_t)lithos_tpcset_count(&c->tpcs) * t->sms_per_tpc * w->residency < all_at_once) {
            why = LITHOS_PICK_NOT_RESIDENT;
            continue;
        }
        /* special kernels run on the tenant's own TPCs wherever these hold them (paper 6) */
        if (all_at_once && c->lent && !lithos_tpcset_empty(&g->own) &&
            (uint64_t)lithos_tpcset_count(&g->own) * t->sms_per_tpc * w->residency >= all_at_once &&
            lithos_topology_has_room(t, g->own, w->cluster_blocks))
            continue;
        if (cut(g, t, w, bearable_ns(g, parts, at), c->lent, c)) {
            if (c->lent && !all_at_once)
                trim(g, t, w, parts, c);
            return LITHOS_PICK_RUN;
        }
        why = LITHOS_PICK_OUTLIVES;
    }
    return why;
}

/* Run on what there is, or wait for more? By what is expected, which is renewed while it waits; since that may be wrong each time, for
 * no longer than HOLD times what running now would take. */
#define HOLD 2u

static uint64_t hold_ns(const struct lithos_tpcchoice *c)
{
    return scaled(c->duration_ns, HOLD, 1);
}

static bool better_wider(const struct lithos_tpcgrant *g, const struct lithos_topology *t,
                         const struct lithos_tpcwork *w, const struct lithos_tpcmoment *at,
                         const struct lithos_tpcchoice *c)
{
    const struct lithos_tpcset all = lithos_tpcset_or(c->tpcs, lithos_tpcset_and(g->wider, t->valid));
    const uint64_t start_ns = sum(at->now_ns, at->ahead_ns);

    if (lithos_tpcset_equal(&all, &c->tpcs) || c->blocks < w->blocks || at->held_ns >= hold_ns(c))
        return false;
    const uint64_t wide_ns = duration_ns(t, w, w->blocks, lithos_tpcset_count(&all), 0);
    return wide_ns <= g->wider_longest_ns &&
           sum(LITHOS_MAX(g->wider_ns, start_ns), wide_ns) < sum(start_ns, c->duration_ns);
}

void lithos_tpcgrant_pick(const struct lithos_tpcgrant *g, const struct lithos_topology *t,
                          const struct lithos_tpcwork *work, const struct lithos_tpcmoment *at,
                          struct lithos_tpcchoice *ret_choice)
{
    const struct lithos_tpcwork w = sane(work);
    struct lithos_tpcchoice c = {.retry_ns = LITHOS_TPCGRANT_FOREVER, .blocks = w.blocks};

    if (g->flags & LITHOS_TPCGRANT_HOLD) {
        c.why = LITHOS_PICK_HELD;
    } else if (g->pace_ns > at->since_last_ns) {
        c.why = LITHOS_PICK_PACED;
        c.retry_ns = sum(at->now_ns, g->pace_ns - at->since_last_ns);
    } else if (g->flags &
               (w.flags & LITHOS_TPCWORK_MEMORY ? LITHOS_TPCGRANT_NO_MEMORY : LITHOS_TPCGRANT_NO_COMPUTE)) {
        c.why = LITHOS_PICK_PROFILE;
    } else {
        c.why = choose(g, t, &w, at, &c);
    }
    if (c.why == LITHOS_PICK_RUN) {
        const uint64_t window = c.lent ? LITHOS_MIN(g->lent_window_ns, g->window_ns) : g->window_ns;
        c.priority = c.lent ? g->lent_priority : g->priority;
        if (at->ahead_ns > window) {
            c.why = LITHOS_PICK_WINDOW;
            c.retry_ns = sum(at->now_ns, at->ahead_ns - window);
        } else if (better_wider(g, t, &w, at, &c)) {
            c.why = LITHOS_PICK_WIDER;
            c.retry_ns = sum(at->now_ns, hold_ns(&c) - at->held_ns);
        }
    }
    *ret_choice = c;
}
