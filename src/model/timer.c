#include <stdlib.h>

#include "model/internal.h"

/* Equal times go in the order they were set, so that runs repeat. */
static bool before(const struct timer *a, const struct timer *b)
{
    return a->at_ns < b->at_ns || (a->at_ns == b->at_ns && a->seq < b->seq);
}

static void swap(struct timer *a, struct timer *b)
{
    struct timer t = *a;
    *a = *b;
    *b = t;
}

static void sift_down(struct lithos_model *m, size_t i)
{
    for (;;) {
        size_t least = i, l = 2 * i + 1, r = l + 1;
        if (l < m->timer_count && before(&m->timers[l], &m->timers[least]))
            least = l;
        if (r < m->timer_count && before(&m->timers[r], &m->timers[least]))
            least = r;
        if (least == i)
            return;
        swap(&m->timers[i], &m->timers[least]);
        i = least;
    }
}

void timer_add(struct lithos_model *m, uint64_t at_ns, struct op *op)
{
    if (m->timer_count == m->timer_room) {
        m->timer_room = m->timer_room ? 2 * m->timer_room : 64;
        m->timers = realloc(m->timers, m->timer_room * sizeof *m->timers);
        lithos_assert(m->timers);
    }
    size_t i = m->timer_count++;
    m->timers[i] = (struct timer){at_ns, m->seq++, op};
    for (; i && before(&m->timers[i], &m->timers[(i - 1) / 2]); i = (i - 1) / 2)
        swap(&m->timers[i], &m->timers[(i - 1) / 2]);
}

struct op *timer_pop(struct lithos_model *m)
{
    struct op *op = m->timers[0].op;
    m->timers[0] = m->timers[--m->timer_count];
    sift_down(m, 0);
    return op;
}

void timer_drop_context(struct lithos_model *m, const struct lithos_model_context *c)
{
    size_t kept = 0;
    for (size_t i = 0; i < m->timer_count; i++) {
        if (m->timers[i].op->stream->context != c)
            m->timers[kept++] = m->timers[i];
    }
    m->timer_count = kept;
    for (size_t i = kept / 2; i-- > 0;)
        sift_down(m, i);
}
