/* A right-sizer for a test. */
#pragma once

#include <stdlib.h>

#include "core/rightsize.h"

/* *ret_mem: what to free. The includer has included cmocka. */
static inline struct lithos_rightsize *rightsize_new(const struct lithos_rightsize_config *c, void **ret_mem)
{
    struct lithos_rightsize *r = NULL;
    size_t bytes = 0;

    assert_int_equal(lithos_rightsize_size(c, &bytes), 0);
    *ret_mem = aligned_alloc(16, (bytes + 15) / 16 * 16);
    assert_non_null(*ret_mem);
    assert_int_equal(lithos_rightsize_init(*ret_mem, bytes, c, &r), 0);
    return r;
}

/* The TPCs of a launch as the tenant library has it: on what was said, one in probe_every on what is to be tried, and on all where it is to have all, or
 * nothing was said. */
static inline uint32_t rightsize_width(const struct lithos_rightsize *r,
                                       const struct lithos_rightsize_advice *a, uint64_t launch, uint32_t all)
{
    const uint32_t turn = (uint32_t)(launch * 0x9e3779b97f4a7c15ull >> 32);

    if (lithos_rightsize_whole(r) || lithos_tpcset_empty(&a->tpcs))
        return all;
    if (a->probe_every && (uint64_t)turn * a->probe_every >> 32 == 0)
        return lithos_tpcset_count(&a->probe);
    return lithos_tpcset_count(&a->tpcs);
}
