/* The tenant's own latency has the last word: requests that run right-sized against those that do not. */
#include <string.h>

#include "core/rightsize_internal.h"

/* One round in so many is a reference: more of them while there are few, for each saves nothing, and while it is not clear whether the
 * others are too slow. Of seldom slow ones each reference tells as much, however many there are to compare it with. */
#define REFERENCE_EVERY RIGHTSIZE_BLOCK_MOST
#define REFERENCE_EVERY_SOON 8u
#define REFERENCE_EVERY_FIRST 4u
#define REFERENCE_EVERY_TAIL 2u
#define REFERENCES_SOON 64u
#define REFERENCES_FIRST 16u
/* Blocks that are short after the slip in force was lowered: it may not have been enough. */
#define WATCH 8u
/* Right-sized requests without a finding after which a lowered slip is raised by half. */
#define RAISE_AFTER 128u
/* Of a kind that does not lead, as many are waited for over several blocks. */
#define SAMPLE_LEAST 4u
/* Requests of other kinds that are guarded, without one of the kind that leads: it is not the most frequent any more. */
#define ROUND_MOST 16u
/* Right-sized requests on end that say nothing: what others are lent in between has all its launches on all TPCs, now and then. There may be
 * no other request than such, and without the next round there is no reference, and nothing is left to anybody. */
#define SPOILT_MOST 3u
#define STOP_NS (2 * LITHOS_NSEC_PER_SEC)
#define STOP_MOST_NS (64 * LITHOS_NSEC_PER_SEC)

bool rightsize_stopped(const struct lithos_rightsize *r)
{
    return r->loop.begun_stopped;
}

static bool any(struct lithos_rightsize *r, bool (*says)(const struct rightsize_evidence *, uint32_t))
{
    const uint32_t kinds = rightsize_guarded(r);

    for (struct rightsize_kind *k = rightsize_next_guarded(r, NULL); k; k = rightsize_next_guarded(r, k))
        if (says(&k->sized, kinds))
            return true;
    return false;
}

bool rightsize_loop_suspects(struct lithos_rightsize *r)
{
    return any(r, rightsize_suspects);
}

static uint32_t reference_every(struct lithos_rightsize *r)
{
    const uint32_t references = r->loop.references;

    if (any(r, rightsize_is_betting_on_tails))
        return REFERENCE_EVERY_TAIL;
    if (references < REFERENCES_FIRST || r->loop.watch || rightsize_loop_suspects(r))
        return REFERENCE_EVERY_FIRST;
    return references < REFERENCES_SOON || rightsize_strip_suspects(r) || rightsize_strip_is_climbing(r) ||
                   rightsize_strip_is_weighed(r)
               ? REFERENCE_EVERY_SOON
               : REFERENCE_EVERY;
}

static void lower(struct lithos_rightsize *r, uint64_t now_ns)
{
    struct rightsize_loop *l = &r->loop;
    const uint32_t over = r->stats.slip_ppm - LITHOS_RIGHTSIZE_PPM;

    r->stats.undone++;
    for (unsigned i = 0; i < RIGHTSIZE_KINDS; i++)
        rightsize_bet_anew(&r->kinds.kind[i].sized);
    l->good = 0;
    l->watch = WATCH;
    if (over > (r->config.slip_ppm - LITHOS_RIGHTSIZE_PPM) / 4) {
        r->stats.slip_ppm = LITHOS_RIGHTSIZE_PPM + over / 2;
        return;
    }
    /* Stopped: all requests are references, also of whatever has changed; then from a quarter of the slip on. */
    for (unsigned i = 0; i < RIGHTSIZE_KINDS; i++)
        r->kinds.kind[i].whole.count = r->kinds.kind[i].whole.next = 0;
    l->references = 0;
    l->stop_for_ns = LITHOS_MIN(LITHOS_MAX(2 * l->stop_for_ns, STOP_NS), STOP_MOST_NS);
    l->stopped_until_ns = now_ns + l->stop_for_ns;
    r->stats.stopped++;
}

static void raise_slip(struct lithos_rightsize *r, uint32_t good)
{
    struct rightsize_loop *l = &r->loop;
    const uint32_t over = r->stats.slip_ppm - LITHOS_RIGHTSIZE_PPM;

    l->good += good;
    if (l->good < RAISE_AFTER || r->stats.slip_ppm == r->config.slip_ppm)
        return;
    l->good = 0;
    r->stats.slip_ppm = LITHOS_MIN(LITHOS_RIGHTSIZE_PPM + over + over / 2 + 1, r->config.slip_ppm);
    if (r->stats.slip_ppm == r->config.slip_ppm)
        l->stop_for_ns = 0;
}

