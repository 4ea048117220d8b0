/* The probe's JSON: every GPU that is accepted as usable has a topology that holds up. */
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "daemon/gpus.h"
#include "fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct lithosd_gpus gpus;
    char why[256] = "";
    if (lithosd_gpus_parse((const char *)data, size, &gpus, why) < 0) {
        if (!*why)
            abort();
        return 0;
    }
    if (gpus.count > LITHOS_MAX_GPUS || (!gpus.count && !gpus.error[0]))
        abort();
    for (unsigned i = 0; i < gpus.count; i++) {
        const struct lithosd_gpu *g = &gpus.gpu[i];
        if (g->error[0])
            continue;
        if (lithos_topology_validate(&g->alloc.topology) < 0 || lithosd_gpu_tpcs(g) == 0 ||
            (g->hook && !g->measured))
            abort();
    }
    return 0;
}

size_t lithos_fuzz_seed(size_t n, uint8_t *buf, size_t size)
{
    static const char *const seeds[] = {
        "{\"driver\":\"580.159.04\",\"virtual\":false,\"error\":null,\"gpus\":[{\"index\":0,\"uuid\":"
        "\"GPU-8f8b1234-00ff-abcd-0123-456789abcdef\",\"name\":\"NVIDIA "
        "H200\",\"cc\":[9,0],\"sm_count\":132,\"qmd\":"
        "\"V04_00\",\"hook\":true,\"hook_why\":\"\",\"topology\":{\"valid\":\"0-3,9-16\",\"sms_per_tpc\":2,"
        "\"gpc_stride\":9,"
        "\"gpc_count\":8},\"cached\":true,\"error\":null}]}",
        "{\"driver\":\"x\",\"error\":\"no driver\",\"gpus\":[]}",
        "{\"gpus\":[{\"index\":1,\"uuid\":\"8f8b1234-00ff-abcd-0123-456789abcdef\",\"sm_count\":108,\"hook\":"
        "false,"
        "\"topology\":null}]}",
    };
    if (n >= LITHOS_ARRAY_SIZE(seeds) || strlen(seeds[n]) > size)
        return 0;
    memcpy(buf, seeds[n], strlen(seeds[n]));
    return strlen(seeds[n]);
}
