/* A cached topology: what is taken of a file is sane and of this card; the rest of the answer stays untouched. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "driver/probe.h"
#include "fuzz/fuzz.h"

static const char entry[] = "{\"format\": 1, \"uuid\": \"GPU-a0\", \"driver\": \"580.1\", \"name\": "
                            "\"Card\", \"cc_major\": 9, \"cc_minor\": 0, "
                            "\"sm_count\": 8, \"qmd\": \"V04_00\", \"topology\": {\"valid\": \"0-3\", "
                            "\"sms_per_tpc\": 2, \"gpc_stride\": 9, "
                            "\"gpc_count\": 8}}";

static char dir[] = "/tmp/lithos-fuzz-XXXXXX";

static void remove_dir(void)
{
    rmdir(dir);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char path[256];
    if (!path[0]) {
        lithos_log_set_threshold(LITHOS_LOG_ERROR);
        if (!mkdtemp(dir) || atexit(remove_dir) != 0)
            abort();
        snprintf(path, sizeof path, "%s/topology-GPU-a0-580.1.json", dir);
    }
    FILE *f = fopen(path, "w");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0)
        abort();
    struct lithos_probe p = {.driver = "580.1"};
    struct lithos_probe_gpu gpu = {.uuid_text = "GPU-a0", .name = "Card", .cc_major = 9, .sm_count = 8};
    int r = lithos_probe_cache_load(dir, &p, &gpu);
    if (r < 0 && (gpu.have_topology || gpu.cached || gpu.qmd[0]))
        abort();
    if (r == 0 && (!gpu.have_topology || lithos_topology_validate(&gpu.topology) < 0 ||
                   lithos_tpcset_count(&gpu.topology.valid) * gpu.topology.sms_per_tpc != 8))
        abort();
    unlink(path);
    return 0;
}

size_t lithos_fuzz_seed(size_t n, uint8_t *buf, size_t size)
{
    if (n > 0 || sizeof entry - 1 > size)
        return 0;
    memcpy(buf, entry, sizeof entry - 1);
    return sizeof entry - 1;
}
