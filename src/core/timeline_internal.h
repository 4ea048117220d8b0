/* What timeline.c and timeline_account.c share. */
#pragma once

#include "core/timeline.h"

#define TIMELINE_BUCKETS 12u /* of 100 ms: a whole second, and those that are being filled */
#define TIMELINE_BUCKET_NS 100000000ull
#define TIMELINE_RECENT_NS 5000000000ull

struct timeline_slot {
    uint32_t next; /* launch behind it on its stream; or next free slot */
    bool done, after_gap;
    uint64_t gpu_end_ns, end_ns, seen_ns;
    struct lithos_timeline_launch launch;
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

void timeline_count_submit(struct lithos_timeline *tl, uint64_t submit_ns);
void timeline_count_kernel(struct lithos_timeline *tl, const struct lithos_kernel_event *e);
