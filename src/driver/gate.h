/* The last gate before a launch: a mask that leaves it names a TPC of the card and has room for the kernel's
 * cluster, for a launch with any other hangs for ever (docs/hardware.md, "TPC masks").
 *
 * What a launch would have to work out is worked out here when the grant changes, one row a cluster size. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "hw/topology.h"

enum lithos_gate_state {
    LITHOS_GATE_CLOSED, /* no set of this card takes such a cluster: leave the launch as it is */
    LITHOS_GATE_OWN,    /* the quota itself */
    LITHOS_GATE_BREACH, /* the quota has no room: the smallest set that has */
    LITHOS_GATE_STATE_MAX,
};

struct lithos_gate_row {
    struct lithos_tpcset set;
    enum lithos_gate_state state;
};

struct lithos_gate {
    struct lithos_topology topology;
    struct lithos_gate_row rows[LITHOS_CLUSTER_MAX]; /* rows[blocks of a cluster - 1] */
};

/* Fill in the rows for a quota. 0; -EINVAL when the topology is not valid or own names no TPC of it. */
int lithos_gate_build(const struct lithos_topology *topology, struct lithos_tpcset own,
                      struct lithos_gate *ret_gate);
/* True when a launch with this set cannot hang on that card either: for when it is not sure which card a
 * launch is for. Bits that name no TPC there do not count. */
bool lithos_gate_safe_on(const struct lithos_topology *topology, struct lithos_tpcset set,
                         unsigned cluster_blocks);
