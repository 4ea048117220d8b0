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
