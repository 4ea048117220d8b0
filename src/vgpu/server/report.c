/* What each process did to each card, seen from the card's side: proof of isolation that asks nobody else. */
#include <jansson.h>

#include "base/assert.h"
#include "base/util.h"
#include "vgpu/server/server.h"

static json_t *whole(uint64_t v)
{
    return json_integer((json_int_t)v);
}

static void put(json_t *o, const char *key, json_t *value)
{
    lithos_assert(json_object_set_new(o, key, value) == 0);
}

static json_t *sm_ns(const struct lithos_model_stats *s)
{
    json_t *o = json_object();
    for (unsigned b = 0; b < LITHOS_TPC_BITS; b++) {
        char key[8];
        snprintf(key, sizeof key, "%u", b);
        if (s->sm_ns[b])
            put(o, key, whole(s->sm_ns[b]));
    }
    return o;
}

static json_t *usage_json(const struct client *c, unsigned card)
{
    struct lithos_model_stats s;
    work_usage(c, card, &s);
    const struct usage *u = &c->usage[card];
    char tpcs[LITHOS_TPCSET_TEXT_MAX];
    json_t *o = json_object();
    put(o, "card", whole(card));
    put(o, "launches", whole(s.launches));
    put(o, "hangs", whole(s.hangs));
    put(o, "faults", whole(u->faults));
    put(o, "blocks", whole(s.blocks));
    put(o, "blocks_missed", whole(u->blocks_missed));
    put(o, "blocks_twice", whole(u->blocks_twice));
    put(o, "atoms", whole(u->atoms));
    put(o, "exits", whole(u->exits));
    put(o, "blocks_beside_others", whole(s.blocks_beside_others));
    put(o, "copies", whole(s.copies));
    put(o, "copy_bytes", whole(s.copy_bytes));
    put(o, "tpcs", json_string(lithos_tpcset_format(&s.tpcs, tpcs)));
    put(o, "tpc_count", whole(lithos_tpcset_count(&s.tpcs)));
    put(o, "sm_ns", sm_ns(&s));
    return o;
}

static json_t *client_json(const struct server *sv, const struct client *c, bool alive)
{
    json_t *o = json_object(), *cards = json_array();
    put(o, "pid", json_integer(c->pid));
    put(o, "program", json_string(c->program));
    put(o, "alive", json_boolean(alive));
    put(o, "mps", json_boolean(c->hello.mps));
    put(o, "thread_percent", whole(c->hello.thread_percent));
    put(o, "priority", json_integer(c->hello.priority));
    put(o, "started_ns", whole(c->started_ns));
    put(o, "ended_ns", alive ? json_null() : whole(c->ended_ns));
    for (unsigned i = 0; i < sv->card_count; i++)
        json_array_append_new(cards, usage_json(c, i));
    put(o, "cards", cards);
    return o;
}

char *report_text(const struct server *sv)
{
    json_t *root = json_object(), *cards = json_array(), *clients = json_array();
    put(root, "scale", json_real(sv->scale));
    put(root, "now_ns", whole(server_card_ns(sv)));
    for (unsigned i = 0; i < sv->card_count; i++) {
        char tpcs[LITHOS_TPCSET_TEXT_MAX];
        json_t *card = json_object();
        put(card, "index", whole(i));
        put(card, "name", json_string(sv->cards[i].data.name));
        put(card, "tpcs", json_string(lithos_tpcset_format(&sv->cards[i].data.topology.valid, tpcs)));
        json_array_append_new(cards, card);
    }
    for (const struct client *c = sv->past; c; c = c->next)
        json_array_append_new(clients, client_json(sv, c, false));
    for (const struct client *c = sv->clients; c; c = c->next)
        json_array_append_new(clients, client_json(sv, c, true));
    put(root, "cards", cards);
    put(root, "clients", clients);
    char *text = json_dumps(root, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    json_decref(root);
    return text;
}
