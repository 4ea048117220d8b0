/* The simulator: the same every time, right where it can be worked out by hand, and with checkers that do fire. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "core/sched_internal.h"
#include "sim/random.h"
#include "sim/report.h"
#include "sim/sim.h"
#include "sim/swarm.h"
#include "trace/writer.h"

#define US 1000ull
#define MS 1000000ull
#define CARDS LITHOS_SOURCE_DIR "/src/model/cards"

static struct lithos_sim_scenario sc;

static void parse(const char *text)
{
    char error[LITHOS_SIM_ERROR_BYTES] = "";
    const int r = lithos_sim_scenario_parse(text, "/nowhere", CARDS, &sc, error);
    if (r < 0)
        fail_msg("%s", error);
}

static struct lithos_sim_result run(const struct lithos_sim_options *options)
{
    char error[LITHOS_SIM_ERROR_BYTES] = "";
    struct lithos_sim_result r;
    if (lithos_sim_run(&sc, options, &r, error) < 0)
        fail_msg("%s", error);
    return r;
}

static struct lithos_sim_options with(const char *policy)
{
    return (struct lithos_sim_options){
        .policy = lithos_policy_find(policy), .seed = 7, .only = UINT32_MAX, .check = true};
}

static int free_scenario(void **state)
{
    (void)state;
    lithos_sim_scenario_free(&sc);
    memset(&sc, 0, sizeof sc);
    return 0;
}

/* An owner of half the card that comes and goes, and a neighbour with 2 ms kernels in atoms. */
static const char pair[] = "{\"name\": \"pair\", \"seconds\": 0.4, \"quiet_seconds\": 1,"
                           " \"kernels\": {\"short\": {\"us\": 200, \"blocks\": 132, \"residency\": 2},"
                           "               \"long\": {\"us\": 2000, \"blocks\": 26400, \"residency\": 4, "
                           "\"saturation\": 2, \"cut\": true}},"
                           " \"programs\": {\"service\": {\"sequence\": [\"short\", \"short\"]}, \"batch\": "
                           "{\"sequence\": [\"long\"]}},"
                           " \"tenants\": [{\"name\": \"service\", \"class\": \"high\", \"quota\": 50, "
                           "\"slo_ms\": 20, \"program\": \"service\","
                           "                \"arrivals\": {\"poisson_per_s\": 200}},"
                           "               {\"name\": \"batch\", \"class\": \"best-effort\", \"quota\": 50, "
                           "\"program\": \"batch\"}]}";

/* --- random numbers --- */

static void test_random_numbers(void **state)
{
    (void)state;
    struct lithos_random r = {1};
    uint64_t sum = 0, over = 0;
    assert_true(lithos_random_next(&r) == 0x910a2dec89025cc1ull); /* splitmix64 of the published code */
    for (unsigned i = 0; i < 100000; i++) {
        const uint64_t x = lithos_random_exponential_ns(&r, 1000000);
        sum += x;
        over += x > 3000000;
    }
    assert_in_range(sum / 100000, 990000, 1010000);
    assert_in_range(over, 4700, 5300); /* e^-3 */
    for (unsigned i = 0; i < 1000; i++)
        assert_in_range(lithos_random_between(&r, 5, 9), 5, 9);
}

/* --- scenarios --- */

static void test_scenarios_are_read(void **state)
{
    (void)state;
    parse(pair);
    assert_string_equal(sc.name, "pair");
    assert_int_equal(sc.tenant_count, 2);
    assert_int_equal(sc.duration_ns, 400 * MS);
    assert_int_equal(sc.tenants[0].program.count, 2);
    assert_int_equal(sc.tenants[0].arrival, LITHOS_SIM_POISSON);
    assert_int_equal(sc.tenants[0].interval_ns, 5 * MS);
    assert_int_equal(sc.tenants[0].slo_ns, 20 * MS);
    assert_int_equal(sc.tenants[1].class, LITHOS_SCHED_BEST_EFFORT);
    assert_int_equal(sc.tenants[1].program.flags[0], LITHOS_SIM_CUTTABLE);
    /* as long as it says, with the card to itself */
    const struct lithos_wave_kernel *k = &sc.tenants[1].program.kernels[0];
    assert_in_range(lithos_wave_duration_ns(&sc.card, k, k->blocks, 0, 66), 1999 * US, 2001 * US);
    char error[LITHOS_SIM_ERROR_BYTES];
    assert_int_equal(lithos_sim_scenario_tune(&sc, "window_us=50", error), 0);
    assert_int_equal(sc.tuning.window_ns, 50 * US);
    assert_int_equal(lithos_sim_scenario_tune(&sc, "window=50", error), -EINVAL);
    assert_int_equal(lithos_sim_scenario_tune(&sc, "window_us=x", error), -EINVAL);
    assert_int_equal(lithos_sim_scenario_tune(&sc, "slip=0.5", error), -EINVAL);
}

