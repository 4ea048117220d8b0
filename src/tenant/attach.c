#include "tenant/attach.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cpus.h"
#include "base/log.h"
#include "base/util.h"
#include "driver/atoms.h"
#include "driver/qmd_hook.h"
#include "proto/grant_text.h"
#include "proto/message.h"
#include "proto/socket.h"
#include "tenant/observe.h"
#include "tenant/queue.h"
#include "tenant/slice.h"

/* Of one attach, from the first call to the grant in force. */
#define ATTACH_BUDGET_NS LITHOS_NSEC_PER_SEC
/* The daemon writes the pages before this, we those from it on. */
#define OWN_PART offsetof(struct lithos_arena, counters)

struct lithos_arena lithos_tenant_home;
_Static_assert(sizeof lithos_tenant_home == LITHOS_ARENA_BYTES, "the arena is whole pages");
_Static_assert(OWN_PART % 4096 == 0, "the tenant's part starts a page");

static struct {
    _Atomic int wanted; /* 0 not looked yet, 1 yes, -1 no */
    uint64_t id;
    uint8_t token[LITHOS_TOKEN_BYTES];
    _Atomic int sock;
    _Atomic uint64_t sock_inode; /* tells whether that descriptor is still the one we opened */
    _Atomic uint32_t sock_users; /* launching threads that are about to write to it */
    pthread_mutex_t apply_lock;  /* grant and the quotas in force */
    bool have_grant;
    struct lithos_grant grant; /* the last that was sane: stays in force when the daemon goes */
} tenant = {.sock = -1, .apply_lock = PTHREAD_MUTEX_INITIALIZER};

bool lithos_tenant_wanted(void)
{
    int wanted = atomic_load(&tenant.wanted);
    if (wanted)
        return wanted > 0;
    const char *text = getenv("LITHOS_TENANT");
    wanted = -1;
    if (text && *text) {
        if (lithos_tenant_parse(text, &tenant.id, tenant.token) == 0)
            wanted = 1;
        else
            lithos_warning("LITHOS_TENANT is not of the form ID:TOKEN: this process runs without LithOS");
    }
    atomic_store(&tenant.wanted, wanted);
    return wanted > 0;
}

/* ---- grant ---- */

/* LITHOS_SM_COUNT: of which SMs of a GPU the app is told. */
enum sm_count {
    SM_COUNT_BY_CLASS = 1, /* not said */
    SM_COUNT_QUOTA,
    SM_COUNT_FULL,
};

static enum sm_count read_sm_count(void)
{
    const char *text = getenv("LITHOS_SM_COUNT");
    if (!text || !*text)
        return SM_COUNT_BY_CLASS;
    if (!strcmp(text, "quota"))
        return SM_COUNT_QUOTA;
    if (!strcmp(text, "full"))
        return SM_COUNT_FULL;
    lithos_log_once(LITHOS_LOG_WARNING, "LITHOS_SM_COUNT must be quota or full: it is ignored");
    return SM_COUNT_BY_CLASS;
}

/* For struct lithos_hook_quota. By itself where masks hold the quota, and for class high alone: others are lent TPCs that are not in it. */
static unsigned told_sms_locked(const struct lithos_grant_gpu *gpu)
{
    static enum sm_count sm_count;
    if (!sm_count)
        sm_count = read_sm_count();
    bool by_class =
        tenant.grant.class == LITHOS_CLASS_HIGH && lithos_hook_get_state() == LITHOS_HOOK_SUBSCRIBED;
    if (sm_count == SM_COUNT_FULL || (sm_count == SM_COUNT_BY_CLASS && !by_class) ||
        lithos_tpcset_equal(&gpu->own, &gpu->topology.valid))
        return 0;
    return lithos_tpcset_count(&gpu->own) * gpu->topology.sms_per_tpc;
}

/* `lithos run --hand-over`: for class high whether there are queues at all, for best-effort whether all launches go through them. Where it is not said, a program that may use so many CPUs has one to spare for a thread of ours. */
#define HAND_OVER_CPUS_MIN 4u

static bool read_hand_over(void)
{
    const char *text = getenv("LITHOS_HAND_OVER");
    if (text && !strcmp(text, "on"))
        return true;
    if (text && !strcmp(text, "off"))
        return false;
    if (text && *text)
        lithos_log_once(LITHOS_LOG_WARNING, "LITHOS_HAND_OVER must be on or off: it is ignored");
    return lithos_cpus("") >= HAND_OVER_CPUS_MIN;
}

