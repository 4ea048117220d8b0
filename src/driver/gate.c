#include "driver/gate.h"

#include <errno.h>

bool lithos_gate_safe_on(const struct lithos_topology *topology, struct lithos_tpcset set,
                         unsigned cluster_blocks)
{
    struct lithos_tpcset there = lithos_tpcset_and(set, topology->valid);
    return !lithos_tpcset_empty(&there) && lithos_topology_has_room(topology, there, cluster_blocks);
}

int lithos_gate_build(const struct lithos_topology *topology, struct lithos_tpcset own,
                      struct lithos_gate *ret_gate)
{
    struct lithos_tpcset quota = lithos_tpcset_and(own, topology->valid);
    if (lithos_topology_validate(topology) < 0 || lithos_tpcset_empty(&quota))
        return -EINVAL;
    struct lithos_gate gate = {.topology = *topology};
    for (unsigned blocks = 1; blocks <= LITHOS_CLUSTER_MAX; blocks++) {
        struct lithos_gate_row *row = &gate.rows[blocks - 1];
        struct lithos_tpcset set;
        if (lithos_topology_make_room(topology, quota, blocks, &set) < 0 ||
            !lithos_gate_safe_on(topology, set, blocks))
            continue; /* closed */
        row->set = set;
        row->state = lithos_tpcset_equal(&set, &quota) ? LITHOS_GATE_OWN : LITHOS_GATE_BREACH;
    }
    *ret_gate = gate;
    return 0;
}
