/* What timeline.c and timeline_account.c share. */
#pragma once

#include "core/timeline.h"

#define TIMELINE_BUCKETS 12u /* of 100 ms: a whole second, and those that are being filled */
#define TIMELINE_BUCKET_NS 100000000ull
#define TIMELINE_RECENT_NS 5000000000ull
#define TIMELINE_WAITS 16u

struct timeline_slot {
    uint32_t next; /* launch behind it on its stream; or next free slot */
    bool done, after_gap;
    bool ends;      /* no further atom of its launch comes behind it */
    uint8_t broken; /* with ends: why its launch is lost all the same, plus 1 */
    uint64_t gpu_end_ns, end_ns, seen_ns;
    struct lithos_timeline_launch launch;
};

/* What was submitted before `sequence` had ended at until_ns, as was heard at heard_ns. */
struct timeline_wait {
    uint64_t sequence, until_ns, heard_ns;
};

struct timeline_stream {
    bool used, gap; /* gap: a launch before the next one has no end */
    uint32_t process, gpu;
    uint64_t handle;
    uint32_t next;               /* of its bucket; or next free one */
    uint32_t before, after;      /* among those with outstanding launches */
    uint32_t head, tail;         /* slots, in order of submission */
    uint64_t end_ns, gpu_end_ns; /* of the kernel before the head */
    uint64_t behind_since_ns;    /* the launch behind the head was first seen to have ended; 0: not */
    uint64_t used_ns;
    struct timeline_wait waits[TIMELINE_WAITS]; /* the last ones, by sequence */
    uint32_t wait_count;
    /* the launch that comes in: its next atom; atoms 0: none is being cut */
    uint64_t cut_sequence;
    uint32_t cut_next, cut_atoms;
    /* the launch whose atoms are ending */
    bool joining;
    uint8_t join_lost;               /* why one of its atoms was lost, plus 1 */
    uint64_t join_tpc_ns;            /* of its atoms: busy times TPCs */
    struct lithos_kernel_event join; /* its launch is join_launch */
    struct lithos_timeline_launch join_launch;
};

struct timeline_gpu {
    struct lithos_clockmap clock;
    uint32_t last_stream[2]; /* that ended last, and the one of another stream before it */
    uint64_t last_end_ns[2];
    uint64_t busy_until_ns;
};

struct timeline_bucket {
    uint64_t number; /* time / TIMELINE_BUCKET_NS */
    uint64_t launches;
    double tpc_ns;
};

struct lithos_timeline {
    struct lithos_timeline_config config;
    struct timeline_slot *slots;
    struct timeline_stream *streams;
    uint32_t *buckets;
    struct lithos_timeline_operator *operators;
    uint32_t bucket_count, slot_high, stream_high, operator_count;
    uint32_t free_slot, free_stream, active;
    struct lithos_timeline_stats stats;
    struct timeline_bucket rate[TIMELINE_BUCKETS];
    uint64_t recent_begin_ns;
    struct lithos_timeline_histogram recent[2]; /* of these seconds and of those before */
    struct timeline_gpu gpu[LITHOS_TIMELINE_GPUS];
};

void timeline_count_submit(struct lithos_timeline *tl, uint64_t submit_ns, uint32_t kernels);
void timeline_count_kernel(struct lithos_timeline *tl, const struct lithos_kernel_event *e);

/* ---- timeline_atoms.c ---- */

/* A launch comes in on a stream, in atoms or not. */
void timeline_cut_begins(struct timeline_stream *s, const struct lithos_timeline_launch *l);
/* A further atom comes in. False: it belongs to no launch that is whole up to it. */
bool timeline_cut_goes_on(struct lithos_timeline *tl, uint32_t stream,
                          const struct lithos_timeline_launch *l);
/* What comes in next is another launch: should atoms of the one before be missing, that is lost. */
void timeline_cut_ends(struct lithos_timeline *tl, uint32_t stream, enum lithos_timeline_lost why);

enum timeline_joined {
    TIMELINE_JOINED,     /* others are to come */
    TIMELINE_JOIN_ENDED, /* it was the last: the event is the launch's */
    TIMELINE_JOIN_LOST,  /* it was the last, and another one was lost: timeline_stream.join_lost */
};
/* The atom at the head has ended, with an event as if it were a kernel. */
enum timeline_joined timeline_join(struct lithos_timeline *tl, uint32_t stream,
                                   const struct timeline_slot *slot, struct lithos_kernel_event *e);
/* It is lost. True: and its launch with it, for that reason. */
bool timeline_join_lost(struct timeline_stream *s, const struct timeline_slot *slot,
                        enum lithos_timeline_lost why, enum lithos_timeline_lost *ret_why);
