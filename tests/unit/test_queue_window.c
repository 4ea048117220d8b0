/* How much of a best-effort tenant is on the card at a time: what stamps teach, the window and its floor, rules, and what is done when
 * nothing comes back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "queue_rig.h"
#include "stub/in_child.h"
#include "tenant/attach.h"

#define US LITHOS_NSEC_PER_USEC
#define MS LITHOS_NSEC_PER_MSEC
#define KEY 0x1235u /* of an estimate */

static struct queue *q;
static struct queue_stream *s;
static uint64_t sequence;

/* The turn is ours: no dispatcher looks at what is put here. */
static void begin(void)
{
    rig_open("always");
    q = atomic_load(&lithos_queue);
    lithos_queue_take_turn(q);
    s = lithos_queue_stream(q, lithos_queue_context(q), RIG_STREAM, true);
    CHECK(s);
}

/* A kernel under way, predicted as it would be. */
static uint64_t fly(void)
{
    uint32_t estimate;
    uint64_t predicted_ns = lithos_queue_predict_ns(q, KEY, QUEUE_OWN, &estimate);
    const struct queue_takeoff t = {.stamp = ++sequence, .predicted_ns = predicted_ns, .estimate = estimate};
    lithos_queue_fly(q, s, &t);
    return predicted_ns;
}

/* The GPU writes a stamp. */
static void ends(uint64_t of, uint64_t time_ns)
{
    struct lithos_stamp *stamp = &lithos_tenant_home.stamps[of % LITHOS_STAMP_SLOTS];
    atomic_store(&stamp->time_ns, time_ns);
    atomic_store(&stamp->payload, of);
}

/* As if it had been learnt. */
static struct queue_estimate *takes(uint64_t own_ns)
{
    struct queue_estimate *e = &q->estimates[KEY & (QUEUE_ESTIMATES - 1)];
    *e = (struct queue_estimate){.key = KEY, .ns = {own_ns, own_ns}, .learnt = {true, false}};
    return e;
}

static const struct lithos_gate *gate_for(uint64_t own_ns, uint64_t lent_ns)
{
    const struct queue_length length = {.ns = {own_ns, lent_ns}};
    enum queue_width width;
    const struct lithos_gate *gate = lithos_queue_gate(q, s, &length, &width);
    CHECK(gate ? width == QUEUE_LENT : width == QUEUE_OWN); /* no rule here has TPCs to spare */
    return gate;
}

static uint64_t predicted(void)
{
    uint32_t estimate;
    return lithos_queue_predict_ns(q, KEY, QUEUE_OWN, &estimate);
}

#define WAY_NS (8 * US) /* what is taken off for the way to the card */

/* The card's clock is known to be ours, and time is the test's: what happened seconds ago shows it to be no nearer than that, whenever the
 * test gets to run. */
static void know_clock(uint64_t now_ns)
{
    q->devices[0].clock = (struct queue_clock){.card_ns = now_ns, .at_ns = now_ns, .seen_ns = now_ns};
}

/* A kernel under way that was launched then. */
static void fly_at(uint64_t issued_ns)
{
    fly();
    s->flights[(s->first + s->in_flight - 1) % QUEUE_FLIGHTS].issued_ns = issued_ns;
}

