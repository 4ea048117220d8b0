/* Words in memory that streams write and wait for. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "vgpu/client/client.h"
#include "vgpu/client/hostfn.h"

#define HOW_MASK 3u   /* CU_STREAM_WAIT_VALUE_GEQ, _EQ, _AND, _NOR */
#define LOOK_NS 20000 /* between two looks at the words that are waited for */

/* ---- waiting: a thread looks at the words, as long as streams wait for any */

static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t filled = PTHREAD_COND_INITIALIZER;
static struct vgpu_op *waiting; /* under guard */
static bool started;

static bool there(const struct vgpu_op *op)
{
    uint64_t is = 0, value = op->word.value;
    pthread_mutex_lock(&vgpu.lock);
    const struct CUctx_st *ctx = op->stream->ctx;
    bool over = ctx->sticky || ctx->destroyed || vgpu.lost;
    pthread_mutex_unlock(&vgpu.lock);
    const uint8_t *at = vgpu_translate(op->word.address, op->word.bytes, NULL);
    if (over || !at)
        return true;
    if (op->word.bytes == sizeof(uint32_t))
        is = __atomic_load_n((const uint32_t *)(const void *)at, __ATOMIC_ACQUIRE);
    else
        is = __atomic_load_n((const uint64_t *)(const void *)at, __ATOMIC_ACQUIRE);
    switch (op->word_flags & HOW_MASK) {
    case CU_STREAM_WAIT_VALUE_GEQ: /* as the difference of two numbers that go round */
        return op->word.bytes == sizeof(uint32_t) ? (int32_t)((uint32_t)is - (uint32_t)value) >= 0
                                                  : (int64_t)(is - value) >= 0;
    case CU_STREAM_WAIT_VALUE_EQ:
        return is == value;
    case CU_STREAM_WAIT_VALUE_AND:
        return (is & value) != 0;
    default: { /* CU_STREAM_WAIT_VALUE_NOR */
        uint64_t all = op->word.bytes == sizeof(uint32_t) ? UINT32_MAX : UINT64_MAX;
        return (~(is | value) & all) != 0;
    }
    }
}

static struct vgpu_op *take_ready(void)
{
    for (struct vgpu_op **p = &waiting; *p; p = &(*p)->next)
        if (there(*p)) {
            struct vgpu_op *op = *p;
            *p = op->next;
            return op;
        }
    return NULL;
}

static void *look(void *unused)
{
    static const struct timespec nap = {.tv_nsec = LOOK_NS};
    (void)unused;
    for (;;) {
        pthread_mutex_lock(&guard);
        while (!waiting)
            pthread_cond_wait(&filled, &guard);
        struct vgpu_op *op = take_ready();
        pthread_mutex_unlock(&guard);
        if (op)
            vgpu_hostfn_end(op);
        else
            nanosleep(&nap, NULL);
    }
    return NULL;
}

