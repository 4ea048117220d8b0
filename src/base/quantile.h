/* Exact quantiles of a finished set of samples. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Sort samples ascending, in place. */
void lithos_sort_samples(double *samples, size_t count);
/* Nearest-rank quantile (0 <= q <= 1) of samples sorted ascending: the smallest sample that at least q of all samples
 * do not exceed. 0 when count is 0. */
double lithos_quantile(const double *sorted, size_t count, double q);
/* Ascending, in place, without memory of its own: for some hundreds of them. */
void lithos_sort_floats(float *v, uint32_t n);
