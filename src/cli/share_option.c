#include "cli/share_option.h"

#include <errno.h>

#include "base/log.h"

int lithos_share_option(const char *command, int c, struct lithos_share *share)
{
    static const struct {
        uint32_t option;
        const char *name, *what;
    } known[] = {
        {LITHOS_SHARE_WEIGHT, "weight", "a whole number from 0 to 1000"},
        {LITHOS_SHARE_FLOOR, "floor", "a number of TPCs from 0 to 128"},
        {LITHOS_SHARE_SLIP, "slip", "a factor from 1 to 100 such as 1.1, or off"},
        {LITHOS_SHARE_GRAPHS, "graphs", "own or borrow"},
        {LITHOS_SHARE_SLO, "slo", "a time such as 15ms or 500us, at most an hour, or off"},
    };

    if (c < LITHOS_SHARE_OPTION)
        return 0;
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(known); i++) {
        if (known[i].option != (uint32_t)c - LITHOS_SHARE_OPTION)
            continue;
        if (lithos_share_parse(known[i].option, optarg, share) == 0)
            return 1;
        lithos_error("%s: --%s %s: must be %s", command, known[i].name, optarg, known[i].what);
        return -EINVAL;
    }
    return 0;
}
