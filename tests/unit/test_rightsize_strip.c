/* core/rightsize: what a tenant leaves for others, by what its own requests are slowed down. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/util.h"
#include "core/rightsize.h"
#include "unit/cards.h"
#include "unit/rightsize_new.h"

#define ALL 66u
#define US LITHOS_NSEC_PER_USEC
#define MS LITHOS_NSEC_PER_MSEC

/* Requests of one kernel, 1 ms on all TPCs, and somebody who borrows whatever he is given. */
struct stand {
    struct lithos_rightsize *r;
    void *mem;
    uint64_t now_ns, requests;
    struct lithos_tpcset own;
    struct lithos_rightsize_kernel k;
    uint64_t (*takes_ns)(uint32_t tpcs, bool beside); /* a request */
    bool idle;                                        /* nobody borrows */
    bool pauses; /* it does: its requests begin with others' work on all of its TPCs */
    bool halts;  /* it does within them: others come and go, and right-sized requests say nothing */
    bool misses; /* what others have to do on a strip takes no time */
    uint64_t lent_until_ns; /* the last strip was given back */
    uint64_t lent;          /* requests that left a strip, in a row */
    uint64_t strips, over;  /* in all; slower than slip */
    struct lithos_tpcset widest;
};

static struct lithos_tpcset whole(void)
{
    return card_h200().valid;
}

static bool is_empty(struct lithos_tpcset s)
{
    return lithos_tpcset_empty(&s);
}

static uint32_t count(struct lithos_tpcset s)
{
    return lithos_tpcset_count(&s);
}

static void begin(struct stand *s, uint64_t (*takes_ns)(uint32_t tpcs, bool beside))
{
    struct lithos_rightsize_config c = {.topology = card_h200()};

    *s = (struct stand){
        .own = whole(), .takes_ns = takes_ns, .k = {.key = 1, .blocks = 100000, .residency = 1}};
    lithos_rightsize_config_defaults(&c);
    c.operators = 64;
    s->r = rightsize_new(&c, &s->mem);
    lithos_rightsize_lend(s->r, true);
}

static void end(struct stand *s)
{
    free(s->mem);
}

static struct lithos_tpcset strip(struct stand *s)
{
    uint64_t bears_ns;
    return lithos_rightsize_strip(s->r, s->own, &bears_ns);
}

/* What every request keeps to, whatever it is. */
static void check_request(struct stand *s, const struct lithos_rightsize_choice *c, struct lithos_tpcset left)
{
    const struct lithos_tpcset kept = lithos_rightsize_kept(s->r, s->own);
    const struct lithos_tpcset met = lithos_tpcset_and(c->tpcs, left);

    assert_true(is_empty(met));
    if (is_empty(kept)) {
        assert_true(is_empty(left));
        return;
    }
    assert_true(lithos_tpcset_equal(&c->tpcs, &kept));
    assert_true(c->ticket.beside && c->why == LITHOS_RIGHTSIZE_LENT);
}

