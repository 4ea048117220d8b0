/* The tenant's own latency has the last word: requests that run right-sized against those that do not. */
#include <string.h>

#include "core/rightsize_internal.h"

/* One request in so many is a reference: more of them while there are few, for each saves nothing, and while it is not clear whether the
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
#define STOP_NS (2 * LITHOS_NSEC_PER_SEC)
#define STOP_MOST_NS (64 * LITHOS_NSEC_PER_SEC)

bool rightsize_stopped(const struct lithos_rightsize *r)
{
    return r->loop.begun_stopped;
}

static uint32_t reference_every(const struct lithos_rightsize *r)
{
    const uint32_t references = r->strip.whole.count;

    if (rightsize_is_betting_on_tails(&r->loop.evidence))
        return REFERENCE_EVERY_TAIL;
    if (references < REFERENCES_FIRST || r->loop.watch || rightsize_suspects(&r->loop.evidence))
        return REFERENCE_EVERY_FIRST;
    return references < REFERENCES_SOON || rightsize_suspects(&r->strip.evidence) ? REFERENCE_EVERY_SOON
                                                                                  : REFERENCE_EVERY;
}

static void lower(struct lithos_rightsize *r, uint64_t now_ns)
{
    struct rightsize_loop *l = &r->loop;
    const uint32_t over = r->stats.slip_ppm - LITHOS_RIGHTSIZE_PPM;

    r->stats.undone++;
    r->stats.last_undone = (struct lithos_rightsize_undone){r->stats.requests, l->block.reference_us,
                                                            rightsize_block_median_us(&l->block),
                                                            rightsize_is_of_tails(&l->evidence)};
    rightsize_bet_anew(&l->evidence);
    l->good = 0;
    l->watch = WATCH;
    if (over > (r->config.slip_ppm - LITHOS_RIGHTSIZE_PPM) / 4) {
        r->stats.slip_ppm = LITHOS_RIGHTSIZE_PPM + over / 2;
        return;
    }
    /* Stopped: all requests are references, also of whatever has changed; then from a quarter of the slip on. */
    r->strip.whole.count = r->strip.whole.next = 0;
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

static void end_block(struct lithos_rightsize *r, uint64_t now_ns)
{
    struct rightsize_loop *l = &r->loop;
    const struct rightsize_block *b = &l->block;

    if (l->begun_stopped)
        return;
    rightsize_bet(&l->evidence, b, (float)r->config.slip_ppm / (float)LITHOS_RIGHTSIZE_PPM);
    l->watch -= l->watch > 0;
    if (rightsize_evidence_of(&l->evidence) >= RIGHTSIZE_ALARM)
        lower(r, now_ns);
    else if (!rightsize_suspects(&l->evidence))
        raise_slip(r, b->count);
}

/* The places are drawn by lot, else a program with a rhythm of its own might have each reference fall on its long requests. */
static void begin_block(struct lithos_rightsize *r)
{
    struct rightsize_block *b = &r->loop.block;
    uint64_t lot = (b->number + 1) * 0x9e3779b97f4a7c15ull;

    lot = (lot ^ lot >> 30) * 0xbf58476d1ce4e5b9ull;
    lot = (lot ^ lot >> 27) * 0x94d049bb133111ebull;
    lot ^= lot >> 31;
    *b = (struct rightsize_block){.number = b->number + 1, .length = reference_every(r)};
    b->reference = (uint32_t)((lot >> 32) * b->length >> 32);
    const bool before = b->reference && (lot & 1 || b->reference + 1 == b->length);
    b->near = before ? b->reference - 1 : b->reference + 1;
}

static void next_place(struct lithos_rightsize *r, uint64_t now_ns)
{
    struct rightsize_block *b = &r->loop.block;

    if (b->again) {
        b->again = false;
        return;
    }
    if (b->length && ++b->place < b->length)
        return;
    end_block(r, now_ns);
    rightsize_strip_end_block(r, now_ns);
    begin_block(r);
}

void lithos_rightsize_request(struct lithos_rightsize *r, uint64_t now_ns)
{
    struct rightsize_loop *l = &r->loop;

    l->open = true;
    next_place(r, now_ns);
    l->begun_stopped = now_ns < l->stopped_until_ns;
    if (l->begun_stopped)
        l->block.length = 0; /* compares nothing; a new one begins thereafter */
    l->kind = l->begun_stopped ? RIGHTSIZE_REFERENCE : rightsize_strip_kind(r, now_ns);
    rightsize_advise_request(r);
    r->earned_ns = r->tries_ns = 0;
    r->stats.requests++;
    r->stats.references += l->kind == RIGHTSIZE_REFERENCE;
}

void lithos_rightsize_request_spoilt(struct lithos_rightsize *r)
{
    rightsize_advise_request(r);
    r->earned_ns = 0;
    r->stats.requests++;
}

/* False: it says nothing of right-sizing by itself. */
static bool ended(struct lithos_rightsize *r, uint64_t now_ns, uint64_t latency_ns)
{
    struct rightsize_loop *l = &r->loop;

    if (!l->open)
        return false;
    l->open = false;
    if (l->kind == RIGHTSIZE_LENT)
        rightsize_strip_done(r, now_ns, latency_ns);
    if (l->kind == RIGHTSIZE_REFERENCE)
        rightsize_strip_reference(r, latency_ns);
    return l->kind == RIGHTSIZE_REFERENCE || l->kind == RIGHTSIZE_SIZED;
}

void lithos_rightsize_request_beside(struct lithos_rightsize *r, uint64_t now_ns, uint64_t latency_ns)
{
    (void)ended(r, now_ns, latency_ns);
}

void lithos_rightsize_request_done(struct lithos_rightsize *r, uint64_t now_ns, uint64_t latency_ns)
{
    struct rightsize_loop *l = &r->loop;
    struct rightsize_block *b = &l->block;

    if (!ended(r, now_ns, latency_ns))
        return;
    const float us = (float)latency_ns / 1000;
    if (l->kind == RIGHTSIZE_REFERENCE)
        b->reference_us = l->begun_stopped ? 0 : us;
    else
        rightsize_block_add(b, us);
    if (l->kind == RIGHTSIZE_SIZED)
        rightsize_strip_alone(r, us);
}