/* Behind another kernel it took from that one's end to its own; else from its launch, but for the way to the card. */
static void learning(void)
{
    begin();
    uint64_t begin_ns = lithos_now_ns(), t = begin_ns - 5 * LITHOS_NSEC_PER_SEC, unknown_ns = predicted();
    know_clock(begin_ns);
    fly_at(t);
    CHECK(unknown_ns > 0);
    CHECK_EQ(s->outstanding_ns, unknown_ns);
    for (int i = 0; i < 40; i++) {
        fly_at(t + 10 * US);
        ends(sequence - 1, t += 70 * US);
        CHECK(lithos_queue_reap(q));
        CHECK_EQ(s->in_flight, 1);
    }
    CHECK(predicted() >= 69 * US && predicted() <= 71 * US);
    ends(sequence, t += 70 * US);
    CHECK(lithos_queue_reap(q));
    for (int i = 0; i < 40; i++) {
        t += 10 * LITHOS_NSEC_PER_MSEC; /* after a pause */
        fly_at(t);
        ends(sequence, t + 300 * US);
        CHECK(lithos_queue_reap(q));
        CHECK_EQ(s->in_flight, 0);
    }
    /* the clocks may drift apart by 50 ppm */
    CHECK(predicted() >= 299 * US - WAY_NS);
    CHECK(predicted() <= 301 * US - WAY_NS + (lithos_now_ns() - begin_ns) / 20000);
    /* The first behind those that there was no room to follow teaches nothing: it did not run from the end of the one before it that was. */
    know_clock(t);
    for (uint32_t i = 0; i < QUEUE_FLIGHTS + 9; i++)
        fly_at(t);
    CHECK_EQ(s->in_flight, QUEUE_FLIGHTS);
    sequence -= 9;
    for (uint32_t i = QUEUE_FLIGHTS; i > 0; i--)
        ends(sequence - i + 1, t += 300 * US);
    CHECK(lithos_queue_reap(q));
    t += 9 * MS;
    fly_at(t - 10 * MS);
    ends(sequence, t += 300 * US);
    CHECK(lithos_queue_reap(q));
    CHECK(predicted() >= 299 * US - WAY_NS && predicted() <= 301 * US);
    /* Ends that come in the wrong order teach nothing, and what is outstanding adds up all the same. */
    fly();
    fly();
    ends(sequence - 1, t - 500 * US);
    ends(sequence, t - 900 * US);
    CHECK(lithos_queue_reap(q));
    CHECK(predicted() <= 100 * LITHOS_NSEC_PER_SEC);
    CHECK_EQ(s->outstanding_ns, 0);
    CHECK_EQ(q->devices[0].outstanding_ns, 0);
    CHECK_EQ(q->devices[0].in_flight, 0);
}

/* A card's clock that ticks ten times slower than ours, as a virtual GPU's may: what is learnt is in our time once lithosd has said so. */
static void slow_clock(void)
{
    begin();
    uint64_t issued_ns = lithos_now_ns() - 5 * LITHOS_NSEC_PER_SEC, card_ns = 777 * LITHOS_NSEC_PER_SEC;
    atomic_store(&lithos_tenant_home.clock_drift_ppb[0], 9000000000);
    struct queue_clock *clock = &q->devices[0].clock;
    *clock = (struct queue_clock){
        .card_ns = card_ns, .at_ns = issued_ns, .drift_ppb = 9000000000, .seen_ns = lithos_now_ns()};
    for (int i = 0; i < 40; i++) { /* 40 us of the card, behind each other */
        fly_at(issued_ns + (uint64_t)i * 390 * US);
        card_ns += 40 * US;
        ends(sequence, card_ns);
        CHECK(lithos_queue_reap(q));
    }
    CHECK(predicted() >= 395 * US && predicted() <= 405 * US);
    CHECK(s->end_host_ns >= issued_ns + 16000 * US && s->end_host_ns <= issued_ns + 16100 * US);

    lithos_queue_clock_drift(clock, 9000000100); /* as good as before */
    CHECK(clock->at_ns && clock->drift_ppb == 9000000100);
    lithos_queue_clock_drift(clock, 0); /* another clock */
    CHECK(!clock->at_ns && clock->drift_ppb == 0);
    lithos_queue_clock_drift(clock, INT64_MIN); /* none at all */
    lithos_queue_clock_drift(clock, INT64_MAX);
    CHECK_EQ(clock->drift_ppb, 0);
    clock->drift_ppb = 9000000000;
    CHECK_EQ(lithos_queue_clock_span_ns(clock, 40), 400);
    CHECK_EQ(lithos_queue_clock_span_ns(clock, -40), -400);
    CHECK(lithos_queue_clock_span_ns(clock, INT64_MAX) > 0 &&
          lithos_queue_clock_span_ns(clock, INT64_MIN) < 0);
    (void)lithos_queue_clock_at_ns(clock, UINT64_MAX / 2, lithos_now_ns(), 0); /* any stamp */
    (void)lithos_queue_clock_at_ns(clock, 0, lithos_now_ns(), 0);
}

/* For a kernel of 40 us. */
static bool room(struct queue_stream *of)
{
    static const struct queue_length length = {.ns = {40 * US, 40 * US}};
    return lithos_queue_room(q, of, &length);
}