/* Its TPCs. */
static uint32_t request(struct stand *s)
{
    struct lithos_rightsize_choice c;

    lithos_rightsize_request(s->r, s->now_ns);
    const struct lithos_tpcset left = strip(s);
    lithos_rightsize_choose(s->r, &s->k, s->own, (struct lithos_tpcset){{0, 0}}, &c);
    check_request(s, &c, left);
    /* narrower ones lie within wider ones */
    const struct lithos_tpcset outside = lithos_tpcset_minus(left, s->widest);
    s->widest = lithos_tpcset_or(s->widest, left);
    assert_true(is_empty(outside) || count(left) == count(s->widest));
    const uint64_t alone_ns = s->takes_ns(ALL, false);
    const uint64_t took_ns = s->takes_ns(count(c.tpcs), !is_empty(left) && !s->idle);
    if (!is_empty(left) && !s->idle)
        lithos_rightsize_used(s->r);
    /* what it is compared with finds nobody there */
    if (c.why == LITHOS_RIGHTSIZE_REFERENCE)
        assert_true(!s->lent_until_ns || s->now_ns >= s->lent_until_ns + 2 * MS);
    s->now_ns += took_ns;
    lithos_rightsize_observe(s->r, &c.ticket, took_ns, count(c.tpcs));
    if (!is_empty(left)) {
        s->lent_until_ns = s->now_ns;
        s->strips++;
    }
    if (!is_empty(left) && !s->idle && !s->misses)
        lithos_rightsize_took(s->r, left, took_ns);
    s->over += took_ns > alone_ns * 11 / 10;
    s->requests++;
    if (s->halts && c.why != LITHOS_RIGHTSIZE_REFERENCE && is_empty(lithos_rightsize_kept(s->r, s->own)))
        lithos_rightsize_request_spoilt(s->r, s->now_ns, took_ns, 1);
    else if (!s->pauses)
        lithos_rightsize_request_done(s->r, s->now_ns, took_ns, 1);
    else if (c.why == LITHOS_RIGHTSIZE_REFERENCE || !is_empty(lithos_rightsize_kept(s->r, s->own)))
        lithos_rightsize_request_beside(s->r, s->now_ns, took_ns, 1);
    else /* of right-sizing by kernels it would say that it is too slow */
        lithos_rightsize_request_beside(s->r, s->now_ns, 3 * took_ns, 1);
    return count(c.tpcs);
}

static void requests(struct stand *s, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        request(s);
}

static uint64_t never_slower(uint32_t tpcs, bool beside)
{
    (void)tpcs;
    (void)beside;
    return 1 * MS;
}

/* The first TPC that it does not have costs it a second wave. */
static uint64_t by_waves(uint32_t tpcs, bool beside)
{
    (void)beside;
    return tpcs == ALL ? 1 * MS : 1400 * US;
}

/* Alone it needs half of the TPCs, but a neighbour on more than 16 of the others holds its memory up. */
static uint64_t held_up(uint32_t tpcs, bool beside)
{
    return beside && ALL - tpcs > 16 ? 1200 * US : 1 * MS;
}

/* Each level costs a little more than the one before, and from 24 TPCs on it is too much. */
static uint64_t by_and_by(uint32_t tpcs, bool beside)
{
    const uint32_t left = ALL - tpcs;
    if (!beside)
        return 1 * MS;
    return left <= 16 ? 1050 * US : left <= 20 ? 1080 * US : left <= 24 ? 1150 * US : 1230 * US;
}

/* One request in thirty is slow with others beside it: its median says nothing of that. */
static uint64_t now_and_then(uint32_t tpcs, bool beside)
{
    static uint32_t n;
    (void)tpcs;
    return beside && ++n % 30 == 0 ? 1500 * US : 1 * MS;
}

/* Each level costs a little, which a wide slip bears, and from 24 TPCs on one request in forty is over it. */
static uint32_t tails;

static uint64_t by_and_by_with_tail(uint32_t tpcs, bool beside)
{
    static uint32_t n;
    if (!beside)
        return 1 * MS;
    if (ALL - tpcs < 24 || ++n % 40)
        return 1 * MS + 4 * US * (ALL - tpcs);
    tails++;
    return 1400 * US;
}

/* A program whose card waits for it leaves three quarters of it, for nearly all of the time. */
static void leaves_what_is_not_felt(void **unused)
{
    struct stand s;

    (void)unused;
    begin(&s, never_slower);
    requests(&s, 64);
    assert_int_equal(s.strips, 0); /* it is learnt by itself first */
    requests(&s, 1000);
    const uint64_t before = s.strips;
    requests(&s, 3200);
    assert_true(s.strips - before > 2700 && s.strips - before < 3100);
    assert_int_equal(count(s.widest), 49);
    const struct lithos_rightsize_stats *st = lithos_rightsize_stats(s.r);
    assert_int_equal(st->lent, s.strips);
    assert_int_equal(st->narrowed + st->met + st->unused, 0);
    /* nobody is there any more */
    lithos_rightsize_lend(s.r, false);
    request(&s);
    assert_true(is_empty(strip(&s)));
    end(&s);
}

