/* Tenants, events, and grants handed out. */
#include "core/sched.h"

#include <errno.h>
#include <string.h>

#include "core/sched_internal.h"

void lithos_sched_config_defaults(struct lithos_sched_config *c)
{
    c->tenants = LITHOS_SCHED_TENANTS_MAX;
    c->react_ns = 10 * LITHOS_NSEC_PER_USEC;
    c->reach_ns = 5 * LITHOS_NSEC_PER_USEC;
    c->window_ns = 100 * LITHOS_NSEC_PER_USEC;
    c->lent_window_ns = 25 * LITHOS_NSEC_PER_USEC;
    c->atom_ns = 250 * LITHOS_NSEC_PER_USEC;
    c->idle_longest_ns = 2 * LITHOS_NSEC_PER_MSEC;
    c->useful_ns = 30 * LITHOS_NSEC_PER_USEC;
    c->turn_ns = 2 * LITHOS_NSEC_PER_MSEC;
    c->starved_ns = 100 * LITHOS_NSEC_PER_MSEC;
    c->slip_ppm = 1100000;
    c->hit_ppm = 5000;
    c->thin_ppm = 250000;
}

static int check_config(const struct lithos_sched_config *c)
{
    if (lithos_topology_validate(&c->topology) < 0 || !c->policy || !c->policy->plan || !c->tenants ||
        c->tenants > LITHOS_SCHED_TENANTS_MAX)
        return -EINVAL;
    if (c->hit_ppm > LITHOS_SCHED_PPM || c->thin_ppm > LITHOS_SCHED_PPM || c->slip_ppm < LITHOS_SCHED_PPM ||
        !c->turn_ns || !c->useful_ns)
        return -EINVAL;
    return 0;
}

int lithos_sched_size(const struct lithos_sched_config *config, size_t *ret_bytes)
{
    const int r = check_config(config);
    if (r < 0)
        return r;
    *ret_bytes = sizeof(struct lithos_sched) + config->tenants * sizeof(struct sched_tenant);
    return 0;
}

int lithos_sched_init(void *mem, size_t bytes, const struct lithos_sched_config *config,
                      struct lithos_sched **ret_sched)
{
    struct lithos_sched *s = mem;
    size_t need;
    const int r = lithos_sched_size(config, &need);

    if (r < 0)
        return r;
    if (bytes < need)
        return -ENOSPC;
    memset(s, 0, need);
    s->config = *config;
    s->timer_ns = LITHOS_SCHED_NEVER;
    s->unowned = config->topology.valid;
    for (uint32_t g = 0; g < config->topology.gpc_count; g++)
        s->gpc[g] = lithos_topology_gpc(&config->topology, g);
    memset(s->tpc_user, SCHED_NOBODY, sizeof s->tpc_user);
    *ret_sched = s;
    return 0;
}

static void advance(struct lithos_sched *s, uint64_t now_ns)
{
    s->now_ns = LITHOS_MAX(s->now_ns, now_ns);
}

static struct sched_tenant *find(struct lithos_sched *s, uint32_t slot)
{
    return slot < s->config.tenants && s->tenants[slot].used ? &s->tenants[slot] : NULL;
}

/* --- tenants --- */

static int check_tenant(const struct lithos_sched *s, const struct lithos_sched_tenant *d)
{
    const struct lithos_tpcset strange = lithos_tpcset_minus(d->own, s->config.topology.valid);

    if (!d->id || (unsigned)d->class >= LITHOS_SCHED_CLASS_MAX || d->weight > 1000 ||
        !lithos_tpcset_empty(&strange) || (d->slip_ppm && d->slip_ppm < LITHOS_SCHED_PPM))
        return -EINVAL;
    return 0;
}

static bool owned_by_others(const struct lithos_sched *s, const struct lithos_tpcset *own, uint32_t slot)
{
    for (uint32_t i = 0; i < s->config.tenants; i++) {
        const struct lithos_tpcset both = lithos_tpcset_and(s->tenants[i].desc.own, *own);
        if (s->tenants[i].used && i != slot && !lithos_tpcset_empty(&both))
            return true;
    }
    return false;
}

static void count_unowned(struct lithos_sched *s)
{
    const struct sched_tenant *t;

    s->unowned = s->config.topology.valid;
    sched_each(s, t) s->unowned = lithos_tpcset_minus(s->unowned, t->desc.own);
    s->dirty = true;
}

static void note_place(struct lithos_sched *s, uint32_t slot)
{
    const uint64_t bit = 1ull << slot;
    s->placed = lithos_tpcset_empty(&s->tenants[slot].desc.place) ? s->placed & ~bit : s->placed | bit;
}

