/* What the virtual libcuda.so.1 has in the place of NVIDIA's kernel driver: the same calls for what LithOS looks at and makes
 * (cuda/rm_abi.h), on the connection to lithos-vgpud as the file. A group belongs to a context and takes its number. The rest of
 * the virtual driver's work does not come this way.
 *
 * LITHOS_VGPU_RM=refuse: slices cannot be set, as by a driver that wants privileges for it. */
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"
#include "cuda/rm_abi.h"
#include "vgpu/wire.h"

#define GROUPS_MAX 1024u
/* As on a card (docs/hardware.md, "Time slices"). */
#define DEFAULT_US 2048u

struct group {
    int fd;
    uint32_t client, object;
    uint64_t ctx, us;
};

static struct {
    pthread_mutex_t lock;
    uint32_t count;
    struct group groups[GROUPS_MAX];
} rm = {.lock = PTHREAD_MUTEX_INITIALIZER};

static struct group *find(int fd, uint32_t client, uint32_t object)
{
    for (uint32_t i = 0; i < rm.count; i++)
        if (rm.groups[i].fd == fd && rm.groups[i].client == client && rm.groups[i].object == object)
            return &rm.groups[i];
    return NULL;
}

static uint32_t make(int fd, const struct lithos_rm_alloc *a)
{
    if (a->class != LITHOS_RM_CLASS_CHANNEL_GROUP || a->params_bytes != sizeof(uint64_t))
        return LITHOS_RM_NOT_SUPPORTED;
    if (rm.count == GROUPS_MAX || find(fd, a->client, a->object))
        return LITHOS_RM_INVALID_OBJECT_HANDLE;
    struct group g = {.fd = fd, .client = a->client, .object = a->object, .us = DEFAULT_US};
    memcpy(&g.ctx, (const void *)(uintptr_t)a->params, sizeof g.ctx);
    rm.groups[rm.count++] = g;
    return LITHOS_RM_OK;
}

static uint32_t set(struct group *g, uint64_t us)
{
    const char *how = getenv("LITHOS_VGPU_RM");
    struct vgpu_slice m = {.h = {.magic = VGPU_WIRE_MAGIC,
                                 .version = VGPU_WIRE_VERSION,
                                 .type = VGPU_CTX_SLICE,
                                 .size = sizeof m},
                           .ctx = g->ctx,
                           .us = us};
    ssize_t n;
    if (how && !strcmp(how, "refuse"))
        return LITHOS_RM_INSUFFICIENT_PERMISSIONS;
    if (!us || us > VGPU_SLICE_MAX_US)
        return LITHOS_RM_NOT_SUPPORTED;
    do {
        n = send(g->fd, &m, sizeof m, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n == (ssize_t)sizeof m)
        g->us = us;
    return n == (ssize_t)sizeof m ? LITHOS_RM_OK : LITHOS_RM_NOT_SUPPORTED;
}

static uint32_t control(int fd, const struct lithos_rm_control *c)
{
    struct group *g = find(fd, c->client, c->object);
    struct lithos_rm_timeslice *slice = (struct lithos_rm_timeslice *)(uintptr_t)c->params;
    if (!g)
        return LITHOS_RM_OBJECT_NOT_FOUND;
    if (!slice || c->params_bytes != sizeof *slice)
        return LITHOS_RM_NOT_SUPPORTED;
    if (c->command == LITHOS_RM_GROUP_SET_TIMESLICE)
        return set(g, slice->us);
    if (c->command != LITHOS_RM_GROUP_GET_TIMESLICE)
        return LITHOS_RM_NOT_SUPPORTED;
    slice->us = g->us;
    return LITHOS_RM_OK;
}

static uint32_t release(int fd, const struct lithos_rm_free *f)
{
    struct group *g = find(fd, f->client, f->object);
    if (!g)
        return LITHOS_RM_OBJECT_NOT_FOUND;
    *g = rm.groups[--rm.count];
    return LITHOS_RM_OK;
}

static bool is_ours(int fd)
{
    int type = 0;
    socklen_t size = sizeof type;
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_SEQPACKET;
}

LITHOS_EXPORT int ioctl(int fd, unsigned long request, ...)
{
    va_list ap;
    va_start(ap, request);
    void *arg = va_arg(ap, void *);
    va_end(ap);
    if (_IOC_TYPE(request) != LITHOS_RM_IOCTL_TYPE || !is_ours(fd))
        return (int)syscall(SYS_ioctl, fd, request, arg);
    int r = 0;
    pthread_mutex_lock(&rm.lock);
    if (request == LITHOS_RM_REQUEST(LITHOS_RM_ALLOC, struct lithos_rm_alloc))
        ((struct lithos_rm_alloc *)arg)->status = make(fd, arg);
    else if (request == LITHOS_RM_REQUEST(LITHOS_RM_CONTROL, struct lithos_rm_control))
        ((struct lithos_rm_control *)arg)->status = control(fd, arg);
    else if (request == LITHOS_RM_REQUEST(LITHOS_RM_FREE, struct lithos_rm_free))
        ((struct lithos_rm_free *)arg)->status = release(fd, arg);
    else
        r = -1;
    pthread_mutex_unlock(&rm.lock);
    if (r < 0)
        errno = EINVAL;
    return r;
}