/* Room for a window, and for two kernels of a stream whatever they take. */
static void window(void)
{
    begin();
    lithos_queue_window_ns = 100 * US;
    takes(40 * US);
    for (int i = 0; i < 3; i++) {
        CHECK(room(s));
        fly();
    }
    CHECK(!room(s)); /* 120 us */
    lithos_queue_set_use(LITHOS_QUEUE_HAND_OVER, true);
    CHECK(room(s) && !lithos_queue_closed(q));
    lithos_queue_set_use(LITHOS_QUEUE_UNUSED, false);
    CHECK(lithos_queue_closed(q));
    lithos_queue_set_use(LITHOS_QUEUE_WINDOW, false);
    CHECK(!room(s) && !lithos_queue_closed(q));
    struct queue_stream *other = lithos_queue_stream(q, lithos_queue_context(q), (CUstream)0x5550, true);
    CHECK(room(other)); /* it has none of its two */
    ends(1, 1000000000);
    CHECK(lithos_queue_reap(q));
    CHECK(room(s));
    takes(5000 * US);
    fly();
    CHECK(!room(s));
    ends(2, 1000040000), ends(3, 1000080000);
    lithos_queue_reap(q);
    CHECK(s->in_flight == 1 && room(s));
}

static void set_rule(uint32_t flags, uint32_t window_ns, uint32_t floor, const char *lent,
                     uint32_t longest_ns)
{
    struct lithos_rule rule = {.flags = flags,
                               .window_ns = window_ns,
                               .own_window_ns = LITHOS_MIN(3 * window_ns, LITHOS_RULE_WINDOW_MAX_NS),
                               .floor = floor,
                               .longest_ns = longest_ns};
    lithos_tpcset_parse(lent, &rule.lent);
    atomic_store(&lithos_tenant_home.lease_ns, lithos_now_ns() + 3600 * LITHOS_NSEC_PER_SEC);
    lithos_arena_set_rule(&lithos_tenant_home, 0, &rule);
}

static void rules(void)
{
    struct lithos_tpcset both;
    begin();
    takes(40 * MS); /* what goes by meanwhile counts for nothing */
    set_rule(LITHOS_RULE_ON, 30 * MS, 1, "9-12", 50 * (uint32_t)US);
    CHECK(room(s));
    fly();
    CHECK(!room(s)); /* narrower than without */
    const struct queue_length too_long = {.ns = {90 * US, 60 * US}};
    CHECK(lithos_queue_room(q, s, &too_long)); /* it goes to its own TPCs, which have a window of their own */
    fly(), fly();
    CHECK(!lithos_queue_room(q, s, &too_long));
    set_rule(LITHOS_RULE_ON, 30 * MS, 1, "", 0);
    CHECK(!room(s)); /* nor is there for others, where nothing is lent */
    struct queue_stream *other = lithos_queue_stream(q, lithos_queue_context(q), (CUstream)0x5550, true);
    CHECK(room(other));
    set_rule(LITHOS_RULE_ON | LITHOS_RULE_STRICT, 30 * MS, 1, "", 0);
    CHECK(!room(other)); /* the floor is for all streams */
    set_rule(LITHOS_RULE_ON | LITHOS_RULE_HOLD, 30 * MS, 1, "", 0);
    CHECK(lithos_queue_held(q, s) && lithos_queue_holds(0));
    set_rule(LITHOS_RULE_ON, 300 * MS, 1, "9-12", 50 * (uint32_t)US);
    CHECK(!lithos_queue_held(q, s) && !lithos_queue_holds(0) && room(s));
    const struct lithos_gate *gate = gate_for(90 * US, 40 * US);
    lithos_tpcset_parse("0-5,9-12", &both);
    CHECK(gate && lithos_tpcset_equal(&gate->rows[0].set, &both));
    CHECK(!gate_for(90 * US, 60 * US)); /* it takes too long there */
    set_rule(LITHOS_RULE_ON, 300 * MS, 1, "", 0);
    CHECK(!gate_for(40 * US, 40 * US)); /* nothing is lent any more */
    /* A rule that is not sane is none; so is that of a scheduler that has died. */
    set_rule(LITHOS_RULE_ON | LITHOS_RULE_HOLD, 30 * MS, 0, "", 0);
    CHECK(!lithos_queue_held(q, s));
    set_rule(LITHOS_RULE_ON | LITHOS_RULE_HOLD, 30 * MS, 1, "", 0);
    CHECK(lithos_queue_held(q, s));
    atomic_store(&lithos_tenant_home.lease_ns, 0);
    CHECK(!lithos_queue_held(q, s) && !lithos_queue_holds(0));
}

