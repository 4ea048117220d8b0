/* What is left for others: a strip of TPCs that all launches keep off, as wide as the tenant's own latency bears. */
#include <string.h>

#include "base/quantile.h"
#include "core/rightsize_internal.h"

#define STRIP_PARTS 16u
#define STRIP_FIRST 4u
#define STRIP_WIDE 8u
#define STRIP_MOST 12u
/* Until then operators are learnt without anybody beside. */
#define LEARN_REQUESTS 64u
#define REFERENCES_LEAST 8u
/* Of what a request may take longer: the rest is for what was measured too well. */
#define PART 0.9f
/* A level is too much at once where so few requests are all over that, and else by evidence, of which less does than for right-sizing itself:
 * what is left is found again within seconds. Far over it, little of the strip is tried next. */
#define LOOK_FIRST 4u
#define ALARM 50.0f
/* Requests at a level before a wider one, and references. */
#define LOOK_EVERY 16u
#define PARTS_LEAST 5u
/* One in a hundred may be over what one reference in a hundred is, and three standard errors of so many more; begun anew after so many. */
#define LOOK_TAIL 4096u
#define TAIL_KNOWN 64u
#define LOOK_TAIL_LEAST 8u
#define TAIL_PART 0.01f
#define TAIL_ERRORS 3.0f
#define FAR 2.0f
/* References beside a level that does not grow any more, until it is known whether it is worth what it costs; three in four of them say so. */
#define WEIGH_PARTS 16u
/* How much of it others use goes by so long. */
#define USE_NS ((float)LITHOS_NSEC_PER_SEC)
/* A level that was too much is tried again after so many requests; one that was borne for so many is taken for safe. */
#define BAD_REQUESTS 4096u
#define GOOD_REQUESTS 256u
#define USE_LEAST 0.25f
#define USE_SMOOTH 8.0f
/* Nobody took it: for so long, and twice that each time, until it was taken for so many requests. Who borrows may be between two of its
 * kernels. */
#define UNUSED_NS (2 * LITHOS_NSEC_PER_SEC)
#define USED_REQUESTS 64u
/* What a launch that goes there all the same may wait: such requests are seldom enough not to be felt in the 99th percentile. */
#define MET_PART 0.5f
#define MET_MOST_NS (5 * LITHOS_NSEC_PER_MSEC)
/* The same where nobody took it for less, and no launch has gone there: one that does is one of thousands. */
#define PATIENT_PART 4.0f
#define PATIENT_MOST_NS (20 * LITHOS_NSEC_PER_MSEC)
#define IMPATIENT_REQUESTS 4096u
#define STOP_NS (8 * LITHOS_NSEC_PER_SEC)
#define STOP_MOST_NS (64 * LITHOS_NSEC_PER_SEC)
#define MET_MOST 256u

void lithos_rightsize_lend(struct lithos_rightsize *r, bool wanted)
{
    r->strip.wanted = wanted;
}

void rightsize_strip_anew(struct lithos_rightsize *r)
{
    r->strip = (struct rightsize_strip){.wanted = r->strip.wanted, .cluster_blocks = r->strip.cluster_blocks};
}

static bool is_lending(const struct lithos_rightsize *r)
{
    return r->loop.open && r->loop.mode == RIGHTSIZE_LENT;
}

static uint64_t bears_ns(const struct lithos_rightsize *r)
{
    const float usual_ns = r->strip.usual_us * 1000;

    return r->strip.patient ? LITHOS_MIN((uint64_t)(usual_ns * PATIENT_PART), PATIENT_MOST_NS)
                            : LITHOS_MIN((uint64_t)(usual_ns * MET_PART), MET_MOST_NS);
}

struct lithos_tpcset lithos_rightsize_kept(struct lithos_rightsize *r, struct lithos_tpcset available)
{
    struct rightsize_strip *p = &r->strip;
    const struct lithos_tpcset none = {{0, 0}};

