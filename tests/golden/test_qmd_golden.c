/* A fixed launch as each QMD version encodes it, byte for byte, against tests/golden/qmd/VERSION.txt: one bit
 * changed in a table is a readable difference in a review. After a change that is meant:
 *   build/tests/test_qmd_golden --write        and look at the difference in git. */
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

#define TEXT_MAX 16384

static const char *const field_names[LITHOS_QMD_FIELD_MAX] = {
#define X(name) #name,
#include "hw/qmd_names.def"
#undef X
};

/* Every value differs from every other, so that two fields that changed places show. */
static struct lithos_qmd_view fixed_view(enum lithos_qmd_version version)
{
    struct lithos_qmd_view view = {
        .type = LITHOS_QMD_TYPE_GRID,
        .grid = {0x12345, 0x234, 0x35},
        .block = {0x180, 0x3, 0x2},
        .cluster = {1, 1, 1},
        .registers = 0xa7,
        .shared_bytes = 0x1a80,
        .entry = 0x7f3a56781200,
        .masked = true,
        .tpcs = {{0x00000001fe00000full, 0}},
    };
    if (version >= LITHOS_QMD_V04_00) {
        view.type = LITHOS_QMD_TYPE_CLUSTERS;
        view.cluster[0] = 4;
        view.cluster[1] = 3;
        view.cluster[2] = 2;
        view.tpcs.w[1] = 0x000a4880;
    }
    return view;
}

static int add(char *text, size_t *at, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static int add(char *text, size_t *at, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    const int n = vsnprintf(text + *at, TEXT_MAX - *at, fmt, args);
    va_end(args);
    if (n < 0 || (size_t)n >= TEXT_MAX - *at)
        return -1;
    *at += (size_t)n;
    return 0;
}

/* 16 bytes a line, then the fields that are not 0. */
static int dump(enum lithos_qmd_version version, char text[TEXT_MAX])
{
    const struct lithos_qmd_layout *l = lithos_qmd_layout(version);
    const struct lithos_qmd_view view = fixed_view(version);
    uint8_t qmd[LITHOS_QMD_BYTES];
    size_t at = 0;
    int r = lithos_qmd_encode(l, &view, qmd);

    if (r < 0)
        return r;
    r |= add(text, &at, "%s\n\n", lithos_qmd_layout_name(l));
    for (unsigned i = 0; i < LITHOS_QMD_BYTES; i += 16) {
        r |= add(text, &at, "%03u ", i);
        for (unsigned j = 0; j < 16; j++)
            r |= add(text, &at, " %02x", qmd[i + j]);
        r |= add(text, &at, "\n");
    }
    r |= add(text, &at, "\n");
    for (unsigned f = 0; f < LITHOS_QMD_FIELD_MAX; f++) {
        for (unsigned i = 0; i < l->rows[f].count; i++) {
            const uint32_t value = lithos_qmd_get(l, qmd, f, i);
            if (value && l->rows[f].count > 1)
                r |= add(text, &at, "%s[%u] = 0x%x\n", field_names[f], i, value);
            else if (value)
                r |= add(text, &at, "%s = 0x%x\n", field_names[f], value);
        }
    }
    return r;
}

static void path_of(enum lithos_qmd_version version, char path[512])
{
    snprintf(path, 512, "%s/tests/golden/qmd/%s.txt", LITHOS_SOURCE_DIR,
             lithos_qmd_layout_name(lithos_qmd_layout(version)));
}

/* Both texts have their lines in the same order: -what was, +what is. */
static void print_difference(char *was, char *is)
{
    char *was_rest, *is_rest;
    const char *a = strtok_r(was, "\n", &was_rest), *b = strtok_r(is, "\n", &is_rest);
    while (a || b) {
        if (!a || !b || strcmp(a, b) != 0) {
            if (a)
                print_error("-%s\n", a);
            if (b)
                print_error("+%s\n", b);
        }
        a = a ? strtok_r(NULL, "\n", &was_rest) : NULL;
        b = b ? strtok_r(NULL, "\n", &is_rest) : NULL;
    }
}

static void version_is_as_recorded(void **state)
{
    const enum lithos_qmd_version version = *(const enum lithos_qmd_version *)*state;
    char path[512], is[TEXT_MAX], *was;
    size_t len;
    path_of(version, path);
    assert_int_equal(dump(version, is), 0);
    assert_int_equal(lithos_read_file(path, TEXT_MAX, &was, &len), 0);
    const int same = strcmp(was, is) == 0;
    if (!same) {
        print_error("%s is not what the encoder writes now:\n", path);
        print_difference(was, is);
    }
    free(was);
    assert_true(same);
}

static int write_all(void)
{
    for (unsigned v = 0; v < LITHOS_QMD_VERSION_MAX; v++) {
        char path[512], text[TEXT_MAX];
        path_of(v, path);
        if (dump(v, text) < 0 || lithos_write_file_atomic(path, text, strlen(text), 0644) < 0) {
            fprintf(stderr, "test_qmd_golden: could not write %s\n", path);
            return 1;
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    static enum lithos_qmd_version versions[] = {LITHOS_QMD_V02_04, LITHOS_QMD_V03_00, LITHOS_QMD_V04_00,
                                                 LITHOS_QMD_V05_00};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(version_is_as_recorded, &versions[0]),
        cmocka_unit_test_prestate(version_is_as_recorded, &versions[1]),
        cmocka_unit_test_prestate(version_is_as_recorded, &versions[2]),
        cmocka_unit_test_prestate(version_is_as_recorded, &versions[3]),
    };
    if (argc > 1 && strcmp(argv[1], "--write") == 0)
        return write_all();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
