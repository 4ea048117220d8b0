/* When did each kernel of a tenant run? Launch records and the GPU's completion stamps become kernel events: start, end,
 * duration; and from these the tenant's account. Pure: no I/O, no clock, no thread; all memory given at init.
 *
 * The GPU stamps ends only. A kernel starts when the one before it on its stream has ended, and the card has turned to it (a
 * constant of the card), or when it can have reached the card, whichever is later: duration = end - max(end before it +
 * turn, end of the launch call + launch latency). That is exact to a fraction of a microsecond for kernels
 * back to back, off by the clock's error for one that finds its stream idle, and an upper bound where the stream also
 * waited for something that leaves no stamp (a copy, another stream). Where another stream of the tenant ran meanwhile,
 * the kernels shared the TPCs: the duration is true but not the kernel's alone, and says so (LITHOS_KERNEL_OVERLAPPED).
 *
 * A launch that was cut into atoms comes in as many, one behind another, and makes one event: from the start of the first to the
 * latest end. Atoms may overlap where they meet, so the end of one may come after that of the next.
 *
 * A graph's replay comes in as its kernels, or as one launch that stands for them all and ends with the last of them: that is as good for who
 * asks how long the card was at it, and costs as much as one kernel.
 *
 * Every kernel given in ends in exactly one of: an event, a count of lost[], or outstanding; the atoms of one count as one. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/tpcset.h"
#include "core/clockmap.h"
#include "core/predict.h"

#define LITHOS_TIMELINE_GPUS 16u
/* Histogram of durations: 16 slots an octave, so that a quantile is within 3.2 %; up to 2^42 ns. */
#define LITHOS_TIMELINE_SLOTS 640u
#define LITHOS_TIMELINE_NONE UINT32_MAX

enum lithos_kernel_flag {
    LITHOS_KERNEL_GRAPH_NODE = 1u << 0,
    LITHOS_KERNEL_DRIVER = 1u << 1,
    LITHOS_KERNEL_OVERLAPPED = 1u << 2, /* another stream of the tenant ran on the GPU meanwhile */
    LITHOS_KERNEL_CLAMPED = 1u << 3,    /* the clock put its end before submission or after it was seen */
    LITHOS_KERNEL_AFTER_GAP =
        1u << 4, /* a launch before it on its stream has no end: the start is too early */
};

/* Why a launch has no event. */
enum lithos_timeline_lost {
    LITHOS_LOST_NO_SLOT,     /* no stamp slot was free */
    LITHOS_LOST_TAKEN,       /* somebody else uses the release semaphore */
    LITHOS_LOST_OFF,         /* stamps are off, or the memory is not registered with its GPU */
    LITHOS_LOST_OVERWRITTEN, /* a later stamp took its slot before it was read */
    LITHOS_LOST_MISSING,     /* later ones of its stream ended and it never did */
    LITHOS_LOST_NO_ROOM,     /* more outstanding launches or streams than the timeline takes */
    LITHOS_LOST_DIED,        /* in flight when its process ended */
    LITHOS_LOST_REPLAY,      /* a graph's node ran again before its stamp was read */
    LITHOS_LOST_MAX,
};

struct lithos_timeline_launch {
    uint32_t process; /* the caller's number of it */
    uint32_t gpu;
    uint64_t stream;   /* names a stream within process and gpu */
    uint64_t sequence; /* the process's count of launches */
    uint64_t stamp;    /* what the GPU will write; 0: nothing, see lost */
    uint64_t submit_ns;
    uint64_t call_ns;  /* how long the launch call took */
    uint64_t function; /* names it within the tenant: what operators are told apart by */
    uint32_t grid[3], block[3];
    uint32_t cluster_blocks, shared_bytes, registers;
    uint32_t atom, atoms;      /* this part of a launch, of so many; 0 atoms: the whole */
    uint64_t operator_key;     /* as the process names it, 0: does not */
    uint64_t size_key;         /* by which it looks up its TPCs, 0: it does not */
    uint32_t size_before;      /* the shape before it, of which that is as well */
    uint32_t blocks_per_sm;    /* at once; 0: not known */
    uint32_t flags;            /* LITHOS_KERNEL_GRAPH_NODE, _DRIVER */
    uint32_t lost;             /* enum lithos_timeline_lost: why there is no stamp */
    struct lithos_tpcset tpcs; /* where it may run */
    uint32_t tpc_count;        /* of them on the card; 0: all of the card's */
    uint32_t graph;            /* graph replays: which, in the caller's words */
    uint32_t kernels;          /* of a graph's replay, whose last has this stamp; 0, 1: it is one kernel */
    uint32_t weight;           /* it stands for so many like it in what operators took; 0: for itself */
    uint32_t busy_ppm; /* with kernels: what these took of its time, without the turns between; 0: all */
    /* graph replays: the GPU's time at the end of the one before, when that is known; what a stamp shows is older, or of this one. The caller's,
     * and to outlive the launch */
    const uint64_t *before_end_ns;
    uint64_t predicted_ns; /* 0: was not */
    struct lithos_predict_ticket ticket;
};

struct lithos_kernel_event {
    const struct lithos_timeline_launch *launch;
    uint64_t start_ns, end_ns; /* host's clock */
    uint64_t gpu_end_ns;       /* as stamped */
    uint32_t flags;            /* enum lithos_kernel_flag */
    uint32_t atoms;            /* it was cut into so many; 0: not */
    uint64_t longest_atom_ns;  /* from one atom's end to the next one's */
    uint64_t busy_ns; /* from start to end, less the times in between when no atom of it was there to run */
};