int lithos_sched_add(struct lithos_sched *s, uint64_t now_ns, const struct lithos_sched_tenant *tenant,
                     uint32_t *ret_slot)
{
    uint32_t free_slot = s->config.tenants;
    const int r = check_tenant(s, tenant);

    if (r < 0)
        return r;
    advance(s, now_ns);
    for (uint32_t i = s->config.tenants; i-- > 0;) {
        if (!s->tenants[i].used)
            free_slot = i;
        else if (s->tenants[i].desc.id == tenant->id)
            return -EEXIST;
    }
    if (owned_by_others(s, &tenant->own, UINT32_MAX))
        return -EBUSY;
    if (free_slot == s->config.tenants)
        return -ENFILE;
    struct sched_tenant *t = &s->tenants[free_slot];
    memset(t, 0, sizeof(*t));
    t->used = t->stale = true;
    t->desc = *tenant;
    t->state_ns = t->settled_ns = t->progress_ns = s->now_ns;
    s->used |= 1ull << free_slot;
    note_place(s, free_slot);
    s->busy &= ~(1ull << free_slot);
    s->fresh |= 1ull << free_slot;
    sched_owner_init(t);
    t->grant = sched_grant_own(s, t);
    count_unowned(s);
    *ret_slot = free_slot;
    return 0;
}

int lithos_sched_change(struct lithos_sched *s, uint64_t now_ns, uint32_t slot,
                        const struct lithos_sched_tenant *tenant)
{
    struct sched_tenant *t = find(s, slot);

    if (!t)
        return -ENOENT;
    const int r = tenant->id == t->desc.id ? check_tenant(s, tenant) : -EINVAL;
    if (r < 0)
        return r;
    if (owned_by_others(s, &tenant->own, slot))
        return -EBUSY;
    advance(s, now_ns);
    sched_settle(t, s->now_ns);
    t->desc = *tenant;
    note_place(s, slot);
    t->strip = (struct lithos_tpcset){{0, 0}};
    t->stale = true;
    count_unowned(s);
    return 0;
}

int lithos_sched_remove(struct lithos_sched *s, uint64_t now_ns, uint32_t slot)
{
    struct sched_tenant *t = find(s, slot);

    if (!t)
        return -ENOENT;
    advance(s, now_ns);
    t->used = false;
    s->used &= ~(1ull << slot);
    s->busy &= ~(1ull << slot);
    s->fresh &= ~(1ull << slot);
    s->placed &= ~(1ull << slot);
    for (unsigned b = 0; b < LITHOS_TPC_BITS; b++)
        if (s->tpc_user[b] == slot)
            s->tpc_user[b] = SCHED_NOBODY;
    count_unowned(s);
    return 0;
}

/* --- events --- */

/* Who comes to have work is even with who has had least of those who have: being idle saves nothing up. */
static void join_sharing(struct lithos_sched *s, struct sched_tenant *t)
{
    uint64_t least = UINT64_MAX;

    for (uint64_t busy = s->busy; busy; busy &= busy - 1) {
        struct sched_tenant *o = &s->tenants[__builtin_ctzll(busy)];
        if (o == t || !o->desc.weight)
            continue;
        sched_settle(o, s->now_ns);
        least = LITHOS_MIN(least, o->account_tpc_ns);
    }
    if (least != UINT64_MAX)
        t->account_tpc_ns = LITHOS_MAX(t->account_tpc_ns, least);
}

static void busy_changes(struct lithos_sched *s, struct sched_tenant *t, bool was)
{
    const bool is = sched_is_busy(t);
    const uint64_t bit = 1ull << sched_slot(s, t);

    if (was == is)
        return;
    s->busy = is ? s->busy | bit : s->busy & ~bit;
    t->state_ns = s->now_ns;
    s->dirty = true;
    if (!is)
        return;
    t->progress_ns = s->now_ns;
    join_sharing(s, t);
}

#define PREDICTED_MAX_NS (3600 * LITHOS_NSEC_PER_SEC)

/* Its work is on TPCs of others until then. */
static void stays(struct lithos_sched *s, const struct sched_tenant *t, const struct lithos_tpcset *tpcs,
                  uint64_t end_ns)
{
    const struct lithos_tpcset foreign = lithos_tpcset_minus(*tpcs, t->desc.own);

    for (unsigned b = lithos_tpcset_next(&foreign, 0); b < LITHOS_TPC_BITS;
         b = lithos_tpcset_next(&foreign, b + 1)) {
        s->tpc_user[b] = (uint8_t)sched_slot(s, t);
        s->tpc_end_ns[b] = end_ns;
    }
}

