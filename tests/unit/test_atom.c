/* How grids are cut, what is said of it, what an SM holds, and the descriptor of an atom. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "hw/atom.h"
#include "hw/qmd_atom.h"
#include "hw/sm.h"

static uint64_t random_state = 0x9e3779b97f4a7c15ull;

static uint64_t next(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    return random_state ^= random_state << 17;
}

/* Of any size up to most, small and large ones alike. */
static uint32_t some(uint32_t most)
{
    unsigned bits = (unsigned)(next() % 32) + 1;
    uint64_t v = next() & ((1ull << bits) - 1);
    return (uint32_t)(v % most) + 1;
}

/* Atoms follow one another from 0 to the end, none is empty, all begin at the quantum, sizes differ by a quantum at most; enough
 * slices are launched for each, and none too many. */
static void check_parts(const struct lithos_cut *c)
{
    uint32_t due = 0, least = UINT32_MAX, most = 0, quantum = LITHOS_MAX(c->quantum, 1u);
    uint32_t step = c->count > 64 ? c->count / 64 : 1; /* a look at some of very many */
    assert_true(c->count >= 1 && c->quantum >= 1 && c->slice >= 1);
    for (uint32_t i = 0; i < c->count; i++) {
        if (step > 1 && i % step && i > 8 && i + 8 < c->count)
            continue;
        struct lithos_part p = lithos_cut_part(c, i);
        assert_true(p.lo < p.hi && p.hi <= c->units && p.lo % quantum == 0);
        assert_true(i > 0 || p.lo == 0);
        assert_true(step > 1 || p.lo == due);
        assert_true((uint64_t)p.side * c->slice >= p.hi && (uint64_t)(p.side - 1) * c->slice < p.hi);
        assert_int_equal(p.has_exits, p.lo || (uint64_t)p.side * c->slice > p.hi);
        if (i + 1 < c->count) {
            assert_int_equal(lithos_cut_part(c, i + 1).lo, p.hi);
            least = LITHOS_MIN(least, p.hi - p.lo);
            most = LITHOS_MAX(most, p.hi - p.lo);
        } else {
            assert_int_equal(p.hi, c->units);
        }
        due = p.hi;
    }
    if (c->count > 1)
        assert_true((uint64_t)most <= (uint64_t)least + c->quantum);
}

static void check_grid(const struct lithos_cut *c, const uint32_t grid[3], bool line)
{
    unsigned __int128 all = (unsigned __int128)grid[0] * grid[1] * grid[2];
    for (unsigned d = c->dim + 1; d < 3; d++)
        assert_int_equal(grid[d], 1); /* the slowest */
    assert_true(line || !c->line);
    assert_true(c->line ? all == c->units && c->slice == all / grid[c->dim] : c->units == grid[c->dim]);
}

static void check_cut(const uint32_t grid[3], bool line, uint32_t count)
{
    struct lithos_cut c = lithos_cut_make(grid, line, count);
    check_grid(&c, grid, line);
    assert_true(c.count == count || c.count == c.units);
    assert_true(!c.line || grid[c.dim] < count); /* in slices where there are enough */
    check_parts(&c);
}

/* By waves: no atom is much shorter than asked for, nor longer but for the rounding to slices. */
static void check_waves(const uint32_t grid[3], bool line, uint64_t wave_units, uint32_t atom_waves)
{
    struct lithos_cut c = lithos_cut_waves(grid, line, wave_units, atom_waves);
    unsigned __int128 all = (unsigned __int128)grid[0] * grid[1] * grid[2];
    unsigned __int128 unit = c.line ? 1 : all / grid[c.dim],
                      wanted = (unsigned __int128)wave_units * atom_waves;
    check_grid(&c, grid, line);
    check_parts(&c);
    if (c.count == 1 || c.count == LITHOS_ATOMS_MAX)
        return;
    struct lithos_part p = lithos_cut_part(&c, 0);
    unsigned __int128 first = unit * (p.hi - p.lo);
    assert_true(2 * first >= wanted / 2 || first >= unit);
    assert_true(first <= wanted + wanted / 2 + unit);
}

