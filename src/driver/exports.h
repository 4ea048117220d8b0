/* Everything the real driver exports, by index, and the addresses behind the names.
 *
 * Each exported name is one jump through lithos_real_slots (exports.S), or, for the names in hooks.def, a
 * jump to the C function lithos_hook_NAME, which reaches the real one through the same slot. A slot starts as
 * a stub that opens the real driver at the first call, so that a process which never touches CUDA pays
 * nothing. */
#pragma once

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum lithos_export {
#define EXPORT(name) LITHOS_EXPORT_##name,
#include "cuda/exports.def"
#undef EXPORT
    LITHOS_EXPORT_MAX,
};

/* Where calls go: the real function, or the stub that finds it. Valid to call at any time, never NULL. */
extern void *_Atomic lithos_real_slots[LITHOS_EXPORT_MAX] __attribute__((visibility("hidden")));
/* What others see: the exported symbols themselves, in index order. */
extern const int32_t lithos_export_offsets[LITHOS_EXPORT_MAX] __attribute__((visibility("hidden")));

/* The real function as a pointer of the given type. */
#define LITHOS_REAL(type, name) \
    ((type)atomic_load_explicit(&lithos_real_slots[LITHOS_EXPORT_##name], memory_order_relaxed))

const char *lithos_export_name(enum lithos_export e);
/* Index of a name, or -1. */
int lithos_export_find(const char *name);
/* Address of our own exported symbol. */
void *lithos_export_address(enum lithos_export e);
/* Address of the real driver's function, NULL when it has none of that name or there is no driver. Opens the
 * driver. */
void *lithos_export_real(enum lithos_export e);
/* Called by the stubs: finds the target, stores it in the slot, returns it. Never NULL. */
void *lithos_export_resolve(uint64_t index) __attribute__((visibility("hidden")));
