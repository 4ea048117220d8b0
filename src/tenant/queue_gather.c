/* Gathering (docs/adr/0037-gathering.md): an eager program of class high has the card run a kernel whenever its host has come to one, and the card,
 * which waits for the next in between, can be lent to nobody for so short. Here what is queued stays in the queue until somebody waits for it, or asks
 * about it, and then goes, one kernel behind the other. How much will come before that, and how long it takes the host and the card, is learnt by the first
 * kernel behind a wait: what is known is let go so much earlier that the card is done with it when the host is. */
#include "tenant/queue_internal.h"

/* A request is let go so long before its wait as its kernels were seen to take, and this, at first. */
#define AHEAD_NS (100 * LITHOS_NSEC_PER_USEC)
/* Then as it turns out by how much later than its host the card is done: so late is well, and of what it is more or less this part is made up for
 * each time. */
#define LATE_NS (100 * LITHOS_NSEC_PER_USEC)
#define LATE_PART 32u
/* Later than so many times that counts as that: what was in a request's way, or a host that got faster, happens to one in ten and says nothing of the
 * others, which would go far too early for it. */
#define LATE_MOST 2u
#define ADJUST_PART 4
/* Where requests wait for each other, each is later by what all before it were late, and that is what the slowest take longer. One that came behind
 * another, with no more than this part of its host's time between, is to be late in one of so many cases: a step earlier each time that it is, and each
 * time by this part of a step later; earlier than others by no more than a part of its host's time, since the rest of the card waits meanwhile. */
#define BEHIND_PART 8u
#define BEHIND_CASES 4u
#define BEHIND_STEP_PART 64u
#define BEHIND_MOST_PART 16u
/* From so many in a row on what is known of the others is old: one that is later than is well says so of them, too. */
#define BEHIND_ROW 16u
/* A host that is slower than it was known to be may just have been disturbed: it is taken to be slower by no more than this part. */
#define SLOWER_PART 16u
/* That it is slower shows while it is at it: what was known of its pace counts like this part of its kernels. */
#define PACE_PART 4u
/* While nothing may go, its thread sleeps for half of what is left by what is known: the host may be faster this time. A sleep takes some 50 us more
 * than it was to, so the last of it is looked at without one. */
#define DOZE_MIN_NS (80 * LITHOS_NSEC_PER_USEC)
#define DOZE_MAX_NS (250 * LITHOS_NSEC_PER_USEC)

void lithos_queue_want(struct queue *q)
{
    const uint32_t upto = lithos_queue_ring_entries(&q->ring);
    uint32_t was = atomic_load_explicit(&q->wanted, memory_order_relaxed);
    if (!atomic_load_explicit(&q->gather_ns, memory_order_relaxed) || (int32_t)(upto - was) <= 0)
        return;
    atomic_store_explicit(&q->wanted_ns, lithos_now_ns(), memory_order_relaxed);
    while ((int32_t)(upto - was) > 0 &&
           !atomic_compare_exchange_weak_explicit(&q->wanted, &was, upto, memory_order_seq_cst,
                                                  memory_order_relaxed))
        ;
    lithos_queue_rouse(q);
}

static uint32_t issued(const struct queue *q)
{
    return atomic_load_explicit(&q->issued, memory_order_relaxed);
}

/* One that waits may be further behind than the number says: streams overtake each other. */
static bool is_wanted(const struct queue *q)
{
    return atomic_load_explicit(&q->waiters, memory_order_relaxed) ||
           (int32_t)(atomic_load_explicit(&q->wanted, memory_order_acquire) - issued(q)) > 0;
}

static struct queue_request *request_of(struct queue *q, uint64_t key)
{
    return &q->requests[key >> 1 & (QUEUE_REQUESTS - 1)]; /* keys are odd */
}

/* So much came, and it took its host so long until it waited. By how much a request's prediction is wrong is believed of one of another length. */
static void learn(struct queue *q, const struct queue_gather *g, uint64_t wanted_ns)
{
    struct queue_request *r = request_of(q, g->key);
    const uint64_t host_ns = wanted_ns > g->begun_ns ? wanted_ns - g->begun_ns : 0;
    if (!g->key)
        return;
    if (r->key != g->key) {
        *r = (struct queue_request){
            .key = g->key, .host_ns = host_ns, .ahead_ns = {g->card_ns + AHEAD_NS, g->card_ns + AHEAD_NS}};
    } else if (r->kernels != g->kernels) {
        for (int k = 0; k < QUEUE_AHEAD; k++) {
            const uint64_t now_ns = r->ahead_ns[k] + g->card_ns;
            r->ahead_ns[k] = LITHOS_MIN(now_ns - LITHOS_MIN(now_ns, r->card_ns), host_ns);
        }
        r->host_ns = host_ns;
    }
    r->kernels = g->kernels;
    r->card_ns = g->card_ns;
    r->host_ns = LITHOS_MIN(host_ns, r->host_ns + r->host_ns / SLOWER_PART);
}

