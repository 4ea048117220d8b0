/* Kinds of requests, by how much they launch. A program waits for more than its results: a copy or a flag between two steps makes a request of
 * 80 us between two of 12 ms. Which of them a reference falls on says nothing of right-sizing. */
#include "core/rightsize_internal.h"

/* Of one kind are those that are off by a part of its launches, or by one. It follows them, for some grow as they go on. */
#define NEAR_PART 0.25f
#define FOLLOW 16.0f
/* Less of the time than this is worth no guard, and raises no alarm. */
#define WORTH_PART 0.05f
/* Requests after which all that was before counts for half. */
#define HALVE_AFTER 256u
/* Another leads where it is more frequent by so much: of two that are as frequent the lead goes to and fro else. */
#define LEAD 1.25f

static float off(const struct rightsize_kind *k, float launches)
{
    return k->launches > launches ? k->launches - launches : launches - k->launches;
}

static struct rightsize_kind *nearest(struct rightsize_kinds *all, float launches)
{
    struct rightsize_kind *best = NULL;

    for (unsigned i = 0; i < RIGHTSIZE_KINDS; i++) {
        struct rightsize_kind *k = &all->kind[i];
        const bool is_near = off(k, launches) <= LITHOS_MAX(NEAR_PART * k->launches, 1.0f);
        if (k->used && is_near && (!best || off(k, launches) < off(best, launches)))
            best = k;
    }
    return best;
}

/* A free one, or that of the least time. */
static struct rightsize_kind *make(struct rightsize_kinds *all, float launches)
{
    struct rightsize_kind *least = NULL;

    for (unsigned i = 0; i < RIGHTSIZE_KINDS; i++) {
        struct rightsize_kind *k = &all->kind[i];
        if (k != all->leading && (!least || (least->used && (!k->used || k->us < least->us))))
            least = k;
    }
    *least = (struct rightsize_kind){.used = true, .launches = launches};
    return least;
}

static void halve(struct rightsize_kinds *all)
{
    all->ended = 0;
    all->us /= 2;
    for (unsigned i = 0; i < RIGHTSIZE_KINDS; i++) {
        all->kind[i].us /= 2;
        all->kind[i].count /= 2;
    }
}

struct rightsize_kind *rightsize_kind_of(struct lithos_rightsize *r, uint32_t launches, float us)
{
    struct rightsize_kinds *all = &r->kinds;
    struct rightsize_kind *k = nearest(all, (float)launches);

    if (!k)
        k = make(all, (float)launches);
    k->launches += ((float)launches - k->launches) / FOLLOW;
    k->us += us;
    k->count++;
    all->us += us;
    if (++all->ended >= HALVE_AFTER)
        halve(all);
    return k;
}

bool rightsize_is_guarded(const struct lithos_rightsize *r, const struct rightsize_kind *k)
{
    return k->used && k->us >= WORTH_PART * r->kinds.us;
}

struct rightsize_kind *rightsize_next_guarded(struct lithos_rightsize *r, struct rightsize_kind *k)
{
    struct rightsize_kind *end = r->kinds.kind + RIGHTSIZE_KINDS;

    for (k = k ? k + 1 : r->kinds.kind; k < end; k++)
        if (rightsize_is_guarded(r, k))
            return k;
    return NULL;
}

uint32_t rightsize_guarded(const struct lithos_rightsize *r)
{
    uint32_t n = 0;
    for (unsigned i = 0; i < RIGHTSIZE_KINDS; i++)
        n += rightsize_is_guarded(r, &r->kinds.kind[i]);
    return n;
}

void rightsize_choose_leading(struct lithos_rightsize *r)
{
    struct rightsize_kind *most = NULL;
    const struct rightsize_kind *now = r->kinds.leading;

    for (struct rightsize_kind *k = rightsize_next_guarded(r, NULL); k; k = rightsize_next_guarded(r, k))
        if (!most || k->count > most->count)
            most = k;
    if (most && (!now || !rightsize_is_guarded(r, now) || most->count > LEAD * now->count))
        r->kinds.leading = most;
}

void rightsize_drop_leading(struct lithos_rightsize *r)
{
    if (r->kinds.leading)
        r->kinds.leading->count = 0;
    r->kinds.leading = NULL;
}

static void empty(struct rightsize_sample *s)
{
    s->count = 0;
    s->reference_us = 0;
}

void rightsize_drop_samples(struct lithos_rightsize *r)
{
    for (unsigned i = 0; i < RIGHTSIZE_KINDS; i++) {
        empty(&r->kinds.kind[i].sized.sample);
        empty(&r->kinds.kind[i].lent.sample);
    }
}
