/* Which TPCs a card has, by mask bit, and where a cluster of thread blocks finds room.
 * Facts: docs/hardware.md ("TPC masks"); measured once a card by driver/probe.h. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/tpcset.h"

/* The GPC of a TPC that belongs to none (floor-swept singles: on Hopper bits 72 and up). */
#define LITHOS_GPC_NONE UINT32_MAX
#define LITHOS_GPC_MAX 16u
/* Blocks in the largest cluster any card takes (with the non-portable attribute). */
#define LITHOS_CLUSTER_MAX 16u

/* Same layout in every process: it travels in the arena. Validate what another process wrote. */
struct lithos_topology {
    struct lithos_tpcset valid; /* bits that name a TPC of this card */
    uint32_t sms_per_tpc;       /* 2 on every card known */
    uint32_t gpc_stride;        /* bits a GPC: GPC g is bits [g * stride, (g + 1) * stride) */
    uint32_t gpc_count;         /* GPCs; bits from gpc_count * gpc_stride up are single TPCs */
    uint32_t reserved;          /* 0 */
};

/* 0; -EINVAL when it names no TPC, has a stride or count that does not fit 128 bits, or sms_per_tpc is 0 or
 * over 8. */
int lithos_topology_validate(const struct lithos_topology *t);

/* GPC of a bit, or LITHOS_GPC_NONE. */
uint32_t lithos_topology_gpc_of(const struct lithos_topology *t, unsigned bit);
/* All valid bits of a GPC. */
struct lithos_tpcset lithos_topology_gpc(const struct lithos_topology *t, uint32_t gpc);

/* TPCs of one GPC that a cluster of this many blocks needs: blocks over SMs a TPC, rounded up; 1 for 0 or 1
 * block. */
unsigned lithos_cluster_tpcs(const struct lithos_topology *t, unsigned cluster_blocks);
/* Largest cluster (blocks) that has room in the set: 0 for a set that names no TPC of the card. */
unsigned lithos_topology_largest_cluster(const struct lithos_topology *t, struct lithos_tpcset set);
/* True when a kernel of such clusters can run there: the set names a TPC, and some GPC has enough of them
 * (single TPCs take clusters of one TPC). A launch with a set for which this is false hangs for ever. */
bool lithos_topology_has_room(const struct lithos_topology *t, struct lithos_tpcset set,
                              unsigned cluster_blocks);
/* The smallest set that holds `own` (its valid bits) and has room for the cluster: own itself where it has,
 * else own plus the fewest TPCs, all of the GPC that needs the fewest more (lowest GPC and lowest bits on a
 * tie). 0; -ENOSPC when no GPC of the card is large enough. */
int lithos_topology_make_room(const struct lithos_topology *t, struct lithos_tpcset own,
                              unsigned cluster_blocks, struct lithos_tpcset *ret_set);