bool rightsize_is_due(const struct lithos_rightsize *r, const struct rightsize_kind *k,
                      const struct rightsize_sample *s)
{
    return k == r->kinds.leading || s->count + (s->reference_us > 0) >= SAMPLE_LEAST;
}

/* What a kind of requests says. Each of them may be wrong as seldom as one would be alone, all together. */
static bool is_alarm(struct lithos_rightsize *r, struct rightsize_kind *k)
{
    const struct lithos_rightsize_undone u = {
        .request = r->stats.requests,
        .launches = (uint32_t)(k->launches + 0.5f),
        .reference_us = k->sized.sample.reference_us,
        .median_us = rightsize_sample_median_us(&k->sized.sample),
    };

    if (!rightsize_is_due(r, k, &k->sized.sample))
        return false;
    rightsize_bet(&k->sized, (float)r->config.slip_ppm / (float)LITHOS_RIGHTSIZE_PPM);
    if (!rightsize_is_guarded(r, k) ||
        rightsize_evidence_of(&k->sized) < RIGHTSIZE_ALARM * (float)rightsize_guarded(r))
        return false;
    r->stats.last_undone = u;
    r->stats.last_undone.tail = rightsize_is_of_tails(&k->sized);
    return true;
}

static void end_block(struct lithos_rightsize *r, uint64_t now_ns)
{
    struct rightsize_loop *l = &r->loop;
    const uint32_t good = r->kinds.leading ? r->kinds.leading->sized.sample.count : 0;
    bool alarm = false;

    if (l->begun_stopped)
        return;
    for (unsigned i = 0; i < RIGHTSIZE_KINDS; i++)
        alarm |= is_alarm(r, &r->kinds.kind[i]);
    l->watch -= l->watch > 0;
    if (alarm)
        lower(r, now_ns);
    else if (!rightsize_loop_suspects(r))
        raise_slip(r, good);
}

/* The places are drawn by lot, else a program with a rhythm of its own might have each reference fall on its long requests. */
static void begin_block(struct lithos_rightsize *r)
{
    struct rightsize_block *b = &r->loop.block;
    const uint32_t length = b->length;
    const struct rightsize_kind *led = r->kinds.leading;
    uint64_t lot = (b->number + 1) * 0x9e3779b97f4a7c15ull;

    lot = (lot ^ lot >> 30) * 0xbf58476d1ce4e5b9ull;
    lot = (lot ^ lot >> 27) * 0x94d049bb133111ebull;
    lot ^= lot >> 31;
    rightsize_choose_leading(r);
    *b = (struct rightsize_block){.number = b->number + 1, .length = reference_every(r)};
    b->reference = (uint32_t)((lot >> 32) * b->length >> 32);
    const bool before = b->reference && (lot & 1 || b->reference + 1 == b->length);
    b->near = before ? b->reference - 1 : b->reference + 1;
    /* With other chances to be a reference they would be no sample. */
    if (b->length != length || r->kinds.leading != led)
        rightsize_drop_samples(r);
}

/* A round has one request of the kind that leads at its end: others run as it does, else a program that has two by turns would be told
 * otherwise with each. */
static void next_round(struct lithos_rightsize *r, uint64_t now_ns)
{
    struct rightsize_loop *l = &r->loop;
    struct rightsize_block *b = &l->block;

    const bool goes_on = b->length && !l->round_over;

    if (goes_on && l->others < ROUND_MOST)
        return;
    l->round++;
    l->round_over = false;
    l->spoilt = 0;
    l->others = 0;
    if (goes_on) {
        rightsize_drop_leading(r);
        b->length = 0;
    } else if (b->length && ++b->place < b->length) {
        return;
    } else {
        end_block(r, now_ns);
        rightsize_strip_end_block(r, now_ns);
    }
    begin_block(r);
}

