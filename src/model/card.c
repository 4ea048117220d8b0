#include "model/card.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "model/json.h"

struct number {
    const char *section, *key;
    uint64_t *to64;
    uint32_t *to32;
};

static int read_numbers(const json_t *root, const struct number *numbers, size_t count, char *error)
{
    for (size_t i = 0; i < count; i++) {
        const struct number *n = &numbers[i];
        const json_t *section = n->section ? json_object_get(root, n->section) : root;
        const json_t *v = json_object_get(section, n->key);
        const char *dot = n->section ? "." : "", *name = n->section ? n->section : "";
        if (!json_is_integer(v) || json_integer_value(v) < 0)
            return lithos_model_fail(error, "\"%s%s%s\" is missing or not a whole number of 0 or more", name,
                                     dot, n->key);
        uint64_t value = (uint64_t)json_integer_value(v);
        if (n->to32 && value > UINT32_MAX)
            return lithos_model_fail(error, "\"%s%s%s\" does not fit 32 bits", name, dot, n->key);
        if (n->to32)
            *n->to32 = (uint32_t)value;
        else
            *n->to64 = value;
    }
    return 0;
}

static int read_pair(const json_t *root, const char *key, int32_t *ret_a, int32_t *ret_b, char *error)
{
    const json_t *v = json_object_get(root, key), *a = json_array_get(v, 0), *b = json_array_get(v, 1);
    if (json_array_size(v) != 2 || !json_is_integer(a) || !json_is_integer(b) ||
        llabs(json_integer_value(a)) > 1000 || llabs(json_integer_value(b)) > 1000)
        return lithos_model_fail(error, "\"%s\" is not an array of two small whole numbers", key);
    *ret_a = (int32_t)json_integer_value(a);
    *ret_b = (int32_t)json_integer_value(b);
    return 0;
}

static int read_texts(const json_t *root, struct lithos_card *card, char *error)
{
    const char *name = json_string_value(json_object_get(root, "name"));
    if (!name || !*name || strlen(name) >= sizeof card->name)
        return lithos_model_fail(error, "\"name\" is missing or too long");
    strcpy(card->name, name);
    const char *tpcs = json_string_value(json_object_get(root, "tpcs"));
    if (!tpcs || lithos_tpcset_parse(tpcs, &card->topology.valid) < 0)
        return lithos_model_fail(error, "\"tpcs\" is not a list of mask bits such as \"0-3,9-16\"");
    const char *qmd = json_string_value(json_object_get(root, "qmd"));
    for (unsigned v = 0; qmd && v < LITHOS_QMD_VERSION_MAX; v++) {
        if (strcmp(lithos_qmd_layout_name(lithos_qmd_layout(v)), qmd) == 0) {
            card->qmd = v;
            return 0;
        }
    }
    return lithos_model_fail(error, "\"qmd\" names no known layout (V02_04, V03_00, V04_00, V05_00)");
}

static int read_attributes(const json_t *root, struct lithos_card *card, char *error)
{
    json_t *attributes = json_object_get(root, "attributes");
    if (!json_is_object(attributes))
        return lithos_model_fail(error, "\"attributes\" is not an object of number: value");
    const char *key;
    json_t *value;
    json_object_foreach(attributes, key, value)
    {
        char *end;
        unsigned long number = strtoul(key, &end, 10);
        if (!*key || *end || number >= LITHOS_CARD_ATTRIBUTES)
            return lithos_model_fail(error, "attribute \"%.40s\" is not a number below %u", key,
                                     LITHOS_CARD_ATTRIBUTES);
        if (!json_is_integer(value) || json_integer_value(value) < INT32_MIN ||
            json_integer_value(value) > INT32_MAX)
            return lithos_model_fail(error, "attribute %lu is not a whole number of 32 bits", number);
        card->attributes[number] = (int32_t)json_integer_value(value);
    }
    return 0;
}

static int read_volts(const json_t *section, struct lithos_power_card *p, char *error)
{
    const json_t *volts = json_object_get(section, "volts");

    p->volt_count = (uint32_t)LITHOS_MIN(json_array_size(volts), LITHOS_POWER_VOLTS_MAX + 1);
    for (uint32_t i = 0; i < p->volt_count && i < LITHOS_POWER_VOLTS_MAX; i++) {
        const json_t *pair = json_array_get(volts, i), *mhz = json_array_get(pair, 0),
                     *mv = json_array_get(pair, 1);
        if (!json_is_integer(mhz) || !json_is_integer(mv) || json_integer_value(mhz) < 1 ||
            json_integer_value(mhz) > 100000 || json_integer_value(mv) < 1 || json_integer_value(mv) > 10000)
            return lithos_model_fail(error, "\"power.volts\" is not a list of [MHz, mV]");
        p->volts[i].mhz = (uint32_t)json_integer_value(mhz);
        p->volts[i].mv = (uint32_t)json_integer_value(mv);
    }
    return 0;
}

