#include "cli/document.h"

#include <stdio.h>
#include <string.h>

#include "proto/socket.h"

const char *lithos_json_string(const json_t *object, const char *key)
{
    const char *s = json_string_value(json_object_get(object, key));

    return s ? s : "";
}

int64_t lithos_json_integer(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

double lithos_json_number(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

bool lithos_json_true(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

unsigned lithos_document_gpus(const json_t *document, struct lithos_gpu_info gpus[LITHOS_MAX_GPUS])
{
    const json_t *list = json_object_get(document, "gpus"), *gpu;
    unsigned n = 0;
    size_t i;

    json_array_foreach((json_t *)list, i, gpu)
    {
        struct lithos_gpu_info g = {.index = (uint32_t)lithos_json_integer(gpu, "index")};
        if (n == LITHOS_MAX_GPUS || lithos_uuid_parse(lithos_json_string(gpu, "uuid"), g.uuid) < 0)
            continue;
        snprintf(g.uuid_text, sizeof(g.uuid_text), "%s", lithos_json_string(gpu, "uuid"));
        snprintf(g.name, sizeof(g.name), "%s", lithos_json_string(gpu, "name"));
        g.tpcs = (unsigned)lithos_json_integer(gpu, "tpcs");
        g.free = (unsigned)lithos_json_integer(gpu, "free");
        snprintf(g.error, sizeof(g.error), "%s", lithos_json_string(gpu, "error"));
        gpus[n++] = g;
    }
    return n;
}
