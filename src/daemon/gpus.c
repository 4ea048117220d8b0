#include "daemon/gpus.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "daemon/procinfo.h"
#include "proto/socket.h"

#define SM_COUNT_MAX 1024

static const char *string_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

/* An integer member in [low, high]. */
static bool integer_of(const json_t *object, const char *key, json_int_t low, json_int_t high,
                       json_int_t *ret)
{
    const json_t *v = json_object_get(object, key);
    if (!json_is_integer(v) || json_integer_value(v) < low || json_integer_value(v) > high)
        return false;
    *ret = json_integer_value(v);
    return true;
}

static bool parse_topology(const json_t *object, struct lithos_topology *ret)
{
    json_int_t sms, stride, count;
    struct lithos_topology t = {.reserved = 0};
    if (!json_is_object(object) || lithos_tpcset_parse(string_of(object, "valid"), &t.valid) < 0 ||
        !integer_of(object, "sms_per_tpc", 1, 8, &sms) ||
        !integer_of(object, "gpc_stride", 0, LITHOS_TPC_BITS, &stride) ||
        !integer_of(object, "gpc_count", 0, LITHOS_GPC_MAX, &count))
        return false;
    t.sms_per_tpc = (uint32_t)sms;
    t.gpc_stride = (uint32_t)stride;
    t.gpc_count = (uint32_t)count;
    if (lithos_topology_validate(&t) < 0)
        return false;
    *ret = t;
    return true;
}

/* A card whose bits nobody measured, since masks cannot be had there: its TPCs are counted, so that coarse quotas can
 * be accounted for. The numbering means nothing and no mask is ever made of it (hook is false). */
static bool counted_topology(unsigned sm_count, struct lithos_topology *ret)
{
    unsigned tpcs = sm_count / 2;
    if (tpcs == 0 || tpcs > LITHOS_TPC_BITS)
        return false;
    struct lithos_topology t = {.sms_per_tpc = 2, .gpc_stride = tpcs, .gpc_count = 1};
    for (unsigned bit = 0; bit < tpcs; bit++)
        lithos_tpcset_add(&t.valid, bit);
    *ret = t;
    return lithos_topology_validate(&t) == 0;
}

static void parse_cc(const json_t *cc, int ret_cc[2])
{
    ret_cc[0] = (int)json_integer_value(json_array_get(cc, 0));
    ret_cc[1] = (int)json_integer_value(json_array_get(cc, 1));
}

static int parse_gpu(const json_t *object, struct lithosd_gpu *ret, char why[256])
{
    struct lithosd_gpu g = {.hook = json_is_true(json_object_get(object, "hook")),
                            .stamps = json_is_true(json_object_get(object, "stamps")),
                            .atoms = json_is_true(json_object_get(object, "atoms"))};
    struct lithos_topology topology;
    json_int_t index, sms, exit_ps;
    if (!integer_of(object, "index", 0, 1023, &index) ||
        !integer_of(object, "sm_count", 0, SM_COUNT_MAX, &sms) ||
        lithos_uuid_parse(string_of(object, "uuid"), g.uuid) < 0) {
        snprintf(why, 256, "a GPU without a valid index, sm_count or uuid");
        return -EINVAL;
    }
    g.index = (unsigned)index;
    g.sm_count = (unsigned)sms;
    if (integer_of(object, "exit_ps", 0, 1000000, &exit_ps))
        g.exit_ps = (unsigned)exit_ps;
    parse_cc(json_object_get(object, "cc"), g.cc);
    lithosd_clean_text(g.name, string_of(object, "name"), sizeof g.name);
    lithosd_clean_text(g.qmd, string_of(object, "qmd"), sizeof g.qmd);
    lithosd_clean_text(g.hook_why, string_of(object, "hook_why"), sizeof g.hook_why);
    lithosd_clean_text(g.atoms_why, string_of(object, "atoms_why"), sizeof g.atoms_why);
    lithosd_clean_text(g.error, string_of(object, "error"), sizeof g.error);
    g.measured = parse_topology(json_object_get(object, "topology"), &topology);
    if (!g.measured && g.hook) {
        g.hook = false;
        snprintf(g.hook_why, sizeof g.hook_why,
                 "the probe gave no valid topology: run `lithos-probe --json --no-cache`");
    }
    if (!g.error[0] && !g.measured && !counted_topology(g.sm_count, &topology))
        snprintf(g.error, sizeof g.error, "neither its topology nor a usable number of SMs is known (%u)",
                 g.sm_count);
    if (!g.error[0] && lithos_alloc_init(&g.alloc, &topology) < 0)
        snprintf(g.error, sizeof g.error, "its topology is not valid");
    *ret = g;
    return 0;
}

static int parse_gpus(const json_t *array, struct lithosd_gpus *gpus, char why[256])
{
    if (!json_is_array(array) || json_array_size(array) > LITHOS_MAX_GPUS) {
        snprintf(why, 256, "no list of at most %u GPUs", LITHOS_MAX_GPUS);
        return -EINVAL;
    }
    for (size_t i = 0; i < json_array_size(array); i++) {
        struct lithosd_gpu *g = &gpus->gpu[i];
        int r = parse_gpu(json_array_get(array, i), g, why);
        if (r < 0)
            return r;
        if (lithosd_gpus_find(gpus, g->uuid) >= 0) {
            snprintf(why, 256, "two GPUs with the same uuid");
            return -EINVAL;
        }
        gpus->count++;
    }
    return 0;
}

int lithosd_gpus_parse(const char *text, size_t len, struct lithosd_gpus *ret_gpus, char why[256])
{
    static const struct lithosd_gpus none;
    json_error_t error;
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(root)) {
        snprintf(why, 256, "not a JSON object: %.160s", root ? "another type" : error.text);
        json_decref(root);
        return -EINVAL;
    }
    struct lithosd_gpus gpus = none;
    lithosd_clean_text(gpus.driver, string_of(root, "driver"), sizeof gpus.driver);
    lithosd_clean_text(gpus.error, string_of(root, "error"), sizeof gpus.error);
    gpus.is_virtual = json_is_true(json_object_get(root, "virtual"));
    const json_t *array = json_object_get(root, "gpus");
    int r = array || !gpus.error[0] ? parse_gpus(array, &gpus, why) : 0;
    json_decref(root);
    if (r < 0)
        return r;
    if (!gpus.count && !gpus.error[0])
        snprintf(gpus.error, sizeof gpus.error, "the driver shows no GPU: see `nvidia-smi -L`");
    *ret_gpus = gpus;
    return 0;
}

int lithosd_gpus_find(const struct lithosd_gpus *gpus, const uint8_t uuid[LITHOS_UUID_BYTES])
{
    for (unsigned i = 0; i < gpus->count; i++)
        if (!memcmp(gpus->gpu[i].uuid, uuid, LITHOS_UUID_BYTES))
            return (int)i;
    return -1;
}

unsigned lithosd_gpu_tpcs(const struct lithosd_gpu *gpu)
{
    return gpu->error[0] ? 0 : lithos_tpcset_count(&gpu->alloc.topology.valid);
}
