#include "vgpu/server/check.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"

/* Bytes of each message; 0: not a client's */
static const size_t sizes[VGPU_MSG_TYPE_MAX] = {
    [VGPU_HELLO] = sizeof(struct vgpu_hello),
    [VGPU_CTX_CREATE] = sizeof(struct vgpu_ctx),
    [VGPU_CTX_DESTROY] = sizeof(struct vgpu_ctx),
    [VGPU_STREAM_CREATE] = sizeof(struct vgpu_stream),
    [VGPU_STREAM_DESTROY] = sizeof(struct vgpu_stream),
    [VGPU_LAUNCH] = sizeof(struct vgpu_launch),
    [VGPU_COPY] = sizeof(struct vgpu_copy),
    [VGPU_MARK] = sizeof(struct vgpu_mark),
    [VGPU_WAIT] = sizeof(struct vgpu_wait),
    [VGPU_CTX_SLICE] = sizeof(struct vgpu_slice),
    [VGPU_QUERY] = sizeof(struct vgpu_query),
};

static const char *check_hello(const struct vgpu_hello *m)
{
    if (m->mps > 1)
        return "hello: mps is not 0 or 1";
    if (m->thread_percent > 100)
        return "hello: thread percentage over 100";
    if (m->priority < 0 || m->priority > 1)
        return "hello: client priority is not 0 or 1";
    return NULL;
}

static const char *check_launch(const struct vgpu_launch *m)
{
    if (!m->op || !m->stream)
        return "launch: op or stream is 0";
    if (m->flags & ~(VGPU_LAUNCH_WANT_PLACEMENT | VGPU_LAUNCH_ATOM | VGPU_LAUNCH_ORDERED))
        return "launch: unknown flag";
    if (m->param_count > VGPU_PARAMS)
        return "launch: more parameters than the message holds";
    if (!memchr(m->kernel, 0, sizeof m->kernel))
        return "launch: the kernel's name does not end";
    return NULL;
}

static const char *check_copy(const struct vgpu_copy *m)
{
    if (!m->op || !m->stream)
        return "copy: op or stream is 0";
    if (m->kind >= VGPU_COPY_KIND_MAX)
        return "copy: unknown kind";
    if (m->bytes > 1ull << 48)
        return "copy: more bytes than any card has";
    return NULL;
}

static const char *check_body(const union vgpu_client_msg *m)
{
    switch (m->h.type) {
    case VGPU_HELLO:
        return check_hello(&m->hello);
    case VGPU_CTX_CREATE:
    case VGPU_CTX_DESTROY:
        return m->ctx.ctx ? NULL : "context 0";
    case VGPU_STREAM_CREATE:
    case VGPU_STREAM_DESTROY:
        return m->stream.stream && m->stream.ctx ? NULL : "stream or context 0";
    case VGPU_LAUNCH:
        return check_launch(&m->launch);
    case VGPU_COPY:
        return check_copy(&m->copy);
    case VGPU_MARK:
        return m->mark.op && m->mark.stream ? NULL : "mark: op or stream is 0";
    case VGPU_WAIT:
        return m->wait.mark && m->wait.stream ? NULL : "wait: mark or stream is 0";
    case VGPU_CTX_SLICE:
        return m->slice.ctx && m->slice.us && m->slice.us <= VGPU_SLICE_MAX_US
                   ? NULL
                   : "slice: context 0, or no such time";
    case VGPU_QUERY:
        return m->query.what < VGPU_QUERY_WHAT_MAX ? NULL : "query: of what there is not";
    default:
        return "a message that is not a client's to send";
    }
}

int vgpu_check_client_msg(const union vgpu_client_msg *m, size_t len, const char **ret_why)
{
    const char *why = NULL;
    if (len < sizeof m->h)
        why = "shorter than a header";
    else if (m->h.magic != VGPU_WIRE_MAGIC)
        why = "wrong magic number";
    else if (m->h.version != VGPU_WIRE_VERSION)
        why = "another version of the protocol";
    else if (m->h.type >= LITHOS_ARRAY_SIZE(sizes) || !sizes[m->h.type])
        why = "a message that is not a client's to send";
    else if (m->h.size != len || len != sizes[m->h.type])
        why = "wrong size for its type";
    else
        why = check_body(m);
    if (!why)
        return 0;
    *ret_why = why;
    return -EINVAL;
}
