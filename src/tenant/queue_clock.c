/* When something ended by our own clock, of which the card's stamp tells by its. The two run alike within some ppm on a card; a virtual GPU's may run
 * ten times slower. How fast, lithosd finds out, and says; how far they are apart is seen here. */
#include "base/util.h"
#include "tenant/queue_internal.h"

#define BILLION 1000000000
#define UNSURE 20000 /* 50 ppm: what was seen is let go of so fast, as clocks drift */
#define LIKE_PART 1000
/* What is no clock's is not believed. */
#define SLOWEST_PPB (1000000ll * BILLION)
#define FASTEST_PPB (BILLION / 1000 - BILLION)

int64_t lithos_queue_clock_span_ns(const struct queue_clock *c, int64_t card_ns)
{
    const __int128 ns = card_ns + (__int128)card_ns * c->drift_ppb / BILLION, most = INT64_MAX / 4;
    return (int64_t)LITHOS_MIN(LITHOS_MAX(ns, -most), most);
}

void lithos_queue_clock_drift(struct queue_clock *c, int64_t drift_ppb)
{
    if (drift_ppb == c->drift_ppb || drift_ppb > SLOWEST_PPB || drift_ppb < FASTEST_PPB)
        return;
    const int64_t change_ppb = drift_ppb > c->drift_ppb ? drift_ppb - c->drift_ppb : c->drift_ppb - drift_ppb;
    if (change_ppb >
        (BILLION + drift_ppb) / LIKE_PART) /* what was seen with the other rate is worth nothing */
        c->at_ns = 0;
    c->drift_ppb = drift_ppb;
}

uint64_t lithos_queue_clock_at_ns(struct queue_clock *c, uint64_t card_ns, uint64_t seen_ns,
                                  uint64_t not_before_ns)
{
    const int64_t since_ns = lithos_queue_clock_span_ns(c, (int64_t)(card_ns - c->card_ns));
    const uint64_t foretold_ns = c->at_ns + (uint64_t)since_ns + (seen_ns - c->seen_ns) / UNSURE;
    const uint64_t at_ns = c->at_ns && foretold_ns < seen_ns ? foretold_ns : seen_ns;

    if (at_ns < not_before_ns) { /* that cannot be: begin anew */
        c->at_ns = 0;
        return 0;
    }
    c->card_ns = card_ns;
    c->at_ns = at_ns;
    c->seen_ns = seen_ns;
    return at_ns;
}
