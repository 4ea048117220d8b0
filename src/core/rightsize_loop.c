/* The tenant's own latency has the last word: requests that run right-sized against those that do not. */
#include <string.h>

#include "base/quantile.h"
#include "core/rightsize_internal.h"

/* One request in so many is a reference: more of them while there are few, for each saves nothing. */
#define REFERENCE_EVERY 32u
#define REFERENCE_EVERY_SOON 8u
#define REFERENCE_EVERY_FIRST 4u
#define REFERENCES_SOON 64u
#define REFERENCES_FIRST 16u
/* Requests between looks, and looks without a finding after which a lowered slip is raised by half. */
#define LOOK_EVERY 16u
#define RAISE_AFTER 8u
/* Of each kind, to say anything of their median, their 90th and 99th percentile. */
#define FEW 8u
#define SOME 40u
#define MANY 200u
/* What two medians of few requests differ by for no reason. */
#define NOISE 1.02f
#define STOP_NS (2 * LITHOS_NSEC_PER_SEC)
#define STOP_MOST_NS (64 * LITHOS_NSEC_PER_SEC)

bool rightsize_stopped(const struct lithos_rightsize *r)
{
    return r->loop.begun_stopped;
}

static uint64_t reference_every(uint32_t references)
{
    if (references < REFERENCES_FIRST)
        return REFERENCE_EVERY_FIRST;
    return references < REFERENCES_SOON ? REFERENCE_EVERY_SOON : REFERENCE_EVERY;
}

void lithos_rightsize_request(struct lithos_rightsize *r, uint64_t now_ns)
{
    struct rightsize_loop *l = &r->loop;
    const uint64_t every = reference_every(r->strip.whole.count);

    l->open = true;
    l->begun_stopped = now_ns < l->stopped_until_ns;
    l->number++;
    l->kind = l->begun_stopped ? RIGHTSIZE_REFERENCE : rightsize_strip_kind(r, now_ns, every);
    rightsize_advise_request(r);
    r->earned_ns = r->tries_ns = 0;
    r->stats.requests++;
    r->stats.references += l->kind == RIGHTSIZE_REFERENCE;
}

void rightsize_keep(struct rightsize_latencies *l, uint64_t latency_ns)
{
    l->us[l->next] = (float)latency_ns / 1000;
    l->next = (l->next + 1) % RIGHTSIZE_LATENCIES;
    l->count += l->count < RIGHTSIZE_LATENCIES;
}

static float at(const float *sorted, uint32_t n, uint32_t percent)
{
    return sorted[(uint64_t)(n - 1) * percent / 100];
}

static uint32_t sorted_of(const struct rightsize_latencies *l, float sorted[RIGHTSIZE_LATENCIES])
{
    memcpy(sorted, l->us, l->count * sizeof *sorted);
    lithos_sort_floats(sorted, l->count);
    return l->count;
}

bool rightsize_is_slower(const struct rightsize_latencies *l, const struct rightsize_latencies *references,
                         float may)
{
    float these[RIGHTSIZE_LATENCIES], whole[RIGHTSIZE_LATENCIES];
    const uint32_t n = sorted_of(l, these), m = sorted_of(references, whole);
    const uint32_t least = LITHOS_MIN(n, m);

    if (least >= FEW && at(these, n, 50) > may * at(whole, m, 50))
        return true;
    if (least >= SOME && at(these, n, 90) > may * at(whole, m, 90))
        return true;
    return least >= MANY && at(these, n, 99) > may * at(whole, m, 99);
}

float rightsize_latency_us(const struct rightsize_latencies *l, uint32_t percent)
{
    float sorted[RIGHTSIZE_LATENCIES];
    const uint32_t n = sorted_of(l, sorted);
    return n ? at(sorted, n, percent) : 0;
}

static bool too_slow(const struct lithos_rightsize *r)
{
    return rightsize_is_slower(&r->loop.sized, &r->loop.whole,
                               NOISE * (float)r->config.slip_ppm / (float)LITHOS_RIGHTSIZE_PPM);
}

static void lower(struct lithos_rightsize *r, uint64_t now_ns)
{
    struct rightsize_loop *l = &r->loop;
    const uint32_t over = r->stats.slip_ppm - LITHOS_RIGHTSIZE_PPM;

    r->stats.undone++;
    l->sized.count = l->sized.next = 0;
    l->good = 0;
    if (over > (r->config.slip_ppm - LITHOS_RIGHTSIZE_PPM) / 4) {
        r->stats.slip_ppm = LITHOS_RIGHTSIZE_PPM + over / 2;
        return;
    }
    /* Stopped: all requests are references, also of whatever has changed; then from a quarter of the slip on. */
    l->whole.count = l->whole.next = 0;
    r->strip.whole.count = r->strip.whole.next = 0;
    l->stop_for_ns = LITHOS_MIN(LITHOS_MAX(2 * l->stop_for_ns, STOP_NS), STOP_MOST_NS);
    l->stopped_until_ns = now_ns + l->stop_for_ns;
    r->stats.stopped++;
}

static void raise_slip(struct lithos_rightsize *r)
{
    struct rightsize_loop *l = &r->loop;
    const uint32_t over = r->stats.slip_ppm - LITHOS_RIGHTSIZE_PPM;

    if (++l->good < RAISE_AFTER || r->stats.slip_ppm == r->config.slip_ppm)
        return;
    l->good = 0;
    r->stats.slip_ppm = LITHOS_MIN(LITHOS_RIGHTSIZE_PPM + over + over / 2 + 1, r->config.slip_ppm);
    if (r->stats.slip_ppm == r->config.slip_ppm)
        l->stop_for_ns = 0;
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

    if (!ended(r, now_ns, latency_ns))
        return;
    const bool reference = l->kind == RIGHTSIZE_REFERENCE;
    rightsize_keep(reference ? &l->whole : &l->sized, latency_ns);
    if (reference || ++l->since_look < LOOK_EVERY)
        return;
    l->since_look = 0;
    if (too_slow(r))
        lower(r, now_ns);
    else
        raise_slip(r);
}
