/* How much slower kernels may be before their requests are: a host that launches more slowly than the card runs leaves the card idle within
 * a request, and a kernel that takes longer runs into that time first. When each could have begun and what it takes on all TPCs is known, so
 * the end of a request can be reckoned for any widths. */
#include <string.h>

#include "core/rightsize_internal.h"

/* So many times as long kernels may take; the first is the slip. */
static float factor(const struct lithos_rightsize *r, uint32_t step)
{
    static const float factors[RIGHTSIZE_ROOM_STEPS] = {1, 1.25f, 1.5f, 1.75f, 2, 2.5f, 3, 4};
    const float slip = (float)r->config.slip_ppm / (float)LITHOS_RIGHTSIZE_PPM;

    return LITHOS_MAX(factors[step], slip);
}

/* Of what requests may take longer, they may take this part for kernels that are slower than the slip alone would have them; and where they are
 * later than that by the slip alone, that much more. */
#define PART 0.15f
#define MORE_PART 0.04f
/* One request that would be so many times as much later ends it at once. */
#define OVER 4.0f
/* A step up takes so much less than that. */
#define UP_PART 0.8f
/* For so long the card is not idle from one kernel to the next, but turns; and as well as that times are known. */
#define TURN_NS 3000.0f
/* Requests before anything is said; and that are remembered, about. */
#define ENOUGH 8u
#define REMEMBERED 16u
/* The card is idle within requests: for such a part of them. */
#define IDLE_PART 0.05f
/* An operator is looked at once in so many launches. */
#define LOOK_EVERY 16u
/* What was the last of a request is taken for it for so many more. */
#define LAST_REQUESTS 16u
/* Of a request's kernels, so many of ten at least are known. */
#define KNOWN_OF_TEN 9u

/* What has been undone of the slip is undone of that as well. */
static float slip_at(const struct lithos_rightsize *r, uint32_t step)
{
    const float asked = factor(r, 0) - 1;
    const float in_force = (float)r->stats.slip_ppm / (float)LITHOS_RIGHTSIZE_PPM - 1;

    return asked > 0 ? 1 + in_force * (factor(r, step) - 1) / asked : 1;
}

float lithos_rightsize_kernel_slip(const struct lithos_rightsize *r)
{
    return slip_at(r, r->room.step);
}

double rightsize_idle_ns(const struct lithos_rightsize *r)
{
    return r->room.requests >= ENOUGH ? (double)r->room.idle_us * 1000 : 0;
}

/* How much later they may be. */
static float may_us(const struct lithos_rightsize *r, float part)
{
    const struct rightsize_room *m = &r->room;
    const float slip_us = part * (factor(r, 0) - 1) * m->took_us;

    return LITHOS_MAX(PART * slip_us, m->late_us[0] + MORE_PART * slip_us);
}

static bool is_idle(const struct rightsize_room *m)
{
    return m->requests >= ENOUGH && m->idle_us > IDLE_PART * m->took_us;
}

/* What is known of kernels alone may say that requests do not bear it: then nothing is tried for it. */
static float next_kernel_slip(const struct lithos_rightsize *r)
{
    const struct rightsize_room *m = &r->room;
    const bool is_worth = is_idle(m) && m->step + 1 < RIGHTSIZE_ROOM_STEPS && m->next_us <= may_us(r, 1);

    return slip_at(r, m->step + is_worth);
}

static bool is_last(const struct lithos_rightsize *r, const struct rightsize_operator *op)
{
    return r->stats.requests < op->last_until;
}

float rightsize_may_take(const struct lithos_rightsize *r, const struct rightsize_operator *op)
{
    return is_last(r, op) ? slip_at(r, 0) : lithos_rightsize_kernel_slip(r);
}

float rightsize_may_take_next(const struct lithos_rightsize *r, const struct rightsize_operator *op)
{
    return is_last(r, op) ? slip_at(r, 0) : next_kernel_slip(r);
}

void rightsize_room_operator(const struct lithos_rightsize *r, struct rightsize_operator *op,
                             const struct lithos_rightsize_kernel *k, const struct rightsize_point *all)
{
    if (op->looked++ % LOOK_EVERY)
        return;
    for (unsigned i = 0; i < RIGHTSIZE_ROOM_STEPS; i++) {
        const struct rightsize_bounds b = rightsize_measured(r, op, k, all, factor(r, i));
        const float slower = rightsize_point(op, b.use)->median_ns / b.all_ns;
        /* With something left to try it is not known, or what it was before, and no less than with what would be used until then. */
        if (!rightsize_next_try(r, op, k, &b) || (op->slower[i] > 0 && slower > op->slower[i]))
            op->slower[i] = slower;
    }
}

static void judge(struct lithos_rightsize *r)
{
    struct rightsize_room *m = &r->room;
    const float most_us = may_us(r, 1), up_us = may_us(r, UP_PART);
    uint32_t step = 0;

    while (is_idle(m) && step + 1 < RIGHTSIZE_ROOM_STEPS &&
           m->late_us[step + 1] <= (step < m->step ? most_us : up_us))
        step++;
    if (step != m->step)
        m->next_us = 0;
    m->step = step;
}

static void remember_last(struct lithos_rightsize *r)
{
    const struct rightsize_room *m = &r->room;

    for (unsigned i = 0; i < m->last_count; i++) {
        struct rightsize_operator *op = &r->op[m->last[i].op];
        if (op->tag == m->last[i].tag)
            op->last_until = r->stats.requests + LAST_REQUESTS;
    }
}

