/* What can be asked of the card, the driver and the launch queues as they are. */
#include <stddef.h>

#include "daemon/lend.h"

const char *lithosd_policy_why_not(const struct lithos_policy *p, const struct lithosd_options *o)
{
    if (p->needs & LITHOS_NEED_RECALL)
        return "what was submitted cannot be taken back: CUDA has no call for it";
    if (p->needs & LITHOS_NEED_PROFILE)
        return "it goes by profiles of kernels taken beforehand, which nobody has made";
    if (p->needs & LITHOS_NEED_PACE)
        return "launch queues keep a window of work, not a rate";
    if (p->needs & LITHOS_NEED_SHORT_TURNS) /* which it implies */
        return NULL;
    if (p->needs & LITHOS_NEED_TURNS && o->mps)
        return "tenants take turns only without MPS: add --mps=off";
    if (p->needs & LITHOS_NEED_SPACE && !(p->needs & LITHOS_NEED_MASKS) && !o->mps)
        return "tenants share the card in space only under MPS: leave out --mps=off";
    if (p->needs & LITHOS_NEED_QUEUES && !o->observe)
        return "with --observe=off nobody knows who is idle";
    return NULL;
}