/* What it takes on its own TPCs and beside others' is learnt apart; until both are known it is taken to be the faster the more TPCs it has. */
static void widths(void)
{
    begin();
    set_rule(LITHOS_RULE_ON, 1000 * US, 1, "9-12,18,19", 50 * (uint32_t)US); /* 6 and 6 */
    struct queue_estimate *e = takes(1200 * US);
    CHECK_EQ(lithos_queue_length(q, s, KEY, 0).ns[QUEUE_LENT], 600 * US);
    CHECK_EQ(lithos_queue_length(q, s, KEY, 4).ns[QUEUE_OWN], 300 * US);
    CHECK_EQ(lithos_queue_length(q, s, KEY, 4).ns[QUEUE_LENT], 150 * US);
    e->parts = 12;
    CHECK_EQ(lithos_queue_length(q, s, KEY, QUEUE_AS_EVER).ns[QUEUE_OWN], 100 * US);
    CHECK_EQ(lithos_queue_length(q, s, KEY, QUEUE_AS_EVER).parts, 12);
    /* an atom there, behind another: 80 us of it, of 12 */
    const struct queue_takeoff there = {
        .stamp = ++sequence, .predicted_ns = 50 * US, .parts = 12, .width = QUEUE_LENT};
    struct queue_takeoff second = there;
    second.stamp = ++sequence;
    second.estimate = KEY & (QUEUE_ESTIMATES - 1);
    lithos_queue_fly(q, s, &there);
    lithos_queue_fly(q, s, &second);
    ends(sequence - 1, 1000000000);
    lithos_queue_reap(q);
    ends(sequence, 1000000000 + 80 * US);
    lithos_queue_reap(q);
    CHECK_EQ(lithos_queue_length(q, s, KEY, 12).ns[QUEUE_LENT], 80 * US);
    CHECK_EQ(lithos_queue_length(q, s, KEY, 12).ns[QUEUE_OWN], 100 * US);
    /* whole, it is borne where its atoms are, or is not, and would run on its own TPCs */
    for (uint32_t longest_us = 100; longest_us <= 1000; longest_us += 900) {
        set_rule(LITHOS_RULE_ON, 1000 * US, 1, "9-12,18,19", longest_us * (uint32_t)US);
        const struct lithos_gate *atoms = gate_for(100 * US, 80 * US);
        CHECK(atoms && lithos_queue_whole_goes_there(q, s, KEY, atoms) == (longest_us == 1000));
    }
}

