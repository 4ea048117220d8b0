/* The plan table, over rows that somebody has scribbled on: what is found makes sense. And what is put is found. */
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "fuzz/fuzz.h"
#include "proto/plans.h"

static void must(bool condition)
{
    if (!condition)
        abort();
}

struct scribble {
    uint64_t key;
    struct {
        uint64_t key, choice, predicted_ns, wave_ns;
    } rows[LITHOS_PLAN_WAYS];
};

static void check(const struct lithos_plan *p)
{
    must(p->choice.whole < LITHOS_WHOLE_MAX);
    must((p->choice.waves == 0) == (p->choice.whole != LITHOS_WHOLE_NOT));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct lithos_plan_row rows[LITHOS_PLAN_ROWS];
    struct scribble s;
    struct lithos_plan p, again;
    memset(&s, 0, sizeof s);
    memcpy(&s, data, LITHOS_MIN(size, sizeof s));
    uint32_t first = lithos_plan_row_of(s.key);
    must(first % LITHOS_PLAN_WAYS == 0 && first < LITHOS_PLAN_ROWS);
    for (uint32_t i = 0; i < LITHOS_PLAN_WAYS; i++) {
        struct lithos_plan_row *r = &rows[first + i];
        atomic_store(&r->key, s.rows[i].key);
        atomic_store(&r->choice, s.rows[i].choice);
        atomic_store(&r->predicted_ns, s.rows[i].predicted_ns);
        atomic_store(&r->wave_ns, s.rows[i].wave_ns);
    }
    if (lithos_plan_get(rows, s.key, &p)) {
        check(&p);
        if (s.key) {
            lithos_plan_put(rows, first + 1, s.key, &p);
            atomic_store(&rows[first].key, 0);
            must(lithos_plan_get(rows, s.key, &again));
            must(again.choice.waves == p.choice.waves && again.choice.whole == p.choice.whole &&
                 again.choice.trial == p.choice.trial && again.predicted_ns == p.predicted_ns);
        }
    }
    for (uint32_t i = 0; i < LITHOS_PLAN_WAYS; i++)
        lithos_plan_put(rows, first + i, 0, &(struct lithos_plan){.predicted_ns = 1});
    must(!s.key || !lithos_plan_get(rows, s.key, &p));
    return 0;
}

size_t lithos_fuzz_seed(size_t n, uint8_t *data, size_t max)
{
    struct scribble s = {.key = 0x1234567890abcdefull};
    if (n > 2 || max < sizeof s)
        return 0;
    s.rows[n].key = s.key;
    s.rows[n].choice = n == 0 ? 12 : n == 1 ? 3 | 1ull << 40 : (uint64_t)LITHOS_WHOLE_SHORT << 32;
    s.rows[n].predicted_ns = 1000000;
    memcpy(data, &s, sizeof s);
    return sizeof s;
}
