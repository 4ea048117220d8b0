/* Cells of the wave model: TPCs that hold the same work, and the blocks in them. */
#include <stdlib.h>
#include <string.h>

#include "model/wave_internal.h"

/* More cells than this, and empty ones are put together before another is cut off. */
#define CELLS_KEPT 12u
/* Blocks that are shorter than this are not followed one by one: nobody waits for one of them for long. */
#define FINE_NS (10 * LITHOS_NSEC_PER_USEC)
#define BUNDLED_WAVES 16u

static bool cells_have(const uint64_t *cells, uint32_t i)
{
    return (cells[i / 64] >> (i % 64)) & 1;
}

static void cells_put(uint64_t *cells, uint32_t i, bool in)
{
    cells[i / 64] = (cells[i / 64] & ~(1ull << (i % 64))) | (uint64_t)in << (i % 64);
}

static struct wave_cell *cell_new(struct lithos_wave *w, struct lithos_tpcset tpcs)
{
    struct wave_cell *c = w->free_cells;
    if (c)
        w->free_cells = (struct wave_cell *)(void *)c->groups[0].op;
    else
        c = wave_alloc(sizeof *c);
    memset(c, 0, offsetof(struct wave_cell, groups));
    c->tpcs = tpcs;
    c->sms = lithos_tpcset_count(&tpcs) * w->card.topology.sms_per_tpc;
    c->next_ns = LITHOS_WAVE_NEVER;
    c->slow_ppm = LITHOS_WAVE_PPM;
    return c;
}

static void cell_free(struct lithos_wave *w, struct wave_cell *c)
{
    c->groups[0].op = (struct wave_op *)(void *)w->free_cells;
    w->free_cells = c;
}

void wave_domain_init(struct lithos_wave *w, struct lithos_wave_domain *d)
{
    d->cells[0] = cell_new(w, w->card.topology.valid);
    d->cell_count = 1;
    d->layout = 1;
}

void wave_domain_free(struct lithos_wave_domain *d)
{
    for (uint32_t i = 0; i < d->cell_count; i++)
        free(d->cells[i]);
}

/* --- time in a cell --- */

static void catch_up(struct wave_cell *c, uint64_t domain_ns)
{
    const uint64_t work = (domain_ns - c->at_ns) << WAVE_WORK_SHIFT;
    c->work += c->slow_ppm == LITHOS_WAVE_PPM ? work : wave_mul_div(work, LITHOS_WAVE_PPM, c->slow_ppm);
    c->at_ns = domain_ns;
}

/* Of the memory bandwidth, as asked for at the highest clock. */
static uint64_t draw_ppm(const struct lithos_wave_domain *d)
{
    return d->draw / 1024;
}

/* And at the clock there is. */
static uint64_t traffic_ppm(const struct lithos_wave *w, const struct lithos_wave_domain *d)
{
    return w->clock_ppm == LITHOS_WAVE_PPM ? draw_ppm(d)
                                           : wave_mul_div(draw_ppm(d), w->clock_ppm, LITHOS_WAVE_PPM);
}

/* SMs count by what they get done: one that waits for memory, or that has few blocks, is busy in part. */
static void account_busy(const struct lithos_wave *w, struct lithos_wave_domain *d, struct wave_cell *c)
{
    const uint64_t before_ppm = c->busy_ppm;
    const uint64_t at_once = w->clock_ppm == LITHOS_WAVE_PPM
                                 ? c->slow_ppm
                                 : wave_mul_div(c->slow_ppm, w->clock_ppm, LITHOS_WAVE_PPM);

    c->busy_ppm = c->group_count ? c->share_ppm : 0;
    if (at_once > LITHOS_WAVE_PPM)
        c->busy_ppm = wave_mul_div(c->busy_ppm, LITHOS_WAVE_PPM, at_once);
    c->busy_ppm = LITHOS_MIN(c->busy_ppm, c->sms * (uint64_t)LITHOS_WAVE_PPM);
    d->busy_ppm += c->busy_ppm - before_ppm;
}