static bool hands_over_locked(void)
{
    static int hands_over = -1;
    if (hands_over < 0)
        hands_over = read_hand_over();
    return hands_over;
}

/* `lithos run --gather` */
static uint64_t read_gather_ns(void)
{
    const char *text = getenv("LITHOS_GATHER_US");
    char *end = NULL;
    unsigned long us = text && *text ? strtoul(text, &end, 10) : 0;
    if (text && *text && (*end || us > LITHOS_GATHER_MAX_NS / LITHOS_NSEC_PER_USEC)) {
        lithos_log_once(LITHOS_LOG_WARNING, "LITHOS_GATHER_US must be a number up to %llu: it is ignored",
                        LITHOS_GATHER_MAX_NS / LITHOS_NSEC_PER_USEC);
        us = 0;
    }
    return us * LITHOS_NSEC_PER_USEC;
}

static void apply_locked(void)
{
    lithos_atoms_set_policy(&tenant.grant.atom);
    const struct lithos_hook_device *devices;
    int count = lithos_hook_devices(&devices);
    lithos_slice_want(tenant.grant.share == LITHOS_DOMAIN_PREEMPT, tenant.grant.slice_us);
    lithos_queue_set_gather(read_gather_ns());
    lithos_queue_set_use(tenant.grant.class == LITHOS_CLASS_BEST_EFFORT ? LITHOS_QUEUE_WINDOW
                         : hands_over_locked()                          ? LITHOS_QUEUE_HAND_OVER
                                                                        : LITHOS_QUEUE_UNUSED,
                         hands_over_locked());
    struct lithos_hook_quota quotas[LITHOS_HOOK_MAX_DEVICES] = {0};
    for (int d = 0; d < count; d++) {
        lithos_records_set_gpu(d, 0xff);
        lithos_queue_set_quota(d, 0xff, NULL, (struct lithos_tpcset){{0, 0}});
        for (uint32_t g = 0; g < tenant.grant.gpu_count && !quotas[d].present; g++) {
            const struct lithos_grant_gpu *gpu = &tenant.grant.gpus[g];
            if (memcmp(gpu->uuid, devices[d].uuid, LITHOS_UUID_BYTES) != 0)
                continue;
            quotas[d] = (struct lithos_hook_quota){.present = true,
                                                   .topology = gpu->topology,
                                                   .own = gpu->own,
                                                   .graphs = gpu->graphs,
                                                   .told_sms = told_sms_locked(gpu)};
            lithos_records_set_gpu(d, (uint8_t)g);
            lithos_queue_set_quota(d, (uint8_t)g, &gpu->topology, gpu->own);
        }
        if (!quotas[d].present)
            lithos_log_once(
                LITHOS_LOG_WARNING,
                "the grant does not name GPU %d of this process: what is launched there is not confined. "
                "Leave CUDA_VISIBLE_DEVICES as `lithos run` set it",
                d);
    }
    if (lithos_hook_set_quotas(quotas, count) < 0)
        lithos_log_once(LITHOS_LOG_WARNING,
                        "the daemon's grant is not sane for a GPU: launches there are not confined");
}

void lithos_tenant_refresh(void)
{
    uint32_t seq = lithos_arena_grant_seq(&lithos_tenant_home);
    if ((seq & 1) || pthread_mutex_trylock(&tenant.apply_lock) != 0)
        return; /* being written, or being applied: the grant in force holds for this launch */
    struct lithos_grant grant;
    uint32_t read_at = seq;
    int r = lithos_arena_read_grant(&lithos_tenant_home, &grant, &read_at);
    if (r == 0) {
        tenant.grant = grant;
        tenant.have_grant = true;
        apply_locked();
    } else if (r != -EAGAIN) {
        lithos_log_once(LITHOS_LOG_WARNING,
                        "the daemon published a grant that is not sane: the one before stays");
    }
    if (r != -EAGAIN) /* not asked again at each launch until it changes */
        atomic_store_explicit(&lithos_hook_seen, read_at, memory_order_relaxed);
    pthread_mutex_unlock(&tenant.apply_lock);
}

void lithos_tenant_reapply(void)
{
    pthread_mutex_lock(&tenant.apply_lock);
    if (tenant.have_grant)
        apply_locked();
    pthread_mutex_unlock(&tenant.apply_lock);
}

