/* Right-sizing in the simulator: what is saved is measured against the same run without it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "sim/report.h"

#define CARDS LITHOS_SOURCE_DIR "/src/model/cards"

static struct lithos_sim_scenario sc;

/* others: further tenants, beginning with a comma. */
static void load_beside(const char *rightsize, const char *program, const char *others)
{
    char text[4096], error[LITHOS_SIM_ERROR_BYTES] = "";

    snprintf(
        text, sizeof text,
        "{\"name\": \"t\", \"seconds\": 1, \"bandwidth\": true,"
        " \"kernels\": {\"memory\": {\"us\": 100, \"blocks\": 4000, \"residency\": 8, \"saturation\": 8, "
        "\"memory\": 2},"
        "              \"compute\": {\"us\": 100, \"blocks\": 13200, \"residency\": 2, \"saturation\": 2},"
        "              \"few\": {\"us\": 50, \"blocks\": 20}, \"wave\": {\"us\": 10},"
        "              \"training\": {\"us\": 400, \"blocks\": 4000, \"residency\": 2, \"cut\": true}},"
        " \"programs\": {\"p\": %s, \"training\": {\"sequence\": [\"training\"]}},"
        " \"tenants\": [{\"name\": \"a\", \"class\": \"high\", \"quota\": 100, \"program\": \"p\", "
        "\"jitter\": 0.02%s}%s]}",
        program, rightsize, others);
    if (lithos_sim_scenario_parse(text, "/nowhere", CARDS, &sc, error) < 0)
        fail_msg("%s", error);
}

static void load(const char *rightsize, const char *program)
{
    load_beside(rightsize, program, "");
}

static void run(bool whole, struct lithos_sim_result *ret)
{
    const struct lithos_sim_options options = {
        .policy = lithos_policy_find("lithos"), .seed = 7, .only = UINT32_MAX, .check = true, .whole = whole};
    char error[LITHOS_SIM_ERROR_BYTES] = "";

    if (lithos_sim_run(&sc, &options, ret, error) < 0)
        fail_msg("%s", error);
    for (unsigned i = 0; i < LITHOS_CHECK_RULE_MAX; i++)
        assert_int_equal(ret->check.fired[i], 0);
}

static int teardown(void **state)
{
    (void)state;
    lithos_sim_scenario_free(&sc);
    memset(&sc, 0, sizeof sc);
    return 0;
}

/* A kernel that wants twice the memory bandwidth there is needs half of the TPCs, one of 20 blocks ten; one that computes
 * needs nearly all. */
static void saves_where_kernels_do_not_scale(void **state)
{
    struct lithos_sim_result sized, whole;

    (void)state;
    load(", \"rightsize\": 1.1",
         "{\"sequence\": [{\"repeat\": 8, \"of\": [\"memory\", \"few\", \"compute\"]}]}");
    run(false, &sized);
    run(true, &whole);
    json_t *report = lithos_sim_report_sized_json(&sc, &sized, &whole);
    const json_t *one = json_array_get(report, 0);
    const double saved = json_number_value(json_object_get(one, "tpc_time_saved_percent"));
    const double estimated = json_number_value(json_object_get(one, "tpc_time_saved_estimated_percent"));
    const double p99 = json_number_value(json_object_get(one, "p99_added_percent"));
    print_message("saved %.1f %%, estimated %.1f %%, p99 %+.1f %%\n", saved, estimated, p99);
    assert_true(saved > 25 && saved < 45);
    assert_true(estimated > saved - 8 && estimated < saved + 8);
    assert_true(p99 <= 10.5);
    assert_int_equal(whole.tenants[0].rightsize.requests, 0);
    json_decref(report);
    lithos_sim_result_free(&sized);
    lithos_sim_result_free(&whole);
}

/* Graphs keep the TPCs they were made with. */
static void leaves_graphs_alone(void **state)
{
    struct lithos_sim_result sized, whole;

    (void)state;
    load(", \"rightsize\": 1.1", "{\"graph\": true, \"sequence\": [\"memory\", \"few\"]}");
    run(false, &sized);
    run(true, &whole);
    assert_int_equal(sized.hash, whole.hash);
    assert_int_equal(sized.tenants[0].rightsize.requests, 0);
    lithos_sim_result_free(&sized);
    lithos_sim_result_free(&whole);
}

/* The app takes longer to launch than its kernels to run: on half of the TPCs its requests take no longer. */
static void what_an_app_does_not_feel_is_lent(void **state)
{
    struct lithos_sim_result sized, whole;

    (void)state;
    load_beside(", \"rightsize\": 1.1, \"launch_us\": 60",
                "{\"sequence\": [{\"repeat\": 40, \"of\": [\"wave\"]}]}",
                ", {\"name\": \"b\", \"class\": \"best-effort\", \"quota\": 0, \"program\": \"training\"}");
    run(false, &sized);
    run(true, &whole);
    const struct lithos_sim_tenant_result *a = &sized.tenants[0], *b = &sized.tenants[1];
    print_message(
        "p99 %+.2f %%, %.0f requests a second instead of %.0f; beside it %.0f instead of %.0f a second\n",
        100 * (a->p99_us / whole.tenants[0].p99_us - 1), a->per_s, whole.tenants[0].per_s, b->per_s,
        whole.tenants[1].per_s);
    assert_true(a->p99_us < 1.04 * whole.tenants[0].p99_us);
    assert_true(a->per_s > 0.98 * whole.tenants[0].per_s);
    assert_true(b->per_s > whole.tenants[1].per_s + 600); /* of some 2500 that it has alone */
    assert_true(a->rightsize.lent > 200 && a->rightsize.references > 10);
    lithos_sim_result_free(&sized);
    lithos_sim_result_free(&whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(saves_where_kernels_do_not_scale, teardown),
        cmocka_unit_test_teardown(leaves_graphs_alone, teardown),
        cmocka_unit_test_teardown(what_an_app_does_not_feel_is_lent, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
