/* Inside the launch queues.
 *
 * The app's threads put entries into one ring, whose order is the order of all calls. Whoever holds the turn, the dispatcher or for one
 * launch a thread of the app's, is the issuer: it sorts entries into their streams, and gives them to the driver when what has to come
 * before has been issued and the window has room. What only the issuer touches needs no other care. */
#pragma once

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "base/util.h"
#include "cuda/cuda_abi.h"
#include "driver/gate.h"
#include "driver/order.h"
#include "driver/qmd_hook.h"
#include "hw/tpcgrant.h"
#include "proto/arena.h"
#include "tenant/queue.h"
#include "tenant/queue_ring.h"

#define QUEUE_RING_GRANULES 16384u /* 1 MiB */
#define QUEUE_STREAMS 1024u
#define QUEUE_STREAM_SLOTS 2048u /* powers of two */
#define QUEUE_EVENT_SLOTS 16384u
#define QUEUE_FUNCTION_SLOTS 16384u
#define QUEUE_CONTEXTS 64u
#define QUEUE_DEVICES (LITHOS_HOOK_MAX_DEVICES + 1u) /* the last: not known */
/* Calls that a stream may have queued; then the app waits, as it does for a card. */
#define QUEUE_DEPTH 1024u
#define QUEUE_FLIGHTS 128u
#define QUEUE_PARAMETERS 256u
#define QUEUE_PARAMETER_BYTES 32768u
#define LITHOS_QUEUE_ROUND(bytes, to) (((bytes) + (to)-1) / (to) * (to))
#define QUEUE_ATTRIBUTES 16u
#define QUEUE_ARGUMENTS 7u

/* ---- what calls are about ---- */

struct queue_context {
    _Atomic(CUcontext) ctx; /* NULL: nobody's */
    uint32_t device;        /* index below QUEUE_DEVICES */
    _Atomic int error;      /* of a queued call, CUresult, until the app is told */
    atomic_bool lost;       /* it fails every call: queueing only hides that */
    struct queue_stream *legacy;
};

/* A kernel, or a graph, that was given to the card and has not been seen to end. */
struct queue_flight {
    uint64_t stamp; /* the GPU will write it; 0: an event, or nothing tells */
    CUevent event;
    uint32_t generation; /* of the stamps' pages */
    uint32_t estimate;   /* where its duration is learnt */
    uint32_t device;
    uint32_t parts;   /* it is one of so many atoms of a kernel; 0: whole */
    uint32_t width;   /* enum queue_width */
    bool behind_more; /* there are some before it that were not followed: nothing is learnt from it */
    uint64_t predicted_ns, issued_ns;
};

TAILQ_HEAD(queue_entries, queue_entry);

struct queue_stream {
    _Atomic uintptr_t key; /* the handle; of a context's default stream its address and 1; 0: nobody's */
    struct queue_context *context;
    bool legacy, blocking;
    atomic_bool renewed; /* it is another stream than before: what is in flight is not its own */
    _Alignas(64) _Atomic uint32_t enqueued; /* calls ever */
    _Alignas(64) _Atomic uint32_t issued;
    /* the issuer's */
    struct queue_entries entries;
    TAILQ_ENTRY(queue_stream) active, flying;
    bool is_active, is_flying;
    bool has_more;             /* there was no room to follow those behind the youngest flight */
    uint32_t first, in_flight; /* of flights, a ring */
    uint64_t outstanding_ns, end_ns,
        end_host_ns;         /* by prediction; the last end by the card's clock and by ours */
    uint64_t waits_since_ns; /* its first, for wider TPCs; 0: it does not */
    struct queue_flight flights[QUEUE_FLIGHTS];
};

TAILQ_HEAD(queue_streams, queue_stream);

