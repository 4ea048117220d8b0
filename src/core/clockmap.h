/* A GPU's clock on the host's, from what each completion tells: submit <= end <= seen.
 *
 * The GPU stamps g when a kernel ends; the host knows when it was submitted and when its stamp was seen. So the line
 * host(g) lies below all points (g, seen) and above all (g, submit). Stamps that happen to be looked at just after
 * they were written lie closest to it: the line is the one below all points of the last seconds that comes highest in
 * their middle, an edge of their lower convex hull (Moon, Skelly and Towsley, "Estimation and removal of clock skew",
 * 1999). That gives offset and drift at once, and needs no guess of either. Pure; no memory but the struct's own.
 *
 * The slope takes a second of points. Before, it is the one that the caller knows from earlier (a card's clock drifts by the same
 * for days), or, where it knows none, any up to drift_max_ppb: then an old point counts for less, by what may have
 * drifted since.
 *
 * A point that contradicts the line by more than LITHOS_CLOCKMAP_JUMP_NS is a jump of one of the clocks (a GPU reset,
 * a machine that slept): everything known is dropped and counted. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define LITHOS_CLOCKMAP_POINTS 64u
#define LITHOS_CLOCKMAP_WINDOW_NS 4000000000ull /* of one half: points are kept for one to two of these */
#define LITHOS_CLOCKMAP_JUMP_NS 5000000ull
/* The most that a card's clock is taken to drift: crystals are good to 100 ppm. 24.0 ppm was measured, alike over an hour
 * (docs/hardware.md). */
#define LITHOS_CLOCKMAP_DRIFT_MAX_PPB 200000u

struct lithos_clockmap_point {
    double gpu, host; /* ns since the anchors */
};

struct lithos_clockmap_hull {
    uint32_t count;
    struct lithos_clockmap_point point[LITHOS_CLOCKMAP_POINTS];
};

struct lithos_clockmap {
    uint32_t drift_max_ppb; /* 0: any rate (a virtual GPU's time may run slower than the host's) */
    bool known;             /* there is an anchor */
    bool fitted;            /* there is a line */
    bool slope_known;       /* of it, from a second of points, or given */
    uint64_t gpu_anchor, host_anchor;
    uint64_t half_begin_ns, fit_ns;
    /* Seen points from below and submit points from above, of this half of the window and of the one before. */
    struct lithos_clockmap_hull seen[2], submit[2];
    double at, rate; /* host = at + rate * gpu, since the anchors */
    bool slope_given;
    double given_rate;
    double bound_ns;
    uint64_t samples, jumps;
};

/* drift_max_ppb 0: the rate is free, and the clock is not mapped before some tens of ms have been seen. */
void lithos_clockmap_init(struct lithos_clockmap *m, uint32_t drift_max_ppb);
/* The drift is known from earlier: what lithos_clockmap_drift_ppb said of a map whose slope was known. Before the first
 * completion. */
void lithos_clockmap_expect(struct lithos_clockmap *m, int64_t drift_ppb);
/* A completion: submitted and seen at these host times, stamped gpu_ns. True: the clocks had jumped. Any values. */
bool lithos_clockmap_observe(struct lithos_clockmap *m, uint64_t submit_ns, uint64_t gpu_ns,
                             uint64_t seen_ns);
/* False: not known yet. Never before the epoch of the host's clock. */
bool lithos_clockmap_host(const struct lithos_clockmap *m, uint64_t gpu_ns, uint64_t *ret_host_ns);
/* How much earlier than mapped a time of the window can have been (it cannot have been later but for the drift's
 * uncertainty, which a point of the next ms corrects); UINT64_MAX: not known. */
uint64_t lithos_clockmap_bound_ns(const struct lithos_clockmap *m);
/* The same, where another map of the same two clocks is known (of another tenant, whose kernels are shorter, say): no more than that
 * map's bound and what the two are apart at a time of the host's. */
uint64_t lithos_clockmap_bound_beside_ns(const struct lithos_clockmap *m, const struct lithos_clockmap *other,
                                         uint64_t host_ns);
/* Host minus GPU clock at gpu_ns, and by how much the host's is faster in 1e-9; 0 when not known. */
int64_t lithos_clockmap_offset_ns(const struct lithos_clockmap *m, uint64_t gpu_ns);
int64_t lithos_clockmap_drift_ppb(const struct lithos_clockmap *m);