static uint64_t well_ns(const struct queue_request *r)
{
    return LITHOS_MAX(LATE_NS, r->host_ns / LATE_PART);
}

/* It was late by so much: how long before its wait is it to go from now on? */
static uint64_t adjusted_ns(const struct queue_request *r, enum queue_ahead kind, uint64_t late_ns)
{
    const int64_t host_ns = (int64_t)r->host_ns, step_ns = host_ns / BEHIND_STEP_PART,
                  well = (int64_t)well_ns(r);
    int64_t ahead_ns = (int64_t)r->ahead_ns[kind], most_ns = host_ns;
    if (kind == QUEUE_AHEAD_BEHIND) {
        ahead_ns += (late_ns > LATE_NS ? step_ns : 0) - step_ns / BEHIND_CASES;
        most_ns = LITHOS_MIN((int64_t)r->ahead_ns[QUEUE_AHEAD_APART] + host_ns / BEHIND_MOST_PART, host_ns);
    } else {
        ahead_ns += (LITHOS_MIN((int64_t)late_ns, LATE_MOST * well) - well) / ADJUST_PART;
    }
    return (uint64_t)LITHOS_MIN(LITHOS_MAX(ahead_ns, 0), most_ns);
}

/* When was the card done with it? */
static void settle(struct queue *q, uint64_t wanted_ns)
{
    struct queue_gather *g = &q->gather;
    struct queue_request *r = request_of(q, g->key);
    const uint64_t late_ns = q->landed_ns > wanted_ns ? q->landed_ns - wanted_ns : 0;
    g->is_settled = true;
    if (!g->is_ahead || r->key != g->key)
        return;
    r->ahead_ns[g->kind] = adjusted_ns(r, g->kind, late_ns);
    r->in_a_row = g->kind == QUEUE_AHEAD_BEHIND ? r->in_a_row + 1 : 0;
    if (r->in_a_row >= BEHIND_ROW && late_ns > well_ns(r))
        r->ahead_ns[QUEUE_AHEAD_APART] = adjusted_ns(r, QUEUE_AHEAD_APART, late_ns);
}

/* With it something begins that nobody has waited for yet: what is up to the last wait is over, or on its way. */
static void begin(struct queue *q, uint32_t wanted)
{
    const uint64_t now_ns = lithos_now_ns(),
                   over_ns =
                       LITHOS_MAX(atomic_load_explicit(&q->wanted_ns, memory_order_relaxed), q->landed_ns);
    q->gather = (struct queue_gather){.state = QUEUE_GATHER_WAITS,
                                      .wanted = wanted,
                                      .begun_ns = now_ns,
                                      .since_ns = now_ns,
                                      .pause_ns = now_ns - LITHOS_MIN(over_ns, now_ns)};
}

/* By its first kernel it is known what it is, and whether it came behind another for what is known of it by then: how it turns out changes that. */
static void name(struct queue *q, struct queue_gather *g, uint64_t key)
{
    g->key = key;
    g->kind =
        g->pause_ns <= request_of(q, key)->host_ns / BEHIND_PART ? QUEUE_AHEAD_BEHIND : QUEUE_AHEAD_APART;
}

/* Somebody has waited for it. */
static void end(struct queue *q, uint32_t wanted)
{
    struct queue_gather *g = &q->gather;
    const uint64_t wanted_ns = atomic_load_explicit(&q->wanted_ns, memory_order_relaxed);
    if ((int32_t)((uint32_t)q->number - wanted) < 0)
        return; /* the last of it have not been met */
    if (!g->is_over)
        learn(q, g, wanted_ns);
    g->is_over = true;
    if (!g->is_settled && (int32_t)(issued(q) - wanted) >= 0 && TAILQ_EMPTY(&q->flying))
        settle(q, wanted_ns);
}

