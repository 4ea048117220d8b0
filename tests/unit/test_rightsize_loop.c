/* core/rightsize: what a tenant's own latency says, on a host as noisy as the one where it was measured: is right-sizing left alone where
 * it is not the reason, and undone where it is? docs/rightsizing.md has the figures. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "core/rightsize.h"
#include "unit/cards.h"
#include "unit/rightsize_new.h"

#define ALL 66u
#ifdef __SANITIZE_ADDRESS__
#define RUNS 5u /* so that it takes no longer than without; the slowest of so few is not one in ten */
#define NINTH_MAY 2u
#else
#define RUNS 24u
#define NINTH_MAY 1u
#endif
/* Of a run without a slowdown; with one, when it begins, and how long it may take to be found. */
#define REQUESTS 10000u
#define BEGINS 4000u
#define LONGEST 20000u

/* Of mean 0 and standard deviation 1, within 3.5 of it. */
static double normal(uint64_t *state)
{
    double sum = 0;
    for (int i = 0; i < 4; i++)
        sum += random_uniform(state);
    return (sum - 2) * 1.732;
}

/* What a host does to requests: each is off by `spread`, a few take up to twice as long, now and then all of some milliseconds are held up,
 * and for half of the time everything takes up to 1.6 times as long, for half a second or two. */
struct host {
    uint64_t state;
    double usual_us, spread, level, held_us;
    uint64_t level_until_ns, held_until_ns;
};

static double takes_us(struct host *h, uint64_t now_ns)
{
    if (now_ns >= h->level_until_ns) {
        h->level = random_uniform(&h->state) < 0.5 ? 1 : 1 + 0.6 * random_uniform(&h->state);
        h->level_until_ns =
            now_ns + (uint64_t)((0.3 + 1.7 * random_uniform(&h->state)) * LITHOS_NSEC_PER_SEC);
    }
    if (now_ns >= h->held_until_ns && random_uniform(&h->state) < 0.01) {
        h->held_until_ns = now_ns + (uint64_t)(10 * random_uniform(&h->state) * LITHOS_NSEC_PER_MSEC);
        h->held_us = h->usual_us * random_uniform(&h->state);
    }
    const double few = random_uniform(&h->state) < 0.03 ? 1.2 + random_uniform(&h->state) : 1;
    double spread = 1 + h->spread * normal(&h->state);
    spread = spread < 0.6 ? 0.6 : spread;
    return h->usual_us * h->level * spread * few + (now_ns < h->held_until_ns ? h->held_us : 0);
}

/* One request: what it launches and usually takes, and whether it is one of those that are slower. */
struct work {
    uint32_t launches;
    double us;
    bool is_slower;
};

/* A service of one kernel that gains nothing on more than a few TPCs. From a request on, requests that run narrow are `slower`, or one in
 * `one_in` of them. */
struct stand {
    struct lithos_rightsize *r;
    struct lithos_tpcset all; /* the card's */
    void *mem;
    struct host host;
    struct work (*next)(struct stand *s); /* NULL: requests of one kind */
    double usual_us;
    uint64_t now_ns, begins, n;
    double slower, beside; /* with others on the strip, where it leaves one */
    uint32_t one_in;
    uint64_t rhythm; /* one request in so many is five times as much work */
    bool late;       /* what a request is to be is known to the program when it has begun */
    uint32_t width;  /* of the last request */
};

static void begin(struct stand *s, uint64_t seed, double usual_us, double spread)
{
    struct lithos_rightsize_config c = {.topology = card_h200()};

    *s = (struct stand){.all = c.topology.valid,
                        .host = {.state = seed * 7919 + 1, .usual_us = usual_us, .spread = spread},
                        .usual_us = usual_us,
                        .slower = 1,
                        .beside = 1,
                        .one_in = 1,
                        .begins = BEGINS};
    lithos_rightsize_config_defaults(&c);
    c.operators = 64;
    s->r = rightsize_new(&c, &s->mem);
}

static void end(struct stand *s)
{
    free(s->mem);
}