    if (!r->loop.open || (r->loop.mode != RIGHTSIZE_LENT && r->loop.mode != RIGHTSIZE_DRAIN))
        return none;
    available = lithos_tpcset_and(available, r->config.topology.valid);
    const uint32_t level = p->level | (uint32_t)p->cluster_blocks << 16;
    if (p->kept_level != level || !lithos_tpcset_equal(&p->of, &available)) {
        const uint32_t all = lithos_tpcset_count(&available);
        p->of = available;
        p->kept_level = level;
        p->kept = lithos_rightsize_pick(&r->config.topology, available, all - all * p->level / STRIP_PARTS,
                                        p->cluster_blocks);
    }
    return p->kept;
}

struct lithos_tpcset lithos_rightsize_strip(struct lithos_rightsize *r, struct lithos_tpcset available,
                                            uint64_t *ret_bears_ns)
{
    *ret_bears_ns = 0;
    if (!is_lending(r))
        return (struct lithos_tpcset){{0, 0}};
    *ret_bears_ns = bears_ns(r);
    return lithos_tpcset_minus(lithos_tpcset_and(available, r->config.topology.valid),
                               lithos_rightsize_kept(r, available));
}

void rightsize_strip_note(struct lithos_rightsize *r, const struct lithos_rightsize_kernel *k)
{
    if (k->cluster_blocks > r->strip.cluster_blocks && k->cluster_blocks <= LITHOS_CLUSTER_MAX)
        r->strip.cluster_blocks = (uint16_t)k->cluster_blocks;
}

bool rightsize_strip_bears(struct lithos_rightsize *r, const struct lithos_rightsize_kernel *k,
                           struct lithos_tpcset kept)
{
    return k->least_tpcs <= lithos_tpcset_count(&kept) &&
           lithos_topology_has_room(&r->config.topology, kept, k->cluster_blocks);
}

/* What a reference would take now: what requests take, by what part of that references at this level took. */
static float reference_us_now(const struct rightsize_kind *k)
{
    if (!k->parts)
        return k->before_us; /* of just before: this level did not last */
    return k->usual_part * rightsize_recent_us(&k->recent);
}

static void add_part(struct rightsize_kind *k, float part)
{
    float parts[RIGHTSIZE_PARTS];

    k->part[k->parts++ % RIGHTSIZE_PARTS] = part;
    const uint32_t n = LITHOS_MIN(k->parts, RIGHTSIZE_PARTS);
    memcpy(parts, k->part, n * sizeof *parts);
    k->usual_part = lithos_nth_float(parts, n, n / 2);
}

static void change_level(struct lithos_rightsize *r, uint32_t level)
{
    for (unsigned i = 0; i < RIGHTSIZE_KINDS; i++) {
        struct rightsize_kind *k = &r->kinds.kind[i];
        k->before_us = reference_us_now(k);
        k->borne = k->looked = k->over = k->parts = 0;
    }
    r->strip.level = level;
    r->strip.good = 0;
    r->strip.lent_ns = r->strip.used_ns = 0;
}

/* Is a wider one to be tried, once it is known what references take beside this one? */
bool rightsize_strip_is_climbing(const struct lithos_rightsize *r)
{
    const struct rightsize_strip *p = &r->strip;
    return p->level && p->level < STRIP_MOST && p->level + 1 != p->bad && r->kinds.leading &&
           r->kinds.leading->parts < PARTS_LEAST;
}

static bool is_at_rest(const struct rightsize_strip *p)
{
    return p->level && (p->level == STRIP_MOST || p->level + 1 == p->bad);
}

static const struct rightsize_kind *heaviest(struct lithos_rightsize *r)
{
    const struct rightsize_kind *most = NULL;

    for (struct rightsize_kind *k = rightsize_next_guarded(r, NULL); k; k = rightsize_next_guarded(r, k))
        if (!most || k->us > most->us)
            most = k;
    return most;
}

/* Is it to be seen soon whether it is worth what it costs? */
bool rightsize_strip_is_weighed(struct lithos_rightsize *r)
{
    const struct rightsize_kind *k = heaviest(r);
    return k && is_at_rest(&r->strip) && k->parts < WEIGH_PARTS;
}

float lithos_rightsize_used_part(const struct lithos_rightsize *r)
{
    return r->strip.lent_ns > 0 ? LITHOS_MIN(r->strip.used_ns / r->strip.lent_ns, 1.0f) : 0;
}

