/* The prelude: its words against those of the compiler for each generation, its decoder against every bit flipped, and the place it
 * is put in. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/fs.h"
#include "base/util.h"
#include "hw/prelude.h"
#include "hw/prelude_internal.h"

static const int cards[][2] = {{8, 0}, {8, 6}, {8, 9}, {9, 0}, {10, 0}, {12, 0}};
#define CARDS LITHOS_ARRAY_SIZE(cards)
#define PER_KIND (LITHOS_PRELUDE_STRIDE / sizeof(struct lithos_instruction))
#define WAIT_FIELDS (0x1ffffull << LITHOS_SASS_STALL_LOW)
#define CONSTANT_FIELDS (0x1ffffull << LITHOS_SASS_LDCU_OFFSET_LOW | 0x1full << LITHOS_SASS_BANK_LOW)

static const struct lithos_prelude_row *row_of(const int cc[2])
{
    const struct lithos_prelude_row *row;
    assert_int_equal(lithos_prelude_find(cc[0], cc[1], true, &row), 0);
    return row;
}

static char *read_cubin(const char *name, const int cc[2], size_t *ret_bytes)
{
    char path[512], *image;
    snprintf(path, sizeof path, "%s/tests/data/prelude/%s-sm_%d.cubin", LITHOS_SOURCE_DIR, name,
             cc[0] * 10 + cc[1]);
    assert_int_equal(lithos_read_file(path, 1 << 20, &image, ret_bytes), 0);
    return image;
}

static void test_rows(void **state)
{
    (void)state;
    const struct lithos_prelude_row *row = NULL;
    assert_int_equal(lithos_prelude_find(9, 0, false, &row), 0);
    assert_int_equal(lithos_prelude_find(8, 0, false, &row), -EPERM);
    assert_int_equal(lithos_prelude_find(10, 0, false, &row), -EPERM);
    assert_int_equal(lithos_prelude_find(7, 0, true, &row), -ENOTSUP);
    assert_int_equal(lithos_prelude_find(0, 0, true, &row), -ENOTSUP);
    assert_int_equal(lithos_prelude_find(9, 1, true, &row), -ENOTSUP);
    for (size_t i = 0; i < CARDS; i++)
        assert_in_range(lithos_prelude_registers(row_of(cards[i])), 1, 16);
}

/* Instructions of a kind, on one of the cards. */
static unsigned length_of(const int cc[2], unsigned kind)
{
    bool ampere = cc[0] == 8;
    return kind == LITHOS_PRELUDE_LINE ? (ampere ? 9 : 11) : (ampere ? 4 : 5);
}

/* Decoded, each row does what it is for, of each kind. */
static void test_meaning(void **state)
{
    (void)state;
    for (size_t i = 0; i < CARDS; i++) {
        uint8_t text[LITHOS_PRELUDE_BYTES];
        unsigned registers = 0;
        lithos_prelude_write(row_of(cards[i]), text);
        for (unsigned kind = 0; kind < LITHOS_PRELUDE_KINDS; kind++) {
            struct lithos_prelude_meaning m;
            bool line = kind == LITHOS_PRELUDE_LINE;
            assert_int_equal(
                lithos_prelude_decode(text + kind * LITHOS_PRELUDE_STRIDE, LITHOS_PRELUDE_STRIDE, &m), 0);
            assert_int_equal(m.kind, kind);
            assert_int_equal(m.bank, LITHOS_PRELUDE_BANK);
            assert_int_equal(m.lo_offset, offsetof(struct lithos_prelude_entry, lo));
            assert_int_equal(m.target_offset, offsetof(struct lithos_prelude_entry, target));
            assert_int_equal(m.span_offset, line ? offsetof(struct lithos_prelude_entry, span) : 0);
            assert_int_equal(m.width_offset, line ? offsetof(struct lithos_prelude_entry, width) : 0);
            assert_int_equal(m.height_offset, line ? offsetof(struct lithos_prelude_entry, height) : 0);
            assert_int_equal(m.instructions, length_of(cards[i], kind));
            registers = LITHOS_MAX(registers, m.registers);
        }
        assert_int_equal(registers, lithos_prelude_registers(row_of(cards[i])));
    }
}

static uint64_t field(uint64_t word, unsigned low, unsigned bits)
{
    return word >> low & ((1ull << bits) - 1);
}

