/* hw/qmd: the tables against the published layouts (tests/golden/qmd/fields.csv), and every access against a
 * decoder that knows only that file and goes bit by bit. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/fs.h"
#include "hw/qmd_internal.h"
#include "unit/cards.h"

#define QMD_BITS (8 * LITHOS_QMD_BYTES)

static const char *const field_names[LITHOS_QMD_FIELD_MAX] = {
#define X(name) #name,
#include "hw/qmd_names.def"
#undef X
};

/* The class each table was taken from. */
static const char *const source_class[LITHOS_QMD_VERSION_MAX] = {"clc6c0", "clc6c0", "clcbc0", "clcdc0"};

struct csv_row {
    char class[16], version[16], name[96];
    unsigned low, high, stride;
};
static struct csv_row rows[2500];
static size_t row_count;

/* class,version,name,low,high,width,byte,stride. True for a line of that form; the headline is none. */
static bool parse_line(char *line, struct csv_row *ret_row)
{
    char *rest, *word = strtok_r(line, ",", &rest);
    unsigned long number[5];
    char *const text[3] = {ret_row->class, ret_row->version, ret_row->name};
    static const size_t size[3] = {sizeof ret_row->class, sizeof ret_row->version, sizeof ret_row->name};

    for (unsigned i = 0; i < 3; i++, word = strtok_r(NULL, ",", &rest)) {
        if (!word || strlen(word) >= size[i])
            return false;
        memcpy(text[i], word, strlen(word) + 1);
    }
    for (unsigned i = 0; i < 5; i++, word = strtok_r(NULL, ",", &rest)) {
        char *end = NULL;
        if (!word || (number[i] = strtoul(word, &end, 10)) > QMD_BITS || *end)
            return false;
    }
    ret_row->low = (unsigned)number[0];
    ret_row->high = (unsigned)number[1];
    ret_row->stride = (unsigned)number[4];
    return !word;
}

static int read_csv(const char *path)
{
    char *text, *line, *rest;
    size_t len;
    int r = lithos_read_file(path, 1 << 20, &text, &len);
    if (r < 0)
        return r;
    row_count = 0;
    for (line = strtok_r(text, "\r\n", &rest); line; line = strtok_r(NULL, "\r\n", &rest))
        if (row_count < sizeof rows / sizeof *rows && parse_line(line, &rows[row_count]))
            row_count++;
    free(text);
    return 0;
}

static const struct csv_row *csv_find(const char *class, const char *version, const char *name)
{
    for (size_t i = 0; i < row_count; i++)
        if (!strcmp(rows[i].class, class) && !strcmp(rows[i].version, version) && !strcmp(rows[i].name, name))
            return &rows[i];
    return NULL;
}

static int load_fields(void **state)
{
    (void)state;
    return read_csv(LITHOS_SOURCE_DIR "/tests/golden/qmd/fields.csv");
}

static unsigned differences(enum lithos_qmd_version version)
{
    const struct lithos_qmd_layout *l = lithos_qmd_layout(version);
    unsigned wrong = 0;
    for (unsigned f = 0; f < LITHOS_QMD_FIELD_MAX; f++) {
        const struct csv_row *c = csv_find(source_class[version], l->name, field_names[f]);
        const struct lithos_qmd_row *r = &l->rows[f];
        if (!c != !r->bits) {
            print_error("%s: %s is in the %s only\n", l->name, field_names[f], c ? "csv" : "table");
            wrong++;
        } else if (c && (c->low != r->low || c->high != r->low + r->bits - 1u || c->stride != r->stride)) {
            print_error("%s: %s: csv %u-%u stride %u, table %u-%u stride %u\n", l->name, c->name, c->low,
                        c->high, c->stride, r->low, r->low + r->bits - 1u, r->stride);
            wrong++;
        }
    }
    for (size_t i = 0; i < row_count; i++) {
        bool known = false;
        for (unsigned f = 0; f < LITHOS_QMD_FIELD_MAX && !known; f++)
            known = !strcmp(rows[i].name, field_names[f]);
        if (!known && !strcmp(rows[i].class, source_class[version]) && !strcmp(rows[i].version, l->name)) {
            print_error("%s: %s is in no table\n", l->name, rows[i].name);
            wrong++;
        }
    }
    return wrong;
}