static void test_cuts(void **state)
{
    (void)state;
    static const uint32_t edges[][3] = {{1, 1, 1},          {2, 1, 1},          {2147483647, 65535, 65535},
                                        {2147483647, 1, 1}, {1, 65535, 1},      {1, 1, 65535},
                                        {7, 130, 1},        {2147483647, 2, 1}, {1, 2147483647, 1},
                                        {100000, 2, 1},     {39, 3, 2},         {65536, 65535, 1}};
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(edges); i++)
        for (uint32_t count = 1; count <= 64; count++) {
            check_cut(edges[i], count % 2, count);
            check_waves(edges[i], count % 2, 1 + i * 131, count);
        }
    for (unsigned i = 0; i < 1000000; i++) {
        uint32_t grid[3] = {some(2147483647), next() % 2 ? 1 : some(65535), next() % 2 ? 1 : some(65535)};
        bool line = next() % 2;
        if (next() % 2)
            check_cut(grid, line, next() % 2 ? some(64) : some(LITHOS_ATOMS_MAX));
        else
            check_waves(grid, line, next() % 2 ? some(8448) : some(2147483647),
                        next() % 2 ? some(64) : some(UINT32_MAX));
    }
}

/* What real programs launch: waves of 2112 blocks. */
static void test_real_grids(void **state)
{
    (void)state;
    static const struct {
        uint32_t grid[3], atom_waves;
        bool line;
        uint32_t dim, count, first;
    } cases[] = {
        {{84480, 1, 1}, 1, false, 0, 40, 2112}, /* one dimension is the line */
        {{84480, 1, 1}, 10, false, 0, 4, 21120},
        {{100000, 2, 1}, 10, true, 1, 10, 9 * 2112}, /* two slices would be two atoms; 95 waves */
        {{256, 64, 1}, 1, false, 1, 8, 8},           /* eight slices of 256 are about a wave */
        {{39, 300, 1}, 2, false, 1, 3, 2 * 54},
        {{64, 64, 1}, 1, false, 1, 2, 33},
        {{8, 16, 384}, 4, false, 2, 6, 3 * 17},
    };
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(cases); i++) {
        struct lithos_cut c = lithos_cut_waves(cases[i].grid, true, 2112, cases[i].atom_waves);
        assert_int_equal(c.line, cases[i].line);
        assert_int_equal(c.dim, cases[i].dim);
        assert_int_equal(c.count, cases[i].count);
        assert_int_equal(lithos_cut_part(&c, 0).hi, cases[i].first);
    }
    struct lithos_cut c = lithos_cut_waves((const uint32_t[]){100000, 2, 1}, false, 2112, 10);
    assert_int_equal(c.count, 2); /* in slices, when it has to be */
}

static void test_exits(void **state)
{
    (void)state;
    /* as measured: 84480 blocks in 64 atoms launch 2.66 million that end at once */
    struct lithos_cut c = lithos_cut_make((const uint32_t[]){84480, 1, 1}, true, 64);
    uint64_t sum = 0;
    for (uint32_t i = 0; i < c.count; i++)
        sum += lithos_cut_part(&c, i).lo;
    assert_int_equal(lithos_cut_exits(&c, 1), sum);
    assert_int_equal(lithos_cut_exits(&c, 10), sum * 10);
    c = lithos_cut_make((const uint32_t[]){2147483647, 65535, 65535}, true, 4096);
    assert_true(lithos_cut_exits(&c, 2147483647ull * 65535) > 1ull << 62);
    c = lithos_cut_make((const uint32_t[]){9, 1, 1}, true, 1);
    assert_int_equal(lithos_cut_exits(&c, 1), 0);
    /* in the line: also those behind the atom's end, within a slice */
    c = lithos_cut_make((const uint32_t[]){10000, 3, 1}, true, 30);
    assert_true(c.line);
    sum = 0;
    for (uint32_t i = 0; i < c.count; i++) {
        struct lithos_part p = lithos_cut_part(&c, i);
        sum += p.lo + (uint64_t)p.side * c.slice - p.hi;
    }
    assert_in_range(lithos_cut_exits(&c, 1), sum - 30 * 5000, sum + 30 * 5000);
}

