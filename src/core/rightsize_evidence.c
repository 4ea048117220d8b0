/* Are right-sized requests slower than they may be, or is it the host's noise? Each block of requests has one reference, at a place drawn
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
#define TAIL_MANY 100u
/* A bet on a tail that has won so much is worth more references. */
#define TAIL_SUSPECT 1.7f
/* What is left of evidence after a block that says nothing: those of a tenant that is never alone are no reason for suspicion. */
#define FADE 0.95f
/* Of each kind, to say anything of their median, their 90th and 99th percentile. */
#define FEW 8u
#define SOME 40u
#define MANY 200u
/* Standard errors that two quantiles of few requests are apart for no reason. */
#define STRAY 2.0f

static const uint32_t tail_percent[RIGHTSIZE_TAILS] = {90, 96, 99};

void rightsize_keep(struct rightsize_latencies *l, float latency)
{
    l->value[l->next] = latency;
    l->next = (l->next + 1) % RIGHTSIZE_LATENCIES;
    l->count += l->count < RIGHTSIZE_LATENCIES;
}

static uint32_t sorted_of(const struct rightsize_latencies *l, float sorted[RIGHTSIZE_LATENCIES])
{
    memcpy(sorted, l->value, l->count * sizeof *sorted);
    lithos_sort_floats(sorted, l->count);
    return l->count;
}

static float at(const float *sorted, uint32_t n, uint32_t percent)
{
    return sorted[(uint64_t)(n - 1) * percent / 100];
}

float rightsize_latency(const struct rightsize_latencies *l, uint32_t percent)
{
    float sorted[RIGHTSIZE_LATENCIES];
    const uint32_t n = sorted_of(l, sorted);
    return n ? at(sorted, n, percent) : 0;
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

static uint32_t count_over(const struct rightsize_block *b, float limit_us)
{
    uint32_t over = 0;
    for (uint32_t i = 0; i < b->count; i++)
        over += b->us[i] > limit_us;
    return over;
}

static float median_of(const float us[RIGHTSIZE_RECENT])
{
    float sorted[RIGHTSIZE_RECENT];
    memcpy(sorted, us, sizeof sorted);
    lithos_sort_floats(sorted, RIGHTSIZE_RECENT);
    return sorted[RIGHTSIZE_RECENT / 2];
}

/* A limit that was set before is the same to both of them. So it goes with what requests took just now, for hosts drift. */
static void bet_on_tails(struct rightsize_evidence *e, const struct rightsize_block *b, float may)
{
    if (e->recents < RIGHTSIZE_RECENT)
        return;
    const float usual_us = median_of(e->recent_us);
    for (unsigned i = 0; i < RIGHTSIZE_TAILS; i++) {
        const float limit_us = e->tail[i] * usual_us;
        const float more = (float)count_over(b, may * limit_us) / (float)b->count -
                           (b->reference_us > limit_us ? 1.0f : 0.0f);
        if (limit_us > 0)
            e->capital[RIGHTSIZE_RANKS + i] *= 1 + TAIL_BET * (more - TAIL_ASIDE);
    }
    rightsize_keep(&e->references, b->reference_us / usual_us);
    if (e->references.next % TAIL_RENEW)
        return;
    for (unsigned i = 0; i < RIGHTSIZE_TAILS; i++)
        e->tail[i] = tail_percent[i] < 99 || e->references.count >= TAIL_MANY
                         ? rightsize_latency(&e->references, tail_percent[i])
                         : 0;
}

void rightsize_bet(struct rightsize_evidence *e, const struct rightsize_block *b, float may)
{
    const bool says_nothing = !b->count || !(b->reference_us > 0);

    /* What has been lost is not owed: the next slowdown is found as soon as the first. */
    for (unsigned i = 0; i < RIGHTSIZE_BETS; i++)
        e->capital[i] = says_nothing ? FADE * e->capital[i] : LITHOS_MAX(e->capital[i], 1.0f);
    if (says_nothing)
        return;
    bet_on_rank(e->capital, count_over(b, may * b->reference_us), b->count);
    bet_on_tails(e, b, may);
    for (uint32_t i = 0; i < b->count; i++)
        e->recent_us[e->recents++ % RIGHTSIZE_RECENT] = b->us[i];
    if (e->recents >= 2 * RIGHTSIZE_RECENT)
        e->recents -= RIGHTSIZE_RECENT;
}

float rightsize_evidence_of(const struct rightsize_evidence *e)
{
    float sum = 0;
    for (unsigned i = 0; i < RIGHTSIZE_RANKS; i++)
        sum += e->capital[i] / 4;
    for (unsigned i = RIGHTSIZE_RANKS; i < RIGHTSIZE_BETS; i++)
        sum += e->capital[i] / (4 * RIGHTSIZE_TAILS);
    return sum;
}

void rightsize_bet_anew(struct rightsize_evidence *e)
{
    memset(e->capital, 0, sizeof e->capital);
}

/* A root, of what is not negative and below some thousands, without libm. */
static float root_of(float x)
{
    float root = x > 1 ? x / 2 : 1;
    for (int i = 0; i < 8; i++)
        root = (root + x / root) / 2;
    return root;
}

/* The sample at this quantile, or so many standard errors off it. */
static float off(const float *sorted, uint32_t n, uint32_t percent, float errors)
{
    const float part = (float)percent / 100;
    const float place = (float)(n - 1) * part + errors * root_of((float)n * part * (1 - part));
    return sorted[place <= 0 ? 0 : LITHOS_MIN((uint32_t)place, n - 1)];
}

static bool is_slower_at(const float *these, uint32_t n, const float *references, uint32_t m, float may,
                         uint32_t percent)
{
    return off(these, n, percent, -STRAY) > may * off(references, m, percent, STRAY);
}

bool rightsize_is_betting_on_tails(const struct rightsize_evidence *e)
{
    float most = 0;
    for (unsigned i = RIGHTSIZE_RANKS; i < RIGHTSIZE_BETS; i++)
        most = LITHOS_MAX(most, e->capital[i]);
    return most >= TAIL_SUSPECT;
}

bool rightsize_is_slower(const struct rightsize_latencies *l, const struct rightsize_latencies *references,
                         float may)
{
    float these[RIGHTSIZE_LATENCIES], whole[RIGHTSIZE_LATENCIES];
    const uint32_t n = sorted_of(l, these), m = sorted_of(references, whole);
    const uint32_t least = LITHOS_MIN(n, m);

    return (least >= FEW && is_slower_at(these, n, whole, m, may, 50)) ||
           (least >= SOME && is_slower_at(these, n, whole, m, may, 90)) ||
           (least >= MANY && is_slower_at(these, n, whole, m, may, 99));
}
