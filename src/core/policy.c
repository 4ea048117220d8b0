#include "core/policy.h"

#include <string.h>

#include "base/util.h"

#define X(name) extern const struct lithos_policy lithos_policy_##name;
#include "core/policies.def"
#undef X

static const struct lithos_policy *const policies[] = {
#define X(name) &lithos_policy_##name,
#include "core/policies.def"
#undef X
};

const struct lithos_policy *lithos_policy_at(size_t n)
{
    return n < LITHOS_ARRAY_SIZE(policies) ? policies[n] : NULL;
}

const struct lithos_policy *lithos_policy_find(const char *name)
{
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(policies); i++)
        if (!strcmp(policies[i]->name, name))
            return policies[i];
    return NULL;
}