static void tables_are_the_published_ones(void **state)
{
    (void)state;
    unsigned wrong = 0;
    assert_int_equal(row_count, 129 + 139 + 129 + 144 + 134 + 154 + 154);
    for (unsigned v = 0; v < LITHOS_QMD_VERSION_MAX; v++)
        wrong += differences(v);
    assert_int_equal(wrong, 0);
}

/* LITHOS_QMD_CSV: a csv of the same form made anew from the class headers. */
static void tables_are_those_of_the_csv_named_in_the_environment(void **state)
{
    const char *path = getenv("LITHOS_QMD_CSV");
    unsigned wrong = 0;
    if (!path)
        skip();
    assert_int_equal(read_csv(path), 0);
    assert_true(row_count > 500);
    for (unsigned v = 0; v < LITHOS_QMD_VERSION_MAX; v++)
        wrong += differences(v);
    assert_int_equal(load_fields(state), 0);
    assert_int_equal(wrong, 0);
}

/* One table serves several compute classes: what LithOS reads and writes must be in the same place in all of
 * them. */
static void classes_of_one_version_agree_on_what_is_used(void **state)
{
    (void)state;
    static const char *const used[] = {"QMD_VERSION",
                                       "QMD_MINOR_VERSION",
                                       "QMD_MAJOR_VERSION",
                                       "QMD_TYPE",
                                       "CTA_RASTER_WIDTH",
                                       "CTA_RASTER_HEIGHT",
                                       "CTA_RASTER_DEPTH",
                                       "GRID_WIDTH",
                                       "GRID_HEIGHT",
                                       "GRID_DEPTH",
                                       "CTA_THREAD_DIMENSION0",
                                       "CTA_THREAD_DIMENSION1",
                                       "CTA_THREAD_DIMENSION2",
                                       "GPC_CGA_WIDTH",
                                       "GPC_CGA_HEIGHT",
                                       "GPC_CGA_DEPTH",
                                       "REGISTER_COUNT",
                                       "REGISTER_COUNT_V",
                                       "SHARED_MEMORY_SIZE",
                                       "SHARED_MEMORY_SIZE_SHIFTED7",
                                       "PROGRAM_ADDRESS_LOWER",
                                       "PROGRAM_ADDRESS_UPPER",
                                       "PROGRAM_ADDRESS_LOWER_SHIFTED4",
                                       "PROGRAM_ADDRESS_UPPER_SHIFTED4",
                                       "SM_DISABLE_MASK_LOWER",
                                       "SM_DISABLE_MASK_UPPER",
                                       "TPC_DISABLE_MASK",
                                       "TPC_DISABLE_MASK_VALID"};
    static const struct {
        const char *version, *class, *other;
    } same[] = {
        {"V02_04", "clc6c0", "clc7c0"}, {"V03_00", "clc6c0", "clc7c0"}, {"V05_00", "clcdc0", "clcec0"}};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        for (size_t j = 0; j < sizeof used / sizeof *used; j++) {
            const struct csv_row *a = csv_find(same[i].class, same[i].version, used[j]);
            const struct csv_row *b = csv_find(same[i].other, same[i].version, used[j]);
            assert_int_equal(!a, !b);
            if (a && b)
                assert_true(a->low == b->low && a->high == b->high && a->stride == b->stride);
        }
    }
}

/* V05_00 names its two dependent QMDs twice, as DEPENDENT_QMD0_X and DEPENDENT_QMD1_X and as an array
 * DEPENDENT_QMD_X: the only overlap there is in the source. */
static bool same_thing(const char *a, const char *b)
{
    const char *array = "DEPENDENT_QMD_", *numbered = a, *other = b;
    if (!strncmp(a, array, strlen(array))) {
        numbered = b;
        other = a;
    }
    return !strncmp(other, array, strlen(array)) && !strncmp(numbered, "DEPENDENT_QMD", 13) &&
           (numbered[13] == '0' || numbered[13] == '1') && !strcmp(numbered + 15, other + strlen(array));
}