/* Does it cost more of the tenant's throughput than others use of its TPCs? Then both together lose by it, though the slip would allow it:
 * who borrows does no more with them than their owner did. */
static bool is_too_dear(struct lithos_rightsize *r)
{
    const struct rightsize_strip *p = &r->strip;
    const struct rightsize_kind *k = heaviest(r);
    uint32_t dear = 0;

    if (!k || !is_at_rest(p) || !k->parts || k->parts % WEIGH_PARTS || !(p->lent_ns > 0))
        return false;
    const uint32_t n = LITHOS_MIN(k->parts, RIGHTSIZE_PARTS);
    const float worth = (float)p->level / STRIP_PARTS * lithos_rightsize_used_part(r);
    for (uint32_t i = 0; i < n; i++)
        dear += 1 - k->part[i] > worth;
    return 4 * dear >= 3 * n;
}

static void too_much(struct lithos_rightsize *r, uint32_t level)
{
    r->strip.bad = r->strip.level;
    r->strip.bad_for = BAD_REQUESTS;
    for (unsigned i = 0; i < RIGHTSIZE_KINDS; i++)
        rightsize_bet_anew(&r->kinds.kind[i].lent);
    change_level(r, level);
}

bool rightsize_strip_suspects(struct lithos_rightsize *r)
{
    const uint32_t kinds = rightsize_guarded(r);

    for (struct rightsize_kind *k = rightsize_next_guarded(r, NULL); k; k = rightsize_next_guarded(r, k))
        if (rightsize_suspects(&k->lent, kinds))
            return true;
    return false;
}

void lithos_rightsize_met(struct lithos_rightsize *r)
{
    struct rightsize_strip *p = &r->strip;

    if (!is_lending(r))
        return;
    r->stats.met++;
    r->loop.mode = RIGHTSIZE_DRAIN;
    p->impatient_for = p->patient ? IMPATIENT_REQUESTS : p->impatient_for;
    p->patient = false;
    p->met_for = LITHOS_MIN(LITHOS_MAX(2 * p->met_for, 1u), MET_MOST);
    p->met_pause = p->met_for;
    p->halve = p->level > 1;
}

void lithos_rightsize_used(struct lithos_rightsize *r)
{
    r->strip.used = true;
}

void lithos_rightsize_took(struct lithos_rightsize *r, struct lithos_tpcset tpcs, uint64_t took_ns)
{
    struct rightsize_strip *p = &r->strip;
    const struct lithos_tpcset strip = lithos_tpcset_minus(p->of, p->kept);
    const struct lithos_tpcset there = lithos_tpcset_and(strip, tpcs);

    if (p->level && !lithos_tpcset_empty(&there))
        p->used_ns +=
            (float)took_ns * (float)lithos_tpcset_count(&there) / (float)lithos_tpcset_count(&strip);
}

void lithos_rightsize_beside(struct lithos_rightsize *r, uint64_t now_ns, uint64_t until_ns)
{
    if (until_ns)
        r->strip.beside_until_ns = until_ns;
    r->strip.used = r->strip.used || until_ns > now_ns;
}

/* Has others' work there ended? By what is predicted, and some; at the latest after what they could go there with. */
static bool is_drained(const struct lithos_rightsize *r, uint64_t now_ns)
{
    const struct rightsize_strip *p = &r->strip;
    const uint64_t end_ns = LITHOS_MIN(LITHOS_MAX(p->ended_ns, p->beside_until_ns) + r->config.drain_ns,
                                       p->ended_ns + LITHOS_MAX(p->bore_ns, r->config.drain_ns));

    return !p->ended_ns || now_ns >= end_ns;
}

/* Somebody would borrow, and what can be left was too much, or of no use to him: narrower kernels would free nothing that can be lent, and
 * cost the tenant all the same. */
static bool is_for_nothing(const struct lithos_rightsize *r, uint64_t now_ns)
{
    return r->strip.wanted && now_ns < r->strip.begin_ns;
}

