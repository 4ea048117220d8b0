#include "cli/gpus.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* One entry of a list: a number in the daemon's order, or the beginning of exactly one UUID. -1 for anything
 * else. */
static int find_gpu(const char *entry, size_t len, const struct lithos_gpu_info *gpus, unsigned count)
{
    char text[LITHOS_NAME_MAX], *end;
    int found = -1;

    if (len == 0 || len >= sizeof(text))
        return -1;
    memcpy(text, entry, len);
    text[len] = 0;
    if (text[0] >= '0' && text[0] <= '9' && len < 6) {
        unsigned long index = strtoul(text, &end, 10);
        if (*end)
            return -1;
        for (unsigned i = 0; i < count; i++)
            if (gpus[i].index == index)
                return (int)i;
        return -1;
    }
    if (strncasecmp(text, "GPU-", 4) != 0 || len == 4)
        return -1;
    for (unsigned i = 0; i < count; i++) {
        if (strncasecmp(gpus[i].uuid_text, text, len) != 0)
            continue;
        if (found >= 0)
            return -1;
        found = (int)i;
    }
    return found;
}

static bool chosen(const struct lithos_gpu_choice *c, unsigned gpu)
{
    for (unsigned i = 0; i < c->count; i++)
        if (c->gpus[i] == gpu)
            return true;
    return false;
}

/* Entry up to the next comma, blanks off both ends. */
static const char *next_entry(const char *p, const char **ret_entry, size_t *ret_len)
{
    size_t len = strcspn(p, ",");
    const char *after = p[len] ? p + len + 1 : NULL;

    while (len && (*p == ' ' || *p == '\t')) {
        p++;
        len--;
    }
    while (len && (p[len - 1] == ' ' || p[len - 1] == '\t'))
        len--;
    *ret_entry = p;
    *ret_len = len;
    return after;
}

int lithos_gpus_visible(const char *text, const struct lithos_gpu_info *gpus, unsigned count,
                        struct lithos_gpu_choice *ret_visible, char *why, size_t why_size)
{
    struct lithos_gpu_choice c = {0};

    for (const char *p = text; p && c.count < LITHOS_MAX_GPUS;) {
        const char *entry;
        size_t len;
        p = next_entry(p, &entry, &len);
        int gpu = find_gpu(entry, len, gpus, count);
        if (gpu < 0 || chosen(&c, (unsigned)gpu))
            break;
        c.gpus[c.count++] = (unsigned)gpu;
    }
    if (c.count == 0) {
        snprintf(why, why_size,
                 "CUDA_VISIBLE_DEVICES=%s names none of the %u GPUs of lithosd: use numbers from 0 or UUIDs "
                 "(`lithos status'), or unset it",
                 text, count);
        return -ENODEV;
    }
    *ret_visible = c;
    return 0;
}

int lithos_gpus_choose(const char *text, const struct lithos_gpu_info *gpus, unsigned count,
                       const struct lithos_gpu_choice *visible, struct lithos_gpu_choice *ret_choice,
                       char *why, size_t why_size)
{
    struct lithos_gpu_choice c = {0};

    if (!strcmp(text, "all")) {
        *ret_choice = *visible;
        return 0;
    }
    for (const char *p = text; p;) {
        const char *entry;
        size_t len;
        p = next_entry(p, &entry, &len);
        int gpu = find_gpu(entry, len, gpus, count);
        if (gpu < 0) {
            snprintf(why, why_size,
                     "--gpu %s: \"%.*s\" is none of the %u GPUs of lithosd: use a number from 0, a UUID "
                     "(`lithos status'), a list with commas, or all",
                     text, (int)len, entry, count);
            return -EINVAL;
        }
        if (chosen(&c, (unsigned)gpu)) {
            snprintf(why, why_size, "--gpu %s: GPU %u is named twice", text, gpus[gpu].index);
            return -EINVAL;
        }
        if (!chosen(visible, (unsigned)gpu)) {
            snprintf(why, why_size,
                     "--gpu %s: CUDA_VISIBLE_DEVICES hides GPU %u (numbers count all GPUs of lithosd, "
                     "also hidden ones)",
                     text, gpus[gpu].index);
            return -EINVAL;
        }
        if (c.count == LITHOS_MAX_GPUS) {
            snprintf(why, why_size, "--gpu %s: at most %u GPUs", text, LITHOS_MAX_GPUS);
            return -EINVAL;
        }
        c.gpus[c.count++] = (unsigned)gpu;
    }
    *ret_choice = c;
    return 0;
}