/* The same instruction but for where its constant lies, and ours waits no less. */
static bool same(const struct lithos_instruction *ours, const struct lithos_instruction *theirs)
{
    uint64_t but = field(ours->low, LITHOS_SASS_BANK_LOW, 5) ? CONSTANT_FIELDS : 0;
    uint64_t wait = field(theirs->high, LITHOS_SASS_WAIT_LOW, 6),
             write = field(theirs->high, LITHOS_SASS_WRITE_LOW, 3);
    return (theirs->low & ~but) == (ours->low & ~but) &&
           (theirs->high & ~WAIT_FIELDS) == (ours->high & ~WAIT_FIELDS) &&
           field(ours->high, LITHOS_SASS_STALL_LOW, 4) >= field(theirs->high, LITHOS_SASS_STALL_LOW, 4) &&
           (field(ours->high, LITHOS_SASS_WAIT_LOW, 6) & wait) == wait &&
           (write == 7 || field(ours->high, LITHOS_SASS_WRITE_LOW, 3) == write) &&
           field(ours->high, LITHOS_SASS_READ_LOW, 3) == field(theirs->high, LITHOS_SASS_READ_LOW, 3);
}

/* Each instruction but the jump stands in what the compiler made of the same thing, in the same order. */
static void test_compiler_agrees(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2 * CARDS; i++) {
        const int *cc = cards[i / 2];
        struct lithos_instruction all[PER_KIND * LITHOS_PRELUDE_KINDS], theirs;
        size_t bytes, at = 0;
        unsigned kind = i % 2 ? LITHOS_PRELUDE_LINE : 0;
        char *image = read_cubin(i % 2 ? "line" : "reference", cc, &bytes);
        lithos_prelude_write(row_of(cc), all);
        const struct lithos_instruction *ours = &all[kind * PER_KIND];
        unsigned count = length_of(cc, kind) - 1; /* the jump is ours alone */
        for (unsigned k = 0; k < count; k++) {
            bool found = false;
            for (; at + sizeof theirs <= bytes && !found; at += 16) {
                memcpy(&theirs, image + at, sizeof theirs);
                found = same(&ours[k], &theirs);
            }
            if (!found)
                fail_msg("sm_%d%d: instruction %u of kind %u is not one of the compiler's", cc[0], cc[1], k,
                         kind);
        }
        free(image);
    }
}

static void flip_bits(const int cc[2], struct lithos_instruction *text, unsigned kind)
{
    struct lithos_prelude_meaning right, m;
    unsigned harmless = 0;
    assert_int_equal(lithos_prelude_decode(text, LITHOS_PRELUDE_STRIDE, &right), 0);
    for (unsigned bit = 0; bit < right.instructions * 128; bit++) {
        uint64_t *word = bit / 64 % 2 ? &text[bit / 128].high : &text[bit / 128].low,
                 mask = 1ull << (bit % 64);
        *word ^= mask;
        memset(&m, 0, sizeof m);
        if (lithos_prelude_decode(text, LITHOS_PRELUDE_STRIDE, &m) == 0 && !memcmp(&m, &right, sizeof m)) {
            /* nothing but when it issues */
            if (!(bit / 64 % 2 && mask & WAIT_FIELDS))
                fail_msg("sm_%d%d: bit %u of instruction %u of kind %u can be anything", cc[0], cc[1],
                         bit % 128, bit / 128, kind);
            harmless++;
        }
        *word ^= mask;
    }
    assert_in_range(harmless, 1, right.instructions * 17);
}

/* A bit flipped is found, unless it lies in what the decoder reads and the meaning changes with it, or in how long to wait. */
static void test_flipped_bits(void **state)
{
    (void)state;
    for (size_t i = 0; i < CARDS; i++) {
        struct lithos_instruction text[PER_KIND * LITHOS_PRELUDE_KINDS];
        lithos_prelude_write(row_of(cards[i]), text);
        flip_bits(cards[i], text, 0);
        flip_bits(cards[i], text + LITHOS_PRELUDE_LINE * PER_KIND, LITHOS_PRELUDE_LINE);
    }
}

static void set(struct lithos_instruction *i, unsigned low, unsigned bits, uint64_t value)
{
    uint64_t mask = ((1ull << bits) - 1) << low;
    i->high = (i->high & ~mask) | value << low;
}