/* No grant from the daemon: what `lithos run` was granted. */
static void apply_fallback(void)
{
    const char *text = getenv("LITHOS_GRANT");
    pthread_mutex_lock(&tenant.apply_lock);
    if (tenant.have_grant) {
        pthread_mutex_unlock(&tenant.apply_lock);
        return;
    }
    if (!text || !*text) {
        lithos_log_once(LITHOS_LOG_WARNING, "neither a daemon nor LITHOS_GRANT gives a quota: launches are "
                                            "not confined until lithosd is back");
    } else if (lithos_grant_parse(text, &tenant.grant) < 0) {
        lithos_log_once(LITHOS_LOG_WARNING,
                        "LITHOS_GRANT cannot be read: launches are not confined until lithosd is back");
    } else {
        tenant.have_grant = true;
        apply_locked();
    }
    pthread_mutex_unlock(&tenant.apply_lock);
}

/* ---- arena ---- */

/* Is this descriptor an arena of ours that cannot shrink under our feet? 0 or negative errno. */
static int check_arena(int fd)
{
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);
    if (fstat(fd, &st) < 0 || seals < 0)
        return -errno;
    if (st.st_size < (off_t)LITHOS_ARENA_BYTES || !(seals & F_SEAL_SHRINK))
        return -EPROTO;
    struct lithos_arena *trial = mmap(NULL, LITHOS_ARENA_BYTES, PROT_READ, MAP_SHARED, fd, 0);
    if (trial == MAP_FAILED)
        return -errno;
    int r = lithos_arena_validate(trial, LITHOS_ARENA_BYTES);
    if (r == 0 && trial->tenant != tenant.id)
        r = -EPROTO;
    munmap(trial, LITHOS_ARENA_BYTES);
    return r;
}

/* Put other pages in the place of the home's: the memfd's, or with fd -1 zeroed ones. The kernel does it in one step, so a
 * thread that reads or counts there meanwhile finds the old page or the new one, never none. By the system call, as a
 * sanitizer's mmap would take it for a write to every word. */
static int replace_home(int fd)
{
    int flags = MAP_FIXED | (fd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS);
    long r = syscall(SYS_mmap, &lithos_tenant_home, LITHOS_ARENA_BYTES, PROT_READ | PROT_WRITE, flags, fd, 0);
    return r == -1 ? -errno : 0;
}

/* Put the daemon's pages in the place of those that are there; what was counted so far goes along. */
static int map_arena(int fd)
{
    int r = check_arena(fd);
    if (r < 0)
        return r;
    uint64_t counted[LITHOS_COUNTER_MAX];
    lithos_stamps_pause(); /* what it counts goes along as well */
    lithos_arena_read_counters(&lithos_tenant_home, counted);
    r = replace_home(fd);
    lithos_records_renew();
    lithos_stamps_resume();
    lithos_queue_renew();
    lithos_slice_renew();
    if (r < 0)
        return r;
    mprotect(&lithos_tenant_home, OWN_PART,
             PROT_READ); /* the daemon's part: a stray write of the app stops here */
    for (int i = 0; i < LITHOS_COUNTER_MAX; i++)
        if (counted[i])
            lithos_arena_count(&lithos_tenant_home, (enum lithos_counter)i, counted[i]);
    return 0;
}

/* ---- connection ---- */

static uint64_t left_ns(uint64_t deadline_ns)
{
    uint64_t now = lithos_now_ns();
    return now < deadline_ns ? deadline_ns - now : 1;
}

/* Ask for the arena. 0 with its descriptor, or negative errno. */
static int request_arena(int sock, uint64_t deadline_ns, int *ret_fd)
{
    union lithos_message request, answer;
    int fd = -1;
    lithos_message_init(&request, LITHOS_MSG_ATTACH);
    request.attach.tenant = tenant.id;
    memcpy(request.attach.token, tenant.token, sizeof tenant.token);
    request.attach.hook_active = lithos_hook_get_state() == LITHOS_HOOK_SUBSCRIBED;
    snprintf(request.attach.process, sizeof request.attach.process, "%s", program_invocation_short_name);
    int r = lithos_socket_call(sock, &request, &answer, &fd, left_ns(deadline_ns));
    if (r < 0)
        return r;
    if (answer.h.type == LITHOS_MSG_ATTACHED && answer.attached.tenant == tenant.id && fd >= 0) {
        *ret_fd = fd;
        return 0;
    }
    if (fd >= 0)
        close(fd);
    if (answer.h.type != LITHOS_MSG_ERROR)
        return -EPROTO;
    lithos_log_once(LITHOS_LOG_WARNING, "lithosd does not take this process: %.*s",
                    (int)sizeof answer.error.text, answer.error.text);
    return answer.error.error < 0 ? answer.error.error : -EPROTO;
}