/* How fast its blocks run. */
static uint64_t slow_ppm(const struct lithos_wave *w, const struct lithos_wave_domain *d,
                         const struct wave_cell *c)
{
    const uint64_t traffic = w->config.bandwidth ? traffic_ppm(w, d) : 0;
    uint64_t slow = LITHOS_WAVE_PPM;

    /* One launch alone: the fullest SM decides. Several: their mean. */
    if (c->group_count == 1 && c->groups[0].op->k->share_ppm)
        slow =
            LITHOS_MAX(slow, (uint64_t)((c->blocks + c->sms - 1) / c->sms) * c->groups[0].op->k->share_ppm);
    else if (c->share_ppm > c->sms * slow)
        slow = c->share_ppm / c->sms;
    if (w->clock_ppm != LITHOS_WAVE_PPM)
        slow = wave_mul_div(slow, LITHOS_WAVE_PPM, w->clock_ppm);
    if (traffic > LITHOS_WAVE_PPM && c->share_ppm)
        slow += wave_mul_div(wave_mul_div(slow, c->bound_ppm, c->share_ppm), traffic - LITHOS_WAVE_PPM,
                             LITHOS_WAVE_PPM);
    return slow;
}

/* After catch_up and any change of the groups, or of what memory is asked for. */
static void retime(const struct lithos_wave *w, struct lithos_wave_domain *d, struct wave_cell *c)
{
    uint64_t end = UINT64_MAX;

    c->next_ns = LITHOS_WAVE_NEVER;
    c->slow_ppm = c->group_count ? slow_ppm(w, d, c) : LITHOS_WAVE_PPM;
    d->first_known = false;
    account_busy(w, d, c);
    if (!c->group_count)
        return;
    for (uint32_t i = 0; i < c->group_count; i++)
        end = LITHOS_MIN(end, c->groups[i].end_work);
    uint64_t left = end > c->work ? end - c->work : 0;
    if (c->slow_ppm != LITHOS_WAVE_PPM)
        left = wave_mul_div(left, c->slow_ppm, LITHOS_WAVE_PPM) + 1;
    c->next_ns = c->at_ns + ((left + (1u << WAVE_WORK_SHIFT) - 1) >> WAVE_WORK_SHIFT);
}

/* Memory is asked for otherwise than before: all cells run at another speed. */
static void draw_changed(const struct lithos_wave *w, struct lithos_wave_domain *d, uint64_t before_ppm)
{
    if (!w->config.bandwidth || before_ppm == draw_ppm(d) ||
        (before_ppm <= LITHOS_WAVE_PPM && draw_ppm(d) <= LITHOS_WAVE_PPM))
        return;
    for (uint32_t i = 0; i < d->cell_count; i++) {
        catch_up(d->cells[i], wave_domain_ns(w, d));
        retime(w, d, d->cells[i]);
    }
}

/* --- groups --- */

/* count blocks of op in c come (1) or go (-1). */
static void account(struct lithos_wave_domain *d, struct wave_cell *c, const struct wave_op *op,
                    uint64_t count, int sign)
{
    const uint64_t n = sign > 0 ? count : 0 - count;
    c->blocks += (uint32_t)n;
    c->used_ppm += n * op->room_ppm;
    c->cap_ppm += n * op->cap_ppm;
    c->share_ppm += n * op->k->share_ppm;
    d->draw += n * op->draw;
}

static void account_bound(const struct lithos_wave *w, struct wave_cell *c)
{
    c->bound_ppm = 0;
    if (!w->config.bandwidth)
        return;
    for (uint32_t i = 0; i < c->group_count; i++) {
        const struct lithos_wave_kernel *k = c->groups[i].op->k;
        c->bound_ppm += (uint64_t)c->groups[i].blocks * k->share_ppm *
                        LITHOS_MIN(k->bandwidth_ppm, LITHOS_WAVE_PPM) / LITHOS_WAVE_PPM;
    }
}

/* Blocks in the next n of a launch's bundles, of which so many have been counted: the last one may be short. */
static uint32_t unbundled(const struct wave_op *op, uint32_t counted, uint32_t n)
{
    const uint64_t grid = op->grid, before = LITHOS_MIN((uint64_t)counted * op->bundle, grid);
    return (uint32_t)(LITHOS_MIN((uint64_t)(counted + n) * op->bundle, grid) - before);
}

static void observe(const struct lithos_wave *w, const struct wave_cell *c, const struct wave_op *op,
                    uint32_t blocks, bool ended)
{
    if (!w->config.observe)
        return;
    const struct lithos_wave_placing p = {w->now_ns, op->launch.op, op->stream->user, c->tpcs, blocks, ended};
    w->config.observe(w->config.ctx, &p);
}

/* nth of `of` groups that come to the same SMs at once: a card serves them oldest first, so that they end one after
 * another, and go on so in the waves that follow. */
