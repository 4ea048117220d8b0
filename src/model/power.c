#include "model/power.h"

#include "base/util.h"

bool lithos_power_valid(const struct lithos_power_card *p)
{
    if (!p->max_mhz || !p->min_mhz || p->min_mhz > p->max_mhz || !p->step_mhz ||
        (p->max_mhz - p->min_mhz) % p->step_mhz || !p->volt_count || p->volt_count > LITHOS_POWER_VOLTS_MAX)
        return false;
    for (uint32_t i = 0; i < p->volt_count; i++)
        if (!p->volts[i].mv ||
            (i && (p->volts[i].mhz <= p->volts[i - 1].mhz || p->volts[i].mv < p->volts[i - 1].mv)))
            return false;
    return true;
}

uint32_t lithos_power_steps(const struct lithos_power_card *p)
{
    return (p->max_mhz - p->min_mhz) / p->step_mhz + 1;
}

uint32_t lithos_power_step_mhz(const struct lithos_power_card *p, uint32_t mhz)
{
    if (mhz >= p->max_mhz)
        return p->max_mhz;
    if (mhz <= p->min_mhz)
        return p->min_mhz;
    return p->min_mhz + (mhz - p->min_mhz) / p->step_mhz * p->step_mhz;
}

static double volts(const struct lithos_power_card *p, uint32_t mhz)
{
    uint32_t i = 0;

    while (i < p->volt_count && p->volts[i].mhz < mhz)
        i++;
    if (i == 0)
        return p->volts[0].mv;
    if (i == p->volt_count)
        return p->volts[i - 1].mv;
    const double part = (double)(mhz - p->volts[i - 1].mhz) / (double)(p->volts[i].mhz - p->volts[i - 1].mhz);
    return p->volts[i - 1].mv + part * ((double)p->volts[i].mv - p->volts[i - 1].mv);
}

uint32_t lithos_power_mw(const struct lithos_power_card *p, uint32_t mhz,
                         const struct lithos_power_load *load)
{
    const double v = volts(p, mhz) / volts(p, p->max_mhz), f = (double)mhz / p->max_mhz;
    const double busy = (double)LITHOS_MIN(load->busy_ppm, 1000000u) / 1e6;
    const double traffic = (double)LITHOS_MIN(load->traffic_ppm, 1000000u) / 1e6;

    return (uint32_t)(p->board_mw + p->leak_mw * v + (p->tree_mw + p->sms_mw * busy) * v * v * f +
                      p->memory_mw * traffic + 0.5);
}
