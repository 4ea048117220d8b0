/* Blocks and the SMs they live in. Only a domain that has its turn is stepped; its time stands still
 * otherwise. */
#include <stdlib.h>
#include <string.h>

#include "model/internal.h"

struct smset place_sms(const struct lithos_model *m, const struct lithos_tpcset *tpcs)
{
    struct smset set = {0};
    for (unsigned i = 0; i < m->sm_count; i++) {
        if (lithos_tpcset_has(tpcs, m->sm_tpc[i]))
            smset_add(&set, i);
    }
    return set;
}

void place_domain_init(const struct lithos_model *m, struct domain *d)
{
    d->sms = model_alloc(m->sm_count * sizeof *d->sms);
    for (uint32_t i = 0; i < m->sm_count; i++) {
        d->sms[i].next_ns = LITHOS_MODEL_NEVER;
        d->sms[i].heap_pos = i;
        d->heap[i] = i;
    }
}

/* --- launches with blocks to place, the most urgent and then the oldest first --- */

void place_list(struct domain *d, struct launch *l)
{
    struct launch *after = d->tail;
    while (after && (after->rank > l->rank || (after->rank == l->rank && after->seq > l->seq)))
        after = after->prev;
    l->prev = after;
    l->next = after ? after->next : d->head;
    *(l->prev ? &l->prev->next : &d->head) = l;
    *(l->next ? &l->next->prev : &d->tail) = l;
    l->listed = true;
}

void place_unlist(struct domain *d, struct launch *l)
{
    if (!l->listed)
        return;
    *(l->prev ? &l->prev->next : &d->head) = l->next;
    *(l->next ? &l->next->prev : &d->tail) = l->prev;
    l->listed = false;
}

/* --- the heap of SMs by their next event --- */

static void heap_put(struct domain *d, uint32_t pos, uint32_t sm)
{
    d->heap[pos] = sm;
    d->sms[sm].heap_pos = pos;
}

static bool heap_before(const struct domain *d, uint32_t a, uint32_t b)
{
    return d->sms[a].next_ns < d->sms[b].next_ns || (d->sms[a].next_ns == d->sms[b].next_ns && a < b);
}

static void heap_fix(const struct lithos_model *m, struct domain *d, uint32_t sm)
{
    uint32_t pos = d->sms[sm].heap_pos;
    for (; pos; pos = (pos - 1) / 2) {
        uint32_t up = d->heap[(pos - 1) / 2];
        if (!heap_before(d, sm, up))
            break;
        heap_put(d, pos, up);
    }
    for (;;) {
        uint32_t child = 2 * pos + 1;
        if (child >= m->sm_count)
            break;
        if (child + 1 < m->sm_count && heap_before(d, d->heap[child + 1], d->heap[child]))
            child++;
        if (!heap_before(d, d->heap[child], sm))
            break;
        heap_put(d, pos, d->heap[child]);
        pos = child;
    }
    heap_put(d, pos, sm);
}

uint64_t place_next_ns(const struct domain *d)
{
    return d->sms[d->heap[0]].next_ns;
}

/* --- time in an SM --- */

static uint64_t mul_div(uint64_t a, uint64_t b, uint64_t c)
{
    return (uint64_t)((unsigned __int128)a * b / c);
}

static void sm_catch_up(struct sm *s, uint64_t now_ns)
{
    uint64_t work = (now_ns - s->at_ns) << WORK_SHIFT;
    if (s->share_ppm && now_ns > s->at_ns) {
        const uint64_t busy_ns = mul_div(now_ns - s->at_ns, LITHOS_MIN(s->share_ppm, FULL_PPM), FULL_PPM);
        s->busy_ns += busy_ns;
        s->waits_ns += mul_div(busy_ns, s->memory_ppm, s->share_ppm);
    }
    s->work += s->share_ppm <= FULL_PPM ? work : mul_div(work, FULL_PPM, s->share_ppm);
    s->at_ns = now_ns;
}