static void fields_lie_apart_and_inside(void **state)
{
    (void)state;
    for (unsigned v = 0; v < LITHOS_QMD_VERSION_MAX; v++) {
        const struct lithos_qmd_layout *l = lithos_qmd_layout(v);
        int owner[QMD_BITS];
        unsigned overlaps = 0;
        memset(owner, -1, sizeof owner);
        for (int f = 0; f < LITHOS_QMD_FIELD_MAX; f++) {
            const struct lithos_qmd_row *r = &l->rows[f];
            if (!r->bits)
                continue;
            assert_in_range(r->bits, 1, 32);
            assert_true(r->count >= 1 && (r->count == 1) == (r->stride == 0));
            for (unsigned i = 0; i < r->count; i++) {
                const unsigned low = r->low + i * r->stride;
                assert_true(low + r->bits <= QMD_BITS);
                assert_int_equal(low / 32, (low + r->bits - 1) / 32); /* qmd_internal.h relies on it */
                bool shared = false;
                for (unsigned b = low; b < low + r->bits; b++) {
                    if (owner[b] >= 0) {
                        if (!same_thing(field_names[f], field_names[owner[b]]))
                            fail_msg("%s: %s overlaps %s", l->name, field_names[f], field_names[owner[b]]);
                        shared = true;
                    }
                    owner[b] = f;
                }
                overlaps += shared;
            }
        }
        assert_int_equal(overlaps, v == LITHOS_QMD_V05_00 ? 8 : 0);
    }
}

/* ---- bit by bit ---- */

static uint64_t bits_of(const uint8_t *qmd, unsigned low, unsigned high)
{
    uint64_t value = 0;
    for (unsigned b = high + 1; b-- > low;)
        value = value << 1 | ((qmd[b / 8] >> (b % 8)) & 1);
    return value;
}

/* A field by its name in the csv, 0 where the version has none. */
static uint64_t by_name(enum lithos_qmd_version v, const uint8_t *qmd, const char *name)
{
    const struct csv_row *c = csv_find(source_class[v], lithos_qmd_layout_name(lithos_qmd_layout(v)), name);
    return c ? bits_of(qmd, c->low, c->high) : 0;
}

static void fill(uint8_t *qmd, uint64_t *seed)
{
    for (unsigned i = 0; i < LITHOS_QMD_BYTES; i++)
        qmd[i] = (uint8_t)(next_random(seed) >> 32);
}

static void get_and_set_touch_their_bits_only(void **state)
{
    (void)state;
    uint64_t seed = 5;
    uint8_t raw[LITHOS_QMD_BYTES + 3], *qmd = raw + 3, old[LITHOS_QMD_BYTES]; /* not aligned */
    for (unsigned v = 0; v < LITHOS_QMD_VERSION_MAX; v++) {
        const struct lithos_qmd_layout *l = lithos_qmd_layout(v);
        for (unsigned f = 0; f < LITHOS_QMD_FIELD_MAX; f++) {
            const struct lithos_qmd_row *r = &l->rows[f];
            fill(qmd, &seed);
            memcpy(old, qmd, sizeof old);
            if (!r->bits) {
                assert_false(lithos_qmd_has(l, f));
                assert_int_equal(lithos_qmd_get(l, qmd, f, 0), 0);
                assert_int_equal(lithos_qmd_set(l, qmd, f, 0, 0), -ENOENT);
            }
            for (unsigned i = 0; r->bits && i < r->count; i++) {
                const unsigned low = r->low + i * r->stride, high = low + r->bits - 1;
                const uint32_t value = (uint32_t)next_random(&seed) & (UINT32_MAX >> (32 - r->bits));
                assert_true(lithos_qmd_has(l, f));
                assert_int_equal(lithos_qmd_get(l, qmd, f, i), bits_of(qmd, low, high));
                if (r->bits < 32)
                    assert_int_equal(lithos_qmd_set(l, qmd, f, i, 1u << r->bits), -ERANGE);
                assert_memory_equal(qmd, old, sizeof old);
                assert_int_equal(lithos_qmd_set(l, qmd, f, i, value), 0);
                for (unsigned b = 0; b < QMD_BITS; b++) {
                    const uint64_t want =
                        b >= low && b <= high ? (value >> (b - low)) & 1 : bits_of(old, b, b);
                    assert_int_equal(bits_of(qmd, b, b), want);
                }
                memcpy(old, qmd, sizeof old);
            }
            assert_int_equal(lithos_qmd_set(l, qmd, f, r->bits ? r->count : 0, 0), -ENOENT);
            assert_int_equal(lithos_qmd_get(l, qmd, f, UINT32_MAX), 0);
            assert_memory_equal(qmd, old, sizeof old);
        }
        assert_false(lithos_qmd_has(l, LITHOS_QMD_FIELD_MAX));
        assert_int_equal(lithos_qmd_get(l, qmd, LITHOS_QMD_FIELD_MAX, 0), 0);
    }
}

