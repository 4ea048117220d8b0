/* How much slower kernels may be before their requests are: a host that launches more slowly than the card runs leaves the card idle within
 * a request, and a kernel that takes longer runs into that time first. */
#include <string.h>

#include "core/rightsize_internal.h"

/* So many times as long kernels may take; the first is the slip. */
static float factor(const struct lithos_rightsize *r, uint32_t step)
{
    static const float factors[RIGHTSIZE_ROOM_STEPS] = {1, 1.25f, 1.5f, 1.75f, 2, 2.5f, 3, 4};
    const float slip = (float)r->config.slip_ppm / (float)LITHOS_RIGHTSIZE_PPM;

    return LITHOS_MAX(factors[step], slip);
}

/* Of what requests may take longer, this part may be for kernels that are slower than the slip alone would have them. */
#define PART 0.1f
/* A step up takes so much less than that. */
#define UP_PART 0.8f
/* From one kernel's end to the next one's start, where that waited in its queue: a turn of the card, and how well starts are known. */
#define TURN_NS 3000u
/* References before anything is said; and that are remembered, about. */
#define ENOUGH 8u
#define REMEMBERED 16u
/* References on end that would have been over the slip: the rest is forgotten. */
#define OVER_MOST 2u
/* The card is idle within requests: for such a part of them. */
#define IDLE_PART 0.05f
/* An operator is looked at once in so many launches. */
#define LOOK_EVERY 8u
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

bool rightsize_is_last(const struct lithos_rightsize *r, const struct rightsize_operator *op)
{
    return r->stats.references < op->last_until;
}

static void remember_last(struct lithos_rightsize *r)
{
    const struct rightsize_room *m = &r->room;

    for (unsigned i = 0; i < m->last_count; i++) {
        struct rightsize_operator *op = &r->op[m->last[i].op];
        if (op->tag == m->last[i].tag)
            op->last_until = r->stats.references + REMEMBERED;
    }
}

double rightsize_idle_ns(const struct lithos_rightsize *r)
{
    return r->room.references >= ENOUGH ? (double)r->room.idle_us * 1000 : 0;
}

/* Later than by the slip alone. */
static float may_us(const struct rightsize_room *m, float slip)
{
    return m->late_us[0] + PART * (slip - 1) * m->took_us;
}

/* What is known of kernels alone may say that requests do not bear it: then nothing is tried for it. */
float rightsize_next_kernel_slip(const struct lithos_rightsize *r)
{
    const struct rightsize_room *m = &r->room;
    const bool is_worth = m->references >= ENOUGH && m->step + 1 < RIGHTSIZE_ROOM_STEPS &&
                          m->idle_us > IDLE_PART * m->took_us && m->next_us <= may_us(m, factor(r, 0));

    return slip_at(r, m->step + is_worth);
}

void rightsize_room_operator(const struct lithos_rightsize *r, struct rightsize_operator *op,
                             const struct lithos_rightsize_kernel *k, const struct rightsize_point *all)
{
    if (op->looked++ % LOOK_EVERY)
        return;
    for (unsigned i = 0; i < RIGHTSIZE_ROOM_STEPS; i++) {
        const struct rightsize_bounds b = rightsize_measured(r, op, k, all, factor(r, i));
        if (!rightsize_next_try(r, op, k, &b))
            op->slower[i] = rightsize_point(op, b.use)->median_ns / b.all_ns;
    }
}

static void judge(struct lithos_rightsize *r)
{
    struct rightsize_room *m = &r->room;
    const float most_us = may_us(m, factor(r, 0));
    const float up_us = m->late_us[0] + UP_PART * (most_us - m->late_us[0]);
    uint32_t step = 0;

    if (m->references < ENOUGH)
        return;
    while (step + 1 < RIGHTSIZE_ROOM_STEPS && m->late_us[step + 1] <= (step < m->step ? most_us : up_us))
        step++;
    if (step != m->step)
        m->next_us = 0;
    m->step = step;
}

