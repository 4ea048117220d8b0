#include "base/cpus.h"

#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/util.h"

#define TEXT_BYTES_MAX (64u * 1024)

static unsigned lower(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* A machine that can have more than CPU_SETSIZE of them fails the call: it has enough. */
static unsigned by_affinity(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) < 0 ? UINT_MAX : (unsigned)CPU_COUNT(&set);
}

static bool read_text(const char *root, const char *folder, const char *group, const char *file,
                      char **ret_text)
{
    char path[PATH_MAX];
    int n = snprintf(path, sizeof path, "%s%s%s/%s", root, folder, group, file);
    size_t len;
    return n > 0 && (size_t)n < sizeof path && lithos_read_file(path, TEXT_BYTES_MAX, ret_text, &len) == 0;
}

/* quota and period in microseconds, -1 or "max": without a limit. */
static unsigned whole_cpus(const char *quota, const char *period)
{
    long long q = strtoll(quota, NULL, 10), p = strtoll(period, NULL, 10);
    return q <= 0 || p <= 0 ? UINT_MAX : (unsigned)LITHOS_MIN(LITHOS_MAX(q / p, 1), (long long)UINT_MAX);
}

/* What one group itself is limited to: in version 2 one file has both numbers, in version 1 each has its own, in a folder that two names
 * are in use for. */
static unsigned group_limit(const char *root, bool v2, const char *group)
{
    static const char *const folders[] = {"/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"};
    unsigned limit = UINT_MAX;
    for (size_t i = 0; i < (v2 ? 1 : LITHOS_ARRAY_SIZE(folders)); i++) {
        char *quota = NULL, *period = NULL;
        if (v2 && read_text(root, "/sys/fs/cgroup", group, "cpu.max", &quota))
            period = strchr(quota, ' ') ? strdup(strchr(quota, ' ')) : NULL;
        else if (!v2 && read_text(root, folders[i], group, "cpu.cfs_quota_us", &quota))
            (void)read_text(root, folders[i], group, "cpu.cfs_period_us", &period);
        if (quota && period)
            limit = lower(limit, whole_cpus(quota, period));
        free(quota);
        free(period);
    }
    return limit;
}

/* The group and those above it. In a container its name may be the host's, which is not there: then the root alone is. */
static unsigned by_group(const char *root, bool v2, char *group)
{
    unsigned limit = UINT_MAX;
    for (;;) {
        char *slash = strrchr(group, '/');
        limit = lower(limit, group_limit(root, v2, slash && slash[1] ? group : ""));
        if (!slash || !slash[1])
            return limit;
        slash[slash == group] = '\0';
    }
}

/* One line of /proc/self/cgroup: HIERARCHY:CONTROLLERS:GROUP, 0::GROUP for version 2. */
static unsigned by_line(const char *root, char *line)
{
    char *controllers = strchr(line, ':'), *group = controllers ? strchr(controllers + 1, ':') : NULL, *name;
    if (!group)
        return UINT_MAX;
    *controllers++ = '\0';
    *group++ = '\0';
    if (!*controllers)
        return by_group(root, true, group);
    while ((name = strsep(&controllers, ",")))
        if (!strcmp(name, "cpu"))
            return by_group(root, false, group);
    return UINT_MAX;
}

unsigned lithos_cpus(const char *root)
{
    unsigned limit = by_affinity();
    char *text = NULL;
    if (read_text(root, "", "/proc/self", "cgroup", &text)) {
        char *next = text, *line;
        while ((line = strsep(&next, "\n")))
            limit = lower(limit, by_line(root, line));
    }
    free(text);
    return LITHOS_MAX(limit, 1u);
}
