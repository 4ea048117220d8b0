/* Power and clocks: the card's model, the wave model at lower clocks, and the governor in the simulator. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/report.h"

#define CARDS LITHOS_SOURCE_DIR "/src/model/cards"

static struct lithos_card h200(void)
{
    struct lithos_card card;
    char error[LITHOS_MODEL_ERROR_BYTES];
    if (lithos_card_load(CARDS "/h200.json", &card, error) < 0)
        fail_msg("%s", error);
    return card;
}

static void the_cards_clocks_and_watts(void **state)
{
    const struct lithos_card card = h200();
    const struct lithos_power_card *p = &card.power;
    const struct lithos_power_load idle = {0, 0}, full = {1000000, 1000000}, half = {500000, 0};

    (void)state;
    assert_true(lithos_power_valid(p));
    assert_int_equal(lithos_power_steps(p), 110); /* as NVML tells on an H200 */
    assert_int_equal(lithos_power_step_mhz(p, 1979), 1965);
    assert_int_equal(lithos_power_step_mhz(p, 5000), 1980);
    assert_int_equal(lithos_power_step_mhz(p, 1), 345);
    assert_int_equal(lithos_power_mw(p, 1980, &full), p->limit_mw);
    for (uint32_t mhz = 345; mhz < 1980; mhz += 15) {
        assert_true(lithos_power_mw(p, mhz, &idle) < lithos_power_mw(p, mhz + 15, &idle));
        assert_true(lithos_power_mw(p, mhz, &half) < lithos_power_mw(p, mhz, &full));
    }
    struct lithos_power_card bad = *p;
    bad.step_mhz = 16;
    assert_false(lithos_power_valid(&bad));
    bad = *p;
    bad.volts[1].mv = 1;
    assert_false(lithos_power_valid(&bad));
}

/* Time of a kernel on the whole card at a clock. */
static double at_clock(double memory, uint32_t clock_ppm, struct lithos_power_load *ret_load)
{
    const struct lithos_card card = h200();
    const struct lithos_wave_config config = {.card = &card, .bandwidth = true};
    struct lithos_wave_kernel k = lithos_sim_kernel(&card, 1000000, 0, 63360, 8, 8, 1);
    struct lithos_wave_event e[4];
    struct lithos_wave *w;

    k.bandwidth_ppm = (uint32_t)(memory * 1e6);
    assert_int_equal(lithos_wave_create(&config, &w), 0);
    struct lithos_wave_domain *d = lithos_wave_domain_create(w, 0);
    struct lithos_wave_stream *s = lithos_wave_stream_create(w, d, 0, NULL);
    lithos_wave_set_clock(w, 0, clock_ppm);
    const struct lithos_wave_launch l = {
        .op = 1, .kernels = &k, .count = 1, .tpcs = card.topology.valid, .time_ppm = LITHOS_WAVE_PPM};
    assert_int_equal(lithos_wave_launch(w, 0, s, &l), 0);
    assert_int_equal(lithos_wave_advance(w, 100000, e, 4), 0);
    *ret_load = lithos_wave_load(w);
    assert_int_equal(lithos_wave_advance(w, 1000000000, e, 4), 1);
    assert_int_equal(lithos_wave_load(w).busy_ppm, 0);
    lithos_wave_destroy(w);
    return (double)(e[0].end_ns - e[0].start_ns);
}

/* Compute takes as much longer as the clock is lower; what wants twice the bandwidth does not feel half the clock. */
static void kernels_feel_the_clock(void **state)
{
    struct lithos_power_load load;

    (void)state;
    const double compute = at_clock(0, 1000000, &load);
    assert_int_equal(load.busy_ppm, 1000000);
    assert_int_equal(load.traffic_ppm, 0);
    assert_true(fabs(at_clock(0, 500000, &load) / compute - 2) < 0.02);
    assert_int_equal(load.busy_ppm, 1000000);
    const double memory = at_clock(2, 1000000, &load);
    assert_int_equal(load.traffic_ppm, 1000000);
    assert_in_range(load.busy_ppm, 450000, 550000);
    const double slower = at_clock(2, 500000, &load) / memory;
    print_message("%.3f\n", slower);
    assert_true(fabs(slower - 1) < 0.02);
    assert_in_range(load.busy_ppm, 950000, 1000000);
    assert_true(at_clock(2, 400000, &load) / memory > 1.2);
}