static bool refused(const struct lithos_instruction *text, size_t bytes)
{
    struct lithos_prelude_meaning m;
    return lithos_prelude_decode(text, bytes, &m) == -EINVAL;
}

/* What goes wrong on a card without a sign: a result used before it is there. */
static void test_hazards(void **state)
{
    (void)state;
    struct lithos_instruction good[PER_KIND * LITHOS_PRELUDE_KINDS], text[PER_KIND * LITHOS_PRELUDE_KINDS];
    lithos_prelude_write(row_of((int[]){9, 0}), good);
#define FRESH memcpy(text, good, sizeof text)
    FRESH;
    set(&text[2], LITHOS_SASS_WAIT_LOW, 6, 0); /* the comparison does not wait for what it compares */
    assert_true(refused(text, LITHOS_PRELUDE_STRIDE));
    FRESH;
    set(&text[1], LITHOS_SASS_WRITE_LOW, 3, 7); /* the load announces itself to nobody */
    assert_true(refused(text, LITHOS_PRELUDE_STRIDE));
    FRESH;
    set(&text[1], LITHOS_SASS_WRITE_LOW, 3, 1); /* or by a barrier that nobody waits for */
    assert_true(refused(text, LITHOS_PRELUDE_STRIDE));
    FRESH;
    set(&text[2], LITHOS_SASS_STALL_LOW, 4, 12); /* the predicate is read a cycle early */
    assert_true(refused(text, LITHOS_PRELUDE_STRIDE));
    FRESH;
    set(&text[2], LITHOS_SASS_COMPARE_LOW, 3, 4); /* lo > index: the wrong blocks end */
    assert_true(refused(text, LITHOS_PRELUDE_STRIDE));
    FRESH;
    set(&text[2], LITHOS_SASS_COMPARE_LOW, 3, 1); /* lo < index: block lo ends as well */
    assert_true(refused(text, LITHOS_PRELUDE_STRIDE));
    FRESH;
    text[3] = text[5]; /* no exit */
    assert_true(refused(text, LITHOS_PRELUDE_STRIDE));
    FRESH;
    text[3].low =
        (text[3].low & ~(0xfull << LITHOS_SASS_GUARD_LOW)) | 7ull << LITHOS_SASS_GUARD_LOW; /* all exit */
    assert_true(refused(text, LITHOS_PRELUDE_STRIDE));
    FRESH;
    text[4] = text[6]; /* no jump: runs into what follows */
    assert_true(refused(text, LITHOS_PRELUDE_STRIDE));
    FRESH;
    assert_true(refused(text, 4 * sizeof text[0])); /* or out of what may be read */
    assert_true(refused(text, 0));
    assert_false(refused(text, 5 * sizeof text[0]));
#undef FRESH
}

/* The same of the linear one, where values pass through three kinds of pipes. */
static void test_line_hazards(void **state)
{
    (void)state;
    struct lithos_instruction good[PER_KIND * LITHOS_PRELUDE_KINDS], text[PER_KIND];
    lithos_prelude_write(row_of((int[]){9, 0}), good);
    const struct lithos_instruction *line = good + LITHOS_PRELUDE_LINE * PER_KIND;
#define FRESH memcpy(text, line, sizeof text)
    FRESH;
    assert_false(refused(text, LITHOS_PRELUDE_STRIDE));
    set(&text[5], LITHOS_SASS_WAIT_LOW, 6, 0); /* y and z may not be there */
    assert_true(refused(text, LITHOS_PRELUDE_STRIDE));
    FRESH;
    set(&text[6], LITHOS_SASS_WAIT_LOW, 6, 0); /* x */
    assert_true(refused(text, LITHOS_PRELUDE_STRIDE));
    FRESH;
    set(&text[7], LITHOS_SASS_WAIT_LOW, 6, 0); /* lo */
    assert_true(refused(text, LITHOS_PRELUDE_STRIDE));
    FRESH;
    set(&text[5], LITHOS_SASS_STALL_LOW, 4, 3); /* the row is used a cycle early */
    assert_true(refused(text, LITHOS_PRELUDE_STRIDE));
    FRESH;
    set(&text[6], LITHOS_SASS_STALL_LOW, 4, 5); /* the linear index */
    assert_true(refused(text, LITHOS_PRELUDE_STRIDE));
    FRESH;
    set(&text[7], LITHOS_SASS_STALL_LOW, 4, 3); /* the difference */
    assert_true(refused(text, LITHOS_PRELUDE_STRIDE));
    FRESH;
    set(&text[8], LITHOS_SASS_STALL_LOW, 4, 12); /* the predicate */
    assert_true(refused(text, LITHOS_PRELUDE_STRIDE));
    FRESH;
    set(&text[8], LITHOS_SASS_COMPARE_LOW, 3, 4); /* more than span: the block at its end is run twice */
    assert_true(refused(text, LITHOS_PRELUDE_STRIDE));
    FRESH;
    text[5].low ^= 1ull << LITHOS_SASS_SRC_B_LOW; /* z times width instead of height */
    struct lithos_prelude_meaning m;
    assert_int_equal(lithos_prelude_decode(text, sizeof text, &m), 0); /* is what it says */
    assert_int_equal(m.height_offset, offsetof(struct lithos_prelude_entry, width));
    FRESH;
    text[4].low ^= 1ull << LITHOS_SASS_BANK_LOW; /* lo out of another bank */
    assert_true(refused(text, LITHOS_PRELUDE_STRIDE));
#undef FRESH
}