static struct lithos_qmd_view random_view(enum lithos_qmd_version v, uint64_t *seed)
{
    const bool clusters = v >= LITHOS_QMD_V04_00 && next_random(seed) % 2;
    struct lithos_qmd_view view = {
        .type = clusters ? LITHOS_QMD_TYPE_CLUSTERS : LITHOS_QMD_TYPE_GRID,
        .grid = {(uint32_t)next_random(seed), (uint16_t)next_random(seed), (uint16_t)next_random(seed)},
        .block = {(uint16_t)next_random(seed), (uint16_t)next_random(seed), (uint8_t)next_random(seed)},
        .cluster = {1, 1, 1},
        .registers = (uint32_t)(next_random(seed) % 512),
        .shared_bytes = (uint32_t)(next_random(seed) % 1800) * 128,
        .entry = next_random(seed) & 0x1fffffffffff0ull,
        .masked = next_random(seed) % 2,
        .tpcs = {{UINT64_MAX, UINT64_MAX}},
    };
    for (unsigned i = 0; clusters && i < 3; i++)
        view.cluster[i] = 1 + (uint32_t)(next_random(seed) % 63);
    if (view.masked) {
        view.tpcs = (struct lithos_tpcset){{next_random(seed) & ~1ull, next_random(seed)}};
        if (v < LITHOS_QMD_V04_00)
            view.tpcs.w[1] = 0;
    }
    return view;
}

/* One value that is under different names in different versions. */
static uint64_t either(enum lithos_qmd_version v, const uint8_t *qmd, const char *a, const char *b)
{
    return by_name(v, qmd, a) | by_name(v, qmd, b);
}

static void check_encoded(enum lithos_qmd_version v, const uint8_t *q, const struct lithos_qmd_view *view)
{
    static const char *const block[] = {"CTA_THREAD_DIMENSION0", "CTA_THREAD_DIMENSION1",
                                        "CTA_THREAD_DIMENSION2"};
    static const char *const cga[] = {"GPC_CGA_WIDTH", "GPC_CGA_HEIGHT", "GPC_CGA_DEPTH"};
    static const uint8_t version[] = {0x24, 0x30, 0x40, 0x50};
    const bool new = v >= LITHOS_QMD_V04_00, clusters = view->type == LITHOS_QMD_TYPE_CLUSTERS;

    assert_int_equal(q[v == LITHOS_QMD_V05_00 ? 58 : 72], version[v]);
    assert_int_equal(by_name(v, q, "QMD_TYPE"), new ? view->type : 0);
    assert_int_equal(either(v, q, "GRID_WIDTH", "CTA_RASTER_WIDTH"), view->grid[0]);
    assert_int_equal(either(v, q, "GRID_HEIGHT", "CTA_RASTER_HEIGHT"), view->grid[1]);
    assert_int_equal(either(v, q, "GRID_DEPTH", "CTA_RASTER_DEPTH"), view->grid[2]);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(by_name(v, q, block[i]), view->block[i]);
        assert_int_equal(by_name(v, q, cga[i]), clusters ? view->cluster[i] : 0);
    }
    assert_int_equal(either(v, q, "REGISTER_COUNT", "REGISTER_COUNT_V"), view->registers);
    assert_int_equal(by_name(v, q, "SHARED_MEMORY_SIZE") | by_name(v, q, "SHARED_MEMORY_SIZE_SHIFTED7") << 7,
                     view->shared_bytes);
    assert_true(view->entry ==
                (by_name(v, q, "PROGRAM_ADDRESS_LOWER") | by_name(v, q, "PROGRAM_ADDRESS_UPPER") << 32 |
                 by_name(v, q, "PROGRAM_ADDRESS_LOWER_SHIFTED4") << 4 |
                 by_name(v, q, "PROGRAM_ADDRESS_UPPER_SHIFTED4") << 36));
    const unsigned mask = v == LITHOS_QMD_V05_00 ? 2240 : v == LITHOS_QMD_V04_00 ? 2432 : 672;
    assert_int_equal(by_name(v, q, "TPC_DISABLE_MASK_VALID"), new && view->masked);
    assert_true(bits_of(q, mask, mask + 63) == (view->masked ? ~view->tpcs.w[0] : 0));
    if (new)
        assert_true(bits_of(q, mask + 64, mask + 127) == (view->masked ? ~view->tpcs.w[1] : 0));
}

