#include "tenant/slice.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/util.h"
#include "driver/groups.h"
#include "driver/loader.h"
#include "tenant/attach.h"

static struct {
    pthread_mutex_t lock; /* held for moments only: the driver's threads come here */
    pthread_cond_t changed;
    bool started;
    bool work; /* since the thread last looked */
    uint32_t us;
    _Atomic uint32_t watching; /* enum lithos_slice_watch */
} slice = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- what came of it ---- */

static void report(void)
{
    struct lithos_groups_state s;
    struct lithos_slice_report *to = &lithos_tenant_home.slice;
    lithos_groups_state(&s);
    atomic_store_explicit(&to->groups, s.groups, memory_order_relaxed);
    atomic_store_explicit(&to->set, s.set, memory_order_relaxed);
    atomic_store_explicit(&to->refused, s.refused, memory_order_relaxed);
    atomic_store_explicit(&to->status, s.status, memory_order_relaxed);
    atomic_store_explicit(&to->watch, atomic_load(&slice.watching), memory_order_relaxed);
    if (s.refused)
        lithos_log_once(LITHOS_LOG_WARNING,
                        "the driver does not let this process have short turns on the GPU (status 0x%x): "
                        "others wait for it "
                        "as without --share preempt",
                        (unsigned)s.status);
}

void lithos_slice_renew(void)
{
    if (atomic_load(&slice.watching))
        report();
}

/* ---- the thread ---- */

/* On the driver's threads. */
static void groups_changed(void)
{
    pthread_mutex_lock(&slice.lock);
    slice.work = true;
    pthread_cond_signal(&slice.changed);
    pthread_mutex_unlock(&slice.lock);
}

/* Until there is something to do, or next_ns. */
static uint32_t wait_for_work(uint64_t next_ns)
{
    const struct timespec until = {.tv_sec = (time_t)(next_ns / LITHOS_NSEC_PER_SEC),
                                   .tv_nsec = (long)(next_ns % LITHOS_NSEC_PER_SEC)};
    int r = 0;
    pthread_mutex_lock(&slice.lock);
    while (!slice.work && r == 0)
        r = next_ns == UINT64_MAX ? pthread_cond_wait(&slice.changed, &slice.lock)
                                  : pthread_cond_timedwait(&slice.changed, &slice.lock, &until);
    slice.work = false;
    const uint32_t us = slice.us;
    pthread_mutex_unlock(&slice.lock);
    return us;
}

static void *slice_main(void *unused)
{
    uint64_t next_ns = 0;
    (void)unused;
    for (;;) {
        const uint32_t us = wait_for_work(next_ns);
        next_ns = lithos_groups_apply(us, lithos_now_ns());
        report();
    }
    return NULL;
}

/* Under the lock. */
static void start_locked(void)
{
    pthread_condattr_t attr;
    if (slice.started)
        return;
    slice.started = true;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&slice.changed, &attr);
    pthread_condattr_destroy(&attr);
    int r = lithos_groups_watch(lithos_driver_handle(), groups_changed);
    if (r < 0) {
        atomic_store(&slice.watching, LITHOS_SLICE_BLIND);
        lithos_warning("what the driver does with the GPU cannot be followed (%s): this process keeps its "
                       "turns, whatever "
                       "lithosd --share says",
                       strerror(-r));
        return;
    }
    r = lithos_tenant_thread(slice_main, NULL);
    atomic_store(&slice.watching, r < 0 ? LITHOS_SLICE_NO_THREAD : LITHOS_SLICE_WATCHED);
    if (r < 0)
        lithos_warning("no thread to set time slices (%s): this process keeps its turns", strerror(-r));
}

void lithos_slice_want(bool watch, uint32_t us)
{
    if (!watch && !atomic_load(&slice.watching))
        return;
    pthread_mutex_lock(&slice.lock);
    start_locked();
    slice.work = true; /* also when nothing is to be set: it has to be told */
    slice.us = us;
    pthread_cond_signal(&slice.changed);
    pthread_mutex_unlock(&slice.lock);
    if (atomic_load(&slice.watching) != LITHOS_SLICE_WATCHED)
        report();
}

void lithos_slice_forget(void)
{
    static const pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
    memcpy(&slice.lock, &fresh, sizeof fresh);
    slice.started = slice.work = false;
    slice.us = 0;
    atomic_store(&slice.watching, LITHOS_SLICE_OFF);
    lithos_groups_forget();
}
