#include "tenant/queue.h"

#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "tenant/attach.h"
#include "tenant/observe.h"
#include "tenant/queue_internal.h"

#define STACK_BYTES (256u * 1024)
/* Outstanding on the card, where no rule says how much: 100 us beyond what hides a launch. */
#define WINDOW_NS (110 * LITHOS_NSEC_PER_USEC)
/* At the end of the process: what is queued is given to the driver, for so long. */
#define END_NS (2 * LITHOS_NSEC_PER_SEC)
#define WAIT_SPINS 256
#define WAIT_SLICE_NS (10 * LITHOS_NSEC_PER_MSEC)

struct queue *_Atomic lithos_queue;
enum queue_inline lithos_queue_inline = QUEUE_INLINE_AUTO;
uint64_t lithos_queue_window_ns = WINDOW_NS;
static uint64_t gather_ns;

bool lithos_queue_closed(const struct queue *q)
{
    return __builtin_expect(!atomic_load_explicit(&q->used, memory_order_relaxed) ||
                                atomic_load_explicit(&q->capturing, memory_order_relaxed) ||
                                atomic_load_explicit(&q->ending, memory_order_relaxed) ||
                                atomic_load_explicit(&lithos_hook_escaped, memory_order_relaxed) ||
                                !(atomic_load_explicit(&lithos_tenant_home.observe, memory_order_relaxed) &
                                  LITHOS_OBSERVE_STAMPS),
                            0);
}

void lithos_queue_count(enum lithos_counter what)
{
    lithos_records_count(what, 1);
}

/* ---- sleeping ---- */

static void futex_wait(const void *word, uint32_t value, uint64_t limit_ns)
{
    struct timespec ts = {.tv_sec = (time_t)(limit_ns / LITHOS_NSEC_PER_SEC),
                          .tv_nsec = (long)(limit_ns % LITHOS_NSEC_PER_SEC)};
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, limit_ns ? &ts : NULL, NULL, 0);
}

static void futex_wake(const void *word, int threads)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, threads, NULL, NULL, 0);
}

/* The half of the tail that counts granules: it moves with each entry. */
static const void *tail_word(const struct queue *q)
{
    _Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the low half comes first");
    return &q->ring.tail;
}

void lithos_queue_wake_dispatcher(struct queue *q)
{
    int saved = errno;
    atomic_store_explicit(&q->asleep, 0, memory_order_relaxed);
    futex_wake(tail_word(q), 1);
    errno = saved;
}

void lithos_queue_rest(struct queue *q, uint64_t limit_ns)
{
    uint32_t met = q->ring.next;
    atomic_store_explicit(&q->asleep, 1, memory_order_seq_cst);
    if ((uint32_t)atomic_load_explicit(&q->ring.tail, memory_order_seq_cst) == met)
        futex_wait(tail_word(q), met, limit_ns);
    atomic_store_explicit(&q->asleep, 0, memory_order_relaxed);
}

void lithos_queue_doze(struct queue *q, uint32_t was_wanted, uint64_t limit_ns)
{
    atomic_store_explicit(&q->dozes, 1, memory_order_seq_cst);
    if (!atomic_load_explicit(&q->turn_wanted, memory_order_seq_cst))
        futex_wait(&q->wanted, was_wanted, limit_ns);
    atomic_store_explicit(&q->dozes, 0, memory_order_relaxed);
}

void lithos_queue_rouse(struct queue *q)
{
    if (__builtin_expect(!atomic_load_explicit(&q->dozes, memory_order_seq_cst), 1))
        return;
    int saved = errno;
    futex_wake(&q->wanted, 1);
    errno = saved;
}

void lithos_queue_progress(struct queue *q)
{
    if (__builtin_expect(atomic_load_explicit(&q->waiters, memory_order_seq_cst), 0)) {
        atomic_fetch_add_explicit(&q->progress, 1, memory_order_release);
        futex_wake(&q->progress, INT_MAX);
    }
}

static bool reached(const _Atomic uint32_t *issued, uint32_t upto)
{
    return (int32_t)(atomic_load_explicit(issued, memory_order_seq_cst) - upto) >= 0;
}

bool lithos_queue_wait_issued(struct queue *q, const _Atomic uint32_t *issued, uint32_t upto, uint64_t by_ns)
{
    int saved = errno;
    lithos_queue_want(q);
    for (int i = 0; i < WAIT_SPINS; i++) {
        if (reached(issued, upto))
            return true;
        __builtin_ia32_pause();
    }
    atomic_fetch_add_explicit(&q->waiters, 1, memory_order_seq_cst);
    bool there;
    for (;;) {
        uint32_t seen = atomic_load_explicit(&q->progress, memory_order_acquire);
        there = reached(issued, upto);
        if (there || lithos_now_ns() > by_ns)
            break;
        futex_wait(&q->progress, seen, WAIT_SLICE_NS);
    }
    atomic_fetch_sub_explicit(&q->waiters, 1, memory_order_relaxed);
    errno = saved;
    return there;
}

/* ---- the turn ---- */

bool lithos_queue_try_turn(struct queue *q)
{
    uint32_t nobody = 0;
    return !atomic_load_explicit(&q->turn, memory_order_relaxed) &&
           atomic_compare_exchange_strong_explicit(&q->turn, &nobody, 1, memory_order_acquire,
                                                   memory_order_relaxed);
}

