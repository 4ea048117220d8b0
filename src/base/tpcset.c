#include "base/tpcset.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

unsigned lithos_tpcset_next(const struct lithos_tpcset *s, unsigned from)
{
    while (from < LITHOS_TPC_BITS) {
        uint64_t rest = s->w[from / 64] >> (from % 64);
        if (rest)
            return from + (unsigned)__builtin_ctzll(rest);
        from = (from / 64 + 1) * 64;
    }
    return LITHOS_TPC_BITS;
}

char *lithos_tpcset_format(const struct lithos_tpcset *s, char text[LITHOS_TPCSET_TEXT_MAX])
{
    size_t len = 0;
    text[0] = '\0';
    for (unsigned lo = lithos_tpcset_next(s, 0), hi; lo < LITHOS_TPC_BITS;
         lo = lithos_tpcset_next(s, hi + 1)) {
        for (hi = lo; lithos_tpcset_has(s, hi + 1); hi++)
            ;
        int n = snprintf(text + len, LITHOS_TPCSET_TEXT_MAX - len, hi > lo ? "%s%u-%u" : "%s%u",
                         len ? "," : "", lo, hi);
        len += (size_t)n;
    }
    if (!len)
        strcpy(text, "-");
    return text;
}

static int parse_bit(const char **text, unsigned *ret_bit)
{
    if (**text < '0' || **text > '9')
        return -EINVAL;
    char *end;
    unsigned long v = strtoul(*text, &end, 10);
    if (v >= LITHOS_TPC_BITS)
        return -EINVAL;
    *text = end;
    *ret_bit = (unsigned)v;
    return 0;
}

int lithos_tpcset_parse(const char *text, struct lithos_tpcset *ret_set)
{
    struct lithos_tpcset set = {{0, 0}};
    if (strcmp(text, "-") != 0) {
        for (;; text++) {
            unsigned lo, hi;
            int r = parse_bit(&text, &lo);
            if (r < 0)
                return r;
            hi = lo;
            if (*text == '-') {
                text++;
                r = parse_bit(&text, &hi);
                if (r < 0 || hi < lo)
                    return -EINVAL;
            }
            for (unsigned b = lo; b <= hi; b++)
                lithos_tpcset_add(&set, b);
            if (*text == '\0')
                break;
            if (*text != ',')
                return -EINVAL;
        }
    }
    *ret_set = set;
    return 0;
}