static uint64_t staggered_ns(const struct wave_op *op, uint32_t nth, uint32_t of)
{
    if (of == 1)
        return op->alone_ns;
    const uint64_t width = wave_mul_div(op->alone_ns, 2ull * op->k->stagger_ppm, LITHOS_WAVE_PPM);
    return op->alone_ns - width / 2 + width * (2 * nth + 1) / (2 * of);
}

static void group_add(struct lithos_wave *w, struct lithos_wave_domain *d, struct wave_cell *c,
                      struct wave_op *op, uint32_t blocks)
{
    uint32_t parts = op->many_waves && op->k->stagger_ppm && op->alone_ns >= FINE_NS
                         ? LITHOS_MIN(LITHOS_MAX(blocks / c->sms, 1u), 4u)
                         : 1;

    parts = LITHOS_MIN(parts, WAVE_GROUPS_MAX - c->group_count);
    for (uint32_t i = 0, given = 0; i < parts; i++) {
        const uint32_t upto = i + 1 < parts ? (uint32_t)((uint64_t)blocks * (i + 1) / parts) : blocks;
        const uint32_t n = upto - given;
        if (!n)
            continue;
        c->groups[c->group_count++] =
            (struct wave_group){op, n, c->work + (staggered_ns(op, i, parts) << WAVE_WORK_SHIFT)};
        given = upto;
    }
    account(d, c, op, blocks, 1);
    observe(w, c, op, unbundled(op, op->placed, blocks), false);
    op->placed += blocks;
    op->left -= blocks;
    op->resident += blocks;
}

static void group_remove(struct lithos_wave *w, struct lithos_wave_domain *d, struct wave_cell *c, uint32_t i,
                         bool ended)
{
    const struct wave_group g = c->groups[i];
    c->groups[i] = c->groups[--c->group_count];
    account(d, c, g.op, g.blocks, -1);
    g.op->resident -= g.blocks;
    if (ended) {
        const uint32_t blocks = unbundled(g.op, g.op->ended, g.blocks);
        g.op->ended += g.blocks;
        g.op->ran += blocks;
        observe(w, c, g.op, blocks, true);
    }
}

/* --- cells are cut where masks part them --- */

static void cell_cut(struct lithos_wave *w, struct lithos_wave_domain *d, uint32_t at,
                     struct lithos_tpcset part)
{
    struct wave_cell *c = d->cells[at], *n = cell_new(w, part);
    const uint32_t sms = c->sms, kept = d->cell_count;
    struct wave_group groups[WAVE_GROUPS_MAX];
    const uint32_t group_count = c->group_count;

    memcpy(groups, c->groups, group_count * sizeof *groups);
    n->work = c->work;
    n->at_ns = c->at_ns;
    for (uint32_t i = 0; i < group_count; i++)
        account(d, c, groups[i].op, groups[i].blocks, -1);
    c->group_count = 0;
    c->tpcs = lithos_tpcset_minus(c->tpcs, part);
    c->sms = sms - n->sms;
    for (uint32_t i = 0; i < group_count; i++) {
        struct wave_group g = groups[i];
        const uint32_t there = (uint32_t)((uint64_t)g.blocks * n->sms / sms), here = g.blocks - there;
        if (there) {
            n->groups[n->group_count++] = (struct wave_group){g.op, there, g.end_work};
            account(d, n, g.op, there, 1);
        }
        if (here) {
            c->groups[c->group_count++] = (struct wave_group){g.op, here, g.end_work};
            account(d, c, g.op, here, 1);
        }
    }
    account_bound(w, c);
    account_bound(w, n);
    d->cells[d->cell_count++] = n;
    for (struct wave_op *op = d->head; op; op = op->after)
        cells_put(op->cells, kept, cells_have(op->cells, at));
    retime(w, d, c);
    retime(w, d, n);
    d->layout++;
}

/* Cells a and b > a are empty and every launch in the list may use both or neither: one cell. */
static bool cell_join(struct lithos_wave *w, struct lithos_wave_domain *d, uint32_t a, uint32_t b)
{
    const uint32_t last = d->cell_count - 1;

    if (d->cells[a]->group_count || d->cells[b]->group_count)
        return false;
    for (const struct wave_op *op = d->head; op; op = op->after)
        if (cells_have(op->cells, a) != cells_have(op->cells, b))
            return false;
    d->cells[a]->tpcs = lithos_tpcset_or(d->cells[a]->tpcs, d->cells[b]->tpcs);
    d->cells[a]->sms += d->cells[b]->sms;
    cell_free(w, d->cells[b]);
    d->cells[b] = d->cells[last];
    d->cell_count--;
    d->first_known = false;
    for (struct wave_op *op = d->head; op; op = op->after) {
        cells_put(op->cells, b, cells_have(op->cells, last));
        cells_put(op->cells, last, false);
    }
    d->layout++;
    return true;
}