static const struct lithos_rightsize_stats *stats(const struct stand *s)
{
    return lithos_rightsize_stats(s->r);
}

static struct work next_work(struct stand *s)
{
    struct work w = {.launches = 100, .us = s->usual_us, .is_slower = true};

    if (s->next)
        w = s->next(s);
    if (s->rhythm && s->n % s->rhythm == 0)
        w.us *= 5;
    return w;
}

/* lithosd looks at a process once in a millisecond. A request that launches little has all of it run as the one before; of a long one that
 * is a tenth, and too much for a reference in two of five. */
static bool is_spoilt(struct stand *s, const struct work *w, uint32_t width)
{
    const bool other = width != s->width;

    s->width = width;
    return s->late && other && (w->launches < 10 || (width == ALL && random_uniform(&s->host.state) < 0.4));
}

static void request(struct stand *s)
{
    const struct lithos_rightsize_kernel k = {.key = 1, .blocks = 100000, .residency = 1};
    const struct work w = next_work(s);
    struct lithos_rightsize_choice c;
    uint64_t bears_ns;

    lithos_rightsize_request(s->r, s->now_ns);
    const struct lithos_tpcset strip = lithos_rightsize_strip(s->r, s->all, &bears_ns);
    lithos_rightsize_choose(s->r, &k, s->all, (struct lithos_tpcset){{0, 0}}, &c);
    const uint32_t width = lithos_tpcset_count(&c.tpcs);
    lithos_rightsize_observe(s->r, &c.ticket, 100 * LITHOS_NSEC_PER_USEC, width);
    s->host.usual_us = w.us;
    double us = takes_us(&s->host, s->now_ns);
    const bool slow = w.is_slower && s->n >= s->begins;
    if (width < ALL && slow && next_random(&s->host.state) % s->one_in == 0)
        us *= s->slower;
    if (!lithos_tpcset_empty(&strip)) {
        lithos_rightsize_used(s->r);
        us *= slow ? s->beside : 1;
    }
    s->now_ns += (uint64_t)(us * 1000);
    s->n++;
    if (is_spoilt(s, &w, width))
        lithos_rightsize_request_spoilt(s->r, s->now_ns, (uint64_t)(us * 1000), w.launches);
    else
        lithos_rightsize_request_done(s->r, s->now_ns, (uint64_t)(us * 1000), w.launches);
}

/* What a run is about, of a stand that has begun. */
static void take(struct stand *s, const struct stand *how)
{
    s->next = how->next;
    s->late = how->late;
    s->rhythm = how->rhythm;
    s->slower = how->slower > 0 ? how->slower : 1;
    s->beside = how->beside > 0 ? how->beside : 1;
    s->one_in = how->one_in ? how->one_in : 1;
}

/* Runs without a reason: what is undone all the same, in all of them; references in 10000 requests. */
struct alone {
    uint64_t undone, stopped, references;
};

static struct alone runs_alone(const struct stand *how, double usual_us, double spread)
{
    struct alone sum = {0};
    for (uint64_t seed = 1; seed <= RUNS; seed++) {
        struct stand s;
        begin(&s, seed, usual_us, spread);
        take(&s, how);
        s.begins = 0;
        for (uint32_t i = 0; i < REQUESTS; i++)
            request(&s);
        sum.undone += stats(&s)->undone;
        sum.stopped += stats(&s)->stopped;
        sum.references += stats(&s)->references;
        end(&s);
    }
    sum.references = sum.references * 10000 / RUNS / REQUESTS;
    print_message("%.1f ms, off by %2.0f %%, %.2f times as slow%s: undone %.2f, stopped %.2f, references %lu "
                  "in 10000 requests\n",
                  usual_us / 1000, 100 * spread, how->slower > 0 ? how->slower : 1,
                  how->rhythm ? ", one in so many long" : "", (double)sum.undone / RUNS,
                  (double)sum.stopped / RUNS, (unsigned long)sum.references);
    return sum;
}

