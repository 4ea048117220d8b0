/* Attributes of functions, which decide what the driver takes of a launch and how it runs: set while launches made under other values are queued.
 *
 * Libraries set the most shared memory that a function's launches may have before many of them, to what the next one needs. Draining for
 * that, a training would wait for its queue several times an iteration. It only says what is refused, so the driver is given the
 * largest value alone: what is queued stays allowed. A smaller one is kept here (shared_limit), is what the app is told when it asks,
 * and goes to the driver when a launch comes that it forbids. */
#include <limits.h>

#include "driver/exports.h"
#include "tenant/queue_internal.h"

#define SHARED CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES

/* cuFuncSetAttribute and cuKernelSetAttribute, cuFuncGetAttribute and cuKernelGetAttribute have their arguments in different places. */
struct where {
    bool kernel;
    unsigned attribute;
    int value; /* to set */
    CUfunction handle;
    int device; /* of a CUkernel */
};

/* NOLINTBEGIN(performance-no-int-to-ptr): the words of a call */
static struct where where_of(uint32_t function, const uintptr_t *args)
{
    switch (function) {
    case LITHOS_EXPORT_cuKernelSetAttribute:
        return (struct where){true, (unsigned)args[0], (int)args[1], (CUfunction)args[2], (int)args[3]};
    case LITHOS_EXPORT_cuKernelGetAttribute:
        return (struct where){true, (unsigned)args[1], 0, (CUfunction)args[2], (int)args[3]};
    case LITHOS_EXPORT_cuFuncGetAttribute:
        return (struct where){false, (unsigned)args[1], 0, (CUfunction)args[2], 0};
    default:
        return (struct where){false, (unsigned)args[1], (int)args[2], (CUfunction)args[0], 0};
    }
}
/* NOLINTEND(performance-no-int-to-ptr) */

typedef CUresult (*func_get_fn)(int *, int, CUfunction);
typedef CUresult (*kernel_get_fn)(int *, int, CUfunction, CUdevice);
typedef CUresult (*func_set_fn)(CUfunction, int, int);
typedef CUresult (*kernel_set_fn)(int, int, CUfunction, CUdevice);

static CUresult get_shared(const struct where *w, int *ret)
{
    return w->kernel ? LITHOS_REAL(kernel_get_fn, cuKernelGetAttribute)(ret, SHARED, w->handle, w->device)
                     : LITHOS_REAL(func_get_fn, cuFuncGetAttribute)(ret, SHARED, w->handle);
}

static CUresult set_real(const struct where *w)
{
    return w->kernel ? LITHOS_REAL(kernel_set_fn, cuKernelSetAttribute)((int)w->attribute, w->value,
                                                                        w->handle, w->device)
                     : LITHOS_REAL(func_set_fn, cuFuncSetAttribute)(w->handle, (int)w->attribute, w->value);
}

static bool one_device(void)
{
    return atomic_load_explicit(&lithos_hook_only_device, memory_order_relaxed) >= 0;
}

/* Who sets it has set it for launches that no other thread's setting may forbid meanwhile. Not the queue's lock: the driver is called under it. */
static pthread_mutex_t setting = PTHREAD_MUTEX_INITIALIZER;

/* The most shared memory. False: nothing is known of the function. */
static bool set_shared(struct queue_function *f, const struct where *w, CUresult *ret_result)
{
    int had = 0;
    if (!f || !one_device() || w->value < 0)
        return false;
    pthread_mutex_lock(&setting);
    bool known = get_shared(w, &had) == CUDA_SUCCESS;
    if (known)
        *ret_result = w->value >= had ? set_real(w) : CUDA_SUCCESS;
    if (known && *ret_result == CUDA_SUCCESS) {
        f->shared_device = w->kernel ? w->device : -1;
        atomic_store_explicit(&f->shared_limit, w->value >= had ? INT_MAX : w->value, memory_order_release);
    }
    pthread_mutex_unlock(&setting);
    return known;
}

void lithos_queue_settle_shared(struct queue *q, CUfunction handle)
{
    lithos_queue_drain_all(q, NULL, LITHOS_DRAIN_CODE);
    pthread_mutex_lock(&setting);
    struct queue_function *f = lithos_queue_function_here(q, handle);
    int limit = f ? atomic_load(&f->shared_limit) : INT_MAX;
    if (limit != INT_MAX) {
        const struct where w = {f->shared_device >= 0, SHARED, limit, handle, f->shared_device};
        set_real(&w); /* it was less than what the driver has: refused, it stays as it was */
        atomic_store(&f->shared_limit, INT_MAX);
        atomic_fetch_add(&f->version, 1);
    }
    pthread_mutex_unlock(&setting);
}

bool lithos_queue_get_attribute(struct queue *q, uint32_t function, const uintptr_t *args,
                                CUresult *ret_result)
{
    const struct where w = where_of(function, args);
    const struct queue_function *f = w.attribute == SHARED ? lithos_queue_function_here(q, w.handle) : NULL;
    int limit = f ? atomic_load_explicit(&f->shared_limit, memory_order_acquire) : INT_MAX;
    if (limit == INT_MAX || !args[0])
        return false;
    *(int *)args[0] = limit; /* NOLINT(performance-no-int-to-ptr): the app's */
    *ret_result = CUDA_SUCCESS;
    return true;
}

/* Libraries set the same attribute to the same value before each launch: that changes nothing. */
bool lithos_queue_set_attribute(struct queue *q, uint32_t function, const uintptr_t *args,
                                CUresult *ret_result)
{
    const struct where w = where_of(function, args);
    struct queue_function *f = lithos_queue_function_here(q, w.handle);
    if (w.attribute == CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT)
        return false; /* a hint: it changes no result, nor what is refused */
    if (w.attribute == SHARED && set_shared(f, &w, ret_result))
        return true;
    bool told = f && w.attribute < LITHOS_ARRAY_SIZE(f->value) && one_device();
    pthread_mutex_lock(&q->lock);
    bool same = told && f->set >> w.attribute & 1 && f->value[w.attribute] == w.value;
    pthread_mutex_unlock(&q->lock);
    if (same)
        return false;
    lithos_queue_drain_all(q, NULL, LITHOS_DRAIN_CODE);
    *ret_result = set_real(&w);
    pthread_mutex_lock(&q->lock);
    if (f)
        atomic_fetch_add(&f->version, 1);
    if (told && *ret_result == CUDA_SUCCESS) {
        f->set |= (uint16_t)(1u << w.attribute);
        f->value[w.attribute] = w.value;
    }
    pthread_mutex_unlock(&q->lock);
    return true;
}
