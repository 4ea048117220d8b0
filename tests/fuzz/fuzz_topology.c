/* Any bytes as a topology that another process wrote: refused, or safe to use with any set and any cluster.
 */
#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "fuzz/fuzz.h"
#include "hw/topology.h"

struct input {
    struct lithos_topology topology;
    struct lithos_tpcset set;
    uint32_t cluster;
};

size_t lithos_fuzz_seed(size_t n, uint8_t *buf, size_t size)
{
    struct input in = {.topology = {.sms_per_tpc = 2, .gpc_stride = 9, .gpc_count = 8},
                       .set = {{0x1fe0f, 0x80000}},
                       .cluster = 8};
    if (n > 1 || size < sizeof(in))
        return 0;
    if (n == 1) {
        in.topology.gpc_count = 0;
        in.cluster = 2;
    }
    lithos_assert(lithos_tpcset_parse("0-3,9-16,54-62,75,78", &in.topology.valid) == 0);
    memcpy(buf, &in, sizeof(in));
    return sizeof(in);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {0};
    memcpy(&in, data, size < sizeof(in) ? size : sizeof(in));
    const struct lithos_topology *t = &in.topology;
    const int r = lithos_topology_validate(t);

    lithos_assert(r == 0 || r == -EINVAL);
    if (r < 0)
        return 0;
    struct lithos_tpcset got, seen = {{0, 0}};
    for (unsigned b = 0; b < LITHOS_TPC_BITS; b++) {
        const uint32_t gpc = lithos_topology_gpc_of(t, b);
        lithos_assert(gpc == LITHOS_GPC_NONE || gpc < t->gpc_count);
        const struct lithos_tpcset mates = lithos_topology_gpc(t, gpc);
        lithos_assert((gpc != LITHOS_GPC_NONE && lithos_tpcset_has(&t->valid, b)) ==
                      lithos_tpcset_has(&mates, b));
        seen = lithos_tpcset_or(seen, mates);
    }
    seen = lithos_tpcset_minus(seen, t->valid);
    lithos_assert(lithos_tpcset_empty(&seen));
    const unsigned largest = lithos_topology_largest_cluster(t, in.set);
    lithos_assert(largest <= LITHOS_CLUSTER_MAX);
    lithos_assert(largest == 0 || lithos_topology_has_room(t, in.set, largest));
    lithos_assert(!lithos_topology_has_room(t, in.set, largest + 1) || largest == 0);
    if (lithos_topology_make_room(t, in.set, in.cluster, &got) == 0)
        lithos_assert(lithos_topology_has_room(t, got, in.cluster));
    else
        lithos_assert(!lithos_topology_has_room(t, t->valid, in.cluster));
    return 0;
}
