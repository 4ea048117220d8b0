#include "sim/random.h"

/* -ln(u) for u in (0, 1], u = x / 2^64, times 2^32: ln 2 times the leading zeros, and the rest by the series of
 * artanh, which is exact to 1e-9 here. */
static uint64_t minus_log(uint64_t x)
{
    const uint64_t ln2 = 2977044472ull; /* 2^32 ln 2 */
    if (!x)
        x = 1;
    const unsigned zeros = (unsigned)__builtin_clzll(x);
    const uint64_t m = (x << zeros) >> 32; /* [2^31, 2^32): m / 2^31 in [1, 2) */
    /* ln(m / 2^31) = 2 artanh(z), z = (m - 2^31) / (m + 2^31) in [0, 1/3) */
    const uint64_t z = ((m - (1ull << 31)) << 32) / (m + (1ull << 31)), z2 = (z * z) >> 32;
    uint64_t term = z, sum = 0;
    for (unsigned n = 1; n < 25 && term; n += 2) {
        sum += term / n;
        term = (term * z2) >> 32;
    }
    return (zeros + 1) * ln2 - 2 * sum;
}

uint64_t lithos_random_exponential_ns(struct lithos_random *r, uint64_t mean_ns)
{
    return (uint64_t)(((unsigned __int128)mean_ns * minus_log(lithos_random_next(r))) >> 32);
}