struct queue_event {
    _Atomic uint32_t recorded, records_issued; /* records ever queued and issued */
    _Atomic uint32_t touched, touches_issued;  /* the same for all that names it */
    atomic_bool shared;                        /* another process sees it */
    /* the issuer's */
    uint32_t version, version_issued; /* records met */
    uint32_t waits, waits_issued;
};

struct queue_parameter {
    uint32_t offset, bytes;
};

struct queue_function {
    _Atomic uint32_t epoch;   /* what is said here holds, if it is the queue's; 0: not looked at yet */
    _Atomic uint32_t version; /* of its attributes */
    uint32_t parameters, bytes;
    bool copyable;
    uint32_t room; /* behind the pointer */
    struct queue_parameter *parameter;
    uint16_t set; /* attributes that the app has set, and to what */
    int value[16];
    /* The most dynamic shared memory that the app has allowed, where the driver was left with more; INT_MAX: the driver has it. */
    _Atomic int shared_limit;
    int shared_device; /* for which the app said so of a CUkernel; -1: of a CUfunction */
};

/* Handles to places, found without a lock, put and taken away under one. */
struct queue_map {
    _Atomic uintptr_t *keys;
    uint32_t slots; /* a power of two */
    uint32_t used;
};

enum queue_kind { QUEUE_CALL, QUEUE_LAUNCH, QUEUE_DESTROY };

struct queue_entry {
    struct lithos_queue_header ring;
    uint8_t kind; /* enum queue_kind */
    uint8_t form; /* enum lithos_order_form */
    uint16_t function;
    bool is_first;  /* nothing of its stream was queued: it may be issued at once */
    uint8_t thread; /* whose it is (lithos_records_thread) */
    struct queue_stream *stream;
    struct queue_event *event;
    uint64_t estimate_key; /* what is alike takes alike; 0: it takes no time that counts */
    /* the issuer's */
    TAILQ_ENTRY(queue_entry) link;
    uint64_t number;
    uint32_t version, waits; /* of the event */
    bool spilled;            /* moved out of the ring */
    union {
        uintptr_t args[QUEUE_ARGUMENTS];
        struct {
            CUfunction function;
            const struct queue_function *of;
            CUstream stream;
            unsigned grid[3], block[3], shared_bytes;
            uint16_t attributes;
            bool extra; /* parameters came as one buffer */
            uint32_t bytes;
        } launch;
    };
    _Alignas(16) unsigned char data[];
};

/* A card's clock on ours. What is seen of the two at once is never too early, so the least that was seen between them is nearest. */
struct queue_clock {
    int64_t drift_ppb;       /* by which ours is faster, as lithosd says */
    uint64_t card_ns, at_ns; /* the same moment by the card's and by ours; at_ns 0: not known */
    uint64_t seen_ns;        /* and when that was last looked at */
};

struct queue_device {
    struct lithos_rule rule; /* in force; flags 0: none */
    uint32_t rule_seq, quota_seq, generation;
    bool lent, spare;
    struct lithos_gate gate;       /* of the quota and all that the rule names */
    struct lithos_gate spare_gate; /* of the quota and what is good for all kernels */
    uint32_t own_tpcs, lent_tpcs;  /* of the two */
    uint32_t widest_tpcs;          /* the most that the latter had lately: */
    uint64_t widest_until_ns;      /* so many are remembered till then */
    uint64_t outstanding_ns;
    uint32_t in_flight;
    uint8_t gpu; /* of the grant; 0xff: not of it */
    struct queue_clock clock;
};

/* Where a kernel runs: it takes other times there. */
enum queue_width {
    QUEUE_OWN, /* on the quota, and what is nobody's */
    QUEUE_LENT,
    QUEUE_WIDTHS,
};

struct queue_estimate {
    uint64_t key;
    uint64_t ns[QUEUE_WIDTHS]; /* of all its parts */
    uint32_t parts;            /* that it is given to the card in; 0: whole */
    uint32_t wholes;           /* times in a row that it was whole */
    bool learnt[QUEUE_WIDTHS];
};