static void test_first_sight(void **state)
{
    (void)state;
    const struct lithos_atom_policy p = {.mode = LITHOS_ATOM_DURATION, .atom_ns = 250000};
    struct lithos_atom_choice c = lithos_atom_choice_first(&p, 4); /* long blocks or short: not known */
    assert_true(c.waves == 0 && c.whole == LITHOS_WHOLE_FIRST);
    c = lithos_atom_choice_first(&p, 40);
    assert_int_equal(c.waves, 10);
    c = lithos_atom_choice_first(&p, 1000000); /* into few, whatever its length */
    assert_int_equal(c.waves, 1000000 / 16);
    c = lithos_atom_choice_first(&(struct lithos_atom_policy){.mode = LITHOS_ATOM_DURATION, .atom_ns = 20000},
                                 2);
    assert_int_equal(c.waves, 1);
}

static void test_policy(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int result;
        struct lithos_atom_policy policy;
    } cases[] = {
        {"off", 0, {.mode = LITHOS_ATOM_OFF}},
        {"x2", 0, {.mode = LITHOS_ATOM_FORCE, .count = 2}},
        {"x7", 0, {.mode = LITHOS_ATOM_FORCE, .count = 7}},
        {"x4096", 0, {.mode = LITHOS_ATOM_FORCE, .count = 4096}},
        {"250us", 0, {.mode = LITHOS_ATOM_DURATION, .atom_ns = 250000}},
        {"20us", 0, {.mode = LITHOS_ATOM_DURATION, .atom_ns = 20000}},
        {"1000000us", 0, {.mode = LITHOS_ATOM_DURATION, .atom_ns = 1000000000}},
        {"250us,floor=100us", 0, {.mode = LITHOS_ATOM_DURATION, .atom_ns = 250000, .floor_ns = 100000}},
        {"250us,floor=251us", -ERANGE, {0}},
        {"250us,floor=", -EINVAL, {0}},
        {"250us,floor=100", -EINVAL, {0}},
        {"250us,100us", -EINVAL, {0}},
        {"250us,floor=100us,", -EINVAL, {0}},
        {"x1", -ERANGE, {0}},
        {"x4097", -ERANGE, {0}},
        {"x0", -ERANGE, {0}},
        {"x", -EINVAL, {0}},
        {"", -EINVAL, {0}},
        {"7", -EINVAL, {0}},
        {"x7 ", -EINVAL, {0}},
        {"x-7", -EINVAL, {0}},
        {"x7us", -EINVAL, {0}},
        {"x99999999999999999999", -ERANGE, {0}},
        {"99999999999999999999us", -ERANGE, {0}},
        {"19us", -ERANGE, {0}},
        {"0us", -ERANGE, {0}},
        {"1001ms", -ERANGE, {0}},
        {"us", -EINVAL, {0}},
        {"250 us", -EINVAL, {0}},
        {"250us ", -EINVAL, {0}},
        {"0.25ms", -EINVAL, {0}},
        {"250ns", -EINVAL, {0}},
        {"OFF", -EINVAL, {0}},
    };
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(cases); i++) {
        struct lithos_atom_policy p = {99, 99, 99, 99};
        char text[LITHOS_ATOM_POLICY_TEXT_MAX];
        assert_int_equal(lithos_atom_policy_parse(cases[i].text, &p), cases[i].result);
        if (cases[i].result < 0) {
            assert_int_equal(p.mode, 99);
            continue;
        }
        assert_memory_equal(&p, &cases[i].policy, sizeof p);
        assert_int_equal(lithos_atom_policy_validate(&p), 0);
        assert_string_equal(lithos_atom_policy_format(&p, text), cases[i].text);
    }
    struct lithos_atom_policy ms;
    char text[LITHOS_ATOM_POLICY_TEXT_MAX];
    assert_int_equal(lithos_atom_policy_parse("2ms", &ms), 0);
    assert_string_equal(lithos_atom_policy_format(&ms, text), "2000us");
    static const struct lithos_atom_policy bad[] = {
        {.mode = LITHOS_ATOM_OFF, .count = 1},
        {.mode = LITHOS_ATOM_OFF, .atom_ns = 250000},
        {.mode = LITHOS_ATOM_OFF, .floor_ns = 1},
        {.mode = LITHOS_ATOM_FORCE, .count = 1},
        {.mode = LITHOS_ATOM_FORCE, .count = 5000},
        {.mode = LITHOS_ATOM_FORCE, .count = 2, .floor_ns = 1},
        {.mode = LITHOS_ATOM_DURATION},
        {.mode = LITHOS_ATOM_DURATION, .atom_ns = 19999},
        {.mode = LITHOS_ATOM_DURATION, .atom_ns = LITHOS_ATOM_NS_MAX + 1},
        {.mode = LITHOS_ATOM_DURATION, .atom_ns = 250000, .count = 2},
        {.mode = LITHOS_ATOM_DURATION, .atom_ns = 250000, .floor_ns = 250001},
        {.mode = LITHOS_ATOM_MODE_MAX, .count = 2},
    };
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(bad); i++)
        assert_int_equal(lithos_atom_policy_validate(&bad[i]), -EINVAL);
    for (int w = 0; w < LITHOS_WHOLE_MAX; w++)
        assert_true(strlen(lithos_whole_name((enum lithos_whole)w)) > 1);
}