/* After sm_catch_up and any change of the groups. */
static void sm_retime(const struct lithos_model *m, struct domain *d, uint32_t sm)
{
    struct sm *s = &d->sms[sm];
    if (!s->group_count) {
        s->next_ns = LITHOS_MODEL_NEVER;
    } else {
        uint64_t end = UINT64_MAX;
        for (uint32_t i = 0; i < s->group_count; i++)
            end = LITHOS_MIN(end, s->groups[i].end_work);
        uint64_t left = end > s->work ? end - s->work : 0;
        if (s->share_ppm > FULL_PPM)
            left = mul_div(left, s->share_ppm, FULL_PPM) + 1;
        s->next_ns = s->at_ns + ((left + (1u << WORK_SHIFT) - 1) >> WORK_SHIFT);
    }
    heap_fix(m, d, sm);
}

/* Blocks of l that still fit, at most `want`. */
static uint32_t sm_room(const struct lithos_card *card, const struct sm *s, const struct launch *l,
                        uint32_t want)
{
    uint32_t n = 0;
    uint32_t threads = s->threads + l->block_threads, registers = s->registers + l->block_registers;
    uint32_t shared = s->shared + l->block_shared, blocks = s->blocks + 1;
    while (n < want && threads <= card->sm_threads && registers <= card->sm_registers &&
           shared <= card->sm_shared_bytes && blocks <= card->sm_blocks) {
        n++;
        threads += l->block_threads;
        registers += l->block_registers;
        shared += l->block_shared;
        blocks++;
    }
    return n;
}

bool place_fits_empty_sm(const struct lithos_card *card, const struct launch *l)
{
    return l->block_threads <= card->sm_threads && l->block_registers <= card->sm_registers &&
           l->block_shared <= card->sm_shared_bytes;
}

static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

/* nth of `of` groups that come to an SM at once. A card serves them oldest first, so that they end one after another
 * and not all together, and go on so in the waves that follow: here the first ones have less to do, the last ones more. */
static uint64_t staggered_ns(const struct lithos_block_cost *c, uint64_t alone_ns, uint32_t nth, uint32_t of)
{
    uint64_t width = mul_div(alone_ns, 2ull * c->stagger_ppm, FULL_PPM);
    return alone_ns - width / 2 + width * (2 * nth + 1) / (2 * of);
}

static uint64_t block_alone_ns(const struct lithos_model *m, const struct launch *l)
{
    const struct lithos_block_cost *c = &l->k.cost;
    uint64_t alone_ns = c->alone_ns;
    if (m->slow_ppm && c->clock_ppm)
        alone_ns += mul_div(alone_ns, m->slow_ppm * c->clock_ppm, (uint64_t)FULL_PPM * FULL_PPM);
    if (!c->spread_ppm)
        return alone_ns;
    uint64_t width = mul_div(alone_ns, 2ull * c->spread_ppm, FULL_PPM);
    uint64_t at =
        (uint64_t)(((unsigned __int128)mix(m->seed ^ mix(l->seq * 0x100000001b3ull + l->placed)) * width) >>
                   64);
    return alone_ns - width / 2 + at;
}

static bool tpc_held_by_others(const struct lithos_model *m, const struct domain *d, uint32_t sm,
                               uint64_t owner)
{
    uint32_t per_tpc = m->card.topology.sms_per_tpc, first = sm - sm % per_tpc;
    for (uint32_t i = first; i < first + per_tpc; i++) {
        for (uint32_t g = 0; g < d->sms[i].group_count; g++) {
            if (d->sms[i].groups[g].launch->context->desc.owner != owner)
                return true;
        }
    }
    return false;
}