static int by_size(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

struct found {
    uint64_t median,
        ninth; /* requests until it was undone for the first time: in half of the runs, in nine of ten */
    double ms, stopped_ms;
};

static struct found runs_slower(const struct stand *how, double usual_us, double spread)
{
    uint64_t after[RUNS];
    double ns = 0, stopped_ns = 0;
    for (uint64_t seed = 1; seed <= RUNS; seed++) {
        struct stand s;
        begin(&s, seed, usual_us, spread);
        take(&s, how);
        s.begins += seed;
        while (s.n < s.begins)
            request(&s);
        const uint64_t before = stats(&s)->undone, from_ns = s.now_ns;
        while (s.n < s.begins + LONGEST && stats(&s)->undone == before)
            request(&s);
        after[seed - 1] = s.n - s.begins;
        ns += (double)(s.now_ns - from_ns) / RUNS;
        const uint64_t stops = stats(&s)->stopped;
        while (s.n < s.begins + LONGEST && stats(&s)->stopped == stops)
            request(&s);
        stopped_ns += (double)(s.now_ns - from_ns) / RUNS;
        end(&s);
    }
    qsort(after, RUNS, sizeof *after, by_size);
    const struct found f = {after[RUNS / 2], after[RUNS * 9 / 10], ns / LITHOS_NSEC_PER_MSEC,
                            stopped_ns / LITHOS_NSEC_PER_MSEC};
    print_message("%.1f ms, off by %2.0f %%, one in %2u %.2f times as slow: undone after %5lu requests, "
                  "%5lu in nine of ten runs, %.0f ms in the mean, stopped after %.0f ms\n",
                  usual_us / 1000, 100 * spread, LITHOS_MAX(how->one_in, 1u), how->slower,
                  (unsigned long)f.median, (unsigned long)f.ninth, f.ms, f.stopped_ms);
    return f;
}

/* Not undone, and few references: 362 of 10000 requests are the fewest there can be. */
static void noise_is_no_reason(void **unused)
{
    static const struct {
        double usual_us, spread, slower;
    } of[] = {{2400, 0.06, 1}, {2400, 0.24, 1}, {7500, 0.12, 1}, {2400, 0.12, 1.05}};

    (void)unused;
    for (unsigned i = 0; i < LITHOS_ARRAY_SIZE(of); i++) {
        const struct alone a =
            runs_alone(&(struct stand){.slower = of[i].slower}, of[i].usual_us, of[i].spread);
        assert_true(a.undone <= 1);
        assert_int_equal(a.stopped, 0);
        assert_in_range(a.references, 362, 800);
    }
}

/* Nor is a service whose every 4th or 32nd request is a long one, as often as there are references. */
static void nor_is_a_rhythm(void **unused)
{
    (void)unused;
    for (uint64_t every = 4; every <= 32; every *= 8) {
        const struct alone a = runs_alone(&(struct stand){.slower = 1, .rhythm = every}, 2400, 0.06);
        assert_true(a.undone <= 1);
        assert_int_equal(a.stopped, 0);
    }
}

/* Exactly as slow as they may be: undone once in 500 blocks at most, each of which has one reference. */
static void alarms_are_as_seldom_as_stated(void **unused)
{
    (void)unused;
    const struct alone a = runs_alone(&(struct stand){.slower = 1.1}, 2400, 0.12);
    assert_true(a.undone * 500 <= a.references * REQUESTS * RUNS / 10000);
}

static void slowdowns_are_found(void **unused)
{
    static const struct {
        double spread, slower;
        uint64_t median, ninth; /* at most: a third more than docs/rightsizing.md has */
    } of[] = {{0.06, 1.3, 90, 170}, {0.06, 1.15, 400, 800}, {0.12, 1.3, 150, 260}, {0.12, 2, 80, 110}};

    (void)unused;
    for (unsigned i = 0; i < LITHOS_ARRAY_SIZE(of); i++) {
        const struct found f = runs_slower(&(struct stand){.slower = of[i].slower}, 2400, of[i].spread);
        assert_true(f.median <= of[i].median && f.ninth <= of[i].ninth);
        if (of[i].slower > 1.2) /* at any slip: stopped */
            assert_true(f.stopped_ms < 1250);
    }
}

/* A median says nothing of them. */
static void seldom_slow_ones_are_found(void **unused)
{
    (void)unused;
    const struct found f = runs_slower(&(struct stand){.slower = 4, .one_in = 10}, 2400, 0.12);
    assert_true(f.median <= 800 && f.ninth <= 1600);
}

/* What is left for others, of 10000 requests. */
static uint64_t runs_beside(double spread, double slower)
{
    uint64_t lent = 0, narrowed = 0;
    for (uint64_t seed = 1; seed <= RUNS; seed++) {
        struct stand s;
        begin(&s, seed, 2400, spread);
        s.beside = slower;
        s.begins = 0;
        lithos_rightsize_lend(s.r, true);
        for (uint32_t i = 0; i < REQUESTS; i++)
            request(&s);
        assert_int_equal(stats(&s)->undone, 0);
        lent += stats(&s)->lent;
        narrowed += stats(&s)->narrowed;
        end(&s);
    }
    print_message("off by %2.0f %%, %.2f times as slow beside others: %lu of 10000 leave a strip, which is "
                  "narrowed %.1f times\n",
                  100 * spread, slower, (unsigned long)(lent * 10000 / RUNS / REQUESTS),
                  (double)narrowed / RUNS);
    return lent * 10000 / RUNS / REQUESTS;
}

static void nor_does_noise_end_a_strip(void **unused)
{
    (void)unused;
    assert_true(runs_beside(0.06, 1) > 6500);
    assert_true(runs_beside(0.18, 1) > 6500);
    assert_true(runs_beside(0.06, 1.4) < 150);
    assert_true(runs_beside(0.12, 1.4) < 400);
}

/* --- requests of several kinds --- */

/* A prefill on an H100 waits twice in each of its rounds: for most of its work, and for little. */
static struct work long_and_short(struct stand *s)
{
    return s->n % 2 ? (struct work){3, 83, false} : (struct work){600, 12000, true};
}

/* Those that are slower are half a percent of the time. */
static struct work short_ones_feel_it(struct stand *s)
{
    return s->n % 2 ? (struct work){3, 83, true} : (struct work){600, 12000, false};
}

/* One in nine is a long one, and half of the time. */
static struct work seldom_long(struct stand *s)
{
    return next_random(&s->host.state) % 9 ? (struct work){100, 1000, false} : (struct work){600, 8000, true};
}

/* No two are alike. */
static struct work all_kinds(struct stand *s)
{
    const uint32_t launches = 10u << next_random(&s->host.state) % 6;
    const uint32_t more = (uint32_t)(random_uniform(&s->host.state) * launches);
    return (struct work){launches + more, 20.0 * (launches + more), true};
}

/* A decoder whose requests grow for as long as they last, and then begin again. */
static struct work growing(struct stand *s)
{
    const uint32_t launches = 200 + (uint32_t)(s->n % 1000) / 2;
    return (struct work){launches, 8.0 * launches, true};
}

static void kinds_are_no_reason(void **unused)
{
    static const struct {
        struct stand how;
        double spread;
    } of[] = {{{.next = long_and_short}, 0.06},
              {{.next = long_and_short, .late = true}, 0.06},
              {{.next = long_and_short, .late = true}, 0.18},
              {{.next = short_ones_feel_it, .late = true, .slower = 3}, 0.12},
              {{.next = seldom_long, .late = true}, 0.12},
              {{.next = all_kinds}, 0.12},
              {{.next = growing}, 0.06}};

    (void)unused;
    for (unsigned i = 0; i < LITHOS_ARRAY_SIZE(of); i++) {
        const struct alone a = runs_alone(&of[i].how, 12000, of[i].spread);
        assert_true(a.undone <= 1);
        assert_int_equal(a.stopped, 0);
        assert_in_range(a.references, 250, 1000);
    }
}

static void slow_kinds_are_found(void **unused)
{
    static const struct {
        struct stand how;
        double spread;
        uint64_t median, ninth; /* of all requests */
    } of[] = {{{.next = long_and_short, .slower = 1.3}, 0.06, 210, 380},
              {{.next = long_and_short, .slower = 1.3, .late = true}, 0.06, 210, 380},
              {{.next = long_and_short, .slower = 1.3, .late = true}, 0.12, 320, 520},
              {{.next = seldom_long, .slower = 1.5, .late = true}, 0.06, 1700, 2800},
              {{.next = all_kinds, .slower = 1.3}, 0.06, 3000, 6000},
              {{.next = growing, .slower = 1.3}, 0.06, 210, 260}};

    (void)unused;
    for (unsigned i = 0; i < LITHOS_ARRAY_SIZE(of); i++) {
        const struct found f = runs_slower(&of[i].how, 12000, of[i].spread);
        assert_true(f.median <= of[i].median && f.ninth <= NINTH_MAY * of[i].ninth);
    }
}

/* What is left for others is borne for so many requests, and then it is not. */
static struct found runs_beside_from(const struct stand *how, double usual_us, double spread)
{
    uint64_t after[RUNS], lent = 0;
    double ns = 0;
    for (uint64_t seed = 1; seed <= RUNS; seed++) {
        struct stand s;
        begin(&s, seed, usual_us, spread);
        take(&s, how);
        s.begins += seed;
        lithos_rightsize_lend(s.r, true);
        while (s.n < s.begins)
            request(&s);
        const uint64_t before = stats(&s)->narrowed, left = stats(&s)->lent;
        lent += left;
        while (stats(&s)->lent == left) /* it may leave none just now */
            request(&s);
        const uint64_t from = s.n, from_ns = s.now_ns;
        while (s.n < from + LONGEST && stats(&s)->narrowed == before)
            request(&s);
        after[seed - 1] = s.n - from;
        ns += (double)(s.now_ns - from_ns) / RUNS;
        end(&s);
    }
    qsort(after, RUNS, sizeof *after, by_size);
    assert_true(lent / RUNS > BEGINS / 2);
    const struct found f = {after[RUNS / 2], after[RUNS * 9 / 10], ns / LITHOS_NSEC_PER_MSEC, 0};
    print_message(
        "%lu of %u requests leave a strip; from then on %.2f times as slow beside others, off by %2.0f %%: "
        "narrowed after %5lu requests, %5lu in nine of ten runs, %.0f ms in the mean\n",
        (unsigned long)(lent / RUNS), BEGINS, how->beside, 100 * spread, (unsigned long)f.median,
        (unsigned long)f.ninth, f.ms);
    return f;
}

static void a_strip_that_slows_a_kind_is_narrowed(void **unused)
{
    static const struct {
        struct stand how;
        double usual_us, spread;
        uint64_t median, ninth; /* of all requests */
    } of[] = {{{.beside = 1.4}, 2400, 0.06, 110, 200},
              {{.beside = 1.4}, 12000, 0.06, 110, 200},
              {{.next = long_and_short, .beside = 1.4}, 12000, 0.06, 180, 300},
              {{.next = long_and_short, .beside = 1.4, .late = true}, 12000, 0.06, 200, 400},
              {{.next = long_and_short, .beside = 1.4, .late = true}, 12000, 0.12, 280, 400}};

    (void)unused;
    for (unsigned i = 0; i < LITHOS_ARRAY_SIZE(of); i++) {
        const struct found f = runs_beside_from(&of[i].how, of[i].usual_us, of[i].spread);
        assert_true(f.median <= of[i].median && f.ninth <= NINTH_MAY * of[i].ninth);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(noise_is_no_reason),
        cmocka_unit_test(nor_is_a_rhythm),
        cmocka_unit_test(alarms_are_as_seldom_as_stated),
        cmocka_unit_test(slowdowns_are_found),
        cmocka_unit_test(seldom_slow_ones_are_found),
        cmocka_unit_test(nor_does_noise_end_a_strip),
        cmocka_unit_test(kinds_are_no_reason),
        cmocka_unit_test(slow_kinds_are_found),
        cmocka_unit_test(a_strip_that_slows_a_kind_is_narrowed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
