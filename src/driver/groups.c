#include "driver/groups.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/util.h"
#include "cuda/rm_abi.h"
#include "driver/imports.h"

/* When a group is set, after its last change. While its context is being made a slice is taken and read back but has no effect
 * (measured), and large contexts take seconds. */
static const uint64_t set_after_ns[] = {20 * LITHOS_NSEC_PER_MSEC, 200 * LITHOS_NSEC_PER_MSEC,
                                        LITHOS_NSEC_PER_SEC, 5 * LITHOS_NSEC_PER_SEC};

struct group {
    int fd; /* of the driver's: its own only while it is the same file */
    dev_t dev;
    ino_t inode;
    uint32_t client, parent, object;
    uint64_t changed_ns;
    uint64_t before_us; /* as the driver had it; 0: not known */
    uint32_t times;     /* set so often since it changed */
    uint32_t us;        /* in force by us; 0: none */
    uint32_t status;    /* why not */
};

typedef int (*ioctl_fn)(int fd, unsigned long request, ...);

static struct {
    void *before; /* where the driver's import led */
    _Atomic bool watched;
    void (*changed)(void);
    pthread_mutex_t lock; /* all below; held over our own calls, so that no group goes under them */
    uint32_t count, overflow;
    struct group groups[LITHOS_GROUPS_MAX];
    uint32_t wanted_us;
    uint32_t last_status;
} watch = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- looking at the driver's calls ---- */

static bool same_file(const struct group *g)
{
    struct stat st;
    return fstat(g->fd, &st) == 0 && st.st_dev == g->dev && st.st_ino == g->inode;
}

static struct group *find(uint32_t client, uint32_t object)
{
    for (uint32_t i = 0; i < watch.count; i++)
        if (watch.groups[i].client == client && watch.groups[i].object == object)
            return &watch.groups[i];
    return NULL;
}

static void drop(struct group *g)
{
    *g = watch.groups[--watch.count];
}

static bool note_made(int fd, uint32_t client, uint32_t parent, uint32_t object)
{
    struct stat st;
    struct group *g = find(client, object); /* one that went unseen had the same handle */
    if (!g && watch.count == LITHOS_GROUPS_MAX) {
        watch.overflow++;
        return false;
    }
    if (fstat(fd, &st) < 0)
        return false;
    if (!g)
        g = &watch.groups[watch.count++];
    *g = (struct group){.fd = fd,
                        .dev = st.st_dev,
                        .inode = st.st_ino,
                        .client = client,
                        .parent = parent,
                        .object = object,
                        .changed_ns = lithos_now_ns()};
    return true;
}

static bool note_changed(uint32_t client, uint32_t object)
{
    struct group *g = find(client, object);
    if (!g)
        return false;
    g->changed_ns = lithos_now_ns();
    g->times = 0;
    return true;
}

static bool note_alloc(int fd, unsigned long request, const void *arg)
{
    /* Both forms begin alike; what is of another size is of a driver that is not known. */
    const struct lithos_rm_alloc *a = arg;
    if (_IOC_SIZE(request) == sizeof *a ? a->status : ((const struct lithos_rm_alloc_short *)arg)->status)
        return false;
    if (a->class == LITHOS_RM_CLASS_CHANNEL_GROUP)
        return note_made(fd, a->client, a->parent, a->object);
    return note_changed(a->client, a->parent); /* a channel of a group */
}

static bool note_control(const struct lithos_rm_control *c)
{
    if (c->status || (c->command != LITHOS_RM_GROUP_SCHEDULE && c->command != LITHOS_RM_GROUP_SET_TIMESLICE))
        return false;
    struct group *g = find(c->client, c->object);
    if (g && c->command == LITHOS_RM_GROUP_SET_TIMESLICE &&
        c->params_bytes == sizeof(struct lithos_rm_timeslice))
        g->before_us =
            ((const struct lithos_rm_timeslice *)(uintptr_t)c->params)->us; /* the driver's own will */
    return note_changed(c->client, c->object);
}

/* Before the call: afterwards the handle may name something else. */
static void note_free(const struct lithos_rm_free *f)
{
    pthread_mutex_lock(&watch.lock);
    for (uint32_t i = watch.count; i-- > 0;) {
        struct group *g = &watch.groups[i];
        if (g->client == f->client &&
            (f->object == g->object || f->object == g->parent || f->object == g->client))
            drop(g);
    }
    pthread_mutex_unlock(&watch.lock);
}

static bool is_alloc(unsigned long request)
{
    return _IOC_NR(request) == LITHOS_RM_ALLOC &&
           (_IOC_SIZE(request) == sizeof(struct lithos_rm_alloc) ||
            _IOC_SIZE(request) == sizeof(struct lithos_rm_alloc_short));
}

static bool is_control(unsigned long request)
{
    return _IOC_NR(request) == LITHOS_RM_CONTROL && _IOC_SIZE(request) == sizeof(struct lithos_rm_control);
}

static void note(int fd, unsigned long request, const void *arg)
{
    const int saved = errno;
    bool changed = false;
    pthread_mutex_lock(&watch.lock);
    if (is_alloc(request))
        changed = note_alloc(fd, request, arg);
    else if (is_control(request))
        changed = note_control(arg);
    pthread_mutex_unlock(&watch.lock);
    if (changed)
        watch.changed();
    errno = saved;
}