/* The SM's clock is at now. */
static void add_group(struct lithos_model *m, struct domain *d, uint32_t sm, struct launch *l, uint32_t count,
                      uint32_t nth, uint32_t of)
{
    struct sm *s = &d->sms[sm];
    struct lithos_model_stats *stats = &l->context->stats;
    if (d->owners_seen > 1 && tpc_held_by_others(m, d, sm, l->context->desc.owner))
        stats->blocks_beside_others += count;
    lithos_tpcset_add(&stats->tpcs, m->sm_tpc[sm]);
    uint64_t alone_ns = staggered_ns(&l->k.cost, block_alone_ns(m, l), nth, of);
    lithos_assert(s->group_count < LITHOS_CARD_SM_BLOCKS_MAX);
    s->groups[s->group_count++] = (struct group){
        .launch = l,
        .first = l->placed,
        .count = count,
        .share_ppm = l->k.cost.share_ppm * count,
        .memory_ppm = (uint32_t)mul_div(l->k.cost.share_ppm * count,
                                        FULL_PPM - LITHOS_MIN(l->k.cost.clock_ppm, FULL_PPM), FULL_PPM),
        .end_work = s->work + (alone_ns << WORK_SHIFT),
        .sm_ns = mul_div(alone_ns, (uint64_t)l->k.cost.share_ppm * count, FULL_PPM),
    };
    s->share_ppm += l->k.cost.share_ppm * count;
    s->memory_ppm += s->groups[s->group_count - 1].memory_ppm;
    s->threads += l->block_threads * count;
    s->registers += l->block_registers * count;
    s->shared += l->block_shared * count;
    s->blocks += count;
    if (!l->started) {
        l->started = true;
        l->op->start_ns = m->now_ns;
    }
    if (l->placement) {
        for (uint32_t i = 0; i < count; i++)
            l->placement[l->placed + i] = (uint16_t)sm;
    }
    l->placed += count;
}

static void sm_add(struct lithos_model *m, struct domain *d, uint32_t sm, struct launch *l, uint32_t count)
{
    sm_catch_up(&d->sms[sm], domain_time(m, d));
    uint32_t of = (count + l->k.cost.group - 1) / l->k.cost.group;
    for (uint32_t nth = 0; nth < of; nth++) {
        uint32_t n = LITHOS_MIN(count, l->k.cost.group);
        add_group(m, d, sm, l, n, nth, of);
        count -= n;
    }
    sm_retime(m, d, sm);
}

static void account_blocks(struct launch *l, uint64_t first, uint32_t count)
{
    l->ended += count;
    if (!l->seen)
        return;
    for (uint64_t b = first; b < first + count; b++) {
        uint64_t bit = 1ull << (b % 64);
        l->twice += (l->seen[b / 64] & bit) != 0;
        l->seen[b / 64] |= bit;
    }
}

static void remove_group(struct sm *s, uint32_t i)
{
    const struct group *g = &s->groups[i];
    const struct launch *l = g->launch;
    s->share_ppm -= g->share_ppm;
    s->memory_ppm -= g->memory_ppm;
    s->threads -= l->block_threads * g->count;
    s->registers -= l->block_registers * g->count;
    s->shared -= l->block_shared * g->count;
    s->blocks -= g->count;
    s->groups[i] = s->groups[--s->group_count];
}

static uint64_t blocks_left_ns(const struct launch *l)
{
    const struct lithos_block_cost *c = &l->k.cost;
    uint64_t least_ns = c->alone_ns - mul_div(c->alone_ns, c->spread_ppm, FULL_PPM), sms = 0;
    least_ns -= mul_div(least_ns, c->stagger_ppm, FULL_PPM);
    for (unsigned w = 0; w < SM_WORDS; w++)
        sms += (uint64_t)__builtin_popcountll(l->sms.w[w]);
    unsigned __int128 work = (unsigned __int128)(l->k.blocks - l->placed) * least_ns * c->share_ppm;
    uint64_t all_ns = (uint64_t)LITHOS_MIN(work / (sms * FULL_PPM), (unsigned __int128)1 << 60);
    return LITHOS_MAX(least_ns, all_ns);
}

