/* lithos sim: the scheduler over a card in software, in virtual time. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/util.h"
#include "cli/commands.h"
#include "cli/sim.h"
#include "sim/report.h"

static const char help[] =
    "usage: lithos sim [options] [SCENARIO]\n"
    "       lithos sim --swarm N [--seed FIRST] [--jobs J] [--policy P] [--card CARD] [--slip X]\n"
    "Runs a scenario (a name below share/lithos/scenarios, or a file) in virtual time; hybrid unless another "
    "is named.\n"
    "  --policy P,...     policies to run, or all (default lithos)\n"
    "  --seed N           of arrivals and variations (default 1)\n"
    "  --seconds S        of the scenario's time, instead of its own\n"
    "  --set KEY=VALUE    change a number of the scenario's \"tuning\"; may be repeated\n"
    "  --slip X           right-size high-priority tenants: their kernels may take X of their time on all "
    "their "
    "TPCs\n"
    "  --power MODE       set the card's clock: off, formula (paper 5.6) or slo (by measured latency); "
    "default off\n"
    "  --power-slip X     how much slower tenants without an SLO may be for it (default 1.1)\n"
    "  --json             everything as JSON\n"
    "  --svg FILE         a picture of the first policy's run, from --from MS for --span MS (default: 10 ms "
    "after the\n"
    "                     warm-up)\n"
    "  --no-alone         leave out running each tenant alone to compare with\n"
    "  --no-check         leave out the checkers\n"
    "  --list             scenarios and policies\n"
    "  --swarm N          N random scenarios with faults and checkers instead, from seed FIRST on, by J "
    "processes\n"
    "  --card CARD        for --swarm: a card below share/lithos/cards, or a file (default h200)\n";

struct settings {
    struct lithos_sim_command c;
    const char *scenario, *policies, *svg;
    double seconds, from_ms, span_ms, slip, power_slip;
    enum lithos_sim_governor governor;
    const char *tuning[32];
    unsigned tuning_count;
    bool json, alone, check;
};

int lithos_sim_share(const char *kind, const char *name, char path[LITHOS_SIM_PATH_BYTES])
{
    char dir[LITHOS_SIM_PATH_BYTES / 2];

    if (name && (strchr(name, '/') || (strlen(name) > 5 && !strcmp(name + strlen(name) - 5, ".json")))) {
        snprintf(path, LITHOS_SIM_PATH_BYTES, "%s", name);
        return 0;
    }
    const int r = lithos_program_dir(dir, sizeof dir);
    if (r < 0)
        return r;
    if (name)
        snprintf(path, LITHOS_SIM_PATH_BYTES, "%s/../share/lithos/%s/%s.json", dir, kind, name);
    else
        snprintf(path, LITHOS_SIM_PATH_BYTES, "%s/../share/lithos/%s", dir, kind);
    return 0;
}

/* --- what to run --- */

static bool read_number(const char *text, double least, double most, double *ret)
{
    char *end;

    *ret = strtod(text, &end);
    return end != text && !*end && *ret >= least && *ret <= most;
}

static bool read_count(const char *text, uint64_t least, uint64_t most, uint64_t *ret)
{
    char *end;

    errno = 0;
    *ret = strtoull(text, &end, 10);
    return end != text && !*end && *text != '-' && !errno && *ret >= least && *ret <= most;
}

static bool read_power(const char *text, enum lithos_sim_governor *ret)
{
    static const char *const names[] = {"off", "formula", "slo"};

    for (unsigned i = 0; i < LITHOS_ARRAY_SIZE(names); i++) {
        if (!strcmp(text, names[i])) {
            *ret = i;
            return true;
        }
    }
    return false;
}

static int list(void)
{
    const struct lithos_policy *p;
    char dir[LITHOS_SIM_PATH_BYTES];

    puts("policies:");
    for (size_t n = 0; (p = lithos_policy_at(n)); n++)
        printf("  %-10s %s\n", p->name, p->what);
    if (lithos_sim_share("scenarios", NULL, dir) == 0)
        printf("scenarios: the files of %s\n", dir);
    return LITHOS_EXIT_OK;
}