static void cells_tidy(struct lithos_wave *w, struct lithos_wave_domain *d)
{
    for (uint32_t a = 0; a < d->cell_count; a++) {
        for (uint32_t b = a + 1; b < d->cell_count;) {
            if (!cell_join(w, d, a, b))
                b++;
        }
    }
}

/* The cells that make up a set of TPCs. */
static void cells_of(struct lithos_wave *w, struct lithos_wave_domain *d, struct lithos_tpcset tpcs,
                     uint64_t *cells)
{
    for (uint32_t i = 0; i < WAVE_MASKS; i++) {
        if (d->masks[i].layout == d->layout && lithos_tpcset_equal(&d->masks[i].tpcs, &tpcs)) {
            memcpy(cells, d->masks[i].cells, sizeof d->masks[i].cells);
            return;
        }
    }
    if (d->cell_count > CELLS_KEPT)
        cells_tidy(w, d);
    memset(cells, 0, sizeof d->masks[0].cells);
    for (uint32_t i = 0, n = d->cell_count; i < n; i++) {
        const struct lithos_tpcset part = lithos_tpcset_and(d->cells[i]->tpcs, tpcs);
        if (lithos_tpcset_empty(&part))
            continue;
        if (lithos_tpcset_equal(&part, &d->cells[i]->tpcs)) {
            cells_put(cells, i, true);
        } else {
            catch_up(d->cells[i], wave_domain_ns(w, d));
            cell_cut(w, d, i, part);
            cells_put(cells, d->cell_count - 1, true);
        }
    }
    const uint32_t at = d->mask_next++ % WAVE_MASKS;
    d->masks[at].layout = d->layout;
    d->masks[at].tpcs = tpcs;
    memcpy(d->masks[at].cells, cells, sizeof d->masks[at].cells);
}

/* --- placing --- */

/* Blocks of op for which the cell has room. What is there is taken to be spread over as many SMs as it has blocks. */
static uint32_t cell_room(const struct wave_cell *c, const struct wave_op *op)
{
    const uint64_t ppm = LITHOS_WAVE_PPM;

    if (!c->blocks)
        return c->sms * op->each;
    if (c->group_count == WAVE_GROUPS_MAX)
        return 0;
    const uint32_t held = LITHOS_MIN(c->sms, c->blocks);
    const uint64_t used = (c->used_ppm + held - 1) / held;
    uint64_t beside = used < ppm ? (ppm - used) / op->room_ppm : 0;
    if (op->cap_ppm) {
        const uint64_t cap = (c->cap_ppm + held - 1) / held;
        beside = LITHOS_MIN(beside, cap < ppm ? (ppm - cap) / op->cap_ppm : 0);
    }
    return (c->sms - held) * op->each + (uint32_t)LITHOS_MIN(held * beside, UINT32_MAX / 2);
}

static void list_remove(struct lithos_wave_domain *d, struct wave_op *op)
{
    *(op->before ? &op->before->after : &d->head) = op->after;
    *(op->after ? &op->after->before : &d->tail) = op->before;
    op->before = op->after = NULL;
}

static void list_insert(struct lithos_wave_domain *d, struct wave_op *op)
{
    struct wave_op *before = d->tail;
    while (before && (before->rank > op->rank || (before->rank == op->rank && before->seq > op->seq)))
        before = before->before;
    op->before = before;
    op->after = before ? before->after : d->head;
    *(op->before ? &op->before->after : &d->head) = op;
    *(op->after ? &op->after->before : &d->tail) = op;
}

static void place_in(struct lithos_wave *w, struct lithos_wave_domain *d, struct wave_op *op, uint32_t cell,
                     uint32_t blocks)
{
    const uint64_t before_ppm = draw_ppm(d);
    struct wave_cell *c = d->cells[cell];
    if (!blocks)
        return;
    catch_up(c, wave_domain_ns(w, d));
    group_add(w, d, c, op, blocks);
    account_bound(w, c);
    retime(w, d, c);
    draw_changed(w, d, before_ppm);
}

/* Evenly over the cells, whole clusters; a card that is empty but for no whole cluster in any one cell takes it across
 * cells. */