/* Too much at any width: found with a few requests, and seldom tried again. */
static void leaves_nothing_that_is_felt(void **unused)
{
    struct stand s;

    (void)unused;
    begin(&s, by_waves);
    requests(&s, 10000); /* ten seconds */
    assert_in_range(s.strips, 4, 40);
    assert_true(s.over < 100); /* one in a hundred, draining and tries included */
    assert_true(lithos_rightsize_stats(s.r)->narrowed >= 2);
    end(&s);
}

/* A second wave from the first TPC on, which a wide slip bears, and a third from 14 on, which it does not. */
static uint64_t second_wave(uint32_t tpcs, bool beside)
{
    (void)beside;
    return tpcs == ALL ? 1 * MS : ALL - tpcs < 14 ? 1300 * US : 1900 * US;
}

/* A second wave on up to three quarters less. */
static uint64_t wide_second_wave(uint32_t tpcs, bool beside)
{
    (void)beside;
    return tpcs == ALL ? 1 * MS : 1300 * US;
}

/* Half of it costs nothing. */
static uint64_t by_and_by_and_much(uint32_t tpcs, bool beside)
{
    const uint32_t left = ALL - tpcs;
    (void)beside;
    return left <= 25 ? 1 * MS : 1 * MS + 200 * US * (left - 25);
}

/* What the slip allows is not worth it where both together lose by it. */
static void is_worth_what_it_costs(void **unused)
{
    struct stand s;

    (void)unused;
    begin(&s, second_wave);
    assert_int_equal(lithos_rightsize_set_slip(s.r, 1500000), 0);
    requests(&s, 3000);
    const struct lithos_rightsize_stats *st = lithos_rightsize_stats(s.r);
    assert_true(st->dear >= 1); /* a fifth of the TPCs for a quarter of the throughput */
    s.strips = 0;
    requests(&s, 4000);
    assert_true(s.strips < 400);
    assert_true(st->whole > 3000);
    end(&s);

    begin(&s, wide_second_wave);
    assert_int_equal(lithos_rightsize_set_slip(s.r, 1500000), 0);
    requests(&s, 3000);
    s.strips = 0;
    requests(&s, 1000);
    assert_true(s.strips > 800); /* three quarters of them for the same */
    assert_int_equal(count(s.widest), 49);
    assert_int_equal(lithos_rightsize_stats(s.r)->dear, 0);
    s.misses = true; /* or for next to nothing */
    requests(&s, 2000);
    assert_true(lithos_rightsize_stats(s.r)->dear >= 1);
    end(&s);

    begin(&s, by_and_by_and_much);
    assert_int_equal(lithos_rightsize_set_slip(s.r, 8000000), 0);
    requests(&s, 3000);
    assert_true(lithos_rightsize_stats(s.r)->dear >= 1);
    s.strips = 0;
    s.widest = (struct lithos_tpcset){{0, 0}};
    requests(&s, 1000);
    assert_true(s.strips > 800); /* it is worth that */
    assert_in_range(count(s.widest), 20, 25);
    end(&s);
}

/* Alone it needs half of the TPCs, and it bears no neighbour. */
static uint64_t only_alone(uint32_t tpcs, bool beside)
{
    if (beside)
        return 1400 * US;
    return tpcs >= 33 ? 1 * MS : 2 * MS;
}

static unsigned narrow_of(struct stand *s, unsigned n)
{
    unsigned narrow = 0;
    for (unsigned i = 0; i < n; i++)
        narrow += request(s) < ALL;
    return narrow;
}