static void test_wrong_scenarios_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to, *says;
    } rows[] = {
        {"\"name\": \"pair\"", "\"nom\": \"pair\"", "\"nom\""},
        {"\"long\"]", "\"lang\"]", "no kernel \"lang\""},
        {"\"program\": \"batch\"", "\"program\": \"bitch\"", "no program \"bitch\""},
        {"\"best-effort\"", "\"low\"", "\"class\" of batch"},
        {"\"us\": 200", "\"us\": -1", "\"us\""},
        {"\"blocks\": 132", "\"blocks\": 0", "\"blocks\""},
        {"\"quota\": 50,", "\"quota\": 150,", "\"quota\""},
        {"\"poisson_per_s\": 200", "\"poisson_per_s\": 200, \"every_us\": 5", "one kind"},
        {"\"seconds\": 0.4", "\"seconds\": \"x\"", "\"seconds\""},
        {"\"cut\": true", "\"cat\": true", "\"cat\""},
        {"\"quota\": 50,", "\"quota\": 50, \"pace\": {\"from\": 2, \"to\": 1},", "\"to\""},
        {"\"quota\": 50,", "\"quota\": 50, \"pace\": {\"every_ms\": 0},", "\"every_ms\""},
        {"{\"name\": \"pair\"", "[{\"name\": \"pair\"", "line"},
    };
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(rows); i++) {
        char text[sizeof pair + 64], error[LITHOS_SIM_ERROR_BYTES] = "";
        const char *at = strstr(pair, rows[i].from);
        assert_non_null(at);
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - pair), pair, rows[i].to,
                 at + strlen(rows[i].from));
        assert_int_equal(lithos_sim_scenario_parse(text, ".", CARDS, &sc, error), -EINVAL);
        if (!strstr(error, rows[i].says))
            fail_msg("%s: \"%s\" does not say \"%s\"", rows[i].to, error, rows[i].says);
        lithos_sim_scenario_free(&sc);
    }
}

static void test_quotas_must_fit(void **state)
{
    (void)state;
    char error[LITHOS_SIM_ERROR_BYTES] = "";
    struct lithos_sim_result r;
    const struct lithos_sim_options o = with("lithos");
    parse(pair);
    sc.tenants[1].quota = 6000;
    assert_int_equal(lithos_sim_run(&sc, &o, &r, error), -EINVAL);
    assert_non_null(strstr(error, "more than the card"));
    sc.tenants[0].quota = 0;
    assert_int_equal(lithos_sim_run(&sc, &o, &r, error), -EINVAL);
    assert_non_null(strstr(error, "needs a quota"));
}

static void trace_kernel(struct lithos_trace_writer *w, uint64_t tenant, uint64_t submit_us,
                         uint64_t start_us, uint64_t end_us, uint32_t grid)
{
    const struct lithos_trace_event e = {.kind = LITHOS_TRACE_KERNEL,
                                         .time_ns = submit_us * US,
                                         .kernel = {.tenant = tenant,
                                                    .pid = 1,
                                                    .stream = 5,
                                                    .function = "f",
                                                    .grid = {grid, 1, 1},
                                                    .block = {256, 1, 1},
                                                    .registers = 32,
                                                    .shared_bytes = 100000,
                                                    .tpcs = {{UINT64_MAX, UINT64_MAX}},
                                                    .start_ns = start_us * US,
                                                    .end_ns = end_us * US}};
    assert_int_equal(lithos_trace_writer_event(w, &e), 0);
}

