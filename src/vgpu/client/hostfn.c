#include "vgpu/client/hostfn.h"

#include <signal.h>

#include "vgpu/client/client.h"

static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t filled = PTHREAD_COND_INITIALIZER;
static struct vgpu_op *first, *last;
static bool started;

static void run_one(struct vgpu_op *op)
{
    struct CUstream_st *s = op->stream;
    pthread_mutex_lock(&vgpu.lock);
    CUresult sticky = s->ctx->sticky ? s->ctx->sticky : vgpu.lost;
    pthread_mutex_unlock(&vgpu.lock);
    if (op->host.stream_fn) /* called also when the context is lost, and told so */
        op->host.stream_fn(s->kind == VGPU_STREAM_LEGACY ? NULL : s, sticky, op->host.user);
    else if (!sticky)
        op->host.fn(op->host.user);
    vgpu_hostfn_end(op);
}

void vgpu_hostfn_end(struct vgpu_op *op)
{
    struct CUstream_st *s = op->stream;
    pthread_mutex_lock(&vgpu.issue);
    pthread_mutex_lock(&vgpu.lock);
    s->host_blocked = false;
    if (s->done < s->issued)
        s->done++;
    pthread_cond_broadcast(&vgpu.changed);
    pthread_mutex_unlock(&vgpu.lock);
    vgpu_pump_all(s->ctx);
    pthread_mutex_unlock(&vgpu.issue);
    vgpu_op_free(op);
}

static void *loop(void *unused)
{
    (void)unused;
    for (;;) {
        pthread_mutex_lock(&guard);
        while (!first)
            pthread_cond_wait(&filled, &guard);
        struct vgpu_op *op = first;
        first = op->next;
        pthread_mutex_unlock(&guard);
        run_one(op);
    }
    return NULL;
}

static bool start(void)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pthread_t thread;
    bool ok = pthread_create(&thread, NULL, loop, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (ok)
        pthread_detach(thread);
    return ok;
}

void vgpu_hostfn_run(struct vgpu_op *op)
{
    op->next = NULL;
    pthread_mutex_lock(&guard);
    started = started || start();
    if (first)
        last->next = op;
    else
        first = op;
    last = op;
    pthread_cond_signal(&filled);
    bool ok = started;
    pthread_mutex_unlock(&guard);
    if (!ok)
        vgpu_lost(CUDA_ERROR_OUT_OF_MEMORY, "no thread for a host function");
}
