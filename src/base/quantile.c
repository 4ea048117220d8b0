#include "base/quantile.h"

#include <math.h>
#include <stdlib.h>

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void lithos_sort_samples(double *samples, size_t count)
{
    if (count)
        qsort(samples, count, sizeof *samples, compare_doubles);
}

double lithos_quantile(const double *sorted, size_t count, double q)
{
    if (!count)
        return 0;
    double rank = ceil(q * (double)count);
    size_t i = rank < 1 ? 0 : (size_t)rank - 1;
    return sorted[i < count ? i : count - 1];
}

void lithos_sort_floats(float *v, uint32_t n)
{
    static const uint32_t gaps[] = {301, 132, 57, 23, 10, 4, 1}; /* shell sort, Ciura's gaps */

    for (unsigned g = 0; g < sizeof gaps / sizeof *gaps; g++) {
        for (uint32_t i = gaps[g]; i < n; i++) {
            const float x = v[i];
            uint32_t j = i;
            for (; j >= gaps[g] && v[j - gaps[g]] > x; j -= gaps[g])
                v[j] = v[j - gaps[g]];
            v[j] = x;
        }
    }
}
