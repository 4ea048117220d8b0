/* Are right-sized requests slower than they may be, or is it the host's noise? Each block of rounds has one reference, at a place drawn
 * by lot: whatever the host does meanwhile, drift and bursts too, falls on it with the same chance as on any other. On each block it is bet
 * that the others take longer than `may` times what the reference does. If they do not, no bet wins on the average, so that evidence (what
 * a stake of 1 has become) comes to RIGHTSIZE_ALARM once in as many blocks at most, whatever the noise is. */
#include <string.h>

#include "base/quantile.h"
#include "core/rightsize_internal.h"

/* What is bet on the reference's rank in its block: little finds small slowdowns, the cube large ones soon. */
#define RANK_LITTLE 0.25f
#define RANK_MUCH 0.75f
/* And on tails: that a part of the others more than this, beyond what references are, is over what few references are over. */
#define TAIL_BET 0.75f
#define TAIL_ASIDE 0.005f
/* References between two looks at what that is; before a look at their 99th percentile. */
#define TAIL_RENEW 8u
#define TAIL_MANY 64u
/* A bet on a tail that has won so much is worth more references, and all evidence together; of each of several kinds of requests so many
 * times as much, for any of them costs as many. */
#define TAIL_SUSPECT 0.7f
#define SUSPECT 0.5f
/* What is left of evidence after a block that says nothing: those of a tenant that is never alone are no reason for suspicion. */
#define FADE 0.95f

static const uint32_t tail_percent[RIGHTSIZE_TAILS] = {90, 96, 99};

void rightsize_keep(struct rightsize_latencies *l, float latency)
{
    l->value[l->next] = latency;
    l->next = (l->next + 1) % RIGHTSIZE_LATENCIES;
    l->count += l->count < RIGHTSIZE_LATENCIES;
}

float rightsize_latency(const struct rightsize_latencies *l, uint32_t percent)
{
    float v[RIGHTSIZE_LATENCIES];

    if (!l->count)
        return 0;
    memcpy(v, l->value, l->count * sizeof *v);
    return lithos_nth_float(v, l->count, (uint32_t)((uint64_t)(l->count - 1) * percent / 100));
}

/* With equal chances its rank among n others is any of 0 to n: the mean of each of these over the ranks is 1. */
static void bet_on_rank(float *capital, uint32_t over, uint32_t n)
{
    const float more = 2 * (float)over / (float)n - 1;
    const float places = (float)n + 1, rank = (float)over + 1;

    capital[0] *= 1 + RANK_LITTLE * more;
    capital[1] *= 1 + RANK_MUCH * more;
    capital[2] *= 4 * rank * rank * rank / (places * (places + 1) * (places + 1));
}

void rightsize_sample_add(struct rightsize_sample *s, float us)
{
    if (s->count < RIGHTSIZE_BLOCK_MOST)
        s->us[s->count++] = us;
}

float rightsize_sample_median_us(const struct rightsize_sample *s)
{
    float us[RIGHTSIZE_BLOCK_MOST];

    memcpy(us, s->us, s->count * sizeof *us);
    return s->count ? lithos_nth_float(us, s->count, s->count / 2) : 0;
}

static uint32_t count_over(const struct rightsize_sample *s, float limit_us)
{
    uint32_t over = 0;
    for (uint32_t i = 0; i < s->count; i++)
        over += s->us[i] > limit_us;
    return over;
}

void rightsize_recent_add(struct rightsize_recent *l, float us)
{
    l->us[l->next] = us;
    l->next = (l->next + 1) % RIGHTSIZE_RECENT;
    l->count += l->count < RIGHTSIZE_RECENT;
}

float rightsize_recent_us(const struct rightsize_recent *l)
{
    float us[RIGHTSIZE_RECENT];

    if (l->count < RIGHTSIZE_RECENT)
        return 0;
    memcpy(us, l->us, sizeof us);
    return lithos_nth_float(us, RIGHTSIZE_RECENT, RIGHTSIZE_RECENT / 2);
}

/* A limit that was set before is the same to both of them. So it goes with what requests took just now, for hosts drift. */
static void bet_on_tails(struct rightsize_evidence *e, float may)
{
    const struct rightsize_sample *s = &e->sample;
    const float usual_us = rightsize_recent_us(&e->recent);

    if (!(usual_us > 0))
        return;
    for (unsigned i = 0; i < RIGHTSIZE_TAILS; i++) {
        const float limit_us = e->tail[i] * usual_us;
        const float more = (float)count_over(s, may * limit_us) / (float)s->count -
                           (s->reference_us > limit_us ? 1.0f : 0.0f);
        if (limit_us > 0)
            e->capital[RIGHTSIZE_RANKS + i] *= 1 + TAIL_BET * (more - TAIL_ASIDE);
    }
    rightsize_keep(&e->references, s->reference_us / usual_us);
    if (e->references.next % TAIL_RENEW)
        return;
    for (unsigned i = 0; i < RIGHTSIZE_TAILS; i++)
        e->tail[i] = tail_percent[i] < 99 || e->references.count >= TAIL_MANY
                         ? rightsize_latency(&e->references, tail_percent[i])
                         : 0;
}

static void bet(struct rightsize_evidence *e, float may)
{
    const struct rightsize_sample *s = &e->sample;
    const bool says_nothing = !s->count || !(s->reference_us > 0);

    /* What has been lost is not owed: the next slowdown is found as soon as the first. */
    for (unsigned i = 0; i < RIGHTSIZE_BETS; i++)
        e->capital[i] = says_nothing ? FADE * e->capital[i] : LITHOS_MAX(e->capital[i], 1.0f);
    if (says_nothing)
        return;
    bet_on_rank(e->capital, count_over(s, may * s->reference_us), s->count);
    bet_on_tails(e, may);
    for (uint32_t i = 0; i < s->count; i++)
        rightsize_recent_add(&e->recent, s->us[i]);
}

void rightsize_bet(struct rightsize_evidence *e, float may)
{
    bet(e, may);
    e->sample.count = 0;
    e->sample.reference_us = 0;
}

static float evidence_of_ranks(const struct rightsize_evidence *e)
{
    float sum = 0;
    for (unsigned i = 0; i < RIGHTSIZE_RANKS; i++)
        sum += e->capital[i] / 4;
    return sum;
}

static float evidence_of_tails(const struct rightsize_evidence *e)
{
    float sum = 0;
    for (unsigned i = RIGHTSIZE_RANKS; i < RIGHTSIZE_BETS; i++)
        sum += e->capital[i] / (4 * RIGHTSIZE_TAILS);
    return sum;
}

float rightsize_evidence_of(const struct rightsize_evidence *e)
{
    return evidence_of_ranks(e) + evidence_of_tails(e);
}

bool rightsize_is_of_tails(const struct rightsize_evidence *e)
{
    return evidence_of_tails(e) > evidence_of_ranks(e);
}

bool rightsize_is_betting_on_tails(const struct rightsize_evidence *e, uint32_t kinds)
{
    float most = 0;
    for (unsigned i = RIGHTSIZE_RANKS; i < RIGHTSIZE_BETS; i++)
        most = LITHOS_MAX(most, e->capital[i]);
    return most >= 1 + TAIL_SUSPECT * (float)kinds;
}

bool rightsize_suspects(const struct rightsize_evidence *e, uint32_t kinds)
{
    return rightsize_evidence_of(e) >= 1 + SUSPECT * (float)kinds || rightsize_is_betting_on_tails(e, kinds);
}

void rightsize_bet_anew(struct rightsize_evidence *e)
{
    memset(e->capital, 0, sizeof e->capital);
}
