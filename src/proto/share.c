/* What a tenant asks of the scheduler beside its quota: as numbers, and as people write it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "proto/message.h"

#define DIGITS_MAX 9u /* of each part of a number: no sum of them is over 64 bits */
#define PPM 1000000u

int lithos_share_validate(const struct lithos_share *s)
{
    if (s->given & ~(LITHOS_SHARE_BEST_EFFORT | LITHOS_SHARE_HIGH) || s->weight > LITHOS_SHARE_WEIGHT_MAX ||
        s->floor_tpcs > LITHOS_TPC_BITS || s->slo_ns > LITHOS_SHARE_SLO_MAX_NS ||
        s->graphs >= LITHOS_GRAPHS_MAX ||
        (s->slip_ppm && (s->slip_ppm < PPM || s->slip_ppm > LITHOS_SHARE_SLIP_MAX_PPM)))
        return -EINVAL;
    return (!(s->given & LITHOS_SHARE_WEIGHT) && s->weight) ||
                   (!(s->given & LITHOS_SHARE_FLOOR) && s->floor_tpcs) ||
                   (!(s->given & LITHOS_SHARE_SLIP) && s->slip_ppm) ||
                   (!(s->given & LITHOS_SHARE_SLO) && s->slo_ns) ||
                   (!(s->given & LITHOS_SHARE_GRAPHS) && s->graphs)
               ? -EINVAL
               : 0;
}

void lithos_share_merge(struct lithos_share *to, const struct lithos_share *from)
{
    if (from->given & LITHOS_SHARE_WEIGHT)
        to->weight = from->weight;
    if (from->given & LITHOS_SHARE_FLOOR)
        to->floor_tpcs = from->floor_tpcs;
    if (from->given & LITHOS_SHARE_SLIP)
        to->slip_ppm = from->slip_ppm;
    if (from->given & LITHOS_SHARE_SLO)
        to->slo_ns = from->slo_ns;
    if (from->given & LITHOS_SHARE_GRAPHS)
        to->graphs = from->graphs;
    to->given |= from->given;
}

static bool digits(const char **text, uint64_t *ret_value)
{
    size_t n = strspn(*text, "0123456789");
    if (n == 0 || n > DIGITS_MAX)
        return false;
    *ret_value = strtoull(*text, NULL, 10);
    *text += n;
    return true;
}

/* "12" or "12.34" in units of 1 / scale (a power of ten), what is finer than that cut off; *text is moved past it. */
static bool decimal(const char **text, uint64_t scale, uint64_t *ret_value)
{
    uint64_t whole, fraction = 0, part = scale;
    if (!digits(text, &whole))
        return false;
    if (**text == '.') {
        const char *begin = ++*text;
        if (!digits(text, &fraction))
            return false;
        for (const char *p = begin; p < *text; p++)
            part = part / 10;
        uint64_t divisor = 1;
        for (const char *p = begin; part == 0 && p < *text; p++)
            divisor *= 10;
        fraction = part ? fraction * part : fraction * scale / divisor;
    }
    *ret_value = whole * scale + fraction;
    return true;
}

int lithos_duration_parse(const char *text, uint64_t *ret_ns)
{
    static const struct {
        const char *name;
        uint64_t ns;
    } units[] = {{"us", LITHOS_NSEC_PER_USEC}, {"ms", LITHOS_NSEC_PER_MSEC}, {"s", LITHOS_NSEC_PER_SEC}};
    const char *begin = text;
    uint64_t ns;
    if (!decimal(&text, 1, &ns))
        return -EINVAL;
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(units); i++) {
        if (strcmp(text, units[i].name) != 0)
            continue;
        decimal(&begin, units[i].ns, &ns);
        if (ns == 0 || ns > LITHOS_SHARE_SLO_MAX_NS)
            return -ERANGE;
        *ret_ns = ns;
        return 0;
    }
    return -EINVAL;
}

static bool number(const char *text, uint64_t max, uint32_t *ret_value)
{
    uint64_t v;
    if (!digits(&text, &v) || *text || v > max)
        return false;
    *ret_value = (uint32_t)v;
    return true;
}

static bool slip(const char *text, uint32_t *ret_ppm)
{
    uint64_t ppm;
    if (!decimal(&text, PPM, &ppm) || *text || ppm < PPM || ppm > LITHOS_SHARE_SLIP_MAX_PPM)
        return false;
    *ret_ppm = (uint32_t)ppm;
    return true;
}

int lithos_share_parse(uint32_t option, const char *text, struct lithos_share *share)
{
    struct lithos_share s = {.given = option};
    bool off = !strcmp(text, "off"), borrow = !strcmp(text, "borrow"), ok = false;
    if (option == LITHOS_SHARE_WEIGHT)
        ok = number(text, LITHOS_SHARE_WEIGHT_MAX, &s.weight);
    else if (option == LITHOS_SHARE_FLOOR)
        ok = number(text, LITHOS_TPC_BITS, &s.floor_tpcs);
    else if (option == LITHOS_SHARE_SLIP)
        ok = off || slip(text, &s.slip_ppm);
    else if (option == LITHOS_SHARE_SLO)
        ok = off || lithos_duration_parse(text, &s.slo_ns) == 0;
    else if (option == LITHOS_SHARE_GRAPHS)
        ok = borrow || !strcmp(text, "own");
    if (option == LITHOS_SHARE_GRAPHS && borrow)
        s.graphs = LITHOS_GRAPHS_BORROW;
    if (!ok)
        return -EINVAL;
    lithos_share_merge(share, &s);
    return 0;
}
