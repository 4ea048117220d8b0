/* What the scheduler does, for people: docs/status.md. */
#include <stdlib.h>
#include <string.h>

#include "daemon/daemon.h"

static json_t *number(uint64_t v)
{
    return json_integer((json_int_t)(v & INT64_MAX));
}

static json_t *us(uint64_t ns)
{
    return json_real((double)ns / 1e3);
}

static json_t *ppm_or_null(uint32_t ppm)
{
    return ppm ? json_real((double)ppm / LITHOS_SCHED_PPM) : json_null();
}

static json_t *bits(struct lithos_tpcset set)
{
    char text[LITHOS_TPCSET_TEXT_MAX];
    return json_string(lithos_tpcset_format(&set, text));
}

/* The upper end of the slot in which the q-th reaction lies; null: there was none. */
static json_t *reaction(const struct lithosd_lend *l, uint64_t count, double q)
{
    uint64_t seen = 0;
    for (unsigned i = 0; i < LITHOSD_REACTIONS && count; i++) {
        seen += l->reactions[i];
        if ((double)seen >= (double)count * q)
            return us((i + 1ull) * LITHOSD_REACTION_NS);
    }
    return json_null();
}

json_t *lithosd_lend_status(const struct lithosd *d)
{
    const struct lithosd_lend *l = &d->lend;
    uint64_t count = 0;
    for (unsigned i = 0; i < LITHOSD_REACTIONS; i++)
        count += l->reactions[i];
    return json_pack("{s:s,s:s,s:o,s:b,s:o,s:{s:o,s:o,s:o}}", "policy",
                     l->policy ? l->policy->name : "lithos", "share",
                     d->options.share == LITHOS_DOMAIN_PREEMPT ? "preempt" : "spatial", "off",
                     l->off ? json_string(l->off) : json_null(), "spins", l->spins, "rules",
                     number(l->changes), "reaction", "count", number(count), "p50_us",
                     reaction(l, count, 0.5), "p99_us", reaction(l, count, 0.99));
}

json_t *lithosd_share_status(const struct lithosd_tenant *t)
{
    struct lithos_share s = lithosd_share(t);
    bool high = t->grant.class == LITHOS_CLASS_HIGH;
    return json_pack("{s:o,s:o,s:o,s:o}", "weight", high ? json_null() : number(s.weight), "floor",
                     high ? json_null() : number(s.floor_tpcs), "slip", ppm_or_null(s.slip_ppm), "slo_us",
                     s.slo_ns ? us(s.slo_ns) : json_null());
}

static json_t *rule_status(const struct lithos_rule *r)
{
    uint64_t now_ns = lithos_now_ns();
    if (!r->flags)
        return json_null();
    return json_pack(
        "{s:b,s:b,s:o,s:o,s:i,s:o,s:o,s:o,s:o,s:i,s:o}", "hold", r->flags & LITHOS_RULE_HOLD, "strict",
        r->flags & LITHOS_RULE_STRICT, "window_us", us(r->window_ns), "own_window_us", us(r->own_window_ns),
        "floor", (int)r->floor, "longest_us", r->longest_ns ? us(r->longest_ns) : json_null(), "until_us",
        r->until_ns == LITHOS_TPCGRANT_FOREVER ? json_null()
                                               : us(r->until_ns - LITHOS_MIN(r->until_ns, now_ns)),
        "spare", bits(r->spare), "lent", bits(r->lent), "wider_tpcs", (int)r->wider_tpcs, "wider_us",
        r->wider_tpcs ? us(r->wider_ns - LITHOS_MIN(r->wider_ns, now_ns)) : json_null());
}

static json_t *owner_status(const struct lithos_sched_explain *e)
{
    return json_pack("{s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "returns", number(e->returns),
                     "hits", number(e->hits), "wait_us", us(e->wait_ns), "slack_us", us(e->slack_ns),
                     "need_us", us(e->need_ns), "request_us", us(e->request_ns), "single_us",
                     e->single_ns ? us(e->single_ns) : json_null(), "single",
                     json_real((double)e->single_ppm / LITHOS_SCHED_PPM), "even_us",
                     e->even_ns ? us(e->even_ns) : json_null(), "slower", ppm_or_null(e->slower_ppm),
                     "squeeze", json_real((double)e->squeeze_ppm / LITHOS_SCHED_PPM), "lent_away_tpc_s",
                     json_real((double)e->lent_away_tpc_ns / 1e9));
}

static json_t *explain_gpu(struct lithosd_tenant *t, uint32_t i)
{
    struct lithos_sched *s = t->daemon->lend.gpu[t->gpu[i]].sched;
    struct lithos_sched_explain e;
    struct lithos_sched_advice a;
    unsigned index = t->daemon->gpus.gpu[t->gpu[i]].index;
    if (!t->lent[i].in || lithos_sched_explain(s, lithos_now_ns(), t->lent[i].slot, &e) < 0 ||
        lithos_sched_advise(s, t->lent[i].slot, 0, &a) < 0)
        return json_pack("{s:i,s:o}", "index", (int)index, "why", json_null());
    json_t *why = json_object(), *waited = json_object();
    for (int w = 0; w < LITHOS_WHY_MAX; w++)
        json_object_set_new(why, lithos_sched_why_name((enum lithos_sched_why)w),
                            json_real((double)e.why_ns[w] / 1e9));
    for (int p = 0; p < LITHOS_PICK_MAX; p++)
        json_object_set_new(waited, lithos_tpcpick_name((enum lithos_tpcpick)p),
                            json_real((double)e.pick_ns[p] / 1e9));
    return json_pack(
        "{s:i,s:o,s:o,s:o,s:o,s:o,s:o,s:b,s:s,s:o,s:o,s:i,s:i,s:o,s:o,s:o,s:o,s:i}", "index", (int)index,
        "own", bits(e.own), "refuge", lithosd_owns(t) ? json_null() : bits(t->grant.gpus[i].own), "graphs",
        i == 0 && t->hold.on ? bits(t->hold.place) : json_null(), "hold",
        i == 0 ? lithosd_hold_status(t) : json_null(), "lent", bits(e.lent), "lent_away",
        bits(lithosd_lend_away(t, i)), "unseen", t->lent[i].unseen, "why", lithos_sched_why_name(e.why),
        "why_s", why, "waited_s", waited, "outstanding", (int)e.outstanding, "queued", (int)e.queued,
        "head_us", us(t->lent[i].head_ns), "lent_tpc_s", json_real((double)e.lent_tpc_ns / 1e9), "rule",
        rule_status(&t->lent[i].rule), "owner", e.class == LITHOS_SCHED_HIGH ? owner_status(&e) : json_null(),
        "advised_sms", (int)a.sms);
}

char *lithosd_explain(struct lithosd_tenant *t)
{
    const struct lithosd_lend *l = &t->daemon->lend;
    json_t *gpus = json_array();
    for (uint32_t i = 0; i < t->grant.gpu_count; i++)
        json_array_append_new(gpus, explain_gpu(t, i));
    char quota[16];
    json_t *root =
        json_pack("{s:i,s:s,s:s,s:s,s:o,s:s,s:o,s:o,s:o,s:o}", "schema", 1, "tenant", t->name, "class",
                  lithos_class_name(t->grant.class), "quota", lithos_quota_format(&t->quota, quota), "share",
                  lithosd_share_status(t), "policy", l->policy ? l->policy->name : "lithos", "off",
                  l->off ? json_string(l->off) : json_null(), "slice", lithosd_slice_status(t), "rightsize",
                  lithosd_rightsize_status(t), "gpus", gpus);
    char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    json_decref(root);
    return text;
}
