/* Plans: each block in one atom whatever the kernel; as long as asked for; whole where a cut would not pay. And the account of what
 * cutting cost, against kernels whose time in atoms is made up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "core/atoms.h"
#include "proto/plans.h"

#define SMS 132u

static uint64_t random_state = 0x9e3779b97f4a7c15ull;

static uint64_t next(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    return random_state ^= random_state << 17;
}

static uint64_t some(uint64_t most)
{
    unsigned bits = (unsigned)(next() % 48) + 1;
    return (next() & ((1ull << bits) - 1)) % most + 1;
}

static struct lithos_atom_limits limits_of(uint32_t atom_ns)
{
    struct lithos_atom_limits l;
    lithos_atom_limits_init(
        &l, &(struct lithos_atom_policy){.mode = LITHOS_ATOM_DURATION, .atom_ns = atom_ns}, 0, SMS);
    return l;
}

static struct lithos_atom_plan plan_of(const struct lithos_atom_limits *l, uint64_t blocks, uint32_t per_sm,
                                       uint32_t sms, uint64_t duration_ns)
{
    struct lithos_atom_plan p;
    const struct lithos_atom_kernel k = {blocks, per_sm, sms, duration_ns};
    lithos_atom_plan(l, &k, false, &p);
    return p;
}

/* What the tenant makes of a plan: the same kernel with this grid. */
static void check_cut(const struct lithos_atom_plan *p, const uint32_t units[3], uint32_t cluster, bool line,
                      uint64_t wave_blocks)
{
    struct lithos_cut c =
        lithos_cut_waves(units, line, LITHOS_MAX(wave_blocks / cluster, 1u), p->choice.waves);
    unsigned __int128 due = 0, all = (unsigned __int128)units[0] * units[1] * units[2];
    unsigned __int128 unit = c.line ? 1 : all / units[c.dim];
    assert_true(c.count >= 1 && c.count <= LITHOS_ATOMS_MAX);
    for (uint32_t i = 0; i < c.count; i++) {
        if (c.count > 40 && i > 16 && i + 16 < c.count) {
            due = unit * lithos_cut_part(&c, i).hi;
            continue;
        }
        struct lithos_part part = lithos_cut_part(&c, i); /* units are clusters: none is split */
        assert_true(part.lo < part.hi && unit * part.lo == due);
        due = unit * part.hi;
    }
    assert_true(due == all);
}

static void test_any_kernel(void **state)
{
    (void)state;
    unsigned cut = 0;
    for (unsigned i = 0; i < 1000000; i++) {
        uint32_t units[3] = {(uint32_t)some(2147483647), next() % 2 ? 1 : (uint32_t)some(65535),
                             next() % 2 ? 1 : (uint32_t)some(65535)};
        uint32_t cluster = next() % 2 ? 1 : 1u << next() % 5, per_sm = (uint32_t)some(32);
        uint32_t sms = (uint32_t)(next() % SMS) + 1;
        unsigned __int128 blocks = (unsigned __int128)units[0] * units[1] * units[2] * cluster;
        if (blocks > UINT64_MAX)
            continue;
        struct lithos_atom_limits l =
            limits_of((uint32_t)some(LITHOS_ATOM_NS_MAX - LITHOS_ATOM_NS_MIN) + LITHOS_ATOM_NS_MIN - 1);
        l.exit_ps = (uint32_t)some(100000);
        struct lithos_atom_plan p = plan_of(&l, (uint64_t)blocks, per_sm, sms, some(1ull << 42));
        assert_true((p.choice.waves == 0) == (p.choice.whole != LITHOS_WHOLE_NOT));
        assert_true((p.choice.waves == 0) == (p.atoms == 0));
        assert_true(p.atoms <= LITHOS_ATOMS_MAX && p.choice.whole < LITHOS_WHOLE_MAX && !p.choice.trial);
        if (!p.choice.waves)
            continue;
        cut++;
        assert_true(p.atoms >= 2);
        check_cut(&p, units, cluster, blocks <= UINT32_MAX && next() % 2, (uint64_t)per_sm * sms);
        /* no more exits than may be, and no shorter than the floor */
        unsigned __int128 exits_ps = (unsigned __int128)p.atoms * blocks / 2 * l.exit_ps;
        assert_true(exits_ps <= (unsigned __int128)(p.waves * (p.wave_ns + 1)) * 1000 * l.exits_ppm / 900000);
        assert_true((uint64_t)p.choice.waves * p.wave_ns >= l.floor_ns || p.atoms == LITHOS_ATOMS_MAX);
    }
    assert_in_range(cut, 100000, 900000);
}

