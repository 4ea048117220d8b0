#include "proto/grant_text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/socket.h"

int lithos_grant_format(const struct lithos_grant *g, char *text, size_t size)
{
    char all[LITHOS_GRANT_TEXT_MAX];
    size_t used = 0;
    if (g->gpu_count > LITHOS_MAX_GPUS || !size)
        return -ENOSPC;
    all[0] = 0;
    for (uint32_t i = 0; i < g->gpu_count; i++) {
        const struct lithos_grant_gpu *gpu = &g->gpus[i];
        char uuid[LITHOS_UUID_TEXT_MAX], own[LITHOS_TPCSET_TEXT_MAX], valid[LITHOS_TPCSET_TEXT_MAX];
        int n = snprintf(all + used, sizeof all - used, "%s%s/%s/%s/%u/%u/%u", i ? ";" : "",
                         lithos_uuid_format(gpu->uuid, uuid), lithos_tpcset_format(&gpu->own, own),
                         lithos_tpcset_format(&gpu->topology.valid, valid), gpu->topology.sms_per_tpc,
                         gpu->topology.gpc_stride, gpu->topology.gpc_count);
        if (n < 0 || (size_t)n >= sizeof all - used)
            return -ENOSPC;
        used += (size_t)n;
    }
    if (used >= size)
        return -ENOSPC;
    memcpy(text, all, used + 1);
    return 0;
}

/* Up to four decimal digits and nothing else. */
static int parse_number(const char *text, uint32_t *ret_value)
{
    size_t n = strspn(text, "0123456789");
    if (n < 1 || n > 4 || text[n])
        return -EINVAL;
    *ret_value = (uint32_t)strtoul(text, NULL, 10);
    return 0;
}

/* One GPU's text, cut up in place. */
static int parse_gpu(char *text, struct lithos_grant_gpu *ret_gpu)
{
    char *fields[6];
    for (int i = 0; i < 6; i++) {
        fields[i] = strsep(&text, "/");
        if (!fields[i])
            return -EINVAL;
    }
    struct lithos_grant_gpu gpu = {0};
    if (text || lithos_uuid_parse(fields[0], gpu.uuid) < 0 || lithos_tpcset_parse(fields[1], &gpu.own) < 0 ||
        lithos_tpcset_parse(fields[2], &gpu.topology.valid) < 0 ||
        parse_number(fields[3], &gpu.topology.sms_per_tpc) < 0 ||
        parse_number(fields[4], &gpu.topology.gpc_stride) < 0 ||
        parse_number(fields[5], &gpu.topology.gpc_count) < 0)
        return -EINVAL;
    *ret_gpu = gpu;
    return 0;
}

int lithos_grant_parse(const char *text, struct lithos_grant *ret_grant)
{
    char copy[LITHOS_GRANT_TEXT_MAX];
    struct lithos_grant grant = {0};
    size_t length = strlen(text);
    if (length >= sizeof copy)
        return -EINVAL;
    memcpy(copy, text, length + 1);
    char *rest = copy;
    for (char *one = strsep(&rest, ";"); one; one = strsep(&rest, ";")) {
        if (grant.gpu_count == LITHOS_MAX_GPUS || parse_gpu(one, &grant.gpus[grant.gpu_count]) < 0)
            return -EINVAL;
        grant.gpu_count++;
    }
    int r = lithos_grant_validate(&grant);
    if (r < 0)
        return r;
    *ret_grant = grant;
    return 0;
}