/* What is gathered (queue_gather.c): calls from behind one wait of the program's to the next. */
enum queue_gather_state {
    QUEUE_GATHER_NOTHING,
    QUEUE_GATHER_WAITS, /* what has come stays */
    QUEUE_GATHER_PIECE, /* what came in time goes, and then what comes behind it stays */
    QUEUE_GATHER_FLOWS, /* all goes as it comes */
};

enum queue_ahead {
    QUEUE_AHEAD_APART,
    QUEUE_AHEAD_BEHIND, /* another: it waited for that, and others may wait for it */
    QUEUE_AHEAD,
};

struct queue_gather {
    enum queue_gather_state state;
    bool is_over;              /* somebody has waited for it */
    bool is_ahead, is_settled; /* it was let go ahead of that; it is known when the card was done with it */
    uint32_t wanted;           /* entries, as it began */
    uint32_t upto;             /* of a piece */
    uint32_t kernels; /* that have come: of other calls some are queued at one time and not at another */
    uint64_t begun_ns, since_ns; /* the latter: of its piece */
    uint64_t pause_ns;           /* after what was before it was over */
    uint64_t key;                /* of its first kernel */
    enum queue_ahead kind;       /* as of then */
    uint64_t card_ns;            /* what has come takes the card */
};

/* And what is known of those that begin with one kernel. */
struct queue_request {
    uint64_t key;
    uint32_t kernels;
    uint32_t in_a_row; /* that came behind another */
    uint64_t card_ns;  /* what they take, by prediction */
    uint64_t host_ns;  /* from the first to the wait */
    uint64_t
        ahead_ns[QUEUE_AHEAD]; /* they go so long before that, by whether they came right behind another */
};

#define QUEUE_REQUESTS 64u /* a power of two */
#define QUEUE_ESTIMATES 8192u
#define QUEUE_EVENT_POOL 256u

struct queue {
    struct lithos_queue_ring ring;
    _Alignas(64) _Atomic uint32_t issued; /* entries ever */
    _Alignas(64) _Atomic uint32_t turn;   /* 1: somebody is the issuer */
    _Atomic uint32_t turn_wanted;         /* who waits to be it */
    _Alignas(64) _Atomic uint32_t asleep; /* the dispatcher waits for the tail to move */
    _Atomic uint32_t waiters, progress;   /* who waits for entries to be issued, and the word they wait on */
    atomic_bool
        open; /* issue without a window or rules: they are for the dispatcher's sake, or the process ends */

    atomic_bool spare;          /* a CPU is there for the dispatcher */
    _Atomic uint32_t wanted;    /* entries ever, up to the last that somebody waits for or asks about */
    _Atomic uint64_t wanted_ns; /* when that was raised */
    _Atomic uint32_t dozes;     /* the dispatcher waits for that, while calls are gathered */
    _Atomic uint64_t gather_ns; /* calls are gathered for so long; 0: they are not */
    atomic_bool used, ending;
    _Atomic uint32_t capturing; /* streams that the app's captures began in */
    atomic_bool event_nodes;    /* graphs record or wait for events */
    _Atomic uint32_t generation, function_epoch, graph_epoch, context_epoch;

    pthread_mutex_t lock; /* over additions to what follows */
    struct queue_context contexts[QUEUE_CONTEXTS];
    struct queue_map stream_map, event_map, function_map;
    _Atomic uint32_t stream_count; /* of streams[] ever used */
    struct queue_stream *streams;  /* [QUEUE_STREAMS] */
    uint16_t *stream_of;           /* by slot of the map */
    struct queue_event *events;    /* by slot */
    struct queue_function *functions;
    struct queue_parameter *parameters; /* of them all */
    uint32_t parameters_used;
    _Atomic uint64_t *checked; /* hashes of launches that the driver took */
    uintptr_t captures[64];
    uint32_t capture_count;