static void check_same_view(const struct lithos_qmd_view *a, const struct lithos_qmd_view *b)
{
    assert_int_equal(a->type, b->type);
    assert_memory_equal(a->grid, b->grid, sizeof a->grid);
    assert_memory_equal(a->block, b->block, sizeof a->block);
    assert_memory_equal(a->cluster, b->cluster, sizeof a->cluster);
    assert_int_equal(a->registers, b->registers);
    assert_int_equal(a->shared_bytes, b->shared_bytes);
    assert_true(a->entry == b->entry);
    assert_int_equal(a->masked, b->masked);
    assert_true(lithos_tpcset_equal(&a->tpcs, &b->tpcs));
}

static void encoder_agrees_with_the_bit_decoder(void **state)
{
    (void)state;
    uint64_t seed = 77;
    for (unsigned round = 0; round < 400; round++) {
        for (unsigned v = 0; v < LITHOS_QMD_VERSION_MAX; v++) {
            const struct lithos_qmd_layout *l = lithos_qmd_layout(v);
            const struct lithos_qmd_view view = random_view(v, &seed);
            struct lithos_qmd_view back;
            uint8_t qmd[LITHOS_QMD_BYTES];
            fill(qmd, &seed);
            assert_int_equal(lithos_qmd_encode(l, &view, qmd), 0);
            check_encoded(v, qmd, &view);
            lithos_qmd_decode(l, qmd, &back);
            check_same_view(&back, &view);
            struct lithos_qmd_brief brief;
            lithos_qmd_brief(l, qmd, &brief);
            assert_int_equal(brief.cluster_blocks, view.cluster[0] * view.cluster[1] * view.cluster[2]);
            assert_int_equal(brief.empty, !view.grid[0] || !view.grid[1] || !view.grid[2]);
            assert_int_equal(brief.registers, view.registers);
        }
    }
}

