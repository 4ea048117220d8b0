#include "model/model.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/internal.h"

/* The model lives in servers, simulators and tests, never in a tenant: out of memory is the end. */
void *model_alloc(size_t size)
{
    void *p = calloc(1, size);
    lithos_assert(p);
    return p;
}

struct lithos_model_event *model_emit(struct lithos_model *m)
{
    if (m->out_count == m->out_room) {
        size_t room = m->out_room ? 2 * m->out_room : 64;
        struct lithos_model_event *out = model_alloc(room * sizeof *out);
        for (size_t i = 0; i < m->out_count; i++)
            out[i] = m->out[(m->out_first + i) % m->out_room];
        free(m->out);
        m->out = out;
        m->out_first = 0;
        m->out_room = room;
    }
    return &m->out[(m->out_first + m->out_count++) % m->out_room];
}

static int refuse(char error[LITHOS_MODEL_ERROR_BYTES], const char *what)
{
    snprintf(error, LITHOS_MODEL_ERROR_BYTES, "%s", what);
    return -EINVAL;
}

int lithos_card_validate(const struct lithos_card *card, char error[LITHOS_MODEL_ERROR_BYTES])
{
    if (lithos_topology_validate(&card->topology) < 0)
        return refuse(error, "the topology names no TPC or does not fit 128 bits");
    if (lithos_card_sms(card) > LITHOS_CARD_SMS_MAX)
        return refuse(error, "more than 256 SMs");
    if (!card->sm_blocks || card->sm_blocks > LITHOS_CARD_SM_BLOCKS_MAX)
        return refuse(error, "sm.blocks is not 1 to 32");
    if (!card->sm_threads || card->sm_threads > 65536 || card->sm_threads % 32)
        return refuse(error, "sm.threads is not a multiple of 32 up to 65536");
    if (!card->sm_registers || card->sm_registers > 1u << 24 || !card->warp_register_unit ||
        card->warp_register_unit > card->sm_registers)
        return refuse(error, "sm.registers or sm.register_unit makes no sense");
    if (card->sm_shared_bytes > 1u << 24 || card->block_shared_reserved_bytes > card->sm_shared_bytes)
        return refuse(error, "sm.shared_bytes or sm.shared_reserved_bytes makes no sense");
    if (!card->largest_cluster_blocks || card->largest_cluster_blocks > LITHOS_CLUSTER_MAX)
        return refuse(error, "largest_cluster is not 1 to 16");
    if (card->priority_greatest > card->priority_least || card->priority_least > 31 ||
        card->priority_greatest < -31)
        return refuse(error, "priorities are not [least, greatest] within 31 of 0");
    if (!card->slice_ns || card->slice_ns > LITHOS_NSEC_PER_SEC || card->slice_overrun_ppm > FULL_PPM)
        return refuse(error, "timing.slice_ns or slice_overrun_ppm makes no sense");
    if (card->launch_ns > LITHOS_NSEC_PER_SEC || card->complete_ns > LITHOS_NSEC_PER_SEC ||
        card->preempt_ns > LITHOS_NSEC_PER_SEC || card->restore_ns > LITHOS_NSEC_PER_SEC ||
        card->copy_latency_ns > LITHOS_NSEC_PER_SEC)
        return refuse(error, "a time is over one second");
    for (unsigned i = 0; i < LITHOS_COPY_ENGINE_MAX; i++) {
        if (!card->copy_bytes_per_us[i])
            return refuse(error, "a copy rate is 0");
    }
    return 0;
}

/* SMs are numbered TPC by TPC in the order of the mask bits. Blocks are handed to the first SM of every TPC,
 * across the GPCs, before the second. */
static void lay_out(struct lithos_model *m)
{
    const struct lithos_topology *t = &m->card.topology;
    int32_t room_of_gpc[LITHOS_GPC_MAX];
    memset(room_of_gpc, -1, sizeof room_of_gpc);
    for (unsigned b = lithos_tpcset_next(&t->valid, 0); b < LITHOS_TPC_BITS;
         b = lithos_tpcset_next(&t->valid, b + 1)) {
        uint32_t gpc = lithos_topology_gpc_of(t, b), room;
        if (gpc == LITHOS_GPC_NONE) {
            room = m->room_count++;
        } else {
            if (room_of_gpc[gpc] < 0)
                room_of_gpc[gpc] = (int32_t)m->room_count++;
            room = (uint32_t)room_of_gpc[gpc];
        }
        for (uint32_t i = 0; i < t->sms_per_tpc; i++) {
            m->sm_tpc[m->sm_count] = (uint8_t)b;
            m->sm_room[m->sm_count] = (uint8_t)room;
            smset_add(&m->rooms[room], m->sm_count++);
        }
    }
    uint32_t n = 0;
    for (uint32_t nth = 0; nth < t->sms_per_tpc; nth++) {
        for (uint32_t k = 0; k < LITHOS_TPC_BITS; k++) {
            for (uint32_t room = 0; room < m->room_count; room++) {
                /* the k-th TPC of the room */
                uint32_t seen = 0;
                for (uint32_t sm = nth; sm < m->sm_count; sm += t->sms_per_tpc) {
                    if (m->sm_room[sm] == room && seen++ == k)
                        m->sm_order[n++] = (uint16_t)sm;
                }
            }
            if (n >= (nth + 1) * m->sm_count / t->sms_per_tpc)
                break;
        }
    }
    lithos_assert(n == m->sm_count);
}