static bool may_lend(struct lithos_rightsize *r, uint64_t now_ns)
{
    struct rightsize_strip *p = &r->strip;

    if (p->met_pause && p->met_pause--)
        return false;
    return p->wanted && now_ns >= p->begin_ns && !r->loop.watch && !rightsize_loop_suspects(r) &&
           r->stats.requests >= LEARN_REQUESTS && r->loop.references >= REFERENCES_LEAST &&
           r->stats.slip_ppm > LITHOS_RIGHTSIZE_PPM;
}

enum rightsize_mode rightsize_strip_mode(struct lithos_rightsize *r, uint64_t now_ns)
{
    struct rightsize_strip *p = &r->strip;
    const struct rightsize_block *b = &r->loop.block;

    if (p->halve) /* what was in its way may find room then */
        too_much(r, p->level / 2);
    p->halve = false;
    const bool lends = may_lend(r, now_ns);

    if (!is_drained(r, now_ns) && (b->place == b->reference || (lends && b->place == b->near)))
        return RIGHTSIZE_DRAIN; /* what is due now is due next */
    if (b->place == b->reference)
        return RIGHTSIZE_REFERENCE;
    if (!lends && b->place != b->near && is_for_nothing(r, now_ns))
        return RIGHTSIZE_WHOLE;
    if (!lends || b->place == b->near)
        return RIGHTSIZE_SIZED;
    if (!p->level) {
        change_level(r, p->wide ? STRIP_WIDE : STRIP_FIRST);
        p->use = 1;
    }
    p->used = p->beside_until_ns > now_ns;
    p->bore_ns = bears_ns(r);
    return RIGHTSIZE_LENT;
}

static void stop(struct lithos_rightsize *r, uint64_t now_ns)
{
    struct rightsize_strip *p = &r->strip;

    change_level(r, 0);
    p->bad = 0;
    p->stop_for_ns = LITHOS_MIN(LITHOS_MAX(2 * p->stop_for_ns, STOP_NS), STOP_MOST_NS);
    p->begin_ns = now_ns + p->stop_for_ns;
}

/* To less than it is, or to nothing for a while. */
static void go_back(struct lithos_rightsize *r, uint64_t now_ns, uint32_t level)
{
    too_much(r, level);
    r->strip.wide = false;
    if (!level)
        stop(r, now_ns);
}

static void narrow(struct lithos_rightsize *r, uint64_t now_ns, bool far)
{
    const uint32_t level = r->strip.level;

    r->stats.narrowed++;
    /* Kernels go by waves: if not at half of it, then it was the first TPC that cost them one more. */
    go_back(r, now_ns, far && level > 1 ? 1 : level / 2);
}

/* What half of it costs may be next to nothing; it does not grow from there. */
static void halve_dear(struct lithos_rightsize *r, uint64_t now_ns)
{
    struct rightsize_strip *p = &r->strip;

    r->stats.dear++;
    go_back(r, now_ns, p->level / 2);
    if (p->level)
        p->bad = p->level + 1;
}

/* What others have to run takes longer there than a launch may wait, perhaps. As long as none has to, it may as well take longer. */
static bool is_to_be_patient(struct rightsize_strip *p)
{
    if (p->patient || p->impatient_for)
        return false;
    p->patient = true;
    p->use = 1;
    return true;
}

/* Where others' kernels find no place on little, more of it is of more use, if it is borne. */
static void pause_unused(struct lithos_rightsize *r, uint64_t now_ns)
{
    struct rightsize_strip *p = &r->strip;

    if (p->level < STRIP_WIDE && !p->bad) {
        p->wide = true;
        change_level(r, 0);
    }
    p->use = 1;
    p->taken = 0;
    p->unused_for_ns = LITHOS_MIN(LITHOS_MAX(2 * p->unused_for_ns, UNUSED_NS), STOP_MOST_NS);
    p->begin_ns = now_ns + p->unused_for_ns;
}

/* What nobody takes costs the tenant as much. */
static bool is_of_use(struct rightsize_strip *p)
{
    p->use += ((p->used ? 1.0f : 0.0f) - p->use) / USE_SMOOTH;
    return p->use >= USE_LEAST;
}

static float may(const struct lithos_rightsize *r)
{
    return 1 + PART * (float)(r->stats.slip_ppm - LITHOS_RIGHTSIZE_PPM) / (float)LITHOS_RIGHTSIZE_PPM;
}

