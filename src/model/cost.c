#include "model/cost.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "model/json.h"

#define NAME_BYTES 128u
#define POINTS_MAX 16u
#define NO_PARAM UINT32_MAX
#define LONGEST_BLOCK_NS 1e15 /* eleven days: beyond it is a mistake */

struct rule {
    char name[NAME_BYTES]; /* "" for the default */
    double base_ns, ns_per_param;
    uint32_t param;  /* index, or NO_PARAM */
    uint32_t points; /* > 0: time by linear interpolation of param, in place of base_ns and ns_per_param */
    double at[POINTS_MAX], ns[POINTS_MAX];
    double share, spread, stagger, clock;
    uint32_t share_threads; /* threads a block that `share` is for; 0: of any block */
    uint32_t group;
};

struct lithos_costs {
    struct rule fallback;
    struct rule *rules;
    size_t count;
};

int lithos_costs_create(struct lithos_costs **ret_costs)
{
    struct lithos_costs *costs = calloc(1, sizeof *costs);
    if (!costs)
        return -ENOMEM;
    costs->fallback = (struct rule){
        .base_ns = 5000,
        .param = NO_PARAM,
        .share = 0.25,
        .share_threads = 128,
        .clock = 1,
        .group = 4,
    };
    *ret_costs = costs;
    return 0;
}

void lithos_costs_free(struct lithos_costs *costs)
{
    if (!costs)
        return;
    free(costs->rules);
    free(costs);
}

static int read_number(const json_t *o, const char *key, double low, double high, double *value, char *error)
{
    const json_t *v = json_object_get(o, key);
    if (!v)
        return 0;
    double d = json_number_value(v);
    if (!json_is_number(v) || !(d >= low && d <= high))
        return lithos_model_fail(error, "\"%s\" is not a number from %g to %g", key, low, high);
    *value = d;
    return 0;
}

static int read_count(const json_t *o, const char *key, uint32_t low, uint32_t high, uint32_t *value,
                      char *error)
{
    const json_t *v = json_object_get(o, key);
    if (!v)
        return 0;
    if (!json_is_integer(v) || json_integer_value(v) < low || json_integer_value(v) > high)
        return lithos_model_fail(error, "\"%s\" is not a whole number from %u to %u", key, low, high);
    *value = (uint32_t)json_integer_value(v);
    return 0;
}

static int read_points(const json_t *o, struct rule *rule, char *error)
{
    const json_t *points = json_object_get(o, "points");
    if (!points)
        return 0;
    size_t n = json_array_size(points);
    if (!n || n > POINTS_MAX)
        return lithos_model_fail(error, "\"points\" is not an array of 1 to %u pairs", POINTS_MAX);
    for (size_t i = 0; i < n; i++) {
        const json_t *p = json_array_get(points, i), *x = json_array_get(p, 0), *y = json_array_get(p, 1);
        double at = json_number_value(x), ns = json_number_value(y);
        if (json_array_size(p) != 2 || !json_is_number(x) || !json_is_number(y) ||
            !(ns >= 0 && ns <= LONGEST_BLOCK_NS))
            return lithos_model_fail(error, "point %zu is not a pair [value, ns]", i);
        if (i && at <= rule->at[i - 1])
            return lithos_model_fail(error, "the values of \"points\" do not rise");
        rule->at[i] = at;
        rule->ns[i] = ns;
    }
    rule->points = (uint32_t)n;
    return 0;
}

static int read_rule(const json_t *o, struct rule *rule, char *error)
{
    static const char *const known[] = {"base_ns", "param",         "ns_per_param", "points",
                                        "share",   "share_threads", "spread",       "stagger",
                                        "group",   "comment",       "clock"};
    if (!json_is_object(o))
        return lithos_model_fail(error, "not an object");
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)o, key, value)
    {
        size_t i = 0;
        while (i < LITHOS_ARRAY_SIZE(known) && strcmp(key, known[i]) != 0)
            i++;
        if (i == LITHOS_ARRAY_SIZE(known))
            return lithos_model_fail(error, "unknown key \"%.60s\"", key);
    }
    int r = read_number(o, "base_ns", 0, LONGEST_BLOCK_NS, &rule->base_ns, error);
    if (r >= 0)
        r = read_count(o, "param", 0, 7, &rule->param, error);
    if (r >= 0)
        r = read_number(o, "ns_per_param", 0, 1e9, &rule->ns_per_param, error);
    if (r >= 0)
        r = read_points(o, rule, error);
    if (r >= 0)
        r = read_number(o, "share", 0.0001, 1, &rule->share, error);
    if (r >= 0)
        r = read_count(o, "share_threads", 0, 65536, &rule->share_threads, error);
    if (r >= 0)
        r = read_number(o, "spread", 0, 1, &rule->spread, error);
    if (r >= 0)
        r = read_number(o, "stagger", 0, 1, &rule->stagger, error);
    if (r >= 0)
        r = read_number(o, "clock", 0, 1, &rule->clock, error);
    if (r >= 0)
        r = read_count(o, "group", 1, 32, &rule->group, error);
    if (r < 0)
        return r;
    if ((rule->points || rule->ns_per_param > 0) && rule->param == NO_PARAM)
        return lithos_model_fail(error, "\"points\" or \"ns_per_param\" without \"param\"");
    return 0;
}