/* Its kernels are all there. */
static void complete(struct lithos_rightsize *r)
{
    struct rightsize_room *m = &r->room;
    const bool known = !m->request.unseen && m->kernels &&
                       m->kernels * 10 >= m->request.launches * KNOWN_OF_TEN &&
                       m->kernels * KNOWN_OF_TEN <= m->request.launches * 10;

    if (m->request.alone && known) {
        /* The host has become faster: what was before says nothing any more. */
        const bool forget = m->step && m->late_ns[m->step] > OVER * 1000 * may_us(r, 1);
        r->stats.reckoned++;
        m->unreckoned = 0;
        m->requests = forget ? ENOUGH : LITHOS_MIN(m->requests + 1, REMEMBERED);
        const float weight = forget ? 1 : 1 / (float)m->requests;
        m->took_us += ((float)(m->end_ns - m->begin_ns) / 1000 - m->took_us) * weight;
        m->idle_us += (m->idle_ns / 1000 - m->idle_us) * weight;
        m->next_us += (m->next_ns / 1000 - m->next_us) * weight;
        for (unsigned i = 0; i < RIGHTSIZE_ROOM_STEPS; i++)
            m->late_us[i] += (m->late_ns[i] / 1000 - m->late_us[i]) * weight;
        remember_last(r);
        judge(r);
    } else if (m->request.alone) {
        r->stats.unreckoned++;
        if (++m->unreckoned == ENOUGH) { /* what was before says nothing any more */
            m->requests = 0;
            judge(r);
        }
    }
    rightsize_room_pause(r);
}

void rightsize_room_pause(struct lithos_rightsize *r)
{
    struct rightsize_room *m = &r->room;

    m->request = (struct rightsize_room_request){0};
    m->kernels = m->last_count = 0;
    m->idle_ns = m->next_ns = 0;
    memset(m->lag_ns, 0, sizeof m->lag_ns);
    memset(m->late_ns, 0, sizeof m->late_ns);
}

void rightsize_room_request(struct lithos_rightsize *r, uint64_t now_ns, uint32_t launches, bool alone)
{
    struct rightsize_room *m = &r->room;

    if (m->request.ended_ns)
        complete(r);
    m->request = (struct rightsize_room_request){
        .ended_ns = now_ns, .launches = launches, .alone = alone, .unseen = m->unseen};
    m->unseen = false;
}

void lithos_rightsize_unseen(struct lithos_rightsize *r)
{
    r->room.unseen = true;
}

/* What it would take on all TPCs. */
static float whole_ns(const struct rightsize_operator *op, const struct lithos_rightsize_run *run)
{
    const struct rightsize_point *all = op ? rightsize_point(op, run->all) : NULL;
    const struct rightsize_point *ran = op ? rightsize_point(op, run->tpcs) : NULL;
    const float took_ns = (float)run->took_ns;

    return run->tpcs < run->all && all && ran && all->count && ran->count && ran->median_ns > 0
               ? took_ns * all->median_ns / ran->median_ns
               : took_ns;
}

static float longer_ns(const struct lithos_rightsize *r, const struct rightsize_operator *op, uint32_t step,
                       float took_ns)
{
    const float slower = op && op->slower[step] > 0 ? op->slower[step] : step ? factor(r, step) : 1;

    return (slower - 1) * took_ns;
}

void lithos_rightsize_ran(struct lithos_rightsize *r, const struct lithos_rightsize_run *run)
{
    struct rightsize_room *m = &r->room;
    const struct rightsize_operator *op = run->key ? rightsize_find(r, run->key, false) : NULL;
    const uint32_t next = LITHOS_MIN(m->step + 1, RIGHTSIZE_ROOM_STEPS - 1);

    if (m->request.ended_ns && run->ready_ns >= m->request.ended_ns)
        complete(r);
    const float took_ns = whole_ns(op, run);
    if (!m->kernels)
        m->begin_ns = m->end_ns = (double)run->ready_ns;
    const double free_ns = m->end_ns + (double)TURN_NS;
    const float idle_ns = (double)run->ready_ns > free_ns ? (float)((double)run->ready_ns - free_ns) : 0;
    if (idle_ns > 0)
        m->last_count = 0;
    const bool last = op && m->last_count < RIGHTSIZE_ROOM_LAST;
    if (last) {
        m->last[m->last_count].op = (uint32_t)(op - r->op);
        m->last[m->last_count++].tag = op->tag;
    }
    for (unsigned i = 0; i < RIGHTSIZE_ROOM_STEPS; i++) {
        const float longer = run->key ? longer_ns(r, op, i, took_ns) : 0;
        if (idle_ns > 0) /* it makes up for some */
            m->late_ns[i] = m->lag_ns[i] = LITHOS_MAX(m->lag_ns[i] - idle_ns, 0.0f);
        m->lag_ns[i] += longer;
        m->late_ns[i] += last ? LITHOS_MIN(longer, longer_ns(r, op, 0, took_ns)) : longer;
    }
    const float known_ns = op && op->slower[next] > 0 ? (op->slower[next] - 1) * took_ns : 0;
    m->next_ns = LITHOS_MAX(m->next_ns - idle_ns, 0.0f) + known_ns;
    m->end_ns = LITHOS_MAX(m->end_ns, (double)run->ready_ns) + (double)took_ns;
    m->idle_ns += idle_ns;
    m->kernels++;
}