static void test_measured_kernels(void **state)
{
    (void)state;
    struct lithos_atom_limits l = limits_of(250000);
    /* 84480 short blocks, 15 ms: waves of 375 us */
    struct lithos_atom_plan p = plan_of(&l, 84480, 16, SMS, 15000000);
    assert_int_equal(p.waves, 40);
    assert_int_equal(p.choice.waves, 1);
    assert_int_equal(p.atoms, 40);
    /* 8448 long ones: four waves of 3.8 ms, below which an atom would cost */
    p = plan_of(&l, 8448, 16, SMS, 15000000);
    assert_int_equal(p.choice.waves, 1);
    assert_int_equal(p.atoms, 4);
    /* on half of the card, twice as long: the same waves, twice as many */
    p = plan_of(&l, 84480, 16, SMS / 2, 30000000);
    assert_int_equal(p.choice.waves, 1);
    assert_int_equal(p.atoms, 80);
    /* waves of 25 us: as many as make 250 us */
    p = plan_of(&l, 84480, 16, SMS, 1000000);
    assert_int_equal(p.choice.waves, 12); /* of 8 and 12 */
    assert_int_equal(p.atoms, 4);
    /* hardly longer than an atom */
    p = plan_of(&l, 2112 * 10, 16, SMS, 370000);
    assert_int_equal(p.choice.whole, LITHOS_WHOLE_SHORT);
    p = plan_of(&l, 2112 * 10, 16, SMS, 380000);
    assert_int_equal(p.atoms, 2);
    /* one wave of the card, whatever the quota: its blocks may wait for each other */
    p = plan_of(&l, 2112, 16, 10, 100000000);
    assert_int_equal(p.choice.whole, LITHOS_WHOLE_ONE_WAVE);
    /* ten million blocks in 1 ms: 60 ps each is more than half of it for each atom */
    p = plan_of(&l, 10000000, 16, SMS, 1000000);
    assert_int_equal(p.choice.whole, LITHOS_WHOLE_EXITS);
    /* in 50 ms: eight atoms, which is what their exits may cost */
    p = plan_of(&l, 10000000, 16, SMS, 50000000);
    assert_in_range(p.atoms, 6, 8);
    /* the floor */
    l = limits_of(20000);
    p = plan_of(&l, 84480, 16, SMS, 400000); /* waves of 10 us */
    assert_true(p.choice.waves >= 5 && p.choice.waves <= 6);
}

static void test_no_flutter(void **state)
{
    (void)state;
    struct lithos_atom_limits l = limits_of(250000);
    struct lithos_atom_plan p;
    const struct lithos_atom_kernel k = {21120, 16, SMS, 340000};
    lithos_atom_plan(&l, &k, false, &p);
    assert_int_equal(p.choice.whole, LITHOS_WHOLE_SHORT);
    lithos_atom_plan(&l, &k, true, &p);
    assert_int_equal(p.choice.whole, LITHOS_WHOLE_NOT);
}

/* ---- the book */

/* A kernel as the tenant launches it by what is published, whose time in atoms is 1 + cost * atoms of its time whole. */
struct kernel {
    uint64_t key, blocks, wave_ns;
    uint32_t per_sm, sms;
    double cost;
    bool unfair;
    struct lithos_atom_choice choice; /* as published last */
    bool published;
    unsigned launches, whole, trials;
    uint32_t atoms; /* of the last launch */
};

static void run(struct lithos_atom_book *b, const struct lithos_atom_limits *l, struct kernel *k,
                unsigned launches)
{
    static const struct lithos_atom_policy policy = {.mode = LITHOS_ATOM_DURATION, .atom_ns = 250000};
    uint64_t wave_blocks = (uint64_t)k->per_sm * k->sms, waves = (k->blocks + wave_blocks - 1) / wave_blocks;
    for (unsigned i = 0; i < launches; i++) {
        struct lithos_atom_choice c = k->published ? k->choice : lithos_atom_choice_first(&policy, waves);
        bool trial = k->published && c.trial && k->launches % 8 == 7;
        uint32_t grid[3] = {(uint32_t)k->blocks, 1, 1};
        struct lithos_cut cut = {.count = 0};
        if (c.waves && !trial)
            cut = lithos_cut_waves(grid, true, wave_blocks, c.waves);
        k->atoms = cut.count > 1 ? cut.count : 0;
        double noise = 1 + ((double)(next() % 1000) - 500) / 50000; /* 1 % either way */
        const struct lithos_atom_sample s = {
            .key = k->key,
            .blocks = k->blocks,
            .blocks_per_sm = k->launches == 0 || k->atoms ? k->per_sm : 0,
            .sms = k->sms,
            .atoms = k->atoms,
            .fair = !k->unfair,
            .duration_ns = (uint64_t)((double)(k->wave_ns * waves) * (1 + k->cost * k->atoms) * noise)};
        struct lithos_atom_row row;
        if (lithos_atom_book_observe(b, l, &s, &row)) {
            assert_int_equal(row.key, k->key);
            assert_int_equal(row.row / LITHOS_PLAN_WAYS, lithos_plan_row_of(k->key) / LITHOS_PLAN_WAYS);
            assert_true((row.choice.waves == 0) == (row.choice.whole != LITHOS_WHOLE_NOT));
            k->choice = row.choice;
            k->published = true;
        }
        k->launches++;
        k->whole += k->atoms == 0;
        k->trials += trial;
    }
}