/* Where somebody would borrow and nothing can be left to him, fewer TPCs would be of use to nobody. */
static void is_not_narrow_for_nothing(void **unused)
{
    struct stand s;

    (void)unused;
    begin(&s, only_alone);
    const struct lithos_rightsize_stats *st = lithos_rightsize_stats(s.r);
    lithos_rightsize_lend(s.r, false);
    requests(&s, 1000);
    assert_true(narrow_of(&s, 320) > 300);
    assert_int_equal(st->whole, 0);
    lithos_rightsize_lend(s.r, true);
    requests(&s, 1000);
    assert_true(st->narrowed >= 1);
    const uint64_t whole = st->whole;
    s.strips = 0;
    assert_in_range(narrow_of(&s, 1600), 1600 / 32, 1600 / 16); /* one in a block, to see how it would be */
    assert_true(s.strips == 0);
    assert_true(st->whole - whole > 1400);
    /* who would borrow has gone */
    lithos_rightsize_lend(s.r, false);
    requests(&s, 1);
    assert_true(narrow_of(&s, 320) > 300);
    assert_int_equal(st->undone, 0);
    end(&s);
}

static void finds_how_much_is_borne(void **unused)
{
    struct stand s;
    uint64_t wide = 0;

    (void)unused;
    begin(&s, held_up);
    requests(&s, 2000);
    s.strips = s.over = 0;
    for (int i = 0; i < 2000; i++)
        wide += request(&s) <= ALL - 12; /* a level below what is too much */
    assert_true(s.strips > 1600);
    assert_true(wide > 1500);
    assert_true(s.over < 40);
    end(&s);
}

/* What a level costs counts from what references take, not from what the one before did. */
static void levels_do_not_add_up(void **unused)
{
    struct stand s;

    (void)unused;
    begin(&s, by_and_by);
    requests(&s, 4000);
    assert_int_equal(count(s.widest), 24); /* it was tried, */
    assert_in_range(s.over, 4, 8);         /* four times */
    assert_true(s.strips > 3000);
    end(&s);
}

static void looks_at_the_tail(void **unused)
{
    struct stand s;

    (void)unused;
    begin(&s, now_and_then);
    requests(&s, 20000);
    assert_true(s.strips < 8000);
    assert_true(s.over < 250);
    end(&s);
}

/* Nor does the tail: what a level usually costs is no excuse for it. */
static void tails_do_not_add_up(void **unused)
{
    struct stand s;

    (void)unused;
    begin(&s, by_and_by_with_tail);
    assert_int_equal(lithos_rightsize_set_slip(s.r, 1300000), 0);
    requests(&s, 2000);
    assert_in_range(count(s.widest), 40, 49);
    requests(&s, 18000);
    print_message("%u requests in the tail\n", tails);
    assert_true(tails < 230);
    end(&s);
}

/* What nobody takes is not left: it costs the owner as much. */
static void leaves_nothing_to_nobody(void **unused)
{
    struct stand s;

    (void)unused;
    begin(&s, never_slower);
    s.idle = true;
    requests(&s, 3000);
    assert_in_range(s.strips, 5, 80);
    assert_int_equal(count(s.widest), 33); /* more of it was of no use either */
    s.now_ns += 9 * LITHOS_NSEC_PER_SEC;
    requests(&s, 500);
    assert_int_equal(lithos_rightsize_stats(s.r)->unused, s.strips);
    /* it is offered again later, and then taken */
    s.idle = false;
    s.now_ns += 17 * LITHOS_NSEC_PER_SEC;
    s.strips = 0;
    requests(&s, 1000);
    assert_true(s.strips > 700);
    /* who borrows is away for a moment: it is not missed for long, and not narrower than before */
    const uint32_t had = count(s.widest);
    s.idle = true;
    requests(&s, 40);
    s.idle = false;
    s.strips = 0;
    s.widest = (struct lithos_tpcset){{0, 0}};
    requests(&s, 3000);
    assert_true(s.strips > 700);
    assert_int_equal(count(s.widest), had);
    end(&s);
}