static void encoder_refuses_what_does_not_fit(void **state)
{
    (void)state;
    uint8_t qmd[LITHOS_QMD_BYTES];
    const struct lithos_qmd_view good = {
        .type = LITHOS_QMD_TYPE_GRID, .grid = {1, 1, 1}, .block = {32, 1, 1}};
    for (unsigned v = 0; v < LITHOS_QMD_VERSION_MAX; v++) {
        const struct lithos_qmd_layout *l = lithos_qmd_layout(v);
        struct lithos_qmd_view bad;
#define REFUSED(field, value, error)                                \
    do {                                                            \
        bad = good;                                                 \
        bad.field = (value);                                        \
        assert_int_equal(lithos_qmd_encode(l, &bad, qmd), (error)); \
    } while (0)
        assert_int_equal(lithos_qmd_encode(l, &good, qmd), 0);
        REFUSED(grid[1], 65536, -ERANGE);
        REFUSED(grid[2], 65536, -ERANGE);
        REFUSED(block[0], 65536, -ERANGE);
        REFUSED(block[2], v == LITHOS_QMD_V05_00 ? 256 : 65536, -ERANGE);
        REFUSED(cluster[0], 2, -ERANGE); /* no clusters in a plain grid */
        REFUSED(registers, 512, -ERANGE);
        REFUSED(shared_bytes, 1u << 18, -ERANGE);
        REFUSED(entry, 1ull << 57, -ERANGE);
        REFUSED(entry, 8, v == LITHOS_QMD_V05_00 ? -ERANGE : 0); /* V05_00 counts in 16 bytes */
        bad = good;
        bad.type = LITHOS_QMD_TYPE_CLUSTERS;
        assert_int_equal(lithos_qmd_encode(l, &bad, qmd), -ERANGE); /* a cluster of 0 x 0 x 0 */
        bad.cluster[0] = bad.cluster[1] = bad.cluster[2] = 1;
        assert_int_equal(lithos_qmd_encode(l, &bad, qmd), v < LITHOS_QMD_V04_00 ? -ENOTSUP : 0);
        bad.cluster[0] = 64;
        assert_int_equal(lithos_qmd_encode(l, &bad, qmd), v < LITHOS_QMD_V04_00 ? -ENOTSUP : -ERANGE);
        bad = good;
        bad.masked = true;
        bad.tpcs = (struct lithos_tpcset){{1, 1}}; /* bit 64 */
        assert_int_equal(lithos_qmd_encode(l, &bad, qmd), v < LITHOS_QMD_V04_00 ? -ERANGE : 0);
#undef REFUSED
    }
}

static void the_mask_touches_nothing_else(void **state)
{
    (void)state;
    uint64_t seed = 8;
    for (unsigned round = 0; round < 200; round++) {
        for (unsigned v = 0; v < LITHOS_QMD_VERSION_MAX; v++) {
            const struct lithos_qmd_layout *l = lithos_qmd_layout(v);
            uint8_t qmd[LITHOS_QMD_BYTES], old[LITHOS_QMD_BYTES];
            const struct lithos_tpcset tpcs = {
                {next_random(&seed), v < LITHOS_QMD_V04_00 ? 0 : next_random(&seed)}};
            const struct lithos_tpcset wide = {{0, 1}};
            static const unsigned low[] = {672, 672, 2432, 2240}, bits[] = {64, 64, 128, 128},
                                  valid[] = {0, 0, 31, 159};
            struct lithos_qmd_view view;
            fill(qmd, &seed);
            memcpy(old, qmd, sizeof old);
            if (v < LITHOS_QMD_V04_00) {
                assert_int_equal(lithos_qmd_set_tpcs(l, qmd, &wide), -ERANGE);
                assert_memory_equal(qmd, old, sizeof old);
            }
            assert_int_equal(lithos_qmd_set_tpcs(l, qmd, &tpcs), 0);
            lithos_qmd_decode(l, qmd, &view);
            assert_true(view.masked && lithos_tpcset_equal(&view.tpcs, &tpcs));
            for (unsigned b = 0; b < QMD_BITS; b++) {
                uint64_t want = bits_of(old, b, b);
                if (b >= low[v] && b < low[v] + bits[v])
                    want = !lithos_tpcset_has(&tpcs, b - low[v]);
                else if (valid[v] && b == valid[v])
                    want = 1;
                assert_int_equal(bits_of(qmd, b, b), want);
            }
        }
    }
}

