#include "vgpu/client/visible.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vgpu/client/client.h"

void vgpu_uuid_format(const unsigned char uuid[16], char text[41])
{
    char *p = text + sprintf(text, "GPU-");
    for (int i = 0; i < 16; i++)
        p += sprintf(p, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
}

/* Index of the device that one entry of the list names, or -1. */
static int named(const char *entry, size_t len, const struct vgpu_device *devices, unsigned count)
{
    if (len > 4 && !strncasecmp(entry, "GPU-", 4)) {
        int found = -1;
        for (unsigned i = 0; i < count; i++) {
            char text[41];
            vgpu_uuid_format(devices[i].card.uuid, text);
            if (len <= 40 && !strncasecmp(entry, text, len)) {
                if (found >= 0)
                    return -1; /* it fits two */
                found = (int)i;
            }
        }
        return found;
    }
    if (!len || !isdigit((unsigned char)*entry))
        return -1;
    char *end;
    unsigned long index = strtoul(entry, &end, 10);
    return end == entry + len && index < count ? (int)index : -1;
}

unsigned vgpu_visible(const char *list, struct vgpu_device *devices, unsigned count)
{
    if (!list)
        return count;
    static struct vgpu_device kept[VGPU_MAX_CARDS]; /* large, and used once */
    bool taken[VGPU_MAX_CARDS] = {0};
    unsigned n = 0;
    for (const char *p = list; *p && n < count;) {
        p += strspn(p, " ");
        size_t len = strcspn(p, ",");
        size_t trimmed = len;
        while (trimmed && p[trimmed - 1] == ' ')
            trimmed--;
        int i = named(p, trimmed, devices, count);
        if (i < 0)
            break;
        if (taken[i])
            return 0; /* named twice: the real driver then shows none */
        taken[i] = true;
        kept[n++] = devices[i];
        p += len + (p[len] == ',');
    }
    memcpy(devices, kept, n * sizeof *devices);
    return n;
}