int lithos_model_create(const struct lithos_card *card, uint64_t seed, struct lithos_model **ret_model)
{
    char error[LITHOS_MODEL_ERROR_BYTES];
    int r = lithos_card_validate(card, error);
    if (r < 0)
        return r;
    struct lithos_model *m = calloc(1, sizeof *m);
    if (!m)
        return -ENOMEM;
    m->card = *card;
    m->seed = seed;
    m->seq = 1;
    m->phase_end_ns = LITHOS_MODEL_NEVER;
    m->kicked_end = &m->kicked;
    lay_out(m);
    *ret_model = m;
    return 0;
}

void lithos_model_destroy(struct lithos_model *m)
{
    if (!m)
        return;
    while (m->contexts)
        lithos_model_context_destroy(m, m->now_ns, m->contexts, NULL);
    for (size_t i = 0; i < m->out_count; i++)
        free(m->out[(m->out_first + i) % m->out_room].placement);
    free(m->out);
    free(m->timers);
    free(m);
}

const struct lithos_card *lithos_model_card(const struct lithos_model *m)
{
    return &m->card;
}

unsigned lithos_model_sm_tpc(const struct lithos_model *m, unsigned sm)
{
    return sm < m->sm_count ? m->sm_tpc[sm] : LITHOS_TPC_BITS;
}

/* --- contexts --- */

/* Capped clients are given the TPCs that the fewest others of the domain are capped to: which ones a card
 * takes is not known, that two clients of 50 % hardly meet is (docs/hardware.md). */
static struct lithos_tpcset choose_cap(const struct lithos_model *m, const struct lithos_model_context *c)
{
    const struct lithos_tpcset *valid = &m->card.topology.valid;
    uint32_t percent = c->desc.thread_percent, users[LITHOS_TPC_BITS] = {0};
    if (!percent || percent == 100)
        return *valid;
    for (const struct lithos_model_context *o = m->contexts; o; o = o->next) {
        if (o->domain != c->domain || !o->desc.thread_percent || o->desc.thread_percent == 100)
            continue;
        if (o->desc.owner == c->desc.owner && o->desc.thread_percent == percent)
            return o->cap;
        for (unsigned b = 0; b < LITHOS_TPC_BITS; b++)
            users[b] += lithos_tpcset_has(&o->cap, b);
    }
    uint32_t want = (lithos_tpcset_count(valid) * percent + 99) / 100;
    struct lithos_tpcset cap = {{0, 0}};
    for (uint32_t level = 0; want; level++) {
        for (unsigned b = lithos_tpcset_next(valid, 0); b < LITHOS_TPC_BITS && want;
             b = lithos_tpcset_next(valid, b + 1)) {
            if (users[b] == level) {
                lithos_tpcset_add(&cap, b);
                want--;
            }
        }
    }
    return cap;
}

int lithos_model_context_create(struct lithos_model *m, const struct lithos_model_context_desc *desc,
                                struct lithos_model_context **ret_context)
{
    if (desc->thread_percent > 100)
        return -EINVAL;
    struct lithos_model_context *c = model_alloc(sizeof *c);
    c->model = m;
    c->desc = *desc;
    c->domain = slice_domain_get(m, desc->domain);
    if (!c->domain->owners_seen) {
        c->domain->owners_seen = 1;
        c->domain->first_owner = desc->owner;
    } else if (c->domain->first_owner != desc->owner) {
        c->domain->owners_seen = 2;
    }
    c->cap = choose_cap(m, c);
    c->next = m->contexts;
    m->contexts = c;
    *ret_context = c;
    return 0;
}

void lithos_model_context_destroy(struct lithos_model *m, uint64_t now_ns, struct lithos_model_context *c,
                                  struct lithos_model_stats *ret_stats)
{
    model_run(m, now_ns);
    if (ret_stats)
        *ret_stats = c->stats;
    stream_drop_context(m, c);
    struct lithos_model_context **at = &m->contexts;
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    /* nothing is told of a context that is gone */
    size_t kept = 0;
    for (size_t i = 0; i < m->out_count; i++) {
        struct lithos_model_event *e = &m->out[(m->out_first + i) % m->out_room];
        if (e->context == c)
            free(e->placement);
        else
            m->out[(m->out_first + kept++) % m->out_room] = *e;
    }
    m->out_count = kept;
    slice_domain_put(m, c->domain);
    free(c);
}

