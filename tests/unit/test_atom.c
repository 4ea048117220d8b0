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

/* Atoms follow one another from 0 to the end, none is empty, all begin at the quantum, sizes differ by a quantum at most. */
static void check_cut(const uint32_t grid[3], uint32_t quantum, uint32_t count)
{
    struct lithos_cut c = lithos_cut_make(grid, quantum, count);
    uint32_t due = 0, least = UINT32_MAX, most = 0;
    assert_true(c.count >= 1 && c.count <= count && c.units == grid[c.dim]);
    for (unsigned d = c.dim + 1; d < 3; d++)
        assert_int_equal(grid[d], 1); /* the slowest */
    assert_true(c.count == count || (uint64_t)c.count * quantum >= c.units);
    uint32_t step = c.count > 64 ? c.count / 64 : 1; /* a look at some of very many */
    for (uint32_t i = 0; i < c.count; i++) {
        uint32_t lo, hi, next_lo;
        if (step > 1 && i % step && i > 8 && i + 8 < c.count)
            continue;
        lithos_cut_range(&c, i, &lo, &hi);
        assert_true(lo < hi && hi <= c.units && lo % quantum == 0);
        assert_true(i > 0 || lo == 0);
        assert_true(step > 1 || lo == due);
        if (i + 1 < c.count) {
            lithos_cut_range(&c, i + 1, &next_lo, &due);
            assert_int_equal(next_lo, hi);
            least = LITHOS_MIN(least, hi - lo);
            most = LITHOS_MAX(most, hi - lo);
        } else {
            assert_int_equal(hi, c.units);
        }
        due = hi;
    }
    if (c.count > 1)
        assert_true((uint64_t)most <= (uint64_t)least + quantum);
}

static void test_cuts(void **state)
{
    (void)state;
    static const uint32_t edges[][3] = {{1, 1, 1},          {2, 1, 1},          {2147483647, 65535, 65535},
                                        {2147483647, 1, 1}, {1, 65535, 1},      {1, 1, 65535},
                                        {7, 130, 1},        {2147483647, 2, 1}, {1, 2147483647, 1}};
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(edges); i++)
        for (uint32_t count = 1; count <= 64; count++)
            check_cut(edges[i], 1 + (uint32_t)i * 3, count);
    for (unsigned i = 0; i < 1000000; i++) {
        uint32_t grid[3] = {some(2147483647), next() % 2 ? 1 : some(65535), next() % 2 ? 1 : some(65535)};
        check_cut(grid, next() % 2 ? 1 : some(1 << 20), next() % 2 ? some(64) : some(LITHOS_ATOMS_MAX));
    }
}

static void test_exits(void **state)
{
    (void)state;
    /* as measured: 84480 blocks in 64 atoms launch 2.66 million that end at once */
    struct lithos_cut c = lithos_cut_make((const uint32_t[]){84480, 1, 1}, 1, 64);
    uint64_t sum = 0;
    for (uint32_t i = 0; i < c.count; i++) {
        uint32_t lo, hi;
        lithos_cut_range(&c, i, &lo, &hi);
        sum += lo;
    }
    assert_int_equal(lithos_cut_exits(&c, 1), sum);
    assert_int_equal(lithos_cut_exits(&c, 10), sum * 10);
    c = lithos_cut_make((const uint32_t[]){2147483647, 65535, 65535}, 1, 4096);
    assert_true(lithos_cut_exits(&c, 2147483647ull * 65535) > 1ull << 62);
    c = lithos_cut_make((const uint32_t[]){9, 1, 1}, 1, 1);
    assert_int_equal(lithos_cut_exits(&c, 1), 0);
}

static void test_policy(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int result;
        uint32_t mode, count;
    } cases[] = {
        {"off", 0, LITHOS_ATOM_OFF, 0},
        {"x2", 0, LITHOS_ATOM_FORCE, 2},
        {"x7", 0, LITHOS_ATOM_FORCE, 7},
        {"x4096", 0, LITHOS_ATOM_FORCE, 4096},
        {"x1", -ERANGE, 0, 0},
        {"x4097", -ERANGE, 0, 0},
        {"x0", -ERANGE, 0, 0},
        {"x", -EINVAL, 0, 0},
        {"", -EINVAL, 0, 0},
        {"7", -EINVAL, 0, 0},
        {"x7 ", -EINVAL, 0, 0},
        {"x-7", -EINVAL, 0, 0},
        {"x99999999999999999999", -ERANGE, 0, 0},
        {"OFF", -EINVAL, 0, 0},
    };
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(cases); i++) {
        struct lithos_atom_policy p = {99, 99};
        char text[LITHOS_ATOM_POLICY_TEXT_MAX];
        assert_int_equal(lithos_atom_policy_parse(cases[i].text, &p), cases[i].result);
        if (cases[i].result < 0) {
            assert_int_equal(p.mode, 99);
            continue;
        }
        assert_int_equal(p.mode, cases[i].mode);
        assert_int_equal(p.count, cases[i].count);
        assert_int_equal(lithos_atom_policy_validate(&p), 0);
        assert_string_equal(lithos_atom_policy_format(&p, text), cases[i].text);
    }
    assert_int_equal(lithos_atom_policy_validate(&(struct lithos_atom_policy){LITHOS_ATOM_OFF, 1}), -EINVAL);
    assert_int_equal(lithos_atom_policy_validate(&(struct lithos_atom_policy){LITHOS_ATOM_FORCE, 1}),
                     -EINVAL);
    assert_int_equal(lithos_atom_policy_validate(&(struct lithos_atom_policy){LITHOS_ATOM_FORCE, 5000}),
                     -EINVAL);
    assert_int_equal(lithos_atom_policy_validate(&(struct lithos_atom_policy){LITHOS_ATOM_MODE_MAX, 2}),
                     -EINVAL);
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
        cmocka_unit_test(test_cuts), cmocka_unit_test(test_exits),      cmocka_unit_test(test_policy),
        cmocka_unit_test(test_sm),   cmocka_unit_test(test_descriptor), cmocka_unit_test(test_bits_of_v04),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