/* Its kernels are all there. */
static void complete(struct lithos_rightsize *r)
{
    struct rightsize_room *m = &r->room;
    const float may_ns = (factor(r, 0) - 1) * m->request.took_us * 1000;
    const bool known = m->kernels * 10 >= m->request.launches * KNOWN_OF_TEN &&
                       m->kernels * KNOWN_OF_TEN <= m->request.launches * 10;

    if (m->request.counts && known && m->kernels) {
        const bool over = m->step && m->lag_ns[m->step] > may_ns;
        m->over = over ? m->over + 1 : 0;
        const bool forget = m->over == OVER_MOST;
        m->over = forget ? 0 : m->over;
        m->references = forget ? ENOUGH : LITHOS_MIN(m->references + 1, REMEMBERED);
        const float weight = forget ? 1 : 1 / (float)m->references;
        m->took_us += (m->request.took_us - m->took_us) * weight;
        m->idle_us += (m->idle_ns / 1000 - m->idle_us) * weight;
        m->next_us += (m->next_ns / 1000 - m->next_us) * weight;
        for (unsigned i = 0; i < RIGHTSIZE_ROOM_STEPS; i++)
            m->late_us[i] += (m->lag_ns[i] / 1000 - m->late_us[i]) * weight;
        remember_last(r);
        judge(r);
    }
    rightsize_room_pause(r);
}

void rightsize_room_pause(struct lithos_rightsize *r)
{
    r->room.request = (struct rightsize_room_request){0};
    r->room.kernels = 0;
    r->room.last_ns = 0;
    r->room.idle_ns = 0;
    r->room.last_count = 0;
}

void rightsize_room_request(struct lithos_rightsize *r, uint64_t now_ns, uint64_t latency_ns,
                            uint32_t launches, bool reference)
{
    struct rightsize_room *m = &r->room;

    if (m->request.ended_ns)
        complete(r);
    m->request = (struct rightsize_room_request){.ended_ns = now_ns,
                                                 .took_us = (float)latency_ns / 1000,
                                                 .launches = launches,
                                                 .counts = reference && !m->unseen};
    m->unseen = false;
}

void lithos_rightsize_unseen(struct lithos_rightsize *r)
{
    r->room.unseen = true;
}

void lithos_rightsize_ran(struct lithos_rightsize *r, uint64_t key, uint64_t launched_ns, uint64_t start_ns,
                          uint64_t end_ns)
{
    struct rightsize_room *m = &r->room;
    const struct rightsize_operator *op = key ? rightsize_find(r, key, false) : NULL;

    if (m->request.ended_ns && launched_ns >= m->request.ended_ns)
        complete(r);
    const uint64_t idle_ns = m->kernels && start_ns > m->last_ns ? start_ns - m->last_ns : 0;
    const float made_up_ns = idle_ns > TURN_NS ? (float)(idle_ns - TURN_NS) : 0;
    const float took_ns = end_ns > start_ns ? (float)(end_ns - start_ns) : 0;
    for (unsigned i = 0; i < RIGHTSIZE_ROOM_STEPS; i++) {
        const float lag_ns = m->kernels ? LITHOS_MAX(m->lag_ns[i] - made_up_ns, 0.0f) : 0;
        const float slower = op && op->slower[i] > 0 ? op->slower[i] : factor(r, i);
        m->lag_ns[i] = lag_ns + (key ? slower - 1 : 0) * took_ns;
    }
    const uint32_t next = LITHOS_MIN(m->step + 1, RIGHTSIZE_ROOM_STEPS - 1);
    const float known = op && op->slower[next] > 0 ? op->slower[next] - 1 : 0;
    m->next_ns = (m->kernels ? LITHOS_MAX(m->next_ns - made_up_ns, 0.0f) : 0) + known * took_ns;
    if (made_up_ns > 0)
        m->last_count = 0;
    if (op && m->last_count < RIGHTSIZE_ROOM_LAST) {
        m->last[m->last_count].op = (uint32_t)(op - r->op);
        m->last[m->last_count++].tag = op->tag;
    }
    m->idle_ns += made_up_ns;
    m->kernels++;
    m->last_ns = LITHOS_MAX(end_ns, m->last_ns);
}