void lithos_model_context_stats(const struct lithos_model_context *c, struct lithos_model_stats *ret_stats)
{
    *ret_stats = c->stats;
}

/* --- time --- */

static uint64_t blocks_next_ns(const struct lithos_model *m)
{
    if (!m->current || !m->current->running)
        return LITHOS_MODEL_NEVER;
    uint64_t next = place_next_ns(m->current);
    return next == LITHOS_MODEL_NEVER ? next : next + m->current->offset_ns;
}

static uint64_t inner_next_ns(const struct lithos_model *m)
{
    uint64_t next = LITHOS_MIN(timer_next_ns(m), m->phase_end_ns);
    return LITHOS_MIN(next, blocks_next_ns(m));
}

uint64_t lithos_model_next_ns(const struct lithos_model *m)
{
    return m->out_count ? m->now_ns : inner_next_ns(m);
}

uint64_t lithos_model_quiet_until_ns(struct lithos_model *m)
{
    if (m->out_count)
        return m->now_ns;
    uint64_t next = LITHOS_MIN(timer_next_ns(m), m->phase_end_ns);
    if (!m->current || !m->current->running)
        return next;
    for (struct lithos_model_context *c = m->contexts; c; c = c->next) {
        if (c->domain != m->current)
            continue;
        for (struct lithos_model_stream *s = c->streams; s; s = s->next) {
            if (s->head && s->head->kind == OP_LAUNCH && s->head->state == OP_RUNNING) {
                uint64_t end_ns =
                    place_bound_ns(m, s->head->launch) + m->current->offset_ns + m->card.complete_ns;
                next = LITHOS_MIN(next, end_ns);
            }
        }
    }
    return next;
}

void model_run(struct lithos_model *m, uint64_t now_ns)
{
    for (;;) {
        uint64_t blocks = blocks_next_ns(m), timer = timer_next_ns(m), next = LITHOS_MIN(blocks, timer);
        next = LITHOS_MIN(next, m->phase_end_ns);
        if (next == LITHOS_MODEL_NEVER || next > now_ns)
            break;
        m->now_ns = LITHOS_MAX(m->now_ns, next);
        if (next == blocks)
            place_step(m, m->current);
        else if (next == timer)
            stream_timer(m, timer_pop(m));
        else
            slice_timer(m);
        stream_drain(m);
    }
    m->now_ns = LITHOS_MAX(m->now_ns, now_ns);
}

size_t lithos_model_advance(struct lithos_model *m, uint64_t now_ns, struct lithos_model_event *events,
                            size_t max)
{
    model_run(m, now_ns);
    size_t n = LITHOS_MIN(m->out_count, max);
    for (size_t i = 0; i < n; i++) {
        events[i] = m->out[m->out_first];
        m->out_first = (m->out_first + 1) % m->out_room;
    }
    m->out_count -= n;
    return n;
}

char *lithos_model_hang_text(const struct lithos_model_event *e, char *text, size_t size)
{
    char set[LITHOS_TPCSET_TEXT_MAX];
    lithos_tpcset_format(&e->tpcs, set);
    if (e->reason == LITHOS_HANG_EMPTY_MASK)
        snprintf(text, size, "the TPC mask (%s) names no TPC of the card: the launch hangs for ever", set);
    else if (e->reason == LITHOS_HANG_NO_CLUSTER_ROOM)
        snprintf(
            text, size,
            "no GPC has TPCs enough in the mask (%s) for a cluster of %u blocks: the launch hangs for ever",
            set, e->cluster_blocks);
    else
        snprintf(text, size, "no hang");
    return text;
}

void lithos_model_set_clock(struct lithos_model *m, uint64_t now_ns, uint32_t clock_ppm)
{
    lithos_assert(clock_ppm > 0 && clock_ppm <= FULL_PPM);
    model_run(m, now_ns);
    m->slow_ppm = (uint64_t)FULL_PPM * FULL_PPM / clock_ppm - FULL_PPM;
}

void lithos_model_context_slice(struct lithos_model *m, uint64_t now_ns, struct lithos_model_context *c,
                                uint64_t slice_ns)
{
    model_run(m, now_ns);
    slice_set(m, c->domain, slice_ns);
}

void lithos_model_busy(struct lithos_model *m, uint64_t *ret_busy_sm_ns, uint64_t *ret_memory_sm_ns)
{
    uint64_t busy_ns = m->busy_ns, waits_ns = m->waits_ns;
    struct domain *d = m->domains;

    do {
        if (d)
            place_busy(m, d, &busy_ns, &waits_ns);
        d = d ? d->next : NULL;
    } while (d && d != m->domains);
    *ret_busy_sm_ns = busy_ns;
    *ret_memory_sm_ns = waits_ns;
}