/* Places that docs/hardware.md states as measured, by number: V04_00 as seen on the card. */
static void measured_places(void **state)
{
    (void)state;
    const struct lithos_qmd_layout *l = lithos_qmd_layout(LITHOS_QMD_V04_00);
    static const struct {
        enum lithos_qmd_field field;
        unsigned index, bit, bits;
    } places[] = {
        {LITHOS_QMD_QMD_TYPE, 0, 23, 3},
        {LITHOS_QMD_WAIT_ON_LATCH_VALID, 0, 29, 1},
        {LITHOS_QMD_TPC_DISABLE_MASK_VALID, 0, 31, 1},
        {LITHOS_QMD_RELEASE_ENABLE, 1, 336, 1},
        {LITHOS_QMD_CONSTANT_BUFFER_VALID, 6, 416 + 4 * 6, 1},
        {LITHOS_QMD_CONSTANT_BUFFER_INVALIDATE, 6, 419 + 4 * 6, 1},
        {LITHOS_QMD_GRID_WIDTH, 0, 8 * 128, 32},
        {LITHOS_QMD_GRID_HEIGHT, 0, 8 * 132, 16},
        {LITHOS_QMD_GRID_DEPTH, 0, 8 * 136, 16},
        {LITHOS_QMD_PRE_EXIT_AT_LAST_CTA_LAUNCH, 0, 1150, 1},
        {LITHOS_QMD_ENABLE_PROGRAM_PRE_EXIT, 0, 1151, 1},
        {LITHOS_QMD_PROGRAM_ADDRESS_LOWER, 0, 1216, 32},
        {LITHOS_QMD_PROGRAM_ADDRESS_UPPER, 0, 1248, 25},
        {LITHOS_QMD_GRID_WIDTH_RESUME, 0, 8 * 176, 32},
        {LITHOS_QMD_CONSTANT_BUFFER_ADDR_LOWER_SHIFTED6, 6, 1536 + 64 * 6, 32},
        {LITHOS_QMD_CONSTANT_BUFFER_SIZE_SHIFTED4, 6, 1536 + 64 * 6 + 51, 13},
        {LITHOS_QMD_GPC_CGA_WIDTH, 0, 2144, 6},
        {LITHOS_QMD_TPC_DISABLE_MASK, 0, 8 * 304, 32},
        {LITHOS_QMD_TPC_DISABLE_MASK, 3, 8 * 304 + 96, 32},
    };
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        const struct lithos_qmd_row *r = &l->rows[places[i].field];
        assert_int_equal(r->low + places[i].index * r->stride, places[i].bit);
        assert_int_equal(r->bits, places[i].bits);
        assert_true(places[i].index < r->count);
    }
}

static void only_exact_versions_are_known(void **state)
{
    (void)state;
    static const struct {
        int major, minor;
        unsigned byte, value;
        enum lithos_qmd_version version;
    } known[] = {
        {8, 0, 72, 0x24, LITHOS_QMD_V02_04},  {8, 0, 72, 0x30, LITHOS_QMD_V03_00},
        {8, 6, 72, 0x24, LITHOS_QMD_V02_04},  {8, 6, 72, 0x30, LITHOS_QMD_V03_00},
        {9, 0, 72, 0x40, LITHOS_QMD_V04_00},  {10, 0, 58, 0x50, LITHOS_QMD_V05_00},
        {12, 0, 58, 0x50, LITHOS_QMD_V05_00},
    };
    for (int major = 0; major <= 13; major++) {
        for (int minor = 0; minor <= 9; minor++) {
            bool any = false;
            for (unsigned value = 0; value < 512; value++) {
                uint8_t qmd[LITHOS_QMD_BYTES];
                const struct lithos_qmd_layout *got = NULL, *want = NULL;
                const unsigned byte = value < 256 ? 72 : 58;
                memset(qmd, 0xee, sizeof qmd);
                qmd[byte] = (uint8_t)value;
                for (size_t i = 0; i < sizeof known / sizeof *known; i++)
                    if (known[i].major == major && known[i].minor == minor && known[i].byte == byte &&
                        known[i].value == (uint8_t)value)
                        want = lithos_qmd_layout(known[i].version);
                any |= want != NULL;
                assert_int_equal(lithos_qmd_identify(major, minor, qmd, true, &got), want ? 0 : -ENOTSUP);
                assert_ptr_equal(got, want);
                got = NULL;
                const bool proved = want == lithos_qmd_layout(LITHOS_QMD_V04_00);
                assert_int_equal(lithos_qmd_identify(major, minor, qmd, false, &got), !want    ? -ENOTSUP
                                                                                      : proved ? 0
                                                                                               : -EPERM);
                assert_ptr_equal(got, proved ? want : NULL);
            }
            assert_int_equal(lithos_qmd_capability(major, minor, true), any ? 0 : -ENOTSUP);
            assert_int_equal(lithos_qmd_capability(major, minor, false), !any         ? -ENOTSUP
                                                                         : major == 9 ? 0
                                                                                      : -EPERM);
        }
    }
}