static bool take_option(struct settings *s, int c)
{
    uint64_t n;

    switch (c) {
    case 'p':
        s->policies = optarg;
        return true;
    case 's':
        return read_count(optarg, 0, UINT64_MAX, &s->c.seed);
    case 'S':
        return read_number(optarg, 0.001, 86400, &s->seconds);
    case 'f':
        return read_number(optarg, 0, 86400e3, &s->from_ms);
    case 'w':
        return read_number(optarg, 0.001, 86400e3, &s->span_ms);
    case 't':
        if (s->tuning_count == LITHOS_ARRAY_SIZE(s->tuning))
            return false;
        s->tuning[s->tuning_count++] = optarg;
        return true;
    case 'P':
        return read_power(optarg, &s->governor);
    case 'q':
        return read_number(optarg, 1, 100, &s->power_slip);
    case 'z':
        return read_number(optarg, 1, 100, &s->slip);
    case 'v':
        s->svg = optarg;
        return true;
    case 'n':
        return read_count(optarg, 1, 1ull << 40, &s->c.swarm);
    case 'j':
        if (!read_count(optarg, 1, 256, &n))
            return false;
        s->c.jobs = (unsigned)n;
        return true;
    case 'c':
        s->c.card = optarg;
        return true;
    default:
        return false;
    }
}

/* Exit code, or -1 to go on. */
static int parse(int argc, char **argv, struct settings *s)
{
    static const struct option options[] = {{"policy", 1, 0, 'p'},
                                            {"seed", 1, 0, 's'},
                                            {"seconds", 1, 0, 'S'},
                                            {"set", 1, 0, 't'},
                                            {"json", 0, 0, 'J'},
                                            {"svg", 1, 0, 'v'},
                                            {"from", 1, 0, 'f'},
                                            {"span", 1, 0, 'w'},
                                            {"swarm", 1, 0, 'n'},
                                            {"jobs", 1, 0, 'j'},
                                            {"card", 1, 0, 'c'},
                                            {"no-alone", 0, 0, 'A'},
                                            {"slip", 1, 0, 'z'},
                                            {"power", 1, 0, 'P'},
                                            {"power-slip", 1, 0, 'q'},
                                            {"list", 0, 0, 'l'},
                                            {"no-check", 0, 0, 'C'},
                                            {"help", 0, 0, 'h'},
                                            {0}};
    int c;

    while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (c == 'h')
            return lithos_help(help);
        if (c == 'l')
            return list();
        if (c == 'J' || c == 'A' || c == 'C') {
            s->json |= c == 'J';
            s->alone &= c != 'A';
            s->check &= c != 'C';
        } else if (c == '?') {
            return lithos_usage("sim");
        } else if (!take_option(s, c)) {
            lithos_error("sim: \"%s\" is not understood or out of range", optarg);
            return lithos_usage("sim");
        }
    }
    if (optind < argc)
        s->scenario = argv[optind++];
    if (optind < argc) {
        lithos_error("sim: takes one scenario");
        return lithos_usage("sim");
    }
    return -1;
}

/* --- runs --- */

static int run_alone(const struct lithos_sim_scenario *sc, uint64_t seed, struct lithos_sim_alone *alone)
{
    char error[LITHOS_SIM_ERROR_BYTES] = "no memory";
    struct lithos_sim_result r;

    for (uint32_t i = 0; i < sc->tenant_count; i++) {
        const struct lithos_sim_options options = {
            .policy = lithos_policy_find("mps"), .seed = seed, .only = i};
        const int e = lithos_sim_run(sc, &options, &r, error);
        if (e < 0) {
            lithos_error("sim: %s: %s", sc->name, error);
            return e;
        }
        const struct lithos_sim_tenant_result *t = &r.tenants[i];
        alone[i] = (struct lithos_sim_alone){t->per_s, t->p50_us, t->p99_us};
        lithos_sim_result_free(&r);
    }
    return 0;
}

static int write_svg(const struct settings *s, const struct lithos_sim_scenario *sc,
                     const struct lithos_sim_options *options, const struct lithos_sim_result *r)
{
    FILE *out = fopen(s->svg, "we");
    int e = out ? lithos_sim_report_svg(out, sc, options, r) : -errno;

    if (out && fclose(out) != 0 && e == 0)
        e = -errno;
    if (e < 0)
        lithos_error("sim: %s cannot be written: %s", s->svg, strerror(-e));
    return e;
}

