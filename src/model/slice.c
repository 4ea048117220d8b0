/* Domains take turns on the card, as processes do without MPS. A domain that wants no turn costs nothing. */
#include <stdlib.h>

#include "model/internal.h"

struct domain *slice_domain_get(struct lithos_model *m, uint64_t number)
{
    struct domain *d = m->domains;
    if (d) {
        do {
            if (d->number == number) {
                d->contexts++;
                return d;
            }
            d = d->next;
        } while (d != m->domains);
    }
    d = model_alloc(sizeof *d);
    d->number = number;
    d->contexts = 1;
    place_domain_init(m, d);
    if (m->domains) {
        d->next = m->domains->next;
        m->domains->next = d;
    } else {
        d->next = d;
        m->domains = d;
    }
    return d;
}

/* The next domain of the ring after `from` that wants a turn; NULL when no other does. */
static struct domain *next_active(const struct lithos_model *m, struct domain *from)
{
    if (!m->domains)
        return NULL;
    struct domain *last = from ? from : m->domains, *d = last;
    do {
        d = d->next;
        lithos_assert(d); /* it is a ring */
        if (d != from && d->active)
            return d;
    } while (d != last);
    return NULL;
}

static void freeze(struct lithos_model *m, struct domain *d)
{
    if (!d || !d->running)
        return;
    d->frozen_ns = m->now_ns - d->offset_ns;
    d->running = false;
}

static void run(struct lithos_model *m, struct domain *d)
{
    m->current = d;
    m->coming = NULL;
    m->phase = PHASE_RUN;
    m->phase_end_ns = LITHOS_MODEL_NEVER;
    m->slice_start_ns = m->now_ns;
    d->offset_ns = m->now_ns - d->frozen_ns;
    d->running = true;
    place_all(m, d);
}

static uint64_t slice_length_ns(const struct lithos_model *m, const struct domain *d)
{
    uint64_t slice = d->slice_ns ? d->slice_ns : m->card.slice_ns;
    return slice + slice * m->card.slice_overrun_ppm / FULL_PPM;
}

static void restore(struct lithos_model *m, struct domain *d)
{
    freeze(m, m->current);
    m->coming = d;
    m->phase = PHASE_RESTORE;
    m->phase_end_ns = m->now_ns + m->card.restore_ns;
}

/* Who wants a turn has changed. */
static void consider(struct lithos_model *m)
{
    if (m->phase != PHASE_RUN)
        return;
    struct domain *other = next_active(m, m->current);
    if (!other) {
        m->phase_end_ns = LITHOS_MODEL_NEVER;
        return;
    }
    if (!m->current) {
        /* nothing on the card: nothing to save, and what comes starts clean */
        run(m, other);
        consider(m);
    } else if (!m->current->active) {
        restore(m, other);
    } else if (m->phase_end_ns == LITHOS_MODEL_NEVER) {
        /* turns of a domain alone follow one another: the one that runs now ends at its own time */
        uint64_t slice = slice_length_ns(m, m->current);
        uint64_t turns = (m->now_ns - m->slice_start_ns) / slice + 1;
        m->phase_end_ns = m->slice_start_ns + turns * slice;
    }
}

void slice_active(struct lithos_model *m, struct domain *d, int change)
{
    bool was = d->active > 0;
    lithos_assert(change > 0 || d->active >= (uint32_t)-change);
    d->active += (uint32_t)change;
    if (was != (d->active > 0))
        consider(m);
}

void slice_timer(struct lithos_model *m)
{
    switch (m->phase) {
    case PHASE_RUN:
        m->phase_end_ns = LITHOS_MODEL_NEVER;
        if (next_active(m, m->current)) {
            m->phase = PHASE_PREEMPT;
            m->phase_end_ns = m->now_ns + m->card.preempt_ns;
        }
        break;
    case PHASE_PREEMPT: {
        struct domain *other = next_active(m, m->current);
        if (other) {
            restore(m, other);
        } else {
            m->phase = PHASE_RUN;
            m->phase_end_ns = LITHOS_MODEL_NEVER;
        }
        break;
    }
    case PHASE_RESTORE:
        run(m, m->coming);
        consider(m);
        break;
    }
}

void slice_set(struct lithos_model *m, struct domain *d, uint64_t slice_ns)
{
    d->slice_ns = slice_ns;
    if (m->current != d || m->phase != PHASE_RUN)
        return;
    m->phase_end_ns = LITHOS_MODEL_NEVER; /* the turn that runs is counted anew */
    consider(m);
}

void slice_domain_put(struct lithos_model *m, struct domain *d)
{
    if (--d->contexts)
        return;
    lithos_assert(!d->active && !d->head);
    struct domain *before = d;
    while (before->next != d)
        before = before->next;
    before->next = d->next;
    if (m->domains == d)
        m->domains = d->next == d ? NULL : d->next;
    if (m->coming == d) {
        m->coming = NULL;
        if (m->current && m->current != d) {
            /* back to the one that was stopped for it */
            m->coming = m->current;
        } else {
            m->current = NULL;
            m->phase = PHASE_RUN;
            m->phase_end_ns = LITHOS_MODEL_NEVER;
        }
    }
    if (m->current == d) {
        m->current = NULL;
        if (m->phase != PHASE_RESTORE) {
            m->phase = PHASE_RUN;
            m->phase_end_ns = LITHOS_MODEL_NEVER;
        }
    }
    place_busy(m, d, &m->busy_ns, &m->waits_ns);
    free(d->sms);
    free(d);
    consider(m);
}