static int connect_and_map(uint64_t deadline_ns)
{
    char path[LITHOS_PATH_BYTES];
    int sock = -1, fd = -1;
    int r = lithos_socket_path(path, sizeof path);
    if (r < 0)
        return r;
    r = lithos_socket_connect(path, left_ns(deadline_ns), &sock);
    if (r < 0)
        return r;
    r = request_arena(sock, deadline_ns, &fd);
    if (r < 0)
        goto close_sock;
    r = map_arena(fd);
    close(fd);
    if (r < 0)
        goto close_sock;
    struct stat st;
    atomic_store(&tenant.sock_inode, fstat(sock, &st) == 0 ? st.st_ino : 0);
    atomic_store(&tenant.sock, sock);
    return 0;
close_sock:
    close(sock);
    return r;
}

int lithos_tenant_attach(void)
{
    int r = connect_and_map(lithos_now_ns() + ATTACH_BUDGET_NS);
    if (r < 0) {
        lithos_log_once(LITHOS_LOG_WARNING,
                        "cannot attach to lithosd (%s): going on with the quota it gave before",
                        strerror(-r));
        apply_fallback();
        return r;
    }
    /* A new arena may carry the same number for another grant: no number that it can have counts as seen. */
    atomic_store_explicit(&lithos_hook_seen, UINT32_MAX, memory_order_relaxed);
    lithos_tenant_refresh();
    apply_fallback(); /* unless that gave a grant: the daemon may have died while it wrote one */
    return 0;
}

int lithos_tenant_socket(void)
{
    return atomic_load(&tenant.sock);
}

/* An app may close descriptors that it does not know and open its own under their numbers: what we do to ours must not be done
 * to those. */
static bool still_ours(int sock)
{
    struct stat st;
    return fstat(sock, &st) == 0 && S_ISSOCK(st.st_mode) && st.st_ino == atomic_load(&tenant.sock_inode);
}

void lithos_tenant_detach(void)
{
    int sock = atomic_exchange(&tenant.sock, -1);
    uint64_t deadline_ns = lithos_now_ns() + ATTACH_BUDGET_NS;
    while (atomic_load(&tenant.sock_users) && lithos_now_ns() < deadline_ns)
        usleep(100); /* a system call or two; who comes now finds no connection */
    if (sock >= 0 && !atomic_load(&tenant.sock_users) && still_ours(sock))
        close(sock);
}

void lithos_tenant_wake_daemon(void)
{
    static const struct lithos_msg_header wake = {.magic = LITHOS_MSG_MAGIC,
                                                  .version = LITHOS_MSG_VERSION,
                                                  .type = LITHOS_MSG_WAKE,
                                                  .size = sizeof wake};
    int saved = errno;
    atomic_fetch_add(&tenant.sock_users, 1); /* before the look: then it is not closed under our hands */
    int sock = atomic_load(&tenant.sock);
    /* The system call itself: the function is a place where a thread may be cancelled, and a launch is none. */
    if (sock >= 0 && still_ours(sock))
        syscall(SYS_sendto, sock, &wake, sizeof wake, MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0);
    atomic_fetch_sub(&tenant.sock_users, 1);
    errno = saved;
}

void lithos_tenant_forget(void)
{
    static const pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
    atomic_store(&tenant.sock_users, 0); /* the parent's threads */
    lithos_tenant_detach();              /* closes the child's copy: the parent's stays */
    memcpy(&tenant.apply_lock, &fresh, sizeof fresh);
    tenant.have_grant = false;
    lithos_queue_forget();
    lithos_records_forget();
    lithos_stamps_forget();
    lithos_slice_forget();
    /* The parent's pages no longer; this fails only without memory, and then the child counts for its parent. */
    replace_home(-1);
    atomic_store_explicit(&lithos_hook_seen, 0, memory_order_relaxed);
}