static void strip_changes(struct lithos_sched *s, struct sched_tenant *t, struct lithos_tpcset strip,
                          uint64_t bears_ns)
{
    strip = lithos_tpcset_and(strip, t->desc.own);
    if (sched_is_best_effort(t) || lithos_tpcset_empty(&strip))
        strip = (struct lithos_tpcset){{0, 0}};
    if (lithos_tpcset_equal(&strip, &t->strip) && bears_ns == t->strip_bears_ns)
        return;
    t->strip = strip;
    t->strip_bears_ns = bears_ns;
    s->dirty = true;
}

/* Does it go where it said that it would not? */
static bool meets_strip(const struct sched_tenant *t, const struct lithos_tpcset *tpcs)
{
    const struct lithos_tpcset both = lithos_tpcset_and(*tpcs, t->strip);
    return !lithos_tpcset_empty(&both);
}

static void launched(struct lithos_sched *s, struct sched_tenant *t, const struct lithos_sched_event *e)
{
    const uint64_t submit_ns = LITHOS_MIN(e->launch.submit_ns, s->now_ns);
    const uint64_t predicted_ns = LITHOS_MIN(e->launch.predicted_ns, PREDICTED_MAX_NS);
    const bool was = sched_is_busy(t);
    const uint64_t before_ns = LITHOS_MAX(t->end_ns, submit_ns + s->config.reach_ns);

    if (meets_strip(t, &e->launch.tpcs))
        strip_changes(s, t, (struct lithos_tpcset){{0, 0}}, 0);
    if (!was)
        sched_owner_returns(s, t, submit_ns);
    else if (t->outstanding)
        sched_owner_follows(t, submit_ns);
    t->outstanding++;
    t->outstanding_ns += predicted_ns;
    t->end_ns = before_ns + predicted_ns;
    sched_note_launch(t, predicted_ns, e->launch.flags);
    t->cluster_blocks = LITHOS_MIN(e->launch.cluster_blocks, LITHOS_CLUSTER_MAX);
    t->progress_ns = s->now_ns;
    if (t->fed)
        s->dirty = true;
    stays(s, t, &e->launch.tpcs,
          e->launch.stays_ns ? before_ns + LITHOS_MIN(e->launch.stays_ns, predicted_ns) : t->end_ns);
    busy_changes(s, t, was);
}

/* Given when the one before it is nearly over. */
static void atom_launched(struct lithos_sched *s, struct sched_tenant *t, const struct lithos_sched_event *e)
{
    const uint64_t submit_ns = LITHOS_MIN(e->launch.submit_ns, s->now_ns);

    stays(s, t, &e->launch.tpcs,
          submit_ns + s->config.reach_ns + s->config.lent_window_ns +
              LITHOS_MIN(e->launch.stays_ns, PREDICTED_MAX_NS));
}

static void ended(struct lithos_sched *s, struct sched_tenant *t, const struct lithos_sched_event *e)
{
    const bool was = sched_is_busy(t);

    if (!t->outstanding) {
        s->strange++;
        return;
    }
    t->outstanding--;
    t->outstanding_ns -= LITHOS_MIN(LITHOS_MIN(e->done.predicted_ns, PREDICTED_MAX_NS), t->outstanding_ns);
    if (e->kind == LITHOS_SCHED_DONE)
        sched_owner_done(s, t, e->done.submit_ns, e->done.start_ns, e->done.end_ns, e->done.predicted_ns);
    const uint64_t ended_ns =
        e->kind == LITHOS_SCHED_DONE ? LITHOS_MIN(e->done.end_ns, s->now_ns) : s->now_ns;
    t->ended_ns = LITHOS_MAX(t->ended_ns, ended_ns);
    if (!t->outstanding) {
        t->outstanding_ns = 0;
        if (s->withheld) /* soon, but not with every end */
            sched_wake_at(s, s->planned_ns + s->config.useful_ns);
        if (t->queued) /* from now on it may starve, and no plan has said so */
            sched_wake_at(s, t->progress_ns + s->config.starved_ns);
    }
    /* what was ahead of the others is over, or was taken back: none of them ends later than all of them take from now */
    t->end_ns = LITHOS_MIN(t->end_ns, s->now_ns + t->outstanding_ns);
    busy_changes(s, t, was);
    /* Idle since then, and not since it was seen: nobody looks often while nobody borrows. */
    if (!sched_is_busy(t))
        t->state_ns = t->ended_ns;
}

static void queue_changed(struct lithos_sched *s, struct sched_tenant *t, const struct lithos_sched_event *e)
{
    const bool was = sched_is_busy(t);

    if (!was && e->queue.launches)
        sched_owner_returns(s, t, s->now_ns);
    if (!t->queued && e->queue.launches)
        t->progress_ns = s->now_ns;
    const uint32_t cluster = LITHOS_MIN(e->queue.cluster_blocks, LITHOS_CLUSTER_MAX);
    if (cluster > 1 && cluster > t->cluster_blocks)
        s->dirty = true; /* its share may have to lie elsewhere */
    if (cluster)
        t->cluster_blocks = cluster;
    if (e->queue.resident_tpcs > t->resident_tpcs)
        s->dirty = true; /* its share may have to be larger */
    t->resident_tpcs = e->queue.launches ? LITHOS_MIN(e->queue.resident_tpcs, LITHOS_TPC_BITS) : 0;
    t->queued = e->queue.launches;
    t->head_ns = e->queue.head_ns;
    t->head_why = (unsigned)e->queue.why < LITHOS_PICK_MAX ? e->queue.why : LITHOS_PICK_RUN;
    busy_changes(s, t, was);
}

