/* Card and cost files: those that come along are read whole, what is wrong in one is named. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/util.h"
#include "model/card.h"
#include "model/cost.h"
#include "model/model.h"

#define CARDS LITHOS_SOURCE_DIR "/src/model/cards/"
#define COSTS LITHOS_SOURCE_DIR "/src/model/costs/"

static void test_cards(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        uint32_t sms;
        int major;
        enum lithos_qmd_version qmd;
        uint32_t cluster;
    } expected[] = {
        {CARDS "h200.json", 132, 9, LITHOS_QMD_V04_00, 16},
        {CARDS "h100.json", 132, 9, LITHOS_QMD_V04_00, 16},
        {CARDS "a100.json", 108, 8, LITHOS_QMD_V03_00, 1},
    };
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(expected); i++) {
        struct lithos_card card;
        char error[LITHOS_MODEL_ERROR_BYTES];
        assert_int_equal(lithos_card_load(expected[i].path, &card, error), 0);
        assert_int_equal(lithos_card_sms(&card), expected[i].sms);
        assert_int_equal(card.cc_major, expected[i].major);
        assert_int_equal(card.qmd, expected[i].qmd);
        assert_int_equal(card.largest_cluster_blocks, expected[i].cluster);
        /* what a driver tells agrees with what the card does */
        assert_int_equal(card.attributes[16], expected[i].sms);
        assert_int_equal(card.attributes[39], card.sm_threads);
        assert_int_equal(card.attributes[75], card.cc_major);
        assert_int_equal(card.attributes[76], card.cc_minor);
        assert_int_equal(card.attributes[81], card.sm_shared_bytes);
        assert_int_equal(card.attributes[106], card.sm_blocks);
        assert_int_equal(card.attributes[120], card.largest_cluster_blocks > 1);
        struct lithos_model *m;
        assert_int_equal(lithos_model_create(&card, 1, &m), 0);
        lithos_model_destroy(m);
    }
}

/* The card file with `from` made `to`. */
static int parse_changed(const char *text, const char *from, const char *to, char *error)
{
    const char *at = strstr(text, from);
    assert_non_null(at);
    char *changed = malloc(strlen(text) + strlen(to) + 1);
    assert_non_null(changed);
    memcpy(changed, text, (size_t)(at - text));
    strcpy(changed + (at - text), to);
    strcat(changed, at + strlen(from));
    struct lithos_card card;
    int r = lithos_card_parse(changed, &card, error);
    free(changed);
    return r;
}

static void test_bad_cards(void **state)
{
    (void)state;
    char *text, error[LITHOS_MODEL_ERROR_BYTES];
    size_t len;
    assert_int_equal(lithos_read_file(CARDS "h200.json", 1 << 20, &text, &len), 0);
    static const struct {
        const char *from, *to, *names;
    } bad[] = {
        {"\"0-3,9-16", "\"0-3,9-1", "tpcs"},
        {"V04_00", "V04_01", "qmd"},
        {"\"threads\": 2048", "\"threads\": 2047", "sm.threads"},
        {"\"launch_ns\": 5000", "\"launch_ns\": -1", "timing.launch_ns"},
        {"\"launch_ns\": 5000,", "", "timing.launch_ns"},
        {"\"blocks\": 32", "\"blocks\": 33", "sm.blocks"},
        {"\"7\": 65535", "\"777\": 65535", "777"},
        {"\"largest_cluster\": 16", "\"largest_cluster\": 32", "largest_cluster"},
        {"\"h2d_bytes_per_us\": 50000", "\"h2d_bytes_per_us\": 0", "copy rate"},
        {"{", "[", "line"},
    };
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(bad); i++) {
        error[0] = '\0';
        assert_int_equal(parse_changed(text, bad[i].from, bad[i].to, error), -EINVAL);
        if (!strstr(error, bad[i].names))
            fail_msg("%s -> %s: \"%s\" does not name %s", bad[i].from, bad[i].to, error, bad[i].names);
    }
    free(text);
    struct lithos_card card;
    assert_int_equal(lithos_card_load(CARDS "none.json", &card, error), -ENOENT);
}

static struct lithos_block_cost cost_of(const struct lithos_costs *costs, const char *kernel, uint64_t param,
                                        uint32_t threads)
{
    const uint64_t params[2] = {0, param};
    struct lithos_block_cost cost;
    lithos_costs_find(costs, kernel, params, 2, threads, &cost);
    return cost;
}

static void test_costs(void **state)
{
    (void)state;
    struct lithos_costs *costs;
    char error[LITHOS_MODEL_ERROR_BYTES];
    assert_int_equal(lithos_costs_create(&costs), 0);
    assert_int_equal(lithos_costs_merge_file(costs, COSTS "default.json", error), 0);
    assert_int_equal(cost_of(costs, "lithos_fma", 18000, 128).alone_ns, 91500);
    assert_int_equal(cost_of(costs, "lithos_fma", 18000, 128).share_ppm, 231000);
    assert_int_equal(cost_of(costs, "lithos_fma", 18000, 256).share_ppm, 462000);
    assert_int_equal(cost_of(costs, "lithos_fma", 18000, 1024).share_ppm, 1000000);
    assert_int_equal(cost_of(costs, "lithos_hp", 0, 128).alone_ns, 91500);
    assert_int_equal(cost_of(costs, "somebody's", 0, 128).alone_ns, 5000);

    /* merged over it: one replaced, one new, piecewise, and the default */
    assert_int_equal(
        lithos_costs_merge(costs,
                           "{\"default\": {\"base_ns\": 7},"
                           " \"kernels\": {\"lithos_hp\": {\"base_ns\": 10},"
                           "  \"mine\": {\"param\": 1, \"points\": [[0, 100], [10, 200], [20, 1200]]}}}",
                           error),
        0);
    assert_int_equal(cost_of(costs, "somebody's", 0, 128).alone_ns, 7);
    assert_int_equal(cost_of(costs, "lithos_hp", 0, 128).alone_ns, 10);
    assert_int_equal(cost_of(costs, "mine", 5, 128).alone_ns, 150);
    assert_int_equal(cost_of(costs, "mine", 15, 128).alone_ns, 700);
    assert_int_equal(cost_of(costs, "mine", 99, 128).alone_ns, 1200);

    /* a bad file says why and changes nothing */
    static const struct {
        const char *text, *names;
    } bad[] = {
        {"{\"kernels\": {\"lithos_hp\": {\"base_ns\": 1}, \"b\": {\"base_nss\": 1}}}",
         "b: unknown key \"base_nss\""},
        {"{\"kernels\": {\"b\": {\"share\": 2}}}", "share"},
        {"{\"kernels\": {\"b\": {\"ns_per_param\": 2}}}", "param"},
        {"{\"kernels\": {\"b\": {\"param\": 0, \"points\": [[1, 1], [1, 2]]}}}", "rise"},
        {"{\"kernels\": 3}", "kernels"},
        {"[]", "object"},
        {"{\"kernels\": {", "line 1"},
    };
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(bad); i++) {
        assert_int_equal(lithos_costs_merge(costs, bad[i].text, error), -EINVAL);
        if (!strstr(error, bad[i].names))
            fail_msg("%s: \"%s\" does not name %s", bad[i].text, error, bad[i].names);
        assert_int_equal(cost_of(costs, "lithos_hp", 0, 128).alone_ns, 10);
    }
    lithos_costs_free(costs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cards), cmocka_unit_test(test_bad_cards),
                                       cmocka_unit_test(test_costs)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