/* Owns 6, and 12 more are expected 100 ms from now: what is worth the wait waits, but no longer than twice what it takes on the 6. */
static void wider(void)
{
    begin();
    const struct queue_length
        both = {.ns = {600 * MS, 200 * MS}, .wide_ns = 200 * MS, .learnt = {true, true}},
        small = {.ns = {90 * MS, 30 * MS}, .wide_ns = 30 * MS, .learnt = {true, true}},
        unseen = {.ns = {600 * MS, 600 * MS}, .wide_ns = 200 * MS, .learnt = {true, false}},
        an_atom = {.ns = {600 * MS, 200 * MS}, .wide_ns = 200 * MS, .learnt = {true, true}, .parts = 3},
        short_there = {.ns = {200 * MS, 200 * MS}, .wide_ns = 200 * MS, .learnt = {false, true}};
    struct lithos_rule rule = {.flags = LITHOS_RULE_ON,
                               .window_ns = 100 * (uint32_t)MS,
                               .own_window_ns = 100 * (uint32_t)MS,
                               .floor = 1};
    atomic_store(&lithos_tenant_home.lease_ns, lithos_now_ns() + 3600 * LITHOS_NSEC_PER_SEC);
    lithos_arena_set_rule(&lithos_tenant_home, 0, &rule);
    CHECK(!lithos_queue_waits_for_wider(q, s, &both)); /* nothing is expected */
    rule.wider_tpcs = 12;
    rule.wider_ns = lithos_now_ns() + 100 * MS;
    rule.wider_longest_ns = 199 * MS;
    lithos_arena_set_rule(&lithos_tenant_home, 0, &rule);
    CHECK(!lithos_queue_waits_for_wider(q, s, &both)); /* it would not be borne there */
    rule.wider_longest_ns = 200 * MS;
    lithos_arena_set_rule(&lithos_tenant_home, 0, &rule);
    CHECK(!lithos_queue_waits_for_wider(q, s, &small));
    CHECK(lithos_queue_waits_for_wider(q, s, &both) && lithos_queue_waits_for_wider(q, s, &an_atom));
    CHECK(lithos_queue_waits_for_wider(q, s, &unseen) && lithos_queue_waits_for_wider(q, s, &short_there));
    s->waits_since_ns = lithos_now_ns() - 1180 * MS;
    CHECK(lithos_queue_waits_for_wider(q, s, &both));
    s->waits_since_ns -= 40 * MS;
    CHECK(!lithos_queue_waits_for_wider(q, s, &both)); /* long enough */
    s->waits_since_ns = 0;
    rule.wider_ns += 3600 * LITHOS_NSEC_PER_SEC;
    lithos_arena_set_rule(&lithos_tenant_home, 0, &rule);
    CHECK(!lithos_queue_waits_for_wider(q, s, &both)); /* too late */
    /* it may go where something is lent already */
    rule.wider_ns = lithos_now_ns() + 100 * MS;
    rule.longest_ns = 250 * (uint32_t)MS;
    lithos_tpcset_parse("9-12", &rule.lent);
    lithos_arena_set_rule(&lithos_tenant_home, 0, &rule);
    CHECK(!lithos_queue_waits_for_wider(q, s, &both));
    /* or may not, whose owner is about to come back: its own are free sooner than those after it, but far fewer */
    rule.longest_ns = 150 * (uint32_t)MS;
    lithos_arena_set_rule(&lithos_tenant_home, 0, &rule);
    CHECK(lithos_queue_waits_for_wider(q, s, &both));
}

/* Owns 6, and 12 more are expected. One TPC of somebody else's that is lent meanwhile is no reason to go there, and what it takes there
 * is not what it takes on all. */
static void little_is_lent(void)
{
    begin();
    struct lithos_rule rule = {.flags = LITHOS_RULE_ON,
                               .window_ns = 100 * (uint32_t)MS,
                               .own_window_ns = 100 * (uint32_t)MS,
                               .floor = 1,
                               .longest_ns = UINT32_MAX,
                               .wider_tpcs = 12,
                               .wider_ns = lithos_now_ns() + 100 * MS,
                               .wider_longest_ns = 3600 * LITHOS_NSEC_PER_SEC};
    atomic_store(&lithos_tenant_home.lease_ns, lithos_now_ns() + 3600 * LITHOS_NSEC_PER_SEC);
    struct queue_estimate *e = takes(600 * MS);
    lithos_tpcset_parse("9", &rule.lent);
    lithos_arena_set_rule(&lithos_tenant_home, 0, &rule);
    /* never seen on more */
    struct queue_length l = lithos_queue_length(q, s, KEY, 0);
    CHECK(l.few);
    CHECK_EQ(l.ns[QUEUE_LENT], 600 * MS * 6 / 7);
    CHECK_EQ(l.wide_ns, 200 * MS);
    CHECK(lithos_queue_waits_for_wider(q, s, &l));
    /* seen there */
    s->waits_since_ns = 0;
    e->ns[QUEUE_LENT] = 210 * MS;
    e->learnt[QUEUE_LENT] = true;
    l = lithos_queue_length(q, s, KEY, 0);
    CHECK_EQ(l.ns[QUEUE_LENT], 210 * MS * 18 / 7);
    CHECK_EQ(l.wide_ns, 210 * MS);
    CHECK(lithos_queue_waits_for_wider(q, s, &l));
    s->waits_since_ns = lithos_now_ns() - 2 * 210 * MS * 18 / 7;
    CHECK(!lithos_queue_waits_for_wider(q, s, &l)); /* long enough */
    /* that it is too long there says nothing of all */
    rule.longest_ns = 100 * (uint32_t)MS;
    lithos_arena_set_rule(&lithos_tenant_home, 0, &rule);
    l = lithos_queue_length(q, s, KEY, 0);
    lithos_queue_forget_a_little(q, s, KEY, &l);
    CHECK_EQ(e->ns[QUEUE_LENT], 210 * MS);
    rule.longest_ns = UINT32_MAX;
    /* ten of 18 are many */
    s->waits_since_ns = 0;
    lithos_tpcset_parse("9-12", &rule.lent);
    lithos_arena_set_rule(&lithos_tenant_home, 0, &rule);
    l = lithos_queue_length(q, s, KEY, 0);
    CHECK(!l.few && !lithos_queue_waits_for_wider(q, s, &l));
    CHECK_EQ(l.ns[QUEUE_LENT], 210 * MS);
    /* and what was lent a moment ago counts as well: 18 TPCs of which one is left */
    lithos_tpcset_parse("9-12,18-25", &rule.lent);
    rule.wider_tpcs = 0;
    lithos_arena_set_rule(&lithos_tenant_home, 0, &rule);
    CHECK(!lithos_queue_length(q, s, KEY, 0).few);
    lithos_tpcset_parse("9", &rule.lent);
    lithos_arena_set_rule(&lithos_tenant_home, 0, &rule);
    l = lithos_queue_length(q, s, KEY, 0);
    CHECK(l.few && !lithos_queue_waits_for_wider(q, s, &l)); /* but nobody knows when they come back */
    CHECK_EQ(l.ns[QUEUE_LENT], 210 * MS * 18 / 7);
}