static void test_programs_from_traces(void **state)
{
    (void)state;
    char path[] = "/tmp/lithos-test-sim-XXXXXX", error[LITHOS_SIM_ERROR_BYTES] = "";
    const int fd = mkstemp(path);
    struct lithos_trace_writer *w;
    struct lithos_sim_program p = {0};

    assert_true(fd >= 0);
    parse(pair);
    assert_int_equal(lithos_trace_writer_new(fd, NULL, &w), 0);
    const struct lithos_trace_event names[] = {
        {.kind = LITHOS_TRACE_TENANT, .time_ns = 1, .tenant = {1, 1, "one"}},
        {.kind = LITHOS_TRACE_TENANT, .time_ns = 1, .tenant = {2, 2, "two"}}};
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(lithos_trace_writer_event(w, &names[i]), 0);
    trace_kernel(w, 1, 100, 106, 206, 264);
    trace_kernel(w, 2, 100, 106, 206, 5);
    trace_kernel(w, 1, 104, 206, 1206, 10000);
    const struct lithos_trace_event sync = {
        .kind = LITHOS_TRACE_SYNC, .time_ns = 1210 * US, .sync = {.tenant = 1, .pid = 1, .stream = 5}};
    assert_int_equal(lithos_trace_writer_event(w, &sync), 0);
    trace_kernel(w, 1, 1300, 1306, 1406, 132);
    assert_int_equal(lithos_trace_writer_free(w), 0);
    close(fd);

    assert_int_equal(lithos_sim_program_from_trace(&p, &sc.card, path, "one", 100, NULL, 0, error), 0);
    assert_int_equal(p.count, 3);
    /* two blocks of 100 kB an SM: one wave of 264, and 38 of 10000 that can be cut */
    assert_int_equal(p.kernels[0].residency, 2);
    assert_int_equal(p.flags[0], 0);
    assert_int_equal(p.flags[1], LITHOS_SIM_CUTTABLE);
    assert_int_equal(p.flags[2], LITHOS_SIM_SYNC);
    assert_int_equal(p.gaps_ns[1], 4 * US);
    assert_int_equal(p.gaps_ns[2], 94 * US); /* since the end of what it waited for */
    assert_int_equal(p.alone_ns, 1200 * US);
    assert_in_range(lithos_wave_duration_ns(&sc.card, &p.kernels[1], 10000, 0, 66), 995 * US, 1005 * US);
    /* and replayed, it takes as long as it took */
    lithos_sim_scenario_free(&sc);
    parse(pair);
    free(sc.tenants[0].program.kernels);
    free(sc.tenants[0].program.flags);
    sc.tenants[0].program = p;
    struct lithos_sim_options o = with("mps");
    o.only = 0;
    struct lithos_sim_result r = run(&o);
    assert_true(r.tenants[0].done > 50);
    assert_in_range((uint64_t)r.tenants[0].p50_us, 1290, 1330);
    lithos_sim_result_free(&r);

    p = (struct lithos_sim_program){0};
    assert_int_equal(lithos_sim_program_from_trace(&p, &sc.card, path, "three", 100, NULL, 0, error),
                     -EINVAL);
    assert_int_equal(lithos_sim_program_from_trace(&p, &sc.card, "/nowhere", NULL, 100, NULL, 0, error),
                     -ENOENT);
    unlink(path);
}

/* --- runs --- */

static void test_same_seed_same_trace(void **state)
{
    (void)state;
    uint64_t hash[2];
    const struct lithos_policy *p;
    for (size_t n = 0; (p = lithos_policy_at(n)); n++) {
        for (unsigned i = 0; i < 2; i++) {
            parse(pair);
            sc.quiet_ns = 0;
            struct lithos_sim_options o = with(p->name);
            o.check = i; /* looking changes nothing */
            struct lithos_sim_result r = run(&o);
            hash[i] = r.hash;
            lithos_sim_result_free(&r);
            lithos_sim_scenario_free(&sc);
        }
        assert_true(hash[0] == hash[1]);
        parse(pair);
        sc.quiet_ns = 0;
        struct lithos_sim_options o = with(p->name);
        o.seed = 8;
        struct lithos_sim_result r = run(&o);
        assert_true(hash[0] != r.hash);
        lithos_sim_result_free(&r);
        lithos_sim_scenario_free(&sc);
    }
}