void lithos_queue_gather_takes(struct queue *q, const struct queue_entry *e)
{
    struct queue_gather *g = &q->gather;
    const uint32_t wanted = atomic_load_explicit(&q->wanted, memory_order_acquire);
    uint32_t place;
    if (!atomic_load_explicit(&q->gather_ns, memory_order_relaxed))
        return;
    if (g->state != QUEUE_GATHER_NOTHING && wanted != g->wanted &&
        (int32_t)((uint32_t)e->number - wanted) > 0) {
        lithos_queue_reap(q); /* whoever waited knows that it is over, while the dispatcher may have slept */
        end(q, wanted);
        g->state = QUEUE_GATHER_NOTHING;
    }
    if (g->state == QUEUE_GATHER_NOTHING)
        begin(q, wanted);
    if (e->kind == QUEUE_LAUNCH) {
        if (!g->key)
            name(q, g, e->estimate_key);
        g->kernels++;
    }
    g->card_ns += e->estimate_key ? lithos_queue_predict_ns(q, e->estimate_key, QUEUE_OWN, &place) : 0;
}

/* How long it takes the host until what is still to come of it is no more than the card is to be ahead: by its pace so far, with what was known of it
 * as if so many kernels more had come. UINT64_MAX: nothing was. */
static uint64_t until_time_ns(struct queue *q, const struct queue_gather *g)
{
    const struct queue_request *r = request_of(q, g->key);
    const uint64_t come = g->kernels;
    if (!come || r->key != g->key)
        return UINT64_MAX;
    const uint64_t left = r->kernels > come ? r->kernels - come : 0,
                   past_ns = LITHOS_MIN(lithos_now_ns() - g->begun_ns, PACE_PART * r->host_ns),
                   left_ns =
                       left * (PACE_PART * past_ns + r->host_ns) / (PACE_PART * (come - 1) + r->kernels);
    const uint64_t ahead_ns = r->ahead_ns[g->kind];
    return left_ns <= ahead_ns ? 0 : left_ns - ahead_ns;
}

static bool let_go(struct queue_gather *g, enum queue_gather_state to, enum lithos_counter why)
{
    g->state = to;
    lithos_queue_count(why);
    return false;
}

bool lithos_queue_gathers(struct queue *q)
{
    struct queue_gather *g = &q->gather;
    const uint64_t gather_ns = atomic_load_explicit(&q->gather_ns, memory_order_relaxed);
    const uint32_t wanted = atomic_load_explicit(&q->wanted, memory_order_acquire);
    if (!gather_ns || lithos_queue_closed(q)) {
        g->state = QUEUE_GATHER_NOTHING;
        return false;
    }
    if (g->state == QUEUE_GATHER_NOTHING)
        return false;
    if (wanted != g->wanted) {
        end(q, wanted);
        if (g->state != QUEUE_GATHER_FLOWS)
            return let_go(g, QUEUE_GATHER_FLOWS, LITHOS_COUNTER_GATHERED_WANTED);
    }
    if (g->state == QUEUE_GATHER_PIECE && (int32_t)(issued(q) - g->upto) >= 0) {
        g->state = QUEUE_GATHER_WAITS;
        g->since_ns = lithos_now_ns();
    }
    if (g->state != QUEUE_GATHER_WAITS || !q->held || is_wanted(q))
        return false;
    g->is_ahead = until_time_ns(q, g) == 0;
    if (g->is_ahead)
        return let_go(g, QUEUE_GATHER_FLOWS, LITHOS_COUNTER_GATHERED_AHEAD);
    if (lithos_now_ns() - g->since_ns < gather_ns)
        return true;
    g->upto = lithos_queue_ring_entries(&q->ring);
    return let_go(g, QUEUE_GATHER_PIECE, LITHOS_COUNTER_GATHERED_TIME);
}

bool lithos_queue_flows(struct queue *q)
{
    const struct queue_gather *g = &q->gather;
    const struct queue_request *r = request_of(q, g->key);
    return g->state == QUEUE_GATHER_FLOWS && !g->is_over && g->key && r->key == g->key &&
           g->kernels < r->kernels;
}

void lithos_queue_gather_rest(struct queue *q)
{
    const struct queue_gather *g = &q->gather;
    const uint64_t past_ns = lithos_now_ns() - g->since_ns,
                   gather_ns = atomic_load_explicit(&q->gather_ns, memory_order_relaxed),
                   left_ns = LITHOS_MIN(until_time_ns(q, g), gather_ns > past_ns ? gather_ns - past_ns : 0);
    if (left_ns < 2 * DOZE_MIN_NS || !TAILQ_EMPTY(&q->flying))
        __builtin_ia32_pause();
    else
        lithos_queue_doze(q, g->wanted, LITHOS_MIN(left_ns / 2, DOZE_MAX_NS));
}