static void test_sm(void **state)
{
    (void)state;
    const struct lithos_sm *h = lithos_sm(9, 0), *ada = lithos_sm(8, 9);
    assert_null(lithos_sm(7, 0));
    assert_int_equal(lithos_sm_blocks(h, 128, 32, 0), 16);       /* by threads */
    assert_int_equal(lithos_sm_blocks(h, 32, 16, 0), 32);        /* by blocks */
    assert_int_equal(lithos_sm_blocks(h, 256, 255, 0), 1);       /* by registers */
    assert_int_equal(lithos_sm_blocks(h, 128, 32, 48 << 10), 4); /* by shared memory */
    assert_int_equal(lithos_sm_blocks(h, 384, 168, 0), 1);       /* cuBLAS on Hopper: one an SM */
    assert_int_equal(lithos_sm_blocks(h, 1, 16, 0), 32);
    assert_int_equal(lithos_sm_blocks(h, 33, 16, 0), 32); /* two warps: 32 blocks of 64 threads */
    assert_int_equal(lithos_sm_blocks(h, 2049, 16, 0), 0);
    assert_int_equal(lithos_sm_blocks(h, 32, 16, 228 << 10), 0);
    assert_int_equal(lithos_sm_blocks(ada, 1024, 32, 0), 1);
}