/* What it is compared with has others' work on it as well, and of right-sizing by kernels nothing is said. */
static void who_pauses_leaves_something_too(void **unused)
{
    struct stand s;

    (void)unused;
    begin(&s, held_up);
    s.pauses = true;
    requests(&s, 4000);
    assert_true(s.strips > 3000);
    assert_true(lithos_rightsize_stats(s.r)->narrowed > 0);
    assert_int_equal(lithos_rightsize_stats(s.r)->undone, 0);
    end(&s);
    begin(&s, by_waves);
    s.pauses = true;
    requests(&s, 4000);
    assert_in_range(s.strips, 4, 40);
    end(&s);
}

/* A decoder that its host launches slowly: of 600 requests beside a training 590 said nothing, and strips were left in nine. */
static void who_halts_leaves_something_too(void **unused)
{
    struct stand s;

    (void)unused;
    begin(&s, never_slower);
    s.halts = true;
    requests(&s, 3000);
    assert_true(s.strips > 2000);
    assert_true(lithos_rightsize_stats(s.r)->references > 60);
    end(&s);
}

/* A kernel whose blocks have to be there at once ends a strip that it does not fit beside, for longer each time. */
static void is_taken_back_when_met(void **unused)
{
    const struct lithos_rightsize_kernel large = {.key = 2, .blocks = 132, .residency = 1, .least_tpcs = ALL};
    struct lithos_rightsize_choice c;
    struct stand s;
    uint64_t met = 0;

    (void)unused;
    begin(&s, never_slower);
    requests(&s, 200);
    for (int i = 0; i < 2000; i++) {
        lithos_rightsize_request(s.r, s.now_ns);
        const bool left = !is_empty(strip(&s));
        if (left) {
            lithos_rightsize_used(s.r);
            lithos_rightsize_choose(s.r, &large, whole(), (struct lithos_tpcset){{0, 0}}, &c);
            assert_int_equal(count(c.tpcs), ALL);
            assert_true(is_empty(strip(&s)));                            /* at once, */
            assert_false(is_empty(lithos_rightsize_kept(s.r, whole()))); /* though others are still there */
            met++;
        }
        s.now_ns += 1 * MS;
        lithos_rightsize_request_done(s.r, s.now_ns, left ? 9 * MS : 1 * MS,
                                      1); /* which says nothing of the strip */
    }
    assert_in_range(met, 8, 16); /* after 1, 2, 4 and so on up to 256 requests */
    assert_int_equal(lithos_rightsize_stats(s.r)->met, met);
    assert_int_equal(lithos_rightsize_stats(s.r)->lent, s.strips);
    assert_int_equal(lithos_rightsize_stats(s.r)->narrowed, 0);
    end(&s);
}

/* Others' kernels take 3 ms each on a strip, however wide, where a request takes 1: how long the strip bore when they last looked. */
struct long_kernels {
    uint64_t until_ns, bore_ns, begun, references;
};

static void beside_long_kernels(struct stand *s, struct long_kernels *l, bool meets)
{
    const struct lithos_rightsize_kernel large = {.key = 2, .blocks = 132, .residency = 1, .least_tpcs = ALL};
    struct lithos_rightsize_choice c;

    lithos_rightsize_request(s->r, s->now_ns);
    const struct lithos_tpcset left = lithos_rightsize_strip(s->r, s->own, &l->bore_ns);
    if (!is_empty(left) && l->bore_ns >= 3 * MS && s->now_ns >= l->until_ns) {
        l->until_ns = s->now_ns + 3 * MS;
        l->begun++;
        lithos_rightsize_used(s->r);
    }
    lithos_rightsize_choose(s->r, meets ? &large : &s->k, s->own, (struct lithos_tpcset){{0, 0}}, &c);
    if (c.why == LITHOS_RIGHTSIZE_REFERENCE) {
        assert_true(s->now_ns >= l->until_ns + 2 * MS || !l->begun);
        l->references++;
    }
    s->strips += !is_empty(left);
    s->now_ns += 1 * MS;
    lithos_rightsize_observe(s->r, &c.ticket, 1 * MS, count(c.tpcs));
    lithos_rightsize_beside(s->r, s->now_ns, l->until_ns > s->now_ns ? l->until_ns : 0);
    lithos_rightsize_request_done(s->r, s->now_ns, 1 * MS, 1);
}

