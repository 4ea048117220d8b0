#include "driver/exports.h"

#include <string.h>

#include "cuda/cuda_abi.h"
#include "driver/loader.h"

/* All names in one block without a pointer among them, so that loading relocates nothing. */
static const struct names {
#define EXPORT(name) char name[sizeof #name];
#include "cuda/exports.def"
#undef EXPORT
} names = {
#define EXPORT(name) #name,
#include "cuda/exports.def"
#undef EXPORT
};

static const uint16_t name_offsets[LITHOS_EXPORT_MAX] = {
#define EXPORT(name) offsetof(struct names, name),
#include "cuda/exports.def"
#undef EXPORT
};

_Static_assert(sizeof(struct names) < UINT16_MAX, "name offsets are 16 bits");

const char *lithos_export_name(enum lithos_export e)
{
    return (const char *)&names + name_offsets[e];
}

int lithos_export_find(const char *name)
{
    int low = 0, high = LITHOS_EXPORT_MAX - 1; /* exports.def is sorted; test_driver_exports checks it */
    while (low <= high) {
        int middle = (low + high) / 2;
        int order = strcmp(name, lithos_export_name((enum lithos_export)middle));
        if (!order)
            return middle;
        if (order < 0)
            high = middle - 1;
        else
            low = middle + 1;
    }
    return -1;
}

void *lithos_export_address(enum lithos_export e)
{
    return (char *)lithos_export_offsets + lithos_export_offsets[e];
}

void *lithos_export_real(enum lithos_export e)
{
    return lithos_driver_symbol(lithos_export_name(e));
}

/* Stand-ins for what is not there. Callers pass any number of arguments; none is looked at. */
static CUresult no_driver(void)
{
    return CUDA_ERROR_NO_DEVICE;
}

static CUresult no_such_function(void)
{
    return CUDA_ERROR_NOT_FOUND;
}

void *lithos_export_resolve(uint64_t index)
{
    if (!lithos_driver_handle()) {
        /* Not stored while the driver is being opened by this very thread: the answer may still come. */
        return (void *)no_driver;
    }
    void *target = lithos_export_real((enum lithos_export)index);
    if (!target)
        target = (void *)no_such_function;
    atomic_store_explicit(&lithos_real_slots[index], target, memory_order_relaxed);
    return target;
}