static bool start(void)
{
    sigset_t all, old;
    pthread_t thread;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    bool ok = pthread_create(&thread, NULL, look, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (ok)
        pthread_detach(thread);
    return ok;
}

void vgpu_word_wait(struct vgpu_op *op)
{
    pthread_mutex_lock(&guard);
    started = started || start();
    op->next = waiting;
    waiting = op;
    pthread_cond_signal(&filled);
    bool ok = started;
    pthread_mutex_unlock(&guard);
    if (!ok)
        vgpu_lost(CUDA_ERROR_OUT_OF_MEMORY, "no thread to look at a word that a stream waits for");
}

/* ---- ops, of streams and of nodes of graphs */

static CUresult wait_op(struct CUstream_st *s, CUdeviceptr address, uint64_t value, unsigned bytes,
                        unsigned flags, struct vgpu_op **ret_op)
{
    if (flags & ~(HOW_MASK | CU_STREAM_WAIT_VALUE_FLUSH) || address % bytes ||
        !vgpu_translate(address, bytes, NULL))
        return CUDA_ERROR_INVALID_VALUE;
    struct vgpu_op *op = vgpu_op_new(s, VGPU_OP_HOST);
    if (!op)
        return CUDA_ERROR_OUT_OF_MEMORY;
    op->word.address = address;
    op->word.value = value;
    op->word.bytes = bytes;
    *ret_op = op;
    return CUDA_SUCCESS;
}

/* A copy of one word, which the card's copy engine brings. */
static CUresult write_op(struct CUstream_st *s, CUdeviceptr address, uint64_t value, unsigned bytes,
                         unsigned flags, struct vgpu_op **ret_op)
{
    uint8_t *at = vgpu_translate(address, bytes, NULL);
    if (flags & ~(unsigned)CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER || address % bytes || !at)
        return CUDA_ERROR_INVALID_VALUE;
    struct vgpu_op *op = vgpu_op_new(s, VGPU_OP_COPY);
    if (op)
        op->copy.staged = malloc(bytes);
    if (!op || !op->copy.staged) {
        vgpu_op_free(op);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    memcpy(op->copy.staged, &value, bytes);
    op->copy.dst = at;
    op->copy.src = op->copy.staged;
    op->copy.bytes = bytes;
    vgpu_msg_init(&op->msg.h, VGPU_COPY, sizeof op->msg.copy);
    op->msg.copy.bytes = bytes;
    op->msg.copy.kind = VGPU_COPY_H2D;
    *ret_op = op;
    return CUDA_SUCCESS;
}

CUresult vgpu_word_op(struct CUstream_st *stream, const CUstreamBatchMemOpParams *params,
                      struct vgpu_op **ret_op)
{
    CUdeviceptr address = params->waitValue.address; /* as all but operation: where writeValue has it */
    unsigned flags = params->waitValue.flags;
    CUresult r;
    switch (params->operation) {
    case CU_STREAM_MEM_OP_WAIT_VALUE_32:
        r = wait_op(stream, address, params->waitValue.value, sizeof(uint32_t), flags, ret_op);
        break;
    case CU_STREAM_MEM_OP_WAIT_VALUE_64:
        r = wait_op(stream, address, params->waitValue.value64, sizeof(uint64_t), flags, ret_op);
        break;
    case CU_STREAM_MEM_OP_WRITE_VALUE_32:
        r = write_op(stream, address, params->writeValue.value, sizeof(uint32_t), flags, ret_op);
        break;
    case CU_STREAM_MEM_OP_WRITE_VALUE_64:
        r = write_op(stream, address, params->writeValue.value64, sizeof(uint64_t), flags, ret_op);
        break;
    default:
        lithos_log_once(LITHOS_LOG_WARNING,
                        "virtual GPU: memory operation %d is not implemented; waits for words and "
                        "writes of words are",
                        params->operation);
        return CUDA_ERROR_NOT_SUPPORTED;
    }
    if (r)
        return r;
    (*ret_op)->is_word = true;
    (*ret_op)->word_flags = flags;
    return CUDA_SUCCESS;
}

bool vgpu_word_alike(const struct vgpu_op *a, const struct vgpu_op *b)
{
    if (a->kind != b->kind || a->stream->ctx != b->stream->ctx)
        return false;
    if (a->kind == VGPU_OP_COPY)
        return a->copy.bytes == b->copy.bytes && a->word_flags == b->word_flags;
    return a->word.bytes == b->word.bytes && !((a->word_flags ^ b->word_flags) & ~HOW_MASK);
}

/* ---- entry points */

static CUresult put(CUstream stream, const CUstreamBatchMemOpParams *params, bool per_thread)
{
    struct CUstream_st *s;
    struct vgpu_op *op;
    VGPU_TRY(vgpu_stream_get(stream, per_thread, &s));
    VGPU_TRY(vgpu_word_op(s, params, &op));
    if (s->capture) {
        vgpu_op_free(op);
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    return vgpu_issue(op, false);
}

#define WORD(name, what, field, type, thread)                                                        \
    CU_API(name, CUstream stream, CUdeviceptr address, type value, unsigned flags)                   \
    {                                                                                                \
        const CUstreamBatchMemOpParams p = {                                                         \
            .waitValue = {.operation = (what), .address = address, .field = value, .flags = flags}}; \
        return put(stream, &p, thread);                                                              \
    }
#define WORDS(name, what, field, type)         \
    WORD(name, what, field, type, false)       \
    WORD(name##_ptsz, what, field, type, true) \
    WORD(name##_v2, what, field, type, false)  \
    WORD(name##_v2_ptsz, what, field, type, true)

WORDS(cuStreamWaitValue32, CU_STREAM_MEM_OP_WAIT_VALUE_32, value, uint32_t)
WORDS(cuStreamWaitValue64, CU_STREAM_MEM_OP_WAIT_VALUE_64, value64, uint64_t)
WORDS(cuStreamWriteValue32, CU_STREAM_MEM_OP_WRITE_VALUE_32, value, uint32_t)
WORDS(cuStreamWriteValue64, CU_STREAM_MEM_OP_WRITE_VALUE_64, value64, uint64_t)