/* Each layout: what is put into a descriptor is what is read out of it, and nothing else of it changes. */
static void test_descriptor(void **state)
{
    (void)state;
    for (unsigned v = 0; v < LITHOS_QMD_VERSION_MAX; v++) {
        const struct lithos_qmd_layout *l = lithos_qmd_layout((enum lithos_qmd_version)v);
        bool chains = v >= LITHOS_QMD_V04_00;
        const struct lithos_qmd_view view = {.type = LITHOS_QMD_TYPE_GRID,
                                             .grid = {1000, 20, 1},
                                             .block = {128, 1, 1},
                                             .cluster = {1, 1, 1},
                                             .registers = 32,
                                             .shared_bytes = 1024,
                                             .entry = 0x7f1234567800ull,
                                             .tpcs = {{UINT64_MAX, UINT64_MAX}}};
        struct lithos_qmd_view got;
        uint8_t qmd[LITHOS_QMD_BYTES], before[LITHOS_QMD_BYTES];
        uint64_t address;
        uint32_t bytes;
        assert_int_equal(lithos_qmd_encode(l, &view, qmd), 0);
        assert_int_equal(lithos_qmd_atom_capable(l, false), 0);
        assert_int_equal(lithos_qmd_atom_capable(l, true), chains ? 0 : -ENOTSUP);
        assert_int_equal(lithos_qmd_entry(l, qmd), view.entry);
        assert_false(lithos_qmd_bank_used(l, qmd, LITHOS_PRELUDE_BANK));
        assert_false(lithos_qmd_get_pre_exit(l, qmd) || lithos_qmd_waits_on_latch(l, qmd));
        struct lithos_qmd_atom a = {
            .dim = 1, .hi = 7, .code = 0x700000060080ull, .entry = 0x7fff12345040ull, .pre_exit = chains};
        memcpy(before, qmd, sizeof qmd);
        a.entry += 16; /* not aligned */
        assert_int_equal(lithos_qmd_set_atom(l, qmd, &a), -ERANGE);
        a.entry -= 16;
        a.code = 1ull << 60;
        assert_int_equal(lithos_qmd_set_atom(l, qmd, &a), -ERANGE);
        a.code = 0x700000060080ull;
        a.hi = 1u << 20; /* 16 bits */
        assert_int_equal(lithos_qmd_set_atom(l, qmd, &a), -ERANGE);
        a.hi = 7;
        if (!chains) {
            a.pre_exit = true;
            assert_int_equal(lithos_qmd_set_atom(l, qmd, &a), -ENOTSUP);
            a.pre_exit = false;
        }
        assert_memory_equal(qmd, before, sizeof qmd);
        assert_int_equal(lithos_qmd_set_atom(l, qmd, &a), 0);
        assert_int_equal(lithos_qmd_set_atom(l, qmd, &a), -EBUSY); /* the bank is in use now */
        assert_int_equal(lithos_qmd_entry(l, qmd), a.code);
        assert_true(lithos_qmd_get_bank(l, qmd, LITHOS_PRELUDE_BANK, &address, &bytes));
        assert_int_equal(address, a.entry);
        assert_int_equal(bytes, sizeof(struct lithos_prelude_entry));
        assert_int_equal(lithos_qmd_get_pre_exit(l, qmd), chains);
        lithos_qmd_decode(l, qmd, &got);
        assert_int_equal(got.grid[1], 7);
        got.grid[1] = view.grid[1];
        got.entry = view.entry;
        assert_memory_equal(&got, &view, sizeof got);
        for (unsigned bank = 0; bank < 8; bank++)
            assert_int_equal(lithos_qmd_bank_used(l, qmd, bank), bank == LITHOS_PRELUDE_BANK);
    }
}

/* The bits that were used on a card (docs/hardware.md, "Which layout a card has"). */
static void test_bits_of_v04(void **state)
{
    (void)state;
    const struct lithos_qmd_layout *l = lithos_qmd_layout(LITHOS_QMD_V04_00);
    uint8_t qmd[LITHOS_QMD_BYTES] = {0};
    uint32_t w[LITHOS_QMD_BYTES / 4];
    const struct lithos_qmd_atom a = {.dim = 0,
                                      .hi = 0x1234,
                                      .code = 0x123456789abcd00ull & ((1ull << 57) - 1),
                                      .entry = 0x7f00deadbe40ull,
                                      .pre_exit = true};
    assert_int_equal(lithos_qmd_set_atom(l, qmd, &a), 0);
    memcpy(w, qmd, sizeof w);
    assert_int_equal(w[32], 0x1234);
    assert_int_equal(w[38], (uint32_t)a.code);
    assert_int_equal(w[39] & 0x1ffffff, (uint32_t)(a.code >> 32));
    assert_int_equal(w[13], 1u << 24 | 1u << 27);
    assert_int_equal(w[60], (uint32_t)(a.entry >> 6));
    assert_int_equal(w[61], (uint32_t)(a.entry >> 38) | 4u << 19);
    assert_int_equal(w[35] >> 30, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuts),        cmocka_unit_test(test_real_grids),  cmocka_unit_test(test_exits),
        cmocka_unit_test(test_first_sight), cmocka_unit_test(test_policy),      cmocka_unit_test(test_sm),
        cmocka_unit_test(test_descriptor),  cmocka_unit_test(test_bits_of_v04),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