/* Into the images that the compiler makes, and out of them again. */
static void test_patch(void **state)
{
    (void)state;
    for (size_t i = 0; i < CARDS; i++) {
        size_t bytes, offset, room;
        char *image = read_cubin("room", cards[i], &bytes), *before = malloc(bytes);
        uint8_t code[LITHOS_PRELUDE_BYTES];
        memcpy(before, image, bytes);
        assert_int_equal(lithos_prelude_text(image, bytes, &offset, &room), 0);
        assert_true(room >= LITHOS_PRELUDE_BYTES && offset + room <= bytes);
        assert_int_equal(lithos_prelude_patch(row_of(cards[i]), image, bytes), 0);
        lithos_prelude_write(row_of(cards[i]), code);
        assert_memory_equal(image + offset, code, sizeof code);
        /* nothing else of the image has changed, and nothing of the code that was there is left */
        assert_memory_equal(image, before, offset);
        assert_memory_equal(image + offset + room, before + offset + room, bytes - offset - room);
        static const uint64_t nop[2] = {0x7918, 0x000fc00000000000};
        for (size_t at = offset + LITHOS_PRELUDE_BYTES; at + 16 <= offset + room; at += 16)
            assert_memory_equal(image + at, nop, 16);
        /* an image by another name has no place for it */
        memcpy(image, before, bytes);
        char *name = memmem(image, bytes, ".text.lithos_prelude", sizeof ".text.lithos_prelude");
        assert_non_null(name);
        name[6] = 'L';
        assert_int_equal(lithos_prelude_patch(row_of(cards[i]), image, bytes), -EBADMSG);
        free(image);
        free(before);
    }
}

/* Cut short anywhere, and with any byte of its headers wrong: refused, or patched within its bounds. */
static void test_damaged_images(void **state)
{
    (void)state;
    const int cc[2] = {9, 0};
    size_t bytes, offset, room;
    char *image = read_cubin("room", cc, &bytes);
    unsigned whole = 0;
    for (size_t n = 0; n < bytes; n += n < 256 ? 1 : 97) {
        char *cut = malloc(n ? n : 1); /* its end is watched by sanitizers */
        memcpy(cut, image, n);
        if (lithos_prelude_text(cut, n, &offset, &room) == 0)
            whole++, assert_true(offset + room <= n);
        free(cut);
    }
    assert_in_range(whole, 0, 20); /* what follows the section headers is not looked at */
    for (size_t at = 0; at < bytes; at++)
        for (unsigned bit = 0; bit < 8; bit += 7) {
            image[at] ^= (char)(1u << bit);
            if (lithos_prelude_text(image, bytes, &offset, &room) == 0)
                assert_true(offset <= bytes && room <= bytes - offset && room >= LITHOS_PRELUDE_BYTES);
            image[at] ^= (char)(1u << bit);
        }
    free(image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_meaning),
        cmocka_unit_test(test_compiler_agrees),
        cmocka_unit_test(test_flipped_bits),
        cmocka_unit_test(test_hazards),
        cmocka_unit_test(test_line_hazards),
        cmocka_unit_test(test_patch),
        cmocka_unit_test(test_damaged_images),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