    /* the issuer's */
    struct queue_streams active, flying; /* with entries; with flights */
    struct queue_stream *loose;          /* of entries that belong to no stream */
    uint32_t held;                       /* entries met and not issued */
    uint64_t number;
    enum lithos_tpcpick blocked; /* why a kernel waits that was looked at last, and how long it is */
    uint64_t blocked_ns;
    bool fallen_open;
    uint64_t landed_ns; /* when the last that has ended did, by our clock */
    struct queue_gather gather;
    struct queue_request requests[QUEUE_REQUESTS]; /* by key */
    uint64_t progress_ns;
    CUcontext current; /* of the dispatcher */
    uint32_t current_epoch;
    struct queue_device devices[QUEUE_DEVICES];
    struct queue_estimate *estimates; /* and one more, for what nothing is to be learnt from */
    CUevent pool[QUEUE_EVENT_POOL];   /* events of our own that are free, each of the context beside it */
    struct queue_context *pool_of[QUEUE_EVENT_POOL];
    uint32_t pooled;
};

/* The process' queues; NULL: there are none. */
extern struct queue *_Atomic lithos_queue;

/* ---- queue_clock.c ---- */
/* How long it is by our clock what took so long by the card's. */
int64_t lithos_queue_clock_span_ns(const struct queue_clock *c, int64_t card_ns);
/* When something ended by our clock: it was seen to have at seen_ns, and did not before not_before_ns. 0: not known. */
uint64_t lithos_queue_clock_at_ns(struct queue_clock *c, uint64_t card_ns, uint64_t seen_ns,
                                  uint64_t not_before_ns);
/* What lithosd says of the card's clock; any value. */
void lithos_queue_clock_drift(struct queue_clock *c, int64_t drift_ppb);

/* ---- queue.c ---- */
enum queue_inline { QUEUE_INLINE_AUTO, QUEUE_INLINE_ROOM, QUEUE_INLINE_NEVER };
/* When a launch that finds nothing queued is made at once: LITHOS_QUEUE. */
extern enum queue_inline lithos_queue_inline;
extern uint64_t lithos_queue_window_ns; /* without a rule */

static inline uint32_t lithos_queue_depth(const struct queue *q)
{
    /* issued first: it only grows, and never beyond the other */
    uint32_t issued = atomic_load_explicit(&q->issued, memory_order_acquire);
    return lithos_queue_ring_entries(&q->ring) - issued;
}
void lithos_queue_wake_dispatcher(struct queue *q);
/* The dispatcher: sleep until something is queued, or for so long (0: without an end). */
void lithos_queue_rest(struct queue *q, uint64_t limit_ns);
/* The dispatcher: sleep for so long, or until more is wanted than what was, or somebody wants the turn. */
void lithos_queue_doze(struct queue *q, uint32_t was_wanted, uint64_t limit_ns);
/* It is to look, if it does that. */
void lithos_queue_rouse(struct queue *q);
/* Is nothing to be queued now? */
bool lithos_queue_closed(const struct queue *q);
/* The dispatcher is to look, if it sleeps. */
static inline void lithos_queue_wake(struct queue *q)
{
    if (__builtin_expect(atomic_load_explicit(&q->asleep, memory_order_seq_cst), 0))
        lithos_queue_wake_dispatcher(q);
}
bool lithos_queue_try_turn(struct queue *q);
void lithos_queue_take_turn(struct queue *q);
void lithos_queue_give_turn(struct queue *q);
/* The issuer: something was issued, for those who wait for it. */
void lithos_queue_progress(struct queue *q);
/* Wait until so many of a stream's calls have been issued (ever); by, ns of the monotonic clock or UINT64_MAX. False: not by then. */
bool lithos_queue_wait_issued(struct queue *q, const _Atomic uint32_t *issued, uint32_t upto, uint64_t by_ns);
void lithos_queue_count(enum lithos_counter what);