void lithos_sched_event(struct lithos_sched *s, uint64_t now_ns, const struct lithos_sched_event *e)
{
    struct sched_tenant *t = find(s, e->slot);

    advance(s, now_ns);
    if (!t) {
        s->strange++;
        return;
    }
    sched_settle(t, s->now_ns);
    switch (e->kind) {
    case LITHOS_SCHED_LAUNCH:
        launched(s, t, e);
        break;
    case LITHOS_SCHED_ATOM:
        atom_launched(s, t, e);
        break;
    case LITHOS_SCHED_DONE:
    case LITHOS_SCHED_LOST:
        ended(s, t, e);
        break;
    case LITHOS_SCHED_QUEUE:
        queue_changed(s, t, e);
        break;
    case LITHOS_SCHED_LEASE_LOST:
    case LITHOS_SCHED_LEASE_BACK:
        t->lease_lost = e->kind == LITHOS_SCHED_LEASE_LOST;
        s->dirty = true;
        break;
    case LITHOS_SCHED_STRIP:
        strip_changes(s, t, e->strip.tpcs, e->strip.bears_ns);
        break;
    default:
        s->strange++;
        return;
    }
    if (s->config.policy->event && s->config.policy->event(s, t, e))
        s->dirty = true;
}

/* --- grants --- */

struct lithos_tpcgrant sched_grant_own(const struct lithos_sched *s, const struct sched_tenant *t)
{
    return (struct lithos_tpcgrant){
        .own = t->desc.own,
        .window_ns = s->config.window_ns,
        .lent_window_ns = s->config.lent_window_ns,
        .thin_ppm = s->config.thin_ppm,
    };
}

void sched_publish(struct lithos_sched *s, struct sched_tenant *t, const struct lithos_tpcgrant *g)
{
    struct lithos_tpcgrant next = *g;

    next.epoch = t->grant.epoch;
    if (memcmp(&next, &t->grant, sizeof next) == 0)
        return;
    sched_settle(t, s->now_ns);
    t->grant = next;
    t->grant.epoch++;
    s->fresh |= 1ull << sched_slot(s, t);
}

void lithos_sched_run(struct lithos_sched *s, uint64_t now_ns)
{
    advance(s, now_ns);
    if (!s->dirty && s->timer_ns > s->now_ns)
        return;
    s->dirty = false;
    s->timer_ns = LITHOS_SCHED_NEVER;
    s->planned_ns = s->now_ns;
    s->config.policy->plan(s);
}

uint64_t lithos_sched_timer_ns(const struct lithos_sched *s)
{
    return s->dirty ? s->now_ns : s->timer_ns;
}

bool lithos_sched_next(struct lithos_sched *s, uint32_t *ret_slot, const struct lithos_tpcgrant **ret_grant)
{
    if (!s->fresh)
        return false;
    *ret_slot = (uint32_t)__builtin_ctzll(s->fresh);
    *ret_grant = &s->tenants[*ret_slot].grant;
    s->fresh &= s->fresh - 1;
    return true;
}

const struct lithos_tpcgrant *lithos_sched_grant(const struct lithos_sched *s, uint32_t slot)
{
    return slot < s->config.tenants && s->tenants[slot].used ? &s->tenants[slot].grant : NULL;
}

struct lithos_tpcset lithos_sched_lent_away(const struct lithos_sched *s, uint32_t slot)
{
    const struct lithos_tpcset none = {{0, 0}};
    return lithos_sched_grant(s, slot) ? s->tenants[slot].lent_away : none;
}

bool lithos_sched_bears(struct lithos_sched *s, uint32_t slot, uint64_t longest_ns)
{
    struct sched_tenant *t;

    sched_each(s, t)
    {
        uint64_t bears_ns, until_ns;
        if (sched_slot(s, t) == slot || sched_is_best_effort(t) || lithos_tpcset_empty(&t->desc.own))
            continue;
        sched_owner_bears(s, t, &bears_ns, &until_ns);
        if (bears_ns < longest_ns && until_ns < s->now_ns + longest_ns)
            return false;
    }
    return true;
}

uint64_t lithos_sched_strange(const struct lithos_sched *s)
{
    return s->strange;
}