/* Whoever else has it is in the middle of one launch, or is the dispatcher, which looks whether it is wanted. */
void lithos_queue_take_turn(struct queue *q)
{
    atomic_fetch_add_explicit(&q->turn_wanted, 1, memory_order_seq_cst);
    lithos_queue_rouse(q);
    for (unsigned i = 0; !lithos_queue_try_turn(q); i++) {
        __builtin_ia32_pause();
        if (i % 256 == 255)
            sched_yield();
    }
    atomic_fetch_sub_explicit(&q->turn_wanted, 1, memory_order_relaxed);
}

void lithos_queue_give_turn(struct queue *q)
{
    atomic_store_explicit(&q->turn, 0, memory_order_release);
}

/* ---- beginning and end ---- */

/* Before the driver's own handlers: they were there first. */
static void at_exit(void)
{
    struct queue *q = atomic_load(&lithos_queue);
    if (!q)
        return;
    uint64_t by_ns = lithos_now_ns() + END_NS;
    atomic_store(&q->ending, true);
    atomic_store(&q->open, true);
    uint32_t entries = lithos_queue_ring_entries(&q->ring);
    if (lithos_queue_depth(q) == 0)
        return;
    lithos_queue_count(LITHOS_COUNTER_DRAINED_END);
    if (!lithos_queue_wait_issued(q, &q->issued, entries, by_ns))
        lithos_warning("%u calls were still queued when the program ended", lithos_queue_depth(q));
}

static void read_environment(void)
{
    const char *how = getenv("LITHOS_QUEUE"), *window = getenv("LITHOS_QUEUE_WINDOW_US");
    if (how && !strcmp(how, "room"))
        lithos_queue_inline = QUEUE_INLINE_ROOM;
    else if (how && !strcmp(how, "always"))
        lithos_queue_inline = QUEUE_INLINE_NEVER;
    uint64_t us = window ? strtoull(window, NULL, 10) : 0;
    if (us > 0 && us <= LITHOS_RULE_WINDOW_MAX_NS / LITHOS_NSEC_PER_USEC)
        lithos_queue_window_ns = us * LITHOS_NSEC_PER_USEC;
}

static int start_dispatcher(struct queue *q)
{
    pthread_attr_t attr;
    pthread_t thread;
    sigset_t all, before;
    int r = pthread_attr_init(&attr);
    if (r)
        return -r;
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, LITHOS_MAX((size_t)STACK_BYTES, (size_t)PTHREAD_STACK_MIN));
    sigfillset(&all); /* the app's signals are the app's threads' */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&thread, &attr, lithos_queue_dispatcher, q);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return -r;
}

static struct queue *make_queue(void)
{
    struct queue *q =
        mmap(NULL, sizeof *q, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (q == MAP_FAILED)
        return NULL;
    TAILQ_INIT(&q->active);
    TAILQ_INIT(&q->flying);
    q->progress_ns = lithos_now_ns();
    return lithos_queue_tables_init(q) == 0 ? q : NULL;
}

static void begin(void)
{
    static bool failed;
    const char *how = getenv("LITHOS_QUEUE");
    if (failed || (how && !strcmp(how, "off")) || lithos_hook_get_state() != LITHOS_HOOK_SUBSCRIBED)
        return;
    static atomic_flag registered = ATOMIC_FLAG_INIT;
    read_environment();
    struct queue *q = make_queue();
    int r = q ? start_dispatcher(q) : -ENOMEM;
    if (r < 0) {
        failed = true;
        lithos_warning("no launch queues in this process (%s): its launches go to the card at once, and are "
                       "not held back for others",
                       strerror(-r));
        return;
    }
    if (!atomic_flag_test_and_set(&registered))
        atexit(at_exit);
    atomic_store(&lithos_queue, q);
    atomic_store(&lithos_order_state, 1); /* for good: what is queued is not to be overtaken */
}

void lithos_queue_set_gather(uint64_t ns)
{
    gather_ns = ns;
}

void lithos_queue_set_use(enum lithos_queue_use use, bool spare)
{
    if (!atomic_load(&lithos_queue) && use != LITHOS_QUEUE_UNUSED)
        begin();
    struct queue *q = atomic_load(&lithos_queue);
    if (!q)
        return;
    atomic_store(&q->open, use == LITHOS_QUEUE_HAND_OVER || atomic_load(&q->ending));
    atomic_store(&q->gather_ns, use == LITHOS_QUEUE_HAND_OVER ? gather_ns : 0);
    atomic_store(&q->used, use != LITHOS_QUEUE_UNUSED);
    atomic_store(&q->spare, spare);
}

void lithos_queue_renew(void)
{
    struct queue *q = atomic_load(&lithos_queue);
    if (q)
        atomic_fetch_add(&q->generation, 1);
}

void lithos_queue_context_ended(CUcontext ctx, CUdevice device, bool ended)
{
    const struct lithos_hook_device *devices;
    struct queue *q = atomic_load(&lithos_queue);
    if (!q || !ended)
        return;
    int count = lithos_hook_devices(&devices), at = -1;
    for (int i = 0; !ctx && i < count; i++)
        if (devices[i].handle == device)
            at = i;
    lithos_queue_forget_contexts(q, ctx, at);
}

/* Its memory stays behind: threads of the parent's may be in the middle of it, as far as the child's copy goes. */
void lithos_queue_forget(void)
{
    atomic_store(&lithos_order_state, 0);
    atomic_store(&lithos_queue, NULL);
    lithos_order_issue = NULL;
    lithos_queue_tables_forget();
    lithos_queue_window_forget();
    lithos_queue_place_forget();
    lithos_queue_drain_forget();
}