/* What takes longer than a launch may wait has its place on a strip as long as no launch goes there. */
static void is_patient_until_it_is_met(void **unused)
{
    struct long_kernels l = {0};
    struct stand s;

    (void)unused;
    begin(&s, never_slower);
    for (int i = 0; i < 3000; i++)
        beside_long_kernels(&s, &l, false);
    const struct lithos_rightsize_stats *st = lithos_rightsize_stats(s.r);
    assert_true(l.begun > 700); /* of 1000 */
    assert_true(l.references > 60);
    assert_in_range(st->unused, 4, 40);
    assert_int_equal(st->narrowed + st->met, 0);
    while (l.bore_ns < 3 * MS) /* one waits for such a kernel: of the next requests none */
        beside_long_kernels(&s, &l, false);
    beside_long_kernels(&s, &l, true);
    assert_in_range(st->met, 1, 1);
    l.begun = 0;
    for (int i = 0; i < 500; i++) {
        beside_long_kernels(&s, &l, false);
        assert_true(l.bore_ns < 1 * MS);
    }
    assert_int_equal(l.begun, 0);
    end(&s);
}

/* One that needs 20 TPCs ends the strip that is too wide for it, and then there is one that is not. */
static void is_as_wide_as_kernels_let_it_be(void **unused)
{
    const struct lithos_rightsize_kernel large = {.key = 2, .blocks = 40, .residency = 1, .least_tpcs = 20};
    struct lithos_rightsize_choice c;
    struct stand s;
    uint32_t narrowest = ALL;

    (void)unused;
    begin(&s, never_slower);
    for (int i = 0; i < 3000; i++) {
        lithos_rightsize_request(s.r, s.now_ns);
        const struct lithos_tpcset left = strip(&s);
        for (int n = 0; n < 3; n++) { /* of one request it counts once */
            lithos_rightsize_choose(s.r, &large, whole(), (struct lithos_tpcset){{0, 0}}, &c);
            assert_true(count(c.tpcs) >= 20);
        }
        if (!is_empty(left)) {
            lithos_rightsize_used(s.r);
            narrowest = LITHOS_MIN(narrowest, ALL - count(left));
        }
        s.strips += ALL - count(left) >= 20 && !is_empty(left);
        s.now_ns += 1 * MS;
        lithos_rightsize_request_done(s.r, s.now_ns, 1 * MS, 3);
    }
    assert_in_range(lithos_rightsize_stats(s.r)->met, 1, 4);
    assert_true(s.strips > 2000);
    assert_true(narrowest < 20); /* it was tried */
    end(&s);
}

/* The first TPCs that are kept are single ones, where no cluster fits. */
static void clusters_keep_room(void **unused)
{
    const struct lithos_topology t = card_h200();
    struct stand s;

    (void)unused;
    begin(&s, never_slower);
    assert_int_equal(lithos_tpcset_parse("0-3,9-16,75,78,81,83", &s.own), 0);
    s.k.cluster_blocks = 16;
    for (int i = 0; i < 2000; i++) {
        request(&s);
        const struct lithos_tpcset kept = lithos_rightsize_kept(s.r, s.own);
        assert_true(is_empty(kept) || lithos_topology_has_room(&t, kept, 16));
    }
    assert_true(s.strips > 1000);
    assert_int_equal(count(s.widest), 8);
    end(&s);
}