/* Once taken for longer than owners bear, since one of them had come back: it is tried there again some time. */
static void taken_for_too_long(void)
{
    begin();
    set_rule(LITHOS_RULE_ON, 1000 * US, 1, "9-12,18,19", 250 * (uint32_t)US);
    struct queue_estimate *e = takes(1200 * US);
    e->ns[QUEUE_LENT] = 400 * US;
    e->learnt[QUEUE_LENT] = true;
    struct queue_length l = lithos_queue_length(q, s, KEY, 0);
    unsigned n = 0;
    for (; l.ns[QUEUE_LENT] > 250 * US && n < 100; n++) {
        lithos_queue_forget_a_little(q, s, KEY, &l);
        l = lithos_queue_length(q, s, KEY, 0);
    }
    CHECK(n > 10 && n < 20);
    lithos_queue_forget_a_little(q, s, KEY, &l);
    CHECK_EQ(lithos_queue_length(q, s, KEY, 0).ns[QUEUE_LENT],
             l.ns[QUEUE_LENT]); /* it is borne: no more of that */
    /* and it is no slower there than on its own */
    e->ns[QUEUE_LENT] = 50000 * US;
    CHECK_EQ(lithos_queue_length(q, s, KEY, 0).ns[QUEUE_LENT], 1200 * US);
}

/* What outlives the longest goes there if it is over in time, behind what is outstanding. */
static void over_in_time(void)
{
    begin();
    struct lithos_rule rule = {
        .flags = LITHOS_RULE_ON, .window_ns = 100 * (uint32_t)US, .floor = 1, .longest_ns = 1};
    lithos_tpcset_parse("9-12", &rule.lent);
    rule.until_ns = lithos_now_ns() + 3600 * LITHOS_NSEC_PER_SEC;
    atomic_store(&lithos_tenant_home.lease_ns, lithos_now_ns() + 3600 * LITHOS_NSEC_PER_SEC);
    lithos_arena_set_rule(&lithos_tenant_home, 0, &rule);
    CHECK(gate_for(3500 * LITHOS_NSEC_PER_SEC, 3500 * LITHOS_NSEC_PER_SEC));
    CHECK(!gate_for(3500 * LITHOS_NSEC_PER_SEC, 3601 * LITHOS_NSEC_PER_SEC));
    const struct queue_takeoff ahead = {.stamp = ++sequence, .predicted_ns = 200 * LITHOS_NSEC_PER_SEC};
    lithos_queue_fly(q, s, &ahead);
    CHECK(!gate_for(3500 * LITHOS_NSEC_PER_SEC, 3500 * LITHOS_NSEC_PER_SEC));
    CHECK(gate_for(3500 * LITHOS_NSEC_PER_SEC, 3300 * LITHOS_NSEC_PER_SEC));
    /* of which some has gone by */
    s->flights[s->first].issued_ns -= 150 * LITHOS_NSEC_PER_SEC;
    CHECK(gate_for(3500 * LITHOS_NSEC_PER_SEC, 3500 * LITHOS_NSEC_PER_SEC));
}