void lithos_rightsize_request(struct lithos_rightsize *r, uint64_t now_ns)
{
    struct rightsize_loop *l = &r->loop;

    l->open = true;
    next_round(r, now_ns);
    l->begun_stopped = now_ns < l->stopped_until_ns;
    if (l->begun_stopped)
        l->block.length = 0; /* compares nothing; a new one begins thereafter */
    l->mode = l->begun_stopped ? RIGHTSIZE_REFERENCE : rightsize_strip_mode(r, now_ns);
    l->has_lent = l->mode == RIGHTSIZE_LENT;
    rightsize_advise_request(r);
    r->earned_ns = r->tries_ns = 0;
    r->stats.requests++;
    r->stats.references += l->mode == RIGHTSIZE_REFERENCE;
    r->stats.whole += l->mode == RIGHTSIZE_WHOLE;
}

/* Of what kind it was; NULL: none was under way. */
static struct rightsize_kind *end_request(struct lithos_rightsize *r, uint64_t now_ns, uint64_t latency_ns,
                                          uint32_t launches)
{
    struct rightsize_loop *l = &r->loop;

    if (!l->open)
        return NULL;
    l->open = false;
    if (l->has_lent)
        r->strip.ended_ns = now_ns;
    struct rightsize_kind *k = rightsize_kind_of(r, launches, (float)latency_ns / 1000);
    l->others += k != r->kinds.leading && rightsize_is_guarded(r, k);
    return k;
}

void lithos_rightsize_pause(struct lithos_rightsize *r, uint64_t now_ns)
{
    if (r->loop.open && r->loop.has_lent)
        r->strip.ended_ns = now_ns;
    r->loop.open = false;
    rightsize_room_pause(r);
}

void lithos_rightsize_request_spoilt(struct lithos_rightsize *r, uint64_t now_ns, uint64_t latency_ns,
                                     uint32_t launches)
{
    struct rightsize_loop *l = &r->loop;
    const struct rightsize_kind *k = end_request(r, now_ns, latency_ns, launches);

    rightsize_room_request(r, now_ns, launches, false);
    if (!k || l->mode != RIGHTSIZE_SIZED || (r->kinds.leading && k != r->kinds.leading))
        return;
    l->round_over = ++l->spoilt >= SPOILT_MOST;
}

/* It ran as it was to. NULL: it says nothing, for it was there while the strip was emptied, or is the second of its kind in a round. */
static struct rightsize_kind *ended(struct lithos_rightsize *r, uint64_t now_ns, uint64_t latency_ns,
                                    uint32_t launches)
{
    struct rightsize_loop *l = &r->loop;
    struct rightsize_kind *k = end_request(r, now_ns, latency_ns, launches);

    if (!k || l->mode == RIGHTSIZE_DRAIN)
        return NULL;
    l->round_over = l->round_over || !r->kinds.leading || k == r->kinds.leading;
    if (k->round == l->round)
        return NULL;
    k->round = l->round;
    l->references += l->mode == RIGHTSIZE_REFERENCE && l->round_over;
    if (l->mode == RIGHTSIZE_LENT)
        rightsize_strip_done(r, k, now_ns, (float)latency_ns / 1000);
    else if (l->mode == RIGHTSIZE_REFERENCE)
        rightsize_strip_reference(r, k, (float)latency_ns / 1000);
    return k;
}

void lithos_rightsize_request_beside(struct lithos_rightsize *r, uint64_t now_ns, uint64_t latency_ns,
                                     uint32_t launches)
{
    (void)ended(r, now_ns, latency_ns, launches);
    rightsize_room_request(r, now_ns, launches, false);
}

void lithos_rightsize_request_done(struct lithos_rightsize *r, uint64_t now_ns, uint64_t latency_ns,
                                   uint32_t launches)
{
    const struct rightsize_loop *l = &r->loop;
    struct rightsize_kind *k = ended(r, now_ns, latency_ns, launches);
    const float us = (float)latency_ns / 1000;

    rightsize_room_request(r, now_ns, launches, l->mode == RIGHTSIZE_REFERENCE || l->mode == RIGHTSIZE_SIZED);
    if (!k)
        return;
    if (l->mode == RIGHTSIZE_REFERENCE && !l->begun_stopped)
        k->sized.sample.reference_us = us;
    if (l->mode == RIGHTSIZE_SIZED)
        rightsize_sample_add(&k->sized.sample, us);
    if (l->mode == RIGHTSIZE_SIZED || l->mode == RIGHTSIZE_WHOLE)
        rightsize_recent_add(&k->recent, us);
}