static bool right_sizes(const struct lithos_sim_scenario *sc)
{
    for (uint32_t i = 0; i < sc->tenant_count; i++)
        if (sc->tenants[i].rightsize_ppm)
            return true;
    return false;
}

/* What right-sizing did: the same run without it, to compare with. */
static int report_sized(const struct lithos_sim_scenario *sc, struct lithos_sim_options options,
                        const struct lithos_sim_result *r, json_t *out)
{
    char error[LITHOS_SIM_ERROR_BYTES] = "no memory";
    struct lithos_sim_result whole;

    options.whole = true;
    options.span_to_ns = 0;
    const int e = lithos_sim_run(sc, &options, &whole, error);
    if (e < 0) {
        lithos_error("sim: %s: %s", sc->name, error);
        return e;
    }
    if (out)
        json_object_set_new(json_array_get(out, json_array_size(out) - 1), "rightsized",
                            lithos_sim_report_sized_json(sc, r, &whole));
    else
        lithos_sim_report_sized_text(stdout, sc, r, &whole);
    lithos_sim_result_free(&whole);
    return 0;
}

/* The same run at the highest clock, to compare with. */
static int report_power(const struct lithos_sim_scenario *sc, struct lithos_sim_options options,
                        const struct lithos_sim_result *r, json_t *out)
{
    char error[LITHOS_SIM_ERROR_BYTES] = "no memory";
    struct lithos_sim_result top;

    options.governor = LITHOS_SIM_GOVERNOR_OFF;
    options.span_to_ns = 0;
    const int e = lithos_sim_run(sc, &options, &top, error);
    if (e < 0) {
        lithos_error("sim: %s: %s", sc->name, error);
        return e;
    }
    if (out)
        json_object_set_new(json_array_get(out, json_array_size(out) - 1), "power",
                            lithos_sim_report_power_json(sc, r, &top));
    else
        lithos_sim_report_power_text(stdout, sc, r, &top);
    lithos_sim_result_free(&top);
    return 0;
}

static int run_policy(const struct settings *s, const struct lithos_sim_scenario *sc,
                      const struct lithos_policy *policy, const struct lithos_sim_alone *alone, bool picture,
                      json_t *out, bool *ret_failed)
{
    struct lithos_sim_options options = {.policy = policy,
                                         .seed = s->c.seed,
                                         .only = UINT32_MAX,
                                         .check = s->check,
                                         .governor = s->governor,
                                         .governor_slip_ppm =
                                             (uint32_t)(s->power_slip * LITHOS_SCHED_PPM + 0.5)};
    char error[LITHOS_SIM_ERROR_BYTES] = "no memory";
    struct lithos_sim_result r;

    if (picture) {
        options.span_from_ns = s->from_ms < 0 ? sc->warm_ns : (uint64_t)(s->from_ms * 1e6);
        options.span_to_ns = options.span_from_ns + (uint64_t)(s->span_ms * 1e6);
    }
    int e = lithos_sim_run(sc, &options, &r, error);
    if (e < 0) {
        lithos_error("sim: %s: %s", sc->name, error);
        return e;
    }
    if (out)
        json_array_append_new(out, lithos_sim_report_json(sc, policy, s->c.seed, &r, alone));
    else
        lithos_sim_report_text(stdout, sc, policy, &r, alone);
    if (right_sizes(sc))
        e = report_sized(sc, options, &r, out);
    if (s->governor && e == 0)
        e = report_power(sc, options, &r, out);
    for (unsigned i = 0; i < LITHOS_CHECK_RULE_MAX; i++)
        *ret_failed |= policy->exclusive && r.check.fired[i];
    if (picture && e == 0)
        e = write_svg(s, sc, &options, &r);
    lithos_sim_result_free(&r);
    return e;
}