/* Stamps that never come: after a while the window is given up. When pages are exchanged, those of before are not waited for. */
static void stalls(void)
{
    begin();
    fly();
    uint64_t now_ns = lithos_now_ns();
    CHECK(!lithos_queue_stalled(q, now_ns));
    CHECK(!lithos_queue_stalled(q, now_ns + 50000 * US));
    CHECK(lithos_queue_stalled(q, now_ns + 200000 * US));
    lithos_queue_renew();
    CHECK(lithos_queue_reap(q));
    CHECK(s->in_flight == 0 && s->outstanding_ns == 0);
    CHECK(!lithos_queue_stalled(q, lithos_now_ns()));
    /* A kernel that is known to be long is not taken for lost. */
    takes(80000 * US);
    fly();
    CHECK(!lithos_queue_stalled(q, lithos_now_ns() + 200000 * US));
}

/* The dispatcher sleeps until shortly before the first of its kernels should end; longer only the later that one is. */
static void naps(void)
{
    begin();
    uint64_t now_ns = lithos_now_ns();
    uint64_t held_ns = lithos_queue_nap_ns(q, now_ns);
    CHECK(held_ns > 0 && held_ns <= 100 * US);
    takes(500 * US);
    lithos_queue_window_ns = 100 * US;
    fly();
    now_ns = s->flights[s->first].issued_ns;
    /* by then there is room in the window */
    CHECK(lithos_queue_nap_ns(q, now_ns) > 300 * US && lithos_queue_nap_ns(q, now_ns) < 400 * US);
    CHECK_EQ(lithos_queue_nap_ns(q, now_ns + 390 * US), 0);
    CHECK_EQ(lithos_queue_nap_ns(q, now_ns + 500 * US), 0);
    uint64_t late_ns = lithos_queue_nap_ns(q, now_ns + 900 * US);
    CHECK(late_ns > 0 && late_ns < 200 * US);
    CHECK(lithos_queue_nap_ns(q, now_ns + 50000 * US) <= 500 * US);
}

/* The stream goes, and its place is given to another: what it had in flight does not count for ever. */
static void place_taken(void)
{
    begin();
    fly();
    fly();
    CHECK(q->devices[0].outstanding_ns > 0);
    lithos_queue_forget_stream(q, RIG_STREAM);
    struct queue_stream *next = lithos_queue_stream(q, lithos_queue_context(q), (CUstream)0x5550, true);
    CHECK(next == s);
    CHECK(lithos_queue_reap(q));
    CHECK(next->in_flight == 0 && q->devices[0].outstanding_ns == 0 && q->devices[0].in_flight == 0);
}

/* ---- what is gathered ---- */

#define CALLS 4u

static void pass(uint64_t ns)
{
    const struct timespec ts = {.tv_nsec = (long)ns};
    nanosleep(&ts, NULL);
}

/* A call is queued, and the issuer meets it. key: 0, it is no kernel. */
static void comes(uint64_t key)
{
    const struct queue_entry e = {.kind = key ? QUEUE_LAUNCH : QUEUE_CALL,
                                  .number = lithos_queue_ring_entries(&q->ring) + 1,
                                  .estimate_key = key};
    q->number = e.number;
    atomic_fetch_add(&q->ring.tail, 1ull << 32);
    q->held++;
    lithos_queue_gather_takes(q, &e);
}

/* The dispatcher looks for the last time before the card is done, and sleeps until the next request's first call. */
static bool asleep;
/* So many calls come besides. */
static unsigned others;

/* A request whose host takes so long before each of its calls, and which the card is done with so long after the program waits; 0: just before. How
 * many calls had come when they went. */
