/* A grant from another process, whatever it says: what validates names TPCs of the card only, and whatever it says, a
 * launch never gets a mask that hangs, an empty atom, or one that splits a cluster. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "fuzz/fuzz.h"
#include "hw/tpcgrant.h"
#include "unit/cards.h"

struct input {
    struct lithos_tpcgrant grant;
    struct lithos_tpcwork work;
    struct lithos_tpcmoment at;
};

static void check_choice(const struct input *in, const struct lithos_topology *t,
                         const struct lithos_tpcchoice *c)
{
    const uint64_t blocks = in->work.blocks ? in->work.blocks : 1;
    const uint32_t cluster = in->work.cluster_blocks ? in->work.cluster_blocks : 1;

    lithos_assert((unsigned)c->why < LITHOS_PICK_MAX);
    if (c->why != LITHOS_PICK_RUN)
        return;
    lithos_assert(c->blocks > 0 && c->blocks <= blocks);
    if (cluster <= LITHOS_CLUSTER_MAX) {
        lithos_assert(lithos_topology_has_room(t, c->tpcs, cluster));
        lithos_assert(c->blocks == blocks || c->blocks % cluster == 0);
    }
    lithos_assert(!(in->grant.flags & LITHOS_TPCGRANT_HOLD));
    const struct lithos_tpcset all = lithos_tpcset_or(in->grant.own, lithos_tpcgrant_lent(&in->grant));
    const struct lithos_tpcset strange = lithos_tpcset_minus(c->tpcs, lithos_tpcset_and(all, t->valid));
    lithos_assert(lithos_tpcset_empty(&strange));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct lithos_topology t = card_h200();
    struct lithos_tpcchoice c;
    struct input in;

    if (size < sizeof in)
        return 0;
    memcpy(&in, data, sizeof in);
    if (in.work.cluster_blocks > 1 && in.work.cluster_blocks <= LITHOS_CLUSTER_MAX && in.work.blocks)
        in.work.blocks += in.work.cluster_blocks - 1 - (in.work.blocks - 1) % in.work.cluster_blocks;
    if (lithos_tpcgrant_validate(&in.grant, &t) == 0) {
        const struct lithos_tpcset lent = lithos_tpcgrant_lent(&in.grant);
        const struct lithos_tpcset both = lithos_tpcset_and(lent, in.grant.own);
        const struct lithos_tpcset strange =
            lithos_tpcset_minus(lithos_tpcset_or(lent, in.grant.own), t.valid);
        lithos_assert(lithos_tpcset_empty(&both) && lithos_tpcset_empty(&strange));
    }
    lithos_tpcgrant_pick(&in.grant, &t, &in.work, &in.at, &c);
    check_choice(&in, &t, &c);
    return 0;
}

size_t lithos_fuzz_seed(size_t index, uint8_t *buf, size_t size)
{
    const struct lithos_topology t = card_h200();
    struct input in = {
        .grant = {.own = lithos_topology_gpc(&t, 1),
                  .part_count = 2,
                  .window_ns = 100000,
                  .lent_window_ns = 25000,
                  .atom_ns = 250000,
                  .thin_ppm = 250000},
        .work = {.blocks = 100000,
                 .lifetime_ns = 50000,
                 .residency = 8,
                 .saturation = 4,
                 .flags = (uint32_t)index % 4,
                 .least_ns = index % 2 ? 900000 : 0},
        .at = {.now_ns = 1000000},
    };
    if (index > 7 || size < sizeof in)
        return 0;
    in.grant.parts[0] = (struct lithos_tpcgrant_part){lithos_topology_gpc(&t, 2), 200000, 0};
    in.grant.parts[1] = (struct lithos_tpcgrant_part){lithos_topology_gpc(&t, 3), 0, 1500000};
    if (index >= 4) {
        in.work.cluster_blocks = 4;
        in.grant.wider = lithos_topology_gpc(&t, 4);
        in.grant.wider_ns = 1100000;
    }
    memcpy(buf, &in, sizeof in);
    return sizeof in;
}
