/* Domains of the wave model take turns on the card, as processes do without MPS (compare slice.c). A turn is as long
 * as the slice of the domain that has it. */
#include "model/wave_internal.h"

/* The next domain of the ring after `from` that wants a turn; NULL when no other does. */
static struct lithos_wave_domain *next_active(const struct lithos_wave *w, struct lithos_wave_domain *from)
{
    struct lithos_wave_domain *last = from ? from : w->domains, *d = last;
    lithos_assert(d); /* who asks is one */
    do {
        d = d->next;
        lithos_assert(d); /* it is a ring */
        if (d != from && d->active)
            return d;
    } while (d != last);
    return NULL;
}

static void give_turn(struct lithos_wave *w, struct lithos_wave_domain *d)
{
    w->current = d;
    w->coming = NULL;
    w->phase = WAVE_RUN;
    w->phase_end_ns = LITHOS_WAVE_NEVER;
    w->slice_start_ns = w->now_ns;
    d->offset_ns = w->now_ns - d->frozen_ns;
    d->running = true;
    wave_place_all(w, d);
}

static void restore(struct lithos_wave *w, struct lithos_wave_domain *d)
{
    if (w->current && w->current->running) {
        w->current->frozen_ns = w->now_ns - w->current->offset_ns;
        w->current->running = false;
    }
    w->coming = d;
    w->phase = WAVE_RESTORE;
    w->phase_end_ns = w->now_ns + w->card.restore_ns;
}

/* Who wants a turn has changed. */
static void consider(struct lithos_wave *w)
{
    if (w->phase != WAVE_RUN)
        return;
    struct lithos_wave_domain *other = next_active(w, w->current);
    if (!other) {
        w->phase_end_ns = LITHOS_WAVE_NEVER;
    } else if (!w->current) {
        /* nothing on the card: nothing to save, and what comes starts clean */
        give_turn(w, other);
        consider(w);
    } else if (!w->current->active) {
        restore(w, other);
    } else if (w->phase_end_ns == LITHOS_WAVE_NEVER) {
        /* turns of a domain alone follow one another: the one that runs now ends at its own time */
        const uint64_t slice = w->current->slice_ns;
        const uint64_t length = slice + wave_mul_div(slice, w->card.slice_overrun_ppm, LITHOS_WAVE_PPM);
        const uint64_t turns = (w->now_ns - w->slice_start_ns) / length + 1;
        w->phase_end_ns = w->slice_start_ns + turns * length;
    }
}

void wave_slice_active(struct lithos_wave *w, struct lithos_wave_domain *d, int change)
{
    const bool was = d->active > 0;
    lithos_assert(change > 0 || d->active >= (uint32_t)-change);
    d->active += (uint32_t)change;
    if (was != (d->active > 0))
        consider(w);
}

void wave_slice_timer(struct lithos_wave *w)
{
    struct lithos_wave_domain *other;

    switch (w->phase) {
    case WAVE_RUN:
        w->phase_end_ns = LITHOS_WAVE_NEVER;
        if (next_active(w, w->current)) {
            w->phase = WAVE_PREEMPT;
            w->phase_end_ns = w->now_ns + w->card.preempt_ns;
        }
        break;
    case WAVE_PREEMPT:
        other = next_active(w, w->current);
        if (other) {
            restore(w, other);
        } else {
            w->phase = WAVE_RUN;
            w->phase_end_ns = LITHOS_WAVE_NEVER;
        }
        break;
    case WAVE_RESTORE:
        give_turn(w, w->coming);
        consider(w);
        break;
    }
}