static struct lithos_atom_book *new_book(void)
{
    struct lithos_atom_book *b = aligned_alloc(64, (lithos_atom_book_bytes() + 63) / 64 * 64);
    assert_non_null(b);
    memset(b, 0, lithos_atom_book_bytes());
    return lithos_atom_book_init(b);
}

/* A cut that costs little stays, and few launches go whole to find that out. */
static void test_worth_it(void **state)
{
    (void)state;
    struct lithos_atom_book *b = new_book();
    struct lithos_atom_limits l = limits_of(250000);
    struct kernel k = {
        .key = 77, .blocks = 84480, .wave_ns = 375000, .per_sm = 16, .sms = SMS, .cost = 0.0005};
    run(b, &l, &k, 1);
    assert_true(k.published && k.choice.waves == 1 && k.choice.trial);
    run(b, &l, &k, 40);
    assert_int_equal(k.choice.waves, 1);
    assert_false(k.choice.trial);
    assert_int_equal(k.whole, 3);
    run(b, &l, &k, 20000);
    assert_int_equal(k.choice.waves, 1);
    assert_int_equal(k.atoms, 40);
    assert_in_range(k.whole, 6, 24); /* looked into again and again, ever more rarely */
    struct lithos_atom_book_stats s;
    lithos_atom_book_stats(b, &s);
    assert_true(s.operators == 1 && s.cut == 1 && s.trials >= 3 && s.slower == 0);
    free(b);
}

/* 0.5 % an atom: 40 atoms cost 20 %, 10 do not cost too much. */
static void test_coarser(void **state)
{
    (void)state;
    struct lithos_atom_book *b = new_book();
    struct lithos_atom_limits l = limits_of(250000);
    struct kernel k = {
        .key = 78, .blocks = 84480, .wave_ns = 375000, .per_sm = 16, .sms = SMS, .cost = 0.005};
    run(b, &l, &k, 100);
    assert_int_equal(k.choice.waves, 4);
    assert_int_equal(k.atoms, 10);
    assert_false(k.choice.trial);
    free(b);
}

/* One that no cut does good is left whole, and tried again after a while: what made it slow may have gone. */
static void test_slower(void **state)
{
    (void)state;
    struct lithos_atom_book *b = new_book();
    struct lithos_atom_limits l = limits_of(250000);
    struct kernel k = {.key = 79, .blocks = 84480, .wave_ns = 375000, .per_sm = 16, .sms = SMS, .cost = 0.1};
    run(b, &l, &k, 200);
    assert_int_equal(k.choice.whole, LITHOS_WHOLE_SLOWER);
    assert_int_equal(k.atoms, 0);
    struct lithos_atom_book_stats s;
    lithos_atom_book_stats(b, &s);
    assert_true(s.whole[LITHOS_WHOLE_SLOWER] == 1 && s.slower >= 4);
    unsigned before = k.whole;
    run(b, &l, &k, 1000);
    assert_in_range(k.whole - before, 900, 1000);
    k.cost = 0.0001;
    run(b, &l, &k, 8000);
    assert_int_equal(k.choice.whole, LITHOS_WHOLE_NOT);
    free(b);
}

/* Two streams at once: no time is its own, and nothing is concluded from them. */
static void test_unfair(void **state)
{
    (void)state;
    struct lithos_atom_book *b = new_book();
    struct lithos_atom_limits l = limits_of(250000);
    struct kernel k = {
        .key = 80, .blocks = 84480, .wave_ns = 375000, .per_sm = 16, .sms = SMS, .cost = 0.1, .unfair = true};
    run(b, &l, &k, 1000);
    assert_int_equal(k.choice.waves, 1);
    assert_in_range(k.trials, 60, 66); /* given up */
    free(b);
}

