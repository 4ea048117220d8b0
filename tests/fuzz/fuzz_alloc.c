/* Any bytes as a card and a list of requests: no TPC is given twice or lost, whatever is asked. */
#include <string.h>

#include "base/assert.h"
#include "core/alloc.h"
#include "fuzz/fuzz.h"

struct request {
    uint8_t what, tenant;
    uint16_t count;
};

size_t lithos_fuzz_seed(size_t n, uint8_t *buf, size_t size)
{
    static const struct request requests[] = {{0, 1, 33}, {0, 2, 22},    {1, 1, 10},
                                              {2, 2, 0},  {3, 3, 0x1fe}, {1, 3, 20}};
    struct lithos_topology t = {.sms_per_tpc = 2, .gpc_stride = 9, .gpc_count = 8};
    if (n > 0 || size < sizeof(t) + sizeof(requests))
        return 0;
    lithos_assert(lithos_tpcset_parse("0-3,9-16,18-25,27-34,36-43,45-52,54-71,75,78,81,83", &t.valid) == 0);
    memcpy(buf, &t, sizeof(t));
    memcpy(buf + sizeof(t), requests, sizeof(requests));
    return sizeof(t) + sizeof(requests);
}

static void check(const struct lithos_alloc *a)
{
    const struct lithos_alloc_holder *h;
    struct lithos_tpcset seen = a->free;
    for (size_t n = 0; (h = lithos_alloc_holder_at(a, n)); n++) {
        const struct lithos_tpcset twice = lithos_tpcset_and(seen, h->set);
        lithos_assert(lithos_tpcset_empty(&twice) && !lithos_tpcset_empty(&h->set) && h->tenant != 0);
        seen = lithos_tpcset_or(seen, h->set);
    }
    lithos_assert(lithos_tpcset_equal(&seen, &a->topology.valid));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct lithos_topology t;
    struct lithos_alloc a;

    if (size < sizeof(t))
        return 0;
    memcpy(&t, data, sizeof(t));
    if (lithos_alloc_init(&a, &t) < 0)
        return 0;
    for (size_t at = sizeof(t); at + sizeof(struct request) <= size; at += sizeof(struct request)) {
        struct request r;
        struct lithos_tpcset set = {{0, 0}};
        memcpy(&r, data + at, sizeof(r));
        switch (r.what % 4) {
        case 0:
            if (lithos_alloc_place(&a, r.tenant, r.count, &set) == 0)
                lithos_assert(lithos_tpcset_count(&set) == r.count);
            break;
        case 1:
            if (lithos_alloc_resize(&a, r.tenant, r.count, &set) == 0)
                lithos_assert(lithos_tpcset_count(&set) == r.count);
            break;
        case 2:
            lithos_assert((lithos_alloc_find(&a, r.tenant) != NULL) ==
                          (lithos_alloc_release(&a, r.tenant) == 0));
            break;
        case 3:
            set.w[r.count & 1] = (uint64_t)r.count << (r.count % 48);
            if (lithos_alloc_adopt(&a, r.tenant, &set) == 0)
                lithos_assert(lithos_tpcset_equal(&lithos_alloc_find(&a, r.tenant)->set, &set));
            break;
        }
        check(&a);
    }
    return 0;
}