static void test_a_request_alone_takes_its_time(void **state)
{
    (void)state;
    parse(pair);
    sc.tenants[0].jitter_ppm = 0;
    sc.tenants[0].arrival = LITHOS_SIM_PERIODIC;
    struct lithos_sim_options o = with("mps");
    o.only = 0;
    struct lithos_sim_result r = run(&o);
    /* two kernels of 200 us, the way there and back, and what the second takes after the first */
    const double expected = (double)(400 * US + sc.card.launch_ns + 2 * sc.card.complete_ns) / 1000;
    assert_float_equal(r.tenants[0].p50_us, expected, 0.01);
    assert_float_equal(r.tenants[0].max_us, expected, 0.01);
    assert_int_equal(r.tenants[0].requests, 72); /* from 40 to 395 ms, one each 5 */
    assert_int_equal(r.tenants[0].in_slo, 72);
    assert_int_equal(r.tenants[0].kernels, 158);
    assert_int_equal(r.tenants[1].kernels, 0);
    lithos_sim_result_free(&r);
}

/* An app that takes half of its time for its own work, or up to twice as long, and another part each 50 ms. */
static void test_an_app_has_a_pace(void **state)
{
    static const double gap_us = 1000;
    double least_us = 0, p50_us = 0, most_us = 0;

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        parse(pair);
        sc.tenants[0].jitter_ppm = 0;
        sc.tenants[0].arrival = LITHOS_SIM_PERIODIC;
        sc.tenants[0].launch_ns = 1000 * US;
        struct lithos_sim_options o = with("mps");
        o.only = 0;
        if (i) {
            sc.tenants[0].pace_from_ppm = LITHOS_WAVE_PPM / 2;
            sc.tenants[0].pace_to_ppm = 2 * LITHOS_WAVE_PPM;
            sc.tenants[0].pace_ns = 50 * MS;
        }
        struct lithos_sim_result r = run(&o);
        assert_int_equal(r.tenants[0].requests, 72);
        if (i) {
            p50_us = r.tenants[0].p50_us;
            most_us = r.tenants[0].max_us;
        } else {
            least_us = r.tenants[0].p50_us;
            assert_float_equal(r.tenants[0].max_us, least_us, 0.01);
        }
        lithos_sim_result_free(&r);
        lithos_sim_scenario_free(&sc);
    }
    parse(pair);
    assert_true(p50_us > least_us - gap_us / 2 - 1 && p50_us != least_us);
    assert_true(most_us > least_us && most_us < least_us + gap_us + 1);
}

static void test_what_lending_gives(void **state)
{
    (void)state;
    double kept[2];
    const char *const policies[2] = {"partition", "lithos"};
    for (unsigned i = 0; i < 2; i++) {
        parse(pair);
        sc.duration_ns = 2000 * MS;
        const struct lithos_sim_options o = with(policies[i]);
        struct lithos_sim_result r = run(&o);
        kept[i] = r.tenants[1].per_s;
        for (unsigned c = 0; c < LITHOS_CHECK_RULE_MAX; c++)
            assert_int_equal(r.check.fired[c], 0);
        assert_true(r.check.checks > 1000);
        assert_int_equal(r.tenants[0].in_slo, r.tenants[0].requests);
        lithos_sim_result_free(&r);
        lithos_sim_scenario_free(&sc);
    }
    assert_true(kept[1] > 1.6 * kept[0]);
}