/* Short once it is known; a first guess that cut it costs one launch. Then it grows. */
static void test_short_and_long(void **state)
{
    (void)state;
    struct lithos_atom_book *b = new_book();
    struct lithos_atom_limits l = limits_of(250000);
    struct kernel k = {.key = 81, .blocks = 84480, .wave_ns = 3000, .per_sm = 16, .sms = SMS};
    run(b, &l, &k, 1);
    assert_int_equal(k.atoms, 4);
    run(b, &l, &k, 100);
    assert_int_equal(k.choice.whole, LITHOS_WHOLE_SHORT);
    assert_int_equal(k.whole, 100);
    k.wave_ns = 100000; /* other values of its parameters */
    run(b, &l, &k, 100);
    assert_true(k.choice.waves == 2 || k.choice.waves == 3);
    /* one of few waves is left whole at first, and cut when it turns out to be long */
    struct kernel few = {.key = 82, .blocks = 8448, .wave_ns = 3800000, .per_sm = 16, .sms = SMS};
    run(b, &l, &few, 1);
    assert_int_equal(few.atoms, 0);
    run(b, &l, &few, 1);
    assert_int_equal(few.atoms, 4);
    free(b);
}

/* A quota that changes: in waves the plan is the same. */
static void test_quota(void **state)
{
    (void)state;
    struct lithos_atom_book *b = new_book();
    struct lithos_atom_limits l = limits_of(250000);
    struct kernel k = {.key = 83, .blocks = 84480, .wave_ns = 60000, .per_sm = 16, .sms = SMS};
    run(b, &l, &k, 100);
    struct lithos_atom_choice before = k.choice;
    uint32_t atoms = k.atoms;
    k.sms = SMS / 2;
    run(b, &l, &k, 100);
    assert_int_equal(k.choice.waves, before.waves);
    assert_in_range(k.atoms, 2 * atoms - 1, 2 * atoms + 1);
    /* and a policy that does: each operator anew */
    l = limits_of(1000000);
    struct lithos_atom_row row;
    uint32_t cursor = 0;
    assert_true(lithos_atom_book_replan(b, &l, &cursor, &row));
    assert_true(row.key == 83 && row.choice.waves == 16 && row.choice.trial);
    assert_false(lithos_atom_book_replan(b, &l, &cursor, &row));
    free(b);
}

/* More operators than there is room for, and samples of any values: rows stay within their sets. */
static void test_any_samples(void **state)
{
    (void)state;
    struct lithos_atom_book *b = new_book();
    struct lithos_atom_limits l = limits_of(250000);
    struct lithos_plan_row *rows = calloc(LITHOS_PLAN_ROWS, sizeof *rows);
    unsigned published = 0, found = 0, cleared = 0;
    for (unsigned i = 0; i < 300000; i++) {
        const struct lithos_atom_sample s = {.key = next() % 3 ? next() % 5000 : next(),
                                             .blocks = next() % 4 ? some(1 << 30) : next(),
                                             .blocks_per_sm =
                                                 next() % 2 ? (uint32_t)some(64) : (uint32_t)next() % 2,
                                             .sms = next() % 8 ? (uint32_t)some(256) : (uint32_t)next(),
                                             .atoms = next() % 2 ? 0 : (uint32_t)next(),
                                             .fair = next() % 2,
                                             .duration_ns = next() % 4 ? some(1ull << 40) : next()};
        struct lithos_atom_row row;
        struct lithos_plan got;
        if (!lithos_atom_book_observe(b, &l, &s, &row))
            continue;
        published++;
        assert_true(row.key == s.key || row.key == 0);
        assert_int_equal(row.row / LITHOS_PLAN_WAYS * LITHOS_PLAN_WAYS, lithos_plan_row_of(s.key));
        lithos_plan_put(rows, row.row, row.key,
                        &(struct lithos_plan){row.choice, row.predicted_ns, row.wave_ns});
        if (!row.key) { /* what made room is not to be found any more, nor what took it, of which little is known */
            assert_false(lithos_plan_get(rows, s.key, &got));
            cleared++;
            continue;
        }
        assert_true(lithos_plan_get(rows, s.key, &got));
        assert_true(got.choice.waves == row.choice.waves && got.choice.whole == row.choice.whole &&
                    got.choice.trial == row.choice.trial && got.predicted_ns == row.predicted_ns &&
                    got.wave_ns == row.wave_ns);
        found++;
    }
    struct lithos_atom_book_stats s;
    lithos_atom_book_stats(b, &s);
    assert_true(found > 10000 && cleared > 1000 && found + cleared == published);
    assert_true(s.operators <= LITHOS_PLAN_ROWS && s.forgotten > 0);
    free(rows);
    free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_kernel), cmocka_unit_test(test_measured_kernels),
        cmocka_unit_test(test_no_flutter), cmocka_unit_test(test_worth_it),
        cmocka_unit_test(test_coarser),    cmocka_unit_test(test_slower),
        cmocka_unit_test(test_unfair),     cmocka_unit_test(test_short_and_long),
        cmocka_unit_test(test_quota),      cmocka_unit_test(test_any_samples),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