/* What a kernel takes beside others says nothing of how it scales. */
static void what_is_measured_beside_does_not_count(void **unused)
{
    struct lithos_rightsize_choice c;
    struct stand s;
    double m, b;

    (void)unused;
    begin(&s, never_slower);
    lithos_rightsize_lend(s.r, false);
    for (int i = 0; i < 600; i++) { /* l = 660 / t + 90 us */
        lithos_rightsize_choose(s.r, &s.k, whole(), (struct lithos_tpcset){{0, 0}}, &c);
        lithos_rightsize_observe(s.r, &c.ticket, 660 * US / count(c.tpcs) + 90 * US, count(c.tpcs));
    }
    assert_true(lithos_rightsize_line(s.r, 1, &m, &b));
    const double before = m;
    const double tpc_ns = lithos_rightsize_stats(s.r)->tpc_ns;
    for (int i = 0; i < 100; i++) {
        lithos_rightsize_choose(s.r, &s.k, whole(), (struct lithos_tpcset){{0, 0}}, &c);
        c.ticket.beside = true;
        lithos_rightsize_observe(s.r, &c.ticket, 300 * US, count(c.tpcs));
    }
    assert_true(lithos_rightsize_line(s.r, 1, &m, &b));
    assert_true(m == before);
    assert_true(lithos_rightsize_stats(s.r)->tpc_ns > tpc_ns); /* it is accounted for all the same */
    end(&s);
}

/* Switched off for a while, and on again: it goes on with as much. With another slip it begins anew. */
static void goes_on_after_a_pause(void **unused)
{
    struct stand s;
    uint64_t bears_ns;

    (void)unused;
    begin(&s, held_up);
    requests(&s, 2000);
    const uint32_t had = count(s.widest);
    lithos_rightsize_request(s.r, s.now_ns);
    lithos_rightsize_pause(s.r, s.now_ns);
    assert_false(lithos_rightsize_whole(s.r));
    assert_true(is_empty(lithos_rightsize_kept(s.r, s.own)));
    assert_true(is_empty(lithos_rightsize_strip(s.r, s.own, &bears_ns)));
    lithos_rightsize_request_done(s.r, s.now_ns, 50 * MS, 1); /* of which it knows nothing */
    s.now_ns += 2 * LITHOS_NSEC_PER_SEC;
    s.lent_until_ns = 0;
    s.widest = (struct lithos_tpcset){{0, 0}};
    s.strips = s.over = 0;
    requests(&s, 64);
    assert_true(s.strips > 50 && s.over == 0); /* nothing is tried again that was too much */
    assert_in_range(count(s.widest), 12, had);
    assert_int_equal(lithos_rightsize_set_slip(s.r, 1150000), 0);
    requests(&s, 10);
    assert_int_equal(lithos_rightsize_set_slip(s.r, 1100000), 0);
    s.strips = 0;
    s.widest = (struct lithos_tpcset){{0, 0}};
    requests(&s, 20);
    assert_int_equal(s.strips, 0); /* there are no references yet */
    requests(&s, 40);
    assert_true(s.strips > 10);
    assert_in_range(count(s.widest), 16, 20); /* a quarter, and a level more */
    end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(leaves_what_is_not_felt),
        cmocka_unit_test(leaves_nothing_that_is_felt),
        cmocka_unit_test(finds_how_much_is_borne),
        cmocka_unit_test(looks_at_the_tail),
        cmocka_unit_test(levels_do_not_add_up),
        cmocka_unit_test(tails_do_not_add_up),
        cmocka_unit_test(leaves_nothing_to_nobody),
        cmocka_unit_test(who_pauses_leaves_something_too),
        cmocka_unit_test(is_taken_back_when_met),
        cmocka_unit_test(is_as_wide_as_kernels_let_it_be),
        cmocka_unit_test(clusters_keep_room),
        cmocka_unit_test(what_is_measured_beside_does_not_count),
        cmocka_unit_test(goes_on_after_a_pause),
        cmocka_unit_test(is_not_narrow_for_nothing),
        cmocka_unit_test(is_worth_what_it_costs),
        cmocka_unit_test(is_patient_until_it_is_met),
        cmocka_unit_test(who_halts_leaves_something_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