void rightsize_strip_reference(struct lithos_rightsize *r, struct rightsize_kind *k, float us)
{
    const float usual_us = rightsize_recent_us(&k->recent);

    rightsize_keep(&k->whole, us);
    if (usual_us > 0)
        add_part(k, us / usual_us);
    if (reference_us_now(k) > 0)
        rightsize_keep(&k->spread, us / reference_us_now(k));
    if (k->spread.count >= TAIL_KNOWN)
        k->tail = rightsize_latency(&k->spread, 99);
    rightsize_recent_add(&k->recent, us);
    k->lent.sample.reference_us = us;
    if (k == r->kinds.leading)
        r->strip.usual_us = rightsize_latency(&k->whole, 50);
}

void rightsize_strip_end_block(struct lithos_rightsize *r, uint64_t now_ns)
{
    bool alarm = false;

    for (unsigned i = 0; i < RIGHTSIZE_KINDS; i++) {
        struct rightsize_kind *k = &r->kinds.kind[i];
        if (!rightsize_is_due(r, k, &k->lent.sample))
            continue;
        rightsize_bet(&k->lent, may(r));
        alarm |= rightsize_is_guarded(r, k) &&
                 rightsize_evidence_of(&k->lent) >= ALARM * (float)rightsize_guarded(r);
    }
    if (r->strip.level && alarm)
        narrow(r, now_ns, false);
    else if (is_too_dear(r))
        halve_dear(r, now_ns);
}

/* The first ones at this level, by what references took just before it. */
static float least_of_first(struct rightsize_kind *k, float us)
{
    k->least_us = ++k->borne == 1 ? us : LITHOS_MIN(k->least_us, us);
    return k->borne == LOOK_FIRST && k->before_us > 0 ? k->least_us / k->before_us : 0;
}

/* Slow requests that are too seldom for bets to find them soon. */
static bool has_long_tail(struct rightsize_kind *k, float us, float times)
{
    const float limit_us = times * k->tail * reference_us_now(k);

    if (!(limit_us > 0))
        return false;
    k->looked++;
    k->over += us > limit_us;
    const float expected = TAIL_PART * (float)k->looked, more = (float)k->over - expected;
    if (k->over >= LOOK_TAIL_LEAST && more > 0 && more * more > TAIL_ERRORS * TAIL_ERRORS * expected)
        return true;
    if (k->looked >= LOOK_TAIL)
        k->looked = k->over = 0;
    return false;
}

static void borne(struct lithos_rightsize *r)
{
    struct rightsize_strip *p = &r->strip;

    if (++p->taken >= USED_REQUESTS)
        p->unused_for_ns = 0;
    if (++p->good >= GOOD_REQUESTS)
        p->stop_for_ns = p->met_for = 0;
    if (p->good >= LOOK_EVERY && p->level < STRIP_MOST && p->level + 1 != p->bad &&
        !rightsize_strip_is_climbing(r) && !rightsize_strip_suspects(r))
        change_level(r, p->level + 1);
}

void rightsize_strip_done(struct lithos_rightsize *r, struct rightsize_kind *k, uint64_t now_ns, float us)
{
    struct rightsize_strip *p = &r->strip;
    const bool leads = k == r->kinds.leading;

    r->stats.lent++;
    r->stats.unused += !p->used;
    if (p->lent_ns >= USE_NS) {
        p->lent_ns /= 2;
        p->used_ns /= 2;
    }
    p->lent_ns += us * 1000;
    p->bad_for -= p->bad_for > 0;
    if (!p->bad_for)
        p->bad = 0;
    p->impatient_for -= p->impatient_for > 0;
    if (leads && !is_of_use(p) && !is_to_be_patient(p)) {
        pause_unused(r, now_ns);
        return;
    }
    if (!p->used)
        return;
    rightsize_sample_add(&k->lent.sample, us);
    const float least = least_of_first(k, us);
    const bool slow = least > may(r) || has_long_tail(k, us, may(r));
    rightsize_recent_add(&k->recent, us);
    if (slow && rightsize_is_guarded(r, k))
        narrow(r, now_ns, least > 1 + FAR * (may(r) - 1));
    else if (leads)
        borne(r);
}
