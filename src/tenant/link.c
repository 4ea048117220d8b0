/* The link thread: one a process, asleep but for the daemon's coming and going. */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

#include "base/log.h"
#include "base/util.h"
#include "driver/hooks.h"
#include "driver/qmd_hook.h"
#include "proto/socket.h"
#include "tenant/attach.h"

#define STACK_BYTES (256u * 1024)
#define BACKOFF_MIN_NS (20 * LITHOS_NSEC_PER_MSEC)
#define BACKOFF_MAX_NS LITHOS_NSEC_PER_SEC
/* Injection: how often to ask whether the driver is up. */
#define DRIVER_POLL_NS LITHOS_NSEC_PER_MSEC
/* Launches without a single QMD before we say that the hook is dead. */
#define DEAF_LAUNCHES 1000

static void sleep_ns(uint64_t ns)
{
    struct timespec ts = {.tv_sec = (time_t)(ns / LITHOS_NSEC_PER_SEC),
                          .tv_nsec = (long)(ns % LITHOS_NSEC_PER_SEC)};
    nanosleep(&ts, NULL);
}

/* Only one subscriber of the QMD table gets called: when a profiler was first, we hear nothing. */
static void check_hearing(void)
{
    uint64_t counters[LITHOS_COUNTER_MAX];
    if (lithos_hook_get_state() != LITHOS_HOOK_SUBSCRIBED)
        return;
    lithos_arena_read_counters(&lithos_tenant_home, counters);
    if (counters[LITHOS_COUNTER_QMDS] == 0 && counters[LITHOS_COUNTER_LAUNCHES] >= DEAF_LAUNCHES)
        lithos_log_once(
            LITHOS_LOG_WARNING,
            "the driver does not call the QMD hook: the quota is not held%s. Run without a profiler, or "
            "with `lithos run --coarse`",
            lithos_hook_app_asked_for_table() ? " (this program has asked for the same hook, as profilers do)"
                                              : "");
}

/* Launches look for a new grant; a process that makes none has other things in it than masks (its turns on the card). */
static void look_at_grant(void)
{
    if (lithos_arena_grant_seq(&lithos_tenant_home) !=
        atomic_load_explicit(&lithos_hook_seen, memory_order_relaxed))
        lithos_tenant_refresh();
}

/* A daemon that does not look after its leases does not let graphs go on that it has told to wait. */
static void look_after_graphs(void)
{
    uint64_t now_ns = lithos_now_ns(); /* before the lease, which may be renewed now */
    if (atomic_load_explicit(&lithos_tenant_home.lease_ns, memory_order_relaxed) + LITHOS_LEASE_NS < now_ns)
        lithos_arena_let_graphs(&lithos_tenant_home, true);
}

/* Until the daemon has gone. */
static void wait_on_connection(int sock)
{
    for (;;) {
        struct pollfd p = {.fd = sock, .events = POLLIN};
        int n = poll(&p, 1, 1000);
        check_hearing();
        look_at_grant();
        look_after_graphs();
        if (n == 0 || (n < 0 && errno == EINTR))
            continue;
        union lithos_message message;
        if (n < 0 || lithos_socket_receive(sock, &message, NULL, LITHOS_NSEC_PER_MSEC) < 0)
            return; /* nothing of what the daemon may say asks for an answer; what is damaged ends the
                       connection */
    }
}

static void *link_main(void *wait_for_driver)
{
    uint64_t backoff_ns = BACKOFF_MIN_NS;
    if (wait_for_driver) {
        while (lithos_hook_scan_devices() < 0)
            sleep_ns(DRIVER_POLL_NS);
        lithos_tenant_attach();
    }
    for (;;) {
        int sock = lithos_tenant_socket();
        if (sock >= 0) {
            wait_on_connection(sock);
            lithos_arena_let_graphs(&lithos_tenant_home, true);
            lithos_tenant_detach();
            lithos_info(
                "lithosd has gone: going on with the quota in force, attaching again when it is back");
            backoff_ns = BACKOFF_MIN_NS;
        }
        sleep_ns(backoff_ns);
        check_hearing();
        backoff_ns = LITHOS_MIN(backoff_ns * 2, BACKOFF_MAX_NS);
        if (lithos_tenant_attach() == 0)
            lithos_info("attached to lithosd");
    }
    return NULL;
}

int lithos_tenant_thread(void *(*body)(void *), void *arg)
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
    r = pthread_create(&thread, &attr, body, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return -r;
}

int lithos_tenant_link_start(bool wait_for_driver)
{
    static char yes;
    return lithos_tenant_thread(link_main, wait_for_driver ? &yes : NULL);
}