static void test_reports(void **state)
{
    (void)state;
    char *text = NULL;
    size_t len = 0;
    parse(pair);
    struct lithos_sim_options o = with("lithos");
    o.span_from_ns = 100 * MS;
    o.span_to_ns = 110 * MS;
    struct lithos_sim_result r = run(&o);
    const struct lithos_sim_alone alone[2] = {{200, 410, 420}, {500, 2000, 2000}};

    FILE *out = open_memstream(&text, &len);
    lithos_sim_report_text(out, &sc, o.policy, &r, alone);
    fclose(out);
    assert_non_null(strstr(text, "service"));
    assert_non_null(strstr(text, "best-effort"));
    assert_null(strstr(text, "CHECK FAILED"));
    free(text);

    json_t *j = lithos_sim_report_json(&sc, o.policy, o.seed, &r, alone);
    assert_string_equal(json_string_value(json_object_get(j, "policy")), "lithos");
    const json_t *batch = json_array_get(json_object_get(j, "tenants"), 1);
    assert_string_equal(json_string_value(json_object_get(batch, "name")), "batch");
    assert_float_equal(json_real_value(json_object_get(batch, "kept_percent")), r.tenants[1].per_s / 5, 1e-9);
    assert_true(json_is_object(json_object_get(batch, "explain")));
    json_decref(j);

    out = open_memstream(&text, &len);
    assert_int_equal(lithos_sim_report_svg(out, &sc, &o, &r), 0);
    fclose(out);
    assert_non_null(strstr(text, "<svg "));
    assert_non_null(strstr(text, "</svg>"));
    assert_non_null(strstr(text, "<polyline"));
    assert_true(r.span_count > 20);
    free(text);
    lithos_sim_result_free(&r);
}

static void test_a_small_swarm(void **state)
{
    (void)state;
    struct lithos_card card;
    char error[LITHOS_MODEL_ERROR_BYTES];
    struct lithos_sim_swarm_result all, odd, even;
    assert_int_equal(lithos_card_load(CARDS "/h200.json", &card, error), 0);
    struct lithos_sim_swarm swarm = {.card = &card, .first = 500, .count = 40, .step = 1};
    assert_int_equal(lithos_sim_swarm_run(&swarm, &all), 0);
    assert_int_equal(all.seeds, 40);
    assert_int_equal(all.failed, 0);
    assert_true(all.kernels > 5000);
    /* it does not matter who runs which seed */
    swarm.step = 2;
    swarm.count = 20;
    assert_int_equal(lithos_sim_swarm_run(&swarm, &even), 0);
    swarm.first = 501;
    assert_int_equal(lithos_sim_swarm_run(&swarm, &odd), 0);
    assert_true(all.hash == odd.hash + even.hash);
}

/* --- the checkers do fire: the scheduler, or its tenants, are broken on purpose --- */

typedef void breakage(const struct lithos_sched *s, const struct sched_tenant *t, struct lithos_tpcgrant *g);

static void plan_broken(struct lithos_sched *s, breakage *how)
{
    struct sched_tenant *t;
    sched_lend(s);
    sched_each(s, t)
    {
        struct lithos_tpcgrant g = t->grant;
        how(s, t, &g);
        sched_publish(s, t, &g);
    }
}

/* The owner's TPCs to its neighbour, whatever the owner does, and before the owner's own work. */
static void lends_always(const struct lithos_sched *s, const struct sched_tenant *t,
                         struct lithos_tpcgrant *g)
{
    if (!sched_is_best_effort(t))
        return;
    g->part_count = 1;
    g->parts[0].tpcs = s->tenants[0].desc.own;
    g->parts[0].longest_ns = LITHOS_TPCGRANT_FOREVER;
    g->priority = g->lent_priority = -9;
}

static void lends_twice(const struct lithos_sched *s, const struct sched_tenant *t, struct lithos_tpcgrant *g)
{
    (void)t;
    g->part_count = 1;
    g->parts[0].tpcs = s->unowned;
    g->parts[0].longest_ns = LITHOS_TPCGRANT_FOREVER;
}

static void keeps_a_tpc(const struct lithos_sched *s, const struct sched_tenant *t, struct lithos_tpcgrant *g)
{
    (void)s;
    if (!sched_is_best_effort(t))
        lithos_tpcset_remove(&g->own, lithos_tpcset_next(&g->own, 0));
}

static void not_a_grant(const struct lithos_sched *s, const struct sched_tenant *t, struct lithos_tpcgrant *g)
{
    (void)s;
    (void)t;
    g->flags = 1u << 31;
}

static void never_lends(const struct lithos_sched *s, const struct sched_tenant *t, struct lithos_tpcgrant *g)
{
    (void)s;
    (void)t;
    g->part_count = 0;
}

#define BROKEN(how)                                    \
    static void plan_##how(struct lithos_sched *s)     \
    {                                                  \
        plan_broken(s, how);                           \
    }                                                  \
    static const struct lithos_policy policy_##how = { \
        .name = #how, .what = "broken", .needs = LITHOS_NEED_SPACE, .exclusive = true, .plan = plan_##how}