static void place_op(struct lithos_wave *w, struct lithos_wave_domain *d, struct wave_op *op,
                     const uint64_t *cells)
{
    uint32_t room[LITHOS_TPC_BITS], unit = op->k->cluster_blocks;
    uint64_t total = 0, held = 0;

    for (uint32_t i = 0; i < d->cell_count; i++) {
        room[i] = cells_have(cells, i) ? cell_room(d->cells[i], op) : 0;
        held += cells_have(cells, i) ? d->cells[i]->blocks : 0;
        total += room[i] / unit;
    }
    if ((!total && !held) || op->left < unit) {
        unit = 1;
        total = 0;
        for (uint32_t i = 0; i < d->cell_count; i++)
            total += room[i];
    }
    const uint64_t want = op->left / unit;
    if (!total)
        return;
    for (uint64_t i = 0, seen = 0, given = 0; i < d->cell_count && given < want; i++) {
        const uint64_t here = room[i] / unit;
        seen += here;
        const uint64_t upto = want >= total ? seen : want * seen / total;
        const uint64_t n = LITHOS_MIN(upto - given, here);
        given += n;
        place_in(w, d, op, (uint32_t)i, (uint32_t)n * unit);
    }
}

/* The first launch with blocks to place holds all cells it may use: one after it gets what those leave. */
void wave_place_all(struct lithos_wave *w, struct lithos_wave_domain *d)
{
    uint64_t blocked[LITHOS_TPC_BITS / 64] = {0};

    if (!d->running)
        return;
    for (struct wave_op *op = d->head, *next; op; op = next) {
        uint64_t cells[LITHOS_TPC_BITS / 64], any = 0;
        for (unsigned i = 0; i < LITHOS_ARRAY_SIZE(cells); i++)
            any |= cells[i] = op->cells[i] & ~blocked[i];
        if (any)
            place_op(w, d, op, cells);
        next = op->after;
        if (!op->left) {
            list_remove(d, op);
            wave_blocks_placed(w, op);
            next = d->head; /* a chained launch may have come in anywhere */
            memset(blocked, 0, sizeof blocked);
            continue;
        }
        for (unsigned i = 0; i < LITHOS_ARRAY_SIZE(blocked); i++)
            blocked[i] |= op->cells[i];
    }
}

/* Cells that earlier masks have left too small for a cluster: put together what can be, or it would find less room than the
 * card has. */
static void cells_for_cluster(struct lithos_wave *w, struct lithos_wave_domain *d, uint32_t cluster_blocks)
{
    for (uint32_t i = 0; cluster_blocks > 1 && i < d->cell_count; i++) {
        if (d->cells[i]->sms % cluster_blocks && d->cell_count > 1) {
            cells_tidy(w, d);
            return;
        }
    }
}

void wave_op_arrive(struct lithos_wave *w, struct wave_op *op)
{
    struct lithos_wave_domain *d = op->stream->domain;
    const struct lithos_wave_kernel *k = op->k;
    uint64_t sms = 0;

    op->grid = op->launch.blocks ? op->launch.blocks : k->blocks;
    op->resident = op->placed = op->ended = 0;
    op->room_ppm = LITHOS_WAVE_PPM / k->residency;
    op->cap_ppm = op->launch.residency && op->launch.residency < k->residency
                      ? LITHOS_WAVE_PPM / op->launch.residency
                      : 0;
    op->alone_ns = wave_mul_div(k->alone_ns, op->launch.time_ppm, LITHOS_WAVE_PPM);
    lithos_assert(op->room_ppm && k->residency); /* checked at launch: 1 to 64 */
    op->each = LITHOS_WAVE_PPM / LITHOS_MAX(op->room_ppm, op->cap_ppm);
    cells_for_cluster(w, d, k->cluster_blocks);
    cells_of(w, d, op->launch.tpcs, op->cells);
    for (uint32_t i = 0; i < d->cell_count; i++)
        sms += cells_have(op->cells, i) ? d->cells[i]->sms : 0;
    const uint64_t wave = sms * op->each;
    const uint64_t whole = LITHOS_MIN((uint64_t)k->blocks, (uint64_t)w->sms * k->residency);
    lithos_assert(wave && whole); /* checked: a mask that names a TPC, blocks and residency of 1 at least */
    op->bundle = 1;
    if (k->cluster_blocks == 1 && op->grid > wave * BUNDLED_WAVES)
        op->bundle = (uint32_t)LITHOS_MIN(op->grid / (wave * BUNDLED_WAVES),
                                          LITHOS_MAX(FINE_NS / LITHOS_MAX(op->alone_ns, 1), 1));
    op->alone_ns *= op->bundle;
    op->blocks = op->left = (op->grid + op->bundle - 1) / op->bundle;
    op->many_waves = op->blocks > wave;
    op->draw = w->config.bandwidth ? (uint32_t)(k->bandwidth_ppm * 1024ull / whole) : 0;
    list_insert(d, op);
    wave_place_all(w, d);
}

