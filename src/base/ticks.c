#include "base/ticks.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define CLOCKSOURCE "/sys/devices/system/clocksource/clocksource0/current_clocksource"
/* The kernel's clock is steered against the counter: the rate is that of the last one to two of these. */
#define HALF_NS 5000000000ull
#define LEAST_NS 1000000ull
#define NEAR_NS 60e9

bool lithos_ticks_steady(void)
{
    char text[16] = "";
    int fd = open(CLOCKSOURCE, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    return n >= 4 && !strncmp(text, "tsc\n", 4);
}

void lithos_ticks_map_init(struct lithos_ticks_map *m, uint64_t ticks, uint64_t ns)
{
    const struct lithos_ticks_pair now = {ticks, ns};
    *m = (struct lithos_ticks_map){.first = now, .half = now, .last = now, .ns_a_tick = 1};
}

void lithos_ticks_map_update(struct lithos_ticks_map *m, uint64_t ticks, uint64_t ns)
{
    m->last = (struct lithos_ticks_pair){ticks, ns};
    if (ns - m->half.ns >= HALF_NS) {
        m->first = m->half;
        m->half = m->last;
    }
    if (ticks > m->first.ticks && ns >= m->first.ns + LEAST_NS)
        m->ns_a_tick = (double)(ns - m->first.ns) / (double)(ticks - m->first.ticks);
}

uint64_t lithos_ticks_map_ns(const struct lithos_ticks_map *m, uint64_t ticks)
{
    double away_ns = (double)(int64_t)(ticks - m->last.ticks) * m->ns_a_tick;
    if (!(away_ns > -NEAR_NS && away_ns < NEAR_NS) || (away_ns < 0 && (double)m->last.ns < -away_ns))
        return m->last.ns;
    return m->last.ns + (uint64_t)(int64_t)away_ns;
}