/* With blocks to place: those at full speed on all SMs. With all placed: the one with most left, at full speed. */
uint64_t place_bound_ns(const struct lithos_model *m, struct launch *l)
{
    const struct domain *d = l->context->domain;
    uint64_t now_ns = domain_time(m, d), bound_ns = now_ns;
    if (l->bound_ns > now_ns)
        return l->bound_ns;
    if (l->listed) {
        bound_ns = now_ns + blocks_left_ns(l);
    } else {
        for (uint32_t i = 0; i < m->sm_count; i++) {
            const struct sm *s = &d->sms[i];
            for (uint32_t g = 0; g < s->group_count; g++) {
                if (s->groups[g].launch == l && s->groups[g].end_work > s->work)
                    bound_ns =
                        LITHOS_MAX(bound_ns, s->at_ns + ((s->groups[g].end_work - s->work) >> WORK_SHIFT));
            }
        }
    }
    l->bound_ns = bound_ns;
    return bound_ns;
}

/* --- handing out blocks --- */

/* Even load: each round goes to the SMs that hold the fewest threads. Blocks of l for each SM into give. */
static void spread_blocks(const struct lithos_model *m, const struct domain *d, const struct launch *l,
                          const struct smset *allowed, uint32_t *give)
{
    uint32_t room[LITHOS_CARD_SMS_MAX] = {0}, load[LITHOS_CARD_SMS_MAX] = {0};
    uint64_t total = 0, pending = l->k.blocks - l->placed;
    for (uint32_t i = 0; i < m->sm_count; i++) {
        give[i] = 0;
        room[i] = smset_has(allowed, i) ? sm_room(&m->card, &d->sms[i], l, LITHOS_CARD_SM_BLOCKS_MAX) : 0;
        load[i] = d->sms[i].threads;
        total += room[i];
    }
    if (pending >= total) {
        memcpy(give, room, m->sm_count * sizeof *give);
        return;
    }
    while (pending) {
        uint32_t least = UINT32_MAX;
        for (uint32_t i = 0; i < m->sm_count; i++) {
            if (room[i])
                least = LITHOS_MIN(least, load[i]);
        }
        for (uint32_t k = 0; k < m->sm_count && pending; k++) {
            uint32_t i = m->sm_order[k];
            if (room[i] && load[i] <= least) {
                room[i]--;
                give[i]++;
                load[i] += l->block_threads;
                pending--;
            }
        }
    }
}

/* One cluster in that room, a block to an SM, the emptiest SMs first. False when it does not fit now. */
static bool place_cluster(struct lithos_model *m, struct domain *d, struct launch *l,
                          const struct smset *allowed, uint32_t room)
{
    uint32_t sms[LITHOS_CARD_SMS_MAX], count = 0, need = l->k.cluster_blocks;
    for (unsigned w = 0; w < SM_WORDS; w++) {
        for (uint64_t rest = m->rooms[room].w[w] & allowed->w[w]; rest; rest &= rest - 1) {
            uint32_t i = w * 64 + (uint32_t)__builtin_ctzll(rest);
            if (!sm_room(&m->card, &d->sms[i], l, 1))
                continue;
            uint32_t at = count++;
            for (; at && d->sms[sms[at - 1]].threads > d->sms[i].threads; at--)
                sms[at] = sms[at - 1];
            sms[at] = i;
        }
    }
    if (count < need)
        return false;
    for (uint32_t i = 0; i < need; i++)
        sm_add(m, d, sms[i], l, 1);
    return true;
}

static void place_clusters(struct lithos_model *m, struct domain *d, struct launch *l,
                           const struct smset *allowed)
{
    /* a cluster to each GPC in turn, as long as any takes one */
    for (bool any = true; any && l->placed < l->k.blocks;) {
        any = false;
        for (uint32_t room = 0; room < m->room_count && l->placed < l->k.blocks; room++)
            any |= place_cluster(m, d, l, allowed, room);
    }
}

static void place_launch(struct lithos_model *m, struct domain *d, struct launch *l,
                         const struct smset *allowed)
{
    if (l->k.cluster_blocks > 1) {
        place_clusters(m, d, l, allowed);
        return;
    }
    uint32_t give[LITHOS_CARD_SMS_MAX];
    spread_blocks(m, d, l, allowed, give);
    for (uint32_t k = 0; k < m->sm_count; k++) {
        uint32_t i = m->sm_order[k];
        if (give[i])
            sm_add(m, d, i, l, give[i]);
    }
}