static void layouts_have_names(void **state)
{
    (void)state;
    static const char *const names[] = {"V02_04", "V03_00", "V04_00", "V05_00"};
    for (unsigned v = 0; v < LITHOS_QMD_VERSION_MAX; v++) {
        assert_string_equal(lithos_qmd_layout_name(lithos_qmd_layout(v)), names[v]);
        assert_int_equal(lithos_qmd_layout_version(lithos_qmd_layout(v)), v);
        assert_int_equal(lithos_qmd_layout_proved(lithos_qmd_layout(v)), v == LITHOS_QMD_V04_00);
    }
    assert_null(lithos_qmd_layout(LITHOS_QMD_VERSION_MAX));
}

/* Banks that only read ahead are made valid again, and no others. */
static void constants_are_read_ahead_again(void **state)
{
    (void)state;
    for (int v = 0; v < LITHOS_QMD_VERSION_MAX; v++) {
        const struct lithos_qmd_layout *l = lithos_qmd_layout((enum lithos_qmd_version)v);
        const bool says = lithos_qmd_has(l, LITHOS_QMD_CONSTANT_BUFFER_PREFETCH);
        uint8_t qmd[LITHOS_QMD_BYTES] = {0}, before[LITHOS_QMD_BYTES];
        assert_int_equal(lithos_qmd_set(l, qmd, LITHOS_QMD_CONSTANT_BUFFER_VALID, 0, 1), 0);
        assert_int_equal(lithos_qmd_read_ahead(l, qmd), 0);
        if (says) {
            assert_int_equal(lithos_qmd_set(l, qmd, LITHOS_QMD_CONSTANT_BUFFER_PREFETCH, 5, 2), 0);
            assert_int_equal(lithos_qmd_set(l, qmd, LITHOS_QMD_CONSTANT_BUFFER_PREFETCH, 6, 2), 0);
        }
        memcpy(before, qmd, sizeof before);
        assert_int_equal(lithos_qmd_read_ahead(l, qmd), says ? 2 : 0);
        for (unsigned bank = 0; bank < 8; bank++) {
            bool valid = lithos_qmd_get(l, qmd, LITHOS_QMD_CONSTANT_BUFFER_VALID, bank);
            assert_int_equal(valid, bank == 0 || (says && (bank == 5 || bank == 6)));
            if (valid)
                lithos_qmd_set(l, qmd, LITHOS_QMD_CONSTANT_BUFFER_VALID, bank, bank == 0);
        }
        assert_memory_equal(qmd, before, sizeof qmd);
        assert_int_equal(lithos_qmd_read_ahead(l, qmd), says ? 2 : 0);
        assert_int_equal(lithos_qmd_read_ahead(l, qmd), 0);
    }
    assert_true(lithos_qmd_has(lithos_qmd_layout(LITHOS_QMD_V04_00), LITHOS_QMD_CONSTANT_BUFFER_PREFETCH));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_are_the_published_ones),
        cmocka_unit_test(tables_are_those_of_the_csv_named_in_the_environment),
        cmocka_unit_test(classes_of_one_version_agree_on_what_is_used),
        cmocka_unit_test(fields_lie_apart_and_inside),
        cmocka_unit_test(get_and_set_touch_their_bits_only),
        cmocka_unit_test(encoder_agrees_with_the_bit_decoder),
        cmocka_unit_test(encoder_refuses_what_does_not_fit),
        cmocka_unit_test(the_mask_touches_nothing_else),
        cmocka_unit_test(measured_places),
        cmocka_unit_test(only_exact_versions_are_known),
        cmocka_unit_test(layouts_have_names),
        cmocka_unit_test(constants_are_read_ahead_again),
    };
    return cmocka_run_group_tests(tests, load_fields, NULL);
}
