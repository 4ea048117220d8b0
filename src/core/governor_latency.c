/* Latencies of requests, the newest, and their quantiles. */
#include <string.h>

#include "base/quantile.h"
#include "core/governor_internal.h"

static const uint32_t percents[GOVERNOR_QUANTILES] = {50, 90, 99}, enough[GOVERNOR_QUANTILES] = {8, 20, 100};

void governor_latency_add(struct governor_latencies *l, float us)
{
    l->us[l->next] = us;
    l->next = (l->next + 1) % GOVERNOR_LATENCIES;
    l->count += l->count < GOVERNOR_LATENCIES;
}

void governor_latency_quantiles(const struct governor_latencies *l, float ret_us[GOVERNOR_QUANTILES])
{
    float v[GOVERNOR_LATENCIES];

    memcpy(v, l->us, l->count * sizeof *v);
    for (unsigned q = 0; q < GOVERNOR_QUANTILES; q++)
        ret_us[q] =
            l->count >= enough[q]
                ? lithos_nth_float(v, l->count, (uint32_t)((l->count - 1) * (uint64_t)percents[q] / 100))
                : 0;
}