BROKEN(lends_always);
BROKEN(lends_twice);
BROKEN(keeps_a_tpc);
BROKEN(not_a_grant);
BROKEN(never_lends);

static struct lithos_sim_result broken(const struct lithos_policy *policy, uint32_t be_quota,
                                       uint32_t sabotage)
{
    parse(pair);
    sc.tenants[1].quota = be_quota;
    sc.tenants[0].quota = 4000;
    sc.duration_ns = 1500 * MS;
    const struct lithos_sim_options o = {
        .policy = policy, .seed = 3, .only = UINT32_MAX, .check = true, .sabotage = sabotage};
    return run(&o);
}

static void assert_fires(const struct lithos_policy *policy, uint32_t be_quota, uint32_t sabotage,
                         enum lithos_check_rule rule)
{
    struct lithos_sim_result r = broken(policy, be_quota, sabotage);
    if (!r.check.fired[rule])
        fail_msg("%s does not fire; first: %s", lithos_check_rule_name(rule), r.check.first);
    assert_true(strlen(r.check.first) > 0);
    lithos_sim_result_free(&r);
    lithos_sim_scenario_free(&sc);
}

static void test_checkers_fire(void **state)
{
    (void)state;
    const struct lithos_policy *good = lithos_policy_find("lithos");
    struct lithos_sim_result r = broken(good, 3000, 0);
    for (unsigned i = 0; i < LITHOS_CHECK_RULE_MAX; i++)
        assert_int_equal(r.check.fired[i], 0);
    lithos_sim_result_free(&r);
    lithos_sim_scenario_free(&sc);

    assert_fires(&policy_lends_always, 3000, 0, LITHOS_CHECK_LATE_LOAN);
    assert_fires(&policy_lends_always, 0, 0, LITHOS_CHECK_OWNER_WAIT);
    assert_fires(&policy_lends_twice, 3000, 0, LITHOS_CHECK_TWO_OWNERS);
    assert_fires(&policy_keeps_a_tpc, 3000, 0, LITHOS_CHECK_OWN_QUOTA);
    assert_fires(&policy_not_a_grant, 3000, 0, LITHOS_CHECK_GRANT);
    assert_fires(&policy_never_lends, 0, 0, LITHOS_CHECK_CONSERVED);
    assert_fires(&policy_never_lends, 0, 0, LITHOS_CHECK_STARVED);
    assert_fires(&policy_never_lends, 0, 0, LITHOS_CHECK_PROGRESS);
    assert_fires(good, 3000, LITHOS_SIM_SKIP_BLOCKS, LITHOS_CHECK_ONCE);
    assert_fires(good, 3000, LITHOS_SIM_CHAIN_KERNELS, LITHOS_CHECK_ORDER);
}

/* A mask that the card has not: whoever would send it out hangs. */
static void no_such_tpc(void *ctx, uint32_t tenant, struct lithos_tpcchoice *c)
{
    (void)ctx;
    if (tenant == 1)
        c->tpcs = (struct lithos_tpcset){{1ull << 5, 0}};
}

static void test_a_hang_is_told(void **state)
{
    (void)state;
    parse(pair);
    struct lithos_sim_options o = with("lithos");
    o.meddle = no_such_tpc;
    struct lithos_sim_result r = run(&o);
    assert_true(r.check.fired[LITHOS_CHECK_HANG] > 0);
    assert_non_null(strstr(r.check.first, "batch"));
    lithos_sim_result_free(&r);
}

int main(void)
{
#define T(f) cmocka_unit_test_teardown(f, free_scenario)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_numbers),
        T(test_scenarios_are_read),
        cmocka_unit_test(test_wrong_scenarios_are_named),
        T(test_quotas_must_fit),
        T(test_programs_from_traces),
        T(test_same_seed_same_trace),
        T(test_a_request_alone_takes_its_time),
        T(test_an_app_has_a_pace),
        cmocka_unit_test(test_what_lending_gives),
        T(test_reports),
        cmocka_unit_test(test_a_small_swarm),
        cmocka_unit_test(test_checkers_fire),
        T(test_a_hang_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
