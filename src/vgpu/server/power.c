/* Clocks, power and energy of the cards: what the virtual NVML asks. Locked clocks stay when who locked them is gone, as on a
 * real card: that is what LithOS' watchdog is for. */
#include "base/assert.h"
#include "vgpu/server/server.h"

#define EVENTS 64
/* Power is a mean over at least so long. */
#define POWER_NS (20 * LITHOS_NSEC_PER_MSEC)

void power_init(struct card *card)
{
    card->power = (struct card_power){.mhz = card->data.power.max_mhz};
    card->power.asked_mhz = card->power.mhz;
}

static void advance(struct server *sv, unsigned index, uint64_t now_ns)
{
    struct lithos_model_event events[EVENTS];
    size_t n;

    do {
        n = lithos_model_advance(sv->cards[index].model, now_ns, events, EVENTS);
        for (size_t k = 0; k < n; k++)
            work_event(index, &events[k]);
    } while (n == EVENTS);
    server_touch(sv, index);
}

/* What was drawn since the last account, at the clock in force all the while. */
static void account(struct card *card, uint64_t now_ns)
{
    struct card_power *p = &card->power;
    const double capacity_ns = (double)lithos_card_sms(&card->data) * (double)(now_ns - p->at_ns);
    uint64_t busy_ns, memory_ns;

    if (now_ns <= p->at_ns)
        return;
    lithos_model_busy(card->model, &busy_ns, &memory_ns);
    const struct lithos_power_load load = {
        .busy_ppm = (uint32_t)LITHOS_MIN((double)(busy_ns - p->busy_ns) / capacity_ns * 1e6, 1e6),
        .traffic_ppm = (uint32_t)LITHOS_MIN((double)(memory_ns - p->memory_ns) / capacity_ns * 1e6, 1e6)};
    p->energy_uj += lithos_power_mw(&card->data.power, p->mhz, &load) * (double)(now_ns - p->at_ns) / 1e6;
    p->busy_ns = busy_ns;
    p->memory_ns = memory_ns;
    p->at_ns = now_ns;
}

/* Up to now, with what was asked of the clock carried out when it is time. */
static void catch_up(struct server *sv, unsigned index)
{
    struct card *card = &sv->cards[index];
    struct card_power *p = &card->power;
    const uint64_t now_ns = server_card_ns(sv);

    advance(sv, index, now_ns);
    account(card, now_ns);
    if (p->asked_mhz != p->mhz && p->switch_ns <= now_ns) {
        p->mhz = p->asked_mhz;
        lithos_model_set_clock(card->model, now_ns,
                               (uint32_t)((uint64_t)p->mhz * 1000000 / card->data.power.max_mhz));
        server_touch(sv, index);
    }
    if (now_ns >= p->power_at_ns + POWER_NS) {
        if (now_ns > p->power_at_ns)
            p->power_mw = (uint32_t)((p->energy_uj - p->power_uj) * 1e6 / (double)(now_ns - p->power_at_ns));
        p->power_at_ns = now_ns;
        p->power_uj = p->energy_uj;
    }
}

uint64_t power_next_ns(const struct card *card)
{
    return card->power.asked_mhz != card->power.mhz ? card->power.switch_ns : LITHOS_MODEL_NEVER;
}

void power_step(struct server *sv, unsigned index)
{
    if (power_next_ns(&sv->cards[index]) <= server_card_ns(sv))
        catch_up(sv, index);
}

static void ask(struct server *sv, struct card *card, uint32_t mhz)
{
    struct card_power *p = &card->power;

    if (mhz == p->asked_mhz)
        return;
    p->asked_mhz = mhz;
    p->switch_ns = server_card_ns(sv) + card->data.power.switch_us * LITHOS_NSEC_PER_USEC;
}

static int32_t set(struct client *c, struct card *card, const struct vgpu_query *q)
{
    const struct lithos_power_card *data = &card->data.power;

    if (!data->max_mhz)
        return VGPU_QUERY_NOT_SUPPORTED;
    if (c->server->clock_rights == CLOCKS_NOBODY || (c->server->clock_rights == CLOCKS_ROOT && c->uid))
        return VGPU_QUERY_NO_PERMISSION;
    if (q->what == VGPU_QUERY_RESET) {
        card->power.locked = false;
        ask(c->server, card, data->max_mhz);
        return VGPU_QUERY_OK;
    }
    if (q->min_mhz > q->max_mhz || q->max_mhz < data->min_mhz)
        return VGPU_QUERY_INVALID;
    card->power.locked = true;
    card->power.locks++;
    ask(c->server, card, lithos_power_step_mhz(data, q->max_mhz));
    return VGPU_QUERY_OK;
}

const char *power_query(struct client *c, const struct vgpu_query *q)
{
    struct server *sv = c->server;

    if (q->card >= sv->card_count)
        return "query: no such card";
    struct card *card = &sv->cards[q->card];
    const struct lithos_power_card *data = &card->data.power;
    struct vgpu_answer a = {.min_mhz = data->min_mhz,
                            .max_mhz = data->max_mhz,
                            .step_mhz = data->step_mhz,
                            .memory_mhz = data->memory_mhz,
                            .limit_mw = data->limit_mw};
    if (data->max_mhz)
        catch_up(sv, q->card);
    a.result = q->what == VGPU_QUERY_STATE ? (data->max_mhz ? VGPU_QUERY_OK : VGPU_QUERY_NOT_SUPPORTED)
                                           : set(c, card, q);
    a.mhz = card->power.mhz;
    a.locked = card->power.locked;
    a.power_mw = card->power.power_mw;
    a.energy_mj = (uint64_t)(card->power.energy_uj / 1000);
    a.busy_ns = lithos_card_sms(&card->data) ? card->power.busy_ns / lithos_card_sms(&card->data) : 0;
    client_send(c, &a, VGPU_ANSWER, sizeof a);
    return NULL;
}
