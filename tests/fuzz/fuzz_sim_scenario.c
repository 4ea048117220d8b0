/* Any text as a scenario: refused with a reason, or it runs for a moment without harm. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/util.h"
#include "fuzz/fuzz.h"
#include "sim/sim.h"

static const char *const seeds[] = {
    "{\"name\": \"a\", \"card\": \"CARD\", \"seconds\": 0.01, \"quiet_seconds\": 0.01, \"bandwidth\": true,"
    " \"kernels\": {\"k\": {\"us\": 200, \"blocks\": 132, \"residency\": 2, \"cluster\": 2, \"memory\": "
    "1.2}},"
    " \"programs\": {\"p\": {\"graph\": true, \"sequence\": [\"k\", {\"repeat\": 2, \"of\": [\"k\"]}]}},"
    " \"tenants\": [{\"name\": \"t\", \"class\": \"high\", \"quota\": 50, \"slo_ms\": 20, \"slip\": 1.2, "
    "\"program\": \"p\","
    " \"arrivals\": {\"poisson_per_s\": 2000}}], \"tuning\": {\"window_us\": 10}}",
    "{\"name\": \"b\", \"card\": \"CARD\", \"seconds\": 0.01, \"recall\": true, \"programs\": {\"p\": "
    "{\"sequence\": ["
    "{\"us\": 900, \"blocks\": 9000, \"residency\": 8, \"saturation\": 4, \"cut\": true}, {\"us\": 50, "
    "\"persistent\": true,"
    " \"cluster\": 2}, {\"us\": 5, \"cooperative\": true}]}},"
    " \"tenants\": [{\"name\": \"t\", \"class\": \"best-effort\", \"sms\": 66, \"program\": \"p\", "
    "\"weight\": 2},"
    " {\"name\": \"u\", \"class\": \"high\", \"quota\": 30, \"program\": \"p\", \"arrivals\": "
    "{\"bursts_per_s\": 500,"
    " \"on_ms\": 2, \"off_ms\": 3}}],"
    " \"faults\": [{\"kind\": \"dies\", \"tenant\": \"t\", \"from_ms\": 2, \"to_ms\": 4}, {\"kind\": "
    "\"daemon_stops\","
    " \"from_ms\": 5, \"to_ms\": 6}, {\"kind\": \"mispredicts\", \"factor\": 10}]}",
};

static size_t expand(const char *seed, uint8_t *buf, size_t size)
{
    const char *card = LITHOS_SOURCE_DIR "/src/model/cards/h200.json", *at = strstr(seed, "CARD");
    char text[4096];
    const int len = snprintf(text, sizeof text, "%.*s%s%s", (int)(at - seed), seed, card, at + 4);

    if (len < 0 || (size_t)len >= sizeof text || (size_t)len > size)
        return 0;
    memcpy(buf, text, (size_t)len);
    return (size_t)len;
}

size_t lithos_fuzz_seed(size_t n, uint8_t *buf, size_t size)
{
    return n < LITHOS_ARRAY_SIZE(seeds) ? expand(seeds[n], buf, size) : 0;
}

/* Large numbers are valid and take for ever: what is run is small. */
static bool small(const struct lithos_sim_scenario *sc)
{
    uint64_t kernels = 0;

    for (uint32_t i = 0; i < sc->tenant_count; i++) {
        kernels += sc->tenants[i].program.count;
        if (sc->tenants[i].arrival != LITHOS_SIM_CLOSED && sc->tenants[i].interval_ns < 10000)
            return false;
        if (sc->tenants[i].program.alone_ns < 1000 || sc->tenants[i].launch_ns < 1000)
            return false;
        for (uint32_t k = 0; k < sc->tenants[i].program.count; k++)
            if (sc->tenants[i].program.kernels[k].blocks > 100000)
                return false;
    }
    return kernels < 1000 && sc->tuning.atom_ns >= 10000 && sc->tuning.turn_ns >= 100000 &&
           sc->tuning.useful_ns >= 1000;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct lithos_sim_scenario sc;
    char error[LITHOS_SIM_ERROR_BYTES] = "", *text = malloc(size + 1);
    struct lithos_sim_result r;

    lithos_assert(text);
    memcpy(text, data, size);
    text[size] = '\0';
    const int e = lithos_sim_scenario_parse(text, "/nowhere", "/nowhere", &sc, error);
    lithos_assert(e == 0 || error[0]);
    if (e == 0 && small(&sc)) {
        const struct lithos_sim_options options = {
            .policy = lithos_policy_find("lithos"), .seed = 1, .only = UINT32_MAX, .check = true};
        sc.duration_ns = LITHOS_MIN(sc.duration_ns, 5 * LITHOS_NSEC_PER_MSEC);
        sc.quiet_ns = LITHOS_MIN(sc.quiet_ns, 5 * LITHOS_NSEC_PER_MSEC);
        if (lithos_sim_run(&sc, &options, &r, error) == 0)
            lithos_sim_result_free(&r);
    }
    lithos_sim_scenario_free(&sc);
    free(text);
    return 0;
}