/* The first launch with blocks to place holds all SMs it may use: one after it gets what those leave
 * ("leftover"). */
void place_all(struct lithos_model *m, struct domain *d)
{
    if (!d->running)
        return;
    struct smset blocked = {0};
    for (struct launch *l = d->head, *next; l; l = next) {
        next = l->next;
        struct smset allowed = l->sms;
        uint64_t any = 0;
        for (unsigned w = 0; w < SM_WORDS; w++)
            any |= allowed.w[w] &= ~blocked.w[w];
        if (any)
            place_launch(m, d, l, &allowed);
        if (l->placed == l->k.blocks) {
            place_unlist(d, l);
            launch_blocks_placed(m, l);
        } else {
            smset_join(&blocked, &l->sms);
        }
    }
}

/* Room has come free in one SM (the launch on turn there is among the first of the list: no need to look at
 * all SMs, unless one has placed its last block and lets others in everywhere). */
static void refill(struct lithos_model *m, struct domain *d, uint32_t sm)
{
    struct smset blocked = {0};
    for (struct launch *l = d->head; l; l = l->next) {
        if (!smset_has(&l->sms, sm)) {
            smset_join(&blocked, &l->sms);
            continue;
        }
        if (l->k.cluster_blocks > 1) {
            struct smset allowed = l->sms;
            for (unsigned w = 0; w < SM_WORDS; w++)
                allowed.w[w] &= ~blocked.w[w];
            while (l->placed < l->k.blocks && place_cluster(m, d, l, &allowed, m->sm_room[sm]))
                ;
        } else {
            uint64_t pending = l->k.blocks - l->placed;
            uint32_t n =
                sm_room(&m->card, &d->sms[sm], l, (uint32_t)LITHOS_MIN(pending, LITHOS_CARD_SM_BLOCKS_MAX));
            if (n)
                sm_add(m, d, sm, l, n);
        }
        if (l->placed == l->k.blocks)
            place_all(m, d);
        return;
    }
}

void place_step(struct lithos_model *m, struct domain *d)
{
    uint32_t sm = d->heap[0];
    struct sm *s = &d->sms[sm];
    sm_catch_up(s, domain_time(m, d));
    for (uint32_t i = 0; i < s->group_count;) {
        struct group g = s->groups[i];
        if (g.end_work > s->work) {
            i++;
            continue;
        }
        struct launch *l = g.launch;
        struct lithos_model_stats *stats = &l->context->stats;
        stats->sm_ns[m->sm_tpc[sm]] += g.sm_ns;
        stats->blocks += g.count;
        account_blocks(l, g.first, g.count);
        remove_group(s, i);
        if (l->ended == l->k.blocks)
            launch_blocks_ended(m, l);
    }
    sm_retime(m, d, sm);
    refill(m, d, sm);
}

void place_drop_context(const struct lithos_model *m, struct domain *d, const struct lithos_model_context *c)
{
    for (struct launch *l = d->head, *next; l; l = next) {
        next = l->next;
        if (l->context == c)
            place_unlist(d, l);
    }
    for (uint32_t sm = 0; sm < m->sm_count; sm++) {
        struct sm *s = &d->sms[sm];
        sm_catch_up(s, domain_time(m, d));
        for (uint32_t i = s->group_count; i-- > 0;) {
            if (s->groups[i].launch->context == c)
                remove_group(s, i);
        }
        sm_retime(m, d, sm);
    }
}

void place_busy(struct lithos_model *m, struct domain *d, uint64_t *busy_ns, uint64_t *waits_ns)
{
    for (uint32_t sm = 0; sm < m->sm_count; sm++) {
        sm_catch_up(&d->sms[sm], domain_time(m, d));
        *busy_ns += d->sms[sm].busy_ns;
        *waits_ns += d->sms[sm].waits_ns;
    }
}