/* Optional: cards of which nothing is known draw nothing and have one clock. */
static int read_power(const json_t *root, struct lithos_power_card *p, char *error)
{
    const struct number numbers[] = {
        {"power", "max_mhz", NULL, &p->max_mhz},     {"power", "min_mhz", NULL, &p->min_mhz},
        {"power", "step_mhz", NULL, &p->step_mhz},   {"power", "memory_mhz", NULL, &p->memory_mhz},
        {"power", "switch_us", NULL, &p->switch_us}, {"power", "limit_mw", NULL, &p->limit_mw},
        {"power", "board_mw", NULL, &p->board_mw},   {"power", "leak_mw", NULL, &p->leak_mw},
        {"power", "tree_mw", NULL, &p->tree_mw},     {"power", "sms_mw", NULL, &p->sms_mw},
        {"power", "memory_mw", NULL, &p->memory_mw},
    };

    if (!json_object_get(root, "power"))
        return 0;
    int r = read_numbers(root, numbers, LITHOS_ARRAY_SIZE(numbers), error);
    if (r >= 0)
        r = read_volts(json_object_get(root, "power"), p, error);
    if (r >= 0 && !lithos_power_valid(p))
        return lithos_model_fail(
            error, "\"power\": clocks are not whole steps from min_mhz to max_mhz, or volts fall");
    return r;
}

static int read_card(const json_t *root, struct lithos_card *c, char *error)
{
    uint32_t driver;
    const struct number numbers[] = {
        {NULL, "sms_per_tpc", NULL, &c->topology.sms_per_tpc},
        {NULL, "gpc_stride", NULL, &c->topology.gpc_stride},
        {NULL, "gpc_count", NULL, &c->topology.gpc_count},
        {NULL, "memory_bytes", &c->memory_bytes, NULL},
        {NULL, "driver_version", NULL, &driver},
        {NULL, "largest_cluster", NULL, &c->largest_cluster_blocks},
        {"sm", "threads", NULL, &c->sm_threads},
        {"sm", "blocks", NULL, &c->sm_blocks},
        {"sm", "registers", NULL, &c->sm_registers},
        {"sm", "register_unit", NULL, &c->warp_register_unit},
        {"sm", "shared_bytes", NULL, &c->sm_shared_bytes},
        {"sm", "shared_reserved_bytes", NULL, &c->block_shared_reserved_bytes},
        {"timing", "launch_ns", &c->launch_ns, NULL},
        {"timing", "complete_ns", &c->complete_ns, NULL},
        {"timing", "exit_ps", NULL, &c->exit_ps},
        {"timing", "slice_ns", &c->slice_ns, NULL},
        {"timing", "slice_overrun_ppm", NULL, &c->slice_overrun_ppm},
        {"timing", "preempt_ns", &c->preempt_ns, NULL},
        {"timing", "restore_ns", &c->restore_ns, NULL},
        {"copy", "latency_ns", &c->copy_latency_ns, NULL},
        {"copy", "h2d_bytes_per_us", &c->copy_bytes_per_us[LITHOS_COPY_H2D], NULL},
        {"copy", "d2h_bytes_per_us", &c->copy_bytes_per_us[LITHOS_COPY_D2H], NULL},
        {"copy", "d2d_bytes_per_us", &c->copy_bytes_per_us[LITHOS_COPY_D2D], NULL},
    };
    int r = read_texts(root, c, error);
    if (r >= 0)
        r = read_numbers(root, numbers, LITHOS_ARRAY_SIZE(numbers), error);
    if (r >= 0)
        r = read_pair(root, "cc", &c->cc_major, &c->cc_minor, error);
    if (r >= 0)
        r = read_pair(root, "priorities", &c->priority_least, &c->priority_greatest, error);
    if (r >= 0)
        r = read_attributes(root, c, error);
    if (r >= 0)
        r = read_power(root, &c->power, error);
    if (r < 0)
        return r;
    if (driver > INT32_MAX)
        return lithos_model_fail(error, "\"driver_version\" is too large");
    c->driver_version = (int32_t)driver;
    return lithos_card_validate(c, error);
}

int lithos_card_parse(const char *text, struct lithos_card *ret_card, char error[LITHOS_MODEL_ERROR_BYTES])
{
    json_t *root;
    struct lithos_card card = {0};
    int r = lithos_model_json(text, error, &root);
    if (r < 0)
        return r;
    r = read_card(root, &card, error);
    json_decref(root);
    if (r >= 0)
        *ret_card = card;
    return r;
}

int lithos_card_load(const char *path, struct lithos_card *ret_card, char error[LITHOS_MODEL_ERROR_BYTES])
{
    char *text;
    int r = lithos_model_read(path, error, &text);
    if (r < 0)
        return r;
    r = lithos_card_parse(text, ret_card, error);
    free(text);
    return r;
}
