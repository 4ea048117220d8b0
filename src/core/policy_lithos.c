/* LithOS (SOSP'25, 5.2 and 5.3): own TPCs always, idle ones lent to whoever can use them, launch by launch. */
#include "core/sched_internal.h"

const struct lithos_policy lithos_policy_lithos = {
    .name = "lithos",
    .what = "quotas by TPC mask; idle TPCs lent atom by atom within what their owners can bear",
    .needs =
        LITHOS_NEED_MASKS | LITHOS_NEED_ATOMS | LITHOS_NEED_QUEUES | LITHOS_NEED_SPACE | LITHOS_NEED_PRIORITY,
    .exclusive = true,
    .plan = sched_lend,
};
