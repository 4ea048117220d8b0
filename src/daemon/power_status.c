/* "power" and "energy" of the status document. */
#include "daemon/daemon.h"

const char *lithosd_power_mode_name(enum lithosd_power_mode mode)
{
    static const char *const names[LITHOSD_POWER_MODE_MAX] = {"off", "advise", "on"};
    return mode < LITHOSD_POWER_MODE_MAX ? names[mode] : "unknown";
}

static json_t *gpu_status(const struct lithosd_gpu *gpu, const struct lithosd_power_gpu *g)
{
    const struct lithos_governor_advice *a = &g->advice;
    json_t *o = json_pack("{s:i,s:b,s:i,s:i,s:i,s:i,s:f,s:f,s:i,s:i}", "index", (int)gpu->index, "known",
                          (int)g->known, "mhz", (int)g->told.mhz, "max_mhz", (int)g->told.max_mhz, "min_mhz",
                          (int)g->told.min_mhz, "locked_mhz", (int)g->told.locked_mhz, "watts",
                          g->told.power_mw / 1e3, "joules", (double)g->told.energy_mj / 1e3, "restored",
                          (int)g->told.restored, "error", g->error);
    json_object_set_new(o, "energy",
                        json_pack("{s:f,s:f,s:f}", "all_joules", g->energy.all_mj / 1e3, "nobody_joules",
                                  g->energy.nobody_mj / 1e3, "idle_watts", g->energy.idle_mw / 1e3));
    json_object_set_new(o, "advice",
                        g->governor ? json_pack("{s:i,s:s,s:i,s:f,s:f}", "mhz", (int)a->mhz, "why",
                                                lithos_governor_why_name(a->why), "formula_mhz",
                                                (int)a->formula_mhz, "sensitivity", a->sensitivity_ppm / 1e6,
                                                "unseen", a->unseen_ppm / 1e6)
                                    : json_null());
    return o;
}

json_t *lithosd_power_status(const struct lithosd *d)
{
    const struct lithosd_power *p = &d->power;
    json_t *gpus = json_array();

    for (unsigned i = 0; i < d->gpus.count && p->mode != LITHOSD_POWER_OFF; i++)
        json_array_append_new(gpus, gpu_status(&d->gpus.gpu[i], &p->gpu[i]));
    return json_pack("{s:s,s:s,s:s,s:o,s:i,s:o}", "mode", lithosd_power_mode_name(p->mode), "asked",
                     lithosd_power_mode_name(d->options.power), "why", p->why, "clocks_pid",
                     p->pid ? json_integer(p->pid) : json_null(), "clocks_starts", (int)p->starts, "gpus",
                     gpus);
}

json_t *lithosd_power_tenant_status(const struct lithosd_tenant *t)
{
    const struct lithosd_power *p = &t->daemon->power;
    const uint32_t slot = (uint32_t)(t - t->daemon->tenants);
    double whole_mj = 0, least_mj = 0;

    if (p->mode == LITHOSD_POWER_OFF || slot >= LITHOS_ENERGY_TENANTS_MAX)
        return json_null();
    for (unsigned i = 0; i < t->grant.gpu_count; i++) {
        whole_mj += p->gpu[t->gpu[i]].energy.tenant[slot].whole_mj;
        least_mj += p->gpu[t->gpu[i]].energy.tenant[slot].least_mj;
    }
    const uint64_t requests = p->period[slot].requests;
    return json_pack("{s:f,s:f,s:I,s:o}", "joules", whole_mj / 1e3, "joules_least", least_mj / 1e3,
                     "requests", (json_int_t)requests, "joules_per_request",
                     requests ? json_real(whole_mj / 1e3 / (double)requests) : json_null());
}