static struct rule *find(const struct lithos_costs *costs, const char *name)
{
    for (size_t i = 0; i < costs->count; i++) {
        if (strcmp(costs->rules[i].name, name) == 0)
            return &costs->rules[i];
    }
    return NULL;
}

/* What is read goes into a copy, so that a bad file leaves the rules as they were. */
static int merge(struct lithos_costs *next, const json_t *root, char *error)
{
    char why[LITHOS_MODEL_ERROR_BYTES];
    const json_t *fallback = json_object_get(root, "default");
    if (fallback && read_rule(fallback, &next->fallback, why) < 0)
        return lithos_model_fail(error, "default: %.200s", why);
    json_t *kernels = json_object_get(root, "kernels");
    if (kernels && !json_is_object(kernels))
        return lithos_model_fail(error, "\"kernels\" is not an object of name: rule");
    const char *name;
    json_t *value;
    json_object_foreach(kernels, name, value)
    {
        if (!*name || strlen(name) >= NAME_BYTES)
            return lithos_model_fail(error, "a kernel's name is empty or too long");
        struct rule rule = next->fallback;
        rule.param = NO_PARAM;
        rule.ns_per_param = 0;
        rule.points = 0;
        strcpy(rule.name, name);
        if (read_rule(value, &rule, why) < 0)
            return lithos_model_fail(error, "%.40s: %.200s", name, why);
        struct rule *old = find(next, name);
        if (old) {
            *old = rule;
            continue;
        }
        struct rule *rules = realloc(next->rules, (next->count + 1) * sizeof *rules);
        if (!rules)
            return -ENOMEM;
        rules[next->count++] = rule;
        next->rules = rules;
    }
    return 0;
}

int lithos_costs_merge(struct lithos_costs *costs, const char *text, char error[LITHOS_MODEL_ERROR_BYTES])
{
    json_t *root;
    int r = lithos_model_json(text, error, &root);
    if (r < 0)
        return r;
    struct lithos_costs next = *costs;
    next.rules = malloc((costs->count + 1) * sizeof *next.rules);
    if (!next.rules) {
        json_decref(root);
        return -ENOMEM;
    }
    if (costs->count)
        memcpy(next.rules, costs->rules, costs->count * sizeof *next.rules);
    r = merge(&next, root, error);
    json_decref(root);
    if (r < 0) {
        free(next.rules);
        return r;
    }
    free(costs->rules);
    *costs = next;
    return 0;
}

int lithos_costs_merge_file(struct lithos_costs *costs, const char *path,
                            char error[LITHOS_MODEL_ERROR_BYTES])
{
    char *text;
    int r = lithos_model_read(path, error, &text);
    if (r < 0)
        return r;
    r = lithos_costs_merge(costs, text, error);
    free(text);
    return r;
}

static double interpolate(const struct rule *rule, double x)
{
    uint32_t last = rule->points - 1;
    if (x <= rule->at[0])
        return rule->ns[0];
    if (x >= rule->at[last])
        return rule->ns[last];
    uint32_t i = 1;
    while (x > rule->at[i])
        i++;
    double part = (x - rule->at[i - 1]) / (rule->at[i] - rule->at[i - 1]);
    return rule->ns[i - 1] + part * (rule->ns[i] - rule->ns[i - 1]);
}

void lithos_costs_find(const struct lithos_costs *costs, const char *kernel, const uint64_t *params,
                       size_t param_count, uint32_t threads, struct lithos_block_cost *ret_cost)
{
    const struct rule *rule = find(costs, kernel);
    if (!rule)
        rule = &costs->fallback;
    double ns = rule->base_ns, x = rule->param < param_count ? (double)params[rule->param] : 0;
    if (rule->points)
        ns = interpolate(rule, x);
    else if (rule->ns_per_param > 0)
        ns += rule->ns_per_param * x;
    double share = rule->share;
    if (rule->share_threads)
        share *= (double)threads / rule->share_threads;
    *ret_cost = (struct lithos_block_cost){
        .alone_ns = (uint64_t)LITHOS_MIN(ns, LONGEST_BLOCK_NS),
        .share_ppm = (uint32_t)(LITHOS_MIN(LITHOS_MAX(share, 1e-6), 1.0) * 1e6 + 0.5),
        .spread_ppm = (uint32_t)(rule->spread * 1e6 + 0.5),
        .stagger_ppm = (uint32_t)(rule->stagger * 1e6 + 0.5),
        .clock_ppm = (uint32_t)(rule->clock * 1e6 + 0.5),
        .group = rule->group,
    };
}
