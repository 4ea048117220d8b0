#include "cli/environment.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/socket.h"

char *lithos_preload_value(const char *library, const char *old)
{
    size_t size = strlen(library) + 2 + (old ? strlen(old) : 0), lib_len = strlen(library);
    char *value = malloc(size);

    if (!value)
        return NULL;
    strcpy(value, library);
    for (const char *p = old; p && *p;) {
        p += strspn(p, ": "); /* the loader separates by both */
        size_t len = strcspn(p, ": ");
        if (len && !(len == lib_len && !memcmp(p, library, len))) {
            strcat(value, ":");
            strncat(value, p, len);
        }
        p += len;
    }
    return value;
}

static int set_number(const char *name, unsigned value)
{
    char text[16];

    snprintf(text, sizeof(text), "%u", value);
    return setenv(name, text, 1);
}

/* CUDA_VISIBLE_DEVICES: the GPUs granted, by UUID, so that no order of theirs matters. */
static int set_visible(const struct lithos_grant *grant)
{
    char text[LITHOS_MAX_GPUS * LITHOS_UUID_TEXT_MAX] = "", uuid[LITHOS_UUID_TEXT_MAX];

    for (uint32_t i = 0; i < grant->gpu_count && i < LITHOS_MAX_GPUS; i++) {
        if (i)
            strcat(text, ",");
        strcat(text, lithos_uuid_format(grant->gpus[i].uuid, uuid));
    }
    return setenv("CUDA_VISIBLE_DEVICES", text, 1);
}

static int set_mode(const struct lithos_msg_admitted *a, const char *grant_text)
{
    int r = 0;

    if (a->mode == LITHOS_MODE_MASK)
        r |= unsetenv("LITHOS_HOOK");
    else
        r |= setenv("LITHOS_HOOK", "off", 1);
    if (a->mode == LITHOS_MODE_COARSE && a->thread_percentage)
        r |= set_number("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", a->thread_percentage);
    r |= grant_text ? setenv("LITHOS_GRANT", grant_text, 1) : unsetenv("LITHOS_GRANT");
    return r;
}

/* Reaches programs that get at the driver past the loader; one that has an injection of its own keeps it. Without the hook there
 * is nothing to reach them for, and profilers that refuse to work beside another injection can be used. */
static int set_injection(bool hook, const char *library)
{
    const char *now = getenv("CUDA_INJECTION64_PATH");

    if (hook)
        return setenv("CUDA_INJECTION64_PATH", library, 0);
    return now && !strcmp(now, library) ? unsetenv("CUDA_INJECTION64_PATH") : 0;
}

int lithos_environment_apply(const struct lithos_msg_admitted *admitted, const char *library,
                             const char *socket, const char *grant_text)
{
    char tenant[LITHOS_TENANT_TEXT_MAX];
    int r = 0;

    if (strpbrk(library, ": \t\n"))
        return -EINVAL;
    char *preload = lithos_preload_value(library, getenv("LD_PRELOAD"));
    if (!preload)
        return -ENOMEM;
    r |= setenv("LD_PRELOAD", preload, 1);
    free(preload);
    r |= set_injection(admitted->mode == LITHOS_MODE_MASK, library);
    r |= setenv("LITHOS_TENANT", lithos_tenant_format(admitted->tenant, admitted->token, tenant), 1);
    r |= setenv("LITHOS_SOCKET", socket, 1);
    r |= set_mode(admitted, grant_text);
    r |= set_visible(&admitted->grant);
    if (admitted->mps)
        r |= setenv("CUDA_MPS_PIPE_DIRECTORY", admitted->mps_pipe_dir, 1);
    if (admitted->client_priority)
        r |= setenv("CUDA_MPS_CLIENT_PRIORITY", "1", 1);
    return r ? -ENOMEM : 0;
}
