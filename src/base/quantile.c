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

/* Hoare's: what is below a value goes to its left, what is above to its right, and on with the side where nth is. */
float lithos_nth_float(float *v, uint32_t n, uint32_t nth)
{
    for (int64_t left = 0, right = (int64_t)n - 1; left < right;) {
        const float x = v[nth];
        int64_t i = left, j = right;
        while (i <= j) {
            while (v[i] < x)
                i++;
            while (x < v[j])
                j--;
            if (i > j)
                break;
            const float y = v[i];
            v[i++] = v[j];
            v[j--] = y;
        }
        if (j < nth)
            left = i;
        if (nth < i)
            right = j;
    }
    return v[nth];
}