/* Each policy named, or all. */
static int run_policies(const struct settings *s, const struct lithos_sim_scenario *sc,
                        const struct lithos_sim_alone *alone, json_t *out, bool *ret_failed)
{
    const bool all = !strcmp(s->policies, "all");
    char names[512], *rest = names;
    int e = 0;

    snprintf(names, sizeof names, "%s", s->policies);
    for (size_t n = 0; e == 0; n++) {
        const char *name = all ? NULL : strsep(&rest, ",");
        const struct lithos_policy *p = all ? lithos_policy_at(n) : name ? lithos_policy_find(name) : NULL;
        if (!p && !name)
            break;
        if (!p) {
            lithos_error("sim: there is no policy \"%s\"; `lithos sim --list' names them", name);
            return -EINVAL;
        }
        e = run_policy(s, sc, p, alone, s->svg && n == 0, out, ret_failed);
    }
    return e;
}

static int tune(const struct settings *s, struct lithos_sim_scenario *sc)
{
    char error[LITHOS_SIM_ERROR_BYTES];

    for (unsigned i = 0; i < s->tuning_count; i++) {
        if (lithos_sim_scenario_tune(sc, s->tuning[i], error) < 0) {
            lithos_error("sim: --set %s: %s", s->tuning[i], error);
            return -EINVAL;
        }
    }
    for (uint32_t i = 0; i < sc->tenant_count && s->slip > 0; i++)
        if (sc->tenants[i].class == LITHOS_SCHED_HIGH)
            sc->tenants[i].rightsize_ppm = (uint32_t)(s->slip * LITHOS_SCHED_PPM + 0.5);
    if (s->seconds > 0) {
        sc->warm_ns = (uint64_t)((double)sc->warm_ns * s->seconds * 1e9 / (double)sc->duration_ns);
        sc->duration_ns = (uint64_t)(s->seconds * 1e9);
    }
    return 0;
}

static int run_scenario(const struct settings *s, struct lithos_sim_scenario *sc)
{
    char path[LITHOS_SIM_PATH_BYTES], cards[LITHOS_SIM_PATH_BYTES], error[LITHOS_SIM_ERROR_BYTES];
    struct lithos_sim_alone alone[LITHOS_SIM_TENANTS_MAX];
    bool failed = false;

    if (lithos_sim_share("scenarios", s->scenario, path) < 0 || lithos_sim_share("cards", NULL, cards) < 0)
        return LITHOS_EXIT_FAILED;
    if (lithos_sim_scenario_load(path, cards, sc, error) < 0) {
        lithos_error("sim: %s: %s", s->scenario, error);
        return LITHOS_EXIT_USAGE;
    }
    if (tune(s, sc) < 0)
        return LITHOS_EXIT_USAGE;
    if (s->alone && run_alone(sc, s->c.seed, alone) < 0)
        return LITHOS_EXIT_FAILED;
    json_t *out = s->json ? json_array() : NULL;
    const int e = run_policies(s, sc, s->alone ? alone : NULL, out, &failed);
    if (out) {
        json_dumpf(out, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
        putchar('\n');
        json_decref(out);
    }
    if (e == -EINVAL)
        return LITHOS_EXIT_USAGE;
    return e < 0 || failed || fflush(stdout) != 0 ? LITHOS_EXIT_FAILED : LITHOS_EXIT_OK;
}

int lithos_cmd_sim(int argc, char **argv)
{
    struct settings s = {.c = {.seed = 1, .jobs = 1, .card = "h200"},
                         .scenario = "hybrid",
                         .policies = "lithos",
                         .from_ms = -1,
                         .span_ms = 10,
                         .alone = true,
                         .check = true};
    int code = parse(argc, argv, &s);

    if (code >= 0)
        return code;
    if (s.c.swarm) {
        s.c.policy = strcmp(s.policies, "lithos") ? s.policies : NULL;
        s.c.slip_ppm = (uint32_t)(s.slip * LITHOS_SCHED_PPM + 0.5);
        return lithos_sim_swarm(&s.c);
    }
    struct lithos_sim_scenario *sc = calloc(1, sizeof *sc);
    if (!sc)
        return LITHOS_EXIT_FAILED;
    code = run_scenario(&s, sc);
    lithos_sim_scenario_free(sc);
    free(sc);
    return code;
}
