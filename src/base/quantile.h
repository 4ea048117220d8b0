/* Exact quantiles of a finished set of samples. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Sort samples ascending, in place. */
void lithos_sort_samples(double *samples, size_t count);
/* Nearest-rank quantile (0 <= q <= 1) of samples sorted ascending: the smallest sample that at least q of all samples
 * do not exceed. 0 when count is 0. */
double lithos_quantile(const double *sorted, size_t count, double q);
/* The value that is at `nth` (below n) when they are sorted ascending. Reorders v, in time proportional to n in the mean. */
float lithos_nth_float(float *v, uint32_t n, uint32_t nth);