void wave_domain_clocked(struct lithos_wave *w, struct lithos_wave_domain *d)
{
    for (uint32_t i = 0; i < d->cell_count; i++) {
        catch_up(d->cells[i], wave_domain_ns(w, d));
        retime(w, d, d->cells[i]);
    }
}

struct lithos_power_load wave_domain_load(const struct lithos_wave *w, const struct lithos_wave_domain *d)
{
    return (struct lithos_power_load){.busy_ppm = (uint32_t)(d->busy_ppm / w->sms),
                                      .traffic_ppm =
                                          (uint32_t)LITHOS_MIN(traffic_ppm(w, d), LITHOS_WAVE_PPM)};
}

static uint32_t first_cell(struct lithos_wave_domain *d)
{
    uint32_t first = 0;

    if (d->first_known)
        return d->first;
    for (uint32_t i = 1; i < d->cell_count; i++)
        if (d->cells[i]->next_ns < d->cells[first]->next_ns)
            first = i;
    d->first = first;
    d->first_known = true;
    return first;
}

uint64_t wave_cells_next_ns(const struct lithos_wave *w)
{
    struct lithos_wave_domain *d = w->current;
    if (!d || !d->running)
        return LITHOS_WAVE_NEVER;
    const uint64_t next = d->cells[first_cell(d)]->next_ns;
    return next == LITHOS_WAVE_NEVER ? next : next + d->offset_ns;
}

/* Room has come free in one cell, whose time is at now and which the caller times anew: the first launch in the list that may use it gets it. Only when that has placed its
 * last block, or goes by clusters, the other cells are looked at. */
static void refill(struct lithos_wave *w, struct lithos_wave_domain *d, uint32_t cell)
{
    for (struct wave_op *op = d->head; op; op = op->after) {
        if (!cells_have(op->cells, cell))
            continue;
        if (op->k->cluster_blocks > 1) {
            wave_place_all(w, d);
            return;
        }
        const uint32_t n = LITHOS_MIN(cell_room(d->cells[cell], op), op->left);
        if (n)
            group_add(w, d, d->cells[cell], op, n);
        if (op->left)
            return;
        list_remove(d, op);
        wave_blocks_placed(w, op);
        wave_place_all(w, d);
        return;
    }
}

void wave_cells_step(struct lithos_wave *w)
{
    struct lithos_wave_domain *d = w->current;
    const uint64_t before_ppm = draw_ppm(d);
    struct wave_op *over[WAVE_GROUPS_MAX];
    const uint32_t cell = first_cell(d);
    struct wave_cell *c = d->cells[cell];
    uint32_t over_count = 0;

    catch_up(c, wave_domain_ns(w, d));
    for (uint32_t i = 0; i < c->group_count;) {
        struct wave_op *op = c->groups[i].op;
        if (c->groups[i].end_work > c->work) {
            i++;
            continue;
        }
        group_remove(w, d, c, i, true);
        if (!op->resident && !op->left)
            over[over_count++] = op;
    }
    if (d->head)
        refill(w, d, cell);
    account_bound(w, c);
    retime(w, d, c);
    draw_changed(w, d, before_ppm);
    for (uint32_t i = 0; i < over_count; i++)
        wave_blocks_ended(w, over[i]);
}

void wave_op_drop(struct lithos_wave *w, struct wave_op *op)
{
    struct lithos_wave_domain *d = op->stream->domain;

    if (op->state == WAVE_PLACING)
        list_remove(d, op);
    for (uint32_t at = 0; at < d->cell_count && op->resident; at++) {
        struct wave_cell *c = d->cells[at];
        const uint64_t before_ppm = draw_ppm(d);
        catch_up(c, wave_domain_ns(w, d));
        for (uint32_t i = 0; i < c->group_count;) {
            if (c->groups[i].op == op)
                group_remove(w, d, c, i, false);
            else
                i++;
        }
        account_bound(w, c);
        retime(w, d, c);
        draw_changed(w, d, before_ppm);
    }
}