/* In the place of ioctl() for the driver alone. */
static int driver_ioctl(int fd, unsigned long request, ...)
{
    va_list ap;
    va_start(ap, request);
    void *arg = va_arg(ap, void *);
    va_end(ap);
    ioctl_fn before = (ioctl_fn)watch.before;
    if (_IOC_TYPE(request) != LITHOS_RM_IOCTL_TYPE || !arg)
        return before(fd, request, arg);
    if (_IOC_NR(request) == LITHOS_RM_FREE && _IOC_SIZE(request) == sizeof(struct lithos_rm_free))
        note_free(arg);
    int r = before(fd, request, arg);
    if (r == 0 && (is_alloc(request) || is_control(request)))
        note(fd, request, arg);
    return r;
}

int lithos_groups_watch(void *driver, void (*changed)(void))
{
    if (atomic_load(&watch.watched))
        return 0;
    watch.changed = changed;
    int r = lithos_import_replace(driver, "ioctl", (void *)driver_ioctl, &watch.before);
    if (r == 0)
        atomic_store(&watch.watched, true);
    return r;
}

/* ---- setting ---- */

/* The kernel driver's answer: 0, its status, or an errno. */
static uint32_t control(const struct group *g, uint32_t command, struct lithos_rm_timeslice *slice)
{
    struct lithos_rm_control c = {.client = g->client,
                                  .object = g->object,
                                  .command = command,
                                  .params = (uintptr_t)slice,
                                  .params_bytes = sizeof *slice,
                                  .status = LITHOS_RM_NOT_SUPPORTED};
    ioctl_fn before = (ioctl_fn)watch.before;
    if (before(g->fd, LITHOS_RM_REQUEST(LITHOS_RM_CONTROL, struct lithos_rm_control), &c) != 0)
        return LITHOS_GROUPS_ERRNO | (uint32_t)errno;
    return c.status;
}

static void set(struct group *g, uint32_t us)
{
    struct lithos_rm_timeslice slice = {0};
    const uint64_t begin_ns = lithos_now_ns();
    g->status = 0;
    /* One whose slice cannot be read could not be given its own back. */
    if (!g->before_us) {
        g->status = control(g, LITHOS_RM_GROUP_GET_TIMESLICE, &slice);
        g->before_us = slice.us;
    }
    slice.us = us ? us : g->before_us;
    if (!g->status && slice.us)
        g->status = control(g, LITHOS_RM_GROUP_SET_TIMESLICE, &slice);
    if (g->status)
        watch.last_status = g->status;
    else
        g->us = us;
    g->times++;
    lithos_debug("channel group %x: turns of %llu us, had %llu; status 0x%x, %llu ms after its last change, "
                 "in %llu us",
                 g->object, (unsigned long long)slice.us, (unsigned long long)g->before_us, g->status,
                 (unsigned long long)((begin_ns - g->changed_ns) / LITHOS_NSEC_PER_MSEC),
                 (unsigned long long)((lithos_now_ns() - begin_ns) / LITHOS_NSEC_PER_USEC));
}

static uint64_t next_ns(const struct group *g)
{
    if (!watch.wanted_us)
        return g->us && !g->times ? 0 : UINT64_MAX; /* given back at once, and once */
    return g->times < LITHOS_ARRAY_SIZE(set_after_ns) ? g->changed_ns + set_after_ns[g->times] : UINT64_MAX;
}

static bool is_gone(const struct group *g)
{
    return g->status == LITHOS_RM_OBJECT_NOT_FOUND || g->status == LITHOS_RM_INVALID_OBJECT_HANDLE ||
           !same_file(g);
}

uint64_t lithos_groups_apply(uint32_t us, uint64_t now_ns)
{
    uint64_t next = UINT64_MAX;
    pthread_mutex_lock(&watch.lock);
    for (uint32_t i = 0; watch.wanted_us != us && i < watch.count; i++)
        watch.groups[i].times = 0;
    watch.wanted_us = us;
    for (uint32_t i = watch.count; i-- > 0;) {
        struct group *g = &watch.groups[i];
        if (next_ns(g) <= now_ns && same_file(g))
            set(g, us);
        if (is_gone(g)) /* with what it belonged to */
            drop(g);
        else
            next = LITHOS_MIN(next, next_ns(g));
    }
    pthread_mutex_unlock(&watch.lock);
    return next;
}

void lithos_groups_state(struct lithos_groups_state *ret_state)
{
    struct lithos_groups_state s = {.watched = atomic_load(&watch.watched)};
    pthread_mutex_lock(&watch.lock);
    s.groups = watch.count + watch.overflow;
    s.refused = watch.overflow;
    s.status = watch.overflow ? LITHOS_GROUPS_FULL : 0;
    for (uint32_t i = 0; i < watch.count; i++) {
        const struct group *g = &watch.groups[i];
        s.set += watch.wanted_us && g->us == watch.wanted_us;
        s.refused += g->status != 0;
        if (g->status)
            s.status = watch.last_status;
    }
    pthread_mutex_unlock(&watch.lock);
    *ret_state = s;
}

void lithos_groups_forget(void)
{
    static const pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
    memcpy(&watch.lock, &fresh, sizeof fresh);
    watch.count = watch.overflow = 0;
}