/* ---- queue_table.c ---- */
int lithos_queue_tables_init(struct queue *q);
/* The thread's own look-ups: for the child of a fork. */
void lithos_queue_tables_forget(void);
/* The thread's context; NULL: it has none, or there are too many. */
struct queue_context *lithos_queue_context(struct queue *q);
/* What a handle names there; add: also when it was not seen before. NULL: not known, or the thread's own default stream. */
struct queue_stream *lithos_queue_stream(struct queue *q, struct queue_context *c, CUstream handle, bool add);
struct queue_event *lithos_queue_event(struct queue *q, CUevent handle, bool add);
/* What the driver says of a function's parameters; NULL: not known. */
const struct queue_function *lithos_queue_function(struct queue *q, CUfunction handle);
/* Attributes that are set and asked for (queue_attribute.c). True: the call is done with. */
bool lithos_queue_set_attribute(struct queue *q, uint32_t function, const uintptr_t *args,
                                CUresult *ret_result);
bool lithos_queue_get_attribute(struct queue *q, uint32_t function, const uintptr_t *args,
                                CUresult *ret_result);
/* Before a launch that has more shared memory than its function's shared_limit: let the driver say so. */
void lithos_queue_settle_shared(struct queue *q, CUfunction handle);
struct queue_function *lithos_queue_function_here(struct queue *q, CUfunction handle);
/* Launches that the driver took once. */
bool lithos_queue_checked(const struct queue *q, uint64_t hash);
void lithos_queue_check(struct queue *q, uint64_t hash);
void lithos_queue_forget_stream(struct queue *q, CUstream handle);
void lithos_queue_forget_event(struct queue *q, CUevent handle);
/* ctx NULL: all of that device. */
void lithos_queue_forget_contexts(struct queue *q, CUcontext ctx, int device);
/* Around calls of our own on a thread of the app's which would spoil what it, or another, captures. */
int lithos_queue_relax(void);
void lithos_queue_relax_no_more(int mode);
void lithos_queue_capture_begins(struct queue *q, uintptr_t stream);
void lithos_queue_capture_ends(struct queue *q, uintptr_t stream);

static inline uint64_t lithos_queue_mix(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * 0x9e3779b97f4a7c15ull;
    return hash ^ hash >> 29;
}

/* ---- queue_copy.c: what a call is made of ---- */
/* Can this launch wait? *ret_hash: what tells it from others that the driver might refuse; *ret_bytes: of its entry's data. */
bool lithos_queue_can_launch(const struct lithos_launch *l, const struct queue_function *f,
                             uint64_t *ret_hash, size_t *ret_bytes);
void lithos_queue_fill_launch(struct queue_entry *e, const struct lithos_launch *l,
                              const struct queue_function *f);
/* Can this call wait? *ret_bytes of data beside its words. */
bool lithos_queue_can_call(const struct lithos_order_row *row, const uintptr_t *args, size_t *ret_bytes,
                           enum lithos_drain *ret_why);
void lithos_queue_fill_call(struct queue_entry *e, const struct lithos_order_row *row, const uintptr_t *args);
/* Make the call that an entry is, or a launch as the app gave it, through our own entry points. */
CUresult lithos_queue_make(const struct queue_entry *e);
CUresult lithos_queue_launch(enum lithos_export function, const struct lithos_launch *l);

/* ---- queue_window.c; all the issuer's ---- */
uint64_t lithos_queue_estimate_key(const struct lithos_launch *l);
/* How long what has this key will take, in ns: learnt here from stamps; the place where a prediction of lithosd's would come in. The
 * whole of it; *ret_estimate: where that is learnt. */
uint64_t lithos_queue_predict_ns(struct queue *q, uint64_t key, enum queue_width width,
                                 uint32_t *ret_estimate);
