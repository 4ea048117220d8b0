/* The size table, over rows that somebody has scribbled on: what is found makes sense. And what is put is found. */
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "fuzz/fuzz.h"
#include "proto/sizes.h"

static void must(bool condition)
{
    if (!condition)
        abort();
}

struct scribble {
    uint64_t key;
    struct {
        uint64_t key, tpcs[2], probe[2], every;
    } rows[LITHOS_SIZE_WAYS];
};

static void check(const struct lithos_size *s)
{
    must(!lithos_tpcset_empty(&s->tpcs) && s->probe_every <= LITHOS_SIZE_EVERY_MAX);
    must(!s->probe_every || !lithos_tpcset_empty(&s->probe));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct lithos_size_row rows[LITHOS_SIZE_ROWS];
    struct scribble s;
    struct lithos_size found, again;
    memset(&s, 0, sizeof s);
    memcpy(&s, data, LITHOS_MIN(size, sizeof s));
    uint32_t first = lithos_size_row_of(s.key);
    must(first % LITHOS_SIZE_WAYS == 0 && first < LITHOS_SIZE_ROWS);
    for (uint32_t i = 0; i < LITHOS_SIZE_WAYS; i++) {
        struct lithos_size_row *r = &rows[first + i];
        for (int w = 0; w < 2; w++) {
            atomic_store(&r->tpcs[w], s.rows[i].tpcs[w]);
            atomic_store(&r->probe[w], s.rows[i].probe[w]);
        }
        atomic_store(&r->every, s.rows[i].every);
        atomic_store(&r->key, s.rows[i].key);
    }
    if (lithos_size_get(rows, s.key, &found)) {
        check(&found);
        if (s.key) {
            lithos_size_put(rows, s.key, 1, &found);
            atomic_store(&rows[first].key, 0);
            must(lithos_size_get(rows, s.key, &again));
            must(lithos_tpcset_equal(&again.tpcs, &found.tpcs) && again.probe_every == found.probe_every &&
                 lithos_tpcset_equal(&again.probe, &found.probe));
        }
    }
    for (uint32_t i = 0; i < LITHOS_SIZE_WAYS; i++)
        atomic_store(&rows[first + i].key, 0);
    must(!s.key || !lithos_size_get(rows, s.key, &found));
    return 0;
}

size_t lithos_fuzz_seed(size_t n, uint8_t *data, size_t max)
{
    struct scribble s = {.key = 0x1234567890abcdefull};
    if (n > 2 || max < sizeof s)
        return 0;
    s.rows[n].key = s.key;
    s.rows[n].tpcs[0] = n == 0 ? 0 : 0xff;
    s.rows[n].probe[1] = n == 2 ? 3 : 0;
    s.rows[n].every = n;
    memcpy(data, &s, sizeof s);
    return sizeof s;
}