static struct lithos_sim_scenario sc;

static void load(const char *kernel)
{
    char text[1024], error[LITHOS_SIM_ERROR_BYTES] = "";

    snprintf(text, sizeof text,
             "{\"name\": \"t\", \"seconds\": 16, \"warm_seconds\": 8, \"bandwidth\": true,"
             " \"programs\": {\"p\": {\"sequence\": [{\"repeat\": 20, \"of\": [%s]}]}},"
             " \"tenants\": [{\"name\": \"a\", \"class\": \"high\", \"quota\": 100, \"program\": \"p\","
             "               \"arrivals\": {\"every_us\": 20000}}]}",
             kernel);
    if (lithos_sim_scenario_parse(text, "/nowhere", CARDS, &sc, error) < 0)
        fail_msg("%s", error);
}

static struct lithos_sim_result run(enum lithos_sim_governor governor)
{
    const struct lithos_sim_options options = {
        .policy = lithos_policy_find("lithos"), .seed = 3, .only = UINT32_MAX, .governor = governor};
    char error[LITHOS_SIM_ERROR_BYTES] = "";
    struct lithos_sim_result r;

    if (lithos_sim_run(&sc, &options, &r, error) < 0)
        fail_msg("%s", error);
    return r;
}

static int teardown(void **state)
{
    (void)state;
    lithos_sim_scenario_free(&sc);
    memset(&sc, 0, sizeof sc);
    return 0;
}

/* Half the time busy, 500 us x 20 a 20 ms: worked out by hand. */
static void energy_is_power_times_time(void **state)
{
    const struct lithos_card card = h200();
    const struct lithos_power_load idle = {0, 0}, busy = {1000000, 0};

    (void)state;
    load("{\"us\": 500, \"blocks\": 13200, \"residency\": 8, \"saturation\": 8}");
    struct lithos_sim_result r = run(LITHOS_SIM_GOVERNOR_OFF);
    const double want_j = 8 *
                          (r.busy_mean * lithos_power_mw(&card.power, 1980, &busy) +
                           (1 - r.busy_mean) * lithos_power_mw(&card.power, 1980, &idle)) /
                          1e3;
    assert_true(r.busy_mean > 0.4 && r.busy_mean < 0.55);
    assert_true(fabs(r.energy_j / want_j - 1) < 0.02);
    assert_true(fabs(r.mhz_mean - 1980) < 1);
    assert_int_equal(r.clock_switches, 0);
    lithos_sim_result_free(&r);
}

static void the_governor_saves_and_keeps_latency(void **state)
{
    (void)state;
    load("{\"us\": 500, \"blocks\": 13200, \"residency\": 8, \"saturation\": 8, \"memory\": 1.5}");
    struct lithos_sim_result top = run(LITHOS_SIM_GOVERNOR_OFF), slo = run(LITHOS_SIM_GOVERNOR_SLO);
    json_t *report = lithos_sim_report_power_json(&sc, &slo, &top);
    assert_true(slo.mhz_mean < 1450);
    assert_true(json_number_value(json_object_get(report, "energy_saved_percent")) > 15);
    assert_true(slo.tenants[0].p99_us < 1.1 * top.tenants[0].p99_us);
    json_decref(report);
    lithos_sim_result_free(&slo);
    lithos_sim_result_free(&top);
    teardown(NULL);
    load("{\"us\": 500, \"blocks\": 13200, \"residency\": 8, \"saturation\": 8}");
    struct lithos_sim_result formula = run(LITHOS_SIM_GOVERNOR_FORMULA);
    assert_true(fabs(formula.mhz_mean - 1800) < 45); /* all compute: f_max / 1.1 */
    lithos_sim_result_free(&formula);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_cards_clocks_and_watts),
        cmocka_unit_test(kernels_feel_the_clock),
        cmocka_unit_test_teardown(energy_is_power_times_time, teardown),
        cmocka_unit_test_teardown(the_governor_saves_and_keeps_latency, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