/* Each of the parts that it is given to the card in, by where it runs. */
struct queue_length {
    uint64_t ns[QUEUE_WIDTHS];
    uint64_t wide_ns; /* on all that has been lent lately or is about to be */
    bool learnt[QUEUE_WIDTHS];
    bool few; /* what is lent now is little beside that: an idle neighbour's quota, while another is busy */
    uint32_t parts; /* 0: it is whole */
};
/* parts: that many; 0: whole; QUEUE_AS_EVER: as it was last. All 0 for key 0. */
#define QUEUE_AS_EVER UINT32_MAX
struct queue_length lithos_queue_length(struct queue *q, struct queue_stream *s, uint64_t key,
                                        uint32_t parts);
/* May work of a stream that is predicted to take so long be issued now? Looks at the rule: what may not go to lent TPCs has the
 * window of its own ones. */
bool lithos_queue_room(struct queue *q, struct queue_stream *s, const struct queue_length *length);
/* Where what takes so long may run; NULL: the quota. *ret_width: what that is. */
const struct lithos_gate *lithos_queue_gate(struct queue *q, struct queue_stream *s,
                                            const struct queue_length *length, enum queue_width *ret_width);
/* It runs on its own though something is lent: where that is for being too long there, it is taken for a little shorter from now on. */
void lithos_queue_forget_a_little(struct queue *q, struct queue_stream *s, uint64_t key,
                                  const struct queue_length *length);
/* Would all of a kernel, in one piece, run where this gate says, which one of its atoms has? */
bool lithos_queue_whole_goes_there(struct queue *q, struct queue_stream *s, uint64_t key,
                                   const struct lithos_gate *gate);
/* Would what takes so long be over sooner if it waited for TPCs that are about to be lent? For no longer than twice what it takes on its
 * own (hw/tpcgrant.c). Of the stream's first, or its next atom. */
bool lithos_queue_waits_for_wider(struct queue *q, struct queue_stream *s, const struct queue_length *length);
/* By how much longer than usual a kernel takes there: of a tenant without a quota that is given a TPC or two since it has starved. 1: it is
 * as ever. */
uint32_t lithos_queue_longer(struct queue *q, struct queue_stream *s, const struct lithos_gate *gate);
bool lithos_queue_held(struct queue *q, struct queue_stream *s);
/* Is there nowhere that what takes so long may run? Of a tenant that has no quota. */
bool lithos_queue_outlives(struct queue *q, struct queue_stream *s, const struct queue_length *length);
/* The same for anybody: does the rule for a device say hold? */
bool lithos_queue_holds(uint32_t device);
/* Is there one? */
bool lithos_queue_is_ruled(uint32_t device);
/* Or does it say that all the TPCs it has are those that are lent? */
bool lithos_queue_owns_nothing(uint32_t device);
/* It was issued: a kernel, or one of its parts. */
struct queue_takeoff {
    uint64_t stamp; /* tells its end; 0: event does */
    CUevent event;  /* NULL: there is none */
    uint64_t predicted_ns;
    uint32_t estimate; /* where its duration is learnt */
    uint32_t parts;    /* of so many; 0: it is whole */
    enum queue_width width;
};
void lithos_queue_fly(struct queue *q, struct queue_stream *s, const struct queue_takeoff *takeoff);
/* What has ended lands. True: something has. */
bool lithos_queue_reap(struct queue *q);
bool lithos_queue_reap_stream(struct queue *q, struct queue_stream *s);
/* Any thread, while all contexts are alive: forget the events of our own, with what they follow. One or the other may end. */
void lithos_queue_drop_events(struct queue *q);
/* Nothing can be issued: has that been so for too long? */
bool lithos_queue_stalled(const struct queue *q, uint64_t now_ns);
/* How long the dispatcher may sleep; 0: not at all. */
uint64_t lithos_queue_nap_ns(const struct queue *q, uint64_t now_ns);
void lithos_queue_window_forget(void);

