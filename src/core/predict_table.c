#include <string.h>

#include "core/predict_internal.h"

void lithos_predict_table_init(struct lithos_predict_table *t, struct lithos_predict_set *sets,
                               uint32_t entries, uint64_t *forgotten)
{
    *t = (struct lithos_predict_table){
        .sets = sets, .set_count = entries / LITHOS_PREDICT_WAYS, .forgotten = forgotten};
    memset(sets, 0, t->set_count * sizeof(*sets));
}

uint32_t lithos_predict_table_get(struct lithos_predict_table *t, uint64_t hash, bool *ret_new)
{
    const uint32_t set = lithos_predict_set_of(t, hash), tag = lithos_predict_tag(hash), now = ++t->tick;
    struct lithos_predict_set *s = &t->sets[set];
    uint32_t victim = 0, longest = 0;

    for (uint32_t way = 0; way < LITHOS_PREDICT_WAYS; way++) {
        if (s->tag[way] == tag) {
            s->used[way] = now;
            *ret_new = false;
            return set * LITHOS_PREDICT_WAYS + way;
        }
    }
    for (uint32_t way = 0; way < LITHOS_PREDICT_WAYS; way++) {
        if (s->tag[way] == 0) {
            victim = way;
            break;
        }
        if (now - s->used[way] >= longest) { /* the tick may have wrapped */
            longest = now - s->used[way];
            victim = way;
        }
    }
    *t->forgotten += s->tag[victim] != 0;
    s->tag[victim] = tag;
    s->used[victim] = now;
    *ret_new = true;
    return set * LITHOS_PREDICT_WAYS + victim;
}