static unsigned request_at(uint64_t host_ns, uint64_t late_ns)
{
    unsigned went = 0;
    for (unsigned i = 1; i <= CALLS; i++) {
        pass(host_ns);
        comes(KEY);
        if (!went && lithos_queue_gathers(q))
            continue;
        went = went ? went : i;
        atomic_store(&q->issued, lithos_queue_ring_entries(&q->ring));
        q->held = 0;
    }
    for (unsigned i = 0; i < others; i++)
        comes(0);
    if (went)
        fly();
    if (went && !late_ns) {
        ends(sequence, lithos_now_ns());
        lithos_queue_reap(q);
    }
    lithos_queue_want(q);
    CHECK(!lithos_queue_gathers(q));
    atomic_store(&q->issued, lithos_queue_ring_entries(&q->ring));
    q->held = 0;
    if (went && late_ns) {
        pass(late_ns);
        ends(sequence, lithos_now_ns());
        if (!asleep) {
            lithos_queue_reap(q);
            CHECK(!lithos_queue_gathers(q));
        }
    }
    return went;
}

static unsigned request(uint64_t late_ns)
{
    return request_at(5 * MS, late_ns);
}

/* A request goes as long ahead of its wait as the card takes for it: first by what its kernels take, then by when the card was done. */
static void ahead(void)
{
    begin();
    lithos_queue_set_gather(3600 * LITHOS_NSEC_PER_SEC);
    lithos_queue_set_use(LITHOS_QUEUE_HAND_OVER, true);
    takes(4 * MS);
    CHECK_EQ(request(0), 0); /* nothing is known of it */
    CHECK_EQ(request(0), 1); /* 16 ms before the end of 15 */
    unsigned went = 1, n = 0;
    for (; went == 1 && n < 200; n++) {
        others = n % 3;
        went = request(n % 8 == 7 ? 12 * MS : 0); /* seldom late: it need not go so early */
    }
    CHECK(n > 10 && n < 200 && went >= 2);
    for (n = 0; went > 1 && n < 20; n++)
        went = request(12 * MS);
    CHECK(n < 20);
    for (n = 0; went == 1 && n < 200; n++)
        went = request(0);
    CHECK(n < 200);
    asleep = true;
    for (n = 0; went > 1 && n < 20; n++)
        went = request(12 * MS);
    CHECK(n < 20);
    asleep = false;
    lithos_queue_set_gather(0);
    lithos_queue_set_use(LITHOS_QUEUE_HAND_OVER, true);
    comes(KEY);
    CHECK(!lithos_queue_gathers(q));
    atomic_store(&q->issued, lithos_queue_ring_entries(&q->ring));
}

/* By the pace of this one: a host that is slower than it was lets what it has gathered go later, for the card is not to wait for the rest. */
static void paced(void)
{
    begin();
    lithos_queue_set_gather(3600 * LITHOS_NSEC_PER_SEC);
    lithos_queue_set_use(LITHOS_QUEUE_HAND_OVER, true);
    takes(10 * MS);
    CHECK_EQ(request_at(20 * MS, 0), 0);
    unsigned n = 0;
    while (request_at(20 * MS, 0) != 2) /* 40 ms before the end of 60; this host may have been late */
        CHECK(++n < 8);
    CHECK_EQ(request_at(48 * MS, 0), 3);
}

#define IN_CHILD(name)                                \
    static void test_##name(void **state)             \
    {                                                 \
        (void)state;                                  \
        assert_int_equal(in_child(name, NULL, 0), 0); \
    }
IN_CHILD(learning)
IN_CHILD(ahead)
IN_CHILD(paced)
IN_CHILD(slow_clock)
IN_CHILD(window)
IN_CHILD(rules)
IN_CHILD(widths)
IN_CHILD(wider)
IN_CHILD(little_is_lent)
IN_CHILD(taken_for_too_long)
IN_CHILD(over_in_time)
IN_CHILD(stalls)
IN_CHILD(naps)
IN_CHILD(place_taken)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_learning),       cmocka_unit_test(test_slow_clock),
        cmocka_unit_test(test_window),         cmocka_unit_test(test_rules),
        cmocka_unit_test(test_widths),         cmocka_unit_test(test_wider),
        cmocka_unit_test(test_little_is_lent), cmocka_unit_test(test_taken_for_too_long),
        cmocka_unit_test(test_over_in_time),   cmocka_unit_test(test_stalls),
        cmocka_unit_test(test_place_taken),    cmocka_unit_test(test_naps),
        cmocka_unit_test(test_ahead),          cmocka_unit_test(test_paced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