/* ---- queue_gather.c ---- */
/* Any thread, behind its own entries: somebody waits for what is queued. */
void lithos_queue_want(struct queue *q);
/* The issuer: it has met an entry. */
void lithos_queue_gather_takes(struct queue *q, const struct queue_entry *e);
/* The issuer: is what is queued not to be issued yet? */
bool lithos_queue_gathers(struct queue *q);
/* Is more known to come of what goes now as it comes? */
bool lithos_queue_flows(struct queue *q);
/* The dispatcher, while that is so: a pause, or a short sleep that ends when somebody waits. */
void lithos_queue_gather_rest(struct queue *q);

/* ---- queue_issue.c ---- */
void *lithos_queue_dispatcher(void *queue);
/* What came of a queued call. */
void lithos_queue_note(struct queue_context *c, CUresult result);
/* A launch, or with graph one of a graph, by the app's own thread while nothing is queued: made with `call`, and followed. False: the
 * window has no room, or somebody else is the issuer. handle: the stream, as the app names it. */
bool lithos_queue_issue_now(struct queue *q, struct queue_stream *s, uint64_t key, bool graph,
                            CUstream handle, CUresult (*call)(const void *), const void *arg,
                            CUresult *ret_result);

/* ---- queue_drain.c; the app's threads: wait until calls have been issued ---- */
/* Has a stream something queued? */
static inline bool lithos_queue_pending(const struct queue_stream *s)
{
    return atomic_load_explicit(&s->issued, memory_order_acquire) !=
           atomic_load_explicit(&s->enqueued, memory_order_acquire);
}
/* All that a stream has queued. True: there was something to wait for. */
bool lithos_queue_wait_stream(struct queue *q, struct queue_stream *s);
/* All that is queued, of one context or (NULL) of the process. */
void lithos_queue_drain_all(struct queue *q, const struct queue_context *c, enum lithos_drain why);
/* What a call on a stream has to come after; c: the thread's context. */
void lithos_queue_drain_for(struct queue *q, struct queue_context *c, CUstream handle, enum lithos_drain why);
/* Until what an event counts as issued is what it counts as ever. True: there was something to wait for. */
bool lithos_queue_wait_event(struct queue *q, const _Atomic uint32_t *issued, const _Atomic uint32_t *ever);
/* All that names an event. */
void lithos_queue_drain_event(struct queue *q, CUevent handle, enum lithos_drain why);
/* Counts it, if there was something to wait for. What comes next is something new for those who gather. */
void lithos_queue_drained(struct queue *q, bool waited, enum lithos_drain why);
/* A launch that is not queued keeps to a rule that says hold as well: until it says something else, or its author is gone. */
void lithos_queue_hold_back(const struct queue *q, const struct queue_context *c);
/* The child of a fork. */
void lithos_queue_drain_forget(void);
/* An error of a queued call that the app was not told of yet: once. */
CUresult lithos_queue_take_error(struct queue_context *c);
/* The same of the thread's context. */
CUresult lithos_queue_error(void);

/* ---- queue_place.c; the app's threads: take a place in a queue ---- */
bool lithos_queue_on_launch(uint32_t function, const struct lithos_launch *l, CUresult *ret_result);
/* A call that order.def says may be queued. */
bool lithos_queue_call(struct queue *q, uint32_t function, const struct lithos_order_row *row,
                       const uintptr_t *args, CUresult *ret_result);
/* The stream that a call names. */
CUstream lithos_queue_stream_of(const struct lithos_order_row *row, const uintptr_t *args);
/* Room for an entry with so many bytes of data; waits for it. Then it is to be filled in and published. */
struct queue_entry *lithos_queue_reserve(struct queue *q, struct queue_stream *s, size_t bytes,
                                         uint32_t *ret_place);
void lithos_queue_publish(struct queue *q, struct queue_entry *e, uint32_t place, struct queue_stream *s,
                          struct queue_event *v);
/* This thread has waited for the card. */
void lithos_queue_thread_waited(void);
void lithos_queue_place_forget(void);