struct lithos_timeline_config {
    uint32_t launches;  /* outstanding at most */
    uint32_t streams;   /* known at a time */
    uint32_t operators; /* accounted for one by one; the rest together, under function 0 */
    uint32_t gpu_count;
    uint64_t missing_ns; /* a launch is missing when one behind it has ended for so long */
    uint64_t replay_ns;  /* a graph's node that shows nothing new for so long was overtaken by itself */
    /* Told of each atom as it ends, with poll's ctx: its launch, its own times and TPCs. NULL: of kernels alone, when all of their atoms
     * have. */
    void (*atom)(void *ctx, const struct lithos_kernel_event *event);
    struct {
        uint32_t tpcs;
        uint64_t
            launch_latency_ns; /* from the end of the launch call to the first block, at least; of the card's time */
        uint64_t turn_ns;       /* from the end of a kernel to the first block of the one behind it */
        uint32_t drift_max_ppb; /* of its clock; 0: any rate */
        bool drift_known;       /* drift_ppb is what a clock map of this GPU said earlier */
        int64_t drift_ppb;
    } gpu[LITHOS_TIMELINE_GPUS];
};

struct lithos_timeline_histogram {
    uint64_t count;
    uint32_t slot[LITHOS_TIMELINE_SLOTS];
};

struct lithos_timeline_operator {
    uint64_t function; /* 0: all that found no place of their own */
    uint64_t kernels, total_ns, tpc_ns;
    struct lithos_timeline_histogram durations;
};

struct lithos_timeline_stats {
    uint64_t launches; /* of kernels, given in; = kernels + outstanding + sum of lost */
    uint64_t kernels;  /* that have ended */
    uint64_t outstanding;
    uint64_t gpu_outstanding[LITHOS_TIMELINE_GPUS]; /* launches: a replay that came in as one is one */
    uint64_t lost[LITHOS_LOST_MAX];
    uint64_t tpc_ns; /* durations times TPCs */
    uint64_t overlapped, clamped;
    uint64_t clock_jumps;
    uint64_t cut, atoms; /* kernels that came in parts, and the parts */
};

/* The last second before now_ns. */
struct lithos_timeline_rates {
    double launches_per_s;
    double busy_tpcs; /* on average; streams that overlap count once */
};

struct lithos_timeline; /* opaque */

/* ret_seen_ns: the host's time just after the stamp was read; as it comes it is the call's now_ns. */
typedef int lithos_timeline_read(void *ctx, uint32_t process, uint64_t stamp, uint64_t *ret_gpu_ns,
                                 uint64_t *ret_seen_ns);
typedef void lithos_timeline_emit(void *ctx, const struct lithos_kernel_event *event);

/* Bytes it takes. 0; -EINVAL: a bound of 0 or above 1 Mi, or GPUs out of range. */
int lithos_timeline_size(const struct lithos_timeline_config *config, size_t *ret_bytes);
/* Begin in mem (aligned to 16, zeroed, the caller's); nothing is to be freed. 0, -EINVAL, -ENOSPC. */
int lithos_timeline_init(void *mem, size_t bytes, const struct lithos_timeline_config *config,
                         struct lithos_timeline **ret_timeline);
/* A launch or an atom of one, in order of submission of its process. Any values. False: it is lost already (no stamp, no room). */
bool lithos_timeline_submit(struct lithos_timeline *tl, const struct lithos_timeline_launch *launch);
/* Look at outstanding stamps through read (1 with the GPU's time, 0 not yet, -ESTALE overwritten) and emit what has
 * ended, in the order of its ends within the call. now_ns: taken before the call, so that no stamp it does not see is
 * earlier. Returns how many ended. */
unsigned lithos_timeline_poll(struct lithos_timeline *tl, uint64_t now_ns, lithos_timeline_read *read,
                              lithos_timeline_emit *emit, void *ctx);
/* The process waited for the stream, or for all of its streams, until until_ns: what it submitted there before `sequence` had ended then.
 * Replays of graphs that show a later end, or none in the 0.1 ms after now_ns, were overtaken. */
void lithos_timeline_waited(struct lithos_timeline *tl, uint32_t process, uint64_t stream, bool all,
                            uint64_t sequence, uint64_t until_ns, uint64_t now_ns);
/* The process has ended, and was polled a last time: what is outstanding died with it. */
void lithos_timeline_forget(struct lithos_timeline *tl, uint32_t process);

const struct lithos_timeline_stats *lithos_timeline_stats(const struct lithos_timeline *tl);
struct lithos_timeline_rates lithos_timeline_rates(const struct lithos_timeline *tl, uint64_t now_ns);
/* Duration that a share q of the kernels of the last 5 to 10 busy seconds does not exceed; 0: none. */
uint64_t lithos_timeline_quantile_ns(const struct lithos_timeline *tl, double q);
uint64_t lithos_timeline_operator_quantile_ns(const struct lithos_timeline_operator *op, double q);
/* The i-th operator, in no order; NULL past the last. */
const struct lithos_timeline_operator *lithos_timeline_operator(const struct lithos_timeline *tl, uint32_t i);
const struct lithos_clockmap *lithos_timeline_clock(const struct lithos_timeline *tl, uint32_t gpu);
/* "no_slot", "died", ...; never NULL. */
const char *lithos_timeline_lost_name(enum lithos_timeline_lost lost);
